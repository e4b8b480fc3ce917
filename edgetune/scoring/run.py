"""A run: it makes the missing parts, and writes a manifest as soon as all parts exist."""

from __future__ import annotations

import sys
from collections.abc import Callable, Generator, Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pyarrow as pa
from tqdm import tqdm

from edgetune.data import sources
from edgetune.data.labelled import say
from edgetune.data.sources import Note, Source
from edgetune.data.text_files import Reading
from edgetune.scoring import parts
from edgetune.scoring.columns import added_columns, output_schema
from edgetune.scoring.inputs import scan
from edgetune.scoring.parts import Outcome
from edgetune.scoring.plan import Plan, Settings, check_columns, identity
from edgetune.scoring.worker import Assignment, Job, Update, bad_row
from edgetune.stderr import is_terminal
from edgetune_runtime.errors import DataError

SHARD_ROWS = 10_000

MakeParts = Callable[[Job, Sequence[Assignment], int], Generator[Update, None, None]]
"""Hands shards to a number of workers, and yields their progress."""


@dataclass(frozen=True)
class Summary:
    """The result of a run.

    Attributes:
        rows, parts: numbers for the whole output.
        rows_made, parts_made: numbers for this run; the others already existed.
        statuses: task → status → rows.
        errors: number of bad rows.
        first_error: error and place of the first bad row; empty if there is none.
    """

    rows: int
    parts: int
    rows_made: int
    parts_made: int
    statuses: dict[str, dict[str, int]]
    errors: int
    first_error: str


def score(
    settings: Settings,
    inputs: Sequence[Path],
    folder: Path,
    make_parts: MakeParts,
    workers: int,
    shard_rows: int = SHARD_ROWS,
    overwrite: bool = False,
    reading: Reading = Reading(),  # noqa: B008 - it never changes
    note: Note = say,
) -> Summary:
    """Score files into a folder of parts. Parts from an earlier run are kept.

    Args:
        settings: the settings of the run.
        inputs: files of one format, or folders with such files.
        folder: the output folder.
        make_parts: function that makes the parts with workers.
        workers: number of workers.
        shard_rows: maximum number of rows of a part. Another number results in other parts.
        overwrite: whether to delete parts of other runs in the folder.
        reading: what the user says about the inputs.
        note: receives messages for the user.

    Raises:
        DataError: the inputs are not valid, or the folder contains something else.
        EdgetuneError: the bundle or a task is not valid, or the workers gave up.
    """
    settings, folder = settings.absolute(), folder.absolute()  # a worker may have another working directory
    try:
        found = sources.find(inputs, note)
        _check_apart(folder, [*inputs, *(source.path for source in found)])
        with parts.locked(folder):
            plan, columns = _make_plan(settings, found, shard_rows, reading, note)
            job = Job(settings, plan.identity, columns, folder)
            return _carry_out(plan, job, make_parts, workers, overwrite)
    except OSError as error:
        raise DataError(f"{error.filename or folder}: {error.strerror or error}: see to that, and try again") from error


def _make_plan(
    settings: Settings, found: Sequence[Source], shard_rows: int, reading: Reading, note: Note
) -> tuple[Plan, pa.Schema]:
    """The plan, and the input's columns. The settings are checked before the input is read."""
    engine, tasks = settings.open()
    text_columns = settings.text_columns(tasks)
    found = [replace(source, path=source.path.absolute()) for source in found]
    with _bar("reading", sum(source.path.stat().st_size for source in found), "B") as bar:
        columns, shards = scan(found, reading, list(text_columns), shard_rows, bar.update, note)
    earlier = parts.columns_of_earlier_runs([source.path for source in found])
    replaced = [
        name for name in columns.names if name in earlier & set(added_columns(tasks, settings.all_scores).names)
    ]
    if replaced:
        note(f"columns of an earlier run are replaced: {', '.join(replaced)}")
        columns = pa.schema([field for field in columns if field.name not in replaced])
    check_columns(text_columns, columns, shards)
    if "task" in columns.names:
        note("the column 'task' chooses no task here: every row is scored by every task of `tasks`")
    output_schema(columns, tasks, settings.all_scores)
    return Plan(identity(settings, engine, tasks, columns), shards), columns


