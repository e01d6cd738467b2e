"""Clouds of one kind over a moment's ground: their opacity as a field of coordinates, and their shadow on the ground.

Each kind is a sum of smooth noises cut at the quantile of its cover with a soft edge. The shadow of a cloud lies where
the line to the sun meets it.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from statistics import NormalDist
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from h2crop_data.simulate.optics import SPREAD, sample, sampling
from h2crop_data.simulate.randomness import noise_grid

#: The first three are those of plain skies, the others and cirrus those of natural ones.
CloudKind = Literal["cumulus", "stratus", "cirrus", "humilis", "mediocris", "stratocumulus", "overcast"]


@dataclass(frozen=True)
class Sun:
    """Where the sun stands, in degrees; azimuth from north over east."""

    azimuth: float
    elevation: float


@dataclass(frozen=True)
class Form:
    """What clouds of a kind look like."""

    #: Spacing of the noise's lattice in metres, and its weight.
    octaves: tuple[tuple[float, float], ...]
    #: Width of the soft edge in standard deviations of the noise.
    edge: float
    #: Height above ground in metres.
    height: float
    #: Opacity of its thinnest parts, as a share of that of its thickest.
    thin: float
    #: Streaks are this much longer than wide.
    stretch: float = 1.0


FORMS: dict[CloudKind, Form] = {
    "cumulus": Form(((1100, 1.0), (460, 0.6), (190, 0.35), (80, 0.22), (35, 0.14)), 0.5, 1300, 0.8),
    "stratus": Form(((5200, 1.0), (1900, 0.5), (700, 0.25), (250, 0.12), (90, 0.06)), 0.7, 2200, 0.8),
    "cirrus": Form(((2600, 1.0), (1100, 0.5), (400, 0.25), (150, 0.12)), 1.2, 9500, 0.7, 3.5),
    # Small clouds of fair weather: many of 50 to 300 m, the smallest thin.
    "humilis": Form(((330, 1.0), (150, 0.8), (70, 0.5), (40, 0.25)), 0.7, 1100, 0.45),
    "mediocris": Form(((1100, 1.0), (460, 0.6), (190, 0.4), (80, 0.26), (35, 0.16)), 0.9, 1400, 0.5),
    "stratocumulus": Form(((4100, 1.0), (1500, 0.6), (560, 0.4), (220, 0.25), (90, 0.14), (40, 0.08)), 1.1, 1900, 0.65),
    "overcast": Form(((1500, 1.0), (600, 0.8), (260, 0.6), (110, 0.35), (50, 0.18), (25, 0.08)), 1.0, 1500, 0.9),
}
#: The sun's disc is as wide as this share of the distance to it: so shadows of high clouds have no sharp edge. Those of
#: cirrus, whose ice scatters light forwards, at least as wide as this in metres.
SUN_DISC, CIRRUS_BLUR = math.radians(0.53), 100.0
#: Blur below this standard deviation in metres does not show in pixels of 10 m.
SHARP = 10.0
#: Share of its opacity that cirrus, which is thin, keeps from the ground: the rest is spread by the ice.
CIRRUS_SHADOW = 0.3
FULL_WIDTH = 2 * math.sqrt(2 * math.log(2))


@dataclass(frozen=True)
class CloudLayer:
    """Clouds of one kind."""

    kind: CloudKind
    #: Share of the ground under it, in the mean over much ground.
    cover: float
    #: Opacity of its thickest parts, 0..1.
    opacity: float
    #: Overcast: reflectance in the blue, and by which share of itself it varies (standard deviation).
    brightness: float = 0.0
    contrast: float = 0.0


def cloud_opacity(key: int, layer: CloudLayer, x: NDArray[np.float64], y: NDArray[np.float64]) -> NDArray[np.float32]:
    """Opacity (y, x) float32 of one layer of clouds."""
    form = FORMS[layer.kind]
    depth = sum_of_noises(key + len(layer.kind), form.octaves, x / form.stretch, y)
    if layer.kind == "overcast":
        # Nowhere a hole: thinner and thicker parts only.
        return layer.opacity * (form.thin + np.float32(1 - form.thin) * soft_cover(depth, 0.8, 3.0))
    thickness = form.thin + np.float32(1 - form.thin) * rank_within(depth, layer.cover)
    return layer.opacity * thickness * soft_cover(depth, layer.cover, form.edge)


def overcast_brightness(
    key: int, layer: CloudLayer, x: NDArray[np.float64], y: NDArray[np.float64]
) -> NDArray[np.float32]:
    """Reflectance (y, x) float32 in the blue of an overcast sky: cores and furrows."""
    texture = sum_of_noises((key ^ 3) + len(layer.kind), FORMS[layer.kind].octaves, x, y)
    factor: NDArray[np.float32] = np.clip(1 + np.float32(layer.contrast) * texture, 0.55, 1.8)
    return np.float32(layer.brightness) * factor


def cast_shadow(
    key: int, layer: CloudLayer, sun: Sun, x: NDArray[np.float64], y: NDArray[np.float64], *, blurs: bool
) -> NDArray[np.float32]:
    """Share (y, x) float32 of the direct sunlight that a layer keeps from the ground.

    blurs: by the sun's disc; otherwise every shadow is as sharp as its cloud.
    """
    height = FORMS[layer.kind].height
    reach = height / math.tan(math.radians(max(sun.elevation, 10.0)))
    toward = math.radians(sun.azimuth)
    east, north = reach * math.sin(toward), reach * math.cos(toward)

    def above(x: NDArray[np.float64], y: NDArray[np.float64]) -> NDArray[np.float32]:
        return cloud_opacity(key, layer, x + east, y + north)

    sd = blur_of_shadow(layer.kind, sun) / FULL_WIDTH
    shadow = blurred(above, x, y, sd) if blurs and sd >= SHARP else above(x, y)
    return np.asarray(shadow * np.float32(CIRRUS_SHADOW if layer.kind == "cirrus" else 1.0), np.float32)


def blur_of_shadow(kind: CloudKind, sun: Sun) -> float:
    """Full width at half maximum, in metres, of the blur of a shadow's edge."""
    height = FORMS[kind].height
    disc = SUN_DISC * height / math.sin(math.radians(max(sun.elevation, 10.0)))
    return max(disc, CIRRUS_BLUR) if kind == "cirrus" else disc


