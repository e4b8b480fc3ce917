"""Gradient checkpointing (Chen et al. 2016): layers store only their inputs, and run again in the backward pass.

transformers has it only for layers in training mode. Here layers stay in evaluation mode. They read the parts from the
state of the forward pass, and must find the same state again in the backward pass.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager, nullcontext
from functools import partial
from typing import Any

import torch
from torch import nn
from torch.utils.checkpoint import checkpoint

from edgetune.training.forwards import replaced_forwards
from edgetune_export import attention, half, injection
from edgetune_export.backbone import Backbone
from edgetune_export.memory import keep_no_blocks
from edgetune_runtime.errors import BackboneError


@contextmanager
def layers_recomputed(backbone: Backbone, wanted: bool = True) -> Iterator[None]:
    """Inside this context, recompute the layers of a backbone in each backward pass, if `wanted`.

    Layers are the modules in the outermost module lists.

    Raises:
        BackboneError: no layers were found.
    """
    layers = list(_layers(backbone.model)) if wanted else []
    if wanted and not layers:
        raise BackboneError(
            f"{backbone.name} ({backbone.architecture}) has no list of layers to run again: leave out "
            f"`gradient_checkpointing`"
        )
    if layers:
        keep_no_blocks()
    with replaced_forwards({layer: partial(_run, backbone, layer.forward) for layer in layers}):
        yield


def _layers(module: nn.Module) -> Iterator[nn.Module]:
    for child in module.children():
        yield from child if isinstance(child, nn.ModuleList) else _layers(child)


def _run(backbone: Backbone, forward: Callable[..., Any], *args: Any, **named: Any) -> Any:
    if not torch.is_grad_enabled():
        return forward(*args, **named)
    return checkpoint(forward, *args, use_reentrant=False, context_fn=partial(_contexts, backbone), **named)


def _contexts(backbone: Backbone) -> tuple[AbstractContextManager[None], AbstractContextManager[None]]:
    """The contexts for a layer's first and second run."""
    return nullcontext(), _as_it_was(backbone, attention.resumed(), injection.resumed())


@contextmanager
def _as_it_was(backbone: Backbone, *states: AbstractContextManager[None]) -> Iterator[None]:
    with ExitStack() as stack:
        for state in (*states, half.as_fp32(backbone.model)):
            stack.enter_context(state)
        yield
