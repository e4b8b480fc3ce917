"""Train soft prompts on a frozen transformer, export it once, classify on the edge.

import edgetune

engine = edgetune.Engine("bundle")
engine.fit(texts, labels, name="tickets")
engine.classify(["where is my money?"], task="tickets")[0].label
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

import edgetune_runtime  # noqa: F401 - first: what it sets is read when onnxruntime is imported

if TYPE_CHECKING:
    from edgetune import sklearn
    from edgetune.api import export, task_from_head, train
    from edgetune.evaluation import Evaluation, evaluate
    from edgetune.report import write_report
    from edgetune.sync import pull, push
    from edgetune.training.options import TrainingOptions
    from edgetune_runtime.bundle import Bundle
    from edgetune_runtime.engine import Engine
    from edgetune_runtime.errors import EdgetuneError
    from edgetune_runtime.task import Task

__all__ = [
    "Bundle",
    "EdgetuneError",
    "Engine",
    "Evaluation",
    "Task",
    "TrainingOptions",
    "evaluate",
    "export",
    "pull",
    "push",
    "sklearn",
    "task_from_head",
    "train",
    "write_report",
]

_HOME = {
    "Bundle": "edgetune_runtime.bundle",
    "EdgetuneError": "edgetune_runtime.errors",
    "Engine": "edgetune_runtime.engine",
    "Evaluation": "edgetune.evaluation",
    "Task": "edgetune_runtime.task",
    "TrainingOptions": "edgetune.training.options",
    "evaluate": "edgetune.evaluation",
    "export": "edgetune.api",
    "pull": "edgetune.sync",
    "push": "edgetune.sync",
    "task_from_head": "edgetune.api",
    "train": "edgetune.api",
    "write_report": "edgetune.report",
}


def __getattr__(name: str) -> Any:
    # Loaded on first use: the command line's --help needs none of it, and a server does not need scikit-learn.
    if name == "sklearn":
        return import_module("edgetune.sklearn")
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(_HOME[name]), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
