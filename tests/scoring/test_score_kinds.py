"""`edgetune score` with tasks of every kind: columns and their types, pairs of texts, one pass for all tasks."""

from __future__ import annotations

import csv
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.dataset
import pyarrow.parquet as pq
import pytest
from click.testing import CliRunner
from conftest import TEXTS, MakeTask
from kinds_of_tasks import SECONDS, TASKS, answers, bundle_of_kinds

from edgetune.cli import cli
from edgetune.scoring import parts
from edgetune.scoring.columns import TYPES
from edgetune.scoring.local import make_parts
from edgetune.scoring.plan import Settings
from edgetune.scoring.run import Summary, score
from edgetune.scoring.worker import Job, Worker
from edgetune_runtime import Engine
from edgetune_runtime.errors import DataError
from edgetune_runtime.kinds import KINDS

SINGLES, PAIRS = ("mood", "tags", "stars", "names"), ("same", "topics", "alike", "parts", "why")
BEST = pa.float32()
SCORES = pa.struct([(f"label{place}", pa.float32()) for place in range(3)])
ENTITY = {"label": pa.string(), "start": pa.int64(), "end": pa.int64(), "text": pa.string(), "score": pa.float32()}
COLUMNS: Mapping[str, list[tuple[str, pa.DataType]]] = {
    "mood": [("label", pa.string()), ("score", BEST), ("scores", SCORES), ("status", pa.string())],
    "tags": [("labels", pa.list_(pa.string())), ("scores", SCORES), ("status", pa.string())],
    "stars": [("score", pa.float64()), ("status", pa.string())],
    "names": [("entities", pa.list_(pa.struct(ENTITY))), ("status", pa.string())],
    "why": [
        *(("answer", pa.string()), ("start", pa.int64()), ("end", pa.int64())),
        *(("score", pa.float64()), ("no_answer", pa.float64()), ("status", pa.string())),
    ],
}


