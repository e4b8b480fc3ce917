"""The columns that a run adds: the columns of each task, depending on its kind of answer, and the error column."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import pyarrow as pa

from edgetune.scoring.parts import ERROR_COLUMN, STATUS
from edgetune_runtime.errors import DataError
from edgetune_runtime.kinds.kind import Column, Result
from edgetune_runtime.task import Task

_SCORES: Column = "numbers"
_ENTITY = pa.struct(
    [
        ("label", pa.string()),
        ("start", pa.int64()),
        ("end", pa.int64()),
        ("text", pa.string()),
        ("score", pa.float32()),
    ]
)


def _number(task: Task) -> pa.DataType:
    # A number next to the scores of all labels is one of these scores. Any other number has the scale of the training
    # data.
    return pa.float32() if _SCORES in task.kind.columns.values() else pa.float64()


TYPES: Mapping[Column, Callable[[Task], pa.DataType]] = {
    "string": lambda task: pa.string(),
    "strings": lambda task: pa.list_(pa.string()),
    "integer": lambda task: pa.int64(),
    "number": _number,
    _SCORES: lambda task: pa.struct([(label, pa.float32()) for label in task.labels]),
    "entities": lambda task: pa.list_(_ENTITY),
}
"""Type of an answer's field → its type in Parquet."""


def added_columns(tasks: Sequence[Task], all_scores: bool) -> pa.Schema:
    """The columns that a run adds.

    Args:
        tasks: the tasks of the run.
        all_scores: whether to include the scores of all labels.
    """
    added = []
    for task in tasks:
        for name, column in task.kind.columns.items():
            if all_scores or column != _SCORES:
                added.append(pa.field(f"{task.name}_{name}", TYPES[column](task)))
        added.append(pa.field(f"{task.name}_{STATUS}", pa.string()))
    return pa.schema([*added, pa.field(ERROR_COLUMN, pa.string())])


def output_schema(columns: pa.Schema, tasks: Sequence[Task], all_scores: bool) -> pa.Schema:
    """The schema of the parts: the input's columns, and those that the run adds.

    Raises:
        DataError: the input has a column with such a name.
    """
    added = added_columns(tasks, all_scores)
    names = added.names
    taken = sorted(set(columns.names) & set(names)) or sorted({name for name in names if names.count(name) > 1})
    if taken:
        raise DataError(
            f"the inputs have the columns {', '.join(taken)}, which this run would add: rename those of the inputs, or "
            f"the task"
        )
    return pa.schema([*columns, *added])


def values(task: Task, results: Sequence[Result | None]) -> Iterator[tuple[str, list[Any]]]:
    """The columns of a task with their values; null for rows without a result."""
    rows = [None if result is None else task.kind.values(result) for result in results]
    for name in task.kind.columns:
        yield f"{task.name}_{name}", [None if row is None else row[name] for row in rows]
    yield f"{task.name}_{STATUS}", ["error" if result is None else result.status for result in results]
