"""`edgetune export`"""

from __future__ import annotations

from pathlib import Path

import click

from edgetune.cli.options import FILE, column_options, json_option, needs, note, print_json


@click.command()
@click.argument("model")
@click.argument("bundle", type=FILE)
@click.option(
    "--precision",
    "precisions",
    multiple=True,
    type=click.Choice(["fp32", "int8", "q4"]),
    default=["fp32", "int8"],
    show_default=True,
    help="Precision to write; may be repeated. q4 is for size: smallest, less exact.",
)
@click.option("--task", "task_files", multiple=True, type=FILE, help="Task file to include; may be repeated.")
@click.option(
    "--check-data",
    multiple=True,
    help="Labelled texts to compare with PyTorch on, as FILE (for each task that has its labels) or TASK=FILE. "
    "[default: unlabelled sentences that come along, which measure agreement alone]",
)
@click.option(
    "--max-drop",
    type=click.FloatRange(0, 1),
    default=0.01,
    show_default=True,
    help="Most accuracy that a precision may lose on a task.",
)
@click.option("--overwrite", is_flag=True, help="Replace a bundle that is there.")
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
    label_column: str,
    encoding: str | None,
    delimiter: str | None,
    quotes: bool,
    as_json: bool,
) -> None:
    """Export the backbone MODEL once, to the folder BUNDLE.

    Every precision is compared with PyTorch on real text: the largest difference of logits, the share of equal
    labels and, where the texts are labelled, the accuracy. The figures go into the bundle and its card.

    \b
    Example:
      edgetune export ./MiniLM bundle --task sentiment.safetensors --check-data dev.jsonl
    """
    with needs("export"):
        from edgetune_export.export import export_bundle
        from edgetune_export.loading import load_backbone
        from edgetune_export.parity import CheckTexts
    from edgetune.data.labelled import read_labelled
    from edgetune.data.text_files import Reading
    from edgetune_runtime.bundle import Bundle
    from edgetune_runtime.errors import DataError
    from edgetune_runtime.task import Task

    tasks = [Task.load(path) for path in task_files]
    checks: dict[str, CheckTexts] = {}
    reading = Reading(encoding, delimiter, quotes)
    for item in check_data:
        name, separator, path = ("", "", item) if Path(item).exists() else item.partition("=")
        rows = read_labelled(path if separator else item, text_column, label_column, reading, note)
        check = CheckTexts([row.text for row in rows], [row.label for row in rows])
        fitting = [
            task.name
            for task in tasks
            if (name == task.name if separator else set(check.labels or ()) <= {*task.labels})
        ]
        if not fitting:
            have = ", ".join(task.name for task in tasks) or "none"
            raise DataError(f"--check-data {item} fits no task: the tasks here are {have}")
        checks.update(dict.fromkeys(fitting, check))
    manifest = export_bundle(
        load_backbone(model),
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
                        "parity": {task: vars(parity) for task, parity in graph.parity.items()},
                    }
                    for name, graph in manifest.graphs.items()
                },
            }
        )
        return
    click.echo(f"{bundle}: {manifest.facts.name} ({manifest.architecture})")
    click.echo(f"{'precision':<10}{'MB':>7}  {'task':<20}{'texts':>7}{'logits ±':>10}{'same label':>12}  accuracy")
    for name, graph in manifest.graphs.items():
        for task, parity in graph.parity.items():
            accuracy = (
                f"{parity.accuracy:.3f} (PyTorch {parity.accuracy_torch:.3f})"
                if parity.accuracy is not None
                else "no labels"
            )
            click.echo(
                f"{name:<10}{sizes_mb[name]:>7.1f}  {task:<20}{parity.rows:>7}{parity.max_logit_difference:>10.1e}"
                f"{parity.label_agreement:>12.1%}  {accuracy}"
            )
