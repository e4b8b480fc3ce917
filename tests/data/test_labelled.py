"""Labelled texts: written rows are read back, and errors name the line."""

from __future__ import annotations

import csv
import gzip
import io
import json
import os
import tempfile
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from edgetune.data.labelled import Columns, LabelledText, read_labelled
from edgetune.data.sources import Note
from edgetune.data.text_files import Reading
from edgetune_runtime.errors import DataError, MissingPackageError


def read_bytes(data: bytes | str, name: str, notes: list[str] | None = None, **known: Any) -> list[LabelledText]:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, name)
        path.write_bytes(data if isinstance(data, bytes) else data.encode())
        note = (lambda _: None) if notes is None else notes.append
        return read_labelled(str(path), reading=Reading(**known), note=note).rows


def csv_bytes(rows: Iterable[Sequence[object]]) -> bytes:
    out = io.StringIO(newline="")
    csv.writer(out).writerows([("text", "label"), *rows])
    return out.getvalue().encode()


def rows_of(name: Path | str, *columns: str, note: Note = lambda _: None) -> list[LabelledText]:
    text, *labels = columns or ("text",)
    return read_labelled(str(name), Columns(text, tuple(labels)), note=note).rows


AB = [LabelledText("a", "b")]


@pytest.mark.parametrize("suffix", [".jsonl", ".json", ".ndjson", ".JSONL"])
def test_every_suffix_of_json_lines_is_read(suffix: str) -> None:
    assert read_bytes('{"text": "a", "label": "b"}\n', f"rows{suffix}") == AB


@pytest.mark.parametrize("suffix", [".jsonl", ".csv", ".json", ".parquet"])
@pytest.mark.parametrize("size", [131_071, 131_073, 1_000_000])
def test_a_long_text_is_read(suffix: str, size: int) -> None:
    text = "x" * size
    out = io.BytesIO()
    pq.write_table(pa.table({"text": [text], "label": ["a"]}), out)
    line = json.dumps({"text": text, "label": "a"}).encode()
    data = {".jsonl": line, ".json": b"[" + line + b"]", ".csv": csv_bytes([(text, "a")]), ".parquet": out.getvalue()}
    assert read_bytes(data[suffix], f"rows{suffix}") == [LabelledText(text, "a")]


@pytest.mark.parametrize(
    ("label", "kept"),
    [
        (0, "0"),
        (-12, "-12"),
        (10**30, "1" + 30 * "0"),
        ("07", "07"),
        (True, "true"),
        (False, "false"),
        (2.0, "2"),
        (-0.0, "0"),
        ("1.0", "1.0"),
    ],
)
def test_numbers_and_booleans_become_labels(label: object, kept: str) -> None:
    assert read_bytes(json.dumps({"text": "a", "label": label}), "rows.jsonl") == [LabelledText("a", kept)]


@pytest.mark.parametrize(
    ("values", "kept"),
    [
        (pa.array([1, 0], pa.int8()), ["1", "0"]),
        (pa.array([True, False]), ["true", "false"]),
        (pa.array([1.0, 0.0]), ["1", "0"]),
        (pa.array(["x", "y"]).dictionary_encode(), ["x", "y"]),
        (pa.array(["x", "y"], pa.large_string()), ["x", "y"]),
    ],
)
def test_labels_of_parquet(tmp_path: Path, values: pa.Array, kept: list[str]) -> None:
    pq.write_table(pa.table({"text": ["a", "b"], "label": values, "other": [[1], None]}), tmp_path / "a.parquet")
    assert [row.target for row in rows_of(tmp_path / "a.parquet")] == kept


def test_a_value_of_parquet_that_python_has_not_is_text(tmp_path: Path) -> None:
    late = pa.array([2**62], pa.timestamp("us"))
    pq.write_table(pa.table({"text": ["a"], "label": late}), tmp_path / "a.parquet")
    (found,) = rows_of(tmp_path / "a.parquet")
    assert found.target == str(late.cast(pa.string())[0])


