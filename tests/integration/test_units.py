"""Units of work in builds: an EnMAP scene is looked at once, and what a source adds enters the hash of its blocks."""

from __future__ import annotations

import json
import shutil
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from killed_builds import contents
from tiny_region import EPSG, NORTH, SOUTH, WEST, TinyRegion, write_raster
from web_server import served

import h2crop_data
from h2crop_data import plugins
from h2crop_data.cube.reading import read_index
from h2crop_data.errors import ReadError
from h2crop_data.grid import tiles_of
from h2crop_data.pipeline.build import build_store
from h2crop_data.pipeline.engine import BuildError, Workers
from h2crop_data.pipeline.plan import SeasonPlan, load_plans, save_plan
from h2crop_data.pipeline.planning import make_plan
from h2crop_data.recipe.model import Recipe, load_recipe
from h2crop_data.sources import registry
from h2crop_data.sources.units import Unit

PLUGIN = Path(__file__).resolve().parents[1] / "plugins" / "terrain"
WEST_HALF = {"bbox": [WEST, SOUTH, WEST + 240, NORTH], "crs": f"EPSG:{EPSG}", "cells": "inside"}
#: Blocks of one cell: four of each scene.
SMALL_BLOCKS = {"store": {"block_capacity": 1}}
FACTS = ".build/plan/2022/enmap-facts.parquet"


class Reads:
    """A region of two EnMAP scenes whose METADATA.XML lie on a web server, and how often each was read."""

    def __init__(self, region: TinyRegion, url: str, asked: list[tuple[str, int]]) -> None:
        self.region = region
        self.asked = asked
        self.scenes = [region.add_enmap(1, "20220724T104526"), region.add_enmap(2, "20220824T104526", datatake=1900)]
        for item in region.enmap:
            item["assets"]["metadata"]["href"] = f"{url}/enmap/{item['id']}/METADATA.XML"

    def since(self) -> Counter[str]:
        """Reads of METADATA.XML by scene since the last call."""
        found = Counter(path.split("/")[2] for path, _ in self.asked if path.endswith("METADATA.XML"))
        self.asked.clear()
        return found

    def metadata(self, scene: str) -> Path:
        return self.region.folder / "enmap" / scene / "METADATA.XML"


@pytest.fixture
def reads(region: TinyRegion) -> Iterator[Reads]:
    with served(region.folder) as (url, asked):
        yield Reads(region, url, asked)


