"""`edgetune train`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from edgetune.cli.fields import collect, field_options
from edgetune.cli.flags import Command, RenamedOption, in_flags
from edgetune.cli.options import (
    FILE,
    LABELLED_DATA,
    column_options,
    columns_named,
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
from edgetune.training.rules import with_implied
from edgetune_runtime.errors import needs
from edgetune_runtime.files import check_task_name

if TYPE_CHECKING:
    from edgetune.data.labelled import LabelledText
    from edgetune.training import TrainingReport

_GIVEN = click.core.ParameterSource.COMMANDLINE


@click.command(cls=Command)
@click.argument("model")
@click.option(
    "--data",
    "sources",
    required=True,
    multiple=True,
    help=f"Training data: {LABELLED_DATA}. Repeat it, with --name and --out, to train several tasks with one prompt.",
)
@click.option(
    "--eval-data",
    "eval_sources",
    multiple=True,
    help="Development data, to choose the best epoch; one per --data. [default: rows held out of --data]",
)
@click.option("--name", "--task", "names", cls=RenamedOption, multiple=True, help="Name of the task; one per --data.")
@click.option(
    "--out",
    "outs",
    required=True,
    multiple=True,
    type=FILE,
    help="Task file to write, such as NAME.safetensors; one per --data.",
)
@field_options(TrainingOptions)
@kind_option
@click.option(
    "--report",
    "report_folder",
    type=FILE,
    help="Folder for a page about the held-out rows: learning curve, confusions, wrong rows.",
)
@click.option("--resume", is_flag=True, help="Continue a training that was interrupted.")
@column_options
@json_option
def train(
    model: str,
    sources: tuple[str, ...],
    eval_sources: tuple[str, ...],
    names: tuple[str, ...],
    outs: tuple[Path, ...],
    kind_name: str | None,
    report_folder: Path | None,
    resume: bool,
    text_column: str,
    label_columns: tuple[str, ...],
    text_pair_column: str | None,
    encoding: str | None,
    delimiter: str | None,
    quotes: bool,
    as_json: bool,
    **values: Any,
) -> None:
    """Train a task on the frozen backbone MODEL: a local folder, a .gguf file, or a hub id.

    Only a head and small parts are trained. The labels decide the kind of answer: one label, any number of labels, a
    number, entities, or an answer in a text.

    If there are few rows per label, pairs of texts train the parts, and then a head is fitted (recipe contrastive).
    Otherwise parts and head learn together in epochs (recipe epochs), and the best epoch on development data is kept.
    One label is judged by accuracy, or by macro-F1 if a label is rare; any number of labels by mean average precision;
    a number by Pearson's correlation. Among equal epochs the least loss decides. If training in epochs is
    interrupted, its state is in OUT.checkpoints, and --resume continues from there.

    Then a temperature is fitted to held-out rows, so that scores are calibrated. For any number of labels, a threshold
    per label is fitted, too. If a head without the parts (as 'edgetune fit' makes it) is better on these rows, it is
    kept instead. --seeds N does all of this N times and keeps the best task. Expect the mean of all N, which is shown.

    \b
    Example:
      edgetune train ./MiniLM --data train.jsonl --name sentiment --out sentiment.safetensors
      edgetune train ./BERT --data train.jsonl --name sentiment --out sentiment.safetensors \\
        --template "{text} It was {mask}." --label-words positive=great,good --label-words negative=terrible
    """
    let_nobody_wait()
    with needs("train"):
        import accelerate  # noqa: F401 - Trainer asks for it late

        from edgetune.training import TaskData
        from edgetune.training import train as run_training
        from edgetune_export.loading import load_backbone
    from edgetune.data.labelled import read_labelled
    from edgetune.data.text_files import Reading
    from edgetune_runtime.errors import DataError

    if not len(sources) == len(names) == len(outs) or len(eval_sources) not in (0, len(sources)):
        raise click.UsageError(
            f"{len(sources)} --data, {len(names)} --name, {len(outs)} --out, {len(eval_sources)} --eval-data: "
            f"expected one of each for each task"
        )
    if len(set(names)) < len(names):
        raise click.UsageError(f"--name {' --name '.join(names)}: expected a different name for each task")
    for name in names:
        check_task_name(name)
    source_of = click.get_current_context().get_parameter_source
    given = {name: value for name, value in values.items() if source_of(name) is _GIVEN}
    try:
        chosen = with_implied(given)
    except DataError as error:
        raise click.UsageError(in_flags(str(error))) from error
    options = collect(TrainingOptions, {**values, **chosen})
    reading = Reading(encoding, delimiter, quotes)
    columns = columns_named(text_column, label_columns, text_pair_column)
    tasks = []
    for place, (source, name, out) in enumerate(zip(sources, names, outs, strict=True)):
        read = read_labelled(source, columns, reading, note, kind_named(kind_name))
        dev: list[LabelledText] = []
        if eval_sources:
            held_out = read_labelled(eval_sources[place], columns, reading, note, read.kind)
            if held_out.pairs != read.pairs:
                raise DataError(
                    f"{source} and {eval_sources[place]} differ: one has pairs of texts, the other does not"
                )
            dev = held_out.rows
        tasks.append(TaskData(name, out, read.rows, dev, read.kind, read.pairs))
    reports = run_training(load_backbone(model, load_in=options.load_in), tasks, options, resume, note)
    records = [_record(one.out, report) for one, report in zip(tasks, reports, strict=True)]
    if report_folder is not None:
        for record, report in zip(records, reports, strict=True):
            own = report_folder if len(reports) == 1 else report_folder / report.task.name
            record["report"] = write_page(own, report.task.name, report.evaluation, report.epochs, report.seeds)
    if as_json:
        print_json(records[0] if len(records) == 1 else {"tasks": records})
        return
    for record, report in zip(records, reports, strict=True):
        _print(record, report)


def _record(out: Path, report: TrainingReport) -> dict[str, Any]:
    task, by = report.task, report.judged_by
    best_epoch = {"best_epoch": int(task.metrics.get("best_epoch", 0))}
    by_epoch = {
        f"dev_{report.usual}_by_epoch": [epoch.usual for epoch in report.epochs],
        "dev_score_by_epoch": [epoch.score for epoch in report.epochs],
        "dev_loss_by_epoch": [epoch.loss for epoch in report.epochs],
    }
    return {
        "task": task.name,
        "file": str(out),
        "kind": task.kind_name,
        "pairs": task.pairs,
        "labels": list(task.labels),
        "recipe": report.recipe,
        "kept": report.rung,
        "held_out_errors": report.errors,
        "chosen_by": report.chosen_by,
        **(best_epoch if report.epochs else {}),
        **({} if report.figures is None else {f"{by}_{name}": value for name, value in report.figures.values.items()}),
        **(by_epoch if report.epochs else {}),
        **({} if report.seeds is None else {"seeds": report.seeds.record()}),
        "by_label": _by_label(report),
        "temperature": task.temperature,
        **({"thresholds": list(task.thresholds)} if task.thresholds else {}),
        "trained_parameters": report.trained_parameters,
        "backbone_parameters": report.backbone_parameters,
        "bytes": out.stat().st_size,
        "seconds": round(report.seconds, 1),
    }


def _print(record: dict[str, Any], report: TrainingReport) -> None:
    task, figures = report.task, report.figures
    share = report.trained_parameters / report.backbone_parameters
    by = "cross-validated" if report.judged_by == "cv" else "dev"
    shown = (
        "no row could be held out"
        if figures is None
        else ", ".join(f"{figure_name(figure)} {value:.3f}" for figure, value in figures.values.items())
    )
    when = (
        f" after epoch {record['best_epoch']} of {len(report.epochs)} (chosen by {report.chosen_by})"
        if report.epochs
        else ""
    )
    labels = f"{len(task.labels)} labels, " if figures is None or figures.by_label else ""
    click.echo(
        f"{record['file']}: {by} {shown}{when}, temperature {task.temperature:.2f}, {labels}"
        f"{report.trained_parameters:,} numbers trained ({share:.2%} of the backbone), {record['bytes'] / 1000:,.0f} "
        f"kB, {report.seconds:.0f} s"
    )
    errors = "; ".join(f"{name} {error:.3f}" for name, error in report.errors.items())
    if len(report.errors) > 1:
        note(f"{task.name}: kept {report.rung} (recipe {report.recipe}; held-out errors: {errors})")
    if report.spread.rare:
        _print_by_label(record["by_label"], report.judged_by)


def _by_label(report: TrainingReport) -> dict[str, dict[str, float]]:
    """Label → its number of rows, and the figures for its held-out rows; unknown values are omitted."""
    figures, spread, by = report.figures, report.spread, report.judged_by
    if figures is None:
        return {}
    judged = spread.dev if by == "dev" else spread.train
    if figures.confusion is not None:  # a label with only one row is not held out
        judged = dict(zip(figures.by_label, figures.confusion.sum(axis=1).tolist(), strict=True))
    found: dict[str, dict[str, float]] = {}
    for place, label in enumerate(figures.by_label):
        found[label] = {"train_rows": spread.train[label], f"{by}_rows": judged[label]}
        if figures.confusion is not None:
            found[label][f"{by}_right"] = int(figures.confusion[place, place])
        if judged[label]:
            found[label] |= {f"{by}_{figure}": value for figure, value in figures.by_label[label].items()}
    return found


def _print_by_label(figures: dict[str, dict[str, float]], by: str) -> None:
    width = max(12, *(len(label) + 2 for label in figures))
    click.echo(f"{'label':<{width}}{'train rows':>12}{f'{by} rows':>12}{'right':>12}{'recall':>12}{'F1':>12}")
    for label in sorted(figures, key=lambda label: figures[label]["train_rows"]):
        own = figures[label]
        shares = [f"{own[name]:.3f}" if name in own else "-" for name in (f"{by}_recall", f"{by}_f1")]
        counts = [f"{own[name]:,}" for name in ("train_rows", f"{by}_rows", f"{by}_right")]
        click.echo(f"{label:<{width}}" + "".join(f"{cell:>12}" for cell in (*counts, *shares)))
