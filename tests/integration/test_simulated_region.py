"""A simulated region on disk: its archives, tiles, duplicates, and that it is the same however it came about."""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
import resource
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import rasterio
import yaml
from numpy.typing import NDArray
from typer.testing import CliRunner

from h2crop_data.cli.main import app
from h2crop_data.errors import StoreError, UsageError
from h2crop_data.grid import transformer
from h2crop_data.pipeline.planning import make_plan
from h2crop_data.recipe.model import load_recipe
from h2crop_data.sentinel2.reflectance import decide_offset
from h2crop_data.simulate.enmap.bands import enmap_bands
from h2crop_data.simulate.land.crops import load_crops
from h2crop_data.simulate.layout import Layout
from h2crop_data.simulate.plants.spectra import WAVELENGTHS
from h2crop_data.simulate.region import simulate_region
from h2crop_data.simulate.sentinel2.bands import sentinel2_response
from h2crop_data.simulate.settings import Simulation, load_settings

TINY: dict[str, Any] = {
    "seed": 5,
    "cells": 1,
    "cell_size": 480,
    "sentinel2.months": [5, 6],
    "sentinel2.dates_per_month": 1,
    "sentinel2.swath_edges": 0,
    "sentinel2.duplicates": 0,
    "enmap.scenes": 0,
}
CLEAR = {"cloudiness": 0, "cirrus": 0, "haze": 0, "snow": 0}


def settings(**changes: Any) -> Simulation:
    """Tiny settings with changes; `__` in a name stands for the dot."""
    return load_settings(None, {**TINY, **{name.replace("__", "."): value for name, value in changes.items()}})


