"""The shift between images and parcels, measured by processing tile and season; it is reported, never applied.

Labels beside their fields are as bad as clouds. Edges in the images are matched to the borders of parcels
(`parcels/edges.py`), in windows of 4 km and over all of a tile; painted parcels (`parcels/painted.py`) are a second
look that uses no edges. What the images do not say is `not_measured`, with the reason.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from h2crop_data.constants import FINE, REFLECTANCE_FILL
from h2crop_data.parcels.drawing import DrawnGround
from h2crop_data.parcels.edges import (
    EdgeSums,
    edge_peak,
    edge_sums,
    high_passed,
    mean_gradient,
    resampled_peaks,
    vegetation_index,
)
from h2crop_data.parcels.painted import ShiftEquations, canvas_of, painted_shift

#: Metres along the windows of a tile.
FRAME_WINDOW = 3_840
#: How often ground is drawn by lot, and what the scatter of its shifts is short of: errors reach over several blocks.
RESAMPLED, TOO_SURE = 60, 1.5
#: The scatter over windows counts with so many of them.
FEWEST_WINDOWS = 4
#: On fewer blocks of ground the lot says nothing.
FEWEST_BLOCKS = 9


@dataclass(frozen=True)
class FrameRules:
    """When a frame is measured."""

    #: With fewer parcels, a lower correlation, or more uncertainty (metres) it is not.
    parcels: int = 300
    correlation: float = 0.35
    sd: float = 2.0
    #: It is doubtful where painted parcels lie farther off than this many metres.
    agreement: float = 2.0
    #: Pixels along the blocks of ground that are drawn by lot.
    block: int = 48
    #: Dates that are painted, those that show most.
    painted: int = 6


@dataclass(frozen=True)
class CellImages:
    """The images of one cell: reflectance x 10000 (date, y, x) int16, fill -32768, pixels of 10 m."""

    #: Its upper left corner in metres of the UTM zone.
    west: float
    north: float
    red: NDArray[np.int16]
    infrared: NDArray[np.int16]


@dataclass(frozen=True)
class FrameShift:
    """Where images lie against parcels: at parcels + (east, north), in metres; NaN where that is not measured."""

    east: float
    north: float
    #: Standard deviation of the shift in metres, both directions together; NaN where nothing can be said.
    sd: float
    correlation: float
    #: Parcels on the ground that is seen.
    parcels: int
    #: The same shift by painted parcels; NaN where they do not say.
    check_east: float
    check_north: float
    #: Whether the two lie too far apart.
    doubtful: bool
    #: Why it is not measured; empty where it is.
    reason: str

    @property
    def measured(self) -> bool:
        """Whether there is a shift."""
        return not self.reason

    @property
    def length(self) -> float:
        """Metres between images and parcels."""
        return math.hypot(self.east, self.north)


@dataclass(frozen=True)
class FrameWindow:
    """The frame of a part of a tile."""

    #: West, south, east, north in metres of the UTM zone.
    bounds: tuple[float, float, float, float]
    shift: FrameShift


@dataclass(frozen=True)
class TileFrame:
    """The frame of the images of one tile and season."""

    whole: FrameShift
    #: Of windows in which anything is seen, from north to south and west to east.
    windows: tuple[FrameWindow, ...]


@dataclass(frozen=True)
class MatchedGround:
    """Ground on which edges were matched."""

    #: Its first row and column of the tile.
    corner: tuple[int, int]
    drawn: DrawnGround
    sums: EdgeSums
    #: Places of the parcels on seen ground.
    parcels: NDArray[np.int64]

    @property
    def pixels(self) -> tuple[slice, slice]:
        """Its rows and columns of the tile."""
        row, column = self.corner
        return slice(row, row + self.drawn.rows), slice(column, column + self.drawn.columns)

    @property
    def bounds(self) -> tuple[float, float, float, float]:
        """West, south, east, north in metres."""
        west, north = self.drawn.west, self.drawn.north
        return west, north - self.drawn.rows * FINE, west + self.drawn.columns * FINE, north


def frame_of_tile(
    bounds: tuple[float, float, float, float],
    cells: Iterable[CellImages],
    geometry: NDArray[np.object_],
    rules: FrameRules = FrameRules(),
) -> TileFrame:
    """Where the images of a tile lie against its parcels.

    bounds: west, south, east, north in metres of a UTM zone, whole pixels of the images. cells: those in the store,
    with the same dates (or months) in the same order; taken one at a time. geometry: the parcels on that ground and
    around it, valid polygons in metres of the zone. Raises ValueError for a cell beyond the bounds.
    """
    red, infrared = mosaicked(bounds, cells)
    gradient, seen = mean_gradient(red, infrared)
    gradient = high_passed(gradient, seen)
    grounds = list(matched_grounds(bounds, gradient, seen, geometry, rules.block))
    if not grounds:
        return TileFrame(not_measured("no ground is seen"), ())
    parts = [matched_shift([ground], rules) for ground in grounds]
    whole = matched_shift(grounds, rules, scatter_of(parts))
    images = telling_images(red, infrared, rules.painted)
    equations = []
    for i, ground in enumerate(grounds):
        start = next(((shift.east, shift.north) for shift in (parts[i], whole) if shift.measured), None)
        if start is None:
            continue
        canvas = canvas_of(ground.drawn, ground.drawn.draw(geometry)[0])
        equations.append(painted_shift(canvas, images[(slice(None), *ground.pixels)], start))
        parts[i] = checked(parts[i], equations[-1], rules)
    if equations:
        whole = checked(whole, sum(equations[1:], equations[0]), rules)
    windows = (FrameWindow(ground.bounds, shift) for ground, shift in zip(grounds, parts, strict=True))
    return TileFrame(whole, tuple(windows))


def mosaicked(
    bounds: tuple[float, float, float, float], cells: Iterable[CellImages]
) -> tuple[NDArray[np.int16], NDArray[np.int16]]:
    """Red and infrared of a tile (date, y, x), fill outside cells: borders of cells do not count as edges."""
    west, south, east, north = bounds
    rows, columns = round((north - south) / FINE), round((east - west) / FINE)
    red, infrared = (np.full((0, rows, columns), REFLECTANCE_FILL, np.int16) for _ in range(2))
    for cell in cells:
        dates, height, width = cell.red.shape
        if not len(red):
            red, infrared = (np.full((dates, rows, columns), REFLECTANCE_FILL, np.int16) for _ in range(2))
        row, column = round((north - cell.north) / FINE), round((cell.west - west) / FINE)
        if min(row, column) < 0 or row + height > rows or column + width > columns:
            raise ValueError(f"the cell at {cell.west:.0f}, {cell.north:.0f} is not within {bounds}")
        red[:, row : row + height, column : column + width] = cell.red
        infrared[:, row : row + height, column : column + width] = cell.infrared
    return red, infrared


def matched_grounds(
    bounds: tuple[float, float, float, float],
    gradient: NDArray[np.float32],
    seen: NDArray[np.bool_],
    geometry: NDArray[np.object_],
    block: int,
) -> Iterator[MatchedGround]:
    """Match the windows of a tile in which anything is seen."""
    west, _, _, north = bounds
    side = FRAME_WINDOW // FINE
    for row in range(0, seen.shape[0], side):
        for column in range(0, seen.shape[1], side):
            pixels = np.s_[row : row + side, column : column + side]
            if not seen[pixels].any():
                continue
            drawn = DrawnGround(west + column * FINE, north - row * FINE, *seen[pixels].shape)
            ids, whose = drawn.draw(geometry)
            sums = edge_sums(drawn, gradient[pixels], seen[pixels], ids, block)
            numbers = np.unique(drawn.at_pixels(ids)[seen[pixels]])
            yield MatchedGround((row, column), drawn, sums, whose[numbers[numbers > 0] - 1])


def matched_shift(grounds: list[MatchedGround], rules: FrameRules, scatter: float = 0.0) -> FrameShift:
    """The shift by edges of one or several grounds. scatter: standard deviation that it has at least."""
    sums = EdgeSums.joined([ground.sums for ground in grounds])
    parcels = len(np.unique(np.concatenate([ground.parcels for ground in grounds])))
    too_few = f"fewer than {rules.parcels} parcels"
    if not sums.fixed[0].any():
        return not_measured(too_few, parcels)
    peak = edge_peak(sums.correlation(np.ones(sums.fixed.shape[1])))
    sd = float("nan")
    if np.count_nonzero(sums.fixed[0]) >= FEWEST_BLOCKS:
        shifts = resampled_peaks(sums, RESAMPLED)
        sd = max(TOO_SURE * float(np.sqrt(shifts.var(axis=0, ddof=1).sum())), scatter)
    reason = ""
    if parcels < rules.parcels:
        reason = too_few
    elif peak.correlation < rules.correlation:
        reason = f"correlation below {rules.correlation}"
    elif peak.at_edge:
        reason = "the best shift is the farthest that was tried"
    elif not sd <= rules.sd:
        reason = f"uncertain by more than {rules.sd} m"
    if reason:
        return not_measured(reason, parcels, peak.correlation, sd)
    nan = float("nan")
    return FrameShift(peak.east, peak.north, sd, peak.correlation, parcels, nan, nan, doubtful=False, reason="")


def not_measured(
    reason: str, parcels: int = 0, correlation: float = float("nan"), sd: float = float("nan")
) -> FrameShift:
    """A frame that is not measured, and why."""
    nan = float("nan")
    return FrameShift(nan, nan, sd, correlation, parcels, nan, nan, doubtful=False, reason=f"not_measured: {reason}")


def scatter_of(parts: list[FrameShift]) -> float:
    """The standard deviation in metres of the mean of windows by their scatter; 0 of a few."""
    shifts = np.array([(part.east, part.north) for part in parts if part.measured])
    if len(shifts) < FEWEST_WINDOWS:
        return 0.0
    return float(np.sqrt(shifts.var(axis=0, ddof=1).sum() / len(shifts)))


def telling_images(red: NDArray[np.int16], infrared: NDArray[np.int16], most: int) -> NDArray[np.float32]:
    """NDVI of the dates with the most ground and the widest range on it, (date, y, x), NaN where there is no value."""
    known = (red != REFLECTANCE_FILL) & (infrared != REFLECTANCE_FILL)
    told = [
        float(vegetation_index(red[i], infrared[i])[known[i]].std() * known[i].sum()) if known[i].any() else 0.0
        for i in range(len(red))
    ]
    best = np.argsort(told, kind="stable")[::-1][:most]
    return np.stack([np.where(known[i], vegetation_index(red[i], infrared[i]), np.float32("nan")) for i in best])


def checked(shift: FrameShift, equations: ShiftEquations, rules: FrameRules) -> FrameShift:
    """A shift with what painted parcels say of it, where it is measured."""
    if not shift.measured:
        return shift
    east, north = equations.solution()
    apart = math.hypot(east - shift.east, north - shift.north)
    return replace(shift, check_east=east, check_north=north, doubtful=apart > rules.agreement)


def warning_of(shift: FrameShift) -> str | None:
    """What to say where images surely lie more than half a pixel off the parcels; None where they do not."""
    if not shift.measured or shift.length - 2 * shift.sd <= FINE / 2:
        return None
    return (
        f"images are shifted {shift.length:.1f} m against the parcels ({eastwards(shift.east)}, "
        f"{northwards(shift.north)}; standard deviation {shift.sd:.1f} m): labels do not lie on their fields"
    )


def eastwards(metres: float) -> str:
    """A distance in words."""
    return f"{abs(metres):.1f} m {'east' if metres >= 0 else 'west'}"


def northwards(metres: float) -> str:
    """A distance in words."""
    return f"{abs(metres):.1f} m {'north' if metres >= 0 else 'south'}"
