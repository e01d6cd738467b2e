"""The rules of planning and building, each on a region made to show it."""

from __future__ import annotations

import hashlib
import json
import shutil
from pathlib import Path
from typing import Any

import geopandas as gpd
import numpy as np
import pytest
import rasterio
import shapely
import yaml
from changed_stores import overwrite, shard_digests
from mishap_source import mishaps_installed
from plain_splits import plain_split, plain_square
from stac_api import stac_api
from tiny_region import BANDS, CLASSES_ALONE, EAST, NORTH, SOUTH, WEST, TinyRegion
from typer.testing import CliRunner

import h2crop_data
from h2crop_data.cli.main import app
from h2crop_data.crops.taxonomy import Taxonomy
from h2crop_data.cube.reading import read_index, read_index_json, store_attributes
from h2crop_data.cube.schema import FORMAT_VERSION
from h2crop_data.errors import FormatVersionError, PlanError, RecipeError, StoreError, UsageError
from h2crop_data.pipeline.build import build_store
from h2crop_data.pipeline.engine import BuildError
from h2crop_data.pipeline.plan import kept_parts, load_plan, save_plan
from h2crop_data.pipeline.planning import make_plan
from h2crop_data.sources.sentinel2.source import Sentinel2
from h2crop_data.storage.local import LocalStorage
from h2crop_data.training.dataset import CropSamples

FILL = -32768
#: Rows and columns of the made SCL (20 m) and EnMAP (30 m) rasters.
SCL_SHAPE = (30, 30)
ENMAP_SHAPE = (19, 19)
WHEAT, MAIZE = "BTH", "MIS"


def half(shape: tuple[int, int], value: int, other: int, side: str) -> np.ndarray:
    """A raster whose left or right half has one value and the rest another."""
    raster = np.full(shape, other, np.uint8)
    middle = shape[1] // 2
    columns = slice(0, middle) if side == "left" else slice(middle, None)
    raster[:, columns] = value
    return raster


def test_offsets_follow_the_baseline_not_the_date(region: TinyRegion, tmp_path: Path) -> None:
    region.add_sentinel2("old", "2022-07-01T10:50:00Z", 1500, baseline="03.01", offset=0)
    region.add_sentinel2("new", "2022-08-01T10:50:00Z", 1500, baseline="05.00", offset=1000)
    build_store(region.recipe(), tmp_path / "store")
    season = h2crop_data.open(tmp_path / "store", 2022).load()
    for month in (7, 8):
        for k in range(3):
            assert (season.s2.sel(month=month)[:, k] == 1500 + k).all()
    assert (season.s2.sel(month=9) == FILL).all()
    scenes = read_index(tmp_path / "store", "scenes").set_index("id")
    assert scenes["offset"].to_dict() == {"old": 0, "new": -1000}


def test_a_scene_without_baseline_needs_a_declared_offset(region: TinyRegion) -> None:
    region.add_sentinel2("unknown", "2022-07-01T10:50:00Z", baseline=None)
    with pytest.raises(PlanError, match=r"(?s)unknown: no processing baseline.*sentinel2.offset"):
        make_plan(region.recipe(), 2022)
    plan = make_plan(region.recipe(sentinel2={"offset": -1000}), 2022)
    assert [scene.offset for scene in plan.scenes] == [-1000]
    recorded = make_plan(region.recipe(sentinel2={"gaps": "record"}), 2022)
    assert [(scene.taken, "baseline" in scene.reason) for scene in recorded.scenes] == [(False, True)]


def test_a_cell_that_two_enmap_scenes_see_is_read_once(region: TinyRegion, tmp_path: Path) -> None:
    for month in (6, 7, 8):
        region.add_sentinel2(f"S2_{month}", f"2022-{month:02d}-05T10:50:00Z", 900 + month)
    region.add_enmap(1, "20220724T104526")
    alone = build_store(region.recipe(), tmp_path / "alone", workers=1)
    region.add_enmap(1, "20220903T104526", datatake=1900)
    both = build_store(region.recipe(), tmp_path / "both", workers=1)
    assert (alone.samples, both.samples) == (4, 8)
    # Three dates, three bands and the classification, one internal tile each in files this small.
    assert alone.tiles_read == both.tiles_read > 0
    season = h2crop_data.open(tmp_path / "both", 2022).load()
    by_cell = season.groupby("x0").map(lambda of_column: of_column.s2.std("sample"))
    assert (by_cell == 0).all()


