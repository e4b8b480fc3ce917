"""The wrongly answered rows, and their file."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from evaluated import evaluated, of_probabilities, random_evaluation, task_of

from edgetune.evaluation import Evaluation
from edgetune.report.section import Material
from edgetune.report.wrong import write_wrong_rows, wrong, wrong_rows
from edgetune_runtime.errors import EdgetuneError
from edgetune_runtime.kinds import KINDS


def written(folder: Path, evaluation: Evaluation) -> list[dict[str, object]]:
    path = folder / "wrong.jsonl"
    number = write_wrong_rows(path, evaluation)
    rows = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
    assert len(rows) == number
    return rows


def test_one_label(tmp_path: Path) -> None:
    rows = [[0.5, 0.4, 0.1], [0.1, 0.8, 0.1], [0.1, 0.2, 0.7], [0.6, 0.2, 0.2]]
    found = written(tmp_path, of_probabilities(task_of(), rows, ["b", "a", "c", "a"]))
    assert found == [
        {
            "place": "row 1",
            "text": "text 1",
            "right": "a",
            "label": "b",
            "score": pytest.approx(0.8),
            "scores": pytest.approx({"a": 0.1, "b": 0.8, "c": 0.1}),
            "wrong_by": pytest.approx(0.8),
            "status": "ok",
        },
        {
            "place": "row 0",
            "text": "text 0",
            "right": "b",
            "label": "a",
            "score": pytest.approx(0.5),
            "scores": pytest.approx({"a": 0.5, "b": 0.4, "c": 0.1}),
            "wrong_by": pytest.approx(0.5),
            "status": "ok",
        },
    ]


def test_an_abstained_row_counts_as_the_figures_count_it(tmp_path: Path) -> None:
    found = evaluated(task_of(), [[1, 0, 0]], ["b"], min_score=0.9)
    (row,) = written(tmp_path, found)
    assert (row["label"], row["status"]) == (None, "abstained")
    assert ", abstained" in wrong(Material(found)).body


def test_any_labels(tmp_path: Path) -> None:
    """The most confident wrong decision counts: the score of an extra label, or 1 minus the score of a missed label."""
    task = task_of("multi-label", ["a", "b"])
    found = written(tmp_path, evaluated(task, [[1, -1], [1, 2], [-3, 1]], [("a",), ("a",), ("a", "b")]))
    assert [(row["place"], row["right"], row["labels"]) for row in found] == [
        ("row 2", ["a", "b"], ["b"]),
        ("row 1", ["a"], ["a", "b"]),
    ]
    assert [row["wrong_by"] for row in found] == pytest.approx([0.9526, 0.8808], abs=1e-4)
    body = wrong(Material(evaluated(task, [[-1, -1]], [("a", "b")]))).body
    assert "<dd>none</dd>" in body
    assert body.count('class="right"') == 2


def test_numbers_and_pairs(tmp_path: Path) -> None:
    task = task_of("score", ["score"])
    texts = [("a", "b"), ("c", "d"), ("e", "f")]
    found = written(tmp_path, evaluated(task, [[1], [2], [3]], [1.5, 4.0, 3.0], texts))
    assert found == [
        {
            "place": "row 1",
            "text": "c",
            "text_pair": "d",
            "right": 4.0,
            "score": 2.0,
            "wrong_by": 2.0,
            "status": "ok",
        },
        {
            "place": "row 0",
            "text": "a",
            "text_pair": "b",
            "right": 1.5,
            "score": 1.0,
            "wrong_by": 0.5,
            "status": "ok",
        },
    ]


@pytest.mark.parametrize("kind", KINDS)
def test_the_surest_come_first_and_no_right_one(kind: str) -> None:
    found = random_evaluation(kind)
    measures = [one.by for one in wrong_rows(found)]
    assert measures == sorted(measures, reverse=True)
    rows = {one.row.place for one in wrong_rows(found)}
    assert 0 < len(rows) <= len(found.rows)
    if kind == "single-label":
        assert len(rows) == round(len(found.rows) * (1 - found.figures.values["accuracy"]))
    if kind == "multi-label":
        assert len(rows) == round(len(found.rows) * (1 - found.figures.values["exact_match"]))


def test_places_that_are_no_unicode(tmp_path: Path) -> None:
    found = of_probabilities(task_of(), [[0.5, 0.4, 0.1]], ["b"])
    odd = Evaluation(found.task, ["grün"], found.targets, found.outcomes, "int8", ["gr\udcfc.csv, line 2"])
    (row,) = written(tmp_path, odd)
    assert (row["place"], row["text"]) == ("gr\udcfc.csv, line 2", "grün")


def test_a_file_that_cannot_be_written(tmp_path: Path) -> None:
    (tmp_path / "taken").mkdir()
    (tmp_path / "taken" / "file").touch()
    found = of_probabilities(task_of(), [[0.5, 0.4, 0.1]], ["b"])
    with pytest.raises(EdgetuneError, match=r"taken cannot be written: "):
        write_wrong_rows(tmp_path / "taken", found)


def test_of_very_many_rows_the_page_has_some() -> None:
    found = random_evaluation("single-label", rows=1000)
    number = len(wrong_rows(found))
    assert number > 200
    part = wrong(Material(found))
    assert part.body.count("<li>") == 200
    assert "The first 200 are here; evaluate --errors FILE writes all." in part.body
    assert part.finding == f"{number} of 1,000 rows ({number / 1000:.1%}) are answered wrongly."


def test_nothing_is_wrong(tmp_path: Path) -> None:
    found = of_probabilities(task_of(), [[0.8, 0.1, 0.1]], ["a"])
    assert written(tmp_path, found) == []
    assert wrong(Material(found)).finding == "Every row is answered rightly."
