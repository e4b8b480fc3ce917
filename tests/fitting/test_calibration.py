"""Temperature and thresholds: they correct overconfidence, respect their limits, and are optimal."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from edgetune_runtime.fitting.calibration import (
    MAX_TEMPERATURE,
    MIN_TEMPERATURE,
    binary_calibration_error,
    fit_binary_temperature,
    fit_temperature,
    fit_thresholds,
    logits_calibration_error,
)
from edgetune_runtime.kinds import probabilities
from edgetune_runtime.kinds.kind import sigmoid

ROWS, LABELS = 4000, 5

some_logits = arrays.arrays(
    np.float32,
    st.tuples(st.integers(1, 12), st.integers(2, 5)),
    elements=st.floats(-50, 50, width=32),
)


def drawn(scale: float) -> tuple[np.ndarray, np.ndarray]:
    """Logits, and labels drawn with the probabilities that they had before they were scaled.

    Shape:
        output: [ROWS, LABELS], [ROWS]
    """
    random = np.random.default_rng(0)
    logits = random.normal(0, 2, (ROWS, LABELS))
    right = [random.choice(LABELS, p=row) for row in probabilities(logits, 1.0)]
    return (logits * scale).astype(np.float32), np.array(right)


def smoothed_loss(logits: np.ndarray, right: np.ndarray, temperature: float) -> float:
    """What the fit minimizes, implemented again: mean cross entropy with the smoothed labels."""
    rows, labels = logits.shape
    targets = (rows * np.eye(labels)[right] + 1 / labels) / (rows + 1)
    scaled = logits.astype(np.float64) / temperature
    return float((np.logaddexp.reduce(scaled, axis=1) - (targets * scaled).sum(axis=1)).mean())


@pytest.mark.parametrize("scale", [0.25, 1.0, 3.0, 10.0])
def test_logits_scaled_by_k_have_the_temperature_k(scale: float) -> None:
    logits, right = drawn(scale)
    temperature = fit_temperature(logits, right)
    assert temperature == pytest.approx(scale, rel=0.05)
    assert logits_calibration_error(logits, right, temperature) < 0.02
    if scale != 1:
        assert logits_calibration_error(logits, right, 1.0) > 0.08


def test_the_optimum_of_two_labels_in_closed_form() -> None:
    # Three rows of four are right by a margin of 2. Smoothed, the right share is (4 · 3/4 + 1/2) / 5 = 0.7, and
    # 1 / (1 + exp(-2 / T)) = 0.7 at T = 2 / ln(7 / 3).
    logits = np.array([[2.0, 0.0]] * 4)
    assert fit_temperature(logits, np.array([0, 0, 0, 1])) == pytest.approx(2 / np.log(7 / 3))


def test_a_few_rows_all_right_do_not_make_every_score_one() -> None:
    logits = np.eye(3)[[0, 1, 2] * 5] * 4
    temperature = fit_temperature(logits, np.array([0, 1, 2] * 5))
    # Fifteen rows and the one that is smoothed over: (15 + 1/3) / 16.
    assert probabilities(logits, temperature).max(axis=1) == pytest.approx(46 / 48)


def test_rows_all_wrong_end_at_the_upper_bound() -> None:
    assert fit_temperature(np.array([[9.0, 0.0]] * 6), np.ones(6, int)) == pytest.approx(MAX_TEMPERATURE)


def test_right_answers_of_tiny_margins_end_at_the_lower_bound() -> None:
    assert fit_temperature(np.array([[1e-3, 0.0]] * 6), np.zeros(6, int)) == pytest.approx(MIN_TEMPERATURE)


@pytest.mark.parametrize("rows", [0, 1, 7])
def test_logits_that_say_nothing_keep_the_temperature_at_one(rows: int) -> None:
    assert fit_temperature(np.full((rows, 3), 7.0), np.zeros(rows, int)) == 1.0


@settings(deadline=None, max_examples=200)
@given(some_logits, st.data())
def test_no_other_temperature_is_better(logits: np.ndarray, data: st.DataObject) -> None:
    right = np.array(
        data.draw(st.lists(st.integers(0, logits.shape[1] - 1), min_size=len(logits), max_size=len(logits)))
    )
    found = fit_temperature(logits, right)
    assert MIN_TEMPERATURE <= found <= MAX_TEMPERATURE
    best = smoothed_loss(logits, right, found)
    for other in np.geomspace(MIN_TEMPERATURE, MAX_TEMPERATURE, 41):
        assert best <= smoothed_loss(logits, right, other) + 1e-9 * max(1.0, best)


@settings(deadline=None, max_examples=200)
@given(some_logits, st.floats(0, exclude_min=True, allow_infinity=False))
@example(np.array([[3.0, 5.0, 4.0]], np.float32), 5e-324)
def test_no_temperature_changes_the_best_label(logits: np.ndarray, temperature: float) -> None:
    with np.errstate(over="ignore"):
        scores = probabilities(logits, temperature)
    assert scores.sum(axis=1) == pytest.approx(1)
    assert (scores[np.arange(len(logits)), logits.argmax(axis=1)] == scores.max(axis=1)).all()


def drawn_labels(scale: float) -> tuple[np.ndarray, np.ndarray]:
    """Logits, and which labels apply, drawn with the probabilities that they had before they were scaled.

    Shape:
        output: [ROWS, LABELS], both
    """
    random = np.random.default_rng(1)
    logits = random.normal(-1, 2, (ROWS, LABELS))
    return (logits * scale).astype(np.float32), random.random((ROWS, LABELS)) < sigmoid(logits)


def smoothed_binary_loss(logits: np.ndarray, right: np.ndarray, temperature: float) -> float:
    """What the fit minimizes, implemented again: binary cross entropy, a mean row more with every label by half."""
    values = np.concatenate([logits.astype(np.float64), np.abs(logits.astype(np.float64)).mean(axis=0)[None]])
    scaled, applies = values / temperature, np.concatenate([right, np.full((1, right.shape[1]), 0.5)])
    return float((applies * np.logaddexp(0, -scaled) + (1 - applies) * np.logaddexp(0, scaled)).sum())


class TestLabelsOnTheirOwn:
    """One temperature for any number of labels."""

    @pytest.mark.parametrize("scale", [0.25, 1.0, 3.0, 10.0])
    def test_logits_scaled_by_k_have_the_temperature_k(self, scale: float) -> None:
        logits, right = drawn_labels(scale)
        temperature = fit_binary_temperature(logits, right)
        assert temperature == pytest.approx(scale, rel=0.05)
        assert binary_calibration_error(sigmoid(logits / temperature), right) < 0.02
        if scale != 1:
            assert binary_calibration_error(sigmoid(logits), right) > 0.05

    def test_the_optimum_in_closed_form(self) -> None:
        # One label with a logit of 2 in four rows, three of which have it, and the row more: (3 + 1/2) / 5 = 0.7.
        logits, right = np.full((4, 1), 2.0), np.array([[True], [True], [True], [False]])
        assert fit_binary_temperature(logits, right) == pytest.approx(2 / np.log(7 / 3))

    def test_all_wrong_ends_at_the_upper_bound(self) -> None:
        assert fit_binary_temperature(np.full((9, 2), 9.0), np.zeros((9, 2), bool)) == pytest.approx(MAX_TEMPERATURE)

    def test_tiny_margins_end_at_the_lower_bound(self) -> None:
        assert fit_binary_temperature(np.full((9, 2), 1e-3), np.ones((9, 2), bool)) == pytest.approx(MIN_TEMPERATURE)

    @pytest.mark.parametrize("rows", [0, 1, 7])
    def test_logits_that_say_nothing_keep_the_temperature_at_one(self, rows: int) -> None:
        assert fit_binary_temperature(np.zeros((rows, 3)), np.ones((rows, 3), bool)) == 1.0

    @settings(deadline=None, max_examples=200)
    @given(some_logits, st.data())
    def test_no_other_temperature_is_better(self, logits: np.ndarray, data: st.DataObject) -> None:
        right = data.draw(arrays.arrays(bool, logits.shape))
        found = fit_binary_temperature(logits, right)
        assert MIN_TEMPERATURE <= found <= MAX_TEMPERATURE
        best = smoothed_binary_loss(logits, right, found)
        for other in np.geomspace(MIN_TEMPERATURE, MAX_TEMPERATURE, 41):
            assert best <= smoothed_binary_loss(logits, right, other) + 1e-9 * max(1.0, best)

    def test_the_calibration_error_by_hand(self) -> None:
        scores, right = np.array([[0.9, 0.1], [0.9, 0.1]]), np.array([[True, False], [False, False]])
        assert binary_calibration_error(scores, right) == pytest.approx((2 * 0.4 + 2 * 0.1) / 4)


def f1(scores: np.ndarray, right: np.ndarray, threshold: float) -> float:
    """F1 with a threshold; 0 without a correct label."""
    answered = scores >= threshold
    return 2 * float((answered & right).sum()) / max(1, int(answered.sum() + right.sum()))


def best_f1(scores: np.ndarray, right: np.ndarray) -> float:
    """The best F1 of any threshold within the limits."""
    return max(f1(scores, right, threshold) for threshold in {0.02, 0.98, *(s for s in scores if 0.02 <= s <= 0.98)})


@st.composite
def scored(draw: st.DrawFn) -> tuple[np.ndarray, np.ndarray]:
    """Scores (many of them equal, some outside the range of thresholds), and which labels apply.

    Shape: [rows, labels].
    """
    shape = draw(st.tuples(st.integers(1, 25), st.integers(1, 3)))
    some = st.sampled_from([0.0, 0.001, 0.015, 0.02, 0.3, 0.97, 0.98, 0.99, 1.0]) | st.integers(0, 40).map(
        lambda number: number / 40
    )
    return draw(arrays.arrays(np.float64, shape, elements=some)), draw(arrays.arrays(bool, shape))


class TestThresholds:
    """For each label the lowest score at which it applies."""

    @settings(deadline=None, max_examples=400)
    @given(scored())
    def test_they_are_the_best_there_are(self, drawn: tuple[np.ndarray, np.ndarray]) -> None:
        scores, right = drawn
        found = fit_thresholds(scores, right)
        assert len(found) == scores.shape[1]
        few = [place for place in range(scores.shape[1]) if right[:, place].sum() < 5]
        for place, threshold in enumerate(found):
            assert 0.02 <= threshold <= 0.98
            own = scores[:, place], right[:, place]
            if place not in few:
                assert f1(*own, threshold) == pytest.approx(best_f1(*own))
            elif right.any():
                assert f1(scores.ravel(), right.ravel(), threshold) == pytest.approx(
                    best_f1(scores.ravel(), right.ravel())
                )
            else:
                assert threshold == 0.5
        assert len({found[place] for place in few}) <= 1, "labels with few rows have one threshold"

    def test_their_f1_is_the_best_of_scikit_learns_curve(self) -> None:
        metrics = pytest.importorskip("sklearn.metrics")
        random = np.random.default_rng(0)
        right = random.random((300, 4)) < [0.5, 0.2, 0.1, 0.03]
        scores = sigmoid(random.normal(-1, 1, (300, 4)) + 1.5 * right)
        assert right.sum(axis=0).min() >= 5
        for place, threshold in enumerate(fit_thresholds(scores, right)):
            precision, recall, _ = metrics.precision_recall_curve(right[:, place], scores[:, place])
            best = (2 * precision * recall / np.maximum(1e-12, precision + recall)).max()
            found = metrics.f1_score(right[:, place], scores[:, place] >= threshold)
            assert found == pytest.approx(best)

    @pytest.mark.parametrize(("positives", "own"), [(4, False), (5, True)])
    def test_a_label_with_few_rows_takes_the_common_one(self, positives: int, own: bool) -> None:
        right = np.zeros((40, 2), bool)
        right[:20, 0] = right[:positives, 1] = True
        scores = np.where(right, [0.8, 0.3], [0.6, 0.1])
        first, second = fit_thresholds(scores, right)
        assert first == pytest.approx(0.7)
        # In the middle of 0.1 and 0.3 on its own; 0.7 is the best for both together.
        assert second == pytest.approx(0.2 if own else 0.7)

    def test_equal_scores_are_not_split(self) -> None:
        # The best cut would be within the rows of 0.5, of which five are right and five are not.
        scores = np.array([[0.9]] + [[0.5]] * 10 + [[0.1]] * 5)
        right = np.array([[True]] + [[True]] * 5 + [[False]] * 10)
        assert fit_thresholds(scores, right) == (pytest.approx(0.3),)

    def test_a_bound_that_cuts_off_the_best_is_not_taken_if_another_is_better(self) -> None:
        # Of all thresholds 0.01 would be the best. From 0.02 on nothing that is wrong may be in it.
        right = np.array([[True]] * 3 + [[False]] * 3 + [[True]] * 9)
        scores = np.array([[0.9]] * 3 + [[0.1]] * 3 + [[0.015]] * 9)
        (found,) = fit_thresholds(scores, right)
        assert found == pytest.approx(0.5)
        assert f1(scores[:, 0], right[:, 0], found) > f1(scores[:, 0], right[:, 0], 0.02)

    def test_nothing_right_is_the_middle(self) -> None:
        assert fit_thresholds(np.full((3, 2), 0.9), np.zeros((3, 2), bool)) == (0.5, 0.5)
