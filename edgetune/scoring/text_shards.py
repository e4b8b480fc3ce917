"""Shards of CSV and JSON files.

The columns of a CSV file are text, unchanged. A column of a JSON file has the common type of its values. If the types
differ or are nested, the column is text: strings as they are, other values as JSON.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path

import pyarrow as pa

from edgetune.data.records import Record, chunks, unicode_problem
from edgetune.data.sources import Note, Source
from edgetune.data.tables import check_once
from edgetune.data.text_files import Form, Reading, TextFile, form_of
from edgetune.scoring.shards import MOST_COLUMNS, SHARD_BYTES, Advance, Rows, Shard, changed, make_rows
from edgetune_runtime.errors import DataError
from edgetune_runtime.text import is_unicode

_EXACT_IN_FLOAT = 1 << 53
_INT64 = 1 << 63
_SURROGATE = re.compile("[\ud800-\udfff]")

Kinds = Mapping[str, set[str]]
"""Column → kinds of its values."""


def scan(
    source: Source, reading: Reading, text_columns: Sequence[str], shard_rows: int, advance: Advance, note: Note
) -> tuple[Kinds, list[Shard]]:
    """The columns of a file, and its shards.

    Raises:
        DataError: it cannot be read, or lacks a required header.
    """
    form = form_of(source, reading, note)
    kinds: dict[str, set[str]] = {}

    def noted(records: Iterable[Record]) -> Iterator[Record]:
        for record in records:
            if record.problem is None:
                for name, value in record.values.items():
                    if name not in kinds:
                        if not is_unicode(name):
                            continue  # its rows count as bad
                        kinds[name] = set()
                    kinds[name].add(_kind(value))
                if len(kinds) > MOST_COLUMNS:
                    raise _too_wide(len(kinds), f"{source.path}, {form.unit} {record.number}: ")
            yield record

    with TextFile(source.path, form) as file:
        if file.columns is None:
            records = noted(file.read())
        else:
            for name in text_columns:
                check_once(source, name, file.repeated)
            kinds |= {name: {"string"} for name in file.columns}
            records = file.read()
        shards = list(_cut(source, form, file, records, shard_rows, advance))
        file.tell_doubtful_rows(note)
    for name, _ in source.partitions:
        kinds.setdefault(name, {"string"})
    if not form.seekable:
        advance(source.path.stat().st_size)
    return kinds, shards


def schema(found: Iterable[Kinds]) -> pa.Schema:
    """The schema of files: all columns of any row, in the order of their first occurrence.

    Raises:
        DataError: there are too many columns.
    """
    merged: dict[str, set[str]] = {}
    for columns in found:
        for name, kinds in columns.items():
            merged.setdefault(name, set()).update(kinds)
    if len(merged) > MOST_COLUMNS:
        raise _too_wide(len(merged), "the inputs have ")
    return pa.schema([(name, _type(kinds - {"null"})) for name, kinds in merged.items()])


class TextReader:
    """Reads the rows of shards. A file stays open, because compressed or encoded files can only be read forwards.

    Args:
        schema: the common schema of all rows.
        text_columns: the column with the texts and, if pairs are read, the column with the second texts.
    """

    def __init__(self, schema: pa.Schema, text_columns: Sequence[str]) -> None:
        self._schema = schema
        self._names = frozenset(schema.names)
        self._text_columns = text_columns
        self._open: tuple[Path, Form, TextFile] | None = None

    def close(self) -> None:
        """Close the open file."""
        if self._open is not None:
            self._open[2].lines.close()
            self._open = None

    def read(self, shard: Shard) -> Iterator[Rows]:
        """The rows of a shard.

        Raises:
            DataError: the file cannot be read, or is not the one that was scanned.
        """
        file = self._file(shard)
        file.lines.start(shard.start, shard.first - 1, shard.stop)
        added = dict(shard.source.partitions)
        for chunk in chunks(file.read()):
            try:
                yield self._rows(chunk, added)
            except (pa.ArrowException, OverflowError) as error:  # the value has a kind that did not occur in the scan
                raise changed(shard.path) from error
        if file.lines.sha256.hexdigest() != shard.sha256:
            self.close()
            raise changed(shard.path)

    def _file(self, shard: Shard) -> TextFile:
        if shard.form is None:
            raise TypeError(f"{shard} is not of a text file")
        if self._open is None or self._open[:2] != (shard.path, shard.form) or shard.form.seekable:
            self.close()
            self._open = shard.path, shard.form, TextFile(shard.path, shard.form)
        return self._open[2]

    def _rows(self, chunk: Sequence[Record], added: Mapping[str, str | None]) -> Rows:
        chunk = [self._checked(record) for record in chunk]
        try:
            table = self._table(chunk, added)
        except UnicodeEncodeError:
            chunk = [_cleaned(record) for record in chunk]
            table = self._table(chunk, added)
        problems = {place: record.problem for place, record in enumerate(chunk) if record.problem is not None}
        texts = [(name, [record.values.get(name, added.get(name)) for record in chunk]) for name in self._text_columns]
        return make_rows(table, [record.number for record in chunk], texts, problems)

    def _checked(self, record: Record) -> Record:
        """The record, with problems that concern the whole row: every column is written, so all columns are checked."""
        if record.problem is None:
            if record.repeated:
                return record._replace(problem=f"'{min(record.repeated)}' comes more than once: expected it once")
            if not self._names.issuperset(record.values) and not all(map(is_unicode, record.values)):
                return record._replace(problem="the name of a column has half of a surrogate pair")
        return record

    def _table(self, chunk: Sequence[Record], added: Mapping[str, str | None]) -> pa.RecordBatch:
        columns = []
        for column in self._schema:
            name, absent = column.name, added.get(column.name)
            values = [record.values.get(name, absent) for record in chunk]
            if pa.types.is_string(column.type) and not all(value is None or type(value) is str for value in values):
                values = [value if value is None or type(value) is str else _as_json(value) for value in values]
            columns.append(pa.array(values, column.type))
        return pa.record_batch(columns, self._schema)


def _cut(
    source: Source, form: Form, file: TextFile, records: Iterator[Record], shard_rows: int, advance: Advance
) -> Iterator[Shard]:
    """Cut the remaining rows into shards."""
    lines, ended = file.lines, False
    while not ended:
        start, first, number = lines.position, lines.number + 1, 0
        lines.start()
        while not ended and number < shard_rows and lines.position - start < SHARD_BYTES:
            ended = next(records, None) is None
            number += not ended
        if form.seekable:
            advance(lines.position - start)
        if number:
            yield Shard(source, form, start, lines.position, number, first, lines.sha256.hexdigest())


def _cleaned(record: Record) -> Record:
    """The record. It is bad if a value is not valid Unicode; invalid characters become U+FFFD."""
    values, problem = dict(record.values), record.problem
    for name, value in record.values.items():
        shown = value if isinstance(value, str) else _as_json(value)
        found = unicode_problem(shown, name)
        if found is not None:
            problem = problem or found
            values[name] = _SURROGATE.sub("\ufffd", shown)
    return Record(record.number, values, problem)


def _kind(value: object) -> str:
    """The kind of a JSON value, as far as it matters for a column's type."""
    if value is None:
        return "null"
    if type(value) is int:
        if abs(value) <= _EXACT_IN_FLOAT:
            return "int"
        return "long" if -_INT64 <= value < _INT64 else "nested"
    return {bool: "bool", float: "float", str: "string"}.get(type(value), "nested")


def _type(kinds: set[str]) -> pa.DataType:
    """A column type that preserves all values of these kinds."""
    if kinds == {"bool"}:
        return pa.bool_()
    if kinds and kinds <= {"int", "long"}:
        return pa.int64()
    if kinds and kinds <= {"int", "float"}:
        return pa.float64()
    return pa.string()


def _as_json(value: object) -> str:
    return json.dumps(value, ensure_ascii=False)


def _too_wide(number: int, where: str) -> DataError:
    return DataError(f"{where}{number:,} columns: expected at most {MOST_COLUMNS:,}, with the same names in all rows")
