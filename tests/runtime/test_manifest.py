"""The manifest in both versions of the format: inputs of the graphs, what is required, and measured parity."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from test_bundle import MANIFEST, RECORD

from edgetune_runtime import contract
from edgetune_runtime.errors import BundleError
from edgetune_runtime.manifest import Manifest, TaskParity

OLD = sorted((Path(__file__).parents[1] / "formats" / "0.1").glob("*/edgetune.json"))


def record(**fields: Any) -> dict[str, Any]:
    """A valid record with changed fields."""
    return {**json.loads(MANIFEST.to_json()), **fields}


def read(fields: dict[str, Any]) -> Manifest:
    return Manifest.from_json(json.dumps(fields).encode(), "odd")


def refusal(fields: dict[str, Any]) -> str:
    with pytest.raises(BundleError) as caught:
        read(fields)
    assert "\n" not in str(caught.value)
    assert str(caught.value).startswith("odd ")
    return str(caught.value)


# Both versions


@pytest.mark.parametrize("path", OLD, ids=[path.parent.name for path in OLD])
def test_manifests_of_edgetune_0_1_are_read(path: Path) -> None:
    written = json.loads(path.read_bytes())
    manifest = Manifest.from_json(path.read_bytes(), "old")
    assert (manifest.format_version, written["format_version"]) == (1, 1)
    assert manifest.facts.inputs == contract.INPUTS_OF_0_1
    assert set(manifest.facts.inputs) == set(written["inputs"])
    assert contract.is_first_generation(manifest.facts.inputs)
    assert contract.TOKEN_TYPE_IDS not in manifest.facts.inputs
    assert {name: size for name, size in vars(manifest.facts.sizes).items() if size} == written["sizes"]
    for name in ("max_positions", "mask_token"):
        assert getattr(manifest.facts, name) == written[name]
    assert manifest.files == written["files"]
    for precision, graph in written["graphs"].items():
        assert manifest.graphs[precision].parity.keys() == graph["parity"].keys()
    assert Manifest.from_json(manifest.to_json(), "again") == manifest


def test_there_are_manifests_of_edgetune_0_1() -> None:
    assert len(OLD) >= 4


def test_version_1_has_the_inputs_of_0_1_whatever_stands_there() -> None:
    """Version 0.1 wrote them for people, and did not read them."""
    for inputs in ({}, {"secret": 3}, None):
        assert read(record(format_version=1, inputs=inputs)).facts.inputs == contract.INPUTS_OF_0_1


@pytest.mark.parametrize("lacking", [(), ("token_type_ids",), ("pooling",), ("spans", "token_type_ids", "pooling")])
def test_version_2_has_the_inputs_that_it_names(lacking: tuple[str, ...]) -> None:
    inputs = {name: spec for name, spec in reversed(RECORD["inputs"].items()) if name not in lacking}
    manifest = read(record(inputs=inputs))
    assert manifest.facts.inputs == tuple(name for name in contract.BASE_INPUTS if name not in lacking)
    assert (contract.TOKEN_TYPE_IDS in manifest.facts.inputs) == ("token_type_ids" not in lacking)
    assert not contract.is_first_generation(manifest.facts.inputs)
    assert json.loads(manifest.to_json())["inputs"] == inputs
    assert json.loads(manifest.to_json())["outputs"]["features"]["dims"] == ["batch", "spans", "hidden"]


# What is unknown


@pytest.mark.parametrize("version", contract.FORMAT_VERSIONS)
def test_fields_that_are_unknown_and_not_required_are_passed_over(version: int) -> None:
    fields = record(format_version=version, cover="red")
    fields["graphs"]["fp32"]["paper"] = {"a": [1]}
    fields["graphs"]["fp32"]["parity"]["colour"]["seconds"] = "many"
    plain = read(record(format_version=version))
    assert read(fields) == plain


@pytest.mark.parametrize(("requires", "named"), [(["shards"], "shards"), (["b", "a"], "b, a"), (["pairs"], "pairs")])
def test_what_is_required_and_unknown_is_refused_by_name(requires: list[str], named: str) -> None:
    told = refusal(record(requires=requires))
    assert told == f"odd requires {named}, which this edgetune does not know: install a newer edgetune"


def test_what_is_required_is_told_before_what_else_cannot_be_read() -> None:
    assert "requires shards" in refusal(record(requires=["shards"], sizes=None, graphs=[], inputs={"audio": 3}))


@pytest.mark.parametrize("requires", ["pairs", 3, None, {}, {"pairs": 1}, [1], [None], [["pairs"]], True])
def test_requirements_that_are_no_list_of_strings_are_refused(requires: object) -> None:
    assert "is not a sound edgetune manifest" in refusal(record(requires=requires))


# Inputs


def with_input(name: str, spec: object) -> dict[str, Any]:
    return record(inputs={**RECORD["inputs"], name: spec})


SPANS = RECORD["inputs"]["spans"]


@pytest.mark.parametrize("name", ["audio", "", "Spans", "prompt_source", "logits"])
def test_inputs_that_are_unknown_are_named(name: str) -> None:
    told = refusal(with_input(name, SPANS))
    assert f"graph inputs [{name!r}], which this edgetune does not know; a newer one may" in told


@pytest.mark.parametrize(
    "spec",
    [
        {**SPANS, "dtype": "int32"},
        {**SPANS, "dtype": None},
        {**SPANS, "dims": ["batch", "spans"]},
        {**SPANS, "dims": ["spans", "batch", "ends"]},
        {**SPANS, "dims": [1, 2, 3]},
        {**SPANS, "dims": []},
    ],
)
def test_inputs_of_other_dimensions_or_types_are_refused(spec: dict[str, Any]) -> None:
    assert "a graph input 'spans' of {" in refusal(with_input("spans", spec))


@pytest.mark.parametrize("spec", [None, 3, "int64", [], {}, {"dtype": "int64"}, {"dims": ["batch"]}])
def test_inputs_that_are_not_described_are_refused(spec: object) -> None:
    assert "is not a sound edgetune manifest" in refusal(with_input("spans", spec))


@pytest.mark.parametrize("name", contract.REQUIRED_INPUTS)
def test_inputs_that_every_graph_has_are_missed(name: str) -> None:
    inputs = {key: spec for key, spec in RECORD["inputs"].items() if key != name}
    assert f"a graph without the inputs {name}" in refusal(record(inputs=inputs))


@pytest.mark.parametrize("inputs", [None, [], ["input_ids"], "input_ids", 3])
def test_inputs_that_are_no_object_are_refused(inputs: object) -> None:
    assert "is not a sound edgetune manifest" in refusal(record(inputs=inputs))


# Parity


@pytest.mark.parametrize("figure", ["accuracy", "macro_f1", "pearson", "f1_2"])
@pytest.mark.parametrize(("torch", "here"), [(0.75, 0.5), (1, 1), (None, None), (-0.5, 0.25)])
def test_parity_comes_back_equal(figure: str, torch: float | None, here: float | None) -> None:
    parity = TaskParity(8, 1e-6, 0.875, figure, torch, here)
    written = json.loads(json.dumps(parity.to_record()))
    assert written[figure] == here
    assert written[f"{figure}_torch"] == torch
    assert written["figure"] == figure
    assert TaskParity.from_record(written) == parity
    assert parity.drop == (None if torch is None or here is None else torch - here)


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        ({"accuracy": 0.5, "accuracy_torch": 0.75}, TaskParity(8, 0.25, 1.0, "accuracy", 0.75, 0.5)),
        ({"accuracy": None, "accuracy_torch": None}, TaskParity(8, 0.25, 1.0)),
        ({}, TaskParity(8, 0.25, 1.0)),
    ],
)
def test_parity_of_edgetune_0_1_is_the_accuracy(values: dict[str, float | None], expected: TaskParity) -> None:
    assert (
        TaskParity.from_record({"rows": 8, "max_logit_difference": 0.25, "label_agreement": 1.0, **values}) == expected
    )


SOUND = {"rows": 8, "max_logit_difference": 0.25, "label_agreement": 1.0, "figure": "pearson", "pearson": 0.5}


@pytest.mark.parametrize(
    "change",
    [
        *({"figure": figure} for figure in ("", "F1", "a b", "x" * 60, "\x1b[2J", "1", 3, None, ["pearson"])),
        *({name: value} for name in ("rows", "pearson", "label_agreement") for value in ("1", True, [1], {})),
        {"pearson_torch": "0.5"},
    ],
    ids=str,
)
def test_parity_that_is_none_is_refused(change: dict[str, Any]) -> None:
    fields = record()
    fields["graphs"]["fp32"]["parity"] = {"colour": {**SOUND, **change}}
    assert "is not a sound edgetune manifest" in refusal(fields)


@pytest.mark.parametrize("name", ["rows", "max_logit_difference", "label_agreement"])
def test_parity_that_lacks_a_number_is_refused(name: str) -> None:
    fields = record()
    fields["graphs"]["fp32"]["parity"] = {"colour": {key: value for key, value in SOUND.items() if key != name}}
    assert repr(name) in refusal(fields)
