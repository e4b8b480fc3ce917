"""Classify text with many small tasks on one exported backbone, without PyTorch.

from edgetune_runtime import Engine

engine = Engine("bundle", precision="int8")
engine.classify(["it broke again"], task="sentiment")[0].label
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from edgetune_runtime import privacy

if TYPE_CHECKING:
    from edgetune_runtime.bundle import Bundle
    from edgetune_runtime.engine import Engine, Result
    from edgetune_runtime.errors import EdgetuneError
    from edgetune_runtime.task import Task

# This must run before any module here imports onnxruntime.
privacy.turn_off_onnxruntime()

__all__ = ["Bundle", "EdgetuneError", "Engine", "Result", "Task"]

_HOME = {
    "Bundle": "bundle",
    "EdgetuneError": "errors",
    "Engine": "engine",
    "Result": "engine",
    "Task": "task",
}


def __getattr__(name: str) -> Any:
    # Loaded on first use: importing onnxruntime takes a fifth of a second, and --help does not need it.
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_HOME[name]}"), name)
