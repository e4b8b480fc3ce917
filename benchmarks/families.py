"""int8 compared with PyTorch on encoders of random weights: one text of 32 tokens, and sixteen.

    python benchmarks/families.py --model deberta-v3-small --model mpnet-base

Each model is exported, and the contenders take turns in one run, as in `edgetune bench`. A line of JSON for each model.
Run it on an idle machine.
"""

from __future__ import annotations

import json
import tempfile
from pathlib import Path

import click
from random_models import MODELS, make

from edgetune.bench.latency import grid, measure
from edgetune_export import export_bundle, load_backbone
from edgetune_runtime import Bundle


@click.command()
@click.option(
    "--model", "names", multiple=True, type=click.Choice(list(MODELS)), default=["deberta-v3-small", "mpnet-base"]
)
@click.option("--seconds", default=8.0, show_default=True, help="About how long each cell is measured.")
@click.option("--threads", type=int, help="Of each contender. [default: all]")
def main(names: tuple[str, ...], seconds: float, threads: int | None) -> None:
    """Measure."""
    for name in names:
        with tempfile.TemporaryDirectory() as temporary:
            model, folder = Path(temporary) / name, Path(temporary) / "bundle"
            make(name, "float32", model)
            export_bundle(load_backbone(str(model)), folder, precisions=("fp32", "int8"))
            report = measure(
                Bundle(folder),
                grid(["prefix"], [0, 20], [32], [1, 16]),
                precisions=["fp32", "int8"],
                torch_model=str(model),
                threads=threads,
                seconds_per_cell=seconds,
            )
            print(json.dumps({"model": name, **report.to_dict()}), flush=True)


if __name__ == "__main__":
    main()
