"""Rows of the data in a report."""

from __future__ import annotations

from collections.abc import Sequence

from edgetune.evaluation import Row
from edgetune.report.markup import Markup, cut, element

_MOST_CHARACTERS = 600


def row_item(row: Row, line: Markup) -> Markup:
    """A row as a list item: its text or texts, a line about its answer, and its place."""
    texts = (row.text,) if isinstance(row.text, str) else row.text
    return element(
        "li",
        *(element("p", cut(text, _MOST_CHARACTERS), class_="text", dir="auto") for text in texts),
        element("div", line, element("p", element("bdi", row.place), class_="place"), class_="about"),
    )


def answer_line(first: str, what: Sequence[object], second: str, other: Sequence[object]) -> Markup:
    """A line with the right answer and the given answer: two names, each with labels or numbers."""
    return element(
        "dl",
        element("div", element("dt", first), element("dd", *what)),
        element("div", element("dt", second), element("dd", *other)),
        class_="answer",
    )