def test_one_acquisition_listed_twice_counts_once_by_its_newest_baseline(region: TinyRegion, tmp_path: Path) -> None:
    began = {"datatake": "20220701T104629", "strip": "20220701T104625"}
    region.add_sentinel2("a", "2022-07-01T10:50:00Z", 3000, baseline="04.00", **began)
    region.add_sentinel2("b", "2022-07-01T10:50:07Z", 1000, baseline="05.00", **began)
    build_store(region.recipe(), tmp_path / "store")
    season = h2crop_data.open(tmp_path / "store", 2022).load()
    assert (season.s2.sel(month=7)[:, 0] == 1000).all()
    assert (season.s2_clear.sel(month=7) == 1).all()
    left_out = read_index(tmp_path / "store", "scenes").set_index("id").loc["a"]
    assert not left_out["taken"]
    assert "same acquisition as b" in left_out["reason"]


def test_neighbouring_tiles_of_a_day_are_one_observation(region: TinyRegion, tmp_path: Path) -> None:
    cloudy_left = half(SCL_SHAPE, 9, 4, "left")
    region.add_sentinel2("east", "2022-07-01T10:50:00Z", 1000, scl=cloudy_left, tile="31UES")
    region.add_sentinel2("west", "2022-07-01T10:50:14Z", 2000, west=WEST - 60, east=WEST + 300, tile="31UDS")
    build_store(region.recipe(), tmp_path / "store")
    season = h2crop_data.open(tmp_path / "store", 2022).load()
    assert (season.s2_clear.sel(month=7) == 1).all()
    for i in range(4):
        # The clouds of the eastern tile end in the middle of the region, on a border of cells.
        expected = 2000 if float(season.x0[i]) < WEST + 240 else 1000
        assert (season.s2.sel(month=7)[i, 0] == expected).all()


def test_a_pixel_never_clear_is_empty_and_counted(region: TinyRegion, tmp_path: Path) -> None:
    region.add_sentinel2("one", "2022-07-01T10:50:00Z", 1000, scl=half(SCL_SHAPE, 8, 5, "left"))
    region.add_sentinel2("two", "2022-07-11T10:50:00Z", 2001, scl=half(SCL_SHAPE, 3, 5, "left"))
    build_store(region.recipe(), tmp_path / "store")
    season = h2crop_data.open(tmp_path / "store", 2022).load()
    right = season.x0.values >= WEST + 240
    july = season.sel(month=7)
    assert (july.s2_clear.values[right] == 2).all()
    assert (july.s2_clear.values[~right] == 0).all()
    assert (july.s2.values[~right] == FILL).all()
    # The mean of 1000 and 2001, rounded half to even; days 182 and 192.
    assert (july.s2.values[right][:, 0] == 1500).all()
    assert (july.s2_day.values[right] == 187).all()
    statistics = read_index_json(tmp_path / "store", "statistics")["reflectance"]
    assert statistics["s2_by_month"][6][0]["count"] == 2 * 24 * 24
    assert statistics["s2"][0]["mean"] == pytest.approx(0.15)
    assert statistics["s2"][0]["sd"] == 0


def test_an_unreadable_scene_fails_its_blocks_or_is_recorded(region: TinyRegion, tmp_path: Path) -> None:
    region.add_sentinel2("whole", "2022-07-01T10:50:00Z", 1000)
    broken = region.add_sentinel2("broken", "2022-07-05T10:50:00Z", 3000, west=WEST + 250)
    (broken / "nir.tif").unlink()
    recipe = region.recipe(store={"block_capacity": 1})
    with pytest.raises(BuildError, match=r"(?s)2 of 4 blocks failed.*broken asset nir"):
        build_store(recipe, tmp_path / "store")
    assert not (tmp_path / "store/zarr.json").exists()
    assert len(list((tmp_path / "store/.build/2022").glob("*.json"))) == 2
    recipe = region.recipe(sentinel2={"gaps": "record"}, store={"block_capacity": 1})
    report = build_store(recipe, tmp_path / "recorded")
    assert report.gaps == ["broken"]
    samples = read_index(tmp_path / "recorded", "samples-2022")
    over = samples["x0"] >= WEST + 240
    assert over.sum() == 2
    assert all(list(gaps) == ["broken"] for gaps in samples.loc[over, "s2_gaps"])
    assert all(list(gaps) == [] for gaps in samples.loc[~over, "s2_gaps"])
    season = h2crop_data.open(tmp_path / "recorded", 2022)
    assert (season.s2.sel(month=7)[:, 0] == 1000).all()
    # The command says so by its exit code.
    done = CliRunner().invoke(app, ["build", str(region.folder / "recipe.yaml"), "--out", str(tmp_path / "third")])
    assert done.exit_code == 3


