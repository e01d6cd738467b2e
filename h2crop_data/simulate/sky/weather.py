"""The weather of a moment, drawn from the settings, and over a grid: the same in whatever window.

Plain skies hold cumulus or stratus, cirrus, haze and snow. Natural ones also have what makes real ones hard to mask:
opaque overcast, small cumulus, thin edges, blurred shadows, and the aerosol that the correction to L2A leaves in.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from datetime import datetime

import numpy as np
from numpy.typing import NDArray

from h2crop_data.simulate.randomness import generator, key_of, noise_grid
from h2crop_data.simulate.settings import SkySettings
from h2crop_data.simulate.sky.clouds import (
    CloudKind,
    CloudLayer,
    Sun,
    cast_shadow,
    cloud_opacity,
    overcast_brightness,
    rank_within,
    soft_cover,
    sum_of_noises,
)

#: Layers of the truth of a sky.
SKY_LAYERS = ("cloud", "cirrus", "shadow", "haze", "snow")
#: Spacing in metres and weight of the noises of snow's depth.
SNOW_DRIFTS = ((3000, 1.0), (300, 0.3), (110, 0.25), (40, 0.15))
#: Natural skies from this cover on are overcast.
OVERCAST_FROM = 0.8
#: Blue of an overcast date: median, spread of its logarithm, limits; by which share of itself it varies. Opaque
#: overcast over Flanders (2017/18) has 0.39 to 1.6, 0.7 in the middle, and varies within 640 m by 2 to 30 %.
OVERCAST_BLUE, OVERCAST_SPREAD, OVERCAST_LIMITS, OVERCAST_CONTRAST = 0.72, 0.35, (0.55, 1.3), (0.1, 0.3)
#: Opacity of the cores of other low clouds.
CORES: dict[CloudKind, tuple[float, float]] = {
    "humilis": (0.55, 1.0),
    "mediocris": (0.75, 1.0),
    "stratocumulus": (0.85, 1.0),
}
#: Share of the aerosol's variance that is the same over a whole date; spacing in metres of the rest.
AEROSOL_OF_DATE, AEROSOL_SCALE = 0.8, 15_000


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
    #: Whether shadows are blurred by the sun's disc.
    natural: bool = False
    #: Aerosol left in, as reflectance in the blue: mean of the date, and standard deviation over the ground.
    aerosol: tuple[float, float] = (0.0, 0.0)


@dataclass(frozen=True)
class Weather:
    """The sky over a grid; each (y, x) float32, 0..1 where nothing else is said."""

    #: Opacity of low clouds, and of cirrus.
    cloud: NDArray[np.float32]
    cirrus: NDArray[np.float32]
    #: Share of the direct sunlight that clouds keep from the ground.
    shadow: NDArray[np.float32]
    haze: NDArray[np.float32]
    snow: NDArray[np.float32]
    #: Reflectance in the blue that aerosol adds or, where the correction took too much, takes; None: nowhere any.
    aerosol: NDArray[np.float32] | None = None
    #: Reflectance in the blue of an overcast sky; None where low clouds are as bright as they are opaque.
    brightness: NDArray[np.float32] | None = None


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


def draw_sky(
    seed: int,
    name: str,
    settings: SkySettings,
    month: int,
    sun: Sun,
    *,
    natural: bool = False,
    aerosol: float = 0.0,
) -> Sky:
    """The sky of the moment called `name`; aerosol: its standard deviation from date to date, in the blue."""
    chance = generator(seed, "sky", name)
    layers = []
    if settings.cloudiness > 0:
        # Skies are mostly clear or mostly covered: a beta distribution with most of its weight at the ends.
        weight = 0.7
        mean = min(settings.cloudiness, 0.999)
        cover = float(chance.beta(weight * mean, weight * (1 - mean)))
        kind: CloudKind = "stratus" if chance.random() < 0.3 + 0.5 * cover else "cumulus"
        if cover > 0.005:
            plain = CloudLayer(kind, min(cover, 0.999), float(chance.uniform(0.65, 1.0)))
            # From a generator of their own: cover, cirrus, haze and snow are those of the plain sky.
            layers.append(natural_clouds(generator(seed, "clouds", name), cover) if natural else plain)
    if chance.random() < settings.cirrus:
        layers.append(CloudLayer("cirrus", float(chance.uniform(0.15, 0.7)), float(chance.uniform(0.06, 0.38))))
    haze = float(chance.uniform(0.2, 1.0)) if chance.random() < settings.haze else 0.0
    snow = float(chance.uniform(0.2, 0.95)) if month in (12, 1, 2) and chance.random() < settings.snow else 0.0
    left = (0.0, 0.0)
    if aerosol:
        of_date = generator(seed, "aerosol", name).standard_normal()
        left = (
            float(aerosol * math.sqrt(AEROSOL_OF_DATE) * of_date),
            float(aerosol * math.sqrt(1 - AEROSOL_OF_DATE)),
        )
    return Sky(key_of(seed, "sky", name), sun, tuple(layers), haze, snow, natural, left)


def natural_clouds(chance: np.random.Generator, cover: float) -> CloudLayer:
    """The low clouds of a natural sky: the less there is of them, the smaller they are."""
    kind_of, core = float(chance.random()), float(chance.random())
    if cover > OVERCAST_FROM:
        brightness = float(
            np.clip(OVERCAST_BLUE * math.exp(OVERCAST_SPREAD * chance.standard_normal()), *OVERCAST_LIMITS)
        )
        contrast = float(chance.uniform(*OVERCAST_CONTRAST))
        return CloudLayer("overcast", 1.0, 1.0, brightness, contrast)
    kind: CloudKind = "stratocumulus" if kind_of < 0.3 + 0.5 * cover else "mediocris"
    if cover < 0.3 and kind_of > 0.4:
        kind = "humilis"
    low, high = CORES[kind]
    return CloudLayer(kind, cover, low + (high - low) * core)


def clouds_over(
    sky: Sky, x: NDArray[np.float64], y: NDArray[np.float64]
) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Opacity of low clouds and of cirrus, each (y, x), over a grid with columns at x and rows at y (metres)."""
    cloud, cirrus = (np.zeros((len(y), len(x)), np.float32) for _ in range(2))
    for layer in sky.layers:
        opacity = cloud_opacity(sky.key, layer, x, y)
        if layer.kind == "cirrus":
            cirrus = np.maximum(cirrus, opacity)
        else:
            cloud = np.maximum(cloud, opacity)
    return cloud, cirrus


