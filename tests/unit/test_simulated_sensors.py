"""The simulator's chance, optics, sky and renderers, each against something known."""

from __future__ import annotations

import itertools
import math
from datetime import UTC, datetime

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from h2crop_data.simulate.enmap.bands import enmap_bands
from h2crop_data.simulate.enmap.scenes import (
    COARSE,
    Displacement,
    axis_pieces,
    flight_coordinates,
    noise_of_bands,
    parts,
    seen_by,
    swaths,
)
from h2crop_data.simulate.ground import fine_axis
from h2crop_data.simulate.optics import FINE_GROUND, NYQUIST_TRANSFER, margin, sample, sampling
from h2crop_data.simulate.plants.spectra import WAVELENGTHS
from h2crop_data.simulate.randomness import generator, key_of, lattice_values, noise_at, noise_grid
from h2crop_data.simulate.sentinel2.bands import sentinel2_response
from h2crop_data.simulate.sentinel2.pieces import pieces
from h2crop_data.simulate.sentinel2.scenes import numbers_in_file
from h2crop_data.simulate.settings import EnmapArchive, SkySettings
from h2crop_data.simulate.sky.atmosphere import bands_of, corrected, top_of_atmosphere
from h2crop_data.simulate.sky.clouds import FORMS, CloudLayer, Sun, soft_cover
from h2crop_data.simulate.sky.weather import Sky, Weather, draw_sky, sun_position, weather_over

REGION = (493440, 5376000, 501120, 5383680)


def test_noise_is_a_function_of_the_place_whatever_the_window() -> None:
    x, y = np.arange(1000.0, 3000, 10), np.arange(9000.0, 7000, -10)
    whole = noise_grid(7, x, y, 90)
    part = noise_grid(7, x[50:90], y[20:60], 90)
    np.testing.assert_allclose(part, whole[20:60, 50:90], atol=1e-6)
    np.testing.assert_allclose(noise_at(7, x[:40], y[:40], 90), np.diag(whole)[:40], atol=1e-6)
    assert abs(whole.mean()) < 0.2
    assert whole.std() == pytest.approx(1, abs=0.15)
    assert np.abs(np.diff(whole, axis=1)).max() < 0.5, "it is smooth"
    assert np.abs(noise_grid(8, x, y, 90) - whole).mean() > 0.5, "another key, another noise"


def test_lattice_values_are_even_and_unrelated() -> None:
    column, row = np.meshgrid(np.arange(-200, 200), np.arange(-200, 200))
    values = lattice_values(key_of(3, "test"), column, row)
    counts, _ = np.histogram(values, 10, (0, 1))
    assert counts.sum() == values.size
    assert np.abs(counts / values.size - 0.1).max() < 0.005
    for shifted in (values[:, 1:], values[1:, :].T):
        other = values[:, :-1] if shifted.shape == values[:, 1:].shape else values[:-1, :].T
        assert abs(np.corrcoef(shifted.ravel(), other.ravel())[0, 1]) < 0.01
    assert generator(1, "a").random() != generator(1, "b").random()
    assert generator(1, "a").random() == generator(1, "a").random()


@pytest.mark.parametrize("size", [10, 20, 30, 60])
def test_the_point_spread_has_its_transfer_at_the_nyquist_frequency(size: int) -> None:
    # A wave of two pixels' length keeps NYQUIST_TRANSFER of its contrast.
    ground = fine_axis(0, 3000, 2 * size)
    pixels = np.arange(1000.0, 2000, size)
    for phase in (0, math.pi / 2):
        wave = np.cos(np.pi * (ground - pixels[0]) / size + phase)
        seen = sampling(pixels, size, ground) @ wave
        expected = np.cos(np.pi * np.arange(len(pixels)) + phase) * NYQUIST_TRANSFER
        np.testing.assert_allclose(seen, expected, atol=0.02)
    assert np.abs(ground[0] - pixels[0]) > margin(size)