def test_a_mended_scene_lets_the_build_go_on(region: TinyRegion, tmp_path: Path) -> None:
    folder = region.add_sentinel2("one", "2022-07-01T10:50:00Z", 1000)
    (folder / "nir.tif").rename(folder / "away.tif")
    recipe = region.recipe()
    with pytest.raises(BuildError):
        build_store(recipe, tmp_path / "store")
    (folder / "away.tif").rename(folder / "nir.tif")
    assert build_store(recipe, tmp_path / "store").built == 2


def test_enmap_cells_must_be_clear_enough_and_wholly_inside(region: TinyRegion) -> None:
    region.add_enmap(cloud=half(ENMAP_SHAPE, 1, 0, "left") == 1)
    chosen = make_plan(region.recipe(), 2022).samples
    assert (chosen["x0"] == WEST + 240).all()
    assert len(chosen) == 2
    everything = make_plan(region.recipe(enmap={"max_flagged_share": 1}), 2022).samples
    assert len(everything) == 4
    region.enmap.clear()
    region.add_enmap(west=WEST + 15)
    assert len(make_plan(region.recipe(), 2022).samples) == 2


def test_of_overlapping_tiles_of_a_datatake_the_clearer_is_taken(region: TinyRegion, tmp_path: Path) -> None:
    cloudy = region.add_enmap(1, "20220724T104526", value=7000, cloud=np.eye(*ENMAP_SHAPE, dtype=bool))
    clear = region.add_enmap(2, "20220724T104531", value=2000)
    later = region.add_enmap(1, "20220730T104526", value=3000, datatake=1999)
    build_store(region.recipe(enmap={"max_flagged_share": 1}), tmp_path / "store")
    samples = read_index(tmp_path / "store", "samples-2022")
    assert samples["scene"].value_counts().to_dict() == {clear: 4, later: 4}
    assert cloudy not in set(samples["scene"])
    season = h2crop_data.open(tmp_path / "store", 2022).load()
    by_scene = samples["scene"].to_numpy()
    # Bands in order of wavelength: 550, 650, 860; those of the file are 550, 860, 650, and 1350 is left out.
    for scene, value in ((clear, 2000), (later, 3000)):
        np.testing.assert_array_equal(season.enmap.values[by_scene == scene][0, :, 3, 3], [value, value + 2, value + 1])
    assert (season.enmap_quality == 0).all()


def test_of_a_tile_processed_twice_the_later_product_is_taken(region: TinyRegion) -> None:
    old = region.add_enmap(value=1000, processed="20230101T000000")
    new = region.add_enmap(value=2000, processed="20240101T000000")
    plan = make_plan(region.recipe(), 2022)
    assert set(plan.samples["scene"]) == {new}
    assert [(one.id, one.taken) for one in plan.scenes] == [(old, False), (new, True)]
    assert "processed later" in plan.scenes[0].reason


def test_refused_scenes_are_recorded_with_their_reason(region: TinyRegion) -> None:
    good = region.add_enmap()
    region.add_enmap(1, "20220401T104526", datatake=2)
    region.add_enmap(1, "20220725T104526", quality=2, datatake=3)
    region.add_enmap(1, "20220726T224526", sun_elevation=None, datatake=4)
    region.add_enmap(1, "20220727T104526", sun_elevation=12.0, datatake=5)
    region.add_enmap(1, "20220728T104526", cloud_cover=60.0, datatake=6)
    plan = make_plan(region.recipe(enmap={"months": [5, 6, 7]}), 2022)
    assert [scene.id for scene in plan.scenes if scene.taken] == [good]
    reasons = [scene.reason for scene in plan.scenes if not scene.taken]
    for word in ("month 4", "overall quality 2", "night", "sun elevation 12.0", "cloud cover 60"):
        assert sum(word in reason for reason in reasons) == 1, word


def test_cells_with_too_little_declared_are_left_out(region: TinyRegion) -> None:
    region.write_parcels(2022, [((WEST, SOUTH, WEST + 120, SOUTH + 240), WHEAT)])
    recipe = region.recipe(parcels={"min_labelled_share": 0.5})
    assert make_plan(recipe, 2022).samples["labelled_share"].tolist() == [0.5]
    with pytest.raises(PlanError, match=r"min_labelled_share 0.6"):
        make_plan(region.recipe(parcels={"min_labelled_share": 0.6}), 2022)


