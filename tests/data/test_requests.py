"""Rows to classify, from streams and from files of any format, each with its own id or its line."""

from __future__ import annotations

import gzip
import io
import itertools
import json
import os
import threading
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import IO, Any, cast

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from edgetune.data.requests import Kind, Request, read_requests, stream_requests
from edgetune.data.text_files import Reading
from edgetune_runtime.errors import DataError


def requests(chunks: Iterable[bytes], kind: Kind = "auto", reading: Reading = Reading()) -> list[Request]:  # noqa: B008
    stream = cast(IO[bytes], Chunks(chunks))
    return [request for some in stream_requests(stream, kind, reading=reading) for request in some]


def in_file(path: Path, data: bytes | str, kind: Kind = "auto") -> list[Request]:
    path.write_bytes(data if isinstance(data, bytes) else data.encode())
    return [request for some in read_requests(path, kind, note=lambda _: None) for request in some]


class Chunks:
    """A stream that returns one chunk per read."""

    def __init__(self, chunks: Iterable[bytes]) -> None:
        self.chunks = [chunk for chunk in chunks if chunk]
        self.reads = 0

    def read1(self, _: int = -1) -> bytes:
        self.reads += 1
        return self.chunks.pop(0) if self.chunks else b""

    def read(self, _: int = -1) -> bytes:
        raise AssertionError("a read that waits for more than is ready")


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
    st.sampled_from(("auto", "jsonl", "text")),
)
@example([("{".encode("utf-16"), b"\n")], True, range(200), "auto")
def test_rows_do_not_depend_on_the_chunks(
    rows: list[tuple[bytes, bytes]], last_end: bool, cuts: Sequence[int], kind: Kind
) -> None:
    data = b"".join(line + end for line, end in rows)
    if not last_end:
        data = data.removesuffix(b"\n")
    whole = requests([data], kind)
    assert repr(requests(pieces(data, cuts), kind)) == repr(whole)
    assert repr([row for some in stream_requests(io.BytesIO(data), kind) for row in some]) == repr(whole)


@settings(deadline=None, max_examples=100)
@given(st.lists(st.text(min_size=1, max_size=8)), st.lists(st.integers(0, 10_000), max_size=8))
def test_texts_come_back(texts: list[str], cuts: list[int]) -> None:
    wanted = [text.strip() for text in texts]
    wanted = [text for text in wanted if text and "\n" not in text and not text.startswith("\ufeff")]
    found = requests(pieces("\n".join(wanted).encode(), cuts), "text")
    assert found == [Request(line, line, text) for line, text in enumerate(wanted, start=1)]


@settings(deadline=None, max_examples=100)
@given(
    st.lists(st.tuples(st.text(max_size=8), st.none() | st.integers() | st.text() | st.lists(st.text(), max_size=2))),
    st.lists(st.integers(0, 10_000), max_size=8),
)
def test_objects_come_back_with_their_ids(rows: list[tuple[str, Any]], cuts: list[int]) -> None:
    data = "".join(json.dumps({"text": text, "id": identity, "task": "t"}) + "\n" for text, identity in rows)
    found = requests(pieces(data.encode(), cuts))
    assert found == [Request(line, identity, text, "t") for line, (text, identity) in enumerate(rows, start=1)]


@pytest.mark.parametrize("last_end", ["", "\n", "\r\n", "\n\n\n"])
@pytest.mark.parametrize("end", ["\n", "\r\n"])
def test_line_ends_are_not_part_of_a_text(end: str, last_end: str) -> None:
    texts = ["the lamp", "a\rb", "c\u2028d"]
    expected = [Request(line, line, text) for line, text in enumerate(texts, start=1)]
    assert requests([(end.join(texts) + last_end).encode()]) == expected
    objects = [json.dumps({"text": text}, ensure_ascii=False) for text in texts]
    assert requests([(end.join(objects) + last_end).encode()]) == expected


