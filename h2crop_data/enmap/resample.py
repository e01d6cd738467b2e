"""EnMAP onto the lattice, resampled once.

EnMAP's pixel corners lie at odd multiples of 15 m, never on the lattice: every stored centre is a corner of four source
pixels, and cubic convolution (a = -0.5; R. Keys, 1981, IEEE TASSP 29) is the sharpest of the common kernels there. The
shift of the image is corrected in the same step: the lattice is read where its ground lies in the image.
"""

from __future__ import annotations

from math import floor
from typing import Any

import cv2
import numpy as np
import rasterio.warp
from numpy.typing import NDArray
from odc.geo.geobox import GeoBox
from rasterio.enums import Resampling

from h2crop_data.constants import REFLECTANCE_FILL
from h2crop_data.enmap.quality import footprint_or
from h2crop_data.shift import CUBIC_REACH, NO_SHIFT, Shift, cubic_weights, where_it_belongs

#: The highest and the lowest number that a pixel with a value has.
HIGHEST_STORED, LOWEST_STORED = np.iinfo(np.int16).max, REFLECTANCE_FILL + 1
#: Places of pixels are compared to so many digits: a hundredth of a millimetre.
PLACE_DIGITS = 6


def resample_cubic(values: NDArray[Any], source: GeoBox, target: GeoBox, shift: Shift = NO_SHIFT) -> NDArray[np.int16]:
    """Reflectance x 10000 on `target`, (band, y, x) int16, by cubic convolution.

    values: (band, y, x) int16 or float32 on `source`, fill -32768. shift: how far its content lies from where it
    belongs, along the axes of its own zone. A pixel is fill where any source pixel under its footprint is; where one is
    missing further out, under the kernel only, linear interpolation takes its place. Each band counts for itself.
    """
    placed = where_it_belongs(source, shift)
    resample = of_own_zone if is_own_zone(placed, target) else by_gdal
    stored = resample(values, placed, target)
    stored[:, footprint_or(np.zeros(placed.shape, bool), placed, target, outside=True)] = REFLECTANCE_FILL
    incomplete = values.min(axis=(1, 2)) == REFLECTANCE_FILL
    if incomplete.any():
        fill = footprint_or(values[incomplete] == REFLECTANCE_FILL, placed, target, outside=True)
        stored[incomplete] = np.where(fill, np.int16(REFLECTANCE_FILL), stored[incomplete])
    return stored


def is_own_zone(source: GeoBox, target: GeoBox) -> bool:
    """Whether pixels of both have one size and the same directions, so that weights are the same everywhere."""
    one, other = source.affine, target.affine
    alike = all(abs(a - b) < 1e-9 for a, b in ((one.a, other.a), (one.e, other.e), (one.b, other.b), (one.d, other.d)))
    return source.crs == target.crs and alike and one.b == one.d == 0


def of_own_zone(values: NDArray[Any], source: GeoBox, target: GeoBox) -> NDArray[np.int16]:
    """Cubic convolution with four weights along rows and four along columns; each pixel counts as if it were no fill.

    Where a pixel under the kernel is fill, or beyond the edge, linear interpolation of the others.
    """
    column, row = (round(place - 0.5, PLACE_DIGITS) for place in ~source.affine @ (target.affine @ (0.5, 0.5)))
    top, left = floor(row), floor(column)
    around = window_with_kernel(values, top, left, (target.height, target.width))
    bands, height, width = around.shape
    # One image of all bands, one below the other: the rows that mix two bands are those cut off.
    convolved = cv2.sepFilter2D(
        around.reshape(bands * height, width),
        cv2.CV_16S,
        cubic_weights(column - left),
        cubic_weights(row - top),
        anchor=(1, 1),
        borderType=cv2.BORDER_REPLICATE,
    ).reshape(around.shape)
    inner = slice(1, -CUBIC_REACH)
    stored = np.maximum(convolved[:, inner, inner], np.int16(LOWEST_STORED))
    incomplete = around.min(axis=(1, 2)) == REFLECTANCE_FILL
    if incomplete.any():
        part = around[incomplete]
        partly = ~whole_kernels(part != REFLECTANCE_FILL)
        linear = linear_of_known(part[:, 1:-1, 1:-1].astype(np.float32), row - top, column - left)
        stored[incomplete] = np.where(partly, as_stored(linear), stored[incomplete])
    return stored


def window_with_kernel(values: NDArray[Any], top: int, left: int, shape: tuple[int, int]) -> NDArray[Any]:
    """The pixels (band, y, x) under the kernels of `shape` pixels, fill beyond the edge.

    top, left: row and column of the second of the four pixels under the first kernel.
    """
    rows, columns = (
        (first - 1, first + length + CUBIC_REACH) for first, length in zip((top, left), shape, strict=True)
    )
    inside = values[:, max(0, rows[0]) : max(0, rows[1]), max(0, columns[0]) : max(0, columns[1])]
    if inside.shape[1:] == (rows[1] - rows[0], columns[1] - columns[0]):
        return np.ascontiguousarray(inside)
    padded = np.full((len(values), rows[1] - rows[0], columns[1] - columns[0]), REFLECTANCE_FILL, values.dtype)
    first_row, first_column = max(0, -rows[0]), max(0, -columns[0])
    padded[:, first_row : first_row + inside.shape[1], first_column : first_column + inside.shape[2]] = inside
    return padded


def whole_kernels(known: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """Whether all 4 x 4 pixels under each kernel are known. known: (band, y + 3, x + 3); gives (band, y, x)."""
    height, width = (length - 3 for length in known.shape[1:])
    of_rows = np.logical_and.reduce([known[:, first : first + height] for first in range(4)])
    whole: NDArray[np.bool_] = np.logical_and.reduce([of_rows[:, :, first : first + width] for first in range(4)])
    return whole


def linear_of_known(values: NDArray[np.float32], down: float, right: float) -> NDArray[np.float32]:
    """Linear interpolation between pixels and their next ones at `down`, `right` 0..1 of the way, of those not fill.

    values: (band, y + 1, x + 1); gives (band, y, x), fill where none of the four has a value.
    """
    known = (values != REFLECTANCE_FILL).astype(np.float32)
    shape = (len(values), values.shape[1] - 1, values.shape[2] - 1)
    total, weights = np.zeros(shape, np.float32), np.zeros(shape, np.float32)
    for row, of_row in enumerate((1 - down, down)):
        for column, of_column in enumerate((1 - right, right)):
            part = slice(None), slice(row, row + shape[1]), slice(column, column + shape[2])
            weight = np.float32(of_row * of_column) * known[part]
            total += weight * values[part]
            weights += weight
    return np.divide(total, weights, out=np.full(shape, REFLECTANCE_FILL, np.float32), where=weights > 0)


def by_gdal(values: NDArray[Any], source: GeoBox, target: GeoBox) -> NDArray[np.int16]:
    """The same by GDAL, for any two grids: its weights follow from each pixel's place."""
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
    return as_stored(resampled)


def as_stored(values: NDArray[np.float32]) -> NDArray[np.int16]:
    """Values rounded to whole numbers that are no fill."""
    rounded: NDArray[np.int16] = np.clip(np.rint(values), LOWEST_STORED, HIGHEST_STORED).astype(np.int16)
    return rounded
