"""Rewrites of the exported graph that change its speed but not its answers.

Each takes a model and returns it, changed.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection

import numpy as np
import onnx
import onnx.helper
import onnx.numpy_helper

from edgetune_export.weights import Weights
from edgetune_runtime.errors import BackboneError


def optimize(model: onnx.ModelProto, weights: Weights) -> onnx.ModelProto:
    """Run all passes in the required order.

    onnxruntime itself fuses biases and GELU when it loads the graph. Residual additions are not merged with layer
    normalization, because onnxruntime's operator for both is slower (see `session.open_session`).
    """
    return gather_rows(merge_projections(drop_idle_reshapes(collapse_reshapes(without_traces(model))), weights))


def without_traces(model: onnx.ModelProto) -> onnx.ModelProto:
    """Remove the exporter's notes about its run: stack traces with source lines and paths of this machine."""
    graph = model.graph
    for part in (model, graph, *graph.node, *graph.initializer, *graph.input, *graph.output, *graph.value_info):
        part.ClearField("metadata_props")
        part.ClearField("doc_string")
    return model


def collapse_reshapes(model: onnx.ModelProto) -> onnx.ModelProto:
    """Let a reshape of a reshape use the first one's input: splitting and joining heads cancel."""
    graph = model.graph
    source = {node.output[0]: node.input[0] for node in graph.node if node.op_type == "Reshape"}
    for node in graph.node:
        if node.op_type == "Reshape" and not _copies_dimensions(graph, node):
            while node.input[0] in source:
                node.input[0] = source[node.input[0]]
    return without_unused(model)


def drop_idle_reshapes(model: onnx.ModelProto) -> onnx.ModelProto:
    """Remove reshapes that do not change the shape, according to the exporter's names of dimensions."""
    graph = model.graph
    shapes = {value.name: _dimensions(value) for value in graph.value_info}
    outputs = {output.name for output in graph.output}
    source: dict[str, str] = {}
    for node in graph.node:
        _rename_inputs(node, source)
        if node.op_type == "Reshape" and node.output[0] not in outputs:
            before, after = (shapes.get(name) for name in (node.input[0], node.output[0]))
            if before is not None and before == after:
                source[node.output[0]] = node.input[0]
    return without_unused(model)


def gather_rows(model: onnx.ModelProto) -> onnx.ModelProto:
    """Take rows of the bank with Gather, which costs a third of the GatherND that the exporter writes."""
    graph = model.graph
    made = {node.output[0]: node for node in graph.node}
    constants = {tensor.name: tensor for tensor in graph.initializer}
    for node in graph.node:
        batch_dims = sum(attribute.i for attribute in node.attribute)
        index = made.get(node.input[1]) if node.op_type == "GatherND" and batch_dims == 0 else None
        if index is None or index.op_type != "Unsqueeze" or index.input[1] not in constants:
            continue
        if onnx.numpy_helper.to_array(constants[index.input[1]]).tolist() == [-1]:
            node.op_type, node.input[1] = "Gather", index.input[0]
            del node.attribute[:]
    return without_unused(model)


def merge_projections(model: onnx.ModelProto, weights: Weights) -> onnx.ModelProto:
    """Merge MatMuls that share their input, such as query, key and value, with their biases.

    One large product is faster than three small ones, and a quantized one quantizes its input only once.
    """
    graph = model.graph
    constants = {tensor.name: tensor for tensor in graph.initializer}
    users_of = consumers(graph)
    groups: dict[str, list[tuple[onnx.NodeProto, onnx.NodeProto, str]]] = defaultdict(list)
    for node in graph.node:
        users = users_of[node.output[0]]
        if node.op_type == "MatMul" and node.input[1] in constants and len(users) == 1 and users[0].op_type == "Add":
            bias = [name for name in users[0].input if name in constants and len(constants[name].dims) == 1]
            if bias:
                groups[node.input[0]].append((node, users[0], bias[0]))
    for shared, members in groups.items():
        if len(members) > 1:
            _merge(graph, shared, members, constants, weights)
    return without_unused(model)


def without_parts(model: onnx.ModelProto, names: Collection[str]) -> onnx.ModelProto:
    """The graph for tasks that do not use these bank inputs.

    Tensors that are computed from them are empty, the product of two empty tensors is zero, and additions of zero are
    removed.

    Raises:
        BackboneError: the graph uses them in another way.
    """
    graph = model.graph
    empty, zero = set(names), set[str]()
    instead: dict[str, str] = {}
    for node in graph.node:
        _rename_inputs(node, instead)
        if node.op_type == "Reshape" and node.input[0] in zero:
            zero.update(node.output)
        elif zero.intersection(node.input):
            rest = [name for name in node.input if name not in zero]
            if node.op_type != "Add" or len(rest) != 1:
                raise BackboneError(f"the graph cannot do without {sorted(names)}: {node.op_type} takes what they make")
            instead[node.output[0]] = rest[0]
        elif empty.intersection(node.input):
            product = node.op_type == "MatMul" and empty.issuperset(node.input)
            (zero if product else empty).update(node.output)
    kept = [value for value in graph.input if value.name not in names]
    del graph.input[:]
    graph.input.extend(kept)
    return drop_idle_reshapes(collapse_reshapes(without_unused(model)))


