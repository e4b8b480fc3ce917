"""Hostile bundles and task files by name: what is done to a sound bundle, and what the refusal says of it.

Run as a script, it makes each, reads it as an engine would, and prints one line of JSON a case: the error, and which
files outside the bundle were opened on the way.
"""

from __future__ import annotations

import copy
import gzip
import json
import os
import pickle
import shutil
import socket
import struct
import sys
import tempfile
import time
import zipfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import safetensors.numpy

from edgetune_runtime import Bundle, contract, files
from edgetune_runtime.errors import EdgetuneError
from edgetune_runtime.session import open_session
from edgetune_runtime.task import _digest
from edgetune_runtime.text import TextEncoder

Change = Callable[[Path], object]
TASK = "tasks/colour.safetensors"
FP32 = "onnx/model.onnx"
TEXTS = ["", "the lamp is broken", "größe 赤い 😀", "lamp " * 100]


@dataclass(frozen=True)
class Case:
    """A change of a bundle's folder, and a part of what the error then says."""

    change: Change
    message: str


def read_all(folder: Path) -> None:
    """Read a bundle as an engine does, and all of it."""
    bundle = Bundle(folder)
    manifest = bundle.manifest
    for name in manifest.files:
        bundle.digest(name)
        bundle.read(name)
    encoder = TextEncoder(
        bundle.read(files.TOKENIZER), manifest.max_positions, manifest.mask_token, bundle.vocabulary_size()
    )
    bundle.task_names()
    encoder.encode(TEXTS, [bundle.load_task("colour")] * len(TEXTS))
    for precision in manifest.graphs:
        graph, weights = bundle.read_graph(precision)
        open_session(graph, "cpu", 1, weights)


# How bundles are changed


def put(name: str, data: bytes | str, sign: bool = False) -> Change:
    """Other contents of a file, and if `sign` its SHA-256 in the manifest."""

    def change(folder: Path) -> None:
        raw = data.encode() if isinstance(data, str) else data
        (folder / name).write_bytes(raw)
        if sign:
            sign_file(folder, name, raw)

    return change


def sign_file(folder: Path, name: str, data: bytes) -> None:
    manifest = json.loads((folder / files.MANIFEST).read_bytes())
    manifest["files"][name] = files.sha256(data)
    (folder / files.MANIFEST).write_text(json.dumps(manifest))


def edit(name: str, change_data: Callable[[bytes], bytes], sign: bool = False) -> Change:
    return lambda folder: put(name, change_data((folder / name).read_bytes()), sign)(folder)


def edit_json(name: str, change_value: Callable[[Any], object], sign: bool = False) -> Change:
    """A file's JSON changed in place."""

    def changed(data: bytes) -> bytes:
        value = json.loads(data)
        change_value(value)
        return json.dumps(value).encode()

    return edit(name, changed, sign)


def manifest_with(*path: str, value: Any) -> Change:
    return edit_json(files.MANIFEST, lambda record: set_at(record, path, value))


def manifest_without(field: str) -> Change:
    return edit_json(files.MANIFEST, lambda record: record.pop(field))


def set_at(record: dict[str, Any], path: tuple[str, ...], value: Any) -> None:
    for key in path[:-1]:
        record = record[key]
    record[path[-1]] = value


def pack(header: dict[str, Any] | str | bytes, body: bytes) -> bytes:
    """A safetensors file of a header and what follows it."""
    text = json.dumps(header) if isinstance(header, dict) else header
    raw = text.encode() if isinstance(text, str) else text
    return struct.pack("<Q", len(raw)) + raw + body


def unpack(data: bytes) -> tuple[dict[str, Any], bytes]:
    (length,) = struct.unpack("<Q", data[:8])
    return json.loads(data[8 : 8 + length]), data[8 + length :]


def task_header(change_header: Callable[[dict[str, Any]], object]) -> Change:
    """The task's header changed, its tensors and its digest left as they are."""

    def changed(data: bytes) -> bytes:
        header, body = unpack(data)
        change_header(header)
        return pack(header, body)

    return edit(TASK, changed)


def task_text(old: str, new: str) -> Change:
    """The text of the task's header changed; what `old` stands for has to be there."""

    def changed(data: bytes) -> bytes:
        header, body = unpack(data)
        text = json.dumps(header)
        if old not in text:
            raise LookupError(old)
        return pack(text.replace(old, new, 1), body)

    return edit(TASK, changed)


def task_with(metadata: dict[str, str | None] | None = None, **tensors: Any) -> Change:
    """The task with other metadata and tensors (`None`: without), and a digest that fits."""

    def changed(data: bytes) -> bytes:
        header, _ = unpack(data)
        fields = {**header["__metadata__"], **(metadata or {})}
        fields = {key: value for key, value in fields.items() if value is not None and key != "sha256"}
        arrays = safetensors.numpy.load(data)
        arrays |= {name: new(arrays[name]) if callable(new) else new for name, new in tensors.items()}
        arrays = {name: array for name, array in arrays.items() if array is not None}
        fields["sha256"] = _digest(fields, arrays)
        return safetensors.numpy.save(arrays, fields)

    return edit(TASK, changed)


def labels_with(labels: Any) -> Change:
    return task_with({"labels": labels if isinstance(labels, str) else json.dumps(labels, ensure_ascii=False)})


def with_number(value: float) -> Callable[[Any], Any]:
    def changed(tensor: Any) -> Any:
        tensor = tensor.copy()
        tensor.flat[-1] = value
        return tensor

    return changed


