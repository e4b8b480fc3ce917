"""Training: it learns, changes nothing of the backbone, repeats exactly, and goes on exactly where it stopped."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import pytest
from transformers import TrainerCallback

from edgetune.data.labelled import LabelledText
from edgetune.training import TaskData, TrainingOptions, TrainingReport, train, trainer
from edgetune_export import Backbone, load_backbone
from edgetune_export.parity import torch_logits
from edgetune_runtime.errors import DataError, EdgetuneError
from edgetune_runtime.fitting.calibration import fit_temperature, logits_calibration_error

ROWS = [
    LabelledText(f"the {thing} {state}", label)
    for thing in ("lamp", "camera", "speaker", "parcel", "screen", "mail")
    for state, label in (
        ("is broken", "bad"),
        ("sounds great", "good"),
        ("came today", "neutral"),
        ("works well", "good"),
    )
]
OPTIONS = TrainingOptions(recipe="epochs", keep_prompt=True, epochs=3, batch_size=8, prompt_length=4)


def train_one(
    backbone: Backbone,
    rows: list[LabelledText],
    dev: list[LabelledText],
    options: TrainingOptions,
    out: Path,
    resume: bool = False,
) -> TrainingReport:
    (report,) = train(backbone, [TaskData("mood", out, rows, dev)], options, resume)
    return report


@pytest.fixture
def backbone(model_folder: Path) -> Backbone:
    return load_backbone(str(model_folder))


@pytest.mark.parametrize("method", ["prefix", "prompt"])
def test_it_learns_and_leaves_the_backbone_alone(backbone: Backbone, tmp_path: Path, method: str) -> None:
    before = backbone.fingerprint()
    options = dataclasses.replace(OPTIONS, method=method, epochs=30, head_learning_rate=2e-2)
    report = train_one(backbone, ROWS, ROWS, options, tmp_path / "mood.safetensors")
    assert backbone.fingerprint() == before == report.task.backbone_sha256
    assert report.task.metrics["dev_accuracy"] > 0.9
    assert report.trained_parameters == report.task.num_parameters
    assert [path.name for path in tmp_path.iterdir()] == ["mood.safetensors"]
    assert (tmp_path / "mood.safetensors").read_bytes() == report.task.to_bytes()


def test_the_task_is_that_of_the_best_epoch(backbone: Backbone, tmp_path: Path) -> None:
    report = train_one(backbone, ROWS, ROWS, OPTIONS, tmp_path / "mood.safetensors")
    answers = torch_logits(backbone, report.task, [row.text for row in ROWS]).argmax(axis=1)
    accuracy = np.mean([report.task.labels[place] == row.target for place, row in zip(answers, ROWS, strict=True)])
    assert accuracy == pytest.approx(max(epoch.usual for epoch in report.epochs)) == report.task.metrics["dev_accuracy"]


def test_the_temperature_is_the_best_for_the_development_rows(backbone: Backbone, tmp_path: Path) -> None:
    options = dataclasses.replace(OPTIONS, epochs=12, head_learning_rate=2e-2)
    task = train_one(backbone, ROWS, ROWS[:9], options, tmp_path / "mood.safetensors").task
    logits = torch_logits(backbone, task, [row.text for row in ROWS[:9]])
    right = np.array([task.labels.index(row.target) for row in ROWS[:9]])
    assert task.temperature == pytest.approx(fit_temperature(logits, right), rel=1e-3)
    assert abs(np.log(task.temperature)) > 0.05
    for name, temperature in (("dev_ece", task.temperature), ("dev_ece_unscaled", 1.0)):
        assert task.metrics[name] == pytest.approx(logits_calibration_error(logits, right, temperature), abs=1e-3)
    assert task.metrics["dev_ece"] != task.metrics["dev_ece_unscaled"]


def test_a_training_that_diverges_says_so(backbone: Backbone, tmp_path: Path) -> None:
    out = tmp_path / "mood.safetensors"
    with pytest.raises(
        EdgetuneError, match=r"the training diverged.*lower `learning_rate`, or without `mixed_precision`"
    ):
        train_one(backbone, ROWS, ROWS, dataclasses.replace(OPTIONS, learning_rate=1e30), out)
    assert not out.exists()


def test_the_same_seed_gives_the_same_file_and_another_does_not(backbone: Backbone, tmp_path: Path) -> None:
    seeds = [0, 0, 1]
    files = [
        train_one(
            backbone, ROWS, ROWS, dataclasses.replace(OPTIONS, seed=seed), tmp_path / "mood.safetensors"
        ).task.to_bytes()
        for seed in seeds
    ]
    assert files[0] == files[1] != files[2]


def test_a_broken_training_resumes_to_the_same_file(
    backbone: Backbone, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = train_one(backbone, ROWS, ROWS, OPTIONS, tmp_path / "whole.safetensors").task.to_bytes()

    class Stop(TrainerCallback):
        def on_step_end(self, args: object, state: object, control: object, **_: object) -> None:
            if state.global_step == 5:  # type: ignore[attr-defined]  # in the second epoch
                raise KeyboardInterrupt

    out = tmp_path / "broken.safetensors"
    checkpoints = tmp_path / "broken.safetensors.checkpoints"
    with monkeypatch.context() as patched:
        original = trainer.Trainer
        patched.setattr(
            trainer,
            "Trainer",
            lambda **arguments: original(**{**arguments, "callbacks": [*arguments["callbacks"], Stop()]}),
        )
        with pytest.raises(KeyboardInterrupt):
            train_one(backbone, ROWS, ROWS, OPTIONS, out)
    assert not out.exists()
    weights = next(checkpoints.rglob("model.safetensors"))
    assert weights.stat().st_size < 20_000, "a checkpoint holds the prompt and the head, not the backbone"
    with pytest.raises(EdgetuneError, match="had another model, other options or data"):
        train_one(backbone, ROWS, ROWS, dataclasses.replace(OPTIONS, seed=9), out, resume=True)
    with pytest.raises(EdgetuneError, match="had another model"):
        train_one(backbone, ROWS, ROWS, dataclasses.replace(OPTIONS, pooling="cls"), out, resume=True)
    (checkpoints / "seed-0/checkpoint-999").mkdir()  # broken off while it was written
    train_one(backbone, ROWS, ROWS, OPTIONS, out, resume=True)
    assert out.read_bytes() == whole
    assert not checkpoints.exists()


def test_prompt_length_zero_trains_the_head_alone(backbone: Backbone, tmp_path: Path) -> None:
    for method in ("prefix", "prompt"):
        options = dataclasses.replace(OPTIONS, method=method, prompt_length=0)
        report = train_one(backbone, ROWS, ROWS, options, tmp_path / "mood.safetensors")
        assert report.trained_parameters == 3 * backbone.sizes.hidden + 3
        assert report.task.prefix_length == report.task.prompt_length == 0


def test_a_folder_in_the_place_of_the_file_is_noticed_first(backbone: Backbone, tmp_path: Path) -> None:
    with pytest.raises(EdgetuneError, match="is a folder: expected the name of a task file"):
        train_one(backbone, ROWS, ROWS, OPTIONS, tmp_path)


@pytest.mark.parametrize(
    ("rows", "dev", "message"),
    [
        (ROWS[:1] * 5, ROWS[:1], "only the label 'bad': expected at least two"),
        (
            ROWS[:2],
            [LabelledText("text", "odd")],
            "labels that the training data does not have: odd; training has bad, good",
        ),
    ],
)
def test_bad_data_is_refused(
    backbone: Backbone, tmp_path: Path, rows: list[LabelledText], dev: list[LabelledText], message: str
) -> None:
    with pytest.raises(DataError, match=message):
        train_one(backbone, rows, dev, OPTIONS, tmp_path / "mood.safetensors")
    assert list(tmp_path.iterdir()) == []
