"""How each kind of answer is trained: its targets as numbers, its loss, how an epoch is judged, what is fitted last.

A new kind is a row in `OBJECTIVES`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from edgetune.training.calibration import (
    binary_calibration_error,
    fit_binary_temperature,
    fit_temperature,
    fit_thresholds,
    logits_calibration_error,
)
from edgetune_runtime.arrays import Array
from edgetune_runtime.errors import DataError
from edgetune_runtime.kinds import Figures, Kind, Target
from edgetune_runtime.kinds.kind import sigmoid
from edgetune_runtime.kinds.multi_label import MULTI_LABEL
from edgetune_runtime.kinds.score import SCORE
from edgetune_runtime.kinds.single_label import SINGLE_LABEL
from edgetune_runtime.metrics import average_precision, pearson, quality_of
from edgetune_runtime.task import Task

_LARGEST_SCORE = 1e6  # a task file holds no larger numbers, and the head's bias begins as the mean of the scores


@dataclass(frozen=True)
class Measure:
    """By what an epoch is chosen.

    Attributes:
        name: what people call it.
        figure: what it is called in JSON.
        of: its value for logits and targets, at most 1, more is better.
        by_label: whether each label counts the same, in the loss too; else each row does.
    """

    name: str
    figure: str
    of: Callable[[Array, Array], float]
    by_label: bool = False


@dataclass(frozen=True)
class Scale:
    """What a head's outputs are multiplied by, and what is then added: the spread and the mean of the targets."""

    factor: float = 1.0
    shift: float = 0.0


@dataclass(frozen=True)
class Objective:
    """How tasks of one kind are trained.

    Attributes:
        encode: a target as numbers, given the task's labels.
        decode: the target that numbers stand for.
        loss: the loss of each row. Shape: logits [rows, labels], targets [rows, numbers] → [rows].
        measure: by what an epoch is chosen, unless a label is rare.
        measure_if_rare: by what it is chosen if one is; `None` if rare labels change nothing. The kind's figures have
            it too.
        fit: what development logits and targets say of a finished task: fields of `Task`, and figures.
        stored: figures of the kind that a task file keeps, as "dev_" and their name.
        scale: the scale of the head's outputs, given the training targets.
        bias: what the head's bias begins as, given the training targets as numbers; `None` is zero.
        weighs_classes: whether class weights mean something; then the target's first number is a label's place.
    """

    encode: Callable[[Target, Sequence[str]], list[float]]
    decode: Callable[[Array, Sequence[str]], Target]
    loss: Callable[[Tensor, Tensor], Tensor]
    measure: Measure
    fit: Callable[[Array, Array], tuple[dict[str, Any], dict[str, float]]]
    stored: tuple[str, ...]
    scale: Callable[[Sequence[Target]], Scale] = lambda _: Scale()
    bias: Callable[[Array], Array] | None = None
    measure_if_rare: Measure | None = None
    weighs_classes: bool = False


def objective_of(kind: Kind) -> Objective:
    """How tasks of that kind are trained."""
    return OBJECTIVES[kind.name]


def figures(kind: Kind, logits: Array, targets: Sequence[Target], task: Task) -> Figures:
    """How good the answers are that logits give.

    Shape:
        logits: [rows, labels]
    """
    return kind.figures(targets, [kind.answer(row[np.newaxis], task) for row in logits], task)


def _right(targets: Array) -> Array:
    """The place of each row's label. Shape: [rows, 1] → [rows]."""
    return targets[:, 0].astype(np.int64)


def confusion(logits: Array, right: Array) -> Array:
    """How often each label (row) was answered as each (column).

    Shape:
        logits: [rows, labels]
        right: [rows]
        output: [labels, labels]
    """
    found = np.zeros((logits.shape[1], logits.shape[1]), np.int64)
    np.add.at(found, (right, logits.argmax(axis=1)), 1)
    return found


ACCURACY = Measure(
    "accuracy", "accuracy", lambda logits, targets: quality_of(confusion(logits, _right(targets))).accuracy
)
MACRO_F1 = Measure(
    "macro-F1",
    "macro_f1",
    lambda logits, targets: quality_of(confusion(logits, _right(targets))).macro_f1,
    by_label=True,
)


def _mean_average_precision(logits: Array, targets: Array) -> float:
    right = targets.astype(bool)
    occurs = np.flatnonzero(right.any(axis=0))
    return float(np.mean([average_precision(right[:, place], logits[:, place]) for place in occurs] or [0.0]))


