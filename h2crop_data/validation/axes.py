"""The coordinates that a season must have, and what the axis by time was called in format 1."""

from __future__ import annotations

import calendar
from itertools import pairwise

from h2crop_data.constants import MONTHS
from h2crop_data.cube.schema import SAMPLE_COORDINATES, ArraySpec, CoordinateSpec, StoreLayout

#: The axis of what is kept window by window, and its name in format 1.
TIME_AXIS, FIRST_TIME_AXIS = "time", "month"
#: Fill of days.
NO_DAY = -2147483648


def expected_coordinates(layout: StoreLayout, season: int, *, first: bool) -> list[CoordinateSpec]:
    """The coordinates of a season. first: of a store of format 1."""
    of_sources = [spec for source in layout.sources for spec in source.coordinates]
    numbers = tuple(range(1, MONTHS + 1))
    if first:
        by_month = any(source.built_in and goes_by_time(spec) for source in layout.sources for spec in source.arrays)
        month = [CoordinateSpec("month", (FIRST_TIME_AXIS,), "int8", 0, None, values=numbers)] if by_month else []
        return [*SAMPLE_COORDINATES, *month, *of_sources]
    if not any(map(goes_by_time, layout.arrays().values())):
        return [*SAMPLE_COORDINATES, *of_sources]
    bounds = bounds_of_months(season)
    since = {"units": f"days since {season:04d}-01-01", "calendar": "proleptic_gregorian"}
    starts = {**since, "standard_name": "time", "bounds": "time_bnds"}
    by_time = (
        CoordinateSpec("time", (TIME_AXIS,), "int32", NO_DAY, None, starts, tuple(start for start, _ in bounds)),
        CoordinateSpec("time_bnds", (TIME_AXIS, "bnds"), "int32", NO_DAY, None, since, tuple(bounds), (2,)),
        CoordinateSpec("month", (TIME_AXIS,), "int8", 0, None, values=numbers),
    )
    return [*SAMPLE_COORDINATES, *by_time, *of_sources]


def goes_by_time(spec: ArraySpec) -> bool:
    """Whether an array has a number for each window of time."""
    return TIME_AXIS in spec.dims


def bounds_of_months(season: int) -> list[tuple[int, int]]:
    """First day of each month of a season, counted from 0, and the day after its last."""
    ends = [0]
    for month in range(1, MONTHS + 1):
        ends.append(ends[-1] + calendar.monthrange(season, month)[1])
    return list(pairwise(ends))


def expected_windows(layout: StoreLayout, season: int) -> list[list[str]] | None:
    """The windows that a root must state of a season; None where no array goes by time."""
    if not any(map(goes_by_time, layout.arrays().values())):
        return None
    starts = [f"{season:04d}-{month:02d}-01" for month in range(1, MONTHS + 1)]
    return [list(pair) for pair in zip(starts, [*starts[1:], f"{season + 1:04d}-01-01"], strict=True)]


def axes_of(spec: ArraySpec, *, first: bool) -> list[str]:
    """The names of the axes of an array in its document. first: of a store of format 1."""
    return [FIRST_TIME_AXIS if first and name == TIME_AXIS else name for name in spec.dims]
