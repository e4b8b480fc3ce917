"""The choice of the epoch: ties go to the lowest loss, also for several tasks, and also after an interruption."""

from __future__ import annotations

import dataclasses
import math
from pathlib import Path

import numpy as np
import pytest
from transformers import EvalPrediction, TrainerCallback

from edgetune.data.labelled import LabelledText
from edgetune.training import TaskData, TrainingOptions, TrainingReport, train, trainer
from edgetune.training.epochs import Epoch, Judge, best
from edgetune_export import Backbone, load_backbone
from edgetune_export.parity import torch_logits
from edgetune_runtime import Task
from edgetune_runtime.fitting.by_kind import ACCURACY, MACRO_F1, Measure, confusion, loss_of
from edgetune_runtime.kinds.single_label import SINGLE_LABEL
from edgetune_runtime.metrics import Quality, quality_of

ROWS = [
    LabelledText(f"the {thing} {state}", label)
    for thing in ("lamp", "camera", "speaker", "parcel")
    for state, label in (("is broken", "bad"), ("sounds great", "good"), ("works well", "good"))
]
UNEVEN = [*ROWS[1::3] * 10, ROWS[0]]
TIED = [LabelledText("the lamp is broken", label) for label in ("bad", "good")]
"""Development rows that every model answers equally well, so that only the loss chooses the epoch."""

OPTIONS = TrainingOptions(
    recipe="epochs", keep_prompt=True, epochs=5, batch_size=4, prompt_length=4, learning_rate=1e-3
)


def loss(logits: np.ndarray, right: np.ndarray, measure: Measure) -> float:
    """The loss of a single-label task. Shape: [rows, labels], [rows]."""
    return loss_of(SINGLE_LABEL, logits, right[:, None].astype(np.float32), measure)


def judged(logits: np.ndarray, right: np.ndarray) -> Quality:
    """The quality of a single-label task's answers. Shape: [rows, labels], [rows]."""
    return quality_of(confusion(logits, right))


def draft(labels: int) -> Task:
    """A single-label task with a number of labels."""
    return Task("t", tuple(map(str, range(labels))), "", {}, "random", "tiny", "mean")


@pytest.fixture
def backbone(model_folder: Path) -> Backbone:
    return load_backbone(str(model_folder))


@pytest.mark.parametrize(
    ("epochs", "number"),
    [
        ([(0.5, 1.0), (0.9, 0.8), (0.9, 0.6), (0.9, 0.7)], 3),
        ([(0.9, 0.9), (0.8, 0.1)], 1),
        ([(0.9, 0.5), (0.9, 0.5)], 1),
        ([(0.9, math.nan), (0.9, 5.0)], 2),
        ([(0.9, math.inf), (0.9, math.nan)], 1),
        ([(0.3 + 0.2 + 0.1, 0.5), (0.1 + 0.2 + 0.3, 0.4)], 2),  # equal, but for the last digit
        ([(0.1 + 0.2 + 0.3, 0.5), (0.3 + 0.2 + 0.1, 0.4)], 2),
    ],
)
def test_the_best_score_then_the_least_loss_then_the_first(epochs: list[tuple[float, float]], number: int) -> None:
    made = [Epoch(place, 10 * place, score, score, found) for place, (score, found) in enumerate(epochs, 1)]
    assert best(made).number == number


def test_loss_over_rows_and_over_labels_by_hand() -> None:
    logits = np.log(np.array([[0.5, 0.5], [0.8, 0.2], [0.9, 0.1], [0.75, 0.25]], np.float32))
    right = np.array([0, 0, 0, 1])
    own = [-math.log(share) for share in (0.5, 0.8, 0.9, 0.25)]
    assert loss(logits, right, ACCURACY) == pytest.approx(sum(own) / 4)
    assert loss(logits, right, MACRO_F1) == pytest.approx((sum(own[:3]) / 3 + own[3]) / 2)


def test_the_score_of_several_tasks_is_the_mean_of_their_own_measures() -> None:
    least = np.finfo(np.float32).min
    logits = np.array([[2, 1, least], [0, 1, least], [1, 0, 3], [4, 0, 3], [0, 9, 3]], np.float32)
    index, right = np.array([0, 0, 1, 1, 1]), np.array([0, 0, 2, 2, 1])
    targets, text = right[:, None].astype(np.float32), np.array([0, 1, 0, 1, 2])
    found = Judge([MACRO_F1, ACCURACY], [draft(2), draft(3)])(
        EvalPrediction(logits[:, None], (index, targets[:, None], text[:, None]))
    )
    own = [(logits[index == place, :labels], right[index == place]) for place, labels in enumerate((2, 3))]
    assert found["score"] == pytest.approx((judged(*own[0]).macro_f1 + 2 / 3) / 2)
    assert found["usual"] == pytest.approx((1 / 2 + 2 / 3) / 2)
    assert found["unweighted_loss"] == pytest.approx((loss(*own[0], MACRO_F1) + loss(*own[1], ACCURACY)) / 2)


