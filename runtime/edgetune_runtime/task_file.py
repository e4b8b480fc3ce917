"""The file format of a task: one small `.safetensors` file.

Tensors: any of `prompt_embeddings` [prompt, embedding], `prefix_keys` and `prefix_values`
[layers, kv_heads, prefix, head_dim], with these optionally `prompt_source` [prefix, embedding]; always `head_weight`
[labels, hidden] and `head_bias` [labels]; all float32. The rest is string metadata; docs/format.md describes every
field. Format of the container: https://github.com/huggingface/safetensors.
"""

from __future__ import annotations

import hashlib
import json
import math
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import safetensors.numpy
from safetensors import SafetensorError

from edgetune_runtime import contract, files, strict
from edgetune_runtime.arrays import Array
from edgetune_runtime.errors import TaskError
from edgetune_runtime.kinds import KINDS
from edgetune_runtime.kinds.single_label import SINGLE_LABEL
from edgetune_runtime.parts import PARTS

if TYPE_CHECKING:
    from edgetune_runtime.task import Task

LONGEST_TEXT = 1000
"""Maximum length of a label, and of other strings except the template, in characters."""

_LARGEST_HEADER_BYTES = 1_000_000  # clinc150's 150 labels take 3.5 kB; ten thousand of 90 characters fill it

KNOWN_REQUIREMENTS = frozenset(
    (
        *(name for kind in KINDS.values() for name in kind.requires),
        *(part.requires for part in PARTS.values() if part.requires),
        *(f"input:{name}" for name in contract.INPUTS),
        *(f"pooling:{name}" for name in contract.NAMED_POOLINGS),
        "pairs",
        "long:windows",
    )
)
"""Requirements that this version supports."""


def write(task: Task) -> bytes:
    """A task as the bytes of its file. Equal tasks give equal bytes."""
    tensors = {name: np.ascontiguousarray(task.tensors[name]) for name in sorted(task.tensors)}
    own = {one.key: one.write(value) for one in _FIELDS if (value := getattr(task, one.attribute)) != one.default}
    metadata = {**task.unknown, **own}
    if task.requires:
        metadata["requires"] = json.dumps(list(task.requires))
    metadata["format_version"] = "1" if metadata.keys() == _KEYS_OF_0_1 else "2"
    metadata["sha256"] = digest(metadata, tensors)
    return _sorted_header(safetensors.numpy.save(tensors, metadata))


def read(data: bytes, origin: str) -> tuple[dict[str, Any], dict[str, Array]]:
    """Read a task's fields, by the names of `Task`'s attributes, and its tensors.

    Args:
        data: the bytes of its file.
        origin: what to call them in an error.

    Raises:
        TaskError: they are not a whole, sound task file, or one that requires what this version does not know.
    """
    metadata, tensors = _split(data, origin)
    version = metadata.get("format_version")
    known_versions = [str(number) for number in contract.FORMAT_VERSIONS]
    if version not in known_versions:
        raise TaskError(
            f"{origin} has task format version {version}, expected {' or '.join(known_versions)}: "
            f"train it again with this edgetune, or install the edgetune that wrote it"
        )
    written = metadata.pop("sha256", "none")
    if written != digest(metadata, tensors):
        raise TaskError(
            f"{origin} is damaged: its contents do not have the SHA-256 written in it ({written[:12]}…); "
            f"copy or train it again"
        )
    del metadata["format_version"]
    try:
        # In version 1 it is treated like any other unknown field.
        needed = [] if version == "1" else strict.json_value(metadata.pop("requires", "[]"))
        if not isinstance(needed, list) or not all(isinstance(one, str) for one in needed):
            raise ValueError(f"requires is {needed!r:.60}: expected a list of strings")
    except (ValueError, TypeError, AttributeError) as error:
        raise _unsound(origin, error) from error
    new = sorted(set(needed) - KNOWN_REQUIREMENTS)
    if new:
        raise TaskError(
            f"{origin} requires {', '.join(new)}, which this edgetune does not know: install a newer edgetune"
        )
    try:
        fields = {
            one.attribute: one.read(metadata.pop(one.key))
            for one in _FIELDS
            if one.default is _REQUIRED or (one.key in metadata and version != "1")
        }
        if version == "1" and metadata:
            raise ValueError(f"unknown fields {sorted(metadata)!r:.300}")
    except (KeyError, ValueError, TypeError, AttributeError, OverflowError) as error:
        raise _unsound(origin, error) from error
    fields["unknown"] = metadata
    fields["graph_inputs"] = tuple(one.removeprefix("input:") for one in needed if one.startswith("input:"))
    return fields, tensors


def _unsound(origin: str, error: Exception) -> TaskError:
    """The error for metadata that cannot be read."""
    return TaskError(
        f"{origin} is not a sound edgetune task: its metadata cannot be read "
        f"({type(error).__name__}: {error}); train it again"
    )


