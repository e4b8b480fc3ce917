"""Training recipes: pairs of texts with few rows, otherwise epochs. The data decides, or the user."""

from __future__ import annotations

import math
from collections.abc import Sequence

from edgetune.training.options import AUTO, CONTRASTIVE, EPOCHS, TrainingOptions
from edgetune.training.setup import TaskData
from edgetune_runtime.errors import DataError
from edgetune_runtime.fitting.balance import Spread
from edgetune_runtime.fitting.by_kind import fitting_of

FEW_ROWS_PER_LABEL = 64
"""Up to this many rows per label, on average, pairs of texts are better than epochs."""

IF_ONE_IS_RARE = 4
"""Factor on the limit if a label is rare, because pairs are drawn from it as often as from the others."""

LEAST_STEPS = 200
"""With fewer steps, parts do not learn everything from a few hundred rows (benchmarks/results/few-labels.md)."""

MOST_PASSES = 40


def passes_of(options: TrainingOptions, rows: int) -> int:
    """Number of passes: the requested number, otherwise the method's default, or more if there are few rows."""
    enough = math.ceil(LEAST_STEPS / math.ceil(rows / options.batch_size))
    return options.epochs or max(options.passes, min(enough, MOST_PASSES))


def recipe_of(tasks: Sequence[TaskData], options: TrainingOptions) -> str:
    """The recipe, `CONTRASTIVE` or `EPOCHS`.

    Raises:
        DataError: the contrastive recipe was requested, but cannot train this.
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
    """Why pairs of texts cannot train this; `None` if they can."""
    if len(tasks) > 1:
        return f"with {len(tasks)} tasks"
    if not fitting_of(tasks[0].kind).weighs_classes:
        return f"with a task of the kind '{tasks[0].kind.name}'"
    if not options.lengths:
        return "with a prompt of length 0"
    if options.label_words is not None:
        return "with label words"
    return None
