"""A task: one small `.safetensors` file with a prompt, a head, and what they were made for.

Tensors: any of `prompt_embeddings` [prompt, embedding], `prefix_keys` and `prefix_values`
[layers, kv_heads, prefix, head_dim], with these `prompt_source` [prefix, embedding]; always `head_weight`
[labels, hidden] and `head_bias` [labels]; all float32. The rest is string metadata. Format of the container: https://github.com/huggingface/safetensors.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import math
import os
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import safetensors.numpy
from numpy.typing import NDArray
from safetensors import SafetensorError

from edgetune_runtime import contract, files, strict
from edgetune_runtime.contract import BackboneSizes
from edgetune_runtime.errors import TaskError

Array = NDArray[Any]

MOST_LABELS = 10_000
LONGEST_LABEL = 1000
"""Characters of a label, and of the other strings but the template."""

_LONGEST_TEMPLATE = 100_000
_LARGEST_HEADER_BYTES = 1_000_000  # clinc150's 150 labels take 3.5 kB, ten thousand of 90 characters all of it

# Trained tasks stay below 11. Sums, squares and cubes of a million stay far below float32's 3e38 in every layer.
_LARGEST_NUMBER = 1e6

_REQUIRED = (contract.HEAD_WEIGHT, contract.HEAD_BIAS)
_OPTIONAL = tuple(name for name in contract.TASK_TENSORS if name not in _REQUIRED)


@dataclass(frozen=True, eq=False)
class Task:
    """A classification task on one backbone.

    Attributes:
        name: what the task is called.
        labels: the labels, in the order of the head's rows.
        backbone_sha256: fingerprint of the weights that the task was trained on.
        tensors: the prompt and the head, without the tasks dimension (shapes: see the module).
        method: how it was trained ("prefix", "prompt").
        base_model: the backbone's name, for people.
        pooling: where features are read, one of `contract.POOLINGS`.
        position_offset: position id of the text's first token.
        template: what surrounds the text; `{text}` stands for it, `{mask}` for the mask token.
        max_length: most tokens of a text that are read, special tokens included.
        temperature: what logits are divided by before the softmax.
        metrics: figures of the training, such as the accuracy on development data.
    """

    name: str
    labels: tuple[str, ...]
    backbone_sha256: str
    tensors: Mapping[str, Array]
    method: str
    base_model: str
    pooling: str
    position_offset: int = 0
    template: str = contract.TEXT_SLOT
    max_length: int = contract.DEFAULT_MAX_LENGTH
    temperature: float = 1.0
    metrics: Mapping[str, float] = field(default_factory=dict)

    @property
    def prompt_length(self) -> int:
        """Tokens fed as prompt embeddings."""
        embeddings = self.tensors.get(contract.PROMPT_EMBEDDINGS)
        return 0 if embeddings is None else int(embeddings.shape[0])

    @property
    def prefix_length(self) -> int:
        """Keys and values put before the text's, in every layer."""
        keys = self.tensors.get(contract.PREFIX_KEYS)
        return 0 if keys is None else int(keys.shape[2])

    @property
    def num_parameters(self) -> int:
        """Numbers that the task stores."""
        return sum(int(tensor.size) for tensor in self.tensors.values())

    @cached_property
    def sha256(self) -> str:
        """SHA-256 of the task's file, its version."""
        return files.sha256(self.to_bytes())

    def to_bytes(self) -> bytes:
        """The task as the bytes of a `.safetensors` file; equal tasks give equal bytes."""
        tensors = {name: np.ascontiguousarray(self.tensors[name]) for name in sorted(self.tensors)}
        metadata = {
            "format_version": str(contract.FORMAT_VERSION),
            "task": self.name,
            "labels": json.dumps(list(self.labels), ensure_ascii=False),
            "metrics": json.dumps(dict(self.metrics), sort_keys=True),
            **{key: str(getattr(self, key)) for key in _PLAIN_FIELDS},
        }
        metadata["sha256"] = _digest(metadata, tensors)
        return _sorted_header(safetensors.numpy.save(tensors, metadata))

    def save(self, path: Path) -> None:
        """Write the task file, whole or not at all.

        Raises:
            TaskError: the task is not one that could be read again.
        """
        data = self.to_bytes()
        Task.from_bytes(data, f"the task '{self.name}'")
        files.write_atomic(path, data)

    @classmethod
    def from_bytes(cls, data: bytes, origin: str) -> Task:
        """Read a task from the bytes of its file.

        Args:
            data: the bytes.
            origin: what to call them in an error.

        Raises:
            TaskError: they are not a whole, sound task file of this format version.
        """
        metadata, tensors = _split(data, origin)
        version = metadata.get("format_version")
        if version != str(contract.FORMAT_VERSION):
            raise TaskError(
                f"{origin} has task format version {version}, expected {contract.FORMAT_VERSION}: "
                f"train it again with this edgetune, or install the edgetune that wrote it"
            )
        written = metadata.pop("sha256", "none")
        if written != _digest(metadata, tensors):
            raise TaskError(
                f"{origin} is damaged: its contents do not have the SHA-256 written in it ({written[:12]}…); "
                f"copy or train it again"
            )
        try:
            plain = {key: kind(metadata.pop(key)) for key, kind in _PLAIN_FIELDS.items()}
            task = cls(
                name=files.check_task_name(metadata.pop("task")),
                labels=_labels(metadata.pop("labels")),
                metrics=_metrics(metadata.pop("metrics")),
                tensors=tensors,
                **plain,
            )
            if unknown := sorted(metadata.keys() - {"format_version"}):
                raise ValueError(f"unknown fields {unknown!r:.300}")
        except (KeyError, ValueError, TypeError, AttributeError, OverflowError) as error:
            raise TaskError(
                f"{origin} is not a sound edgetune task: its metadata cannot be read "
                f"({type(error).__name__}: {error}); train it again"
            ) from error
        task._check(origin)
        return task

    @classmethod
    def load(cls, path: Path) -> Task:
        """Read a task file.

        Raises:
            TaskError: it is not there, or not a whole, sound task file of this format version.
        """
        try:
            # The path is the user's own: it may be a link, or lead through one.
            with files.open_regular(Path(os.path.realpath(path)), files.TASK_LIMIT_BYTES) as file:
                data = file.read()
        except OSError as error:
            raise TaskError(
                f"the task file {path} cannot be read ({error.strerror}): expected a .safetensors file "
                f"that 'edgetune train' wrote"
            ) from error
        return cls.from_bytes(data, str(path))

    def renamed(self, name: str) -> Task:
        """The same task under another name."""
        return dataclasses.replace(self, name=files.check_task_name(name))

    def _check(self, origin: str) -> None:
        names = set(self.tensors)
        prefixes = {contract.PREFIX_KEYS, contract.PREFIX_VALUES} & names
        if not set(_REQUIRED) <= names <= {*_REQUIRED, *_OPTIONAL} or len(prefixes) == 1:
            raise TaskError(
                f"{origin} has the tensors {sorted(names)!r:.300}: expected {list(_REQUIRED)} and any of "
                f"{list(_OPTIONAL)} (keys and values together)"
            )
        for name, tensor in self.tensors.items():
            dims = contract.TASK_TENSORS[name]
            if tensor.dtype != np.float32 or tensor.ndim != len(dims):
                raise TaskError(
                    f"{origin} has {name} as {tensor.dtype} {list(tensor.shape)}: expected float32 {list(dims)}"
                )
            if tensor.size and not np.abs([tensor.min(), tensor.max()]).max() <= _LARGEST_NUMBER:
                raise TaskError(
                    f"{origin} has numbers in {name} that are not finite or not from {-_LARGEST_NUMBER:,.0f} to "
                    f"{_LARGEST_NUMBER:,.0f}: train it again"
                )
        rows = (
            len(self.labels),
            len(self.tensors[contract.HEAD_WEIGHT]),
            len(self.tensors[contract.HEAD_BIAS]),
        )
        if len(set(rows)) != 1 or len(set(self.labels)) != len(self.labels) or not 2 <= len(self.labels) <= MOST_LABELS:
            raise TaskError(
                f"{origin} has {rows[0]} labels for a head of {rows[1]} rows and {rows[2]} biases: expected "
                f"at least two labels and at most {MOST_LABELS:,}, all different, one a row"
            )
        if self.pooling not in contract.POOLINGS:
            raise TaskError(f"{origin} has pooling {self.pooling!r:.40}: expected one of {list(contract.POOLINGS)}")
        check_template(self.template, self.pooling, origin)
        sound = self.position_offset >= 0 and self.max_length >= 1
        if not (sound and math.isfinite(self.temperature) and self.temperature > 0):
            raise TaskError(
                f"{origin} has position_offset {self.position_offset}, max_length {self.max_length}, "
                f"temperature {self.temperature}: expected an offset of at least 0, a length of at least 1 and a "
                f"temperature above 0"
            )