def test_labels_priors_and_parcels_of_two_years(region: TinyRegion, tmp_path: Path) -> None:
    field = (WEST, SOUTH, WEST + 240, SOUTH + 240)
    region.write_parcels(2022, [(field, WHEAT), ((WEST + 240, SOUTH, EAST, NORTH), "???")])
    region.write_parcels(2021, [(field, MAIZE)])
    build_store(region.recipe(), tmp_path / "store")
    season = h2crop_data.open(tmp_path / "store", 2022).load()
    at = {(float(x), float(y)): i for i, (x, y) in enumerate(zip(season.x0, season.y0, strict=True))}
    field_cell, empty_cell = at[WEST, SOUTH + 240], at[WEST, NORTH]
    classes = read_index_json(tmp_path / "store", "classes")
    names = [classes[tier][str(int(season.label[field_cell, tier, 0, 0]))] for tier in range(4)]
    assert names[0] == "arable_crops"
    assert names[3] == "winter_common_soft_wheat"
    prior = classes[3][str(int(season.prior[field_cell, 3, 0, 0]))]
    assert "maize" in prior or "corn" in prior
    # Nobody declared the north-west; the east was declared under a code no table knows: unknown, not background.
    assert (season.label[empty_cell] == 0).all()
    assert (season.label[at[WEST + 240, NORTH]] == 255).all()
    assert (season.parcel[empty_cell] == 0).all()
    parcels = read_index(tmp_path / "store", "parcels-2022").set_index("number")
    assert parcels.loc[int(season.parcel[field_cell, 5, 5]), "code"] == WHEAT
    assert parcels.loc[int(season.parcel[at[WEST + 240, NORTH], 5, 5]), "parcel_id"] == "p1"


def test_a_parcel_is_unknown_in_the_split_that_does_not_hold_most_of_it(region: TinyRegion, tmp_path: Path) -> None:
    # Small squares, so that a border between two splits runs through a few cells.
    area = {"bbox": [WEST, SOUTH, WEST + 4800, SOUTH + 480]}
    split: dict[str, Any] = {"square_size": 1000, "shares": {"train": 0.5, "val": 0.5, "test": 0}, "seed": 3}
    region.write_parcels(2022, [((WEST, SOUTH, WEST + 4800, SOUTH + 480), WHEAT)])
    recipe = region.recipe(area=area, split=split)
    build_store(recipe, tmp_path / "store")
    samples = read_index(tmp_path / "store", "samples-2022")
    assert set(samples["split"]) == {"train", "val"}
    owner = read_index(tmp_path / "store", "parcels-2022")["split"].tolist()
    assert len(owner) == 1
    season = h2crop_data.open(tmp_path / "store", 2022).load()
    mine = (samples["split"] == owner[0]).to_numpy()
    assert (season.label.values[~mine] == 255).all()
    assert (season.label.values[mine] < 255).all()
    assert (season.parcel.values == 1).all()
    # Of each sample the square of its centre.
    corners = zip(samples["x0"], samples["y0"], strict=True)
    squares = [plain_square(west + 120, north - 120, "EPSG:32631", 1000) for west, north in corners]
    assert samples["split"].tolist() == [plain_split(square, 1000, split["shares"], 3) for square in squares]


def test_a_plan_keeps_everything_when_saved(region: TinyRegion, tmp_path: Path) -> None:
    region.add_sentinel2("one", "2022-07-01T10:50:00Z")
    region.add_enmap()
    region.write_parcels(2022, [((WEST, SOUTH, EAST, NORTH), WHEAT)])
    plan = make_plan(region.recipe(), 2022)
    save_plan(plan, tmp_path / "plan")
    kept = load_plan(LocalStorage(tmp_path / "plan"), "2022/")
    assert kept.samples.drop(columns="geometry").equals(plan.samples.drop(columns="geometry"))
    assert kept.samples.geometry.geom_equals(plan.samples.geometry).all()
    assert kept.blocks["hash_s2"].tolist() == plan.blocks["hash_s2"].tolist()
    assert kept.scenes == plan.scenes
    assert [item.id for item in kept.pinned["enmap"].items] == [item.id for item in plan.pinned["enmap"].items]
    assert kept.pinned["sentinel2"].items[0].assets["nir"].href == str(region.folder / "sentinel2/one/nir.tif")
    assert kept.recipe.as_written() == plan.recipe.as_written()
    assert kept.pinned["parcels"].prior.coverage is not None
    assert kept.pinned["parcels"].prior.coverage.is_empty
    assert kept.pinned["parcels"].parcels.coverage is None


