"""Shadows that clouds cast: where the sun's line from a cloud meets ground that is dark against its own other dates.

The height of a cloud is unknown, so its shadow is cast for a range of heights (Zhu & Woodcock 2012, Remote Sensing of
Environment 118, cast whole clouds over heights too). What falls within is shadow where near and short-wave infrared,
which little light of the sky brightens, are both dark against the nearest clear dates of the same ground. So woods and
water, which are always dark, are none.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from h2crop_data.disks import dilated, without_narrow

#: Azimuth and elevation, or azimuth and zenith angle, in degrees; azimuth from north over east.
Direction = tuple[float, float]
#: Below this elevation in degrees a sun is taken to stand at it: shadows would be longer than any tile.
LOWEST_CAST_SUN = 10.0
#: Pixels in and out of a shadow that must tell at least.
FEWEST_MATCHED = 100


def apparent_sun(sun: Direction, view: Direction) -> Direction:
    """The sun that would cast a cloud's shadow from where the cloud is seen.

    sun: azimuth and elevation. view: azimuth of the satellite as the ground sees it, and its zenith angle. A cloud
    appears moved away from the satellite by height x tan(zenith), its shadow lies height / tan(elevation) from the sun.
    """
    length = 1 / math.tan(math.radians(max(sun[1], LOWEST_CAST_SUN)))
    aside = math.tan(math.radians(view[1]))
    azimuth, satellite = math.radians(sun[0]), math.radians(view[0])
    east = length * math.sin(azimuth) - aside * math.sin(satellite)
    north = length * math.cos(azimuth) - aside * math.cos(satellite)
    return math.degrees(math.atan2(east, north)) % 360, math.degrees(math.atan2(1, math.hypot(east, north)))


def under_clouds(
    cloud: NDArray[np.bool_],
    sun: tuple[float, float],
    heights: tuple[float, float],
    pixel: float,
    *,
    beyond: bool = True,
) -> NDArray[np.bool_]:
    """The ground (y, x) on which clouds of some heights would cast a shadow.

    cloud: (y, x), rows from north to south. sun: azimuth from north over east, and elevation, in degrees. heights:
    lowest and highest in metres. pixel: its size in metres. beyond: whether clouds may stand beyond the edges of the
    array: then ground whose line to the sun leaves it below the highest of them counts as under one.
    """
    azimuth, elevation = math.radians(sun[0]), math.radians(max(sun[1], LOWEST_CAST_SUN))
    nearest, farthest = (height / math.tan(elevation) / pixel for height in heights)

    def place(distance: float) -> tuple[int, int]:
        # Rows down and columns right of the ground, towards the sun.
        return round(-distance * math.cos(azimuth)), round(distance * math.sin(azimuth))

    reached = shifted(cloud, *place(nearest), beyond=beyond)
    # The stretch of the line on which clouds count is doubled until it is as long as the range of heights.
    length = 0.0
    while length < farthest - nearest:
        step = min(max(length, 0.7), farthest - nearest - length)
        end = place(nearest + length + step)
        last = place(nearest + length)
        reached |= shifted(reached, end[0] - last[0], end[1] - last[1], beyond=beyond)
        length += step
    return reached


def shifted(mask: NDArray[np.bool_], y: int, x: int, *, beyond: bool) -> NDArray[np.bool_]:
    """At each pixel what stands y rows further down and x columns further right in a mask; `beyond` its edges."""
    rows, columns = mask.shape
    result = np.full_like(mask, beyond)
    if abs(y) < rows and abs(x) < columns:
        inside = mask[max(0, y) : rows + min(0, y), max(0, x) : columns + min(0, x)]
        result[max(0, -y) : rows + min(0, -y), max(0, -x) : columns + min(0, -x)] = inside
    return result


@dataclass(frozen=True)
class Match:
    """The height of clouds at which their shadows lie best on dark ground."""

    #: Metres above ground.
    height: float
    #: How much darker ground is there than elsewhere, as a share, and how far that stands out of other heights.
    darkness: float
    distinct: float


def matched_height(
    cloud: NDArray[np.bool_],
    darkness: NDArray[np.float32],
    sun: tuple[float, float],
    heights: tuple[float, float],
    pixel: float,
) -> Match | None:
    """The height at which a date's clouds, moved along the sun's line, lie best on dark ground; None: no ground tells.

    cloud: (y, x). darkness: how much darker ground is than on other dates, as a share (y, x); NaN where that is not
    known or does not count. sun, heights, pixel: as for `under_clouds`.
    """
    usable = ~np.isnan(darkness)
    azimuth, elevation = math.radians(sun[0]), math.radians(max(sun[1], LOWEST_CAST_SUN))
    step = max(50.0, pixel * math.tan(elevation))
    tried, found = [], []
    rows, columns = cloud.shape
    for height in np.arange(heights[0], heights[1] + 1, step).tolist():
        length = height / math.tan(elevation) / pixel
        down, right = round(-length * math.cos(azimuth)), round(length * math.sin(azimuth))
        if abs(down) >= rows or abs(right) >= columns:
            break
        ground = (slice(max(0, -down), rows + min(0, -down)), slice(max(0, -right), columns + min(0, -right)))
        above = cloud[max(0, down) : rows + min(0, down), max(0, right) : columns + min(0, right)]
        dark, counts = darkness[ground], usable[ground]
        inside, outside = counts & above, counts & ~above
        if min(inside.sum(), outside.sum()) < FEWEST_MATCHED:
            continue
        tried.append(height)
        found.append(float(dark[inside].mean() - dark[outside].mean()))
    if len(found) < 5:
        return None
    best = int(np.argmax(found))
    usual = float(np.median(found))
    spread = 1.4826 * float(np.median(np.abs(np.array(found) - usual)))
    return Match(tried[best], found[best], (found[best] - usual) / max(spread, 0.005))


def moved_along(cloud: NDArray[np.bool_], sun: tuple[float, float], height: float, pixel: float) -> NDArray[np.bool_]:
    """The shadow (y, x) of clouds of one height; beyond the edges there are none."""
    azimuth, elevation = math.radians(sun[0]), math.radians(max(sun[1], LOWEST_CAST_SUN))
    length = height / math.tan(elevation) / pixel
    return shifted(cloud, round(-length * math.cos(azimuth)), round(length * math.sin(azimuth)), beyond=False)


def without_specks(mask: NDArray[np.bool_], smallest: float, margin: float) -> NDArray[np.bool_]:
    """A mask (y, x) without parts narrower than a disk of radius `smallest` pixels, and `margin` pixels wider."""
    return dilated(without_narrow(mask, smallest), margin)
