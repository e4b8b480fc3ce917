"""The JavaScript package in Node beside Python: the same contract, and the same reading of long texts and pairs."""

from __future__ import annotations

import dataclasses
import json
import os
import random
import shutil
import subprocess
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
from files_served import ROOT, needs_packages

from edgetune_runtime import Bundle, Engine, contract
from edgetune_runtime.kinds import KINDS
from edgetune_runtime.parts import PARTS

pytestmark = [
    needs_packages,
    pytest.mark.skipif("CI" not in os.environ and shutil.which("node") is None, reason="Node is not there"),
]

BUNDLES = ROOT / "tests/conformance/bundle"
CLOSE = 1e-5
TEXTS = 12
WORDS = [
    *("the", "lamp", "is", "broken", "and", "screen", "stays", "black", "parcel", "today", "Thank", "you,"),
    *("Größe", "e\u0301", "😀", "赤い", "👍🏽", "Σ", "½", "[MASK]", "[SEP]", "{text}", "don't", "...", "\t"),
]

WAYS: dict[str, Mapping[str, Any]] = {
    "cut": {"template": "say {text} or what", "max_length": 16},
    "windows": {"max_length": 10, "long_texts": "windows", "stride": 3},
    "windows-template": {"template": "It was: {text}!", "max_length": 20, "long_texts": "windows", "stride": 4},
    "windows-before": {"template": "say {text}", "max_length": 16, "long_texts": "windows"},
    "pair-cut": {"pairs": True, "max_length": 15},
    "pair-windows": {"pairs": True, "max_length": 14, "long_texts": "windows", "stride": 2},
    "pair-slots": {"pairs": True, "template": "{text_pair} for {text}.", "max_length": 24},
    "pair-slots-windows": {
        "pairs": True,
        "template": "{text} is it {text_pair}",
        "max_length": 26,
        "long_texts": "windows",
        "stride": 5,
    },
}


def asked(script: str, **message: object) -> Any:
    """What a script of web/test answers."""
    command = ["node", str(ROOT / "web/test" / script)]
    told = subprocess.run(
        command, input=json.dumps(message), stdout=subprocess.PIPE, encoding="utf-8", check=True
    ).stdout
    return json.loads(told)


def random_texts(seed: int) -> list[str]:
    rng = random.Random(seed)
    separators = (" ", " ", "  ", "")
    return [
        "".join(rng.choice(WORDS) + rng.choice(separators) for _ in range(rng.randint(0, 40))) for _ in range(TEXTS)
    ]


@pytest.mark.parametrize("name", ["encoder", "decoder", "encoder-decoder"])
def test_long_texts_and_pairs_are_read_alike(name: str, tmp_path: Path) -> None:
    folder = shutil.copytree(BUNDLES / name, tmp_path / name)
    bundle = Bundle(folder)
    plain = next(task for task in map(bundle.load_task, bundle.task_names()) if task.pooling in ("mean", "decoder"))
    for way, changes in WAYS.items():
        base = dataclasses.replace(plain, template="{text}", pairs=False, graph_inputs=(), unknown={})
        bundle.add_task(dataclasses.replace(base, name=way, **changes))
    rows = []
    for way, changes in WAYS.items():
        texts = zip(random_texts(1), random_texts(2), strict=True)
        rows += [{"task": way, "text": list(pair) if changes.get("pairs") else pair[0]} for pair in texts]
    with Engine(folder, "fp32", threads=1, prepare=False) as engine:
        tasks = [engine.task(row["task"]) for row in rows]
        given = [tuple(row["text"]) if isinstance(row["text"], list) else row["text"] for row in rows]
        read = engine.encode(given, tasks)
        results = engine.classify(given, tasks=[row["task"] for row in rows])
    found = asked("answers.js", place=str(folder), precision="fp32", rows=rows)
    several = 0
    for row, tokens, result, got in zip(rows, read, results, found, strict=True):
        windows = [
            {"ids": one.ids, "typeIds": one.type_ids, "spans": [list(span) for span in one.spans]}
            for one in tokens.windows
        ]
        assert got["windows"] == windows, row
        assert got["truncated"] == tokens.truncated, row
        several += len(windows) > 1
        fields = result.fields()
        numbers = fields.get("scores", {"score": fields.get("score")})
        assert got["answer"].get("scores", {"score": got["answer"].get("score")}) == pytest.approx(numbers, abs=CLOSE)
    assert several > TEXTS


def test_the_contract_is_the_same() -> None:
    """What fails here is to be changed in web/src/contract.js as it was in edgetune_runtime."""
    known = asked("contract.js")
    inputs = {name: {"dtype": spec.dtype, "dims": list(spec.dims)} for name, spec in contract.INPUTS.items()}
    assert known["INPUTS"] == inputs
    assert {name: tuple(dims) for name, dims in known["TASK_TENSORS"].items()} == contract.TASK_TENSORS
    assert known["POOLINGS"] == list(contract.POOLINGS)
    assert known["TRANSFORMS"] == list(contract.TRANSFORMS)
    assert set(known["INPUTS_OF_0_1"]) == set(contract.INPUTS_OF_0_1)
    assert set(known["REQUIRED_INPUTS"]) == set(contract.REQUIRED_INPUTS)
    assert set(known["PART_INPUTS"]) == contract.PART_INPUTS
    assert [contract.BASE, *known["VARIANTS"]] == list(contract.VARIANTS)
    assert known["FORMAT_VERSIONS"] == list(contract.FORMAT_VERSIONS)
    assert known["SIZES"] == [field.name for field in dataclasses.fields(contract.BackboneSizes)]
    parts = [
        {"length": part.length, "tensors": list(part.tensors), "mask": part.mask, "requires": part.requires}
        for part in PARTS.values()
    ]
    assert known["parts"] == parts


def test_kinds_are_the_same() -> None:
    """A kind that JavaScript does not know is refused by its name; those that it knows are Python's."""
    for name, known in asked("contract.js")["kinds"].items():
        kind = KINDS[name]
        assert known["title"] == kind.title
        assert known["requires"] == list(kind.requires)
        assert known["labels"] == list(kind.labels)
        assert known["minScore"] == kind.min_score
