"""How good a task is on labelled texts: its answers, what was right, and figures. No PyTorch."""

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
    """A labelled text that was answered.

    Attributes:
        place: where it stands in the data, for people.
        text: the text, or the pair of texts.
        target: what is right.
        result: the answer.
    """

    place: str
    text: Text
    target: Target
    result: Any


class Answered(NamedTuple):
    """What `min_score` leaves.

    Attributes:
        rows: how many rows are answered.
        figure: the headline figure on these; `None` if there are none.
    """

    rows: int
    figure: float | None


@dataclass(frozen=True, eq=False, repr=False)
class Evaluation:
    """The answers of a task for labelled texts, and how good they are.

    Attributes:
        task: the task.
        texts: the texts, or pairs of texts.
        targets: for each what is right.
        outcomes: for each the answer, or why there is none; `figures` leaves such rows out.
        precision: the precision that was asked; answers may have been rechecked in fp32.
        places: for each where it stands in the data; by default "row 0" and so on.
        seconds: how long the answers took; 0 if it was not measured.
        min_score: the score below which an answer counts as not given; `None` if all are given.
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
        """Of answers that logits give, such as those to rows that were held out while the task was made.

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
        """The rows that were answered, in the order of the data."""
        return [
            Row(place, text, target, outcome)
            for place, text, target, outcome in self._all_rows()
            if isinstance(outcome, Result)
        ]

    @cached_property
    def errors(self) -> list[tuple[str, TextError]]:
        """The places of the rows that were not answered, and why."""
        return [(place, outcome) for place, _, _, outcome in self._all_rows() if isinstance(outcome, TextError)]

    def _all_rows(self) -> Iterable[tuple[str, Text, Target, Result | TextError]]:
        places = self.places or [f"row {number}" for number in range(len(self.texts))]
        return zip(places, self.texts, self.targets, self.outcomes, strict=True)

    @property
    def results(self) -> list[Any]:
        """The answers, of the rows that have one."""
        return [row.result for row in self.rows]

    @cached_property
    def figures(self) -> Figures:
        """The figures that go with the kind of answer; every row that was answered counts."""
        return self._figures(self.rows)

    def _figures(self, rows: Sequence[Row]) -> Figures:
        return self.task.kind.figures([row.target for row in rows], [row.result for row in rows], self.task)

    @property
    def rechecked(self) -> float:
        """Share of the answers that another precision than `precision` gave."""
        return sum(result.precision != self.precision for result in self.results) / max(1, len(self.rows))

    @property
    def truncated(self) -> int:
        """Number of texts that are longer than the task reads."""
        return sum(result.truncated for result in self.results)

    @property
    def rows_per_second(self) -> float:
        """Answers per second; 0 if it was not measured."""
        return len(self.rows) / self.seconds if self.seconds else 0.0

    @cached_property
    def answered(self) -> Answered | None:
        """What `min_score` leaves; `None` without one, or if a row may have several answers or a number."""
        if self.min_score is None or not self.task.kind.one_answer:
            return None
        rows = [row for row in self.rows if not row.result.abstained]
        measured = self._figures(rows)
        return Answered(len(rows), measured.values[measured.headline] if rows else None)

    @property
    def coverage(self) -> float | None:
        """Share of the rows that `min_score` leaves; `None` as `answered`."""
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
        """What a notebook shows: the figures, and a table of the labels."""
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
        engine: what answers.
        texts: texts, or (text, text_pair) pairs if the task takes pairs: a list, an array, a column.
        labels: for each what is right, as the task's kind has it: a label, a list of labels, or a number.
        task: a task, the name of one that the engine has, or a task file.
        min_score: an answer whose score is lower counts as not given, 0 to 1. The figures count every row; `answered`
            and `coverage` say what is left.

    Raises:
        DataError: the rows cannot be used, or the task does not have their labels, or no row can be answered.
        TaskError: there is no such task.
    """
    if not isinstance(engine, Engine):
        raise DataError(f"the engine is a {type(engine).__name__}: expected an edgetune.Engine, as Engine('bundle')")
    asked = task if isinstance(task, Task) else engine.find_task(task)
    engine.bundle.check_task(asked)
    rows = rows_for(asked, texts, labels)
    return measure(engine, asked, rows.texts, rows.targets, min_score=min_score or None)


def rows_for(task: Task, texts: Iterable[Any], labels: Iterable[Any]) -> LabelledRows:
    """Labelled texts of Python for a task, checked.

    Raises:
        DataError: the rows cannot be used, or are pairs and the task takes none or the other way round, or have labels
            that the task does not have.
    """
    rows = labelled_rows(texts, labels, task.kind)
    if rows.pairs != task.pairs:
        came, wanted = ("pairs of texts", "single texts") if rows.pairs else ("single texts", "pairs of texts")
        raise DataError(f"{came} came, and the task '{task.name}' takes {wanted}: pass {wanted}")
    check_labels(task, rows.targets, "the data")
    return rows


def check_labels(task: Task, targets: Sequence[Target], origin: str) -> None:
    """Raise `DataError` if targets name labels that the task does not have.

    Args:
        task: the task.
        targets: what is right for each text.
        origin: where they come from, for the message; in the singular or plural that goes with "has".
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
    """Answer labelled texts that are known to fit a task, and time it.

    Args:
        engine, task, texts, targets: as `Evaluation` has them; there is at least one text.
        places: for each text where it stands, for people.
        min_score: see `Evaluation`.
        most_characters: a longer text is an error.
        progress: is called with the number of rows that were answered since it was last called.

    Raises:
        DataError: no row can be answered, or `min_score` means nothing to the task.
    """
    least = min_score or 0.0
    check_min_score(least, [task])
    outcomes: list[Result | TextError] = []
    attempt(engine, [(texts[0], task)] * 2)  # opens the session that many texts use
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
