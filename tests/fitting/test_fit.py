"""`Engine.fit`: heads on a bundle's own features, for every kind of answer, without PyTorch."""

from __future__ import annotations

import dataclasses
import json
import math
import shutil
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from click.testing import CliRunner
from conftest import TEXTS
from sklearn.linear_model import LogisticRegression, LogisticRegressionCV, Ridge
from sklearn.model_selection import StratifiedKFold
from sklearn.multiclass import OneVsRestClassifier
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from threadpoolctl import threadpool_info

from edgetune.cli import cli
from edgetune.evaluation import evaluate
from edgetune_runtime import Engine, Task
from edgetune_runtime.errors import DataError, EdgetuneError, TaskError
from edgetune_runtime.fitting.by_kind import FITTINGS
from edgetune_runtime.fitting.head import STRENGTHS, fit_head, folds
from edgetune_runtime.kinds import KINDS

THINGS = ("lamp", "camera", "screen", "parcel", "mail", "speaker")
SAID = {"works very well": "good", "is broken": "bad", "sees nothing at night": "odd"}
ROWS = [(f"the {thing} {said}", label) for thing in THINGS for said, label in SAID.items()]
TEXTS_GIVEN, LABELS = [text for text, _ in ROWS], [label for _, label in ROWS]

LABELS_OF_KIND: dict[str, list[Any]] = {
    "single-label": LABELS,
    "multi-label": [[label, "device"] if place % 2 else [label] for place, label in enumerate(LABELS)],
    "score": [{"good": 5.0, "bad": 1.5, "odd": 2.0}[label] for label in LABELS],
    "tokens": [[(4, 4 + len(thing), "light" if thing == "lamp" else "device")] for thing in THINGS for _ in SAID],
    "spans": [{"text": ["there"], "answer_start": [7]} if place % 3 else [] for place, _ in enumerate(LABELS)],
}


@pytest.fixture
def folder(bundle_folder: Path, tmp_path: Path) -> Path:
    """A bundle that may be changed."""
    return shutil.copytree(bundle_folder, tmp_path / "bundle")


@pytest.fixture(params=["fp32", "int8"])
def engine(folder: Path, request: pytest.FixtureRequest) -> Iterator[Engine]:
    with Engine(folder, request.param, threads=1) as opened:
        yield opened


def some_features(rows: int = 120, hidden: int = 10, labels: int = 4) -> tuple[np.ndarray, np.ndarray]:
    random = np.random.default_rng(3)
    right = random.integers(0, labels, rows)
    features = random.normal(size=(labels, hidden))[right] + random.normal(0, 1.5, (rows, hidden)) + 7
    return features.astype(np.float32), right[:, np.newaxis].astype(np.float64)


@pytest.mark.parametrize(
    ("kind", "pairs"),
    [(kind, pairs) for kind in KINDS for pairs in (False, True) if pairs or kind != "spans"],
)
def test_every_kind_is_fitted_and_answers(engine: Engine, kind: str, pairs: bool) -> None:
    texts = [(text, "it was there") for text in TEXTS_GIVEN] if pairs else TEXTS_GIVEN
    report = engine.fit(texts, LABELS_OF_KIND[kind], "fitted")
    task = report.task
    assert (task.kind_name, task.pairs, task.method) == (kind, pairs, "fit")
    assert report.cross_validated is not None
    headline = report.cross_validated.values[task.kind.headline]
    assert 0 < headline <= 1
    stored = task.metrics[f"cv_{FITTINGS[kind].stored[0]}"]
    assert stored == report.cross_validated.values[FITTINGS[kind].stored[0]]
    results = engine.classify(texts, "fitted")
    right = [task.kind.target(label) for label in LABELS_OF_KIND[kind]]
    assert task.kind.figures(right, results, task).values[task.kind.headline] > 0.8
    assert Task.load(engine.bundle.path / "tasks" / "fitted.safetensors").sha256 == task.sha256
    with Engine(engine.bundle.path, engine.precision) as again:
        assert again.classify(texts, "fitted") == results


