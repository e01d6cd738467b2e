"""Edges in images against borders of parcels: the shift at which parcels match the images best.

Both are drawn as lines, high-passed, and correlated over shifts of 2 m (normalised cross-correlation); the peak is
found between the shifts by a quadratic surface. Sums are kept by block of ground, so that parts of the ground, and
ground drawn by lot, are correlated without going over the pixels again.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from h2crop_data.constants import REFLECTANCE_FILL
from h2crop_data.parcels.drawing import CELLS_A_PIXEL, DRAWN_CELL, DRAWN_MARGIN, DrawnGround

#: Shifts that are tried, in cells of 2 m to each side: 30 m.
SEARCH_CELLS = 15
#: What is wider than this many pixels of 10 m is no edge.
HIGH_PASS = 15
#: Lines of parcels are blurred by this many metres (standard deviation), about what images show of a line.
LINE_BLUR = 8.0
#: Gradients above this percentile of a date count as much as it: a road or a roof is no better edge than a crop.
STRONGEST = 98
#: A date with values on less ground than this says nothing.
LEAST_SHARE = 0.02
#: Of the dates of the pixel with most of them, the share that a pixel must have.
LEAST_DATES = 0.3
#: Cells to each side of a peak to which the quadratic surface is fitted.
PEAK_HALF = 3
#: Pixels farther than this many cells of 2 m from every line of parcels are left out.
NEAR_LINES = 15


def vegetation_index(red: NDArray[np.int16], infrared: NDArray[np.int16]) -> NDArray[np.float32]:
    """NDVI (y, x) of reflectance x 10000; what both have no light of counts as 0."""
    sum_of_both = np.maximum(red.astype(np.float32) + infrared, 200)
    index: NDArray[np.float32] = np.clip((infrared.astype(np.float32) - red) / sum_of_both, -1, 1)
    return index


def mean_gradient(red: NDArray[np.int16], infrared: NDArray[np.int16]) -> tuple[NDArray[np.float32], NDArray[np.bool_]]:
    """How strong edges are in the mean of all dates, (y, x) 0..1, and where that is known.

    red, infrared: reflectance x 10000 (date, y, x), fill -32768. Gradients of red, infrared and NDVI of each date are
    cut at a percentile of the date, and count from 0 to 1.
    """
    total, count = (np.zeros(red.shape[1:], np.float32) for _ in range(2))
    ground = np.count_nonzero(((red != REFLECTANCE_FILL) & (infrared != REFLECTANCE_FILL)).any(axis=0))
    for of_red, of_infrared in zip(red, infrared, strict=True):
        known = (of_red != REFLECTANCE_FILL) & (of_infrared != REFLECTANCE_FILL)
        # Smoothing and gradient look two pixels far.
        inside = cv2.erode(known.astype(np.uint8), np.ones((5, 5), np.uint8), borderValue=0) > 0
        if np.count_nonzero(inside) < max(1.0, LEAST_SHARE * ground):
            continue
        for values in (
            of_red.astype(np.float32),
            of_infrared.astype(np.float32),
            vegetation_index(of_red, of_infrared),
        ):
            gradient = gradient_magnitude(values)
            most = float(np.percentile(gradient[inside], STRONGEST))
            if most > 0:
                total += np.minimum(gradient / most, 1) * inside
                count += inside
    seen = count >= max(1.0, LEAST_DATES * float(count.max()))
    return (total / np.maximum(count, 1)).astype(np.float32, copy=False), seen


def gradient_magnitude(values: NDArray[np.float32]) -> NDArray[np.float32]:
    """The gradient of a smoothed image (y, x), per pixel."""
    smooth = cv2.GaussianBlur(values, (3, 3), 0.6)
    east, south = (cv2.Sobel(smooth, cv2.CV_32F, x, y, ksize=3, scale=1 / 8) for x, y in ((1, 0), (0, 1)))
    return cv2.magnitude(east, south).astype(np.float32, copy=False)


def high_passed(values: NDArray[np.float32], known: NDArray[np.bool_]) -> NDArray[np.float32]:
    """Values (y, x) less the mean of what is known within 150 m, 0 where they are not known."""
    weight = known.astype(np.float32)
    window = (HIGH_PASS, HIGH_PASS)
    mean = cv2.blur(values * weight, window) / np.maximum(cv2.blur(weight, window), 1e-3)
    return np.where(known, values - mean, np.float32(0))


def parcel_lines(ids: NDArray[np.int32]) -> NDArray[np.float32]:
    """The borders of a map of parcel numbers (y, x) on cells of 2 m: half a cell on each side, blurred.

    Borders drawn as lines (`all_touched`) would lie up to 1.4 m off.
    """
    lines = np.zeros(ids.shape, np.float32)
    for after, before in ((np.s_[:, 1:], np.s_[:, :-1]), (np.s_[1:], np.s_[:-1])):
        border = np.float32(0.5) * (ids[after] != ids[before])
        lines[after] += border
        lines[before] += border
    return cv2.GaussianBlur(np.minimum(lines, 1), (0, 0), LINE_BLUR / DRAWN_CELL).astype(np.float32, copy=False)


@dataclass(frozen=True)
class EdgeSums:
    """Sums over n blocks of ground, from which the correlation at every shift follows."""

    #: Of lines, their squares, their products with gradients: (3, k, k, n), at k shifts north and k east.
    shifted: NDArray[np.float64]
    #: Of pixels, gradients and their squares, (3, n).
    fixed: NDArray[np.float64]

    @classmethod
    def joined(cls, parts: Sequence[EdgeSums]) -> EdgeSums:
        """The blocks of several grounds."""
        return cls(
            np.concatenate([part.shifted for part in parts], -1), np.concatenate([part.fixed for part in parts], -1)
        )

    def correlation(self, weights: NDArray[np.float64]) -> NDArray[np.float64]:
        """The correlation at every shift (north, east), (k, k): of blocks with weights (n,)."""
        lines, squares, products = self.shifted @ weights
        pixels, gradients, gradient_squares = self.fixed @ weights
        spread = (squares - lines**2 / pixels) * (gradient_squares - gradients**2 / pixels)
        together = products - lines * gradients / pixels
        # No spread, no correlation: of ground without lines, or images without edges.
        return np.where(spread > 1e-9, together / np.sqrt(np.maximum(spread, 1e-9)), 0)


def edge_sums(
    ground: DrawnGround, gradient: NDArray[np.float32], seen: NDArray[np.bool_], ids: NDArray[np.int32], block: int
) -> EdgeSums:
    """The sums of ground by block.

    gradient: high-passed (rows, columns), where it is `seen`. ids: the map of parcel numbers on cells of 2 m. block:
    pixels along blocks; ground beyond whole blocks is left out.
    """
    lines = parcel_lines(ids)
    width = 2 * NEAR_LINES + 1
    near = cv2.dilate((lines > 0.2 * lines.max()).astype(np.uint8), np.ones((width, width), np.uint8)) > 0
    counted = (seen & ground.at_pixels(near)).astype(np.float32)
    span = HIGH_PASS * CELLS_A_PIXEL
    lines -= cv2.blur(lines, (span, span))
    weighted = gradient * counted
    fixed = [by_block("ijkl->ik", block, layer) for layer in (counted, weighted)]
    fixed.append(by_block("ijkl,ijkl->ik", block, weighted, gradient))
    shifts = 2 * SEARCH_CELLS + 1
    shifted = np.zeros((3, shifts, shifts, fixed[0].size))
    for place, moved in moved_lines(ground, lines):
        inside = moved * counted
        shifted[(0, *place)] = by_block("ijkl->ik", block, inside)
        shifted[(1, *place)] = by_block("ijkl,ijkl->ik", block, inside, moved)
        shifted[(2, *place)] = by_block("ijkl,ijkl->ik", block, inside, gradient)
    return EdgeSums(shifted, np.stack(fixed).astype(np.float64))


def moved_lines(
    ground: DrawnGround, lines: NDArray[np.float32]
) -> Iterator[tuple[tuple[int, int], NDArray[np.float32]]]:
    """Lines (rows, columns) at every shift, and its place (north, east) in a table of shifts."""
    # The cells one pixel apart are brought together: all later reading is in rows.
    phases = [
        [np.ascontiguousarray(lines[i::CELLS_A_PIXEL, j::CELLS_A_PIXEL]) for j in range(CELLS_A_PIXEL)]
        for i in range(CELLS_A_PIXEL)
    ]
    centre = DRAWN_MARGIN + CELLS_A_PIXEL // 2
    for north in range(-SEARCH_CELLS, SEARCH_CELLS + 1):
        for east in range(-SEARCH_CELLS, SEARCH_CELLS + 1):
            (down, of_row), (right, of_column) = (
                divmod(centre + north, CELLS_A_PIXEL),
                divmod(centre - east, CELLS_A_PIXEL),
            )
            layer = phases[of_row][of_column]
            yield (
                (north + SEARCH_CELLS, east + SEARCH_CELLS),
                layer[down : down + ground.rows, right : right + ground.columns],
            )


def by_block(product: str, block: int, *layers: NDArray[np.float32]) -> NDArray[np.float32]:
    """Sums of a product of layers (rows, columns) over blocks (n,). product: as einsum calls it, by ijkl."""
    rows, columns = (length // block for length in layers[0].shape)
    cut = [layer[: rows * block, : columns * block].reshape(rows, block, columns, block) for layer in layers]
    sums: NDArray[np.float32] = np.einsum(product, *cut)
    return sums.ravel()


@dataclass(frozen=True)
class EdgePeak:
    """The shift at which parcels lie best on edges."""

    #: Metres by which parcels are to be moved: the images lie at parcels + shift.
    east: float
    north: float
    correlation: float
    #: Whether the best shift is the farthest that was tried: the true one may lie beyond.
    at_edge: bool


def edge_peak(correlation: NDArray[np.float64]) -> EdgePeak:
    """The peak of correlations at shifts (north, east) of 2 m, found between them by a quadratic surface."""
    row, column = (int(i) for i in np.unravel_index(int(np.argmax(correlation)), correlation.shape))
    best = float(correlation[row, column])
    half = min(
        PEAK_HALF, row, column, *(length - 1 - i for length, i in zip(correlation.shape, (row, column), strict=True))
    )
    north, east = float((row - SEARCH_CELLS) * DRAWN_CELL), float((column - SEARCH_CELLS) * DRAWN_CELL)
    if half < 1:
        return EdgePeak(east, north, best, at_edge=True)
    y, x = (layer.ravel() for layer in np.mgrid[-half : half + 1, -half : half + 1])
    around = correlation[row - half : row + half + 1, column - half : column + half + 1].ravel()
    _, of_x, of_y, xx, xy, yy = np.linalg.lstsq(np.stack([x**0, x, y, x * x, x * y, y * y], 1), around, rcond=None)[0]
    curvature = 4 * xx * yy - xy**2
    if curvature > 0 > xx:
        right, up = (xy * of_y - 2 * yy * of_x) / curvature, (xy * of_x - 2 * xx * of_y) / curvature
        if max(abs(right), abs(up)) <= half:
            east, north = east + DRAWN_CELL * float(right), north + DRAWN_CELL * float(up)
    return EdgePeak(east, north, best, at_edge=False)


def resampled_peaks(sums: EdgeSums, times: int, seed: int = 0) -> NDArray[np.float64]:
    """Shifts east and north (times, 2) in metres of as many blocks as there are, drawn by lot with replacement."""
    chance = np.random.default_rng(seed)
    used = np.flatnonzero(sums.fixed[0])
    weights = chance.multinomial(len(used), np.full(len(used), 1 / len(used)), times).astype(np.float64)
    part = EdgeSums(sums.shifted[..., used], sums.fixed[:, used])
    peaks = [edge_peak(part.correlation(one)) for one in weights]
    return np.array([(peak.east, peak.north) for peak in peaks])
