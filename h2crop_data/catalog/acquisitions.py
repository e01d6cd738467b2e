"""Groups Sentinel-2 items by acquisition: reprocessed products, granules of a tile, the tiles of a datatake."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

import pystac
import shapely

from h2crop_data.catalog.expected_acquisitions import ORBITS_A_CYCLE, Sighting
from h2crop_data.catalog.footprints import footprint
from h2crop_data.catalog.item_facts import baseline, sentinel2_tile
from h2crop_data.catalog.items import PRODUCT_NAMES, acquired, updated
from h2crop_data.constants import LONGEST_DATATAKE
from h2crop_data.mgrs import TILE
from h2crop_data.sentinel2.reflectance import PRIVATE_FROM

#: Share of an item's ground that another must show to stand for it.
SAME_GROUND = 0.95
DATATAKE = re.compile(r"(S2[A-Z])_(\d{8}T\d{6})_")
#: Where the sensing of a datastrip begins, in its name.
STRIP_START = re.compile(r"_S(\d{8}T\d{6})(?:_|$)")
#: The beginnings of one datastrip in two processings are at most so far apart; two strips are, a tile takes 15 s.
SAME_STRIP = timedelta(seconds=5)
SATELLITE = re.compile(r"(?:sentinel-?|S)(2[A-Z])", re.IGNORECASE)
#: The relative orbit in the name of a product.
ORBIT_IN_NAME = re.compile(r"_R(\d{3})_")
#: Catalogs round: an acquisition may be stated that much before the beginning of its datatake.
CLOCK_SLACK = timedelta(minutes=1)
#: Acquisitions of one satellite nearer than that are one look, where no datatake is named; an orbit takes 100 minutes.
ONE_LOOK = timedelta(minutes=30)
#: L1C and L2A of one granule state its acquisition within so much.
ONE_GRANULE = timedelta(seconds=60)
TIME = "%Y%m%dT%H%M%S"
#: Facts that items of several catalogs get (`in_order`): the datatake and platform of an item of the same acquisition.
DATATAKE_OF_COPY, PLATFORM_OF_COPY = "h2crop:datatake", "h2crop:platform"
#: How many catalogs before an item's own have items of its acquisition, which count first; not stated for none.
CATALOGS_BEFORE = "h2crop:catalogs_before"
BASELINE = re.compile(r"N?(\d{1,2})\.?(\d{2})")


@dataclass(frozen=True)
class KeptItems:
    """The items that are used, and the decision on the others."""

    #: In order of id.
    items: list[pystac.Item]
    #: Items that are not needed -> the one that shows the same: newer, or of an earlier catalog.
    replaced: dict[str, str]
    #: Items of a datatake and tile of which there is such a one, where nothing proves that it shows the same -> that.
    fillers: dict[str, str]


@dataclass(frozen=True)
class Look:
    """What a satellite saw in one datatake: one observation of the ground, however many items show it."""

    moment: datetime
    #: Granules of one tile, `first_to_last`: each counts only where those before it have no data.
    tiles: list[list[pystac.Item]]


def datatake_start(item: pystac.Item) -> tuple[str, datetime] | None:
    """Satellite and beginning of the datatake that an item names; None where it names none or an invalid one."""
    for key in ("s2:datatake_id", "eopf:datatake_id", DATATAKE_OF_COPY):
        match = DATATAKE.search(str(item.properties.get(key, "")))
        start = time_of(match[2]) if match else None
        if match and start is not None and -CLOCK_SLACK <= acquired(item) - start <= LONGEST_DATATAKE:
            return match[1], start
    return None


def datatake_time(item: pystac.Item) -> str:
    """When the datatake began; the time of acquisition where the item names no datatake."""
    named = datatake_start(item)
    return (named[1] if named else acquired(item)).strftime(TIME)


def strip_start(item: pystac.Item) -> datetime | None:
    """When the sensing of an item's datastrip began; None where it names none."""
    for key in ("s2:datastrip_id", "eopf:datastrip_id"):
        match = STRIP_START.search(str(item.properties.get(key, "")))
        if match and (start := time_of(match[1])) is not None:
            return start
    return None


