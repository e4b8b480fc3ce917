"""What is taken for granted of a transformer, tried on a few tokens before it is used.

No architecture is known here. What a model does is measured where it can be (where its positions begin, whether a
token sees those behind it); what would be wrong without a word is refused.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable

import torch
from torch import Tensor

from edgetune_export import attention
from edgetune_runtime.errors import BackboneError

TOKENS = 8
"""How many tokens are tried."""

_CLOSE = 1e-3  # of the largest feature: far above what rounding does, far below what another position does


def some_ids(vocabulary: int, padding: int | None) -> Tensor:
    """Ids from all over a vocabulary, without its special tokens as far as they stand at its ends.

    Shape: [1, TOKENS]
    """
    ids = torch.arange(1, TOKENS + 1) * vocabulary // (TOKENS + 2)
    return (ids + (ids == (-1 if padding is None else padding)))[None]


def check_mixing(forward: Callable[[Tensor], Tensor], embeddings: Tensor, name: str) -> None:
    """Check that tokens reach one another through the attention interface alone, where prefixes enter.

    Gradients end at each attention, so none may lead from what is read of one token to another.

    Args:
        forward: embeddings of a text to hidden states.
        embeddings: of some tokens.
        name: what to call the model.

    Shape:
        embeddings: [1, sequence, embedding]

    Raises:
        BackboneError: they reach one another elsewhere, too.
    """
    with torch.enable_grad(), attention.recording() as calls:
        begun = embeddings.detach().requires_grad_()
        hidden = forward(begun)
        read = [hidden, *(states for call in calls for states in (call.queries, call.keys, call.values))]
        # Random, since the sum over a normalized token is the same whatever it is.
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
    """The position id of a text's first token, by which the model computes what it does when it is given ids alone.

    Args:
        expected: hidden states of a text, as the model numbers its tokens.
        hidden: the same text's by edgetune's forward, for a first position; an absent prompt and prefix before it.
        candidates: positions to try.
        name: what to call the model.

    Raises:
        BackboneError: there is none among them.
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
    """Whether features are the same but for rounding."""
    return bool((one - other).abs().max() <= _CLOSE * other.abs().max())


def check_prefix(by_prompt: Tensor, by_prefix: Tensor, name: str) -> None:
    """Check that on a causal model a prompt does what the keys and values that it leads to do.

    Raises:
        BackboneError: it does not, so that a soft prompt cannot be stored as a prefix.
    """
    if not same(by_prefix, by_prompt):
        raise BackboneError(
            f"a prompt before a text of {name} does something else than the keys and values that it leads to (off by "
            f"{float((by_prefix - by_prompt).abs().max()):.2g}): its attention reads distances or a state that a "
            f"prefix does not have; expected a decoder with positions that can be given"
        )
