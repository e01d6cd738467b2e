"""The lattice of all data: cells, their geometry, the split squares and the order of blocks.

A cell is a square of a fixed lattice in a UTM zone; its corners are multiples of its size, so the same ground is the
same cell in every year and for every scene. A cell exists when all of it lies in its own zone (6 degrees of longitude,
without the exceptions of Norway and Svalbard) and hemisphere: cells never overlap, and at a zone border a strip
narrower than a cell's diagonal on either side belongs to no cell.
"""

from __future__ import annotations

import hashlib
import math
import re
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import shapely
from numpy.typing import NDArray
from pyproj import CRS, Proj, Transformer
from shapely.geometry import shape
from shapely.geometry.base import BaseGeometry

if TYPE_CHECKING:
    from odc.geo.geobox import GeoBox

LONLAT = "OGC:CRS84"
#: The one CRS split squares are drawn in (ETRS89-LAEA, equal area), so that two UTM zones over one ground agree.
SPLIT_CRS = "EPSG:3035"
#: Cells hold whole pixels of Sentinel-2's 10, 20 and 60 m bands and of EnMAP's 30 m.
CELL_STEP = 60
#: Side of processing tiles in metres: most cell sizes in use divide it (240, 480, 960, 1920, 3840).
TILE_SIZE = 15_360
#: Ground around a tile that is read with it, in metres: kernels, search windows, shadows of clouds outside.
TILE_MARGIN = 1_920
CELL_ID = re.compile(r"(?P<epsg>32[67](?:0[1-9]|[1-5]\d|60))_(?P<size>\d+)_(?P<column>-?\d{4,})_(?P<row>-?\d{4,})")
#: Geometry that touches within this many metres counts as inside.
TOLERANCE = 1e-3
#: A cell's centre is tested this many metres to the east and north: on a border of two areas it lies in one of them.
TIE_BREAK = (1.1e-4, 0.7e-4)

CellRule = Literal["centre", "inside", "touching"]


@lru_cache(maxsize=256)
def transformer(source: str, target: str) -> Transformer:
    """A cached transformer with x (or longitude) first on both sides."""
    return Transformer.from_crs(source, target, always_xy=True)


def meridian_convergence(crs: str, longitude: float, latitude: float) -> float:
    """How far the grid's north lies clockwise of true north at a place, in degrees.

    An azimuth from true north less this is one from the grid's north.
    """
    return float(Proj(crs).get_factors(longitude, latitude).meridian_convergence)


@dataclass(frozen=True, order=True)
class Cell:
    """A square of the lattice: columns count eastwards and rows northwards from the origin of the UTM zone."""

    epsg: int
    size: int
    column: int
    row: int

    @property
    def id(self) -> str:
        """`32631_1920_0261_2932`: EPSG, size in metres, column, row (at least four digits each)."""
        column, row = (f"{number:0{5 if number < 0 else 4}d}" for number in (self.column, self.row))
        return f"{self.epsg}_{self.size}_{column}_{row}"

    @classmethod
    def parse(cls, text: str) -> Cell:
        """The cell of an id. Raises ValueError for anything else."""
        match = CELL_ID.fullmatch(text)
        cell = None if match is None else cls(*(int(match[key]) for key in ("epsg", "size", "column", "row")))
        # One cell has one id: not a second one with more zeros.
        if cell is None or cell.id != text or not cell.size or cell.size % CELL_STEP:
            raise ValueError(f"invalid cell id {text!r}; expected one like 32631_1920_0261_2932")
        return cell

    @property
    def crs(self) -> str:
        """The cell's UTM zone, `EPSG:32631`."""
        return f"EPSG:{self.epsg}"

    @property
    def bounds(self) -> tuple[int, int, int, int]:
        """West, south, east, north in metres of the zone."""
        x, y = self.column * self.size, self.row * self.size
        return x, y, x + self.size, y + self.size

    @property
    def corner(self) -> tuple[int, int]:
        """The upper left corner (x0, y0) in metres of the zone."""
        west, _, _, north = self.bounds
        return west, north

    @property
    def polygon(self) -> shapely.Polygon:
        """The cell in its own zone."""
        return shapely.box(*self.bounds)

    @property
    def outline(self) -> shapely.Polygon:
        """The cell in longitude and latitude."""
        return shapely.transform(self.polygon, transformer(self.crs, LONLAT).transform, interleaved=False)

    def geobox(self, resolution: int) -> GeoBox:
        """The cell's pixels of `resolution` metres, rows from north to south."""
        return geobox(self.bounds, self.epsg, resolution)


