"""Times of several sides that take turns, on whatever load the machine has."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

_LEAST_ROUNDS, _MOST_ROUNDS = 9, 200
_RUNS = 3  # of a side in a round, after one that is not counted
_LONG_MS = 100  # a run that takes so long is a round by itself
_LEAST_GAIN = 0.02
_BUSY, _QUIET = 0.15, 0.05

AGAIN = "again"
"""The side that is the present setup once more: what it differs by is noise."""


@dataclass(frozen=True)
class Comparison:
    """How fast a side is, compared with the present setup in the same rounds.

    Attributes:
        ms: its median.
        ratio: the present setup's time over its own, median of the rounds.
        noise: the standard error of that ratio.
        spread: how far the middle half of the rounds' ratios lies apart.
    """

    ms: float
    ratio: float
    noise: float
    spread: float

    def margin(self, again: Comparison) -> float:
        """The smallest gain that counts: 2%, or more if the machine is noisy.

        Args:
            again: the present setup compared with itself, whose gain is noise.
        """
        return max(_LEAST_GAIN, abs(again.ratio - 1) + 2 * self.noise)

    @property
    def busy(self) -> bool:
        """Whether equal rounds took times so different that something else is running."""
        return self.spread > _BUSY

    @property
    def quiet(self) -> bool:
        """Whether they took so nearly the same time that nothing else can be running."""
        return self.spread <= _QUIET


def rounds(sides: Mapping[str, Callable[[], object]], seconds: float) -> dict[str, list[float]]:
    """Milliseconds of each side, one figure a round: the median of a few runs one after the other.

    Args:
        sides: what is run, by name.
        seconds: about how long, if a few rounds do not take longer.
    """
    times: dict[str, list[float]] = {name: [] for name in sides}
    end = time.perf_counter() + seconds
    names = list(sides)
    for number in range(_MOST_ROUNDS):
        if number >= _LEAST_ROUNDS and time.perf_counter() > end:
            break
        for name in names if number % 2 else reversed(names):
            times[name].append(_median_ms(sides[name]))
    return times


def compare(times: Sequence[Mapping[str, Sequence[float]]], present: str) -> dict[str, Comparison]:
    """Each side compared with the present one.

    Args:
        times: milliseconds of each side, round by round, as `rounds` gives them, one mapping for each thing that was
            timed, such as texts of different lengths; all count the same.
        present: the side that the others are compared with.
    """
    found = {}
    for name in times[0]:
        ratios = [np.array(one[present]) / np.array(one[name]) for one in times]
        middle = [float(np.median(own)) for own in ratios]
        errors = [1.2533 * 1.4826 * _deviation(own) / len(own) ** 0.5 for own in ratios]
        found[name] = Comparison(
            ms=float(sum(np.median(one[name]) for one in times)),
            ratio=float(np.exp(np.mean(np.log(middle)))),
            noise=float(np.sqrt(sum(error**2 for error in errors)) / len(errors)),
            spread=float(max(np.subtract(*np.percentile(own, [75, 25])) for own in ratios)),
        )
    return found


def _deviation(values: np.ndarray) -> float:
    return float(np.median(np.abs(values - np.median(values))))


def _median_ms(run: Callable[[], object]) -> float:
    first = _ms(run)
    return first if first > _LONG_MS else sorted(_ms(run) for _ in range(_RUNS))[_RUNS // 2]


def _ms(run: Callable[[], object]) -> float:
    began = time.perf_counter()
    run()
    return 1000 * (time.perf_counter() - began)
