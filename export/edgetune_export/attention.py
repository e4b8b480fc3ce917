"""The only place where prefixes enter attention, and where attention is written to the exported graph.

transformers lets one function provide the attention of every model that uses its attention interface. The
function here puts each layer's prefix before the text's keys and values (prefix tuning, Li & Liang 2021;
P-tuning v2, Liu et al. 2022) and, while a graph is exported, emits onnxruntime's fused operator, so that
attention is fused by construction. Layers are numbered by the order of attention calls in a forward, because some
models call one module for all layers, and some modules do not know their number.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from torch import Tensor
from transformers import AttentionInterface, AttentionMaskInterface
from transformers.masking_utils import bidirectional_mask_function, eager_mask

from edgetune_runtime.errors import BackboneError

IMPLEMENTATION = "edgetune"
"""Name to load a model with: `from_pretrained(…, attn_implementation=IMPLEMENTATION)`."""

FUSED_OPERATOR = "com.microsoft::MultiHeadAttention"

_CHANGES_NOTHING = frozenset(("cache_position", "deterministic", "output_attentions", "position_ids", "use_cache"))
"""Keywords that models pass to their attention, but that no attention function of transformers reads."""


@dataclass
class _Prefixes:
    """The prefixes of the running forward, before each layer's keys and values: [batch, prefix, kv_width]."""

    keys: tuple[Tensor, ...]
    values: tuple[Tensor, ...]
    bias: Tensor
    calls: int = 0
    # Most layers share one mask. It is cached by identity, and kept alive so that its id stays unique.
    widened: dict[tuple[int, int], tuple[Tensor, tuple[Tensor | None, ...]]] = field(default_factory=dict)

    def widen(self, mask: Tensor | None, position_bias: Tensor | None, query: Tensor, key: Tensor) -> Tensor:
        """Widen the mask of a text to a text with its prefix. Arguments are those of `attend`."""
        if mask is None and position_bias is None:  # it has no size
            return _widened(self.bias, query.new_zeros(1, 1, 1, key.shape[1]), query)
        given = mask, position_bias
        found = self.widened.get((id(mask), id(position_bias)))
        if found is None:
            found = self.widened[id(mask), id(position_bias)] = _widened(self.bias, _sum(*given), query), given
        return found[0]


@dataclass(frozen=True)
class Call:
    """The inputs and output of one attention call.

    Attributes:
        queries: queries of the text. Shape: [batch, heads, sequence, head_dim]
        keys, values: keys and values of the text, without the prefix. Shape: [batch, kv_heads, sequence, head_dim]
        output: the output, from which a new gradient starts. Shape: [batch, sequence, heads, head_dim]
        window: maximum number of tokens that a token sees, including itself; `None` if it sees all.
    """

    queries: Tensor
    keys: Tensor
    values: Tensor
    output: Tensor
    window: int | None


_current: ContextVar[_Prefixes | None] = ContextVar("prefixes", default=None)
_recorded: ContextVar[list[Call] | None] = ContextVar("recorded", default=None)


@contextmanager
def recording() -> Iterator[list[Call]]:
    """Collect the inputs and outputs of each attention call inside this context, in order.

    Inside, no gradient goes through attention.
    """
    calls: list[Call] = []
    token = _recorded.set(calls)
    try:
        yield calls
    finally:
        _recorded.reset(token)


@contextmanager
def prefixes(keys: Tensor, values: Tensor, mask: Tensor) -> Iterator[None]:
    """Put these prefixes before the keys and values of every attention call inside this context.

    Shape:
        keys, values: [batch, layers, kv_heads, prefix, head_dim]
        mask: [batch, prefix]; 1 for real entries, 0 for padding

    Raises:
        BackboneError: the forward did not call attention once for each layer.
    """
    state = _Prefixes(_by_layer(keys), _by_layer(values), _bias(mask, keys.dtype))
    with _running(state):
        yield
    if state.calls != keys.shape[1]:
        raise BackboneError(
            f"the model called the attention interface {state.calls} times for {keys.shape[1]} layers: it does "
            f"not use transformers' attention interface throughout, which edgetune needs"
        )


def resumed() -> AbstractContextManager[None]:
    """A context in which part of the running forward, from here on, can be repeated later with the same state."""
    state = _current.get()
    return _running(None if state is None else replace(state, widened=dict(state.widened)))


@contextmanager
def _running(state: _Prefixes | None) -> Iterator[None]:
    token = _current.set(state)
    try:
        yield
    finally:
        _current.reset(token)


