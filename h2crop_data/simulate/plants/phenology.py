"""What grows on the ground on a day: shares of the endmember spectra of fields, woods, water, villages and roads.

growth.csv holds one line for each growth type: days of the year of the harvest (so the autumn before is negative),
cover, and colour of leaves. Its calendars are those of northern France and Belgium, rounded: the JECAM and MARS (JRC)
crop calendars and general agronomy for sowing and harvest, and for the stages between them the BBCH keys (Meier 2018)
as the phenological network of the DWD observes them; grassland, maize and potatoes were then compared with a Sentinel-2
series of Flanders.

The columns: `perennial` 1 for what is not sown each year; `sowing`; `emergence`, half of the `winter_cover` there;
`greenup`, half of the spring growth to `peak_cover`, and how gradual (days); `brightness`, share of light that the
canopy's shade leaves; `chlorophyll` and leaf `water` 0..1; a yellow `bloom` (day, spread in days, share); `senescence`,
half of the leaves yellow; `harvest`; `standing`, share of yellow leaves that stay; `residue` and `volunteers` after the
harvest; `bark`; dead leaves (`litter`) between green ones; `summer_pause`, share that dry weeks turn yellow; days of
`cuts` and the share they take (`cut_depth`); `flooded` soil; `glass`.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from h2crop_data.simulate.plants.spectra import ENDMEMBERS, INVISIBLE
from h2crop_data.simulate.plants.surroundings import (
    CANOPY,
    INDEX,
    SURROUNDINGS,
    YEAR,
    Floats,
    canopy_shares,
    step,
    thick,
)
from h2crop_data.simulate.randomness import generator

GROUND_KINDS = ("field", "wood", "water", "village", "road")
GROWTH_TABLE = Path(__file__).with_name("growth.csv")
#: Days before sowing that the seedbed is made and what stood there goes under.
SEEDBED = 6
#: A perennial that follows another crop is sown in the autumn before (day of the year of its first season).
PERENNIAL_SOWN = -85
#: Of a late pair: the first day on which the crops may differ (1 August), days until they differ fully, by how many.
LATE_FROM, LATE_RAMP, LATE_DAYS = 213, 60, 35
#: Crops harvested before this day leave time for mustard or phacelia, which frost kills; after it rye or ryegrass is
#: sown, which stands until ploughed in (arrêtés of the French and Flemish nitrate programmes).
EARLY_HARVEST = 240
#: What no growth type has: never sown, never harvested.
NEVER = 2000.0
#: How codes of one growth type may differ: days, chlorophyll, water, vigour, red edge, nitrogen, invisible features.
TRAIT_SPREAD = np.array([6.0, 0.12, 0.12, 0.10, 0.6, 1.0, 1.0, 1.0, 1.0])
TRAITS = len(TRAIT_SPREAD)
#: Endmembers of the traits from the fifth on, and which traits no Sentinel-2 band sees.
FEATURES = [INDEX[name] for name in ("red_edge_shift", "nitrogen", *INVISIBLE)]
UNSEEN = slice(TRAITS - len(INVISIBLE), TRAITS)


@dataclass(frozen=True)
class Ground:
    """n pieces of ground, as columns; crops and growth types are "" where nothing is grown."""

    #: One of GROUND_KINDS, (n,) str.
    kind: NDArray[Any]
    #: 0..1, (n,): share of conifers of a wood, turbidity of water, how densely a village is built.
    variant: NDArray[np.float32]
    #: 0 dark clay, 0.5 brown loam, 1 chalk, (n,).
    soil: NDArray[np.float32]
    #: Growth type (a line of growth.csv) and crop code of this season, (n,) str.
    growth: NDArray[Any]
    crop: NDArray[Any]
    #: What is sown after it; winter crops are seen from this autumn on.
    next_growth: NDArray[Any]
    next_crop: NDArray[Any]
    #: What was harvested the year before; its residue is seen until this season's crop is sown.
    last_growth: NDArray[Any]
    last_crop: NDArray[Any]
    #: Whether a green catch crop covers the winter after this crop, and the winter before it, where a spring-sown one
    #: follows, (n,) bool.
    catch_crop: NDArray[np.bool_]
    last_catch: NDArray[np.bool_]
    #: How much later than usual everything happens here, (n,) days.
    shift_days: NDArray[np.float32]
    #: How well plants stand here, about 1, (n,).
    vigour: NDArray[np.float32]


@dataclass(frozen=True)
class Pairs:
    """Crop codes that are the same but for one thing; both codes of a pair must be given the same growth type."""

    #: The second differs from the first only in the features that no Sentinel-2 band sees.
    narrow: tuple[tuple[str, str], ...] = ()
    #: The second is the first until 1 August and falls 35 days behind it after: of use for crops harvested after that.
    late: tuple[tuple[str, str], ...] = ()


@dataclass(frozen=True)
class GrowthTable:
    """growth.csv as arrays."""

    #: Growth type to its place.
    row: dict[str, int]
    columns: tuple[str, ...]
    #: (column, type).
    values: Floats
    #: Days of the year of cuts, (type, cuts), NEVER where there is none.
    cuts: Floats


@dataclass(frozen=True)
class Crop:
    """What is known of the crop of n fields in one season; arrays are (n,)."""

    #: Columns of growth.csv, and `named`, 0 for the fields without a crop.
    table: dict[str, Floats]
    #: Days of the year of cuts, (n, cuts), NEVER where there is none.
    cuts: Floats
    #: In the order of TRAIT_SPREAD, (n, 9).
    traits: Floats
    late: NDArray[np.bool_]

    def __getitem__(self, column: str) -> Floats:
        return self.table[column]

    @property
    def perennial(self) -> NDArray[np.bool_]:
        return self["perennial"] > 0

    def rows(self, at: NDArray[np.integer]) -> Crop:
        """The crop of some of the fields."""
        table = {name: column[at] for name, column in self.table.items()}
        return Crop(table, self.cuts[at], self.traits[at], self.late[at])

    @property
    def finish(self) -> Floats:
        """Day of harvest in the crop's own year, long ago for what is not harvested."""
        late = self.late & (self["harvest"] > LATE_FROM)
        harvested = (self["named"] > 0) & ~self.perennial
        return np.where(harvested, self["harvest"] + self.traits[:, 0] + LATE_DAYS * late, -NEVER)


