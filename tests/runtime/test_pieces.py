"""Spans of words in tokens: every tokenizer, templates, pairs, prompts, windows; and answers from them."""

from __future__ import annotations

import dataclasses
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from conftest import MakeTask
from hypothesis import given, settings
from test_words import SCRIPTS
from tokenizers import Tokenizer, processors

from edgetune_runtime import Bundle, Engine, Task
from edgetune_runtime.errors import TaskError, TextError
from edgetune_runtime.kinds import EntitiesResult
from edgetune_runtime.pieces import pieces_of, stacked_spans
from edgetune_runtime.text import TextEncoder, Tokens
from edgetune_runtime.words import words

BUNDLES = Path(__file__).parents[1] / "conformance" / "bundle"
TOKENIZERS = ("encoder", "decoder", "encoder-decoder")
"""BERT's word pieces, GPT-2's bytes, T5's unigrams after NFKC."""

ENCODERS = {name: TextEncoder((BUNDLES / name / "tokenizer.json").read_bytes(), 512) for name in TOKENIZERS}


def task(pooling: str = "mean", **more: Any) -> Task:
    settings_ = {"template": "{text}", "max_length": 512, **more}
    return Task("t", ("a",), "", {}, "random", "tiny", pooling, kind_name="tokens", **settings_)


def read(name: str, text: Any, own: Task) -> Tokens:
    (found,) = ENCODERS[name].encode([text], [own])
    return found


def texts_of(name: str, tokens: Tokens) -> list[str]:
    """The text of each span of each window."""
    tokenizer = ENCODERS[name]._tokenizer
    return [tokenizer.decode(window.ids[slice(*span)]) for window in tokens.windows for span in window.spans]


@pytest.mark.parametrize("name", TOKENIZERS)
def test_spans_are_the_words_tokens(name: str) -> None:
    text = "  the lamp, is broken"
    found = read(name, text, task())
    assert [text[begin:end] for begin, end in found.read.places] == ["the", "lamp", ",", "is", "broken"]
    assert [one.strip() for one in texts_of(name, found)] == ["the", "lamp", ",", "is", "broken"]
    first, last = read(name, text, task("cls")), read(name, text, task("last"))
    assert first.spans == tuple((begin, begin + 1) for begin, _ in found.spans)
    assert last.spans == tuple((end - 1, end) for _, end in found.spans)


@pytest.mark.parametrize("name", TOKENIZERS)
@settings(deadline=None, max_examples=3_400)  # 10,200 with all tokenizers
@given(text=SCRIPTS)
def test_places_are_words_of_the_text_whatever_it_has(name: str, text: str) -> None:
    found = read(name, text, task())
    places, every = found.read.places, words(text)
    assert found.read.text == text
    assert set(places) <= set(every)
    assert list(places) == sorted(places)
    assert len(found.spans) == len(places)
    ends = [(0, 0), *found.spans]
    for (before, _), (begin, end) in pairwise(ends):
        assert before <= begin < end <= len(found.ids)
    if name == "decoder":  # it has a token for every byte
        assert list(places) == every


def of_robertas_kind() -> TextEncoder:
    """The bytes of GPT-2's kind, whose tokens lie where the spaces before them end, between special tokens."""
    tokenizer = Tokenizer.from_file(str(BUNDLES / "decoder/tokenizer.json"))
    ends = ("</s>", tokenizer.token_to_id("</s>")), ("<s>", tokenizer.token_to_id("<s>"))
    tokenizer.post_processor = processors.RobertaProcessing(*ends, trim_offsets=True, add_prefix_space=False)
    return TextEncoder(tokenizer.to_str().encode(), 512)


