"""Fields of task files since format version 2: kind, thresholds, pairs, inputs of the graph, and unknown fields."""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from conftest import MakeTask
from hypothesis import given, settings
from hypothesis import strategies as st
from test_task import SAMPLE, changed, same, tensors

from edgetune_runtime import Bundle, Task, contract, task_file
from edgetune_runtime.errors import TaskError
from edgetune_runtime.kinds import KINDS

ONE = {"labels": ("red",), "tensors": tensors(labels=1)}
FIELDS_OF_0_1 = {
    *("task", "labels", "metrics", "backbone_sha256", "method", "base_model", "pooling", "position_offset"),
    *("template", "max_length", "temperature", "format_version", "sha256"),
}
NEW: dict[str, tuple[Task, dict[str, str], list[str]]] = {
    "multi-label": (changed(kind_name="multi-label"), {"kind": "multi-label"}, ["kind:multi-label"]),
    "multi-label with thresholds": (
        changed(kind_name="multi-label", thresholds=(0.25, 1 / 3, 0.999)),
        {"kind": "multi-label", "thresholds": "[0.25, 0.3333333333333333, 0.999]"},
        ["kind:multi-label"],
    ),
    "multi-label of one label": (
        changed(kind_name="multi-label", thresholds=(0.5,), **ONE),
        {"kind": "multi-label", "thresholds": "[0.5]"},
        ["kind:multi-label"],
    ),
    "score": (changed(kind_name="score", **ONE), {"kind": "score"}, ["kind:score"]),
    "pairs that the tokenizer joins": (changed(pairs=True, template="{text}"), {"pairs": "true"}, ["pairs"]),
    "pairs in a template": (changed(pairs=True, template="{text}\n{text_pair}?"), {"pairs": "true"}, ["pairs"]),
    "pairs, the second first": (changed(pairs=True, template="{text_pair} {text}"), {"pairs": "true"}, ["pairs"]),
    "inputs of the graph": (
        changed(graph_inputs=("spans", "token_type_ids")),
        {},
        ["input:spans", "input:token_type_ids"],
    ),
    "all of it": (
        changed(kind_name="score", pairs=True, template="{text} {text_pair}", graph_inputs=("spans",), **ONE),
        {"kind": "score", "pairs": "true"},
        ["kind:score", "pairs", "input:spans"],
    ),
}
every_new = pytest.mark.parametrize("name", NEW)


def metadata_of(data: bytes) -> dict[str, str]:
    end = 8 + int.from_bytes(data[:8], "little")
    return json.loads(data[8:end])["__metadata__"]


def with_fields(task: Task = SAMPLE, **fields: str | None) -> bytes:
    """A task's file with other fields (`None` removes one), and a matching digest."""
    data = task.to_bytes()
    end = 8 + int.from_bytes(data[:8], "little")
    header = json.loads(data[8:end])
    given = {**header["__metadata__"], **fields}
    metadata = {name: value for name, value in given.items() if value is not None and name != "sha256"}
    header["__metadata__"] = {**metadata, "sha256": task_file.digest(metadata, dict(task.tensors))}
    text = json.dumps(header).encode()
    return len(text).to_bytes(8, "little") + text + data[end:]


def refusal(data: bytes) -> str:
    with pytest.raises(TaskError) as caught:
        Task.from_bytes(data, "odd")
    assert "\n" not in str(caught.value)
    assert str(caught.value).startswith("odd ")
    return str(caught.value)


# There and back


@every_new
def test_a_task_with_new_fields_comes_back_equal(name: str, tmp_path: Path) -> None:
    task, fields, requires = NEW[name]
    task.save(tmp_path / "task.safetensors")
    back = Task.load(tmp_path / "task.safetensors")
    assert same(back, task)
    assert back.to_bytes() == task.to_bytes()
    assert back.kind is KINDS[task.kind_name]
    metadata = metadata_of(task.to_bytes())
    assert metadata["format_version"] == "2"
    assert json.loads(metadata["requires"]) == list(task.requires) == requires
    assert {key: metadata[key] for key in metadata.keys() - FIELDS_OF_0_1 - {"requires"}} == fields


