"""The last step of making a task: calibration, and what rows that were not learned from say of it."""

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
    """A task with its tensors, calibrated, and how good it is.

    It is calibrated without class weights: scores are to be right for rows as they come.

    Args:
        draft: the task but for what it learned.
        tensors: what it learned.
        logits: for rows that it did not learn from; at least one.
        examples: these rows.
        judged_by: what these rows are: "dev" for development rows, "cv" for rows held out in turn. The figures that
            the task keeps begin with it.

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
