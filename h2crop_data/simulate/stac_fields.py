"""Times and outlines as STAC items write them."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import shapely
from shapely.geometry import mapping
from shapely.geometry.polygon import orient

#: JSON fields of an item.
Fields = dict[str, Any]
COG = "image/tiff; application=geotiff; profile=cloud-optimized"


def iso(moment: datetime, timespec: str = "microseconds") -> str:
    """A time as `2022-07-05T10:56:31.024000Z`, or shorter by `timespec` (`milliseconds`, `seconds`)."""
    return utc(moment).isoformat(timespec=timespec).replace("+00:00", "Z")


def stamp(moment: datetime) -> str:
    """A time as file names write it, `20220705T105631`; fractions of a second are cut."""
    return f"{utc(moment):%Y%m%dT%H%M%S}"


def utc(moment: datetime) -> datetime:
    """The same moment in UTC. Raises ValueError where it has no zone: it would mean another moment elsewhere."""
    if moment.tzinfo is None:
        raise ValueError(f"{moment} has no time zone")
    return moment.astimezone(UTC)


def geometry(polygon: shapely.Polygon) -> dict[str, Any]:
    """GeoJSON of a polygon, its ring counter-clockwise (RFC 7946)."""
    rings = mapping(orient(polygon))["coordinates"]
    return {"type": "Polygon", "coordinates": [[[float(x), float(y)] for x, y, *_ in ring] for ring in rings]}


def bbox(polygon: shapely.Polygon, digits: int) -> list[float]:
    """West, south, east, north of a polygon, rounded."""
    return [round(float(value), digits) for value in polygon.bounds]


def box_geometry(bounds: tuple[float, float, float, float]) -> dict[str, Any]:
    """GeoJSON of a box in metres, from its lower left corner."""
    west, south, east, north = map(float, bounds)
    ring = [[west, south], [east, south], [east, north], [west, north], [west, south]]
    return {"type": "Polygon", "coordinates": [ring]}
