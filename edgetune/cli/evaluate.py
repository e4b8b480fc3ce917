"""`edgetune evaluate`."""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from edgetune.cli.check_data import read_for
from edgetune.cli.flags import Command
from edgetune.cli.options import (
    BUNDLE,
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
from edgetune.tables import aligned, fits

if TYPE_CHECKING:
    from edgetune.evaluation import Evaluation
    from edgetune_runtime.kinds import Figures

_CONFUSIONS_SHOWN = 20


@click.command(cls=Command)
@click.argument("bundle", type=BUNDLE)
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
@click.option(
    "--report",
    type=FILE,
    metavar="FOLDER",
    help="Write FOLDER/report.html, a page with pictures, the rows answered wrongly, and labels that may be wrong.",
)
@click.option(
    "--errors",
    type=FILE,
    metavar="FILE",
    help="Write the rows answered wrongly to this JSONL file, the most confident answers first.",
)
@click.option(
    "--predictions",
    type=FILE,
    metavar="FILE",
    help="Write the answers of a task that answers questions to this JSON file, as SQuAD's scripts read them: the id "
    "of each question → its answer, empty if there is none. Rows need a column `id`.",
)
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
    report: Path | None,
    errors: Path | None,
    predictions: Path | None,
    as_json: bool,
) -> None:
    """Measure a task on labelled texts: how often it is right, and how many rows per second it answers.

    \b
    One label: accuracy, macro-F1, calibration, confusion table.
    Any number of labels: macro-F1, micro-F1, mean average precision, exact match; a table of the labels.
    A number: Pearson's and Spearman's correlation, mean absolute error.
    Entities: F1, precision and recall of whole entities, as seqeval counts them; a table of the labels.
    An answer in a text: exact match and F1 of the words, as SQuAD counts them; questions without an answer separately.

    The expected calibration error (ECE) is the distance between the scores and the share of right answers: 0 is best.
    --min-score adds the share of rows that are answered, and the accuracy on them; all other figures count every row.
    Labels and entities with a lower score count as not given.

    \b
    Example:
      edgetune evaluate bundle --task sentiment --data test.jsonl --min-score 0.8
      edgetune evaluate bundle --task sentiment --data test.jsonl --report report --errors wrong.jsonl
    """
    from edgetune.data.text_files import Reading
    from edgetune.evaluation import measure
    from edgetune.predictions import check_answers_questions, write_predictions
    from edgetune_runtime.checks import check_min_score
    from edgetune_runtime.engine import Engine

    columns = columns_named(text_column, label_columns, text_pair_column)
    columns = replace(columns, ids=predictions is not None)
    for folder in filter(None, (report, errors and errors.parent, predictions and predictions.parent)):
        _make(folder)
    with Engine(bundle, precision, device, threads) as engine:
        loaded = engine.find_task(task)
        check_min_score(min_score or 0.0, [loaded])
        if predictions is not None:
            check_answers_questions(loaded)
        rows = read_for(loaded, data, columns, Reading(encoding, delimiter, quotes), note)
        with click.progressbar(length=len(rows.texts), label="classifying", file=sys.stderr) as bar:
            found = measure(
                engine, loaded, rows.texts, rows.targets, rows.places, min_score, max_characters, bar.update
            )
    number = len(found.rows)
    if found.errors:
        place, error = found.errors[0]
        note(
            f"{len(found.errors):,} of {len(found.texts):,} rows are errors, which the figures leave out; the first: "
            f"{place}: {error}"
        )
    if found.truncated:
        note(f"{found.truncated} of {number} texts are longer than the task reads: their ends were not read")
    written = _write(found, report, errors)
    if predictions is not None:
        write_predictions(predictions, found, rows.ids)
        written["predictions"] = str(predictions)
        note(f"predictions: {predictions}")
    if as_json:
        print_json({**_record(found), **written})
        return
    _print(found)


