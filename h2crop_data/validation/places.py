"""Where samples lie: coordinates, cells, outlines, split squares, and that no ground is in two splits.

All of it is written out here again from docs/store-format.md and docs/recipes.md; nothing of the builder's geometry is
used, so that a mistake there is not made here again.
"""

from __future__ import annotations

import hashlib
import re
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cache
from typing import Any

import geopandas as gpd
import numpy as np
import pandas as pd
import shapely
from numcodecs.vlen import VLenUTF8
from numcodecs.zstd import Zstd
from numpy.typing import NDArray
from pyproj import Transformer

from h2crop_data.constants import NONE
from h2crop_data.cube.schema import CoordinateSpec
from h2crop_data.errors import StoreError
from h2crop_data.validation.documents import COORDINATE_LEVEL, coordinate_files, shape_of
from h2crop_data.validation.findings import (
    Checking,
    Counted,
    Finding,
    Findings,
    NotChecked,
    Reports,
    error,
    first,
    short,
    warning,
)
from h2crop_data.validation.index import Sources, of_samples
from h2crop_data.validation.metadata import SIDE_STEP
from h2crop_data.validation.release import Release

#: Bytes of a number in a chunk of text: how many texts there are, how long each is.
LENGTH = 4
DEGREES, SQUARES_CRS = "OGC:CRS84", "EPSG:3035"
#: Outlines may differ by so many degrees (a tenth of a metre): versions of PROJ differ in the last digits.
OUTLINE_TOLERANCE = 1e-6
#: Outlines of squares have so many pieces a side, so that they follow their curved edges.
EDGE_PIECES = 8
#: Ground that overlaps by so many metres, or less, only touches.
TOUCHING = 1e-3
#: Metres between the corners of an outline that is moved to another zone.
DENSE = 240.0
CELL = re.compile(r"(?P<epsg>\d{5})_(?P<size>\d+)_(?P<column>-?\d+)_(?P<row>-?\d+)")
SQUARE_NAME = re.compile(r"-?\d+_-?\d+")
COUNTED_SQUARE = ["column", "row", "split", "samples"]
LEAK_COLUMNS = ["sample", "cell", "epsg", "x0", "y0", "split", "geometry"]


@cache
def from_to(source: int | str, target: int | str) -> Transformer:
    """From one CRS to another, x or longitude first."""
    return Transformer.from_crs(source, target, always_xy=True)


def moved_outlines(shapes: NDArray[np.object_], source: int | str, target: int | str) -> NDArray[np.object_]:
    """Shapes with every corner moved to another CRS."""
    there: NDArray[np.object_] = shapely.transform(shapes, from_to(source, target).transform, interleaved=False)
    return there


# Coordinates


@dataclass(frozen=True)
class SlotTable:
    """Which slots of a season hold what, by its index."""

    #: Whether the index says so at all.
    known: bool
    #: Samples by slot; empty where the index is lost.
    samples: pd.DataFrame
    #: (slot): those of samples of the release; of samples it leaves out.
    valid: NDArray[np.bool_]
    retracted: NDArray[np.bool_]
    #: Wavelengths of imported samples may be unknown, 0.
    imported: bool

    @classmethod
    def of(cls, release: Release, season: int) -> SlotTable:
        """From the index of a release."""
        samples, blocks = release.samples(season), release.blocks(season)
        slots, capacity = release.seasons[season] * release.layout.capacity, release.layout.capacity
        valid, retracted = np.zeros(slots, bool), np.zeros(slots, bool)
        if samples is not None and blocks is not None:
            inside = samples["slot"].to_numpy()
            valid[inside[(inside >= 0) & (inside < slots)]] = True
            for block, count, reason in zip(blocks["block"], blocks["samples"], blocks["retracted"], strict=True):
                if reason:
                    retracted[block * capacity : block * capacity + min(count, capacity)] = True
        by_slot = pd.DataFrame() if samples is None else samples.set_index("slot")
        known = samples is not None and blocks is not None
        return cls(known, by_slot, valid, retracted, release.is_imported(season))


