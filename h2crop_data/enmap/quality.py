"""EnMAP's quality layers as one raster of flags, and what lies under a pixel of another grid.

The layers are codes, not booleans (EnMAP product specification EN-PCV-ICD-2009, L2A quality layers): CLASSES 0
background, 1 land, 2 water, 3 outside; CIRRUS 0 none, 1 thin, 2 medium, 3 thick; CLOUD, CLOUDSHADOW, HAZE, SNOW 0 or 1;
TESTFLAGS a bit field; PIXELMASK one layer a band, 1 defective.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray
from odc.geo.geobox import GeoBox

from h2crop_data.constants import ENMAP_FLAGS
from h2crop_data.grid import transformer

#: Names of the layers by the asset keys of DLR's catalog; `quality_classes` is the one no product lacks.
LAYERS = (
    "quality_classes",
    "quality_cloud",
    "quality_cloud_shadow",
    "quality_haze",
    "quality_cirrus",
    "quality_snow",
    "quality_testflags",
    "defective_pixel_mask",
)
SIMPLE_LAYERS = {
    "quality_cloud": "cloud",
    "quality_cloud_shadow": "cloud_shadow",
    "quality_haze": "haze",
    "quality_snow": "snow",
}
CIRRUS_CODES = {1: "cirrus_thin", 2: "cirrus_medium", 3: "cirrus_thick"}
#: TESTFLAGS: bits 0-1 are a number (1 reduced, 2 low, 3 not produced), the others flags of their own.
TESTFLAG_LEVELS = {1: "reduced_quality", 2: "low_quality", 3: "outside"}
TESTFLAG_BITS = {
    4: "interpolated",
    8: "interpolated",
    16: "saturated",
    32: "saturated",
    64: "artefact",
    128: "artefact",
}


def quality_flags(layers: Mapping[str, NDArray[Any]]) -> NDArray[np.uint16]:
    """Flags (y, x) uint16, as ENMAP_FLAGS, of the layers of one product.

    layers: layer name -> (y, x), `defective_pixel_mask` (band, y, x) of the stored bands. A layer a product lacks sets
    no flag, except `quality_classes`, which is required.
    """
    classes = layers["quality_classes"]
    flags = np.zeros(classes.shape, np.uint16)

    def mark(name: str, where: NDArray[np.bool_]) -> None:
        flags[where] |= np.uint16(ENMAP_FLAGS[name])

    mark("outside", (classes != 1) & (classes != 2))
    mark("water", classes == 2)
    for layer, name in SIMPLE_LAYERS.items():
        if layer in layers:
            mark(name, layers[layer] == 1)
    for code, name in CIRRUS_CODES.items():
        if "quality_cirrus" in layers:
            mark(name, layers["quality_cirrus"] == code)
    if "quality_testflags" in layers:
        tests = layers["quality_testflags"]
        for level, name in TESTFLAG_LEVELS.items():
            mark(name, (tests & 3) == level)
        for bit, name in TESTFLAG_BITS.items():
            mark(name, (tests & bit) != 0)
    if "defective_pixel_mask" in layers:
        mark("defective", (layers["defective_pixel_mask"] == 1).any(axis=0))
    return flags


def footprint_or(values: NDArray[Any], source: GeoBox, target: GeoBox, outside: int | bool) -> NDArray[Any]:
    """The bitwise or of all source pixels that each target pixel's footprint touches.

    values: (..., y, x) of integers or booleans on `source`. outside: what pixels beyond the source count as. Gives
    (..., y, x) on `target`. A source pixel counts when the footprint reaches more than a thousandth of a pixel into it;
    a footprint of another UTM zone, turned against the source, counts as its bounding rectangle there.
    """
    rows, columns = footprints(source, target)
    padded = np.pad(values, [(0, 0)] * (values.ndim - 2) + [(1, 1), (1, 1)], constant_values=outside)
    result = np.zeros((*values.shape[:-2], *target.shape), values.dtype)
    height, width = source.shape
    for down in range(int((rows[1] - rows[0]).max()) + 1):
        row = np.clip(np.minimum(rows[0] + down, rows[1]), -1, height) + 1
        for right in range(int((columns[1] - columns[0]).max()) + 1):
            column = np.clip(np.minimum(columns[0] + right, columns[1]), -1, width) + 1
            result |= padded[..., row, column]
    return result


def footprints(
    source: GeoBox, target: GeoBox
) -> tuple[tuple[NDArray[np.int64], NDArray[np.int64]], tuple[NDArray[np.int64], NDArray[np.int64]]]:
    """First and last source row, first and last source column under each target pixel; each (y, x) int64."""
    height, width = target.shape
    column, row = np.meshgrid(np.arange(width + 1.0), np.arange(height + 1.0))
    x, y = target.affine @ (column, row)
    if source.crs != target.crs:
        x, y = transformer(str(target.crs), str(source.crs)).transform(x, y)
    column, row = ~source.affine @ (x, y)

    def span(corner: NDArray[Any]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        corners = np.stack([corner[:-1, :-1], corner[1:, :-1], corner[:-1, 1:], corner[1:, 1:]])
        first = np.floor(corners.min(axis=0) + 1e-3).astype(np.int64)
        last = np.ceil(corners.max(axis=0) - 1e-3).astype(np.int64) - 1
        return first, last

    return span(row), span(column)
