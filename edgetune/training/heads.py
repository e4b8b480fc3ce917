"""What a task's linear head begins as: label words, another task's head, or small random numbers."""

from __future__ import annotations

import torch
from torch import nn

from edgetune.training import verbalizer
from edgetune.training.objectives import Scale, objective_of
from edgetune.training.options import LabelWords
from edgetune_export.backbone import Backbone
from edgetune_runtime import contract
from edgetune_runtime.arrays import Array
from edgetune_runtime.task import Task


def begin(
    backbone: Backbone, draft: Task, targets: Array, label_words: LabelWords | None, origin: Task | None, scale: Scale
) -> nn.Linear:
    """A new head.

    Args:
        backbone: the frozen backbone.
        draft: the task but for what it will learn.
        targets: the training rows' targets as numbers.
        label_words: label → words whose rows of the vocabulary it begins as.
        origin: else a task whose head it begins as, if its kind, labels and pooling are the same.
        scale: of the head's outputs, which a task file has multiplied in.

    Shape:
        targets: [rows, numbers]
    """
    head = nn.Linear(backbone.sizes.hidden, len(draft.labels))
    nn.init.normal_(head.weight, std=0.02)
    nn.init.zeros_(head.bias)
    with torch.no_grad():
        bias = objective_of(draft.kind).bias
        if bias is not None:
            head.bias.copy_(torch.from_numpy(bias(targets)))
        if label_words is not None:
            weight, words_bias = verbalizer.head(backbone, label_words, draft.labels)
            head.weight.copy_(weight)
            head.bias.copy_(words_bias)
        elif origin is not None and _same_head(origin, draft):
            head.weight.copy_(torch.from_numpy(origin.tensors[contract.HEAD_WEIGHT]) / scale.factor)
            head.bias.copy_((torch.from_numpy(origin.tensors[contract.HEAD_BIAS]) - scale.shift) / scale.factor)
    return head


def _same_head(one: Task, other: Task) -> bool:
    return (one.kind_name, one.labels, one.pooling) == (other.kind_name, other.labels, other.pooling)
