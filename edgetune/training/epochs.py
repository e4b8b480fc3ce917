"""Choose the best epoch: by a measure on development data, and on a tie by the loss."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from transformers import EvalPrediction, TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from edgetune.training.batches import texts_of
from edgetune_runtime.fitting.by_kind import Measure, fitting_of, loss_of
from edgetune_runtime.task import Task

BEST_STEP = "best_step"
"""The metric by which `Trainer` keeps a checkpoint: the step of the best epoch so far. It increases with each better
epoch."""

_DIGITS = 9  # The order of the tasks changes the last digits of a mean.


@dataclass(frozen=True)
class Epoch:
    """The results of an epoch on development data; for tasks that are trained together, the means.

    Attributes:
        number: number of the epoch, from 1.
        step: training step at the end of the epoch.
        score: value of the measure that chooses the epoch.
        usual: value of the usual measure of the kind of answer, such as the accuracy.
        loss: the loss without class weights, averaged like the measure: over rows, or over labels.
    """

    number: int
    step: int
    score: float
    usual: float
    loss: float


class Judge:
    """Computes `Trainer`'s metrics for an epoch.

    Args:
        measures: one per task.
        drafts: the tasks; only their kinds and labels are used.
    """

    def __init__(self, measures: Sequence[Measure], drafts: Sequence[Task]) -> None:
        self._tasks = list(zip(measures, drafts, strict=True))

    def __call__(self, prediction: EvalPrediction) -> dict[str, float]:
        """The metrics: "score", "usual" and "unweighted_loss"."""
        logits = np.asarray(prediction.predictions)
        index, targets, text = (np.asarray(ids) for ids in prediction.label_ids)
        found = []
        for place, (measure, draft) in enumerate(self._tasks):
            own = (index == place)[:, None] & (text >= 0)
            rows = draft.head_rows  # the rest is padding to the widest task
            given = texts_of(logits[own][:, :rows], targets[own][:, :rows], text[own], draft.kind.reading is not None)
            usual = fitting_of(draft.kind).measure
            found.append((measure.of(*given), usual.of(*given), loss_of(draft.kind, *given, measure)))
        score, usual_score, mean_loss = np.mean(found, axis=0)
        return {"score": float(score), "usual": float(usual_score), "unweighted_loss": float(mean_loss)}


def epochs(history: Sequence[Mapping[str, Any]]) -> list[Epoch]:
    """The epochs in `Trainer`'s history, which checkpoints contain."""
    judgements = [entry for entry in history if "eval_score" in entry]
    return [
        Epoch(number, entry["step"], entry["eval_score"], entry["eval_usual"], entry["eval_unweighted_loss"])
        for number, entry in enumerate(judgements, 1)
    ]


def best(judged_epochs: Sequence[Epoch]) -> Epoch:
    """The epoch with the best score; on a tie the one with the lowest loss, and then the first."""
    return max(
        judged_epochs,
        key=lambda one: (round(one.score, _DIGITS), -one.loss if math.isfinite(one.loss) else -math.inf),
    )


class Patience(TrainerCallback):  # type: ignore[misc]
    """Stops training that no longer improves.

    Args:
        epochs: number of epochs without improvement after which training stops.
    """

    def __init__(self, epochs: int) -> None:
        self._epochs = epochs

    def on_evaluate(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any) -> None:
        """Use only the history, like `KeepBest`."""
        judged = epochs(state.log_history)
        if len(judged) - best(judged).number >= self._epochs:
            control.should_training_stop = True


class KeepBest(TrainerCallback):  # type: ignore[misc]
    """Tells `Trainer`, which compares a single number, which checkpoint to keep.

    It uses only the history, so a resumed training run makes the same choice as an uninterrupted one.
    """

    def on_evaluate(
        self,
        args: TrainingArguments,
        state: TrainerState,
        control: TrainerControl,
        metrics: dict[str, float],
        **_: Any,
    ) -> None:
        """Add the step of the best epoch so far to the metrics."""
        metrics[f"eval_{BEST_STEP}"] = best(epochs(state.log_history)).step
