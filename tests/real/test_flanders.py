"""Sentinel-2 and declared parcels of one real patch, built into a store and held against the files they came from."""

from __future__ import annotations

import csv
import json
import shutil
from collections import defaultdict
from collections.abc import Callable
from datetime import datetime
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import rasterio
from parcel_reading import read_parcels
from rasterio.windows import from_bounds

import h2crop_data
from h2crop_data.crops.tables import load_crop_table
from h2crop_data.crops.taxonomy import Taxonomy, tier_table
from h2crop_data.cube.reading import read_index
from h2crop_data.grid import geobox
from h2crop_data.parcels.rasterize import rasterize_ids, tier_labels
from h2crop_data.recipe.model import CropTable

RECIPE = Path(__file__).parent / "recipes/flanders_2018.yaml"
SEASON = 2018
ASSETS = ("blue", "green", "red", "rededge1", "rededge2", "rededge3", "nir", "nir08", "swir16", "swir22")
FILL = -32768
MAIZE = 1200


@pytest.fixture(scope="module")
def patch(shared: Path) -> Path:
    return shared / "flanders_2018"


@pytest.fixture(scope="module")
def store(build_real: Callable[..., Path]) -> Path:
    return build_real(RECIPE)


@pytest.fixture(scope="module")
def season(store: Path) -> Any:
    return h2crop_data.open(store, SEASON).load()


def box(season: Any, i: int) -> tuple[float, float, float, float]:
    """West, south, east, north of sample i."""
    x0, y0 = float(season.x0[i]), float(season.y0[i])
    return x0, y0 - 240, x0 + 240, y0


def crop_codes(patch: Path, bounds: tuple[float, float, float, float] | None = None) -> np.ndarray:
    with rasterio.open(patch / "crop_type_2018.tif") as raster:
        window = None if bounds is None else from_bounds(*bounds, raster.transform)
        return raster.read(1, window=window)


def tiers_of_codes(patch: Path, shared: Path) -> dict[int, list[int]]:
    """Crop code of the patch -> ids at the four tiers, from the published label table alone."""
    with (shared / "crop_codes/h2crop_cascade_labels.csv").open(encoding="utf-8") as file:
        published = list(csv.DictReader(file))
    with (patch / "crop_codes.csv").open(encoding="utf-8") as file:
        hcat3 = {int(row["code"]): row["HCAT3_code"] for row in csv.DictReader(file)}
    ids = {0: [0, 0, 0, 0]}
    for code, long_code in hcat3.items():
        ids[code] = []
        for tier, digits in ((1, 4), (2, 6), (3, 8), (4, 10)):
            same = {row[f"level{tier}_id"] for row in published if row["HCAT3_code"][:digits] == long_code[:digits]}
            ids[code].append(int(same.pop()) if same else 255)
    return ids


def test_four_samples_of_twelve_months(season: Any) -> None:
    cells = ["32631_240_2089_23455", "32631_240_2089_23456", "32631_240_2090_23455", "32631_240_2090_23456"]
    assert sorted(season.sample.values.tolist()) == [f"{cell}_2018" for cell in cells]
    assert season.s2.shape == (4, 12, 10, 24, 24)
    assert season.s2.dtype == np.int16
    assert sorted(zip(season.x0.values.tolist(), season.y0.values.tolist(), strict=True)) == [
        (501360, 5629440),
        (501360, 5629680),
        (501600, 5629440),
        (501600, 5629680),
    ]


def test_labels_equal_the_real_crop_raster_in_all_tiers(season: Any, patch: Path, shared: Path) -> None:
    ids = tiers_of_codes(patch, shared)
    assert ids[7900] == [4, 9, 255, 255]
    seen = set()
    for i in range(4):
        codes = crop_codes(patch, box(season, i))
        seen |= set(np.unique(codes).tolist())
        for tier in range(4):
            expected = np.vectorize(lambda code, tier=tier: ids[code][tier])(codes)
            np.testing.assert_array_equal(season.label[i, tier], expected)
        np.testing.assert_array_equal(season.parcel[i] > 0, codes > 0)
    assert seen == {0, 1200, 7900, 9120}


def test_rasteriser_gives_back_the_whole_patch_in_all_tiers(patch: Path, shared: Path) -> None:
    parcels, counts = read_parcels(patch / "parcels_2018.gpkg", "ct")
    parcels = parcels.to_crs("EPSG:32631")
    numbers = np.arange(1, len(parcels) + 1)
    ids = rasterize_ids(parcels.geometry.to_numpy(), numbers, geobox((501360, 5629040, 502000, 5629680), 32631, 10))
    codes = np.concatenate([[0], parcels["code"].astype(int)])
    truth = crop_codes(patch)
    np.testing.assert_array_equal(codes[ids], truth)
    table = load_crop_table(
        CropTable(path="crop_codes.csv", hcat3_column="HCAT3_code"), "be-vlg", patch / "crop_codes.csv"
    ).meanings
    labels = tier_labels(ids, tier_table(parcels["code"].map(table), Taxonomy.load()))
    published = tiers_of_codes(patch, shared)
    assert set(np.unique(truth).tolist()) <= set(published)
    for tier in range(4):
        np.testing.assert_array_equal(labels[tier], np.vectorize(lambda code, tier=tier: published[code][tier])(truth))
    assert counts["read"] == 19


def test_there_is_no_prior(season: Any) -> None:
    assert (season.prior == 255).all()


