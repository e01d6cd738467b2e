"""Blocks whose inputs changed are reported with the kind of change, or their samples are built anew in one release."""

from __future__ import annotations

import hashlib
import json
import multiprocessing
import signal
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import xarray as xr
from killed_builds import FatalStorage
from tiny_region import EAST, EPSG, NORTH, SOUTH, WEST, TinyRegion
from typer.testing import CliRunner

import h2crop_data
from h2crop_data.cli.main import app
from h2crop_data.cube.reading import read_index, read_index_json, store_attributes
from h2crop_data.errors import PlanError, UsageError
from h2crop_data.maintenance.relabel import relabel_store
from h2crop_data.maintenance.retract import prune_store, retract_from_store
from h2crop_data.pipeline.build import BuildReport, build_store
from h2crop_data.pipeline.refresh import refresh_store
from h2crop_data.recipe.model import Recipe, load_recipe
from h2crop_data.sources.enmap.match import MATCH_STEP
from h2crop_data.sources.enmap.source import Enmap
from h2crop_data.sources.parcels.source import DeclaredParcels
from h2crop_data.sources.units import Unit

FIELDS = [
    ((WEST + 10, SOUTH + 20, WEST + 200, SOUTH + 200), "BTH"),
    ((WEST + 210, SOUTH + 30, WEST + 400, SOUTH + 230), "MIS"),
    ((WEST + 20, SOUTH + 260, WEST + 300, SOUTH + 460), "PPH"),
]
WEST_HALF = {"area": {"bbox": [WEST, SOUTH, WEST + 240, NORTH], "crs": f"EPSG:{EPSG}", "cells": "inside"}}


@pytest.fixture
def finished(region: TinyRegion) -> TinyRegion:
    """A region of two seasons: three Sentinel-2 scenes and an EnMAP scene each, and parcels."""
    for year in (2022, 2023):
        for month in (3, 5, 7):
            name, day = f"S2_{year}_{month}", f"{year}-{month:02d}-05T10:50:00Z"
            region.add_sentinel2(name, day, 900 + month, **strip_of(year, month))
        region.add_enmap(1, f"{year}0724T104526", value=2000 + year - 2000)
    for year in (2021, 2022, 2023):
        # Crops go round, so that no prior is its label.
        crops = [code for _, code in FIELDS]
        turned = [*crops[year % 3 :], *crops[: year % 3]]
        region.write_parcels(year, [(bounds, code) for (bounds, _), code in zip(FIELDS, turned, strict=True)])
    return region


def strip_of(year: int, month: int) -> dict[str, str]:
    """What tells that two products show one acquisition."""
    return {"datatake": f"{year}{month:02d}05T104621", "strip": f"{year}{month:02d}05T104822"}


def values_of(store: Path, season: int, release: int | None = None) -> dict[str, xr.Dataset]:
    """All values of a season by sample."""
    opened = h2crop_data.open(store, season, release=release).load().drop_attrs()
    return {str(name): opened.isel(sample=i).drop_vars("sample") for i, name in enumerate(opened["sample"].values)}


def assert_same_samples(one: dict[str, xr.Dataset], other: dict[str, xr.Dataset], but: tuple[str, ...] = ()) -> None:
    """Every sample is there in both with the same values of all variables, but for some."""
    assert one.keys() == other.keys()
    for name, sample in one.items():
        assert sample.drop_vars(but).identical(other[name].drop_vars(but)), name


def files_of_release(store: Path, release: int) -> dict[str, str]:
    """The hash of every file of a release, by its manifest, and of its index."""
    names = [*read_index(store, "manifest", release=release)["path"]]
    names += [str(path.relative_to(store)) for path in (store / f"index/r{release}").iterdir()]
    # Names that the newest release has anew: the release is read by its own copy of the root.
    kept = [name for name in names if not name.endswith(("zarr.json", "DATASHEET.md")) and not is_coordinate(name)]
    return {name: hashlib.sha256((store / name).read_bytes()).hexdigest() for name in kept}


def is_coordinate(name: str) -> bool:
    """Whether a file is a chunk of a coordinate, to which further samples are added."""
    return name.count("/") == 2 and name.split("/")[1] in COORDINATES