@dataclass(frozen=True)
class Cover:
    """Shares of the ground (n,) that a season's plants cover, and the colour of their leaves."""

    green: Floats
    straw: Floats
    litter: Floats
    bark: Floats
    bloom: Floats
    flood: Floats
    glass: Floats
    chlorophyll: Floats
    water: Floats

    @property
    def total(self) -> Floats:
        """Share of the ground that is not bare soil."""
        return self.green + self.straw + self.litter + self.bark + self.flood + self.glass


def abundances(
    ground: Ground, day: float, wetness: NDArray[Any], vigour: float = 1.0, pairs: Pairs | None = None
) -> NDArray[np.float32]:
    """Shares of ENDMEMBERS of n pieces of ground on a day of the year 1..366, (n, endmember) float32.

    They need not sum to 1: what is missing is shade. wetness: of the soil, (n,) 0 dry..1 wet, which makes it darker.
    vigour: multiplies every piece's own. Raises ValueError for an unknown kind or growth type.
    """
    unknown = set(pd.unique(ground.kind)) - set(GROUND_KINDS)
    if unknown:
        named = ", ".join(sorted(map(str, unknown)))
        raise ValueError(f"unknown kind of ground {named}; known: {', '.join(GROUND_KINDS)}")
    total = np.zeros((len(ground.kind), len(ENDMEMBERS)))
    strength = ground.vigour.astype(np.float64) * vigour
    wet = np.asarray(wetness, np.float64)
    for kind in GROUND_KINDS:
        at = np.flatnonzero(ground.kind == kind)
        if not len(at):
            continue
        if kind == "field":
            total[at] = fields(some_ground(ground, at), day, wet[at], strength[at], pairs or Pairs())
        else:
            own_day = day - ground.shift_days[at].astype(np.float64)
            total[at] = SURROUNDINGS[kind](ground.variant[at].astype(np.float64), own_day, strength[at])
    return total.astype(np.float32)


def some_ground(ground: Ground, at: NDArray[np.integer]) -> Ground:
    """Some of the pieces of ground."""
    return Ground(**{name: np.asarray(column)[at] for name, column in vars(ground).items()})


