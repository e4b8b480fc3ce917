"""The plan of a run: its settings, its parts, and the digest of everything that determines them."""

from __future__ import annotations

import json
import platform
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import pyarrow as pa
import tokenizers

from edgetune.data.lines import Coding
from edgetune.data.tables import missing_column
from edgetune.data.text_files import TEXT_COLUMN, TEXT_PAIR_COLUMN, Form
from edgetune.scoring.shards import Shard
from edgetune_runtime import files
from edgetune_runtime.attempts import MOST_CHARACTERS
from edgetune_runtime.checks import check_min_score
from edgetune_runtime.engine import Engine
from edgetune_runtime.errors import DataError
from edgetune_runtime.task import Task

_FORMAT_VERSION = 1
_USUAL = (None, Form("json", Coding()), Form("csv", Coding(), ","))


@dataclass(frozen=True)
class Settings:
    """The settings of a run.

    Attributes:
        bundle: the bundle's folder.
        tasks: names of tasks in the bundle, or task files.
        text_column: the column with the texts.
        text_pair_column: the column with the second texts, for tasks that take pairs; `None` means "text_pair".
        all_scores: whether to write the scores of all labels instead of only the best.
        min_score: answers that score below it are withheld; see the kind of each task.
        most_characters: a row with a longer text is bad, because it would be tokenized only to be cut off.
        precision, device: see `Engine`.
        strict: whether a bad row ends the run. It does not change any answer.
    """

    bundle: Path
    tasks: tuple[str, ...]
    text_column: str = TEXT_COLUMN
    text_pair_column: str | None = None
    all_scores: bool = False
    min_score: float = 0.0
    most_characters: int = MOST_CHARACTERS
    precision: str | None = None
    device: str = "cpu"
    strict: bool = False

    def absolute(self) -> Settings:
        """The same settings with absolute paths, for processes with another working directory."""
        tasks = (str(Path(task).absolute()) if Path(task).is_file() else task for task in self.tasks)
        return replace(self, bundle=self.bundle.absolute(), tasks=tuple(tasks))

    def open(self) -> tuple[Engine, list[Task]]:
        """Open the engine, ready to run, and its tasks. It has one thread, because there are several workers.

        Raises:
            DataError: no task is named, or a task is named twice; or `min_score` or `text_pair_column` is given but
                does not apply to the tasks.
            EdgetuneError: the bundle or a task is not valid.
        """
        check_min_score(self.min_score)
        engine = Engine(self.bundle, self.precision, self.device, threads=1)
        tasks = [engine.find_task(name) for name in self.tasks]
        names = [task.name for task in tasks]
        if not names or len(set(names)) < len(names):
            raise DataError(f"`tasks` names {', '.join(names) or 'no task'}: expected one or several, each once")
        check_min_score(self.min_score, tasks)
        if self.text_pair_column is not None and not any(task.pairs for task in tasks):
            raise DataError(
                f"`text_pair_column` names '{self.text_pair_column}', and none of {', '.join(names)} takes pairs of "
                f"texts: leave it out"
            )
        engine.open(1)
        return engine, tasks

    def text_columns(self, tasks: Sequence[Task]) -> dict[str, str]:
        """The columns of the texts and, for pairs, of the second texts → the parameters that name them.

        Raises:
            DataError: both are the same column.
        """
        if not any(task.pairs for task in tasks):
            return {self.text_column: "text_column"}
        second = TEXT_PAIR_COLUMN if self.text_pair_column is None else self.text_pair_column
        if second == self.text_column:
            raise DataError(f"the column '{second}' is named for both texts of a pair: expected one column for each")
        return {self.text_column: "text_column", second: "text_pair_column"}


class Plan:
    """The parts that a run makes.

    Args:
        identity: the run's `identity`.
        shards: the shard for each part.
    """

    def __init__(self, identity: Mapping[str, Any], shards: Sequence[Shard]) -> None:
        self.identity = identity
        self.shards = shards
        self._digest = files.sha256(json.dumps(identity, sort_keys=True).encode())

    def part(self, index: int) -> str:
        """The file name of a part: its number, and the digest of everything that its bytes depend on."""
        shard = self.shards[index]
        made_of = [self._digest, index, shard.name, shard.start, shard.stop, shard.first, shard.sha256]
        # Default values are omitted, so that a run of an earlier version can be continued.
        made_of += [repr(one) for one in (shard.source.partitions or None, shard.form) if one not in _USUAL]
        return f"part-{index:07d}-{files.sha256(json.dumps(made_of).encode())[:16]}.parquet"


def identity(settings: Settings, engine: Engine, tasks: Sequence[Task], columns: pa.Schema) -> dict[str, Any]:
    """Everything that the bytes of all parts depend on, except the rows.

    The run and its workers compute the same value.
    """
    manifest = engine.bundle.manifest
    _, *text_pair = settings.text_columns(tasks)
    # The tasks decide which variants of a graph run; tasks without such parts keep the old value.
    variants = dict.fromkeys(manifest.facts.variant_for(task) for task in tasks)
    graphs = [
        name
        for precision in engine.precisions
        for variant in variants
        for name in engine.bundle.graph_files(precision, variant)
    ]
    return {
        "format_version": _FORMAT_VERSION,
        "versions": {
            "edgetune": version("edgetune"),
            "python": ".".join(platform.python_version_tuple()[:2]),  # some error messages depend on it
            **{package.__name__: package.__version__ for package in (np, onnxruntime, pa, tokenizers)},
        },
        "backbone": {name: manifest.files[name] for name in (*graphs, files.TOKENIZER)},
        "reading": [manifest.facts.max_positions, manifest.facts.mask_token],
        "precisions": list(engine.precisions),
        "device": engine.device,
        "tasks": [[task.name, task.sha256] for task in tasks],
        "columns": files.sha256(columns.serialize().to_pybytes()),
        "text_column": settings.text_column,
        **({"text_pair_column": text_pair[0]} if text_pair else {}),
        "all_scores": settings.all_scores,
        "min_score": settings.min_score,
        "most_characters": settings.most_characters,
    }


def check_columns(text_columns: Mapping[str, str], columns: pa.Schema, shards: Sequence[Shard]) -> None:
    """Check the input before the run starts.

    Args:
        text_columns: columns that must contain texts → the parameters that name them.
        columns: the input's schema.
        shards: the input.

    Raises:
        DataError: there are no rows, or a text column is missing or has another type.
    """
    if not shards:
        raise DataError("the inputs have no rows: expected at least one")
    for name, parameter in text_columns.items():
        if name not in columns.names:
            raise DataError(f"the inputs have {missing_column(name, columns.names, parameter)}")
        kind = columns.field(name).type
        kind = kind.value_type if pa.types.is_dictionary(kind) else kind
        if not any(is_kind(kind) for is_kind in _TEXT):
            raise DataError(f"the column '{name}' holds {kind}: expected texts; name their column with `{parameter}`")


_TEXT = (
    pa.types.is_string,
    pa.types.is_large_string,
    pa.types.is_string_view,
    pa.types.is_binary,
    pa.types.is_large_binary,
    pa.types.is_binary_view,
)