COORDINATES = {"sample", "x0", "y0", "epsg", "split", "valid", "wavelength", "fwhm", "slot", "time", "cell"}


def rebuild(recipe: Recipe, store: Path) -> BuildReport:
    return build_store(recipe, store, extend=True, changed="rebuild", workers=1)


def reported(recipe: Recipe, store: Path) -> str:
    """What a search says of finished blocks; nothing is built."""
    before = store_attributes(store)["release"]
    report = build_store(recipe, store, extend=True, workers=1)
    assert (report.release, report.built) == (before, 0)
    return "\n".join(report.changes)


def band_means(store: Path) -> Any:
    """The statistics of the bands of a store."""
    return {key: value for key, value in read_index_json(store, "statistics").items() if key != "class_pixels"}


def test_a_scene_that_fills_a_gap_is_reported_and_then_built_in(finished: TinyRegion, tmp_path: Path) -> None:
    store, anew = tmp_path / "store", tmp_path / "anew"
    build_store(finished.recipe(seasons=[2022, 2023]), store, workers=1)
    first, old = files_of_release(store, 1), values_of(store, 2022)
    finished.add_sentinel2("S2_2022_9", "2022-09-05T10:50:00Z", 1500)
    recipe = finished.recipe(seasons=[2022, 2023])
    told = reported(recipe, store)
    assert "season 2022: s2: inputs have changed for 2 block(s) (0, 1)" in told
    assert "new scenes (S2_2022_9)" in told
    assert "--changed rebuild" in told
    assert "2023" not in told
    report = rebuild(recipe, store)
    assert (report.release, report.built) == (2, 2)
    assert "S2_2022_9" in "".join(report.changes)
    assert "rebuilt" in "".join(report.changes)
    build_store(recipe, anew, workers=1)
    new = values_of(store, 2022)
    assert_same_samples(new, values_of(anew, 2022))
    assert new.keys() == old.keys()
    assert all((sample["s2"][8] == 1500).any() for sample in new.values())
    assert_same_samples(values_of(store, 2023), values_of(anew, 2023))
    # The release before is as it was, in every file.
    assert files_of_release(store, 1) == first
    assert_same_samples(values_of(store, 2022, release=1), old)
    # Index, statistics and manifest are those of the new blocks.
    blocks = read_index(store, "blocks").set_index(["season", "block"])["retracted"]
    assert blocks[2022].tolist() == [
        "rebuilt as block 2: the inputs of sentinel2 have changed",
        "rebuilt as block 3: the inputs of sentinel2 have changed",
        "",
        "",
    ]
    assert blocks[2023].tolist() == ["", ""]
    assert read_index(store, "samples-2022")["block"].tolist() == [2, 2, 3, 3]
    assert band_means(store) == band_means(anew)
    assert not [
        name for name in read_index(store, "manifest")["path"] if name.startswith(("2022/s2/c.0.", "2022/s2/c.1."))
    ]
    assert read_index(store, "parcels-2022").equals(read_index(anew, "parcels-2022"))
    assert list(read_index_json(store, "sources")["2022"]) == ["2022-000002"]
    scenes = read_index(store, "scenes").set_index("id")
    assert scenes.loc["S2_2022_9", "taken"]
    # It is not built again, and everything else goes on.
    assert reported(recipe, store) == ""
    assert rebuild(recipe, store).release == 2
    assert build_store(recipe, store, workers=1).built == 0
    assert validated(store) == []
    # Another change of the same samples: a block that was rebuilt can be rebuilt.
    finished.add_sentinel2("S2_2022_10", "2022-10-05T10:50:00Z", 1600)
    recipe = finished.recipe(seasons=[2022, 2023])
    assert (rebuild(recipe, store).release, rebuild(recipe, store).release) == (3, 3)
    build_store(recipe, tmp_path / "later", workers=1)
    assert_same_samples(values_of(store, 2022), values_of(tmp_path / "later", 2022))
    assert files_of_release(store, 1) == first
    # Without the older releases, their shards go.
    prune_store(store, [])
    assert sorted(path.name.split(".")[1] for path in store.glob("2022/s2/c.*")) == ["4", "5"]
    assert_same_samples(values_of(store, 2022), values_of(tmp_path / "later", 2022))
    assert build_store(recipe, store, workers=1).built == 0
    assert validated(store) == []
    # Other labels of it need nothing of what is gone.
    relabel_store(store, tmp_path / "relabelled", recipe=recipe)
    assert_same_samples(values_of(tmp_path / "relabelled", 2022), values_of(tmp_path / "later", 2022))


