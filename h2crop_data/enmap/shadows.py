"""Shadows of clouds in one EnMAP scene: dark ground at the place where clouds of one height would cast them.

Whole clouds are moved along the sun's rays (Zhu & Woodcock 2012, Remote Sensing of Environment 118). The height at
which most of a scene's clouds lie on ground that is darker than its surroundings in near and short-wave infrared is
theirs; woods and fields that are dark by themselves do not lie under all of them. A cloud is not seen above the ground
under it but along the line of sight, so that the way from a cloud to its shadow depends on where the satellite stands.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import cv2
import numpy as np

from h2crop_data.cast_shadows import LOWEST_CAST_SUN, Direction, matched_height, moved_along, under_clouds
from h2crop_data.disks import dilated, without_narrow
from h2crop_data.enmap.clouds import Layer, Mask, MaskBands

#: Inclination of EnMAP's orbit in degrees (mission's page on the orbit).
INCLINATION = 97.96
#: Clouds of so many heights are looked for in a scene; a cloud is held to have another one only by so many pixels.
MOST_HEIGHTS, FEWEST_TOLD = 3, 4
#: Reflectance below which ground is not compared with its surroundings: darker ones count as this dark.
DARKEST_USUAL = 0.05
#: Limits of darkness, as a share of the usual reflectance.
DARKNESS_LIMITS = (-0.5, 0.8)


@dataclass(frozen=True)
class ShadowRules:
    """What is called shadow. Chosen on simulated scenes of seeds 1 to 3 (tests/benchmarks/bench_enmap_masks.py)."""

    #: Lowest and highest clouds, metres above ground.
    heights: tuple[float, float] = (200.0, 4000.0)
    #: Pixels of a square whose median, with that of its neighbours, is what ground usually reflects.
    surroundings: int = 15
    #: A height is believed where ground under moved clouds is darker than other ground by this share, and so many
    #: standard deviations more than at other heights. Clouds of another scene give 0.08 in one of sixty.
    matched: float = 0.08
    distinct: float = 1.0
    #: Moved clouds are this many pixels wider; ground under them is shadow unless brighter than usual by this share.
    shape_margin: float = 1.0
    brighter: float = 0.2
    #: Clouds lie up to this share lower and higher: ground under them is shadow where it is darker than usual by this
    #: share, half of it in each band.
    height_range: float = 0.3
    darker: float = 0.2
    #: Without a height: ground under clouds of any height that is darker in each band by this share.
    much_darker: float = 0.45
    #: What is found by darkness is no shadow where no disk of this radius fits, in pixels.
    smallest: float = 1.0


@dataclass(frozen=True)
class Shadows:
    """What was found of a scene's shadows."""

    #: (y, x).
    mask: Mask
    #: The height of most of its clouds, metres above ground; None where no height was found.
    height: float | None


def satellite_azimuths(latitude: float) -> tuple[float, float]:
    """Where the satellite may stand when it looks across its descending orbit: left and right of it, in degrees."""
    turn = math.cos(math.radians(INCLINATION)) / max(math.cos(math.radians(latitude)), 1e-6)
    heading = 180 - math.degrees(math.asin(max(-1.0, turn)))
    return (heading - 90) % 360, (heading + 90) % 360


def find_shadows(
    bands: MaskBands,
    imaged: Mask,
    cloud: Mask,
    suns: Sequence[Direction],
    pixel: float,
    rules: ShadowRules = ShadowRules(),
) -> Shadows:
    """The shadows of clouds (y, x), without ground under clouds and without water.

    suns: apparent ones; of several the one whose shadows are darkest. pixel: its size in metres.
    """
    nothing = Shadows(np.zeros(cloud.shape, bool), None)
    if not cloud.any():
        return nothing
    water = (bands.green > bands.infrared) & (bands.infrared < 0.15)
    usable = imaged & ~cloud & ~water
    if not usable.any():
        return nothing
    layers = [darkness(layer, usable, rules.surroundings) for layer in (bands.infrared, bands.swir)]
    least, mean = np.minimum(*layers), (layers[0] + layers[1]) / 2
    told = np.where(usable, mean, np.float32(np.nan))
    shadow, height, left = np.zeros(cloud.shape, bool), None, cloud
    for _ in range(MOST_HEIGHTS):
        found = height_of(left, told, suns, pixel, rules)
        if found is None:
            break
        match, sun = found
        height = match if height is None else height
        shape = dilated(moved_along(left, sun, match, pixel), rules.shape_margin) & (mean > -rules.brighter)
        span = (match * (1 - rules.height_range), match * (1 + rules.height_range))
        near = dilated(under_clouds(left, sun, span, pixel, beyond=False), rules.shape_margin)
        dark = near & (mean > rules.darker) & (least > rules.darker / 2)
        shadow |= (shape | without_narrow(dark & usable, rules.smallest)) & usable
        left = without_shadow(left, told, sun, match, pixel, rules)
    if height is None:
        large = without_narrow(cloud, rules.smallest)
        under = np.logical_or.reduce([under_clouds(large, sun, rules.heights, pixel, beyond=False) for sun in suns])
        shadow = without_narrow(under & usable & (least > rules.much_darker), rules.smallest)
    return Shadows(shadow, height)


