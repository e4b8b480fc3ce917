"""Route attention modules with their own code through the place where prefixes enter.

The terms that such a module adds to the scores (distances, and interactions of contents and distances) become a
position bias of `attention.attend`; it is zero for a prefix. An entry in `_MODULES` defines a module's projections and
its bias.
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
"""The arguments of the model's attention other than hidden states and mask."""


@dataclass(frozen=True)
class _Own:
    """How a class of attention modules computes.

    Attributes:
        projections: names of the layers for query, key and value.
        output: name of the layer after attention, if the module runs it.
        bias: computes the addition to the scores from the module, queries, keys and the model's arguments.
        terms: number of terms in the scores, by which they are scaled.
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
"""Class in transformers → how it computes. DeBERTa's first version has a class with the same name as the second but
other projections, so it is not supported here."""


def let_attend(model: nn.Module) -> None:
    """Let a model's attention modules with their own code call `attention.attend`."""
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
    """Replacement for such a module's forward.

    Shape:
        hidden_states: [batch, sequence, hidden]
        output: [batch, sequence, heads · head_dim], after the output layer if the module has one
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
    """A mask to add to the scores: the given mask, or one computed from a mask of which tokens see which.

    In a mask of the second type padding sees nothing. Here it sees text, which does not affect any features that are
    read.
    """
    if mask.is_floating_point() and mask.dtype == query.dtype:
        return mask
    seen = mask.bool().any(dim=-2, keepdim=True)
    return torch.where(seen, 0.0, torch.finfo(query.dtype).min).to(query.dtype)
