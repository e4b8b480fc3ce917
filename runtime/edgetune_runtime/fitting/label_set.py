"""The set of labels in the targets."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from edgetune_runtime import strict
from edgetune_runtime.errors import DataError
from edgetune_runtime.kinds import Kind, Target
from edgetune_runtime.task import LONGEST_LABEL, MOST_LABELS

_LARGEST_SCORE = 1e6  # a task file does not hold larger numbers, and the head's bias is about the mean of the scores


def label_set(train: Sequence[Target], dev: Sequence[Target], kind: Kind) -> tuple[str, ...]:
    """The sorted labels of the training data; for scores the one label of such tasks.

    Raises:
        DataError: there are too few labels or too many for a task, a label is not valid in a task, the development data
            has other labels, or all scores are the same.
    """
    labels = kind.labels_of(train)
    if all(isinstance(target, float) for target in train):
        if len(set(train)) < 2:
            raise DataError(f"all scores of the training data are {train[0]}: expected at least two different ones")
        largest = max((float(np.asarray(target, np.float64)) for target in train), key=abs)
        if abs(largest) > _LARGEST_SCORE:
            raise DataError(
                f"the training data has the score {largest:g}: expected scores from {-_LARGEST_SCORE:,.0f} to "
                f"{_LARGEST_SCORE:,.0f}; divide them all by the same number"
            )
        return tuple(labels)
    _check(labels, kind)
    unknown = sorted(set(kind.labels_of(dev)) - set(labels))
    if unknown:
        raise DataError(
            f"the development data has labels that the training data does not have: {', '.join(unknown)}; "
            f"training has {', '.join(labels)}"
        )
    return tuple(labels)


def _check(labels: Sequence[str], kind: Kind) -> None:
    """Raise `DataError` unless a task can hold the labels."""
    fewest, _ = kind.labels
    if not labels:
        raise DataError("no row of the training data has a label: expected at least one label")
    if len(labels) < fewest:
        raise DataError(f"the training data has only the label '{labels[0]}': expected at least two different labels")
    if len(labels) > MOST_LABELS:
        raise DataError(
            f"the training data has {len(labels):,} different labels: expected at most {MOST_LABELS:,}; name the "
            f"column that has them with `labels`"
        )
    for label in labels:
        try:
            strict.plain_text(label, LONGEST_LABEL)
        except ValueError as error:
            raise DataError(f"the training data has the label {label!r:.60}: {error}; call it otherwise") from error
    bare: dict[str, str] = {}
    for label in labels:
        other = bare.setdefault(label.strip(" \"'"), label)
        if other != label:
            raise DataError(
                f"the training data has the labels {other!r} and {label!r}, which differ only in spaces or quotes: "
                f"write them alike"
            )
