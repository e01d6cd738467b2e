"""Our mask of EnMAP's clouds: spectra of known surfaces, planted clouds with shadows of known height, geometry."""

from __future__ import annotations

import math
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

import cv2
import numpy as np
import pystac
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from matplotlib.colors import to_rgba_array
from numpy.typing import NDArray
from odc.geo.geobox import GeoBox

from h2crop_data.cast_shadows import apparent_sun
from h2crop_data.constants import ENMAP_FLAGS, ENMAP_MASK_FLAGS
from h2crop_data.cube.schema import ArraySpec, ArrayStatistics
from h2crop_data.cube.statistics import block_sums
from h2crop_data.enmap.clouds import MASK_WAVELENGTHS, MaskBands, find_clouds, haze_above_ground
from h2crop_data.enmap.own_mask import bands_for_mask, own_mask
from h2crop_data.enmap.product import Angles, Band
from h2crop_data.enmap.shadows import find_shadows, satellite_azimuths, usual_reflectance
from h2crop_data.errors import SceneError
from h2crop_data.grid import LONLAT, geobox, transformer
from h2crop_data.report.layers import FLAG_COLOURS, OWN_COLOURS, flag_map, land_kinds, own_alone, with_own_mask
from h2crop_data.sources.enmap.columns import mask_columns
from h2crop_data.sources.enmap.masks import suns_of

#: Reflectance at MASK_WAVELENGTHS: 443, 490, 560, 665, 865, 1610, 2200 nm. Vegetation, soil, water, concrete and snow
#: as spectral libraries have them, rounded; cloud as clouds.py says of L2A.
SURFACES = {
    "vegetation": (0.02, 0.03, 0.06, 0.03, 0.45, 0.20, 0.09),
    "dry grass": (0.05, 0.07, 0.11, 0.15, 0.30, 0.33, 0.22),
    "dark soil": (0.05, 0.06, 0.09, 0.13, 0.20, 0.28, 0.25),
    "bright soil": (0.13, 0.17, 0.24, 0.31, 0.40, 0.48, 0.44),
    "sand": (0.20, 0.25, 0.33, 0.40, 0.47, 0.55, 0.52),
    "clear water": (0.03, 0.03, 0.02, 0.01, 0.005, 0.003, 0.002),
    "turbid water": (0.06, 0.08, 0.12, 0.11, 0.04, 0.01, 0.005),
    "red roof": (0.07, 0.08, 0.11, 0.24, 0.32, 0.38, 0.36),
    "snow": (0.90, 0.90, 0.88, 0.86, 0.78, 0.10, 0.08),
}
CLOUD = np.array((0.70, 0.69, 0.68, 0.67, 0.66, 0.45, 0.36))
GROUNDS = ("vegetation", "dry grass", "dark soil", "clear water", "turbid water")
FLAGS = ENMAP_FLAGS["cloud"] | ENMAP_FLAGS["cloud_shadow"]


def bands_of(pixels: NDArray[Any]) -> MaskBands:
    """The bands of spectra (7, y, x)."""
    return MaskBands(*pixels.astype(np.float32))


def spread(name: str, side: int = 40) -> NDArray[np.float64]:
    """A square of one surface, (7, y, x)."""
    return np.broadcast_to(np.array(SURFACES[name])[:, None, None], (7, side, side)).copy()


def everywhere(shape: tuple[int, ...]) -> NDArray[np.bool_]:
    return np.ones(shape, bool)


@pytest.mark.parametrize("name", SURFACES)
def test_no_surface_is_cloud(name: str) -> None:
    assert not find_clouds(bands_of(spread(name)), everywhere((40, 40))).any()


@pytest.mark.parametrize("ground", GROUNDS)
@pytest.mark.parametrize("opacity", [0.35, 0.5, 0.8, 1.0])
def test_a_cloud_of_one_pixel_is_found(ground: str, opacity: float) -> None:
    pixels = spread(ground)
    pixels[:, 20, 20] += opacity * (CLOUD - pixels[:, 20, 20])
    found = find_clouds(bands_of(pixels), everywhere((40, 40)))
    assert found[20, 20]
    assert found.sum() == 1


