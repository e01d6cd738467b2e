"""The parcels that a plan pins: read near its cells, classified, numbered, assigned to a split."""

from __future__ import annotations

import hashlib
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cache
from itertools import count, groupby, product
from typing import Any, Protocol

import geopandas as gpd
import numpy as np
import pandas as pd
import pyogrio
import shapely
from numpy.typing import NDArray
from shapely.geometry.base import BaseGeometry

from h2crop_data.constants import FINE, TIER_COLUMNS, UNKNOWN
from h2crop_data.crops.taxonomy import Taxonomy, tier_table
from h2crop_data.datasheet.markdown import listing
from h2crop_data.errors import ParcelError
from h2crop_data.grid import LONLAT, SPLIT_CRS, Cell, to_crs, transformer
from h2crop_data.parcels.rasterize import covered, rasterize_ids
from h2crop_data.parcels.read import CONTRADICTORY
from h2crop_data.progress import Progress
from h2crop_data.sources.parcels.files import NAMED, YearFiles, read_near
from h2crop_data.splits.squares import Square

#: The two years of declarations behind the labels of a season.
ROLES = ("parcels", "prior")
PARCEL_COLUMNS = ["number", "country", "parcel_id", "code", "hcat3", *TIER_COLUMNS, "split"]


@dataclass(frozen=True)
class Declarations:
    """What was declared in one year on the ground of a plan."""

    #: PARCEL_COLUMNS and geometry in longitude and latitude, in order of number.
    parcels: gpd.GeoDataFrame
    #: Ground the declarations cover (longitude, latitude); None: all of it; empty: none, so every label is unknown.
    coverage: shapely.Geometry | None
    #: What was read, repaired and dropped.
    counts: dict[str, int] = field(default_factory=dict)
    #: By country the crop codes that are in no table, with their number of parcels.
    unmapped: dict[str, dict[str, int]] = field(default_factory=dict)
    #: In words, what of the files needs a look.
    notes: list[str] = field(default_factory=list)
    #: Country -> SHA-256 of the crop table that classified its parcels; None in plans of versions that did not keep it.
    tables: dict[str, str] | None = field(default_factory=dict)

    def near(self, cells: Sequence[Cell]) -> Declarations:
        """The part of it that bears on some cells."""
        outlines = shapely.union_all([cell.outline for cell in cells])
        found = self.parcels.sindex.query(outlines, predicate="intersects")
        coverage = None if self.coverage is None else shapely.intersection(self.coverage, outlines.buffer(0.01))
        return Declarations(self.parcels.iloc[np.sort(found)], coverage)

    def touched(self, square_size: int) -> set[Square]:
        """The split squares that hold a part of a parcel."""
        return {
            square for squares in split_squares_around(split_ground(self.parcels), square_size) for square in squares
        }


@dataclass(frozen=True)
class Declared:
    """The two years of declarations behind the labels of a season."""

    parcels: Declarations
    prior: Declarations

    def of(self, role: str) -> Declarations:
        """The declarations of a role, `parcels` or `prior`."""
        declarations: Declarations = getattr(self, role)
        return declarations


def no_declarations() -> Declarations:
    """A year without declarations."""
    columns: dict[str, Any] = {name: pd.Series(dtype="str") for name in PARCEL_COLUMNS}
    columns["number"] = pd.Series(dtype="uint32")
    columns |= {name: pd.Series(dtype="uint8") for name in TIER_COLUMNS}
    return Declarations(gpd.GeoDataFrame(columns, geometry=[], crs=LONLAT), shapely.Polygon())


def declarations_of(
    files: YearFiles,
    groups: Sequence[Sequence[Cell]],
    squares: Squares,
    taxonomy: Taxonomy,
    progress: Progress,
    known: gpd.GeoDataFrame | None = None,
) -> Declarations:
    """The parcels of a year that meet the cells of some groups (cells near each other), read group by group.

    squares: the split of every square. known: parcels that have a number already and keep it.
    Raises ParcelError for files, fields or tables that cannot be used; whether the files are those of the cells is not
    looked at (`check_year_files`, `check_declared`).
    """
    if not files.sources:
        return no_declarations()
    found = read_near(files, groups, progress)
    parcels = found.parcels
    parcels[TIER_COLUMNS] = tier_table(parcels["hcat3"], taxonomy)
    parcels["number"] = numbers_of(parcels, known)
    parcels = parcels.sort_values("number", ignore_index=True)
    parcels["split"] = split_of_parcels(parcels.geometry.to_numpy(), squares)
    columns = [*PARCEL_COLUMNS, "geometry"]
    coverage = coverage_of(files)
    return Declarations(parcels[columns], coverage, found.counts, found.unmapped, found.notes, found.tables)


