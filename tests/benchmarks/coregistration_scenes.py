"""Scenes and references on which co-registration is judged, drawn by the simulator with known shifts.

Ground, crops, shadows and optics are the simulator's (`h2crop_data/simulate`); files are not written: bands are drawn
from the ground by day, sensor and shift, so that both detectors of a scene and every date lie where they are planted,
without resampling. Clouds, noise and masks are drawn here.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from h2crop_data.constants import COARSE, REFLECTANCE_FILL
from h2crop_data.enmap.coregistration import ReferenceView, SceneView
from h2crop_data.enmap.sentinel2_response import COMPARED_BANDS, DETECTOR_BANDS, sentinel2_weights
from h2crop_data.progress import silent
from h2crop_data.simulate.enmap.bands import enmap_bands
from h2crop_data.simulate.enmap.scenes import hyperspectral
from h2crop_data.simulate.ground import FineGround, RegionGround, layers_on_ground
from h2crop_data.simulate.land.landscape import write_landscape
from h2crop_data.simulate.layout import Layout
from h2crop_data.simulate.optics import margin, sample, sampling
from h2crop_data.simulate.scenes import ground_of_region
from h2crop_data.simulate.sentinel2.bands import SENTINEL2_MSI
from h2crop_data.simulate.sentinel2.scenes import PIXEL, msi_bands
from h2crop_data.simulate.settings import load_settings
from h2crop_data.simulate.sky.atmosphere import in_shade
from h2crop_data.simulate.sky.weather import sun_position
from h2crop_data.simulate.workers import started

#: Metres around the cells that scenes show, so that 256 pixels overlap whatever the shift.
ROOM = 120
#: Metres east and north that scenes are planted off, at most; how far SWIR lies from VNIR; the jitters of dates.
FARTHEST, APART, JITTERS = 90.0, 6.0, (0.0, 2.0, 5.0)
#: Days between a scene and its dates: the nearest and the farthest, as often as they stand here.
GAPS = ((0, 35), (0, 35), (35, 80), (80, 180))
#: References of a region, scenes drawn for each at other shifts.
REFERENCES, SCENES = 4, 3
#: Reflectance of the clouds that are laid over bands of both detectors.
CLOUD = {"vnir": 0.6, "swir": 0.4}

EastNorth = tuple[float, float]


@dataclass(frozen=True)
class Drawn:
    """A reference's dates and scenes of one day, without clouds over the scenes; d dates, s scenes."""

    #: x 10000: (d, 6, 2y, 2x) and (s, 6, y, x) int16.
    dates: NDArray[np.int16]
    scenes: NDArray[np.int16]
    #: Sentinel-2 on the day of the scenes, where it belongs, (6, 2y, 2x).
    same_day: NDArray[np.int16]
    water: NDArray[np.bool_]
    #: Where content lies, metres east and north: of each date, of both detectors of each scene.
    jitter: NDArray[np.float64]
    planted: NDArray[np.float64]
    #: Length of the longest jitter that could have been drawn.
    largest_jitter: float
    gap: int


def drawn_references(seed: int, folder: Path) -> Iterator[Drawn]:
    """The references of a region, each of other days."""
    simulation = load_settings(None, {"seed": seed, "cells": 16, "natural": {}, "enmap.scenes": 0})
    layout = Layout(simulation)
    folder.mkdir(parents=True, exist_ok=True)
    if not (folder / "truth/objects.parquet").exists():
        with started(1) as workers:
            write_landscape(layout, folder, workers, silent)
    ground = ground_of_region(folder, simulation.model_dump_json())
    sensors = {"enmap": enmap_six(), "sentinel2": sentinel2_six()}
    for number in range(REFERENCES):
        yield drawn_reference(ground, layout, sensors, np.random.default_rng([seed, number]), number)


@dataclass(frozen=True)
class Six:
    """COMPARED_BANDS of a sensor: reflectance of the endmembers (endmember, 6), share of diffuse light (6,)."""

    spectra: NDArray[np.float64]
    diffuse: NDArray[np.float32]


def enmap_six() -> Six:
    """EnMAP averaged within Sentinel-2's response."""
    spectra, sky = hyperspectral()
    weights = sentinel2_weights(*enmap_bands())
    return Six(spectra @ weights.T, (weights @ sky.diffuse).astype(np.float32))


