"""HTML and SVG: texts are escaped, axes have round numbers, marks are where they belong."""

from __future__ import annotations

import math
import re
from html.parser import HTMLParser

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgetune.report.markup import Markup, cut, element, escape, label, listed, table
from edgetune.report.svg import Axis, Frame, spanning

FINITE = st.floats(-1e12, 1e12)


class _Texts(HTMLParser):
    """The tags, attributes and text of HTML."""

    def __init__(self) -> None:
        super().__init__()
        self.tags, self.values, self.text = list[str](), list[str | None](), ""

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.values += [value for _, value in attrs]

    def handle_data(self, data: str) -> None:
        self.text += data


@given(st.text(st.characters(exclude_categories=["Cs", "Cc"])))
def test_a_text_stays_a_text(text: str) -> None:
    reader = _Texts()
    reader.feed(element("p", text, title=text))
    reader.close()
    assert (reader.tags, reader.values, reader.text) == (["p"], [text], text)


def test_markup_is_not_escaped_twice_and_attributes_are_texts() -> None:
    inner = element("b", "<i>")
    assert element("p", inner, None, 3) == "<p><b>&lt;i&gt;</b>3</p>"
    assert (
        element("p", title=inner, class_=None, aria_label="x")
        == '<p title="&lt;b&gt;&amp;lt;i&amp;gt;&lt;/b&gt;" aria-label="x"></p>'
    )
    assert isinstance(inner, Markup)


def test_characters_that_html_does_not_have() -> None:
    assert escape("a\x00b\x1bc\ud800\n\t") == "a\ufffdb\ufffdc\ufffd\n\t"


def test_long_things_are_cut() -> None:
    assert cut("abcdef", 6) == "abcdef"
    assert cut("abcdefgh", 3) == "abc… (5 more characters)"
    assert label("x" * 100) == f'<bdi title="{"x" * 100}">{"x" * 80}…</bdi>'
    items = [element("li", str(place)) for place in range(50)]
    shown = listed(items, most=30, first=20)
    assert shown.count("<li>") == 30
    assert "<summary>10 more</summary>" in shown
    assert 'start="21"' in shown


def test_tables_align_numbers() -> None:
    found = table("told", ["name", "rows", "kind"], [["a", 1200, "x"], ["b", 0.5, "y"]])
    assert '<th scope="col" class="number">rows</th><th scope="col">kind</th>' in found
    assert '<th scope="row">a</th><td class="number">1,200</td><td>x</td>' in found
    assert '<td class="number">0.500</td>' in found
    assert "<tbody></tbody>" in table("told", ["name", "rows"], [])


@given(FINITE, st.floats(1e-6, 1e12))
def test_ticks_are_few_round_and_on_the_axis(low: float, extent: float) -> None:
    axis = Axis("x", low, low + extent)
    if axis.high - axis.low < 1e-9 * abs(low):
        return  # floats have no room between them
    assert 2 <= len(axis.ticks) <= 7
    assert all(-1e-6 <= axis.share(tick) <= 1 + 1e-6 for tick in axis.ticks)
    first = axis.step / 10 ** math.floor(math.log10(axis.step * (1 + 1e-9)))
    assert any(first == pytest.approx(step) for step in (1, 2, 2.5, 5, 10))


def test_ticks_of_shares_and_of_whole_numbers() -> None:
    assert Axis("share").ticks == pytest.approx([0, 0.2, 0.4, 0.6, 0.8, 1])
    assert Axis("epoch", 1, 3, whole=True).ticks == [1, 2, 3]
    assert Axis("epoch", 1, 2, whole=True).ticks == [1, 2]


@given(st.lists(FINITE, max_size=20), st.booleans())
def test_an_axis_has_room_for_its_values(values: list[float], zero: bool) -> None:
    axis = spanning("x", map(abs, values) if zero else values, zero=zero)
    assert axis.low < axis.high
    assert all(axis.low <= value <= axis.high for value in (map(abs, values) if zero else values))
    assert not zero or axis.low == 0


def test_where_marks_are() -> None:
    frame = Frame(Axis("x", 0, 10), Axis("y", 0, 1), width=100, height=100, left=10, right=10, top=20, bottom=20)
    assert frame.place((0, 0)) == (10, 80)
    assert frame.place((10, 1)) == (90, 20)
    assert 'points="10,80 50,50"' in frame.line([(0, 0), (5, 0.5)], "one")
    assert "<circle" in frame.line([(5, 0.5)], "one")
    (bar,) = re.findall(r"<rect[^>]*>", frame.bars([(0, 5, 0.5)], "one"))
    assert tuple(re.findall(r'(?<= )[xywh]\w*="[^"]*"', bar)) == ('x="11"', 'y="50"', 'width="38"', 'height="30"')
    assert 'x1="50" x2="50" y1="20" y2="80"' in frame.upright(5)


def test_a_picture_says_what_it_shows() -> None:
    drawn = Frame(Axis("x"), Axis("y")).draw('a "picture"')
    assert drawn.startswith('<svg viewBox="0 0 400 270" role="img" aria-label="a &quot;picture&quot;">')
