"""Assumptions about a transformer, checked on a few tokens before it is used.

This module does not know any architecture. It measures a model's behaviour where possible (where its positions begin,
whether a token sees later tokens), and rejects models that would silently give wrong results.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable

import torch
from torch import Tensor

from edgetune_export import attention
from edgetune_runtime.errors import BackboneError

TOKENS = 8
"""Number of tokens to try."""

_CLOSE = 1e-3  # relative to the largest feature: far above rounding errors, far below the effect of another position


def some_ids(vocabulary: int, padding: int | None) -> Tensor:
    """Ids from all parts of a vocabulary, without the special tokens at its ends.

    Shape: [1, TOKENS]
    """
    ids = torch.arange(1, TOKENS + 1) * vocabulary // (TOKENS + 2)
    return (ids + (ids == (-1 if padding is None else padding)))[None]


def check_mixing(forward: Callable[[Tensor], Tensor], embeddings: Tensor, name: str) -> None:
    """Check that tokens affect each other only through the attention interface, where prefixes enter.

    Gradients stop at each attention, so no gradient may lead from one token's features to another token.

    Args:
        forward: computes hidden states from the embeddings of a text.
        embeddings: embeddings of some tokens.
        name: the model's name, for errors.

    Shape:
        embeddings: [1, sequence, embedding]

    Raises:
        BackboneError: tokens also affect each other elsewhere.
    """
    with torch.enable_grad(), attention.recording() as calls:
        begun = embeddings.detach().requires_grad_()
        hidden = forward(begun)
        read = [hidden, *(states for call in calls for states in (call.queries, call.keys, call.values))]
        # Random, because the sum over a normalized token is always the same.
        random = torch.Generator().manual_seed(0)
        last = [states[..., -1, :] for states in read if states.requires_grad]
        total = torch.stack([(states * torch.randn(states.shape, generator=random)).sum() for states in last]).sum()
        sources = [begun, *(call.output for call in calls)]
        gradients = torch.autograd.grad(total, sources, allow_unused=True)
    if any(found is not None and bool(found[:, :-1].any()) for found in gradients):
        raise BackboneError(
            f"tokens of {name} reach one another beside transformers' attention interface (by convolution, state or "
            f"an attention of its own), where a prefix would not be seen: expected a model whose layers mix tokens by "
            f"that interface alone"
        )


def first_position(expected: Tensor, hidden: Callable[[int], Tensor], candidates: Iterable[int], name: str) -> int:
    """Find the position id of a text's first token with which the model computes the same as from ids alone.

    Args:
        expected: hidden states of a text with the model's own positions.
        hidden: computes the same text's hidden states with edgetune's forward, given a first position, after an absent
            prompt and prefix.
        candidates: positions to try.
        name: the model's name, for errors.

    Raises:
        BackboneError: none of them fits.
    """
    off = {}
    for first in dict.fromkeys(candidates):
        found = hidden(first)
        if same(found, expected):
            return first
        off[first] = float((found - expected).abs().max())
    raise BackboneError(
        f"{name} gives other features for embeddings and positions than for the ids of the same text (off by "
        f"{', '.join(f'{value:.2g} if positions begin at {first}' for first, value in off.items())}): its layers read "
        f"ids, or number tokens in their own way; expected a model that takes inputs_embeds and position_ids"
    )


def same(one: Tensor, other: Tensor) -> bool:
    """Whether features are the same except for rounding."""
    return bool((one - other).abs().max() <= _CLOSE * other.abs().max())


def check_prefix(by_prompt: Tensor, by_prefix: Tensor, name: str) -> None:
    """Check that in a causal model a prompt has the same effect as its keys and values.

    Raises:
        BackboneError: it does not, so a soft prompt cannot be stored as a prefix.
    """
    if not same(by_prefix, by_prompt):
        raise BackboneError(
            f"a prompt before a text of {name} does something else than the keys and values that it leads to (off by "
            f"{float((by_prefix - by_prompt).abs().max()):.2g}): its attention reads distances or a state that a "
            f"prefix does not have; expected a decoder with positions that can be given"
        )
