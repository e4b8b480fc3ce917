"""Typical use of `edgetune.sklearn`: forms of y, grids, pipelines, pickles, and the same answers as the engine."""

from __future__ import annotations

import copy
import math
import pickle
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from conftest import TEXTS, MakeTask
from scipy.sparse import csr_matrix
from sklearn.base import clone
from sklearn.exceptions import DataConversionWarning, NotFittedError
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import GridSearchCV, KFold, cross_val_predict, cross_val_score
from sklearn.pipeline import Pipeline, make_pipeline
from sklearn.preprocessing import FunctionTransformer, MultiLabelBinarizer

import edgetune
from edgetune.sklearn import InputError, TextClassifier, TextFeatures, TextRegressor
from edgetune_runtime import Bundle, Engine, Task
from edgetune_runtime.errors import BundleError, DataError, EdgetuneError, TaskError

THINGS = ("lamp", "camera", "screen", "parcel", "mail", "speaker")
SAID = {"works very well": "good", "is broken": "bad", "sees nothing at night": "odd"}
ROWS = [(f"the {thing} {said}", label) for thing in THINGS for said, label in SAID.items()]
X, Y = [text for text, _ in ROWS], [label for _, label in ROWS]
TAGS = [["device", label] if place % 4 else ["device"] for place, label in enumerate(Y)]
NUMBERS = [{"good": 5.0, "bad": 1.5, "odd": 2.0}[label] for label in Y]


def snapshot(folder: Path) -> dict[str, bytes]:
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@pytest.fixture
def classifier(bundle_folder: Path) -> TextClassifier:
    return TextClassifier(bundle_folder, threads=1)


@pytest.fixture
def engine(bundle_folder: Path, tmp_path: Path) -> Iterator[Engine]:
    with Engine(shutil.copytree(bundle_folder, tmp_path / "bundle"), threads=1) as engine:
        yield engine


def test_it_is_what_the_engine_fits_and_answers(classifier: TextClassifier, engine: Engine) -> None:
    report = engine.fit(X, Y, "mood", class_weight={"odd": 2.0}, template="so {text}", seed=3)
    classifier.set_params(class_weight={"odd": 2.0}, template="so {text}", random_state=3).fit(X, Y)
    assert classifier.to_task("mood").sha256 == report.task.sha256
    assert classifier.fit_report_.cross_validated.values == report.cross_validated.values  # type: ignore[union-attr]
    answers = engine.classify(TEXTS, "mood")
    assert classifier.predict(TEXTS).tolist() == [one.label for one in answers]
    expected = [[one.scores[label] for label in ("bad", "good", "odd")] for one in answers]
    assert classifier.predict_proba(TEXTS).tolist() == expected


def test_the_bundle_is_only_read(classifier: TextClassifier, bundle_folder: Path) -> None:
    before = snapshot(bundle_folder)
    classifier.fit(X, Y).predict(X)
    TextFeatures(bundle_folder).fit_transform(X)
    assert snapshot(bundle_folder) == before


def test_the_task_goes_to_an_engine_a_bundle_and_a_file(
    classifier: TextClassifier, engine: Engine, tmp_path: Path
) -> None:
    task = classifier.fit(X, Y).to_task("mood")
    engine.add_task(task)
    assert [one.label for one in engine.classify(X, "mood")] == classifier.predict(X).tolist()
    for path in (tmp_path / "mood.safetensors", str(tmp_path / "again.safetensors")):
        task.save(path)
        assert Task.load(path).name == "mood"
    Bundle(engine.bundle.path).add_task(task)
    with pytest.raises(TaskError, match="name"):
        classifier.to_task("no/name")


