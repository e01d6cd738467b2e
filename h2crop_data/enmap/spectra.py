"""Checks of the bands of a scene by its pixels: which have no data, which are noise, and whether they are
reflectance."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from h2crop_data.enmap.product import Band
from h2crop_data.errors import SceneError

#: A band with fewer measured pixels than this share is one without data.
LEAST_MEASURED = 0.5
#: A band is noise above this standard deviation, in reflectance. Typical bands have 0.001, the edges of water vapour
#: 0.015, the band of 1939 nm 0.06 to 0.27 (Potsdam 2022, and the archive's statistics).
NOISE_LIMIT = 0.03
#: The median of a scene's reflectance lies between these: dark water is above, snow and cloud below.
PLAUSIBLE_MEDIAN = (-0.1, 1.5)
#: A gain turns numbers of 16 bits into reflectance: with a finer one only 0.33 fits into them, with a coarser one a
#: step is more than a tenth of a percent. The archive's is 1e-4. An offset moves dark ground by no more than this.
PLAUSIBLE_GAIN, PLAUSIBLE_OFFSET = (1e-5, 1e-3), 0.1
#: Pixels (y, x) of a sample along a side.
SAMPLE_SIDE = 64


@dataclass(frozen=True)
class BandFindings:
    """Bands of a scene by what their pixels hold: places in the list of bands that was given."""

    empty: tuple[int, ...]
    noisy: tuple[int, ...]


def check_scaling(bands: Sequence[Band]) -> None:
    """Raise SceneError where a band's gain or offset cannot give reflectance."""
    low, high = PLAUSIBLE_GAIN
    for band in bands:
        if not (low <= band.gain <= high and abs(band.offset) <= PLAUSIBLE_OFFSET):
            raise SceneError(
                f"METADATA.XML: band {band.number} has gain {band.gain:g} and offset {band.offset:g}, which does "
                f"not give reflectance; expected a gain of {low:g} to {high:g} and an offset from "
                f"-{PLAUSIBLE_OFFSET:g} to {PLAUSIBLE_OFFSET:g}"
            )


def examine_bands(reflectance: NDArray[np.floating], bands: Sequence[Band]) -> BandFindings:
    """Which bands have no data and which are noise. Raises SceneError where the values are not reflectance.

    reflectance: (band, pixel) of a sample of pixels, NaN where nothing was measured.
    """
    measured = np.isfinite(reflectance).mean(axis=1)
    empty = [i for i, share in enumerate(measured) if share < LEAST_MEASURED]
    alive = [i for i in range(len(bands)) if i not in set(empty)]
    if alive:
        level, (low, high) = float(np.nanmedian(reflectance[alive])), PLAUSIBLE_MEDIAN
        if not low <= level <= high:
            raise SceneError(
                f"expected a median reflectance of {low:g} to {high:g}, got {level:.3g}: gain and offset of "
                "METADATA.XML do not match the image"
            )
    return BandFindings(tuple(empty), tuple(noisy_bands(reflectance, bands, alive)))


def noisy_bands(reflectance: NDArray[np.floating], bands: Sequence[Band], alive: Sequence[int]) -> list[int]:
    """Places of the bands that are noise, in order; `alive` are the places of those with data.

    The noisiest is taken out first and the others are measured again: its neighbours look noisy beside it.
    """
    left, found = list(alive), []
    while noise := band_noise(reflectance, bands, left):
        worst = max(noise, key=lambda i: noise[i])
        if noise[worst] <= NOISE_LIMIT:
            break
        left.remove(worst)
        found.append(worst)
    return sorted(found)


def band_noise(reflectance: NDArray[np.floating], bands: Sequence[Band], places: Sequence[int]) -> dict[int, float]:
    """Place of a band -> standard deviation of its noise in reflectance, for detectors with three bands or more.

    What a pixel has beyond the straight line through the two nearest bands of the same detector, less what all pixels
    have so; from the median absolute deviation, as if the three bands were equally noisy.
    """
    noise: dict[int, float] = {}
    for detector in ("vnir", "swir"):
        own = sorted((i for i in places if bands[i].detector == detector), key=lambda i: bands[i].wavelength)
        if len(own) < 3:
            continue
        for k, i in enumerate(own):
            first = min(max(k - 1, 0), len(own) - 3)
            one, other = (j for j in own[first : first + 3] if j != i)
            part = (bands[i].wavelength - bands[one].wavelength) / (bands[other].wavelength - bands[one].wavelength)
            beyond = reflectance[i] - (1 - part) * reflectance[one] - part * reflectance[other]
            beyond = beyond[np.isfinite(beyond)]
            if beyond.size:
                spread = 1.4826 * float(np.median(np.abs(beyond - np.median(beyond))))
                noise[i] = spread / float(np.sqrt(1 + part**2 + (1 - part) ** 2))
    return noise


def sample_place(usable: NDArray[np.bool_], side: int = SAMPLE_SIDE) -> tuple[slice, slice]:
    """Rows and columns of the square with most usable pixels (y, x); of several the one nearest to the middle."""
    height, width = usable.shape
    tops, lefts = (np.arange(0, max(1, length - side + 1), max(1, side // 2)) for length in (height, width))
    sums = np.pad(usable.astype(np.int64).cumsum(axis=0).cumsum(axis=1), ((1, 0), (1, 0)))
    bottoms, rights = np.minimum(tops + side, height), np.minimum(lefts + side, width)
    down = sums[bottoms] - sums[tops]
    inside = down[:, rights] - down[:, lefts]
    away = np.hypot((tops + bottoms - height)[:, None], (lefts + rights - width)[None, :])
    row, column = np.unravel_index(np.lexsort((away.ravel(), -inside.ravel()))[0], inside.shape)
    return slice(int(tops[row]), int(bottoms[row])), slice(int(lefts[column]), int(rights[column]))