def check_coordinates(release: Release, sources: Sources) -> Checking[Release]:
    """Ids, places and bands of every slot, chunk by chunk; gives the release with coordinates along another axis."""
    kept: dict[int, dict[str, NDArray[Any]]] = {}
    for season in release.seasons:
        table = SlotTable.of(release, season)
        for coordinate in release.coordinate_specs(season):
            shape = shape_of(coordinate, len(table.valid))
            chunks: list[NDArray[Any]] = []
            files = coordinate_files(coordinate, shape)
            for place, file in enumerate(files):
                name = f"{season}/{coordinate.name}/{file}"
                if release.is_here(name):
                    yield Counted("coordinate_chunks", 1)
                    values = yield from check_chunk(release, sources, coordinate, table, name, place, shape)
                    chunks += [] if values is None else [values]
            if coordinate.values is None and coordinate.lengths and len(chunks) == len(files):
                kept.setdefault(season, {})[coordinate.name] = np.concatenate(chunks)[: shape[0]]
    return replace(release, coordinates=kept)


def check_chunk(
    release: Release,
    sources: Sources,
    coordinate: CoordinateSpec,
    table: SlotTable,
    name: str,
    place: int,
    shape: tuple[int, ...],
) -> Checking[Any]:
    """One chunk of a coordinate; gives its values, None for one that cannot be decoded."""
    size = coordinate.chunk or shape[0]
    try:
        data = release.files.read(name)
        values = decode_coordinate(data, coordinate, (size, *shape[1:]))
    except (StoreError, ValueError, RuntimeError, MemoryError, TypeError) as failure:
        yield error("coordinate", name, f"cannot be decoded ({failure})", release.remedy_for(name))
        return None
    problems = list(chunk_problems(release, sources, coordinate, table, values, place * size, name))
    if problems and name not in release.changed and release.is_replaced_meanwhile(name):
        yield release.replaced_by_next(name)
        return None
    if name not in release.changed:
        yield from problems
    elif not problems and table.known and stored_bytes(coordinate, values) == data:
        what = "has values of a longer season than the release has; those of the release are as they should be"
        yield warning("unfinished", name, what, release.remedies.unfinished())
    elif release.is_being_sealed:
        yield release.replaced_by_next(name)
        return None
    else:
        yield release.other_bytes(name)
    return values


def decode_coordinate(data: bytes, coordinate: CoordinateSpec, shape: tuple[int, ...]) -> NDArray[Any]:
    """A chunk of a coordinate. Raises ValueError or RuntimeError for other bytes."""
    raw = bytes(Zstd().decode(data))
    if coordinate.data_type == "string":
        # The decoder believes whatever number of texts it finds.
        if int.from_bytes(raw[:LENGTH], "little") != shape[0]:
            raise ValueError(f"it does not hold {shape[0]} texts")
        return np.asarray(VLenUTF8().decode(raw), object)
    dtype = np.dtype(coordinate.data_type)
    if len(raw) != int(np.prod(shape)) * dtype.itemsize:
        raise ValueError(f"it holds {len(raw)} bytes")
    return np.frombuffer(raw, dtype).reshape(shape)


def stored_bytes(coordinate: CoordinateSpec, values: NDArray[Any]) -> bytes:
    """A chunk of a coordinate as the format stores it."""
    raw = VLenUTF8().encode(values) if coordinate.data_type == "string" else values.tobytes()
    return bytes(Zstd(level=COORDINATE_LEVEL).encode(raw))


