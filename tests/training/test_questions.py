"""Answers to questions: a tiny model learns a small set, is exported, and answers on the command line."""

from __future__ import annotations

import dataclasses
import json
import re
from pathlib import Path

import numpy as np
import pytest
import torch
from click.testing import CliRunner
from tokenizers import Tokenizer, models, pre_tokenizers, processors
from transformers import BertConfig, BertModel, PreTrainedTokenizerFast

from edgetune.cli import cli
from edgetune.data.labelled import Labelled, read_labelled
from edgetune.training import TaskData, TrainingOptions, TrainingReport, train
from edgetune.training.batches import encode_rows
from edgetune_export import Backbone, export_bundle, load_backbone
from edgetune_export.parity import logits_by_text
from edgetune_runtime import Engine
from edgetune_runtime.fitting.examples import answers
from edgetune_runtime.squad import match

QUESTIONS = Path(__file__).parents[1] / "data" / "questions.json"
LEARN = TrainingOptions(
    epochs=32, batch_size=8, max_length=96, method="strong", keep_prompt=True, learning_rate=0.01,
    head_learning_rate=0.01,
)  # fmt: skip


def save_model(folder: Path) -> None:
    """Save an untrained tiny BERT that knows the words of the questions."""
    words = sorted(set(re.findall(r"\w+|[^\w\s]", QUESTIONS.read_text(encoding="utf-8"))))
    vocabulary = {word: place for place, word in enumerate(dict.fromkeys(["[PAD]", "[UNK]", "[CLS]", "[SEP]", *words]))}
    tokenizer = Tokenizer(models.WordLevel(vocabulary, "[UNK]"))
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    ends = [(name, vocabulary[name]) for name in ("[CLS]", "[SEP]")]
    tokenizer.post_processor = processors.TemplateProcessing("[CLS] $A [SEP]", "[CLS] $A [SEP] $B:1 [SEP]:1", ends)
    special = {"pad_token": "[PAD]", "unk_token": "[UNK]", "cls_token": "[CLS]", "sep_token": "[SEP]"}
    PreTrainedTokenizerFast(tokenizer_object=tokenizer, **special).save_pretrained(folder)
    torch.manual_seed(0)
    config = BertConfig(
        vocab_size=len(vocabulary), hidden_size=128, num_hidden_layers=2, num_attention_heads=4, intermediate_size=256,
        max_position_embeddings=96, initializer_range=0.05,
    )  # fmt: skip
    BertModel(config).save_pretrained(folder)


@pytest.fixture(scope="module")
def labelled() -> Labelled:
    return read_labelled(str(QUESTIONS), note=lambda _: None)


@pytest.fixture(scope="module")
def backbone(tmp_path_factory: pytest.TempPathFactory) -> Backbone:
    folder = tmp_path_factory.mktemp("model")
    save_model(folder)
    return load_backbone(str(folder))


@pytest.fixture(scope="module")
def report(backbone: Backbone, labelled: Labelled, tmp_path_factory: pytest.TempPathFactory) -> TrainingReport:
    out = tmp_path_factory.mktemp("task") / "qa.safetensors"
    rows = labelled.rows
    (found,) = train(backbone, [TaskData("qa", out, rows, rows, labelled.kind, pairs=True)], LEARN)
    return found


