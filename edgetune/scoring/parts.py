"""The output folder of a run: complete parts, and a manifest as soon as all parts exist."""

from __future__ import annotations

import hashlib
import json
import re
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from edgetune.scoring.shards import SHARD_BYTES
from edgetune_runtime import files, strict
from edgetune_runtime.errors import DataError
from edgetune_runtime.kinds import KINDS

MANIFEST = "_manifest.json"
"""Readers of Parquet folders (Spark, pyarrow, DuckDB) ignore names that begin with an underscore."""

ERROR_COLUMN = "edgetune_error"
"""The column with the errors of bad rows. The name is specific to edgetune, so an input column with this name comes
from an earlier run."""

STATUS = "status"
"""Suffix of the column TASK_status, which contains the status of a row."""

_ENDINGS = frozenset({STATUS}.union(*(kind.columns for kind in KINDS.values())))
_LOCK = ".lock"
_PART = re.compile(r"part-\d{7}-[0-9a-f]{16}\.parquet")
_OUTCOME = b"edgetune"
_COMPRESSION = "zstd"


@dataclass(frozen=True)
class Outcome:
    """The contents of a part.

    Attributes:
        part: its file name.
        rows: number of rows.
        statuses: task → status → number of rows.
        first_error: error and place of the first bad row; empty if there is none.
        errors: number of bad rows. A row may be bad for only one task, for example if the second text is missing.
    """

    part: str
    rows: int
    statuses: Mapping[str, Mapping[str, int]]
    first_error: str = ""
    errors: int = 0


class PartWriter:
    """Collects a part in memory, compressed as it will be written.

    Args:
        schema: the schema of its rows.
    """

    def __init__(self, schema: pa.Schema) -> None:
        self._schema = schema
        self._buffer = pa.BufferOutputStream()
        self._writer = pq.ParquetWriter(self._buffer, schema, compression=_COMPRESSION)
        self._batches: list[pa.RecordBatch] = []
        self._bytes = 0

    def add(self, batch: pa.RecordBatch) -> None:
        """Append rows."""
        self._batches.append(batch)
        self._bytes += batch.nbytes
        if self._bytes > SHARD_BYTES:
            self._flush()

    def write(self, folder: Path, outcome: Outcome) -> None:
        """Write the part atomically. When this returns, the part survives a power cut.

        Raises:
            EdgetuneError: it cannot be written.
        """
        self._flush()
        record = [outcome.rows, outcome.statuses, outcome.first_error, outcome.errors]
        self._writer.add_key_value_metadata({_OUTCOME: json.dumps(record, sort_keys=True).encode()})
        self._writer.close()
        files.write_atomic(folder / outcome.part, self._buffer.getvalue().to_pybytes())

    def _flush(self) -> None:
        if self._batches:
            table = pa.Table.from_batches(self._batches, self._schema)
            self._writer.write_table(table, row_group_size=len(table))
        self._batches, self._bytes = [], 0


def read_outcome(folder: Path, part: str) -> Outcome | None:
    """The outcome that a part records; `None` if the part does not exist or was not written by edgetune."""
    try:
        metadata = pq.read_metadata(folder / part).metadata or {}
        rows, statuses, first_error, *errors = strict.json_value(metadata[_OUTCOME])
        # edgetune 0.1 wrote three fields, and a row was bad for all tasks.
        (bad,) = errors or [max((counts.get("error", 0) for counts in statuses.values()), default=0)]
    except (OSError, KeyError, ValueError, TypeError, AttributeError):  # pyarrow's errors are subclasses
        return None
    return Outcome(part, rows, statuses, first_error, bad)


def columns_of_earlier_runs(paths: Sequence[Path]) -> set[str]:
    """The columns that an earlier run added to files, if all of them are its parts, and the error column."""
    found = [_added_to(path) for path in paths]
    return set.intersection(*found) | {ERROR_COLUMN}


def _added_to(path: Path) -> set[str]:
    outcome = read_outcome(path.parent, path.name)
    tasks = outcome.statuses if outcome else ()
    return {f"{task}_{ending}" for task in tasks for ending in _ENDINGS}


def strangers(folder: Path, planned: Sequence[str]) -> tuple[list[str], list[str]]:
    """Parts of other runs in a folder, and other Parquet files."""
    found = {path.name for path in folder.glob("*.parquet")} - set(planned)
    parts = sorted(name for name in found if _PART.fullmatch(name))
    return parts, sorted(found - set(parts))


def clear_partial(folder: Path) -> None:
    """Remove incomplete files of a killed run."""
    for pattern in (".part-*.partial", f".{MANIFEST}.*.partial"):
        for path in folder.glob(pattern):
            path.unlink(missing_ok=True)


def clear_manifest(folder: Path) -> None:
    """Remove the manifest, which states that all parts exist."""
    (folder / MANIFEST).unlink(missing_ok=True)
    files.sync_folder(folder)


def write_manifest(folder: Path, identity: Mapping[str, Any], outcomes: Sequence[Outcome]) -> None:
    """Write the manifest, which states that all parts exist and lists them.

    Raises:
        EdgetuneError: it cannot be written.
    """
    record = {
        **identity,
        "rows": sum(outcome.rows for outcome in outcomes),
        "statuses": total(outcomes),
        "parts": [
            {"file": outcome.part, "rows": outcome.rows, "sha256": _digest(folder / outcome.part)}
            for outcome in outcomes
        ],
    }
    files.write_atomic(folder / MANIFEST, (json.dumps(record, indent=1, ensure_ascii=False) + "\n").encode())


def total(outcomes: Sequence[Outcome]) -> dict[str, dict[str, int]]:
    """Task → status → number of rows, over all parts."""
    counts: dict[str, Counter[str]] = {}
    for outcome in outcomes:
        for task, statuses in outcome.statuses.items():
            counts.setdefault(task, Counter()).update(statuses)
    return {task: dict(sorted(statuses.items())) for task, statuses in sorted(counts.items())}


@contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Lock a folder, and create it if necessary. The lock of a killed run has no effect.

    Raises:
        DataError: another run is using the folder, or it cannot be created.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        file = (folder / _LOCK).open("a")
    except OSError as error:
        raise DataError(
            f"{folder} cannot be written to ({error.strerror}): name another folder with `folder`"
        ) from error
    with file:
        if not files.try_lock(file.fileno()):
            raise DataError(f"another run is writing to {folder}: wait for it, or name another folder with `folder`")
        yield


def _digest(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
