"""Close calls of a multi-label task: the answers that int8 changes, and how many texts must be answered again in fp32.

    python benchmarks/close_calls.py BUNDLE TASK.safetensors ROWS.jsonl

For each distance (in logits) of the closest label from its threshold: the share of texts within it, the share of
changed answers among them, and the share of all texts whose changed answer would stay. This determines the margin of
multi-label tasks.
"""

from __future__ import annotations

import json
from pathlib import Path

import click
import numpy as np

from edgetune.bench.latency import machine
from edgetune.data.labelled import Columns, read_labelled
from edgetune_runtime import Engine, Task
from edgetune_runtime.kinds.multi_label import MULTI_LABEL, thresholds

DISTANCES = (0.05, 0.1, 0.15, 0.2, 0.3, 0.4)


@click.command()
@click.argument("bundle", type=click.Path(path_type=Path))
@click.argument("task_file", type=click.Path(path_type=Path))
@click.argument("source")
@click.option("--rows", default=1_500, show_default=True)
def main(bundle: Path, task_file: Path, source: str, rows: int) -> None:
    """Measure."""
    task = Task.load(task_file)
    texts = [row.given for row in read_labelled(source, Columns(), kind=MULTI_LABEL).rows[:rows]]
    limits = thresholds(task)
    away = {}
    for precision in ("fp32", "int8"):
        with Engine(bundle, precision) as engine:
            engine.add_task(task)
            tokens = engine.encode(texts, [task] * len(texts))
            logits = np.stack(engine.run([(own, task) for own in tokens]))
        away[precision] = logits / task.temperature - np.log(limits / (1 - limits))
    changed = ((away["fp32"] > 0) != (away["int8"] > 0)).any(axis=1)
    closest = np.abs(away["int8"]).min(axis=1)
    spread = float((away["int8"] - away["fp32"]).std())
    click.echo(f"{len(texts):,} texts; int8 moves logits by {spread:.3f} (standard deviation)")
    click.echo(f"int8 changes {changed.mean():.1%} of the answers")
    click.echo(f"{'distance':>10}{'answered again':>16}{'changes caught':>16}{'changes left':>14}")
    found = []
    for distance in DISTANCES:
        close = closest < distance
        again, left = float(close.mean()), float((changed & ~close).mean())
        caught = float((changed & close).sum() / max(1, changed.sum()))
        found.append({"distance": distance, "again": again, "caught": caught, "left": left})
        click.echo(f"{distance:>10.2f}{again:>16.1%}{caught:>16.1%}{left:>14.2%}")
    click.echo(json.dumps({"machine": machine(1), "task": task.name, "spread": spread, "distances": found}))


if __name__ == "__main__":
    main()
