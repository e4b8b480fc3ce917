"""Sessions: int8 products are exact on every CPU."""

from __future__ import annotations

import numpy as np
import onnx
import onnx.helper
import onnx.numpy_helper
import pytest

from edgetune_runtime import session
from edgetune_runtime.devices import CPU


def product_of(weights: np.ndarray, rows: int) -> bytes:
    """A graph that multiplies x [rows, …] with constant int8 weights."""
    depth, width = weights.shape
    graph = onnx.helper.make_graph(
        [onnx.helper.make_node("MatMulInteger", ["x", "w"], ["y"])],
        "pair",
        [onnx.helper.make_tensor_value_info("x", onnx.TensorProto.UINT8, [rows, depth])],
        [onnx.helper.make_tensor_value_info("y", onnx.TensorProto.INT32, [rows, width])],
        [onnx.numpy_helper.from_array(weights, "w")],
    )
    opsets = [onnx.helper.make_opsetid("", 13)]
    return onnx.helper.make_model(graph, opset_imports=opsets, ir_version=8).SerializeToString()


def test_the_graph_that_tries_a_pair_is_what_it_says() -> None:
    assert product_of(np.full((2, 1), 127, np.int8), rows=1) == session._LARGEST_PAIR


@pytest.mark.parametrize("saturates", [False, True])
def test_products_are_made_exact_only_where_they_are_not(saturates: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """On a CPU with VNNI the option would disable its faster kernels."""
    monkeypatch.setattr(session, "int8_saturates", lambda: saturates)
    opened = session.open_any(product_of(np.full((2, 1), 127, np.int8), rows=1), CPU, 1)
    try:
        found = opened.get_session_options().get_session_config_entry("session.x64quantprecision")
    except RuntimeError:  # it was not set
        found = "0"
    assert found == str(int(saturates))


@pytest.mark.parametrize("rows", [1, 40])
def test_int8_products_are_exact(rows: int) -> None:
    random = np.random.default_rng(0)
    weights = random.integers(-127, 128, (96, 64)).astype(np.int8)
    weights[:, 0], weights[:, 1] = 127, -127
    x = random.integers(0, 256, (rows, 96)).astype(np.uint8)
    x[0] = 255
    (got,) = session.open_any(product_of(weights, rows), CPU, 1).run(None, {"x": x})
    np.testing.assert_array_equal(got, x.astype(np.int64) @ weights.astype(np.int64))
