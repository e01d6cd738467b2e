"""Clouds in one EnMAP scene, from eight of its bands alone.

Clouds are bright, white, and brighter in blue than ground of their red: the haze optimised transform (Zhang, Guindon &
Cihlar 2002, Remote Sensing of Environment 82) measures how far a pixel lies off the line on which clear ground lies. In
short-wave infrared they are darker than in blue, unlike soil, roofs and concrete, but not as dark as snow (Zhu &
Woodcock 2012, Remote Sensing of Environment 118). Bands at 1331-1391 nm, in which cirrus would show, hold no data in
L2A: thin cirrus is found as far as it whitens the ground.
"""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from h2crop_data.disks import dilated

Layer = NDArray[np.float32]
Mask = NDArray[np.bool_]

#: Red counts so much in the haze optimised transform: clear ground keeps near a line of this slope.
HAZE_SLOPE = 0.5
#: Ground this dark in blue tells where that line lies, if this share of the scene is; it lies no further off than this.
DARK_GROUND, LEAST_DARK, LINE_LIMITS = 0.15, 0.02, (-0.01, 0.03)
#: Denominators of ratios are at least this.
LEAST_REFLECTANCE = 0.01


@dataclass(frozen=True)
class MaskBands:
    """Reflectance 0..1 of a scene in the bands that masks are made of, each (y, x) float32; finite everywhere."""

    #: At 443, 490, 560, 665, 865, 1610 and 2200 nm.
    deep_blue: Layer
    blue: Layer
    green: Layer
    red: Layer
    infrared: Layer
    swir: Layer
    long_swir: Layer


#: Wavelength in nm of each of MaskBands, in their order.
MASK_WAVELENGTHS = (443.0, 490.0, 560.0, 665.0, 865.0, 1610.0, 2200.0)


@dataclass(frozen=True)
class CloudRules:
    """What is called cloud. Chosen on simulated scenes of seeds 1 to 3 (tests/benchmarks/bench_enmap_masks.py)."""

    #: Haze optimised transform above that of clear ground: of pixels that are cloud by themselves, and of those around.
    core_haze: float = 0.05
    edge_haze: float = 0.03
    #: Cloud around a core reaches this many pixels.
    edge_width: float = 3.0
    #: White: green and deep blue are at least these shares of blue, blue at least this share of red; of edges the last.
    green_of_blue: float = 0.85
    deep_of_blue: float = 0.93
    blue_of_red: float = 0.8
    edge_blue_of_red: float = 0.7
    #: Short-wave infrared at most this many times blue, and infrared; of edges times blue; and at least so bright.
    swir_of_blue: float = 1.4
    swir_of_infrared: float = 1.0
    edge_swir_of_blue: float = 2.0
    least_swir: float = 0.08
    edge_least_swir: float = 0.06
    least_infrared: float = 0.1
    #: Snow: a normalised difference of green and short-wave infrared above this, and ground so bright.
    snow_index: float = 0.4
    snow_blue: float = 0.15
    #: Where more than this share of a scene is snow, ground within so many pixels of it is cloud only where blue and
    #: short-wave infrared are as bright as this, and the index is below that.
    snowy: float = 0.01
    near_snow: float = 15.0
    cloud_on_snow: float = 0.27
    index_on_snow: float = 0.35


def find_clouds(bands: MaskBands, imaged: Mask, rules: CloudRules = CloudRules()) -> Mask:
    """Where clouds are, (y, x). imaged: (y, x); elsewhere bands mean nothing and no cloud is found."""
    haze = haze_above_ground(bands, imaged)
    snow = is_snow(bands, rules) & imaged
    swir_limit = np.minimum(rules.swir_of_blue * bands.blue, rules.swir_of_infrared * bands.infrared)
    core = (haze > rules.core_haze) & (bands.swir > rules.least_swir) & (bands.swir < swir_limit)
    core &= (bands.infrared > rules.least_infrared) & is_white(bands, rules)
    edge = (haze > rules.edge_haze) & (bands.swir > rules.edge_least_swir)
    edge &= (bands.swir < rules.edge_swir_of_blue * bands.blue) & (bands.blue > rules.edge_blue_of_red * bands.red)
    edge &= bands.green > (rules.green_of_blue - 0.05) * bands.blue
    possible = imaged & ~snow
    if snow.sum() > rules.snowy * imaged.sum():
        bright = np.minimum(bands.blue, bands.swir) > rules.cloud_on_snow
        possible &= ~dilated(snow, rules.near_snow) | (bright & (snow_index(bands) < rules.index_on_snow))
    return with_edges(core & possible, edge & possible, rules.edge_width)


def haze_above_ground(bands: MaskBands, imaged: Mask) -> Layer:
    """The haze optimised transform (y, x) of each pixel, less that of the scene's dark ground."""
    transform = bands.blue - np.float32(HAZE_SLOPE) * bands.red
    dark = transform[imaged & (bands.blue < DARK_GROUND)]
    if dark.size <= LEAST_DARK * imaged.sum():
        return transform - np.float32(sum(LINE_LIMITS) / 2)
    return transform - np.float32(np.clip(np.median(dark), *LINE_LIMITS))


def is_white(bands: MaskBands, rules: CloudRules) -> Mask:
    """Whether pixels (y, x) have the colour of clouds in visible light."""
    white: Mask = (bands.green > rules.green_of_blue * bands.blue) & (bands.blue > rules.blue_of_red * bands.red)
    return white & (bands.deep_blue > rules.deep_of_blue * bands.blue)


def snow_index(bands: MaskBands) -> Layer:
    """The normalised difference (y, x) of green and short-wave infrared."""
    total = np.maximum(bands.green + bands.swir, np.float32(LEAST_REFLECTANCE))
    return np.asarray((bands.green - bands.swir) / total, np.float32)


def is_snow(bands: MaskBands, rules: CloudRules) -> Mask:
    """Whether pixels (y, x) are snow: bright, and much brighter in green than in short-wave infrared."""
    bright: Mask = (bands.infrared > rules.least_infrared) & (bands.blue > rules.snow_blue)
    return bright & (snow_index(bands) > rules.snow_index)


def with_edges(core: Mask, edge: Mask, width: float) -> Mask:
    """Cores with the edges (y, x) that touch them, through other edges too, within `width` pixels of a core."""
    _, parts = cv2.connectedComponents((core | edge).view(np.uint8), connectivity=8)
    touching = np.zeros(int(parts.max()) + 1, bool)
    touching[np.unique(parts[core])] = True
    touching[0] = False
    result: Mask = core | (touching[parts] & dilated(core, width))
    return result
