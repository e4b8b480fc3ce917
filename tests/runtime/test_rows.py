"""Rows of text: what was written comes back, and what cannot be used is named with its line."""

from __future__ import annotations

import csv
import io
import itertools
import json
import tempfile
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import IO, Any, cast

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from edgetune_runtime.errors import DataError
from edgetune_runtime.rows import LabelledText, Request, labelled, read_labelled, read_requests

Rows = list[tuple[str, str]]

rows_of_text = st.lists(st.tuples(st.text(max_size=12), st.text(min_size=1, max_size=5)), min_size=1, max_size=5)


def read_bytes(data: bytes, suffix: str) -> list[LabelledText]:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, f"rows{suffix}")
        path.write_bytes(data)
        return read_labelled(path)


# Labelled texts


@settings(deadline=None, max_examples=100)
@given(rows_of_text, st.booleans(), st.sampled_from(("\n", "\r\n")))
@example([("a\rb\nc\r\nd\u2028e\x85f\x0bg", "x")], False, "\n")
def test_jsonl_comes_back(rows: Rows, ascii_only: bool, end: str) -> None:
    lines = [json.dumps({"text": text, "label": label}, ensure_ascii=ascii_only) + end for text, label in rows]
    assert read_bytes("".join(lines).encode(), ".jsonl") == [LabelledText(*row) for row in rows]


def csv_bytes(rows: Iterable[Sequence[object]], end: str = "\r\n") -> bytes:
    out = io.StringIO(newline="")
    # Before Python 3.13 the writer leaves a lone \r bare where rows end in \n.
    quoting = csv.QUOTE_MINIMAL if end == "\r\n" else csv.QUOTE_ALL
    csv.writer(out, lineterminator=end, quoting=quoting).writerows([("text", "label"), *rows])
    return out.getvalue().encode()


@settings(deadline=None, max_examples=100)
@given(rows_of_text, st.sampled_from(("\n", "\r\n")))
@example([("a\nb, \"c\" 'd'\u2028e\x85f\x0bg", "x"), ("", "\n")], "\r\n")
@example([("a\rb", "x")], "\n")
@example([("a\r\nb", "x")], "\r\n")
def test_csv_comes_back(rows: Rows, end: str) -> None:
    assert read_bytes(csv_bytes(rows, end), ".csv") == [LabelledText(*row) for row in rows]


@pytest.mark.parametrize("suffix", [".jsonl", ".json", ".ndjson"])
def test_every_suffix_of_json_lines_is_read(suffix: str) -> None:
    assert read_bytes(b'{"text": "a", "label": "b"}\n', suffix) == [LabelledText("a", "b")]


@pytest.mark.parametrize("suffix", [".jsonl", ".csv"])
@pytest.mark.parametrize("size", [131_071, 131_073, 1_000_000])
def test_a_long_text_is_read(suffix: str, size: int) -> None:
    text = "x" * size
    data = csv_bytes([(text, "a")]) if suffix == ".csv" else json.dumps({"text": text, "label": "a"}).encode()
    assert read_bytes(data, suffix) == [LabelledText(text, "a")]


@pytest.mark.parametrize(("label", "kept"), [(0, "0"), (3, "3"), (-12, "-12"), (10**30, "1" + 30 * "0"), ("07", "07")])
def test_integer_labels_become_their_digits(label: int | str, kept: str) -> None:
    data = json.dumps({"text": "a", "label": label}).encode()
    assert read_bytes(data, ".jsonl") == [LabelledText("a", kept)]
    assert read_bytes(csv_bytes([("a", label)]), ".csv") == [LabelledText("a", kept)]


@pytest.mark.parametrize(
    ("data", "suffix"),
    [
        (b'\xef\xbb\xbf{"text": "a", "label": "b"}', ".jsonl"),
        (b'\n  \n{"more": [1], "label": "b", "text": "a"}\r\n\t\n\n', ".jsonl"),
        (b"\xef\xbb\xbftext,label\na,b", ".csv"),
        (b"text,label\n\n\na,b\n\n", ".csv"),
        (b'label,more,text\r\nb,,"a"\r\n', ".csv"),
    ],
)
def test_marks_blank_lines_and_more_columns_do_not_matter(data: bytes, suffix: str) -> None:
    assert read_bytes(data, suffix) == [LabelledText("a", "b")]


def test_columns_may_have_other_names(tmp_path: Path) -> None:
    path = tmp_path / "rows.csv"
    path.write_text("sentence,text,intent\na,no,b\n")
    assert read_labelled(path, "sentence", "intent") == [LabelledText("a", "b")]


