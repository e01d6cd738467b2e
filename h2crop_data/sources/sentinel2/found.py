"""Searching a catalog for Sentinel-2 scenes, of either level: each acquisition once, and what became of the others."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import pystac
from shapely.geometry.base import BaseGeometry

from h2crop_data.catalog.acquisitions import KeptItems, newest_of_each_acquisition
from h2crop_data.catalog.items import each_once, identity, name_twins
from h2crop_data.catalog.search import find_items
from h2crop_data.recipe.model import L1cSource, Sentinel2Settings
from h2crop_data.sources.scenes import SceneDecision, decision, unplaced, without_retracted, year_range
from h2crop_data.sources.source import Request


@dataclass(frozen=True)
class FoundScenes:
    """What a catalog has of a season over some places."""

    #: The items that may be used, each acquisition once.
    kept: KeptItems
    #: On the items that may not: retracted, replaced by a newer one, or nobody can say where they lie.
    decisions: list[SceneDecision]
    #: Items that share an id with another one, by the id they have now -> the id they share.
    twins: dict[str, str]
    #: Whether the catalog listed anything that can be placed, and what it listed besides, in words.
    is_empty: bool
    unplaced: list[str]


def find_scenes(
    source: Sentinel2Settings | L1cSource, request: Request, places: Sequence[BaseGeometry], title: str
) -> FoundScenes:
    """The items of a season over some places (longitude, latitude). title: of the level, for progress."""
    listed: list[pystac.Item] = []
    refused: list[tuple[pystac.Item, str]] = []
    for done, place in enumerate(places):
        request.progress(done, len(places), f"searching {title}")
        catalog = request.locate_catalog(source.catalog)
        found = find_items(catalog, source.collection, place, *year_range(request.season))
        listed += found.items
        refused += found.refused
    items = each_once(listed)
    lost = list({identity(item): (item, reason) for item, reason in refused}.values())
    twins = name_twins(items, [item for item, _ in lost])
    by_name = {item.id: item for item in items}
    usable, decisions = without_retracted([by_name[name] for name in sorted(by_name)], "sentinel2", request.retracted)
    decisions += [unplaced(item, "sentinel2", reason) for item, reason in lost]
    kept = newest_of_each_acquisition(usable)
    decisions += [
        decision(by_name[left_out], "sentinel2", f"the same acquisition as {newest}, which is newer or listed last")
        for left_out, newest in sorted(kept.replaced.items())
    ]
    return FoundScenes(kept, decisions, twins, not items, [f"{item.id}: {reason}" for item, reason in lost])
