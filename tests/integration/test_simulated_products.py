"""What simulated instruments do to the ground, against what is known of it: shifts, edges, noise, quality layers."""

from __future__ import annotations

import json
from datetime import date, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import rasterio
import shapely
from numpy.typing import NDArray
from shapely.geometry import shape

from h2crop_data.grid import LONLAT, to_crs, transformer
from h2crop_data.simulate.ground import RegionGround
from h2crop_data.simulate.land.rotation import growth_of_code
from h2crop_data.simulate.plants.phenology import Pairs
from h2crop_data.simulate.region import simulate_region
from h2crop_data.simulate.settings import load_settings

CLEAR = {"cloudiness": 0, "cirrus": 0, "haze": 0, "snow": 0}
TINY: dict[str, Any] = {"seed": 5, "cells": 1, "cell_size": 480, "sentinel2.duplicates": 0, "truth_reflectance": False}
ENMAP: dict[str, Any] = {
    "sentinel2.dates_per_month": 0,
    "enmap.scenes": 1,
    "enmap.shifts": [[0, 0]],
    "enmap.defective_columns": 0,
    "enmap.noise": 0,
    "enmap.sky": CLEAR,
}
SENTINEL2: dict[str, Any] = {
    "enmap.scenes": 0,
    "sentinel2.dates_per_month": 1,
    "sentinel2.months": [6],
    "sentinel2.swath_edges": 0,
    "sentinel2.sky": CLEAR,
}


def simulated(folder: Path, **changes: Any) -> Path:
    """A tiny region; `__` in a name stands for the dot."""
    wanted = {**TINY, **{name.replace("__", "."): value for name, value in changes.items()}}
    simulate_region(load_settings(None, json.loads(json.dumps(wanted))), folder, workers=1)
    return folder


def items(folder: Path, catalog: str) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = json.loads((folder / "catalog" / f"{catalog}.json").read_text(encoding="utf-8"))[
        "features"
    ]
    return found


def read(folder: Path, item: dict[str, Any], key: str) -> tuple[NDArray[Any], NDArray[Any], NDArray[Any]]:
    """All bands of an asset, and easting and northing of its pixels' centres, each (y, x)."""
    with rasterio.open(folder / "catalog" / item["assets"][key]["href"]) as raster:
        columns, rows = np.meshgrid(np.arange(raster.width) + 0.5, np.arange(raster.height) + 0.5)
        east, north = raster.transform @ (columns, rows)
        return raster.read(), east, north


def enmap_image(folder: Path, **changes: Any) -> NDArray[Any]:
    region = simulated(folder, **{**ENMAP, **changes})
    return read(region, items(region, "enmap")[0], "image")[0].astype(int)


def test_a_shift_moves_the_ground_east_and_north(tmp_path: Path) -> None:
    still = enmap_image(tmp_path / "still")
    east = enmap_image(tmp_path / "east", **{"enmap.shifts": [[30, 0]]})
    north = enmap_image(tmp_path / "north", **{"enmap.shifts": [[0, 30]]})
    for before, after in ((still[:, :, :-1], east[:, :, 1:]), (still[:, 1:, :], north[:, :-1, :])):
        both = (before != -32768) & (after != -32768)
        assert both.sum() > 50_000
        np.testing.assert_array_equal(before[both], after[both])
    assert (still != east).mean() > 0.3


def test_a_distortion_changes_slowly_and_tiles_of_a_datatake_share_it(tmp_path: Path) -> None:
    still = enmap_image(tmp_path / "still", **{"enmap.tilt": 0})
    slow = enmap_image(tmp_path / "slow", **{"enmap.tilt": 0, "enmap.distortion": 60})
    # A quarter of the way across the ground appears 60 m, two pixels, east and north of where it is.
    height, width = still.shape[1:]
    row, column = height * 3 // 4, width // 4
    moved = np.abs(
        slow[:, row - 1 : row + 1, column - 1 : column + 1] - still[:, row + 1 : row + 3, column - 3 : column - 1]
    )
    stayed = np.abs(slow - still)[:, row - 1 : row + 1, column - 1 : column + 1]
    assert moved.mean() < 0.5 * stayed.mean()
    region = simulated(
        tmp_path / "tiles",
        **{**ENMAP, "cells": 4, "enmap.tilt": 0, "enmap.distortion": 40, "enmap.tile_size": 1000, "enmap.overlap": 400},
    )
    first = items(region, "enmap")[0]["properties"]["enmap:datatakeID"]
    tiles = [item for item in items(region, "enmap") if item["properties"]["enmap:datatakeID"] == first][:2]
    (upper, _, at_upper), (lower, _, at_lower) = (read(region, item, "image") for item in tiles)
    rows = round((at_upper[0, 0] - at_lower[0, 0]) / 30)
    both = (upper[:, rows:] != -32768) & (lower[:, : upper.shape[1] - rows] != -32768)
    np.testing.assert_array_equal(upper[:, rows:][both], lower[:, : upper.shape[1] - rows][both])


