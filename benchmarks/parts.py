"""The cost of each part of a task at run time: tasks with different parts take turns in one engine.

    python benchmarks/parts.py run BUNDLE --out benchmarks/results/parts_speed.jsonl
    python benchmarks/parts.py table benchmarks/results/parts_speed.jsonl > benchmarks/results/parts_speed.md

Tasks have random numbers. Each turn runs every task once, in a different order, so that other load on the computer
affects all of them equally. Ratios are between medians. Each text uses one thread, as in a server.
"""

from __future__ import annotations

import json
import random
import statistics
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import click
import numpy as np

from edgetune.bench.latency import machine
from edgetune_runtime import Engine, Task, contract
from edgetune_runtime.contract import rank
from edgetune_runtime.facts import BackboneFacts
from edgetune_runtime.parts import PARTS

TASKS: dict[str, dict[str, int]] = {
    "no part": {},
    "prefix 20": {"prefix": 20},
    "prefix 48": {"prefix": 48},
    "low rank 8": {"low-rank": 8},
    "units 16": {"units": 16},
    "strong": {"low-rank": 8, "units": 16},
    "strong, prefix 16": {"prefix": 16, "low-rank": 8, "units": 16},
    "rank 8 everywhere": {"everywhere": 8},
}
"""Title → parts and their lengths; `everywhere` is low rank in all linear layers."""

SIZES = ((1, 12), (1, 32), (1, 128), (16, 32))
"""Texts and their tokens."""


@click.group()
def cli() -> None:
    """Measure what parts cost."""


@cli.command()
@click.argument("bundle", type=click.Path(path_type=Path))
@click.option("--precision", "precisions", multiple=True, default=("fp32", "int8"), show_default=True)
@click.option("--turns", default=40, show_default=True)
@click.option("--out", type=click.Path(path_type=Path), required=True, help="Results, one JSON object a line.")
def run(bundle: Path, precisions: tuple[str, ...], turns: int, out: Path) -> None:
    """Time the tasks in turns; a line for each size and precision."""
    for precision in precisions:
        with Engine(bundle, precision, threads=1) as engine:
            tasks = {title: random_task(engine.bundle.facts, parts) for title, parts in TASKS.items()}
            for texts, tokens in SIZES:
                times_ms = taking_turns(engine, tasks, texts, tokens, turns)
                result: dict[str, Any] = {"base_model": engine.bundle.facts.name, "precision": precision}
                result |= {"texts": texts, "tokens": tokens, "median_ms": times_ms, **machine(1)}
                with out.open("a") as file:
                    file.write(json.dumps(result) + "\n")
                click.echo(json.dumps(result))


def random_task(facts: BackboneFacts, parts: Mapping[str, int]) -> Task:
    """A task of random numbers with these parts."""
    chance = np.random.default_rng(0)
    everywhere = parts.get("everywhere", 0)
    taken = facts.inputs_of("full" if everywhere else "light")
    lengths = {"labels": 2, "prefix": parts.get("prefix", 0), "units": parts.get("units", 0)}
    lengths |= {rank(site): everywhere or parts.get("low-rank", 0) for site in contract.SITES}
    own = [part for part in PARTS.values() if part.tensors[0] in taken and lengths.get(part.length)]
    shapes = {name: facts.sizes.of(contract.TASK_TENSORS[name], **lengths) for part in own for name in part.tensors}
    tensors = {name: chance.normal(0, 0.05, shape).astype(np.float32) for name, shape in shapes.items()}
    return Task("bench", ("a", "b"), facts.sha256, tensors, "random", facts.name, facts.poolings[0])


def taking_turns(engine: Engine, tasks: Mapping[str, Task], texts: int, tokens: int, turns: int) -> dict[str, float]:
    """Median milliseconds of each task."""
    vocabulary = engine.bundle.vocabulary_size()
    ids = np.random.default_rng(1).integers(5, vocabulary, (texts, tokens)).tolist()
    times_ms: dict[str, list[float]] = {title: [] for title in tasks}
    order = list(tasks)
    for turn in range(turns + 2):
        random.Random(turn).shuffle(order)
        for title in order:
            rows = [(row, tasks[title]) for row in ids]
            began = time.perf_counter()
            engine.run(rows)
            if turn >= 2:  # the first ones open the graphs
                times_ms[title].append(1000 * (time.perf_counter() - began))
    return {title: round(statistics.median(times), 4) for title, times in times_ms.items()}


@cli.command()
@click.argument("results", type=click.Path(path_type=Path))
def table(results: Path) -> None:
    """Print the results as Markdown: milliseconds without a part, and the relative time of the others."""
    runs = [json.loads(line) for line in results.read_text().splitlines()]
    others = [title for title in TASKS if title != "no part"]
    click.echo(f"| backbone | precision | texts × tokens | no part, ms | {' | '.join(others)} |")
    click.echo(f"|---|---|---|---|{'---|' * len(others)}")
    for one in runs:
        times_ms = one["median_ms"]
        ratios = " | ".join(f"{times_ms[title] / times_ms['no part']:.3f}" for title in others)
        size = f"{one['texts']} × {one['tokens']}"
        click.echo(f"| {one['base_model']} | {one['precision']} | {size} | {times_ms['no part']:.2f} | {ratios} |")
    where = runs[-1]
    click.echo(f"\n{where['cpu']}, one thread, int8 dot product: {where['int8_dot_product']}, {where['date']}.")


if __name__ == "__main__":
    cli()
