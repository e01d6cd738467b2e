"""Natural skies and ground of the simulator: what makes images hard to mask, each word with its number."""

from __future__ import annotations

import json
import math
from typing import Any

import numpy as np
import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.ndimage import distance_transform_edt, gaussian_filter1d, label

from h2crop_data.simulate.layout import Layout
from h2crop_data.simulate.optics import FINE_GROUND
from h2crop_data.simulate.overpasses import sentinel2_passes
from h2crop_data.simulate.plants.bright import HALLS_FROM, PLASTIC_FROM, with_bright_ground
from h2crop_data.simulate.plants.phenology import Ground, abundances
from h2crop_data.simulate.randomness import key_of
from h2crop_data.simulate.sentinel2.bands import SENTINEL2_MSI
from h2crop_data.simulate.sentinel2.classification import BrightGround, systematic_classes
from h2crop_data.simulate.sentinel2.scenes import msi_bands
from h2crop_data.simulate.settings import ClassificationErrors, SkySettings, load_settings
from h2crop_data.simulate.shade import (
    CROWNS,
    HIGHEST,
    HOUSE_HEIGHT,
    PENUMBRA,
    SHADE_REACH,
    WOOD_HEIGHT,
    heights_of_objects,
    heights_on_ground,
    shaded,
)
from h2crop_data.simulate.sky.atmosphere import at_ground, corrected, in_shade, top_of_atmosphere, with_aerosol
from h2crop_data.simulate.sky.clouds import (
    CIRRUS_BLUR,
    CloudLayer,
    Sun,
    blur_of_shadow,
    blurred,
    cast_shadow,
    cloud_opacity,
)
from h2crop_data.simulate.sky.weather import (
    OVERCAST_FROM,
    Sky,
    Weather,
    aerosol_over,
    draw_sky,
    weather_over,
)

BLUE, RED, INFRARED = (SENTINEL2_MSI.index(band) for band in ("B02", "B04", "B08"))
NOON = Sun(160, 50)
#: Ground from water to bright soil, in all bands.
GROUNDS = (0.02, 0.1, 0.35)


def natural_sky(*layers: CloudLayer, sun: Sun = NOON, key: int = 99, aerosol: tuple[float, float] = (0, 0)) -> Sky:
    return Sky(key, sun, layers, 0.0, 0.0, natural=True, aerosol=aerosol)


def skies(number: int, month: int = 7, **wanted: float) -> list[Sky]:
    chosen = SkySettings(**wanted)
    return [draw_sky(4, f"date {i}", chosen, month, NOON, natural=True, aerosol=0.009) for i in range(number)]


def test_overcast_is_opaque_textured_and_bluish_over_any_ground() -> None:
    x = np.arange(0.0, 8000, 20)
    for brightness in (0.5, 0.75, 1.2):
        sky = natural_sky(CloudLayer("overcast", 1.0, 1.0, brightness, 0.2))
        weather = weather_over(sky, x, x[::-1])
        assert weather.cloud.min() > 0.85, "no window of the date is open"
        assert weather.cloud.mean() > 0.93
        for level in GROUNDS:
            ground = np.full((13, len(x), len(x)), level, np.float32)
            seen = corrected(at_ground(ground, weather, msi_bands()[1]), weather, msi_bands()[1])
            mean = seen.mean(axis=(1, 2))
            # Real overcast over Flanders: 0.89 and 0.96; the ground that shines through is all that differs.
            assert mean[RED] / mean[BLUE] == pytest.approx(0.89, abs=0.02)
            assert mean[INFRARED] / mean[BLUE] == pytest.approx(0.96, abs=0.03)
            assert mean[BLUE] == pytest.approx(brightness, rel=0.1)
            assert 0.1 < seen[BLUE].std() / mean[BLUE] < 0.3, "cores and furrows"


def test_overcast_has_as_much_texture_from_pixel_to_pixel_as_a_real_one() -> None:
    # Flanders, 36 overcast dates at 10 m: the mean step in the blue over 40 m is 2 to 15 % of the mean, over 160 m 1 to
    # 37 %; without fine texture masks made for real images take overcast for something else.
    x = np.arange(0.0, 5000, 10)
    for contrast in (0.1, 0.3):
        sky = natural_sky(CloudLayer("overcast", 1.0, 1.0, 0.7, contrast))
        brightness = weather_over(sky, x, x).brightness
        assert brightness is not None
        for pixels, low, high in ((4, 0.01, 0.15), (16, 0.03, 0.37)):
            step = np.abs(brightness[:, pixels:] - brightness[:, :-pixels]).mean() / brightness.mean()
            assert low < step < high


