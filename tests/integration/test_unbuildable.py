"""A block that cannot be built stops no release for good, and what unfinished plans replace is still there."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import xarray as xr
from tiny_region import EAST, NORTH, SOUTH, WEST, TinyRegion, outline
from typer.testing import CliRunner

import h2crop_data
from h2crop_data.cli.main import app
from h2crop_data.cube.reading import read_index
from h2crop_data.cube.retraction import NEVER_BUILT, RETRACTED
from h2crop_data.errors import PlanError, StoreError
from h2crop_data.maintenance.relabel import relabel_store
from h2crop_data.maintenance.retract import find_retraction, prune_store, retract_from_store
from h2crop_data.pipeline.build import build_store
from h2crop_data.pipeline.engine import BuildError
from h2crop_data.pipeline.finished import left_with
from h2crop_data.pipeline.refresh import refresh_store
from h2crop_data.recipe.model import Recipe
from h2crop_data.validation.validate import validate_store

FIELDS = [
    ((WEST + 10, SOUTH + 20, WEST + 200, SOUTH + 200), "BTH"),
    ((WEST + 210, SOUTH + 30, WEST + 400, SOUTH + 230), "MIS"),
    ((WEST + 20, SOUTH + 260, WEST + 300, SOUTH + 460), "PPH"),
]


#: South and north of an outline that meets the cells of one block: 0 or 1 of a season that is planned at once.
ROWS = ((SOUTH - 60, SOUTH + 180), (SOUTH + 300, NORTH + 60))


@pytest.fixture
def planned(region: TinyRegion) -> TinyRegion:
    """A region of two seasons of two blocks each, southern cells and northern ones."""
    for year in (2022, 2023):
        for month in (3, 5):
            region.add_sentinel2(f"S2_{year}_{month}", f"{year}-{month:02d}-05T10:50:00Z", 900 + month)
        region.add_enmap(1, f"{year}0724T104526", value=2000 + year - 2000)
    for year in (2021, 2022, 2023):
        crops = [code for _, code in FIELDS]
        turned = [*crops[year % 3 :], *crops[: year % 3]]
        region.write_parcels(year, [(bounds, code) for (bounds, _), code in zip(FIELDS, turned, strict=True)])
    return region


def add_over_row(region: TinyRegion, name: str, date: str, reflectance: int, row: tuple[int, int]) -> Path:
    """A scene whose outline has the cells of one of the two rows alone, which are one block; gives its folder."""
    folder = region.add_sentinel2(name, date, reflectance)
    south, north = row
    region.sentinel2[-1] |= {"geometry": outline(WEST - 60, south, EAST + 60, north)}
    return folder


def add_broken(region: TinyRegion) -> None:
    """A scene over block 1 that the catalog lists and whose files are empty."""
    folder = add_over_row(region, "S2_broken", "2022-06-05T10:50:00Z", 1300, ROWS[1])
    for file in folder.iterdir():
        file.write_bytes(b"")


def withdraw_broken(region: TinyRegion) -> None:
    """The catalog lists the scene no more."""
    region.sentinel2 = [item for item in region.sentinel2 if item["id"] != "S2_broken"]


def values_of(store: Path, season: int = 2022) -> dict[str, xr.Dataset]:
    """All values of a season by sample, each of which is there once."""
    opened = h2crop_data.open(store, season).load().drop_attrs()
    names = [str(name) for name in opened["sample"].values]
    assert len(set(names)) == len(names)
    return {name: opened.isel(sample=place).drop_vars("sample") for place, name in enumerate(names)}


def assert_same(one: dict[str, xr.Dataset], other: dict[str, xr.Dataset]) -> None:
    assert one.keys() == other.keys()
    for name, sample in one.items():
        assert sample.identical(other[name]), name


def problems(store: Path) -> list[str]:
    return [finding.what for finding in validate_store(store, mode="full").findings]


def shards_of(store: Path, block: int) -> list[Path]:
    return sorted(store.glob(f"2022/*/c.{block}.0*"))


def fail_to_build(recipe: Recipe, store: Path, **how: Any) -> str:
    """A refresh that ends with failed blocks; gives the error's text."""
    with pytest.raises(BuildError) as caught:
        refresh_store(recipe, store, workers=1, **how)
    return str(caught.value)


