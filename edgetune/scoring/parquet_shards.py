"""Shards of Parquet files."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from functools import lru_cache
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from edgetune.data.parquet_files import opened, values
from edgetune.data.records import CHUNK_ROWS, repeated, unique_names
from edgetune.data.sources import Source
from edgetune.data.tables import check_once
from edgetune.scoring.shards import SHARD_BYTES, Advance, Rows, Shard, changed, make_rows
from edgetune_runtime.errors import DataError

_READ_BYTES = 1 << 20


def scan(
    source: Source, text_columns: Sequence[str], shard_rows: int, advance: Advance
) -> tuple[pa.Schema, list[Shard]]:
    """A file's columns, including those from its path, and its shards.

    Raises:
        DataError: it cannot be read.
    """
    path = source.path
    with opened(path) as file:
        for name in text_columns:
            check_once(source, name, repeated(file.schema_arrow.names))
        schema, rows = _named(file.schema_arrow), file.metadata.num_rows
        groups = [file.metadata.row_group(place) for place in range(file.metadata.num_row_groups)]
    for name, _ in source.partitions:
        if name not in schema.names:
            schema = schema.append(pa.field(name, pa.string()))
    size = sum(group.total_byte_size for group in groups)
    digest = _digest(path, advance)
    if not rows:
        return schema, []
    step = max(1, min(shard_rows, SHARD_BYTES * rows // max(1, size)))
    cuts = [(start, min(start + step, rows)) for start in range(0, rows, step)]
    return schema, [Shard(source, None, start, stop, stop - start, start + 1, digest) for start, stop in cuts]


def schema(found: Sequence[tuple[Path, pa.Schema]]) -> pa.Schema:
    """The common schema of the rows of all files: the columns of every file, in types that preserve each value.

    Raises:
        DataError: the types of a column have no common type without loss.
    """
    first, merged = found[0]
    for path, other in found[1:]:
        try:
            merged = pa.unify_schemas([_plain(merged, other), _plain(other, merged)], promote_options="permissive")
        except pa.ArrowException as error:
            raise _differing(path, first, str(error)) from error
    for path, own in found:
        _check_kept(path, first, own, merged)
    return merged


def _named(schema: pa.Schema) -> pa.Schema:
    """The columns by their unique names."""
    names = unique_names(schema.names)
    return pa.schema([field.remove_metadata().with_name(name) for field, name in zip(schema, names, strict=True)])


def _plain(schema: pa.Schema, other: pa.Schema) -> pa.Schema:
    """The schema with every column nullable, and without dictionary types that the other schema lacks."""
    fields = []
    for field in schema:
        if (
            pa.types.is_dictionary(field.type)
            and field.name in other.names
            and other.field(field.name).type != field.type
        ):
            field = field.with_type(field.type.value_type)
        fields.append(field.with_nullable(True) if field.name not in other.names else field)
    return pa.schema(fields)


def _check_kept(path: Path, first: Path, own: pa.Schema, merged: pa.Schema) -> None:
    """Raise `DataError` if the common type of all files changes a value of a file."""
    for place, field in enumerate(own):
        target = merged.field(field.name).type
        if target == field.type or pa.types.is_null(field.type):
            continue
        if pa.types.is_floating(target) and pa.types.is_floating(field.type):
            continue
        with opened(path) as file:
            if place >= len(file.schema_arrow):  # a partition; its values are text
                continue
            kept = all(_is_kept(batch.column(place), target) for batch in file.iter_batches())
        if not kept:
            raise _differing(path, first, f"'{field.name}' is {field.type} here, and not every value is a {target}")


def _is_kept(column: pa.Array, target: pa.DataType) -> bool:
    try:
        return bool(column.cast(target).cast(column.type).equals(column))
    except pa.ArrowException:
        return False


def _differing(path: Path, first: Path, reason: str) -> DataError:
    return DataError(f"{path} does not go with {first} ({reason}): score them one after the other")


class ParquetReader:
    """Reads the rows of shards.

    Args:
        schema: the common schema of all rows.
        text_columns: the column with the texts and, if pairs are read, the column with the second texts.
    """

    def __init__(self, schema: pa.Schema, text_columns: Sequence[str]) -> None:
        self._schema = schema
        self._text_columns = text_columns

    def close(self) -> None:
        """There is nothing to close."""

    def read(self, shard: Shard) -> Iterator[Rows]:
        """The rows of a shard.

        Raises:
            DataError: the file cannot be read, or has changed since the scan.
        """
        if _known_digest(shard.path, _state(shard.path)) != shard.sha256:
            raise changed(shard.path)
        state = _state(shard.path)
        with opened(shard.path) as file:
            wanted, position = _groups(file.metadata, shard)
            names = unique_names(file.schema_arrow.names)
            for batch in file.iter_batches(CHUNK_ROWS, row_groups=wanted, use_threads=False):
                start, stop = max(shard.start, position), min(shard.stop, position + batch.num_rows)
                if start < stop:
                    columns = dict(zip(names, batch.slice(start - position, stop - start).columns, strict=True))
                    table = self._table(columns, shard, stop - start)
                    texts = [(name, values(table.column(name))) for name in self._text_columns]
                    yield make_rows(table, range(start + 1, stop + 1), texts, {})
                position += batch.num_rows
                if position >= shard.stop:
                    break
        if _state(shard.path) != state:
            raise changed(shard.path)

    def _table(self, columns: dict[str, pa.Array], shard: Shard, rows: int) -> pa.RecordBatch:
        added = dict(shard.source.partitions)
        arrays = []
        for field in self._schema:
            if field.name in columns:
                column = columns[field.name]
                arrays.append(column if column.type == field.type else column.cast(field.type))
            else:
                arrays.append(pa.array([added.get(field.name)] * rows, field.type))
        return pa.RecordBatch.from_arrays(arrays, schema=self._schema)


def _groups(metadata: pq.FileMetaData, shard: Shard) -> tuple[list[int], int]:
    """The row groups that contain a shard, and the first row of the first of them."""
    wanted: list[int] = []
    begin = position = 0
    for group in range(metadata.num_row_groups):
        rows = metadata.row_group(group).num_rows
        if position < shard.stop and position + rows > shard.start:
            if not wanted:
                begin = position
            wanted.append(group)
        position += rows
    return wanted, begin


@lru_cache(maxsize=1024)
def _known_digest(path: Path, state: tuple[int, int]) -> str:
    return _digest(path, lambda number: None)


def _state(path: Path) -> tuple[int, int]:
    """A value that changes when the file changes, computed without reading the file."""
    try:
        found = path.stat()
    except OSError as error:
        raise DataError(f"{path} cannot be read ({error.strerror}): copy it again, or leave it out") from error
    return found.st_size, found.st_mtime_ns


def _digest(path: Path, advance: Advance) -> str:
    digest = hashlib.sha256()
    try:
        with path.open("rb") as file:
            while data := file.read(_READ_BYTES):
                digest.update(data)
                advance(len(data))
    except OSError as error:
        raise DataError(f"{path} cannot be read ({error.strerror}): copy it again, or leave it out") from error
    return digest.hexdigest()
