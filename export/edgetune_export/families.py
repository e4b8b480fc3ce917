"""Differences between families of backbones, as data."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass


@dataclass(frozen=True)
class Family:
    """A family of backbones.

    Attributes:
        poolings: the available `contract.POOLINGS`; the first is the default.
        causal: whether a token sees only earlier tokens, so that a text's positions follow those of its prompt, and a
            soft prompt can be stored as its keys and values. Checked when a model is loaded.
        language_model: the task, in optimum's terms, whose model class has the family's vocabulary head.
    """

    poolings: tuple[str, ...]
    causal: bool
    language_model: str

    @property
    def bidirectional(self) -> Family:
        """The same for a model whose tokens see all others (EmbeddingGemma): an encoder."""
        return dataclasses.replace(self, poolings=_ENCODER.poolings, causal=False)


_ENCODER = Family(poolings=("mean", "cls", "last"), causal=False, language_model="fill-mask")
_DECODER = Family(poolings=("last", "mean", "cls"), causal=True, language_model="text-generation")
_ENCODER_DECODER = Family(poolings=("decoder",), causal=False, language_model="text2text-generation")

FAMILIES: dict[str, Family] = {
    **dict.fromkeys(
        (
            *("albert", "bert", "camembert", "data2vec-text", "deberta-v2", "distilbert", "electra", "ernie"),
            *("eurobert", "gte", "jina_embeddings_v3", "layoutlm", "megatron-bert", "modernbert", "mpnet"),
            *("nomic_bert", "rembert", "roberta", "roberta-prelayernorm", "ultrabert", "xlm-roberta"),
            *("xlm-roberta-xl",),
        ),
        _ENCODER,
    ),
    **dict.fromkeys(
        (
            *("apertus", "arcee", "biogpt", "bitnet", "cohere", "cohere2", "cwm", "ernie4_5", "exaone4", "gemma"),
            *("gemma2", "gemma3_text", "glm", "glm4", "gpt2", "gpt_bigcode", "gpt_neox", "granite", "granite_swa"),
            *("helium", "hunyuan_v1_dense", "hyperclovax", "internlm3", "iquestcoder", "jais2", "llama", "ministral"),
            *("ministral3", "mistral", "modernbert-decoder", "nanochat", "nemotron", "olmo", "olmo2", "olmo3", "opt"),
            *("persimmon", "phi", "phi3", "qwen2", "qwen3", "seed_oss", "smollm3", "stablelm", "starcoder2"),
            *("vaultgemma", "youtu"),
        ),
        _DECODER,
    ),
    **dict.fromkeys(
        ("bart", "blenderbot", "blenderbot-small", "marian", "mbart", "mt5", "pegasus", "plbart", "t5", "umt5"),
        _ENCODER_DECODER,
    ),
}
"""`model_type` → its family. These architectures are tested against transformers, and with their graph."""

CLASSIFIES_THROUGH_POOLER = ("albert", "bert")
"""Architectures whose sequence classifiers read the first token through a layer of the pre-trained model."""