def test_features_are_what_the_head_reads(engine: Engine) -> None:
    task = engine.fit(TEXTS_GIVEN, LABELS, "fitted", store=False).task
    weight, bias = task.head
    logits = engine.features(TEXTS_GIVEN, task) @ weight.T + bias
    tokens = engine.encode(TEXTS_GIVEN, [task] * len(TEXTS_GIVEN))
    np.testing.assert_allclose(logits, engine.run([(row, task) for row in tokens]), atol=1e-4)
    assert not (engine.bundle.path / "tasks" / "fitted.safetensors").exists()
    assert "fitted" in engine.task_names


def test_a_head_equals_scikit_learns() -> None:
    features, targets = some_features()
    middle = features.mean(axis=0)
    scale = np.sqrt(np.square(features - middle).sum(axis=1).mean())
    scaled = (features - middle) / scale
    for strength in STRENGTHS:
        (head,) = FITTINGS["single-label"].head(features, targets, 4, (strength,), None)
        theirs = LogisticRegression(C=strength, max_iter=300).fit(scaled, targets[:, 0])
        ours = head.logits(features)
        np.testing.assert_allclose(
            ours - ours.mean(axis=1, keepdims=True),
            (found := theirs.decision_function(scaled)) - found.mean(axis=1, keepdims=True),
            atol=0.02 * np.abs(found).max(),
        )


def test_heads_of_several_labels_and_of_scores_equal_scikit_learns() -> None:
    features, targets = some_features()
    middle = features.mean(axis=0)
    scaled = (features - middle) / np.sqrt(np.square(features - middle).sum(axis=1).mean())
    several = np.eye(4)[targets[:, 0].astype(int)]
    several[:, 3] = features[:, 0] > middle[0]
    (head,) = FITTINGS["multi-label"].head(features, several, 4, (10.0,), None)
    theirs = OneVsRestClassifier(LogisticRegression(C=10.0, max_iter=300)).fit(scaled, several)
    np.testing.assert_allclose(head.logits(features), theirs.decision_function(scaled), atol=0.05)
    scores = targets * 3 + 1
    (head,) = FITTINGS["score"].head(features, scores, 1, (10.0,), None)
    ridge = Ridge(alpha=0.1).fit(scaled, scores[:, 0])
    np.testing.assert_allclose(head.logits(features)[:, 0], ridge.predict(scaled), atol=1e-3)


@pytest.mark.parametrize("labels", [2, 4])
def test_it_is_as_accurate_as_scikit_learns_own_pipeline(labels: int) -> None:
    features, targets = some_features(1000, labels=labels)
    train, test = slice(0, 500), slice(500, None)
    found = fit_head(FITTINGS["single-label"], features[train], targets[train], labels)
    pipeline = make_pipeline(
        StandardScaler(),
        LogisticRegressionCV(
            Cs=STRENGTHS, cv=StratifiedKFold(5), scoring="neg_log_loss", use_legacy_attributes=False, l1_ratios=(0.0,)
        ),
    ).fit(features[train], targets[train, 0])
    ours = (found.head.logits(features[test]).argmax(axis=1) == targets[test, 0]).mean()
    theirs = (pipeline.predict(features[test]) == targets[test, 0]).mean()
    assert abs(ours - theirs) <= 0.01
    held_out = (found.held_out.argmax(axis=1) == targets[train, 0]).mean()
    assert abs(held_out - ours) < 0.06, "what cross-validation says is what test rows say"