@pytest.fixture(scope="module")
def kinds(bundle_folder: Path, make_task: MakeTask, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return bundle_of_kinds(bundle_folder, make_task, tmp_path_factory.mktemp("kinds") / "bundle")


def here(job: Job, assignments: Any, workers: int) -> Any:
    """A worker in this process."""
    worker = Worker(job)
    for assignment in assignments:
        yield assignment.index, worker.make(assignment)


def write(path: Path, rows: Sequence[Mapping[str, Any]]) -> Path:
    """Rows in the format that the file's name says."""
    if path.suffix == ".parquet":
        pq.write_table(pa.Table.from_pylist(list(rows)), path)
    elif path.suffix == ".csv":
        with path.open("w", newline="") as file:
            writer = csv.DictWriter(file, list(rows[0]))
            writer.writeheader()
            writer.writerows(rows)
    else:
        path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def rows_of_pairs(second: str = "text_pair") -> list[dict[str, str]]:
    return [{"text": text, second: other} for text, other in zip(TEXTS, SECONDS, strict=True)]


def run(bundle: Path, path: Path, tasks: Sequence[str], out: Path, **more: Any) -> tuple[pa.Table, Summary]:
    summary = score(Settings(bundle, tuple(tasks), **more), [path], out, here, 1, note=lambda _: None)
    return pyarrow.dataset.dataset(out, format="parquet").to_table(), summary


def test_every_type_of_column_has_its_own() -> None:
    assert set(TYPES) == {column for kind in KINDS.values() for column in kind.columns.values()}


@pytest.mark.parametrize("all_scores", [False, True])
@pytest.mark.parametrize("name", SINGLES)
def test_columns_of_a_kind(kinds: Path, tmp_path: Path, name: str, all_scores: bool) -> None:
    path = write(tmp_path / "rows.jsonl", [{"text": text} for text in TEXTS])
    table, _ = run(kinds, path, [name], tmp_path / "out", all_scores=all_scores)
    wanted = [(column, kind) for column, kind in COLUMNS[name] if all_scores or column != "scores"]
    assert [(field.name, field.type) for field in table.schema] == [
        ("text", pa.string()),
        *((f"{name}_{column}", kind) for column, kind in wanted),
        ("edgetune_error", pa.string()),
    ]
    for place, result in enumerate(answers(kinds, name)):
        row = table.slice(place, 1).to_pylist()[0]
        for column, value in result.fields().items():
            if f"{name}_{column}" not in row:
                continue
            got = row[f"{name}_{column}"]
            if isinstance(value, dict):
                assert got == {label: float(np.float32(one)) for label, one in value.items()}
            elif isinstance(value, float):
                assert got == (value if name == "stars" else float(np.float32(value)))
            elif column == "entities":
                assert got == [{**one, "score": float(np.float32(one["score"]))} for one in value]
            else:
                assert got == value


def test_labels_below_the_min_score_are_left_out(kinds: Path, tmp_path: Path) -> None:
    path = write(tmp_path / "rows.jsonl", [{"text": text} for text in TEXTS])
    plain, _ = run(kinds, path, ["tags"], tmp_path / "plain")
    table, summary = run(kinds, path, ["tags"], tmp_path / "out", min_score=0.9)
    wanted = [list(result.fields()["labels"]) for result in answers(kinds, "tags", min_score=0.9)]
    assert table["tags_labels"].to_pylist() == wanted != plain["tags_labels"].to_pylist()
    assert summary.statuses == {"tags": {"ok": len(TEXTS)}}


def test_a_min_score_means_nothing_to_a_number(kinds: Path, tmp_path: Path) -> None:
    path = write(tmp_path / "rows.jsonl", [{"text": "good"}])
    with pytest.raises(DataError, match="task 'stars' of the kind 'score' gives no probabilities: leave it out"):
        run(kinds, path, ["mood", "stars"], tmp_path / "out", min_score=0.5)


@pytest.mark.parametrize("ending", ["jsonl", "csv", "parquet"])
def test_tasks_for_texts_and_for_pairs_in_one_run(kinds: Path, tmp_path: Path, ending: str) -> None:
    path = write(tmp_path / f"rows.{ending}", rows_of_pairs())
    table, summary = run(kinds, path, list(TASKS), tmp_path / "out")
    assert summary.errors == 0
    for name in TASKS:
        for place, result in enumerate(answers(kinds, name)):
            for field in ("label", "labels"):
                if field in result.fields():
                    assert table[f"{name}_{field}"][place].as_py() == result.fields()[field]
            if name in ("stars", "alike"):
                assert table[f"{name}_score"][place].as_py() == result.fields()["score"]


def test_local_processes_write_the_same(kinds: Path, tmp_path: Path) -> None:
    path = write(tmp_path / "rows.jsonl", rows_of_pairs())
    run(kinds, path, list(TASKS), tmp_path / "here")
    score(Settings(kinds, tuple(TASKS)), [path], tmp_path / "there", make_parts, 1)
    one, other = ({part.name: part.read_bytes() for part in (tmp_path / name).iterdir()} for name in ("here", "there"))
    assert one == other


def test_all_tasks_of_all_rows_go_into_one_call(kinds: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[int] = []
    passes: list[int] = []
    answer, run_passes = Engine.answer, None

    def counted(engine: Engine, rows: Any, threads: int | None = None) -> Any:
        calls.append(len(rows))
        nonlocal run_passes
        if run_passes is None:
            run_passes = engine._runner.run

            def noted(shared: Any, *more: Any) -> Any:
                passes.append(len(shared))
                return run_passes(shared, *more)

            monkeypatch.setattr(engine._runner, "run", noted)
        return answer(engine, rows, threads)

    monkeypatch.setattr(Engine, "answer", counted)
    path = write(tmp_path / "rows.jsonl", rows_of_pairs())
    run(kinds, path, list(TASKS), tmp_path / "out", precision="fp32")
    assert calls == [len(TEXTS) * len(TASKS)]
    assert passes == [len(TEXTS) * 2]  # four tasks share the pass of a text, four that of a pair


@pytest.mark.parametrize("ending", ["jsonl", "csv", "parquet"])
def test_a_row_without_second_text_is_bad_for_tasks_that_need_it(kinds: Path, tmp_path: Path, ending: str) -> None:
    rows: list[dict[str, Any]] = [
        {"text": "good", "text_pair": "bad"},
        {"text": "good", "text_pair": ""},
        {"text": "good", "text_pair": None},
    ]
    path = write(tmp_path / f"rows.{ending}", rows)
    table, summary = run(kinds, path, ["mood", "same", "alike"], tmp_path / "out")
    assert summary.statuses == {"alike": {"error": 2, "ok": 1}, "mood": {"ok": 3}, "same": {"error": 2, "ok": 1}}
    assert summary.errors == 2
    told = table["edgetune_error"].to_pylist()
    number = 3 if ending == "csv" else 2
    unit = "row" if ending == "parquet" else "line"
    assert told[0] is None
    assert told[1] == summary.first_error
    assert told[1] == (
        f"rows.{ending}, {unit} {number}: 'text_pair' is empty: expected the second text of a pair, since task 'same' "
        f"takes pairs"
    )
    if ending != "csv":
        assert "'text_pair' is null: expected a string" in told[2]
    assert [value is None for value in table["same_label"].to_pylist()] == [False, True, True]
    assert None not in table["mood_label"].to_pylist()
    alone, _ = run(kinds, path, ["mood"], tmp_path / "alone")
    assert alone["edgetune_error"].to_pylist() == [None] * 3
    assert alone["mood_label"].to_pylist() == table["mood_label"].to_pylist()
    with pytest.raises(DataError, match="is empty: expected the second text"):
        run(kinds, path, ["mood", "same"], tmp_path / "strict", strict=True)


def test_a_text_too_long_for_pairs_costs_them_alone(kinds: Path, tmp_path: Path) -> None:
    path = write(tmp_path / "rows.jsonl", [{"text": "good", "text_pair": "b" * 50}, {"text": "a", "text_pair": "b"}])
    table, summary = run(kinds, path, ["same", "mood"], tmp_path / "out", most_characters=20)
    assert table["same_status"].to_pylist() == ["error", "ok"]
    assert table["mood_status"].to_pylist() == ["ok", "ok"]
    assert summary.first_error == "rows.jsonl, line 1: a text of 50 characters: expected at most 20"


def test_the_column_of_second_texts(kinds: Path, tmp_path: Path) -> None:
    usual = write(tmp_path / "usual.jsonl", rows_of_pairs())
    other = write(tmp_path / "other.jsonl", rows_of_pairs("reply"))
    table, _ = run(kinds, other, ["same"], tmp_path / "out", text_pair_column="reply")
    assert table["same_label"].equals(run(kinds, usual, ["same"], tmp_path / "usual")[0]["same_label"])
    manifest = json.loads((tmp_path / "out" / parts.MANIFEST).read_text())
    assert manifest["text_pair_column"] == "reply"
    single = run(kinds, usual, ["mood"], tmp_path / "single")
    assert "text_pair_column" not in json.loads((tmp_path / "single" / parts.MANIFEST).read_text()), single
    for tasks, more, told in (
        (["same"], {}, "no column 'text_pair' among text, reply.*`text_pair_column`"),
        (["mood"], {"text_pair_column": "reply"}, "names 'reply', and none of mood takes pairs of texts: leave it out"),
        (["same"], {"text_pair_column": "text"}, "'text' is named for both texts of a pair"),
    ):
        with pytest.raises(DataError, match=told):
            run(kinds, other, tasks, tmp_path / "refused", **more)


def test_numbers_are_no_second_texts(kinds: Path, tmp_path: Path) -> None:
    path = write(tmp_path / "rows.jsonl", [{"text": "good", "text_pair": 5}])
    with pytest.raises(
        DataError, match="'text_pair' holds int64: expected texts; name their column with `text_pair_column`"
    ):
        run(kinds, path, ["same"], tmp_path / "out")
    run(kinds, path, ["mood"], tmp_path / "out")


@pytest.mark.parametrize(
    "changed",
    [{"text_pair_column": "reply"}, {"tasks": ("same", "topics")}, {"tasks": ("alike",)}],
    ids=lambda changed: next(iter(changed)),
)
def test_parts_of_other_pairs_are_other_parts(kinds: Path, tmp_path: Path, changed: dict[str, Any]) -> None:
    rows = [{**row, "reply": row["text"]} for row in rows_of_pairs()]
    path = write(tmp_path / "rows.jsonl", rows)
    run(kinds, path, ["same"], tmp_path / "out")
    settings = Settings(**{"bundle": kinds, "tasks": ("same",), **changed})
    with pytest.raises(DataError, match="holds 1 parts of another run"):
        score(settings, [path], tmp_path / "out", here, 1)


@pytest.mark.parametrize("name", SINGLES)
def test_the_output_of_a_run_is_scored_again(kinds: Path, tmp_path: Path, name: str) -> None:
    path = write(tmp_path / "rows.jsonl", [{"text": text} for text in TEXTS])
    first, _ = run(kinds, path, [name], tmp_path / "first", all_scores=True)
    notes: list[str] = []
    settings = Settings(kinds, (name,), all_scores=True)
    score(settings, [tmp_path / "first"], tmp_path / "second", here, 1, note=notes.append)
    assert pyarrow.dataset.dataset(tmp_path / "second", format="parquet").to_table().equals(first)
    added = ", ".join(f"{name}_{column}" for column, _ in COLUMNS[name])
    assert notes == [f"columns of an earlier run are replaced: {added}, edgetune_error"]


def test_the_outcome_of_a_part_of_edgetune_0_1(tmp_path: Path) -> None:
    schema = pa.schema([("a", pa.int64())])
    for name, record in {
        "old": [7, {"colour": {"error": 5, "ok": 2}}, "line 2"],
        "new": [7, {"same": {"error": 5, "ok": 2}, "mood": {"error": 1, "ok": 6}}, "line 2", 6],
        "odd": [7, [], "line 2"],
    }.items():
        with pq.ParquetWriter(tmp_path / name, schema) as writer:
            writer.add_key_value_metadata({"edgetune": json.dumps(record)})
    assert [getattr(parts.read_outcome(tmp_path, name), "errors", None) for name in ("old", "new", "odd")] == [
        5,
        6,
        None,
    ]


def test_the_command_line(kinds: Path, tmp_path: Path) -> None:
    path = write(tmp_path / "rows.csv", rows_of_pairs("reply"))
    arguments = ["score", kinds, path, "--task", "tags,same", "--text-pair-column", "reply", "--workers", 1]
    done = CliRunner().invoke(cli, [*map(str, arguments), "--out", str(tmp_path / "out")])
    assert done.exit_code == 0, done.output
    assert done.stdout.splitlines()[:2] == [f"{'same':<24}8 ok", f"{'tags':<24}8 ok"]
    # If no task could answer a row the exit status is 1; if one could, it is 0.
    write(tmp_path / "bad.jsonl", [{"text": "good", "text_pair": ""}])
    for tasks, status in (("mood,same", 0), ("same", 1)):
        arguments = ["score", kinds, tmp_path / "bad.jsonl", "--task", tasks, "--workers", 1]
        done = CliRunner().invoke(cli, [*map(str, arguments), "--out", str(tmp_path / tasks)])
        assert (done.exit_code != 0) == bool(status)
        assert ("no row was scored" in str(done.exception)) == bool(status)
