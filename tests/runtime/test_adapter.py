"""Native adapters: plain onnxruntime gives the engine's answers."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import onnxruntime as ort
import pytest
from conftest import TEXTS, MakeTask

from edgetune_runtime import Bundle, Engine, contract
from edgetune_runtime.adapter import save_adapter
from edgetune_runtime.session import int8_saturates


def run_alone(graph: Path, adapter: Path, rows: list[list[int]]) -> np.ndarray:
    """A program that has only onnxruntime and the two files; rows of the same length share a run.

    It reads the mean over each whole text, the tiny backbone's usual pooling.
    """
    loaded = ort.LoraAdapter()
    loaded.Load(str(adapter))
    options = ort.RunOptions()
    options.add_active_adapter(loaded)
    feed = {
        "input_ids": np.array(rows, np.int64),
        "attention_mask": np.ones((len(rows), len(rows[0])), np.int64),
        "token_type_ids": np.zeros((len(rows), len(rows[0])), np.int64),
        "spans": np.full((len(rows), 1, 2), [0, len(rows[0])], np.int64),
        "task_index": np.zeros(len(rows), np.int64),
    }
    exact = ort.SessionOptions()
    if int8_saturates():
        exact.add_session_config_entry("session.x64quantprecision", "1")
    session = ort.InferenceSession(graph, exact, disabled_optimizers=["SkipLayerNormFusion"])
    (logits,) = session.run(["logits"], feed, options)
    return logits[:, 0]


@pytest.mark.parametrize("precision", ["fp32", "int8"])
@pytest.mark.parametrize(("prompt", "prefix"), [(0, 0), (4, 0), (0, 6), (3, 2)])
def test_onnxruntime_alone_answers_as_the_engine(
    bundle: Bundle, make_task: MakeTask, tmp_path: Path, precision: str, prompt: int, prefix: int
) -> None:
    path = tmp_path / "task.onnx_adapter"
    with Engine(bundle, precision) as engine:
        task = engine.add_task(make_task(prompt=prompt, prefix=prefix, labels=4))
        rows = [token_row.ids for token_row in engine.encode(TEXTS, [task] * len(TEXTS))]
        expected = engine.run([(row, task) for row in rows])
    save_adapter(task, bundle.facts, path)
    for row, logits in zip(rows, expected, strict=True):
        (got,) = run_alone(bundle.path / bundle.manifest.graphs[precision].file, path, [row])
        np.testing.assert_allclose(got, logits, rtol=1e-6, atol=1e-6)


def test_a_batch_shares_the_adapters_task(bundle: Bundle, make_task: MakeTask, tmp_path: Path) -> None:
    task, path = make_task(prefix=6), tmp_path / "task.onnx_adapter"
    save_adapter(task, bundle.facts, path)
    rows = [[2, 30, 31, 3], [2, 40, 50, 3], [2, 7, 8, 3]]
    with Engine(bundle, "fp32") as engine:
        expected = np.stack(engine.run([(row, task) for row in rows]))
    got = run_alone(bundle.path / "onnx/model.onnx", path, rows)
    np.testing.assert_allclose(got, expected, atol=1e-5)


def test_it_holds_every_bank_input_of_the_graph(bundle: Bundle, make_task: MakeTask, tmp_path: Path) -> None:
    save_adapter(make_task(), bundle.facts, tmp_path / "task.onnx_adapter")
    held = ort.AdapterFormat.read_adapter(str(tmp_path / "task.onnx_adapter")).get_parameters()
    assert (
        held.keys()
        == contract.BANK_INPUTS.keys() & set(bundle.facts.inputs)
        == contract.BANK_INPUTS.keys() - contract.PART_INPUTS
    )
    for name in held:
        spec = contract.BANK_INPUTS[name]
        assert (held[name].numpy().dtype, held[name].numpy().ndim) == (spec.dtype, len(spec.dims))
    assert [path.name for path in tmp_path.iterdir()] == ["task.onnx_adapter"]


def test_it_holds_nothing_that_the_graph_does_not_take(bundle: Bundle, make_task: MakeTask, tmp_path: Path) -> None:
    """onnxruntime rejects an adapter with a name that is not an input."""
    without = [name for name in bundle.facts.inputs if name not in (contract.POOLING, contract.PROMPT_MASK)]
    save_adapter(make_task(), dataclasses.replace(bundle.facts, inputs=without), tmp_path / "task.onnx_adapter")
    held = ort.AdapterFormat.read_adapter(str(tmp_path / "task.onnx_adapter")).get_parameters()
    assert held.keys() == contract.BANK_INPUTS.keys() - contract.PART_INPUTS - {contract.POOLING, contract.PROMPT_MASK}
