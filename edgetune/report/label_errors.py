"""Find rows whose label in the data is probably wrong, by confident learning (Northcutt et al. 2021)."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from edgetune.report.markup import element, label, listed
from edgetune.report.rows import answer_line, row_item
from edgetune.report.section import Material, Part, counted
from edgetune_runtime.arrays import Array

_MOST_ROWS = 200
_ROUNDING = 1e-6


class LabelError(NamedTuple):
    """A row whose label is probably wrong.

    Attributes:
        row: index of the row.
        label: index of the label that is probably right.
        margin: probability of the given label minus that of the best other label; the lower, the more certain.
    """

    row: int
    label: int
    margin: float


def label_errors(probabilities: Array, given: Array) -> list[LabelError]:
    """Find rows whose label is probably wrong, most certain first.

    A label's threshold is the mean of its probability over the rows that have it, which is the task's usual confidence
    in it. A row is probably mislabelled if the best label among those that reach their thresholds differs from the
    given label, unless the given label is still the most probable of all.

    Args:
        probabilities: probability of each label for each row, from a task that was not trained on these rows.
        given: index of each row's label in the data.

    Shape:
        probabilities: [rows, labels]
        given: [rows]
    """
    rows = np.arange(len(given))
    own = probabilities[rows, given]
    numbers = np.bincount(given, minlength=probabilities.shape[1])
    sums = np.bincount(given, own, probabilities.shape[1])
    # A label without rows has no threshold, so it is never suggested.
    thresholds = np.where(numbers > 0, sums / np.maximum(1, numbers), np.inf)
    reached = np.where(probabilities >= thresholds - _ROUNDING, probabilities, -1.0)
    better = reached.argmax(axis=1)
    others = probabilities.copy()
    others[rows, given] = -1.0
    margins = own - others.max(axis=1)
    odd = (reached.max(axis=1) >= 0) & (better != given) & (margins < 0)
    found = [LabelError(int(row), int(better[row]), float(margins[row])) for row in np.flatnonzero(odd)]
    return sorted(found, key=lambda one: (one.margin, one.row))


def suspects(material: Material) -> Part:
    """The suspicious rows, with their label and the label that is probably right."""
    found = label_errors(material.scores, material.right)
    told = (
        "The task is surer of another label here than it usually is of that label’s own rows (confident learning, "
        "Northcutt et al. 2021). Look at them: correct the data if the label is wrong. This holds only if the task was "
        "not trained on these rows."
    )
    parts = [element("p", told, class_="caption")]
    if not found:
        return Part("No label in the data looks wrong.", element("div", *parts, element("p", "There are none.")))
    items = []
    for one in found:
        row, other = material.rows[one.row], material.labels[one.label]
        line = answer_line(
            "in the data",
            [label(str(row.target), "wrong"), f" {material.scores[one.row, material.right[one.row]]:.2f}"],
            "probably",
            [label(other, "right"), f" {material.scores[one.row, one.label]:.2f}"],
        )
        items.append(row_item(row, line))
    parts.append(listed(items, _MOST_ROWS))
    finding = (
        f"{counted(len(found), 'label')} in the data may be wrong ({len(found) / len(material.rows):.1%} of the rows)."
    )
    return Part(finding, element("div", *parts))