def test_natural_skies_are_as_cloudy_as_wanted_and_overcast_from_a_cover_on() -> None:
    for cloudiness in (0.1, 0.4, 0.7):
        drawn = skies(1500, cloudiness=cloudiness, cirrus=0.3)
        low = [layer for sky in drawn for layer in sky.layers if layer.kind != "cirrus"]
        assert sum(layer.cover for layer in low) / len(drawn) == pytest.approx(cloudiness, abs=0.05)
        kinds = {layer.kind for layer in low}
        assert kinds == {"overcast", "stratocumulus", "mediocris", "humilis"}
        assert all((layer.cover == 1.0) == (layer.kind == "overcast") for layer in low)
        assert max(layer.cover for layer in low if layer.kind != "overcast") <= OVERCAST_FROM
        assert np.mean([any(layer.kind == "cirrus" for layer in sky.layers) for sky in drawn]) == pytest.approx(
            0.3, abs=0.05
        )
    assert not skies(1, cloudiness=0, cirrus=0)[0].layers


def test_cirrus_haze_and_snow_are_those_of_the_plain_sky() -> None:
    chosen = SkySettings(cirrus=0.5, haze=0.5, snow=0.5)
    for i in range(100):
        one, other = (draw_sky(4, f"date {i}", chosen, 1, NOON, natural=natural) for natural in (True, False))
        assert (one.haze, one.snow, one.key) == (other.haze, other.snow, other.key)
        cirrus, same = ([layer for layer in sky.layers if layer.kind == "cirrus"] for sky in (one, other))
        assert cirrus == same
        assert len(one.layers) == len(other.layers)


def test_small_cumulus_reaches_down_to_fifty_metres() -> None:
    x = np.arange(0.0, 20_000, 10)
    opacity = cloud_opacity(7, CloudLayer("humilis", 0.1, 0.9), x, x[::-1])
    names, number = label(opacity > 0.25)
    across = 2 * np.sqrt(np.bincount(names.ravel())[1:] * 100 / np.pi)
    assert number > 800
    assert ((across >= 50) & (across <= 100)).sum() > 200, "several hundred of 50 to 100 m in 20 x 20 km"
    cloud = across**2
    assert cloud[across < 300].sum() / cloud.sum() > 0.2, "a good part of the cloud is in clouds below 300 m"
    small, large = (
        np.isin(names, 1 + np.flatnonzero(which)) for which in ((across < 100) & (across > 40), across > 400)
    )
    assert opacity[small].mean() < 0.7 * opacity[large].mean(), "the smallest are thin"


@pytest.mark.slow
@pytest.mark.parametrize(("natural", "plain"), [("mediocris", "cumulus"), ("stratocumulus", "stratus")])
def test_edges_of_natural_clouds_are_thin(natural: Any, plain: Any) -> None:
    x = np.arange(0.0, 40_000, 25)
    thin = []
    for kind in (natural, plain):
        opacity = cloud_opacity(11, CloudLayer(kind, 0.3, 0.9), x, x[::-1])
        assert (opacity > 0.45).mean() == pytest.approx(0.25, abs=0.1)
        thin.append(((opacity > 0.02) & (opacity < 0.38)).mean() / (opacity > 0.02).mean())
    assert thin[0] > 1.3 * thin[1], thin


def test_a_blurred_edge_is_as_wide_as_its_gaussian_whatever_the_grid() -> None:
    def step(x: Any, y: Any) -> Any:
        return np.broadcast_to((x > 1003).astype(np.float32), (len(y), len(x)))

    x, y = np.arange(500.0, 1500, 10), np.arange(0.0, 60, 10)
    sd = 100 / (2 * math.sqrt(2 * math.log(2)))
    edge = blurred(step, x, y, sd)
    slope = np.gradient(edge[0], 10.0)
    above = x[slope > slope.max() / 2]
    assert above[-1] - above[0] == pytest.approx(100, abs=15), "full width at half maximum"
    expected = [0.5 * (1 + math.erf((place - 1003) / sd / math.sqrt(2))) for place in x]
    np.testing.assert_allclose(edge[0], expected, atol=0.15)
    part = blurred(step, x[30:70], y[2:4], sd)
    np.testing.assert_allclose(part, edge[2:4, 30:70], atol=1e-6)


