"""`edgetune tasks`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from edgetune.cli.create import create
from edgetune.cli.flags import Command, in_flags
from edgetune.cli.group import Group
from edgetune.cli.options import BUNDLE, CHANGED_BUNDLE, FILE, json_option, note, note_unread_tasks, print_json
from edgetune.cli.peft import export_peft, import_peft
from edgetune.cli.sync import sync
from edgetune.tables import aligned

if TYPE_CHECKING:
    from edgetune_runtime.task import Task


@click.group(cls=Group)
def tasks() -> None:
    """Make tasks without labelled texts; list, add, remove, import, export and sync tasks."""


tasks.add_command(create)


@tasks.command("list", cls=Command)
@click.argument("bundle", type=BUNDLE)
@json_option
def list_tasks(bundle: Path, as_json: bool) -> None:
    """List the tasks of BUNDLE.

    \b
    Example:
      edgetune tasks list bundle
    """
    from edgetune_runtime.bundle import Bundle
    from edgetune_runtime.errors import TaskError

    opened = Bundle(bundle)
    found, unusable = [], []
    for name in opened.task_names():
        try:
            found.append(_summary(opened.load_task(name)))
        except TaskError as error:
            unusable.append({"task": name, "error": in_flags(str(error))})
    note_unread_tasks(opened)
    if as_json:
        print_json({"bundle": str(bundle), "tasks": found, "unusable": unusable, "unread": opened.unread_tasks()})
        return
    for one in unusable:
        note(f"unusable: {one['error']}")
    if not found:
        note(f"no tasks in {bundle}: make one with 'edgetune fit', or add a file with 'edgetune tasks add'")
        return
    for line in aligned(("task", "kind", "method", "parts", "labels", "kB"), [_row(task) for task in found], texts=4):
        click.echo(line)


@tasks.command(cls=Command)
@click.argument("bundle", type=BUNDLE)
@click.argument("name")
@json_option
def show(bundle: Path, name: str, as_json: bool) -> None:
    """Show everything about the task NAME of BUNDLE.

    \b
    Example:
      edgetune tasks show bundle sentiment
    """
    from edgetune_runtime.bundle import Bundle

    summary = _summary(Bundle(bundle).load_task(name))
    if as_json:
        print_json(summary)
        return
    for key, value in summary.items():
        click.echo(f"{key:<18}{', '.join(map(str, value)) if isinstance(value, list) else value}")


@tasks.command(cls=Command)
@click.argument("bundle", type=CHANGED_BUNDLE)
@click.argument("file", type=FILE)
@click.option("--name", help="Name in the bundle. [default: the task's own name]")
@json_option
def add(bundle: Path, file: Path, name: str | None, as_json: bool) -> None:
    """Put the task FILE into BUNDLE. A task of the same name is replaced.

    \b
    Example:
      edgetune tasks add bundle sentiment.safetensors
    """
    from edgetune_runtime.bundle import Bundle
    from edgetune_runtime.task import Task

    task = Task.load(file)
    if name:
        task = task.renamed(name)
    path = Bundle(bundle).add_task(task)
    if as_json:
        print_json({"task": task.name, "file": str(path)})
    else:
        click.echo(f"{path}: task '{task.name}'")


@tasks.command(cls=Command)
@click.argument("bundle", type=CHANGED_BUNDLE)
@click.argument("name")
@json_option
def remove(bundle: Path, name: str, as_json: bool) -> None:
    """Remove the task NAME from BUNDLE.

    \b
    Example:
      edgetune tasks remove bundle sentiment
    """
    from edgetune_runtime.bundle import Bundle

    Bundle(bundle).remove_task(name)
    if as_json:
        print_json({"removed": name})
    else:
        click.echo(f"removed task '{name}' from {bundle}")


@tasks.command("export-adapter", cls=Command)
@click.argument("bundle", type=BUNDLE)
@click.argument("name")
@click.option("--out", required=True, type=FILE, help="The .onnx_adapter file to write.")
@json_option
def export_adapter(bundle: Path, name: str, out: Path, as_json: bool) -> None:
    """Write the task NAME of BUNDLE as onnxruntime's native adapter.

    A program in C++, C#, Java or Python can then run the bundle's graph without edgetune. It feeds input_ids,
    attention_mask, task_index (zeros), spans (begin and end of the tokens that the task's pooling reads; not in graphs
    of edgetune 0.1) and, for pairs, token_type_ids, and reads logits. --json shows labels, kind, pooling and
    thresholds.

    \b
    Example:
      edgetune tasks export-adapter bundle sentiment --out sentiment.onnx_adapter
    """
    from edgetune_runtime.adapter import save_adapter
    from edgetune_runtime.bundle import Bundle

    opened = Bundle(bundle)
    task = opened.load_task(name)
    variant = save_adapter(task, opened.facts, out)
    graphs = [graph.paths_of(variant)[0] for graph in opened.manifest.graphs.values()]
    if as_json:
        print_json({**_summary(task), "file": str(out), "bytes": out.stat().st_size, "graphs": graphs})
    else:
        size_kb = out.stat().st_size / 1000
        click.echo(f"{out}: task '{task.name}', {size_kb:,.0f} kB, labels {', '.join(task.labels)}")
        click.echo(f"it is for {' or '.join(graphs)}")


for command in (import_peft, export_peft, sync):
    tasks.add_command(command)


def _row(summary: dict[str, Any]) -> tuple[str, ...]:
    """A task's row in the list."""
    parts = ", ".join(f"{name} {length}" for name, length in summary["parts"].items()) or "head alone"
    kind = f"{summary['kind']}{', pairs' if summary['pairs'] else ''}"
    size = f"{summary['bytes'] / 1000:.0f}"
    return summary["task"], kind, summary["method"], parts, str(len(summary["labels"])), size


def _summary(task: Task) -> dict[str, Any]:
    return {
        "task": task.name,
        "kind": task.kind_name,
        "pairs": task.pairs,
        "labels": list(task.labels),
        **({"thresholds": list(task.thresholds)} if task.thresholds else {}),
        "method": task.method,
        "parts": task.parts,
        "prompt_length": task.prompt_length,
        "prefix_length": task.prefix_length,
        "pooling": task.pooling,
        "position_offset": task.position_offset,
        "template": task.template,
        "max_length": task.max_length,
        "temperature": task.temperature,
        "base_model": task.base_model,
        "backbone_sha256": task.backbone_sha256,
        "numbers": task.num_parameters,
        "bytes": len(task.to_bytes()),
        "metrics": dict(task.metrics),
    }
