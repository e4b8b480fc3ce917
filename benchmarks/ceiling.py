"""The maximum speed of this CPU: matrix products in onnxruntime, fp32 compared with int8, at the sizes of MiniLM.

    python benchmarks/ceiling.py

Shows the possible speed-up by int8: about four times fp32 with int8 dot products (VNNI), and far less without them.
int8 products are computed as in the engine: exactly, even if that takes longer.
"""

from __future__ import annotations

import json
import time

import click
import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from edgetune.bench.latency import machine
from edgetune_runtime.cpus import available_threads
from edgetune_runtime.session import open_any

INNER, COLUMNS, LAYERS = 384, 1536, 6
ROWS = (32, 52, 512)


def products(int8: bool) -> bytes:
    """A graph of six products [rows, 384] × [384, 1536] of the same input."""
    random = np.random.default_rng(0)
    nodes, constants, outputs = [], [], []
    for layer in range(LAYERS):
        weight = random.integers(-127, 128, (INNER, COLUMNS)).astype(np.int8 if int8 else np.float32)
        constants.append(numpy_helper.from_array(weight, f"w{layer}"))
        nodes.append(helper.make_node("MatMulInteger" if int8 else "MatMul", ["x", f"w{layer}"], [f"y{layer}"]))
        kind = TensorProto.INT32 if int8 else TensorProto.FLOAT
        outputs.append(helper.make_tensor_value_info(f"y{layer}", kind, ["rows", COLUMNS]))
    kind = TensorProto.UINT8 if int8 else TensorProto.FLOAT
    x = helper.make_tensor_value_info("x", kind, ["rows", INNER])
    graph = helper.make_graph(nodes, "products", [x], outputs, constants)
    model: onnx.ModelProto = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10)
    return model.SerializeToString()


def gops(threads: int, turns: int = 20) -> dict[int, dict[str, float]]:
    """Billions of operations per second, by rows and precision; the precisions take turns, and medians are reported."""
    sessions = {name: open_any(products(name == "int8"), "cpu", threads) for name in ("fp32", "int8")}
    found = {}
    for rows in ROWS:
        inputs = {"fp32": np.ones((rows, INNER), np.float32), "int8": np.full((rows, INNER), 3, np.uint8)}
        times: dict[str, list[float]] = {name: [] for name in sessions}
        for _ in range(turns):
            for name, session in sessions.items():
                for _ in range(10):
                    began = time.perf_counter()
                    session.run(None, {"x": inputs[name]})
                    times[name].append(time.perf_counter() - began)
        operations = 2 * rows * INNER * COLUMNS * LAYERS
        found[rows] = {name: round(operations / float(np.median(t)) / 1e9, 1) for name, t in times.items()}
    return found


@click.command()
@click.option("--threads", type=click.IntRange(1), help="[default: all]")
def main(threads: int | None) -> None:
    """Measure both, taking turns."""
    threads = threads or available_threads()
    figures = gops(threads)
    click.echo("| rows | fp32 GOP/s | int8 GOP/s | int8 / fp32 |\n|---|---|---|---|")
    for rows, both in figures.items():
        click.echo(f"| {rows} | {both['fp32']:.0f} | {both['int8']:.0f} | {both['int8'] / both['fp32']:.2f}× |")
    click.echo(json.dumps({"environment": machine(threads), "gops": figures}))


if __name__ == "__main__":
    main()
