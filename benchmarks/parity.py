"""Parity on a real backbone: PyTorch compared with the exported graph, and the engine's answers alone and in company.

    python benchmarks/parity.py MODEL BUNDLE TEXTS.jsonl

Two tables. The first: largest difference of logits between PyTorch and the fp32 engine, for soft prompts and
prefixes of lengths 0, 1 and 20, in padded batches of one task and of all tasks mixed. The second: largest difference of
scores for the same text and task, alone and together with other texts and tasks.
"""

from __future__ import annotations

import json
import random
import time
from importlib.metadata import version
from pathlib import Path

import click
import numpy as np

from edgetune.bench.latency import Cell, random_task
from edgetune.data.labelled import read_labelled
from edgetune_export import load_backbone
from edgetune_export.parity import torch_logits
from edgetune_runtime import Bundle, Engine, Task
from edgetune_runtime.session import cpu_name

LENGTHS = (0, 1, 20)


@click.command()
@click.argument("model")
@click.argument("bundle", type=click.Path(path_type=Path))
@click.argument("texts", type=click.Path(path_type=Path))
@click.option("--rows", default=200, show_default=True, help="Texts to use.")
def main(model: str, bundle: Path, texts: Path, rows: int) -> None:
    """Measure parity."""
    opened = Bundle(bundle)
    some = [row.text for row in read_labelled(str(texts))][:rows]
    backbone = load_backbone(model)
    tasks = {
        f"{method}-{length}": random_task(opened.manifest, Cell(method, length, 1, 1)).renamed(f"{method}-{length}")
        for method in ("prompt", "prefix")
        for length in LENGTHS
    }
    expected = {name: torch_logits(backbone, task, some) for name, task in tasks.items()}
    with Engine(opened, "fp32", batch_size=16) as engine:
        parity = {name: largest(logits(engine, some, [task] * rows), expected[name]) for name, task in tasks.items()}
        mixture = [list(tasks)[place % len(tasks)] for place in range(rows)]
        wanted = [expected[name][place] for place, name in enumerate(mixture)]
        parity["all mixed in one batch"] = largest(logits(engine, some, [tasks[name] for name in mixture]), wanted)
    click.echo(f"{'PyTorch and fp32, batches of 16':<34}largest difference of logits")
    for name, difference in parity.items():
        click.echo(f"{name:<34}{difference:.1e}")

    company = {
        precision: in_company(opened, precision, some, list(tasks.values())) for precision in opened.manifest.graphs
    }
    click.echo(f"\n{'one text alone, and in company':<34}largest difference of scores")
    for precision, difference in company.items():
        click.echo(f"{precision:<34}{difference:.1e}")
    packages = {name: version(name) for name in ("edgetune", "onnxruntime", "torch", "transformers")}
    figures = {"texts": rows, "logits": parity, "scores_in_company": company}
    click.echo(json.dumps({**figures, "cpu": cpu_name(), "date": time.strftime("%Y-%m-%d"), "versions": packages}))


def logits(engine: Engine, texts: list[str], tasks: list[Task]) -> list[np.ndarray]:
    """Logits of texts, in the engine's batches."""
    return engine.run([(row.ids, task) for row, task in zip(engine.encode(texts, tasks), tasks, strict=True)])


def largest(got: list[np.ndarray], expected: list[np.ndarray] | np.ndarray) -> float:
    """The largest difference."""
    return max(float(np.abs(one - other).max()) for one, other in zip(got, expected, strict=True))


def in_company(bundle: Bundle, precision: str, texts: list[str], tasks: list[Task]) -> float:
    """Largest change of a score between a text alone and among all texts with all tasks, shuffled, three times."""
    pairs = [(text, task.name) for text in texts for task in tasks]
    with Engine(bundle, precision) as engine:
        for task in tasks:
            engine.add_task(task)
        alone = {pair: engine.classify([pair])[0].scores for pair in pairs}
        worst = 0.0
        for seed in range(3):
            shuffled = random.Random(seed).sample(pairs, len(pairs))
            for pair, result in zip(shuffled, engine.classify(shuffled), strict=True):
                worst = max(worst, *(abs(result.scores[label] - alone[pair][label]) for label in result.scores))
    return worst


if __name__ == "__main__":
    main()
