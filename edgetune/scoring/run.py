"""A run: what is missing is made, and when all is there a manifest says so."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tqdm import tqdm

from edgetune.scoring import parts, sources
from edgetune.scoring.local import Update
from edgetune.scoring.parts import Outcome
from edgetune.scoring.plan import Plan, Settings, make_plan
from edgetune.scoring.worker import Assignment, Job, bad_row
from edgetune_runtime.errors import DataError

SHARD_ROWS = 10_000

MakeParts = Callable[[Job, Sequence[Assignment], int], Iterator[Update]]
"""An engine: makes parts with so many workers, and tells how far it is."""


@dataclass(frozen=True)
class Summary:
    """What a run did.

    Attributes:
        rows, parts: of the whole output.
        rows_made, parts_made: by this run; the others were there.
        statuses: task → status → rows.
        errors: bad rows.
        first_error: what is wrong with the first of them, and where; empty where there is none.
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
    threads: int = 1,
    shard_rows: int = SHARD_ROWS,
    overwrite: bool = False,
) -> Summary:
    """Score files into a folder of parts; what an earlier run has done of it is kept.

    Args:
        settings: what the answers are made with.
        inputs: files of one format, or folders of such.
        folder: where the parts go.
        make_parts: the engine.
        workers: how many work side by side.
        threads: of each.
        shard_rows: most rows of a part. Another number makes other parts.
        overwrite: whether parts of other runs that lie in the folder go.

    Raises:
        DataError: the inputs cannot be used, or the folder holds something else.
        EdgetuneError: the bundle or a task cannot be used, or the engine gave up.
    """
    settings, folder = settings.absolute(), folder.absolute()  # a worker may stand elsewhere
    paths = sources.find_files([path.absolute() for path in inputs])
    with parts.locked(folder):
        size = sum(path.stat().st_size for path in paths if path.exists())
        with _bar("reading", size, "B") as bar:
            columns, shards = sources.scan(paths, shard_rows, bar.update)
        plan = make_plan(settings, columns, shards)
        names = [plan.part(index) for index in range(len(shards))]
        _tidy(folder, names, overwrite)
        there = [parts.read_outcome(folder, name) for name in names]
        outcomes = {index: outcome for index, outcome in enumerate(there) if outcome is not None}
        _check_strict(settings, list(outcomes.values()))
        missing = [Assignment(index, shards[index], name) for index, name in enumerate(names) if index not in outcomes]
        if missing:
            parts.clear_manifest(folder)
            job = Job.of(plan, folder, threads)
            outcomes |= dict(_watched(make_parts(job, missing, workers), plan, outcomes))
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


def _watched(updates: Iterator[Update], plan: Plan, there: dict[int, Outcome]) -> Iterator[tuple[int, Outcome]]:
    """What is finished, with a bar for all rows on stderr."""
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
    """Remove what killed runs left; refuse, or remove where that is wished, what readers would take for output."""
    parts.clear_partial(folder)
    others, foreign = parts.strangers(folder, names)
    if foreign:
        raise DataError(f"{folder} holds {foreign[0]}, which is not edgetune's: name another folder with --out")
    if others and not overwrite:
        raise DataError(
            f"{folder} holds {len(others):,} parts of another run (of other inputs, tasks, settings or versions): name "
            f"another folder with --out, or remove them with --overwrite"
        )
    for name in others:
        (folder / name).unlink()


def _check_strict(settings: Settings, there: Sequence[Outcome]) -> None:
    bad = next((outcome for outcome in there if outcome.first_error), None)
    if settings.strict and bad is not None:
        raise bad_row(bad.first_error)


def _bar(what: str, total: int, unit: str, initial: int = 0) -> tqdm[Any]:
    """A bar for people; a line every half minute where stderr is a file."""
    pause_s = 0.1 if sys.stderr.isatty() else 30.0
    bar: tqdm[Any] = tqdm(
        total=total, initial=initial, desc=what, unit=unit, unit_scale=unit == "B", file=sys.stderr, mininterval=pause_s
    )
    return bar