@given(st.floats(-40, 40), st.sampled_from([10, 20, 30]))
@settings(max_examples=30, deadline=None)
def test_sampling_keeps_a_slope_wherever_the_pixels_lie(shift: float, size: int) -> None:
    ground = fine_axis(-500, 500, margin(size))
    pixels = np.arange(-300.0, 300, size) + shift
    slope = np.outer(np.ones(len(ground)), 3 + 0.01 * ground).astype(np.float32)
    rows, columns = sampling(np.zeros(1), size, ground), sampling(pixels, size, ground)
    np.testing.assert_allclose(sample(slope[None], rows, columns)[0, 0], 3 + 0.01 * pixels, atol=0.004)


def test_the_fine_ground_lies_on_the_lines_of_the_land() -> None:
    for first, last in ((1003.0, 1907.5), (1907.5, 1003.0)):
        axis = fine_axis(first, last, 30)
        assert np.all((axis - FINE_GROUND / 2) % FINE_GROUND == 0)
        assert min(axis) <= 973
        assert max(axis) >= 1937
        assert np.all(np.diff(axis) == (FINE_GROUND if first < last else -FINE_GROUND))


@pytest.mark.parametrize(
    ("moment", "place", "azimuth", "elevation"),
    [
        # What the archives state of real scenes: EnMAP over Bavaria, Sentinel-2 off Antarctica in winter.
        (datetime(2023, 6, 29, 11, 1, 34, tzinfo=UTC), (11.28, 48.03), 170.87, 64.97),
        (datetime(2025, 7, 31, 13, 19, 22, tzinfo=UTC), (-59.40, -60.43), 39.49, 4.16),
    ],
)
def test_the_sun_stands_where_almanacs_say(
    moment: datetime, place: tuple[float, float], azimuth: float, elevation: float
) -> None:
    sun = sun_position(moment, *place)
    assert sun.azimuth == pytest.approx(azimuth, abs=1)
    assert sun.elevation == pytest.approx(elevation, abs=0.5)


def clouded(kind: str, cover: float, sun: Sun, opacity: float = 0.9) -> Sky:
    return Sky(key_of(5, kind), sun, (CloudLayer(kind, cover, opacity),), 0.0, 0.0)  # type: ignore[arg-type]


def test_a_shadow_lies_where_the_line_to_the_sun_meets_its_cloud() -> None:
    # Sun in the south-east: the shadow lies to the north-west of the cloud, by height over the tangent of elevation.
    sun = Sun(135.0, 40.0)
    x, y = np.arange(0.0, 12000, 20), np.arange(12000.0, 0, -20)
    weather = weather_over(clouded("cumulus", 0.15, sun), x, y)
    reach = FORMS["cumulus"].height / math.tan(math.radians(40)) / math.sqrt(2)
    steps = round(reach / 20)
    # Towards west is a smaller column, towards north a smaller row.
    moved = weather.cloud[steps:, steps:]
    np.testing.assert_allclose(weather.shadow[:-steps, :-steps], moved, atol=0.3)
    assert weather.cloud.max() > 0.85
    assert np.corrcoef(weather.shadow[:-steps, :-steps].ravel(), moved.ravel())[0, 1] > 0.99


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["cumulus", "stratus", "cirrus"])
@pytest.mark.parametrize("cover", [0.1, 0.4, 0.8])
def test_clouds_cover_their_share_with_soft_edges(kind: str, cover: float) -> None:
    x = np.arange(0.0, 120_000, 120)
    weather = weather_over(clouded(kind, cover, Sun(160, 50), 1.0), x, x[::-1])
    field = weather.cirrus if kind == "cirrus" else weather.cloud
    assert (field > 0.5).mean() == pytest.approx(cover, abs=0.06)
    assert ((field > 0.05) & (field < 0.95)).mean() > 0.05, "edges are soft"
    assert field.min() >= 0
    assert field.max() <= 1


