"""Initial values of a task's head: label words, another task's head, or a head fitted to the first features."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn

from edgetune.training import verbalizer
from edgetune.training.objectives import Scale
from edgetune.training.options import LabelWords
from edgetune.training.tuner import PromptTuner
from edgetune_export.backbone import Backbone
from edgetune_runtime import contract
from edgetune_runtime.arrays import Array
from edgetune_runtime.fitting.by_kind import fitting_of
from edgetune_runtime.fitting.head import USUAL_STRENGTH
from edgetune_runtime.fitting.linear import Head
from edgetune_runtime.task import Task


def new(backbone: Backbone, draft: Task) -> nn.Linear:
    """A head of zeros."""
    head = nn.Linear(backbone.sizes.hidden, draft.head_rows)
    nn.init.zeros_(head.weight)
    nn.init.zeros_(head.bias)
    return head


def begin_as_told(
    head: nn.Linear, backbone: Backbone, draft: Task, words: LabelWords | None, origin: Task | None, scale: Scale
) -> bool:
    """Initialize a head from label words, or from another task's head with the same kind, labels and pooling.

    Args:
        head: the head to change.
        backbone: the frozen backbone.
        draft: the task without its trained parts.
        words: label → words whose rows of the vocabulary are the initial values.
        origin: a task whose head is the initial value, if there are no words.
        scale: scale of the head's outputs, which is multiplied in in a task file.

    Returns:
        Whether there were label words, or such a task.
    """
    if words is not None:
        weight, bias = verbalizer.head(backbone, words, draft.labels)
        _set(head, Head(weight.detach().numpy(), bias.detach().numpy()), Scale())
    elif origin is not None and _same_head(origin, draft):
        _set(head, Head(origin.tensors[contract.HEAD_WEIGHT], origin.tensors[contract.HEAD_BIAS]), scale)
    else:
        return False
    return True


def begin_fitted(
    tuner: PromptTuner, place: int, draft: Task, features: Array, targets: Array, weights: Array | None
) -> None:
    """Initialize a head with the linear model that `edgetune fit` would fit.

    With random initial values, the epochs of a small data set would be spent on reaching this point.

    Args:
        tuner: the tuner with the heads.
        place: index of the task.
        draft: the task without its trained parts.
        features: features of training rows, with the initial prompt.
        targets: their targets as numbers.
        weights: weight of each row; `None` if all count the same.

    Shape:
        features: [rows, hidden]
        targets: [rows, numbers]
        weights: [rows]
    """
    (found,) = fitting_of(draft.kind).head(features, targets, draft.head_rows, (USUAL_STRENGTH,), weights)
    _set(tuner.heads[place], found, tuner.scales[place])


def _set(head: Any, values: Head, scale: Scale) -> None:
    with torch.no_grad():
        head.weight.copy_(torch.as_tensor(values.weight) / scale.factor)
        head.bias.copy_((torch.as_tensor(values.bias) - scale.shift) / scale.factor)


def _same_head(one: Task, other: Task) -> bool:
    return (one.kind_name, one.labels, one.pooling) == (other.kind_name, other.labels, other.pooling)