def validated(store: Path) -> list[str]:
    """What the validator finds wrong with a store."""
    report = h2crop_data.validate(store)
    return [f"{finding.where}: {finding.what}" for finding in report.findings]


def test_a_scene_processed_again_takes_the_place_of_the_older_one(finished: TinyRegion, tmp_path: Path) -> None:
    store, anew = tmp_path / "store", tmp_path / "anew"
    build_store(finished.recipe(seasons=[2022]), store, workers=1)
    # The older product stays in the catalog, as it does in real ones.
    finished.add_sentinel2("S2_2022_5_again", "2022-05-05T10:50:00Z", 1205, baseline="05.11", **strip_of(2022, 5))
    recipe = finished.recipe(seasons=[2022])
    assert "reprocessed products (S2_2022_5 -> S2_2022_5_again)" in reported(recipe, store)
    assert rebuild(recipe, store).release == 2
    build_store(recipe, anew, workers=1)
    assert_same_samples(values_of(store, 2022), values_of(anew, 2022))
    assert next(iter(values_of(store, 2022).values()))["s2"][4].max() == 1207
    scenes = read_index(store, "scenes").set_index("id")
    assert not scenes.loc["S2_2022_5", "taken"]
    assert scenes.loc["S2_2022_5", "reason"] == read_index(anew, "scenes").set_index("id").loc["S2_2022_5", "reason"]
    assert validated(store) == []


def test_an_enmap_product_processed_again_replaces_its_samples(finished: TinyRegion, tmp_path: Path) -> None:
    store, anew = tmp_path / "store", tmp_path / "anew"
    build_store(finished.recipe(seasons=[2022]), store, workers=1)
    old = finished.enmap[0]["id"]
    name = finished.add_enmap(1, "20220724T104526", value=2500, processed="20240101T000000")
    recipe = finished.recipe(seasons=[2022])
    assert f"enmap: inputs have changed for 2 block(s) (0, 1): reprocessed products ({old} -> {name})" in (
        reported(recipe, store)
    )
    assert rebuild(recipe, store).release == 2
    build_store(recipe, anew, workers=1)
    assert_same_samples(values_of(store, 2022), values_of(anew, 2022))
    assert set(read_index(store, "samples-2022")["scene"]) == {name}
    assert validated(store) == []


def test_samples_whose_scene_is_gone_today_are_kept(finished: TinyRegion, tmp_path: Path) -> None:
    store = tmp_path / "store"
    gone = finished.add_enmap(1, "20220901T104526", value=3000, datatake=2000)
    build_store(finished.recipe(seasons=[2022]), store, workers=1)
    old = values_of(store, 2022)
    assert len(old) == 8
    finished.enmap = [item for item in finished.enmap if item["id"] != gone]
    finished.add_sentinel2("S2_2022_9", "2022-09-05T10:50:00Z", 1500)
    recipe = finished.recipe(seasons=[2022])
    told = reported(recipe, store)
    assert (
        f"enmap: inputs have changed for 2 block(s) (2, 3): scenes that are no longer available or used ({gone})"
        in (told)
    )
    assert "2 block(s) (2, 3) would be kept unchanged: their samples cannot be made any more" in told
    report = rebuild(recipe, store)
    assert (report.release, report.built) == (2, 2)
    assert "2 rebuilt, 2 kept" in "\n".join(report.changes)
    assert "2 block(s) (2, 3) are kept as they are: their samples cannot be made any more" in "\n".join(report.changes)
    new = values_of(store, 2022)
    assert new.keys() == old.keys()
    for name, sample in new.items():
        assert sample.identical(old[name]) == ("20220901" in name)
    # The scene is still what these samples were made of.
    assert read_index(store, "scenes").set_index("id").loc[gone, "taken"]
    assert validated(store) == []
    assert rebuild(recipe, store).release == 2