@pytest.mark.parametrize(
    ("data", "name"),
    [
        (b'\xef\xbb\xbf{"text": "a", "label": "b"}', "rows.jsonl"),
        (b'\n  \n{"more": [1], "label": "b", "text": "a"}\r\n\t\n\n', "rows.jsonl"),
        (b'{"text": "a", "label": "b", "n": NaN, "m": "\\ud800", "o": "\xff", "p": 1, "p": 2}', "rows.jsonl"),
        (b"\xef\xbb\xbftext,label\na,b", "rows.csv"),
        (b"text,label\n\n\na,b\n\n", "rows.csv"),
        (b'label,more,text\r\nb,,"a"\r\n', "rows.csv"),
        (b",text,label,,x,x\n0,a,b,\xff,1,2\n", "rows.csv"),
        (b"sep=;\r\ntext;label\r\na;b\r\n", "rows.csv"),
        (b"text,label\r\r\na,b\r\r\n", "rows.csv"),
        (b"text,label\ra,b\r", "rows.csv"),
        (b"text\tlabel\na\tb\n", "rows.tab"),
        ("text,label\na,b\n".encode("utf-32"), "rows.csv"),
        (gzip.compress(b"text,label\na,b\n", mtime=0), "rows.csv.gz"),
        (gzip.compress(b"text,label\na,b\n", mtime=0), "rows.csv"),
        (b'{"text": {"0": "a"}, "label": {"0": "b"}}', "rows.json"),
        (b'{"text": ["a"], "label": ["b"]}', "rows.json"),
        (b'{"columns": ["text", "label"], "index": [0], "data": [["a", "b"]]}', "rows.json"),
        (b'{\n"text": "a",\n"label": "b"\n}', "rows.json"),
        (b'[\n{"text": "a", "label": "b"}\n]\n', "rows.json"),
        (b'\xef\xbb\xbf\xef\xbb\xbf{"text": "a", "label": "b"}', "rows.jsonl"),
        (b"ORCID,text,label\n0000,a,b\n", "rows.csv"),
        (b"PAR1,text,label\n0,a,b\n", "rows.csv"),
        (b"BZh,text,label\n0,a,b\n", "rows.csv"),
        (b"sep=x,text,label\n0,a,b\n", "rows.csv"),
    ],
)
def test_marks_blank_lines_and_other_columns_do_not_matter(data: bytes, name: str) -> None:
    assert read_bytes(data, name) == AB


def test_columns_may_have_other_names(tmp_path: Path) -> None:
    path = tmp_path / "rows.csv"
    path.write_text("sentence,text,intent\na,no,b\n")
    assert rows_of(path, "sentence", "intent") == AB


@pytest.mark.parametrize("delimiter", [";", "\t", "|", ","])
@pytest.mark.parametrize("rows", [1, 3, 200])
def test_the_separator_is_found_and_said(delimiter: str, rows: int) -> None:
    notes: list[str] = []
    data = f"text{delimiter}label\n" + f"one, two; three{delimiter}b\n".replace(delimiter, "", delimiter in ",;") * rows
    found = read_bytes(data, "rows.csv", notes)
    assert {row.target for row in found} == {"b"}
    assert len(found) == rows
    assert bool(notes) == (delimiter != ",")
    assert all("separate the fields" in note for note in notes)


def test_a_separator_that_is_named_is_taken() -> None:
    notes: list[str] = []
    assert read_bytes("text:label\na:b\n", "rows.csv", notes, delimiter=":") == AB
    assert notes == []


def test_encodings_are_told_or_named() -> None:
    notes: list[str] = []
    assert read_bytes("text,label\nü,é\n".encode("cp1252"), "a.csv", notes, encoding="cp1252") == [
        LabelledText("ü", "é")
    ]
    assert notes == []
    assert read_bytes("text,label\nü,é\n".encode("utf-16"), "a.csv", notes) == [LabelledText("ü", "é")]
    assert [note.partition(": ")[2] for note in notes] == ["it is read as utf-16-le"]
    for unknown in ("klingon", "idna", "undefined", "base64"):
        with pytest.raises(DataError, match=f"the encoding '{unknown}' is not known"):
            read_bytes("text,label\na,b\n", "a.csv", encoding=unknown)
    with pytest.raises(DataError, match=r"line 2: 'text' is not UTF-8 text .*`encoding`"):
        read_bytes("text,label\na\x81b,c\n".encode("latin-1"), "a.csv", encoding="cp1252")


