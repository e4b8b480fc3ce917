"""Labels are described by their own names only if these are words, and rows show that they help."""

from __future__ import annotations

import json
import random
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner

from edgetune.cli import cli
from edgetune.data.labelled import LabelledText
from edgetune.sklearn import TextClassifier
from edgetune.training import TaskData, TrainingOptions, train
from edgetune.training.batches import Rows
from edgetune_export import load_backbone
from edgetune_runtime import Engine
from edgetune_runtime.errors import DataError
from edgetune_runtime.fitting.by_kind import FITTINGS
from edgetune_runtime.fitting.describe import about_labels, described_head, lines
from edgetune_runtime.fitting.head import fit_head
from edgetune_runtime.fitting.join import NAMED, join_of, with_descriptions

SINGLE = FITTINGS["single-label"]
LABELS = ("card lost", "late_parcel", "refundWanted")
WORDS = {"card lost": ["card lost"], "late_parcel": ["late parcel"], "refundWanted": ["refund Wanted"]}
TEXTS = [f"the {thing} {said}" for thing in ("lamp", "camera", "screen", "mail") for said in ("is late", "broke", "x")]
RIGHT = random.Random(2).sample([label for _ in range(4) for label in LABELS], 12)


@pytest.fixture
def engine(here: Path) -> Iterator[Engine]:
    with Engine(here, "fp32", threads=1) as opened:
        yield opened


@pytest.mark.parametrize(
    ("labels", "words"),
    [
        (("positive", "negative"), {"negative": ["negative"], "positive": ["positive"]}),
        (("Sci/Tech", "World"), {"Sci/Tech": ["Sci Tech"], "World": ["World"]}),
        (("user-lost-card", "B2", "cash_back"), {"cash_back": ["cash back"], "user-lost-card": ["user lost card"]}),
        (("政治", "体育"), {"体育": ["体育"], "政治": ["政治"]}),
        (("été", "hiver"), {"hiver": ["hiver"], "été": ["été"]}),
        (("शिकायत", "क़ानून"), {"क़ानून": ["क़ानून"], "शिकायत": ["शिकायत"]}),
        (("ใบแจ้งหนี้", "re\u0301clamation"), {"re\u0301clamation": ["re\u0301clamation"], "ใบแจ้งหนี้": ["ใบแจ้งหนี้"]}),
        (("0", "1"), None),
        (("LABEL_0", "LABEL_1"), None),
        (("LABEL_0", "label 1", "spam", "ham mail"), {"ham mail": ["ham mail"], "spam": ["spam"]}),
        (("A1", "B2", "no"), None),
        (("A1", "no", "maybe"), None),  # a single word is not enough
    ],
)
def test_names_that_have_words_describe_labels(
    engine: Engine, labels: tuple[str, ...], words: dict[str, list[str]] | None
) -> None:
    report = engine.fit(TEXTS[: len(labels)] * 2, labels * 2, "t", store=False)
    assert (None if report.about is None else report.about.descriptions) == words
    assert report.remarks == engine.fit(TEXTS[: len(labels)] * 2, labels * 2, "t", descriptions=None).remarks


def test_only_texts_with_one_label_are_described(engine: Engine) -> None:
    several = engine.fit(TEXTS, [[one] for one in RIGHT], "t", kind="multi-label", store=False)
    pairs = engine.fit([(text, text) for text in TEXTS], RIGHT, "t", store=False)
    scores = engine.fit(TEXTS, range(12), "t", kind="score", store=False)
    assert (several.about, pairs.about, scores.about) == (None, None, None)


def test_an_engine_joins_the_heads_of_rows_and_names(engine: Engine) -> None:
    plain = engine.fit(TEXTS, RIGHT, "plain", descriptions="none", store=False)
    report = engine.fit(TEXTS, RIGHT, "t", store=False)
    features = engine.features(TEXTS, plain.task)
    described = described_head(LABELS, WORDS, engine.features(lines(LABELS, WORDS), plain.task))
    targets = np.array([[LABELS.index(label)] for label in RIGHT], np.float64)
    found = fit_head(SINGLE, features, targets, 3)
    expected = with_descriptions(SINGLE, found, described, features, targets, None, NAMED)
    assert report.description_share == expected.share
    np.testing.assert_allclose(report.task.head[0], expected.head.weight, rtol=1e-5, atol=1e-5)
    np.testing.assert_allclose(plain.task.head[0], found.head.weight, rtol=1e-5, atol=1e-5)


