"""Rewrites of the exported graph that change its speed and not its answers.

Each takes a model and gives it back, changed.
"""

from __future__ import annotations

from collections import defaultdict

import numpy as np
import onnx
import onnx.helper
import onnx.numpy_helper


def optimize(model: onnx.ModelProto) -> onnx.ModelProto:
    """All passes, in the order that they need.

    Biases and GELU are left to onnxruntime, which fuses them when it loads the graph. Residual additions stay
    apart from layer normalization: its operator for both is the slower form (see `session.open_session`).
    """
    return merge_projections(collapse_reshapes(model))


def collapse_reshapes(model: onnx.ModelProto) -> onnx.ModelProto:
    """Let a reshape of a reshape take the first one's input: splitting heads and joining them again is nothing."""
    graph = model.graph
    source = {node.output[0]: node.input[0] for node in graph.node if node.op_type == "Reshape"}
    for node in graph.node:
        if node.op_type == "Reshape" and not _copies_dimensions(graph, node):
            while node.input[0] in source:
                node.input[0] = source[node.input[0]]
    return _without_unused(model)


def merge_projections(model: onnx.ModelProto) -> onnx.ModelProto:
    """Make one MatMul of those that share their input, such as query, key and value; biases go along.

    One large product is faster than three small ones, and a quantized one quantizes its input once.
    """
    graph = model.graph
    constants = {tensor.name: tensor for tensor in graph.initializer}
    consumers = _consumers(graph)
    groups: dict[str, list[tuple[onnx.NodeProto, onnx.NodeProto, str]]] = defaultdict(list)
    for node in graph.node:
        users = consumers[node.output[0]]
        if node.op_type == "MatMul" and node.input[1] in constants and len(users) == 1 and users[0].op_type == "Add":
            bias = [name for name in users[0].input if name in constants and len(constants[name].dims) == 1]
            if bias:
                groups[node.input[0]].append((node, users[0], bias[0]))
    for shared, members in groups.items():
        if len(members) > 1:
            _merge(graph, shared, members, constants)
    return _without_unused(model)


def _merge(
    graph: onnx.GraphProto,
    shared: str,
    members: list[tuple[onnx.NodeProto, onnx.NodeProto, str]],
    constants: dict[str, onnx.TensorProto],
) -> None:
    weights = [onnx.numpy_helper.to_array(constants[matmul.input[1]]) for matmul, _, _ in members]
    biases = [onnx.numpy_helper.to_array(constants[bias]) for _, _, bias in members]
    name = f"{members[0][0].name}_merged"
    joined = {
        f"{name}_weight": np.concatenate(weights, axis=1),
        f"{name}_bias": np.concatenate(biases),
        f"{name}_sizes": np.array([weight.shape[1] for weight in weights], np.int64),
    }
    graph.initializer.extend(onnx.numpy_helper.from_array(array, key) for key, array in joined.items())
    outputs = [add.output[0] for _, add, _ in members]
    nodes = [
        onnx.helper.make_node("MatMul", [shared, f"{name}_weight"], [f"{name}_product"], name=name),
        onnx.helper.make_node("Add", [f"{name}_product", f"{name}_bias"], [f"{name}_sum"], name=f"{name}_add"),
        onnx.helper.make_node("Split", [f"{name}_sum", f"{name}_sizes"], outputs, name=f"{name}_split", axis=-1),
    ]
    place = min(list(graph.node).index(matmul) for matmul, _, _ in members)
    for matmul, add, _ in members:
        graph.node.remove(matmul)
        graph.node.remove(add)
    for offset, node in enumerate(nodes):
        graph.node.insert(place + offset, node)


def _copies_dimensions(graph: onnx.GraphProto, reshape: onnx.NodeProto) -> bool:
    """Whether a reshape may copy sizes from its input (a 0 in its shape), and so depends on its input's shape."""
    made = {node.output[0]: node for node in graph.node}
    constants = {tensor.name: tensor for tensor in graph.initializer}
    pending = [reshape.input[1]]
    while pending:
        name = pending.pop()
        if name in constants:
            if not onnx.numpy_helper.to_array(constants[name]).all():
                return True
        elif name in made and made[name].op_type == "Concat":
            pending += made[name].input
    return False


def _consumers(graph: onnx.GraphProto) -> dict[str, list[onnx.NodeProto]]:
    consumers: dict[str, list[onnx.NodeProto]] = defaultdict(list)
    for node in graph.node:
        for name in node.input:
            consumers[name].append(node)
    return consumers


def _without_unused(model: onnx.ModelProto) -> onnx.ModelProto:
    """The model without nodes and initializers that nothing reads."""
    graph = model.graph
    wanted = {output.name for output in graph.output}
    kept = []
    for node in reversed(graph.node):
        if wanted.intersection(node.output):
            kept.append(node)
            wanted.update(node.input)
    constants = [tensor for tensor in graph.initializer if tensor.name in wanted]
    del graph.node[:], graph.initializer[:]
    graph.node.extend(reversed(kept))
    graph.initializer.extend(constants)
    return model
