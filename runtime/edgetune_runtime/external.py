"""Which files an ONNX graph takes its weights from, read from its bytes without the onnx package.

onnxruntime opens whatever file a tensor's `external_data` names; here a graph is looked through first. Only so
much of https://github.com/onnx/onnx/blob/main/onnx/onnx.proto is known as leads to a tensor.
"""

from __future__ import annotations

from collections.abc import Iterator

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
"""Message → the numbers of its fields that lead to `external_data`, and what they hold."""

_KEY, _VALUE = 1, 2
_VARINT, _FIXED64, _BYTES, _FIXED32 = 0, 1, 2, 5


def external_files(graph: bytes) -> set[str]:
    """The files that a graph's tensors name, wherever in the graph they are.

    Raises:
        BundleError: the bytes are no ONNX graph.
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


def _fields(data: bytes, start: int, end: int) -> Iterator[tuple[int, int, int]]:
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


def _varint(data: bytes, start: int, end: int) -> tuple[int, int]:
    """A number of seven bits a byte, and where it ends."""
    value = 0
    for place in range(start, min(end, start + 10)):
        value |= (data[place] & 0x7F) << 7 * (place - start)
        if data[place] < 0x80:
            return value, place + 1
    raise ValueError("a number without end")