def fields(ground: Ground, day: float, wetness: Floats, vigour: Floats, pairs: Pairs) -> Floats:
    """Shares of ENDMEMBERS of n fields, (n, endmember)."""
    last = crops(ground.last_growth, ground.last_crop, pairs)
    this = crops(ground.growth, ground.crop, pairs)
    following = crops(ground.next_growth, ground.next_crop, pairs)
    shift = ground.shift_days.astype(np.float64)
    begin, delay = beginning(last, this, ground.last_growth == ground.growth)
    begin_next, delay_next = beginning(this, following, ground.growth == ground.next_growth)
    # A meadow or a wood needs weeks to close, a tilled field changes in days.
    held = step(day - shift - begin, np.where(this.perennial, 12.0, 2.0))
    passed = step(day - shift - begin_next - YEAR, np.where(following.perennial, 12.0, 2.0))
    catch = catch_crop(last, this, day - shift + YEAR) * (1 - held) * ground.last_catch
    catch = catch + catch_crop(this, following, day - shift) * ground.catch_crop
    catch = thick(np.clip(catch, 0, 1) * (1 - passed), vigour)
    total, covered = np.zeros((len(shift), len(ENDMEMBERS))), catch.copy()
    total[:, CANOPY] = (0.95 * catch)[:, None] * canopy_shares(np.full_like(catch, 0.8), np.full_like(catch, 0.85))
    for crop, own_day, share in (
        (last, day - shift + YEAR - lag(day + YEAR) * last.late, (1 - held) * (1 - catch)),
        (this, day - shift - lag(day) * this.late - delay, held * (1 - passed) * (1 - catch)),
        (following, day - shift - YEAR - delay_next, passed),
    ):
        seen = np.flatnonzero(share > 1e-6)
        part = crop.rows(seen)
        cover = season_cover(part, own_day[seen] - part.traits[:, 0], wetness[seen], vigour[seen])
        total[seen] += share[seen, None] * plant_shares(cover, part)
        covered[seen] += share[seen] * cover.total
    # What is seen of the soil between leaves lies in their shade.
    bare = np.clip(1 - covered, 0, 1) * (1 - 0.5 * np.clip(covered, 0, 1) ** 2) * (1 - 0.25 * (vigour - 1))
    return total + bare[:, None] * soil_shares(ground.soil, wetness)


def beginning(before: Crop, crop: Crop, same: NDArray[np.bool_]) -> tuple[Floats, Floats]:
    """Day from which a crop has the ground, in its own year, and days that a late harvest before delays it, (n,)."""
    usual = np.where(crop.perennial, PERENNIAL_SOWN, crop["sowing"] - SEEDBED) + crop.traits[:, 0] * ~crop.perennial
    begin = np.maximum(usual, before.finish - YEAR + 4)
    begin = np.where(crop["named"] > 0, begin, NEVER)
    # A perennial that stays was there before, and will be there after.
    begin = np.where(crop.perennial & same, -NEVER, begin)
    return begin, np.where(crop.perennial | (begin == NEVER), 0, begin - usual)


def catch_crop(before: Crop, following: Crop, day: Floats) -> Floats:
    """Cover of a catch crop, (n,), on a day of the year that counts on from that of the harvest; 0 where none fits."""
    harvest = before.finish
    early = harvest < EARLY_HARVEST
    mustard = 0.88 * step(day - np.maximum(harvest + 40, 250), 7.0) * (1 - step(day - 360, 8.0))
    rye = 0.65 * step(day - harvest - 42, 6.0) + 0.29 * step(day - harvest - 75, 15.0)
    spring = (following["sowing"] > 0) & ~following.perennial & (following["named"] > 0) & (harvest > 0)
    return np.where(spring, np.where(early, mustard, rye) * step(day - harvest - 10, 1.0), 0)


