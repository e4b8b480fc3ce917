"""`edgetune tasks create`."""

from __future__ import annotations

from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING

import click

from edgetune.cli.fields import field_options
from edgetune.cli.flags import Command, RenamedOption
from edgetune.cli.options import FILE, json_option, precision_option, print_json
from edgetune.training.options import TrainingOptions, parse_words
from edgetune_runtime import files
from edgetune_runtime.errors import needs

if TYPE_CHECKING:
    from edgetune_runtime.task import Task


@click.command(cls=Command)
@click.argument("model", metavar="BUNDLE_OR_MODEL")
@click.option("--name", "--task", "name", cls=RenamedOption, help="Name of the task.")
@click.option(
    "--out",
    type=FILE,
    help="Task file to write, such as NAME.safetensors. Optional with a bundle, which gets the task.",
)
@click.option(
    "--describe",
    "descriptions",
    multiple=True,
    metavar="LABEL=TEXT[,TEXT...]",
    help="What a label is about, in your own words; repeat it for each label. Not with --label-words.",
)
@click.option("--from-head", is_flag=True, help="Take the head of the model, which is a fine-tuned classifier.")
@click.option("--pairs", is_flag=True, help="With --from-head: the classifier reads pairs of texts (a cross-encoder).")
@field_options(TrainingOptions, ("template", "label_words", "max_length"))
@click.option("--prompt", default="", help="Words before each text; a decoder reads them once, not with every text.")
@click.option(
    "--calibrate",
    type=FILE,
    help="Texts without labels, one a line or as JSONL: the labels are made equally likely on them.",
)
@precision_option
@json_option
def create(
    model: str,
    name: str | None,
    out: Path | None,
    descriptions: tuple[str, ...],
    from_head: bool,
    pairs: bool,
    template: str,
    label_words: tuple[str, ...],
    max_length: int,
    prompt: str,
    calibrate: Path | None,
    precision: str | None,
    as_json: bool,
) -> None:
    """Make a task without labelled texts: from descriptions of its labels, from words, or from a classifier.

    With --describe a text gets the label whose descriptions are closest to it. It works on a bundle, without PyTorch,
    and on a model; best on a model that was trained for sentence embeddings. On a bundle, descriptions are read in the
    precision that will answer, or in --precision.

    With --label-words a language model answers with words: a masked model at the template's {mask}, a decoder with the
    next word, an encoder-decoder with its first word. This needs the model, not a bundle.

    With --from-head the task is the one that a classifier of transformers was fine-tuned for: same labels, same logits.
    Export the model with this task and with others. It reads texts as long as the model can, unless --max-length says
    otherwise.

    \b
    Example:
      edgetune tasks create bundle --name tickets --describe 'billing=invoices, refunds, charges' \\
        --describe 'delivery=parcels that are late or lost'
      edgetune tasks create ./BERT --name sentiment --out sentiment.safetensors --template "{text} It was {mask}." \\
        --label-words positive=great,good --label-words negative=terrible --calibrate texts.txt
      edgetune tasks create ./roberta-sentiment --name sentiment --out sentiment.safetensors --from-head
    """
    if name is None:
        raise click.UsageError("no --name: name the task")
    if bool(descriptions) + bool(label_words) + from_head != 1:
        raise click.UsageError(
            "expected descriptions of the labels, as --describe 'billing=invoices, refunds', or a language model's "
            "words, as --label-words positive=great,good, or a classifier's own head, as --from-head"
        )
    in_bundle = (Path(model) / files.MANIFEST).is_file()
    if in_bundle and label_words:
        raise click.UsageError(f"{model} is a bundle, which has no vocabulary to read --label-words of: name the model")
    if in_bundle and from_head:
        raise click.UsageError(f"--from-head came with {model}, which is a bundle: name the model")
    if pairs and not from_head:
        raise click.UsageError("--pairs came without --from-head: expected them together")
    if out is None and not in_bundle:
        raise click.UsageError("no --out: name the task file to write")
    if prompt and not label_words:
        raise click.UsageError("--prompt came without --label-words: expected them together")
    if calibrate and from_head:
        raise click.UsageError("--calibrate came with --from-head, whose head stays as it is: leave it out")
    if precision is not None and not in_bundle:
        raise click.UsageError(f"--precision came with {model}, which is not a bundle: leave it out, or name a bundle")
    texts = _texts(calibrate)
    if from_head:
        task = _from_head(model, name, template, max_length if _is_given("max_length") else None, pairs)
    elif in_bundle:
        task = _described_in_bundle(Path(model), name, descriptions, template, max_length, texts, precision)
    else:
        task = _from_model(model, name, descriptions, label_words, template, max_length, prompt, texts)
    if out is not None:
        task.save(out)
    record = {
        "task": name,
        "file": None if out is None else str(out),
        "bundle": model if in_bundle else None,
        "method": task.method,
        "labels": list(task.labels),
        "pooling": task.pooling,
        "prompt_length": task.prompt_length,
        "prefix_length": task.prefix_length,
        "calibrated_on": len(texts),
        "bytes": len(task.to_bytes()),
    }
    if as_json:
        print_json(record)
    else:
        calibration = f", calibrated on {len(texts):,} texts" if texts else ""
        place = model if in_bundle else out
        click.echo(f"{place}: task '{name}', labels {', '.join(task.labels)}{calibration}, {record['bytes']:,} bytes")


def _is_given(parameter: str) -> bool:
    source = click.get_current_context().get_parameter_source(parameter)
    return source is not click.core.ParameterSource.DEFAULT


def _from_head(model: str, name: str, template: str, max_length: int | None, pairs: bool) -> Task:
    with needs("export"):
        from edgetune.training.zero_shot import head_task

    return head_task(model, name, template, max_length, pairs)


def _texts(path: Path | None) -> list[str]:
    """Read the texts of a file; every row must be readable."""
    from edgetune.data.requests import read_requests
    from edgetune_runtime.errors import DataError

    if path is None:
        return []
    found = []
    for row in chain.from_iterable(read_requests(path)):
        if row.text is None:
            raise DataError(f"{path}, row {row.line}: {row.problem}")
        found.append(row.text)
    if not found:
        raise DataError(f"{path} has no texts to calibrate on: expected at least one")
    return found


def _described_in_bundle(
    bundle: Path,
    name: str,
    descriptions: tuple[str, ...],
    template: str,
    max_length: int,
    texts: list[str],
    precision: str | None,
) -> Task:
    from edgetune_runtime import Engine

    parsed = parse_words(descriptions, "descriptions")
    with Engine(bundle, precision) as engine:
        return engine.describe(parsed, name, texts=texts, template=template, max_length=max_length)


def _from_model(
    model: str,
    name: str,
    descriptions: tuple[str, ...],
    label_words: tuple[str, ...],
    template: str,
    max_length: int,
    prompt: str,
    texts: list[str],
) -> Task:
    with needs("export"):
        from edgetune.training.zero_shot import calibrated, create_task, describe_task
        from edgetune_export.loading import load_backbone

    if descriptions:
        parsed = parse_words(descriptions, "descriptions")
        return describe_task(load_backbone(model), name, parsed, template, max_length, texts)
    words = parse_words(label_words, "label_words")
    backbone = load_backbone(model)
    task = create_task(backbone, name, words, template, prompt, max_length)
    return calibrated(backbone, task, texts) if texts else task
