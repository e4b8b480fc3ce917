"""Tables for a terminal."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

WIDTH = 80
"""Default number of columns of a terminal."""

_GAP = 2


def aligned(header: Sequence[str], rows: Iterable[Sequence[str]], texts: int = 1) -> list[str]:
    """The lines of a table, with aligned columns.

    Args:
        header: the header of each column.
        rows: cells.
        texts: number of left-aligned columns at the beginning; the others are numbers.
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
    """Whether all lines fit into a terminal of `WIDTH` columns."""
    return max(map(len, lines)) <= WIDTH
