"""Small Sentinel-2 granules in real file formats: on grids of MGRS tiles, with swath edges, clouds and faults.

Numbers are smooth over the ground with noise of each scene's own, so that every pixel tells which scene it comes from.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import rasterio
import shapely
import yaml
from affine import Affine
from numpy.typing import NDArray
from pyproj import Transformer
from stac_items import item_json
from tiny_region import CLASSES_ALONE

from h2crop_data.recipe.model import Recipe, load_recipe

#: Band -> asset key, metres of a pixel, reflectance x 10000 of the ground on average.
BANDS = {"B02": ("blue", 10, 600), "B08": ("nir", 10, 3000), "B11": ("swir16", 20, 2000)}
#: Numbers of files since baseline 04.00 are so much above reflectance x 10000.
OFFSET = 1000
CLEAR_CLASSES, CLOUDY_CLASSES = (4, 5, 6), (3, 7, 8, 9, 10)
DEFLATE = {"driver": "GTiff", "compress": "deflate"}
#: Ways of files to keep their pixels.
STRIPS = {**DEFLATE, "blockysize": 24}
WHOLE = {"driver": "GTiff", "blockysize": 100_000}
COG = {"driver": "COG", "compress": "deflate", "predictor": "yes", "blocksize": 128, "overviews": "auto"}
JPEG2000 = {"driver": "JP2OpenJPEG", "quality": "100", "reversible": "yes", "blockxsize": 128, "blockysize": 128}


def tiles(pixels: int, **options: Any) -> dict[str, Any]:
    """Square internal tiles of so many pixels a side."""
    return {**DEFLATE, "tiled": True, "blockxsize": pixels, "blockysize": pixels, **options}


@dataclass(frozen=True)
class Grid:
    """The pixel grid of an MGRS tile: upper left corner, width and height in metres of its zone."""

    tile: str
    west: int
    north: int
    width: int
    height: int

    @property
    def epsg(self) -> int:
        """The zone, by the name of the tile."""
        return 32600 + int(self.tile[:2])

    @property
    def ground(self) -> shapely.Polygon:
        """All of it in its zone."""
        return shapely.box(self.west, self.north - self.height, self.west + self.width, self.north)

    def east_of(self, top: float, bottom: float) -> shapely.Polygon:
        """The ground east of a slanting swath edge, which begins and ends at shares of the width from the west."""
        first, last = self.west + top * self.width, self.west + bottom * self.width
        east, south = self.west + self.width, self.north - self.height
        return shapely.Polygon([(first, self.north), (east, self.north), (east, south), (last, south)])

    def west_of(self, top: float, bottom: float) -> shapely.Polygon:
        """The ground west of such an edge."""
        return self.ground.difference(self.east_of(top, bottom))

    def north_of(self, share: float) -> shapely.Polygon:
        """The ground above a level line, at a share of the height from the north."""
        return shapely.box(self.west, self.north - share * self.height, self.west + self.width, self.north)

    def south_of(self, share: float) -> shapely.Polygon:
        """The ground below such a line."""
        return self.ground.difference(self.north_of(share))

    def centres(self, size: int) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """x of the columns and y of the rows of pixels of `size` metres, as a row and a column."""
        x = self.west + size * (np.arange(self.width // size) + 0.5)
        y = self.north - size * (np.arange(self.height // size) + 0.5)
        return x[None, :], y[:, None]


@dataclass
class Archive:
    """Granules below a folder; call `add`, then `recipe`."""

    folder: Path
    layout: dict[str, Any] = field(default_factory=lambda: tiles(128))
    items: list[dict[str, Any]] = field(default_factory=list)

    def add(
        self,
        grid: Grid,
        day: str,
        *,
        data: shapely.Polygon | None = None,
        began: str | None = None,
        satellite: str = "S2A",
        strip: str | None = None,
        part: str = "",
        baseline: str = "05.00",
        cloudy: float = 0.4,
        faulty: float = 0.01,
        rare: float = 0.01,
        level: float | None = None,
        noise: float = 0.05,
        coarse_edges: bool = False,
        layout: dict[str, Any] | None = None,
    ) -> Path:
        """A granule of a tile and day; gives its folder.

        data: ground that its swath shows, all of the grid by default; elsewhere it has 0, in SCL too. began: when the
        datatake began, at 10:46:19 of the day by default. strip: when its datastrip began. part: what its id has at the
        end, for several granules of a tile. cloudy: share of pixels under clouds. faulty: share of those without a
        number in one band, or with one that is too bright. rare: share of single pixels of other classes or of none.
        level: factor of all reflectances, by chance by default. noise: its standard deviation as a share. coarse_edges:
        data end on borders of 20 m pixels in the 10 m bands too.
        """
        start = datetime.fromisoformat(began or f"{day}T10:46:19")
        name = f"{satellite}_{grid.tile}_{start:%Y%m%dT%H%M%S}{part}"
        shown = grid.ground if data is None else data
        rng = np.random.default_rng([len(self.items), *name.encode()])
        classes = np.where(inside(shown, grid, 20), scene_classes(grid, cloudy, rare, rng), np.uint8(0))
        level = rng.uniform(0.8, 1.2) if level is None else level
        offset = OFFSET if baseline >= "04.00" else 0
        pixels = {}
        for band, (_, size, reflectance) in BANDS.items():
            ground = scene_reflectance(grid, classes, size, level * reflectance, noise, rng)
            pixels[band] = with_faults(ground + offset, faulty / len(BANDS), offset, rng)
            edge = inside(shown, grid, 20) if coarse_edges else inside(shown, grid, size)
            pixels[band][~enlarged(edge, pixels[band].shape)] = 0
        folder = self.folder / name
        folder.mkdir(parents=True)
        assets = {
            key: write_asset(folder, key, grid, size, pixels[band], layout or self.layout)
            for band, (key, size, _) in BANDS.items()
        }
        assets["scl"] = write_asset(folder, "scl", grid, 20, classes, layout or self.layout)
        item = item_json(
            name,
            time=f"{start + timedelta(minutes=4):%Y-%m-%dT%H:%M:%SZ}",
            assets=assets,
            s2__mgrs_tile=grid.tile,
            s2__processing_baseline=baseline,
            s2__datatake_id=f"{satellite}_{start:%Y%m%dT%H%M%S}_012345_N{baseline}",
            proj__epsg=grid.epsg,
        )
        if strip:
            item["properties"]["s2:datastrip_id"] = f"{satellite}_OPER_MSI_L2A_DS_2APS_{start:%Y%m%dT%H%M%S}_S{strip}_N"
        to_lonlat = Transformer.from_crs(f"EPSG:{grid.epsg}", "OGC:CRS84", always_xy=True).transform
        footprint = shapely.transform(shown, to_lonlat, interleaved=False)
        item |= {"geometry": json.loads(shapely.to_geojson(footprint)), "bbox": list(footprint.bounds)}
        self.items.append(item)
        return folder

    def recipe(self, bounds: tuple[float, ...], crs: str = "EPSG:32631", **changes: Any) -> Recipe:
        """The recipe of the cells in some bounds, Sentinel-2 alone; `changes` replace or update its parts."""
        collection = {"type": "FeatureCollection", "features": self.items}
        (self.folder / "items.json").write_text(json.dumps(collection), encoding="utf-8")
        document: dict[str, Any] = {
            "name": "granules",
            "area": {"bbox": list(bounds), "crs": crs, "cells": "centre"},
            "seasons": [2022],
            "cell_size": 480,
            "split": {"shares": {"train": 1, "val": 0, "test": 0}},
            "store": {"block_capacity": 5},
            "sentinel2": {"catalog": "items.json", "bands": list(BANDS), "clouds": CLASSES_ALONE, "alignment": "none"},
        }
        for key, change in changes.items():
            document[key] = {**document.get(key, {}), **change} if isinstance(change, dict) else change
        path = self.folder / "recipe.yaml"
        path.write_text(yaml.safe_dump(document), encoding="utf-8")
        return load_recipe(path)


def inside(ground: shapely.Polygon, grid: Grid, size: int) -> NDArray[np.bool_]:
    """Which pixels of `size` metres have their centre in some ground, (y, x)."""
    x, y = np.broadcast_arrays(*grid.centres(size))
    return np.asarray(shapely.contains_xy(ground, x, y), bool)


def enlarged(pixels: NDArray[Any], shape: tuple[int, ...]) -> NDArray[Any]:
    """Pixels (y, x) repeated so that they fill a shape."""
    return pixels.repeat(shape[0] // pixels.shape[0], axis=0).repeat(shape[1] // pixels.shape[1], axis=1)


def smooth_ranks(grid: Grid, size: int, rng: np.random.Generator) -> NDArray[np.float64]:
    """A field of waves over the ground, (y, x), by rank: a share s of the pixels is below s."""
    x, y = grid.centres(size)
    waves = np.zeros((y.size, x.size))
    for _ in range(6):
        length, angle, phase = rng.uniform(500, 2500), rng.uniform(0, np.pi), rng.uniform(0, 2 * np.pi)
        waves += np.sin((x * np.cos(angle) + y * np.sin(angle)) * 2 * np.pi / length + phase)
    ranks = np.empty(waves.size)
    ranks[waves.ravel().argsort()] = np.arange(waves.size) / waves.size
    return ranks.reshape(waves.shape)


def scene_classes(grid: Grid, cloudy: float, rare: float, rng: np.random.Generator) -> NDArray[np.uint8]:
    """A scene classification at 20 m: land, clouds over a share of it, single pixels of rare classes and of none."""
    land, sky = smooth_ranks(grid, 20, rng), smooth_ranks(grid, 20, rng)
    classes = np.array(CLEAR_CLASSES, np.uint8)[(land * len(CLEAR_CLASSES)).astype(int)]
    if cloudy:
        kinds = np.array(CLOUDY_CLASSES, np.uint8)[
            (sky / cloudy * len(CLOUDY_CLASSES)).astype(int) % len(CLOUDY_CLASSES)
        ]
        classes = np.where(sky < cloudy, kinds, classes)
    single = rng.random(classes.shape) < rare
    classes[single] = rng.choice(np.array([0, 1, 2, 11], np.uint8), single.sum())
    return classes


def scene_reflectance(
    grid: Grid, classes: NDArray[np.uint8], size: int, mean: float, noise: float, rng: np.random.Generator
) -> NDArray[np.int64]:
    """Reflectance x 10000 of a band of a scene, (y, x): smooth ground of some mean, bright clouds, noise."""
    x, y = grid.centres(size)
    ground = mean * (1 + 0.3 * np.sin(x / 300) * np.cos(y / 400))
    clouds = 4000 * np.isin(enlarged(classes, ground.shape), CLOUDY_CLASSES)
    return np.rint(ground + rng.normal(0, noise * mean, ground.shape) + clouds).astype(np.int64)


def with_faults(numbers: NDArray[np.int64], share: float, offset: int, rng: np.random.Generator) -> NDArray[np.uint16]:
    """The numbers of a band as a file holds them: of a share of its pixels some are 0, some as bright as nothing is."""
    odd = rng.random(numbers.shape) < share
    # 20000 is the brightest that counts.
    kinds = np.array([0, 0, 20_000 + offset, 20_001 + offset, 40_000, 65_535])
    numbers = np.clip(numbers, 1, 65_535)
    numbers[odd] = rng.choice(kinds, odd.sum())
    return numbers.astype(np.uint16)


def write_asset(
    folder: Path, key: str, grid: Grid, size: int, pixels: NDArray[Any], layout: dict[str, Any]
) -> dict[str, Any]:
    """Write one file of a granule; gives the asset, whose href starts from the folder above."""
    path = folder / f"{key}.{'jp2' if layout['driver'] == JPEG2000['driver'] else 'tif'}"
    transform = Affine(size, 0, grid.west, 0, -size, grid.north)
    profile = {"width": pixels.shape[1], "height": pixels.shape[0], "count": 1, "dtype": pixels.dtype}
    if layout["driver"] != JPEG2000["driver"]:
        profile["nodata"] = 0
    with rasterio.open(path, "w", crs=f"EPSG:{grid.epsg}", transform=transform, **profile, **layout) as raster:
        raster.write(pixels, 1)
    placed = {"proj:shape": list(pixels.shape), "proj:transform": list(transform)[:6]}
    return {"href": f"./{folder.name}/{path.name}", **placed}
