"""Crops of the synthetic region: every published class, French sequences, a long tail, the same whatever is asked."""

from __future__ import annotations

import time
from itertools import pairwise

import numpy as np
import pandas as pd
import pytest
import shapely
from numpy.typing import NDArray

from h2crop_data.constants import TIERS, UNKNOWN
from h2crop_data.crops.tables import load_crop_table
from h2crop_data.crops.taxonomy import Taxonomy
from h2crop_data.simulate.land.crops import ROTATION_GROUPS, load_crops
from h2crop_data.simulate.land.regional import CROP_REGIONS
from h2crop_data.simulate.land.rotation import (
    EARLY,
    SPRING_SOWN,
    TEMPLATES,
    USE_SHARES,
    catch_crops,
    crop_of,
    growth_of_code,
)

SEED = 3
YEARS = range(2015, 2027)


def made_fields(count: int, seed: int = 0, spread: float = 40_000) -> pd.DataFrame:
    chance = np.random.default_rng(seed)
    return pd.DataFrame(
        {
            "key": chance.integers(0, 2**64, count, dtype=np.uint64),
            "crop_region": chance.integers(0, len(CROP_REGIONS), count).astype(np.int8),
            "area_ha": np.exp(chance.normal(0.7, 1, count)),
            "x": 500_000 + spread * chance.random(count),
            "y": 5_400_000 + spread * chance.random(count),
        }
    )


@pytest.fixture(scope="module")
def fields() -> pd.DataFrame:
    return made_fields(4000)


@pytest.fixture(scope="module")
def sequences(fields: pd.DataFrame) -> NDArray[np.str_]:
    """Crop codes (year, field)."""
    return np.stack([crop_of(SEED, fields, year) for year in YEARS])


def mapped(codes: NDArray[np.str_], column: str) -> NDArray[np.str_]:
    table = load_crops().set_index("code")[column].to_dict()
    return np.vectorize(table.__getitem__)(codes)


def tiers_of_codes() -> dict[str, tuple[int, ...]]:
    table, taxonomy = load_crop_table(None, "fr").meanings, Taxonomy.load()
    return {code: taxonomy.ids(table[code]) for code in load_crops()["code"]}


def test_every_code_is_french_and_listed_once() -> None:
    crops = load_crops()
    assert crops["code"].is_unique
    assert set(crops["code"]) <= set(load_crop_table(None, "fr").meanings)
    assert set(crops["rotation"]) == set(ROTATION_GROUPS)
    assert (crops["share"] >= 1).all()


def test_every_published_class_of_every_tier_has_a_code() -> None:
    reached = np.array(list(tiers_of_codes().values()))
    for tier in range(1, TIERS + 1):
        assert set(Taxonomy.load().names(tier)) <= set(reached[:, tier - 1].tolist())


def test_some_codes_end_at_each_of_the_upper_tiers() -> None:
    depths = {sum(number != UNKNOWN for number in ids) for ids in tiers_of_codes().values()}
    assert depths == {0, 1, 2, 3, 4}


def test_shares_have_a_long_tail() -> None:
    share = load_crops()["share"].sort_values(ascending=False)
    assert 0.9e6 < share.sum() < 1.1e6
    assert share.iloc[0] > 0.3e6
    assert (share < 1000).sum() > len(share) / 2


def test_all_codes_grow_somewhere_and_a_few_cover_most(sequences: NDArray[np.str_]) -> None:
    codes, counts = np.unique(sequences, return_counts=True)
    assert set(codes) <= set(load_crops()["code"])
    assert len(codes) > 0.95 * len(load_crops())
    counts = np.sort(counts)[::-1]
    assert counts[:20].sum() > 0.5 * counts.sum()
    assert np.median(counts) < 0.005 * counts.sum()


def test_the_tail_decides_how_rare_rare_crops_are(fields: pd.DataFrame) -> None:
    found = [len(np.unique(crop_of(SEED, fields, 2022, tail))) for tail in (0.0, 0.5, 1.0)]
    assert found[0] > found[1] > found[2]


def test_what_needs_a_break_is_not_grown_twice_in_a_row(sequences: NDArray[np.str_]) -> None:
    once = ("break", "root", "legume")
    groups = mapped(sequences, "rotation")
    for before, after in pairwise(groups):
        for name in once:
            assert not ((before == name) & (after == name)).any(), name
    growth = mapped(sequences, "growth")
    rape = growth == "winter_rapeseed"
    assert rape.any()
    assert not (rape[1:] & rape[:-1]).any()