def sentinel2_six() -> Six:
    """Sentinel-2's own."""
    spectra, sky = msi_bands()
    wanted = [SENTINEL2_MSI.index(name) for name in COMPARED_BANDS]
    return Six(spectra[:, wanted], sky.diffuse[wanted])


def drawn_reference(
    ground: RegionGround, layout: Layout, sensors: dict[str, Six], chance: np.random.Generator, number: int
) -> Drawn:
    """One reference and its scenes."""
    first = datetime(layout.simulation.seasons[0], 4, 20, 10, 58, tzinfo=UTC)
    day = first + timedelta(days=int(chance.integers(0, 40)) + 35 * number)
    nearest, farthest = GAPS[int(chance.integers(len(GAPS)))]
    wanted = int(chance.integers(1, 6)) if chance.random() < 0.5 else int(chance.integers(3, 6))
    gaps = chance.choice(np.arange(nearest, farthest), wanted, replace=False) * chance.choice((-1, 1), wanted)
    days = [kept_in_year(day, int(gap)) for gap in gaps]
    largest = float(chance.choice(JITTERS))
    length, angle = chance.uniform(0, largest, wanted), chance.uniform(0, 2 * np.pi, wanted)
    jitter = np.stack([length * np.cos(angle), length * np.sin(angle)], axis=1)
    vnir = chance.uniform(-FARTHEST, FARTHEST, (SCENES, 2))
    planted = np.stack([vnir, vnir + chance.uniform(-APART, APART, (SCENES, 2)) / np.sqrt(2)], axis=1)
    bounds = bounds_of(layout)
    dates = [date_at_15_metres(ground, layout, sensors["sentinel2"], one, bounds, tuple(by), chance)
             for one, by in zip(days, jitter.tolist(), strict=True)]  # fmt: skip
    scenes, water = scenes_of_day(ground, layout, sensors["enmap"], day, bounds, planted)
    same_day = date_at_15_metres(ground, layout, sensors["sentinel2"], day, bounds, (0.0, 0.0), chance)
    return Drawn(np.stack(dates), scenes, same_day, water, jitter, planted, largest, int(np.abs(gaps).max()))


def kept_in_year(day: datetime, gap: int) -> datetime:
    """The day so many days off, on the other side where that is another year."""
    other = day + timedelta(days=gap)
    return other if other.year == day.year else day - timedelta(days=gap)


def bounds_of(layout: Layout) -> tuple[int, int, int, int]:
    """What scenes and references show."""
    west, south, east, north = layout.bounds
    return west - ROOM, south - ROOM, east + ROOM, north + ROOM