@pytest.fixture(scope="module")
def bundle(backbone: Backbone, report: TrainingReport, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("bundle") / "bundle"
    export_bundle(backbone, folder, precisions=["fp32"], tasks=[report.task])
    return folder


def test_it_is_learned(report: TrainingReport) -> None:
    assert report.figures.values["exact_match"] >= 0.9
    assert report.epochs[0].usual < 0.5
    assert report.task.metrics["dev_exact_match"] == report.figures.values["exact_match"]
    assert {"kind:spans", "pairs", "long:windows", "input:spans"} <= set(report.task.requires)


def test_the_bundle_answers_as_pytorch(
    backbone: Backbone, report: TrainingReport, bundle: Path, labelled: Labelled
) -> None:
    task, given = report.task, [row.given for row in labelled.rows]
    expected = answers(task, *logits_by_text(backbone, task, given))
    with Engine(bundle) as engine:
        for one, other in zip(engine.classify(given, "qa"), expected, strict=True):
            assert one.best == other.best
            assert (one.score, one.no_answer) == pytest.approx((other.score, other.no_answer), abs=1e-4)
            if one.best is not None:
                start, end, text = one.best
                assert text in [context[start:end] for _, context in given]


def test_evaluate_writes_squads_predictions(bundle: Path, labelled: Labelled, tmp_path: Path) -> None:
    out = tmp_path / "made" / "predictions.json"
    asked = ["evaluate", str(bundle), "--task", "qa", "--data", str(QUESTIONS), "--json", "--min-score", "0.5"]
    ran = CliRunner().invoke(cli, [*asked, "--predictions", str(out), "--report", str(tmp_path / "report")])
    assert ran.exit_code == 0, ran.output
    figures = json.loads(ran.stdout)
    predictions = json.loads(out.read_text(encoding="utf-8"))
    data = json.loads(QUESTIONS.read_text(encoding="utf-8"))["data"]
    questions = [one for article in data for paragraph in article["paragraphs"] for one in paragraph["qas"]]
    assert list(predictions) == [one["id"] for one in questions]
    matches = [match(predictions[one["id"]], [own["text"] for own in one["answers"]]) for one in questions]
    given = [bool(predictions[one["id"]]) for one in questions]
    assert figures["exact_match"] >= 0.9
    assert np.mean([own.exact for own in matches]) >= figures["exact_match"] - (1 - figures["coverage"])
    assert sum(given) <= sum(bool(one["answers"]) for one in questions) + 2
    assert "exact match" in (tmp_path / "report" / "report.html").read_text(encoding="utf-8")


@pytest.mark.parametrize(
    ("rows", "told"),
    [
        (['{"question": "who?", "context": "Nora", "answers": []}'], "line 1 has no 'id'"),
        (['{"id": 1, "question": "who?", "context": "Nora", "answers": []}'] * 2, "line 2 has the 'id' 1, as an"),
    ],
)
def test_predictions_need_an_id_per_question(bundle: Path, tmp_path: Path, rows: list[str], told: str) -> None:
    (tmp_path / "q.jsonl").write_text("\n".join(rows), encoding="utf-8")
    asked = ["evaluate", str(bundle), "--task", "qa", "--data", str(tmp_path / "q.jsonl")]
    ran = CliRunner().invoke(cli, [*asked, "--predictions", str(tmp_path / "p.json")])
    assert ran.exit_code == 1
    assert told in str(ran.exception)
    assert not (tmp_path / "p.json").exists()


def test_classify_reads_squads_file(bundle: Path) -> None:
    ran = CliRunner().invoke(cli, ["classify", str(bundle), str(QUESTIONS), "--task", "qa"])
    assert ran.exit_code == 0, ran.output
    first = json.loads(ran.stdout.splitlines()[0])
    assert list(first) == ["id", "task", "answer", "start", "end", "score", "no_answer", "status"]
    assert (first["id"], first["status"]) == ("q01", "ok")


def test_a_long_context_is_read_to_its_end(bundle: Path, report: TrainingReport, labelled: Labelled) -> None:
    """Windows overlap; the answer has its offsets in the whole context."""
    row = labelled.rows[1]
    other = next(one.text_pair for one in labelled.rows if one.text_pair != row.text_pair)
    context = " ".join([str(other)] * 6 + [str(row.text_pair)])
    with Engine(bundle) as engine:
        task = engine.task("qa")
        (tokens,) = engine.encode([(row.text, context)], [task])
        assert len(tokens.windows) > 4
        assert all(window.places[0] == (0, 0) and len(window.ids) <= 96 for window in tokens.windows)
        assert {place for window in tokens.windows for place in window.places[1:]} == set(
            task.kind.reading.pieces(context)
        )
        assert not tokens.read.truncated
        (found,) = engine.classify([(row.text, context)], "qa")
        if found.best is not None:
            assert context[found.best.start : found.best.end] == found.best.text
        long_question = " ".join([row.text] * 40)
        (found,) = engine.classify([(long_question, "Nora opened it")], "qa")
        assert found.truncated


def test_rows_of_windows_have_their_own_targets(backbone: Backbone, report: TrainingReport, labelled: Labelled) -> None:
    notes: list[str] = []
    narrow = dataclasses.replace(report.task, max_length=40, stride=12)
    rows = encode_rows(backbone, labelled.rows, narrow, note=notes.append)
    assert len(rows) > len(labelled.rows)
    for row in rows:
        ends = row["labels"][:, 1].astype(int)
        begins, stops = (np.flatnonzero(own) for own in (ends & 1, ends >> 1))
        assert len(begins) == len(stops) <= 1
        if len(begins) and begins[0]:
            (start, _), (_, end) = (row["tokens"].places[place] for place in (begins[0], stops[0]))
            assert row["tokens"].text[start:end] == row["target"][0].text