def test_weights_of_rows_are_scikit_learns() -> None:
    features, targets = some_features()
    weights = np.where(targets[:, 0] == 1, 5.0, 0.5)
    middle = features.mean(axis=0)
    scaled = (features - middle) / np.sqrt(np.square(features - middle).sum(axis=1).mean())
    (head,) = FITTINGS["single-label"].head(features, targets, 4, (1.0,), weights)
    theirs = LogisticRegression(C=1.0, max_iter=300).fit(scaled, targets[:, 0], weights)
    ours = head.logits(features)
    expected = theirs.decision_function(scaled)
    np.testing.assert_allclose(
        ours - ours.mean(axis=1, keepdims=True), expected - expected.mean(axis=1, keepdims=True), atol=0.02
    )


@pytest.mark.parametrize("kind", [name for name, kind in KINDS.items() if kind.reading is None])
def test_each_fold_has_its_share(kind: str) -> None:
    rows = {
        "single-label": np.repeat([0, 1, 2], [50, 10, 5])[:, np.newaxis],
        "multi-label": np.random.default_rng(0).integers(0, 2, (65, 3)),
        "score": np.linspace(1, 5, 65)[:, np.newaxis],
    }[kind].astype(np.float64)
    fold = folds(rows, seed=0)
    assert np.array_equal(fold, folds(rows, seed=0))
    assert kind == "score" or not np.array_equal(fold, folds(rows, seed=1)), "scores are all different"
    assert np.bincount(fold).tolist() == [13] * 5
    for number in range(5):
        away = rows[fold == number].mean(axis=0) - rows.mean(axis=0)
        assert np.abs(away).max() < 0.2 * rows.std(axis=0).max() + 0.02
    if kind == "single-label":
        assert all(np.bincount(fold[rows[:, 0] == 2]) == 1)


def test_rows_of_a_group_are_held_out_together() -> None:
    groups = np.repeat(np.arange(23), np.random.default_rng(0).integers(1, 9, 23))
    fold = folds(np.zeros((len(groups), 1)), seed=0, groups=groups)
    by_group = [np.unique(fold[groups == number]) for number in range(23)]
    assert {len(own) for own in by_group} == {1}
    assert sorted(np.bincount(np.concatenate(by_group)).tolist()) == [4, 4, 5, 5, 5]


def test_another_tasks_prompt_is_read_and_its_pass_shared(engine: Engine) -> None:
    origin = engine.task("colour")
    task = engine.fit(TEXTS_GIVEN, LABELS, "beside", from_task="colour").task
    assert task.parts_sha256 == origin.parts_sha256
    assert engine.share_a_pass(task, origin)
    assert (task.prompt_length, task.prefix_length) == (origin.prompt_length, origin.prefix_length)
    assert {result.label for result in engine.classify(TEXTS_GIVEN, "beside")} <= set(SAID.values())
    assert (task.method, task.temperature != origin.temperature) == (origin.method, True)


def test_columns_of_pandas_and_numpy_are_taken(engine: Engine) -> None:
    frame = pd.DataFrame({"text": TEXTS_GIVEN, "label": pd.Categorical(LABELS), "stars": np.arange(len(LABELS)) % 3})
    expected = engine.fit(TEXTS_GIVEN, LABELS, "a", store=False).task
    found = engine.fit(frame["text"], frame["label"], "a", store=False).task
    assert found.to_bytes() == expected.to_bytes()
    stars = engine.fit(np.array(TEXTS_GIVEN), frame["stars"], "stars", store=False).task
    assert stars.labels == ("0", "1", "2")


def test_one_row_of_each_label_is_fitted_but_not_judged(engine: Engine) -> None:
    report = engine.fit(TEXTS_GIVEN[:3], LABELS[:3], "few", store=False)
    assert report.cross_validated is None
    assert report.task.temperature == 1.0
    assert [result.label for result in engine.classify(TEXTS_GIVEN[:3], "few")] == LABELS[:3]
    assert any("teaches little" in remark for remark in report.remarks)


