"""The cost of many tasks on one backbone: memory, loading, swapping, and rows of many tasks at once.

    python benchmarks/tasks.py BUNDLE

Tasks are random prefixes or soft prompts of 20 with two labels. Memory is the private memory of the process (Linux),
with a separate process for each number of tasks, after every task has answered once.
"""

from __future__ import annotations

import dataclasses
import json
import statistics
import tempfile
import time
from concurrent.futures import ProcessPoolExecutor
from itertools import pairwise
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import click

from edgetune.bench.latency import Cell, machine, random_rows, random_task
from edgetune_runtime import Bundle, Engine, Task
from edgetune_runtime.cpus import available_threads

COUNTS, QUICK_COUNTS = (1, 10, 100, 1000), (1, 50)
PROMPT_LENGTH, TOKENS, MIXED_ROWS = 20, 32, 32
METHODS = ("prefix", "prompt")
TEXT = "a gorgeous , witty , seductive movie ."


def private_mb() -> float:
    """Private memory of this process in megabytes."""
    lines = Path("/proc/self/smaps_rollup").read_text().splitlines()
    return sum(int(line.split()[1]) for line in lines if line.startswith(("Private_", "Swap:"))) / 1024


def write_tasks(bundle: Bundle, method: str, count: int, folder: Path) -> list[Path]:
    """Task files of random numbers, all different."""
    task = random_task(bundle.manifest, Cell(method, PROMPT_LENGTH, TOKENS, 1))
    paths = []
    for place in range(count):
        tensors = {name: array + place for name, array in task.tensors.items()}
        paths.append(folder / f"{method}{place}.safetensors")
        dataclasses.replace(task, name=f"{method}{place}", tensors=tensors).save(paths[-1])
    return paths


def resident(bundle: str, paths: list[Path]) -> dict[str, float]:
    """Load tasks and use each once. Prints the seconds and megabytes."""
    engine = Engine(bundle, "int8")
    warm = Task.load(paths[0]).renamed("warm")
    engine.add_task(warm)
    engine.classify([TEXT] * 4, task="warm")
    engine.classify([TEXT], task="warm")
    before, began = private_mb(), time.perf_counter()
    names = [engine.add_task(path).name for path in paths]
    seconds = time.perf_counter() - began
    for name in names:
        engine.classify([TEXT], task=name)
    return {"load_s": round(seconds, 4), "mb": round(private_mb() - before, 2)}


def in_process(bundle: str, paths: list[Path]) -> dict[str, float]:
    """`resident` in a new process."""
    with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as pool:
        return pool.submit(resident, bundle, paths).result()


def swapping(bundle: Bundle, paths: list[Path], seconds: float) -> dict[str, float]:
    """Milliseconds of a run, of adding another task to the engine, and of a run with a different task each time."""
    tasks = [Task.load(path) for path in paths[:10]]
    (row,) = random_rows(bundle, Cell("prefix", PROMPT_LENGTH, TOKENS, 1))
    times: dict[str, list[float]] = {"run_ms": [], "swap_ms": [], "run_swapped_ms": []}
    with Engine(bundle, "int8") as engine:
        turn = 0
        began = time.perf_counter()
        while time.perf_counter() - began < seconds:
            turn += 1
            task = dataclasses.replace(tasks[turn % len(tasks)], name="active")
            moments = [time.perf_counter()]
            engine.add_task(task)
            moments.append(time.perf_counter())
            engine.run([(row, engine.task("active"))])
            moments.append(time.perf_counter())
            engine.run([(row, engine.task("active"))])
            moments.append(time.perf_counter())
            steps = [(after - before) * 1000 for before, after in pairwise(moments)]
            for name, value in zip(("swap_ms", "run_swapped_ms", "run_ms"), steps, strict=True):
                times[name].append(value)
    return {name: round(statistics.median(values), 4) for name, values in times.items()}


def mixed(bundle: Bundle, paths: list[Path], seconds: float) -> dict[str, float]:
    """Rows per second, with 32 rows of one task and of 32 tasks, in turns."""
    rows = random_rows(bundle, Cell("prefix", PROMPT_LENGTH, TOKENS, MIXED_ROWS))
    with Engine(bundle, "int8") as engine:
        tasks = [engine.add_task(path) for path in paths[:MIXED_ROWS]]
        contenders = {
            "one_task": [(row, tasks[0]) for row in rows],
            "mixed_tasks": list(zip(rows, tasks, strict=True)),
        }
        times: dict[str, list[float]] = {name: [] for name in contenders}
        began = time.perf_counter()
        while time.perf_counter() - began < seconds:
            for name, pairs in contenders.items():
                start = time.perf_counter()
                engine.run(pairs)
                times[name].append(time.perf_counter() - start)
    return {name: round(MIXED_ROWS / statistics.median(values), 1) for name, values in times.items()}


@click.command()
@click.argument("bundle", type=click.Path(exists=True, file_okay=False))
@click.option("--seconds", default=10.0, show_default=True, help="Time for each comparison.")
@click.option("--quick", is_flag=True, help="Fewer tasks, a second for each comparison.")
def main(bundle: str, seconds: float, quick: bool) -> None:
    """Measure the cost of tasks."""
    counts = QUICK_COUNTS if quick else COUNTS
    seconds = 1.0 if quick else seconds
    opened = Bundle(bundle)
    found: dict[str, Any] = {}
    with tempfile.TemporaryDirectory() as scratch:
        for method in METHODS:
            paths = write_tasks(opened, method, max(counts), Path(scratch))
            size_mb = paths[0].stat().st_size / 1024**2
            found[method] = {"task_mb": round(size_mb, 4), "resident": {}}
            for count in counts:
                click.echo(f"{method}: {count} tasks", err=True)
                found[method]["resident"][count] = in_process(bundle, paths[:count])
            found[method] |= swapping(opened, paths, seconds) | mixed(opened, paths, seconds)
    click.echo(
        "| kind | tasks | their files, MB | memory, MB | vs their files | loading, s |\n|---|---|---|---|---|---|"
    )
    for method, figures in found.items():
        for count, row in figures["resident"].items():
            own = count * figures["task_mb"]
            click.echo(
                f"| {method} | {count:,} | {own:.2f} | {row['mb']:.2f} | {row['mb'] / own:.2f}× | {row['load_s']} |"
            )
    click.echo("\n| kind | run, ms | swap, ms | share | first run after it, ms | rows/s, one task | 32 tasks | share |")
    click.echo("|---|---|---|---|---|---|---|---|")
    for method, row in found.items():
        click.echo(
            f"| {method} | {row['run_ms']:.2f} | {row['swap_ms']:.3f} | {row['swap_ms'] / row['run_ms']:.2%} | "
            f"{row['run_swapped_ms']:.2f} | {row['one_task']} | {row['mixed_tasks']} | "
            f"{row['mixed_tasks'] / row['one_task']:.2f} |"
        )
    click.echo(json.dumps({"environment": machine(available_threads()), "tasks": found}))


if __name__ == "__main__":
    main()
