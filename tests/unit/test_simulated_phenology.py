"""What grows on simulated ground through the year."""

from __future__ import annotations

from dataclasses import fields, replace
from functools import lru_cache

import numpy as np
import pytest

from h2crop_data.simulate.enmap.bands import enmap_bands, enmap_response
from h2crop_data.simulate.plants.phenology import Ground, Pairs, abundances, growth_types
from h2crop_data.simulate.plants.spectra import ENDMEMBERS, endmember_spectra
from h2crop_data.simulate.sentinel2.bands import SENTINEL2_MSI, sentinel2_response

GROWTH = growth_types()
PERENNIAL = {
    *("aromatic", "lucerne", "grassland", "rough_grazing", "fallow", "vineyard", "orchard", "berries"),
    *("nursery_wood", "greenhouse"),
}
#: Days of the year of the first of each month.
MARCH, MAY, JUNE, JULY, AUGUST = 60, 121, 152, 182, 213
RED, NIR = SENTINEL2_MSI.index("B04"), SENTINEL2_MSI.index("B08")


def ground(n: int = 1, **columns: object) -> Ground:
    """n fields of wheat after wheat on loam, but for the columns given."""
    usual: dict[str, object] = {
        "kind": "field",
        "variant": 0.5,
        "soil": 0.5,
        "growth": "winter_wheat",
        "crop": "wheat",
        "next_growth": "winter_wheat",
        "next_crop": "wheat",
        "last_growth": "winter_wheat",
        "last_crop": "wheat",
        "catch_crop": False,
        "last_catch": False,
        "shift_days": 0.0,
        "vigour": 1.0,
    }
    assert set(usual) == {field.name for field in fields(Ground)}
    rows = {name: np.broadcast_to(np.asarray(value), (n,)) for name, value in {**usual, **columns}.items()}
    return Ground(**{name: row.astype("f4") if row.dtype == float else row for name, row in rows.items()})


def one(growth: str, **columns: object) -> Ground:
    """A field of a growth type, after itself where it stays and between wheat otherwise."""
    around = growth if growth in PERENNIAL else "winter_wheat"
    return ground(**{"growth": growth, "crop": "", "next_growth": around, "last_growth": around, **columns})


def mixed(n: int, seed: int = 1) -> Ground:
    """Fields of all growth types in all orders, with several crop codes each."""
    chance = np.random.default_rng(seed)
    growth, before, after = (np.array(GROWTH)[chance.integers(0, len(GROWTH), n)] for _ in range(3))
    return ground(
        n,
        growth=growth,
        crop=np.array([f"{name}{chance.integers(3)}" for name in growth]),
        last_growth=before,
        next_growth=after,
        soil=chance.random(n),
        catch_crop=chance.random(n) < 0.5,
        last_catch=chance.random(n) < 0.5,
        shift_days=chance.normal(0, 6, n),
        vigour=np.clip(chance.normal(1, 0.15, n), 0.6, 1.4),
    )


def sentinel2(place: Ground, day: float, wetness: float = 0.2, pairs: Pairs | None = None) -> np.ndarray:
    return abundances(place, day, np.full(len(place.kind), wetness), pairs=pairs) @ seen_by("sentinel2")


def enmap(place: Ground, day: float, wetness: float = 0.2, pairs: Pairs | None = None) -> np.ndarray:
    return abundances(place, day, np.full(len(place.kind), wetness), pairs=pairs) @ seen_by("enmap")


@lru_cache
def seen_by(sensor: str) -> np.ndarray:
    """Reflectance of the endmembers in a sensor's bands, (endmember, band)."""
    response = sentinel2_response() if sensor == "sentinel2" else enmap_response(*enmap_bands())
    return endmember_spectra() @ response


def ndvi(place: Ground, day: float, wetness: float = 0.2) -> np.ndarray:
    bands = sentinel2(place, day, wetness)
    return (bands[:, NIR] - bands[:, RED]) / (bands[:, NIR] + bands[:, RED])


@lru_cache
def years() -> np.ndarray:
    """NDVI on days 1..365 of a field of each growth type, (type, 365)."""
    rows = [one(growth) for growth in GROWTH]
    place = Ground(
        **{field.name: np.concatenate([getattr(row, field.name) for row in rows]) for field in fields(Ground)}
    )
    return np.stack([ndvi(place, day) for day in range(1, 366)], axis=1)


def year(growth: str) -> np.ndarray:
    return years()[GROWTH.index(growth)]


