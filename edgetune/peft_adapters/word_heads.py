"""Heads of token classifiers: a layer that gives logits of every token, whose rows are tags, and a task's head."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor

from edgetune_export.backbone import Backbone
from edgetune_export.own_head import last_layer
from edgetune_runtime.errors import DataError, TaskError
from edgetune_runtime.kinds.tokens import rows_of_tags

POOLING = "cls"
"""Tags are learned and read at a word's first token, as transformers' guides do."""


def module_of(backbone: Backbone, origin: str) -> str:
    """What transformers calls the last layer of a token classifier on this backbone.

    Raises:
        TaskError: there is no such classifier, or it has layers beside a linear one.
    """
    found = last_layer(backbone.config)
    if found is None:
        raise TaskError(
            f"{origin} is a token classifier: on {backbone.architecture} it has none, or one with layers that are not "
            f"linear, and a task's head is linear; train it again with 'edgetune train'"
        )
    return found


def read(tags: Sequence[str], weight: Tensor, bias: Tensor, origin: str) -> tuple[tuple[str, ...], Tensor, Tensor]:
    """Labels, and weight and bias with their rows in the order of a task's head.

    Args:
        tags: what the rows are called.
        weight, bias: of the token classifier.
        origin: what to call it in an error.

    Raises:
        DataError: they are not `O`, and `B-` and `I-` of each label.
    """
    try:
        labels, rows = rows_of_tags(tags)
    except ValueError as error:
        raise DataError(f"{origin} has {error}; name them in the order of its outputs with `labels`") from error
    return labels, weight[rows], bias[rows]


def write(backbone: Backbone, origin: str, weight: Tensor, bias: Tensor, inside: str) -> dict[str, Tensor]:
    """A task's head as a token classifier's; `inside` is what PEFT's names begin with.

    Raises:
        TaskError: see `module_of`.
    """
    module = module_of(backbone, origin)
    return {f"{inside}{module}.weight": weight, f"{inside}{module}.bias": bias}
