"""Accuracy, macro F1, confusion and calibration error, compared with results by hand and simple counts."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edgetune_runtime.metrics import calibration_error, quality

EXPECTED = ["a", "a", "b", "b", "c"]
ANSWERED = ["a", "b", "b", "b", "a"]
# a: 1 right, 1 answered wrongly, 1 missed: 2/4. b: 2 right, 1 answered wrongly: 4/5. c: none right, 1 missed: 0.
MACRO_F1 = (0.5 + 0.8 + 0) / 3

pairs = st.lists(st.tuples(st.sampled_from("abcd"), st.sampled_from("abcd")), max_size=30)


def test_hand_computed() -> None:
    found = quality(EXPECTED, ANSWERED, ["a", "b", "c"])
    assert found.accuracy == pytest.approx(3 / 5)
    assert found.macro_f1 == pytest.approx(MACRO_F1)
    assert found.confusion.tolist() == [[1, 1, 0], [0, 2, 0], [1, 0, 0]]


def test_rows_and_columns_follow_the_order_of_the_labels() -> None:
    found = quality(EXPECTED, ANSWERED, ["c", "b", "a"])
    assert found.confusion.tolist() == [[0, 0, 1], [0, 2, 0], [0, 1, 1]]
    assert found.macro_f1 == pytest.approx(MACRO_F1)


def test_labels_that_never_occur_do_not_count() -> None:
    found = quality(EXPECTED, ANSWERED, ["never", "a", "b", "c", "neither"])
    assert found.accuracy == pytest.approx(3 / 5)
    assert found.macro_f1 == pytest.approx(MACRO_F1)
    assert found.confusion.shape == (5, 5)
    assert found.confusion[[0, 4]].sum() == found.confusion[:, [0, 4]].sum() == 0


def test_a_label_that_is_only_answered_counts_as_zero() -> None:
    # a: 1 right, 1 missed: 2/3. b: answered once, wrongly: 0.
    assert quality(["a", "a"], ["a", "b"], ["a", "b"]).macro_f1 == pytest.approx(1 / 3)


@pytest.mark.parametrize(
    ("expected", "answered", "accuracy", "macro_f1"),
    [([], [], 0.0, 0.0), (["a", "b"], ["a", "b"], 1.0, 1.0), (["a", "b"], ["b", "a"], 0.0, 0.0), (["a"], ["a"], 1, 1)],
)
def test_the_ends_of_the_scale(expected: list[str], answered: list[str], accuracy: float, macro_f1: float) -> None:
    found = quality(expected, answered, ["a", "b", "c"])
    assert (found.accuracy, found.macro_f1) == (accuracy, macro_f1)


def test_unequal_lengths_are_refused() -> None:
    with pytest.raises(ValueError, match="shorter"):
        quality(["a", "b"], ["a"], ["a", "b"])


@settings(deadline=None, max_examples=200)
@given(pairs)
def test_plain_counts_agree(rows: list[tuple[str, str]]) -> None:
    labels = "abcd"
    found = quality([right for right, _ in rows], [answer for _, answer in rows], labels)
    hits = sum(right == answer for right, answer in rows)
    assert found.accuracy == (hits / len(rows) if rows else 0)
    expected = [[rows.count((right, answer)) for answer in labels] for right in labels]
    np.testing.assert_array_equal(found.confusion, expected)
    scores = []
    for label in labels:
        right, answered = (sum(row[side] == label for row in rows) for side in (0, 1))
        if right or answered:
            both = rows.count((label, label))
            precision, recall = both / max(1, answered), both / max(1, right)
            scores.append(2 * precision * recall / (precision + recall) if both else 0)
    assert found.macro_f1 == pytest.approx(sum(scores) / len(scores) if scores else 0)


def test_calibration_error_hand_computed() -> None:
    # Bins of 1/15. 0.61 and 0.65 share one (0.6 to 0.667): mean score 0.63, accuracy 1/2. 0.95 is alone in the
    # last: accuracy 1. 0.30 is alone: accuracy 0. (2 · |0.63 - 0.5| + |0.95 - 1| + |0.3 - 0|) / 4
    found = calibration_error(np.array([0.61, 0.95, 0.65, 0.30]), np.array([True, True, False, False]))
    assert found == pytest.approx((2 * 0.13 + 0.05 + 0.30) / 4)


def test_within_a_bin_errors_cancel_and_between_bins_they_do_not() -> None:
    assert calibration_error(np.array([0.5, 0.5]), np.array([True, False])) == 0
    assert calibration_error(np.array([0.5, 0.6]), np.array([True, False])) == pytest.approx((0.5 + 0.6) / 2)


def test_the_edge_between_two_bins_belongs_to_the_lower() -> None:
    # 0.2 is 3/15 and shares its bin with 0.15.
    found = calibration_error(np.array([0.2, 0.15]), np.array([True, False]))
    assert found == pytest.approx((0.8 - 0.15) / 2)


@pytest.mark.parametrize(
    ("score", "right", "error"), [(1.0, True, 0.0), (1.0, False, 1.0), (0.0, False, 0.0), (0.0, True, 1.0)]
)
def test_the_ends_of_calibration(score: float, right: bool, error: float) -> None:
    assert calibration_error(np.full(9, score), np.full(9, right)) == error


def test_no_answers_have_no_calibration_error() -> None:
    assert calibration_error(np.empty(0), np.empty(0, bool)) == 0


@settings(deadline=None, max_examples=200)
@given(st.lists(st.tuples(st.floats(0, 1), st.booleans()), min_size=1, max_size=40))
def test_calibration_error_in_its_range_and_by_plain_bins(rows: list[tuple[float, bool]]) -> None:
    found = calibration_error(np.array([score for score, _ in rows]), np.array([right for _, right in rows]))
    bins: dict[int, list[float]] = {}
    for score, right in rows:
        place = next(bin for bin in range(15) if score * 15 <= bin + 1)
        bins.setdefault(place, []).append(score - right)
    assert found == pytest.approx(sum(abs(sum(gaps)) for gaps in bins.values()) / len(rows))
    overall = abs(np.mean([score - right for score, right in rows]))
    assert overall - 1e-12 <= found <= 1
