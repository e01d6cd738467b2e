"""Reflectance, flags, clear days: what their values must be, and how they must agree with each other."""

from __future__ import annotations

import calendar
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from h2crop_data.constants import ENMAP_FLAGS, MONTHS, REFLECTANCE_FILL, REFLECTANCE_SCALE
from h2crop_data.validation.findings import Severity

#: Stored reflectance outside these bounds is hardly that of ground; bands of EnMAP near 1940 nm are mostly noise.
PLAUSIBLE = {"s2": (-2000, 20000), "enmap": (-20000, 30000)}
KNOWN_FLAGS = sum(ENMAP_FLAGS.values())


@dataclass(frozen=True)
class Problem:
    """Something that cannot be true in a sample of a block (its place from 0)."""

    sample: int
    array: str
    check: str
    what: str
    severity: Severity = "error"


def told(
    array: str, check: str, wrong: NDArray[np.bool_], what: str, severity: Severity = "error"
) -> Iterator[Problem]:
    """A problem for every sample that has wrong pixels. wrong: (sample, ...)."""
    counts = wrong.reshape(len(wrong), -1).sum(axis=1)
    for sample in np.flatnonzero(counts).tolist():
        yield Problem(sample, array, check, f"{counts[sample]} value(s) {what}", severity)


def implausible(name: str, values: NDArray[np.int16]) -> Iterator[Problem]:
    """Reflectance that is hardly that of ground."""
    low, high = PLAUSIBLE[name]
    outside = ((values < low) & (values != REFLECTANCE_FILL)) | (values > high)
    what = f"outside reflectance {low * REFLECTANCE_SCALE:g} to {high * REFLECTANCE_SCALE:g}"
    yield from told(name, "range", outside, what, "warning")


def enmap_problems(arrays: dict[str, NDArray[Any]]) -> Iterator[Problem]:
    """EnMAP and its flags."""
    cube, quality = arrays.get("enmap"), arrays.get("enmap_quality")
    if cube is not None:
        yield from implausible("enmap", cube)
    if quality is not None:
        unknown = (quality & ~np.uint16(KNOWN_FLAGS)) != 0
        yield from told("enmap_quality", "range", unknown, "with flags that do not exist")
    if cube is not None and quality is not None:
        nothing = (cube == REFLECTANCE_FILL).all(axis=1)
        inside = (quality & ENMAP_FLAGS["outside"]) == 0
        yield from told("enmap_quality", "fill", nothing & inside, "without any value and without the flag `outside`")


def sentinel2_problems(arrays: dict[str, NDArray[Any]], season: int, *, imported: bool) -> Iterator[Problem]:
    """Composites, clear days and days of the year.

    imported: the published files know no clear days, and days perhaps not.
    """
    values, clear, day = arrays.get("s2"), arrays.get("s2_clear"), arrays.get("s2_day")
    filled = None
    if values is not None:
        yield from implausible("s2", values)
        fill = values == REFLECTANCE_FILL
        filled = fill.all(axis=2)
        yield from told("s2", "fill", fill.any(axis=2) & ~filled, "with fill in some bands only")
    if clear is not None:
        most = np.array([calendar.monthrange(season, month)[1] for month in range(1, MONTHS + 1)])
        more = clear > most[:, None, None]
        yield from told("s2_clear", "range", more, "with more clear days than the month has")
    if day is not None:
        first, last = days_of_months(season, whole_year=imported)
        outside = (day != 0) & ((day < first[:, None, None]) | (day > last[:, None, None]))
        yield from told("s2_day", "range", outside, "with a day that is not of the month")
    if filled is not None and clear is not None:
        what = "where `s2` is fill and `s2_clear` is not 0, or the other way round"
        yield from told("s2_clear", "fill", filled != (clear == 0), what)
    seen = clear > 0 if clear is not None else None if filled is None else ~filled
    if day is not None and seen is not None:
        wrong = (day > 0) & ~seen if imported else (day > 0) != seen
        what = "where `s2_day` is 0 and there is a clear day, or the other way round"
        yield from told("s2_day", "fill", wrong, what)


def days_of_months(season: int, *, whole_year: bool) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """First and last day of the year of each month, or of the year where only that is known."""
    lengths = np.array([calendar.monthrange(season, month)[1] for month in range(1, MONTHS + 1)])
    last = np.cumsum(lengths)
    if whole_year:
        return np.ones(MONTHS, np.int64), np.full(MONTHS, last[-1])
    return last - lengths + 1, last
