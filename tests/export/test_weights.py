"""Weights that are computed when they are written: the files are the same as from protobuf and onnxruntime."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import pytest
from conftest import LanguageModelFolder
from onnxruntime.quantization import QuantType, quantize_dynamic
from onnxruntime.quantization.matmul_nbits_quantizer import MatMulNBitsQuantizer

from edgetune_export import export_bundle, external, load_backbone, quantize, weights
from edgetune_export.weights import Weights
from edgetune_runtime import Bundle

Rewriting = Callable[[onnx.ModelProto, Weights], onnx.ModelProto]


@pytest.mark.parametrize("architecture", ["bert"])
def test_a_bundle_is_the_same_if_all_weights_stay_out_of_the_graph(
    language_model_folder: LanguageModelFolder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, architecture: str
) -> None:
    backbone = load_backbone(str(language_model_folder(architecture)))
    digests = []
    for smallest in (1 << 40, 1024):
        monkeypatch.setattr(weights, "SMALLEST_TAKEN", smallest)
        folder = tmp_path / str(smallest)
        export_bundle(backbone, folder, precisions=("fp32", "int8", "q4"))
        digests.append({name: found for name, found in Bundle(folder).manifest.files.items() if "onnx/" in name})
    assert len(digests[0]) == 9
    assert digests[0] == digests[1]


def products(random: np.random.Generator, taken: Weights) -> onnx.ModelProto:
    """Two products with the same input, one of which feeds a third, with weights of uneven channels."""
    shapes = {"first": (48, 32), "second": (48, 40), "third": (32, 32)}
    arrays = {
        name: random.normal(size=shape).astype(np.float32) * random.uniform(0.1, 9, shape[1]).astype(np.float32)
        for name, shape in shapes.items()
    }
    arrays["third"][:, 5] = 0
    nodes = [
        onnx.helper.make_node("MatMul", ["x", "first"], ["y"], name="a"),
        onnx.helper.make_node("MatMul", ["x", "second"], ["z"], name="b"),
        onnx.helper.make_node("MatMul", ["y", "third"], ["end"], name="c"),
    ]
    graph = onnx.helper.make_graph(
        nodes,
        "g",
        [onnx.helper.make_tensor_value_info("x", onnx.TensorProto.FLOAT, ["n", 48])],
        [onnx.helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, None) for name in ("z", "end")],
        [taken.tensor(name, np.float32, array.shape, lambda array=array: array) for name, array in arrays.items()],
    )
    opsets = [onnx.helper.make_opsetid("", 20), onnx.helper.make_opsetid("com.microsoft", 1)]
    return onnx.helper.make_model(graph, opset_imports=opsets, ir_version=10)


def by_onnxruntime_int8(path: Path) -> onnx.ModelProto:
    quantize_dynamic(
        path,
        path.with_name("int8.onnx"),
        op_types_to_quantize=["MatMul"],
        per_channel=True,
        weight_type=QuantType.QInt8,
        extra_options={"MatMulConstBOnly": True, "WeightSymmetric": True},
    )
    return onnx.load(path.with_name("int8.onnx"))


def by_onnxruntime_q4(path: Path) -> onnx.ModelProto:
    quantizer = MatMulNBitsQuantizer(onnx.load(path), bits=4, block_size=32, is_symmetric=False, accuracy_level=4)
    quantizer.process()
    found: onnx.ModelProto = quantizer.model.model
    return found


@pytest.mark.parametrize(
    ("rewriting", "reference"),
    [(quantize.quantize_by_run, by_onnxruntime_int8), (quantize.q4, by_onnxruntime_q4)],
    ids=["int8", "q4"],
)
@pytest.mark.parametrize("smallest", [1, 1 << 40], ids=["outside", "inside"])
def test_quantized_as_onnxruntime_quantizes(
    rewriting: Rewriting,
    reference: Callable[[Path], onnx.ModelProto],
    smallest: int,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The same nodes and the same weights, byte by byte."""
    monkeypatch.setattr(weights, "SMALLEST_TAKEN", smallest)
    taken = Weights()
    model = products(np.random.default_rng(0), taken)
    path = tmp_path / "fp32.onnx"
    path.write_bytes(b"".join(external.graph_chunks(model, taken)))
    sides = []
    got = tmp_path / "got.onnx"
    got.write_bytes(b"".join(external.graph_chunks(rewriting(model, taken), taken)))
    for side in (onnx.load(got), reference(path)):
        nodes = [
            (node.op_type, list(node.input), list(node.output), sorted(map(str, node.attribute)))
            for node in side.graph.node
        ]
        tensors = {one.name: onnx.numpy_helper.to_array(one).tobytes() for one in side.graph.initializer}
        sides.append((sorted(map(str, nodes)), tensors))
    assert sides[0] == sides[1]


@pytest.mark.parametrize("limit", [1, 1 << 40], ids=["beside", "within"])
def test_the_file_is_what_protobuf_writes(limit: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(weights, "SMALLEST_TAKEN", 1)
    monkeypatch.setattr(external, "LARGEST_GRAPH", limit)
    taken = Weights()
    model = products(np.random.default_rng(0), taken)
    whole = onnx.ModelProto()
    whole.CopyFrom(model)
    for tensor in whole.graph.initializer:
        tensor.raw_data = bytes(taken.data(tensor))
    lie = external.lay_out(model, "model.onnx", "model.onnx.data")
    if limit == 1:
        (tmp_path / "model.onnx.data").write_bytes(b"".join(external.data_chunks(model, taken, lie)))
        (tmp_path / "model.onnx").write_bytes(b"".join(external.graph_chunks(model, taken, lie)))
        assert {place.file for place in lie.values()} == {"model.onnx.data"}
        assert all(place.offset % 4096 == 0 for place in lie.values())
    else:
        data = b"".join(external.graph_chunks(model, taken))
        assert data == whole.SerializeToString()
        (tmp_path / "model.onnx").write_bytes(data)
        # A variant takes its weights from that file.
        (tmp_path / "variant.onnx").write_bytes(b"".join(external.graph_chunks(model, taken, lie)))
    for path in tmp_path.glob("*.onnx"):
        read = onnx.load(path)
        for expected, found in zip(whole.graph.initializer, read.graph.initializer, strict=True):
            np.testing.assert_array_equal(
                onnx.numpy_helper.to_array(found), onnx.numpy_helper.to_array(expected), strict=True
            )
