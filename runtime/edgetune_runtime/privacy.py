"""Turn off the usage reports of libraries, unless the user wants them.

onnxruntime reads its variable only once, on import, so this module is imported first.
"""

from __future__ import annotations

import os
from types import ModuleType

_ONNXRUNTIME = "ORT_DISABLE_TELEMETRY"
_OFF = "1"


def turn_off(**variables: str) -> None:
    """Set environment variables for this process and its children.

    Args:
        variables: name → the value that turns a library's reports off. A value that the user has set stays, unless it
            is empty.
    """
    for name, value in variables.items():
        if not os.environ.get(name):
            os.environ[name] = value


def turn_off_onnxruntime() -> None:
    """Set the variable that onnxruntime reads on import."""
    turn_off(**{_ONNXRUNTIME: _OFF})


def turn_off_imported(onnxruntime: ModuleType) -> None:
    """Turn reports off through onnxruntime's API.

    It may have been imported before edgetune, and on Windows it does not read the variable.

    Anything that it reported on import cannot be taken back.
    """
    if os.environ.get(_ONNXRUNTIME) == _OFF:
        onnxruntime.disable_telemetry_events()
