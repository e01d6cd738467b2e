"""The land of a synthetic region: fields, woods, waters and villages between roads, in metres of a UTM zone.

Roads run along a jittered lattice; the blocks between them are cut again and again into pieces, as inheritance and
land consolidation cut farmland. Every block belongs to one land square of a global lattice, and everything in it
depends on the seed and the place only, so land squares can be made in any order, by several processes, and fit.

Borders of pieces are noded on a grid of about a millimetre: neighbours share them vertex by vertex.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import geopandas as gpd
import numpy as np
import pandas as pd
import shapely
from numpy.typing import NDArray

from h2crop_data.simulate.chance import Chance
from h2crop_data.simulate.land.field_pattern import Pieces, cut_block_pieces
from h2crop_data.simulate.land.regional import Regional
from h2crop_data.simulate.land.shapes import blobs, depth_inside, shared_faces

#: Side of a land square in metres: the unit land is made in.
LAND_SQUARE = 3840
#: Spacing of the road lattice in metres, and how far its crossings are moved at most.
BLOCK = 1280
BLOCKS_PER_SQUARE = LAND_SQUARE // BLOCK
JITTER = 270.0
#: Roads bend by this standard deviation in metres, with points this share of the way apart.
BEND = 22.0
BEND_STEPS = np.linspace(0, 1, 6)[:-1]
#: Land of a square lies at most this many metres beyond it.
REACH = JITTER + 6 * BEND
#: Pieces below this area (m2) that a shore or a slanting cut leaves are trees, not fields.
SMALLEST_FIELD = 200.0
OBJECT_KINDS = ("field", "wood", "water", "village")
LAND_FRAME = (
    "key",
    "kind",
    "x",
    "y",
    "area_ha",
    "variant",
    "soil",
    "shift_days",
    "vigour",
    "crop_region",
    "geometry",
)


def land_of_square(seed: int, column: int, row: int) -> gpd.GeoDataFrame:
    """The objects of a land square, in a fixed order, without CRS (metres of whatever zone it is used in).

    column, row: of the lattice of LAND_SQUARE metres. Gives a frame of LAND_FRAME:

    - `key` uint64: permanent name of the object; its random values are drawn with this key
    - `kind` one of OBJECT_KINDS; ground without object is road, track or verge
    - `x`, `y` float64: a point inside, metres; `area_ha` float64
    - `variant` float32 0..1: which of several looks of its kind
    - `soil` float32 0..1: dark and heavy to bright and light, regions of about 8 km
    - `shift_days` float32: days its season is late, standard deviation about 6
    - `vigour` float32: about 1, standard deviation 0.12
    - `crop_region` int8: index into `regional.CROP_REGIONS`
    - `geometry`: valid polygons that share borders and do not overlap
    """
    regional = Regional(seed)
    roads = RoadBlocks.of_square(seed, column, row)
    pieces = cut_block_pieces(Chance(seed), regional, roads.inside, roads.keys)
    lakes = lakes_in(seed, regional, roads)
    faces, kinds, keys = faces_of_pieces(pieces, lakes)
    faces, kinds, keys = with_islands(seed, regional, faces, kinds, keys)
    return objects_frame(seed, regional, faces, kinds, keys)


def squares_of_bounds(bounds: Sequence[float]) -> Iterator[tuple[int, int]]:
    """Column and row of every land square with land in bounds (west, south, east, north; metres), row by row."""
    west, south, east, north = bounds
    rows = np.arange(np.floor((south - REACH) / LAND_SQUARE), np.ceil((north + REACH) / LAND_SQUARE)).astype(int)
    columns = np.arange(np.floor((west - REACH) / LAND_SQUARE), np.ceil((east + REACH) / LAND_SQUARE)).astype(int)
    for row in rows.tolist():
        for column in columns.tolist():
            yield column, row


@dataclass(frozen=True)
class RoadBlocks:
    """The blocks between the roads of a land square."""

    #: Number of each block, (n,) uint64.
    keys: NDArray[np.uint64]
    #: Ground inside the roads that enclose it, (n,) polygons.
    inside: NDArray[np.object_]

    @classmethod
    def of_square(cls, seed: int, column: int, row: int) -> RoadBlocks:
        """The blocks a land square owns."""
        first = np.arange(BLOCKS_PER_SQUARE)
        i, j = (
            grid.ravel() for grid in np.meshgrid(column * BLOCKS_PER_SQUARE + first, row * BLOCKS_PER_SQUARE + first)
        )
        chance = Chance(seed)
        keys = chance.key_of_place("block", i, j)
        ring = np.concatenate(
            [
                road_points(chance, i, j, i + 1, j),
                road_points(chance, i + 1, j, i + 1, j + 1),
                road_points(chance, i, j + 1, i + 1, j + 1, backwards=True),
                road_points(chance, i, j, i, j + 1, backwards=True),
            ],
            axis=1,
        )
        # Each side gives its half of the road: 6 to 12 m together.
        half = 3 + 3 * chance.uniform("road width", keys)
        inside = shapely.buffer(shapely.polygons(ring), -half, join_style="mitre", mitre_limit=3)
        return cls(keys, inside)


def road_points(
    chance: Chance,
    i0: NDArray[np.int64],
    j0: NDArray[np.int64],
    i1: NDArray[np.int64],
    j1: NDArray[np.int64],
    *,
    backwards: bool = False,
) -> NDArray[np.float64]:
    """Points (n, steps, 2) of roads from crossings (i0, j0) to (i1, j1), without the last one.

    The same road gives the same points to the blocks on both sides; one of them walks it backwards.
    """
    start, end = crossings(chance, i0, j0), crossings(chance, i1, j1)
    steps = np.append(BEND_STEPS, 1.0)[None, :, None]
    straight = start[:, None] * (1 - steps) + end[:, None] * steps
    x, y = straight[..., 0].ravel(), straight[..., 1].ravel()
    bend = np.stack([chance.noise(f"bend {axis}", x, y, 420) for axis in "xy"], axis=-1)
    bent: NDArray[np.float64] = straight + BEND * bend.reshape(straight.shape).astype(np.float64)
    return bent[:, :0:-1] if backwards else bent[:, :-1]


def crossings(chance: Chance, i: NDArray[np.int64], j: NDArray[np.int64]) -> NDArray[np.float64]:
    """Where roads of the lattice cross, (n, 2) metres."""
    moved = np.stack([chance.at_place(f"crossing {axis}", i, j) for axis in "xy"], axis=-1)
    places: NDArray[np.float64] = np.stack([i, j], axis=-1) * BLOCK + JITTER * (2 * moved - 1)
    return places


def lakes_in(seed: int, regional: Regional, roads: RoadBlocks) -> NDArray[np.object_]:
    """Lakes and ponds with smooth shores, each wholly inside a block."""
    chance = Chance(seed)
    centre = shapely.get_coordinates(shapely.centroid(roads.inside))
    centre += 180 * (np.stack([chance.uniform(f"lake {axis}", roads.keys) for axis in "xy"], axis=-1) - 0.5)
    wet = chance.uniform("lake", roads.keys) < regional.lake_share(centre[:, 0], centre[:, 1])
    centre, keys, inside = centre[wet], roads.keys[wet], roads.inside[wet]
    radius = 50 * 9 ** chance.uniform("lake radius", keys)
    radius = np.minimum(radius, 0.62 * depth_inside(inside, centre))
    wide = radius > 25
    return blobs(chance, keys[wide], centre[wide], radius[wide], roughness=0.3)


def faces_of_pieces(
    pieces: Pieces, lakes: NDArray[np.object_]
) -> tuple[NDArray[np.object_], NDArray[np.str_], NDArray[np.uint64]]:
    """Polygons with shared borders, their kinds and keys; a lake is one object, whatever was cut below it."""
    faces = shared_faces(np.concatenate([pieces.geometry, lakes]))
    inner = shapely.point_on_surface(faces)
    owner = owners(inner, pieces.geometry)
    lake = owners(inner, lakes)
    dry = (owner >= 0) & (lake < 0)
    shores = [shapely.coverage_union_all(faces[lake == number]) for number in range(len(lakes))]
    whole = np.array([shore for shore in shores if shore.geom_type == "Polygon"], dtype=object)
    lake_keys = Chance.children(np.arange(len(whole), dtype=np.uint64) + pieces.keys[:1], 7)
    kinds = np.where(shapely.area(faces) < SMALLEST_FIELD, "wood", pieces.kinds[owner])[dry]
    # A shore may cut a piece into several.
    again = pd.Series(owner[dry]).groupby(owner[dry]).cumcount().to_numpy(np.uint64)
    keys = np.where(again > 0, Chance.children(pieces.keys[owner[dry]], 11 + again), pieces.keys[owner[dry]])
    return (
        np.concatenate([faces[dry], whole]),
        np.concatenate([kinds, np.full(len(whole), "water")]),
        np.concatenate([keys, lake_keys]),
    )


def owners(points: NDArray[np.object_], polygons: NDArray[np.object_]) -> NDArray[np.int64]:
    """Index of the polygon that holds each point (the first of several), -1 where there is none."""
    found = np.full(len(points), -1, np.int64)
    if len(polygons):
        point, polygon = shapely.STRtree(polygons).query(points, predicate="intersects")
        order = np.lexsort((-polygon, point))
        found[point[order]] = polygon[order]
    return found


def with_islands(
    seed: int,
    regional: Regional,
    faces: NDArray[np.object_],
    kinds: NDArray[np.str_],
    keys: NDArray[np.uint64],
) -> tuple[NDArray[np.object_], NDArray[np.str_], NDArray[np.uint64]]:
    """Clumps of trees and ponds inside some fields: holes of the field, and objects of their own."""
    chance = Chance(seed)
    place = shapely.get_coordinates(shapely.centroid(faces))
    share = regional.island_share(place[:, 0], place[:, 1]) * np.clip(shapely.area(faces) / 40_000, 0, 3)
    chosen = np.flatnonzero((kinds == "field") & (chance.uniform("island", keys) < share))
    key, centre = keys[chosen], place[chosen]
    offset = np.sqrt(shapely.area(faces[chosen]))[:, None] * 0.3
    centre += offset * (np.stack([chance.uniform(f"island {axis}", key) for axis in "xy"], axis=-1) - 0.5)
    radius = np.minimum(9 * 4 ** chance.uniform("island radius", key), 0.55 * depth_inside(faces[chosen], centre))
    fits = radius > 6
    chosen, key = chosen[fits], key[fits]
    islands = blobs(chance, key, centre[fits], radius[fits], roughness=0.25)
    faces = faces.copy()
    faces[chosen] = shapely.difference(faces[chosen], islands)
    kind = np.where(chance.uniform("pond", key) < 0.3, "water", "wood")
    return (
        np.concatenate([faces, islands]),
        np.concatenate([kinds, kind]),
        np.concatenate([keys, Chance.children(key, 5)]),
    )


def objects_frame(
    seed: int, regional: Regional, faces: NDArray[np.object_], kinds: NDArray[np.str_], keys: NDArray[np.uint64]
) -> gpd.GeoDataFrame:
    """The frame of a land square: LAND_FRAME, from south to north."""
    chance = Chance(seed)
    faces = shapely.normalize(faces)
    inner = shapely.get_coordinates(shapely.point_on_surface(faces))
    order = np.lexsort((keys, inner[:, 0], inner[:, 1]))
    faces, kinds, keys, (x, y) = faces[order], kinds[order], keys[order], inner[order].T
    shift = 4.5 * regional.season(x, y) + 4.0 * chance.normal("shift", keys)
    vigour = 1 + 0.12 * (0.5 * regional.fertility(x, y) + 0.87 * chance.normal("vigour", keys))
    columns = {
        "key": keys,
        "kind": kinds,
        "x": x,
        "y": y,
        "area_ha": shapely.area(faces) / 1e4,
        "variant": chance.uniform("variant", keys).astype(np.float32),
        "soil": regional.soil(x, y, chance.normal("soil", keys)).astype(np.float32),
        "shift_days": shift.astype(np.float32),
        "vigour": np.clip(vigour, 0.5, 1.5).astype(np.float32),
        "crop_region": regional.crop_region(x, y).astype(np.int8),
    }
    return gpd.GeoDataFrame(columns, geometry=faces)
