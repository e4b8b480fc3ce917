"""Class weights: how much the rows of each label count."""

from __future__ import annotations

import math
from collections.abc import Mapping
from numbers import Real

from edgetune_runtime.errors import DataError

BALANCED, NONE = "balanced", "none"

ClassWeight = str | Mapping[str, float]
"""`NONE` weighs all rows equally, `BALANCED` all labels equally; or label → weight of its rows, 1 for labels that are
not named."""


def class_weight_of(given: object) -> ClassWeight:
    """Class weights from a Python caller: `None`, a word, or label → number. Labels may be integers or booleans.

    Raises:
        DataError: they are something else.
    """
    from edgetune_runtime.kinds.kind import whole  # it needs numpy, and `--help` imports this module

    if given is None:
        return NONE
    if isinstance(given, str) and given in (NONE, BALANCED):
        return given
    weights: dict[str, float] = {}
    for label, weight in given.items() if isinstance(given, Mapping) else ():
        plain = label.item() if hasattr(label, "item") else label
        name = whole(plain)
        number = float(weight) if isinstance(weight, Real) and not isinstance(weight, bool) else math.nan
        if name is None or not (math.isfinite(number) and number > 0):
            raise DataError(f"`class_weight` is {weight!r:.60} for {label!r:.60}: expected a finite number above 0")
        weights[name] = number
    if not isinstance(given, Mapping):
        raise DataError(f"`class_weight` is {given!r:.60}: expected '{BALANCED}', '{NONE}', or label → number above 0")
    return weights
