"""Products with frozen weights in bf16 while parts learn: with instructions for it, CPUs make them four times as fast.

Only the input, the output and the gradient of a frozen linear layer are rounded. Sums inside a product, attention,
norms and everything that is trained stay in fp32. Without a gradient, and so in every evaluation, layers are unchanged.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from transformers.pytorch_utils import Conv1D

from edgetune.training.forwards import replaced_forwards
from edgetune.training.options import AUTO, BF16, FP16, TrainingOptions
from edgetune_runtime.errors import DeviceError
from edgetune_runtime.session import cpu_flags

_FAST = frozenset(("avx512_bf16", "amx_bf16"))
"""CPUs with one of these flags multiply bf16 faster than fp32."""


def in_bf16(options: TrainingOptions) -> bool:
    """Whether training multiplies by frozen weights in bf16: on a CPU that is fast with it, or if asked for."""
    if torch.accelerator.is_available():
        return False
    fast = not _FAST.isdisjoint(cpu_flags())
    return options.mixed_precision == BF16 or (options.mixed_precision == AUTO and fast)


def autocast(options: TrainingOptions) -> dict[str, bool]:
    """Arguments of `TrainingArguments` for the mixed precision of a GPU.

    Raises:
        DeviceError: fp16 is asked for, and there is no GPU.
    """
    on_gpu = torch.accelerator.is_available()
    if options.mixed_precision == FP16 and not on_gpu:
        raise DeviceError("`mixed_precision` fp16 came, and there is no GPU that PyTorch can use: expected bf16 or no")
    return {"bf16": on_gpu and options.mixed_precision == BF16, "fp16": options.mixed_precision == FP16}


@contextmanager
def products_in_bf16(model: nn.Module, wanted: bool = True) -> Iterator[None]:
    """While active, let the frozen linear layers of a model multiply in bf16 if a gradient is recorded.

    Meanwhile memory holds a bf16 copy of each fp32 weight.
    """
    layers = [module for module in model.modules() if wanted and _is_frozen_linear(module)]
    with replaced_forwards({layer: partial(_run, layer.forward, *_rounded(layer)) for layer in layers}):
        yield


def _is_frozen_linear(module: nn.Module) -> bool:
    return _is_linear(module) and not any(parameter.requires_grad for parameter in module.parameters())


def _is_linear(module: nn.Module) -> bool:
    """Whether a module is a plain linear layer; subclasses may compute something else."""
    return getattr(type(module), "forward", None) in (nn.Linear.forward, Conv1D.forward)


def _rounded(layer: Any) -> tuple[Tensor, Tensor | None]:
    """A linear layer's weight and bias in bf16. Shape: [out, in], [out]."""
    weight = layer.weight.data.bfloat16()
    bias = None if layer.bias is None else layer.bias.data.bfloat16()
    return (weight.t().contiguous() if isinstance(layer, Conv1D) else weight), bias


def _run(forward: Callable[[Tensor], Tensor], weight: Tensor, bias: Tensor | None, read: Tensor) -> Tensor:
    if not torch.is_grad_enabled():
        return forward(read)
    found: Tensor = _Product.apply(read, weight, bias)  # type: ignore[no-untyped-call]
    return found


class _Product(torch.autograd.Function):
    """A linear layer with a frozen weight in bf16, of numbers in fp32."""

    @staticmethod
    def forward(context: Any, read: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        context.weight = weight
        return nn.functional.linear(read.bfloat16(), weight, bias).to(read.dtype)

    @staticmethod
    def backward(context: Any, gradient: Tensor) -> tuple[Tensor, None, None]:
        return (gradient.bfloat16() @ context.weight).to(gradient.dtype), None, None
