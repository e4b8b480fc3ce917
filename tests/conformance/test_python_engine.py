"""edgetune's engine gives this folder's answers, and rejects its invalid files; see README.md."""

from __future__ import annotations

import json
import math
import re
import shutil
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from edgetune_runtime import Bundle, Engine, Task, contract, files
from edgetune_runtime.errors import BundleError, TaskError
from edgetune_runtime.kinds import KINDS
from edgetune_runtime.manifest import FORMAT_VERSION
from edgetune_runtime.text import Text
from edgetune_runtime.verify import findings

HERE = Path(__file__).parent
OLD = HERE.parent / "formats/0.1"
MOST_BYTES = 1_000_000

Case = dict[str, Any]


def lines(path: Path) -> list[Case]:
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


@cache
def cases() -> dict[tuple[str, str, str], list[Case]]:
    """(bundle, precision, task) → its cases."""
    found: dict[tuple[str, str, str], list[Case]] = {}
    for case in lines(HERE / "cases.jsonl"):
        found.setdefault((case["bundle"], case["precision"], case["task"]), []).append(case)
    return found


REFUSED = lines(HERE / "refused/refused.jsonl")
BUNDLES = sorted({bundle for bundle, _, _ in cases()})

SAYS = {
    "requires-kind": "requires kind:ranking",
    "requires-part": "requires part:adapter",
    "requires-no-list": "requires is",
    "tensor-half-of-low-rank": "has the tensors ['head_bias', 'head_weight', 'query_down']",
    "manifest-variant-elsewhere": "a variant of a graph in 'onnx/model_q4_light.onnx'",
    "manifest-variant-missing": "variants ['light', 'full'], and others of fp32",
    "manifest-variant-input-unknown": "graph inputs ['scale'], which this edgetune does not know",
    "unknown-kind": "the kind 'ranking'",
    "version-3": "format version 3",
    "version-1-kind": "unknown fields ['kind']",
    "version-1-requires": "unknown fields ['requires']",
    "version-1-note": "unknown fields ['note']",
    "damaged-tensor": "is damaged",
    "damaged-field": "is damaged",
    "cut-short": "is not a whole task file",
    "field-twice": "a key twice",
    "another-backbone": "was trained on the backbone decoder",
    "input-missing": "needs the graph's input token_type_ids",
    "pooling-missing": "by pooling 'decoder'",
    "pooling-unknown": "has pooling 'max'",
    "template-without-text": "expected one {text}",
    "template-text-twice": "expected one {text}",
    "template-mask": "expected one {text}",
    "template-no-pair": "expected {text} and {text_pair} in it",
    "template-control": "control characters",
    "labels-too-many": "has 3 labels for a head of 2 rows",
    "labels-twice": "all different",
    "labels-one": "has 1 labels",
    "score-of-two": "has 2 labels",
    "thresholds-one": "1 thresholds for 2 labels",
    "thresholds-range": "a threshold of 1.0",
    "thresholds-single-label": "2 thresholds: expected none",
    "pieces-pooling": "has pooling 'pooler': expected one of mean, cls, last",
    "pieces-rows": "has 1 labels for a head of 5 rows",
    "questions-single": "reads single texts: expected pairs",
    "temperature-zero": "temperature 0.0",
    "temperature-nan": "temperature nan",
    "length-zero": "max_length 0",
    "offset-negative": "position_offset -1",
    "offset-too-large": "begins at position 40",
    "name-path": "task name '../head-cls'",
    "tensor-float16": "head_bias as float16",
    "tensor-nan": "not finite",
    "tensor-large": "not from -1,000,000",
    "tensor-shape": "head_weight of shape [2, 15]",
    "tensor-missing": "has the tensors ['head_weight']",
    "tensor-unknown": "'lora'",
    "tensor-half": "keys and values together",
    "manifest-requires": "requires graph:blocks",
    "manifest-version-3": "format version 3",
    "manifest-version-text": "format version 2, expected",
    "manifest-input-unknown": "row_hints",
    "manifest-input-missing": "without the inputs task_index",
    "manifest-input-dims": "a graph input 'spans'",
    "manifest-input-type": "a graph input 'input_ids'",
    "manifest-pooling-unknown": "'max'",
    "manifest-pooling-none": "poolings ()",
    "manifest-mask-without-token": "without a mask token",
    "manifest-size-more": "'depth'",
    "manifest-size-zero": "0: expected a whole number",
    "manifest-graphs-none": "0 graphs",
    "manifest-graph-elsewhere": "in 'onnx/model_q4.onnx'",
    "manifest-weights-elsewhere": "in 'onnx/other.data'",
    "manifest-file-above": "'../tokenizer.json'",
    "manifest-digest-short": "'tokenizer.json' with the SHA-256",
    "manifest-field-missing": "'max_positions'",
}
"""Rejected file → part of the message: each file is rejected for its own reason."""


@pytest.fixture(scope="module")
def engines() -> Iterator[dict[tuple[str, str], Engine]]:
    """(bundle, precision) → an engine."""
    keys = {(bundle, precision) for bundle, precision, _ in cases()}
    opened = {key: Engine(HERE / "bundle" / key[0], key[1], threads=1, prepare=False) for key in keys}
    yield opened
    for engine in opened.values():
        engine.close()


def text_of(case: Case) -> Text:
    return (case["text"], case["text_pair"]) if "text_pair" in case else case["text"]


