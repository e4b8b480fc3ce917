"""The base of the estimators: each has its own engine, and defines how it reads texts."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from sklearn.base import BaseEstimator
from sklearn.utils import check_random_state
from sklearn.utils.validation import check_is_fitted

from edgetune_runtime import contract
from edgetune_runtime.bundle import Bundle
from edgetune_runtime.engine import Engine
from edgetune_runtime.errors import DataError
from edgetune_runtime.fitting.rows import texts_of
from edgetune_runtime.task import Task
from edgetune_runtime.text import Text

FITTED = "fitted"
"""Name of an estimator's fitted task."""

_TEXTS_AT_ONCE = 256


class InputError(DataError, ValueError):
    """Texts or labels that are not valid. scikit-learn expects a `ValueError`."""


@contextmanager
def refusals() -> Iterator[None]:
    """Wrap the reading of X and y: a `DataError` becomes an `InputError`."""
    try:
        yield
    except DataError as error:
        raise InputError(str(error)) from error


class TextEstimator(BaseEstimator):  # type: ignore[misc]
    """Reads texts with an engine on a bundle.

    Each estimator repeats these parameters, because scikit-learn requires it.

    Args:
        bundle: a bundle, or its folder.
        precision, device, threads: see `edgetune.Engine`. If several estimators work in parallel (`n_jobs`), give each
            one thread.
        from_task: a task, a task file, or the name of a task in the bundle, whose prompt and settings are used to read
            texts.
        template, pooling, max_length, long_texts, stride: how texts are read if there is no `from_task`; see
            `edgetune.Task`.
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
    ) -> None:
        self.bundle = bundle
        self.precision = precision
        self.device = device
        self.threads = threads
        self.from_task = from_task
        self.template = template
        self.pooling = pooling
        self.max_length = max_length
        self.long_texts = long_texts
        self.stride = stride

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.input_tags.string = True
        tags.input_tags.one_d_array = True
        tags.input_tags.two_d_array = False  # two-dimensional arrays contain numbers; two columns of texts are pairs
        return tags

    def _open(self) -> Engine:
        """Open an engine for a new fit, because the old one may have other parameters."""
        self._engine = Engine(self.bundle, self.precision, self.device, self.threads)
        return self._engine

    def _origin(self) -> Task | None:
        return self._engine.find_task(self.from_task) if isinstance(self.from_task, str) else self.from_task

    def _reading(self) -> dict[str, Any]:
        names = ("template", "pooling", "max_length", "long_texts", "stride")
        return {name: getattr(self, name) for name in names}


class TaskEstimator(TextEstimator):
    """Fits a task, and predicts with it.

    Attributes:
        task_: the task that was fitted.
        fit_report_: what came of the fit, such as how good it is on rows that were held out.
    """

    def to_task(self, name: str) -> Task:
        """The fitted task under a new name, for `Engine.add_task`, `Bundle.add_task` or `Task.save`.

        Raises:
            TaskError: the name is not valid.
        """
        check_is_fitted(self)
        return self.task_.renamed(name)

    def _fit(self, X: Any, labels: list[Any], **how: Any) -> None:
        """Fit the task to labelled texts."""
        texts, engine = given_texts(X), self._open()
        self.fit_report_ = engine.fit(
            texts, labels, FITTED, from_task=self._origin(), store=False, seed=seed_of(self.random_state),
            **how, **self._reading(),
        )  # fmt: skip
        self.task_ = self.fit_report_.task

    def _results(self, X: Any) -> list[Any]:
        check_is_fitted(self)
        with refusals():
            texts, found = given_texts(X), []
            for start in range(0, len(texts), _TEXTS_AT_ONCE):
                found += self._engine.classify(texts[start : start + _TEXTS_AT_ONCE], FITTED)
        return found


def given_texts(X: Any) -> list[Text]:
    """The texts of X, which may be a list, an array, a column, or a table of one or two columns.

    Raises:
        DataError: one is not a text, or only some are pairs.
    """
    # As an array, because iterating over a table yields its column names.
    return texts_of(np.asarray(X).tolist() if hasattr(X, "__array__") else X)


def seed_of(random_state: Any) -> int:
    """A seed for scikit-learn's random state: a number, a generator, or `None` for a new seed each time."""
    if isinstance(random_state, int | np.integer):
        return int(random_state)
    return int(check_random_state(random_state).randint(np.iinfo(np.int32).max))
