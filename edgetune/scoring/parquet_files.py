"""Parquet as input."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from functools import lru_cache
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from edgetune.scoring.shards import CHUNK_ROWS, SHARD_BYTES, Advance, Rows, Shard, changed, make_rows
from edgetune_runtime.errors import DataError

_READ_BYTES = 1 << 20


def scan(path: Path, shard_rows: int, advance: Advance) -> tuple[pa.Schema, list[Shard]]:
    """A file's columns, and its shards of so many rows.

    Raises:
        DataError: it cannot be read.
    """
    with _open(path) as file:
        schema, rows = file.schema_arrow, file.metadata.num_rows
        groups = [file.metadata.row_group(place) for place in range(file.metadata.num_row_groups)]
    size = sum(group.total_byte_size for group in groups)
    digest = _digest(path, advance)
    if not rows:
        return schema, []
    step = max(1, min(shard_rows, SHARD_BYTES * rows // max(1, size)))
    cuts = [(start, min(start + step, rows)) for start in range(0, rows, step)]
    return schema, [Shard(path, start, stop, stop - start, start + 1, digest) for start, stop in cuts]


def schema(found: Sequence[tuple[Path, pa.Schema]]) -> pa.Schema:
    """The schema that all files have.

    Raises:
        DataError: they have several, or one column's name twice.
    """
    first, columns = found[0]
    for path, other in found[1:]:
        if not other.equals(columns):
            differing = sorted({str(field) for field in set(columns) ^ set(other)}) or ["their order"]
            raise DataError(
                f"{path} has other columns than {first} ({', '.join(differing)[:300]}): score them one after the other"
            )
    if len(set(columns.names)) < len(columns.names):
        raise DataError(f"{first} has a column's name twice: expected each once")
    return pa.schema([field.remove_metadata() for field in columns])


def read(shard: Shard, schema: pa.Schema, text_column: str) -> Iterator[Rows]:
    """The rows of a shard, with the texts of a column.

    Raises:
        DataError: the file cannot be read, or is not the one that was scanned.
    """
    if _known_digest(shard.path, _state(shard.path)) != shard.sha256:
        raise changed(shard.path)
    state = _state(shard.path)
    position = 0
    with _open(shard.path) as file:
        wanted: list[int] = []
        begin = 0
        for group in range(file.metadata.num_row_groups):
            rows = file.metadata.row_group(group).num_rows
            if position < shard.stop and position + rows > shard.start:
                if not wanted:
                    begin = position
                wanted.append(group)
            position += rows
        position = begin
        try:
            for batch in file.iter_batches(CHUNK_ROWS, row_groups=wanted, use_threads=False):
                start, stop = max(shard.start, position), min(shard.stop, position + batch.num_rows)
                if start < stop:
                    columns = batch.slice(start - position, stop - start).columns
                    table = pa.RecordBatch.from_arrays(columns, schema=schema)
                    yield make_rows(table, range(start + 1, stop + 1), _texts(table.column(text_column)), {})
                position += batch.num_rows
                if position >= shard.stop:
                    break
        except (OSError, ValueError, pa.ArrowException) as error:
            raise _unreadable(shard.path, error) from error
    if _state(shard.path) != state:
        raise changed(shard.path)


def _texts(column: pa.Array) -> list[bytes | None]:
    # As bytes: what a file calls strings need not be UTF-8, and one that is not would take its neighbours with it.
    plain = column.dictionary_decode() if pa.types.is_dictionary(column.type) else column
    return plain.cast(pa.large_binary()).to_pylist()


def _open(path: Path) -> pq.ParquetFile:
    try:
        return pq.ParquetFile(path, memory_map=False, pre_buffer=False, buffer_size=_READ_BYTES)
    except (OSError, ValueError, pa.ArrowException) as error:
        raise _unreadable(path, error) from error


def _unreadable(path: Path, error: Exception) -> DataError:
    return DataError(f"{path} cannot be read as Parquet ({error}): copy it again, or leave it out")


@lru_cache(maxsize=1024)
def _known_digest(path: Path, state: tuple[int, int]) -> str:
    return _digest(path, lambda number: None)


def _state(path: Path) -> tuple[int, int]:
    """What tells, short of reading it, whether a file is still the same."""
    try:
        found = path.stat()
    except OSError as error:
        raise _unreadable(path, error) from error
    return found.st_size, found.st_mtime_ns


def _digest(path: Path, advance: Advance) -> str:
    digest = hashlib.sha256()
    try:
        with path.open("rb") as file:
            while data := file.read(_READ_BYTES):
                digest.update(data)
                advance(len(data))
    except OSError as error:
        raise _unreadable(path, error) from error
    return digest.hexdigest()
