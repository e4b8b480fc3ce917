"""Variants of a graph: each text runs in the cheapest one that takes its task's parts, alone and in mixed batches."""

from __future__ import annotations

import dataclasses
import shutil
from pathlib import Path

import numpy as np
import onnx
import onnxruntime as ort
import pytest
from conftest import TEXTS, MakeTask

from edgetune_runtime import Bundle, Engine, contract, files
from edgetune_runtime.adapter import save_adapter
from edgetune_runtime.errors import BundleError
from edgetune_runtime.external import external_files
from edgetune_runtime.parts import LOW_RANK, UNITS, Part
from edgetune_runtime.task import Task
from edgetune_runtime.verify import findings

LIGHT = (LOW_RANK["query"], LOW_RANK["value"], UNITS)
FULL = (*LIGHT, LOW_RANK["key"], LOW_RANK["output"], LOW_RANK["widen"], LOW_RANK["narrow"])


def with_parts(bundle: Bundle, task: Task, parts: tuple[Part, ...], length: int) -> Task:
    """The task with random tensors of these parts."""
    random = np.random.default_rng(length)
    lengths = {part.length: length for part in parts}
    shapes = {
        name: bundle.facts.sizes.of(contract.TASK_TENSORS[name], **lengths) for part in parts for name in part.tensors
    }
    given = {name: random.normal(0, 0.2, shape).astype(np.float32) for name, shape in shapes.items()}
    return dataclasses.replace(task, tensors={**task.tensors, **given})


@pytest.fixture(scope="module")
def tasks(bundle: Bundle, make_task: MakeTask) -> list[Task]:
    """Various tasks, with parts of unequal lengths."""
    return [
        make_task("plain", prefix=0),
        make_task("prefix", prefix=4),
        with_parts(bundle, make_task("rank-2", prefix=0), LIGHT[:2], 2),
        with_parts(bundle, make_task("rank-5", prompt=3, prefix=0), LIGHT[:2], 5),
        with_parts(bundle, make_task("units", prefix=2), (UNITS,), 3),
        with_parts(bundle, make_task("everything", prompt=2, prefix=3), FULL, 4),
    ]


def logits(engine: Engine, rows: list[tuple[str, Task]]) -> list[np.ndarray]:
    read = engine.encode([text for text, _ in rows], [task for _, task in rows])
    return engine.run([(tokens, task) for tokens, (_, task) in zip(read, rows, strict=True)])


@pytest.mark.parametrize("batch_size", [1, 4, 32])
def test_tasks_with_other_parts_share_a_batch(bundle: Bundle, tasks: list[Task], batch_size: int) -> None:
    rows = [(text, task) for text in TEXTS for task in tasks]
    with Engine(bundle, "fp32", batch_size=batch_size) as engine:
        together = logits(engine, rows)
    with Engine(bundle, "fp32") as engine:
        for row, found in zip(rows, together, strict=True):
            (alone,) = logits(engine, [row])
            np.testing.assert_allclose(found, alone, atol=1e-5)


@pytest.mark.parametrize("precision", ["fp32", "int8"])
def test_a_task_runs_in_the_cheapest_graph_that_takes_it(bundle: Bundle, tasks: list[Task], precision: str) -> None:
    wanted = ["base", "base", "light", "light", "light", "full"]
    with Engine(bundle, precision, threads=1) as engine:
        for task, variant in zip(tasks, wanted, strict=True):
            engine._runner._sessions.clear()
            logits(engine, [(TEXTS[0], task)])
            assert list(engine._runner._sessions) == [(precision, variant, 1)]


def test_what_the_tasks_need_is_open_before_the_first_text(bundle: Bundle, tasks: list[Task]) -> None:
    with Engine(bundle, "fp32", threads=1) as engine:
        engine.open(1)
        assert [variant for _, variant, _ in engine._runner._sessions] == ["base"]
        for task in (tasks[1], tasks[2]):
            engine.add_task(task)
        engine.open(1)
        assert {variant for _, variant, _ in engine._runner._sessions} == {"base", "light"}