@dataclass(frozen=True, order=True)
class ProcessingTile:
    """Fixed ground for work on many dates at once: a square of its own lattice, whatever cells and splits are built.

    Columns count eastwards and rows northwards from the origin of the UTM zone, as those of cells. Tiles of one zone
    share no ground; unlike cells they may reach beyond their zone.
    """

    epsg: int
    column: int
    row: int

    @property
    def id(self) -> str:
        """`32631_15360_0032_0366`, as a cell of its size is called."""
        return Cell(self.epsg, TILE_SIZE, self.column, self.row).id

    @property
    def bounds(self) -> tuple[int, int, int, int]:
        """West, south, east, north in metres of the zone."""
        return Cell(self.epsg, TILE_SIZE, self.column, self.row).bounds

    @property
    def bounds_with_margin(self) -> tuple[int, int, int, int]:
        """The ground that is read for it: results near its edge depend on what lies beyond."""
        west, south, east, north = self.bounds
        return west - TILE_MARGIN, south - TILE_MARGIN, east + TILE_MARGIN, north + TILE_MARGIN


def tiles_of(cell: Cell) -> list[ProcessingTile]:
    """The tiles that a cell takes its parts from, in order: one where its size divides that of a tile."""
    west, south, east, north = cell.bounds
    columns = range(west // TILE_SIZE, -(-east // TILE_SIZE))
    rows = range(south // TILE_SIZE, -(-north // TILE_SIZE))
    return [ProcessingTile(cell.epsg, column, row) for column in columns for row in rows]


def home_tile(cell: Cell) -> ProcessingTile:
    """The tile that the middle of a cell lies in."""
    west, south, east, north = cell.bounds
    return ProcessingTile(cell.epsg, (west + east) // 2 // TILE_SIZE, (south + north) // 2 // TILE_SIZE)


def geobox(bounds: Sequence[float], epsg: int, resolution: float) -> GeoBox:
    """The pixels of `resolution` metres that fill `bounds` (west, south, east, north), rows from north to south."""
    from affine import Affine
    from odc.geo.geobox import GeoBox

    west, south, east, north = bounds
    shape = (round((north - south) / resolution), round((east - west) / resolution))
    return GeoBox(shape, Affine(resolution, 0, west, 0, -resolution, north), f"EPSG:{epsg}")


def bounds_of(cells: Iterable[Cell]) -> tuple[int, int, int, int]:
    """West, south, east, north around cells of one zone."""
    bounds = np.array([cell.bounds for cell in cells])
    west, south = bounds[:, :2].min(axis=0).tolist()
    east, north = bounds[:, 2:].max(axis=0).tolist()
    return west, south, east, north


def utm_epsg(longitude: float, latitude: float) -> int:
    """The UTM zone of a place, as EPSG code (326zz north, 327zz south of the equator)."""
    zone = min(max(math.floor((longitude + 180) / 6) + 1, 1), 60)
    return (32600 if latitude >= 0 else 32700) + zone


def zone_extent(epsg: int) -> tuple[float, float, float, float]:
    """West, south, east, north of a UTM zone in degrees."""
    zone, north = epsg % 100, epsg < 32700
    west = (zone - 1) * 6.0 - 180
    return west, 0.0 if north else -80.0, west + 6, 84.0 if north else 0.0


def cells_of_area(area: BaseGeometry, crs: str, size: int, rule: CellRule = "centre") -> list[Cell]:
    """The cells of an area, in order of zone, column and row.

    area: polygon(s) in `crs`. rule: `centre` takes cells whose centre lies in the area, so that areas that tile the
    ground share no cell; `inside` those that lie wholly in it; `touching` all that meet it. Raises ValueError for an
    empty area or a size that is not a positive multiple of 60 m.
    """
    if size <= 0 or size % CELL_STEP:
        raise ValueError(f"cell size {size} m: must be a positive multiple of {CELL_STEP} m")
    if area.is_empty:
        raise ValueError("the area is empty")
    lonlat = to_crs(area, crs, LONLAT)
    west, south, east, north = lonlat.bounds
    zones = {
        utm_epsg(longitude, latitude)
        for longitude in [*np.arange(west, east, 3.0), east]
        for latitude in (south, north)
    }
    shapely.prepare(area)
    cells: list[Cell] = []
    for epsg in sorted(zones):
        # A wide area is cut to the zone first (with a margin): far outside its zone UTM is of no use.
        zone = zone_extent(epsg)
        clipped = area if CRS(crs).to_epsg() == epsg else clip_to_zone(lonlat, zone, epsg)
        if clipped.is_empty:
            continue
        column, row = squares_around(clipped.bounds, size)
        x, y = column * size, row * size
        if rule == "centre":
            taken = centres_inside(area, crs, epsg, x, y, size)
        else:
            taken = squares_of_area(clipped, x, y, size, rule)
        taken &= in_own_zone(epsg, x, y, size)
        cells += [Cell(epsg, size, int(c), int(r)) for c, r in zip(column[taken], row[taken], strict=True)]
    return sorted(cells)


def clip_to_zone(lonlat: BaseGeometry, zone: tuple[float, float, float, float], epsg: int) -> BaseGeometry:
    """The part of an area (longitude, latitude) near a zone, in metres of that zone."""
    west, south, east, north = zone
    near = shapely.box(west - 0.5, south - 0.5, east + 0.5, north + 0.5)
    return to_crs(shapely.intersection(lonlat, near), LONLAT, f"EPSG:{epsg}")


def squares_around(bounds: Sequence[float], size: int) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Columns and rows of the squares that meet bounds (metres of the zone), with one more on every side."""
    west, south, east, north = bounds
    columns = np.arange(math.floor(west / size) - 1, math.floor(east / size) + 2)
    rows = np.arange(math.floor(south / size) - 1, math.floor(north / size) + 2)
    column, row = np.meshgrid(columns, rows)
    return column.ravel(), row.ravel()


def centres_inside(
    area: BaseGeometry, crs: str, epsg: int, x: NDArray[Any], y: NDArray[Any], size: int
) -> NDArray[np.bool_]:
    """Whether the centres of squares with lower left corners (x, y) lie in an area, tested in the area's own CRS.

    There its edges are exactly as given, so that a centre lies in exactly one of the areas that tile the ground.
    """
    to_area = transformer(f"EPSG:{epsg}", crs)
    east, north = to_area.transform(x + size / 2 + TIE_BREAK[0], y + size / 2 + TIE_BREAK[1])
    inside: NDArray[np.bool_] = shapely.intersects_xy(area, east, north)
    return inside


def squares_of_area(
    area: BaseGeometry, x: NDArray[Any], y: NDArray[Any], size: int, rule: CellRule
) -> NDArray[np.bool_]:
    """Whether squares with lower left corners (x, y) lie inside an area of their zone, or (`touching`) meet it."""
    shapely.prepare(area)
    if rule == "touching":
        meet: NDArray[np.bool_] = shapely.intersects(area, shapely.box(x, y, x + size, y + size))
        return meet
    inner = shapely.box(x + TOLERANCE, y + TOLERANCE, x + size - TOLERANCE, y + size - TOLERANCE)
    covered: NDArray[np.bool_] = shapely.covers(area, inner)
    return covered


def in_own_zone(epsg: int, x: NDArray[Any], y: NDArray[Any], size: int) -> NDArray[np.bool_]:
    """Whether squares with lower left corners (x, y) lie wholly in their zone: all four corners do."""
    west, south, east, north = zone_extent(epsg)
    to_lonlat = transformer(f"EPSG:{epsg}", LONLAT)
    inside = np.ones(len(x), bool)
    for dx, dy in ((0, 0), (size, 0), (0, size), (size, size)):
        longitude, latitude = to_lonlat.transform(x + dx, y + dy)
        inside &= (longitude >= west) & (longitude <= east) & (latitude >= south) & (latitude <= north)
    return inside


def to_crs(geometry: BaseGeometry, source: str, target: str) -> BaseGeometry:
    """A geometry with every vertex moved to another CRS; long edges are cut first so that they stay where they are."""
    if CRS(source) == CRS(target) or geometry.is_empty:
        return geometry
    west, south, east, north = geometry.bounds
    longest = max(east - west, north - south) / 64
    dense = shapely.segmentize(geometry, longest) if longest > 0 else geometry
    moved: BaseGeometry = shapely.transform(dense, transformer(source, target).transform, interleaved=False)
    return moved


def geojson_polygons(document: dict[str, Any]) -> BaseGeometry:
    """The union of the polygons in a GeoJSON geometry, Feature or FeatureCollection."""
    if document["type"] == "FeatureCollection":
        return shapely.union_all([geojson_polygons(feature) for feature in document["features"]])
    if document["type"] == "Feature":
        return geojson_polygons(document["geometry"])
    geometry = shape(document)
    if not isinstance(geometry, shapely.Polygon | shapely.MultiPolygon):
        raise ValueError(f"expected a polygon, got {document['type']}")
    return geometry


def split_squares(cells: Sequence[Cell], square_size: int) -> list[tuple[int, int]]:
    """The split square (column, row in EPSG:3035) that holds each cell's centre."""
    squares: list[tuple[int, int]] = [(0, 0)] * len(cells)
    by_zone: dict[str, list[int]] = defaultdict(list)
    for i, cell in enumerate(cells):
        by_zone[cell.crs].append(i)
    for crs, members in by_zone.items():
        corners = np.array([cells[i].bounds for i in members], float)
        x, y = transformer(crs, SPLIT_CRS).transform(corners[:, [0, 2]].mean(axis=1), corners[:, [1, 3]].mean(axis=1))
        columns, rows = np.floor(x / square_size).astype(int), np.floor(y / square_size).astype(int)
        for i, column, row in zip(members, columns.tolist(), rows.tolist(), strict=True):
            squares[i] = (column, row)
    return squares


def split_of_square(square: tuple[int, int], square_size: int, shares: dict[str, float], seed: int) -> str:
    """The split of a square: a hash of its place and the seed falls into the shares, whatever else is built.

    shares: split -> share of the squares, adding up to 1, in any order.
    """
    text = f"{SPLIT_CRS}/{square_size}/{square[0]}/{square[1]}/{seed}"
    position = int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "big") / 2**64
    reached = 0.0
    for name in sorted(shares):
        reached += shares[name]
        if position < reached:
            return name
    return max(sorted(shares), key=lambda name: shares[name])


def hilbert_index(column: int, row: int, bits: int = 20) -> int:
    """Position of (column, row) along a Hilbert curve of 2^bits squares a side: near positions are near places."""
    side = 1 << bits
    x, y, position = column % side, row % side, 0
    step = side >> 1
    while step:
        right, upper = int(bool(x & step)), int(bool(y & step))
        position += step * step * ((3 * right) ^ upper)
        if not upper:
            if right:
                x, y = side - 1 - x, side - 1 - y
            x, y = y, x
        step >>= 1
    return position


def blocks_of_cells(
    cells: Sequence[Cell], squares: Sequence[tuple[int, int]], capacity: int
) -> list[tuple[tuple[int, int], list[Cell]]]:
    """Cut cells into blocks: runs of at most `capacity` cells of one zone along a Hilbert curve inside one square.

    squares: the split square of each cell. Gives (square, cells) in order of square.
    """
    members: dict[tuple[tuple[int, int], int], list[Cell]] = defaultdict(list)
    for cell, square in zip(cells, squares, strict=True):
        members[square, cell.epsg].append(cell)
    blocks = []
    for (square, _), inside in sorted(members.items()):
        ordered = sorted(inside, key=lambda cell: (hilbert_index(cell.column, cell.row), cell))
        blocks += [(square, ordered[i : i + capacity]) for i in range(0, len(ordered), capacity)]
    return blocks
