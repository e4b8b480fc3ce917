"""A text that fails does not affect the others: in the engine's attempts, `classify`, `evaluate` and `score`."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

import pyarrow.dataset
import pytest
from click.testing import CliRunner
from conftest import BAD, TEXTS

from edgetune.cli import cli
from edgetune_runtime import Engine, Task
from edgetune_runtime.attempts import attempt
from edgetune_runtime.engine import Result
from edgetune_runtime.errors import DataError, TextError
from edgetune_runtime.parts import HEAD
from edgetune_runtime.text import Text

ROWS = [*TEXTS[:3], BAD, *TEXTS[3:], BAD]
BAD_PLACES = {3, len(ROWS) - 1}


@pytest.mark.parametrize("threads", [1, 2])
def test_texts_that_fail_have_a_reason_and_the_others_their_answers(poisoned: Path, threads: int) -> None:
    with Engine(poisoned, threads=threads) as engine:
        task = engine.task("colour")
        found = attempt(engine, [(text, task) for text in ROWS])
        assert {place for place, one in enumerate(found) if isinstance(one, TextError)} == BAD_PLACES
        assert [one for one in found if isinstance(one, Result)] == engine.classify(TEXTS, "colour")
        with pytest.raises(TextError, match="gives the token id"):
            engine.classify(ROWS, "colour")


def test_a_run_that_fails_costs_its_row_only(poisoned: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with Engine(poisoned, threads=2) as engine:
        task = engine.task("colour")
        (wanted,) = engine.encode([TEXTS[2]], [task])
        run = engine._runner._run_batch

        def failing(precision: str, threads: int, batch: Any) -> Any:
            # A real failure of onnxruntime: a session gets an input that its graph does not accept.
            unknown = dataclasses.replace(wanted, ids=[10**9] * len(wanted.ids))
            wrong = [
                (place, dataclasses.replace(one, tokens=unknown) if one.tokens.ids == wanted.ids else one)
                for place, one in batch
            ]
            return run(precision, threads, wrong)

        monkeypatch.setattr(engine._runner, "_run_batch", failing)
        found = attempt(engine, [(text, task) for text in TEXTS[:5]])
    assert [isinstance(one, TextError) for one in found] == [False, False, True, False, False]
    assert "the backbone fails on 1 texts" in str(found[2])


def test_long_texts_are_not_read(poisoned: Path) -> None:
    with Engine(poisoned) as engine:
        task = engine.task("colour")
        short, long = attempt(engine, [("good", task), ("b" * 11, task)], most_characters=10)
        assert isinstance(short, Result)
        assert str(long) == "a text of 11 characters: expected at most 10"
        assert attempt(engine, []) == []
        with pytest.raises(DataError, match="min_score is 2"):
            attempt(engine, [("good", task)], min_score=2)


def test_pairs_and_a_min_score_that_means_nothing(poisoned: Path) -> None:
    with Engine(poisoned) as engine:
        colour = engine.task("colour")
        pairs = engine.add_task(dataclasses.replace(colour, name="pairs", pairs=True))
        rows: list[tuple[Text, Task]] = [
            (("a", "b"), pairs),
            (("a", "b" * 11), pairs),
            ("b" * 10, colour),
            ("a", pairs),
        ]
        found = attempt(engine, rows, most_characters=10)
        assert [isinstance(one, TextError) for one in found] == [False, True, False, True]
        assert str(found[1]) == "a text of 11 characters: expected at most 10"
        assert "takes pairs of texts, and one text came" in str(found[3])
        assert found[0] == engine.classify([("a", "b")], "pairs")[0]
        head = {name: colour.tensors[name][:1] for name in HEAD.tensors}
        one = {"labels": ("score",), "kind_name": "score", "tensors": {**colour.tensors, **head}}
        number = engine.add_task(dataclasses.replace(colour, name="number", **one))
        assert isinstance(attempt(engine, [("a", number)])[0], Result)
        with pytest.raises(DataError, match="task 'number' of the kind 'score' gives no probabilities"):
            attempt(engine, [("a", colour), ("a", number)], min_score=0.5)


def run(*arguments: object) -> str:
    done = CliRunner().invoke(cli, list(map(str, arguments)))
    assert done.exit_code == 0, done.output
    return done.stdout


def test_in_every_command(poisoned: Path, tmp_path: Path) -> None:
    path = tmp_path / "rows.jsonl"
    path.write_text("".join(json.dumps({"text": text, "label": "label0"}) + "\n" for text in ROWS))
    answers = [json.loads(line) for line in run("classify", poisoned, path, "--task", "colour").splitlines()]
    assert {place for place, answer in enumerate(answers) if answer["status"] == "error"} == BAD_PLACES
    report = json.loads(run("evaluate", poisoned, "--data", path, "--task", "colour", "--json"))
    assert (report["rows"], report["errors"]) == (len(TEXTS), 2)
    out = tmp_path / "out"
    scored = json.loads(run("score", poisoned, path, "--task", "colour,size", "--out", out, "--workers", 1, "--json"))
    assert (scored["rows"], scored["errors"]) == (len(ROWS), 2)
    found = pyarrow.dataset.dataset(out, format="parquet").to_table()
    assert found["colour_label"].to_pylist() == [answer.get("label") for answer in answers]
