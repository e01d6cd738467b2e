"""Which pixels of a season's dates are clear over a tile: classes, detectors, shadows cast, a second look in time."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from enum import IntEnum

import numpy as np
from numpy.typing import NDArray

from h2crop_data.cast_shadows import matched_height, moved_along, under_clouds, without_specks
from h2crop_data.disks import dilated, without_narrow
from h2crop_data.sentinel2.clear import clear_pixels
from h2crop_data.sentinel2.clouds import MASK_PIXEL
from h2crop_data.sentinel2.date_levels import date_levels, levelled
from h2crop_data.sentinel2.neighbours import nearest_clear
from h2crop_data.sentinel2.second_look import LookLimits, second_look


class MaskCode(IntEnum):
    """What a pixel of a date is."""

    #: The granule has no data here.
    NOT_IMAGED = 0
    #: Clear: the only code that enters a composite.
    CLEAR = 1
    #: Cloud by a detector or by the scene classification.
    CLOUD = 2
    #: Shadow by a detector or by the scene classification.
    SHADOW = 3
    #: Shadow by the sun's line from a cloud and by darkness against neighbouring dates.
    CAST_SHADOW = 4
    #: Snow by the scene classification, under no cloud.
    SNOW = 5
    #: Brighter or darker than both clear neighbours in time.
    SECOND_LOOK = 6
    #: Within the dilation of a cloud or shadow.
    NEAR = 7
    #: Saturated, dark, unclassified or otherwise not among the clear classes.
    UNUSABLE = 8


#: Classes of SCL.
SCL_NO_DATA, SCL_SATURATED, SCL_SHADOW, SCL_SNOW = 0, 1, 3, 11
SCL_CLOUDS = (8, 9, 10)
#: What the second look may find to be clear.
SUSPECT = (MaskCode.SHADOW, MaskCode.CAST_SHADOW, MaskCode.NEAR)
#: Pixels of masks in one on which shadows are matched, in each direction.
BIG = 3
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
    #: Ground on a cloud's line is in shadow where B8A and B11 are below this share of both clear neighbours in time.
    darker: float = 0.9
    #: Where only clouds beyond the tile could shade it, or it has only one neighbour: below these shares of B8A and
    #: B11; such clouds are reckoned with where this share of the tile is under clouds.
    dark_infrared: float = 0.72
    dark_swir: float = 0.78
    beyond: float = 0.05
    #: Clouds are moved whole where ground in their shadow is darker than elsewhere by this share, this many standard
    #: deviations above other heights; and so many metres wider.
    matched: float = 0.04
    distinct: float = 4.0
    shape_margin: float = 20.0
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
    shadow, second look; but a shadow that clouds cast by their shape stands before near. Shadow, near, cast shadow and
    unusable (but saturated) are clear where the second look finds them so, except in shadows by shape. Raises
    ValueError where the dates are not in order.
    """
    if (np.diff(dates.days) < 0).any():
        raise ValueError(f"expected dates in order of time, got {dates.days.tolist()}")
    codes = np.empty(dates.classes.shape, np.uint8)
    for i in range(len(codes)):
        codes[i] = first_codes(dates.classes[i], dates.cloud[i], dates.shadow[i], rules)
    if not (rules.cast_shadows or rules.second_look):
        return codes
    levels = date_levels(dates.days, codes == MaskCode.CLEAR, dates.blue, dates.infrared, dates.swir)
    certain = np.zeros(codes.shape, bool)
    if rules.cast_shadows:
        shadow, certain = cast_shadows(codes, dates, levels, rules)
        codes[shadow & (codes == MaskCode.CLEAR)] = MaskCode.CAST_SHADOW
        codes[certain & np.isin(codes, (MaskCode.CLEAR, MaskCode.NEAR))] = MaskCode.CAST_SHADOW
    if rules.second_look:
        for rows in row_strips(codes.shape):
            part = codes[:, rows]
            values = levelled(levels, dates.blue[:, rows], dates.infrared[:, rows], dates.swir[:, rows])
            suspect = np.isin(part, SUSPECT) & ~certain[:, rows]
            unclassified = (part == MaskCode.UNUSABLE) & ~certain[:, rows] & (dates.classes[:, rows] != SCL_SATURATED)
            clear = part == MaskCode.CLEAR
            looked = second_look(values, dates.days, clear, suspect, unclassified, rules.limits, levels[:, 0])
            part[looked.dropped] = MaskCode.SECOND_LOOK
            part[looked.restored] = MaskCode.CLEAR
    return codes


