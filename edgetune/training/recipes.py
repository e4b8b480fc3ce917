"""How a training learns: by pairs of texts if rows are few, else in epochs. Data decides, or the user."""

from __future__ import annotations

import math
from collections.abc import Sequence

from edgetune.training.options import AUTO, CONTRASTIVE, EPOCHS, TrainingOptions
from edgetune.training.setup import TaskData
from edgetune_runtime.errors import DataError
from edgetune_runtime.fitting.balance import Spread
from edgetune_runtime.fitting.by_kind import fitting_of

FEW_ROWS_PER_LABEL = 64
"""Up to so many rows per label, on average, pairs of texts teach more than epochs."""

IF_ONE_IS_RARE = 4
"""So many times as many rows are few if a label is rare: pairs are drawn as often of it as of the others."""

LEAST_STEPS = 200
"""In fewer steps parts do not learn what a few hundred rows teach (benchmarks/results/few-labels.md)."""

MOST_PASSES = 40


def passes_of(options: TrainingOptions, rows: int) -> int:
    """Passes over so many training rows: those asked for; else the method's own, or more of them if rows are few."""
    enough = math.ceil(LEAST_STEPS / math.ceil(rows / options.batch_size))
    return options.epochs or max(options.passes, min(enough, MOST_PASSES))


def recipe_of(tasks: Sequence[TaskData], options: TrainingOptions) -> str:
    """The recipe, `CONTRASTIVE` or `EPOCHS`.

    Raises:
        DataError: the contrastive recipe was asked for, and cannot train this.
    """
    obstacle = _obstacle(tasks, options)
    if options.recipe == CONTRASTIVE and obstacle is not None:
        raise DataError(
            f"the recipe '{CONTRASTIVE}' came {obstacle}: expected one task with one label per text, a prompt, and a "
            f"head to train; use the recipe '{EPOCHS}'"
        )
    if options.recipe != AUTO:
        return options.recipe
    if obstacle is not None:
        return EPOCHS
    (one,) = tasks
    targets = [row.target for row in one.train]
    labels = one.kind.labels_of(targets)
    most = FEW_ROWS_PER_LABEL * len(labels)
    if Spread(labels, targets, [], one.kind).rare:
        most *= IF_ONE_IS_RARE
    return CONTRASTIVE if len(targets) <= most else EPOCHS


def _obstacle(tasks: Sequence[TaskData], options: TrainingOptions) -> str | None:
    """Why pairs of texts cannot train this, if so."""
    if len(tasks) > 1:
        return f"with {len(tasks)} tasks"
    if not fitting_of(tasks[0].kind).weighs_classes:
        return f"with a task of the kind '{tasks[0].kind.name}'"
    if not options.lengths:
        return "with a prompt of length 0"
    if options.label_words is not None:
        return "with label words"
    return None
