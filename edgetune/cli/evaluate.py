"""`edgetune evaluate`"""

from __future__ import annotations

import sys
import time
from pathlib import Path

import click

from edgetune.cli.options import FILE, column_options, engine_options, find_task, json_option, note, print_json

_CHUNK_ROWS = 256


@click.command()
@click.argument("bundle", type=FILE)
@click.option("--task", required=True, help="A task of the bundle, or a task file.")
@click.option("--data", required=True, type=FILE, help="Labelled texts: .jsonl or .csv.")
@engine_options
@column_options
@json_option
def evaluate(
    bundle: Path,
    task: str,
    data: Path,
    precision: str | None,
    device: str,
    threads: int | None,
    text_column: str,
    label_column: str,
    as_json: bool,
) -> None:
    """Measure a task on labelled texts: accuracy, macro-F1, confusion table, rows per second.

    \b
    Example:
      edgetune evaluate bundle --task sentiment --data test.jsonl --precision int8
    """
    from edgetune_runtime.engine import Engine, Result
    from edgetune_runtime.errors import DataError
    from edgetune_runtime.metrics import quality
    from edgetune_runtime.rows import read_labelled

    rows = read_labelled(data, text_column, label_column)
    with Engine(bundle, precision, device, threads) as engine:
        loaded = find_task(engine, task)
        unknown = sorted({row.label for row in rows} - set(loaded.labels))
        if unknown:
            raise DataError(
                f"{data} has labels that the task '{loaded.name}' does not: {', '.join(unknown)}; it has "
                f"{', '.join(loaded.labels)}"
            )
        results: list[Result] = []
        engine.classify([rows[0].text] * 2, loaded.name)  # opens the session that many texts use
        began = time.monotonic()
        starts = range(0, len(rows), _CHUNK_ROWS)
        with click.progressbar(starts, label="classifying", file=sys.stderr) as bar:
            for start in bar:
                results += engine.classify([row.text for row in rows[start : start + _CHUNK_ROWS]], loaded.name)
        seconds = time.monotonic() - began
        used = engine.precision
    measured = quality([row.label for row in rows], [result.label for result in results], loaded.labels)
    truncated = sum(result.truncated for result in results)
    if truncated:
        note(f"{truncated} of {len(rows)} texts are longer than the task reads: their ends were not read")
    if as_json:
        print_json(
            {
                "task": loaded.name,
                "precision": used,
                "rows": len(rows),
                "accuracy": measured.accuracy,
                "macro_f1": measured.macro_f1,
                "labels": list(loaded.labels),
                "confusion": measured.confusion.tolist(),
                "rows_per_second": len(rows) / seconds,
                "truncated": truncated,
            }
        )
        return
    click.echo(
        f"task {loaded.name}, {used}: accuracy {measured.accuracy:.3f}, macro-F1 {measured.macro_f1:.3f} on "
        f"{len(rows):,} rows, {len(rows) / seconds:,.0f} rows/s"
    )
    width = max(12, *(len(label) + 2 for label in loaded.labels))
    click.echo("\nright label (row), answer (column):")
    click.echo(" " * width + "".join(f"{label:>{width}}" for label in loaded.labels))
    for label, counts in zip(loaded.labels, measured.confusion, strict=True):
        click.echo(f"{label:<{width}}" + "".join(f"{count:>{width}}" for count in counts))
