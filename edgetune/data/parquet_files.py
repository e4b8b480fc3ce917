"""Parquet, read by pyarrow, which is in an extra."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from edgetune.data.records import CHUNK_ROWS, Record, repeated, unique_names
from edgetune_runtime.errors import DataError, MissingPackageError

if TYPE_CHECKING:
    import pyarrow as pa
    import pyarrow.parquet as pq

_READ_BYTES = 1 << 20


@contextmanager
def opened(path: Path) -> Iterator[pq.ParquetFile]:
    """Open a Parquet file.

    Raises:
        DataError: it cannot be read; also for errors inside the `with` block.
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


def read(path: Path, wanted: Sequence[str]) -> tuple[list[str], frozenset[str], Iterator[Record]]:
    """The names of a file's columns, the duplicate names, and the rows with the wanted columns.

    Raises:
        DataError: it cannot be read.
        MissingPackageError: pyarrow is not installed.
    """
    with opened(path) as file:
        found = file.schema_arrow.names
    names = unique_names(found)
    return names, repeated(found), _records(path, names, set(wanted))


def _records(path: Path, names: Sequence[str], wanted: set[str]) -> Iterator[Record]:
    number = 0
    with opened(path) as file:
        found = file.schema_arrow.names
        # Only columns with unique names can be read by name.
        some = None if repeated(found) or "" in found else [name for name in names if name in wanted]
        for batch in file.iter_batches(CHUNK_ROWS, columns=some):
            columns = zip(names if some is None else some, batch.columns, strict=True)
            read = {name: values(column) for name, column in columns if name in wanted}
            for place in range(batch.num_rows):
                number += 1
                yield Record(number, {name: column[place] for name, column in read.items()})


def values(column: pa.Array) -> list[Any]:
    """The values of a column.

    In strings that are not UTF-8, the invalid bytes become lone surrogates. Values without a Python type become text.
    """
    import pyarrow as pa

    plain = column.dictionary_decode() if pa.types.is_dictionary(column.type) else column
    try:
        return plain.to_pylist()
    except (
        UnicodeDecodeError
    ):  # strings in a file may not be valid UTF-8, and an invalid one must not affect other rows
        listed = pa.types.is_list(plain.type) or pa.types.is_large_list(plain.type)
        found = plain.cast(pa.large_list(pa.large_binary()) if listed else pa.large_binary()).to_pylist()
        return [_decoded(value) for value in found]
    except (OverflowError, ValueError):  # Python dates end with the year 9999
        return plain.cast(pa.string()).to_pylist()


def _decoded(value: Any) -> Any:
    """Decode bytes, or a list of them, to text."""
    if isinstance(value, list):
        return [_decoded(one) for one in value]
    return value if value is None else value.decode("utf-8", "surrogateescape")
