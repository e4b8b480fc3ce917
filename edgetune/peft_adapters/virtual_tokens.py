"""Prompts and prefixes: PEFT's virtual tokens.

A prompt is stored in its final form, without the network that produced it in training.
"""

from __future__ import annotations

import inspect
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Self

import torch
from torch import Tensor

from edgetune.peft_adapters import files as peft
from edgetune.peft_adapters.change import Change, Written, check_reads_last
from edgetune.peft_adapters.files import Adapter
from edgetune_export.backbone import Backbone
from edgetune_export.language_model import OneStep
from edgetune_runtime import contract
from edgetune_runtime.errors import DataError, TaskError
from edgetune_runtime.task import Task

PROMPT = "prompt_embeddings"
TASK_COLUMNS, TASK_ROWS = "prefix_task_cols", "prefix_task_rows"


@dataclass(frozen=True)
class VirtualTokens(Change):
    """The virtual tokens that PEFT puts before each text.

    Attributes:
        adapter: the adapter.
        length: their number.
        layers: number of layers of the model.
        heads: number of key and value heads.
        width: size of a virtual token's embedding; for a prefix, the size over all heads.
        submodules: number of the model's stacks with virtual tokens; 2 if the decoder has its own.

    Shape:
        prompt_embeddings: [submodules · length, width]; for a prefix [length, 2 · layers · width]
        prefix_task_cols: [tasks, submodules · length, ranks]
        prefix_task_rows: [tasks, ranks, width]
    """

    inside = "base_model."

    adapter: Adapter
    length: int
    layers: int
    heads: int
    width: int
    submodules: int

    @classmethod
    def read(cls, adapter: Adapter) -> Self:
        """Read the settings."""
        default = 2 if adapter.task_type == peft.SEQ_2_SEQ_LM else 1
        names = ("num_virtual_tokens", "num_layers", "num_attention_heads", "token_dim", "num_transformer_submodules")
        try:
            length, layers, heads, width, submodules = (int(adapter.settings.get(name) or 0) for name in names)
            return cls(adapter, length, layers, heads, width, submodules or default)
        except (TypeError, ValueError) as error:
            raise adapter.unreadable(error) from error

    def check(self, backbone: Backbone, task: Task) -> None:
        """Reject models that treat prefixes differently, and multitask prompts that also apply to the decoder."""
        adapter = self.adapter
        if adapter.peft_type == peft.MULTITASK_PROMPT_TUNING:
            self._check_multitask()
        if adapter.peft_type != peft.PREFIX_TUNING:
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
        if backbone.window is not None and self.length + task.max_length > backbone.window:
            raise TaskError(
                f"{adapter.origin} is a prefix of {self.length} for texts of up to {task.max_length} tokens, and some "
                f"layers of {backbone.name} see only {backbone.window}, the prefix among them in PEFT: expected a "
                f"`max_length` of at most {backbone.window - self.length}"
            )
        if adapter.task_type == peft.SEQ_CLS:
            check_reads_last(backbone, adapter, task)

    def _check_multitask(self) -> None:
        adapter = self.adapter
        if adapter.task_type == peft.FEATURE_EXTRACTION:
            raise TaskError(
                f"{adapter.origin} is {adapter.peft_type} for {adapter.task_type}, which PEFT itself does not run: it "
                f"hands no task_ids on; use prompt tuning"
            )
        if self.submodules > 1:
            raise TaskError(
                f"{adapter.origin} puts virtual tokens before the decoder's start too, which a task cannot: expected "
                f"num_transformer_submodules 1, as it was trained with {self.submodules}"
            )

    def parts(self, backbone: Backbone, peft_task: int | None) -> dict[str, Tensor]:
        """A soft prompt, or a prefix."""
        if self.adapter.peft_type == peft.PREFIX_TUNING:
            heads = max(1, self.heads)
            if self.width % heads:
                raise self.adapter.unreadable(ValueError(f"token_dim {self.width} for {heads} heads"))
            flat = self.adapter.tensor(PROMPT, (self.length, 2 * self.layers * self.width))
            keys, values = _keys_and_values(flat, self.layers, heads)
            return {contract.PREFIX_KEYS: keys, contract.PREFIX_VALUES: values}
        flat = self.adapter.tensor(PROMPT, (self.submodules * self.length, self.width))
        if self.adapter.peft_type == peft.MULTITASK_PROMPT_TUNING:
            flat = flat * self._of_task(peft_task)
        # An encoder-decoder's prompt contains rows for the decoder, but PEFT does not use them.
        return {contract.PROMPT_EMBEDDINGS: flat[: self.length]}

    def _of_task(self, peft_task: int | None) -> Tensor:
        """The factor by which a task of a multitask prompt multiplies the prompt. Shape: [prompt, embedding]."""
        columns, rows = (self.adapter.tensor(name) for name in (TASK_COLUMNS, TASK_ROWS))
        if peft_task is None or not 0 <= peft_task < len(columns):
            raise DataError(
                f"{self.adapter.origin} holds the prompts of {len(columns)} tasks and `peft_task` is {peft_task}: "
                f"expected 0 to {len(columns) - 1}"
            )
        product: Tensor = columns[peft_task] @ rows[peft_task]
        return product

    @property
    def made_from(self) -> Collection[str]:
        """The prompt, and the factors of the tasks."""
        multitask = self.adapter.peft_type == peft.MULTITASK_PROMPT_TUNING
        return {PROMPT, TASK_COLUMNS, TASK_ROWS} if multitask else {PROMPT}

    @staticmethod
    def write(backbone: Backbone, task: Task, tensors: Mapping[str, Tensor], classifies: bool) -> Written:
        """A soft prompt, or the soft prompt behind a prefix, becomes PROMPT_TUNING.

        Any other prefix becomes PREFIX_TUNING.
        """
        sizes = backbone.sizes
        prompt = tensors.get(contract.PROMPT_SOURCE, tensors.get(contract.PROMPT_EMBEDDINGS))
        if prompt is None:
            prompt = _flat_prefix(tensors[contract.PREFIX_KEYS], tensors[contract.PREFIX_VALUES])
            peft_type, width = peft.PREFIX_TUNING, sizes.kv_heads * sizes.head_dim
        else:
            peft_type, width = peft.PROMPT_TUNING, sizes.embedding
        settings = {
            "num_attention_heads": sizes.kv_heads,
            "num_layers": sizes.layers,
            "num_transformer_submodules": 1,
            "num_virtual_tokens": len(prompt),
            "token_dim": width,
        }
        return Written(peft_type, settings, {PROMPT: prompt}, len(prompt))


def _flat_prefix(keys: Tensor, values: Tensor) -> Tensor:
    """A prefix in PEFT's form: keys and values of each layer in turn.

    Shape:
        keys, values: [layers, kv_heads, prefix, head_dim]
        output: [prefix, 2 · layers · kv_heads · head_dim]
    """
    return torch.stack([keys, values], dim=1).flatten(0, 1).permute(2, 0, 1, 3).flatten(1)


def _keys_and_values(prefix: Tensor, layers: int, heads: int) -> tuple[Tensor, Tensor]:
    """The inverse of `_flat_prefix`."""
    states = prefix.reshape(len(prefix), layers, 2, heads, -1).permute(2, 1, 3, 0, 4)
    return states[0], states[1]
