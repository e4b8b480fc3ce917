"""Labels of every kind, and pairs of texts: each format gives the same rows, and errors name invalid labels."""

from __future__ import annotations

import csv
import io
import json
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from edgetune.data.labelled import Columns, Labelled, LabelledText, read_labelled
from edgetune_runtime.errors import DataError
from edgetune_runtime.kinds import KINDS, Kind, Target
from edgetune_runtime.kinds.multi_label import MULTI_LABEL
from edgetune_runtime.kinds.score import SCORE
from edgetune_runtime.kinds.single_label import SINGLE_LABEL

Row = dict[str, Any]
Write = Callable[[Sequence[Row], Path], Path]


def _text(name: str, make: Callable[[Sequence[Row]], str]) -> Write:
    def write(rows: Sequence[Row], folder: Path) -> Path:
        (folder / name).write_text(make(rows), encoding="utf-8", newline="")
        return folder / name

    return write


def _separated(delimiter: str) -> Callable[[Sequence[Row]], str]:
    def make(rows: Sequence[Row]) -> str:
        out = io.StringIO(newline="")
        writer = csv.DictWriter(out, list(rows[0]), delimiter=delimiter)
        writer.writeheader()
        writer.writerows(rows)
        return out.getvalue()

    return make


def _parquet(rows: Sequence[Row], folder: Path) -> Path:
    pq.write_table(pa.Table.from_pylist(list(rows)), folder / "rows.parquet")
    return folder / "rows.parquet"


LISTS: dict[str, Write] = {
    "jsonl": _text("rows.jsonl", lambda rows: "".join(json.dumps(row) + "\n" for row in rows)),
    "json": _text("rows.json", json.dumps),
    "json columns": _text("rows.json", lambda rows: json.dumps({key: [row[key] for row in rows] for key in rows[0]})),
    "parquet": _parquet,
}
"""Formats that have lists."""

FORMATS: dict[str, Write] = {
    **LISTS,
    "csv": _text("rows.csv", _separated(",")),
    "tsv": _text("rows.tsv", _separated("\t")),
}

of_each_format = pytest.mark.parametrize("write", FORMATS.values(), ids=list(FORMATS))
of_each_with_lists = pytest.mark.parametrize("write", LISTS.values(), ids=list(LISTS))


def read(path: Path | str, *labels: str, kind: Kind | None = None, pair: str | None = None) -> Labelled:
    return read_labelled(str(path), Columns("text", labels, pair), note=lambda _: None, kind=kind)


def targets(read: Labelled) -> list[Target]:
    return [row.target for row in read.rows]


def rows_with(column: str, *values: object) -> list[Row]:
    return [{"text": f"text {place}", column: value} for place, value in enumerate(values)]


# ---- the kind of labels ----


@pytest.mark.parametrize(
    ("values", "kind", "found"),
    [
        (["a", "b"], SINGLE_LABEL, ["a", "b"]),
        ([1, 2], SINGLE_LABEL, ["1", "2"]),
        (["a|b", "c"], SINGLE_LABEL, ["a|b", "c"]),
        (["a|b", "a", ""], MULTI_LABEL, [("a", "b"), ("a",), ()]),
        (["b | a", "b"], MULTI_LABEL, [("a", "b"), ("b",)]),
        ([0.5, 1.0, -2.0], SCORE, [0.5, 1.0, -2.0]),
        ([0.5, -1e-9, 3e300], SCORE, [0.5, -1e-9, 3e300]),
    ],
)
@of_each_format
def test_the_labels_tell_the_kind(
    tmp_path: Path, write: Write, values: list[object], kind: Kind, found: list[Target]
) -> None:
    labelled = read(write(rows_with("label", *values), tmp_path))
    assert labelled == Labelled(
        [LabelledText(f"text {place}", target) for place, target in enumerate(found)], kind, False
    )


@of_each_with_lists
def test_lists_are_several_labels(tmp_path: Path, write: Write) -> None:
    path = write(rows_with("labels", ["b", "a"], [], None, ["c"]), tmp_path)
    assert read(path).kind is MULTI_LABEL
    assert targets(read(path)) == [("a", "b"), (), (), ("c",)]


@pytest.mark.parametrize("values", [pa.array([[2, 1], []]), pa.array([[2.0, 1.0], []]), pa.array([[2, 1], None])])
def test_numbers_in_lists_are_labels(tmp_path: Path, values: pa.Array) -> None:
    pq.write_table(pa.table({"text": ["a", "b"], "label": values}), tmp_path / "a.parquet")
    assert targets(read(tmp_path / "a.parquet")) == [("1", "2"), ()]


