"""Train a prompt and heads on a frozen backbone.

from edgetune.training import TaskData, TrainingOptions, train

The options do not need PyTorch; everything else here does.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from edgetune.training.options import TrainingOptions
    from edgetune.training.report import TrainingReport
    from edgetune.training.run import train
    from edgetune.training.setup import TaskData

__all__ = ["TaskData", "TrainingOptions", "TrainingReport", "train"]

_HOME = {"TrainingOptions": "options", "TaskData": "setup", "TrainingReport": "report", "train": "run"}


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_HOME[name]}"), name)
