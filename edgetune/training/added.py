"""Trainable low rank and units, which are added in parallel to a backbone's linear layers.

Both start without effect: reading weights start random, writing weights at zero.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from edgetune.training.trained import RunningText, Tensors, TrainedPart
from edgetune_export.backbone import Backbone
from edgetune_runtime import contract
from edgetune_runtime.errors import BackboneError

SITES = ("query", "value", "projection")
"""Layers with trained low rank: query and value (Hu et al. 2021), or the layer that computes both."""


class LowRank(TrainedPart):
    """Low-rank changes of linear layers (LoRA, Hu et al. 2021): x·down·up is added to a layer's output for x.

    Shape:
        down: [layers, inputs, rank]
        up: [layers, rank, outputs]
    """

    names = tuple(name for names in contract.LOW_RANK_INPUTS.values() for name in names)

    def __init__(self, start: Tensors, reparameterization: nn.Module) -> None:
        super().__init__(start, reparameterization)
        self.factors = nn.ParameterDict({name: nn.Parameter(tensor.clone()) for name, tensor in start.items()})

    @staticmethod
    def start(backbone: Backbone, length: int, text: RunningText) -> dict[str, Tensor]:
        """Random reading weights, and zeros as writing weights."""
        sites = [site for site in SITES if site in backbone.sites]
        if not LowRank.has_place(backbone):
            raise BackboneError(
                f"{backbone.name} ({backbone.architecture}) makes query and value in a way that low rank has no place "
                f"in: use the method prefix"
            )
        names = [name for site in sites for name in contract.LOW_RANK_INPUTS[site]]
        shapes = {name: _shape(backbone, name, length) for name in names}
        return {name: _reads(shape) if name.endswith("_down") else torch.zeros(shape) for name, shape in shapes.items()}

    @staticmethod
    def has_place(backbone: Backbone) -> bool:
        """Whether the backbone has linear layers for query or value."""
        return any(site in backbone.sites for site in SITES)

    def tensors(self) -> dict[str, Tensor]:
        """The factors in the graph's form."""
        return dict(self.factors.items())


class Units(TrainedPart):
    """Additional units in parallel to each feed-forward (parallel adapters, He et al. 2022): relu(x·read + bias)·write.

    Shape:
        unit_read: [feed_forwards, width, units]
        unit_bias: [feed_forwards, units]
        unit_write: [feed_forwards, units, width]
    """

    names = contract.UNIT_INPUTS

    def __init__(self, start: Tensors, reparameterization: nn.Module) -> None:
        super().__init__(start, reparameterization)
        self.read, self.bias, self.write = (nn.Parameter(start[name].clone()) for name in self.names)

    @staticmethod
    def start(backbone: Backbone, length: int, text: RunningText) -> dict[str, Tensor]:
        """Units with random reading weights, and zeros as writing weights."""
        if not Units.has_place(backbone):
            raise BackboneError(
                f"{backbone.name} ({backbone.architecture}) has no feed-forwards for units: use the method prefix"
            )
        read, bias, write = (_shape(backbone, name, length) for name in Units.names)
        return dict(zip(Units.names, (_reads(read), torch.zeros(bias), torch.zeros(write)), strict=True))

    @staticmethod
    def has_place(backbone: Backbone) -> bool:
        """Whether the backbone has feed-forwards."""
        return contract.UNIT_READ in backbone.inputs

    def tensors(self) -> dict[str, Tensor]:
        """The units in the graph's form."""
        return dict(zip(self.names, (self.read, self.bias, self.write), strict=True))


def _shape(backbone: Backbone, name: str, length: int) -> tuple[int, ...]:
    lengths = {**{contract.rank(site): length for site in contract.SITES}, "units": length}
    return backbone.sizes.of(contract.TASK_TENSORS[name], **lengths)


def _reads(shape: tuple[int, ...]) -> Tensor:
    """Uniform random weights, which are smaller if there are more inputs. Shape: [layers, inputs, outputs]."""
    bound = shape[1] ** -0.5
    return torch.empty(shape).uniform_(-bound, bound)
