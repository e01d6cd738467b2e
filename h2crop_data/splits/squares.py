"""Which ground is train, val or test: splits that show every class, the buffer between them, and leaks across them."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from itertools import combinations, combinations_with_replacement

import geopandas as gpd
import numpy as np
import shapely
from numpy.typing import NDArray

from h2crop_data.grid import LONLAT, SPLIT_CRS, TOLERANCE, Cell, split_of_square, transformer
from h2crop_data.splits.search import SquaresToSplit, exchange_squares

Square = tuple[int, int]
#: Shares of the samples that are further than this from the wanted ones are told.
SHARE_TOLERANCE = 0.02
#: How much further than half the buffer a cell must lie from other splits, as measured in its zone. It covers the scale
#: of UTM (0.9996 to 1.0016 of the true distance, up to 60 km outside a zone) and corners drawn as 64-gons (0.12 %).
BUFFER_MARGIN = 1.005
#: An edge of at most so many metres lies within EDGE_ERROR metres of where it lies in another CRS: straight lines of
#: UTM are bent in EPSG:3035 with radii above 6000 km up to a quarter of the globe from its centre: edge^2 / 8 / radius.
STRAIGHT_EDGE, EDGE_ERROR = 240.0, 2e-3
#: Cells whose surroundings are looked at together.
TOGETHER = 5000


@dataclass(frozen=True)
class SquareContent:
    """What the samples of a split square hold: how many they are, and the classes they show (tier, id)."""

    samples: int
    classes: frozenset[tuple[int, int]]


def promised_classes(
    contents: Mapping[Square, SquareContent], shares: Mapping[str, float]
) -> dict[tuple[int, int], list[Square]]:
    """The classes that must occur in every split with a share, with the squares that show them; all in order.

    They are those in at least as many squares as there are such splits. Squares without samples show nothing.
    """
    places: dict[tuple[int, int], list[Square]] = defaultdict(list)
    for square in sorted(contents):
        for name in contents[square].classes if contents[square].samples else ():
            places[name].append(square)
    return {name: places[name] for name in sorted(places) if len(places[name]) >= len(splits_with_share(shares))}


def splits_with_share(shares: Mapping[str, float]) -> list[str]:
    """The names of the splits that get something, in order."""
    return sorted(name for name in shares if shares[name] > 0)


def optimised_splits(
    contents: Mapping[Square, SquareContent],
    shares: Mapping[str, float],
    seed: int,
    square_size: int,
    fixed: Mapping[Square, str],
) -> dict[Square, str]:
    """The split of every square of `contents` and `fixed`: by the hash of its place, then changed for the better.

    What counts, in this order: every promised class occurs in every split with a share; the splits hold their shares of
    the samples; few squares leave the split of their hash. Fixed squares and squares without samples stay. The result
    depends on what is given, not on its order. Where not everything can be met (or a bounded search does not find how)
    it is the best that was found, and `split_problems` reports the rest.

    shares: split -> share of the samples, adding up to 1. fixed: squares whose split is decided already.
    """
    plain = dict(shares)
    splits = {square: split_of_square(square, square_size, plain, seed) for square in contents} | dict(fixed)
    names = splits_with_share(shares)
    squares = [square for square in sorted(contents) if contents[square].samples and splits[square] in names]
    row = {square: number for number, square in enumerate(squares)}
    promised = promised_classes(contents, shares)
    shows = np.zeros((len(squares), len(promised)), bool)
    for column, places in enumerate(promised.values()):
        shows[[row[square] for square in places if square in row], column] = True
    total = sum(content.samples for content in contents.values())
    found = exchange_squares(
        SquaresToSplit(
            shows=shows,
            samples=np.array([contents[square].samples for square in squares], np.int64),
            wanted=np.array([round(shares[name] * total) for name in names], np.int64),
            home=np.array([names.index(splits[square]) for square in squares], np.int64),
            movable=np.array([square not in fixed for square in squares], bool),
        ),
        f"{SPLIT_CRS}/{square_size}/{seed}",
    )
    splits |= {square: names[number] for square, number in zip(squares, found.tolist(), strict=True)}
    return dict(sorted(splits.items()))


def split_problems(
    contents: Mapping[Square, SquareContent], splits: Mapping[Square, str], shares: Mapping[str, float]
) -> list[str]:
    """The goals that splits do not meet, as text: required classes (tier/id) that a split lacks, shares far from the
    requested ones."""
    problems = []
    names = splits_with_share(shares)
    for (tier, number), places in promised_classes(contents, shares).items():
        missing = sorted(set(names) - {splits[square] for square in places})
        if missing:
            problems.append(
                f"class {tier}/{number} occurs in {len(places)} split squares, but in none of {', '.join(missing)}"
            )
    samples: dict[str, int] = defaultdict(int)
    for square, content in contents.items():
        samples[splits[square]] += content.samples
    total = sum(samples.values())
    for name in sorted(set(samples) | set(shares)):
        share, wanted = samples[name] / max(total, 1), shares.get(name, 0)
        if total and abs(share - wanted) > SHARE_TOLERANCE:
            problems.append(f"{name}: expected {wanted:.1%} of the samples, got {share:.1%}")
    return problems


# Buffers


def inside_buffer(
    cells: Sequence[Cell],
    squares: Sequence[Square],
    split_of: Callable[[Square], str | None],
    square_size: int,
    buffer: float,
) -> NDArray[np.bool_]:
    """(cells) whether a cell must be left out, so that kept ones of different splits are `buffer` metres apart.

    A kept cell has half the buffer of ground around it in squares of its own split alone. Two such surroundings of
    different splits share no ground, so this holds for cells of other seasons and scenes as well, whenever they come.

    squares: the split square of each cell. split_of: the split of a square, None where it is not decided: that counts
    as another split, for its own cells too. buffer: metres on the ground; 0 leaves nothing out.
    """
    left_out = np.zeros(len(cells), bool)
    if buffer <= 0:
        return left_out
    known = cache(split_of)
    by_zone: dict[int, list[int]] = defaultdict(list)
    for number, cell in enumerate(cells):
        left_out[number] = known(squares[number]) is None
        by_zone[cell.epsg].append(number)
    reach = BUFFER_MARGIN * buffer / 2 + EDGE_ERROR
    for epsg, numbers in by_zone.items():
        for start in range(0, len(numbers), TOGETHER):
            part = np.array(numbers[start : start + TOGETHER])
            outlines = shapely.box(*np.array([cells[number].bounds for number in part], float).T)
            place, column, row = squares_near(outlines, epsg, square_size, reach)
            found = zip(column.tolist(), row.tolist(), part[place].tolist(), strict=True)
            foreign = np.array([known((c, r)) != known(squares[number]) for c, r, number in found], bool)
            place, column, row = place[foreign], column[foreign], row[foreign]
            near, again = np.unique(place, return_inverse=True)
            around = shapely.buffer(outlines[near], reach, quad_segs=16)
            grounds = moved(around, f"EPSG:{epsg}", SPLIT_CRS, max(STRAIGHT_EDGE, reach / 50))
            x, y = column * square_size, row * square_size
            met = shapely.intersects(grounds[again], shapely.box(x, y, x + square_size, y + square_size))
            left_out[part[place[met]]] = True
    return left_out


def squares_near(
    outlines: NDArray[np.object_], epsg: int, square_size: int, reach: float
) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.int64]]:
    """Pairs of an outline (its number) and a square (column, row) that may be within `reach` metres of it.

    outlines: boxes in a UTM zone. The squares are those around the moved corners, with a hundredth of margin.
    """
    west, south, east, north = shapely.bounds(outlines).T
    wide = shapely.box(west - reach, south - reach, east + reach, north + reach)
    bounds = shapely.bounds(
        shapely.transform(wide, transformer(f"EPSG:{epsg}", SPLIT_CRS).transform, interleaved=False)
    )
    margin = (bounds[:, 2:] - bounds[:, :2]) / 100
    first = np.floor((bounds[:, :2] - margin) / square_size).astype(np.int64)
    columns, rows = (np.floor((bounds[:, 2:] + margin) / square_size).astype(np.int64) - first + 1).T
    place = np.repeat(np.arange(len(outlines)), columns * rows)
    number = np.arange(len(place)) - np.repeat(np.cumsum(columns * rows) - columns * rows, columns * rows)
    return place, first[place, 0] + number % columns[place], first[place, 1] + number // columns[place]


def moved(shapes: NDArray[np.object_], source: str, target: str, edge: float = STRAIGHT_EDGE) -> NDArray[np.object_]:
    """Shapes in another CRS, their edges cut into pieces of at most `edge` metres first."""
    dense = shapely.segmentize(shapes, edge)
    there: NDArray[np.object_] = shapely.transform(dense, transformer(source, target).transform, interleaved=False)
    return there


# Leaks


def leaks(samples: gpd.GeoDataFrame, buffer: float) -> list[tuple[str, str, str]]:
    """What two splits share: (sample, other sample, why), in order; empty where splits are clean.

    Samples of different splits leak when they are of the same cell, when their footprints overlap by more than a
    millimetre, or when they are closer than `buffer` metres, measured in the UTM zone of one of them. One pair stands
    for all samples of two cells in two splits. Footprints of neighbouring zones are compared too (up to 80 degrees of
    latitude, where zones are wider than any buffer).

    samples: one row a sample with sample, cell, epsg, x0, y0, split, and geometry (longitude, latitude).
    """
    alike = ["cell", "epsg", "x0", "y0", "split"]
    grounds = samples.sort_values("sample").drop_duplicates(alike).reset_index(drop=True)
    cells, names = grounds["cell"].to_numpy(), grounds["sample"].to_numpy()
    splits, zones = grounds["split"].to_numpy(), grounds["epsg"].to_numpy()
    found: dict[tuple[int, int], str] = {}
    for members in grounds.groupby("cell", sort=False).indices.values():
        for one, other in combinations(sorted(members.tolist()), 2):
            if splits[one] != splits[other]:
                found[one, other] = "same cell"
    outlines = np.empty(len(grounds), object)
    for epsg in np.unique(zones):
        to_zone = transformer(LONLAT, f"EPSG:{epsg}").transform
        inside = zones == epsg
        outlines[inside] = shapely.transform(grounds.geometry.to_numpy()[inside], to_zone, interleaved=False)
    for one, other, distance, overlap in near_pairs(outlines, zones, splits, buffer):
        if cells[one] != cells[other]:
            why = "footprints overlap" if overlap else f"{distance:.1f} m apart, less than {buffer:g} m"
            found[min(one, other), max(one, other)] = why
    return sorted((str(names[one]), str(names[other]), why) for (one, other), why in found.items())


def near_pairs(
    outlines: NDArray[np.object_], zones: NDArray[np.integer], splits: NDArray[np.object_], buffer: float
) -> Iterator[tuple[int, int, float, bool]]:
    """Pairs of outlines of different splits that overlap or are closer than `buffer`: distance, whether they overlap.

    outlines: polygons, each in its zone.
    """
    present = np.unique(zones).tolist()
    for zone, other_zone in combinations_with_replacement(present, 2):
        if not neighbouring(zone, other_zone):
            continue
        theirs = np.flatnonzero(zones == other_zone)
        crs, other_crs = f"EPSG:{zone}", f"EPSG:{other_zone}"
        rough = outlines[theirs]
        if zone != other_zone:
            rough = shapely.transform(rough, transformer(other_crs, crs).transform, interleaved=False)
        for split in np.unique(splits):
            ours = np.flatnonzero((zones == zone) & (splits == split))
            # Inside a zone a pair is met once: from the split that comes first.
            wanted = splits[theirs] > split if zone == other_zone else splits[theirs] != split
            tree = shapely.STRtree(outlines[ours])
            # Moved corners alone are off where edges are long.
            slack = 0.0 if zone == other_zone else 50.0
            theirs_near, ours_near = tree.query(rough[wanted], predicate="dwithin", distance=buffer + slack)
            one, other = ours[ours_near], theirs[wanted][theirs_near]
            exact = outlines[other] if zone == other_zone else moved(outlines[other], other_crs, crs)
            distance = shapely.distance(outlines[one], exact)
            overlap = distance < TOLERANCE
            overlap[overlap] = overlapping(outlines[one][overlap], exact[overlap])
            bad = overlap | (distance < buffer - TOLERANCE)
            yield from zip(
                one[bad].tolist(), other[bad].tolist(), distance[bad].tolist(), overlap[bad].tolist(), strict=True
            )


def neighbouring(zone: int, other: int) -> bool:
    """Whether two UTM zones are one, or lie side by side, also across the equator and 180 degrees."""
    return (zone % 100 - other % 100) % 60 in (0, 1, 59)


def overlapping(one: NDArray[np.object_], other: NDArray[np.object_]) -> NDArray[np.bool_]:
    """Which pairs of polygons overlap by more than TOLERANCE metres; those that only touch do not."""
    smaller = shapely.buffer(one, -TOLERANCE, join_style="mitre")
    overlap: NDArray[np.bool_] = shapely.intersects(smaller, other)
    return overlap
