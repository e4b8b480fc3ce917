"""Texts in requests: a text, or a pair of texts."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import msgspec

from edgetune.server.errors import RequestError, too_large, unfit, unusable
from edgetune.server.settings import Settings
from edgetune_runtime.task import Task
from edgetune_runtime.text import Text, is_unicode

TEXT, TEXT_PAIR = "text", "text_pair"
"""Names of the texts of a pair; a single text has the first name."""


class TextRow(msgspec.Struct):
    """A text or, for tasks that take pairs, a pair of texts."""

    text: str
    text_pair: str | None = None


Row = str | int | TextRow | list[str | int]
"""A row in JSON. Rows of numbers are token ids, and are rejected."""


def names(pairs: bool) -> tuple[str, ...]:
    """Names of the texts of a row: of a pair, or of a single text."""
    return (TEXT, TEXT_PAIR) if pairs else (TEXT,)


def as_text(row: Row) -> Text:
    """The text, or the pair, of a row.

    Raises:
        RequestError: it is neither.
    """
    if isinstance(row, str):
        return row
    if isinstance(row, TextRow):
        return row.text if row.text_pair is None else (row.text, row.text_pair)
    if isinstance(row, int) or any(isinstance(part, int) for part in row):
        raise unusable("token ids came as 'input': expected texts, which each task puts into its own template")
    if len(row) != 2:
        raise unusable(f"a list of {len(row)} texts came as a row: expected a text, or a list of two for a pair")
    first, second = map(str, row)
    return first, second


def misfit(text: Text, task: Task) -> RequestError | None:
    """Why a task cannot answer a row: it is a pair but the task takes single texts, or vice versa."""
    if isinstance(text, tuple) == task.pairs:
        return None
    if not task.pairs:
        return unfit(f"task '{task.name}' takes single texts, and a pair came: expected a text")
    return unfit(
        f'task \'{task.name}\' takes pairs of texts, and one text came: expected {{"{TEXT}": …, "{TEXT_PAIR}": …}} or '
        f"a list of two texts for each row of 'input'"
    )


def check_texts(texts: Sequence[Text], settings: Settings) -> None:
    """Raise `RequestError` unless there is at least one text, and there are neither too many nor too long ones."""
    if not texts:
        raise unusable("no text came: expected at least one")
    if len(texts) > settings.max_rows:
        raise too_large(f"{len(texts)} texts came: expected at most {settings.max_rows} a request; send them in parts")
    parts = [part for text in texts for part in ([text] if isinstance(text, str) else text)]
    longest = max(map(len, parts))
    if longest > settings.max_characters:
        raise too_large(f"a text has {longest} characters: expected at most {settings.max_characters}; cut it")
    if not all(map(is_unicode, parts)):
        raise unusable("a text has half of a surrogate pair: expected whole characters")


def text_schema(settings: Settings) -> dict[str, Any]:
    """JSON schema of a text."""
    return {"type": "string", "maxLength": settings.max_characters}


def texts_schema(settings: Settings) -> dict[str, Any]:
    """JSON schema of several texts."""
    return {"type": "array", "items": text_schema(settings), "minItems": 1, "maxItems": settings.max_rows}


def row_schema(settings: Settings) -> dict[str, Any]:
    """JSON schema of `TextRow`'s properties."""
    text = text_schema(settings)
    return {TEXT: text, TEXT_PAIR: {"anyOf": [text, {"type": "null"}], "default": None}}


def input_schema(settings: Settings, row: dict[str, Any]) -> dict[str, Any]:
    """JSON schema of one row or several.

    Args:
        settings: the settings with the limits.
        row: schema of `TextRow`.
    """
    text = text_schema(settings)
    pair = {"type": "array", "items": text, "minItems": 2, "maxItems": 2, "description": "A pair of texts."}
    rows = {"type": "array", "items": {"anyOf": [text, row, pair]}, "minItems": 1, "maxItems": settings.max_rows}
    return {"anyOf": [text, rows, row]}
