"""The change that an adapter makes to its model: the common interface of all adapter types."""

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
    """A task's parts in the form that PEFT stores.

    Attributes:
        peft_type: the type of adapter.
        settings: the fields of `adapter_config.json` for this type.
        tensors: the tensors by PEFT's names.
        length: number of virtual tokens before each text in PEFT.
    """

    peft_type: str
    settings: Mapping[str, Any]
    tensors: Mapping[str, Tensor]
    length: int = 0


class Change(ABC):
    """The change that an adapter makes to its model.

    Attributes:
        inside: prefix of PEFT's names for the model's own tensors.
        length: number of virtual tokens before each text in PEFT.
    """

    inside: ClassVar[str]
    length: int

    @classmethod
    @abstractmethod
    def read(cls, adapter: Adapter) -> Self:
        """Read an adapter's settings.

        Raises:
            TaskError: they are not valid PEFT settings, or describe something that a task cannot do.
        """

    @abstractmethod
    def check(self, backbone: Backbone, task: Task) -> None:
        """Raise `TaskError` unless PEFT's model and edgetune's graph compute the same from the same tensors.

        Args:
            backbone: the model of both.
            task: edgetune's side; a draft is sufficient.
        """

    @abstractmethod
    def parts(self, backbone: Backbone, peft_task: int | None) -> dict[str, Tensor]:
        """The task's parts, by the names of the graph's inputs.

        Args:
            backbone: the adapter's model.
            peft_task: the task to use, if the adapter has several.

        Raises:
            DataError: the task does not exist.
            TaskError: tensors are missing, have unexpected shapes, or change something that a task cannot change.
        """

    @property
    @abstractmethod
    def made_from(self) -> Collection[str]:
        """Names of the adapter's tensors that `parts` uses."""

    @staticmethod
    @abstractmethod
    def write(backbone: Backbone, task: Task, tensors: Mapping[str, Tensor], classifies: bool) -> Written:
        """Write a task's parts as an adapter, the inverse of `read` and `parts`.

        Args:
            backbone: the task's backbone.
            task: the task.
            tensors: its tensors.
            classifies: whether PEFT's model is a sequence classifier, or the bare model.

        Raises:
            TaskError: PEFT has no such adapter.
        """


def check_reads_last(backbone: Backbone, adapter: Adapter, task: Task) -> None:
    """Raise `TaskError` if a decoder's sequence classifier would mistake the end of a text for padding."""
    ends = backbone.text_encoder.encode(["a"], [task])[0].ids[-1]
    if task.pooling == "last" and ends == backbone.config.pad_token_id:
        raise TaskError(
            f"{adapter.origin} is a sequence classifier, and the tokenizer of {backbone.name} ends texts with the "
            f"padding token: PEFT's model reads the token before it, a task the last one; set pad_token_id in "
            f"config.json to another token"
        )
