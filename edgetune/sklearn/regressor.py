"""`TextRegressor`: a number per text."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Self

import numpy as np
from sklearn.base import RegressorMixin
from sklearn.utils.validation import column_or_1d

from edgetune.sklearn.reading import TaskEstimator, refusals
from edgetune_runtime import contract
from edgetune_runtime.arrays import Array
from edgetune_runtime.bundle import Bundle
from edgetune_runtime.errors import DataError
from edgetune_runtime.kinds.score import SCORE
from edgetune_runtime.task import Task


class TextRegressor(RegressorMixin, TaskEstimator):  # type: ignore[misc]
    """Predicts numbers for texts with a ridge regression on the features of a bundle, as in `edgetune.Engine.fit`.

    Args:
        bundle, precision, device, threads, from_task, template, pooling, max_length, long_texts, stride: see
            `edgetune.sklearn.reading.TextEstimator`.
        random_state: decides which rows are held out together in cross-validation.

    Attributes:
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
        self.random_state = random_state

    def fit(self, X: Any, y: Any) -> Self:
        """Fit a head to texts with numbers.

        Args:
            X: texts, or pairs of texts.
            y: a number for each.
        """
        with refusals():
            if y is None:
                raise DataError("requires y to be passed, but the target y is None: expected a number for each text")
            self._fit(X, column_or_1d(y, warn=True).tolist(), kind=SCORE)
        return self

    def predict(self, X: Any) -> Array:
        """Predict the numbers of texts. Shape: [texts], float64."""
        return np.array([result.score for result in self._results(X)], np.float64)