def _make(folder: Path) -> None:
    """Create the folder for results before any work starts."""
    from edgetune_runtime.errors import EdgetuneError

    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise EdgetuneError(f"{folder} cannot be written to: {error.strerror}; name another folder") from error


def _write(found: Evaluation, report: Path | None, errors: Path | None) -> dict[str, str]:
    """Write the requested files, report where, and return their paths."""
    written = {}
    if report is not None:
        from edgetune.report import write_report

        written["report"] = str(write_report(report, found))
        note(f"report: {written['report']}")
    if errors is not None:
        from edgetune.report.wrong import write_wrong_rows

        number = write_wrong_rows(errors, found)
        written["errors_file"] = str(errors)
        note(f"errors: {errors} ({number:,} rows)")
    return written


def _record(found: Evaluation) -> dict[str, Any]:
    figures, answered = found.figures, found.answered
    return {
        "task": found.task.name,
        "precision": found.precision,
        "rechecked": found.rechecked,
        "rows": len(found.rows),
        "errors": len(found.errors),
        **figures.values,
        **({"labels": list(found.task.labels)} if figures.by_label else {}),
        **_tables(figures),
        "rows_per_second": found.rows_per_second,
        "truncated": found.truncated,
        **({} if found.min_score is None else {"min_score": found.min_score}),
        **({"coverage": found.coverage, f"{figures.headline}_answered": answered.figure} if answered else {}),
    }


def _print(found: Evaluation) -> None:
    figures, answered, labels = found.figures, found.answered, found.task.labels
    again = f" with {found.rechecked:.1%} rechecked in fp32" if found.rechecked else ""
    measured = ", ".join(f"{figure_name(figure)} {value:.3f}" for figure, value in figures.values.items())
    click.echo(
        f"task {found.task.name}, {found.precision}{again}: {measured} on {len(found.rows):,} rows, "
        f"{found.rows_per_second:,.0f} rows/s"
    )
    if answered:
        on_them = "" if answered.figure is None else f", {figure_name(figures.headline)} on them {answered.figure:.3f}"
        click.echo(
            f"with --min-score {found.min_score:g}: {answered.rows:,} of {len(found.rows):,} rows answered (coverage "
            f"{found.coverage:.3f}){on_them}"
        )
    if figures.confusion is not None:
        _show_confusion(labels, figures.confusion.tolist())
    elif figures.by_label:
        click.echo()
        names = list(next(iter(figures.by_label.values())))
        rows = [[label, *map(_number, own.values())] for label, own in figures.by_label.items()]
        click.echo("\n".join(aligned(["label", *map(figure_name, names)], rows)))


def _tables(figures: Figures) -> Mapping[str, Any]:
    """The figures that consist of more than one number, for JSON."""
    if figures.confusion is not None:
        return {"confusion": figures.confusion.tolist()}
    return {"by_label": figures.by_label} if figures.by_label else {}


def _number(number: float) -> str:
    return f"{number:.3f}" if isinstance(number, float) else str(number)


def _show_confusion(labels: Sequence[str], confusion: Sequence[Sequence[int]]) -> None:
    """Print the confusion table or, if it is wider than 80 columns, the most frequent confusions."""
    rows = [[label, *map(str, row)] for label, row in zip(labels, confusion, strict=True)]
    lines = aligned(["", *labels], rows)
    if fits(lines):
        click.echo("\nright label (row), answer (column):")
        click.echo("\n".join(lines))
        return
    found = [
        (number, right, answer)
        for right, row in zip(labels, confusion, strict=True)
        for answer, number in zip(labels, row, strict=True)
        if number and right != answer
    ]
    if not found:
        click.echo("\nno confusions")
        return
    first = sorted(found, key=lambda one: -one[0])[:_CONFUSIONS_SHOWN]
    click.echo(f"\n{len(first)} of {len(found)} confusions, the most frequent first (--json has the whole table):")
    shown = [(right, answer, str(number)) for number, right, answer in first]
    click.echo("\n".join(aligned(("right label", "answer", "rows"), shown, texts=2)))
