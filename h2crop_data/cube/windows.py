"""The windows of time of a season: what the axis `time` of its arrays stands for (docs/store-format.md)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import date
from typing import Any

from h2crop_data.constants import MONTHS

#: The axis of arrays by time; in format 1 it was called `FIRST_TIME`.
TIME_AXIS, FIRST_TIME = "time", "month"
#: The coordinates along it: starts and bounds of windows, calendar months.
TIME_NAMES = ("time", "time_bnds", "month")
#: First day, and the day after the last.
TimeWindow = tuple[date, date]


def calendar_months(season: int) -> list[TimeWindow]:
    """The windows of a season that is a calendar year."""
    starts = [date(season, month, 1) for month in range(1, MONTHS + 1)]
    return list(zip(starts, [*starts[1:], date(season + 1, 1, 1)], strict=True))


def stated_windows(windows: Sequence[TimeWindow]) -> list[list[str]]:
    """Windows as a root states them."""
    return [[start.isoformat(), end.isoformat()] for start, end in windows]


def windows_of_season(root: Mapping[str, Any], season: int) -> list[TimeWindow]:
    """The windows of a season of a release, from its root document; none where no array goes by time.

    Roots of format 1 state none: theirs are the months of the year.
    """
    stated = root["attributes"]["seasons"][str(season)].get("windows")
    if stated is not None:
        return [(date.fromisoformat(start), date.fromisoformat(end)) for start, end in stated]
    members, prefix = root["consolidated_metadata"]["metadata"], f"{season}/"
    by_month = any(
        FIRST_TIME in document.get("dimension_names", ())
        for path, document in members.items()
        if path.startswith(prefix)
    )
    return calendar_months(season) if by_month else []


def days_since_start(windows: Sequence[TimeWindow]) -> list[tuple[int, int]]:
    """Start and end of each window, in days since the first one began."""
    first = windows[0][0]
    return [((start - first).days, (end - first).days) for start, end in windows]
