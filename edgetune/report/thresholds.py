"""The scores of each label, for rows with and without it, and its threshold between them."""

from __future__ import annotations

import numpy as np

from edgetune.report.labels import worst_first
from edgetune.report.markup import Markup, element, join, label
from edgetune.report.section import Material, Part, counted
from edgetune.report.svg import Axis, Frame
from edgetune_runtime.arrays import Array
from edgetune_runtime.kinds.multi_label import thresholds

_MOST_LABELS = 24
_STEPS = 100


def distributions(material: Material) -> Part:
    """A small plot per label; if there are many labels, only those with the lowest F1."""
    right, scores = material.applies, material.scores
    f1 = [own["f1"] for own in material.evaluation.figures.by_label.values()]
    limits = thresholds(material.evaluation.task)
    drawn = [
        _picture(material.labels[place], scores[:, place], right[:, place], float(limits[place]))
        for place in worst_first(right.sum(axis=0).tolist(), f1)[:_MOST_LABELS]
    ]
    legend = element(
        "p",
        element("span", element("i", class_="one"), "rows that have the label"),
        element("span", element("i", class_="two"), "rows that do not"),
        class_="legend",
    )
    told_once = (
        "Each picture shows how many rows reach a score. The dashed line is the label's threshold: rows that reach it "
        "get the label. The further the two lines are apart there, the better. A lower threshold gives the label to "
        "more rows of both kinds."
    )
    if len(f1) > _MOST_LABELS:
        told_once += f" Of {len(f1):,} labels, the {_MOST_LABELS} with the lowest F1 are shown."
    body = join([element("p", told_once, class_="caption"), legend, element("div", *drawn, class_="pictures small")])
    return Part("", body)


def reached(scores: Array, limits: Array) -> Array:
    """Share of the scores that reach each limit.

    Shape:
        scores: [rows], at least one
        limits, output: [limits]
    """
    found: Array = 1 - np.searchsorted(np.sort(scores), limits, side="left") / len(scores)
    return found


def _picture(name: str, scores: Array, right: Array, threshold: float) -> Markup:
    end = min(1.0, 1.05 * max(float(scores.max()), threshold))  # with low scores, zoom in
    frame = Frame(Axis("score", 0.0, end), Axis("share of rows"), height=200)
    marks, told = [frame.upright(threshold, f"{threshold:.2f}")], []
    limits = np.linspace(0.0, end, _STEPS + 1)
    for class_, which, values in (("one", "with", scores[right]), ("two", "without", scores[~right])):
        if len(values):
            marks.append(frame.line(zip(limits, reached(values, limits), strict=True), class_))
            told.append(
                f"Of {counted(len(values), 'row')} {which} the label {float((values >= threshold).mean()):.0%} get it."
            )
    svg = frame.draw(f"Rows by the score that they reach, and the threshold {threshold:.2f}. {' '.join(told)}", *marks)
    return element("figure", element("h3", label(name)), svg, element("figcaption", " ".join(told)))
