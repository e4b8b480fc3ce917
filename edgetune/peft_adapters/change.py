"""What an adapter does to its model: the face that the kinds of adapters have in common."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, Self

from torch import Tensor

from edgetune.peft_adapters.files import Adapter
from edgetune_export.backbone import Backbone
from edgetune_runtime.errors import TaskError
from edgetune_runtime.task import Task


@dataclass(frozen=True)
class Written:
    """A task's parts as PEFT stores them.

    Attributes:
        peft_type: the kind of adapter.
        settings: what `adapter_config.json` has for this kind.
        tensors: the tensors by PEFT's names.
        length: virtual tokens, behind which PEFT's texts begin.
    """

    peft_type: str
    settings: Mapping[str, Any]
    tensors: Mapping[str, Tensor]
    length: int = 0


class Change(ABC):
    """What an adapter does to its model.

    Attributes:
        inside: what PEFT's names of the model's own tensors begin with.
        length: virtual tokens, behind which PEFT's texts begin.
    """

    inside: ClassVar[str]
    length: int

    @classmethod
    @abstractmethod
    def read(cls, adapter: Adapter) -> Self:
        """What an adapter's settings say.

        Raises:
            TaskError: they are not what PEFT writes, or of something that a task cannot do.
        """

    @abstractmethod
    def check(self, backbone: Backbone, task: Task) -> None:
        """Raise `TaskError` unless PEFT's model and edgetune's graph compute the same, from the same numbers.

        Args:
            backbone: the model of both.
            task: edgetune's side; a draft will do.
        """

    @abstractmethod
    def parts(self, backbone: Backbone, peft_task: int | None) -> dict[str, Tensor]:
        """The parts of the task, by the names of the graph's inputs.

        Args:
            backbone: the adapter's model.
            peft_task: which of the tasks of an adapter of several.

        Raises:
            DataError: there is no such task.
            TaskError: tensors are missing, have other shapes, or change what a task cannot.
        """

    @property
    @abstractmethod
    def made_from(self) -> Collection[str]:
        """Names of the adapter's tensors that `parts` are made from."""

    @staticmethod
    @abstractmethod
    def write(backbone: Backbone, task: Task, tensors: Mapping[str, Tensor], classifies: bool) -> Written:
        """The opposite of `read` and `parts`.

        Args:
            backbone: the task's backbone.
            task: the task.
            tensors: its tensors.
            classifies: whether PEFT's model is a sequence classifier, or the bare model.

        Raises:
            TaskError: PEFT has no such adapters.
        """


def check_reads_last(backbone: Backbone, adapter: Adapter, task: Task) -> None:
    """Raise `TaskError` if a decoder's sequence classifier takes the end of a text for padding."""
    ends = backbone.text_encoder.encode(["a"], [task])[0].ids[-1]
    if task.pooling == "last" and ends == backbone.config.pad_token_id:
        raise TaskError(
            f"{adapter.origin} is a sequence classifier, and the tokenizer of {backbone.name} ends texts with the "
            f"padding token: PEFT's model reads the token before it, a task the last one; set pad_token_id in "
            f"config.json to another token"
        )