def chunk_problems(
    release: Release,
    sources: Sources,
    coordinate: CoordinateSpec,
    table: SlotTable,
    values: NDArray[Any],
    start: int,
    name: str,
) -> Findings:
    """What of a chunk contradicts the index, or the format."""
    remedy = release.remedies.wrong_index()
    if coordinate.values is not None:
        if np.asarray(coordinate.values).tolist() != values.tolist():
            yield error("coordinate", name, f"is {short(values.tolist())}, not {short(coordinate.values)}", remedy)
        return
    if not table.known:
        return
    here = slice(start, min(start + len(values), len(table.valid)))
    values = values[: here.stop - here.start]
    valid, retracted = table.valid[here], table.retracted[here]
    for what, wrong in (
        ("contradicts the samples index", valid & wrong_where_valid(sources, coordinate, table, values, start)),
        ("does not say that the slot holds no sample", retracted & marked_valid(coordinate, values)),
        ("is not empty where no sample is", ~valid & ~retracted & different(values, coordinate.fill)),
    ):
        if wrong.any():
            slots = (np.flatnonzero(wrong) + start).tolist()
            yield error("coordinate", name, f"{what}: slot {first(slots)}", remedy)


def wrong_where_valid(
    sources: Sources, coordinate: CoordinateSpec, table: SlotTable, values: NDArray[Any], start: int
) -> NDArray[np.bool_]:
    """Where a coordinate is not what a valid slot must have; (slot), of any value in other slots."""
    if coordinate.name == "valid":
        return ~values.astype(bool)
    if coordinate.lengths:
        of_sources = (source.wrong_coordinate(coordinate.name, values, imported=table.imported) for source in sources)
        # Of a source without checks nobody here knows the values.
        return next((wrong for wrong in of_sources if wrong is not None), np.zeros(len(values), bool))
    expected = np.full(len(values), coordinate.fill, object)
    inside = table.samples.loc[(table.samples.index >= start) & (table.samples.index < start + len(values))]
    expected[inside.index.to_numpy() - start] = inside[coordinate.name].to_numpy()
    if coordinate.data_type == "float64":
        numbers = expected.astype(float)
        return np.asarray(~((values == numbers) | (np.isnan(values) & np.isnan(numbers))))
    return different(values, expected)


def marked_valid(coordinate: CoordinateSpec, values: NDArray[Any]) -> NDArray[np.bool_]:
    """Where a chunk says that a slot is valid; nowhere but in `valid`."""
    return values.astype(bool) if coordinate.name == "valid" else np.zeros(len(values), bool)


def different(values: NDArray[Any], expected: Any) -> NDArray[np.bool_]:
    """(slot): where any value of a slot is not the expected one."""
    unequal = np.asarray(values != expected, bool).reshape(len(values), -1)
    return np.asarray(unequal.any(axis=1), np.bool_)


# Cells and outlines


def check_georeferencing(release: Release) -> Findings:
    """Every sample lies where its cell does, or where an import placed it."""
    for season in release.seasons:
        samples = release.samples(season)
        if samples is None or not len(samples):
            continue
        path, remedy = release.index_path(f"samples-{season}"), release.remedies.wrong_index()
        on_lattice = samples["on_lattice"].to_numpy(bool) if "on_lattice" in samples else np.ones(len(samples), bool)
        placed = np.isfinite(samples[["x0", "y0"]].to_numpy(float)).all(axis=1)
        wrong = {
            "has no place": on_lattice & ~placed,
            "its outline is not the square at its corner": placed & ~has_outline(release, samples, placed),
            **lattice_problems(release, season, samples, on_lattice & placed),
        }
        for what, where in wrong.items():
            yield from of_samples("georeferencing", path, samples["sample"].to_numpy()[where].tolist(), what, remedy)
        vague = samples["sample"][~on_lattice & ~placed].tolist()
        if vague:
            names = first(vague)
            what = f"only the tile or scene of {len(vague)} samples is known: their place cannot be verified ({names})"
            remedy = (
                "`h2crop import-h5 DIR NEW --catalog ITEMS` places them in a new store, where ITEMS is a file of the "
                "EnMAP items of their scenes"
            )
            yield warning("georeferencing", path, what, remedy)


