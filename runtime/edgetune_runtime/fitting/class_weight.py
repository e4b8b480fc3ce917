"""How much the rows of a label count."""

from __future__ import annotations

from collections.abc import Mapping

BALANCED, NONE = "balanced", "none"

ClassWeight = str | Mapping[str, float]
"""`NONE` for all rows the same, `BALANCED` for all labels the same, or label → how much a row of it counts, 1 if it is
not named."""
