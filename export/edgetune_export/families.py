"""What differs between kinds of backbone, as data."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass


@dataclass(frozen=True)
class Family:
    """A kind of backbone.

    Attributes:
        poolings: where a text's features can be read, some of `contract.POOLINGS`; the first is the usual one.
        causal: whether a token sees only those before it, so that a text's positions follow its prompt's, and
            a soft prompt can be stored as the keys and values that it leads to. Tried when a model is loaded.
        language_model: the task, in optimum's terms, whose model class has the family's vocabulary head.
    """

    poolings: tuple[str, ...]
    causal: bool
    language_model: str

    @property
    def bidirectional(self) -> Family:
        """The same of a model whose tokens see all others (EmbeddingGemma): an encoder."""
        return dataclasses.replace(self, poolings=_ENCODER.poolings, causal=False)


_ENCODER = Family(poolings=("mean", "cls", "last"), causal=False, language_model="fill-mask")
_DECODER = Family(poolings=("last", "mean", "cls"), causal=True, language_model="text-generation")
_ENCODER_DECODER = Family(poolings=("decoder",), causal=False, language_model="text2text-generation")

FAMILIES: dict[str, Family] = {
    **dict.fromkeys(
        ("albert", "bert", "camembert", "distilbert", "electra", "modernbert", "roberta", "xlm-roberta"), _ENCODER
    ),
    **dict.fromkeys(("gemma3_text", "gpt2", "gpt_neox", "llama", "opt", "qwen2", "qwen3"), _DECODER),
    **dict.fromkeys(("bart", "mt5", "t5"), _ENCODER_DECODER),
}
"""`model_type` → its family: the architectures whose exported graph is tested against PyTorch."""


CLASSIFIES_THROUGH_POOLER = ("albert", "bert")
"""Architectures whose sequence classifiers read the first token through a layer of the pre-trained model's."""
