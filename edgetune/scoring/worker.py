"""What makes a part: one engine, and a shard after the other."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa

from edgetune.scoring import inputs, parts
from edgetune.scoring.parts import ERROR_COLUMN, Outcome
from edgetune.scoring.plan import Settings, identity, output_schema
from edgetune.scoring.shards import Rows, Shard, changed
from edgetune_runtime.attempts import attempt
from edgetune_runtime.engine import Result
from edgetune_runtime.errors import DataError, EdgetuneError, TextError, in_one_line

MOST_DEATHS = 3
"""Workers that may die at one shard before the run gives up: what kills three will kill the next."""

Update = tuple[int, int | Outcome]
"""The index of a shard, and how many of its rows are scored, or what its part holds once it is there."""


@dataclass(frozen=True)
class Job:
    """What a worker needs to know before it is handed shards; can be sent to another machine.

    Attributes:
        settings: what the answers are made with.
        identity: of the run.
        columns: the input's schema.
        folder: where the parts go.
    """

    settings: Settings
    identity: Mapping[str, Any]
    columns: pa.Schema
    folder: Path


@dataclass(frozen=True)
class Assignment:
    """A shard, and the part to be made of it."""

    index: int
    shard: Shard
    part: str


def bad_row(error: str) -> DataError:
    """The error for a bad row, where that ends the run."""
    return DataError(f"{error}; without --strict the run would go on")


class Worker:
    """Makes parts.

    Args:
        job: what of.

    Raises:
        EdgetuneError: the bundle or a task cannot be used, or is not the one that was planned with.
    """

    def __init__(self, job: Job) -> None:
        self._job = job
        self._reader: inputs.Reader | None = None
        self._engine, self._tasks = job.settings.open()
        self._schema = output_schema(job.columns, self._tasks, job.settings)
        found = identity(job.settings, self._engine, self._tasks, job.columns)
        if other := [f"{key} {found[key]!r:.300}" for key in found if found[key] != job.identity.get(key)]:
            raise EdgetuneError(
                f"a worker has not what the run was planned with ({', '.join(other)}): leave bundle and tasks alone "
                f"while it is under way, see that all machines have the same versions, and run the same command again"
            )

    def make(self, assignment: Assignment, report: Callable[[int], object] = lambda rows: None) -> Outcome:
        """Make a part, unless it is there: another worker may have been at it.

        Args:
            assignment: which.
            report: is told how many of its rows are scored.

        Raises:
            DataError: the input cannot be read or has changed, or has a bad row where that ends the run.
            EdgetuneError: the part cannot be written.
        """
        folder, part, shard = self._job.folder, assignment.part, assignment.shard
        present = parts.read_outcome(folder, part)
        if present is not None:
            return present
        writer = parts.PartWriter(self._schema)
        statuses: dict[str, Counter[str]] = {task.name: Counter() for task in self._tasks}
        done, first_error = 0, ""
        if self._reader is None:
            self._reader = inputs.reader(shard, self._job.columns, self._job.settings.text_column)
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
            done += rows.table.num_rows
            report(done)
        if done != shard.rows:
            raise changed(shard.path)
        outcome = Outcome(part, shard.rows, statuses, first_error)
        writer.write(folder, outcome)
        return outcome

    def _classify(self, rows: Rows) -> tuple[dict[int, str], dict[int, list[Result]]]:
        """Why some rows cannot be classified, and the results of the others, one for each task, by place."""
        settings = self._job.settings
        places = [place for place, text in enumerate(rows.texts) if text is not None]
        pairs = [(rows.texts[place] or "", task) for place in places for task in self._tasks]
        answers = iter(attempt(self._engine, pairs, settings.min_score, settings.most_characters))
        errors, results = dict(rows.problems), {}
        for place in places:
            found = [next(answers) for _ in self._tasks]
            results[place] = [one for one in found if isinstance(one, Result)]
            failed = [one for one in found if isinstance(one, TextError)]
            if failed:  # the row is bad as a whole
                errors[place] = str(failed[0])
                del results[place]
        return errors, results

    def _table(
        self,
        rows: Rows,
        errors: Mapping[int, str],
        results: Mapping[int, Sequence[Result]],
        statuses: Mapping[str, Counter[str]],
    ) -> pa.RecordBatch:
        places = range(rows.table.num_rows)
        added: dict[str, list[Any]] = {}
        for column, task in enumerate(self._tasks):
            found = [results[place][column] if place in results else None for place in places]
            status = ["error" if result is None else result.status for result in found]
            statuses[task.name].update(status)
            added[f"{task.name}_label"] = [result and result.label for result in found]
            added[f"{task.name}_score"] = [result and result.scores[result.best] for result in found]
            added[f"{task.name}_scores"] = [result and result.scores for result in found]
            added[f"{task.name}_status"] = status
        added[ERROR_COLUMN] = [errors.get(place) for place in places]
        arrays = list(rows.table.columns)
        for field in list(self._schema)[len(arrays) :]:
            arrays.append(pa.array(added[field.name], field.type))
        return pa.record_batch(arrays, self._schema)
