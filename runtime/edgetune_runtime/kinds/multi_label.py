"""Any number of labels, including none: each label has its own threshold."""

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
    Read,
    Result,
    Target,
    mean_over_spans,
    sigmoid,
    whole,
)
from edgetune_runtime.metrics import average_precision

if TYPE_CHECKING:
    from edgetune_runtime.task import Task

SEPARATOR = "|"
"""Separator of labels that are written as one text, as in `billing|urgent`."""

DEFAULT_THRESHOLD = 0.5

# int8 moves logits by 0.08 (standard deviation; MiniLM with the 28 labels of go_emotions). A fifth of the texts have a
# logit within 0.15 of its threshold; answering these again catches 97% of the answers that int8 changes
# (benchmarks/close_calls.py).
_MARGIN_PER_LOGIT = 0.1 / 0.15


@dataclass(frozen=True, kw_only=True)
class LabelsResult(Result):
    """Any number of labels.

    Attributes:
        labels: the labels whose scores reach their thresholds, in the task's order; may be empty.
        scores: label → probability that it applies, independently of the others.
    """

    labels: tuple[str, ...]
    scores: Mapping[str, float]

    def at(self, min_score: float) -> LabelsResult:
        """The same without the labels whose scores are below `min_score`."""
        kept = tuple(label for label in self.labels if self.scores[label] >= min_score)
        found: LabelsResult = self._with(labels=kept)
        return found

    def fields(self) -> dict[str, Any]:
        return {"labels": list(self.labels), "scores": dict(self.scores)}


class MultiLabel(Kind):
    """Each text has any number of labels: a sigmoid per label at the task's temperature, decided by a threshold."""

    name = "multi-label"
    title = "any number of labels"
    requires = ("kind:multi-label",)
    labels = (1, 10_000)
    columns = {"labels": "strings", "scores": "numbers"}  # noqa: RUF012 - it is never changed
    outputs = (
        Output("applies", "BOOL", True, lambda result: [label in result.labels for label in result.scores]),
        Output("scores", "FP32", True, lambda result: list(result.scores.values())),
    )
    headline = "macro_f1"

    def check(self, task: Task) -> None:
        if len(task.thresholds) not in (0, len(task.labels)):
            raise ValueError(f"{len(task.thresholds)} thresholds for {len(task.labels)} labels: expected one per label")
        odd = [value for value in task.thresholds if not 0 < value < 1]
        if odd:
            raise ValueError(f"a threshold of {odd[0]}: expected numbers above 0 and below 1")

    def thresholds(self, task: Task) -> tuple[float, ...]:
        return task.thresholds or (DEFAULT_THRESHOLD,) * len(task.labels)

    def sees(self, values: Sequence[object]) -> bool:
        """Lists; or texts, some of which join labels with `|` that other texts have alone."""
        if any(isinstance(value, list | tuple) for value in values):
            return True
        texts = [value for value in values if isinstance(value, str)]
        joined = {part for text in texts if SEPARATOR in text for part in _split(text)}
        return bool(joined) and not joined.isdisjoint(text for text in texts if SEPARATOR not in text)

    def target(self, value: object) -> tuple[str, ...]:
        if value is None:
            return ()
        found = list(value) if isinstance(value, list | tuple) else _split(value) if isinstance(value, str) else [value]
        labels = [whole(one) for one in found]
        named = [label for label in labels if label is not None]
        if len(named) < len(labels):
            raise ValueError("expected a list of labels, each a string, an integer or a boolean")
        if len(set(named)) < len(named):
            raise ValueError("a label occurs in it twice: expected each once")
        return tuple(sorted(named))

    def named(self, target: Target) -> tuple[str, ...]:
        return tuple(str(label) for label in target) if isinstance(target, tuple) else ()

    def answer(self, logits: Array, task: Task, read: Read = WHOLE, precision: str = "fp32") -> LabelsResult:
        scores = _scores(mean_over_spans(logits), task)
        chosen = tuple(label for label, applies in zip(task.labels, scores >= thresholds(task), strict=True) if applies)
        by_label = dict(zip(task.labels, map(float, scores), strict=True))
        return LabelsResult(
            task=task.name, labels=chosen, scores=by_label, truncated=read.truncated, precision=precision
        )

    def margin(self, logits: Array, task: Task, read: Read = WHOLE) -> float:
        """Distance of the closest score to its threshold.

        It is measured in logits, because scores are always close to thresholds near 0 or 1.
        """
        limits = thresholds(task)
        away = mean_over_spans(logits).astype(np.float64) / task.temperature - np.log(limits / (1 - limits))
        return float(_MARGIN_PER_LOGIT * np.abs(away).min())

    def agreement(
        self, expected: Sequence[Array], got: Sequence[Array], task: Task, reads: Sequence[Read] = ()
    ) -> float:
        """Share of decisions, one per text and label, that are the same."""
        return float((self._decided(np.stack(expected), task) == self._decided(np.stack(got), task)).mean())

    def figures(self, expected: Sequence[Target], results: Sequence[LabelsResult], task: Task) -> Figures:
        right = indicators(expected, task.labels)
        answered = indicators([result.labels for result in results], task.labels)
        scores = np.array([[result.scores[label] for label in task.labels] for result in results])
        hits = (right & answered).sum(axis=0)
        f1 = 2 * hits / np.maximum(1, right.sum(axis=0) + answered.sum(axis=0))
        precision, recall = hits / np.maximum(1, answered.sum(axis=0)), hits / np.maximum(1, right.sum(axis=0))
        occurs = right.any(axis=0)
        average = np.array([average_precision(right[:, place], scores[:, place]) for place in np.flatnonzero(occurs)])
        by_label = {
            label: {"rows": int(rows), "precision": float(own[0]), "recall": float(own[1]), "f1": float(own[2])}
            for label, rows, *own in zip(task.labels, right.sum(axis=0), precision, recall, f1, strict=True)
        }
        values = {
            "macro_f1": float(f1.mean()),
            "micro_f1": float(2 * hits.sum() / max(1, right.sum() + answered.sum())),
            "mean_average_precision": float(average.mean()) if len(average) else 0.0,
            "exact_match": float((right == answered).all(axis=1).mean()) if len(right) else 0.0,
        }
        return Figures(values, by_label)

    def wrong_by(self, result: LabelsResult, target: Target) -> float:
        """The most confident wrong decision: the score of an extra label, or 1 minus the score of a missed label."""
        right, given = set(self.named(target)), set(result.labels)
        extra, missed = given - right, right - given
        return max([0.0, *(result.scores[one] for one in extra), *(1 - result.scores[one] for one in missed)])

    def _decided(self, logits: Array, task: Task) -> Array:
        decided: Array = _scores(logits, task) >= thresholds(task)
        return decided


def _scores(logits: Array, task: Task) -> Array:
    """Shape: [..., labels], both ways, in float64."""
    return sigmoid(logits.astype(np.float64) / task.temperature)


def thresholds(task: Task) -> Array:
    """The lowest score at which each label applies. Shape: [labels]."""
    return np.array(MULTI_LABEL.thresholds(task), np.float64)


def indicators(targets: Sequence[Target], labels: Sequence[str]) -> Array:
    """Which labels each target has. Shape: [rows, labels], boolean."""
    place = {label: column for column, label in enumerate(labels)}
    found = np.zeros((len(targets), len(labels)), bool)
    for row, target in enumerate(targets):
        for label in MULTI_LABEL.named(target):
            found[row, place[label]] = True
    return found


def _split(text: str) -> list[str]:
    return [part.strip() for part in text.split(SEPARATOR) if part.strip()]


MULTI_LABEL = MultiLabel()
