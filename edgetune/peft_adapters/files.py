"""PEFT's adapter folders: `adapter_config.json` beside `adapter_model.safetensors`.

A prompt is stored as it is used, whatever network it came out of while it was trained.
Format: https://huggingface.co/docs/peft/developer_guides/checkpoint.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import safetensors.torch
import torch
from safetensors import SafetensorError
from torch import Tensor

from edgetune_runtime import files
from edgetune_runtime.errors import TaskError
from edgetune_runtime.kinds import Kind
from edgetune_runtime.kinds.multi_label import MULTI_LABEL
from edgetune_runtime.kinds.score import SCORE
from edgetune_runtime.kinds.single_label import SINGLE_LABEL
from edgetune_runtime.task import Task

CONFIG = "adapter_config.json"
WEIGHTS = "adapter_model.safetensors"
PICKLED_WEIGHTS = "adapter_model.bin"
HEAD = "head.safetensors"
"""What edgetune adds where PEFT's model has no place for a task's head: `weight` and `bias`."""

PROMPT = "prompt_embeddings"
TASK_COLUMNS, TASK_ROWS = "prefix_task_cols", "prefix_task_rows"

PREFIX_TUNING = "PREFIX_TUNING"
PROMPT_TUNING = "PROMPT_TUNING"
P_TUNING = "P_TUNING"
MULTITASK_PROMPT_TUNING = "MULTITASK_PROMPT_TUNING"

SEQ_CLS = "SEQ_CLS"
CAUSAL_LM = "CAUSAL_LM"
SEQ_2_SEQ_LM = "SEQ_2_SEQ_LM"
FEATURE_EXTRACTION = "FEATURE_EXTRACTION"

PROBLEM_TYPES = {
    "single_label_classification": SINGLE_LABEL,
    "multi_label_classification": MULTI_LABEL,
    "regression": SCORE,
}
"""What transformers calls it → the kind of answer. It stands in the model's config: PEFT's has no place for it."""


def usual_kind(outputs: int) -> Kind:
    """What transformers takes so many outputs for if the config names no problem type."""
    return SCORE if outputs == 1 else SINGLE_LABEL


def problem_type(task: Task) -> str:
    """What transformers calls a task's kind of answer; empty if it has no name for it."""
    return next((name for name, kind in PROBLEM_TYPES.items() if kind is task.kind), "")