def test_skies_are_drawn_as_cloudy_as_wanted() -> None:
    sun = Sun(160, 50)
    for cloudiness in (0.1, 0.35, 0.7):
        skies = [draw_sky(1, f"{cloudiness}/{i}", SkySettings(cloudiness=cloudiness), 7, sun) for i in range(600)]
        covers = [sum(layer.cover for layer in sky.layers if layer.kind != "cirrus") for sky in skies]
        assert np.mean(covers) == pytest.approx(cloudiness, abs=0.06)
        assert np.mean([sky.haze > 0 for sky in skies]) == pytest.approx(0.2, abs=0.06)
        assert all(sky.snow == 0 for sky in skies), "no snow in July"
    winter = [draw_sky(1, str(i), SkySettings(snow=0.5), 1, sun) for i in range(300)]
    assert np.mean([sky.snow > 0 for sky in winter]) == pytest.approx(0.5, abs=0.1)
    assert not draw_sky(1, "x", SkySettings(cloudiness=0, cirrus=0, haze=0, snow=0), 1, sun).layers


@given(st.floats(0.05, 0.95))
@settings(max_examples=20, deadline=None)
def test_soft_cover_is_above_one_half_on_its_share_of_normal_noise(cover: float) -> None:
    noise = np.random.default_rng(0).standard_normal(40_000).astype(np.float32)
    assert (soft_cover(noise, cover, 0.5) > 0.5).mean() == pytest.approx(cover, abs=0.02)


def test_the_cirrus_band_sees_cirrus_only_and_clouds_are_white() -> None:
    response = sentinel2_response()
    bands = bands_of(WAVELENGTHS, response, np.full(len(WAVELENGTHS), 0.8))
    ground = np.full((13, 1, 4), 0.3, np.float32)
    none, some = np.zeros((1, 4), np.float32), np.zeros((1, 4), np.float32)
    cloud, cirrus = some.copy(), some.copy()
    cloud[0, 1], cirrus[0, 2] = 1, 0.3
    weather = Weather(cloud, cirrus, none, none, none)
    seen = top_of_atmosphere(ground, weather, bands, Sun(160, 50))
    b10, b02, b11 = 10, 1, 11
    assert seen[b10, 0, 0] < 0.003, "water vapour hides the ground at 1375 nm"
    assert seen[b10, 0, 1] < 0.02, "and low clouds"
    assert seen[b10, 0, 2] > 0.02, "but not cirrus"
    assert seen[b02, 0, 0] > ground[b02, 0, 0] * 0.95, "air scatters in the blue"
    assert seen[b02, 0, 1] > 0.6
    assert seen[b11, 0, 1] < seen[b02, 0, 1], "water absorbs in the short-wave infrared"
    corrected_values = corrected(ground, weather, bands)
    np.testing.assert_array_equal(corrected_values[:, 0, 0], ground[:, 0, 0])
    assert corrected_values[b02, 0, 1] > 0.6


@given(st.floats(-0.05, 1.5), st.sampled_from([0, 1000]), st.booleans())
@settings(max_examples=60, deadline=None)
def test_numbers_in_files_follow_the_archives(reflectance: float, offset: int, removed: bool) -> None:
    number = int(numbers_in_file(np.full((1, 1), reflectance, np.float32), offset, removed)[0, 0])
    exact = round(float(np.float32(reflectance)) * 10000, 2)
    assert 1 <= number <= 65535, "0 is nodata"
    if removed:
        assert abs(number - max(1, exact)) <= 1, "what lay below zero is gone"
    else:
        assert abs(number - max(1, exact + offset)) <= 1


