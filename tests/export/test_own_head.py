"""The head of a fine-tuned classifier as a task: its logits are transformers' own."""

from __future__ import annotations

import json
import os
import shutil
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from click.testing import CliRunner
from conftest import TEXTS, save_tokenizer
from test_graph import MORE, SMALL
from torch import nn
from transformers import (
    AutoConfig,
    AutoModelForMaskedLM,
    AutoModelForQuestionAnswering,
    AutoModelForSequenceClassification,
    AutoModelForTokenClassification,
    PreTrainedTokenizerFast,
)
from transformers.models.auto.modeling_auto import MODEL_FOR_SEQUENCE_CLASSIFICATION_MAPPING_NAMES

from edgetune.cli import cli
from edgetune.training import zero_shot
from edgetune.training.zero_shot import head_task
from edgetune_export import Backbone, export_bundle, load_backbone
from edgetune_export.own_head import READINGS
from edgetune_export.parity import logits_by_text, torch_logits
from edgetune_runtime import Engine, Task
from edgetune_runtime.decoding import tag_names
from edgetune_runtime.errors import BackboneError, DataError, TaskError
from edgetune_runtime.text import Text


def own_task(model: str, name: str, **more: Any) -> tuple[Backbone, Task]:
    """The backbone and its own task."""
    return load_backbone(model), head_task(model, name, **more)


ANSWERS = ["angry", "calm", "glad"]
PROBLEMS = {
    "single-label": {"id2label": dict(enumerate(ANSWERS))},
    "multi-label": {"id2label": dict(enumerate(ANSWERS)), "problem_type": "multi_label_classification"},
    "score": {"id2label": {0: "LABEL_0"}},
}
ALL = os.environ.get("EDGETUNE_FAMILIES") == "all"
SOME = ("albert", "bert", "deberta-v2", "distilbert", "electra", "ernie", "llama", "modernbert", "mpnet", "roberta")
CLASSIFIERS = READINGS.keys() & MODEL_FOR_SEQUENCE_CLASSIFICATION_MAPPING_NAMES.keys()
MODELS: list[tuple[str, dict[str, Any]]] = [
    *((architecture, {}) for architecture in (sorted(CLASSIFIERS) if ALL else SOME)),
    ("modernbert", {"classifier_pooling": "mean"}),
    ("gpt2", PROBLEMS["score"]),
    ("bert", PROBLEMS["score"]),
    ("roberta", PROBLEMS["multi-label"]),
]


def save_classifier(
    folder: Path, architecture: str, auto: Any = AutoModelForSequenceClassification, **more: Any
) -> Any:
    """Save a tiny classifier of random weights with its tokenizer. Returns the model."""
    padding = 1 if architecture == "mpnet" else 0  # which it has built in
    size = save_tokenizer(folder, padding)
    sizes = {**SMALL, **MORE.get(architecture, {}), "vocab_size": size, "pad_token_id": padding, "bos_token_id": 2}
    config = AutoConfig.for_model(architecture, **{**sizes, "eos_token_id": 3, **PROBLEMS["single-label"], **more})
    torch.manual_seed(0)
    model = auto.from_config(config).eval()
    for name, parameter in model.named_parameters():
        if parameter.ndim > 1 or name.endswith("bias"):
            nn.init.normal_(parameter, std=0.3)
    model.save_pretrained(folder)
    return model


def expected(folder: Path, texts: list[Text]) -> np.ndarray:
    """transformers' logits, text by text. Shape: [texts, labels]."""
    tokenizer = PreTrainedTokenizerFast.from_pretrained(folder)  # the file as it is
    model = AutoModelForSequenceClassification.from_pretrained(folder, attn_implementation="eager").eval()
    found = []
    for text in texts:
        first, second = (text, None) if isinstance(text, str) else text
        given = tokenizer(first, second, return_tensors="pt")
        if "token_type_ids" not in type(model).forward.__code__.co_varnames:
            given.pop("token_type_ids", None)
        with torch.no_grad():
            found.append(model(**given).logits[0].numpy())
    return np.stack(found)