def test_the_shadow_of_cirrus_is_blurred_by_a_hundred_metres_and_weak() -> None:
    sun = Sun(165, 62)
    assert blur_of_shadow("cirrus", sun) == pytest.approx(CIRRUS_BLUR, abs=1), "the sun's disc seen from 9.5 km"
    assert blur_of_shadow("cirrus", Sun(165, 20)) > 200
    assert blur_of_shadow("mediocris", sun) < 20
    x = np.arange(0.0, 6000, 10)
    layer = CloudLayer("cirrus", 0.4, 0.35)
    sharp, soft = (cast_shadow(5, layer, sun, x, x[::-1], blurs=blurs) for blurs in (False, True))
    assert soft.max() <= sharp.max() <= 0.3 * 0.35
    # The same as blurring the sharp one, away from the border.
    sd = 100 / (2 * math.sqrt(2 * math.log(2))) / 10
    by_hand = gaussian_filter1d(gaussian_filter1d(sharp, sd, axis=0), sd, axis=1)
    inner = (slice(40, -40), slice(40, -40))
    np.testing.assert_allclose(soft[inner], by_hand[inner], atol=0.002)
    waves = [np.abs(np.diff(field[inner][::8], 2, axis=0)).mean() for field in (sharp, soft)]
    assert waves[1] < 0.9 * waves[0], "streaks across the sun's line fade"


def test_aerosol_varies_from_date_to_date_slowly_over_the_ground_and_less_in_longer_waves() -> None:
    drawn = skies(800, cloudiness=0.4)
    near, far = np.array([0.0, 1000.0]), np.array([0.0, 30_000.0])
    at = np.array([aerosol_over(sky, far, far)[[0, 0, 1], [0, 1, 1]] for sky in drawn])
    assert at.std() == pytest.approx(0.009, rel=0.08)
    assert abs(at.mean()) < 0.001
    # Steps between successive dates: by 0.0086 in the middle, as two normal values with this deviation differ.
    assert np.median(np.abs(np.diff(at[:, 0]))) == pytest.approx(0.0086, rel=0.1)
    assert np.corrcoef(at[:-1, 0], at[1:, 0])[0, 1] == pytest.approx(0, abs=0.1)
    steps = [np.abs(np.diff(aerosol_over(sky, near, near)[0])).item() for sky in drawn[:200]]
    assert np.median(steps) < 0.0005, "one kilometre is near"
    assert 0.05 < np.var(at[:, 0] - at[:, 2]) / np.var(at) < 0.8, "thirty are not"
    without = draw_sky(4, "date 0", SkySettings(cloudiness=0.4), 7, NOON, natural=True)
    assert without.layers == drawn[0].layers, "clouds do not depend on it"
    assert without.aerosol == (0, 0)

    surface = np.full((13, 1, 2), 0.1, np.float32)
    none = np.zeros((1, 2), np.float32)
    aerosol = np.array([[0.01, -0.01]], np.float32)
    weather = Weather(none, none, none, none, none, aerosol)
    bands = msi_bands()[1]
    added = corrected(surface, weather, bands) - surface
    np.testing.assert_array_equal(with_aerosol(surface, aerosol, bands) - surface, added)
    assert added[BLUE, 0, 0] == pytest.approx(0.01, rel=0.02)
    np.testing.assert_allclose(added[:, 0, 0], -added[:, 0, 1], atol=1e-7)
    waves = {"B02": 490, "B03": 560, "B04": 665, "B08": 842, "B11": 1610}
    for band, wave in waves.items():
        share = added[SENTINEL2_MSI.index(band), 0, 0] / 0.01
        assert (490 / wave) ** 2.0 - 0.03 < share < (490 / wave) ** 1.3 + 0.03
    top, clean = (top_of_atmosphere(surface, Weather(*[none] * 5, each), bands, NOON) for each in (aerosol, None))
    assert top[BLUE, 0, 0] - clean[BLUE, 0, 0] == pytest.approx(0.01, rel=0.05)
    assert -0.0065 < top[BLUE, 0, 1] - clean[BLUE, 0, 1] < -0.005, "clean air is not cleaner than that"


