"""From PEFT's adapter to a task that gives the same logits."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from pathlib import PurePath

import torch
from torch import Tensor

from edgetune.peft_adapters import files as peft
from edgetune.peft_adapters.files import Adapter
from edgetune.peft_adapters.limits import check_same_computation, classifier_pooling
from edgetune.training import prompts, verbalizer
from edgetune.training.options import LabelWords
from edgetune_export.backbone import Backbone
from edgetune_export.families import CLASSIFIES_THROUGH_POOLER
from edgetune_runtime import contract, files
from edgetune_runtime.errors import DataError, TaskError
from edgetune_runtime.fitting.draft import pooling_of
from edgetune_runtime.kinds import Kind
from edgetune_runtime.kinds.single_label import SINGLE_LABEL
from edgetune_runtime.task import Task

METHODS = {
    peft.PROMPT_TUNING: "prompt",
    peft.P_TUNING: "p-tuning",
    peft.PREFIX_TUNING: "prefix",
    peft.MULTITASK_PROMPT_TUNING: "multitask",
}
"""PEFT's types that can be carried over → what tasks call them."""

TASK_TYPES = {
    "text-generation": (peft.SEQ_CLS, peft.CAUSAL_LM),
    "fill-mask": (peft.FEATURE_EXTRACTION,),
    "text2text-generation": (peft.SEQ_2_SEQ_LM,),
}
"""A family's language model → PEFT's task types that classify with it."""

_HEADS = ("base_model.score", "base_model.classifier")


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
    """The task that answers as PEFT's model with this adapter does.

    Args:
        backbone: the model that the adapter was trained on.
        adapter: the adapter.
        name: name of the task.
        labels: what a sequence classifier's outputs are called, in their order; where there are none, the names in
            the model's config, or numbers.
        words: label → the words that a language model says for it.
        template: what surrounds a text; `{mask}` is where a masked language model answers.
        max_length: tokens of a text that are read, the template's among them.
        peft_task: which of the tasks of a multitask prompt.
        same_base: the backbone is the adapter's, although it is called otherwise.
        kind: what a sequence classifier's outputs are. `None` is what `problem_type` in the model's config says; if it
            says nothing, a number if there is one output, else one label: so transformers takes it.

    Raises:
        BackboneError: label words were given, and the backbone's weights have no vocabulary.
        DataError: labels, label words, kind or template do not fit the adapter or the backbone.
        TaskError: the adapter is of another model, or cannot be carried over exactly.
    """
    _check_kind(backbone, adapter)
    if not same_base:
        _check_base(backbone, adapter)
    classifies = adapter.task_type == peft.SEQ_CLS
    if classifies and words:
        raise DataError(f"`words` for {adapter.origin}, a sequence classifier with its own head: name `labels`")
    pooling = _classifier_pooling(backbone, adapter) if classifies else None
    if words:
        verbalizer.check_mask(backbone, template, pooling)
    draft = Task(
        name=files.check_task_name(name),
        labels=(),
        backbone_sha256=backbone.facts.sha256,
        tensors={},
        method=METHODS[adapter.peft_type],
        base_model=backbone.name,
        pooling=pooling_of(backbone.facts, template, pooling, pairs=False),
        position_offset=adapter.length,  # in every family: PEFT counts the virtual tokens as text
        template=template,
        max_length=max_length,
    )
    check_same_computation(backbone, adapter, draft)
    tensors = _prompt(adapter, peft_task)
    if classifies:
        weight, bias = _head(adapter)
        told = peft.PROBLEM_TYPES.get(getattr(backbone.config, "problem_type", None) or "")
        kind = kind or told or peft.usual_kind(len(weight))
        _check_outputs(adapter, kind, len(weight))
        found = _labels(backbone, len(weight), labels or kind.labels_of(()))
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
    _check_all_taken(adapter)
    tensors |= {contract.HEAD_WEIGHT: weight, contract.HEAD_BIAS: bias}
    arrays = {key: each.numpy() for key, each in tensors.items()}
    draft = dataclasses.replace(draft, labels=found, tensors=arrays, kind_name=kind.name)
    backbone.facts.check(draft)
    draft = backbone.text_encoder.fitted(draft)
    return dataclasses.replace(draft, tensors=prompts.stored(backbone, tensors, draft.max_length))


def _check_kind(backbone: Backbone, adapter: Adapter) -> None:
    if adapter.peft_type not in METHODS:
        raise TaskError(
            f"{adapter.origin} is {adapter.peft_type}, which is not a prompt beside a frozen model: expected one of "
            f"{', '.join(METHODS)}; merge other kinds into the model with PEFT and train a task on that"
        )
    expected = TASK_TYPES[backbone.family.language_model]
    if adapter.task_type not in (*expected, peft.SEQ_CLS):
        raise TaskError(
            f"{adapter.origin} is for {adapter.task_type}: on {backbone.name} ({backbone.architecture}) expected "
            f"{' or '.join(expected)}"
        )
    if (adapter.peft_type, adapter.task_type) == (peft.MULTITASK_PROMPT_TUNING, peft.FEATURE_EXTRACTION):
        raise TaskError(
            f"{adapter.origin} is {adapter.peft_type} for {adapter.task_type}, which PEFT itself does not run: it "
            f"hands no task_ids on; use prompt tuning"
        )
    if adapter.peft_type == peft.MULTITASK_PROMPT_TUNING and adapter.submodules > 1:
        raise TaskError(
            f"{adapter.origin} puts virtual tokens before the decoder's start too, which a task cannot: expected "
            f"num_transformer_submodules 1, as it was trained with {adapter.submodules}"
        )


