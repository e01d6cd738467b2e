"""Shapes on the ground: smooth outlines, and polygons whose borders are shared vertex by vertex."""

from __future__ import annotations

import numpy as np
import shapely
from numpy.typing import NDArray

from h2crop_data.simulate.chance import Chance

#: Coordinates are whole multiples of this many metres (2^-10, about a millimetre), so that borders are exact.
GRID = 2.0**-10
#: Corners of a smooth outline, and the waves around it.
OUTLINE_CORNERS = 40
WAVES = (2, 3, 4, 5)


def shared_faces(polygons: NDArray[np.object_]) -> NDArray[np.object_]:
    """The faces of all outlines laid over each other, on GRID; every corner on a border is one of both neighbours.

    polygons: (n,) that may share borders up to rounding errors. Also gives the faces of ground enclosed by them.
    """
    lines = shapely.union_all(shapely.boundary(polygons), grid_size=GRID)
    faces: NDArray[np.object_] = shapely.get_parts(shapely.polygonize([lines]))
    return faces


def blobs(
    chance: Chance,
    keys: NDArray[np.uint64],
    centre: NDArray[np.float64],
    radius: NDArray[np.float64],
    roughness: float,
) -> NDArray[np.object_]:
    """Smooth outlines around centres (n, 2), all within 1.6 times the radius (n,) metres, on GRID."""
    angle = np.linspace(0, 2 * np.pi, OUTLINE_CORNERS, endpoint=False)
    factor = np.zeros((len(keys), OUTLINE_CORNERS))
    for wave in WAVES:
        height = chance.uniform(f"blob height {wave}", keys)[:, None] * roughness / np.sqrt(wave)
        factor += height * np.cos(wave * angle + 2 * np.pi * chance.uniform(f"blob phase {wave}", keys)[:, None])
    reach = radius[:, None] * np.clip(1 + factor, 0.35, 1.6)
    corners = centre[:, None] + reach[..., None] * np.stack([np.cos(angle), np.sin(angle)], axis=-1)
    outlines: NDArray[np.object_] = shapely.polygons(np.round(corners / GRID) * GRID)
    return outlines


def depth_inside(polygons: NDArray[np.object_], points: NDArray[np.float64]) -> NDArray[np.float64]:
    """Metres from points (n, 2) to the outline of their polygons (n,); 0 for points outside."""
    places = shapely.points(points)
    depth: NDArray[np.float64] = shapely.distance(shapely.boundary(polygons), places)
    return np.where(shapely.contains(polygons, places), depth, 0.0)
