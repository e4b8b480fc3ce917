"""Plots with two axes as inline SVG, coloured by the page's style sheet."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property

from edgetune.report.markup import Markup, element, join

Point = tuple[float, float]

_STEPS = (1, 2, 2.5, 5, 10)
_ALIKE = 1e-9


@dataclass(frozen=True)
class Axis:
    """An axis of a plot.

    Attributes:
        name: its quantity, with the unit.
        low, high: its range; `high` is above `low`.
        whole: whether only integers make sense on it.
    """

    name: str
    low: float = 0.0
    high: float = 1.0
    whole: bool = False

    def share(self, value: float) -> float:
        """The relative position of a value on the axis, from 0 at its start to 1 at its end."""
        return (value - self.low) / (self.high - self.low)

    @cached_property
    def step(self) -> float:
        """Distance between ticks: 1, 2, 2.5 or 5 times a power of ten, for about five ticks."""
        rough = (self.high - self.low) / 5
        power = 10.0 ** math.floor(math.log10(rough))
        step = next(factor for factor in _STEPS if factor * power >= rough * 0.999) * power
        return max(1.0, float(math.ceil(step))) if self.whole else step

    @cached_property
    def ticks(self) -> list[float]:
        """The values of the ticks."""
        first, last = math.ceil(self.low / self.step - 1e-9), math.floor(self.high / self.step + 1e-9)
        return [place * self.step for place in range(first, last + 1)]


def spanning(name: str, values: Iterable[float], whole: bool = False, zero: bool = False) -> Axis:
    """An axis that covers values.

    Args:
        name: name of the axis.
        values: finite numbers; may be empty.
        whole: see `Axis`.
        zero: whether the axis starts at 0.
    """
    found = list(values) or [0.0]
    low, high = min([0.0, *found] if zero else found), max(found)
    if high - low <= _ALIKE * max(abs(low), abs(high)):  # floats are too coarse for ticks in between
        half = max(0.5, abs(high) / 10)
        low, high = low if zero else low - half, high + half
    air = 0.05 * (high - low)
    return Axis(name, low if zero else low - air, high + air, whole)


@dataclass(frozen=True)
class Frame:
    """Maps values to places in a plot.

    Attributes:
        x, y: the axes.
        width, height: size of the whole plot, in its own units; text has size 12.
    """

    x: Axis
    y: Axis
    width: float = 400
    height: float = 270
    left: float = 46
    right: float = 14
    top: float = 38
    bottom: float = 44

    def place(self, point: Point) -> Point:
        """The place of a point in the plot."""
        across, up = self.width - self.left - self.right, self.height - self.top - self.bottom
        return self.left + across * self.x.share(point[0]), self.top + up * (1 - self.y.share(point[1]))

    def line(self, points: Iterable[Point], class_: str) -> Markup:
        """A line through points; a single point becomes a dot."""
        placed = [self.place(point) for point in points]
        if len(placed) == 1:
            return _dot(placed[0], 4, class_)
        return element("polyline", points=" ".join(f"{_n(x)},{_n(y)}" for x, y in placed), class_=f"line {class_}")

    def dots(self, points: Iterable[Point], class_: str, radius: float = 3, titles: Sequence[str] = ()) -> Markup:
        """A dot for each point, with an optional tooltip."""
        placed = [self.place(point) for point in points]
        names = titles or [""] * len(placed)
        return join(_dot(one, radius, class_, name) for one, name in zip(placed, names, strict=True))

    def bars(self, bars: Iterable[tuple[float, float, float]], class_: str, titles: Sequence[str] = ()) -> Markup:
        """Bars on the lower edge, each given by start, end and height."""
        given = list(bars)
        names = titles or [""] * len(given)
        drawn = []
        for (begin, end, height), name in zip(given, names, strict=True):
            (x, y), (to, ground) = self.place((begin, height)), self.place((end, self.y.low))
            gap = min(1.0, (to - x) / 8)
            drawn.append(
                element(
                    "rect",
                    element("title", name) if name else None,
                    x=_n(x + gap),
                    y=_n(y),
                    width=_n(max(0.5, to - x - 2 * gap)),
                    height=_n(max(0.0, ground - y)),
                    class_=f"bars {class_}",
                )
            )
        return join(drawn)

    def upright(self, value: float, name: str = "") -> Markup:
        """A dashed vertical line with a name at its upper end."""
        (x, top), (_, ground) = self.place((value, self.y.high)), self.place((value, self.y.low))
        drawn = element("line", x1=_n(x), x2=_n(x), y1=_n(top), y2=_n(ground), class_="mark")
        if not name:
            return drawn
        written = element("text", name, x=_n(x), y=_n(top - 4), text_anchor="middle", class_="named")
        return join([drawn, written])

    def draw(self, description: str, *marks: Markup) -> Markup:
        """Draw the plot.

        Args:
            description: the text for screen readers.
            marks: its contents, lowest layer first.
        """
        return element(
            "svg",
            self._axes(),
            *marks,
            viewBox=f"0 0 {_n(self.width)} {_n(self.height)}",
            role="img",
            aria_label=description,
        )

    def _axes(self) -> Markup:
        (begin, ground), (end, roof) = self.place((self.x.low, self.y.low)), self.place((self.x.high, self.y.high))
        drawn = []
        for tick in self.y.ticks:
            _, y = self.place((self.x.low, tick))
            drawn.append(element("line", x1=_n(begin), x2=_n(end), y1=_n(y), y2=_n(y), class_="grid"))
            drawn.append(element("text", _tick(tick), x=_n(begin - 6), y=_n(y + 4), text_anchor="end"))
        for tick in self.x.ticks:
            x, _ = self.place((tick, self.y.low))
            drawn.append(element("text", _tick(tick), x=_n(x), y=_n(ground + 16), text_anchor="middle"))
        drawn.append(element("line", x1=_n(begin), x2=_n(end), y1=_n(ground), y2=_n(ground), class_="axis"))
        drawn.append(element("text", self.y.name, x=4, y=_n(roof - 22), class_="axis-name"))
        middle = (begin + end) / 2
        drawn.append(
            element("text", self.x.name, x=_n(middle), y=_n(self.height - 8), text_anchor="middle", class_="axis-name")
        )
        return join(drawn)


def _dot(place: Point, radius: float, class_: str, name: str = "") -> Markup:
    title = element("title", name) if name else None
    return element("circle", title, cx=_n(place[0]), cy=_n(place[1]), r=_n(radius), class_=f"dot {class_}")


def _n(value: float) -> str:
    """A coordinate with two decimals, which is all that can be seen."""
    return f"{value:.2f}".rstrip("0").rstrip(".")


def _tick(value: float) -> str:
    """The label of a tick."""
    if abs(value) >= 1e6 or 0 < abs(value) < 1e-4:
        return f"{value:.3g}"
    return f"{round(value, 6):,.6g}" if abs(value) < 1000 else f"{value:,.0f}"