@pytest.mark.parametrize(
    ("data", "kind", "texts"),
    [
        (b'\n  \n {"text": "a"}\n{"text": "b"}', "auto", ["a", "b"]),
        (b'a\n{"text": "b"}', "auto", ["a", '{"text": "b"}']),
        (b'{"text": "a"}\nb', "auto", ["a", None]),
        (b'{"text": "a"}', "text", ['{"text": "a"}']),
        (b'a\n{"text": "b"}', "jsonl", [None, "b"]),
        (b'["a"]', "auto", ['["a"]']),
        (b"[USER] a\n{", "auto", ["[USER] a", "{"]),
        (b' [\n  {"text": "a"},\n  {"text": "b"}\n]\n', "auto", ["a", "b"]),
        (b'[{"text": "a"}, {"text": null}]', "auto", ["a", None]),
        (b"[]", "auto", []),
        (gzip.compress(b"a\nb", mtime=0), "auto", ["a", "b"]),
        (gzip.compress(b"text\na\n", mtime=0), "csv", ["a"]),
        (b"text;n\na,b;1\n", "csv", ["a,b"]),
        ("a\nü".encode("utf-16"), "auto", ["a", "ü"]),
        ('{"text": "ü"}'.encode("utf-16"), "auto", ["ü"]),
    ],
)
def test_the_beginning_of_a_stream_decides_unless_told(data: bytes, kind: Kind, texts: list[str | None]) -> None:
    assert [request.text for request in requests([data], kind)] == texts
    assert [request.text for request in requests([bytes([byte]) for byte in data], kind)] == texts


def test_a_stream_in_another_encoding() -> None:
    assert [row.text for row in requests(["ü\n".encode("cp1252")], reading=Reading(encoding="cp1252"))] == ["ü"]
    with pytest.raises(DataError, match="the encoding 'klingon' is not known"):
        requests([b"a"], reading=Reading(encoding="klingon"))


@pytest.mark.parametrize(
    ("line", "identity", "problem"),
    [
        (b'{"text": ', None, "not JSON"),
        (b"not json", None, "not JSON"),
        (b"[" * 100_000, None, "not JSON"),
        (b"1" * 5000, None, "not JSON"),
        (b"[1]", None, "an array came instead of a JSON object"),
        (b"null", None, "null came instead of a JSON object"),
        (b'"text"', None, "a string came instead of a JSON object"),
        (b"{}", None, "no column 'text' among none"),
        (b'{"text": "\xff"}', None, "'text' is not UTF-8 text"),
        (b'{"id": "x", "text": "\\ud800"}', "x", "'text' has half of a surrogate pair"),
        (b'{"id": "\\ud800", "text": "a"}', None, "'id' has half of a surrogate pair"),
        (b'{"id": "x", "text": "a", "text": "b"}', "x", "'text' comes more than once"),
        (b'{"id": "x", "id": "y", "text": "b"}', None, "'id' comes more than once"),
        (b'{"id": "x", "task": "t", "task": "u", "text": "b"}', "x", "'task' comes more than once"),
        (b'{"id": "x", "text": null}', "x", "'text' is null: expected a string"),
        (b'{"id": "x", "text": 3}', "x", "'text' is 3: expected a string"),
        (b'{"id": [1], "text": ["a"]}', [1], "'text' is [\"a\"]: expected a string"),
        (b'{"id": 9, "text": "a", "task": 3}', 9, "'task' is 3: expected a task's name"),
        (b'{"id": 9, "text": "a", "task": ["t"]}', 9, "'task' is [\"t\"]: expected a task's name"),
    ],
)
def test_a_bad_row_becomes_a_problem_and_the_others_stay(
    tmp_path: Path, line: bytes, identity: object, problem: str
) -> None:
    data = b'{"text": "a", "id": 3}\n' + line + b'\n{"text": "b", "id": "last"}\n'
    for found in (requests([data]), in_file(tmp_path / "rows.jsonl", data)):
        before, bad, after = found
        assert before == Request(1, 3, "a")
        assert after == Request(3, "last", "b")
        assert (bad.line, bad.id, bad.text, bad.task) == (2, identity, None, None)
        assert (bad.problem or "").startswith(problem)


