"""One real EnMAP scene, built into a store and held against the files it came from."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import rasterio

import h2crop_data
from h2crop_data.cube.reading import read_index

RECIPE = Path(__file__).parent / "recipes/potsdam_2022.yaml"
SEASON = 2022
FILL = -32768
WEST, NORTH = 365055, 5807085
CLOUD, CIRRUS_MEDIUM = 4, 64


@pytest.fixture(scope="module")
def product(shared: Path) -> Path:
    return next((shared / "potsdam_2022").glob("ENMAP01*"))


@pytest.fixture(scope="module")
def store(build_real: Callable[..., Path]) -> Path:
    return build_real(RECIPE)


@pytest.fixture(scope="module")
def season(store: Path) -> Any:
    return h2crop_data.open(store, SEASON).load()


@pytest.fixture(scope="module")
def bands(product: Path) -> list[tuple[int, float, float]]:
    """Number, wavelength and FWHM of every band of the product, by text search in its metadata."""
    xml = next(product.glob("*METADATA.XML")).read_text(encoding="utf-8")
    pattern = (
        r'<bandID number="(\d+)">\s*<wavelengthCenterOfBand>([\d.]+)</wavelengthCenterOfBand>\s*'
        r"<FWHMOfBand>([\d.]+)</FWHMOfBand>"
    )
    return [(int(number), float(centre), float(width)) for number, centre, width in re.findall(pattern, xml)]


def test_three_samples_of_218_bands(season: Any) -> None:
    assert season.sample.values.tolist() == [f"32633_960_0{column}_6048_20220724T104526" for column in (381, 382, 383)]
    assert season.enmap.shape == (3, 218, 32, 32)
    assert season.enmap.dtype == np.int16
    assert (season.y0 == 6049 * 960).all()


def test_wavelengths_are_those_of_the_metadata_without_water_vapour(season: Any, bands: Any) -> None:
    kept = sorted((centre, width) for number, centre, width in bands if not 130 <= number <= 135)
    for i in range(3):
        np.testing.assert_allclose(season.wavelength[i], [centre for centre, _ in kept], rtol=1e-6)
        np.testing.assert_allclose(season.fwhm[i], [width for _, width in kept], rtol=1e-6)
    assert (np.diff(season.wavelength[0]) > 0).all()


def source_pixels(season: Any, i: int) -> tuple[np.ndarray, np.ndarray]:
    """Column and row in the product of the corner shared by the four source pixels under each pixel of sample i."""
    column = (float(season.x0[i]) - WEST) / 30 + np.arange(32) + 0.5
    row = (NORTH - float(season.y0[i])) / 30 + np.arange(32) + 0.5
    return column, row


def test_made_cloud_and_cirrus_are_where_they_were_made(season: Any) -> None:
    found = {CLOUD: 0, CIRRUS_MEDIUM: 0}
    for i in range(3):
        column, row = source_pixels(season, i)
        for flag, (top, bottom, left, right) in {CLOUD: (6, 15, 60, 69), CIRRUS_MEDIUM: (20, 27, 80, 99)}.items():
            # A pixel centre lies on a corner of source pixels: its footprint touches the pixels before and after.
            down = (np.round(row) >= top) & (np.round(row) - 1 <= bottom)
            across = (np.round(column) >= left) & (np.round(column) - 1 <= right)
            expected = down[:, None] & across[None, :]
            np.testing.assert_array_equal((season.enmap_quality[i].values & flag) != 0, expected)
            found[flag] += int(expected.sum())
    assert found[CLOUD] == 11 * 11
    assert found[CIRRUS_MEDIUM] == 9 * 21


def test_water_is_flagged_where_it_is_dark_in_the_infrared(season: Any) -> None:
    water = (season.enmap_quality.values & 2) != 0
    near_infrared = np.abs(season.wavelength[0].values - 1000).argmin()
    reflectance = season.enmap.values[:, near_infrared]
    assert 0.02 < water.mean() < 0.8
    assert np.median(reflectance[water]) < 0.5 * np.median(reflectance[~water])


def cubic_kernel(distance: np.ndarray) -> np.ndarray:
    """Cubic convolution with a = -0.5 (Keys 1981)."""
    a, x = -0.5, np.abs(distance)
    near = (a + 2) * x**3 - (a + 3) * x**2 + 1
    far = a * x**3 - 5 * a * x**2 + 8 * a * x - 4 * a
    return np.where(x <= 1, near, np.where(x < 2, far, 0))


def test_values_are_cubic_convolution_within_one_number(season: Any, product: Path, bands: Any) -> None:
    order = [
        number for _, number in sorted((centre, number) for number, centre, _ in bands if not 130 <= number <= 135)
    ]
    with rasterio.open(next(product.glob("*SPECTRAL_IMAGE*"))) as raster:
        source = raster.read(order).astype(float)
    padded = np.pad(source, ((0, 0), (2, 2), (2, 2)), constant_values=FILL)
    compared = 0
    for i in range(3):
        columns, rows = source_pixels(season, i)
        for y, row in enumerate(rows):
            for x, column in enumerate(columns):
                # Pixel k covers k..k+1, its centre is k + 0.5; the kernel reaches two pixels either way.
                down, right = int(np.floor(row - 0.5)) - 1, int(np.floor(column - 0.5)) - 1
                weight = np.outer(
                    cubic_kernel(np.arange(down, down + 4) + 0.5 - row),
                    cubic_kernel(np.arange(right, right + 4) + 0.5 - column),
                )
                window = padded[:, down + 2 : down + 6, right + 2 : right + 6]
                whole = (window != FILL).all(axis=(1, 2))
                expected = (window * weight).sum(axis=(1, 2)) / weight.sum()
                stored = season.enmap.values[i, :, y, x]
                assert (np.abs(stored[whole] - expected[whole]) <= 1).all()
                compared += int(whole.sum())
    assert compared > 0.9 * 3 * 218 * 32 * 32


def test_nothing_measured_is_lost_and_nothing_made_up(season: Any) -> None:
    outside = (season.enmap_quality.values & 1) != 0
    assert not outside.any()
    assert (season.enmap != FILL).mean() > 0.99
    assert season.enmap.values[season.enmap.values != FILL].min() > -500


def test_the_scene_and_its_angles_are_recorded(store: Path) -> None:
    samples = read_index(store, f"samples-{SEASON}")
    assert samples["scene"].str.startswith("ENMAP01-____L2A-DT0000001867_20220724T104526Z_008").all()
    assert (samples["sun_elevation"] == 56.0).all()
    assert samples["flagged_share"].tolist() == pytest.approx(samples["enmap_flagged_share"].tolist())
    scenes = read_index(store, "scenes")
    assert scenes["taken"].tolist() == [True]


def test_scaled_reflectance_is_physical(store: Path) -> None:
    scaled = h2crop_data.open(store, SEASON, scaled=True).load()
    assert scaled.enmap.dtype == np.float32
    assert 0.0 < float(scaled.enmap.median()) < 0.6


def test_what_its_metadata_and_pixels_say_is_kept_with_every_sample(store: Path) -> None:
    samples = read_index(store, f"samples-{SEASON}")
    for _, row in samples.iterrows():
        assert row["enmap_day_of_year"] == 205  # 24 July
        assert row["enmap_sun_zenith"] == 34.0
        assert list(row["enmap_layers_missing"]) == ["defective_pixel_mask"]
        assert list(row["enmap_noisy_bands"]) == ["1939.44"]
        assert list(row["enmap_empty_bands"]) == []
    # METADATA.XML of the sample states no viewing angles: unknown is null, not 0.
    assert samples["enmap_view_zenith"].isna().all()
    assert samples["enmap_cloud_share"].notna().all()


def test_the_datasheet_says_which_layer_and_which_bands(store: Path) -> None:
    sheet = (store / "DATASHEET.md").read_text(encoding="utf-8")
    assert "lack a quality layer: `defective_pixel_mask` (3 samples)" in sheet
    assert "Bands mostly noise in some scene, and stored all the same: 1939 nm" in sheet
