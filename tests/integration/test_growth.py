"""A store grows by seasons, cells, scenes and countries; what is there stays as it is, and what changed is told."""

from __future__ import annotations

import json
import shlex
import shutil
from pathlib import Path
from typing import Any

import geopandas as gpd
import numpy as np
import pytest
import shapely
import zarr
from killed_builds import SAID_BY_RUNS
from tiny_region import EAST, EPSG, NORTH, SOUTH, WEST, TinyRegion
from typer.testing import CliRunner

import h2crop_data
from h2crop_data.cli.main import app
from h2crop_data.cube.reading import load_root, read_index, read_index_json, store_attributes
from h2crop_data.cube.released_tables import named_files
from h2crop_data.cube.root import manifest_parts
from h2crop_data.errors import PlanError, StoreError
from h2crop_data.maintenance.migrate import migrate_store
from h2crop_data.maintenance.relabel import relabel_store
from h2crop_data.maintenance.restore import restore_root
from h2crop_data.maintenance.retract import prune_store, retract_from_store
from h2crop_data.pipeline.build import build_store
from h2crop_data.pipeline.extension import plan_extensions
from h2crop_data.recipe.model import load_recipe
from h2crop_data.training.dataset import CropSamples
from h2crop_data.validation.validate import validate_store

FIELDS = [
    ((WEST + 10, SOUTH + 20, WEST + 200, SOUTH + 200), "BTH"),
    ((WEST + 210, SOUTH + 30, WEST + 400, SOUTH + 230), "MIS"),
    ((WEST + 20, SOUTH + 260, WEST + 300, SOUTH + 460), "PPH"),
]
WEST_HALF = {"area": {"bbox": [WEST, SOUTH, WEST + 240, NORTH], "crs": f"EPSG:{EPSG}", "cells": "inside"}}
WHOLE = {"area": {"bbox": [WEST, SOUTH, EAST, NORTH], "crs": f"EPSG:{EPSG}", "cells": "inside"}}


@pytest.fixture
def grown(region: TinyRegion) -> TinyRegion:
    """A region with three seasons of Sentinel-2, an EnMAP scene a season, and parcels of four years."""
    for year in (2022, 2023, 2024):
        for month in (3, 7):
            region.add_sentinel2(f"S2_{year}_{month}", f"{year}-{month:02d}-05T10:50:00Z", 900 + year - 2000 + month)
        region.add_enmap(1, f"{year}0724T104526", value=2000 + year - 2000)
    for year in (2021, 2022, 2023, 2024):
        region.write_parcels(year, FIELDS)
    return region