@settings(deadline=None, max_examples=60)
@given(text=SCRIPTS)
def test_each_word_is_read_if_tokens_lie_behind_their_spaces(text: str) -> None:
    """Spaces are stripped once. If they were stripped again, a word of one letter would have no token."""
    encoder = of_robertas_kind()
    text += " a , a </s> I"
    (alone,) = encoder.encode([text], [task()])
    assert list(alone.places) == words(text)
    (filled,) = encoder.encode([text], [task(template="x {text} y")])
    assert list(filled.places) == words(text)
    (pair,) = encoder.encode([("a b </s>", text)], [task(pairs=True)])
    assert list(pair.places) == words("a b </s>")


@pytest.mark.parametrize("name", TOKENIZERS)
@pytest.mark.parametrize("text", ["", " ", "\u200b", "\r\n\t"])
def test_a_text_without_words(name: str, text: str) -> None:
    found = read(name, text, task())
    assert (found.spans, found.read.places) == ((), ())
    assert stacked_spans([found.spans]).tolist() == [[[0, 1]]]


@pytest.mark.parametrize("name", TOKENIZERS)
def test_spans_stand_in_the_template(name: str) -> None:
    text = "broken lamp"
    alone, framed = read(name, text, task()), read(name, text, task(template="the {text} is good"))
    assert framed.read.places == alone.read.places == ((0, 6), (7, 11))
    assert [one.strip() for one in texts_of(name, framed)] == ["broken", "lamp"]


@pytest.mark.parametrize("template", ["{text}", "the {text_pair}, {text}!"])
@pytest.mark.parametrize("name", TOKENIZERS)
def test_the_words_of_a_pair_are_those_of_its_first_text(name: str, template: str) -> None:
    if name == "decoder" and template == "{text}":
        template = "{text}\n{text_pair}"
    pair = ("the lamp the", "is the lamp")
    found = read(name, pair, task(pairs=True, template=template))
    assert found.read.text == pair[0]
    assert [one.strip() for one in texts_of(name, found)] == ["the", "lamp", "the"]
    swapped = read(name, pair[::-1], task(pairs=True, template=template))
    assert [one.strip() for one in texts_of(name, swapped)] == ["is", "the", "lamp"]


def test_a_text_that_is_cut_has_the_words_that_are_left() -> None:
    text = "the lamp is broken and the screen is good"
    found = read("encoder", text, task(max_length=6))
    assert (found.truncated, len(found.ids)) == (True, 6)
    assert [text[begin:end] for begin, end in found.read.places] == ["the", "lamp", "is", "broken"]
    framed = read("encoder", text, task(max_length=8, template="the {text} is good"))
    assert [text[begin:end] for begin, end in framed.read.places] == ["the", "lamp", "is"]


@pytest.mark.parametrize("template", ["{text}", "the {text}", "{text} is good", "the {text} is"])
@pytest.mark.parametrize("stride", [0, 2, 4])
@pytest.mark.parametrize("name", TOKENIZERS)
def test_each_word_is_answered_once_by_the_window_with_most_around_it(name: str, stride: int, template: str) -> None:
    text = "the lamp is broken, and the screen is good; 😀 größe " * 6
    own = task(long_texts="windows", stride=stride, max_length=24, template=template)
    found, whole = read(name, text, own), read(name, text, task(template=template))
    assert len(found.windows) > 2
    assert not found.truncated
    assert found.read == whole.read
    for part, span, one in zip(texts_of(name, found), whole.spans, texts_of(name, whole), strict=True):
        assert part.strip() == one.strip() or span[1] - span[0] > stride  # longer than the overlap of windows


def test_the_window_farthest_from_an_edge_by_hand() -> None:
    # Words of one token each; windows over tokens 0 to 4 and 2 to 6, in each of which token 0 is special.
    places = [(2 * at, 2 * at + 1) for at in range(7)]
    windows = [[(1 + at, *places[at]) for at in range(5)], [(1 + at, *places[at + 2]) for at in range(5)]]
    first, second = pieces_of(windows, places, "mean")
    # Word 2 is 2 from the right edge of the first window and at the left edge of the second; 3 stands alike in both.
    assert list(first) == [0, 1, 2, 3]
    assert list(second) == [4, 5, 6]
    assert second[4] == (3, 4)


