"""Which of two labels means "yes", if their names make it clear."""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping, Sequence

OPPOSITES: Mapping[str, Collection[str]] = {
    "1": ("0", "-1"),
    "true": ("false",),
    "yes": ("no",),
    "positive": ("negative",),
    "relevant": ("irrelevant",),
    "similar": ("different", "dissimilar"),
    "same": ("different",),
    "entailment": ("contradiction",),
}
"""Name that means "yes" → names that mean "no" next to it."""

_NEGATIONS = ("not", "non", "no")
"""Prefixes that turn a name into its negation."""


def positive_label(labels: Sequence[str]) -> str | None:
    """The label that means "yes"; `None` if there are not exactly two labels, or their names do not make it clear.

    It is never guessed: "1" means "yes" next to "0", but may be a grade next to "2".
    """
    if len(labels) != 2:
        return None
    one, other = labels
    found = [label for label, rest in ((one, other), (other, one)) if _is_opposite(_plain(rest), _plain(label))]
    return found[0] if len(found) == 1 else None


def _is_opposite(no: str, yes: str) -> bool:
    return no in OPPOSITES.get(yes, ()) or no in [f"{word} {yes}" for word in _NEGATIONS]


def _plain(label: str) -> str:
    """A label in lower case, with spaces for characters that join words; a minus sign stays."""
    return re.sub(r"(?<=\w)[\s_-]+(?=\w)", " ", label.strip().casefold())
