"""Prompts: every method and initial value trains and is stored as documented.

A stored prompt gives the same answers.
"""

from __future__ import annotations

import dataclasses
from importlib import import_module
from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import LanguageModelFolder

from edgetune.data.labelled import LabelledText
from edgetune.training import TaskData, TrainingOptions, train
from edgetune.training.methods import REPARAMETERIZED, TRAININGS
from edgetune.training.options import ADDED, AUTO, INITS, METHODS, PART_NAMES
from edgetune_export import Backbone, load_backbone
from edgetune_export.parity import torch_logits
from edgetune_runtime import Task, contract
from edgetune_runtime.errors import DataError, TaskError
from edgetune_runtime.parts import HEAD, PARTS
from edgetune_runtime.text import TextEncoder

ROWS = [
    LabelledText(f"the {thing} {state}", label)
    for thing in ("lamp", "camera", "speaker", "parcel")
    for state, label in (("is broken", "bad"), ("works very well", "good"))
]
OTHER = [LabelledText(row.text, "long" if len(row.text) > 18 else "short") for row in ROWS] + [
    LabelledText("the lamp", "tiny"),
    LabelledText("a lamp", "tiny"),
]
OPTIONS = TrainingOptions(recipe="epochs", keep_prompt=True, epochs=2, batch_size=4, prompt_length=4)


@pytest.fixture(scope="module")
def backbone(model_folder: Path) -> Backbone:
    return load_backbone(str(model_folder))


def fit(backbone: Backbone, options: TrainingOptions, folder: Path, rows: list[LabelledText] = ROWS) -> Task:
    (report,) = train(backbone, [TaskData("mood", folder / "mood.safetensors", rows, rows)], options)
    return report.task


def test_the_command_line_offers_every_method_and_beginning() -> None:
    parameters = {one.name: one for one in import_module("edgetune.cli.train").train.params}
    assert set(parameters["method"].type.choices) == {AUTO, *METHODS} > set(REPARAMETERIZED)
    assert set(PART_NAMES) == set(TRAININGS) >= {name for parts in METHODS.values() for name in parts}
    assert set(parameters["init"].type.choices) == set(INITS)


PROMPTING = [method for method, parts in METHODS.items() if not parts.keys() & set(ADDED)]


@pytest.mark.parametrize("method", PROMPTING)
def test_every_method_trains_and_stores_what_it_says(backbone: Backbone, tmp_path: Path, method: str) -> None:
    before = backbone.fingerprint()
    begun = fit(backbone, dataclasses.replace(OPTIONS, method=method, learning_rate=1e-30), tmp_path)
    task = fit(backbone, dataclasses.replace(OPTIONS, method=method, epochs=8), tmp_path)
    (part,) = METHODS[method]
    names = TRAININGS[part].part.names
    assert task.tensors.keys() == {*names, *HEAD.tensors}
    assert [part.length_of(task.tensors) for part in PARTS.values() if names[0] in part.tensors] == [4]
    name = names[-1]
    assert np.abs(task.tensors[name] - begun.tensors[name]).max() > 1e-3, "the prompt learns"
    assert task.method == method
    assert backbone.fingerprint() == before


@pytest.mark.parametrize("method", PROMPTING)
def test_without_a_prompt_every_method_trains_a_head_alone(backbone: Backbone, tmp_path: Path, method: str) -> None:
    options = dataclasses.replace(OPTIONS, method=method, prompt_length=0, init="labels")
    task = fit(backbone, options, tmp_path)
    assert (task.prompt_length, task.prefix_length) == (0, 0)


@pytest.mark.parametrize("method", ["prompt", "prefix"])
@pytest.mark.parametrize("init", INITS)
def test_what_a_prompt_begins_as(backbone: Backbone, tmp_path: Path, method: str, init: str) -> None:
    options = dataclasses.replace(
        OPTIONS, method=method, init=init, init_text="the lamp", learning_rate=1e-30, epochs=1
    )
    tensors = fit(backbone, options, tmp_path).tensors
    if method == "prompt":
        got = torch.from_numpy(tensors[contract.PROMPT_EMBEDDINGS])
        table = backbone.model.get_input_embeddings().weight
        nearest = torch.cdist(got, table).argmin(dim=1)
        known = torch.allclose(got, table[nearest])
        assert known == (init != "random")
        words = {"text": ["the", "lamp", "the", "lamp"], "labels": ["bad", "good", "bad", "good"]}
        if init in words:
            encoder = TextEncoder(backbone.tokenizer_json, 64)
            assert nearest.tolist() == encoder.ids(" ".join(words[init]))[:4]
    else:
        assert tensors[contract.PREFIX_KEYS].shape == (2, 4, 4, 8)
        assert tensors[contract.PREFIX_KEYS].std() > 0.1


