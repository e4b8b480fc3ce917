"""One of several labels: the most probable one."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from edgetune_runtime.arrays import Array
from edgetune_runtime.kinds.kind import (
    WHOLE,
    Figures,
    Kind,
    Output,
    Ranking,
    Read,
    Result,
    Target,
    mean_over_spans,
    whole,
)
from edgetune_runtime.metrics import calibration_error, quality
from edgetune_runtime.positive import positive_label

if TYPE_CHECKING:
    from edgetune_runtime.task import Task


@dataclass(frozen=True, kw_only=True)
class LabelResult(Result):
    """One label.

    Attributes:
        best: the most probable label.
        scores: label → probability; they sum to 1.
    """

    best: str
    scores: Mapping[str, float]

    @property
    def label(self) -> str | None:
        """The answer: the most probable label, or `None` if the task abstained."""
        return None if self.abstained else self.best

    @property
    def score(self) -> float:
        """Probability of the most probable label."""
        return self.scores[self.best]

    def at(self, min_score: float) -> LabelResult:
        """The same, abstaining if the best label's score is below `min_score`."""
        found: LabelResult = self._with(abstained=self.score < min_score)
        return found

    def fields(self) -> dict[str, Any]:
        return {"label": self.label, "score": self.score, "scores": dict(self.scores)}


_LEAST = np.finfo(np.float64).tiny


def _relevant_label(task: Task, label: str | None) -> str:
    if label is None:
        found = positive_label(task.labels)
        if found is None:
            raise ValueError(
                f"has the labels {', '.join(task.labels)}, and which of them means that a text is relevant is not "
                f"known: name it with `label`"
            )
        return found
    if label not in task.labels:
        raise ValueError(f"has no label {label!r:.60}: expected one of {', '.join(task.labels)}")
    return label


def _probability(result: LabelResult, label: str) -> float:
    return result.scores[label]


def _log_odds(result: LabelResult, label: str) -> float:
    """The logit (log-odds) of the label's probability."""
    others = sum(score for name, score in result.scores.items() if name != label)
    return float(np.log(max(result.scores[label], _LEAST)) - np.log(max(others, _LEAST)))


class SingleLabel(Kind):
    """Each text has exactly one label: a softmax at the task's temperature, and the label with the best score."""

    name = "single-label"
    title = "one label"
    labels = (2, 10_000)
    one_answer = True
    columns = {"label": "string", "score": "number", "scores": "numbers"}  # noqa: RUF012 - it is never changed
    outputs = (
        Output("label", "BYTES", False, lambda result: [result.best]),
        Output("scores", "FP32", True, lambda result: list(result.scores.values())),
    )
    ranking = Ranking(_relevant_label, _probability, _log_odds)
    headline = "accuracy"

    def sees(self, values: Sequence[object]) -> bool:
        return True

    def target(self, value: object) -> str:
        found = whole(value)
        if found is None:
            raise ValueError("expected a string, an integer or a boolean")
        return found

    def named(self, target: Target) -> tuple[str, ...]:
        return (str(target),)

    def answer(self, logits: Array, task: Task, read: Read = WHOLE, precision: str = "fp32") -> LabelResult:
        own = mean_over_spans(logits)
        scores = dict(zip(task.labels, map(float, probabilities(own, task.temperature)), strict=True))
        best = task.labels[int(own.argmax())]
        return LabelResult(task=task.name, best=best, scores=scores, truncated=read.truncated, precision=precision)

    def margin(self, logits: Array, task: Task, read: Read = WHOLE) -> float:
        """The difference between the two best scores."""
        second, best = np.partition(probabilities(mean_over_spans(logits), task.temperature), -2)[-2:]
        return float(best - second)

    def agreement(
        self, expected: Sequence[Array], got: Sequence[Array], task: Task, reads: Sequence[Read] = ()
    ) -> float:
        """Share of texts with the same label."""
        return float((np.stack(got).argmax(axis=1) == np.stack(expected).argmax(axis=1)).mean())

    def figures(self, expected: Sequence[Target], results: Sequence[LabelResult], task: Task) -> Figures:
        measured = quality([str(one) for one in expected], [result.best for result in results], task.labels)
        right = np.array([result.best == one for result, one in zip(results, expected, strict=True)])
        ece = calibration_error(np.array([result.score for result in results]), right)
        by_label = {
            label: {"recall": float(recall), "f1": float(f1)}
            for label, recall, f1 in zip(task.labels, measured.recall, measured.f1, strict=True)
        }
        values = {"accuracy": measured.accuracy, "macro_f1": measured.macro_f1, "ece": ece}
        return Figures(values, by_label, measured.confusion)

    def wrong_by(self, result: LabelResult, target: Target) -> float:
        """The score of the wrong label."""
        return 0.0 if result.best == target else result.score


def probabilities(logits: Array, temperature: float) -> Array:
    """Softmax of logits at a temperature, in float64.

    Shape:
        logits, output: [..., labels]
    """
    weights = np.exp((logits.astype(np.float64) - logits.max(axis=-1, keepdims=True)) / temperature)
    found: Array = weights / weights.sum(axis=-1, keepdims=True)
    return found


SINGLE_LABEL = SingleLabel()