def _fit_single_label(logits: Array, targets: Array) -> tuple[dict[str, Any], dict[str, float]]:
    right = _right(targets)
    temperature = fit_temperature(logits, right)
    return {"temperature": temperature}, {
        "dev_ece": logits_calibration_error(logits, right, temperature),
        "dev_ece_unscaled": logits_calibration_error(logits, right, 1.0),
    }


def _fit_multi_label(logits: Array, targets: Array) -> tuple[dict[str, Any], dict[str, float]]:
    right = targets.astype(bool)
    temperature = fit_binary_temperature(logits, right)
    scores = sigmoid(logits.astype(np.float64) / temperature)
    return {"temperature": temperature, "thresholds": fit_thresholds(scores, right)}, {
        "dev_ece": binary_calibration_error(scores, right)
    }


def _log_odds(targets: Array) -> Array:
    """What each label's logit is if nothing is known of a text. Else the first epochs would learn how rare labels are.

    Shape:
        targets: [rows, labels]
        output: [labels]
    """
    share = (targets.sum(axis=0) + 1) / (len(targets) + 2)
    found: Array = np.log(share / (1 - share))
    return found


def _indicators(target: Target, labels: Sequence[str]) -> list[float]:
    named = target if isinstance(target, tuple) else ()
    return [float(label in named) for label in labels]


def _mean_and_spread(targets: Sequence[Target]) -> Scale:
    """What brings a head's outputs, which are about 1, to the scale of the targets.

    Raises:
        DataError: they are so large that no task file could hold the head.
    """
    values = np.array(targets, np.float64)
    largest = float(values[np.abs(values).argmax()])
    if abs(largest) > _LARGEST_SCORE:
        raise DataError(
            f"the training data has the score {largest:g}: expected scores from {-_LARGEST_SCORE:,.0f} to "
            f"{_LARGEST_SCORE:,.0f}; divide them all by the same number"
        )
    return Scale(float(values.std()) or 1.0, float(values.mean()))


OBJECTIVES: dict[str, Objective] = {
    SINGLE_LABEL.name: Objective(
        encode=lambda target, labels: [float(labels.index(str(target)))],
        loss=lambda logits, targets: nn.functional.cross_entropy(logits, targets[:, 0].long(), reduction="none"),
        decode=lambda numbers, labels: labels[int(numbers[0])],
        measure=ACCURACY,
        fit=_fit_single_label,
        stored=("accuracy",),
        measure_if_rare=MACRO_F1,
        weighs_classes=True,
    ),
    MULTI_LABEL.name: Objective(
        encode=_indicators,
        # Summed over labels: a mean would shrink with their number, and with it what a step learns.
        loss=lambda logits, targets: nn.functional.binary_cross_entropy_with_logits(
            logits, targets, reduction="none"
        ).sum(dim=1),
        # It needs no thresholds, which are fitted when the epoch is chosen.
        measure=Measure("mean average precision", "mean_average_precision", _mean_average_precision),
        decode=lambda numbers, labels: tuple(label for label, own in zip(labels, numbers, strict=False) if own),
        fit=_fit_multi_label,
        stored=("macro_f1", "micro_f1", "mean_average_precision"),
        bias=_log_odds,
    ),
    SCORE.name: Objective(
        encode=lambda target, _: [float(np.asarray(target, np.float64))],
        loss=lambda logits, targets: (logits[:, 0] - targets[:, 0]).square(),
        measure=Measure("Pearson", "pearson", lambda logits, targets: pearson(targets[:, 0], logits[:, 0])),
        decode=lambda numbers, _: float(numbers[0]),
        fit=lambda logits, targets: ({}, {}),
        stored=("pearson", "spearman", "mean_absolute_error"),
        scale=_mean_and_spread,
    ),
}
"""Kind → how it is trained."""


def loss_of(kind: Kind, logits: Array, targets: Array, measure: Measure) -> float:
    """The loss without class weights: the mean over rows or, by a measure that counts so, over labels.

    Shape:
        logits: [rows, labels]
        targets: [rows, numbers]
    """
    rows = objective_of(kind).loss(torch.from_numpy(logits).double(), torch.from_numpy(targets).double()).numpy()
    if not measure.by_label:
        return float(rows.mean())
    right = _right(targets)
    return float(np.mean([rows[right == place].mean() for place in np.unique(right)]))