@pytest.mark.parametrize(
    ("texts", "labels", "options", "message"),
    [
        (TEXTS[:4], ["a"] * 4, {}, "has only the label 'a': expected at least two different labels"),
        (TEXTS[:1], ["a"], {}, "has only the label 'a'"),
        ([], [], {}, "there are no texts"),
        (["", "b"], ["a", "b"], {}, "text 0 is empty: add the text, or take the row out"),
        (["a", "  "], ["a", "b"], {}, "text 1 is empty"),
        (TEXTS[:2], ["a", math.nan], {}, "label 1 is nan: expected a string, an integer or a boolean"),
        (TEXTS[:2], [1.5, math.nan], {}, "label 1 is nan"),
        (TEXTS[:2], ["a", None], {}, "label 1 is None"),
        (TEXTS[:2], ["a"], {}, "1 labels came for 2 texts: expected one for each"),
        (TEXTS[:2], [["a", "b", "c"], ["d"]], {}, "2 rows came with 4 different labels: expected at least one row"),
        (TEXTS[:3], [[0, 1], [1, 0], [0, 1]], {}, "each of the labels is a list of 2 times 0 or 1"),
        (TEXTS[:2], ["a", "b"], {"class_weight": {"a": "x"}}, "`class_weight` is 'x' for 'a': expected a finite"),
        (TEXTS[:2], [1.5, 2.5e6], {}, "has the score 2.5e.06: expected scores from -1,000,000"),
        (TEXTS[:2], ["a", "b"], {"long_texts": "windows", "max_length": 12}, "`stride` 32 came for windows of 12"),
        (TEXTS[:2], [["a"], 3], {}, "label 1 is 3, and others are lists: write all of them as lists"),
        (
            TEXTS[:2],
            ["a", "b"],
            {"kind": "entities"},
            "there is no kind 'entities': expected one of",
        ),
        ("text", ["a"], {}, r"one string came instead of a list of texts: write \[text\]"),
        ([1, "b"], ["a", "b"], {}, "text 0 is int 1: expected a string, or a pair of strings"),
        (["a", ("b", "c")], ["a", "b"], {}, "text 1 and text 0 differ: one is a pair"),
        ([("a", "b"), ("b", "c")], ["a", "b"], {"from_task": "colour"}, "task 'colour' reads single texts, and these"),
        (TEXTS[:2], [1.0, 2.5], {"class_weight": "balanced"}, "class weights came for a task of the kind 'score'"),
        (TEXTS[:2], ["a", "b"], {"class_weight": {"c": 2.0}}, "there are class weights for c, but the labels are a, b"),
        (
            TEXTS[:2],
            ["a", "b"],
            {"descriptions": {"a": ["x"], "c": ["y"]}},
            "descriptions of c, but the labels are a, b",
        ),
        (TEXTS[:2], ["a", "b"], {"descriptions": {"a": ["x"], "b": [" "]}}, "the description of 'b' is empty"),
        (TEXTS[:2], ["a", "b"], {"descriptions": {"a": ["x"], "b": "y"}}, "the description of 'b' is one string"),
        (
            TEXTS[:2],
            ["a", "b"],
            {"descriptions": {"a": ["x"], "b": [3]}},
            r"description of 'b' is \[3\]: expected a list",
        ),
        (
            TEXTS[:2],
            ["a", "b"],
            {"descriptions": {"a": ["x"]}},
            "descriptions of 1 labels came: expected those of at least",
        ),
        (TEXTS[:2], ["a", "b"], {"descriptions": "a=x"}, "`descriptions` is a str: expected label → list of texts"),
        (
            TEXTS[:2],
            [1.0, 2.5],
            {"descriptions": {"1": ["x"], "2": ["y"]}},
            "descriptions came for a task of the kind 'score'",
        ),
        (
            TEXTS[:2],
            [["a"], ["b"]],
            {"descriptions": {"a": ["x"], "b": ["y"]}},
            "came for a task of the kind 'multi-label'",
        ),
        (
            [("a", "b")] * 2,
            ["a", "b"],
            {"descriptions": {"a": ["x"], "b": ["y"]}},
            "descriptions came for pairs of texts",
        ),
        (TEXTS[:2], ["a", "b"], {"long_texts": "fold"}, "long_texts is 'fold': expected one of cut, windows"),
        (TEXTS[:2], ["a", "b"], {"pooling": "decoder"}, "the pooling is 'decoder', but .* can read features by mean"),
    ],
)
def test_what_cannot_be_fitted_is_refused_in_one_line(
    engine: Engine, texts: Any, labels: Any, options: dict[str, Any], message: str
) -> None:
    before = engine.task_names
    with pytest.raises(DataError, match=message) as told:
        engine.fit(texts, labels, "t", **options)
    assert "\n" not in str(told.value)
    assert engine.task_names == before


