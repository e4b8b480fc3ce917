"""The task file: reading returns the same task, or raises a `TaskError` that names the problem; never anything else."""

from __future__ import annotations

import dataclasses
import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edgetune_runtime import Task, contract, files, task_file
from edgetune_runtime.arrays import Array
from edgetune_runtime.contract import BackboneSizes
from edgetune_runtime.errors import EdgetuneError, TaskError
from edgetune_runtime.facts import BackboneFacts

SIZES = BackboneSizes(embedding=4, hidden=4, layers=2, kv_heads=1, head_dim=2)
LABELS = ("red", "grün", "赤 \\ \"{'")


def tensors(prompt: int = 2, prefix: int = 3, labels: int = 3, seed: int = 0) -> dict[str, Array]:
    random = np.random.default_rng(seed)
    lengths = {"tasks": 1, "prompt": prompt, "prefix": prefix, "labels": labels}
    names = (
        contract.PROMPT_EMBEDDINGS,
        contract.PREFIX_KEYS,
        contract.PREFIX_VALUES,
        contract.HEAD_WEIGHT,
        contract.HEAD_BIAS,
    )
    return {name: random.normal(0, 1, SIZES.shape(name, **lengths)[1:]).astype(np.float32) for name in names}


def without(*names: str) -> dict[str, Array]:
    return {name: tensor for name, tensor in tensors().items() if name not in names}


def head_only() -> dict[str, Array]:
    return {name: tensor for name, tensor in tensors().items() if name.startswith("head")}


SAMPLE = Task(
    name="colour",
    labels=LABELS,
    backbone_sha256="0123456789abcdef" * 4,
    tensors=tensors(),
    method="prefix",
    base_model="tiny/bert",
    pooling="mean",
    position_offset=3,
    template="Which colour? {text}\n",
    max_length=48,
    temperature=0.1 + 0.2,
    metrics={"dev_accuracy": 0.875, "seconds": 1 / 3},
)
DATA = SAMPLE.to_bytes()
BODY = 8 + int.from_bytes(DATA[:8], "little")


def changed(**fields: Any) -> Task:
    return dataclasses.replace(SAMPLE, **fields)


def put(**changes: Array) -> Task:
    return changed(tensors={**tensors(), **changes})


def repacked(change: Callable[[dict[str, Any]], object], sign: bool = True) -> bytes:
    """The sample's file with a changed JSON header; with `sign` the digest is recomputed."""
    header = json.loads(DATA[8:BODY])
    change(header)
    metadata = header.get("__metadata__")
    if sign and metadata and metadata.pop("sha256", None):
        metadata["sha256"] = task_file.digest(metadata, tensors())
    text = json.dumps(header).encode()
    return len(text).to_bytes(8, "little") + text + DATA[BODY:]


def with_metadata(**fields: str) -> bytes:
    return repacked(lambda header: header["__metadata__"].update(fields))


def same(one: Task, other: Task) -> bool:
    names = [field.name for field in dataclasses.fields(Task) if field.name != "tensors"]
    return (
        all(getattr(one, name) == getattr(other, name) for name in names)
        and one.tensors.keys() == other.tensors.keys()
        and all(
            one.tensors[name].dtype == other.tensors[name].dtype
            and np.array_equal(one.tensors[name], other.tensors[name])
            for name in one.tensors
        )
    )


def with_nan(name: str, value: float) -> Task:
    tensor = tensors()[name]
    tensor.flat[-1] = value
    return put(**{name: tensor})


# Round trips


@pytest.mark.parametrize(
    "task",
    [
        pytest.param(SAMPLE, id="prompt and prefix"),
        pytest.param(changed(tensors=without("prompt_embeddings")), id="prefix"),
        pytest.param(changed(tensors=without("prefix_keys", "prefix_values")), id="prompt"),
        pytest.param(changed(tensors=head_only(), metrics={}), id="head alone"),
        pytest.param(put(prompt_embeddings=np.zeros((0, 4), np.float32)), id="empty prompt"),
        pytest.param(changed(template="{text}{txet}", name="A.b_c-9", labels=("", " ", "\n")), id="strange strings"),
    ],
)
def test_a_task_comes_back_equal(task: Task, tmp_path: Path) -> None:
    path = tmp_path / "new" / "task.safetensors"
    task.save(path)
    assert path.read_bytes() == task.to_bytes()
    assert same(Task.from_bytes(task.to_bytes(), "memory"), task)
    assert same(Task.load(path), task)


