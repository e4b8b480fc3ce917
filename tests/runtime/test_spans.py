"""Answers to questions: legal pairs, windows, training targets, figures.

Compared with results by hand and transformers.
"""

from __future__ import annotations

import itertools
import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from edgetune_runtime import Task
from edgetune_runtime.arrays import Array
from edgetune_runtime.candidates import MOST_WORDS, NO_PLACE, Candidates, numbered
from edgetune_runtime.fitting import pointers
from edgetune_runtime.fitting.examples import Examples
from edgetune_runtime.kinds import Answer, Read
from edgetune_runtime.kinds.spans import SPANS, AnswerResult
from edgetune_runtime.squad import match, normalized
from edgetune_runtime.words import words

CONTEXT = "the red lamp, which Nora opened in Leeds, is broken"
QUESTION = "what is broken?"


def task_of(**fields: Any) -> Task:
    return Task("t", ("answer",), "", {}, "random", "tiny", "mean", kind_name="spans", pairs=True, **fields)


def read_of(context: str = CONTEXT, *windows: slice) -> Read:
    """A context read in windows of words; by default in one window."""
    places = words(context)
    parts = [(NO_PLACE, *places[own]) for own in windows or (slice(None),)]
    return Read(context, tuple(itertools.chain(*parts)))


def logits_of(read: Read, **high: tuple[float, float]) -> Array:
    """Logits that are 0 except in the rows of these words ("none" is the first row)."""
    found = np.zeros((len(read.places), 2), np.float32)
    for row, (start, end) in enumerate(read.places):
        found[row] = high.get(read.text[start:end] or "none", (0.0, 0.0))
    return found


def answer_at(text: str, context: str = CONTEXT) -> Answer:
    return Answer(context.index(text), context.index(text) + len(text), text)


# ---- answers ----


def test_the_best_legal_pair() -> None:
    read = read_of()
    found = SPANS.answer(logits_of(read, red=(4, 0), lamp=(0, 3)), task_of(), read, "int8")
    assert found.best == Answer(4, 12, "red lamp") == found.answer
    weights = [  # of each legal pair, as there are fewer words than an answer may have
        math.exp(4 * (first == 1) + 3 * (last == 2)) for last in range(12) for first in range(last + 1)
    ]
    assert len(words(CONTEXT)) == 12 <= MOST_WORDS
    assert found.score == pytest.approx(math.exp(7) / (sum(weights) + 1))
    assert found.no_answer == pytest.approx(1 / (sum(weights) + 1))
    assert found.precision == "int8"
    hot = SPANS.answer(logits_of(read, red=(4, 0), lamp=(0, 3)), task_of(temperature=2.0), read)
    assert hot.best == found.best
    assert hot.score == pytest.approx(math.exp(3.5) / (sum(weight**0.5 for weight in weights) + 1))


def test_no_answer_ends_before_it_begins_or_is_too_long() -> None:
    read = read_of()
    assert SPANS.answer(logits_of(read, lamp=(5, 0), red=(0, 4)), task_of(), read).best.text.startswith("lamp")
    long = read_of(" ".join(f"w{number}" for number in range(40)))
    for last, best in ((f"w{MOST_WORDS - 1}", MOST_WORDS), (f"w{MOST_WORDS}", 1)):
        found = SPANS.answer(logits_of(long, w0=(9, 2), **{last: (0, 8)}), task_of(), long)
        assert len(found.best.text.split()) == best


def test_no_answer_is_scored_beside_the_best() -> None:
    read = read_of()
    logits = logits_of(read, none=(4, 5), red=(4, 0), lamp=(0, 3))
    found = SPANS.answer(logits, task_of(), read)
    assert (found.best, found.answer, found.score) == (None, None, found.no_answer)
    assert found.fields() == {
        "answer": None, "start": None, "end": None, "score": found.score, "no_answer": found.no_answer,
    }  # fmt: skip
    other = found.score / math.exp(2)
    assert SPANS.margin(logits, task_of(), read) == pytest.approx(found.score - other)


def test_an_answer_below_the_lowest_score_is_not_given() -> None:
    read = read_of()
    found = SPANS.answer(logits_of(read, red=(4, 0), lamp=(0, 3)), task_of(), read)
    assert found.at(found.score) == found
    above = found.at(found.score + 1e-9)
    assert (above.answer, above.best, above.status) == (None, found.best, "abstained")
    assert above.fields() | {"answer": None, "start": None, "end": None} == above.fields()