TAGS = {"id2label": dict(enumerate(["O", "I-who", "B-place", "B-who", "I-place"]))}


@pytest.mark.parametrize("architecture", ["bert", "roberta", "distilbert", "electra", "gpt2", "llama"])
def test_logits_of_words_are_those_of_transformers(tmp_path: Path, architecture: str) -> None:
    """The logits of each word are at its first token; the head's rows are in the order of a task's."""
    model = save_classifier(tmp_path, architecture, AutoModelForTokenClassification, **TAGS)
    backbone, task = own_task(str(tmp_path), "names")
    assert (task.kind_name, task.labels, task.pooling) == ("tokens", ("who", "place"), "cls")
    order = [list(TAGS["id2label"].values()).index(tag) for tag in tag_names(task.labels)]
    tokens = backbone.text_encoder.encode(TEXTS, [task] * len(TEXTS))
    for row, logits in zip(tokens, logits_by_text(backbone, task, TEXTS)[0], strict=True):
        with torch.no_grad():
            right = model(input_ids=torch.tensor([row.ids])).logits[0].numpy()
        np.testing.assert_allclose(logits, right[[begin for begin, _ in row.spans]][:, order], atol=1e-4)
        assert len(row.places) > 0


QUESTIONS: list[Text] = [(one, f"{other} goodness, unfilm") for one, other in pairwise(TEXTS)]
ENDS = {"id2label": {0: "LABEL_0", 1: "LABEL_1"}}


@pytest.mark.parametrize("architecture", ["bert", "roberta", "distilbert", "electra", "gpt2"])
def test_logits_of_answers_are_those_of_transformers(tmp_path: Path, architecture: str) -> None:
    """An answer begins at a word's first token and ends at its last one.

    The very first token stands for "no answer".
    """
    model = save_classifier(tmp_path, architecture, AutoModelForQuestionAnswering, **ENDS)
    backbone, task = own_task(str(tmp_path), "qa")
    assert (task.kind_name, task.labels, task.pooling, task.pairs) == ("spans", ("answer",), "ends", True)
    assert {"kind:spans", "pooling:ends"} <= set(task.requires)
    assert Task.from_bytes(task.to_bytes(), "it").pooling == "ends"
    tokens = backbone.text_encoder.encode(QUESTIONS, [task] * len(QUESTIONS))
    several = 0
    for row, logits in zip(tokens, logits_by_text(backbone, task, QUESTIONS)[0], strict=True):
        right = []
        for window in row.windows:
            given = {"input_ids": torch.tensor([window.ids])}
            given |= {"token_type_ids": torch.tensor([window.type_ids])} if architecture in ("bert", "electra") else {}
            with torch.no_grad():
                told = model(**given)
            first, last = ([begin for begin, _ in window.spans[place::2]] for place in range(2))
            assert (first[0], last[0], window.places[0]) == (0, 0, (0, 0))
            assert len(first) == len(window.places) > 1
            several += sum(one < other for one, other in zip(first, last, strict=True))
            right.append(torch.stack([told.start_logits[0, first], told.end_logits[0, last]], dim=1).numpy())
        np.testing.assert_allclose(logits, np.concatenate(right), atol=1e-4)
    assert several > 3, "words of several tokens"