@dataclass(frozen=True)
class Adapter:
    """An adapter of PEFT's, in float32.

    Attributes:
        origin: what to call it in an error.
        peft_type: how it was trained, such as "PROMPT_TUNING".
        task_type: what its model does, such as "SEQ_CLS".
        length: virtual tokens, which PEFT puts before each text.
        layers: layers of its model.
        heads: heads of keys and values.
        width: of a virtual token's embedding; of a prefix, that of all heads together.
        submodules: how many of the model's stacks get virtual tokens, 2 where the decoder gets its own.
        base_model: what PEFT called the model, or nothing.
        tensors: the tensors by the names that PEFT gives them.

    Shape:
        prompt_embeddings: [submodules · length, width]; of a prefix [length, 2 · layers · width]
        prefix_task_cols: [tasks, submodules · length, ranks]
        prefix_task_rows: [tasks, ranks, width]
    """

    origin: str
    peft_type: str
    task_type: str
    length: int
    layers: int
    heads: int
    width: int
    submodules: int
    base_model: str
    tensors: Mapping[str, Tensor]

    @property
    def is_prefix(self) -> bool:
        """Whether its virtual tokens are keys and values, not embeddings."""
        return self.peft_type == PREFIX_TUNING

    def config(self) -> dict[str, Any]:
        """The contents of `adapter_config.json`."""
        return {
            "base_model_name_or_path": self.base_model or None,
            "inference_mode": True,
            "num_attention_heads": self.heads,
            "num_layers": self.layers,
            "num_transformer_submodules": self.submodules,
            "num_virtual_tokens": self.length,
            "peft_type": self.peft_type,
            "task_type": self.task_type,
            "token_dim": self.width,
        }

    def save(self, folder: Path) -> None:
        """Write the folder that PEFT loads; its config last, without which it is none."""
        tensors = {name: tensor.contiguous() for name, tensor in self.tensors.items()}
        files.write_atomic(folder / WEIGHTS, safetensors.torch.save(tensors, {"format": "pt"}))
        files.write_atomic(folder / CONFIG, json.dumps(self.config(), indent=2).encode())

    @classmethod
    def load(cls, folder: Path) -> Adapter:
        """Read an adapter's folder.

        Raises:
            TaskError: it is not an adapter that PEFT saved, its weights are pickled or damaged, or it is of a kind
                that has no virtual tokens.
        """
        config = _config(folder)
        tensors = _tensors(folder) if config.get("num_virtual_tokens") else {}
        two = config.get("task_type") == SEQ_2_SEQ_LM
        try:
            return cls(
                origin=str(folder),
                peft_type=str(config["peft_type"]),
                task_type=str(config.get("task_type")),
                length=int(config.get("num_virtual_tokens") or 0),
                layers=int(config.get("num_layers") or 0),
                heads=int(config.get("num_attention_heads") or 0),
                width=int(config.get("token_dim") or 0),
                submodules=int(config.get("num_transformer_submodules") or (2 if two else 1)),
                base_model=str(config.get("base_model_name_or_path") or ""),
                tensors=tensors,
            )
        except (KeyError, TypeError, ValueError) as error:
            raise TaskError(
                f"{folder / CONFIG} is not a PEFT adapter's ({type(error).__name__}: {error}): expected what PEFT's "
                f"save_pretrained wrote"
            ) from error


def flat_prefix(keys: Tensor, values: Tensor) -> Tensor:
    """A prefix as PEFT stores it: keys and values of each layer in turn.

    Shape:
        keys, values: [layers, kv_heads, prefix, head_dim]
        output: [prefix, 2 · layers · kv_heads · head_dim]
    """
    return torch.stack([keys, values], dim=1).flatten(0, 1).permute(2, 0, 1, 3).flatten(1)


def keys_and_values(prefix: Tensor, layers: int, heads: int) -> tuple[Tensor, Tensor]:
    """The opposite of `flat_prefix`."""
    states = prefix.reshape(len(prefix), layers, 2, heads, -1).permute(2, 1, 3, 0, 4)
    return states[0], states[1]


def _config(folder: Path) -> dict[str, Any]:
    try:
        found = json.loads((folder / CONFIG).read_bytes())
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) else error
        raise TaskError(
            f"{folder / CONFIG} cannot be read ({reason}): expected the folder that PEFT's save_pretrained wrote"
        ) from error
    if not isinstance(found, dict):
        raise TaskError(f"{folder / CONFIG} has no JSON object: expected what PEFT's save_pretrained wrote")
    return found


def _tensors(folder: Path) -> dict[str, Tensor]:
    path = folder / WEIGHTS
    if not path.exists() and (folder / PICKLED_WEIGHTS).exists():
        raise TaskError(
            f"{folder} has its weights in {PICKLED_WEIGHTS}, a pickle, which can run code and is not opened: load it "
            f"with PEFT and save it again, which writes {WEIGHTS}"
        )
    try:
        found = safetensors.torch.load(path.read_bytes())
    except (OSError, ValueError, SafetensorError) as error:
        reason = error.strerror if isinstance(error, OSError) else error
        raise TaskError(
            f"{path} cannot be read ({reason}): expected the weights that PEFT's save_pretrained wrote; copy it again"
        ) from error
    for name, tensor in found.items():
        if not tensor.isfinite().all():
            raise TaskError(f"{path} has numbers in {name} that are not finite: train it again")
    return {name: tensor.float() for name, tensor in found.items()}
