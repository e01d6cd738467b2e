"""The windows of time along which a season has arrays, and their coordinates (docs/store-format.md, Coordinates)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import date
from itertools import pairwise
from typing import Any

import numpy as np
from numpy.typing import NDArray

from h2crop_data.constants import MONTHS

#: The dimension of arrays by time, and what format 1 called it.
TIME_DIMENSION, TIME_DIMENSION_OF_FORMAT_1 = "time", "month"
#: Start and end of a window; the end is not part of it.
TimeWindow = tuple[date, date]


def months_of(year: int) -> list[TimeWindow]:
    """The calendar months of a year."""
    starts = [date(year + month // 12, month % 12 + 1, 1) for month in range(MONTHS + 1)]
    return list(pairwise(starts))


def season_windows(attributes: Mapping[str, Any], season: int) -> list[TimeWindow]:
    """The windows of a season that has arrays by time, in order. attributes: of the root.

    Stores of format 1 do not state them: they are the months of the calendar year.
    """
    stated = attributes["seasons"][str(season)].get("windows")
    if stated is None:
        return months_of(season)
    return [(date.fromisoformat(start), date.fromisoformat(end)) for start, end in stated]


def stated_windows(windows: Sequence[TimeWindow]) -> list[list[str]]:
    """Windows as the root states them."""
    return [[start.isoformat(), end.isoformat()] for start, end in windows]


def days_of(windows: Sequence[TimeWindow]) -> tuple[NDArray[np.int32], NDArray[np.int32]]:
    """The coordinates `time` (T) and `time_bnds` (T, 2), int32: days since the first day of the first window."""
    first = windows[0][0]
    bounds = np.array([[(day - first).days for day in window] for window in windows], np.int32)
    return bounds[:, 0].copy(), bounds


def months_of_windows(windows: Sequence[TimeWindow]) -> NDArray[np.int8]:
    """The coordinate `month` (T), int8: the month in which each window begins."""
    return np.array([start.month for start, _ in windows], np.int8)