def test_an_exported_one_gives_the_best_answer_of_transformers(tmp_path: Path) -> None:
    model = save_classifier(tmp_path / "model", "bert", AutoModelForQuestionAnswering, **ENDS)
    backbone, task = own_task(str(tmp_path / "model"), "qa")
    export_bundle(backbone, tmp_path / "bundle", precisions=("fp32",), tasks=[task])
    tokens = backbone.text_encoder.encode(QUESTIONS, [task] * len(QUESTIONS))
    with Engine(tmp_path / "bundle", "fp32", threads=1, prepare=False) as engine:
        results = engine.classify(QUESTIONS, "qa")
        alone = [engine.classify([text], "qa")[0] for text in QUESTIONS]
        other = replace(engine.task("qa"), name="other")
        engine.add_task(other)
        mixed = engine.classify([QUESTIONS[0]] * 2, tasks=["qa", "other"])
    assert results == alone
    assert mixed[0].fields() == mixed[1].fields() == results[0].fields()
    for row, result in zip(tokens, results, strict=True):
        assert len(row.windows) == 1
        with torch.no_grad():
            given = {"input_ids": torch.tensor([row.ids]), "token_type_ids": torch.tensor([row.type_ids])}
            told = model(**given)
        starts, ends = told.start_logits[0], told.end_logits[0]
        first, last = ([begin for begin, _ in row.spans[place::2]][1:] for place in range(2))
        pairs = {
            (one, other): float(starts[first[one]] + ends[last[other]])
            for one in range(len(first))
            for other in range(one, min(one + 30, len(last)))
        }
        none = float(starts[0] + ends[0])
        one, other = max(pairs, key=lambda pair: pairs[pair])
        fields = result.fields()
        if none > pairs[one, other]:
            assert fields["answer"] is None
        else:
            assert (fields["start"], fields["end"]) == (row.places[1 + one][0], row.places[1 + other][1])
        sums = np.array([*pairs.values(), none])
        scores = np.exp(sums - sums.max())
        assert fields["no_answer"] == pytest.approx(scores[-1] / scores.sum(), abs=1e-4)


def test_a_head_of_more_outputs_does_not_answer_questions(tmp_path: Path) -> None:
    save_classifier(tmp_path, "bert", AutoModelForQuestionAnswering)
    with pytest.raises(BackboneError, match="a head of 3 outputs for answers to questions: expected two"):
        own_task(str(tmp_path), "qa")


def test_no_head_is_fitted_to_words_that_are_read_twice(tmp_path: Path) -> None:
    save_classifier(tmp_path / "model", "distilbert", AutoModelForQuestionAnswering, **ENDS)
    backbone, task = own_task(str(tmp_path / "model"), "qa")
    export_bundle(backbone, tmp_path / "bundle", precisions=("fp32",), tasks=[task])
    answers = [{"text": [""], "answer_start": [0]}, {"text": [], "answer_start": []}]
    answers[0]["text"] = [QUESTIONS[0][1].split()[0]]
    with Engine(tmp_path / "bundle", "fp32", threads=1, prepare=False) as engine:
        with pytest.raises(DataError, match="task 'qa', whose pooling 'ends' reads each word twice"):
            engine.fit(QUESTIONS[:2], answers, "other", kind="spans", from_task="qa")
        with pytest.raises(DataError, match="the pooling is 'ends', and a task of the kind 'spans' reads"):
            engine.fit(QUESTIONS[:2], answers, "other", kind="spans", pooling="ends")


@pytest.mark.parametrize("tags", [["O", "B-a", "I-a", "B-b", "L-b"], ["DET", "NOUN", "VERB", "ADJ", "ADV"]])
def test_tags_of_other_schemes_are_refused(tmp_path: Path, tags: list[str]) -> None:
    save_classifier(tmp_path, "bert", AutoModelForTokenClassification, id2label=dict(enumerate(tags)))
    with pytest.raises(BackboneError, match=r"in id2label the tags .*: expected O, and B- and I-") as told:
        own_task(str(tmp_path), "names")
    assert "\n" not in str(told.value)


@pytest.mark.parametrize(
    ("architecture", "more"), MODELS, ids=lambda one: one if isinstance(one, str) else str(list(one))
)
def test_logits_are_those_of_transformers(tmp_path: Path, architecture: str, more: dict[str, Any]) -> None:
    save_classifier(tmp_path, architecture, **more)
    backbone, task = own_task(str(tmp_path), "mood")
    right = expected(tmp_path, list(TEXTS))
    np.testing.assert_allclose(torch_logits(backbone, task, TEXTS), right, atol=1e-4)
    assert np.ptp(right, axis=0).min() > 1e-2, "the texts are told apart"
    assert Task.from_bytes(task.to_bytes(), "it").max_length == backbone.max_positions


