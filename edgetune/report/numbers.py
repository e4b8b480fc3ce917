"""Numeric answers compared with the right numbers."""

from __future__ import annotations

import numpy as np

from edgetune.report.markup import table
from edgetune.report.section import Material, Part, counted, picture, side_by_side
from edgetune.report.svg import Axis, Frame, spanning
from edgetune_runtime.arrays import Array

_MOST_DOTS = 1500
_BINS = 21
_LARGEST = 1e150  # squares of larger numbers overflow


def residuals(answers: Array, right: Array) -> tuple[Array, Array]:
    """Histogram of the differences between answers and right numbers.

    Returns:
        Counts, and the edges of their bins, which have equal width and are symmetric around 0.

    Shape:
        answers, right: [rows]
        counts: [21], edges: [22]
    """
    off = answers - right
    extent = float(np.abs(off).max()) if len(off) else 0.0
    counts, edges = np.histogram(off, _BINS, (-extent, extent) if extent else (-1.0, 1.0))
    return counts, edges


def numbers(material: Material) -> Part:
    """A scatter plot of answers against right numbers, and a histogram of the differences."""
    right, answers = (
        np.clip(np.array(values, np.float64), -_LARGEST, _LARGEST)
        for values in ([row.target for row in material.rows], [row.result.score for row in material.rows])
    )
    both = spanning("", [*right.tolist(), *answers.tolist()])
    frame = Frame(Axis("right number", both.low, both.high), Axis("answer", both.low, both.high), height=340)
    step = -(-len(right) // _MOST_DOTS)
    dots = list(zip(right[::step].tolist(), answers[::step].tolist(), strict=True))
    off = answers - right
    mean, spread = float(off.mean()), float(off.std())
    scatter = frame.draw(
        f"Dots: answers against right numbers, from {both.low:.3g} to {both.high:.3g}. On the diagonal an answer is "
        f"exact. Answers differ by {np.abs(off).mean():.3f} on average.",
        frame.line([(both.low, both.low), (both.high, both.high)], "ideal"),
        frame.dots(dots, "one faint", 3),
    )
    counts, edges = residuals(answers, right)
    extent = float(edges[-1])
    bins = Frame(
        Axis("answer less right number", -extent, extent),
        spanning("rows", map(float, counts), whole=True, zero=True),
        height=340,
    )
    histogram = bins.draw(
        f"Bars: how many answers are off by how much. The mean difference is {mean:+.3f}, the standard deviation "
        f"{spread:.3f}.",
        bins.bars(zip(edges, edges[1:], map(float, counts), strict=False), "one"),
        bins.upright(0.0),
    )
    shown = table(
        "Answers by their difference from the right number",
        ["difference", "rows"],
        [
            [f"{low:+.3f} to {high:+.3f}", int(number)]
            for low, high, number in zip(edges, edges[1:], counts, strict=False)
        ],
    )
    thinned = "" if step == 1 else f" One of {step} rows is drawn."
    body = side_by_side(
        picture(scatter, f"Each dot is a row. On the dashed line the answer is the right number.{thinned}"),
        picture(
            histogram,
            f"How far answers are off. To the right of the dashed line they are too high. Mean {mean:+.3f}, standard "
            f"deviation {spread:.3f}.",
            shown,
        ),
    )
    side = "high" if mean > 0 else "low"
    finding = (
        f"Answers are off by {np.abs(off).mean():.3f} on average over {counted(len(right), 'row')}; on the "
        f"whole they are {abs(mean):.3f} too {side}."
    )
    return Part(finding, body)