def test_winter_rapeseed_follows_a_cereal(sequences: NDArray[np.str_]) -> None:
    groups, colza = mapped(sequences, "rotation"), sequences == "CZH"
    assert set(groups[:-1][colza[1:]]) == {"cereal"}


def test_permanent_crops_and_meadows_stay(sequences: NDArray[np.str_]) -> None:
    groups = mapped(sequences, "rotation")
    permanent = (groups == "permanent").any(axis=0)
    assert 0.2 < permanent.mean() < 0.8
    assert (sequences[:, permanent] == sequences[0, permanent]).all()


def test_temporary_grass_stays_two_to_four_years(sequences: NDArray[np.str_]) -> None:
    groups = mapped(sequences, "rotation")
    lengths = []
    for field in np.flatnonzero((groups == "grass").any(axis=0)):
        grass = groups[:, field] == "grass"
        starts = np.flatnonzero(grass[1:] & ~grass[:-1]) + 1
        for start in starts:
            end = start + np.argmin(np.append(grass[start:], False))
            if end < len(YEARS):
                lengths.append(end - start)
                assert len(set(sequences[start:end, field])) == 1
    assert set(lengths) == {2, 3, 4}


def test_arable_fields_change_their_crop(sequences: NDArray[np.str_]) -> None:
    cereals = (mapped(sequences, "rotation") == "cereal").any(axis=0)
    kinds = np.array([len(set(column)) for column in sequences[:, cereals].T])
    assert (kinds >= 3).mean() > 0.8


def test_regions_grow_different_crops(fields: pd.DataFrame, sequences: NDArray[np.str_]) -> None:
    growth, region = mapped(sequences[7], "growth"), fields["crop_region"].to_numpy()
    share = {
        name: [np.mean(growth[region == number] == name) for number in range(len(CROP_REGIONS))]
        for name in ("winter_rapeseed", "grassland", "vineyard", "vegetable")
    }
    assert share["winter_rapeseed"][0] > 2 * share["winter_rapeseed"][1]
    assert share["grassland"][1] > 2 * share["grassland"][0]
    assert share["vineyard"][2] > 3 * share["vineyard"][0]
    assert share["vegetable"][3] > 3 * share["vegetable"][0]


def test_neighbours_grow_alike() -> None:
    fields = made_fields(3000, spread=12_000).assign(crop_region=0)
    crops = crop_of(SEED, fields, 2022)
    points = shapely.points(fields["x"], fields["y"])
    first, second = shapely.STRtree(points).query(points, predicate="dwithin", distance=400)
    pairs = first < second
    near = np.mean(crops[first[pairs]] == crops[second[pairs]])
    other = np.random.default_rng(0).permutation(len(crops))
    assert near > 1.4 * np.mean(crops == crops[other])


def test_the_crop_of_a_field_depends_on_nothing_else(fields: pd.DataFrame, sequences: NDArray[np.str_]) -> None:
    some = fields.iloc[[7, 3, 1999]]
    np.testing.assert_array_equal(crop_of(SEED, some, YEARS[4]), sequences[4, [7, 3, 1999]])
    assert (crop_of(SEED + 1, fields, YEARS[4]) != sequences[4]).mean() > 0.3
    assert len(crop_of(SEED, fields.iloc[:0], YEARS[4])) == 0


def test_catch_crops_stand_between_an_early_harvest_and_a_spring_crop(fields: pd.DataFrame) -> None:
    first, second = catch_crops(SEED, fields, 2022)
    sown = first != ""
    np.testing.assert_array_equal(sown, second != "")
    assert 0.01 < sown.mean() < 0.3
    growth = growth_of_code()
    this, following = (np.array([growth[code] for code in crop_of(SEED, fields, year)]) for year in (2022, 2023))
    assert set(this[sown]) <= set(EARLY)
    assert set(following[sown]) <= set(SPRING_SOWN)
    room = np.isin(this, EARLY) & np.isin(following, SPRING_SOWN)
    assert 0.3 < sown[room].mean() < 0.6
    assert (first[sown] != second[sown]).all()


def test_shares_of_uses_and_rotations_add_up() -> None:
    np.testing.assert_allclose(np.sum(USE_SHARES, axis=1), 1)
    np.testing.assert_allclose(np.sum(list(TEMPLATES.values()), axis=0), 1, atol=0.03)


def test_five_thousand_fields_over_three_seasons_take_under_two_seconds() -> None:
    fields = made_fields(5000, seed=9)
    start = time.process_time()
    for year in (2021, 2022, 2023):
        crop_of(SEED, fields, year)
    assert time.process_time() - start < 2
