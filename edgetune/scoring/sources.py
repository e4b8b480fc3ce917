"""Input files: which there are, and how those of a format are read."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa

from edgetune.scoring import line_files, parquet_files
from edgetune.scoring.shards import Advance, Rows, Shard
from edgetune_runtime.errors import DataError


@dataclass(frozen=True)
class Format:
    """How files of a kind are read.

    Attributes:
        unit: what is counted where a row is named.
        scan: a file's columns, and its shards of so many rows.
        schema: the schema that the rows of all files have, by the columns of each.
        read: the rows of a shard in that schema, with their texts, which are in the column of that name.
    """

    unit: str
    scan: Callable[[Path, int, Advance], tuple[Any, list[Shard]]]
    schema: Callable[[Sequence[tuple[Path, Any]]], pa.Schema]
    read: Callable[[Shard, pa.Schema, str], Iterator[Rows]]


_PARQUET = Format("row", parquet_files.scan, parquet_files.schema, parquet_files.read)
_CSV = Format("line", line_files.scan_csv, line_files.csv_schema, line_files.read_csv)
_JSONL = Format("line", line_files.scan_jsonl, line_files.jsonl_schema, line_files.read_jsonl)

_PACKED = {".gz", ".bz2", ".xz", ".zst", ".zip"}
FORMATS = {".parquet": _PARQUET, ".csv": _CSV, ".jsonl": _JSONL, ".ndjson": _JSONL}


def format_of(path: Path) -> Format:
    """How a file is read.

    Raises:
        DataError: its name ends in none that is known.
    """
    found = FORMATS.get(path.suffix.lower())
    if found is None:
        raise DataError(f"{path} ends in {path.suffix!r}: expected one of {', '.join(FORMATS)}")
    return found


def find_files(inputs: Sequence[Path]) -> list[Path]:
    """The files that are meant: those named, and of a folder all that can be read, in the order of their paths.

    Raises:
        DataError: there is none, or they are of several formats, or one comes twice.
    """
    found: list[Path] = []
    for path in inputs:
        if path.is_dir():
            inside = sorted(_data_in(path))
            if not inside:
                raise DataError(f"{path} has nothing to score: expected files that end in {', '.join(FORMATS)}")
            found += inside
        else:
            found.append(path)
    for path in found:
        if not path.is_file():
            raise DataError(f"{path} cannot be read: there is no such file")
    formats = {id(format_of(path)): path for path in found}
    if len(formats) > 1:
        names = " and ".join(map(str, formats.values()))
        raise DataError(f"the inputs are of several formats ({names}): score them one after the other")
    seen: set[Path] = set()
    for path in found:
        if path.resolve() in seen:
            raise DataError(f"{path} comes twice among the inputs: name each once")
        seen.add(path.resolve())
    return found


def scan(paths: Sequence[Path], shard_rows: int, advance: Advance) -> tuple[pa.Schema, list[Shard]]:
    """The schema of all rows, and the shards of all files, in order.

    Args:
        paths: files of one format.
        shard_rows: most rows of a shard.
        advance: is told of bytes that were looked at.

    Raises:
        DataError: a file cannot be read, or they have not the same columns.
    """
    kind = format_of(paths[0])
    scanned = [(path, *kind.scan(path, shard_rows, advance)) for path in paths]
    schema = kind.schema([(path, columns) for path, columns, _ in scanned])
    return schema, [shard for _, _, shards in scanned for shard in shards]


def _data_in(folder: Path) -> Iterator[Path]:
    """Files of a folder that can be read, links followed; what begins with a dot or an underscore is no data."""
    for parent, folders, names in os.walk(folder, onerror=_unreadable, followlinks=True):
        folders[:] = [name for name in folders if not name.startswith((".", "_"))]
        for path in (Path(parent, name) for name in names if not name.startswith((".", "_"))):
            if path.suffix.lower() in FORMATS:
                yield path
            elif path.suffix.lower() in _PACKED and Path(path.stem).suffix.lower() in FORMATS:
                raise DataError(f"{path} is packed: unpack it, or take it out of the folder")


def _unreadable(error: OSError) -> None:
    raise DataError(f"{error.filename} cannot be looked through ({error.strerror}): change that, or take it out")