def hashes(folder: Path) -> dict[str, str]:
    return {
        path.relative_to(folder).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


def items(folder: Path, catalog: str) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = json.loads((folder / "catalog" / f"{catalog}.json").read_text(encoding="utf-8"))[
        "features"
    ]
    return found


def pixels(folder: Path, item: dict[str, Any], key: str) -> NDArray[Any]:
    """All bands of an asset."""
    with rasterio.open(folder / "catalog" / item["assets"][key]["href"]) as raster:
        values: NDArray[Any] = raster.read()
    return values


def test_the_same_bytes_whatever_the_workers_and_another_seed_gives_another_region(tmp_path: Path) -> None:
    wanted = settings(enmap__scenes=1, seasons=[2022])
    one, two = tmp_path / "one", tmp_path / "two"
    report = simulate_region(wanted, one, workers=1)
    simulate_region(wanted, two, workers=2)
    assert hashes(one) == hashes(two)
    assert report.sentinel2 == len(items(one, "sentinel-2-c1-l2a")) > 0
    assert report.enmap == len(items(one, "enmap")) == 1
    assert report.megapixels > 0
    other = tmp_path / "other"
    simulate_region(settings(seed=6), other, workers=1)
    same = {name for name, value in hashes(other).items() if hashes(one).get(name) == value}
    assert not {name for name in same if name.endswith((".tif", ".gpkg"))}


def test_a_killed_simulation_goes_on_to_the_same_bytes(tmp_path: Path) -> None:
    wanted = settings(sentinel2__months=[4, 5, 6, 7], enmap__scenes=1)
    whole, cut = tmp_path / "whole", tmp_path / "cut"
    simulate_region(wanted, whole, workers=1)
    path = tmp_path / "settings.yaml"
    path.write_text(yaml.safe_dump(wanted.model_dump(mode="json")), encoding="utf-8")
    command = [sys.executable, "-m", "h2crop_data", "simulate", str(cut), "--settings", str(path), "--workers", "1"]
    with subprocess.Popen(command, stderr=subprocess.DEVNULL, start_new_session=True) as process:
        deadline = time.monotonic() + 120
        while len(list((cut / ".simulate").glob("*-*.json"))) < 2 and time.monotonic() < deadline:
            time.sleep(0.02)
        os.killpg(process.pid, signal.SIGKILL)
    assert not (cut / "recipe.yaml").exists(), "it was killed before its end"
    done = {path.name: path.stat().st_mtime_ns for path in (cut / ".simulate").glob("*.json")}
    assert len(done) >= 2
    simulate_region(wanted, cut, workers=1)
    assert hashes(cut) == hashes(whole)
    again = simulate_region(wanted, cut, workers=1)
    assert again.megapixels == 0, "what is finished is not drawn again"
    assert hashes(cut) == hashes(whole)


def test_two_simulations_do_not_write_into_one_folder(tmp_path: Path) -> None:
    region = tmp_path / "region"
    simulate_region(settings(), region, workers=1)
    (region / "recipe.yaml").unlink()
    (region / ".simulate").mkdir()
    with (region / ".simulate" / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        with pytest.raises(StoreError, match="another simulation"):
            simulate_region(settings(), region, workers=1)


def test_folders_that_hold_something_else_are_refused(tmp_path: Path) -> None:
    (tmp_path / "letters.txt").write_text("dear", encoding="utf-8")
    with pytest.raises(UsageError, match="not empty"):
        simulate_region(settings(), tmp_path)
    region = tmp_path / "region"
    simulate_region(settings(), region, workers=1)
    with pytest.raises(UsageError, match="other settings"):
        simulate_region(settings(seed=1), region)


def test_a_full_disk_is_told_and_the_region_goes_on_after(tmp_path: Path) -> None:
    """A limit on the size of files stands for the disk: the process may write no file above 200 kB."""
    region = tmp_path / "region"
    path = tmp_path / "settings.yaml"
    wanted = settings(enmap__scenes=1)
    path.write_text(yaml.safe_dump(wanted.model_dump(mode="json")), encoding="utf-8")
    command = [sys.executable, "-m", "h2crop_data", "simulate", str(region), "--settings", str(path), "--workers", "1"]

    def small_files() -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (200_000, 200_000))
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)

    full = subprocess.run(command, capture_output=True, text=True, preexec_fn=small_files, check=False)
    assert full.returncode == 1, full.stderr
    assert "cannot write the region" in full.stderr
    assert "Traceback" not in full.stderr
    assert not (region / "recipe.yaml").exists()
    simulate_region(wanted, region, workers=1)
    simulate_region(wanted, tmp_path / "whole", workers=1)
    assert hashes(region) == hashes(tmp_path / "whole")


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"cells": 0}, "cells"),
        ({"cels": 4}, "did you mean cells"),
        ({"sentinel2.months": [13]}, r"months\[0\]"),
        ({"sentinel2.sky.cloudiness": 1.5}, "cloudiness"),
        ({"seasons": [2022, 2022]}, "each year once"),
        ({"sentinel2.archives": ["usgs"]}, "archives"),
        ({"pairs.narrow": [["BTH", "XXX"]]}, "unknown crop XXX"),
        ({"pairs.late": [["BTH", "MIS"]]}, "grow alike"),
        ({"sentinel2.archives": []}, "archives"),
        ({"sentinel2.baselines": []}, "baselines"),
        ({"enmap.months": []}, "months"),
        ({"enmap.shifts": []}, "shifts"),
        ({"enmap.coverage": [0.01]}, "coverage"),
        ({"enmap.tile_size": 1000, "enmap.overlap": 1000}, "twice the overlap"),
    ],
)
def test_wrong_settings_are_refused_by_name(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        load_settings(None, changes)


def test_regions_that_leave_their_zone_are_refused(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="outside zone"):
        simulate_region(settings(place={"west": 800_000}), tmp_path / "x")
    with pytest.raises(UsageError, match=r"place\.epsg"):
        simulate_region(settings(place={"epsg": 2154}), tmp_path / "y")
    with pytest.raises(UsageError, match="latitude"):
        simulate_region(settings(place={"south": 9_300_000}), tmp_path / "v")
    with pytest.raises(UsageError, match="is more than"):
        simulate_region(settings(sentinel2__zone_border=True), tmp_path / "z", workers=1)


@pytest.mark.parametrize("cells", [1, 2, 3, 5, 7, 12, 13])
def test_the_recipe_takes_exactly_the_cells_asked_for(tmp_path: Path, cells: int) -> None:
    layout = Layout(settings(cells=cells))
    recipe = tmp_path / "recipe.yaml"
    document = {"name": "x", "area": layout.area(), "seasons": [2022], "cell_size": 480}
    document["sentinel2"] = {"catalog": "none.json"}
    recipe.write_text(yaml.safe_dump(document), encoding="utf-8")
    from h2crop_data.grid import cells_of_area
    from h2crop_data.pipeline.survey import area_of

    loaded = load_recipe(recipe)
    area, crs = area_of(loaded.area, loaded.locate)
    assert len(cells_of_area(area, crs, 480, "inside")) == cells


def test_archives_differ_in_what_they_did_to_the_offset(tmp_path: Path) -> None:
    archives = ["sentinel-2-c1-l2a", "sentinel-2-l2a", "planetary-computer", "copernicus"]
    region = tmp_path / "region"
    wanted = settings(
        sentinel2__archives=archives,
        sentinel2__removed_offset=1.0,
        sentinel2__baselines=["05.10"],
        sentinel2__noise=0,
        sentinel2__sky=CLEAR,
    )
    simulate_region(wanted, region, workers=1)
    kept, removed, planetary, copernicus = (items(region, archive) for archive in archives)
    assert len(kept) == len(removed) == len(planetary) == len(copernicus) > 0
    by_time = [sorted(found, key=lambda item: item["properties"]["datetime"]) for found in (kept, removed, planetary)]
    for one, other, third in zip(*by_time, strict=True):
        with_offset = pixels(region, one, "blue").astype(int)
        np.testing.assert_array_equal(pixels(region, other, "blue"), np.maximum(with_offset - 1000, 1))
        np.testing.assert_array_equal(pixels(region, third, "B02"), with_offset)
        assert other["properties"]["earthsearch:boa_offset_applied"] is True
    for item in removed:
        # As in the archive: the flag says removed, the bands' metadata say it is still there.
        from pystac import Item

        from h2crop_data.catalog.item_facts import offset_evidence
        from h2crop_data.errors import SceneError

        evidence = offset_evidence(Item.from_dict(item))
        assert evidence.removed is True
        with pytest.raises(SceneError, match="contradiction"):
            decide_offset("auto", evidence)
    recipe = yaml.safe_load((region / "recipe.yaml").read_text(encoding="utf-8"))
    for archive in ("planetary-computer", "copernicus"):
        recipe["sentinel2"] = {"catalog": f"catalog/{archive}.json", "collection": "sentinel-2-l2a"}
        (region / "other.yaml").write_text(yaml.safe_dump(recipe), encoding="utf-8")
        plan = make_plan(load_recipe(region / "other.yaml"), 2022)
        assert {scene.offset for scene in plan.scenes if scene.taken} == {-1000}


def test_flags_can_tell_the_opposite_of_the_truth(tmp_path: Path) -> None:
    wanted = settings(
        sentinel2__archives=["sentinel-2-l2a"],
        sentinel2__baselines=["05.10", "03.01"],
        sentinel2__removed_offset=0.5,
        sentinel2__wrong_flags=1.0,
        sentinel2__dates_per_month=4,
    )
    region = tmp_path / "region"
    simulate_region(wanted, region, workers=1)
    truth = pd.read_parquet(region / "truth" / "scenes.parquet").set_index("scene")
    seen = set()
    for item in items(region, "sentinel-2-l2a"):
        told = item["properties"]["earthsearch:boa_offset_applied"]
        carried = item["properties"]["s2:processing_baseline"] >= "04.00"
        really_removed = carried and truth.loc[item["id"], "offset_in_numbers"] == 0
        assert told is (not really_removed), item["id"]
        seen.add((carried, bool(really_removed)))
    assert seen == {(True, True), (True, False), (False, False)}


def test_one_acquisition_processed_twice_differs_by_the_offset_only(tmp_path: Path) -> None:
    wanted = settings(sentinel2__duplicates=1.0, sentinel2__baselines=["03.01"])
    region = tmp_path / "region"
    simulate_region(wanted, region, workers=1)
    found = items(region, "sentinel-2-c1-l2a")
    by_datatake: dict[str, list[dict[str, Any]]] = {}
    for item in found:
        by_datatake.setdefault(item["properties"]["datetime"][:16], []).append(item)
    for pair in by_datatake.values():
        old, new = sorted(pair, key=lambda item: item["properties"]["s2:processing_baseline"])
        assert old["id"] != new["id"]
        assert old["properties"]["s2:processing_baseline"] == "03.01"
        older, newer = pixels(region, old, "blue").astype(int), pixels(region, new, "blue").astype(int)
        np.testing.assert_array_equal(np.maximum(newer - 1000, 1), older)
    plan = make_plan(load_recipe(region / "recipe.yaml"), 2022)
    taken = {scene.baseline for scene in plan.scenes if scene.taken}
    assert taken == {"05.11"}


def test_neighbouring_tiles_show_the_same_pixels(tmp_path: Path) -> None:
    # 31UDP ends at 509760 m, 31UEP begins at 499980 m.
    region = tmp_path / "region"
    simulate_region(settings(cells=4, place={"west": 499680}), region, workers=1)
    by_tile: dict[str, dict[str, Any]] = {}
    for item in items(region, "sentinel-2-c1-l2a"):
        if "202205" in item["id"]:
            by_tile[item["properties"]["grid:code"]] = item
    assert set(by_tile) == {"MGRS-31UDP", "MGRS-31UEP"}
    for key in ("red", "swir22", "scl"):
        whole, part = (pixels(region, by_tile[f"MGRS-{tile}"], key)[0] for tile in ("31UDP", "31UEP"))
        assert 0 < part.shape[1] < whole.shape[1]
        np.testing.assert_array_equal(whole[:, -part.shape[1] :], part)


def test_a_tile_of_the_next_zone_shows_the_same_ground(tmp_path: Path) -> None:
    region = tmp_path / "region"
    wanted = settings(
        cells=4,
        place={"west": 717_120, "south": 5_376_000},
        sentinel2__zone_border=True,
        sentinel2__sky=CLEAR,
        sentinel2__dates_per_month=1,
        sentinel2__months=[7],
    )
    simulate_region(wanted, region, workers=1)
    found = items(region, "sentinel-2-c1-l2a")
    zones = {item["properties"]["proj:epsg"] for item in found}
    assert zones == {32631, 32632}
    other = next(item for item in found if item["properties"]["proj:epsg"] == 32632)
    with rasterio.open(region / "catalog" / other["assets"]["nir"]["href"]) as raster:
        values = raster.read(1).astype(float) - 1000
        day = other["properties"]["datetime"][:10]
        x, y = np.meshgrid(np.arange(717_400, 717_900, 10.0), np.arange(5_376_400, 5_376_900, 10.0))
        east, north = transformer("EPSG:32631", "EPSG:32632").transform(x, y)
        column, row = ~raster.transform @ (east, north)
    with rasterio.open(region / "truth" / "sentinel2" / day / "surface_10m.tif") as raster:
        truth = raster.read(4).astype(float)
        own_column, own_row = ~raster.transform @ (x, y)
    there = values[np.floor(row).astype(int), np.floor(column).astype(int)]
    here = truth[np.floor(own_row).astype(int), np.floor(own_column).astype(int)]
    assert np.corrcoef(there.ravel(), here.ravel())[0, 1] > 0.95
    assert abs((there - here).mean()) < 30


def test_tiles_of_one_datatake_overlap_and_agree(tmp_path: Path) -> None:
    region = tmp_path / "region"
    wanted = settings(
        cells=4,
        sentinel2__dates_per_month=0,
        enmap__scenes=1,
        enmap__tile_size=1000,
        enmap__overlap=400,
        enmap__tilt=0,
        enmap__defective_columns=40,
    )
    simulate_region(wanted, region, workers=2)
    found = items(region, "enmap")
    assert len(found) > 2
    datatakes: dict[int, list[dict[str, Any]]] = {}
    for item in found:
        datatakes.setdefault(item["properties"]["enmap:datatakeID"], []).append(item)
    compared = 0
    for tiles in datatakes.values():
        one, other = sorted(tiles, key=lambda item: item["id"])[:2]
        (upper, at_upper), (lower, at_lower) = (
            (pixels(region, item, "image"), item["assets"]["image"]["proj:transform"]) for item in (one, other)
        )
        assert at_upper[2] == at_lower[2], "flown north to south, tiles below each other"
        rows = round((at_upper[5] - at_lower[5]) / 30)
        assert 0 < rows < upper.shape[1]
        both = (upper[:, rows:] != -32768) & (lower[:, : upper.shape[1] - rows] != -32768)
        np.testing.assert_array_equal(upper[:, rows:][both], lower[:, : upper.shape[1] - rows][both])
        compared += int(both.sum())
    assert compared > 10_000
    plan = make_plan(load_recipe(region / "recipe.yaml"), 2022)
    assert not plan.samples.duplicated(["cell", "scene_time"]).any()


def test_dead_columns_are_masked_and_filled_from_their_neighbours(tmp_path: Path) -> None:
    region = tmp_path / "region"
    wanted = settings(
        sentinel2__dates_per_month=0, enmap__scenes=1, enmap__tilt=0, enmap__defective_columns=30, enmap__noise=0
    )
    simulate_region(wanted, region, workers=1)
    item = items(region, "enmap")[0]
    image, mask = pixels(region, item, "image").astype(float), pixels(region, item, "defective_pixel_mask")
    assert set(np.unique(mask).tolist()) == {0, 1, 255}
    outside = pixels(region, item, "quality_classes")[0] == 3
    assert np.all((mask == 255).all(axis=0) == outside)
    west = item["assets"]["image"]["proj:transform"][2]
    band, row, column = (values.tolist() for values in np.nonzero(mask == 1))
    checked = 0
    for b, r, c in zip(band, row, column, strict=True):
        # Scenes are drawn in pieces of 64 pixels: at their sides a pixel has one neighbour only.
        if round((west - 15) / 30 + c) % 64 in (0, 63) or not 0 < c < image.shape[2] - 1:
            continue
        left, here, right = image[b, r, c - 1 : c + 2]
        if -32768 not in (left, here, right) and not mask[b, r, [c - 1, c + 1]].any():
            assert abs(here - (left + right) / 2) <= 1, (b, r, c)
            checked += 1
    assert checked > 200
    empty = [k for k in range(image.shape[0]) if (image[k] == -32768).all()]
    assert empty == [129, 130, 131, 132, 133, 134], "bands 130 to 135"
    assert image.shape[0] == 224
    transform = item["assets"]["image"]["proj:transform"]
    assert transform[2] % 30 == transform[5] % 30 == 15


def test_a_year_of_parcels_before_each_season(tmp_path: Path) -> None:
    region = tmp_path / "region"
    simulate_region(settings(seasons=[2021, 2023], sentinel2__dates_per_month=0), region, workers=1)
    assert sorted(path.name for path in (region / "parcels").iterdir()) == [
        "RPG_2020.gpkg",
        "RPG_2021.gpkg",
        "RPG_2022.gpkg",
        "RPG_2023.gpkg",
    ]
    crops = {year: pd.read_parquet(region / "truth" / f"crops-{year}.parquet") for year in (2020, 2021, 2022)}
    pd.testing.assert_series_equal(crops[2020]["next_crop"], crops[2021]["crop"], check_names=False)
    pd.testing.assert_series_equal(crops[2022]["last_crop"], crops[2021]["crop"], check_names=False)
    # The catch crop of an autumn stands until spring: both years know of it.
    pd.testing.assert_series_equal(crops[2022]["last_catch"], crops[2021]["catch_1"], check_names=False)
    assert (crops[2021]["catch_1"] != "").any()


def test_a_narrow_pair_shows_in_enmap_and_not_in_sentinel2(tmp_path: Path) -> None:
    """Pixels inside fields, without noise and sky: what pairs change is seen by EnMAP alone, on those fields alone."""
    usual, paired = tmp_path / "usual", tmp_path / "paired"
    quiet = {
        "cells": 4,
        "sentinel2__months": [6],
        "enmap__scenes": 1,
        "enmap__months": [6],
        "parcels__tail": 0.0,
    }
    simulate_region(settings(**quiet), usual, workers=1)
    crops = pd.read_parquet(usual / "truth" / "crops-2022.parquet")
    with rasterio.open(usual / "truth" / "fields.tif") as raster:
        numbers = raster.read(1)[1::3, 1::3]
    around = np.lib.stride_tricks.sliding_window_view(np.pad(numbers, 2, mode="edge"), (5, 5))
    inside = (around == numbers[:, :, None, None]).all(axis=(2, 3))
    # What grows here is up to the seed: the crop with most ground, and another that grows like it.
    growth = load_crops().set_index("code")["growth"]
    here = pd.Series(numbers[inside]).map(crops.set_index("number")["crop"]).dropna()
    second = next(code for code in here.value_counts().index if (growth == growth[code]).sum() > 1)
    first = next(code for code in growth.index[growth == growth[second]] if code != second)
    simulate_region(settings(**quiet, pairs__narrow=[[first, second]]), paired, workers=1)
    simulate_region(settings(**quiet, pairs__late=[[first, second]]), tmp_path / "late", workers=1)
    of_second = crops.loc[(crops[["last_crop", "crop", "next_crop"]] == second).any(axis=1), "number"]
    changed = np.isin(numbers, of_second)
    spectra = {}
    for folder in (usual, paired, tmp_path / "late"):
        with rasterio.open(next((folder / "truth" / "enmap").glob("*[0-9].tif"))) as raster:
            spectra[folder.name] = raster.read().astype(int)
    assert (inside & changed).sum() > 3
    assert (inside & ~changed).sum() > 100
    differs = np.abs(spectra["paired"] - spectra["usual"]).max(axis=0)
    assert differs[inside & ~changed].max() == 0
    # In June a late pair is one crop; a narrow pair is that crop but for the features that Sentinel-2 cannot see.
    of_crop = inside & np.isin(numbers, crops.loc[crops["crop"] == second, "number"])
    narrow = np.abs(spectra["paired"] - spectra["late"])[:, of_crop]
    centres, _ = enmap_bands()
    seen_by_sentinel2 = sentinel2_response()[np.searchsorted(WAVELENGTHS, centres.clip(400, 2500))].max(axis=1) > 0
    assert narrow[~seen_by_sentinel2].max() > 30
    assert narrow[seen_by_sentinel2].max() <= 12


def test_the_command_reports_and_refuses(tmp_path: Path) -> None:
    path = tmp_path / "settings.yaml"
    path.write_text("cells: 1\ncell_size: 480\nenmap: {scenes: 0}\nsentinel2: {dates_per_month: 0}\n", encoding="utf-8")
    runner = CliRunner()
    told = runner.invoke(app, ["simulate", str(tmp_path / "r"), "--settings", str(path), "--seed", "9", "--json"])
    assert told.exit_code == 0, told.output
    report = json.loads(told.stdout)
    assert report["cells"] == 1
    assert report["parcels"] > 0
    written = yaml.safe_load((tmp_path / "r" / "simulation.yaml").read_text(encoding="utf-8"))
    assert written["seed"] == 9
    path.write_text("- cells\n", encoding="utf-8")
    for wrong in (["--shift", "here"], ["--settings", str(path)], ["--settings", str(tmp_path / "none.yaml")]):
        refused = runner.invoke(app, ["simulate", str(tmp_path / "s"), *wrong])
        assert isinstance(refused.exception, UsageError)