@pytest.mark.parametrize(
    ("y", "classes"),
    [
        (Y, ["bad", "good", "odd"]),
        (np.array(Y), ["bad", "good", "odd"]),
        (np.array(Y, object), ["bad", "good", "odd"]),
        (pd.Series(Y), ["bad", "good", "odd"]),
        (pd.Series(Y, dtype="category"), ["bad", "good", "odd"]),
        ([{"bad": 2, "good": 10, "odd": -1}[one] for one in Y], [-1, 2, 10]),  # as text "10" comes before "2"
        (np.array([{"bad": 2, "good": 10, "odd": -1}[one] for one in Y], np.int8), [-1, 2, 10]),
        ([one == "good" for one in Y], [False, True]),
        (np.array([one == "good" for one in Y], np.float32), [0.0, 1.0]),
    ],
)
def test_labels_come_back_as_they_are(classifier: TextClassifier, y: Any, classes: list[Any]) -> None:
    classifier.fit(X, y)
    assert classifier.classes_.tolist() == classes
    found = classifier.predict(X)
    assert found.dtype == classifier.classes_.dtype == np.unique(np.asarray(y)).dtype
    assert (found == np.asarray(y)).mean() > 0.9 and classifier.score(X, y) == (found == np.asarray(y)).mean()
    scores = classifier.predict_proba(X)
    assert scores.shape == (len(X), len(classes))
    np.testing.assert_allclose(scores.sum(axis=1), 1)
    assert (classifier.classes_[scores.argmax(axis=1)] == found).all()
    decided = classifier.decision_function(X)
    if len(classes) == 2:
        assert (classifier.classes_[(decided > 0).astype(int)] == found).all()
        np.testing.assert_allclose(1 / (1 + np.exp(-decided)), scores[:, 1])
    else:
        assert (classifier.classes_[decided.argmax(axis=1)] == found).all()


def test_a_column_of_labels_is_taken_with_a_warning(classifier: TextClassifier) -> None:
    with pytest.warns(DataConversionWarning):
        classifier.fit(X, np.array(Y)[:, np.newaxis])
    assert classifier.predict(X[:2]).shape == (2,)


@pytest.mark.parametrize(
    "of",
    [
        np.array,
        pd.Series,
        tuple,
        lambda x: pd.DataFrame({"text": x}),
        lambda x: pytest.importorskip("datasets").Dataset.from_dict({"text": x})["text"],
    ],
)
def test_texts_come_in_any_form(classifier: TextClassifier, of: Any) -> None:
    expected = clone(classifier).fit(X, Y).predict_proba(X)
    assert (classifier.fit(of(X), Y).predict_proba(of(X)) == expected).all()


@pytest.mark.parametrize("of", [list, np.array, lambda x: pd.DataFrame(x, columns=["text", "text_pair"])])
def test_pairs_come_in_any_form(bundle_folder: Path, engine: Engine, of: Any) -> None:
    pairs = [(text, "it was there") for text in X]
    found = TextClassifier(bundle_folder, threads=1).fit(of(pairs), Y)
    assert found.task_.pairs
    assert found.to_task("pairs").sha256 == engine.fit(pairs, Y, "pairs").task.sha256
    assert found.predict(of(pairs)).tolist() == [one.label for one in engine.classify(pairs, "pairs")]
    features = TextFeatures(bundle_folder, threads=1).fit_transform(of(pairs))
    assert (features == engine.features(pairs, "pairs")).all()


def test_lists_of_labels(classifier: TextClassifier, engine: Engine) -> None:
    report = engine.fit(X, TAGS, "tags")
    classifier.fit(X, TAGS)
    assert classifier.classes_.tolist() == ["bad", "device", "good", "odd"]
    assert classifier.to_task("tags").sha256 == report.task.sha256
    found = classifier.predict(X)
    assert found == [list(one.labels) for one in engine.classify(X, "tags")]
    assert ((classifier.decision_function(X) >= 0) == [[c in own for c in classifier.classes_] for own in found]).all()
    right = np.mean([set(one) == set(tags) for one, tags in zip(found, TAGS, strict=True)])
    assert classifier.score(X, TAGS) == classifier.score(X, [set(one) for one in TAGS]) == right
    joined = clone(clone(classifier).set_params(kind="multi-label")).fit(X, ["|".join(one) for one in TAGS])
    assert joined.predict(X) == found
    numbers = clone(classifier).fit(X, [[10, 9] if "good" in one else [9] for one in TAGS])
    assert numbers.classes_.tolist() == [9, 10]
    assert {label for one in numbers.predict(X) for label in one} <= {9, 10}


