"""Calibration: one temperature that makes a task's scores as sure as its answers are right, and thresholds.

Guo et al. 2017, "On Calibration of Modern Neural Networks".
"""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np

from edgetune_runtime.arrays import Array
from edgetune_runtime.kinds import probabilities
from edgetune_runtime.kinds.kind import sigmoid
from edgetune_runtime.metrics import calibration_error

MIN_TEMPERATURE, MAX_TEMPERATURE = 0.05, 20.0
_HALVINGS = 50


def fit_temperature(logits: Array, right: Array) -> float:
    """The temperature at which the labels that are right are most likely; it changes no answer.

    The labels are smoothed by the weight of one row more, spread over all rows and labels (to the same end as
    the targets of Platt 1999): a few rows, all answered rightly, do not make every score 1.

    Args:
        logits: finite logits of labelled rows; -inf for a label that a row cannot have.
        right: each row's label, as its place among the logits.

    Returns:
        A number from `MIN_TEMPERATURE` to `MAX_TEMPERATURE`; 1 where the logits say nothing.

    Shape:
        logits: [rows, labels]
        right: [rows]
    """
    rows = len(logits)
    below = logits.astype(np.float64) - logits.max(axis=1, keepdims=True)
    can_be = np.isfinite(below)
    below = np.where(can_be, below, 0.0)
    if not below.any():
        return 1.0
    target = (rows * below[np.arange(rows), right] + below.sum(axis=1) / can_be.sum(axis=1)) / (rows + 1)

    def too_sure(temperature: float) -> bool:
        # The sign of the likelihood's slope in 1 / temperature, in which its negative logarithm is convex.
        expected = (probabilities(logits, temperature) * below).sum(axis=1)
        return bool((expected - target).sum() > 0)

    return _bisect(too_sure)


def _bisect(too_sure: Callable[[float], bool]) -> float:
    """The temperature at which scores stop to be too sure, from `MIN_TEMPERATURE` to `MAX_TEMPERATURE`."""
    low, high = math.log(MIN_TEMPERATURE), math.log(MAX_TEMPERATURE)
    for _ in range(_HALVINGS):
        middle = (low + high) / 2
        if too_sure(math.exp(middle)):
            low = middle
        else:
            high = middle
    return min(max(math.exp(high), MIN_TEMPERATURE), MAX_TEMPERATURE)


def logits_calibration_error(logits: Array, right: Array, temperature: float) -> float:
    """Calibration error of the best labels' scores at a temperature.

    Shape:
        logits: [rows, labels]
        right: [rows]
    """
    return calibration_error(probabilities(logits, temperature).max(axis=1), logits.argmax(axis=1) == right)


def fit_binary_temperature(logits: Array, right: Array) -> float:
    """The temperature at which the labels that apply, each on its own, are most likely.

    As `fit_temperature`, with the weight of one row more of which every label applies by half.

    Args:
        logits: finite logits of labelled rows.
        right: whether each label applies.

    Shape:
        logits, right: [rows, labels]
    """
    if not logits.any():
        return 1.0
    extra = np.abs(logits.astype(np.float64)).mean(axis=0)  # the row more, as sure as the others are on average
    values = np.concatenate([logits.astype(np.float64), extra[np.newaxis]])
    applies = np.concatenate([right.astype(np.float64), np.full((1, right.shape[1]), 0.5)])

    def too_sure(temperature: float) -> bool:
        # The sign of the likelihood's slope in 1 / temperature.
        return bool(((sigmoid(values / temperature) - applies) * values).sum() > 0)

    return _bisect(too_sure)


_MOST_EXTREME = 0.02
_FEWEST_POSITIVES = 5


def fit_thresholds(scores: Array, right: Array) -> tuple[float, ...]:
    """For each label the score from which on it applies, so that the F1 on these rows is highest.

    A label that applies to fewer than five rows takes the threshold at which the micro-F1 of all labels is highest:
    its own would be that of a row or two.

    Args:
        scores: probability of each label.
        right: whether it applies.

    Returns:
        A threshold per label, from 0.02 to 0.98.

    Shape:
        scores, right: [rows, labels]
    """
    common = _best_threshold(scores.ravel(), right.ravel())
    own = [
        _best_threshold(scores[:, place], right[:, place]) if right[:, place].sum() >= _FEWEST_POSITIVES else common
        for place in range(scores.shape[1])
    ]
    return tuple(own)


def _best_threshold(scores: Array, right: Array) -> float:
    """The threshold with the highest F1, the highest of several; 0.5 if nothing is right.

    It is in the middle between two scores, or as far as thresholds go.
    """
    if not right.any():
        return 0.5
    different = np.unique(np.append(scores, [0.0, 1.0]))
    middles = (different[1:] + different[:-1]) / 2
    thresholds = np.clip(middles[::-1], _MOST_EXTREME, 1 - _MOST_EXTREME)
    above, hits = (len(own) - np.searchsorted(np.sort(own), thresholds) for own in (scores, scores[right]))
    f1 = 2 * hits / (above + right.sum())
    return float(thresholds[f1.argmax()])


def binary_calibration_error(scores: Array, right: Array) -> float:
    """Calibration error of scores of labels that apply each on their own. Shape: [rows, labels], both."""
    return calibration_error(scores.ravel(), right.ravel().astype(np.float64))
