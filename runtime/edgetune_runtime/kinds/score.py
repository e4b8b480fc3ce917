"""A number, such as the similarity of two sentences."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from edgetune_runtime.arrays import Array
from edgetune_runtime.kinds.kind import WHOLE, Figures, Kind, Output, Ranking, Read, Result, Target, mean_over_spans
from edgetune_runtime.metrics import pearson, spearman

if TYPE_CHECKING:
    from edgetune_runtime.task import Task

LABEL = "score"
"""Name of the head's only row."""


@dataclass(frozen=True, kw_only=True)
class ScoreResult(Result):
    """A number.

    Attributes:
        score: the number, on the scale of the training data.
    """

    score: float

    def fields(self) -> dict[str, Any]:
        return {"score": self.score}


def _no_label(task: Task, label: str | None) -> None:
    if label is not None:
        raise ValueError(f"gives a number and has no labels, but the label {label!r:.60} came: leave `label` out")


def _number_of(result: ScoreResult, label: str | None) -> float:
    return result.score


class Score(Kind):
    """Each text has a number, which is the logit."""

    name = "score"
    title = "a number"
    requires = ("kind:score",)
    labels = (1, 1)
    min_score = False
    columns = {"score": "number"}  # noqa: RUF012 - it is never changed
    outputs = (Output("score", "FP32", False, lambda result: [result.score]),)
    ranking = Ranking(_no_label, _number_of, _number_of)
    headline = "pearson"

    def sees(self, values: Sequence[object]) -> bool:
        """Numbers, some of which are not whole.

        A number that is not finite is rejected later; it does not turn the column into labels.
        """
        numbers = [number for number in map(_number, values) if number is not None]
        return len(numbers) == len(values) and any(
            math.isfinite(number) and not number.is_integer() for number in numbers
        )

    def target(self, value: object) -> float:
        found = _number(value)
        if found is None or not math.isfinite(found):
            raise ValueError("expected a finite number")
        return found

    def named(self, target: Target) -> tuple[str, ...]:
        return ()

    def labels_of(self, targets: Sequence[Target]) -> list[str]:
        return [LABEL]

    def answer(self, logits: Array, task: Task, read: Read = WHOLE, precision: str = "fp32") -> ScoreResult:
        score = float(mean_over_spans(logits)[0])
        return ScoreResult(task=task.name, score=score, truncated=read.truncated, precision=precision)

    def margin(self, logits: Array, task: Task, read: Read = WHOLE) -> float:
        """There is no decision, so no call is close."""
        return math.inf

    def agreement(
        self, expected: Sequence[Array], got: Sequence[Array], task: Task, reads: Sequence[Read] = ()
    ) -> float:
        """1 minus the mean difference, relative to the range of the expected scores."""
        right = np.stack(expected)
        extent = float(right.max() - right.min())
        difference = float(np.abs(np.stack(got) - right).mean())
        return 1.0 if difference == 0 else max(0.0, 1 - difference / extent) if extent else 0.0

    def figures(self, expected: Sequence[Target], results: Sequence[ScoreResult], task: Task) -> Figures:
        right = np.array(expected, np.float64)
        scores = np.array([result.score for result in results], np.float64)
        return Figures(
            {
                "pearson": pearson(right, scores),
                "spearman": spearman(right, scores),
                "mean_absolute_error": float(np.abs(right - scores).mean()) if len(right) else 0.0,
            }
        )

    def wrong_by(self, result: ScoreResult, target: Target) -> float:
        """The distance from the right number."""
        return abs(result.score - target) if isinstance(target, float) else math.inf


def _number(value: object) -> float | None:
    """A value as a number, which may not be finite; `None` if it is not a number."""
    if isinstance(value, bool) or not isinstance(value, str | int | float):
        return None
    if isinstance(value, str) and "_" in value:  # allowed in Python's numbers; in data it is part of a label
        return None
    try:
        return float(value)
    except OverflowError:  # an integer
        return math.inf
    except ValueError:
        return None


SCORE = Score()
