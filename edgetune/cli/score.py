"""`edgetune score`."""

from __future__ import annotations

import time
from dataclasses import asdict, replace
from pathlib import Path
from typing import TYPE_CHECKING

import click

from edgetune.cli.flags import Command, in_flags
from edgetune.cli.options import (
    BUNDLE,
    FILE,
    device_options,
    json_option,
    let_nobody_wait,
    max_characters_option,
    min_score_option,
    note,
    print_json,
    reading_options,
    text_column_option,
    text_pair_column_option,
)
from edgetune_runtime.errors import needs

if TYPE_CHECKING:
    from edgetune.scoring.run import Summary


@click.command(cls=Command)
@click.argument("bundle", type=BUNDLE)
@click.argument("inputs", type=FILE, nargs=-1, required=True, metavar="INPUT...")
@click.option(
    "--task", "tasks", required=True, metavar="NAME[,NAME...]", help="Tasks of the bundle, or task files, in one pass."
)
@click.option("--out", required=True, type=FILE, help="Folder for the parts, which are Parquet files.")
@text_column_option
@text_pair_column_option
@reading_options
@click.option("--all-scores", is_flag=True, help="Write the scores of all labels, not the answer alone.")
@min_score_option
@click.option("--strict", is_flag=True, help="Stop at the first bad row. [default: mark it and go on]")
@max_characters_option
@click.option(
    "--engine",
    type=click.Choice(["local", "ray"]),
    default="local",
    show_default=True,
    help="Where to run: processes of this machine, or a Ray cluster (RAY_ADDRESS; without it, Ray starts here).",
)
@click.option(
    "--workers",
    type=click.IntRange(1),
    help="Number of engines, with one thread each. [default: one per CPU of this machine or of the cluster; on GPUs "
    "one here, or one per GPU of the cluster]",
)
@click.option(
    "--shard-rows",
    type=click.IntRange(1, 1_000_000),
    default=10_000,
    show_default=True,
    help="Most rows of a part. A killed worker has to do one part again.",
)
@click.option("--overwrite", is_flag=True, help="Remove parts of other runs from the folder.")
@device_options
@json_option
def score(
    bundle: Path,
    inputs: tuple[Path, ...],
    tasks: str,
    out: Path,
    text_column: str,
    text_pair_column: str | None,
    encoding: str | None,
    delimiter: str | None,
    quotes: bool,
    all_scores: bool,
    min_score: float | None,
    strict: bool,
    max_characters: int,
    engine: str,
    workers: int | None,
    shard_rows: int,
    overwrite: bool,
    precision: str | None,
    device: str,
    as_json: bool,
) -> None:
    """Classify files of any number of rows: Parquet, CSV or JSON in, Parquet out.

    INPUT is a file, or a folder of files of one format. Text may be packed (.gz, .zst). A folder named lang=de adds a
    column. Each row comes back with its columns and, for each task, with NAME_status and the answer: NAME_label and
    NAME_score (one label), NAME_labels (any number of labels), NAME_score (a number), NAME_entities or NAME_answer.
    Tasks that take pairs read the text and the column text_pair. edgetune_error says what is wrong with a bad row.

    The folder has a part for every 10,000 rows, in their order, and in the end _manifest.json. If a run is interrupted,
    the same command resumes it, and ends with the same bytes. If every row failed, the exit status is 1.

    \b
    Example:
      edgetune score bundle reviews.parquet --task sentiment,topic --out scored
    """
    let_nobody_wait()
    with needs("score"):
        import pyarrow  # noqa: F401
        import tqdm  # noqa: F401
    from edgetune.data.text_files import Reading
    from edgetune.scoring import local
    from edgetune.scoring.plan import Settings
    from edgetune.scoring.run import score as run
    from edgetune_runtime.errors import DataError

    settings = Settings(
        bundle=bundle,
        tasks=tuple(filter(None, tasks.split(","))),
        text_column=text_column,
        text_pair_column=text_pair_column,
        all_scores=all_scores,
        min_score=min_score or 0.0,
        most_characters=max_characters,
        precision=precision,
        device=device,
        strict=strict,
    )
    make_parts = local.make_parts
    if engine == "ray":
        with needs("ray"):
            from edgetune.scoring import on_ray

        make_parts = on_ray.make_parts
    began = time.monotonic()
    summary = run(
        settings,
        inputs,
        out,
        make_parts,
        workers or _workers(engine, device),
        shard_rows,
        overwrite,
        Reading(encoding, delimiter, quotes),
        note,
    )
    seconds = time.monotonic() - began
    summary = replace(summary, first_error=in_flags(summary.first_error))
    if as_json:
        print_json({"out": str(out), **asdict(summary), "seconds": round(seconds, 2)})
    else:
        _show(out, summary, seconds)
    if all(set(statuses) == {"error"} for statuses in summary.statuses.values()):
        raise DataError(f"no row was scored; the first: {summary.first_error}")


def _show(out: Path, summary: Summary, seconds: float) -> None:
    if summary.parts_made < summary.parts:
        there = summary.parts - summary.parts_made
        note(f"{there:,} of {summary.parts:,} parts existed already")
    for task, statuses in summary.statuses.items():
        click.echo(f"{task:<24}" + ", ".join(f"{count:,} {status}" for status, count in statuses.items()))
    click.echo(f"{out}: {summary.rows:,} rows in {summary.parts:,} parts, {seconds:,.1f} s")
    if summary.errors:
        note(f"{summary.errors:,} bad rows, the first: {summary.first_error}")


def _workers(engine: str, device: str) -> int:
    """Default number of workers; 0 lets the cluster decide."""
    from edgetune_runtime.cpus import available_threads
    from edgetune_runtime.session import find_device

    if engine == "ray":
        return 0
    return available_threads() if find_device(device).threads else 1
