"""Monthly Sentinel-2 composites the slow way: whole granules, look by look, the rule as it is written down.

It judges what the pipeline builds, so it shares nothing with the code that builds it, but for which items are one look,
and for granules of another UTM zone, which `read_item` brings onto each cell.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
import pystac
import rasterio
import shapely
from affine import Affine
from granule_reading import read_item
from numpy.typing import NDArray
from rasterio.enums import Resampling
from rasterio.errors import RasterioError
from rasterio.warp import reproject
from shapely.geometry import shape

from h2crop_data.catalog.acquisitions import Look, looks_of
from h2crop_data.catalog.item_facts import sentinel2_asset, sentinel2_tile
from h2crop_data.errors import ReadError
from h2crop_data.grid import Cell

FILL = -32768
MONTHS = 12
#: Metres of a pixel of a cell.
PIXEL = 10
#: Reflectance x 10000 of the brightest ground.
BRIGHTEST = 20_000
#: Numbers from here on are below 0 and wrapped around; they are not mixed with their neighbours.
WRAPPED = 64_536
#: Sorts behind every reflectance.
BEHIND = 2**31


@dataclass(frozen=True)
class Raster:
    """All pixels of a file, and where they lie."""

    pixels: NDArray[np.unsignedinteger]
    epsg: int
    west: float
    north: float
    size: float

    @property
    def ground(self) -> shapely.Polygon:
        """All of its pixel grid."""
        height, width = self.pixels.shape
        return shapely.box(self.west, self.north - height * self.size, self.west + width * self.size, self.north)

    def over(self, cell: Cell) -> NDArray[np.unsignedinteger]:
        """For each pixel of a cell of its zone the pixel that holds its centre, (y, x); 0 beyond the edge."""
        west, south, east, north = cell.bounds
        columns = np.floor((np.arange(west, east, PIXEL) + PIXEL / 2 - self.west) / self.size).astype(int)
        rows = np.floor((self.north - (np.arange(north, south, -PIXEL) - PIXEL / 2)) / self.size).astype(int)
        pixels = np.zeros((len(rows), len(columns)), self.pixels.dtype)
        down = (rows >= 0) & (rows < self.pixels.shape[0])
        across = (columns >= 0) & (columns < self.pixels.shape[1])
        pixels[np.ix_(down, across)] = self.pixels[np.ix_(rows[down], columns[across])]
        return pixels

    def resampled(self, resampling: str) -> Raster:
        """All of it on pixels of 10 m, where 0 is nodata."""
        times = round(self.size / PIXEL)
        if times == 1:
            return self
        fine = enlarged(self.pixels, times)
        reproject(
            np.where(self.pixels >= WRAPPED, np.uint16(0), self.pixels),
            fine,
            src_transform=Affine(self.size, 0, self.west, 0, -self.size, self.north),
            dst_transform=Affine(PIXEL, 0, self.west, 0, -PIXEL, self.north),
            src_crs=f"EPSG:{self.epsg}",
            dst_crs=f"EPSG:{self.epsg}",
            src_nodata=0,
            dst_nodata=0,
            resampling=Resampling[resampling],
        )
        return Raster(fine, self.epsg, self.west, self.north, PIXEL)


@dataclass(frozen=True)
class View:
    """What one granule shows of a cell."""

    #: Scene classification (y, x); 0 where the granule has no data.
    classes: NDArray[np.uint8]
    #: Reflectance x 10000, (band, y, x).
    values: NDArray[np.int64]
    #: Which pixels (y, x) are clear.
    clear: NDArray[np.bool_]
    #: Which are clear by their class, and whether every band can be read.
    by_class: NDArray[np.bool_]
    has_bands: bool
    #: Which are clear by their class and have a number in some band that no ground has.
    bright: NDArray[np.bool_]


@dataclass(frozen=True)
class Observed:
    """One look at a cell, each pixel from one granule."""

    look: Look
    #: Reflectance x 10000, (band, y, x).
    values: NDArray[np.int64]
    clear: NDArray[np.bool_]
    #: Granules that could not be read, by id.
    gaps: list[str]
    #: Granules that call clear some pixels that are too bright.
    impossible: list[str]
    #: Granule -> its clear pixels in this look.
    clear_from: dict[str, int]
    #: Granules that were asked, and those that show a pixel whose class is clear.
    asked: list[str]
    shown: list[str]


@dataclass(frozen=True)
class SlowSample:
    """What a store should hold of a cell, and what it comes from."""

    s2: NDArray[np.int16]
    s2_clear: NDArray[np.uint8]
    s2_day: NDArray[np.uint16]
    dates: list[str]
    gaps: list[str]
    impossible: list[str]
    #: The tile of its home granules; None where no granule of its zone shows it.
    home: str | None
    #: Whether the grid of that tile holds all of the cell.
    held: bool
    #: Granule -> its clear pixels in all looks.
    clear_from: Counter[str]
    #: Granules that were asked, and those that show a pixel whose class is clear.
    asked: set[str]
    shown: set[str]


@dataclass
class SlowPass:
    """The composites of cells from some items, every file of which is read whole, once."""

    items: Sequence[pystac.Item]
    season: int
    bands: Sequence[str]
    clear_classes: Sequence[int] = (4, 5, 6)
    resampling: str = "nearest"
    #: (item, band) -> its file; None where it cannot be read.
    rasters: dict[tuple[str, str], Raster | None] = field(default_factory=dict)

    def sample(self, cell: Cell) -> SlowSample:
        """What a store should hold of a cell."""
        items = [item for item in self.items if shapely.intersects(shape(item.geometry), cell.outline)]
        grids = self.grids(items, cell.epsg)
        home = home_tile(cell, grids)
        looks = [self.observe(look, cell, home) for look in looks_of(items, self.season)]
        by_month = [[seen for seen in looks if seen.look.moment.month == month] for month in range(1, MONTHS + 1)]
        values, clear, day = zip(*(composite(seen, len(self.bands), cell) for seen in by_month), strict=True)
        return SlowSample(
            np.stack(values).astype(np.int16),
            np.stack(clear).astype(np.uint8),
            np.stack(day).astype(np.uint16),
            [f"{seen.look.moment:%Y-%m-%d}" for seen in looks if seen.clear.any()],
            sorted(name for seen in looks for name in seen.gaps),
            sorted({name for seen in looks for name in seen.impossible}),
            home,
            home is not None and shapely.covers(grids[home], cell.polygon),
            sum((Counter(seen.clear_from) for seen in looks), Counter()),
            {name for seen in looks for name in seen.asked},
            {name for seen in looks for name in seen.shown},
        )

    def observe(self, look: Look, cell: Cell, home: str | None) -> Observed:
        """A look at a cell: each pixel from the first granule that has data there."""
        side = cell.size // PIXEL
        values = np.zeros((len(self.bands), side, side), np.int64)
        clear, unseen = np.zeros((side, side), bool), np.ones((side, side), bool)
        gaps: list[str] = []
        impossible: list[str] = []
        clear_from: dict[str, int] = {}
        asked: list[str] = []
        shown: list[str] = []
        for item in in_order(look, cell, home):
            if not unseen.any():
                break
            view = self.view(item, cell)
            if view is None:
                gaps.append(item.id)
                continue
            first = unseen & (view.classes != 0)
            if not view.has_bands and (first & view.by_class).any():
                gaps.append(item.id)
                continue
            asked.append(item.id)
            shown += [item.id] if (first & view.by_class).any() else []
            values[:, first] = view.values[:, first]
            clear[first] = view.clear[first]
            clear_from[item.id] = int((first & view.clear).sum())
            if (first & view.bright).any():
                impossible.append(item.id)
            unseen &= ~first
        return Observed(look, values, clear, gaps, impossible, clear_from, asked, shown)

    def view(self, item: pystac.Item, cell: Cell) -> View | None:
        """What a granule shows of a cell; None where its classification cannot be read."""
        if zone_of(item) == cell.epsg:
            rasters = [self.raster(item, band) for band in (*self.bands, "SCL")]
            *bands, own_classes = rasters
            if own_classes is None:
                return None
            classes = own_classes.over(cell)
            numbers = [np.zeros_like(classes) if raster is None else raster.over(cell) for raster in bands]
            has_bands = all(raster is not None for raster in bands)
        else:
            keys = [sentinel2_asset(item, band) for band in (*self.bands, "SCL")]
            try:
                numbers, classes = read_item(item, keys[:-1], keys[-1], cell.geobox(PIXEL), "nearest")
            except ReadError:
                return None
            has_bands = True
        stacked = np.stack(numbers).astype(np.int64)
        values = stacked + added(item)
        by_class = np.isin(classes, self.clear_classes)
        bright = by_class & (values > BRIGHTEST).any(axis=0)
        clear = by_class & (stacked != 0).all(axis=0) & ~bright
        return View(classes, values, clear, by_class, has_bands, bright)

    def raster(self, item: pystac.Item, band: str) -> Raster | None:
        """All of a file of an item; None where it cannot be read."""
        key = item.id, band
        if key not in self.rasters:
            whole = read_whole(item.assets[sentinel2_asset(item, band)].href)
            smooth = whole is not None and self.resampling != "nearest" and band != "SCL"
            self.rasters[key] = whole.resampled(self.resampling) if whole is not None and smooth else whole
        return self.rasters[key]

    def grids(self, items: Sequence[pystac.Item], epsg: int) -> dict[str, shapely.Polygon]:
        """The ground of the pixel grids of the tiles of a zone, by name."""
        rasters = ((sentinel2_tile(item), self.raster(item, "SCL")) for item in items if zone_of(item) == epsg)
        return {tile: raster.ground for tile, raster in rasters if raster is not None}


def read_whole(path: str) -> Raster | None:
    """The only band of a file; None where it cannot be read."""
    try:
        with rasterio.open(path) as file:
            transform = file.transform
            return Raster(file.read(1), file.crs.to_epsg(), transform.c, transform.f, transform.a)
    except RasterioError:
        return None


def enlarged(pixels: NDArray[np.unsignedinteger], times: int) -> NDArray[np.unsignedinteger]:
    """Every pixel (y, x) as a square of so many pixels a side."""
    return pixels.repeat(times, axis=0).repeat(times, axis=1)


def zone_of(item: pystac.Item) -> int:
    """EPSG code of an item's pixels."""
    return int(item.properties["proj:epsg"])


