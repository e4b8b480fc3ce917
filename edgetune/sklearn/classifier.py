"""`TextClassifier`: one label, or any number of labels, per text."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Self

import numpy as np
from sklearn.base import ClassifierMixin
from sklearn.utils.validation import check_is_fitted

from edgetune.sklearn.labels import Form, Lists, form_of, label_sets
from edgetune.sklearn.reading import TaskEstimator, refusals
from edgetune_runtime import contract
from edgetune_runtime.arrays import Array
from edgetune_runtime.bundle import Bundle
from edgetune_runtime.errors import DataError
from edgetune_runtime.fitting.class_weight import class_weight_of
from edgetune_runtime.fitting.rows import kind_named
from edgetune_runtime.kinds.score import SCORE
from edgetune_runtime.kinds.single_label import SINGLE_LABEL
from edgetune_runtime.task import Task

_LEAST = np.finfo(np.float64).tiny


class TextClassifier(ClassifierMixin, TaskEstimator):  # type: ignore[misc]
    """Classifies texts with a head on the features of a bundle, as `edgetune.Engine.fit` fits it.

    y is a label per text (strings, integers, booleans), an indicator matrix, or a list of lists of labels; predictions
    have the same form. scikit-learn's own cross-validation and metrics do not accept lists of lists; use a matrix with
    them. Probabilities are calibrated by cross-validation.

    Args:
        bundle, precision, device, threads, from_task, template, pooling, max_length, long_texts, stride: see
            `edgetune.sklearn.reading.TextEstimator`.
        kind: "single-label", or "multi-label" for labels joined with `|`; by default derived from y.
        class_weight: `None` if rows of all labels count the same, "balanced", or label → weight.
        descriptions: label → descriptions of it, which help if there are few rows; "names" for the classes' own names;
            `None` for only the rows. See `Engine.fit`.
        random_state: decides which rows are held out together in cross-validation.

    Attributes:
        classes_: the sorted classes; columns of probabilities are in this order.
        task_: the fitted task.
        fit_report_: the result of the fit, including its quality in cross-validation.

    Raises:
        InputError: X or y is not valid.
        EdgetuneError: the bundle cannot be opened, or a parameter does not fit it.
    """

    def __init__(
        self,
        bundle: Bundle | str | Path,
        *,
        precision: str | None = None,
        device: str = "cpu",
        threads: int | None = None,
        kind: str | None = None,
        class_weight: Mapping[Any, float] | str | None = None,
        descriptions: Mapping[Any, Sequence[str]] | str | None = "names",
        from_task: Task | str | None = None,
        template: str = contract.TEXT_SLOT,
        pooling: str | None = None,
        max_length: int = contract.DEFAULT_MAX_LENGTH,
        long_texts: str = contract.CUT,
        stride: int = 32,
        random_state: Any = 0,
    ) -> None:
        super().__init__(
            bundle, precision=precision, device=device, threads=threads, from_task=from_task, template=template,
            pooling=pooling, max_length=max_length, long_texts=long_texts, stride=stride,
        )  # fmt: skip
        self.kind = kind
        self.class_weight = class_weight
        self.descriptions = descriptions
        self.random_state = random_state

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.classifier_tags.multi_label = True
        return tags

    def fit(self, X: Any, y: Any) -> Self:
        """Fit a head to labelled texts.

        Args:
            X: texts, or pairs of texts.
            y: the label or labels of each.
        """
        with refusals():
            kind = kind_named(self.kind)
            if kind is SCORE:
                raise DataError("kind is 'score': expected TextRegressor for numbers")
            form = form_of(y, kind)
            if form.kind is SINGLE_LABEL and len(form.classes) < 2:
                raise DataError(f"y has 1 class, {', '.join(form.names)!r}: expected at least two")
            weight = class_weight_of(self.class_weight)
            self._fit(X, form.targets, kind=form.kind, class_weight=weight, descriptions=self.descriptions)
        form.targets = []  # not needed after the fit, and a pickle would contain every label
        self._form: Form = form
        self.classes_ = form.classes
        return self

    def predict(self, X: Any) -> Any:
        """Predict the labels of texts, in the form of y."""
        results = self._results(X)
        return self._form.predictions(results)

    def predict_proba(self, X: Any) -> Array:
        """The probability of each class.

        With one label per text they sum to 1. With several, each is the probability that its label applies.

        Shape:
            output: [texts, classes], float64
        """
        results = self._results(X)
        return self._form.scores(results)

    def decision_function(self, X: Any) -> Array:
        """Decision values of texts.

        With several labels per text, a value above 0 means that the label applies. With two classes, the value is the
        logit of the second class; with more classes, it is each class's log-probability.

        Shape:
            output: [texts, classes], float64; [texts] for two classes
        """
        scores = np.maximum(self.predict_proba(X), _LEAST)
        if self._form.kind is SINGLE_LABEL:
            found: Array = np.log(scores)
            return found[:, 1] - found[:, 0] if len(self.classes_) == 2 else found
        limit_of = dict(zip(self.task_.labels, self.task_.kind.thresholds(self.task_), strict=True))
        limits = np.array([limit_of.get(name, 0.5) for name in self._form.names])
        return _logit(scores) - _logit(limits)

    def score(self, X: Any, y: Any, sample_weight: Any = None) -> float:
        """The share of texts whose labels are all right."""
        check_is_fitted(self)
        if not isinstance(self._form, Lists):
            return float(super().score(X, y, sample_weight))
        right = [given == found for given, found in zip(label_sets(y), label_sets(self.predict(X)), strict=True)]
        return float(np.average(right, weights=sample_weight))


def _logit(scores: Array) -> Array:
    found: Array = np.log(scores) - np.log(np.maximum(1 - scores, _LEAST))
    return found
