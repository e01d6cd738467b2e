"""Boundaries of fields as one of EnMAP's detectors and Sentinel-2 show them alike: strengths of gradients at 15 m.

Crops invert contrast within weeks, boundaries stay. EnMAP is resampled to 15 m before its gradients are computed: their
lengths have twice the frequencies of the image, which pixels of 30 m cannot hold.
"""

from __future__ import annotations

from collections.abc import Sequence
from math import floor

import cv2
import numpy as np
from numpy.typing import NDArray

from h2crop_data.constants import REFLECTANCE_FILL
from h2crop_data.shift import CUBIC_REACH, cubic_weights

#: Pixels of a reference along each side of an EnMAP pixel.
REFERENCE_FINER = 2
#: Share of gradients that are weaker than 1; stronger ones count as 1.
WHOLE_STRENGTH = 98
#: That share is taken of every so many-th pixel along each axis.
EVERY = 3
#: Reflectance x 10000 a pixel that gradients of that share must have: less is rounding, or nothing.
LEAST_GRADIENT = 4.0
#: Weights of a box of 30 m at pixels of 15 m: EnMAP's footprint.
FOOTPRINT = np.array([0.25, 0.5, 0.25], np.float32)
#: Standard deviation of the smoothing before boundaries are compared, and how far its kernel reaches, in pixels.
BOUNDARY_SMOOTHING, BOUNDARY_REACH = 1.0, 3


def brought_to_finer(band: NDArray[np.float32], moved: Sequence[float] = (0.0, 0.0)) -> NDArray[np.float32]:
    """A band (y, x) in pixels of half the size (2y, 2x) by cubic convolution, looked up `moved` pixels further.

    moved: right and down in pixels of the band: result(p) = band(p + moved). The last pixels are repeated beyond the
    band.
    """
    rows, columns = band.shape
    result = np.empty((REFERENCE_FINER * rows, REFERENCE_FINER * columns), np.float32)
    for row in range(REFERENCE_FINER):
        for column in range(REFERENCE_FINER):
            across, down = (
                cubic_kernel((2 * place - 1) / 4 + by) for place, by in zip((column, row), moved, strict=True)
            )
            result[row::REFERENCE_FINER, column::REFERENCE_FINER] = cv2.sepFilter2D(
                band, cv2.CV_32F, across, down, borderType=cv2.BORDER_REPLICATE
            )
    return result


def cubic_kernel(offset: float) -> NDArray[np.float32]:
    """Weights of pixels about a pixel for the place `offset` pixels beyond it; odd, as correlation wants them."""
    whole = floor(offset)
    reach = abs(whole) + CUBIC_REACH
    kernel = np.zeros(2 * reach + 1, np.float32)
    kernel[reach + whole - 1 : reach + whole + 3] = cubic_weights(offset - whole)
    return kernel


def at_footprint(band: NDArray[np.float32]) -> NDArray[np.float32]:
    """A band (y, x) of 15 m as means of 30 m about each pixel."""
    return np.asarray(cv2.sepFilter2D(band, cv2.CV_32F, FOOTPRINT, FOOTPRINT, borderType=cv2.BORDER_REPLICATE))


def without_gaps(band: NDArray[np.int16]) -> NDArray[np.float32]:
    """Reflectance x 10000 (y, x) float32 with the mean where there is none."""
    values = band.astype(np.float32)
    gaps = band == REFLECTANCE_FILL
    if gaps.all():
        return np.zeros_like(values)
    values[gaps] = values[~gaps].mean()
    return values


def strength(band: NDArray[np.float32], clear: NDArray[np.bool_]) -> NDArray[np.float32] | None:
    """Lengths of gradients (y, x), 0..1, by Sobel's operator; None where clear ground has none but rounding."""
    along = cv2.Sobel(band, cv2.CV_32F, 1, 0, ksize=3, scale=1 / 8)
    down = cv2.Sobel(band, cv2.CV_32F, 0, 1, ksize=3, scale=1 / 8)
    length = cv2.magnitude(along, down)
    some = length[::EVERY, ::EVERY][clear[::EVERY, ::EVERY]]
    whole = float(np.percentile(some, WHOLE_STRENGTH)) if len(some) else 0.0
    if whole < LEAST_GRADIENT:
        return None
    return np.asarray(np.minimum(length / whole, 1), np.float32)


def smoothed_boundaries(
    boundaries: NDArray[np.float32], slope: tuple[bool, bool] = (False, False)
) -> NDArray[np.float32]:
    """Boundaries (y, x) smoothed by a Gaussian; slope: instead their derivative along x, along y."""
    places = np.arange(-BOUNDARY_REACH, BOUNDARY_REACH + 1)
    weights = np.exp(-0.5 * (places / BOUNDARY_SMOOTHING) ** 2)
    weights /= weights.sum()
    sloping = weights * places / (weights @ places**2)
    across, down = ((sloping if one else weights).astype(np.float32) for one in slope)
    return np.asarray(cv2.sepFilter2D(boundaries, cv2.CV_32F, across, down, borderType=cv2.BORDER_REPLICATE))
