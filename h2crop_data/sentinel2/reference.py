"""A reference image of the ground near a day, to match other sensors with: medians of clear dates in pixels of 15 m.

Pixels of 15 m lie on the grid of 10 m pixels and halve EnMAP's of 30 m, whose corners lie at multiples of 15 m.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import sqrt

import cv2
import numpy as np
from numpy.typing import NDArray

from h2crop_data.constants import REFLECTANCE_FILL

#: Green, red, red edge, near infrared; two of short wave infrared.
REFERENCE_BANDS = ("B03", "B04", "B05", "B08", "B11", "B12")
REFERENCE_PIXEL = 15
#: Metres that pixels of 10, 15 and 20 m are all made of.
COMMON_PIXEL = 5
#: Standard deviation along an axis, in metres, of where a date lies that nobody measured: products since 2021 lie
#: within 5 m of each other at 95 % (Sentinel-2 Annual Performance Report), which in two axes is 2.45 of these.
UNMEASURED_SD = 5 / 2.45
#: Dates are taken, the nearest first, until so many of them show the ground on average, and at most so many.
ENOUGH_DATES, MOST_DATES = 5.0, 9
#: A date that shows less of the ground clear is not read, nor one so many days away.
CLEAR_ENOUGH, FARTHEST_DAYS = 0.05, 183
#: Days farther off that a date counts whose shift is not known.
DOUBT_DAYS = 45
#: Dates that show the ground on average, for which `frame_sd` is stated; who matches with fewer takes more.
FEWEST_SHOWN = 3
#: The standard deviation of a median is so many times that of a mean, for many values of normal distribution.
MEDIAN_FACTOR = sqrt(np.pi / 2)


@dataclass(frozen=True)
class KnownDate:
    """What is known of a date before its bands are read."""

    #: Days from the day that is asked for.
    days: float
    #: Share of the ground that it shows clear.
    clear: float
    #: Standard deviation along an axis of where it lies, in metres, once its shift is made good; None where nobody
    #: measured one.
    sd: float | None


def dates_to_take(dates: Sequence[KnownDate]) -> list[int]:
    """The places of the dates that a reference is made of, the best first: near in time, clear, of known shift."""
    order = sorted(
        (abs(date.days) + (DOUBT_DAYS if date.sd is None else 0), place)
        for place, date in enumerate(dates)
        if date.clear >= CLEAR_ENOUGH and abs(date.days) <= FARTHEST_DAYS
    )
    taken: list[int] = []
    for _, place in order:
        if len(taken) == MOST_DATES or sum(dates[one].clear for one in taken) >= ENOUGH_DATES:
            break
        taken.append(place)
    return taken


def frame_sd(dates: Sequence[KnownDate], measured: int) -> float:
    """Standard deviation along an axis, in metres, of where the median of some dates lies. NaN for no date.

    dates: those it is made of, which show the ground FEWEST_SHOWN times on average, or more often. measured: the dates
    whose median is the datum of their shifts, which itself lies off by as much as the median of so many; 0 where shifts
    were not measured.
    """
    if not dates:
        return float("nan")
    shown = max(FEWEST_SHOWN, sum(date.clear for date in dates))
    of_a_date = sqrt(sum((UNMEASURED_SD if date.sd is None else date.sd) ** 2 for date in dates) / len(dates))
    of_datum = UNMEASURED_SD / sqrt(measured) if measured and any(date.sd is not None for date in dates) else 0.0
    return MEDIAN_FACTOR * float(np.hypot(of_a_date / sqrt(shown), of_datum))


def at_15_metres(layer: NDArray[np.int16], pixel: int) -> NDArray[np.int16]:
    """Area means of a layer (y, x) of 10 or 20 m in pixels of 15 m; a fill pixel makes those that touch it fill.

    The layer begins and ends at multiples of 60 m.
    """
    times = pixel // COMMON_PIXEL
    finer = np.repeat(np.repeat(layer, times, axis=0), times, axis=1)
    parts = REFERENCE_PIXEL // COMMON_PIXEL
    shape = (finer.shape[1] // parts, finer.shape[0] // parts)
    means = cv2.resize(finer.astype(np.float32), shape, interpolation=cv2.INTER_AREA)
    found: NDArray[np.int16] = np.rint(means).astype(np.int16)
    missing = finer == REFLECTANCE_FILL
    if missing.any():
        found[missing.reshape(shape[1], parts, shape[0], parts).any(axis=(1, 3))] = REFLECTANCE_FILL
    return found


def counts_at_15_metres(counts: NDArray[np.uint8], pixel: int) -> NDArray[np.uint8]:
    """The least of the counts (y, x) of 10 or 20 m that pixels of 15 m touch."""
    times = pixel // COMMON_PIXEL
    finer = np.repeat(np.repeat(counts, times, axis=0), times, axis=1)
    parts = REFERENCE_PIXEL // COMMON_PIXEL
    found: NDArray[np.uint8] = finer.reshape(len(finer) // parts, parts, -1, parts).min(axis=(1, 3))
    return found
