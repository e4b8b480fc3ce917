"""`edgetune evaluate`"""

from __future__ import annotations

import sys
import time
from pathlib import Path

import click

from edgetune.cli.options import (
    FILE,
    LABELLED_DATA,
    column_options,
    engine_options,
    json_option,
    max_characters_option,
    min_score_option,
    note,
    print_json,
)

_CHUNK_ROWS = 256


@click.command()
@click.argument("bundle", type=FILE)
@click.option("--task", required=True, help="A task of the bundle, or a task file.")
@click.option(
    "--data",
    required=True,
    help=f"Labelled texts: {LABELLED_DATA}.",
)
@max_characters_option
@min_score_option
@engine_options
@column_options
@json_option
def evaluate(
    bundle: Path,
    task: str,
    data: str,
    max_characters: int,
    min_score: float | None,
    precision: str | None,
    device: str,
    threads: int | None,
    text_column: str,
    label_column: str,
    encoding: str | None,
    delimiter: str | None,
    quotes: bool,
    as_json: bool,
) -> None:
    """Measure a task on labelled texts: accuracy, macro-F1, calibration, confusion table, rows per second.

    The expected calibration error (ECE) says how far scores are from the share of right answers: 0 is best. With
    --min-score also the share of rows that are answered, and the accuracy on them; all else counts every row.

    \b
    Example:
      edgetune evaluate bundle --task sentiment --data test.jsonl --min-score 0.8
    """
    import numpy as np

    from edgetune.data.labelled import read_labelled
    from edgetune.data.text_files import Reading
    from edgetune_runtime.attempts import attempt
    from edgetune_runtime.engine import Engine, Result
    from edgetune_runtime.errors import DataError, TextError
    from edgetune_runtime.metrics import calibration_error, quality

    rows = read_labelled(data, text_column, label_column, Reading(encoding, delimiter, quotes), note)
    with Engine(bundle, precision, device, threads) as engine:
        loaded = engine.find_task(task)
        unknown = sorted({row.label for row in rows} - set(loaded.labels))
        if unknown:
            raise DataError(
                f"{data} has labels that the task '{loaded.name}' does not: {', '.join(unknown)}; it has "
                f"{', '.join(loaded.labels)}"
            )
        attempts: list[Result | TextError] = []
        attempt(engine, [(rows[0].text, loaded)] * 2)  # opens the session that many texts use
        began = time.monotonic()
        starts = range(0, len(rows), _CHUNK_ROWS)
        with click.progressbar(starts, label="classifying", file=sys.stderr) as bar:
            for start in bar:
                pairs = [(row.text, loaded) for row in rows[start : start + _CHUNK_ROWS]]
                attempts += attempt(engine, pairs, min_score or 0.0, max_characters)
        seconds = time.monotonic() - began
        used = engine.precision
    failed = [f"{row.place}: {one}" for row, one in zip(rows, attempts, strict=True) if isinstance(one, TextError)]
    if len(failed) == len(rows):
        raise DataError(f"no row was classified; the first: {failed[0]}")
    if failed:
        note(f"{len(failed):,} of {len(rows):,} rows are errors, which the figures leave out; the first: {failed[0]}")
    rows = [row for row, one in zip(rows, attempts, strict=True) if isinstance(one, Result)]
    results = [one for one in attempts if isinstance(one, Result)]
    measured = quality([row.label for row in rows], [result.best for result in results], loaded.labels)
    right = np.array([result.best == row.label for result, row in zip(results, rows, strict=True)])
    ece = calibration_error(np.array([result.scores[result.best] for result in results]), right)
    answered = np.array([not result.abstained for result in results])
    accuracy_answered = float(right[answered].mean()) if answered.any() else None
    coverage = float(answered.mean())
    abstaining = {"min_score": min_score, "coverage": coverage, "accuracy_answered": accuracy_answered}
    rechecked = float(np.mean([result.precision != used for result in results]))
    truncated = sum(result.truncated for result in results)
    if truncated:
        note(f"{truncated} of {len(rows)} texts are longer than the task reads: their ends were not read")
    if as_json:
        print_json(
            {
                "task": loaded.name,
                "precision": used,
                "rechecked": rechecked,
                "rows": len(rows),
                "errors": len(failed),
                "accuracy": measured.accuracy,
                "macro_f1": measured.macro_f1,
                "ece": ece,
                "labels": list(loaded.labels),
                "confusion": measured.confusion.tolist(),
                "rows_per_second": len(rows) / seconds,
                "truncated": truncated,
                **({} if min_score is None else abstaining),
            }
        )
        return
    again = f" with {rechecked:.1%} rechecked in fp32" if rechecked else ""
    click.echo(
        f"task {loaded.name}, {used}{again}: accuracy {measured.accuracy:.3f}, macro-F1 {measured.macro_f1:.3f}, "
        f"ECE {ece:.3f} on {len(rows):,} rows, {len(rows) / seconds:,.0f} rows/s"
    )
    if min_score is not None:
        on_them = "" if accuracy_answered is None else f", accuracy on them {accuracy_answered:.3f}"
        click.echo(
            f"with --min-score {min_score:g}: {answered.sum():,} of {len(rows):,} rows answered (coverage "
            f"{coverage:.3f}){on_them}"
        )
    width = max(12, *(len(label) + 2 for label in loaded.labels))
    click.echo("\nright label (row), answer (column):")
    click.echo(" " * width + "".join(f"{label:>{width}}" for label in loaded.labels))
    for label, counts in zip(loaded.labels, measured.confusion, strict=True):
        click.echo(f"{label:<{width}}" + "".join(f"{count:>{width}}" for count in counts))
