"""Simulated images held against real ones: Sentinel-2 of Flanders and Slovenia, EnMAP of Potsdam.

One region is simulated without clouds and compared by its statistics: nobody simulated those places, so ranges and
shapes are compared, never pixels. The tolerances say how near the simulation is, not how near it ought to be.
"""

from __future__ import annotations

from datetime import UTC, datetime
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import rasterio
from rasterio.enums import Resampling
from scipy.ndimage import binary_erosion

from h2crop_data.simulate.enmap.bands import enmap_bands
from h2crop_data.simulate.land.rotation import growth_of_code
from h2crop_data.simulate.plants.phenology import Ground, abundances
from h2crop_data.simulate.region import simulate_region
from h2crop_data.simulate.sentinel2.bands import SENTINEL2_MSI
from h2crop_data.simulate.sentinel2.scenes import msi_bands
from h2crop_data.simulate.settings import load_settings
from h2crop_data.simulate.sky.atmosphere import at_ground, corrected, top_of_atmosphere
from h2crop_data.simulate.sky.clouds import Sun
from h2crop_data.simulate.sky.weather import Weather

FAIR = {"cloudiness": 0.0, "cirrus": 0.0, "haze": 0.0, "snow": 0.0}
#: The months between catch crops and winter, of which the real series has enough clear dates.
MONTHS = (5, 6, 7, 8, 9, 10)
REGION: dict[str, Any] = {
    "seed": 25,
    "cells": 4,
    "truth_reflectance": False,
    "sentinel2.months": list(MONTHS),
    "sentinel2.dates_per_month": 3,
    "sentinel2.sky": FAIR,
    "sentinel2.duplicates": 0.0,
    "sentinel2.swath_edges": 0.0,
    "enmap.scenes": 1,
    "enmap.months": [7],
    "enmap.sky": FAIR,
    "enmap.defective_columns": 0,
}
BANDS = {
    **{"blue": "B02", "green": "B03", "red": "B04", "rededge1": "B05", "rededge2": "B06"},
    **{"rededge3": "B07", "nir": "B08", "nir08": "B8A", "swir16": "B11", "swir22": "B12"},
}
#: SCL classes taken as clear: vegetation and bare soil.
CLEAR = (4, 5)
WINDOW = 64
#: Code of the real table, growth type.
CROPS = {"maize": (1200, "maize"), "grassland": (9120, "grassland"), "potatoes": (5100, "potato")}