def test_windows_give_the_best_of_each_answer_and_the_least_of_none() -> None:
    """By definition: all legal pairs of each window, in plain loops."""
    random = np.random.default_rng(0)
    read = read_of(CONTEXT, slice(0, 7), slice(4, 10), slice(8, 12))
    numbers = numbered(read.places)
    assert numbers.tolist() == [-1, *range(7), -2, *range(4, 10), -2, *range(8, 12)]
    logits = random.normal(size=(len(numbers), 2)).astype(np.float32)
    best: dict[tuple[int, int], float] = {}
    starts = [*np.flatnonzero(numbers < 0), len(numbers)]
    for begin, end in itertools.pairwise(starts):
        for first in range(begin + 1, end):
            for last in range(first, end):
                pair = int(numbers[first]), int(numbers[last])
                best[pair] = max(best.get(pair, -math.inf), float(logits[first, 0]) + float(logits[last, 1]))
    found = Candidates.of(logits, numbers)
    assert found.none == pytest.approx(min(float(logits[row].sum(dtype=np.float64)) for row in starts[:-1]))
    assert {
        found.decision(place): value for place, value in enumerate(found.logits[:-1]) if np.isfinite(value)
    } == pytest.approx(best)
    for place, value in enumerate(found.logits):
        if np.isfinite(value):
            assert found.place(found.decision(place)) == place


def test_a_context_without_words_has_no_answer() -> None:
    read = Read(" ", (NO_PLACE,))
    found = SPANS.answer(np.zeros((1, 2), np.float32), task_of(), read)
    assert (found.best, found.score, found.no_answer) == (None, 1.0, 1.0)
    assert SPANS.margin(np.zeros((1, 2), np.float32), task_of(), read) == math.inf


def test_agreement_is_the_share_of_equal_answers() -> None:
    read = read_of()
    one, other = logits_of(read, red=(4, 0), lamp=(0, 3)), logits_of(read, red=(4, 1), lamp=(1, 9))
    none = logits_of(read, none=(9, 9))
    assert SPANS.agreement([one, one], [other, none], task_of(), [read, read]) == 0.5
    assert SPANS.agreement([one], [none], task_of()) == 0


# ---- what is right ----


@pytest.mark.parametrize(
    "value",
    [
        {"text": ["red lamp", "lamp"], "answer_start": [4, 8]},
        [{"text": "red lamp", "answer_start": 4}, {"text": "lamp", "answer_start": 8.0}],
        '{"text": ["red lamp", "lamp"], "answer_start": [4, 8]}',
        {"text": [" red lamp", "lamp"], "answer_start": [3, 8]},
        (Answer(4, 12, "red lamp"), Answer(8, 12, "lamp")),
    ],
)
def test_answers_of_data(value: object) -> None:
    found = SPANS.checked(SPANS.target(value), (QUESTION, CONTEXT))
    assert found == (Answer(4, 12, "red lamp"), Answer(8, 12, "lamp"))
    assert SPANS.checked(SPANS.target(SPANS.written(found)), (QUESTION, CONTEXT)) == found


@pytest.mark.parametrize(
    "values",
    [
        [{"text": ["red"], "answer_start": [4]}, None],
        [[], [{"text": "red", "answer_start": 4}]],
        ['{"text": ["red"], "answer_start": [4]}', ""],
    ],
)
def test_columns_of_answers_are_seen(values: list[object]) -> None:
    assert SPANS.sees(values)


@pytest.mark.parametrize("value", [None, "", [], {"text": [], "answer_start": []}])
def test_no_answer_of_data(value: object) -> None:
    assert SPANS.target(value) == ()


def test_other_labels_are_not_taken_for_answers() -> None:
    for values in (["a", "b"], [[]], [["a"]], [[{"start": 1, "end": 2, "label": "a"}]], [{"text": ["a"]}], [1.5]):
        assert not SPANS.sees(values)


