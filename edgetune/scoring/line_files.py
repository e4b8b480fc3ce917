"""CSV and JSONL as input, read so that a bad line costs that line only.

The columns of a CSV file are text, as it stands there. A column of JSONL has the type that all its values have; where
they differ, or are nested, it is text: strings as they are, other values as JSON.
"""

from __future__ import annotations

import csv
import hashlib
import json
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import IO, Any

import pyarrow as pa

from edgetune.scoring.shards import CHUNK_ROWS, MOST_COLUMNS, SHARD_BYTES, Advance, Rows, Shard, changed, make_rows
from edgetune_runtime.errors import DataError
from edgetune_runtime.rows import is_unicode, json_row

_BOM = b"\xef\xbb\xbf"
_EXACT_IN_FLOAT = 1 << 53
_INT64 = 1 << 63


class Lines:
    """The lines of an open file, with what has been read of it counted and hashed.

    Attributes:
        position: where the next line begins, in bytes.
        number: lines read so far, counted from the beginning of the file.
        sha256: of the bytes since `start` was last called.
    """

    def __init__(self, path: Path, file: IO[bytes], stop: int | None = None) -> None:
        self._path = path
        self._file = file
        self._stop = stop
        self.position = self.number = 0
        self.start()

    def start(self, position: int | None = None, number: int = 0) -> None:
        """Begin to hash, here or at the position of another line."""
        if position is not None:
            self._file.seek(position)
            self.position, self.number = position, number
        self.sha256 = hashlib.sha256()

    def __iter__(self) -> Iterator[bytes]:
        while self._stop is None or self.position < self._stop:
            line = self._file.readline(SHARD_BYTES)
            if not line:
                return
            if len(line) == SHARD_BYTES:
                raise DataError(
                    f"{self._path}, line {self.number + 1}: more than {SHARD_BYTES:,} bytes: expected one row a line"
                )
            first = self.position == 0
            self.position += len(line)
            self.number += 1
            self.sha256.update(line)
            yield line.removeprefix(_BOM) if first else line


@dataclass(frozen=True)
class _Row:
    """A row as it was read: the number of its first line, its values, and what is wrong with it, if anything is."""

    number: int
    values: Any
    problem: str | None = None


def scan_csv(path: Path, shard_rows: int, advance: Advance) -> tuple[list[str], list[Shard]]:
    """The columns of a CSV file, and its shards of so many rows.

    Raises:
        DataError: it cannot be read, or has no header.
    """
    with _opened(path) as lines:
        header = next(_records(lines), None)
        if header is None:
            raise DataError(f"{path} is empty: expected a header and one row a line")
        names = header.values
        if header.problem is not None:
            raise DataError(f"{path}, line 1: {header.problem}: expected a header, and one row a line")
        if not all(names) or len(set(names)) < len(names) or not is_unicode("".join(names)):
            raise DataError(
                f"{path} has the header {', '.join(map(ascii, names))[:300]}: expected names of columns, each once, in "
                f"UTF-8"
            )
        return names, list(_cut(path, lines, _csv_rows(lines, len(names)), shard_rows, advance))


def csv_schema(found: Sequence[tuple[Path, list[str]]]) -> pa.Schema:
    """The schema of CSV files: text.

    Raises:
        DataError: they have not the same columns.
    """
    first, names = found[0]
    for path, others in found[1:]:
        if others != names:
            raise DataError(
                f"{path} has the columns {', '.join(others)[:300]}, and {first} has {', '.join(names)[:300]}: score "
                f"them one after the other"
            )
    return _limited([(name, pa.string()) for name in names])


def read_csv(shard: Shard, schema: pa.Schema, text_column: str) -> Iterator[Rows]:
    """The rows of a shard of a CSV file, with the texts of a column.

    Raises:
        DataError: the file cannot be read, or is not the one that was scanned.
    """

    def batch(rows: Sequence[_Row]) -> pa.RecordBatch:
        columns = zip(*(row.values for row in rows), strict=True)
        return pa.record_batch([pa.array(values, pa.string()) for values in columns], schema)

    place = schema.get_field_index(text_column)
    return _read(shard, lambda lines: _csv_rows(lines, len(schema)), batch, lambda row: row.values[place])


def scan_jsonl(path: Path, shard_rows: int, advance: Advance) -> tuple[dict[str, set[str]], list[Shard]]:
    """The columns of a JSONL file with the kinds of their values, and its shards of so many rows.

    Raises:
        DataError: it cannot be read.
    """
    kinds: dict[str, set[str]] = {}

    def noted(rows: Iterable[_Row]) -> Iterator[_Row]:
        for row in rows:
            for name, value in row.values.items():
                kinds.setdefault(name, set()).add(_kind(value))
            if len(kinds) > MOST_COLUMNS:
                raise _too_wide(len(kinds), f"{path}, line {row.number}: ")
            yield row

    with _opened(path) as lines:
        return kinds, list(_cut(path, lines, noted(_json_rows(lines)), shard_rows, advance))


def jsonl_schema(found: Sequence[tuple[Path, dict[str, set[str]]]]) -> pa.Schema:
    """The schema of JSONL files: all columns that any row has, in the order in which they first came.

    Raises:
        DataError: there are too many.
    """
    merged: dict[str, set[str]] = {}
    for _, columns in found:
        for name, kinds in columns.items():
            merged.setdefault(name, set()).update(kinds)
    return _limited([(name, _type(kinds - {"null"})) for name, kinds in merged.items()])


