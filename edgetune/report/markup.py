"""HTML and SVG as strings, with all text escaped."""

from __future__ import annotations

import html
import re
from collections.abc import Iterable, Sequence

_UNPRINTABLE = re.compile(r"[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f\ud800-\udfff]")
_LONGEST_LABEL = 80


class Markup(str):
    """HTML that can be inserted into a page unchanged."""

    __slots__ = ()


def escape(value: object) -> Markup:
    """A value as HTML: markup stays as it is, text is escaped, and `None` is empty."""
    if isinstance(value, Markup):
        return value
    if value is None:
        return Markup()
    return Markup(html.escape(_UNPRINTABLE.sub("\N{REPLACEMENT CHARACTER}", str(value))))


def join(parts: Iterable[object]) -> Markup:
    """Concatenate values as HTML."""
    return Markup("".join(map(escape, parts)))


def element(name: str, *children: object, **attributes: object) -> Markup:
    """An HTML element.

    Args:
        name: name of the element.
        children: its contents; see `escape`.
        attributes: its attributes: `class_` is "class", `aria_label` is "aria-label", and attributes with `None` are
            omitted.
    """
    given = "".join(
        f' {key.rstrip("_").replace("_", "-")}="{_quoted(value)}"'
        for key, value in attributes.items()
        if value is not None
    )
    return Markup(f"<{name}{given}>{join(children)}</{name}>")


def _quoted(value: object) -> str:
    return escape(str(value))  # also markup, because an attribute contains text


def cut(text: str, most: int) -> str:
    """The first `most` characters of a text, and the number of further characters."""
    return text if len(text) <= most else f"{text[:most]}… ({len(text) - most:,} more characters)"


def shortened(name: str) -> str:
    """A label, shortened to at most 80 characters."""
    return name if len(name) <= _LONGEST_LABEL else f"{name[:_LONGEST_LABEL]}…"


def quoted(name: str) -> str:
    """A label for use in a sentence.

    It is shortened, and isolated so that right-to-left text does not affect the sentence.
    """
    return f"“\N{FIRST STRONG ISOLATE}{shortened(name)}\N{POP DIRECTIONAL ISOLATE}”"


def label(name: str, class_: str | None = None) -> Markup:
    """A label, in any script and of any length."""
    short = shortened(name)
    return element("bdi", short, class_=class_, title=None if short == name else name)


def shown(value: object) -> object:
    """A value for a table: three decimals, or thousands separators."""
    if isinstance(value, float):
        return f"{value:.3f}"
    return f"{value:,}" if isinstance(value, int) else value


def table(caption: str, header: Sequence[object], rows: Iterable[Sequence[object]], class_: str = "") -> Markup:
    """A table that scrolls on its own if it is too wide. The first cell of a row is its header.

    Args:
        caption: what the table shows, for screen readers.
        header: names of the columns.
        rows: cells; see `shown`.
        class_: CSS class of the table.
    """
    cells = [[element("th", shown(first), scope="row"), *map(cell, others)] for first, *others in rows]
    numbers = [one.startswith('<td class="number"') for one in cells[0]] if cells else [False] * len(header)
    heads = (
        element("th", name, scope="col", class_="number" if number else None)
        for name, number in zip(header, numbers, strict=True)
    )
    body = element("tbody", *(element("tr", *row) for row in cells))
    whole = element("table", element("thead", element("tr", *heads)), body, class_=class_ or None)
    return element("div", whole, class_="scroll", role="region", aria_label=caption, tabindex=0)


def cell(value: object) -> Markup:
    """A table cell; markup that is already a cell stays as it is."""
    if isinstance(value, Markup) and value.startswith("<td"):
        return value
    return element("td", shown(value), class_="number" if isinstance(value, int | float) else None)


def bar(share: float) -> Markup:
    """A table cell that shows a share as a number and as a bar."""
    return element("td", f"{share:.3f}", class_="bar", style=f"--share:{share:.3f}")


def folded(summary: str, *children: object) -> Markup:
    """Collapsed content that opens on click."""
    return element("details", element("summary", summary), *children)


def listed(items: Sequence[Markup], most: int, first: int = 20, class_: str = "rows") -> Markup:
    """A list whose later items are collapsed.

    Args:
        items: the items.
        most: maximum number of items in the page.
        first: number of items that are not collapsed.
        class_: CSS class of the list.
    """
    kept = items[:most]
    parts = [element("ol", *kept[:first], class_=class_)]
    if len(kept) > first:
        rest = element("ol", *kept[first:], class_=class_, start=first + 1)
        parts.append(folded(f"{len(kept) - first:,} more", rest))
    return join(parts)