@pytest.fixture(scope="module")
def region(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("images") / "region"
    simulate_region(load_settings(None, REGION), folder, workers=2)
    return folder


def day_of(scene: Path) -> datetime:
    """The day in the name of a scene's folder, S2_31UDS_20180501_... or S2A_T31UDP_20180501T..."""
    return datetime.strptime(scene.name.split("_")[2][:8], "%Y%m%d").replace(tzinfo=UTC)


def real_scenes(shared: Path) -> list[Path]:
    return [scene for scene in sorted((shared / "flanders_2018").glob("S2_*_2018*")) if day_of(scene).month in MONTHS]


def simulated_scenes(region: Path) -> list[Path]:
    return sorted({path.parent for path in (region / "products").glob("sentinel-2-c1-l2a/**/SCL.tif")}, key=day_of)


@lru_cache(maxsize=8)
def extent(region: Path) -> Any:
    """Number of the field on each pixel (y, x) of 10 m of the cells, and their bounds."""
    with rasterio.open(region / "truth/fields.tif") as file:
        return file.read(1), file.bounds


def simulated_band(scene: Path, name: str, region: Path, size: int = 10) -> Any:
    """Reflectance (y, x) of a band over the cells."""
    fields, bounds = extent(region)
    with rasterio.open(scene / f"{name}.tif") as file:
        shape = tuple(side * 10 // size for side in fields.shape)
        numbers = file.read(1, window=file.window(*bounds), out_shape=shape, resampling=Resampling.average)
    return (numbers.astype(np.float32) - 1000) / 10_000


def real_band(scene: Path, name: str, size: int = 10) -> Any:
    with rasterio.open(scene / f"{name}.tif") as file:
        shape = (640 // size, 640 // size)
        return file.read(1, out_shape=shape, resampling=Resampling.average).astype(np.float32) / 10_000


def real_classes(scene: Path, size: int = 10) -> Any:
    with rasterio.open(scene / "scl.tif") as file:
        return file.read(1).repeat(20 // size, 0).repeat(20 // size, 1)


def ndvi(red: Any, nir: Any) -> Any:
    return (nir - red) / np.maximum(nir + red, 1e-3)


def common_share(one: Any, other: Any) -> Any:
    """Common part of the ranges p2..p98 of two samples (n, band), as a share of the narrower one: (band,)."""
    (low, high), (low2, high2) = np.percentile(one, [2, 98], axis=0), np.percentile(other, [2, 98], axis=0)
    common = np.minimum(high, high2) - np.maximum(low, low2)
    return np.maximum(common, 0) / np.minimum(high - low, high2 - low2)


@pytest.mark.parametrize("month", MONTHS)
def test_reflectance_of_fields_has_the_range_of_real_ones(region: Path, shared: Path, month: int) -> None:
    real = []
    for scene in real_scenes(shared):
        clear = np.isin(real_classes(scene, 20), CLEAR)
        if day_of(scene).month == month and clear.mean() > 0.5:
            real.append(np.stack([real_band(scene, name, 20)[clear] for name in BANDS], axis=1))
    fields = extent(region)[0][::2, ::2] > 0
    simulated = [
        np.stack([simulated_band(scene, name, region, 20)[fields] for name in BANDS.values()], axis=1)
        for scene in simulated_scenes(region)
        if day_of(scene).month == month
    ]
    shares = common_share(np.concatenate(real), np.concatenate(simulated))
    # Measured: 0.68 (740 to 865 nm in May, where real grass is brighter) to 1; in most months and bands above 0.9.
    assert shares.min() > 0.5, dict(zip(BANDS, shares.round(2).tolist(), strict=True))


def correlation_length(field: Any) -> float:
    """Metres at which the autocorrelation of a field (y, x) of 10 m, mean of both directions, falls below 1/e."""
    centred = field - field.mean()
    values = [1.0]
    for step in range(1, WINDOW // 2):
        across = (centred[:, :-step] * centred[:, step:]).mean()
        down = (centred[:-step] * centred[step:]).mean()
        values.append(float((across + down) / 2 / (centred**2).mean()))
        if values[-1] < 1 / np.e:
            return 10 * (step - (1 / np.e - values[-1]) / (values[-2] - values[-1]))
    return 10.0 * (WINDOW // 2)


def windows(image: Any) -> list[Any]:
    height, width = image.shape
    places = [(y, x) for y in range(0, height - WINDOW + 1, WINDOW) for x in range(0, width - WINDOW + 1, WINDOW)]
    return [image[y : y + WINDOW, x : x + WINDOW] for y, x in places]


def test_fields_are_as_large_as_real_ones_by_autocorrelation(region: Path, shared: Path) -> None:
    clear = [scene for scene in real_scenes(shared) if np.isin(real_classes(scene), CLEAR).mean() > 0.98]
    assert len(clear) >= 5
    real = [(real_band(scene, "red"), real_band(scene, "nir")) for scene in clear]
    drawn = [
        (simulated_band(scene, "B04", region), simulated_band(scene, "B08", region))
        for scene in simulated_scenes(region)
    ]
    for name, measure in (("NDVI", ndvi), ("B08", lambda red, nir: nir)):
        lengths = []
        for looks in (real, drawn):
            found = [correlation_length(window) for red, nir in looks for window in windows(measure(red, nir))]
            lengths.append(float(np.median(found)))
        # Measured: 121 m really and 87 m simulated for NDVI, 114 m and 84 m for B08.
        assert 1 / 2 < lengths[1] / lengths[0] < 2, (name, lengths)


def inner(same: Any) -> Any:
    """Pixels whose four neighbours are of the same crop."""
    return binary_erosion(same)


def simulated_curve(region: Path, growth: str) -> tuple[list[int], list[float]]:
    """Days of the year and median NDVI of the inner pixels of fields of a growth type, from the images."""
    numbers, _ = extent(region)
    crops = pd.read_parquet(region / "truth/crops-2022.parquet").set_index("number")["crop"]
    wanted = crops.index[[growth_of_code().get(code) == growth for code in crops]]
    borders = np.pad(numbers, 1)
    whole = (numbers == borders[1:-1, 2:]) & (numbers == borders[2:, 1:-1])
    where = np.isin(numbers, wanted) & whole & (numbers == borders[1:-1, :-2]) & (numbers == borders[:-2, 1:-1])
    assert where.sum() > 1000
    curve = []
    for scene in simulated_scenes(region):
        values = ndvi(simulated_band(scene, "B04", region)[where], simulated_band(scene, "B08", region)[where])
        curve.append(float(np.median(values)))
    return [day_of(scene).timetuple().tm_yday for scene in simulated_scenes(region)], curve


@pytest.mark.parametrize("crop", CROPS)
def test_ndvi_of_crops_by_month_is_that_of_real_fields(region: Path, shared: Path, crop: str) -> None:
    code, growth = CROPS[crop]
    with rasterio.open(shared / "flanders_2018/crop_type_2018.tif") as file:
        of_crop = inner(file.read(1) == code)
    days, curve = simulated_curve(region, growth)
    pairs: dict[int, list[tuple[float, float]]] = {}
    for scene in real_scenes(shared):
        seen = of_crop & np.isin(real_classes(scene), CLEAR)
        if seen.sum() >= of_crop.sum() / 2:
            real = float(np.median(ndvi(real_band(scene, "red")[seen], real_band(scene, "nir")[seen])))
            drawn = float(np.interp(day_of(scene).timetuple().tm_yday, days, curve))
            pairs.setdefault(day_of(scene).month, []).append((real, drawn))
    months = np.array([np.median(found, axis=0) for found in pairs.values() if len(found) >= 3])
    assert len(months) >= 5
    # Measured: maize 0.06 and 0.98, grassland 0.08 and 0.89, potatoes 0.10 and 0.90.
    assert np.abs(months[:, 0] - months[:, 1]).mean() < 0.12, months.round(2).tolist()
    assert np.corrcoef(months.T)[0, 1] > 0.85, months.round(2).tolist()


def test_wheat_and_barley_turn_yellow_in_their_order(region: Path) -> None:
    # Yellow ripeness (BBCH 87) of winter barley falls in June, of winter wheat in July, in the network of the DWD
    # (described by Kaspar, Zimmermann & Polte-Rudolf, 2014, Advances in Science and Research 11).
    ripe = {}
    for growth in ("winter_barley", "winter_wheat"):
        days, curve = simulated_curve(region, growth)
        assert curve[0] > 0.75, "green in May"
        ripe[growth] = next(day for day, value in zip(days, curve, strict=True) if value < 0.45)
    june, july, august = 152, 182, 213
    assert june <= ripe["winter_barley"] < july
    assert july <= ripe["winter_wheat"] < august


@pytest.fixture(scope="module")
def potsdam(shared: Path) -> Any:
    """Reflectance (band, y, x) in order of wavelength, NaN where there is none."""
    return enmap_image(next((shared / "potsdam_2022").glob("ENMAP01*/*SPECTRAL_IMAGE*.TIF")))


@pytest.fixture(scope="module")
def simulated_enmap(region: Path) -> Any:
    """The same of the simulated scene."""
    return enmap_image(next((region / "products").glob("enmap/**/*SPECTRAL_IMAGE*.TIF")))


def enmap_image(path: Path) -> Any:
    with rasterio.open(path) as file:
        numbers = file.read()
    return np.where(numbers == -32768, np.nan, numbers / 10_000).astype(np.float32)


CENTRES = enmap_bands()[0]
#: Bands with numbers, and those of them outside the deepest water vapour.
FILLED = ~((CENTRES > 1325) & (CENTRES < 1395))
USABLE = FILLED & ~((CENTRES > 1895) & (CENTRES < 1960))


def kinds(image: Any) -> dict[str, Any]:
    """Where (y, x) dense vegetation, water and built-up or bare ground are, by NDVI and NDWI."""
    green, red, nir = (image[np.abs(CENTRES - centre).argmin()] for centre in (560, 665, 842))
    greenness, wetness = ndvi(red, nir), (green - nir) / np.maximum(green + nir, 1e-3)
    return {
        "vegetation": (greenness > 0.8) & (nir > 0.2),
        "water": wetness > 0.3,
        "built-up": (greenness < 0.25) & (wetness < 0),
    }


@pytest.mark.parametrize("kind", ["vegetation", "built-up"])
def test_enmap_spectra_have_the_range_of_real_ones(potsdam: Any, simulated_enmap: Any, kind: str) -> None:
    real, drawn = (image[USABLE][:, kinds(image)[kind]].T for image in (potsdam, simulated_enmap))
    assert min(len(real), len(drawn)) > 500
    shares = common_share(real, drawn)
    # Measured: vegetation 0.62 and 0.87 in the worst and the middle band, built-up ground 0.36 and 0.68.
    assert shares.min() > 0.25, CENTRES[USABLE][shares.argmin()]
    assert np.median(shares) > 0.5


def test_water_of_enmap_is_dark_as_in_a_real_scene(potsdam: Any, simulated_enmap: Any) -> None:
    real, drawn = (np.median(image[USABLE][:, kinds(image)["water"]], axis=1) for image in (potsdam, simulated_enmap))
    # The real product's lakes are almost black, below 0.01; the simulated ones are as bright as turbid water is.
    assert np.abs(real - drawn).max() < 0.06
    assert drawn[CENTRES[USABLE] > 850].max() < 0.02
    visible = CENTRES[USABLE] < 700
    peaks = [float(CENTRES[USABLE][visible][water[visible].argmax()]) for water in (real, drawn)]
    assert peaks[0] == pytest.approx(peaks[1], abs=40), "both are green"


def test_bands_of_enmap_go_together_as_in_a_real_scene(potsdam: Any, simulated_enmap: Any) -> None:
    # Bands across the spectrum, over all land of each scene.
    nearest = sorted({int(np.abs(CENTRES - centre).argmin()) for centre in range(450, 2450, 100)})
    chosen = [band for band in nearest if USABLE[band]]
    real, drawn = (
        np.corrcoef(image[chosen][:, np.isfinite(image[0]) & ~kinds(image)["water"]])
        for image in (potsdam, simulated_enmap)
    )
    pairs = np.triu_indices(len(chosen), 1)
    # Measured: 0.85 and 0.17.
    assert np.corrcoef(real[pairs], drawn[pairs])[0, 1] > 0.7
    assert np.abs(real[pairs] - drawn[pairs]).mean() < 0.25


def noise_by_band(image: Any) -> Any:
    """Noise (band,) of an image: what the four nearest bands do not explain in squares of 8 pixels, lower quartile.

    After Roger & Arnold (1996, International Journal of Remote Sensing 17): neighbours of a band know all of it but its
    noise. Squares with water or without numbers are left out.
    """
    filled = np.flatnonzero(FILLED)
    _, height, width = image.shape
    wet = kinds(image)["water"]
    found = []
    for y in range(0, height - 7, 8):
        for x in range(0, width - 7, 8):
            square = image[filled, y : y + 8, x : x + 8].reshape(len(filled), -1).astype(np.float64)
            if np.isfinite(square).all() and wet[y : y + 8, x : x + 8].mean() < 0.05:
                found.append([unexplained(square, band) for band in range(len(filled))])
    assert len(found) > 30
    noise = np.full(len(image), np.nan)
    noise[filled] = np.percentile(found, 25, axis=0)
    return noise


def unexplained(square: Any, band: int) -> float:
    near = [other for other in range(band - 2, band + 3) if other != band and 0 <= other < len(square)]
    known = np.column_stack([np.ones(square.shape[1]), square[near].T])
    coefficients = np.linalg.lstsq(known, square[band], rcond=None)[0]
    rest = square[band] - known @ coefficients
    return float(np.sqrt((rest**2).sum() / (len(rest) - known.shape[1])))


def test_noise_of_enmap_by_band_is_that_of_a_real_scene(potsdam: Any, simulated_enmap: Any) -> None:
    rows, columns = (side // 2 for side in simulated_enmap.shape[1:])
    middle = simulated_enmap[:, rows - 48 : rows + 48, columns - 48 : columns + 48]
    real, drawn = noise_by_band(potsdam), noise_by_band(middle)
    ratio = (drawn / real)[USABLE]
    # The real scene was resampled, which takes some noise away. Measured: 0.98 to 1.77 times, 1.33 in the middle.
    assert 1.0 < np.median(ratio) < 1.7
    assert ratio.min() > 0.6
    assert ratio.max() < 2.5
    assert np.corrcoef(np.log(real[USABLE]), np.log(drawn[USABLE]))[0, 1] > 0.9
    # The band at 1939 nm is the worst of both; in this scene it is quieter than over the published dataset.
    worst = int(np.abs(CENTRES - 1939).argmin())
    assert np.nanargmax(real) == np.nanargmax(drawn) == worst
    spread = [float(np.nanstd(image[worst])) for image in (potsdam, simulated_enmap)]
    assert 1 < spread[1] / spread[0] < 3, spread


def one_place(kind: str, variant: float) -> Ground:
    def text(value: str) -> Any:
        return np.array([value])

    def number(value: float) -> Any:
        return np.array([value], np.float32)

    names = {name: text("") for name in ("growth", "crop", "next_growth", "next_crop", "last_growth", "last_crop")}
    return Ground(
        kind=text(kind),
        variant=number(variant),
        soil=number(0.5),
        catch_crop=np.array([False]),
        last_catch=np.array([False]),
        shift_days=number(0.0),
        vigour=number(1.0),
        **names,
    )


def sky(cloud: Any) -> Weather:
    none = np.zeros_like(cloud)
    return Weather(cloud=cloud, cirrus=none, shadow=none, haze=none, snow=none)


def test_woods_at_the_top_of_the_atmosphere_are_those_of_a_real_series(shared: Path) -> None:
    series = np.load(shared / "slovenia_l1c_2015/eolearn_l1c_5dates_13bands_golden.npz", allow_pickle=True)
    endmembers, bands = msi_bands()
    wood = (abundances(one_place("wood", 0.0), 205, np.array([0.2])) @ endmembers).T[:, :, None]
    for date, elevation in ((0, 62), (3, 50), (4, 47)):
        dense = (series["NDVI"][date, ..., 0] > 0.7) & ~series["CLM_S2C"][date, ..., 0]
        assert dense.sum() > 3000
        real = np.median(series["bands"][date][dense], axis=0)
        clear = sky(np.zeros((1, 1), np.float32))
        drawn = top_of_atmosphere(at_ground(wood, clear, bands), clear, bands, Sun(160, elevation))[:, 0, 0]
        difference = dict(zip(SENTINEL2_MSI, (drawn - real).round(4).tolist(), strict=True))
        # Measured: -0.010 to -0.002 at 443 nm, 0.002 to 0.007 at 490, 0.013 at 560, 0.009 at 665 nm.
        assert all(abs(difference[band]) < 0.015 for band in ("B01", "B02", "B03", "B04")), difference
        assert abs(difference["B10"]) < 0.001, difference


def test_clouds_span_the_brightness_and_have_the_colour_of_real_ones(shared: Path) -> None:
    real = []
    for scene in real_scenes(shared):
        cloudy = real_classes(scene, 20) == 9
        real.append(np.stack([real_band(scene, name, 20)[cloudy] for name in BANDS], axis=1))
    middle = np.median(np.concatenate(real), axis=0)
    low, high = np.percentile(np.concatenate(real)[:, 0], [2, 90])
    endmembers, bands = msi_bands()
    wood = (abundances(one_place("wood", 0.5), 205, np.array([0.2])) @ endmembers).T[:, :, None]
    opacity = np.linspace(0.45, 1.0, 12, dtype=np.float32)[None]
    clouds = corrected(np.repeat(wood, 12, axis=2), sky(opacity), bands)[
        [SENTINEL2_MSI.index(band) for band in BANDS.values()], 0
    ]
    assert clouds[0].min() == pytest.approx(low, abs=0.1)
    assert 0.8 < clouds[0].max() < high + 0.1
    assert (np.diff(clouds[0]) > 0).all(), "thicker clouds are brighter"
    # The colour of the cloud that is as bright in the blue as the median of the real ones.
    same = clouds[:, np.abs(clouds[0] - middle[0]).argmin()]
    # Measured: within 5 % in all bands, 0.73 at 490 nm, 0.49 at 1610 nm.
    np.testing.assert_allclose(same, middle, rtol=0.1, err_msg=str(list(BANDS)))