def attend(
    module: torch.nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    scaling: float | None = None,
    dropout: float = 0.0,
    position_bias: Tensor | None = None,
    sliding_window: int | None = None,
    softcap: float | None = None,
    s_aux: Tensor | None = None,
    **more: Any,
) -> tuple[Tensor, None]:
    """Attention with this layer's prefix, in the signature of transformers' attention interface.

    Args:
        module: the calling attention module, for errors.
        sliding_window: only recorded, because the mask already includes it.
        softcap: limit of the scores, applied with a tanh before anything is added (Gemma 2); such attention is not
            fused.
        s_aux: scores of an empty token that all tokens see (attention sinks).
        more: other arguments of the model. Those without effect are ignored, all others are rejected.

    Shape:
        query: [batch, heads, sequence, head_dim]
        key, value: [batch, kv_heads, sequence, head_dim]
        attention_mask, position_bias: [batch or 1, heads or 1, sequence, sequence], added to the scores
        s_aux: [heads]
        output: [batch, sequence, heads, head_dim]

    Raises:
        BackboneError: the model needs something that this attention does not support.
    """
    unknown = sorted(name for name, value in more.items() if name not in _CHANGES_NOTHING and value is not None)
    if unknown:
        raise BackboneError(
            f"{type(module).__name__} passes {', '.join(unknown)} to its attention, which edgetune does not compute: "
            f"expected scaling, a mask, a position bias, a cap or a sink; use a model of another architecture"
        )
    recorded, state = _recorded.get(), _current.get()
    given = query, key, value
    # From here on [batch, sequence, heads, head_dim].
    query, key, value = query.transpose(1, 2), key.transpose(1, 2), value.transpose(1, 2)
    if state is not None:
        layer, state.calls = state.calls, state.calls + 1
        attention_mask = state.widen(attention_mask, position_bias, query, key)
        key, value = _behind(state.keys[layer], key), _behind(state.values[layer], value)
    elif position_bias is not None:
        attention_mask = _sum(attention_mask, position_bias)
    if s_aux is not None:
        attention_mask, key, value = _with_sink(s_aux, attention_mask, query, key, value)
    groups = query.shape[2] // key.shape[2]
    if groups > 1:
        key, value = key.repeat_interleave(groups, dim=2), value.repeat_interleave(groups, dim=2)
    scale = float(query.shape[-1] ** -0.5 if scaling is None else scaling)
    if torch.compiler.is_exporting() and softcap is None:
        return _fused(query, key, value, attention_mask, scale), None
    turned = query.transpose(1, 2), key.transpose(1, 2), value.transpose(1, 2)
    if softcap is None:
        output = torch.nn.functional.scaled_dot_product_attention(
            *turned, attn_mask=attention_mask, dropout_p=dropout, scale=scale
        )
    else:
        output = _capped(*turned, attention_mask, dropout, scale, softcap)
    output = output.transpose(1, 2).contiguous()
    if recorded is not None:
        output = output.detach().requires_grad_()
        recorded.append(Call(*given, output, sliding_window))
        output = output.clone()
    return output, None


def mask_of_padding(attention_mask: Tensor | None = None, **how: Any) -> Tensor | None:
    """The mask of transformers, to add to the scores. If all text sees all text, it is computed from only the padding.

    The general form looks up each pair of positions in the padding, which takes 20 operators in the graph.

    Shape:
        attention_mask: [batch, sequence]; 1 for text, 0 for padding
        output: [batch, 1, 1 or sequence, sequence]
    """
    simple = how.get("mask_function") is bidirectional_mask_function and not how.get("kv_offset")
    if not simple or attention_mask is None or attention_mask.shape[-1] != how["kv_length"]:
        general: Tensor | None = eager_mask(attention_mask=attention_mask, **how)
        return general
    return _bias(attention_mask, how.get("dtype", torch.float32))


def _bias(mask: Tensor, dtype: torch.dtype) -> Tensor:
    return torch.where(mask.bool(), 0.0, torch.finfo(dtype).min).to(dtype)[:, None, None, :]


def _by_layer(states: Tensor) -> tuple[Tensor, ...]:
    # Transposed and flattened once for all layers, as the fused operator needs them.
    layers, heads, head_dim = states.shape[1], states.shape[2], states.shape[4]
    flat = states.permute(0, 3, 1, 2, 4).flatten(2)
    return torch.split(flat, [heads * head_dim] * layers, dim=-1)


def _behind(prefix: Tensor, states: Tensor) -> Tensor:
    # Concatenated in flat form, so that the reshapes around it cancel in the exported graph.
    return torch.cat([prefix, states.flatten(2)], dim=1).reshape(states.shape[0], -1, *states.shape[2:])


def _sum(mask: Tensor | None, position_bias: Tensor | None) -> Tensor:
    given = [term for term in (mask, position_bias) if term is not None]
    return given[0] if len(given) == 1 else given[0] + given[1]


def _widened(bias: Tensor, mask: Tensor, query: Tensor) -> Tensor:
    batch, length = query.shape[:2]
    heads = mask.shape[1]
    return torch.cat(
        [bias.expand(batch, heads, length, bias.shape[-1]), mask.expand(batch, heads, length, mask.shape[-1])], dim=-1
    )


def _with_sink(
    s_aux: Tensor, mask: Tensor | None, query: Tensor, key: Tensor, value: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    """Add a key and a value of zeros before all others, so that the mask alone gives the score."""
    score = s_aux.to(query.dtype)[None, :, None, None].expand(query.shape[0], -1, query.shape[1], 1)
    if mask is None:
        mask = query.new_zeros(1, 1, 1, key.shape[1])
    mask = torch.cat([score, mask.expand(*score.shape[:3], mask.shape[-1])], dim=-1)
    key, value = (torch.nn.functional.pad(states, (0, 0, 0, 0, 1, 0)) for states in (key, value))
    return mask, key, value


def _capped(
    query: Tensor, key: Tensor, value: Tensor, mask: Tensor | None, dropout: float, scale: float, cap: float
) -> Tensor:
    """Attention with capped scores; all arrays are [batch, heads, sequence, head_dim]."""
    scores = torch.tanh(query @ key.transpose(2, 3) * (scale / cap)) * cap
    weights = torch.softmax(scores if mask is None else scores + mask, dim=-1)
    return torch.nn.functional.dropout(weights, dropout) @ value


def _fused(query: Tensor, key: Tensor, value: Tensor, mask: Tensor | None, scale: float) -> Tensor:
    batch, length, heads, head_dim = query.shape
    output = torch.onnx.ops.symbolic(
        FUSED_OPERATOR,
        [query.flatten(2), key.flatten(2), value.flatten(2), None, None, mask],
        {"num_heads": heads, "scale": scale},
        dtype=query.dtype,
        shape=(batch, length, heads * head_dim),
        version=1,
    )
    return output.reshape(batch, length, heads, head_dim)


AttentionInterface.register(IMPLEMENTATION, attend)
AttentionMaskInterface.register(IMPLEMENTATION, mask_of_padding)
