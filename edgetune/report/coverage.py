"""The trade-off of a lowest score: fewer rows are answered, but more of the answers are right."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from edgetune.report.markup import Markup, element, table
from edgetune.report.section import Material, Part, picture, side_by_side
from edgetune.report.svg import Axis, Frame
from edgetune_runtime.arrays import Array

_STEPS = 100
_SHOWN = (0, 50, 60, 70, 80, 90, 95, 99)
FEWEST_ROWS = 30
"""A lowest score is proposed only if at least this many rows are still answered."""


class Coverage(NamedTuple):
    """The result of each lowest score.

    Attributes:
        min_scores: 0, 0.01 and so on to 1.
        answered: number of rows with at least this score.
        right: number of these rows whose answer is right.
        rows: number of all rows.
    """

    min_scores: Array
    answered: Array
    right: Array
    rows: int

    @property
    def coverage(self) -> Array:
        """Share of answered rows."""
        found: Array = self.answered / max(1, self.rows)
        return found

    @property
    def accuracy(self) -> Array:
        """Share of right answers among answered rows; 1 without answered rows."""
        found: Array = np.where(self.answered > 0, self.right / np.maximum(1, self.answered), 1.0)
        return found


def coverage_curve(scores: Array, right: Array) -> Coverage:
    """Count answered rows and right answers for each lowest score.

    Args:
        scores: the score of each answer, 0 to 1.
        right: whether each answer is right.

    Shape:
        scores, right: [rows]
        each of the output: [101]
    """
    min_scores = np.arange(_STEPS + 1) / _STEPS
    order = np.argsort(scores, kind="stable")
    below = np.searchsorted(scores[order], min_scores, side="left")
    hits = np.concatenate([[0], np.cumsum(right[order])])
    return Coverage(min_scores, len(scores) - below, hits[-1] - hits[below], len(scores))


def proposed(curve: Coverage) -> int | None:
    """The index of the lowest score to propose.

    This is the smallest score above 0 that at least halves the share of wrong answers and still answers at least
    `FEWEST_ROWS` rows; `None` if there is none, or if no answer is wrong.
    """
    errors = 1 - curve.accuracy
    if errors[0] <= 0:
        return None
    # Compare integers, because shares are rounded.
    wrong = curve.answered - curve.right
    good = 2 * wrong * curve.rows <= wrong[0] * curve.answered
    fit = np.flatnonzero(good & (curve.answered >= FEWEST_ROWS) & (curve.min_scores > 0))
    return int(fit[0]) if len(fit) else None


def coverage(material: Material) -> Part:
    """Coverage and accuracy as `min_score` rises, and a proposal."""
    curve = coverage_curve(material.best_scores, material.is_right)
    place, asked = proposed(curve), material.evaluation.min_score
    frame = Frame(Axis("--min-score"), Axis("share"))
    some = curve.answered > 0  # without answers there is no accuracy
    lines = [
        frame.line(zip(curve.min_scores, curve.coverage, strict=True), "one"),
        frame.line(zip(curve.min_scores[some], curve.accuracy[some], strict=True), "two"),
    ]
    marks = [] if place is None else [frame.upright(curve.min_scores[place], f"{curve.min_scores[place]:.2f}")]
    if asked is not None and (place is None or abs(asked - curve.min_scores[place]) > 0.005):
        marks.append(frame.upright(asked, f"{asked:g} (asked for)"))
    drawn = frame.draw(
        f"Two lines over the lowest score from 0 to 1. The share of rows answered falls from 1 to "
        f"{curve.coverage[-1]:.2f}. The share of these answered rightly begins at {curve.accuracy[0]:.3f}. "
        f"{_sentence(curve, place)}",
        *marks,
        *lines,
    )
    shown = sorted({*_SHOWN, *([] if place is None else [place])})
    numbers = table(
        "Rows answered, by the lowest score",
        ["--min-score", "rows answered", "coverage", "accuracy"],
        [
            [
                f"{curve.min_scores[at]:.2f}",
                int(curve.answered[at]),
                float(curve.coverage[at]),
                float(curve.accuracy[at]) if some[at] else element("td", "–", class_="number"),
            ]
            for at in shown
        ],
    )
    legend = element(
        "p",
        _key("one", "rows answered (coverage)"),
        _key("two", "right answers among these (accuracy)"),
        class_="legend",
    )
    caption = (
        "With --min-score, rows whose best score is lower are not answered. The proposal is the lowest score at which "
        f"the answered rows have at most half the share of wrong answers that all rows have, with at least "
        f"{FEWEST_ROWS} rows answered. It was read off these rows, so on new rows expect a little less; check it on "
        "rows that were used for nothing else."
    )
    body = side_by_side(
        element("div", legend, picture(drawn, caption), class_="block"),
        element("div", numbers, class_="block"),
    )
    return Part(_sentence(curve, place), body)


def _sentence(curve: Coverage, place: int | None) -> str:
    if place is None:
        if curve.accuracy[0] >= 1:
            return "Every row is answered rightly, so a lowest score would only cost answers."
        return (
            f"No --min-score halves the share of wrong answers with at least {FEWEST_ROWS} rows answered on these rows."
        )
    return (
        f"With --min-score {curve.min_scores[place]:.2f}, {curve.coverage[place]:.0%} of the rows are answered, "
        f"{curve.accuracy[place]:.1%} of these rightly instead of {curve.accuracy[0]:.1%}."
    )


def _key(class_: str, text: str) -> Markup:
    return element("span", element("i", class_=class_), text)
