"""Precisions below fp32.

int8 is dynamic: weights are int8, one scale per output channel; activations are uint8, one scale per run, and one
per token before the products that narrow, where a few tokens would take most of a common range.
q4 is for size: weights are uint4, one scale and zero point for 32 of them; activations are int8, one scale for 32
numbers of one token, so that no text's answer depends on its neighbours.
"""

from __future__ import annotations

import copy
import tempfile
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnx.helper
import onnx.numpy_helper
from onnxruntime.quantization import QuantType, quantize_dynamic
from onnxruntime.quantization.onnx_model import ONNXModel

from edgetune_export.passes import consumers, standard_attention, without_unused
from edgetune_export.quiet import quiet

_SMALLEST = 1e-9  # keeps scales above zero
_DEVIATIONS = 3  # of a normalized channel: about the largest that a text has
_OUTLYING = 2  # times the usual size of a channel; MiniLM has 1.2 to 1.5 before attention, 2.6 to 3.3 after it
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
    """Quantize the MatMuls (and the Gemms of GPT-2) with constant weights, and the token embeddings.

    Those that narrow (the second of each feed-forward) take one scale a token, the others one for the run: on a
    trained sst2 prefix on MiniLM that is half the error of the logits that one scale for all gives.
    """
    model = copy.deepcopy(model)
    ONNXModel(model).replace_gemm_with_matmul()
    smooth_channels(model)
    quantize_by_token(model, [name for name, (rows, columns) in _weight_shapes(model).items() if rows > columns])
    with tempfile.TemporaryDirectory() as folder, quiet():
        source, path = Path(folder) / "fp32.onnx", Path(folder) / "int8.onnx"
        onnx.save(model, source, save_as_external_data=True)
        del model  # of a model in memory the quantizer makes copies
        quantize_dynamic(
            source,
            path,
            op_types_to_quantize=["MatMul"],
            per_channel=True,
            reduce_range=False,
            weight_type=QuantType.QInt8,
            use_external_data_format=True,  # past 2 GB it has to
            extra_options={"MatMulConstBOnly": True, "WeightSymmetric": True},
        )
        quantized = onnx.load(path)
    return standard_attention(quantize_embeddings(quantized))


def smooth_channels(model: onnx.ModelProto) -> onnx.ModelProto:
    """Even out the channels of a layer normalization before products that share one scale for all of them.

    Where its own weights say that some channels are far larger than most, the channels are divided by the size
    that they are expected to have, and the rows of the product's weights take it (SmoothQuant, Xiao et al. 2022,
    without data).
    """
    graph = model.graph
    constants = {tensor.name: tensor for tensor in graph.initializer}
    for norm in [node for node in graph.node if node.op_type == "LayerNormalization" and len(node.input) == 3]:
        users = [node for node in graph.node if norm.output[0] in node.input]
        products = [node for node in users if node.op_type == "MatMul" and node.input[1] in constants]
        if not products or not {norm.input[1], norm.input[2]} <= constants.keys():
            continue
        gain, shift = (np.abs(onnx.numpy_helper.to_array(constants[name])) for name in norm.input[1:])
        size = np.maximum(_DEVIATIONS * gain + shift, np.finfo(np.float32).tiny)
        size /= np.median(size)
        if size.max() < _OUTLYING:
            continue
        smooth = f"{norm.output[0]}_smooth"
        _add_constant(graph, f"{smooth}_factor", 1 / size)
        place = list(graph.node).index(norm) + 1
        graph.node.insert(place, _node("Mul", [norm.output[0], f"{smooth}_factor"], smooth))
        for product in products:
            weight = onnx.numpy_helper.to_array(constants[product.input[1]])
            name = f"{product.name}_smooth_weight"
            _add_constant(graph, name, weight * size[:, None])
            product.input[:] = [smooth, name]
    return without_unused(model)


