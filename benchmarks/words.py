"""How much longer a text takes if each of its words is answered, compared with one label for the whole text.

    python benchmarks/words.py BUNDLE > words.txt

Both tasks are heads of random numbers on the same backbone. A call is `Engine.classify` of one text, or of many, on one
thread: from the texts to their answers. The tasks take turns; medians of ms per text, and their ratio. The texts are
English words of one token each, as many as leave so many tokens with the special ones. One word in ten is an entity.
"""

from __future__ import annotations

import itertools
import json
import random
import statistics
import time
from pathlib import Path

import click
import numpy as np
from shared import machine

from edgetune_runtime import Engine, Task, contract
from edgetune_runtime.kinds import KINDS

TOKENS = (32, 128)
WORDS = ("the", "of", "and", "to", "in", "that", "was", "for", "it", "with", "as", "his", "on", "be", "at", "by")
BULK = 256
BULK_EACH = 20
"""Calls of many texts are this many times fewer."""
OUTSIDE_BIAS = 1.0
LABELS = {"single-label": 13, "tokens": 6}
"""Kind → labels: both heads have 13 rows."""


def task_of(engine: Engine, kind: str) -> Task:
    """A task of a kind with a random head."""
    facts, chance = engine.bundle.facts, np.random.default_rng(0)
    labels = tuple(f"label{place}" for place in range(LABELS[kind]))
    rows = KINDS[kind].head_rows(len(labels))
    head = {
        name: chance.normal(0, 0.05, facts.sizes.of(contract.TASK_TENSORS[name], labels=rows)).astype(np.float32)
        for name in (contract.HEAD_WEIGHT, contract.HEAD_BIAS)
    }
    head[contract.HEAD_BIAS][0] += OUTSIDE_BIAS * (kind == "tokens")
    return Task(kind, labels, facts.sha256, head, "random", facts.name, "mean", kind_name=kind)


def text_of(engine: Engine, task: Task, tokens: int, seed: int) -> str:
    """A text of so many tokens."""
    chosen = random.Random(seed).choices(WORDS, k=tokens)
    while len(engine.encode([" ".join(chosen)], [task])[0].ids) > tokens:
        chosen.pop()
    return " ".join(chosen)


def medians_ms(engine: Engine, texts: list[str], turns: int) -> dict[str, float]:
    """Kind → median of the milliseconds per text."""
    times_ms: dict[str, list[float]] = {kind: [] for kind in LABELS}
    for turn in range(turns + 5):
        for kind in random.Random(turn).sample(list(LABELS), len(LABELS)):
            began = time.perf_counter()
            engine.classify(texts, kind)
            if turn >= 5:  # the first ones open the graphs
                times_ms[kind].append(1000 * (time.perf_counter() - began) / len(texts))
    return {kind: statistics.median(times) for kind, times in times_ms.items()}


@click.command()
@click.argument("bundle", type=click.Path(path_type=Path))
@click.option("--turns", default=300, show_default=True)
def main(bundle: Path, turns: int) -> None:
    """Measure."""
    found = []
    click.echo(f"{'precision':<11}{'texts':>6}{'tokens':>7}{'one label, ms':>15}{'words, ms':>11}{'ratio':>8}")
    for precision in ("fp32", "int8"):
        with Engine(bundle, precision, threads=1) as engine:
            for kind in LABELS:
                engine.add_task(task_of(engine, kind))
            for rows, tokens in itertools.product((1, BULK), TOKENS):
                texts = [text_of(engine, engine.task("tokens"), tokens, tokens + row) for row in range(rows)]
                medians = medians_ms(engine, texts, turns if rows == 1 else max(1, turns // BULK_EACH))
                ratio = medians["tokens"] / medians["single-label"]
                times = f"{medians['single-label']:>15.3f}{medians['tokens']:>11.3f}"
                click.echo(f"{precision:<11}{rows:>6}{tokens:>7}{times}{ratio:>8.3f}")
                found.append(
                    {
                        "precision": precision,
                        "texts": rows,
                        "tokens": tokens,
                        "median_ms": medians,
                        "ratio": round(ratio, 4),
                    }
                )
    click.echo(json.dumps({"machine": machine(1), "base_model": engine.bundle.facts.name, "words": found}))


if __name__ == "__main__":
    main()
