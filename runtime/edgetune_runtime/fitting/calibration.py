"""Calibration: one temperature that makes a task's scores match the accuracy of its answers, and thresholds.

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
    """The temperature at which the right labels are most likely. It does not change any answer.

    The labels are smoothed with the weight of one additional row, spread over all rows and labels, for the same purpose
    as the targets of Platt 1999: if there are only a few rows, and all are answered correctly, scores still stay below
    1.

    Args:
        logits: finite logits of labelled rows; -inf for labels that a row cannot have.
        right: the index of each row's right label.

    Returns:
        A number from `MIN_TEMPERATURE` to `MAX_TEMPERATURE`; 1 if the logits carry no information.

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
        # The sign of the slope of the likelihood in 1 / temperature; its negative logarithm is convex in that.
        expected = (probabilities(logits, temperature) * below).sum(axis=1)
        return bool((expected - target).sum() > 0)

    return _bisect(too_sure)


def _bisect(too_sure: Callable[[float], bool]) -> float:
    """The temperature at which scores stop being overconfident, from `MIN_TEMPERATURE` to `MAX_TEMPERATURE`."""
    low, high = math.log(MIN_TEMPERATURE), math.log(MAX_TEMPERATURE)
    for _ in range(_HALVINGS):
        middle = (low + high) / 2
        if too_sure(math.exp(middle)):
            low = middle
        else:
            high = middle
    return min(max(math.exp(high), MIN_TEMPERATURE), MAX_TEMPERATURE)


def logits_calibration_error(logits: Array, right: Array, temperature: float) -> float:
    """Calibration error of the best label's score at a temperature.

    Shape:
        logits: [rows, labels]
        right: [rows]
    """
    return calibration_error(probabilities(logits, temperature).max(axis=1), logits.argmax(axis=1) == right)


def fit_binary_temperature(logits: Array, right: Array) -> float:
    """The temperature at which the right yes-or-no decisions, one per label, are most likely.

    Smoothed like `fit_temperature`, with one additional row to which every label half applies.

    Args:
        logits: finite logits of labelled rows.
        right: whether each label applies.

    Shape:
        logits, right: [rows, labels]
    """
    if not logits.any():
        return 1.0
    extra = np.abs(logits.astype(np.float64)).mean(axis=0)  # the additional row, as confident as the others on average
    values = np.concatenate([logits.astype(np.float64), extra[np.newaxis]])
    applies = np.concatenate([right.astype(np.float64), np.full((1, right.shape[1]), 0.5)])

    def too_sure(temperature: float) -> bool:
        # The sign of the slope of the likelihood in 1 / temperature.
        return bool(((sigmoid(values / temperature) - applies) * values).sum() > 0)

    return _bisect(too_sure)


_MOST_EXTREME = 0.02
_FEWEST_POSITIVES = 5


def fit_thresholds(scores: Array, right: Array) -> tuple[float, ...]:
    """For each label the lowest score at which it applies, chosen for the highest F1 on these rows.

    A label that applies to fewer than five rows takes the threshold with the highest micro-F1 of all labels, because a
    threshold of its own would rest on one or two rows.

    Args:
        scores: the probability of each label.
        right: whether each label applies.

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
    """The threshold with the highest F1, and the highest threshold on a tie; 0.5 if nothing is right.

    It is halfway between two scores, or at a limit of the allowed range.
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
    """Calibration error of scores whose labels apply independently. Shape: [rows, labels], both."""
    return calibration_error(scores.ravel(), right.ravel().astype(np.float64))
