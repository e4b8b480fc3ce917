"""`edgetune score`: answers equal the engine's, and an interrupted run ends with the same bytes."""

from __future__ import annotations

import csv
import errno
import gzip
import io
import json
import os
import shutil
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.dataset
import pyarrow.parquet as pq
import pytest
from click.testing import CliRunner, Result
from conftest import TEXTS, MakeTask

from edgetune.cli import cli
from edgetune.scoring import parts
from edgetune.scoring.local import make_parts
from edgetune.scoring.plan import Settings
from edgetune.scoring.run import score
from edgetune.scoring.worker import Job, Worker
from edgetune_runtime import Bundle, Engine, files
from edgetune_runtime.errors import BundleError, DataError, EdgetuneError, TaskError, TextError

TASKS = ("size", "colour")
"""Not in alphabetical order."""

ROWS = [{"id": place, "text": TEXTS[place % len(TEXTS)], "source": f"s{place % 3}"} for place in range(40)]


@pytest.fixture
def rows_file(tmp_path: Path) -> Path:
    path = tmp_path / "rows.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in ROWS))
    return path


def settings(bundle: Path, **changed: Any) -> Settings:
    return Settings(**{"bundle": bundle, "tasks": ("colour",), **changed})


def run(*arguments: object) -> Result:
    return CliRunner().invoke(cli, ["score", *map(str, arguments)])


def read(folder: Path) -> pa.Table:
    """A folder, read as by other programs."""
    return pyarrow.dataset.dataset(folder, format="parquet").to_table()


def contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


@pytest.fixture(scope="module")
def unbroken(bundle_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    """The output of an uninterrupted run: `rows.jsonl` in parts of five rows."""
    folder = tmp_path_factory.mktemp("unbroken")
    (folder / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in ROWS))
    chosen = settings(bundle_folder, tasks=TASKS)
    score(chosen, [folder / "rows.jsonl"], folder / "out", make_parts, 1, shard_rows=5)
    return contents(folder / "out")


@pytest.mark.parametrize("all_scores", [False, True])
@pytest.mark.parametrize("precision", [None, "fp32"])
def test_answers_are_the_engines(
    bundle_folder: Path, rows_file: Path, tmp_path: Path, precision: str | None, all_scores: bool
) -> None:
    chosen = settings(bundle_folder, tasks=("colour", "size"), precision=precision, all_scores=all_scores)
    summary = score(chosen, [rows_file], tmp_path / "out", make_parts, 2, shard_rows=7)
    assert (summary.rows, summary.parts, summary.errors) == (40, 6, 0)
    table = read(tmp_path / "out")
    assert table.select(["id", "text", "source"]).to_pylist() == ROWS
    with Engine(bundle_folder, precision) as engine:
        for task in ("colour", "size"):
            results = engine.classify([row["text"] for row in ROWS], task)
            assert table[f"{task}_label"].to_pylist() == [result.label for result in results]
            assert table[f"{task}_status"].to_pylist() == [result.status for result in results]
            best = np.float32([result.scores[result.best] for result in results])
            assert np.array_equal(table[f"{task}_score"].to_numpy(), best)
            if all_scores:
                wanted = [{label: float(np.float32(x)) for label, x in result.scores.items()} for result in results]
                assert table[f"{task}_scores"].to_pylist() == wanted
    assert table["edgetune_error"].to_pylist() == [None] * 40
    assert ("colour_scores" in table.column_names) == all_scores


@pytest.mark.parametrize("workers", [1, 3])
@pytest.mark.parametrize("there", [0, 1, 4])
def test_a_run_goes_on_where_it_ended(
    bundle_folder: Path, rows_file: Path, tmp_path: Path, unbroken: dict[str, bytes], workers: int, there: int
) -> None:
    out = tmp_path / "out"
    out.mkdir()
    names = sorted(name for name in unbroken if name.startswith("part-"))
    for name in names[:there]:
        (out / name).write_bytes(unbroken[name])
    for name in (names[-1], parts.MANIFEST):
        (out / f".{name}.x1y2.partial").write_bytes(b"half")
    summary = score(settings(bundle_folder, tasks=TASKS), [rows_file], out, make_parts, workers, shard_rows=5)
    assert (summary.parts, summary.parts_made, summary.rows_made) == (8, 8 - there, 40 - 5 * there)
    assert contents(out) == unbroken