def test_columns_that_nobody_reads_do_not_matter(tmp_path: Path) -> None:
    line = b'{"text": "a", "n": NaN, "m": -Infinity, "s": "\\ud800", "b": "\xff", "\xfe": 1, "t": 1, "t": 2}'
    assert requests([line]) == [Request(1, 1, "a")]
    assert in_file(tmp_path / "rows.jsonl", line) == [Request(1, 1, "a")]
    assert in_file(tmp_path / "rows.csv", b"text,n,n,\na,\xff,x,y\n") == [Request(2, 2, "a")]


def test_a_text_that_is_not_utf_8_becomes_a_problem(tmp_path: Path) -> None:
    for found in (requests([b"a\n\xff\xfe\nb"]), in_file(tmp_path / "rows.txt", b"a\n\xff\xfe\nb")):
        first, bad, last = found
        assert (first, last) == (Request(1, 1, "a"), Request(3, 3, "b"))
        assert (bad.id, bad.text) == (2, None)
        assert "not UTF-8 text" in (bad.problem or "")


def test_a_row_is_called_by_its_line_and_never_by_the_id_of_another(tmp_path: Path) -> None:
    assert [row.id for row in requests([b"\na\n\n \nb\n", b"\n\nc"])] == [2, 5, 8]
    assert [row.id for row in in_file(tmp_path / "rows.txt", "\na\n\n \nb\n\n\nc")] == [2, 5, 8]
    some = '{"text": "a"}\n{"text": "b", "id": 1}\n{\n{"text": "c"}\n'
    assert [row.id for row in in_file(tmp_path / "rows.jsonl", some)] == [None, 1, None, None]
    assert [row.id for row in requests([b'{"text": "a", "id": 2}\n{"text": "b"}\n{'])] == [2, None, None]
    assert [row.id for row in in_file(tmp_path / "a.jsonl", '{"text": "a"}\n{\n{"text": "b"}')] == [1, 2, 3]


@pytest.mark.parametrize(
    ("name", "content", "found"),
    [
        ("a.csv", 'id,text,label\n7,"a, b\nc",x\n8,d,y\n', [Request(2, "7", "a, b\nc"), Request(4, "8", "d")]),
        ("a.tsv", "text\tid\na\t1\n", [Request(2, "1", "a")]),
        ("a.json", '[{"text": "a"}, {"text": "b"}]', [Request(1, 1, "a"), Request(2, 2, "b")]),
        ("a.json", '[{"text": "a", "id": 2}, {"text": "b"}]', [Request(1, 2, "a"), Request(2, None, "b")]),
        (
            "a.csv.gz",
            gzip.compress(b"text,task\na,\nb,colour\n", mtime=0),
            [Request(2, 2, "a"), Request(3, 3, "b", "colour")],
        ),
        ("a.txt.gz", gzip.compress(b"a\nb", mtime=0), [Request(1, 1, "a"), Request(2, 2, "b")]),
        ("a", '{"text": "a"}\n', [Request(1, 1, "a")]),
        ("a.log", '[{"text": "a"}]', [Request(1, 1, "a")]),
        ("a:b.txt", "a\n", [Request(1, 1, "a")]),
        ("a.txt", "[1] a\n[2] b", [Request(1, 1, "[1] a"), Request(2, 2, "[2] b")]),
    ],
)
def test_a_file_is_read_by_its_form(tmp_path: Path, name: str, content: bytes | str, found: list[Request]) -> None:
    assert in_file(tmp_path / name, content) == found


def test_parquet_is_read_with_ids_as_json_has_them(tmp_path: Path) -> None:
    path = tmp_path / "a.parquet"
    ids = pa.array([1, None, 3], pa.timestamp("s"))
    pq.write_table(pa.table({"text": ["a", None, "c"], "id": ids, "other": [b"\xff", None, None]}), path)
    first, bad, last = (row for some in read_requests(path) for row in some)
    assert (first, last) == (Request(1, "1970-01-01 00:00:01", "a"), Request(3, "1970-01-01 00:00:03", "c"))
    assert (bad.id, bad.problem) == (None, "'text' is null: expected a string")


