"""Low rank and units: they start without effect, are trained and stored, and give PyTorch's answers in the graph."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from functools import cache
from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import LanguageModelFolder

from edgetune.data.labelled import LabelledText
from edgetune.training import TaskData, TrainingOptions, train
from edgetune.training.options import PART_NAMES, parse_parts
from edgetune.training.setup import set_up
from edgetune_export import Backbone, export_bundle, load_backbone
from edgetune_export.parity import torch_logits
from edgetune_runtime import Engine, Task, contract
from edgetune_runtime.errors import BackboneError, DataError, TaskError

ROWS = [
    LabelledText(f"the {thing} {state}", label)
    for thing in ("lamp", "camera", "speaker", "parcel")
    for state, label in (("is broken", "bad"), ("works very well", "good"))
]
TEXTS = [row.text for row in ROWS]
OPTIONS = TrainingOptions(recipe="epochs", keep_prompt=True, epochs=3, batch_size=4)

WAYS = {
    "lora": (TrainingOptions(method="lora"), {"low-rank": 8}, ["part:low-rank"]),
    "units": (TrainingOptions(method="units"), {"units": 16}, ["part:units"]),
    "strong": (TrainingOptions(method="strong"), {"low-rank": 8, "units": 16}, ["part:low-rank", "part:units"]),
    "with a prefix": (
        TrainingOptions(parts={"prefix": 3, "low-rank": 2, "units": 4}),
        {"prefix": 3, "low-rank": 2, "units": 4},
        ["part:low-rank", "part:units"],
    ),
    "with a prompt": (
        TrainingOptions(parts={"prompt": 2, "low-rank": 1}),
        {"prompt": 2, "low-rank": 1},
        ["part:low-rank"],
    ),
}
ARCHITECTURES = ("bert", "gpt2", "t5")


@pytest.fixture(scope="module")
def backbones(language_model_folder: LanguageModelFolder) -> dict[str, Backbone]:
    return {name: load_backbone(str(language_model_folder(name))) for name in ARCHITECTURES}


@pytest.fixture(scope="module")
def bundle_of(backbones: dict[str, Backbone], tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """A bundle of an architecture that was exported once, before any of its tasks was trained."""

    @cache
    def folder(architecture: str) -> Path:
        made = tmp_path_factory.mktemp(architecture) / "bundle"
        export_bundle(backbones[architecture], made, precisions=["fp32"])
        return made

    return folder


def like(options: TrainingOptions, **more: object) -> TrainingOptions:
    """The way of these options, for a short training."""
    return dataclasses.replace(OPTIONS, method=options.method, parts=options.parts, **more)  # type: ignore[arg-type]


def fit(backbone: Backbone, options: TrainingOptions, folder: Path) -> Task:
    (report,) = train(backbone, [TaskData("mood", folder / "mood.safetensors", ROWS, ROWS)], options)
    return report.task


@pytest.mark.parametrize("architecture", ARCHITECTURES)
@pytest.mark.parametrize("way", WAYS)
def test_it_trains_is_stored_and_answers_from_the_graph(
    backbones: dict[str, Backbone], bundle_of: Callable[[str], Path], tmp_path: Path, architecture: str, way: str
) -> None:
    options, lengths, requires = WAYS[way]
    backbone = backbones[architecture]
    fingerprint = backbone.fingerprint()
    begun = fit(backbone, like(options, learning_rate=1e-30, dropout=0.0), tmp_path)
    task = fit(backbone, like(options, learning_rate=1e-2), tmp_path)
    assert backbone.fingerprint() == fingerprint
    assert (task.prompt_length, task.prefix_length) == (lengths.get("prompt", 0), lengths.get("prefix", 0))
    sites = [site for site in ("query", "value", "projection") if site in backbone.sites]
    ranks = {task.tensors[contract.down(site)].shape[-1] for site in sites if contract.down(site) in task.tensors}
    assert ranks == {lengths["low-rank"]} if "low-rank" in lengths else not ranks
    assert sorted(set(task.requires)) == requires
    # The best epoch may be the first, in which reading weights do not learn yet, because writing weights are zero.
    writes = {name for name in task.tensors if name.endswith(("_up", "_write"))}
    assert writes
    for name in writes:
        assert np.abs(task.tensors[name] - begun.tensors[name]).max() > 1e-4, f"{name} learns"
    stored = Task.load(tmp_path / "mood.safetensors")
    assert stored.sha256 == task.sha256
    expected = torch_logits(backbone, task, TEXTS)
    bare = dataclasses.replace(
        task, tensors={name: tensor for name, tensor in task.tensors.items() if name not in contract.PART_INPUTS}
    )
    assert np.abs(torch_logits(backbone, bare, TEXTS) - expected).max() > 1e-3
    with Engine(bundle_of(architecture)) as engine:
        engine.add_task(stored)
        rows = engine.encode(TEXTS, [stored] * len(TEXTS))
        np.testing.assert_allclose(np.stack(engine.run([(row, stored) for row in rows])), expected, atol=1e-4)


def test_it_begins_without_effect(backbones: dict[str, Backbone], tmp_path: Path) -> None:
    data = [TaskData("mood", tmp_path / "mood.safetensors", ROWS, ROWS)]
    plain, added = (
        set_up(backbones["bert"], data, like(one)).tuner for one in (TrainingOptions(parts={}), WAYS["strong"][0])
    )
    batch = {
        "input_ids": torch.tensor([[2, 10, 11, 3]]),
        "attention_mask": torch.ones(1, 4, dtype=torch.int64),
        "task_index": torch.zeros(1, dtype=torch.int64),
        "spans": torch.tensor([[[0, 4]]]),
        "token_type_ids": torch.zeros(1, 4, dtype=torch.int64),
    }
    torch.testing.assert_close(added.eval().features(**batch), plain.eval().features(**batch))
    assert added.parts.tensors()["query_down"].std() > 0.01


def test_the_backbones_dropout_is_on_in_training_alone(backbones: dict[str, Backbone], tmp_path: Path) -> None:
    data = [TaskData("mood", tmp_path / "mood.safetensors", ROWS, ROWS)]

    def shares(options: TrainingOptions, training: bool) -> set[float]:
        tuner = set_up(backbones["bert"], data, options).tuner.train(training)
        layers = [one for one in tuner.backbone.modules() if isinstance(one, torch.nn.Dropout)]
        assert layers
        assert not tuner.backbone.model.training
        return {one.p if one.training else 0.0 for one in layers}

    assert shares(like(WAYS["strong"][0]), True) == {0.1}
    assert shares(like(WAYS["strong"][0]), False) == {0.0}
    assert shares(like(WAYS["strong"][0], dropout=0.3), True) == {0.3}
    assert shares(OPTIONS, True) == {0.0}


def test_a_training_begins_from_another_tasks_parts(backbones: dict[str, Backbone], tmp_path: Path) -> None:
    way = TrainingOptions(parts={"prefix": 3, "low-rank": 2, "units": 4})
    first = fit(backbones["bert"], like(way), tmp_path)
    still = {"learning_rate": 1e-30, "head_learning_rate": 1e-30, "dropout": 0.0}
    parts = TrainingOptions(parts={"prefix": 1, "low-rank": 1, "units": 1})
    again = fit(backbones["bert"], like(parts, init_from=first, **still), tmp_path)
    for name, tensor in first.tensors.items():
        np.testing.assert_allclose(again.tensors[name], tensor, atol=1e-5)
    lora = fit(backbones["bert"], like(WAYS["lora"][0], init_from=first, **still), tmp_path)
    np.testing.assert_allclose(lora.tensors["query_down"], first.tensors["query_down"], atol=1e-6)
    assert "unit_read" not in lora.tensors
    prefix = fit(backbones["bert"], dataclasses.replace(OPTIONS, prompt_length=2), tmp_path)
    with pytest.raises(TaskError, match=r"trained as 'prefix' and has no .*_down for 'lora' to begin from"):
        fit(backbones["bert"], like(WAYS["lora"][0], init_from=prefix), tmp_path)


@pytest.mark.parametrize(("method", "lacking"), [("lora", "query and value"), ("units", "no feed-forwards")])
def test_a_backbone_without_a_place_for_it_is_refused(
    language_model_folder: LanguageModelFolder, tmp_path: Path, method: str, lacking: str
) -> None:
    backbone = load_backbone(str(language_model_folder("bert")))
    backbone.sites = {}
    with pytest.raises(BackboneError, match=rf"{lacking} .*: use the method prefix"):
        fit(backbone, dataclasses.replace(OPTIONS, method=method), tmp_path)


def test_parts_are_written_with_their_lengths() -> None:
    assert parse_parts("prefix:16,low-rank:8, units:4") == {"prefix": 16, "low-rank": 8, "units": 4}
    for text in ("", "prefix", "prefix:0", "prefix:-1", "rank:8", "units:4,units:4", "prefix:x"):
        with pytest.raises(DataError, match=f"expected PART:LENGTH .*; parts are {', '.join(PART_NAMES)}"):
            parse_parts(text)
