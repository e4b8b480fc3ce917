"""Fit heads that point at the rows of windows: the row where an answer begins, and the row where it ends.

A target has two numbers: the row's word (`candidates.numbered`), which shows where windows and texts begin, and a sum
that says whether the answer begins (1) and ends (2) in the row. The loss or error of a window or text is stored in its
first row, multiplied by the average number of rows, so that the mean over rows is the mean over windows or texts.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

from edgetune_runtime.arrays import Array
from edgetune_runtime.candidates import Candidates, Decision, by_text
from edgetune_runtime.errors import needs
from edgetune_runtime.fitting.calibration import fit_temperature, logits_calibration_error
from edgetune_runtime.fitting.linear import Head, standardized, unscaled
from edgetune_runtime.kinds.spans import Piece

_MOST_STEPS = 300
_MOST_CANDIDATES = 500
"""Number of answers per text that calibration compares: the best ones, and the right one. The others are very
unlikely."""


def encoded(piece: Piece) -> list[float]:
    """A row's target as numbers."""
    return [float(piece.word), float(piece.begins + 2 * piece.ends)]


def losses(logits: Array, targets: Array) -> Array:
    """For each window the mean of two cross-entropies: of the row where an answer begins, and of the row where it ends.

    Shape:
        logits: [rows, 2]
        targets: [rows, 2]
        output: [rows]
    """
    words, right = _decoded(targets)
    starts = np.flatnonzero(words < 0)
    found = np.zeros(len(logits))
    teaches = np.add.reduceat(right, starts) > 0
    per_window = np.where(teaches, _log_sums(logits, starts) - np.add.reduceat(logits * right, starts), 0.0)
    found[starts] = per_window.sum(axis=1) / 2 * len(logits) / max(1, int(teaches.any(axis=1).sum()))
    return found


def errors(logits: Array, targets: Array) -> Array:
    """Whether each text has a wrong answer; shapes as for `losses`."""
    words, _ = _decoded(targets)
    found = np.zeros(len(logits))
    texts = list(by_text(words))
    for own in texts:
        is_right = Candidates.of(logits[own], words[own]).best in _right(targets[own])
        found[own.start] = (1 - is_right) * len(logits) / len(texts)
    return found


def exact_match(logits: Array, targets: Array) -> float:
    """Share of texts whose answer has exactly the right words; shapes as for `losses`."""
    return 1 - float(errors(logits, targets).mean()) if len(logits) else 0.0


def calibrate(logits: Array, targets: Array) -> tuple[dict[str, Any], dict[str, float]]:
    """The temperature of the softmax over all answers of a text, and calibration errors; shapes as for `losses`.

    Texts whose right answer cannot be given are ignored.
    """
    words, _ = _decoded(targets)
    rows = []
    for own in by_text(words):
        found = Candidates.of(logits[own], words[own])
        right = _right(targets[own])
        if right:
            values, place = found.logits, found.place(right[0])
            others = np.delete(values, place)
            kept = -np.sort(-others)[:_MOST_CANDIDATES]
            rows.append(np.concatenate([[values[place]], kept, np.full(_MOST_CANDIDATES - len(kept), -np.inf)]))
    if not rows:
        return {}, {}
    compared = np.array(rows)
    first = np.zeros(len(compared), np.int64)
    temperature = fit_temperature(compared, first)
    return {"temperature": temperature}, {
        "ece": logits_calibration_error(compared, first, temperature),
        "ece_unscaled": logits_calibration_error(compared, first, 1.0),
    }


def head(
    features: Array, targets: Array, labels: int, strengths: Sequence[float], weights: Array | None
) -> Iterator[Head]:
    """Fit a softmax over each window's rows for "begins" and one for "ends", with a squared weight penalty."""
    with needs("fit"):
        from scipy.optimize import minimize  # a dependency of scikit-learn
    words, right = _decoded(targets)
    starts = np.flatnonzero(words < 0)
    lengths = np.diff([*starts, len(words)])
    counts = np.repeat(np.add.reduceat(right, starts), lengths, axis=0)
    given, _, scale = standardized(features)
    given = given.astype(np.float64)

    def loss(flat: Array, strength: float) -> tuple[float, Array]:
        weight = flat.reshape(labels, -1)
        logits = given @ weight.T
        sums = np.repeat(_log_sums(logits, starts), lengths, axis=0)
        value = strength * float((right * (sums - logits)).sum()) + float(np.square(flat).sum()) / 2
        slope = strength * ((np.exp(logits - sums) * counts - right).T @ given)
        return value, (slope + weight).ravel()

    flat = np.zeros(labels * features.shape[1])
    for strength in strengths:  # each starts from the previous result
        flat = minimize(loss, flat, (strength,), "L-BFGS-B", jac=True, options={"maxiter": _MOST_STEPS}).x
        # A bias would shift all rows equally and not change the softmax, so there is none.
        yield unscaled(flat.reshape(labels, -1), np.zeros(labels), np.zeros(features.shape[1]), scale)


def _decoded(targets: Array) -> tuple[Array, Array]:
    """The words of rows, and whether an answer begins and ends in each. Shape: [rows], [rows, 2]."""
    ends = targets[:, 1].astype(np.int64)
    return targets[:, 0].astype(np.int64), np.stack([ends & 1, ends >> 1], axis=1).astype(np.float64)


def _log_sums(logits: Array, starts: Array) -> Array:
    """The log-sum-exp of each window. Shape: [rows, 2], [windows] → [windows, 2]."""
    values = logits.astype(np.float64)
    found: Array = np.logaddexp.reduceat(values, starts)
    return found


def _right(targets: Array) -> list[Decision]:
    """The right answer of a text; `None` if it cannot be given."""
    words, right = _decoded(targets)
    begins, ends = (words[own > 0] for own in right.T)
    if not len(begins):
        return []
    if (begins < 0).all():
        return [None]
    return [(int(begins[begins >= 0][0]), int(ends[ends >= 0][0]))]
