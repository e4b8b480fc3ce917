"""`evaluate` on Python columns, for tasks of every kind."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from conftest import TEXTS, MakeTask
from kinds_of_tasks import TASKS, answers, bundle_of_kinds, given, target_of

from edgetune.evaluation import Evaluation, evaluate, measure
from edgetune_runtime import Engine
from edgetune_runtime.errors import DataError, TextError
from edgetune_runtime.kinds import LabelResult


@pytest.fixture(scope="module")
def kinds(bundle_folder: Path, make_task: MakeTask, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return bundle_of_kinds(bundle_folder, make_task, tmp_path_factory.mktemp("kinds") / "bundle")


@pytest.fixture(scope="module")
def engine(kinds: Path) -> Iterator[Engine]:
    with Engine(kinds) as engine:
        yield engine


def targets(name: str) -> list[object]:
    return [target_of(name, place) for place in range(len(TEXTS))]


@pytest.mark.parametrize("name", TASKS)
def test_figures_are_those_of_the_kind(engine: Engine, kinds: Path, name: str) -> None:
    found = evaluate(engine, given(name), targets(name), name)
    task = engine.task(name)
    wanted = task.kind.figures(targets(name), answers(kinds, name), task)
    assert found.figures.values == pytest.approx(dict(wanted.values), abs=1e-5)
    assert (found.precision, len(found.rows), found.errors) == ("int8", len(TEXTS), [])
    assert [row.text for row in found.rows] == given(name)
    assert [row.place for row in found.rows] == [f"row {number}" for number in range(len(TEXTS))]
    assert found.rows_per_second > 0


def test_columns_of_pandas_and_numpy(engine: Engine) -> None:
    plain = evaluate(engine, TEXTS, targets("mood"), "mood")
    table = pd.DataFrame({"text": TEXTS, "label": targets("mood")})
    for texts, labels in ((table["text"], table["label"]), (np.array(TEXTS), np.array(targets("mood")))):
        assert evaluate(engine, texts, labels, engine.task("mood")).figures.values == plain.figures.values
    numbers = evaluate(engine, TEXTS, np.array(targets("stars"), np.float32), "stars")
    assert numbers.figures.values == evaluate(engine, TEXTS, targets("stars"), "stars").figures.values


def test_min_score_leaves_some(engine: Engine, kinds: Path) -> None:
    results = [one for one in answers(kinds, "mood") if isinstance(one, LabelResult)]
    least = sorted(one.score for one in results)[4]
    found = evaluate(engine, TEXTS, targets("mood"), "mood", min_score=least)
    left = [one.best == right for one, right in zip(results, targets("mood"), strict=True) if one.score >= least]
    assert found.answered == (len(left), pytest.approx(sum(left) / len(left)))
    assert found.coverage == len(left) / len(TEXTS) == 0.5
    assert found.figures.values == evaluate(engine, TEXTS, targets("mood"), "mood").figures.values
    everything = evaluate(engine, TEXTS, targets("mood"), "mood")
    assert (everything.answered, everything.coverage, everything.min_score) == (None, None, None)
    assert evaluate(engine, TEXTS, targets("tags"), "tags", min_score=0.9).answered is None


@pytest.mark.parametrize(
    ("texts", "labels", "task", "told"),
    [
        (
            ["a", "b"],
            ["label0", "purple"],
            "mood",
            "the data has labels that the task 'mood' does not have: purple; it has",
        ),
        (["a", "b"], ["label0"], "mood", "1 labels came for 2 texts: expected one for each"),
        (["a"], ["label0"], "same", "single texts came, and the task 'same' takes pairs of texts: pass pairs of texts"),
        ([("a", "b")], ["label0"], "mood", "pairs of texts came, and the task 'mood' takes single texts"),
        (["a"], ["much"], "stars", "expected a finite number"),
        ([], [], "mood", "there are no texts"),
        (["x" * 100_001], ["label0"], "mood", "no row was classified; the first: row 0: a text of 100,001 characters"),
    ],
)
def test_rows_that_do_not_fit(engine: Engine, texts: list[object], labels: list[object], task: str, told: str) -> None:
    with pytest.raises(DataError, match=told):
        evaluate(engine, texts, labels, task)


def test_a_score_below_which_nothing_is_answered_needs_a_probability(engine: Engine) -> None:
    with pytest.raises(DataError, match="gives no probabilities"):
        evaluate(engine, TEXTS, targets("stars"), "stars", min_score=0.5)


def test_rows_that_fail_are_left_out(engine: Engine) -> None:
    task, seen = engine.task("mood"), list[int]()
    texts = ["good", "b" * 20, "so so"] * 100
    right = ["label0", "label1", "label2"] * 100
    found = measure(engine, task, texts, right, most_characters=10, progress=seen.append)
    assert (len(found.rows), len(found.errors), sum(seen)) == (200, 100, 300)
    place, error = found.errors[0]
    assert place == "row 1"
    assert isinstance(error, TextError)
    assert found.figures.confusion is not None
    assert found.figures.confusion.sum(axis=1).tolist() == [100, 0, 100]


def test_rechecked_and_truncated_answers_are_counted(engine: Engine) -> None:
    task = engine.task("mood")
    outcomes = engine.classify(TEXTS, task="mood")
    outcomes[0] = dataclasses.replace(outcomes[0], precision="fp32", truncated=True)
    outcomes[1:] = [dataclasses.replace(one, precision="int8") for one in outcomes[1:]]
    found = Evaluation(task, TEXTS, targets("mood"), outcomes, "int8")
    assert (found.rechecked, found.truncated, found.rows_per_second) == (1 / len(TEXTS), 1, 0)


def test_the_example_of_the_docs(kinds: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    docs = (Path(__file__).parents[2] / "docs" / "reports.md").read_text(encoding="utf-8")
    example = docs.partition("```python\n")[2].partition("```")[0].replace('task="topic"', 'task="mood"')
    monkeypatch.chdir(tmp_path)
    (tmp_path / "bundle").symlink_to(kinds)
    names = {"table": pd.DataFrame({"text": TEXTS, "label": targets("mood")})}
    exec(example, names)
    assert (tmp_path / "report" / "report.html").read_text().startswith("<!doctype html>")
    assert isinstance(names["found"], Evaluation)


def test_what_a_notebook_shows(engine: Engine) -> None:
    task = dataclasses.replace(engine.task("mood"), labels=("<b>good</b>", "bad", "so so"))
    found = measure(engine, task, ["good", "x" * 20], ["bad", "bad"], min_score=0.2, most_characters=10)
    accuracy = found.figures.values["accuracy"]
    assert repr(found).startswith("<Evaluation: task mood, int8, 1 rows, 1 errors, 1 answered at min_score 0.2: ")
    assert f"accuracy {accuracy:.3f}, macro-F1 " in repr(found)
    shown = found._repr_html_()
    assert f"<td>{accuracy:.3f}</td>" in shown
    assert "<bdi>&lt;b&gt;good&lt;/b&gt;</bdi>" in shown
    assert "<b>" not in shown
    assert shown.count("<tr>") == 2 + 4
    numbers = evaluate(engine, TEXTS, targets("stars"), "stars")
    assert numbers._repr_html_().count("<table>") == 1