def blurred(
    field: Callable[[NDArray[np.float64], NDArray[np.float64]], NDArray[np.float32]],
    x: NDArray[np.float64],
    y: NDArray[np.float64],
    sd: float,
) -> NDArray[np.float32]:
    """A field of coordinates over a grid, blurred by a Gaussian of `sd` metres: the same whatever the grid."""
    columns, rows = lattice_around(x, sd), lattice_around(y, sd)
    size = sd / SPREAD
    layers = field(columns, rows)[None]
    return np.asarray(sample(layers, sampling(y, size, rows), sampling(x, size, columns))[0])


def lattice_around(places: NDArray[Any], sd: float) -> NDArray[np.float64]:
    """Points half a standard deviation apart, on a lattice from the zone's origin, around all of some places."""
    step = sd / 2
    first, last = math.floor((places.min() - 3 * sd) / step), math.ceil((places.max() + 3 * sd) / step)
    return np.arange(first, last + 1) * step


def sum_of_noises(
    key: int, octaves: tuple[tuple[float, float], ...], x: NDArray[np.float64], y: NDArray[np.float64]
) -> NDArray[np.float32]:
    """Noise (y, x) float32 of several spacings (metres, weight), about normal with standard deviation 1."""
    total = np.zeros((len(y), len(x)), np.float32)
    for number, (scale, weight) in enumerate(octaves):
        total += np.float32(weight) * noise_grid(key + 16 * (number + 1), x, y, scale)
    return total / np.float32(math.sqrt(sum(weight**2 for _, weight in octaves)))


def rank_within(noise: NDArray[np.float32], cover: float) -> NDArray[np.float32]:
    """Place of each pixel among those of the share `cover` of the ground where noise is highest: 0 edge, 1 core.

    A logistic curve stands for the normal distribution; they differ by less than 0.01.
    """
    above = 1 / (1 + np.exp(np.float32(-1.702) * noise))
    rank: NDArray[np.float32] = np.clip((above - np.float32(1 - cover)) / np.float32(cover), 0, 1)
    return rank


def soft_cover(noise: NDArray[np.floating], cover: float, edge: float) -> NDArray[np.float32]:
    """A field 0..1 that is above one half on a share `cover` of the ground, with soft edges."""
    threshold = NormalDist().inv_cdf(1 - min(max(cover, 0.001), 0.999))
    ramp = np.clip((noise - np.float32(threshold)) / np.float32(edge) + np.float32(0.5), 0, 1)
    return np.asarray(ramp * ramp * (3 - 2 * ramp), np.float32)
