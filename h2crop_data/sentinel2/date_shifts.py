"""The shift of each Sentinel-2 date against most dates, measured over a processing tile.

Every date's edges are compared with the median of the edges of all dates, first as they lie, then put where the first
round found them. Compared with the nearest dates only, each date fits its neighbours as well, but over a season the
neighbourhoods drift apart (docs/decisions.md).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from h2crop_data.disks import disk
from h2crop_data.matching import finer
from h2crop_data.sentinel2.edge_matching import CommonEdges
from h2crop_data.sentinel2.edges import UNKNOWN_EDGE, common_edges
from h2crop_data.shift import what_becomes_of

#: Metres around ground that is not clear which are not compared either: their edges are those of clouds.
AROUND = 40
#: Share of clear ground without which a date is not measured, and dates without which none is.
LEAST_CLEAR, FEWEST_DATES = 0.05, 5
#: Dates that must be clear for common edges to be trusted.
FEWEST_COMMON = 3
#: Times that the common edges are drawn.
TIMES_DRAWN = 2
#: A measurement is rejected below this correlation, or where windows or cross-correlation disagree by more metres.
LEAST_CORRELATION, FARTHEST_WINDOWS, FARTHEST_CHECK = 0.2, 3.0, 5.0
#: Metres farther off than Sentinel-2's dates ever are: edges of other fields were matched.
FARTHEST_SHIFT = 30.0
#: Uncertainty: metres that remain however well windows agree, and what a single window's spread is taken to be.
FLOOR, PRIOR = 0.1, 0.5


@dataclass(frozen=True)
class DateShifts:
    """Where the content of each of n dates lies from the datum, the geometric median of trustworthy dates.

    Metres, (n,) float64, NaN where not measured. East and north: content that lies 3 m too far east has east = 3.
    """

    east: NDArray[np.float64]
    north: NDArray[np.float64]
    #: Standard deviation of windows along an axis; 0 where only one counts.
    spread: NDArray[np.float64]
    #: Of the date's edges with the common ones, -1..1.
    correlation: NDArray[np.float64]
    #: Share of the ground that is clear and far enough from what is not; 0 rather than NaN.
    clear: NDArray[np.float64]
    #: One standard deviation along an axis.
    uncertainty: NDArray[np.float64]
    #: Distance of what cross-correlation finds.
    check: NDArray[np.float64]
    #: `not_measured: why` or `rejected: why`; empty for trustworthy measurements.
    reason: tuple[str, ...]


def decisions(shifts: DateShifts, limit: float) -> list[str]:
    """What to do about each date, where shifts beyond a limit in metres are corrected."""
    lengths = np.hypot(shifts.east, shifts.north).tolist()
    return [what_becomes_of(reason, length, limit) for reason, length in zip(shifts.reason, lengths, strict=True)]


@dataclass(frozen=True)
class Measurement:
    """How a date lies against common edges; distances in metres, right (east) and down (south)."""

    moved: NDArray[np.float64]
    spread: float
    uncertainty: float
    correlation: float
    check: float

    @property
    def doubt(self) -> str:
        """Why it is not reliable; empty where it is."""
        if self.correlation < LEAST_CORRELATION:
            return f"rejected: correlation {self.correlation:.2f}"
        if self.spread > FARTHEST_WINDOWS:
            return f"rejected: the windows disagree by {self.spread:.1f} m"
        if self.check > FARTHEST_CHECK:
            return f"rejected: cross-correlation disagrees by {self.check:.1f} m"
        return ""


def measure_shifts(
    edges: Sequence[NDArray[np.uint8]], clear: Sequence[NDArray[np.bool_]], pixel: float = 10.0
) -> DateShifts:
    """The shifts of n dates over one piece of ground, whatever their order.

    edges: as `edges_of` gives them, a layer (y, x) a date, rows from north to south. clear: a layer a date on the same
    ground in pixels of twice the size. pixel: of edges, in metres.
    """
    used = [usable(one, seen, AROUND / (2 * pixel)) for one, seen in zip(edges, clear, strict=True)]
    share, (rows, columns) = shares_of_ground(edges, used), box_of(used)
    masks = [one[rows, columns] for one in used]
    layers = [one[2 * rows.start : 2 * rows.stop, 2 * columns.start : 2 * columns.stop] for one in edges]
    enough = np.flatnonzero(share >= LEAST_CLEAR).tolist()
    moved = np.zeros((len(layers), 2))
    found: dict[int, Measurement] = {}
    trusted = enough
    for _ in range(TIMES_DRAWN):
        if len(trusted) < FEWEST_DATES:
            break
        common = common_of(layers, masks, moved / pixel, trusted)
        measured = {i: measurement(common, layers[i], masks[i], pixel) for i in enough}
        found = {i: one for i, one in measured.items() if one is not None}
        trusted = [i for i, one in found.items() if not one.doubt]
        datum = geometric_median(np.array([found[i].moved for i in trusted])) if trusted else np.zeros(2)
        for i, one in found.items():
            moved[i] = one.moved - datum
    return shifts_of(found, moved, share, len(trusted))


def geometric_median(points: NDArray[np.float64]) -> NDArray[np.float64]:
    """The point whose distances from points (n, 2) have the least sum, to a centimetre: by Weiszfeld's steps (1937).

    Of dates of which 30 % lie up to 15 m off it is an eighth nearer to the ground than the median of each coordinate,
    and it does not depend on where north is.
    """
    middle: NDArray[np.float64] = np.median(points, axis=0)
    for _ in range(100):
        weights = 1 / np.maximum(np.hypot(*(points - middle).T), 0.01)
        middle = weights @ points / weights.sum()
    return middle


def usable(edges: NDArray[np.uint8], clear: NDArray[np.bool_], around: float) -> NDArray[np.uint8]:
    """1 where a date has edges and all is clear within `around` pixels of clear (y, x), else 0: in these pixels.

    Beyond the layer nothing is clear.
    """
    rows, columns = clear.shape
    known = (edges > UNKNOWN_EDGE).reshape(rows, 2, columns, 2).all(axis=(1, 3))
    seen = (known & clear).view(np.uint8)
    inner = cv2.erode(seen, disk(around), borderType=cv2.BORDER_CONSTANT, borderValue=0)
    return np.asarray(inner, np.uint8)


def shares_of_ground(edges: Sequence[NDArray[np.uint8]], used: Sequence[NDArray[np.uint8]]) -> NDArray[np.float64]:
    """The part (n,) that is used of the ground that any date shows."""
    ground = np.zeros(edges[0].shape, bool) if edges else np.zeros((0, 0), bool)
    for one in edges:
        ground |= one > UNKNOWN_EDGE
    imaged = max(1, int(np.count_nonzero(ground)))
    return np.array([4 * np.count_nonzero(one) / imaged for one in used], np.float64)


def box_of(used: Sequence[NDArray[np.uint8]]) -> tuple[slice, slice]:
    """Rows and columns around the ground that some date uses."""
    anywhere = np.any(used, axis=0) if used else np.zeros((0, 0), bool)
    spans = [np.flatnonzero(anywhere.any(axis=axis)) for axis in (1, 0)]
    rows, columns = (slice(int(span[0]), int(span[-1]) + 1) if len(span) else slice(0, 0) for span in spans)
    return rows, columns


def common_of(
    layers: Sequence[NDArray[np.uint8]],
    masks: Sequence[NDArray[np.uint8]],
    moved: NDArray[np.float64],
    dates: list[int],
) -> CommonEdges:
    """The edges that some dates have in common. moved: pixels right and down (n, 2) by which each lies off."""
    median, count = common_edges([layers[i] for i in dates], [masks[i] for i in dates], moved[dates])
    return CommonEdges(median, (count >= FEWEST_COMMON).view(np.uint8))


def measurement(
    common: CommonEdges, edges: NDArray[np.uint8], clear: NDArray[np.uint8], pixel: float
) -> Measurement | None:
    """How a date lies against common edges; None where too little ground is clear in both.

    clear: 0 or 1, in pixels of twice the size.
    """
    seen = finer(clear)
    start = common.correlated(edges, seen)
    match = None if start is None else common.matched(edges, seen, start)
    if start is None or match is None:
        return None
    counts = match.pixels > 0
    weights = match.pixels[counts] / match.pixels.sum()
    off = pixel * (match.by_window - match.moved)[counts]
    spread = float(np.sqrt(0.5 * weights @ (off**2).sum(axis=1)))
    windows = 1 / (weights**2).sum()
    return Measurement(
        moved=pixel * match.moved,
        spread=spread,
        uncertainty=float(np.sqrt(FLOOR**2 + (spread**2 + PRIOR**2 / windows) / windows)),
        correlation=match.correlation,
        check=pixel * float(np.hypot(*(match.moved - start))),
    )


def shifts_of(
    found: dict[int, Measurement], moved: NDArray[np.float64], share: NDArray[np.float64], trusted: int
) -> DateShifts:
    """Shifts from the measurements of some dates, moved in metres right and down, and how many are to be trusted."""
    columns = np.full((6, len(share)), np.nan)
    reasons = []
    for i, part in enumerate(share.tolist()):
        if part < LEAST_CLEAR:
            reasons.append(f"not_measured: {100 * part:.1f} % clear ground")
        elif trusted < FEWEST_DATES and (i not in found or not found[i].doubt):
            reasons.append(f"not_measured: {trusted} of at least {FEWEST_DATES} dates to compare")
        elif i not in found:
            reasons.append("not_measured: too little clear ground in common with other dates")
        else:
            one = found[i]
            right, down = moved[i].tolist()
            columns[:, i] = right, -down, one.spread, one.correlation, one.uncertainty, one.check
            length = float(np.hypot(right, down))
            reasons.append(one.doubt or (f"rejected: {length:.0f} m are too many" if length > FARTHEST_SHIFT else ""))
    east, north, spread, correlation, uncertainty, check = columns
    return DateShifts(east, north, spread, correlation, share, uncertainty, check, tuple(reasons))
