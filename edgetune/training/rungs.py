"""Compare the candidates of training, a trained prompt or only a head, on rows that were not trained on."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from edgetune_runtime.arrays import Array
from edgetune_runtime.fitting.by_kind import Fitting
from edgetune_runtime.task import Task

HEAD_ALONE = "head alone"
"""The result of `edgetune fit`: a linear model on the frozen features."""

DOUBT = 2.0
"""A trained candidate is dropped if it has more errors than only a head, by more than this many standard errors.

On a few dozen rows a smaller difference is chance, and the trained candidate is usually better."""

ROOM = 0.12
"""Share of errors. If only a head clearly has fewer errors, pairs of texts have little to improve, and tend to damage
the backbone's features. See benchmarks/results/few-labels.md."""

PROOF = 1.0
"""In that case, a candidate that was trained with pairs of texts is kept only if it has fewer errors, by more than this
many standard errors."""


@dataclass(frozen=True)
class Rung:
    """A candidate of training.

    Attributes:
        name: `HEAD_ALONE`, or its name for people.
        draft: the task without its trained parts.
        tensors: its trained parts.
        logits: logits for the rows that judge it. Shape: [rows, labels].
    """

    name: str
    draft: Task
    tensors: Mapping[str, Array]
    logits: Array


def choose(
    rungs: Sequence[Rung], fitting: Fitting, targets: Array, weights: Array | None, by_pairs: bool = False
) -> tuple[Rung, dict[str, float]]:
    """Choose the candidate to keep. Returns it with the mean error of each.

    It is the trained candidate with the fewest errors, and on a tie the lowest loss, unless it is dropped for only a
    head (`DOUBT`, `PROOF`).

    Args:
        rungs: at least one candidate; at most one is `HEAD_ALONE`.
        fitting: how the kind of answer is fitted; it defines errors.
        targets: targets of the rows that judge them; may be empty.
        weights: weight of each row; `None` if all count the same.
        by_pairs: whether training used pairs of texts.

    Shape:
        targets: [rows, numbers]
        weights: [rows]
    """
    trained = [one for one in rungs if one.name != HEAD_ALONE]
    if not len(targets):
        return (trained or rungs)[0], {}
    # At the fitted temperature, as in the finished task, because logits are overconfident after training.
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
