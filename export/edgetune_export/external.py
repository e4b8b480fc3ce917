"""Weights in a file beside the graph, where one ONNX file cannot hold them (protobuf ends at 2 GB)."""

from __future__ import annotations

import math

import onnx
import onnx.checker
import onnx.helper

LARGEST_GRAPH = onnx.checker.MAXIMUM_PROTOBUF
"""Bytes of weights that may stay inside the graph's own file; it leaves protobuf room for the nodes."""

_SMALLEST_MOVED = 1024
_ALIGNMENT = 4096  # so that the file can be mapped into memory


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
        place = {"location": data_name, "offset": str(len(data)), "length": str(len(tensor.raw_data))}
        data += tensor.raw_data
        tensor.ClearField("raw_data")
        tensor.data_location = onnx.TensorProto.EXTERNAL
        tensor.external_data.extend(onnx.StringStringEntryProto(key=key, value=value) for key, value in place.items())
    return data


def _size(tensor: onnx.TensorProto) -> int:
    return math.prod(tensor.dims) * onnx.helper.tensor_dtype_to_np_dtype(tensor.data_type).itemsize