@pytest.mark.parametrize(("name", "data"), [("pipe", b"a\nb\n"), ("pipe.csv", b"n,text\n1,a\n2,b\n")])
def test_a_pipe_is_read_as_its_name_says(tmp_path: Path, name: str, data: bytes) -> None:
    path = tmp_path / name
    os.mkfifo(path)
    writer = threading.Thread(target=path.write_bytes, args=(data,))
    writer.start()
    assert [row.text for some in read_requests(path) for row in some] == ["a", "b"]
    writer.join()


def test_a_stream_in_utf_16_without_a_mark() -> None:
    assert [row.text for row in requests(["a\nü".encode("utf-16-le")])] == ["a", "ü"]


def test_a_stream_that_looks_like_csv_is_said() -> None:
    for data, said in ((b"text,label\nit broke,x\n", True), (b"a text, and more\n", False)):
        notes: list[str] = []
        stream = cast(IO[bytes], Chunks([data]))
        assert len([row for some in stream_requests(stream, note=notes.append) for row in some]) >= 1
        assert notes == ["the input begins with 'text', as a CSV file does: use `kind` csv if it is one"] * said


@pytest.mark.parametrize("data", [b"PK\x03\x04abc\n", b"PAR1\x15\x04"])
def test_a_stream_that_is_no_text_is_refused(data: bytes) -> None:
    with pytest.raises(DataError, match="the input is a"):
        requests([data])


def test_partitions_and_splits_are_read(tmp_path: Path) -> None:
    folder = tmp_path / "text=hello" / "task=size"
    folder.mkdir(parents=True)
    assert in_file(folder / "a.csv", "id\n1\n") == [Request(2, "1", "hello", "size")]
    (tmp_path / "a.json").write_text('{"train": [{"text": "a"}], "test": [{"text": "b"}]}')
    found = read_requests(Path(f"{tmp_path}/a.json:test"), note=lambda _: None)
    assert [row.text for some in found for row in some] == ["b"]
    with pytest.raises(DataError, match="is a folder: name a file, or use 'edgetune score'"):
        list(read_requests(tmp_path))


@pytest.mark.parametrize(
    ("name", "content", "told"),
    [
        ("a.csv", "txt,label\na,b\n", "no column 'text' among txt, label: did you mean 'txt'"),
        ("a.csv", "text,text\na,b\n", "has the column 'text' more than once"),
        ("a.csv", "", "is empty"),
        ("a.bin", b"\x00\x01 text", "is not text: it has zero bytes"),
        ("a.json", '{"train": [{"text": "a"}], "test": []}', "has the splits train, test: name one"),
        ("a.parquet", "text\na\n", "cannot be read as Parquet"),
        ("a.csv", b"PAR1\x15\x04", "is a Parquet file: name it .parquet"),
        ("a.csv", b"PK\x03\x04xxxx", "a zip archive or an Excel workbook"),
        ("a.jsonl", "version https://git-lfs.github.com/spec/v1\n", "a Git LFS pointer: run git lfs pull"),
        ("a.csv.gz", gzip.compress(b"text\na\n" * 1000, mtime=0)[:-20], "cannot be read"),
    ],
)
def test_files_that_cannot_be_used_are_named(tmp_path: Path, name: str, content: bytes | str, told: str) -> None:
    with pytest.raises(DataError, match=told) as caught:
        in_file(tmp_path / name, content)
    assert str(tmp_path / name) in str(caught.value)


def test_a_file_that_is_not_there_is_named(tmp_path: Path) -> None:
    for name in ("absent.txt", "absent.csv", "absent.parquet"):
        with pytest.raises(DataError, match=name):
            list(read_requests(tmp_path / name))


def test_a_line_without_end_is_not_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("edgetune.data.requests.MOST_LINE_BYTES", 1_000)
    stream = cast(IO[bytes], Chunks([b"a\n", *[b"b" * 900] * 50, b"\nc\n"]))
    first, bad, last = (row for some in stream_requests(stream, "text") for row in some)
    assert (first.text, bad.text, last.text) == ("a", None, "c")
    assert bad.problem == "a line of more than 1,000 characters"


