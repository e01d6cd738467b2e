"""A source that another package brings: everything works with it, and no file of this package knows it."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import rasterio
import yaml
from changed_stores import change_json, change_values, index_file, overwrite, sign
from rasterio.warp import Resampling, reproject
from tiny_region import EAST, EPSG, NORTH, SOUTH, WEST, TinyRegion, write_raster

import h2crop_data
from h2crop_data import plugins
from h2crop_data.cube.columns import Column
from h2crop_data.cube.reading import read_index, read_index_json, store_attributes
from h2crop_data.cube.schema import ValueRules
from h2crop_data.errors import PlanError, PluginError, RecipeError
from h2crop_data.grid import Cell
from h2crop_data.maintenance.compare import compare_stores
from h2crop_data.pipeline.build import build_store
from h2crop_data.recipe.model import load_recipe, parse_recipe
from h2crop_data.sources.registry import layout_of_recipe
from h2crop_data.training.dataset import CropSamples
from h2crop_data.validation.validate import validate_store

ROOT = Path(__file__).resolve().parents[2]
PLUGIN = ROOT / "tests" / "plugins" / "terrain"
PAGE = ROOT / "docs" / "add-a-source.md"
FIELDS = [((WEST + 10, SOUTH + 20, WEST + 200, SOUTH + 200), "BTH"), ((WEST + 210, SOUTH + 30, EAST, NORTH), "MIS")]
#: Grid of the made raster: another size of pixels than the cells' and larger than the region.
PIXEL, MARGIN = 20, 300


@pytest.fixture
def installed(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """The package of the source, as if it were installed."""
    monkeypatch.syspath_prepend(str(PLUGIN))
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(PLUGIN), str(ROOT)]))
    plugins.installed_sources.cache_clear()
    plugins.load_installed.cache_clear()
    yield
    plugins.installed_sources.cache_clear()
    plugins.load_installed.cache_clear()


@pytest.fixture(scope="module")
def terrain(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A region of two seasons with a raster of elevation; gives its recipe, which asks for it."""
    region = TinyRegion(tmp_path_factory.mktemp("region"))
    for year in (2022, 2023):
        region.add_sentinel2(f"S2_{year}", f"{year}-03-05T10:50:00Z", 1000 + year - 2000)
        region.add_enmap(1, f"{year}0724T104526", value=2000 + year - 2000)
    for year in (2021, 2022, 2023):
        region.write_parcels(year, FIELDS if year % 2 else [(FIELDS[0][0], "MIS"), (FIELDS[1][0], "BTH")])
    side = (round((NORTH - SOUTH) / PIXEL) + 30, round((EAST - WEST) / PIXEL) + 30)
    rows, columns = np.mgrid[: side[0], : side[1]]
    heights = (200 + 3 * rows + 5 * columns).astype(np.int16)[None]
    write_raster(region.folder / "heights.tif", heights, WEST - MARGIN, NORTH + MARGIN, PIXEL, -9999)
    recipe = region.folder / "recipe.yaml"
    document = {**region.recipe().complete(), "terrain": {"path": "heights.tif"}}
    recipe.write_text(yaml.safe_dump(document), encoding="utf-8")
    return recipe


@pytest.fixture(scope="module")
def built(terrain: Path) -> Path:
    """A store of the season 2022; not to be changed."""
    store = terrain.parent / "store"
    build(terrain, store)
    return store


def run(*arguments: object, plugin: bool = True) -> subprocess.CompletedProcess[str]:
    """The command line in a process of its own, with the source installed or not."""
    path = os.pathsep.join([str(PLUGIN), str(ROOT)] if plugin else [str(ROOT)])
    return subprocess.run(
        [sys.executable, "-m", "h2crop_data", *map(str, arguments)],
        env={**os.environ, "PYTHONPATH": path},
        capture_output=True,
        text=True,
        check=False,
    )


def build(recipe: Path, store: Path, *more: str) -> None:
    """Build with two worker processes."""
    done = run("build", recipe, "--out", store, "--workers", 2, "--processes", *more)
    assert done.returncode == 0, done.stderr


def heights_under(recipe: Path, cell: Cell) -> np.ndarray:
    """What the raster has under a cell, warped by rasterio itself: (8, 8)."""
    found = np.full((8, 8), -32768, np.int16)
    with rasterio.open(recipe.parent / "heights.tif") as raster:
        west, _, _, north = cell.bounds
        reproject(
            rasterio.band(raster, 1),
            found,
            dst_transform=rasterio.transform.from_origin(west, north, 30, 30),
            dst_crs=cell.crs,
            resampling=Resampling.nearest,
        )
    return found


