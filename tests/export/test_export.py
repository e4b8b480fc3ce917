"""Exporting a bundle: all or nothing, with recorded measurements."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import numpy as np
import pytest
from conftest import TEXTS, MakeTask
from kinds_of_tasks import TASKS, given, make_tasks

from edgetune.cli.export import export
from edgetune_export import CheckTexts, export_bundle, load_backbone
from edgetune_export.backbone import Backbone
from edgetune_export.quantize import PRECISIONS
from edgetune_runtime import Bundle, Engine, contract
from edgetune_runtime.errors import AccuracyDropError, BundleError, DataError, TaskError
from edgetune_runtime.kinds import KINDS, Result, Target


@pytest.fixture(scope="module")
def backbone(model_folder: Path) -> Backbone:
    return load_backbone(str(model_folder))


def test_parity_is_measured_and_written(backbone: Backbone, make_task: MakeTask, tmp_path: Path) -> None:
    task = make_task("checked", prefix=4)
    with _engine_for(backbone, tmp_path / "first") as engine:
        engine.add_task(task)
        labels = [result.label for result in engine.classify(TEXTS, task="checked")]
    labels[0] = next(label for label in task.labels if label != labels[0])
    folder = tmp_path / "second"
    export_bundle(backbone, folder, tasks=[task], checks={"checked": CheckTexts(TEXTS, labels)}, max_drop=1)
    manifest = Bundle(folder).manifest
    parity = manifest.graphs["fp32"].parity["checked"]
    assert parity.rows == len(TEXTS)
    assert parity.max_logit_difference < 1e-4
    assert parity.label_agreement == 1
    assert (parity.figure, parity.drop) == ("accuracy", 0)
    assert parity.value == parity.value_torch == 1 - 1 / len(TEXTS)
    assert 1e-4 < manifest.graphs["int8"].parity["checked"].max_logit_difference < 5
    card = (folder / "README.md").read_text()
    assert f"| fp32 | checked | {len(TEXTS)} |" in card
    assert Bundle(folder).task_names() == ["checked"]


def right(result: Result) -> Target:
    """An answer as a target in data."""
    kind, fields = KINDS[TASKS[result.task][1].get("kind_name", "single-label")], result.fields()
    if "answer" in fields:
        return kind.target(fields["answer"] and {"text": fields["answer"], "answer_start": fields["start"]})
    return kind.target(next(iter(fields.values())))


@pytest.mark.parametrize("pairs", [False, True])
def test_parity_is_measured_in_the_figure_of_each_kind(
    backbone: Backbone, bundle: Bundle, make_task: MakeTask, tmp_path: Path, pairs: bool
) -> None:
    """On texts whose targets are the answers of fp32, if possible; otherwise without a figure."""
    tasks = [task for task in make_tasks(make_task).values() if task.pairs == pairs]
    assert {task.kind_name for task in tasks} == KINDS.keys() - ({"spans"} if not pairs else set())
    checks = {}
    with Engine(bundle, "fp32") as engine:
        for task in tasks[:-1]:
            engine.add_task(task)
            texts = given(task.name)
            checks[task.name] = CheckTexts(texts, [right(one) for one in engine.classify(texts, task.name)])
    folder = tmp_path / "bundle"
    export_bundle(backbone, folder, precisions=["fp32"], tasks=tasks, checks=checks, max_drop=1)
    manifest = Bundle(folder).manifest
    for task in tasks:
        parity = manifest.graphs["fp32"].parity[task.name]
        assert parity.figure == task.kind.headline
        assert parity.label_agreement == pytest.approx(1, abs=1e-4)
        assert parity.max_logit_difference < 1e-4
        if task.name in checks:
            assert parity.rows == len(TEXTS)
            assert parity.value == pytest.approx(parity.value_torch, abs=1e-5)
            assert parity.drop == pytest.approx(0, abs=1e-5)
        else:
            assert parity.rows > len(TEXTS)
            assert (parity.value, parity.value_torch, parity.drop) == (None, None, None)
        assert f"| fp32 | {task.name} | {parity.rows} |" in (folder / "README.md").read_text()
    assert manifest.graphs["fp32"].parity["alike" if pairs else "stars"].value == pytest.approx(1, abs=1e-4)


def test_the_command_line_offers_every_precision() -> None:
    """It has its own list, because `--help` does not load the quantizer."""
    option = next(option for option in export.params if option.name == "precisions")
    assert list(option.type.choices) == list(PRECISIONS)


def _engine_for(backbone: Backbone, folder: Path) -> Engine:
    export_bundle(backbone, folder, precisions=["fp32"])
    return Engine(folder)


def test_the_manifest_spells_out_the_graphs_inputs(bundle: Bundle) -> None:
    record = json.loads((bundle.path / "edgetune.json").read_text())
    assert record["inputs"]["prefix_keys"]["dims"] == ["tasks", "layers", "kv_heads", "prefix", "head_dim"]
    assert record["outputs"]["logits"]["dims"] == ["batch", "spans", "labels"]


def test_a_drop_above_the_limit_stops_and_leaves_nothing(
    backbone: Backbone, make_task: MakeTask, tmp_path: Path
) -> None:
    # Labels from PyTorch itself, for a task that is undecided in the middle of the texts, so that the tiny model's
    # int8 flips some: any flip is a drop.
    from edgetune_export.parity import default_texts, torch_logits

    texts = [f"{a} {b}" for a in default_texts().texts for b in TEXTS]
    task = make_task("checked", labels=2)
    first, second = torch_logits(backbone, task, texts).T
    bias = task.tensors[contract.HEAD_BIAS] + np.array([0, np.median(first - second)], np.float32)
    task = dataclasses.replace(task, tensors={**task.tensors, contract.HEAD_BIAS: bias})
    logits = torch_logits(backbone, task, texts)
    labels = [task.labels[place] for place in logits.argmax(axis=1)]
    with pytest.raises(AccuracyDropError, match=r"int8 loses .* accuracy on task 'checked' \(100.0% to"):
        export_bundle(
            backbone, tmp_path / "bundle", tasks=[task], checks={"checked": CheckTexts(texts, labels)}, max_drop=0
        )
    assert list(tmp_path.iterdir()) == []


def test_a_task_for_another_backbone_is_refused_before_any_work(
    backbone: Backbone, make_task: MakeTask, tmp_path: Path
) -> None:
    task = dataclasses.replace(make_task("other"), backbone_sha256="0" * 64, base_model="another")
    with pytest.raises(TaskError, match=r"'other' was trained on the backbone another \(000000000000…\)"):
        export_bundle(backbone, tmp_path / "bundle", tasks=[task], progress=pytest.fail)
    assert list(tmp_path.iterdir()) == []


def test_check_labels_that_the_task_has_not_are_named(backbone: Backbone, make_task: MakeTask, tmp_path: Path) -> None:
    check = CheckTexts(["a text"], ["green"])
    with pytest.raises(DataError, match="labels that the task does not have: green; it has label0, label1, label2"):
        export_bundle(backbone, tmp_path / "bundle", tasks=[make_task("checked")], checks={"checked": check})


def test_what_is_there_is_replaced_only_when_asked(backbone: Backbone, tmp_path: Path) -> None:
    folder = tmp_path / "bundle"
    export_bundle(backbone, folder, precisions=["fp32"])
    with pytest.raises(BundleError, match="already exists: name another folder, or pass `overwrite`"):
        export_bundle(backbone, folder, precisions=["fp32"])
    export_bundle(backbone, folder, precisions=["fp32"], overwrite=True)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["bundle"]
    assert set(Bundle(folder).manifest.graphs) == {"fp32"}


def test_a_folder_that_is_no_bundle_is_never_replaced(backbone: Backbone, tmp_path: Path) -> None:
    (tmp_path / "letters").mkdir()
    (tmp_path / "letters" / "dear.txt").write_text("keep me")
    with pytest.raises(BundleError, match="is not a bundle"):
        export_bundle(backbone, tmp_path / "letters", overwrite=True)
    assert (tmp_path / "letters" / "dear.txt").read_text() == "keep me"
