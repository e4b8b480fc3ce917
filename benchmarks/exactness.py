"""Whether int8 products are exact on this CPU, and the error of inexact ones: edgetune compared with CTranslate2.

    python benchmarks/exactness.py MINILM --work FOLDER         (FOLDER as in peers.py)

The distance of MiniLM's mean features in int8 from the same library's fp32, over rows of 32 random tokens: root mean
square, relative. On x86 CPUs without VNNI, sums of two products overflow 16 bits unless a library prevents it;
"edgetune, inexact" is the graph without this protection. If products are exact anyway, both lines of edgetune are the
same.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import click
import ctranslate2
import numpy as np
import onnxruntime as ort
import peers

from edgetune.bench.latency import Cell, machine, random_rows
from edgetune_runtime import Bundle, contract, session
from edgetune_runtime.cpus import available_threads

ROWS, TOKENS = 64, 32
Rows = list[list[int]]


def onnx_features(graph: bytes, exact: bool, rows: Rows) -> np.ndarray:
    """Mean features of rows, with exact int8 products or the CPU's default."""
    options = ort.SessionOptions()
    options.log_severity_level = 3
    if exact and session.int8_saturates():
        options.add_session_config_entry(*session.EXACT_INT8)
    run = ort.InferenceSession(graph, options, providers=["CPUExecutionProvider"]).run
    pooling = np.array([contract.POOLINGS.index("mean")])
    return np.concatenate(
        [
            run(
                [contract.FEATURES],
                {
                    contract.INPUT_IDS: np.array([row]),
                    contract.ATTENTION_MASK: np.ones((1, len(row)), np.int64),
                    contract.TASK_INDEX: np.zeros(1, np.int64),
                    contract.POOLING: pooling,
                },
            )[0]
            for row in rows
        ]
    )


def ctranslate2_features(folder: Path, kind: str, rows: Rows) -> np.ndarray:
    """The same for CTranslate2."""
    encoder = ctranslate2.Encoder(str(folder), device="cpu", compute_type=kind)
    return np.array([np.array(encoder.forward_batch([row]).last_hidden_state)[0].mean(axis=0) for row in rows])


def distance(some: np.ndarray, others: np.ndarray) -> float:
    """Root mean square of the difference, relative to `others`."""
    return float(np.sqrt(((some - others) ** 2).mean() / (others**2).mean()))


@click.command()
@click.argument("minilm", type=click.Path(exists=True, file_okay=False, path_type=Path))
@click.option("--work", type=click.Path(path_type=Path), required=True, help="Where exported models are kept.")
def main(minilm: Path, work: Path) -> None:
    """Compare int8 with fp32."""
    folder = peers.prepare("MiniLM", minilm, work)[1]
    bundle = Bundle(folder / "bundle")
    rows = [list(row) for row in random_rows(bundle, Cell("prefix", 0, TOKENS, ROWS))]
    graphs = {precision: bundle.read_graph(precision)[0] for precision in ("fp32", "int8")}
    fp32 = onnx_features(graphs["fp32"], True, rows)
    ways: dict[str, Callable[[], float]] = {
        "edgetune": lambda: distance(onnx_features(graphs["int8"], True, rows), fp32),
        "edgetune, inexact": lambda: distance(onnx_features(graphs["int8"], False, rows), fp32),
        "CTranslate2": lambda: distance(
            ctranslate2_features(folder / "ctranslate2", "int8", rows),
            ctranslate2_features(folder / "ctranslate2", "float32", rows),
        ),
    }
    found = {name: way() for name, way in ways.items()}
    click.echo("| int8 | distance from its fp32 |\n|---|---|")
    for name, value in found.items():
        click.echo(f"| {name} | {value:.1%} |")
    environment = machine(available_threads(), "ctranslate2")
    click.echo(json.dumps({"environment": environment, "int8_saturates": session.int8_saturates(), "distance": found}))


if __name__ == "__main__":
    main()
