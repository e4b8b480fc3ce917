"""The kind `tokens`: decoding, entities and their places, figures as seqeval has them, what data means."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edgetune_runtime.decoding import _most_probable, decode, row_of, spans_of, tag_names
from edgetune_runtime.fitting.by_kind import FITTINGS
from edgetune_runtime.fitting.examples import Examples
from edgetune_runtime.kinds import EntitiesResult, Entity, FoundEntity, Read
from edgetune_runtime.kinds.tokens import TOKENS
from edgetune_runtime.tags import scheme_of, tagged
from edgetune_runtime.task import Task
from edgetune_runtime.words import words

LABELS = ("place", "who")
TEXT = "I met Ann Lee in Rome."
READ = Read(TEXT, tuple(words(TEXT)))


def task(**more: Any) -> Task:
    return Task("t", LABELS, "0" * 64, {}, "prefix", "tiny", "mean", kind_name="tokens", **more)


def logits_of(tags: Sequence[str], sure: float = 5.0) -> np.ndarray:
    """Logits of words that have these tags."""
    found = np.zeros((len(tags), 5), np.float32)
    found[np.arange(len(tags)), [tag_names(LABELS).index(tag) for tag in tags]] = sure
    return found


def legal(tags: Sequence[int]) -> bool:
    return all(tag == 0 or tag % 2 or before in (tag, tag - 1) for before, tag in zip((0, *tags), tags, strict=False))


# ---- decoding ----


@given(st.integers(0, 2**32), st.integers(1, 5), st.integers(0, 2))
def test_decoding_is_the_best_legal_sequence(seed: int, length: int, labels: int) -> None:
    logits = np.random.default_rng(seed).normal(size=(length, 1 + 2 * labels)).astype(np.float32)
    best = max(
        (tags for tags in itertools.product(range(1 + 2 * labels), repeat=length) if legal(tags)),
        key=lambda tags: logits[np.arange(length), list(tags)].astype(np.float64).sum(),
    )
    assert decode(logits).tolist() == list(best)


@given(st.integers(0, 2**32), st.lists(st.integers(0, 6), min_size=1, max_size=5))
def test_several_texts_are_decoded_as_each_alone(seed: int, lengths: list[int]) -> None:
    random = np.random.default_rng(seed)
    texts = [random.normal(size=(length, 5)).astype(np.float32) for length in lengths]
    first = np.concatenate([np.arange(length) == 0 for length in lengths])
    if len(first):
        alone = [decode(own) for own in texts if len(own)]
        np.testing.assert_array_equal(decode(np.concatenate(texts), first), np.concatenate(alone))


@given(seed=st.integers(0, 10_000), length=st.integers(20, 200), outside=st.sampled_from([-1.0, 1.0, 3.0]))
def test_a_long_text_is_decoded_as_at_once(seed: int, length: int, outside: float) -> None:
    """Only stretches around what is broken are searched."""
    logits = np.random.default_rng(seed).normal(0, 1, (length, 7)).astype(np.float32)
    logits[:, 0] += outside
    tags = decode(logits)
    assert legal(tags.tolist())
    assert tags.tolist() == _most_probable(logits)


def test_a_word_does_not_go_on_with_what_did_not_begin() -> None:
    logits = np.array([[1.0, 0, 0.9, 0, 0], [0.0, 0, 3, 0, 0]], np.float32)  # word by word: O, I-place
    assert logits.argmax(axis=1).tolist() == [0, 2]
    assert decode(logits).tolist() == [1, 2]  # 0 + 3 is more than 1 + 0


def test_tags_of_several_labels_and_their_spans() -> None:
    rows = decode(logits_of(["B-who", "I-who", "B-who", "O", "B-place"]))
    assert spans_of(rows) == [(0, 2, 1), (2, 3, 1), (4, 5, 0)]
    assert tag_names(LABELS) == ["O", "B-place", "I-place", "B-who", "I-who"]


# ---- answers ----


def test_an_answer_has_the_characters_of_the_text() -> None:
    logits = logits_of(["O", "O", "B-who", "I-who", "O", "B-place", "O"])
    found = TOKENS.answer(logits, task(temperature=2.0), Read(TEXT, READ.places, truncated=True), "int8")
    sure = float(np.exp(2.5) / (np.exp(2.5) + 4))
    assert found.entities == (
        FoundEntity("who", 6, 13, "Ann Lee", pytest.approx(sure)),
        FoundEntity("place", 17, 21, "Rome", pytest.approx(sure)),
    )
    assert (found.status, found.precision) == ("truncated", "int8")
    assert found.fields() == {"entities": [vars(one) for one in found.entities]}
    assert found.at(sure + 0.01).entities == ()
    assert found.at(sure - 0.01) == found


def test_the_score_is_the_mean_of_the_words() -> None:
    logits = logits_of(["B-who", "I-who"])
    logits[1] *= 0.2
    (found,) = TOKENS.answer(logits, task(), Read("Ann Lee", ((0, 3), (4, 7)))).entities
    assert found.score == pytest.approx(np.mean([np.exp(z) / (np.exp(z) + 4) for z in (5, 1)]))


def test_a_text_without_words_has_no_entity() -> None:
    found = TOKENS.answer(np.zeros((0, 5), np.float32), task(), Read(" \n"))
    assert found.entities == ()
    assert TOKENS.margin(np.zeros((0, 5), np.float32), task()) == np.inf


@pytest.mark.parametrize(("number", "rank"), [(1, 0), (63, 0), (64, 1), (200, 3)])
def test_the_margin_leaves_out_a_word_in_64(number: int, rank: int) -> None:
    logits = np.random.default_rng(0).normal(size=(number, 5)).astype(np.float32)
    scores = np.exp(logits.astype(np.float64))
    scores = np.sort(scores / scores.sum(axis=1, keepdims=True), axis=1)
    assert TOKENS.margin(logits, task()) == pytest.approx(np.sort(scores[:, -1] - scores[:, -2])[rank])


def test_agreement_is_the_f1_of_the_entities() -> None:
    one = [logits_of(["B-who", "I-who", "O"]), logits_of(["B-place"])]
    other = [logits_of(["B-who", "O", "O"]), logits_of(["B-place"])]
    assert TOKENS.agreement(one, one, task()) == 1
    assert TOKENS.agreement(one, other, task()) == 0.5
    assert TOKENS.agreement([logits_of(["O"])], [logits_of(["O"])], task()) == 1


# ---- figures ----

TAGS = st.lists(st.sampled_from(["O", "B-place", "I-place", "B-who", "I-who"]), min_size=1, max_size=8)


def sound(tags: Sequence[str]) -> list[str]:
    """The tags with `B-` where an entity begins."""
    found: list[str] = []
    for tag in tags:
        before = found[-1] if found else "O"
        found.append(f"B{tag[1:]}" if tag[0] == "I" and before[1:] != tag[1:] else tag)
    return found


def result_of(tags: Sequence[str]) -> EntitiesResult:
    tokens = [f"w{place}" for place in range(len(tags))]
    text, entities = tagged(tokens, tags)
    found = [FoundEntity(one.label, one.start, one.end, text[one.start : one.end], 0.5) for one in entities]
    return EntitiesResult(task="t", entities=tuple(found))


@settings(deadline=None)
@given(st.lists(TAGS.flatmap(lambda own: st.tuples(st.just(own), st.permutations(own))), min_size=1, max_size=6))
def test_figures_are_seqevals(pairs: list[tuple[list[str], list[str]]]) -> None:
    metrics = pytest.importorskip("seqeval.metrics")
    right, given_ = ([sound(pair[side]) for pair in pairs] for side in (0, 1))
    tokens = [[f"w{place}" for place in range(len(own))] for own in right]
    targets = [tagged(*row)[1] for row in zip(tokens, right, strict=True)]
    found = TOKENS.figures(targets, list(map(result_of, given_)), task())
    for name, figure in (("f1", "f1_score"), ("precision", "precision_score"), ("recall", "recall_score")):
        expected = getattr(metrics, figure)(right, given_, zero_division=0)
        assert found.values[f"entity_{name}"] == pytest.approx(float(expected))
    if not any(tag != "O" for own in (*right, *given_) for tag in own):
        return
    report = metrics.classification_report(right, given_, output_dict=True, zero_division=0)
    for label, own in found.by_label.items():
        if label in report:
            assert own["entities"] == report[label]["support"]
            for name, called in (("precision", "precision"), ("recall", "recall"), ("f1", "f1-score")):
                assert own[name] == pytest.approx(float(report[label][called]))


@given(st.lists(st.tuples(TAGS, st.integers(0, 2**32)), min_size=1, max_size=5))
def test_what_chooses_the_epoch_is_the_figure(rows: list[tuple[list[str], int]]) -> None:
    reads, targets, logits = [], [], []
    for tags, seed in rows:
        tokens = [f"w{place}" for place in range(len(tags))]
        text, target = tagged(tokens, sound(tags))
        reads.append(Read(text, tuple(words(text))))
        targets.append(target)
        logits.append(np.random.default_rng(seed).normal(size=(len(tags), 5)).astype(np.float32))
    examples, made = Examples.of(TOKENS, targets, reads, LABELS), np.concatenate(logits)
    figure = examples.figures(made, task()).values["entity_f1"]
    assert FITTINGS["tokens"].measure.of(made, examples.numbers) == pytest.approx(figure)


def test_how_wrong_an_answer_is() -> None:
    right = (Entity(0, 2, "who"), Entity(3, 5, "place"))
    assert TOKENS.wrong_by(result_of(["B-who", "B-place"]), right) == 0
    assert TOKENS.wrong_by(result_of(["B-who", "O"]), right) == 1
    assert TOKENS.wrong_by(result_of(["B-who", "B-who"]), right) == 1.5


# ---- what data means ----


@pytest.mark.parametrize(
    "value",
    [
        [{"start": 6, "end": 13, "label": "who"}, {"start": 17, "end": 21, "label": "place"}],
        [[17, 21, "place"], (6, 13, "who")],
        '[[6, 13, "who"], [17, 21, "place"]]',
        [{"start": 6, "end": 13, "text": "Ann Lee", "labels": ["who"]}, [17.0, 21, "place"]],
        [{"start_offset": 6, "end_offset": 13, "label": "who", "id": 4}, [17, 21, "place"]],
        [{"start": 6, "end": 13, "entity_group": "who", "score": 0.9}, [17, 21, "place"]],
    ],
)
def test_what_a_value_means(value: object) -> None:
    assert TOKENS.sees([[], value])
    target = TOKENS.target(value)
    assert target == (Entity(6, 13, "who"), Entity(17, 21, "place"))
    assert TOKENS.checked(target, TEXT) == target
    assert TOKENS.named(target) == LABELS
    assert TOKENS.target(TOKENS.written(target)) == target


@pytest.mark.parametrize("value", [None, [], "", "[]"])
def test_no_entity(value: object) -> None:
    assert TOKENS.target(value) == ()
    assert not TOKENS.sees([value])


@pytest.mark.parametrize(
    ("value", "told"),
    [
        ("who", "expected a list of entities"),
        (7, "expected a list of entities"),
        ([["who"]], "expected a list of entities, each an object"),
        ([{"label": "who"}], "an entity goes from None to None: expected a start of at least 0"),
        ([[-1, 3, "who"]], "goes from -1 to 3"),
        ([[3, 3, "who"]], "goes from 3 to 3"),
        ([[True, 3, "who"]], "goes from True to 3"),
        ([[0, 3.5, "who"]], "goes from 0 to 3.5"),
        ([[0, 3, None]], "has the label None: expected one label"),
        ([[0, 3, ["a", "b"]]], "expected one label"),
        ([[0, 5, "a"], [3, 9, "b"]], "a from 0 to 5 and b from 3 to 9 overlap"),
        ([[0, 9, "a"], [3, 5, "b"]], "a from 0 to 9 and b from 3 to 5 overlap"),
        ([[0, 3, "a"], [0, 3, "a"]], "overlap"),
    ],
)
def test_what_means_nothing(value: object, told: str) -> None:
    with pytest.raises(ValueError, match=told) as raised:
        TOKENS.target(value)
    assert "\n" not in str(raised.value)


@pytest.mark.parametrize(
    ("text", "entity", "told"),
    [
        ("Rome", (0, 5), "ends at 5, and the text has 4 characters"),
        ("", (0, 1), "the text is empty"),
        (" \t", (0, 1), "the text is empty"),
        ("a  b", (1, 3), "has only spaces"),
        ("é Rome now", (3, 7), "offsets are bytes of UTF-8: 'Rome', which the data has from 3 to 7, goes from 2 to 6"),
        ("😀 in Rome", (8, 12), "offsets are bytes of UTF-8: 'Rome'"),
        ("😀 in Rome", (6, 10), "offsets are UTF-16 units: 'Rome'"),
        ("Größe é Rome", (11, 15), "offsets are bytes of UTF-8"),
    ],
)
def test_an_entity_that_does_not_go_with_its_text(text: str, entity: tuple[int, int], told: str) -> None:
    with pytest.raises(ValueError, match=told) as raised:
        TOKENS.checked((Entity(*entity, "who"),), text)
    assert "\n" not in str(raised.value)


def test_spaces_at_the_ends_are_no_part_of_an_entity() -> None:
    assert TOKENS.checked((Entity(1, 9, "who"),), "( Ann L\t ") == (Entity(2, 7, "who"),)


@given(st.text(st.sampled_from("aé😀京 .\u0301"), min_size=1, max_size=12), st.data())
def test_offsets_of_words_in_characters_are_taken(text: str, data: st.DataObject) -> None:
    if places := words(text):
        begin, end = data.draw(st.sampled_from(places))
        target = (Entity(begin, end, "who"),)
        assert TOKENS.checked(target, text) == target


def test_an_entity_inside_a_word_is_learned_as_the_word_and_counted() -> None:
    text = "Berliners like Rome"
    read = Read(text, tuple(words(text)))
    target = (Entity(0, 6, "place"), Entity(15, 19, "place"))
    tags = TOKENS.pieces(target, read)
    assert [row_of(tag, LABELS) for tag in tags] == [1, 0, 1]
    assert TOKENS.unfit(target, read) == 1
    (remark,) = Examples.of(TOKENS, [target], [read], LABELS).remarks
    assert remark.startswith("1 entities do not begin and end where words do")


def test_entities_behind_the_end_that_was_read_are_not_counted() -> None:
    read = Read(TEXT, READ.places[:4], truncated=True)
    assert TOKENS.unfit((Entity(6, 13, "who"), Entity(17, 21, "place")), read) == 0


# ---- schemes of tags ----

WORDS = ["Ann", "Lee", "Rome", "x"]
ENTITIES = (Entity(0, 7, "who"), Entity(8, 12, "place"))


@pytest.mark.parametrize(
    ("tags", "name"),
    [
        (["B-who", "I-who", "B-place", "O"], "BIO"),
        (["I-who", "I-who", "I-place", "O"], "IOB1"),
        (["B-who", "L-who", "U-place", "O"], "BILOU"),
        (["B-who", "E-who", "S-place", "O"], "BIOES"),
        (["B_who", "I_who", "B_place", "O"], "BIO"),
    ],
)
def test_schemes(tags: list[str], name: str) -> None:
    scheme = scheme_of([tags])
    assert (scheme.name, scheme.odd) == (name, 0)
    assert tagged(WORDS, tags) == ("Ann Lee Rome x", ENTITIES)


def test_a_b_in_iob1_parts_two_entities_of_one_label() -> None:
    tags = ["I-who", "B-who", "O", "I-who"]
    assert scheme_of([tags]).name == "IOB1"
    assert [one[:2] for one in tagged(WORDS, tags)[1]] == [(0, 3), (4, 7), (13, 14)]


@given(st.lists(TAGS, min_size=1, max_size=4))
def test_bilou_and_bio_say_the_same(rows: list[list[str]]) -> None:
    for tags in map(sound, rows):
        ends = [place + 1 == len(tags) or tags[place + 1][0] != "I" for place in range(len(tags))]
        letters = {("B", False): "B", ("B", True): "U", ("I", False): "I", ("I", True): "L"}
        other = [tag if tag == "O" else letters[tag[0], end] + tag[1:] for tag, end in zip(tags, ends, strict=True)]
        tokens = [f"w{place}" for place in range(len(tags))]
        assert tagged(tokens, tags) == tagged(tokens, other)
        assert scheme_of([other]).odd == 0


def test_what_a_scheme_does_not_say_is_counted() -> None:
    scheme = scheme_of([["B-who", "O", "I-who", "O"], ["I-who", "B-place"]])
    assert (scheme.name, scheme.odd) == ("BIO", 2)
    assert scheme.remarks[0].startswith("2 entities begin with I-")


@pytest.mark.parametrize(
    ("rows", "told"),
    [
        ([["B-who", "X-who"]], "the tag 'X-who' is not known"),
        ([["NN", "O"]], "the tag 'NN' is not known: expected O, or a label behind B- or I-"),
        ([["B-"]], "the tag 'B-' is not known"),
        ([["B-who,I-place"]], "the tag 'B-who,I-place' is several tags of one word: expected one"),
        ([["B-who", "L-who"], ["S-who"]], "the prefixes B, L, S: expected those of one scheme"),
        ([["B-who", "O"], ["I-place"]], "the label 'place' has only I- tags"),
    ],
)
def test_tags_of_no_scheme(rows: list[list[str]], told: str) -> None:
    with pytest.raises(ValueError, match=told) as raised:
        scheme_of(rows)
    assert "\n" not in str(raised.value)


def test_as_many_tags_as_tokens() -> None:
    with pytest.raises(ValueError, match="1 tags came for 2 tokens: expected one for each"):
        tagged(["a", "b"], ["O"])
