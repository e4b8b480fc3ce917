"""A checkpoint's own head: the layers behind the backbone by which a sequence classifier of transformers answers.

The last of them is linear and becomes a task's head. Those before it, if there are any, become a transform of the
graph, as the pooler is one. A new architecture is a row in `READINGS`.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from transformers import AutoModelForSequenceClassification, PreTrainedConfig, PreTrainedModel

from edgetune_export.checkpoint import Checkpoint, find_checkpoint
from edgetune_export.families import CLASSIFIES_THROUGH_POOLER, FAMILIES
from edgetune_export.quiet import quiet
from edgetune_runtime.arrays import Array
from edgetune_runtime.errors import BackboneError
from edgetune_runtime.kinds import Kind
from edgetune_runtime.kinds.multi_label import MULTI_LABEL
from edgetune_runtime.kinds.score import LABEL, SCORE
from edgetune_runtime.kinds.single_label import SINGLE_LABEL
from edgetune_runtime.text import Tokens

_CLASS = "ForSequenceClassification"


@dataclass(frozen=True)
class OwnHead:
    """What a checkpoint answers by itself.

    Attributes:
        weight, bias: the last layer. Shape: [labels, hidden], [labels].
        config: the checkpoint's.
        pooling: where features are read, one of `contract.POOLINGS`.
        layers: what features pass through first, if the backbone has no such layers already.
    """

    weight: Tensor
    bias: Tensor
    config: PreTrainedConfig
    pooling: str
    layers: nn.Module | None = None

    def answers(self) -> tuple[Kind, tuple[str, ...]]:
        """What an answer is, and the names of the labels.

        Raises:
            BackboneError: no kind of answer has such a head.
        """
        kind = _kind(self.config, len(self.weight))
        if kind is SCORE:
            return kind, (LABEL,)
        names = tuple(str(self.config.id2label[place]) for place in range(len(self.weight)))
        if len(set(names)) < len(names):
            raise BackboneError("the classifier's config.json calls two labels alike in id2label: name each its own")
        return kind, names


@dataclass(frozen=True)
class Reading:
    """How the sequence classifiers of an architecture read features.

    Attributes:
        last: path of the last layer in the model.
        pooling: where features are read.
        layers: the layers before the last one; `None` if there are none, or the backbone has them.
    """

    last: str
    pooling: Callable[[PreTrainedConfig], str]
    layers: Callable[[Any], nn.Module] | None = None


class _AtFirstToken(nn.Module):
    """Layers that read the first token of a sequence; if they are a whole head, without its last layer."""

    def __init__(self, head: nn.Module, last: str | None = None) -> None:
        super().__init__()
        self.head = head
        if last is not None:
            setattr(head, last, nn.Identity())

    def forward(self, features: Tensor) -> Tensor:
        """Shape: [batch, spans, hidden], both ways."""
        read: Tensor = self.head(features.flatten(0, 1)[:, None])
        return read.reshape(features.shape)


_BY_HEAD = Reading(
    "classifier.out_proj", lambda _: "classifier", lambda model: _AtFirstToken(model.classifier, "out_proj")
)
_BY_POOLER = Reading("classifier", lambda _: "classifier", lambda model: _AtFirstToken(model.base_model.pooler))
_AT_LAST_TOKEN = Reading("score", lambda _: "last")
_POOLED = Reading("classifier", lambda _: "pooler")

READINGS: dict[str, Reading] = {
    # ModernBERT's decoder has more layers than the last at its last token.
    **{name: _AT_LAST_TOKEN for name, own in FAMILIES.items() if own.causal and name != "modernbert-decoder"},
    **dict.fromkeys(CLASSIFIES_THROUGH_POOLER, _POOLED),
    **dict.fromkeys(
        (
            *("camembert", "data2vec-text", "electra", "jina_embeddings_v3", "mpnet", "roberta"),
            *("roberta-prelayernorm", "xlm-roberta", "xlm-roberta-xl"),
        ),
        _BY_HEAD,
    ),
    **dict.fromkeys(("ernie", "gte", "layoutlm", "megatron-bert", "nomic_bert", "rembert"), _BY_POOLER),
    "deberta-v2": Reading("classifier", lambda _: "classifier", lambda model: _AtFirstToken(model.pooler)),
    "distilbert": Reading(
        "classifier", lambda _: "classifier", lambda model: nn.Sequential(model.pre_classifier, nn.ReLU())
    ),
    "modernbert": Reading(
        "classifier",
        lambda config: "classifier" if config.classifier_pooling == "cls" else "classifier_mean",
        lambda model: model.head,
    ),
}
"""Architecture → how its sequence classifiers read features."""


def has_own_head(config: PreTrainedConfig, unused: Collection[str]) -> bool:
    """Whether a checkpoint is a sequence classifier whose head a task can have.

    Args:
        config: its configuration.
        unused: names of its tensors that the backbone does not use.
    """
    reading = READINGS.get(config.model_type)
    classifies = any(str(name).endswith(_CLASS) for name in config.architectures or ())
    return reading is not None and classifies and f"{reading.last}.weight" in unused


def read_own_head(config: PreTrainedConfig, model: PreTrainedModel) -> OwnHead:
    """The head of a sequence classifier; takes the model apart."""
    reading = READINGS[config.model_type]
    last = model.get_submodule(reading.last)
    weight: Tensor = last.weight.detach().float()
    bias = weight.new_zeros(len(weight)) if last.bias is None else last.bias.detach().float()
    layers = None if reading.layers is None else reading.layers(model)
    return OwnHead(weight, bias, config, reading.pooling(config), layers)


def classifier_logits(model: str, rows: Sequence[Tokens]) -> Array:
    """What a sequence classifier of transformers answers, text by text.

    Shape:
        output: [rows, labels]
    """
    with quiet(), torch.no_grad():
        classifier = load_classifier(find_checkpoint(model))
        segments = getattr(classifier.config, "type_vocab_size", 0) > 1
        found = []
        for row in rows:
            given = {"input_ids": [row.ids], "attention_mask": [[1] * len(row.ids)]}
            given |= {"token_type_ids": [row.type_ids]} if segments else {}
            found.append(classifier(**{name: torch.tensor(value) for name, value in given.items()}).logits[0].numpy())
    return np.stack(found)


def load_classifier(checkpoint: Checkpoint) -> PreTrainedModel:
    """A sequence classifier in fp32, as transformers computes it."""
    model: PreTrainedModel = AutoModelForSequenceClassification.from_pretrained(
        **checkpoint.source, trust_remote_code=False, dtype=torch.float32, attn_implementation="eager"
    )
    return model.eval()


def _kind(config: PreTrainedConfig, labels: int) -> Kind:
    """What an answer is, as transformers sees it."""
    problem = config.problem_type or ("regression" if labels == 1 else "single_label_classification")
    kinds: dict[str, Kind] = {
        "single_label_classification": SINGLE_LABEL,
        "multi_label_classification": MULTI_LABEL,
        "regression": SCORE,
    }
    kind = kinds[problem]
    fewest, most = kind.labels
    if not fewest <= labels <= most:
        raise BackboneError(
            f"the classifier has a head of {labels} outputs and problem_type {problem}: expected {fewest}"
            f"{'' if most == fewest else f' to {most:,}'} for the kind '{kind.name}'"
        )
    return kind
