"""The ground of an item, from its footprint in any notation.

Footprints over 180 degrees come in every form: cut in two there, with longitudes beyond 180, as one ring that jumps
from 179 to -179, as the box around both parts. In others longitude and latitude are swapped. Where what is stated could
mean two things, the ground of the item's pixels decides: that of the MGRS tile it names, and of the grid it states.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterator
from functools import lru_cache
from typing import Any

import numpy as np
import pystac
import shapely
from numpy.typing import NDArray
from pyproj.exceptions import ProjError
from shapely.affinity import translate
from shapely.errors import ShapelyError
from shapely.geometry import mapping, shape
from shapely.geometry.base import BaseGeometry

from h2crop_data.catalog.item_facts import sentinel2_tile
from h2crop_data.catalog.items import item_epsg
from h2crop_data.errors import SceneError
from h2crop_data.grid import LONLAT, to_crs
from h2crop_data.mgrs import tile_outline

#: EPSG codes of the UTM zones on WGS 84, north and south.
UTM = re.compile(r"32[67](0[1-9]|[1-5]\d|60)")
#: Degrees of longitude between the middle of a footprint and that of its UTM zone, at most. A zone is 6 degrees wide,
#: 12 around Svalbard, and a tile that begins in it may end in the next.
ZONE_REACH = 15.0
#: Degrees of longitude that the footprint of a scene may span.
MOST_WIDTH = 180.0
#: Share of a footprint that lies where the pixels are, at least: swapped coordinates may touch them too.
MOST_OF = 0.5
TURN = 360.0


def footprint(item: pystac.Item) -> BaseGeometry:
    """The ground of an item: polygons in longitude (-180..180) and latitude, cut at 180 degrees.

    Raises SceneError where it has none or one that cannot be.
    """
    return understood_footprint(item)[0]


def understood_footprint(item: pystac.Item) -> tuple[BaseGeometry, str]:
    """The ground of an item like `footprint`, and what is wrong with what the item states; empty where nothing is."""
    if item.geometry is None:
        return pixels_instead(item, "it has no footprint (`geometry`)")
    stated = stated_polygons(item.geometry)
    ground = on_globe(stated)
    if ground is not None and shows_pixels(item, ground):
        return ground, ""
    swapped = on_globe(shapely.transform(stated, lambda points: points[:, ::-1]))
    if swapped is not None and shows_pixels(item, swapped):
        return swapped, "longitude and latitude of its footprint are swapped, according to the position of its pixels"
    if ground is not None:
        check_zone(ground, item_epsg(item))
        return ground, ""
    west, south, east, north = stated.bounds
    wrong = f"its footprint reaches from longitude {west:g} to {east:g}, around the Earth"
    if south < -90 or north > 90:
        wrong = f"its footprint reaches from latitude {south:g} to {north:g}, beyond 90 degrees"
    return pixels_instead(item, wrong)


def pixels_instead(item: pystac.Item, wrong: str) -> tuple[BaseGeometry, str]:
    """The ground of an item's pixels instead of the stated one, and what is wrong with that. Raises SceneError."""
    pixels = next(grounds_of_pixels(item), None)
    if pixels is None:
        raise SceneError(f"{wrong}, and it has neither a tile nor `proj:` fields that give the position of its pixels")
    return pixels, f"{wrong}; the outline of its pixels is used instead"


def place_item(item: pystac.Item) -> str:
    """Give an item the footprint that it means; what is wrong with the one it states, empty where nothing is.

    Raises SceneError like `footprint`.
    """
    ground, wrong = understood_footprint(item)
    if item.geometry is None or not shapely.equals_exact(shapely.force_2d(shape(item.geometry)), ground):
        item.geometry, item.bbox = json.loads(json.dumps(mapping(ground))), list(ground.bounds)
    return wrong


def stated_polygons(geometry: Any) -> BaseGeometry:
    """The polygons of a GeoJSON geometry, those of a collection too, without heights. Raises SceneError for none."""
    try:
        # A coordinate that is no number is refused below.
        with np.errstate(invalid="ignore"):
            ground = shapely.force_2d(shape(geometry))
    except (AttributeError, LookupError, TypeError, ValueError, ShapelyError) as error:
        raise SceneError(f"its footprint is damaged: {error}") from error
    polygons = list(polygons_in(ground))
    if not polygons and not ground.is_empty:
        raise SceneError(f"its footprint is a {ground.geom_type}, expected a Polygon or MultiPolygon")
    if ground.is_empty or not np.isfinite(shapely.get_coordinates(ground)).all():
        raise SceneError("its footprint is empty or not finite")
    return ground if ground.geom_type in ("Polygon", "MultiPolygon") else shapely.MultiPolygon(polygons)


def polygons_in(geometry: BaseGeometry) -> Iterator[shapely.Polygon]:
    """The polygons of a geometry, however deep in collections."""
    if isinstance(geometry, shapely.Polygon):
        yield geometry
    elif hasattr(geometry, "geoms"):
        for part in geometry.geoms:
            yield from polygons_in(part)


