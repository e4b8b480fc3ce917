"""`edgetune train`"""

from __future__ import annotations

from pathlib import Path

import click

from edgetune.cli.options import FILE, column_options, json_option, needs, note, print_json


@click.command()
@click.argument("model")
@click.option("--data", required=True, help="Training data: .jsonl, .csv, or a hub data set as NAME[:SPLIT].")
@click.option(
    "--eval-data", help="Development data, to choose the best epoch and the temperature. [default: a tenth of --data]"
)
@click.option("--task", required=True, help="Name of the task.")
@click.option("--out", required=True, type=FILE, help="Task file to write, such as NAME.safetensors.")
@click.option(
    "--method",
    type=click.Choice(["prefix", "prompt"]),
    default="prefix",
    show_default=True,
    help="prefix: keys and values in every layer. prompt: embeddings before the text.",
)
@click.option(
    "--prompt-length",
    type=click.IntRange(0),
    default=20,
    show_default=True,
    help="Tokens of the prompt or prefix; 0 trains the head alone.",
)
@click.option("--epochs", type=click.IntRange(1), default=10, show_default=True, help="Passes over the data.")
@click.option("--batch-size", type=click.IntRange(1), default=32, show_default=True, help="Texts a step.")
@click.option("--lr", type=click.FloatRange(0, min_open=True), help="Learning rate of the prompt. [default: by method]")
@click.option(
    "--pooling",
    type=click.Choice(["cls", "mean", "last"]),
    help="Where features are read. [default: mean for encoders, last for decoders]",
)
@click.option(
    "--max-length",
    type=click.IntRange(4),
    default=256,
    show_default=True,
    help="Tokens of a text that are read.",
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
    data: str,
    eval_data: str | None,
    task: str,
    out: Path,
    method: str,
    prompt_length: int,
    epochs: int,
    batch_size: int,
    lr: float | None,
    pooling: str | None,
    max_length: int,
    seed: int,
    mixed_precision: str,
    resume: bool,
    text_column: str,
    label_column: str,
    as_json: bool,
) -> None:
    """Train a task on the frozen backbone MODEL: a local folder, a .gguf file, or a hub id.

    Only the prompt and the head are trained. The epoch that is best on development data is kept, and one
    temperature fitted there makes the scores as sure as the answers are right. A training that is broken off
    leaves its state in OUT.checkpoints, and goes on from there with --resume.

    \b
    Example:
      edgetune train ./MiniLM --data train.jsonl --task sentiment --out sentiment.safetensors
    """
    with needs("train"):
        import accelerate  # noqa: F401 - Trainer asks for it late

        from edgetune.data import read_data, split_dev
        from edgetune.training import TrainingOptions
        from edgetune.training import train as run_training
        from edgetune_export.loading import load_backbone
    rows = read_data(data, text_column, label_column)
    if eval_data:
        dev = read_data(eval_data, text_column, label_column)
    else:
        rows, dev = split_dev(rows, seed)
        note(f"no --eval-data: {len(dev)} of {len(rows) + len(dev)} rows are held out to choose the best epoch")
    report = run_training(
        load_backbone(model),
        rows,
        dev,
        TrainingOptions(
            task=task,
            method=method,
            prompt_length=prompt_length,
            epochs=epochs,
            batch_size=batch_size,
            learning_rate=lr,
            pooling=pooling,
            max_length=max_length,
            seed=seed,
            mixed_precision=mixed_precision,
        ),
        out=out,
        resume=resume,
    )
    share = report.trained_parameters / report.backbone_parameters
    if as_json:
        print_json(
            {
                "task": task,
                "file": str(out),
                "labels": list(report.task.labels),
                "dev_accuracy": report.task.metrics["dev_accuracy"],
                "dev_accuracy_by_epoch": report.dev_accuracy,
                "dev_ece": report.task.metrics["dev_ece"],
                "temperature": report.task.temperature,
                "trained_parameters": report.trained_parameters,
                "backbone_parameters": report.backbone_parameters,
                "bytes": out.stat().st_size,
                "seconds": round(report.seconds, 1),
            }
        )
    else:
        click.echo(
            f"{out}: dev accuracy {report.task.metrics['dev_accuracy']:.3f} after epoch "
            f"{report.task.metrics['best_epoch']:.0f} of {epochs}, ECE {report.task.metrics['dev_ece']:.3f} at "
            f"temperature {report.task.temperature:.2f}, "
            f"{len(report.task.labels)} labels, {report.trained_parameters:,} numbers trained ({share:.2%} of the "
            f"backbone), {out.stat().st_size / 1000:,.0f} kB, {report.seconds:.0f} s"
        )
