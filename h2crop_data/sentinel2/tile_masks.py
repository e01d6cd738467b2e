"""Which pixels of a season's dates are clear over a tile: classes, detectors, shadows cast, a second look in time."""

from __future__ import annotations

from dataclasses import dataclass
from enum import IntEnum

import numpy as np
from numpy.typing import NDArray

from h2crop_data.sentinel2.clear import clear_pixels
from h2crop_data.sentinel2.clouds import MASK_PIXEL
from h2crop_data.sentinel2.neighbours import dilated


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
    return codes


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