@pytest.mark.parametrize(
    ("values", "note"),
    [
        (["a", "b"], None),
        ([["a"], []], "the labels are lists: kind multi-label (`kind` overrides)"),
        (["a|b", "b"], "the labels are joined with '|': kind multi-label (`kind` overrides)"),
        ([0.5, 1], "the labels are numbers, not all of them whole: kind score (`kind` overrides)"),
    ],
)
def test_a_kind_that_was_seen_is_said(tmp_path: Path, values: list[object], note: str | None) -> None:
    path = LISTS["jsonl"](rows_with("label", *values), tmp_path)
    for kind in (None, *KINDS.values()):
        notes: list[str] = []
        try:
            read_labelled(str(path), note=notes.append, kind=kind)
        except DataError:
            assert kind is not None
        assert notes == ([f"{path}: {note}"] if kind is None and note else [])


@pytest.mark.parametrize(
    ("kind", "values", "found"),
    [
        (SINGLE_LABEL, ["a|b", "a"], ["a|b", "a"]),
        (SINGLE_LABEL, ["0.5", "1.5"], ["0.5", "1.5"]),
        (MULTI_LABEL, ["a|b", "c", ""], [("a", "b"), ("c",), ()]),
        (MULTI_LABEL, [2, 1], [("2",), ("1",)]),
        (SCORE, [1, 2], [1.0, 2.0]),
        (SCORE, ["1", " 2.5 "], [1.0, 2.5]),
    ],
)
@of_each_format
def test_a_kind_that_is_named_is_taken(
    tmp_path: Path, write: Write, kind: Kind, values: list[object], found: list[Target]
) -> None:
    labelled = read(write(rows_with("label", *values), tmp_path), kind=kind)
    assert (labelled.kind, targets(labelled)) == (kind, found)


def test_a_kind_that_is_named_may_have_lists_and_texts(tmp_path: Path) -> None:
    path = LISTS["jsonl"](rows_with("label", ["b", "a"], "c|a", "c", None, ""), tmp_path)
    assert targets(read(path, kind=MULTI_LABEL)) == [("a", "b"), ("a", "c"), ("c",), (), ()]


# ---- which columns ----


@pytest.mark.parametrize(
    ("columns", "taken"),
    [
        (["label", "labels", "score"], "label"),
        (["score", "labels"], "labels"),
        (["score", "scores"], "score"),
    ],
)
@of_each_format
def test_the_label_column_is_the_first_usual_one_that_is_there(
    tmp_path: Path, write: Write, columns: list[str], taken: str
) -> None:
    row = {"text": "t"} | {name: f"from {name}" for name in columns}
    assert targets(read(write([row], tmp_path))) == [f"from {taken}"]
    assert targets(read(write([row], tmp_path), columns[-1])) == [f"from {columns[-1]}"]


@of_each_format
def test_the_usual_label_column_is_missed(tmp_path: Path, write: Write) -> None:
    path = write([{"text": "t", "intent": "x"}], tmp_path)
    with pytest.raises(DataError, match=r"no column 'label' among text, intent: name it with `labels`"):
        read(path)


def test_a_text_column_that_is_called_label_is_no_label_column(tmp_path: Path) -> None:
    path = FORMATS["csv"]([{"label": "a", "score": "x"}], tmp_path)
    assert read_labelled(str(path), Columns("label")).rows == [LabelledText("a", "x")]


@pytest.mark.parametrize(
    "columns",
    [
        Columns("text", ("text",)),
        Columns("text", ("a", "a")),
        Columns("text", ("a",), "a"),
        Columns("text", (), "text"),
    ],
)
def test_a_column_has_one_use(tmp_path: Path, columns: Columns) -> None:
    path = FORMATS["csv"]([{"text": "t", "a": "x", "label": "y"}], tmp_path)
    with pytest.raises(DataError, match=r"the column '(a|text)' is named twice"):
        read_labelled(str(path), columns)


@pytest.mark.parametrize(
    ("yes", "no"), [(1, 0), ("1", "0"), (True, False), ("true", "false"), ("True", "False"), (1.0, 0.0), ("1.0", "0.0")]
)
@of_each_format
def test_several_label_columns_are_flags(tmp_path: Path, write: Write, yes: object, no: object) -> None:
    rows = [{"b": yes, "text": "x", "a": yes}, {"b": no, "text": "y", "a": no}, {"b": yes, "text": "z", "a": no}]
    path = write(rows, tmp_path)
    for names in (("b", "a"), ("a", "b")):
        for kind in (None, MULTI_LABEL):
            labelled = read(path, *names, kind=kind)
            assert (labelled.kind, targets(labelled)) == (MULTI_LABEL, [("a", "b"), (), ("b",)])


