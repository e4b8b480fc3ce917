"""What this CPU gives at best: matrix products through onnxruntime, fp32 beside int8, at the sizes of MiniLM.

    python benchmarks/ceiling.py

Tells how much of a speed-up int8 can bring here: with int8 dot products (VNNI) about four times fp32, without
them far less.
"""

from __future__ import annotations

import json
import time

import click
import numpy as np
import onnx
import onnxruntime as ort
from onnx import TensorProto, helper, numpy_helper

from edgetune_runtime.session import cpu_name, has_int8_dot_product

INNER, COLUMNS, LAYERS = 384, 1536, 6


def products(int8: bool) -> onnx.ModelProto:
    """Six products [rows, 384] × [384, 1536] of the same input."""
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
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10)


@click.command()
@click.option("--threads", default=2, show_default=True)
def main(threads: int) -> None:
    """Measure both, taking turns."""
    options = ort.SessionOptions()
    options.intra_op_num_threads = threads
    sessions = {
        name: ort.InferenceSession(products(name == "int8").SerializeToString(), options) for name in ("fp32", "int8")
    }
    figures: dict[str, dict[str, float]] = {}
    for rows in (32, 52, 512):
        inputs = {
            "fp32": np.ones((rows, INNER), np.float32),
            "int8": np.full((rows, INNER), 3, np.uint8),
        }
        times: dict[str, list[float]] = {name: [] for name in sessions}
        for _ in range(20):
            for name, session in sessions.items():
                for _ in range(10):
                    began = time.perf_counter()
                    session.run(None, {"x": inputs[name]})
                    times[name].append(time.perf_counter() - began)
        operations = 2 * rows * INNER * COLUMNS * LAYERS
        figures[str(rows)] = {name: round(operations / float(np.median(t)) / 1e9, 1) for name, t in times.items()}
    click.echo(f"{'rows':>6}{'fp32 GOP/s':>12}{'int8 GOP/s':>12}{'int8 / fp32':>13}")
    for size, both in figures.items():
        click.echo(f"{size:>6}{both['fp32']:>12.0f}{both['int8']:>12.0f}{both['int8'] / both['fp32']:>12.2f}×")
    where = {"cpu": cpu_name(), "int8_dot_product": has_int8_dot_product(), "threads": threads}
    click.echo(json.dumps({**where, "date": time.strftime("%Y-%m-%d"), "gops": figures}))


if __name__ == "__main__":
    main()
