"""The frozen backbone: loading it, its fingerprint, and the one forward that training and export share."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import torch
from optimum.utils import NormalizedConfigManager
from torch import Tensor, nn
from transformers import AutoConfig, AutoModel, AutoTokenizer, PreTrainedConfig, PreTrainedModel

from edgetune_export import attention
from edgetune_export.quiet import quiet
from edgetune_runtime import contract
from edgetune_runtime.contract import BackboneSizes
from edgetune_runtime.errors import BackboneError, MissingPackageError


@dataclass(frozen=True)
class Family:
    """What differs between kinds of backbone.

    Attributes:
        pooling: where a text's features are read unless the user says otherwise.
        causal: whether a token sees only those before it, so that a text's positions follow its prompt's.
    """

    pooling: str
    causal: bool = False


_ENCODER = Family(pooling="mean")
_DECODER = Family(pooling="last", causal=True)

FAMILIES: dict[str, Family] = {
    **dict.fromkeys(
        ("albert", "bert", "camembert", "distilbert", "electra", "modernbert", "roberta", "xlm-roberta"),
        _ENCODER,
    ),
    **dict.fromkeys(("gpt2", "llama", "qwen2", "qwen3"), _DECODER),
}
"""`model_type` → its family: the architectures whose exported graph is tested against PyTorch."""

_OFFSETS_POSITIONS_BY_PADDING = ("camembert", "roberta", "xlm-roberta")


class Backbone(nn.Module):
    """A frozen transformer that takes a bank of tasks.

    Args:
        model: the transformer, loaded with edgetune's attention.
        name: what to call it.
        tokenizer_json: the contents of its `tokenizer.json`.
        pooling: where features are read, one of `contract.POOLINGS`; the family's default where `None`.
    """

    def __init__(self, model: PreTrainedModel, name: str, tokenizer_json: bytes, pooling: str | None = None) -> None:
        super().__init__()
        self.model: PreTrainedModel = model.requires_grad_(False).eval()
        self.name = name
        self.tokenizer_json = tokenizer_json
        self.config: PreTrainedConfig = model.config
        self.family = FAMILIES[self.config.model_type]
        self.pooling = pooling or self.family.pooling
        self.sizes = _sizes(self.config, model)
        padding = int(self.config.pad_token_id or 0)
        self._first_position = padding + 1 if self.architecture in _OFFSETS_POSITIONS_BY_PADDING else 0
        self.max_positions = int(self.config.max_position_embeddings) - self._first_position

    @property
    def architecture(self) -> str:
        """The backbone's `model_type`."""
        return str(self.config.model_type)

    @property
    def has_attention_windows(self) -> bool:
        """Whether some layers see only tokens near by, so that padding inside a row changes what they see."""
        kinds = getattr(self.config, "layer_types", None) or ()
        return any("sliding" in kind for kind in kinds) or hasattr(self.config, "local_attention")

    def position_offset(self, prompt_length: int) -> int:
        """Position id of the text's first token, for a prompt or prefix of that length.

        In a bidirectional encoder the text keeps the positions that it was pre-trained with.
        """
        return prompt_length if self.family.causal else 0

    def fingerprint(self) -> str:
        """SHA-256 over all weights: names in order, dtypes, shapes and bytes."""
        digest = hashlib.sha256()
        for name, tensor in sorted(self.model.state_dict().items()):
            digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}\n".encode())
            digest.update(tensor.detach().cpu().contiguous().view(torch.uint8).numpy())
        return digest.hexdigest()

    def embed(self, input_ids: Tensor) -> Tensor:
        """Input embeddings of tokens.

        Shape:
            input_ids: [...]
            output: [..., embedding]
        """
        return self.model.get_input_embeddings()(input_ids)

    def keys_and_values(self, input_ids: Tensor) -> tuple[Tensor, Tensor]:
        """What every layer's attention reads of a text: the space that a prefix lives in.

        Shape:
            input_ids: [batch, sequence]
            both outputs: [batch, layers, kv_heads, sequence, head_dim]
        """
        with torch.no_grad(), attention.recording() as calls:
            self.model(input_ids=input_ids)
        keys, values = zip(*calls, strict=True)
        return torch.stack(keys, dim=1), torch.stack(values, dim=1)

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
        head_weight: Tensor,
        head_bias: Tensor,
    ) -> tuple[Tensor, Tensor]:
        """Logits and features of texts, each with its own task of the bank.

        Shape:
            inputs: as `contract.INPUTS`
            logits: [batch, labels]
            features: [batch, hidden]
        """
        prompt = prompt_embeddings[task_index]
        batch, prompt_length = prompt.shape[:2]
        length = input_ids.shape[1]
        device = input_ids.device
        text_positions = torch.arange(length, device=device) + position_offset[task_index][:, None]
        prompt_positions = torch.arange(prompt_length, device=device).expand(batch, prompt_length)
        with attention.prefixes(prefix_keys[task_index], prefix_values[task_index], prefix_mask[task_index]):
            hidden = self.model(
                inputs_embeds=torch.cat([prompt, self.embed(input_ids)], dim=1),
                attention_mask=torch.cat([prompt_mask[task_index], attention_mask], dim=1),
                position_ids=torch.cat([prompt_positions, text_positions], dim=1) + self._first_position,
                **({"use_cache": False} if self.family.causal else {}),
            ).last_hidden_state
        features = self._pool(hidden[:, prompt_length:], attention_mask)
        logits = torch.einsum("bh,blh->bl", features, head_weight[task_index]) + head_bias[task_index]
        return logits, features

    def _pool(self, hidden: Tensor, mask: Tensor) -> Tensor:
        if self.pooling == "cls":
            return hidden[:, 0]
        if self.pooling == "mean":
            weights = mask.to(hidden.dtype)[:, :, None]
            return (hidden * weights).sum(dim=1) / weights.sum(dim=1)
        last = (mask.sum(dim=1) - 1)[:, None, None].expand(-1, 1, hidden.shape[-1])
        return hidden.gather(1, last)[:, 0]