def check_declared(found: Sequence[Declarations], files: YearFiles) -> None:
    """Refuse the declarations of a year without any classified parcel on the cells. Raises ParcelError.

    found: of all parts of the season.
    """
    if not files.sources:
        return
    paths = ", ".join(str(files.path(source)) for source in files.sources)
    parcels = sum(len(one.parcels) for one in found)
    if not parcels:
        raise ParcelError(
            f"{files.year}: no parcel of {paths} lies on the cells: every pixel would be labelled as not declared; "
            "check the `path` and the `crs` of the source, or set the `years` it has declarations for"
        )
    known = sum(one.counts["parcels"] - one.counts["unmapped"] - one.counts.get(CONTRADICTORY, 0) for one in found)
    if not known:
        codes = sum((Counter(codes) for one in found for codes in one.unmapped.values()), Counter[str]())
        often = listing([f"{code or 'no code'} ({number})" for code, number in codes.most_common()], NAMED)
        notes = [note for one in found for note in one.notes]
        raise ParcelError(
            f"{files.year}: none of {parcels} parcel(s) of {paths} has a crop code from its table: {often}; check "
            f"the `code_field` and the `table` of the source{'; '.join(['', *dict.fromkeys(notes)])}"
        )


def coverage_of(files: YearFiles) -> shapely.Geometry | None:
    """The ground a year's sources cover together; None where one of them does not say, which counts as everywhere."""
    grounds = []
    for source in files.sources:
        if source.coverage is None:
            return None
        path = files.locate(source.coverage)
        try:
            frame = pyogrio.read_dataframe(path, columns=[])
        except pyogrio.errors.DataSourceError as error:
            raise ParcelError(f"cannot read the coverage {path}: {error}") from error
        if frame.crs is None:
            raise ParcelError(f"the coverage {path} has no CRS")
        ground = shapely.union_all(shapely.make_valid(frame.geometry.to_numpy()))
        grounds.append(to_crs(ground, frame.crs.to_string(), LONLAT))
    return shapely.union_all(grounds)


def numbers_of(parcels: gpd.GeoDataFrame, known: gpd.GeoDataFrame | None) -> NDArray[np.uint32]:
    """The number of each parcel: the one it has already, else the next that is free."""
    if known is None or not len(known):
        return np.arange(1, len(parcels) + 1, dtype=np.uint32)
    numbers = dict(zip(identities(known), known["number"].tolist(), strict=True))
    free = count(max(numbers.values()) + 1)
    return np.array([numbers.get(key) or next(free) for key in identities(parcels)], np.uint32)


def identities(parcels: gpd.GeoDataFrame) -> list[tuple[str, str, str, bytes]]:
    """The identity of each parcel: country, id, crop code and shape."""
    columns = [parcels[name].tolist() for name in ("country", "parcel_id", "code")]
    return list(zip(*columns, shapely.to_wkb(parcels.geometry.to_numpy()), strict=True))


class Squares(Protocol):
    """Gives the split of a square."""

    @property
    def square_size(self) -> int:
        """Side of the squares in metres, in EPSG:3035."""

    def split_of(self, square: Square) -> str:
        """The split of a square (column, row)."""


def with_splits(declarations: Declarations, squares: Squares, known: gpd.GeoDataFrame | None) -> Declarations:
    """The same parcels, each in the split that holds most of it; known ones keep theirs."""
    if not len(declarations.parcels):
        return declarations
    parcels = declarations.parcels.copy()
    parcels["split"] = split_of_parcels(parcels.geometry.to_numpy(), squares)
    return keeping_splits(replace(declarations, parcels=parcels), known)


