"""The backbone as an ONNX graph that follows `edgetune_runtime.contract`."""

from __future__ import annotations

from collections.abc import Callable, Iterable

import numpy as np
import onnx
import onnx.numpy_helper
import onnx_ir
import torch
from torch import Tensor, nn

from edgetune_export import half
from edgetune_export.backbone import Backbone
from edgetune_export.quiet import quiet
from edgetune_export.weights import Weights
from edgetune_runtime import contract
from edgetune_runtime.arrays import Array
from edgetune_runtime.errors import BackboneError
from edgetune_runtime.parts import lengths_of

OPSET_VERSION = 20

_EXAMPLE_LENGTHS = {"batch": 2, "labels": 3, "tasks": 4, "prompt": 5, "prefix": 6, "spans": 7, "sequence": 9}
"""Example lengths for tracing. They all differ, because the exporter would treat equal lengths as one dimension. Other
dimensions get lengths from 10 on."""


def to_onnx(backbone: Backbone, weights: Weights) -> onnx.ModelProto:
    """Export a backbone with PyTorch's dynamo exporter, with all lengths of the contract dynamic.

    Args:
        backbone: the backbone.
        weights: receives the large tensors.

    Raises:
        BackboneError: the exporter cannot trace the model.
    """
    example = _example_inputs(backbone)
    axes = {
        name: {
            axis: torch.export.Dim(dim) if dim == "labels" else dim
            for axis, dim in enumerate(spec.dims)
            if dim in contract.DYNAMIC_DIMS
        }
        for name, spec in _specs(backbone).items()
    }
    # The exporter warns about dimension names that inputs share, which is intended.
    with quiet(), half.traced_as_fp32(backbone.model) as weight_of:
        try:
            program = torch.onnx.export(
                _OfNamedInputs(backbone),
                kwargs={"inputs": example},
                dynamo=True,
                input_names=list(example),
                output_names=list(contract.outputs(backbone.inputs)),
                dynamic_shapes={"inputs": axes},
                opset_version=OPSET_VERSION,
                external_data=False,
                verbose=False,
            )
        except torch.onnx.errors.OnnxExporterError as error:
            reason = str(error.__cause__ or error).strip().splitlines()[0]
            raise BackboneError(
                f"{backbone.name} ({backbone.architecture}) could not be exported to ONNX: {reason}"
            ) from error
        if program is None:
            raise BackboneError(f"{backbone.name} ({backbone.architecture}) gave no ONNX program")
        _take_large(program.model.graph.initializers.values(), weights, weight_of)
    model: onnx.ModelProto = program.model_proto
    for tensor in model.graph.initializer:
        tensor.ClearField("data_location")
        tensor.ClearField("external_data")
    return model


def _take_large(
    values: Iterable[onnx_ir.Value], weights: Weights, weight_of: Callable[[Array], Callable[[], Array] | None]
) -> None:
    """Move the contents of the large tensors from a graph to `weights`; only names, types and shapes stay.

    The tensors are views of the backbone's.

    Args:
        values: the graph's values.
        weights: receives them.
        weight_of: the result of `half.traced_as_fp32`.
    """
    for value in values:
        tensor = value.const_value
        if tensor is None or not weights.takes(tensor.nbytes):
            continue
        weights.put(str(value.name), weight_of(tensor.numpy()) or tensor.numpy)
        value.const_value = onnx_ir.ExternalTensor(
            "", None, None, tensor.dtype, shape=tensor.shape, name=str(value.name)
        )


def with_default_bank(model: onnx.ModelProto, backbone: Backbone) -> onnx.ModelProto:
    """Give each bank input a default of one empty task.

    So the graph runs with only text (its `features` are those of the bare backbone), and onnxruntime's native adapters,
    which bind to initializers, can set any of them.
    """
    empty = {"tasks": 1, **lengths_of({})}
    taken = {value.name for value in model.graph.input}
    for name, spec in contract.BANK_INPUTS.items():
        if name not in taken:
            continue
        array = np.zeros(backbone.sizes.shape(name, **empty), spec.dtype)
        if name == contract.POOLING:
            array[:] = contract.POOLINGS.index(backbone.poolings[0])
        model.graph.initializer.append(onnx.numpy_helper.from_array(array, name))
    return model


class _OfNamedInputs(nn.Module):
    """A backbone that takes its inputs as one dictionary: torch.export supports only arguments in the signature."""

    def __init__(self, backbone: Backbone) -> None:
        super().__init__()
        self.backbone = backbone

    def forward(self, inputs: dict[str, Tensor]) -> tuple[Tensor, Tensor]:
        outputs: tuple[Tensor, Tensor] = self.backbone(**inputs)
        return outputs


def _specs(backbone: Backbone) -> dict[str, contract.GraphInput]:
    """The inputs of its graph."""
    return {name: contract.INPUTS[name] for name in backbone.inputs}


def _example_inputs(backbone: Backbone) -> dict[str, torch.Tensor]:
    others = [dim for dim in contract.DYNAMIC_DIMS if dim not in _EXAMPLE_LENGTHS]
    more = {dim: 10 + place for place, dim in enumerate(others)}
    sizes = {**vars(backbone.sizes), "ends": 2, **_EXAMPLE_LENGTHS, **more}
    example = {}
    for name, spec in _specs(backbone).items():
        shape = tuple(sizes[dim] for dim in spec.dims)
        example[name] = torch.ones(shape, dtype=getattr(torch, spec.dtype))
    example[contract.TASK_INDEX] = torch.arange(sizes["batch"])
    if contract.SPANS in example:
        example[contract.SPANS][..., 0] = 0
    return example