def test_partitions_of_a_path_are_columns(tmp_path: Path) -> None:
    for label, day in (("good", "1"), ("b%2Fd", "01")):
        folder = tmp_path / f"label={label}" / f"day={day}"
        folder.mkdir(parents=True)
        (folder / "part-0.csv").write_text("text\na\n")
    assert rows_of(tmp_path) == [LabelledText("a", "b/d"), LabelledText("a", "good")]
    assert [row.target for row in rows_of(tmp_path, "text", "day")] == ["01", "1"]


def test_a_folder_is_all_its_files(tmp_path: Path) -> None:
    (tmp_path / "part-0.jsonl").write_text('{"text": "a", "label": 1}\n')
    (tmp_path / "part-1.jsonl.gz").write_bytes(gzip.compress(b'{"text": "b", "label": 2}\n'))
    (tmp_path / "_SUCCESS").touch()
    assert rows_of(tmp_path) == [LabelledText("a", "1"), LabelledText("b", "2")]


@pytest.mark.parametrize("names", [["reviews.csv", "contest.csv"], ["latest.csv", "developers.csv"]])
def test_a_folder_is_a_data_set_only_if_it_says_so(tmp_path: Path, names: list[str]) -> None:
    for name in names:
        (tmp_path / name).write_text("text,label\nNA,b\n")
    (tmp_path / "README.md").write_text("# Notes\n\n---\n\nconfigs: none\n")
    assert rows_of(tmp_path) == [LabelledText("NA", "b")] * 2


def test_a_folder_with_splits_and_other_files_is_refused(tmp_path: Path) -> None:
    for name in ("train.csv", "more.csv"):
        (tmp_path / name).write_text("text,label\na,b\n")
    with pytest.raises(DataError, match=r"called as splits \(train.csv\) and others \(more.csv\): name one file"):
        rows_of(tmp_path)


@pytest.mark.parametrize("name", ["rows.csv", "rows.jsonl", "rows.parquet"])
def test_only_json_has_splits(tmp_path: Path, name: str) -> None:
    (tmp_path / name).write_text("text,label\na,b\n")
    with pytest.raises(DataError, match=f"{name}:test names a split, and only a .json file can have several"):
        rows_of(f"{tmp_path / name}:test")


def test_keys_that_come_twice_are_seen_beside_a_partition(tmp_path: Path) -> None:
    (tmp_path / "lang=de").mkdir()
    (tmp_path / "lang=de" / "a.jsonl").write_text('{"text": "a", "text": "b", "label": "x"}\n')
    with pytest.raises(DataError, match="'text' comes more than once"):
        rows_of(tmp_path)


def test_quotes_may_belong_to_the_texts() -> None:
    data = b'text\tlabel\n"I went home .\tneg\nIt was good . "\tpos\nbye "\tneg\n'
    notes: list[str] = []
    assert len(read_bytes(data, "rows.tsv", notes)) == 2
    (note,) = notes
    assert "line 2: the quotes of 1 rows, this one the first, enclose lines that could be rows" in note
    assert note.endswith("if quotes belong to the texts, say so with `quotes`")
    found = read_bytes(data, "rows.tsv", quotes=False)
    assert [(row.text, row.target) for row in found] == [
        ('"I went home .', "neg"),
        ('It was good . "', "pos"),
        ('bye "', "neg"),
    ]


def test_columns_of_parquet_that_come_twice_or_have_no_name(tmp_path: Path) -> None:
    path = tmp_path / "a.parquet"
    columns = [pa.array([value]) for value in ("0", "a", "b", "c", "d")]
    pq.write_table(pa.Table.from_arrays(columns, ["", "text", "label", "n", "n"]), path)
    assert rows_of(path) == AB
    assert rows_of(path, "n.1", "Unnamed: 0") == [LabelledText("d", "0")]
    with pytest.raises(DataError, match="has the column 'n' more than once"):
        rows_of(path, "n")


def test_many_columns_are_read_in_linear_time() -> None:
    names = ["text", "label", *(f"c{place}" for place in range(20_000)), "c1"]
    found = read_bytes(",".join(names) + "\na,b" + "," * (len(names) - 2) + "\n", "rows.csv")
    assert found == AB


def test_a_pipe_is_named_as_such(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "rows.csv")
    with pytest.raises(DataError, match="is a pipe or a device, which can only be read once: save it as a file"):
        rows_of(tmp_path / "rows.csv")