printable = st.text(st.characters(exclude_categories=["Cc", "Cs"]) | st.sampled_from("\t\n"), max_size=8)


@settings(deadline=None, max_examples=30)
@given(
    labels=st.lists(printable, min_size=3, max_size=3, unique=True),
    template=st.tuples(printable, printable).map("{text}".join),
    temperature=st.floats(min_value=0, exclude_min=True, allow_infinity=False),
    metrics=st.dictionaries(
        printable, st.floats(allow_nan=False, allow_infinity=False) | st.integers(-(2**70), 2**70), max_size=3
    ),
    base_model=printable,
    max_length=st.integers(1, 999_999_999),
)
def test_any_fields_come_back_equal(labels: list[str], **fields: Any) -> None:
    task = changed(labels=tuple(labels), **fields)
    back = Task.from_bytes(task.to_bytes(), "memory")
    assert same(back, task)
    assert back.to_bytes() == task.to_bytes()


def test_lengths_and_parameters_are_those_of_the_tensors() -> None:
    assert (SAMPLE.prompt_length, SAMPLE.prefix_length) == (2, 3)
    assert SAMPLE.num_parameters == 2 * 4 + 2 * (2 * 1 * 3 * 2) + 3 * 4 + 3
    bare = changed(tensors=head_only())
    assert (bare.prompt_length, bare.prefix_length, bare.num_parameters) == (0, 0, 15)


def test_equal_tasks_give_equal_bytes() -> None:
    backwards = dict(reversed(SAMPLE.tensors.items()))
    assert changed(tensors=backwards, metrics=dict(reversed(SAMPLE.metrics.items()))).to_bytes() == DATA
    strided = {name: np.asfortranarray(tensor) for name, tensor in SAMPLE.tensors.items()}
    assert changed(tensors=strided).to_bytes() == DATA
    assert changed(method="prompt").to_bytes() != DATA


def test_another_process_gives_equal_bytes() -> None:
    code = (
        "import sys; from edgetune_runtime.task import Task; "
        "sys.stdout.buffer.write(Task.from_bytes(sys.stdin.buffer.read(), 'stdin').to_bytes())"
    )
    runs = [subprocess.run([sys.executable, "-c", code], input=DATA, capture_output=True, check=True) for _ in "12"]
    assert [run.stdout == DATA for run in runs] == [True, True]


def test_the_tensors_lie_aligned_in_the_file() -> None:
    assert BODY % 8 == 0


# Damage


def test_every_truncation_is_refused() -> None:
    for length in range(len(DATA)):
        with pytest.raises(TaskError, match=r"^cut is "):
            Task.from_bytes(DATA[:length], "cut")


def test_every_flipped_byte_of_the_tensors_is_refused() -> None:
    for place in range(BODY, len(DATA)):
        damaged = bytearray(DATA)
        damaged[place] ^= 1 << place % 8
        with pytest.raises(TaskError, match="flipped is damaged"):
            Task.from_bytes(bytes(damaged), "flipped")


@st.composite
def damaged_bytes(draw: st.DrawFn) -> bytes:
    """The sample's bytes after one to three flips, inserts and deletes."""
    data = bytearray(DATA)
    for kind in draw(st.lists(st.sampled_from(("flip", "insert", "delete")), min_size=1, max_size=3)):
        place = draw(st.integers(0, len(data) - 1))
        if kind == "flip":
            data[place] ^= draw(st.integers(1, 255))
        elif kind == "insert":
            data[place:place] = draw(st.binary(min_size=1, max_size=9))
        else:
            del data[place : place + draw(st.integers(1, 9))]
    return bytes(data)


@settings(deadline=None, max_examples=400)
@given(damaged_bytes())
def test_damage_raises_task_error_only(data: bytes) -> None:
    try:
        loaded = Task.from_bytes(data, "damaged")
    except TaskError as error:
        assert "damaged" in str(error) or "task name" in str(error)
    else:
        assert len(loaded.labels) >= 2


@settings(deadline=None, max_examples=400)
@given(damaged_bytes())
def test_damage_never_loads_as_another_task(data: bytes) -> None:
    try:
        loaded = Task.from_bytes(data, "damaged")
    except TaskError:
        return
    assert same(loaded, SAMPLE)


@settings(deadline=None, max_examples=200)
@given(st.binary(max_size=64) | st.binary(max_size=64).map(lambda data: len(data).to_bytes(8, "little") + data))
def test_arbitrary_bytes_are_refused(data: bytes) -> None:
    with pytest.raises(TaskError, match="junk is not a whole task file"):
        Task.from_bytes(data, "junk")


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=5,
)