def ripe(growth: str) -> int:
    """The first day after the peak on which NDVI is below 0.5."""
    curve = year(growth)
    peak = int(curve.argmax())
    return peak + 1 + int((curve[peak:] < 0.5).argmax())


def test_the_table_holds_the_growth_types_that_other_parts_name() -> None:
    assert set(GROWTH) == {
        *("winter_wheat", "winter_barley", "winter_rye", "winter_rapeseed", "spring_cereal", "maize", "sorghum"),
        *("rice", "sunflower", "soybean", "pulse", "sugar_beet", "potato", "vegetable", "flax", "hemp", "tobacco"),
        *("aromatic", "lucerne", "grassland", "rough_grazing", "fallow", "vineyard", "orchard", "berries"),
        *("nursery_wood", "greenhouse"),
    }


@pytest.mark.parametrize("vigour", [0.8, 1.0, 1.2])
def test_every_field_reflects_a_share_of_the_light_on_every_day(vigour: float) -> None:
    place = mixed(600)
    wetness = np.random.default_rng(2).random(600)
    for day in range(1, 367, 7):
        shares = abundances(place, day, wetness, vigour)
        assert shares.dtype == np.float32
        assert shares.shape == (600, len(ENDMEMBERS))
        reflectance = shares @ seen_by("enmap")
        assert reflectance.min() > 0, (day, place.growth[reflectance.min(axis=1).argmin()])
        assert reflectance.max() < 0.7, (day, place.growth[reflectance.max(axis=1).argmax()])
        assert reflectance.mean(axis=1).min() > 0.005


@pytest.mark.parametrize("growth", GROWTH)
def test_a_crop_changes_from_day_to_day_without_jumps_but_for_harvest_and_mowing(growth: str) -> None:
    assert np.abs(np.diff(year(growth))).max() < 0.13


@pytest.mark.parametrize("catch_crop", [False, True])
def test_the_new_year_changes_nothing(catch_crop: bool) -> None:
    place = replace(mixed(400, seed=3), catch_crop=np.full(400, catch_crop))
    shifted = replace(
        place,
        last_catch=place.catch_crop,
        catch_crop=place.last_catch,
        last_growth=place.growth,
        last_crop=place.crop,
        growth=place.next_growth,
        crop=place.next_crop,
        next_growth=place.last_growth,
        next_crop=place.last_crop,
    )
    pairs = Pairs(late=(("maize0", "maize1"), ("sugar_beet0", "sugar_beet1")))
    before, after = sentinel2(place, 366, pairs=pairs), sentinel2(shifted, 1, pairs=pairs)
    np.testing.assert_allclose(before, after, rtol=0, atol=0.004)
    assert np.ptp(before, axis=0).min() > 0.05


def test_maize_leaves_the_soil_bare_in_may_and_is_greenest_in_july_and_august() -> None:
    # BBCH 10 about 10 May, flowering (63) in the second half of July in northern France and Germany (Meier 2018; DWD).
    curve = year("maize")
    assert curve[MAY - 1 : JUNE - 1].max() < 0.25
    assert JULY <= curve.argmax() + 1 <= 243
    assert curve.max() > 0.78
    assert curve[289] < 0.4


def test_winter_wheat_is_greenest_in_may_and_ripe_in_july() -> None:
    # Heading (BBCH 51) falls in the second half of May, yellow ripeness (87) in the middle of July and harvest in its
    # last third in northern France (MARS crop calendar; DWD phenology).
    curve = year("winter_wheat")
    assert MAY <= curve.argmax() + 1 < JUNE
    assert curve[MAY - 1 : JUNE - 1].min() > 0.75
    assert curve[JULY + 13] < 0.4
    assert 0.3 < curve[:45].mean() < 0.65


def test_winter_barley_ripens_one_to_three_weeks_before_wheat_and_rapeseed_between() -> None:
    # The order of harvests in the network of the DWD (described by Kaspar, Zimmermann & Polte-Rudolf 2014, Adv. Sci.
    # Res. 11, 93-99) and in the MARS crop calendar: barley, rapeseed, wheat, spring cereals.
    assert 7 <= ripe("winter_wheat") - ripe("winter_barley") <= 21
    assert ripe("winter_barley") < ripe("winter_rapeseed") < ripe("winter_wheat")
    assert ripe("winter_wheat") < ripe("spring_cereal")


