"""Input files are cut into shards that together contain the whole file, whatever its contents."""

from __future__ import annotations

import csv
import gzip
import io
import json
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st
from reading import read_shards

from edgetune.data import sources
from edgetune.data.sources import Source
from edgetune.data.text_files import Reading
from edgetune.scoring import inputs
from edgetune.scoring.shards import Shard
from edgetune_runtime.errors import DataError


def scan(paths: list[Path], shard_rows: int, reading: Reading = Reading()) -> tuple[pa.Schema, list[Shard]]:  # noqa: B008
    return inputs.scan(find(paths), reading, ["text"], shard_rows, lambda number: None, lambda note: None)


def find(paths: list[Path]) -> list[Source]:
    return sources.find(paths, lambda note: None)


def read_all(
    paths: list[Path],
    shard_rows: int = 3,
    reading: Reading = Reading(),  # noqa: B008
) -> tuple[pa.Table, list[str | None], list[str | None]]:
    """All rows of files, read shard by shard: the columns, the texts, and the problems."""
    columns, found = read_shards(paths, shard_rows, reading=reading)
    texts = [text for rows in found for text in rows.texts]
    problems = [rows.problems.get(place) for rows in found for place in range(rows.table.num_rows)]
    return pa.Table.from_batches([rows.table for rows in found], columns), texts, problems


def write(path: Path, content: str | bytes) -> Path:
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return path


def lines(*records: Any) -> str:
    return "".join(f"{json.dumps(record, ensure_ascii=False)}\n" for record in records)


@pytest.mark.parametrize("shard_rows", [1, 2, 5, 1000])
@pytest.mark.parametrize("ending", [".jsonl", ".csv", ".parquet"])
def test_shards_together_are_the_file(tmp_path: Path, ending: str, shard_rows: int) -> None:
    texts = [f"text, {place}\nand more" for place in range(11)]
    path = tmp_path / f"rows{ending}"
    if ending == ".parquet":
        pq.write_table(pa.table({"id": list(range(11)), "text": texts}), path, row_group_size=4)
    elif ending == ".csv":
        with path.open("w", newline="") as file:
            csv.writer(file).writerows([["id", "text"], *enumerate(texts)])
    else:
        write(path, lines(*({"id": place, "text": text} for place, text in enumerate(texts))))
    table, found, problems = read_all([path], shard_rows)
    assert found == texts == table["text"].to_pylist()
    assert [int(value) for value in table["id"].to_pylist()] == list(range(11))
    assert problems == [None] * 11


def test_numbers_of_rows_are_those_of_the_file(tmp_path: Path) -> None:
    path = write(tmp_path / "rows.csv", 'text,n\n"two\nlines",1\n\nb,2\nc,3\n')
    _, found = read_shards([path], 2)
    assert [number for rows in found for number in rows.numbers] == [2, 5, 6]


@pytest.mark.parametrize(
    ("values", "kind", "stored"),
    [
        ([1, 2, None], pa.int64(), [1, 2, None]),
        ([2**63 - 1, -(2**63), 0], pa.int64(), [2**63 - 1, -(2**63), 0]),
        ([1, 2.5, None], pa.float64(), [1.0, 2.5, None]),
        ([2**53 + 1, 2.5, 1], pa.string(), ["9007199254740993", "2.5", "1"]),
        ([2**63, 1, None], pa.string(), ["9223372036854775808", "1", None]),
        ([True, False, None], pa.bool_(), [True, False, None]),
        ([True, 1, 0], pa.string(), ["true", "1", "0"]),
        (["a", "é", None], pa.string(), ["a", "é", None]),
        (["a", 1, {"b": [1]}], pa.string(), ["a", "1", '{"b": [1]}']),
        ([[1], [2], None], pa.string(), ["[1]", "[2]", None]),
        ([None, None, None], pa.string(), [None, None, None]),
    ],
)
def test_a_jsonl_column_keeps_each_value(tmp_path: Path, values: list[Any], kind: pa.DataType, stored: Any) -> None:
    path = write(tmp_path / "rows.jsonl", lines(*({"text": "x", "value": value} for value in values)))
    table, _, _ = read_all([path], shard_rows=1)
    assert table.schema.field("value").type == kind
    assert table["value"].to_pylist() == stored


