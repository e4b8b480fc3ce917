"""Pairs of texts: ids and segments equal those of transformers' own tokenizers, also if the pair is cut."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from functools import cache
from typing import Any

import numpy as np
import pytest
from conftest import MakeTask
from hypothesis import example, given, settings
from hypothesis import strategies as st

from edgetune_runtime import Bundle, Engine, Task
from edgetune_runtime.errors import TaskError, TextError
from edgetune_runtime.text import TextEncoder, longest_first

WORDS = ("the", "lamp", "is", "broken", "good", "it", "so", "and", "?")
"""Each is one token."""
MOST = 40


def word_piece() -> dict[str, int]:
    names = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *WORDS, "##s", "##e", "s", "e", ":", ".")
    return {name: place for place, name in enumerate(names)}


def bert() -> Any:
    from transformers import BertTokenizer

    return BertTokenizer(vocab=word_piece())


def electra() -> Any:
    from transformers import ElectraTokenizer

    return ElectraTokenizer(vocab=word_piece())


def albert() -> Any:
    from transformers import AlbertTokenizer

    special = ("<pad>", "<unk>", "[CLS]", "[SEP]", "[MASK]")
    return AlbertTokenizer(vocab=[*((name, 0.0) for name in special), *((f"▁{word}", -1.0) for word in WORDS)])


def roberta() -> Any:
    """Two separators between the texts, and no second segment."""
    from transformers import RobertaTokenizer

    names = ("<s>", "<pad>", "</s>", "<unk>", "<mask>", *"Ġabcdefghiklmnoprst?:", "Ġa", "Ġl")
    vocabulary = {name: place for place, name in enumerate(names)}
    return RobertaTokenizer(vocab=vocabulary, merges=[("Ġ", "a"), ("Ġ", "l")])


MAKERS: dict[str, Callable[[], Any]] = {"albert": albert, "bert": bert, "electra": electra, "roberta": roberta}
every_tokenizer = pytest.mark.parametrize("name", MAKERS)


@cache
def reference(name: str) -> Any:
    """transformers' own tokenizer."""
    return MAKERS[name]()


@cache
def encoder(name: str) -> TextEncoder:
    """Our tokenizer, from the same file."""
    data = reference(name).backend_tokenizer.to_str().encode()
    return TextEncoder(data, MOST, reference(name).mask_token)


def of_transformers(name: str, *texts: str, **how: Any) -> tuple[list[int], list[int]]:
    """Ids and segments. A batch is used, because otherwise an empty second text is ignored."""
    given = [[text] for text in texts]
    found = reference(name)(*given, return_token_type_ids=True, **how)
    return found["input_ids"][0], found["token_type_ids"][0]


def task(**fields: Any) -> Task:
    tensors = {"head_weight": np.zeros((2, 4), np.float32), "head_bias": np.zeros(2, np.float32)}
    return Task("task", ("a", "b"), "0" * 64, tensors, "prompt", "tiny", **{"pooling": "cls", "pairs": True, **fields})


sentences = st.lists(st.sampled_from(WORDS), max_size=14).map(" ".join)


@every_tokenizer
@settings(deadline=None, max_examples=120)
@given(first=sentences, second=sentences, room=st.integers(1, 30))
@example(first="", second="", room=1)
@example(first="the lamp is", second="good it so", room=3)
@example(first="the lamp is", second="good it so", room=1)
def test_ids_and_segments_are_those_of_transformers(name: str, first: str, second: str, room: int) -> None:
    length = reference(name).num_special_tokens_to_add(pair=True) + room
    expected = of_transformers(name, first, second, truncation="longest_first", max_length=length)
    (whole, _) = of_transformers(name, first, second)
    (tokens,) = encoder(name).encode([(first, second)], [task(max_length=length)])
    assert (tokens.ids, tokens.type_ids) == expected
    assert tokens.truncated == (len(whole) > length)


@every_tokenizer
def test_pairs_and_single_texts_come_mixed(name: str) -> None:
    texts = [("the lamp", "is it broken ?"), "the lamp is broken", ("so", ""), ("", "so"), "", ("it", "it")]
    tasks = [task(pairs=isinstance(text, tuple)) for text in texts]
    for tokens, text in zip(encoder(name).encode(texts, tasks), texts, strict=True):
        given = text if isinstance(text, tuple) else (text,)
        assert (tokens.ids, tokens.type_ids) == of_transformers(name, *given)
        assert not tokens.truncated


def test_the_second_segment_is_where_the_family_has_it() -> None:
    ((_, tokens), (_, without)) = [
        (name, encoder(name).encode([("the lamp", "is good")], [task()])[0]) for name in ("bert", "roberta")
    ]
    assert tokens.type_ids == [0, 0, 0, 0, 1, 1, 1]
    assert set(without.type_ids) == {0}


