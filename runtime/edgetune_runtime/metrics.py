"""Measures of the quality of answers."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from edgetune_runtime.arrays import Array

CALIBRATION_BINS = 15
"""Number of bins of `calibration_bins`."""


@dataclass(frozen=True)
class Quality:
    """Quality of a classifier on labelled texts.

    Attributes:
        accuracy: share of right answers.
        macro_f1: mean F1 over the labels; labels that neither occur nor are answered are left out.
        confusion: how often each label (row) was answered with each label (column). Shape: [labels, labels].
    """

    accuracy: float
    macro_f1: float
    confusion: Array

    @property
    def recall(self) -> Array:
        """For each label the share of its rows that were answered correctly; 0 if it has no rows. Shape: [labels]."""
        return self.confusion.diagonal() / np.maximum(1, self.confusion.sum(axis=1))

    @property
    def f1(self) -> Array:
        """For each label the harmonic mean of precision and recall; 0 without a right answer. Shape: [labels]."""
        return 2 * self.confusion.diagonal() / np.maximum(1, _seen(self.confusion))


def quality(expected: Sequence[str], answered: Sequence[str], labels: Sequence[str]) -> Quality:
    """Compare answers with the expected labels; both must be among `labels`."""
    index = {label: place for place, label in enumerate(labels)}
    confusion = np.zeros((len(labels), len(labels)), np.int64)
    for right, answer in zip(expected, answered, strict=True):
        confusion[index[right], index[answer]] += 1
    return quality_of(confusion)


def quality_of(confusion: Array) -> Quality:
    """The quality for a table of right labels (rows) and answers (columns).

    Shape:
        confusion: [labels, labels]
    """
    hits = confusion.diagonal()
    seen = _seen(confusion)
    f1 = 2 * hits[seen > 0] / seen[seen > 0]
    return Quality(float(hits.sum() / max(1, confusion.sum())), float(f1.mean()) if len(f1) else 0.0, confusion)


def _seen(confusion: Array) -> Array:
    """How often each label occurs, either as the right label or as an answer."""
    return confusion.sum(axis=0) + confusion.sum(axis=1)


def calibration_error(scores: Array, right: Array) -> float:
    """Expected calibration error: the gap between scores and the share of right answers (Naeini et al. 2015).

    Answers are grouped by score into 15 bins of equal width. The error is the difference between a bin's mean score and
    its accuracy, averaged over all answers. 0 if there are no answers.

    Args:
        scores: the score of each answer, 0 to 1.
        right: whether each answer is right.

    Shape:
        scores, right: [rows]
    """
    gaps = np.bincount(calibration_bins(scores), weights=scores - right)
    return float(np.abs(gaps).sum() / max(1, len(scores)))


def calibration_bins(scores: Array) -> Array:
    """The bin of each score; bins have equal width from 0 to 1. A score on an edge belongs to the lower bin.

    Shape:
        scores, output: [rows]
    """
    bins: Array = np.clip(np.ceil(scores * CALIBRATION_BINS).astype(np.int64) - 1, 0, CALIBRATION_BINS - 1)
    return bins


def average_precision(right: Array, scores: Array) -> float:
    """Mean precision at each right row, with rows sorted by score; equal scores count as one step.

    Args:
        right: whether each row has the label.
        scores: the label's score for each row.

    Returns:
        From 0 to 1, like scikit-learn's `average_precision_score`; 0 if no row has the label.

    Shape:
        right, scores: [rows]
    """
    if not right.any():
        return 0.0
    order = np.argsort(-scores, kind="stable")
    hits = np.cumsum(right[order])
    last_of_equals = np.append(np.diff(scores[order]) != 0, True)
    hits, ranks = hits[last_of_equals], np.flatnonzero(last_of_equals) + 1
    recall = hits / hits[-1]
    return float((np.diff(recall, prepend=0.0) * hits / ranks).sum())


def pearson(right: Array, scores: Array) -> float:
    """Pearson's correlation, from -1 to 1; 0 if either side does not vary. Shape: [rows], both."""
    if not len(right) or not np.ptp(right) or not np.ptp(scores):  # rounding of means would look like a difference
        return 0.0
    first, second = _centred(right), _centred(scores)
    return float(np.clip((first * second).sum() / np.sqrt((first**2).sum() * (second**2).sum()), -1, 1))


def spearman(right: Array, scores: Array) -> float:
    """Spearman's correlation: Pearson's correlation of the ranks; equal values share their mean rank.

    Shape: [rows], both.
    """
    return pearson(_ranks(right), _ranks(scores))


def _centred(values: Array) -> Array:
    """Varying values minus their mean, scaled so that squares neither overflow nor underflow."""
    scaled = values / np.abs(values).max()
    centred = scaled - scaled.mean()
    found: Array = centred / np.abs(centred).max()
    return found


def _ranks(values: Array) -> Array:
    _, place, counts = np.unique(values, return_inverse=True, return_counts=True)
    ends = np.cumsum(counts)
    ranks: Array = (ends - (counts - 1) / 2)[place]
    return ranks


def f1_of(hits: int, right: int, given: int) -> float:
    """F1, given the number of right answers, of expected answers and of given answers; 0 if there are none."""
    return 2 * hits / max(1, right + given)
