"""Read and change, without the onnx package, which files an ONNX graph takes its weights from.

onnxruntime opens any file that a tensor's `external_data` names, so a graph is inspected here first. This module knows
only the parts of https://github.com/onnx/onnx/blob/main/onnx/onnx.proto that lead to a tensor.
"""

from __future__ import annotations

from collections.abc import Iterator

from edgetune_runtime.errors import BundleError
from edgetune_runtime.protobuf import BYTES, Data, fields, head, written

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

_KEY, _VALUE = 1, 2
_PATH_TO_WEIGHTS = (7, 5, 9)  # the graph, its initializers, their bytes
_EXTERNAL_DATA, _DATA_LOCATION, _EXTERNAL = 13, 14, 1
_SMALLEST_LEFT = 1024


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
            there = [field for field in fields(graph, start, end) if field.kind == BYTES]
            if message == "external_data":
                entry = {field.number: graph[field.first : field.last] for field in there}
                if entry.get(_KEY) == b"location":
                    found.add(entry.get(_VALUE, b"").decode())
                continue
            children = CHILDREN[message]
            pending += [(children[one.number], one.first, one.last) for one in there if one.number in children]
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
    for number, kind, begin, first, last in fields(data, start, end):
        if kind != BYTES or number != path[0] or last - first < _SMALLEST_LEFT:
            continue
        yield data[copied:begin]
        if len(path) == 1:
            moved = _moved(file, first, last - first)
        else:
            inner = list(_told(data, first, last, path[1:], file))
            yield head(number, sum(map(len, inner)))
            yield from inner
        copied = last
    yield data[copied:end]
    yield moved  # at the end, because the last of repeated fields counts


def _moved(file: str, offset: int, length: int) -> bytes:
    """The fields of a tensor that locate its weights."""
    entries = {"location": file, "offset": str(offset), "length": str(length)}
    told = b""
    for key, value in entries.items():
        told += written(_EXTERNAL_DATA, written(_KEY, key.encode()) + written(_VALUE, value.encode()))
    return told + written(_DATA_LOCATION, _EXTERNAL)