def test_input_hashes_follow_what_goes_into_each_group(region: TinyRegion) -> None:
    region.add_sentinel2("one", "2022-07-01T10:50:00Z")
    region.write_parcels(2022, [((WEST, SOUTH, EAST, NORTH), WHEAT)])
    before = make_plan(region.recipe(), 2022).blocks
    region.write_parcels(2022, [((WEST, SOUTH, EAST, NORTH), MAIZE)])
    after = make_plan(region.recipe(), 2022).blocks
    assert before["hash_s2"].equals(after["hash_s2"])
    assert (before["hash_labels"] != after["hash_labels"]).all()
    fewer = make_plan(region.recipe(sentinel2={"clouds": {**CLASSES_ALONE, "clear": [4]}}), 2022).blocks
    assert (fewer["hash_s2"] != after["hash_s2"]).all()
    assert fewer["hash_labels"].equals(after["hash_labels"])


def test_the_command_plans_shows_and_builds_a_plan(region: TinyRegion, tmp_path: Path) -> None:
    region.add_sentinel2("one", "2022-07-01T10:50:00Z")
    region.recipe()
    run = CliRunner()
    recipe, plan, store = str(region.folder / "recipe.yaml"), str(tmp_path / "plan"), str(tmp_path / "store")
    made = run.invoke(app, ["plan", recipe, "--out", plan, "--json"])
    assert made.exit_code == 0, made.output
    summary = json.loads(made.stdout)["2022"]
    assert summary["counts"]["samples"] == 4
    assert summary["counts"]["blocks"] == 2
    assert summary["raw_bytes"] == 4 * 24 * 24 * 12 * (3 * 2 + 1 + 2)
    assert summary["months_without_scenes"] == [1, 2, 3, 4, 5, 6, 8, 9, 10, 11, 12]
    shown = run.invoke(app, ["plan", "show", plan, "--json"])
    assert json.loads(shown.stdout)["2022"] == summary
    built = run.invoke(app, ["build", plan, "--out", store, "--json"])
    assert json.loads(built.stdout)["samples"] == 4
    again = run.invoke(app, ["build", plan, "--out", store, "--json"])
    assert json.loads(again.stdout)["already_done"] == 2


def test_a_store_is_not_gone_on_with_from_other_inputs(region: TinyRegion, tmp_path: Path) -> None:
    region.add_sentinel2("one", "2022-07-01T10:50:00Z")
    region.add_sentinel2("later", "2023-07-01T10:50:00Z")
    build_store(region.recipe(), tmp_path / "store")
    with pytest.raises(PlanError, match=r"another recipe for 2022 \(it differs in sentinel2\)"):
        build_store(region.recipe(sentinel2={"clouds": {**CLASSES_ALONE, "clear": [4]}}), tmp_path / "store")
    ways_out = "build into a new store, or change the recipe to the layout of the store"
    with pytest.raises(PlanError, match=rf"a different layout \(block_capacity: store 2, plan 4\); {ways_out}"):
        build_store(region.recipe(store={"block_capacity": 4}).for_seasons([2023]), tmp_path / "store")
    save_plan(make_plan(region.recipe(sentinel2={"clouds": {**CLASSES_ALONE, "clear": [4]}}), 2022), tmp_path / "plan")
    with pytest.raises(PlanError, match="another plan for 2022"):
        build_store(tmp_path / "plan", tmp_path / "store")


def test_nothing_to_build_says_why(region: TinyRegion) -> None:
    region.add_enmap(quality=2)
    with pytest.raises(PlanError, match=r"no EnMAP scene gives a cell. 1 x overall quality 2"):
        make_plan(region.recipe(), 2022)
    with pytest.raises(PlanError, match="The catalog has no scenes"):
        make_plan(region.recipe(), 2021)


def test_a_plan_never_replaces_what_is_no_plan(region: TinyRegion, tmp_path: Path) -> None:
    region.add_sentinel2("one", "2022-07-01T10:50:00Z")
    recipe = region.recipe()
    build_store(recipe, tmp_path / "store")
    before = {path: path.read_bytes() for path in (tmp_path / "store/2022").rglob("*") if path.is_file()}
    with pytest.raises(PlanError, match="exists and is not a plan"):
        save_plan(make_plan(recipe, 2022), tmp_path / "store")
    assert {path: path.read_bytes() for path in (tmp_path / "store/2022").rglob("*") if path.is_file()} == before
    # Planning again replaces the older plan, and what a killed attempt left.
    for _ in range(2):
        save_plan(make_plan(recipe, 2022), tmp_path / "plan")
        shutil.copytree(tmp_path / "plan/2022", tmp_path / "plan/.2022.dead.tmp")
        assert kept_parts(LocalStorage(tmp_path / "plan")) == ["2022/"]
    save_plan(make_plan(recipe, 2022), tmp_path / "plan")
    assert [path.name for path in (tmp_path / "plan").iterdir()] == ["2022"]


