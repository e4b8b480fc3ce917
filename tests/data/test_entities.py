"""Entities in data: CoNLL files, tagged words, places in texts; and rejected data."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from edgetune.data.labelled import Columns, LabelledText, read_labelled
from edgetune_runtime.errors import DataError
from edgetune_runtime.kinds import Entity
from edgetune_runtime.kinds.score import SCORE
from edgetune_runtime.kinds.tokens import TOKENS

ROWS = [
    LabelledText("Ann Lee lives in Rome", (Entity(0, 7, "who"), Entity(17, 21, "place"))),
    LabelledText("no one here", ()),
]
TOKENS_AND_TAGS = [
    {"tokens": ["Ann", "Lee", "lives", "in", "Rome"], "tags": ["B-who", "I-who", "O", "O", "B-place"]},
    {"tokens": ["no", "one", "here"], "tags": ["O", "O", "O"]},
]
PLACES = [
    {"text": row.text, "entities": [one._asdict() for one in row.target if isinstance(one, Entity)]}  # type: ignore[union-attr]
    for row in ROWS
]
CONLL = """-DOCSTART- -X- -X- O

# id 1
Ann\tNNP\t_\tB-who
Lee\tNNP\t_\tI-who
lives\tVB\t_\tO
in\tIN\t_\tO
Rome\tNNP\t_\tB-place

no DT _ O
one NN _ O
here RB _ O"""


def write(path: Path, rows: list[dict[str, Any]]) -> str:
    if path.suffix == ".parquet":
        pq.write_table(pa.Table.from_pylist(rows), path)
    elif path.suffix == ".json":
        path.write_text(json.dumps(rows))
    else:
        path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return str(path)


def read(name: str, columns: Columns = Columns(), notes: list[str] | None = None) -> list[LabelledText]:  # noqa: B008
    found = read_labelled(name, columns, note=(notes if notes is not None else []).append)
    assert found.kind is TOKENS
    return found.rows


@pytest.mark.parametrize("ending", ["jsonl", "json", "parquet"])
@pytest.mark.parametrize("rows", [TOKENS_AND_TAGS, PLACES], ids=["tags", "places"])
def test_every_format_says_the_same(tmp_path: Path, rows: list[dict[str, Any]], ending: str) -> None:
    notes: list[str] = []
    assert read(write(tmp_path / f"rows.{ending}", rows), notes=notes) == ROWS
    assert [note.partition(": ")[2] for note in notes] == ["the labels are entities: kind tokens (`kind` overrides)"]


@pytest.mark.parametrize("newline", ["\n", "\r\n"])
@pytest.mark.parametrize("end", ["", "\n", "\n\n\n"])
def test_conll(tmp_path: Path, newline: str, end: str) -> None:
    path = tmp_path / "rows.conll"
    path.write_bytes((CONLL + end).replace("\n", newline).encode())
    found = read(str(path))
    assert found == ROWS
    assert [row.place for row in found] == [f"{path}, line 4", f"{path}, line 10"]


def test_a_number_sign_may_be_a_word(tmp_path: Path) -> None:
    path = tmp_path / "rows.conll"
    path.write_text("# text = no word\n# O\n#Rome B-place\n# comment\n")
    assert read(str(path)) == [LabelledText("# #Rome", (Entity(2, 7, "place"),))]


def test_entities_of_csv_are_json(tmp_path: Path) -> None:
    path = tmp_path / "rows.csv"
    path.write_text('text,entities\nAnn Lee lives in Rome,"[[0, 7, ""who""], [17, 21, ""place""]]"\nno one here,[]\n')
    assert read(str(path)) == ROWS


def test_other_columns_and_schemes(tmp_path: Path) -> None:
    rows = [
        {"id": 1, "words": row["tokens"], "ner": [tag.replace("B-place", "U-place") for tag in row["tags"]]}
        for row in TOKENS_AND_TAGS
    ]
    rows[0]["ner"][1] = "L-who"
    notes: list[str] = []
    assert read(write(tmp_path / "rows.jsonl", rows), Columns("words", ("ner",)), notes) == ROWS
    assert notes[0].endswith("rows.jsonl: the tags are read as BILOU")


def test_words_without_an_entity_are_of_the_kind(tmp_path: Path) -> None:
    assert read(write(tmp_path / "rows.jsonl", TOKENS_AND_TAGS[1:])) == ROWS[1:]


@pytest.mark.parametrize(
    ("row", "told"),
    [
        ({"tokens": ["a", "b"], "tags": ["O"]}, "line 1: 1 tags came for 2 tokens: expected one for each"),
        ({"tokens": ["a"], "tags": ["NN"]}, "line 1: the tag 'NN' is not known: expected O"),
        ({"tokens": ["a"], "tags": "O"}, "line 1: 'tags' is \"O\": expected a list of tags"),
        ({"tokens": ["a"], "tags": [3]}, "line 1: 'tags' has 3 at place 1: expected a string"),
        ({"tokens": [""], "tags": ["O"]}, "line 1: 'tokens' has \"\" at place 1"),
        ({"tokens": [], "tags": []}, "line 1: 'tokens' is empty: add the words, or take the row out"),
        ({"tokens": ["a", "b"], "tags": ["B-x", "I-y"]}, "the label 'y' has only I- tags"),
        ({"text": "Rome", "entities": [[0, 5, "x"]]}, "line 1: 'entities': the entity x ends at 5, and the text has 4"),
        ({"text": "a Rome", "entities": [[0, 3, "x"], [2, 6, "y"]]}, "line 1: .* overlap"),
        ({"text": "", "entities": [[0, 1, "x"]]}, "line 1: 'entities': the text is empty"),
        ({"text": "é Rome!", "entities": [[3, 7, "x"]]}, "line 1: 'entities': its offsets are bytes of UTF-8"),
        ({"text": "😀 Rome!", "entities": [[3, 7, "x"]]}, "line 1: 'entities': its offsets are UTF-16 units"),
        ({"text": "Rome", "entities": [{"start": 2, "end": 1, "label": "x"}]}, "line 1: .*goes from 2 to 1"),
    ],
)
def test_what_is_refused_is_named_in_a_line(tmp_path: Path, row: dict[str, Any], told: str) -> None:
    with pytest.raises(DataError, match=told) as raised:
        read_labelled(write(tmp_path / "rows.jsonl", [row]), note=lambda _: None)
    assert "\n" not in str(raised.value)


def test_a_line_of_one_column_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "rows.conll"
    path.write_text("a O\n\nb O\nc\n")
    with pytest.raises(
        DataError, match="line 3: line 4 has one column: expected a word and, in the last column, its tag"
    ):
        read_labelled(str(path), note=lambda _: None)


def test_tags_for_another_kind_are_refused(tmp_path: Path) -> None:
    name = write(tmp_path / "rows.jsonl", TOKENS_AND_TAGS)
    with pytest.raises(
        DataError, match="has a tag for each word, which the kind 'tokens' reads, and the kind is 'score'"
    ):
        read_labelled(name, kind=SCORE, note=lambda _: None)
