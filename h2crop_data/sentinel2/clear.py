"""Which Sentinel-2 pixels are clear: by the scene classification, and by numbers that no ground has."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

#: Highest reflectance x 10000 of clear ground: fresh snow stays below it, glint and broken files do not.
BRIGHTEST = 20_000


def clear_pixels(scl: NDArray[Any], classes: list[int]) -> NDArray[np.bool_]:
    """Whether the scene classification of each pixel is one of the clear classes."""
    lookup = np.zeros(256, bool)
    lookup[classes] = True
    clear: NDArray[np.bool_] = lookup[scl]
    return clear


def too_bright(values: NDArray[np.int16]) -> NDArray[np.bool_]:
    """The pixels (y, x) that are above BRIGHTEST in some band (band, y, x)."""
    return np.asarray((values > BRIGHTEST).any(axis=0), bool)