def test_a_part_that_is_torn_is_made_again(
    bundle_folder: Path, rows_file: Path, tmp_path: Path, unbroken: dict[str, bytes]
) -> None:
    out = tmp_path / "out"
    out.mkdir()
    for name, data in unbroken.items():
        (out / name).write_bytes(data)
    torn = sorted(name for name in unbroken if name.startswith("part-"))[3]
    (out / torn).write_bytes(unbroken[torn][:-9])
    summary = score(settings(bundle_folder, tasks=TASKS), [rows_file], out, make_parts, 1, shard_rows=5)
    assert summary.parts_made == 1
    assert contents(out) == unbroken


def test_a_run_that_is_done_does_nothing(
    bundle_folder: Path, rows_file: Path, tmp_path: Path, unbroken: dict[str, bytes]
) -> None:
    out = tmp_path / "out"
    out.mkdir()
    for name, data in unbroken.items():
        (out / name).write_bytes(data)
    chosen = settings(bundle_folder, tasks=TASKS)
    summary = score(chosen, [rows_file], out, None, 1, shard_rows=5)  # type: ignore[arg-type]
    assert (summary.parts_made, summary.rows) == (0, 40)
    assert contents(out) == unbroken


@pytest.mark.parametrize(
    "changed",
    [
        {"tasks": ("size",)},
        {"tasks": ("colour", "size")},
        {"precision": "fp32"},
        {"min_score": 0.5},
        {"all_scores": True},
        {"most_characters": 10},
        {"text_column": "source"},
    ],
    ids=lambda changed: next(iter(changed)),
)
def test_parts_of_other_settings_are_other_parts(
    bundle_folder: Path, rows_file: Path, tmp_path: Path, changed: dict[str, Any]
) -> None:
    out = tmp_path / "out"
    score(settings(bundle_folder), [rows_file], out, make_parts, 1, shard_rows=40)
    before = contents(out)
    with pytest.raises(DataError, match="holds 1 parts of another run"):
        score(settings(bundle_folder, **changed), [rows_file], out, make_parts, 1, shard_rows=40)
    assert contents(out) == before
    summary = score(settings(bundle_folder, **changed), [rows_file], out, make_parts, 1, shard_rows=40, overwrite=True)
    assert summary.parts_made == 1
    assert len(list(out.glob("*.parquet"))) == 1


def test_parts_of_a_changed_input_or_task_are_other_parts(
    bundle_folder: Path, rows_file: Path, tmp_path: Path, make_task: MakeTask
) -> None:
    bundle = Bundle(shutil.copytree(bundle_folder, tmp_path / "bundle"))
    out = tmp_path / "out"
    score(settings(bundle.path), [rows_file], out, make_parts, 1, shard_rows=20)
    with rows_file.open("a") as file:
        file.write('{"text": "one more"}\n')
    summary = score(settings(bundle.path), [rows_file], out, make_parts, 1, shard_rows=20)
    assert (summary.parts, summary.parts_made) == (3, 1)  # earlier contents are unchanged
    bundle.add_task(make_task("colour", seed=99))
    with pytest.raises(DataError, match="3 parts of another run"):
        score(settings(bundle.path), [rows_file], out, make_parts, 1, shard_rows=20)


def test_bad_rows_are_marked_and_counted(bundle_folder: Path, tmp_path: Path) -> None:
    path = tmp_path / "rows.jsonl"
    bad = ["{", '{"text": null, "id": 2}', '{"text": 5, "id": 3}', json.dumps({"text": "x" * 201, "id": 4}), "[]"]
    path.write_text("\n".join(['{"text": "good", "id": 0}', *bad, '{"text": "good", "id": 9}']))
    chosen = settings(bundle_folder, most_characters=200)
    summary = score(chosen, [path], tmp_path / "out", make_parts, 1, shard_rows=3)
    assert summary.statuses == {"colour": {"error": 5, "ok": 2}}
    assert (summary.rows, summary.errors) == (7, 5)
    assert summary.first_error.startswith(
        "rows.jsonl, line 2: not JSON (Expecting property name enclosed in double quotes at character 2)"
    )
    rows = read(tmp_path / "out").to_pylist()
    assert [row["id"] for row in rows] == [0, None, 2, 3, 4, None, 9]
    assert [row["colour_label"] is None for row in rows] == [False, True, True, True, True, True, False]
    assert rows[0]["colour_score"] == rows[6]["colour_score"]
    assert rows[4]["edgetune_error"] == "rows.jsonl, line 5: a text of 201 characters: expected at most 200"
    chosen = settings(bundle_folder, most_characters=200, strict=True)  # where it is wished only the second time
    with pytest.raises(DataError, match=r"line 2: .*without `strict`"):
        score(chosen, [path], tmp_path / "out", make_parts, 1, shard_rows=3)