def test_a_slow_stream_is_answered_as_it_comes() -> None:
    stream = Chunks([b"a\nb\nc", b"c\n", b"d"])
    found = stream_requests(cast(IO[bytes], stream))
    assert [request.text for request in next(found)] == ["a", "b"]
    assert stream.reads == 1
    assert [request.text for request in next(found)] == ["cc"]
    assert stream.reads == 2
    assert [request.text for request in next(found)] == ["d"]
    assert list(found) == []


@pytest.mark.parametrize("data", [b"", b"\n", b" \n\t\n\r\n", b"\xef\xbb\xbf\n"])
@pytest.mark.parametrize("kind", ["auto", "jsonl", "text"])
def test_no_rows_give_no_requests(data: bytes, kind: Kind) -> None:
    assert requests([data], kind) == []


PAIRED = [{"text": "a", "text_pair": "b", "q": "c"}, {"text": "d", "text_pair": "", "q": "e"}]


@pytest.mark.parametrize("name", ["a.jsonl", "a.json", "a.csv", "a.tsv", "a.parquet"])
def test_second_texts_are_read_if_they_are_there(tmp_path: Path, name: str) -> None:
    path = tmp_path / name
    if name == "a.parquet":
        pq.write_table(pa.Table.from_pylist(PAIRED), path)
    elif name == "a.jsonl":
        path.write_text("".join(json.dumps(row) + "\n" for row in PAIRED))
    elif name == "a.json":
        path.write_text(json.dumps(PAIRED))
    else:
        rows = [list(PAIRED[0]), *(list(row.values()) for row in PAIRED)]
        path.write_text("".join(("\t" if name == "a.tsv" else ",").join(row) + "\n" for row in rows))
    for column, found in (("text_pair", ["b", None]), ("q", ["c", "e"]), ("other", [None, None])):
        rows_read = [row for some in read_requests(path, text_pair_column=column) for row in some]
        assert [(row.text, row.text_pair, row.problem) for row in rows_read] == [
            (text, second, None) for text, second in zip("ad", found, strict=True)
        ]


@pytest.mark.parametrize(
    ("line", "second", "problem"),
    [
        (b'{"text": "a", "text_pair": "b"}', "b", None),
        (b'{"text": "a", "text_pair": null}', None, None),
        (b'{"text": "a", "text_pair": ""}', None, None),
        (b'{"text": "a"}', None, None),
        (b'{"text": "a", "text_pair": 3}', None, "'text_pair' is 3: expected a string"),
        (b'{"text": "a", "text_pair": ["b"]}', None, "'text_pair' is [\"b\"]: expected a string"),
        (b'{"text": "a", "text_pair": "\xff"}', None, "'text_pair' is not UTF-8 text"),
        (b'{"text": "a", "text_pair": "b", "text_pair": "c"}', None, "'text_pair' comes more than once"),
    ],
)
def test_second_texts_of_a_stream(tmp_path: Path, line: bytes, second: str | None, problem: str | None) -> None:
    (tmp_path / "a.jsonl").write_bytes(line)
    for (found,) in (requests([line]), requests([b"[", line, b"]"]), in_file(tmp_path / "a.jsonl", line)):
        assert (found.id, found.text_pair) == (1, second)
        # It matters only to a task that takes pairs.
        assert (found.text, found.problem) == ("a", None)
        told = found.pair_problem
        assert (told or "").startswith(problem or "") and bool(told) == bool(problem)


def test_lines_of_text_have_no_second_text() -> None:
    assert requests([b"a text_pair\n"]) == [Request(1, 1, "a text_pair")]


@pytest.mark.parametrize("column", ["id", "task", "text_pair"])
def test_columns_that_are_read_come_once(tmp_path: Path, column: str) -> None:
    with pytest.raises(DataError, match=f"has the column '{column}' more than once: rename one of them"):
        in_file(tmp_path / "a.csv", f"text,{column},{column}\na,b,c\n")
