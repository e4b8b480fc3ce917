"""Sites: the linear layers of a backbone where low rank and units enter, found by their inputs and outputs.

This module does not know any architecture. It runs one forward in which the output of every linear layer and every
attention call starts a new gradient. So for each tensor, the outputs that it was computed from can be found. The layer
that computes attention's query is the query projection, the layer that reads attention's output is the output
projection, and a linear layer that reads only other linear layers is the narrowing layer of a feed-forward.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from transformers.pytorch_utils import Conv1D

from edgetune_export import attention
from edgetune_runtime import contract
from edgetune_runtime.errors import BackboneError

LINEAR = (nn.Linear, Conv1D)


@dataclass(frozen=True)
class Site:
    """One type of linear layer, in the whole backbone.

    Attributes:
        modules: the layers in the order of their calls; a layer that is called repeatedly is listed repeatedly.
        inputs: input size per token.
        outputs: output size per token.
    """

    modules: Sequence[nn.Module]
    inputs: int
    outputs: int


@dataclass(frozen=True, eq=False)
class _Linear:
    """One call of a linear layer: its input, and its output, from which a new gradient starts."""

    module: nn.Module
    read: Tensor
    gave: Tensor


def find_sites(model: nn.Module, forward: Callable[[], object]) -> tuple[dict[str, Site], list[attention.Call]]:
    """The sites of a backbone, by their names in `contract.SITES`, and the attention calls of a forward.

    A site is omitted if its shape differs between layers, or if its layers also read something else (DeBERTa's also
    project distances).

    Args:
        model: the transformer.
        forward: runs it on some text, with gradients.

    Raises:
        BackboneError: the forward never calls the attention interface.
    """
    with torch.enable_grad(), _linear_calls(model) as linear, attention.recording() as calls:
        forward()
        if not calls:
            raise BackboneError(
                f"{type(model).__name__} never calls transformers' attention interface, through which prefixes enter: "
                f"use a model of another architecture"
            )
        found = _attention_sites(linear, calls)
        found |= _feed_forward_sites(linear, {one for site in found.values() for one in site})
    complete = dict.fromkeys(contract.ATTENTION_SITES, len(calls))
    complete |= dict.fromkeys(contract.FEED_FORWARD_SITES, len(found["narrow"]))
    called = Counter(one.module for one in linear)
    sites = {
        name: _site(found[name])
        for name in contract.SITES
        if found[name] and len(found[name]) == complete[name] and _calls_are_all(found[name], called)
    }
    return {name: site for name, site in sites.items() if site is not None}, calls


def fitting(sites: Mapping[str, Site]) -> tuple[dict[str, Site], dict[str, int]]:
    """The sites whose sizes are consistent, and the sizes."""
    found: dict[str, Site] = {}
    sizes: dict[str, int] = {}
    for name, site in sites.items():
        number, read, given = contract.SITES[name]
        own = {read: site.inputs, given: site.outputs}
        own |= {number: len(site.modules)} if name in contract.FEED_FORWARD_SITES else {}
        if all(sizes.get(dim, size) == size for dim, size in own.items()):
            found[name] = site
            sizes |= own
    return found, sizes


@contextmanager
def _linear_calls(model: nn.Module) -> Iterator[list[_Linear]]:
    calls: list[_Linear] = []

    def record(module: nn.Module, given: tuple[Tensor, ...], output: Tensor) -> Tensor:
        begun = output.detach().requires_grad_()
        calls.append(_Linear(module, given[0], begun))
        return begun.clone()  # models may modify it in place

    hooks = [module.register_forward_hook(record) for module in model.modules() if isinstance(module, LINEAR)]
    try:
        yield calls
    finally:
        for hook in hooks:
            hook.remove()


def _attention_sites(linear: Sequence[_Linear], calls: Sequence[attention.Call]) -> dict[str, list[_Linear]]:
    found: dict[str, list[_Linear]] = {name: [] for name in contract.ATTENTION_SITES}
    gave = [one.gave for one in linear]
    for call in calls:
        sources = [_made_from(states, gave) for states in (call.queries, call.keys, call.values)]
        if any(len(source) != 1 for source in sources):
            continue
        query, key, value = (linear[source.pop()] for source in sources)
        if query is key and key is value:
            found["projection"].append(query)
        elif query is not key and key is not value and query is not value:
            for name, one in (("query", query), ("key", key), ("value", value)):
                found[name].append(one)
    outputs = [call.output for call in calls]
    found["output"] = [one for one in linear if _made_from(one.read, outputs)]
    return found


def _feed_forward_sites(linear: Sequence[_Linear], others: Collection[_Linear]) -> dict[str, list[_Linear]]:
    """The linear layers of feed-forwards. If two layers widen, the one that is called first is the gate."""
    found: dict[str, list[_Linear]] = {name: [] for name in contract.FEED_FORWARD_SITES}
    gave = [one.gave for one in linear]
    for one in linear:
        read = [linear[place] for place in sorted(_made_from(one.read, gave))] if one not in others else []
        # A layer that widens reads the output of attention, or the text's embeddings.
        if len(read) in (1, 2) and not any(source in others for source in read):
            *gate, widen = read
            found["gate"] += gate
            found["widen"].append(widen)
            found["narrow"].append(one)
    return found


def _calls_are_all(site: Sequence[_Linear], called: Mapping[nn.Module, int]) -> bool:
    return len(site) == sum(called[module] for module in {one.module for one in site})


def _made_from(tensor: Tensor, sources: Sequence[Tensor]) -> set[int]:
    """Indices of the sources that a tensor was computed from directly, without another source in between."""
    if not tensor.requires_grad:
        return set()
    gradients = torch.autograd.grad(tensor.sum(), list(sources), retain_graph=True, allow_unused=True)
    return {place for place, gradient in enumerate(gradients) if gradient is not None}


def _site(calls: Sequence[_Linear]) -> Site | None:
    """A site; `None` if its layers have different shapes."""
    shapes = {(one.read.shape[-1], one.gave.shape[-1]) for one in calls}
    if len(shapes) != 1:
        return None
    return Site([one.module for one in calls], *shapes.pop())
