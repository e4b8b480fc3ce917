"""Parquet, read by pyarrow, which an extra brings."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from edgetune.data.records import Record, unique_names
from edgetune_runtime.errors import DataError, MissingPackageError

if TYPE_CHECKING:
    import pyarrow as pa
    import pyarrow.parquet as pq

_READ_BYTES = 1 << 20
_BATCH_ROWS = 1024


@contextmanager
def opened(path: Path) -> Iterator[pq.ParquetFile]:
    """Open a Parquet file.

    Raises:
        DataError: it cannot be read; also where it is read in the `with` block.
        MissingPackageError: pyarrow is not installed.
    """
    try:
        import pyarrow as pa
        import pyarrow.parquet as pq
    except ImportError as error:
        raise MissingPackageError("pyarrow", "score") from error
    try:
        with pq.ParquetFile(path, memory_map=False, pre_buffer=False, buffer_size=_READ_BYTES) as file:
            yield file
    except (OSError, ValueError, pa.ArrowException) as error:
        raise DataError(f"{path} cannot be read as Parquet ({error}): copy it again, or leave it out") from error


def read(path: Path, wanted: Sequence[str]) -> tuple[list[str], Iterator[Record]]:
    """The names of a file's columns, and its rows with those that are wanted.

    Raises:
        DataError: it cannot be read.
        MissingPackageError: pyarrow is not installed.
    """
    with opened(path) as file:
        names = unique_names(file.schema_arrow.names)
    return names, _records(path, [name for name in wanted if name in names])


def _records(path: Path, columns: list[str]) -> Iterator[Record]:
    number = 0
    with opened(path) as file:
        for batch in file.iter_batches(_BATCH_ROWS, columns=columns):
            found = {name: values(batch.column(name)) for name in columns}
            for place in range(batch.num_rows):
                number += 1
                yield Record(number, {name: column[place] for name, column in found.items()})


def values(column: pa.Array) -> list[Any]:
    """The values of a column; strings that are not UTF-8 have halves of surrogate pairs in place of their bytes."""
    import pyarrow as pa

    plain = column.dictionary_decode() if pa.types.is_dictionary(column.type) else column
    if any(is_kind(plain.type) for is_kind in (pa.types.is_string, pa.types.is_large_string, pa.types.is_string_view)):
        # As bytes: what a file calls strings need not be UTF-8, and one that is not would take its neighbours with it.
        found = plain.cast(pa.large_binary()).to_pylist()
        return [value if value is None else value.decode("utf-8", "surrogateescape") for value in found]
    return plain.to_pylist()
