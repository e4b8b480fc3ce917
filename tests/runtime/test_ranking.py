"""Texts sorted by their relevance to a query."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from typing import Any

import numpy as np
import pandas as pd
import pytest
from conftest import TEXTS, MakeTask

from edgetune_runtime import Bundle, Engine, Task
from edgetune_runtime.errors import DataError, TaskError
from edgetune_runtime.kinds import LabelResult, ScoreResult
from edgetune_runtime.kinds.kind import sigmoid
from edgetune_runtime.positive import OPPOSITES, positive_label
from edgetune_runtime.ranking import Ranker, best_first, can_rank

QUERY = "where is the lamp?"
PAIRS = [(QUERY, text) for text in TEXTS]


@pytest.fixture(scope="module")
def tasks(make_task: MakeTask) -> dict[str, Task]:
    def task(name: str, number: int, **fields: Any) -> Task:
        return dataclasses.replace(make_task(name, labels=number), **{"pairs": True, **fields})

    made = [
        task("alike", 1, kind_name="score"),
        task("relevant", 2, labels=("no", "yes")),
        task("graded", 3, labels=("bad", "fair", "perfect"), temperature=1.7),
        task("unnamed", 2),
        task("topics", 3, kind_name="multi-label"),
        task("stars", 1, kind_name="score", pairs=False),
    ]
    return {one.name: one for one in made}


@pytest.fixture(scope="module")
def engine(bundle: Bundle, tasks: dict[str, Task]) -> Iterator[Engine]:
    with Engine(bundle, threads=2) as engine:
        for task in tasks.values():
            engine.add_task(task)
        yield engine


@pytest.mark.parametrize(
    ("name", "label"), [("alike", None), ("relevant", None), ("relevant", "no"), ("graded", "fair")]
)
def test_the_order_is_that_of_the_answers(engine: Engine, name: str, label: str | None) -> None:
    expected = []
    for result in engine.classify(PAIRS, task=name):
        if isinstance(result, ScoreResult):
            expected.append(result.score)
        else:
            assert isinstance(result, LabelResult)
            expected.append(result.scores[label or "yes"])
    ranked = engine.rank(QUERY, TEXTS, name, label=label)
    assert [one.score for one in ranked] == sorted(expected, reverse=True)
    assert [(one.text, one.score) for one in ranked] == [(TEXTS[one.index], expected[one.index]) for one in ranked]
    assert len(set(expected)) == len(TEXTS)


@pytest.mark.parametrize(("name", "label"), [("relevant", None), ("graded", "fair")])
def test_raw_scores_are_logits_of_the_probability(engine: Engine, name: str, label: str | None) -> None:
    scores, raw = (engine.rank(QUERY, TEXTS, name, label=label, raw_scores=how) for how in (False, True))
    assert [one.index for one in raw] == [one.index for one in scores]
    np.testing.assert_allclose(sigmoid(np.array([one.score for one in raw])), [one.score for one in scores], rtol=1e-9)


def test_a_raw_number_is_the_number(engine: Engine) -> None:
    assert engine.rank(QUERY, TEXTS, "alike", raw_scores=True) == engine.rank(QUERY, TEXTS, "alike")


def test_raw_scores_go_on_where_a_probability_is_1(tasks: dict[str, Task]) -> None:
    ranker, task = Ranker(tasks["relevant"]), tasks["relevant"]
    for far in (50.0, 700.0, 5000.0):
        result = task.kind.answer(np.array([[0.0, far]]), task)
        assert ranker.score(result) == 1.0
        assert ranker.score(result, raw=True) == pytest.approx(min(far, 708.4), abs=0.01)
        assert ranker.score(task.kind.answer(np.array([[far, 0.0]]), task), raw=True) == pytest.approx(
            -min(far, 708.4), abs=0.01
        )


def test_a_column_of_a_table_and_no_text(engine: Engine) -> None:
    column = pd.Series(TEXTS, index=range(7, 7 + len(TEXTS)))
    assert engine.rank(QUERY, column, "alike") == engine.rank(QUERY, TEXTS, "alike")  # type: ignore[arg-type]
    assert engine.rank(QUERY, [], "alike") == []


def test_a_text_that_is_cut_says_so(engine: Engine) -> None:
    found = {one.index: one.truncated for one in engine.rank(QUERY, ["good", "good " * 300], "alike")}
    assert found == {0: False, 1: True}


def test_equal_texts_keep_their_order(engine: Engine) -> None:
    assert [one.index for one in engine.rank(QUERY, ["good"] * 4, "relevant")] == [0, 1, 2, 3]
    assert best_first([0.5, 2.0, 0.5, -1.0]) == [1, 0, 2, 3]


def test_which_tasks_can_rank(tasks: dict[str, Task]) -> None:
    assert [name for name, task in tasks.items() if can_rank(task)] == ["alike", "relevant", "graded", "unnamed"]


REFUSED: dict[str, tuple[dict[str, Any], type[Exception], str]] = {
    "no task": ({"task": "none"}, TaskError, "no task 'none' here"),
    "single texts": ({"task": "stars"}, DataError, "task 'stars' takes single texts, and ranking asks about pairs"),
    "several labels": ({"task": "topics"}, DataError, "task 'topics' is of the kind 'multi-label'"),
    "names that do not tell": (
        {"task": "unnamed"},
        DataError,
        "task 'unnamed' has the labels label0, label1, and which of them means that a text is relevant is not known: "
        "name it with `label`",
    ),
    "three labels": ({"task": "graded"}, DataError, "has the labels bad, fair, perfect, and which"),
    "another label": (
        {"task": "relevant", "label": "maybe"},
        DataError,
        "task 'relevant' has no label 'maybe': expected one of no, yes",
    ),
    "a label of a number": ({"task": "alike", "label": "yes"}, DataError, "task 'alike' gives a number"),
    "one string": ({"task": "alike", "texts": "good"}, DataError, "one string came instead of a list"),
    "a number": ({"task": "alike", "texts": ["good", 1]}, DataError, "text 1 is a int: expected a string"),
    "a pair": ({"task": "alike", "texts": [("a", "b")]}, DataError, "text 0 is a tuple: expected a string"),
    "a query that is none": ({"task": "alike", "query": None}, DataError, "the query is a NoneType"),
    "a query of half a pair": ({"task": "alike", "query": "\ud800"}, DataError, "the query has half of a surrogate"),
    "half of a pair": ({"task": "alike", "texts": ["\ud800"]}, DataError, "text 0 has half of a surrogate pair"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_refused(engine: Engine, case: str) -> None:
    given, kind, why = REFUSED[case]
    with pytest.raises(kind) as caught:
        engine.rank(**{"query": QUERY, "texts": TEXTS, **given})
    assert why in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("labels", "positive"),
    [
        (("0", "1"), "1"),
        (("1", "-1"), "1"),
        (("False", "TRUE"), "TRUE"),
        (("yes", "no"), "yes"),
        (("not_entailment", "entailment"), "entailment"),
        (("Relevant", "Not relevant"), "Relevant"),
        (("non-duplicate", "duplicate"), "duplicate"),
        (("no match", "match"), "match"),
        (("irrelevant", "relevant"), "relevant"),
        (("1", "2"), None),
        (("label0", "label1"), None),
        (("yes", "maybe"), None),
        (("relevant", "relevant!"), None),
        (("entailment", "neutral", "contradiction"), None),
        (("yes",), None),
    ],
)
def test_the_label_that_says_yes(labels: tuple[str, ...], positive: str | None) -> None:
    assert positive_label(labels) == positive
    assert positive_label(labels[::-1]) == positive


def test_no_name_says_yes_and_no() -> None:
    assert not OPPOSITES.keys() & {no for names in OPPOSITES.values() for no in names}
