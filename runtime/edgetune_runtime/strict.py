"""Strict parsing of values from untrusted files: JSON, integers, and text that is safe to show.

Failures raise a `ValueError` that says what came; the caller adds the file and what to do about it.
"""

from __future__ import annotations

import json
import math
import re
from typing import Any, NoReturn

_CONTROL = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\ud800-\udfff]")


def json_value(data: bytes | str) -> Any:
    """Parse JSON strictly: UTF-8, no lone surrogates, finite numbers, and no duplicate keys."""
    try:
        value = json.loads(
            data if isinstance(data, str) else data.decode(),
            object_pairs_hook=_without_doubles,
            parse_constant=_no_constant,
            parse_float=_finite,
        )
        # Escapes can spell lone surrogates, which cannot be encoded.
        json.dumps(value, ensure_ascii=False).encode()
    except RecursionError as error:
        raise ValueError("JSON that is nested too deeply") from error
    return value


def whole_number(value: object, least: int, most: int) -> int:
    """Return `value` if it is an integer from `least` to `most`; `True`, 1.0 and "1" are rejected."""
    if type(value) is not int or not least <= value <= most:
        raise ValueError(f"{value!r:.40}: expected a whole number from {least} to {most}")
    return value


def plain_text(value: object, most_characters: int) -> str:
    """Return `value` if it is a string without control characters other than tabs and line feeds.

    Other control characters could move the cursor of a terminal and so hide or fake its contents.
    """
    if not isinstance(value, str):
        raise ValueError(f"{value!r:.40}: expected a string")
    if len(value) > most_characters:
        raise ValueError(f"a string of {len(value):,} characters: expected at most {most_characters:,}")
    if found := _CONTROL.search(value):
        raise ValueError(f"the character {found.group()!r}: expected text without control characters")
    return value


def _without_doubles(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    made = dict(pairs)
    if len(made) < len(pairs):
        raise ValueError("JSON that has a key twice in one object")
    return made


def _no_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is not JSON")


def _finite(text: str) -> float:
    value = float(text)
    if not math.isfinite(value):
        raise ValueError(f"the number {text[:40]} is too large")
    return value
