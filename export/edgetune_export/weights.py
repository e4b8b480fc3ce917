"""Weights that are computed when they are written, so that only one large tensor at a time needs memory."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import numpy as np
import onnx
import onnx.helper
import onnx.numpy_helper

from edgetune_runtime.arrays import Array

SMALLEST_TAKEN = 1 << 18
"""Minimum size in bytes of a tensor that is kept outside the graph."""

_READ_AT_MOST = 1 << 26


class Weights:
    """The contents of a graph's large tensors; the graph has only their names, types and shapes.

    Rewrites of a graph read tensors from here and add new ones, which are computed from them on demand.

    Args:
        release: called after large reads, to return their memory.
    """

    def __init__(self, release: Callable[[], None] = lambda: None) -> None:
        self._made: dict[str, Callable[[], Array]] = {}
        self._release, self._read_bytes = release, 0

    def array(self, tensor: onnx.TensorProto) -> Array:
        """The contents of a tensor, computed each time."""
        if tensor.name in self._made:
            made = self._made[tensor.name]()
            self._count(made)
            return made
        found: Array = onnx.numpy_helper.to_array(tensor)
        return found

    def takes(self, size: int) -> bool:
        """Whether a tensor of this size is kept outside the graph until it is written."""
        return size >= SMALLEST_TAKEN

    def put(self, name: str, make: Callable[[], Array]) -> None:
        """Store the contents of a large tensor of the graph."""
        self._made[name] = make

    def tensor(self, name: str, dtype: type, shape: Sequence[int], make: Callable[[], Array]) -> onnx.TensorProto:
        """A new tensor with contents computed by `make`."""
        if not self.takes(math.prod(shape) * np.dtype(dtype).itemsize):
            small: onnx.TensorProto = onnx.numpy_helper.from_array(np.ascontiguousarray(make(), dtype), name)
            return small
        self.put(name, make)
        data_type = onnx.helper.np_dtype_to_tensor_dtype(np.dtype(dtype))
        return onnx.TensorProto(name=name, data_type=data_type, dims=shape)

    def data(self, tensor: onnx.TensorProto) -> memoryview:
        """The bytes of a tensor in ONNX's form."""
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