@pytest.mark.parametrize(
    ("name", "data", "message"),
    [
        ("rows.jsonl", b"", "rows.jsonl has no rows: expected one labelled text a line"),
        ("rows.csv", b"", "rows.csv has no rows"),
        ("rows.csv", b"text,label\n", "rows.csv has no rows"),
        ("rows.jsonl", b"\n \n\t\r\n\n", "rows.jsonl has no rows"),
        ("rows.csv", b"\n\r\n\n", "rows.csv has no rows"),
        ("rows.txt", b"a,b", r"rows.txt ends in '.txt': expected .jsonl or .csv"),
        ("rows", b"a,b", r"rows ends in '': expected .jsonl or .csv"),
        ("rows.jsonl", b'{"text": "\xff"}', r"rows.jsonl is not UTF-8 text \(byte 10\)"),
        ("rows.csv", "text,label\nü,b".encode("latin-1"), r"rows.csv is not UTF-8 text \(byte 11\)"),
        ("rows.csv", "text,label".encode("utf-16"), r"rows.csv is not UTF-8 text \(byte 0\)"),
        (
            "rows.jsonl",
            b'\n{"text": "a", "label": "b"}\n{"text": \n',
            "line 3: not JSON .*: expected one object a line",
        ),
        ("rows.jsonl", b"text,label\na,b", "line 1: not JSON"),
        ("rows.jsonl", b"[" * 100_000, "line 1: not JSON"),
        ("rows.jsonl", b'{"text": "a", "label": ' + b"1" * 5000 + b"}", "line 1: not JSON"),
        ("rows.jsonl", b'{"text": "a", "label": "b"}\n["a", "b"]', "line 2: list came where an object"),
        ("rows.jsonl", b'\n\n"a"', "line 3: str came where an object"),
        ("rows.jsonl", b"null", "line 1: NoneType came where an object"),
        ("rows.jsonl", b"{}", "line 1: no column 'text' among none: name it with --text-column"),
        ("rows.jsonl", b'{"label": "b"}', "line 1: no column 'text' among label: name it with --text-column"),
        ("rows.jsonl", b'{"text": "a", "kind": 1}', "no column 'label' among text, kind: name it with --label-column"),
        ("rows.jsonl", b'{"txet": "a", "label": 1}', "no column 'text' .* did you mean 'txet'\\? .*--text-column"),
        ("rows.jsonl", b'{"text": "a", "labels": 1}', "no column 'label' .*did you mean 'labels'\\? .*--label-column"),
        ("rows.csv", b"text,Label\na,b", "line 2: no column 'label' among text, Label: did you mean 'Label'\\?"),
        ("rows.csv", b"a,b\nc,d", "line 2: no column 'text' among a, b: name it with --text-column"),
        ("rows.csv", b"text;label\na;b", "line 2: no column 'text' among text;label"),
        ("rows.csv", b"text,label\na,b\nc\n", "line 3: 'label' is null: expected a string or an integer"),
        ("rows.csv", b"text,label\na,b\nc,\n", "line 3: 'label' is \"\": expected a string or an integer"),
    ],
)
def test_what_cannot_be_used_is_named(tmp_path: Path, name: str, data: bytes, message: str) -> None:
    (tmp_path / name).write_bytes(data)
    with pytest.raises(DataError, match=message) as caught:
        read_labelled(tmp_path / name)
    assert str(tmp_path / name) in str(caught.value)


@pytest.mark.parametrize("value", [None, 3, 0.5, True, ["a"], {"a": "b"}])
def test_a_text_that_is_no_string_is_refused(value: object) -> None:
    data = b'{"text": "a", "label": "b"}\n\n' + json.dumps({"text": value, "label": "b"}).encode()
    with pytest.raises(DataError) as caught:
        read_bytes(data, ".jsonl")
    assert str(caught.value).endswith(f"line 3: 'text' is {json.dumps(value)}: expected a string")


@pytest.mark.parametrize("value", [None, True, False, 1.0, float("nan"), [], ["b"], {"a": 1}, ""])
def test_a_label_that_is_no_label_is_refused(value: object) -> None:
    data = b'{"text": "a", "label": "b"}\n\n' + json.dumps({"text": "a", "label": value}).encode()
    with pytest.raises(DataError) as caught:
        read_bytes(data, ".jsonl")
    assert str(caught.value).endswith(f"line 3: 'label' is {json.dumps(value)}: expected a string or an integer")


@pytest.mark.parametrize(
    ("data", "line"),
    [
        (b'text,label\n"one\ntwo\nthree",a\nb,\n', 5),
        (b"text,label\na,b\n\n\nc,\n", 5),
    ],
)
def test_the_line_of_a_csv_row_is_that_of_the_file(data: bytes, line: int) -> None:
    with pytest.raises(DataError, match=f"line {line}: 'label' is"):
        read_bytes(data, ".csv")


