"""Our mask of EnMAP's clouds in stores: where the simulator put clouds that DLR's layers miss, moved with the scene."""

from __future__ import annotations

from collections.abc import Callable
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import rasterio
import zarr
from changed_recipes import kept_recipe, recipe_document
from numpy.typing import NDArray
from shared_work import with_work_of
from typer.testing import CliRunner

from h2crop_data.cli.main import app
from h2crop_data.cube.reading import read_index
from h2crop_data.grid import Cell
from h2crop_data.pipeline.build import build_store
from h2crop_data.pipeline.planning import make_plan
from h2crop_data.recipe.model import Recipe
from h2crop_data.simulate.region import simulate_region
from h2crop_data.simulate.settings import load_settings
from h2crop_data.validation.validate import validate_store

#: Four cells; two passes, the second a pixel and more off. Skies have small clouds.
SETTINGS: dict[str, Any] = {
    "seed": 72,
    "cells": 4,
    "natural": {},
    "truth_reflectance": False,
    "enmap.scenes": 2,
    "enmap.months": [6, 7],
    "enmap.shifts": [(0.0, 0.0), (45.0, -30.0)],
    "enmap.sky": {"cloudiness": 0.3, "cirrus": 0.0, "haze": 0.0, "snow": 0.0},
    "enmap.layer_errors": {},
    "enmap.parallax": True,
    "sentinel2.dates_per_month": 1,
    "sentinel2.months": [6],
    "sentinel2.duplicates": 0.0,
}
CLOUD, SHADOW, UNSEEN = 1, 2, 4
RecipeOf = Callable[..., Recipe]


