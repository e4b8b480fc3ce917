"""Read and change, without the onnx package, which files an ONNX graph takes its weights from.

onnxruntime opens any file that a tensor's `external_data` names, so a graph is inspected here first. This module knows
only the parts of https://github.com/onnx/onnx/blob/main/onnx/onnx.proto that lead to a tensor.
"""

from __future__ import annotations

from collections.abc import Iterator
from mmap import mmap

from edgetune_runtime.errors import BundleError

CHILDREN: dict[str, dict[int, str]] = {
    "ModelProto": {7: "GraphProto", 20: "TrainingInfoProto", 25: "FunctionProto"},
    "TrainingInfoProto": {1: "GraphProto", 2: "GraphProto"},
    "FunctionProto": {7: "NodeProto", 11: "AttributeProto"},
    "GraphProto": {1: "NodeProto", 5: "TensorProto", 15: "SparseTensorProto"},
    "NodeProto": {5: "AttributeProto"},
    "AttributeProto": {
        5: "TensorProto",
        6: "GraphProto",
        10: "TensorProto",
        11: "GraphProto",
        22: "SparseTensorProto",
        23: "SparseTensorProto",
    },
    "SparseTensorProto": {1: "TensorProto", 2: "TensorProto"},
    "TensorProto": {13: "external_data"},
}
"""Message → numbers of its fields that lead to `external_data`, and the message that each holds."""

Data = bytes | mmap

_KEY, _VALUE = 1, 2
_PATH_TO_WEIGHTS = (7, 5, 9)  # the graph, its initializers, their bytes
_EXTERNAL_DATA, _DATA_LOCATION, _EXTERNAL = 13, 14, 1
_SMALLEST_LEFT = 1024
_VARINT, _FIXED64, _BYTES, _FIXED32 = 0, 1, 2, 5


def external_files(graph: bytes) -> set[str]:
    """All files that a graph's tensors name, including tensors in subgraphs.

    Raises:
        BundleError: the bytes are not an ONNX graph.
    """
    found: set[str] = set()
    pending = [("ModelProto", 0, len(graph))]
    try:
        while pending:
            message, start, end = pending.pop()
            fields = _fields(graph, start, end)
            if message == "external_data":
                entry = {number: graph[first:last] for number, first, last in fields}
                if entry.get(_KEY) == b"location":
                    found.add(entry.get(_VALUE, b"").decode())
                continue
            children = CHILDREN[message]
            pending += [(children[number], first, last) for number, first, last in fields if number in children]
    except ValueError as error:
        raise BundleError(f"the graph is not sound ONNX ({error}): export the bundle again") from error
    return found


def without_weights(graph: Data, file: str) -> bytes:
    """The graph of a file, with its large weights replaced by references into that file.

    onnxruntime maps such weights, and only needs memory for the data that it derives from them.

    Args:
        graph: the bytes of the file.
        file: its name.

    Raises:
        BundleError: the bytes are not an ONNX graph.
    """
    try:
        return b"".join(_told(graph, 0, len(graph), _PATH_TO_WEIGHTS, file))
    except ValueError as error:
        raise BundleError(f"the graph is not sound ONNX ({error}): export the bundle again") from error


def _told(data: Data, start: int, end: int, path: tuple[int, ...], file: str) -> Iterator[bytes]:
    """A message in which the fields on a path to weights are rewritten, and all others are copied."""
    copied, moved = start, b""
    for number, first, last in _fields(data, start, end):
        if number != path[0] or last - first < _SMALLEST_LEFT:
            continue
        yield data[copied : first - len(_seven_bits(last - first)) - 1]
        if len(path) == 1:
            moved = _moved(file, first, last - first)
        else:
            inner = list(_told(data, first, last, path[1:], file))
            yield _key(number, sum(map(len, inner)))
            yield from inner
        copied = last
    yield data[copied:end]
    yield moved  # at the end, because the last of repeated fields counts


def _moved(file: str, offset: int, length: int) -> bytes:
    """The fields of a tensor that locate its weights."""
    entries = {"location": file, "offset": str(offset), "length": str(length)}
    told = b""
    for key, value in entries.items():
        pair = _key(_KEY, len(key)) + key.encode() + _key(_VALUE, len(value)) + value.encode()
        told += _key(_EXTERNAL_DATA, len(pair)) + pair
    return told + bytes([_DATA_LOCATION << 3 | _VARINT, _EXTERNAL])


def _key(number: int, length: int) -> bytes:
    return bytes([number << 3 | _BYTES]) + _seven_bits(length)


def _seven_bits(value: int) -> bytes:
    found = bytearray()
    while value > 0x7F:
        found.append(value & 0x7F | 0x80)
        value >>= 7
    return bytes([*found, value])


def _fields(data: Data, start: int, end: int) -> Iterator[tuple[int, int, int]]:
    """Number, start and end of each field of a message that has a length; the others are passed over."""
    while start < end:
        tag, start = _varint(data, start, end)
        number, kind = tag >> 3, tag & 7
        if kind == _BYTES:
            length, start = _varint(data, start, end)
            if length > end - start:
                raise ValueError(f"a field of {length} bytes where {end - start} are left")
            yield number, start, start + length
            start += length
        elif kind == _VARINT:
            _, start = _varint(data, start, end)
        elif kind in (_FIXED32, _FIXED64):
            start += 4 if kind == _FIXED32 else 8
        else:
            raise ValueError(f"a field of wire type {kind}")
    if start > end:
        raise ValueError("a field goes past its message")


def _varint(data: Data, start: int, end: int) -> tuple[int, int]:
    """A number of seven bits a byte, and where it ends."""
    value = 0
    for place in range(start, min(end, start + 10)):
        value |= (data[place] & 0x7F) << 7 * (place - start)
        if data[place] < 0x80:
            return value, place + 1
    raise ValueError("a number without end")
