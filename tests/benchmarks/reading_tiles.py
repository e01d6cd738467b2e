"""The internal tiles of the files that bench_reading.py reads: which are needed, which were fetched and decoded.

A home tile is an internal tile of some band and date that a cell touches whose home is that granule; it is needed where
a pixel of such a cell is clear in it, and always of the scene classification, which says what is clear.
"""

from __future__ import annotations

import math
import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import rasterio
from numpy.typing import NDArray

from h2crop_data.grid import Cell

sys.path.append(str(Path(__file__).resolve().parents[1] / "makers"))
from counting_server import Counts
from overlapping_granules import BANDS, BLOCK, DATES, SCL, Granule

#: Classes that count as clear: vegetation, bare soil, water.
CLEAR = (4, 5, 6)


@dataclass(frozen=True)
class TiledFile:
    """A file and its internal tiles (row, column)."""

    #: Below the folder of the archive.
    path: str
    offsets: NDArray[np.int64]
    sizes: NDArray[np.int64]
    home: NDArray[np.bool_]
    needed: NDArray[np.bool_]

    def times_fetched(self, ranges: Sequence[tuple[int, int]]) -> NDArray[np.int64]:
        """How often the greater part of each tile was in a range (first and last byte)."""
        times = np.zeros(self.offsets.shape, np.int64)
        for first, last in ranges:
            common = np.minimum(self.offsets + self.sizes, last + 1) - np.maximum(self.offsets, first)
            times += 2 * common > self.sizes
        return times


def tile_table(path: Path) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Offsets and sizes of a file's internal tiles (row, column), as its own table states them."""
    with rasterio.open(path) as file:
        assert file.block_shapes == [(BLOCK, BLOCK)], path
        rows, columns = (math.ceil(length / BLOCK) for length in file.shape)

        def stated(name: str) -> NDArray[np.int64]:
            tags = [[f"BLOCK_{name}_{x}_{y}" for x in range(columns)] for y in range(rows)]
            return np.array([[int(file.get_tag_item(tag, "TIFF", bidx=1)) for tag in row] for row in tags])

        return stated("OFFSET"), stated("SIZE")