def test_strict_stops_at_a_bad_row_and_keeps_what_is_done(bundle_folder: Path, tmp_path: Path) -> None:
    path = tmp_path / "rows.csv"
    path.write_text("text\n" + "good\n" * 10 + "a,b\n")
    with pytest.raises(DataError, match="line 12: 2 fields where the header has 1"):
        score(settings(bundle_folder, strict=True), [path], tmp_path / "out", make_parts, 1, shard_rows=5)
    assert len(list((tmp_path / "out").glob("*.parquet"))) == 2
    assert not (tmp_path / "out" / parts.MANIFEST).exists()


def test_a_row_that_abstains_or_is_cut_says_so(bundle_folder: Path, tmp_path: Path) -> None:
    path = tmp_path / "rows.jsonl"
    path.write_text(json.dumps({"text": "good"}) + "\n" + json.dumps({"text": "good " * 300}))
    score(settings(bundle_folder, min_score=1.0), [path], tmp_path / "1", make_parts, 1)
    assert read(tmp_path / "1")["colour_status"].to_pylist() == ["abstained", "abstained"]
    assert read(tmp_path / "1")["colour_label"].to_pylist() == [None, None]
    assert None not in read(tmp_path / "1")["colour_score"].to_pylist()
    score(settings(bundle_folder), [path], tmp_path / "2", make_parts, 1)
    assert read(tmp_path / "2")["colour_status"].to_pylist() == ["ok", "truncated"]


def test_the_manifest_names_every_part(bundle_folder: Path, rows_file: Path, unbroken: dict[str, bytes]) -> None:
    manifest = json.loads(unbroken[parts.MANIFEST])
    assert [part["file"] for part in manifest["parts"]] == sorted(name for name in unbroken if name.startswith("part-"))
    assert sum(part["rows"] for part in manifest["parts"]) == manifest["rows"] == 40
    assert manifest["tasks"] == [[name, Bundle(bundle_folder).load_task(name).sha256] for name in TASKS]
    for part in manifest["parts"]:
        assert len(part["sha256"]) == 64


