"""The default method."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from conftest import LanguageModelFolder

from edgetune.data.labelled import LabelledText
from edgetune.given import training_options
from edgetune.training import TaskData, TrainingOptions, methods, train
from edgetune.training.methods import chosen
from edgetune.training.options import CONTRASTIVE, EPOCHS
from edgetune_export import Backbone, load_backbone
from edgetune_runtime import Task
from edgetune_runtime.parts import titled_lengths

ROWS = [
    LabelledText(f"the {thing} {state}", state) for thing in ("lamp", "door", "key") for state in ("works", "broke")
]


@pytest.fixture(scope="module")
def backbone(language_model_folder: LanguageModelFolder) -> Backbone:
    return load_backbone(str(language_model_folder("bert")))


@pytest.mark.parametrize(
    ("given", "method"),
    [
        ({}, "strong"),
        ({"dropout": 0.2, "epochs": 2}, "strong"),
        ({"prompt_length": 7}, "prefix"),
        ({"prompt_length": 0}, "prefix"),
        ({"init": "data"}, "prefix"),
        ({"init_text": "a film"}, "prefix"),
        ({"label_words": {"works": ["good"], "broke": ["bad"]}}, "prefix"),
        ({"positions_behind_prompt": True}, "prefix"),
        ({"method": "auto", "prompt_length": 7}, "prefix"),
        ({"method": "prompt"}, "prompt"),
        ({"parts": {"units": 3}}, "auto"),
    ],
)
def test_strong_unless_a_prompt_is_asked_for(backbone: Backbone, given: dict[str, Any], method: str) -> None:
    assert chosen(training_options(None, given), EPOCHS, backbone).method == method


@pytest.mark.parametrize("architecture", ["gpt2", "t5"])
def test_a_prefix_on_a_decoder(language_model_folder: LanguageModelFolder, architecture: str) -> None:
    assert chosen(TrainingOptions(), EPOCHS, load_backbone(str(language_model_folder(architecture)))).method == "prefix"


def test_a_prefix_for_few_rows(backbone: Backbone) -> None:
    assert chosen(TrainingOptions(), CONTRASTIVE, backbone).method == "prefix"
    assert chosen(TrainingOptions(method="strong"), CONTRASTIVE, backbone).method == "strong"


@pytest.mark.parametrize("part", ["low-rank", "units"])
def test_a_prefix_where_a_part_has_no_place(backbone: Backbone, monkeypatch: pytest.MonkeyPatch, part: str) -> None:
    monkeypatch.setattr(methods.TRAININGS[part].part, "has_place", lambda _: False)
    assert chosen(TrainingOptions(), EPOCHS, backbone).method == "prefix"


def _trained(backbone: Backbone, folder: Path, **options: Any) -> Task:
    data = TaskData("mood", folder / "mood.safetensors", ROWS, ROWS)
    (report,) = train(
        backbone, [data], TrainingOptions(recipe="epochs", epochs=1, keep_prompt=True, **options), note=lambda _: None
    )
    return report.task


@pytest.mark.parametrize(
    "given",
    [
        {"method": "prefix", "prompt_length": 3},
        {"method": "prompt", "prompt_length": 3},
        {"method": "units"},
        {"method": "strong"},
        {"parts": {"prefix": 3, "low-rank": 2}},
    ],
)
def test_what_begins_as_another_task_has_its_parts(backbone: Backbone, tmp_path: Path, given: dict[str, Any]) -> None:
    first = _trained(backbone, tmp_path, **given)
    second = _trained(backbone, tmp_path, init_from=first, learning_rate=1e-30)
    assert second.method == first.method
    assert titled_lengths(second.tensors) == titled_lengths(first.tensors) != {}


def test_what_is_chosen_is_said_and_stored(backbone: Backbone, tmp_path: Path) -> None:
    said: list[str] = []
    data = TaskData("mood", tmp_path / "mood.safetensors", ROWS, ROWS)
    options = TrainingOptions(epochs=1, keep_prompt=True)
    (report,) = train(backbone, [data], replace(options, recipe="epochs"), note=said.append)
    assert "6 training rows: method strong (`method` overrides)" in said
    assert report.task.method == "strong"
    assert titled_lengths(report.task.tensors) == {"low-rank": 8, "units": 16}