@dataclass(frozen=True)
class Archive:
    """The granules of a region, and the cells over them."""

    folder: Path
    granules: Sequence[Granule]
    cells: Sequence[Cell]

    @cached_property
    def home(self) -> dict[Cell, Granule]:
        """The granule each cell is read from: of those that hold all of it the one whose centre is nearest."""
        return {cell: home_of(cell, self.granules) for cell in self.cells}

    def ground(self, granule: Granule) -> NDArray[np.bool_]:
        """The pixels of 20 m of a granule (y, x) in cells whose home it is."""
        covered = np.zeros((granule.rows // 2, granule.columns // 2), bool)
        for cell, home in self.home.items():
            if home == granule:
                covered[pixels_of(cell, granule, 20)] = True
        return covered

    def clear(self, granule: Granule, date: str) -> NDArray[np.bool_]:
        """The pixels of 20 m of a granule (y, x) that are clear on a date."""
        with rasterio.open(self.folder / granule.path(date, SCL)) as file:
            return np.isin(file.read(1), CLEAR)

    def files(self, month: int) -> Iterator[TiledFile]:
        """Every file of a month."""
        for granule in self.granules:
            ground = self.ground(granule)
            for date in dates_of(month):
                clear = ground & self.clear(granule, date)
                for asset, size in [(SCL, 20), *((asset, size) for asset, (size, _) in BANDS.items())]:
                    path = granule.path(date, asset)
                    home = touched(ground, BLOCK * size // 20)
                    needed = home if asset == SCL else touched(clear, BLOCK * size // 20)
                    yield TiledFile(path, *tile_table(self.folder / path), home, needed)


@dataclass(frozen=True)
class Needs:
    """What a month takes to read, at least, and what of it a reader fetched."""

    #: Tiles and their bytes.
    home: int
    home_bytes: int
    needed: int
    needed_bytes: int
    #: Of needed tiles those that were fetched again, and of others those that were fetched.
    fetched_again: int = 0
    fetched_in_vain: int = 0

    @classmethod
    def of(cls, files: Sequence[TiledFile], counts: Counts) -> Needs:
        """Of the files of a month."""
        total = np.zeros(6, int)
        for file in files:
            times = file.times_fetched(counts.ranges.get(file.path, []))
            again, in_vain = np.maximum(times[file.needed] - 1, 0).sum(), times[~file.needed].sum()
            home_bytes, needed_bytes = (file.sizes[tiles].sum() for tiles in (file.home, file.needed))
            total += [file.home.sum(), home_bytes, file.needed.sum(), needed_bytes, again, in_vain]
        return cls(*total.tolist())


def dates_of(month: int) -> list[str]:
    """The dates of a month."""
    return [date for date in DATES if int(date[5:7]) == month]


def home_of(cell: Cell, granules: Sequence[Granule]) -> Granule:
    """Of the granules that hold all of a cell the one whose centre is nearest, then the first by name."""
    west, south, east, north = cell.bounds

    def rank(granule: Granule) -> tuple[float, str]:
        left, bottom, right, top = granule.bounds
        return math.hypot(left + right - west - east, bottom + top - south - north), granule.tile

    def holds(granule: Granule) -> bool:
        left, bottom, right, top = granule.bounds
        return left <= west and bottom <= south and east <= right and north <= top

    return min(filter(holds, granules), key=rank)


def pixels_of(cell: Cell, granule: Granule, size: int) -> tuple[slice, slice]:
    """Rows and columns of a cell in the pixels of a granule's file."""
    west, south, east, north = cell.bounds
    return (
        slice((granule.north - north) // size, (granule.north - south) // size),
        slice((west - granule.west) // size, (east - granule.west) // size),
    )


def touched(pixels: NDArray[np.bool_], block: int) -> NDArray[np.bool_]:
    """Whether any pixel is set in each block of pixels (row, column)."""
    rows, columns = (np.arange(0, length, block) for length in pixels.shape)
    return np.logical_or.reduceat(np.logical_or.reduceat(pixels, rows, axis=0), columns, axis=1)


class DecodedTiles:
    """Counts the internal tiles that reads of open rasters decode, unless GDAL still holds them."""

    def __init__(self) -> None:
        self.lock, self.count = threading.Lock(), 0

    def note(self, raster: rasterio.DatasetReader, window: Any) -> None:
        """A read of one band."""
        height, width = raster.block_shapes[0]
        (top, bottom), (left, right) = window.toranges() if window else ((0, raster.height), (0, raster.width))
        tiles = (math.ceil(bottom / height) - int(top // height)) * (math.ceil(right / width) - int(left // width))
        with self.lock:
            self.count += tiles


class NotedRaster:
    """Stands for an open raster of one band, and notes its reads."""

    def __init__(self, raster: rasterio.DatasetReader, decoded: DecodedTiles) -> None:
        self.raster, self.decoded = raster, decoded

    def __getattr__(self, name: str) -> Any:
        return getattr(self.raster, name)

    def __enter__(self) -> NotedRaster:
        self.raster.__enter__()
        return self

    def __exit__(self, *error: Any) -> None:
        self.raster.__exit__(*error)

    def read(self, *args: Any, window: Any = None, **options: Any) -> NDArray[Any]:
        self.decoded.note(self.raster, window)
        pixels: NDArray[Any] = self.raster.read(*args, window=window, **options)
        return pixels


@contextmanager
def counting_decoded() -> Iterator[DecodedTiles]:
    """Count what is decoded of rasters that are opened meanwhile, with `rasterio.open`."""
    decoded = DecodedTiles()
    plain: Callable[..., rasterio.DatasetReader] = rasterio.open
    rasterio.open = lambda *args, **options: NotedRaster(plain(*args, **options), decoded)
    try:
        yield decoded
    finally:
        rasterio.open = plain
