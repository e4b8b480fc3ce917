"""Weights that are made when they are written, so that one large tensor at a time takes memory."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import numpy as np
import onnx
import onnx.helper
import onnx.numpy_helper

from edgetune_runtime.arrays import Array

SMALLEST_TAKEN = 1 << 18
"""Bytes of a tensor that stays out of the graph."""

_READ_AT_MOST = 1 << 26


class Weights:
    """What the large tensors of a graph hold; in the graph they have names, types and shapes alone.

    The rewritings of a graph take tensors from here and give back others, made of them when they are asked for.

    Args:
        release: called whenever much has been read, to give back what reading took.
    """

    def __init__(self, release: Callable[[], None] = lambda: None) -> None:
        self._made: dict[str, Callable[[], Array]] = {}
        self._release, self._read_bytes = release, 0

    def array(self, tensor: onnx.TensorProto) -> Array:
        """What a tensor holds, made again each time."""
        if tensor.name in self._made:
            made = self._made[tensor.name]()
            self._count(made)
            return made
        found: Array = onnx.numpy_helper.to_array(tensor)
        return found

    def takes(self, size: int) -> bool:
        """Whether a tensor of so many bytes stays out of the graph until it is written."""
        return size >= SMALLEST_TAKEN

    def put(self, name: str, make: Callable[[], Array]) -> None:
        """Take the contents of a large tensor of the graph."""
        self._made[name] = make

    def tensor(self, name: str, dtype: type, shape: Sequence[int], make: Callable[[], Array]) -> onnx.TensorProto:
        """A new tensor, whose contents `make` gives."""
        if not self.takes(math.prod(shape) * np.dtype(dtype).itemsize):
            small: onnx.TensorProto = onnx.numpy_helper.from_array(np.ascontiguousarray(make(), dtype), name)
            return small
        self.put(name, make)
        data_type = onnx.helper.np_dtype_to_tensor_dtype(np.dtype(dtype))
        return onnx.TensorProto(name=name, data_type=data_type, dims=shape)

    def data(self, tensor: onnx.TensorProto) -> memoryview:
        """The bytes of a tensor as ONNX stores them."""
        if tensor.name not in self._made:
            return memoryview(tensor.raw_data)
        made = np.ascontiguousarray(self.array(tensor), onnx.helper.tensor_dtype_to_np_dtype(tensor.data_type))
        if made.shape != tuple(tensor.dims):
            raise ValueError(f"{tensor.name} has the shape {list(made.shape)}, expected {list(tensor.dims)}")
        return made.reshape(-1).view(np.uint8).data

    def _count(self, array: Array) -> None:
        self._read_bytes += array.nbytes
        if self._read_bytes > _READ_AT_MOST:
            self._read_bytes = 0
            self._release()
