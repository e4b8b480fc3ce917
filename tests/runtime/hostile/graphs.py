"""Graphs: some cannot be loaded, and others fail only when they run."""

from __future__ import annotations

import copy
import json
import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from edgetune_runtime import Bundle, contract, files
from hostile.bundles import config_with
from hostile.changes import FP32, Cases, Change, edit, manifest_with, put


def graph_with(change_model: Callable[[Any], object]) -> Change:
    """The fp32 graph changed, and its SHA-256 in the manifest."""

    def changed(data: bytes) -> bytes:
        model = onnx.load_from_string(data)
        change_model(model)
        return model.SerializeToString()

    return edit(FP32, changed, sign=True)


def external(location: str) -> Callable[[Any], None]:
    """A graph whose largest weight is in a file."""

    def changed(model: Any) -> None:
        tensor = max(model.graph.initializer, key=lambda one: len(one.raw_data))
        make_external(tensor, location)

    return changed


def make_external(tensor: Any, location: str) -> None:
    length = len(tensor.raw_data) or 8
    tensor.ClearField("raw_data")
    tensor.data_location = 1
    for key, value in {"location": location, "offset": "0", "length": str(length)}.items():
        tensor.external_data.add(key=key, value=value)


def external_attribute(model: Any) -> None:
    tensor = onnx.helper.make_tensor("hidden", onnx.TensorProto.FLOAT, [2], b"\0" * 8, raw=True)
    make_external(tensor, "/etc/hostname")
    node = onnx.helper.make_node("Constant", [], ["unused"], value=tensor)
    model.graph.node.insert(0, node)


def external_in_branch(model: Any) -> None:
    inner = onnx.ModelProto()
    external_attribute(inner)
    out = onnx.helper.make_tensor_value_info("unused", 1, [2])
    branch = onnx.helper.make_graph(list(inner.graph.node), "branch", [], [out])
    truth = onnx.helper.make_tensor("truth", onnx.TensorProto.BOOL, [], [True])
    model.graph.initializer.append(truth)
    node = onnx.helper.make_node("If", ["truth"], ["chosen"], then_branch=branch, else_branch=branch)
    model.graph.node.insert(0, node)


def add_node(operator: str, inputs: tuple[str, ...] = ("logits",), domain: str = "") -> Callable[[Any], object]:
    def changed(model: Any) -> None:
        model.graph.node.append(onnx.helper.make_node(operator, inputs, ["extra"], domain=domain))
        if domain and domain not in {opset.domain for opset in model.opset_import}:
            model.opset_import.append(onnx.helper.make_opsetid(domain, 1))

    return changed


def side(model: Any, name: str) -> Any:
    """An input or output by its name."""
    return next(value for value in (*model.graph.input, *model.graph.output) if value.name == name)


def retyped(name: str, kind: int) -> Callable[[Any], None]:
    def changed(model: Any) -> None:
        side(model, name).type.tensor_type.elem_type = kind

    return changed


def reshaped_pooling(model: Any) -> None:
    side(model, "pooling").type.tensor_type.shape.dim.add().dim_value = 1


def without_default(name: str) -> Callable[[Any], None]:
    """A bank input that is neither: the weight of its name alone is left, a constant."""

    def changed(model: Any) -> None:
        model.graph.input.remove(side(model, name))

    return changed


def extra_input(model: Any) -> None:
    model.graph.input.append(onnx.helper.make_tensor_value_info("secret", 1, [1]))


def extra_output(model: Any) -> None:
    model.graph.node.append(onnx.helper.make_node("Identity", ["features"], ["leak"]))
    model.graph.output.append(onnx.helper.make_tensor_value_info("leak", 1, ["batch", "hidden"]))


def cycle(model: Any) -> None:
    for one, other in (("there", "back"), ("back", "there")):
        model.graph.node.append(onnx.helper.make_node("Identity", [one], [other]))