@pytest.mark.parametrize(
    ("value", "told"),
    [
        (3, "expected answers as SQuAD has them"),
        ({"text": ["a"]}, "expected answers as SQuAD has them"),
        ({"text": ["a", "b"], "answer_start": [1]}, "2 texts came with 1 starts: expected as many of both"),
        ({"text": [""], "answer_start": [1]}, "an answer is '': expected a text"),
        ([{"text": "a"}], "the answer 'a' begins at None: expected a number of characters"),
        ([{"text": "a", "answer_start": -1}], "the answer 'a' begins at -1: expected a number of characters"),
        ([{"text": "a", "answer_start": math.nan}], "the answer 'a' begins at nan: expected a number"),
        ([{"text": "a", "answer_start": True}], "the answer 'a' begins at True: expected a number"),
    ],
)
def test_what_is_no_answer(value: object, told: str) -> None:
    with pytest.raises(ValueError, match=told) as error:
        SPANS.target(value)
    assert "\n" not in str(error.value)


MEAL = "Zoë 😀 ate a crème brûlée"


@pytest.mark.parametrize(
    ("pair", "start", "told"),
    [
        ((QUESTION, " "), 0, "the context is empty"),
        (("\n", MEAL), 12, "the question is empty"),
        (QUESTION, 12, "a question came without a context"),
        ((QUESTION, MEAL), 16, "begin at 16, which are bytes of UTF-8; in characters it begins at 12: expected"),
        ((QUESTION, MEAL), 13, "begin at 13, which are UTF-16 units; in characters it begins at 12: expected"),
        ((QUESTION, MEAL), 11, "begin at 11, and the context has ' crème brûlé'; it begins at 12: expected"),
        ((QUESTION, MEAL), 99, "begin at 99, and the context has ''; it begins at 12: expected the offset"),
        ((QUESTION, "a creme brulee"), 2, "and the context does not have it: expected an answer that is a stretch"),
    ],
)
def test_an_answer_that_is_not_where_it_is_said_to_be(pair: Any, start: int, told: str) -> None:
    target = SPANS.target([{"text": "crème brûlée", "answer_start": start}])
    with pytest.raises(ValueError, match=told) as error:
        SPANS.checked(target, pair)
    assert "\n" not in str(error.value)


def learned(target: tuple[Answer, ...], read: Read) -> list[str]:
    """The rows in which an answer begins (`<`) or ends (`>`)."""
    texts = [read.text[start:end] or "none" for start, end in read.places]
    marked = zip(texts, SPANS.pieces(target, read), strict=True)
    return [f"{'<' * piece.begins}{text}{'>' * piece.ends}" for text, piece in marked if piece.begins or piece.ends]


def test_what_is_learned_from_windows() -> None:
    read = read_of(CONTEXT, slice(0, 7), slice(4, 10), slice(8, 12))
    assert learned((answer_at("red lamp"),), read) == ["<red", "lamp>", "<none>", "<none>"]
    assert learned((answer_at("Nora"),), read) == ["<Nora>", "<Nora>", "<none>"]
    assert learned((), read) == ["<none>", "<none>", "<none>"]
    whole_in_none = answer_at("lamp, which Nora opened in Leeds")
    assert learned((whole_in_none,), read) == []
    assert learned((whole_in_none, answer_at("Leeds")), read) == ["<none>", "<Leeds>", "<Leeds>"]
    assert [SPANS.unfit(target, read) for target in ((), (whole_in_none,), (whole_in_none, answer_at("Leeds")))] == [
        0, 1, 0,
    ]  # fmt: skip


def test_what_no_answer_can_be_exactly() -> None:
    read = read_of("built in the 1990s")
    part = answer_at("1990", read.text)
    assert SPANS.unfit((part,), read) == 1
    assert learned((part,), read) == ["<1990s>"]
    assert "begin and end where words do" in SPANS.unfit_remark(1)
    long = read_of(" ".join(f"w{number}" for number in range(40)))
    assert SPANS.unfit((Answer(0, len(long.text), long.text),), long) == 1


# ---- figures ----

RECORDED = json.loads(Path(__file__).with_name("squad_figures.json").read_text(encoding="utf-8"))
"""The reference's figures: transformers removed it in version 5, so they are stored."""


def result_of(text: str) -> AnswerResult:
    best = Answer(0, len(text), text) if text else None
    return AnswerResult(task="t", best=best, score=0.7, no_answer=0.1)


def test_each_match_is_that_of_transformers() -> None:
    for case in RECORDED["cases"]:
        assert normalized(case["answer"]) == case["normalized"]
        found = match(case["answer"], case["right"])
        assert (found.exact, found.f1) == (case["exact"], pytest.approx(case["f1"])), case


