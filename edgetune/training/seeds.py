"""Training runs that differ only in their seed: their spread, and the one to keep."""

from __future__ import annotations

import math
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from edgetune.figures import figure_name

_DIGITS = 9  # The order of the tasks changes the last digits of a mean.


@dataclass(frozen=True)
class Trial:
    """The result of training with one seed, on the held-out rows.

    Attributes:
        seed: the seed.
        figures: for each task the figure that chooses it; higher is better. `None` if no row could be held out.
        losses: for each task the loss at its temperature, averaged like the figure.
    """

    seed: int
    figures: tuple[float | None, ...]
    losses: tuple[float, ...]


@dataclass(frozen=True)
class SeedSpread:
    """The spread of one task's training runs over seeds.

    Attributes:
        figure: name of the figure in JSON, such as "accuracy".
        judged_by: the rows of the figure: "dev" for development rows, "cv" for cross-validation on training rows.
        by_seed: seed → the figure of its task.
        kept: the seed whose task was kept.
    """

    figure: str
    judged_by: str
    by_seed: Mapping[int, float]
    kept: int

    @property
    def mean(self) -> float:
        """The expected figure. The figure of the kept task is higher by chance, because it was chosen by it."""
        return statistics.fmean(self.by_seed.values())

    @property
    def deviation(self) -> float:
        """The sample standard deviation (with one less than the number of seeds as the divisor)."""
        return statistics.stdev(self.by_seed.values())

    @property
    def metrics(self) -> dict[str, float]:
        """The metrics for the task file."""
        name = f"{self.judged_by}_{self.figure}"
        return {f"{name}_mean": self.mean, f"{name}_deviation": self.deviation, "seeds": len(self.by_seed)}

    def record(self) -> dict[str, Any]:
        """The record for `--json`."""
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
    """The trial with the best mean figure over its tasks; on a tie the one with the lowest loss, and then the first.

    All trials are judged by the same rows. If no row could be held out, the first trial is best.
    """
    return max(trials, key=_goodness)


def seed_spread(trials: Sequence[Trial], place: int, figure: str, judged_by: str) -> SeedSpread | None:
    """The spread over seeds of the task at index `place`; `None` with one seed, or if no row was held out."""
    by_seed = {trial.seed: own for trial in trials if (own := trial.figures[place]) is not None}
    return SeedSpread(figure, judged_by, by_seed, best_trial(trials).seed) if len(by_seed) > 1 else None


def _goodness(trial: Trial) -> tuple[float, float]:
    figures = [figure for figure in trial.figures if figure is not None]
    figure, loss = (statistics.fmean(own) if own else 0.0 for own in (figures, trial.losses))
    return (
        round(figure, _DIGITS) if math.isfinite(figure) else -math.inf,
        -loss if math.isfinite(loss) else -math.inf,
    )