@pytest.mark.parametrize(
    "task",
    [
        SAMPLE,
        changed(template="{text} {other}", metrics={}),
        changed(name="mood", pooling="mask", template="{text}{mask}"),
    ],
)
def test_what_edgetune_0_1_can_do_is_written_as_it_reads_it(task: Task) -> None:
    metadata = metadata_of(task.to_bytes())
    assert metadata["format_version"] == "1"
    assert metadata.keys() == FIELDS_OF_0_1


@settings(deadline=None, max_examples=60)
@given(st.lists(st.floats(0, 1, exclude_min=True, exclude_max=True), min_size=3, max_size=3).map(tuple))
def test_any_thresholds_come_back_to_the_bit(thresholds: tuple[float, ...]) -> None:
    task = changed(kind_name="multi-label", thresholds=thresholds)
    assert Task.from_bytes(task.to_bytes(), "memory").thresholds == thresholds


# Unknown fields

UNKNOWN = {"cover": "red", "größe": '{"a": [1, 2]}', "zz": ""}


@every_new
def test_fields_that_are_unknown_and_not_required_are_kept(name: str) -> None:
    data = with_fields(NEW[name][0], **UNKNOWN)
    task = Task.from_bytes(data, "new")
    assert task.unknown == UNKNOWN
    assert metadata_of(task.to_bytes()) == metadata_of(data)
    assert same(Task.from_bytes(task.to_bytes(), "again"), task)


def test_they_alone_make_a_file_of_version_2() -> None:
    task = Task.from_bytes(with_fields(format_version="2", **UNKNOWN), "new")
    assert (task.requires, task.unknown) == ((), UNKNOWN)
    metadata = metadata_of(task.to_bytes())
    assert metadata["format_version"] == "2"
    assert "requires" not in metadata


def test_they_go_along_with_another_name_and_into_a_bundle(
    bundle_folder: Path, make_task: MakeTask, tmp_path: Path
) -> None:
    plain = make_task("mood", prefix=2)
    task = Task.from_bytes(with_fields(plain, format_version="2", **UNKNOWN), "new").renamed("other")
    assert {key: metadata_of(task.to_bytes())[key] for key in UNKNOWN} == UNKNOWN
    opened = Bundle(shutil.copytree(bundle_folder, tmp_path / "bundle"))
    path = opened.add_task(task)
    assert {key: metadata_of(path.read_bytes())[key] for key in UNKNOWN} == UNKNOWN
    assert opened.load_task("other").unknown == UNKNOWN


@pytest.mark.parametrize("field", ["cover", "kind", "thresholds", "pairs", "requires"])
def test_version_1_has_no_field_that_edgetune_0_1_does_not_know(field: str) -> None:
    """So no file has a different meaning in both versions."""
    assert f"unknown fields ['{field}']" in refusal(with_fields(**{field: "[]"}))


# Requirements


@pytest.mark.parametrize(
    ("requires", "named"),
    [
        (["kind:ranking"], "kind:ranking"),
        (["pairs", "part:lora", "kind:ranking"], "kind:ranking, part:lora"),
        (["input:audio", "kind:score"], "input:audio"),
        ([""], ""),
        (["Pairs"], "Pairs"),
    ],
)
def test_what_is_required_and_unknown_is_refused_by_name(requires: list[str], named: str) -> None:
    told = refusal(with_fields(format_version="2", requires=json.dumps(requires)))
    assert told == f"odd requires {named}, which this edgetune does not know: install a newer edgetune"


def test_what_is_required_is_told_before_what_else_cannot_be_read() -> None:
    """In a file of a later version, even known fields may have other values."""
    fields = {"format_version": "2", "requires": '["kind:ranking"]', "kind": "ranking", "thresholds": '{"a": 1}'}
    assert "requires kind:ranking" in refusal(with_fields(**fields))


@pytest.mark.parametrize(
    "requires", ["", "pairs", "3", "{}", "null", "[1]", '["pairs", null]', '[["pairs"]]', '"pairs"']
)
def test_requirements_that_are_no_list_of_strings_are_refused(requires: str) -> None:
    assert "is not a sound edgetune task" in refusal(with_fields(format_version="2", requires=requires))


def test_all_that_this_version_writes_it_can_read() -> None:
    for task, _, requires in NEW.values():
        assert set(task.requires) == set(requires) <= task_file.KNOWN_REQUIREMENTS
    assert {f"input:{name}" for name in contract.INPUTS} <= task_file.KNOWN_REQUIREMENTS