def season_cover(crop: Crop, day: Floats, wetness: Floats, vigour: Floats) -> Cover:
    """What covers n fields on a day of the crop's own year, before its beginning and after its end as well."""
    day = np.where(crop.perennial, np.mod(day, YEAR), day)
    yellow = step(day - crop["senescence"], crop["senescence_days"])
    leaves = thick(leaf_cover(crop, day, yellow), vigour * (1 + crop.traits[:, 3]))
    cut = step(day - crop["harvest"], 1.2) * ~crop.perennial
    lost = mown(crop, day)
    pause = crop["summer_pause"] * np.exp(-0.5 * ((day - 214) / 25) ** 2) * (1 - 0.45 * wetness)
    alive = np.where(crop.perennial, (1 - lost) * (1 - pause), (1 - yellow) * (1 - cut))
    dead = np.where(crop.perennial, 0.45 * lost + 0.62 * pause * (1 - lost), crop["standing"] * yellow * (1 - cut))
    green, straw = leaves * alive, leaves * dead
    since = np.maximum(day - crop["harvest"], 0)
    regrown = crop["volunteers"] * step(since - 38, 7.0) * cut
    stubble = crop["residue"] * cut * (1 - regrown)
    straw = straw + 0.5 * stubble * np.exp(-since / 45)
    green = green + regrown
    bark = crop["bark"] * (1 - 0.7 * green)
    room = np.clip(1 - green - straw - bark - crop["glass"], 0, 1)
    litter = np.minimum(room, crop["litter"] * room + 0.75 * stubble * np.exp(-since / 160))
    wet = step(day - crop["sowing"], 3.0) * (1 - step(day - crop["senescence"] + 20, 4.0))
    return Cover(
        green=green,
        straw=straw,
        litter=litter,
        bark=bark,
        bloom=crop["bloom"] * np.exp(-0.5 * ((day - crop["bloom_day"]) / np.maximum(crop["bloom_days"], 1)) ** 2),
        flood=crop["flooded"] * wet * (room - litter),
        glass=crop["glass"],
        **leaf_colour(crop, day, vigour, since * cut),
    )


def leaf_cover(crop: Crop, day: Floats, yellow: Floats) -> Floats:
    """Share of the ground that leaves, green or yellow, cover before any harvest or cut, (n,)."""
    grown = step(day - crop["greenup"], crop["greenup_days"])
    # A perennial's season ends when its leaves yellow, with a tail into the next year.
    tail = 1 - step(day + YEAR - crop["senescence"], crop["senescence_days"])
    grown = np.where(crop.perennial, grown * (1 - yellow) + tail, grown)
    sown = crop["winter_cover"] * np.where(crop.perennial, 1, step(day - crop["emergence"], 10.0))
    return np.asarray(sown + (crop["peak_cover"] - crop["winter_cover"]) * grown)


def leaf_colour(crop: Crop, day: Floats, vigour: Floats, since: Floats) -> dict[str, Floats]:
    """Chlorophyll and water of leaves 0..1: both fall before leaves turn yellow; volunteers are fresh again."""
    days = day - crop["senescence"]
    ageing = step(days + 8, crop["senescence_days"] * 1.3) * (1 - step(since - 30, 4.0))
    autumn = (1 - crop["winter_cover"]) * np.exp(-0.5 * ((days - 5) / 14) ** 2)
    ageing = np.where(crop.perennial, autumn, ageing)
    chlorophyll = crop["chlorophyll"] + crop.traits[:, 1] + 0.35 * (vigour - 1) - 0.5 * ageing
    water = crop["water"] + crop.traits[:, 2] + 0.15 * (vigour - 1) - 0.55 * ageing
    return {"chlorophyll": np.clip(chlorophyll, 0, 1), "water": np.clip(water, 0, 1)}


def mown(crop: Crop, day: Floats) -> Floats:
    """Share of the leaves that cuts took and that has not grown again, (n,)."""
    since = day[:, None] - crop.cuts
    taken = crop["cut_depth"][:, None] * step(since, 1.0) * np.exp(-np.maximum(since, 0) / 14)
    return np.asarray(1 - (1 - taken).prod(axis=1))


def plant_shares(cover: Cover, crop: Crop) -> Floats:
    """Shares of ENDMEMBERS of what covers n fields, without the soil between, (n, endmember)."""
    shares = np.zeros((len(cover.green), len(ENDMEMBERS)))
    leaves = cover.green * (1 - cover.bloom)
    shares[:, CANOPY] = (leaves * crop["brightness"])[:, None] * canopy_shares(cover.chlorophyll, cover.water)
    for name in ("straw", "litter", "bark", "glass"):
        shares[:, INDEX[name]] = getattr(cover, name)
    shares[:, INDEX["bloom"]] = cover.green * cover.bloom
    shares[:, INDEX["water_turbid"]] = 0.8 * cover.flood
    shares[:, FEATURES] = (leaves + 0.5 * cover.straw)[:, None] * crop.traits[:, 4:]
    shares[:, INDEX["nitrogen"]] += 0.5 * leaves * cover.chlorophyll
    return shares


