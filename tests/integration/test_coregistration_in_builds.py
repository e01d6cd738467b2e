"""EnMAP scenes that lie off are found, and read where they belong: on a simulated region whose shifts are known."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import rasterio
import yaml
import zarr

from h2crop_data.cube.reading import read_index
from h2crop_data.grid import Cell
from h2crop_data.pipeline.build import BuildError, build_store
from h2crop_data.recipe.model import Recipe, load_recipe
from h2crop_data.simulate.region import simulate_region
from h2crop_data.simulate.settings import load_settings
from h2crop_data.validation.validate import validate_store

#: Nine cells of 1920 m, two passes that lie off by more than half a pixel, dates of Sentinel-2 that lie off too.
SHIFTS = [(17.0, -9.0), (-21.0, 6.0)]
SETTINGS: dict[str, Any] = {
    "seed": 11,
    "cells": 9,
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
        document = yaml.safe_load((simulated / "recipe.yaml").read_text(encoding="utf-8"))
        document |= {"store": {"block_capacity": 4}}
        document["enmap"] |= {"max_flagged_share": 1, "max_cloud_cover": 100, **changes}
        if sentinel2 == "none":
            document["sentinel2"] = "none"
        else:
            document["sentinel2"] |= {"bands": ["B04", "B08"], **(sentinel2 or {})}
        path = simulated / f"recipe-{len(list(simulated.glob('recipe-*')))}.yaml"
        path.write_text(yaml.safe_dump(document), encoding="utf-8")
        return load_recipe(path)

    return make


@pytest.fixture(scope="module")
def stores(recipe_of: RecipeOf, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """A store for each word of `coregistration`."""
    folder = tmp_path_factory.mktemp("stores")
    for mode in ("none", "report", "apply"):
        build_store(recipe_of(coregistration=mode), folder / mode, workers=1)
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
    assert "EnMAP lies where it was matched with clear dates of Sentinel-2" in text
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
    assert samples["enmap_match"].str.startswith("not_measured: no clear date of Sentinel-2").all()
    assert samples["enmap_vnir_east"].isna().all()
