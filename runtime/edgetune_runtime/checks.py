"""Checks of the arguments of engine calls."""

from __future__ import annotations

from collections.abc import Sequence

from edgetune_runtime.errors import DataError
from edgetune_runtime.task import Task
from edgetune_runtime.text import is_unicode


def check_min_score(min_score: float, tasks: Sequence[Task] = ()) -> None:
    """Raise `DataError` if a lowest score is not a probability, or a task does not support it."""
    if not 0 <= min_score <= 1:
        raise DataError(f"min_score is {min_score}: expected a probability, from 0 to 1")
    for task in tasks if min_score else ():
        if not task.kind.min_score:
            raise DataError(
                f"min_score is {min_score}, and task '{task.name}' of the kind '{task.kind.name}' gives no "
                f"probabilities: leave it out"
            )


def check_text(place: int, text: object, task: Task) -> None:
    """Raise `DataError` unless a text is what the task takes; `place` is its index in the call."""
    parts: tuple[object, ...] = text if isinstance(text, tuple) else (text,)
    wanted = "a pair of strings (text, text_pair)" if task.pairs else "a string"
    if not all(isinstance(part, str) for part in parts):
        odd = next(part for part in parts if not isinstance(part, str))
        raise DataError(f"text {place} is a {type(odd).__name__}: expected {wanted} for task '{task.name}'")
    if isinstance(text, tuple) != task.pairs or (task.pairs and len(parts) != 2):
        came = f"a tuple of {len(parts)}" if isinstance(text, tuple) else "a string"
        hint = "" if task.pairs else "; to mix tasks pass tasks=[NAME, …]"
        raise DataError(f"text {place} is {came}: expected {wanted} for task '{task.name}'{hint}")
    if not all(is_unicode(str(part)) for part in parts):
        raise DataError(f"text {place} has half of a surrogate pair: expected whole characters")
