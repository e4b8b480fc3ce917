"""`classify`, `evaluate`, `export` and `tasks list` with tasks of every kind, for texts and for pairs."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner
from conftest import TEXTS, MakeTask
from kinds_of_tasks import SECONDS, TASKS, answers, bundle_of_kinds, given, make_tasks, target_of

from edgetune.cli import cli
from edgetune_runtime import Bundle, Engine
from edgetune_runtime.kinds import KINDS, AnswerResult, EntitiesResult, LabelResult, ScoreResult
from edgetune_runtime.kinds.multi_label import LabelsResult

SINGLES = [name for name, (_, more) in TASKS.items() if "pairs" not in more]
FIGURES = {
    "mood": ("accuracy", "macro_f1", "ece"),
    "same": ("accuracy", "macro_f1", "ece"),
    "tags": ("macro_f1", "micro_f1", "mean_average_precision", "exact_match"),
    "topics": ("macro_f1", "micro_f1", "mean_average_precision", "exact_match"),
    "names": ("entity_f1", "entity_precision", "entity_recall"),
    "parts": ("entity_f1", "entity_precision", "entity_recall"),
    "why": (
        *("exact_match", "answer_f1", "exact_match_if_answer", "answer_f1_if_answer"),
        "exact_match_if_none",
    ),
    "stars": ("pearson", "spearman", "mean_absolute_error"),
    "alike": ("pearson", "spearman", "mean_absolute_error"),
}
WORDS = {
    "accuracy": "accuracy",
    "macro_f1": "macro-F1",
    "micro_f1": "micro-F1",
    "ece": "ECE",
    "mean_average_precision": "mean average precision",
    "exact_match": "exact match",
    "entity_f1": "entity F1",
    "entity_precision": "entity precision",
    "entity_recall": "entity recall",
    "answer_f1": "answer F1",
    "exact_match_if_answer": "exact match if answer",
    "answer_f1_if_answer": "answer F1 if answer",
    "exact_match_if_none": "exact match if none",
    "pearson": "Pearson",
    "spearman": "Spearman",
    "mean_absolute_error": "mean absolute error",
}


@pytest.fixture(scope="module")
def kinds(bundle_folder: Path, make_task: MakeTask, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return bundle_of_kinds(bundle_folder, make_task, tmp_path_factory.mktemp("kinds") / "bundle")


def run(*arguments: object, text: str | None = None) -> tuple[str, str]:
    done = CliRunner().invoke(cli, list(map(str, arguments)), input=text)
    assert done.exit_code == 0, f"{done.output}{done.exception!r}"
    return done.stdout, done.stderr


def refused(*arguments: object, text: str | None = None) -> str:
    done = CliRunner().invoke(cli, list(map(str, arguments)), input=text)
    assert done.exit_code == 1
    return str(done.exception)


def lines(*rows: Mapping[str, Any]) -> str:
    return "".join(json.dumps(row) + "\n" for row in rows)


def labelled(name: str, **renamed: str) -> str:
    """Rows for a task, each with a valid target."""
    rows = []
    for place, text in enumerate(given(name)):
        one, *second = [text] if isinstance(text, str) else text
        target = target_of(name, place)
        row = {"text": one, "label": KINDS[TASKS[name][1].get("kind_name", "single-label")].written(target)}
        rows.append(row | {renamed.get("text_pair", "text_pair"): other for other in second})
    return lines(*rows)


def data_file(folder: Path, name: str, **renamed: str) -> Path:
    path = folder / f"{name}.jsonl"
    path.write_text(labelled(name, **renamed))
    return path


class TestClassify:
    @pytest.mark.parametrize("name", TASKS)
    def test_answers_of_a_kind(self, kinds: Path, name: str) -> None:
        rows = [
            {"text": text} if isinstance(text, str) else {"text": text[0], "text_pair": text[1]} for text in given(name)
        ]
        found = [json.loads(line) for line in run("classify", kinds, "--task", name, text=lines(*rows))[0].splitlines()]
        for place, (answer, result) in enumerate(zip(found, answers(kinds, name), strict=True)):
            wanted: dict[str, Any]
            if isinstance(result, LabelResult):
                wanted = {"label": result.label, "scores": result.scores}
            elif isinstance(result, LabelsResult):
                wanted = {"labels": list(result.labels), "scores": result.scores}
            elif isinstance(result, EntitiesResult):
                rounded = [{**vars(one), "score": round(one.score, 6)} for one in result.entities]
                wanted = {"entities": rounded}
            elif isinstance(result, AnswerResult):
                wanted = result.fields()
            else:
                assert isinstance(result, ScoreResult)
                wanted = {"score": result.score}
            assert list(answer) == ["id", "task", *wanted, "status"]
            assert (answer["id"], answer["task"], answer["status"]) == (place + 1, name, "ok")
            for field, value in wanted.items():
                if field in ("score", "no_answer"):
                    assert np.float32(answer[field]) == np.float32(value)
                else:
                    assert answer[field] == (pytest.approx(value, abs=1e-6) if field == "scores" else value)

    def test_a_number_has_no_more_digits_than_the_graph_gives(self, kinds: Path) -> None:
        (line,) = run("classify", kinds, "--task", "stars", text="good")[0].splitlines()
        assert len(line.partition('"score": ')[2].partition(",")[0].lstrip("-").replace(".", "")) <= 10

    def test_rows_name_tasks_of_every_kind(self, kinds: Path) -> None:
        rows = [{"text": TEXTS[0], "text_pair": SECONDS[0], "task": name} for name in TASKS]
        found = [json.loads(line) for line in run("classify", kinds, text=lines(*rows))[0].splitlines()]
        for answer, name in zip(found, TASKS, strict=True):
            first, fields = answers(kinds, name)[0], list(answer)[2:-1]
            assert answer["task"] == name
            for field in fields:
                value = first.fields()[field]
                if field == "entities":
                    value = [{**one, "score": round(one["score"], 6)} for one in value]
                assert answer[field] == (value if field == "entities" else pytest.approx(value, abs=1e-6))

    def test_a_pair_needs_its_second_text(self, kinds: Path, tmp_path: Path) -> None:
        rows = [{"text": "a", "text_pair": "b"}, {"text": "a"}, {"text": "a", "text_pair": ""}, {"text": "a", "b": "c"}]
        found = [
            json.loads(line) for line in run("classify", kinds, "--task", "same", text=lines(*rows))[0].splitlines()
        ]
        assert [answer["status"] for answer in found] == ["ok", "error", "error", "error"]
        assert found[1]["error"] == "no 'text_pair': task 'same' takes pairs of texts, and expects the second there"
        path = tmp_path / "rows.csv"
        path.write_text("text,reply\na,b\n")
        (line,) = run("classify", kinds, path, "--task", "same", "--text-pair-column", "reply")[0].splitlines()
        assert json.loads(line)["scores"] == found[0]["scores"]
        assert "no row was classified" in refused("classify", kinds, "--task", "same", text="a line of text")

    def test_min_score(self, kinds: Path) -> None:
        text = "\n".join(TEXTS)
        plain, _ = run("classify", kinds, "--task", "tags", text=text)
        found, _ = run("classify", kinds, "--task", "tags", "--min-score", 0.9, text=text)
        wanted = [list(result.fields()["labels"]) for result in answers(kinds, "tags", 0.9)]
        assert [json.loads(line)["labels"] for line in found.splitlines()] == wanted
        assert found != plain
        assert {json.loads(line)["status"] for line in found.splitlines()} == {"ok"}
        message = refused("classify", kinds, "--task", "stars", "--min-score", 0.9, text=text)
        assert "task 'stars' of the kind 'score' gives no probabilities: leave it out" in message

    def test_a_row_whose_task_has_no_lowest_score_stops_no_other(self, kinds: Path) -> None:
        rows = [{"text": TEXTS[0]}, {"text": TEXTS[0], "task": "stars"}, {"text": TEXTS[1]}]
        found, _ = run("classify", kinds, "--task", "tags", "--min-score", 0.9, text=lines(*rows))
        answered = [json.loads(line) for line in found.splitlines()]
        assert [one["status"] for one in answered] == ["ok", "error", "ok"]
        assert "task 'stars' of the kind 'score' gives no probabilities: leave it out" in answered[1]["error"]


class TestEvaluate:
    @pytest.mark.parametrize("name", TASKS)
    def test_figures_of_a_kind(self, kinds: Path, tmp_path: Path, name: str) -> None:
        arguments = ("evaluate", kinds, "--task", name, "--data", data_file(tmp_path, name))
        report = json.loads(run(*arguments, "--json")[0])
        task = Bundle(kinds).load_task(name)
        right = [target_of(name, place) for place in range(len(TEXTS))]
        figures = task.kind.figures(right, answers(kinds, name), task)
        before, after = ["task", "precision", "rechecked", "rows", "errors"], ["rows_per_second", "truncated"]
        tables = ["confusion"] if name in ("mood", "same") else ["by_label"] if figures.by_label else []
        labels = ["labels"] if figures.by_label else []
        assert list(report) == [*before, *FIGURES[name], *labels, *tables, *after]
        assert {figure: report[figure] for figure in FIGURES[name]} == pytest.approx(dict(figures.values), abs=1e-5)
        shown = run(*arguments)[0]
        for figure in FIGURES[name]:
            assert f"{WORDS[figure]} {report[figure]:.3f}" in shown
        assert ("right label (row)" in shown) == (name in ("mood", "same"))
        if tables == ["by_label"]:
            assert report["by_label"] == figures.by_label
            header, *rows = shown.splitlines()[2:]
            counted = "entities" if name in ("names", "parts") else "rows"
            assert header.split() == ["label", counted, "precision", "recall", "F1"]
            for row, (label, own) in zip(rows, figures.by_label.items(), strict=True):
                assert row.split() == [
                    label,
                    str(own[counted]),
                    *(f"{own[of]:.3f}" for of in ("precision", "recall", "f1")),
                ]

    def test_min_score_drops_labels(self, kinds: Path, tmp_path: Path) -> None:
        arguments = ("evaluate", kinds, "--task", "tags", "--data", data_file(tmp_path, "tags"), "--min-score", 0.9)
        report = json.loads(run(*arguments, "--json")[0])
        task = Bundle(kinds).load_task("tags")
        right = [target_of("tags", place) for place in range(len(TEXTS))]
        wanted = task.kind.figures(right, answers(kinds, "tags", 0.9), task)
        assert report["micro_f1"] == pytest.approx(wanted.values["micro_f1"])
        assert report["min_score"] == 0.9
        assert not {"coverage", "macro_f1_answered"} & set(report)
        assert "rows answered" not in run(*arguments)[0]

    def test_min_score_of_a_number(self, kinds: Path, tmp_path: Path) -> None:
        arguments = ("evaluate", kinds, "--task", "stars", "--data", data_file(tmp_path, "stars"), "--min-score", 0.9)
        assert "gives no probabilities" in refused(*arguments)

    @pytest.mark.parametrize(
        ("name", "row", "told"),
        [
            ("mood", {"text": "a", "label": ["label0"]}, "expected a string, an integer or a boolean"),
            (
                "tags",
                {"text": "a", "label": ["label0", "purple"]},
                "does not have: purple; it has label0, label1, label2",
            ),
            ("stars", {"text": "a", "label": "many"}, "expected a finite number"),
            ("same", {"text": "a", "label": "label0"}, "no column 'text_pair', and the task 'same' takes pairs"),
        ],
    )
    def test_labels_of_another_kind(self, kinds: Path, tmp_path: Path, name: str, row: Any, told: str) -> None:
        path = tmp_path / "odd.jsonl"
        path.write_text(lines(row))
        assert told in refused("evaluate", kinds, "--task", name, "--data", path)

    def test_joined_labels_and_whole_numbers(self, kinds: Path, tmp_path: Path) -> None:
        path = tmp_path / "rows.csv"
        path.write_text("text,labels,stars\ngood,label0|label2,4\nbad,label1,1\nso so,,3\n")
        for name, column in (("tags", "labels"), ("stars", "stars")):
            arguments = ("evaluate", kinds, "--task", name, "--data", path, "--label-column", column, "--json")
            report = json.loads(run(*arguments)[0])
            assert report["rows"] == 3
            assert report.get("by_label", {}).get("label2", {"rows": 1})["rows"] == 1

    def test_second_texts_that_a_task_does_not_read(self, kinds: Path, tmp_path: Path) -> None:
        (tmp_path / "with").mkdir()
        alone = data_file(tmp_path, "mood")
        rows = [json.loads(line) | {"text_pair": "other"} for line in alone.read_text().splitlines()]
        both = tmp_path / "with" / "mood.jsonl"
        both.write_text(lines(*rows))
        one, other = (
            json.loads(run("evaluate", kinds, "--task", "mood", "--data", path, "--json")[0]) for path in (alone, both)
        )
        assert one["confusion"] == other["confusion"]


@pytest.fixture(scope="module")
def files(make_task: MakeTask, tmp_path_factory: pytest.TempPathFactory) -> Mapping[str, Path]:
    folder = tmp_path_factory.mktemp("tasks")
    for name, task in make_tasks(make_task).items():
        task.save(folder / f"{name}.safetensors")
    return {name: folder / f"{name}.safetensors" for name in TASKS}


class TestExport:
    def export(self, model: Path, folder: Path, files: Sequence[Path], checks: Sequence[object], *more: object) -> str:
        arguments: list[object] = ["export", model, folder / "out", "--max-drop", 1, "--precision", "int8", *more]
        for path in files:
            arguments += ["--task", path]
        for check in checks:
            arguments += ["--check-data", check]
        return run(*arguments)[0]

    def test_each_task_is_checked_by_its_own_figure(
        self, model_folder: Path, files: Mapping[str, Path], tmp_path: Path
    ) -> None:
        paths = {name: data_file(tmp_path, name) for name in TASKS}
        checks = [f"{name}={path}" for name, path in paths.items()]
        report = json.loads(self.export(model_folder, tmp_path, list(files.values()), checks, "--json"))
        parity = report["graphs"]["int8"]["parity"]
        assert set(parity) == set(TASKS)
        for name, one in parity.items():
            figure = FIGURES[name][0]
            assert (one["rows"], one["figure"]) == (len(TEXTS), figure)
            measured = run(
                "evaluate", tmp_path / "out", "--task", name, "--data", paths[name], "--json", "--precision", "int8"
            )
            assert one[figure] == pytest.approx(json.loads(measured[0])[figure], abs=1e-6)
            assert one[f"{figure}_torch"] is not None

    def test_files_go_to_the_tasks_that_they_fit(
        self, model_folder: Path, files: Mapping[str, Path], tmp_path: Path
    ) -> None:
        paths = [data_file(tmp_path, name) for name in ("tags", "mood", "stars", "same")]
        shown = self.export(model_folder, tmp_path, list(files.values()), paths)
        header, *rows = list(shown.splitlines()[1:])
        assert header.split()[-2:] == ["agreement", "figure"]
        found = {row.split()[1]: row.split(maxsplit=6)[6] for row in rows}
        assert found["mood"].startswith("accuracy ")
        assert found["tags"].startswith("macro-F1 ")
        assert found["stars"].startswith("Pearson ")
        assert found["same"].startswith("accuracy ")
        assert (found["topics"], found["alike"]) == ("no labels", "no labels")

    def test_one_kind_alone_is_shown_as_ever(
        self, model_folder: Path, files: Mapping[str, Path], tmp_path: Path
    ) -> None:
        shown = self.export(model_folder, tmp_path, [files["mood"]], [data_file(tmp_path, "mood")])
        header, row = shown.splitlines()[1:]
        assert header.split() == ["precision", "task", "MB", "texts", "logits", "±", "same", "label", "accuracy"]
        assert row.split()[-2] == "(PyTorch"

    def test_a_file_that_fits_none(self, model_folder: Path, files: Mapping[str, Path], tmp_path: Path) -> None:
        arguments = ["export", model_folder, tmp_path / "out", "--task", files["stars"], "--check-data"]
        whole = tmp_path / "whole.jsonl"  # looks like labels, unless the kind is given
        whole.write_text(lines({"text": "a", "label": 1}, {"text": "b", "label": 2}))
        assert "fits no task: the tasks here are stars" in refused(*arguments, whole)
        words = tmp_path / "words.jsonl"
        words.write_text(lines({"text": "a", "label": "many"}))
        assert "expected a finite number" in refused(*arguments, words)
        assert "fits no task" in refused(*arguments, f"starz={whole}")


def test_tasks_are_listed_with_their_kinds(kinds: Path) -> None:
    listed = {task["task"]: task for task in json.loads(run("tasks", "list", kinds, "--json")[0])["tasks"]}
    shown = {line.split()[0]: line for line in run("tasks", "list", kinds)[0].splitlines()[1:]}
    for name, (_, more) in TASKS.items():
        kind, pairs = more.get("kind_name", "single-label"), more.get("pairs", False)
        assert (listed[name]["kind"], listed[name]["pairs"]) == (kind, pairs)
        assert f"{kind}{', pairs' if pairs else ''} " in shown[name]
    assert listed["tags"]["thresholds"] == [0.3, 0.5, 0.6]
    assert "thresholds" not in listed["mood"]
    assert "thresholds        0.3, 0.5, 0.6\n" in run("tasks", "show", kinds, "tags")[0]


@pytest.mark.parametrize("name", TASKS)
def test_an_adapter_of_every_kind_gives_the_tasks_logits(kinds: Path, tmp_path: Path, name: str) -> None:
    import onnxruntime as ort

    out = tmp_path / "task.onnx_adapter"
    report = json.loads(run("tasks", "export-adapter", kinds, name, "--out", out, "--json")[0])
    bundle = Bundle(kinds)
    task = bundle.load_task(name)
    assert (report["kind"], report["pairs"]) == (task.kind_name, task.pairs)
    adapter = ort.LoraAdapter()
    adapter.Load(str(out))
    options = ort.RunOptions()
    options.add_active_adapter(adapter)
    session = ort.InferenceSession(str(kinds / bundle.manifest.graphs["fp32"].file))
    inputs = {one.name for one in session.get_inputs()}
    with Engine(kinds, "fp32") as engine:
        tokens = engine.encode(given(name), [task] * len(TEXTS))
        expected = engine.run([(one, task) for one in tokens])
    for one, wanted in zip(tokens, expected, strict=True):
        feed = {
            "input_ids": np.array([one.ids]),
            "attention_mask": np.ones((1, len(one.ids)), np.int64),
            "task_index": np.zeros(1, np.int64),
            "spans": np.array(one.spans, np.int64).reshape(1, -1, 2),
            "token_type_ids": np.array([one.type_ids]),
        }
        (logits,) = session.run(["logits"], {key: value for key, value in feed.items() if key in inputs}, options)
        np.testing.assert_allclose(task.kind.logits_of(logits[0]), wanted, atol=1e-5)


def test_bench_knows_devices(kinds: Path) -> None:
    done = CliRunner().invoke(cli, ["bench", str(kinds), "--device", "abacus"])
    assert done.exit_code == 2
    assert "'abacus' is not one of 'cpu', 'cuda'" in done.stderr
