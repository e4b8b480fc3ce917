"""Read labelled texts from files of every format, or from a data set on the Hugging Face hub."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import NamedTuple

from edgetune.data import hub, sources
from edgetune.data.conll_files import TAGS_COLUMN, TOKENS_COLUMN
from edgetune.data.question_files import (
    ANSWERS_COLUMN,
    CONTEXT_COLUMN,
    ID_COLUMN,
    QUESTION_COLUMN,
    are_questions,
)
from edgetune.data.records import Record, text_of, unicode_problem, value_of
from edgetune.data.sources import Note, Source
from edgetune.data.tables import columns_of, missing_column, open_table
from edgetune.data.text_files import TEXT_COLUMN, TEXT_PAIR_COLUMN, Reading, repeats_counted
from edgetune_runtime.errors import DataError
from edgetune_runtime.kinds import Kind, Target, kind_seen
from edgetune_runtime.kinds.kind import whole
from edgetune_runtime.kinds.multi_label import MULTI_LABEL, SEPARATOR
from edgetune_runtime.kinds.score import SCORE
from edgetune_runtime.kinds.single_label import SINGLE_LABEL
from edgetune_runtime.kinds.spans import SPANS
from edgetune_runtime.kinds.tokens import TOKENS
from edgetune_runtime.tags import scheme_of, tagged
from edgetune_runtime.text import Text

LABEL_COLUMNS = ("label", "labels", "score", "entities", TAGS_COLUMN, ANSWERS_COLUMN)
"""Default label columns; the first one that exists is used."""

_FLAGS = {"0": False, "0.0": False, "false": False, "1": True, "1.0": True, "true": True}
_LOOKS = {
    MULTI_LABEL.name: "lists",
    SCORE.name: "numbers, not all of them whole",
    TOKENS.name: "entities",
    SPANS.name: "answers",
}


@dataclass(frozen=True)
class LabelledText:
    """A text, or a pair of texts, and its target.

    Attributes:
        text: the text.
        target: a label, several labels (sorted), a number, or entities. Integers and whole floats become labels of
            their digits, booleans become "true" or "false".
        text_pair: the second text, if the row is a pair.
        place: the row's place in the data, for errors.
        id: the row's id, if ids were asked for.
    """

    text: str
    target: Target
    text_pair: str | None = None
    place: str = field(default="", compare=False)
    id: object = field(default=None, compare=False)

    @property
    def given(self) -> Text:
        """The input for a task: the text, or the pair of texts."""
        return self.text if self.text_pair is None else (self.text, self.text_pair)


@dataclass(frozen=True)
class Columns:
    """The column names of labelled data.

    Attributes:
        text: the column with the texts, or with lists of words whose labels are tags.
        labels: the column with the labels; or several columns of 0 and 1, named after their labels. Empty means the
            first of `LABEL_COLUMNS` that exists.
        text_pair: the column with the second texts. `None` means "text_pair", if it exists.
        pairs: whether second texts are read at all; if not, their values are not checked.
        ids: whether ids of rows are read, if there is such a column.

    In data without a column `text`, questions and contexts are read as texts and second texts.
    """

    text: str = TEXT_COLUMN
    labels: tuple[str, ...] = ()
    text_pair: str | None = None
    pairs: bool = True
    ids: bool = False

    @property
    def pair(self) -> str:
        """The column with the second texts, if any."""
        return TEXT_PAIR_COLUMN if self.text_pair is None else self.text_pair

    @property
    def needed(self) -> dict[str, str]:
        """Required columns → the parameter that names each."""
        named = [(self.text, "text"), *((label, "labels") for label in self.labels)]
        if self.text_pair is not None:
            named.append((self.text_pair, "text_pair"))
        return dict(named)

    @property
    def optional(self) -> tuple[str, ...]:
        """Columns that are read if they exist."""
        pair = (self.pair,) if self.pairs and self.pair not in self.needed else ()
        return (*pair, ID_COLUMN) if self.ids else pair

    def found(self, there: Sequence[str]) -> Columns:
        """The same, with the label column and the word column chosen from existing columns."""
        free = [name for name in there if name not in (self.text, self.text_pair)]
        usual = next((name for name in LABEL_COLUMNS if name in free), LABEL_COLUMNS[0])
        labels = self.labels or (usual,)
        if self.text == TEXT_COLUMN and TEXT_COLUMN not in there and are_questions(there):
            second = self.text_pair or (CONTEXT_COLUMN if self.pairs else None)
            return replace(self, text=QUESTION_COLUMN, labels=labels, text_pair=second)
        words = self.text == TEXT_COLUMN and (TEXT_COLUMN not in there or labels == (TAGS_COLUMN,))
        text = TOKENS_COLUMN if words and TOKENS_COLUMN in there and len(labels) == 1 else self.text
        return replace(self, labels=labels, text=text)

    def check(self) -> None:
        """Raise `DataError` if a column is named twice."""
        named = [self.text, *self.labels, *([] if self.text_pair is None else [self.text_pair])]
        twice = next((name for name in named if named.count(name) > 1), None)
        if twice is not None:
            raise DataError(f"the column '{twice}' is named twice: expected one column for each use")


@dataclass(frozen=True)
class Labelled:
    """Labelled texts that were read.

    Attributes:
        rows: at least one.
        kind: what a target is.
        pairs: whether each row is a pair of texts.
    """

    rows: list[LabelledText]
    kind: Kind
    pairs: bool


def say(message: str) -> None:
    """Print a message for the user on stderr."""
    print(message, file=sys.stderr)


def read_labelled(
    name: str,
    columns: Columns = Columns(),
    reading: Reading = Reading(),  # noqa: B008 - it never changes
    note: Note = say,
    kind: Kind | None = None,
) -> Labelled:
    """Read labelled texts.

    Args:
        name: a file, see `sources.FORMATS`; `FILE:SPLIT` for a JSON file with several splits; a folder of files; or
            `NAME[:CONFIG][:SPLIT]` for a data set on the hub or in a folder, with the default split "train".
        columns: the column names. Other columns are ignored.
        reading: what the user says about the files.
        note: receives messages for the user.
        kind: the kind of target; `None` derives it from the labels, and prints a note if it is not one label per text.

    Raises:
        DataError: the data does not exist, has no rows, or a row is not a labelled text; the error names the first.
        MissingPackageError: the package that reads Parquet or data sets is not installed.
    """
    flags = len(columns.labels) > 1
    if flags and kind is not None and kind is not MULTI_LABEL:
        raise DataError(
            f"{len(columns.labels)} label columns came for the kind '{kind.name}': expected one; several are columns "
            f"of 0 and 1, which are of the kind '{MULTI_LABEL.name}'"
        )
    opened = _Opened(name, reading, note)
    if not columns.labels or columns.text == TEXT_COLUMN:
        columns = columns.found(opened.columns())
    columns.check()
    rows: list[_Row] = []
    stopped: DataError | None = None
    try:
        for place, record in opened.records(columns):
            rows.append(_row(place, record, columns))
    except DataError as error:
        if not rows:
            raise
        stopped = error  # an earlier row may be wrong too, and the error should name the first
    if not rows:
        raise DataError(f"{name} has no rows: expected one labelled text in each")
    of_tags: Kind | None = None
    if any(isinstance(row.value, _Tagged) for row in rows):
        if kind is not None and kind is not TOKENS:
            raise DataError(
                f"{name} has a tag for each word, which the kind '{TOKENS.name}' reads, and the kind is '{kind.name}': "
                f"name the column of the labels with `labels`"
            )
        rows, of_tags = _of_tags(name, rows, note), TOKENS
    seen = kind is None and not flags
    found = kind or of_tags or (MULTI_LABEL if flags else kind_seen([row.value for row in rows]))
    if seen and found is not SINGLE_LABEL and stopped is None:
        note(f"{name}: the labels are {_looks(found, rows)}: kind {found.name} (`kind` overrides)")
    labelled = _labelled(rows, columns, found, seen)
    if stopped is not None:
        raise stopped
    return labelled


class _Row(NamedTuple):
    """A row with its label as it is in the data."""

    place: str
    text: str
    text_pair: str | None
    value: object
    id: object = None


@dataclass(frozen=True)
class _Tagged:
    """Words and their tags."""

    words: list[str]
    tags: list[str]


def _of_tags(name: str, rows: Sequence[_Row], note: Note) -> list[_Row]:
    """Convert rows of tagged words to rows of texts with entities."""
    found = []
    for row in rows:
        try:
            if not isinstance(row.value, _Tagged):
                raise ValueError("it has no list of words with tags, and other rows have: expected all rows alike")
            text, entities = tagged(row.value.words, row.value.tags)
        except ValueError as error:
            raise DataError(f"{row.place}: {error}") from error
        found.append(row._replace(text=text, value=entities))
    try:
        scheme = scheme_of(row.value.tags for row in rows if isinstance(row.value, _Tagged))
    except ValueError as error:
        raise DataError(f"{name}: {error}") from error
    for remark in scheme.remarks:
        note(f"{name}: {remark}")
    return found


class _Opened:
    """Opened files, or an opened data set."""

    def __init__(self, name: str, reading: Reading, note: Note) -> None:
        self._name, self._reading, self._note = name, reading, note
        found = sources.named(name, note)
        if found is None and reading != Reading():
            raise DataError(
                f"{name} is a data set, which is read as it says itself: name its files to say how to read them"
            )
        self._data: hub.DataSet | list[Source] = hub.DataSet(name) if found is None else found

    def columns(self) -> Sequence[str]:
        """The columns of the data; for several files those of the first."""
        data = self._data
        return data.columns if isinstance(data, hub.DataSet) else columns_of(data[0], self._reading)

    def records(self, columns: Columns) -> Iterator[tuple[str, Record]]:
        """Each row with its place; a row that cannot be read raises an error."""
        if isinstance(self._data, hub.DataSet):
            # In several columns of 0 and 1, class names such as "no" and "yes" must not replace the numbers.
            rows = self._data.rows(columns.labels[0] if len(columns.labels) == 1 else None)
            yield from ((f"{self._name}, row {number}", Record(number, row)) for number, row in enumerate(rows, 1))
            return
        with repeats_counted(self._note) as once:
            for source in self._data:
                with open_table(source, self._reading, columns.needed, columns.optional, once) as table:
                    for record in table.records:
                        if record.problem is not None:
                            raise DataError(f"{table.place(record)}: {record.problem}")
                        yield table.place(record), record


def _row(place: str, record: Record, columns: Columns) -> _Row:
    for column, parameter in columns.needed.items():
        if column not in record.values:
            raise DataError(f"{place}: {missing_column(column, record.values, parameter)}")
    one, *more = columns.labels
    paired = columns.pair in record.values and columns.pair in (columns.text_pair, *columns.optional)
    try:
        words, tags = value_of(record, columns.text), value_of(record, one)
        if isinstance(words, list) and (isinstance(tags, list) or columns.text == TOKENS_COLUMN) and not more:
            if not words:
                raise ValueError(f"'{columns.text}' is empty: add the words, or take the row out")
            return _Row(place, "", None, _Tagged(_strings(words, columns.text), _strings(tags, one)))
        text = text_of(record, columns.text)
        second = text_of(record, columns.pair) if paired else None
        if second == "":
            raise ValueError(f"'{columns.pair}' is empty: add the second text, or take the row out")
        value = value_of(record, one) if not more else [name for name in columns.labels if _flag(record, name)]
        return _Row(place, text, second, value, _id(record, columns))
    except ValueError as error:
        raise DataError(f"{place}: {error}") from error


def _id(record: Record, columns: Columns) -> object:
    return value_of(record, ID_COLUMN) if columns.ids and ID_COLUMN in record.values else None


def _strings(values: object, column: str) -> list[str]:
    """The strings of a list of words or tags."""
    if not isinstance(values, list):
        raise ValueError(f"'{column}' is {_shown(values)}: expected a list of tags, since there is a list of words")
    for place, value in enumerate(values, 1):
        if not isinstance(value, str) or not value:
            raise ValueError(f"'{column}' has {_shown(value)} at place {place}: expected a string that is not empty")
        if (problem := unicode_problem(value, column)) is not None:
            raise ValueError(problem)
    return values


def _flag(record: Record, column: str) -> bool:
    value = value_of(record, column)
    found = _FLAGS.get((whole(value) or "").strip().lower())
    if found is None:
        raise ValueError(f"'{column}' is {_shown(value)}: expected 0 or 1, since several label columns are named")
    return found


def _labelled(rows: Sequence[_Row], columns: Columns, kind: Kind, seen: bool) -> Labelled:
    """The rows with their targets.

    Args:
        rows: at least one.
        columns: the column names.
        kind: what a target is.
        seen: whether the kind was derived from the labels. Then either all labels must be lists, or none.
    """
    column = columns.labels[0] if len(columns.labels) == 1 else "labels"
    pairs = any(row.text_pair is not None for row in rows)
    labelled: list[LabelledText] = []
    first: object = None
    for row in rows:
        if pairs and row.text_pair is None:
            raise DataError(
                f"{row.place} has no {columns.pair}, other rows have one: add it, or take it out of all rows"
            )
        try:
            if seen and kind is MULTI_LABEL and row.value not in (None, ""):
                first = row.value if first is None else first
                _check_alike(first, row.value, column)
            made = LabelledText(row.text, _target(row.value, kind, column), row.text_pair, row.place, row.id)
            labelled.append(replace(made, target=_checked(made, kind, column)))
        except ValueError as error:
            raise DataError(f"{row.place}: {error}") from error
    return Labelled(labelled, kind, pairs)


def _target(value: object, kind: Kind, column: str) -> Target:
    try:
        target = kind.target(value)
    except ValueError as error:
        if value == "":
            raise ValueError(f"'{column}' is empty: add the label, or take the row out") from error
        raise ValueError(f"'{column}' is {_shown(value)}: {error}") from error
    problems = [unicode_problem(label, column) for label in kind.named(target)]
    if (problem := next((one for one in problems if one is not None), None)) is not None:
        raise ValueError(problem)
    return target


def _checked(row: LabelledText, kind: Kind, column: str) -> Target:
    try:
        return kind.checked(row.target, row.given)
    except ValueError as error:
        raise ValueError(f"'{column}': {error}") from error


def _check_alike(first: object, value: object, column: str) -> None:
    """Raise `ValueError` if only one of two labels is a list."""
    if isinstance(first, list) != isinstance(value, list):
        raise ValueError(
            f"'{column}' is {_shown(value)} (kind {kind_seen([value]).name}), and an earlier row has {_shown(first)} "
            f"(kind {kind_seen([first]).name}): write all of them as lists, or say `kind` {MULTI_LABEL.name}"
        )


def _looks(kind: Kind, rows: Sequence[_Row]) -> str:
    joined = kind is MULTI_LABEL and not any(isinstance(row.value, list) for row in rows)
    return f"joined with '{SEPARATOR}'" if joined else _LOOKS.get(kind.name, kind.title)


def _shown(value: object) -> str:
    return json.dumps(value, default=str)[:60]