def added(item: pystac.Item) -> int:
    """What is added to an item's numbers for reflectance x 10000."""
    return -1000 if item.properties["s2:processing_baseline"] >= "04.00" else 0


def home_tile(cell: Cell, grids: dict[str, shapely.Polygon]) -> str | None:
    """The tile whose granules come first in a cell: its grid holds the cell, and its centre is nearest.

    Where no grid holds all of the cell, the nearest of those that hold some of it; None where none does.
    grids: the tiles of the cell's zone.
    """
    west, south, east, north = cell.bounds

    def square_distance(tile: str) -> float:
        # Twice the coordinates of both centres are whole numbers: equal distances are equal.
        left, bottom, right, top = grids[tile].bounds
        return (left + right - west - east) ** 2 + (bottom + top - south - north) ** 2

    holding = [tile for tile in grids if shapely.covers(grids[tile], cell.polygon)]
    overlapping = [tile for tile in grids if shapely.intersection(grids[tile], cell.polygon).area > 0]
    return min(holding or overlapping, key=lambda tile: (square_distance(tile), tile), default=None)


def in_order(look: Look, cell: Cell, home: str | None) -> list[pystac.Item]:
    """The granules of a look as a cell asks them: of its home tile, of others of its zone, of other zones.

    Each group by the name of the tile, of one tile the newest first.
    """

    def place(granules: list[pystac.Item]) -> tuple[bool, bool, str]:
        tile = sentinel2_tile(granules[0])
        return tile != home, zone_of(granules[0]) != cell.epsg, tile

    return [item for granules in sorted(look.tiles, key=place) for item in granules]


