"""Evaluations of every kind without an engine: answers are given as logits."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from edgetune.evaluation import Evaluation
from edgetune_runtime import Task
from edgetune_runtime.candidates import NO_PLACE
from edgetune_runtime.kinds import KINDS, Answer, Entity, Read, Target
from edgetune_runtime.kinds.kind import WHOLE
from edgetune_runtime.text import Text


def task_of(kind: str = "single-label", labels: Sequence[str] = ("a", "b", "c"), name: str = "mood") -> Task:
    """A task without a backbone, sufficient to compute answers from logits."""
    return Task(
        name=name,
        labels=tuple(labels),
        backbone_sha256="0" * 64,
        tensors={},
        method="none",
        base_model="none",
        pooling="mean",
        kind_name=kind,
    )


def read_of(text: Text) -> str:
    """The text with the pieces: here always the first."""
    return text if isinstance(text, str) else text[0]


def evaluated(
    task: Task,
    logits: Sequence[Sequence[float]] | np.ndarray,
    targets: Sequence[Target],
    texts: Sequence[Text] | None = None,
    min_score: float | None = None,
) -> Evaluation:
    """An evaluation of the answers for these logits. A text is one piece, and "no answer" has logits of 0.

    Shape:
        logits: [rows, rows of the head]
    """
    rows = np.asarray(logits, np.float64)
    given = [f"text {place}" for place in range(len(rows))] if texts is None else texts
    none = task.kind.reading is not None and task.kind.reading.or_none
    reads = [Read(text, (*[NO_PLACE] * none, (0, len(text)))) for text in map(read_of, given)]
    outcomes = [
        task.kind.answer(
            np.stack([*[np.zeros_like(row)] * none, row]), task, read if task.kind.reading else WHOLE, "int8"
        ).at(min_score or 0.0)
        for row, read in zip(rows, reads, strict=False)
    ]
    return Evaluation(task, given, targets, outcomes, "int8", min_score=min_score)


def of_probabilities(task: Task, probabilities: Sequence[Sequence[float]], targets: Sequence[Target]) -> Evaluation:
    """An evaluation of a task with one label. Shape: [rows, labels]; each row sums to 1."""
    return evaluated(task, np.log(np.asarray(probabilities)), targets)


@dataclass(frozen=True)
class Step:
    """An epoch of a history."""

    number: int
    score: float
    loss: float


HISTORY = (Step(1, 0.5, 1.25), Step(2, 0.75, 0.8), Step(3, 0.75, 0.6), Step(4, 0.7, float("nan")))


def random_evaluation(
    kind: str,
    rows: int = 300,
    labels: Sequence[str] = ("a", "b", "c", "d"),
    texts: Sequence[Text] | None = None,
    name: str = "mood",
    seed: int = 0,
) -> Evaluation:
    """Random answers that are often right."""
    random = np.random.default_rng(seed)
    logits = random.normal(0, 1.5, (rows, 1 if kind == "score" else KINDS[kind].head_rows(len(labels))))
    if kind == "score":
        return evaluated(
            task_of(kind, ["score"], name), logits, (logits[:, 0] + random.normal(0, 1, rows)).tolist(), texts
        )
    near = logits + random.normal(0, 1, logits.shape)
    if kind == "multi-label":
        targets: list[Target] = [
            tuple(label for label, own in zip(labels, row, strict=True) if own > 0) for row in near
        ]
    elif kind == "tokens":
        given = [f"text {place}" for place in range(rows)] if texts is None else texts
        own = list(map(read_of, given))
        targets = [
            (Entity(0, len(text), labels[(row - 1) // 2]),) if row else ()
            for text, row in zip(own, map(int, near.argmax(axis=1)), strict=False)
        ]
    elif kind == "spans":
        given = [f"text {place}" for place in range(rows)] if texts is None else texts
        targets = [
            (Answer(0, len(text), text),) if row.sum() > 0 else ()
            for text, row in zip(map(read_of, given), near, strict=False)
        ]
    else:
        targets = [labels[int(place)] for place in near.argmax(axis=1)]
    return evaluated(task_of(kind, labels, name), logits, targets, texts)
