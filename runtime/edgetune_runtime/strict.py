"""Values out of files that anyone may have made: JSON without its loose ends, whole numbers, text that can be shown.

What fails raises `ValueError`, which says what came; the caller knows the file and what to do about it.
"""

from __future__ import annotations

import json
import math
import re
from typing import Any, NoReturn

_CONTROL = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\ud800-\udfff]")


def json_value(data: bytes | str) -> Any:
    """Read JSON: UTF-8, whole characters, finite numbers, and no key twice in an object."""
    try:
        value = json.loads(
            data if isinstance(data, str) else data.decode(),
            object_pairs_hook=_without_doubles,
            parse_constant=_no_constant,
            parse_float=_finite,
        )
        # Escapes can spell halves of surrogate pairs, which nothing can encode.
        json.dumps(value, ensure_ascii=False).encode()
    except RecursionError as error:
        raise ValueError("JSON that is nested too deeply") from error
    return value


def whole_number(value: object, least: int, most: int) -> int:
    """Give back `value` where it is an integer from `least` to `most`; `True`, 1.0 and "1" are none."""
    if type(value) is not int or not least <= value <= most:
        raise ValueError(f"{value!r:.40}: expected a whole number from {least} to {most}")
    return value


def plain_text(value: object, most_characters: int) -> str:
    """Give back `value` where it is a string without control characters but tabs and line feeds.

    Others could move the cursor of the terminal that it is shown on, and so hide or feign what stands there.
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
