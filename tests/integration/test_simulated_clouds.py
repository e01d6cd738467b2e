"""Simulated clouds as the tools made for real ones find them: s2cloudless on L1C, the scene classification of L2A.

The truth is the simulator's own. Measured at 20 m with s2cloudless 1.7.3 (threshold 0.4; 4 and 2 pixels of 10 m for
averaging and dilation), over the dates of this file:

- of pixels under clouds of an opacity above one half 0.9999 are found in summer, all in winter; of those under cirrus
  above 0.1 alone 0.997
- of clear ground (100 m from any cloud) 0.0000 is called cloud in summer, 0.001 in winter, 0.0002 on snow; in other
  regions up to 0.05 of bare winter ground, 0.25 of thin snow in shadow and 0.6 of the densest haze
- with the offset left in, every pixel of every date without snow is called cloud
- SCL without errors: all clouds found, nothing clear called cloud, 1.3 % of clear ground of no clear class (7), all
  shadows found; with `scl_errors` 0.1 these are 0.89, 0.03, 11 % and 0.91
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import rasterio
from rasterio.enums import Resampling
from s2cloudless import S2PixelCloudDetector
from scipy.ndimage import binary_dilation

from h2crop_data.simulate.region import simulate_region
from h2crop_data.simulate.sentinel2.bands import SENTINEL2_MSI
from h2crop_data.simulate.settings import load_settings

#: What s2cloudless looks at, in its order.
DETECTOR_BANDS = ("B01", "B02", "B04", "B05", "B08", "B8A", "B09", "B10", "B11", "B12")
PIXEL = 20
#: A region that takes seconds: 2.9 km wide, nothing but Sentinel-2.
SMALL: dict[str, Any] = {
    "seed": 276,
    "cells": 4,
    "cell_size": 1440,
    "enmap.scenes": 0,
    "truth_reflectance": False,
    "sentinel2.duplicates": 0.0,
    "sentinel2.swath_edges": 0.0,
    "sentinel2.scl_errors": 0.0,
    "sentinel2.dates_per_month": 2,
}
SUMMER = {"sentinel2.months": [5, 6, 7, 8], "sentinel2.sky": {"cloudiness": 0.45, "cirrus": 0.4, "haze": 0.2}}
WINTER = {"sentinel2.months": [1, 2, 12], "sentinel2.sky": {"cloudiness": 0.3, "cirrus": 0.2, "haze": 0.0, "snow": 0.5}}


@dataclass(frozen=True)
class Look:
    """One date: what is true of the sky, and what the products say; (y, x) at 20 m."""

    cloud: Any
    cirrus: Any
    shadow: Any
    haze: Any
    snow: Any
    #: Numbers of the L1C (y, x, 13), and the offset in them; None where no L1C was written.
    numbers: Any
    offset: int
    classes: Any

    @property
    def clear(self) -> Any:
        """Ground 100 m away from any cloud or cirrus."""
        return ~binary_dilation((self.cloud > 0.01) | (self.cirrus > 0.01), iterations=100 // PIXEL)

    @property
    def reflectance(self) -> Any:
        return (self.numbers.astype(np.float32) - self.offset) / 10_000

    def found(self, reflectance: Any = None) -> Any:
        """What s2cloudless calls cloud, (y, x) bool."""
        seen = self.reflectance if reflectance is None else reflectance
        detector = S2PixelCloudDetector(threshold=0.4, average_over=2, dilation_size=1)
        wanted = seen[..., [SENTINEL2_MSI.index(band) for band in DETECTOR_BANDS]]
        return detector.get_cloud_masks(wanted[None])[0].astype(bool)


def items(region: Path, catalog: str) -> dict[str, dict[str, Any]]:
    """The items of a catalog by day."""
    path = region / "catalog" / f"{catalog}.json"
    features = json.loads(path.read_text(encoding="utf-8"))["features"] if path.exists() else []
    return {item["properties"]["datetime"][:10]: item for item in features}


def read_over(path: Path, bounds: Any, shape: tuple[int, int]) -> Any:
    """A file over some bounds at 20 m, (y, x): means of smaller pixels, repeated larger ones."""
    with rasterio.open(path) as file:
        resampling = Resampling.average if file.res[0] < PIXEL else Resampling.nearest
        return file.read(1, window=file.window(*bounds), out_shape=shape, resampling=resampling)


def files_by_band(region: Path, item: dict[str, Any]) -> dict[str, Path]:
    """The raster of each band of an item, by the name in its file."""
    paths = [region / "catalog" / asset["href"] for asset in item["assets"].values()]
    return {path.stem: path for path in paths if path.suffix == ".tif"}


def looks_of(region: Path) -> dict[str, Look]:
    """All dates of a region."""
    offsets = pd.read_parquet(region / "truth/scenes.parquet").set_index("scene")["offset_in_numbers"]
    top, ground = items(region, "sentinel-2-l1c"), items(region, "sentinel-2-c1-l2a")
    looks = {}
    for day in sorted(ground):
        with rasterio.open(region / f"truth/sentinel2/{day}/sky.tif") as file:
            shape = (file.height * 10 // PIXEL, file.width * 10 // PIXEL)
            sky = file.read(out_shape=(5, *shape), resampling=Resampling.average).astype(np.float32) / 200
            bounds = file.bounds
        numbers = None
        if day in top:
            bands = files_by_band(region, top[day])
            numbers = np.stack([read_over(bands[band], bounds, shape) for band in SENTINEL2_MSI], axis=-1)
        classes = read_over(files_by_band(region, ground[day])["SCL"], bounds, shape)
        looks[day] = Look(*sky, numbers, int(offsets[top[day]["id"]]) if day in top else 0, classes)
    return looks


@pytest.fixture(scope="module")
def summer(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Look]:
    region = tmp_path_factory.mktemp("summer") / "region"
    simulate_region(load_settings(None, {**SMALL, **SUMMER, "sentinel2.l1c": True}), region, workers=2)
    return looks_of(region)


@pytest.fixture(scope="module")
def winter(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Look]:
    region = tmp_path_factory.mktemp("winter") / "region"
    simulate_region(load_settings(None, {**SMALL, **WINTER, "sentinel2.l1c": True}), region, workers=2)
    return looks_of(region)


@pytest.fixture(scope="module")
def natural(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Look]:
    region = tmp_path_factory.mktemp("natural") / "region"
    wanted = {"sentinel2.months": [4, 5, 6, 7, 8], "sentinel2.sky": {"cloudiness": 0.6, "cirrus": 0.0, "haze": 0.0}}
    settings = load_settings(None, {**SMALL, **wanted, "natural": {}, "sentinel2.l1c": True})
    simulate_region(settings, region, workers=2)
    return looks_of(region)


def share(found: list[Any], among: list[Any]) -> float:
    """Share of the pixels `among` that are found, over all dates."""
    pixels = sum(int(where.sum()) for where in among)
    assert pixels > 1000, "too few pixels to tell a share"
    return sum(int((one & where).sum()) for one, where in zip(found, among, strict=True)) / pixels


def test_dates_are_clear_partly_and_fully_cloudy(summer: dict[str, Look]) -> None:
    covers = np.array([(look.cloud > 0.5).mean() for look in summer.values()])
    assert len(covers) == 8
    assert (covers < 0.01).any()
    assert ((covers > 0.05) & (covers < 0.9)).any()
    assert (covers > 0.98).any()


def test_clouds_and_snow_are_not_flat(summer: dict[str, Look], winter: dict[str, Look]) -> None:
    # Overcast dates over Flanders have a standard deviation of 2 to 30 % of their mean in the blue.
    blue = SENTINEL2_MSI.index("B02")
    overcast = [look for look in summer.values() if (look.cloud > 0.5).mean() > 0.98]
    assert overcast
    for look in overcast:
        values = look.reflectance[..., blue]
        assert 0.01 < values.std() / values.mean() < 0.3
    snow = np.concatenate([look.snow[look.snow > 0.6] for look in winter.values()])
    assert len(snow) > 1000
    assert snow.max() < 0.97, "the ground shows through"
    assert np.percentile(snow, 98) - np.percentile(snow, 2) > 0.1


def test_s2cloudless_finds_simulated_clouds_and_takes_nothing_else_for_one(summer: dict[str, Look]) -> None:
    looks = list(summer.values())
    found = [look.found() for look in looks]
    assert share(found, [look.cloud > 0.5 for look in looks]) > 0.95
    assert share(found, [look.clear & (look.haze < 0.1) for look in looks]) < 0.01
    # Thick clouds are certain, clear ground is too: as on real dates (0.97 and 0.01 to 0.03 in Slovenia, 2015).
    detector = S2PixelCloudDetector()
    wanted = [SENTINEL2_MSI.index(band) for band in DETECTOR_BANDS]
    for look in looks:
        probability = detector.get_cloud_probability_maps(look.reflectance[None][..., wanted])[0]
        for where, low, high in ((look.cloud > 0.7, 0.85, 1.0), (look.clear & (look.haze < 0.1), 0.0, 0.1)):
            if where.sum() > 500:
                assert low <= probability[where].mean() <= high


def test_s2cloudless_finds_natural_overcast_and_cores_of_clouds(natural: dict[str, Look]) -> None:
    overcast = [look for look in natural.values() if look.cloud.min() > 0.8]
    others = [look for look in natural.values() if look.cloud.min() < 0.01]
    assert len(overcast) >= 2
    # Measured on another region: 0.99 to 1 of six dates, 0.87 of one of 0.47 in the blue.
    for look in overcast:
        assert look.found().mean() > 0.9
    found = [look.found() for look in others]
    assert share(found, [look.cloud > 0.7 for look in others]) > 0.97
    assert share(found, [look.clear for look in others]) < 0.03, (
        "white roofs and plastic are taken for clouds, not more"
    )


def test_s2cloudless_finds_clouds_over_winter_ground_and_snow(winter: dict[str, Look]) -> None:
    looks = list(winter.values())
    found = [look.found() for look in looks]
    assert share(found, [look.cloud > 0.5 for look in looks]) > 0.95
    # Under a low sun, ground and thin snow are mistaken more often.
    assert share(found, [look.clear & (look.snow < 0.01) for look in looks]) < 0.05
    assert share(found, [look.clear & (look.snow > 0.5) for look in looks]) < 0.1


def test_numbers_with_the_offset_left_in_look_cloudier(summer: dict[str, Look]) -> None:
    assert {look.offset for look in summer.values()} == {1000}
    right = {day: look.found().mean() for day, look in summer.items()}
    left_in = {day: look.found(look.numbers.astype(np.float32) / 10_000).mean() for day, look in summer.items()}
    open_days = [day for day in summer if right[day] < 0.9]
    assert len(open_days) >= 3
    for day in open_days:
        assert left_in[day] > right[day] + 0.05, day


def test_the_cirrus_band_sees_cirrus_and_no_low_clouds(summer: dict[str, Look]) -> None:
    band = SENTINEL2_MSI.index("B10")

    def seen(where: list[Any]) -> Any:
        return np.concatenate([look.reflectance[one, band] for look, one in zip(looks, where, strict=True)])

    looks = list(summer.values())
    clear = seen([look.clear for look in looks])
    low = seen([(look.cloud > 0.7) & (look.cirrus == 0) for look in looks])
    thin = seen([(look.cirrus > 0.1) & (look.cloud < 0.01) for look in looks])
    assert min(len(clear), len(low), len(thin)) > 1000
    # Real clear ground: 0.001 everywhere; real low clouds: 0.002.
    assert np.percentile(np.abs(clear), 99) < 0.003
    assert np.percentile(low, 98) < 0.01
    assert np.percentile(thin, 2) > 0.02


def test_classes_are_the_truth_where_no_errors_are_wanted(summer: dict[str, Look]) -> None:
    looks = list(summer.values())
    cloudy = [np.isin(look.classes, (8, 9, 10)) for look in looks]
    shaded = [look.classes == 3 for look in looks]
    assert share(cloudy, [look.cloud > 0.5 for look in looks]) > 0.99
    assert share(cloudy, [look.clear for look in looks]) == 0
    assert share(cloudy, [(look.cirrus > 0.15) & (look.cloud < 0.01) for look in looks]) > 0.99
    open_sky = [(look.cloud < 0.01) & (look.cirrus < 0.01) for look in looks]
    dark = [where & (look.shadow > 0.5) for where, look in zip(open_sky, looks, strict=True)]
    assert share(shaded, dark) > 0.97
    assert share(shaded, [where & (look.shadow < 0.3) for where, look in zip(open_sky, looks, strict=True)]) < 0.001


def test_errors_of_classes_are_as_frequent_as_wanted(
    summer: dict[str, Look], tmp_path_factory: pytest.TempPathFactory
) -> None:
    region = tmp_path_factory.mktemp("errors") / "region"
    simulate_region(load_settings(None, {**SMALL, **SUMMER, "sentinel2.scl_errors": 0.1}), region, workers=2)
    wrong = list(looks_of(region).values())
    right = list(summer.values())
    np.testing.assert_array_equal([look.cloud for look in wrong], [look.cloud for look in right])
    covered = [look.cloud > 0.5 for look in right]
    clear = [look.clear & (look.haze < 0.1) for look in right]

    def rates(looks: list[Look]) -> tuple[float, float]:
        """Share of clouds found, and of clear ground that is called none of vegetation, soil, water, dark."""
        hit = share([np.isin(look.classes, (8, 9, 10)) for look in looks], covered)
        return hit, share([~np.isin(look.classes, (2, 4, 5, 6)) for look in looks], clear)

    (hit, false), (worse_hit, worse_false) = rates(right), rates(wrong)
    assert hit - worse_hit == pytest.approx(0.1, abs=0.04)
    assert worse_false - false == pytest.approx(0.1, abs=0.05)