def test_thin_edges_are_cloud_where_they_touch_one_and_haze_by_itself_is_not() -> None:
    pixels = spread("vegetation")
    opacity = np.zeros((40, 40))
    opacity[10:13, 10:13], opacity[10:13, 13:15], opacity[30:33, 30:33] = 0.6, 0.15, 0.15
    pixels += opacity * (CLOUD[:, None, None] - pixels)
    found = find_clouds(bands_of(pixels), everywhere((40, 40)))
    assert found[10:13, 10:15].all()
    assert found.sum() == 15


@given(veil=st.floats(-0.008, 0.02))
@settings(deadline=None, max_examples=20)
def test_what_a_correction_left_in_over_the_whole_scene_changes_nothing(veil: float) -> None:
    """Aerosol brightens blue most: the line of clear ground moves with it."""
    pixels = np.concatenate([spread(name, 20) for name in GROUNDS], axis=2)
    pixels[:, 5:8, ::9] += 0.4 * (CLOUD[:, None, None] - pixels[:, 5:8, ::9])
    hazy = pixels + veil * (490 / np.array(MASK_WAVELENGTHS))[:, None, None] ** 1.6
    inside = everywhere(pixels.shape[1:])
    assert (find_clouds(bands_of(hazy), inside) == find_clouds(bands_of(pixels), inside)).mean() > 0.99


def test_haze_counts_from_dark_ground_within_limits_or_from_their_middle() -> None:
    blue, red = np.full((20, 20), 0.30), np.full((20, 20), 0.40)
    everything = everywhere(blue.shape)
    layers = np.stack([blue, blue, blue, red, blue, blue, blue])
    for dark_red, line in ((0.10, 0.03), (0.16, 0.02), (0.30, -0.01)):
        layers[1, 0], layers[3, 0] = 0.10, dark_red
        haze = haze_above_ground(bands_of(layers), everything)
        np.testing.assert_allclose(haze[1:], 0.30 - 0.5 * 0.40 - line, atol=1e-6)
    # A pixel or two of dark ground say nothing: the line lies in the middle of where it may be.
    layers[1, 0, 2:], layers[3, 0, 2:] = 0.30, 0.40
    np.testing.assert_allclose(haze_above_ground(bands_of(layers), everything)[1:], 0.10 - 0.01, atol=1e-6)


def test_over_snow_only_what_is_bright_in_short_waves_is_cloud() -> None:
    pixels = spread("snow")
    pixels[:, 10:14, 10:14] = CLOUD[:, None, None]
    found = find_clouds(bands_of(pixels), everywhere((40, 40)))
    assert found[10:14, 10:14].all()
    assert found.sum() == 16


def test_without_a_value_nothing_is_found_and_nothing_is_said() -> None:
    pixels = np.broadcast_to(CLOUD[:, None, None], (7, 30, 30)).copy()
    imaged = everywhere((30, 30))
    imaged[:, :10] = False
    pixels[:, ~imaged] = -3.2768
    bits = own_mask(pixels.astype(np.float32), imaged, [(160.0, 50.0)], 30).bits
    assert (bits[:, :10] == ENMAP_MASK_FLAGS["unseen"]).all()
    assert (bits[:, 10:] == ENMAP_MASK_FLAGS["cloud"]).all()


@given(
    sun=st.tuples(st.floats(0, 359), st.floats(25, 80)),
    view=st.tuples(st.floats(0, 359), st.floats(0, 30)),
    height=st.floats(100, 4000),
)
def test_shadows_lie_where_rays_meet_the_ground(
    sun: tuple[float, float], view: tuple[float, float], height: float
) -> None:
    """A cloud above the origin: both rays through it, as vectors."""

    def towards(azimuth: float, elevation: float) -> NDArray[np.float64]:
        flat = math.cos(math.radians(elevation))
        east, north = flat * math.sin(math.radians(azimuth)), flat * math.cos(math.radians(azimuth))
        return np.array([east, north, math.sin(math.radians(elevation))])

    cloud = np.array([0, 0, height])

    def on_ground(direction: NDArray[np.float64]) -> NDArray[np.float64]:
        return (cloud - direction * height / direction[2])[:2]

    seen, shadow = on_ground(towards(view[0], 90 - view[1])), on_ground(towards(*sun))
    azimuth, elevation = apparent_sun(sun, view)
    length = height / math.tan(math.radians(elevation))
    found = seen - length * np.array([math.sin(math.radians(azimuth)), math.cos(math.radians(azimuth))])
    assert np.allclose(found, shadow, atol=1e-6 * height)


