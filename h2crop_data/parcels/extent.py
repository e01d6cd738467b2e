"""Whether the extent of a parcel file agrees with its CRS, and the probable cause where it does not."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import shapely
from pyproj import CRS

from h2crop_data.grid import LONLAT, to_crs

#: West, south, east, north.
Extent = tuple[float, float, float, float]
#: The CRSs countries publish their parcels in.
NATIONAL_CRS = {
    "at": ("EPSG:31287",),
    "be": ("EPSG:31370", "EPSG:3812"),
    "cz": ("EPSG:5514",),
    "de": ("EPSG:25832", "EPSG:25833"),
    "dk": ("EPSG:25832",),
    "ee": ("EPSG:3301",),
    "es": ("EPSG:25830",),
    "fi": ("EPSG:3067",),
    "fr": ("EPSG:2154",),
    "hr": ("EPSG:3765",),
    "lt": ("EPSG:3346",),
    "lv": ("EPSG:3059",),
    "nl": ("EPSG:28992",),
    "pl": ("EPSG:2180",),
    "pt": ("EPSG:3763",),
    "se": ("EPSG:3006",),
    "si": ("EPSG:3794",),
    "sk": ("EPSG:5514",),
}
#: CRSs of whole continents and of the world.
COMMON_CRS = ("EPSG:3035", LONLAT, "EPSG:3857")
#: Degrees that a file may reach beyond the ground its CRS is made for.
SLACK = 3.0


@dataclass(frozen=True)
class Misplacement:
    """The reason why the parcels of a file are not near some ground."""

    #: In words, with what to do about it.
    what: str
    #: Whether the numbers contradict the CRS; else it is a file of other ground.
    certain: bool


def misplacement(extent: Extent, crs: str, ground: Extent, likely: Sequence[str]) -> Misplacement | None:
    """What is wrong with the place of a file; None where its extent meets the ground.

    extent: of the file, in `crs`. ground: in longitude and latitude. likely: CRSs the file may be in instead.
    """
    if not np.isfinite(extent).all():
        return Misplacement("it has no extent: none of its rows has a readable geometry", True)
    if overlap(extent, ground, crs):
        return None
    system, shown, stated = CRS(crs), in_numbers(extent), crs_name(crs)
    guess, turned = best_crs(extent, ground, likely), best_crs(swapped(extent), ground, [crs, *likely])
    if guess:
        remedy = f"it matches {crs_name(guess)}: set `crs: {guess}` for the source"
    elif turned:
        remedy = f"it matches {crs_name(turned)} with swapped axes: rewrite the file with x (longitude, easting) first"
    else:
        remedy = "set its CRS for the source (`crs: EPSG:…`)"
    if system.is_geographic and np.abs(extent).max() > 180:
        return Misplacement(f"its extent ({shown}) looks like metres, but {stated} is in degrees; {remedy}", True)
    if not system.is_geographic and np.abs(extent).max() <= 180:
        unit = system.axis_info[0].unit_name if system.axis_info else "metre"
        return Misplacement(
            f"its extent ({shown}) looks like degrees, but the unit of {stated} is {unit}; {remedy}", True
        )
    if overlap(swapped(extent), ground, crs):
        what = f"its axes look swapped: its extent ({shown}, {stated}) matches the cells when x and y are exchanged"
        return Misplacement(f"{what}; rewrite the file with x (longitude, easting) first", True)
    place = in_crs(extent, crs, LONLAT)
    certain = not may_lie_at(place, system)
    if guess or turned:
        return Misplacement(f"its extent ({shown}) in {stated} is far from the cells; {remedy}", certain)
    if certain or place is None:
        return Misplacement(f"its extent ({shown}) lies outside the area of use of {stated}; {remedy}", True)
    what = f"it covers {in_degrees(place)}, the cells lie at {in_degrees(ground)}"
    return Misplacement(f"{what}: the file seems to be of another region", False)


def best_crs(extent: Extent, ground: Extent, names: Sequence[str]) -> str | None:
    """The CRS in which an extent shares most with some ground (longitude, latitude); None where it does in none."""
    shares = {name: overlap(extent, ground, name) for name in names}
    best = max(shares, key=lambda name: shares[name], default=None)
    return best if best is not None and shares[best] else None


def overlap(extent: Extent, ground: Extent, crs: str) -> float:
    """The share of the smaller that an extent in a CRS and some ground (longitude, latitude) have in common, 0 to 1."""
    there = in_crs(ground, LONLAT, crs)
    if there is None:
        return 0.0
    boxes = shapely.box(*extent), shapely.box(*there)
    if not shapely.intersects(*boxes):
        return 0.0
    smaller = min(box.area for box in boxes)
    common: float = shapely.intersection(*boxes).area
    # Boxes without area, and those that only touch, meet as well.
    return max(common / smaller, 1e-9) if smaller else 1.0


def in_crs(bounds: Extent, source: str, target: str) -> Extent | None:
    """The bounds of a box in another CRS; None where it has none there."""
    moved: Extent = to_crs(shapely.box(*bounds), source, target).bounds
    return moved if np.isfinite(moved).all() else None


def may_lie_at(place: Extent | None, system: CRS) -> bool:
    """Whether a place (longitude, latitude) meets the ground a CRS is made for, or lies a little outside."""
    use = system.area_of_use
    if place is None or use is None:
        return place is not None
    west, south, east, north = place
    in_latitude = south <= use.north + SLACK and north >= use.south - SLACK
    # Areas of use across the antimeridian have their west in the east.
    return in_latitude and (use.west > use.east or (west <= use.east + SLACK and east >= use.west - SLACK))


def swapped(extent: Extent) -> Extent:
    """The extent with x and y in each other's place."""
    west, south, east, north = extent
    return south, west, north, east


def in_degrees(bounds: Extent) -> str:
    """Bounds in longitude and latitude in words."""
    west, south, east, north = (f"{number:.4g}" for number in bounds)
    return f"longitude {west} to {east}, latitude {south} to {north}"


def in_numbers(bounds: Extent) -> str:
    """Bounds in words."""
    west, south, east, north = (f"{number:.7g}" for number in bounds)
    return f"x {west} to {east}, y {south} to {north}"


def crs_name(crs: str) -> str:
    """What to call a CRS: its code, or its name where it has none."""
    return crs if len(crs) <= 20 else CRS(crs).name
