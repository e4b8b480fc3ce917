"""Tasks on six data sets and texts for them, and how far two runtimes' answers to them agree."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import click

from edgetune.bench.latency import Cell, random_task
from edgetune.data.labelled import read_labelled
from edgetune_export import load_backbone
from edgetune_export.export import export_bundle
from edgetune_runtime import Bundle, Engine

ROOT = Path(__file__).resolve().parent.parent
sys.path[:0] = [str(ROOT / "tests/machines")]

from on_machine import BOTH, answers_to  # noqa: E402

SETS = ("sst2", "trec6", "ag_news", "clinc150", "goemotions", "sick_entailment")
FITTED_ROWS = 1000
WITH_PARTS = "parts"
PRECISIONS = ("fp32", "int8", BOTH)

Row = dict[str, Any]


def make_bundle(model: str, data: Path, folder: Path) -> None:
    """Export the model, and fit a task to each data set."""
    export_bundle(load_backbone(model), folder, precisions=["fp32", "int8"])
    with Engine(folder, "fp32") as engine:
        for name in SETS:
            click.echo(f"fitting {name}", err=True)
            rows = read_labelled(str(data / name / "train.jsonl")).rows
            some = rows[:: max(1, len(rows) // FITTED_ROWS)][:FITTED_ROWS]  # they may be sorted by label
            engine.fit([row.given for row in some], [row.target for row in some], name)
    bundle = Bundle(folder)
    bundle.add_task(random_task(bundle.manifest, Cell("low-rank", 8, 1, 1)).renamed(WITH_PARTS))


def test_rows(data: Path, number: int) -> list[Row]:
    """Test texts of the data sets, each for the task of its set; those of the first one for the task with parts too."""
    found: list[Row] = []
    for name in SETS:
        rows = read_labelled(str(data / name / "test.jsonl")).rows
        for row in rows[:: len(rows) // (number // len(SETS))][: number // len(SETS)]:
            pair = {} if row.text_pair is None else {"text_pair": row.text_pair}
            tasks = (name, WITH_PARTS) if name == SETS[0] else (name,)
            found += [{"task": task, "text": row.text, **pair} for task in tasks]
    return found


def python_answers(bundle: Path, precision: str, rows: Sequence[Row]) -> list[Row]:
    """What Python's engine answers here, on one thread."""
    with Engine(bundle, None if precision == BOTH else precision, threads=1) as engine:
        return answers_to(engine, rows)


def agreement(expected: Sequence[Row], got: Sequence[Row]) -> Row:
    """How many answers have the same ids and the same labels, and how far probabilities differ."""
    pairs = list(zip(expected, got, strict=True))
    off = [max(abs(a - b) for a, b in zip(one["probs"], other["probs"], strict=True)) for one, other in pairs]
    return {
        "texts": len(pairs),
        "same_ids": sum(one["ids"] == other["ids"] for one, other in pairs),
        "same_labels": sum((one["said"] or []) == (other["said"] or []) for one, other in pairs),
        "largest_difference": max(off),
    }
