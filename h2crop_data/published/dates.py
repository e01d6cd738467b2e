"""What `S2_date` says, where it can be understood: its form is not documented."""

from __future__ import annotations

import re
from datetime import date
from typing import Any

import numpy as np
from numpy.typing import NDArray

from h2crop_data.constants import MONTHS

#: A date anywhere in a text that does not go on in digits before it, as in `S2A_MSIL2A_20220613T105631`.
DATE = re.compile(r"(?<!\d)(\d{4})-?(\d{2})-?(\d{2})")
#: Numbers from here on are dates such as 20220613, those below are days of the year.
FIRST_WRITTEN_DATE = 10_000_000


def composite_days(dates: NDArray[Any], season: int) -> NDArray[np.uint16] | None:
    """The day of the year of each month's composite, 0 where there is none; None where the dates are not understood.

    dates: (month) or (month, y, x), or such with axes of length 1: texts with a date in them, dates as numbers
    (20220613), or days of the year; nothing, 0 or NaN is none. They are understood when every one lies in its month of
    the season. Gives the shape of `dates` without axes of length 1.
    """
    squeezed = dates.squeeze()
    if squeezed.ndim not in (1, 3) or squeezed.shape[0] != MONTHS:
        return None
    if squeezed.dtype.kind in "SUO":
        days = texts_to_days(squeezed, season) if squeezed.ndim == 1 else None
    elif squeezed.dtype.kind in "iuf":
        days = numbers_to_days(squeezed, season)
    else:
        return None
    if days is None:
        return None
    first, last = month_limits(season)
    shape = (MONTHS, *[1] * (days.ndim - 1))
    fits = (days == 0) | ((days >= first.reshape(shape)) & (days <= last.reshape(shape)))
    return days.astype(np.uint16) if fits.all() else None


def texts_to_days(texts: NDArray[Any], season: int) -> NDArray[np.int64] | None:
    """Days of the year of texts with dates in them; None where one has none."""
    days = []
    for text in texts.tolist():
        plain = text.decode("utf-8", "replace") if isinstance(text, bytes) else str(text)
        if plain.strip().lower() in ("", "0", "none", "nan", "nat"):
            days.append(0)
            continue
        match = DATE.search(plain)
        day = day_of(match[1] + match[2] + match[3], season) if match else None
        if day is None:
            return None
        days.append(day)
    return np.array(days, np.int64)


def numbers_to_days(numbers: NDArray[Any], season: int) -> NDArray[np.int64] | None:
    """Days of the year of numbers that are dates or days; None where they are neither."""
    finite = np.nan_to_num(numbers.astype(np.float64), nan=0.0, posinf=-1.0, neginf=-1.0)
    distinct, places = np.unique(finite, return_inverse=True)
    days = np.zeros(len(distinct), np.int64)
    for i, number in enumerate(distinct.tolist()):
        day = day_of(str(int(number)), season) if number >= FIRST_WRITTEN_DATE else int(number)
        if day is None or day < 0 or number != int(number):
            return None
        days[i] = day
    return days[places].reshape(numbers.shape)


def day_of(digits: str, season: int) -> int | None:
    """The day of the year of `20220613`, or None where it is no date of the season."""
    try:
        day = date.fromisoformat(digits)
    except ValueError:
        return None
    return day.timetuple().tm_yday if day.year == season else None


def month_limits(season: int) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """The first and the last day of the year of each month."""
    first = np.array([date(season, month, 1).timetuple().tm_yday for month in range(1, MONTHS + 1)])
    end = date(season, 12, 31).timetuple().tm_yday
    return first, np.append(first[1:] - 1, end)
