"""A checkpoint's own head: the layers after the backbone with which a transformers classifier answers.

The last of them is linear and becomes a task's head. The layers before it, if any, become a transform of the graph,
like the pooler. A new architecture is an entry in `READINGS`. Models that tag tokens or answer questions do not need an
entry: their head must be one linear layer on each token.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from transformers import (
    AutoModelForQuestionAnswering,
    AutoModelForSequenceClassification,
    AutoModelForTokenClassification,
    PreTrainedConfig,
    PreTrainedModel,
)

from edgetune_export.checkpoint import Checkpoint, find_checkpoint
from edgetune_export.families import CLASSIFIES_THROUGH_POOLER, FAMILIES
from edgetune_export.quiet import quiet
from edgetune_runtime import contract
from edgetune_runtime.arrays import Array
from edgetune_runtime.decoding import rows_of_tags
from edgetune_runtime.errors import BackboneError
from edgetune_runtime.kinds import Kind
from edgetune_runtime.kinds.multi_label import MULTI_LABEL
from edgetune_runtime.kinds.score import LABEL, SCORE
from edgetune_runtime.kinds.single_label import SINGLE_LABEL
from edgetune_runtime.kinds.spans import LABEL as ANSWER
from edgetune_runtime.kinds.spans import SPANS
from edgetune_runtime.kinds.tokens import TOKENS
from edgetune_runtime.text import Tokens


@dataclass(frozen=True)
class Classifiers:
    """transformers models with one type of answer.

    Attributes:
        suffix: suffix of their class names.
        auto: the class that loads them.
        last: possible names of their only layer, if it is on each token.
        pooling: the pooling of the head.
    """

    suffix: str
    auto: Any
    last: tuple[str, ...] = ()
    pooling: str = ""


OF_TEXTS = Classifiers("ForSequenceClassification", AutoModelForSequenceClassification)
OF_WORDS = Classifiers("ForTokenClassification", AutoModelForTokenClassification, ("classifier", "score"), "cls")
OF_ANSWERS = Classifiers("ForQuestionAnswering", AutoModelForQuestionAnswering, ("qa_outputs",), contract.ENDS)
"""Word tags are trained at the first token, as in transformers' guides; answers begin and end at any token."""


@dataclass(frozen=True)
class OwnHead:
    """The own head of a checkpoint.

    Attributes:
        weight, bias: the last layer. Shape: [labels, hidden], [labels].
        config: the checkpoint's configuration.
        pooling: the pooling for a task.
        layers: layers that features pass through first, unless the backbone already has them.
        of: the type of model.
    """

    weight: Tensor
    bias: Tensor
    config: PreTrainedConfig
    pooling: str
    layers: nn.Module | None = None
    of: Classifiers = OF_TEXTS

    @property
    def rows(self) -> list[int]:
        """The indices of its outputs, in the order of a task's head.

        Raises:
            BackboneError: they are tags that a task does not support.
        """
        return self._tags()[1] if self.of is OF_WORDS else list(range(len(self.weight)))

    def _tags(self) -> tuple[tuple[str, ...], list[int]]:
        try:
            return rows_of_tags([str(self.config.id2label[place]) for place in range(len(self.weight))])
        except ValueError as error:
            raise BackboneError(f"the token classifier's config.json names in id2label {error}") from error

    def answers(self) -> tuple[Kind, tuple[str, ...]]:
        """The kind of answer, and the names of the labels.

        Raises:
            BackboneError: no kind of answer has such a head.
        """
        if self.of is OF_WORDS:
            return TOKENS, self._tags()[0]
        if self.of is OF_ANSWERS:
            if len(self.weight) != SPANS.head_rows(1):
                raise BackboneError(
                    f"the model has a head of {len(self.weight)} outputs for answers to questions: expected two, where "
                    f"an answer begins and where it ends"
                )
            return SPANS, (ANSWER,)
        kind = _kind(self.config, len(self.weight))
        if kind is SCORE:
            return kind, (LABEL,)
        names = tuple(str(self.config.id2label[place]) for place in range(len(self.weight)))
        if len(set(names)) < len(names):
            raise BackboneError("the classifier's config.json calls two labels alike in id2label: name each its own")
        return kind, names


