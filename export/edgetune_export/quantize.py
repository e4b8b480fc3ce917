"""Precisions below fp32.

int8 is dynamic: weights are int8, one scale per output channel; activations are uint8, one scale per run.
q4 is for size: weights are uint4, one scale and zero point for 32 of them; activations are int8, one scale for 32
numbers of one token, so that no text's answer depends on its neighbours.
"""

from __future__ import annotations

import copy
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnx
import onnx.helper
import onnx.numpy_helper
from onnxruntime.quantization import QuantType, quantize_dynamic
from onnxruntime.quantization.onnx_model import ONNXModel

from edgetune_export.quiet import quiet

_Q4_BLOCK_SIZE = 32
_Q4_INT8_ACTIVATIONS = 4  # the `accuracy_level` of MatMulNBits


@dataclass(frozen=True)
class Precision:
    """How a precision is made of the fp32 graph.

    Attributes:
        convert: the rewriting; it leaves the model that it is given as it is.
        batch_invariant: whether a row's answer is the same whatever rows it is batched with.
    """

    convert: Callable[[onnx.ModelProto], onnx.ModelProto]
    batch_invariant: bool


def int8(model: onnx.ModelProto) -> onnx.ModelProto:
    """Quantize the MatMuls with constant weights, and the token embeddings.

    The MatMuls that narrow (the second of each feed-forward) stay in fp32: quantizing them costs most of
    the fidelity and wins no time, since their wide input has to be quantized at each run.
    """
    narrowing = [name for name, (rows, columns) in _weight_shapes(model).items() if rows > columns]
    with tempfile.TemporaryDirectory() as folder, quiet():
        path = Path(folder) / "int8.onnx"
        quantize_dynamic(
            model,
            path,
            op_types_to_quantize=["MatMul"],
            nodes_to_exclude=narrowing,
            per_channel=True,
            reduce_range=False,
            weight_type=QuantType.QInt8,
            use_external_data_format=True,  # past 2 GB it has to
            extra_options={"MatMulConstBOnly": True, "WeightSymmetric": True},
        )
        quantized = onnx.load(path)
    return quantize_embeddings(quantized)


def q4(model: onnx.ModelProto) -> onnx.ModelProto:
    """Quantize the MatMuls (and the Gemms of GPT-2) with constant weights to 4 bits, and the token embeddings to 8.

    Asymmetric, which is closer: relative error of the features 0.25 on MiniLM (symmetric 0.27), 0.27 on
    SmolLM2-135M (symmetric 0.30).
    """
    with quiet():
        # Importing it sets up logging for the whole process, which `quiet` takes back.
        from onnxruntime.quantization.matmul_nbits_quantizer import MatMulNBitsQuantizer

        model = copy.deepcopy(model)
        ONNXModel(model).replace_gemm_with_matmul()
        quantizer = MatMulNBitsQuantizer(
            model, bits=4, block_size=_Q4_BLOCK_SIZE, is_symmetric=False, accuracy_level=_Q4_INT8_ACTIVATIONS
        )
        quantizer.process()
    return quantize_embeddings(quantizer.model.model)


def quantize_embeddings(model: onnx.ModelProto) -> onnx.ModelProto:
    """Store tables that only `Gather` reads by row as int8 with one scale a row; small tables stay."""
    graph = model.graph
    consumers: dict[str, list[onnx.NodeProto]] = {}
    for node in graph.node:
        for name in node.input:
            consumers.setdefault(name, []).append(node)
    for table in list(graph.initializer):
        users = consumers.get(table.name, [])
        by_row = [node for node in users if node.op_type == "Gather" and node.input[0] == table.name]
        if len(table.dims) != 2 or table.dims[0] < 4096 or len(by_row) != len(users) or not users:
            continue
        weights = onnx.numpy_helper.to_array(table)
        scale = np.maximum(np.abs(weights).max(axis=1, keepdims=True), 1e-12).astype(np.float32) / 127
        rows = np.clip(np.rint(weights / scale), -127, 127).astype(np.int8)
        graph.initializer.remove(table)
        quantized, scales = f"{table.name}_quantized", f"{table.name}_scale"
        graph.initializer.extend(
            [onnx.numpy_helper.from_array(rows, quantized), onnx.numpy_helper.from_array(scale, scales)]
        )
        for node in users:
            _dequantize_rows(graph, node, quantized, scales)
    return model


def _dequantize_rows(graph: onnx.GraphProto, gather: onnx.NodeProto, rows: str, scales: str) -> None:
    ids, output = gather.input[1], gather.output[0]
    nodes = [
        onnx.helper.make_node("Gather", [rows, ids], [f"{output}_int8"]),
        onnx.helper.make_node("Gather", [scales, ids], [f"{output}_scale"]),
        onnx.helper.make_node("Cast", [f"{output}_int8"], [f"{output}_cast"], to=onnx.TensorProto.FLOAT),
        onnx.helper.make_node("Mul", [f"{output}_cast", f"{output}_scale"], [output]),
    ]
    place = list(graph.node).index(gather)
    graph.node.remove(gather)
    for offset, node in enumerate(nodes):
        graph.node.insert(place + offset, node)


def _weight_shapes(model: onnx.ModelProto) -> dict[str, tuple[int, int]]:
    """Shapes of the constant weights of MatMuls, by the name of the node.

    A Gemm (GPT-2 has them) goes by the name of the MatMul that the quantizer makes of it.
    """
    weights = {tensor.name: tuple(tensor.dims) for tensor in model.graph.initializer}
    return {
        node.name + ("_MatMul" if node.op_type == "Gemm" else ""): weights[node.input[1]]
        for node in model.graph.node
        if node.op_type in ("MatMul", "Gemm") and len(weights.get(node.input[1], ())) == 2
    }


PRECISIONS: dict[str, Precision] = {
    "fp32": Precision(convert=copy.deepcopy, batch_invariant=True),
    "int8": Precision(convert=int8, batch_invariant=False),
    "q4": Precision(convert=q4, batch_invariant=True),
}
"""Precision → how it is made."""
