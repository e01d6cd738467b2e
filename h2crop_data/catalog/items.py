"""What an item says of itself whatever it shows: time, pixels' CRS, footprint, and what makes it the one it is."""

from __future__ import annotations

import itertools
import json
import math
import re
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any

import numpy as np
import pystac
import shapely
from shapely.errors import ShapelyError
from shapely.geometry import shape
from shapely.geometry.base import BaseGeometry

from h2crop_data.errors import CatalogError, SceneError

#: Properties that name the product an item was made from.
PRODUCT_NAMES = ("s2:product_uri",)
#: EPSG codes of the UTM zones on WGS 84, north and south.
UTM = re.compile(r"32[67](0[1-9]|[1-5]\d|60)")
#: Degrees of longitude between the middle of a footprint and that of its UTM zone, at most. A zone is 6 degrees wide,
#: 12 around Svalbard, and a tile that begins in it may end in the next.
ZONE_REACH = 15.0
#: What stands between the id of an item and the number of those with the same id.
TWIN_MARK = "~"
TWIN_NUMBER = re.compile(rf"{TWIN_MARK}\d+$")


def acquired(item: pystac.Item) -> datetime:
    """When a scene was acquired, in UTC. Raises CatalogError where the item does not say."""
    try:
        moment = item.datetime or item.common_metadata.start_datetime
    except (TypeError, ValueError) as error:
        stated = item.properties.get("start_datetime")
        raise CatalogError(f"item {item.id}: its start_datetime is {stated!r}, expected a time ({error})") from error
    if moment is None:
        raise CatalogError(f"item {item.id} states no time of acquisition")
    return moment.replace(tzinfo=UTC) if moment.tzinfo is None else moment.astimezone(UTC)


def number_of(item: pystac.Item, name: str) -> float | None:
    """A property that is a number, also where it is written as text; None where the item has none.

    Raises SceneError for anything else.
    """
    return finite_number(item.properties.get(name), f"{item.id}: {name}")


def finite_number(value: Any, what: str) -> float | None:
    """A stated number, also where it is written as text; None where nothing is stated.

    Raises SceneError, which calls it `what`, for anything else.
    """
    if value is None:
        return None
    try:
        number = float(value)
    except (TypeError, ValueError):
        number = math.nan
    if not math.isfinite(number):
        raise SceneError(f"{what} is {value!r}, expected a number")
    return number


def item_epsg(item: pystac.Item) -> int | None:
    """EPSG code of an item's pixels, where it or one of its assets (Copernicus Data Space) says so."""
    for facts in (item.properties, *(asset.extra_fields for asset in item.assets.values())):
        code = facts.get("proj:code") or facts.get("proj:epsg")
        digits = str(code or "").upper().removeprefix("EPSG:")
        if digits.isdecimal():
            return int(digits)
    return None


def identity(item: pystac.Item) -> tuple[str, str, str]:
    """What makes an item the one it is: id, ground, and product; catalogs give several items one id.

    The product is the name an item states, else the addresses of its files without what signs them.
    """
    names = [str(item.properties[key]) for key in PRODUCT_NAMES if item.properties.get(key)]
    product = names or sorted(asset.href.partition("?")[0] for asset in item.assets.values())
    return item.id, json.dumps(item.geometry, sort_keys=True), "\n".join(product)


def each_once(items: Sequence[pystac.Item]) -> list[pystac.Item]:
    """The items without those listed again, in order of identity: of these the one updated last, else listed last."""
    kept: dict[tuple[str, str, str], pystac.Item] = {}
    for item in items:
        key = identity(item)
        if key not in kept or updated(item) >= updated(kept[key]):
            kept[key] = item
    return [kept[key] for key in sorted(kept)]


def updated(item: pystac.Item) -> str:
    """When a catalog says it changed an item; empty where it does not say."""
    return str(item.properties.get("updated") or "")


def name_twins(*lists: Sequence[pystac.Item]) -> dict[str, str]:
    """Give items that share an id an id of their own, `<id>~2` and so on; {new id: the id they share}.

    The first by time of acquisition keeps the id; items of a later list come after those of the earlier ones.
    """
    taken: set[str] = set()
    stated = {item.id for items in lists for item in items}
    renamed = {}
    for items in lists:
        for item in sorted(items, key=lambda item: (acquired(item), identity(item))):
            name = item.id
            if name in taken:
                free = (f"{name}{TWIN_MARK}{number}" for number in itertools.count(2))
                item.id = next(own for own in free if own not in taken and own not in stated)
                renamed[item.id] = name
            taken.add(item.id)
    return renamed


def shared_id(name: str) -> str:
    """The id that a catalog gave, also where `name_twins` gave another."""
    return TWIN_NUMBER.sub("", name)


def footprint(item: pystac.Item) -> BaseGeometry:
    """The ground of an item in longitude and latitude. Raises SceneError where it has none or one that cannot be."""
    if item.geometry is None:
        raise SceneError("it states no footprint (`geometry`)")
    try:
        # A coordinate that is no number is refused below.
        with np.errstate(invalid="ignore"):
            ground = shape(item.geometry)
    except (AttributeError, KeyError, TypeError, ValueError, ShapelyError) as error:
        raise SceneError(f"its footprint is damaged: {error}") from error
    if ground.geom_type not in ("Polygon", "MultiPolygon"):
        raise SceneError(f"its footprint is a {ground.geom_type}, expected a Polygon or MultiPolygon")
    if ground.is_empty or not np.isfinite(shapely.get_coordinates(ground)).all():
        raise SceneError("its footprint is empty or not finite")
    check_zone(ground, item_epsg(item))
    return ground


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