def plain_graph(evil: Callable[[Any], list[Any]] | None = None) -> Change:
    """A small graph that keeps the contract; `evil` makes the nodes of a scalar `more`, which its features add."""

    def change(folder: Path) -> None:
        record = json.loads((folder / files.MANIFEST).read_bytes())
        record["variants"] = {}
        for graph in record["graphs"].values():
            graph["variants"] = {}
        (folder / files.MANIFEST).write_bytes(json.dumps(record).encode())
        facts = Bundle(folder).facts
        sizes = facts.sizes
        kinds = {"int64": TensorProto.INT64, "float32": TensorProto.FLOAT}
        numbers = vars(sizes)
        inputs = [
            helper.make_tensor_value_info(name, kinds[spec.dtype], [numbers.get(dim, dim) for dim in spec.dims])
            for name, spec in contract.INPUTS.items()
            if name in facts.inputs
        ]
        lengths = {"tasks": 1, "prompt": 0, "prefix": 0, "labels": 0}
        defaults = [
            numpy_helper.from_array(np.zeros(sizes.shape(name, **lengths), spec.dtype), name)
            for name, spec in contract.BANK_INPUTS.items()
            if name in facts.inputs
        ]
        constants = {
            "zero": np.array([0]),
            "two": np.array([2]),
            "hidden": np.array([sizes.hidden]),
            "nothing": np.array(0, np.float32),
        }
        node = helper.make_node
        value = helper.make_tensor("value", TensorProto.FLOAT, [1], [0.5])
        nodes = [
            node("Shape", ["spans"], ["shape"]),
            node("Slice", ["shape", "zero", "two"], ["rows_and_spans"]),
            node("Concat", ["rows_and_spans", "hidden"], ["wanted"], axis=0),
            node("ConstantOfShape", ["wanted"], ["plain"], value=value),
            *(evil(helper) if evil else [node("Identity", ["nothing"], ["more"])]),
            node("Add", ["plain", "more"], ["features"]),
            node("Squeeze", ["head_weight", "zero"], ["head"]),
            node("Transpose", ["head"], ["turned"], perm=[1, 0]),
            node("MatMul", ["features", "turned"], ["logits"]),
        ]
        outputs = [
            helper.make_tensor_value_info("logits", TensorProto.FLOAT, ["batch", "spans", "labels"]),
            helper.make_tensor_value_info("features", TensorProto.FLOAT, ["batch", "spans", sizes.hidden]),
        ]
        weights = [*defaults, *(numpy_helper.from_array(array, name) for name, array in constants.items())]
        graph = helper.make_graph(nodes, "plain", inputs, outputs, weights)
        opsets = [helper.make_opsetid("", 17)]
        model: onnx.ModelProto = helper.make_model(graph, opset_imports=opsets, ir_version=8)
        put(FP32, model.SerializeToString(), sign=True)(folder)

    return change


def constant(helper: Any, name: str, values: list[int]) -> Any:
    return helper.make_node("Constant", [], [name], value_ints=values)


def huge(*sizes: int) -> Callable[[Any], list[Any]]:
    """A scalar that is the sum of a tensor of these sizes."""
    return lambda helper: [
        constant(helper, "sizes", list(sizes)),
        helper.make_node("ConstantOfShape", ["sizes"], ["large"]),
        helper.make_node("ReduceSum", ["large"], ["more"], keepdims=0),
    ]


def huge_at_run_time(helper: Any) -> list[Any]:
    """As many numbers as 2⁴⁰ times the tokens of the text."""
    return [
        constant(helper, "factor", [1 << 40]),
        helper.make_node("Size", ["input_ids"], ["tokens"]),
        helper.make_node("Mul", ["tokens", "factor"], ["size"]),
        helper.make_node("ConstantOfShape", ["size"], ["large"]),
        helper.make_node("ReduceSum", ["large"], ["more"], keepdims=0),
    ]


def expanded(helper: Any) -> list[Any]:
    return [
        constant(helper, "sizes", [1 << 20, 1 << 18]),
        helper.make_node("Cast", ["task_index"], ["index"], to=1),
        helper.make_node("Expand", ["index", "sizes"], ["large"]),
        helper.make_node("ReduceSum", ["large"], ["more"], keepdims=0),
    ]


def tiled(helper: Any) -> list[Any]:
    return [
        constant(helper, "times", [1 << 38]),
        helper.make_node("Cast", ["task_index"], ["index"], to=1),
        helper.make_node("Tile", ["index", "times"], ["large"]),
        helper.make_node("ReduceSum", ["large"], ["more"], keepdims=0),
    ]


def ranged(helper: Any) -> list[Any]:
    return [
        helper.make_node("Size", ["input_ids"], ["tokens"]),
        helper.make_node("Constant", [], ["begin"], value_int=0),
        helper.make_node("Constant", [], ["end"], value_int=1 << 40),
        helper.make_node("Range", ["begin", "end", "tokens"], ["large"]),
        helper.make_node("Cast", ["large"], ["numbers"], to=1),
        helper.make_node("ReduceSum", ["numbers"], ["more"], keepdims=0),
    ]