def ground_of_cell(name: Any) -> tuple[int, int, int, int] | None:
    """EPSG, side in metres, west and north edge of the cell of an id; None for any other text.

    `32633_960_0381_6048` is EPSG, side, column and row: x0 = column * side, y0 = (row + 1) * side.
    """
    found = CELL.fullmatch(str(name))
    if found is None:
        return None
    epsg, side, column, row = (int(found[part]) for part in ("epsg", "size", "column", "row"))
    if epsg // 100 not in (326, 327) or not 1 <= epsg % 100 <= 60 or side <= 0 or side % SIDE_STEP:
        return None
    # One cell has one id: at least four digits, and no more zeros than that takes.
    texts = [f"-{-number:04d}" if number < 0 else f"{number:04d}" for number in (column, row)]
    return (epsg, side, column * side, (row + 1) * side) if name == f"{epsg}_{side}_{'_'.join(texts)}" else None


def lattice_problems(
    release: Release, season: int, samples: pd.DataFrame, rows: NDArray[np.bool_]
) -> dict[str, NDArray[np.bool_]]:
    """What a sample of the lattice must be -> where it is not."""
    grounds = [ground_of_cell(name) if row else None for name, row in zip(samples["cell"], rows, strict=True)]
    known = np.array([ground is not None for ground in grounds], bool)
    epsg, side, west, north = np.array([ground or (0, 0, 0, 0) for ground in grounds], np.int64).reshape(-1, 4).T
    stored = samples[["epsg", "x0", "y0"]].to_numpy(float)
    wanted = release.layout.cell_size
    problems = {
        "its cell is not the id of a cell": rows & ~known,
        f"its cell does not have the {wanted} m of the store": known & (side != wanted),
        "its epsg is not that of its cell": known & (epsg != stored[:, 0]),
        "its corner (x0, y0) is not that of its cell": known & ((west != stored[:, 1]) | (north != stored[:, 2])),
        "its cell does not lie wholly in its own UTM zone": known & ~inside_zone(epsg, side, west, north),
    }
    size = release.settings(season, "split").get("square_size")
    if isinstance(size, int) and size > 0:
        squares = squares_of_grounds(epsg, side, west, north, size)
        problems["its split square is not the one its cell lies in"] = known & (squares != samples["square"].to_numpy())
    return problems


def inside_zone(
    epsg: NDArray[np.int64], side: NDArray[np.int64], west: NDArray[np.int64], north: NDArray[np.int64]
) -> NDArray[np.bool_]:
    """Whether all four corners of each ground lie in its zone of six degrees and its hemisphere; True for epsg 0."""
    inside = np.ones(len(epsg), bool)
    for zone in np.unique(epsg[epsg > 0]).tolist():
        here = epsg == zone
        edge = (zone % 100 - 1) * 6 - 180
        lowest, highest = (0, 84) if zone < 32700 else (-80, 0)
        for east in (0, 1):
            for south in (0, 1):
                x, y = west[here] + east * side[here], north[here] - south * side[here]
                longitude, latitude = from_to(zone, DEGREES).transform(x.astype(float), y.astype(float))
                inside[here] &= (longitude >= edge) & (longitude <= edge + 6)
                inside[here] &= (latitude >= lowest) & (latitude <= highest)
    return inside


