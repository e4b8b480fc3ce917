"""HTML and SVG as strings in which every text is escaped."""

from __future__ import annotations

import html
import re
from collections.abc import Iterable, Sequence

_UNPRINTABLE = re.compile(r"[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f\ud800-\udfff]")
_LONGEST_LABEL = 80


class Markup(str):
    """HTML that may be put into a page as it is."""

    __slots__ = ()


def escape(value: object) -> Markup:
    """A value as HTML: markup as it is, texts escaped; of `None` nothing."""
    if isinstance(value, Markup):
        return value
    if value is None:
        return Markup()
    return Markup(html.escape(_UNPRINTABLE.sub("\N{REPLACEMENT CHARACTER}", str(value))))


def join(parts: Iterable[object]) -> Markup:
    """Values as HTML, one after the other."""
    return Markup("".join(map(escape, parts)))


def element(name: str, *children: object, **attributes: object) -> Markup:
    """An element.

    Args:
        name: of the element.
        children: what it holds, as `escape` takes it.
        attributes: its attributes: `class_` is "class", and `aria_label` "aria-label"; of `None` none.
    """
    given = "".join(
        f' {key.rstrip("_").replace("_", "-")}="{_quoted(value)}"'
        for key, value in attributes.items()
        if value is not None
    )
    return Markup(f"<{name}{given}>{join(children)}</{name}>")


def _quoted(value: object) -> str:
    return escape(str(value))  # markup too: an attribute holds text


def cut(text: str, most: int) -> str:
    """A text of at most so many characters, and how many more there are."""
    return text if len(text) <= most else f"{text[:most]}… ({len(text) - most:,} more characters)"


def shortened(name: str) -> str:
    """A label of at most 80 characters."""
    return name if len(name) <= _LONGEST_LABEL else f"{name[:_LONGEST_LABEL]}…"


def quoted(name: str) -> str:
    """A label within a sentence: short, and of any direction of writing without turning the sentence around."""
    return f"“\N{FIRST STRONG ISOLATE}{shortened(name)}\N{POP DIRECTIONAL ISOLATE}”"


def label(name: str, class_: str | None = None) -> Markup:
    """A label, which may be of any script and length."""
    short = shortened(name)
    return element("bdi", short, class_=class_, title=None if short == name else name)


def shown(value: object) -> object:
    """A value as a table shows it: three digits behind the point, or thousands apart."""
    if isinstance(value, float):
        return f"{value:.3f}"
    return f"{value:,}" if isinstance(value, int) else value


def table(caption: str, header: Sequence[object], rows: Iterable[Sequence[object]], class_: str = "") -> Markup:
    """A table that scrolls by itself if it is too wide. The first cell of a row names the row.

    Args:
        caption: what it shows, for those who do not see it.
        header: names of the columns.
        rows: cells, as `shown` takes them.
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
    """A table's cell; markup that is one already stays."""
    if isinstance(value, Markup) and value.startswith("<td"):
        return value
    return element("td", shown(value), class_="number" if isinstance(value, int | float) else None)


def bar(share: float) -> Markup:
    """A table's cell that shows a share as a number and as a bar."""
    return element("td", f"{share:.3f}", class_="bar", style=f"--share:{share:.3f}")


def folded(summary: str, *children: object) -> Markup:
    """What is shown when it is asked for."""
    return element("details", element("summary", summary), *children)


def listed(items: Sequence[Markup], most: int, first: int = 20, class_: str = "rows") -> Markup:
    """A list, of which what is behind the first items is folded.

    Args:
        items: what is listed.
        most: so many items are in the page at most.
        first: so many are not folded.
        class_: CSS class of the list.
    """
    kept = items[:most]
    parts = [element("ol", *kept[:first], class_=class_)]
    if len(kept) > first:
        rest = element("ol", *kept[first:], class_=class_, start=first + 1)
        parts.append(folded(f"{len(kept) - first:,} more", rest))
    return join(parts)
