"""Evaluate a task on labelled texts: its answers, the targets, and figures. No PyTorch."""

from __future__ import annotations

import html
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, NamedTuple

from edgetune.data.labelled import LabelledText
from edgetune.figures import figure_name
from edgetune_runtime.arrays import Array
from edgetune_runtime.attempts import MOST_CHARACTERS, attempt
from edgetune_runtime.checks import check_min_score
from edgetune_runtime.engine import Engine
from edgetune_runtime.errors import DataError, TextError
from edgetune_runtime.fitting.examples import answers
from edgetune_runtime.fitting.rows import LabelledRows, labelled_rows
from edgetune_runtime.kinds import Figures, Read, Result, Target
from edgetune_runtime.task import Task
from edgetune_runtime.text import Text

_CHUNK_ROWS = 256
_LABELS_SHOWN = 50


class Row(NamedTuple):
    """A labelled text with its answer.

    Attributes:
        place: its place in the data, for people.
        text: the text, or the pair of texts.
        target: the target.
        result: the answer.
    """

    place: str
    text: Text
    target: Target
    result: Any


class Answered(NamedTuple):
    """The rows that remain with `min_score`.

    Attributes:
        rows: number of answered rows.
        figure: the headline figure on these rows; `None` if there are none.
    """

    rows: int
    figure: float | None


@dataclass(frozen=True, eq=False, repr=False)
class Evaluation:
    """The answers of a task to labelled texts, and their quality.

    Attributes:
        task: the task.
        texts: the texts, or pairs of texts.
        targets: the target of each.
        outcomes: for each the answer or the error; `figures` ignores rows with errors.
        precision: the engine's precision; some answers may have been rechecked in fp32.
        places: the place of each in the data; by default "row 0" and so on.
        seconds: duration of answering; 0 if it was not measured.
        min_score: answers with a lower score count as withheld; `None` for no limit.
    """

    task: Task
    texts: Sequence[Text]
    targets: Sequence[Target]
    outcomes: Sequence[Result | TextError]
    precision: str
    places: Sequence[str] = field(default=())
    seconds: float = 0.0
    min_score: float | None = None

    @classmethod
    def of_logits(
        cls, task: Task, rows: Sequence[LabelledText], logits: Sequence[Array], reads: Sequence[Read], precision: str
    ) -> Evaluation:
        """Evaluate the answers for given logits, such as those of rows that were held out in training.

        Shape:
            logits: for each row [labels]; if the task's kind has a `reading`, [pieces, rows of the head]
        """
        return cls(
            task=task,
            texts=[row.given for row in rows],
            targets=[row.target for row in rows],
            outcomes=answers(task, logits, reads, precision),
            precision=precision,
            places=[row.place for row in rows] if all(row.place for row in rows) else (),
        )

    @cached_property
    def rows(self) -> list[Row]:
        """The answered rows, in the order of the data."""
        return [
            Row(place, text, target, outcome)
            for place, text, target, outcome in self._all_rows()
            if isinstance(outcome, Result)
        ]

    @cached_property
    def errors(self) -> list[tuple[str, TextError]]:
        """The places of the rows that were not answered, with the errors."""
        return [(place, outcome) for place, _, _, outcome in self._all_rows() if isinstance(outcome, TextError)]

    def _all_rows(self) -> Iterable[tuple[str, Text, Target, Result | TextError]]:
        places = self.places or [f"row {number}" for number in range(len(self.texts))]
        return zip(places, self.texts, self.targets, self.outcomes, strict=True)

    @property
    def results(self) -> list[Any]:
        """The answers of the answered rows."""
        return [row.result for row in self.rows]

    @cached_property
    def figures(self) -> Figures:
        """The figures of the kind of answer, over all answered rows."""
        return self._figures(self.rows)

    def _figures(self, rows: Sequence[Row]) -> Figures:
        return self.task.kind.figures([row.target for row in rows], [row.result for row in rows], self.task)

    @property
    def rechecked(self) -> float:
        """Share of the answers that were computed in another precision than `precision`."""
        return sum(result.precision != self.precision for result in self.results) / max(1, len(self.rows))

    @property
    def truncated(self) -> int:
        """Number of texts that are longer than the task reads."""
        return sum(result.truncated for result in self.results)

    @property
    def rows_per_second(self) -> float:
        """Answers per second; 0 if the time was not measured."""
        return len(self.rows) / self.seconds if self.seconds else 0.0

    @cached_property
    def answered(self) -> Answered | None:
        """The rows that remain with `min_score`.

        `None` without it, or if a row may have several answers or a number.
        """
        if self.min_score is None or not self.task.kind.one_answer:
            return None
        rows = [row for row in self.rows if not row.result.abstained]
        measured = self._figures(rows)
        return Answered(len(rows), measured.values[measured.headline] if rows else None)

    @property
    def coverage(self) -> float | None:
        """Share of the rows that remain with `min_score`; `None` if `answered` is."""
        return None if self.answered is None else self.answered.rows / max(1, len(self.rows))

    def _said(self) -> str:
        given = f"{len(self.rows):,} rows" + (f", {len(self.errors):,} errors" if self.errors else "")
        if self.answered is not None:
            given += f", {self.answered.rows:,} answered at min_score {self.min_score:g}"
        return f"task {self.task.name}, {self.precision}, {given}"

    def __repr__(self) -> str:
        measured = ", ".join(f"{figure_name(figure)} {value:.3f}" for figure, value in self.figures.values.items())
        return f"<Evaluation: {self._said()}: {measured}>"

    def _repr_html_(self) -> str:
        """HTML for notebooks: the figures, and a table of the labels."""
        heads, cells = [], []
        for figure, value in self.figures.values.items():
            heads.append(f"<th>{html.escape(figure_name(figure))}</th>")
            cells.append(f"<td>{value:.3f}</td>")
        shown = [f"<p>{html.escape(self._said())}</p>", _table(heads, ["".join(cells)])]
        by_label = self.figures.by_label
        if by_label:
            names = list(next(iter(by_label.values())))
            heads = [f"<th>{html.escape(name)}</th>" for name in ("label", *map(figure_name, names))]
            lines = [
                f"<th><bdi>{html.escape(label)}</bdi></th>" + "".join(f"<td>{_short(one)}</td>" for one in own.values())
                for label, own in list(by_label.items())[:_LABELS_SHOWN]
            ]
            shown.append(_table(heads, lines))
            if len(by_label) > _LABELS_SHOWN:
                shown.append(f"<p>… and {len(by_label) - _LABELS_SHOWN:,} more labels</p>")
        return "".join(shown)


