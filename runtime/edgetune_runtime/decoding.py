"""The rows of a head that answers words, and the tags that its logits mean.

A head has a row for "outside", which comes first, and for each label two: for a word that begins an entity, and for one
that goes on inside it (BIO). The words' tags are decided together: of all sequences in which no entity goes on that did
not begin, the most probable one (Viterbi).
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from typing import NamedTuple

import numpy as np

from edgetune_runtime.arrays import Array

OUTSIDE = 0
"""The head's row for a word of no entity. The label at place n has the rows 2n + 1, "begins", and 2n + 2, "inside"."""


class Tag(NamedTuple):
    """The target of a word.

    Attributes:
        label: of the entity that it belongs to, if it does.
        begins: whether it is the entity's first word.
        first: whether it is the first word of its text.
    """

    label: str | None
    begins: bool
    first: bool


def decode(logits: Array, first: Array | None = None) -> Array:
    """The rows of the head that are the words' tags: the most probable ones in which only goes on what began.

    Args:
        logits: of words of one or several texts.
        first: whether a word is the first of its text; by default all are of one text.

    Shape:
        logits: [words, rows of the head]
        first: [words]
        output: [words]
    """
    tags: Array = logits.argmax(axis=1)
    if not tags.any():
        return tags
    best = tags.tolist()  # arrays this small cost NumPy more than Python
    starts = [0] if first is None else np.flatnonzero(first).tolist()
    for begin, end in pairwise([*starts, len(best)]):
        best[begin:end] = _repaired(best[begin:end], logits[begin:end])
    return np.array(best)


def _repaired(tags: list[int], logits: Array) -> list[int]:
    """The most probable legal tags of the words of a text, given the best tag of each.

    Stretches around what is broken are decided on their own, and grow until they fit their neighbours. Together
    the best tags of parts are the best of the whole if they are legal, since no parts of the whole are better.

    Shape:
        tags, output: [words]
        logits: [words, rows of the head]
    """
    broken = [
        place
        for place, (before, tag) in enumerate(zip([OUTSIDE, *tags], tags, strict=False))
        if tag != OUTSIDE and not _follows(before, tag)
    ]
    decided: list[tuple[int, int]] = []
    for place in broken:
        if decided and place < decided[-1][1]:
            continue
        begin, end, fits = max(0, place - 1), place + 1, False
        while not fits:
            while decided and begin < decided[-1][1]:
                begin = min(begin, decided.pop()[0])
            tags[begin:end] = _most_probable(logits[begin:end], goes_on=begin > 0)
            fits_before = begin == 0 or _follows(tags[begin - 1], tags[begin])
            fits_behind = end == len(tags) or _follows(tags[end - 1], tags[end])
            fits = fits_before and fits_behind
            length = end - begin
            begin, end = max(0, begin - length * (not fits_before)), min(len(tags), end + length * (not fits_behind))
        decided.append((begin, end))
    return tags


def _follows(before: int, tag: int) -> bool:
    """Whether a tag may stand behind another one."""
    return tag % 2 == 1 or tag == OUTSIDE or before in (tag, tag - 1)


def _most_probable(logits: Array, goes_on: bool = False) -> list[int]:
    """Viterbi's algorithm.

    Args:
        logits: of the words.
        goes_on: whether the first word may be inside an entity.

    Shape:
        logits: [words, rows of the head]
        output: [words]
    """
    rows = logits.astype(np.float64).tolist()
    inside = range(2, len(rows[0]), 2)
    best = rows[0]
    if not goes_on:
        best[2::2] = [-np.inf] * len(inside)
    came_from: list[list[int]] = []
    for own in rows[1:]:
        highest = max(best)
        before = [best.index(highest)] * len(own)
        reached = [highest + logit for logit in own]
        for row in inside:
            before[row] = row if best[row] >= best[row - 1] else row - 1
            reached[row] = best[before[row]] + own[row]
        came_from.append(before)
        best = reached
    tags = [best.index(max(best))]
    for before in reversed(came_from):
        tags.append(before[tags[-1]])
    return tags[::-1]


def spans_of(tags: Array) -> list[tuple[int, int, int]]:
    """Entities as (first word, word behind the last, place of the label), given tags as `decode` gives them.

    Shape:
        tags: [words]
    """
    found = []
    row = tags.tolist()
    for begin, tag in enumerate(row):
        if tag % 2 == 0:
            continue
        end = begin + 1
        while end < len(row) and row[end] == tag + 1:
            end += 1
        found.append((begin, end, tag // 2))
    return found


def row_of(tag: Tag, labels: Sequence[str]) -> int:
    """The head's row for a tag."""
    return OUTSIDE if tag.label is None else 2 * labels.index(tag.label) + (1 if tag.begins else 2)


def tag_names(labels: Sequence[str]) -> list[str]:
    """The head's rows by the names of their tags: O, B-label, I-label and so on."""
    return ["O", *(f"{prefix}-{label}" for label in labels for prefix in "BI")]


def rows_of_tags(tags: Sequence[str]) -> tuple[tuple[str, ...], list[int]]:
    """Labels that tags name, and for each row of a task's head the place of its tag.

    Raises:
        ValueError: they are not `O`, and `B-` and `I-` of each label.
    """
    labels = tuple(dict.fromkeys(tag[2:] for tag in tags if tag.startswith(("B-", "I-")) and tag[2:]))
    wanted = tag_names(labels)
    if sorted(wanted) != sorted(tags) or not labels:
        raise ValueError(f"the tags {', '.join(tags)[:200]}: expected O, and B- and I- of each label")
    return labels, [tags.index(tag) for tag in wanted]