def test_what_many_files_have_in_common_is_said_once(tmp_path: Path) -> None:
    for place in range(5):
        (tmp_path / f"{place}.csv").write_text(f"text;label\na;{place}\n")
    notes: list[str] = []
    rows_of(tmp_path, note=notes.append)
    assert notes == [
        f"{tmp_path / '0.csv'}: semicolons separate the fields",
        "4 more like it: semicolons separate the fields",
    ]


class TestDataSets:
    def test_a_folder_of_splits_is_read_with_its_split(self, tmp_path: Path) -> None:
        for split in ("train", "test"):
            (tmp_path / f"{split}.jsonl").write_text(json.dumps({"text": split, "label": 3}) + "\n")
        assert rows_of(f"{tmp_path}:test") == [LabelledText("test", "3")]
        notes: list[str] = []
        assert rows_of(tmp_path, note=notes.append) == [LabelledText("train", "3")]
        assert notes == [
            f"{tmp_path}: its files are called as splits: 'train' is read; name another as {tmp_path}:test"
        ]
        with pytest.raises(DataError, match="is a data set, which is read as it says itself"):
            read_labelled(str(tmp_path), reading=Reading(encoding="cp1252"))

    def test_configurations_are_named(self, tmp_path: Path) -> None:
        card = ["---", "configs:"]
        for name in ("en", "de"):
            (tmp_path / name).mkdir()
            for split in ("train", "test"):
                (tmp_path / name / f"{split}.jsonl").write_text(
                    json.dumps({"text": split + name, "label": True}) + "\n"
                )
            card += [f"- config_name: {name}", "  data_files:"]
            card += [f"  - {{split: {split}, path: {name}/{split}.jsonl}}" for split in ("train", "test")]
        (tmp_path / "README.md").write_text("\n".join([*card, "---"]))
        assert rows_of(f"{tmp_path}:de:test") == [LabelledText("testde", "true")]
        assert rows_of(f"{tmp_path}:en:train") == [LabelledText("trainen", "true")]
        for name in (str(tmp_path), f"{tmp_path}:train", f"{tmp_path}:fr:train"):
            with pytest.raises(DataError, match=f"its configurations are en, de: name one, as {tmp_path}:en:train"):
                read_labelled(name)

    @pytest.mark.parametrize("source", ["missing.jsonl", "missing.csv", "missing.parquet", "no_such_thing"])
    def test_data_that_is_not_there_is_named(self, source: str) -> None:
        with pytest.raises(DataError, match=source):
            read_labelled(source)


SPLITS = b'{"train": [{"text": "a", "label": "b"}], "test": [{"text": "c", "label": "d"}]}'


def test_splits_of_a_json_file_are_named(tmp_path: Path) -> None:
    path = tmp_path / "rows.json"
    path.write_bytes(SPLITS)
    assert rows_of(f"{path}:test") == [LabelledText("c", "d")]
    with pytest.raises(DataError, match=f"has the splits train, test: name one, as {path}:train"):
        rows_of(f"{path}:dev")
    path.write_text('[{"text": "a", "label": "b"}]')
    with pytest.raises(DataError, match="has no split 'test'"):
        rows_of(f"{path}:test")


