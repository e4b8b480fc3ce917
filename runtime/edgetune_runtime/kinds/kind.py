"""The interface of every kind of answer: how labels are read, how logits become answers, how good answers are."""

from __future__ import annotations

import dataclasses
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, ClassVar, Literal, NamedTuple

import numpy as np

from edgetune_runtime import contract
from edgetune_runtime.arrays import Array

if TYPE_CHECKING:
    from edgetune_runtime.task import Task
    from edgetune_runtime.text import Text

Place = tuple[int, int]
"""Start and end in characters of the user's text."""


class Entity(NamedTuple):
    """A labelled stretch of a text.

    Attributes:
        start, end: its place in characters.
        label: its label.
    """

    start: int
    end: int
    label: str


class Answer(NamedTuple):
    """An answer to a question, as in training data.

    Attributes:
        start, end: its place in characters of the context.
        text: the text at that place.
    """

    start: int
    end: int
    text: str


Target = str | tuple[str, ...] | float | tuple[Entity, ...] | tuple[Answer, ...]
"""The right answer for a text, as in training data: a label, several labels, a number, entities, or answers to a
question."""

Status = Literal["ok", "truncated", "abstained"]

_EXACT_IN_FLOAT = 1 << 53


@dataclass(frozen=True)
class Reading:
    """How a kind reads a text that it answers piece by piece.

    Attributes:
        pieces: returns the places of a text that features are read from, in order; they are never nested.
        second: whether the pieces are in the second text of a pair instead of the first.
        or_none: whether each window answers all its pieces and, before them, an additional piece for "no answer"
            (`candidates.NO_PLACE`); such texts are always read in windows. Otherwise each piece is answered by one
            window.
        poolings: how features of a piece can be read.
    """

    pieces: Callable[[str], Sequence[Place]]
    second: bool = False
    or_none: bool = False
    poolings: tuple[str, ...] = contract.OF_PIECES


@dataclass(frozen=True)
class Read:
    """A text as it was read.

    Attributes:
        text: the text that the places refer to; empty if the text is answered as a whole.
        places: the places of the pieces that were read, in order; empty if the text is answered as a whole.
        truncated: whether the end of the text was cut off.
    """

    text: str = ""
    places: tuple[Place, ...] = ()
    truncated: bool = False


WHOLE = Read()
"""A text that is answered as a whole."""


@dataclass(frozen=True, kw_only=True)
class Result(ABC):
    """The answer for one text. Each kind adds its own fields.

    Attributes:
        task: the task that answered.
        truncated: whether the end of the text was cut off because the text was longer than the task allows.
        abstained: whether there is no answer because its score is below the call's `min_score`.
        precision: the precision that answered.
    """

    task: str
    truncated: bool = False
    abstained: bool = False
    precision: str = "fp32"

    @property
    def status(self) -> Status:
        """The outcome: "ok", "truncated" or "abstained" (also if the text was truncated)."""
        if self.abstained:
            return "abstained"
        return "truncated" if self.truncated else "ok"

    def at(self, min_score: float) -> Result:
        """The same answer with a lowest score: answers below it are withheld.

        Args:
            min_score: from 0 to 1. 0 changes nothing.
        """
        return self

    @abstractmethod
    def fields(self) -> dict[str, Any]:
        """The answer's own fields for JSON."""

    def _with(self, **changes: Any) -> Any:
        return dataclasses.replace(self, **changes)


@dataclass(frozen=True)
class Figures:
    """The quality of answers.

    Attributes:
        values: figure → its value, such as "accuracy" → 0.93. The first figure is the headline.
        by_label: label → figure → value; empty for kinds without labels.
        confusion: how often each label (row) was answered with each label (column); `None` for kinds without such a
            table. Shape: [labels, labels].
    """

    values: Mapping[str, float]
    by_label: Mapping[str, Mapping[str, float]] = field(default_factory=dict)
    confusion: Array | None = None

    @property
    def headline(self) -> str:
        """Name of the headline figure."""
        return next(iter(self.values))


Column = Literal["string", "strings", "integer", "number", "numbers", "entities"]
"""Type of an answer's field in a table: a string, strings, an integer, a number, label → number, or a list of entities,
each with label, start, end, text and score. A string or an integer may be missing."""


@dataclass(frozen=True)
class Output:
    """An answer's field as a tensor of the Open Inference Protocol.

    Attributes:
        name: name of the tensor.
        datatype: the protocol's data type: "BYTES", "BOOL", "INT64" or "FP32".
        by_label: whether a row has one value per label; otherwise it has one value.
        of: returns a row's values.
    """

    name: str
    datatype: Literal["BYTES", "BOOL", "INT64", "FP32"]
    by_label: bool
    of: Callable[[Any], list[Any]]


@dataclass(frozen=True)
class Ranking:
    """How answers about pairs (query, text) rank texts.

    Attributes:
        label: returns the label that means "relevant", given a task and the label that the caller named, if any; `None`
            if the kind has no labels. Raises `ValueError` if the label is not clear, or does not exist.
        relevance: returns a text's relevance, given its result and that label; higher is better.
        raw: returns the relevance as a logit instead of a probability; higher is better, and the order is the same.
    """

    label: Callable[[Task, str | None], str | None]
    relevance: Callable[[Any, Any], float]
    raw: Callable[[Any, Any], float]


