"""Task files: bytes, header, metadata, tensors."""

from __future__ import annotations

import gzip
import json
import pickle
import shutil
import struct
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import safetensors.numpy

from edgetune_runtime import files
from edgetune_runtime.task_file import digest
from hostile.changes import DAMAGED, FP32, TASK, Cases, Change, edit, put

NOT_WHOLE = "is not a whole task file"
UNSOUND = "is not a sound edgetune task"
TASK_FIELDS = (
    "task", "labels", "metrics", "backbone_sha256", "method", "base_model", "pooling", "position_offset", "template",
    "max_length", "temperature",
)  # fmt: skip


def pack(header: dict[str, Any] | str | bytes, body: bytes) -> bytes:
    """A safetensors file from a header and the bytes after it."""
    text = json.dumps(header) if isinstance(header, dict) else header
    raw = text.encode() if isinstance(text, str) else text
    return struct.pack("<Q", len(raw)) + raw + body


def unpack(data: bytes) -> tuple[dict[str, Any], bytes]:
    (length,) = struct.unpack("<Q", data[:8])
    return json.loads(data[8 : 8 + length]), data[8 + length :]


def task_header(change_header: Callable[[dict[str, Any]], object]) -> Change:
    """The task with a changed header, but unchanged tensors and digest."""

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
        fields["sha256"] = digest(fields, arrays)
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


def of_bytes() -> Cases:
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


def of_fields() -> Cases:
    for version in ("3", "0", "", "1.0", "１", " 1", None):
        yield f"format_version: {version!r}", task_with({"format_version": version}), "task format version"
    for written in ("", "0" * 64, "none"):
        change = task_header(lambda header, written=written: header["__metadata__"].update(sha256=written))
        yield f"sha256: {written!r:.12}", change, DAMAGED
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
    yield "pooling: mask without a slot", task_with({"pooling": "mask"}), "one {mask} if the pooling is 'mask'"
    for backbone in ("", "0" * 64, "AB" * 32):
        change = task_with({"backbone_sha256": backbone})
        yield f"backbone_sha256: {backbone!r:.12}", change, "was trained on the backbone"
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


def version_2(change: dict[str, str | None], **tensors: Any) -> Change:
    """The task in format version 2, with other metadata and tensors."""
    return task_with({"format_version": "2", **change}, **tensors)


def of_new_fields() -> Cases:
    """New in format version 2."""
    for field in ("kind", "thresholds", "pairs", "requires"):
        yield f"version 1: with {field}", task_with({field: "[]"}), f"unknown fields ['{field}']"
    requirements: dict[str, Any] = {
        "no JSON": "pairs",
        "a string": "pairs",
        "a number": 3,
        "null": None,
        "an object": {"pairs": True},
        "one a number": ["pairs", 3],
        "one null": [None],
        "one a list": [["pairs"]],
        "nested 100,000 deep": "[" * 100_000,
        "half of a surrogate pair": '["\\ud800"]',
    }
    for name, value in requirements.items():
        text = value if isinstance(value, str) and name != "a string" else json.dumps(value)
        yield f"requires: {name}", version_2({"requires": text}), UNSOUND
    for value in ("kind:ranking", "", "input:secret", "part:code", "pairs ", "\x1b[2J", "x" * 9000):
        text = json.dumps([value])
        yield f"requires: {value!r:.20}", version_2({"requires": text}), "which this edgetune does not know"
    yield "requires: 100,000 things", version_2({"requires": json.dumps(["x"] * 100_000)}), "does not know"
    for value in ("", "ranking", "Score", "score ", "score\n", "null", "\x1b[2J", "x" * 9000):
        yield f"kind: {value!r:.16}", version_2({"kind": value}), UNSOUND
    yield "kind: a score of three labels", version_2({"kind": "score"}), "labels for a head of 3 rows"
    empty = {"head_weight": np.zeros((0, 32), np.float32), "head_bias": np.zeros(0, np.float32)}
    yield "kind: no labels at all", version_2({"kind": "multi-label", "labels": "[]"}, **empty), "0 labels for a head"
    thresholds = {
        "no JSON": "0.5, 0.5, 0.5",
        "a number": "0.5",
        "null": "null",
        "an object": '{"red": 0.5}',
        "strings": '["0.5", "0.5", "0.5"]',
        "booleans": "[true, true, true]",
        "one null": "[0.5, null, 0.5]",
        "NaN": "[NaN, 0.5, 0.5]",
        "Infinity": "[Infinity, 0.5, 0.5]",
        "1e400": "[1e400, 0.5, 0.5]",
        "400 digits": "[1" + "0" * 400 + ", 0.5, 0.5]",
        "nested 100,000 deep": "[" * 100_000,
    }
    for name, text in thresholds.items():
        yield f"thresholds: {name}", version_2({"kind": "multi-label", "thresholds": text}), UNSOUND
    for numbers in ([0.5], [0.5] * 4, [0.5] * 10_000, [0, 0.5, 0.5], [0.5, 1, 0.5], [-1, 0.5, 0.5], [0.5, 0.5, 2]):
        change = version_2({"kind": "multi-label", "thresholds": json.dumps(numbers)})
        yield f"thresholds: {numbers!r:.30}", change, "threshold"
    yield "thresholds: of a single-label task", version_2({"thresholds": "[0.5, 0.5, 0.5]"}), "expected none for tasks"
    for value in ("", "yes", "True", "1", "null", "true\n"):
        yield f"pairs: {value!r}", version_2({"pairs": value}), UNSOUND
    templates = {
        "without the second text": ({"pairs": "true"}, "so: {text}"),
        "without the first text": ({"pairs": "true"}, "{text_pair}"),
        "the second text twice": ({"pairs": "true"}, "{text} {text_pair} {text_pair}"),
    }
    for name, (pairs, template) in templates.items():
        yield f"pairs: {name}", version_2({**pairs, "template": template}), "has the template"


def of_tensors() -> Cases:
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