def test_a_block_whose_scene_is_gone_is_left_out_and_planned_again(planned: TinyRegion, tmp_path: Path) -> None:
    store, anew = tmp_path / "store", tmp_path / "anew"
    add_broken(planned)
    recipe = planned.recipe(seasons=[2022])
    assert f"`h2crop retract {store} --block 2022:1 --reason" in fail_to_build(recipe, store)
    # The scene is withdrawn before the next run, which builds what was planned: nothing but a retraction helps.
    withdraw_broken(planned)
    recipe = planned.recipe(seasons=[2022])
    fail_to_build(recipe, store)
    found = find_retraction(store, {2022: [1]}, [])
    assert (found.blocks, found.never_built, found.samples) == ({2022: [1]}, {2022: [1]}, 2)
    shown = CliRunner().invoke(
        app, ["retract", str(store), "--block", "2022:1", "--reason", "withdrawn scene", "--yes"]
    )
    assert shown.exit_code == 0, shown.output
    assert "block(s) 1 of 2022" in " ".join(shown.stderr.split())
    blocks = read_index(store, "blocks")
    assert blocks["retracted"].tolist() == ["", f"{NEVER_BUILT}withdrawn scene"]
    assert [len(files) > 0 for files in blocks["files"]] == [True, False]
    assert problems(store) == []
    assert "Blocks that were planned and never built: 1" in (store / "DATASHEET.md").read_text()
    scenes = read_index(store, "scenes").set_index("id")
    assert not scenes.loc["S2_broken", "taken"]
    built = values_of(store)
    assert len(built) == 2
    # Its samples are planned again, without the scene.
    report = refresh_store(recipe, store, workers=1)
    assert (report.release, report.new_samples, report.built) == (2, {2022: 2}, 1)
    build_store(recipe, anew, workers=1)
    assert_same(values_of(store), values_of(anew))
    assert problems(store) == []
    assert refresh_store(recipe, store, workers=1, changed="rebuild").nothing_new
    # A lost record is restored by the command that the error gives.
    (store / RETRACTED).unlink()
    with pytest.raises(StoreError, match='--block 2022:1 --reason "withdrawn scene"'):
        refresh_store(recipe, store, workers=1)
    retract_from_store(store, {2022: [1]}, [], "withdrawn scene")
    assert refresh_store(recipe, store, workers=1).nothing_new
    # Another store is made of it without that block.
    relabelled = relabel_store(store, tmp_path / "relabelled", recipe=recipe)
    assert relabelled.samples == 4
    assert_same(values_of(tmp_path / "relabelled"), values_of(anew))
    assert problems(tmp_path / "relabelled") == []
    prune_store(store, [])
    assert problems(store) == []


def test_a_scene_is_retracted_from_blocks_that_are_not_built(planned: TinyRegion, tmp_path: Path) -> None:
    store, anew = tmp_path / "store", tmp_path / "anew"
    add_broken(planned)
    recipe = planned.recipe(seasons=[2022])
    fail_to_build(recipe, store)
    found, release = retract_from_store(store, {}, ["S2_broken"], "empty files")
    assert (found.never_built, release) == ({2022: [1]}, 1)
    # The catalog lists it still: it is not taken again.
    report = refresh_store(recipe, store, workers=1)
    assert (report.release, report.new_samples) == (2, {2022: 2})
    withdraw_broken(planned)
    build_store(planned.recipe(seasons=[2022]), anew, workers=1)
    assert_same(values_of(store), values_of(anew))
    assert problems(store) == []


def test_a_store_none_of_whose_blocks_is_built_has_no_release_yet(planned: TinyRegion, tmp_path: Path) -> None:
    store = tmp_path / "store"
    folder = planned.add_sentinel2("S2_broken", "2022-06-05T10:50:00Z", 1300)
    for file in folder.iterdir():
        file.write_bytes(b"")
    fail_to_build(planned.recipe(seasons=[2022]), store)
    assert retract_from_store(store, {2022: [0, 1]}, [], "outage")[1] == 0
    withdraw_broken(planned)
    recipe = planned.recipe(seasons=[2022])
    assert refresh_store(recipe, store, workers=1).new_samples == {2022: 4}
    build_store(recipe, tmp_path / "anew", workers=1)
    assert_same(values_of(store), values_of(tmp_path / "anew"))
    assert problems(store) == []