def test_a_plan_that_lost_its_scenes_is_refused(region: TinyRegion, tmp_path: Path) -> None:
    region.add_sentinel2("one", "2022-07-01T10:50:00Z")
    save_plan(make_plan(region.recipe(), 2022), tmp_path / "plan")
    (tmp_path / "plan/2022/sentinel2.parquet").unlink()
    with pytest.raises(PlanError, match=r"is damaged.*sentinel2\.parquet"):
        build_store(tmp_path / "plan", tmp_path / "store")


def test_a_lost_or_cut_shard_is_built_again_and_never_read_as_fill(region: TinyRegion, tmp_path: Path) -> None:
    region.add_sentinel2("one", "2022-07-01T10:50:00Z")
    recipe, store = region.recipe(), tmp_path / "store"
    build_store(recipe, store)
    shards = [store / "2022/s2/c.0.0.0.0.0", store / "2022/s2_clear/c.1.0.0.0"]
    whole = [path.read_bytes() for path in shards]
    shards[0].unlink()
    overwrite(shards[1], whole[1][:50])
    with pytest.raises(StoreError, match=r"c.0.0.0.0.0 is missing"):
        CropSamples(store, arrays=["s2"])[0]
    report = build_store(recipe, store)
    assert (report.built, report.release) == (2, 1)
    assert [path.read_bytes() for path in shards] == whole


def test_the_same_ground_stays_in_its_split_in_every_season(region: TinyRegion, tmp_path: Path) -> None:
    region.add_sentinel2("one", "2022-07-01T10:50:00Z")
    region.add_sentinel2("two", "2021-07-01T10:50:00Z")
    build_store(region.recipe(), tmp_path / "store")
    other = region.recipe(split={"seed": 1}).for_seasons([2021])
    with pytest.raises(PlanError, match="another split, that of 2022"):
        build_store(other, tmp_path / "store")
    assert build_store(region.recipe().for_seasons([2021]), tmp_path / "store").release == 2


def test_a_released_season_never_drops_out_silently(region: TinyRegion, tmp_path: Path) -> None:
    region.add_sentinel2("one", "2022-07-01T10:50:00Z")
    region.add_sentinel2("two", "2021-07-01T10:50:00Z")
    recipe, store = region.recipe(), tmp_path / "store"
    build_store(recipe, store)
    (store / ".build/2022/000000.json").unlink()
    with pytest.raises(PlanError, match="season 2022 of the current release has lost the marker"):
        build_store(recipe.for_seasons([2021]), store)
    build_store(recipe, store)
    build_store(recipe.for_seasons([2021]), store)
    assert h2crop_data.open(store, 2022).sizes["sample"] == h2crop_data.open(store, 2021).sizes["sample"] == 4


