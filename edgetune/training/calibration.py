"""Calibration: one temperature that makes a task's scores as sure as its answers are right.

Guo et al. 2017, "On Calibration of Modern Neural Networks".
"""

from __future__ import annotations

import math

import numpy as np

from edgetune_runtime.arrays import Array
from edgetune_runtime.engine import probabilities
from edgetune_runtime.metrics import calibration_error

MIN_TEMPERATURE, MAX_TEMPERATURE = 0.05, 20.0
_HALVINGS = 50


def fit_temperature(logits: Array, right: Array) -> float:
    """The temperature at which the labels that are right are most likely; it changes no answer.

    The labels are smoothed by the weight of one row more, spread over all rows and labels (to the same end as
    the targets of Platt 1999): a few rows, all answered rightly, do not make every score 1.

    Args:
        logits: finite logits of labelled rows.
        right: each row's label, as its place among the logits.

    Returns:
        A number from `MIN_TEMPERATURE` to `MAX_TEMPERATURE`; 1 where the logits say nothing.

    Shape:
        logits: [rows, labels]
        right: [rows]
    """
    rows = len(logits)
    below = logits.astype(np.float64) - logits.max(axis=1, keepdims=True)
    if not below.any():
        return 1.0
    target = (rows * below[np.arange(rows), right] + below.mean(axis=1)) / (rows + 1)

    def too_sure(temperature: float) -> bool:
        # The sign of the likelihood's slope in 1 / temperature, in which its negative logarithm is convex.
        expected = (probabilities(logits, temperature) * below).sum(axis=1)
        return bool((expected - target).sum() > 0)

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
