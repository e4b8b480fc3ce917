"""Models with weights that are large enough to stay in half precision, and their rows."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import safetensors.torch
import torch
from conftest import save_tokenizer
from transformers import AutoConfig

from edgetune_export.loading import language_model_class

LARGE = 1 << 16
"""Minimum size in bytes of a large weight in these models; more than the constants that PyTorch's exporter folds."""

ARCHITECTURES = ("bert", "deberta-v2", "gpt2", "llama", "t5")

_OWN: dict[str, dict[str, Any]] = {
    "deberta-v2": {
        **{"relative_attention": True, "position_buckets": 64, "norm_rel_ebd": "layer_norm", "share_att_key": True},
        **{"pos_att_type": ["p2c", "c2p"], "position_biased_input": False},
    },
    "distilbert": {"dim": 128, "n_layers": 2, "n_heads": 4, "hidden_dim": 256},
    "gpt2": {"n_positions": 64},
    "llama": {"num_key_value_heads": 2},
    "t5": {"num_layers": 2, "num_decoder_layers": 1, "d_kv": 32, "d_ff": 256, "decoder_start_token_id": 0},
}


def save_in_bf16(folder: Path, architecture: str) -> None:
    """Save a model of random weights in bf16, with a tokenizer."""
    vocabulary = save_tokenizer(folder)
    torch.manual_seed(0)
    sizes = {"num_hidden_layers": 2, "num_attention_heads": 4, "hidden_size": 128, "intermediate_size": 256}
    own = {**sizes, "max_position_embeddings": 64, **_OWN.get(architecture, {})}
    config = AutoConfig.for_model(
        architecture, **own, vocab_size=vocabulary, pad_token_id=0, bos_token_id=2, eos_token_id=3
    )
    model = language_model_class(architecture).from_config(config)
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter, std=0.2)
    model.bfloat16().save_pretrained(folder)


def stored_as(folder: Path, dtype: torch.dtype, copy: Path) -> Path:
    """A copy of a model with its numbers in another dtype."""
    shutil.copytree(folder, copy)
    tensors = safetensors.torch.load_file(copy / "model.safetensors")
    stored = {name: tensor.to(dtype) if tensor.is_floating_point() else tensor for name, tensor in tensors.items()}
    safetensors.torch.save_file(stored, copy / "model.safetensors", {"format": "pt"})
    return copy