def test_corrected_parcels_are_reported_and_rebuilt_by_choice(finished: TinyRegion, tmp_path: Path) -> None:
    store, anew = tmp_path / "store", tmp_path / "anew"
    build_store(finished.recipe(seasons=[2022]), store, workers=1)
    finished.write_parcels(2022, [(bounds, "ORH" if code == "PPH" else code) for bounds, code in FIELDS])
    recipe = finished.recipe(seasons=[2022])
    told = reported(recipe, store)
    assert "labels: inputs have changed for" in told
    assert "other parcels or crop codes" in told
    assert "h2crop relabel" in told
    assert rebuild(recipe, store).release == 2
    build_store(recipe, anew, workers=1)
    versions = [json.loads(path.read_text())["plan_version"] for path in sorted(store.glob(".build/plan/*/plan.json"))]
    assert versions == [4, 4]
    # A parcel that is another one now has a number of its own.
    assert_same_samples(values_of(store, 2022), values_of(anew, 2022), but=("parcel",))
    shown = {number for sample in values_of(store, 2022).values() for number in np.unique(sample["parcel"])} - {0}
    parcels = read_index(store, "parcels-2022").set_index("number")
    assert shown <= set(parcels.index)
    assert parcels.loc[sorted(shown), "code"].tolist().count("PPH") == 0
    assert validated(store) == []


def test_other_settings_are_told_from_other_scenes(finished: TinyRegion, tmp_path: Path) -> None:
    store, anew = tmp_path / "store", tmp_path / "anew"
    build_store(finished.recipe(seasons=[2022]), store, workers=1)
    recipe = finished.recipe(seasons=[2022], sentinel2={"resampling": "bilinear"})
    assert "s2: inputs have changed for 2 block(s) (0, 1): other settings in the recipe; kept" in reported(
        recipe, store
    )
    assert rebuild(recipe, store).release == 2
    build_store(recipe, anew, workers=1)
    assert_same_samples(values_of(store, 2022), values_of(anew, 2022))


def test_scenes_that_could_not_be_read_are_tried_again(finished: TinyRegion, tmp_path: Path) -> None:
    store, anew = tmp_path / "store", tmp_path / "anew"
    recipe = finished.recipe(seasons=[2022], sentinel2={"gaps": "record"})
    file = finished.folder / "sentinel2/S2_2022_7/nir.tif"
    whole = file.read_bytes()
    file.write_bytes(whole[:2000])
    assert build_store(recipe, store, workers=1).gaps == ["S2_2022_7"]
    lacking = values_of(store, 2022)
    told = reported(recipe, store)
    assert "s2: 2 block(s) (0, 1) lack scenes that could not be read before (S2_2022_7); kept as they are" in told
    # As long as the file cannot be read, nothing is built.
    report = rebuild(recipe, store)
    assert (report.release, report.built) == (1, 0)
    assert "0 rebuilt, 2 kept" in "\n".join(report.changes)
    assert "are kept as they are: S2_2022_7: cannot read" in "\n".join(report.changes)
    # A header that can be read is not enough.
    file.write_bytes(whole[:-1000])
    assert rebuild(recipe, store).release == 1
    file.write_bytes(whole)
    report = rebuild(recipe, store)
    assert (report.release, report.built, report.gaps) == (2, 2, [])
    build_store(recipe, anew, workers=1)
    assert_same_samples(values_of(store, 2022), values_of(anew, 2022))
    assert_same_samples(values_of(store, 2022, release=1), lacking)
    assert reported(recipe, store) == ""
    assert set(read_index(store, "blocks")["retracted"]) == {
        "rebuilt as block 2: scenes that could not be read before can be read now",
        "rebuilt as block 3: scenes that could not be read before can be read now",
        "",
    }


