"""How Sentinel-2 was read before every byte was read once: block by block, each granule over a block on its grid.

Kept as it was for bench_reading.py, as plain functions without retries, gaps and other zones: what changes in the
package does not change what it is compared with.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from functools import lru_cache
from itertools import groupby
from typing import Any

import numpy as np
import pystac
import rasterio
import shapely
from numpy.typing import NDArray
from rasterio.windows import Window
from shapely.geometry import shape

from h2crop_data.grid import Cell, bounds_of

FILL = -32768
#: Reflectance x 10000 that no ground exceeds.
BRIGHTEST = 20_000
#: Files of a scene that are read at a time.
CONNECTIONS = 6
GDAL_OPTIONS = {
    "GDAL_DISABLE_READDIR_ON_OPEN": "EMPTY_DIR",
    "GDAL_HTTP_NETRC": "YES",
    "GDAL_HTTP_MAX_RETRY": "3",
    "GDAL_HTTP_RETRY_DELAY": "1",
    "GDAL_HTTP_TIMEOUT": "60",
}

Composite = tuple[NDArray[np.int16], NDArray[np.uint8], NDArray[np.uint16]]


@dataclass(frozen=True)
class Observation:
    """A day's reflectance (band, y, x), and its clear pixels (y, x)."""

    day: int
    values: NDArray[np.int16]
    clear: NDArray[np.bool_]


def composites_of_block(
    items: Sequence[pystac.Item], cells: Sequence[Cell], keys: Sequence[str], classes: Sequence[int]
) -> list[Composite]:
    """The composite of each cell of a block from the items of a month.

    keys: assets of the bands; the classification is `scl`, its clear classes are `classes`.
    """
    bounds = bounds_of(cells)
    place = shapely.union_all([cell.outline for cell in cells])
    over = sorted((item for item in items if shape(item.geometry).intersects(place)), key=lambda item: item.id)
    seen: list[list[Observation]] = [[] for _ in cells]
    for _, look in groupby(sorted(over, key=lambda item: (item.datetime, item.id)), key=lambda item: item.datetime):
        mosaic = mosaic_day([observe(item, bounds, keys, classes) for item in look])
        for observations, cell in zip(seen, cells, strict=True):
            rows, columns = pixel_slices(cell, bounds)
            values, clear = mosaic.values[:, rows, columns].copy(), mosaic.clear[rows, columns].copy()
            observations.append(Observation(mosaic.day, values, clear))
    return [median_composite(observations) for observations in seen]


def observe(
    item: pystac.Item, bounds: tuple[int, int, int, int], keys: Sequence[str], classes: Sequence[int]
) -> Observation:
    """What an item shows of the ground of a block."""
    with ThreadPoolExecutor(CONNECTIONS) as pool:
        *bands, scl = pool.map(lambda key: read_aligned(item.assets[key].href, bounds), [*keys, "scl"])
    lookup = np.zeros(256, bool)
    lookup[list(classes)] = True
    values = np.stack([reflectance(numbers, -1000) for numbers in bands])
    clear = lookup[scl]
    (clear & too_bright(values)).any()  # what was called clear though no ground has it was told
    assert item.datetime is not None
    return observation(item.datetime.timetuple().tm_yday, values, clear)


@contextmanager
def opened(href: str) -> Iterator[rasterio.DatasetReader]:
    """A raster over the network."""
    with rasterio.Env(**GDAL_OPTIONS), rasterio.open(href) as dataset:
        yield dataset


def read_aligned(href: str, bounds: tuple[int, int, int, int]) -> NDArray[Any]:
    """A raster's band on the pixels of 10 m of some bounds, those of 20 m repeated, 0 beyond its edge."""
    west, south, east, north = bounds
    with opened(href) as dataset:
        size = dataset.transform.a
        top, left = round((dataset.transform.f - north) / size), round((west - dataset.transform.c) / size)
        rows, columns = round((north - south) / size), round((east - west) / size)
        inside = Window.from_slices(
            (max(0, top), max(0, min(dataset.height, top + rows))),
            (max(0, left), max(0, min(dataset.width, left + columns))),
        )
        pixels = np.zeros((rows, columns), dataset.dtypes[0])
        if inside.height > 0 and inside.width > 0:
            y, x = inside.row_off - top, inside.col_off - left
            pixels[y : y + inside.height, x : x + inside.width] = dataset.read(1, window=inside)
    times = round(size / 10)
    return pixels.repeat(times, axis=0).repeat(times, axis=1) if times > 1 else pixels


