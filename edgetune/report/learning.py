"""The learning curve: results of each epoch on development data."""

from __future__ import annotations

import math
from collections.abc import Sequence

from edgetune.report.markup import Markup, table
from edgetune.report.section import Material, Part, counted, picture, side_by_side
from edgetune.report.svg import Axis, Frame, Point, spanning


def learning(material: Material) -> Part | None:
    """Score and loss per epoch; `None` without a history."""
    history = material.history
    if not history:
        return None
    scores = [(float(epoch.number), epoch.score) for epoch in history]
    losses = [(float(epoch.number), epoch.loss) for epoch in history if math.isfinite(epoch.loss)]
    best = max(history, key=lambda epoch: (epoch.score, -epoch.loss if math.isfinite(epoch.loss) else -math.inf))
    numbers = table(
        "Score and loss per epoch",
        ["epoch", "score", "loss"],
        [[str(epoch.number), epoch.score, epoch.loss] for epoch in history],
    )
    finding = (
        f"Of {counted(len(history), 'epoch')}, epoch {best.number} had the best score on development data, "
        f"{best.score:.3f}, and among equals the least loss."
    )
    body = side_by_side(
        picture(
            _curve(scores, "score on development data", "one", best=(best.number, best.score)),
            "The score by which the epoch is chosen: higher is better. The dot is the epoch that was kept. A "
            "curve that still rises at its end asks for more epochs.",
            numbers,
        ),
        picture(
            _curve(losses, "loss on development data", "two"),
            "The loss: lower is better. If it rises while the score does not, the task becomes too sure of itself.",
        )
        if losses
        else None,
    )
    return Part(finding, body)


def _curve(points: Sequence[Point], name: str, class_: str, best: Point | None = None) -> Markup:
    last = max(2.0, points[-1][0])
    frame = Frame(Axis("epoch", 1.0, last, whole=True), spanning(name, [value for _, value in points]))
    told = f"Line: the {name} goes from {points[0][1]:.3f} at epoch {points[0][0]:.0f} to {points[-1][1]:.3f} at epoch "
    told += f"{points[-1][0]:.0f}."
    marks = [frame.line(points, class_), frame.dots(points, class_, 2.5)]
    if best is not None:
        told += f" It is best at epoch {best[0]:.0f}: {best[1]:.3f}."
        marks.append(frame.dots([best], class_, 5, [f"epoch {best[0]:.0f}: {best[1]:.3f}"]))
    return frame.draw(told, *marks)