def read_jsonl(shard: Shard, schema: pa.Schema, text_column: str) -> Iterator[Rows]:
    """The rows of a shard of a JSONL file, with the texts of a column.

    Raises:
        DataError: the file cannot be read, or is not the one that was scanned.
    """

    def batch(rows: Sequence[_Row]) -> pa.RecordBatch:
        columns = []
        for column in schema:
            values = [row.values.get(column.name) for row in rows]
            if pa.types.is_string(column.type):
                values = [value if isinstance(value, str | None) else _as_json(value) for value in values]
            columns.append(pa.array(values, column.type))
        return pa.record_batch(columns, schema)

    return _read(shard, _json_rows, batch, lambda row: row.values.get(text_column))


@contextmanager
def _opened(path: Path, stop: int | None = None) -> Iterator[Lines]:
    try:
        with path.open("rb") as file:
            yield Lines(path, file, stop)
    except OSError as error:
        raise DataError(f"{path} cannot be read ({error.strerror}): copy it again, or leave it out") from error


def _cut(path: Path, lines: Lines, rows: Iterator[_Row], shard_rows: int, advance: Advance) -> Iterator[Shard]:
    """Shards of the rows that are left."""
    ended = False
    while not ended:
        start, first, number = lines.position, lines.number + 1, 0
        lines.start()
        while not ended and number < shard_rows and lines.position - start < SHARD_BYTES:
            ended = next(rows, None) is None
            number += not ended
        advance(lines.position - start)
        if number:
            yield Shard(path, start, lines.position, number, first, lines.sha256.hexdigest())


def _read(
    shard: Shard,
    read_rows: Callable[[Lines], Iterator[_Row]],
    batch: Callable[[Sequence[_Row]], pa.RecordBatch],
    text: Callable[[_Row], object],
) -> Iterator[Rows]:
    with _opened(shard.path, shard.stop) as lines:
        lines.start(shard.start, shard.first - 1)
        rows = read_rows(lines)
        while chunk := list(islice(rows, CHUNK_ROWS)):
            problems = {place: row.problem for place, row in enumerate(chunk) if row.problem is not None}
            try:
                table = batch(chunk)
            except (pa.ArrowException, OverflowError) as error:  # a value of another kind than all had in the scan
                raise changed(shard.path) from error
            yield make_rows(table, [row.number for row in chunk], [text(row) for row in chunk], problems)
        if lines.sha256.hexdigest() != shard.sha256:
            raise changed(shard.path)


def _csv_rows(lines: Lines, width: int) -> Iterator[_Row]:
    for record in _records(lines):
        number, fields, problem = record.number, record.values, record.problem
        if problem is None and len(fields) != width:
            problem = f"{len(fields)} fields where the header has {width}"
        fields = (fields + [None] * width)[:width]
        if not is_unicode("".join(filter(None, fields))):
            problem = problem or "not UTF-8 text"
            fields = [name and name.encode("utf-8", "surrogateescape").decode("utf-8", "replace") for name in fields]
        yield _Row(number, fields, problem)


def _records(lines: Lines) -> Iterator[_Row]:
    """Records of a CSV file that are not blank."""
    csv.field_size_limit(SHARD_BYTES)
    reader = csv.reader(line.decode("utf-8", "surrogateescape") for line in lines)
    while True:
        number = lines.number + 1
        try:
            record = next(reader, None)
        except csv.Error as error:  # the reader begins anew with the next line
            yield _Row(number, [], f"not sound CSV ({error})")
            continue
        if record is None:
            return
        if record:
            yield _Row(number, record)


def _json_rows(lines: Lines) -> Iterator[_Row]:
    for line in lines:
        if not line.strip():
            continue
        try:
            record = json_row(line)
        except ValueError as error:
            yield _Row(lines.number, {}, f"not a line of JSON ({error})")
            continue
        if isinstance(record, dict):
            yield _Row(lines.number, record)
        else:
            yield _Row(lines.number, {}, f"{type(record).__name__} where a JSON object was expected")


def _kind(value: object) -> str:
    """What a JSON value is, as far as a column's type depends on it."""
    if value is None:
        return "null"
    if type(value) is int:
        if abs(value) <= _EXACT_IN_FLOAT:
            return "int"
        return "long" if -_INT64 <= value < _INT64 else "nested"
    return {bool: "bool", float: "float", str: "string"}.get(type(value), "nested")


def _type(kinds: set[str]) -> pa.DataType:
    """The type of a column whose values are of these kinds: one that keeps each value as it is."""
    if kinds == {"bool"}:
        return pa.bool_()
    if kinds and kinds <= {"int", "long"}:
        return pa.int64()
    if kinds and kinds <= {"int", "float"}:
        return pa.float64()
    return pa.string()


def _as_json(value: object) -> str:
    return json.dumps(value, ensure_ascii=False)


def _limited(columns: list[tuple[str, pa.DataType]]) -> pa.Schema:
    if len(columns) > MOST_COLUMNS:
        raise _too_wide(len(columns), "the inputs have ")
    return pa.schema(columns)


def _too_wide(number: int, where: str) -> DataError:
    return DataError(f"{where}{number:,} columns: expected at most {MOST_COLUMNS:,}, with the same names in all rows")
