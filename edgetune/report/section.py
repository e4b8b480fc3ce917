"""The material of a report, and the definition of its sections."""

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
    """The results of an epoch on development data; `edgetune.training.epochs.Epoch` is one."""

    @property
    def number(self) -> int:
        """The number of the epoch, from 1."""

    @property
    def score(self) -> float:
        """The value of the measure that chooses the epoch."""

    @property
    def loss(self) -> float:
        """The mean loss."""


@dataclass(frozen=True, eq=False)
class Material:
    """The material of a report.

    Attributes:
        evaluation: the answers and their targets; at least one row was answered.
        history: the epochs of training; may be empty.
        seeds: the spread over several seeds, if there were several.
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
        """The answered rows."""
        return self.evaluation.rows

    @cached_property
    def scores(self) -> Array:
        """The score of every label for every row. Shape: [rows, labels]."""
        return np.array([[row.result.scores[label] for label in self.labels] for row in self.rows], np.float64)

    @cached_property
    def right(self) -> Array:
        """For one label per row: the index of the right label. Shape: [rows]."""
        place = {label: number for number, label in enumerate(self.labels)}
        return np.array([place[str(row.target)] for row in self.rows], np.int64)

    @cached_property
    def best(self) -> Array:
        """For one label per row: the index of the most probable label. Shape: [rows]."""
        place = {label: number for number, label in enumerate(self.labels)}
        return np.array([place[row.result.best] for row in self.rows], np.int64)

    @cached_property
    def best_scores(self) -> Array:
        """For one answer per row: the score of the most probable answer. Shape: [rows]."""
        return np.array([row.result.score for row in self.rows], np.float64)

    @cached_property
    def is_right(self) -> Array:
        """For one answer per row: whether it is right. Shape: [rows], boolean."""
        kind = self.evaluation.task.kind
        return np.array([kind.wrong_by(row.result, row.target) == 0 for row in self.rows], bool)

    @cached_property
    def applies(self) -> Array:
        """For any number of labels per row: the labels that are right. Shape: [rows, labels], boolean."""
        return indicators([row.target for row in self.rows], self.labels)

    @cached_property
    def given(self) -> Array:
        """For any number of labels per row: the labels that were answered. Shape: [rows, labels], boolean."""
        return indicators([row.result.labels for row in self.rows], self.labels)


@dataclass(frozen=True)
class Part:
    """The contents of a section.

    Attributes:
        finding: its most important finding in one sentence; may be empty.
        body: pictures and tables.
    """

    finding: str
    body: Markup


@dataclass(frozen=True)
class Section:
    """A section of a report; it is included if it applies to the kind of answer.

    Attributes:
        anchor: its name in links.
        title: its heading.
        kinds: names of the kinds of answer to which it applies; `None` for every kind.
        of: creates its contents; returns `None` if there is nothing to show.
    """

    anchor: str
    title: str
    kinds: frozenset[str] | None
    of: Callable[[Material], Part | None]


def picture(drawn: Markup, caption: str, numbers: Markup | None = None) -> Markup:
    """A picture with its caption and, collapsed, the numbers behind it."""
    more = None if numbers is None else folded("The numbers", numbers)
    return element("figure", drawn, element("figcaption", caption), more)


def side_by_side(*parts: object) -> Markup:
    """Pictures side by side, if there is room."""
    return element("div", *parts, class_="pictures")


def counted(number: int, one: str, many: str | None = None) -> str:
    """A number with its noun: "1 row", "2,000 rows"."""
    return f"{number:,} {one if number == 1 else many or f'{one}s'}"
