"""How each kind of answer is fitted: its targets as numbers, the measure of answers, the head, the calibration.

A new kind is a row in `FITTINGS`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from edgetune_runtime.arrays import Array
from edgetune_runtime.decoding import decode, row_of, spans_of
from edgetune_runtime.fitting import linear, pointers
from edgetune_runtime.fitting.calibration import (
    binary_calibration_error,
    fit_binary_temperature,
    fit_temperature,
    fit_thresholds,
    logits_calibration_error,
)
from edgetune_runtime.kinds import Kind
from edgetune_runtime.kinds.kind import sigmoid
from edgetune_runtime.kinds.multi_label import MULTI_LABEL
from edgetune_runtime.kinds.score import SCORE
from edgetune_runtime.kinds.single_label import SINGLE_LABEL
from edgetune_runtime.kinds.spans import SPANS
from edgetune_runtime.kinds.tokens import TOKENS
from edgetune_runtime.metrics import average_precision, f1_of, pearson, quality_of


@dataclass(frozen=True)
class Measure:
    """A measure by which the best candidate is chosen, such as the best epoch.

    Attributes:
        name: its name for people.
        figure: its name in JSON.
        of: its value for logits and targets; at most 1, higher is better.
        by_label: whether each label counts the same, also in the loss; otherwise each row counts the same.
    """

    name: str
    figure: str
    of: Callable[[Array, Array], float]
    by_label: bool = False


@dataclass(frozen=True)
class Fitting:
    """How tasks of one kind are fitted to labelled texts. A row is a text or, if the kind has a `reading`, a piece.

    Attributes:
        encode: converts the target of a text, or of a piece (`Kind.pieces`), to numbers, given the task's labels.
        losses: the loss of each row. Shape: logits [rows, labels], targets [rows, numbers] → [rows].
        errors: how wrong the answer to each row is; usually 0 if it is right and 1 if it is wrong. Shapes as for
            `losses`.
        measure: chooses the best candidate, unless a label is rare.
        measure_if_rare: chooses it if a label is rare; `None` if rare labels make no difference. The kind's figures
            contain it too.
        calibrate: computes fields of `Task`, and figures, from the logits of rows that were not trained on.
        stored: figures of the kind that are saved in a task file, with the prefix "dev_" or "cv_".
        head: fits heads, one per regularization strength.
        weighs_classes: whether class weights are supported; then the target's first number is the label's index.
    """

    encode: Callable[[Any, Sequence[str]], list[float]]
    losses: Callable[[Array, Array], Array]
    errors: Callable[[Array, Array], Array]
    measure: Measure
    calibrate: Callable[[Array, Array], tuple[dict[str, Any], dict[str, float]]]
    stored: tuple[str, ...]
    head: linear.Solver
    measure_if_rare: Measure | None = None
    weighs_classes: bool = False


def fitting_of(kind: Kind) -> Fitting:
    """How tasks of a kind are fitted."""
    return FITTINGS[kind.name]


def loss_of(kind: Kind, logits: Array, targets: Array, measure: Measure) -> float:
    """The loss without class weights: the mean over rows or, if the measure counts by label, over labels.

    Shape:
        logits: [rows, labels]
        targets: [rows, numbers]
    """
    rows = fitting_of(kind).losses(logits.astype(np.float64), targets)
    if not measure.by_label:
        return float(rows.mean())
    right = places(targets)
    return float(np.mean([rows[right == place].mean() for place in np.unique(right)]))


def places(targets: Array) -> Array:
    """The index of each row's label. Shape: [rows, 1] → [rows]."""
    return targets[:, 0].astype(np.int64)


def confusion(logits: Array, right: Array) -> Array:
    """How often each label (row) was answered with each label (column).

    Shape:
        logits: [rows, labels]
        right: [rows]
        output: [labels, labels]
    """
    found = np.zeros((logits.shape[1], logits.shape[1]), np.int64)
    np.add.at(found, (right, logits.argmax(axis=1)), 1)
    return found


ACCURACY = Measure(
    "accuracy", "accuracy", lambda logits, targets: quality_of(confusion(logits, places(targets))).accuracy
)
MACRO_F1 = Measure(
    "macro-F1",
    "macro_f1",
    lambda logits, targets: quality_of(confusion(logits, places(targets))).macro_f1,
    by_label=True,
)


