"""Find the type in which a checkpoint's weights are stored, and load them in that type."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import torch
from safetensors import safe_open
from torch import Tensor
from transformers import PreTrainedModel

from edgetune_export import half
from edgetune_export.checkpoint import Checkpoint


def half_precision_of(checkpoint: Checkpoint) -> torch.dtype | None:
    """The dtype of a checkpoint's large weights, if it is the same for all of them and is bf16 or fp16."""
    files = checkpoint.weight_files()
    found = {tensor.dtype for path in files for tensor in _floating(path) if half.is_large(tensor)}
    dtype = found.pop() if len(found) == 1 else None
    return dtype if dtype in half.DTYPES else None


@contextmanager
def kept_as(dtype: torch.dtype | None) -> Iterator[None]:
    """Inside this context, transformers models that are loaded in fp32 keep large weights in a dtype.

    transformers casts all loaded weights to one dtype, except for weights that a model wants in another dtype.
    """
    if dtype is None or not hasattr(PreTrainedModel, "_get_dtype_plan"):  # without it, weights are converted to fp32
        yield
        return
    usual = PreTrainedModel._get_dtype_plan

    def plan(model: PreTrainedModel, _: torch.dtype) -> dict[str, torch.dtype]:
        return {f"^{re.escape(name)}$": dtype for name, own in model.named_parameters() if half.is_large(own)}

    PreTrainedModel._get_dtype_plan = plan
    try:
        yield
    finally:
        PreTrainedModel._get_dtype_plan = usual


def _floating(path: Path) -> Iterator[Tensor]:
    """The tensors in a file without their data, except integer tensors."""
    if path.suffix != ".safetensors":
        tensors = torch.load(path, map_location="meta", weights_only=True).values()
        yield from (tensor for tensor in tensors if tensor.is_floating_point())
        return
    with safe_open(path, "pt") as file:
        for one in map(file.get_slice, file.keys()):
            if one.get_dtype() in _FLOATING:
                yield torch.empty(one.get_shape(), dtype=_FLOATING[one.get_dtype()], device="meta")


_FLOATING = {"BF16": torch.bfloat16, "F16": torch.float16, "F32": torch.float32, "F64": torch.float64}
"""safetensors' names of the dtypes."""
