"""Gradient checkpointing (Chen et al. 2016): layers keep what they read and run again in the backward pass.

transformers has it too, for layers in training mode. Here they stay in evaluation mode, and each reads what the forward
knows of the parts: it must find that again as it was.
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
    """Let the layers of a backbone run again in each backward pass inside, if that is wanted.

    Layers are what stands in the outermost lists of modules.

    Raises:
        BackboneError: there are none.
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
    """Around a layer's first run and its second."""
    return nullcontext(), _as_it_was(backbone, attention.resumed(), injection.resumed())


@contextmanager
def _as_it_was(backbone: Backbone, *states: AbstractContextManager[None]) -> Iterator[None]:
    with ExitStack() as stack:
        for state in (*states, half.as_fp32(backbone.model)):
            stack.enter_context(state)
        yield
