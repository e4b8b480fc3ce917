"""Measures for answers to questions, as defined by SQuAD.

Rajpurkar et al. 2016, "SQuAD", section 6.1, and 2018, "Know What You Don't Know", for questions without an answer.
"""

from __future__ import annotations

import re
import string
from collections import Counter
from collections.abc import Sequence
from typing import NamedTuple

_ARTICLES = re.compile(r"\b(a|an|the)\b")
_WITHOUT_PUNCTUATION = str.maketrans("", "", string.punctuation)


class Match(NamedTuple):
    """How well an answer matches the right ones, from 0 to 1."""

    exact: float
    f1: float


def normalized(answer: str) -> str:
    """Normalize an answer: lower case, without ASCII punctuation, English articles and repeated spaces."""
    return " ".join(_ARTICLES.sub(" ", answer.lower().translate(_WITHOUT_PUNCTUATION)).split())


def match(answer: str, right: Sequence[str]) -> Match:
    """Compare an answer with the best-matching right answer.

    Args:
        answer: empty for "no answer".
        right: the right answers; empty if the question has no answer.
    """
    own = normalized(answer)
    others = [one for one in map(normalized, right) if one] or [""]
    return Match(float(own in others), max(_f1(own.split(), one.split()) for one in others))


def _f1(one: list[str], other: list[str]) -> float:
    if not one or not other:
        return float(one == other)
    shared = sum((Counter(one) & Counter(other)).values())
    return 2 * shared / (len(one) + len(other))
