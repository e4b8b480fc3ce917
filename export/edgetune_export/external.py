"""Where a graph's weights lie: in its own file, in one beside it (protobuf ends at 2 GB), or in another graph's file.

The variants of a graph have the same weights. One file holds them, and the others say where in it each tensor lies.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType

import onnx
import onnx.checker
import onnx.helper

LARGEST_GRAPH = onnx.checker.MAXIMUM_PROTOBUF
"""Bytes of weights that may stay inside the graph's own file; it leaves protobuf room for the nodes."""

_SMALLEST_MOVED = 1024
_ALIGNMENT = 4096  # so that the file can be mapped into memory


@dataclass(frozen=True)
class Place:
    """Where a tensor's bytes lie: the name of a file beside the graph's own, and how far into it."""

    file: str
    offset: int
    length: int


Weights = dict[str, bytes]
"""Name of a tensor → its bytes."""


def take_weights(model: onnx.ModelProto) -> Weights:
    """Take the large tensors' bytes out of a graph, which then has their names, types and shapes alone."""
    taken = {}
    for tensor in model.graph.initializer:
        if len(tensor.raw_data) >= _SMALLEST_MOVED:
            taken[tensor.name] = tensor.raw_data
            tensor.ClearField("raw_data")
    return taken


def put_weights(
    model: onnx.ModelProto, weights: Weights, lie: Mapping[str, Place] = MappingProxyType({})
) -> onnx.ModelProto:
    """Put back what `take_weights` took, or say where it lies already."""
    for tensor in model.graph.initializer:
        if tensor.name in lie:
            _move(tensor, lie[tensor.name])
        elif tensor.name in weights:
            tensor.raw_data = weights[tensor.name]
    return model


def places(model: onnx.ModelProto, graph: bytes, name: str, weights: Weights) -> dict[str, Place]:
    """Where the tensors of a graph lie.

    Args:
        model: the graph, as `serialize` left it.
        graph: the bytes of its file.
        name: what its file is called.
        weights: the bytes of its tensors.
    """
    found = {}
    end = 0
    for tensor in model.graph.initializer:
        if tensor.data_location == onnx.TensorProto.EXTERNAL:
            own = {entry.key: entry.value for entry in tensor.external_data}
            found[tensor.name] = Place(own["location"], int(own["offset"]), int(own["length"]))
        elif tensor.name in weights:  # tensors lie in the file in the graph's order
            start = graph.index(weights[tensor.name], end)
            end = start + len(weights[tensor.name])
            found[tensor.name] = Place(name, start, end - start)
    return found


def weight_bytes(model: onnx.ModelProto) -> int:
    """Bytes of a graph's weights; `ByteSize` fails on a model past 2 GB."""
    return sum(_size(tensor) for tensor in model.graph.initializer)


def serialize(model: onnx.ModelProto, data_name: str) -> tuple[bytes, bytearray | None]:
    """The bytes of a graph's file, and of the file of its weights where they do not fit.

    Args:
        model: the graph; its weights are moved out of it where they do not fit.
        data_name: what the graph calls the file of weights.
    """
    data = _moved_out(model, data_name) if weight_bytes(model) >= LARGEST_GRAPH else None
    return model.SerializeToString(), data


def _moved_out(model: onnx.ModelProto, data_name: str) -> bytearray:
    """Take the large weights out of a graph, and leave where they are: file, offset and length."""
    data = bytearray()
    for tensor in model.graph.initializer:
        if len(tensor.raw_data) < _SMALLEST_MOVED:
            continue
        data += bytes(-len(data) % _ALIGNMENT)
        place = Place(data_name, len(data), len(tensor.raw_data))
        data += tensor.raw_data
        tensor.ClearField("raw_data")
        _move(tensor, place)
    return data


def _move(tensor: onnx.TensorProto, place: Place) -> None:
    tensor.data_location = onnx.TensorProto.EXTERNAL
    told = {"location": place.file, "offset": str(place.offset), "length": str(place.length)}
    tensor.external_data.extend(onnx.StringStringEntryProto(key=key, value=value) for key, value in told.items())


def _size(tensor: onnx.TensorProto) -> int:
    return math.prod(tensor.dims) * onnx.helper.tensor_dtype_to_np_dtype(tensor.data_type).itemsize