@settings(deadline=None, max_examples=200)
@given(json_values)
def test_any_json_as_header_is_refused(value: object) -> None:
    text = json.dumps(value).encode()
    with pytest.raises(TaskError, match=r"^header "):
        Task.from_bytes(len(text).to_bytes(8, "little") + text, "header")


FIELDS = tuple(json.loads(DATA[8:BODY])["__metadata__"])


@settings(deadline=None, max_examples=400)
@given(st.sampled_from(FIELDS), st.text(max_size=8) | json_values.map(json.dumps))
def test_any_text_in_a_field_raises_task_error_only(field: str, value: str) -> None:
    try:
        Task.from_bytes(with_metadata(**{field: value}), "odd")
    except TaskError as error:
        assert str(error)


@pytest.mark.parametrize("field", FIELDS)
def test_a_missing_field_is_named(field: str) -> None:
    data = repacked(lambda header: header["__metadata__"].pop(field))
    named = {"format_version": "format version None", "sha256": r"SHA-256 written in it \(none"}
    expected = named.get(field, f"'{field}'")
    with pytest.raises(TaskError, match=expected):
        Task.from_bytes(data, "lacking")


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"format_version": "3"}, "format version 3, expected 1 or 2"),
        ({"format_version": "1.0"}, "format version 1.0, expected 1 or 2"),
        ({"format_version": ""}, "format version , expected 1 or 2"),
        ({"requires": "[]"}, r"unknown fields \['requires'\]"),
        ({"requires": '["pairs"]'}, r"unknown fields \['requires'\]"),
        ({"task": "../colour"}, "task name '../colour'"),
        ({"max_length": "many"}, "'many'"),
        ({"temperature": "warm"}, "'warm'"),
        ({"position_offset": "1.5"}, "'1.5'"),
        ({"labels": "red, green"}, "not a sound edgetune task"),
        ({"labels": "3"}, "not a sound edgetune task"),
        ({"metrics": "[1]"}, "not a sound edgetune task"),
        ({"metrics": '{"accuracy": null}'}, "not a sound edgetune task"),
    ],
)
def test_a_bad_field_is_refused(fields: dict[str, str], message: str) -> None:
    with pytest.raises(TaskError, match=message):
        Task.from_bytes(with_metadata(**fields), "bad")


@pytest.mark.parametrize(
    "fields",
    [
        pytest.param({"metrics": '{"accuracy": 1' + 400 * "0" + "}"}, id="metric beyond float"),
        pytest.param({"metrics": 100_000 * "["}, id="metrics nested deep"),
        pytest.param({"labels": 100_000 * "["}, id="labels nested deep"),
    ],
)
def test_an_extreme_field_is_refused(fields: dict[str, str]) -> None:
    with pytest.raises(TaskError, match="not a sound edgetune task"):
        Task.from_bytes(with_metadata(**fields), "extreme")


def test_a_digest_that_does_not_fit_is_damage() -> None:
    data = repacked(lambda header: header["__metadata__"].update(sha256="feedfacefeedface"), sign=False)
    with pytest.raises(TaskError, match=r"damaged: .*feedfacefeed"):
        Task.from_bytes(data, "bad")


def test_null_metadata_are_refused() -> None:
    with pytest.raises(TaskError, match="format version None"):
        Task.from_bytes(repacked(lambda header: header.update(__metadata__=None)), "null")


def test_a_safetensors_file_of_someone_else_is_refused() -> None:
    with pytest.raises(TaskError, match="format version None, expected 1 or 2"):
        Task.from_bytes(repacked(lambda header: header.pop("__metadata__")), "foreign")


@pytest.mark.parametrize("dtype", ["BF16", "F64", "I32", "F4", "F99"])
def test_another_type_written_in_the_header_is_refused(dtype: str) -> None:
    with pytest.raises(TaskError, match="retyped"):
        Task.from_bytes(repacked(lambda header: header["head_bias"].update(dtype=dtype)), "retyped")


# Complete but invalid tasks


