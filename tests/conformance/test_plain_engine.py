"""An engine that was written only from docs/format.md gives edgetune's answers, so the page is complete."""

from __future__ import annotations

import json
import subprocess
import sys
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import plain
import pytest

from edgetune_runtime import Engine
from edgetune_runtime.text import Tokens

HERE = Path(__file__).parent
KERNELS = 1e-6
"""Tolerance of logits compared with edgetune's on this computer, relative to max(1, |logit|); edgetune applies heads
itself."""

Case = dict[str, Any]
LINES = [json.loads(line) for line in (HERE / "cases.jsonl").read_text(encoding="utf-8").splitlines()]
ROWS = sorted({(case["bundle"], case["precision"], case["task"]) for case in LINES})


def cases_of(*row: str) -> list[Case]:
    """The cases of a bundle, a precision and a task."""
    return [case for case in LINES if (case["bundle"], case["precision"], case["task"]) == row]


@cache
def opened(bundle: str, precision: str) -> plain.PlainBundle:
    return plain.PlainBundle(HERE / "bundle" / bundle, precision)


@cache
def edgetunes(bundle: str, precision: str) -> Engine:
    return Engine(HERE / "bundle" / bundle, precision, threads=1, prepare=False)


@pytest.mark.parametrize(("bundle", "precision", "name"), ROWS, ids=["-".join(row) for row in ROWS])
def test_it_answers(bundle: str, precision: str, name: str) -> None:
    engine = opened(bundle, precision)
    task = engine.task(name)
    for case in cases_of(bundle, precision, name):
        texts = [case["text"], *([case["text_pair"]] if task.pairs else [])]
        read = engine.read(texts, task)
        assert read == {key: case[key] for key in read}
        assert ("more" in case) == ("more" in read)
        logits = engine.logits(read, task)
        np.testing.assert_allclose(logits, np.reshape(case["logits"], logits.shape), rtol=0, atol=case["tolerance"])
        got = plain.answer(logits, task, read, texts)
        assert got.keys() == case["answer"].keys()
        for key, value in case["answer"].items():
            if isinstance(value, float | dict):
                assert got[key] == pytest.approx(value, abs=case["tolerance"])
            elif case["clear"] and key == "entities":
                near = [{**one, "score": pytest.approx(one["score"], abs=case["tolerance"])} for one in value]
                assert got[key] == near
            elif case["clear"]:
                assert got[key] == value


@pytest.mark.parametrize(("bundle", "precision", "name"), ROWS, ids=["-".join(row) for row in ROWS])
def test_on_one_computer_both_give_the_same_logits(bundle: str, precision: str, name: str) -> None:
    """Also in int8, although the tolerance of the cases is as large as the error of int8 itself."""
    engine, edgetune = opened(bundle, precision), edgetunes(bundle, precision)
    task, own = engine.task(name), edgetune.task(name)
    for text in cases_of(bundle, precision, name):
        tokens = tokens_of(text, tuple(tokens_of(window) for window in text.get("more", ())))
        (expected,) = edgetune.run([(tokens, own)])
        difference = np.abs(engine.logits(text, task) - expected) / np.maximum(1, np.abs(expected))
        assert difference.max(initial=0) <= KERNELS


def tokens_of(read: Case, more: tuple[Tokens, ...] = ()) -> Tokens:
    spans, places = (tuple(map(tuple, read.get(name, ()))) for name in ("spans", "words"))
    truncated, by_piece = read.get("truncated", False), "words" in read
    return Tokens(read["ids"], truncated, read["type_ids"], spans, more, read.get("text", ""), places, by_piece)


def test_it_uses_nothing_of_edgetune() -> None:
    code = "import plain, sys; assert not any(name.startswith('edgetune') for name in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], cwd=HERE, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
