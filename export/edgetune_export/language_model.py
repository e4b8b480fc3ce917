"""The parts of a language model: the backbone, and the layers from its features to its vocabulary.

Heads for label words are made from the vocabulary's rows, which are not in the exported graph.
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
    """The last linear layer of a language model; its input is multiplied by `scale` (T5).

    Shape:
        weight: [vocabulary, width]; width may be smaller than the features' (ALBERT, ELECTRA)
        bias: [vocabulary]
    """

    weight: Tensor
    bias: Tensor
    scale: float = 1.0

    def rounded(self, tied: Mapping[int, Tensor]) -> Vocabulary:
        """The same with its weight in bf16, unless it already is in half precision.

        Args:
            tied: address in memory → rounded weight, for tied weights.
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

    The masked language model itself runs them. Its backbone is replaced by the given features, and its vocabulary is
    removed, so no architecture has to be copied here.
    """

    def __init__(self, masked_language_model: PreTrainedModel) -> None:
        super().__init__()
        self.model = masked_language_model
        setattr(self.model, self.model.base_model_prefix, _Given())

    def forward(self, features: Tensor) -> Tensor:
        """Transformed features, padded with zeros if they are narrower.

        Shape:
            features: [batch, spans, hidden]
            output: [batch, spans, hidden]
        """
        transformed = self.model(inputs_embeds=features).logits
        return nn.functional.pad(transformed, (0, features.shape[-1] - transformed.shape[-1]))


class Pooler(nn.Module):
    """The layer through which BERT and ALBERT were pre-trained to read a text's first token."""

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
        """The decoder's hidden states, by default for its start token.

        Shape:
            inputs_embeds: [batch, sequence, embedding]; or input_ids, without position_ids
            attention_mask, input_ids, position_ids: [batch, sequence]
            last_hidden_state: [batch, 1 or given length, hidden]
        """
        table = getattr(self.encoder, "embed_positions", None)
        if table is not None and inputs_embeds is not None and position_ids is not None:
            # BART always numbers positions along the row, so the positions that it will add are subtracted here.
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
    """A stand-in for a backbone that returns given hidden states."""

    def forward(self, *_: Any, inputs_embeds: Tensor, **__: Any) -> BaseModelOutput:
        return BaseModelOutput(last_hidden_state=inputs_embeds)


def take_vocabulary(model: PreTrainedModel) -> Vocabulary:
    """Remove the vocabulary's layer from a language model, which then returns that layer's input."""
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