@pytest.fixture(scope="module")
def simulated(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The region, with what is true of each sky."""
    folder = tmp_path_factory.mktemp("region")
    simulate_region(load_settings(None, SETTINGS), folder, workers=1)
    return folder


@pytest.fixture(scope="module")
def recipe_of(simulated: Path) -> RecipeOf:
    """Makes recipes of the region; keywords are settings of EnMAP, and the section on Sentinel-2."""

    def make(sentinel2: Any = "none", **changes: Any) -> Recipe:
        document = recipe_document(simulated)
        document["sentinel2"] = sentinel2
        document["enmap"] |= {"max_flagged_share": 1, "max_cloud_cover": 100, "coregistration": "none", **changes}
        return kept_recipe(simulated, document)

    return make


@pytest.fixture(scope="module")
def stores(recipe_of: RecipeOf, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """A store for each word of `mask`."""
    folder = tmp_path_factory.mktemp("stores")
    build_store(recipe_of(mask="none"), folder / "none", workers=1)
    for before, mode in (("none", "report"), ("report", "apply")):
        build_store(recipe_of(mask=mode), with_work_of(folder / before, folder / mode), workers=1)
    return {mode: folder / mode for mode in ("none", "report", "apply")}


def stored(store: Path, array: str) -> dict[str, NDArray[Any]]:
    """An array of every sample, by its id."""
    values = zarr.open_group(store, mode="r")[f"2022/{array}"]
    samples = read_index(store, "samples-2022")
    return {name: values[slot] for name, slot in zip(samples["sample"], samples["slot"], strict=True)}


def true_sky(simulated: Path, store: Path, sample: str) -> dict[str, NDArray[np.float64]]:
    """Cloud, shadow and whatever else hides the ground of a sample, 0..1, with two pixels more on every side."""
    scene = read_index(store, "samples-2022").set_index("sample")["scene"][sample]
    name = pd.read_parquet(simulated / "truth/scenes.parquet").set_index("scene")["truth"][scene]
    cell = Cell.parse("_".join(sample.split("_")[:-1]))
    with rasterio.open(simulated / "truth" / f"{name}-sky.tif") as sky:
        west, south, east, north = cell.bounds
        window = sky.window(west - 60, south - 60, east + 60, north + 60)
        layers = sky.read(window=window, boundless=True).astype(float) / 200
    return {"cloud": layers[0], "shadow": layers[2], "any": layers.max(axis=0)}


def moved(layer: NDArray[Any], east: int, south: int) -> NDArray[Any]:
    """A layer without its margin of two pixels, moved by so many pixels."""
    rows, columns = layer.shape
    return layer[2 - south : rows - 2 - south, 2 - east : columns - 2 - east]


def cloud_overlap(
    simulated: Path, store: Path, masks: dict[str, NDArray[Any]], names: list[str], step: tuple[int, int]
) -> float:
    """Pixels of cloud in the masks of samples and in their true sky moved by some pixels (east, south), of either's."""
    both = either = 0
    for name in names:
        cloud = moved(true_sky(simulated, store, name)["cloud"], *step) > 0.25
        own = (masks[name] & CLOUD) != 0
        both, either = both + int((cloud & own).sum()), either + int((cloud | own).sum())
    return both / either


def of_scene(store: Path, number: int) -> list[str]:
    """The samples of the first or second scene, in order of time."""
    samples = read_index(store, "samples-2022")
    scene = sorted(samples["scene"].unique())[number]
    return sorted(samples.loc[samples["scene"] == scene, "sample"])


def test_clouds_that_layers_miss_are_where_the_simulator_put_them(simulated: Path, stores: dict[str, Path]) -> None:
    """The first scene lies where it belongs."""
    masks, quality = stored(stores["report"], "enmap_mask"), stored(stores["report"], "enmap_quality")
    names = of_scene(stores["report"], 0)
    skies = {name: true_sky(simulated, stores["report"], name) for name in names}
    cloud = np.array([moved(skies[name]["cloud"], 0, 0) for name in names])
    shadow = np.array([moved(skies[name]["shadow"], 0, 0) for name in names])
    hidden = np.array([skies[name]["any"] for name in names])
    steps = [(east, south) for east in range(-2, 3) for south in range(-2, 3)]
    near = np.max([[moved(one, *step) for one in hidden] for step in steps], axis=0)
    mask, flags = (np.array([of[name] for name in names]) for of in (masks, quality))
    missed = (cloud > 0.4) & ((flags & 4) == 0)
    assert missed.sum() > 0.3 * (cloud > 0.4).sum()
    assert ((mask & CLOUD) != 0)[missed].mean() > 0.95
    in_shadow = (cloud < 0.02) & (shadow > 0.4) & ((flags & 8) == 0)
    assert in_shadow.sum() > 200
    assert ((mask & (CLOUD | SHADOW)) != 0)[in_shadow].mean() > 0.6
    clear = near == 0
    assert clear.sum() > 1000
    assert (mask[clear] == 0).mean() > 0.97


def test_a_measured_shift_moves_the_mask(
    simulated: Path, recipe_of: RecipeOf, stores: dict[str, Path], tmp_path: Path
) -> None:
    """With what the build itself measured against Sentinel-2, the mask of the second scene lies on the ground."""
    document = recipe_document(simulated)
    recipe = recipe_of(mask="report", coregistration="apply", sentinel2=document["sentinel2"])
    build_store(recipe, tmp_path / "store", workers=1)
    names = of_scene(tmp_path / "store", 1)
    samples = read_index(tmp_path / "store", "samples-2022").set_index("sample").loc[names]
    assert (samples["enmap_match"] == "applied").all()
    for detector in ("vnir", "swir"):
        assert samples[f"enmap_{detector}_east"].unique() == pytest.approx([45], abs=3)
        assert samples[f"enmap_{detector}_north"].unique() == pytest.approx([-30], abs=3)
    overlaps = {}
    for name, store in (("moved", tmp_path / "store"), ("as it lies", stores["report"])):
        masks = stored(store, "enmap_mask")
        for step in product(range(-2, 3), repeat=2):
            overlaps[name, step] = cloud_overlap(simulated, store, masks, names, step)
    best = {name: max((value, step) for (of, step), value in overlaps.items() if of == name) for name, _ in overlaps}
    assert best["moved"][1] == (0, 0), overlaps
    assert best["as it lies"][1] in ((1, 1), (2, 1)), overlaps
    assert overlaps["moved", (0, 0)] > 0.1 + overlaps["as it lies", (0, 0)], overlaps


def test_the_mask_lies_on_the_image(simulated: Path, stores: dict[str, Path]) -> None:
    """The second scene is shown 45 m east and 30 m south of where it belongs, and so is its mask."""
    masks = stored(stores["report"], "enmap_mask")
    names = of_scene(stores["report"], 1)
    overlap = {
        step: cloud_overlap(simulated, stores["report"], masks, names, step)
        for step in ((0, 0), (1, 1), (2, 1), (-1, -1), (1, -1))
    }
    assert max(overlap[1, 1], overlap[2, 1]) > 0.5
    assert min(overlap[1, 1], overlap[2, 1]) > max(overlap[0, 0], overlap[-1, -1], overlap[1, -1]), overlap


def test_columns_say_what_the_arrays_hold(stores: dict[str, Path]) -> None:
    masks, quality = stored(stores["report"], "enmap_mask"), stored(stores["report"], "enmap_quality")
    samples = read_index(stores["report"], "samples-2022").set_index("sample")
    assert (samples["enmap_mask_doubt"] == "").all()
    # Small clouds of the simulator stand at 1100 m.
    assert (samples["enmap_cloud_height"].dropna() - 1100).abs().max() <= 100
    assert samples["enmap_cloud_height"].notna().any()
    for name, mask in masks.items():
        own, theirs = (mask & (CLOUD | SHADOW)) != 0, (quality[name] & (4 | 8)) != 0
        seen = (mask & UNSEEN) == 0
        row = samples.loc[name]
        assert row["enmap_own_cloud_share"] == pytest.approx(((mask & CLOUD) != 0)[seen].mean())
        assert row["enmap_own_shadow_share"] == pytest.approx(((mask & SHADOW) != 0)[seen].mean())
        assert row["enmap_mask_disagreement"] == pytest.approx((own != theirs)[seen].mean())
        assert row["enmap_mask_alone"] == pytest.approx((own & ~theirs)[seen].mean())
    assert (samples["enmap_mask_alone"] > 0.02).any()


def test_what_is_applied_counts_as_flagged(stores: dict[str, Path]) -> None:
    """In the index, in what was planned, and in statistics; a report changes none of them."""
    index = {mode: read_index(store, "samples-2022").set_index("sample") for mode, store in stores.items()}
    assert (index["none"]["enmap_flagged_share"] == index["report"]["enmap_flagged_share"]).all()
    flagged = 4 | 8 | 16 | 64 | 128 | 256
    masks, quality = stored(stores["apply"], "enmap_mask"), stored(stores["apply"], "enmap_quality")
    for name, mask in masks.items():
        expected = (((quality[name] & flagged) != 0) | ((mask & (CLOUD | SHADOW | UNSEEN)) != 0)).mean()
        assert index["apply"].loc[name, "enmap_flagged_share"] == pytest.approx(expected)
        assert index["apply"].loc[name, "flagged_share"] == pytest.approx(expected)
        assert expected > index["report"].loc[name, "flagged_share"]
    layouts = {mode: zarr.open_group(store, mode="r").attrs.asdict()["layout"] for mode, store in stores.items()}
    stated = {
        mode: "enmap_mask" in [array["name"] for array in layout["sources"]["enmap"]["arrays"]]
        for mode, layout in layouts.items()
    }
    assert stated == {"none": False, "report": True, "apply": True}
    assert "enmap_mask" not in zarr.open_group(stores["none"], mode="r")["2022"]


def test_cells_over_the_limit_are_left_out_by_our_mask(recipe_of: RecipeOf) -> None:
    """With a limit between what layers and what both find."""

    def cells(mask: str) -> dict[str, float]:
        recipe = recipe_of(mask=mask, max_flagged_share=1)
        plan = make_plan(recipe, 2022)
        return dict(zip(plan.samples["sample"], plan.samples["flagged_share"], strict=True))

    report, applied = cells("report"), cells("apply")
    assert all(applied[name] > report[name] for name in report)
    limit = (max(report.values()) + max(applied.values())) / 2
    recipe = recipe_of(mask="apply", max_flagged_share=limit)
    left = set(make_plan(recipe, 2022).samples["sample"])
    assert left == {name for name, share in applied.items() if share <= limit} != set(report)


def test_a_scene_whose_image_is_cut_is_told_of_and_the_others_are_planned(simulated: Path, recipe_of: RecipeOf) -> None:
    """Of a transfer that broke off its header is there, and most of its pixels."""
    image = sorted((simulated / "products/enmap").rglob("*SPECTRAL_IMAGE*"))[0]
    whole = image.read_bytes()
    everything = make_plan(recipe_of(mask="apply"), 2022)
    try:
        image.write_bytes(whole[: int(0.6 * len(whole))])
        plan = make_plan(recipe_of(mask="apply"), 2022)
    finally:
        image.write_bytes(whole)
    name = image.name.split("-SPECTRAL")[0]
    reasons = {scene.id: scene.reason for scene in plan.scenes if scene.sensor == "enmap"}
    assert reasons[name].startswith("clouds cannot be detected: ")
    assert image.name in reasons[name]
    planned = set(everything.samples.loc[everything.samples["scene"] != name, "sample"])
    assert set(plan.samples["sample"]) == planned != set()


@pytest.mark.parametrize("mode", ["none", "report", "apply"])
def test_stores_are_valid(stores: dict[str, Path], mode: str) -> None:
    report = validate_store(stores[mode])
    assert not report.findings, report.findings


def test_datasheets_and_pages_tell_of_it(stores: dict[str, Path], tmp_path: Path) -> None:
    sheets = {mode: (store / "DATASHEET.md").read_text(encoding="utf-8") for mode, store in stores.items()}
    assert "layers miss small clouds" not in sheets["none"]
    plain = {mode: sheet.replace("\\", "") for mode, sheet in sheets.items()}
    assert "`enmap_quality` says which to leave out" in plain["none"]
    assert "`enmap_quality` and `enmap_mask` say which to leave out" in plain["apply"]
    assert "it was not counted as flagged" in sheets["report"]
    assert "it counts as flagged" in sheets["apply"]
    assert "pixels that `enmap_mask` marks as cloud" in sheets["report"].replace("\\", "")
    page = tmp_path / "page.png"
    outcome = CliRunner().invoke(app, ["inspect", str(stores["report"]), "--plot", str(page)])
    assert outcome.exit_code == 0, outcome.output
    assert page.stat().st_size > 10_000
