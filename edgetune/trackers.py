"""Experiment trackers, such as TensorBoard or MLflow, as training callbacks."""

from __future__ import annotations

from collections.abc import Sequence

from transformers import TrainerCallback
from transformers.integrations import INTEGRATION_TO_CALLBACK, get_available_reporting_integrations

from edgetune_runtime.errors import DataError

NONE, ALL = "none", "all"


def reporters(report_to: str | Sequence[str] | None) -> list[TrainerCallback]:
    """Callbacks that report a training run to trackers.

    Args:
        report_to: names of trackers as in `transformers.TrainingArguments`; "none", or "all" for all that are
            installed.

    Raises:
        DataError: a tracker is unknown, or its package is not installed.
    """
    names = [report_to] if isinstance(report_to, str) else list(report_to or [NONE])
    if names == [ALL]:
        names = get_available_reporting_integrations()
    found = []
    for name in [] if names == [NONE] else names:
        if name not in INTEGRATION_TO_CALLBACK:
            raise DataError(
                f"report_to has {name!r}: expected '{NONE}', '{ALL}', or some of {', '.join(INTEGRATION_TO_CALLBACK)}"
            )
        try:
            found.append(INTEGRATION_TO_CALLBACK[name]())
        except (ImportError, RuntimeError) as error:  # the callback's error for a missing package
            raise DataError(f"report_to has {name!r}, which does not start: {error}") from error
    return found
