"""A head from labelled rows and label descriptions; held-out rows choose the share of each."""

from __future__ import annotations

import json
import random
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner, Result
from scipy.optimize import minimize_scalar
from scipy.special import log_softmax
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import PredefinedSplit, cross_val_predict
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import FunctionTransformer

from edgetune.cli import cli
from edgetune.sklearn import TextClassifier
from edgetune_runtime import Engine, Task
from edgetune_runtime.errors import DataError
from edgetune_runtime.fitting.by_kind import FITTINGS
from edgetune_runtime.fitting.describe import described_head, lines
from edgetune_runtime.fitting.head import STRENGTHS, FittedHead, fit_head, folds
from edgetune_runtime.fitting.join import SAID, SHARES, join_of, with_descriptions
from edgetune_runtime.fitting.linear import Head

SINGLE = FITTINGS["single-label"]
LABELS, HIDDEN = 3, 24
NAMES = ("a", "b", "c")
DESCRIPTIONS = {"good": ["works very well", "fine"], "bad": ["is broken"], "odd": ["sees nothing at night"]}
TEXTS = [
    f"the {thing} {said}"
    for thing in ("lamp", "camera", "screen", "parcel", "mail")
    for (said, *_) in DESCRIPTIONS.values()
]
RIGHT = [label for _ in range(5) for label in DESCRIPTIONS]

# Labels that do not depend on the texts: rows teach nothing, so the descriptions count.
BY_CHANCE = random.Random(2).sample(RIGHT, len(RIGHT))


