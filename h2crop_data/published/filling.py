"""Values for pixels without a measurement: the published code supports neither fill nor masks."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from h2crop_data.constants import BACKGROUND, MONTHS, REFLECTANCE_FILL, UNKNOWN

#: The published experiments read the first so many months of a file.
WINDOWS = (6, 8, 10, MONTHS)


def fill_months(s2: NDArray[np.int16]) -> NDArray[np.int16]:
    """Months without a clear pixel, from the clear months of the same pixel and band in the window they lie in.

    s2: (month, band, y, x) of the first 1..12 months. The window of a month is the shortest of `WINDOWS` that holds it,
    or all months if that is shorter, so that the first months of a window never depend on later ones. Between two clear
    months of the window linear in the number of the month, rounded to the nearest (halves to the even number); before
    the first and after the last the nearest clear month. A pixel that was not clear in the window stays fill.
    """
    filled = s2.copy()
    # Band by band: the interpolation needs several times its input in memory.
    for band in range(s2.shape[1]):
        measured, whole = (values[:, band].reshape(len(s2), -1) for values in (s2, filled))
        for first, end in pairwise((0, *(window for window in WINDOWS if window < len(s2)), len(s2))):
            window = measured[:end]
            gaps = window == REFLECTANCE_FILL
            columns = np.flatnonzero(gaps[first:].any(axis=0) & ~gaps.all(axis=0))
            if columns.size:
                whole[first:end, columns] = interpolated(window[:, columns])[first:]
        filled[:, band] = whole.reshape(filled[:, band].shape)
    return filled


def interpolated(values: NDArray[np.int16]) -> NDArray[np.int16]:
    """(month, pixel) without its gaps; every pixel has a value in some month."""
    place = np.arange(len(values))[:, None]
    known = values != REFLECTANCE_FILL
    before = np.maximum.accumulate(np.where(known, place, -1), axis=0)
    after = np.minimum.accumulate(np.where(known, place, len(values))[::-1], axis=0)[::-1]
    before, after = np.where(before < 0, after, before), np.where(after == len(values), before, after)
    low, high = (np.take_along_axis(values, at, axis=0).astype(np.int64) for at in (before, after))
    span = np.maximum(after - before, 1)
    # One division of whole numbers, so that a half is exactly a half.
    weighted = low * (span - (place - before)) + high * (place - before)
    filled: NDArray[np.int16] = np.rint(weighted / span).astype(np.int16)
    return filled


def fill_bands(enmap: NDArray[np.int16]) -> NDArray[np.int16]:
    """Bands without a value, from the nearest band of the same pixel that has one.

    enmap: (band, y30, x30). Nearest in the order of the bands, the shorter wavelength of two as near. A pixel without
    a value in any band stays fill.
    """
    known = enmap != REFLECTANCE_FILL
    if known.all():
        return enmap.copy()
    bands = len(enmap)
    place = np.arange(bands)[:, None, None]
    before = np.maximum.accumulate(np.where(known, place, -bands), axis=0)
    after = np.minimum.accumulate(np.where(known, place, 2 * bands)[::-1], axis=0)[::-1]
    nearest = np.where(place - before <= after - place, before, after)
    filled: NDArray[np.int16] = np.take_along_axis(enmap, np.clip(nearest, 0, bands - 1), axis=0)
    return filled


def fill_classes(labels: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Unknown classes as not declared."""
    return np.where(labels == UNKNOWN, np.uint8(BACKGROUND), labels)
