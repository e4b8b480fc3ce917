"""The effect of int8 on answers: labels and accuracy of int8, and of the default, compared with fp32 on test rows.

    python benchmarks/answers.py BUNDLE TASKS_FOLDER DATA_FOLDER

TASKS_FOLDER/NAME.safetensors is a task trained on MiniLM or another backbone of BUNDLE, and measured on
DATA_FOLDER/NAME/test.jsonl. fp32 gives PyTorch's answers (`parity.py`). The default is int8, with close calls answered
again in fp32. Drops are in points. Rows per second are from one turn each, so they only show the cost of answering
again.
"""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Any

import click
import numpy as np

from edgetune.bench.latency import machine
from edgetune.data.labelled import LabelledText, read_labelled
from edgetune_runtime import Engine
from edgetune_runtime.cpus import available_threads

WAYS: dict[str, str | None] = {"fp32": "fp32", "int8": "int8", "default": None}


def measure(bundle: str, task: Path, rows: list[LabelledText]) -> dict[str, Any]:
    """Accuracy, agreement with fp32 and rows per second of every way to answer."""
    found: dict[str, Any] = {"rows": len(rows)}
    texts, labels = [row.text for row in rows], np.array([row.label for row in rows])
    answers: dict[str, Any] = {}
    for way, precision in WAYS.items():
        with Engine(bundle, precision) as engine:
            name = engine.add_task(task).name
            engine.classify(texts[:8], name)
            began = time.perf_counter()
            results = engine.classify(texts, name)
            seconds = time.perf_counter() - began
        answers[way] = np.array([result.best for result in results])
        found[way] = {
            "accuracy": float((answers[way] == labels).mean()),
            "agreement": float((answers[way] == answers["fp32"]).mean()),
            "anew": float(np.mean([result.precision != engine.precision for result in results])),
            "rows_per_second": round(len(rows) / seconds, 1),
        }
    return found


@click.command()
@click.argument("bundle", type=click.Path(exists=True, file_okay=False))
@click.argument("tasks", type=click.Path(exists=True, file_okay=False, path_type=Path))
@click.argument("data", type=click.Path(exists=True, file_okay=False, path_type=Path))
@click.option("--rows", default=2000, show_default=True, help="Most rows of a data set.")
def main(bundle: str, tasks: Path, data: Path, rows: int) -> None:
    """Compare answers."""
    found = {}
    for task in sorted(tasks.glob("*.safetensors")):
        click.echo(f"{task.stem}: classifying", err=True)
        test = read_labelled(str(data / task.stem / "test.jsonl"))
        found[task.stem] = measure(bundle, task, test[:rows])
    click.echo(
        "| data | rows | fp32 | int8 | drop | agrees | default | drop | agrees | anew | rows/s fp32, int8, default |\n"
        + "|---" * 11
        + "|"
    )
    for name, one in found.items():
        cells = [f"{name} | {one['rows']:,} | {one['fp32']['accuracy']:.4f}"]
        for way in ("int8", "default"):
            drop = 100 * (one["fp32"]["accuracy"] - one[way]["accuracy"])
            cells.append(f"{one[way]['accuracy']:.4f} | {drop:+.2f} | {one[way]['agreement']:.2%}")
        speeds = ", ".join(f"{one[way]['rows_per_second']:.0f}" for way in WAYS)
        click.echo(f"| {' | '.join(cells)} | {one['default']['anew']:.1%} | {speeds} |")
    for way in ("int8", "default"):
        drops = [100 * (one["fp32"]["accuracy"] - one[way]["accuracy"]) for one in found.values()]
        click.echo(f"\nMean drop of {way}: {np.mean(drops):+.2f} points.")
    click.echo(json.dumps({"environment": machine(available_threads()), "answers": found}))


if __name__ == "__main__":
    main()
