"""`edgetune train` with data of every kind: detection, messages, results, and one-line errors."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

from edgetune.cli import cli
from edgetune_runtime import Task

THINGS = ("lamp", "camera", "parcel", "speaker")
DATA: Mapping[str, Any] = {
    "single-label": lambda place: "bad" if place % 2 else "good",
    "multi-label": lambda place: [label for label, of in (("a", 2), ("b", 3)) if place % of == 0],
    "score": lambda place: place / 8,
}
"""Kind → value of the label column in a row."""

SEEN = {
    "single-label": "",
    "multi-label": "the labels are lists: kind multi-label (--kind overrides)",
    "score": "the labels are numbers, not all of them whole: kind score (--kind overrides)",
}
FIGURES = {
    "single-label": ("accuracy", "macro_f1", "ece"),
    "multi-label": ("macro_f1", "micro_f1", "mean_average_precision", "exact_match"),
    "score": ("pearson", "spearman", "mean_absolute_error"),
}
USUAL = {"single-label": "accuracy", "multi-label": "mean_average_precision", "score": "pearson"}


def rows_of(kind: str, pairs: bool = False, number: int = 20) -> list[dict[str, Any]]:
    return [
        {"text": f"the {THINGS[place % 4]} {place}", "label": DATA[kind](place)}
        | ({"text_pair": f"it was {THINGS[place % 3]}"} if pairs else {})
        for place in range(number)
    ]


def write(path: Path, rows: Sequence[Mapping[str, Any]]) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


class Trainer:
    """Runs `edgetune train` on files of one folder, with a short training."""

    def __init__(self, model: Path, folder: Path) -> None:
        self.model, self.folder = model, folder

    @property
    def out(self) -> Path:
        return self.folder / "t.safetensors"

    def raw(self, *arguments: object) -> Result:
        short = ["--epochs", "1", "--prompt-length", "2"]
        return CliRunner().invoke(cli, ["train", str(self.model), *short, *map(str, arguments)])

    def __call__(self, rows: Sequence[Mapping[str, Any]], *options: object) -> Result:
        data = write(self.folder / "rows.jsonl", rows)
        return self.raw("--data", data, "--name", "t", "--out", self.out, *options)

    def task(self, rows: Sequence[Mapping[str, Any]], *options: object) -> tuple[Task, dict[str, Any], str]:
        """The task, its JSON record, and the messages."""
        done = self(rows, *options, "--json")
        assert done.exit_code == 0, f"{done.output}{done.exception!r}"
        return Task.load(self.out), json.loads(done.stdout), done.stderr

    def refused(self, rows: Sequence[Mapping[str, Any]], *options: object) -> str:
        done = self(rows, *options)
        assert done.exit_code == 1, done.output
        assert done.stdout == ""
        assert {path.suffix for path in self.folder.iterdir()} <= {".jsonl"}, "nothing is left behind"
        message = str(done.exception)
        assert "\n" not in message
        return message


@pytest.fixture
def train(model_folder: Path, tmp_path: Path) -> Trainer:
    return Trainer(model_folder, tmp_path)


@pytest.mark.parametrize("pairs", [False, True], ids=["texts", "pairs"])
@pytest.mark.parametrize("kind", DATA)
def test_the_kind_is_seen_and_said(train: Trainer, kind: str, pairs: bool) -> None:
    task, record, said = train.task(rows_of(kind, pairs))
    assert (task.kind_name, task.pairs) == (kind, pairs) == (record["kind"], record["pairs"])
    assert SEEN[kind] in said
    assert ("(--kind overrides)" in said) == (kind != "single-label")
    assert "no --eval-data: 2 of 20 rows are held out to choose the best epoch" in said
    shown = {"accuracy": "accuracy", "mean_average_precision": "mean average precision", "pearson": "Pearson"}
    assert f"dev {shown[USUAL[kind]]} " in said.partition("epoch 1/1")[2]


@pytest.mark.parametrize("kind", DATA)
def test_the_json_record_of_a_kind(train: Trainer, kind: str) -> None:
    task, record, _ = train.task(rows_of(kind))
    figures = [f"dev_{figure}" for figure in FIGURES[kind]]
    thresholds = ["thresholds"] if kind == "multi-label" else []
    assert list(record) == [
        "task", "file", "kind", "pairs", "labels", "recipe", "kept", "held_out_errors", "chosen_by", "best_epoch",
        *figures, f"dev_{USUAL[kind]}_by_epoch",
        "dev_score_by_epoch", "dev_loss_by_epoch", "by_label", "temperature", *thresholds, "trained_parameters",
        "backbone_parameters", "bytes", "seconds",
    ]  # fmt: skip
    assert (record["task"], record["file"]) == ("t", str(train.out))
    assert record["labels"] == list(task.labels)
    assert record["bytes"] == train.out.stat().st_size
    assert record["dev_score_by_epoch"] == record[f"dev_{USUAL[kind]}_by_epoch"] == pytest.approx(
        [record[f"dev_{USUAL[kind]}"]]
    )  # fmt: skip
    assert record.get("thresholds", []) == list(task.thresholds)
    assert list(record["by_label"]) == ([] if kind == "score" else list(task.labels))
    for own in record["by_label"].values():
        assert own["train_rows"] > 0 <= own["dev_rows"]
        assert ("dev_right" in own) == (kind == "single-label")


@pytest.mark.parametrize("kind", DATA)
def test_without_json_a_line_says_what_came_out(train: Trainer, kind: str) -> None:
    done = train(rows_of(kind))
    (line,) = done.stdout.splitlines()
    names = {"macro_f1": "macro-F1", "micro_f1": "micro-F1", "ece": "ECE"}
    names |= {"pearson": "Pearson", "spearman": "Spearman"}
    for figure in FIGURES[kind]:
        assert f"{names.get(figure, figure.replace('_', ' '))} " in line
    assert (f"{len(Task.load(train.out).labels)} labels" in line) == (kind != "score")


@pytest.mark.parametrize(
    ("values", "seen", "kind", "labels"),
    [
        (["0.5", "1.5"], "score", "single-label", ("0.5", "1.5")),
        (["bad", "good"], "single-label", "multi-label", ("bad", "good")),
        (["a|b", "a"], "multi-label", "single-label", ("a", "a|b")),
        ([3, 4], "single-label", "score", ("score",)),
    ],
)
def test_kind_overrides(train: Trainer, values: list[Any], seen: str, kind: str, labels: tuple[str, ...]) -> None:
    rows = [{**row, "label": values[place % 2]} for place, row in enumerate(rows_of("score"))]
    assert train.task(rows)[1]["kind"] == seen
    task, record, said = train.task(rows, "--kind", kind)
    assert (task.kind_name, task.labels, record["kind"]) == (kind, labels, kind)
    assert "(--kind overrides)" not in said


@pytest.mark.parametrize(
    ("seen", "kind", "message"),
    [
        ("score", "single-label", "'label' is 0.125: expected a string, an integer or a boolean"),
        ("multi-label", "single-label", '\'label\' is ["a", "b"]: expected a string, an integer or a boolean'),
        ("single-label", "score", "'label' is \"good\": expected a finite number"),
        ("multi-label", "score", '\'label\' is ["a", "b"]: expected a finite number'),
    ],
)
def test_a_kind_that_the_labels_are_not(train: Trainer, seen: str, kind: str, message: str) -> None:
    assert message in train.refused(rows_of(seen), "--kind", kind)


def test_whole_numbers_are_labels_unless_the_kind_is_said(train: Trainer) -> None:
    rows = [{**row, "label": place % 4} for place, row in enumerate(rows_of("score"))]
    assert train.task(rows)[0].labels == ("0", "1", "2", "3")
    assert train.task(rows, "--kind", "score")[0].kind_name == "score"


def test_joined_labels_are_several(train: Trainer) -> None:
    rows = [{**row, "label": ["a", "a|b", "b"][place % 3]} for place, row in enumerate(rows_of("score"))]
    task, _, said = train.task(rows)
    assert (task.kind_name, task.labels) == ("multi-label", ("a", "b"))
    assert "the labels are joined with '|': kind multi-label (--kind overrides)" in said
    assert train.task(rows, "--kind", "single-label")[0].labels == ("a", "a|b", "b")


def test_the_old_name_of_name_is_noted(train: Trainer) -> None:
    data = write(train.folder / "rows.jsonl", rows_of("single-label"))
    old, new = (
        train.raw("--data", data, option, "mood", "--out", train.folder / f"{option}.safetensors")
        for option in ("--task", "--name")
    )
    assert old.exit_code == new.exit_code == 0
    assert "--task is now --name; the old spelling will go in a later version" in old.stderr
    assert "--task" not in new.stderr
    files = [(train.folder / f"{option}.safetensors").read_bytes() for option in ("--task", "--name")]
    assert files[0] == files[1]
    assert Task.load(train.folder / "--task.safetensors").name == "mood"


def test_columns_of_0_and_1(train: Trainer) -> None:
    rows = [
        {"review": f"the {THINGS[place % 4]}", "broken": place % 2, "late": int(place % 3 == 0)} for place in range(20)
    ]
    task, _, said = train.task(rows, "--text-column", "review", "--label-column", "broken", "--label-column", "late")
    assert (task.kind_name, task.labels) == ("multi-label", ("broken", "late"))
    assert "(--kind overrides)" not in said, "several columns say it"
    odd = [*rows, {"review": "the lamp", "broken": 2, "late": 0}]
    message = train_again(train).refused(
        odd, "--text-column", "review", "--label-column", "broken", "--label-column", "late"
    )
    assert "line 21: 'broken' is 2: expected 0 or 1, since several label columns are named" in message


def train_again(train: Trainer) -> Trainer:
    """The same in a separate folder."""
    folder = train.folder / "again"
    folder.mkdir()
    return Trainer(train.model, folder)


def test_a_named_column_has_the_second_texts(train: Trainer) -> None:
    rows = [{"a": row["text"], "b": row["text_pair"], "label": row["label"]} for row in rows_of("score", pairs=True)]
    task, record, _ = train.task(rows, "--text-column", "a", "--text-pair-column", "b")
    assert task.pairs and record["pairs"]
    message = train_again(train).refused(rows, "--text-column", "a", "--text-pair-column", "c")
    assert "no column 'c' among a, b, label" in message and "--text-pair-column" in message


def test_tasks_of_several_kinds_share_a_prompt(train: Trainer) -> None:
    arguments: list[object] = []
    for kind in DATA:
        data = write(train.folder / f"{kind}.jsonl", rows_of(kind, pairs=kind == "score"))
        arguments += ["--data", data, "--name", kind, "--out", train.folder / f"{kind}.safetensors"]
    done = train.raw(*arguments, "--keep-prompt", "--json")
    assert done.exit_code == 0, done.output
    records = json.loads(done.stdout)["tasks"]
    assert [(record["task"], record["kind"], record["pairs"]) for record in records] == [
        (kind, kind, kind == "score") for kind in DATA
    ]
    tasks = [Task.load(train.folder / f"{kind}.safetensors") for kind in DATA]
    assert len({task.tensors["prefix_keys"].tobytes() for task in tasks}) == 1
    assert "dev accuracy and mean average precision and Pearson " in done.stderr


def test_rare_labels_beside_another_kind_are_shown_with_both_usual_measures(train: Trainer) -> None:
    rare = [{"text": f"the {place}", "label": "fraud" if place < 2 else "good"} for place in range(40)]
    arguments: list[object] = []
    for name, rows in (("mood", rare), ("stars", rows_of("score"))):
        data = write(train.folder / f"{name}.jsonl", rows)
        arguments += ["--data", data, "--name", name, "--out", train.folder / f"{name}.safetensors"]
    done = train.raw(*arguments)
    assert done.exit_code == 0, done.output
    assert "dev macro-F1 and Pearson " in done.stderr
    assert " (accuracy and Pearson " in done.stderr


def test_a_training_that_is_broken_off_goes_on_to_the_same_file(model_folder: Path, tmp_path: Path) -> None:
    """The process is interrupted (like Ctrl-C) in the second epoch."""
    data = write(tmp_path / "rows.jsonl", rows_of("multi-label"))
    program = (
        "import sys\n"
        "from edgetune.training import progress\n"
        "step = int(sys.argv.pop())\n"
        "def on_step_end(self, args, state, control, **_):\n"
        "    if state.global_step == step: raise KeyboardInterrupt\n"
        "progress.Progress.on_step_end = on_step_end\n"
        "from edgetune.cli import main\n"
        "main()"
    )

    def run(out: Path, step: int, *options: str) -> subprocess.CompletedProcess[str]:
        command = ["train", model_folder, "--data", data, "--name", "t", "--out", out, "--epochs", 2, *options, step]
        command[1:1] = ["--prompt-length", 2, "--batch-size", 6]
        return subprocess.run(
            [sys.executable, "-c", program, *map(str, command)], capture_output=True, text=True, check=False
        )

    whole, broken = tmp_path / "whole.safetensors", tmp_path / "broken.safetensors"
    assert run(whole, -1).returncode == 0
    stopped = run(broken, 4)
    assert stopped.returncode != 0 and not broken.exists()
    assert f"stopped: --resume goes on from the last epoch in {broken}.checkpoints" in stopped.stderr
    done = run(broken, -1, "--resume")
    assert done.returncode == 0, done.stderr
    assert "epoch 1/2" not in done.stderr and "epoch 2/2" in done.stderr
    assert broken.read_bytes() == whole.read_bytes()


def test_several_seeds_are_told_everywhere(train: Trainer) -> None:
    report = train.folder / "report"
    task, record, said = train.task(rows_of("single-label"), "--seeds", 2, "--seed", 7, "--report", report)
    seeds = record["seeds"]
    assert (seeds["figure"], set(seeds["by_seed"])) == ("dev_accuracy", {"7", "8"})
    assert record["dev_accuracy"] == seeds["by_seed"][str(seeds["kept"])] == max(seeds["by_seed"].values())
    assert seeds["mean"] == pytest.approx(sum(seeds["by_seed"].values()) / 2)
    assert (task.metrics["dev_accuracy_mean"], task.metrics["seeds"]) == (seeds["mean"], 2)
    assert "seed 2 of 2 (--seed 8)\n" in said and "seed 2 of 2  epoch 1/1  loss" in said
    assert f"t: accuracy on development rows {seeds['mean']:.3f} ± {seeds['deviation']:.3f} with 2 seeds" in said
    assert f"2 trainings with different seeds have a mean accuracy of {seeds['mean']:.3f}" in (
        report / "report.html"
    ).read_text(encoding="utf-8")
    assert "seeds" not in train.task(rows_of("single-label"))[1]


class TestErrors:
    """Each error is one line: what came, what was expected, what to do. Nothing is left behind."""

    def test_lists_and_texts_in_one_column(self, train: Trainer) -> None:
        rows = [*rows_of("multi-label"), {"text": "the lamp", "label": "a"}]
        message = train.refused(rows)
        assert 'line 21: \'label\' is "a" (kind single-label), and an earlier row has ["a", "b"]' in message
        assert message.endswith("write all of them as lists, or say --kind multi-label")

    def test_a_label_among_numbers_is_a_label(self, train: Trainer) -> None:
        message = train.refused([*rows_of("score"), {"text": "the lamp", "label": "high"}], "--kind", "score")
        assert "line 21: 'label' is \"high\": expected a finite number" in message

    @pytest.mark.parametrize("number", ["NaN", "inf", "1e999"])
    def test_a_number_that_is_not_finite(self, train: Trainer, number: str) -> None:
        message = train.refused([*rows_of("score"), {"text": "the lamp", "label": number}])
        assert "line 21" in message and "expected a finite number" in message

    def test_a_pair_column_in_half_of_the_rows(self, train: Trainer) -> None:
        rows = [
            {name: value for name, value in row.items() if name != "text_pair" or place % 2}
            for place, row in enumerate(rows_of("score", pairs=True))
        ]
        assert "line 1 has no text_pair, other rows have one: add it, or take it out of all rows" in train.refused(rows)

    @pytest.mark.parametrize("pairs", [False, True])
    def test_pairs_in_one_of_training_and_development_data(self, train: Trainer, pairs: bool) -> None:
        dev = write(train.folder / "dev.jsonl", rows_of("score", not pairs))
        message = train.refused(rows_of("score", pairs), "--eval-data", dev)
        assert "dev.jsonl differ: one has pairs of texts, the other does not" in message

    def test_development_data_is_read_as_the_training_data(self, train: Trainer) -> None:
        dev = write(train.folder / "dev.jsonl", rows_of("single-label"))
        message = train.refused(rows_of("score"), "--eval-data", dev)
        assert "dev.jsonl, line 1: 'label' is \"good\": expected a finite number" in message

    @pytest.mark.parametrize("kind", ["multi-label", "score"])
    def test_class_weights_for_other_kinds(self, train: Trainer, kind: str) -> None:
        message = train.refused(rows_of(kind), "--class-weight", "balanced")
        assert message == (
            f"class weights came for a task of the kind '{kind}': expected none; they are for single-label tasks"
        )

    @pytest.mark.parametrize("stride", [12, 40])
    def test_windows_that_do_not_move_on(self, train: Trainer, stride: int) -> None:
        message = train.refused(rows_of("score"), "--long", "windows", "--max-length", 12, "--stride", stride)
        assert message == (
            f"--stride {stride} came for windows of 12 tokens, which would not move on: expected a lower --stride, or "
            f"a higher --max-length"
        )
        assert train(rows_of("score"), "--max-length", 12, "--stride", stride).exit_code == 0, "no windows, no stride"

    def test_scores_that_are_all_the_same(self, train: Trainer) -> None:
        rows = [{**row, "label": 0.5} for row in rows_of("score")]
        assert "all scores of the training data are 0.5: expected at least two different ones" in train.refused(rows)

    def test_a_template_for_pairs_without_pairs(self, train: Trainer) -> None:
        message = train.refused(rows_of("score"), "--template", "{text} and {text_pair}")
        assert "has {text_pair}, and the texts are no pairs: expected data with second texts" in message

    def test_several_columns_of_one_label(self, train: Trainer) -> None:
        message = train.refused(
            rows_of("score"), "--label-column", "a", "--label-column", "b", "--kind", "single-label"
        )
        assert "2 label columns came for the kind 'single-label': expected one" in message

    @pytest.mark.parametrize(
        ("options", "message"),
        [
            (["--kind", "labels"], "'labels' is not one of"),
            (["--name", "u"], "1 --data, 2 --name, 1 --out, 0 --eval-data: expected one of each for each task"),
            (["--fixed-label-words"], "--fixed-label-words came without --label-words"),
        ],
    )
    def test_wrong_usage(self, train: Trainer, options: list[str], message: str) -> None:
        done = train(rows_of("single-label"), *options)
        assert done.exit_code == 2
        assert message in " ".join(done.output.split())


def test_windows_of_long_texts(train: Trainer) -> None:
    rows = [
        {**row, "text": row["text"] + " and more of it" * (place % 4)} for place, row in enumerate(rows_of("score"))
    ]
    task, _, said = train.task(rows, "--long", "windows", "--max-length", 12, "--stride", 3)
    assert (task.long_texts, task.stride, task.max_length) == ("windows", 3, 12)
    assert "are longer than" not in said, "nothing is cut"
    assert task.metrics["dev_rows"] == 2
    assert "are longer than 12 tokens: their ends are not read" in train.task(rows, "--max-length", 12)[2]


@pytest.mark.parametrize("recipe", ["epochs", "contrastive"])
def test_a_page_is_written_about_the_rows_that_judged(model_folder: Path, tmp_path: Path, recipe: str) -> None:
    data = write(tmp_path / "rows.jsonl", rows_of("single-label"))
    base = ["train", model_folder, "--data", data, "--name", "t", "--out", tmp_path / "t.safetensors", "--json"]
    options = ["--recipe", recipe, "--prompt-length", 2, "--report", tmp_path / "page"]
    done = CliRunner().invoke(cli, list(map(str, [*base, *options])))
    assert done.exit_code == 0, f"{done.output}{done.exception!r}"
    record, page = json.loads(done.stdout), (tmp_path / "page" / "report.html").read_text()
    assert record["report"] == str(tmp_path / "page" / "report.html")
    assert ("Score and loss per epoch" in page) == (recipe == "epochs")
    assert "precision fp32" in page


@pytest.mark.parametrize(
    ("options", "parts"),
    [
        (["--method", "strong"], {"low-rank": 8, "units": 16}),
        (["--parts", "prefix:3,units:2"], {"prefix": 3, "units": 2}),
    ],
)
def test_parts_are_trained_exported_and_listed(
    model_folder: Path, tmp_path: Path, options: list[str], parts: dict[str, int]
) -> None:
    data = write(tmp_path / "rows.jsonl", rows_of("single-label"))
    out, bundle = tmp_path / "t.safetensors", tmp_path / "bundle"
    run = CliRunner().invoke
    told = ["--data", str(data), "--name", "t", "--out", str(out), "--epochs", "1", "--keep-prompt"]
    done = run(cli, ["train", str(model_folder), *told, *options])
    assert done.exit_code == 0, f"{done.output}{done.exception!r}"
    assert Task.load(out).parts == parts
    assert run(cli, ["export", str(model_folder), str(bundle), "--task", str(out)]).exit_code == 0
    (task,) = json.loads(run(cli, ["tasks", "list", str(bundle), "--json"]).stdout)["tasks"]
    assert task["parts"] == parts
    shown = ", ".join(f"{name} {length}" for name, length in parts.items())
    assert shown in run(cli, ["tasks", "list", str(bundle)]).stdout
    adapter = run(cli, ["tasks", "export-adapter", str(bundle), "t", "--out", str(tmp_path / "t.onnx_adapter")])
    assert "it is for onnx/model_light.onnx or onnx/model_int8_light.onnx" in adapter.stdout
    answered = run(cli, ["classify", str(bundle), "--task", "t"], input="the lamp 3\n")
    assert json.loads(answered.stdout)["status"] == "ok"


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["--parts", "units:2", "--method", "lora"], "--parts came with --method"),
        (["--method", "lora", "--prompt-length", "3"], "--prompt-length came with low-rank alone"),
        (["--parts", "rank:2"], "--parts 'rank:2': expected PART:LENGTH"),
        (["--parts", "prefix:2", "--prompt-length", "3"], "--prompt-length came with --parts"),
    ],
)
def test_parts_that_do_not_go_together_are_refused(tmp_path: Path, options: list[str], said: str) -> None:
    told = ["--data", "rows.jsonl", "--name", "t", "--out", str(tmp_path / "t.safetensors")]
    done = CliRunner().invoke(cli, ["train", "model", *told, *options])
    assert done.exit_code == 2
    assert said in done.stderr
