"""Large weights that stay in half precision (bf16, fp16), and are converted to fp32 when they are used.

Small weights (biases, norms) are converted to fp32 immediately: they need little memory, and much code uses them. All
results are the same as with fp32 weights, because fp32 represents half precision exactly.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from edgetune_export import weights
from edgetune_export.memory import page_out
from edgetune_runtime.arrays import Array

DTYPES = (torch.bfloat16, torch.float16)


def is_large(tensor: Tensor) -> bool:
    """Whether a weight may stay in half precision; a graph then omits it until it is written."""
    return tensor.ndim > 1 and tensor.numel() * torch.float32.itemsize >= weights.SMALLEST_TAKEN


def kept(model: nn.Module) -> list[nn.Parameter]:
    """The weights of a model in half precision."""
    return [parameter for parameter in model.parameters() if parameter.dtype in DTYPES]


def has_large_fp32(model: nn.Module) -> bool:
    """Whether a large weight of a model is in fp32."""
    return any(parameter.dtype == torch.float32 and is_large(parameter) for parameter in model.parameters())


def as_fp32(model: nn.Module) -> AbstractContextManager[object]:
    """Inside this context, a model computes in fp32 with its weights in half precision.

    Under autocast, linear layers use their weights unchanged.
    """
    return _AsFp32() if kept(model) else nullcontext()


@contextmanager
def traced_as_fp32(model: nn.Module) -> Iterator[Callable[[Array], Callable[[], Array] | None]]:
    """Inside this context, give a model placeholder weights in fp32 for tracing, whose memory is never read or written.

    Yields:
        A function: for a view of such a weight, it returns how to compute the view from the weight; `None` for other
        arrays.
    """
    own = {parameter: parameter.data for parameter in kept(model)}
    places: dict[int, Tensor] = {}
    for parameter, stored in own.items():
        parameter.data = torch.empty(stored.shape, dtype=torch.float32)
        places[parameter.data_ptr()] = stored

    def find(view: Array) -> Callable[[], Array] | None:
        start, size = view.__array_interface__["data"][0], view.itemsize
        for place, stored in places.items():
            if place <= start < place + stored.numel() * size:
                steps = [step // size for step in view.strides]
                return partial(_part, stored, view.shape, steps, (start - place) // size)
        return None

    try:
        yield find
    finally:
        for parameter, stored in own.items():
            parameter.data = stored


def _part(stored: Tensor, shape: Sequence[int], strides: Sequence[int], offset: int) -> Array:
    found: Array = stored.contiguous().float().as_strided(shape, strides, offset).numpy()
    return found


def round_large(model: nn.Module) -> dict[int, Tensor]:
    """Round the large weights of a model to bf16, except those in half precision.

    Returns:
        Address of a weight in memory → the rounded weight.
    """
    rounded: dict[int, Tensor] = {}
    for parameter in model.parameters():
        if parameter.dtype == torch.float32 and is_large(parameter):
            place = parameter.data_ptr()
            parameter.data = rounded[place] = parameter.data.bfloat16()
            page_out(model)  # the pages that were just read
    return rounded


class _AsFp32(TorchFunctionMode):
    """Every PyTorch function converts weights in half precision to fp32."""

    def __torch_function__(
        self, function: Any, types: Any, args: Sequence[Any] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        named = dict(kwargs or {})
        if not any(map(_holds_half, (*args, *named.values()))):
            return function(*args, **named)
        if function == _DTYPE:
            return torch.float32
        if function is nn.functional.embedding:
            return function(*args, **named).float()  # only the selected rows
        if function is nn.functional.linear:
            return _linear(*args, **named)
        if function is torch.addmm and not named:
            bias, read, weight = args
            return _linear(read, weight.t(), bias)
        return function(*map(_wide, args), **{name: _wide(value) for name, value in named.items()})


_DTYPE = torch.Tensor.dtype.__get__  # type: ignore[attr-defined]


def _is_half(value: object) -> bool:
    return isinstance(value, nn.Parameter) and value.dtype in DTYPES


def _holds_half(value: object) -> bool:
    return any(map(_is_half, value)) if isinstance(value, list | tuple) else _is_half(value)


def _wide(value: Any) -> Any:
    if isinstance(value, list | tuple):
        return [_wide(one) for one in value]
    return value.float() if _is_half(value) else value


def _linear(read: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    if torch.is_autocast_enabled(read.device.type):
        return nn.functional.linear(read, weight, bias)
    found: Tensor = _Linear.apply(read, weight, bias)  # type: ignore[no-untyped-call]
    return found


class _Linear(torch.autograd.Function):
    """A linear layer whose frozen weight stays in half precision for the backward pass too."""

    @staticmethod
    def forward(context: Any, read: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        context.save_for_backward(weight)
        return nn.functional.linear(read, weight.float(), bias)

    @staticmethod
    def backward(context: Any, gradient: Tensor) -> tuple[Tensor, None, None]:
        (weight,) = context.saved_tensors
        return gradient @ weight.float(), None, None