@dataclass(frozen=True)
class Reading:
    """How the classifiers of an architecture read features.

    Attributes:
        last: path of the last layer in the model.
        pooling: where features are read.
        layers: the layers before the last one; `None` if there are none, or if the backbone already has them.
        of: the type of model.
    """

    last: str
    pooling: Callable[[PreTrainedConfig], str]
    layers: Callable[[Any], nn.Module] | None = None
    of: Classifiers = OF_TEXTS


class _AtFirstToken(nn.Module):
    """Layers that read the first token of a sequence. If they are a whole head, its last layer is removed."""

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
    # ModernBERT's decoder has further layers before the last one, at its last token.
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


def last_layer(config: PreTrainedConfig, of: Classifiers = OF_WORDS) -> str | None:
    """The name of the only layer of an architecture's head; `None` if the head is not a single linear layer."""
    try:
        with quiet(), torch.device("meta"):
            model = of.auto.from_config(config)
    except ValueError:
        return None
    own = {
        name: module
        for name, module in model.named_children()
        if name != model.base_model_prefix and any(True for _ in module.parameters())
    }
    name, *others = own
    return name if not others and name in of.last and isinstance(own[name], nn.Linear) else None


def reading_of(config: PreTrainedConfig) -> Reading | None:
    """How a checkpoint's own head reads features; `None` if it has no known head."""
    named = [str(name) for name in config.architectures or ()]
    of = next(
        (one for one in (OF_TEXTS, OF_WORDS, OF_ANSWERS) if any(name.endswith(one.suffix) for name in named)), None
    )
    if of is None or of is OF_TEXTS:
        return READINGS.get(config.model_type) if of else None
    last = last_layer(config, of)
    return None if last is None else Reading(last, lambda _: of.pooling, of=of)


def has_own_head(config: PreTrainedConfig, unused: Collection[str]) -> bool:
    """Whether a checkpoint is a classifier whose head can become a task's head.

    Args:
        config: its configuration.
        unused: names of its tensors that the backbone does not use.
    """
    reading = reading_of(config)
    return reading is not None and f"{reading.last}.weight" in unused


def read_own_head(config: PreTrainedConfig, model: PreTrainedModel, reading: Reading) -> OwnHead:
    """The head of a classifier. The model is taken apart."""
    last = model.get_submodule(reading.last)
    weight: Tensor = last.weight.detach().float()
    bias = weight.new_zeros(len(weight)) if last.bias is None else last.bias.detach().float()
    layers = None if reading.layers is None else reading.layers(model)
    return OwnHead(weight, bias, config, reading.pooling(config), layers, reading.of)


def classifier_logits(model: str, rows: Sequence[Tokens], of: Classifiers = OF_TEXTS) -> list[Array]:
    """The logits of a transformers classifier, text by text.

    Args:
        model: the classifier.
        rows: the texts; each window of a text is a separate row.
        of: the type of model: tags are read at the first token of words, ends of answers at the first and last token.

    Shape:
        output: for each row [labels], [words, tags] or [words, 2]
    """
    with quiet(), torch.no_grad():
        classifier = load_classifier(find_checkpoint(model), of)
        segments = getattr(classifier.config, "type_vocab_size", 0) > 1
        found = []
        for row in rows:
            given = {"input_ids": [row.ids], "attention_mask": [[1] * len(row.ids)]}
            given |= {"token_type_ids": [row.type_ids]} if segments else {}
            output = classifier(**{name: torch.tensor(value) for name, value in given.items()})
            tokens = [begin for begin, _ in row.spans]
            if of is OF_ANSWERS:
                begins, ends = output.start_logits[0][tokens[::2]], output.end_logits[0][tokens[1::2]]
                found.append(torch.stack([begins, ends], dim=1).numpy())
            else:
                found.append(output.logits[0].numpy()[tokens if of is OF_WORDS else ...])
    return found


def load_classifier(checkpoint: Checkpoint, of: Classifiers = OF_TEXTS) -> PreTrainedModel:
    """Load a classifier in fp32, with transformers' own code."""
    model: PreTrainedModel = of.auto.from_pretrained(
        **checkpoint.source, trust_remote_code=False, dtype=torch.float32, attn_implementation="eager"
    )
    return model.eval()


def _kind(config: PreTrainedConfig, labels: int) -> Kind:
    """The kind of answer according to transformers."""
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