@pytest.mark.parametrize("architecture", ["roberta", "llama", *(["bert", "distilbert", "modernbert"] if ALL else [])])
def test_an_exported_one_answers_as_transformers_does(tmp_path: Path, architecture: str) -> None:
    save_classifier(tmp_path / "model", architecture)
    backbone, task = own_task(str(tmp_path / "model"), "mood")
    export_bundle(backbone, tmp_path / "bundle", precisions=("fp32",), tasks=[task])
    right = torch.from_numpy(expected(tmp_path / "model", list(TEXTS))).softmax(dim=1).numpy()
    with Engine(tmp_path / "bundle", "fp32") as engine:
        for result, scores in zip(engine.classify(TEXTS, "mood"), right, strict=True):
            assert result.fields()["label"] == ANSWERS[int(scores.argmax())]
            assert list(result.fields()["scores"].values()) == pytest.approx(scores.tolist(), abs=1e-4)


@pytest.mark.parametrize("problem", PROBLEMS)
def test_the_kind_is_the_problem_type(tmp_path: Path, problem: str) -> None:
    save_classifier(tmp_path, "distilbert", **PROBLEMS[problem])
    _, task = own_task(str(tmp_path), "mood")
    assert task.kind_name == problem
    assert task.labels == (("score",) if problem == "score" else tuple(ANSWERS))
    assert task.thresholds == ((0.5,) * 3 if problem == "multi-label" else ())


def test_a_cross_encoder_reads_pairs(tmp_path: Path) -> None:
    save_classifier(tmp_path, "bert", **PROBLEMS["score"])
    backbone, task = own_task(str(tmp_path), "rank", pairs=True)
    pairs: list[Text] = list(pairwise(TEXTS))
    model = AutoModelForSequenceClassification.from_pretrained(tmp_path, attn_implementation="eager").eval()
    for pair, own in zip(pairs, torch_logits(backbone, task, pairs), strict=True):
        (row,) = backbone.text_encoder.encode([pair], [task])
        with torch.no_grad():
            given = {"input_ids": torch.tensor([row.ids]), "token_type_ids": torch.tensor([row.type_ids])}
            assert own[0] == pytest.approx(float(model(**given).logits[0, 0]), abs=1e-4)


class TestFingerprints:
    def test_other_tasks_do_not_hang_on_the_classifier(self, tmp_path: Path) -> None:
        """A task that was trained on the checkpoint before its head was read still works."""
        save_classifier(tmp_path / "with", "roberta")
        bare = shutil.copytree(tmp_path / "with", tmp_path / "without")
        AutoModelForMaskedLM.from_pretrained(tmp_path / "with").base_model.save_pretrained(bare)
        assert load_backbone(str(tmp_path / "with")).fingerprint() == load_backbone(str(bare)).fingerprint()

    def test_a_task_is_refused_behind_another_classifier(self, tmp_path: Path) -> None:
        backbone, task = self._roberta(tmp_path / "one", 0.2)
        other, _ = self._roberta(tmp_path / "other", 0.3)
        assert backbone.facts.sha256 == other.facts.sha256
        backbone.facts.check(task)
        with pytest.raises(TaskError, match="was trained on the backbone one"):
            other.facts.check(task)
        with pytest.raises(TaskError, match="was trained on the backbone one"):
            replace(other.facts, poolings=("mean",), classifier_sha256="").check(task)

    def _roberta(self, folder: Path, std: float) -> Any:
        model = save_classifier(folder, "roberta")
        torch.manual_seed(1)
        nn.init.normal_(model.classifier.dense.weight, std=std)
        model.save_pretrained(folder)
        return own_task(str(folder), "mood")

    def test_it_is_in_the_bundle(self, tmp_path: Path) -> None:
        backbone, task = self._roberta(tmp_path / "model", 0.2)
        manifest = export_bundle(backbone, tmp_path / "bundle", precisions=("fp32",), tasks=[task])
        with Engine(tmp_path / "bundle") as engine:
            assert engine.bundle.facts.classifier_sha256 == backbone.facts.classifier_sha256 != backbone.facts.sha256
        assert manifest.facts == backbone.facts
        assert "pooling:classifier" in task.requires