@pytest.mark.parametrize(
    ("line", "problem"),
    [
        (b"{", "not JSON"),
        (b"[1]", "an array came instead of a JSON object"),
        (b'{"text": null}', "null"),
        (b"{}", "null"),
        (b'{"text": 5}', "'text' is 5: expected a string"),
        (b'{"text": {"a": 1}}', "'text' is {\"a\": 1}: expected a string"),
        (b'{"text": NaN}', "'text' is NaN: expected a string"),
        (b'{"text": "\\ud800"}', "half of a surrogate pair"),
        (b'{"text": "c", "n": "\\ud800"}', "'n' has half of a surrogate pair"),
        (b'{"text": "c", "n": ["\\ud800"]}', "'n' has half of a surrogate pair"),
        (b'{"text": "c", "\\ud800": 1}', "name of a column has half of a surrogate pair"),
        (b'{"text": "c", "n": 1, "n": 2}', "'n' comes more than once"),
        (b'{"text": "\xff"}', "'text' is not UTF-8 text"),
        (b"[" * 100_000, "nested too deeply"),
        (b'{"text": "a", "n": ' + b"[" * 100 + b"]" * 100 + b"}", "nested too deeply"),
        (b'{"text": ' + b"9" * 5000 + b"}", "not JSON"),
    ],
)
def test_a_bad_line_of_json_costs_that_line_only(tmp_path: Path, line: bytes, problem: str) -> None:
    path = write(tmp_path / "rows.jsonl", b'{"text": "a"}\n' + line + b'\n{"text": "b"}\n')
    _, texts, problems = read_all([path])
    assert texts == ["a", None, "b"]
    assert problems[0] is problems[2] is None
    assert problem in str(problems[1])


@pytest.mark.parametrize(
    ("line", "text", "problem"),
    [
        (b"a,b,c", "a", "3 fields where the header has 2"),
        (b"a", "a", "1 field where the header has 2"),
        (b"\xff\xfe,b", "��", "'text' is not UTF-8"),
        (b"a,\xff", "a", "'n' is not UTF-8"),
        (b'"a"b,2', None, "a quote closes inside a field: double"),
        (b'"a,2', None, "a quote opens here and never closes"),
    ],
)
def test_a_bad_line_of_csv_costs_that_line_only(tmp_path: Path, line: bytes, text: str | None, problem: str) -> None:
    path = write(tmp_path / "rows.csv", b"text,n\nx,1\n" + line + b"\ny,2\n")
    table, texts, problems = read_all([path])
    assert texts == ["x", None, "y"]
    assert table["text"].to_pylist() == ["x", text, "y"]
    assert problem in str(problems[1])


def test_strings_of_parquet_that_are_none_cost_their_rows_only(tmp_path: Path) -> None:
    raw = pa.array([b"a", b"\xff\xfe", None, b"d"], pa.binary())
    pq.write_table(pa.table({"text": raw.view(pa.string())}), tmp_path / "rows.parquet")
    _, texts, problems = read_all([tmp_path / "rows.parquet"])
    assert texts == ["a", None, None, "d"]
    assert [problem and problem.split(" (")[0] for problem in problems] == [
        None,
        "'text' is not UTF-8 text",
        "'text' is null: expected a string",
        None,
    ]


@pytest.mark.parametrize(
    "column",
    [
        pa.array(["a", "b", None], pa.large_string()),
        pa.array(["a", "b", None]).dictionary_encode(),
        pa.array([b"a", b"b", None], pa.binary()),
        pa.array([b"a", b"b", None], pa.large_binary()),
    ],
)
def test_texts_of_parquet_may_have_any_type_of_text(tmp_path: Path, column: pa.Array) -> None:
    pq.write_table(pa.table({"text": column}), tmp_path / "rows.parquet")
    table, texts, _ = read_all([tmp_path / "rows.parquet"], shard_rows=2)
    assert texts == ["a", "b", None]
    assert table.schema.field("text").type == column.type


def test_a_byte_order_mark_and_windows_line_ends(tmp_path: Path) -> None:
    table, texts, problems = read_all(
        [write(tmp_path / "a.csv", b"\xef\xbb\xbftext,n\r\na,1\r\nb,2\r\n")], shard_rows=1
    )
    assert (texts, table["n"].to_pylist(), problems) == (["a", "b"], ["1", "2"], [None, None])
    jsonl = write(tmp_path / "a.jsonl", b'\xef\xbb\xbf{"text": "a"}\r\n{"text": "b"}')
    assert read_all([jsonl], shard_rows=1)[1] == ["a", "b"]


