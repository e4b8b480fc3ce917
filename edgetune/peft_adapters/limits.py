"""Where PEFT's models and edgetune's graph do not compute the same thing, so that nothing is carried over."""

from __future__ import annotations

import inspect

from edgetune.peft_adapters.files import SEQ_CLS, Adapter
from edgetune_export.backbone import Backbone
from edgetune_export.language_model import OneStep
from edgetune_runtime.errors import TaskError
from edgetune_runtime.task import Task


def check_same_computation(backbone: Backbone, adapter: Adapter, task: Task) -> None:
    """Raise `TaskError` unless PEFT's model and edgetune's graph give the same, from the same numbers.

    Args:
        backbone: the model of both.
        adapter: PEFT's side.
        task: edgetune's side; a draft will do.
    """
    if not adapter.is_prefix:
        return
    if isinstance(backbone.model, OneStep):
        raise TaskError(
            f"{adapter.origin} is a prefix of the encoder-decoder {backbone.name}: PEFT gives it to the decoder's "
            f"self-attention alone, a task to every attention; use prompt tuning"
        )
    if "past_key_values" not in inspect.signature(backbone.model.forward).parameters:
        raise TaskError(
            f"{adapter.origin} is a prefix, and {backbone.architecture} has no past_key_values for PEFT to put it "
            f"in; use prompt tuning"
        )
    if backbone.window is not None and adapter.length + task.max_length > backbone.window:
        raise TaskError(
            f"{adapter.origin} is a prefix of {adapter.length} for texts of up to {task.max_length} tokens, and some "
            f"layers of {backbone.name} see only {backbone.window}, the prefix among them in PEFT: expected a "
            f"`max_length` of at most {backbone.window - adapter.length}"
        )
    if adapter.task_type == SEQ_CLS and task.pooling == "last" and _ends_in_padding(backbone, task):
        raise TaskError(
            f"{adapter.origin} is a sequence classifier, and the tokenizer of {backbone.name} ends texts with the "
            f"padding token: PEFT's model reads the token before it, a task the last one; set pad_token_id in "
            f"config.json to another token"
        )


def classifier_pooling(backbone: Backbone) -> str | None:
    """Where PEFT's sequence classifiers read their features; `None` where a head that is not linear reads them."""
    if backbone.family.causal:
        return "last"
    return "pooler" if "pooler" in backbone.poolings else None


def reads_positions(backbone: Backbone) -> bool:
    """Whether it matters where a text's positions begin; not in T5, which has none."""
    return not isinstance(backbone.model, OneStep) or hasattr(backbone.model.encoder, "embed_positions")


def _ends_in_padding(backbone: Backbone, task: Task) -> bool:
    return backbone.text_encoder.encode(["a"], [task])[0].ids[-1] == backbone.config.pad_token_id
