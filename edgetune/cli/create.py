"""`edgetune tasks create`."""

from __future__ import annotations

from itertools import chain
from pathlib import Path

import click

from edgetune.cli.fields import field_options
from edgetune.cli.flags import Command, RenamedOption
from edgetune.cli.options import FILE, json_option, needs, print_json
from edgetune.training.options import TrainingOptions, parse_label_words


@click.command(cls=Command)
@click.argument("model")
@click.option("--name", "--task", "name", cls=RenamedOption, help="Name of the task.")
@click.option("--out", required=True, type=FILE, help="Task file to write, such as NAME.safetensors.")
@field_options(TrainingOptions, ("template", "label_words", "max_length"))
@click.option("--prompt", default="", help="Words before each text; a decoder reads them once, not with every text.")
@click.option(
    "--calibrate",
    type=FILE,
    help="Texts without labels, one a line or as JSONL: the labels are made equally likely on them.",
)
@json_option
def create(
    model: str,
    name: str | None,
    out: Path,
    template: str,
    label_words: tuple[str, ...],
    max_length: int,
    prompt: str,
    calibrate: Path | None,
    as_json: bool,
) -> None:
    """Make a task without training: MODEL, a language model, answers with the label words.

    A masked language model answers at the template's {mask}, a decoder with the word that it would say next, an
    encoder-decoder with the first word that it would say.

    \b
    Example:
      edgetune tasks create ./BERT --name sentiment --out sentiment.safetensors --template "{text} It was {mask}." \\
        --label-words positive=great,good --label-words negative=terrible --calibrate texts.txt
    """
    with needs("export"):
        from edgetune.training.zero_shot import calibrated, create_task
        from edgetune_export.loading import load_backbone
    from edgetune.data.requests import read_requests
    from edgetune_runtime.errors import DataError

    if name is None:
        raise click.UsageError("no --name: name the task")
    words = parse_label_words(label_words)
    if words is None:
        raise click.UsageError("no --label-words: name the words of each label, as positive=great,good")
    texts: list[str] = []
    if calibrate is not None:
        for row in chain.from_iterable(read_requests(calibrate)):
            if row.text is None:
                raise DataError(f"{calibrate}, row {row.line}: {row.problem}")
            texts.append(row.text)
    backbone = load_backbone(model)
    task = create_task(backbone, name, words, template, prompt, max_length)
    if calibrate is not None:
        task = calibrated(backbone, task, texts)
    task.save(out)
    record = {
        "task": name,
        "file": str(out),
        "labels": list(task.labels),
        "pooling": task.pooling,
        "prompt_length": task.prompt_length,
        "prefix_length": task.prefix_length,
        "calibrated_on": len(texts),
        "bytes": out.stat().st_size,
    }
    if as_json:
        print_json(record)
    else:
        calibration = f", calibrated on {len(texts):,} texts" if texts else ""
        click.echo(f"{out}: task '{name}', labels {', '.join(task.labels)}{calibration}, {record['bytes']:,} bytes")
