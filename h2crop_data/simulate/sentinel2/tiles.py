"""The Sentinel-2 tiles over some ground; neighbouring ones overlap by about 9.8 km."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from h2crop_data.grid import LONLAT, transformer
from h2crop_data.mgrs import FALSE_NORTHING, SQUARE, square_tile_bounds, tile_name

#: Northing of the equator in the zones of the south, in squares.
SOUTHERN_EQUATOR = FALSE_NORTHING // SQUARE


@dataclass(frozen=True)
class Tile:
    """A Sentinel-2 tile."""

    #: `31UDS`.
    name: str
    epsg: int
    #: West, south, east, north in metres of the zone.
    bounds: tuple[int, int, int, int]

    @property
    def zone(self) -> int:
        """UTM zone, 1 to 60."""
        return self.epsg % 100

    @property
    def band(self) -> str:
        """Latitude band, `U`."""
        return self.name[-3]

    @property
    def square(self) -> str:
        """Letters of column and row, `DS`."""
        return self.name[-2:]


def tile_at(epsg: int, easting_100k: int, northing_100k: int) -> Tile:
    """The tile of a square. Raises ValueError where the zone has no such square."""
    x, y = easting_100k * SQUARE, northing_100k * SQUARE
    return Tile(tile_name(epsg, x, y), epsg, square_tile_bounds(epsg, x, y))


def tiles_over(epsg: int, bounds: tuple[float, float, float, float]) -> list[Tile]:
    """The tiles of a zone that share ground with some bounds (west, south, east, north in metres), by name.

    Only squares that reach into the zone (6 degrees, without the exceptions of Norway and Svalbard) have tiles.
    """
    west, south, east, north = bounds
    found = []
    for easting, northing in mgrs_squares_near(epsg, bounds):
        tile = tile_at(epsg, easting, northing)
        left, low, right, high = tile.bounds
        if left < east and right > west and low < north and high > south and reaches_zone(epsg, easting, northing):
            found.append(tile)
    return sorted(found, key=lambda tile: tile.name)


def mgrs_squares_near(epsg: int, bounds: tuple[float, float, float, float]) -> Iterator[tuple[int, int]]:
    """Squares whose tiles may reach some bounds: tiles reach beyond their squares to the east and the south."""
    west, south, east, north = (math.floor(value / SQUARE) for value in bounds)
    lowest, highest = (0, SOUTHERN_EQUATOR) if epsg // 100 == 327 else (0, SOUTHERN_EQUATOR - 1)
    for easting in range(max(west - 1, 1), min(east + 1, 8) + 1):
        for northing in range(max(south - 1, lowest), min(north + 1, highest - 1) + 1):
            yield easting, northing


def reaches_zone(epsg: int, easting_100k: int, northing_100k: int) -> bool:
    """Whether some of a square lies within 3 degrees of the zone's central meridian."""
    steps = np.linspace(0, 1, 11)
    x, y = np.meshgrid((easting_100k + steps) * SQUARE, (northing_100k + steps) * SQUARE)
    longitude = np.asarray(transformer(f"EPSG:{epsg}", LONLAT).transform(x, y)[0])
    meridian = 6 * (epsg % 100) - 183
    away = (longitude - meridian + 180) % 360 - 180
    return bool((np.abs(away) < 3).any())
