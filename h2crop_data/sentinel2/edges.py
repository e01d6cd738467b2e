"""Edges of a date that other dates show too: gradient magnitude, whatever stands brighter on either side.

Crops invert contrast within weeks (ripe against green), borders of fields stay. Gradients are compressed by a
logarithm, so that a white roof counts little more than a path, and kept as bytes: a tile of 144 dates fits in memory.
"""

from __future__ import annotations

from collections.abc import Sequence

import cv2
import numpy as np
from numpy.typing import NDArray

from h2crop_data.constants import REFLECTANCE_FILL
from h2crop_data.matching import finer
from h2crop_data.sentinel2.composite import sort_layers

#: Gradients of blue count so many times: they are that much smaller than those of the near infrared.
BLUE_WEIGHT = 8
#: Gradients (reflectance x 10000 a pixel) near which noise ends and edges begin, and what their doubling adds.
FAINT, OCTAVE = 16, 30
#: No edges are known: a band has no value here or in a pixel beside.
UNKNOWN_EDGE = 0
#: Standard deviation of the smoothing before edges are compared, and how far its kernel reaches, in pixels.
SMOOTHING, KERNEL_REACH = 0.8, 3
#: Rows of all dates that are sorted together.
STRIP_ROWS = 64


def edges_of(blue: NDArray[np.int16], infrared: NDArray[np.int16]) -> NDArray[np.uint8]:
    """The edges (y, x) of one date: 1 flat to 255 sharp, UNKNOWN_EDGE where a band has no value in 3 x 3 pixels.

    blue, infrared: reflectance x 10000 of B02 and B08 (y, x) in pixels of 10 m, REFLECTANCE_FILL where there is none.
    """
    strength = BLUE_WEIGHT * gradient(blue) + gradient(infrared)
    edges: NDArray[np.uint8] = np.clip(np.rint(OCTAVE * np.log2(1 + strength / FAINT)), 1, 255).astype(np.uint8)
    absent = ((blue == REFLECTANCE_FILL) | (infrared == REFLECTANCE_FILL)).view(np.uint8)
    edges[cv2.dilate(absent, np.ones((3, 3), np.uint8)) > 0] = UNKNOWN_EDGE
    return edges


def gradient(band: NDArray[np.int16]) -> NDArray[np.float32]:
    """The length of the gradient (y, x) by Sobel's operator, in units of the band a pixel."""
    along = cv2.Sobel(band, cv2.CV_32F, 1, 0, ksize=3, scale=1 / 8)
    down = cv2.Sobel(band, cv2.CV_32F, 0, 1, ksize=3, scale=1 / 8)
    return np.asarray(cv2.magnitude(along, down), np.float32)


def smoothed(
    edges: NDArray[np.uint8], moved: Sequence[float] = (0.0, 0.0), slope: Sequence[bool] = (False, False)
) -> NDArray[np.float32]:
    """Edges (y, x) smoothed by a Gaussian at places moved by pixels right and down: result(p) = edges(p + moved).

    slope: whether the derivative of the smoothed edges along x, along y is wanted. The kernel itself is moved by the
    fraction of a pixel, so that no interpolation smooths some shifts more than others.
    """
    right, down = (round(distance) for distance in moved)
    along_x, along_y = (
        kernel(distance - round(distance), sloping) for distance, sloping in zip(moved, slope, strict=True)
    )
    whole = moved_pixels(edges, right, down)
    result = cv2.sepFilter2D(whole, cv2.CV_32F, along_x, along_y, borderType=cv2.BORDER_REPLICATE)
    return np.asarray(result, np.float32)


def kernel(fraction: float, slope: bool) -> NDArray[np.float32]:
    """The weights of a Gaussian about a fraction of a pixel, or of the derivative of what it smooths."""
    places = np.arange(-KERNEL_REACH, KERNEL_REACH + 1) - fraction
    weights = np.exp(-0.5 * (places / SMOOTHING) ** 2)
    weights /= weights.sum()
    return np.asarray(weights * places / SMOOTHING**2 if slope else weights, np.float32)


def moved_pixels(layer: NDArray[np.uint8], right: int, down: int) -> NDArray[np.uint8]:
    """result(p) = layer(p + (right, down)) in whole pixels (y, x), 0 beyond the layer."""
    if not (right or down):
        return layer
    result = np.zeros_like(layer)
    rows, columns = (kept_and_source(length, step) for length, step in zip(layer.shape, (down, right), strict=True))
    result[rows[0], columns[0]] = layer[rows[1], columns[1]]
    return result


def kept_and_source(length: int, step: int) -> tuple[slice, slice]:
    """Places along an axis that stay on it when moved by a step, and where they come from."""
    size = max(0, length - abs(step))
    start = max(0, -step)
    return slice(start, start + size), slice(start + step, start + step + size)


def common_edges(
    edges: Sequence[NDArray[np.uint8]], clear: Sequence[NDArray[np.uint8]], moved: NDArray[np.float64]
) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
    """The median (y, x) of the edges of all dates that are clear, and how many these are (at most 255).

    edges, clear: a layer (y, x) a date; clear: 0 or 1, in pixels of twice the size. moved: pixels of edges right and
    down (n, 2) by which content of a date lies from where it shall be. The larger middle value of an even number; 0
    where no date is clear.
    """
    rows, columns = edges[0].shape
    median, count = np.zeros((2, rows, columns), np.uint8)
    reach = 2 * (1 + int(np.ceil(np.abs(moved).max(initial=0) / 2)))
    for start in range(0, rows, STRIP_ROWS):
        strip = slice(start, min(start + STRIP_ROWS, rows))
        around = slice(max(0, start - reach), min(strip.stop + reach, rows))
        of_clear = slice(around.start // 2, around.stop // 2)
        inner = slice(strip.start - around.start, strip.stop - around.start)
        layers = np.stack(
            [
                moved_back(one[around], finer(seen[of_clear]), by)[inner]
                for one, seen, by in zip(edges, clear, moved.tolist(), strict=True)
            ]
        )
        # What is not clear is 0 and sorts before everything that is.
        known = (layers > 0).sum(axis=0)
        middle = np.minimum(len(layers) - 1 - (known - 1) // 2, len(layers) - 1)
        median[strip] = np.take_along_axis(sort_layers(layers), middle[None], axis=0)[0]
        count[strip] = np.minimum(known, 255)
    return median, count


def moved_back(edges: NDArray[np.uint8], clear: NDArray[np.uint8], moved: Sequence[float]) -> NDArray[np.uint8]:
    """Edges (y, x) of one date, interpolated, where they shall be; 0 where it is not clear."""
    right, down = moved
    if right or down:
        matrix = np.array([[1, 0, -right], [0, 1, -down]], np.float32)
        edges = np.asarray(cv2.warpAffine(edges, matrix, edges.shape[::-1], flags=cv2.INTER_LINEAR), np.uint8)
    return np.maximum(edges, 1) * moved_pixels(clear, round(right), round(down))
