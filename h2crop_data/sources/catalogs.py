"""Searching the catalogs of a recipe in order."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime

import pystac
from shapely.geometry.base import BaseGeometry

from h2crop_data.catalog.items import each_once, identity
from h2crop_data.catalog.search import find_items
from h2crop_data.errors import CatalogError
from h2crop_data.progress import Progress
from h2crop_data.recipe.catalogs import CatalogPlace
from h2crop_data.redaction import redacted, redacted_errors

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class CatalogListing:
    """What one catalog has over some places."""

    #: Its name in the recipe.
    catalog: str
    #: The collection that was searched.
    collection: str
    #: Each item once, none with a signature or an account in it.
    items: list[pystac.Item]
    #: Items of which nobody can say where they lie or when they were acquired, with the reason.
    refused: list[tuple[pystac.Item, str]]
    #: Those of `items` whose footprint is not the stated one, with what is wrong with that.
    corrected: list[tuple[pystac.Item, str]]
    #: What is strange about the searches as a whole, though nothing is missing.
    notes: list[str]


def search_in_order(
    catalogs: Sequence[CatalogPlace],
    places: Sequence[BaseGeometry],
    start: datetime,
    end: datetime,
    progress: Progress,
    title: str,
) -> list[CatalogListing]:
    """What each catalog has over some places (longitude, latitude) in start <= time < end.

    title: of what is searched for, for progress. Raises CatalogError where one of them does not answer: its scenes must
    not be missing silently.
    """
    found = []
    for number, catalog in enumerate(catalogs):
        items: list[pystac.Item] = []
        refused: list[tuple[pystac.Item, str]] = []
        corrected: list[tuple[pystac.Item, str]] = []
        notes: list[str] = []
        for done, place in enumerate(places):
            progress(number * len(places) + done, len(catalogs) * len(places), f"searching {title}")
            # Errors of connections show whole addresses, those of further pages have tokens.
            with redacted_errors(CatalogError):
                here = find_items(catalog.place, catalog.collection, place, start, end)
            items += here.items
            refused += here.refused
            corrected += here.corrected
            notes += here.notes
        lost = {identity(item): (item, reason) for item, reason in refused}
        for item, reason in lost.values():
            log.warning("%s: item %s is refused: %s", catalog.name, item.id, reason, extra={"scene": item.id})
        for item, reason in corrected:
            log.info(
                "%s: the footprint of %s is corrected: %s", catalog.name, item.id, reason, extra={"scene": item.id}
            )
        for note in dict.fromkeys(redacted(notes)):
            log.warning("%s", note)
        found.append(
            CatalogListing(
                catalog.name,
                catalog.collection,
                [without_signatures(item) for item in each_once(items)],
                [(without_signatures(item), reason) for item, reason in lost.values()],
                [(without_signatures(item), reason) for item, reason in corrected],
                list(dict.fromkeys(redacted(notes))),
            )
        )
    return found


def without_signatures(item: pystac.Item) -> pystac.Item:
    """The item, changed: its addresses and texts have no signatures and accounts, which are never kept."""
    for asset in item.assets.values():
        asset.href, asset.extra_fields = redacted(asset.href), redacted(asset.extra_fields)
        asset.title, asset.description = redacted(asset.title), redacted(asset.description)
    for link in item.links:
        link.title, link.extra_fields = redacted(link.title), redacted(link.extra_fields)
        if isinstance(link.target, str):
            link.target = redacted(link.target)
    item.properties, item.extra_fields = redacted(item.properties), redacted(item.extra_fields)
    return item