def test_a_file_that_cannot_be_read_is_named(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"absent.csv cannot be read \(No such file"):
        read_labelled(tmp_path / "absent.csv")
    (tmp_path / "folder.csv").mkdir()
    with pytest.raises(DataError, match=r"folder.csv cannot be read \(Is a directory"):
        read_labelled(tmp_path / "folder.csv")


def test_a_record_is_named_by_its_place() -> None:
    assert labelled({"t": "a", "l": 1}, "row 7", "t", "l") == LabelledText("a", "1")
    with pytest.raises(DataError, match=r"^row 7: no column 'text' among t, l"):
        labelled({"t": "a", "l": 1}, "row 7")


@settings(deadline=None, max_examples=150)
@given(st.binary(max_size=60), st.sampled_from((".jsonl", ".csv")))
@example(b"text,label\n\0,\0\n", ".csv")
def test_any_bytes_raise_data_error_only(data: bytes, suffix: str) -> None:
    try:
        assert read_bytes(data, suffix)
    except DataError as error:
        assert f"rows{suffix}" in str(error)


# Requests


class Chunks:
    """A stream that gives what it has ready: one chunk a read."""

    def __init__(self, chunks: Iterable[bytes]) -> None:
        self.chunks = [chunk for chunk in chunks if chunk]
        self.reads = 0

    def read1(self, _: int = -1) -> bytes:
        self.reads += 1
        return self.chunks.pop(0) if self.chunks else b""

    def read(self, _: int = -1) -> bytes:
        raise AssertionError("a read that waits for more than is ready")


def requests(chunks: Iterable[bytes], as_json: bool | None = None) -> list[Request]:
    return [request for some in read_requests(cast(IO[bytes], Chunks(chunks)), as_json) for request in some]


def pieces(data: bytes, cuts: Iterable[int]) -> list[bytes]:
    bounds = [0, *sorted(cut % (len(data) + 1) for cut in cuts), len(data)]
    return [data[start:stop] for start, stop in itertools.pairwise(bounds)]


lines = st.one_of(
    st.fixed_dictionaries(
        {"text": st.text(max_size=8)},
        optional={"id": st.none() | st.integers() | st.text(max_size=3), "task": st.none() | st.just("colour")},
    ).map(lambda record: json.dumps(record, ensure_ascii=False).encode()),
    st.text(max_size=8).map(str.encode),
    st.binary(max_size=8),
    st.sampled_from((b"", b" \t", b"[1]", b"{", b'{"text": 3}', b'{"text": "a", "task": 1}')),
)


@settings(deadline=None, max_examples=250)
@given(
    st.lists(st.tuples(lines, st.sampled_from((b"\n", b"\r\n", b"\n\n"))), max_size=8),
    st.booleans(),
    st.lists(st.integers(0, 10_000), max_size=8) | st.just(range(200)),
    st.sampled_from((None, True, False)),
)
def test_rows_do_not_depend_on_the_chunks(
    rows: list[tuple[bytes, bytes]], last_end: bool, cuts: Sequence[int], as_json: bool | None
) -> None:
    data = b"".join(line + end for line, end in rows)
    if not last_end:
        data = data.removesuffix(b"\n")
    whole = requests([data], as_json)
    assert len(whole) == sum(bool(line.strip()) for line in data.split(b"\n"))
    assert repr(requests(pieces(data, cuts), as_json)) == repr(whole)
    assert repr([row for some in read_requests(io.BytesIO(data), as_json) for row in some]) == repr(whole)


@settings(deadline=None, max_examples=100)
@given(st.lists(st.text(min_size=1, max_size=8)), st.lists(st.integers(0, 10_000), max_size=8))
def test_texts_come_back(texts: list[str], cuts: list[int]) -> None:
    wanted = [text.strip() for text in texts]
    wanted = [text for text in wanted if text and "\n" not in text]
    found = requests(pieces("\n".join(wanted).encode(), cuts), as_json=False)
    assert found == [Request(id=number, text=text) for number, text in enumerate(wanted)]


@settings(deadline=None, max_examples=100)
@given(
    st.lists(st.tuples(st.text(max_size=8), st.none() | st.integers() | st.text() | st.lists(st.text(), max_size=2))),
    st.lists(st.integers(0, 10_000), max_size=8),
)
def test_objects_come_back_with_their_ids(rows: list[tuple[str, Any]], cuts: list[int]) -> None:
    data = "".join(json.dumps({"text": text, "id": identity, "task": "t"}) + "\n" for text, identity in rows)
    assert requests(pieces(data.encode(), cuts)) == [Request(identity, text, "t") for text, identity in rows]


