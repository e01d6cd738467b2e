"""What an item says of itself whatever it shows: time, pixels' CRS, footprint, and what makes it the one it is."""

from __future__ import annotations

import json
import math
import re
from collections import defaultdict
from collections.abc import Sequence
from datetime import UTC, datetime

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


def acquired(item: pystac.Item) -> datetime:
    """When a scene was acquired, in UTC."""
    moment = item.datetime or item.common_metadata.start_datetime
    if moment is None:
        raise CatalogError(f"item {item.id} states no time of acquisition")
    return moment.replace(tzinfo=UTC) if moment.tzinfo is None else moment.astimezone(UTC)


def number_of(item: pystac.Item, name: str) -> float | None:
    """A property that is a number, also where it is written as text; None where the item has none.

    Raises SceneError for anything else.
    """
    value = item.properties.get(name)
    if value is None:
        return None
    try:
        number = float(value)
    except (TypeError, ValueError):
        number = math.nan
    if not math.isfinite(number):
        raise SceneError(f"{item.id}: {name} is {value!r}, expected a number")
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


def name_twins(items: Sequence[pystac.Item]) -> dict[str, str]:
    """Give items that share an id an id of their own, `<id>~2` and so on; {new id: the id they share}.

    The first by time of acquisition keeps the id.
    """
    groups: dict[str, list[pystac.Item]] = defaultdict(list)
    for item in items:
        groups[item.id].append(item)
    renamed = {}
    for name, group in groups.items():
        for number, item in enumerate(sorted(group, key=lambda item: (acquired(item), identity(item))), 1):
            if number > 1:
                item.id = f"{name}{TWIN_MARK}{number}"
                renamed[item.id] = name
    return renamed


def footprint(item: pystac.Item) -> BaseGeometry:
    """The ground of an item in longitude and latitude. Raises SceneError where it has none or one that cannot be."""
    if item.geometry is None:
        raise SceneError("it states no footprint (`geometry`)")
    try:
        ground = shape(item.geometry)
    except (AttributeError, KeyError, TypeError, ValueError, ShapelyError) as error:
        raise SceneError(f"its footprint is damaged: {error}") from error
    if ground.is_empty or not all(map(math.isfinite, ground.bounds)):
        raise SceneError("its footprint is empty or not finite")
    check_zone(ground, item_epsg(item))
    return ground


def check_zone(ground: BaseGeometry, epsg: int | None) -> None:
    """Refuse a footprint (longitude, latitude) far from the UTM zone of its pixels. Raises SceneError."""
    zone = UTM.fullmatch(str(epsg))
    if zone is None:
        return
    middle = int(zone[1]) * 6 - 183
    centre = shapely.centroid(ground)

    def away(longitude: float) -> float:
        return abs((longitude - middle + 180) % 360 - 180)

    if away(centre.x) <= ZONE_REACH:
        return
    where = f"its footprint lies at longitude {centre.x:.1f}, latitude {centre.y:.1f}, its pixels in UTM zone {zone[1]}"
    likely = "longitude and latitude are swapped" if away(centre.y) <= ZONE_REACH else "one of the two is wrong"
    raise SceneError(f"{where} (EPSG:{epsg}): {likely}")
