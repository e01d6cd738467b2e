"""Searching a catalog for Sentinel-2 scenes, of either level: each acquisition once, and what became of the others."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime

import pystac
from shapely.geometry.base import BaseGeometry

from h2crop_data.catalog.acquisitions import KeptItems, acquisitions_listed, items_of_span, newest_of_each_acquisition
from h2crop_data.catalog.expected_acquisitions import Sighting
from h2crop_data.catalog.items import acquired_if_stated, each_once, identity, name_twins
from h2crop_data.catalog.search import find_items
from h2crop_data.constants import LONGEST_DATATAKE
from h2crop_data.recipe.model import L1cSource, Sentinel2Settings
from h2crop_data.sources.scenes import SceneDecision, decision, unplaced, without_retracted, year_range
from h2crop_data.sources.source import Request

#: Months of other seasons that are looked at for what satellites show there: the sun is high enough everywhere.
SAMPLED_MONTHS = (3, 9)


@dataclass(frozen=True)
class FoundScenes:
    """What a catalog has of a season over some places."""

    #: The items that may be used, each acquisition once.
    kept: KeptItems
    #: On the items that may not: retracted, replaced by a newer one, or nobody can say where they lie.
    decisions: list[SceneDecision]
    #: Items that share an id with another one, by the id they have now -> the id they share.
    twins: dict[str, str]
    #: Items whose footprint is not the one they state -> what is wrong with that.
    corrected: dict[str, str]
    #: Whether the catalog listed anything that can be placed, and what it listed besides, in words.
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
    listed: list[pystac.Item] = []
    refused: list[tuple[pystac.Item, str]] = []
    corrected: list[tuple[pystac.Item, str]] = []
    notes: list[str] = []
    for done, place in enumerate(places):
        request.progress(done, len(places), f"searching {title}")
        catalog = request.locate_catalog(source.catalog)
        start, end = year_range(request.season)
        # A datatake over midnight belongs to the year in which it began.
        found = find_items(catalog, source.collection, place, start - LONGEST_DATATAKE, end + LONGEST_DATATAKE)
        listed += items_of_span(found.items, start, end)
        corrected += found.corrected
        notes += found.notes
        refused += [one for one in found.refused if may_begin_in(one[0], start, end)]
    items = each_once(listed)
    lost = list({identity(item): (item, reason) for item, reason in refused}.values())
    sightings = acquisitions_listed([*items, *(item for item, _ in lost if acquired_if_stated(item) is not None)])
    wrong = {identity(item): reason for item, reason in corrected}
    placed = [(item, wrong[identity(item)]) for item in items if identity(item) in wrong]
    twins = name_twins(items, [item for item, _ in lost])
    by_name = {item.id: item for item in items}
    usable, decisions = without_retracted([by_name[name] for name in sorted(by_name)], "sentinel2", request.retracted)
    decisions += [unplaced(item, "sentinel2", reason) for item, reason in lost]
    kept = newest_of_each_acquisition(usable)
    decisions += [
        decision(by_name[left_out], "sentinel2", f"the same acquisition as {newest}, which is newer or listed last")
        for left_out, newest in sorted(kept.replaced.items())
    ]
    return FoundScenes(
        kept=kept,
        decisions=decisions,
        twins=twins,
        corrected={item.id: reason for item, reason in placed},
        is_empty=not items,
        unplaced=[f"{item.id}: {reason}" for item, reason in lost],
        sightings=sightings,
        notes=list(dict.fromkeys(notes)),
    )


def may_begin_in(item: pystac.Item, start: datetime, end: datetime) -> bool:
    """Whether the look that an item shows may begin in start <= time < end; an item may not say when."""
    return acquired_if_stated(item) is None or bool(items_of_span([item], start, end))


def sightings_of_other_seasons(
    source: Sentinel2Settings | L1cSource, request: Request, places: Sequence[BaseGeometry]
) -> list[Sighting]:
    """Acquisitions over some places in the other seasons of a recipe, in the months that are looked at."""
    catalog = request.locate_catalog(source.catalog)
    return [
        sighting
        for season in request.other_seasons
        for month in SAMPLED_MONTHS
        for place in places
        for sighting in acquisitions_listed(
            find_items(
                catalog,
                source.collection,
                place,
                datetime(season, month, 1, tzinfo=UTC),
                datetime(season, month + 1, 1, tzinfo=UTC),
            ).items
        )
    ]