def test_a_task_in_memory_answers_like_its_file(engine: Engine) -> None:
    task = engine.fit(TEXTS_GIVEN, LABELS, "fitted", store=False).task
    in_memory = engine.classify(TEXTS, "fitted")
    engine.add_task(Task.from_bytes(task.to_bytes(), "its bytes"))
    assert engine.classify(TEXTS, "fitted") == in_memory
    tensors = {name: np.asfortranarray(tensor) for name, tensor in task.tensors.items()}
    engine.add_task(dataclasses.replace(task, tensors=tensors))
    assert engine.classify(TEXTS, "fitted") == in_memory


def test_columns_of_an_array_are_pairs(engine: Engine) -> None:
    pairs = [(text, "it was there") for text in TEXTS_GIVEN]
    expected = engine.fit(pairs, LABELS, "pairs").task.sha256
    assert engine.fit(np.array(pairs), LABELS, "pairs").task.sha256 == expected


def test_it_is_shown_in_a_line(engine: Engine) -> None:
    report = engine.fit(TEXTS_GIVEN, LABELS, "fitted")
    assert repr(report).startswith(f"<FitReport: task fitted, {engine.precision}, 18 rows, cross-validated accuracy ")
    assert repr(report.task) == f"<Task fitted: single-label (bad, good, odd), fit, for {report.task.base_model}>"


def test_a_name_that_no_file_can_have_is_refused_first(engine: Engine) -> None:
    with pytest.raises(TaskError, match=r"task name .* cannot be used"):
        engine.fit(TEXTS_GIVEN, LABELS, "../x")


def test_it_needs_no_pytorch(folder: Path, tmp_path: Path) -> None:
    data = tmp_path / "rows.jsonl"
    data.write_text("".join(json.dumps({"text": text, "label": label}) + "\n" for text, label in ROWS))
    program = (
        "import sys\n"
        "class No:\n"
        "    def find_spec(self, name, *_):\n"
        "        if name.partition('.')[0] in ('torch', 'transformers', 'onnx', 'optimum'): raise ImportError(name)\n"
        "sys.meta_path.insert(0, No())\n"
        "from edgetune.cli import main; main()"
    )
    command = [sys.executable, "-c", program, "fit", folder, "--data", data, "--name", "fitted", "--json"]
    done = subprocess.run(list(map(str, command)), capture_output=True, text=True, check=True)
    report = json.loads(done.stdout)
    assert (report["rows"], report["labels"], report["bundle"]) == (18, ["bad", "good", "odd"], str(folder))
    assert report["cv_accuracy"] == Task.load(folder / "tasks" / "fitted.safetensors").metrics["cv_accuracy"]