@pytest.mark.parametrize("value", [2, -1, 0.5, "yes", "", None, [1], {"a": 1}, float("nan")])
def test_a_flag_that_is_none_is_refused(tmp_path: Path, value: object) -> None:
    rows = [{"text": "x", "a": 1, "b": 0}, {"text": "y", "a": 0, "b": value}]
    path = LISTS["jsonl"](rows, tmp_path)
    with pytest.raises(DataError) as caught:
        read(path, "a", "b")
    shown = json.dumps(value)
    assert str(caught.value) == (
        f"{path}, line 2: 'b' is {shown}: expected 0 or 1, since several label columns are named"
    )


def test_flags_are_several_labels(tmp_path: Path) -> None:
    path = FORMATS["csv"]([{"text": "x", "a": 1, "b": 0}], tmp_path)
    for kind in (SINGLE_LABEL, SCORE):
        with pytest.raises(DataError, match=f"2 label columns came for the kind '{kind.name}': expected one"):
            read(path, "a", "b", kind=kind)
    with pytest.raises(DataError, match=r"no column 'c' among text, a, b: .*`labels`"):
        read(path, "a", "c")


names = st.text(
    st.characters(codec="utf-8", exclude_characters="|", exclude_categories=["C", "Z"]), min_size=1, max_size=3
)


@st.composite
def label_sets(draw: st.DrawFn) -> tuple[list[str], list[list[str]]]:
    labels = draw(st.lists(names.filter(lambda name: name != "text"), min_size=2, max_size=4, unique=True))
    rows = draw(st.lists(st.lists(st.sampled_from(labels), unique=True), min_size=1, max_size=6))
    return labels, rows


@settings(deadline=None, max_examples=60)
@given(label_sets())
@example((["0.5", "1"], [["0.5"], ["1"]]))
@example((["label", "labels"], [[], []]))
def test_several_labels_are_the_same_in_every_form(made: tuple[list[str], list[list[str]]]) -> None:
    labels, rows = made
    wanted = [tuple(sorted(row)) for row in rows]
    flags = [{"text": "t"} | {label: int(label in row) for label in labels} for row in rows]
    joined = rows_with("label", *("|".join(row) for row in rows))
    for forms, kind, columns in (
        ((LISTS, rows_with("labels", *rows)), None, ()),
        ((FORMATS, joined), MULTI_LABEL, ()),
        ((FORMATS, flags), None, labels),
    ):
        writers, content = forms
        for name, write in writers.items():
            with tempfile.TemporaryDirectory() as folder:
                found = read(write(content, Path(folder)), *columns, kind=kind)
            assert (name, found.kind, targets(found)) == (name, MULTI_LABEL, wanted)


# ---- invalid labels ----


@pytest.mark.parametrize(
    ("values", "line", "told"),
    [
        (["a", "b", ["c"]], 3, '\'label\' is ["c"] (kind multi-label), and an earlier row has "a" (kind single-label)'),
        (
            [["c"], None, "a"],
            3,
            '\'label\' is "a" (kind single-label), and an earlier row has ["c"] (kind multi-label)',
        ),
        ([None, "", [], 1.5], 4, "'label' is 1.5 (kind score), and an earlier row has [] (kind multi-label)"),
        ([["a"], ["a", "a"]], 2, '\'label\' is ["a", "a"]: a label occurs in it twice'),
        ([["a"], ["a", ""]], 2, '\'label\' is ["a", ""]: expected a list of labels'),
        ([["a"], [None]], 2, "'label' is [null]: expected a list of labels"),
        ([["a"], [1.5]], 2, "'label' is [1.5]: expected a list of labels"),
        ([["a"], [["b"]]], 2, "'label' is [[\"b\"]]: expected a list of labels"),
        ([["a"], ["\ud800"]], 2, "'label' has half of a surrogate pair"),
        ([0.5, float("nan")], 2, "'label' is NaN: expected a finite number"),
        ([0.5, float("inf")], 2, "'label' is Infinity: expected a finite number"),
        ([0.5, "nan"], 2, "'label' is \"nan\": expected a finite number"),
        ([0.5, 10**400], 2, "'label' is 1000"),
        ([0.5, "1e999"], 2, "'label' is \"1e999\": expected a finite number"),
    ],
)
def test_what_is_no_label_is_named(tmp_path: Path, values: list[object], line: int, told: str) -> None:
    path = LISTS["jsonl"](rows_with("label", *values), tmp_path)
    with pytest.raises(DataError) as caught:
        read(path)
    assert str(caught.value).startswith(f"{path}, line {line}: {told}")


