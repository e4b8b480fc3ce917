"""`edgetune train`"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from edgetune.cli.options import (
    FILE,
    LABELLED_DATA,
    column_options,
    json_option,
    let_nobody_wait,
    needs,
    note,
    print_json,
    template_options,
)

if TYPE_CHECKING:
    from edgetune.training import TrainingReport

METHODS = ("prefix", "prefix-mlp", "p-tuning-v2", "prompt", "prompt-residual", "p-tuning-mlp", "p-tuning-lstm")
INITS = ("data", "vocabulary", "random", "labels", "text")
_GIVEN = click.core.ParameterSource.COMMANDLINE


@click.command()
@click.argument("model")
@click.option(
    "--data",
    "sources",
    required=True,
    multiple=True,
    help=f"Training data: {LABELLED_DATA}. Given several times, as often as --task, tasks are trained together, with "
    "one prompt.",
)
@click.option(
    "--eval-data",
    "eval_sources",
    multiple=True,
    help="Development data, to choose the best epoch; one per --data. [default: a tenth of --data]",
)
@click.option("--task", "names", required=True, multiple=True, help="Name of the task; one per --data.")
@click.option(
    "--out",
    "outs",
    required=True,
    multiple=True,
    type=FILE,
    help="Task file to write, such as NAME.safetensors; one per --data.",
)
@click.option(
    "--method",
    type=click.Choice(METHODS),
    default="prefix",
    show_default=True,
    help="prefix, prefix-mlp, p-tuning-v2: keys and values in every layer. The others: embeddings before the text.",
)
@click.option(
    "--prompt-length",
    type=click.IntRange(0),
    default=20,
    show_default=True,
    help="Tokens of the prompt or prefix; 0 trains the head alone.",
)
@click.option(
    "--init",
    type=click.Choice(INITS),
    default="data",
    show_default=True,
    help="What the prompt begins as: tokens of the training texts, common tokens, random numbers, the names of the "
    "labels, or --init-text.",
)
@click.option("--init-text", help="A text for the prompt to begin as.")
@click.option("--init-from", type=FILE, help="A task file of the same backbone for the prompt to begin as.")
@template_options
@click.option("--fixed-label-words", is_flag=True, help="Train the prompt alone; the label words stay as they are.")
@click.option("--epochs", type=click.IntRange(1), default=10, show_default=True, help="Passes over the data.")
@click.option("--batch-size", type=click.IntRange(1), default=32, show_default=True, help="Texts per step.")
@click.option(
    "--class-weight",
    "class_weights",
    multiple=True,
    metavar="none|balanced|LABEL=NUMBER",
    help="How much a row of each label counts in training: all the same, or all labels the same however many rows they "
    "have, or a number for a label beside 1 for the others, once for each. [default: none]",
)
@click.option("--lr", type=click.FloatRange(0, min_open=True), help="Learning rate of the prompt. [default: by method]")
@click.option(
    "--pooling",
    type=click.Choice(["cls", "mean", "last", "mask", "decoder", "pooler"]),
    help="Where features are read. [default: at {mask} where the template has one; else mean for encoders, last for "
    "decoders, decoder for encoder-decoders]",
)
@click.option(
    "--positions-behind-prompt",
    is_flag=True,
    help="Let an encoder's text begin behind the prompt, where PEFT has it, so that 'tasks export-peft' can carry the "
    "task over; decoders always do.",
)
@click.option("--seed", type=click.IntRange(0), default=0, show_default=True, help="The same seed gives the same file.")
@click.option(
    "--mixed-precision",
    type=click.Choice(["no", "bf16", "fp16"]),
    default="no",
    show_default=True,
    help="For GPUs that have it.",
)
@click.option("--resume", is_flag=True, help="Go on with a training that was broken off.")
@column_options
@json_option
def train(
    model: str,
    sources: tuple[str, ...],
    eval_sources: tuple[str, ...],
    names: tuple[str, ...],
    outs: tuple[Path, ...],
    method: str,
    prompt_length: int,
    init: str,
    init_text: str | None,
    init_from: Path | None,
    template: str,
    label_words: tuple[str, ...],
    fixed_label_words: bool,
    max_length: int,
    epochs: int,
    batch_size: int,
    class_weights: tuple[str, ...],
    lr: float | None,
    pooling: str | None,
    positions_behind_prompt: bool,
    seed: int,
    mixed_precision: str,
    resume: bool,
    text_column: str,
    label_column: str,
    encoding: str | None,
    delimiter: str | None,
    quotes: bool,
    as_json: bool,
) -> None:
    """Train a task on the frozen backbone MODEL: a local folder, a .gguf file, or a hub id.

    Only the prompt and the head are trained. The epoch that is best on development data is kept (by accuracy, or by
    macro-F1 if a label is rare; ties by loss), and a temperature is fitted to them, so that scores are calibrated. A
    training that is broken off leaves its state in OUT.checkpoints, and goes on from there with --resume.

    \b
    Example:
      edgetune train ./MiniLM --data train.jsonl --task sentiment --out sentiment.safetensors
      edgetune train ./BERT --data train.jsonl --task sentiment --out sentiment.safetensors \\
        --template "{text} It was {mask}." --label-words positive=great,good --label-words negative=terrible
    """
    let_nobody_wait()
    with needs("train"):
        import accelerate  # noqa: F401 - Trainer asks for it late

        from edgetune.data.labelled import read_labelled
        from edgetune.data.splits import split_dev
        from edgetune.data.text_files import Reading
        from edgetune.training import TaskData, TrainingOptions
        from edgetune.training import train as run_training
        from edgetune.training.balance import parse_class_weight
        from edgetune.training.verbalizer import parse
        from edgetune_export.loading import load_backbone
    from edgetune_runtime.task import Task

    if not len(sources) == len(names) == len(outs) or len(eval_sources) not in (0, len(sources)):
        raise click.UsageError(
            f"{len(sources)} --data, {len(names)} --task, {len(outs)} --out, {len(eval_sources)} --eval-data: "
            f"expected one of each for each task"
        )
    if fixed_label_words and not label_words:
        raise click.UsageError("--fixed-label-words without --label-words")
    if len(set(names)) < len(names):
        raise click.UsageError(f"--task {' --task '.join(names)}: expected a different name for each task")
    given = click.get_current_context().get_parameter_source
    chosen = [f"--{name.replace('_', '-')}" for name in ("init", "init_text", "prompt_length") if given(name) is _GIVEN]
    if init_from is not None and chosen:
        raise click.UsageError(f"{' and '.join(chosen)} beside --init-from, which gives the prompt and its length")
    if init == "text" and init_text is None:
        raise click.UsageError("--init text without --init-text")
    if init_text is not None and given("init") is _GIVEN and init != "text":
        raise click.UsageError(f"--init-text beside --init {init}: expected one of them")
    class_weight = parse_class_weight(class_weights)
    reading = Reading(encoding, delimiter, quotes)
    tasks = []
    for place, (source, name, out) in enumerate(zip(sources, names, outs, strict=True)):
        rows = read_labelled(source, text_column, label_column, reading, note)
        if eval_sources:
            dev = read_labelled(eval_sources[place], text_column, label_column, reading, note)
        else:
            rows, dev = split_dev(rows, seed)
            note(f"no --eval-data: {len(dev)} of {len(rows) + len(dev)} rows are held out to choose the best epoch")
        tasks.append(TaskData(name, out, rows, dev))
    options = TrainingOptions(
        method=method,
        prompt_length=prompt_length,
        init=init if init_text is None else "text",
        init_text=init_text or "",
        init_from=None if init_from is None else Task.load(init_from),
        template=template,
        label_words=parse(label_words) if label_words else None,
        train_head=not fixed_label_words,
        epochs=epochs,
        batch_size=batch_size,
        class_weight=class_weight,
        learning_rate=lr,
        pooling=pooling,
        positions_behind_prompt=positions_behind_prompt,
        max_length=max_length,
        seed=seed,
        mixed_precision=mixed_precision,
    )
    reports = run_training(load_backbone(model), tasks, options, resume=resume)
    records = [
        {
            "task": one.name,
            "file": str(one.out),
            "labels": list(report.task.labels),
            "chosen_by": report.chosen_by,
            "best_epoch": int(report.task.metrics["best_epoch"]),
            "dev_accuracy": report.dev_quality.accuracy,
            "dev_macro_f1": report.dev_quality.macro_f1,
            "dev_accuracy_by_epoch": report.dev_accuracy,
            "dev_score_by_epoch": [epoch.score for epoch in report.epochs],
            "dev_loss_by_epoch": [epoch.loss for epoch in report.epochs],
            "by_label": _by_label(report),
            "dev_ece": report.task.metrics["dev_ece"],
            "temperature": report.task.temperature,
            "trained_parameters": report.trained_parameters,
            "backbone_parameters": report.backbone_parameters,
            "bytes": one.out.stat().st_size,
            "seconds": round(report.seconds, 1),
        }
        for one, report in zip(tasks, reports, strict=True)
    ]
    if as_json:
        print_json(records[0] if len(records) == 1 else {"tasks": records})
        return
    for record, report in zip(records, reports, strict=True):
        share = report.trained_parameters / report.backbone_parameters
        metrics, quality = report.task.metrics, report.dev_quality
        macro_f1 = f", macro-F1 {quality.macro_f1:.3f}" if report.spread.rare else ""
        size_kb = Path(str(record["file"])).stat().st_size / 1000
        click.echo(
            f"{record['file']}: dev accuracy {quality.accuracy:.3f}{macro_f1} after epoch {metrics['best_epoch']:.0f} "
            f"of {epochs} (chosen by {report.chosen_by}), ECE {metrics['dev_ece']:.3f} at temperature "
            f"{report.task.temperature:.2f}, {len(report.task.labels)} labels, {report.trained_parameters:,} numbers "
            f"trained ({share:.2%} of the backbone), {size_kb:,.0f} kB, {report.seconds:.0f} s"
        )
        if report.spread.rare:
            _print_by_label(report)


def _by_label(report: TrainingReport) -> dict[str, dict[str, float]]:
    """Label → its rows, and what the answers to the development rows are like; what is not known is left out."""
    quality, spread = report.dev_quality, report.spread
    found: dict[str, dict[str, float]] = {}
    for place, label in enumerate(spread.labels):
        found[label] = {"train_rows": spread.train[label], "dev_rows": spread.dev[label]}
        found[label] |= {"dev_right": int(quality.confusion[place, place])}
        if spread.dev[label]:
            found[label] |= {"dev_recall": float(quality.recall[place]), "dev_f1": float(quality.f1[place])}
    return found


def _print_by_label(report: TrainingReport) -> None:
    figures = _by_label(report)
    width = max(12, *(len(label) + 2 for label in figures))
    click.echo(f"{'label':<{width}}{'train rows':>12}{'dev rows':>12}{'right':>12}{'recall':>12}{'F1':>12}")
    for label in sorted(figures, key=lambda label: figures[label]["train_rows"]):
        own = figures[label]
        shares = [f"{own[name]:.3f}" if name in own else "-" for name in ("dev_recall", "dev_f1")]
        counts = [f"{own[name]:,}" for name in ("train_rows", "dev_rows", "dev_right")]
        click.echo(f"{label:<{width}}" + "".join(f"{cell:>12}" for cell in (*counts, *shares)))
