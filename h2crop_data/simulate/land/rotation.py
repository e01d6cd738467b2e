"""Which crop grows on a field in a season: a pure function of the seed, the field and the year.

A field has a permanent use (rotation, meadow, plantation, garden, resting), drawn from what is usual in its kind of
region; a field in rotation has a template of up to six years and a phase in it. The template says what group of crops
stands in a year; which crop of the group is drawn each time, from shares that differ from place to place. Grass sown in
a rotation stays for the years its template gives it. Groups stand next to each other in a template only if every pair
of their crops may follow one another: nothing that needs a break is grown twice in a row.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from h2crop_data.simulate.chance import Chance
from h2crop_data.simulate.land.crops import load_crops
from h2crop_data.simulate.randomness import key_of

#: Uses of fields, and their shares in each crop region (CROP_REGIONS), before the size of the field is considered.
USES = ("rotation", "meadow", "plantation", "garden", "resting")
USE_SHARES = (
    (0.80, 0.12, 0.03, 0.02, 0.03),
    (0.42, 0.50, 0.02, 0.02, 0.04),
    (0.24, 0.30, 0.38, 0.02, 0.06),
    (0.50, 0.16, 0.05, 0.25, 0.04),
)
#: Factor on the shares of USES for a field much smaller (below 0.3 ha) or larger (above 10 ha) than usual.
SMALL_FACTOR = (0.35, 1.2, 2.0, 3.0, 3.0)
LARGE_FACTOR = (1.3, 1.0, 0.4, 0.4, 0.4)
#: Rotations, one letter a year: break, cereal, root, legume, maize, grass, vegetable, fallow; shares in each region.
TEMPLATES: dict[str, tuple[float, float, float, float]] = {
    "bcc": (0.30, 0.05, 0.20, 0.10),
    "bc": (0.06, 0.02, 0.20, 0.05),
    "rcbc": (0.22, 0.02, 0.03, 0.22),
    "lcbcc": (0.20, 0.05, 0.15, 0.10),
    "mc": (0.05, 0.20, 0.08, 0.08),
    "m": (0.05, 0.12, 0.06, 0.04),
    "mmcggg": (0.02, 0.24, 0.05, 0.04),
    "ggggcc": (0.02, 0.20, 0.10, 0.04),
    "ggcbc": (0.04, 0.07, 0.10, 0.04),
    "vrc": (0.01, 0.01, 0.00, 0.20),
    "rcc": (0.01, 0.01, 0.00, 0.07),
    "fcbc": (0.02, 0.01, 0.03, 0.02),
}
#: What stands in a garden over the years.
GARDEN_TEMPLATE = "vvvc"
POOL_OF_LETTER = {
    "b": "break",
    "c": "cereal",
    "r": "root",
    "l": "legume",
    "m": "maize",
    "g": "grass",
    "v": "vegetable",
    "f": "fallow",
}
CROP_POOLS = (*POOL_OF_LETTER.values(), "meadow", "plantation")
MEADOWS = ("grassland", "rough_grazing")
LONGEST = 6
#: Local taste: districts grow alike, and so do the fields of a farm. Scale in metres and spread of the logarithm of
#: shares; taste changes in steps of TASTE_STEP metres.
TASTES = ((7000.0, 0.8), (1500.0, 0.7))
TASTE_STEP = 640
FAR_APART = 2**32
#: Meadows lie together, in valleys of this scale in metres; spread of the logarithm of their share.
VALLEY_SCALE, VALLEY_SPREAD = 2200.0, 1.0
#: Growth types that leave the field early, and those sown in spring.
EARLY = ("winter_wheat", "winter_barley", "winter_rye", "winter_rapeseed", "spring_cereal", "pulse", "flax")
SPRING_SOWN = (
    *("spring_cereal", "maize", "sorghum", "rice", "sunflower", "soybean", "sugar_beet", "potato", "flax", "hemp"),
    *("tobacco", "vegetable", "pulse"),
)
#: Share of such fields with a declared catch crop, and the codes of mixtures seen in French files: radish, field bean,
#: mustard, phacelia.
CATCH_SHARE = 0.45
CATCH_MIXTURES = (("DFV", "DRD"), ("DPH", "DMD"), ("DFV", "DPH"), ("DRD", "DMD"))


def crop_of(seed: int, fields: pd.DataFrame, season: int, tail: float = 0.5) -> NDArray[np.str_]:
    """The crop code (n,) of each field in a season (year of harvest).

    fields: `key` (uint64), `crop_region`, `area_ha`, `x`, `y`, as `land_of_square` gives them.
    tail: exponent on the shares of crops within their group: 1 as in France, 0 all equally frequent.
    """
    chance, pools = Chance(seed), crop_pools()
    keys = fields["key"].to_numpy(np.uint64)
    pool, turn = pool_of_season(chance, fields, season)
    place, places = places_of_taste(fields)
    draw = chance.uniform("crop", keys, turn)
    codes = np.full(len(keys), "", dtype="<U3")
    for number, name in enumerate(CROP_POOLS):
        chosen = np.flatnonzero(pool == number)
        if len(chosen):
            limits = taste_limits(seed, name, tail, places.tobytes())[place[chosen]]
            which = (limits < draw[chosen, None]).sum(axis=1)
            codes[chosen] = pools[name]["code"].to_numpy(str)[which]
    return codes


def catch_crops(
    seed: int, fields: pd.DataFrame, season: int, tail: float = 0.5
) -> tuple[NDArray[np.str_], NDArray[np.str_]]:
    """Codes (n,) of the two catch crops sown together after the harvest of a season, "" where there are none.

    They stand between a crop that is harvested early and one sown the spring after. fields, tail: as `crop_of`.
    """
    growth = growth_of_code()
    keys = fields["key"].to_numpy(np.uint64)
    this, following = (
        np.array([growth[code] for code in crop_of(seed, fields, year, tail).tolist()], dtype=str)
        for year in (season, season + 1)
    )
    chance = Chance(seed)
    sown = (
        np.isin(this, EARLY) & np.isin(following, SPRING_SOWN) & (chance.uniform("catch", keys, season) < CATCH_SHARE)
    )
    which = (chance.uniform("mixture", keys, season) * len(CATCH_MIXTURES)).astype(int)
    first, second = np.array(CATCH_MIXTURES)[which].T
    return np.where(sown, first, ""), np.where(sown, second, "")


@lru_cache(maxsize=1)
def crop_pools() -> dict[str, pd.DataFrame]:
    """The crops that can stand where a letter of a template or a use of land calls for one."""
    crops = load_crops()
    meadow = crops["growth"].isin(MEADOWS)
    pools = {name: crops[crops["rotation"] == name] for name in POOL_OF_LETTER.values()}
    permanent = crops["rotation"] == "permanent"
    return pools | {"meadow": crops[permanent & meadow], "plantation": crops[permanent & ~meadow]}


@lru_cache(maxsize=1)
def growth_of_code() -> dict[str, str]:
    """Growth type of each crop code."""
    crops = load_crops()
    return dict(zip(crops["code"], crops["growth"], strict=True))


@dataclass(frozen=True)
class TemplateTable:
    """Templates as arrays; the last one is the garden's."""

    #: (template, LONGEST) number of the pool of each year, and the first year of the run of grass it belongs to.
    pool: NDArray[np.int64]
    first: NDArray[np.int64]
    #: (template,) years.
    length: NDArray[np.int64]