def slow_shade(heights: Any, rows: range, columns: range, sun: Sun) -> Any:
    """Shade of some fine pixels, each by walking towards the sun in steps of a metre; heights in metres."""
    rise = math.tan(math.radians(sun.elevation))
    east, north = math.sin(math.radians(sun.azimuth)), math.cos(math.radians(sun.azimuth))
    shade = np.zeros((len(rows), len(columns)))
    for i, row in enumerate(rows):
        for j, column in enumerate(columns):
            for metres in range(1, math.ceil(HIGHEST / rise) + 1):
                y, x = round(row - metres * north / FINE_GROUND), round(column + metres * east / FINE_GROUND)
                excess = heights[y, x] - metres * rise - heights[row, column]
                shade[i, j] = max(shade[i, j], min(1, max(0, excess / PENUMBRA)))
    return shade


@given(st.floats(90, 270), st.floats(13, 62), st.integers(0, 10))
@settings(max_examples=12, deadline=None)
def test_shade_is_where_a_walk_towards_the_sun_meets_something_higher(
    azimuth: float, elevation: float, seed: int
) -> None:
    chance = np.random.default_rng(seed)
    room = SHADE_REACH // FINE_GROUND
    side = 2 * room + 24
    heights = np.zeros((side, side), np.uint8)
    for _ in range(30):
        row, column = chance.integers(0, side - 4, 2)
        heights[row : row + 4, column : column + 3] = chance.integers(50, 220)
    axis = np.arange(24) * 5.0
    sun = Sun(azimuth, elevation)
    found = shaded(heights, axis, axis[::-1], sun)
    true = slow_shade(heights / 10.0, range(room, room + 24), range(room, room + 24), sun)
    # Steps of five metres instead of one: pixels at the rim of a shadow differ.
    assert np.abs(found - true).mean() < 0.05
    assert ((found > 0.5) != (true > 0.5)).mean() < 0.08


@pytest.mark.parametrize("azimuth", [120.0, 165.0, 200.0])
def test_a_shadow_points_away_from_the_sun_and_is_as_long_as_it_stands_low(azimuth: float) -> None:
    room = SHADE_REACH // FINE_GROUND
    side = 2 * room + 81
    heights = np.zeros((side, side), np.uint8)
    middle = room + 40
    heights[middle - 1 : middle + 2, middle - 1 : middle + 2] = 200
    axis = (np.arange(81) - 40) * 5.0
    lengths = []
    for elevation in (20.0, 45.0):
        shade = shaded(heights, axis, axis[::-1], Sun(azimuth, elevation))
        rows, columns = np.nonzero(shade > 0.5)
        east, north = axis[columns], axis[::-1][rows]
        direction = math.degrees(math.atan2(-east.mean(), -north.mean())) % 360
        assert direction == pytest.approx(azimuth, abs=6 if elevation < 30 else 15)
        lengths.append(np.hypot(east, north).max())
        assert lengths[-1] == pytest.approx(20 / math.tan(math.radians(elevation)), abs=14), "and half the tower"
    assert lengths[0] > 2 * lengths[1] * 0.8
    turned = shaded(heights[::-1], axis, axis, Sun(azimuth, 20.0))
    np.testing.assert_array_equal(turned, shaded(heights, axis, axis[::-1], Sun(azimuth, 20.0))[::-1])


def test_woods_are_fifteen_to_twenty_metres_high_and_houses_seven() -> None:
    kinds = np.array(["wood"] * 500 + ["village"] * 500 + ["field", "water", "road"])
    x = np.arange(len(kinds)) * 137.0
    heights = heights_of_objects(3, kinds, x, x)
    low, high = WOOD_HEIGHT
    assert low <= heights[:500].min() < low + 1
    assert high - 1 < heights[:500].max() <= high
    assert set(heights[500:1000].tolist()) == {HOUSE_HEIGHT}
    assert not heights[1000:].any()
    brightness = np.random.default_rng(0).standard_normal((60, 60)).astype(np.float32)
    wood, village, field = (
        heights_on_ground(np.full((60, 60), height, np.float32), np.full((60, 60), wooded), brightness) / 10
        for height, wooded in ((17.5, True), (7.0, False), (0.0, False))
    )
    assert wood.mean() == pytest.approx(17.5, abs=0.3)
    assert wood.std() == pytest.approx(CROWNS, abs=0.4)
    assert set(np.unique(village).tolist()) == {0.0, 7.0}
    assert 0.2 < (village > 0).mean() < 0.5, "houses, and what lies between them"
    assert not field.any()


