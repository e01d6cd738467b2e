"""The pixel grids of granules: how their files are cut into tiles, and which granule a cell is read from.

A cell is read from its *home granule*: of the tiles of its own UTM zone that hold it wholly the one whose centre is
nearest. Other granules count only where that one did not image the ground. So each internal tile of a file is read for
one piece of ground, and a cell has no seam but where a swath ends.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from functools import partial
from math import hypot, lcm
from pathlib import Path

import pystac

from h2crop_data.catalog.access import file_stamp, grid_of, is_remote, opened, retried
from h2crop_data.catalog.footprints import grid_box
from h2crop_data.catalog.item_facts import sentinel2_asset, sentinel2_tile
from h2crop_data.catalog.items import item_epsg
from h2crop_data.constants import FINE, FINE_BANDS
from h2crop_data.errors import H2cropError, ReadError, SceneError
from h2crop_data.grid import Cell
from h2crop_data.mgrs import MGRS_TILE_SIZE, tile_bounds
from h2crop_data.recipe.model import Sentinel2Settings
from h2crop_data.sources.scenes import kept_identity
from h2crop_data.sources.units import Unit

#: Raised whenever the same files give another grid.
GRID_ALGORITHM = 1
#: Pixels of 10 m along a unit of reading, and along its pieces, as near as internal tiles allow.
UNIT_SIDE, PIECE_SIDE = 2048, 1024
#: How many times as long as wanted a unit may be so that it has whole tiles of every resolution.
MOST_TIMES = 2.5


@dataclass(frozen=True, order=True)
class GranuleGrid:
    """The pixels of 10 m of an MGRS tile's granules, and how they are read. Rows count downwards from the corner."""

    epsg: int
    #: The tile, `31UDS`; empty for the lattice itself, which stands for cells that lie in no granule of their zone.
    tile: str
    #: West and north in metres.
    x: int
    y: int
    #: Pixels of 10 m.
    height: int
    width: int
    #: Pixels (rows, columns) of a unit of reading: whole internal tiles of the files of every resolution.
    unit: tuple[int, int] = (UNIT_SIDE, UNIT_SIDE)
    #: Pixels of a piece of a unit: whole internal tiles of the files of 10 m.
    piece: tuple[int, int] = (PIECE_SIDE, PIECE_SIDE)

    def pixels_of(self, cell: Cell) -> tuple[int, int, int, int]:
        """First row, end, first column, end of a cell; they may lie beyond the granule."""
        west, south, east, north = cell.bounds
        return (
            (self.y - north) // FINE,
            (self.y - south) // FINE,
            (west - self.x) // FINE,
            (east - self.x) // FINE,
        )

    def holds(self, cell: Cell) -> bool:
        """Whether a cell lies wholly in the granule."""
        top, bottom, left, right = self.pixels_of(cell)
        return top >= 0 and left >= 0 and bottom <= self.height and right <= self.width

    def meets(self, cell: Cell) -> bool:
        """Whether a cell has ground in common with the granule."""
        top, bottom, left, right = self.pixels_of(cell)
        return bottom > 0 and right > 0 and top < self.height and left < self.width

    def distance(self, cell: Cell) -> float:
        """Pixels between the centres."""
        top, bottom, left, right = self.pixels_of(cell)
        return hypot((top + bottom - self.height) / 2, (left + right - self.width) / 2)


def lattice_grid(epsg: int) -> GranuleGrid:
    """The grid of cells that lie in no granule of their own zone."""
    return GranuleGrid(epsg, "", 0, 0, 0, 0)


def home_of(cell: Cell, grids: Sequence[GranuleGrid]) -> GranuleGrid:
    """The home granule of a cell among the grids of the tiles over it.

    Of those of its zone that hold it the one with the nearest centre, then the first by name; where none holds it, of
    those that meet it. The lattice itself where there is none.
    """
    own = [grid for grid in grids if grid.epsg == cell.epsg and grid.meets(cell)]
    if not own:
        return lattice_grid(cell.epsg)
    return min(own, key=lambda grid: (not grid.holds(cell), grid.distance(cell), grid.tile))