def test_figures_are_those_of_transformers() -> None:
    cases = RECORDED["cases"]
    targets = [tuple(Answer(0, len(one), one) for one in case["right"]) for case in cases]
    results = [result_of(case["answer"]) for case in cases]
    assert SPANS.figures(targets, results, task_of()).values == pytest.approx(RECORDED["figures"])
    wrong = [SPANS.wrong_by(*row) for row in zip(results, targets, strict=True)]
    assert wrong == [0.7 * (1 - case["exact"]) for case in cases]
    some = [place for place, target in enumerate(targets) if target]
    found = SPANS.figures([targets[place] for place in some], [results[place] for place in some], task_of())
    assert list(found.values) == ["exact_match", "answer_f1"]


# ---- fitting ----


def examples_of(number: int = 12) -> tuple[Examples, Array]:
    """Questions whose features say where the answer is: the first two numbers mark where it begins and ends."""
    random = np.random.default_rng(1)
    reads = [read_of(CONTEXT, slice(0, 7), slice(5, 12)) if place % 2 else read_of() for place in range(number)]
    targets = [(answer_at(("red lamp", "Nora", "Leeds")[place % 3]),) if place % 4 else () for place in range(number)]
    examples = Examples.of(SPANS, targets, reads, ["answer"])
    ends = examples.numbers[:, 1].astype(int)
    features = np.stack([ends & 1, ends >> 1, *random.normal(size=(4, len(ends)))], axis=1).astype(np.float32)
    return examples, features


def test_a_head_is_fitted_by_pointing() -> None:
    examples, features = examples_of()
    weak, strong = pointers.head(features, examples.numbers, 2, (0.01, 100.0), None)
    losses = [pointers.losses(own.logits(features), examples.numbers).mean() for own in (weak, strong)]
    assert losses[1] < 0.1 < losses[0]
    assert pointers.exact_match(strong.logits(features), examples.numbers) == 1
    assert examples.figures(strong.logits(features), task_of()).values["exact_match"] == 1


def test_the_head_is_where_the_loss_has_no_slope() -> None:
    examples, features = examples_of()
    (head,) = pointers.head(features, examples.numbers, 2, (10.0,), None)
    windows = int((examples.numbers[:, 0] < 0).sum())
    scale = np.sqrt(np.square(features - features.mean(axis=0)).sum(axis=1).mean())

    def penalized(weight: Array) -> float:
        logits = features.astype(np.float64) @ weight.T
        loss = 2 * windows * pointers.losses(logits, examples.numbers).mean()
        return float(10.0 * loss + np.square(weight * scale).sum() / 2)

    least = penalized(head.weight)
    for place in np.ndindex(head.weight.shape):
        for step in (-0.01, 0.01):
            moved = head.weight.copy()
            moved[place] += step
            assert penalized(moved) > least - 1e-6


def test_errors_and_losses_are_means_over_texts_and_windows() -> None:
    examples, features = examples_of(4)
    logits = np.zeros((len(features), 2), np.float32)
    logits[0] = 5.0  # only the first question, which has no answer, is answered rightly
    logits[1:, 0] = -np.arange(1, len(logits))
    errors = pointers.errors(logits, examples.numbers)
    results = examples.results(logits, task_of())
    wrong = [match("" if one.best is None else one.best.text, [own.text for own in target]).exact == 0
             for one, target in zip(results, examples.targets, strict=True)]  # fmt: skip
    assert errors.mean() == pytest.approx(np.mean(wrong))
    assert np.count_nonzero(errors) == sum(wrong)
    assert np.count_nonzero(pointers.losses(logits, examples.numbers)) == (examples.numbers[:, 0] < 0).sum()


def test_temperature_makes_scores_calibrated() -> None:
    examples, features = examples_of(24)
    (head,) = pointers.head(features, examples.numbers, 2, (1.0,), None)
    logits = head.logits(features).astype(np.float32)
    once, _ = pointers.calibrate(logits, examples.numbers)
    thrice, _ = pointers.calibrate(3 * logits, examples.numbers)
    assert thrice["temperature"] == pytest.approx(3 * once["temperature"], rel=1e-3)
    with_scores = [result.score for result in examples.results(logits, task_of(**once))]
    assert 0 < min(with_scores) <= max(with_scores) < 1
    unfit = np.stack([examples.numbers[:, 0], np.zeros(len(logits))], axis=1)
    assert pointers.calibrate(logits, unfit) == ({}, {})