@pytest.mark.parametrize("method", ["prompt", "prompt-residual", "prefix", "prefix-mlp"])
def test_a_training_begins_from_another_tasks_file(backbone: Backbone, tmp_path: Path, method: str) -> None:
    kind = "prompt" if method.startswith("prompt") else "prefix"
    first = fit(backbone, dataclasses.replace(OPTIONS, method=kind, prompt_length=3), tmp_path)
    options = dataclasses.replace(
        OPTIONS, method=method, init_from=first, learning_rate=1e-30, head_learning_rate=1e-30
    )
    second = fit(backbone, options, tmp_path)
    for name, tensor in first.tensors.items():
        np.testing.assert_allclose(second.tensors[name], tensor, atol=1e-5)
    texts = [row.text for row in ROWS]
    np.testing.assert_allclose(torch_logits(backbone, second, texts), torch_logits(backbone, first, texts), atol=1e-4)


def test_a_beginning_that_does_not_fit_is_refused(backbone: Backbone, tmp_path: Path) -> None:
    first = fit(backbone, OPTIONS, tmp_path)
    with pytest.raises(TaskError, match="trained as 'prefix' and has no prompt_embeddings for 'prompt'"):
        fit(backbone, dataclasses.replace(OPTIONS, method="prompt", init_from=first), tmp_path)
    with pytest.raises(TaskError, match="'p-tuning-lstm' cannot begin from task 'mood'"):
        fit(backbone, dataclasses.replace(OPTIONS, method="p-tuning-lstm", init_from=first), tmp_path)
    other = dataclasses.replace(first, backbone_sha256="0" * 64)
    with pytest.raises(TaskError, match="was trained on the backbone"):
        fit(backbone, dataclasses.replace(OPTIONS, init_from=other), tmp_path)
    with pytest.raises(DataError, match="begin as, '', has no tokens"):
        fit(backbone, dataclasses.replace(OPTIONS, init="text"), tmp_path)


def test_tasks_trained_together_share_one_prompt_and_answer_as_their_files_do(
    backbone: Backbone, tmp_path: Path
) -> None:
    options = dataclasses.replace(OPTIONS, method="p-tuning-v2", epochs=12, head_learning_rate=2e-2)
    data = [
        TaskData("mood", tmp_path / "mood.safetensors", ROWS, ROWS),
        TaskData("size", tmp_path / "size.safetensors", OTHER, OTHER),
    ]
    mood, size = (report.task for report in train(backbone, data, options))
    np.testing.assert_array_equal(mood.tensors[contract.PREFIX_KEYS], size.tensors[contract.PREFIX_KEYS])
    assert (mood.labels, size.labels) == (("bad", "good"), ("long", "short", "tiny"))
    for task, rows in ((mood, ROWS), (size, OTHER)):
        assert (tmp_path / f"{task.name}.safetensors").read_bytes() == task.to_bytes()
        answers = torch_logits(backbone, task, [row.text for row in rows]).argmax(axis=1)
        right = np.mean([task.labels[place] == row.target for place, row in zip(answers, rows, strict=True)])
        assert right == pytest.approx(task.metrics["dev_accuracy"])
        assert right > 0.6


@pytest.mark.parametrize("architecture", ["gpt2", "llama"])
def test_a_causal_backbones_soft_prompt_is_stored_as_the_prefix_that_it_leads_to(
    language_model_folder: LanguageModelFolder, tmp_path: Path, architecture: str
) -> None:
    backbone = load_backbone(str(language_model_folder(architecture)))
    task = fit(backbone, dataclasses.replace(OPTIONS, method="prompt", epochs=4), tmp_path)
    assert (task.prompt_length, task.prefix_length, task.position_offset) == (0, 4, 4)
    tensors = dict(task.tensors)
    fed = {contract.PROMPT_EMBEDDINGS: tensors.pop(contract.PROMPT_SOURCE)}
    fed |= {name: tensors[name] for name in (contract.HEAD_WEIGHT, contract.HEAD_BIAS)}
    texts = [row.text for row in ROWS]
    as_prompt = torch_logits(backbone, dataclasses.replace(task, tensors=fed), texts)
    as_prefix = torch_logits(backbone, task, texts)
    np.testing.assert_allclose(as_prefix, as_prompt, atol=1e-5)
    bare = {name: tensor for name, tensor in fed.items() if name != contract.PROMPT_EMBEDDINGS}
    assert np.abs(torch_logits(backbone, dataclasses.replace(task, tensors=bare), texts) - as_prompt).max() > 5e-4
    again = fit(backbone, dataclasses.replace(OPTIONS, method="prompt", init_from=task, learning_rate=1e-30), tmp_path)
    np.testing.assert_allclose(again.tensors[contract.PROMPT_SOURCE], task.tensors[contract.PROMPT_SOURCE], atol=1e-6)
