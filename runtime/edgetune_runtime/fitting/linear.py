"""Linear models on features with scikit-learn, one per regularization strength: logistic and ridge regression.

A model is fitted on features that are centred and divided by one number, so that strengths mean the same for every
backbone. It is returned as weight and bias for the original features.
"""

from __future__ import annotations

import threading
import warnings
from collections.abc import Callable, Iterator, Sequence
from functools import cache
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from edgetune_runtime.arrays import Array
from edgetune_runtime.errors import needs
from edgetune_runtime.parts import HEAD

if TYPE_CHECKING:
    from sklearn.linear_model import LogisticRegression
    from threadpoolctl import ThreadpoolController

FIT_METHOD = "fit"
"""The name in task files of the method that fits only a head."""

_MOST_STEPS = 300
_MANY_NUMBERS = 4_000_000  # features; above this, BLAS is faster with threads
_SETTING = threading.Lock()
_NEVER = -4.0


class Head(NamedTuple):
    """A linear head.

    Shape:
        weight: [labels, hidden]
        bias: [labels]
    """

    weight: Array
    bias: Array

    def logits(self, features: Array) -> Array:
        """Shape: [rows, hidden] → [rows, labels]."""
        found: Array = features @ self.weight.T + self.bias
        return found


def head_tensors(head: Head) -> dict[str, Array]:
    """A head as the tensors of a task."""
    return {name: values.astype(np.float32) for name, values in zip(HEAD.tensors, head, strict=True)}


Solver = Callable[[Array, Array, int, Sequence[float], Array | None], Iterator[Head]]
"""Fits a head for each strength. Arguments: features [rows, hidden], targets [rows, numbers], number of labels,
strengths (inverse penalties on the squared weight, ascending), and row weights [rows]."""


def logistic(
    features: Array, targets: Array, labels: int, strengths: Sequence[float], weights: Array | None
) -> Iterator[Head]:
    """Multinomial logistic regression. A label without rows is never predicted."""
    right = targets[:, 0].astype(np.int64)
    if len(np.unique(right)) == 1:
        bias = np.full(labels, _NEVER)
        bias[right[0]] = 0.0
        yield from (Head(np.zeros((labels, features.shape[1])), bias) for _ in strengths)
        return
    scaled, mean, scale = standardized(features)
    model = _regression()
    for strength in strengths:
        _fit(model, scaled, right, strength, weights)
        weight, bias = _both_signs(model.coef_), _both_signs(model.intercept_)
        if len(bias) < labels:
            every = np.zeros((labels, weight.shape[1])), np.full(labels, bias.min() + _NEVER)
            for whole, own in zip(every, (weight, bias), strict=True):
                whole[model.classes_] = own
            weight, bias = every
        yield unscaled(weight, bias, mean, scale)


def one_against_the_rest(
    features: Array, targets: Array, labels: int, strengths: Sequence[float], weights: Array | None
) -> Iterator[Head]:
    """A logistic regression for each label. If all rows have a label, or none has, its bias is based on that share."""
    scaled, mean, scale = standardized(features)
    right = targets.astype(bool)
    share = (right.sum(axis=0) + 1) / (len(right) + 2)
    mixed = np.flatnonzero(right.any(axis=0) & ~right.all(axis=0))
    models = {place: _regression() for place in mixed}
    for strength in strengths:
        weight, bias = np.zeros((labels, features.shape[1])), np.log(share / (1 - share))
        for place, model in models.items():
            _fit(model, scaled, right[:, place], strength, weights)
            weight[place], bias[place] = model.coef_[0], model.intercept_[0]
        yield unscaled(weight, bias, mean, scale)


def ridge(
    features: Array, targets: Array, labels: int, strengths: Sequence[float], weights: Array | None
) -> Iterator[Head]:
    """Ridge regression."""
    with needs("fit"):
        from sklearn.linear_model import Ridge
    scaled, mean, scale = standardized(features)
    spread = float(targets.std()) or 1.0
    for strength in strengths:
        model = Ridge(alpha=1 / strength).fit(scaled, targets / spread, weights)
        yield unscaled(model.coef_.reshape(labels, -1) * spread, model.intercept_ * spread, mean, scale)


def _regression() -> LogisticRegression:
    with needs("fit"):
        from sklearn.linear_model import LogisticRegression
    return LogisticRegression(max_iter=_MOST_STEPS, warm_start=True)  # each strength starts from the previous result


def _fit(model: LogisticRegression, features: Array, targets: Array, strength: float, weights: Array | None) -> None:
    with needs("fit"):
        from sklearn.exceptions import ConvergenceWarning
    # These settings affect the whole process, so only one thread at a time may change them.
    with _SETTING, warnings.catch_warnings(), _blas().limit(limits=1 if features.size < _MANY_NUMBERS else None):
        # With weak regularization, more steps would still lower the loss, but held-out rows would not notice.
        warnings.simplefilter("ignore", ConvergenceWarning)
        model.set_params(C=strength).fit(features, targets, weights)


@cache
def _blas() -> ThreadpoolController:
    """Thread control of the BLAS libraries: on so few rows their threads would only wait for one another."""
    with needs("fit"):
        from threadpoolctl import ThreadpoolController  # a dependency of scikit-learn
    return ThreadpoolController()


def _both_signs(values: Array) -> Array:
    """For two labels scikit-learn returns only one row, for the second label."""
    return np.concatenate([-values / 2, values / 2]) if len(values) == 1 else values


def standardized(features: Array) -> tuple[Array, Array, float]:
    """Features with mean 0 and an average length of 1, the mean, and the scale."""
    mean = features.mean(axis=0, dtype=np.float64)
    centred = features - mean.astype(features.dtype)
    scale = float(np.sqrt(np.einsum("rh,rh->", centred, centred, dtype=np.float64) / len(centred))) or 1.0
    centred /= scale
    return centred, mean, scale


def unscaled(weight: Array, bias: Array, mean: Array, scale: float) -> Head:
    """Convert a head for standardized features to one for the original features."""
    weight = weight / scale
    return Head(weight, bias - weight @ mean)
