"""`edgetune export`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import click

from edgetune.cli.check_data import Checked, read_fitting, read_for
from edgetune.cli.flags import Command
from edgetune.cli.options import (
    FILE,
    column_options,
    columns_named,
    figure_name,
    json_option,
    note,
    print_json,
)
from edgetune.tables import aligned
from edgetune_runtime.errors import needs

if TYPE_CHECKING:
    from edgetune.data.labelled import Columns
    from edgetune.data.text_files import Reading
    from edgetune_runtime.manifest import Manifest
    from edgetune_runtime.task import Task


@click.command(cls=Command)
@click.argument("model")
@click.argument("bundle", type=FILE)
@click.option(
    "--precision",
    "precisions",
    multiple=True,
    type=click.Choice(["fp32", "int8", "q4"]),
    default=["fp32", "int8"],
    show_default=True,
    help="Precision to write; repeatable. q4 is the smallest and the least exact.",
)
@click.option("--task", "task_files", multiple=True, type=FILE, help="Task file to include; repeatable.")
@click.option(
    "--check-data",
    multiple=True,
    help="Labelled texts for the comparison with PyTorch: TASK=FILE, or FILE for every task that it fits. [default: "
    "sample sentences without labels, which measure agreement only]",
)
@click.option(
    "--max-drop",
    type=click.FloatRange(0, 1),
    default=0.01,
    show_default=True,
    help="Largest loss of a precision on a task, in accuracy (one label), macro-F1 (any number of labels) or Pearson's "
    "correlation (a number). If one loses more, nothing is written.",
)
@click.option("--overwrite", is_flag=True, help="Replace an existing bundle.")
@column_options
@json_option
def export(
    model: str,
    bundle: Path,
    precisions: tuple[str, ...],
    task_files: tuple[Path, ...],
    check_data: tuple[str, ...],
    max_drop: float,
    overwrite: bool,
    text_column: str,
    label_columns: tuple[str, ...],
    text_pair_column: str | None,
    encoding: str | None,
    delimiter: str | None,
    quotes: bool,
    as_json: bool,
) -> None:
    """Export the backbone MODEL once, to the folder BUNDLE.

    Every precision is compared with PyTorch on real texts: the largest difference of logits, the share of equal
    answers and, if the texts are labelled, the accuracy (for other kinds of answer, their main figure). The figures go
    into the bundle and its card.

    \b
    Example:
      edgetune export ./MiniLM bundle --task sentiment.safetensors --check-data dev.jsonl
    """
    with needs("export"):
        from edgetune_export.export import export_bundle
        from edgetune_export.loading import STORED, load_backbone
        from edgetune_export.parity import CheckTexts
    from edgetune.data.text_files import Reading
    from edgetune_runtime.bundle import Bundle
    from edgetune_runtime.task import Task

    tasks = [Task.load(path) for path in task_files]
    checks: dict[str, CheckTexts] = {}
    columns = columns_named(text_column, label_columns, text_pair_column)
    for item in check_data:
        found = _checks(item, tasks, columns, Reading(encoding, delimiter, quotes))
        checks |= {name: CheckTexts(one.texts, one.targets) for name, one in found.items()}
    manifest = export_bundle(
        load_backbone(model, load_in=STORED),
        bundle,
        precisions=list(dict.fromkeys(precisions)),
        tasks=tasks,
        checks=checks,
        max_drop=max_drop,
        overwrite=overwrite,
        progress=lambda step: note(f"{step} …"),
    )
    written = Bundle(bundle)
    sizes_mb = {name: written.graph_bytes(name) / 1e6 for name in manifest.graphs}
    if as_json:
        print_json(
            {
                "bundle": str(bundle),
                "backbone_sha256": manifest.facts.sha256,
                "graphs": {
                    name: {
                        "file": graph.file,
                        "size_mb": round(sizes_mb[name], 1),
                        "parity": {task: parity.to_record() for task, parity in graph.parity.items()},
                    }
                    for name, graph in manifest.graphs.items()
                },
            }
        )
        return
    click.echo(f"{bundle}: {manifest.facts.name} ({manifest.architecture}), compared with PyTorch:")
    _show(manifest, sizes_mb)
    if not tasks:
        note(f"next, make a task: edgetune fit {bundle} --data FILE --name NAME, or see 'edgetune tasks create --help'")


def _checks(item: str, tasks: Sequence[Task], columns: Columns, reading: Reading) -> Mapping[str, Checked]:
    """Task → its check data, from the values of `--check-data`."""
    from edgetune_runtime.errors import DataError

    name, separator, path = ("", "", item) if Path(item).exists() else item.partition("=")
    if separator:
        found = {task.name: read_for(task, path, columns, reading, note) for task in tasks if task.name == name}
    else:
        found = read_fitting(tasks, item, columns, reading, note)
    if not found:
        have = ", ".join(task.name for task in tasks) or "none"
        raise DataError(f"--check-data {item} fits no task: the tasks here are {have}")
    return found


def _show(manifest: Manifest, sizes_mb: Mapping[str, float]) -> None:
    rows = [(name, task, parity) for name, graph in manifest.graphs.items() for task, parity in graph.parity.items()]
    figures = sorted({parity.figure for _, _, parity in rows})
    labelled = any(parity.value is not None for _, _, parity in rows)
    same, figure = ("agreement", "figure") if len(figures) > 1 else ("same label", figure_name("".join(figures)))
    header = ["precision", "task", "MB", "texts", "logits ±", same, *([figure] if labelled else [])]
    cells = []
    for name, task, parity in rows:
        shown = "no labels"
        if parity.value is not None:
            called = f"{figure_name(parity.figure)} " if len(figures) > 1 else ""
            shown = f"{called}{parity.value:.3f} (PyTorch {parity.value_torch:.3f})"
        numbers = [f"{sizes_mb[name]:.1f}", str(parity.rows), f"{parity.max_logit_difference:.1e}"]
        cells.append([name, task, *numbers, f"{parity.label_agreement:.1%}", *([shown] if labelled else [])])
    for line in aligned(header, cells, texts=2):
        click.echo(line)
