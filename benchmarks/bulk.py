"""Rows per second on real texts of mixed length: the engine compared with padded batches, on the same int8 graph.

    python benchmarks/bulk.py BUNDLE DATA_FOLDER

Texts are in the order of DATA_FOLDER/NAME/test.jsonl, and each contender tokenizes them. Batches have 16 rows, in order
of arrival or sorted by length over all rows of a turn. In int8 the answers in a batch depend on its other rows, which
is why the engine does not use batches. The task is a random prefix of 20.
"""

from __future__ import annotations

import json
import statistics
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import click
import numpy as np

from edgetune.bench.latency import Cell, machine, random_task
from edgetune.data.labelled import read_labelled
from edgetune_runtime import Bundle, Engine, Task, bank, contract
from edgetune_runtime.cpus import available_threads
from edgetune_runtime.prepared import open_graph
from edgetune_runtime.text import Tokens

DATA, BATCH_SIZE, TURN_ROWS = ("ag_news", "sst2", "clinc150"), 16, 512
ARRIVAL = "batches, arrival order"
PAUSE_S = 0.05  # lets the other contenders' threads go to sleep

Classify = Callable[[Sequence[str]], Any]


def batches(bundle: Bundle, task: Task, threads: int, by_length: bool) -> Classify:
    """Classify in padded batches, all threads inside each."""
    session = open_graph(bundle, "int8", threads)
    stacked = bank.stack([task], bundle.manifest.facts.sizes)
    engine = Engine(bundle, "int8", threads=threads)

    def run(rows: Sequence[Tokens]) -> Any:
        ids = np.zeros((len(rows), max(len(row.ids) for row in rows)), np.int64)
        mask = np.zeros_like(ids)
        for place, row in enumerate(rows):
            ids[place, : len(row.ids)], mask[place, : len(row.ids)] = row.ids, 1
        text = {contract.INPUT_IDS: ids, contract.ATTENTION_MASK: mask}
        text[contract.TASK_INDEX] = np.zeros(len(rows), np.int64)
        return session.run([contract.LOGITS], {**text, **stacked})

    def classify(texts: Sequence[str]) -> None:
        rows = engine.encode(texts, [task] * len(texts))
        if by_length:
            rows.sort(key=lambda row: len(row.ids))
        for start in range(0, len(rows), BATCH_SIZE):
            run(rows[start : start + BATCH_SIZE])

    return classify


def one_by_one(bundle: Bundle, task: Task, threads: int) -> Classify:
    """Classify with the engine."""
    engine = Engine(bundle, "int8", threads=threads)
    engine.add_task(task)
    return lambda texts: engine.classify(texts, task=task.name)


def turns(texts: Sequence[str]) -> Iterator[Sequence[str]]:
    """The texts in parts, one for each turn."""
    for start in range(0, len(texts), TURN_ROWS):
        yield texts[start : start + TURN_ROWS]


def measure(bundle: Bundle, texts: Sequence[str], threads: int) -> dict[str, Any]:
    """Rows per second of every contender, and the share of tokenizing in the engine's time."""
    task = random_task(bundle.manifest, Cell("prefix", 20, 1, 1))
    contenders = {
        ARRIVAL: batches(bundle, task, threads, by_length=False),
        "batches, sorted by length": batches(bundle, task, threads, by_length=True),
        "edgetune": one_by_one(bundle, task, threads),
        "edgetune, one thread": one_by_one(bundle, task, 1),
    }
    seconds: dict[str, list[float]] = {name: [] for name in contenders}
    tokenizing = []
    engine = Engine(bundle, "int8", threads=threads)
    for classify in contenders.values():
        classify(texts[:BATCH_SIZE])
    for part in turns(texts):
        for name, classify in contenders.items():
            time.sleep(PAUSE_S)
            began = time.perf_counter()
            classify(part)
            seconds[name].append((time.perf_counter() - began) / len(part))
        began = time.perf_counter()
        engine.encode(part, [task] * len(part))
        tokenizing.append((time.perf_counter() - began) / len(part))
    speeds = {name: round(1 / statistics.median(values), 1) for name, values in seconds.items()}
    share = statistics.median(tokenizing) * speeds["edgetune"]
    return {"rows": len(texts), "rows_per_second": speeds, "tokenizing_share": round(share, 4)}


@click.command()
@click.argument("bundle", type=click.Path(exists=True, file_okay=False))
@click.argument("folder", type=click.Path(exists=True, file_okay=False, path_type=Path))
@click.option("--rows", default=4096, show_default=True, help="Most rows of a data set.")
@click.option("--threads", type=click.IntRange(1), help="[default: all]")
@click.option("--quick", is_flag=True, help="One turn of each data set.")
def main(bundle: str, folder: Path, rows: int, threads: int | None, quick: bool) -> None:
    """Measure throughput over real texts."""
    threads = threads or available_threads()
    found = {}
    for name in DATA:
        click.echo(f"{name}: classifying", err=True)
        texts = [row.text for row in read_labelled(str(folder / name / "test.jsonl"))][: TURN_ROWS if quick else rows]
        found[name] = measure(Bundle(bundle), texts, threads)
    names = list(found[DATA[0]]["rows_per_second"])
    click.echo(
        f"| data | rows | {' | '.join(names)} | vs arrival order | {threads} threads vs 1 | tokenizing |\n"
        + "|---" * (len(names) + 5)
        + "|"
    )
    for name, row in found.items():
        speeds = row["rows_per_second"]
        cells = " | ".join(f"{speed:.0f}" for speed in speeds.values())
        ratio, scaling = speeds["edgetune"] / speeds[ARRIVAL], speeds["edgetune"] / speeds["edgetune, one thread"]
        click.echo(
            f"| {name} | {row['rows']} | {cells} | {ratio:.2f}× | {scaling:.2f}× | {row['tokenizing_share']:.1%} |"
        )
    click.echo(json.dumps({"environment": machine(threads), "bulk": found}))


if __name__ == "__main__":
    main()