# Bad values

LISTED = "expected one of spans, tokens, multi-label, score, single-label"
MULTI = {"kind_name": "multi-label"}
BAD_FIELDS = {
    "kind unknown": ({"kind": "ranking"}, f"the kind 'ranking': {LISTED}"),
    "kind empty": ({"kind": ""}, f"the kind '': {LISTED}"),
    "kind in capitals": ({"kind": "Score"}, f"the kind 'Score': {LISTED}"),
    "kind with a line feed": ({"kind": "score\n"}, LISTED),
    "kind null": ({"kind": "null"}, LISTED),
    "thresholds no list": ({"thresholds": "0.5"}, "expected a list of numbers"),
    "thresholds no JSON": ({"thresholds": "0.5, 0.5"}, "is not a sound edgetune task"),
    "thresholds null": ({"thresholds": "null"}, "expected a list of numbers"),
    "thresholds an object": ({"thresholds": '{"red": 0.5}'}, "expected a list of numbers"),
    "thresholds strings": ({"thresholds": '["0.5", "0.5", "0.5"]'}, "expected a list of numbers"),
    "thresholds booleans": ({"thresholds": "[true, true, true]"}, "expected a list of numbers"),
    "thresholds null inside": ({"thresholds": "[0.5, null, 0.5]"}, "expected a list of numbers"),
    "thresholds NaN": ({"thresholds": "[NaN, 0.5, 0.5]"}, "NaN is not JSON"),
    "thresholds infinite": ({"thresholds": "[Infinity, 0.5, 0.5]"}, "Infinity is not JSON"),
    "thresholds 1e400": ({"thresholds": "[1e400, 0.5, 0.5]"}, "is too large"),
    "thresholds of 400 digits": ({"thresholds": f"[1{400 * '0'}, 0.5, 0.5]"}, "is not a sound edgetune task"),
    "thresholds nested deep": ({"thresholds": 100_000 * "["}, "is not a sound edgetune task"),
    "thresholds few": ({"thresholds": "[0.5, 0.5]"}, "2 thresholds for 3 labels: expected one per label"),
    "thresholds many": ({"thresholds": "[0.5, 0.5, 0.5, 0.5]"}, "4 thresholds for 3 labels: expected one per label"),
    "threshold 0": ({"thresholds": "[0.5, 0, 0.5]"}, "a threshold of 0.0: expected numbers above 0 and below 1"),
    "threshold 1": ({"thresholds": "[0.5, 0.5, 1]"}, "a threshold of 1.0: expected numbers above 0 and below 1"),
    "threshold below 0": ({"thresholds": "[-0.5, 0.5, 0.5]"}, "a threshold of -0.5"),
    "threshold above 1": ({"thresholds": "[1.5, 0.5, 0.5]"}, "a threshold of 1.5"),
    "threshold that is nothing": ({"thresholds": "[1e-400, 0.5, 0.5]"}, "a threshold of 0.0"),
    "pairs yes": ({"pairs": "yes"}, "'yes': expected true or false"),
    "pairs True": ({"pairs": "True"}, "'True': expected true or false"),
    "pairs 1": ({"pairs": "1"}, "'1': expected true or false"),
    "pairs empty": ({"pairs": ""}, "'': expected true or false"),
}


@pytest.mark.parametrize("name", BAD_FIELDS)
def test_a_bad_value_is_refused_in_one_line(name: str) -> None:
    fields, message = BAD_FIELDS[name]
    given: Mapping[str, str] = {"kind": "multi-label", **fields}
    assert message in refusal(with_fields(format_version="2", **given))