def centres(bounds: tuple[int, int, int, int], size: int) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Easting of columns and northing of rows of pixels of a size."""
    west, south, east, north = bounds
    return np.arange(west + size / 2, east, size), np.arange(north - size / 2, south, -size)


def lit_ground(
    ground: RegionGround, layout: Layout, six: Six, moment: datetime, bounds: tuple[int, int, int, int], reach: int
) -> tuple[FineGround, NDArray[np.float32]]:
    """Fine ground on a day and its reflectance (6, y, x), shaded by woods and houses."""
    x, y = centres(bounds, 10)
    fine = ground.fine_ground(ground.epsg, (x[0], x[-1]), (y[0], y[-1]), reach)
    tables = ground.spectra(moment.date(), fine.objects, six.spectra)
    layers = layers_on_ground(fine, ground.roughness, tables, range(len(COMPARED_BANDS)))
    shade = fine.shade(sun_position(moment, *layout.centre))
    return fine, layers if shade is None else in_shade(layers, shade, six.diffuse)


def scenes_of_day(
    ground: RegionGround,
    layout: Layout,
    six: Six,
    moment: datetime,
    bounds: tuple[int, int, int, int],
    planted: NDArray[np.float64],
) -> tuple[NDArray[np.int16], NDArray[np.bool_]]:
    """EnMAP on a day at several shifts (s, detector, 2): (s, 6, y, x) x 10000, and where the first shows water."""
    fine, layers = lit_ground(ground, layout, six, moment, bounds, margin(COARSE, FARTHEST + APART))
    x, y = centres(bounds, COARSE)
    scenes = np.stack(
        [
            np.concatenate(
                [
                    sample(layers[part], sampling(y - north, COARSE, fine.y), sampling(x - east, COARSE, fine.x))
                    for part, (east, north) in zip(DETECTOR_BANDS.values(), shifts, strict=True)
                ]
            )
            for shifts in planted.tolist()
        ]
    )
    is_water = (ground.kinds == "water")[fine.objects][fine.places].astype(np.float32)
    water = sample(is_water[None], sampling(y, COARSE, fine.y), sampling(x, COARSE, fine.x))[0] > 0.1
    reach = 2 * round(FARTHEST / COARSE) + 1
    wide = cv2.dilate(water.view(np.uint8), np.ones((reach, reach), np.uint8)) > 0
    return np.asarray(np.rint(10_000 * scenes), np.int16), wide


def date_at_15_metres(
    ground: RegionGround,
    layout: Layout,
    six: Six,
    moment: datetime,
    bounds: tuple[int, int, int, int],
    shift: EastNorth,
    chance: np.random.Generator,
) -> NDArray[np.int16]:
    """Sentinel-2 on a day, shifted, with noise and gaps where clouds were: (6, 2y, 2x) x 10000 in pixels of 15 m."""
    fine, layers = lit_ground(ground, layout, six, moment, bounds, margin(20, 30))
    east, north = shift
    bands = []
    for name, layer in zip(COMPARED_BANDS, layers, strict=True):
        x, y = centres(bounds, PIXEL[name])
        rows, columns = sampling(y - north, PIXEL[name], fine.y), sampling(x - east, PIXEL[name], fine.x)
        band = sample(layer[None], rows, columns)[0]
        band += chance.normal(0, 0.002, band.shape).astype(np.float32)
        times = PIXEL[name] // 5
        finest = band.repeat(times, 0).repeat(times, 1)
        bands.append(finest.reshape(len(finest) // 3, 3, -1, 3).mean(axis=(1, 3)))
    values = np.asarray(np.rint(10_000 * np.stack(bands)), np.int16)
    cover = float(chance.choice((0.0, 0.0, 0.2, 0.4)))
    values[:, soft_cloud(values.shape[1:], cover, 16, chance) > 0] = REFLECTANCE_FILL
    return values


def soft_cloud(shape: tuple[int, ...], cover: float, size: float, chance: np.random.Generator) -> NDArray[np.float32]:
    """Opacity 0..1 (y, x) of clouds with soft edges over a share of the ground, some `size` pixels large."""
    if not cover:
        return np.zeros(shape, np.float32)
    room = int(4 * size)
    noise = chance.standard_normal((shape[0] + 2 * room, shape[1] + 2 * room)).astype(np.float32)
    field = cv2.GaussianBlur(noise, (0, 0), size)[room:-room, room:-room]
    return np.asarray(np.clip((field - np.quantile(field, 1 - cover)) / (0.5 * field.std()), 0, 1), np.float32)


def reference_of(drawn: Drawn, dates: int | None = None) -> tuple[ReferenceView, NDArray[np.float64]]:
    """The median of the first dates (all: None), and where it lies: the mean of their jitters."""
    layers = drawn.dates[:dates]
    known = layers != REFLECTANCE_FILL
    count = known.all(axis=1).sum(axis=0)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)
        median = np.nanmedian(np.where(known, layers, np.float32(np.nan)), axis=0)
    values = np.rint(np.where(count == 0, REFLECTANCE_FILL, median)).astype(np.int16)
    # Along an axis the jitter of a date has the variance largest**2 / 6.
    frame = drawn.largest_jitter / np.sqrt(6 * max(len(layers), 3))
    return ReferenceView(values, count.astype(np.uint8), float(frame)), drawn.jitter[:dates].mean(axis=0)


def scene_of(
    drawn: Drawn, number: int, cover: float, noise: float, chance: np.random.Generator, missed: float = 0.0
) -> SceneView:
    """A scene under soft clouds with noise; missed: share of the cloud that the mask does not have."""
    bands = drawn.scenes[number].astype(np.float32)
    opacity = soft_cloud(bands.shape[1:], cover, float(chance.uniform(4, 12)), chance)
    for detector, part in DETECTOR_BANDS.items():
        bands[part] += opacity * (10_000 * CLOUD[detector] - bands[part])
    bands += chance.normal(0, 10_000 * noise, bands.shape)
    masked = opacity > 0
    if missed and masked.any():
        patches = soft_cloud(masked.shape, 0.5, 6, chance) + chance.uniform(0, 1e-3, masked.shape)
        masked &= patches <= np.quantile(patches[masked], 1 - missed)
    clear = cv2.dilate(masked.view(np.uint8), np.ones((3, 3), np.uint8)) == 0
    return SceneView(np.rint(bands).astype(np.int16), clear, drawn.water)