def check_statistics(store: Path) -> None:
    """The release counts the elevation of its training samples, and so does a naive pass."""
    parts = []
    for season in store_attributes(store)["seasons"]:
        split = read_index(store, f"samples-{season}")["split"].to_numpy()
        parts.append(h2crop_data.open(store, int(season))["elevation"].values[split == "train"])
    values = np.concatenate(parts).astype(float)
    stated = read_index_json(store, "statistics")["others"]["elevation"]
    assert stated["units"] == "m"
    (band,) = stated["elevation"]
    assert band["count"] == values.size > 0
    assert (band["mean"], band["sd"]) == pytest.approx((values.mean(), values.std()))
    assert (band["min"], band["max"]) == (values.min(), values.max())
    assert band["percentiles"]["50"] == np.percentile(values, 50, method="inverted_cdf")


def test_it_is_planned_built_sealed_read_grown_and_compared(
    terrain: Path, built: Path, tmp_path: Path, installed: None
) -> None:
    store, other = tmp_path / "store", tmp_path / "other"
    shutil.copytree(built, store)
    opened = h2crop_data.open(store, 2022)
    samples = read_index(store, "samples-2022").set_index("sample")
    for i, name in enumerate(opened["sample"].values):
        cell = Cell.parse(samples.loc[name, "cell"])
        expected = heights_under(terrain, cell)
        np.testing.assert_array_equal(opened["elevation"][i], expected)
        assert samples.loc[name, "terrain_mean"] == pytest.approx(expected.mean())
        assert samples.loc[name, "terrain_range"] == expected.max() - expected.min()
    # North is up: the raster falls towards the north and rises towards the east.
    assert (np.diff(opened["elevation"], axis=1) >= 0).all()
    assert (np.diff(opened["elevation"], axis=2) >= 0).all()
    # Elevation is no reflectance, whatever its fill.
    scaled = h2crop_data.open(store, 2022, scaled=True)
    np.testing.assert_array_equal(scaled["elevation"], opened["elevation"])
    assert (scaled["elevation"].dtype, scaled["s2"].dtype) == (np.int16, np.float32)
    dataset = CropSamples(store, arrays=["elevation", "label"])
    np.testing.assert_array_equal(dataset[1]["elevation"].numpy(), opened["elevation"][1])
    sheet = (store / "DATASHEET.md").read_text(encoding="utf-8")
    assert "**Terrain**: a raster of the user's own" in sheet
    assert "| `elevation` | elevation | 8 x 8 pixels of 30 m | int16 | -32768 | m |" in sheet
    check_statistics(store)
    build(terrain, store, "--season", "2023")
    check_statistics(store)
    assert list(store_attributes(store)["seasons"]) == ["2022", "2023"]
    assert h2crop_data.open(store, 2023)["elevation"].shape == (4, 8, 8)
    assert validate_store(store).findings == []
    build(terrain, other, "--season", "2022", "--season", "2023")
    comparison = compare_stores(store, other)
    assert comparison.same
    assert not comparison.incomparable


def test_what_changes_pixels_is_part_of_the_input_hash(terrain: Path, built: Path, installed: None) -> None:
    before = read_index(built, "blocks")
    assert before["hash_terrain"].str.fullmatch("[0-9a-f]{64}").all()
    moved = terrain.parent / "elsewhere.tif"
    moved.write_bytes((terrain.parent / "heights.tif").read_bytes())
    for change, changed in (({"path": "elsewhere.tif"}, False), ({"path": "heights.tif", "smooth": True}, True)):
        document = yaml.safe_load(terrain.read_text(encoding="utf-8")) | {"terrain": change}
        again = terrain.parent / "again.yaml"
        again.write_text(yaml.safe_dump(document), encoding="utf-8")
        told = run("plan", again, "--extend", built, "--json")
        assert told.returncode == 0, told.stderr
        notes = " ".join(json.loads(told.stdout)["notes"])
        assert ("terrain: inputs have changed for 2 block(s)" in notes) is changed


