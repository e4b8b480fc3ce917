"""Offsets in other units than characters: some programs count bytes or UTF-16 units."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from itertools import accumulate

_ENCODINGS = {"bytes of UTF-8": ("utf-8", 1), "UTF-16 units": ("utf-16-le", 2)}


def characters_at(text: str) -> Iterator[tuple[str, Mapping[int, int]]]:
    """For each unit its name, and a mapping of offsets in that unit to offsets in characters."""
    for unit, (encoding, size) in _ENCODINGS.items():
        sizes = (len(character.encode(encoding, "surrogatepass")) // size for character in text)
        yield unit, {offset: place for place, offset in enumerate(accumulate(sizes, initial=0))}
