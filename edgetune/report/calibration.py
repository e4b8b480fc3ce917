"""The reliability diagram: whether scores match the share of right answers."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from edgetune.report.markup import table
from edgetune.report.section import Material, Part, counted, picture, side_by_side
from edgetune.report.svg import Axis, Frame, spanning
from edgetune_runtime.arrays import Array
from edgetune_runtime.metrics import CALIBRATION_BINS, calibration_bins, calibration_error

_CALIBRATED = 0.05
_FEW_ROWS = 200


class Reliability(NamedTuple):
    """Scores and right answers in bins of equal width, without empty bins.

    Attributes:
        low, high: lower and upper end of each bin.
        counts: number of scores in each bin.
        score: their mean.
        right: share of right answers.
    """

    low: Array
    high: Array
    counts: Array
    score: Array
    right: Array


def reliability(scores: Array, right: Array) -> Reliability:
    """Group scores into the bins of the expected calibration error.

    Shape:
        scores, right: [rows]
        each of the output: [bins with scores]
    """
    bins = calibration_bins(scores)
    counts = np.bincount(bins, minlength=CALIBRATION_BINS)
    taken = np.flatnonzero(counts)
    means = [np.bincount(bins, weights, CALIBRATION_BINS)[taken] / counts[taken] for weights in (scores, right)]
    return Reliability(taken / CALIBRATION_BINS, (taken + 1) / CALIBRATION_BINS, counts[taken], *means)


def one_answer(material: Material) -> Part:
    """The diagram of the best answer's score."""
    return _part(material.best_scores, material.is_right, "answer", "right")


def any_labels(material: Material) -> Part:
    """The diagram of all labels' scores: the share of rows that have the label."""
    return _part(material.scores.ravel(), material.applies.ravel(), "score of a label", "of rows that have it")


def _part(scores: Array, right: Array, what: str, hit: str) -> Part:
    bins, error = reliability(scores, right), calibration_error(scores, right)
    share, mean = float(right.mean()), float(scores.mean())
    shares = f"share {hit}"
    frame = Frame(Axis("score"), Axis(shares))
    titles = [
        f"scores {low:.2f} to {high:.2f}: {counted(int(number), 'row')}, mean score {score:.3f}, {shares} {own:.3f}"
        for low, high, number, score, own in zip(*bins, strict=True)
    ]
    diagram = frame.draw(
        f"Bars: for scores in {len(bins.counts)} ranges, the {shares}. Calibrated scores follow the diagonal. The "
        f"expected calibration error is {error:.3f}.",
        frame.bars(zip(bins.low, bins.high, bins.right, strict=True), "one", titles),
        frame.line([(0, 0), (1, 1)], "ideal"),
        frame.dots(zip(bins.score, bins.right, strict=True), "two", 4, titles),
    )
    rows = Frame(Axis("score"), spanning("scores", map(float, bins.counts), whole=True, zero=True), height=190)
    most = int(bins.counts.argmax())
    histogram = rows.draw(
        f"Bars: how many scores are in each range; most, {bins.counts[most]:,}, from {bins.low[most]:.2f} to "
        f"{bins.high[most]:.2f}.",
        rows.bars(zip(bins.low, bins.high, map(float, bins.counts), strict=True), "quiet", titles),
    )
    numbers = table(
        f"Scores and the {shares}, by range of scores",
        ["scores", "number", "mean score", shares],
        [
            [f"{low:.2f}–{high:.2f}", int(number), float(score), float(own)]
            for low, high, number, score, own in zip(*bins, strict=True)
        ],
    )
    body = side_by_side(
        picture(
            diagram,
            f"Each bar is the {shares} among the answers with such a score; each dot is at their mean score. On the "
            f"dashed line scores are calibrated. Below it they are too high, above it too low.",
            numbers,
        ),
        picture(histogram, f"How many scores of each size there are. ECE: {error:.3f}. {_rough(len(scores))}".strip()),
    )
    if error < _CALIBRATED:
        return Part(f"Scores are well calibrated: ECE {error:.3f}.", body)
    if abs(mean - share) < error / 2:
        return Part(f"Scores are off by {error:.3f} on average (ECE), some too high and some too low.", body)
    sized = "too high" if mean > share else "too low"
    return Part(f"Scores are {sized}: {mean:.2f} per {what} on average, and the {shares} is {share:.2f}.", body)


def _rough(number: int) -> str:
    if number >= _FEW_ROWS:
        return ""
    return f"With {number:,} scores it is a rough figure, and comes out too high."