# Links and what is no file


def link_outside(name: str) -> Change:
    def change(folder: Path) -> None:
        outside = folder.parent / "outside"
        (folder / name).rename(outside)
        (folder / name).symlink_to(outside)

    return change


def link_to(name: str, target: str) -> Change:
    def change(folder: Path) -> None:
        (folder / name).unlink()
        (folder / name).symlink_to(target)

    return change


def replaced(name: str, make: Callable[[Path], object]) -> Change:
    def change(folder: Path) -> None:
        (folder / name).unlink()
        make(folder / name)

    return change


def make_socket(path: Path) -> None:
    # A socket's path may have a hundred bytes: it is made by its name.
    here = Path.cwd()
    os.chdir(path.parent)
    try:
        with socket.socket(socket.AF_UNIX) as made:
            made.bind(path.name)
    finally:
        os.chdir(here)


def sparse(name: str, size_bytes: int) -> Change:
    return lambda folder: os.truncate(folder / name, size_bytes)


def flip(name: str) -> Change:
    def changed(data: bytes) -> bytes:
        middle = len(data) // 2
        return data[:middle] + bytes([data[middle] ^ 1]) + data[middle + 1 :]

    return edit(name, changed)


# Graphs


def graph_with(change_model: Callable[[Any], object]) -> Change:
    """The fp32 graph changed, and its SHA-256 in the manifest."""

    def changed(data: bytes) -> bytes:
        import onnx

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
    import onnx

    tensor = onnx.helper.make_tensor("hidden", onnx.TensorProto.FLOAT, [2], b"\0" * 8, raw=True)
    make_external(tensor, "/etc/hostname")
    node = onnx.helper.make_node("Constant", [], ["unused"], value=tensor)
    model.graph.node.insert(0, node)


def external_in_branch(model: Any) -> None:
    import onnx

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
        import onnx

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
    import onnx

    model.graph.input.append(onnx.helper.make_tensor_value_info("secret", 1, [1]))


def extra_output(model: Any) -> None:
    import onnx

    model.graph.node.append(onnx.helper.make_node("Identity", ["features"], ["leak"]))
    model.graph.output.append(onnx.helper.make_tensor_value_info("leak", 1, ["batch", "hidden"]))


def cycle(model: Any) -> None:
    import onnx

    for one, other in (("there", "back"), ("back", "there")):
        model.graph.node.append(onnx.helper.make_node("Identity", [one], [other]))


