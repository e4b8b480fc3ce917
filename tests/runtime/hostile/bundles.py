"""Manifests, entries that are not files, and configurations."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from edgetune_runtime import files
from hostile.changes import (
    DAMAGED,
    FP32,
    TASK,
    Cases,
    Change,
    edit,
    edit_json,
    flip,
    link_outside,
    link_to,
    make_socket,
    manifest_with,
    manifest_without,
    put,
    replaced,
    sign_file,
    sparse,
)  # fmt: skip

NO_MANIFEST = "is not a sound edgetune manifest"
MANIFEST_FIELDS = (
    "base_model", "architecture", "backbone_sha256", "sizes", "max_positions", "poolings", "mask_token", "graphs",
    "files", "edgetune_version",
)  # fmt: skip
ONES = ("edgetune.json", "config.json", "tokenizer.json", "README.md", FP32, "onnx/model_int8.onnx", TASK)


def of_manifests() -> Cases:
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
    yield "manifest: too large", sparse(files.MANIFEST, 2_000_001), "2,000,001 bytes: expected at most 2,000,000"
    yield "manifest: of a terabyte", sparse(files.MANIFEST, 1 << 40), "bytes: expected at most 2,000,000"
    yield "manifest: cut", edit(files.MANIFEST, lambda data: data[: len(data) // 2]), NO_MANIFEST
    yield "manifest: a bracket more", edit(files.MANIFEST, lambda data: data + b"}"), NO_MANIFEST
    versions: tuple[Any, ...] = (0, 3, "1", "2", True, 1.0, 2.0, None, [1], -1)
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
    yield "manifest: a size more", manifest_with("sizes", "depth", value=3), NO_MANIFEST
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
    for value in poolings:
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


def of_requirements() -> Cases:
    """New in format version 2: requirements of a manifest, and the inputs of its graphs."""
    yield "manifest: without inputs", manifest_without("inputs"), NO_MANIFEST
    for value in ("pairs", 3, None, {"a": 1}, [3], [None], [["a"]]):
        yield f"manifest: requires {value!r}", manifest_with("requires", value=value), NO_MANIFEST
    for value in (["shards"], [""], ["\x1b[2J"], ["x" * 9000], ["x"] * 10_000):
        change = manifest_with("requires", value=value)
        yield f"manifest: requires {value!r:.30}", change, "which this edgetune does not know: install a newer"
    spans = {"dtype": "int64", "dims": ["batch", "spans", "ends"]}
    for value in (None, [], "spans", 3, {}, {"spans": spans}, ["input_ids"]):
        yield f"manifest: inputs {value!r:.40}", manifest_with("inputs", value=value), NO_MANIFEST
    for name in ("secret", "", "\x1b[2J", "Spans", "prompt_source"):
        yield f"manifest: an input {name!r}", manifest_with("inputs", name, value=spans), "this edgetune does not know"
    wrong: tuple[Any, ...] = (
        None, 3, [], {}, {"dtype": "int64"}, {**spans, "dtype": "int32"}, {**spans, "dims": ["batch", "spans"]},
        {**spans, "dims": "batch"}, {**spans, "dims": None}, {**spans, "dims": [1, 2, 3]}, {**spans, "dtype": None},
    )  # fmt: skip
    for value in wrong:
        yield f"manifest: spans as {value!r:.60}", manifest_with("inputs", "spans", value=value), NO_MANIFEST
    for name in ("input_ids", "attention_mask", "task_index", "head_weight", "head_bias"):
        change = edit_json(files.MANIFEST, lambda record, name=name: record["inputs"].pop(name))
        yield f"manifest: graphs without {name}", change, f"a graph without the inputs {name}"
    for name in ("spans", "token_type_ids", "pooling", "prompt_mask"):
        change = edit_json(files.MANIFEST, lambda record, name=name: record["inputs"].pop(name))
        yield f"manifest: {name} not told", change, "the graph has the inputs"
    figures: tuple[Any, ...] = ("", "A", "x" * 99, "a b", "\x1b[2J", 3, None, ["accuracy"])
    for figure in figures:
        parity = {"a": {"rows": 1, "max_logit_difference": 0, "label_agreement": 1, "figure": figure}}
        change = manifest_with("graphs", "fp32", "parity", value=parity)
        yield f"manifest: the figure {figure!r:.20}", change, NO_MANIFEST


def of_links() -> Cases:
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
    yield "link: to another file of the bundle", link_to(files.CONFIG, files.MANIFEST), DAMAGED
    yield "link: the manifest to /proc/self/environ", link_to(files.MANIFEST, "/proc/self/environ"), "is a link"
    yield "link: a task to /etc/passwd", link_to(TASK, "/etc/passwd"), "is a link"
    yield "link: hard, of weights beside a graph", hard_link, "it is a hard link"
    for name, size_bytes in {files.CONFIG: 1_000_001, files.TOKENIZER: 64_000_001, TASK: 64_000_001}.items():
        yield f"size: {name} a byte too large", sparse(name, size_bytes), "bytes: expected at most"
        yield f"size: {name} of a terabyte", sparse(name, 1 << 40), "bytes: expected at most"


def hard_link(folder: Path) -> None:
    name = f"{FP32}.data"
    (folder / name).write_bytes(b"weights")
    os.link(folder / name, folder.parent / "other name")
    manifest_with("graphs", "fp32", "data", value=name)(folder)
    sign_file(folder, name, b"weights")


def of_configs() -> Cases:
    for value in ("300", 0, -1, 300.0, True, None, [300], 1 << 40):
        yield f"config: vocab_size {value!r}", config_with(vocab_size=value), "the size of the vocabulary"
    yield "config: without vocab_size", edit_json(files.CONFIG, lambda c: c.pop("vocab_size"), True), "the vocabulary"
    whole = {"empty": "", "no JSON": "{", "a list": "[]", "null": "null", "deep": "[" * 100_000, "NaN": '{"a": NaN}'}
    whole["vocab_size twice"] = '{"vocab_size": 5, "vocab_size": 300}'
    for name, data in whole.items():
        yield f"config: {name}", put(files.CONFIG, data, sign=True), "the size of the vocabulary"
    yield "config: fewer tokens than the tokenizer has", config_with(vocab_size=5), "gives the token id"


def config_with(**fields: Any) -> Change:
    return edit_json(files.CONFIG, lambda config: config.update(fields), sign=True)