def test_two_shadows_over_one_place_are_one() -> None:
    bands = msi_bands()[1]
    surface, full, none = (
        np.full((13, 1, 1), 0.3, np.float32),
        np.ones((1, 1), np.float32),
        np.zeros((1, 1), np.float32),
    )
    cloud = Weather(none, none, full, none, none)
    in_clouds = at_ground(surface, cloud, bands)
    of_tree = in_shade(surface, full, bands.diffuse)
    np.testing.assert_allclose(of_tree, in_clouds, rtol=1e-5)
    np.testing.assert_allclose(at_ground(of_tree, cloud, bands, full), in_clouds, rtol=1e-5)
    np.testing.assert_allclose(at_ground(surface, cloud, bands, none), in_clouds, rtol=1e-5)
    snow = Weather(none, none, none, none, full)
    shaded_snow = at_ground(of_tree, snow, bands, full)
    np.testing.assert_allclose(shaded_snow[:, 0, 0], bands.snow * bands.diffuse, rtol=1e-5)


def places(kind: str, **columns: Any) -> Ground:
    """Pieces of ground without a crop."""
    number = len(next(iter(columns.values())))
    none = np.full(number, "")
    names = dict.fromkeys(("growth", "crop", "next_growth", "next_crop", "last_growth", "last_crop"), none)
    usual: dict[str, Any] = {
        "variant": np.full(number, 0.5, np.float32),
        "soil": np.full(number, 0.5, np.float32),
        "shift_days": np.zeros(number, np.float32),
        "vigour": np.ones(number, np.float32),
        "catch_crop": np.zeros(number, bool),
        "last_catch": np.zeros(number, bool),
    }
    return Ground(kind=np.full(number, kind), **names, **{**usual, **columns})


def reflectances(ground: Ground, day: int) -> tuple[Any, Any]:
    """Reflectance (piece, band) of plain and of natural ground on a day, dry."""
    shares = abundances(ground, day, np.zeros(len(ground.kind)))
    endmembers = msi_bands()[0]
    return shares @ endmembers, with_bright_ground(shares, ground, day) @ endmembers


def test_roofs_plastic_and_chalk_are_bright_and_nothing_else_changes() -> None:
    village = places("village", variant=np.array([0.5, HALLS_FROM - 0.01, HALLS_FROM], np.float32))
    plain, natural = reflectances(village, 200)
    np.testing.assert_array_equal(natural[:2], plain[:2])
    assert plain[2, BLUE] < 0.2 < 0.3 < natural[2, BLUE] < 0.6
    field = places("field", variant=np.array([0.5, PLASTIC_FROM], np.float32))
    for day, covered in ((40, False), (100, True), (200, False)):
        plain, natural = reflectances(field, day)
        np.testing.assert_array_equal(natural[0], plain[0])
        assert (natural[1, BLUE] > 0.25) == covered
        assert (natural[1] != plain[1]).any() == covered
    chalk = places("field", soil=np.array([0.5, 0.7, 1.0], np.float32))
    plain, natural = reflectances(chalk, 100)
    np.testing.assert_array_equal(natural[:2], plain[:2])
    assert natural[2, BLUE] == pytest.approx(0.30, abs=0.04)
    assert natural[2, RED] > natural[2, BLUE], "bright as a cloud, but not its colour"
    water = places("water", variant=np.array([0.95, 1.0], np.float32))
    np.testing.assert_array_equal(*reflectances(water, 100))


X = np.arange(0.0, 6000, 20)
DARK = BrightGround(math.inf, math.inf)
ERRORS = ClassificationErrors()


