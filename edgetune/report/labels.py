"""Figures per label, worst first."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from edgetune.report.markup import Markup, bar, element, folded, join, label, quoted, table
from edgetune.report.section import Material, Part, counted
from edgetune_runtime.kinds.multi_label import thresholds

_FIRST = 15
_MOST = 500


def one_label(material: Material) -> Part | None:
    """For one label per row: rows, precision, recall, F1."""
    figures = material.evaluation.figures
    if figures.confusion is None:
        return None
    rows, answers = figures.confusion.sum(axis=1), figures.confusion.sum(axis=0)
    precision = figures.confusion.diagonal() / np.maximum(1, answers)
    f1 = [figures.by_label[name]["f1"] for name in material.labels]
    cells = [
        [label(name), int(rows[at]), bar(float(precision[at])), bar(figures.by_label[name]["recall"]), bar(f1[at])]
        for at, name in enumerate(material.labels)
    ]
    return _part(material, rows.tolist(), f1, ["label", "rows", "precision", "recall", "F1"], cells)


def any_labels(material: Material) -> Part:
    """For any number of labels per row: also how often each label is missed, and wrongly given."""
    right, given, by_label = material.applies, material.given, material.evaluation.figures.by_label
    rows, missed, extra = right.sum(axis=0), (right & ~given).sum(axis=0), (given & ~right).sum(axis=0)
    limits = thresholds(material.evaluation.task)
    f1 = [by_label[name]["f1"] for name in material.labels]
    cells = [
        [
            label(name),
            int(rows[at]),
            int(missed[at]),
            int(extra[at]),
            *(bar(by_label[name][figure]) for figure in ("precision", "recall", "f1")),
            f"{limits[at]:.2f}",
        ]
        for at, name in enumerate(material.labels)
    ]
    header = ["label", "rows", "missed", "extra", "precision", "recall", "F1", "threshold"]
    return _part(material, rows.tolist(), f1, header, cells)


def entities(material: Material) -> Part:
    """For entities: number, precision, recall, F1 of each label."""
    by_label = material.evaluation.figures.by_label
    own = [by_label[name] for name in material.labels]
    numbers, f1 = [int(one["entities"]) for one in own], [one["f1"] for one in own]
    cells = [
        [label(name), number, *(bar(one[figure]) for figure in ("precision", "recall", "f1"))]
        for name, number, one in zip(material.labels, numbers, own, strict=True)
    ]
    return _part(
        material, numbers, f1, ["label", "entities", "precision", "recall", "F1"], cells, ("entity", "entities")
    )


def _part(
    material: Material,
    rows: Sequence[int],
    f1: Sequence[float],
    header: Sequence[str],
    cells: Sequence[list[object]],
    unit: tuple[str, str] = ("row", "rows"),
) -> Part:
    order = worst_first(rows, f1)
    ordered = [cells[at] for at in order[:_MOST]]
    told = element("p", f"The labels with the lowest F1 first; labels without {unit[1]} last.", class_="caption")
    parts: list[Markup] = [told, table("Figures per label", header, ordered[:_FIRST], "bars")]
    if len(ordered) > _FIRST:
        rest = table("Figures of the other labels", header, ordered[_FIRST:], "bars")
        parts.append(folded(f"{len(ordered) - _FIRST:,} more labels", rest))
    if not any(rows):
        return Part("No row has a label.", join(parts))
    worst = order[0]
    finding = (
        f"The weakest label is {quoted(material.labels[worst])}: F1 {f1[worst]:.2f}, {counted(rows[worst], *unit)}."
    )
    return Part(finding, join(parts))


def worst_first(rows: Sequence[int], f1: Sequence[float]) -> list[int]:
    """Indices of labels, sorted by F1. Labels without rows come last, because their F1 means little."""
    return sorted(range(len(f1)), key=lambda at: (rows[at] == 0, f1[at], at))
