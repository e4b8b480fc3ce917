"""`TextFeatures`: texts as arrays of numbers, for any other estimator."""

from __future__ import annotations

from typing import Any, Self

from sklearn.base import ClassNamePrefixFeaturesOutMixin, TransformerMixin
from sklearn.utils.validation import check_is_fitted

from edgetune.sklearn.reading import FITTED, TextEstimator, given_texts, refusals
from edgetune_runtime.arrays import Array
from edgetune_runtime.errors import DataError
from edgetune_runtime.fitting.draft import new_draft
from edgetune_runtime.kinds.single_label import SINGLE_LABEL
from edgetune_runtime.task import Task


class TextFeatures(ClassNamePrefixFeaturesOutMixin, TransformerMixin, TextEstimator):  # type: ignore[misc]
    """Computes features of texts: the backbone's output that a task's head reads.

    Nothing is trained: `fit` opens the bundle, and checks whether the texts are pairs.

    Args:
        bundle, precision, device, threads, from_task, template, pooling, max_length, long_texts, stride: see
            `edgetune.sklearn.reading.TextEstimator`.

    Raises:
        InputError: X is not valid.
        EdgetuneError: the bundle cannot be opened, or a parameter does not fit it.
    """

    def __sklearn_is_fitted__(self) -> bool:
        return hasattr(self, "_engine")

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.transformer_tags.preserves_dtype = []  # features are always float32
        return tags

    def fit(self, X: Any, y: Any = None) -> Self:
        """Open the bundle.

        Args:
            X: texts, or pairs of texts.
            y: ignored.
        """
        with refusals():
            texts = given_texts(X)
            if not texts:
                raise DataError("there are no texts: expected at least one")
            engine = self._open()
            self._task = self._origin() or self._draft(isinstance(texts[0], tuple))
        self._n_features_out = engine.bundle.facts.sizes.hidden
        return self

    def transform(self, X: Any) -> Array:
        """The features of texts, in the engine's precision.

        Shape:
            output: [texts, hidden], float32
        """
        check_is_fitted(self)
        with refusals():
            return self._engine.features(given_texts(X), self._task)

    def _draft(self, pairs: bool) -> Task:
        """A task without a head, which defines how texts are read."""
        engine = self._engine
        draft = new_draft(
            engine.bundle.facts, engine.encoder, name=FITTED, labels=(), kind=SINGLE_LABEL, pairs=pairs,
            **self._reading(),
        )  # fmt: skip
        return engine.encoder.fitted(draft)
