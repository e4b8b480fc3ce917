"""Descriptions of a task's labels, as users give them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

from edgetune_runtime.errors import DataError

NAMES, NONE = "names", "none"

Descriptions = Mapping[str, Sequence[str]]
"""Label → descriptions of it in the user's words."""

Describing = Descriptions | str | None
"""Descriptions, or `NAMES` for the labels' own names, or `NONE` (the same as `None`)."""


def descriptions_of(given: object) -> dict[str, list[str]]:
    """Descriptions from a Python caller: label → texts. Labels may be integers or booleans.

    Raises:
        DataError: they have another type, or there are fewer than two labels.
    """
    from edgetune_runtime.kinds.kind import whole  # which needs numpy, and `--help` imports this module

    if not isinstance(given, Mapping):
        raise DataError(
            f"`descriptions` is a {type(given).__name__}: expected label → list of texts, such as "
            f"{{'billing': ['invoices', 'refunds']}}, or '{NAMES}' or '{NONE}' with labelled rows"
        )
    found: dict[str, list[str]] = {}
    for label, listed in given.items():
        name = whole(label.item() if hasattr(label, "item") else label)
        if isinstance(listed, str):
            raise DataError(f"the description of '{label}' is one string: expected a list of texts, write [text]")
        texts = [*listed] if isinstance(listed, Iterable) else [listed]
        if name is None or not all(isinstance(one, str) for one in texts):
            raise DataError(f"the description of {label!r:.60} is {listed!r:.60}: expected a list of texts")
        found[name] = texts
    if len(found) < 2:
        raise DataError(f"descriptions of {len(found)} labels came: expected those of at least two")
    return found