@pytest.fixture(scope="module")
def looks(season: Any, patch: Path) -> list[dict[int, list[tuple[int, np.ndarray, np.ndarray]]]]:
    """Each sample's dates by month: (day of year, numbers (10, 24, 24), clear (24, 24)), read one file at a time."""
    items = json.loads((patch / "items.json").read_text(encoding="utf-8"))["features"]
    dates = {item["id"]: datetime.fromisoformat(item["properties"]["datetime"]) for item in items}
    result: list[dict[int, list[tuple[int, np.ndarray, np.ndarray]]]] = []
    for i in range(4):
        months = defaultdict(list)
        for name, date in dates.items():
            if date.year != SEASON:
                continue

            def pixels(asset: str, name: str = name, i: int = i) -> np.ndarray:
                with rasterio.open(patch / name / f"{asset}.tif") as raster:
                    values = raster.read(1, window=from_bounds(*box(season, i), raster.transform))
                return np.kron(values, np.ones((24 // len(values),) * 2, values.dtype))

            numbers = np.stack([pixels(asset) for asset in ASSETS])
            clear = np.isin(pixels("scl"), (4, 5, 6)) & (numbers > 0).all(axis=0)
            months[date.month].append((date.timetuple().tm_yday, numbers, clear))
        result.append(months)
    return result


def test_composites_are_the_medians_of_the_clear_dates(season: Any, looks: Any) -> None:
    for i in range(4):
        for month in range(1, 13):
            dates = looks[i].get(month, [])
            stored = season.isel(sample=i, time=month - 1)
            count = sum((clear.astype(int) for _, _, clear in dates), np.zeros((24, 24), int))
            np.testing.assert_array_equal(stored.s2_clear, count)
            for y, x in np.ndindex(24, 24):
                clear_dates = [(day, numbers[:, y, x]) for day, numbers, clear in dates if clear[y, x]]
                if not clear_dates:
                    assert (stored.s2[:, y, x] == FILL).all()
                    assert stored.s2_day[y, x] == 0
                    continue
                days, values = zip(*clear_dates, strict=True)
                np.testing.assert_array_equal(stored.s2.values[:, y, x], np.rint(np.median(values, axis=0)))
                assert stored.s2_day.values[y, x] == int(np.median(days))


def test_a_pixel_never_clear_in_a_month_is_fill_and_december_is_empty(season: Any) -> None:
    never = season.s2_clear.values == 0
    assert never.any()
    assert (season.s2.values.transpose(0, 1, 3, 4, 2)[never] == FILL).all()
    assert (season.s2.values.transpose(0, 1, 3, 4, 2)[~never] > 0).all()
    assert (season.s2[:, 11] == FILL).all()
    assert (season.s2_clear[:, 11] == 0).all()
    assert (season.s2_clear[:, 6] > 0).all()


def test_maize_is_greenest_in_july_or_august(store: Path, season: Any, patch: Path) -> None:
    scaled = h2crop_data.open(store, SEASON, scaled=True).load()
    nir, red = scaled.s2.sel(s2_band="B08").values, scaled.s2.sel(s2_band="B04").values
    maize = np.stack([crop_codes(patch, box(season, i)) == MAIZE for i in range(4)])
    assert maize.sum() > 100
    ndvi = (nir - red) / (nir + red)
    curve = {month: np.nanmean(ndvi[:, month - 1][maize]) for month in range(4, 11)}
    peak = max(curve, key=lambda month: curve[month])
    assert peak in (7, 8), curve
    # In April a catch crop still stands, in May the soil is bare.
    assert curve[peak] > 0.7 > 0.5 > curve[5], curve


def test_every_number_is_traceable_to_its_scenes(store: Path, season: Any, looks: Any) -> None:
    scenes = read_index(store, "scenes")
    taken = scenes[scenes["taken"]]
    assert len(taken) == 91
    assert (taken["offset"] == 0).all()
    assert (taken["reason"] == "declared in the recipe").all()
    samples = read_index(store, f"samples-{SEASON}").set_index("sample")
    for i, name in enumerate(season.sample.values.tolist()):
        used = sum(bool(clear.any()) for dates in looks[i].values() for _, _, clear in dates)
        assert len(samples.loc[name, "s2_dates"]) == used
        assert list(samples.loc[name, "s2_gaps"]) == []


def test_a_second_season_leaves_the_first_byte_identical(
    store: Path, build_real: Callable[..., Path], tmp_path: Path
) -> None:
    grown = shutil.copytree(store, tmp_path / "grown")
    before = {path: path.read_bytes() for path in (grown / "2018").rglob("*") if path.is_file()}
    old_index = {path: path.read_bytes() for path in (grown / "index/r1").iterdir()}
    reader = h2crop_data.open(grown, 2018)
    build_real(RECIPE, [2017], grown)
    assert h2crop_data.open(grown, 2017).attrs["release"] == 2
    assert {path: path.read_bytes() for path in (grown / "2018").rglob("*") if path.is_file()} == before
    assert {path: path.read_bytes() for path in (grown / "index/r1").iterdir()} == old_index
    # The reader opened before sees its release; both seasons are there for new ones.
    assert reader.load().attrs["release"] == 1
    second = h2crop_data.open(grown, 2017).load()
    assert (second.label == 255).all()
    assert (second.prior == 255).all()
    assert (second.parcel == 0).all()
    with_scenes = {month for month in range(1, 13) if (second.s2_clear.sel(month=month) > 0).any()}
    assert with_scenes <= {8, 9, 10, 11, 12}
    assert with_scenes
    np.testing.assert_array_equal(h2crop_data.open(grown, 2018).load().s2, reader.s2)
