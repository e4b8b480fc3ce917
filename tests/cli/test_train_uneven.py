"""`edgetune train` on uneven classes: its messages, its choice of measure, and its figures per label."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from edgetune_runtime import Task


@pytest.fixture
def train(model_folder: Path, tmp_path: Path):  # type: ignore[no-untyped-def]
    """Trains on a given number of rows per label, in a separate process."""

    def run(counts: dict[str, int], *options: str) -> subprocess.CompletedProcess[str]:
        rows = [{"text": f"{label} {place}", "label": label} for label, n in counts.items() for place in range(n)]
        (tmp_path / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
        command = [sys.executable, "-m", "edgetune", "train", model_folder, "--data", tmp_path / "rows.jsonl"]
        command += ["--name", "mood", "--out", tmp_path / "mood.safetensors", "--epochs", "1", *options]
        return subprocess.run(list(map(str, command)), capture_output=True, text=True, check=False)

    return run


@pytest.mark.parametrize(
    ("counts", "options", "chosen_by"),
    [
        ({"good": 60, "fraud": 4}, [], "macro-F1"),
        ({"good": 60, "fraud": 4}, ["--class-weight", "balanced"], "macro-F1"),
        ({"good": 30, "fraud": 20}, ["--class-weight", "fraud=2", "--class-weight", "good=1"], "accuracy"),
    ],
)
def test_json_says_by_what_the_epoch_was_chosen_and_what_each_label_comes_to(  # type: ignore[no-untyped-def]
    train, tmp_path: Path, counts: dict[str, int], options: list[str], chosen_by: str
) -> None:
    done = train(counts, *options, "--json")
    assert done.returncode == 0, done.stderr
    report, task = json.loads(done.stdout), Task.load(tmp_path / "mood.safetensors")
    assert report["chosen_by"] == chosen_by
    assert ("dev_macro_f1" in task.metrics) == (chosen_by == "macro-F1")
    assert f"dev {chosen_by} {report['dev_score_by_epoch'][0]:.3f}" in done.stderr
    assert ("fraud has 3 of 57 training rows" in done.stderr) == (chosen_by == "macro-F1")
    assert ("try --class-weight" in done.stderr) == (chosen_by == "macro-F1" and not options)
    by_label = report["by_label"]
    assert {label: own["train_rows"] + own["dev_rows"] for label, own in by_label.items()} == counts
    right = sum(own["dev_right"] for own in by_label.values())
    assert right / sum(own["dev_rows"] for own in by_label.values()) == pytest.approx(report["dev_accuracy"])
    for own in by_label.values():
        assert own["dev_recall"] == own["dev_right"] / own["dev_rows"]
    assert sum(own["dev_f1"] for own in by_label.values()) / 2 == pytest.approx(report["dev_macro_f1"])


def test_labels_are_listed_if_one_is_rare(train) -> None:  # type: ignore[no-untyped-def]
    done = train({"good": 60, "fraud": 4})
    first, header, fraud, good = done.stdout.splitlines()
    assert "macro-F1" in first and "(chosen by macro-F1)" in first
    assert header.split() == ["label", "train", "rows", "dev", "rows", "right", "recall", "F1"]
    assert fraud.split()[:3] == ["fraud", "3", "1"] and good.split()[:3] == ["good", "54", "6"]
    (line,) = train({"good": 30, "fraud": 20}).stdout.splitlines()
    assert "(chosen by accuracy)" in line


def test_a_weight_that_is_none_is_refused_before_anything_is_read(train) -> None:  # type: ignore[no-untyped-def]
    done = train({"good": 5, "fraud": 5}, "--class-weight", "fraud")
    assert done.returncode == 1
    assert "--class-weight 'fraud': expected none or balanced alone, or LABEL=NUMBER" in done.stderr