BAD_TASKS: dict[str, tuple[dict[str, Any], str]] = {
    "thresholds of a single-label task": (
        {"thresholds": (0.5, 0.5, 0.5)},
        "3 thresholds: expected none for tasks of the kind 'single-label'",
    ),
    "thresholds of a score task": (
        {"kind_name": "score", "thresholds": (0.5,), **ONE},
        "1 thresholds: expected none for tasks of the kind 'score'",
    ),
    "score with two labels": (
        {"kind_name": "score", "labels": ("a", "b"), "tensors": tensors(labels=2)},
        "2 labels for a head of 2 rows and 2 biases: expected at least 1 and at most 1 labels for the kind 'score'",
    ),
    "score without a label": (
        {"kind_name": "score", "labels": (), "tensors": tensors(labels=0)},
        "0 labels for a head",
    ),
    "multi-label without a label": ({**MULTI, "labels": (), "tensors": tensors(labels=0)}, "0 labels for a head"),
    "multi-label, one label twice": ({**MULTI, "labels": ("red", "red", "blue")}, "3 labels for a head"),
    "single-label of one label": (ONE, "1 labels for a head of 1 rows and 1 biases: expected at least 2"),
    "a threshold that is no number": ({**MULTI, "thresholds": (0.5, float("nan"), 0.5)}, "NaN is not JSON"),
    "two slots for the second text": (
        {"pairs": True, "template": "{text} {text_pair} {text_pair}"},
        "with 2 {text_pair}: expected at most one",
    ),
    "pairs in a template without the second": (
        {"pairs": True, "template": "so: {text}"},
        "for pairs of texts: expected {text} and {text_pair} in it, or no template",
    ),
    "pairs in a template without the first": ({"pairs": True, "template": "{text_pair}"}, "expected one {text}"),
    "pairs and no slot for the mask": (
        {"pairs": True, "template": "{text} {text_pair}", "pooling": "mask"},
        "one {mask} if the pooling is 'mask'",
    ),
}


@pytest.mark.parametrize("name", BAD_TASKS)
def test_a_task_that_does_not_fit_together_is_refused_and_not_saved(name: str, tmp_path: Path) -> None:
    fields, message = BAD_TASKS[name]
    task = changed(**fields)
    assert message in refusal(task.to_bytes())
    with pytest.raises(TaskError):
        task.save(tmp_path / "task.safetensors")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("labels", "kind"), [(1, "multi-label"), (3, "multi-label"), (1, "score"), (2, "single-label")]
)
def test_each_kind_has_its_number_of_labels(labels: int, kind: str) -> None:
    names = tuple(f"label{place}" for place in range(labels))
    task = changed(kind_name=kind, labels=names, tensors=tensors(labels=labels))
    assert same(Task.from_bytes(task.to_bytes(), "memory"), task)


# Whether a bundle has what a task needs


@pytest.mark.parametrize("name", ["spans", "token_type_ids"])
def test_a_task_that_needs_an_input_that_the_graph_lacks_is_refused(
    bundle: Bundle, make_task: MakeTask, name: str
) -> None:
    task = replace(make_task("new"), graph_inputs=(name,))
    bundle.check_task(task)
    lacking = replace(bundle.facts, inputs=[one for one in bundle.facts.inputs if one != name])
    with pytest.raises(
        TaskError, match=f"'new' needs the graph's input {name}, which this bundle of .*: export .* again"
    ):
        lacking.check(task)


def test_parts_tell_tasks_apart_by_what_decides_their_features() -> None:
    """Heads, labels, templates and kinds may differ; empty tensors count as missing."""
    own = SAMPLE.parts_sha256
    head = {
        **SAMPLE.tensors,
        contract.HEAD_WEIGHT: np.zeros((1, 4), np.float32),
        contract.HEAD_BIAS: np.zeros(1, np.float32),
    }
    assert changed(kind_name="score", labels=("red",), tensors=head, template="{text}", name="b").parts_sha256 == own
    source = {**SAMPLE.tensors, contract.PROMPT_SOURCE: np.ones((3, 4), np.float32)}
    assert changed(tensors=source).parts_sha256 == own
    assert changed(position_offset=4).parts_sha256 != own
    for name in (contract.PROMPT_EMBEDDINGS, contract.PREFIX_KEYS, contract.PREFIX_VALUES):
        other = SAMPLE.tensors[name].copy()
        other.flat[0] += 1
        assert changed(tensors={**SAMPLE.tensors, name: other}).parts_sha256 != own
    bare = {name: tensor for name, tensor in SAMPLE.tensors.items() if name.startswith("head")}
    empty = {**bare, contract.PROMPT_EMBEDDINGS: np.zeros((0, 4), np.float32)}
    assert changed(tensors=empty).parts_sha256 == changed(tensors=bare).parts_sha256 != own
