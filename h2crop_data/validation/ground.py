"""Whether pixels lie where the index says: numbers in `parcel` against the outlines of the parcels.

Worked out from the index alone: the corner and zone of a sample, the outlines in longitude and latitude, and the rule
of the format that a pixel belongs to the smallest parcel that its centre lies in.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
import shapely
from numpy.typing import NDArray

from h2crop_data.validation.places import DEGREES, moved_outlines

#: Side of a pixel of `parcel` in metres.
PARCEL_PIXEL = 10.0
#: A pixel whose centre is nearer to an outline than this many metres may be on either side of it.
ON_OUTLINE = 0.05
#: Parcels whose areas differ by less than this share are of one size: a pixel in both may have either number.
SAME_SIZE = 1e-6
#: A sample fails from this many wrong pixels on, if they are more than this share of its pixels.
WRONG_PIXELS, WRONG_SHARE = 4, 0.001
#: A sample of a season that grew fails where more than this share of the ground in outlines has no parcel. Declarations
#: that changed between two plans bring parcels that the blocks of the earlier one do not show.
LOST_SHARE = 0.25


@dataclass(frozen=True)
class Place:
    """Where a sample lies: the upper left corner of its pixels in metres of its UTM zone."""

    epsg: int
    x0: float
    y0: float


@dataclass(frozen=True)
class GroundCount:
    """How the pixels of a sample fit the outlines of the parcels.

    pixels: all of the sample. declared: those that the sample or an outline gives to a parcel. wrong: those that have
    the number of a parcel they do not lie in, that have a larger parcel's number where a smaller one of the sample
    covers them, or that have none where a parcel of the sample does. lost: those without a number in the outline of a
    parcel that the sample does not show at all.
    """

    pixels: int
    declared: int
    wrong: int
    lost: int


@dataclass(frozen=True)
class Outlines:
    """The parcels of a season by outline. Several threads may use one at a time."""

    #: Numbers in order; outline of each in longitude and latitude.
    numbers: NDArray[np.int64]
    shapes: NDArray[np.object_]
    tree: shapely.STRtree

    @classmethod
    def of(cls, table: pd.DataFrame) -> Outlines:
        """From `parcels-<season>`: `number` (each once) and `geometry` (longitude, latitude)."""
        table = table.sort_values("number")
        shapes = np.asarray(table["geometry"].to_numpy(), object)
        return cls(table["number"].to_numpy(np.int64), shapes, shapely.STRtree(shapes))

    def near(self, place: Place, size: float) -> tuple[NDArray[np.int64], NDArray[np.object_]]:
        """Numbers and outlines, in metres of its zone, of the parcels around a square of `size` metres."""
        square = np.array([shapely.box(place.x0, place.y0 - size, place.x0 + size, place.y0)])
        around = shapely.box(*shapely.total_bounds(moved_outlines(square, place.epsg, DEGREES)))
        found = np.sort(self.tree.query(around))
        return self.numbers[found], moved_outlines(self.shapes[found], DEGREES, place.epsg)

    def unknown(self, numbers: NDArray[np.integer[Any]]) -> NDArray[np.int64]:
        """Which of some numbers no parcel has."""
        places = np.searchsorted(self.numbers, numbers)
        found = np.append(self.numbers, -1)[places] == numbers
        missing: NDArray[np.int64] = numbers[~found].astype(np.int64)
        return missing


def count_ground(numbers: NDArray[np.uint32], place: Place, outlines: Outlines) -> GroundCount:
    """Compare the parcel numbers of a sample (y, x) with the outlines; numbers that no outline has are left out."""
    side = len(numbers)
    names, shapes = outlines.near(place, side * PARCEL_PIXEL)
    areas = shapely.area(shapes)
    shown = np.isin(names, numbers)
    held = np.full(numbers.shape, np.inf)  # area of the parcel whose number a pixel has, where it lies in that
    smallest = np.full(numbers.shape, np.inf)  # area of the smallest parcel of the sample that covers it
    unshown = np.zeros(numbers.shape, bool)  # whether a parcel covers it that the sample does not show
    for number, shape, area, is_shown in zip(names.tolist(), shapes, areas.tolist(), shown.tolist(), strict=True):
        window, inside = pixels_in(shape, place, side)
        if not is_shown:
            unshown[window] |= inside
            continue
        smallest[window][inside] = np.minimum(smallest[window][inside], area)
        held[window][inside & (numbers[window] == number)] = area
    numbered = numbers > 0
    known = numbered & ~np.isin(numbers, outlines.unknown(np.unique(numbers)))
    misplaced = np.isinf(held) | (held > smallest * (1 + SAME_SIZE))
    wrong = (known & misplaced) | (~numbered & np.isfinite(smallest))
    lost = ~numbered & unshown & ~wrong
    declared = numbered | np.isfinite(smallest) | unshown
    if wrong.any() or lost.any():
        sure = ~on_border(wrong | lost, shapes, place)
        wrong, lost = wrong & sure, lost & sure
    return GroundCount(numbers.size, int(declared.sum()), int(wrong.sum()), int(lost.sum()))


def pixels_in(shape: shapely.Geometry, place: Place, side: int) -> tuple[tuple[slice, slice], NDArray[np.bool_]]:
    """Rows and columns of a sample around a shape in metres of its zone, and which pixels have their centre in it."""
    west, south, east, north = shapely.bounds(shape).tolist()
    first = np.clip(np.floor([(place.y0 - north) / PARCEL_PIXEL, (west - place.x0) / PARCEL_PIXEL]), 0, side).astype(
        int
    )
    last = np.clip(np.ceil([(place.y0 - south) / PARCEL_PIXEL, (east - place.x0) / PARCEL_PIXEL]), 0, side).astype(int)
    rows, columns = slice(first[0], last[0]), slice(first[1], last[1])
    y = place.y0 - (np.arange(first[0], last[0]) + 0.5) * PARCEL_PIXEL
    x = place.x0 + (np.arange(first[1], last[1]) + 0.5) * PARCEL_PIXEL
    shapely.prepare(shape)
    return (rows, columns), np.asarray(shapely.contains_xy(shape, *np.meshgrid(x, y)))


def on_border(pixels: NDArray[np.bool_], shapes: NDArray[np.object_], place: Place) -> NDArray[np.bool_]:
    """Which of some pixels (y, x) have their centre on an outline, as nearly as versions of libraries agree."""
    rows, columns = np.nonzero(pixels)
    centres = shapely.points(place.x0 + (columns + 0.5) * PARCEL_PIXEL, place.y0 - (rows + 0.5) * PARCEL_PIXEL)
    near = shapely.STRtree(shapely.boundary(shapes)).query(centres, predicate="dwithin", distance=ON_OUTLINE)[0]
    found = np.zeros(pixels.shape, bool)
    found[rows[near], columns[near]] = True
    return found


def ground_problem(count: GroundCount, *, grown: bool) -> str | None:
    """What is wrong with a sample whose pixels do not fit the outlines, in words; None where they do.

    grown: whether the season was planned in several parts, so that parcels may have been declared after its block.
    """
    wrong = count.wrong if grown else count.wrong + count.lost
    problems = []
    if wrong >= WRONG_PIXELS and wrong > WRONG_SHARE * count.pixels:
        problems.append(
            f"{wrong} of {count.pixels} pixels do not have the number of the parcel whose outline they lie in"
        )
    if grown and count.lost >= WRONG_PIXELS and count.lost > LOST_SHARE * count.declared:
        problems.append(f"{count.lost} of {count.declared} pixels in outlines of parcels have no parcel")
    return " and ".join(problems) or None


def ground_problems(
    numbers: NDArray[np.uint32], places: list[Place | None], outlines: Outlines, *, grown: bool
) -> Iterator[tuple[int, str]]:
    """Samples of a block whose pixels do not fit the outlines: its place in the block, and what is wrong, in words.

    numbers: (sample, y, x). places: None for a sample of which another check says that its place is wrong. grown: as in
    `ground_problem`.
    """
    for sample, (of_sample, place) in enumerate(zip(numbers, places, strict=True)):
        problem = None if place is None else ground_problem(count_ground(of_sample, place, outlines), grown=grown)
        if problem is not None:
            yield sample, problem
