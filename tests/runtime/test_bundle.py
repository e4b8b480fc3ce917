"""The bundle: a valid manifest, files with the right SHA-256, and tasks that are added and removed."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from conftest import HEADS, HIDDEN, LAYERS, MakeTask
from hypothesis import example, given, settings
from hypothesis import strategies as st

from edgetune_runtime import Bundle, Task, contract, files
from edgetune_runtime.contract import BackboneSizes
from edgetune_runtime.errors import BundleError, EdgetuneError, TaskError
from edgetune_runtime.facts import BackboneFacts
from edgetune_runtime.manifest import Graph, Manifest, TaskParity

Place = tuple[str | int, ...]

MANIFEST = Manifest(
    facts=BackboneFacts(
        name="tiny/bert",
        sha256="ab" * 32,
        sizes=BackboneSizes(embedding=4, hidden=8, layers=2, kv_heads=1, head_dim=2),
        max_positions=64,
        poolings=("mean", "cls"),
        mask_token="[MASK]",
    ),
    architecture="bert",
    graphs={
        "fp32": Graph("onnx/model.onnx", True, {"colour": TaskParity(8, 1e-6, 1.0, "accuracy", 0.75, 0.75)}),
        "int8": Graph("onnx/model_int8.onnx", False, {"größe": TaskParity(8, 0.1, 0.875)}),
    },
    files={"config.json": "cd" * 32, "onnx/model.onnx": "ef" * 32},
    edgetune_version="0.1.0",
)
RECORD: dict[str, Any] = json.loads(MANIFEST.to_json())


@pytest.fixture
def copied(bundle_folder: Path, tmp_path: Path) -> Path:
    """A bundle that may be changed."""
    return shutil.copytree(bundle_folder, tmp_path / "bundle")


def rewrite(folder: Path, **fields: Any) -> None:
    path = folder / files.MANIFEST
    path.write_text(json.dumps({**json.loads(path.read_bytes()), **fields}))


def contents(folder: Path) -> dict[Path, bytes]:
    return {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def flip_last(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[-1] ^= 1
    path.write_bytes(data)


# Manifest


def test_it_says_what_it_is(bundle: Bundle) -> None:
    assert repr(bundle) == f"<Bundle {bundle.path}: tiny-bert (bert), fp32, int8>"


def test_the_manifest_comes_back_equal(bundle: Bundle) -> None:
    for manifest in (MANIFEST, bundle.manifest):
        data = manifest.to_json()
        assert Manifest.from_json(data, "memory") == manifest
        assert Manifest.from_json(data, "memory").to_json() == data


@pytest.mark.parametrize("file", ["../other/onnx/model.onnx", "/etc/model.onnx", "onnx/model_int8.onnx"])
def test_a_graph_is_nowhere_but_in_its_place(file: str) -> None:
    record = json.loads(MANIFEST.to_json())
    record["graphs"]["fp32"]["file"] = file
    with pytest.raises(BundleError, match="a graph or its weights in"):
        Manifest.from_json(json.dumps(record).encode(), "odd")


def test_the_manifest_spells_out_the_graph() -> None:
    assert RECORD["format_version"] == 2
    assert RECORD["requires"] == []
    assert RECORD["inputs"].keys() == set(contract.BASE_INPUTS)
    assert RECORD["inputs"]["prefix_keys"] == {
        "dtype": "float32",
        "dims": ["tasks", "layers", "kv_heads", "prefix", "head_dim"],
    }
    assert RECORD["outputs"]["logits"] == {"dtype": "float32", "dims": ["batch", "spans", "labels"]}


@pytest.mark.parametrize(
    ("torch", "here", "drop"), [(0.75, 0.5, 0.25), (0.5, 0.75, -0.25), (None, 0.5, None), (0.5, None, None)]
)
def test_the_drop_of_the_figure_is_against_pytorch(torch: float | None, here: float | None, drop: float | None) -> None:
    assert TaskParity(8, 0.0, 1.0, value_torch=torch, value=here).drop == drop


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=6,
)


@settings(deadline=None, max_examples=100)
@given(st.binary(max_size=40) | json_values.map(lambda value: json.dumps(value).encode()))
@example(b"[" * 100_000)
@example(b'{"format_version":' * 100_000)
@example(b"1" * 5000)
@example(b"\xff\xfe")
def test_any_bytes_and_any_json_are_refused(data: bytes) -> None:
    with pytest.raises(BundleError, match="junk is not a sound edgetune manifest"):
        Manifest.from_json(data, "junk")


def places(value: object, above: Place = ()) -> Iterator[Place]:
    """The places in a JSON value where something can be changed."""
    items: Any = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, inner in items:
        yield (*above, key)
        yield from places(inner, (*above, key))


PLACES = [place for place in places(RECORD) if place[0] != "outputs"]


@settings(deadline=None, max_examples=400)
@given(st.sampled_from(PLACES), st.just(...) | json_values)
def test_any_json_in_a_field_raises_bundle_error_only(place: Place, value: object) -> None:
    record = json.loads(MANIFEST.to_json())
    *above, last = place
    holder = record
    for key in above:
        holder = holder[key]
    if value is ...:
        del holder[last]
    else:
        holder[last] = value
    try:
        manifest = Manifest.from_json(json.dumps(record).encode(), "odd")
    except BundleError as error:
        assert str(error).startswith("odd ")
    else:
        assert Manifest.from_json(manifest.to_json(), "again").files == manifest.files


@pytest.mark.parametrize("value", [float("inf"), float("-inf"), float("nan"), "many", None, []])
def test_positions_that_are_no_number_are_refused(value: object) -> None:
    with pytest.raises(BundleError, match="odd is not a sound edgetune manifest"):
        Manifest.from_json(json.dumps({**RECORD, "max_positions": value}).encode(), "odd")


OPTIONAL = ("outputs", "requires", "variants")
"""Fields that are not read, or that are optional."""


@pytest.mark.parametrize("field", [field for field in RECORD if field not in OPTIONAL])
def test_a_missing_field_is_named(field: str) -> None:
    record = {key: value for key, value in RECORD.items() if key != field}
    with pytest.raises(BundleError, match=f"lacking is not a sound edgetune manifest .*'{field}'"):
        Manifest.from_json(json.dumps(record).encode(), "lacking")


def test_an_unknown_size_is_named() -> None:
    record = {**RECORD, "sizes": {**RECORD["sizes"], "depth": 3}}
    with pytest.raises(BundleError, match="'depth'"):
        Manifest.from_json(json.dumps(record).encode(), "odd")


def test_a_backbone_that_is_read_at_a_mask_has_a_mask_token() -> None:
    record = {**RECORD, "poolings": ["mask"], "mask_token": ""}
    with pytest.raises(BundleError, match="the pooling 'mask' without a mask token"):
        Manifest.from_json(json.dumps(record).encode(), "odd")
    Manifest.from_json(json.dumps({**record, "poolings": ["cls"]}).encode(), "none is needed")


@pytest.mark.parametrize("version", [0, 3, 1.5, 2.0, "1", "2", True, None, [1]])
def test_another_format_version_is_refused(copied: Path, version: object) -> None:
    rewrite(copied, format_version=version)
    with pytest.raises(BundleError) as caught:
        Bundle(copied)
    assert f"format version {version}, expected 1 or 2: " in str(caught.value)
    assert str(copied) in str(caught.value)


# The folder and its files


def test_an_opened_bundle_has_what_was_exported(bundle: Bundle) -> None:
    manifest = bundle.manifest
    assert (manifest.architecture, manifest.facts.max_positions) == ("bert", 64)
    assert manifest.facts.sizes == BackboneSizes(
        embedding=HIDDEN,
        hidden=HIDDEN,
        layers=LAYERS,
        kv_heads=HEADS,
        head_dim=HIDDEN // HEADS,
        feed_forwards=LAYERS,
        width=HIDDEN,
        query_width=HIDDEN,
        key_width=HIDDEN,
        widened_width=2 * HIDDEN,
        inner_width=2 * HIDDEN,
    )
    assert manifest.graphs.keys() == {"fp32", "int8"}
    assert bundle.vocabulary_size() == json.loads(bundle.read(files.CONFIG))["vocab_size"] > 5


def test_the_manifest_lists_every_file_but_itself_and_the_tasks(bundle: Bundle) -> None:
    there = {path.relative_to(bundle.path).as_posix() for path in contents(bundle.path)}
    unlisted = {name for name in there if name == files.MANIFEST or name.startswith(f"{files.TASKS}/")}
    assert set(bundle.manifest.files) == there - unlisted
    assert {files.CONFIG, files.TOKENIZER, "onnx/model.onnx", "onnx/model_int8.onnx"} <= set(bundle.manifest.files)


def test_every_file_is_read_whole(bundle: Bundle) -> None:
    for name, digest in bundle.manifest.files.items():
        data = bundle.read(name)
        assert data == (bundle.path / name).read_bytes()
        assert files.sha256(data) == digest


def empty(path: Path) -> None:
    path.write_bytes(b"")


def cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-1])


def lengthen(path: Path) -> None:
    path.write_bytes(path.read_bytes() + b"\0")


def make_folder(path: Path) -> None:
    path.unlink()
    path.mkdir()


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (flip_last, "is damaged: its SHA-256 is"),
        (cut, "is damaged: its SHA-256 is"),
        (lengthen, "is damaged: its SHA-256 is"),
        (empty, "is damaged: its SHA-256 is"),
        (Path.unlink, "is incomplete .*No such file"),
        (make_folder, "is incomplete .*Is a directory"),
    ],
)
def test_damage_to_any_file_is_found_and_named(copied: Path, damage: Any, message: str) -> None:
    bundle = Bundle(copied)
    names = list(bundle.manifest.files)
    assert names
    for name in names:
        damage(copied / name)
        with pytest.raises(BundleError, match=message) as caught:
            bundle.read(name)
        assert name in str(caught.value)
        assert str(copied) in str(caught.value)


def test_a_file_that_is_not_in_the_manifest_is_refused(copied: Path) -> None:
    (copied / "stray.txt").write_text("stray")
    with pytest.raises(BundleError, match=r"stray\.txt"):
        Bundle(copied).read("stray.txt")


def test_a_damaged_configuration_is_found(copied: Path) -> None:
    flip_last(copied / files.CONFIG)
    with pytest.raises(BundleError, match=r"config\.json is damaged"):
        Bundle(copied).vocabulary_size()


def test_a_folder_that_is_no_bundle_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("{}")
    inside = "edgetune.json: No such file"
    for path, reason in (
        (tmp_path, inside), (tmp_path / "absent", "there is no such folder"), (tmp_path / "file", "edgetune.json: Not"),
    ):  # fmt: skip
        with pytest.raises(BundleError, match=rf"is not a bundle \({reason}") as caught:
            Bundle(path)
        assert str(caught.value).startswith(f"{path} ")


def test_a_damaged_manifest_is_named(copied: Path) -> None:
    cut(copied / files.MANIFEST)
    cut(copied / files.MANIFEST)
    with pytest.raises(BundleError, match=r"bundle/edgetune\.json is not a sound edgetune manifest"):
        Bundle(str(copied))


# Precisions


def test_precisions_are_chosen(bundle: Bundle) -> None:
    assert bundle.precision(None) == "int8"
    assert bundle.precision("fp32") == "fp32"
    assert bundle.precision("int8") == "int8"


def test_without_int8_the_precision_is_the_one_there(copied: Path) -> None:
    graphs = json.loads((copied / files.MANIFEST).read_bytes())["graphs"]
    rewrite(copied, graphs={"fp32": graphs["fp32"]})
    bundle = Bundle(copied)
    assert bundle.precision(None) == "fp32"
    with pytest.raises(BundleError, match=r"no precision 'int8': expected one of fp32; .*edgetune export"):
        bundle.precision("int8")


@pytest.mark.parametrize("wanted", ["int4", "FP32", ""])
def test_an_unknown_precision_is_named(bundle: Bundle, wanted: str) -> None:
    with pytest.raises(BundleError, match=f"no precision '{wanted}': expected one of fp32, int8; "):
        bundle.precision(wanted)


def test_a_bundle_without_graphs_is_refused(copied: Path) -> None:
    rewrite(copied, graphs={})
    with pytest.raises(BundleError):
        Bundle(copied).precision(None)


# Tasks


def test_a_task_is_added_loaded_and_removed(copied: Path, make_task: MakeTask) -> None:
    bundle = Bundle(copied)
    task = make_task("mood", prompt=2, prefix=3)
    assert bundle.add_task(task) == copied / "tasks" / "mood.safetensors"
    assert bundle.task_names() == Bundle(copied).task_names() == ["colour", "mood", "size"]
    assert bundle.load_task("mood").to_bytes() == task.to_bytes()
    bundle.remove_task("mood")
    assert bundle.task_names() == ["colour", "size"]
    with pytest.raises(TaskError, match="no task 'mood'"):
        bundle.load_task("mood")


def test_a_task_takes_the_place_of_its_namesake(copied: Path, make_task: MakeTask) -> None:
    bundle = Bundle(copied)
    task = make_task("size", prefix=2, labels=4, seed=9)
    assert bundle.load_task("size").to_bytes() != task.to_bytes()
    bundle.add_task(task)
    assert bundle.task_names() == ["colour", "size"]
    assert bundle.load_task("size").to_bytes() == task.to_bytes()


def test_the_folder_of_tasks_may_be_missing(copied: Path, make_task: MakeTask) -> None:
    shutil.rmtree(copied / files.TASKS)
    bundle = Bundle(copied)
    assert bundle.task_names() == []
    with pytest.raises(TaskError, match=r"no task 'colour' in .*: it has none; "):
        bundle.load_task("colour")
    bundle.add_task(make_task("mood"))
    assert bundle.task_names() == ["mood"]


def test_a_task_goes_by_the_name_of_its_file(copied: Path) -> None:
    shutil.copy(copied / "tasks" / "colour.safetensors", copied / "tasks" / "hue.v2.safetensors")
    bundle = Bundle(copied)
    assert bundle.task_names() == ["colour", "hue.v2", "size"]
    assert bundle.load_task("hue.v2").name == "hue.v2"


@pytest.mark.parametrize("name", [".colour.safetensors.x1.partial", ".mood.safetensors", "notes.txt"])
def test_other_files_beside_the_tasks_are_no_tasks(copied: Path, name: str) -> None:
    (copied / "tasks" / name).write_bytes(b"other")
    assert Bundle(copied).task_names() == ["colour", "size"]


@pytest.mark.parametrize("method", ["load_task", "remove_task"])
def test_an_unknown_task_is_told_what_is_there(bundle: Bundle, method: str) -> None:
    with pytest.raises(TaskError, match=r"no task 'colours' in .*: it has colour, size; put others there with"):
        getattr(bundle, method)("colours")


@pytest.mark.parametrize("method", ["load_task", "remove_task"])
@pytest.mark.parametrize("name", ["", "../tasks/colour", "colour.safetensors/", "..", ".colour"])
def test_a_name_that_is_no_name_is_refused(copied: Path, method: str, name: str) -> None:
    before = contents(copied)
    with pytest.raises(TaskError, match=r"task name '.*' cannot be used"):
        getattr(Bundle(copied), method)(name)
    assert contents(copied) == before


def wrong_shape(task: Task) -> Task:
    return dataclasses.replace(task, tensors={**task.tensors, contract.HEAD_WEIGHT: np.zeros((3, 7), np.float32)})


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda task: dataclasses.replace(task, backbone_sha256="ab" * 32), r"backbone .* \(abababababab…\), but this"),
        (lambda task: dataclasses.replace(task, pooling="decoder"), "pooling 'decoder', which"),
        (wrong_shape, r"head_weight of shape \[3, 7\]: expected \[3, 32\]"),
        (lambda task: dataclasses.replace(task, name="../mood"), "task name '../mood' cannot be used"),
    ],
)
def test_a_task_that_does_not_fit_is_not_written(copied: Path, make_task: MakeTask, change: Any, message: str) -> None:
    before = contents(copied.parent)
    with pytest.raises(TaskError, match=message):
        Bundle(copied).add_task(change(make_task("colour")))
    assert contents(copied.parent) == before


def test_a_task_of_another_backbone_put_there_by_hand_is_refused(copied: Path, make_task: MakeTask) -> None:
    alien = dataclasses.replace(make_task("alien"), backbone_sha256="ab" * 32)
    alien.save(copied / "tasks" / "alien.safetensors")
    with pytest.raises(TaskError, match="'alien' was trained on the backbone"):
        Bundle(copied).load_task("alien")


@pytest.mark.parametrize("damage", [flip_last, cut, lengthen, empty])
def test_a_task_damaged_in_place_is_named_and_the_others_stay(copied: Path, damage: Any) -> None:
    damage(copied / "tasks" / "colour.safetensors")
    bundle = Bundle(copied)
    with pytest.raises(TaskError, match=r"tasks/colour\.safetensors is (damaged|not a whole task file)"):
        bundle.load_task("colour")
    assert bundle.load_task("size").name == "size"


def test_adding_where_tasks_is_a_file_leaves_it(copied: Path, make_task: MakeTask) -> None:
    shutil.rmtree(copied / files.TASKS)
    (copied / files.TASKS).write_bytes(b"a file")
    before = contents(copied)
    with pytest.raises(EdgetuneError, match=r"mood\.safetensors cannot be written"):
        Bundle(copied).add_task(make_task("mood"))
    assert contents(copied) == before


def test_a_file_is_hashed_once_while_it_stays_as_it_is(copied: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    hashed: list[str] = []
    real = hashlib.file_digest
    monkeypatch.setattr(hashlib, "file_digest", lambda file, name: (hashed.append(name), real(file, name))[1])
    bundle, name = Bundle(copied), files.graph_file("int8")
    assert bundle.digest(name) == bundle.digest(name) == bundle.manifest.files[name]
    assert len(hashed) == 1
    flip_last(copied / name)
    with pytest.raises(BundleError, match="is damaged"):
        bundle.digest(name)