@pytest.mark.parametrize(
    ("task", "message"),
    [
        pytest.param(with_nan("head_weight", np.nan), "numbers in head_weight that are not finite", id="nan"),
        pytest.param(with_nan("prefix_keys", np.inf), "numbers in prefix_keys that are not finite", id="inf"),
        pytest.param(
            changed(tensors=without("head_bias", "prompt_embeddings")),
            r"the tensors \['head_weight', 'prefix_keys', 'prefix_values'\]: expected .*'head_bias'",
            id="no bias",
        ),
        pytest.param(changed(tensors=without("head_weight")), r"the tensors \['head_bias', ", id="no weight"),
        pytest.param(
            changed(tensors=without("prefix_values")),
            r"'prefix_keys', 'prompt_embeddings'\]: expected .*keys and values together",
            id="keys without values",
        ),
        pytest.param(
            changed(tensors=without("prefix_keys")),
            r"'prefix_values', 'prompt_embeddings'\]: expected .*keys and values together",
            id="values without keys",
        ),
        pytest.param(put(extra=np.zeros(1, np.float32)), r"the tensors \['extra', ", id="unknown tensor"),
        pytest.param(changed(labels=("red", "blue", "red")), "3 labels.*all different", id="duplicate labels"),
        pytest.param(
            changed(labels=("red",), tensors=tensors(labels=1)),
            "1 labels.*at least 2 and at most 10,000 labels for the kind 'single-label'",
            id="one label",
        ),
        pytest.param(changed(labels=(), tensors=tensors(labels=0)), "0 labels", id="no label"),
        pytest.param(changed(labels=("red", "blue")), "2 labels for a head of 3 rows and 3 biases", id="few labels"),
        pytest.param(
            put(head_bias=np.zeros(4, np.float32)), "3 labels for a head of 3 rows and 4 biases", id="more biases"
        ),
        pytest.param(
            put(head_bias=np.zeros(3)), r"head_bias as float64 \[3\]: expected float32 \['labels'\]", id="float64"
        ),
        pytest.param(put(head_bias=np.zeros(3, np.float16)), r"head_bias as float16 \[3\]", id="float16"),
        pytest.param(put(prompt_embeddings=np.zeros((2, 4), np.int64)), "prompt_embeddings as int64", id="int64"),
        pytest.param(
            put(head_weight=np.zeros(12, np.float32)),
            r"head_weight as float32 \[12\]: expected float32 \['labels', 'hidden'\]",
            id="rank 1",
        ),
        pytest.param(
            put(prefix_keys=np.zeros((1, 2, 1, 3, 2), np.float32)),
            r"prefix_keys as float32 \[1, 2, 1, 3, 2\]",
            id="rank 5",
        ),
        pytest.param(changed(temperature=0.0), "temperature 0.0", id="temperature 0"),
        pytest.param(changed(temperature=-0.5), "temperature -0.5", id="temperature below 0"),
        pytest.param(changed(temperature=float("nan")), "temperature nan", id="temperature nan"),
        pytest.param(changed(temperature=float("inf")), "temperature inf", id="temperature inf"),
        pytest.param(changed(template="the {txt}"), r"template 'the {txt}'.*expected one {text}", id="template"),
        pytest.param(changed(template="{text} {text}"), "expected one {text}", id="two texts"),
        pytest.param(changed(template="{text} {mask}"), r"pooling 'mean': expected.*else none", id="mask for mean"),
        pytest.param(changed(pooling="mask"), "one {mask} if the pooling is 'mask'", id="no mask"),
        pytest.param(
            changed(pooling="max"),
            r"pooling 'max': expected one of \['cls', 'mean', 'last', 'mask', 'decoder', 'pooler', 'classifier', .*\]",
            id="pooling",
        ),
        pytest.param(changed(max_length=0), "max_length 0", id="max_length"),
        pytest.param(changed(position_offset=-1), "position_offset -1", id="position_offset"),
    ],
)
def test_an_unsound_task_is_refused(task: Task, message: str) -> None:
    with pytest.raises(TaskError, match=f"^unsound has .*?{message}"):
        Task.from_bytes(task.to_bytes(), "unsound")


# Names


@pytest.mark.parametrize("name", ["a", "9", "A.b_c-9", "x" * 64, "a..b"])
def test_a_good_name_is_kept(name: str) -> None:
    assert files.check_task_name(name) == name
    assert files.task_file(name) == f"tasks/{name}.safetensors"
    assert SAMPLE.renamed(name).name == name
    assert same(SAMPLE.renamed(name), changed(name=name))


@pytest.mark.parametrize(
    "name", ["", ".", "..", ".hidden", "-x", "_x", "a/b", "../a", "a\\b", "a b", "a\n", "a\0", "é", "a:b", "x" * 65]
)
def test_a_bad_name_is_refused(name: str) -> None:
    for use in (files.check_task_name, files.task_file, SAMPLE.renamed):
        with pytest.raises(TaskError) as caught:
            use(name)
        assert repr(name) in str(caught.value)
    with pytest.raises(TaskError, match="task name"):
        Task.from_bytes(changed(name=name).to_bytes(), "named")