def classified(
    errors: ClassificationErrors = ERRORS,
    bright: BrightGround = DARK,
    sky: Sky | None = None,
    surface: float | Any = 0.05,
    **fields: Any,
) -> Any:
    """Classes (y, x) of vegetation under fields of the weather; a number stands for it everywhere."""
    side = len(X)

    def whole(value: Any) -> Any:
        return np.broadcast_to(np.asarray(value, np.float32), (side, side))

    weather = Weather(**{name: whole(fields.get(name, 0)) for name in ("cloud", "cirrus", "shadow", "haze", "snow")})
    if "aerosol" in fields:
        weather = Weather(**{**vars(weather), "aerosol": whole(fields["aerosol"])})
    ten = np.repeat(np.array([0.04, 0.06, 0.05, 0.4], np.float32), 4 * side * side).reshape(4, 2 * side, 2 * side)
    ground = np.broadcast_to(np.asarray(surface, np.float32), (2 * side, 2 * side))
    sky = sky or natural_sky(key=key_of(1, "classes"))
    return systematic_classes(sky, weather, ten, ground, X, X[::-1], errors, bright)


def test_thin_cloud_and_cirrus_are_missed_up_to_their_opacities() -> None:
    found = {
        opacity: float(np.isin(classified(cloud=opacity), (8, 9)).mean()) for opacity in (0.1, 0.28, 0.38, 0.48, 0.7)
    }
    assert found[0.1] < 0.01
    assert found[0.28] == pytest.approx(0.16, abs=0.05), "one deviation below"
    assert found[0.38] == pytest.approx(0.50, abs=0.06)
    assert found[0.48] == pytest.approx(0.84, abs=0.05)
    assert found[0.7] > 0.995, "thick cloud is never missed"
    assert (classified(cloud=0.7) == 9).mean() > 0.995
    cirrus = {opacity: float((classified(cirrus=opacity) == 10).mean()) for opacity in (0.08, 0.17, 0.22, 0.27, 0.38)}
    assert cirrus[0.08] < 0.01
    assert cirrus[0.17] == pytest.approx(0.16, abs=0.05)
    assert cirrus[0.22] == pytest.approx(0.50, abs=0.06)
    assert cirrus[0.27] == pytest.approx(0.84, abs=0.05)
    assert cirrus[0.38] > 0.99
    other = ClassificationErrors(thin_cloud=0.2, thin_cirrus=0.1)
    assert np.isin(classified(other, cloud=0.2), (8, 9)).mean() == pytest.approx(0.5, abs=0.06)
    assert (classified(other, cirrus=0.1) == 10).mean() == pytest.approx(0.5, abs=0.06)


def test_a_third_of_shadow_is_missed_in_pieces() -> None:
    classes = classified(shadow=0.8)
    missed = classes == 4
    assert missed.mean() == pytest.approx(0.33, abs=0.06)
    assert ((classes == 3) | missed).all()
    names, number = label(missed)
    sizes = np.bincount(names.ravel())[1:] * 400 / 1e4
    assert number > 10
    assert np.average(sizes, weights=sizes) > 5, "pieces of hectares, not single pixels"
    assert (classified(shadow=0.4) == 4).all(), "weak shadow is never found"
    assert (classified(ClassificationErrors(missed_shadow=0), shadow=0.8) == 3).all()


def test_bright_ground_is_cloud_less_bright_ground_unclassified() -> None:
    surface = np.tile(np.linspace(0.02, 0.4, 2 * len(X), dtype=np.float32), (2 * len(X), 1))
    classes = classified(bright=BrightGround(0.3, 0.2), surface=surface)
    blue = surface.reshape(len(X), 2, len(X), 2).mean(axis=(1, 3))
    np.testing.assert_array_equal(classes, np.select([blue > 0.3, blue > 0.2], [8, 7], 4))
    # Aerosol brightens the whole date, which does not make more of its ground bright.
    lifted = classified(bright=BrightGround(0.3, 0.2), surface=surface + np.float32(0.02), aerosol=0.02)
    assert (lifted != classes).mean() < 0.001


def test_classes_7_and_10_reach_beyond_clouds_by_their_widths_on_their_share() -> None:
    for layer, width, codes, wide in (
        (CloudLayer("mediocris", 0.15, 0.95), 120, (8, 9), 7),
        (CloudLayer("cirrus", 0.25, 0.38), 200, (10,), 10),
    ):
        sky = natural_sky(layer, key=5)
        weather = weather_over(sky, X, X[::-1])
        there = {"cloud": weather.cloud, "cirrus": weather.cirrus}
        narrow = classified(ClassificationErrors(unclassified_width=0, cirrus_width=0), sky=sky, **there)
        found = np.isin(narrow, codes)
        assert 0.05 < found.mean() < 0.4
        assert (found | (narrow == 4)).all()
        away = 20 * distance_transform_edt(~found)
        ring = (away > 0) & (away < 0.6 * width)
        everywhere, usual = classified(ClassificationErrors(widened=1), sky=sky, **there), classified(sky=sky, **there)
        assert (everywhere[ring] == wide).mean() > 0.9, wide
        # At the border there may be clouds beyond.
        assert (everywhere[20:-20, 20:-20][away[20:-20, 20:-20] > 1.8 * width] == 4).all(), wide
        assert (usual[ring] == wide).mean() == pytest.approx(0.4, abs=0.15), wide