@pytest.mark.parametrize("kind", [None, SCORE])
def test_a_number_that_is_too_large_is_refused(tmp_path: Path, kind: Kind | None) -> None:
    (tmp_path / "a.jsonl").write_text('{"text": "a", "label": 0.5}\n{"text": "b", "label": 1e999}\n')
    with pytest.raises(DataError, match="line 2: 'label' is Infinity: expected a finite number"):
        read(tmp_path / "a.jsonl", kind=kind)


@pytest.mark.parametrize(
    ("kind", "value", "told"),
    [
        (SCORE, "", "'label' is empty: add the label, or take the row out"),
        (SCORE, "warm", "'label' is \"warm\": expected a finite number"),
        (SCORE, "nan", "'label' is \"nan\": expected a finite number"),
        (SINGLE_LABEL, "", "'label' is empty: add the label, or take the row out"),
        (MULTI_LABEL, "a|b|a", "'label' is \"a|b|a\": a label occurs in it twice: expected each once"),
    ],
)
@pytest.mark.parametrize("name", ["csv", "tsv"])
def test_what_is_no_label_of_a_kind_is_named(tmp_path: Path, name: str, kind: Kind, value: str, told: str) -> None:
    path = FORMATS[name](rows_with("label", "1", value), tmp_path)
    with pytest.raises(DataError) as caught:
        read(path, kind=kind)
    assert str(caught.value) == f"{path}, line 3: {told}"


@pytest.mark.parametrize("kind", [SCORE, SINGLE_LABEL])
@pytest.mark.parametrize("value", [[], ["a"], {"a": 1}, None])
def test_a_kind_without_lists_refuses_them(tmp_path: Path, kind: Kind, value: object) -> None:
    path = LISTS["jsonl"](rows_with("label", 1, value), tmp_path)
    with pytest.raises(DataError, match=r"line 2: 'label' is .*: expected a (finite number|string, an integer)"):
        read(path, kind=kind)


