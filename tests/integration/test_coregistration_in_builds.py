"""EnMAP scenes that lie off are found, and read where they belong: on a simulated region whose shifts are known."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pystac
import pytest
import rasterio
import zarr
from changed_recipes import kept_recipe, recipe_document
from numpy.typing import NDArray
from rasterio.windows import Window
from shared_work import with_work_of

from h2crop_data.catalog.access import raster_geobox
from h2crop_data.catalog.search import read_item_collection
from h2crop_data.cube.reading import read_index
from h2crop_data.grid import Cell, home_tile, to_crs
from h2crop_data.maintenance.retract import retract_from_store
from h2crop_data.pipeline.build import build_store
from h2crop_data.pipeline.engine import BuildError
from h2crop_data.pipeline.extension import plan_extensions
from h2crop_data.pipeline.planning import make_plan
from h2crop_data.pipeline.survey import area_of
from h2crop_data.recipe.model import Recipe
from h2crop_data.report.picture import draw_sample, read_sample
from h2crop_data.simulate.region import simulate_region
from h2crop_data.simulate.settings import load_settings
from h2crop_data.sources.enmap.match import scene_view
from h2crop_data.sources.enmap.search import search_enmap
from h2crop_data.validation.validate import validate_store

#: Nine cells of 1920 m, two passes that lie off by more than half a pixel, dates of Sentinel-2 that lie off too.
SHIFTS = [(17.0, -9.0), (-21.0, 6.0)]
SETTINGS: dict[str, Any] = {
    "seed": 11,
    "cells": 9,
    # A row of cells lies in another processing tile.
    "place": {"south": 5_374_080},
    "truth_reflectance": True,
    "enmap.scenes": 2,
    "enmap.months": [6, 7],
    "enmap.shifts": SHIFTS,
    "enmap.sky": {"cloudiness": 0.1, "cirrus": 0.0, "haze": 0.0, "snow": 0.0},
    "sentinel2.geometry": {"sd": 2.0, "not_refined": 0.0},
    "sentinel2.duplicates": 0.0,
    "sentinel2.dates_per_month": 3,
    "sentinel2.months": [5, 6, 7, 8],
    "sentinel2.sky": {"cloudiness": 0.2, "cirrus": 0.0, "haze": 0.0, "snow": 0.0},
}
FILL = -32768
RecipeOf = Callable[..., Recipe]


@pytest.fixture(scope="module")
def simulated(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The region, with what is true of each pass."""
    folder = tmp_path_factory.mktemp("region")
    simulate_region(load_settings(None, SETTINGS), folder, workers=1)
    return folder


@pytest.fixture(scope="module")
def recipe_of(simulated: Path) -> RecipeOf:
    """Makes recipes of the region; keywords are settings of EnMAP, `sentinel2` those of Sentinel-2."""

    def make(sentinel2: dict[str, Any] | str | None = None, **changes: Any) -> Recipe:
        document = recipe_document(simulated)
        document |= {"store": {"block_capacity": 4}}
        document["enmap"] |= {"max_flagged_share": 1, "max_cloud_cover": 100, **changes}
        if sentinel2 == "none":
            document["sentinel2"] = "none"
        else:
            document["sentinel2"] |= {"bands": ["B04", "B08"], **(sentinel2 or {})}
        return kept_recipe(simulated, document)

    return make


