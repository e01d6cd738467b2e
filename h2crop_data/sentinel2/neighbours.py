"""What lies around a pixel, on the ground and in time: dilation, and its clear observations before and after."""

from __future__ import annotations

import math

import cv2
import numpy as np
from numpy.typing import NDArray


def disk(radius: float) -> NDArray[np.uint8]:
    """A disk (y, x) of 0 and 1 whose centre pixel's neighbours within `radius` pixels are 1."""
    reach = math.floor(radius)
    y, x = np.ogrid[-reach : reach + 1, -reach : reach + 1]
    inside: NDArray[np.bool_] = x * x + y * y <= radius * radius
    return inside.astype(np.uint8)


def without_narrow(mask: NDArray[np.bool_], radius: float) -> NDArray[np.bool_]:
    """A mask (y, x) without parts that no disk of `radius` pixels fits into; a new array."""
    result: NDArray[np.bool_] = cv2.morphologyEx(mask.view(np.uint8), cv2.MORPH_OPEN, disk(radius)).view(np.bool_)
    return result


def dilated(mask: NDArray[np.bool_], radius: float) -> NDArray[np.bool_]:
    """The pixels (y, x) whose centres lie within `radius` pixels of the centre of one of a mask; a new array."""
    if radius < 1:
        return mask.copy()
    result: NDArray[np.bool_] = cv2.dilate(mask.view(np.uint8), disk(radius)).view(np.bool_)
    return result


def nearest_clear(
    values: NDArray[np.float32], clear: NDArray[np.bool_]
) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """The values of the nearest clear date before and after each date, NaN where there is none.

    values: (n, layer, y, x) in order of time. clear: (n, y, x); whether the date itself is clear does not matter. Both
    results are like `values`.
    """
    before, after = np.empty_like(values), np.empty_like(values)
    for results, order in ((before, range(len(values))), (after, range(len(values) - 1, -1, -1))):
        latest = np.full(values.shape[1:], np.nan, np.float32)
        for i in order:
            results[i] = latest
            np.copyto(latest, values[i], where=clear[i])
    return before, after
