"""The parts that can be trained in addition to the heads: one class per part of a task."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from typing import ClassVar

from torch import Tensor, nn

from edgetune_export.backbone import Backbone

Tensors = Mapping[str, Tensor]

RunningText = Callable[[], tuple[Tensor, Tensor]]
"""Returns embeddings of running text, and one place in it for each token of a prompt.

Shape:
    output: [tokens, embedding], [length]
"""


class TrainedPart(nn.Module, ABC):
    """A trainable part: some of the tensors of a task.

    Attributes:
        names: names of the tensors that it may have.
        takes_positions: whether, in a causal backbone, the text's positions come after its own.

    Args:
        start: its initial value.
        reparameterization: the network that it passes through during training.
    """

    names: ClassVar[tuple[str, ...]]
    takes_positions: ClassVar[bool] = False

    @abstractmethod
    def __init__(self, start: Tensors, reparameterization: nn.Module) -> None:
        super().__init__()

    @staticmethod
    def has_place(backbone: Backbone) -> bool:
        """Whether the backbone supports it."""
        return True

    @staticmethod
    @abstractmethod
    def start(backbone: Backbone, length: int, text: RunningText) -> dict[str, Tensor]:
        """Its initial value.

        Raises:
            BackboneError: the backbone does not support it.
        """

    @abstractmethod
    def tensors(self) -> dict[str, Tensor]:
        """The tensors in the graph's form, without the tasks dimension."""