def evaluate(
    engine: Engine, texts: Iterable[Any], labels: Iterable[Any], task: Task | str, min_score: float = 0.0
) -> Evaluation:
    """Measure a task on labelled texts.

    Args:
        engine: the engine that answers.
        texts: texts, or (text, text_pair) pairs if the task takes pairs, as a list, an array or a column.
        labels: for each text the target for the task's kind: a label, a list of labels, or a number.
        task: a task, the name of one of the engine's tasks, or a task file.
        min_score: answers with a lower score count as withheld, 0 to 1. The figures cover every row; `answered` and
            `coverage` cover the remaining rows.

    Raises:
        DataError: the rows are not valid, the task lacks some of their labels, or no row can be answered.
        TaskError: the task does not exist.
    """
    if not isinstance(engine, Engine):
        raise DataError(f"the engine is a {type(engine).__name__}: expected an edgetune.Engine, as Engine('bundle')")
    asked = task if isinstance(task, Task) else engine.find_task(task)
    engine.bundle.check_task(asked)
    rows = rows_for(asked, texts, labels)
    return measure(engine, asked, rows.texts, rows.targets, min_score=min_score or None)


def rows_for(task: Task, texts: Iterable[Any], labels: Iterable[Any]) -> LabelledRows:
    """Check labelled texts from a Python caller for a task.

    Raises:
        DataError: the rows are not valid, are pairs although the task takes single texts or vice versa, or have labels
            that the task does not have.
    """
    rows = labelled_rows(texts, labels, task.kind)
    if rows.pairs != task.pairs:
        came, wanted = ("pairs of texts", "single texts") if rows.pairs else ("single texts", "pairs of texts")
        raise DataError(f"{came} came, and the task '{task.name}' takes {wanted}: pass {wanted}")
    check_labels(task, rows.targets, "the data")
    return rows


def check_labels(task: Task, targets: Sequence[Target], origin: str) -> None:
    """Raise `DataError` if targets contain labels that the task does not have.

    Args:
        task: the task.
        targets: the target of each text.
        origin: where they come from, for the message; a singular noun that fits "has".
    """
    unknown = sorted({label for target in targets for label in task.kind.named(target)} - set(task.labels))
    if unknown:
        raise DataError(
            f"{origin} has labels that the task '{task.name}' does not have: {', '.join(unknown)}; it has "
            f"{', '.join(task.labels)}"
        )


def measure(
    engine: Engine,
    task: Task,
    texts: Sequence[Text],
    targets: Sequence[Target],
    places: Sequence[str] = (),
    min_score: float | None = None,
    most_characters: int = MOST_CHARACTERS,
    progress: Callable[[int], object] = lambda rows: None,
) -> Evaluation:
    """Answer labelled texts that fit a task, and measure the time.

    Args:
        engine, task, texts, targets: see `Evaluation`; at least one text.
        places: the place of each text, for people.
        min_score: see `Evaluation`.
        most_characters: longer texts are errors.
        progress: called with the number of rows that were answered since its last call.

    Raises:
        DataError: no row can be answered, or the task does not support `min_score`.
    """
    least = min_score or 0.0
    check_min_score(least, [task])
    outcomes: list[Result | TextError] = []
    attempt(engine, [(texts[0], task)] * 2)  # open the session for many texts before measuring
    began = time.monotonic()
    for start in range(0, len(texts), _CHUNK_ROWS):
        asked = [(text, task) for text in texts[start : start + _CHUNK_ROWS]]
        outcomes += attempt(engine, asked, least, most_characters)
        progress(len(asked))
    seconds = time.monotonic() - began
    found = Evaluation(task, texts, targets, outcomes, engine.precision, places, seconds, min_score)
    if not found.rows:
        place, error = found.errors[0]
        raise DataError(f"no row was classified; the first: {place}: {error}")
    return found


def _table(heads: Sequence[str], lines: Sequence[str]) -> str:
    body = "".join(f"<tr>{line}</tr>" for line in lines)
    return f"<table><thead><tr>{''.join(heads)}</tr></thead><tbody>{body}</tbody></table>"


def _short(value: float) -> str:
    return f"{value:.3f}" if isinstance(value, float) else f"{value:,}"
