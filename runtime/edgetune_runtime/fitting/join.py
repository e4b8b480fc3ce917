"""Combine two heads: one fitted to rows, and one made from label descriptions.

With a few rows per label, descriptions say more than the rows; with hundreds of rows they add little. So the joined
head is a weighted mean of both calibrated heads, and cross-validation chooses the share of each. Descriptions are never
used as test rows.
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass

import numpy as np

from edgetune_runtime.arrays import Array
from edgetune_runtime.fitting.by_kind import Fitting
from edgetune_runtime.fitting.describe import About
from edgetune_runtime.fitting.head import FittedHead
from edgetune_runtime.fitting.linear import Head

SHARES = (0.0, 0.25, 0.5, 0.75, 1.0)
"""Shares of the described head to choose from."""


@dataclass(frozen=True)
class Trust:
    """How much a described head is trusted.

    Attributes:
        unjudged_share: the share if no row can be held out.
        doubt: the largest share is chosen whose loss exceeds the lowest loss by at most this many standard errors.
    """

    unjudged_share: float
    doubt: float


SAID = Trust(unjudged_share=0.75, doubt=0.5)
"""People who describe labels know them, and on a few dozen rows a small difference in loss is chance."""

NAMED = Trust(unjudged_share=0.0, doubt=0.0)
"""Label names may mean nothing, so rows have to show that they help."""


def trust_of(about: About) -> Trust:
    """How much label descriptions are trusted."""
    return NAMED if about.by_name else SAID


@dataclass(frozen=True)
class Join:
    """How two heads are combined.

    Attributes:
        share: share of the described head, one of `SHARES`.
        fitted, described: factors for the logits of each head.
    """

    share: float
    fitted: float
    described: float

    def logits(self, fitted: Array, described: Array) -> Array:
        """Logits of the joined head, from the logits of both. Shape: [rows, labels], all."""
        found: Array = self.fitted * fitted + self.described * described
        return found

    def head(self, fitted: Head, described: Head) -> Head:
        """The joined head."""
        return Head(*(self.logits(one, other) for one, other in zip(fitted, described, strict=True)))


def join_of(
    fitting: Fitting, fitted: Array, described: Array, targets: Array, weights: Array | None, trust: Trust
) -> Join:
    """How to join two heads, chosen by their logits on rows that neither was trained on.

    Args:
        fitting: how the kind of answer is fitted.
        fitted: logits of the head that was fitted to other rows; may be empty.
        described: logits of the head that is made from descriptions.
        targets: targets of these rows.
        weights: weight of each row; `None` if all count the same.
        trust: how much the described head is trusted.

    Shape:
        fitted, described: [rows, labels]
        targets: [rows, numbers]
        weights: [rows]
    """
    if not len(targets):
        return Join(trust.unjudged_share, 1 - trust.unjudged_share, trust.unjudged_share)
    sharpness = [_sharpness(fitting, logits, targets) for logits in (fitted, described)]
    joins = [Join(share, (1 - share) * sharpness[0], share * sharpness[1]) for share in SHARES]
    losses = [fitting.losses(join.logits(fitted, described), targets) for join in joins]
    means = [float(np.average(own, weights=weights)) for own in losses]
    least = int(np.argmin(means))

    def in_doubt(place: int) -> bool:
        worse, mean = losses[place] - losses[least], means[place] - means[least]
        variance = float(np.average((worse - mean) ** 2, weights=weights)) / max(1, len(worse) - 1)
        return bool(mean <= trust.doubt * np.sqrt(variance))

    return joins[max(place for place in range(len(SHARES)) if place == least or in_doubt(place))]


def _sharpness(fitting: Fitting, logits: Array, targets: Array) -> float:
    """The factor that calibrates logits.

    It is rounded to four digits, because the search ends slightly differently if sums are computed in another order,
    and the same rows should give the same file.
    """
    return float(f"{1 / fitting.calibrate(logits, targets)[0].get('temperature', 1.0):.4g}")


def with_descriptions(
    fitting: Fitting,
    found: FittedHead,
    described: Head,
    features: Array,
    targets: Array,
    weights: Array | None,
    trust: Trust,
) -> FittedHead:
    """Join a fitted head with one that is made from descriptions.

    Args:
        fitting: how the kind of answer is fitted.
        found: the fitted head.
        described: the head made from descriptions.
        features: features of the rows that the head was fitted to.
        targets: targets of these rows.
        weights: weight of each row; `None` if all count the same.
        trust: how much the described head is trusted.

    Shape:
        features: [rows, hidden]
        targets: [rows, numbers]
        weights: [rows]
    """
    other, judged = described.logits(features), found.judged
    counts = None if weights is None else weights[judged]
    join = join_of(fitting, found.held_out[judged], other[judged], targets[judged], counts, trust)
    if not join.share:
        return found
    return dataclasses.replace(
        found,
        head=join.head(found.head, described),
        held_out=join.logits(found.held_out, other).astype(np.float32),
        share=join.share,
    )
