"""Label words (verbalizers, Schick & Schütze 2021): the words that a language model would predict for each label.

A label's row of the head is the mean of its words' rows in the model's vocabulary, and a word's row is the mean of its
tokens' rows. So a label's logit is the mean of the model's logits for its words.
"""

from __future__ import annotations

import json
from collections.abc import Sequence

import torch
from torch import Tensor

from edgetune.training.options import LabelWords
from edgetune_export.backbone import Backbone
from edgetune_runtime.contract import MASK_SLOT
from edgetune_runtime.errors import BackboneError, DataError


def head(backbone: Backbone, words: LabelWords, labels: Sequence[str]) -> tuple[Tensor, Tensor]:
    """The head that computes the logits of label words from the backbone's features.

    Args:
        backbone: the backbone of a language model.
        words: label → its words.
        labels: the labels in the order of the head's rows; each has words.

    Shape:
        weight: [labels, hidden]
        bias: [labels]

    Raises:
        BackboneError: the backbone's weights have no vocabulary.
        DataError: a label has no words, or a word is unknown to the tokenizer.
    """
    if backbone.vocabulary is None:
        raise BackboneError(
            f"{backbone.name} has no language-model head, so it says no words: leave out `label_words`, or use the "
            f"weights of a language model"
        )
    if set(words) != set(labels):
        raise DataError(
            f"there are label words for {', '.join(sorted(words))}, but the labels are {', '.join(sorted(labels))}: "
            f"write `label_words` once for each"
        )
    # A word in a sentence begins with a space, which many tokenizers include in its first token.
    ids = {word: backbone.text_encoder.ids(f" {word}") for listed in words.values() for word in listed}
    unknown_id = _unknown_id(backbone)
    unknown = [word for word in ids if not ids[word] or unknown_id in ids[word]]
    if unknown:
        raise DataError(f"{backbone.name} has no token for the label words {', '.join(unknown)}: choose others")
    rows = {word: backbone.vocabulary.rows(found, backbone.sizes.hidden) for word, found in ids.items()}
    weights = [torch.stack([rows[word][0].mean(dim=0) for word in words[label]]).mean(dim=0) for label in labels]
    biases = [torch.stack([rows[word][1].mean() for word in words[label]]).mean() for label in labels]
    return torch.stack(weights), torch.stack(biases)


def check_mask(backbone: Backbone, template: str, pooling: str | None) -> None:
    """Raise `DataError` unless a masked language model reads its features at the mask, where it predicts words."""
    chosen = pooling or ("mask" if MASK_SLOT in template else backbone.poolings[0])
    if "mask" in backbone.poolings and chosen != "mask":
        raise DataError(
            f"the template {template!r} has no {MASK_SLOT}, which is where {backbone.name} says its label words: "
            f"write a `template` such as '{{text}} It was {MASK_SLOT}.'"
        )


def _unknown_id(backbone: Backbone) -> int | None:
    """The tokenizer's id for unknown tokens; `None` for byte-level tokenizers, which know everything."""
    model = json.loads(backbone.tokenizer_json)["model"]
    if model.get("unk_id") is not None:
        return int(model["unk_id"])
    vocabulary = model.get("vocab")
    return vocabulary.get(model.get("unk_token")) if isinstance(vocabulary, dict) else None