def row_strips(shape: tuple[int, ...], multiple: int = 1) -> Iterator[slice]:
    """Slices of rows that together are all of an array (n, y, x), of about STRIP pixels of all dates.

    multiple: of rows, in each but the last.
    """
    dates, rows, columns = shape
    height = max(1, STRIP // max(1, dates * columns * multiple)) * multiple
    for start in range(0, rows, height):
        yield slice(start, min(start + height, rows))


def cast_shadows(
    codes: NDArray[np.uint8], dates: TileDates, levels: NDArray[np.float32], rules: MaskRules
) -> tuple[NDArray[np.bool_], NDArray[np.bool_]]:
    """The shadows (n, y, x) that clouds cast by darkness and by their shape, from the codes so far.

    By darkness: ground under clouds of any height that is dark against its neighbours in time. By shape: where the
    clouds of a date fit dark ground at one height so well that it must be theirs, all that they shade at this height.
    """
    by_darkness, by_shape, weak = (np.zeros(codes.shape, bool) for _ in range(3))
    darkness = np.full((len(codes), *(length // BIG for length in codes.shape[1:])), np.nan, np.float32)
    for rows in row_strips(codes.shape, BIG):
        values = levelled(levels, dates.blue[:, rows], dates.infrared[:, rows], dates.swir[:, rows])
        by_darkness[:, rows], weak[:, rows], dark = is_dark(codes[:, rows], values, rules)
        part = slice(rows.start // BIG, rows.start // BIG + dark.shape[1] // BIG)
        darkness[:, part] = mean_of_known(dark)
    for i, (azimuth, elevation) in enumerate(dates.sun.tolist()):
        # Smaller ones, bright roofs often, cast no shadow that would be kept.
        cloud = without_narrow(codes[i] == MaskCode.CLOUD, rules.smallest_shadow / MASK_PIXEL)
        if not cloud.any():
            by_darkness[i] = False
            continue
        many = cloud.mean() >= rules.beyond
        # Over ground that was not imaged clouds may stand as beyond the edges.
        possible = cloud | (codes[i] == MaskCode.NOT_IMAGED) if many else cloud
        shade = by_darkness[i] & under_clouds(possible, (azimuth, elevation), rules.heights, MASK_PIXEL, beyond=many)
        shade |= weak[i] & under_clouds(cloud, (azimuth, elevation), rules.heights, MASK_PIXEL, beyond=False)
        by_darkness[i] = without_specks(shade, rules.smallest_shadow / MASK_PIXEL, rules.shadow_margin / MASK_PIXEL)
        few = mean_of_known(cloud[None].astype(np.float32))[0] > 0.5
        match = matched_height(few, darkness[i], (azimuth, elevation), rules.heights, MASK_PIXEL * BIG)
        if match and match.darkness > rules.matched and match.distinct > rules.distinct:
            moved = moved_along(cloud, (azimuth, elevation), match.height, MASK_PIXEL)
            by_shape[i] = dilated(moved, rules.shape_margin / MASK_PIXEL)
    return by_darkness, by_shape


def is_dark(
    codes: NDArray[np.uint8], values: NDArray[np.float32], rules: MaskRules
) -> tuple[NDArray[np.bool_], NDArray[np.bool_], NDArray[np.float32]]:
    """Whether observations (n, y, x) are dark, or at least weakly so, and how dark they are.

    Dark: against the nearest clear dates before and after, or the one of them that exists. Weakly: against both. How
    dark: the share of light that is missing against their mean, NaN where the observation is not clear.
    """
    values = values[:, 1:]
    clear = codes == MaskCode.CLEAR
    before, after = nearest_clear(values, clear & ~np.isnan(values[:, 0]))
    one = np.where(np.isnan(before), after, before)
    usual = (one + np.where(np.isnan(after), before, after)) / 2
    limits = np.array([rules.dark_infrared, rules.dark_swir], np.float32)[:, None, None]
    dark: NDArray[np.bool_] = np.all(values < limits * np.fmin(before, after), axis=1)
    weak: NDArray[np.bool_] = np.all(values < rules.darker * np.minimum(before, after), axis=1)
    missing = 1 - (values / np.maximum(usual, 100)).mean(axis=1)
    return dark, weak, np.where(clear, np.clip(missing, -0.3, 0.5), np.float32(np.nan))


def mean_of_known(layers: NDArray[np.float32]) -> NDArray[np.float32]:
    """Means (n, y, x) over squares of BIG pixels of what is not NaN, NaN where less than half of it is not."""
    rows, columns = (length // BIG for length in layers.shape[1:])
    squares = layers[:, : rows * BIG, : columns * BIG].reshape(-1, rows, BIG, columns, BIG)
    known = ~np.isnan(squares)
    number = known.sum(axis=(2, 4))
    sums = np.where(known, squares, 0).sum(axis=(2, 4))
    enough = 2 * number > BIG**2
    return np.where(enough, sums / np.maximum(number, 1), np.float32(np.nan)).astype(np.float32)


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
