"""`edgetune tasks import-peft`, `edgetune tasks export-peft`."""

from __future__ import annotations

from pathlib import Path

import click

from edgetune.cli.fields import field_options
from edgetune.cli.flags import Command
from edgetune.cli.options import FILE, KINDS, json_option, kind_named, print_json
from edgetune.training.options import TrainingOptions, parse_label_words
from edgetune_runtime.errors import needs


@click.command("import-peft", cls=Command)
@click.argument("adapter_dir", type=FILE)
@click.option("--model", required=True, help="The model that the adapter was trained on: a folder or a hub id.")
@click.option("--out", required=True, type=FILE, help="Task file to write, such as NAME.safetensors.")
@click.option("--task", "name", help="Name of the task. [default: the adapter folder's]")
@click.option(
    "--labels",
    help="Labels of a sequence classifier, a,b,c in the order of its outputs. [default: the model's id2label, else "
    "0,1,2]",
)
@field_options(TrainingOptions, ("template", "label_words", "max_length"))
@click.option(
    "--kind",
    "kind_name",
    type=click.Choice(KINDS),
    help="What a sequence classifier's outputs are. [default: what problem_type in the model's config says; else a "
    "score if there is one output, else single-label]",
)
@click.option("--peft-task-id", type=click.IntRange(0), help="Which task of a MULTITASK_PROMPT_TUNING adapter.")
@click.option("--same-base", is_flag=True, help="MODEL is what the adapter was trained on, under another name.")
@json_option
def import_peft(
    adapter_dir: Path,
    model: str,
    out: Path,
    name: str | None,
    labels: str | None,
    template: str,
    label_words: tuple[str, ...],
    max_length: int,
    kind_name: str | None,
    peft_task_id: int | None,
    same_base: bool,
    as_json: bool,
) -> None:
    """Make a task of the PEFT adapter in ADAPTER_DIR; its logits are those of PEFT.

    PROMPT_TUNING, P_TUNING, PREFIX_TUNING, MULTITASK_PROMPT_TUNING and LORA, for SEQ_CLS (decoders, BERT and ALBERT;
    its head comes along), TOKEN_CLS (name the tags with --labels: O,B-person,I-person), QUESTION_ANS, CAUSAL_LM,
    SEQ_2_SEQ_LM and, at a {mask}, FEATURE_EXTRACTION. What cannot be carried over exactly is rejected:
    docs/peft-tables.md.

    \b
    Example:
      edgetune tasks import-peft ./adapter --model ./gpt2 --labels negative,positive --out mood.safetensors
      edgetune tasks import-peft ./adapter --model ./t5 --out mood.safetensors \\
        --label-words positive=great --label-words negative=terrible
    """
    with needs("export"):
        from edgetune.peft_adapters import Adapter, import_task
        from edgetune_export.loading import load_backbone
    from edgetune_runtime.parts import LOW_RANK

    adapter = Adapter.load(adapter_dir)
    task = import_task(
        load_backbone(model),
        adapter,
        name or adapter_dir.resolve().name,
        labels=[label.strip() for label in labels.split(",")] if labels else (),
        words=parse_label_words(label_words),
        template=template,
        max_length=max_length,
        peft_task=peft_task_id,
        same_base=same_base,
        kind=kind_named(kind_name),
    )
    task.save(out)
    if as_json:
        print_json(
            {
                "task": task.name,
                "file": str(out),
                "peft_type": adapter.peft_type,
                "task_type": adapter.task_type,
                "kind": task.kind_name,
                "labels": list(task.labels),
                "prompt_length": task.prompt_length,
                "prefix_length": task.prefix_length,
                "ranks": {site: part.length_of(task.tensors) for site, part in LOW_RANK.items()},
                "bytes": out.stat().st_size,
            }
        )
    else:
        click.echo(
            f"{out}: task '{task.name}' from {adapter.peft_type} for {adapter.task_type}, {adapter.size}, "
            f"labels {', '.join(task.labels)}"
        )


@click.command("export-peft", cls=Command)
@click.argument("task_file", type=FILE)
@click.option("--model", required=True, help="The model that the task was trained on: a folder or a hub id.")
@click.option("--out", required=True, type=FILE, help="The adapter folder to write.")
@json_option
def export_peft(task_file: Path, model: str, out: Path, as_json: bool) -> None:
    """Write the task in TASK_FILE as an adapter that PEFT loads; its logits are those of the task.

    A soft prompt becomes PROMPT_TUNING, a prefix PREFIX_TUNING, low rank LORA. A head that follows BERT's or
    ALBERT's pooler, or has no biases at a decoder's last token, becomes the head of a SEQ_CLS adapter. The head of
    a task that finds entities becomes the head of a TOKEN_CLS adapter, that of one that answers questions the head
    of a QUESTION_ANS adapter. Otherwise the adapter is for FEATURE_EXTRACTION, and head.safetensors next to it has
    weight and bias. A task is rejected if PEFT would compute something else. Train prompts and prefixes of an
    encoder with --positions-behind-prompt.

    \b
    Example:
      edgetune tasks export-peft mood.safetensors --model ./gpt2 --out adapter
    """
    with needs("export"):
        from edgetune.peft_adapters import export_adapter
        from edgetune_export.loading import load_backbone
    from edgetune_runtime.task import Task

    task = Task.load(task_file)
    exported = export_adapter(load_backbone(model), task, model)
    exported.save(out)
    adapter = exported.adapter
    if as_json:
        print_json(
            {
                "task": task.name,
                "folder": str(out),
                "peft_type": adapter.peft_type,
                "task_type": adapter.task_type,
                "num_virtual_tokens": adapter.settings.get("num_virtual_tokens", 0),
                "r": adapter.settings.get("r", 0),
                "labels": list(task.labels),
                "outputs": exported.outputs,
                "pooling": task.pooling,
                "head_beside": bool(exported.head),
                "problem_type": exported.problem_type,
            }
        )
    else:
        problem_type = f", problem_type='{exported.problem_type}'" if exported.says_problem_type else ""
        head = (
            f"its head in head.safetensors, for features by pooling '{task.pooling}'"
            if exported.head
            else f"load the model with num_labels={len(exported.outputs)}{problem_type}"
        )
        click.echo(f"{out}: {adapter.peft_type} for {adapter.task_type}, {adapter.size}; {head}")