def quantize_by_token(model: onnx.ModelProto, names: Collection[str]) -> onnx.ModelProto:
    """Make int8 products, with one activation scale a token, of the MatMuls of these names.

    Each token is divided by its largest magnitude, quantized in the range that remains, and the product takes the
    magnitude back. What GELU gives is never below -0.17, so that most of the range is for what is above zero.
    """
    graph = model.graph
    made = {output: node for node in graph.node for output in node.output}
    constants = {tensor.name: tensor for tensor in graph.initializer}
    for product in [node for node in graph.node if node.name in names]:
        source, name = product.input[0], product.name
        weight = onnx.numpy_helper.to_array(constants[product.input[1]])
        scale = np.maximum(np.abs(weight).max(axis=0), _SMALLEST).astype(np.float32) / 127
        after_gelu = source in made and made[source].op_type == "Gelu"
        levels, zero, smallest = (223, 32, 1.2) if after_gelu else (127, 128, _SMALLEST)
        for suffix, array in {
            "weight": np.rint(weight / scale).astype(np.int8),
            "weight_scale": scale,
            "weight_zero": np.zeros(len(scale), np.int8),
            "step": np.float32(1 / levels),
            "zero": np.uint8(zero),
            "smallest": np.float32(smallest),
            "axis": np.array([-1], np.int64),
        }.items():
            _add_constant(graph, f"{name}_{suffix}", array)
        magnitude = [] if after_gelu else [_node("Abs", [source], f"{name}_magnitude")]
        nodes = [
            *magnitude,
            _node(
                "ReduceMax",
                [magnitude[0].output[0] if magnitude else source, f"{name}_axis"],
                f"{name}_max",
                keepdims=1,
            ),
            _node("Max", [f"{name}_max", f"{name}_smallest"], f"{name}_peak"),
            _node("Reciprocal", [f"{name}_peak"], f"{name}_factor"),
            _node("Mul", [source, f"{name}_factor"], f"{name}_unit"),
            _node("QuantizeLinear", [f"{name}_unit", f"{name}_step", f"{name}_zero"], f"{name}_quantized"),
            _node(
                "MatMulIntegerToFloat",
                [f"{name}_{part}" for part in ("quantized", "weight", "step", "weight_scale", "zero", "weight_zero")],
                f"{name}_product",
                domain="com.microsoft",
            ),
            _node("Mul", [f"{name}_product", f"{name}_peak"], product.output[0]),
        ]
        _replace(graph, product, nodes)
    return without_unused(model)


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
    users_of = consumers(graph)
    for table in list(graph.initializer):
        users = users_of[table.name]
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
        _node("Gather", [rows, ids], f"{output}_int8"),
        _node("Gather", [scales, ids], f"{output}_scale"),
        _node("Cast", [f"{output}_int8"], f"{output}_cast", to=onnx.TensorProto.FLOAT),
        _node("Mul", [f"{output}_cast", f"{output}_scale"], output),
    ]
    _replace(graph, gather, nodes)


def _node(operator: str, inputs: list[str], output: str, **attributes: Any) -> onnx.NodeProto:
    node: onnx.NodeProto = onnx.helper.make_node(operator, inputs, [output], name=f"{output}_node", **attributes)
    return node


def _add_constant(graph: onnx.GraphProto, name: str, array: np.ndarray | np.generic) -> None:
    graph.initializer.append(onnx.numpy_helper.from_array(np.asarray(array), name))


def _replace(graph: onnx.GraphProto, node: onnx.NodeProto, nodes: Sequence[onnx.NodeProto]) -> None:
    place = list(graph.node).index(node)
    graph.node.remove(node)
    for offset, new in enumerate(nodes):
        graph.node.insert(place + offset, new)


def _weight_shapes(model: onnx.ModelProto) -> dict[str, tuple[int, int]]:
    """Shapes of the constant weights of MatMuls, by the name of the node."""
    weights = {tensor.name: tuple(tensor.dims) for tensor in model.graph.initializer}
    return {
        node.name: weights[node.input[1]]
        for node in model.graph.node
        if node.op_type == "MatMul" and len(weights.get(node.input[1], ())) == 2
    }


PRECISIONS: dict[str, Precision] = {
    "fp32": Precision(convert=copy.deepcopy, batch_invariant=True),
    "int8": Precision(convert=int8, batch_invariant=False),
    "q4": Precision(convert=q4, batch_invariant=True),
}
"""Precision → how it is made."""