def test_every_datatake_has_a_number_and_a_truth_of_its_own(tmp_path: Path) -> None:
    region = simulated(
        tmp_path / "wide",
        **{**ENMAP, "cells": 9, "enmap.scenes": 3, "enmap.months": [12], "enmap.tile_size": 1000, "enmap.overlap": 400},
    )
    found = items(region, "enmap")
    truth = pd.read_parquet(region / "truth" / "scenes.parquet")
    keys = {(item["properties"]["enmap:datatakeID"], item["properties"]["enmap:tileID"]) for item in found}
    assert len(keys) == len(found)
    by_datatake = {item["properties"]["enmap:datatakeID"]: item["properties"]["datetime"][:10] for item in found}
    assert len(by_datatake) > 3
    assert all(day.startswith("2022-12") for day in by_datatake.values())
    assert truth["truth"].nunique() == len(by_datatake)
    for name in truth["truth"].unique():
        assert (region / "truth" / f"{name}-sky.tif").exists()


@pytest.mark.parametrize("tilt", [12.5, -20.0])
def test_pixels_lie_inside_the_footprint_or_are_outside(tmp_path: Path, tilt: float) -> None:
    region = simulated(tmp_path, **{**ENMAP, "enmap.tilt": tilt})
    item = items(region, "enmap")[0]
    classes, east, north = read(region, item, "quality_classes")
    footprint = to_crs(shape(item["geometry"]), LONLAT, "EPSG:32631")
    edge = shapely.distance(footprint.exterior, shapely.points(east, north)) < 1
    np.testing.assert_array_equal(shapely.contains_xy(footprint, east, north)[~edge], (classes[0] != 3)[~edge])
    # Flown towards the south and, with a positive tilt, towards the west: the western edge leans east going north.
    height = classes.shape[1]
    left = [east[row][classes[0, row] != 3].min() for row in (height * 2 // 5, height * 3 // 5)]
    assert np.sign(left[0] - left[1]) == np.sign(tilt)


def test_quality_layers_tell_what_is_true_of_the_sky_and_the_ground(tmp_path: Path) -> None:
    sky = {"cloudiness": 0.6, "cirrus": 1, "haze": 1, "snow": 1}
    seen: dict[str, set[bool]] = {}
    for seed in range(4):
        region = simulated(
            tmp_path / str(seed),
            **{**ENMAP, "seed": seed, "cells": 4, "enmap.sky": sky, "enmap.months": [1], "enmap.tilt": 0},
        )
        item = items(region, "enmap")[0]
        name = pd.read_parquet(region / "truth" / "scenes.parquet").iloc[0]["truth"]
        with rasterio.open(region / "truth" / f"{name}-sky.tif") as raster:
            truth = raster.read().astype(float) / 200
            left, top = raster.transform.c, raster.transform.f
        for layer, place, threshold in (
            ("quality_cloud", 0, 0.25),
            ("quality_cirrus", 1, 0.03),
            ("quality_haze", 3, 0.35),
            ("quality_snow", 4, 0.5),
        ):
            values, east, north = read(region, item, layer)
            # The mean of the four pixels of the lattice whose common corner is the centre of EnMAP's.
            column, row = np.round((east - left) / 30).astype(int), np.round((top - north) / 30).astype(int)
            whole = (column >= 1) & (column < truth.shape[2]) & (row >= 1) & (row < truth.shape[1])
            column, row = column[whole], row[whole]
            around = np.stack([truth[place, row - i, column - j] for i in (0, 1) for j in (0, 1)])
            flagged = values[0][whole] > 0
            if layer == "quality_cloud":
                classes = read(region, item, "quality_classes")[0][0][whole]
                assert set(np.unique(classes).tolist()) <= {1, 2}
            surely = around.min(axis=0) > threshold + 0.1
            assert (~flagged[surely]).sum() <= 0.03 * surely.sum()
            assert not flagged[around.max(axis=0) < threshold - 0.02].any()
            seen.setdefault(layer, set()).update(np.unique(flagged).tolist())
    assert all(values == {False, True} for values in seen.values()), seen


def test_water_is_water(tmp_path: Path) -> None:
    region = simulated(tmp_path, **{**ENMAP, "cells": 36, "seed": 0})
    item = items(region, "enmap")[0]
    classes, east, north = read(region, item, "quality_classes")
    with rasterio.open(region / "truth" / "land.tif") as land:
        column, row = ~land.transform @ (east, north)
        numbers = land.read(1)[np.floor(row).astype(int), np.floor(column).astype(int)]
    objects = pd.read_parquet(region / "truth" / "objects.parquet").set_index("number")["kind"]
    water = np.isin(numbers, objects.index[objects == "water"])
    around = np.lib.stride_tricks.sliding_window_view(np.pad(water, 1, mode="edge"), (3, 3))
    assert np.all(classes[0][around.all(axis=(2, 3)) & (classes[0] != 3)] == 2)
    assert np.all(classes[0][~around.any(axis=(2, 3)) & (classes[0] != 3)] == 1)
    assert (classes[0] == 2).any()


def test_the_noise_of_sentinel2_is_what_it_is_said_to_be(tmp_path: Path) -> None:
    quiet = simulated(tmp_path / "quiet", **{**SENTINEL2, "sentinel2.noise": 0, "cells": 4})
    noisy = simulated(tmp_path / "noisy", **{**SENTINEL2, "sentinel2.noise": 1, "cells": 4})
    for key in ("red", "nir", "swir16"):
        without, with_noise = (
            read(folder, items(folder, "sentinel-2-c1-l2a")[0], key)[0].astype(float) for folder in (quiet, noisy)
        )
        expected = 8 + 0.004 * np.abs(without - 1000)
        ratio = (with_noise - without) / expected
        assert ratio.std() == pytest.approx(1, abs=0.05)
        assert abs(ratio.mean()) < 0.05


def test_nothing_is_seen_beyond_the_end_of_a_swath_in_either_zone(tmp_path: Path) -> None:
    place = {"west": 717_120, "south": 5_376_000}
    region = simulated(
        tmp_path, **{**SENTINEL2, "cells": 4, "sentinel2.swath_edges": 1, "sentinel2.zone_border": True, "place": place}
    )
    truth = pd.read_parquet(region / "truth" / "scenes.parquet").set_index("scene")
    middle = 5_376_000 + 480
    zones = set()
    for item in items(region, "sentinel-2-c1-l2a"):
        values, east, north = read(region, item, "red")
        zone = item["properties"]["proj:epsg"]
        if zone != 32631:
            east, north = transformer(f"EPSG:{zone}", "EPSG:32631").transform(east, north)
        beyond = east - truth.loc[item["id"], "swath_end"] - 0.23 * (north - middle)
        assert np.all(values[0][beyond > 1] == 0)
        assert np.all(values[0][beyond < -1] > 0)
        assert (beyond > 1).any()
        zones.add(zone)
    assert zones == {32631, 32632}


def test_soil_is_wet_for_days_and_both_instruments_see_it_so(tmp_path: Path) -> None:
    region = simulated(tmp_path, **{**ENMAP, "enmap.scenes": 0})
    ground = RegionGround(region / "truth", 32631, 5, Pairs(), growth_of_code())
    objects = np.arange(len(ground.kinds))
    days = [date(2022, 1, 1) + timedelta(days=number) for number in range(365)]
    mean = np.array([ground.wetness(day, objects).mean() for day in days])
    assert mean.std() > 0.15
    assert np.corrcoef(mean[1:], mean[:-1])[0, 1] > 0.8, "it lasts"
    assert abs(np.corrcoef(mean[60:], mean[:-60])[0, 1]) < 0.5, "but not for months"
    unit = np.eye(24)
    one, other = (ground.spectra(date(2022, 4, 10), objects, unit).mean for _ in range(2))
    np.testing.assert_array_equal(one, other)
    dry, wet = days[int(mean.argmin())], days[int(mean.argmax())]
    assert ground.wetness(wet, objects).mean() > ground.wetness(dry, objects).mean() + 0.3