def standard_attention(model: onnx.ModelProto) -> onnx.ModelProto:
    """Replace onnxruntime's own attention operator, which is slower on CPUs, with ONNX's `Attention` (opset 23).

    With a prefix of 20 before 32 tokens, 12 heads of 32 and two threads it takes 44 µs instead of 84. Keys and values
    that several heads share are passed once instead of once per head.
    """
    made = {output: node for node in model.graph.node for output in node.output}
    widths = {value.name: known[-1] for value in model.graph.value_info if (known := _dimensions(value))}
    for node in model.graph.node:
        if node.op_type != "MultiHeadAttention":
            continue
        given = {attribute.name: onnx.helper.get_attribute_value(attribute) for attribute in node.attribute}
        query, key, value, _, _, mask = node.input
        heads = {"q_num_heads": given["num_heads"], "kv_num_heads": given["num_heads"]}
        shared_key, shared_value = (_before_repetition(name, made) for name in (key, value))
        whole, shared = widths.get(query), widths.get(shared_key)
        if shared_key != key and shared_value != value and isinstance(whole, int) and isinstance(shared, int):
            key, value = shared_key, shared_value
            heads["kv_num_heads"] = given["num_heads"] * shared // whole
        inputs, outputs = [query, key, value, mask], list(node.output)
        node.CopyFrom(
            onnx.helper.make_node("Attention", inputs, outputs, name=node.name, scale=given["scale"], **heads)
        )
    for opset in model.opset_import:
        if opset.domain == "":
            opset.version = max(opset.version, 23)
    return without_unused(model)


def _merge(
    graph: onnx.GraphProto,
    shared: str,
    members: list[tuple[onnx.NodeProto, onnx.NodeProto, str]],
    constants: dict[str, onnx.TensorProto],
    weights: Weights,
) -> None:
    products = [constants[matmul.input[1]] for matmul, _, _ in members]
    biases = [weights.array(constants[bias]) for _, _, bias in members]
    name = f"{members[0][0].name}_merged"
    columns = [tensor.dims[1] for tensor in products]
    joined = weights.tensor(
        f"{name}_weight",
        np.float32,
        (products[0].dims[0], sum(columns)),
        lambda: np.concatenate([weights.array(tensor) for tensor in products], axis=1),
    )
    graph.initializer.append(joined)
    more = {f"{name}_bias": np.concatenate(biases), f"{name}_sizes": np.array(columns, np.int64)}
    graph.initializer.extend(onnx.numpy_helper.from_array(array, key) for key, array in more.items())
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


def _before_repetition(name: str, made: dict[str, onnx.NodeProto]) -> str:
    """The tensor before its heads were repeated; the tensor itself if they were not."""
    found, repeated = name, False
    while found in made and made[found].op_type in ("Reshape", "Expand", "Unsqueeze"):
        repeated |= made[found].op_type == "Expand"
        found = made[found].input[0]
    return found if repeated else name


def _copies_dimensions(graph: onnx.GraphProto, reshape: onnx.NodeProto) -> bool:
    """Whether a reshape may copy sizes from its input (a 0 in its shape), so that it depends on its input's shape."""
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


def _dimensions(value: onnx.ValueInfoProto) -> list[int | str] | None:
    """The dimensions of a tensor as numbers and the exporter's names; `None` for unknown dimensions."""
    known = [dim.dim_param or dim.dim_value for dim in value.type.tensor_type.shape.dim]
    return known if all(known) else None


def _rename_inputs(node: onnx.NodeProto, names: dict[str, str]) -> None:
    for place, name in enumerate(node.input):
        node.input[place] = names.get(name, name)


def consumers(graph: onnx.GraphProto) -> dict[str, list[onnx.NodeProto]]:
    """Name of a tensor → the nodes that read it; empty if there are none."""
    found: dict[str, list[onnx.NodeProto]] = defaultdict(list)
    for node in graph.node:
        for name in node.input:
            found[name].append(node)
    return found


def without_unused(model: onnx.ModelProto) -> onnx.ModelProto:
    """Remove nodes and initializers that nothing reads."""
    graph = model.graph
    wanted = {output.name for output in graph.output}
    kept = []
    for node in reversed(graph.node):
        if wanted.intersection(node.output):
            kept.append(node)
            wanted.update(node.input)
    del graph.node[:]
    graph.node.extend(reversed(kept))
    for place in reversed(range(len(graph.initializer))):  # one by one, so that the remaining ones are not copied
        if graph.initializer[place].name not in wanted:
            del graph.initializer[place]
    return model