def composite(
    seen: Sequence[Observed], bands: int, cell: Cell
) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.int64]]:
    """The medians of the clear looks of a month, (band, y, x); how many they are and their median day, (y, x)."""
    side = cell.size // PIXEL
    if not seen:
        empty = np.zeros((side, side), np.int64)
        return np.full((bands, side, side), FILL, np.int64), empty, empty
    clear = np.stack([look.clear for look in seen])
    days = np.array([look.look.moment.timetuple().tm_yday for look in seen])[:, None, None, None]
    values = np.stack([look.values for look in seen])
    low, high, count = middle_two(values, clear)
    # The mean rounded half to even: an odd sum goes up where its lower half is odd.
    lower = (low + high) // 2
    median = np.where(count == 0, FILL, lower + (low + high) % 2 * (lower % 2))
    first, last, _ = middle_two(np.broadcast_to(days, (len(seen), 1, side, side)), clear)
    return median, np.minimum(count, 255), np.where(count == 0, 0, (first + last)[0] // 2)


def middle_two(
    stack: NDArray[np.int64], clear: NDArray[np.bool_]
) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.int64]]:
    """The two middle ones of the clear values (look, band, y, x), one twice for an odd count; and the count (y, x)."""
    ordered = np.sort(np.where(clear[:, None], stack, BEHIND), axis=0)
    count = clear.sum(axis=0)
    low, high = np.zeros_like(ordered[0]), np.zeros_like(ordered[0])
    for number in range(1, len(stack) + 1):
        here = count == number
        low[:, here] = ordered[(number - 1) // 2][:, here]
        high[:, here] = ordered[number // 2][:, here]
    return low, high, count