def plain_graph(evil: Callable[[Any], list[Any]] | None = None) -> Change:
    """A small graph that keeps the contract; `evil` makes the nodes of a scalar `more`, which its features add."""

    def change(folder: Path) -> None:
        import onnx
        from onnx import TensorProto, helper, numpy_helper

        sizes = Bundle(folder).manifest.sizes
        kinds = {"int64": TensorProto.INT64, "float32": TensorProto.FLOAT}
        numbers = vars(sizes)
        inputs = [
            helper.make_tensor_value_info(name, kinds[spec.dtype], [numbers.get(dim, dim) for dim in spec.dims])
            for name, spec in contract.INPUTS.items()
        ]
        lengths = {"tasks": 1, "prompt": 0, "prefix": 0, "labels": 0}
        defaults = [
            numpy_helper.from_array(np.zeros(sizes.shape(name, **lengths), spec.dtype), name)
            for name, spec in contract.BANK_INPUTS.items()
        ]
        constants = {
            "zero": np.array([0]),
            "one": np.array([1]),
            "hidden": np.array([sizes.hidden]),
            "nothing": np.array(0, np.float32),
        }
        node = helper.make_node
        value = helper.make_tensor("value", TensorProto.FLOAT, [1], [0.5])
        nodes = [
            node("Shape", ["attention_mask"], ["shape"]),
            node("Slice", ["shape", "zero", "one"], ["batch"]),
            node("Concat", ["batch", "hidden"], ["wanted"], axis=0),
            node("ConstantOfShape", ["wanted"], ["plain"], value=value),
            *(evil(helper) if evil else [node("Identity", ["nothing"], ["more"])]),
            node("Add", ["plain", "more"], ["features"]),
            node("Squeeze", ["head_weight", "zero"], ["head"]),
            node("Transpose", ["head"], ["turned"], perm=[1, 0]),
            node("MatMul", ["features", "turned"], ["logits"]),
        ]
        outputs = [
            helper.make_tensor_value_info("logits", TensorProto.FLOAT, ["batch", "labels"]),
            helper.make_tensor_value_info("features", TensorProto.FLOAT, ["batch", sizes.hidden]),
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
    """A loop of 2⁶² rounds; where it keeps, each round's value stays in memory."""
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
        constant(helper, "rows", [2, 1]),
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


# Tokenizers


def tokenizer_with(change_value: Callable[[Any], object]) -> Change:
    return edit_json(files.TOKENIZER, change_value, sign=True)


def vocabulary_of(value: Any) -> Callable[[Any], None]:
    """The id of a word that the texts have."""

    def changed(tokenizer: Any) -> None:
        tokenizer["model"]["vocab"]["lamp"] = value

    return changed


def post_processor(ids: list[int], times: int = 1) -> dict[str, Any]:
    special = {"SpecialToken": {"id": "[CLS]", "type_id": 0}}
    text = {"Sequence": {"id": "A", "type_id": 0}}
    return {
        "type": "TemplateProcessing",
        "single": [*[special] * times, text],
        "pair": [text, {"Sequence": {"id": "B", "type_id": 1}}],
        "special_tokens": {"[CLS]": {"id": "[CLS]", "ids": ids, "tokens": ["[CLS]"] * len(ids)}},
    }


def part(name: str, value: Any) -> Callable[[Any], None]:
    def changed(tokenizer: Any) -> None:
        tokenizer[name] = value

    return changed


def config_with(**fields: Any) -> Change:
    return edit_json(files.CONFIG, lambda config: config.update(fields), sign=True)


# The table

TASK_FIELDS = (
    "task", "labels", "metrics", "backbone_sha256", "method", "base_model", "pooling", "position_offset", "template",
    "max_length", "temperature",
)  # fmt: skip
MANIFEST_FIELDS = (
    "base_model", "architecture", "backbone_sha256", "sizes", "max_positions", "poolings", "mask_token", "graphs",
    "files", "edgetune_version",
)  # fmt: skip
NOT_WHOLE = "is not a whole task file"
UNSOUND = "is not a sound edgetune task"
DAMAGED = "is damaged"
NO_MANIFEST = "is not a sound edgetune manifest"


def _task_bytes() -> Iterator[tuple[str, Change, str]]:
    junk = {
        "empty": b"",
        "one byte": b"\x08",
        "eight zeros": bytes(8),
        "a length alone": struct.pack("<Q", 8),
        "a length of 2**63": struct.pack("<Q", 1 << 63) + b"{}",
        "a length of 2**64 - 1": b"\xff" * 8 + b"{}",
        "a length past the end": struct.pack("<Q", 3) + b"{}",
        "a megabyte of zeros": bytes(1_000_000),
        "a megabyte of 255": b"\xff" * 1_000_000,
        "text": b"sentiment\n",
        "a pickle": pickle.dumps({"labels": ["a", "b"]}),
        "a gzip": gzip.compress(b"task" * 100),
        "a program": b"\x7fELF" + bytes(200),
        "an image": b"\x89PNG\r\n\x1a\n" + bytes(200),
        "JSON": b'{"labels": ["a", "b"]}',
    }
    for name, data in junk.items():
        yield f"bytes: {name}", put(TASK, data), NOT_WHOLE
    headers: dict[str, str | bytes] = {
        "nothing": "",
        "no JSON": "{labels}",
        "a list": "[]",
        "a string": '"task"',
        "a number": "1",
        "null": "null",
        "nested 100,000 deep": "[" * 100_000,
        "objects 100,000 deep": '{"a":' * 100_000,
        "UTF-16": '{"a": 1}'.encode("utf-16"),
        "a byte order mark": b"\xef\xbb\xbf{}",
        "bytes that are no UTF-8": b'{"\xff": 1}',
        "a comma too many": '{"a": 1,}',
        "NaN": '{"a": NaN}',
        "Infinity": '{"a": Infinity}',
        "-Infinity": '{"a": -Infinity}',
        "1e400": '{"a": 1e400}',
        "a number of 5,000 digits": '{"a": ' + "1" * 5000 + "}",
        "half of a surrogate pair": '{"__metadata__": {"task": "\\ud800"}}',
        "metadata that are a list": '{"__metadata__": []}1',
        "metadata that are a string": '{"__metadata__": "x"}',
        "a megabyte of blanks": "{}" + " " * 1_000_000,
        "tensors of null": '{"head_bias": null}',
        "tensors of nothing": '{"head_bias": {}}',
    }
    for name, header in headers.items():
        yield f"header: {name}", put(TASK, pack(header, b"")), NOT_WHOLE
    doubled = {
        "metadata": ('"__metadata__":', '"__metadata__": {}, "__metadata__":'),
        "a field": ('"task":', '"task": "size", "task":'),
        "a field in other letters": ('"task":', '"t\\u0061sk": "size", "task":'),
        "a tensor": (
            '"head_bias":',
            '"head_bias": {"dtype": "F32", "shape": [0], "data_offsets": [0, 0]}, "head_bias":',
        ),
        "a dtype": ('"dtype":', '"dtype": "F16", "dtype":'),
        "a shape": ('"shape":', '"shape": [1], "shape":'),
    }
    for name, (old, new) in doubled.items():
        yield f"header: {name} twice", task_text(old, new), "a key twice in one object"
    infos: dict[str, dict[str, Any]] = {
        "offsets past the end": {"data_offsets": [0, 1 << 40]},
        "offsets of 2**63": {"data_offsets": [0, 1 << 63]},
        "offsets of 2**70": {"data_offsets": [0, 1 << 70]},
        "offsets backwards": {"data_offsets": [12, 0]},
        "offsets below zero": {"data_offsets": [-12, 0]},
        "offsets that are fractions": {"data_offsets": [0.5, 12.5]},
        "offsets that are strings": {"data_offsets": ["0", "12"]},
        "three offsets": {"data_offsets": [0, 12, 24]},
        "offsets of another tensor": {"data_offsets": [4, 16]},
        "a shape below zero": {"shape": [-3]},
        "a shape of 2**63": {"shape": [1 << 63]},
        "a shape that overflows": {"shape": [1 << 33, 1 << 33]},
        "a shape with more numbers": {"shape": [4]},
        "a shape with fewer numbers": {"shape": [2]},
        "a shape of strings": {"shape": ["3"]},
        "a shape of lists": {"shape": [[3]]},
        "no shape": {"shape": None},
        "a type without a name": {"dtype": ""},
        "a type that is unknown": {"dtype": "F99"},
        "a type in small letters": {"dtype": "f32"},
        "a type that is a number": {"dtype": 3},
        "a type of twice the size": {"dtype": "F64"},
        "a type of half the size": {"dtype": "F16"},
    }
    for name, info in infos.items():
        yield f"tensor: {name}", task_header(lambda header, info=info: header["head_bias"].update(info)), NOT_WHOLE
    yield "tensor: left out of the header", task_header(lambda header: header.pop("head_bias")), NOT_WHOLE
    yield (
        "tensor: two share their bytes",
        task_header(lambda header: header.update(other=dict(header["head_bias"]))),
        NOT_WHOLE,
    )
    for name, value in {"a number": 3, "null": None, "a list": ["colour"], "an object": {}}.items():
        yield (
            f"metadata: a field is {name}",
            task_header(lambda header, value=value: header["__metadata__"].update(task=value)),
            NOT_WHOLE,
        )
    yield "bytes: one behind the end", edit(TASK, lambda data: data + b"\0"), NOT_WHOLE
    yield "bytes: eight behind the end", edit(TASK, lambda data: data + bytes(8)), NOT_WHOLE
    yield "bytes: the task twice", edit(TASK, lambda data: data + data), NOT_WHOLE
    yield "bytes: a megabyte behind the end", edit(TASK, lambda data: data + bytes(1_000_000)), NOT_WHOLE
    yield "bytes: one missing", edit(TASK, lambda data: data[:-1]), NOT_WHOLE
    yield "bytes: half missing", edit(TASK, lambda data: data[: len(data) // 2]), NOT_WHOLE
    yield "bytes: one before the beginning", edit(TASK, lambda data: b"\0" + data), NOT_WHOLE
    yield "bytes: a number changed", edit(TASK, lambda data: data[:-1] + bytes([data[-1] ^ 1])), DAMAGED
    yield "bytes: a graph", lambda folder: shutil.copy(folder / FP32, folder / TASK), NOT_WHOLE
    yield "bytes: a manifest", lambda folder: shutil.copy(folder / files.MANIFEST, folder / TASK), NOT_WHOLE
    yield "bytes: a zip of a task", zipped, NOT_WHOLE
    yield "bytes: of another safetensors file", foreign, "format version None"


def zipped(folder: Path) -> None:
    data = (folder / TASK).read_bytes()
    with zipfile.ZipFile(folder / TASK, "w") as archive:
        archive.writestr("colour", data)


def foreign(folder: Path) -> None:
    (folder / TASK).write_bytes(safetensors.numpy.save({"weight": np.zeros(3, np.float32)}))


def _task_fields() -> Iterator[tuple[str, Change, str]]:
    for version in ("2", "0", "", "1.0", "１", " 1", None):
        yield f"format_version: {version!r}", task_with({"format_version": version}), "task format version"
    for digest in ("", "0" * 64, "none"):
        change = task_header(lambda header, digest=digest: header["__metadata__"].update(sha256=digest))
        yield f"sha256: {digest!r:.12}", change, DAMAGED
    yield "sha256: missing", task_header(lambda header: header["__metadata__"].pop("sha256")), DAMAGED
    yield "metadata: changed and not signed", task_text('"colour"', '"colors"'), DAMAGED
    yield "metadata: a field more", task_with({"script": "import os"}), "unknown fields ['script']"
    for field in TASK_FIELDS:
        yield f"metadata: without {field}", task_with({field: None}), UNSOUND
    odd_numbers = (
        "",
        "many",
        "1e400",
        "１２",
        "1_0",
        " 12",
        "12\n",
        "+12",
        "0x10",
        "12.0",
        "9" * 10,
        "9" * 5000,
        "٣",
        "NaN",
    )
    for field in ("max_length", "position_offset"):
        for value in odd_numbers:
            yield f"{field}: {value!r:.16}", task_with({field: value}), UNSOUND
    yield "max_length: '0'", task_with({"max_length": "0"}), "max_length 0"
    yield "max_length: '-1'", task_with({"max_length": "-1"}), "max_length -1"
    yield "position_offset: '-1'", task_with({"position_offset": "-1"}), "position_offset -1"
    yield "position_offset: past all positions", task_with({"position_offset": "64"}), "leaves no room for text"
    for value in ("", "warm", "1_0", "１", " 1", "1,5", "0x1p3", "1" * 41, "1\n"):
        yield f"temperature: {value!r:.16}", task_with({"temperature": value}), UNSOUND
    for value in ("0", "-1", "nan", "inf", "-inf", "1e400", "infinity", "-0.0", "1e-400"):
        yield f"temperature: {value!r}", task_with({"temperature": value}), "temperature"
    odd_labels: dict[str, Any] = {
        "no JSON": "red, green, blue",
        "a number": 3,
        "an object": {"red": 1, "green": 2, "blue": 3},
        "a string": "abc",
        "null": None,
        "NaN": "[NaN, 1, 2]",
        "nested 100,000 deep": "[" * 100_000,
        "one a number": ["red", "green", 3],
        "one null": ["red", "green", None],
        "one a list": ["red", "green", ["blue"]],
        "one of 1,001 characters": ["red", "green", "b" * 1001],
        "one with an escape": ["red", "green", "\x1b[2J"],
        "one with a NUL": ["red", "green", "b\0"],
        "one with a carriage return": ["red", "green", "b\rred"],
        "one with DEL": ["red", "green", "b\x7f"],
        "one with a C1 control": ["red", "green", "\x9b2J"],
        "one with half of a surrogate pair": '["red", "green", "\\ud800"]',
    }
    for name, labels in odd_labels.items():
        yield f"labels: {name}", labels_with(labels), UNSOUND
    wrong_counts: dict[str, list[str]] = {
        "none": [],
        "one": ["red"],
        "fewer than rows": ["red", "green"],
        "more than rows": ["red", "green", "blue", "grey"],
        "one twice": ["red", "red", "blue"],
    }
    for name, labels in wrong_counts.items():
        yield f"labels: {name}", labels_with(labels), "labels for a head of"
    many = [str(place) for place in range(10_001)]
    weights = {"head_weight": np.zeros((10_001, 32), np.float32), "head_bias": np.zeros(10_001, np.float32)}
    yield "labels: 10,001", task_with({"labels": json.dumps(many)}, **weights), "10001 labels for a head of"
    templates = {
        "no slot": "the text",
        "empty": "",
        "two slots": "{text} {text}",
        "a mask slot": "{text} {mask}",
        "an escape": "\x1b[2J{text}",
        "a NUL": "{text}\0",
        "a carriage return": "{text}\rfake",
        "100,001 characters": "{text}" + "a" * 99_995,
    }
    for name, template in templates.items():
        yield f"template: {name}", task_with({"template": template}), "has the template"
    for name in ("", ".", "..", "../colour", "a/b", "a\\b", "a\0", "a\n", "x" * 65, ".hidden", "größe", "a b", "C:a"):
        yield f"task: named {name!r:.16}", task_with({"task": name}), "task name"
    for pooling in ("", "max", "MEAN", "mean ", "cls,mean"):
        yield f"pooling: {pooling!r}", task_with({"pooling": pooling}), "has pooling"
    yield "pooling: one that the backbone lacks", task_with({"pooling": "decoder"}), "which tiny-bert does not have"
    yield "pooling: mask without a slot", task_with({"pooling": "mask"}), "one {mask} where the pooling is 'mask'"
    for digest in ("", "0" * 64, "AB" * 32):
        yield f"backbone_sha256: {digest!r:.12}", task_with({"backbone_sha256": digest}), "was trained on the backbone"
    odd_metrics = {
        "no JSON": "accuracy",
        "a list": "[1]",
        "a number": "1",
        "null": "null",
        "one null": '{"a": null}',
        "one a string": '{"a": "1"}',
        "one true": '{"a": true}',
        "NaN": '{"a": NaN}',
        "Infinity": '{"a": Infinity}',
        "1e400": '{"a": 1e400}',
        "400 digits": '{"a": 1' + "0" * 400 + "}",
        "one twice": '{"a": 1, "a": 2}',
        "nested 100,000 deep": '{"a":' * 100_000,
        "a name with an escape": '{"\\u001b[2J": 1}',
    }
    for name, metrics in odd_metrics.items():
        yield f"metrics: {name}", task_with({"metrics": metrics}), UNSOUND
    for field in ("method", "base_model", "backbone_sha256"):
        yield f"{field}: an escape", task_with({field: "\x1b]0;owned\x07"}), UNSOUND
        yield f"{field}: 1,001 characters", task_with({field: "x" * 1001}), UNSOUND


def _task_tensors() -> Iterator[tuple[str, Change, str]]:
    for tensor in ("head_weight", "head_bias", "prefix_keys", "prefix_values"):
        for value in (np.nan, np.inf, -np.inf, 1e7, -1e30):
            yield f"{tensor}: {value}", task_with(**{tensor: with_number(value)}), "not finite or not from"
    for dtype in ("float64", "float16", "int64", "int32", "uint8", "bool"):
        yield f"head_bias: as {dtype}", task_with(head_bias=lambda t, d=dtype: t.astype(d)), f"head_bias as {dtype}"
    for tensor in ("head_weight", "head_bias", "prefix_keys", "prefix_values"):
        yield f"tensors: without {tensor}", task_with(**{tensor: None}), "has the tensors"
    yield "tensors: one more", task_with(code=np.zeros(3, np.float32)), "has the tensors"
    yield "tensors: one with a strange name", task_with(**{"\x1b[2J": np.zeros(3, np.float32)}), "has the tensors"
    yield "tensors: one with a long name", task_with(**{"x" * 9000: np.zeros(3, np.float32)}), "has the tensors"
    f32 = np.float32
    yield "head_weight: of rank 1", task_with(head_weight=np.zeros(96, f32)), "head_weight as float32 [96]"
    yield "head_weight: turned", task_with(head_weight=lambda t: np.ascontiguousarray(t.T)), "labels for a head of 32"
    yield "head_weight: of another backbone", task_with(head_weight=np.zeros((3, 33), f32)), "expected [3, 32]"
    yield "head_weight: of width 0", task_with(head_weight=np.zeros((3, 0), f32)), "expected [3, 32]"
    yield "head_bias: of rank 2", task_with(head_bias=np.zeros((3, 1), f32)), "head_bias as float32 [3, 1]"
    yield "head_bias: one more", task_with(head_bias=np.zeros(4, f32)), "labels for a head of 3 rows and 4"
    yield "head_bias: a single number", task_with(head_bias=np.zeros((), f32)), "head_bias as float32 []"
    shapes = {
        "other layers": (3, 4, 6, 8),
        "no layers": (0, 4, 6, 8),
        "other heads": (2, 5, 6, 8),
        "other head_dim": (2, 4, 6, 9),
        "axes turned": (2, 6, 4, 8),
    }
    for name, shape in shapes.items():
        both = {"prefix_keys": np.zeros(shape, f32), "prefix_values": np.zeros(shape, f32)}
        yield f"prefix: {name}", task_with(**both), "on tiny-bert"
    yield "prefix: of rank 3", task_with(prefix_keys=np.zeros((2, 6, 32), f32)), "prefix_keys as float32"
    yield "prefix: of rank 5", task_with(prefix_keys=np.zeros((1, 2, 4, 6, 8), f32)), "prefix_keys as float32"
    yield (
        "prefix: fewer values than keys",
        task_with(prefix_values=np.zeros((2, 4, 5, 8), f32)),
        "prefix_values of shape",
    )
    yield "prefix: another source", task_with(prompt_source=np.zeros((5, 32), f32)), "prompt_source of shape"
    yield "prompt: of another width", task_with(prompt_embeddings=np.zeros((2, 31), f32)), "prompt_embeddings of shape"
    yield "prompt: of rank 1", task_with(prompt_embeddings=np.zeros(32, f32)), "prompt_embeddings as float32"
    yield "prompt: past all positions", task_with(prompt_embeddings=np.zeros((64, 32), f32)), "leaves no room for text"


def _manifests() -> Iterator[tuple[str, Change, str]]:
    whole = {
        "empty": b"",
        "no JSON": b"{manifest}",
        "a list": b"[]",
        "a string": b'"manifest"',
        "null": b"null",
        "nested 100,000 deep": b"[" * 100_000,
        "objects 100,000 deep": b'{"format_version":' * 100_000,
        "UTF-16": '{"format_version": 1}'.encode("utf-16"),
        "a byte order mark": b'\xef\xbb\xbf{"format_version": 1}',
        "no UTF-8": b'{"\xff": 1}',
        "zeros": bytes(1000),
        "a number of 5,000 digits": b"1" * 5000,
    }
    for name, data in whole.items():
        yield f"manifest: {name}", put(files.MANIFEST, data), NO_MANIFEST
    yield "manifest: not there", replaced(files.MANIFEST, lambda _: None), "is not a bundle"
    yield "manifest: too large", sparse(files.MANIFEST, 2_000_001), "2,000,001 bytes where at most 2,000,000"
    yield "manifest: of a terabyte", sparse(files.MANIFEST, 1 << 40), "bytes where at most 2,000,000"
    yield "manifest: cut", edit(files.MANIFEST, lambda data: data[: len(data) // 2]), NO_MANIFEST
    yield "manifest: a bracket more", edit(files.MANIFEST, lambda data: data + b"}"), NO_MANIFEST
    versions: tuple[Any, ...] = (0, 2, "1", True, 1.0, None, [1], -1)
    for version in versions:
        yield f"manifest: format_version {version!r}", manifest_with("format_version", value=version), "format version"
    for field in MANIFEST_FIELDS:
        yield f"manifest: without {field}", manifest_without(field), NO_MANIFEST
        yield f"manifest: {field} null", manifest_with(field, value=None), NO_MANIFEST
    texts: dict[str, Any] = {
        "a number": 3,
        "a list": ["bert"],
        "an escape": "\x1b[2J",
        "half of a surrogate pair": "\ud800",
        "1,001 characters": "x" * 1001,
        "a NUL": "a\0",
    }
    for field in ("base_model", "mask_token"):
        for name, value in texts.items():
            yield f"manifest: {field} {name}", manifest_with(field, value=value), NO_MANIFEST
    numbers: tuple[Any, ...] = (0, -1, 1 << 63, "32", 32.0, True, None, [32], 1e300)
    for value in numbers:
        yield f"manifest: hidden {value!r}", manifest_with("sizes", "hidden", value=value), NO_MANIFEST
        yield f"manifest: max_positions {value!r}", manifest_with("max_positions", value=value), NO_MANIFEST
    yield "manifest: a size more", manifest_with("sizes", "width", value=3), NO_MANIFEST
    yield "manifest: a size fewer", edit_json(files.MANIFEST, lambda record: record["sizes"].pop("layers")), NO_MANIFEST
    yield (
        "manifest: hidden NaN",
        edit(files.MANIFEST, lambda data: data.replace(b": 32", b": NaN", 1)),
        "NaN is not JSON",
    )
    yield "manifest: hidden 1e400", edit(files.MANIFEST, lambda data: data.replace(b": 32", b": 1e400", 1)), "too large"
    doubled = b'"files": {}, "files":'
    yield "manifest: files twice", edit(files.MANIFEST, lambda data: data.replace(b'"files":', doubled)), "a key twice"
    poolings: tuple[Any, ...] = ([], ["max"], "cls", [3], [["cls"]], {"cls": 1}, ["cls", None])
    for value in poolings[:5] + poolings[6:]:
        yield f"manifest: poolings {value!r}", manifest_with("poolings", value=value), NO_MANIFEST
    for value in ({}, [], [1], "fp32", {"fp32": None}, {"fp32": {}}, {"fp32": []}):
        yield f"manifest: graphs {value!r}", manifest_with("graphs", value=value), NO_MANIFEST
    places: tuple[Any, ...] = (
        "../model.onnx", "/etc/hostname", "onnx/../../model.onnx", "onnx/model_int8.onnx", "onnx\\model.onnx",
        "", ".", "onnx/model.onnx\0", "file:///etc/hostname", None, 3, ["onnx/model.onnx"],
    )  # fmt: skip
    for place in places:
        yield f"manifest: graph in {place!r}", manifest_with("graphs", "fp32", "file", value=place), NO_MANIFEST
        if place is not None:
            yield f"manifest: weights in {place!r}", manifest_with("graphs", "fp32", "data", value=place), NO_MANIFEST
    for precision in ("../../outside", "/etc", "..", "", "a\0", "\x1b[2J", "a b"):
        graph = {"file": files.graph_file(precision), "batch_invariant": True, "parity": {}}
        yield f"manifest: precision {precision!r}", manifest_with("graphs", value={precision: graph}), NO_MANIFEST
    for value in (1, "yes", None, []):
        change = manifest_with("graphs", "fp32", "batch_invariant", value=value)
        yield f"manifest: batch_invariant {value!r}", change, NO_MANIFEST
    parities: tuple[Any, ...] = (
        [],
        None,
        {"a": {}},
        {"a": {"rows": 1, "max_logit_difference": 0, "label_agreement": "1"}},
    )
    for value in parities:
        yield f"manifest: parity {value!r:.60}", manifest_with("graphs", "fp32", "parity", value=value), NO_MANIFEST
    names = (
        "", ".", "..", "../outside", "/etc/hostname", "./config.json", "onnx//model.onnx", "onnx/", "onnx/./model.onnx",
        "onnx/../config.json", "onnx\\model.onnx", "C:\\config.json", "c:config.json", "a\0", "a\n", ".hidden",
        "größe", "~/config.json", "-rf", "a b", "x" * 256, "onnx/.hidden", "\x1b[2J", "file:///etc/hostname",
    )  # fmt: skip
    for name in names:
        yield f"manifest: a file {name!r:.30}", manifest_with("files", name, value="ab" * 32), NO_MANIFEST
    for digest in ("", "ab" * 31, "AB" * 32, 3, None, ["ab" * 32], "zz" * 32, "ab" * 32 + "\n"):
        change = manifest_with("files", files.CONFIG, value=digest)
        yield f"manifest: the SHA-256 {digest!r:.100}", change, NO_MANIFEST
    yield "manifest: another SHA-256", manifest_with("files", files.CONFIG, value="ab" * 32), DAMAGED
    yield "manifest: a file that is not there", manifest_with("files", "code.py", value="ab" * 32), "is incomplete"
    yield (
        "manifest: the tokenizer not named",
        edit_json(files.MANIFEST, lambda r: r["files"].pop("tokenizer.json")),
        DAMAGED,
    )
    yield "manifest: the graph not named", edit_json(files.MANIFEST, lambda r: r["files"].pop(FP32)), DAMAGED


ONES = ("edgetune.json", "config.json", "tokenizer.json", "README.md", "onnx/model.onnx", "onnx/model_int8.onnx", TASK)


def _links() -> Iterator[tuple[str, Change, str]]:
    for name in ONES:
        yield f"link: {name} to its like outside", link_outside(name), "is a link"
        yield f"link: {name} to nothing", link_to(name, "nowhere"), "is a link"
        yield f"link: {name} to itself", link_to(name, Path(name).name), "is a link"
        yield f"link: {name} to /dev/zero", link_to(name, "/dev/zero"), "is a link"
        yield f"pipe: {name}", replaced(name, os.mkfifo), "it is not a regular file"
        yield f"socket: {name}", replaced(name, make_socket), "it is not a regular file"
        yield f"folder: {name}", replaced(name, Path.mkdir), "Is a directory"
        if name != files.MANIFEST:
            yield f"damage: {name}", flip(name), DAMAGED
    for name in ("onnx", "tasks"):
        yield f"link: the folder {name} to its like outside", link_outside(name), "is a link"
    yield "link: to another file of the bundle", link_to(files.CONFIG, files.MANIFEST), "is a link"
    yield "link: the manifest to /proc/self/environ", link_to(files.MANIFEST, "/proc/self/environ"), "is a link"
    yield "link: a task to /etc/passwd", link_to(TASK, "/etc/passwd"), "is a link"
    yield "link: hard, of weights beside a graph", hard_link, "it is a hard link"
    for name, size_bytes in {files.CONFIG: 1_000_001, files.TOKENIZER: 64_000_001, TASK: 64_000_001}.items():
        yield f"size: {name} a byte too large", sparse(name, size_bytes), "bytes where at most"
        yield f"size: {name} of a terabyte", sparse(name, 1 << 40), "bytes where at most"


def hard_link(folder: Path) -> None:
    name = f"{FP32}.data"
    (folder / name).write_bytes(b"weights")
    os.link(folder / name, folder.parent / "other name")
    manifest_with("graphs", "fp32", "data", value=name)(folder)
    sign_file(folder, name, b"weights")


def _configs() -> Iterator[tuple[str, Change, str]]:
    for value in ("300", 0, -1, 300.0, True, None, [300], 1 << 40):
        yield f"config: vocab_size {value!r}", config_with(vocab_size=value), "the size of the vocabulary"
    yield "config: without vocab_size", edit_json(files.CONFIG, lambda c: c.pop("vocab_size"), True), "the vocabulary"
    whole = {"empty": "", "no JSON": "{", "a list": "[]", "null": "null", "deep": "[" * 100_000, "NaN": '{"a": NaN}'}
    whole["vocab_size twice"] = '{"vocab_size": 5, "vocab_size": 300}'
    for name, data in whole.items():
        yield f"config: {name}", put(files.CONFIG, data, sign=True), "the size of the vocabulary"
    yield "config: fewer tokens than the tokenizer has", config_with(vocab_size=5), "gives the token id"


def _tokenizers() -> Iterator[tuple[str, Change, str]]:
    unreadable, fails = "tokenizer.json cannot be read", "tokenizer.json fails on a text"
    whole = {
        "empty": "",
        "an object": "{}",
        "no JSON": "{tokenizer}",
        "a list": "[]",
        "null": "null",
        "nested 100,000 deep": "[" * 100_000,
        "no UTF-8": b"\xff\xfe",
        "version alone": '{"version": "1.0"}',
        "zeros": bytes(1000),
    }
    for name, data in whole.items():
        yield f"tokenizer: {name}", put(files.TOKENIZER, data, sign=True), unreadable
    yield "tokenizer: cut", edit(files.TOKENIZER, lambda data: data[: len(data) // 2], sign=True), unreadable
    for value in (1 << 32, -1, "5", 5.5, None, [5]):
        yield f"tokenizer: a word's id {value!r}", tokenizer_with(vocabulary_of(value)), unreadable
    for value in (100_000, (1 << 32) - 1, 1 << 31):
        yield f"tokenizer: a word's id {value:,}", tokenizer_with(vocabulary_of(value)), "gives the token id"
    ids = "tokenizer.json gives the token id"
    yield (
        "tokenizer: a special token's id 2**31",
        tokenizer_with(part("post_processor", post_processor([1 << 31]))),
        ids,
    )
    many = post_processor([2], times=1000)
    yield "tokenizer: 1,000 special tokens", tokenizer_with(part("post_processor", many)), "1,000 special tokens"
    wide = post_processor([2] * 1000)
    yield "tokenizer: a special token of 1,000 ids", tokenizer_with(part("post_processor", wide)), "special tokens"
    missing = post_processor([2])
    missing["special_tokens"] = {}
    yield "tokenizer: a special token that is not told", tokenizer_with(part("post_processor", missing)), fails
    for name in ("normalizer", "pre_tokenizer", "post_processor", "decoder", "model"):
        yield f"tokenizer: an unknown {name}", tokenizer_with(part(name, {"type": "Shell"})), unreadable
    split = {"type": "Split", "pattern": {"Regex": "("}, "behavior": "Isolated", "invert": False}
    yield "tokenizer: a pattern that is none", tokenizer_with(part("pre_tokenizer", split)), unreadable
    charsmap = {"type": "Precompiled", "precompiled_charsmap": "AAAA"}
    yield "tokenizer: a character map that is none", tokenizer_with(part("normalizer", charsmap)), unreadable
    yield (
        "tokenizer: no token for unknown words",
        tokenizer_with(lambda tokenizer: tokenizer["model"]["vocab"].pop("[UNK]")),
        fails,
    )
    yield (
        "tokenizer: pieces without one for unknown ones",
        tokenizer_with(
            part("model", {"type": "Unigram", "unk_id": None, "vocab": [["q", -1.0]], "byte_fallback": False})
        ),
        fails,
    )
    yield (
        "tokenizer: an unknown piece past the end",
        tokenizer_with(part("model", {"type": "Unigram", "unk_id": 9, "vocab": [["q", -1.0]], "byte_fallback": False})),
        unreadable,
    )


def _graphs() -> Iterator[tuple[str, Change, str]]:
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


def _probed() -> Iterator[tuple[str, Change, str]]:
    """What only running shows; these are for `probe_bundle`."""
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


def _table(*groups: Callable[[], Iterator[tuple[str, Change, str]]]) -> dict[str, Case]:
    table: dict[str, Case] = {}
    for group in groups:
        for name, change, message in group():
            if name in table:
                raise LookupError(f"{name} is there twice")
            table[name] = Case(change, message)
    return table


HOSTILE = _table(_task_bytes, _task_fields, _task_tensors, _manifests, _links, _configs, _tokenizers, _graphs)
"""Refused while the bundle is read."""

HOSTILE_WHEN_RUN = _table(_probed)
"""Refused by the probe."""


def main(sound: Path) -> None:
    """Print what becomes of each case of `HOSTILE`."""
    inside: list[str] = []
    outside: list[str] = []

    def watch(event: str, arguments: tuple[Any, ...]) -> None:
        if event == "open" and inside and isinstance(arguments[0], (str, bytes)):
            path = os.path.realpath(os.fsdecode(arguments[0]))
            if not path.startswith(inside[0]) and path not in ("/proc/cpuinfo", "/proc/self/statm"):
                outside.append(path)

    read_all(sound)  # so that all modules are there
    sys.addaudithook(watch)
    for name, case in {"sound": Case(lambda _: None, ""), **HOSTILE}.items():
        with tempfile.TemporaryDirectory() as scratch:
            folder = shutil.copytree(sound, Path(scratch) / "bundle")
            case.change(folder)
            error = None
            outside.clear()
            inside.append(os.path.realpath(folder) + os.sep)
            began = time.monotonic()
            try:
                read_all(folder)
            except BaseException as caught:  # noqa: BLE001 - a case that raises another is a finding
                error = caught
            seconds = time.monotonic() - began
            inside.clear()
        refused = isinstance(error, EdgetuneError)
        told = f"{type(error).__name__}: {error}"
        print(json.dumps({"name": name, "refused": refused, "told": told, "outside": outside, "seconds": seconds}))


if __name__ == "__main__":
    main(Path(sys.argv[1]))
