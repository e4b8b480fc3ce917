"""Single tasks in this checkout and another: both export and answer, in turns; and the nodes of their graphs.

    python benchmarks/generations.py MODEL --base ../earlier

Each checkout exports MODEL with its own code; then `edgetune bench` of both runs several times, in turns. The ratio is
the other checkout's median divided by this one's: above 1, this one is faster.
"""

from __future__ import annotations

import json
import os
import statistics
import subprocess
import sys
import tempfile
from collections import Counter
from pathlib import Path
from typing import Any

import click
import onnx

from edgetune.bench.latency import machine

HERE = Path(__file__).parents[1]


def run(tree: Path, *arguments: object) -> str:
    """The output of a checkout's edgetune command."""
    path = os.pathsep.join(str(tree / name) for name in ("", "export", "runtime"))
    command = [sys.executable, "-m", "edgetune", *map(str, arguments)]
    return subprocess.run(
        command, env={**os.environ, "PYTHONPATH": path}, cwd=tree, check=True, stdout=subprocess.PIPE, text=True
    ).stdout


def timings(tree: Path, bundle: Path, threads: int, seconds: float) -> dict[str, float]:
    """Cell and precision → median in milliseconds."""
    printed = run(
        tree, "bench", bundle, "--json", "--threads", threads, "--seconds-per-cell", seconds,
        "--prompt-lengths", "0,20,100", "--sequence-lengths", "32,128", "--method", "prefix",
    )  # fmt: skip
    report: dict[str, Any] = json.loads(printed.splitlines()[-1])
    return {
        f"{precision}, prefix {cell['prompt_length']}, {cell['sequence_length']} tokens": timing["median_ms"]
        for cell in report["cells"]
        for precision, timing in cell["contenders"].items()
    }


@click.command()
@click.argument("model", type=click.Path(path_type=Path, resolve_path=True))
@click.option("--base", type=click.Path(path_type=Path, resolve_path=True), required=True, help="Another checkout.")
@click.option("--turns", default=5, show_default=True)
@click.option("--threads", default=1, show_default=True)
@click.option("--seconds-per-cell", default=2.0, show_default=True)
def main(model: Path, base: Path, turns: int, threads: int, seconds_per_cell: float) -> None:
    """Measure."""
    trees = {"this": HERE, "base": base}
    with tempfile.TemporaryDirectory() as temporary:
        bundles = {name: Path(temporary, name) for name in trees}
        nodes = {}
        for name, tree in trees.items():
            run(tree, "export", model, bundles[name])
            graph = onnx.load(bundles[name] / "onnx" / "model.onnx", load_external_data=False).graph
            nodes[name] = Counter(node.op_type for node in graph.node)
        times: dict[str, dict[str, list[float]]] = {}
        for turn in range(turns):
            for name in sorted(trees, reverse=bool(turn % 2)):
                for cell, median in timings(trees[name], bundles[name], threads, seconds_per_cell).items():
                    times.setdefault(cell, {}).setdefault(name, []).append(median)
    click.echo("nodes of the fp32 graph: " + ", ".join(f"{name} {sum(own.values())}" for name, own in nodes.items()))
    changed = {kind: (nodes["base"][kind], nodes["this"][kind]) for kind in sorted({*nodes["base"], *nodes["this"]})}
    click.echo(", ".join(f"{kind} {old}→{new}" for kind, (old, new) in changed.items() if old != new))
    medians = {
        cell: {name: statistics.median(found) for name, found in own.items()} for cell, own in sorted(times.items())
    }
    click.echo(f"{'median of ' + str(turns) + ' medians, ms':<34}{'base':>9}{'this':>9}{'ratio':>8}")
    for cell, own in medians.items():
        click.echo(f"{cell:<34}{own['base']:>9.2f}{own['this']:>9.2f}{own['base'] / own['this']:>7.2f}×")
    ratios = [own["base"] / own["this"] for own in medians.values()]
    click.echo(f"mean of the ratios {statistics.mean(ratios):.3f}")
    counts = {name: sum(own.values()) for name, own in nodes.items()}
    click.echo(json.dumps({"machine": machine(threads), "nodes": counts, "medians_ms": medians}))


if __name__ == "__main__":
    main()