def test_what_was_retracted_stays_out_of_a_rebuild(finished: TinyRegion, tmp_path: Path) -> None:
    store = tmp_path / "store"
    bad = finished.add_enmap(1, "20220901T104526", value=3000, datatake=2000)
    build_store(finished.recipe(seasons=[2022]), store, workers=1)
    blocks = read_index(store, "blocks").set_index("block")["scene"]
    one = int(blocks.index[blocks != bad][0])
    retract_from_store(store, {2022: [one]}, [bad], "haze")
    left = values_of(store, 2022)
    assert len(left) == 2
    finished.add_sentinel2("S2_2022_9", "2022-09-05T10:50:00Z", 1500)
    recipe = finished.recipe(seasons=[2022])
    for _ in range(2):
        report = refresh_store(recipe, store, changed="rebuild", workers=1)
        assert report.release == 3
        assert values_of(store, 2022).keys() == left.keys()
    # What was rebuilt can be retracted, and stays out as well: neither the old block nor the new one comes back.
    with pytest.raises(PlanError, match="the reason must not begin with"):
        retract_from_store(store, {2022: [4]}, [], "rebuilt as block 7")
    retract_from_store(store, {2022: [4]}, [], "smoke")
    assert values_of(store, 2022) == {}
    finished.add_sentinel2("S2_2022_10", "2022-10-05T10:50:00Z", 1500)
    assert refresh_store(finished.recipe(seasons=[2022]), store, changed="rebuild", workers=1).nothing_new
    assert values_of(store, 2022) == {}


def test_new_cells_and_rebuilt_ones_come_in_one_release(finished: TinyRegion, tmp_path: Path) -> None:
    store, anew = tmp_path / "store", tmp_path / "anew"
    build_store(finished.recipe(seasons=[2022], **WEST_HALF), store, workers=1)
    finished.add_sentinel2("S2_2022_9", "2022-09-05T10:50:00Z", 1500)
    whole = {"bbox": [WEST, SOUTH, EAST, NORTH], "crs": f"EPSG:{EPSG}", "cells": "inside"}
    recipe = finished.recipe(seasons=[2022], area=whole)
    shown = CliRunner().invoke(
        app, ["plan", str(finished.folder / "recipe.yaml"), "--extend", str(store), "--changed", "rebuild"]
    )
    assert shown.exit_code == 0, shown.output
    report = refresh_store(recipe, store, changed="rebuild", workers=1)
    assert (report.release, report.new_samples, report.rebuilt) == (2, {2022: 2}, {2022: [0]})
    build_store(recipe, anew, workers=1)
    assert_same_samples(values_of(store, 2022), values_of(anew, 2022), but=("parcel",))
    assert validated(store) == []


def test_rebuilding_without_searching_is_refused(finished: TinyRegion, tmp_path: Path) -> None:
    store = tmp_path / "store"
    with pytest.raises(UsageError, match="changed=rebuild requires extend"):
        build_store(finished.recipe(seasons=[2022]), store, changed="rebuild", workers=1)


