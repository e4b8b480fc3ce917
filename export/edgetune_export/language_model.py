"""The parts of a language model: the backbone, and what leads from its features to the words of its vocabulary.

The vocabulary's rows are what heads for label words are made of; they stay out of the exported graph.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel
from transformers.modeling_outputs import BaseModelOutput


@dataclass(frozen=True)
class Vocabulary:
    """The linear layer that ends a language model; `scale` is what its input is multiplied with (T5).

    Shape:
        weight: [vocabulary, width]; width may be below the features' (ALBERT, ELECTRA)
        bias: [vocabulary]
    """

    weight: Tensor
    bias: Tensor
    scale: float = 1.0

    def rounded(self, tied: Mapping[int, Tensor]) -> Vocabulary:
        """The same with its weight in bf16, unless it is in half precision.

        Args:
            tied: place in memory → what a weight there is in bf16.
        """
        if self.weight.dtype != torch.float32:
            return self
        tensor = tied.get(self.weight.data_ptr())
        return replace(self, weight=self.weight.bfloat16() if tensor is None else tensor)

    def rows(self, ids: Sequence[int], hidden: int) -> tuple[Tensor, Tensor]:
        """Weights and biases of some words, as rows of a classification head.

        Shape:
            weights: [ids, hidden]
            biases: [ids]
        """
        weights = self.weight[list(ids)].float() * self.scale
        return nn.functional.pad(weights, (0, hidden - weights.shape[1])), self.bias[list(ids)].float()


class MaskTransform(nn.Module):
    """The layers between an encoder's features at a mask token and its vocabulary.

    The masked language model itself runs them, its backbone replaced by the features that are given and its
    vocabulary by nothing; so there is no copy of any architecture here.
    """

    def __init__(self, masked_language_model: PreTrainedModel) -> None:
        super().__init__()
        self.model = masked_language_model
        setattr(self.model, self.model.base_model_prefix, _Given())

    def forward(self, features: Tensor) -> Tensor:
        """Transformed features; where they are narrower, zeros fill them up.

        Shape:
            features: [batch, spans, hidden]
            output: [batch, spans, hidden]
        """
        transformed = self.model(inputs_embeds=features).logits
        return nn.functional.pad(transformed, (0, features.shape[-1] - transformed.shape[-1]))


class Pooler(nn.Module):
    """The layer that BERT and ALBERT were pre-trained to read a whole text's first token through."""

    def __init__(self, pooler: Any) -> None:
        super().__init__()
        self.dense: nn.Linear = getattr(pooler, "dense", pooler)

    def forward(self, features: Tensor) -> Tensor:
        """Shape: [..., hidden], both ways."""
        return self.dense(features).tanh()


class OneStep(nn.Module):
    """An encoder-decoder that reads a text and takes the first step of its decoder."""

    def __init__(self, model: PreTrainedModel) -> None:
        super().__init__()
        self.encoder = model.get_encoder()
        self.decoder = model.get_decoder()
        self.start = int(model.config.decoder_start_token_id)

    def get_input_embeddings(self) -> nn.Module:
        """The encoder's token embeddings."""
        return self.encoder.get_input_embeddings()

    def forward(
        self,
        attention_mask: Tensor,
        inputs_embeds: Tensor | None = None,
        input_ids: Tensor | None = None,
        position_ids: Tensor | None = None,
        decoder_inputs_embeds: Tensor | None = None,
    ) -> BaseModelOutput:
        """The decoder's hidden states: of its start token unless it is given something to read.

        Shape:
            inputs_embeds: [batch, sequence, embedding]; or input_ids, without position_ids
            attention_mask, input_ids, position_ids: [batch, sequence]
            last_hidden_state: [batch, 1 or as given, hidden]
        """
        table = getattr(self.encoder, "embed_positions", None)
        if table is not None and inputs_embeds is not None and position_ids is not None:
            # BART numbers positions along the row and takes no others: what it will add is taken off here.
            row = torch.arange(inputs_embeds.shape[1], device=inputs_embeds.device)
            inputs_embeds = inputs_embeds + _look_up(table, position_ids) - _look_up(table, row)
        memory = self.encoder(
            input_ids=input_ids, inputs_embeds=inputs_embeds, attention_mask=attention_mask
        ).last_hidden_state
        if decoder_inputs_embeds is None:
            start = torch.full_like(attention_mask[:, :1], self.start)
            decoder_inputs_embeds = self.decoder.get_input_embeddings()(start)
        return self.decoder(
            inputs_embeds=decoder_inputs_embeds,
            encoder_hidden_states=memory,
            encoder_attention_mask=attention_mask,
            use_cache=False,
        )


class _Given(nn.Module):
    """Stands in for a backbone: its hidden states are those that come."""

    def forward(self, *_: Any, inputs_embeds: Tensor, **__: Any) -> BaseModelOutput:
        return BaseModelOutput(last_hidden_state=inputs_embeds)


def take_vocabulary(model: PreTrainedModel) -> Vocabulary:
    """Take the vocabulary's layer out of a language model, which then gives what that layer was fed."""
    layer = model.get_output_embeddings()
    weight: Tensor = layer.weight
    scale = model.config.hidden_size**-0.5 if getattr(model.config, "scale_decoder_outputs", False) else 1.0
    bias = getattr(layer, "bias", None)
    if bias is None:
        bias = getattr(model, "final_logits_bias", weight.new_zeros(1, len(weight)))[0]
    for parent in model.modules():
        for name, child in parent.named_children():
            if child is layer:
                setattr(parent, name, nn.Identity())
    return Vocabulary(weight.detach(), bias.detach(), scale)


def _look_up(table: Any, position_ids: Tensor) -> Tensor:
    return nn.functional.embedding(position_ids + getattr(table, "offset", 0), table.weight)
