"""Heads of token classifiers: a layer that gives logits of every token, whose rows are tags, and a task's head."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from transformers import AutoModelForTokenClassification

from edgetune.peft_adapters.heads import MODULES
from edgetune_export.backbone import Backbone
from edgetune_export.quiet import quiet
from edgetune_runtime.errors import DataError, TaskError
from edgetune_runtime.kinds.tokens import tag_names

POOLING = "cls"
"""Tags are learned and read at a word's first token, as transformers' guides do."""


def module_of(backbone: Backbone, origin: str) -> str:
    """What transformers calls the last layer of a token classifier on this backbone.

    Raises:
        TaskError: there is no such classifier, or it has layers beside a linear one.
    """
    try:
        with quiet(), torch.device("meta"):
            model = AutoModelForTokenClassification.from_config(backbone.config)
    except ValueError as error:
        raise TaskError(
            f"{origin} is for words, and transformers has no token classifier of '{backbone.architecture}': expected "
            f"another model"
        ) from error
    own = {
        name: module
        for name, module in model.named_children()
        if name != model.base_model_prefix and any(True for _ in module.parameters())
    }
    if len(own) != 1 or not set(own) <= set(MODULES) or not isinstance(own[next(iter(own))], nn.Linear):
        raise TaskError(
            f"{origin} is a token classifier: on {backbone.architecture} it has layers of its own that are not linear, "
            f"and a task's head is linear; train it again with 'edgetune train'"
        )
    return next(iter(own))


def read(tags: Sequence[str], weight: Tensor, bias: Tensor, origin: str) -> tuple[tuple[str, ...], Tensor, Tensor]:
    """Labels, and weight and bias with their rows in the order of a task's head.

    Args:
        tags: what the rows are called.
        weight, bias: of the token classifier.
        origin: what to call it in an error.

    Raises:
        DataError: they are not `O`, and `B-` and `I-` of each label.
    """
    labels = tuple(dict.fromkeys(tag[2:] for tag in tags if tag.startswith(("B-", "I-")) and tag[2:]))
    wanted = tag_names(labels)
    if sorted(wanted) != sorted(tags) or not labels:
        raise DataError(
            f"{origin} has the tags {', '.join(tags)[:200]}: expected O, and B- and I- of each label; name them in the "
            f"order of its outputs with `labels`"
        )
    rows = torch.tensor([tags.index(tag) for tag in wanted])
    return labels, weight[rows], bias[rows]


def write(backbone: Backbone, origin: str, weight: Tensor, bias: Tensor, inside: str) -> dict[str, Tensor]:
    """A task's head as a token classifier's; `inside` is what PEFT's names begin with.

    Raises:
        TaskError: see `module_of`.
    """
    module = module_of(backbone, origin)
    return {f"{inside}{module}.weight": weight, f"{inside}{module}.bias": bias}
