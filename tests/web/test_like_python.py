"""The JavaScript package in Node beside Python: the same contract, and the same reading of long texts and pairs."""

from __future__ import annotations

import dataclasses
import json
import os
import random
import shutil
import subprocess
import sys
import unicodedata
from collections.abc import Mapping
from itertools import accumulate
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from files_served import ROOT, needs_packages

from edgetune_runtime import Bundle, Engine, contract
from edgetune_runtime.kinds import KINDS
from edgetune_runtime.parts import PARTS
from edgetune_runtime.words import words

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
            {"ids": one.ids, "typeIds": one.type_ids, "spans": [list(span) for span in one.spans], "places": []}
            for one in tokens.windows
        ]
        assert got["windows"] == windows, row
        assert got["truncated"] == tokens.truncated, row
        several += len(windows) > 1
        fields = result.fields()
        numbers = fields.get("scores", {"score": fields.get("score")})
        assert got["answer"].get("scores", {"score": got["answer"].get("score")}) == pytest.approx(numbers, abs=CLOSE)
    assert several > TEXTS


ODD = [*"aB1 ,.'-\t\r\n", *"éßΣ赤いกา한\u0301\u0303\u200b\u200d\u00ad\ufe0f", *"😀👍🏽👩🇩🇪", "\u202e", "\u0627", "𠀀"]
"""Characters of every class of words, which random ones rarely bring together."""

NAMES: Mapping[str, Any] = {"kind_name": "tokens", "labels": ("place", "who"), "graph_inputs": (contract.SPANS,)}
QUESTIONS: Mapping[str, Any] = {
    "kind_name": "spans",
    "labels": ("answer",),
    "graph_inputs": (contract.SPANS,),
    "pairs": True,
    "temperature": 1.5,
    "max_length": 26,
}
IN_WINDOWS = {"long_texts": "windows", "stride": 5}
BY_PIECE: dict[str, Mapping[str, Any]] = {
    **{f"names-{way}": NAMES | WAYS[way] for way in WAYS},
    **{f"names-{way}": NAMES | {"pooling": way, "temperature": 2.0} for way in ("cls", "last")},
    "questions-cut": QUESTIONS,
    "questions": QUESTIONS | IN_WINDOWS,
    "questions-last": QUESTIONS | IN_WINDOWS | {"pooling": "last"},
    "questions-ends": QUESTIONS | IN_WINDOWS | {"pooling": "ends"},
    "questions-slots": QUESTIONS | IN_WINDOWS | {"template": "{text_pair}, {text}?", "pooling": "cls"},
}


@pytest.mark.parametrize("name", ["encoder", "decoder"])
def test_entities_and_answers_are_alike(name: str, tmp_path: Path) -> None:
    """Places are in UTF-16 units, so that `text.slice(start, end)` is the entity; Python's are in characters."""
    folder = shutil.copytree(BUNDLES / name, tmp_path / name)
    bundle = Bundle(folder)
    plain = next(task for task in map(bundle.load_task, bundle.task_names()) if task.pooling == "mean")
    random_numbers = np.random.default_rng(0)
    for way, changes in BY_PIECE.items():
        rows = KINDS[changes["kind_name"]].head_rows(len(changes["labels"]))
        width = plain.tensors["head_weight"].shape[1]
        head = {"head_weight": (rows, width), "head_bias": (rows,)}
        tensors = {tensor: random_numbers.normal(0, 0.4, shape).astype("f4") for tensor, shape in head.items()}
        base: dict[str, Any] = {"template": "{text}", "pairs": False, "unknown": {}, "name": way, "tensors": tensors}
        bundle.add_task(dataclasses.replace(plain, **(base | changes)))
    asked_for = []
    for way, changes in BY_PIECE.items():
        texts = zip(random_texts(3), random_texts(4), strict=True)
        asked_for += [{"task": way, "text": list(pair) if changes.get("pairs") else pair[0]} for pair in texts]
    with Engine(folder, "fp32", threads=1, prepare=False) as engine:
        tasks = [engine.task(row["task"]) for row in asked_for]
        given = [tuple(row["text"]) if isinstance(row["text"], list) else row["text"] for row in asked_for]
        read = engine.encode(given, tasks)
        results = engine.classify(given, tasks=[row["task"] for row in asked_for])
    found = asked("answers.js", place=str(folder), precision="fp32", rows=asked_for)
    several = some = 0
    for row, tokens, result, got in zip(asked_for, read, results, found, strict=True):
        units = units_of(tokens.text)
        windows = [
            {
                "ids": one.ids,
                "typeIds": one.type_ids,
                "spans": [list(span) for span in one.spans],
                "places": [[units[begin], units[end]] for begin, end in one.places],
            }
            for one in tokens.windows
        ]
        assert got["windows"] == windows, row
        assert got["truncated"] == tokens.truncated, row
        several += len(windows) > 1
        fields = in_units(result.fields(), units)
        own = {field: got["answer"][field] for field in fields}
        assert without_scores(own) == without_scores(fields), row
        assert scores_of(own) == pytest.approx(scores_of(fields), abs=CLOSE)
        for one in own.get("entities", [own]):
            text = one.get("text", own.get("answer"))
            some += text is not None
            assert text is None or tokens.text.encode("utf-16-le")[2 * one["start"] : 2 * one["end"]] == text.encode(
                "utf-16-le"
            )
    assert several > TEXTS
    assert some > 100


def units_of(text: str) -> list[int]:
    """The unit of UTF-16 in which each character begins, and the one behind the last."""
    return list(accumulate((1 + (character > "\uffff") for character in text), initial=0))


def in_units(value: Any, units: list[int]) -> Any:
    """Fields of an answer whose places count characters, with places that count UTF-16 units."""
    if isinstance(value, list):
        return [in_units(own, units) for own in value]
    if not isinstance(value, dict):
        return value
    return {
        field: units[own] if field in ("start", "end") and own is not None else in_units(own, units)
        for field, own in value.items()
    }


def without_scores(value: Any) -> Any:
    if isinstance(value, list):
        return [without_scores(own) for own in value]
    if not isinstance(value, dict):
        return value
    return {field: without_scores(own) for field, own in value.items() if field not in ("score", "no_answer")}


def scores_of(fields: dict[str, Any]) -> list[float]:
    return [
        own[field] for own in (fields, *fields.get("entities", [])) for field in ("score", "no_answer") if field in own
    ]


def test_words_are_alike() -> None:
    rng = random.Random(0)
    assigned = [
        chr(code) for code in range(sys.maxunicode + 1) if unicodedata.category(chr(code)) not in ("Cn", "Cs", "Co")
    ]
    texts = ["".join(rng.choice(rng.choice((assigned, ODD))) for _ in range(rng.randint(0, 12))) for _ in range(10_000)]
    for text, found in zip(texts, asked("words.js", texts=texts), strict=True):
        units = units_of(text)
        assert found == [[units[begin], units[end]] for begin, end in words(text)], [hex(ord(one)) for one in text]


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
    kinds = asked("contract.js")["kinds"]
    assert kinds.keys() == KINDS.keys()
    for name, known in kinds.items():
        kind = KINDS[name]
        assert known["title"] == kind.title
        assert known["requires"] == list(kind.requires)
        assert known["labels"] == list(kind.labels)
        assert known["minScore"] == kind.min_score
        reading = known["reading"]
        assert (reading is None) == (kind.reading is None)
        if kind.reading is not None:
            assert reading == {"second": kind.reading.second, "orNone": kind.reading.or_none}
