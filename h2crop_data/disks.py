"""Dilation of masks by disks, and removal of parts that are narrower than a disk."""

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
