"""The temperature: what overconfidence it finds, where it ends, and that it is the best there is."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from edgetune.training.calibration import MAX_TEMPERATURE, MIN_TEMPERATURE, fit_temperature, logits_calibration_error
from edgetune_runtime.kinds import probabilities

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
    """What the fit minimizes, written down anew: mean cross entropy with the smoothed labels."""
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
