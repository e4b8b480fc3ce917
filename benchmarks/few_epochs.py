"""The number of epochs that a few hundred rows need, judged by 800 other training rows and never by test rows.

    python benchmarks/few_epochs.py MODEL DATA_FOLDER/trec6 --bundle BUNDLE --rows 75 --way fit --way strong --epochs 4

Rows are drawn from train.jsonl, a fixed number per label. Prints one JSON object; results/few_epochs.jsonl keeps them.
"""

from __future__ import annotations

import json
import random
import tempfile
import time
from collections import Counter
from pathlib import Path

import click
import numpy as np

from edgetune.data.labelled import read_labelled
from edgetune.training import TaskData, TrainingOptions, train
from edgetune_export.loading import load_backbone
from edgetune_runtime import Engine
from edgetune_runtime.kinds.single_label import SINGLE_LABEL

JUDGES = 800
WAYS = ("fit", "contrastive", "strong", "prefix")


@click.command()
@click.argument("model")
@click.argument("folder", type=click.Path(path_type=Path))
@click.option("--bundle", type=click.Path(path_type=Path), required=True, help="MODEL, exported.")
@click.option("--rows", default=75, show_default=True, help="Labelled texts per label.")
@click.option("--sample", default=0, show_default=True)
@click.option("--way", type=click.Choice(WAYS), required=True)
@click.option("--epochs", type=int, help="Of strong and prefix.")
def main(model: str, folder: Path, bundle: Path, rows: int, sample: int, way: str, epochs: int | None) -> None:
    """Measure one way to train with few rows."""
    given = list(read_labelled(str(folder / "train.jsonl"), kind=SINGLE_LABEL).rows)
    random.Random(5000 + sample).shuffle(given)
    taken: Counter[str] = Counter()
    own, others = [], []
    for row in given:
        taken[str(row.target)] += 1
        (own if taken[str(row.target)] <= rows else others).append(row)
    judges, began = others[:JUDGES], time.monotonic()
    with tempfile.TemporaryDirectory() as scratch, Engine(bundle) as engine:
        if way == "fit":
            engine.fit([row.text for row in own], [row.target for row in own], "few", seed=sample, store=False)
        else:
            how = {"recipe": way} if way == "contrastive" else {"recipe": "epochs", "method": way, "epochs": epochs}
            options = TrainingOptions(seed=sample, keep_prompt=way != "contrastive", **how)
            (report,) = train(load_backbone(model), [TaskData("few", Path(scratch) / "few", own, [])], options)
            engine.add_task(report.task)
        results = engine.classify([row.text for row in judges], "few")
    accuracy = float(np.mean([result.best == row.target for result, row in zip(results, judges, strict=True)]))
    found = {"data": folder.name, "k": rows, "sample": sample, "way": f"{way}{epochs or ''}", "accuracy": accuracy}
    click.echo(json.dumps({**found, "seconds": round(time.monotonic() - began)}))


if __name__ == "__main__":
    main()
