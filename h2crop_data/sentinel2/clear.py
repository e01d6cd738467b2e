"""Which Sentinel-2 pixels are clear: by the scene classification, and by numbers that no ground has."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from h2crop_data.constants import REFLECTANCE_FILL

#: Highest reflectance x 10000 of clear ground: fresh snow stays below it, glint and broken files do not.
BRIGHTEST = 20_000


def clear_pixels(scl: NDArray[Any], classes: list[int]) -> NDArray[np.bool_]:
    """Whether the scene classification of each pixel is one of the clear classes."""
    lookup = np.zeros(256, bool)
    lookup[classes] = True
    clear: NDArray[np.bool_] = lookup[scl]
    return clear


def has_value(values: NDArray[np.int16]) -> NDArray[np.bool_]:
    """Whether pixels (y, x) have a value that ground can have in every band (band, y, x)."""
    if not len(values):
        return np.ones(values.shape[1:], bool)
    found: NDArray[np.bool_] = (values.min(axis=0) != REFLECTANCE_FILL) & (values.max(axis=0) <= BRIGHTEST)
    return found


def too_bright(values: NDArray[np.int16]) -> NDArray[np.bool_]:
    """The pixels (y, x) that are above BRIGHTEST in some band (band, y, x)."""
    if not len(values):
        return np.zeros(values.shape[1:], bool)
    found: NDArray[np.bool_] = values.max(axis=0) > BRIGHTEST
    return found