@pytest.mark.parametrize(("bundle", "precision", "task"), cases(), ids="-".join)
def test_it_answers(engines: dict[tuple[str, str], Engine], bundle: str, precision: str, task: str) -> None:
    engine, expected = engines[bundle, precision], cases()[bundle, precision, task]
    own, texts = engine.task(task), [text_of(case) for case in expected]
    rows = engine.encode(texts, [own] * len(texts))
    for row, case in zip(rows, expected, strict=True):
        assert row.ids == case["ids"]
        assert row.type_ids == case["type_ids"]
        assert [list(span) for span in row.spans] == case["spans"]
        assert row.truncated == case["truncated"]
        assert [list(place) for place in row.places] == case.get("words", [])
        assert [[window.ids, list(map(list, window.spans)), list(map(list, window.places))] for window in row.more] == [
            [window["ids"], window["spans"], window["words"]] for window in case.get("more", ())
        ]
    for logits, case in zip(engine.run([(row, own) for row in rows]), expected, strict=True):
        wanted = np.reshape(case["logits"], logits.shape)
        np.testing.assert_allclose(logits, wanted, rtol=0, atol=case["tolerance"])
    for result, case in zip(engine.classify(texts, task), expected, strict=True):
        assert_answer(result.fields(), case)


def assert_answer(got: Case, case: Case) -> None:
    """Compare numbers with the stored ones within the tolerance, and names if they must be the same."""
    assert got.keys() == case["answer"].keys()
    for name, value in case["answer"].items():
        if isinstance(value, float | dict):
            assert got[name] == pytest.approx(value, abs=case["tolerance"])
        elif case["clear"] and name == "entities":
            near = [{**one, "score": pytest.approx(one["score"], abs=case["tolerance"])} for one in value]
            assert got[name] == near
        elif case["clear"]:
            assert got[name] == value


@pytest.mark.parametrize("refused", REFUSED, ids=lambda one: Path(one["file"]).stem)
def test_it_refuses(refused: Case, tmp_path: Path) -> None:
    path = HERE / "refused" / refused["file"]
    says = re.escape(SAYS[path.stem])
    if path.suffix == files.TASK_SUFFIX:
        bundle = Bundle(HERE / "bundle" / refused["bundle"])
        with pytest.raises(TaskError, match=says):
            bundle.check_task(Task.load(path))
    else:
        shutil.copyfile(path, tmp_path / files.MANIFEST)
        with pytest.raises(BundleError, match=says):
            Bundle(tmp_path)


def test_each_refused_file_is_told_of() -> None:
    there = {path.name for path in (HERE / "refused").iterdir()} - {"refused.jsonl"}
    assert there == {one["file"] for one in REFUSED} == {one["file"] for one in REFUSED if one["why"]}
    assert {Path(name).stem for name in there} == SAYS.keys()


@pytest.mark.parametrize("bundle", BUNDLES)
def test_a_bundle_is_sound_and_of_today(bundle: str) -> None:
    folder = HERE / "bundle" / bundle
    assert [finding for finding in findings(folder) if finding.status != "sound"] == []
    manifest = Bundle(folder).manifest
    assert manifest.format_version == FORMAT_VERSION
    assert not contract.is_first_generation(manifest.facts.inputs)
    for name in Bundle(folder).task_names():  # writing it today gives the same file
        data = (folder / files.task_file(name)).read_bytes()
        assert Task.from_bytes(data, name).to_bytes() == data


def test_cases_cover_the_format() -> None:
    """Each input, pooling, kind, part and way to cut is covered."""
    opened = {name: Bundle(HERE / "bundle" / name) for name in BUNDLES}
    tasks = {(bundle, task): opened[bundle].load_task(task) for bundle, _, task in cases()}
    assert {name for bundle in opened.values() for name in bundle.facts.inputs_of("full")} == contract.INPUTS.keys()
    assert {opened[bundle].facts.variant_for(task) for (bundle, _), task in tasks.items()} == {*contract.VARIANTS}
    assert {task.pooling for task in tasks.values()} == {*contract.POOLINGS, contract.ENDS}
    assert {(task.kind_name, task.pairs) for task in tasks.values()} == {
        (kind, pairs) for kind in KINDS for pairs in (False, True) if pairs or kind != "spans"
    }
    assert {name for task in tasks.values() for name in task.tensors} == contract.TASK_TENSORS.keys()
    assert {(task.prompt_length > 0, task.prefix_length > 0) for task in tasks.values()} == {
        (prompt, prefix) for prompt in (False, True) for prefix in (False, True)
    }
    cut = {
        (task.pairs, task.template.endswith(contract.TEXT_SLOT), case["truncated"])
        for (bundle, name), task in tasks.items()
        for case in cases()[bundle, "fp32", name]
    }
    assert len(cut) == 8
    fp32 = [case for (_, precision, _), own in cases().items() for case in own if precision == "fp32"]
    # A context that repeats itself has an answer more than once.
    assert all(case["clear"] or "no_answer" in case["answer"] for case in fp32)
    assert [0] in [case["ids"] for case in fp32]
    assert all(math.isfinite(value) for case in fp32 for value in np.ravel(case["logits"]))


def test_it_is_small_and_has_no_paths_of_a_computer() -> None:
    paths = [path for path in HERE.rglob("*") if path.is_file() and path.suffix not in (".py", ".pyc")]
    assert sum(path.stat().st_size for path in paths if (HERE / "bundle") in path.parents) < MOST_BYTES
    for path in paths:
        assert not re.search(rb"/(home|root|Users|tmp|work|usr|opt)/|site-packages|\.py\b", path.read_bytes()) or (
            path.name == "README.md"
        ), path


def test_files_of_version_1_are_read_too() -> None:
    """tests/formats/test_old_files.py checks their answers."""
    for folder in sorted({path.parent for path in OLD.glob("*/edgetune.json")}):
        bundle = Bundle(folder)
        assert contract.is_first_generation(bundle.facts.inputs)
        assert [bundle.load_task(name).name for name in bundle.task_names()] == bundle.task_names() != []