def test_the_first_bad_row_is_named_whatever_is_wrong_with_it(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    lines = ['{"text": "a", "label": "b"}', '{"text": "a", "label": null}', '{"text": 3, "label": "b"}', "{"]
    for order, told in (([0, 1, 2, 3], "'label' is null"), ([0, 2, 1, 3], "'text' is 3"), ([0, 3, 1, 2], "not JSON")):
        path.write_text("\n".join(lines[place] for place in order))
        with pytest.raises(DataError, match=f"line 2: {told}"):
            read(path)


def test_labels_of_parquet_that_are_not_utf_8_are_named(tmp_path: Path) -> None:
    inner = pa.array([b"a", b"\xff"], pa.binary())
    strings = pa.Array.from_buffers(pa.string(), 2, inner.buffers())
    labels = pa.ListArray.from_arrays(pa.array([0, 1, 2], pa.int32()), strings)
    pq.write_table(pa.table({"text": ["x", "y"], "label": labels}), tmp_path / "a.parquet")
    with pytest.raises(DataError, match=r"row 2: 'label' is not UTF-8 text \('\\xff'\)"):
        read(tmp_path / "a.parquet")


# ---- pairs ----

PAIRS: list[Row] = [
    {"text": "a", "text_pair": "b", "other": "c", "label": "x"},
    {"text": "d", "text_pair": "e", "other": "f", "label": "y"},
]


@of_each_format
def test_a_second_text_makes_a_pair(tmp_path: Path, write: Write) -> None:
    path = write(PAIRS, tmp_path)
    assert read(path) == Labelled([LabelledText("a", "x", "b"), LabelledText("d", "y", "e")], SINGLE_LABEL, True)
    assert [row.text_pair for row in read(path, pair="other").rows] == ["c", "f"]
    with pytest.raises(DataError, match=r"no column 'second' among .*: .*name it with `text_pair`"):
        read(path, pair="second")
    alone = read(write([{"text": "a", "label": "x"}], tmp_path))
    assert (alone.pairs, alone.rows[0].text_pair) == (False, None)


def test_a_column_that_is_the_label_is_no_second_text(tmp_path: Path) -> None:
    labelled = read(FORMATS["csv"](PAIRS, tmp_path), "text_pair")
    assert (labelled.pairs, targets(labelled)) == (False, ["b", "e"])


@pytest.mark.parametrize("lacking", [0, 1, 2])
def test_all_rows_are_pairs_or_none_is(tmp_path: Path, lacking: int) -> None:
    rows = [{**PAIRS[0]} for _ in range(3)]
    del rows[lacking]["text_pair"]
    path = LISTS["jsonl"](rows, tmp_path)
    with pytest.raises(DataError) as caught:
        read(path)
    assert str(caught.value).startswith(f"{path}, line {lacking + 1} has no text_pair, other rows have one: ")
    with pytest.raises(DataError, match=f"line {lacking + 1}: no column 'text_pair' among .* `text_pair`"):
        read(path, pair="text_pair")


def test_files_of_a_folder_are_all_pairs_or_none_is(tmp_path: Path) -> None:
    (tmp_path / "0.csv").write_text("text,label\na,x\n")
    (tmp_path / "1.csv").write_text("text,label,text_pair\na,x,b\n")
    with pytest.raises(DataError, match=r"0.csv, line 2 has no text_pair, other rows have one"):
        read(tmp_path)


@pytest.mark.parametrize("pair", [None, "text_pair"])
@pytest.mark.parametrize(
    ("value", "told"),
    [(None, "is null: expected a string"), ("", "is empty: add the second text"), (3, "is 3: expected a string")],
)
def test_a_second_text_that_is_none_is_refused(tmp_path: Path, value: object, told: str, pair: str | None) -> None:
    path = LISTS["jsonl"]([PAIRS[0], {**PAIRS[1], "text_pair": value}], tmp_path)
    with pytest.raises(DataError, match=f"line 2: 'text_pair' {told}"):
        read(path, pair=pair)


@pytest.mark.parametrize("name", ["csv", "tsv"])
def test_an_empty_second_text_of_csv_is_refused(tmp_path: Path, name: str) -> None:
    path = FORMATS[name]([PAIRS[0], {**PAIRS[1], "text_pair": ""}], tmp_path)
    with pytest.raises(DataError, match="line 3: 'text_pair' is empty: add the second text, or take the row out"):
        read(path)


def test_second_texts_that_come_twice_are_refused(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text("text,label,text_pair,text_pair\na,x,b,c\n")
    with pytest.raises(DataError, match="has the column 'text_pair' more than once: rename one of them"):
        read(tmp_path / "a.csv")
    (tmp_path / "a.jsonl").write_text('{"text": "a", "label": "x", "text_pair": "b", "text_pair": "c"}')
    with pytest.raises(DataError, match="line 1: 'text_pair' comes more than once"):
        read(tmp_path / "a.jsonl")


# ---- data sets ----

CARD = """---
dataset_info:
  features:
  - name: text
    dtype: string
  - name: text_pair
    dtype: string
  - name: one
    dtype:
      class_label:
        names: {'0': sad, '1': glad}
  - name: some
    sequence:
      class_label:
        names: {'0': joy, '1': anger, '2': grief}
  - name: flag
    dtype: bool
---
"""


def data_set(folder: Path, *rows: Row) -> Path:
    (folder / "README.md").write_text(CARD)
    usual = {"text": "a", "text_pair": "b", "one": 1, "some": [2, 0], "flag": True}
    LISTS["jsonl"]([usual | row for row in rows], folder).rename(folder / "train.jsonl")
    return folder


def test_names_of_labels_in_a_data_set(tmp_path: Path) -> None:
    folder = data_set(tmp_path, {}, {"one": 0, "some": [], "flag": False})
    assert targets(read(folder, "one")) == ["glad", "sad"]
    several = read(folder, "some")
    assert (several.kind, several.pairs, targets(several)) == (MULTI_LABEL, True, [("grief", "joy"), ()])
    assert targets(read(folder, "flag", "one")) == [("flag", "one"), ()]
    with pytest.raises(DataError, match=r"row 1: no column 'label' among text, .* `labels`"):
        read(folder)
    with pytest.raises(DataError, match=r"row 1: no column 'second' among text, .* `text_pair`"):
        read(folder, "one", pair="second")


@pytest.mark.parametrize("row", [{"one": -1}, {"some": [0, -1]}])
def test_rows_of_a_data_set_that_are_unlabelled(tmp_path: Path, row: Row) -> None:
    folder = data_set(tmp_path, {}, row)
    for column in ("one", "some"):
        if column in row:
            with pytest.raises(DataError, match="has a row with the label -1, which means unlabelled"):
                read(folder, column)
        else:
            assert len(read(folder, column).rows) == 2


def test_a_data_set_with_a_second_text_that_is_null(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="row 2: 'text_pair' is null: expected a string"):
        read(data_set(tmp_path, {}, {"text_pair": None}), "one")
