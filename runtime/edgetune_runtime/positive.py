"""Which of two labels says yes, as far as their names tell."""

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
"""Name that says yes → names that say no beside it."""

_NEGATIONS = ("not", "non", "no")
"""What stands before a name that says no beside the same name alone."""


def positive_label(labels: Sequence[str]) -> str | None:
    """The label that says yes; `None` if there are not exactly two labels, or their names do not tell.

    It is not guessed: "1" says yes beside "0", and may be a grade beside "2".
    """
    if len(labels) != 2:
        return None
    one, other = labels
    found = [label for label, rest in ((one, other), (other, one)) if _is_opposite(_plain(rest), _plain(label))]
    return found[0] if len(found) == 1 else None


def _is_opposite(no: str, yes: str) -> bool:
    return no in OPPOSITES.get(yes, ()) or no in [f"{word} {yes}" for word in _NEGATIONS]


def _plain(label: str) -> str:
    """A label without case, and with spaces for what joins words; a minus stays."""
    return re.sub(r"(?<=\w)[\s_-]+(?=\w)", " ", label.strip().casefold())
