"""How the best epoch is chosen: by a measure of development data, and among equals by the loss there."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from transformers import EvalPrediction, TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from edgetune_runtime.arrays import Array
from edgetune_runtime.metrics import Quality, quality_of

BEST_STEP = "best_step"
"""The metric by which `Trainer` keeps a checkpoint: the step of the best epoch so far. It rises with a better one."""

_DIGITS = 9  # Means of the same shares differ in their last digits by the order of the tasks.


@dataclass(frozen=True)
class Measure:
    """By what an epoch is chosen.

    Attributes:
        name: what people call it.
        of: its value, 0 to 1, more is better.
        by_label: whether each label counts the same, in the loss too; else each row does.
    """

    name: str
    of: Callable[[Quality], float]
    by_label: bool


ACCURACY = Measure("accuracy", lambda quality: quality.accuracy, by_label=False)
MACRO_F1 = Measure("macro-F1", lambda quality: quality.macro_f1, by_label=True)


@dataclass(frozen=True)
class Epoch:
    """What development data says of an epoch; of tasks that were trained together, the means.

    Attributes:
        number: 1 for the first.
        step: of the training, at its end.
        score: of the measure by which the epoch is chosen.
        accuracy: share of right answers.
        loss: cross entropy without class weights, averaged as the measure is: over rows, or over labels.
    """

    number: int
    step: int
    score: float
    accuracy: float
    loss: float


class Judge:
    """Computes `Trainer`'s metrics of an epoch.

    Args:
        measures: one a task.
        labels: how many each task has.
    """

    def __init__(self, measures: Sequence[Measure], labels: Sequence[int]) -> None:
        self._tasks = list(zip(measures, labels, strict=True))

    def __call__(self, prediction: EvalPrediction) -> dict[str, float]:
        logits = np.asarray(prediction.predictions)
        index, right = (np.asarray(ids) for ids in prediction.label_ids)
        found = []
        for place, (measure, labels) in enumerate(self._tasks):
            own = index == place
            quality = judged(logits[own, :labels], right[own])
            found.append((measure.of(quality), quality.accuracy, loss(logits[own, :labels], right[own], measure)))
        score, accuracy, mean_loss = np.mean(found, axis=0)
        return {"score": float(score), "accuracy": float(accuracy), "cross_entropy": float(mean_loss)}


def judged(logits: Array, right: Array) -> Quality:
    """How good the answers are that logits give.

    Shape:
        logits: [rows, labels]
        right: [rows]
    """
    confusion = np.zeros((logits.shape[1], logits.shape[1]), np.int64)
    np.add.at(confusion, (right, logits.argmax(axis=1)), 1)
    return quality_of(confusion)


def loss(logits: Array, right: Array, measure: Measure) -> float:
    """Cross entropy without class weights: the mean over rows or, by a measure that counts so, over labels.

    Shape:
        logits: [rows, labels]
        right: [rows]
    """
    rows = torch.nn.functional.cross_entropy(
        torch.from_numpy(logits).double(), torch.from_numpy(right).long(), reduction="none"
    ).numpy()
    if not measure.by_label:
        return float(rows.mean())
    return float(np.mean([rows[right == place].mean() for place in np.unique(right)]))


def epochs(history: Sequence[Mapping[str, Any]]) -> list[Epoch]:
    """The epochs in `Trainer`'s history, which a checkpoint keeps."""
    judgements = [entry for entry in history if "eval_score" in entry]
    return [
        Epoch(number, entry["step"], entry["eval_score"], entry["eval_accuracy"], entry["eval_cross_entropy"])
        for number, entry in enumerate(judgements, 1)
    ]


def best(judged_epochs: Sequence[Epoch]) -> Epoch:
    """The epoch with the best score; among equals that with the least loss; among these the first."""
    return max(
        judged_epochs,
        key=lambda one: (round(one.score, _DIGITS), -one.loss if math.isfinite(one.loss) else -math.inf),
    )


class KeepBest(TrainerCallback):  # type: ignore[misc]
    """Tells `Trainer`, which compares one number, which checkpoint to keep.

    It looks at the history alone, so a training that goes on from a checkpoint chooses as one that was not broken off.
    """

    def on_evaluate(
        self,
        args: TrainingArguments,
        state: TrainerState,
        control: TrainerControl,
        metrics: dict[str, float],
        **_: Any,
    ) -> None:
        metrics[f"eval_{BEST_STEP}"] = best(epochs(state.log_history)).step