class TestEnmap:
    def test_metadata_of_a_scene_are_read_once_whatever_grows_and_goes_on(self, reads: Reads, tmp_path: Path) -> None:
        store = tmp_path / "store"
        once = Counter(reads.scenes)
        build_store(reads.region.recipe(area=WEST_HALF, **SMALL_BLOCKS), store, workers=Workers(2, "processes"))
        assert reads.since() == once
        whole = reads.region.recipe(**SMALL_BLOCKS)
        report = build_store(whole, store, workers=2, extend=True)
        assert report.built == 4
        assert reads.since() == Counter()
        shutil.rmtree(store / ".build/2022")
        assert build_store(whole, store, workers=2, extend=True).built == 8
        assert reads.since() == Counter()
        assert len(list(store.glob(".build/work/*/*.bin"))) == 2

    def test_planning_goes_on_after_a_scene_that_could_not_be_read(
        self, reads: Reads, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setenv("H2CROP_READ_PAUSES", "none")
        first, second = reads.scenes
        kept = reads.metadata(second).rename(tmp_path / "kept.xml")
        recipe = reads.region.recipe(**SMALL_BLOCKS)
        with pytest.raises(ReadError, match=second):
            build_store(recipe, tmp_path / "store", workers=1)
        assert reads.since() == Counter([first])
        kept.rename(reads.metadata(second))
        build_store(recipe, tmp_path / "store", workers=1)
        assert reads.since() == Counter([second])

    def test_a_plan_without_a_store_takes_its_results_along(self, reads: Reads, tmp_path: Path) -> None:
        recipe = reads.region.recipe(**SMALL_BLOCKS)
        save_plan(make_plan(recipe, 2022), tmp_path / "plan")
        (plan,) = load_plans(tmp_path / "plan")
        facts = plan.pinned["enmap"].facts[reads.scenes[0]]
        assert [band.wavelength for band in facts.bands] == [550, 650, 860]
        assert [band.number for band in facts.bands] == [1, 3, 2]
        assert facts.bands[0].gain == 0.0001
        assert facts.processing == {}
        assert reads.since() == Counter(reads.scenes)
        build_store(tmp_path / "plan", tmp_path / "store", workers=1)
        assert reads.since() == Counter()
        assert not list((tmp_path / "store/.build/work").rglob("*.bin"))

    def test_the_plan_of_an_earlier_h2crop_is_built_and_its_scenes_looked_at_once(
        self, reads: Reads, tmp_path: Path
    ) -> None:
        recipe, store, other = reads.region.recipe(**SMALL_BLOCKS), tmp_path / "store", tmp_path / "other"
        build_store(recipe, store, workers=1)
        shutil.copytree(store / ".build/plan", other / ".build/plan")
        (other / FACTS).unlink()
        reads.since()
        build_store(recipe, other, workers=1)
        assert reads.since() == Counter(reads.scenes)
        expected = {name: digest for name, digest in contents(store).items() if name != FACTS}
        assert contents(other) == expected

    def test_files_of_this_machine_that_were_replaced_are_looked_at_again(
        self, region: TinyRegion, tmp_path: Path
    ) -> None:
        name = region.add_enmap(1, "20220724T104526")
        build_store(region.recipe(area=WEST_HALF), tmp_path / "store", workers=1)
        cloud = np.zeros((19, 19), bool)
        cloud[:, 10:] = True
        region.enmap.clear()
        assert region.add_enmap(1, "20220724T104526", cloud=cloud) == name
        # The eastern cells are cloudy now: there is nothing to add.
        assert build_store(region.recipe(), tmp_path / "store", workers=1, extend=True).built == 0
        assert len(list((tmp_path / "store").glob(".build/work/*/*.bin"))) == 2

    def test_a_scene_that_cannot_be_looked_at_costs_only_its_blocks(self, region: TinyRegion, tmp_path: Path) -> None:
        first, second = region.add_enmap(1, "20220724T104526"), region.add_enmap(2, "20220824T104526", datatake=1900)
        store = tmp_path / "store"
        recipe = region.recipe(**SMALL_BLOCKS)
        build_store(recipe, store, workers=1)
        for lost in (".build/work", ".build/2022"):
            shutil.rmtree(store / lost)
        (store / FACTS).unlink()
        (region.folder / "enmap" / second / "METADATA.XML").unlink()
        with pytest.raises(BuildError, match=f"4 of 8 blocks failed(.|\n)*{second}: cannot read") as failure:
            build_store(recipe, store, workers=1)
        assert first not in str(failure.value)
        assert len(list(store.glob(".build/2022/*.json"))) == 4


def heights(strength: int, files: Sequence[Path]) -> bytes:
    """A made computation: the sum of what it needs and of its own strength, as text."""
    return str(sum(int(path.read_bytes()) for path in files) + strength).encode()


@pytest.fixture
def tiled(region: TinyRegion, monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """The source of tests/plugins with units: each block is compared with what the tiles under it gave."""
    monkeypatch.syspath_prepend(str(PLUGIN))
    plugins.installed_sources.cache_clear()
    plugins.load_installed.cache_clear()
    from h2crop_terrain import Terrain

    class TiledTerrain(Terrain):  # type: ignore[misc]
        strength: int | None = 5

        def units(self, settings: Any, pinned: Any, blocks: Any) -> list[list[Unit]]:
            if self.strength is None:
                return [[] for _ in blocks]
            return [[self.against_tiles(block)] for block in blocks]

        def against_tiles(self, block: Any) -> Unit:
            tiles = sorted({tile for cell in block.cells for tile in tiles_of(cell)})
            own, compute = {"strength": self.strength}, partial(heights, self.strength)
            needs = tuple(Unit("tile", "heights", tile.id, 1, [tile.id], own, compute) for tile in tiles)
            return Unit("scene against tiles", "shift", block.scene, 1, [], {}, partial(heights, 100), needs)

        def with_results(self, pinned: Any, units: Sequence[Unit], results: Any) -> Any:
            return pinned, {unit.name: int(results[unit.id].read()) for unit in units}

        def task(self, settings: Any, pinned: Any, block: Any) -> Any:
            if self.strength is None:
                return super().task(settings, pinned, block), 0
            raster, shifts = pinned
            return super().task(settings, raster, block), shifts[block.scene]

        def assemble(self, task: Any, ground: Any, watch: Any) -> Any:
            plain, shift = task
            made = super().assemble(plain, ground, watch)
            return replace(made, arrays={name: values + np.int16(shift) for name, values in made.arrays.items()})

    source = TiledTerrain()
    monkeypatch.setattr(registry, "load_installed", lambda name: source)
    yield source
    plugins.installed_sources.cache_clear()
    plugins.load_installed.cache_clear()


@pytest.fixture
def hilly(region: TinyRegion, tiled: Any) -> Recipe:
    """A recipe of one EnMAP scene and a raster of elevation, 200 m everywhere."""
    region.add_enmap(1, "20220724T104526")
    flat = np.full((1, 100, 100), 200, np.int16)
    write_raster(region.folder / "heights.tif", flat, WEST - 500, NORTH + 500, 20, -9999)
    document = {**region.recipe().complete(), "terrain": {"path": "heights.tif"}}
    path = region.folder / "hilly.yaml"
    path.write_text(yaml.safe_dump(document), encoding="utf-8")
    return load_recipe(path)


def hashes(plan: SeasonPlan) -> Mapping[str, list[str]]:
    return {column: list(plan.blocks[column]) for column in plan.blocks if column.startswith("hash_")}


class TestOtherSources:
    def test_blocks_get_what_their_units_found(self, hilly: Recipe, tmp_path: Path) -> None:
        store = tmp_path / "store"
        build_store(hilly, store, workers=1)
        # The cells lie in one tile: 5 of the tile, 100 of the scene.
        assert (h2crop_data.open(store, 2022)["elevation"] == 305).all()
        markers = [json.loads(path.read_text()) for path in store.glob(".build/work/*/*.json")]
        assert sorted(marker["kind"] for marker in markers) == ["scene", "scene against tiles", "tile"]

    def test_only_the_hash_of_the_blocks_that_use_units_has_their_ids(self, hilly: Recipe, tiled: Any) -> None:
        first = hashes(make_plan(hilly, 2022))
        assert hashes(make_plan(hilly, 2022)) == first
        tiled.strength = 6
        changed = hashes(make_plan(hilly, 2022))
        tiled.strength = None
        without = hashes(make_plan(hilly, 2022))
        for other in (changed, without):
            differing = {column for column in first if first[column] != other[column]}
            assert differing == {"hash_terrain"}
        assert changed["hash_terrain"] != without["hash_terrain"]

    def test_a_store_tells_that_a_changed_setting_would_change_its_blocks(
        self, hilly: Recipe, tiled: Any, tmp_path: Path
    ) -> None:
        store = tmp_path / "store"
        build_store(hilly, store, workers=1)
        tiled.strength = 6
        report = build_store(hilly, store, workers=1, extend=True)
        (line,) = report.changes
        assert "terrain: inputs have changed for" in line
        assert (h2crop_data.open(store, 2022)["elevation"] == 305).all()
        assert len(read_index(store, "samples-2022")) == 4
