"""Items of the features that catalogs give: a damaged one does not hide the others and is listed with its reason."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import pystac
from pystac.utils import str_to_datetime

from h2crop_data.catalog.catalog_files import address_beside

#: What pystac raises for JSON that is not what it should be.
NOT_STAC = (pystac.STACError, pystac.STACTypeError, AttributeError, KeyError, OverflowError, TypeError, ValueError)
#: Members of which an item has at least one, however damaged it is.
OF_ITEMS = ("geometry", "properties", "assets")


@dataclass(frozen=True)
class Listing:
    """What a catalog lists."""

    items: list[pystac.Item] = field(default_factory=list)
    #: Items that cannot be used: what can be read of them, and what is wrong.
    damaged: list[tuple[pystac.Item, str]] = field(default_factory=list)
    #: What is strange about the listing as a whole.
    notes: list[str] = field(default_factory=list)

    def add(self, feature: Any, otherwise: str, place: str | None = None) -> pystac.Item:
        """Take in the item of a feature, like `item_of`, or what can be read of a damaged one; gives it.

        Raises ValueError for anything but an item.
        """
        try:
            item = understood(feature, place)
        except ValueError as error:
            if not (isinstance(feature, dict) and any(member in feature for member in OF_ITEMS)):
                raise ValueError(f"{id_of_feature(feature, otherwise)} is not a STAC item: {error}") from error
            item = readable_part(feature, otherwise)
            self.damaged.append((item, f"it is not a STAC item: {error}"))
        else:
            self.items.append(item)
        return item


def item_of(feature: Any, otherwise: str, place: str | None = None) -> pystac.Item:
    """The item of a feature. Raises ValueError naming it by its id, or as `otherwise` where it has none.

    place: of the file it stands in, from which relative hrefs start; None for one of an API, of which older versions of
    STAC are read as the newest.
    """
    try:
        return understood(feature, place)
    except ValueError as error:
        raise ValueError(f"{id_of_feature(feature, otherwise)} is not a STAC item: {error}") from error


def id_of_feature(feature: Any, otherwise: str) -> str:
    """The id of a feature, whatever it is; `otherwise` where it has none."""
    name = feature.get("id") if isinstance(feature, dict) else None
    return otherwise if name is None else str(name)


def understood(feature: Any, place: str | None) -> pystac.Item:
    """The item of a feature like `item_of`. Raises ValueError with what is wrong."""
    try:
        check_members(feature)
        item = pystac.Item.from_dict(completed(feature), preserve_dict=False, migrate=place is None)
        if place is not None:
            for asset in item.assets.values():
                asset.href = address_beside(asset.href, place)
    except NOT_STAC as error:
        raise ValueError(str(error)) from error
    return item


def check_members(feature: Any) -> None:
    """Whether the members of a feature are of the kinds that STAC wants. Raises TypeError with what is wrong."""
    if not isinstance(feature, dict):
        raise TypeError(f"expected an object, got {feature!r:.40}")
    if not isinstance(feature.get("id"), str):
        raise TypeError(f"expected text as its id, got {feature.get('id')!r}")
    if not isinstance(feature.get("properties"), dict):
        raise TypeError(f"expected an object as its properties, got {feature.get('properties')!r:.40}")
    if not isinstance(feature.get("collection"), str | None):
        raise TypeError(f"expected text as its collection, got {feature['collection']!r:.40}")
    for member, kind, word in (("assets", dict, "an object"), ("links", list, "a list")):
        if not isinstance(feature.get(member, kind()), kind):
            raise TypeError(f"expected {word} as its {member}, got {feature[member]!r:.40}")
    for key, asset in feature.get("assets", {}).items():
        if not isinstance(asset, dict) or not isinstance(asset.get("href"), str):
            raise TypeError(f"its asset {key} has no address (`href`)")
    time = feature["properties"].get("datetime")
    try:
        str_to_datetime("2000-01-01" if time is None else time)
    except NOT_STAC as error:
        raise TypeError(f"expected a time as text in `datetime`, got {time!r}") from error


def completed(feature: dict[str, Any]) -> dict[str, Any]:
    """A feature with the members that pystac wants and other readers do not.

    They are a footprint, which may be none, and where no time is stated a range of time, open on both sides.
    """
    facts = feature["properties"]
    whole = {"geometry": None, **feature}
    if facts.get("datetime") is not None:
        return whole
    return {**whole, "properties": {"datetime": None, "start_datetime": None, "end_datetime": None, **facts}}


def readable_part(feature: dict[str, Any], otherwise: str) -> pystac.Item:
    """Of a damaged feature its id, collection, footprint, time and properties, as far as they can be read; no files."""
    place, collection = feature.get("geometry"), feature.get("collection")
    facts = feature.get("properties")
    stated = dict(facts) if isinstance(facts, dict) else {}
    try:
        moment = str_to_datetime(stated.pop("datetime", None))
    except NOT_STAC:
        moment = None
    return pystac.Item(
        id=id_of_feature(feature, otherwise),
        geometry=place if isinstance(place, dict) else None,
        bbox=None,
        datetime=moment,
        properties={"start_datetime": None, "end_datetime": None, **stated},
        collection=collection if isinstance(collection, str) else None,
    )
