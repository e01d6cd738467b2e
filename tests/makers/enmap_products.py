"""Small EnMAP products on a disk, named and described as the archive does: 20 x 16 pixels, three bands."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import rasterio
import shapely
from affine import Affine
from pyproj import Transformer

from h2crop_data.simulate.enmap.items import EnmapProduct, enmap_product_name, file_names
from h2crop_data.simulate.enmap.metadata import metadata_xml

EPSG = 32632
ROWS, COLUMNS = 16, 20
WEST, NORTH = 500_025, 5_600_025
BOX = shapely.box(WEST, NORTH - 30 * ROWS, WEST + 30 * COLUMNS, NORTH)
TO_LONLAT = Transformer.from_crs(EPSG, "OGC:CRS84", always_xy=True).transform

PRODUCT = EnmapProduct(
    datatake=24647,
    tile=25,
    start=datetime(2023, 6, 29, 11, 1, 32, 798420, tzinfo=UTC),
    stop=datetime(2023, 6, 29, 11, 1, 37, 333108, tzinfo=UTC),
    processed=datetime(2024, 6, 30, 2, 7, 48, tzinfo=UTC),
    epsg=EPSG,
    shape=(ROWS, COLUMNS),
    transform=(30, 0, WEST, 0, -30, NORTH),
    footprint=shapely.transform(BOX, TO_LONLAT, interleaved=False),
    centres=(500.25, 650.5, 1610.75),
    fwhm=(6.5, 7.25, 11.0),
    quality=0,
    cloud=3,
    cloud_shadow=1,
    haze=2,
    cirrus=4,
    snow=5,
    water=6,
    sun_azimuth=170.874064,
    sun_elevation=64.969432,
    across_off_nadir=-16.9049588592,
    along_off_nadir=-0.97,
    scene_azimuth=14.5,
)


def product_of(tile: int = 25, **changes: Any) -> EnmapProduct:
    """The product above as another tile, or with other facts."""
    return replace(PRODUCT, tile=tile, **changes)


def plain_name(name: str) -> str:
    """The name of the same file as no cloud-optimised GeoTIFF."""
    return name.replace("_COG.TIF", ".TIF")


def write_product(
    folder: Path, product: EnmapProduct = PRODUCT, *, plain: bool = False, leave_out: Collection[str] = ()
) -> dict[str, Path]:
    """Write a product's files, but for some assets, into a folder of its name; gives them by asset."""
    files = {}
    home = folder / enmap_product_name(product)
    home.mkdir(parents=True)
    for key, name in file_names(product).items():
        if key in leave_out:
            continue
        path = home / (plain_name(name) if plain else name)
        if key == "metadata":
            path.write_text(metadata_xml(product), encoding="utf-8")
        else:
            write_layer(path, key, len(product.centres))
        files[key] = path
    return files


def write_layer(path: Path, key: str, bands: int) -> None:
    """A raster of a product: random reflectance, land everywhere, no flags."""
    count = bands if key in ("image", "defective_pixel_mask") else 1
    values = np.zeros((count, ROWS, COLUMNS), np.uint8)
    if key == "image":
        values = np.random.default_rng(1).integers(100, 5000, values.shape).astype(np.int16)
    elif key == "quality_classes":
        values[:] = 1
    with rasterio.open(
        path,
        "w",
        driver="GTiff",
        height=ROWS,
        width=COLUMNS,
        count=count,
        dtype=values.dtype,
        crs=f"EPSG:{EPSG}",
        transform=Affine(30, 0, WEST, 0, -30, NORTH),
        compress="deflate",
    ) as raster:
        raster.write(values)
