"""Import a PEFT adapter as a task with the same logits."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from pathlib import PurePath

from edgetune.peft_adapters import files as peft
from edgetune.peft_adapters import heads, word_heads
from edgetune.peft_adapters.change import Change
from edgetune.peft_adapters.files import Adapter
from edgetune.peft_adapters.kinds import CHANGES
from edgetune.training import prompts, verbalizer
from edgetune.training.options import LabelWords
from edgetune_export.backbone import Backbone
from edgetune_runtime import contract, files
from edgetune_runtime.errors import DataError, TaskError
from edgetune_runtime.fitting.draft import new_draft, usual_stride
from edgetune_runtime.kinds import Kind
from edgetune_runtime.kinds.single_label import SINGLE_LABEL
from edgetune_runtime.kinds.spans import SPANS
from edgetune_runtime.task import Task

TASK_TYPES = {
    "text-generation": (peft.SEQ_CLS, peft.CAUSAL_LM),
    "fill-mask": (peft.FEATURE_EXTRACTION,),
    "text2text-generation": (peft.SEQ_2_SEQ_LM,),
}
"""Language model type of a family → PEFT's task types that classify with it."""


def import_task(
    backbone: Backbone,
    adapter: Adapter,
    name: str,
    labels: Sequence[str] = (),
    words: LabelWords | None = None,
    template: str = contract.TEXT_SLOT,
    max_length: int = contract.DEFAULT_MAX_LENGTH,
    peft_task: int | None = None,
    same_base: bool = False,
    kind: Kind | None = None,
) -> Task:
    """The task that gives the answers of PEFT's model with this adapter.

    Args:
        backbone: the model that the adapter was trained on.
        adapter: the adapter.
        name: name of the task.
        labels: names of a classifier's outputs, in order; tags for a token classifier. By default the names in the
            model's config, or numbers.
        words: label → words that a language model predicts for it.
        template: the text around each text; a masked language model answers at `{mask}`.
        max_length: maximum number of tokens per text, including the template.
        peft_task: the task of a multitask prompt to use.
        same_base: whether the backbone is the adapter's model although their names differ.
        kind: the kind of answer of a sequence classifier. `None` uses `problem_type` in the model's config or, without
            it, the default of transformers: a number for one output, otherwise one label.

    Raises:
        BackboneError: label words are given, but the backbone's weights have no vocabulary.
        DataError: labels, label words, kind or template do not fit the adapter or the backbone.
        TaskError: the adapter was made for another model, or cannot be converted exactly.
    """
    change = _change(backbone, adapter)
    if not same_base:
        _check_base(backbone, adapter)
    by_word = word_heads.KINDS.get(adapter.task_type)
    classifies = by_word is not None or adapter.task_type == peft.SEQ_CLS
    if classifies and words:
        what = "sequence classifier" if by_word is None else word_heads.NAMED[by_word]
        raise DataError(f"`words` for {adapter.origin}, a {what} with its own head: leave them out, and name `labels`")
    if by_word is not None:
        word_heads.module_of(backbone, adapter.origin, by_word)
        pooling: str | None = word_heads.POOLINGS[by_word]
    else:
        pooling = heads.pooling_of_classifier(backbone, adapter) if classifies else None
    if words:
        verbalizer.check_mask(backbone, template, pooling)
    draft = new_draft(
        backbone.facts,
        backbone.text_encoder,
        name=files.check_task_name(name),
        labels=(),
        kind=by_word or SINGLE_LABEL,
        pairs=by_word is SPANS,
        pooling=pooling and contract.reads(pooling)[0],
        template=template,
        max_length=max_length,
        stride=usual_stride(min(max_length, backbone.max_positions)),
        method=CHANGES[adapter.peft_type].method,
    )
    # For every model family, PEFT counts the virtual tokens as text.
    draft = dataclasses.replace(draft, pooling=pooling or draft.pooling, position_offset=change.length)
    change.check(backbone, draft)
    tensors = change.parts(backbone, peft_task)
    if by_word is not None:
        if kind not in (None, by_word) or (labels and by_word is SPANS):
            given = f"`labels` {', '.join(labels)}" if kind in (None, by_word) else f"`kind` {kind and kind.name}"
            raise DataError(f"{given} for {adapter.origin}, which is for {adapter.task_type}: leave it out")
        kind, (weight, bias) = by_word, heads.read(adapter, change.inside)
        named = heads.labels_of(backbone, len(weight), labels)
        found, weight, bias = word_heads.read(by_word, named, weight, bias, adapter.origin)
    elif classifies:
        weight, bias = heads.read(adapter, change.inside)
        told = heads.PROBLEM_TYPES.get(getattr(backbone.config, "problem_type", None) or "")
        kind = kind or told or heads.usual_kind(len(weight))
        heads.check_outputs(adapter, kind, len(weight))
        found = heads.labels_of(backbone, len(weight), labels or kind.labels_of(()))
    else:
        if kind not in (None, SINGLE_LABEL):
            raise DataError(
                f"`kind` {kind.name} for {adapter.origin}, a language model, which says one word: leave it out"
            )
        kind = SINGLE_LABEL
        if not words or labels:
            raise DataError(
                f"{adapter.origin} is for {adapter.task_type}, a language model without labels: say with "
                f"`words`, once for each label, which words stand for it"
            )
        found = tuple(words)
        weight, bias = verbalizer.head(backbone, words, found)
    _check_all_taken(adapter, change)
    tensors |= {contract.HEAD_WEIGHT: weight, contract.HEAD_BIAS: bias}
    arrays = {key: each.numpy() for key, each in tensors.items()}
    draft = dataclasses.replace(draft, labels=found, tensors=arrays, kind_name=kind.name)
    backbone.facts.check(draft)
    draft = backbone.text_encoder.fitted(draft)
    return dataclasses.replace(draft, tensors=prompts.stored(backbone, tensors, draft.max_length))


def _change(backbone: Backbone, adapter: Adapter) -> Change:
    if adapter.peft_type not in CHANGES:
        raise TaskError(
            f"{adapter.origin} is {adapter.peft_type}, which a task cannot do with a frozen model: expected one of "
            f"{', '.join(CHANGES)}; merge other kinds into the model with PEFT and train a task on that"
        )
    expected = TASK_TYPES[backbone.family.language_model]
    if adapter.task_type not in (*expected, peft.SEQ_CLS, *word_heads.KINDS):
        raise TaskError(
            f"{adapter.origin} is for {adapter.task_type}: on {backbone.name} ({backbone.architecture}) expected "
            f"{' or '.join(expected)}"
        )
    return CHANGES[adapter.peft_type].kind.read(adapter)


def _check_base(backbone: Backbone, adapter: Adapter) -> None:
    path = PurePath(adapter.base_model)
    base = path.parent.name if path.name == "model" else path.name
    if base and base != PurePath(backbone.name).name:
        raise TaskError(
            f"{adapter.origin} was trained on {adapter.base_model}, but this is {backbone.name}: give that model as "
            f"`backbone`, or say with `same_base` that it is the same under another name"
        )


def _check_all_taken(adapter: Adapter, change: Change) -> None:
    head = heads.names(change.inside) if adapter.task_type in (peft.SEQ_CLS, *word_heads.KINDS) else ()
    more = sorted(adapter.tensors.keys() - change.made_from - set(head))
    if more:
        raise TaskError(
            f"{adapter.origin} also changes the model itself ({more[0]}{', …' if more[1:] else ''}): expected a frozen "
            f"model; train without modules_to_save"
        )
