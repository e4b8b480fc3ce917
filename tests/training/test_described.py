"""Label descriptions in training: they train the prompt, their head is joined with others, and only rows judge."""

from __future__ import annotations

import dataclasses
import random
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from edgetune.data.labelled import LabelledText
from edgetune.training import TaskData, TrainingOptions, train
from edgetune.training.batches import Rows
from edgetune.training.few import FOLDS, NEW_HEAD, train_few
from edgetune.training.rungs import HEAD_ALONE, Rung
from edgetune_export import Backbone, load_backbone
from edgetune_runtime import Engine
from edgetune_runtime.errors import DataError
from edgetune_runtime.fitting.by_kind import FITTINGS
from edgetune_runtime.fitting.describe import TEMPLATES, described_head, lines
from edgetune_runtime.fitting.head import USUAL_STRENGTH, folds
from edgetune_runtime.fitting.join import SAID as WRITTEN
from edgetune_runtime.fitting.join import join_of
from edgetune_runtime.kinds import KINDS

THINGS = ("lamp", "camera", "screen", "parcel", "mail", "speaker")
SAID = {"works very well": "good", "is broken": "bad"}
ROWS = [LabelledText(f"the {thing} {said}", label) for thing in THINGS for said, label in SAID.items()]
LABELS = ("bad", "good")
DESCRIPTIONS = {"good": ["fine", "it works"], "bad": ["broken things"]}
OPTIONS = TrainingOptions(prompt_length=2, batch_size=8, descriptions=DESCRIPTIONS)
SINGLE = FITTINGS["single-label"]


@pytest.fixture(scope="module")
def backbone(model_folder: Path) -> Backbone:
    return load_backbone(str(model_folder))


def one(rows: list[LabelledText], folder: Path, name: str = "t", **more: Any) -> TaskData:
    return TaskData(name, folder / f"{name}.safetensors", rows, more.pop("dev", []), **more)