def _text(value: str) -> str:
    return strict.plain_text(value, LONGEST_LABEL)


def _whole(value: str) -> int:
    # int() also takes other scripts' digits, underscores and blanks.
    if not re.fullmatch("-?[0-9]{1,9}", value):
        raise ValueError(f"{value!r:.40} where a whole number was expected")
    return int(value)


def _number(value: str) -> float:
    if not re.fullmatch("[-+.0-9a-z]{1,40}", value):
        raise ValueError(f"{value!r:.40} where a number was expected")
    return float(value)


_PLAIN_FIELDS: dict[str, Callable[[str], Any]] = {
    "backbone_sha256": _text,
    "method": _text,
    "base_model": _text,
    "pooling": _text,
    "position_offset": _whole,
    "template": str,
    "max_length": _whole,
    "temperature": _number,
}


def check_template(template: str, pooling: str, origin: str) -> None:
    """Raise `TaskError` unless the template of what `origin` names is text and has each slot as often as it should."""
    try:
        strict.plain_text(template, _LONGEST_TEMPLATE)
    except ValueError as error:
        raise TaskError(f"{origin} has the template {template!r:.300}: {error}; write another") from error
    slots = template.count(contract.TEXT_SLOT), template.count(contract.MASK_SLOT)
    if slots != (1, int(pooling == "mask")):
        raise TaskError(
            f"{origin} has the template {template!r:.300} for pooling '{pooling}': expected one {contract.TEXT_SLOT}, "
            f"and one {contract.MASK_SLOT} where the pooling is 'mask', else none"
        )


