"""Searching the catalogs for Sentinel-2 scenes of either level: each acquisition once, and what became of others."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime

import pystac
from shapely.geometry.base import BaseGeometry

from h2crop_data.catalog.acquisitions import KeptItems, acquisitions_listed, items_of_span
from h2crop_data.catalog.expected_acquisitions import Sighting
from h2crop_data.catalog.in_order import first_of_each_acquisition
from h2crop_data.catalog.items import acquired_if_stated, identity, name_twins
from h2crop_data.constants import LONGEST_DATATAKE
from h2crop_data.progress import silent
from h2crop_data.recipe.catalogs import catalogs_in_order
from h2crop_data.recipe.model import L1cSource, Sentinel2Settings
from h2crop_data.sources.catalogs import CatalogListing, search_in_order
from h2crop_data.sources.scenes import SceneDecision, decision, unplaced, without_retracted, year_range
from h2crop_data.sources.source import Request

#: Months of other seasons that are looked at for what satellites show there: the sun is high enough everywhere.
SAMPLED_MONTHS = (3, 9)


@dataclass(frozen=True)
class FoundScenes:
    """What the catalogs have of a season over some places."""

    #: The items that may be used, each acquisition once.
    kept: KeptItems
    #: On the items that may not: retracted, replaced by a newer one, or nobody can say where they lie.
    decisions: list[SceneDecision]
    #: Items that share an id with another one, by the id they have now -> the id they share.
    twins: dict[str, str]
    #: Item -> the catalog that listed it, as the recipe calls it.
    served: dict[str, str]
    #: Items whose footprint is not the one they state -> what is wrong with that.
    corrected: dict[str, str]
    #: Whether a catalog listed anything that can be placed, and what it listed besides, in words.
    is_empty: bool
    unplaced: list[str]
    #: The acquisitions that it lists, whether they can be used or not.
    sightings: list[Sighting]
    #: What is strange about the search as a whole.
    notes: list[str]


def find_scenes(
    source: Sentinel2Settings | L1cSource, request: Request, places: Sequence[BaseGeometry], title: str
) -> FoundScenes:
    """The items of a season over some places (longitude, latitude). title: of the level, for progress."""
    catalogs = catalogs_in_order(source, request.locate_catalog)
    start, end = year_range(request.season)
    # A datatake over midnight belongs to the year in which it began.
    around = start - LONGEST_DATATAKE, end + LONGEST_DATATAKE
    listed = [
        begun_in_season(found, start, end)
        for found in search_in_order(catalogs, places, *around, request.progress, title)
    ]
    wrong = {identity(item): reason for found in listed for item, reason in found.corrected}
    placed = [(item, wrong[identity(item)]) for found in listed for item in found.items if identity(item) in wrong]
    twins, listings = named_apart(listed)
    usable = []
    decisions: list[SceneDecision] = []
    for found in listed:
        items, retracted = without_retracted(by_id(found.items), "sentinel2", request.retracted)
        usable.append(items)
        decisions += retracted
        decisions += [unplaced(item, "sentinel2", reason) for item, reason in found.refused]
    kept = first_of_each_acquisition(usable)
    by_name = {item.id: item for items in usable for item in items}
    for left_out, stands in sorted(kept.replaced.items()):
        why = why_left_out(listings[left_out], listings[stands])
        decisions.append(decision(by_name[left_out], "sentinel2", f"the same acquisition as {stands}, {why}"))
    lost = [(item, reason) for found in listed for item, reason in found.refused]
    dated = [item for item, _ in lost if acquired_if_stated(item) is not None]
    return FoundScenes(
        kept=kept,
        decisions=decisions,
        twins=twins,
        served={name: listing.catalog for name, listing in listings.items()},
        corrected={item.id: reason for item, reason in placed},
        is_empty=not any(found.items for found in listed),
        unplaced=[f"{item.id}: {reason}" for item, reason in lost],
        sightings=acquisitions_listed([*(item for found in listed for item in found.items), *dated]),
        notes=list(dict.fromkeys(note for found in listed for note in found.notes)),
    )


def begun_in_season(found: CatalogListing, start: datetime, end: datetime) -> CatalogListing:
    """Of what a catalog listed, the looks that begin in start <= time < end, and what does not say when."""
    items = items_of_span(found.items, start, end)
    kept = {identity(item) for item in items}
    return replace(
        found,
        items=items,
        refused=[one for one in found.refused if may_begin_in(one[0], start, end)],
        corrected=[one for one in found.corrected if identity(one[0]) in kept],
    )


def may_begin_in(item: pystac.Item, start: datetime, end: datetime) -> bool:
    """Whether the look that an item shows may begin in start <= time < end; an item may not say when."""
    return acquired_if_stated(item) is None or bool(items_of_span([item], start, end))


def why_left_out(own: CatalogListing, other: CatalogListing) -> str:
    """Why an item of one listing is left out for one of another (or the same) that shows the same, in words."""
    if other is own:
        return "which is newer or listed last"
    # A recipe may name a catalog twice, with two collections.
    named = other.catalog if other.catalog != own.catalog else f"{other.catalog} ({other.collection})"
    return f"which {named} has, an earlier catalog of the recipe"


def named_apart(listed: Sequence[CatalogListing]) -> tuple[dict[str, str], dict[str, CatalogListing]]:
    """Give items that share an id ids of their own, those of later catalogs too.

    Gives those that share one within a catalog, new id -> the id they share, and every id -> what it was listed in.
    """
    lost = [[item for item, _ in found.refused] for found in listed]
    counts = [Counter(item.id for item in (*found.items, *others)) for found, others in zip(listed, lost, strict=True)]
    renamed = name_twins(*(found.items for found in listed), *lost)
    twins, listings = {}, {}
    for found, others, count in zip(listed, lost, counts, strict=True):
        for item in (*found.items, *others):
            listings[item.id] = found
            if item.id in renamed and count[renamed[item.id]] > 1:
                twins[item.id] = renamed[item.id]
    return twins, listings


def by_id(items: Sequence[pystac.Item]) -> list[pystac.Item]:
    """Items in order of id."""
    return sorted(items, key=lambda item: item.id)


def sightings_of_other_seasons(
    source: Sentinel2Settings | L1cSource, request: Request, places: Sequence[BaseGeometry]
) -> list[Sighting]:
    """Acquisitions over some places in the other seasons of a recipe, in the months that are looked at."""
    catalogs = catalogs_in_order(source, request.locate_catalog)
    spans = [
        (datetime(season, month, 1, tzinfo=UTC), datetime(season, month + 1, 1, tzinfo=UTC))
        for season in request.other_seasons
        for month in SAMPLED_MONTHS
    ]
    return [
        sighting
        for span in spans
        for found in search_in_order(catalogs, places, *span, silent, "Sentinel-2")
        for sighting in acquisitions_listed(found.items)
    ]