@pytest.mark.parametrize(
    ("name", "data", "message"),
    [
        ("rows.jsonl", b"", "rows.jsonl has no rows: expected one labelled text in each"),
        ("rows.csv", b"", "rows.csv is empty: expected a header"),
        ("rows.csv", b"text,label\n", "rows.csv has no rows"),
        ("rows.jsonl", b"\n \n\t\r\n\n", "rows.jsonl has no rows"),
        ("rows.json", b"[]", "rows.json has no rows"),
        ("rows.csv", b"\n\r\n\n", "rows.csv is empty"),
        ("rows.txt", b"a,b", r"rows.txt ends in '.txt': expected one of .parquet, .*\.csv.*packed"),
        ("rows", b"a,b", r"rows ends in '': expected one of"),
        ("rows.jsonl", b'{"text": "\xff", "label": 1}', r"line 1: 'text' is not UTF-8 text .*cp1252.*`encoding`"),
        ("rows.csv", "text,label\nü,b".encode("latin-1"), r"line 2: 'text' is not UTF-8 text .*`encoding`"),
        ("rows.csv", "tüxt,label\na,b".encode("latin-1"), r"line 1: not UTF-8 text: .*`encoding`"),
        ("rows.jsonl", b'\n{"text": "a", "label": "b"}\n{"text": \n', "line 3: not JSON"),
        ("rows.jsonl", b"text,label\na,b", "line 1: not JSON"),
        ("rows.jsonl", b"[" * 100_000, "rows.jsonl, row 1: not JSON"),
        ("rows.jsonl", b'{"text": "a", "label": ' + b"1" * 5000 + b"}", "line 1: not JSON"),
        ("rows.jsonl", b'{"text": "a", "label": "b"}\n["a", "b"]', "line 2: an array came instead of a JSON object"),
        ("rows.jsonl", b'\n\n"a"', "line 3: a string came instead of a JSON object"),
        ("rows.jsonl", b"null", "line 1: null came instead of a JSON object"),
        ("rows.json", b'[["a", "b"]]', "row 1: an array came instead of a JSON object"),
        ("rows.json", b'[{"text": "a", "label": "b"}', "row 1: not JSON .*the array does not end"),
        ("rows.json", b'[{"text": "a", "label": "b"} {}]', "row 1: not JSON .*instead of ',' or ']'"),
        ("rows.json", b'[{"text": "a", "label": "b"}] {}', "goes on behind its array"),
        ("rows.json", b'{\n"text": "a",\n"label"\n}', "rows.json is not JSON"),
        ("rows.jsonl", b"{}", "line 1: no column 'text' among none: name it with `text`"),
        ("rows.jsonl", b'{"label": "b"}', "line 1: no column 'text' among label: name it with `text`"),
        ("rows.jsonl", b'{"text": "a", "kind": 1}', "no column 'label' among text, kind: name it with `labels`"),
        ("rows.jsonl", b'{"txet": "a", "label": 1}', "no column 'text' .* did you mean 'txet'\\? .*`text`"),
        ("rows.jsonl", b'{"text": "a", "text": "b", "label": 1}', "'text' comes more than once"),
        ("rows.jsonl", b'{"text": "a", "label": 2, "label": 1}', "'label' comes more than once"),
        ("rows.csv", b"text,Label\na,b", "no column 'label' among text, Label: did you mean 'Label'\\?"),
        ("rows.csv", b"text,label,text\na,b,c", "has the column 'text' more than once: rename one"),
        ("rows.csv", b"good film,pos\nbad film,neg", "if its first line is a row, put a header above it.* text,label"),
        ("rows.csv", b"text,label\na,b\nc\n", "line 3: 1 field where the header has 2"),
        ("rows.csv", b"text,label\na,b\nc, d,e\n", "line 3: 3 fields where the header has 2"),
        ("rows.csv", b"text,label\na,b\nc,\n", "line 3: 'label' is empty: add the label"),
        ("rows.csv", b'text,label\na,b\n"c,d\ne,f\n', "line 3: a quote opens here and never closes"),
        ("rows.csv", b'text,label\na,b\n"c,d\n"e",f\n', "line 3: a quote closes inside a field .up to line 4.: double"),
        ("rows.csv", b'text,label\n"the "film" was good",b\n', "line 2: a quote closes inside a field: double"),
        ("rows.parquet", b"text,label", "cannot be read as Parquet"),
        ("rows.csv", b"PAR1\x15\x04", "is a Parquet file: name it .parquet"),
        ("rows.csv", b"text,label\na,x\ntext,label\nb,y\n", "line 3: the header once more: were files joined"),
        ("rows.csv", b"text,label\na,x\n\xef\xbb\xbftext,label\nb,y\n", "line 3: the header once more"),
        ("rows.json", b'{"train": [{"text": "a", "text": "b"}], "test": []}', "'text' comes more than once"),
        ("rows.json", b'{\n"text": "a",\n"text": "b", "label": "x"\n}', "'text' comes more than once"),
        ("rows.json", b'{"columns": ["text", "label", "text"], "data": [["a", "x", "b"]]}', "'text' comes more"),
        ("rows.json", b'{"0": {"0": "a", "1": "b"}, "1": {"0": "x", "1": "y"}}', "both called by numbers"),
    ],
)
def test_what_cannot_be_used_is_named(tmp_path: Path, name: str, data: bytes, message: str) -> None:
    (tmp_path / name).write_bytes(data)
    with pytest.raises(DataError, match=message) as caught:
        rows_of(tmp_path / name)
    assert str(tmp_path / name) in str(caught.value)


