"""Labelled texts: from files of every format, or from a data set of the Hugging Face hub."""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field

from edgetune.data import hub, sources
from edgetune.data.records import Record, text_of, unicode_problem, value_of
from edgetune.data.sources import Note
from edgetune.data.tables import missing_column, open_table
from edgetune.data.text_files import TEXT_COLUMN, Reading, repeats_counted
from edgetune_runtime.errors import DataError

LABEL_COLUMN = "label"
_EXACT_IN_FLOAT = 1 << 53


@dataclass(frozen=True)
class LabelledText:
    """A text and its label.

    Attributes:
        text: the text.
        label: the label; an integer or a whole float is its digits, a boolean "true" or "false".
        place: where the row stands, for errors.
    """

    text: str
    label: str
    place: str = field(default="", compare=False)


def say(message: str) -> None:
    """Tell the user something, on stderr."""
    print(message, file=sys.stderr)


def read_labelled(
    name: str,
    text_column: str = TEXT_COLUMN,
    label_column: str = LABEL_COLUMN,
    reading: Reading = Reading(),  # noqa: B008 - it never changes
    note: Note = say,
) -> list[LabelledText]:
    """Read labelled texts.

    Args:
        name: a file, see `sources.FORMATS`; `FILE:SPLIT` of a JSON file with several; a folder of files; or
            `NAME[:CONFIG][:SPLIT]`, a data set of the hub or a folder that holds one. Its split is "train" unless one
            is named.
        text_column: name of the column with the texts.
        label_column: name of the column with the labels: strings, integers, whole floats or booleans.
        reading: what is known of the files.
        note: receives messages for the user.

    Raises:
        DataError: there is no such data, it has no rows, or one that is no labelled text. Other columns do not matter.
        MissingPackageError: it is Parquet or a data set, and the package that reads it is not installed.
    """
    needed = {text_column: "--text-column", label_column: "--label-column"}
    found = sources.named(name, note)
    if found is None:
        if reading != Reading():
            raise DataError(
                f"{name} is a data set, which is read as it says itself: name its files to say how to read them"
            )
        rows = hub.read(name, label_column)
        return [
            _labelled(Record(place, row), f"{name}, row {place}", needed) for place, row in enumerate(rows, start=1)
        ]
    labelled: list[LabelledText] = []
    with repeats_counted(note) as once:
        for source in found:
            with open_table(source, reading, needed, (), once) as table:
                for record in table.records:
                    place = table.place(record)
                    if record.problem is not None:
                        raise DataError(f"{place}: {record.problem}")
                    labelled.append(_labelled(record, place, needed))
    if not labelled:
        raise DataError(f"{name} has no rows: expected one labelled text in each")
    return labelled


def _labelled(record: Record, place: str, needed: Mapping[str, str]) -> LabelledText:
    for column, option in needed.items():
        if column not in record.values:
            raise DataError(f"{place}: {missing_column(column, record.values, option)}")
    text_column, label_column = needed
    try:
        text, label = text_of(record, text_column), value_of(record, label_column)
        found = label_of(label)
        if label == "":
            raise ValueError(f"'{label_column}' is empty: add the label, or take the row out")
        if found is None:
            shown = json.dumps(label, default=str)[:60]
            raise ValueError(f"'{label_column}' is {shown}: expected a string, an integer or a boolean")
        if (problem := unicode_problem(found, label_column)) is not None:
            raise ValueError(problem)
    except ValueError as error:
        raise DataError(f"{place}: {error}") from error
    return LabelledText(text, found, place)


def label_of(value: object) -> str | None:
    """The label that a value is; `None` if it is none."""
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, float) and value.is_integer() and abs(value) <= _EXACT_IN_FLOAT:
        return str(int(value))
    return str(value) if isinstance(value, str | int) and value != "" else None