@lru_cache(maxsize=1)
def template_table() -> TemplateTable:
    """TEMPLATES and GARDEN_TEMPLATE."""
    texts = [*TEMPLATES, GARDEN_TEMPLATE]
    pool = np.zeros((len(texts), LONGEST), np.int64)
    first = np.zeros_like(pool)
    for i, text in enumerate(texts):
        for year, letter in enumerate(text):
            pool[i, year] = CROP_POOLS.index(POOL_OF_LETTER[letter])
            stays = letter == "g" and year > 0 and text[year - 1] == "g"
            first[i, year] = first[i, year - 1] if stays else year
    return TemplateTable(pool, first, np.array([len(text) for text in texts]))


def pool_of_season(chance: Chance, fields: pd.DataFrame, season: int) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Number of the pool (n,) a field's crop is drawn from, and which draw it is: the same as long as a crop stays."""
    keys = fields["key"].to_numpy(np.uint64)
    table, use = template_table(), use_of_fields(chance, fields)
    region = fields["crop_region"].to_numpy(int)
    limits = np.cumsum(np.array(list(TEMPLATES.values())), axis=0).T
    template = chosen_by(limits[region], chance.uniform("template", keys))
    template = np.where(use == USES.index("garden"), len(TEMPLATES), template)
    length = table.length[template]
    years = season + np.floor(chance.uniform("phase", keys) * length).astype(np.int64)
    cycle, slot = years // length, years % length
    pool, turn = table.pool[template, slot], cycle * LONGEST + table.first[template, slot] + 1
    for name, stays in (("meadow", "meadow"), ("plantation", "plantation"), ("resting", "fallow")):
        same = use == USES.index(name)
        pool, turn = np.where(same, CROP_POOLS.index(stays), pool), np.where(same, 0, turn)
    return pool, turn