def keeping_splits(declarations: Declarations, known: gpd.GeoDataFrame | None) -> Declarations:
    """The same parcels, but for those that have a split already, which they keep."""
    if known is None or not len(known) or not len(declarations.parcels):
        return declarations
    parcels = declarations.parcels.copy()
    splits = {number: split for number, split in zip(known["number"], known["split"], strict=True) if split}
    kept = parcels["number"].map(splits)
    parcels["split"] = kept.where(kept.notna(), parcels["split"])
    return replace(declarations, parcels=parcels)


def split_ground(parcels: gpd.GeoDataFrame) -> NDArray[np.object_]:
    """The shapes of parcels in the CRS of the split squares."""
    shapes: NDArray[np.object_] = shapely.transform(
        parcels.geometry.to_numpy(), transformer(LONLAT, SPLIT_CRS).transform, interleaved=False
    )
    return shapes


def split_squares_around(shapes: NDArray[np.object_], size: int) -> list[list[Square]]:
    """For each shape the squares that its bounds meet."""
    squares = np.floor(shapely.bounds(shapes).reshape(-1, 4) / size).astype(int)
    return [
        list(product(range(west, east + 1), range(south, north + 1))) for west, south, east, north in squares.tolist()
    ]


def areas_by_square(shape: shapely.Geometry, squares: Sequence[Square], size: int) -> dict[Square, float]:
    """The area of a shape in each of some squares."""
    boxes = [shapely.box(c * size, r * size, (c + 1) * size, (r + 1) * size) for c, r in squares]
    return dict(zip(squares, shapely.area(shapely.intersection(shape, boxes)).tolist(), strict=True))


def split_of_parcels(geometry: NDArray[np.object_], squares: Squares) -> NDArray[np.object_]:
    """The split that holds most of each parcel (longitude, latitude)."""
    size = squares.square_size
    shapes = shapely.transform(geometry, transformer(LONLAT, SPLIT_CRS).transform, interleaved=False)
    name_of = cache(squares.split_of)
    splits = []
    for shape, around in zip(shapes, split_squares_around(shapes, size), strict=True):
        if len(around) == 1:
            splits.append(name_of(around[0]))
            continue
        areas: dict[str, float] = defaultdict(float)
        for square, area in areas_by_square(shape, around, size).items():
            areas[name_of(square)] += area
        splits.append(max(sorted(areas), key=lambda name: areas[name]))
    return np.array(splits, dtype=object)


def home_squares(parcels: gpd.GeoDataFrame, size: int) -> dict[int, Square | None]:
    """By number of each parcel, the square that holds more than half of it; None where none does."""
    homes: dict[int, Square | None] = {}
    shapes = split_ground(parcels)
    for number, shape, around in zip(
        parcels["number"].tolist(), shapes, split_squares_around(shapes, size), strict=True
    ):
        if len(around) == 1:
            homes[number] = around[0]
            continue
        areas = areas_by_square(shape, around, size)
        most = max(areas, key=lambda square: areas[square])
        homes[number] = most if areas[most] > sum(areas.values()) / 2 else None
    return homes