def weather_over(sky: Sky, x: NDArray[np.float64], y: NDArray[np.float64]) -> Weather:
    """The sky over a grid with columns at x and rows at y (metres)."""
    shape = (len(y), len(x))
    shadow, haze, snow = (np.zeros(shape, np.float32) for _ in range(3))
    cloud, cirrus = clouds_over(sky, x, y)
    brightness = None
    for layer in sky.layers:
        shadow = np.maximum(shadow, cast_shadow(sky.key, layer, sky.sun, x, y, blurs=sky.natural))
        if layer.kind == "overcast":
            brightness = overcast_brightness(sky.key, layer, x, y)
    if sky.haze:
        haze = sky.haze * soft_cover(noise_grid(sky.key ^ 1, x, y, 4000), 0.5, 2.0)
    if sky.snow:
        depth = sum_of_noises(sky.key ^ 2, SNOW_DRIFTS, x, y)
        # Thin snow lets the ground through.
        snow = soft_cover(depth, sky.snow, 0.4) * (0.65 + np.float32(0.3) * rank_within(depth, sky.snow))
    aerosol = aerosol_over(sky, x, y) if any(sky.aerosol) else None
    return Weather(cloud, cirrus, shadow, haze.astype(np.float32), snow, aerosol, brightness)


def aerosol_over(sky: Sky, x: NDArray[np.float64], y: NDArray[np.float64]) -> NDArray[np.float32]:
    """Reflectance (y, x) float32 in the blue that the correction of a date left in, or took too much of."""
    mean, spread = sky.aerosol
    return np.float32(mean) + np.float32(spread) * noise_grid(sky.key ^ 4, x, y, AEROSOL_SCALE)