@pytest.fixture(scope="module")
def built_twice(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A store of one season with two releases, beside the region of its recipe, which has another season."""
    folder = tmp_path_factory.mktemp("twice")
    region, store = TinyRegion(folder / "region"), folder / "store"
    region.folder.mkdir()
    for year in (2022, 2023):
        region.add_sentinel2(f"S2_{year}", f"{year}-07-05T10:50:00Z")
    build_store(region.recipe(), store, workers=1)
    retract_from_store(store, {2022: [1]}, [], "haze")
    return store


def shards(folder: Path) -> dict[str, bytes]:
    """Every shard of a store by name."""
    arrays = ("enmap", "enmap_quality", "s2", "s2_clear", "s2_day", "label", "prior", "parcel")
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in sorted(folder.glob("2*/*/c.*"))
        if path.parent.name in arrays
    }


def values_of(folder: Path, season: int, release: int | None = None) -> dict[str, Any]:
    """All values of a season by sample."""
    opened = h2crop_data.open(folder, season, release=release).load().drop_attrs()
    return {str(name): opened.isel(sample=i).drop_vars("sample") for i, name in enumerate(opened["sample"].values)}


def test_a_new_season_adds_to_a_finished_store(grown: TinyRegion, tmp_path: Path) -> None:
    store = tmp_path / "store"
    build_store(grown.recipe(seasons=[2022, 2023]), store, workers=1)
    before, open_reader = shards(store), h2crop_data.open(store, 2022)
    old = values_of(store, 2022)
    opened_dataset = CropSamples(store)
    report = build_store(grown.recipe(seasons=[2022, 2023]).for_seasons([2024]), store, workers=1)
    assert (report.release, report.built, report.already_done) == (2, 2, 0)
    after = shards(store)
    assert {name: after[name] for name in before} == before
    assert {name.split("/")[0] for name in set(after) - set(before)} == {"2024"}
    assert list(store_attributes(store)["seasons"]) == ["2022", "2023", "2024"]
    # A reader of the first release goes on seeing it whole.
    assert open_reader.attrs["release"] == 1
    assert open_reader.load().sizes["sample"] == len(old)
    assert len(opened_dataset) == 8
    assert opened_dataset[7]["s2"].shape == (12, 3, 24, 24)
    # And the first release can be opened by its number.
    with pytest.raises(StoreError, match="has no season 2024; it has 2022, 2023"):
        h2crop_data.open(store, 2024, release=1)
    assert values_of(store, 2022, release=1).keys() == old.keys()
    assert len(CropSamples(store, release=1)) == 8
    assert len(CropSamples(store)) == 12
    # The other way round gives the same arrays.
    build_store(grown.recipe(seasons=[2022, 2023, 2024]), tmp_path / "at once", workers=1)
    assert shards(tmp_path / "at once") == after


def test_new_cells_add_blocks_to_a_season(grown: TinyRegion, tmp_path: Path) -> None:
    store = tmp_path / "store"
    build_store(grown.recipe(seasons=[2022], **WEST_HALF), store, workers=1)
    before, old = shards(store), values_of(store, 2022)
    assert len(old) == 2
    whole = grown.recipe(seasons=[2022], **WHOLE)
    with pytest.raises(PlanError, match=r"differs in area.*--extend"):
        build_store(whole, store, workers=1)
    assert shards(store) == before
    report = build_store(whole, store, extend=True, workers=1)
    assert (report.release, report.built, report.already_done, report.changes) == (2, 1, 1, [])
    after, new = shards(store), values_of(store, 2022)
    assert {name: after[name] for name in before} == before
    assert len(new) == 4
    for name, sample in old.items():
        assert sample.identical(new[name])
    # Every sample is what a build at once makes of it, but for the numbers of parcels.
    build_store(whole, tmp_path / "at once", workers=1)
    for name, sample in values_of(tmp_path / "at once", 2022).items():
        assert sample.drop_vars("parcel").equals(new[name].drop_vars("parcel"))
    # A parcel keeps its number, and each number is one parcel of the index.
    parcels = read_index(store, "parcels-2022")
    first = read_index(store, "parcels-2022", release=1)
    assert parcels["number"].tolist() == list(range(1, len(FIELDS) + 1))
    known = dict(zip(first["number"], first["parcel_id"], strict=True))
    assert {
        number: name for number, name in zip(parcels["number"], parcels["parcel_id"], strict=True) if number in known
    } == known
    samples = read_index(store, "samples-2022")
    assert samples["slot"].tolist() == [0, 1, 2, 3]
    assert sorted(samples["block"]) == [0, 0, 1, 1]
    blocks = read_index(store, "blocks")
    assert blocks["part"].tolist() == ["2022", "2022-000001"]
    # Going on with either recipe, or asking again, changes nothing.
    for recipe, extend in ((whole, False), (whole, True), (grown.recipe(seasons=[2022], **WEST_HALF), False)):
        again = build_store(recipe, store, extend=extend, workers=1)
        assert (again.release, again.built) == (2, 0)
    assert shards(store) == after


def test_new_scenes_and_countries_add_samples(grown: TinyRegion, tmp_path: Path) -> None:
    store = tmp_path / "store"
    build_store(grown.recipe(seasons=[2022]), store, workers=1)
    before, old = shards(store), values_of(store, 2022)
    grown.add_enmap(1, "20220901T104526", value=3000, datatake=2000)
    foreign = gpd.GeoDataFrame(
        {"CODE_CULTU": ["MIS"], "ID_PARCEL": ["x1"]},
        geometry=[shapely.box(WEST + 410, SOUTH + 30, WEST + 470, SOUTH + 200)],
        crs=f"EPSG:{EPSG}",
    )
    foreign.to_file(grown.folder / "OTHER_2022.gpkg", driver="GPKG")
    source = {"path": "RPG_{year}.gpkg", "country": "fr", "code_field": "CODE_CULTU", "id_field": "ID_PARCEL"}
    other = {**source, "path": "OTHER_{year}.gpkg", "country": "be-vlg", "years": [2022], "table": "fr"}
    recipe = grown.recipe(seasons=[2022], parcels={"season": [{**source, "years": [2021, 2022]}, other]})
    report = build_store(recipe, store, extend=True, workers=1)
    assert report.release == 2
    new = values_of(store, 2022)
    assert len(new) == 8
    assert {name: shards(store)[name] for name in before} == before
    for name, sample in old.items():
        assert sample.identical(new[name])
    # The old samples lack the new parcel, which is told; the new ones have it.
    (line,) = report.changes
    assert "labels" in line
    assert "relabel" in line
    parcels = read_index(store, "parcels-2022").set_index("parcel_id")
    number = int(parcels.loc["x1", "number"])
    assert parcels.loc["x1", "country"] == "be-vlg"
    has_it = {name for name, sample in new.items() if (sample["parcel"] == number).any()}
    assert {name[-15:-7] for name in has_it} == {"20220901"}
    assert len(has_it) == 1


def test_a_plan_shows_what_would_be_added_and_what_changed(grown: TinyRegion, tmp_path: Path) -> None:
    store, plan = tmp_path / "store", tmp_path / "plan"
    build_store(grown.recipe(seasons=[2022], **WEST_HALF), store, workers=1)
    before = {path: path.read_bytes() for path in store.rglob("*") if path.is_file()}
    whole = grown.recipe(seasons=[2022], **WHOLE)
    path = str(grown.folder / "recipe.yaml")
    shown = CliRunner().invoke(app, ["plan", path, "--extend", str(store), "--out", str(plan), "--json"])
    assert shown.exit_code == 0
    summary = json.loads(shown.stdout)["2022"]
    assert summary["counts"]["samples"] == 2
    assert summary["counts"]["blocks"] == 1
    assert summary["bytes"] > 0
    assert {path: path.read_bytes() for path in store.rglob("*") if path.is_file()} == before
    build_store(plan, store, workers=1)
    assert len(values_of(store, 2022)) == 4
    # The plan is there now; what it numbers is taken.
    assert build_store(plan, store, workers=1).built == 0
    (found,) = plan_extensions(whole, str(store))
    assert found.plan is None
    assert found.changed == []
    # A new scene of Sentinel-2, another crop, and what the recipe does not look at any more.
    grown.add_sentinel2("S2_2022_9", "2022-09-05T10:50:00Z", 1500)
    (found,) = plan_extensions(grown.recipe(seasons=[2022], **WHOLE), str(store))
    assert [(one.block, one.groups) for one in found.changed] == [(0, ("s2",)), (1, ("s2",))]
    grown.write_parcels(2022, [*FIELDS[:1], (FIELDS[1][0], "BTH"), *FIELDS[2:]])
    (found,) = plan_extensions(grown.recipe(seasons=[2022], **WEST_HALF), str(store))
    assert [(one.block, one.groups) for one in found.changed] == [(0, ("s2", "labels"))]
    assert found.not_compared == 1
    told = CliRunner().invoke(app, ["plan", path, "--extend", str(store)])
    assert told.exit_code == 0
    assert "nothing to add" in told.stderr
    assert "h2crop relabel" in told.stderr


def test_a_plan_of_a_store_that_grew_meanwhile_is_refused(grown: TinyRegion, tmp_path: Path) -> None:
    store = tmp_path / "store"
    build_store(grown.recipe(seasons=[2022], **WEST_HALF), store, workers=1)
    grown.recipe(seasons=[2022], **WHOLE)
    path = str(grown.folder / "recipe.yaml")
    assert CliRunner().invoke(app, ["plan", path, "--extend", str(store), "--out", str(tmp_path / "p")]).exit_code == 0
    grown.add_enmap(1, "20220901T104526", datatake=2000)
    build_store(grown.recipe(seasons=[2022], **WEST_HALF), store, extend=True, workers=1)
    with pytest.raises(PlanError, match=r"was started with another plan|it has grown since"):
        build_store(tmp_path / "p", store, workers=1)


def test_a_retracted_block_leaves_the_next_release_and_stays_in_the_last(grown: TinyRegion, tmp_path: Path) -> None:
    store = tmp_path / "store"
    build_store(grown.recipe(seasons=[2022]), store, workers=1)
    before, old = shards(store), values_of(store, 2022)
    runner = CliRunner()
    refused = runner.invoke(app, ["retract", str(store), "--block", "2022:1", "--reason", "x"])
    assert refused.exit_code != 0
    assert store_attributes(store)["release"] == 1
    done = runner.invoke(
        app, ["retract", str(store), "--block", "2022:1", "--reason", "haze nobody saw", "--yes", "--json"]
    )
    assert done.exit_code == 0, done.stderr
    assert json.loads(done.stdout)["release"] == 2
    new = values_of(store, 2022)
    assert len(old) == 4
    assert len(new) == 2
    for name, sample in new.items():
        assert sample.identical(old[name])
    kept = values_of(store, 2022, release=1)
    assert {name: sample.identical(old[name]) for name, sample in kept.items()} == dict.fromkeys(old, True)
    assert len(CropSamples(store)) == 2
    assert len(CropSamples(store, release=1)) == 4
    blocks = read_index(store, "blocks")
    assert blocks["retracted"].tolist() == ["", "haze nobody saw"]
    assert not [
        path for path in read_index(store, "manifest")["path"] if "/c.1." in path and path.split("/")[1] == "s2"
    ]
    # Statistics are those of what is left.
    build_store(grown.recipe(seasons=[2022]), tmp_path / "other", workers=1)
    pixels = read_index_json(store, "statistics")["class_pixels"]["2022"]
    assert sum(sum(tier["label"][0].values()) for tier in pixels.values()) == 2 * 24 * 24
    # Building on does not bring it back; asking for more does, in a new block.
    assert build_store(grown.recipe(seasons=[2022]), store, workers=1).release == 2
    report = build_store(grown.recipe(seasons=[2022]), store, extend=True, workers=1)
    assert (report.built, report.release) == (1, 3)
    back = values_of(store, 2022)
    assert {name: back[name].identical(old[name]) for name in old} == dict.fromkeys(old, True)
    assert shards(store).items() >= before.items()
    assert read_index(store, "samples-2022")["slot"].tolist() == [0, 1, 4, 5]


def test_a_retracted_scene_is_not_taken_again(grown: TinyRegion, tmp_path: Path) -> None:
    store = tmp_path / "store"
    bad = grown.add_enmap(1, "20220901T104526", value=3000, datatake=2000)
    build_store(grown.recipe(seasons=[2022]), store, workers=1)
    assert len(values_of(store, 2022)) == 8
    done = CliRunner().invoke(app, ["retract", str(store), "--scene", bad, "--reason", "shifted", "--yes"])
    assert done.exit_code == 0, done.stderr
    assert len(values_of(store, 2022)) == 4
    report = build_store(grown.recipe(seasons=[2022]), store, extend=True, workers=1)
    assert (report.built, report.release) == (0, 2)
    unknown = CliRunner().invoke(app, ["retract", str(store), "--scene", "nobody", "--reason", "x", "--yes"])
    assert isinstance(unknown.exception, PlanError)
    # A scene of Sentinel-2 takes every block with it that it was looked at for.
    done = CliRunner().invoke(
        app, ["retract", str(store), "--scene", "S2_2022_7", "--reason", "bad", "--yes", "--json"]
    )
    assert done.exit_code == 0, done.stderr
    assert json.loads(done.stdout)["samples"] == 4
    assert values_of(store, 2022) == {}
    report = build_store(grown.recipe(seasons=[2022]), store, extend=True, workers=1)
    back = values_of(store, 2022)
    assert len(back) == 4
    assert all((sample["s2"][6] == -32768).all() for sample in back.values())
    scenes = read_index(store, "scenes").set_index("id")
    assert scenes.loc["S2_2022_7", "reason"] == "retracted: bad"
    assert scenes.loc[bad, "reason"] == "retracted: shifted"


def test_pruning_deletes_old_releases_and_what_only_they_needed(grown: TinyRegion, tmp_path: Path) -> None:
    store = tmp_path / "store"
    build_store(grown.recipe(seasons=[2022]), store, workers=1)
    runner = CliRunner()
    for block in ("2022:1",):
        runner.invoke(app, ["retract", str(store), "--block", block, "--reason", "x", "--yes"])
    build_store(grown.recipe(seasons=[2023]), store, workers=1)
    assert store_attributes(store)["release"] == 3
    values = {season: values_of(store, season) for season in (2022, 2023)}
    none = runner.invoke(app, ["prune", str(store), "--keep", "7"])
    assert isinstance(none.exception, PlanError)
    kept = json.loads(runner.invoke(app, ["prune", str(store), "--keep", "1", "--json"]).stdout)
    assert (kept["releases"], kept["kept"]) == ([2], [1, 3])
    assert len(values_of(store, 2022, release=1)) == 4
    assert len([name for name in shards(store) if "/c.1." in name and name.startswith("2022/")]) == 8
    with pytest.raises(StoreError, match="has no release 2"):
        load_root(store, 2)
    pruned = json.loads(runner.invoke(app, ["prune", str(store), "--json"]).stdout)
    assert (pruned["releases"], pruned["kept"]) == ([1], [3])
    assert not [name for name in shards(store) if "/c.1." in name and name.startswith("2022/")]
    assert sorted(path.name for path in (store / "index").iterdir()) == ["r2", "r3"]
    for season, before in values.items():
        now = values_of(store, season)
        assert {name: now[name].identical(sample) for name, sample in before.items()} == dict.fromkeys(before, True)
    # Plain Zarr readers see fill in the slots of what was pruned, and no valid sample there.
    group = zarr.open_group(str(store), mode="r")["2022"]
    assert group["valid"][:].tolist() == [True, True, False, False]
    assert (group["s2"][2:] == -32768).all()
    # The store still grows.
    assert build_store(grown.recipe(seasons=[2024]), store, workers=1).release == 4
    np.testing.assert_array_equal(read_index(store, "samples-2022")["slot"], [0, 1])


def test_pruning_keeps_what_the_newest_release_names_of_earlier_ones(built_twice: Path, tmp_path: Path) -> None:
    store = Path(shutil.copytree(built_twice, tmp_path / "store"))
    recipe = load_recipe(built_twice.parent / "region/recipe.yaml")
    build_store(recipe.for_seasons([2023]), store, workers=1)
    before = values_of(store, 2022)
    named = named_files(store_attributes(store))
    assert any(path.startswith("index/r2/") for path in named), "no file of an unchanged season is pointed at"
    # Leftovers: of a release that lost its root, and of one that would have a higher number.
    for folder in ("r1", "r9"):
        (store / f"index/{folder}").mkdir(exist_ok=True)
        (store / f"index/{folder}/left.parquet").write_bytes(b"left")
    report = prune_store(store, [])
    assert (report.releases, report.kept) == ([1, 2], [3])
    names = {path.relative_to(store).as_posix() for path in (store / "index").rglob("*") if path.is_file()}
    assert names == named | {"index/r9/left.parquet"}
    assert values_of(store, 2022).keys() == before.keys()
    assert prune_store(store, []).files == 0
    (store / "index/r9/left.parquet").unlink()
    (store / "index/r9").rmdir()
    assert validate_store(store, mode="quick").findings == []
    # A damaged manifest does not say what is needed.
    retract_from_store(store, {2022: [0]}, [], "haze")
    damage(store / manifest_parts(store_attributes(store))[0]["path"])
    with pytest.raises(StoreError, match="missing or damaged, so it is not known which files release 4 needs"):
        prune_store(store, [])
    assert read_index(store, "blocks", 3) is not None


# Roots and records that are lost


def files_of(folder: Path) -> dict[str, bytes]:
    """Every file of a store but those about runs."""
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in folder.rglob("*")
        if path.is_file() and path.name not in SAID_BY_RUNS
    }


@pytest.mark.parametrize("releases", [1, 2])
def test_a_store_that_lost_its_root_is_left_alone_until_it_is_put_back(
    grown: TinyRegion, tmp_path: Path, releases: int
) -> None:
    store, path = tmp_path / "store", str(grown.folder / "recipe.yaml")
    first, other = grown.recipe(seasons=[2022], **WEST_HALF), grown.recipe(seasons=[2022], **WHOLE)
    build_store(first, store, workers=1)
    if releases == 2:
        build_store(first.for_seasons([2023]), store, workers=1)
    build_store(first, tmp_path / "source", workers=1)
    whole = files_of(store)
    (store / "zarr.json").unlink()
    lost = files_of(store)
    command = f"h2crop restore {store}"
    for refused in (
        lambda: build_store(first, store, workers=1),
        lambda: build_store(first.for_seasons([2024]), store, workers=1),
        lambda: build_store(other, store, extend=True, workers=1),
        lambda: retract_from_store(store, {2022: [0]}, [], "haze"),
        lambda: migrate_store(store),
        lambda: prune_store(store, []),
        lambda: relabel_store(tmp_path / "source", store),
    ):
        with pytest.raises(StoreError, match=f"{store} has lost its root zarr.json.*`{command}`"):
            refused()
        assert files_of(store) == lost
    told = CliRunner().invoke(app, ["build", path, "--out", str(store)])
    assert isinstance(told.exception, StoreError)
    told = CliRunner().invoke(app, [*command.split()[1:], "--json"])
    assert json.loads(told.stdout) == {"store": str(store), "release": releases, "before": None, "restored": True}
    assert files_of(store) == whole
    report = build_store(first, store, workers=1)
    assert (report.release, report.built) == (releases, 0)
    assert files_of(store) == whole
    assert build_store(other, store, extend=True, workers=1).release == releases + 1


def test_a_release_never_gets_the_number_of_another_one(grown: TinyRegion, tmp_path: Path) -> None:
    store = tmp_path / "store"
    recipe = grown.recipe(seasons=[2022])
    for season in (2022, 2023):
        build_store(recipe.for_seasons([season]), store, workers=1)
    released = {name: data for name, data in files_of(store).items() if name.startswith("index/")}
    # A root of before, put back although a newer release was made.
    shutil.copy(store / "index/r1/root.json", store / "zarr.json")
    build_store(recipe, tmp_path / "source", workers=1)
    before = files_of(store)
    for refused in (
        lambda: build_store(recipe.for_seasons([2024]), store, workers=1),
        lambda: retract_from_store(store, {2022: [0]}, [], "haze"),
        lambda: migrate_store(store),
        lambda: prune_store(store, []),
        lambda: relabel_store(tmp_path / "source", store),
        lambda: relabel_store(store, tmp_path / "new"),
    ):
        with pytest.raises(StoreError, match=f"is that of release 1, but release 2 was made.*`h2crop restore {store}`"):
            refused()
        assert files_of(store) == before
    (older,) = [one for one in validate_store(store, mode="quick").findings if one.check == "release"]
    assert older.what == "is that of release 1, but release 2 was made, or is about to be"
    assert older.remedy == f"`h2crop restore {store}` puts its copy in its place"
    assert (restore_root(store).before, store_attributes(store)["release"]) == (1, 2)
    assert build_store(recipe.for_seasons([2024]), store, workers=1).release == 3
    assert files_of(store).items() >= released.items()
    assert list(store_attributes(store)["seasons"]) == ["2022", "2023", "2024"]
    # Neither copy nor root, but a folder with its number.
    (store / "index/r9").mkdir()
    shutil.copy(store / "index/r1/blocks-2022.parquet", store / "index/r9/blocks-2022.parquet")
    retract_from_store(store, {2022: [0]}, [], "haze")
    assert store_attributes(store)["release"] == 10


def damage(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)


#: What happens to files of release 2 of two, and why its root is not restored then.
BROKEN = {
    "the copy is damaged": (lambda store: (store / "index/r2/root.json").write_bytes(b"{"), "root.json is damaged"),
    "a part of the manifest is damaged": (
        lambda store: damage(next((store / "index/r2").glob("manifest*.parquet"))),
        "manifest.*differs from the SHA-256",
    ),
    "a table is lost": (lambda store: next((store / "index/r2").glob("blocks*.parquet")).unlink(), "blocks.* missing"),
}


@pytest.mark.parametrize("case", BROKEN)
@pytest.mark.parametrize("root", ["lost", "damaged", "older"])
def test_a_root_is_restored_from_a_whole_copy_only(built_twice: Path, tmp_path: Path, root: str, case: str) -> None:
    store = Path(shutil.copytree(built_twice, tmp_path / "store"))
    whole = (store / "zarr.json").read_bytes()
    if root == "lost":
        (store / "zarr.json").unlink()
    elif root == "damaged":
        (store / "zarr.json").write_bytes(b'{"attributes": ')
    else:
        shutil.copy(store / "index/r1/root.json", store / "zarr.json")
    broken = Path(shutil.copytree(store, tmp_path / "broken"))
    # The newest is in place of an older one, never the other way round.
    with pytest.raises(StoreError, match="has release 2, which is newer than 1"):
        restore_root(store, 1)
    assert restore_root(store, 2).restored
    assert (store / "zarr.json").read_bytes() == whole
    assert not restore_root(store).restored
    # Where the newest is not whole, the user says so.
    change, said = BROKEN[case]
    change(broken)
    with pytest.raises(StoreError, match=f"cannot be restored: .*{said}.*--release 1"):
        restore_root(broken)
    with pytest.raises(PlanError, match="no root of release 7; it has those of 1, 2"):
        restore_root(broken, 7)
    report = restore_root(broken, 1)
    assert (report.release, report.restored) == (1, root != "older")
    assert retract_from_store(broken, {2022: [0]}, [], "haze")[1] == 3


@pytest.mark.parametrize("kept", [None, "older"])
def test_what_was_retracted_does_not_come_back_when_its_record_is_lost(
    grown: TinyRegion, tmp_path: Path, kept: str | None
) -> None:
    store, record = tmp_path / "store", tmp_path / "store/.build/retracted.json"
    bad = grown.add_enmap(1, "20220901T104526", value=3000, datatake=2000)
    recipe = grown.recipe(seasons=[2022])
    build_store(recipe, store, workers=1)
    blocks = read_index(store, "blocks").set_index("block")["scene"]
    (one, *_), bad_blocks = blocks.index[blocks != bad].tolist(), blocks.index[blocks == bad].tolist()
    retract_from_store(store, {2022: [one]}, [], "haze nobody saw")
    older = record.read_bytes()
    retract_from_store(store, {}, [bad], "shifted")
    valid = values_of(store, 2022)
    if kept:
        record.write_bytes(older)
    else:
        record.unlink()
    lost = files_of(store)
    scene = rf"scene {bad} \(shifted\)"
    named = scene if kept else rf"{scene}, block {one} of 2022 \(haze nobody saw\)"
    path = str(grown.folder / "recipe.yaml")
    for refused in (
        lambda: build_store(recipe, store, workers=1),
        lambda: build_store(recipe, store, extend=True, workers=1),
        lambda: build_store(recipe.for_seasons([2023]), store, workers=1),
        lambda: plan_extensions(recipe, str(store)),
        lambda: migrate_store(store),
        lambda: relabel_store(store, tmp_path / "new"),
    ):
        with pytest.raises(StoreError, match=rf"excludes {named}.*{record} does not") as raised:
            refused()
        assert files_of(store) == lost
    assert not (tmp_path / "new/zarr.json").exists()
    told = CliRunner().invoke(app, ["plan", path, "--extend", str(store)])
    assert isinstance(told.exception, StoreError)
    # The commands it names bring the record back, whatever is retracted first.
    if not kept:
        assert f"retract {store} --scene {bad} --block 2022:{bad_blocks[0]}" in str(raised.value)
    commands = [part for part in str(raised.value).split("`") if part.startswith("h2crop retract")]
    for command in commands:
        CliRunner().invoke(app, [*shlex.split(command)[1:], "--yes"])
    restored = json.loads(record.read_text())
    assert restored["scenes"] == {bad: "shifted"}
    assert restored["blocks"] == {"2022": {str(one): "haze nobody saw", **{str(b): "shifted" for b in bad_blocks}}}
    report = build_store(recipe, store, workers=1)
    assert (report.release, report.built) == (3, 0)
    assert values_of(store, 2022).keys() == valid.keys()
    report = build_store(recipe, store, extend=True, workers=1)
    assert {name[-15:-7] for name in values_of(store, 2022)} == {"20220724"}


def test_a_block_retracted_beside_a_lost_record_is_retracted_too(grown: TinyRegion, tmp_path: Path) -> None:
    store = tmp_path / "store"
    build_store(grown.recipe(seasons=[2022]), store, workers=1)
    retract_from_store(store, {2022: [0]}, [], "haze")
    (store / ".build/retracted.json").unlink()
    with pytest.raises(StoreError, match=r"excludes block 0 of 2022 \(haze\)"):
        retract_from_store(store, {2022: [1]}, [], "smoke")
    assert store_attributes(store)["release"] == 2
    assert retract_from_store(store, {2022: [0]}, [], "haze")[1] == 3
    assert read_index(store, "blocks")["retracted"].tolist() == ["haze", "smoke"]


def test_a_damaged_index_is_repaired_and_cannot_tell_what_was_retracted_where_the_record_of_that_is_lost(
    grown: TinyRegion, tmp_path: Path
) -> None:
    store = tmp_path / "store"
    build_store(grown.recipe(seasons=[2022]), store, workers=1)
    blocks = store / "index/r1/blocks-2022.parquet"
    whole = blocks.read_bytes()
    blocks.write_bytes(whole[:100])
    report = build_store(grown.recipe(seasons=[2023]), store, workers=1)
    assert (report.release, report.repaired) == (2, ["index/r1/blocks-2022.parquet"])
    assert blocks.read_bytes() == whole
    retract_from_store(store, {2022: [0]}, [], "haze")
    (store / ".build/retracted.json").unlink()
    blocks = store / "index/r3/blocks-2022.parquet"
    blocks.write_bytes(blocks.read_bytes()[:100])
    with pytest.raises(StoreError, match=rf"{blocks} is damaged.*delete it if nothing was ever retracted"):
        build_store(grown.recipe(seasons=[2023]), store, workers=1)


def test_sums_that_are_not_those_of_their_block_are_found_before_they_are_used(
    grown: TinyRegion, tmp_path: Path
) -> None:
    store = tmp_path / "store"
    recipe = grown.recipe(seasons=[2022], **WEST_HALF)
    build_store(recipe, store, workers=1)
    build_store(grown.recipe(seasons=[2022], **WHOLE), store, extend=True, workers=1)
    first, second = (store / f".build/2022/{block:06d}.sums" for block in (0, 1))
    whole = files_of(store)
    assert first.read_bytes() != second.read_bytes()
    first.write_bytes(second.read_bytes())
    season = grown.recipe(seasons=[2023], **WHOLE)
    with pytest.raises(StoreError, match=rf"{first} is missing or damaged.*`h2crop migrate {store}`"):
        build_store(season, store, workers=1)
    assert migrate_store(store).mended == 1
    assert first.read_bytes() == whole[".build/2022/000000.sums"]
    build_store(season, store, workers=1)
    for one in (2022, 2023):
        pixels = read_index_json(store, "statistics")["class_pixels"][str(one)]
        assert sum(sum(tier["label"][0].values()) for tier in pixels.values()) == 4 * 24 * 24


def test_sums_damaged_before_the_first_release_are_repaired(grown: TinyRegion, tmp_path: Path) -> None:
    store = tmp_path / "store"
    recipe = grown.recipe(seasons=[2022])
    build_store(recipe, store, workers=1)
    whole = files_of(store)
    # As it was before it was sealed.
    (store / "zarr.json").unlink()
    shutil.rmtree(store / "index")
    (store / ".build/2022/000001.sums").write_bytes(b"damaged")
    with pytest.raises(StoreError, match=f"000001.sums is missing or damaged.*`h2crop migrate {store}`"):
        build_store(recipe, store, workers=1)
    told = CliRunner().invoke(app, ["migrate", str(store)])
    assert told.exit_code == 0
    assert "statistics of 1 block(s) recomputed; there is no release yet, rerun the build" in " ".join(
        told.stderr.split()
    )
    assert not (store / "zarr.json").exists()
    assert build_store(recipe, store, workers=1).release == 1
    assert files_of(store) == whole
