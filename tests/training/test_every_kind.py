"""Properties of training for every kind of answer: a new kind is tested here without new code."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from edgetune.data.labelled import LabelledText
from edgetune.training import TaskData, TrainingOptions, TrainingReport, train
from edgetune.training.objectives import OBJECTIVES
from edgetune_export import Backbone, load_backbone
from edgetune_export.parity import logits_by_text
from edgetune_runtime import Task
from edgetune_runtime.fitting.by_kind import FITTINGS, fitting_of
from edgetune_runtime.fitting.examples import answers
from edgetune_runtime.kinds import KINDS, Kind

VALUES = {"works very well": "3", "is broken": "1", "sees nothing at night": "2"}
"""What a text says → a label that each kind can read."""

THINGS = ("lamp", "camera", "speaker", "parcel")


def row_of(kind: Kind, thing: str, said: str, value: str) -> LabelledText:
    text = f"the {thing} {said}"
    if kind.reading is None:
        return LabelledText(text, kind.target(value))
    if not kind.reading.second:
        return LabelledText(text, kind.target([(4, 4 + len(thing), value)]))
    answers = [{"text": thing, "answer_start": 4}] if value != "2" else []
    return LabelledText("what is it?", kind.target(answers), text)


def rows_of(kind: Kind) -> list[LabelledText]:
    return [row_of(kind, thing, said, value) for thing in THINGS for said, value in VALUES.items()]


@pytest.fixture(scope="module")
def backbone(model_folder: Path) -> Backbone:
    return load_backbone(str(model_folder))


def fit(backbone: Backbone, kind: Kind, out: Path, epochs: int) -> TrainingReport:
    rows = rows_of(kind)
    options = TrainingOptions(
        recipe="epochs", epochs=epochs, batch_size=6, prompt_length=2, learning_rate=0.05, head_learning_rate=0.05
    )
    (report,) = train(backbone, [TaskData("task", out, rows, rows, kind, rows[0].text_pair is not None)], options)
    return report


def test_every_kind_is_fitted_and_trained() -> None:
    assert set(OBJECTIVES) == set(FITTINGS) == set(KINDS)
    assert all(objective.fitting is FITTINGS[name] for name, objective in OBJECTIVES.items())


@pytest.mark.parametrize("kind", KINDS.values(), ids=list(KINDS))
def test_it_learns_and_the_file_answers_as_the_report_says(backbone: Backbone, tmp_path: Path, kind: Kind) -> None:
    first = fit(backbone, kind, tmp_path / "first.safetensors", 1)
    report = fit(backbone, kind, tmp_path / "task.safetensors", 30)
    assert report.figures.values[kind.headline] >= max(0.8, first.figures.values[kind.headline] - 0.01)
    assert report.usual in report.figures.values
    assert {f"dev_{name}" for name in fitting_of(kind).stored} <= report.task.metrics.keys()

    task, rows = Task.load(tmp_path / "task.safetensors"), rows_of(kind)
    assert task.kind is kind
    logits, reads = logits_by_text(backbone, task, [row.given for row in rows])
    results = answers(task, logits, reads)
    figures = kind.figures([row.target for row in rows], results, task)
    assert figures.values == pytest.approx(report.figures.values, abs=1e-4)
    for result in results:
        assert list(kind.values(result)) == list(kind.columns)
        json.dumps(result.fields())
        for output in kind.outputs:
            assert len(output.of(result)) == (len(task.labels) if output.by_label else 1)
    assert kind.agreement(logits, logits, task) == 1
    assert kind.margin(np.atleast_2d(logits[0]), task) >= 0
