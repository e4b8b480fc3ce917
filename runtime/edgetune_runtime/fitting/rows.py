"""Texts and labels from Python callers: lists, columns of pandas or datasets, arrays."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np

from edgetune_runtime.errors import DataError
from edgetune_runtime.kinds import KINDS, Kind, Target, kind_seen
from edgetune_runtime.kinds.multi_label import MULTI_LABEL
from edgetune_runtime.text import Text, is_unicode


@dataclass(frozen=True)
class LabelledRows:
    """Texts and their targets.

    Attributes:
        texts: texts, or pairs of texts.
        targets: the target of each text.
        kind: the kind of the targets.
        pairs: whether each text is a pair of texts.
    """

    texts: list[Text]
    targets: list[Target]
    kind: Kind
    pairs: bool


def labelled_rows(texts: Iterable[Any], labels: Iterable[Any], kind: Kind | str | None = None) -> LabelledRows:
    """Check texts and their labels.

    Args:
        texts: texts, or (text, text_pair) pairs.
        labels: for each text a label, a list of labels, a number, or a list of entities. An entity is an object with
            start, end and label, or a tuple of these.
        kind: the kind, or its name; by default derived from the labels.

    Raises:
        DataError: there are no texts, the numbers of texts and labels differ, or a text or label is not valid; the
            error names the first.
    """
    given, values = texts_of(texts), [_plain(value) for value in _listed(labels, "labels")]
    if len(given) != len(values):
        raise DataError(f"{len(values):,} labels came for {len(given):,} texts: expected one for each")
    if not given:
        raise DataError("there are no texts: expected at least one labelled text")
    found = kind_named(kind) or kind_seen(values)
    if found is MULTI_LABEL and _are_indicators(values):
        raise DataError(
            f"each of the labels is a list of {len(values[0])} times 0 or 1: expected the names of the labels that "
            f"apply; scikit-learn's indicators are for edgetune.sklearn.TextClassifier"
        )
    targets = []
    for place, value in enumerate(values):
        if kind is None and found is MULTI_LABEL and not isinstance(value, list | tuple | str):
            raise DataError(f"label {place} is {value!r:.60}, and others are lists: write all of them as lists")
        try:
            targets.append(found.checked(found.target(value), given[place]))
        except ValueError as error:
            raise DataError(f"label {place} is {value!r:.60}: {error}") from error
    return LabelledRows(given, targets, found, isinstance(given[0], tuple))


def _are_indicators(values: list[Any]) -> bool:
    """Whether labels are rows of 0 and 1 of one length, at least two, in which some value occurs twice."""
    if not all(isinstance(value, list | tuple) for value in values) or len({len(value) for value in values}) > 1:
        return False
    of_two = all(part in (0, 1) and not isinstance(part, str) for value in values for part in value)
    return len(values[0]) > 1 and of_two


def kind_named(kind: Kind | str | None) -> Kind | None:
    """The kind with that name.

    Raises:
        DataError: the kind does not exist.
    """
    if not isinstance(kind, str):
        return kind
    if kind not in KINDS:
        raise DataError(f"there is no kind '{kind}': expected one of {', '.join(KINDS)}")
    return KINDS[kind]


def texts_of(texts: Iterable[Any]) -> list[Text]:
    """Texts, or pairs of texts, as a list.

    Raises:
        DataError: one is neither a text nor a pair, or texts and pairs are mixed.
    """
    found: list[Text] = []
    for place, value in enumerate(map(_plain, _listed(texts, "texts"))):
        parts = tuple(value) if isinstance(value, list | tuple) else (value,)
        if len(parts) > 2 or not all(isinstance(part, str) for part in parts) or not parts:
            raise DataError(
                f"text {place} is {type(value).__name__} {value!r:.60}: expected a string, or a pair of strings"
            )
        if not all(is_unicode(part) for part in parts):
            raise DataError(f"text {place} has half of a surrogate pair: expected whole characters")
        found.append(str(parts[0]) if len(parts) == 1 else (str(parts[0]), str(parts[1])))
        if isinstance(found[place], tuple) != isinstance(found[0], tuple):
            raise DataError(f"text {place} and text 0 differ: one is a pair, the other is not; expected all alike")
    return found


def _listed(values: Iterable[Any], what: str) -> list[Any]:
    if isinstance(values, str):
        raise DataError(f"one string came instead of a list of {what}: write [{what[:-1]}]")
    return list(values)


def _plain(value: Any) -> Any:
    """Convert a value of a numpy or pandas type to the Python type."""
    if isinstance(value, np.ndarray):
        return value.tolist()
    return value.item() if isinstance(value, np.generic) else value
