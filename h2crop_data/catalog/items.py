"""Facts of an item of any sensor: time, CRS of the pixels, and its identity."""

from __future__ import annotations

import itertools
import json
import math
import re
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any

import pystac

from h2crop_data.errors import SceneError

#: Properties that name the product an item was made from.
PRODUCT_NAMES = ("s2:product_uri",)
#: Where items without a time come in an order of time.
LAST = datetime.max.replace(tzinfo=UTC)
#: What stands between the id of an item and the number of those with the same id.
TWIN_MARK = "~"
TWIN_NUMBER = re.compile(rf"{TWIN_MARK}\d+$")


def acquired(item: pystac.Item) -> datetime:
    """When a scene was acquired, in UTC: its time, else the beginning of its range, else the end of an open one.

    Raises SceneError where the item does not say.
    """
    facts = item.common_metadata
    try:
        moment = item.datetime or facts.start_datetime or facts.end_datetime
    except (TypeError, ValueError) as error:
        stated = item.properties.get("start_datetime"), item.properties.get("end_datetime")
        raise SceneError(
            f"expected times in `start_datetime` and `end_datetime`, got {stated[0]!r} and {stated[1]!r}"
        ) from error
    if moment is None:
        raise SceneError("it has no time of acquisition")
    return moment.replace(tzinfo=UTC) if moment.tzinfo is None else moment.astimezone(UTC)


def acquired_if_stated(item: pystac.Item) -> datetime | None:
    """When a scene was acquired, in UTC; None where the item does not say."""
    try:
        return acquired(item)
    except SceneError:
        return None


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


def identity(item: pystac.Item) -> tuple[str, str, str, str]:
    """What makes an item the one it is: id, ground, product and collection; catalogs give several items one id.

    The product is the name an item states, else the addresses of its files without what signs them.
    """
    names = [str(item.properties[key]) for key in PRODUCT_NAMES if item.properties.get(key)]
    product = names or sorted(asset.href.partition("?")[0] for asset in item.assets.values())
    return item.id, json.dumps(item.geometry, sort_keys=True), "\n".join(product), str(item.collection_id or "")


def each_once(items: Sequence[pystac.Item]) -> list[pystac.Item]:
    """The items without those listed again, in order of identity: of these the one updated last, else listed last."""
    kept: dict[tuple[str, str, str, str], pystac.Item] = {}
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

    The first by time of acquisition keeps the id (those that state none come last); items of a later list come after
    those of the earlier ones.
    """
    taken: set[str] = set()
    stated = {item.id for items in lists for item in items}
    renamed = {}
    for items in lists:
        for item in sorted(items, key=lambda item: (acquired_if_stated(item) or LAST, identity(item))):
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
