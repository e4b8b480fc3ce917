"""The forms of y, and predictions in the same form: a label per text, an indicator matrix, or lists of labels."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Any

import numpy as np
from sklearn.utils.multiclass import check_classification_targets
from sklearn.utils.validation import column_or_1d

from edgetune_runtime.arrays import Array
from edgetune_runtime.errors import DataError
from edgetune_runtime.kinds import Kind
from edgetune_runtime.kinds.kind import whole
from edgetune_runtime.kinds.multi_label import MULTI_LABEL
from edgetune_runtime.kinds.single_label import SINGLE_LABEL

_LISTS = (list, tuple, set, frozenset)


class Form(ABC):
    """A form of y.

    Attributes:
        kind: the kind of answer.
        classes: the classes as in y. Shape: [classes].
        names: the task's name of each class.
        targets: the target of each text in y, for the task.
    """

    kind: Kind
    classes: Array
    names: list[str]
    targets: list[Any]

    def scores(self, results: Sequence[Any]) -> Array:
        """The probability of each class; 0 for classes without texts in y. Shape: [texts, classes], float64."""
        found = [[result.scores.get(name, 0.0) for name in self.names] for result in results]
        return np.array(found, np.float64).reshape(len(results), len(self.names))

    @abstractmethod
    def predictions(self, results: Sequence[Any]) -> Any:
        """The answers in the form of y."""


class OneLabel(Form):
    """A label per text: strings, integers, booleans or whole floats. Predictions have the same type."""

    kind = SINGLE_LABEL

    def __init__(self, y: Any) -> None:
        given = column_or_1d(y, warn=True)
        check_classification_targets(given)
        self.classes, places = np.unique(given, return_inverse=True)
        self.names = _names(self.classes)
        self.targets = [self.names[place] for place in places]

    def predictions(self, results: Sequence[Any]) -> Array:
        """Shape: [texts]."""
        place = {name: number for number, name in enumerate(self.names)}
        found: Array = self.classes[np.array([place[result.best] for result in results], np.int64)]
        return found


class Indicators(Form):
    """A column of 0 and 1 per class. The classes are the columns' names or, without names, their numbers."""

    kind = MULTI_LABEL

    def __init__(self, y: Any) -> None:
        given = np.asarray(y.toarray() if hasattr(y, "toarray") else y)
        if not np.isin(given, (0, 1)).all():
            raise DataError("y has several columns, and not only 0 and 1: expected one column, or an indicator matrix")
        self.classes = np.asarray(y.columns) if hasattr(y, "columns") else np.arange(given.shape[1])
        self.names = _names(self.classes)
        self._dtype = given.dtype
        self.targets = [[name for name, own in zip(self.names, row, strict=True) if own] for row in given]

    def predictions(self, results: Sequence[Any]) -> Array:
        """Shape: [texts, classes]."""
        found = [[name in result.labels for name in self.names] for result in results]
        return np.array(found, self._dtype).reshape(len(results), len(self.names))


class Lists(Form):
    """A list of labels per text."""

    kind = MULTI_LABEL

    def __init__(self, y: Any) -> None:
        self.targets = [_ordered(one) for one in y]
        originals: dict[str, Any] = {}
        for place, one in enumerate(self.targets):
            try:
                named = MULTI_LABEL.target(one)
            except ValueError as error:
                raise DataError(f"label {place} is {one!r:.60}: {error}") from error
            given = one if isinstance(one, list | tuple) else named
            originals |= {name: label for label in given if (name := whole(label)) is not None}
        self.classes = np.unique(np.array(list(originals.values())))
        self.names = _names(self.classes)
        self._originals = originals

    def predictions(self, results: Sequence[Any]) -> list[list[Any]]:
        """A list of labels per text."""
        return [[self._originals[name] for name in result.labels] for result in results]


def form_of(y: Any, kind: Kind | None) -> Form:
    """The form of y.

    Args:
        y: the label or labels of each text.
        kind: the kind of answer, if y is ambiguous: labels joined with `|` may be several labels.

    Raises:
        DataError: y is not valid.
        ValueError: the same, from scikit-learn.
    """
    if y is None:
        raise DataError("requires y to be passed, but the target y is None: expected a label for each text")
    if hasattr(y, "__array__") and not hasattr(y, "columns"):
        y = np.asarray(y)
    is_array = hasattr(y, "shape")
    if isinstance(y, str) or not (is_array or hasattr(y, "__iter__")):
        raise DataError(f"y is a {type(y).__name__}: expected a label for each text")
    several = is_array and len(y.shape) > 1
    values = [] if several else np.asarray(y).tolist() if is_array else list(y)
    if several and y.shape[1] > 1:
        form: Form = Indicators(y)
    elif any(isinstance(one, _LISTS) for one in values):
        form = Lists(values)
    elif kind is MULTI_LABEL:
        form = Lists(column_or_1d(y).tolist())
    else:
        form = OneLabel(y if is_array else values)
    if kind is not None and kind is not form.kind:
        raise DataError(f"y has several labels per text, and the kind is '{kind.name}': expected one label per text")
    return form


def label_sets(y: Any) -> list[frozenset[str]]:
    """Lists of labels as sets, for comparison."""
    return [frozenset(MULTI_LABEL.target(_ordered(one))) for one in y]


def _ordered(labels: Any) -> Any:
    """Labels of a text; a set is sorted."""
    return sorted(labels, key=str) if isinstance(labels, set | frozenset) else labels


def _names(classes: Array) -> list[str]:
    """The task's names of classes."""
    names = []
    for one in classes.tolist():
        name = whole(one)
        if name is None:
            raise DataError(f"y has the label {one!r:.60}: expected a string, an integer or a boolean")
        names.append(name)
    twice = next((name for name in names if names.count(name) > 1), None)
    if twice is not None:
        raise DataError(f"y has two labels that are both written {twice!r}: expected labels that differ as text")
    return names