@pytest.mark.parametrize("of", [np.asarray, csr_matrix, lambda x: pd.DataFrame(x, columns=list("dabc"))])
def test_an_indicator_matrix(classifier: TextClassifier, of: Any) -> None:
    matrix = MultiLabelBinarizer(classes=["odd", "device", "good", "bad"]).fit_transform(TAGS)
    classifier.fit(X, of(matrix))
    found = classifier.predict(X)
    assert found.dtype == matrix.dtype and found.shape == matrix.shape
    assert classifier.score(X, matrix) == (found == matrix).all(axis=1).mean() > 0.5
    assert ((classifier.decision_function(X) >= 0) == found).all()
    assert classifier.predict_proba(X)[:, 1].min() > 0.5  # all are devices
    wanted = list("dabc") if isinstance(of(matrix), pd.DataFrame) else [0, 1, 2, 3]
    assert classifier.classes_.tolist() == wanted


def test_a_class_that_no_text_has_is_never_predicted(classifier: TextClassifier) -> None:
    matrix = np.array([[1, 0, label == "good"] for label in Y])
    classifier.fit(X, matrix)
    assert classifier.predict(X)[:, 1].max() == 0 == classifier.predict_proba(X)[:, 1].max()
    assert classifier.decision_function(X)[:, 1].max() < 0


def test_multi_label_in_cross_validation(classifier: TextClassifier) -> None:
    matrix = MultiLabelBinarizer().fit_transform(TAGS)
    found = cross_val_predict(classifier, X, matrix, cv=3)
    assert found.shape == matrix.shape and (found == matrix).mean() > 0.7


def test_numbers(bundle_folder: Path, engine: Engine) -> None:
    report = engine.fit(X, NUMBERS, "stars")
    regressor = TextRegressor(bundle_folder, threads=1).fit(X, NUMBERS)
    assert regressor.to_task("stars").sha256 == report.task.sha256
    assert regressor.predict(TEXTS).tolist() == [one.score for one in engine.classify(TEXTS, "stars")]
    assert regressor.score(X, NUMBERS) > 0.7
    assert regressor.fit(X, [1, 2] * 9).predict(X).dtype == np.float64
    assert cross_val_predict(regressor, X, NUMBERS, cv=3).shape == (len(X),)


def test_features(bundle_folder: Path, engine: Engine) -> None:
    engine.fit(X, Y, "mood", template="so {text}", max_length=16)
    features = TextFeatures(bundle_folder, template="so {text}", max_length=16, threads=1)
    found = features.fit(X).transform(TEXTS)
    assert found.dtype == np.float32 and (found == engine.features(TEXTS, "mood")).all()
    assert len(features.get_feature_names_out()) == found.shape[1]
    frame = features.set_output(transform="pandas").transform(TEXTS)
    assert list(frame.columns[:2]) == ["textfeatures0", "textfeatures1"]
    behind = TextFeatures(bundle_folder, from_task="colour", threads=1).fit_transform(TEXTS)
    assert (behind == engine.features(TEXTS, "colour")).all() and not (behind == found).all()


def test_any_model_stands_behind_features(bundle_folder: Path, tmp_path: Path) -> None:
    model = make_pipeline(
        TextFeatures(bundle_folder, threads=1), LogisticRegression(max_iter=1000), memory=str(tmp_path)
    )
    assert model.fit(X, Y).score(X, Y) > 0.9
    found = GridSearchCV(model, {"logisticregression__C": [0.01, 1.0, 100.0]}, cv=3).fit(X, Y)
    assert found.best_score_ > 0.5 and found.predict(X[:2]).shape == (2,)


def test_cross_validation(classifier: TextClassifier) -> None:
    folds = KFold(3, shuffle=True, random_state=0)
    scores = cross_val_predict(classifier, pd.Series(X), Y, cv=folds, method="predict_proba")
    assert scores.shape == (len(X), 3)
    for train, test in folds.split(X):
        alone = clone(classifier).fit([X[place] for place in train], [Y[place] for place in train])
        assert (alone.predict_proba([X[place] for place in test]) == scores[test]).all()
    assert cross_val_score(classifier, X, Y, cv=3, scoring="neg_log_loss").mean() > -math.log(3)


def test_a_grid_over_processes(classifier: TextClassifier) -> None:
    grid = {"template": ["{text}", "it said: {text}"], "class_weight": [None, "balanced"]}
    found = GridSearchCV(classifier, grid, cv=2, n_jobs=2).fit(np.array(X), Y)
    assert len(found.cv_results_["params"]) == 4 and found.best_score_ > 0.5
    assert found.best_estimator_.task_.template == found.best_params_["template"]
    assert (found.predict(X) == found.best_estimator_.predict(X)).all()