@pytest.mark.slow
def test_rapeseed_blooms_yellow_in_april() -> None:
    # Flowers from April into May, seen by Sentinel-2 (d'Andrimont et al. 2020, doi:10.1016/j.rse.2020.111660).
    bands = np.array([sentinel2(one("winter_rapeseed"), day)[0] for day in range(1, 366)])
    yellow = bands[:, 2] - bands[:, 1]
    assert 100 <= yellow[:150].argmax() + 1 <= 125
    assert ndvi(one("winter_rapeseed"), 112)[0] < ndvi(one("winter_rapeseed"), 90)[0] - 0.1


def test_lucerne_and_grassland_fall_back_when_mown_and_grow_again() -> None:
    lucerne = year("lucerne")
    assert ((np.diff(lucerne) < -0.03) & (np.roll(np.diff(lucerne), 1) >= -0.03)).sum() == 4
    assert lucerne[MAY:300].max() - lucerne[MAY:300].min() > 0.2
    dry, wet = ndvi(one("grassland"), AUGUST, 0.0)[0], ndvi(one("grassland"), AUGUST, 1.0)[0]
    assert dry < wet - 0.1
    assert ndvi(one("grassland"), 15)[0] > 0.75


def test_rice_stands_in_water_before_it_closes() -> None:
    assert ndvi(one("rice"), 145)[0] < 0
    assert ndvi(one("rice"), 215)[0] > 0.7


def test_winter_crops_are_seen_from_the_autumn_before() -> None:
    wheat, spring = one("maize"), one("maize", next_growth="spring_cereal")
    assert ndvi(wheat, 360)[0] > ndvi(spring, 360)[0] + 0.15
    rapeseed = one("winter_barley", next_growth="winter_rapeseed")
    assert ndvi(rapeseed, 300)[0] > 0.5
    assert ndvi(one("winter_barley", next_growth="sunflower"), 300)[0] < 0.45


def test_a_catch_crop_is_green_after_the_harvest_until_winter_where_a_spring_crop_follows() -> None:
    bare, green = (one("winter_wheat", next_growth="maize", catch_crop=catch) for catch in (False, True))
    assert ndvi(green, 290)[0] > ndvi(bare, 290)[0] + 0.3
    assert ndvi(green, 225)[0] < 0.4
    before_winter_crop = [ndvi(one("winter_wheat", catch_crop=catch), 290)[0] for catch in (False, True)]
    assert before_winter_crop[0] == before_winter_crop[1]
    # Mustard after cereals freezes, rye after maize stands until it is ploughed in.
    mustard, rye = (one("maize", last_growth=last, last_catch=True) for last in ("winter_wheat", "maize"))
    assert ndvi(mustard, 60)[0] < 0.45
    assert ndvi(rye, 60)[0] > 0.7
    assert ndvi(rye, 135)[0] < 0.25


def test_residue_of_the_year_before_lies_on_the_field_until_spring() -> None:
    maize, beet = (one("spring_cereal", last_growth=last) for last in ("maize", "sugar_beet"))
    litter = ENDMEMBERS.index("litter")
    dry = np.zeros(1)
    assert abundances(maize, 30, dry)[0, litter] > abundances(beet, 30, dry)[0, litter] + 0.02
    assert abundances(maize, 110, dry)[0, litter] < 0.01


def test_a_field_that_is_late_does_everything_later() -> None:
    late = one("winter_wheat", shift_days=8.0)
    for day in (100, 180, 205):
        np.testing.assert_allclose(sentinel2(late, day + 8), sentinel2(one("winter_wheat"), day), atol=1e-6)
    assert ndvi(late, 183)[0] > ndvi(one("winter_wheat"), 183)[0] + 0.1


def test_vigorous_plants_cover_more() -> None:
    weak, strong = (ndvi(one("potato", vigour=vigour), 195)[0] for vigour in (0.7, 1.3))
    assert weak < strong - 0.1
    twice = abundances(one("potato", vigour=0.8), 195, np.zeros(1), 1.25)
    np.testing.assert_allclose(twice, abundances(one("potato"), 195, np.zeros(1)), atol=1e-5)


def test_wet_soil_is_darker_and_soils_differ() -> None:
    bare = ground(3, growth="maize", soil=[0.0, 0.5, 1.0])
    dry, wet = sentinel2(bare, 130, 0.0), sentinel2(bare, 130, 1.0)
    assert (wet < 0.7 * dry).all()
    assert (np.diff(dry, axis=0) > 0).all()


def test_crop_codes_of_one_growth_type_differ_a_little_and_always_alike() -> None:
    codes = ground(8, growth="spring_cereal", crop=[f"code{i}" for i in range(8)])
    seen = enmap(codes, 150)
    distance = np.abs(seen[:, None] - seen[None]).max(axis=2)[np.triu_indices(8, 1)]
    assert distance.min() > 0.003
    assert distance.max() < 0.15
    alone = ground(1, growth="spring_cereal", crop="code5")
    np.testing.assert_array_equal(abundances(codes, 150, np.zeros(8))[5], abundances(alone, 150, np.zeros(1))[0])