@every_tokenizer
@pytest.mark.parametrize("pooling", ["cls", "mean", "last", "pooler"])
def test_a_pair_is_read_as_one_text(name: str, pooling: str) -> None:
    (tokens,) = encoder(name).encode([("the lamp", "is good")], [task(pooling=pooling)])
    length = len(tokens.ids)
    expected = {"cls": (0, 1), "pooler": (0, 1), "mean": (0, length), "last": (length - 1, length)}
    assert tokens.spans == (expected[pooling],)


@settings(deadline=None, max_examples=200)
@given(
    first=st.integers(0, 14),
    second=st.integers(0, 14),
    length=st.integers(8, 36),
    template=st.sampled_from(
        [
            "so : {text} and {text_pair} it is {mask} .",
            "{text_pair} {text} {mask}",
            "{text} {mask} {text_pair}",
            "is {text} ? {mask} , {text_pair}",
        ]
    ),
)
def test_a_pair_in_a_template_is_cut_and_not_the_template(first: int, second: int, length: int, template: str) -> None:
    """The longer text first, as without a template; with segments of one text."""
    own = reference("bert")
    filling = task(template=template, pooling="mask", max_length=length)
    texts = "lamp " * first, "broken " * second
    (tokens,) = encoder("bert").encode([texts], [filling])
    fixed = template.replace("{text}", "").replace("{text_pair}", "").replace("{mask}", "[MASK]")
    room = length - len(own(fixed)["input_ids"])
    if room >= 0:
        numbers = {"{text}": first, "{text_pair}": second}
        slots = sorted(numbers, key=template.index)  # of two equally long texts, the first one is cut first
        kept = dict(zip(slots, longest_first([numbers[slot] for slot in slots], room), strict=True))
        filled = template.replace("{mask}", "[MASK]")
        filled = filled.replace("{text}", "lamp " * kept["{text}"]).replace(
            "{text_pair}", "broken " * kept["{text_pair}"]
        )
        assert tokens.ids == own(filled)["input_ids"]
        assert tokens.ids[tokens.spans[0][0]] == own.mask_token_id
        assert tokens.truncated == (kept != numbers)
    assert len(tokens.ids) <= length
    assert set(tokens.type_ids) == {0}


@pytest.mark.parametrize(
    ("texts", "one", "message"),
    [
        ("lamp", task(), "takes pairs of texts, and one text came: expected (text, text_pair)"),
        (("lamp", "good"), task(pairs=False), "takes single texts, and a pair came: expected a text alone"),
    ],
)
def test_a_text_that_is_not_what_the_task_takes_is_refused(texts: Any, one: Task, message: str) -> None:
    with pytest.raises(TextError) as caught:
        encoder("bert").encode([texts], [one])
    assert message in str(caught.value)


def test_slots_in_texts_stay_as_they_are() -> None:
    """A text may contain `{text_pair}`."""
    own = reference("bert")
    one = task(template="{text} and {text_pair}")
    (tokens,) = encoder("bert").encode([("{text_pair} lamp", "{text} good")], [one])
    assert tokens.ids == own("{text_pair} lamp and {text} good")["input_ids"]


def test_masks_of_both_texts_are_read_as_spaces() -> None:
    own = reference("bert")
    one = task(template="{text} {mask} {text_pair}", pooling="mask")
    (tokens,) = encoder("bert").encode([("lamp [MASK]", "[MASK] good")], [one])
    assert tokens.ids == own("lamp [MASK] good")["input_ids"]


def test_a_new_task_of_pairs_has_room_for_text_or_is_refused() -> None:
    joined, template = task(max_length=100), task(template="so : {text} and {text_pair} it is", max_length=100)
    assert encoder("bert").fitted(joined).max_length == MOST
    assert encoder("bert").fitted(template).max_length == MOST
    with pytest.raises(TaskError, match="takes 3 tokens, special tokens included, of 3 that are read"):
        encoder("bert").fitted(task(max_length=3))
    assert encoder("bert").fitted(task(max_length=4)).max_length == 4


@every_tokenizer
def test_whether_something_stands_between_the_texts_is_known(name: str) -> None:
    assert encoder(name).separates_pairs


def test_a_tokenizer_that_joins_pairs_without_a_word_says_so(model_folder: Any) -> None:
    data = (model_folder / "tokenizer.json").read_bytes()  # its template has no pairs
    assert not TextEncoder(data, MOST).separates_pairs


@pytest.mark.parametrize("template", ["{text}{text_pair}", "{text_pair} {text}", "so {text_pair}: {text}."])
def test_in_a_task_of_single_texts_the_second_slot_is_text(bundle: Bundle, make_task: MakeTask, template: str) -> None:
    """As edgetune 0.1 read it."""
    task = dataclasses.replace(make_task(), template=template)
    task.check("the task")
    with Engine(bundle, "fp32") as engine:
        (found,) = engine.encode(["good"], [task])
        before, _, after = template.partition("{text}")
        (spelt,) = engine.encode([f"{before}good{after}"], [make_task()])
    assert found.ids == spelt.ids
