"""The cost of tasks that share a pass: twenty heads on one text, and a bulk run of five tasks with one prompt.

    python benchmarks/shared.py BUNDLE ROWS.jsonl --rows 4000

Both sides take turns in one run; medians and their ratio are printed. All tasks are random. The engine runs on one
thread; `edgetune score` is run from start to end, with one worker.
"""

from __future__ import annotations

import json
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import replace
from itertools import cycle, islice
from pathlib import Path
from shutil import copytree, rmtree

import click
import numpy as np

from edgetune.bench.latency import Cell, machine, random_task
from edgetune_runtime import Bundle, Engine, Task

TEXT = "the new speaker sounds great and the parcel came early but one lamp is broken, please send the money back today"
HEADS, SCORED = 20, 5


def with_other_heads(task: Task, number: int) -> list[Task]:
    """Tasks with the same parts and different heads."""
    random = np.random.default_rng(0)
    heads = [
        {name: tensor + random.normal(0, 0.1, tensor.shape).astype(np.float32) for name, tensor in task.tensors.items()
         if name.startswith("head")}
        for _ in range(number)
    ]  # fmt: skip
    return [
        replace(task, name=f"{task.name}-{place}", tensors={**task.tensors, **head}) for place, head in enumerate(heads)
    ]


def in_turns(sides: dict[str, Callable[[], object]], turns: int) -> dict[str, float]:
    """Median time of each side, in milliseconds."""
    times: dict[str, list[float]] = {name: [] for name in sides}
    for _ in range(turns):
        for name, side in sides.items():
            began = time.perf_counter()
            side()
            times[name].append(1000 * (time.perf_counter() - began))
    return {name: statistics.median(found) for name, found in times.items()}


@click.command()
@click.argument("bundle", type=click.Path(path_type=Path, resolve_path=True))
@click.argument("source", type=click.Path(path_type=Path))
@click.option("--rows", default=4_000, show_default=True)
@click.option("--turns", default=400, show_default=True, help="Of one text.")
@click.option("--runs", default=3, show_default=True, help="Of each bulk run.")
def main(bundle: Path, source: Path, rows: int, turns: int, runs: int) -> None:
    """Measure."""
    found: dict[str, dict[str, float]] = {}
    manifest = Bundle(bundle).manifest
    bare = random_task(manifest, Cell("prefix", 0, 32, 1)).renamed("bare")
    for precision in manifest.graphs:
        with Engine(bundle, precision, threads=1) as engine:
            names = [engine.add_task(task).name for task in with_other_heads(bare, HEADS)]
            sides = {
                "one": lambda engine=engine, names=names: engine.classify([TEXT], task=names[0]),
                "twenty": lambda engine=engine, names=names: engine.classify([TEXT] * HEADS, tasks=names),
            }
            in_turns(sides, 20)
            found[f"{HEADS} heads, {precision}, ms"] = in_turns(sides, turns)
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        copied = Bundle(copytree(bundle, folder / "bundle"))
        prompted = with_other_heads(random_task(manifest, Cell("prefix", 20, 32, 1)).renamed("prompted"), SCORED)
        for task in prompted:
            copied.add_task(task)
        texts = islice(cycle(source.read_text(encoding="utf-8").splitlines()), rows)
        (folder / "rows.jsonl").write_text("\n".join(texts) + "\n", encoding="utf-8")

        def score(number: int) -> None:
            rmtree(folder / "out", ignore_errors=True)
            command = [sys.executable, "-m", "edgetune", "score", folder / "bundle", folder / "rows.jsonl"]
            command += ["--task", ",".join(task.name for task in prompted[:number]), "--precision", "int8"]
            command += ["--workers", "1", "--out", folder / "out"]
            subprocess.run(list(map(str, command)), check=True, capture_output=True)

        score(SCORED)
        found[f"score, {rows:,} rows, {SCORED} tasks, int8, ms"] = in_turns(
            {"one": lambda: score(1), "five": lambda: score(SCORED)}, runs
        )
    click.echo(f"{'what':<40}{'one':>12}{'several':>12}{'ratio':>9}")
    for what, (one, several) in ((what, own.values()) for what, own in found.items()):
        click.echo(f"{what:<40}{one:>12,.2f}{several:>12,.2f}{several / one:>8.2f}×")
    click.echo(json.dumps({"machine": machine(1), "base_model": manifest.facts.name, "times_ms": found}))


if __name__ == "__main__":
    main()
