"""Tasks without training: from label words, from descriptions of the labels, or from a fine-tuned classifier."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

import numpy as np
import torch

from edgetune.training import prompts, verbalizer
from edgetune.training.options import LabelWords
from edgetune_export.backbone import Backbone
from edgetune_export.loading import load_backbone
from edgetune_export.own_head import READINGS, classifier_logits
from edgetune_export.parity import CheckTexts, in_pairs, logits_by_text, torch_logits
from edgetune_runtime import contract, files
from edgetune_runtime.errors import BackboneError, DataError
from edgetune_runtime.fitting.describe import described, new_described
from edgetune_runtime.fitting.descriptions import Descriptions
from edgetune_runtime.fitting.draft import fitted_draft, new_draft, pooling_of, usual_stride
from edgetune_runtime.kinds import probabilities
from edgetune_runtime.kinds.multi_label import MULTI_LABEL
from edgetune_runtime.task import Task

_SAMPLES = ["good", "The parcel came late, and the lamp in it was broken.", "Where is my refund? " * 8]
"""Texts on which a converted head is compared with transformers."""


def create_task(
    backbone: Backbone,
    name: str,
    words: LabelWords,
    template: str = contract.TEXT_SLOT,
    prompt: str = "",
    max_length: int = contract.DEFAULT_MAX_LENGTH,
) -> Task:
    """A task from label words, which a language model answers without training.

    Args:
        backbone: the backbone of a language model.
        name: name of the task.
        words: label → words that the model would predict for it.
        template: the text around each text; a masked language model answers at `{mask}`.
        prompt: words before each text, stored as embeddings or as their prefix.
        max_length: maximum number of tokens per text, including the template.

    Raises:
        BackboneError: the backbone's weights have no vocabulary.
        DataError: the words or the prompt do not fit the backbone.
        TaskError: the template lacks a slot, or leaves no room for text.
    """
    labels = tuple(words)
    verbalizer.check_mask(backbone, template, None)
    pooling = pooling_of(backbone.facts, template, None, pairs=False)
    weight, bias = verbalizer.head(backbone, words, labels)
    encoder = backbone.text_encoder
    ids = encoder.ids(prompt)
    if len(ids) >= backbone.max_positions:
        raise DataError(f"the prompt has {len(ids)} tokens: {backbone.name} reads {backbone.max_positions}")
    tensors = {
        contract.PROMPT_EMBEDDINGS: backbone.embed(torch.tensor(ids, dtype=torch.int64)),
        contract.HEAD_WEIGHT: weight,
        contract.HEAD_BIAS: bias,
    }
    task = Task(
        name=files.check_task_name(name),
        labels=labels,
        backbone_sha256=backbone.facts.sha256,
        tensors={name: tensor.detach().numpy() for name, tensor in tensors.items()},
        method="handwritten",
        base_model=backbone.name,
        pooling=pooling,
        position_offset=backbone.position_offset(len(ids)),
        template=template,
        max_length=max_length,
    )
    task = encoder.fitted(task)
    return dataclasses.replace(task, tensors=prompts.stored(backbone, tensors, task.max_length))


def describe_task(
    backbone: Backbone,
    name: str,
    descriptions: Descriptions,
    template: str = contract.TEXT_SLOT,
    max_length: int = contract.DEFAULT_MAX_LENGTH,
    texts: Sequence[str] = (),
) -> Task:
    """A task from label descriptions; see `edgetune_runtime.fitting.describe`.

    Args:
        backbone: any backbone; one that was trained for sentence embeddings works best.
        name: name of the task.
        descriptions: label → descriptions of it.
        template: the text around each text and description.
        max_length: maximum number of tokens per text, including the template.
        texts: unlabelled texts; the task is adjusted so that all labels are equally likely on them.

    Raises:
        DataError: a label has no description, or there are fewer than two labels.
        TaskError: the template lacks a slot, or leaves no room for text.
    """
    draft = new_described(backbone.facts, backbone.text_encoder, name, descriptions, template, max_length)
    width = backbone.sizes.hidden
    head = {contract.HEAD_WEIGHT: np.eye(width, dtype=np.float32), contract.HEAD_BIAS: np.zeros(width, np.float32)}
    as_they_are = dataclasses.replace(draft, tensors=head, labels=tuple(map(str, range(width))))
    return described(draft, descriptions, lambda given: torch_logits(backbone, as_they_are, given), texts)


def head_task(
    model: str, name: str, template: str = contract.TEXT_SLOT, max_length: int | None = None, pairs: bool = False
) -> Task:
    """The task of a fine-tuned transformers model, with its own head.

    The model classifies texts or words, or answers questions.

    Its logits are compared with those of transformers.

    Args:
        model: the classifier: a local folder or a hub id.
        name: name of the task.
        template: the text around each text.
        max_length: maximum number of tokens per text; `None` is the model's maximum.
        pairs: whether the task takes pairs of texts, as cross-encoders do.

    Raises:
        BackboneError: the model has no such head, or one that edgetune does not support.
        TaskError: the template lacks a slot, or leaves no room for text.
    """
    backbone = load_backbone(model, with_head=True)
    head = backbone.own_head
    if head is None and backbone.architecture not in READINGS:
        raise BackboneError(
            f"how classifiers of '{backbone.architecture}' read features is not known, so {model} cannot be made a "
            f"task: train one"
        )
    if head is None:
        named = ", ".join(backbone.config.architectures or ()) or "nothing"
        raise BackboneError(
            f"{model} has no head to make a task of: its config.json names {named} under 'architectures', expected a "
            f"fine-tuned …ForSequenceClassification, or a …ForTokenClassification or …ForQuestionAnswering of one "
            f"linear layer"
        )
    kind, labels = head.answers()
    pairs = pairs or (kind.reading is not None and kind.reading.second)
    length = min(max_length or backbone.max_positions, backbone.max_positions)
    draft = new_draft(
        backbone.facts,
        backbone.text_encoder,
        name=files.check_task_name(name),
        labels=labels,
        kind=kind,
        pairs=pairs,
        pooling=contract.reads(head.pooling)[0],
        template=template,
        max_length=length,
        stride=usual_stride(length),
        method="classifier",
    )
    draft = fitted_draft(backbone.text_encoder, dataclasses.replace(draft, pooling=head.pooling))
    rows = head.rows
    tensors = {contract.HEAD_WEIGHT: head.weight.numpy()[rows], contract.HEAD_BIAS: head.bias.numpy()[rows]}
    thresholds = (0.5,) * len(labels) if kind is MULTI_LABEL else ()
    task = dataclasses.replace(draft, tensors=tensors, thresholds=thresholds)
    check = in_pairs(CheckTexts(_SAMPLES)) if pairs else CheckTexts(_SAMPLES)
    tokens = backbone.text_encoder.encode(check.texts, [task] * len(check.texts))
    windows = [window for row in tokens for window in row.windows]
    expected = np.concatenate(classifier_logits(model, windows, head.of), axis=None)
    own, _ = logits_by_text(backbone, task, check.texts)
    got = np.concatenate([logits[..., np.argsort(rows)] for logits in own], axis=None)
    if not np.allclose(got, expected, rtol=1e-3, atol=1e-3):
        raise BackboneError(
            f"the head of {model} answers {np.abs(got - expected).max():.3g} off what transformers computes: it reads "
            f"features in a way that edgetune does not know; train a task instead"
        )
    return task


def calibrated(backbone: Backbone, task: Task, texts: Sequence[str]) -> Task:
    """The task with biases that make its labels equally likely on unlabelled texts.

    Contextual calibration (Zhao et al. 2021), estimated on real texts instead of empty ones (Zhou et al. 2024):
    it removes a language model's preference for some words regardless of the text. This is right if the labels are
    about equally frequent.

    Raises:
        DataError: there are no texts.
    """
    if not texts:
        raise DataError("there are no texts to calibrate on: expected at least one")
    prior = probabilities(torch_logits(backbone, task, texts), 1.0).mean(axis=0)
    bias = task.tensors[contract.HEAD_BIAS] - np.log(np.maximum(prior, 1e-12)).astype(np.float32)
    return dataclasses.replace(task, tensors={**task.tensors, contract.HEAD_BIAS: bias})