class TestRefused:
    @pytest.mark.parametrize("architecture", ["bart", "t5"])
    def test_what_reads_a_whole_decoder(self, tmp_path: Path, architecture: str) -> None:
        save_classifier(tmp_path, architecture)
        with pytest.raises(BackboneError, match=f"how classifiers of '{architecture}' read features is not known"):
            own_task(str(tmp_path), "mood")

    def test_a_token_classifier_whose_labels_are_no_tags(self, tmp_path: Path) -> None:
        save_classifier(tmp_path, "bert", AutoModelForTokenClassification)
        with pytest.raises(
            BackboneError, match="id2label the tags angry, calm, glad: expected O, and B- and I- of each"
        ):
            own_task(str(tmp_path), "mood")

    def test_what_was_never_fine_tuned(self, model_folder: Path) -> None:
        with pytest.raises(BackboneError, match="names BertModel under 'architectures', expected a fine-tuned"):
            own_task(str(model_folder), "mood")

    @pytest.mark.parametrize(
        ("change", "message"),
        [
            ({"id2label": {"0": "a", "1": "a", "2": "b"}}, "calls two labels alike in id2label"),
            ({"problem_type": "regression"}, "a head of 3 outputs and problem_type regression: expected 1"),
        ],
    )
    def test_a_head_that_no_kind_has(self, tmp_path: Path, change: dict[str, Any], message: str) -> None:
        save_classifier(tmp_path, "distilbert")
        config = json.loads((tmp_path / "config.json").read_text())
        (tmp_path / "config.json").write_text(json.dumps({**config, **change}))
        load_backbone(str(tmp_path))  # for tasks of other heads
        with pytest.raises(BackboneError, match=message):
            head_task(str(tmp_path), "mood")

    def test_a_head_that_computes_something_else(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        save_classifier(tmp_path, "distilbert")
        right = zero_shot.classifier_logits
        monkeypatch.setattr(zero_shot, "classifier_logits", lambda *given: [one + 0.01 for one in right(*given)])
        with pytest.raises(BackboneError, match=r"answers 0.01\d* off what transformers computes"):
            own_task(str(tmp_path), "mood")


def test_the_command_line(tmp_path: Path) -> None:
    save_classifier(tmp_path / "model", "roberta")
    out = tmp_path / "mood.safetensors"
    run = CliRunner().invoke(
        cli,
        ["tasks", "create", str(tmp_path / "model"), "--name", "mood", "--out", str(out), "--from-head", "--json"],
    )
    assert run.exit_code == 0, run.output
    assert json.loads(run.stdout)["pooling"] == "classifier"
    assert Task.load(out).labels == tuple(ANSWERS)
    assert "not used" not in run.stderr
    for wrong, message in (
        (["--from-head", "--describe", "a=b"], "expected descriptions of the labels"),
        (["--from-head", "--prompt", "a"], "--prompt came without --label-words"),
        (["--from-head", "--calibrate", __file__], "--calibrate came with --from-head"),
        (["--describe", "a=b", "--describe", "c=d", "--pairs"], "--pairs came without --from-head"),
    ):
        run = CliRunner().invoke(
            cli, ["tasks", "create", str(tmp_path / "model"), "--name", "m", "--out", str(out), *wrong]
        )
        assert run.exit_code == 2 and message in run.stderr