def test_columns_of_several_jsonl_files_are_put_together(tmp_path: Path) -> None:
    one = write(tmp_path / "1.jsonl", lines({"text": "a", "n": 1}))
    two = write(tmp_path / "2.jsonl", lines({"n": 2.5, "text": "b", "m": "x"}))
    table, _, _ = read_all([one, two])
    assert table.to_pylist() == [{"text": "a", "n": 1.0, "m": None}, {"text": "b", "n": 2.5, "m": "x"}]


def test_a_shard_is_small_where_rows_are_large(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for module in ("text_shards", "parquet_shards"):
        monkeypatch.setattr(f"edgetune.scoring.{module}.SHARD_BYTES", 5_000)
    texts = ["x" * 1_900 for _ in range(9)]
    path = write(tmp_path / "rows.jsonl", lines(*({"text": text} for text in texts)))
    assert [one.rows for one in scan([path], 1000)[1]] == [3, 3, 3]
    table = pa.table({"text": [f"{place:06d}" * 300 for place in range(9)]})
    pq.write_table(table, tmp_path / "rows.parquet", use_dictionary=False)
    assert max(one.rows for one in scan([tmp_path / "rows.parquet"], 1000)[1]) <= 3


@pytest.mark.parametrize(
    ("name", "content", "told"),
    [
        ("a.txt", "x", "expected one of .parquet, .pq, .csv"),
        ("a.parquet", "no Parquet", "cannot be read as Parquet"),
        ("a.csv", "", "empty"),
        ("missing.jsonl", None, "there is no such file"),
        ("missing.parquet", None, "there is no such file"),
        ("a.csv", 'text,"n\n1,2\n', "line 1: a quote opens here and never closes"),
        ("a.csv", b"text,\xff\n1,2\n", "line 1: not UTF-8 text"),
        ("a.json", '{"train": [{"text": "a"}], "test": []}', "has the splits train, test"),
        ("a.jsonl", lines(*({f"column{place}": 1} for place in range(3000))), "at most 2,000"),
    ],
)
def test_files_that_cannot_be_used(tmp_path: Path, name: str, content: str | None, told: str) -> None:
    if content is not None:
        write(tmp_path / name, content)
    with pytest.raises(DataError, match=told):
        scan([tmp_path / name], 10)


def test_a_line_without_end_is_not_read_to_its_end(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("edgetune.data.lines.MOST_LINE_BYTES", 1_000)
    with pytest.raises(DataError, match="line 2: more than 1,000 bytes"):
        scan([write(tmp_path / "a.jsonl", lines({"text": "a"}, {"text": "b" * 2_000}))], 10)


def test_columns_of_several_files_are_put_together(tmp_path: Path) -> None:
    write(tmp_path / "1.csv", "text,a\n1,2\n")
    write(tmp_path / "2.csv", "b;text\n3;4\n")
    table, _, _ = read_all([tmp_path])
    assert table.to_pylist() == [{"text": "1", "a": "2", "b": None}, {"text": "4", "a": None, "b": "3"}]


def parquet(path: Path, **columns: Any) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(pa.table(columns), path)
    return path


@pytest.mark.parametrize(
    ("one", "two", "kind"),
    [
        (pa.array([1, 2**53]), pa.array([0.5]), pa.float64()),
        (pa.array([1], pa.int8()), pa.array([2**40]), pa.int64()),
        (pa.array([0.1], pa.float32()), pa.array([0.1, float("nan")]), pa.float64()),
        (pa.array([None], pa.null()), pa.array(["x"]), pa.string()),
        (pa.array(["x"]), pa.array(["y"], pa.large_string()), pa.large_string()),
        (pa.array(["x"]).dictionary_encode(), pa.array(["y"]), pa.string()),
        (pa.array([5], pa.uint64()), pa.array([-1]), pa.int64()),
        (pa.array([1], pa.timestamp("ms")), pa.array([1], pa.timestamp("us")), pa.timestamp("us")),
    ],
)
def test_types_of_parquet_files_are_united(tmp_path: Path, one: pa.Array, two: pa.Array, kind: pa.DataType) -> None:
    parquet(tmp_path / "1.parquet", text=["a"] * len(one), n=one)
    parquet(tmp_path / "2.parquet", n=two, text=["b"] * len(two), more=[1] * len(two))
    table, texts, _ = read_all([tmp_path])
    assert texts == ["a"] * len(one) + ["b"] * len(two)
    assert table.schema.field("n").type == kind
    assert repr(table["n"].to_pylist()) == repr(one.cast(kind).to_pylist() + two.cast(kind).to_pylist())
    assert table["more"].to_pylist() == [None] * len(one) + [1] * len(two)


@pytest.mark.parametrize(
    ("one", "two"),
    [
        (pa.array([2**53 + 1]), pa.array([0.5])),
        (pa.array([2**63], pa.uint64()), pa.array([-1])),
        (pa.array([1]), pa.array(["1"])),
        (pa.array([True]), pa.array([1])),
    ],
)
def test_types_that_would_lose_a_value_are_refused(tmp_path: Path, one: pa.Array, two: pa.Array) -> None:
    parquet(tmp_path / "1.parquet", text=["a"], n=one)
    parquet(tmp_path / "2.parquet", text=["b"], n=two)
    with pytest.raises(DataError, match=r"\.parquet does not go with .*1\.parquet \(.*n.*one after the other"):
        scan([tmp_path], 10)


def test_folders_of_partitions_are_columns(tmp_path: Path) -> None:
    data = tmp_path / "data"
    for place, folder in enumerate(("lang=de/day=01", "lang=a%2Fb/day=__HIVE_DEFAULT_PARTITION__", "lang=en")):
        parquet(data / folder / "part.parquet", text=[str(place)])
    table, _, _ = read_all([data])
    rows = {row["text"]: (row["lang"], row["day"]) for row in table.to_pylist()}
    assert rows == {"0": ("de", "01"), "1": ("a/b", None), "2": ("en", None)}
    assert table.schema.field("day").type == pa.string()
    for file in data.rglob("*.parquet"):
        write(file.with_suffix(".jsonl"), lines({"text": pq.read_table(file, partitioning=None)["text"][0].as_py()}))
        file.unlink()
    assert {row["text"]: (row["lang"], row["day"]) for row in read_all([data])[0].to_pylist()} == rows


def test_a_column_of_the_file_stands_before_one_of_its_path(tmp_path: Path) -> None:
    parquet(tmp_path / "lang=de" / "a.parquet", text=["a"], lang=["de-AT"])
    assert read_all([tmp_path])[0].to_pylist() == [{"text": "a", "lang": "de-AT"}]


def test_columns_without_a_name_or_with_one_twice(tmp_path: Path) -> None:
    write(tmp_path / "a.csv", ",text,n,n,\n1,a,2,3,4\n")
    names = ["Unnamed: 0", "text", "n", "n.1", "Unnamed: 4"]
    assert read_all([tmp_path / "a.csv"])[0].to_pylist() == [dict(zip(names, "1a234", strict=True))]
    columns = [pa.array([text]) for text in "1a234"]
    pq.write_table(pa.Table.from_arrays(columns, ["", "text", "n", "n", ""]), tmp_path / "a.parquet")
    assert read_all([tmp_path / "a.parquet"])[0].to_pylist() == [dict(zip(names, "1a234", strict=True))]


@pytest.mark.parametrize("ending", [".csv.gz", ".jsonl.gz", ".json", ".csv"])
@pytest.mark.parametrize("backwards", [False, True])
def test_what_can_only_be_read_onwards_is_read_in_any_order(tmp_path: Path, ending: str, backwards: bool) -> None:
    texts = [f"text {place}\nß" for place in range(20)]
    rows = [{"text": text} for text in texts]
    out = io.StringIO(newline="")
    csv.writer(out).writerows([["text"], *([text] for text in texts)])
    content = {".csv": out.getvalue(), ".jsonl": lines(*rows), ".json": json.dumps(rows, indent=2)}
    data = content["." + ending.split(".")[1]].encode("utf-16" if ending == ".csv" else "utf-8")
    path = write(tmp_path / f"a{ending}", gzip.compress(data) if ending.endswith(".gz") else data)
    columns, cut = scan([path], 3)
    reader = inputs.reader(cut[0], columns, ["text"])
    order = cut[::-1] if backwards else cut
    found = {shard.first: [text for rows in reader.read(shard) for text in rows.texts] for shard in order}
    reader.close()
    assert [text for first in sorted(found) for text in found[first]] == texts


def test_a_text_column_that_comes_twice_is_refused(tmp_path: Path) -> None:
    write(tmp_path / "a.csv", "text,label,text\na,x,b\n")
    pq.write_table(pa.Table.from_arrays([pa.array(["a"]), pa.array(["b"])], ["text", "text"]), tmp_path / "a.parquet")
    for name in ("a.csv", "a.parquet"):
        with pytest.raises(DataError, match=f"{name} has the column 'text' more than once"):
            scan([tmp_path / name], 10)


@pytest.mark.parametrize(
    ("line", "problem"),
    [
        ('{"\\ud800": 1, "\\ud800": 2, "text": "a"}', "comes more than once"),
        ('{"text": "a", "edgetune_error": null, "n": {"\\ud800": 1}}', "'n' has half of a surrogate pair"),
    ],
)
def test_names_that_are_no_text_cost_their_rows_only(tmp_path: Path, line: str, problem: str) -> None:
    _, texts, problems = read_all([write(tmp_path / "a.jsonl", f'{line}\n{{"text": "b"}}\n')])
    assert texts == [None, "b"]
    assert problem in str(problems[0])


def test_a_chunk_is_not_larger_than_the_memory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("edgetune.data.records._CHUNK_CHARACTERS", 100)
    path = write(tmp_path / "a.jsonl", lines(*({"text": "x" * 60} for _ in range(10))))
    _, found = read_shards([path], shard_rows=100)
    assert [rows.table.num_rows for rows in found] == [2] * 5


def test_a_file_is_read_in_the_encoding_that_is_named(tmp_path: Path) -> None:
    path = write(tmp_path / "a.csv", "text\n£5\n".encode("cp1252"))
    assert read_all([path])[1] == [None]
    assert read_all([path], reading=Reading(encoding="cp1252"))[1] == ["£5"]


def test_a_folder_is_its_files_in_order(tmp_path: Path) -> None:
    for name in ("b.jsonl", "a/c.jsonl", "_manifest.jsonl", ".hidden.jsonl", "_x/d.jsonl", "notes.txt"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        write(tmp_path / name, lines({"text": name}))
    assert [source.path for source in find([tmp_path])] == [tmp_path / "a/c.jsonl", tmp_path / "b.jsonl"]


@pytest.mark.parametrize(("names", "told"), [(["a.csv", "b.jsonl"], "several formats"), (["a.csv", "a.csv"], "twice")])
def test_inputs_that_do_not_go_together(tmp_path: Path, names: list[str], told: str) -> None:
    with pytest.raises(DataError, match=told):
        find([write(tmp_path / name, "text\n") for name in names])


@pytest.mark.parametrize("name", ["b.csv.zip", "b.xlsx", "b.arrow", "b.parquet.gz"])
def test_data_of_a_folder_that_is_not_read_is_not_passed_over(tmp_path: Path, name: str) -> None:
    write(tmp_path / "a.csv", "text\nx\n")
    write(tmp_path / name, "")
    with pytest.raises(DataError, match=f"{name} is not read: unpack it, save it"):
        find([tmp_path])


def test_links_of_a_folder_are_followed(tmp_path: Path) -> None:
    (tmp_path / "data").mkdir()
    (tmp_path / "elsewhere").mkdir()
    write(tmp_path / "elsewhere" / "a.csv", "text\nx\n")
    (tmp_path / "data" / "more").symlink_to(tmp_path / "elsewhere")
    assert [source.path for source in find([tmp_path / "data"])] == [tmp_path / "data" / "more" / "a.csv"]
    (tmp_path / "data" / "gone.csv").symlink_to(tmp_path / "nothing.csv")
    with pytest.raises(DataError, match=r"gone\.csv cannot be read"):
        find([tmp_path / "data"])


def test_nesting_up_to_a_hundred_is_kept(tmp_path: Path) -> None:
    path = write(tmp_path / "a.jsonl", '{"text": "a", "n": ' + "[" * 99 + "]" * 99 + "}\n")
    assert read_all([path])[2] == [None]


def test_a_part_of_a_row_group_that_is_read_late(tmp_path: Path) -> None:
    path = tmp_path / "rows.parquet"
    pq.write_table(pa.table({"text": [f"t{place}" for place in range(1000)]}), path, row_group_size=700)
    columns, cut = scan([path], 300)
    texts = [text for rows in inputs.reader(cut[2], columns, ["text"]).read(cut[2]) for text in rows.texts]
    assert texts == [f"t{place}" for place in range(600, 900)]


def test_a_folder_that_leads_to_itself_is_read_once(tmp_path: Path) -> None:
    write(tmp_path / "a.csv", "text\nx\n")
    for name in ("one", "two"):
        (tmp_path / name).symlink_to(tmp_path)
    assert [source.path for source in find([tmp_path])] == [tmp_path / "a.csv"]


def test_what_of_a_folder_is_not_read_is_said(tmp_path: Path) -> None:
    for name in ("a.csv", "part-00001", "b.psv", "c.txt", "d.deflate"):
        write(tmp_path / name, "text\nx\n")
    notes: list[str] = []
    assert [source.path.name for source in sources.find([tmp_path], notes.append)] == ["a.csv"]
    assert notes == [f"{tmp_path}: 4 files are not read: b.psv, c.txt, d.deflate, …"]
    write(tmp_path / "a.csv.gz", "")
    with pytest.raises(DataError, match=r"a\.csv\.gz and .*a\.csv are one file, packed and not"):
        find([tmp_path])


def test_splits_of_one_file_are_two_inputs(tmp_path: Path) -> None:
    write(tmp_path / "a.json", '{"train": [{"text": "a"}], "test": [{"text": "b"}]}')
    assert read_all([Path(f"{tmp_path}/a.json:test"), Path(f"{tmp_path}/a.json:train")])[1] == ["b", "a"]


def test_an_empty_folder(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="has no data"):
        find([tmp_path])


@pytest.mark.parametrize("ending", [".jsonl", ".csv", ".parquet"])
def test_a_file_that_changed_since_the_scan_is_refused(tmp_path: Path, ending: str) -> None:
    path = tmp_path / f"rows{ending}"

    def fill(text: str) -> None:
        if ending == ".parquet":
            pq.write_table(pa.table({"text": [text]}), path)
        else:
            write(path, f"text\n{text}\n" if ending == ".csv" else lines({"text": text}))

    fill("a")
    columns, (one,) = scan([path], 10)
    fill("b")
    with pytest.raises(DataError, match="changed while it was scored"):
        list(inputs.reader(one, columns, ["text"]).read(one))


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner, max_size=3),
    max_leaves=5,
)


@given(st.lists(st.dictionaries(st.sampled_from(["text", "a", "b"]), json_values), min_size=1, max_size=12))
def test_any_json_comes_back(tmp_path_factory: pytest.TempPathFactory, records: list[dict[str, Any]]) -> None:
    path = write(tmp_path_factory.mktemp("any") / "rows.jsonl", "".join(json.dumps(one) + "\n" for one in records))
    columns, _ = scan([path], 3)
    if not columns.names:
        return
    table, texts, problems = read_all([path])
    for record, row, text, problem in zip(records, table.to_pylist(), texts, problems, strict=True):
        value = record.get("text")
        assert text == (value if isinstance(value, str) else None)
        assert (problem is None) == isinstance(value, str)
        for name, stored in row.items():
            wanted = record.get(name)
            same = stored == wanted or (isinstance(stored, str) and json.loads(stored) == wanted)
            assert same, (name, stored, wanted)


@given(st.lists(st.lists(st.text(st.characters(codec="utf-8"), max_size=6), min_size=2, max_size=2), max_size=12))
def test_any_csv_is_read_as_the_csv_module_reads_it_whole(
    tmp_path_factory: pytest.TempPathFactory, records: list[list[str]]
) -> None:
    buffer = io.StringIO(newline="")
    csv.writer(buffer).writerows([["text", "n"], *records])
    path = write(tmp_path_factory.mktemp("any") / "rows.csv", buffer.getvalue())
    table, texts, problems = read_all([path], shard_rows=2)
    assert [list(row.values()) for row in table.to_pylist()] == records
    assert texts == [record[0] for record in records]
    assert problems == [None] * len(records)


@given(st.binary(max_size=200))
def test_any_bytes_are_rows(tmp_path_factory: pytest.TempPathFactory, data: bytes) -> None:
    folder = tmp_path_factory.mktemp("any")
    for path in (
        write(folder / "rows.csv", b"text,n\n" + data),
        write(folder / "rows.jsonl", b'{"text": "x"}\n' + data),
    ):
        table, texts, problems = read_all([path])
        table.validate(full=True)
        assert [text is None for text in texts] == [problem is not None for problem in problems]
