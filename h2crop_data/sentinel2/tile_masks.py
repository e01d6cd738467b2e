"""Which pixels of a season's dates are clear over a tile: classes, detectors, shadows cast, a second look in time."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from enum import IntEnum

import numpy as np
from numpy.typing import NDArray

from h2crop_data.constants import REFLECTANCE_FILL
from h2crop_data.sentinel2.clear import clear_pixels
from h2crop_data.sentinel2.clouds import MASK_PIXEL
from h2crop_data.sentinel2.neighbours import dilated, nearest_clear
from h2crop_data.sentinel2.second_look import LookLimits, second_look
from h2crop_data.sentinel2.shadows import under_clouds, without_specks


class MaskCode(IntEnum):
    """What a pixel of a date is."""

    NOT_IMAGED = 0
    CLEAR = 1
    CLOUD = 2
    SHADOW = 3
    CAST_SHADOW = 4
    SNOW = 5
    SECOND_LOOK = 6
    NEAR = 7
    UNUSABLE = 8


#: Each code in words.
MASK_WORDS = {
    MaskCode.NOT_IMAGED: "the granule has no data here",
    MaskCode.CLEAR: "clear: the only code that enters a composite",
    MaskCode.CLOUD: "cloud by a detector or by the scene classification",
    MaskCode.SHADOW: "shadow by a detector or by the scene classification",
    MaskCode.CAST_SHADOW: "shadow by the sun's line from a cloud and by darkness against neighbouring dates",
    MaskCode.SNOW: "snow by the scene classification, under no cloud",
    MaskCode.SECOND_LOOK: "brighter or darker than both clear neighbours in time",
    MaskCode.NEAR: "within the dilation of a cloud or shadow",
    MaskCode.UNUSABLE: "saturated, dark, unclassified or otherwise not among the clear classes",
}

#: Classes of SCL.
SCL_NO_DATA, SCL_SATURATED, SCL_SHADOW, SCL_SNOW = 0, 1, 3, 11
SCL_CLOUDS = (8, 9, 10)
#: What the second look may find to be clear.
SUSPECT = (MaskCode.SHADOW, MaskCode.CAST_SHADOW, MaskCode.NEAR, MaskCode.UNUSABLE)
#: Pixels of all dates that are looked at together: of 4 bytes each they fit into the caches of a core.
STRIP = 1 << 20


@dataclass(frozen=True)
class MaskRules:
    """How the mask of a tile is put together."""

    #: Classes of SCL that are clear; others are not where `uses_classes`.
    clear_classes: tuple[int, ...]
    #: Whether SCL votes. Without it only detectors do, and SCL says no more than what has no data, saturation, snow.
    uses_classes: bool
    #: Metres around clouds and shadows of detectors and SCL that are not clear either.
    dilation: float
    #: Whether clouds are cast along the sun's line onto ground that is dark.
    cast_shadows: bool
    #: Whether what is brighter or darker than both clear neighbours in time is dropped.
    second_look: bool
    #: Lowest and highest clouds that are cast, metres above ground.
    heights: tuple[float, float] = (200.0, 3500.0)
    #: Ground under a cloud's line is in shadow below these shares of its clear neighbours in time, in B8A and in B11.
    dark_infrared: float = 0.72
    dark_swir: float = 0.78
    #: Shadows cast that are narrower than twice this many metres are none, and others are this much wider.
    smallest_shadow: float = 20.0
    shadow_margin: float = 40.0
    #: When the second look does not believe an observation.
    limits: LookLimits = field(default_factory=LookLimits)


@dataclass
class TileDates:
    """The dates of a season over a tile with its margin, in order of time, pixels of 20 m, rows from north to south."""

    #: Days since any epoch, (n,) int32.
    days: NDArray[np.int32]
    #: Azimuth (from north over east) and elevation of the sun in degrees, (n, 2).
    sun: NDArray[np.float64]
    #: SCL, (n, y, x); 0 not imaged.
    classes: NDArray[np.uint8]
    #: Reflectance x 10000 of B02 (mean of its pixels), B8A, B11, (n, y, x); REFLECTANCE_FILL where there is none.
    blue: NDArray[np.int16]
    infrared: NDArray[np.int16]
    swir: NDArray[np.int16]
    #: What detectors say, on this grid; all False without one.
    cloud: NDArray[np.bool_]
    shadow: NDArray[np.bool_]


def mask_tile(dates: TileDates, rules: MaskRules) -> NDArray[np.uint8]:
    """The MaskCode (n, y, x) of every pixel of every date.

    Of several codes that hold the first of this order stands: not imaged, cloud, shadow, snow, unusable, near, cast
    shadow, second look.
    """
    codes = np.empty(dates.classes.shape, np.uint8)
    for i in range(len(codes)):
        codes[i] = first_codes(dates.classes[i], dates.cloud[i], dates.shadow[i], rules)
    if rules.cast_shadows:
        codes[cast_shadows(codes, dates, rules) & (codes == MaskCode.CLEAR)] = MaskCode.CAST_SHADOW
    if rules.second_look:
        for rows in strips(codes.shape):
            part = codes[:, rows]
            values = (dates.blue[:, rows], dates.infrared[:, rows], dates.swir[:, rows])
            dropped, restored = second_look(part == MaskCode.CLEAR, np.isin(part, SUSPECT), *values, rules.limits)
            part[dropped] = MaskCode.SECOND_LOOK
            part[restored] = MaskCode.CLEAR
    return codes


def strips(shape: tuple[int, ...]) -> Iterator[slice]:
    """Slices of rows that together are all of an array (n, y, x), each of at most STRIP pixels of all dates."""
    dates, rows, columns = shape
    height = max(1, STRIP // max(1, dates * columns))
    for start in range(0, rows, height):
        yield slice(start, min(start + height, rows))


def cast_shadows(codes: NDArray[np.uint8], dates: TileDates, rules: MaskRules) -> NDArray[np.bool_]:
    """The shadows (n, y, x) that clouds cast, by the codes so far: what is cloud, and which dates are clear."""
    shadow = np.zeros(codes.shape, bool)
    for i, (azimuth, elevation) in enumerate(dates.sun.tolist()):
        cloud = codes[i] == MaskCode.CLOUD
        if cloud.any():
            # Over ground that was not imaged clouds may stand as beyond the edges.
            cloud |= codes[i] == MaskCode.NOT_IMAGED
            shadow[i] = under_clouds(cloud, (azimuth, elevation), rules.heights, MASK_PIXEL)
    for rows in strips(codes.shape):
        shadow[:, rows] &= is_dark(codes[:, rows], dates.infrared[:, rows], dates.swir[:, rows], rules)
    smallest, margin = rules.smallest_shadow / MASK_PIXEL, rules.shadow_margin / MASK_PIXEL
    for i in np.flatnonzero(shadow.any(axis=(1, 2))).tolist():
        shadow[i] = without_specks(shadow[i], smallest, margin)
    return shadow


def is_dark(
    codes: NDArray[np.uint8], infrared: NDArray[np.int16], swir: NDArray[np.int16], rules: MaskRules
) -> NDArray[np.bool_]:
    """Whether observations (n, y, x) are dark against the mean of the nearest clear dates before and after.

    Where only one of them exists, against that one; where none does, not.
    """
    values = np.stack([infrared, swir], axis=1).astype(np.float32)
    known = values.min(axis=1) != REFLECTANCE_FILL
    before, after = nearest_clear(values, known & (codes == MaskCode.CLEAR))
    one = np.where(np.isnan(before), after, before)
    usual = (one + np.where(np.isnan(after), before, after)) / 2
    limits = np.array([rules.dark_infrared, rules.dark_swir], np.float32)[:, None, None]
    dark: NDArray[np.bool_] = (values < limits * usual).all(axis=1) & known
    return dark


def first_codes(
    classes: NDArray[np.uint8], cloud: NDArray[np.bool_], shadow: NDArray[np.bool_], rules: MaskRules
) -> NDArray[np.uint8]:
    """The codes (y, x) of one date without any look at others."""
    if rules.uses_classes:
        clear = clear_pixels(classes, list(rules.clear_classes))
        cloud = cloud | (np.isin(classes, SCL_CLOUDS) & ~clear)
        shadow = shadow | ((classes == SCL_SHADOW) & ~clear)
    else:
        clear = ~np.isin(classes, (SCL_NO_DATA, SCL_SATURATED, SCL_SNOW))
    imaged = classes != SCL_NO_DATA
    codes = np.where(clear, MaskCode.CLEAR, MaskCode.UNUSABLE).astype(np.uint8)
    near = dilated((cloud | shadow) & imaged, rules.dilation / MASK_PIXEL)
    codes[near & clear] = MaskCode.NEAR
    codes[(classes == SCL_SNOW) & ~clear] = MaskCode.SNOW
    codes[shadow] = MaskCode.SHADOW
    codes[cloud] = MaskCode.CLOUD
    codes[~imaged] = MaskCode.NOT_IMAGED
    return codes
