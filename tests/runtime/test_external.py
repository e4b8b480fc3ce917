"""The files that a graph names, found in all places where a tensor can be."""

from __future__ import annotations

import contextlib
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx import helper

from edgetune_runtime.errors import BundleError
from edgetune_runtime.external import CHILDREN, external_files, without_weights


def outside(location: str) -> onnx.TensorProto:
    """A tensor whose numbers are in a file."""
    tensor = onnx.TensorProto(name="w", data_type=onnx.TensorProto.FLOAT, dims=[2])
    tensor.data_location = onnx.TensorProto.EXTERNAL
    for key, value in {"offset": "0", "location": location, "length": "8"}.items():
        tensor.external_data.add(key=key, value=value)
    return tensor


def graph_with(**parts: Any) -> onnx.GraphProto:
    return onnx.GraphProto(name="g", **parts)


def model_with(graph: onnx.GraphProto, **more: Any) -> onnx.ModelProto:
    return onnx.ModelProto(ir_version=10, graph=graph, **more)


def attribute(**value: Any) -> onnx.NodeProto:
    return onnx.NodeProto(op_type="Op", attribute=[onnx.AttributeProto(name="a", **value)])


SPARSE = onnx.SparseTensorProto(values=outside("a"), indices=outside("b"))
INNER = graph_with(initializer=[outside("a")], node=[attribute(tensors=[outside("b")])])
INSIDE = onnx.numpy_helper.from_array(np.frombuffer(b"\x0a\x08location\x12\x03abc" * 4, np.uint8), "bytes")


@pytest.mark.parametrize(
    ("model", "expected"),
    [
        (model_with(graph_with(initializer=[INSIDE])), set()),
        (model_with(graph_with(initializer=[outside("a"), INSIDE, outside("../b"), outside("a")])), {"a", "../b"}),
        (model_with(graph_with(initializer=[outside("*/_ORT_MEM_ADDR_/*")])), {"*/_ORT_MEM_ADDR_/*"}),
        (model_with(graph_with(sparse_initializer=[SPARSE])), {"a", "b"}),
        (model_with(graph_with(node=[attribute(t=outside("a"))])), {"a"}),
        (model_with(graph_with(node=[attribute(g=INNER)])), {"a", "b"}),
        (model_with(graph_with(node=[attribute(graphs=[INNER])])), {"a", "b"}),
        (model_with(graph_with(node=[attribute(sparse_tensor=SPARSE)])), {"a", "b"}),
        (model_with(graph_with(node=[attribute(sparse_tensors=[SPARSE])])), {"a", "b"}),
        (model_with(graph_with(), functions=[onnx.FunctionProto(node=[attribute(g=INNER)])]), {"a", "b"}),
        (model_with(graph_with(), training_info=[onnx.TrainingInfoProto(algorithm=INNER)]), {"a", "b"}),
    ],
)
def test_files_are_found_wherever_they_are_named(model: onnx.ModelProto, expected: set[str]) -> None:
    assert external_files(model.SerializeToString()) == expected


def test_all_fields_that_lead_to_a_tensor_are_known() -> None:
    """Compared with onnx's own description of its messages."""
    pending, seen = [onnx.ModelProto.DESCRIPTOR], {}
    while pending:
        message = pending.pop()
        if message.name not in seen:
            seen[message.name] = message
            pending += [field.message_type for field in message.fields if field.message_type]
    leading = {"TensorProto"}
    while True:  # until no further message contains one of the previous ones
        more = {
            name
            for name, message in seen.items()
            if any(field.message_type and field.message_type.name in leading for field in message.fields)
        }
        if more <= leading:
            break
        leading |= more
    expected = {
        name: {
            field.number: field.message_type.name
            for field in seen[name].fields
            if field.message_type and field.message_type.name in leading
        }
        for name in leading
    }
    expected["TensorProto"] = {onnx.TensorProto.EXTERNAL_DATA_FIELD_NUMBER: "external_data"}
    assert expected == CHILDREN


WHOLE = model_with(
    helper.make_graph(
        [helper.make_node("Add", ["x", "w"], ["y"])],
        "g",
        [helper.make_tensor_value_info("x", onnx.TensorProto.FLOAT, [2])],
        [helper.make_tensor_value_info("y", onnx.TensorProto.FLOAT, [2])],
        [outside("a")],
    )
).SerializeToString()


@settings(deadline=None, max_examples=300)
@given(st.binary(max_size=60) | st.integers(0, len(WHOLE) - 1).map(lambda end: WHOLE[:end]))
def test_any_bytes_give_names_or_a_bundle_error(data: bytes) -> None:
    with contextlib.suppress(BundleError):
        external_files(data)


@settings(deadline=None, max_examples=300)
@given(st.integers(0, len(WHOLE) - 1), st.integers(0, 255))
def test_what_protobuf_reads_is_read_alike(place: int, byte: int) -> None:
    """No change of a byte makes onnx find a file that is not found here."""
    data = WHOLE[:place] + bytes([byte]) + WHOLE[place + 1 :]
    try:
        model = onnx.ModelProto.FromString(data)
    except Exception:  # noqa: BLE001 - protobuf's own errors differ between its implementations
        return
    named = {
        entry.value for tensor in model.graph.initializer for entry in tensor.external_data if entry.key == "location"
    }
    with contextlib.suppress(BundleError):
        assert named <= external_files(data)


@pytest.mark.parametrize("location", [onnx.TensorProto.DEFAULT, None], ids=["said to be inside", "not said"])
def test_large_weights_are_left_in_their_file(location: int | None, tmp_path: Path) -> None:
    arrays = {"large": np.arange(600, dtype=np.float32), "more": np.ones((3, 400), np.int8), "small": np.ones(5)}
    tensors = [onnx.numpy_helper.from_array(array, name) for name, array in arrays.items()]
    if location is not None:
        for tensor in tensors:
            tensor.data_location = location
    inside = onnx.numpy_helper.from_array(np.zeros(900, np.float32), "value")
    model = model_with(graph_with(initializer=tensors, node=[attribute(t=inside)]), producer_name="someone")
    data = model.SerializeToString()
    (tmp_path / "whole.onnx").write_bytes(data)
    left = without_weights(data, "whole.onnx")
    assert external_files(left) == {"whole.onnx"}
    assert len(left) < len(data) - sum(array.nbytes for array in list(arrays.values())[:2]) + 200
    (tmp_path / "left.onnx").write_bytes(left)
    read = onnx.load(tmp_path / "left.onnx")
    for expected, tensor in zip(arrays.values(), read.graph.initializer, strict=True):
        np.testing.assert_array_equal(onnx.numpy_helper.to_array(tensor), expected, strict=True)
    del model.graph.initializer[:], read.graph.initializer[:]
    assert read == model


@settings(deadline=None, max_examples=300)
@given(st.binary(max_size=60) | st.integers(0, len(WHOLE) - 1).map(lambda end: WHOLE[:end]))
def test_any_bytes_without_weights_are_the_same_or_a_bundle_error(data: bytes) -> None:
    with contextlib.suppress(BundleError):
        assert without_weights(data, "file") == data


@pytest.mark.parametrize("data", [b"\x0a\x05abc", b"\x0b", b"\x0d\x00", b"\x80" * 11, b"\x0a" + b"\xff" * 9 + b"\x01"])
def test_bytes_that_are_no_graph_are_refused(data: bytes) -> None:
    with pytest.raises(BundleError, match="the graph is not sound ONNX"):
        external_files(data)
