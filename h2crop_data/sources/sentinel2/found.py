"""Searching the catalogs for Sentinel-2 scenes of either level: each acquisition once, and what became of others."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

import pystac
from shapely.geometry.base import BaseGeometry

from h2crop_data.catalog.acquisitions import KeptItems
from h2crop_data.catalog.in_order import first_of_each_acquisition
from h2crop_data.catalog.items import name_twins
from h2crop_data.recipe.catalogs import catalogs_in_order
from h2crop_data.recipe.model import L1cSource, Sentinel2Settings
from h2crop_data.sources.catalogs import CatalogListing, search_in_order
from h2crop_data.sources.scenes import SceneDecision, decision, unplaced, without_retracted, year_range
from h2crop_data.sources.source import Request


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
    #: Whether a catalog listed anything that can be placed, and what it listed besides, in words.
    is_empty: bool
    unplaced: list[str]


def find_scenes(
    source: Sentinel2Settings | L1cSource, request: Request, places: Sequence[BaseGeometry], title: str
) -> FoundScenes:
    """The items of a season over some places (longitude, latitude). title: of the level, for progress."""
    catalogs = catalogs_in_order(source, request.locate_catalog)
    listed = search_in_order(catalogs, places, *year_range(request.season), request.progress, title)
    twins, served = named_apart(listed)
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
        why = "which is newer or listed last"
        if served[stands] != served[left_out]:
            why = f"which {served[stands]} has, an earlier catalog of the recipe"
        decisions.append(decision(by_name[left_out], "sentinel2", f"the same acquisition as {stands}, {why}"))
    return FoundScenes(
        kept,
        decisions,
        twins,
        served,
        not any(found.items for found in listed),
        [f"{item.id}: {reason}" for found in listed for item, reason in found.refused],
    )


def named_apart(listed: Sequence[CatalogListing]) -> tuple[dict[str, str], dict[str, str]]:
    """Give items that share an id ids of their own, those of later catalogs too.

    Gives those that share one within a catalog, new id -> the id they share, and every id -> its catalog.
    """
    lost = [[item for item, _ in found.refused] for found in listed]
    counts = [Counter(item.id for item in (*found.items, *others)) for found, others in zip(listed, lost, strict=True)]
    renamed = name_twins(*(found.items for found in listed), *lost)
    twins, served = {}, {}
    for found, others, count in zip(listed, lost, counts, strict=True):
        for item in (*found.items, *others):
            served[item.id] = found.catalog
            if item.id in renamed and count[renamed[item.id]] > 1:
                twins[item.id] = renamed[item.id]
    return twins, served


def by_id(items: Sequence[pystac.Item]) -> list[pystac.Item]:
    """Items in order of id."""
    return sorted(items, key=lambda item: item.id)