def test_a_plan_of_another_algorithm_or_taxonomy_is_not_gone_on_with(
    region: TinyRegion, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    region.add_sentinel2("one", "2022-07-01T10:50:00Z")
    recipe = region.recipe()
    build_store(recipe, tmp_path / "store")
    monkeypatch.setattr(Sentinel2, "algorithm", 99)
    # What is finished stays as it is, and is told.
    (told,) = build_store(recipe, tmp_path / "store").changes
    assert "2022" in told
    assert "s2" in told
    (tmp_path / "store/.build/2022/000000.json").unlink()
    with pytest.raises(PlanError, match="with other algorithms"):
        build_store(recipe, tmp_path / "store")


def test_a_store_of_another_format_is_not_written(region: TinyRegion, tmp_path: Path) -> None:
    region.add_sentinel2("one", "2022-07-01T10:50:00Z")
    recipe, root = region.recipe(), tmp_path / "store/zarr.json"
    build_store(recipe, tmp_path / "store")
    root.write_text(root.read_text().replace(f'"format_version": "{FORMAT_VERSION}"', '"format_version": "3.0"'))
    with pytest.raises(FormatVersionError, match=r"has format 3\.0, .*a newer h2crop wrote it"):
        build_store(recipe.for_seasons([2021]), tmp_path / "store")


def test_a_catalog_without_a_scene_is_an_error_not_an_empty_store(region: TinyRegion) -> None:
    region.add_sentinel2("one", "2022-07-01T10:50:00Z")
    with pytest.raises(PlanError, match=r"no scenes of collection 'sentinel-2-l1b' over the cells in 2022"):
        make_plan(region.recipe(sentinel2={"collection": "sentinel-2-l1b"}), 2022)


def test_two_granules_of_one_datatake_and_tile_both_count(region: TinyRegion, tmp_path: Path) -> None:
    datatake = "20220701T104629"
    region.add_sentinel2("west", "2022-07-01T10:50:00Z", 2000, east=WEST + 240, datatake=datatake)
    region.add_sentinel2("east", "2022-07-01T10:50:07Z", 1000, west=WEST + 240, datatake=datatake)
    build_store(region.recipe(), tmp_path / "store")
    season = h2crop_data.open(tmp_path / "store", 2022).load()
    assert (season.s2_clear.sel(month=7) == 1).all()
    for i in range(4):
        assert (season.s2.sel(month=7)[i, 0] == (2000 if float(season.x0[i]) < WEST + 240 else 1000)).all()


def test_an_unforeseen_error_costs_only_its_block(
    region: TinyRegion, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    region.add_sentinel2("one", "2022-07-01T10:50:00Z")
    monkeypatch.setenv("MISHAPS_FAILING", "2022-0:ZeroDivisionError")
    told = r"(?s)block 0: ZeroDivisionError: cannot read what block 2022-0 needs.*stack trace is in"
    with mishaps_installed(), pytest.raises(BuildError, match=told):
        build_store(region.recipe(mishaps={}), tmp_path / "store")
    assert (tmp_path / "store/.build/2022/000001.json").exists()
    assert "in assemble" in (tmp_path / "store/.build/logs/2022-000000.txt").read_text()


def test_flagged_pixels_stay_out_of_the_statistics(region: TinyRegion, tmp_path: Path) -> None:
    region.add_enmap(value=2000, cloud=half(ENMAP_SHAPE, 1, 0, "left") == 1)
    build_store(region.recipe(enmap={"max_flagged_share": 1}), tmp_path / "store")
    season = h2crop_data.open(tmp_path / "store", 2022).load()
    clear = int((season.enmap_quality == 0).sum())
    assert 0 < clear < season.enmap_quality.size
    statistics = read_index_json(tmp_path / "store", "statistics")["reflectance"]["enmap"]
    assert [band["count"] for band in statistics] == [clear] * 3
    assert statistics[0]["mean"] == pytest.approx(0.2)


def test_blocks_name_the_taxonomy_and_hashes_of_their_files(region: TinyRegion, tmp_path: Path) -> None:
    region.add_sentinel2("one", "2022-07-01T10:50:00Z")
    build_store(region.recipe(), tmp_path / "store")
    blocks = read_index(tmp_path / "store", "blocks")
    taxonomy = Taxonomy.load()
    assert (blocks["taxonomy"] == f"{taxonomy.version} {taxonomy.hash}").all()
    digests = shard_digests(tmp_path / "store")
    assert set(digests) == {path for paths in blocks["files"] for path in paths}
    for path, digest in digests.items():
        assert hashlib.sha256((tmp_path / "store" / path).read_bytes()).hexdigest() == digest


def test_of_one_day_the_scene_of_the_own_zone_comes_first(region: TinyRegion, tmp_path: Path) -> None:
    region.add_sentinel2("a", "2022-07-01T10:50:00Z", 2000, tile="32ULB")
    region.sentinel2[-1]["properties"]["proj:epsg"] = 32632
    region.add_sentinel2("b", "2022-07-01T10:50:00Z", 1000, tile="31UDS")
    build_store(region.recipe(), tmp_path / "store")
    season = h2crop_data.open(tmp_path / "store", 2022).load()
    assert (season.s2.sel(month=7)[:, 0] == 1000).all()
    assert (season.s2_clear.sel(month=7) == 1).all()


def test_enmap_pixels_without_any_value_are_outside(region: TinyRegion, tmp_path: Path) -> None:
    name = region.add_enmap()
    with rasterio.open(region.folder / "enmap" / name / "SPECTRAL_IMAGE.TIF", "r+") as image:
        pixels = image.read()
        pixels[:, 5, 5] = FILL
        pixels[0, 10, 10] = FILL
        image.write(pixels)
    build_store(region.recipe(), tmp_path / "store")
    season = h2crop_data.open(tmp_path / "store", 2022).load()
    empty = (season.enmap == FILL).all(dim="band")
    # One source pixel lies under four stored ones.
    assert int(empty.sum()) == 4
    np.testing.assert_array_equal((season.enmap_quality & 1) != 0, empty)
    partly = (season.enmap == FILL).any(dim="band") & ~empty
    assert int(partly.sum()) == 4
    assert (season.enmap.values.transpose(0, 2, 3, 1)[partly.values][:, 1:] != FILL).all()


def test_a_plan_from_a_stac_api_is_that_from_the_same_items_in_a_file(region: TinyRegion, tmp_path: Path) -> None:
    region.add_sentinel2("one", "2022-07-01T10:50:00Z", 1500)
    region.add_sentinel2("two", "2022-08-01T10:50:00Z", 2500)
    region.add_enmap()
    # A server knows nothing of the folder its items came from.
    for item in region.sentinel2 + region.enmap:
        for asset in item["assets"].values():
            asset["href"] = str((region.folder / asset["href"]).resolve())
    build_store(region.recipe(), tmp_path / "file")
    with stac_api(region.folder / "sentinel2.json") as sentinel2, stac_api(region.folder / "enmap.json") as enmap:
        recipe = region.recipe(
            sentinel2={"catalog": sentinel2, "bands": list(BANDS)},
            enmap={"catalog": enmap, "bands": {"exclude_nm": [[1325, 1395]], "count": 3}},
        )
        plan = make_plan(recipe, 2022)
    # Pinned: the servers are gone.
    save_plan(plan, tmp_path / "plan")
    build_store(tmp_path / "plan", tmp_path / "api")
    for name in ("s2", "s2_clear", "s2_day", "enmap", "enmap_quality"):
        shards = {path.name: path.read_bytes() for path in (tmp_path / "file/2022" / name).glob("c.*")}
        assert shards == {path.name: path.read_bytes() for path in (tmp_path / "api/2022" / name).glob("c.*")}
    assert (h2crop_data.open(tmp_path / "api", 2022).load().s2.sel(month=8)[:, 0] == 2500).all()


def test_an_area_file_gives_the_cells_of_its_polygons(region: TinyRegion, tmp_path: Path) -> None:
    region.add_sentinel2("one", "2022-07-01T10:50:00Z")
    # A bow tie over the two western cells, and a point that is no area.
    tie = shapely.Polygon([(WEST, SOUTH), (WEST + 240, NORTH), (WEST + 240, SOUTH), (WEST, NORTH)])
    shapes = [shapely.box(WEST, SOUTH, WEST + 240, NORTH), tie, shapely.Point(EAST, NORTH)]
    frame = gpd.GeoDataFrame({"name": ["west", "tie", "point"]}, geometry=shapes, crs="EPSG:32631")
    frame.to_file(region.folder / "area.geojson", driver="GeoJSON")
    area = {"file": "area.geojson", "cells": "centre"}
    recipe = region.recipe(area={"bbox": None, "crs": "OGC:CRS84", **area})
    assert (make_plan(recipe, 2022).samples["x0"] == WEST).all()
    assert len(make_plan(recipe, 2022).samples) == 2
    frame.iloc[[2]].to_file(region.folder / "area.geojson", driver="GeoJSON")
    with pytest.raises(RecipeError, match=r"area.geojson has no CRS or no polygon"):
        make_plan(recipe, 2022)
    (region.folder / "area.geojson").unlink()
    with pytest.raises(RecipeError, match=r"area.file: cannot read .*area.geojson"):
        make_plan(recipe, 2022)


def test_a_store_is_built_from_a_recipe_a_plan_or_the_path_of_either(region: TinyRegion, tmp_path: Path) -> None:
    region.add_sentinel2("one", "2022-05-10T10:50:00Z")
    recipe = region.recipe()
    plan = h2crop_data.plan(recipe, 2022)
    save_plan(plan, tmp_path / "plan")
    file = region.folder / "recipe.yaml"
    file.write_text(yaml.safe_dump(recipe.complete()), encoding="utf-8")
    sources = {
        "recipe": recipe,
        "plan": plan,
        "folder": tmp_path / "plan",
        "text": str(tmp_path / "plan"),
        "file": str(file),
    }
    stored = []
    for name, source in sources.items():
        h2crop_data.build(source, tmp_path / f"store of {name}", workers=1)
        stored.append(store_attributes(tmp_path / f"store of {name}")["seasons"])
    assert stored == stored[:1] * len(sources)
    with pytest.raises(UsageError, match="got int"):
        h2crop_data.build(2022, tmp_path / "none")  # type: ignore[arg-type]
