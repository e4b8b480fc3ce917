"""Tasks from label descriptions: the closest by cosine; the same on a bundle without PyTorch and on a model."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner

from edgetune.cli import cli
from edgetune.training.zero_shot import describe_task
from edgetune_export import load_backbone
from edgetune_runtime import Bundle, Engine, Task
from edgetune_runtime.errors import DataError, TaskError
from edgetune_runtime.fitting.describe import TEMPLATES, described, new_described
from edgetune_runtime.text import TextEncoder

DESCRIPTIONS = {"device": ["lamp", "camera, and screen"], "post": ["parcel"], "mood": ["very good"]}
TEXTS = ["the lamp is broken", "a parcel came", "it was very good", "the camera works", "mail"]


@pytest.fixture
def folder(bundle_folder: Path, tmp_path: Path) -> Path:
    return shutil.copytree(bundle_folder, tmp_path / "bundle")


@pytest.fixture
def draft(bundle: Bundle) -> Task:
    facts = bundle.facts
    encoder = TextEncoder(bundle.read("tokenizer.json"), facts.max_positions, facts.mask_token)
    return new_described(facts, encoder, "t", {"a": ["x"], "b": ["y"]})


def told(vectors: dict[str, Sequence[float]], width: int) -> Callable[[Sequence[str]], np.ndarray]:
    """Features that depend on a word in the text."""

    def features(texts: Sequence[str]) -> np.ndarray:
        found = np.zeros((len(texts), width), np.float32)
        for row, text in enumerate(texts):
            vector = next(vectors[word] for word in vectors if word in text)
            found[row, : len(vector)] = vector
        return found

    return features


def test_the_closest_by_cosine_wins_whatever_the_length(draft: Task, bundle: Bundle) -> None:
    features = told({"xxx": [9, 0], "yyy": [0, 1], "near": [0.3, 0.2], "far": [1, 5]}, bundle.facts.sizes.hidden)
    task = described(draft, {"a": ["xxx"], "b": ["yyy"]}, features)
    weight, bias = task.head
    logits = features(["near", "far"]) @ weight.T + bias
    assert [task.labels[place] for place in logits.argmax(axis=1)] == ["a", "b"]
    np.testing.assert_allclose(np.linalg.norm(weight, axis=1), np.linalg.norm(weight[0]), rtol=1e-5)
    assert not bias.any()


def test_descriptions_are_averaged_over_templates(draft: Task, bundle: Bundle) -> None:
    seen: list[str] = []
    inner = told({"xxx": [1, 0], "zzz": [0, 1], "yyy": [-1, 0]}, bundle.facts.sizes.hidden)

    def features(texts: Sequence[str]) -> np.ndarray:
        seen.extend(texts)
        return inner(texts)

    task = described(draft, {"a": ["xxx", "zzz"], "b": ["yyy"]}, features)
    assert set(seen) == {template.format(word) for template in TEMPLATES for word in ("xxx", "zzz", "yyy")}
    difference = task.head[0][0] - task.head[0][1]
    assert difference[0] / difference[1] == pytest.approx((2**-0.5 + 1) / 2**-0.5, rel=1e-4)


def test_texts_make_the_labels_equally_likely(draft: Task, bundle: Bundle) -> None:
    vectors = {"xxx": [3, 0], "yyy": [0, 3], "one": [4, 1], "two": [4, 2], "tri": [4, 3]}
    features = told(vectors, bundle.facts.sizes.hidden)  # all texts are closer to a
    texts = ["one", "two", "tri"]
    plain, evened = (described(draft, {"a": ["xxx"], "b": ["yyy"]}, features, some) for some in ((), texts))
    for task, labels in ((plain, ["a", "a", "a"]), (evened, ["a", "a", "b"])):
        weight, bias = task.head
        logits = features(texts) @ weight.T + bias
        answered = [task.labels[place] for place in logits.argmax(axis=1)]
        assert answered[0] == "a" and answered[-1] == labels[-1]
    weight, bias = evened.head
    logits = features(texts) @ weight.T + bias
    shares = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    assert abs(shares.mean(axis=0)[0] - 0.5) < 0.25


def test_a_bundle_and_the_model_give_the_same_task(folder: Path, model_folder: Path, tmp_path: Path) -> None:
    with Engine(folder, "fp32") as engine:
        ours = engine.describe(DESCRIPTIONS, "topic", texts=TEXTS)
        assert engine.classify(TEXTS, "topic")[0].label in DESCRIPTIONS
    assert (ours.method, ours.labels) == ("described", ("device", "mood", "post"))
    assert Task.load(folder / "tasks" / "topic.safetensors").sha256 == ours.sha256
    theirs = describe_task(load_backbone(str(model_folder)), "topic", DESCRIPTIONS, texts=TEXTS)
    for name, tensor in ours.tensors.items():
        np.testing.assert_allclose(theirs.tensors[name], tensor, atol=1e-4)


@pytest.mark.parametrize(
    ("descriptions", "message"),
    [
        ({"a": ["x"]}, "descriptions of 1 labels came: expected those of at least two"),
        ({"a": ["x"], "b": []}, "there are descriptions for a, b, .* expected at least one word for each"),
        ({"a": ["x"], "b": [" "]}, "expected at least one word for each"),
        ({}, "descriptions of 0 labels came"),
        ({"a": "x", "b": ["y"]}, r"the description of 'a' is one string: expected a list of texts, write \[text\]"),
        (["a", "b"], "`descriptions` is a list: expected label → list of texts"),
    ],
)
def test_labels_without_a_description_are_refused(folder: Path, descriptions: Any, message: str) -> None:
    with Engine(folder) as engine, pytest.raises(DataError, match=message):
        engine.describe(descriptions, "t")


def test_names_and_templates_are_checked(folder: Path) -> None:
    with Engine(folder) as engine:
        with pytest.raises(TaskError, match="task name"):
            engine.describe(DESCRIPTIONS, "a/b")
        with pytest.raises(TaskError, match=r"expected one \{text\}"):
            engine.describe(DESCRIPTIONS, "t", template="nothing")


class TestCommand:
    words = ("--describe", "device=lamp, camera", "--describe", "post=parcel, mail")

    def run(self, *arguments: object) -> tuple[int, str, str]:
        done = CliRunner().invoke(cli, ["tasks", "create", *map(str, arguments)])
        return done.exit_code, done.stdout, f"{done.stderr}{done.exception or ''}"

    def test_a_bundle_holds_the_task_and_a_file_may_too(self, folder: Path, tmp_path: Path) -> None:
        code, stdout, said = self.run(folder, "--name", "t", *self.words, "--out", tmp_path / "t.safetensors", "--json")
        assert code == 0, said
        record = json.loads(stdout)
        assert (record["bundle"], record["labels"], record["method"]) == (str(folder), ["device", "post"], "described")
        assert (tmp_path / "t.safetensors").read_bytes() == (folder / "tasks" / "t.safetensors").read_bytes()

    def test_descriptions_are_read_in_the_precision_that_is_asked_for(self, folder: Path) -> None:
        biases = {}
        for precision in Bundle(folder).manifest.graphs:
            code, _, said = self.run(folder, "--name", "t", *self.words, "--precision", precision)
            assert code == 0, said
            made = Task.load(folder / "tasks" / "t.safetensors")
            with Engine(folder, precision) as engine:
                words = {"device": ["lamp", "camera"], "post": ["parcel", "mail"]}
                assert engine.describe(words, "t", store=False).sha256 == made.sha256
            biases[precision] = made.head[0].tobytes()
        assert len(set(biases.values())) == len(biases) > 1
        assert "no precision 'q9'" in self.run(folder, "--name", "t", *self.words, "--precision", "q9")[2]

    def test_a_model_has_no_precisions(self, model_folder: Path, tmp_path: Path) -> None:
        arguments = ("--name", "t", *self.words, "--out", tmp_path / "t.safetensors", "--precision", "int8")
        code, _, said = self.run(model_folder, *arguments)
        assert code == 2
        assert f"--precision came with {model_folder}, which is not a bundle" in said

    def test_texts_calibrate(self, folder: Path, tmp_path: Path) -> None:
        texts = tmp_path / "texts.txt"
        texts.write_text("\n".join(TEXTS))
        assert json.loads(self.run(folder, "--name", "t", *self.words, "--calibrate", texts, "--json")[1])[
            "calibrated_on"
        ] == len(TEXTS)

    @pytest.mark.parametrize(
        ("arguments", "message"),
        [
            ((), "expected descriptions of the labels, as --describe"),
            ((*words, "--label-words", "a=b"), "expected descriptions of the labels, as --describe"),
            (("--label-words", "a=b", "--label-words", "c=d"), "is a bundle, which has no vocabulary"),
            (("--describe", "device=lamp"), "--describe for the label 'device' alone: expected at least two labels"),
            (("--describe", "device", "--describe", "b=c"), "--describe 'device' is not LABEL=WORD"),
            (("--describe", "a=x", "--describe", "b=x"), "--describe has x more than once"),
            ((*words, "--prompt", "hm"), "--prompt came without --label-words"),
        ],
    )
    def test_what_cannot_be_made_is_refused(self, folder: Path, arguments: tuple[str, ...], message: str) -> None:
        code, stdout, said = self.run(folder, "--name", "t", *arguments)
        assert (code != 0, stdout) == (True, "")
        assert message in said

    def test_a_model_needs_a_file_to_write(self, model_folder: Path) -> None:
        code, _, said = self.run(model_folder, "--name", "t", *self.words)
        assert (code, "no --out: name the task file to write" in said) == (2, True)
