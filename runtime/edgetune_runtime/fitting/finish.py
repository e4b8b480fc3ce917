"""The last step of making a task: calibration, and quality on rows that were not trained on."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping

import numpy as np

from edgetune_runtime.arrays import Array
from edgetune_runtime.fitting.by_kind import fitting_of
from edgetune_runtime.fitting.examples import Examples
from edgetune_runtime.kinds import Figures
from edgetune_runtime.task import Task


def finished(
    draft: Task, tensors: Mapping[str, Array], logits: Array, examples: Examples, judged_by: str
) -> tuple[Task, Figures]:
    """A calibrated task with its tensors, and its quality.

    It is calibrated without class weights, so that scores are right for the natural frequencies of the labels.

    Args:
        draft: the task without its trained parts.
        tensors: its trained parts.
        logits: logits of rows that it was not trained on; at least one.
        examples: these rows.
        judged_by: "dev" for development rows, "cv" for rows held out in cross-validation; the prefix of the figures
            that the task stores.

    Shape:
        logits: [rows, labels]
    """
    fitting = fitting_of(draft.kind)
    logits = logits.astype(np.float32)
    fitted, calibration = fitting.calibrate(logits, examples.numbers)
    task = dataclasses.replace(draft, tensors=tensors, **fitted)
    measured = examples.figures(logits, task)
    kept = {name: value for name, value in measured.values.items() if name in fitting.stored} | calibration
    metrics = {f"{judged_by}_{name}": value for name, value in kept.items()} | {
        f"{judged_by}_rows": len(examples.targets)
    }
    return dataclasses.replace(task, metrics=metrics), measured
