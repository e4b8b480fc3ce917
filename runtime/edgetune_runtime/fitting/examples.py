"""Labelled texts as numbers: one row per text or, if the kind answers piece by piece, one row per piece."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from edgetune_runtime.arrays import Array
from edgetune_runtime.fitting.by_kind import fitting_of
from edgetune_runtime.kinds import Figures, Kind, Read, Result, Target
from edgetune_runtime.task import Task


@dataclass(frozen=True)
class Examples:
    """Labelled texts, and the targets of their rows.

    Attributes:
        kind: what an answer is.
        targets: the target of each text.
        reads: each text as it was read.
        numbers: the target of each row, as numbers. Shape: [rows, numbers].
        text: index of the text that each row belongs to, ascending. Shape: [rows].
    """

    kind: Kind
    targets: Sequence[Target]
    reads: Sequence[Read]
    numbers: Array
    text: Array

    @classmethod
    def of(cls, kind: Kind, targets: Sequence[Target], reads: Sequence[Read], labels: Sequence[str]) -> Examples:
        """Make examples from texts that were read.

        Args:
            kind: what an answer is.
            targets: the target of each text.
            reads: each text as it was read.
            labels: the task's labels.
        """
        encode = fitting_of(kind).encode
        pieces = [kind.pieces(target, read) for target, read in zip(targets, reads, strict=True)]
        rows = [encode(piece, labels) for own in pieces for piece in own]
        return cls(
            kind,
            targets,
            reads,
            np.array(rows) if rows else np.zeros((0, 1)),
            np.repeat(np.arange(len(pieces)), list(map(len, pieces))),
        )

    @property
    def remarks(self) -> list[str]:
        """What people should know about how the texts are read; one line each."""
        unfit = [self.kind.unfit(target, read) for target, read in zip(self.targets, self.reads, strict=True)]
        return [self.kind.unfit_remark(sum(unfit))] if any(unfit) else []

    @property
    def groups(self) -> Array | None:
        """The text that each row belongs to, if a text has several. Shape: [rows]."""
        return None if self.kind.reading is None else self.text

    @property
    def numbers_by_text(self) -> list[Array]:
        """The target of each row, text by text. Shape: for each text [rows, numbers]."""
        return np.split(self.numbers, self._ends) if self.targets else []

    @property
    def _ends(self) -> Array:
        found: Array = np.searchsorted(self.text, np.arange(1, len(self.targets)))
        return found

    def whole(self, judged: Array) -> Array:
        """Whether all rows of a text are judged. Shape: [rows] → [texts]."""
        found = np.full(len(self.targets), True)
        found[self.text[~judged]] = False
        return found

    def only(self, judged: Array) -> Examples:
        """Only the texts whose rows are all judged. Shape: [rows]."""
        kept = self.whole(judged)
        number = np.cumsum(kept) - 1
        rows = kept[self.text]
        return Examples(
            self.kind,
            [one for one, yes in zip(self.targets, kept, strict=True) if yes],
            [one for one, yes in zip(self.reads, kept, strict=True) if yes],
            self.numbers[rows],
            number[self.text[rows]],
        )

    def by_text(self, logits: Array) -> list[Array]:
        """Logits of the rows, text by text.

        Shape:
            logits: [rows, outputs]
            output: for each text [outputs]; if the kind has a `reading`, [pieces, outputs]
        """
        found = np.split(logits, self._ends) if self.targets else []
        return [self.kind.logits_of(own) for own in found]

    def results(self, logits: Array, task: Task, precision: str = "fp32") -> list[Result]:
        """The answers for the rows' logits. Shape: [rows, outputs]."""
        return answers(task, self.by_text(logits), self.reads, precision)

    def figures(self, logits: Array, task: Task) -> Figures:
        """The quality of these answers. Shape: [rows, outputs]."""
        return self.kind.figures(self.targets, self.results(logits, task), task)


def answers(task: Task, logits: Sequence[Array], reads: Sequence[Read], precision: str = "fp32") -> list[Result]:
    """The answers for the logits of texts.

    Shape:
        logits: for each text [labels]; if the task's kind has a `reading`, [pieces, rows of the head]
    """
    return [
        task.kind.answer(np.atleast_2d(own), task, read, precision) for own, read in zip(logits, reads, strict=True)
    ]
