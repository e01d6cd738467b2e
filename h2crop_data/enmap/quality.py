"""EnMAP's quality layers as one raster of flags, and its resampling to another grid.

The layers are codes, not booleans (EnMAP product specification EN-PCV-ICD-2009, L2A quality layers): CLASSES 0
background, 1 land, 2 water, 3 outside; CIRRUS 0 none, 1 thin, 2 medium, 3 thick; CLOUD, CLOUDSHADOW, HAZE, SNOW 0 or 1;
TESTFLAGS a bit field; PIXELMASK one layer a band, 1 defective.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import numpy as np
from numpy.typing import NDArray
from odc.geo.geobox import GeoBox

from h2crop_data.constants import ENMAP_FLAGS
from h2crop_data.grid import transformer
from h2crop_data.shift import NO_SHIFT, Shift, where_it_belongs

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


def layer_flags(layer: str, codes: NDArray[Any]) -> NDArray[np.uint16]:
    """Flags (y, x) uint16, as ENMAP_FLAGS, of one layer. codes: (1, y, x), of `defective_pixel_mask` (band, y, x)."""
    flags = np.zeros(codes.shape[1:], np.uint16)

    def mark(name: str, where: NDArray[np.bool_]) -> None:
        flags[where] |= np.uint16(ENMAP_FLAGS[name])

    if layer == "defective_pixel_mask":
        # Band by band: a mask of all would be as large as the layer.
        defective = np.zeros(codes.shape[1:], bool)
        for of_band in codes:
            defective |= of_band == 1
        mark("defective", defective)
        return flags
    code = codes[0]
    if layer == "quality_classes":
        mark("outside", (code != 1) & (code != 2))
        mark("water", code == 2)
    elif layer in SIMPLE_LAYERS:
        mark(SIMPLE_LAYERS[layer], code == 1)
    elif layer == "quality_cirrus":
        for value, name in CIRRUS_CODES.items():
            mark(name, code == value)
    elif layer == "quality_testflags":
        for level, name in TESTFLAG_LEVELS.items():
            mark(name, (code & 3) == level)
        for bit, name in TESTFLAG_BITS.items():
            mark(name, (code & bit) != 0)
    return flags


def flags_of_layers(layers: Iterable[str]) -> int:
    """The bits that some layers alone can set."""
    names = {
        **{layer: [name] for layer, name in SIMPLE_LAYERS.items()},
        "quality_classes": ["outside", "water"],
        "quality_cirrus": list(CIRRUS_CODES.values()),
        # A pixel outside is said so by the classes as well.
        "quality_testflags": [*(set(TESTFLAG_LEVELS.values()) - {"outside"}), *TESTFLAG_BITS.values()],
        "defective_pixel_mask": ["defective"],
    }
    return sum(ENMAP_FLAGS[name] for name in {name for layer in layers for name in names[layer]})


def footprint_or(
    values: NDArray[Any], source: GeoBox, target: GeoBox, outside: int | bool, shift: Shift = NO_SHIFT
) -> NDArray[Any]:
    """The bitwise or of all source pixels that each target pixel's footprint touches.

    values: (..., y, x) of integers or booleans on `source`. outside: what pixels beyond the source count as. shift: how
    far the content of the source lies from where it belongs, along the axes of its own zone. Gives (..., y, x) on
    `target`. A source pixel counts when the footprint reaches more than a thousandth of a pixel into it; a footprint of
    another UTM zone, turned against the source, counts as its bounding rectangle there.
    """
    placed = where_it_belongs(source, shift)
    rows, columns = footprints(placed, target)
    height, width = placed.shape
    padded = np.pad(values, [(0, 0)] * (values.ndim - 2) + [(1, 1), (1, 1)], constant_values=outside)
    if placed.crs == target.crs and (placed.affine.b, placed.affine.d) == (target.affine.b, target.affine.d) == (0, 0):
        # A row lies in the same source rows everywhere, a column in the same source columns.
        of_rows = [padded.take(row[:, 0], axis=-2) for row in lines_under(rows, height)]
        of_columns = [column[0] for column in lines_under(columns, width)]
        along = np.bitwise_or.reduce(of_rows)
        result: NDArray[Any] = np.bitwise_or.reduce([along.take(column, axis=-1) for column in of_columns])
        return result
    result = np.zeros((*values.shape[:-2], *target.shape), values.dtype)
    for row in lines_under(rows, height):
        for column in lines_under(columns, width):
            result |= padded[..., row, column]
    return result


def lines_under(span: tuple[NDArray[np.int64], NDArray[np.int64]], length: int) -> list[NDArray[np.int64]]:
    """The first, second, ... row or column under each pixel, the last one again where there are no more.

    span: first and last, as `footprints` gives them. length: how many the source has; counted from one beyond its edge.
    """
    first, last = span
    return [
        np.clip(np.minimum(first + further, last), -1, length) + 1 for further in range(int((last - first).max()) + 1)
    ]


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
