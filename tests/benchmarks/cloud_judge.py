"""What cloud masks do to composites, judged by the simulator's truth; nothing here is shared with what makes masks.

Snow is left out for every mask: a date with snow on a pixel enters neither what is chosen nor what is truly clear.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from cloud_regions import FILL, Region, judged
from numpy.typing import NDArray
from scipy.ndimage import distance_transform_edt

#: What is called truly clear: at most 1 % cloud, cirrus, shadow, 10 % haze; half percents.
NOTHING, LITTLE_HAZE = 2, 20
#: Shadow that takes more than 30 % of the light, in half percents.
DEEP = 60
#: Metres from any cloud or shadow beyond which clear ground should be kept.
FAR = 100
#: Differences of reflectance that count: the main one and a small one.
OFF, SLIGHTLY = 0.03, 0.01


@dataclass(frozen=True)
class Truth:
    """What is true of each date, judged pixels, (n, y, x)."""

    #: Imaged, and nothing over it; and also far from any cloud or shadow.
    clear: NDArray[np.bool_]
    far: NDArray[np.bool_]
    snow: NDArray[np.bool_]
    #: What the products would show under a clear sky, (n, band, y, x): what they do show where no sky is at all.
    clear_sky: NDArray[np.int16]


def truth_of(region: Region) -> Truth:
    """The truth of a region."""
    cloud, cirrus, shadow, haze, snow = (region.sky[:, layer] for layer in range(5))
    disturbed = (cloud > NOTHING) | (cirrus > NOTHING) | (shadow > NOTHING)
    imaged = region.seen.min(axis=1) != FILL
    clear = judged(~disturbed & (haze <= LITTLE_HAZE) & (snow == 0)) & imaged
    away = np.array([far_from(layer, FAR / 10) for layer in disturbed])
    untouched = judged((region.sky[:, :4] == 0).all(axis=1))
    clear_sky = np.where(untouched[:, None], region.seen, region.surface)
    return Truth(clear, clear & judged(away), judged(snow > 0), clear_sky)


@dataclass
class Shadows:
    """What a mask does about shadow, in observations; those of several regions add up."""

    #: Ground in deep shadow without cloud over it, and what of it is masked.
    deep: int
    masked: int
    #: Clear ground far from any cloud or shadow, and what of it is called a cast shadow.
    far: int
    cast: int

    def __add__(self, other: Shadows) -> Shadows:
        return Shadows(*(mine + its for mine, its in zip(vars(self).values(), vars(other).values(), strict=True)))

    def shares(self) -> dict[str, float]:
        """What the counts mean."""
        return {"shadow_hit": share(self.masked, self.deep), "cast_false": share(self.cast, self.far)}


def judge_shadows(region: Region, truth: Truth, clear: NDArray[np.bool_], cast: NDArray[np.bool_]) -> Shadows:
    """What a mask does about shadow. clear, cast (n, y, x): judged pixels that it keeps, that it calls cast shadow."""
    cloud, cirrus, shadow = (judged(region.sky[:, layer]) for layer in range(3))
    deep = (shadow > DEEP) & (cloud <= NOTHING) & (cirrus <= NOTHING) & ~truth.snow
    return Shadows(int(deep.sum()), int((deep & ~clear).sum()), int(truth.far.sum()), int((truth.far & cast).sum()))


def far_from(mask: NDArray[np.bool_], pixels: float) -> NDArray[np.bool_]:
    """The pixels (y, x) that are further than some pixels from all of a mask."""
    if not mask.any():
        return np.ones_like(mask)
    far: NDArray[np.bool_] = distance_transform_edt(~mask) > pixels
    return far


def medians(values: NDArray[np.int16], chosen: NDArray[np.bool_]) -> NDArray[np.float32]:
    """The median of the chosen dates of each pixel and band, (band, y, x), NaN where none is."""
    ordered = np.sort(np.where(chosen[:, None], values, np.float32(np.inf)).astype(np.float32), axis=0)
    number = chosen.sum(axis=0)
    low, high = np.maximum(number - 1, 0) // 2, np.minimum(number // 2, len(values) - 1)
    low, high = (np.broadcast_to(place, ordered.shape[1:])[None] for place in (low, high))
    middle = (np.take_along_axis(ordered, low, 0)[0] + np.take_along_axis(ordered, high, 0)[0]) / 2
    return np.where(number > 0, middle, np.float32(np.nan)).astype(np.float32)


@dataclass
class Counts:
    """Pixel-months and observations of one mask; counts of several regions add up."""

    #: By number of chosen dates (index 3: three or more): pixel-months with a composite, and those that are off.
    filled: NDArray[np.int64]
    off: NDArray[np.int64]
    slightly: NDArray[np.int64]
    #: Those of them with a truly clear date, and off.
    with_clear: int
    with_clear_off: int
    with_clear_slightly: int
    #: Pixel-months with a truly clear date, and those of them without a composite.
    clear_months: int
    lost_months: int
    #: Observations: far clear ones, and those masked.
    far: int
    far_masked: int
    #: Pixel-months without a composite.
    empty: int

    def __add__(self, other: Counts) -> Counts:
        return Counts(*(mine + its for mine, its in zip(vars(self).values(), vars(other).values(), strict=True)))

    def shares(self) -> dict[str, float]:
        """What the counts mean."""
        return {
            "touched": share(self.off.sum(), self.filled.sum()),
            "touched_001": share(self.slightly.sum(), self.filled.sum()),
            "given": share(self.with_clear_off, self.with_clear),
            "given_001": share(self.with_clear_slightly, self.with_clear),
            "lost": share(self.far_masked, self.far),
            "months_lost": share(self.lost_months, self.clear_months),
            "filled": share(self.filled.sum(), self.filled.sum() + self.empty),
            **{f"touched_of_{n}": share(self.off[n], self.filled[n]) for n in (1, 2, 3)},
        }


def share(part: float, whole: float) -> float:
    """part / whole, 0 of nothing."""
    return float(part) / float(whole) if whole else 0.0


def judge(region: Region, truth: Truth, clear: NDArray[np.bool_]) -> Counts:
    """What a mask does; clear (n, y, x): judged pixels that it keeps."""
    chosen = clear & ~truth.snow & (region.seen.min(axis=1) != FILL)
    filled, off, slightly = (np.zeros(4, np.int64) for _ in range(3))
    with_clear = with_clear_off = with_clear_slightly = clear_months = lost_months = empty = 0
    for month in np.unique(region.months):
        dates = region.months == month
        ours = medians(region.seen[dates], chosen[dates])
        theirs = medians(truth.clear_sky[dates], chosen[dates])
        has = ~np.isnan(ours[0])
        difference = np.abs(ours - theirs).max(axis=0)
        is_off, is_slightly = has & (difference > OFF * 10_000), has & (difference > SLIGHTLY * 10_000)
        number = np.minimum(chosen[dates].sum(axis=0), 3)
        filled += np.bincount(number[has], minlength=4)
        off += np.bincount(number[is_off], minlength=4)
        slightly += np.bincount(number[is_slightly], minlength=4)
        given = truth.clear[dates].any(axis=0)
        with_clear += int((has & given).sum())
        with_clear_off += int((is_off & given).sum())
        with_clear_slightly += int((is_slightly & given).sum())
        clear_months += int(given.sum())
        lost_months += int((given & ~has).sum())
        empty += int((~has).sum())
    return Counts(
        filled,
        off,
        slightly,
        with_clear,
        with_clear_off,
        with_clear_slightly,
        clear_months,
        lost_months,
        int(truth.far.sum()),
        int((truth.far & ~clear).sum()),
        empty,
    )