def test_the_order_of_fields_does_not_matter() -> None:
    place = mixed(200, seed=4)
    order = np.random.default_rng(5).permutation(200)
    turned = Ground(**{field.name: getattr(place, field.name)[order] for field in fields(Ground)})
    wetness = np.random.default_rng(6).random(200)
    for day in (20, 140, 290):
        there = abundances(place, day, wetness)[order]
        assert len(np.unique(there, axis=0)) == 200
        np.testing.assert_allclose(abundances(turned, day, wetness[order]), there, rtol=0, atol=1e-7)


def test_a_narrow_pair_differs_only_in_what_sentinel2_cannot_see() -> None:
    pairs = Pairs(narrow=(("barley", "triticale"),))
    both = ground(2, growth="winter_barley", crop=["barley", "triticale"], last_crop=["triticale", "barley"])
    for day in range(1, 367, 5):
        seen = sentinel2(both, day, pairs=pairs)
        np.testing.assert_allclose(seen[0], seen[1], rtol=0, atol=1e-6)
    first, second = enmap(both, 135, pairs=pairs)
    difference = np.abs(first - second)
    for wavelength in (1200, 1725, 2330):
        assert difference[np.abs(enmap_bands()[0] - wavelength).argmin()] > 0.005
    assert np.abs(np.subtract(*sentinel2(both, 135))).max() > 0.001


def test_a_late_pair_is_one_crop_until_august_and_two_after() -> None:
    pairs = Pairs(late=(("grain", "late"),))
    both = ground(2, growth="maize", crop=["grain", "late"], next_growth="maize", catch_crop=True)
    for day in range(1, AUGUST + 1, 4):
        first, second = abundances(both, day, np.zeros(2), pairs=pairs)
        np.testing.assert_array_equal(first, second)
    october = sentinel2(both, 285, pairs=pairs)
    assert np.abs(october[0] - october[1]).max() > 0.05
    # Harvested five weeks later.
    harvested = [
        next(day for day in range(AUGUST, 366) if abundances(both, day, np.zeros(2), pairs=pairs)[i, :4].sum() < 0.1)
        for i in range(2)
    ]
    assert 30 <= harvested[1] - harvested[0] <= 40


def test_a_narrow_partner_of_a_late_crop_is_late_too() -> None:
    pairs = Pairs(narrow=(("late", "narrow"),), late=(("grain", "late"),))
    three = ground(3, growth="maize", crop=["late", "narrow", "grain"])
    seen = sentinel2(three, 280, pairs=pairs)
    np.testing.assert_allclose(seen[0], seen[1], rtol=0, atol=1e-6)
    assert np.abs(seen[2] - seen[1]).max() > 0.05


def test_surroundings_look_like_what_they_are() -> None:
    kinds = ["wood", "wood", "water", "village", "road"]
    place = ground(5, kind=kinds, variant=[0.0, 1.0, 0.2, 0.7, 0.5], growth="", crop="", next_growth="", last_growth="")
    summer, winter = ndvi(place, 200), ndvi(place, 20)
    assert (summer[:2] > 0.8).all()
    assert winter[0] < 0.5
    assert winter[1] > 0.8
    water = sentinel2(place, 200)[2]
    assert 0.003 < water[NIR] < 0.03
    assert water[1] > water[NIR]
    assert (summer[3:] > 0.1).all()
    assert (summer[3:] < 0.5).all()
    dense, loose = ground(kind="village", variant=1.0), ground(kind="village", variant=0.0)
    assert ndvi(dense, 200) < ndvi(loose, 200) - 0.1


def test_a_field_without_a_crop_is_bare() -> None:
    empty = ground(growth="", crop="", next_growth="", last_growth="")
    shares = abundances(empty, 200, np.zeros(1))[0]
    assert shares[ENDMEMBERS.index("soil_brown")] == pytest.approx(1)
    assert np.count_nonzero(shares) == 1


def test_what_is_not_known_is_named() -> None:
    with pytest.raises(ValueError, match="unknown growth type 'triffid'"):
        abundances(ground(growth="triffid"), 1, np.zeros(1))
    with pytest.raises(ValueError, match="unknown kind of ground moor"):
        abundances(ground(kind="moor"), 1, np.zeros(1))