def on_globe(stated: BaseGeometry) -> BaseGeometry | None:
    """Polygons as they lie in longitudes -180..180, cut at 180 degrees; None where they cannot lie on the globe.

    Neighbouring vertices lie on the shorter way around the Earth. Nothing is changed where nothing needs to be.
    """
    west, south, east, north = stated.bounds
    if not -90 <= south <= north <= 90:
        return None
    whole = [unwrapped(polygon) for polygon in polygons_in(stated)]
    polygons = [polygon for polygon in whole if polygon is not None]
    if len(polygons) < len(whole) or any(width(polygon) > MOST_WIDTH for polygon in polygons):
        return None
    if west >= -180 and east <= 180 and all(map(shapely.equals_exact, polygons, polygons_in(stated))):
        return stated
    if not any(polygon.area for polygon in polygons):
        return None
    return shapely.union_all([part for polygon in polygons for part in cut_at_180(polygon)])


def unwrapped(polygon: shapely.Polygon) -> shapely.Polygon | None:
    """A polygon without jumps in longitude; None where a ring goes around the Earth."""
    rings = [continuous(shapely.get_coordinates(ring)) for ring in (polygon.exterior, *polygon.interiors)]
    outer = rings[0]
    if any(abs(ring[0, 0] - ring[-1, 0]) > MOST_WIDTH for ring in rings):
        return None
    middle = outer[:, 0].mean()
    holes = [ring - [round((ring[:, 0].mean() - middle) / TURN) * TURN, 0] for ring in rings[1:]]
    return shapely.Polygon(outer, holes)


def continuous(points: NDArray[np.float64]) -> NDArray[np.float64]:
    """Points (n, 2) whose longitudes never change by more than half a turn from one to the next."""
    steps = np.diff(points[:, 0], prepend=points[0, 0])
    unturned: NDArray[np.float64] = points.copy()
    unturned[:, 0] -= np.cumsum(np.round(steps / TURN)) * TURN
    return unturned


def width(polygon: BaseGeometry) -> float:
    """Degrees of longitude that a polygon spans."""
    return float(polygon.bounds[2] - polygon.bounds[0])


def cut_at_180(polygon: shapely.Polygon) -> Iterator[BaseGeometry]:
    """The parts of a polygon on either side of 180 degrees, each in longitudes -180..180."""
    turns = math.floor((polygon.bounds[0] + 180) / TURN)
    valid = shapely.make_valid(polygon)
    for turn in (turns, turns + 1):
        globe = shapely.box(turn * TURN - 180, -90, turn * TURN + 180, 90)
        part = translate(shapely.intersection(valid, globe), -turn * TURN)
        yield from (piece for piece in polygons_in(part) if piece.area)


def shows_pixels(item: pystac.Item, ground: BaseGeometry) -> bool:
    """Whether most of some ground is where the pixels of an item are, as far as the item says where that is."""
    valid = shapely.make_valid(ground)
    wanted = MOST_OF * valid.area
    return any(shapely.intersection(valid, pixels).area > wanted for pixels in grounds_of_pixels(item))


def grounds_of_pixels(item: pystac.Item) -> Iterator[BaseGeometry]:
    """Where the pixels of an item are (longitude, latitude): of its MGRS tile, then of the grids it states."""
    tile = ground_of_tile(sentinel2_tile(item))
    if tile is not None:
        yield tile
    epsg = item_epsg(item)
    for facts in (item.properties, *(asset.extra_fields for asset in item.assets.values())):
        box = grid_box(facts)
        if epsg is None or box is None:
            continue
        try:
            ground = on_globe(to_crs(box, f"EPSG:{epsg}", LONLAT))
        except (ProjError, ValueError):
            continue
        if ground is not None:
            yield ground
            return


@lru_cache(maxsize=4096)
def ground_of_tile(tile: str) -> BaseGeometry | None:
    """The ground of an MGRS tile; None for a name that is none."""
    try:
        return on_globe(tile_outline(tile))
    except ValueError:
        return None


def grid_box(facts: dict[str, Any]) -> BaseGeometry | None:
    """The box of a pixel grid in its CRS, of the `proj:` fields of an item or asset; None where they do not tell."""
    try:
        if facts.get("proj:bbox"):
            return shapely.box(*map(float, facts["proj:bbox"]))
        size, _, west, _, step, north = map(float, facts["proj:transform"][:6])
        rows, columns = map(float, facts["proj:shape"])
    except (KeyError, TypeError, ValueError):
        return None
    return shapely.box(west, north + rows * step, west + columns * size, north)


def check_zone(ground: BaseGeometry, epsg: int | None) -> None:
    """Refuse a footprint (longitude, latitude) far from the UTM zone of its pixels. Raises SceneError."""
    zone = UTM.fullmatch(str(epsg))
    if zone is None:
        return
    middle = int(zone[1]) * 6 - 183

    def away(longitude: float) -> float:
        return abs((longitude - middle + 180) % 360 - 180)

    # Ground over 180 degrees is cut in two there, and the middle of both parts is on the other side of the Earth.
    centres = [shapely.centroid(part) for part in shapely.get_parts(ground)]
    if any(away(centre.x) <= ZONE_REACH for centre in centres):
        return
    centre = centres[0]
    where = f"its footprint lies at longitude {centre.x:.1f}, latitude {centre.y:.1f}, its pixels in UTM zone {zone[1]}"
    likely = "longitude and latitude are swapped" if away(centre.y) <= ZONE_REACH else "one of the two is wrong"
    raise SceneError(f"{where} (EPSG:{epsg}): {likely}")