def test_without_scikit_learn_it_says_what_to_install(folder: Path) -> None:
    program = (
        "import sys; sys.modules['sklearn.linear_model'] = None\n"
        "from edgetune_runtime import Engine\n"
        f"Engine({str(folder)!r}).fit(['a', 'b'], ['x', 'y'], 'n')"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert "'sklearn' is needed for this and is not installed: pip install 'edgetune[fit]'" in done.stderr


def test_a_bundle_that_cannot_be_written_keeps_the_engine_as_it_is(folder: Path) -> None:
    with Engine(folder) as engine:
        tasks = folder / "tasks"
        shutil.rmtree(tasks)
        tasks.write_text("a file where a folder was")
        with pytest.raises(EdgetuneError):
            engine.fit(TEXTS_GIVEN, LABELS, "fitted")
        assert "fitted" not in engine.task_names


@pytest.mark.parametrize("kind", [name for name in KINDS if name != "spans"])
def test_of_many_rows_some_are_held_out(kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """They make the same choice as alone, and are answered by a head that was fitted to all other rows."""
    monkeypatch.setattr("edgetune_runtime.fitting.head.MOST_HELD_OUT", 50)
    features, targets = some_features(210)
    if kind == "multi-label":
        targets = np.eye(4)[targets[:, 0].astype(int)]
    labels = 1 if kind == "score" else 4
    found = fit_head(FITTINGS[kind], features, targets, labels)
    some = folds(targets, 0, 5) == 0
    assert np.array_equal(found.judged, some)
    assert some.sum() == 42
    (head,) = FITTINGS[kind].head(features[~some], targets[~some], labels, (found.strength,), None)
    np.testing.assert_allclose(found.held_out[some], head.logits(features[some]), rtol=1e-4, atol=1e-4)
    assert not found.held_out[~some].any()
    assert found.strength == fit_head(FITTINGS[kind], features[some], targets[some], labels).strength


def test_weights_of_integer_labels(engine: Engine) -> None:
    labels = [int(label == "good") for label in LABELS]
    plain, same, other = (
        engine.fit(TEXTS_GIVEN, labels, "t", class_weight=weights, store=False).task  # type: ignore[arg-type]
        for weights in (None, {0: 1, 1: 1}, {1: 9})
    )
    assert plain.to_bytes() == same.to_bytes() != other.to_bytes()


def test_a_task_of_another_backbone_has_no_features_here(engine: Engine) -> None:
    stranger = dataclasses.replace(engine.task("colour"), backbone_sha256="0" * 64)
    with pytest.raises(TaskError, match="was trained on the backbone"):
        engine.features(TEXTS, stranger)
    with pytest.raises(TaskError, match="was trained on the backbone"):
        evaluate(engine, TEXTS_GIVEN[:2], ["label0", "label1"], stranger)
    with pytest.raises(DataError, match="one string came instead of a list of texts"):
        engine.features("text", "colour")


def test_fits_side_by_side_leave_the_process_as_it_was(engine: Engine) -> None:
    before = [pool["num_threads"] for pool in threadpool_info() if pool["user_api"] == "blas"]
    threads = [
        threading.Thread(target=engine.fit, args=(TEXTS_GIVEN, LABELS, f"t{number}"), kwargs={"store": False})
        for number in range(4)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert [pool["num_threads"] for pool in threadpool_info() if pool["user_api"] == "blas"] == before
    assert {f"t{number}" for number in range(4)} <= set(engine.task_names)


def test_the_command_writes_a_page_of_the_rows_held_out(folder: Path, tmp_path: Path) -> None:
    data = tmp_path / "rows.jsonl"
    data.write_text("".join(json.dumps({"text": text, "label": label}) + "\n" for text, label in ROWS))
    base = ["fit", folder, "--data", data, "--name", "fitted", "--json"]
    done = CliRunner().invoke(cli, list(map(str, [*base, "--report", tmp_path / "page"])))
    assert done.exit_code == 0, f"{done.output}{done.exception!r}"
    page = (tmp_path / "page" / "report.html").read_text()
    assert json.loads(done.stdout)["report"] == str(tmp_path / "page" / "report.html")
    assert "18 rows" in page and "precision int8" in page
    data.write_text("".join(json.dumps({"text": text, "label": label}) + "\n" for text, label in ROWS[:3]))
    done = CliRunner().invoke(cli, list(map(str, [*base, "--report", tmp_path / "none"])))
    assert "no report, since each label has one row" in done.stderr
    assert json.loads(done.stdout)["report"] is None