def soil_shares(soil: NDArray[Any], wetness: Floats) -> Floats:
    """Shares of ENDMEMBERS of bare soil 0 dark..1 bright, (n, endmember); wet soil loses up to 40 % of its light.

    That soils darken with water, and by how much about: Lobell & Asner (2002), Soil Sci. Soc. Am. J. 66, 722-727.
    """
    shares = np.zeros((len(wetness), len(ENDMEMBERS)))
    place = np.clip(np.asarray(soil, np.float64), 0, 1)
    light = 1 - 0.40 * np.clip(wetness, 0, 1)
    for i, name in enumerate(("soil_dark", "soil_brown", "soil_bright")):
        shares[:, INDEX[name]] = light * np.clip(1 - np.abs(2 * place - i), 0, None)
    return shares


def crops(growth: NDArray[Any], crop: NDArray[Any], pairs: Pairs) -> Crop:
    """The crop of n fields in one season. Raises ValueError for an unknown growth type."""
    table = growth_table()
    types, names = pd.factorize(np.asarray(growth, object))
    for name in names:
        if name not in table.row:
            raise ValueError(f"unknown growth type {name!r}; known: {', '.join(growth_types())}")
    row = np.array([table.row[name] for name in names], int)[types]
    codes, found = pd.factorize(np.asarray(crop, object))
    traits = np.stack([pair_traits(code, pairs) for code in found]) if len(found) else np.zeros((0, TRAITS))
    late = np.array([is_late(code, pairs) for code in found], bool)
    columns = dict(zip(table.columns, table.values[:, row], strict=True))
    return Crop(columns, table.cuts[row], traits[codes] * columns["named"][:, None], late[codes])


def pair_traits(code: str, pairs: Pairs) -> Floats:
    """The traits of a crop code, (9,): the second of a pair has its first's, less what is to tell them apart."""
    for first, late in pairs.late:
        if code == late:
            return pair_traits(first, pairs)
    for first, narrow in pairs.narrow:
        if code == narrow:
            traits = pair_traits(first, pairs).copy()
            # Half a range away whatever the first's is, within the same range.
            traits[UNSEEN] = (traits[UNSEEN] + 2) % 2 - 1
            return traits
    return traits_of(code)


def is_late(code: str, pairs: Pairs) -> bool:
    """Whether a crop code is the second of a late pair, or of a narrow one whose first is late."""
    firsts = [first for first, narrow in pairs.narrow if narrow == code]
    return any(late == code for _, late in pairs.late) or any(is_late(first, pairs) for first in firsts)


@lru_cache(maxsize=4096)
def traits_of(code: str) -> Floats:
    """What distinguishes a crop code within its growth type, (9,), the same in all regions: each within +-
    TRAIT_SPREAD."""
    traits = TRAIT_SPREAD * generator(0, "crop", code).uniform(-1, 1, TRAITS)
    traits.setflags(write=False)
    return traits


@lru_cache(maxsize=1)
def growth_table() -> GrowthTable:
    """growth.csv, and first a line for nothing ("")."""
    table = pd.read_csv(GROWTH_TABLE, index_col="growth", dtype={"cuts": str}).fillna({"cuts": ""})
    days = [[float(day) for day in text.split(";") if day] for text in table.pop("cuts")]
    cuts = np.full((len(days) + 1, max(map(len, days))), NEVER)
    for i, line in enumerate(days):
        cuts[i + 1, : len(line)] = line
    nothing = dict.fromkeys(table.columns, 0.0)
    nothing |= dict.fromkeys(("sowing", "emergence", "greenup", "senescence", "harvest"), NEVER)
    whole = pd.concat([pd.DataFrame(nothing, index=[""]), table.astype(float)])
    whole["named"] = (whole.index != "").astype(float)
    row = {str(name): i for i, name in enumerate(whole.index)}
    return GrowthTable(row, tuple(whole.columns), whole.to_numpy(np.float64).T.copy(), cuts)


def growth_types() -> tuple[str, ...]:
    """The growth types that a field may have, besides "" for none."""
    return tuple(name for name in growth_table().row if name)


def lag(day: float) -> float:
    """Days that the second of a late pair is behind the first on a day of the year: 0 until 1 August."""
    t = min(max((day - LATE_FROM) / LATE_RAMP, 0.0), 1.0)
    return LATE_DAYS * t * t * (3 - 2 * t)
