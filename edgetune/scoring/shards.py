"""Shards of the input, and the rows that are read from them."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import pyarrow as pa

from edgetune.data.records import as_text
from edgetune.data.sources import Source
from edgetune.data.text_files import Form
from edgetune_runtime.errors import DataError

SHARD_BYTES = 64_000_000
"""Maximum size in bytes of a shard's input (for Parquet estimated from the mean row), and of a row group of a part."""

MOST_COLUMNS = 2_000

Advance = Callable[[int], object]
"""Called with the number of bytes read."""


@dataclass(frozen=True)
class Shard:
    """A stretch of an input file, which becomes one part of the output.

    Attributes:
        source: the file.
        form: how to read it, if it is a text file.
        start, stop: its range in the file: bytes of a text file's lines as UTF-8, or rows of a Parquet file.
        rows: number of rows.
        first: number of its first line or, if the file has no lines, of its first row; from 1.
        sha256: hash of the bytes from `start` to `stop`; for Parquet, of the whole file.
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
        """The unit in which its rows are counted."""
        return "row" if self.form is None else self.form.unit

    @property
    def name(self) -> str:
        """The file's name, as valid Unicode."""
        return os.fsencode(self.path.name).decode("utf-8", "replace")

    def __str__(self) -> str:
        return f"the {self.rows:,} rows of {self.path} from {self.first:,} on"


@dataclass(frozen=True)
class Rows:
    """Some rows of a shard.

    Attributes:
        table: the input's columns, in the common schema.
        numbers: line or row number of each, from 1.
        texts: the texts to classify; `None` for rows with a problem.
        problems: what is wrong with a row, by its index in `table`.
        text_pairs: the second texts; `None` for rows without one. Empty if no task takes pairs.
        pair_problems: why a row has no second text, by its index. This matters only to tasks that take pairs.
    """

    table: pa.RecordBatch
    numbers: Sequence[int]
    texts: Sequence[str | None]
    problems: Mapping[int, str]
    text_pairs: Sequence[str | None] = ()
    pair_problems: Mapping[int, str] = field(default_factory=dict)

    def pair(self, place: int) -> tuple[str, str] | None:
        """Both texts of a row; `None` if one is missing."""
        text, text_pair = self.texts[place], self.text_pairs[place]
        return None if text is None or text_pair is None else (text, text_pair)


def make_rows(
    table: pa.RecordBatch,
    numbers: Sequence[int],
    columns: Sequence[tuple[str, Sequence[object]]],
    unreadable: Mapping[int, str],
) -> Rows:
    """Make rows with their texts. Rows that could not be read, and values that are not texts, become problems.

    Args:
        table, numbers: see `Rows`.
        columns: the text column with its values and, if pairs are read, the column of the second texts.
        unreadable: what is wrong with whole rows, by their index.
    """
    first, *second = columns
    texts, problems = _texts(*first, unreadable)
    if not second:
        return Rows(table, numbers, texts, problems)
    name, values = second[0]
    text_pairs, pair_problems = _texts(name, values, {})
    for place, text in enumerate(text_pairs):
        if text == "":
            text_pairs[place], pair_problems[place] = None, f"'{name}' is empty: expected the second text of a pair"
    return Rows(table, numbers, texts, problems, text_pairs, pair_problems)


def _texts(
    name: str, values: Sequence[object], unreadable: Mapping[int, str]
) -> tuple[list[str | None], dict[int, str]]:
    """The texts among values, and the problems of other values by their index."""
    texts: list[str | None] = [None] * len(values)
    problems = dict(unreadable)
    for place, value in enumerate(values):
        if place not in problems:
            try:
                texts[place] = as_text(value, name)
            except ValueError as error:
                problems[place] = str(error)
    return texts, problems


def changed(path: Path) -> DataError:
    """The error for an input that changed during the run."""
    return DataError(f"{path} changed while it was scored: leave the inputs alone, and run the same command again")
