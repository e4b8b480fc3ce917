"""What every kind of answer says of itself: how labels are read, how logits become an answer, how good answers are."""

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
"""Begin and end in characters of a text that the user gave."""


class Entity(NamedTuple):
    """A stretch of a text that has a label.

    Attributes:
        start, end: in characters.
        label: its label.
    """

    start: int
    end: int
    label: str


class Answer(NamedTuple):
    """An answer to a question, as data has it.

    Attributes:
        start, end: in characters of the context.
        text: what stands there.
    """

    start: int
    end: int
    text: str


Target = str | tuple[str, ...] | float | tuple[Entity, ...] | tuple[Answer, ...]
"""What is right for a text, as data has it: a label, several labels, a number, entities, or answers to a question."""

Status = Literal["ok", "truncated", "abstained"]

_EXACT_IN_FLOAT = 1 << 53


@dataclass(frozen=True)
class Reading:
    """How a kind reads a text that it answers piece by piece.

    Attributes:
        pieces: gives the places of a text that features are read from, in order; none is inside another.
        second: whether it is the second text of a pair that has the pieces, and not the first.
        or_none: whether each window answers all pieces that it has and, before them, one more that stands for "no
            answer" (`candidates.NO_PLACE`); such texts are always read in windows. Else one window answers each piece.
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
        text: what the places are in; empty if the text is answered as a whole.
        places: of the pieces that were read, in order; empty if the text is answered as a whole.
        truncated: whether the end of the text was not read.
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
        truncated: whether the end of the text was not read, because it was longer than the task allows.
        abstained: whether there is no answer, because its score is below the `min_score` of the call.
        precision: the precision that answered.
    """

    task: str
    truncated: bool = False
    abstained: bool = False
    precision: str = "fp32"

    @property
    def status(self) -> Status:
        """What became of the text: "abstained" also if it was truncated."""
        if self.abstained:
            return "abstained"
        return "truncated" if self.truncated else "ok"

    def at(self, min_score: float) -> Result:
        """The same answer with a lowest score: what is below it is not answered.

        Args:
            min_score: from 0 to 1. 0 changes nothing.
        """
        return self

    @abstractmethod
    def fields(self) -> dict[str, Any]:
        """The answer's own fields, as JSON has them."""

    def _with(self, **changes: Any) -> Any:
        return dataclasses.replace(self, **changes)


@dataclass(frozen=True)
class Figures:
    """How good answers are.

    Attributes:
        values: figure → its value, such as "accuracy" → 0.93. The first is the kind's headline.
        by_label: label → figure → value; empty if the kind has no labels.
        confusion: how often each label (row) was answered as each (column); `None` if the kind has no such table.
            Shape: [labels, labels].
    """

    values: Mapping[str, float]
    by_label: Mapping[str, Mapping[str, float]] = field(default_factory=dict)
    confusion: Array | None = None

    @property
    def headline(self) -> str:
        """Name of the figure that stands for the others."""
        return next(iter(self.values))


Column = Literal["string", "strings", "integer", "number", "numbers", "entities"]
"""Type of an answer's field in a table: a text, texts, a whole number, a number, label → number, or a list of entities,
each with label, start, end, text and score. A text or a whole number may be missing."""


@dataclass(frozen=True)
class Output:
    """An answer's field as a tensor of the Open Inference Protocol.

    Attributes:
        name: of the tensor.
        datatype: of the protocol: "BYTES", "BOOL", "INT64" or "FP32".
        by_label: whether a row has one value per label; else it has one.
        of: gives a row's values.
    """

    name: str
    datatype: Literal["BYTES", "BOOL", "INT64", "FP32"]
    by_label: bool
    of: Callable[[Any], list[Any]]


@dataclass(frozen=True)
class Ranking:
    """How answers about pairs (query, text) put texts in an order.

    Attributes:
        label: gives the label that means "relevant", of a task and what the caller says it is, if that is said; `None`
            if the kind has no labels. Raises `ValueError` if it cannot be known, or there is no such label.
        relevance: gives how relevant a text is, of its result and that label: more is better.
        raw: gives the same before it became a probability: also more is better, and in the same order.
    """

    label: Callable[[Task, str | None], str | None]
    relevance: Callable[[Any, Any], float]
    raw: Callable[[Any, Any], float]


