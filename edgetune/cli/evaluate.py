"""`edgetune evaluate`."""

from __future__ import annotations

import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from edgetune.cli.check_data import read_for
from edgetune.cli.flags import Command
from edgetune.cli.options import (
    FILE,
    LABELLED_DATA,
    column_options,
    columns_named,
    engine_options,
    figure_name,
    json_option,
    max_characters_option,
    min_score_option,
    note,
    print_json,
)

if TYPE_CHECKING:
    from edgetune_runtime.kinds import Figures

_CHUNK_ROWS = 256


@click.command(cls=Command)
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
    label_columns: tuple[str, ...],
    text_pair_column: str | None,
    encoding: str | None,
    delimiter: str | None,
    quotes: bool,
    as_json: bool,
) -> None:
    """Measure a task on labelled texts, by figures that go with what it answers, and count rows per second.

    \b
    One label: accuracy, macro-F1, calibration, confusion table.
    Any number of labels: macro-F1, micro-F1, mean average precision, exact match; a table of the labels.
    A number: Pearson's and Spearman's correlation, mean absolute error.

    The expected calibration error (ECE) says how far scores are from the share of right answers: 0 is best. With
    --min-score also the share of rows that are answered, and the accuracy on them; all else counts every row. Where a
    text has any number of labels, those below --min-score count as not given.

    \b
    Example:
      edgetune evaluate bundle --task sentiment --data test.jsonl --min-score 0.8
    """
    import numpy as np

    from edgetune.data.text_files import Reading
    from edgetune_runtime.attempts import attempt
    from edgetune_runtime.checks import check_min_score
    from edgetune_runtime.engine import Engine, Result
    from edgetune_runtime.errors import DataError, TextError

    columns = columns_named(text_column, label_columns, text_pair_column)
    with Engine(bundle, precision, device, threads) as engine:
        loaded = engine.find_task(task)
        check_min_score(min_score or 0.0, [loaded])
        rows = read_for(loaded, data, columns, Reading(encoding, delimiter, quotes), note)
        attempts: list[Result | TextError] = []
        attempt(engine, [(rows.texts[0], loaded)] * 2)  # opens the session that many texts use
        began = time.monotonic()
        starts = range(0, len(rows.texts), _CHUNK_ROWS)
        with click.progressbar(starts, label="classifying", file=sys.stderr) as bar:
            for start in bar:
                asked = [(text, loaded) for text in rows.texts[start : start + _CHUNK_ROWS]]
                attempts += attempt(engine, asked, min_score or 0.0, max_characters)
        seconds = time.monotonic() - began
        used = engine.precision
    failed = [f"{at}: {one}" for at, one in zip(rows.places, attempts, strict=True) if isinstance(one, TextError)]
    if len(failed) == len(attempts):
        raise DataError(f"no row was classified; the first: {failed[0]}")
    if failed:
        note(
            f"{len(failed):,} of {len(attempts):,} rows are errors, which the figures leave out; the first: {failed[0]}"
        )
    targets = [target for target, one in zip(rows.targets, attempts, strict=True) if isinstance(one, Result)]
    results = [one for one in attempts if isinstance(one, Result)]
    figures = loaded.kind.figures(targets, results, loaded)
    rechecked = float(np.mean([result.precision != used for result in results]))
    truncated = sum(result.truncated for result in results)
    if truncated:
        note(f"{truncated} of {len(results)} texts are longer than the task reads: their ends were not read")
    # Where each row has one answer, which the table counts, a row that scores too low has none.
    answered = None
    if min_score is not None and figures.confusion is not None:
        places = [place for place, result in enumerate(results) if not result.abstained]
        of_these = loaded.kind.figures([targets[at] for at in places], [results[at] for at in places], loaded)
        answered = len(places), of_these.values[figures.headline] if places else None
    if as_json:
        print_json(
            {
                "task": loaded.name,
                "precision": used,
                "rechecked": rechecked,
                "rows": len(results),
                "errors": len(failed),
                **figures.values,
                **({"labels": list(loaded.labels)} if figures.by_label else {}),
                **_tables(figures),
                "rows_per_second": len(results) / seconds,
                "truncated": truncated,
                **({} if min_score is None else {"min_score": min_score}),
                **(
                    {"coverage": answered[0] / len(results), f"{figures.headline}_answered": answered[1]}
                    if answered
                    else {}
                ),
            }
        )
        return
    again = f" with {rechecked:.1%} rechecked in fp32" if rechecked else ""
    measured = ", ".join(f"{figure_name(figure)} {value:.3f}" for figure, value in figures.values.items())
    click.echo(
        f"task {loaded.name}, {used}{again}: {measured} on {len(results):,} rows, {len(results) / seconds:,.0f} rows/s"
    )
    if answered:
        on_them = "" if answered[1] is None else f", {figure_name(figures.headline)} on them {answered[1]:.3f}"
        click.echo(
            f"with --min-score {min_score:g}: {answered[0]:,} of {len(results):,} rows answered (coverage "
            f"{answered[0] / len(results):.3f}){on_them}"
        )
    if figures.confusion is not None:
        click.echo("\nright label (row), answer (column):")
        _show(
            ["", *loaded.labels], [[label, *row] for label, row in zip(loaded.labels, figures.confusion, strict=True)]
        )
    elif figures.by_label:
        click.echo()
        names = list(next(iter(figures.by_label.values())))
        _show(["label", *map(figure_name, names)], [[label, *own.values()] for label, own in figures.by_label.items()])


def _tables(figures: Figures) -> Mapping[str, Any]:
    """What is more than one number, as JSON has it."""
    if figures.confusion is not None:
        return {"confusion": figures.confusion.tolist()}
    return {"by_label": figures.by_label} if figures.by_label else {}


def _show(header: Sequence[str], rows: Sequence[Sequence[Any]]) -> None:
    """Print a table whose first column has labels, the others numbers."""
    width = max(12, *(len(label) + 2 for label in [*header, *(row[0] for row in rows)]))
    click.echo(f"{header[0]:<{width}}" + "".join(f"{name:>{width}}" for name in header[1:]))
    for label, *numbers in rows:
        shown = [f"{number:.3f}" if isinstance(number, float) else str(number) for number in numbers]
        click.echo(f"{label:<{width}}" + "".join(f"{number:>{width}}" for number in shown))