def expected_grid(item: pystac.Item) -> GranuleGrid | None:
    """The grid that the granules of an item's tile have by its name; None for a name that is no MGRS tile."""
    tile = sentinel2_tile(item)
    try:
        epsg, west, _, _, north = tile_bounds(tile)
    except ValueError:
        return None
    return GranuleGrid(epsg, tile, west, north, MGRS_TILE_SIZE // FINE, MGRS_TILE_SIZE // FINE)


def grid_doubt(item: pystac.Item) -> str:
    """Where an item says that its pixels lie elsewhere than in its tile; empty where it does not."""
    tile = sentinel2_tile(item)
    try:
        expected, west, south, east, north = tile_bounds(tile)
    except ValueError:
        return ""
    stated = item_epsg(item)
    if stated not in (None, expected):
        return f"it states EPSG:{stated} for its pixels, its tile {tile} lies in EPSG:{expected}: the files decide"
    for facts in (item.properties, *(asset.extra_fields for asset in item.assets.values())):
        box = grid_box(facts)
        if box is None:
            continue
        left, bottom, right, top = box.bounds
        if left < west - FINE or bottom < south - FINE or right > east + FINE or top > north + FINE:
            return f"its `proj:` fields place its pixels beyond its tile {tile}: the files decide"
    return ""


def grid_unit(items: Sequence[pystac.Item], settings: Sentinel2Settings) -> Unit:
    """The unit of work that looks at the files of one granule of a tile for all of them.

    items: granules of the tile in the order in which they are tried; another one is looked at where one cannot be read.
    """
    first = next((band for band in settings.bands if band in FINE_BANDS), None)
    coarse = next((band for band in settings.bands if band not in FINE_BANDS), None)
    bands = [band for band in (first, coarse, "SCL") if band]
    files = [[item.assets[sentinel2_asset(item, band)].href for band in bands] for item in items]
    tile = sentinel2_tile(items[0])
    return Unit(
        kind="scene",
        step="sentinel2 grid",
        name=f"{tile} {items[0].id}",
        algorithm=GRID_ALGORITHM,
        inputs=[[kept_identity(item) for item in items], [list(map(file_stamp, hrefs)) for hrefs in files]],
        settings={"bands": bands},
        compute=partial(look_at_granules, tile, files),
        implied=True,
    )


def look_at_granules(tile: str, files: Sequence[Sequence[str]], needs: Sequence[Path]) -> bytes:
    """The grid of the first granule that can be read, given as its files, as JSON. Raises ReadError, SceneError."""
    error: H2cropError | None = None
    for hrefs in files:
        try:
            return look_at_granule(tile, hrefs)
        except (ReadError, SceneError) as raised:
            error = raised
    raise error or ReadError(f"{tile}: no granule to read")


def look_at_granule(tile: str, files: Sequence[str]) -> bytes:
    """The grid of a granule's files as JSON; null where it is none of 10 m pixels of a UTM zone."""
    found = [raster_tiles(href) for href in files]
    finest = min(found, key=lambda tiles: tiles.times)
    if not finest.times or not finest.epsg or (finest.x % FINE, finest.y % FINE) != (0, 0):
        return b"null"
    height, width = finest.rows * finest.times, finest.columns * finest.times
    found = sorted((tiles for tiles in found if tiles.times), key=lambda tiles: tiles.times)
    blocks = [(tiles.block[0] * tiles.times, tiles.block[1] * tiles.times) for tiles in found]
    unit = unit_shape(blocks, (height, width), UNIT_SIDE)
    fine = [(tiles.block[0] * tiles.times, tiles.block[1] * tiles.times) for tiles in found if tiles.times == 1]
    piece = unit_shape(fine or blocks, unit, PIECE_SIDE)
    grid = GranuleGrid(finest.epsg, tile, round(finest.x), round(finest.y), height, width, unit, piece)
    return json.dumps(asdict(grid)).encode()


def grid_from_result(result: bytes) -> GranuleGrid | None:
    """What `look_at_granule` gave."""
    document = json.loads(result)
    if document is None:
        return None
    return GranuleGrid(**{**document, "unit": tuple(document["unit"]), "piece": tuple(document["piece"])})


@dataclass(frozen=True)
class RasterTiles:
    """The grid of a file and its internal tiles."""

    epsg: int
    x: float
    y: float
    rows: int
    columns: int
    #: Pixels (rows, columns) of an internal tile.
    block: tuple[int, int]
    #: Pixels of 10 m along a pixel; 0 where that is no whole number.
    times: int


def raster_tiles(href: str) -> RasterTiles:
    """What the header of a file says of its grid. Raises ReadError, SceneError."""

    def read() -> RasterTiles:
        with opened(href) as dataset:
            grid_of(dataset)
            transform = dataset.transform
            times = transform.a / FINE
            is_plain = not (transform.b or transform.d) and transform.e == -transform.a and times == round(times)
            epsg = dataset.crs.to_epsg() or 0
            rows, columns = dataset.block_shapes[0]
            return RasterTiles(
                epsg if dataset.crs.is_projected else 0,
                transform.c,
                transform.f,
                dataset.height,
                dataset.width,
                (min(rows, dataset.height), min(columns, dataset.width)),
                round(times) if is_plain and times >= 1 else 0,
            )

    return retried(read, href, remote=is_remote(href))


def unit_shape(blocks: Sequence[tuple[int, int]], size: tuple[int, int], side: int) -> tuple[int, int]:
    """Rows and columns of whole internal tiles, some `side` pixels square.

    blocks: tiles (rows, columns) of files of every resolution, the finest first. size: of the granule. Files in strips
    give wide flat pieces of as many pixels. Even numbers, so that pixels of 20 m stay whole.
    """
    width = fitting([columns for _, columns in blocks], size[1], side)
    wanted = max(2, side * side // max(side, width) // 2 * 2)
    height = fitting([rows for rows, _ in blocks], size[0], wanted)
    # A file of one huge tile is decoded for each unit again: memory bounds these.
    return (height if height * width <= 4 * side * side else wanted), width


def fitting(lengths: Sequence[int], whole: int, side: int) -> int:
    """A multiple of all lengths near `side`, all of the granule where tiles are as long.

    Where no such multiple is near, as with tiles of 1024 pixels at 10 m and 640 at 20 m, one of the first length alone.
    """
    step, first = lcm(2, *lengths), lcm(2, lengths[0])
    if max(lengths) >= whole:
        return whole + whole % 2
    if step < whole and step <= MOST_TIMES * side:
        return step * max(1, side // step)
    return first * max(1, side // first)


def epsg_of(item: pystac.Item, grids: dict[str, GranuleGrid]) -> int | None:
    """The zone of an item's pixels: as its files say, else as the item says."""
    grid = grids.get(sentinel2_tile(item))
    return item_epsg(item) if grid is None else grid.epsg
