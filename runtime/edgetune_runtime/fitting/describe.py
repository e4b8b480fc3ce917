"""A task without labelled texts: its head is made of the features of descriptions of the labels.

A text gets the label whose descriptions are closest to it by the cosine of their features, as in zero-shot
classification with sentence embeddings (Yin et al. 2019, "Benchmarking Zero-shot Text Classification"). Works best on
backbones that were trained for sentence embeddings.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping, Sequence

import numpy as np

from edgetune_runtime import contract, files
from edgetune_runtime.arrays import Array
from edgetune_runtime.errors import DataError
from edgetune_runtime.facts import BackboneFacts
from edgetune_runtime.fitting.draft import fitted_draft, new_draft
from edgetune_runtime.fitting.label_set import label_set
from edgetune_runtime.fitting.linear import Head, head_tensors
from edgetune_runtime.kinds import probabilities
from edgetune_runtime.kinds.single_label import SINGLE_LABEL
from edgetune_runtime.task import Task
from edgetune_runtime.text import TextEncoder

Descriptions = Mapping[str, Sequence[str]]
"""Label → what people would say that it is about."""

METHOD = "described"

TEMPLATES = ("{}", "This is about {}.", "This text is about {}.", "It has to do with {}.")
"""What a description stands in; its features are the mean over these."""

_SHARPNESS = 20.0
"""What cosines are multiplied by to become logits: sentence embeddings of related texts differ by some hundredths."""


def new_described(
    facts: BackboneFacts,
    encoder: TextEncoder,
    name: str,
    descriptions: Descriptions,
    template: str = contract.TEXT_SLOT,
    max_length: int = contract.DEFAULT_MAX_LENGTH,
) -> Task:
    """The draft of a described task, with one label per text. Raises what `Engine.describe` does."""
    if not isinstance(descriptions, Mapping):
        raise DataError(
            f"the descriptions are a {type(descriptions).__name__}: expected label → list of texts, such as "
            f"{{'billing': ['invoices', 'refunds']}}"
        )
    one = next((label for label, listed in descriptions.items() if isinstance(listed, str)), None)
    if one is not None:
        raise DataError(f"the description of '{one}' is one string: expected a list of texts, write [text]")
    if len(descriptions) < 2:
        raise DataError(f"descriptions of {len(descriptions)} labels came: expected those of at least two")
    labels = label_set([*descriptions], [], SINGLE_LABEL)
    draft = new_draft(
        facts, encoder, name=files.check_task_name(name), labels=labels, kind=SINGLE_LABEL, pairs=False,
        template=template, max_length=max_length, method=METHOD,
    )  # fmt: skip
    return fitted_draft(encoder, draft)


def described(
    draft: Task, descriptions: Descriptions, features: Callable[[Sequence[str]], Array], texts: Sequence[str] = ()
) -> Task:
    """The task, with a head made of descriptions.

    Args:
        draft: the task but for its head; its labels are those described, one per text.
        descriptions: for each label at least one.
        features: makes features of texts as the task reads them. Shape: [texts, hidden].
        texts: texts of which no label is known. If there are some, the mean of their features is what cosines are
            measured from, and then the labels are made equally likely on them (contextual calibration, Zhao et al.
            2021): right if they are about equally frequent.

    Raises:
        DataError: a label has no description, or an empty one.
    """
    empty = [label for label in draft.labels if not all(one.strip() for one in descriptions.get(label) or ("",))]
    if empty or set(descriptions) != set(draft.labels):
        raise DataError(
            f"there are descriptions for {', '.join(sorted(descriptions))}, and the labels are "
            f"{', '.join(draft.labels)}: expected at least one word for each"
        )
    lines = [template.format(one) for label in draft.labels for one in descriptions[label] for template in TEMPLATES]
    made = features(lines).astype(np.float64)
    found = iter(made)
    read = features(texts).astype(np.float64) if len(texts) else np.zeros((0, 0))
    middle = read.mean(axis=0) if len(read) else 0.0
    prototypes = []
    for label in draft.labels:
        own = np.stack([next(found) for _ in range(len(descriptions[label]) * len(TEMPLATES))]) - middle
        prototypes.append(_normed(_normed(own).mean(axis=0)))
    weight = np.stack(prototypes)
    length = float(np.linalg.norm(read - middle if len(read) else made, axis=1).mean())
    weight = (weight - weight.mean(axis=0)) * _SHARPNESS / max(length, 1e-9)
    head = Head(weight, -weight @ (middle + np.zeros(weight.shape[1])))
    if len(read):
        prior = probabilities(head.logits(read), 1.0).mean(axis=0)
        head = Head(head.weight, head.bias - np.log(np.maximum(prior, 1e-12)))
    return dataclasses.replace(draft, tensors={**draft.tensors, **head_tensors(head)})


def _normed(values: Array) -> Array:
    found: Array = values / np.maximum(np.linalg.norm(values, axis=-1, keepdims=True), 1e-12)
    return found