def test_blocks_of_an_older_algorithm_are_reported_and_rebuilt_by_choice(
    finished: TinyRegion, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store, recipe = tmp_path / "store", finished.recipe(seasons=[2022])
    build_store(recipe, store, workers=1)
    monkeypatch.setattr(DeclaredParcels, "algorithm", DeclaredParcels.algorithm + 1)
    told = reported(recipe, store)
    assert "season 2022: this h2crop has other algorithms for labels; blocks already built are kept as they are" in told
    assert "labels: inputs have changed for 2 block(s) (0, 1): other algorithms in this h2crop" in told
    assert rebuild(recipe, store).release == 2
    assert reported(recipe, store) == ""
    assert build_store(recipe, store, workers=1).built == 0


def test_blocks_whose_scene_is_matched_as_a_whole_are_rebuilt_together(
    finished: TinyRegion, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One scene has one shift, whichever of its blocks have other inputs."""

    def matching_units(self: Enmap, settings: Any, pinned: Any, blocks: Any, reference: Any) -> list[list[Unit]]:
        cells = sorted(cell.id for block in blocks for cell in block.cells)
        unit = Unit("scene", MATCH_STEP, "scene", 1, cells, None, lambda files: b"", implied=True)
        return [[unit] for _ in blocks]

    stores = [tmp_path / "alone", tmp_path / "together"]
    recipe = finished.recipe(seasons=[2022])
    for store in stores:
        build_store(recipe, store, workers=1)
    # A parcel of the western cells alone.
    fields = [(bounds, "ORH" if bounds[0] == WEST + 10 else code) for bounds, code in FIELDS]
    finished.write_parcels(2022, fields)
    recipe = finished.recipe(seasons=[2022])
    assert refresh_store(recipe, stores[0], changed="rebuild", workers=1).rebuilt == {2022: [0]}
    monkeypatch.setattr(Enmap, "matching_units", matching_units)
    assert refresh_store(recipe, stores[1], changed="rebuild", workers=1).rebuilt == {2022: [0, 1]}
    reasons = read_index(stores[1], "blocks")["retracted"].tolist()
    assert reasons[0] == "rebuilt as block 2: the inputs of parcels have changed"
    assert reasons[1] == (
        "rebuilt as block 3: their scene is matched as a whole, and the inputs of other blocks of it have changed"
    )


# Killed anywhere


def kill_refresh(recipe: Path, store: Path, step: str) -> None:
    """Let a refresh die just before a step."""
    child = multiprocessing.get_context("fork").Process(target=refresh_child, args=(recipe, store, step))
    child.start()
    child.join(120)
    assert child.exitcode == -signal.SIGKILL


def refresh_child(recipe: Path, store: Path, fatal: str) -> None:
    """A refresh that dies just before a step."""
    refresh_store(load_recipe(recipe), FatalStorage(store, fatal), changed="rebuild", workers=1)


@pytest.mark.parametrize(
    "step",
    [
        "write .build/plan/2022-000002/plan.json",
        "write .build/2022/000002.json",
        "write .build/2022/000003.json",
        "write index/r2/manifest.parquet",
        "write zarr.json",
        "delete .build/sealing.json",
    ],
)
def test_a_rebuild_killed_anywhere_is_completed_and_no_release_lacks_samples(
    finished: TinyRegion, tmp_path: Path, step: str
) -> None:
    store, path = tmp_path / "store", finished.folder / "recipe.yaml"
    build_store(finished.recipe(seasons=[2022]), store, workers=1)
    first, old = files_of_release(store, 1), values_of(store, 2022)
    finished.add_sentinel2("S2_2022_9", "2022-09-05T10:50:00Z", 1500)
    recipe = finished.recipe(seasons=[2022])
    kill_refresh(path, store, step)
    anew = tmp_path / "anew"
    build_store(recipe, anew, workers=1)
    new = values_of(anew, 2022)
    # A seal in between, of another season: the samples are the old ones or the new ones, each once.
    between = build_store(recipe.for_seasons([2023]), store, workers=1)
    released = values_of(store, 2022)
    assert read_index(store, "samples-2022")["sample"].is_unique
    finished_by_then = step.startswith(("write index", "write zarr", "delete"))
    assert_same_samples(released, new if finished_by_then else old)
    left = [what for what in validated(store) if "of a release that is not finished" not in what]
    assert left == []
    # An old block that is about to be replaced cannot be retracted: its samples would come back.
    if "2022/00000" in step:
        with pytest.raises(PlanError, match="block 0 of 2022 is being rebuilt as block 2; finish that build first"):
            retract_from_store(store, {2022: [0]}, [], "haze")
    report = refresh_store(recipe, store, changed="rebuild", workers=1)
    assert report.release == between.release + (0 if finished_by_then else 1)
    assert_same_samples(values_of(store, 2022), new)
    assert files_of_release(store, 1) == first
    assert validated(store) == []
    assert refresh_store(recipe, store, changed="rebuild", workers=1).nothing_new


def test_what_changes_while_a_rebuild_is_unfinished_comes_with_the_next_one(
    finished: TinyRegion, tmp_path: Path
) -> None:
    store, path = tmp_path / "store", finished.folder / "recipe.yaml"
    build_store(finished.recipe(seasons=[2022]), store, workers=1)
    finished.add_sentinel2("S2_2022_9", "2022-09-05T10:50:00Z", 1500)
    finished.recipe(seasons=[2022])
    kill_refresh(path, store, "write .build/2022/000003.json")
    finished.add_sentinel2("S2_2022_10", "2022-10-05T10:50:00Z", 1600)
    recipe = finished.recipe(seasons=[2022])
    # Block 2 is done and would come out differently: it is replaced in turn; 3 is built as it was planned.
    for _ in range(3):
        report = refresh_store(recipe, store, changed="rebuild", workers=1)
    assert report.nothing_new
    build_store(recipe, tmp_path / "anew", workers=1)
    assert_same_samples(values_of(store, 2022), values_of(tmp_path / "anew", 2022))
    assert validated(store) == []
