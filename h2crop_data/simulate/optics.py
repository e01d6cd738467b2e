"""How an instrument blurs and samples the ground.

The ground is known on a fine grid. An instrument's pixel is a weighted mean of the ground around it; the weights are a
Gaussian whose modulation transfer at the Nyquist frequency is `NYQUIST_TRANSFER`, the order of what is specified for
Sentinel-2 (0.15 to 0.30; Sentinel-2 MSI documentation, ESA) and EnMAP (> 0.16; EnMAP instrument specification, DLR). A
Gaussian is separable: sampling is one small matrix for rows and one for columns, whatever pixel size, grid and shift.

Sums are done in float64: how linear algebra adds up differs from processor to processor, and in float32 that would show
in the last digit of one pixel in a thousand.
"""

from __future__ import annotations

import math
from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

#: Pixel size of the grid the ground is known on, in metres.
FINE_GROUND = 5
NYQUIST_TRANSFER = 0.3
#: Standard deviation of the point spread in pixels: exp(-2 pi^2 s^2 f^2) at f = 1/2.
SPREAD = math.sqrt(-2 * math.log(NYQUIST_TRANSFER)) / math.pi
#: Pixels sampled at a time.
RUN = 48
#: The point spread is cut at this many standard deviations.
POINT_SPREAD_REACH = 3.0


def margin(pixel: float, displacement: float = 0.0) -> int:
    """Metres of ground needed around a window of pixels of this size, a multiple of the fine grid."""
    return math.ceil((POINT_SPREAD_REACH * SPREAD * pixel + abs(displacement)) / FINE_GROUND + 1) * FINE_GROUND


def sampling(pixels: NDArray[np.float64], size: float, ground: NDArray[np.float64]) -> NDArray[np.float64]:
    """Weights (pixels, ground) of the ground samples in each pixel, along one axis; rows add up to 1.

    pixels: centres of pixels of `size` metres, in metres. ground: centres of the fine samples.
    """
    sd = SPREAD * size
    distance = (pixels[:, None] - ground[None, :]) / sd
    weights = np.where(np.abs(distance) <= POINT_SPREAD_REACH, np.exp(-0.5 * distance**2), 0.0)
    return np.asarray(weights / weights.sum(axis=1, keepdims=True), np.float64)


def sample(ground: NDArray[np.float32], rows: NDArray[np.float64], columns: NDArray[np.float64]) -> NDArray[np.float32]:
    """The pixels (layer, y, x) of a ground (layer, fine y, fine x) by the weights of rows and columns."""
    layers = ground.astype(np.float64)
    lines = np.empty((len(layers), len(rows), layers.shape[2]))
    for pixels, near in bands_of_weights(rows):
        lines[:, pixels] = rows[pixels, near] @ layers[:, near]
    sampled = np.empty((len(layers), len(rows), len(columns)))
    for pixels, near in bands_of_weights(columns):
        sampled[:, :, pixels] = lines[:, :, near] @ columns[pixels, near].T
    return sampled.astype(np.float32)


def bands_of_weights(weights: NDArray[np.float64]) -> Iterator[tuple[slice, slice]]:
    """Runs of pixels, and the ground samples that any of them sees: the rest of the weights is 0."""
    for start in range(0, len(weights), RUN):
        seen = np.flatnonzero(weights[start : start + RUN].any(axis=0))
        yield slice(start, start + RUN), slice(int(seen[0]), int(seen[-1]) + 1)