def test_rows_have_to_show_that_names_help(engine: Engine) -> None:
    right = np.array([[0.0], [1.0]] * 16)
    sure, unsure = (np.where(right == [0, 1], size, 0.0) for size in (4.0, 0.1))
    wrong = -sure
    assert join_of(SINGLE, unsure, wrong, right, None, NAMED).share == 0
    assert join_of(SINGLE, np.zeros((32, 2)), sure, right, None, NAMED).share > 0
    assert join_of(SINGLE, sure, sure, np.zeros((0, 1)), None, NAMED).share == 0
    lone = engine.fit(TEXTS[:3], LABELS, "t", store=False)
    plain = engine.fit(TEXTS[:3], LABELS, "t", descriptions=None, store=False)
    assert (lone.description_share, lone.cross_validated) == (0, None)
    assert lone.task.to_bytes() == plain.task.to_bytes()


@pytest.mark.parametrize(("share", "learns"), [(0.5, True), (0.0, False)])
def test_a_prompt_learns_from_names_that_help_a_head_alone(
    model_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, share: float, learns: bool
) -> None:
    seen: list[Rows] = []
    monkeypatch.setattr("edgetune_runtime.fitting.join.SHARES", (share,))
    monkeypatch.setattr("edgetune.training.few.train_prompt", lambda _, rows, *__: seen.append(rows))
    rows = [LabelledText(text, label) for text, label in zip(TEXTS, RIGHT, strict=True)]
    options = TrainingOptions(prompt_length=2, batch_size=8)
    backbone = load_backbone(str(model_folder))
    (report,) = train(backbone, [TaskData("t", tmp_path / "t.safetensors", rows, [])], options)
    told_rows = [list(row["input_ids"]) for row in seen[-1][len(rows) :]]
    words = lines(LABELS, WORDS) if learns else []
    assert told_rows == [
        list(one.windows[0].ids) for one in backbone.text_encoder.encode(words, [report.task] * len(words))
    ]


def test_several_tasks_are_described_by_their_names_each(model_folder: Path, tmp_path: Path) -> None:
    rows = [LabelledText(text, label) for text, label in zip(TEXTS, RIGHT, strict=True)]
    other = [LabelledText(text, label) for text, label in zip(TEXTS, ["good", "bad"] * 6, strict=True)]
    data = [TaskData(name, tmp_path / name, own, own[:6]) for name, own in (("one", rows), ("two", other))]
    reports = train(load_backbone(str(model_folder)), data, TrainingOptions(prompt_length=1, epochs=1))
    assert [about_labels("names", report.task) is not None for report in reports] == [True, True]


def test_the_command_says_how_much_names_count(here: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("edgetune_runtime.fitting.join.SHARES", (0.5,))
    data = tmp_path / "rows.jsonl"
    data.write_text("".join(json.dumps({"text": a, "label": b}) + "\n" for a, b in zip(TEXTS, RIGHT, strict=True)))
    command = ["fit", str(here), "--data", str(data), "--name", "t"]
    assert "3 labels, label names count 50%, cross-validated" in CliRunner().invoke(cli, command).stdout
    found = json.loads(CliRunner().invoke(cli, [*command, "--json"]).stdout)
    assert (found["description_share"], found["described_by"]) == (0.5, "label names")
    assert "names count" not in CliRunner().invoke(cli, [*command, "--describe", "none"]).stdout
    odd = CliRunner().invoke(cli, [*command, "--describe", "name"])
    assert isinstance(odd.exception, DataError) and "--describe 'name' is not LABEL=WORD" in str(odd.exception)


def test_a_classifier_takes_names(here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("edgetune_runtime.fitting.join.SHARES", (0.5,))
    by_names, plain = (TextClassifier(here, **given).fit(TEXTS, RIGHT) for given in ({}, {"descriptions": None}))
    assert (by_names.fit_report_.description_share, plain.fit_report_.description_share) == (0.5, 0)