def _classifier_pooling(backbone: Backbone, adapter: Adapter) -> str:
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


def _check_base(backbone: Backbone, adapter: Adapter) -> None:
    path = PurePath(adapter.base_model)
    base = path.parent.name if path.name == "model" else path.name
    if base and base != PurePath(backbone.name).name:
        raise TaskError(
            f"{adapter.origin} was trained on {adapter.base_model}, but this is {backbone.name}: give that model as "
            f"`backbone`, or say with `same_base` that it is the same under another name"
        )


def _prompt(adapter: Adapter, peft_task: int | None) -> dict[str, Tensor]:
    flat = _tensor(adapter, peft.PROMPT)
    if adapter.is_prefix:
        expected = (adapter.length, 2 * adapter.layers * adapter.width)
        if tuple(flat.shape) != expected or adapter.width % max(1, adapter.heads):
            raise _misshapen(adapter, peft.PROMPT, flat, expected)
        keys, values = peft.keys_and_values(flat, adapter.layers, max(1, adapter.heads))
        return {contract.PREFIX_KEYS: keys, contract.PREFIX_VALUES: values}
    expected = (adapter.submodules * adapter.length, adapter.width)
    if tuple(flat.shape) != expected:
        raise _misshapen(adapter, peft.PROMPT, flat, expected)
    if adapter.peft_type == peft.MULTITASK_PROMPT_TUNING:
        flat = flat * _of_task(adapter, peft_task)
    # Of an encoder-decoder's prompt the rows for the decoder are stored, but PEFT does not use them.
    return {contract.PROMPT_EMBEDDINGS: flat[: adapter.length]}


def _of_task(adapter: Adapter, peft_task: int | None) -> Tensor:
    """What a task of a multitask prompt multiplies the prompt with. Shape: [prompt, embedding]."""
    columns, rows = _tensor(adapter, peft.TASK_COLUMNS), _tensor(adapter, peft.TASK_ROWS)
    if peft_task is None or not 0 <= peft_task < len(columns):
        raise DataError(
            f"{adapter.origin} holds the prompts of {len(columns)} tasks and `peft_task` is {peft_task}: expected "
            f"0 to {len(columns) - 1}"
        )
    product: Tensor = columns[peft_task] @ rows[peft_task]
    return product


def _head(adapter: Adapter) -> tuple[Tensor, Tensor]:
    for name in _HEADS:
        weight = adapter.tensors.get(f"{name}.weight")
        if weight is not None and weight.ndim == 2 and len(weight):
            return weight, adapter.tensors.get(f"{name}.bias", torch.zeros(len(weight)))
    raise TaskError(
        f"{adapter.origin} has no head among {', '.join(adapter.tensors)}: expected "
        f"{_HEADS[0]}.weight; save it with PEFT again, the head with it"
    )


def _check_outputs(adapter: Adapter, kind: Kind, outputs: int) -> None:
    fewest, most = kind.labels
    if not fewest <= outputs <= most:
        expected = f"{fewest}" if fewest == most else f"{fewest} to {most:,}"
        raise DataError(
            f"{adapter.origin} has a head of {outputs} outputs: expected {expected} for the kind '{kind.name}'; name "
            f"another with `kind`"
        )


def _labels(backbone: Backbone, count: int, labels: Sequence[str]) -> tuple[str, ...]:
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


def _check_all_taken(adapter: Adapter) -> None:
    taken = {peft.PROMPT}
    if adapter.peft_type == peft.MULTITASK_PROMPT_TUNING:
        taken |= {peft.TASK_COLUMNS, peft.TASK_ROWS}
    if adapter.task_type == peft.SEQ_CLS:
        taken |= {f"{name}.{part}" for name in _HEADS for part in ("weight", "bias")}
    more = sorted(adapter.tensors.keys() - taken)
    if more:
        raise TaskError(
            f"{adapter.origin} also changes the model itself ({more[0]}{', …' if more[1:] else ''}): expected a frozen "
            f"model; train without modules_to_save"
        )


def _tensor(adapter: Adapter, name: str) -> Tensor:
    found = adapter.tensors.get(name)
    if found is None:
        raise TaskError(f"{adapter.origin} has no {name} among {', '.join(adapter.tensors)}: copy it again")
    return found


def _misshapen(adapter: Adapter, name: str, found: Tensor, expected: tuple[int, ...]) -> TaskError:
    return TaskError(
        f"{adapter.origin} has {name} of shape {list(found.shape)}: expected {list(expected)} by its {peft.CONFIG}; "
        f"copy both again"
    )
