"""Precisions below fp32.

int8 is dynamic. Weights are int8 with one scale per output channel. Activations are uint8 with one scale per run;
before products that narrow there is one scale per token, because a few tokens would take up most of a common range. q4
is for small files. Weights are uint4 with one scale and zero point per 32 weights. Activations are int8 with one scale
per 32 numbers of one token, so a text's answer does not depend on the other texts in its batch.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import onnx
import onnx.helper
import onnx.numpy_helper
from onnxruntime.quantization.onnx_model import ONNXModel

from edgetune_export.passes import consumers, standard_attention, without_unused
from edgetune_export.quiet import quiet
from edgetune_export.weights import Weights
from edgetune_runtime.arrays import Array

_SMALLEST = 1e-9  # keeps scales above zero
_DEVIATIONS = 3  # of a normalized channel: about the largest in a text
_OUTLYING = 2  # relative to the usual size of a channel; MiniLM has 1.2 to 1.5 before attention, 2.6 to 3.3 after it
_Q4_BLOCK_SIZE = 32
_ROWS_AT_ONCE = 4096
_Q4_INT8_ACTIVATIONS = 4  # the `accuracy_level` of MatMulNBits


@dataclass(frozen=True)
class Precision:
    """How to compute a precision from the fp32 graph.

    Attributes:
        convert: rewrites the graph, without changing the given model, and adds new weights.
        batch_invariant: whether a row's answer does not depend on the other rows in its batch.
    """

    convert: Callable[[onnx.ModelProto, Weights], onnx.ModelProto]
    batch_invariant: bool


def int8(model: onnx.ModelProto, weights: Weights) -> onnx.ModelProto:
    """Quantize the MatMuls (and the Gemms of GPT-2) with constant weights, and the token embeddings.

    MatMuls that narrow (the second in each feed-forward) use one scale per token, and the others one scale per run. For
    a trained sst2 prefix on MiniLM this halves the error of the logits compared with one scale for everything.
    """
    model = _with_products(model, weights)
    smooth_channels(model, weights)
    narrowing = [name for name, (rows, columns) in _weight_shapes(model).items() if rows > columns]
    quantize_by_token(model, narrowing, weights)
    quantize_by_run(model, weights)
    return standard_attention(quantize_embeddings(model, weights))


def _with_products(model: onnx.ModelProto, weights: Weights) -> onnx.ModelProto:
    """A copy in which all products are MatMuls."""
    model = copy.deepcopy(model)
    constants = {tensor.name: tensor for tensor in model.graph.initializer}
    for gemm in [node for node in model.graph.node if node.op_type == "Gemm"]:
        turned = [attribute for attribute in gemm.attribute if attribute.name == "transB" and attribute.i]
        if turned and gemm.input[1] in constants:
            tensor = constants[gemm.input[1]]
            name, shape = f"{gemm.name}_turned", tuple(reversed(tensor.dims))
            made = partial(_turned, weights, tensor)
            model.graph.initializer.append(weights.tensor(name, np.float32, shape, made))
            gemm.input[1] = name
            gemm.attribute.remove(turned[0])
    ONNXModel(model).replace_gemm_with_matmul()
    return model


def _turned(weights: Weights, tensor: onnx.TensorProto) -> Array:
    return weights.array(tensor).T


def smooth_channels(model: onnx.ModelProto, weights: Weights) -> onnx.ModelProto:
    """Even out the channels of a layer normalization before products with one scale for all channels.

    If its own weights show that some channels are far larger than most, the channels are divided by their expected
    size, and the rows of the product's weights are multiplied by it (SmoothQuant, Xiao et al. 2022, without data).
    """
    graph = model.graph
    constants = {tensor.name: tensor for tensor in graph.initializer}
    for norm in [node for node in graph.node if node.op_type == "LayerNormalization" and len(node.input) == 3]:
        users = [node for node in graph.node if norm.output[0] in node.input]
        products = [node for node in users if node.op_type == "MatMul" and node.input[1] in constants]
        if not products or not {norm.input[1], norm.input[2]} <= constants.keys():
            continue
        gain, shift = (np.abs(weights.array(constants[name])) for name in norm.input[1:])
        size = np.maximum(_DEVIATIONS * gain + shift, np.finfo(np.float32).tiny)
        size /= np.median(size)
        if size.max() < _OUTLYING:
            continue
        smooth = f"{norm.output[0]}_smooth"
        _add_constant(graph, f"{smooth}_factor", 1 / size)
        place = list(graph.node).index(norm) + 1
        graph.node.insert(place, _node("Mul", [norm.output[0], f"{smooth}_factor"], smooth))
        for product in products:
            tensor = constants[product.input[1]]
            name = f"{product.name}_smooth_weight"
            made = partial(_times, weights, tensor, size[:, None])
            graph.initializer.append(weights.tensor(name, np.float32, tensor.dims, made))
            product.input[:] = [smooth, name]
    return without_unused(model)


def _times(weights: Weights, tensor: onnx.TensorProto, size: Array) -> Array:
    product: Array = weights.array(tensor) * size
    return product


def quantize_by_token(model: onnx.ModelProto, names: Collection[str], weights: Weights) -> onnx.ModelProto:
    """Convert the MatMuls with these names to int8 products with one activation scale per token.

    Each token is divided by its largest magnitude and quantized in the remaining range, and the product is multiplied
    by the magnitude again. GELU's output is never below -0.17, so most of the range is used for positive values.
    """
    graph = model.graph
    made = {output: node for node in graph.node for output in node.output}
    constants = {tensor.name: tensor for tensor in graph.initializer}
    for product in [node for node in graph.node if node.name in names]:
        source, name = product.input[0], product.name
        tensor = constants[product.input[1]]
        scale = np.maximum(_largest(weights.array(tensor), axis=0), _SMALLEST).astype(np.float32) / 127
        rounded = partial(_rounded, weights, tensor, scale)
        graph.initializer.append(weights.tensor(f"{name}_weight", np.int8, tensor.dims, rounded))
        after_gelu = source in made and made[source].op_type == "Gelu"
        levels, zero, smallest = (223, 32, 1.2) if after_gelu else (127, 128, _SMALLEST)
        added: dict[str, Array | np.generic] = {
            "weight_scale": scale,
            "weight_zero": np.zeros(len(scale), np.int8),
            "step": np.float32(1 / levels),
            "zero": np.uint8(zero),
            "smallest": np.float32(smallest),
            "axis": np.array([-1], np.int64),
        }
        for suffix, array in added.items():
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
    _use_own_operators(model)
    return without_unused(model)


def quantize_by_run(model: onnx.ModelProto, weights: Weights) -> onnx.ModelProto:
    """Convert the MatMuls with constant weights to int8 products with one activation scale per run.

    The result is the same as onnxruntime's `quantize_dynamic` (by channel, symmetric weights), but one weight at a
    time.
    """
    graph = model.graph
    constants = {tensor.name: tensor for tensor in graph.initializer}
    quantized: set[str] = set()
    nodes: list[onnx.NodeProto] = []
    for node in graph.node:
        tensor = constants.get(node.input[1]) if node.op_type == "MatMul" else None
        if tensor is None or len(tensor.dims) != 2:
            nodes.append(node)
            continue
        source, output = node.input[0], f"{node.output[0]}_output_quantized"
        read, scales = f"{source}_quantized", f"{node.name}_quant_scales_mul"
        if source not in quantized:
            quantized.add(source)
            given = [read, f"{source}_scale", f"{source}_zero_point"]
            nodes.append(
                onnx.helper.make_node("DynamicQuantizeLinear", [source], given, name=f"{source}_QuantizeLinear")
            )
        if tensor.name not in quantized:
            quantized.add(tensor.name)
            largest = _largest(weights.array(tensor), axis=0).astype(np.float64)
            scale = np.where(largest / 127 < np.finfo(np.float32).tiny, 1, largest / 127).astype(np.float32)
            made = partial(_rounded, weights, tensor, scale)
            graph.initializer.append(weights.tensor(f"{tensor.name}_quantized", np.int8, tensor.dims, made))
            _add_constant(graph, f"{tensor.name}_zero_point", np.zeros(len(scale), np.int8))
            _add_constant(graph, f"{tensor.name}_scale", scale)
        factors = [read, f"{tensor.name}_quantized", f"{source}_zero_point", f"{tensor.name}_zero_point"]
        nodes += [
            onnx.helper.make_node("MatMulInteger", factors, [output], name=f"{node.name}_quant"),
            onnx.helper.make_node(
                "Cast", [output], [f"{output}_cast_output"], name=f"{output}_cast", to=onnx.TensorProto.FLOAT
            ),
            onnx.helper.make_node("Mul", [f"{source}_scale", f"{tensor.name}_scale"], [f"{scales}:0"], name=scales),
            onnx.helper.make_node(
                "Mul",
                [f"{output}_cast_output", f"{scales}:0"],
                [node.output[0]],
                name=f"{node.name}_quant_output_scale_mul",
            ),
        ]
    _put_nodes(graph, nodes)
    return without_unused(model)


def q4(model: onnx.ModelProto, weights: Weights) -> onnx.ModelProto:
    """Quantize the MatMuls (and the Gemms of GPT-2) with constant weights to 4 bits, and the token embeddings to 8.

    Asymmetric quantization is more accurate: the relative error of the features is 0.25 on MiniLM (symmetric: 0.27),
    and 0.27 on SmolLM2-135M (symmetric: 0.30).
    """
    model = _with_products(model, weights)
    graph = model.graph
    constants = {tensor.name: tensor for tensor in graph.initializer}
    there: set[str] = set()
    nodes: list[onnx.NodeProto] = []
    for node in graph.node:
        tensor = constants.get(node.input[1]) if node.op_type == "MatMul" else None
        if tensor is None or len(tensor.dims) != 2:
            nodes.append(node)
            continue
        rows, columns = tensor.dims
        blocks = -(-rows // _Q4_BLOCK_SIZE)
        outputs = {
            f"{tensor.name}_Q4": (np.uint8, (columns, blocks, _Q4_BLOCK_SIZE // 2)),
            f"{tensor.name}_scales": (np.float32, (columns, blocks)),
            f"{tensor.name}_zero_points": (np.uint8, (columns, -(-blocks // 2))),
        }
        if tensor.name not in there:
            there.add(tensor.name)
            for place, (name, (dtype, shape)) in enumerate(outputs.items()):
                made = partial(_in_blocks, weights, tensor, place)
                graph.initializer.append(weights.tensor(name, dtype, shape, made))
        nodes.append(
            onnx.helper.make_node(
                "MatMulNBits",
                [node.input[0], *outputs],
                node.output,
                name=f"{node.name}_Q4",
                domain="com.microsoft",
                **{"K": rows, "N": columns, "bits": 4, "block_size": _Q4_BLOCK_SIZE},
                accuracy_level=_Q4_INT8_ACTIVATIONS,
            )
        )
    _put_nodes(graph, nodes)
    _use_own_operators(model)
    return quantize_embeddings(without_unused(model), weights)


def _in_blocks(weights: Weights, tensor: onnx.TensorProto, place: int) -> Array:
    """One of the tensors of a weight in 4 bits: blocks, their scales, or their zero points."""
    with quiet():
        # Importing it configures logging for the whole process, which `quiet` undoes.
        from onnxruntime.quantization.matmul_nbits_quantizer import (
            DefaultWeightOnlyQuantConfig,
            DefaultWeightOnlyQuantizer,
        )

        config = DefaultWeightOnlyQuantConfig(block_size=_Q4_BLOCK_SIZE, is_symmetric=False, bits=4)
        weight = np.ascontiguousarray(weights.array(tensor))
        found: Array = DefaultWeightOnlyQuantizer(config).qbits_block_quant(weight)[place]
    return found


def quantize_embeddings(model: onnx.ModelProto, weights: Weights) -> onnx.ModelProto:
    """Store tables that only `Gather` reads by row as int8 with one scale per row, except small tables."""
    graph = model.graph
    users_of = consumers(graph)
    for table in list(graph.initializer):
        users = users_of[table.name]
        by_row = [node for node in users if node.op_type == "Gather" and node.input[0] == table.name]
        if len(table.dims) != 2 or table.dims[0] < 4096 or len(by_row) != len(users) or not users:
            continue
        scale = np.maximum(_largest(weights.array(table), axis=1)[:, None], 1e-12).astype(np.float32) / 127
        quantized, scales = f"{table.name}_quantized", f"{table.name}_scale"
        made = partial(_rounded, weights, table, scale)
        graph.initializer.append(weights.tensor(quantized, np.int8, table.dims, made))
        _add_constant(graph, scales, scale)
        graph.initializer.remove(table)
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


def _largest(array: Array, axis: int) -> Array:
    """The largest magnitude along an axis, without a copy of the array."""
    found: Array = np.maximum(array.max(axis=axis), -array.min(axis=axis))
    return found


def _rounded(weights: Weights, tensor: onnx.TensorProto, scale: Array) -> Array:
    """A tensor in int8, computed in chunks of rows."""
    array = weights.array(tensor)
    rounded = np.empty(array.shape, np.int8)
    for start in range(0, len(array), _ROWS_AT_ONCE):
        rows = slice(start, start + _ROWS_AT_ONCE)
        some = array[rows] / (scale[rows] if scale.ndim > 1 else scale)
        rounded[rows] = np.clip(np.rint(some), -127, 127)
    return rounded


def _use_own_operators(model: onnx.ModelProto) -> None:
    """Allow onnxruntime's own operators in a graph."""
    if all(opset.domain != "com.microsoft" for opset in model.opset_import):
        model.opset_import.append(onnx.helper.make_opsetid("com.microsoft", 1))


def _put_nodes(graph: onnx.GraphProto, nodes: Sequence[onnx.NodeProto]) -> None:
    kept = [onnx.NodeProto.FromString(node.SerializeToString()) for node in nodes]
    del graph.node[:]
    graph.node.extend(kept)


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
    """Name of a MatMul node → shape of its constant weights."""
    weights = {tensor.name: tuple(tensor.dims) for tensor in model.graph.initializer}
    return {
        node.name: weights[node.input[1]]
        for node in model.graph.node
        if node.op_type == "MatMul" and len(weights.get(node.input[1], ())) == 2
    }


PRECISIONS: dict[str, Precision] = {
    "fp32": Precision(convert=lambda model, _: copy.deepcopy(model), batch_invariant=True),
    "int8": Precision(convert=int8, batch_invariant=False),
    "q4": Precision(convert=q4, batch_invariant=True),
}
"""Precision → how to compute it."""