def test_in_a_pipeline(classifier: TextClassifier) -> None:
    def lower(texts: list[str]) -> list[str]:
        return [text.lower() for text in texts]

    model = Pipeline([("lower", FunctionTransformer(lower)), ("model", classifier)])
    model.fit(X, Y)
    assert model.set_params(model__max_length=32).get_params()["model__max_length"] == 32
    assert (model.predict_proba([text.upper() for text in X]) == model.predict_proba(X)).all()


@pytest.mark.parametrize("again", [copy.deepcopy, lambda one: pickle.loads(pickle.dumps(one))])
@pytest.mark.parametrize(
    "estimator",
    [
        lambda folder: TextClassifier(folder, threads=1).fit(X, Y),
        lambda folder: TextClassifier(folder, threads=1).fit(X, TAGS),
        lambda folder: TextRegressor(folder, threads=1).fit(X, NUMBERS),
    ],
)
def test_it_pickles_with_what_it_fitted(bundle_folder: Path, estimator: Any, again: Any) -> None:
    fitted = estimator(str(bundle_folder))
    other = again(fitted)
    assert list(other.predict(TEXTS)) == list(fitted.predict(TEXTS))
    assert other.get_params() == fitted.get_params() and other.task_.sha256 == fitted.task_.sha256


def test_features_pickle(bundle_folder: Path) -> None:
    fitted = TextFeatures(bundle_folder, threads=1).fit(X)
    assert (pickle.loads(pickle.dumps(fitted)).transform(TEXTS) == fitted.transform(TEXTS)).all()


def test_a_clone_keeps_a_task(bundle: Bundle, make_task: MakeTask) -> None:
    task = make_task("prefixed", prefix=5)
    fitted = clone(TextClassifier(bundle, from_task=task, threads=1)).fit(X, Y)
    assert fitted.task_.parts_sha256 == task.parts_sha256
    by_name = TextClassifier(bundle, from_task="colour", threads=1).fit(X, Y)
    assert by_name.task_.prefix_length == 6


def test_a_random_state(bundle_folder: Path) -> None:
    generator = np.random.RandomState(7)
    one = TextClassifier(bundle_folder, threads=1, random_state=generator).fit(X, Y)
    seed = int(np.random.RandomState(7).randint(np.iinfo(np.int32).max))
    other = TextClassifier(bundle_folder, threads=1, random_state=seed).fit(X, Y)
    assert one.task_.sha256 == other.task_.sha256


def test_it_is_refitted_with_new_parameters(classifier: TextClassifier) -> None:
    first = classifier.fit(X, Y).task_
    second = classifier.set_params(precision="fp32").fit(X, [label == "good" for label in Y]).task_
    assert classifier.fit_report_.precision == "fp32"
    assert first.labels != second.labels == ("false", "true")


ODD: list[tuple[Any, Any, dict[str, Any], str]] = [
    ("one text", ["a", "b"], {}, "one string came instead of a list of texts"),
    ([1, 2], ["a", "b"], {}, "text 0 is int 1: expected a string"),
    (pd.Series(["a", None]), ["a", "b"], {}, "text 1 is"),
    ([" ", "b"], ["a", "b"], {}, "text 0 is empty"),
    (["a", ("b", "c")], ["a", "b"], {}, "text 1 and text 0 differ"),
    (pd.DataFrame([["x", "y", "z"]] * 2), ["a", "b"], {}, "text 0 is list"),
    (X, Y[:-1], {}, "17 labels came for 18 texts"),
    (X, "good", {}, "y is a str: expected a label for each text"),
    (X, None, {}, "requires y to be passed"),
    (X, 3, {}, "y is a int: expected a label for each text"),
    (X, NUMBERS, {}, "Unknown label type: continuous"),
    (X, ["good"] * 18, {}, "y has 1 class, 'good': expected at least two"),
    (X, [[label, label] for label in Y], {}, "label 0 is ['good', 'good']: a label occurs in it twice"),
    (X, np.array([[1, 0, 2]] * 18), {}, "y has several columns, and not only 0 and 1"),
    (X, np.zeros((18, 2), int), {}, "no row of the training data has a label"),
    (X, TAGS, {"kind": "single-label"}, "y has several labels per text, and the kind is 'single-label'"),
    (X, Y, {"kind": "score"}, "kind is 'score': expected TextRegressor"),
    (X, Y, {"kind": "many"}, "there is no kind 'many'"),
    (X, Y, {"class_weight": "even"}, "`class_weight` is 'even': expected 'balanced', 'none', or label"),
    (X, Y, {"class_weight": 2}, "`class_weight` is 2: expected 'balanced', 'none', or label → number above 0"),
    (X, Y, {"class_weight": {"goood": 2}}, "there are class weights for goood, but the labels are bad, good, odd"),
    (np.array(X), np.array([None, *Y[1:]], object), {}, ""),
]


