"""Which labels are confused with each other."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from edgetune.report.markup import element, folded, label, quoted, table
from edgetune.report.section import Material, Part, counted, side_by_side
from edgetune_runtime.arrays import Array

_FIRST_PAIRS, _MOST_PAIRS = 10, 100
_MOST_LABELS = 12


class Mistake(NamedTuple):
    """How often a label was confused with another.

    Attributes:
        right, answered: indices of the labels.
        number: number of rows.
        share: share of the right label's rows.
    """

    right: int
    answered: int
    number: int
    share: float


def worst_pairs(confusion: Array) -> list[Mistake]:
    """The pairs of confused labels, sorted by number of rows, then by share.

    Shape:
        confusion: [labels, labels]; right labels are rows
    """
    rows = confusion.sum(axis=1)
    wrong = confusion - np.diag(confusion.diagonal())
    pairs = [
        Mistake(int(right), int(answered), int(wrong[right, answered]), float(wrong[right, answered] / rows[right]))
        for right, answered in np.argwhere(wrong)
    ]
    return sorted(pairs, key=lambda pair: (-pair.number, -pair.share, pair.right, pair.answered))


def confusion(material: Material) -> Part | None:
    """The worst pairs, and the whole table if there are few labels."""
    found, labels = material.evaluation.figures.confusion, material.labels
    if found is None:
        return None
    pairs = worst_pairs(found)
    parts = []
    if pairs:
        header = ["right label", "answered", "rows", "share of label"]
        shown = [
            [label(labels[pair.right]), label(labels[pair.answered]), pair.number, pair.share]
            for pair in pairs[:_MOST_PAIRS]
        ]
        block = [
            element("p", "The most common mistakes, and their share of the right label’s rows.", class_="caption"),
            table("Labels that are mistaken for others", header, shown[:_FIRST_PAIRS]),
        ]
        if len(shown) > _FIRST_PAIRS:
            rest = table("Other labels that are mistaken for others", header, shown[_FIRST_PAIRS:])
            block.append(folded(f"{len(shown) - _FIRST_PAIRS:,} more pairs", rest))
        parts.append(element("div", *block, class_="block"))
    if len(labels) <= _MOST_LABELS:
        sizes = np.maximum(1, found.sum(axis=1))
        shown = [
            [
                label(name),
                *(
                    element(
                        "td",
                        f"{int(count):,}",
                        class_="hit" if row == column else "miss",
                        style=f"--share:{count / sizes[row]:.3f}",
                    )
                    for column, count in enumerate(found[row])
                ),
            ]
            for row, name in enumerate(labels)
        ]
        told = "Rows are the right labels, columns the answers: all right answers are on the diagonal."
        header = ["right \N{RIGHTWARDS ARROW} answered", *map(label, labels)]
        whole = table("Right labels and answers", header, shown, "confusion")
        parts.append(element("div", element("p", told, class_="caption"), whole, class_="block"))
    if not pairs:
        return Part("No label is mistaken for another.", side_by_side(*parts))
    worst = pairs[0]
    finding = (
        f"The most common mistake: {quoted(labels[worst.right])} is answered with {quoted(labels[worst.answered])} "
        f"({counted(worst.number, 'row')}, {worst.share:.0%} of that label)."
    )
    return Part(finding, side_by_side(*parts))
