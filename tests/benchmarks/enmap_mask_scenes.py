"""EnMAP scenes on which masks are judged, drawn by the simulator: their bands, what is true, what DLR's layers say.

Ground, sky, optics and noise are the simulator's (`h2crop_data/simulate`); files are not written. A day's ground is
drawn once and seen under several skies.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
from coregistration_scenes import bounds_of, centres
from numpy.typing import NDArray

from h2crop_data.cast_shadows import apparent_sun
from h2crop_data.constants import COARSE
from h2crop_data.enmap.clouds import MASK_WAVELENGTHS
from h2crop_data.enmap.shadows import satellite_azimuths
from h2crop_data.progress import silent
from h2crop_data.simulate.enmap.bands import enmap_bands, enmap_response
from h2crop_data.simulate.enmap.layer_errors import ERRORS_REACH, missed_layers, widened
from h2crop_data.simulate.enmap.scenes import abundance_pixels, noise_of_bands, quality_layers
from h2crop_data.simulate.land.landscape import write_landscape
from h2crop_data.simulate.layout import Layout
from h2crop_data.simulate.overpasses import EnmapPass
from h2crop_data.simulate.plants.spectra import ENDMEMBERS, WAVELENGTHS, endmember_spectra
from h2crop_data.simulate.randomness import key_of
from h2crop_data.simulate.scenes import ground_of_region
from h2crop_data.simulate.settings import LayerErrors, load_settings
from h2crop_data.simulate.sky.atmosphere import at_ground, bands_of, corrected, in_shade
from h2crop_data.simulate.sky.clouds import CloudKind, CloudLayer, Sun
from h2crop_data.simulate.sky.weather import Sky, Weather, sun_position, weather_over
from h2crop_data.simulate.workers import started

#: Months of the days of a region; snow lies in the last of them only.
MONTHS = (3, 5, 7, 9, 2)
#: Skies over each day: kinds of low clouds, each of a height of its own, and their cover; opacity of cirrus, density of
#: haze.
SKIES: tuple[tuple[tuple[CloudKind, ...], tuple[float, float], float, float], ...] = (
    ((), (0, 0), 0.0, 0.0),
    (("humilis",), (0.01, 0.06), 0.0, 0.0),
    (("humilis",), (0.06, 0.2), 0.0, 0.4),
    (("mediocris",), (0.03, 0.15), 0.0, 0.0),
    (("mediocris",), (0.1, 0.35), 0.2, 0.0),
    (("stratocumulus",), (0.1, 0.4), 0.0, 0.0),
    (("humilis", "stratocumulus"), (0.05, 0.15), 0.0, 0.0),
)
#: Aerosol that the correction leaves in, in the blue: over the whole scene, and from place to place.
AEROSOL = (0.007, 0.003)
#: Opacities of the thinnest and thickest of those skies' cores.
CORES = (0.5, 1.0)
#: Degrees to which a scene is looked at from the side.
FARTHEST_OFF_NADIR = 20.0


@dataclass(frozen=True)
class MaskScene:
    """One scene and the truth of it; everything (y, x) in pixels of 30 m."""

    name: str
    #: Its place in SKIES.
    sky: int
    #: (band, y, x) float32, at MASK_WAVELENGTHS.
    reflectance: NDArray[np.float32]
    #: Where the sun and the satellite stand: azimuth and elevation, azimuth and zenith angle, in degrees.
    sun: tuple[float, float]
    view: tuple[float, float]
    weather: Weather
    water: NDArray[np.bool_]
    #: Layers of DLR as the simulator spoils them, by asset key.
    layers: dict[str, NDArray[np.uint8]]
    #: Reflectance of the ground without a sky, blue.
    ground_blue: NDArray[np.float32]


def mask_scenes(seed: int, folder: Path) -> Iterator[MaskScene]:
    """The scenes of a region."""
    simulation = load_settings(None, {"seed": seed, "cells": 16, "natural": {}, "enmap.scenes": 0})
    layout = Layout(simulation)
    folder.mkdir(parents=True, exist_ok=True)
    if not (folder / "truth/objects.parquet").exists():
        with started(1) as workers:
            write_landscape(layout, folder, workers, silent)
    ground = ground_of_region(folder, simulation.model_dump_json())
    centre, fwhm = enmap_bands()
    wanted = [int(np.abs(centre - nm).argmin()) for nm in MASK_WAVELENGTHS]
    response = enmap_response(centre[wanted], fwhm[wanted])
    spectra = endmember_spectra().astype(np.float64)
    seen_bands = spectra @ response
    sky_bands = bands_of(WAVELENGTHS, response, spectra[ENDMEMBERS.index("snow")])
    noise = noise_of_bands()[wanted]
    x, y = centres(bounds_of(layout), COARSE)
    for month in MONTHS:
        chance = np.random.default_rng([seed, month])
        moment = datetime(simulation.seasons[0], month, int(chance.integers(3, 26)), 10, 58, tzinfo=UTC)
        sun = sun_position(moment, *layout.centre)
        look = EnmapPass(moment, 0, sun, Sky(0, sun, (), 0.0, 0.0), (0.0, 0.0), 1.0, 0.0)
        pixels = abundance_pixels(ground, look, x, y, 0)
        flat = pixels.abundances.reshape(len(pixels.abundances), -1).astype(np.float64)
        lit = np.asarray(seen_bands.T @ flat, np.float32).reshape(-1, *pixels.water.shape)
        surface = lit if pixels.shade is None else in_shade(lit, pixels.shade, sky_bands.diffuse)
        for number, sky in enumerate(skies(seed, month, sun, chance)):
            side = satellite_azimuths(layout.centre[1])[int(chance.integers(2))]
            view = (side, float(chance.uniform(0, FARTHEST_OFF_NADIR)))
            apparent = apparent_sun((sun.azimuth, sun.elevation), view)
            seen_sky = replace(sky, sun=Sun(*apparent))
            weather = weather_over(seen_sky, x, y)
            values = corrected(at_ground(surface, weather, sky_bands, pixels.shade), weather, sky_bands)
            values += noise[:, None, None] * chance.standard_normal(values.shape).astype(np.float32)
            inside = np.ones(pixels.water.shape, bool)
            layers = quality_layers(weather, pixels.water, inside)
            wide = widened(x, ERRORS_REACH), widened(y, -ERRORS_REACH)
            layers |= missed_layers(layers, weather.shadow, seen_sky, wide, LayerErrors())
            yield MaskScene(
                f"{seed}-{month:02d}-{number}",
                number,
                values.astype(np.float32),
                (sun.azimuth, sun.elevation),
                view,
                weather,
                pixels.water,
                layers,
                surface[1],
            )


def skies(seed: int, month: int, sun: Sun, chance: np.random.Generator) -> Iterator[Sky]:
    """The skies over a day."""
    for number, (kinds, cover, cirrus, haze) in enumerate(SKIES):
        layers = [CloudLayer(kind, float(chance.uniform(*cover)), float(chance.uniform(*CORES))) for kind in kinds]
        if cirrus:
            layers.append(CloudLayer("cirrus", float(chance.uniform(0.15, 0.5)), cirrus))
        snow = float(chance.uniform(0.2, 0.9)) if month in (12, 1, 2) else 0.0
        aerosol = (float(AEROSOL[0] * chance.standard_normal()), AEROSOL[1])
        yield Sky(key_of(seed, "mask", month, number), sun, tuple(layers), haze, snow, True, aerosol)
