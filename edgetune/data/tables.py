"""Open a file of rows of any format, for labelled texts and for texts to classify."""

from __future__ import annotations

import difflib
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

from edgetune.data import parquet_files
from edgetune.data.records import Record
from edgetune.data.sources import Note, Source
from edgetune.data.text_files import Reading, TextFile, form_of
from edgetune_runtime.errors import DataError


@dataclass(frozen=True)
class Table:
    """An open file of rows.

    Attributes:
        source: the file.
        unit: the unit in which rows are counted: "line" or "row".
        columns: its columns; `None` if each row has its own columns.
        texts: whether each line is a text, in the column "text".
        records: its rows.
    """

    source: Source
    unit: str
    columns: Sequence[str] | None
    records: Iterator[Record]
    texts: bool = False

    def place(self, record: Record) -> str:
        """The place of a row, for errors."""
        return f"{self.source.path}, {self.unit} {record.number}"


@contextmanager
def open_table(
    source: Source, reading: Reading, needed: Mapping[str, str], optional: Sequence[str], note: Note
) -> Iterator[Table]:
    """Open a file of rows.

    Args:
        source: the file.
        reading: what the user says about it.
        needed: required columns → the parameter that names each.
        optional: columns that are read if they exist. Other columns are ignored.
        note: receives messages for the user.

    Raises:
        DataError: it cannot be read, or lacks a column; may also be raised while rows are read.
        MissingPackageError: the file is Parquet and pyarrow is not installed.
    """
    added = dict(source.partitions)
    if source.format == "parquet":
        names, twice, records = parquet_files.read(source.path, [*needed, *optional])
        columns = list(dict.fromkeys([*names, *added]))
        check_columns(source, columns, needed, optional, twice)
        yield Table(source, "row", columns, _with(added, records))
        return
    form = form_of(source, reading, note)
    with TextFile(source.path, form) as file:
        header = None if file.columns is None else list(dict.fromkeys([*file.columns, *added]))
        if header is not None:
            check_columns(source, header, needed, optional, file.repeated)
        yield Table(source, form.unit, header, _with(added, file.read()), form.kind == "text")
        file.tell_doubtful_rows(note)


def columns_of(source: Source, reading: Reading) -> Sequence[str]:
    """The columns of a file, from its header or, without a header, from its first row.

    Raises:
        DataError: it cannot be read.
        MissingPackageError: the file is Parquet and pyarrow is not installed.
    """
    with open_table(source, reading, {}, (), lambda _: None) as table:
        if table.columns is not None:
            return table.columns
        return next((list(record.values) for record in table.records), [])


def check_columns(
    source: Source,
    columns: Sequence[str],
    needed: Mapping[str, str],
    optional: Sequence[str] = (),
    repeated: Collection[str] = (),
) -> None:
    """Raise `DataError` unless a file has all required columns, and no column that is read occurs twice."""
    for name in optional:
        check_once(source, name, repeated)
    for name, parameter in needed.items():
        check_once(source, name, repeated)
        if name not in columns:
            # Without a header, the first row is in its place.
            lost = source.format == "csv" and not set(needed) & set(columns)
            hint = f"; if its first line is a row, put a header above it, such as {','.join(needed)}" if lost else ""
            raise DataError(f"{source.path} has {missing_column(name, columns, parameter)}{hint}")


def check_once(source: Source, name: str, repeated: Collection[str]) -> None:
    """Raise `DataError` if a column that is read occurs more than once."""
    if name in repeated:
        raise DataError(f"{source.path} has the column '{name}' more than once: rename one of them")


def missing_column(name: str, columns: Iterable[str], parameter: str) -> str:
    """The error message for a missing column."""
    known = [str(column) for column in columns]
    close = difflib.get_close_matches(name, known, n=1)
    guess = f"did you mean '{close[0]}'? " if close else ""
    return f"no column '{name}' among {', '.join(known)[:300] or 'none'}: {guess}name it with `{parameter}`"


def _with(added: Mapping[str, str | None], records: Iterator[Record]) -> Iterator[Record]:
    """Add the columns from the file's path to records. Columns of the file itself take precedence."""
    if not added:
        return records
    return (record._replace(values={**added, **record.values}) for record in records)
