"""Trainings that differ in their seed alone: how far apart they end, and which one is kept."""

from __future__ import annotations

import math
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from edgetune.figures import figure_name

_DIGITS = 9  # Means of the same shares differ in their last digits by the order of the tasks.


@dataclass(frozen=True)
class Trial:
    """What the training with one seed ended with, on the rows that were held out.

    Attributes:
        seed: the seed.
        figures: for each task the figure that it is chosen by; more is better. `None` if no row could be held out.
        losses: for each task the loss at its temperature, averaged as the figure is.
    """

    seed: int
    figures: tuple[float | None, ...]
    losses: tuple[float, ...]


@dataclass(frozen=True)
class SeedSpread:
    """How far apart the trainings of one task ended.

    Attributes:
        figure: name of the figure in JSON, such as "accuracy".
        judged_by: which rows it is of: "dev" for development rows, "cv" for training rows held out in turn.
        by_seed: seed → the figure of the task that its training ended with.
        kept: the seed whose task was kept.
    """

    figure: str
    judged_by: str
    by_seed: Mapping[int, float]
    kept: int

    @property
    def mean(self) -> float:
        """What to expect of a training. That of the kept task is higher by chance: it was chosen by it."""
        return statistics.fmean(self.by_seed.values())

    @property
    def deviation(self) -> float:
        """The standard deviation, as it is estimated from a sample (divided by one less than the number of seeds)."""
        return statistics.stdev(self.by_seed.values())

    @property
    def metrics(self) -> dict[str, float]:
        """What the task file keeps."""
        name = f"{self.judged_by}_{self.figure}"
        return {f"{name}_mean": self.mean, f"{name}_deviation": self.deviation, "seeds": len(self.by_seed)}

    def record(self) -> dict[str, Any]:
        """What `--json` shows."""
        return {
            "figure": f"{self.judged_by}_{self.figure}",
            "mean": self.mean,
            "deviation": self.deviation,
            "by_seed": {str(seed): figure for seed, figure in self.by_seed.items()},
            "kept": self.kept,
        }

    def __str__(self) -> str:
        rows = "development rows" if self.judged_by == "dev" else "rows held out in turn"
        each = ", ".join(f"seed {seed} {figure:.3f}" for seed, figure in self.by_seed.items())
        return (
            f"{figure_name(self.figure)} on {rows} {self.mean:.3f} ± {self.deviation:.3f} with {len(self.by_seed)} "
            f"seeds ({each}); kept seed {self.kept}, the best on these rows, so expect the mean"
        )


def best_trial(trials: Sequence[Trial]) -> Trial:
    """The trial with the best figure, of several tasks their mean; among equals the least loss; among these the first.

    All trials are judged by the same rows. If no row could be held out it is the first.
    """
    return max(trials, key=_goodness)


def seed_spread(trials: Sequence[Trial], place: int, figure: str, judged_by: str) -> SeedSpread | None:
    """How far apart the trainings of the task at that place ended; `None` with one seed, or if no row was held out."""
    by_seed = {trial.seed: own for trial in trials if (own := trial.figures[place]) is not None}
    return SeedSpread(figure, judged_by, by_seed, best_trial(trials).seed) if len(by_seed) > 1 else None


def _goodness(trial: Trial) -> tuple[float, float]:
    figures = [figure for figure in trial.figures if figure is not None]
    figure, loss = (statistics.fmean(own) if own else 0.0 for own in (figures, trial.losses))
    return (
        round(figure, _DIGITS) if math.isfinite(figure) else -math.inf,
        -loss if math.isfinite(loss) else -math.inf,
    )