def digest(metadata: Mapping[str, str], tensors: Mapping[str, Array]) -> str:
    """SHA-256 over metadata and tensors: sorted names, dtypes, shapes and bytes."""
    found = hashlib.sha256(json.dumps(metadata, sort_keys=True).encode())
    for name, tensor in sorted(tensors.items()):
        found.update(f"{name} {tensor.dtype.str} {tensor.shape}\n".encode())
        found.update(tensor.tobytes())
    return found.hexdigest()


def _text(value: str) -> str:
    return strict.plain_text(value, LONGEST_TEXT)


def _whole(value: str) -> int:
    # int() also accepts digits of other scripts, underscores and spaces.
    if not re.fullmatch("-?[0-9]{1,9}", value):
        raise ValueError(f"{value!r:.40}: expected a whole number")
    return int(value)


def _number(value: str) -> float:
    if not re.fullmatch("[-+.0-9a-zE]{1,40}", value):
        raise ValueError(f"{value!r:.40}: expected a number")
    return float(value)


def _labels(text: str) -> tuple[str, ...]:
    labels = strict.json_value(text)
    if not isinstance(labels, list):
        raise ValueError(f"labels are {text:.60}")
    return tuple(map(_text, labels))


def _metrics(text: str) -> dict[str, float]:
    metrics = strict.json_value(text)
    # Integers stay integers, so that a file is reproduced byte for byte; `isfinite` raises if they do not fit a float.
    odd = [value for value in metrics.values() if type(value) not in (int, float) or not math.isfinite(value)]
    if odd:
        raise ValueError(f"a metric is {odd[0]!r:.40}")
    return {_text(name): value for name, value in metrics.items()}


def _numbers(text: str) -> tuple[float, ...]:
    numbers = strict.json_value(text)
    if not isinstance(numbers, list) or any(type(one) not in (int, float) for one in numbers):
        raise ValueError(f"{text:.60}: expected a list of numbers")
    return tuple(map(float, numbers))


def _kind(value: str) -> str:
    if value not in KINDS:
        raise ValueError(f"the kind {value!r:.40}: expected one of {', '.join(KINDS)}")
    return value


def _flag(value: str) -> bool:
    if value not in ("true", "false"):
        raise ValueError(f"{value!r:.40}: expected true or false")
    return value == "true"


def _json(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False)


_REQUIRED = object()


@dataclass(frozen=True)
class _Field:
    """A field of the metadata.

    Attributes:
        key: its name in the file.
        attribute: the attribute of `Task`.
        read, write: conversion from and to the file's string.
        default: `Task`'s default, which is not written. Fields with a default were added after version 1.
    """

    key: str
    attribute: str
    read: Callable[[str], Any]
    write: Callable[[Any], str] = str
    default: Any = _REQUIRED


_FIELDS = (
    _Field("task", "name", files.check_task_name),
    _Field("labels", "labels", _labels, lambda labels: _json(list(labels))),
    _Field("metrics", "metrics", _metrics, lambda metrics: json.dumps(dict(metrics), sort_keys=True)),
    _Field("backbone_sha256", "backbone_sha256", _text),
    _Field("method", "method", _text),
    _Field("base_model", "base_model", _text),
    _Field("pooling", "pooling", _text),
    _Field("position_offset", "position_offset", _whole),
    _Field("template", "template", str),
    _Field("max_length", "max_length", _whole),
    _Field("temperature", "temperature", _number),
    _Field("kind", "kind_name", _kind, default=SINGLE_LABEL.name),
    _Field("thresholds", "thresholds", _numbers, lambda numbers: json.dumps(list(numbers)), default=()),
    _Field("pairs", "pairs", _flag, lambda flag: "true" if flag else "false", default=False),
    _Field("long_texts", "long_texts", _text, default=contract.CUT),
    _Field("stride", "stride", _whole, default=0),
)

_KEYS_OF_0_1 = {one.key for one in _FIELDS if one.default is _REQUIRED}


def _header(data: bytes) -> tuple[dict[str, Any], int]:
    """The JSON header of a safetensors file, and where it ends."""
    length = int.from_bytes(data[:8], "little")
    if len(data) < 8 or length > len(data) - 8:
        raise ValueError("the header is cut short")
    return strict.json_value(data[8 : 8 + length]), 8 + length


def _sorted_header(data: bytes) -> bytes:
    # The library writes metadata in an order that changes from run to run, but equal tasks should give equal files.
    header, end = _header(data)
    text = json.dumps(header, sort_keys=True, ensure_ascii=False, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    return len(text).to_bytes(8, "little") + text + data[end:]


def _split(data: bytes, origin: str) -> tuple[dict[str, str], dict[str, Array]]:
    try:
        if int.from_bytes(data[:8], "little") > _LARGEST_HEADER_BYTES:
            raise ValueError(f"its header is larger than {_LARGEST_HEADER_BYTES:,} bytes, or cut short")
        metadata = _header(data)[0].get("__metadata__")
        return dict(metadata or {}), safetensors.numpy.load(data)
    except (ValueError, TypeError, AttributeError, KeyError, SafetensorError) as error:
        raise TaskError(
            f"{origin} is not a whole task file ({error}): expected the .safetensors file that "
            f"'edgetune train' wrote; copy or train it again"
        ) from error
