"""Acquisitions that several catalogs list: what the first lacks is taken from the next, on any ground."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from datetime import date, timedelta

import pystac

from h2crop_data.catalog.acquisitions import (
    CATALOGS_BEFORE,
    CLOCK_SLACK,
    DATATAKE_OF_COPY,
    ONE_GRANULE,
    ONE_LOOK,
    PLATFORM_OF_COPY,
    TIME,
    KeptItems,
    catalogs_before,
    covers,
    datatake_start,
    newest_of_each_acquisition,
    same_strip,
    satellite,
)
from h2crop_data.catalog.item_facts import sentinel2_tile
from h2crop_data.catalog.items import acquired
from h2crop_data.constants import LONGEST_DATATAKE

#: An item's facts that are made here, of the catalogs of one recipe.
MADE_HERE = (CATALOGS_BEFORE, DATATAKE_OF_COPY, PLATFORM_OF_COPY)


def first_of_each_acquisition(lists: Sequence[Sequence[pystac.Item]]) -> KeptItems:
    """The items that are used; lists: of each catalog, in order, with ids that no two items share.

    Within a catalog the newest counts (`newest_of_each_acquisition`), between catalogs the first that shows a ground,
    whatever is newer: an item is left out where one of an earlier catalog is of its acquisition, tile and datastrip and
    shows (nearly) all its ground. Where no datastrip proves that, both are kept and the earlier catalog's counts first.
    Such items are changed: they say how many catalogs come before theirs, and are of one look.
    """
    together: list[pystac.Item] = []
    replaced: dict[str, str] = {}
    fillers: dict[str, str] = {}
    earlier: dict[tuple[str, date], list[pystac.Item]] = defaultdict(list)
    for items in lists:
        for item in items:
            for name in MADE_HERE:
                item.properties.pop(name, None)
        own = newest_of_each_acquisition(items)
        replaced |= own.replaced
        fillers |= own.fillers
        added = []
        for item in own.items:
            same = [other for other in acquired_near(item, earlier) if is_same_acquisition(item, other)]
            covering = [other for other in same if covers(other, item)]
            first = next((other for other in covering if same_strip(other, item)), None)
            if first is not None:
                replaced[item.id] = first.id
                fillers.pop(item.id, None)
                continue
            if same:
                item.properties[CATALOGS_BEFORE] = 1 + max(map(catalogs_before, same))
            if covering:
                fillers[item.id] = covering[0].id
            for other in same:
                put_into_one_look(item, other)
            added.append(item)
        for item in added:
            earlier[sentinel2_tile(item), acquired(item).date()].append(item)
        together += added
    return KeptItems(sorted(together, key=lambda item: item.id), replaced, fillers)


def acquired_near(item: pystac.Item, listed: dict[tuple[str, date], list[pystac.Item]]) -> list[pystac.Item]:
    """The items of its tile that were acquired on its day, the day before and the day after."""
    tile, day = sentinel2_tile(item), acquired(item).date()
    return [other for apart in (-1, 0, 1) for other in listed.get((tile, day + timedelta(days=apart)), ())]


def is_same_acquisition(one: pystac.Item, other: pystac.Item) -> bool:
    """Whether two items of one tile show one acquisition, as far as they tell; a satellite is over it once an orbit.

    By their datatakes where both name one. Catalogs date items by the granule or by the datatake: of one satellite they
    may be minutes apart; where one of them names no satellite they must be of about one time.
    """
    first, second = datatake_start(one), datatake_start(other)
    if first and second:
        return first == second
    moments = acquired(one), acquired(other)
    apart = abs(moments[0] - moments[1])
    named = first or second
    if named:
        begun = moments[1 if first else 0] - named[1]
        if not -CLOCK_SLACK <= begun <= LONGEST_DATATAKE:
            return False
        apart = min(apart, abs(begun))
    satellites = {first[0].removeprefix("S") if first else satellite(one)}
    satellites.add(second[0].removeprefix("S") if second else satellite(other))
    if "" in satellites:
        return apart <= ONE_GRANULE
    return len(satellites) == 1 and (named is not None or apart < ONE_LOOK)


def put_into_one_look(one: pystac.Item, other: pystac.Item) -> None:
    """Let the one of two items of one acquisition that names no datatake, or no satellite, have that of the other."""
    for teller, item in ((one, other), (other, one)):
        named = datatake_start(teller)
        if named and datatake_start(item) is None:
            item.properties[DATATAKE_OF_COPY] = f"{named[0]}_{named[1].strftime(TIME)}_"
        if satellite(teller) and not satellite(item):
            item.properties[PLATFORM_OF_COPY] = f"sentinel-{satellite(teller).lower()}"