def loop(helper: Any, keeps: bool) -> list[Any]:
    """A loop of 2⁶² rounds; with `keeps`, each round's value stays in memory."""
    scalar = helper.make_tensor_value_info
    body = helper.make_graph(
        [
            helper.make_node("Identity", ["go"], ["go_on"]),
            helper.make_node("Add", ["sum", "step"], ["next"]),
            *([helper.make_node("Expand", ["sum", "width"], ["row"])] if keeps else []),
        ],
        "round",
        [scalar("round", 7, []), scalar("go", 9, []), scalar("sum", 1, [])],
        [scalar("go_on", 9, []), scalar("next", 1, []), *([scalar("row", 1, [1 << 20])] if keeps else [])],
    )
    return [
        helper.make_node("Constant", [], ["rounds"], value_int=1 << 62),
        constant(helper, "width", [1 << 20]),
        helper.make_node("Constant", [], ["truth"], value=helper.make_tensor("truth", 9, [], [True])),
        helper.make_node("ReduceSum", ["zero"], ["nought"], keepdims=0),
        helper.make_node("Cast", ["nought"], ["begin"], to=1),
        helper.make_node("Cast", ["task_index"], ["index"], to=1),
        helper.make_node("ReduceSum", ["index"], ["step"], keepdims=0),
        helper.make_node("Loop", ["rounds", "truth", "begin"], ["more", *(["rows"] if keeps else [])], body=body),
    ]


def gathered(helper: Any) -> list[Any]:
    return [
        helper.make_node("Constant", [], ["place"], value_int=1 << 40),
        helper.make_node("Gather", ["attention_mask", "place"], ["taken"], axis=1),
        helper.make_node("Cast", ["taken"], ["numbers"], to=1),
        helper.make_node("ReduceSum", ["numbers"], ["more"], keepdims=0),
    ]


def divided(helper: Any) -> list[Any]:
    return [
        helper.make_node("Cast", ["task_index"], ["index"], to=1),
        helper.make_node("Div", ["index", "index"], ["ratio"]),
        helper.make_node("ReduceSum", ["ratio"], ["more"], keepdims=0),
    ]


def divided_integers(helper: Any) -> list[Any]:
    return [
        helper.make_node("Div", ["task_index", "task_index"], ["ratio"]),
        helper.make_node("Cast", ["ratio"], ["numbers"], to=1),
        helper.make_node("ReduceSum", ["numbers"], ["more"], keepdims=0),
    ]


def overflowing(helper: Any) -> list[Any]:
    """A quotient that 64 bits do not hold, which ends the process on x86."""
    return [
        helper.make_node("Constant", [], ["least"], value_int=-(1 << 63)),
        helper.make_node("Constant", [], ["unit"], value_int=-1),
        helper.make_node("Add", ["task_index", "least"], ["dividend"]),
        helper.make_node("Add", ["task_index", "unit"], ["divisor"]),
        helper.make_node("Div", ["dividend", "divisor"], ["ratio"]),
        helper.make_node("Cast", ["ratio"], ["numbers"], to=1),
        helper.make_node("ReduceSum", ["numbers"], ["more"], keepdims=0),
    ]


def stretched(helper: Any) -> list[Any]:
    """Features of two rows for one text."""
    return [
        constant(helper, "rows", [2, 1, 1]),
        helper.make_node("ConstantOfShape", ["rows"], ["more"]),
    ]


def reshaped(helper: Any) -> list[Any]:
    return [
        constant(helper, "sizes", [3, 5, 7]),
        helper.make_node("Cast", ["attention_mask"], ["mask"], to=1),
        helper.make_node("Reshape", ["mask", "sizes"], ["large"]),
        helper.make_node("ReduceSum", ["large"], ["more"], keepdims=0),
    ]


def nested(depth: int) -> bytes:
    """A graph of branches in branches, deeper than the onnx package would write it."""

    def field(number: int, data: bytes) -> bytes:
        length, size = len(data), bytearray()
        while length > 0x7F:
            size.append(length & 0x7F | 0x80)
            length >>= 7
        return bytes([number << 3 | 2, *size, length]) + data

    node = field(4, b"Identity")
    for _ in range(depth):
        branch = field(1, b"then_branch") + field(6, field(1, node))
        node = field(4, b"If") + field(5, branch)
    return field(7, field(1, node))


