"""How the best epoch is chosen: by a measure of development data, and among equals by the loss there."""

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
"""The metric by which `Trainer` keeps a checkpoint: the step of the best epoch so far. It rises with a better one."""

_DIGITS = 9  # Means of the same shares differ in their last digits by the order of the tasks.


@dataclass(frozen=True)
class Epoch:
    """What development data says of an epoch; of tasks that were trained together, the means.

    Attributes:
        number: 1 for the first.
        step: of the training, at its end.
        score: of the measure by which the epoch is chosen.
        usual: of the measure that is usual for the kind of answer, such as the accuracy.
        loss: without class weights, averaged as the measure is: over rows, or over labels.
    """

    number: int
    step: int
    score: float
    usual: float
    loss: float


class Judge:
    """Computes `Trainer`'s metrics of an epoch.

    Args:
        measures: one per task.
        drafts: the tasks, of which kind and labels are read.
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
            rows = draft.head_rows  # what is behind fills rows up to the widest task
            given = texts_of(logits[own][:, :rows], targets[own][:, :rows], text[own], draft.kind.reading is not None)
            usual = fitting_of(draft.kind).measure
            found.append((measure.of(*given), usual.of(*given), loss_of(draft.kind, *given, measure)))
        score, usual_score, mean_loss = np.mean(found, axis=0)
        return {"score": float(score), "usual": float(usual_score), "unweighted_loss": float(mean_loss)}


def epochs(history: Sequence[Mapping[str, Any]]) -> list[Epoch]:
    """The epochs in `Trainer`'s history, which a checkpoint keeps."""
    judgements = [entry for entry in history if "eval_score" in entry]
    return [
        Epoch(number, entry["step"], entry["eval_score"], entry["eval_usual"], entry["eval_unweighted_loss"])
        for number, entry in enumerate(judgements, 1)
    ]


def best(judged_epochs: Sequence[Epoch]) -> Epoch:
    """The epoch with the best score; among equals that with the least loss; among these the first."""
    return max(
        judged_epochs,
        key=lambda one: (round(one.score, _DIGITS), -one.loss if math.isfinite(one.loss) else -math.inf),
    )


class Patience(TrainerCallback):  # type: ignore[misc]
    """Ends a training that gets no better.

    Args:
        epochs: how many without a better one it waits for.
    """

    def __init__(self, epochs: int) -> None:
        self._epochs = epochs

    def on_evaluate(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any) -> None:
        """Look at the history alone, as `KeepBest` does."""
        judged = epochs(state.log_history)
        if len(judged) - best(judged).number >= self._epochs:
            control.should_training_stop = True


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
        """Add the step of the best epoch so far to the metrics."""
        metrics[f"eval_{BEST_STEP}"] = best(epochs(state.log_history)).step
