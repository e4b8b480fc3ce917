"""Make parts with one engine, one shard after the other."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa

from edgetune.scoring import columns, inputs, parts
from edgetune.scoring.parts import ERROR_COLUMN, STATUS, Outcome
from edgetune.scoring.plan import Settings, identity
from edgetune.scoring.shards import Rows, Shard, changed
from edgetune_runtime.attempts import attempt
from edgetune_runtime.engine import Result
from edgetune_runtime.errors import DataError, EdgetuneError, TextError, in_one_line
from edgetune_runtime.task import Task
from edgetune_runtime.text import Text

MOST_DEATHS = 3
"""The run gives up after this many workers died at the same shard, because the next one would die too."""

Update = tuple[int, int | Outcome]
"""The index of a shard, and either the number of rows scored so far or the outcome of the finished part."""


@dataclass(frozen=True)
class Job:
    """What a worker needs to know before it gets shards. It can be sent to another machine.

    Attributes:
        settings: the settings of the run.
        identity: the identity of the run.
        columns: the input's schema.
        folder: the output folder.
    """

    settings: Settings
    identity: Mapping[str, Any]
    columns: pa.Schema
    folder: Path


@dataclass(frozen=True)
class Assignment:
    """A shard, and the part to make from it."""

    index: int
    shard: Shard
    part: str


def bad_row(error: str) -> DataError:
    """The error for a bad row, if bad rows end the run."""
    return DataError(f"{error}; without `strict` the run would go on")


class Worker:
    """Makes parts.

    Args:
        job: the job.

    Raises:
        EdgetuneError: the bundle or a task is not valid, or differs from the plan.
    """

    def __init__(self, job: Job) -> None:
        self._job = job
        self._reader: inputs.Reader | None = None
        self._engine, self._tasks = job.settings.open()
        self._text_columns = list(job.settings.text_columns(self._tasks))
        self._schema = columns.output_schema(job.columns, self._tasks, job.settings.all_scores)
        found = identity(job.settings, self._engine, self._tasks, job.columns)
        if other := [f"{key} {found[key]!r:.300}" for key in found if found[key] != job.identity.get(key)]:
            raise EdgetuneError(
                f"a worker has not what the run was planned with ({', '.join(other)}): leave bundle and tasks alone "
                f"while it is under way, see that all machines have the same versions, and run the same command again"
            )

    def make(self, assignment: Assignment, report: Callable[[int], object] = lambda rows: None) -> Outcome:
        """Make a part, unless another worker has already made it.

        Args:
            assignment: the shard and its part.
            report: called with the number of its rows that are scored.

        Raises:
            DataError: the input cannot be read or has changed, or has a bad row and bad rows end the run.
            EdgetuneError: the part cannot be written.
        """
        folder, part, shard = self._job.folder, assignment.part, assignment.shard
        present = parts.read_outcome(folder, part)
        if present is not None:
            return present
        writer = parts.PartWriter(self._schema)
        statuses: dict[str, Counter[str]] = {task.name: Counter() for task in self._tasks}
        done, bad, first_error = 0, 0, ""
        if self._reader is None:
            self._reader = inputs.reader(shard, self._job.columns, self._text_columns)
        for rows in self._reader.read(shard):
            found, results = self._classify(rows)
            errors = {
                place: in_one_line(f"{shard.name}, {shard.unit} {rows.numbers[place]}: {found[place]}")
                for place in sorted(found)
            }
            first_error = first_error or next(iter(errors.values()), "")
            if first_error and self._job.settings.strict:
                raise bad_row(first_error)
            writer.add(self._table(rows, errors, results, statuses))
            done, bad = done + rows.table.num_rows, bad + len(errors)
            report(done)
        if done != shard.rows:
            raise changed(shard.path)
        outcome = Outcome(part, shard.rows, statuses, first_error, bad)
        writer.write(folder, outcome)
        return outcome

    def _classify(self, rows: Rows) -> tuple[dict[int, str], dict[str, list[Result | None]]]:
        """The problems of bad rows by index, and each task's results, with `None` for rows that are bad for the task.

        One call answers all tasks for all rows, so that tasks with the same parts share passes.
        """
        settings = self._job.settings
        asked: list[tuple[int, Task, Text]] = []
        errors = dict(rows.problems)
        for place, text in enumerate(rows.texts):
            for task in self._tasks if text is not None else ():
                given = rows.pair(place) if task.pairs else text
                if given is None:
                    errors.setdefault(place, f"{rows.pair_problems[place]}, since task '{task.name}' takes pairs")
                else:
                    asked.append((place, task, given))
        answers = attempt(
            self._engine, [(text, task) for _, task, text in asked], settings.min_score, settings.most_characters
        )
        results: dict[str, list[Result | None]] = {task.name: [None] * len(rows.texts) for task in self._tasks}
        for (place, task, _), answer in zip(asked, answers, strict=True):
            if isinstance(answer, TextError):
                errors.setdefault(place, str(answer))
            else:
                results[task.name][place] = answer
        return errors, results

    def _table(
        self,
        rows: Rows,
        errors: Mapping[int, str],
        results: Mapping[str, Sequence[Result | None]],
        statuses: Mapping[str, Counter[str]],
    ) -> pa.RecordBatch:
        added: dict[str, list[Any]] = {}
        for task in self._tasks:
            added |= columns.values(task, results[task.name])
            statuses[task.name].update(added[f"{task.name}_{STATUS}"])
        added[ERROR_COLUMN] = [errors.get(place) for place in range(rows.table.num_rows)]
        arrays = list(rows.table.columns)
        for field in list(self._schema)[len(arrays) :]:
            arrays.append(pa.array(added[field.name], field.type))
        return pa.record_batch(arrays, self._schema)