@pytest.mark.parametrize("last_end", ["", "\n", "\r\n", "\n\n\n"])
@pytest.mark.parametrize("end", ["\n", "\r\n"])
def test_line_ends_are_not_part_of_a_text(end: str, last_end: str) -> None:
    texts = ["the lamp", "a\rb", "c\u2028d"]
    expected = [Request(id=number, text=text) for number, text in enumerate(texts)]
    assert requests([(end.join(texts) + last_end).encode()]) == expected
    objects = [json.dumps({"text": text}, ensure_ascii=False) for text in texts]
    assert requests([(end.join(objects) + last_end).encode()]) == expected


@pytest.mark.parametrize(
    ("data", "as_json", "texts"),
    [
        (b'\n  \n {"text": "a"}\n{"text": "b"}', None, ["a", "b"]),
        (b'a\n{"text": "b"}', None, ["a", '{"text": "b"}']),
        (b'{"text": "a"}\nb', None, ["a", None]),
        (b'{"text": "a"}', False, ['{"text": "a"}']),
        (b'a\n{"text": "b"}', True, [None, "b"]),
        (b'["a"]', None, ['["a"]']),
    ],
)
def test_the_first_line_decides_unless_told(data: bytes, as_json: bool | None, texts: list[str | None]) -> None:
    assert [request.text for request in requests([data], as_json)] == texts


def test_a_byte_order_mark_does_not_hide_the_objects() -> None:
    data = b'\xef\xbb\xbf{"text": "a", "id": 7}\n{"text": "b"}\n'
    assert requests([data]) == [Request(id=7, text="a"), Request(id=1, text="b")]


@pytest.mark.parametrize(
    ("line", "identity", "problem"),
    [
        (b'{"text": ', 1, "line cannot be read"),
        (b"not json", 1, "line cannot be read"),
        (b'{"text": "\xff"}', 1, "line cannot be read"),
        (b"[" * 100_000, 1, "line cannot be read"),
        (b"1" * 5000, 1, "line cannot be read"),
        (b"[1]", 1, "list came where a JSON object was expected"),
        (b"null", 1, "NoneType came where a JSON object was expected"),
        (b'"text"', 1, "str came where a JSON object was expected"),
        (b"{}", 1, "there is no 'text': expected one, a string"),
        (b'{"id": "x", "text": null}', "x", "'text' is null: expected a string"),
        (b'{"id": "x", "text": 3}', "x", "'text' is 3: expected a string"),
        (b'{"id": [1], "text": ["a"]}', [1], "'text' is [\"a\"]: expected a string"),
        (b'{"id": 9, "text": "a", "task": 3}', 9, "'task' is 3: expected a task's name"),
        (b'{"id": 9, "text": "a", "task": ["t"]}', 9, "'task' is [\"t\"]: expected a task's name"),
    ],
)
def test_a_bad_row_becomes_a_problem_and_the_others_stay(line: bytes, identity: object, problem: str) -> None:
    before, bad, after = requests([b'{"text": "a"}\n' + line + b'\n{"text": "b", "id": "last"}\n'])
    assert before == Request(id=0, text="a")
    assert after == Request(id="last", text="b")
    assert (bad.id, bad.text, bad.task) == (identity, None, None)
    assert (bad.problem or "").startswith(problem)


def test_a_text_that_is_not_utf_8_becomes_a_problem() -> None:
    first, bad, last = requests([b"a\n\xff\xfe\nb"])
    assert (first, last) == (Request(id=0, text="a"), Request(id=2, text="b"))
    assert (bad.id, bad.text) == (1, None)
    assert (bad.problem or "").startswith("line cannot be read")


def test_ids_count_the_rows_that_are_not_blank() -> None:
    assert [request.id for request in requests([b"\na\n\n \nb\n", b"\n\nc"])] == [0, 1, 2]


def test_a_slow_stream_is_answered_as_it_comes() -> None:
    stream = Chunks([b"a\nb\nc", b"c\n", b"d"])
    found = read_requests(cast(IO[bytes], stream), None)
    assert [request.text for request in next(found)] == ["a", "b"]
    assert stream.reads == 1
    assert [request.text for request in next(found)] == ["cc"]
    assert stream.reads == 2
    assert [request.text for request in next(found)] == ["d"]
    assert list(found) == []


@pytest.mark.parametrize("data", [b"", b"\n", b" \n\t\n\r\n"])
@pytest.mark.parametrize("as_json", [None, True, False])
def test_no_rows_give_no_requests(data: bytes, as_json: bool | None) -> None:
    assert requests([data], as_json) == []
