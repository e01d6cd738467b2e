"""Sentinel-2's tiles by formula: the 100 km squares of the Military Grid Reference System, and what their files cover.

The tile of a square begins at its north-western corner, moved outwards to whole 60 m counted from the origin of the
zone (the equator, whose northing is 0 in the north and 10,000 km in the south), and is 109,800 m wide: neighbouring
tiles overlap by about 9.8 km.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from h2crop_data.grid import LONLAT, transformer

#: Side of a square, of a tile, and of the pixels both end with, in metres.
SQUARE, TILE, STEP = 100_000, 109_800, 60
#: Letters of columns (of the zones 3n + 1, 3n + 2, 3n), rows (every 2000 km again) and latitude bands (8 degrees, from
#: 80 south; the last is 12 degrees high).
COLUMNS = {1: "ABCDEFGH", 2: "JKLMNPQR", 0: "STUVWXYZ"}
ROWS = "ABCDEFGHJKLMNPQRSTUV"
BANDS = "CDEFGHJKLMNPQRSTUVWX"
#: Even zones begin at F where odd ones begin at A.
EVEN_ZONE_SHIFT = 5
#: Northing of the equator in the zones of the south, in squares.
SOUTHERN_EQUATOR = 100


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


def mgrs_tile(epsg: int, easting_100k: int, northing_100k: int) -> str:
    """The name `31UDS` of the square whose south-western corner is at (easting, northing) x 100 km.

    The latitude band is that of the square's centre. Raises ValueError where the zone has no such square.
    """
    zone = epsg % 100
    if epsg // 100 not in (326, 327) or not 1 <= zone <= 60:
        raise ValueError(f"EPSG:{epsg} is not a UTM zone")
    south = epsg // 100 == 327
    if not 1 <= easting_100k <= 8 or (northing_100k >= SOUTHERN_EQUATOR if south else northing_100k < 0):
        raise ValueError(f"EPSG:{epsg} has no square at {easting_100k} x {northing_100k} (x 100 km)")
    middle = ((easting_100k + 0.5) * SQUARE, (northing_100k + 0.5) * SQUARE)
    latitude = transformer(f"EPSG:{epsg}", LONLAT).transform(*middle)[1]
    if not -80 <= latitude <= 84:
        raise ValueError(f"the square at {easting_100k} x {northing_100k} of EPSG:{epsg} lies beyond UTM")
    band = BANDS[min(int((latitude + 80) // 8), len(BANDS) - 1)]
    row = ROWS[(northing_100k + (0 if zone % 2 else EVEN_ZONE_SHIFT)) % len(ROWS)]
    return f"{zone:02d}{band}{COLUMNS[zone % 3][easting_100k - 1]}{row}"


def tile_at(epsg: int, easting_100k: int, northing_100k: int) -> Tile:
    """The tile of a square. Raises ValueError where the zone has no such square."""
    equator = SOUTHERN_EQUATOR * SQUARE if epsg // 100 == 327 else 0
    west = easting_100k * SQUARE // STEP * STEP
    north = equator + math.ceil(((northing_100k + 1) * SQUARE - equator) / STEP) * STEP
    return Tile(mgrs_tile(epsg, easting_100k, northing_100k), epsg, (west, north - TILE, west + TILE, north))


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
