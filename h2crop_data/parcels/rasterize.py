"""From parcels to pixels: one raster of parcel ids, then lookup tables for every label layer.

A pixel belongs to the parcel its centre lies in; where parcels overlap, to the smaller one, whatever their order.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import rasterio.features
import shapely
from numpy.typing import NDArray
from odc.geo.geobox import GeoBox

from h2crop_data.constants import BACKGROUND, TIERS, UNKNOWN


def rasterize_ids(geometry: NDArray[np.object_], numbers: NDArray[np.integer], geobox: GeoBox) -> NDArray[np.int32]:
    """Index + 1 of the parcel of each pixel, 0 where there is none; (y, x) int32, rows from north to south.

    geometry: n polygons in the CRS of `geobox`; numbers: n parcel numbers, which break ties of area.
    """
    # Later shapes overwrite earlier ones: the largest first.
    order = np.lexsort((numbers, -shapely.area(geometry)))
    shapes = [(geometry[i], int(i) + 1) for i in order]
    ids: NDArray[np.int32] = rasterio.features.rasterize(
        shapes, out_shape=geobox.shape, transform=geobox.affine, fill=0, dtype="int32", all_touched=False
    )
    return ids


def tier_labels(
    ids: NDArray[np.int32], tiers: NDArray[np.uint8], known: NDArray[np.bool_] | None = None
) -> NDArray[np.uint8]:
    """Labels (4, y, x) uint8 of a raster of ids.

    tiers: (n, 4) class ids of parcel 1..n. known: (y, x) where declarations cover the ground; elsewhere 255.
    """
    lookup = np.vstack([np.full((1, TIERS), BACKGROUND, np.uint8), tiers]).T
    labels = np.ascontiguousarray(lookup[:, ids])
    if known is not None:
        labels[:, ~known] = UNKNOWN
    return labels


def parcel_numbers(ids: NDArray[np.int32], numbers: NDArray[np.integer]) -> NDArray[np.uint32]:
    """Parcel number of each pixel (y, x) uint32, 0 where there is none."""
    lookup = np.concatenate([[0], numbers]).astype(np.uint32)
    return lookup[ids]


def covered(coverage: Sequence[shapely.Geometry], geobox: GeoBox) -> NDArray[np.bool_]:
    """Whether each pixel's centre lies in one of the polygons (in the CRS of `geobox`), (y, x)."""
    shapes = [(polygon, 1) for polygon in coverage if not polygon.is_empty]
    mask = rasterio.features.rasterize(shapes, out_shape=geobox.shape, transform=geobox.affine, fill=0, dtype="uint8")
    return np.asarray(mask == 1)
