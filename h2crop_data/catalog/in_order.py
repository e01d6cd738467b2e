"""Acquisitions that several catalogs list: what the first lacks comes from the next, on whatever ground that is."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence

import pystac

from h2crop_data.catalog.acquisitions import (
    KeptItems,
    age,
    covers,
    datatake_time,
    newest_of_each_acquisition,
    same_strip,
)
from h2crop_data.catalog.item_facts import sentinel2_tile


def first_of_each_acquisition(lists: Sequence[Sequence[pystac.Item]]) -> KeptItems:
    """The items that show something of their own; lists: of each catalog, in order, with ids that no two items share.

    Within a catalog the newest counts (`newest_of_each_acquisition`), between catalogs the first that shows a ground,
    whatever is newer: an item is left out where one of an earlier catalog is of its datatake, tile and datastrip and
    shows (nearly) all its ground.
    """
    together: list[pystac.Item] = []
    replaced: dict[str, str] = {}
    fillers: dict[str, str] = {}
    earlier: dict[tuple[str, str], list[pystac.Item]] = defaultdict(list)
    for items in lists:
        own = newest_of_each_acquisition(items)
        replaced |= own.replaced
        fillers |= own.fillers
        added = []
        for item in own.items:
            covering = [other for other in earlier[datatake_time(item), sentinel2_tile(item)] if covers(other, item)]
            first = next((other for other in covering if same_strip(other, item)), None)
            if first is not None:
                replaced[item.id] = first.id
                fillers.pop(item.id, None)
                continue
            if covering:
                # Looks are put together newest first, whoever listed what (`looks_of`).
                older, newer = sorted((item, covering[0]), key=age)
                fillers[older.id] = newer.id
            added.append(item)
        for item in added:
            earlier[datatake_time(item), sentinel2_tile(item)].append(item)
        together += added
    return KeptItems(sorted(together, key=lambda item: item.id), replaced, fillers)
