"""Labelled rows of every kind of answer, for texts and for pairs, by rules that a tiny backbone can learn."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from pathlib import Path

from edgetune.data.labelled import LabelledText
from edgetune.training import TaskData
from edgetune_runtime.kinds import KINDS, Answer, Entity, Target

THINGS = ("lamp", "camera", "screen", "parcel", "mail", "speaker")
TAGS = ("camera", "lamp", "screen")
"""Labels of the multi-label rule: those of these things that a text names."""

EVERY = [
    (name, pairs)
    for name, kind in KINDS.items()
    for pairs in (False, True)
    if pairs or not (kind.reading and kind.reading.second)
]
"""Kind of answer, and whether texts are pairs."""


def tags_of(text: str) -> tuple[str, ...]:
    """The tags that apply to a text."""
    return tuple(tag for tag in TAGS if tag in text)


def entities_of(text: str) -> tuple[Entity, ...]:
    """The things of a text that are among the tags, as entities."""
    found = [Entity(text.index(tag), text.index(tag) + len(tag), tag) for tag in TAGS if tag in text]
    return tuple(sorted(found))


def tagged() -> list[LabelledText]:
    """Texts of two things each, with their tags."""
    texts = [f"the {one} and the {other}" for one, other in itertools.permutations(THINGS, 2)]
    return [LabelledText(text, tags_of(text)) for text in texts]


def measured(factor: float = 1.0) -> list[LabelledText]:
    """Texts of 1 to 12 words, with a tenth of their number as score, times a factor."""
    return [
        LabelledText(" ".join([thing] * length), factor * length / 10)
        for length in range(1, 13)
        for thing in ("lamp", "good", "parcel")
    ]


def rows_of(kind: str, pairs: bool) -> list[LabelledText]:
    """12 rows."""
    texts = [f"the {one} and the {other}" for one, other in itertools.combinations(THINGS, 2)][:12]
    targets: dict[str, Sequence[Target]] = {
        "single-label": ["good" if place % 3 else "bad" for place in range(12)],
        "multi-label": [tags_of(text) for text in texts],
        "score": [place / 4 for place in range(12)],
        "tokens": [entities_of(text) for text in texts],
        "spans": [(Answer(7, 7 + len(thing), thing),) if thing in TAGS else () for thing in (*THINGS, *THINGS)],
    }
    seconds = [f"it was {thing}" for thing in THINGS] * 2
    return [
        LabelledText(text, target, second if pairs else None)
        for text, target, second in zip(texts, targets[kind], seconds, strict=True)
    ]


def takes_pairs(kind: str) -> bool:
    """Whether tasks of a kind always take pairs."""
    return (kind, False) not in EVERY


def task_data(kind: str, pairs: bool, out: Path, rows: Sequence[LabelledText] | None = None) -> TaskData:
    """A task to train on rows that also choose the epoch; it is named after the file."""
    used = rows_of(kind, pairs) if rows is None else rows
    return TaskData(out.stem, out, used, used, KINDS[kind], pairs)
