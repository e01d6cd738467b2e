"""Assets of Sentinel-2 items on pixel grids of 10 m, by the package's reader, whatever their own pixels are."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pystac
import rasterio
from numpy.typing import NDArray
from odc.geo.geobox import GeoBox

from h2crop_data.catalog.access import ResamplingName, aligned_window, read_aligned_window, repeated
from h2crop_data.catalog.granule_reader import GranuleReader
from h2crop_data.catalog.number_formats import as_classes


def read_item(
    item: pystac.Item, keys: Sequence[str], scl_key: str, grid: GeoBox, resampling: ResamplingName, connections: int = 4
) -> tuple[list[NDArray[Any]], NDArray[np.uint8]]:
    """The numbers (y, x) of some assets, and the scene classification, of an item on a pixel grid."""
    with GranuleReader(connections) as reader:

        def read(key: str, method: ResamplingName) -> NDArray[Any]:
            found = reader.read(item, key, grid, method)
            pixels = reader.warp(item, key, grid, method) if found is None else found
            return repeated(pixels, grid.shape[0] // len(pixels))

        wanted = [*((key, resampling) for key in keys), (scl_key, "nearest")]
        begun = [
            reader.begin(lambda key=key, method=method: read(key, method), item.assets[key].href)
            for key, method in wanted
        ]
        *numbers, classes = [result() for result in begun]
    return [band.astype(np.uint16) if band.dtype == np.uint8 else band for band in numbers], as_classes(classes)


def read_aligned(path: Path | str, grid: GeoBox, resampling: ResamplingName) -> NDArray[Any] | None:
    """A raster on a pixel grid it lies on, (y, x); None where something would have to be resampled."""
    with rasterio.open(path) as dataset:
        window = aligned_window(dataset, grid, resampling)
        return None if window is None else repeated(read_aligned_window(dataset, window), window.times)
