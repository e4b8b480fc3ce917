"""scikit-learn's own checks of estimators.

They pass numbers, so each estimator is wrapped in a reader that writes the numbers of a row as a text. Everything else
is the estimator's own: parameters, classes, errors, pickles, sample order, multi-label output.
"""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

import pytest
from sklearn.exceptions import SkipTestWarning
from sklearn.utils.estimator_checks import check_estimator
from sklearn.utils.validation import check_is_fitted, validate_data

from edgetune.sklearn import TextClassifier, TextFeatures, TextRegressor

WORDS = ("lamp", "broken", "screen", "thank", "works", "where", "parcel", "charged", "twice", "send", "money", "back")


class OfNumbers:
    """An estimator whose texts are rows of numbers."""

    def _worded(self, X: Any, reset: bool) -> list[str]:
        rows = validate_data(self, X, reset=reset)
        return [" ".join(f"{word} {value:.1f}" for word, value in zip(WORDS, row, strict=False)) for row in rows]

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()  # type: ignore[misc]
        tags.input_tags.two_d_array, tags.input_tags.one_d_array, tags.input_tags.string = True, False, False
        for own in filter(None, (tags.classifier_tags, tags.regressor_tags)):
            own.poor_score = True  # a backbone of random numbers understands no digits
        return tags

    def fit(self, X: Any, y: Any = None) -> Any:
        return super().fit(self._worded(X, True), y)  # type: ignore[misc]


class Answering(OfNumbers):
    def _results(self, X: Any) -> list[Any]:
        check_is_fitted(self)
        return super()._results(self._worded(X, False))  # type: ignore[misc]


class Classifier(Answering, TextClassifier):
    def __init__(self, bundle: str = "", precision: str = "fp32", threads: int = 1, class_weight: Any = None) -> None:
        super().__init__(bundle, precision=precision, threads=threads, class_weight=class_weight)


class Regressor(Answering, TextRegressor):
    def __init__(self, bundle: str = "", precision: str = "fp32", threads: int = 1) -> None:
        super().__init__(bundle, precision=precision, threads=threads)


class Features(OfNumbers, TextFeatures):
    def __init__(self, bundle: str = "", precision: str = "fp32", threads: int = 1) -> None:
        super().__init__(bundle, precision=precision, threads=threads)

    def transform(self, X: Any) -> Any:
        check_is_fitted(self)
        return super().transform(self._worded(X, False))


EXPECTED: dict[str, dict[str, str]] = {
    "Classifier": {
        "check_classifiers_multilabel_representation_invariance": "a list of lists has labels, and is no matrix",
    },
    "Regressor": {
        "check_fit2d_1sample": "says that all scores are the same, which is why one row is too few",
    },
    "Features": {},
}
"""Estimator → checks that it does not pass, and why."""


@pytest.mark.parametrize("estimator", [Classifier, Regressor, Features], ids=lambda one: one.__name__)
def test_the_checks_pass(estimator: Any, bundle_folder: Path) -> None:
    expected = EXPECTED[estimator.__name__]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        ran = check_estimator(
            estimator(str(bundle_folder)), expected_failed_checks=expected, on_fail=None, on_skip=None
        )
    failed = {one["check_name"]: str(one["exception"]) for one in ran if one["status"] == "failed"}
    assert failed == {}
    assert {one["check_name"] for one in ran if one["status"] == "xfail"} == set(expected)
    assert {one["check_name"] for one in ran if one["status"] == "skipped"} <= {"check_array_api_input"}
    assert len(ran) > 40


def test_scikit_learn_does_not_pass_numbers_to_an_estimator_of_texts(bundle_folder: Path) -> None:
    with pytest.warns(SkipTestWarning, match="requires input"):
        assert all(one["status"] == "passed" for one in check_estimator(TextClassifier(bundle_folder)))