def test_a_word_at_an_edge_is_whole_in_the_other_window() -> None:
    places = [(0, 1), (2, 6), (7, 8)]
    windows = [[(1, 0, 1), (2, 2, 4)], [(1, 2, 4), (2, 4, 6), (3, 7, 8)]]
    first, second = pieces_of(windows, places, "mean")
    assert (first, second) == ({0: (1, 2)}, {1: (1, 3), 2: (3, 4)})


def test_ids_alone_do_not_say_where_words_are() -> None:
    with pytest.raises(TextError, match="answers pieces of a text: expected the text, encoded"):
        ENCODERS["encoder"].tokens([1, 2], task())


@pytest.mark.parametrize("pooling", ["mask", "pooler", "decoder"])
def test_poolings_of_whole_texts_are_refused(make_task: MakeTask, pooling: str) -> None:
    own = dataclasses.replace(make_task(prefix=0, kind_name="tokens"), pooling=pooling)
    with pytest.raises(TaskError, match="expected one of mean, cls, last for the kind 'tokens'"):
        own.check("it")


# ---- answers of an engine ----

TEXTS = ["the lamp is broken", "", "good \u200b 😀 größe, where", "\x00", "the lamp"]


@pytest.mark.parametrize("precision", ["fp32", "int8"])
@pytest.mark.parametrize(("prompt", "prefix"), [(0, 0), (4, 0), (0, 3)])
def test_a_batch_answers_as_each_text_alone(
    bundle: Bundle, make_task: MakeTask, precision: str, prompt: int, prefix: int
) -> None:
    own = make_task("names", prompt, prefix, labels=2, kind_name="tokens")
    with Engine(bundle, precision, threads=1, prepare=False) as engine:
        engine.add_task(own)
        together = engine.classify(TEXTS, "names")
        assert together == [engine.classify([text], "names")[0] for text in TEXTS]
        for text, result in zip(TEXTS, together, strict=True):
            assert isinstance(result, EntitiesResult)
            for one in result.entities:
                assert text[one.start : one.end] == one.text != ""
        assert any(result.entities for result in together if isinstance(result, EntitiesResult))
    if precision == "fp32":
        with Engine(bundle, precision, batch_size=5, prepare=False) as engine:
            engine.add_task(own)
            for one, other in zip(engine.classify(TEXTS, "names"), together, strict=True):
                assert [{**own_, "score": 0} for own_ in one.fields()["entities"]] == [
                    {**own_, "score": 0} for own_ in other.fields()["entities"]
                ]


def test_words_share_the_pass_of_a_text_that_is_answered_as_a_whole(bundle: Bundle, make_task: MakeTask) -> None:
    with Engine(bundle, "fp32", threads=1, prepare=False) as engine:
        engine.add_task(make_task("names", prefix=0, labels=2, kind_name="tokens"))
        engine.add_task(make_task("mood", prefix=0, seed=2))
        text = "the lamp is broken"
        names, mood = engine.classify([text] * 2, tasks=["names", "mood"])
        assert [names] == engine.classify([text], "names")
        assert [mood] == engine.classify([text], "mood")


def test_features_of_a_text_are_the_mean_of_its_words(bundle: Bundle, make_task: MakeTask) -> None:
    own = make_task("names", prefix=0, labels=2, kind_name="tokens")
    with Engine(bundle, "fp32", threads=1, prepare=False) as engine:
        reads, features = engine.read_texts(TEXTS, own)
        ends = np.cumsum([len(one.places) for one in reads])[:-1]
        means = [part.mean(axis=0) if len(part) else np.zeros(features.shape[1]) for part in np.split(features, ends)]
        np.testing.assert_allclose(engine.features(TEXTS, own), means, atol=1e-6)