def pixel_slices(cell: Cell, bounds: tuple[int, int, int, int]) -> tuple[slice, slice]:
    """Rows and columns of a cell in the pixels of `bounds`."""
    west, _, east, north = cell.bounds
    side = (east - west) // 10
    row, column = (bounds[3] - north) // 10, (west - bounds[0]) // 10
    return slice(row, row + side), slice(column, column + side)


def reflectance(numbers: NDArray[np.uint16], offset: int) -> NDArray[np.int16]:
    """Reflectance x 10000, FILL where the number is 0."""
    shifted = np.clip(numbers.astype(np.int32), FILL + 1 - offset, np.iinfo(np.int16).max - offset)
    shifted += offset
    shifted[numbers == 0] = FILL
    return shifted.astype(np.int16)


def too_bright(values: NDArray[np.int16]) -> NDArray[np.bool_]:
    """The pixels (y, x) that are above BRIGHTEST in some band."""
    return np.asarray((values > BRIGHTEST).any(axis=0), bool)


def observation(day: int, values: NDArray[np.int16], clear: NDArray[np.bool_]) -> Observation:
    """An observation whose clear pixels have a value in every band, and one that ground can have."""
    return Observation(day, values, clear & (values != FILL).all(axis=0) & ~too_bright(values))


def mosaic_day(scenes: Sequence[Observation]) -> Observation:
    """One observation of a day from those of its granules: per pixel the first that is clear."""
    first = scenes[0]
    values, clear = first.values, first.clear
    for scene in scenes[1:]:
        better = scene.clear & ~clear
        values = np.where(better, scene.values, values)
        clear = clear | scene.clear
    return Observation(first.day, values, clear)


def median_composite(observations: Sequence[Observation]) -> Composite:
    """Medians (band, y, x), number of clear days and their median day (y, x)."""
    clear = np.stack([observation.clear for observation in observations])
    count = clear.sum(axis=0)
    days = np.array([observation.day for observation in observations], np.uint16)[:, None, None, None]
    day = middle(np.broadcast_to(days, (len(clear), 1, *count.shape)), clear, count)
    low, high = middle(np.stack([observation.values for observation in observations]), clear, count)
    values = np.rint((low.astype(np.int32) + high) / 2).astype(np.int16)
    values[:, count == 0] = FILL
    median_day = ((day[0].astype(np.uint32) + day[1]) // 2)[0]
    median_day[count == 0] = 0
    return values, np.minimum(count, 255).astype(np.uint8), median_day.astype(np.uint16)


def middle(
    stack: NDArray[Any], clear: NDArray[np.bool_], count: NDArray[np.integer]
) -> tuple[NDArray[Any], NDArray[Any]]:
    """The two middle values of the clear layers of a stack (n, band, y, x), the same one twice for an odd count."""
    ordered = sort_layers(np.where(clear[:, None], stack, np.iinfo(stack.dtype).max))
    low = np.maximum(count - 1, 0)[None, None] // 2
    high = np.minimum(count // 2, len(stack) - 1)[None, None]
    return (
        np.take_along_axis(ordered, np.broadcast_to(low, (1, *stack.shape[1:])), axis=0)[0],
        np.take_along_axis(ordered, np.broadcast_to(high, (1, *stack.shape[1:])), axis=0)[0],
    )


def sort_layers(stack: NDArray[Any]) -> NDArray[Any]:
    """The stack sorted along its first axis, in place, by whole-layer minima and maxima."""
    spare = np.empty_like(stack[0])
    for i, j in sorting_network(len(stack)):
        np.minimum(stack[i], stack[j], out=spare)
        np.maximum(stack[i], stack[j], out=stack[j])
        stack[i] = spare
    return stack


@lru_cache(maxsize=128)
def sorting_network(n: int) -> tuple[tuple[int, int], ...]:
    """Comparators (i < j) that sort n values: Batcher's odd-even merge sort for any n, after Knuth 5.2.2 M."""
    comparators = []
    top = 1 << max(0, (n - 1).bit_length() - 1)
    p = top
    while p > 0:
        q, r, d = top, 0, p
        while d > 0:
            comparators += [(i, i + d) for i in range(n - d) if i & p == r]
            d, q, r = q - p, q >> 1, p
        p >>= 1
    return tuple(comparators)
