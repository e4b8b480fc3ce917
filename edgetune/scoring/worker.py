"""What makes a part: one engine, and a shard after the other."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa

from edgetune.scoring import parts
from edgetune.scoring.parts import Outcome
from edgetune.scoring.plan import ERROR_COLUMN, Plan, Settings, output_schema
from edgetune.scoring.shards import Rows, Shard
from edgetune.scoring.sources import format_of
from edgetune_runtime.engine import Result
from edgetune_runtime.errors import DataError, EdgetuneError, TaskError


@dataclass(frozen=True)
class Job:
    """What a worker needs to know before it is handed shards; can be sent to another machine.

    Attributes:
        settings, versions, columns: of the plan.
        folder: where the parts go.
        threads: of the engine.
    """

    settings: Settings
    versions: Mapping[str, str]
    columns: pa.Schema
    folder: Path
    threads: int

    @classmethod
    def of(cls, plan: Plan, folder: Path, threads: int) -> Job:
        """The job of a plan."""
        return cls(plan.settings, plan.versions, plan.columns, folder, threads)


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
        self._engine, self._tasks = job.settings.open(job.threads)
        self._schema = output_schema(job.columns, self._tasks, job.settings)
        for task in self._tasks:
            if task.sha256 != job.versions[task.name]:
                raise TaskError(
                    f"task '{task.name}' was replaced ({job.versions[task.name][:12]}… by {task.sha256[:12]}…) while "
                    f"the run was under way: run the same command again"
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
        batches: list[pa.RecordBatch] = []
        statuses: dict[str, Counter[str]] = {task.name: Counter() for task in self._tasks}
        first_error = ""
        kind = format_of(shard.path)
        for rows in kind.read(shard, self._job.columns, self._job.settings.text_column):
            found, results = self._classify(rows)
            errors = {
                place: f"{shard.path.name}, {kind.unit} {rows.numbers[place]}: {found[place]}"
                for place in sorted(found)
            }
            first_error = first_error or next(iter(errors.values()), "")
            if first_error and self._job.settings.strict:
                raise bad_row(first_error)
            batches.append(self._table(rows, errors, results, statuses))
            report(sum(batch.num_rows for batch in batches))
        outcome = Outcome(part, shard.rows, statuses, first_error)
        parts.write_part(folder, outcome, pa.Table.from_batches(batches, self._schema))
        return outcome

    def _classify(self, rows: Rows) -> tuple[dict[int, str], dict[int, list[Result]]]:
        """Why some rows cannot be classified, and the results of the others, one for each task, by place."""
        most = self._job.settings.most_characters
        errors = dict(rows.problems)
        texts: dict[int, str] = {}
        for place, text in enumerate(rows.texts):
            if text is not None and len(text) > most:
                errors[place] = f"a text of {len(text):,} characters where at most {most:,} were expected"
            elif text is not None:
                texts[place] = text
        try:
            answers = self._answers(list(texts.values()))
            return errors, dict(zip(texts, answers, strict=True))
        except EdgetuneError:  # some text that the tokenizer fails on: it alone is left out
            results = {}
            for place, text in texts.items():
                try:
                    results[place] = self._answers([text])[0]
                except EdgetuneError as error:
                    errors[place] = str(error)
            return errors, results

    def _answers(self, texts: Sequence[str]) -> list[list[Result]]:
        pairs = [(text, task.name) for text in texts for task in self._tasks]
        results = self._engine.classify(pairs, min_score=self._job.settings.min_score)
        width = len(self._tasks)
        return [results[start : start + width] for start in range(0, len(results), width)]

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
