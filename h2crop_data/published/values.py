"""From published numbers to stored ones and back, exactly.

The published files know no fill: a pixel without a measurement is 0 (or -32768, EnMAP's own). What the way back would
not give is kept beside the array, so that import and export together change nothing, whatever a file holds.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from h2crop_data.constants import REFLECTANCE_FILL
from h2crop_data.published.layout import NO_DATA

_LOWEST, _HIGHEST = np.iinfo(np.int16).min, np.iinfo(np.int16).max


@dataclass(frozen=True)
class Stored:
    """Published numbers as the store holds them, and what else it takes to give them back."""

    values: NDArray[np.int16]
    #: What fill becomes on the way back.
    no_data: int
    #: Places in C order (uint32) and published numbers (int16) that the way back would not give.
    places: NDArray[np.uint32]
    numbers: NDArray[np.int16]


def measured_sentinel2(published: NDArray[np.int16]) -> NDArray[np.bool_]:
    """Which pixels have a value, (month, y, x), of (month, band, y, x): not 0 in all bands, nor -32768 in any."""
    present: NDArray[np.bool_] = published.any(axis=1) & (published != REFLECTANCE_FILL).all(axis=1)
    return present


def measured_enmap(published: NDArray[np.int16]) -> NDArray[np.bool_]:
    """Which numbers are values, of (band, y, x): not -32768, nor of a pixel that has nothing else than 0 and -32768."""
    known = published != REFLECTANCE_FILL
    present: NDArray[np.bool_] = known & (known & (published != NO_DATA)).any(axis=0)
    return present


def store(published: NDArray[np.int16], measured: NDArray[np.bool_], offset: int = 0) -> Stored:
    """Published numbers as the store holds them: fill where nothing was measured, else without the offset.

    measured: of the same shape, or one that broadcasts to it.
    """
    measured = np.broadcast_to(measured, published.shape)
    shifted = np.clip(published.astype(np.int32) - offset, REFLECTANCE_FILL + 1, _HIGHEST)
    values = np.where(measured, shifted, REFLECTANCE_FILL).astype(np.int16)
    unmeasured = published[~measured]
    no_data = NO_DATA if 2 * np.count_nonzero(unmeasured == NO_DATA) >= unmeasured.size else REFLECTANCE_FILL
    differing = np.flatnonzero(publish(values, no_data, offset) != published)
    return Stored(values, no_data, differing.astype(np.uint32), published.ravel()[differing])


def publish(values: NDArray[np.int16], no_data: int, offset: int = 0) -> NDArray[np.int16]:
    """Stored numbers as published ones: `no_data` for fill, else with the offset, within int16."""
    shifted = np.clip(values.astype(np.int32) + offset, _LOWEST, _HIGHEST)
    return np.where(values == REFLECTANCE_FILL, no_data, shifted).astype(np.int16)


def put_back(published: NDArray[np.int16], places: NDArray[np.uint32], numbers: NDArray[np.int16]) -> None:
    """Set the published numbers that `publish` does not give, in place."""
    published.ravel()[places] = numbers


def cloud_mask(cloud: NDArray[Any], side: int) -> NDArray[np.bool_] | None:
    """`EnMAP_cloud` as a mask (side, side), or None where it is none.

    It is one where it has one number a pixel and no more than two: 0 and another one, which is cloud.
    """
    if cloud.dtype.kind not in "biuf" or cloud.size != side * side or sorted(cloud.shape)[-2:] != [side, side]:
        return None
    numbers = np.unique(cloud)
    if len(numbers) > 2 or (len(numbers) == 2 and numbers[0] != 0) or not np.isfinite(numbers.astype(float)).all():
        return None
    mask: NDArray[np.bool_] = cloud.reshape(side, side) != 0
    return mask