def test_the_track_of_the_orbit() -> None:
    """At its highest latitude a satellite flies west, over the equator 8 degrees off south."""
    assert satellite_azimuths(0) == pytest.approx((97.96, 277.96), abs=0.01)
    assert satellite_azimuths(48.6) == pytest.approx((102.1, 282.1), abs=0.1)
    assert satellite_azimuths(82.04) == pytest.approx((180, 0), abs=2)


def ground_with_clouds(
    sun: tuple[float, float], height: float, cover: float = 0.06, seed: int = 3
) -> tuple[MaskBands, NDArray[np.bool_], NDArray[np.bool_]]:
    """Fields, woods and a lake of 9 km below clouds of one height: bands, where clouds are, where their shadows lie."""
    rng = np.random.default_rng(seed)
    side = 300
    kinds = rng.choice(["vegetation", "dry grass", "dark soil"], (side // 15, side // 15)).repeat(15, 0).repeat(15, 1)
    pixels = np.zeros((7, side, side))
    for name in np.unique(kinds):
        pixels[:, kinds == name] = np.array(SURFACES[name])[:, None]
    pixels[:, 200:240, 40:120] *= 0.45
    pixels[:, 100:160, 200:260] = np.array(SURFACES["clear water"])[:, None, None]
    pixels *= rng.normal(1, 0.05, pixels.shape[1:])
    noise = cv2.GaussianBlur(rng.standard_normal((side, side)), (0, 0), 3)
    cloud = noise > np.quantile(noise, 1 - cover)
    length = height / math.tan(math.radians(sun[1])) / 30
    down = round(length * math.cos(math.radians(sun[0])))
    right = round(-length * math.sin(math.radians(sun[0])))
    moved = np.roll(cloud, (down, right), (0, 1))
    moved[: max(down, 0)], moved[side + min(down, 0) :] = False, False
    moved[:, : max(right, 0)], moved[:, side + min(right, 0) :] = False, False
    pixels[:, moved] *= 0.4
    pixels[:, cloud] = CLOUD[:, None]
    return bands_of(pixels), cloud, moved & ~cloud


@pytest.mark.parametrize("height", [600, 1200, 2500])
@pytest.mark.parametrize("sun", [(155.0, 55.0), (200.0, 38.0)])
def test_planted_shadows_and_their_height_are_found(sun: tuple[float, float], height: float) -> None:
    bands, cloud, shadow = ground_with_clouds(sun, height)
    wrong = ((sun[0] + 40) % 360, sun[1] + 10)
    found = find_shadows(bands, everywhere(cloud.shape), cloud, [wrong, sun], 30)
    assert found.height == pytest.approx(height, abs=50)
    water = np.zeros(cloud.shape, bool)
    water[100:160, 200:260] = True
    assert found.mask[shadow & ~water].mean() > 0.9
    assert not found.mask[water | cloud].any()
    wide = cv2.dilate(shadow.astype(np.uint8), np.ones((5, 5), np.uint8)) > 0
    assert found.mask[~wide].mean() < 0.02
    assert found.mask[200:240, 40:120][~wide[200:240, 40:120]].mean() < 0.15, "woods are no shadow"


def grid_azimuth(crs: str, x: float, y: float, azimuth: float) -> float:
    """A direction from true north as one from the grid's, by a short way along the ground."""
    longitude, latitude = transformer(crs, LONLAT).transform(x, y)
    north, east = math.cos(math.radians(azimuth)), math.sin(math.radians(azimuth))
    step = 1e-4
    onto = transformer(LONLAT, crs)
    there = onto.transform(longitude + step * east / math.cos(math.radians(latitude)), latitude + step * north)
    here = onto.transform(longitude, latitude)
    return math.degrees(math.atan2(there[0] - here[0], there[1] - here[1])) % 360


def scene_grid(west: int) -> GeoBox:
    """300 x 300 pixels of zone 32, whose central meridian is 500 km from its origin."""
    return geobox((west, 5_700_000, west + 9_000, 5_709_000), 32632, 30)


@pytest.mark.parametrize("west", [180_000, 495_500, 810_000])
def test_the_sun_and_the_satellite_count_from_the_north_of_rows(west: int) -> None:
    """Beyond the borders of a zone the grid's north lies up to 3.6 degrees off true north."""
    item = pystac.Item("scene", None, None, datetime(2022, 7, 24, 10, 45, tzinfo=UTC), {})
    place = ("EPSG:32632", west + 4_500, 5_704_500)
    for angles in (Angles(sun_azimuth=155.0, sun_elevation=38.0), Angles(38.0, 155.0, 20.0, 0.0)):
        on_meridian = suns_of(item, angles, scene_grid(495_500))
        expected = [grid_azimuth(*place, azimuth) for azimuth, _ in on_meridian]
        found = suns_of(item, angles, scene_grid(west))
        assert [azimuth for azimuth, _ in found] == pytest.approx(expected, abs=0.1)
        assert [elevation for _, elevation in found] == pytest.approx([one for _, one in on_meridian], abs=0.1)


@pytest.mark.parametrize("west", [180_000, 495_500, 810_000])
def test_planted_shadows_are_found_at_the_borders_of_a_zone_too(west: int) -> None:
    sun = (155.0, 38.0)
    item = pystac.Item("scene", None, None, datetime(2022, 7, 24, 10, 45, tzinfo=UTC), {})
    on_rows = (grid_azimuth("EPSG:32632", west + 4_500, 5_704_500, sun[0]), sun[1])
    bands, cloud, shadow = ground_with_clouds(on_rows, 2500)
    suns = suns_of(item, Angles(sun_azimuth=sun[0], sun_elevation=sun[1]), scene_grid(west))
    found = find_shadows(bands, everywhere(cloud.shape), cloud, suns, 30)
    assert found.height == pytest.approx(2500, abs=50)
    land = np.asarray(bands.infrared) > 0.05
    assert found.mask[shadow & land].mean() > 0.95


def test_clouds_of_two_heights_have_theirs() -> None:
    sun = (155.0, 55.0)
    low, cloud, shadow = ground_with_clouds(sun, 600)
    high, others, further = ground_with_clouds(sun, 2500, seed=4)
    # The right half has the higher clouds, the left one the lower.
    right = np.arange(cloud.shape[1]) >= 150
    bands = MaskBands(*np.where(right, np.stack(list(vars(high).values())), np.stack(list(vars(low).values()))))
    both, shaded = np.where(right, others, cloud), np.where(right, further, shadow)
    found = find_shadows(bands, everywhere(cloud.shape), both, [sun], 30)
    land = np.asarray(bands.infrared) > 0.05
    # Beside the line shadows are cast by clouds of the other half.
    for part in (slice(0, 100), slice(200, 300)):
        assert found.mask[:, part][(shaded & land)[:, part]].mean() > 0.85


def test_without_clouds_there_are_no_shadows_and_clouds_of_another_place_have_no_height() -> None:
    bands, cloud, _ = ground_with_clouds((155.0, 55.0), 1200, cover=0.0001)
    nothing = np.zeros(cloud.shape, bool)
    assert not find_shadows(bands, everywhere(cloud.shape), nothing, [(155.0, 55.0)], 30).mask.any()
    believed = 0
    for seed in range(10):
        _, other, _ = ground_with_clouds((155.0, 55.0), 1200, seed=100 + seed)
        found = find_shadows(bands, everywhere(cloud.shape), other, [(155.0, 55.0)], 30)
        believed += found.height is not None
    assert believed <= 1


def test_usual_reflectance_is_the_median_around() -> None:
    rng = np.random.default_rng(1)
    layer = rng.random((75, 60)).astype(np.float32)
    usable = rng.random(layer.shape) < 0.6
    usual = usual_reflectance(layer, usable, 15)
    # In the middle of a square nothing is interpolated.
    for y, x in ((22, 22), (37, 37), (7, 52), (67, 7)):
        around = np.zeros(layer.shape, bool)
        around[max(0, y - 22) : y + 23, max(0, x - 22) : x + 23] = True
        assert usual[y, x] == pytest.approx(np.median(layer[around & usable]), rel=1e-6)
    only = np.zeros(layer.shape, bool)
    only[3, 4] = True
    assert (usual_reflectance(layer, only, 15) == layer[3, 4]).all()


def band(number: int, wavelength: float) -> Band:
    return Band(number, wavelength, 8, 1e-4, 0, "vnir")


def test_bands_are_chosen_by_wavelength() -> None:
    wanted = [band(10 + place, nm + 3) for place, nm in enumerate(MASK_WAVELENGTHS)]
    others = [band(1, 460), band(2, 1400), band(3, 2250)]
    assert [one.number for one in bands_for_mask([*others, *reversed(wanted)])] == [10, 11, 12, 13, 14, 15, 16]
    with pytest.raises(SceneError, match="within 15 nm of 1610 nm"):
        bands_for_mask([one for one in wanted if one.wavelength != 1613])


def test_shares_are_of_what_was_looked_at() -> None:
    mask = np.array([[1, 2, 0, 0], [4, 4, 3, 0]], np.uint8)
    quality = np.array([[4, 0, 8, 0], [4, 0, 0, 16]], np.uint16)
    found = mask_columns(mask, quality, 0)
    assert found == {
        "enmap_own_cloud_share": pytest.approx(2 / 6),
        "enmap_own_shadow_share": pytest.approx(2 / 6),
        "enmap_mask_disagreement": pytest.approx(3 / 6),
        "enmap_mask_alone": pytest.approx(2 / 6),
    }
    without = mask_columns(mask, quality, ENMAP_FLAGS["cloud_shadow"])
    assert without == {**found, "enmap_mask_disagreement": None, "enmap_mask_alone": None}
    assert set(mask_columns(np.full_like(mask, 4), quality, 0).values()) == {None}


def test_pixels_of_a_further_array_of_flags_are_kept_out_of_statistics() -> None:
    spec = ArraySpec(
        *("image", "enmap", ("sample", "band", "y30", "x30"), (1, 2, 2), (1, 1, 2, 2)),
        *(np.dtype("int16"), -32768, {}, ""),
        statistics=ArrayStatistics("values", by="flags", also="more"),
    )
    flags = replace(spec, name="flags", statistics=None)
    specs = {"image": spec, "flags": flags, "more": replace(flags, name="more")}
    arrays = {
        "image": np.array([[[[1, 2], [3, 4]]]], np.int16),
        "flags": np.array([[[1, 0], [0, 0]]], np.uint16),
        "more": np.array([[[0, 2], [4, 0]]], np.uint8),
    }

    def counted(**masks: int) -> list[float]:
        (histogram,) = block_sums(arrays, specs, "train", masks).values["image"]
        return [histogram.first + place for place, number in enumerate(histogram.counts) if number]

    assert counted(flags=1, more=2) == [3, 4]
    assert counted(flags=1) == [2, 3, 4]
    assert counted(more=6) == [1, 4]
    del arrays["more"], specs["more"]
    assert counted(flags=1, more=2) == [2, 3, 4]


def test_pictures_show_what_our_mask_alone_says() -> None:
    mask = np.array([[1, 2, 1, 4, 0, 2]], np.uint8)
    quality = np.array([[4, 8, 2, 0, 4, 0]], np.uint16)
    alone = own_alone(mask, quality)
    assert alone["cloud"].tolist() == [[False, False, True, False, False, False]]
    assert alone["cloud_shadow"].tolist() == [[False, False, False, False, False, True]]
    shown = with_own_mask(flag_map(quality, "white"), mask, quality)
    expected = [FLAG_COLOURS["cloud"], FLAG_COLOURS["cloud_shadow"], OWN_COLOURS["cloud"], "white"]
    expected += [FLAG_COLOURS["cloud"], OWN_COLOURS["cloud_shadow"]]
    np.testing.assert_allclose(shown[0], to_rgba_array(expected), atol=1e-6)


def test_mean_spectra_leave_out_what_our_mask_hides() -> None:
    """Half of a field is under cloud or shadow that no layer flags; what was not looked at may be drawn."""
    wavelengths = np.array(MASK_WAVELENGTHS)
    reflectance = spread("vegetation", 6).astype(np.float32)
    quality = np.zeros((6, 6), np.uint16)
    quality[0] = ENMAP_FLAGS["cloud"]
    mask = np.zeros((6, 6), np.uint8)
    mask[1], mask[2], mask[3] = (ENMAP_MASK_FLAGS[name] for name in ("cloud", "cloud_shadow", "unseen"))
    kinds = {"whole cell", "vegetation (NDVI > 0.5)"}
    by_layers, by_both = (land_kinds(reflectance, wavelengths, quality, one) for one in (None, mask))
    assert set(by_layers) == set(by_both) == kinds
    for kind in kinds:
        assert by_layers[kind].all(axis=1).tolist() == [False, True, True, True, True, True]
        assert by_both[kind].any(axis=1).tolist() == [False, False, False, True, True, True]
