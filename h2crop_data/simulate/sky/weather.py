"""Clouds, their shadows, haze and snow over a moment's ground: fields of coordinates, the same in whatever window.

Three kinds of clouds, each a sum of smooth noises cut at the quantile of its cover with a soft edge: cumulus (small,
low), stratus (wide) and cirrus (thin, high, in streaks). The shadow of a cloud lies where the line to the sun meets it.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from datetime import datetime
from statistics import NormalDist
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from h2crop_data.simulate.randomness import generator, key_of, noise_grid
from h2crop_data.simulate.settings import SkySettings

#: Layers of the truth of a sky.
SKY_LAYERS = ("cloud", "cirrus", "shadow", "haze", "snow")
CloudKind = Literal["cumulus", "stratus", "cirrus"]


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
}
#: Spacing in metres and weight of the noises of snow's depth.
SNOW_DRIFTS = ((3000, 1.0), (300, 0.3), (110, 0.25), (40, 0.15))


@dataclass(frozen=True)
class CloudLayer:
    """Clouds of one kind."""

    kind: CloudKind
    #: Share of the ground under it, in the mean over much ground.
    cover: float
    #: Opacity of its thickest parts, 0..1.
    opacity: float


@dataclass(frozen=True)
class Sun:
    """Where the sun stands, in degrees; azimuth from north over east."""

    azimuth: float
    elevation: float


@dataclass(frozen=True)
class Sky:
    """The weather of one moment."""

    key: int
    sun: Sun
    layers: tuple[CloudLayer, ...]
    #: Largest density of haze, 0..1.
    haze: float
    #: Share of the ground under snow.
    snow: float


@dataclass(frozen=True)
class Weather:
    """The sky over a grid; each (y, x) float32, 0..1."""

    #: Opacity of cumulus and stratus, and of cirrus.
    cloud: NDArray[np.float32]
    cirrus: NDArray[np.float32]
    #: Share of the direct sunlight that clouds keep from the ground.
    shadow: NDArray[np.float32]
    haze: NDArray[np.float32]
    snow: NDArray[np.float32]


def half_percents(weather: Weather) -> NDArray[np.uint8]:
    """SKY_LAYERS (layer, y, x) in half percent, rounded up: 0 means none at all."""
    fields = np.stack([getattr(weather, layer) for layer in SKY_LAYERS])
    return np.asarray(np.ceil(fields * 200), np.uint8)


def sun_position(moment: datetime, longitude: float, latitude: float) -> Sun:
    """Sun angles by Spencer's series for declination and equation of time (1971); within half a degree."""
    angle = 2 * math.pi * (moment.timetuple().tm_yday - 1) / 365
    declination = (
        0.006918
        - 0.399912 * math.cos(angle)
        + 0.070257 * math.sin(angle)
        - 0.006758 * math.cos(2 * angle)
        + 0.000907 * math.sin(2 * angle)
    )
    late = 229.18 * (0.000075 + 0.001868 * math.cos(angle) - 0.032077 * math.sin(angle))
    late -= 229.18 * (0.014615 * math.cos(2 * angle) + 0.04089 * math.sin(2 * angle))
    minutes = moment.hour * 60 + moment.minute + moment.second / 60 + late + 4 * longitude
    hour = math.radians(minutes / 4 - 180)
    north = math.radians(latitude)
    height = math.sin(north) * math.sin(declination) + math.cos(north) * math.cos(declination) * math.cos(hour)
    east = -math.cos(declination) * math.sin(hour)
    ahead = math.cos(north) * math.sin(declination) - math.sin(north) * math.cos(declination) * math.cos(hour)
    return Sun(math.degrees(math.atan2(east, ahead)) % 360, math.degrees(math.asin(height)))


def draw_sky(seed: int, name: str, settings: SkySettings, month: int, sun: Sun) -> Sky:
    """The sky of the moment called `name`."""
    chance = generator(seed, "sky", name)
    layers = []
    if settings.cloudiness > 0:
        # Skies are mostly clear or mostly covered: a beta distribution with most of its weight at the ends.
        weight = 0.7
        mean = min(settings.cloudiness, 0.999)
        cover = float(chance.beta(weight * mean, weight * (1 - mean)))
        kind: CloudKind = "stratus" if chance.random() < 0.3 + 0.5 * cover else "cumulus"
        if cover > 0.005:
            layers.append(CloudLayer(kind, min(cover, 0.999), float(chance.uniform(0.65, 1.0))))
    if chance.random() < settings.cirrus:
        layers.append(CloudLayer("cirrus", float(chance.uniform(0.15, 0.7)), float(chance.uniform(0.06, 0.38))))
    haze = float(chance.uniform(0.2, 1.0)) if chance.random() < settings.haze else 0.0
    snow = float(chance.uniform(0.2, 0.95)) if month in (12, 1, 2) and chance.random() < settings.snow else 0.0
    return Sky(key_of(seed, "sky", name), sun, tuple(layers), haze, snow)


def weather_over(sky: Sky, x: NDArray[np.float64], y: NDArray[np.float64]) -> Weather:
    """The sky over a grid with columns at x and rows at y (metres)."""
    shape = (len(y), len(x))
    cloud, cirrus, shadow, haze, snow = (np.zeros(shape, np.float32) for _ in range(5))
    for layer in sky.layers:
        opacity = cloud_opacity(sky.key, layer, x, y)
        if layer.kind == "cirrus":
            cirrus = np.maximum(cirrus, opacity)
        else:
            cloud = np.maximum(cloud, opacity)
        reach = FORMS[layer.kind].height / math.tan(math.radians(max(sky.sun.elevation, 10.0)))
        toward = math.radians(sky.sun.azimuth)
        above = cloud_opacity(sky.key, layer, x + reach * math.sin(toward), y + reach * math.cos(toward))
        # Cirrus is thin: what it keeps from the ground is spread by the haze below it.
        shadow = np.maximum(shadow, above * (0.3 if layer.kind == "cirrus" else 1.0))
    if sky.haze:
        haze = sky.haze * soft_cover(noise_grid(sky.key ^ 1, x, y, 4000), 0.5, 2.0)
    if sky.snow:
        depth = sum_of_noises(sky.key ^ 2, SNOW_DRIFTS, x, y)
        # Thin snow lets the ground through.
        snow = soft_cover(depth, sky.snow, 0.4) * (0.65 + np.float32(0.3) * rank_within(depth, sky.snow))
    return Weather(cloud, cirrus, shadow, haze.astype(np.float32), snow)


def cloud_opacity(key: int, layer: CloudLayer, x: NDArray[np.float64], y: NDArray[np.float64]) -> NDArray[np.float32]:
    """Opacity (y, x) float32 of one layer of clouds."""
    form = FORMS[layer.kind]
    depth = sum_of_noises(key + len(layer.kind), form.octaves, x / form.stretch, y)
    thickness = form.thin + np.float32(1 - form.thin) * rank_within(depth, layer.cover)
    return layer.opacity * thickness * soft_cover(depth, layer.cover, form.edge)


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