def test_a_store_opens_and_validates_without_the_package(built: Path, tmp_path: Path) -> None:
    store = tmp_path / "store"
    shutil.copytree(built, store)
    assert "terrain" not in plugins.installed_sources()
    assert h2crop_data.open(store, 2022)["elevation"].shape == (4, 8, 8)
    assert CropSamples(store, arrays=["elevation"])[0]["elevation"].shape == (8, 8)
    found = validate_store(store)
    assert found.findings == []
    unknown = "terrain_mean, terrain_range: nothing here knows how they follow from the data (Terrain)"
    assert found.not_checked == [unknown]
    # Damage is found all the same.
    shard = next((store / "2022/elevation").glob("c.*"))
    data = bytearray(shard.read_bytes())
    data[3] ^= 255
    overwrite(shard, data)
    assert {finding.where.split(",")[0] for finding in validate_store(store).findings} == {
        str(shard.relative_to(store))
    }
    data[3] ^= 255
    overwrite(shard, data)

    def one_more(document: Any) -> None:
        document["others"]["elevation"]["elevation"][0]["count"] += 1

    change_json(index_file(store, "statistics"), one_more)
    sign(store)
    (finding,) = validate_store(store).findings
    assert finding.check == "statistics"
    assert "others.elevation.elevation" in finding.what


def test_values_are_checked_by_what_the_store_states_of_them(built: Path, tmp_path: Path) -> None:
    store = tmp_path / "store"
    shutil.copytree(built, store)
    sample = read_index(store, "samples-2022").query("block == 1")["sample"].iloc[-1]

    def too_high(values: Any) -> None:
        values[-1, 2, :3] = 9001, -501, 9000

    change_values(store, 2022, "elevation", 1, too_high)
    sign(store)
    of_range = [finding for finding in validate_store(store).findings if finding.check == "range"]
    assert [(finding.severity, finding.where, finding.what) for finding in of_range] == [
        ("error", f"2022/elevation, sample {sample} (block 1)", "2 value(s) outside -500 to 9000 m")
    ]


