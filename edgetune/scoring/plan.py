"""What a run is: its settings, the parts that it makes, and the digest that says of what."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from importlib.metadata import version
from pathlib import Path
from typing import Any

import pyarrow as pa

from edgetune.scoring.shards import Shard
from edgetune_runtime import files
from edgetune_runtime.engine import Engine
from edgetune_runtime.errors import DataError
from edgetune_runtime.task import Task

ERROR_COLUMN = "edgetune_error"
_VERSIONS_OF = ("edgetune", "onnxruntime", "tokenizers", "pyarrow")
_FORMAT_VERSION = 1


@dataclass(frozen=True)
class Settings:
    """What the answers are made with.

    Attributes:
        bundle: the bundle's folder.
        tasks: tasks of the bundle by name, or task files.
        text_column: the column with the texts.
        all_scores: whether the scores of all labels are written, not of the best alone.
        min_score: abstain where the best label's score is below it.
        most_characters: a longer text is a bad row: it would be split into tokens only to be cut off.
        precision, device: as the engine takes them.
        strict: whether a bad row ends the run. It changes no answer.
    """

    bundle: Path
    tasks: tuple[str, ...]
    text_column: str = "text"
    all_scores: bool = False
    min_score: float = 0.0
    most_characters: int = 100_000
    precision: str | None = None
    device: str = "cpu"
    strict: bool = False

    def absolute(self) -> Settings:
        """The same, wherever the process stands that reads them."""
        tasks = (str(Path(task).absolute()) if Path(task).is_file() else task for task in self.tasks)
        return replace(self, bundle=self.bundle.absolute(), tasks=tuple(tasks))

    def open(self, threads: int) -> tuple[Engine, list[Task]]:
        """The engine and its tasks.

        Raises:
            DataError: no task is named, or one twice.
            EdgetuneError: the bundle or a task cannot be used.
        """
        engine = Engine(self.bundle, self.precision, self.device, threads)
        tasks = [engine.find_task(name) for name in self.tasks]
        names = [task.name for task in tasks]
        if not names or len(set(names)) < len(names):
            raise DataError(f"--task names {', '.join(names) or 'no task'}: expected one or several, each once")
        return engine, tasks


@dataclass(frozen=True)
class Plan:
    """The parts that a run makes.

    Attributes:
        settings: what they are made with.
        versions: each task's name and version (the SHA-256 of its file).
        columns: the input's schema.
        identity: all that every part depends on but its rows; the same for the same answers.
        shards: what each part is made of.
    """

    settings: Settings
    versions: Mapping[str, str]
    columns: pa.Schema
    identity: Mapping[str, Any]
    shards: Sequence[Shard]

    def part(self, index: int) -> str:
        """The file name of a part: its number, and the digest of all that it depends on."""
        shard = self.shards[index]
        rows = [index, shard.path.name, shard.start, shard.stop, shard.first, shard.sha256]
        digest = files.sha256(json.dumps([self.identity, rows], sort_keys=True).encode())
        return f"part-{index:07d}-{digest[:16]}.parquet"


def make_plan(settings: Settings, columns: pa.Schema, shards: Sequence[Shard]) -> Plan:
    """Make the plan of a run.

    Raises:
        DataError: there are no rows, no texts among the columns, or columns that are called as those to be added.
        EdgetuneError: the bundle or a task cannot be used.
    """
    _check_text_column(settings.text_column, columns, shards)
    engine, tasks = settings.open(threads=1)
    output_schema(columns, tasks, settings)
    manifest = engine.bundle.manifest
    graphs = [name for precision in engine.precisions for name in engine.bundle.graph_files(precision)]
    versions = {task.name: task.sha256 for task in tasks}
    identity = {
        "format_version": _FORMAT_VERSION,
        "versions": {name: version(name) for name in _VERSIONS_OF},
        "backbone": {name: manifest.files[name] for name in (*graphs, files.TOKENIZER)},
        "precisions": list(engine.precisions),
        "tasks": list(versions.items()),
        "columns": [[field.name, str(field.type)] for field in columns],
        "text_column": settings.text_column,
        "all_scores": settings.all_scores,
        "min_score": settings.min_score,
        "most_characters": settings.most_characters,
    }
    return Plan(settings, versions, columns, identity, shards)


def output_schema(columns: pa.Schema, tasks: Sequence[Task], settings: Settings) -> pa.Schema:
    """The schema of the parts: the input's columns, those of each task, and the error column.

    Raises:
        DataError: the input has a column of such a name.
    """
    added = []
    for task in tasks:
        scores = pa.struct([(label, pa.float32()) for label in task.labels])
        added.append(pa.field(f"{task.name}_label", pa.string()))
        added.append(pa.field(f"{task.name}_score", pa.float32()))
        if settings.all_scores:
            added.append(pa.field(f"{task.name}_scores", scores))
        added.append(pa.field(f"{task.name}_status", pa.string()))
    added.append(pa.field(ERROR_COLUMN, pa.string()))
    names = [field.name for field in added]
    taken = sorted(set(columns.names) & set(names)) or sorted({name for name in names if names.count(name) > 1})
    if taken:
        raise DataError(
            f"the columns {', '.join(taken)} are to be added, and are there already: call those of the input otherwise"
        )
    return pa.schema([*columns, *added])


def _check_text_column(name: str, columns: pa.Schema, shards: Sequence[Shard]) -> None:
    if not shards:
        raise DataError("the inputs have no rows: expected at least one")
    if name not in columns.names:
        have = ", ".join(columns.names)[:300] or "none"
        raise DataError(f"there is no column '{name}' among {have}: name the one with the texts with --text-column")
    kind = columns.field(name).type
    kind = kind.value_type if pa.types.is_dictionary(kind) else kind
    if not any(is_kind(kind) for is_kind in _TEXT):
        raise DataError(f"the column '{name}' holds {kind}: expected texts; name their column with --text-column")


_TEXT = (
    pa.types.is_string,
    pa.types.is_large_string,
    pa.types.is_string_view,
    pa.types.is_binary,
    pa.types.is_large_binary,
)