class CellParcels:
    """The parcels near some cells of one zone, ready to be drawn cell by cell."""

    def __init__(self, declarations: Declarations, cells: Sequence[Cell]) -> None:
        near = declarations.near(cells)
        self.parcels = near.parcels
        # Not by geopandas, which makes the CRS of a frame that came from another process anew: 11 ms a block and frame.
        self.shapes: NDArray[np.object_] = shapely.transform(
            near.parcels.geometry.to_numpy(), transformer(LONLAT, cells[0].crs).transform, interleaved=False
        )
        self.tree = shapely.STRtree(self.shapes)
        self.coverage = None if near.coverage is None else to_crs(near.coverage, LONLAT, cells[0].crs)

    def draw(self, cell: Cell) -> tuple[gpd.GeoDataFrame, NDArray[np.int32], NDArray[np.bool_] | None]:
        """The parcels of a cell, the raster of their index + 1 at 10 m, and where declarations cover it (None: all)."""
        drawn = np.sort(self.tree.query(cell.polygon, predicate="intersects"))
        inside, box = self.parcels.iloc[drawn], cell.geobox(FINE)
        ids = rasterize_ids(self.shapes[drawn], inside["number"].to_numpy(), box)
        known = None if self.coverage is None else covered(list(shapely.get_parts(self.coverage)), box)
        return inside, ids, known

    def labelled_share(self, cell: Cell) -> float:
        """Share of a cell's pixels in a parcel whose crop has a class at tier 1."""
        inside, ids, _ = self.draw(cell)
        known = np.concatenate([[False], inside[TIER_COLUMNS[0]].to_numpy() != UNKNOWN])
        return float(known[ids].mean())

    def classes_at_home(self, cell: Cell, homes: Mapping[int, Square | None], square: Square) -> set[tuple[int, int]]:
        """The classes (tier, id) that have a pixel in a cell, of parcels whose home is a square."""
        inside, ids, _ = self.draw(cell)
        drawn = inside.iloc[np.setdiff1d(ids, [0]) - 1]
        at_home = drawn[[homes[number] == square for number in drawn["number"]]]
        found = {(tier, int(name)) for tier, column in enumerate(TIER_COLUMNS, 1) for name in at_home[column].unique()}
        return {(tier, name) for tier, name in found if name != UNKNOWN}


def near_cells(declarations: Declarations, cells: Sequence[Cell]) -> Declarations:
    """The declarations with the parcels near some cells (in order) alone."""
    parts = [declarations.near(list(of_zone)).parcels for _, of_zone in groupby(cells, key=lambda cell: cell.epsg)]
    parcels = pd.concat(parts).drop_duplicates("number").sort_values("number", ignore_index=True)
    return replace(declarations, parcels=parcels)


def with_listed_splits(declarations: Declarations, splits: Mapping[Cell, str]) -> Declarations:
    """The same parcels, each in the split whose cells hold most of it; what lies in no listed cell has none."""
    parcels = declarations.parcels.copy()
    if not len(parcels):
        return declarations
    cells = sorted(splits)
    outlines = np.array([to_crs(cell.polygon, cell.crs, SPLIT_CRS) for cell in cells], dtype=object)
    shapes = split_ground(parcels)
    parcel, cell = shapely.STRtree(outlines).query(shapes, predicate="intersects")
    shared = shapely.area(shapely.intersection(shapes[parcel], outlines[cell]))
    areas: dict[int, dict[str, float]] = defaultdict(lambda: defaultdict(float))
    for row, number, area in zip(parcel.tolist(), cell.tolist(), shared.tolist(), strict=True):
        areas[row][splits[cells[number]]] += area
    parcels["split"] = [largest(areas[row]) if row in areas else "" for row in range(len(parcels))]
    return replace(declarations, parcels=parcels)


def largest(areas: Mapping[str, float]) -> str:
    """The split with the largest area; the first by name of equals."""
    return max(sorted(areas), key=lambda name: areas[name])


def digests_near(declarations: Declarations, places: Sequence[BaseGeometry]) -> list[str]:
    """For each place (longitude, latitude) the SHA-256 of the declarations that bear on it."""
    table = declarations.parcels
    place, parcel = table.sindex.query(np.array(places, dtype=object), predicate="intersects")
    # A plan asks about some of its blocks, and has the parcels of a whole country: those near them are hashed, once.
    near, row = np.unique(parcel, return_inverse=True)
    rows = pd.util.hash_pandas_object(table.iloc[near].drop(columns="geometry"), index=False).to_numpy()
    shapes = shapely.to_wkb(table.geometry.to_numpy()[near])
    states = [hashlib.sha256(coverage_near(declarations.coverage, one)) for one in places]
    order = np.lexsort((row, place))
    for i, k in zip(place[order].tolist(), row[order].tolist(), strict=True):
        states[i].update(rows[k].tobytes())
        states[i].update(shapes[k])
    return [state.hexdigest() for state in states]


def coverage_near(coverage: shapely.Geometry | None, place: BaseGeometry) -> bytes:
    """What of a place is covered, so that ground added elsewhere changes nothing here."""
    if coverage is None or shapely.covers(coverage, place):
        return b"everywhere"
    near: bytes = shapely.to_wkb(shapely.normalize(shapely.intersection(coverage, place)))
    return near
