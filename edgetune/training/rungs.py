"""What a training can end with, compared on rows that none of it learned from: a trained prompt, or a head alone."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from edgetune_runtime.arrays import Array
from edgetune_runtime.fitting.by_kind import Fitting
from edgetune_runtime.task import Task

HEAD_ALONE = "head alone"
"""What `edgetune fit` gives: a linear model of the frozen features."""

DOUBT = 2.0
"""What was trained is dropped if it has more errors than the head alone by more than so many standard errors.

On a few dozen rows a smaller difference is chance, and what was trained is better more often than not."""

ROOM = 0.12
"""Share of errors. A head alone that surely has fewer leaves pairs of texts little to teach: they rather undo what the
backbone knows. What was seen is in benchmarks/results/few-labels.md."""

PROOF = 1.0
"""If a head alone leaves no room, what pairs of texts trained is kept only if it has fewer errors by more than so many
standard errors."""


@dataclass(frozen=True)
class Rung:
    """One thing that a training can end with.

    Attributes:
        name: `HEAD_ALONE`, or what people call it.
        draft: the task but for what it learned.
        tensors: what it learned.
        logits: for the rows that it is judged by. Shape: [rows, labels].
    """

    name: str
    draft: Task
    tensors: Mapping[str, Array]
    logits: Array


def choose(
    rungs: Sequence[Rung], fitting: Fitting, targets: Array, weights: Array | None, by_pairs: bool = False
) -> tuple[Rung, dict[str, float]]:
    """What is kept, and the mean error of each.

    Of what was trained it is that with the fewest errors, among equals with the least loss, unless it is dropped for
    the head alone (`DOUBT`, `PROOF`).

    Args:
        rungs: at least one; at most one is `HEAD_ALONE`.
        fitting: how the kind of answer is fitted; it says what an error is.
        targets: of the rows that they are judged by; there may be none.
        weights: how much each row counts; all the same if `None`.
        by_pairs: whether pairs of texts trained it.

    Shape:
        targets: [rows, numbers]
        weights: [rows]
    """
    trained = [one for one in rungs if one.name != HEAD_ALONE]
    if not len(targets):
        return (trained or rungs)[0], {}
    # At the temperature that fits them, as the task will answer: training ends surer than it is right.
    calibrated = {one.name: _calibrated(fitting, one.logits, targets) for one in rungs}
    errors = {name: fitting.errors(logits, targets) for name, logits in calibrated.items()}
    means = {name: float(np.average(own, weights=weights)) for name, own in errors.items()}

    def badness(one: Rung) -> tuple[float, float]:
        losses = fitting.losses(calibrated[one.name], targets)
        return round(means[one.name], 9), float(np.average(losses, weights=weights))

    best = min(trained or rungs, key=badness)
    lone = next((one for one in rungs if one.name == HEAD_ALONE), best)
    worse, mean = errors[best.name] - errors[lone.name], means[best.name] - means[lone.name]
    error = float(np.sqrt(np.average((worse - mean) ** 2, weights=weights) / max(1, len(worse) - 1)))
    if by_pairs and not _leaves_room(means[lone.name], len(worse)):
        is_kept = mean < -PROOF * error
    else:
        is_kept = mean <= DOUBT * error
    return (best if is_kept else lone), means


def _leaves_room(errors: float, rows: int) -> bool:
    """Whether a head may have more errors than `ROOM`, given its share of errors on some rows."""
    share = (errors * rows + 1) / (rows + 2)  # Laplace's estimate, which is never 0
    return bool(share + DOUBT * np.sqrt(share * (1 - share) / rows) >= ROOM)


def _calibrated(fitting: Fitting, logits: Array, targets: Array) -> Array:
    """Logits at the temperature that fits the rows. Shape: [rows, labels], both ways."""
    fitted, _ = fitting.calibrate(logits, targets)
    found: Array = logits / fitted.get("temperature", 1.0)
    return found