@pytest.fixture(scope="module")
def stores(recipe_of: RecipeOf, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """A store for each word of `coregistration`."""
    folder = tmp_path_factory.mktemp("stores")
    build_store(recipe_of(coregistration="none"), folder / "none", workers=1)
    for before, mode in (("none", "report"), ("report", "apply")):
        build_store(recipe_of(coregistration=mode), with_work_of(folder / before, folder / mode), workers=1)
    return {mode: folder / mode for mode in ("none", "report", "apply")}


def cubes(store: Path) -> dict[str, np.ndarray[Any, Any]]:
    """`enmap` of every sample, by its id."""
    values = zarr.open_group(store, mode="r")["2022/enmap"]
    samples = read_index(store, "samples-2022")
    return {name: values[slot] for name, slot in zip(samples["sample"], samples["slot"], strict=True)}


def test_planted_shifts_are_found(simulated: Path, stores: dict[str, Path]) -> None:
    """Both detectors, both signs, within what the shift is said to be uncertain by."""
    samples = read_index(stores["apply"], "samples-2022").drop_duplicates("scene").set_index("scene")
    truth = pd.read_parquet(simulated / "truth/scenes.parquet")
    truth = truth[truth["archive"] == "enmap"]
    assert len(samples) == 2
    for scene, row in samples.iterrows():
        planted = truth[truth["scene"] == scene].iloc[0]
        assert row["enmap_match"] == "applied"
        assert len(row["enmap_reference"]) >= 3
        assert row["enmap_reference_aligned"] >= 3
        for detector in ("vnir", "swir"):
            error = np.array(
                [
                    row[f"enmap_{detector}_east"] - planted["shift_east"],
                    row[f"enmap_{detector}_north"] - planted["shift_north"],
                ]
            )
            assert np.abs(error).max() < 4.5, f"{scene} {detector}: {error}"
            sd = row[[f"enmap_{detector}_sd_{axis}" for axis in ("east", "north")]].to_numpy(float)
            assert (np.abs(error) < 3 * sd).all()
            assert sd.max() < 3


def test_the_cube_lies_where_it_belongs(simulated: Path, stores: dict[str, Path]) -> None:
    """Against the surface itself, on the lattice: nearer than without, in both detectors."""
    before, after = cubes(stores["none"]), cubes(stores["apply"])
    scenes = read_index(stores["apply"], "samples-2022").set_index("sample")["scene"]
    truth = pd.read_parquet(simulated / "truth/scenes.parquet").set_index("scene")["truth"]
    # Bands of the products; the store lacks the six of water vapour, 130 to 135.
    bands = {30: 29, 60: 59, 170: 163}
    errors = []
    for name, cube in after.items():
        cell = Cell.parse("_".join(name.split("_")[:-1]))
        with rasterio.open(simulated / "truth" / f"{truth[scenes[name]]}.tif") as surface:
            there = surface.read(list(bands), window=surface.window(*cell.bounds)).astype(float)
        for of_band, (band, place) in zip(there, bands.items(), strict=True):
            for stage, values in (("before", before[name][place]), ("after", cube[place])):
                known = values != FILL
                errors.append((stage, band, float(np.median(np.abs(values[known] - of_band[known])))))
    table = pd.DataFrame(errors, columns=["stage", "band", "error"])
    means = table.groupby(["band", "stage"])["error"].median().unstack()
    assert (means["after"] < 0.7 * means["before"]).all(), means


def test_the_picture_of_a_sample_shows_what_was_measured(stores: dict[str, Path], tmp_path: Path) -> None:
    for place, (_, row) in enumerate(read_index(stores["apply"], "samples-2022").iterrows()):
        shifts = read_sample(stores["apply"], 2022, place).shifts
        assert list(shifts) == ["vnir", "swir"]
        for name, one in shifts.items():
            assert one.shift == pytest.approx((row[f"enmap_{name}_east"], row[f"enmap_{name}_north"]))
            assert len(one.windows) > 3
            assert np.abs(np.median(one.windows, axis=0) - one.shift).max() < 6
    assert read_sample(stores["none"], 2022, 0).shifts == {}
    assert draw_sample(stores["apply"], 2022, 0, tmp_path / "sample.png").stat().st_size > 50_000


def test_a_report_changes_no_pixel(stores: dict[str, Path]) -> None:
    before, reported, after = (cubes(stores[mode]) for mode in ("none", "report", "apply"))
    assert before.keys() == reported.keys() == after.keys()
    assert all(np.array_equal(before[name], reported[name]) for name in before)
    assert not any(np.array_equal(before[name], after[name]) for name in before)
    told = read_index(stores["report"], "samples-2022")
    assert set(told["enmap_match"]) == {"reported"}
    assert "enmap_match" not in read_index(stores["none"], "samples-2022")
    same = [column for column in told if str(column).startswith(("enmap_vnir", "enmap_swir", "enmap_reference"))]
    pd.testing.assert_frame_equal(told[same], read_index(stores["apply"], "samples-2022")[same])


@pytest.mark.parametrize("mode", ["none", "report", "apply"])
def test_stores_are_valid(stores: dict[str, Path], mode: str) -> None:
    assert not validate_store(stores[mode]).errors


def test_the_datasheet_tells_the_shifts(stores: dict[str, Path]) -> None:
    text = (stores["apply"] / "DATASHEET.md").read_text(encoding="utf-8")
    assert "EnMAP is shifted to match clear dates of Sentinel-2" in text
    for detector in ("VNIR", "SWIR"):
        (row,) = re.findall(rf"\| 2022 \| {detector} \| (.*)", text)
        median, _, largest, sd, *_ = row.split(" | ")
        lengths = sorted(np.hypot(*shift) for shift in SHIFTS)
        assert float(median.removesuffix(" m")) == pytest.approx(np.mean(lengths), abs=3)
        assert float(largest.removesuffix(" m")) == pytest.approx(lengths[-1], abs=3)
        assert 0 < float(sd.removesuffix(" m")) < 3


def test_without_sentinel2_nothing_is_matched(recipe_of: RecipeOf, tmp_path: Path) -> None:
    build_store(recipe_of("none"), tmp_path / "store", workers=1)
    samples = read_index(tmp_path / "store", "samples-2022")
    assert set(samples["enmap_match"]) == {"not_measured: the recipe has no Sentinel-2"}


def test_a_scene_that_cannot_be_matched_is_refused_or_used(recipe_of: RecipeOf, tmp_path: Path) -> None:
    """No date can be used: only snow is called clear, and there is none."""
    blind = {"clouds": {"clear": [11], "second_look": False}}
    with pytest.raises(BuildError, match=r"enmap\.unmatched"):
        build_store(recipe_of(blind, unmatched="refuse"), tmp_path / "refused", workers=1)
    build_store(recipe_of(blind), tmp_path / "used", workers=1)
    samples = read_index(tmp_path / "used", "samples-2022")
    assert samples["enmap_match"].str.startswith("not_measured: no clear Sentinel-2 date").all()
    assert samples["enmap_vnir_east"].isna().all()


def rows_of(store: Path) -> pd.DataFrame:
    """The samples of a store in order of slot."""
    return read_index(store, "samples-2022").sort_values("slot")


def test_windows_say_where_they_lie_and_what_they_found(simulated: Path, stores: dict[str, Path]) -> None:
    """In the first sample of every block, inside the scene; most of them near the planted shift."""
    samples = rows_of(stores["apply"])
    truth = pd.read_parquet(simulated / "truth/scenes.parquet").set_index("scene")
    first = ~samples["block"].duplicated()
    assert (samples["enmap_windows"].map(len) > 0).tolist() == first.tolist()
    west, north = samples["x0"].min(), samples["y0"].max()
    east, south = samples["x0"].max() + 1920, samples["y0"].min() - 1920
    for _, row in samples[first].iterrows():
        planted = truth.loc[row["scene"]]
        for detector in ("vnir", "swir"):
            told = [text.split()[1:] for text in row["enmap_windows"] if text.startswith(detector)]
            x, y, shift_east, shift_north, correlation, pixels = np.array(told, float).T
            assert (west - 100 < x).all()
            assert (x < east + 100).all()
            assert (south - 100 < y).all()
            assert (y < north + 100).all()
            assert len(set(zip(x, y, strict=True))) == len(told) > 5
            assert np.median(shift_east) == pytest.approx(planted["shift_east"], abs=2)
            assert np.median(shift_north) == pytest.approx(planted["shift_north"], abs=2)
            assert np.abs(correlation).max() <= 1
            assert pixels.min() >= 300


def test_what_stands_beside_a_shift(simulated: Path, stores: dict[str, Path]) -> None:
    truth = pd.read_parquet(simulated / "truth/scenes.parquet").set_index("scene")
    for _, row in rows_of(stores["apply"]).drop_duplicates("scene").iterrows():
        planted = truth.loc[row["scene"]]
        for detector in ("vnir", "swir"):
            for axis in ("east", "north"):
                assert row[f"enmap_{detector}_check_{axis}"] == pytest.approx(planted[f"shift_{axis}"], abs=4.5)
                match, total = (row[f"enmap_{detector}_{name}_{axis}"] for name in ("match_sd", "sd"))
                assert total == pytest.approx(math.hypot(match, row["enmap_reference_sd"]), abs=0.05)
            assert 0.3 <= row[f"enmap_{detector}_correlation"] <= 1
            assert 0.05 <= row[f"enmap_{detector}_clear"] <= 1
        days = [pd.Timestamp(day) for day in row["enmap_reference"]]
        assert all(abs(day - row["scene_time"]).days < 183 for day in days)


def test_unaligned_dates_are_used_as_they_lie_and_told(
    recipe_of: RecipeOf, stores: dict[str, Path], tmp_path: Path
) -> None:
    build_store(recipe_of({"alignment": "none"}), tmp_path / "store", workers=1)
    unaligned, aligned = (rows_of(store).drop_duplicates("scene") for store in (tmp_path / "store", stores["apply"]))
    assert (unaligned["enmap_reference_aligned"] == 0).all()
    assert (unaligned["enmap_reference_sd"].to_numpy() > 1.2 * aligned["enmap_reference_sd"].to_numpy()).all()
    assert set(unaligned["enmap_match"]) == {"applied"}


def plain_layer(item: pystac.Item, key: str) -> NDArray[Any]:
    """A quality layer as its file has it, (y, x)."""
    with rasterio.open(item.assets[key].href) as raster:
        return np.asarray(raster.read(1))


def test_cloud_and_water_of_a_scene_are_not_compared(simulated: Path) -> None:
    """Against the codes of the layers."""
    items = read_item_collection(simulated / "catalog/enmap.json")
    cloudy = 0
    for item in items:
        grid = raster_geobox(item.assets["image"].href)
        view = scene_view(item, grid, Window(0, 0, grid.shape[1], grid.shape[0]))
        classes = plain_layer(item, "quality_classes")
        hidden = (classes != 1) & (classes != 2)
        hidden |= plain_layer(item, "quality_cirrus") >= 2
        for key in ("quality_cloud", "quality_cloud_shadow", "quality_snow"):
            hidden |= plain_layer(item, key) == 1
        np.testing.assert_array_equal(view.clear, ~hidden & (plain_layer(item, "quality_testflags") & 3 != 3))
        np.testing.assert_array_equal(view.water, classes == 2)
        cloudy += int((hidden & (classes == 1)).sum())
        assert view.bands.shape == (6, *classes.shape)
        assert (classes == 2).any()
    assert cloudy > 0


def test_a_date_that_cannot_be_read_fails_the_match_or_is_left_out(
    simulated: Path, recipe_of: RecipeOf, tmp_path: Path
) -> None:
    """B12, which only a match needs, of a date near both passes; a later build with the whole file matches anew."""
    items = read_item_collection(simulated / "catalog/sentinel-2-c1-l2a.json")
    (item,) = [one for one in items if "20220716" in one.id]
    damaged = Path(item.assets["swir22"].href)
    whole = damaged.read_bytes()
    try:
        damaged.write_bytes(whole[: len(whole) // 3])
        with pytest.raises(BuildError, match=f"{item.id} asset swir22"):
            build_store(recipe_of(), tmp_path / "store", workers=1)
        report = build_store(recipe_of({"gaps": "record"}), tmp_path / "recorded", workers=1)
    finally:
        damaged.write_bytes(whole)
    assert report.gaps == [item.id]
    told = rows_of(tmp_path / "recorded").drop_duplicates("scene")
    assert (told["enmap_match"] == "applied").all()
    assert not any("2022-07-16" in day for days in told["enmap_reference"] for day in days)
    assert [list(names) for names in told["enmap_reference_gaps"]] == [[item.id]] * 2
    # What lacks a date holds for one build.
    markers = list((tmp_path / "recorded/.build/work/enmap-match").glob("*.json"))
    # They tell what time it took; without a hash there is no result that another build would use.
    assert not any("sha256" in json.loads(marker.read_text()) for marker in markers)
    assert not validate_store(tmp_path / "recorded").errors
    build_store(recipe_of(), tmp_path / "store", workers=1)
    told = rows_of(tmp_path / "store").drop_duplicates("scene")
    assert all(any("2022-07-16" in day for day in days) for days in told["enmap_reference"])
    assert len(list((tmp_path / "store/.build/work/enmap-match").glob("*.json"))) == 2


def test_what_is_left_of_a_scene_counts_as_built_from_the_same(
    recipe_of: RecipeOf, stores: dict[str, Path], tmp_path: Path
) -> None:
    """The blocks of one tile are retracted: those of the other were matched on its ground too, and did not change."""
    recipe = recipe_of()
    one_by_one = recipe.changed(recipe, store=recipe.store.model_copy(update={"block_capacity": 1}))
    store = with_work_of(stores["apply"], tmp_path / "store")
    build_store(one_by_one, store, workers=1)
    samples = rows_of(store)
    tiles = samples["cell"].map(lambda name: home_tile(Cell.parse(name)))
    assert tiles.nunique() == 2
    gone = samples["block"][tiles == tiles.value_counts().index[-1]].tolist()
    retract_from_store(store, {2022: gone}, [], "a test")
    (found,) = plan_extensions(one_by_one, str(store))
    assert found.not_compared == len(gone)
    assert found.changed == []


def test_samples_keep_how_their_scene_was_seen_and_processed(simulated: Path, stores: dict[str, Path]) -> None:
    """METADATA.XML and the item of a scene say the same; the item's `view:sun_azimuth` is 180 degrees off."""
    items = {item.id: item for item in read_item_collection(simulated / "catalog/enmap.json")}
    for _, row in rows_of(stores["apply"]).iterrows():
        stated = items[row["scene"]].properties
        assert row["enmap_sun_azimuth"] == pytest.approx(stated["enmap:sunAzimuthAngle"], abs=1e-4)
        assert row["enmap_sun_zenith"] == pytest.approx(90 - stated["enmap:sunElevationAngle"], abs=1e-4)
        across, along = (stated[f"enmap:{name}OffNadirAngle"] for name in ("across", "along"))
        assert row["enmap_across_off_nadir"] == pytest.approx(across, abs=1e-4)
        assert row["enmap_along_off_nadir"] == pytest.approx(along, abs=1e-4)
        # From an orbit the ground is seen lower than from the satellite.
        assert math.hypot(across, along) < row["enmap_view_zenith"] < 1.2 * math.hypot(across, along)
        assert row["enmap_version"] == stated["enmap:archivedVersion"]
        assert row["enmap_day_of_year"] == row["scene_time"].day_of_year
        told = dict(text.split("=", 1) for text in row["enmap_processing"])
        assert {"correctionType", "terrainCorrection", "cirrusHazeRemoval"} <= told.keys()


def test_a_search_judges_as_a_plan_does(simulated: Path, recipe_of: RecipeOf) -> None:
    """One of the passes is cloudy."""
    recipe = recipe_of(max_cloud_cover=20)
    plan = make_plan(recipe, 2022)
    ground = to_crs(*area_of(recipe.area, recipe.locate), "OGC:CRS84")
    found = search_enmap(recipe.enmap, recipe.locate_catalog, ground, [2022])
    planned = {scene.id: (scene.taken, scene.reason) for scene in plan.scenes if scene.sensor == "enmap"}
    assert {taken for taken, _ in planned.values()} == {True, False}
    assert {scene.id: scene.taken for scene in found.scenes} == {name: taken for name, (taken, _) in planned.items()}
    assert all(scene.reason == planned[scene.id][1] for scene in found.scenes if not scene.taken)
