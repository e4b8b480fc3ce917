"""Libraries that report to their makers do not, unless the user asks for it.

onnxruntime reads its variable once, when it is imported: so this module is imported before it.
"""

from __future__ import annotations

import os
from types import ModuleType

_ONNXRUNTIME = "ORT_DISABLE_TELEMETRY"
_OFF = "1"


def turn_off(**variables: str) -> None:
    """Set environment variables for this process and those that it starts.

    Args:
        variables: name → the value that turns a library's reports off. A value that the user set stays, whatever it
            says; an empty one says nothing.
    """
    for name, value in variables.items():
        if not os.environ.get(name):
            os.environ[name] = value


def turn_off_onnxruntime() -> None:
    """Set the variable that onnxruntime reads when it is imported."""
    turn_off(**{_ONNXRUNTIME: _OFF})


def turn_off_imported(onnxruntime: ModuleType) -> None:
    """Tell onnxruntime itself: it may have been imported before edgetune, and on Windows it reads no variable.

    What it reported when it was imported cannot be taken back.
    """
    if os.environ.get(_ONNXRUNTIME) == _OFF:
        onnxruntime.disable_telemetry_events()
