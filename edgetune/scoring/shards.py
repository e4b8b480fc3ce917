"""What the input is cut into, and what is read of it."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import pyarrow as pa

from edgetune.data.records import as_text
from edgetune.data.sources import Source
from edgetune.data.text_files import Form
from edgetune_runtime.errors import DataError

SHARD_BYTES = 64_000_000
"""Most bytes of a shard's input (of Parquet: as its mean row has them), and of a row group of a part."""

MOST_COLUMNS = 2_000

Advance = Callable[[int], object]
"""Is called with the number of bytes read."""


@dataclass(frozen=True)
class Shard:
    """A stretch of an input file, which becomes one part of the output.

    Attributes:
        source: the file.
        form: how it is read, if it is a text file.
        start, stop: where in it: bytes of a text file's lines as UTF-8, rows of a Parquet file.
        rows: how many there are.
        first: number of its first line, or of its first row if the file has no lines; from 1.
        sha256: of the bytes from `start` to `stop`, or of the whole file if it is Parquet.
    """

    source: Source
    form: Form | None
    start: int
    stop: int
    rows: int
    first: int
    sha256: str

    @property
    def path(self) -> Path:
        """The file's path."""
        return self.source.path

    @property
    def unit(self) -> str:
        """What its rows are counted in."""
        return "row" if self.form is None else self.form.unit

    @property
    def name(self) -> str:
        """The file's name, as it can be written anywhere."""
        return os.fsencode(self.path.name).decode("utf-8", "replace")

    def __str__(self) -> str:
        return f"the {self.rows:,} rows of {self.path} from {self.first:,} on"


@dataclass(frozen=True)
class Rows:
    """Some rows of a shard.

    Attributes:
        table: the input's columns, in the schema that all its rows have.
        numbers: the line or row of each, from 1.
        texts: what is to be classified; `None` where a row has a problem.
        problems: what is wrong with a row, by its place in `table`.
    """

    table: pa.RecordBatch
    numbers: Sequence[int]
    texts: Sequence[str | None]
    problems: Mapping[int, str]


def make_rows(
    table: pa.RecordBatch,
    numbers: Sequence[int],
    text_column: str,
    values: Sequence[object],
    unreadable: Mapping[int, str],
) -> Rows:
    """Rows whose text column holds `values`; those that are no text, or could not be read, have a problem."""
    texts: list[str | None] = [None] * len(values)
    problems = dict(unreadable)
    for place, value in enumerate(values):
        if place not in problems:
            try:
                texts[place] = as_text(value, text_column)
            except ValueError as error:
                problems[place] = str(error)
    return Rows(table, numbers, texts, problems)


def changed(path: Path) -> DataError:
    """Error for an input that changed during the run."""
    return DataError(f"{path} changed while it was scored: leave the inputs alone, and run the same command again")