def of_graphs() -> Cases:
    cannot = "cannot load the graph"
    bytes_of = {
        "empty": (b"", cannot),
        "text": (b"onnx", "is not sound ONNX"),
        "zeros": (bytes(1000), cannot),
        "a pickle": (pickle.dumps([1, 2]), "is not sound ONNX"),
        "a length past the end": (b"\x3a\xff\xff\xff\x7f", "is not sound ONNX"),
        "a number without end": (b"\x80" * 20, "is not sound ONNX"),
        "a wire type that is none": (b"\x0f", "is not sound ONNX"),
    }
    bytes_of["branches 2,000 deep"] = (nested(2000), cannot)
    for name, (data, message) in bytes_of.items():
        yield f"graph: {name}", put(FP32, data, sign=True), message
    yield "graph: cut", edit(FP32, lambda data: data[: len(data) // 2], sign=True), "is not sound ONNX"
    yield "graph: a byte more", edit(FP32, lambda data: data + b"\xff", sign=True), "is not sound ONNX"
    for location in ("/etc/hostname", "../outside", "model.onnx.data", "../config.json", "*/_ORT_MEM_ADDR_/*", "", "."):
        yield f"graph: weights in {location!r}", graph_with(external(location)), "takes weights from"
    yield "graph: weights in /dev/zero", graph_with(external("/dev/zero")), "takes weights from"
    yield "graph: a constant in a file", graph_with(external_attribute), "takes weights from '/etc/hostname'"
    yield "graph: a constant of a branch in a file", graph_with(external_in_branch), "takes weights from"
    yield "graph: an unknown operator", graph_with(add_node("Shell")), cannot
    yield "graph: an operator of an unknown domain", graph_with(add_node("Run", domain="evil.ops")), cannot
    yield "graph: an unknown operator of a known domain", graph_with(add_node("Run", domain="com.microsoft")), cannot
    yield "graph: a node that takes nothing", graph_with(add_node("Identity", ("nowhere",))), cannot
    yield "graph: a cycle", graph_with(cycle), cannot
    yield "graph: no nodes", graph_with(lambda model: model.graph.ClearField("node")), cannot
    yield "graph: no graph", graph_with(lambda model: model.ClearField("graph")), cannot
    yield "graph: no opset", graph_with(lambda model: model.ClearField("opset_import")), cannot
    yield "graph: an opset of 9999", graph_with(lambda m: setattr(m.opset_import[0], "version", 9999)), cannot
    yield "graph: a version of 9999", graph_with(lambda model: setattr(model, "ir_version", 9999)), cannot
    yield (
        "graph: an output twice",
        graph_with(lambda m: m.graph.output.append(copy.deepcopy(m.graph.output[0]))),
        "the graph has the outputs",
    )
    yield "graph: a node twice", graph_with(lambda m: m.graph.node.append(copy.deepcopy(m.graph.node[0]))), cannot
    yield "graph: logits of float16", graph_with(retyped("logits", 10)), cannot
    other = "the graph has the"
    yield "graph: input_ids of int32", graph_with(retyped("input_ids", 6)), f"{other} inputs"
    yield "graph: pooling of rank 2", graph_with(reshaped_pooling), cannot
    yield "graph: an input more", graph_with(extra_input), f"{other} inputs"
    yield "graph: an output more", graph_with(extra_output), f"{other} outputs"
    yield "graph: no features", graph_with(lambda m: m.graph.output.remove(side(m, "features"))), f"{other} outputs"
    yield "graph: no logits", graph_with(lambda m: m.graph.output.remove(side(m, "logits"))), f"{other} outputs"
    yield "graph: no prompt", graph_with(without_default("prompt_embeddings")), f"{other} inputs"
    yield "graph: no pooling", graph_with(without_default("pooling")), f"{other} inputs"


def of_runs() -> Cases:
    """Graphs that fail only when they run; for `probe_bundle`."""
    yield "run: a tensor of a terabyte", plain_graph(huge(1 << 38)), "does not pass its probe"
    yield "run: a tensor of 16 exabytes", plain_graph(huge(1 << 31, 1 << 31)), "does not pass its probe"
    yield "run: a terabyte a token", plain_graph(huge_at_run_time), "does not pass its probe"
    yield "run: a number expanded to a terabyte", plain_graph(expanded), "does not pass its probe"
    yield "run: a number a terabyte of times", plain_graph(tiled), "does not pass its probe"
    yield "run: a range of a terabyte", plain_graph(ranged), "does not pass its probe"
    yield "run: a loop without end", plain_graph(lambda helper: loop(helper, keeps=False)), "it took longer than"
    yield "run: a loop that takes all memory", plain_graph(lambda helper: loop(helper, keeps=True)), "does not pass"
    yield "run: a place that is not there", plain_graph(gathered), "the graph does not run"
    yield "run: features that are no numbers", plain_graph(divided), "the graph gives"
    yield "run: whole numbers divided by zero", plain_graph(divided_integers), "the graph does not run"
    yield "run: the least number divided by -1", plain_graph(overflowing), "does not pass its probe"
    yield "run: two rows for one text", plain_graph(stretched), "the graph gives"
    yield "run: shapes that do not fit", plain_graph(reshaped), "does not pass its probe"
    yield "run: sizes of another backbone", manifest_with("sizes", "head_dim", value=9), "the graph does not run"
    yield "run: more tokens than the graph knows", config_with(vocab_size=1_000_000), "the graph does not run"
