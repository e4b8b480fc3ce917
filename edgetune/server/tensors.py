"""Tensors of the Open Inference Protocol, in JSON or as bytes after it, as in Triton's binary data extension.

https://docs.nvidia.com/deeplearning/triton-inference-server/user-guide/docs/protocol/extension_binary_data.html
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Literal

import msgspec

from edgetune.server.errors import malformed, unusable

_SIZE = "binary_data_size"


class InputTensor(msgspec.Struct, omit_defaults=True):
    """An input: BYTES, shape [texts] or [texts, 1], with flat or nested data."""

    name: str
    shape: list[int]
    datatype: str
    data: list[str | list[str]] | None = None
    parameters: dict[str, Any] | None = None


class OutputTensor(msgspec.Struct, omit_defaults=True):
    """An output. With one value per text it has the input's shape, otherwise [texts, labels], row after row."""

    name: str
    datatype: Literal["BYTES", "BOOL", "INT64", "FP32"]
    shape: list[int]
    data: list[str | bool | int | float] | None = None
    parameters: dict[str, int] | None = None

    def take_binary(self) -> bytes:
        """Remove the data and return it as bytes, which follow the JSON instead."""
        binary = _PACK[self.datatype](self.data or [])
        self.data, self.parameters = None, {_SIZE: len(binary)}
        return binary


def read_texts(tensors: Sequence[InputTensor], binary: bytes) -> list[list[str]]:
    """The texts of each input.

    Args:
        tensors: the inputs.
        binary: the bytes after the JSON, one input after the other.

    Raises:
        RequestError: they do not match the tensors' description.
    """
    sizes = _sizes(tensors, len(binary))
    found, place = [], 0
    for tensor, size in zip(tensors, sizes, strict=True):
        what = "the input" if len(tensors) == 1 else f"the input '{tensor.name}'"
        if (size is None) == (tensor.data is None):
            raise unusable(f"{what} has no data, or has it twice: expected either 'data' or '{_SIZE}'")
        end = place + (size or 0)
        texts = _unpacked(binary[place:end]) if tensor.data is None else _flat(tensor.data)
        place = end
        if tensor.shape not in ([len(texts)], [len(texts), 1]):
            raise unusable(
                f"{what} has shape {tensor.shape[:8]} for {len(texts)} texts: expected [{len(texts)}] or "
                f"[{len(texts)}, 1]"
            )
        found.append(texts)
    return found


def _sizes(tensors: Sequence[InputTensor], came: int) -> list[int | None]:
    """For each input its number of bytes; `None` if its data is in the JSON."""
    sent = [(tensor.parameters or {}).get(_SIZE) for tensor in tensors]
    sizes = [size for size in sent if size is None or (isinstance(size, int | float) and size >= 0)]
    if len(sizes) < len(sent) or sum(size or 0 for size in sizes) != came or any((size or 0) % 1 for size in sizes):
        told = " + ".join(str(size or 0) for size in sent)
        raise malformed(f"{came} bytes came behind the JSON: expected the {told} of '{_SIZE}'")
    return [None if size is None else int(size) for size in sizes]


def _flat(data: Sequence[str | list[str]]) -> list[str]:
    return [text for item in data for text in ([item] if isinstance(item, str) else item)]


def _unpacked(data: bytes) -> list[str]:
    """Texts of a BYTES tensor: each is preceded by its length in 4 bytes, little-endian."""
    texts, place = [], 0
    while place < len(data):
        begin = place + 4
        place = begin + int.from_bytes(data[place:begin], "little")
        if place > len(data):
            raise malformed("the bytes behind the JSON end within a text: expected texts, each behind its length")
        try:
            texts.append(data[begin:place].decode())
        except UnicodeDecodeError as error:
            raise unusable("a text is not UTF-8: expected UTF-8") from error
    return texts


def _packed(values: Sequence[Any]) -> bytes:
    texts = [str(value).encode() for value in values]
    return b"".join(len(text).to_bytes(4, "little") + text for text in texts)


_PACK: Mapping[str, Callable[[Sequence[Any]], bytes]] = {
    "BYTES": _packed,
    "BOOL": bytes,
    "INT64": lambda values: struct.pack(f"<{len(values)}q", *values),
    "FP32": lambda values: struct.pack(f"<{len(values)}f", *values),
}
"""Datatype → function that converts its values to bytes."""
