"""Simulated regions on which cloud masks are judged: what the products show, what is true, what detectors say.

Files are read with rasterio by what their items and `truth/` say, not through the package.
"""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import pandas as pd
import rasterio
from numpy.typing import NDArray

from h2crop_data.sentinel2.clouds import CloudMethod, Detection, method_named, to_20_metres
from h2crop_data.simulate.region import simulate_region
from h2crop_data.simulate.settings import load_settings

#: The tile of the default place that shows the whole region.
TILE = "31UDP"
#: Asset keys of the bands in both archives.
KEYS = {
    "B01": "coastal",
    "B02": "blue",
    "B03": "green",
    "B04": "red",
    "B05": "rededge1",
    "B06": "rededge2",
    "B07": "rededge3",
    "B08": "nir",
    "B8A": "nir08",
    "B09": "nir09",
    "B10": "cirrus",
    "B11": "swir16",
    "B12": "swir22",
}
BANDS = ("B02", "B03", "B04", "B05", "B06", "B07", "B08", "B8A", "B11", "B12")
#: Metres across: 16 cells of 1,920 m and what is written around them.
SIDE = 4 * 1920 + 2 * 240
#: Rim in pixels of 10 m that is not judged, and every how many-th pixel is, in each direction.
RIM, STEP = 24, 4
FILL = -32768

Scalar = TypeVar("Scalar", bound=np.generic)


@dataclass(frozen=True)
class Region:
    """A region's dates in order of time; n dates, 20 m pixels unless said otherwise."""

    days: NDArray[np.datetime64]
    #: Azimuth and elevation of the sun, (n, 2).
    sun: NDArray[np.float64]
    classes: NDArray[np.uint8]
    #: Reflectance x 10000 (n, y, x) of B02, B8A, B11.
    blue: NDArray[np.int16]
    infrared: NDArray[np.int16]
    swir: NDArray[np.int16]
    #: By detector: cloud and shadow, (n, y, x).
    detected: dict[str, tuple[NDArray[np.bool_], NDArray[np.bool_]]]
    #: Cloud, cirrus, shadow, haze, snow in half percent at 10 m, (n, 5, y, x).
    sky: NDArray[np.uint8]
    #: Judged pixels, x 10000: what the products show, and the noise-free surface as a clear sky would show it that day,
    #: (n, 10, y, x).
    seen: NDArray[np.int16]
    surface: NDArray[np.int16]

    @property
    def months(self) -> NDArray[np.int64]:
        """The month of each date, 1..12."""
        return self.days.astype("datetime64[M]").astype(np.int64) % 12 + 1

    def of_dates(self, wanted: NDArray[np.bool_]) -> Region:
        """Some of the dates."""
        per_date = {name: value[wanted] for name, value in vars(self).items() if isinstance(value, np.ndarray)}
        detected = {name: (cloud[wanted], shadow[wanted]) for name, (cloud, shadow) in self.detected.items()}
        return replace(self, detected=detected, **per_date)


def make_region(folder: Path, settings: dict[str, Any], workers: int) -> None:
    """Simulate a region into a folder, unless it is there."""
    folder.parent.mkdir(parents=True, exist_ok=True)
    simulate_region(load_settings(None, settings), folder, workers=workers)


def read_region(folder: Path, methods: Sequence[str]) -> Region:
    """A region with what some detectors say of it."""
    offsets = pd.read_parquet(folder / "truth/scenes.parquet").set_index("scene")["offset_in_numbers"].to_dict()
    ground, top = items_of(folder, "sentinel-2-c1-l2a"), items_of(folder, "sentinel-2-l1c")
    parts: dict[str, list[Any]] = defaultdict(list)
    found: dict[str, list[Detection]] = {name: [] for name in methods}
    for day, item in sorted(ground.items()):
        image = Image(folder, item, int(offsets[item["id"]]))
        parts["sun"].append([item["properties"][f"view:sun_{angle}"] for angle in ("azimuth", "elevation")])
        parts["classes"].append(read(image.path("scl")))
        for name, band in (("blue", "B02"), ("infrared", "B8A"), ("swir", "B11")):
            parts[name].append(as_numbers(image.band(band, 20)))
        parts["seen"].append(np.stack([as_numbers(judged(image.band(band, 10))) for band in BANDS]))
        parts["sky"].append(sky_of(folder, day))
        parts["surface"].append(surface_of(folder, day))
        for name in methods:
            method = method_named(name)
            if method.level == "L1C":
                found[name].append(detection(method, Image(folder, top[day], int(offsets[top[day]["id"]]))))
            else:
                found[name].append(detection(method, image))
    detected = {
        name: (np.array([one.cloud for one in detections]), np.array([one.shadow for one in detections]))
        for name, detections in found.items()
    }
    days = np.array(sorted(ground), "datetime64[D]")
    return Region(days, detected=detected, **{name: np.array(values) for name, values in parts.items()})


