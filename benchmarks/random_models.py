"""Models of random weights in common sizes, for measurements that depend only on sizes.

    python benchmarks/random_models.py NAME DTYPE FOLDER

prints the megabytes that the weights take in float32.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any


@dataclass(frozen=True)
class Model:
    """A model of random weights: its architecture, and the sizes that differ from the architecture's defaults."""

    architecture: str
    sizes: Mapping[str, Any]


MODELS = {
    "bert-base": Model("bert", {}),
    "bert-large": Model(
        "bert",
        {"hidden_size": 1024, "num_hidden_layers": 24, "num_attention_heads": 16, "intermediate_size": 4096},
    ),
    "qwen2-0.5b": Model(
        "qwen2",
        {
            "hidden_size": 896,
            "num_hidden_layers": 24,
            "num_attention_heads": 14,
            "num_key_value_heads": 2,
            "intermediate_size": 4864,
            "vocab_size": 151936,
            "tie_word_embeddings": True,
        },
    ),
    "llama-1.1b": Model(
        "llama",
        {
            "hidden_size": 2048,
            "num_hidden_layers": 22,
            "num_attention_heads": 32,
            "num_key_value_heads": 4,
            "intermediate_size": 5632,
            "vocab_size": 32000,
        },
    ),
    "deberta-v3-small": Model(
        "deberta-v2",
        {
            "hidden_size": 768,
            "num_hidden_layers": 6,
            "num_attention_heads": 12,
            "intermediate_size": 3072,
            "vocab_size": 128100,
            "type_vocab_size": 0,
            "relative_attention": True,
            "position_buckets": 256,
            "norm_rel_ebd": "layer_norm",
            "share_att_key": True,
            "pos_att_type": ["p2c", "c2p"],
            "position_biased_input": False,
        },
    ),
    "mpnet-base": Model("mpnet", {"vocab_size": 30527, "max_position_embeddings": 514}),
}
"""Name of the represented model → how to make it."""


def make(name: str, dtype: str, folder: Path) -> float:
    """Save a model with a tokenizer. Returns the size of its weights in float32, in megabytes."""
    import torch
    from tokenizers import Tokenizer, models, pre_tokenizers, processors
    from transformers import AutoConfig, PreTrainedTokenizerFast

    from edgetune_export.loading import language_model_class

    model = MODELS[name]
    config = AutoConfig.for_model(model.architecture, **model.sizes, pad_token_id=0, bos_token_id=1, eos_token_id=2)
    words = {word: place for place, word in enumerate(["[PAD]", "[CLS]", "[SEP]", "[UNK]", "good", "morning"])}
    words |= {f"[unused{place}]": place for place in range(len(words), config.vocab_size)}
    tokenizer = Tokenizer(models.WordLevel(words, unk_token="[UNK]"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    tokenizer.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]", special_tokens=[("[CLS]", 1), ("[SEP]", 2)]
    )
    PreTrainedTokenizerFast(tokenizer_object=tokenizer, pad_token="[PAD]", unk_token="[UNK]").save_pretrained(folder)
    torch.manual_seed(0)
    torch.set_default_dtype(getattr(torch, dtype))
    made = language_model_class(model.architecture).from_config(config)
    made.save_pretrained(folder)
    return sum(parameter.numel() for parameter in made.parameters()) * 4 / 1e6


if __name__ == "__main__":
    print(make(sys.argv[1], sys.argv[2], Path(sys.argv[3])))