def test_what_is_to_be_replaced_stays_where_its_new_block_is_never_built(planned: TinyRegion, tmp_path: Path) -> None:
    store, anew = tmp_path / "store", tmp_path / "anew"
    build_store(planned.recipe(seasons=[2022]), store, workers=1)
    old = values_of(store)
    planned.add_sentinel2("S2_2022_9", "2022-09-05T10:50:00Z", 1500)
    add_broken(planned)
    fail_to_build(planned.recipe(seasons=[2022]), store, changed="rebuild")
    with pytest.raises(PlanError, match="block 1 of 2022 is being rebuilt as block 3"):
        retract_from_store(store, {2022: [1]}, [], "haze")
    found, release = retract_from_store(store, {2022: [3]}, [], "outage")
    assert (found.blocks, release) == ({2022: [3]}, 2)
    reasons = read_index(store, "blocks")["retracted"].tolist()
    assert reasons == ["rebuilt as block 2: the inputs of sentinel2 have changed", "", "", f"{NEVER_BUILT}outage"]
    new = values_of(store)
    assert new.keys() == old.keys()
    assert sorted(read_index(store, "samples-2022")["block"]) == [1, 1, 2, 2]
    assert problems(store) == []
    withdraw_broken(planned)
    recipe = planned.recipe(seasons=[2022])
    report = refresh_store(recipe, store, changed="rebuild", workers=1)
    assert (report.release, report.rebuilt, report.new_samples) == (3, {2022: [1]}, {})
    build_store(recipe, anew, workers=1)
    assert_same(values_of(store), values_of(anew))
    assert problems(store) == []


@pytest.fixture
def unreleased(planned: TinyRegion, tmp_path: Path) -> Path:
    """A store of 2023 with unreleased parts of 2022: one with block 1, which cannot be built; one replaces block 0."""
    store = tmp_path / "store"
    build_store(planned.recipe(seasons=[2023]), store, workers=1)
    add_broken(planned)
    fail_to_build(planned.recipe(seasons=[2022]), store)
    add_over_row(planned, "S2_2022_9", "2022-09-05T10:50:00Z", 1500, ROWS[0])
    fail_to_build(planned.recipe(seasons=[2022]), store, changed="rebuild")
    assert shards_of(store, 0)
    assert shards_of(store, 2)
    return store


def test_a_block_whose_new_block_is_not_released_is_not_retracted_in_silence(unreleased: Path) -> None:
    told = "block 0 of 2022 is being rebuilt as block 2"
    with pytest.raises(PlanError, match=told):
        find_retraction(unreleased, {2022: [0]}, [])
    with pytest.raises(PlanError, match=told):
        retract_from_store(unreleased, {2022: [0]}, [], "haze")
    assert not (unreleased / RETRACTED).exists()
    # Without the block that cannot be built both parts are finished, and the new block can be retracted.
    retract_from_store(unreleased, {2022: [1]}, [], "outage")
    assert set(read_index(unreleased, "samples-2022")["block"]) == {2}
    retract_from_store(unreleased, {2022: [2]}, [], "haze")
    assert read_index(unreleased, "samples-2022").empty
    assert problems(unreleased) == []


def test_what_an_unfinished_part_replaces_is_neither_pruned_nor_given_up(unreleased: Path, planned: TinyRegion) -> None:
    kept = shards_of(unreleased, 0)
    prune_store(unreleased, [])
    assert shards_of(unreleased, 0) == kept
    # Part of a block is lost: it is built again, since the next release may need it.
    kept[0].unlink()
    fail_to_build(planned.recipe(seasons=[2022]), unreleased)
    assert shards_of(unreleased, 0) == kept


def test_a_block_of_a_release_that_lost_its_marker_is_not_taken_for_one_never_built(
    planned: TinyRegion, tmp_path: Path
) -> None:
    store = tmp_path / "store"
    recipe = planned.recipe(seasons=[2022])
    build_store(recipe, store, workers=1)
    (store / ".build/2022/000001.json").unlink()
    with pytest.raises(PlanError, match="block 1 of 2022 has lost its marker; rerun the build first"):
        retract_from_store(store, {2022: [1]}, [], "haze")


def test_all_blocks_that_share_samples_with_one_are_left_out_with_it() -> None:
    plans: list[Any] = [
        SimpleNamespace(season=2022, replaces={0: "rebuilt as block 4, 5: why", 1: "rebuilt as block 5, 6: why"}),
        SimpleNamespace(season=2022, replaces={6: "rebuilt as block 9: a, b: c", 7: "rebuilt as block 10: why"}),
        SimpleNamespace(season=2023, replaces={0: "rebuilt as block 4: why"}),
    ]
    assert left_with(plans, {2022: {4}}) == {2022: {4, 5, 6, 9}}
    assert left_with(plans, {2022: {10}, 2023: {8}}) == {2022: {10}, 2023: {8}}