@pytest.mark.parametrize(("x", "y", "params", "message"), ODD)
def test_what_cannot_be_used_is_refused_in_a_line(
    bundle_folder: Path, x: Any, y: Any, params: dict[str, Any], message: str
) -> None:
    with pytest.raises((ValueError, TypeError)) as raised:
        TextClassifier(bundle_folder, threads=1, **params).fit(x, y)
    assert message in str(raised.value) and "\n" not in str(raised.value)


def test_its_errors_are_of_both_families(classifier: TextClassifier) -> None:
    for family in (EdgetuneError, DataError, ValueError, InputError):
        with pytest.raises(family):
            classifier.fit([1], ["a"])
    with pytest.raises(InputError, match="is int 3"):
        classifier.fit(X, Y).predict([3])
    with pytest.raises(InputError, match="expected a string for task"):
        classifier.predict([("a", "b")])


@pytest.mark.parametrize(("y", "message"), [(None, "requires y"), (["a"] * 18, "'a'"), ([1.0] * 18, "all scores")])
def test_a_regressor_refuses_in_a_line(bundle_folder: Path, y: Any, message: str) -> None:
    with pytest.raises(InputError, match=message):
        TextRegressor(bundle_folder, threads=1).fit(X, y)


def test_what_does_not_fit_the_bundle_is_refused(bundle_folder: Path, tmp_path: Path) -> None:
    for params, error, message in (
        ({"bundle": tmp_path / "none"}, BundleError, "none"),
        ({"precision": "q4"}, BundleError, "q4"),
        ({"template": "no slot"}, TaskError, "{text}"),
        ({"pooling": "decoder"}, DataError, "can read features by"),
        ({"long_texts": "fold"}, EdgetuneError, "fold"),
        ({"from_task": "none"}, TaskError, "none"),
        ({"threads": 0}, DataError, "threads is 0"),
    ):
        for estimator in (TextClassifier, TextFeatures):
            with pytest.raises(error, match=message):
                estimator(**{"bundle": bundle_folder, **params}).fit(X, Y)


@pytest.mark.parametrize("estimator", [TextClassifier, TextRegressor, TextFeatures])
def test_it_says_that_it_is_not_fitted(estimator: Any, bundle_folder: Path) -> None:
    for call in ("predict", "predict_proba", "decision_function", "transform"):
        if hasattr(estimator, call):
            with pytest.raises(NotFittedError):
                getattr(estimator(bundle_folder), call)(X)
    if estimator is not TextFeatures:
        with pytest.raises(NotFittedError):
            estimator(bundle_folder).to_task("mood")


def test_without_scikit_learn_it_says_what_to_install() -> None:
    code = "import sys; sys.modules['sklearn'] = None\nimport edgetune\ntry: edgetune.sklearn\n"
    code += "except edgetune.EdgetuneError as error: print(error)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip().endswith("pip install 'edgetune[fit]'")


def test_it_needs_no_pytorch(bundle_folder: Path) -> None:
    code = f"""
import sys
class No:
    def find_spec(self, name, *_):
        if name.partition(".")[0] in ("torch", "transformers"): raise ImportError(name)
sys.meta_path.insert(0, No())
import edgetune
print(edgetune.sklearn.TextClassifier({str(bundle_folder)!r}).fit({X!r}, {Y!r}).predict({X[:3]!r}).tolist())
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == str(edgetune.sklearn.TextClassifier(bundle_folder).fit(X, Y).predict(X[:3]).tolist())
