"""Word tags in data, and the entities that they stand for.

A tag is `O`, or a letter, a hyphen and a label. In BIO, `B-` marks the first word of an entity and `I-` the others. In
IOB1, `B-` is used only if an entity directly follows another with the same label. In BILOU, `L-` marks the last word
and `U-` an entity of one word; BIOES calls these `E-` and `S-`.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import accumulate

from edgetune_runtime.kinds.kind import Entity

_TAG = re.compile(r"([BILUESM])[-_](.+)", re.DOTALL)
_SEVERAL = re.compile(r"[,;|][BILUESM][-_]")
_SCHEMES: Mapping[str, frozenset[str]] = {
    "BIO": frozenset("BI"),
    "BILOU": frozenset("BILU"),
    "BIOES": frozenset("BIES"),
    "BMES": frozenset("BMES"),
}
_BEGIN, _END = "BUS", "LESU"

Parsed = tuple[str, str] | None
"""A tag's letter and label; `None` for `O`."""


@dataclass(frozen=True)
class Scheme:
    """A tagging scheme.

    Attributes:
        name: its name for people.
        odd: number of entities that do not begin or end as the scheme requires; they are read anyway.
    """

    name: str
    odd: int

    @property
    def remarks(self) -> list[str]:
        """What people should know; one line each."""
        found = [] if self.name == "BIO" else [f"the tags are read as {self.name}"]
        if self.odd:
            found.append(
                f"{self.odd:,} entities begin with I- or do not end as {self.name} says: they are read as entities all "
                f"the same"
            )
        return found


def is_tag(tag: str) -> bool:
    """Whether a string is a tag."""
    return tag == "O" or _TAG.fullmatch(tag) is not None


def scheme_of(rows: Iterable[Sequence[str]]) -> Scheme:
    """The tagging scheme of texts.

    Raises:
        ValueError: the tags match no scheme or mix schemes, or a label has only I- although others have B-.
    """
    letters: dict[str, set[str]] = {}
    begun_by_b, orphans, unended = False, 0, 0
    for tags in rows:
        before: Parsed = None
        for own in [*map(_parsed, tags), None]:
            if own is not None:
                letters.setdefault(own[1], set()).add(own[0])
            begins = _begins(before, own)
            begun_by_b |= own is not None and own[0] == "B" and (before is None or before[1] != own[1])
            orphans += begins and own is not None and own[0] not in _BEGIN
            unended += before is not None and (begins or own is None) and before[0] not in _END
            before = own
    used = frozenset().union(*letters.values())
    scheme = next((name for name, own in _SCHEMES.items() if used <= own), None)
    if scheme is None:
        known = "; ".join(f"{name} has {', '.join(sorted(own))}" for name, own in _SCHEMES.items())
        raise ValueError(f"the tags have the prefixes {', '.join(sorted(used))}: expected those of one scheme; {known}")
    if scheme != "BIO":
        return Scheme(scheme, orphans + unended)
    if not begun_by_b:
        return Scheme("IOB1" if orphans else "BIO", 0)
    inside_alone = sorted(label for label, own in letters.items() if own == {"I"})
    if inside_alone:
        raise ValueError(
            f"the label {inside_alone[0]!r:.60} has only I- tags, and other labels begin with B-: expected a B- tag "
            f"for the first word of each entity"
        )
    return Scheme("BIO", orphans)


def tagged(words: Sequence[str], tags: Sequence[str]) -> tuple[str, tuple[Entity, ...]]:
    """The words joined by spaces, and the entities that their tags stand for, with places in characters.

    Raises:
        ValueError: the numbers of tags and words differ, or one is not a tag.
    """
    if len(words) != len(tags):
        raise ValueError(f"{len(tags):,} tags came for {len(words):,} tokens: expected one for each")
    starts = list(accumulate((len(word) + 1 for word in words), initial=0))
    found = [Entity(starts[begin], starts[end - 1] + len(words[end - 1]), label) for begin, end, label in _chunks(tags)]
    return " ".join(words), tuple(found)


def _chunks(tags: Sequence[str]) -> Iterator[tuple[int, int, str]]:
    """First word, word after the last, and label of each entity."""
    begin, before = 0, None
    for place, own in enumerate([*map(_parsed, tags), None]):
        if before is not None and (own is None or _begins(before, own)):
            yield begin, place, before[1]
        if _begins(before, own):
            begin = place
        before = own


def _begins(before: Parsed, own: Parsed) -> bool:
    """Whether an entity begins at a tag, given the tag before it."""
    return own is not None and (own[0] in _BEGIN or before is None or before[1] != own[1] or before[0] in _END)


def _parsed(tag: str) -> Parsed:
    if tag == "O":
        return None
    found = _TAG.fullmatch(tag)
    if found is None:
        raise ValueError(f"the tag {tag!r:.40} is not known: expected O, or a label behind B- or I-, such as B-person")
    if _SEVERAL.search(found[2]):
        raise ValueError(
            f"the tag {tag!r:.60} is several tags of one word: expected one, since entities do not overlap"
        )
    return found[1], found[2]