def time_of(text: str) -> datetime | None:
    """A time in a name, `20220510T105031`, in UTC; None where it is a time that cannot be."""
    try:
        return datetime.strptime(text, TIME).replace(tzinfo=UTC)
    except ValueError:
        return None


def satellite(item: pystac.Item) -> str:
    """The satellite, `2A`; empty where neither the item nor its id states it."""
    texts = (item.properties.get("platform"), item.id, item.properties.get(PLATFORM_OF_COPY))
    match = next(filter(None, (SATELLITE.match(str(text or "")) for text in texts)), None)
    return match[1].upper() if match else ""


def relative_orbit(item: pystac.Item) -> int | None:
    """The relative orbit, 1..143, as the item states it, else by its name or its product's; None where none states
    it."""
    names = (str(item.properties.get(key) or "") for key in PRODUCT_NAMES)
    stated = [str(item.properties.get("sat:relative_orbit", "")).removesuffix(".0")]
    stated += [match[1] for name in (item.id, *names) if (match := ORBIT_IN_NAME.search(name))]
    numbers = (int(text) for text in stated if text.isdecimal())
    return next((number for number in numbers if 1 <= number <= ORBITS_A_CYCLE), None)


def acquisitions_listed(items: Iterable[pystac.Item]) -> list[Sighting]:
    """The acquisitions of some items, each dated as looks are; items without a tile have none."""
    found = []
    for item in items:
        tile, named = sentinel2_tile(item), datatake_start(item)
        if TILE.fullmatch(tile):
            moment = named[1] if named else acquired(item)
            found.append(Sighting(tile, satellite(item), relative_orbit(item), moment))
    return found


def age(item: pystac.Item) -> tuple[tuple[int, int, int], str, str]:
    """What orders the products of one acquisition from old to new: baseline, id, time of the last change."""
    return baseline_order(baseline(item)), item.id, updated(item)


def catalogs_before(item: pystac.Item) -> int:
    """How many catalogs of the recipe have items of its acquisition and tile that count before it."""
    return int(item.properties.get(CATALOGS_BEFORE) or 0)


def first_to_last(items: Iterable[pystac.Item]) -> list[pystac.Item]:
    """Items of one acquisition in the order in which they count: by catalog, those of each the newest first."""
    return sorted(sorted(items, key=age, reverse=True), key=catalogs_before)


def baseline_order(stated: str | None) -> tuple[int, int, int]:
    """What orders baselines (`05.11`, `N0511`) from old to new: none or unknown, others' own (`99.99`), then ESA's."""
    match = BASELINE.fullmatch(str(stated or ""))
    if match is None:
        return 0, 0, 0
    major, minor = int(match[1]), int(match[2])
    return (1 if (major, minor) >= PRIVATE_FROM else 2), major, minor


def newest_of_each_acquisition(items: Sequence[pystac.Item]) -> KeptItems:
    """One item for each (datatake, tile) and ground: the newest baseline, then the last id.

    An item is left out only if a newer one provably shows the same: one datastrip, and (nearly) all its ground.
    """
    kept: dict[tuple[str, str], list[pystac.Item]] = defaultdict(list)
    replaced: dict[str, str] = {}
    fillers: dict[str, str] = {}
    for item in sorted(items, key=age, reverse=True):
        same = kept[datatake_time(item), sentinel2_tile(item)]
        covering = [other for other in same if covers(other, item)]
        newer = next((other for other in covering if same_strip(other, item)), None)
        if newer is not None:
            replaced[item.id] = newer.id
            continue
        if covering:
            fillers[item.id] = covering[0].id
        same.append(item)
    together = sorted((item for same in kept.values() for item in same), key=lambda item: item.id)
    return KeptItems(together, replaced, fillers)


def covers(one: pystac.Item, other: pystac.Item) -> bool:
    """Whether an item shows (nearly) all the ground of another, by their footprints."""
    ground, wanted = (shapely.make_valid(footprint(item)) for item in (one, other))
    return bool(wanted.area > 0 and shapely.intersection(ground, wanted).area >= SAME_GROUND * wanted.area)


