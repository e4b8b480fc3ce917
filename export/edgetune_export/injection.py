"""The one place where low rank and units enter: beside the linear layers of a forward.

Low rank (LoRA, Hu et al. 2021) adds x·down·up to what a linear layer makes of x; units (parallel adapters, He et al.
2022) add relu(x·read + bias)·write to what a feed-forward makes of x. Layers are numbered by the order in which a
forward calls them, as attention is (see `attention`).
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
    """What the forward that is running adds: for each text its own, [batch, number of layers, …]."""

    tensors: Mapping[str, Tensor]
    calls: Counter[str] = field(default_factory=Counter)
    read: Tensor | None = None
    """What the feed-forward that is running reads."""

    def by_text(self, read: Tensor) -> Tensor:
        """What a layer reads, as [batch, sequence, width]."""
        batch = next(iter(self.tensors.values())).shape[0]  # which stays open when a graph is traced
        return read if read.ndim == 3 else read.reshape(batch, -1, read.shape[-1])

    def layer(self, name: str, number: int) -> Tensor:
        return self.tensors[name][:, number]


_current: ContextVar[_Injected | None] = ContextVar("injected", default=None)


def watch(sites: Mapping[str, Site]) -> None:
    """Let the linear layers of these sites add what `injected` says."""
    first = "gate" if "gate" in sites else "widen"
    for name, site in sites.items():
        for module in dict.fromkeys(site.modules):
            module.register_forward_hook(partial(_add, name, name == first))


@contextmanager
def injected(tensors: Mapping[str, Tensor], sites: Mapping[str, Site]) -> Iterator[None]:
    """Add these parts in the forward that runs inside.

    Args:
        tensors: low rank and units, by the names of the bank's inputs.
        sites: the backbone's.

    Shape:
        tensors: as `contract.BANK_INPUTS`, but for the texts of a batch instead of tasks

    Raises:
        BackboneError: the forward did not call its linear layers as often as it did when they were found.
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
    """What lets a part of the forward that is running, from here on, run again later as it runs now."""
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
    """What is added, in the shape of what it is added to: OPT's feed-forwards have the tokens of all texts in a row."""
    return added if output.ndim == added.ndim else added.flatten(0, 1)
