"""Each kind of answer: labels in data, answers from logits, and figures compared with other libraries."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays_of
from scipy import stats
from sklearn import metrics

from edgetune_runtime.arrays import Array
from edgetune_runtime.kinds import KINDS, Kind, LabelResult, LabelsResult, Read, ScoreResult, Target, kind_seen
from edgetune_runtime.kinds.multi_label import MULTI_LABEL, thresholds
from edgetune_runtime.kinds.score import SCORE
from edgetune_runtime.kinds.single_label import SINGLE_LABEL, probabilities
from edgetune_runtime.task import Task

ABC = ("a", "b", "c")
NAN, INF = float("nan"), float("inf")


def task_of(kind: Kind, labels: tuple[str, ...] = ABC, **settings: Any) -> Task:
    labels = ("score",) if kind is SCORE else labels
    return Task("t", labels, "0" * 64, {}, "prefix", "tiny", "cls", kind_name=kind.name, **settings)


def row(*logits: float) -> Array:
    return np.array([logits], np.float32)


# ---- labels in data ----


@pytest.mark.parametrize(
    ("values", "kind"),
    [
        ([], SINGLE_LABEL),
        (["a", "b"], SINGLE_LABEL),
        ([1, 2], SINGLE_LABEL),
        ([1.0, 2.0], SINGLE_LABEL),
        (["1", "2"], SINGLE_LABEL),
        ([True, False], SINGLE_LABEL),
        ([0.5, True], SINGLE_LABEL),
        ([0.5, None], SINGLE_LABEL),
        ([0.5, "a"], SINGLE_LABEL),
        ([0.5, ""], SINGLE_LABEL),
        (["1_0.5"], SINGLE_LABEL),
        ([NAN, INF], SINGLE_LABEL),
        (["nan", "inf"], SINGLE_LABEL),
        ([{"a": 1}], SINGLE_LABEL),
        (["a|b", "c|d"], SINGLE_LABEL),
        (["a|b", "c"], SINGLE_LABEL),
        (["|", ""], SINGLE_LABEL),
        ([0.5], SCORE),
        ([0.5, 1], SCORE),
        (["0.5", "-1"], SCORE),
        ([0.5, NAN], SCORE),
        ([0.5, INF], SCORE),
        (["0.5", "1e999"], SCORE),
        ([0.5, 10**400], SCORE),
        ([[]], MULTI_LABEL),
        ([["a"], "b"], MULTI_LABEL),
        ([None, ["a"]], MULTI_LABEL),
        ([("a",)], MULTI_LABEL),
        (["a|b", "a"], MULTI_LABEL),
        (["a | b", "b"], MULTI_LABEL),
        (["0.5|1", "1"], MULTI_LABEL),
    ],
)
def test_the_kind_that_values_look_like(values: list[object], kind: Kind) -> None:
    assert kind_seen(values) is kind
    assert kind_seen(values[::-1]) is kind


@pytest.mark.parametrize(
    ("kind", "value", "target"),
    [
        (SINGLE_LABEL, "a|b", "a|b"),
        (SINGLE_LABEL, 3, "3"),
        (SINGLE_LABEL, 2.0, "2"),
        (SINGLE_LABEL, -0.0, "0"),
        (SINGLE_LABEL, True, "true"),
        (MULTI_LABEL, None, ()),
        (MULTI_LABEL, "", ()),
        (MULTI_LABEL, " | ", ()),
        (MULTI_LABEL, [], ()),
        (MULTI_LABEL, "b| a c ", ("a c", "b")),
        (MULTI_LABEL, ["b", "a"], ("a", "b")),
        (MULTI_LABEL, ("b", "a|c"), ("a|c", "b")),
        (MULTI_LABEL, [2, 1.0, False], ("1", "2", "false")),
        (MULTI_LABEL, 7, ("7",)),
        (SCORE, 3, 3.0),
        (SCORE, "-2.5", -2.5),
        (SCORE, " 1e3 ", 1000.0),
        (SCORE, 0.1, 0.1),
    ],
)
def test_what_a_value_means(kind: Kind, value: object, target: Target) -> None:
    found = kind.target(value)
    assert (found, type(found)) == (target, type(target))


@pytest.mark.parametrize(
    ("kind", "values"),
    [
        (SINGLE_LABEL, [None, "", 1.5, NAN, INF, 1e300, [], ["a"], {"a": 1}, b"a"]),
        (MULTI_LABEL, [1.5, NAN, {"a": 1}, {"a"}, b"a", [None], [""], [1.5], [["a"]], ["a", "a"], [1, "1"], "a|b|a"]),
        (SCORE, [None, "", "a", "nan", "inf", "1e999", "1_0", NAN, -INF, 10**400, True, [], [1.5], {"a": 1}]),
    ],
)
def test_what_means_nothing(kind: Kind, values: list[object]) -> None:
    for value in values:
        with pytest.raises(ValueError, match="expected"):
            kind.target(value)


@pytest.mark.parametrize(
    ("kind", "targets", "labels"),
    [
        (SINGLE_LABEL, ["b", "a", "b"], ["a", "b"]),
        (MULTI_LABEL, [("b", "c"), (), ("a", "c")], ["a", "b", "c"]),
        (MULTI_LABEL, [()], []),
        (SCORE, [0.5, 1.5], ["score"]),
    ],
)
def test_labels_that_targets_name(kind: Kind, targets: list[Target], labels: list[str]) -> None:
    assert kind.labels_of(targets) == labels


# ---- answers ----


def test_the_best_of_several() -> None:
    task = task_of(SINGLE_LABEL, temperature=2.0)
    logits = np.array([[1, 4, 0], [3, 0, 2]], np.float32)  # two spans, whose mean is [2, 2, 1]
    found = SINGLE_LABEL.answer(logits, task, Read(truncated=True), precision="int8")
    wanted = np.exp([1, 1, 0.5]) / np.exp([1, 1, 0.5]).sum()
    assert (found.best, found.label, found.status, found.precision) == ("a", "a", "truncated", "int8")
    assert list(found.scores.values()) == pytest.approx(wanted)
    assert SINGLE_LABEL.margin(logits, task) == 0
    assert SINGLE_LABEL.margin(row(1, 4, 0), task) == pytest.approx(
        math.exp(2) / np.exp([0.5, 2, 0]).sum() - math.exp(0.5) / np.exp([0.5, 2, 0]).sum()
    )


def test_an_answer_below_the_lowest_score_is_none() -> None:
    found = SINGLE_LABEL.answer(row(0, 1, 0), task_of(SINGLE_LABEL))
    assert found.at(0) == found.at(found.score) == found
    above = found.at(found.score + 1e-9)
    assert (above.label, above.best, above.status) == (None, "b", "abstained")
    assert above.fields()["label"] is None
    assert above.at(0) == found


def test_each_label_has_a_threshold() -> None:
    logits = row(-1, 0, 1)
    scores = [1 / (1 + math.exp(-x)) for x in (-1, 0, 1)]
    usual = MULTI_LABEL.answer(logits, task_of(MULTI_LABEL))
    assert usual.labels == ("b", "c")  # 0.5 reaches the threshold
    assert list(usual.scores.values()) == pytest.approx(scores)
    own = MULTI_LABEL.answer(logits, task_of(MULTI_LABEL, thresholds=(0.2, 0.6, 0.8)))
    assert own.labels == ("a",)
    hot = MULTI_LABEL.answer(logits, task_of(MULTI_LABEL, thresholds=(0.4, 0.6, 0.8), temperature=4.0))
    assert hot.labels == ("a",)
    none = MULTI_LABEL.answer(np.array([[-9, -9, -9], [1, 2, 3]], np.float32), task_of(MULTI_LABEL))
    assert (none.labels, none.status) == ((), "ok")
    assert thresholds(task_of(MULTI_LABEL)).tolist() == [0.5] * 3


def test_scores_of_labels_are_computed_in_float64() -> None:
    found = MULTI_LABEL.answer(row(0.1, 0, 0), task_of(MULTI_LABEL, temperature=0.3))
    assert found.scores["a"] == pytest.approx(1 / (1 + math.exp(-float(np.float32(0.1)) / 0.3)), rel=1e-14)


def test_labels_below_the_lowest_score_are_left_out() -> None:
    found = MULTI_LABEL.answer(row(-1, 0, 1), task_of(MULTI_LABEL, thresholds=(0.1, 0.1, 0.1)))
    assert found.labels == ABC
    assert found.at(0) == found
    assert found.at(0.5).labels == ("b", "c")
    assert found.at(1).labels == ()
    assert found.at(0.6).scores == found.scores


def test_the_margin_of_several_labels_is_the_distance_to_the_closest_threshold() -> None:
    task = task_of(MULTI_LABEL, thresholds=(0.5, 0.9, 0.01), temperature=2.0)
    at_limits = 2 * np.log(thresholds(task) / (1 - thresholds(task)))
    for place in range(3):
        away = np.full(3, 8.0)
        away[place] = -0.4
        found = MULTI_LABEL.margin((at_limits + away)[None].astype(np.float32), task)
        assert found == pytest.approx(0.1 / 0.15 * 0.4 / 2, rel=1e-4)


def test_a_score_is_the_logit() -> None:
    task = task_of(SCORE)
    found = SCORE.answer(np.array([[1.0], [4.0]], np.float32), task)
    assert found == ScoreResult(task="t", score=2.5)
    assert found.at(1) == found
    assert SCORE.margin(row(0.0), task) == math.inf


def test_extreme_logits_give_scores() -> None:
    with np.errstate(all="raise", under="ignore"):
        assert MULTI_LABEL.answer(row(-1e6, 0, 1e6), task_of(MULTI_LABEL)).scores == {"a": 0, "b": 0.5, "c": 1}
        assert SINGLE_LABEL.answer(row(-1e6, 0, 1e6), task_of(SINGLE_LABEL)).scores == {"a": 0, "b": 0, "c": 1}


@pytest.mark.parametrize(
    ("kind", "expected", "got", "agreement"),
    [
        (SINGLE_LABEL, [[1, 2, 0], [3, 0, 0]], [[1, 9, 8], [0, 1, 0]], 0.5),
        (MULTI_LABEL, [[1, 2, -1], [3, -1, -1]], [[9, 9, -9], [-1, -1, 1]], 4 / 6),
        (SCORE, [[0], [1], [4]], [[0], [1], [4]], 1.0),
        (SCORE, [[0], [1], [4]], [[0.5], [0.5], [4.2]], 1 - 0.4 / 4),
        (SCORE, [[0], [1]], [[9], [9]], 0.0),
        (SCORE, [[2], [2]], [[2], [2]], 1.0),
        (SCORE, [[2], [2]], [[2], [2.1]], 0.0),
    ],
)
def test_how_far_two_ways_agree(kind: Kind, expected: Any, got: Any, agreement: float) -> None:
    found = kind.agreement(np.array(expected, np.float32), np.array(got, np.float32), task_of(kind))
    assert found == pytest.approx(agreement)


def test_agreement_of_several_labels_heeds_thresholds() -> None:
    task = task_of(MULTI_LABEL, thresholds=(0.9, 0.5, 0.5), temperature=2.0)
    limit = 2 * math.log(9)
    assert MULTI_LABEL.agreement(row(1, 1, 1), row(limit - 0.01, 1, 1), task) == 1
    assert MULTI_LABEL.agreement(row(1, 1, 1), row(limit + 0.01, 1, 1), task) == pytest.approx(2 / 3)


@pytest.mark.parametrize("kind", KINDS.values(), ids=list(KINDS))
def test_results_in_tables_and_tensors(kind: Kind) -> None:
    task = task_of(kind)
    places = ((0, 0), (0, 2)) if kind.reading and kind.reading.or_none else ((0, 2),)
    read = Read("it", places) if kind.reading else Read()
    logits = np.arange(task.head_rows, dtype=np.float32) + 0.5 + np.arange(len(read.places) or 1)[:, np.newaxis]
    result = kind.answer(logits, task, read)
    shapes = {"string": str, "strings": list, "integer": int, "number": float, "numbers": dict, "entities": list}
    values = kind.values(result)
    assert {name: type(value) for name, value in values.items()} == {
        name: shapes[column] for name, column in kind.columns.items()
    }
    for output in kind.outputs:
        found = output.of(result)
        assert len(found) == (len(task.labels) if output.by_label else 1)
        assert {type(one) for one in found} == {
            {"BYTES": str, "BOOL": bool, "INT64": int, "FP32": float}[output.datatype]
        }


@pytest.mark.parametrize(
    ("kind", "given_thresholds", "told"),
    [
        (SINGLE_LABEL, (0.5, 0.5, 0.5), "3 thresholds: expected none"),
        (SCORE, (0.5,), "1 thresholds: expected none"),
        (MULTI_LABEL, (0.5, 0.5), "2 thresholds for 3 labels: expected one per label"),
        (MULTI_LABEL, (0.5, 0.5, 0.0), "a threshold of 0.0: expected numbers above 0"),
        (MULTI_LABEL, (0.5, 1.0, 0.5), "a threshold of 1.0: expected numbers above 0"),
        (MULTI_LABEL, (0.5, NAN, 0.5), "a threshold of nan: expected numbers above 0"),
    ],
)
def test_thresholds_that_do_not_fit(kind: Kind, given_thresholds: tuple[float, ...], told: str) -> None:
    with pytest.raises(ValueError, match=told):
        kind.check(task_of(kind, thresholds=given_thresholds))
    kind.check(task_of(kind))


# ---- figures ----

_logits = arrays_of.arrays(np.float32, st.tuples(st.integers(1, 25), st.just(3)), elements=st.integers(-3, 3))


@settings(deadline=None, max_examples=100)
@given(_logits, st.data())
def test_figures_of_one_label_are_those_of_scikit_learn(logits: Array, data: st.DataObject) -> None:
    task = task_of(SINGLE_LABEL)
    right = data.draw(st.lists(st.sampled_from(ABC), min_size=len(logits), max_size=len(logits)))
    results = [SINGLE_LABEL.answer(one[None], task) for one in logits]
    answered = [result.best for result in results]
    found = SINGLE_LABEL.figures(right, results, task)
    assert found.values["accuracy"] == pytest.approx(metrics.accuracy_score(right, answered))
    assert found.values["macro_f1"] == pytest.approx(metrics.f1_score(right, answered, average="macro"))
    np.testing.assert_array_equal(found.confusion, metrics.confusion_matrix(right, answered, labels=ABC))
    for figure, measure in (("recall", metrics.recall_score), ("f1", metrics.f1_score)):
        wanted = measure(right, answered, labels=ABC, average=None, zero_division=0)
        assert [own[figure] for own in found.by_label.values()] == pytest.approx(wanted)
    np.testing.assert_allclose([list(result.scores.values()) for result in results], probabilities(logits, 1.0))
    assert found.headline == SINGLE_LABEL.headline == "accuracy"


@settings(deadline=None, max_examples=100)
@given(_logits, st.data())
def test_figures_of_several_labels_are_those_of_scikit_learn(logits: Array, data: st.DataObject) -> None:
    task = task_of(MULTI_LABEL)
    right = data.draw(arrays_of.arrays(bool, logits.shape))
    expected = [tuple(label for label, has in zip(ABC, one, strict=True) if has) for one in right]
    results = [MULTI_LABEL.answer(one[None], task) for one in logits]
    answered = logits >= 0
    found = MULTI_LABEL.figures(expected, results, task)
    for average in ("macro", "micro"):
        wanted = metrics.f1_score(right, answered, average=average, zero_division=0)
        assert found.values[f"{average}_f1"] == pytest.approx(wanted)
    assert found.values["exact_match"] == pytest.approx(metrics.accuracy_score(right, answered))
    occurs = np.flatnonzero(right.any(axis=0))
    precisions = [metrics.average_precision_score(right[:, place], logits[:, place]) for place in occurs]
    assert found.values["mean_average_precision"] == pytest.approx(np.mean(precisions) if precisions else 0)
    if len(occurs) == len(ABC):
        assert np.mean(precisions) == pytest.approx(metrics.average_precision_score(right, logits, average="macro"))
    own = {"precision": metrics.precision_score, "recall": metrics.recall_score, "f1": metrics.f1_score}
    for figure, measure in own.items():
        wanted = measure(right, answered, average=None, zero_division=0)
        assert [one[figure] for one in found.by_label.values()] == pytest.approx(wanted)
    assert [one["rows"] for one in found.by_label.values()] == right.sum(axis=0).tolist()
    assert found.headline == MULTI_LABEL.headline


_scores = st.integers(-4, 4).map(float) | st.floats(-1e3, 1e3, width=32)


@settings(deadline=None, max_examples=150)
@given(st.lists(st.tuples(_scores, _scores), min_size=3, max_size=25))
def test_figures_of_scores_are_those_of_scipy(rows: list[tuple[float, float]]) -> None:
    right, scores = (np.array(side) for side in zip(*rows, strict=True))
    assume(all(np.ptp(side) > 1e-3 * np.abs(side).max() for side in (right, scores)))  # scipy is not exact either
    found = SCORE.figures(right.tolist(), [ScoreResult(task="t", score=one) for one in scores], task_of(SCORE))
    assert found.values["pearson"] == pytest.approx(stats.pearsonr(right, scores).statistic, abs=1e-6)
    assert found.values["spearman"] == pytest.approx(stats.spearmanr(right, scores).statistic, abs=1e-9)
    assert found.values["mean_absolute_error"] == pytest.approx(metrics.mean_absolute_error(right, scores))
    assert found.headline == SCORE.headline


@pytest.mark.parametrize(
    ("right", "scores", "correlation"),
    [
        ([0.1, 0.1, 0.1], [0.1, 0.1, 0.1], 0.0),  # the rounded mean of three 0.1 is not 0.1
        ([0.1, 0.1, 0.1], [1.0, 2.0, 3.0], 0.0),
        ([1.0, 2.0, 3.0], [0.1, 0.1, 0.1], 0.0),
        ([0.5], [0.5], 0.0),
        ([1e300, -1e300, 1e300], [1.0, -1.0, 1.0], 1.0),
        ([1e-300, 0.0, 1e-300], [-1.0, 1.0, -1.0], -1.0),
        ([0.1, 0.3, 0.7], [0.2, 0.6, 1.4], 1.0),
    ],
)
def test_correlations_at_the_ends(right: list[float], scores: list[float], correlation: float) -> None:
    found = SCORE.figures(list(right), [ScoreResult(task="t", score=one) for one in scores], task_of(SCORE))
    assert found.values["pearson"] == pytest.approx(correlation)
    assert found.values["spearman"] == pytest.approx(correlation)
    assert -1 <= found.values["pearson"] <= 1


@pytest.mark.parametrize("kind", KINDS.values(), ids=list(KINDS))
def test_no_rows_have_figures(kind: Kind) -> None:
    found = kind.figures([], [], task_of(kind))
    assert set(found.values.values()) == {0.0}


def test_labels_without_rows_have_figures() -> None:
    task = task_of(MULTI_LABEL)
    result = LabelsResult(task="t", labels=(), scores=dict.fromkeys(ABC, 0.1))
    found = MULTI_LABEL.figures([(), ()], [result, result], task)
    assert found.values == {"macro_f1": 0, "micro_f1": 0, "mean_average_precision": 0, "exact_match": 1}
    one = task_of(MULTI_LABEL, ("only",))
    right = LabelsResult(task="t", labels=("only",), scores={"only": 0.9})
    wrong = LabelsResult(task="t", labels=(), scores={"only": 0.1})
    assert MULTI_LABEL.figures([("only",), ()], [right, wrong], one).values == {
        "macro_f1": 1, "micro_f1": 1, "mean_average_precision": 1, "exact_match": 1
    }  # fmt: skip


def test_abstaining_does_not_change_figures() -> None:
    task = task_of(SINGLE_LABEL)
    result = SINGLE_LABEL.answer(row(0, 1, 0), task)
    assert isinstance(result, LabelResult)
    assert SINGLE_LABEL.figures(["b"], [result.at(1.0)], task).values["accuracy"] == 1
