"""MGRS tiles as Sentinel-2 uses them: where `32ULV` lies.

The squares of 100 km are lettered by the rules of the Military Grid Reference System (NGA.STND.0037): columns in three
sets of eight letters from zone to zone, rows in twenty letters that begin five letters later in even zones and repeat
every 2000 km; the latitude band tells which repetition. Sentinel-2's tiles are those squares grown to 109.8 km, with
their upper left corner on a multiple of 60 m from the equator.
"""

from __future__ import annotations

import math
import re

import shapely

from h2crop_data.grid import LONLAT, to_crs, transformer

TILE = re.compile(r"(?P<zone>\d{2})(?P<band>[C-HJ-NP-X])(?P<column>[A-HJ-NP-Z])(?P<row>[A-HJ-NP-V])")
LETTERS = "ABCDEFGHJKLMNPQRSTUVWXYZ"
BANDS, ROWS = "CDEFGHJKLMNPQRSTUVWX", "ABCDEFGHJKLMNPQRSTUV"
SQUARE = 100_000
#: Metres after which the letters of the rows repeat.
ROW_PERIOD = len(ROWS) * SQUARE
#: Columns of a zone, the first from 100 km east.
COLUMNS_OF_ZONE = 8
EVEN_ZONE_SHIFT = 5
#: Latitude in degrees: where the first band begins and the last ends, and how high each is (the last one is 12 high).
SOUTH_END, NORTH_END, BAND_HEIGHT = -80, 84, 8
#: Northing of the equator in zones south of it.
FALSE_NORTHING = 10_000_000
#: Side of a Sentinel-2 tile, and what its upper left corner is a multiple of, in metres.
MGRS_TILE_SIZE, TILE_STEP = 109_800, 60


def tile_square(tile: str) -> tuple[int, int, int]:
    """The 100 km square of a tile: EPSG code, and x and y of its south-west corner in metres.

    Raises ValueError for an invalid tile.
    """
    match = TILE.fullmatch(tile)
    zone = int(match["zone"]) if match else 0
    if match is None or not 1 <= zone <= 60:
        raise ValueError(f"invalid MGRS tile {tile!r}; expected one like 32ULV")
    first = LETTERS.index("AJS"[(zone - 1) % 3])
    column = LETTERS.index(match["column"]) - first
    if not 0 <= column < COLUMNS_OF_ZONE:
        raise ValueError(f"invalid MGRS tile {tile!r}: zone {zone} has no column {match['column']}")
    north = match["band"] >= "N"
    epsg = (32600 if north else 32700) + zone
    shift = EVEN_ZONE_SHIFT if zone % 2 == 0 else 0
    lowest = (ROWS.index(match["row"]) - shift) % len(ROWS) * SQUARE
    x = (column + 1) * SQUARE
    middle = band_middle(epsg, match["band"])
    # Bands are lower than a period: the repetition nearest to the band's middle is the only one that meets it.
    y = lowest + round((middle - SQUARE / 2 - lowest) / ROW_PERIOD) * ROW_PERIOD
    return epsg, x, y


def tile_name(epsg: int, x: int, y: int) -> str:
    """The name `31UDS` of the square whose south-west corner is at x, y (multiples of 100 km).

    The latitude band is that of the square's centre. Raises ValueError where the zone has no such square.
    """
    zone = epsg % 100
    if epsg // 100 not in (326, 327) or not 1 <= zone <= 60:
        raise ValueError(f"EPSG:{epsg} is not a UTM zone")
    column, row = x // SQUARE, y // SQUARE
    south = epsg // 100 == 327
    if not 1 <= column <= COLUMNS_OF_ZONE or (y >= FALSE_NORTHING if south else y < 0):
        raise ValueError(f"EPSG:{epsg} has no square at {column} x {row} (x 100 km)")
    latitude = transformer(f"EPSG:{epsg}", LONLAT).transform(x + SQUARE / 2, y + SQUARE / 2)[1]
    if not SOUTH_END <= latitude <= NORTH_END:
        raise ValueError(f"the square at {column} x {row} of EPSG:{epsg} lies beyond UTM")
    band = BANDS[min(int((latitude - SOUTH_END) // BAND_HEIGHT), len(BANDS) - 1)]
    shift = EVEN_ZONE_SHIFT if zone % 2 == 0 else 0
    first = LETTERS.index("AJS"[(zone - 1) % 3])
    return f"{zone:02d}{band}{LETTERS[first + column - 1]}{ROWS[(row + shift) % len(ROWS)]}"


def band_middle(epsg: int, band: str) -> float:
    """The northing of the middle of a latitude band on the central meridian, in metres."""
    south = SOUTH_END + BANDS.index(band) * BAND_HEIGHT
    meridian = (epsg % 100) * 6.0 - 183
    northing: float = transformer(LONLAT, f"EPSG:{epsg}").transform(meridian, south + BAND_HEIGHT / 2)[1]
    return northing


def tile_bounds(tile: str) -> tuple[int, int, int, int, int]:
    """EPSG code, and west, south, east, north of a Sentinel-2 tile in metres. Raises ValueError for an invalid tile."""
    epsg, x, y = tile_square(tile)
    return epsg, *square_tile_bounds(epsg, x, y)


def square_tile_bounds(epsg: int, x: int, y: int) -> tuple[int, int, int, int]:
    """West, south, east, north in metres of the tile of the square whose south-west corner is at x, y."""
    equator = FALSE_NORTHING if epsg >= 32700 else 0
    west = math.floor(x / TILE_STEP) * TILE_STEP
    north = math.ceil((y + SQUARE - equator) / TILE_STEP) * TILE_STEP + equator
    return west, north - MGRS_TILE_SIZE, west + MGRS_TILE_SIZE, north


def tile_outline(tile: str) -> shapely.Polygon:
    """A Sentinel-2 tile in longitude and latitude. Raises ValueError for an invalid tile."""
    epsg, *bounds = tile_bounds(tile)
    return to_crs(shapely.box(*bounds), f"EPSG:{epsg}", LONLAT)