def same_strip(one: pystac.Item, other: pystac.Item) -> bool:
    """Whether two items say that they come from one datastrip."""
    first, second = strip_start(one), strip_start(other)
    return first is not None and second is not None and abs(first - second) <= SAME_STRIP


def looks_of(items: Sequence[pystac.Item], season: int | None = None) -> list[Look]:
    """The looks that some items show, in order of time.

    season: date those that began in the year before to its beginning; plans of earlier versions have such items.

    A look is dated by the beginning of its datatake, on whichever side of midnight (UTC) its scenes lie; where items
    name no datatake, by the first of those that one satellite acquired in a row. An item that names none beside others
    that do belongs to the datatake its satellite had begun last.
    """
    named: dict[tuple[str, datetime], list[pystac.Item]] = defaultdict(list)
    unnamed: list[pystac.Item] = []
    for item in items:
        datatake = datatake_start(item)
        if datatake is None:
            unnamed.append(item)
        else:
            named[datatake].append(item)
    others: dict[str, list[pystac.Item]] = defaultdict(list)
    begun = sorted(named)
    for item in unnamed:
        own, moment = satellite(item), acquired(item)
        before = [key for key in begun if key[0] == f"S{own}" and key[1] <= moment <= key[1] + LONGEST_DATATAKE]
        (named[before[-1]] if before else others[own]).append(item)
    new_year = datetime.min.replace(tzinfo=UTC) if season is None else datetime(season, 1, 1, tzinfo=UTC)
    looks = [Look(max(start, new_year), by_tile(group)) for (_, start), group in named.items()]
    for group in others.values():
        group.sort(key=acquired)
        rows = [[group[0]]]
        for item in group[1:]:
            if acquired(item) - acquired(rows[-1][-1]) < ONE_LOOK:
                rows[-1].append(item)
            else:
                rows.append([item])
        looks += [Look(acquired(row[0]), by_tile(row)) for row in rows]
    return sorted(looks, key=lambda look: (look.moment, look.tiles[0][0].id))


def items_of_span(items: Sequence[pystac.Item], start: datetime, end: datetime) -> list[pystac.Item]:
    """The items of the looks that begin in start <= time < end, so that no look is in two seasons.

    items: of the span and of `LONGEST_DATATAKE` before and after it.
    """
    looks = (look for look in looks_of(items) if start <= look.moment < end)
    return [item for look in looks for granules in look.tiles for item in granules]


def by_tile(items: Sequence[pystac.Item]) -> list[list[pystac.Item]]:
    """The items of a look by tile, in order of the first one's id; those of a tile `first_to_last`."""
    tiles: dict[str, list[pystac.Item]] = defaultdict(list)
    for item in first_to_last(items):
        tiles[sentinel2_tile(item)].append(item)
    return sorted(tiles.values(), key=lambda granules: granules[0].id)


def l1c_of_items(items: Sequence[pystac.Item], l1c: Sequence[pystac.Item]) -> dict[str, list[pystac.Item]]:
    """L2A item -> the L1C items of the same granule, `first_to_last`.

    They are of its tile and satellite, and of its datatake where both name one; else acquired within a minute of it.
    """
    listed: dict[tuple[str, str], list[pystac.Item]] = defaultdict(list)
    for other in l1c:
        listed[sentinel2_tile(other), satellite(other)].append(other)
    found = {}
    for item in items:
        same = listed.get((sentinel2_tile(item), satellite(item)), [])
        found[item.id] = first_to_last(other for other in same if is_same_granule(item, other))
    return found


def is_same_granule(one: pystac.Item, other: pystac.Item) -> bool:
    """Whether two items of one tile and satellite show one granule."""
    datatakes = datatake_start(one), datatake_start(other)
    if None not in datatakes:
        return datatakes[0] == datatakes[1]
    return abs(acquired(one) - acquired(other)) <= ONE_GRANULE