def test_there_is_no_manifest_while_parts_are_missing(bundle_folder: Path, rows_file: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    seen = []

    def watched(*arguments: Any) -> Any:
        seen.append((out / parts.MANIFEST).exists())
        return make_parts(*arguments)

    for task in ("colour", "size"):
        score(settings(bundle_folder, tasks=(task,)), [rows_file], out, watched, 1, overwrite=True)
    assert seen == [False, False]
    assert json.loads((out / parts.MANIFEST).read_text())["tasks"][0][0] == "size"


def test_the_manifest_goes_before_the_parts_that_it_tells_of(
    bundle_folder: Path, rows_file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "out"
    score(settings(bundle_folder), [rows_file], out, make_parts, 1)
    left = []
    clear = parts.clear_manifest

    def cleared(folder: Path) -> None:
        clear(folder)
        left.append(len(list(folder.glob("*.parquet"))))

    monkeypatch.setattr(parts, "clear_manifest", cleared)
    score(settings(bundle_folder, tasks=("size",)), [rows_file], out, make_parts, 1, overwrite=True)
    assert left == [1, 0]


def test_a_damaged_graph_makes_no_bad_rows(bundle_folder: Path, rows_file: Path, tmp_path: Path) -> None:
    bundle = shutil.copytree(bundle_folder, tmp_path / "bundle")
    graph = bundle / "onnx" / "model.onnx"  # of close calls only
    graph.write_bytes(graph.read_bytes()[:-10])
    with pytest.raises(BundleError, match="is damaged"):
        score(settings(bundle), [rows_file], tmp_path / "out", make_parts, 1)
    assert not list((tmp_path / "out").glob("*.parquet"))


def test_a_text_that_the_tokenizer_fails_on_is_a_bad_row(
    bundle_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    encode = Engine.encode

    def picky(engine: Engine, texts: Any, tasks: Any) -> Any:
        if "hm" in texts:
            raise TextError("tokenizer.json fails on a text")
        return encode(engine, texts, tasks)

    def here(job: Job, assignments: Any, workers: int) -> Any:
        worker = Worker(job)
        for assignment in assignments:
            yield assignment.index, worker.make(assignment)

    monkeypatch.setattr(Engine, "encode", picky)
    (tmp_path / "rows.csv").write_text("text\ngood\nhm\nbad\n")
    summary = score(settings(bundle_folder, tasks=TASKS), [tmp_path / "rows.csv"], tmp_path / "out", here, 1)
    assert summary.errors == 1
    assert summary.first_error == "rows.csv, line 3: tokenizer.json fails on a text"
    assert read(tmp_path / "out")["size_status"].to_pylist() == ["ok", "error", "ok"]


@pytest.mark.parametrize(("source", "target"), [("data", "data"), ("data", "data/out"), ("data/in", "data")])
def test_inputs_and_parts_do_not_lie_in_one_another(
    bundle_folder: Path, tmp_path: Path, source: str, target: str
) -> None:
    (tmp_path / source).mkdir(parents=True)
    (tmp_path / source / "rows.csv").write_text("text\ngood\n")
    with pytest.raises(DataError, match="are inside each other"):
        score(settings(bundle_folder), [tmp_path / source], tmp_path / target, make_parts, 1, overwrite=True)
    assert (tmp_path / source / "rows.csv").exists()


def test_an_input_that_vanishes_is_told(bundle_folder: Path, tmp_path: Path) -> None:
    path = tmp_path / "rows.parquet"
    pq.write_table(pa.table({"text": TEXTS}), path)

    def after_it_went(*arguments: Any) -> Any:
        path.unlink()
        yield from make_parts(*arguments)

    with pytest.raises(EdgetuneError, match=r"rows.parquet cannot be read \(No such file"):
        score(settings(bundle_folder), [path], tmp_path / "out", after_it_went, 1)


def test_a_file_system_without_locks(
    bundle_folder: Path, rows_file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def none(descriptor: int, operation: int) -> None:
        raise OSError(errno.ENOLCK, os.strerror(errno.ENOLCK))

    monkeypatch.setattr("fcntl.flock", none)
    assert score(settings(bundle_folder), [rows_file], tmp_path / "out", make_parts, 1).rows == 40


def test_paths_may_be_relative(
    bundle_folder: Path, rows_file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    shutil.copy(bundle_folder / "tasks" / "size.safetensors", "own.safetensors")
    score(settings(bundle_folder, tasks=("own.safetensors",)), [Path("rows.jsonl")], Path("out"), make_parts, 1)
    assert read(tmp_path / "out").num_rows == 40


def test_what_is_not_ours_is_left_alone(bundle_folder: Path, rows_file: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    out.mkdir()
    pq.write_table(pa.table({"a": [1]}), out / "mine.parquet")
    (out / "notes.txt").write_text("mine")
    for overwrite in (False, True):
        with pytest.raises(DataError, match=r"mine.parquet, which is not edgetune's"):
            score(settings(bundle_folder), [rows_file], out, make_parts, 1, overwrite=overwrite)
    assert sorted(path.name for path in out.iterdir()) == [".lock", "mine.parquet", "notes.txt"]


def test_two_runs_do_not_share_a_folder(bundle_folder: Path, rows_file: Path, tmp_path: Path) -> None:
    with (
        parts.locked(tmp_path / "out"),
        pytest.raises(DataError, match="another run is writing"),
    ):
        score(settings(bundle_folder), [rows_file], tmp_path / "out", make_parts, 1)


@pytest.mark.parametrize(
    ("changed", "error", "told"),
    [
        ({"text_column": "txt"}, DataError, "no column 'txt' among id, text, source"),
        ({"text_column": "id"}, DataError, "'id' holds int64: expected texts"),
        ({"tasks": ("nothing",)}, TaskError, "no task 'nothing'"),
        ({"tasks": ("size", "size")}, DataError, "expected one or several, each once"),
        ({"tasks": ()}, DataError, "`tasks` names no task"),
        ({"precision": "q4"}, EdgetuneError, "no precision 'q4'"),
        ({"min_score": float("nan")}, DataError, "expected a probability"),
    ],
)
def test_settings_that_cannot_be(
    bundle_folder: Path, rows_file: Path, tmp_path: Path, changed: dict[str, Any], error: type[Exception], told: str
) -> None:
    with pytest.raises(error, match=told):
        score(settings(bundle_folder, **changed), [rows_file], tmp_path / "out", make_parts, 1)


def test_a_column_that_is_taken(bundle_folder: Path, tmp_path: Path) -> None:
    path = tmp_path / "rows.csv"
    path.write_text("text,colour_label\na,b\n")
    with pytest.raises(DataError, match="colour_label, which this run would add: rename"):
        score(settings(bundle_folder), [path], tmp_path / "out", make_parts, 1)


def test_no_rows(bundle_folder: Path, tmp_path: Path) -> None:
    (tmp_path / "rows.csv").write_text("text\n")
    with pytest.raises(DataError, match="no rows"):
        score(settings(bundle_folder), [tmp_path / "rows.csv"], tmp_path / "out", make_parts, 1)


def test_an_error_of_a_worker_ends_the_run(bundle_folder: Path, rows_file: Path, tmp_path: Path) -> None:
    def after_a_swap(*arguments: Any) -> Any:
        bundle = Bundle(tmp_path / "bundle")
        bundle.add_task(bundle.load_task("size").renamed("colour"))
        return make_parts(*arguments)

    shutil.copytree(bundle_folder, tmp_path / "bundle")
    with pytest.raises(EdgetuneError, match="has not what the run was planned with"):
        score(settings(tmp_path / "bundle"), [rows_file], tmp_path / "out", after_a_swap, 2)


def die(line: Connection) -> None:
    """A worker that takes a shard and dies."""
    line.recv()
    line.recv()
    os._exit(7)


def test_what_kills_worker_after_worker_ends_the_run(
    bundle_folder: Path, rows_file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("edgetune.scoring.local._work", die)
    with pytest.raises(
        EdgetuneError, match=r"3 workers died at the 20 rows of .*rows.jsonl from 1 on \(the last with 7"
    ):
        score(settings(bundle_folder), [rows_file], tmp_path / "out", make_parts, 1, shard_rows=20)


def test_the_command_line(bundle_folder: Path, rows_file: Path, tmp_path: Path) -> None:
    task_file = bundle_folder / "tasks" / "size.safetensors"
    done = run(bundle_folder, rows_file, "--task", f"colour,{task_file}", "--out", tmp_path / "out", "--workers", 1)
    assert done.exit_code == 0, done.output
    assert done.stdout.splitlines()[:2] == [f"{'colour':<24}40 ok", f"{'size':<24}40 ok"]
    again = run(
        bundle_folder, rows_file, "--task", f"colour,{task_file}", "--out", tmp_path / "out", "--workers", 2, "--json"
    )
    record = json.loads(again.stdout)
    assert {key: record[key] for key in ("rows", "parts", "rows_made", "parts_made", "errors")} == {
        "rows": 40,
        "parts": 1,
        "rows_made": 0,
        "parts_made": 0,
        "errors": 0,
    }
    assert read(tmp_path / "out").num_rows == 40


def test_the_output_of_a_run_is_scored_again(bundle_folder: Path, rows_file: Path, tmp_path: Path) -> None:
    notes: list[str] = []
    first, second, third = (tmp_path / name for name in ("first", "second", "third"))
    score(settings(bundle_folder, tasks=TASKS), [rows_file], first, make_parts, 1, shard_rows=20)
    score(settings(bundle_folder), [first], second, make_parts, 1, note=notes.append)
    assert notes == [
        "columns of an earlier run are replaced: colour_label, colour_score, colour_status, edgetune_error"
    ]
    before, after = read(first), read(second)
    assert sorted(after.column_names) == sorted(before.column_names)
    assert after.select(sorted(after.column_names)).equals(before.select(sorted(after.column_names)))
    # A column of the user's own is never replaced, whatever it is called.
    pq.write_table(before.replace_schema_metadata({}), tmp_path / "mine.parquet")
    with pytest.raises(DataError, match=r"have the columns colour_label, .* rename"):
        score(settings(bundle_folder), [tmp_path / "mine.parquet"], third, make_parts, 1)


@pytest.mark.parametrize("name", ["rows.csv.gz", "rows.json", "rows.tsv"])
def test_files_of_every_form_are_scored(bundle_folder: Path, tmp_path: Path, name: str) -> None:
    out = io.StringIO(newline="")
    csv.writer(out).writerows([("id", "text"), *((row["id"], row["text"]) for row in ROWS)])
    content = {
        "rows.csv.gz": gzip.compress(out.getvalue().encode()),
        "rows.json": json.dumps(ROWS).encode("utf-16"),
        "rows.tsv": ("id\ttext\r\n" + "".join(f"{row['id']}\t{row['text']}\r\n" for row in ROWS)).encode(),
    }
    (tmp_path / name).write_bytes(content[name])
    summary = score(settings(bundle_folder), [tmp_path / name], tmp_path / "out", make_parts, 2, shard_rows=7)
    assert (summary.rows, summary.parts, summary.errors) == (40, 6, 0)
    found = read(tmp_path / "out")
    assert [int(one) for one in found["id"].to_pylist()] == [row["id"] for row in ROWS]
    with Engine(bundle_folder) as engine:
        wanted = [result.label for result in engine.classify([str(row["text"]) for row in ROWS], "colour")]
    assert found["colour_label"].to_pylist() == wanted


def test_text_files_of_an_earlier_run_lose_its_error_column(bundle_folder: Path, tmp_path: Path) -> None:
    path = tmp_path / "rows.jsonl"
    path.write_text('{"text": "good", "edgetune_error": null}\n{"text": "bad", "edgetune_error": "was odd"}\n')
    notes: list[str] = []
    summary = score(settings(bundle_folder), [path], tmp_path / "out", make_parts, 1, note=notes.append)
    assert (summary.rows, summary.errors) == (2, 0)
    assert notes == ["columns of an earlier run are replaced: edgetune_error"]


def test_a_column_that_chooses_no_task_is_said_and_a_run_of_bad_rows_fails(bundle_folder: Path, tmp_path: Path) -> None:
    path = tmp_path / "rows.jsonl"
    path.write_text('{"text": "good", "task": "size"}\n')
    done = run(bundle_folder, path, "--task", "colour", "--out", tmp_path / "out", "--workers", 1)
    assert done.exit_code == 0
    assert "the column 'task' chooses no task here: every row is scored by every task of --task" in done.stderr
    path.write_text('{"text": null}\n{\n')
    done = run(bundle_folder, path, "--task", "colour", "--out", tmp_path / "bad", "--workers", 1)
    assert "no row was scored; the first: rows.jsonl, line 1: 'text' is null" in str(done.exception)
    assert read(tmp_path / "bad").num_rows == 2


@pytest.mark.parametrize(
    ("name", "content", "changed"),
    [
        ("rows.jsonl", b'{"text": "good"}\n', False),
        ("rows.csv", b"text,n\ngood,1\n", False),
        ("rows.csv", b"text;n\ngood;1\n", True),
        ("rows.csv", "text,n\ngood,1\n".encode("utf-16"), True),
        ("lang=de/rows.csv", b"text,n\ngood,1\n", True),
    ],
)
def test_a_run_that_an_earlier_version_began_goes_on(
    bundle_folder: Path, tmp_path: Path, name: str, content: bytes, changed: bool
) -> None:
    (tmp_path / name).parent.mkdir(exist_ok=True)
    (tmp_path / name).write_bytes(content)
    score(settings(bundle_folder), [tmp_path / name], tmp_path / "out", make_parts, 1, note=lambda _: None)
    manifest = json.loads((tmp_path / "out" / parts.MANIFEST).read_text())
    identity = {key: value for key, value in manifest.items() if key not in ("rows", "statuses", "parts")}
    digest = files.sha256(json.dumps(identity, sort_keys=True).encode())
    first = content.index(b"\n") + 1 if name.endswith(".csv") else 0
    made_of = [digest, 0, Path(name).name, first, len(content), 2 if first else 1, files.sha256(content[first:])]
    before = f"part-0000000-{files.sha256(json.dumps(made_of).encode())[:16]}.parquet"
    assert (manifest["parts"][0]["file"] != before) == changed
