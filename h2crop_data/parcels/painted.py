"""Parcels painted with the image values inside them, compared with the images: a measurement of the frame without
edges.

Each parcel is painted with its mean, the gaps between parcels with the median of gaps, and the painting is blurred by
the sensor's point spread. The shift at which it differs least from the image follows by linear least squares (Lucas &
Kanade 1981), with large differences weighted down (Huber 1964).
"""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from h2crop_data.parcels.drawing import DRAWN_CELL, DrawnGround

#: Standard deviation of the point spread in metres: of Sentinel-2's 10 m bands, some.
POINT_SPREAD = 5.0
#: Cells of 2 m at which it is cut off.
SPREAD_REACH = 7
#: Pixels whose centre lies this many metres inside a parcel show nothing else,
INSIDE_PARCEL = 11.0
#: and a parcel is painted if it has at least so many of them.
FEWEST_INSIDE = 4
#: Ground without parcels that holds a circle of so many cells across is no gap: what it shows is not known.
WIDEST_GAP = 9
#: Pixels of which more than this share is gap tell what gaps show,
MOSTLY_GAP = 0.6
#: if there are so many.
FEWEST_GAPS = 50
#: Metres by which a start is moved at most, in each direction, before parcels are painted again.
FARTHEST_STEP = 8.0
#: Dates with fewer pixels to compare say nothing.
FEWEST_COMPARED = 200


@dataclass(frozen=True)
class ShiftEquations:
    """Normal equations of a shift (east, north) in metres; those of several grounds may be added."""

    matrix: NDArray[np.float64]
    right: NDArray[np.float64]

    def __add__(self, other: ShiftEquations) -> ShiftEquations:
        return ShiftEquations(self.matrix + other.matrix, self.right + other.right)

    def solution(self) -> tuple[float, float]:
        """East and north in metres; NaN where the images do not say."""
        if not np.linalg.det(self.matrix) > 1e-6 * np.trace(self.matrix) ** 2 > 0:
            return float("nan"), float("nan")
        east, north = np.linalg.solve(self.matrix, self.right)
        return float(east), float(north)


@dataclass(frozen=True)
class Canvas:
    """What paintings of one ground have in common, on cells of 2 m with the margin."""

    ground: DrawnGround
    ids: NDArray[np.int32]
    #: Metres to the nearest border, and the share of gap in what a pixel shows.
    to_border: NDArray[np.float32]
    gap: NDArray[np.float32]
    #: Ground without parcels that is too wide for a gap.
    wide: NDArray[np.bool_]


def canvas_of(ground: DrawnGround, ids: NDArray[np.int32]) -> Canvas:
    """Prepare for painting a map of parcel numbers."""
    border = cv2.morphologyEx(ids.astype(np.float32), cv2.MORPH_GRADIENT, np.ones((3, 3), np.uint8)) > 0
    to_border = DRAWN_CELL * cv2.distanceTransform((~border).astype(np.uint8), cv2.DIST_L2, 3).astype(np.float32)
    bare = (ids == 0).astype(np.uint8)
    circle = cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (WIDEST_GAP, WIDEST_GAP))
    wide = cv2.morphologyEx(bare, cv2.MORPH_OPEN, circle) > 0
    return Canvas(ground, ids, to_border, spread(bare.astype(np.float32)), wide)


def spread(drawn: NDArray[np.float32]) -> NDArray[np.float32]:
    """A drawing as the sensor shows it; NaN wherever it sees any."""
    width = 2 * SPREAD_REACH + 1
    return cv2.GaussianBlur(drawn, (width, width), POINT_SPREAD / DRAWN_CELL).astype(np.float32, copy=False)


def painted_shift(
    canvas: Canvas, images: NDArray[np.float32], start: tuple[float, float], passes: int = 2
) -> ShiftEquations:
    """The equations of the shift of images against parcels, in the end taken about where it lies.

    images: (date, rows, columns), NaN where there is no value. start: east and north in metres, near the shift.
    """
    equations = ShiftEquations(np.zeros((2, 2)), np.zeros(2))
    for _ in range(passes):
        east, north = (round(metres / DRAWN_CELL) for metres in start)
        equations = ShiftEquations(np.zeros((2, 2)), np.zeros(2))
        for image in images:
            equations += equations_of(canvas, image, east, north)
        found = equations.solution()
        # A start beyond the blur of a border is approached in steps.
        steps = np.clip(np.subtract(found, start), -FARTHEST_STEP, FARTHEST_STEP)
        start = (start[0] + float(steps[0]), start[1] + float(steps[1]))
        if np.isnan(found).any():
            break
    return equations


def equations_of(canvas: Canvas, image: NDArray[np.float32], east: int, north: int) -> ShiftEquations:
    """The equations of one date, about a shift in cells of 2 m."""
    at = canvas.ground.at_pixels
    seen = spread(painting(canvas, image, east, north))
    difference = image - at(seen, east, north)
    slopes = np.stack(
        [
            at(seen, east + 1, north) - at(seen, east - 1, north),
            at(seen, east, north + 1) - at(seen, east, north - 1),
        ]
    ) / (2 * DRAWN_CELL)
    compared = np.isfinite(difference) & np.isfinite(slopes).all(axis=0)
    if compared.sum() < FEWEST_COMPARED:
        return ShiftEquations(np.zeros((2, 2)), np.zeros(2))
    slope, rest = slopes[:, compared].astype(np.float64), difference[compared].astype(np.float64)
    usual = max(1.4826 * float(np.median(np.abs(rest - np.median(rest)))), 1e-6)
    weight = 1 / np.maximum(1, np.abs(rest) / (2 * usual)) / usual**2
    matrix = (slope * weight) @ slope.T
    about = DRAWN_CELL * np.array([east, north])
    return ShiftEquations(matrix, (slope * weight) @ rest + matrix @ about)


def painting(canvas: Canvas, image: NDArray[np.float32], east: int, north: int) -> NDArray[np.float32]:
    """Parcels, moved by cells of 2 m, painted with their means in an image: (y, x) on cells, NaN where not known."""
    at = canvas.ground.at_pixels
    ids, known = at(canvas.ids, east, north), np.isfinite(image)
    inside = known & (ids > 0) & (at(canvas.to_border, east, north) > INSIDE_PARCEL)
    most = int(canvas.ids.max()) + 1
    count = np.bincount(ids[inside], minlength=most)
    colours = np.bincount(ids[inside], image[inside], minlength=most) / np.maximum(count, 1)
    colours[count < FEWEST_INSIDE] = np.nan
    gaps = known & (ids == 0) & (at(canvas.gap, east, north) > MOSTLY_GAP) & ~at(canvas.wide, east, north)
    colours[0] = np.median(image[gaps]) if gaps.sum() >= FEWEST_GAPS else np.nan
    painted = colours.astype(np.float32)[canvas.ids]
    painted[canvas.wide] = np.nan
    return painted
