"""Tables for a terminal: as wide as their contents; whether they fit it."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

WIDTH = 80
"""Columns of a terminal that nobody has made larger."""

_GAP = 2


def aligned(header: Sequence[str], rows: Iterable[Sequence[str]], texts: int = 1) -> list[str]:
    """Lines of a table.

    Args:
        header: what stands above each column.
        rows: cells.
        texts: how many columns, from the first, are aligned on their left; the others are numbers.
    """
    whole = [header, *rows]
    widths = [max(map(len, cells)) for cells in zip(*whole, strict=True)]
    lines = []
    for row in whole:
        cells = [
            f"{cell:<{width}}" if place < texts else f"{cell:>{width}}"
            for place, (cell, width) in enumerate(zip(row, widths, strict=True))
        ]
        lines.append((" " * _GAP).join(cells).rstrip())
    return lines


def fits(lines: Sequence[str]) -> bool:
    """Whether no line is too wide."""
    return max(map(len, lines)) <= WIDTH
