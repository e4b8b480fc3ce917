"""Backbones above 2 GB: weights in a separate file. The limit is lowered for the test; the format is the same."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from conftest import TEXTS, MakeTask

from edgetune_export import export_bundle, external, load_backbone
from edgetune_runtime import Bundle, Engine, files
from edgetune_runtime.errors import BundleError
from edgetune_runtime.verify import findings

PRECISIONS = ("fp32", "int8", "q4")


def export(model_folder: Path, folder: Path) -> Path:
    export_bundle(load_backbone(str(model_folder)), folder, precisions=PRECISIONS)
    return folder


@pytest.fixture(scope="module")
def split(model_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A bundle in all precisions, with separate weight files. Read-only."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(external, "LARGEST_GRAPH", 1)
        return export(model_folder, tmp_path_factory.mktemp("split") / "bundle")


@pytest.fixture(scope="module")
def whole(model_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same with the weights inside the graphs. Read-only."""
    return export(model_folder, tmp_path_factory.mktemp("whole") / "bundle")


@pytest.fixture
def copied(split: Path, tmp_path: Path) -> Path:
    """A bundle that may be changed."""
    return shutil.copytree(split, tmp_path / "bundle")


def replace_graph(folder: Path, name: str, data: bytes) -> None:
    """Replace a file's bytes, and its hash in the manifest."""
    (folder / name).write_bytes(data)
    record = json.loads((folder / files.MANIFEST).read_bytes())
    record["files"][name] = files.sha256(data)
    (folder / files.MANIFEST).write_text(json.dumps(record))


@pytest.mark.parametrize("precision", PRECISIONS)
def test_answers_are_those_of_one_file(
    split: Path, whole: Path, make_task: MakeTask, precision: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    graph = Bundle(split).manifest.graphs[precision]
    assert graph.data == f"{graph.file}.data"
    assert graph.data in Bundle(split).manifest.files
    assert (split / graph.file).stat().st_size < (whole / graph.file).stat().st_size
    assert Bundle(whole).manifest.graphs[precision].data is None
    # A file of that name in the working directory must not be used instead.
    monkeypatch.chdir(tmp_path)
    (tmp_path / Path(graph.data).name).write_bytes(bytes((split / graph.data).stat().st_size))
    logits = []
    for folder in (split, whole):
        with Engine(folder, precision) as engine:
            task = engine.add_task(make_task(prefix=4))
            logits.append(engine.run([(row.ids, task) for row in engine.encode(TEXTS, [task] * len(TEXTS))]))
    np.testing.assert_array_equal(*logits)


def test_no_file_tells_of_the_machine_that_wrote_it(split: Path, whole: Path) -> None:
    """The exporter would record paths and lines of the programs that it ran."""
    traces = ["site-packages", 'File "', "/edgetune_export/", str(Path(torch.__file__).parents[1]), str(split.parent)]
    for folder in (split, whole):
        read = [path for path in folder.rglob("*") if path.is_file()]
        assert len(read) >= 7
        for path in read:
            data = path.read_bytes()
            assert [trace for trace in traces if trace.encode() in data] == [], path


def test_the_bundle_is_sound(split: Path) -> None:
    assert {finding.status for finding in findings(split)} == {"sound"}


def test_the_files_are_plain_onnx(split: Path) -> None:
    """Other programs find the weights as ONNX specifies: by file name, offset and length."""
    for graph in Bundle(split).manifest.graphs.values():
        onnx.checker.check_model(split / graph.file)
        assert external.weight_bytes(onnx.load(split / graph.file)) > 1024


def test_size_counts_all_files(split: Path) -> None:
    graph = Bundle(split).manifest.graphs["fp32"]
    assert graph.data is not None
    every = (graph.file, graph.data, *graph.variants.values())
    assert len(every) == 4
    assert Bundle(split).graph_bytes("fp32") == sum((split / name).stat().st_size for name in every)


def test_variants_take_the_same_weights(split: Path) -> None:
    for precision, graph in Bundle(split).manifest.graphs.items():
        assert graph.data is not None
        for variant in graph.variants:
            _, weights = Bundle(split).read_graph(precision, variant)
            assert list(weights) == [Path(graph.data).name]


def test_damaged_weights_are_refused(copied: Path) -> None:
    path = copied / "onnx/model_int8.onnx.data"
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)
    with pytest.raises(BundleError, match=r"model_int8\.onnx\.data is damaged: its SHA-256 is"):
        Bundle(copied).read_graph("int8")
    path.unlink()
    with pytest.raises(BundleError, match=r"is incomplete \(onnx/model_int8\.onnx\.data: No such file"):
        Bundle(copied).read_graph("int8")


def test_weights_behind_a_link_are_refused(copied: Path, tmp_path: Path) -> None:
    path = copied / "onnx/model.onnx.data"
    path.rename(tmp_path / "elsewhere")
    path.symlink_to(tmp_path / "elsewhere")
    with pytest.raises(
        BundleError, match=r"onnx/model\.onnx\.data: 'model\.onnx\.data' is a link that leads out of the bundle\): copy"
    ):
        Bundle(copied).read_graph("fp32")


def test_weights_with_another_name_are_refused(copied: Path, tmp_path: Path) -> None:
    os.link(copied / "onnx/model.onnx.data", tmp_path / "elsewhere")
    with pytest.raises(BundleError, match=r"onnx/model\.onnx\.data: it is a hard link\): copy the file itself"):
        Bundle(copied).read_graph("fp32")


@pytest.mark.parametrize("location", ["/etc/passwd", "../../secret", "model_int8.onnx.data", "*/_ORT_MEM_ADDR_/*"])
def test_a_graph_that_names_another_file_is_refused(copied: Path, location: str) -> None:
    model = onnx.load(copied / "onnx/model.onnx", load_external_data=False)
    moved = next(tensor for tensor in model.graph.initializer if tensor.external_data)
    for entry in moved.external_data:
        entry.value = location if entry.key == "location" else entry.value
    replace_graph(copied, "onnx/model.onnx", model.SerializeToString())
    with pytest.raises(BundleError) as caught:
        Bundle(copied).read_graph("fp32")
    assert f"takes weights from '{location}': expected model.onnx.data;" in str(caught.value)


def test_a_graph_that_should_be_whole_may_name_no_file(whole: Path, split: Path, tmp_path: Path) -> None:
    folder = shutil.copytree(whole, tmp_path / "bundle")
    shutil.copy(split / "onnx/model.onnx.data", folder / "onnx/model.onnx.data")
    replace_graph(folder, "onnx/model.onnx", (split / "onnx/model.onnx").read_bytes())
    with pytest.raises(BundleError, match=r"takes weights from 'model\.onnx\.data': expected none outside of it"):
        Bundle(folder).read_graph("fp32")


def test_the_manifest_can_name_no_other_file(copied: Path) -> None:
    record = json.loads((copied / files.MANIFEST).read_bytes())
    record["graphs"]["fp32"]["data"] = "../model.onnx.data"
    (copied / files.MANIFEST).write_text(json.dumps(record))
    with pytest.raises(BundleError, match=r"is not a sound edgetune manifest .*weights in '\.\./model\.onnx\.data'"):
        Bundle(copied)