def load_backbone(model: str, pooling: str | None = None) -> Backbone:
    """Load a frozen backbone in fp32.

    Args:
        model: a local folder, a `.gguf` file, or a hub id.
        pooling: where features are read; the family's default where `None`.

    Raises:
        BackboneError: it cannot be found or loaded, or its architecture is not supported.
        MissingPackageError: a `.gguf` file was named and `gguf` is not installed.
    """
    path = Path(model)
    if path.suffix == ".gguf":
        if find_spec("gguf") is None:
            raise MissingPackageError("gguf", "gguf")
        source: dict[str, Any] = {"pretrained_model_name_or_path": str(path.parent), "gguf_file": path.name}
    else:
        source = {"pretrained_model_name_or_path": model}
    if pooling not in (None, *contract.POOLINGS):
        raise BackboneError(f"pooling {pooling!r} is not known: expected one of {', '.join(contract.POOLINGS)}")
    with quiet():
        config = _or_backbone_error(model, AutoConfig.from_pretrained, source)
        if config.model_type not in FAMILIES:
            raise BackboneError(
                f"{model} has the architecture '{config.model_type}', which is not supported: expected one of "
                f"{', '.join(sorted(FAMILIES))}"
            )
        options = {"attn_implementation": attention.IMPLEMENTATION, "dtype": torch.float32}
        loaded, report = _or_backbone_error(
            model, AutoModel.from_pretrained, {**source, **options, "output_loading_info": True}
        )
        tokenizer = _or_backbone_error(model, AutoTokenizer.from_pretrained, source)
    if not getattr(tokenizer, "is_fast", False):
        raise BackboneError(f"{model} has no fast tokenizer: expected a tokenizer.json beside the weights")
    if tokenizer.vocab_size * 2 < config.vocab_size:
        raise BackboneError(
            f"the tokenizer of {model} knows {tokenizer.vocab_size} tokens and the model {config.vocab_size}: is "
            f"tokenizer.json missing? Copy the tokenizer's files beside the weights"
        )
    missing = sorted(name for name in report["missing_keys"] if "pooler" not in name)
    if missing:
        raise BackboneError(
            f"the weights of {model} lack {len(missing)} tensors, the first of them {missing[0]}: the file is not "
            f"whole or belongs to another architecture; copy or download it again"
        )
    if getattr(loaded, "pooler", None) is not None:
        loaded.pooler = None  # not used for the features, and often untrained
    return Backbone(loaded, _name(model), tokenizer.backend_tokenizer.to_str().encode(), pooling)


def _name(model: str) -> str:
    path = Path(model).resolve()
    if not path.exists():
        return model
    # Packages keep their weights in a folder called "model", which says nothing.
    return path.parent.name if path.name == "model" else path.name


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


def _or_backbone_error(model: str, load: Any, source: dict[str, Any]) -> Any:
    try:
        return load(**source)
    except Exception as error:
        reason = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        raise BackboneError(
            f"the model {model} cannot be loaded ({reason}): expected a folder with config.json, weights and "
            f"tokenizer, a .gguf file, or the id of a model on the hub"
        ) from error


def _sizes(config: PreTrainedConfig, model: PreTrainedModel) -> BackboneSizes:
    normalized = NormalizedConfigManager.get_normalized_config_class(config.model_type)(config)
    heads = int(normalized.num_attention_heads)
    return BackboneSizes(
        embedding=int(model.get_input_embeddings().weight.shape[1]),
        hidden=int(normalized.hidden_size),
        layers=int(normalized.num_layers),
        kv_heads=int(getattr(config, "num_key_value_heads", None) or heads),
        head_dim=int(getattr(config, "head_dim", None) or normalized.hidden_size // heads),
    )