def test_what_a_source_states_of_its_numbers_may_change(
    terrain: Path, built: Path, tmp_path: Path, installed: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A store that was built when less, or something else, was known of them grows all the same."""
    source = plugins.load_installed("terrain")
    made = source.format(None, 240)
    for rules in (None, ValueRules(possible=(-20000, 2000), fill="nowhere")):
        changed = replace(made, arrays=(replace(made.arrays[0], rules=rules),))
        monkeypatch.setattr(type(source), "format", lambda self, settings, cell_size, made=changed: made)
        store = tmp_path / f"store-{rules is None}"
        shutil.copytree(built, store)
        document = yaml.safe_load(terrain.read_text(encoding="utf-8"))
        build_store(parse_recipe({**document, "seasons": [2023]}, terrain.parent, "mine"), store, workers=1)
        (stated,) = store_attributes(store)["layout"]["sources"]["terrain"]["arrays"]
        assert ("rules" in stated) is (rules is not None)
        found = validate_store(store)
        assert not [finding for finding in found.findings if finding.severity == "error"]
        unknown = [line for line in found.not_checked if line.startswith("the values of elevation: the store does not")]
        assert bool(unknown) is (rules is None)


def test_building_without_the_package_says_what_is_missing(terrain: Path, built: Path, tmp_path: Path) -> None:
    document = yaml.safe_load(terrain.read_text(encoding="utf-8"))
    with pytest.raises(RecipeError, match="terrain: unknown key"):
        load_recipe(terrain)
    with pytest.raises(PluginError, match="requires the source terrain, which is not installed"):
        parse_recipe(document, tmp_path, "plan", stored=True)
    refused = run("relabel", built, "--out", tmp_path / "new", plugin=False)
    assert refused.returncode == 1
    assert "which is not installed" in refused.stderr
    assert "Traceback" not in refused.stderr


def test_its_settings_are_checked_as_all_others(terrain: Path, installed: None) -> None:
    document = yaml.safe_load(terrain.read_text(encoding="utf-8")) | {"terrain": {"smooth": "perhaps"}}
    with pytest.raises(RecipeError) as raised:
        parse_recipe(document, terrain.parent, "mine")
    assert "section terrain" in str(raised.value)
    assert "path" in str(raised.value)
    assert "smooth" in str(raised.value)


def test_an_unused_source_is_in_no_recipe_text_and_no_hash(terrain: Path, installed: None) -> None:
    document = yaml.safe_load(terrain.read_text(encoding="utf-8"))
    del document["terrain"]
    installed_but_unused = parse_recipe(document, terrain.parent, "mine")
    assert "terrain" not in installed_but_unused.as_written()
    asked_for = load_recipe(terrain)
    assert asked_for.hash != installed_but_unused.hash
    assert parse_recipe({**document, "terrain": "none"}, terrain.parent, "mine").hash == installed_but_unused.hash


def test_the_index_keeps_the_recipe_with_the_source(built: Path, installed: None) -> None:
    assert read_index_json(built, "recipes")["2022"]["terrain"] == {"path": "heights.tif", "smooth": False}
    stated = store_attributes(built)["layout"]["sources"]["terrain"]
    assert [spec["name"] for spec in stated["arrays"]] == ["elevation"]
    assert [column["name"] for column in stated["columns"]] == ["terrain_mean", "terrain_range"]


def test_a_column_that_an_older_block_does_not_know_is_null(
    terrain: Path, built: Path, tmp_path: Path, installed: None
) -> None:
    """As where an earlier version of the source, which did not measure the range, built the first block."""
    store = tmp_path / "store"
    shutil.copytree(built, store)
    path = store / ".build/2022/000000.json"
    marker = json.loads(path.read_text(encoding="utf-8"))
    older = [{name: value for name, value in row.items() if name != "terrain_range"} for row in marker["provenance"]]
    # It kept no checksum of its markers, and no release has its block yet.
    del marker["checksum"]
    path.write_text(json.dumps({**marker, "provenance": older}), encoding="utf-8")
    (store / "zarr.json").unlink()
    for folder in ("index", ".build/sealed"):
        shutil.rmtree(store / folder)
    build(terrain, store, "--season", "2023")
    samples = read_index(store, "samples-2022")
    assert list(samples) == list(read_index(built, "samples-2022"))
    assert samples["terrain_range"].isna().tolist() == (samples["block"] == 0).tolist()
    assert samples["terrain_mean"].notna().all()
    assert validate_store(store, mode="quick").findings == []


def test_a_store_without_the_source_does_not_take_blocks_with_it(
    terrain: Path, built: Path, tmp_path: Path, installed: None
) -> None:
    document = yaml.safe_load(terrain.read_text(encoding="utf-8"))
    del document["terrain"]
    bare = parse_recipe({**document, "seasons": [2023]}, terrain.parent, "bare")
    store = tmp_path / "store"
    shutil.copytree(built, store)
    with pytest.raises(PlanError, match=r"a different layout \(terrain: store elevation int16 8 x 8, plan none\)"):
        build_store(bare, store, workers=1)


def test_two_packages_with_one_name_harm_nobody_who_does_not_use_it(
    terrain: Path, tmp_path: Path, installed: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    other = tmp_path / "other-1.0.dist-info"
    other.mkdir()
    (other / "METADATA").write_text("Metadata-Version: 2.1\nName: other\nVersion: 1.0\n")
    (other / "entry_points.txt").write_text("[h2crop.sources]\nterrain = other:Terrain\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    plugins.installed_sources.cache_clear()
    document = yaml.safe_load(terrain.read_text(encoding="utf-8"))
    with pytest.raises(PluginError, match="two packages bring a source 'terrain'"):
        load_recipe(terrain)
    del document["terrain"]
    assert parse_recipe(document, terrain.parent, "mine").other_sources == []
    with pytest.raises(RecipeError, match="terain: unknown key"):  # codespell:ignore
        parse_recipe({**document, "terain": {}}, terrain.parent, "mine")  # codespell:ignore


def test_a_name_that_another_source_has_is_refused(
    terrain: Path, installed: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = plugins.load_installed("terrain")
    made = source.format(None, 240)
    recipe = load_recipe(terrain)
    column = Column("enmap_fill_share", "number", "mine", source="terrain", known="derived")
    array = replace(made.arrays[0], name="label")
    for change, told in (
        ({"columns": (column,)}, "column of the samples called 'enmap_fill_share'"),
        ({"arrays": (array,)}, "array or coordinate called 'label'"),
        ({"group": "s2"}, "group of arrays called 's2'"),
    ):
        changed = replace(made, **change)
        monkeypatch.setattr(type(source), "format", lambda self, settings, cell_size, made=changed: made)
        with pytest.raises(PluginError, match=told):
            layout_of_recipe(recipe)


def test_the_page_explains_this_very_source() -> None:
    """The Python of docs/add-a-source.md, block by block, is the source that these tests run."""
    blocks = re.findall(r"```python\n(.*?)```", PAGE.read_text(encoding="utf-8"), re.DOTALL)
    together = "\n".join(block.strip("\n") for block in blocks)
    wanted = (PLUGIN / "h2crop_terrain.py").read_text(encoding="utf-8")
    assert re.sub(r"\n+", "\n", together).strip() == re.sub(r"\n+", "\n", wanted).strip()
    assert len(wanted.splitlines()) < 150
    assert (PLUGIN / "h2crop_terrain-1.0.dist-info/entry_points.txt").read_text().strip() in PAGE.read_text()
    assert EPSG == 32631
