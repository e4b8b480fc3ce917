"""A self-contained HTML page, without scripts and external files."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from importlib import resources
from pathlib import Path

from edgetune.evaluation import Evaluation
from edgetune.figures import FIGURES, figure_name
from edgetune.report import calibration, labels, thresholds
from edgetune.report.confusion import confusion
from edgetune.report.coverage import coverage
from edgetune.report.label_errors import suspects
from edgetune.report.learning import learning
from edgetune.report.markup import Markup, element, escape, join, label
from edgetune.report.numbers import numbers
from edgetune.report.section import EpochLike, Material, Part, Section, counted
from edgetune.report.seeds import across_seeds
from edgetune.report.wrong import wrong
from edgetune.training.seeds import SeedSpread
from edgetune_runtime import files
from edgetune_runtime.errors import DataError
from edgetune_runtime.kinds.multi_label import MULTI_LABEL
from edgetune_runtime.kinds.score import SCORE
from edgetune_runtime.kinds.single_label import SINGLE_LABEL
from edgetune_runtime.kinds.spans import SPANS
from edgetune_runtime.kinds.tokens import TOKENS

NAME = "report.html"
"""The page's file name."""

_ONE, _ANY, _NUMBER, _ENTITIES, _STRETCH = (
    frozenset([kind.name]) for kind in (SINGLE_LABEL, MULTI_LABEL, SCORE, TOKENS, SPANS)
)

SECTIONS = (
    Section("learning", "How it learned", None, learning),
    Section("seeds", "What chance does", None, across_seeds),
    Section("numbers", "Answers and right numbers", _NUMBER, numbers),
    Section("confusion", "What is mistaken for what", _ONE, confusion),
    Section("labels", "Label by label", _ONE, labels.one_label),
    Section("labels", "Label by label", _ANY, labels.any_labels),
    Section("labels", "Label by label", _ENTITIES, labels.entities),
    Section("thresholds", "Scores and thresholds", _ANY, thresholds.distributions),
    Section("calibration", "What scores are worth", _ONE | _STRETCH, calibration.one_answer),
    Section("calibration", "What scores are worth", _ANY, calibration.any_labels),
    Section("coverage", "Answering only when sure", _ONE | _STRETCH, coverage),
    Section("label-errors", "Labels that may be wrong in the data", _ONE, suspects),
    Section("wrong", "The worst answers", None, wrong),
)
"""The sections of a report, in order. A section is included if it applies to the kind of answer."""

# Even if a text got through as HTML, it could not load or run anything.
_POLICY = "default-src 'none'; style-src 'unsafe-inline'; img-src data:; base-uri 'none'; form-action 'none'"
_TEMPLATE = """<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta http-equiv="Content-Security-Policy" content="{policy}">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="color-scheme" content="light dark">
<link rel="icon" href="data:,">
<title>{title}</title>
<style>
{style}</style>
</head>
<body>
{body}
</body>
</html>
"""


def write_report(
    folder: Path | str, evaluation: Evaluation, history: Sequence[EpochLike] = (), seeds: SeedSpread | None = None
) -> Path:
    """Write a page about the quality of a task: one file, which needs neither network nor server.

    Equal input gives equal bytes.

    Args:
        folder: folder for `report.html`; created if it does not exist.
        evaluation: the answers and their targets.
        history: the epochs of training, for a learning curve.
        seeds: the spread over several seeds, from `edgetune.training.TrainingReport`.

    Returns:
        The page's path.

    Raises:
        DataError: no row was answered.
        EdgetuneError: the page cannot be written.
    """
    path = Path(folder) / NAME
    # A place may contain a file name that is not valid Unicode.
    files.write_atomic(path, page(evaluation, history, seeds).encode("utf-8", "backslashreplace"))
    return path


def page(evaluation: Evaluation, history: Sequence[EpochLike] = (), seeds: SeedSpread | None = None) -> str:
    """The page, as HTML; see `write_report`."""
    if not evaluation.rows:
        raise DataError(f"{len(evaluation.texts):,} rows came, none of them answered: expected at least one answer")
    material = Material(evaluation, history, seeds)
    kind = evaluation.task.kind_name
    made = [(one, one.of(material)) for one in SECTIONS if one.kinds is None or kind in one.kinds]
    parts = [(section, part) for section, part in made if part is not None]
    body = join(
        [
            _header(evaluation),
            _short(parts),
            element("main", *(_section(section, part) for section, part in parts)),
            element("footer", "Made by edgetune from the rows and answers of one evaluation."),
        ]
    )
    return _TEMPLATE.format(
        policy=_POLICY, title=escape(f"{evaluation.task.name}: how good it is"), style=_style(), body=body
    )


def _header(evaluation: Evaluation) -> Markup:
    task, figures = evaluation.task, evaluation.figures
    told = [
        f"Answers with {task.kind.title}",
        f"{counted(len(evaluation.rows), 'row')}",
        f"precision {evaluation.precision}",
    ]
    if evaluation.rechecked:
        told[-1] += f" ({evaluation.rechecked:.1%} rechecked)"
    if evaluation.errors:
        told.append(f"{counted(len(evaluation.errors), 'more row')} could not be read")
    if evaluation.truncated:
        told.append(f"{counted(evaluation.truncated, 'text')} cut at the end")
    tiles = [
        element(
            "div",
            element("dt", figure_name(figure)),
            element("dd", f"{value:.3f}", class_="value"),
            element("dd", FIGURES[figure].meaning if figure in FIGURES else None),
        )
        for figure, value in figures.values.items()
    ]
    return element(
        "header",
        element("h1", label(task.name)),
        element("p", " · ".join(told)),
        element("dl", *tiles, class_="figures"),
    )


def _short(parts: Sequence[tuple[Section, Part]]) -> Markup:
    """The findings, each with a link to its section.

    The finding about the rows comes first, because the others refer to it.
    """
    items = [
        element("li", element("bdi", part.finding), " ", element("a", section.title, href=f"#{section.anchor}"))
        for section, part in [*parts[-1:], *parts[:-1]]
        if part.finding
    ]
    return element("nav", element("h2", "In short"), element("ul", *items), aria_label="In short")


def _section(section: Section, part: Part) -> Markup:
    finding = element("p", element("bdi", part.finding), class_="finding") if part.finding else None
    return element("section", element("h2", section.title), finding, part.body, id=section.anchor)


@cache
def _style() -> str:
    return (resources.files("edgetune.report") / "page.css").read_text("utf-8")
