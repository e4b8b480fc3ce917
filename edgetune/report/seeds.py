"""The spread of training runs over several seeds."""

from __future__ import annotations

from edgetune.figures import figure_name
from edgetune.report.markup import table
from edgetune.report.section import Material, Part, picture, side_by_side
from edgetune.report.svg import Axis, Frame, spanning


def across_seeds(material: Material) -> Part | None:
    """The figure of each seed; `None` if there was only one seed."""
    spread = material.seeds
    if spread is None:
        return None
    name, count = figure_name(spread.figure), len(spread.by_seed)
    points = [(float(place), figure) for place, figure in enumerate(spread.by_seed.values(), 1)]
    titles = [f"seed {seed}: {figure:.3f}" for seed, figure in spread.by_seed.items()]
    kept = points[list(spread.by_seed).index(spread.kept)]
    frame = Frame(
        Axis("training", 0.5, count + 0.5, whole=True), spanning(f"{name} on held-out rows", spread.by_seed.values())
    )
    drawn = frame.draw(
        f"Dots: the {name} of {count} trainings that differ in the seed alone, from {min(spread.by_seed.values()):.3f} "
        f"to {max(spread.by_seed.values()):.3f}. Dashed line: their mean, {spread.mean:.3f}.",
        frame.line([(0.5, spread.mean), (count + 0.5, spread.mean)], "ideal"),
        frame.dots(points, "one", 3, titles),
        frame.dots([kept], "one", 5, [f"seed {spread.kept}, which was kept: {kept[1]:.3f}"]),
    )
    numbers = table(
        f"The {name} of each seed",
        ["seed", name, ""],
        [[str(seed), figure, "kept" if seed == spread.kept else ""] for seed, figure in spread.by_seed.items()],
    )
    finding = (
        f"{count} trainings with different seeds have a mean {name} of {spread.mean:.3f} ± {spread.deviation:.3f}: "
        f"expect that. The kept one, {kept[1]:.3f}, was chosen because it is the best on these rows."
    )
    caption = (
        "Each dot is a training; the large one was kept. The dashed line is the mean; ± is the standard deviation."
    )
    return Part(finding, side_by_side(picture(drawn, caption, numbers)))
