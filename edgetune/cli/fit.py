"""`edgetune fit`."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from edgetune.cli.fields import collect, field_options
from edgetune.cli.flags import Command
from edgetune.cli.options import (
    CHANGED_BUNDLE,
    FILE,
    LABELLED_DATA,
    column_options,
    columns_named,
    engine_options,
    figure_name,
    json_option,
    kind_named,
    kind_option,
    let_nobody_wait,
    note,
    print_json,
)
from edgetune.cli.pages import write_page
from edgetune.training.options import TrainingOptions
from edgetune_runtime.errors import needs
from edgetune_runtime.files import check_task_name

if TYPE_CHECKING:
    from collections.abc import Sequence

    from edgetune.data.labelled import LabelledText
    from edgetune.evaluation import Evaluation
    from edgetune_runtime.fitting.fit import FitReport

_READING = ("pooling", "template", "max_length", "long_texts", "stride")
_FIELDS = (*_READING, "class_weight", "descriptions", "seed")


@click.command(cls=Command)
@click.argument("bundle", type=CHANGED_BUNDLE)
@click.option("--data", required=True, help=f"Labelled texts: {LABELLED_DATA}.")
@click.option("--name", required=True, help="Name of the task. A task of the same name is replaced.")
@click.option("--out", type=FILE, help="Also write the task to this file, such as NAME.safetensors.")
@click.option(
    "--from-task",
    help="Read texts as this task does (of the bundle, or a file): with its prompt, template and lengths. Both tasks "
    "then share a pass.",
)
@click.option(
    "--report",
    "report_folder",
    type=FILE,
    help="Folder for a page about the held-out rows: confusions, wrong rows, labels that may be wrong.",
)
@field_options(TrainingOptions, _FIELDS)
@kind_option
@engine_options
@column_options
@json_option
def fit(
    bundle: Path,
    data: str,
    name: str,
    out: Path | None,
    from_task: str | None,
    report_folder: Path | None,
    kind_name: str | None,
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
    **values: Any,
) -> None:
    """Fit a task to a few labelled texts, on this machine, in seconds, without PyTorch, and put it into BUNDLE.

    Only a head is fitted: a logistic regression on the features of the backbone, in the precision that will answer.
    Cross-validation chooses how strongly the head is regularized, its temperature and its thresholds. It also measures
    how good the head is. If you have hundreds of texts and PyTorch, 'edgetune train' makes a better task.

    If you have few texts, describe the labels with --describe. Cross-validation chooses how much descriptions count.
    Without it the labels' own names describe them, if they have words and held-out rows show that they help.

    \b
    Example:
      edgetune fit bundle --data tickets.csv --name tickets
      edgetune fit bundle --data tickets.csv --name tickets --describe 'billing=invoices, refunds' \\
        --describe 'delivery=parcels that are late or lost'
    """
    let_nobody_wait()
    with needs("fit"):
        import sklearn  # noqa: F401 - said before any work is done
    from edgetune.data.labelled import read_labelled
    from edgetune.data.text_files import Reading
    from edgetune_runtime import Engine
    from edgetune_runtime.errors import DataError

    given = click.get_current_context().get_parameter_source
    chosen = [
        f"--{'long' if field == 'long_texts' else field.replace('_', '-')}"
        for field in _READING
        if given(field) is click.core.ParameterSource.COMMANDLINE
    ]
    if from_task is not None and chosen:
        raise click.UsageError(f"{' and '.join(chosen)} came with --from-task, which says how texts are read")
    check_task_name(name)
    options = collect(TrainingOptions, values)
    columns = columns_named(text_column, label_columns, text_pair_column)
    read = read_labelled(data, columns, Reading(encoding, delimiter, quotes), note, kind_named(kind_name))
    empty = next((row.place for row in read.rows if not row.text.strip()), None)
    if empty is not None:
        raise DataError(f"{empty}: the text is empty: add the text, or take the row out")
    with Engine(bundle, precision, device, threads) as engine:
        origin = None if from_task is None else engine.find_task(from_task)
        with click.progressbar(length=len(read.rows), label="reading texts", file=sys.stderr) as bar:
            report = engine.fit(
                [row.given for row in read.rows],
                [row.target for row in read.rows],
                name,
                kind=read.kind,
                from_task=origin,
                progress=bar.update,
                **{field: getattr(options, field) for field in _FIELDS},
            )
    for remark in report.remarks:
        note(remark)
    if out is not None:
        report.task.save(out)
    record = _record(report, bundle, out)
    if report_folder is not None:
        record["report"] = write_page(report_folder, name, _evaluation(report, read.rows))
    if as_json:
        print_json(record)
    else:
        _print(report, record)


def _evaluation(report: FitReport, rows: Sequence[LabelledText]) -> Evaluation | None:
    """The answers to the held-out rows; `None` without held-out rows."""
    from edgetune.evaluation import Evaluation

    held_out = [row for row, judged in zip(rows, report.judged, strict=True) if judged]
    return (
        Evaluation.of_logits(report.task, held_out, report.held_out, report.reads, report.precision)
        if held_out
        else None
    )


def _record(report: FitReport, bundle: Path, out: Path | None) -> dict[str, Any]:
    task, measured = report.task, report.cross_validated
    return {
        "task": task.name,
        "bundle": str(bundle),
        "file": None if out is None else str(out),
        "kind": task.kind_name,
        "pairs": task.pairs,
        "labels": list(task.labels),
        "rows": report.rows,
        "precision": report.precision,
        "strength": report.strength,
        "description_share": report.description_share,
        "described_by": report.about.title if report.about is not None and report.description_share else None,
        **({} if measured is None else {f"cv_{figure}": value for figure, value in measured.values.items()}),
        "temperature": task.temperature,
        **({"thresholds": list(task.thresholds)} if task.thresholds else {}),
        "bytes": len(task.to_bytes()),
        "seconds": round(report.seconds, 2),
    }


def _print(report: FitReport, record: dict[str, Any]) -> None:
    task, measured = report.task, report.cross_validated
    shown = (
        "each label has one row, so none was held out"
        if measured is None
        else "cross-validated "
        + ", ".join(f"{figure_name(name)} {value:.3f}" for name, value in measured.values.items())
    )
    share = report.description_share
    described = f"{report.about.title} count {share:.0%}, " if report.about is not None and share else ""
    labels = f"{len(task.labels)} labels, " if measured is None or measured.by_label else ""
    click.echo(
        f"{record['bundle']}: task '{task.name}', {report.rows:,} rows, {labels}{described}{shown}, temperature "
        f"{task.temperature:.2f}, {record['bytes'] / 1000:,.0f} kB, {report.seconds:.1f} s"
    )
