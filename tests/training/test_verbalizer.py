"""Label words: a task's logits are what the language model gives its words, in every family."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from conftest import TEXTS, LanguageModelFolder
from transformers import AutoTokenizer

from edgetune.data.labelled import LabelledText
from edgetune.training import TaskData, TrainingOptions, train, verbalizer
from edgetune.training.options import parse_label_words
from edgetune.training.zero_shot import calibrated, create_task
from edgetune_export import load_backbone
from edgetune_export.loading import language_model_class
from edgetune_export.parity import torch_logits
from edgetune_runtime import contract
from edgetune_runtime.errors import BackboneError, DataError, TaskError
from edgetune_runtime.fitting.draft import pooling_of
from edgetune_runtime.kinds import probabilities

WORDS = {"good": ["great", "wellness"], "bad": ["broken"]}


def words_of_transformers(folder: Path, architecture: str, filled: list[str]) -> torch.Tensor:
    """Logits over the vocabulary, where the label is read. Shape: [texts, vocabulary]."""
    tokenizer = AutoTokenizer.from_pretrained(folder)
    model: Any = language_model_class(architecture).from_pretrained(folder).eval()
    found = []
    for text in filled:
        batch = tokenizer(text.replace("{mask}", "[MASK]"), return_tensors="pt")
        inputs = {name: batch[name] for name in ("input_ids", "attention_mask")}
        if architecture == "t5":
            inputs["decoder_input_ids"] = torch.tensor([[model.config.decoder_start_token_id]])
        with torch.no_grad():
            logits = model(**inputs).logits[0]
        place = {"bert": batch["input_ids"][0].tolist().index(4) if architecture == "bert" else 0, "t5": 0}
        found.append(logits[place.get(architecture, -1)])
    return torch.stack(found)


@pytest.mark.parametrize("architecture", ["bert", "gpt2", "llama", "t5"])
def test_logits_are_the_mean_of_what_the_model_gives_a_labels_words(
    language_model_folder: LanguageModelFolder, architecture: str
) -> None:
    folder = language_model_folder(architecture)
    template = "{text} it was {mask}." if architecture == "bert" else "{text} it was"
    backbone = load_backbone(str(folder))
    task = create_task(backbone, "mood", WORDS, template)
    whole = words_of_transformers(folder, architecture, [template.replace("{text}", text) for text in TEXTS])
    tokenizer = AutoTokenizer.from_pretrained(folder)
    ids = {
        word: tokenizer(f" {word}", add_special_tokens=False)["input_ids"] for word in ("great", "wellness", "broken")
    }
    assert max(map(len, ids.values())) > 1, "one of the words is of several tokens"
    word = {name: whole[:, found].mean(dim=1) for name, found in ids.items()}
    expected = torch.stack([(word["great"] + word["wellness"]) / 2, word["broken"]], dim=1)
    np.testing.assert_allclose(torch_logits(backbone, task, TEXTS), expected.numpy(), atol=1e-4)
    assert task.labels == ("good", "bad")


def test_a_prompt_in_words_equals_the_words_before_the_text(language_model_folder: LanguageModelFolder) -> None:
    folder = language_model_folder("gpt2")
    backbone = load_backbone(str(folder))
    task = create_task(backbone, "mood", WORDS, "{text} it was", prompt="the new camera")
    # The test's tokenizer puts [CLS] before a text; transformers is asked for the same row of tokens.
    tokenizer = AutoTokenizer.from_pretrained(folder)
    model: Any = language_model_class("gpt2").from_pretrained(folder).eval()
    prompt = tokenizer("the new camera", add_special_tokens=False)["input_ids"]
    broken = tokenizer(" broken", add_special_tokens=False)["input_ids"]
    assert task.prefix_length == len(prompt) >= 3
    for text in TEXTS[:3]:
        row = torch.tensor([prompt + tokenizer(f"{text} it was")["input_ids"]])
        with torch.no_grad():
            logits = model(input_ids=row).logits[0, -1]
        assert torch_logits(backbone, task, [text])[0, 1] == pytest.approx(float(logits[broken].mean()), abs=1e-4)


def test_an_encoder_keeps_a_prompt_in_words_as_the_embeddings_of_its_tokens(
    language_model_folder: LanguageModelFolder,
) -> None:
    folder = language_model_folder("bert")
    backbone = load_backbone(str(folder))
    task = create_task(backbone, "mood", WORDS, "{text} it was {mask}.", prompt="the new camera")
    ids = AutoTokenizer.from_pretrained(folder)("the new camera", add_special_tokens=False)["input_ids"]
    embeddings = backbone.embed(torch.tensor(ids)).numpy()
    np.testing.assert_array_equal(task.tensors[contract.PROMPT_EMBEDDINGS], embeddings)


def test_calibration_makes_labels_equally_likely_and_keeps_differences(
    language_model_folder: LanguageModelFolder,
) -> None:
    backbone = load_backbone(str(language_model_folder("gpt2")))
    task = create_task(backbone, "mood", WORDS)
    biased = {**task.tensors, contract.HEAD_BIAS: np.array([2, 0], np.float32)}
    task = dataclasses.replace(task, tensors=biased)
    before = torch_logits(backbone, task, TEXTS)
    fair = calibrated(backbone, task, TEXTS)
    after = torch_logits(backbone, fair, TEXTS)
    assert np.abs(probabilities(before, 1.0).mean(axis=0) - 0.5).max() > 0.1
    odds = np.exp(after - before)
    np.testing.assert_allclose(
        odds, np.broadcast_to(1 / probabilities(before, 1.0).mean(axis=0), odds.shape), rtol=1e-3
    )
    with pytest.raises(DataError, match="no texts to calibrate on"):
        calibrated(backbone, task, [])


@pytest.mark.parametrize("fixed", [True, False])
def test_label_words_are_trained_on_from_or_stay(
    language_model_folder: LanguageModelFolder, tmp_path: Path, fixed: bool
) -> None:
    backbone = load_backbone(str(language_model_folder("bert")))
    rows = [LabelledText(text, "good" if place % 2 else "bad") for place, text in enumerate(TEXTS)]
    options = TrainingOptions(
        recipe="epochs",
        prompt_length=2,
        epochs=2,
        batch_size=2,
        template="{text} it was {mask}.",
        label_words=WORDS,
        train_head=not fixed,
    )
    (report,) = train(backbone, [TaskData("mood", tmp_path / "mood.safetensors", rows, rows)], options)
    weight, _ = verbalizer.head(backbone, WORDS, ("bad", "good"))
    learned = np.abs(report.task.tensors[contract.HEAD_WEIGHT] - weight.numpy()).max()
    assert (learned == 0) == fixed
    assert learned < 0.1
    assert report.task.pooling == "mask"
    with pytest.raises(DataError, match="nothing to train"):
        nothing = dataclasses.replace(options, prompt_length=0, train_head=False)
        train(backbone, [TaskData("mood", tmp_path / "mood.safetensors", rows, rows)], nothing)


@pytest.mark.parametrize(
    ("words", "template", "message"),
    [
        (WORDS, "{text}", r"the template '{text}' has no {mask}, which is where .* says its label words"),
        ({"good": ["great"], "bad": ["赤"]}, "{text} {mask}", "has no token for the label words 赤"),
    ],
)
def test_words_that_do_not_fit_are_refused(
    language_model_folder: LanguageModelFolder, words: dict[str, list[str]], template: str, message: str
) -> None:
    backbone = load_backbone(str(language_model_folder("bert")))
    with pytest.raises(DataError, match=message):
        create_task(backbone, "mood", words, template)


def test_a_backbone_without_a_vocabulary_says_no_words(model_folder: Path) -> None:
    backbone = load_backbone(str(model_folder))
    with pytest.raises(BackboneError, match="no language-model head, so it says no words"):
        create_task(backbone, "mood", WORDS)
    with pytest.raises(DataError, match=r"has a {mask}, but .* can read features by .*: only weights"):
        create_task(backbone, "mood", WORDS, "{text} {mask}")


@pytest.mark.parametrize(
    ("template", "pooling"),
    [
        ("no slot", None),
        ("", None),
        ("{text} and {text}", None),
        ("{text} {mask} {mask}", None),
        ("{text} {mask}", "cls"),
        ("{text}", "mask"),
    ],
)
def test_a_template_without_its_slots_is_refused_before_any_work(
    language_model_folder: LanguageModelFolder, template: str, pooling: str | None
) -> None:
    backbone = load_backbone(str(language_model_folder("bert")))
    with pytest.raises(
        TaskError, match=r"the task has the template .* expected one {text}, and one {mask} if the pooling is 'mask'"
    ):
        pooling_of(backbone.facts, template, pooling, pairs=False)


def test_label_words_on_the_command_line() -> None:
    assert parse_label_words(["good=great, very well", "bad=a=b"]) == {"good": ["great", "very well"], "bad": ["a=b"]}


@pytest.mark.parametrize(
    "items", [["good"], ["good="], ["=great"], ["good= , "], ["good=a", "good=b"], ["good=a"], ["good=a", "bad=b,a"]]
)
def test_label_words_that_are_not_written_right(items: list[str]) -> None:
    with pytest.raises(DataError, match="`label_words`"):
        parse_label_words(items)