class World:
    """Draws texts that match descriptions. The centres of labels are orthogonal."""

    def __init__(self, noise: float) -> None:
        self._random, self._noise = np.random.default_rng(5), noise
        self._centres = 3 * np.eye(HIDDEN)[:LABELS]

    def rows(self, per_label: int) -> tuple[np.ndarray, np.ndarray]:
        right = np.repeat(np.arange(LABELS), per_label)
        features = self._centres[right] + self._random.normal(0, self._noise, (len(right), HIDDEN))
        return features.astype(np.float32), right[:, np.newaxis].astype(np.float64)

    def described(self, turned: int = 0, vague: float = 0.0) -> Head:
        """The head for descriptions near the centre of their label, or of another label; farther away if vague."""
        centres = np.roll(self._centres, turned, axis=0) + self._random.normal(0, vague, self._centres.shape)
        descriptions = {name: [name] for name in NAMES}
        return described_head(
            NAMES, descriptions, np.repeat(centres, len(lines(NAMES, descriptions)) // LABELS, axis=0)
        )


def accuracy(head: Head, features: np.ndarray, targets: np.ndarray) -> float:
    return float((head.logits(features).argmax(axis=1) == targets[:, 0]).mean())


def joined(world: World, per_label: int, described: Head) -> tuple[FittedHead, FittedHead]:
    """The fitted head, alone and joined."""
    features, targets = world.rows(per_label)
    found = fit_head(SINGLE, features, targets, LABELS)
    return found, with_descriptions(SINGLE, found, described, features, targets, None, SAID)


def temperature(logits: np.ndarray, right: np.ndarray) -> float:
    """Computed by scipy, from the likelihood with one additional row that is spread over all rows and labels."""
    rows = len(logits)
    target = np.full(logits.shape, 1 / (rows + 1) / logits.shape[1])
    target[np.arange(rows), right] += rows / (rows + 1)

    def loss(sharpness: float) -> float:
        return float(-(target * log_softmax(logits * sharpness, axis=1)).sum())

    return 1 / float(minimize_scalar(loss, bounds=(0.05, 20.0), method="bounded", options={"xatol": 1e-8}).x)


@pytest.mark.parametrize(("noise", "vague", "per_label"), [(1.2, 0.6, 20), (2.0, 0.6, 12)])
def test_it_equals_scikit_learns_head_joined_by_hand(noise: float, vague: float, per_label: int) -> None:
    world = World(noise)
    features, targets = world.rows(per_label)
    right, described = targets[:, 0].astype(int), world.described(vague=vague)
    found = with_descriptions(
        SINGLE, fit_head(SINGLE, features, targets, LABELS), described, features, targets, None, SAID
    )
    split = PredefinedSplit(folds(targets, 0))

    def pipeline(strength: float) -> Any:
        return make_pipeline(Scaled(), LogisticRegression(C=strength, max_iter=5000, tol=1e-8))

    held_out = {
        strength: cross_val_predict(pipeline(strength), features, right, cv=split, method="decision_function")
        for strength in STRENGTHS
    }
    losses = {one: -log_softmax(own, axis=1)[np.arange(len(right)), right].mean() for one, own in held_out.items()}
    strength = min(losses, key=lambda one: losses[one])
    whole = pipeline(strength).fit(features, right).decision_function(features)
    other = described.logits(features)
    by_rows, by_words = temperature(held_out[strength], right), temperature(other, right)
    mixed = {share: (1 - share) * held_out[strength] / by_rows + share * other / by_words for share in SHARES}
    row_losses = {share: -log_softmax(own, axis=1)[np.arange(len(right)), right] for share, own in mixed.items()}
    least = min(SHARES, key=lambda share: row_losses[share].mean())
    worse = {share: own - row_losses[least] for share, own in row_losses.items()}
    allowed = [
        share
        for share, own in worse.items()
        if own.mean() <= SAID.doubt * np.sqrt(own.var() / (len(right) - 1)) + 1e-12
    ]
    assert found.strength == strength
    assert found.share == max(allowed) not in (0, 1)
    expected = (1 - found.share) * whole / by_rows + found.share * other / by_words
    centred = [logits - logits.mean(axis=1, keepdims=True) for logits in (found.head.logits(features), expected)]
    np.testing.assert_allclose(*centred, atol=0.02)


class Scaled(FunctionTransformer):  # type: ignore[misc]
    """Features with mean 0 and length 1 on average over the rows of the fit."""

    def fit(self, X: np.ndarray, y: Any = None) -> Scaled:
        self.mean_ = X.mean(axis=0)
        self.scale_ = np.sqrt(np.square(X - self.mean_).sum(axis=1).mean())
        return self

    def transform(self, X: np.ndarray) -> np.ndarray:
        return (X - self.mean_) / self.scale_


def test_descriptions_help_a_few_rows() -> None:
    world = World(2.5)
    described = world.described()
    alone, both = zip(*(joined(world, 4, described) for _ in range(10)), strict=True)
    unseen = world.rows(400)
    by_rows, by_both = (float(np.mean([accuracy(one.head, *unseen) for one in own])) for own in (alone, both))
    assert by_both > by_rows + 0.1
    assert by_both > accuracy(described, *unseen) - 0.03


@pytest.mark.parametrize("turned", [1, 2])
def test_many_rows_outvote_wrong_descriptions(turned: int) -> None:
    world = World(1.5)
    alone, both = joined(world, 60, world.described(turned))
    assert both.share == 0
    unseen = world.rows(400)
    assert accuracy(both.head, *unseen) == accuracy(alone.head, *unseen) > 0.8
    assert accuracy(world.described(turned), *unseen) < 0.1


def test_with_more_rows_descriptions_count_less() -> None:
    world = World(2.5)
    shares = [
        np.mean([joined(world, rows, world.described(vague=1.0))[1].share for _ in range(5)]) for rows in (3, 200)
    ]
    assert shares[0] > shares[1]


def test_rows_alone_are_judged() -> None:
    world = World(2.5)
    features, targets = world.rows(6)
    found = fit_head(SINGLE, features, targets, LABELS)
    with_words = with_descriptions(SINGLE, found, world.described(), features, targets, None, SAID)
    assert with_words.held_out.shape == (18, LABELS)
    assert (with_words.judged == found.judged).all()
    # A row that cannot be judged does not affect the choice.
    lone = np.r_[targets, [[2.0]]]
    for row in (features[0], 100 * features[0]):
        given = np.r_[features, row[np.newaxis]]
        odd = FittedHead(found.head, 1.0, np.r_[found.held_out, [[0, 0, 9.0]]], np.r_[found.judged, False])
        assert with_descriptions(SINGLE, odd, world.described(), given, lone, None, SAID).share == with_words.share


def test_rows_that_count_more_have_more_say() -> None:
    right = np.array([[0.0], [0.0], [1.0], [1.0]] * 8)
    by_rows, by_words = np.tile([[2.0, 0.0]], (32, 1)), np.tile([[0.0, 2.0]], (32, 1))
    heavy = [np.where(right[:, 0] == label, 20.0, 1.0) for label in (0, 1)]
    assert [join_of(SINGLE, by_rows, by_words, right, weights, SAID).share for weights in heavy] == [0.0, 1.0]


def test_without_a_row_to_judge_by_descriptions_count_most() -> None:
    nothing = np.zeros((0, 2))
    join = join_of(SINGLE, nothing, nothing, np.zeros((0, 1)), None, SAID)
    share = SAID.unjudged_share
    assert (join.share, join.fitted, join.described) == (share, 1 - share, share)


def test_a_label_without_a_description_is_as_close_as_the_others_on_average() -> None:
    features = np.random.default_rng(1).normal(size=(8, HIDDEN))
    told = described_head(NAMES, {"a": ["x"], "c": ["y"]}, features)
    assert not told.weight[1].any()
    np.testing.assert_allclose(told.weight[0], -told.weight[2])
    np.testing.assert_allclose(
        told.weight[[0, 2]], described_head(("a", "c"), {"a": ["x"], "c": ["y"]}, features).weight
    )


@pytest.fixture
def folder(bundle_folder: Path, tmp_path: Path) -> Path:
    return shutil.copytree(bundle_folder, tmp_path / "bundle")


@pytest.fixture
def engine(folder: Path) -> Iterator[Engine]:
    with Engine(folder, "fp32", threads=1) as opened:
        yield opened


def test_an_engine_joins_heads_of_its_own_features(engine: Engine) -> None:
    plain = engine.fit(TEXTS, BY_CHANCE, "plain", descriptions=None, store=False)
    report = engine.fit(TEXTS, BY_CHANCE, "told", descriptions=DESCRIPTIONS, store=False)
    assert (plain.description_share, plain.remarks) == (0.0, report.remarks)
    assert report.task.metrics["cv_rows"] == len(TEXTS)
    features = engine.features(TEXTS, plain.task)
    words = lines(report.task.labels, DESCRIPTIONS)
    described = described_head(report.task.labels, DESCRIPTIONS, engine.features(words, plain.task))
    targets = np.array([[report.task.labels.index(label)] for label in BY_CHANCE], np.float64)
    found = fit_head(SINGLE, features, targets, 3)
    expected = with_descriptions(SINGLE, found, described, features, targets, None, SAID)
    assert report.description_share == expected.share  # whatever these features make it; `World` has sure ones
    np.testing.assert_allclose(report.task.head[0], expected.head.weight, rtol=1e-5, atol=1e-5)
    np.testing.assert_allclose(report.held_out, expected.held_out, rtol=1e-5, atol=1e-5)


def test_some_labels_may_be_described_and_keys_be_numbers(engine: Engine) -> None:
    numbers = [list(DESCRIPTIONS).index(label) for label in BY_CHANCE]
    report = engine.fit(TEXTS, numbers, "t", descriptions={0: ["works very well"], 2: ["at night"]}, store=False)
    assert "no description of 1: only rows tell of it" in report.remarks
    assert {result.label for result in engine.classify(TEXTS, "t")} <= {"0", "1", "2"}


def test_one_row_of_each_label_and_descriptions(engine: Engine) -> None:
    report = engine.fit(TEXTS[:3], RIGHT[:3], "t", descriptions=DESCRIPTIONS, store=False)
    assert (report.cross_validated, report.description_share) == (None, SAID.unjudged_share)


def test_a_classifier_takes_descriptions(folder: Path) -> None:
    # One row per label: no row is held out, so the share does not depend on the features.
    rows = TEXTS[:3], RIGHT[:3]
    told, plain = (TextClassifier(folder, descriptions=given).fit(*rows) for given in (DESCRIPTIONS, None))
    assert told.fit_report_.description_share == SAID.unjudged_share
    assert not np.allclose(told.predict_proba(TEXTS), plain.predict_proba(TEXTS))
    with pytest.raises(ValueError, match="there are descriptions of dear, but the labels are bad, good, odd"):
        TextClassifier(folder, descriptions={"dear": ["x"], "bad": ["y"]}).fit(TEXTS, BY_CHANCE)


def run(*arguments: object) -> Result:
    return CliRunner().invoke(cli, [str(one) for one in arguments])


def test_the_command_takes_descriptions(folder: Path, tmp_path: Path) -> None:
    data = tmp_path / "rows.jsonl"
    rows = TEXTS[:3], RIGHT[:3]  # one of each label
    data.write_text("".join(json.dumps({"text": a, "label": b}) + "\n" for a, b in zip(*rows, strict=True)))
    command = [
        "fit",
        folder,
        "--data",
        data,
        "--name",
        "told",
        "--precision",
        "fp32",
        "--describe",
        "good=works very well,fine",
    ]
    done = run(*command, "--describe", "bad=is broken", "--json")
    assert done.exit_code == 0, done.stderr
    assert "no description of odd: only rows tell of it" in done.stderr
    with Engine(folder, "fp32") as engine:
        given = {"good": ["works very well", "fine"], "bad": ["is broken"]}
        expected = engine.fit(*rows, "told", descriptions=given, store=False)
    assert json.loads(done.stdout)["description_share"] == expected.description_share == SAID.unjudged_share
    assert Task.load(folder / "tasks" / "told.safetensors").sha256 == expected.task.sha256
    shown = run(*command, "--describe", "bad=is broken")
    assert "% " not in shown.stdout and "descriptions count " in shown.stdout


@pytest.mark.parametrize(
    ("described", "message"),
    [
        (["good=x"], "--describe for the label 'good' alone: expected at least two labels"),
        (["good=x", "bad"], "--describe 'bad' is not LABEL=WORD"),
        (["good=x", "dear=y"], "there are descriptions of dear, but the labels are bad, good, odd"),
    ],
)
def test_the_command_says_what_is_wrong(folder: Path, tmp_path: Path, described: list[str], message: str) -> None:
    data = tmp_path / "rows.jsonl"
    data.write_text("".join(json.dumps({"text": a, "label": b}) + "\n" for a, b in zip(TEXTS, BY_CHANCE, strict=True)))
    options = [part for one in described for part in ("--describe", one)]
    failed = run("fit", folder, "--data", data, "--name", "t", *options)
    assert isinstance(failed.exception, DataError)
    assert message in str(failed.exception)