def _carry_out(plan: Plan, job: Job, make_parts: MakeParts, workers: int, overwrite: bool) -> Summary:
    """Make the missing parts of a plan, and the manifest."""
    shards, folder = plan.shards, job.folder
    names = [plan.part(index) for index in range(len(shards))]
    _tidy(folder, names, overwrite)
    there = [parts.read_outcome(folder, name) for name in names]
    outcomes = {index: outcome for index, outcome in enumerate(there) if outcome is not None}
    _check_strict(job.settings, list(outcomes.values()))
    missing = [Assignment(index, shards[index], name) for index, name in enumerate(names) if index not in outcomes]
    if missing:
        parts.clear_manifest(folder)
        with closing(make_parts(job, missing, workers)) as updates:
            outcomes |= dict(_watched(updates, plan, outcomes))
    ordered = [outcomes[index] for index in range(len(shards))]
    _tidy(folder, names, overwrite)
    parts.write_manifest(folder, plan.identity, ordered)
    return Summary(
        rows=sum(outcome.rows for outcome in ordered),
        parts=len(ordered),
        rows_made=sum(one.shard.rows for one in missing),
        parts_made=len(missing),
        statuses=parts.total(ordered),
        errors=sum(outcome.errors for outcome in ordered),
        first_error=next((outcome.first_error for outcome in ordered if outcome.first_error), ""),
    )


def _check_apart(folder: Path, inputs: Sequence[Path]) -> None:
    """Raise `DataError` if the output folder contains inputs, or an input folder contains the output."""
    own = folder.resolve()
    for path in inputs:
        other = path.resolve()
        if own.is_relative_to(other) or other.is_relative_to(own):
            raise DataError(
                f"the input {path} and the output {folder} are inside each other: name another folder with `folder`"
            )


def _watched(updates: Iterator[Update], plan: Plan, there: dict[int, Outcome]) -> Iterator[tuple[int, Outcome]]:
    """Yield finished parts, with a progress bar for all rows on stderr."""
    done = sum(outcome.rows for outcome in there.values())
    under_way: dict[int, int] = {}
    with _bar("scoring", sum(shard.rows for shard in plan.shards), "row", done) as bar:
        for index, update in updates:
            rows = update.rows if isinstance(update, Outcome) else update
            bar.update(rows - under_way.get(index, 0))
            under_way[index] = rows
            if isinstance(update, Outcome):
                yield index, update


def _tidy(folder: Path, names: Sequence[str], overwrite: bool) -> None:
    """Remove leftovers of killed runs.

    Reject (or with `overwrite` remove) files that readers would mistake for output.
    """
    parts.clear_partial(folder)
    others, foreign = parts.strangers(folder, names)
    if foreign:
        raise DataError(f"{folder} holds {foreign[0]}, which is not edgetune's: name another folder with `folder`")
    if others and not overwrite:
        raise DataError(
            f"{folder} holds {len(others):,} parts of another run (of other inputs, tasks, settings or versions): name "
            f"another folder with `folder`, or remove them with `overwrite`"
        )
    if others:
        parts.clear_manifest(folder)  # first, because it lists them
    for name in others:
        (folder / name).unlink()


def _check_strict(settings: Settings, there: Sequence[Outcome]) -> None:
    bad = next((outcome for outcome in there if outcome.first_error), None)
    if settings.strict and bad is not None:
        raise bad_row(bad.first_error)


def _bar(what: str, total: int, unit: str, initial: int = 0) -> tqdm[Any]:
    """A progress bar for people; if stderr is a file, a line every half minute."""
    pause_s = 0.1 if is_terminal() else 30.0
    bar: tqdm[Any] = tqdm(
        total=total, initial=initial, desc=what, unit=unit, unit_scale=unit == "B", file=sys.stderr, mininterval=pause_s
    )
    return bar
