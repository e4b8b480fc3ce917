"""Questions about contexts: SQuAD's JSON and rows of every format give the same result; errors are one line."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from edgetune.data.labelled import Columns, read_labelled
from edgetune.data.requests import read_requests, stream_requests
from edgetune_runtime.errors import DataError
from edgetune_runtime.kinds import KINDS

QUESTIONS = Path(__file__).with_name("questions.json")
SQUAD = json.loads(QUESTIONS.read_text(encoding="utf-8"))

Row = dict[str, Any]


def rows_of(squad: Any) -> list[Row]:
    """The rows of the data set on the hub."""
    return [
        {
            "id": asked["id"],
            "question": asked["question"],
            "context": paragraph["context"],
            "answers": {name: [one[name] for one in asked["answers"]] for name in ("text", "answer_start")},
        }
        for article in squad["data"]
        for paragraph in article["paragraphs"]
        for asked in paragraph["qas"]
    ]


ROWS = rows_of(SQUAD)


def as_csv(rows: list[Row]) -> str:
    out = io.StringIO(newline="")
    writer = csv.DictWriter(out, list(rows[0]))
    writer.writeheader()
    writer.writerows({**row, "answers": json.dumps(row["answers"])} for row in rows)
    return out.getvalue()


def lines(rows: list[Row]) -> str:
    return "".join(json.dumps(row) + "\n" for row in rows)


def renamed(rows: list[Row]) -> list[Row]:
    names = {"question": "text", "context": "text_pair", "answers": "label"}
    return [{names.get(name, name): value for name, value in row.items()} for row in rows]


FORMS: dict[str, tuple[str, Callable[[list[Row]], str]]] = {
    "squad": ("q.json", lambda _: json.dumps(SQUAD)),
    "squad, several lines, no version": ("q.json", lambda _: json.dumps({"data": SQUAD["data"]}, indent=2)),
    "lines": ("q.jsonl", lines),
    "lines, usual names": ("q.jsonl", lambda rows: lines(renamed(rows))),
    "csv": ("q.csv", as_csv),
}


@pytest.mark.parametrize("form", FORMS)
def test_every_form_gives_the_same_rows(form: str, tmp_path: Path) -> None:
    name, write = FORMS[form]
    (tmp_path / name).write_text(write(ROWS), encoding="utf-8", newline="")
    notes: list[str] = []
    found = read_labelled(str(tmp_path / name), Columns(ids=True), note=notes.append)
    assert (found.kind.name, found.pairs) == ("spans", True)
    assert [(row.id, row.text, row.text_pair) for row in found.rows] == [
        (row["id"], row["question"], row["context"]) for row in ROWS
    ]
    assert [found.kind.written(row.target) for row in found.rows] == [row["answers"] for row in ROWS]
    assert notes == [f"{tmp_path / name}: the labels are answers: kind spans (`kind` overrides)"]
    assert all(row.id is None for row in read_labelled(str(tmp_path / name), note=notes.append).rows)


def test_parquet_gives_the_same_rows(tmp_path: Path) -> None:
    path = tmp_path / "q.parquet"
    pq.write_table(pa.Table.from_pylist(ROWS), path)
    found = read_labelled(str(path), Columns(ids=True), note=lambda _: None)
    assert [found.kind.written(row.target) for row in found.rows] == [row["answers"] for row in ROWS]
    assert [row.id for row in found.rows] == [row["id"] for row in ROWS]


@pytest.mark.parametrize("form", FORMS)
def test_every_form_can_be_asked(form: str, tmp_path: Path) -> None:
    name, write = FORMS[form]
    path = tmp_path / name
    path.write_text(write(ROWS), encoding="utf-8", newline="")
    wanted = [(row["id"], row["question"], row["context"]) for row in ROWS]
    asked = [one for chunk in read_requests(path) for one in chunk]
    assert [(one.id, one.text, one.text_pair) for one in asked] == wanted
    if name.endswith("jsonl"):
        with path.open("rb") as stream:
            asked = [one for chunk in stream_requests(stream) for one in chunk]
        assert [(one.id, one.text, one.text_pair) for one in asked] == wanted


def test_questions_without_contexts_or_answers_stay_what_they_were(tmp_path: Path) -> None:
    path = tmp_path / "q.jsonl"
    path.write_text('{"question": "who?", "label": "person"}\n', encoding="utf-8")
    with pytest.raises(DataError, match="no column 'text' among question, label"):
        read_labelled(str(path), note=lambda _: None)


def asked(**changes: Any) -> Any:
    """SQuAD's JSON of one question, changed."""
    paragraph = {"context": "Zoë 😀 ate a plum", "qas": [{"id": "1", "question": "who?", "answers": []}]}
    whole = {"version": "v2.0", "data": [{"title": "t", "paragraphs": [paragraph]}]}
    paragraph["qas"][0] |= {name: value for name, value in changes.items() if name not in ("context", "qas", "drop")}
    paragraph |= {name: value for name, value in changes.items() if name in ("context", "qas")}
    for name in changes.get("drop", ()):
        paragraph.pop(name, None)
        paragraph["qas"][0].pop(name, None) if isinstance(paragraph.get("qas"), list) else None
    return whole


def plum(start: int, text: str = "plum") -> list[Row]:
    return [{"text": text, "answer_start": start}]


BAD: dict[str, tuple[Any, str]] = {
    "question missing": (asked(drop=["question"]), "row 1: no column 'question' among id, answers, context"),
    "question empty": (asked(question=" "), "row 1: 'answers': the question is empty: add it"),
    "question a number": (asked(question=3), "row 1: 'question' is 3: expected a string"),
    "context empty": (asked(context=""), "row 1: 'context' is empty: add the second text"),
    "context of spaces": (asked(context=" \n"), "row 1: 'answers': the context is empty: add it"),
    "context missing": (asked(drop=["context"]), "no column"),
    "answers missing": (asked(drop=["answers"]), "row 1: no column"),
    "bytes": (asked(answers=plum(16)), "begin at 16, which are bytes of UTF-8; in characters it begins at 12"),
    "UTF-16": (asked(answers=plum(13)), "begin at 13, which are UTF-16 units; in characters it begins at 12"),
    "one off": (asked(answers=plum(11)), "begin at 11, and the context has ' plu'; it begins at 12"),
    "not there": (asked(answers=plum(12, "pear")), "'pear' is said to begin at 12, and the context does not have it"),
    "no start": (asked(answers=[{"text": "plum"}]), "the answer 'plum' begins at None"),
    "impossible, with answers": (
        asked(answers=plum(12), is_impossible=True),
        "article 1, paragraph 1: the question '1' has answers and is marked as impossible",
    ),
    "no list of questions": (asked(qas={}), "article 1, paragraph 1 has no list of 'qas': expected SQuAD's JSON"),
    "a text for a question": (asked(qas=["who?"]), "article 1, paragraph 1 has 'who?' among its questions"),
}


@pytest.mark.parametrize("case", BAD)
def test_what_is_wrong_is_said_in_one_line(case: str, tmp_path: Path) -> None:
    value, told = BAD[case]
    (tmp_path / "q.json").write_text(json.dumps(value), encoding="utf-8")
    with pytest.raises(DataError) as error:
        read_labelled(str(tmp_path / "q.json"), note=lambda _: None, kind=KINDS["spans"])
    assert told in str(error.value)
    assert "\n" not in str(error.value)
    assert str(tmp_path / "q.json") in str(error.value)