def use_of_fields(chance: Chance, fields: pd.DataFrame) -> NDArray[np.int64]:
    """Index into USES (n,): the permanent use of each field."""
    area = fields["area_ha"].to_numpy(float)[:, None]
    shares = np.array(USE_SHARES)[fields["crop_region"].to_numpy(int)]
    shares = np.where(area < 0.3, shares * SMALL_FACTOR, np.where(area > 10, shares * LARGE_FACTOR, shares))
    valley = chance.noise("valley", fields["x"], fields["y"], VALLEY_SCALE)
    shares[:, USES.index("meadow")] *= np.exp(VALLEY_SPREAD * valley)
    return chosen_by(np.cumsum(shares, axis=1), chance.uniform("use", fields["key"].to_numpy(np.uint64)))


def chosen_by(limits: NDArray[np.float64], draw: NDArray[np.float64]) -> NDArray[np.int64]:
    """Which share (n,) a draw in [0, 1) falls into; limits: (n, choices) running sums of shares of any total."""
    chosen: NDArray[np.int64] = (limits <= draw[:, None] * limits[:, -1:]).sum(axis=1)
    return chosen


def places_of_taste(fields: pd.DataFrame) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Index (n,) of each field's place, and the places' columns and rows (places, 2), TASTE_STEP metres apart."""
    position = np.floor(fields[["x", "y"]].to_numpy(float) / TASTE_STEP).astype(np.int64)
    places, place = np.unique(position, axis=0, return_inverse=True)
    return place.ravel(), places


@lru_cache(maxsize=4 * len(CROP_POOLS))
def taste_limits(seed: int, name: str, tail: float, places: bytes) -> NDArray[np.float64]:
    """Running sums (places, crops) of the shares of a pool's crops at places, up to 1; the same in every season.

    places: bytes of columns and rows (places, 2) int64.
    """
    chance, pool = Chance(seed), crop_pools()[name]
    x, y = np.frombuffer(places, np.int64).reshape(-1, 2).T * float(TASTE_STEP)
    taste = np.zeros((len(x), len(pool)))
    # One noise for all crops: each has its own stretch of it, far from the others'.
    stretch = np.array([key_of(seed, "taste", code) % FAR_APART for code in pool["code"]])
    for scale, spread in TASTES:
        east, north = np.broadcast_arrays(x[:, None] + scale * stretch, y[:, None])
        taste += spread * chance.noise(f"taste {scale}", east, north, scale).reshape(taste.shape)
    weights = pool["share"].to_numpy(float) ** tail * np.exp(taste)
    limits: NDArray[np.float64] = np.cumsum(weights, axis=1) / weights.sum(axis=1, keepdims=True)
    limits[:, -1] = 1.0
    return limits