def check_fits(
    task: Task,
    backbone_sha256: str,
    base_model: str,
    sizes: BackboneSizes,
    poolings: Sequence[str],
    max_positions: int,
) -> None:
    """Raise `TaskError` unless the task was made for this backbone, and for a pooling that it has."""
    if task.backbone_sha256 != backbone_sha256:
        raise TaskError(
            f"task '{task.name}' was trained on the backbone {task.base_model} ({task.backbone_sha256[:12]}…), "
            f"but this is {base_model} ({backbone_sha256[:12]}…): use the bundle of its own backbone, or train "
            f"it again on this one"
        )
    if task.pooling not in poolings:
        raise TaskError(
            f"task '{task.name}' reads its features by pooling '{task.pooling}', which {base_model} does not have: "
            f"expected one of {', '.join(poolings)}; train it again with --pooling {poolings[0]}"
        )
    if max(task.prompt_length, task.position_offset) >= max_positions:
        raise TaskError(
            f"task '{task.name}' has a prompt of {task.prompt_length} tokens and its text begins at position "
            f"{task.position_offset}: {base_model} has {max_positions} positions, which leaves no room for text"
        )
    lengths = {"prompt": task.prompt_length, "prefix": task.prefix_length, "labels": len(task.labels)}
    for name, tensor in task.tensors.items():
        expected = sizes.of(contract.TASK_TENSORS[name], **lengths)
        if tensor.shape != expected:
            raise TaskError(
                f"task '{task.name}' has {name} of shape {list(tensor.shape)}: expected {list(expected)} "
                f"on {base_model}"
            )


def _labels(text: str) -> tuple[str, ...]:
    labels = strict.json_value(text)
    if not isinstance(labels, list):
        raise ValueError(f"labels are {text:.60}")
    return tuple(map(_text, labels))


def _metrics(text: str) -> dict[str, float]:
    metrics = strict.json_value(text)
    odd = [value for value in metrics.values() if type(value) not in (int, float)]
    if odd:
        raise ValueError(f"a metric is {odd[0]!r:.40}")
    return {_text(name): float(value) for name, value in metrics.items()}


def _digest(metadata: Mapping[str, str], tensors: Mapping[str, Array]) -> str:
    digest = hashlib.sha256(json.dumps(metadata, sort_keys=True).encode())
    for name, tensor in sorted(tensors.items()):
        digest.update(f"{name} {tensor.dtype.str} {tensor.shape}\n".encode())
        digest.update(tensor.tobytes())
    return digest.hexdigest()


def _header(data: bytes) -> tuple[dict[str, Any], int]:
    """The JSON header of a safetensors file and where it ends."""
    length = int.from_bytes(data[:8], "little")
    if len(data) < 8 or length > len(data) - 8:
        raise ValueError("the header is cut short")
    return strict.json_value(data[8 : 8 + length]), 8 + length


def _sorted_header(data: bytes) -> bytes:
    # The library writes metadata in an order that changes from run to run; the same task should be the same file.
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
