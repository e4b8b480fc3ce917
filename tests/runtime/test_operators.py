"""Operators rewritten in a graph's bytes: the same answers to the bit, or no rewriting."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx
import onnxruntime as ort
import pytest
from onnx import TensorProto, helper

from edgetune_runtime.errors import BundleError
from edgetune_runtime.operators import ONNX_ATTENTION, OWN_ATTENTION, with_attention

OWN = "com.microsoft"
WIDTH, HEADS, TEXT, SEEN = 8, 2, 3, 5
OTHER = {ONNX_ATTENTION: OWN_ATTENTION, OWN_ATTENTION: ONNX_ATTENTION}
INPUTS = {ONNX_ATTENTION: ["q", "k", "v", "mask"], OWN_ATTENTION: ["q", "k", "v", "", "", "mask"]}
ATTRIBUTES: dict[str, dict[str, Any]] = {
    ONNX_ATTENTION: {"q_num_heads": HEADS, "kv_num_heads": HEADS, "scale": 0.3},
    OWN_ATTENTION: {"num_heads": HEADS, "scale": 0.3},
}


def model(operator: str, inputs: list[str] | None = None, **changed: Any) -> bytes:
    """A graph of a sum and an attention."""
    attributes = {**ATTRIBUTES[operator], **changed}
    domain = OWN if operator == OWN_ATTENTION else ""
    nodes = [
        helper.make_node("Add", ["q", "q"], ["unused"], name=f"not an {operator}"),
        helper.make_node(operator, inputs or INPUTS[operator], ["out"], name="one", domain=domain, **attributes),
    ]
    shapes = {"q": [1, TEXT, WIDTH], "k": [1, SEEN, WIDTH], "v": [1, SEEN, WIDTH], "mask": [1, HEADS, TEXT, SEEN]}
    given = [helper.make_tensor_value_info(name, TensorProto.FLOAT, shape) for name, shape in shapes.items()]
    out = helper.make_tensor_value_info("out", TensorProto.FLOAT, [1, TEXT, WIDTH])
    opsets = [helper.make_opsetid("", 23 if operator == ONNX_ATTENTION else 20), helper.make_opsetid(OWN, 1)]
    if operator == ONNX_ATTENTION:
        opsets.pop()
    made = helper.make_model(helper.make_graph(nodes, "g", given, [out]), opset_imports=opsets, ir_version=10)
    return made.SerializeToString()


def output(graph: bytes) -> np.ndarray:
    options = ort.SessionOptions()
    options.intra_op_num_threads = 1
    random = np.random.default_rng(0)
    shapes = {"q": (1, TEXT, WIDTH), "k": (1, SEEN, WIDTH), "v": (1, SEEN, WIDTH), "mask": (1, HEADS, TEXT, SEEN)}
    feed = {name: random.normal(0, 1, shape).astype(np.float32) for name, shape in shapes.items()}
    return ort.InferenceSession(graph, options, providers=["CPUExecutionProvider"]).run(["out"], feed)[0]


@pytest.mark.parametrize("operator", OTHER)
def test_the_other_operator_gives_the_same(operator: str) -> None:
    before = model(operator)
    changed = with_attention(before, OTHER[operator])
    assert changed is not None
    onnx.checker.check_model(onnx.load_from_string(changed))
    nodes = [(node.op_type, node.name) for node in onnx.load_from_string(changed).graph.node]
    assert nodes == [("Add", f"not an {operator}"), (OTHER[operator], "one")]
    np.testing.assert_allclose(output(changed), output(before), rtol=1e-6, atol=1e-7)


@pytest.mark.parametrize("operator", OTHER)
def test_there_and_back_is_the_same_graph(operator: str) -> None:
    there = with_attention(model(operator), OTHER[operator])
    assert there is not None
    back = with_attention(there, operator)
    assert back is not None
    before, after = (onnx.load_from_string(one).graph for one in (model(operator), back))
    for one in (before, after):
        for node in one.node:
            node.attribute.sort(key=lambda attribute: attribute.name)
    assert before == after


@pytest.mark.parametrize("operator", OTHER)
def test_a_graph_without_the_other_operator_is_not_changed(operator: str) -> None:
    assert with_attention(model(operator), operator) is None


@pytest.mark.parametrize(
    "graph",
    [
        model(ONNX_ATTENTION, kv_num_heads=1),
        model(ONNX_ATTENTION, is_causal=1),
        model(ONNX_ATTENTION, inputs=["q", "k", "v"]),
        model(ONNX_ATTENTION, inputs=["q", "k", "v", "mask", "k", "v"]),
        model(OWN_ATTENTION, inputs=["q", "k", "v"]),
        model(OWN_ATTENTION, inputs=["q", "k", "v", "q", "", "mask"]),
        model(OWN_ATTENTION, unidirectional=1),
    ],
    ids=["shared heads", "causal", "no mask", "past", "own: no mask", "own: bias", "own: causal"],
)
def test_what_the_other_does_not_know_is_left_as_it_is(graph: bytes) -> None:
    operators = {node.op_type for node in onnx.load_from_string(graph).graph.node}
    (operator,) = operators & OTHER.keys()
    assert with_attention(graph, OTHER[operator]) is None


@pytest.mark.parametrize("damaged", [b"\x3a\xff\x01", model(OWN_ATTENTION)[:-3], b"\x0b"])
def test_bytes_that_are_no_graph_are_an_error(damaged: bytes) -> None:
    with pytest.raises(BundleError, match="not sound ONNX"):
        with_attention(damaged, ONNX_ATTENTION)
