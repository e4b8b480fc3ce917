"""Text to token ids: the same as transformers, cut to the lengths that the task and the backbone allow."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from conftest import TEXTS
from tokenizers import Tokenizer

from edgetune_runtime import Task
from edgetune_runtime.errors import BundleError, TaskError
from edgetune_runtime.text import TextEncoder

POSITIONS = 64
CASES = [
    *TEXTS,
    "",
    " ",
    "lamp",
    "The LAMP,\tthe lamp!\n",
    "Größe 赤い ランプ 😀 é e\u0301",
    "[MASK] is [SEP] good [PAD][CLS]",
    "the lamp is broken " * 40,
    "a\0b \ufeff \u2028 zzzzzzzzzzzzzzzzzzzz",
]


def task(prompt: int = 0, **fields: Any) -> Task:
    tensors = {"head_weight": np.zeros((2, 4), np.float32), "head_bias": np.zeros(2, np.float32)}
    if prompt:
        tensors["prompt_embeddings"] = np.zeros((prompt, 4), np.float32)
    return Task("task", ("a", "b"), "0" * 64, tensors, "prompt", "tiny", **{"pooling": "cls", **fields})


@pytest.fixture(scope="module")
def tokenizer_json(model_folder: Path) -> bytes:
    return (model_folder / "tokenizer.json").read_bytes()


@pytest.fixture(scope="module")
def encoder(tokenizer_json: bytes) -> TextEncoder:
    return TextEncoder(tokenizer_json, POSITIONS, "[MASK]")


@pytest.fixture(scope="module")
def reference(model_folder: Path) -> Any:
    from transformers import AutoTokenizer

    return AutoTokenizer.from_pretrained(model_folder)


@pytest.mark.parametrize("length", [3, 4, 7, 16, 63, 64])
@pytest.mark.parametrize("text", CASES, ids=range(len(CASES)))
def test_ids_are_those_of_transformers(encoder: TextEncoder, reference: Any, text: str, length: int) -> None:
    (tokens,) = encoder.encode([text], [task(max_length=length)])
    assert tokens.ids == reference(text, truncation=True, max_length=length)["input_ids"]
    assert tokens.truncated == (len(reference(text)["input_ids"]) > length)
    assert 2 <= len(tokens.ids) <= length


def test_a_text_that_just_fits_is_not_truncated(encoder: TextEncoder, reference: Any) -> None:
    whole = reference("the lamp is broken")["input_ids"]
    fits, cut = encoder.encode(
        ["the lamp is broken"] * 2, [task(max_length=len(whole)), task(max_length=len(whole) - 1)]
    )
    assert (fits.ids, fits.truncated) == (whole, False)
    assert (cut.ids, cut.truncated) == ([*whole[:-2], whole[-1]], True)


def test_each_text_is_read_as_its_own_task_says(encoder: TextEncoder) -> None:
    tasks = [task(max_length=4), task(max_length=60), task(template="good {text}"), task(max_length=4)]
    texts = ["the lamp is broken today", "the lamp is broken today", "good", "lamp"]
    together = encoder.encode(texts, tasks)
    assert together == [encoder.encode([text], [one])[0] for text, one in zip(texts, tasks, strict=True)]
    assert [tokens.truncated for tokens in together] == [True, False, False, False]


def test_no_texts_give_no_tokens(encoder: TextEncoder) -> None:
    assert encoder.encode([], []) == []


@pytest.mark.parametrize(
    ("template", "text", "filled"),
    [
        ("the {text} is good", "lamp", "the lamp is good"),
        ("the {text}", "{text} lamp", "the {text} lamp"),
        ("{text} {other} {} %s", "lamp", "lamp {other} {} %s"),
        ("the {text}", "", "the "),
    ],
)
def test_the_template_is_filled(encoder: TextEncoder, reference: Any, template: str, text: str, filled: str) -> None:
    (tokens,) = encoder.encode([text], [task(template=template)])
    assert tokens.ids == reference(filled)["input_ids"]
    assert not tokens.truncated


@pytest.mark.parametrize("length", range(8, 26, 2))
def test_a_long_text_is_cut_and_not_what_the_template_puts_behind_it(
    encoder: TextEncoder, reference: Any, length: int
) -> None:
    filling = task(template="so: {text} it is {mask}.", max_length=length, pooling="mask")
    text = "the lamp is broken and the screen stays black"
    (tokens,) = encoder.encode([text], [filling])
    whole = reference(f"so: {text} it is [MASK].")["input_ids"]
    before = len(reference("so:")["input_ids"]) - 1
    behind = len(reference(" it is [MASK].")["input_ids"]) - 1
    assert tokens.truncated == (len(whole) > length)
    assert len(tokens.ids) == min(length, len(whole))
    if before + behind <= length < len(whole):
        assert tokens.ids == whole[: length - behind] + whole[-behind:]


def test_a_mask_token_in_a_text_is_no_second_mask(encoder: TextEncoder, reference: Any) -> None:
    filling = task(template="{text} {mask}", pooling="mask")
    (tokens,) = encoder.encode(["lamp [MASK] good"], [filling])
    assert tokens.ids == reference("lamp   good [MASK]")["input_ids"]


@pytest.mark.parametrize(
    ("one", "length"),
    [
        (task(), 64),
        (task(max_length=64), 64),
        (task(max_length=63), 63),
        (task(max_length=5), 5),
        (task(position_offset=10), 54),
        (task(prompt=10), 54),
        (task(prompt=10, position_offset=10), 54),
        (task(prompt=10, position_offset=12), 52),
        (task(prompt=12, position_offset=10), 52),
        (task(position_offset=10, max_length=54), 54),
        (task(position_offset=10, max_length=53), 53),
        (task(prompt=4, max_length=8), 8),
    ],
)
def test_the_length_leaves_room_for_the_prompt(encoder: TextEncoder, one: Task, length: int) -> None:
    assert encoder.max_length(one) == length
    long, short = encoder.encode(["lamp " * 200, "lamp"], [one, one])
    assert (len(long.ids), long.truncated) == (length, True)
    assert (len(short.ids), short.truncated) == (3, False)


def test_stored_truncation_and_padding_are_not_applied(tokenizer_json: bytes, encoder: TextEncoder) -> None:
    stored = Tokenizer.from_buffer(tokenizer_json)
    stored.enable_truncation(4)
    stored.enable_padding(length=32)
    meddling = TextEncoder(stored.to_str().encode(), POSITIONS)
    tasks = [task()] * len(TEXTS)
    assert meddling.encode(TEXTS, tasks) == encoder.encode(TEXTS, tasks)


@pytest.mark.parametrize("data", [b"", b"{}", b"\xff\xfe", b'{"version": "1.0"}', b"[" * 100_000])
def test_a_broken_tokenizer_is_refused(data: bytes) -> None:
    with pytest.raises(BundleError, match=r"tokenizer.json cannot be read .* export the bundle again"):
        TextEncoder(data, POSITIONS)


def test_a_new_task_has_the_length_that_the_backbone_allows(encoder: TextEncoder) -> None:
    assert encoder.fitted(task(max_length=600)).max_length == 64
    assert encoder.fitted(task(prompt=10, max_length=60)).max_length == 54
    assert encoder.fitted(task(max_length=20)).max_length == 20


def test_a_template_that_leaves_no_room_for_text_is_refused(encoder: TextEncoder) -> None:
    long = task(template="the lamp is broken {text} and the screen stays black", max_length=8)
    with pytest.raises(TaskError, match=r"takes \d+ tokens, special tokens included, of 8 that are read"):
        encoder.fitted(long)


def test_ids_that_the_backbone_does_not_know_are_refused(tokenizer_json: bytes) -> None:
    largest = max(Tokenizer.from_buffer(tokenizer_json).get_vocab().values())
    words = "the lamp is broken"
    (tokens,) = TextEncoder(tokenizer_json, POSITIONS).encode([words], [task()])
    assert max(tokens.ids) < largest
    TextEncoder(tokenizer_json, POSITIONS, vocabulary_size=max(tokens.ids) + 1).encode([words], [task()])
    with pytest.raises(BundleError, match=rf"gives the token id {max(tokens.ids)}, and the backbone knows"):
        TextEncoder(tokenizer_json, POSITIONS, vocabulary_size=max(tokens.ids)).encode([words], [task()])


def test_a_tokenizer_that_gives_more_tokens_than_positions_is_refused(tokenizer_json: bytes) -> None:
    record = json.loads(tokenizer_json)
    record["post_processor"]["special_tokens"]["[CLS]"].update(ids=[2] * 63, tokens=["[CLS]"] * 63)
    with pytest.raises(BundleError, match=r"adds \d+ special tokens to a text, and the backbone has 64 positions"):
        TextEncoder(json.dumps(record).encode(), POSITIONS)


def test_a_panic_of_the_tokenizer_is_an_error_of_its_file(tokenizer_json: bytes) -> None:
    record = json.loads(tokenizer_json)
    record["normalizer"] = {"type": "Precompiled", "precompiled_charsmap": "AAAA"}
    with pytest.raises(BundleError, match=r"tokenizer\.json cannot be read .*precompiled_charsmap"):
        TextEncoder(json.dumps(record).encode(), POSITIONS)


@pytest.mark.parametrize("error", [KeyboardInterrupt, SystemExit])
def test_an_interrupt_is_no_error_of_the_tokenizer(
    encoder: TextEncoder, monkeypatch: pytest.MonkeyPatch, error: type[BaseException]
) -> None:
    class Interrupted:
        def encode_batch(self, *_: object, **__: object) -> None:
            raise error

    monkeypatch.setattr(encoder, "_tokenizer", Interrupted())
    with pytest.raises(error):
        encoder.encode(["lamp"], [task()])
