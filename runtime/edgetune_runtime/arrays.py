"""The array type used everywhere, and array functions that several modules share."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

Array = NDArray[Any]


def unit_length(vectors: Array) -> Array:
    """Scale vectors to length 1; zero vectors stay as they are.

    Shape:
        vectors, output: [..., size]
    """
    found: Array = vectors / np.maximum(np.linalg.norm(vectors, axis=-1, keepdims=True), 1e-12)
    return found
