"""Attention modules with code of their own, led through the one place where prefixes enter.

What such a module adds to the scores (distances, what contents say of distances) becomes a position bias of
`attention.attend`; a prefix gets none of it. One line of `_MODULES` says where a module's projections are and what its
bias is made of.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from edgetune_export import attention

Given = Mapping[str, Any]
"""What the model passes to its attention beside hidden states and mask."""


@dataclass(frozen=True)
class _Own:
    """How one class of attention modules computes.

    Attributes:
        projections: names of the layers that give query, key and value.
        output: name of the layer behind attention, where the module runs it.
        bias: what is added to the scores, made of the module, queries, keys and what the model passes.
        terms: how many terms the scores are a sum of, by which they are scaled.
    """

    projections: tuple[str, str, str] = ("query", "key", "value")
    output: str | None = None
    bias: Callable[[Any, Tensor, Tensor, Given], Tensor | None] = lambda *_: None
    terms: Callable[[Any], int] = lambda _: 1


def _passed(_: Any, __: Tensor, ___: Tensor, given: Given) -> Tensor | None:
    bias: Tensor | None = given.get("position_bias")
    return bias


def _disentangled(module: Any, queries: Tensor, keys: Tensor, given: Given) -> Tensor | None:
    if not module.relative_attention:
        return None
    flat = queries.flatten(0, 1), keys.flatten(0, 1)
    distances, embeddings = given.get("relative_pos"), module.pos_dropout(given["rel_embeddings"])
    bias: Tensor = module.disentangled_attention_bias(*flat, distances, embeddings, _disentangled_terms(module))
    return bias.view(*queries.shape[:2], *bias.shape[1:])


def _disentangled_terms(module: Any) -> int:
    return 1 + len({"c2p", "p2c"}.intersection(module.pos_att_type))


_MODULES = {
    "DisentangledSelfAttention": _Own(
        ("query_proj", "key_proj", "value_proj"), bias=_disentangled, terms=_disentangled_terms
    ),
    "MPNetSelfAttention": _Own(("q", "k", "v"), output="o", bias=_passed),
    "MegatronBertSelfAttention": _Own(),
    "RemBertSelfAttention": _Own(),
}
"""Class of transformers → how it computes. DeBERTa's first version has a class of the same name as the second, and
other projections: it is not led here."""


def let_attend(model: nn.Module) -> None:
    """Let the attention modules of a model that have code of their own call `attention.attend`."""
    for module in model.modules():
        own = _MODULES.get(type(module).__name__)
        if own is not None and all(hasattr(module, name) for name in own.projections):
            module.forward = partial(_attend, own, module)


def _attend(
    own: _Own,
    module: Any,
    hidden_states: Tensor,
    attention_mask: Tensor | None = None,
    position_bias: Tensor | None = None,
    **given: Any,
) -> tuple[Tensor, None]:
    """In place of such a module's forward.

    Shape:
        hidden_states: [batch, sequence, hidden]
        output: [batch, sequence, heads · head_dim], behind the output layer where the module has one
    """
    heads = module.num_attention_heads
    query, key, value = (
        getattr(module, name)(hidden_states).unflatten(-1, (heads, -1)).transpose(1, 2) for name in own.projections
    )
    given["position_bias"] = position_bias
    output, _ = attention.attend(
        module,
        query,
        key,
        value,
        None if attention_mask is None else _added(attention_mask, query),
        scaling=(query.shape[-1] * own.terms(module)) ** -0.5,
        dropout=module.dropout.p if module.training else 0.0,
        position_bias=own.bias(module, query, key, given),
    )
    flat = output.flatten(2)
    return flat if own.output is None else getattr(module, own.output)(flat), None


def _added(mask: Tensor, query: Tensor) -> Tensor:
    """A mask to add to the scores: as it is, or made of one that says which tokens see which.

    What is no text sees nothing in the latter; that it sees text here changes nothing that is read.
    """
    if mask.is_floating_point() and mask.dtype == query.dtype:
        return mask
    seen = mask.bool().any(dim=-2, keepdim=True)
    return torch.where(seen, 0.0, torch.finfo(query.dtype).min).to(query.dtype)
