"""Assumptions about a model are checked while it is loaded: models that would silently be wrong are rejected."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from test_graph import MORE, language_model
from torch import Tensor

from edgetune_export import assumptions, attention
from edgetune_export.backbone import Backbone
from edgetune_export.loading import from_language_model
from edgetune_runtime.errors import BackboneError

Spoil = Callable[[Any], object]


def backbone(architecture: str, spoil: Spoil = lambda model: None) -> Backbone:
    model = language_model(architecture)
    spoil(model)
    return from_language_model(model, "spoilt", b"")


def after(module: torch.nn.Module, change: Callable[[Tensor], Tensor]) -> None:
    """Change a module's hidden states, without changing its other outputs."""

    def hook(_: object, __: object, output: Any) -> Any:
        return (change(output[0]), *output[1:]) if isinstance(output, tuple) else change(output)

    module.register_forward_hook(hook)


def with_the_one_before(states: Tensor) -> Tensor:
    """A convolution over two tokens."""
    return states + 0.1 * torch.nn.functional.pad(states, (0, 0, 1, 0))[:, :-1]


def by_place_in_the_row(states: Tensor) -> Tensor:
    """A model that numbers tokens itself, whatever positions it is given."""
    return states * (1 + 0.1 * torch.arange(states.shape[1]))[:, None]


@pytest.mark.parametrize(
    ("architecture", "spoil"),
    [
        ("bert", lambda model: after(model.bert.embeddings, with_the_one_before)),
        ("bert", lambda model: after(model.bert.encoder.layer[1], with_the_one_before)),
        ("bert", lambda model: after(model.bert.encoder.layer[0].attention.self, with_the_one_before)),
        ("llama", lambda model: after(model.model.layers[0].mlp, with_the_one_before)),
        ("t5", lambda model: after(model.encoder.block[1], with_the_one_before)),
        ("t5", lambda model: model.encoder.config.__setattr__("_attn_implementation", "eager")),
    ],
    ids=["embeddings", "layer", "attention", "feed-forward", "encoder", "encoder-eager"],
)
def test_tokens_that_reach_one_another_beside_the_interface_are_noticed(architecture: str, spoil: Spoil) -> None:
    """Also for an encoder before a decoder that uses the interface correctly."""
    backbone(architecture)
    with pytest.raises(BackboneError, match=r"tokens of spoilt \(\w+\) reach one another beside"):
        backbone(architecture, spoil)


def test_a_convolution_of_debertas_is_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    """The largest models of its second version have one after their first layer."""
    monkeypatch.setitem(MORE, "deberta-v2", {**MORE["deberta-v2"], "conv_kernel_size": 3})
    with pytest.raises(BackboneError, match=r"tokens of spoilt \(deberta-v2\) reach one another beside"):
        backbone("deberta-v2")


@pytest.mark.parametrize("architecture", ["bert", "llama"])
def test_a_model_that_numbers_tokens_by_their_place_in_the_row_is_noticed(architecture: str) -> None:
    """A text's answer would depend on the longest prompt of its batch."""
    with pytest.raises(BackboneError, match=r"other features for embeddings and positions.*if positions begin at 0"):
        backbone(
            architecture, lambda model: after(model.get_input_embeddings(), lambda states: states) or numbered(model)
        )


def numbered(model: Any) -> None:
    core = getattr(model, model.base_model_prefix)
    after(core.encoder.layer[0] if hasattr(core, "encoder") else core.layers[0], by_place_in_the_row)


def test_a_model_whose_layers_read_ids_is_noticed() -> None:
    def reads_ids(model: Any) -> None:
        def add(_: object, given: tuple[Any, ...], named: dict[str, Any], output: Tensor) -> Tensor:
            return output if named.get("input_ids") is None else output + 0.1

        model.bert.embeddings.register_forward_hook(add, with_kwargs=True)

    with pytest.raises(BackboneError, match="its layers read ids, or number tokens in their own way"):
        backbone("bert", reads_ids)


@pytest.mark.parametrize("architecture", ["camembert", "roberta", "xlm-roberta"])
def test_where_positions_begin_is_measured(architecture: str) -> None:
    found = backbone(architecture)
    assert found._first_position == found.config.pad_token_id + 1 == 2
    assert found.max_positions == found.config.max_position_embeddings - 2


@pytest.mark.parametrize("architecture", ["bert", "gpt2", "opt", "bart", "t5", "llama"])
def test_positions_of_others_begin_at_zero(architecture: str) -> None:
    found = backbone(architecture)
    assert found._first_position == 0


def test_a_decoder_whose_tokens_see_all_others_is_an_encoder() -> None:
    """Whatever the configuration calls it."""

    def sees_all(model: Any) -> None:
        for layer in model.model.layers:
            layer.self_attn.register_forward_pre_hook(
                lambda _, given, named: (given, {**named, "attention_mask": named["attention_mask"][:, :, -1:]}),
                with_kwargs=True,
            )

    found = backbone("llama", sees_all)
    assert backbone("llama").family.causal
    assert not found.family.causal
    assert found.poolings == ("mean", "cls", "last")
    assert found.position_offset(6) == 0


def test_a_prompt_that_its_keys_and_values_cannot_stand_for_is_noticed() -> None:
    hidden = torch.randn(1, 6, 32)
    assumptions.check_prefix(hidden, hidden + 1e-6, "this")
    with pytest.raises(BackboneError, match="a prompt before a text of this does something else"):
        assumptions.check_prefix(hidden, hidden + 0.1, "this")


def test_trying_costs_few_forwards() -> None:
    """They have only eight tokens, so loading is not slower."""
    model = language_model("llama")
    calls = []
    model.model.register_forward_hook(lambda *_: calls.append(1))
    from_language_model(model, "counted", b"")
    assert len(calls) <= 10
    assert attention._recorded.get() is None
