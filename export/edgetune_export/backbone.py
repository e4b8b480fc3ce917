"""The frozen backbone: the one forward that training and export share, and its fingerprint."""

from __future__ import annotations

import hashlib
import inspect
from collections.abc import Mapping, Sequence
from functools import cached_property
from types import MappingProxyType

import torch
from torch import Tensor, nn
from transformers import PreTrainedConfig

from edgetune_export import attention
from edgetune_export.families import OFFSETS_POSITIONS_BY_PADDING, family_of
from edgetune_export.language_model import OneStep, Vocabulary
from edgetune_export.rotary import hold_frequencies
from edgetune_export.tokenizer import BackboneEncoder
from edgetune_runtime import contract
from edgetune_runtime.contract import BackboneSizes
from edgetune_runtime.errors import BackboneError

_PLACE = {name: place for place, name in enumerate(contract.POOLINGS)}
_UNLIMITED_POSITIONS = 512  # what backbones with relative positions alone (T5) were trained to read


class Backbone(nn.Module):
    """A frozen transformer that takes a bank of tasks.

    Args:
        model: the transformer, loaded with edgetune's attention.
        config: its configuration.
        name: what to call it.
        tokenizer_json: the contents of its `tokenizer.json`.
        mask_token: its tokenizer's mask token and that token's id, where it has one.
        transforms: pooling → the layers behind the backbone that it reads features through ("mask", "pooler").
        vocabulary: the vocabulary's layer, where the weights have one.

    Attributes:
        sizes: of what enters and leaves it.
        window: tokens that the layer with the narrowest attention sees; `None` if all see everything.

    Raises:
        BackboneError: its attention is not what edgetune computes.
    """

    def __init__(
        self,
        model: nn.Module,
        config: PreTrainedConfig,
        name: str,
        tokenizer_json: bytes,
        mask_token: tuple[str, int] | None = None,
        transforms: Mapping[str, nn.Module] = MappingProxyType({}),
        vocabulary: Vocabulary | None = None,
    ) -> None:
        super().__init__()
        self.model = model
        self.transforms = nn.ModuleDict(transforms)
        self.requires_grad_(False).eval()
        self.config = config
        self.name = name
        self.tokenizer_json = tokenizer_json
        self.family = family_of(config)
        self.vocabulary = vocabulary
        self.mask_token, self._mask_id = mask_token or ("", -1)
        self.poolings = (*self.family.poolings, *transforms)
        padding = int(config.pad_token_id or 0)
        self._first_position = padding + 1 if self.architecture in OFFSETS_POSITIONS_BY_PADDING else 0
        positions = getattr(config, "max_position_embeddings", None) or _UNLIMITED_POSITIONS
        held = hold_frequencies(model, config)
        self.max_positions = min(int(positions), held or int(positions)) - self._first_position
        self._caches = "use_cache" in inspect.signature(model.forward).parameters
        self.sizes, self.window = self._measured()

    @property
    def architecture(self) -> str:
        """The backbone's `model_type`."""
        return str(self.config.model_type)

    @cached_property
    def text_encoder(self) -> BackboneEncoder:
        """Its tokenizer, which refuses tokens that it has no embedding for."""
        embeddings = self.model.get_input_embeddings().num_embeddings  # type: ignore[operator]
        return BackboneEncoder(self.tokenizer_json, self.max_positions, self.mask_token, embeddings)

    def position_offset(self, prompt_length: int) -> int:
        """Position id of the text's first token, for a prompt or prefix of that length.

        In a bidirectional encoder the text keeps the positions that it was pre-trained with.
        """
        return prompt_length if self.family.causal else 0

    def fingerprint(self) -> str:
        """SHA-256 over all weights that the graph has: names in order, dtypes, shapes and bytes."""
        digest = hashlib.sha256()
        tensors = self.model.state_dict()
        for pooling, transform in self.transforms.items():
            tensors |= {f"{pooling}_transform.{name}": tensor for name, tensor in transform.state_dict().items()}
        for name, tensor in sorted(tensors.items()):
            digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}\n".encode())
            digest.update(tensor.detach().cpu().contiguous().view(torch.uint8).numpy())
        return digest.hexdigest()

    def embed(self, input_ids: Tensor) -> Tensor:
        """Input embeddings of tokens.

        Shape:
            input_ids: [...]
            output: [..., embedding]
        """
        embedded: Tensor = self.model.get_input_embeddings()(input_ids)  # type: ignore[operator]
        return embedded

    def keys_and_values(self, embeddings: Tensor) -> tuple[Tensor, Tensor]:
        """What every attention reads of a row: the space that a prefix lives in.

        Shape:
            embeddings: [batch, sequence, embedding]
            both outputs: [batch, layers, kv_heads, sequence, head_dim]
        """
        with torch.no_grad(), attention.recording() as calls:
            self._hidden(embeddings, decoder_too=True)
        return torch.stack([call.keys for call in calls], dim=1), torch.stack([call.values for call in calls], dim=1)

    def _hidden(self, embeddings: Tensor, decoder_too: bool = False) -> Tensor:
        mask = torch.ones(embeddings.shape[:2], dtype=torch.int64, device=embeddings.device)
        positions = torch.arange(embeddings.shape[1], device=embeddings.device).expand_as(mask)
        more = {"decoder_inputs_embeds": embeddings} if decoder_too and isinstance(self.model, OneStep) else {}
        output = self.model(
            inputs_embeds=embeddings, attention_mask=mask, **self._position_ids(positions), **self._no_cache, **more
        )
        hidden: Tensor = output.last_hidden_state
        return hidden

    def _measured(self) -> tuple[BackboneSizes, int | None]:
        embeddings = self.embed(torch.zeros(1, 1, dtype=torch.int64))
        with torch.no_grad(), attention.recording() as calls:
            hidden = self._hidden(embeddings)
        shapes = {tuple(states.shape) for call in calls for states in (call.keys, call.values)}
        if len(shapes) != 1:
            raise BackboneError(
                f"{self.name} ({self.architecture}) has attention of {len(shapes)} shapes {sorted(shapes)}: "
                f"expected one shape of keys and values in all layers"
            )
        _, kv_heads, _, head_dim = shapes.pop()
        windows = [call.window for call in calls if call.window is not None]
        sizes = BackboneSizes(embeddings.shape[-1], hidden.shape[-1], len(calls), kv_heads, head_dim)
        return sizes, min(windows, default=None)

    def forward(
        self,
        input_ids: Tensor,
        attention_mask: Tensor,
        task_index: Tensor,
        prompt_embeddings: Tensor,
        prompt_mask: Tensor,
        prefix_keys: Tensor,
        prefix_values: Tensor,
        prefix_mask: Tensor,
        position_offset: Tensor,
        pooling: Tensor,
        head_weight: Tensor,
        head_bias: Tensor,
    ) -> tuple[Tensor, Tensor]:
        """Logits and features of texts, each with its own task of the bank.

        Shape:
            inputs: as `contract.INPUTS`
            logits: [batch, labels]
            features: [batch, hidden]
        """
        prompt, prompt_present = prompt_embeddings[task_index], prompt_mask[task_index]
        text_positions = (
            torch.arange(input_ids.shape[1], device=input_ids.device) + position_offset[task_index][:, None]
        )
        prompt_positions = (prompt_present.cumsum(dim=1) - 1).clamp(min=0)  # a prompt is padded on its left
        positions = torch.cat([prompt_positions, text_positions], dim=1)
        with attention.prefixes(prefix_keys[task_index], prefix_values[task_index], prefix_mask[task_index]):
            hidden = self.model(
                inputs_embeds=torch.cat([prompt, self.embed(input_ids)], dim=1),
                attention_mask=torch.cat([prompt_present, attention_mask], dim=1),
                **self._position_ids(positions),
                **self._no_cache,
            ).last_hidden_state
        if isinstance(self.model, OneStep):
            features = hidden[:, 0]
        else:
            features = self._pool(hidden, prompt_present, input_ids, attention_mask, pooling[task_index])
        logits = (head_weight[task_index] @ features[:, :, None])[:, :, 0] + head_bias[task_index]
        return logits, features

    def _pool(self, hidden: Tensor, prompt_present: Tensor, input_ids: Tensor, mask: Tensor, pooling: Tensor) -> Tensor:
        """The mean over a span of tokens, through the layers that the pooling has behind it, if any."""
        chosen = pooling[:, None]
        count = mask.sum(dim=1, keepdim=True)
        begin = torch.where(chosen == _PLACE["last"], count - 1, torch.zeros_like(count))
        end = torch.where(chosen == _PLACE["cls"], torch.ones_like(count), count)
        # The text begins at 0, a prompt before that.
        place_of = {
            "mask": (input_ids == self._mask_id).long().argmax(dim=1, keepdim=True),
            "pooler": -prompt_present.sum(dim=1, keepdim=True),
        }
        for name in self.transforms:
            here = chosen == _PLACE[name]
            begin, end = torch.where(here, place_of[name], begin), torch.where(here, place_of[name] + 1, end)
        places = torch.arange(hidden.shape[1], device=hidden.device) - prompt_present.shape[1]
        inside = ((places >= begin) & (places < end)).to(hidden.dtype)
        features = (inside[:, None] @ hidden)[:, 0] / (end - begin)
        for name, transform in self.transforms.items():
            features = torch.where(chosen == _PLACE[name], transform(features), features)
        return features

    def _position_ids(self, positions: Tensor) -> dict[str, Tensor]:
        return {"position_ids": positions + self._first_position}

    @property
    def _no_cache(self) -> dict[str, bool]:
        return {"use_cache": False} if self._caches else {}


def pad(rows: Sequence[Sequence[int]]) -> tuple[Tensor, Tensor]:
    """Token ids and attention mask of a batch, padded on the right.

    Shape:
        both: [batch, sequence]
    """
    input_ids = torch.zeros(len(rows), max(len(ids) for ids in rows), dtype=torch.int64)
    mask = torch.zeros_like(input_ids)
    for row, ids in enumerate(rows):
        input_ids[row, : len(ids)] = torch.tensor(ids)
        mask[row, : len(ids)] = 1
    return input_ids, mask