class Kind(ABC):
    """A kind of answer. One instance per module of this package; `KINDS` lists them.

    Attributes:
        name: what task files and users call it.
        title: what people read on a page or a card.
        requires: what a reader must know to answer tasks of this kind; empty for what edgetune 0.1 could do.
        labels: fewest and most labels of a task.
        min_score: whether a lowest score means something for its answers.
        one_answer: whether a text has one answer or none, so that the share that is answered means something.
        columns: field → its type, the columns that bulk scoring writes.
        outputs: its tensors in the Open Inference Protocol.
        ranking: how its answers put texts in an order; `None` if they do not.
        headline: the figure that stands for the others; more is better.
        reading: how it reads texts that it answers piece by piece; `None` if it answers a text as a whole.
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
        """Rows of the head of a task with so many labels."""
        return labels

    def check(self, task: Task) -> None:
        """Raise `ValueError` unless the task's own settings for this kind are sound."""
        if task.thresholds:
            raise ValueError(f"{len(task.thresholds)} thresholds: expected none for tasks of the kind '{self.name}'")

    def thresholds(self, task: Task) -> tuple[float, ...]:
        """For each label the score from which on it applies; empty if thresholds decide nothing."""
        return ()

    @abstractmethod
    def sees(self, values: Sequence[object]) -> bool:
        """Whether a column of labels, as data has them, looks like this kind's."""

    @abstractmethod
    def target(self, value: object) -> Target:
        """What a value of the label column means.

        Raises:
            ValueError: it means nothing to this kind; the message names what came and what was expected.
        """

    def written(self, target: Target) -> Any:
        """A target as JSON has it; `target` reads it."""
        return list(target) if isinstance(target, tuple) else target

    def labels_of(self, targets: Sequence[Target]) -> list[str]:
        """All labels that targets name, sorted."""
        return sorted({label for target in targets for label in self.named(target)})

    @abstractmethod
    def named(self, target: Target) -> tuple[str, ...]:
        """The labels that a target names; empty if the kind has none in its data."""

    def checked(self, target: Target, text: Text) -> Target:
        """A target as it is for that text, which it has to go with.

        Raises:
            ValueError: it does not go with the text; the message names what came and what was expected.
        """
        return target

    def pieces(self, target: Target, read: Read) -> list[Any]:
        """What is right for each piece that was read, as `Fitting.encode` takes it; the target itself if it is whole.

        Shape:
            output: [pieces], or [1] if the kind has no `reading`
        """
        return [target]

    def unfit(self, target: Target, read: Read) -> int:
        """How many things a target names that no answer about these pieces can give exactly."""
        return 0

    def unfit_remark(self, number: int) -> str:
        """What people are told of so many things that `unfit` counts."""
        return f"{number:,} of what the data names cannot be answered exactly"

    @abstractmethod
    def answer(self, logits: Array, task: Task, read: Read = WHOLE, precision: str = "fp32") -> Result:
        """The answer that logits give.

        Shape:
            logits: [spans, labels]; if the kind has a `reading`, [pieces, rows of the head]
        """

    @abstractmethod
    def margin(self, logits: Array, task: Task, read: Read = WHOLE) -> float:
        """How far logits are from a different answer, on the scale of scores from 0 to 1; infinite if never close.

        Shape:
            logits: as `answer` takes them
        """

    @abstractmethod
    def agreement(
        self, expected: Sequence[Array], got: Sequence[Array], task: Task, reads: Sequence[Read] = ()
    ) -> float:
        """How far two ways to compute the logits of the same texts agree: 1 if all answers are the same.

        Args:
            expected, got: the logits.
            task: the task.
            reads: the texts as they were read; empty if none of them is read in windows.

        Shape:
            expected, got: for each text [labels]; if the kind has a `reading`, [pieces, rows of the head]
        """

    @abstractmethod
    def figures(self, expected: Sequence[Target], results: Sequence[Any], task: Task) -> Figures:
        """How good results are, given what is right."""

    @abstractmethod
    def wrong_by(self, result: Any, target: Target) -> float:
        """How wrong an answer is: 0 if it is right. Wrong answers that are worth looking at first have most."""

    def logits_of(self, spans: Array) -> Array:
        """A text's logits, given those of its spans: their mean or, if the kind has a `reading`, all of them.

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
    """A label that is a string, an integer, a whole float or a boolean, as text; `None` if it is none of these."""
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, float) and value.is_integer() and abs(value) <= _EXACT_IN_FLOAT:
        return str(int(value))
    return str(value) if isinstance(value, str | int) and value != "" else None


def mean_over_spans(logits: Array) -> Array:
    """A text's logits: the mean of those of its spans.

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
