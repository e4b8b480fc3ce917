"""PEFT's adapter folders: `adapter_config.json` and `adapter_model.safetensors`.

Format: https://huggingface.co/docs/peft/developer_guides/checkpoint.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import safetensors.torch
from safetensors import SafetensorError
from torch import Tensor

from edgetune_runtime import files
from edgetune_runtime.errors import TaskError

CONFIG = "adapter_config.json"
WEIGHTS = "adapter_model.safetensors"
PICKLED_WEIGHTS = "adapter_model.bin"

PREFIX_TUNING = "PREFIX_TUNING"
PROMPT_TUNING = "PROMPT_TUNING"
P_TUNING = "P_TUNING"
MULTITASK_PROMPT_TUNING = "MULTITASK_PROMPT_TUNING"
LORA = "LORA"
PEFT_TYPES = (PROMPT_TUNING, P_TUNING, PREFIX_TUNING, MULTITASK_PROMPT_TUNING, LORA)
"""The adapter types that can be converted."""

SEQ_CLS = "SEQ_CLS"
TOKEN_CLS = "TOKEN_CLS"
QUESTION_ANS = "QUESTION_ANS"
CAUSAL_LM = "CAUSAL_LM"
SEQ_2_SEQ_LM = "SEQ_2_SEQ_LM"
FEATURE_EXTRACTION = "FEATURE_EXTRACTION"


@dataclass(frozen=True)
class Adapter:
    """A PEFT adapter, with tensors in float32.

    Attributes:
        origin: how errors refer to it.
        settings: the contents of `adapter_config.json`.
        tensors: the tensors by PEFT's names; empty if the type is not in `PEFT_TYPES`.
    """

    origin: str
    settings: Mapping[str, Any]
    tensors: Mapping[str, Tensor]

    @property
    def peft_type(self) -> str:
        """Its type, such as "PROMPT_TUNING"."""
        return str(self.settings["peft_type"])

    @property
    def task_type(self) -> str:
        """Its model's task type, such as "SEQ_CLS"."""
        return str(self.settings.get("task_type"))

    @property
    def base_model(self) -> str:
        """PEFT's name of the model; may be empty."""
        return str(self.settings.get("base_model_name_or_path") or "")

    @property
    def size(self) -> str:
        """Its size, for people."""
        tokens = self.settings.get("num_virtual_tokens")
        return f"{tokens} virtual tokens" if tokens else f"rank {self.settings.get('r')}"

    def tensor(self, name: str, expected: Sequence[int] | None = None) -> Tensor:
        """One of its tensors.

        Raises:
            TaskError: the tensor is missing or has an unexpected shape.
        """
        found = self.tensors.get(name)
        if found is None:
            raise TaskError(f"{self.origin} has no {name} among {', '.join(self.tensors)}: copy it again")
        if expected is not None and tuple(found.shape) != tuple(expected):
            raise TaskError(
                f"{self.origin} has {name} of shape {list(found.shape)}: expected {list(expected)} by its {CONFIG}; "
                f"copy both again"
            )
        return found

    def unreadable(self, error: Exception) -> TaskError:
        """The error for settings that PEFT does not write."""
        return TaskError(
            f"{self.origin}/{CONFIG} is not a PEFT adapter's ({type(error).__name__}: {error}): expected what PEFT's "
            f"save_pretrained wrote"
        )

    def save(self, folder: Path) -> None:
        """Write the folder that PEFT loads. The config comes last, because a folder without it is not an adapter."""
        tensors = {name: tensor.contiguous() for name, tensor in self.tensors.items()}
        files.write_atomic(folder / WEIGHTS, safetensors.torch.save(tensors, {"format": "pt"}))
        files.write_atomic(folder / CONFIG, json.dumps(self.settings, indent=2).encode())

    @classmethod
    def load(cls, folder: Path) -> Adapter:
        """Read an adapter's folder.

        Raises:
            TaskError: it is not an adapter from PEFT, or its weights are pickled or damaged.
        """
        settings = _settings(folder)
        if "peft_type" not in settings:
            raise cls(str(folder), settings, {}).unreadable(KeyError("peft_type"))
        return cls(str(folder), settings, _tensors(folder) if settings["peft_type"] in PEFT_TYPES else {})


def _settings(folder: Path) -> dict[str, Any]:
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
