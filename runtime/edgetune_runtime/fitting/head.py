"""Fit a head to features with known targets. Cross-validation chooses the regularization strength."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from edgetune_runtime.arrays import Array
from edgetune_runtime.fitting.by_kind import Fitting
from edgetune_runtime.fitting.linear import Head

STRENGTHS = (0.1, 1.0, 10.0, 100.0, 1000.0)
"""Inverse penalties to choose from."""

USUAL_STRENGTH = 10.0
"""The strength if no row can be held out."""

FOLDS = 5

MOST_HELD_OUT = 2000
"""If there are more rows, only this many choose the strength in cross-validation; then they are held out once, from all
other rows."""


@dataclass(frozen=True)
class FittedHead:
    """A head, and how it was chosen.

    Attributes:
        head: the head, fitted to all rows.
        strength: the inverse penalty, one of `STRENGTHS`.
        held_out: logits of each row, from a head that was fitted without it. Shape: [rows, labels].
        judged: whether a row's `held_out` is valid: not if the row is the only one of its label, or was not held out.
            Shape: [rows].
        share: share of the head that comes from descriptions (`join.with_descriptions`).
    """

    head: Head
    strength: float
    held_out: Array
    judged: Array
    share: float = 0.0


def fit_head(
    fitting: Fitting,
    features: Array,
    targets: Array,
    labels: int,
    weights: Array | None = None,
    seed: int = 0,
    groups: Array | None = None,
) -> FittedHead:
    """Fit a head. The strength with the lowest loss in cross-validation is chosen.

    Args:
        fitting: how the kind of answer is fitted.
        features: features of the rows.
        targets: their targets as numbers.
        labels: number of rows of the head.
        weights: weight of each row, also in the choice of strength; by default all the same.
        seed: the same seed gives the same folds.
        groups: rows of one group, such as the words of a text, are held out together; by default each row is its own
            group.

    Shape:
        features: [rows, hidden]
        targets: [rows, numbers]
        weights, groups: [rows]

    Raises:
        MissingPackageError: scikit-learn is not installed.
    """
    judged = can_be_judged(fitting, targets, groups)
    if len(features) > MOST_HELD_OUT:
        some = folds(targets, seed, -(-len(features) // MOST_HELD_OUT), groups) == 0
        own = None if weights is None else weights[some]
        together = None if groups is None else groups[some]
        strength, _ = _cross_validated(
            fitting, features[some], targets[some], labels, own, seed, judged[some], together
        )
        held_out = np.zeros((len(features), labels), np.float32)
        others = None if weights is None else weights[~some]
        (head,) = fitting.head(features[~some], targets[~some], labels, (strength,), others)
        held_out[some] = head.logits(features[some])
        judged &= some
    else:
        strength, held_out = _cross_validated(fitting, features, targets, labels, weights, seed, judged, groups)
    (head,) = fitting.head(features, targets, labels, (strength,), weights)
    return FittedHead(head, strength, held_out, judged)


def _cross_validated(
    fitting: Fitting,
    features: Array,
    targets: Array,
    labels: int,
    weights: Array | None,
    seed: int,
    judged: Array,
    groups: Array | None,
) -> tuple[float, Array]:
    """The best strength, and each row's logits at that strength from a head that was fitted without the row."""
    fold = folds(targets, seed, groups=groups)
    held_out = np.zeros((len(STRENGTHS), len(features), labels), np.float32)
    for number in np.unique(fold):
        left, out = fold != number, fold == number
        own = None if weights is None else weights[left]
        for place, head in enumerate(fitting.head(features[left], targets[left], labels, STRENGTHS, own)):
            held_out[place, out] = head.logits(features[out])
    chosen = STRENGTHS.index(USUAL_STRENGTH)
    if judged.any():
        counts = None if weights is None else weights[judged]
        losses = [
            np.average(fitting.losses(own[judged].astype(np.float64), targets[judged]), weights=counts)
            for own in held_out
        ]
        chosen = int(np.argmin(losses))
    return STRENGTHS[chosen], held_out[chosen]


def folds(targets: Array, seed: int, number: int = FOLDS, groups: Array | None = None) -> Array:
    """The fold in which each row is held out.

    Each fold has about the same share of every label, or of high and low numbers.

    Rows of one group are in one fold; with groups, folds have about the same number of groups.

    Shape:
        targets: [rows, numbers]
        groups, output: [rows]
    """
    if groups is not None:
        _, own = np.unique(groups, return_inverse=True)
        dealt = np.random.default_rng(seed).permutation(own.max(initial=-1) + 1)
        by_group: Array = dealt[own] % max(1, min(number, len(dealt)))
        return by_group
    shuffled = np.random.default_rng(seed).permutation(len(targets))
    order = np.lexsort((shuffled, *targets.T[::-1]))
    found = np.empty(len(targets), np.int64)
    found[order] = np.arange(len(targets)) % min(number, len(targets))
    return found


def can_be_judged(fitting: Fitting, targets: Array, groups: Array | None = None) -> Array:
    """Whether each row can be held out: not if it is the only row of its label, or if there is only one group.

    Shape:
        targets: [rows, numbers]
        groups, output: [rows]
    """
    if groups is not None:
        return np.full(len(targets), len(np.unique(groups)) > 1)
    if not fitting.weighs_classes:
        return np.full(len(targets), len(targets) > 1)
    _, place, counts = np.unique(targets[:, 0], return_inverse=True, return_counts=True)
    found: Array = counts[place] > 1
    return found