def test_veils_of_haze_and_aerosol_are_unclassified_then_cirrus() -> None:
    assert (classified(haze=0.3) == 4).all()
    assert (classified(haze=0.5) == 7).all()
    assert (classified(haze=0.8) == 10).all()
    assert (classified(haze=0.5, aerosol=0.015) == 10).all(), "they add up"
    assert (classified(aerosol=0.02) == 4).all()


def test_without_errors_classes_are_the_truth() -> None:
    none = ClassificationErrors(
        thin_cloud=0, thin_cirrus=0, missed_shadow=0, unclassified_width=0, cirrus_width=0, widened=0
    )
    opacity = np.tile(np.linspace(-0.2, 1, len(X), dtype=np.float32).clip(0, 1), (len(X), 1))
    np.testing.assert_array_equal(classified(none, cloud=opacity), np.select([opacity > 0.65, opacity > 0], [9, 8], 4))
    np.testing.assert_array_equal(classified(none, shadow=opacity), np.where(opacity > 0.5, 3, 4))


def test_natural_is_switched_on_and_leaves_settings_of_older_versions_as_they_are(tmp_path: Any) -> None:
    plain = load_settings(None, {})
    assert plain.natural is None
    assert "natural" not in plain.model_dump(mode="json")
    assert plain.sentinel2.scl_errors == 0.02
    assert load_settings(None, {"natural": None}) == plain
    older = tmp_path / "simulation.yaml"
    older.write_text(yaml.safe_dump(plain.model_dump(mode="json"), sort_keys=False), encoding="utf-8")
    assert load_settings(older, {}) == plain
    natural = load_settings(None, {"natural": {}})
    assert natural.natural is not None
    assert natural.natural.aerosol == 0.009
    assert natural.natural.classification == ClassificationErrors(
        thin_cloud=0.38, thin_cirrus=0.22, missed_shadow=0.33, bright_ground=0.01
    )
    assert natural.sentinel2.scl_errors == 0, "systematic errors instead of random patches"
    assert load_settings(None, {"natural": {}, "sentinel2.scl_errors": 0.05}).sentinel2.scl_errors == 0.05
    changed = load_settings(None, {"natural.aerosol": 0.01, "natural.classification.missed_shadow": 0.5})
    again = type(changed).model_validate_json(changed.model_dump_json())
    assert again == changed
    assert json.loads(changed.model_dump_json())["natural"]["classification"]["missed_shadow"] == 0.5


@pytest.mark.parametrize("season", [2021, 2024])
def test_six_dates_a_month_are_seventy_two_passes_of_both_orbits(season: int) -> None:
    simulation = load_settings(
        None, {"natural": {}, "seasons": [season], "sentinel2.dates_per_month": 6, "sentinel2.swath_edges": 0.3}
    )
    layout = Layout(simulation)
    passes = list(sentinel2_passes(simulation, season, layout.centre, layout.bounds))
    assert len(passes) == 72
    days = [look.moment.date() for look in passes]
    assert len(set(days)) == 72
    assert [sum(day.month == month for day in days) for month in range(1, 13)] == [6] * 12
    assert days == sorted(days)
    assert {day.toordinal() % 5 for day in days} == {0, 2}, "two orbits, each on its beat of five days"
    assert {look.relative_orbit for look in passes} == {8, 51}
    edged = [look for look in passes if look.swath_end is not None]
    assert 10 < len(edged) < 33
    heights = {look.moment.month: look.sun.elevation for look in passes}
    assert heights[6] > 60
    assert heights[12] < 20
    assert all(140 < look.sun.azimuth < 180 for look in passes)
    assert len({look.sky.key for look in passes}) == 72
    jitter = np.array([look.sky.aerosol[0] for look in passes])
    assert jitter.std() == pytest.approx(0.009 * math.sqrt(0.8), rel=0.3)
