"""The type of arrays throughout, and what several modules compute of them."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

Array = NDArray[Any]


def unit_length(vectors: Array) -> Array:
    """Vectors of length 1 in the same directions; those of length 0 stay as they are.

    Shape:
        vectors, output: [..., size]
    """
    found: Array = vectors / np.maximum(np.linalg.norm(vectors, axis=-1, keepdims=True), 1e-12)
    return found