# Whether a task fits


FACTS = BackboneFacts(
    name="this/one",
    sha256=SAMPLE.backbone_sha256,
    sizes=SIZES,
    max_positions=64,
    poolings=("mean", "cls"),
    mask_token="[MASK]",
)


def fit(task: Task = SAMPLE, **other: Any) -> None:
    dataclasses.replace(FACTS, **other).check(task)


@pytest.mark.parametrize("task", [SAMPLE, changed(tensors=head_only()), changed(tensors=tensors(7, 1, 3))])
def test_a_task_of_the_backbone_fits(task: Task) -> None:
    fit(task)


def test_another_backbone_is_refused_with_both_fingerprints() -> None:
    with pytest.raises(TaskError, match=r"'colour'.*tiny/bert \(0123456789ab….*this/one \(fedcba987654…"):
        fit(sha256="fedcba9876543210" * 4)


@pytest.mark.parametrize("max_positions", [1, 3])
def test_a_prompt_that_leaves_no_room_is_refused(max_positions: int) -> None:
    with pytest.raises(TaskError, match=f"this/one has {max_positions} positions, which leaves no room"):
        fit(max_positions=max_positions)


def test_a_pooling_that_the_backbone_lacks_is_refused() -> None:
    with pytest.raises(TaskError, match=r"'mean', which this/one does not have: .*of last, cls"):
        fit(poolings=("last", "cls"))


@pytest.mark.parametrize(
    ("task", "message"),
    [
        (
            put(prompt_embeddings=np.zeros((2, 5), np.float32)),
            r"prompt_embeddings of shape \[2, 5\]: expected \[2, 4\]",
        ),
        (
            put(prefix_keys=np.zeros((3, 1, 3, 2), np.float32)),
            r"prefix_keys of shape \[3, 1, 3, 2\]: expected \[2, 1, 3, 2\]",
        ),
        (
            put(prefix_values=np.zeros((2, 1, 4, 2), np.float32)),
            r"prefix_values of shape \[2, 1, 4, 2\]: expected \[2, 1, 3, 2\]",
        ),
        (put(head_weight=np.zeros((3, 8), np.float32)), r"head_weight of shape \[3, 8\]: expected \[3, 4\]"),
    ],
)
def test_another_shape_is_refused_with_both(task: Task, message: str) -> None:
    with pytest.raises(TaskError, match=message):
        fit(task)


def test_other_sizes_of_the_backbone_are_refused() -> None:
    with pytest.raises(TaskError, match=r"of shape \[2, 1, 3, 2\]: expected \[2, 2, 3, 2\] on this/one"):
        fit(sizes=dataclasses.replace(SIZES, kv_heads=2))


# Files


def test_a_file_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(TaskError, match=r"absent.safetensors cannot be read \(No such file"):
        Task.load(tmp_path / "absent.safetensors")
    with pytest.raises(TaskError, match=r"cannot be read \(Is a directory"):
        Task.load(tmp_path)


def test_a_damaged_file_is_named(tmp_path: Path) -> None:
    path = tmp_path / "cut.safetensors"
    path.write_bytes(DATA[:-1])
    with pytest.raises(TaskError, match=r"cut.safetensors is not a whole task file"):
        Task.load(path)


def test_saving_replaces_the_old_task(tmp_path: Path) -> None:
    path = tmp_path / "task.safetensors"
    SAMPLE.save(path)
    smaller = changed(tensors=head_only())
    smaller.save(path)
    assert same(Task.load(path), smaller)
    assert list(tmp_path.iterdir()) == [path]


def test_saving_where_the_folder_is_a_file_leaves_nothing(tmp_path: Path) -> None:
    (tmp_path / "folder").write_bytes(b"a file")
    with pytest.raises(EdgetuneError, match=r"task.safetensors cannot be written"):
        SAMPLE.save(tmp_path / "folder" / "task.safetensors")
    assert [path.name for path in tmp_path.rglob("*")] == ["folder"]
    assert (tmp_path / "folder").read_bytes() == b"a file"


def test_saving_where_the_file_is_a_folder_leaves_nothing(tmp_path: Path) -> None:
    (tmp_path / "task.safetensors").mkdir()
    with pytest.raises(EdgetuneError, match=r"task.safetensors cannot be written"):
        SAMPLE.save(tmp_path / "task.safetensors")
    assert [path.name for path in tmp_path.rglob("*")] == ["task.safetensors"]