def test_pieces_tile_what_is_drawn_without_gap_or_overlap() -> None:
    bounds = (493200, 5375760, 501360, 5383920)
    seen = np.zeros(((bounds[3] - bounds[1]) // 60, (bounds[2] - bounds[0]) // 60), int)
    for piece in pieces(32631, bounds):
        west, south, east, north = piece.bounds
        rows = slice((bounds[3] - north) // 60, (bounds[3] - south) // 60)
        seen[rows, (west - bounds[0]) // 60 : (east - bounds[0]) // 60] += 1
    assert np.all(seen == 1)
    low, high = 493035, 501405
    edges = list(axis_pieces(low, high))
    assert edges[0][1] == low
    assert edges[-1][2] == high
    assert all(one[2] == other[1] for one, other in itertools.pairwise(edges))


@given(st.floats(-40, 40), st.integers(2, 30), st.floats(0.2, 1.0))
@settings(max_examples=40, deadline=None)
def test_tiles_cover_the_region_or_its_share_and_overlap(tilt: float, kilometres: int, coverage: float) -> None:
    chosen = EnmapArchive(tilt=tilt, tile_size=max(2000, kilometres * 1000), overlap=900)
    datatakes = swaths(REGION, chosen, 1.0)
    x, y = np.arange(REGION[0], REGION[2], 240.0), np.arange(REGION[1], REGION[3], 240.0)
    looks = sum(seen_by(tile, x, y)[0].astype(int) for datatake in datatakes for tile in datatake)
    assert np.all(looks >= 1)
    tiles = [tile for datatake in datatakes for tile in datatake]
    if len(tiles) > 1:
        assert np.any(looks > 1)
    for tile in tiles:
        west, south, east, north = tile.grid_bounds
        assert all(value % 30 == 15 for value in (west, south, east, north)), "corners at odd multiples of 15 m"
        assert all(west <= px <= east and south <= py <= north for px, py in tile.corners)
        assert tile.across[1] - tile.across[0] <= chosen.tile_size + 1e-6
        assert tile.along[1] - tile.along[0] <= chosen.tile_size + 1e-6
    part = [tile for datatake in swaths(REGION, chosen, coverage) for tile in datatake]
    width = max(tile.across[1] for tile in tiles) - min(tile.across[0] for tile in tiles)
    seen = max(tile.across[1] for tile in part) - min(tile.across[0] for tile in part)
    assert seen == pytest.approx(width * coverage, rel=1e-6)


def test_parts_are_equal_and_overlap_by_what_is_wanted() -> None:
    chosen = EnmapArchive(tile_size=5000, overlap=1000)
    cut = parts(0, 14_000, chosen)
    assert len(cut) == 4
    assert cut[0][0] == 0
    assert cut[-1][1] == pytest.approx(14_000)
    assert all(one[1] - other[0] == pytest.approx(1000) for one, other in itertools.pairwise(cut))


def test_displacement_is_a_shift_and_a_slow_change() -> None:
    place = Displacement((7.5, -3.0), 0.0, REGION)
    x = np.arange(REGION[0], REGION[2], 30.0)
    assert np.all(place.east(x) == 7.5)
    assert np.all(place.north(x) == -3.0)
    slow = Displacement((7.5, -3.0), 20.0, REGION).east(x)
    assert slow.max() == pytest.approx(27.5, abs=0.1)
    assert np.abs(np.diff(slow)).max() < COARSE * 0.02


def test_turning_keeps_lengths_and_is_north_at_zero() -> None:
    x, y = np.array([0.0, 300.0]), np.array([0.0, 400.0])
    across, along = flight_coordinates(x, y, 12.5)
    assert math.hypot(across[1, 1], along[1, 1]) == pytest.approx(500)
    across, along = flight_coordinates(x, y, 0)
    assert across[0, 1] == 300
    assert along[1, 0] == 400


def test_the_noise_of_enmap_is_that_of_its_worst_bands() -> None:
    centres, _ = enmap_bands()
    noise = noise_of_bands()
    # Real files: the band at 1939 nm has a standard deviation of 0.27 over a scene.
    assert noise[np.abs(centres - 1939).argmin()] == pytest.approx(0.27, abs=0.03)
    assert np.median(noise) < 0.006
