"""`edgetune rank`: the engine's order, with the same input as `classify`."""

from __future__ import annotations

import dataclasses
import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result
from conftest import TEXTS, MakeTask

from edgetune.cli import cli
from edgetune_runtime import Bundle, Engine
from edgetune_runtime.ranking import Ranked

QUERY = "where is the lamp?"


@pytest.fixture(scope="module")
def ranking(bundle_folder: Path, make_task: MakeTask, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A bundle with tasks that rank. Not to be changed."""
    bundle = Bundle(shutil.copytree(bundle_folder, tmp_path_factory.mktemp("ranking") / "bundle"))
    bundle.add_task(dataclasses.replace(make_task("alike", labels=1), kind_name="score", pairs=True))
    bundle.add_task(dataclasses.replace(make_task("relevant", labels=2), labels=("no", "yes"), pairs=True))
    bundle.add_task(dataclasses.replace(make_task("unnamed", labels=2), pairs=True))
    bundle.add_task(dataclasses.replace(make_task("topics"), kind_name="multi-label", pairs=True))
    return bundle.path


@pytest.fixture(scope="module")
def engine(ranking: Path) -> Iterator[Engine]:
    with Engine(ranking) as engine:
        yield engine


def call(*arguments: object, text: str | None = None, query: str = QUERY) -> Result:
    return CliRunner().invoke(cli, ["rank", *map(str, arguments), "--query", query], input=text)


def rows(*arguments: object, text: str | None = None) -> list[dict[str, Any]]:
    done = call(*arguments, "--json", text=text)
    assert done.exit_code == 0, f"{done.output}{done.exception!r}"
    return [json.loads(line) for line in done.stdout.splitlines()]


def same(found: list[dict[str, Any]], expected: list[Ranked]) -> bool:
    """Whether rows are in the engine's order, with its scores."""
    scores = [pytest.approx(one.score, abs=1e-6) for one in expected]
    return [row["text"] for row in found] == [one.text for one in expected] and [
        row["score"] for row in found
    ] == scores


@pytest.mark.parametrize(
    ("task", "label"), [("alike", None), ("relevant", None), ("relevant", "no"), ("unnamed", "label1")]
)
def test_the_order_is_the_engines(ranking: Path, engine: Engine, task: str, label: str | None) -> None:
    more = [] if label is None else ["--label", label]
    expected = engine.rank(QUERY, TEXTS, task, label=label)
    found = rows(ranking, "--task", task, *more, text="\n".join(TEXTS))
    assert same(found, expected)
    assert [list(row) for row in found] == [["id", "score", "text", "status"]] * len(TEXTS)
    assert [(row["id"], row["status"]) for row in found] == [(one.index + 1, "ok") for one in expected]
    plain = call(ranking, "--task", task, *more, text="\n".join(TEXTS)).stdout.splitlines()
    assert plain == [f"{one.score:8.4f}  {one.text}" for one in expected]


def test_the_best_alone(ranking: Path, engine: Engine) -> None:
    found = rows(ranking, "--task", "alike", "--top", 3, text="\n".join(TEXTS))
    assert same(found, engine.rank(QUERY, TEXTS, "alike")[:3])
    assert len(rows(ranking, "--task", "alike", "--top", 99, text="\n".join(TEXTS))) == len(TEXTS)


def test_rows_of_a_file(ranking: Path, engine: Engine, tmp_path: Path) -> None:
    table = tmp_path / "rows.csv"
    lines = [f'r{place},"{text}","x",mood' for place, text in enumerate(TEXTS)]
    table.write_text("\n".join(["id,said,text_pair,task", *lines]))
    found = rows(ranking, table, "--task", "alike", "--text-column", "said")
    expected = engine.rank(QUERY, TEXTS, "alike")
    assert same(found, expected)
    assert [row["id"] for row in found] == [f"r{one.index}" for one in expected]
    assert same(
        rows(ranking, "--task", "alike", "--input", "csv", "--text-column", "said", text=table.read_text()), expected
    )


def test_a_task_file(ranking: Path, engine: Engine) -> None:
    found = rows(ranking, "--task", ranking / "tasks" / "alike.safetensors", text="\n".join(TEXTS))
    assert same(found, engine.rank(QUERY, TEXTS, "alike"))


def test_the_precision_that_is_asked_for(ranking: Path) -> None:
    with Engine(ranking, "fp32") as engine:
        expected = engine.rank(QUERY, TEXTS, "alike")
    assert same(rows(ranking, "--task", "alike", "--precision", "fp32", text="\n".join(TEXTS)), expected)


def test_a_text_of_several_lines_is_printed_in_one(ranking: Path) -> None:
    text = json.dumps({"text": "a\nb\x1b[31m"}) + "\n"
    assert call(ranking, "--task", "alike", text=text).stdout.endswith("  a b\\x1b[31m\n")
    assert rows(ranking, "--task", "alike", text=text)[0]["text"] == "a\nb\x1b[31m"


def test_a_long_text_is_cut_and_says_so(ranking: Path) -> None:
    found = rows(ranking, "--task", "alike", text="good\n" + "good " * 300)
    assert {row["id"]: row["status"] for row in found} == {1: "ok", 2: "truncated"}


def test_rows_that_cannot_be_read_are_left_out(ranking: Path) -> None:
    text = "".join(json.dumps(row) + "\n" for row in ({"text": "good"}, {"text": 1}, {"said": "x"}, {"text": "bad"}))
    done = call(ranking, "--task", "alike", "--json", text=text)
    assert sorted(json.loads(line)["text"] for line in done.stdout.splitlines()) == ["bad", "good"]
    assert done.stderr == (
        "2 of 4 rows are errors, and are left out; the first: line 2: 'text' is 1: expected a string\n"
    )
    assert done.exit_code == 0


def test_no_rows(ranking: Path) -> None:
    done = call(ranking, "--task", "alike", text="\n")
    assert (done.exit_code, done.stdout) == (0, "")


REFUSED: dict[str, tuple[list[str], str | None, str]] = {
    "no such task": (["--task", "none"], "good", "no task 'none' here"),
    "single texts": (["--task", "colour"], "good", "task 'colour' takes single texts"),
    "several labels": (["--task", "topics"], "good", "task 'topics' is of the kind 'multi-label'"),
    "names that do not tell": (["--task", "unnamed"], "good", "is not known: name it with --label"),
    "another label": (["--task", "relevant", "--label", "x"], "good", "no label 'x': expected one of no, yes"),
    "a label of a number": (["--task", "alike", "--label", "x"], "good", "leave --label out"),
    "no file": (["none.txt", "--task", "alike"], None, "none.txt"),
    "bad rows alone": (
        ["--task", "alike", "--input", "jsonl"],
        '{"text": 1}\n{"text": 2}',
        "no text was ranked: all 2 rows are errors; the first: line 1: 'text' is 1: expected a string",
    ),
    "too long a text": (["--task", "alike", "--max-characters", "3"], "good", "a text of 18 characters"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_refused(ranking: Path, case: str) -> None:
    arguments, text, why = REFUSED[case]
    done = call(ranking, *arguments, text=text)
    assert done.exit_code == 1
    assert why in str(done.exception)
    assert "\n" not in str(done.exception)
    assert done.stdout == ""


@pytest.mark.parametrize("arguments", [["--task", "alike", "--top", "0"], []])
def test_wrong_usage(ranking: Path, arguments: list[str]) -> None:
    assert call(ranking, *arguments, text="good").exit_code == 2


def test_a_query_that_is_no_text(ranking: Path) -> None:
    done = call(ranking, "--task", "alike", text="good", query="\udcff")
    assert (done.exit_code, "the query has half of" in str(done.exception)) == (1, True)
