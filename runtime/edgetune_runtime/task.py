"""A task: one small `.safetensors` file with a prompt, a head, and what they were made for.

Tensors: any of `prompt_embeddings` [prompt, embedding], `prefix_keys` and `prefix_values`
[layers, kv_heads, prefix, head_dim], with these `prompt_source` [prefix, embedding]; always `head_weight`
[labels, hidden] and `head_bias` [labels]; all float32. The rest is string metadata. Format of the container: https://github.com/huggingface/safetensors.
"""

from __future__ import annotations

import dataclasses
import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import safetensors.numpy
from numpy.typing import NDArray
from safetensors import SafetensorError

from edgetune_runtime import contract, files
from edgetune_runtime.contract import BackboneSizes
from edgetune_runtime.errors import TaskError

Array = NDArray[Any]

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
        """Write the task file, whole or not at all."""
        files.write_atomic(path, self.to_bytes())

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
            plain = {key: kind(metadata[key]) for key, kind in _PLAIN_FIELDS.items()}
            task = cls(
                name=files.check_task_name(metadata["task"]),
                labels=_labels(metadata["labels"]),
                metrics={str(key): float(value) for key, value in json.loads(metadata["metrics"]).items()},
                tensors=tensors,
                **plain,
            )
        except (KeyError, ValueError, TypeError, AttributeError, OverflowError, RecursionError) as error:
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
            data = path.read_bytes()
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
                f"{origin} has the tensors {sorted(names)}: expected {list(_REQUIRED)} and any of "
                f"{list(_OPTIONAL)} (keys and values together)"
            )
        for name, tensor in self.tensors.items():
            dims = contract.TASK_TENSORS[name]
            if tensor.dtype != np.float32 or tensor.ndim != len(dims):
                raise TaskError(
                    f"{origin} has {name} as {tensor.dtype} {list(tensor.shape)}: expected float32 {list(dims)}"
                )
            if not np.isfinite(tensor).all():
                raise TaskError(f"{origin} has numbers in {name} that are not finite: train it again")
        rows = (
            len(self.labels),
            len(self.tensors[contract.HEAD_WEIGHT]),
            len(self.tensors[contract.HEAD_BIAS]),
        )
        if len(set(rows)) != 1 or len(set(self.labels)) != len(self.labels) or len(self.labels) < 2:
            raise TaskError(
                f"{origin} has {rows[0]} labels for a head of {rows[1]} rows and {rows[2]} biases: expected "
                f"at least two labels, all different, one a row"
            )
        if self.pooling not in contract.POOLINGS:
            raise TaskError(f"{origin} has pooling {self.pooling!r}: expected one of {list(contract.POOLINGS)}")
        check_template(self.template, self.pooling, origin)
        sound = self.position_offset >= 0 and self.max_length >= 1
        if not (sound and math.isfinite(self.temperature) and self.temperature > 0):
            raise TaskError(
                f"{origin} has position_offset {self.position_offset}, max_length {self.max_length}, "
                f"temperature {self.temperature}: expected an offset of at least 0, a length of at least 1 and a "
                f"temperature above 0"
            )


_PLAIN_FIELDS: dict[str, type] = {
    "backbone_sha256": str,
    "method": str,
    "base_model": str,
    "pooling": str,
    "position_offset": int,
    "template": str,
    "max_length": int,
    "temperature": float,
}


def check_template(template: str, pooling: str, origin: str) -> None:
    """Raise `TaskError` unless the template of what `origin` names has its slots, each as often as it should be."""
    slots = template.count(contract.TEXT_SLOT), template.count(contract.MASK_SLOT)
    if slots != (1, int(pooling == "mask")):
        raise TaskError(
            f"{origin} has the template {template!r} for pooling '{pooling}': expected one {contract.TEXT_SLOT}, and "
            f"one {contract.MASK_SLOT} where the pooling is 'mask', else none"
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
    labels = json.loads(text)
    if not isinstance(labels, list) or not all(isinstance(label, str) for label in labels):
        raise ValueError(f"labels are {text[:60]}")
    return tuple(labels)


def _digest(metadata: Mapping[str, str], tensors: Mapping[str, Array]) -> str:
    parts = [json.dumps(metadata, sort_keys=True).encode()]
    parts += [
        f"{name} {tensor.dtype.str} {tensor.shape}\n".encode() + tensor.tobytes()
        for name, tensor in sorted(tensors.items())
    ]
    return files.sha256(b"".join(parts))


def _header(data: bytes) -> tuple[dict[str, Any], int]:
    """The JSON header of a safetensors file and where it ends."""
    length = int.from_bytes(data[:8], "little")
    if len(data) < 8 or length > len(data) - 8:
        raise ValueError("the header is cut short")
    return json.loads(data[8 : 8 + length]), 8 + length


def _sorted_header(data: bytes) -> bytes:
    # The library writes metadata in an order that changes from run to run; the same task should be the same file.
    header, end = _header(data)
    text = json.dumps(header, sort_keys=True, ensure_ascii=False, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    return len(text).to_bytes(8, "little") + text + data[end:]


def _split(data: bytes, origin: str) -> tuple[dict[str, str], dict[str, Array]]:
    try:
        metadata = _header(data)[0].get("__metadata__")
        return dict(metadata or {}), safetensors.numpy.load(data)
    except (ValueError, TypeError, AttributeError, KeyError, SafetensorError, RecursionError) as error:
        raise TaskError(
            f"{origin} is not a whole task file ({error}): expected the .safetensors file that "
            f"'edgetune train' wrote; copy or train it again"
        ) from error
