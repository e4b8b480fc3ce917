"""Training options from Python: everything that the command line rejects is rejected here too."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from conftest import MakeTask

from edgetune.given import training_options
from edgetune.training.options import TrainingOptions
from edgetune_runtime.errors import DataError, TaskError

FIELDS = {one.name: one for one in dataclasses.fields(TrainingOptions)}


def test_the_defaults_are_the_fields() -> None:
    assert training_options(None, {}) == TrainingOptions()
    for name, one in FIELDS.items():
        if name != "init":  # which asks for a prompt
            assert training_options(None, {name: one.default}) == TrainingOptions()


@pytest.mark.parametrize("name", FIELDS)
def test_every_field_refuses_what_it_cannot_be(name: str) -> None:
    for value in (object(), 1j, [1]):
        with pytest.raises(DataError, match=rf"`{name}` is .*: expected|the init"):
            training_options(None, {name: value})


@pytest.mark.parametrize("name", [name for name, one in FIELDS.items() if {"least", "above"} & set(one.metadata)])
def test_numbers_have_their_limits(name: str) -> None:
    how = FIELDS[name].metadata
    whole = isinstance(how.get("least"), int)
    low = how["above"] if "above" in how else how["least"] - 1
    for value in (low, float("nan"), float("inf"), True, "3", *([2.5] if whole else [])):
        with pytest.raises(DataError, match=f"`{name}` is "):
            training_options(None, {name: value})
    of_numpy = training_options(None, {name: np.int64(7)})
    assert getattr(of_numpy, name) == 7 and type(getattr(of_numpy, name)) is (int if whole else float)


@pytest.mark.parametrize("name", [name for name, one in FIELDS.items() if "choices" in one.metadata])
def test_choices_are_listed(name: str) -> None:
    with pytest.raises(DataError, match=f"`{name}` is 'x': expected one of {FIELDS[name].metadata['choices'][0]}, "):
        training_options(None, {name: "x"})
    for choice in FIELDS[name].metadata["choices"]:
        if choice != "text":
            assert getattr(training_options(None, {name: choice}), name) == choice


def test_options_that_came_whole_are_checked_too() -> None:
    with pytest.raises(DataError, match="`epochs` is 0: expected a whole number from 1"):
        training_options(TrainingOptions(epochs=0), {})


@pytest.mark.parametrize("name", ["epochs", "patience"])
def test_a_number_of_epochs_implies_epochs(name: str) -> None:
    assert training_options(None, {name: 3}).recipe == "epochs"
    assert training_options(None, {name: 3, "recipe": "auto"}).recipe == "epochs"
    with pytest.raises(DataError, match=f"`{name}` came with `recipe` 'contrastive', which has no epochs"):
        training_options(None, {name: 3, "recipe": "contrastive"})
    assert training_options(None, {"patience": None}).recipe == "auto"


def test_a_text_to_begin_as() -> None:
    found = training_options(None, {"init_text": "is it good?"})
    assert (found.init, found.init_text) == ("text", "is it good?")
    with pytest.raises(DataError, match="`init_text` came with `init` 'random'"):
        training_options(None, {"init_text": "is it good?", "init": "random"})
    with pytest.raises(DataError, match="`init` 'text' came without `init_text`"):
        training_options(None, {"init": "text"})


def test_a_task_to_begin_as(make_task: MakeTask, tmp_path: Path) -> None:
    task = make_task("first")
    assert training_options(None, {"init_from": task}).init_from is task
    task.save(tmp_path / "first.safetensors")
    for path in (tmp_path / "first.safetensors", str(tmp_path / "first.safetensors")):
        loaded = training_options(None, {"init_from": path}).init_from
        assert loaded is not None and loaded.sha256 == task.sha256
    with pytest.raises(TaskError, match="cannot be read"):
        training_options(None, {"init_from": "none.safetensors"})
    with pytest.raises(DataError, match="`init` and `prompt_length` came with `init_from`"):
        training_options(None, {"init_from": task, "prompt_length": 3, "init": "random"})


def test_class_weights() -> None:
    given: list[Any] = ["none", "balanced", {"a": 2, "b": np.float32(0.5)}]
    for value in given:
        assert training_options(None, {"class_weight": value}).class_weight == value
    assert training_options(None, {"class_weight": {1: 2, False: 3}}).class_weight == {"1": 2.0, "false": 3.0}
    assert training_options(None, {"class_weight": None}).class_weight == "none"
    for value in ("even", {"a": 0}, {"a": "x"}, {"a": True}, {1.5: 2.0}, 3):
        with pytest.raises(DataError, match=r"`class_weight` is .*: expected"):
            training_options(None, {"class_weight": value})


def test_label_words() -> None:
    words = {"good": ["great"], "bad": ("poor", "terrible")}
    found = training_options(None, {"label_words": words, "train_head": False})
    assert found.label_words == {"good": ["great"], "bad": ["poor", "terrible"]}
    for value in ({"good": ["great"]}, {"good": "great", "bad": "poor"}, {"good": [], "bad": ["poor"]}, ["good=great"]):
        with pytest.raises(DataError, match=r"`label_words` is .*: expected label → list of words"):
            training_options(None, {"label_words": value})
    with pytest.raises(DataError, match="`label_words` has great more than once"):
        training_options(None, {"label_words": {"good": ["great"], "bad": ["great"]}})
    with pytest.raises(DataError, match="`train_head` came without `label_words`: expected the words"):
        training_options(None, {"train_head": False})


def test_descriptions() -> None:
    found = training_options(None, {"descriptions": {1: (word for word in ("great", "fine")), "bad": ["poor"]}})
    assert found.descriptions == {"1": ["great", "fine"], "bad": ["poor"]}
    for value, message in (
        ({"good": ["great"]}, "descriptions of 1 labels came"),
        ({"good": "great", "bad": ["poor"]}, "the description of 'good' is one string"),
        ({"good": ["great"], "bad": 3}, "the description of 'bad' is 3: expected a list of texts"),
        (["good=great"], "`descriptions` is a list"),
        (pd.Series(["names"]), "`descriptions` is a Series"),
    ):
        with pytest.raises(DataError, match=message):
            training_options(None, {"descriptions": value})
