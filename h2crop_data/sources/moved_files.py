"""Scenes on this machine that were moved, with the catalog that lists them, after a season was planned.

A plan keeps whole paths. So that a build can continue after its recipe, catalogs and scenes were moved together,
missing files are looked up in the recipe's catalogs.
"""

from __future__ import annotations

import logging
from collections import defaultdict
from collections.abc import Callable, Container, Sequence
from pathlib import Path

import pystac

from h2crop_data.catalog.catalog_files import features_of, is_web
from h2crop_data.catalog.features import item_of
from h2crop_data.catalog.items import shared_id
from h2crop_data.errors import CatalogError, RecipeError
from h2crop_data.recipe.catalogs import SearchedSection, catalogs_in_order
from h2crop_data.sources.scenes import kept_identity

log = logging.getLogger(__name__)


def found_again(
    items: list[pystac.Item],
    section: SearchedSection,
    locate: Callable[[str], str],
    assets_read: Container[str] | None = None,
) -> list[pystac.Item]:
    """The items of a plan, each with its files where it was planned with them, or else where a catalog has them now.

    section: of the recipe, that names the catalogs; locate: gives the path of one. assets_read: keys of the assets that
    a build reads; all by default. Only catalogs on this machine are looked at, and only where a file is gone. An item
    stays as it is where none of them has it, or has it twice: reading it then fails with the path. So nothing is raised
    here, where perhaps nothing has to be read any more.
    """

    def is_lost(item: pystac.Item) -> bool:
        read = (asset for key, asset in item.assets.items() if assets_read is None or key in assets_read)
        return any(is_gone(asset.href) for asset in read)

    lost = [item for item in items if is_lost(item)]
    if not lost:
        return items
    listed = listed_here(section, locate)
    found = {item.id: with_files_of(item, listed.get(description(item), [])) for item in lost}
    moved = sum(found[item.id] is not item for item in lost)
    log.info("files of %d item(s) of the plan are gone; for %d of them a catalog has the new place", len(lost), moved)
    return [found.get(item.id, item) for item in items]


def is_gone(href: str) -> bool:
    """Whether this is the path of a file that is not there; addresses (`file://` too) and `/vsi` paths never are."""
    return "://" not in href and not href.startswith("/vsi") and not Path(href).exists()


def listed_here(
    section: SearchedSection, locate: Callable[[str], str]
) -> dict[tuple[str | None, ...], list[pystac.Item]]:
    """The items of the catalogs on this machine by description; none of a catalog that cannot be read."""
    found: dict[tuple[str | None, ...], list[pystac.Item]] = defaultdict(list)
    try:
        places = [catalog.place for catalog in catalogs_in_order(section, locate)]
    except RecipeError:
        return found
    for place in places:
        if is_web(place):
            continue
        try:
            features = list(features_of(place))
        except CatalogError:
            continue
        for feature, file in features:
            try:
                item = item_of(feature, "an item", file)
                found[description(item)].append(item)
            except ValueError:
                # Damaged ones were never planned.
                continue
    return found


def description(item: pystac.Item) -> tuple[str | None, ...]:
    """What tells an item from others, wherever its files lie and whichever catalog came first."""
    collection, name, moment, baseline, *_, changed = kept_identity(item)
    return collection, shared_id(name), moment, baseline, changed


def with_files_of(item: pystac.Item, listed: Sequence[pystac.Item]) -> pystac.Item:
    """The item with the files of the one that a catalog lists; as it is where that is not exactly one."""
    if len(listed) != 1 or not item.assets.keys() <= listed[0].assets.keys():
        return item
    moved = item.clone()
    for key, asset in moved.assets.items():
        asset.href = listed[0].assets[key].href
    return moved
