"""Reading what is true of a simulated Sentinel-2 date: the surface under a clear sky, with and without aerosol."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import rasterio
from numpy.typing import NDArray

from h2crop_data.simulate.sentinel2.bands import SENTINEL2_MSI
from h2crop_data.simulate.sentinel2.scenes import AEROSOL_PIXEL, msi_bands


def read_surface(folder: Path, size: int, *, aerosol: bool = True) -> dict[str, NDArray[np.float32]]:
    """Reflectance (y, x) float32 of each band of 10 or 20 m as L2A would show it under a clear sky, without noise.

    folder: `truth/sentinel2/<date>` of a region with `truth_reflectance`. With aerosol it is what composites of the
    date are judged by: what the correction leaves in is no cloud, and no mask can take it out. Without, it is the
    ground's own reflectance, in the shadows of its woods and houses. Raises rasterio's error where there is no file.
    """
    with rasterio.open(folder / f"surface_{size}m.tif") as raster:
        surface: NDArray[Any] = raster.read().astype(np.float32) / 10000
        names = raster.descriptions
    left_in = {} if aerosol else aerosol_of_bands(folder, size)
    return {name: values - left_in.get(name, np.float32(0)) for name, values in zip(names, surface, strict=True)}


def aerosol_of_bands(folder: Path, size: int) -> dict[str, NDArray[np.float32]]:
    """Reflectance (y, x) float32 that aerosol adds to each band of a date, in pixels of 10 or 20 m.

    `aerosol.tif` holds that of 490 nm in pixels of 60 m; bands have it by their wavelength. Empty where the region's
    settings want none.
    """
    path = folder / "aerosol.tif"
    if not path.exists():
        return {}
    with rasterio.open(path) as raster:
        times = AEROSOL_PIXEL // size
        at_490: NDArray[np.float32] = raster.read(1).repeat(times, 0).repeat(times, 1)
    return {band: at_490 * part for band, part in zip(SENTINEL2_MSI, msi_bands()[1].aerosol, strict=True)}
