"""EnMAP onto the lattice, resampled once.

EnMAP's pixel corners lie at odd multiples of 15 m, never on the lattice: every stored centre is a corner of four source
pixels, and cubic convolution (a = -0.5; R. Keys, 1981, IEEE TASSP 29) is the sharpest of the common kernels there.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import rasterio.warp
from numpy.typing import NDArray
from odc.geo.geobox import GeoBox
from rasterio.enums import Resampling

from h2crop_data.constants import REFLECTANCE_FILL
from h2crop_data.enmap.quality import footprint_or


def resample_cubic(values: NDArray[Any], source: GeoBox, target: GeoBox) -> NDArray[np.int16]:
    """Reflectance x 10000 on `target`, (band, y, x) int16, by GDAL's cubic convolution.

    values: (band, y, x) int16 or float32 on `source`, fill -32768. A pixel is fill where any source pixel under its
    footprint is; where one is missing further out, under the kernel only, GDAL interpolates linearly instead. Each band
    counts for itself.
    """
    resampled = np.full((len(values), *target.shape), REFLECTANCE_FILL, np.float32)
    rasterio.warp.reproject(
        values.astype(np.float32, copy=False),
        resampled,
        src_transform=source.affine,
        src_crs=str(source.crs),
        src_nodata=REFLECTANCE_FILL,
        dst_transform=target.affine,
        dst_crs=str(target.crs),
        dst_nodata=REFLECTANCE_FILL,
        resampling=Resampling.cubic,
        # rasterio's default counts a pixel as missing only where every band is: the fill of one would enter its kernel.
        UNIFIED_SRC_NODATA="NO",
    )
    missing = values == REFLECTANCE_FILL
    incomplete = missing.any(axis=(1, 2))
    beyond = footprint_or(np.zeros((1, *source.shape), bool), source, target, outside=True)
    fill = np.broadcast_to(beyond, resampled.shape).copy()
    if incomplete.any():
        fill[incomplete] |= footprint_or(missing[incomplete], source, target, outside=True)
    limits = np.iinfo(np.int16)
    stored = np.clip(np.rint(resampled), limits.min + 1, limits.max).astype(np.int16)
    stored[fill] = REFLECTANCE_FILL
    return stored
