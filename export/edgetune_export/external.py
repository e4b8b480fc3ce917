"""The location of a graph's weights.

They are in its own file, in a separate file (protobuf's limit is 2 GB), or in another graph's file.

The variants of a graph have the same weights. One file holds them, and the others refer to the tensors in it. Files are
produced in chunks, so that only one tensor at a time needs memory.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any

import onnx
import onnx.checker
import onnx.helper

from edgetune_export.weights import Weights

LARGEST_GRAPH = onnx.checker.MAXIMUM_PROTOBUF
"""Maximum bytes of weights inside the graph's own file; this leaves room for the nodes within protobuf's limit."""

_SMALLEST_MOVED = 1024
_ALIGNMENT = 4096  # alignment, so that the file can be memory-mapped


@dataclass(frozen=True)
class Place:
    """The location of a tensor's bytes: the name of a file next to the graph's own, and the offset in it."""

    file: str
    offset: int
    length: int


Chunks = Iterable[bytes | memoryview]
"""The bytes of a file, one after the other."""

_GRAPH, _INITIALIZER, _RAW_DATA = 7, 5, 9  # field numbers of ModelProto, GraphProto, TensorProto


def weight_bytes(model: onnx.ModelProto) -> int:
    """Size of a graph's weights in bytes; `ByteSize` fails on models above 2 GB."""
    return sum(_size(tensor) for tensor in model.graph.initializer)


def lay_out(model: onnx.ModelProto, file: str, data_file: str) -> dict[str, Place]:
    """Decide where to store the large tensors of a graph.

    Args:
        model: the graph.
        file: name of its file.
        data_file: name of the separate weight file, which is used if the weights do not fit into the graph's own file.
    """
    large = [tensor for tensor in model.graph.initializer if _is_raw(tensor) and _size(tensor) >= _SMALLEST_MOVED]
    found: dict[str, Place] = {}
    if weight_bytes(model) >= LARGEST_GRAPH:
        end = 0
        for tensor in large:
            start = end + -end % _ALIGNMENT
            end = start + _size(tensor)
            found[tensor.name] = Place(data_file, start, _size(tensor))
        return found
    before, tensors, _ = _parts(model, {})
    start = len(before)
    for tensor, head in zip(model.graph.initializer, tensors, strict=True):
        size = _size(tensor) if _is_raw(tensor) else 0
        start += len(head) + size
        if size >= _SMALLEST_MOVED:
            found[tensor.name] = Place(file, start - size, size)
    return found


def graph_chunks(
    model: onnx.ModelProto, weights: Weights, lie: Mapping[str, Place] = MappingProxyType({})
) -> Iterator[bytes | memoryview]:
    """The file of a graph, byte for byte as protobuf would write it with its weights.

    Args:
        model: the graph.
        weights: its large tensors.
        lie: name of a tensor → its location in another file.
    """
    before, tensors, after = _parts(model, lie)
    yield before
    for tensor, head in zip(model.graph.initializer, tensors, strict=True):
        yield head
        if tensor.name not in lie:
            yield weights.data(tensor)
    yield after


def data_chunks(model: onnx.ModelProto, weights: Weights, lie: Mapping[str, Place]) -> Iterator[bytes | memoryview]:
    """The file of a graph's weights."""
    end = 0
    for tensor in model.graph.initializer:
        if tensor.name in lie:
            yield bytes(lie[tensor.name].offset - end)
            yield weights.data(tensor)
            end = lie[tensor.name].offset + lie[tensor.name].length


def _parts(model: onnx.ModelProto, lie: Mapping[str, Place]) -> tuple[bytes, list[bytes], bytes]:
    """The bytes of a graph's file around its weights: before all, before each, after all."""
    shell = onnx.ModelProto()
    shell.CopyFrom(model)
    del shell.graph.initializer[:]
    graph = shell.graph
    model_before, model_after = _around(shell, _GRAPH)
    graph_before, graph_after = _around(graph, _INITIALIZER)
    heads, length = [], 0
    for tensor in model.graph.initializer:
        told = onnx.TensorProto(name=tensor.name, data_type=tensor.data_type, dims=tensor.dims)
        size = 0
        if tensor.name in lie:
            _move(told, lie[tensor.name])
            head = told.SerializeToString()
        elif _is_raw(tensor):
            size = _size(tensor)
            head = told.SerializeToString() + _key(_RAW_DATA, size)
        else:
            head = tensor.SerializeToString()
        heads.append(_key(_INITIALIZER, len(head) + size) + head)
        length += len(heads[-1]) + size
    length += len(graph_before) + len(graph_after)
    return model_before + _key(_GRAPH, length) + graph_before, heads, graph_after + model_after


def _around(message: Any, number: int) -> tuple[bytes, bytes]:
    """The bytes of a message before one of its fields, and after it."""
    sides = []
    for is_before in (True, False):
        side = type(message)()
        side.CopyFrom(message)
        for field, _ in message.ListFields():
            if field.number == number or (field.number < number) != is_before:
                side.ClearField(field.name)
        sides.append(side.SerializeToString())
    return sides[0], sides[1]


def _key(number: int, length: int) -> bytes:
    """Protobuf's header of a length-delimited field."""
    return bytes([number << 3 | 2]) + b"".join(_seven_bits(length))


def _seven_bits(value: int) -> Iterator[bytes]:
    while value > 0x7F:
        yield bytes([value & 0x7F | 0x80])
        value >>= 7
    yield bytes([value])


def _move(tensor: onnx.TensorProto, place: Place) -> None:
    tensor.data_location = onnx.TensorProto.EXTERNAL
    told = {"location": place.file, "offset": str(place.offset), "length": str(place.length)}
    tensor.external_data.extend(onnx.StringStringEntryProto(key=key, value=value) for key, value in told.items())


def _is_raw(tensor: onnx.TensorProto) -> bool:
    """Whether a tensor stores raw bytes, or no data, instead of a list of numbers."""
    lists = (tensor.float_data, tensor.int32_data, tensor.int64_data, tensor.double_data, tensor.uint64_data)
    return not any(map(len, lists))


def _size(tensor: onnx.TensorProto) -> int:
    return math.prod(tensor.dims) * onnx.helper.tensor_dtype_to_np_dtype(tensor.data_type).itemsize
