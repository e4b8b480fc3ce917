"""The only place where low rank and units enter: in parallel to the linear layers of a forward.

Low rank (LoRA, Hu et al. 2021) adds x·down·up to a linear layer's output for x. Units (parallel adapters, He et al.
2022) add relu(x·read + bias)·write to a feed-forward's output for x. Layers are numbered by the order of their calls,
like attention (see `attention`).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field, replace
from functools import partial

import torch
from torch import Tensor, nn

from edgetune_export.sites import Site
from edgetune_runtime import contract
from edgetune_runtime.errors import BackboneError


@dataclass
class _Injected:
    """The parts that the running forward adds, separately for each text: [batch, number of layers, …]."""

    tensors: Mapping[str, Tensor]
    calls: Counter[str] = field(default_factory=Counter)
    read: Tensor | None = None
    """The input of the running feed-forward."""

    def by_text(self, read: Tensor) -> Tensor:
        """A layer's input as [batch, sequence, width]."""
        batch = next(iter(self.tensors.values())).shape[0]  # it stays dynamic when a graph is traced
        return read if read.ndim == 3 else read.reshape(batch, -1, read.shape[-1])

    def layer(self, name: str, number: int) -> Tensor:
        return self.tensors[name][:, number]


_current: ContextVar[_Injected | None] = ContextVar("injected", default=None)


def watch(sites: Mapping[str, Site]) -> None:
    """Let the linear layers of these sites add the parts of `injected`."""
    first = "gate" if "gate" in sites else "widen"
    for name, site in sites.items():
        for module in dict.fromkeys(site.modules):
            module.register_forward_hook(partial(_add, name, name == first))


@contextmanager
def injected(tensors: Mapping[str, Tensor], sites: Mapping[str, Site]) -> Iterator[None]:
    """Inside this context, add these parts in a forward.

    Args:
        tensors: low rank and units, by the names of the bank's inputs.
        sites: the backbone's sites.

    Shape:
        tensors: see `contract.BANK_INPUTS`, with the texts of a batch instead of tasks

    Raises:
        BackboneError: the forward does not call its linear layers as often as when the sites were found.
    """
    if not tensors:
        yield
        return
    state = _Injected(tensors)
    with _running(state):
        yield
    odd = {name: state.calls[name] for name, site in sites.items() if state.calls[name] != len(site.modules)}
    if odd:
        raise BackboneError(
            f"the model called its linear layers {odd} times, expected "
            f"{ {name: len(sites[name].modules) for name in odd} }: low rank and units do not fit this model"
        )


def resumed() -> AbstractContextManager[None]:
    """A context in which part of the running forward, from here on, can be repeated later with the same state."""
    state = _current.get()
    return _running(None if state is None else replace(state, calls=state.calls.copy()))


@contextmanager
def _running(state: _Injected | None) -> Iterator[None]:
    token = _current.set(state)
    try:
        yield
    finally:
        _current.reset(token)


def _add(site: str, is_first: bool, module: nn.Module, given: tuple[Tensor, ...], output: Tensor) -> Tensor | None:
    """A forward hook of a linear layer."""
    state = _current.get()
    if state is None:
        return None
    number, read = state.calls[site], state.by_text(given[0])
    state.calls[site] += 1
    if is_first:
        state.read = read
    if contract.down(site) in state.tensors:
        low = read @ state.layer(contract.down(site), number) @ state.layer(contract.up(site), number)
        output = output + _as(output, low)
    if site == "narrow" and contract.UNIT_READ in state.tensors:
        if state.read is None:
            raise BackboneError("the model narrows a feed-forward before it widens: expected the other order for units")
        unit_read, bias, write = (state.layer(name, number) for name in contract.UNIT_INPUTS)
        output = output + _as(output, torch.relu(state.read @ unit_read + bias[:, None]) @ write)
    return output


def _as(output: Tensor, added: Tensor) -> Tensor:
    """Reshape an addition to the shape of the output; OPT's feed-forwards concatenate the tokens of all texts."""
    return added if output.ndim == added.ndim else added.flatten(0, 1)