class Kind(ABC):
    """A kind of answer. Each module of this package has one instance; `KINDS` lists them.

    Attributes:
        name: its name in task files and for users.
        title: its title on pages and cards.
        requires: the requirements that a reader of such a task must support; empty if edgetune 0.1 supports the kind.
        labels: minimum and maximum number of labels of a task.
        min_score: whether its answers support a lowest score.
        one_answer: whether a text has one answer or none, so that the share of answered texts is meaningful.
        columns: field → type of the columns that bulk scoring writes.
        outputs: its output tensors in the Open Inference Protocol.
        ranking: how its answers rank texts; `None` if they cannot.
        headline: name of its main figure; higher is better.
        reading: how it reads texts piece by piece; `None` if it answers a text as a whole.
    """

    name: ClassVar[str]
    title: ClassVar[str]
    requires: ClassVar[tuple[str, ...]] = ()
    labels: ClassVar[tuple[int, int]]
    min_score: ClassVar[bool] = True
    one_answer: ClassVar[bool] = False
    columns: ClassVar[Mapping[str, Column]]
    outputs: ClassVar[tuple[Output, ...]]
    ranking: ClassVar[Ranking | None] = None
    headline: ClassVar[str]
    reading: ClassVar[Reading | None] = None

    def head_rows(self, labels: int) -> int:
        """Number of rows of the head of a task with this many labels."""
        return labels

    def check(self, task: Task) -> None:
        """Raise `ValueError` unless the task's settings for this kind are valid."""
        if task.thresholds:
            raise ValueError(f"{len(task.thresholds)} thresholds: expected none for tasks of the kind '{self.name}'")

    def thresholds(self, task: Task) -> tuple[float, ...]:
        """For each label the lowest score at which it applies; empty for kinds without thresholds."""
        return ()

    @abstractmethod
    def sees(self, values: Sequence[object]) -> bool:
        """Whether a column of labels looks like this kind's labels."""

    @abstractmethod
    def target(self, value: object) -> Target:
        """The target that a value of the label column means.

        Raises:
            ValueError: it is not valid for this kind; the message says what came and what was expected.
        """

    def written(self, target: Target) -> Any:
        """A target as a JSON value, which `target` can read."""
        return list(target) if isinstance(target, tuple) else target

    def labels_of(self, targets: Sequence[Target]) -> list[str]:
        """Sorted list of all labels in targets."""
        return sorted({label for target in targets for label in self.named(target)})

    @abstractmethod
    def named(self, target: Target) -> tuple[str, ...]:
        """The labels in a target; empty for kinds without labels in their data."""

    def checked(self, target: Target, text: Text) -> Target:
        """Check that a target fits its text, and return the target to use.

        Raises:
            ValueError: it does not fit the text; the message says what came and what was expected.
        """
        return target

    def pieces(self, target: Target, read: Read) -> list[Any]:
        """The target of each piece that was read, for `Fitting.encode`.

        The target itself if the text is answered as a whole.

        Shape:
            output: [pieces], or [1] if the kind has no `reading`
        """
        return [target]

    def unfit(self, target: Target, read: Read) -> int:
        """Number of items in a target that no answer about these pieces can match exactly."""
        return 0

    def unfit_remark(self, number: int) -> str:
        """The remark for people about the number that `unfit` returns."""
        return f"{number:,} of what the data names cannot be answered exactly"

    @abstractmethod
    def answer(self, logits: Array, task: Task, read: Read = WHOLE, precision: str = "fp32") -> Result:
        """The answer for logits.

        Shape:
            logits: [spans, labels]; if the kind has a `reading`, [pieces, rows of the head]
        """

    @abstractmethod
    def margin(self, logits: Array, task: Task, read: Read = WHOLE) -> float:
        """Distance of logits from a different answer, on the scale of scores from 0 to 1; infinite if no call is close.

        Shape:
            logits: as for `answer`
        """

    @abstractmethod
    def agreement(
        self, expected: Sequence[Array], got: Sequence[Array], task: Task, reads: Sequence[Read] = ()
    ) -> float:
        """Agreement of two ways to compute the logits of the same texts: 1 if all answers are the same.

        Args:
            expected, got: the logits.
            task: the task.
            reads: the texts as they were read; empty if no text is read in windows.

        Shape:
            expected, got: for each text [labels]; if the kind has a `reading`, [pieces, rows of the head]
        """

    @abstractmethod
    def figures(self, expected: Sequence[Target], results: Sequence[Any], task: Task) -> Figures:
        """The quality of results, given the targets."""

    @abstractmethod
    def wrong_by(self, result: Any, target: Target) -> float:
        """How wrong an answer is: 0 if it is right; highest for wrong answers that are worth looking at first."""

    def logits_of(self, spans: Array) -> Array:
        """A text's logits, given the logits of its spans: their mean or, if the kind has a `reading`, all of them.

        Shape:
            spans: [spans, labels]
            output: [labels], or [pieces, rows of the head]
        """
        return mean_over_spans(spans) if self.reading is None else spans

    def values(self, result: Any) -> dict[str, Any]:
        """A result's values for `columns`."""
        fields = result.fields()
        return {name: fields[name] for name in self.columns}


def whole(value: object) -> str | None:
    """A label that is a string, an integer, a whole float or a boolean, as text; `None` for other types."""
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, float) and value.is_integer() and abs(value) <= _EXACT_IN_FLOAT:
        return str(int(value))
    return str(value) if isinstance(value, str | int) and value != "" else None


def mean_over_spans(logits: Array) -> Array:
    """A text's logits: the mean over its spans.

    Shape:
        logits: [spans, labels]
        output: [labels]
    """
    found: Array = logits.mean(axis=0) if len(logits) != 1 else logits[0]
    return found


def sigmoid(logits: Array) -> Array:
    """Shape: [...], both ways, in float64."""
    found: Array = np.exp(-np.logaddexp(0.0, -logits.astype(np.float64)))
    return found
