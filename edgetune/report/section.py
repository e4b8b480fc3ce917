"""What the parts of a report are made of, and what one is."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Protocol

import numpy as np

from edgetune.evaluation import Evaluation, Row
from edgetune.report.markup import Markup, element, folded
from edgetune.training.seeds import SeedSpread
from edgetune_runtime.arrays import Array
from edgetune_runtime.kinds.multi_label import indicators


class EpochLike(Protocol):
    """What development data says of an epoch; `edgetune.training.epochs.Epoch` is one."""

    @property
    def number(self) -> int:
        """1 for the first."""

    @property
    def score(self) -> float:
        """Of the measure by which the epoch is chosen."""

    @property
    def loss(self) -> float:
        """The mean loss."""


@dataclass(frozen=True, eq=False)
class Material:
    """What a report is made of.

    Attributes:
        evaluation: the answers, and what was right; at least one row was answered.
        history: the epochs of the training; may be empty.
        seeds: how far apart trainings with several seeds ended, if there were several.
    """

    evaluation: Evaluation
    history: Sequence[EpochLike] = ()
    seeds: SeedSpread | None = None

    @property
    def labels(self) -> tuple[str, ...]:
        """The task's labels."""
        return self.evaluation.task.labels

    @property
    def rows(self) -> list[Row]:
        """The rows that were answered."""
        return self.evaluation.rows

    @cached_property
    def scores(self) -> Array:
        """The score of every label for every row. Shape: [rows, labels]."""
        return np.array([[row.result.scores[label] for label in self.labels] for row in self.rows], np.float64)

    @cached_property
    def right(self) -> Array:
        """Where each row has one label: the place of the right one. Shape: [rows]."""
        place = {label: number for number, label in enumerate(self.labels)}
        return np.array([place[str(row.target)] for row in self.rows], np.int64)

    @cached_property
    def best(self) -> Array:
        """Where each row has one label: the place of the most probable one. Shape: [rows]."""
        place = {label: number for number, label in enumerate(self.labels)}
        return np.array([place[row.result.best] for row in self.rows], np.int64)

    @cached_property
    def best_scores(self) -> Array:
        """Where each row has one answer: the score of the most probable one. Shape: [rows]."""
        return np.array([row.result.score for row in self.rows], np.float64)

    @cached_property
    def is_right(self) -> Array:
        """Where each row has one answer: whether it is right. Shape: [rows], boolean."""
        kind = self.evaluation.task.kind
        return np.array([kind.wrong_by(row.result, row.target) == 0 for row in self.rows], bool)

    @cached_property
    def applies(self) -> Array:
        """Where a row has any number of labels: which are right. Shape: [rows, labels], boolean."""
        return indicators([row.target for row in self.rows], self.labels)

    @cached_property
    def given(self) -> Array:
        """Where a row has any number of labels: which were answered. Shape: [rows, labels], boolean."""
        return indicators([row.result.labels for row in self.rows], self.labels)


@dataclass(frozen=True)
class Part:
    """A part of a report.

    Attributes:
        finding: the most important thing that it shows, in one sentence; it may be empty.
        body: pictures and tables.
    """

    finding: str
    body: Markup


@dataclass(frozen=True)
class Section:
    """A part that a report has if it goes with the kind of answer.

    Attributes:
        anchor: what links call it.
        title: its heading.
        kinds: names of the kinds of answer for which it means something; `None` for every kind.
        of: makes it; `None` if there is nothing to show.
    """

    anchor: str
    title: str
    kinds: frozenset[str] | None
    of: Callable[[Material], Part | None]


def picture(drawn: Markup, caption: str, numbers: Markup | None = None) -> Markup:
    """A picture with its caption, and the numbers behind it for those who want them."""
    more = None if numbers is None else folded("The numbers", numbers)
    return element("figure", drawn, element("figcaption", caption), more)


def side_by_side(*parts: object) -> Markup:
    """Pictures next to each other if there is room."""
    return element("div", *parts, class_="pictures")


def counted(number: int, one: str, many: str | None = None) -> str:
    """A number with what it counts: "1 row", "2,000 rows"."""
    return f"{number:,} {one if number == 1 else many or f'{one}s'}"