@pytest.mark.parametrize("dev", [[], ROWS[:4]], ids=["cv", "dev"])
def test_the_prompt_learns_from_descriptions_and_rows_are_judged(
    backbone: Backbone, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, dev: list[LabelledText]
) -> None:
    seen: list[Rows] = []
    monkeypatch.setattr("edgetune.training.few.train_prompt", lambda _, rows, *__: seen.append(rows))
    (report,) = train(backbone, [one(ROWS, tmp_path, dev=dev)], OPTIONS)
    words = lines(LABELS, DESCRIPTIONS)
    told = [list(row["input_ids"]) for row in seen[-1][len(ROWS) :]]
    assert told == [list(tokens.windows[0].ids) for tokens in backbone.text_encoder.encode(words, [report.task] * 12)]
    assert [row["labels"] for row in seen[-1][len(ROWS) :]] == [[0.0]] * len(TEMPLATES) + [[1.0]] * 2 * len(TEMPLATES)
    if not dev:
        assert [len(rows) - len(told) for rows in seen] == [len(ROWS) * (FOLDS - 1) // FOLDS] * FOLDS + [len(ROWS)]
    assert report.evaluation is not None
    assert [row.text for row in report.evaluation.rows] == [row.text for row in dev or ROWS]


def test_heads_of_the_prompt_are_joined_with_the_described_one(
    bundle_folder: Path, backbone: Backbone, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With an untrained prompt, the features are those of the engine with the task's prompt."""
    found: list[Rung] = []

    def kept(*arguments: Any) -> list[Rung]:
        found.extend(train_few(*arguments))
        return found

    monkeypatch.setattr("edgetune.training.few.train_prompt", lambda *_: None)
    monkeypatch.setattr("edgetune.training.run.train_few", kept)
    train(backbone, [one(ROWS, tmp_path)], dataclasses.replace(OPTIONS, keep_prompt=True))
    rung = next(rung for rung in found if rung.name == NEW_HEAD)
    targets = np.array([[float(LABELS.index(str(row.target)))] for row in ROWS])
    task = dataclasses.replace(rung.draft, tensors=rung.tensors)
    with Engine(bundle_folder, "fp32", threads=1) as engine:
        features, words = (
            engine.features(texts, task) for texts in ([row.text for row in ROWS], lines(LABELS, DESCRIPTIONS))
        )
    described = described_head(LABELS, DESCRIPTIONS, words)
    (fitted,) = SINGLE.head(features, targets, 2, (USUAL_STRENGTH,), None)
    held_out, fold = np.zeros((len(ROWS), 2)), folds(targets, 0, FOLDS)
    for number in range(FOLDS):
        left = fold != number
        (own,) = SINGLE.head(features[left], targets[left], 2, (USUAL_STRENGTH,), None)
        held_out[~left] = own.logits(features[~left])
    join = join_of(SINGLE, held_out, described.logits(features), targets, None, WRITTEN)
    expected = join.head(fitted, described)
    np.testing.assert_allclose(task.head[0], expected.weight, rtol=1e-3, atol=1e-3)
    np.testing.assert_allclose(rung.logits, join.logits(held_out, described.logits(features)), rtol=1e-3, atol=1e-3)


def test_a_head_alone_is_what_fit_makes_of_rows_and_descriptions(
    bundle_folder: Path, backbone: Backbone, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    targets = random.Random(2).sample([row.target for row in ROWS], len(ROWS))  # so that rows teach nothing
    chance = [dataclasses.replace(row, target=target) for row, target in zip(ROWS, targets, strict=True)]
    monkeypatch.setattr("edgetune.training.few.train_prompt", lambda *_: None)
    monkeypatch.setattr("edgetune_runtime.fitting.join.SHARES", (0.5,))  # so that descriptions count in any case
    with Engine(bundle_folder, "fp32", threads=1) as engine:
        for rows in (ROWS, chance):
            monkeypatch.setattr("edgetune.training.report.choose", lambda rungs, *_: (rungs[-1], {}))
            (report,) = train(backbone, [one(rows, tmp_path)], OPTIONS)
            assert report.rung == HEAD_ALONE
            texts, labels = [row.text for row in rows], [row.target for row in rows]
            expected = engine.fit(texts, labels, "t", descriptions=DESCRIPTIONS, store=False)
            for name, tensor in expected.task.tensors.items():
                np.testing.assert_allclose(report.task.tensors[name], tensor, rtol=1e-2, atol=1e-2)
            assert expected.description_share == 0.5


def test_a_label_without_a_description_is_named(backbone: Backbone, tmp_path: Path) -> None:
    rows = [*ROWS, *(LabelledText(f"the {thing} sees nothing", "odd") for thing in THINGS)]
    said: list[str] = []
    (report,) = train(backbone, [one(rows, tmp_path)], OPTIONS, note=said.append)
    assert said.count("t: no description of odd: only rows tell of it") == 1
    assert report.task.labels == ("bad", "good", "odd")


def test_the_same_seed_gives_the_same_file_and_descriptions_another(backbone: Backbone, tmp_path: Path) -> None:
    made = []
    for place, descriptions in enumerate((DESCRIPTIONS, DESCRIPTIONS, None)):
        (tmp_path / str(place)).mkdir()
        options = dataclasses.replace(OPTIONS, descriptions=descriptions, keep_prompt=True)
        made += train(backbone, [one(ROWS, tmp_path / str(place))], options)
    assert made[0].task.to_bytes() == made[1].task.to_bytes() != made[2].task.to_bytes()


def test_descriptions_that_cannot_be_used_are_refused(backbone: Backbone, tmp_path: Path) -> None:
    two = [one(ROWS, tmp_path), one(ROWS, tmp_path, "u")]
    with pytest.raises(DataError, match="`descriptions` came with 2 tasks: expected them with one; train it alone"):
        train(backbone, two, OPTIONS)
    unknown = dataclasses.replace(OPTIONS, descriptions={"good": ["x"], "dear": ["y"]})
    with pytest.raises(
        DataError, match="there are descriptions of dear, but the labels are bad, good: write the label"
    ):
        train(backbone, [one(ROWS, tmp_path)], unknown)
    scores = [LabelledText(row.text, float(place)) for place, row in enumerate(ROWS)]
    with pytest.raises(DataError, match="descriptions came for a task of the kind 'score': expected none"):
        train(backbone, [one(scores, tmp_path, kind=KINDS["score"])], OPTIONS)
    assert not list(tmp_path.iterdir())