def test_the_parts_change_the_answer_and_quantized_graphs_agree(bundle: Bundle, tasks: list[Task]) -> None:
    for task in tasks[2:]:
        bare = {name: tensor for name, tensor in task.tensors.items() if name not in contract.PART_INPUTS}
        without = dataclasses.replace(task, tensors=bare)
        found = {}
        for precision in ("fp32", "int8"):
            with Engine(bundle, precision) as engine:
                found[precision] = np.stack(logits(engine, [(text, task) for text in TEXTS]))
                changed = found[precision] - np.stack(logits(engine, [(text, without) for text in TEXTS]))
                assert np.abs(changed).max() > 0.05
        error = np.linalg.norm(found["int8"] - found["fp32"]) / np.linalg.norm(found["fp32"])
        assert error < 0.1


def test_variants_hold_no_weights_of_their_own(bundle: Bundle) -> None:
    for precision, graph in bundle.manifest.graphs.items():
        assert graph.variants.keys() == {"light", "full"}
        for variant, path in graph.variants.items():
            data, weights = bundle.read_graph(precision, variant)
            assert external_files(data) == set(weights) == {Path(graph.file).name}
            model = onnx.load_model_from_string(data)
            assert max(len(tensor.raw_data) for tensor in model.graph.initializer) < 1024
            assert files.sha256(data) == bundle.manifest.files[path]


@pytest.mark.parametrize("variant", ["light", "full"])
@pytest.mark.parametrize("precision", ["fp32", "int8"])
def test_onnxruntime_alone_runs_a_variant_with_an_adapter(
    bundle: Bundle, tasks: list[Task], tmp_path: Path, precision: str, variant: str
) -> None:
    task = tasks[4] if variant == "light" else tasks[5]
    path = tmp_path / "task.onnx_adapter"
    assert save_adapter(task, bundle.facts, path) == variant
    with Engine(bundle, precision, threads=1) as engine:
        tokens = engine.encode([TEXTS[1]], [task])[0]
        (expected,) = engine.run([(tokens, task)])
    adapter, options = ort.LoraAdapter(), ort.RunOptions()
    adapter.Load(str(path))
    options.add_active_adapter(adapter)
    length = len(tokens.ids)
    feed = {
        "input_ids": np.array([tokens.ids]),
        "attention_mask": np.ones((1, length), np.int64),
        "token_type_ids": np.zeros((1, length), np.int64),
        "spans": np.array([tokens.spans]),
        "task_index": np.zeros(1, np.int64),
    }
    file = bundle.path / bundle.manifest.graphs[precision].variants[variant]
    session = ort.InferenceSession(file, disabled_optimizers=["SkipLayerNormFusion"])
    (found,) = session.run(["logits"], feed, options)
    np.testing.assert_allclose(found[0, 0], expected, atol=1e-5 if precision == "fp32" else 0.05)


def test_a_bundle_without_a_variant_answers_the_tasks_that_do_not_need_it(
    bundle: Bundle, tasks: list[Task], tmp_path: Path
) -> None:
    copied = shutil.copytree(bundle.path, tmp_path / "bundle")
    (copied / "onnx/model_light.onnx").unlink()
    with Engine(copied, "fp32") as engine:
        assert len(logits(engine, [(TEXTS[0], tasks[1])])) == 1
        with pytest.raises(BundleError, match=r"onnx/model_light\.onnx"):
            logits(engine, [(TEXTS[0], tasks[2])])
    notes = {finding.subject: finding.message for finding in findings(copied) if finding.status != "sound"}
    assert notes == {"onnx/model_light.onnx": "it is not there: fp32 with tasks that need light cannot be run"}


def test_a_damaged_variant_is_a_fault(bundle: Bundle, tmp_path: Path) -> None:
    copied = shutil.copytree(bundle.path, tmp_path / "bundle")
    file = copied / "onnx/model_full.onnx"
    file.write_bytes(file.read_bytes()[:-1] + b"\0")
    faults = [finding.subject for finding in findings(copied) if finding.status == "fault"]
    assert "onnx/model_full.onnx" in faults
