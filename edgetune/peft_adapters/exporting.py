"""From a task to PEFT's adapter that gives the same logits."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

import safetensors.torch
import torch
from torch import Tensor

from edgetune.peft_adapters import files as peft
from edgetune.peft_adapters.files import Adapter
from edgetune.peft_adapters.limits import check_same_computation, classifier_pooling, reads_positions
from edgetune_export.backbone import Backbone
from edgetune_runtime import contract, files
from edgetune_runtime.errors import TaskError
from edgetune_runtime.task import Task


@dataclass(frozen=True)
class Exported:
    """An adapter, and the task's head where the adapter cannot hold it.

    Attributes:
        adapter: what PEFT loads.
        task: the task that it came from.
        head: `weight` [labels, hidden] and `bias` [labels] for the features that PEFT's model gives, or nothing.
    """

    adapter: Adapter
    task: Task
    head: dict[str, Tensor]

    @property
    def problem_type(self) -> str:
        """What the config of PEFT's model must say of its outputs, which the adapter cannot."""
        return peft.problem_type(self.task)

    @property
    def says_problem_type(self) -> bool:
        """Whether the config must say it, since transformers would take so many outputs for something else."""
        return peft.usual_kind(len(self.task.labels)) is not self.task.kind

    def save(self, folder: Path) -> None:
        """Write the adapter's folder.

        Raises:
            TaskError: there is something there already.
        """
        if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
            raise TaskError(f"{folder} already exists: name another folder")
        if self.head:
            metadata = {
                "labels": json.dumps(list(self.task.labels), ensure_ascii=False),
                "pooling": self.task.pooling,
                "temperature": str(self.task.temperature),
                "template": self.task.template,
                "problem_type": self.problem_type,
                **({"thresholds": json.dumps(list(self.task.thresholds))} if self.task.thresholds else {}),
            }
            files.write_atomic(folder / peft.HEAD, safetensors.torch.save(self.head, metadata))
        self.adapter.save(folder)


def export_adapter(backbone: Backbone, task: Task, base_model: str) -> Exported:
    """The adapter with which PEFT's model answers as the task does.

    A soft prompt becomes PROMPT_TUNING, a prefix PREFIX_TUNING. A head behind a pooler, or without biases at a
    decoder's last token, is a sequence classifier's; any other is kept beside the adapter, for the features that
    PEFT's model gives.

    Args:
        backbone: the task's backbone.
        task: the task.
        base_model: what to call the model: PEFT loads it by this name.

    Raises:
        TaskError: the task is another backbone's, or PEFT's model would compute something else.
    """
    backbone.facts.check(task)
    tensors = {name: torch.from_numpy(tensor) for name, tensor in task.tensors.items()}
    prompt = tensors.get(contract.PROMPT_SOURCE, tensors.get(contract.PROMPT_EMBEDDINGS))
    length = len(prompt) if prompt is not None else task.prefix_length
    _check_expressible(backbone, task, length)
    weight, bias = tensors[contract.HEAD_WEIGHT], tensors[contract.HEAD_BIAS]
    classifier = _classifier(backbone, task.pooling, weight, bias)
    sizes = backbone.sizes
    if prompt is None:
        prompt = peft.flat_prefix(tensors[contract.PREFIX_KEYS], tensors[contract.PREFIX_VALUES])
        peft_type, width = peft.PREFIX_TUNING, sizes.kv_heads * sizes.head_dim
    else:
        peft_type, width = peft.PROMPT_TUNING, sizes.embedding
    adapter = Adapter(
        origin=f"task '{task.name}'",
        peft_type=peft_type,
        task_type=peft.SEQ_CLS if classifier else peft.FEATURE_EXTRACTION,
        length=length,
        layers=sizes.layers,
        heads=sizes.kv_heads,
        width=width,
        submodules=1,
        base_model=base_model,
        tensors={peft.PROMPT: prompt, **classifier},
    )
    check_same_computation(backbone, adapter, task)
    return Exported(adapter, task, {} if classifier else {"weight": weight, "bias": bias})


def _classifier(backbone: Backbone, pooling: str, weight: Tensor, bias: Tensor) -> dict[str, Tensor]:
    """The head as a sequence classifier's, or nothing where PEFT's has no place for it."""
    if pooling != classifier_pooling(backbone):
        return {}
    if pooling == "pooler":
        return {"base_model.classifier.weight": weight, "base_model.classifier.bias": bias}
    return {} if bias.any() else {"base_model.score.weight": weight}


def _check_expressible(backbone: Backbone, task: Task, length: int) -> None:
    if not length:
        raise TaskError(
            f"task '{task.name}' is a head alone: expected a prompt or a prefix, which PEFT's adapters hold"
        )
    if task.prompt_length and task.prefix_length:
        raise TaskError(f"task '{task.name}' has a prompt and a prefix: expected one of them, as PEFT's adapters hold")
    if task.pooling == "mask":
        raise TaskError(
            f"task '{task.name}' reads its features at the mask, behind layers of the masked language model that "
            f"PEFT's FEATURE_EXTRACTION does not give: expected another pooling, such as cls"
        )
    if task.position_offset != length and reads_positions(backbone):
        raise TaskError(
            f"the texts of task '{task.name}' begin at position {task.position_offset}, PEFT's behind the "
            f"{length} virtual tokens: expected position_offset {length}; train it with `positions_behind_prompt`"
        )
