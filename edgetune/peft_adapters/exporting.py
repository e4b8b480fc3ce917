"""Export a task as a PEFT adapter with the same logits."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

import safetensors.torch
import torch
from torch import Tensor

from edgetune.peft_adapters import files as peft
from edgetune.peft_adapters import heads, word_heads
from edgetune.peft_adapters.change import Change
from edgetune.peft_adapters.files import Adapter
from edgetune.peft_adapters.kinds import CHANGES, WRITERS
from edgetune_export.backbone import Backbone
from edgetune_export.language_model import OneStep
from edgetune_runtime import contract, files
from edgetune_runtime.decoding import tag_names
from edgetune_runtime.errors import TaskError
from edgetune_runtime.kinds.spans import SPANS
from edgetune_runtime.kinds.tokens import TOKENS
from edgetune_runtime.parts import HEAD, LOW_RANK, PARTS
from edgetune_runtime.task import Task


@dataclass(frozen=True)
class Exported:
    """An adapter, and the task's head if the adapter cannot hold it.

    Attributes:
        adapter: the adapter that PEFT loads.
        task: the exported task.
        head: `weight` [labels, hidden] and `bias` [labels] for the features of PEFT's model; empty if the adapter has
            the head.
    """

    adapter: Adapter
    task: Task
    head: dict[str, Tensor]

    @property
    def problem_type(self) -> str:
        """The `problem_type` that the config of PEFT's model needs; the adapter cannot contain it."""
        return heads.problem_type(self.task)

    @property
    def says_problem_type(self) -> bool:
        """Whether the config must set it, because transformers would assume another type for this number of outputs."""
        by_word = word_heads.task_type(self.task.kind) is not None
        return not by_word and heads.usual_kind(len(self.task.labels)) is not self.task.kind

    @property
    def outputs(self) -> list[str]:
        """The names of a model's outputs, in order: labels, word tags, or the ends of answers."""
        if self.task.kind is SPANS:
            return list(word_heads.OUTPUTS)
        return tag_names(self.task.labels) if self.task.kind is TOKENS else list(self.task.labels)

    def save(self, folder: Path) -> None:
        """Write the adapter's folder.

        Raises:
            TaskError: the folder exists and is not empty.
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
            files.write_atomic(folder / heads.FILE, safetensors.torch.save(self.head, metadata))
        self.adapter.save(folder)


def export_adapter(backbone: Backbone, task: Task, base_model: str) -> Exported:
    """The adapter with which PEFT's model gives the task's answers.

    A soft prompt becomes PROMPT_TUNING, a prefix PREFIX_TUNING, low rank LORA. A head after a pooler, or without biases
    at a decoder's last token, becomes the head of a sequence classifier. The head of a task that finds entities becomes
    that of a token classifier, and the head of a task that answers questions that of a question answering model. There
    a word's logits come from its first token, the mean over its tokens, or its last token, depending on the task's
    pooling. Any other head is stored next to the adapter, for the features of PEFT's model.

    Args:
        backbone: the task's backbone.
        task: the task.
        base_model: the name by which PEFT loads the model.

    Raises:
        TaskError: the task was made for another backbone, or PEFT's model would compute something else.
    """
    backbone.facts.check(task)
    writer = _writer(task)
    tensors = {name: torch.from_numpy(tensor) for name, tensor in task.tensors.items()}
    weight, bias = tensors[contract.HEAD_WEIGHT], tensors[contract.HEAD_BIAS]
    by_word = word_heads.task_type(task.kind)
    if by_word is not None:
        classifier = word_heads.write(backbone, f"task '{task.name}'", task.kind, weight, bias, writer.inside)
    else:
        classifier = heads.write(backbone, task.pooling, weight, bias, writer.inside)
    written = writer.write(backbone, task, tensors, bool(classifier))
    _check_expressible(backbone, task, written.length)
    adapter = Adapter(
        origin=f"task '{task.name}'",
        settings={
            "base_model_name_or_path": base_model or None,
            "inference_mode": True,
            "peft_type": written.peft_type,
            "task_type": by_word or (peft.SEQ_CLS if classifier else peft.FEATURE_EXTRACTION),
            **written.settings,
        },
        tensors={**written.tensors, **classifier},
    )
    CHANGES[written.peft_type].kind.read(adapter).check(backbone, task)
    return Exported(adapter, task, {} if classifier else {"weight": weight, "bias": bias})


def _writer(task: Task) -> type[Change]:
    """The writer for the task's only part; low rank on several layers counts as one part."""
    has = [part for part in PARTS.values() if part is not HEAD and part.length_of(task.tensors)]
    names = list(dict.fromkeys("low rank" if part in LOW_RANK.values() else part.name for part in has))
    expected = "expected a soft prompt, a prefix or low rank, which PEFT's adapters hold"
    if not names:
        raise TaskError(f"task '{task.name}' is a head alone: {expected}")
    if len(names) > 1 or has[0].name not in WRITERS:
        raise TaskError(f"task '{task.name}' has {' and '.join(names)}: {expected}, and nothing else")
    return WRITERS[has[0].name]


def _check_expressible(backbone: Backbone, task: Task, length: int) -> None:
    if task.pooling == "mask":
        raise TaskError(
            f"task '{task.name}' reads its features at the mask, behind layers of the masked language model that "
            f"PEFT's FEATURE_EXTRACTION does not give: expected another pooling, such as cls"
        )
    if task.position_offset != length and _reads_positions(backbone):
        hint = "; train it with `positions_behind_prompt`" if length else ""
        raise TaskError(
            f"the texts of task '{task.name}' begin at position {task.position_offset}, PEFT's behind the "
            f"{length} virtual tokens: expected position_offset {length}{hint}"
        )


def _reads_positions(backbone: Backbone) -> bool:
    """Whether the model uses positions of tokens; T5 does not."""
    return not isinstance(backbone.model, OneStep) or hasattr(backbone.model.encoder, "embed_positions")
