"""The report page that `fit` and `train` write about a new task."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from edgetune.cli.options import note

if TYPE_CHECKING:
    from edgetune.evaluation import Evaluation
    from edgetune.training.epochs import Epoch
    from edgetune.training.seeds import SeedSpread


def write_page(
    folder: Path,
    name: str,
    evaluation: Evaluation | None,
    history: Sequence[Epoch] = (),
    seeds: SeedSpread | None = None,
) -> str | None:
    """Write the page, report where, and return its path; `None` if no row of the task could be held out."""
    from edgetune.report import write_report

    if evaluation is None:
        note(f"{name}: no report, since each label has one row and none could be held out")
        return None
    path = write_report(folder, evaluation, history, seeds)
    note(f"report: {path}")
    return str(path)