@dataclass(frozen=True)
class Image:
    """One product."""

    folder: Path
    item: dict[str, Any]
    #: What is in the numbers of its files beside the reflectance.
    offset: int

    def path(self, key: str) -> Path:
        """The file of an asset."""
        return self.folder / "catalog" / str(self.item["assets"][key]["href"])

    def band(self, band: str, pixel: int) -> NDArray[np.float32]:
        """Reflectance 0..1 of a band (y, x) with pixels of a size, NaN where some of it is not there."""
        numbers = read(self.path(KEYS[band])).astype(np.float32)
        values = np.where(numbers == 0, np.nan, (numbers - self.offset) / 10_000)
        return at_pixel(values.astype(np.float32), pixel)


def detection(method: CloudMethod, image: Image) -> Detection:
    """What a detector says of an image, at 20 m."""
    bands = np.stack([image.band(band, method.pixel) for band in method.bands])
    imaged = ~np.isnan(bands).any(axis=0)
    found = method.detect(np.nan_to_num(bands), imaged)
    return Detection(to_20_metres(found.cloud, method.pixel), to_20_metres(found.shadow, method.pixel), None)


def items_of(folder: Path, catalog: str) -> dict[str, dict[str, Any]]:
    """The items of the tile by day; none where the archive was not written."""
    path = folder / "catalog" / f"{catalog}.json"
    features = json.loads(path.read_text(encoding="utf-8"))["features"] if path.exists() else []
    return {item["properties"]["datetime"][:10]: item for item in features if TILE in item["id"]}


def read(path: Path) -> NDArray[Any]:
    """The only band of a file."""
    with rasterio.open(path) as file:
        values: NDArray[Any] = file.read(1)
    return values


def at_pixel(values: NDArray[np.float32], pixel: int) -> NDArray[np.float32]:
    """A layer of the region (y, x) with pixels of a size: means, or repeated."""
    times = (SIDE // 10) // len(values)
    fine = values.repeat(times, 0).repeat(times, 1)
    rows = SIDE // pixel
    means: NDArray[np.float32] = fine.reshape(rows, pixel // 10, rows, pixel // 10).mean(axis=(1, 3))
    return means


def as_numbers(values: NDArray[np.float32]) -> NDArray[np.int16]:
    """Reflectance x 10000, FILL where it is NaN."""
    return np.where(np.isnan(values), FILL, np.rint(values * 10_000)).clip(FILL, 32767).astype(np.int16)


def judged(layer: NDArray[Scalar]) -> NDArray[Scalar]:
    """The judged pixels of a layer (..., y, x) at 10 m."""
    return layer[..., RIM:-RIM:STEP, RIM:-RIM:STEP]


def sky_of(folder: Path, day: str) -> NDArray[np.uint8]:
    """Cloud, cirrus, shadow, haze, snow of a day in half percent at 10 m."""
    with rasterio.open(folder / "truth/sentinel2" / day / "sky.tif") as file:
        layers: NDArray[np.uint8] = file.read()
    return layers


def surface_of(folder: Path, day: str) -> NDArray[np.int16]:
    """The judged pixels of the surface of a day, (10, y, x) x 10000, without clouds and noise."""
    layers = {}
    for pixel in (10, 20):
        with rasterio.open(folder / f"truth/sentinel2/{day}/surface_{pixel}m.tif") as file:
            for name, values in zip(file.descriptions, file.read(), strict=True):
                layers[name] = judged(at_pixel(values.astype(np.float32), 10))
    return np.rint(np.stack([layers[band] for band in BANDS])).astype(np.int16)
