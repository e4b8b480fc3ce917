"""What a training can train beside the heads: one class for each part of a task."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from typing import ClassVar

from torch import Tensor, nn

from edgetune_export.backbone import Backbone

Tensors = Mapping[str, Tensor]

RunningText = Callable[[], tuple[Tensor, Tensor]]
"""Gives embeddings of running text, and as many places in it as a prompt is long.

Shape:
    output: [tokens, embedding], [length]
"""


class TrainedPart(nn.Module, ABC):
    """A part that is trained: some of the tensors of a task.

    Attributes:
        names: of the tensors that it may have.
        takes_positions: whether the text's positions follow its own on a causal backbone.

    Args:
        start: what it begins as.
        reparameterization: what it passes through while it is trained.
    """

    names: ClassVar[tuple[str, ...]]
    takes_positions: ClassVar[bool] = False

    @abstractmethod
    def __init__(self, start: Tensors, reparameterization: nn.Module) -> None:
        super().__init__()

    @staticmethod
    def has_place(backbone: Backbone) -> bool:
        """Whether the backbone has a place for it."""
        return True

    @staticmethod
    @abstractmethod
    def start(backbone: Backbone, length: int, text: RunningText) -> dict[str, Tensor]:
        """What it begins as.

        Raises:
            BackboneError: the backbone has no place for it.
        """

    @abstractmethod
    def tensors(self) -> dict[str, Tensor]:
        """The tensors as the graph takes them, without the tasks dimension."""