def height_of(
    cloud: Mask, told: Layer, suns: Sequence[Direction], pixel: float, rules: ShadowRules
) -> tuple[float, Direction] | None:
    """The height at which clouds lie best on dark ground, and under which sun; None where none is to be believed.

    told: darkness (y, x), NaN where it does not count.
    """
    found = [(matched_height(cloud, told, sun, rules.heights, pixel), sun) for sun in suns]
    matches = [(match, sun) for match, sun in found if match is not None]
    if not matches:
        return None
    best, sun = max(matches, key=lambda one: one[0].darkness)
    believed = best.darkness > rules.matched and best.distinct > rules.distinct
    return (best.height, sun) if believed else None


def without_shadow(cloud: Mask, told: Layer, sun: Direction, height: float, pixel: float, rules: ShadowRules) -> Mask:
    """The clouds (y, x), each a connected part, whose shadow at a height would lie on ground that is not dark."""
    count, parts = cv2.connectedComponents(cloud.view(np.uint8), connectivity=8)
    azimuth, elevation = (math.radians(angle) for angle in (sun[0], max(sun[1], LOWEST_CAST_SUN)))
    length = height / math.tan(elevation) / pixel
    y, x = np.nonzero(cloud)
    down, right = y + round(length * math.cos(azimuth)), x - round(length * math.sin(azimuth))
    inside = (down >= 0) & (down < cloud.shape[0]) & (right >= 0) & (right < cloud.shape[1])
    part, dark = parts[y[inside], x[inside]], told[down[inside], right[inside]]
    known = ~np.isnan(dark)
    number = np.bincount(part[known], minlength=count)
    sums = np.bincount(part[known], weights=dark[known], minlength=count)
    lit = (number >= FEWEST_TOLD) & (sums < rules.darker / 2 * number)
    lit[0] = False
    return np.asarray(lit[parts])


def darkness(layer: Layer, usable: Mask, side: int) -> Layer:
    """How much darker pixels (y, x) are than usable ground around them, as a share, within DARKNESS_LIMITS."""
    usual = np.maximum(usual_reflectance(layer, usable, side), np.float32(DARKEST_USUAL))
    return np.clip(1 - layer / usual, *DARKNESS_LIMITS).astype(np.float32)


def usual_reflectance(layer: Layer, usable: Mask, side: int) -> Layer:
    """The median (y, x) of usable pixels around each: of squares of `side` pixels and their eight neighbours.

    Between the middles of squares it is interpolated. Squares around which a quarter of a square is not usable have the
    median of the others; some pixel must be usable.
    """
    rows, columns = layer.shape
    down, across = -(-rows // side), -(-columns // side)
    medians = np.full((down, across), np.nan, np.float32)
    for y in range(down):
        for x in range(across):
            around = (
                slice(max(0, (y - 1) * side), (y + 2) * side),
                slice(max(0, (x - 1) * side), (x + 2) * side),
            )
            values = layer[around][usable[around]]
            if 4 * values.size >= side * side:
                medians[y, x] = np.median(values)
    few = np.isnan(medians)
    medians[few] = np.median(layer[usable]) if few.all() else np.median(medians[~few])
    usual = cv2.resize(medians, (across * side, down * side), interpolation=cv2.INTER_LINEAR)
    return np.asarray(usual[:rows, :columns], np.float32)