def _cross_entropy(logits: Array, targets: Array) -> Array:
    found: Array = np.logaddexp.reduce(logits, axis=1) - logits[np.arange(len(logits)), places(targets)]
    return found


def _binary_cross_entropy(logits: Array, targets: Array) -> Array:
    found: Array = (np.logaddexp(0.0, logits) - logits * targets).sum(axis=1)
    return found


def _squared_error(logits: Array, targets: Array) -> Array:
    found: Array = np.square(logits[:, 0] - targets[:, 0])
    return found


def _mean_average_precision(logits: Array, targets: Array) -> float:
    right = targets.astype(bool)
    occurs = np.flatnonzero(right.any(axis=0))
    return float(np.mean([average_precision(right[:, place], logits[:, place]) for place in occurs] or [0.0]))


def _calibrate_single_label(logits: Array, targets: Array) -> tuple[dict[str, Any], dict[str, float]]:
    right = places(targets)
    temperature = fit_temperature(logits, right)
    return {"temperature": temperature}, {
        "ece": logits_calibration_error(logits, right, temperature),
        "ece_unscaled": logits_calibration_error(logits, right, 1.0),
    }


def _calibrate_multi_label(logits: Array, targets: Array) -> tuple[dict[str, Any], dict[str, float]]:
    right = targets.astype(bool)
    temperature = fit_binary_temperature(logits, right)
    scores = sigmoid(logits.astype(np.float64) / temperature)
    return {"temperature": temperature, "thresholds": fit_thresholds(scores, right)}, {
        "ece": binary_calibration_error(scores, right)
    }


def _entity_f1(logits: Array, targets: Array) -> float:
    first = targets[:, 1].astype(bool)
    texts = np.cumsum(first)
    right, given = (
        {(texts[begin], *span) for span in spans_of(tags) for begin in span[:1]}
        for tags in (places(targets), decode(logits, first))
    )
    return f1_of(len(right & given), len(right), len(given))


FITTINGS: dict[str, Fitting] = {
    SINGLE_LABEL.name: Fitting(
        encode=lambda target, labels: [float(labels.index(str(target)))],
        losses=_cross_entropy,
        errors=lambda logits, targets: (logits.argmax(axis=1) != places(targets)).astype(np.float64),
        measure=ACCURACY,
        calibrate=_calibrate_single_label,
        stored=("accuracy",),
        head=linear.logistic,
        measure_if_rare=MACRO_F1,
        weighs_classes=True,
    ),
    MULTI_LABEL.name: Fitting(
        encode=lambda target, labels: [float(label in target) for label in labels],
        losses=_binary_cross_entropy,
        errors=_binary_cross_entropy,  # decisions depend on thresholds, which are fitted last
        # It does not need thresholds, which are fitted last.
        measure=Measure("mean average precision", "mean_average_precision", _mean_average_precision),
        calibrate=_calibrate_multi_label,
        stored=("macro_f1", "micro_f1", "mean_average_precision"),
        head=linear.one_against_the_rest,
    ),
    TOKENS.name: Fitting(
        encode=lambda tag, labels: [float(row_of(tag, labels)), float(tag.first)],
        losses=_cross_entropy,
        errors=lambda logits, targets: (logits.argmax(axis=1) != places(targets)).astype(np.float64),
        measure=Measure("entity F1", "entity_f1", _entity_f1),
        calibrate=_calibrate_single_label,
        stored=("entity_f1", "entity_precision", "entity_recall"),
        head=linear.logistic,
    ),
    SPANS.name: Fitting(
        encode=lambda piece, _: pointers.encoded(piece),
        losses=pointers.losses,
        errors=pointers.errors,
        measure=Measure("exact match", "exact_match", pointers.exact_match),
        calibrate=pointers.calibrate,
        stored=("exact_match", "answer_f1"),
        head=pointers.head,
    ),
    SCORE.name: Fitting(
        encode=lambda target, _: [float(np.asarray(target, np.float64))],
        losses=_squared_error,
        errors=_squared_error,
        measure=Measure("Pearson", "pearson", lambda logits, targets: pearson(targets[:, 0], logits[:, 0])),
        calibrate=lambda logits, targets: ({}, {}),
        stored=("pearson", "spearman", "mean_absolute_error"),
        head=linear.ridge,
    ),
}
"""Kind → how it is fitted."""