def test_a_parquet_file_without_the_column(tmp_path: Path) -> None:
    pq.write_table(pa.table({"review": ["a"], "label": ["b"]}), tmp_path / "a.parquet")
    with pytest.raises(DataError, match="no column 'text' among review, label: name it with `text`"):
        rows_of(tmp_path / "a.parquet")


def test_the_package_that_reads_parquet_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "pyarrow", None)
    (tmp_path / "a.parquet").write_bytes(b"PAR1")
    with pytest.raises(MissingPackageError, match=r"'pyarrow' is needed for this .*edgetune\[score\]"):
        rows_of(tmp_path / "a.parquet")


@pytest.mark.parametrize("value", [None, 3, 0.5, True, ["a"], {"a": "b"}, float("nan")])
def test_a_text_that_is_no_string_is_refused(value: object) -> None:
    data = '{"text": "a", "label": "b"}\n\n' + json.dumps({"text": value, "label": "b"})
    with pytest.raises(DataError) as caught:
        read_bytes(data, "rows.jsonl")
    assert str(caught.value).endswith(f"line 3: 'text' is {json.dumps(value)}: expected a string")


@pytest.mark.parametrize("value", [None, 1.5, float("nan"), float("inf"), 1e300, {"a": 1}])
def test_a_label_that_is_no_label_is_refused(value: object) -> None:
    data = '{"text": "a", "label": "b"}\n\n' + json.dumps({"text": "a", "label": value})
    with pytest.raises(DataError) as caught:
        read_bytes(data, "rows.jsonl")
    shown = f"line 3: 'label' is {json.dumps(value)}: expected a string, an integer or a boolean"
    assert str(caught.value).endswith(shown)


@pytest.mark.parametrize(
    ("data", "line"),
    [
        (b'text,label\n"one\ntwo\nthree",a\nb,\n', 5),
        (b"text,label\na,b\n\n\nc,\n", 5),
    ],
)
def test_the_line_of_a_csv_row_is_that_of_the_file(data: bytes, line: int) -> None:
    with pytest.raises(DataError, match=f"line {line}: 'label' is"):
        read_bytes(data, "rows.csv")


def test_a_row_of_many_lines_is_said() -> None:
    notes: list[str] = []
    assert len(read_bytes('text,label\n"' + "a\n" * 5 + '",b\n', "rows.csv", notes)) == 1
    assert notes == []
    assert len(read_bytes('text,label\nc,d\n"' + "a\n" * 30 + '",b\n', "rows.csv", notes)) == 2
    (note,) = notes
    assert note.endswith("line 3: a row of 31 lines begins here: is a quote missing?")


def test_a_file_that_cannot_be_read_is_named(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"absent.csv cannot be read: there is no such file"):
        rows_of(tmp_path / "absent.csv")
    (tmp_path / "folder.csv").mkdir()
    with pytest.raises(DataError, match=r"folder.csv has no data: expected files that end in"):
        rows_of(tmp_path / "folder.csv")


@settings(deadline=None, max_examples=150)
@given(st.binary(max_size=60), st.sampled_from((".jsonl", ".csv", ".json", ".parquet", ".tsv.gz")))
@example(b"text,label\n\0,\0\n", ".csv")
@example(b"[", ".json")
@example(b"{}", ".json")
@example(b'{"a": []}', ".json")
@example(b'{"a": {}}', ".json")
@example(b'{"columns": 1, "data": 2}', ".json")
@example(b'{"columns": [[]], "data": [[1]]}', ".json")
@example(b'{"a": {"b": 1}, "c": {"d": {}}}', ".json")
def test_any_bytes_raise_data_error_only(data: bytes, suffix: str) -> None:
    try:
        assert read_bytes(data, f"rows{suffix}")
    except DataError as error:
        assert f"rows{suffix}" in str(error)


json_values: Any = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=3),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(st.sampled_from(["text", "label", "data", "columns", "schema", "0"]), inner, max_size=3)
    ),
    max_leaves=8,
)


@settings(deadline=None, max_examples=200)
@given(json_values)
def test_any_json_raises_data_error_only(value: object) -> None:
    try:
        assert read_bytes(json.dumps(value), "rows.json")
    except DataError as error:
        assert "rows.json" in str(error)
