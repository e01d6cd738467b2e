"""Cutting the blocks between roads into pieces: fields by size and shape of the region, woods, villages, gardens."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import shapely
from numpy.typing import NDArray

from h2crop_data.simulate.chance import Chance
from h2crop_data.simulate.land.regional import Regional

#: Hectares a strip is cut from, and the width of strips in metres.
FURLONG = 6.0
STRIP_WIDTH = (15.0, 40.0)
#: Hectares of a stand of trees, and of the pieces along the edge of a wood.
STAND = 9.0
WOOD_EDGE = 3.5
#: Lattice of places where a village may stand, in metres; shares of villages and hamlets, and their radii in metres.
VILLAGE_SPACING = 1920
VILLAGE_SHARE, HAMLET_SHARE = 0.22, 0.30
VILLAGE_RADIUS, HAMLET_RADIUS = (170.0, 380.0), (50.0, 110.0)
#: Hectares of what a village is made of, and of the gardens around it.
PLOT, GARDEN = 0.8, 0.15
#: Gardens reach this much further than the village.
GARDEN_REACH = 1.4
#: Farm tracks, in metres, between pieces larger than this many hectares.
TRACK_WIDTH, TRACK_FROM = 4.0, 14.0
#: No field is larger, in hectares.
LARGEST = 42.0
MOST_CUTS = 16
#: Longer than any block, in metres.
FAR = 6000.0


@dataclass(frozen=True)
class Pieces:
    """Pieces of land: polygons, keys and kinds (n,)."""

    geometry: NDArray[np.object_]
    keys: NDArray[np.uint64]
    kinds: NDArray[np.str_]


@dataclass(frozen=True)
class Frame:
    """The smallest rectangle around each piece: centre (n, 2), direction of its long side (n, 2), sides (n,) metres."""

    centre: NDArray[np.float64]
    along: NDArray[np.float64]
    length: NDArray[np.float64]
    width: NDArray[np.float64]

    @classmethod
    def around(cls, geometry: NDArray[np.object_]) -> Frame:
        """The frames of polygons."""
        corners = shapely.get_coordinates(shapely.oriented_envelope(geometry)).reshape(-1, 5, 2)
        first, second = corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 1]
        a, b = np.hypot(*first.T), np.hypot(*second.T)
        along = np.where((a >= b)[:, None], first / a[:, None], second / b[:, None])
        return cls(corners[:, :4].mean(axis=1), along, np.maximum(a, b), np.minimum(a, b))


def cut_block_pieces(
    chance: Chance, regional: Regional, blocks: NDArray[np.object_], keys: NDArray[np.uint64]
) -> Pieces:
    """Cut blocks (n,) with keys (n,) until every piece has the size usual at its place.

    Borders of neighbours agree up to rounding errors: `shared_faces` makes them one.
    """
    geometry = blocks
    done: list[tuple[NDArray[np.object_], NDArray[np.uint64]]] = []
    for _ in range(MOST_CUTS):
        frame = Frame.around(geometry)
        lengthwise, ready = next_cut(chance, regional, geometry, keys, frame)
        done.append((geometry[ready], keys[ready]))
        if ready.all():
            break
        rest = ~ready
        frame = Frame(frame.centre[rest], frame.along[rest], frame.length[rest], frame.width[rest])
        geometry, keys = halves(chance, geometry[rest], keys[rest], frame, lengthwise[rest])
    else:
        done.append((geometry, keys))
    shapes = np.concatenate([shape for shape, _ in done])
    names = np.concatenate([key for _, key in done])
    return Pieces(shapes, names, kinds_of_pieces(chance, regional, shapes, names))


def next_cut(
    chance: Chance,
    regional: Regional,
    geometry: NDArray[np.object_],
    keys: NDArray[np.uint64],
    frame: Frame,
) -> tuple[NDArray[np.bool_], NDArray[np.bool_]]:
    """Whether each piece is next cut along its long side, and whether it is ready."""
    x, y = shapely.get_coordinates(shapely.centroid(geometry)).T
    area = shapely.area(geometry) / 1e4
    wood, settled = regional.woodiness(x, y), nearness_to_village(chance, x, y)
    size = regional.field_size(x, y)
    size = np.where(np.abs(wood) < 0.2, np.minimum(size, WOOD_EDGE), size)
    size = np.where(wood > 0.2, STAND, size)
    size = np.where(settled < GARDEN_REACH, GARDEN, size)
    size = np.where(settled < 1, PLOT, size)
    strip = regional.strips(x, y) & (wood < 0) & (settled > GARDEN_REACH)
    # Fields are longer than wide: many are cut along once more.
    slender = (frame.length < 2.2 * frame.width) & (area < 4 * size) & (chance.uniform("slender", keys) < 0.4)
    lengthwise = np.where(strip, area < FURLONG, slender)
    thin, wide = STRIP_WIDTH
    narrow = frame.width < 1.4 * (thin + (wide - thin) * chance.uniform("strip width", keys))
    ready = np.where(strip, narrow, area < np.minimum(size * (0.75 + 1.1 * chance.uniform("size", keys)), LARGEST))
    return lengthwise, ready


def halves(
    chance: Chance,
    geometry: NDArray[np.object_],
    keys: NDArray[np.uint64],
    frame: Frame,
    lengthwise: NDArray[np.bool_],
) -> tuple[NDArray[np.object_], NDArray[np.uint64]]:
    """Cut each piece in two along a line through the middle of its frame, a little off and askew."""
    normal = np.where(lengthwise[:, None], turned_left(frame.along), frame.along)
    side = np.where(lengthwise, frame.width, frame.length)
    askew = np.where(lengthwise, 0.02, 0.13) * chance.normal("askew", keys).clip(-2, 2)
    offset = (chance.uniform("offset", keys) - 0.5) * np.where(lengthwise, 0.2, 0.36) * side
    point = frame.centre + normal * offset[:, None]
    normal = normal * np.cos(askew)[:, None] + turned_left(normal) * np.sin(askew)[:, None]
    large = shapely.area(geometry) > TRACK_FROM * 1e4
    gap = np.where(large & (chance.uniform("track", keys) < 0.55), TRACK_WIDTH / 2, 0.0)
    parts, names = [], []
    for which, sign in ((1, 1.0), (2, -1.0)):
        cut = shapely.intersection(geometry, half_planes(point, sign * normal, gap))
        part, piece = shapely.get_parts(cut, return_index=True)
        again = np.arange(len(piece)) - np.searchsorted(piece, piece)
        solid = (shapely.get_type_id(part) == 3) & (shapely.area(part) > 1)
        parts.append(part[solid])
        names.append(Chance.children(keys[piece], which + 4 * again)[solid])
    return np.concatenate(parts), np.concatenate(names)


def turned_left(direction: NDArray[np.float64]) -> NDArray[np.float64]:
    """Directions (n, 2) turned left by a right angle."""
    return np.stack([-direction[:, 1], direction[:, 0]], axis=-1)


def half_planes(
    point: NDArray[np.float64], normal: NDArray[np.float64], gap: NDArray[np.float64]
) -> NDArray[np.object_]:
    """Squares (n,) beyond lines through points (n, 2), where normals (n, 2) point to, `gap` (n,) metres away."""
    start = point + normal * gap[:, None]
    aside = turned_left(normal) * FAR
    corners = [start - aside, start + aside, start + aside + normal * FAR, start - aside + normal * FAR]
    squares: NDArray[np.object_] = shapely.polygons(np.stack(corners, axis=1))
    return squares


def nearness_to_village(chance: Chance, x: NDArray[np.float64], y: NDArray[np.float64]) -> NDArray[np.float64]:
    """Distance to the nearest village in its radii, (n,): below 1 is village."""
    column, row = (np.floor(place / VILLAGE_SPACING).astype(np.int64) for place in (x, y))
    nearest = np.full(len(x), np.inf)
    for step in range(9):
        i, j = column + step % 3 - 1, row + step // 3 - 1
        kind, size = chance.at_place("village", i, j), chance.at_place("village radius", i, j)
        low, high = (np.where(kind < VILLAGE_SHARE, *pair) for pair in zip(VILLAGE_RADIUS, HAMLET_RADIUS, strict=True))
        radius = low + (high - low) * size
        across = (i + chance.at_place("village x", i, j)) * VILLAGE_SPACING
        up = (j + chance.at_place("village y", i, j)) * VILLAGE_SPACING
        distance = np.hypot(x - across, y - up) / radius
        settled = kind < VILLAGE_SHARE + HAMLET_SHARE
        nearest = np.where(settled, np.minimum(nearest, distance), nearest)
    return nearest


def kinds_of_pieces(
    chance: Chance, regional: Regional, geometry: NDArray[np.object_], keys: NDArray[np.uint64]
) -> NDArray[np.str_]:
    """Field, wood or village (n,), by the place of each piece."""
    x, y = shapely.get_coordinates(shapely.centroid(geometry)).T
    settled = nearness_to_village(chance, x, y)
    # Among the gardens are houses and trees.
    lot = chance.uniform("garden", keys)
    gardens = np.where(lot < 0.2, "village", np.where(lot < 0.35, "wood", "field"))
    kinds = np.where(settled < GARDEN_REACH, gardens, "field")
    kinds = np.where(regional.woodiness(x, y) > 0, "wood", kinds)
    return np.where(settled < 1, "village", kinds)