def test_judged_equals_scikit_learn() -> None:
    metrics = pytest.importorskip("sklearn.metrics")
    random = np.random.default_rng(0)
    logits, right = random.normal(size=(60, 4)), random.choice(4, 60, p=[0.85, 0.05, 0.05, 0.05])
    found, answers = judged(logits, right), logits.argmax(axis=1)
    assert found.macro_f1 == pytest.approx(metrics.f1_score(right, answers, average="macro"))
    np.testing.assert_allclose(found.f1, metrics.f1_score(right, answers, average=None))
    np.testing.assert_allclose(found.recall, metrics.recall_score(right, answers, average=None))


def _tasks(folder: Path, rows: list[list[LabelledText]], dev: list[LabelledText]) -> list[TaskData]:
    return [TaskData(f"t{place}", folder / f"t{place}.safetensors", own, dev) for place, own in enumerate(rows)]


def _kept(reports: list[TrainingReport]) -> int:
    """The epoch by the rule, from the report's figures."""
    epochs = reports[0].epochs
    top = [one for one in epochs if round(one.score, 9) == round(max(each.score for each in epochs), 9)]
    return min(top, key=lambda one: one.loss).number


@pytest.mark.parametrize(
    ("rows", "measures"),
    [([ROWS], [ACCURACY]), ([UNEVEN], [MACRO_F1]), ([ROWS, UNEVEN], [ACCURACY, MACRO_F1])],
    ids=["accuracy", "macro-F1", "both"],
)
def test_the_checkpoint_of_the_epoch_by_the_rule_is_kept(
    backbone: Backbone, tmp_path: Path, rows: list[list[LabelledText]], measures: list[Measure]
) -> None:
    # Class weights where a label is rare: the loss that the choice goes by must not count them.
    options = OPTIONS if measures == [ACCURACY] else dataclasses.replace(OPTIONS, class_weight="balanced")
    reports = train(backbone, _tasks(tmp_path, rows, ROWS[:3]), options)
    number = _kept(reports)
    losses = []
    for report, measure in zip(reports, measures, strict=True):
        assert report.task.metrics["best_epoch"] == number
        assert report.chosen_by == measure.name
        assert ("dev_macro_f1" in report.task.metrics) == (measure is MACRO_F1)
        right = np.array([report.task.labels.index(row.target) for row in ROWS[:3]])
        losses.append(loss(torch_logits(backbone, report.task, [row.text for row in ROWS[:3]]), right, measure))
    assert np.mean(losses) == pytest.approx(reports[0].epochs[number - 1].loss, abs=1e-4)


@pytest.mark.parametrize(
    ("rows", "dev", "stop"),
    [(ROWS, ROWS[:3], 5), (ROWS, ROWS[:3], 14), (ROWS, TIED, 8), (UNEVEN, TIED, 30)],
    ids=["early", "late", "with ties", "with ties, after the best"],
)
def test_a_training_resumes_to_the_same_file(
    backbone: Backbone,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    rows: list[LabelledText],
    dev: list[LabelledText],
    stop: int,
) -> None:
    (tmp_path / "whole").mkdir()
    reports = train(backbone, _tasks(tmp_path / "whole", [rows], dev), OPTIONS)
    if dev is TIED:
        assert len({one.score for one in reports[0].epochs}) == 1
    assert reports[0].task.metrics["best_epoch"] == _kept(reports)

    class Stop(TrainerCallback):
        def on_step_end(self, args: object, state: object, control: object, **_: object) -> None:
            if state.global_step == stop:  # type: ignore[attr-defined]
                raise KeyboardInterrupt

    tasks = _tasks(tmp_path, [rows], dev)
    with monkeypatch.context() as patched:
        patched.setattr(trainer, "Progress", lambda *_: Stop())
        with pytest.raises(KeyboardInterrupt):
            train(backbone, tasks, OPTIONS)
    train(backbone, tasks, OPTIONS, resume=True)
    assert tasks[0].out.read_bytes() == reports[0].task.to_bytes()


def test_the_kept_loss_counts_no_class_weights(backbone: Backbone, tmp_path: Path) -> None:
    weighted = dataclasses.replace(OPTIONS, class_weight={"bad": 50.0})
    (report,) = train(backbone, _tasks(tmp_path, [ROWS], ROWS[:3]), weighted)
    right = np.array([report.task.labels.index(row.target) for row in ROWS[:3]])
    plain = loss(torch_logits(backbone, report.task, [row.text for row in ROWS[:3]]), right, ACCURACY)
    assert report.epochs[int(report.task.metrics["best_epoch"]) - 1].loss == pytest.approx(plain, abs=1e-4)
