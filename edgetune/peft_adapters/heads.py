"""Convert between the heads of sequence classifiers in PEFT's adapters and the heads of tasks."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from edgetune.peft_adapters.files import Adapter
from edgetune_export.backbone import Backbone
from edgetune_export.families import CLASSIFIES_THROUGH_POOLER
from edgetune_runtime.errors import DataError, TaskError
from edgetune_runtime.kinds import Kind
from edgetune_runtime.kinds.multi_label import MULTI_LABEL
from edgetune_runtime.kinds.score import SCORE
from edgetune_runtime.kinds.single_label import SINGLE_LABEL
from edgetune_runtime.task import Task

FILE = "head.safetensors"
"""The file that edgetune adds if PEFT's model has no place for a task's head: `weight` and `bias`."""

MODULES = ("score", "classifier", "qa_outputs")
"""Names in transformers of a classifier's head."""

PROBLEM_TYPES = {
    "single_label_classification": SINGLE_LABEL,
    "multi_label_classification": MULTI_LABEL,
    "regression": SCORE,
}
"""`problem_type` in transformers → the kind of answer. It is in the model's config, because PEFT's config has no field
for it."""


def usual_kind(outputs: int) -> Kind:
    """The kind that transformers assumes for this number of outputs if the config has no `problem_type`."""
    return SCORE if outputs == 1 else SINGLE_LABEL


def problem_type(task: Task) -> str:
    """The `problem_type` of a task's kind of answer in transformers; empty if there is none."""
    return next((name for name, kind in PROBLEM_TYPES.items() if kind is task.kind), "")


def classifier_pooling(backbone: Backbone) -> str | None:
    """The pooling of PEFT's sequence classifiers; `None` if their head is not linear."""
    if backbone.family.causal:
        return "last"
    return "pooler" if "pooler" in backbone.poolings else None


def pooling_of_classifier(backbone: Backbone, adapter: Adapter) -> str:
    """The same for an adapter.

    Raises:
        TaskError: its head is not linear, or the backbone's weights lack the layer before it.
    """
    found = classifier_pooling(backbone)
    if found is None and backbone.architecture in CLASSIFIES_THROUGH_POOLER:
        raise TaskError(
            f"{adapter.origin} is a sequence classifier, which reads {backbone.architecture} through its pooler, and "
            f"the weights of {backbone.name} have none: give the whole pre-trained model as `backbone`"
        )
    if found is None:
        raise TaskError(
            f"{adapter.origin} is a sequence classifier: on {backbone.architecture} its head has a layer of its own "
            f"that is not linear, and a task's head is linear; train it again with 'edgetune train'"
        )
    return found


def names(inside: str) -> list[str]:
    """PEFT's names of a head's tensors; `inside` is their prefix."""
    return [f"{inside}{module}.{part}" for module in MODULES for part in ("weight", "bias")]


def read(adapter: Adapter, inside: str) -> tuple[Tensor, Tensor]:
    """A classifier's weight and bias; zeros if it has no bias.

    Shape:
        weight: [outputs, hidden]
        bias: [outputs]

    Raises:
        TaskError: the adapter has no head.
    """
    for module in MODULES:
        weight = adapter.tensors.get(f"{inside}{module}.weight")
        if weight is not None and weight.ndim == 2 and len(weight):
            return weight, adapter.tensors.get(f"{inside}{module}.bias", torch.zeros(len(weight)))
    raise TaskError(
        f"{adapter.origin} has no head among {', '.join(adapter.tensors)}: expected "
        f"{inside}{MODULES[0]}.weight; save it with PEFT again, the head with it"
    )


def check_outputs(adapter: Adapter, kind: Kind, outputs: int) -> None:
    """Raise `DataError` if a head with this number of outputs cannot give this kind of answer."""
    fewest, most = kind.labels
    if not fewest <= outputs <= most:
        expected = f"{fewest}" if fewest == most else f"{fewest} to {most:,}"
        raise DataError(
            f"{adapter.origin} has a head of {outputs} outputs: expected {expected} for the kind '{kind.name}'; name "
            f"another with `kind`"
        )


def labels_of(backbone: Backbone, count: int, labels: Sequence[str]) -> tuple[str, ...]:
    """Labels of a head's outputs: the given labels, otherwise the names in the model's config, otherwise numbers.

    Raises:
        DataError: the given labels are not `count` different ones.
    """
    if labels:
        if len(labels) != count or len(set(labels)) != count:
            raise DataError(
                f"`labels` names {', '.join(labels)}: expected {count} different names, one a row of the head"
            )
        return tuple(labels)
    numbers = tuple(str(place) for place in range(count))
    named = {int(place): str(label) for place, label in (backbone.config.id2label or {}).items()}
    if sorted(named) != list(range(count)) or len(set(named.values())) != count:
        return numbers
    known = tuple(named[place] for place in range(count))
    return numbers if known == tuple(f"LABEL_{number}" for number in numbers) else known


def write(backbone: Backbone, pooling: str, weight: Tensor, bias: Tensor, inside: str) -> dict[str, Tensor]:
    """A task's head as a sequence classifier's head; empty if PEFT's classifier has no place for it."""
    if pooling != classifier_pooling(backbone):
        return {}
    if pooling == "pooler":
        return {f"{inside}classifier.weight": weight, f"{inside}classifier.bias": bias}
    return {} if bias.any() else {f"{inside}score.weight": weight}