def squares_of_grounds(
    epsg: NDArray[np.int64],
    side: NDArray[np.int64],
    west: NDArray[np.int64],
    north: NDArray[np.int64],
    size: int,
) -> NDArray[np.object_]:
    """column_row of the split square, of so many metres in EPSG:3035, that holds the centre of each ground."""
    squares = np.full(len(epsg), "", object)
    for zone in np.unique(epsg[epsg > 0]).tolist():
        here = epsg == zone
        x, y = from_to(zone, SQUARES_CRS).transform(west[here] + side[here] / 2, north[here] - side[here] / 2)
        places = zip((x // size).astype(int).tolist(), (y // size).astype(int).tolist(), strict=True)
        squares[here] = [f"{column}_{row}" for column, row in places]
    return squares


def has_outline(release: Release, samples: pd.DataFrame, rows: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """Whether the geometry of each sample is the square south-east of its corner."""
    right = np.zeros(len(samples), bool)
    size = release.layout.cell_size
    codes = samples["epsg"].to_numpy()
    for epsg in np.unique(codes[rows & is_zone(samples["epsg"])]).tolist():
        here = rows & (codes == epsg)
        x, y = samples["x0"].to_numpy()[here], samples["y0"].to_numpy()[here]
        outlines = moved_outlines(shapely.box(x, y - size, x + size, y), int(epsg), DEGREES)
        apart = shapely.hausdorff_distance(outlines, samples["geometry"].to_numpy()[here])
        right[here] = apart <= OUTLINE_TOLERANCE
    return right


def is_zone(epsg: pd.Series) -> NDArray[np.bool_]:
    """Which codes are those of a UTM zone; what lies in others is reported by the check of cells."""
    return np.asarray(epsg.between(32601, 32660) | epsg.between(32701, 32760), bool)


# Splits


def check_splits(release: Release) -> Reports:
    """Every split as the recipe draws it, the squares as the samples have them, and no leaks."""
    tables = {season: table for season in release.seasons if (table := release.samples(season)) is not None}
    for season, samples in tables.items():
        yield from check_drawn(release, season, samples)
    if tables:
        yield from check_squares(release, tables)
        yield from check_leaks(release, tables)


def check_drawn(release: Release, season: int, samples: pd.DataFrame) -> Reports:
    """Every sample names a split square; where squares are drawn by their hash, it has the split of its square."""
    if release.is_imported(season):
        return
    path, remedy = release.index_path(f"samples-{season}"), release.remedies.wrong_index()
    named = samples["square"].map(is_square).to_numpy(bool)
    if not named.all():
        what = f"split squares are not column_row: {first(sorted(set(samples['square'][~named].map(str))))}"
        yield error("split", path, what, remedy)
    samples = samples[named]
    split = release.settings(season, "split")
    try:
        if split.get("method", "hash") != "hash" or split.get("lists"):
            return
        size, shares, seed = int(split["square_size"]), dict(split["shares"]), int(split["seed"])
        drawn = {name: drawn_split(str(name), size, shares, seed) for name in samples["square"].unique()}
    except (KeyError, TypeError, ValueError, IndexError):
        yield NotChecked(f"whether the splits of {season} are those its recipe draws: it does not say how")
        return
    wrong = samples["sample"][samples["split"] != samples["square"].map(drawn)].tolist()
    if wrong:
        what = f"{len(wrong)} samples are not in the split the recipe draws for their square: {first(wrong)}"
        yield error("split", path, what, remedy)


def is_square(name: Any) -> bool:
    """Whether a text names a split square."""
    return SQUARE_NAME.fullmatch(str(name)) is not None


def drawn_split(square: str, size: int, shares: Mapping[str, float], seed: int) -> str:
    """The split that a hash draws for a square (docs/recipes.md, Splits). Raises ValueError for no column_row.

    The first eight bytes of the SHA-256 of `EPSG:3035/<size>/<column>/<row>/<seed>`, as a fraction of 2^64, fall into
    the shares of the splits, which lie after one another in the order of their names.
    """
    column, row = map(int, square.split("_"))
    digest = hashlib.sha256(f"{SQUARES_CRS}/{size}/{column}/{row}/{seed}".encode()).hexdigest()
    position = int(digest[:16], 16) / 16**16
    names = sorted(shares)
    below = np.cumsum([shares[name] for name in names]) <= position
    # Shares that are rounded may end a little below 1.
    return names[int(below.sum())] if not below.all() else max(names, key=lambda name: shares[name])


def check_squares(release: Release, tables: dict[int, gpd.GeoDataFrame]) -> Reports:
    """The table of split squares is what the samples of all seasons give, each square in one split."""
    stored, path = release.tables.get("squares"), release.index_path("squares")
    remedy = release.remedies.wrong_index()
    counts = Counter(pair for table in tables.values() for pair in zip(table["square"], table["split"], strict=True))
    listed = any(release.settings(season, "split").get("lists") for season in tables)
    if not listed and not any(release.is_imported(season) for season in tables):
        splits = Counter(square for square, _ in counts)
        if twice := sorted(square for square, number in splits.items() if number > 1):
            what = f"split squares are in several splits: {first(twice)}"
            yield error("split", release.index_path(f"samples-{min(tables)}"), what, remedy)
    if len(tables) < len(release.named_seasons) or release.is_first_format or not release.recipe(min(tables)):
        return
    size = release.settings(min(tables), "split").get("square_size")
    if (size is None or not counts) and stored is None:
        return
    if size is None or not counts or stored is None:
        what = "is not part of the index" if stored is None else "is not expected: the split is not drawn by squares"
        yield error("split", path, what, remedy)
        return
    if not all(is_square(square) for square, _ in counts):
        yield NotChecked("the table of split squares: the squares of some samples are not column_row")
        return
    expected = counted_squares(counts)
    columns, rows = COUNTED_SQUARE, expected
    if "season" in stored:
        # Since format 2 each season counts its own.
        columns = ["season", *COUNTED_SQUARE]
        rows = [
            (season, *row)
            for season, table in sorted(tables.items())
            for row in counted_squares(Counter(zip(table["square"], table["split"], strict=True)))
        ]
        expected = [row[1:] for row in rows]
    if rows != list(stored[columns].itertuples(index=False, name=None)):
        yield error("split", path, "does not count the samples of each square as the samples index does", remedy)
    elif not shapely.equals_exact(
        outlines_of_squares(expected, size), stored.geometry.to_numpy(), OUTLINE_TOLERANCE
    ).all():
        yield error("split", path, "has outlines that are not those of its squares", remedy)


def counted_squares(counts: Counter[tuple[str, str]]) -> list[tuple[Any, ...]]:
    """Column, row, split and samples of each square, in order."""
    return sorted((*map(int, square.split("_")), split, number) for (square, split), number in counts.items())


def outlines_of_squares(squares: Sequence[tuple[Any, ...]], size: float) -> NDArray[np.object_]:
    """Outlines in longitude and latitude of squares (column, row, ...) with so many metres in EPSG:3035."""
    west, south = (np.array([square[axis] for square in squares], float) * size for axis in (0, 1))
    dense = shapely.segmentize(shapely.box(west, south, west + size, south + size), size / EDGE_PIECES)
    return moved_outlines(dense, SQUARES_CRS, DEGREES)


# Ground in two splits


def check_leaks(release: Release, tables: dict[int, gpd.GeoDataFrame]) -> Reports:
    """No cell, no ground and nothing within the buffer is in two splits, in all seasons together."""
    samples = pd.concat([table[LEAK_COLUMNS] for table in tables.values()], ignore_index=True)
    placed = samples[np.isfinite(samples[["x0", "y0"]].to_numpy(float)).all(axis=1) & is_zone(samples["epsg"])]
    # Imported samples have no cell: only their ground can be compared.
    placed = placed.assign(cell=placed["cell"].where(placed["cell"] != NONE, placed["sample"]))
    buffers = [release.settings(season, "split").get("buffer", 0.0) for season in tables]
    buffer = max((float(metres) for metres in buffers if isinstance(metres, int | float)), default=0.0)
    leaks = leaking_pairs(placed, buffer)
    yield Counted("leaks", len(leaks))
    for (sample, other), reason in sorted(leaks.items()):
        yield leak(release, sample, other, reason, buffer)


def leaking_pairs(samples: pd.DataFrame, buffer: float) -> dict[tuple[str, str], str]:
    """Pairs of samples of different splits on one cell, on ground that overlaps, or nearer than `buffer` -> why.

    samples: one row a sample: sample, cell, epsg, x0, y0, split, geometry (longitude, latitude). One sample stands for
    all on one ground in one split. Distances are metres in the UTM zone of one of them.
    """
    alike = ["cell", "epsg", "x0", "y0", "split"]
    grounds = samples.sort_values("sample").drop_duplicates(alike).reset_index(drop=True)
    names, cells, splits = (grounds[column].to_numpy(object) for column in ("sample", "cell", "split"))
    shapes, zones = grounds["geometry"].to_numpy(object), grounds["epsg"].to_numpy(np.int64)
    found: dict[tuple[str, str], str] = {}
    for members in grounds.groupby("cell", sort=False).indices.values():
        for place, one in enumerate(members):
            for other in members[place + 1 :]:
                if splits[one] != splits[other]:
                    found[str(names[one]), str(names[other])] = "same cell"
    for zone in np.unique(zones).tolist():
        for one, other, distance, overlap in pairs_of_zone(shapes, zones, splits, zone, buffer):
            if cells[one] != cells[other]:
                pair = str(names[min(one, other)]), str(names[max(one, other)])
                why = "footprints overlap" if overlap else f"{distance:.1f} m apart, less than {buffer:g} m"
                found.setdefault(pair, why)
    return found


def pairs_of_zone(
    shapes: NDArray[np.object_], zones: NDArray[np.int64], splits: NDArray[np.object_], zone: int, buffer: float
) -> Iterator[tuple[int, int, float, bool]]:
    """Pairs of different splits, the first in a UTM zone, the second in it or beside it, that overlap or are too near.

    Gives the places of both, how far they are apart in metres, and whether they overlap. Zones beside each other are
    compared across the equator and 180 degrees as well.
    """
    apart = (zones % 100 - zone % 100) % 60
    near = np.flatnonzero((zones == zone) | (apart == 1) | (apart == 59) | ((apart == 0) & (zones != zone)))
    own = zones[near] == zone
    if len(set(splits[near])) < 2:
        return
    # Straight edges of another zone, and of degrees, are bent in this one.
    local = shapes[near].copy()
    local[own] = moved_outlines(shapes[near][own], DEGREES, zone)
    for other_zone in np.unique(zones[near][~own]).tolist():
        there = zones[near] == other_zone
        in_own = shapely.segmentize(moved_outlines(shapes[near][there], DEGREES, other_zone), DENSE)
        local[there] = moved_outlines(in_own, other_zone, zone)
    ours = np.flatnonzero(own)
    found, mine = shapely.STRtree(local[ours]).query(local, predicate="dwithin", distance=buffer + TOUCHING)
    one, other = ours[mine], found
    wanted = (splits[near][one] != splits[near][other]) & (~own[other] | (one < other))
    one, other = one[wanted], other[wanted]
    distance = shapely.distance(local[one], local[other])
    bounds = shapely.bounds(shapely.intersection(local[one], local[other]))
    overlap = np.nan_to_num(bounds[:, 2:] - bounds[:, :2]).min(axis=1, initial=np.inf) > TOUCHING
    bad = overlap | (distance < buffer - TOUCHING)
    yield from zip(
        near[one[bad]].tolist(), near[other[bad]].tolist(), distance[bad].tolist(), overlap[bad].tolist(), strict=True
    )


def leak(release: Release, sample: str, other: str, reason: str, buffer: float) -> Finding:
    """The finding of two samples of different splits that share ground, or are too near each other."""
    where = f"samples {sample} and {other}"
    what = f"are in different splits: {reason}" + (f" (buffer {buffer:g} m)" if buffer else "")
    if any(release.is_imported(season) for season in release.seasons):
        # The lists of a published dataset are as they are; nobody promised that they keep ground apart.
        remedy = "the published lists are like this: evaluate on a split by ground if that matters"
        return warning("leak", where, what, remedy)
    return error("leak", where, what, release.remedies.leak())
