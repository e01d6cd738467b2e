"""Clouds are masked once a processing tile and date, and composites hold what the masks leave clear."""

from __future__ import annotations

import json
import shutil
import sys
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import rasterio
from changed_recipes import kept_recipe, recipe_document
from changed_stores import change_table, shard_digests, sign
from mishap_source import mishaps_installed
from numpy.typing import NDArray

import h2crop_data
from h2crop_data.cube.reading import read_index
from h2crop_data.errors import H2cropError, PlanError, PluginError, RecipeError, StoreError, UsageError
from h2crop_data.grid import Cell, ProcessingTile, tiles_of
from h2crop_data.maintenance.relabel import relabel_store
from h2crop_data.maintenance.retract import find_retraction, retract_from_store
from h2crop_data.pipeline import units
from h2crop_data.pipeline.build import build_store
from h2crop_data.pipeline.engine import BuildError, Workers
from h2crop_data.pipeline.estimate import estimate
from h2crop_data.pipeline.planning import make_plan
from h2crop_data.recipe.model import Recipe
from h2crop_data.sentinel2.clouds import MASK_PIXEL
from h2crop_data.sentinel2.tile_masks import MaskCode, MaskRules
from h2crop_data.simulate.region import simulate_region
from h2crop_data.simulate.settings import load_settings
from h2crop_data.sources.sentinel2.alignment import Alignment
from h2crop_data.sources.sentinel2.mask_file import TileMasks
from h2crop_data.sources.sentinel2.tile_reading import TileMaker, TileTask, make_masks
from h2crop_data.sources.sentinel2.tile_unit import tile_task
from h2crop_data.validation.validate import validate_store

SETTINGS: dict[str, Any] = {
    "seed": 5,
    "cells": 6,
    "cell_size": 480,
    "split_square": 1000,
    "sentinel2.dates_per_month": 3,
    "sentinel2.months": [4, 5, 6],
    "sentinel2.duplicates": 0.0,
    "sentinel2.l1c": True,
    "enmap.scenes": 0,
    "truth_reflectance": False,
}
STEPS = {"dilation": 40, "cast_shadows": True, "second_look": True}
FILL = -32768
#: A method of another package.
WHITENESS = Path(__file__).parents[1] / "plugins/whiteness"


@pytest.fixture(scope="module")
def simulated(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A region of six small cells with nine dates, L2A and L1C."""
    folder = tmp_path_factory.mktemp("region")
    simulate_region(load_settings(None, SETTINGS), folder, workers=1)
    return folder


RecipeOf = Callable[..., Recipe]


@pytest.fixture
def recipe_of(simulated: Path, tmp_path: Path) -> RecipeOf:
    """Makes recipes of the region; keywords are settings of Sentinel-2, `clouds` those of its masks."""

    def make(folder: Path = simulated, **changes: Any) -> Recipe:
        document = recipe_document(simulated)
        document |= {"enmap": "none", "store": {"block_capacity": 2}, **changes.pop("recipe", {})}
        document["sentinel2"] |= {"bands": ["B02", "B08", "B11"], "clouds": STEPS, "alignment": "none", **changes}
        return kept_recipe(folder, document)

    return make


def cells_of(store: Path) -> list[str]:
    """The cells of the samples of a store, as they stand in its arrays."""
    return list(read_index(store, "samples-2022").sort_values("slot")["cell"])


def masks_of(store: Path) -> list[TileMasks]:
    """The masks in the work folder of a store."""
    return [
        TileMasks(path, Alignment("none", 4)) for path in sorted((store / ".build/work/sentinel2-masks").glob("*.bin"))
    ]


def codes_on(masks: TileMasks, place: int, cell: Cell) -> NDArray[np.uint8]:
    """The codes of a date over a cell of the tile, in pixels of 10 m."""
    west, _, _, north = masks.tile.bounds
    left, top = (cell.corner[0] - west) // MASK_PIXEL, (north - cell.corner[1]) // MASK_PIXEL
    side = cell.size // MASK_PIXEL
    return masks.codes(place)[top : top + side, left : left + side].repeat(2, 0).repeat(2, 1)


def looks_of_region(folder: Path) -> dict[str, list[dict[str, Any]]]:
    """The items of the region by their datatake."""
    listed: dict[str, list[dict[str, Any]]] = {}
    for item in json.loads((folder / "catalog/sentinel-2-c1-l2a.json").read_text())["features"]:
        listed.setdefault(item["properties"]["s2:datatake_id"][:20], []).append(item)
    return listed


def numbers(folder: Path, item: dict[str, Any], key: str, cell: Cell) -> NDArray[np.int64]:
    """Pixels of 10 m of an asset over a cell, 0 beyond its edge, read whole and cut by hand."""
    with rasterio.open(folder / "catalog" / item["assets"][key]["href"]) as raster:
        pixels, transform = raster.read(1), raster.transform
    times = round(transform.a / 10)
    pixels = pixels.repeat(times, 0).repeat(times, 1).astype(np.int64)
    left, top = round((cell.corner[0] - transform.c) / 10), round((transform.f - cell.corner[1]) / 10)
    side = cell.size // 10
    found = np.zeros((side, side), np.int64)
    rows, columns = np.arange(top, top + side), np.arange(left, left + side)
    down, across = ((place >= 0) & (place < size) for place, size in ((rows, len(pixels)), (columns, pixels.shape[1])))
    found[np.ix_(down, across)] = pixels[np.ix_(rows[down], columns[across])]
    return found


def test_composites_are_of_what_the_masks_leave_clear(simulated: Path, recipe_of: RecipeOf, tmp_path: Path) -> None:
    """Every stored number from the files and the codes alone, median by median."""
    store = tmp_path / "store"
    build_store(recipe_of(), store, workers=1)
    (masks,) = masks_of(store)
    data = h2crop_data.open(store, 2022)
    dropped = 0
    for place, name in enumerate(cells_of(store)):
        cell = Cell.parse(name)
        by_month: dict[int, list[tuple[NDArray[np.int64], NDArray[np.bool_]]]] = {}
        for items in looks_of_region(simulated).values():
            shown = np.zeros((cell.size // 10,) * 2, bool)
            clear, values = shown.copy(), np.zeros((3, *shown.shape), np.int64)
            for item in sorted(items, key=lambda item: item["id"]):
                classes = numbers(simulated, item, "scl", cell)
                own = (classes > 0) & ~shown
                shown |= own
                if item["id"] not in masks.places:
                    continue
                codes = codes_on(masks, masks.places[item["id"]], cell)
                dropped += int((own & np.isin(classes, (4, 5, 6)) & (codes != MaskCode.CLEAR)).sum())
                offset = 1000 if item["properties"]["s2:processing_baseline"] >= "04.00" else 0
                bands = [numbers(simulated, item, key, cell) for key in ("blue", "nir", "swir16")]
                # At the end of a swath pixels of 10 m can lack data under one of 20 m that has some.
                clear |= own & (codes == MaskCode.CLEAR) & np.all([band > 0 for band in bands], axis=0)
                for band, found in enumerate(bands):
                    values[band][own] = (found - offset)[own]
            month = int(items[0]["properties"]["datetime"][5:7])
            by_month.setdefault(month, []).append((values, clear))
        for month in range(1, 13):
            looks = by_month.get(month, [])
            stored = data.s2.values[place, month - 1].astype(np.int64)
            counts = sum((clear for _, clear in looks), np.zeros(stored.shape[1:], np.int64))
            assert (data.s2_clear.values[place, month - 1] == counts).all()
            for row, column in zip(*np.nonzero(counts), strict=True):
                seen = np.array([values[:, row, column] for values, clear in looks if clear[row, column]])
                assert np.abs(stored[:, row, column] - np.median(seen, axis=0)).max() <= 0.5
            assert (stored[:, counts == 0] == FILL).all()
    # The masks are not the classification.
    assert dropped > 1000
    assert [finding for finding in validate_store(store).findings if finding.severity == "error"] == []


def test_a_tile_is_masked_once_however_many_blocks_lie_on_it(
    recipe_of: RecipeOf, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    computed: list[str] = []
    keep = units.WorkFolder.keep

    def noting(self: units.WorkFolder, name: str, result: bytes, marker: Mapping[str, Any]) -> Path:
        computed.append(marker["step"])
        return keep(self, name, result, marker)

    monkeypatch.setattr(units.WorkFolder, "keep", noting)
    store = tmp_path / "store"
    first = build_store(recipe_of(recipe={"store": {"block_capacity": 1}}), store, workers=2)
    assert first.built == 6
    assert computed.count("sentinel2 masks") == 1
    assert first.seconds["sentinel2 masks"] > 0
    # Not again for a block that is built once more.
    (store / ".build/2022/000003.json").unlink()
    again = build_store(recipe_of(recipe={"store": {"block_capacity": 1}}), store, workers=2)
    assert again.built == 1
    assert computed.count("sentinel2 masks") == 1


def test_masks_are_the_same_whatever_is_built(simulated: Path, recipe_of: RecipeOf, tmp_path: Path) -> None:
    whole = tmp_path / "whole"
    build_store(recipe_of(), whole, workers=1)
    (of_whole,) = masks_of(whole)
    names = sorted(read_index(whole, "samples-2022")["cell"])
    west, south, east, north = Cell.parse(names[0]).bounds
    area = {"bbox": [west + 10, south + 10, east - 10, north - 10], "crs": f"EPSG:{Cell.parse(names[0]).epsg}"}
    # One cell, and the scenes listed the other way round.
    turned = simulated / "catalog/turned.json"
    listed = json.loads((simulated / "catalog/sentinel-2-c1-l2a.json").read_text())
    turned.write_text(json.dumps({**listed, "features": listed["features"][::-1]}))
    part = tmp_path / "part"
    build_store(recipe_of(recipe={"area": {**area, "cells": "touching"}}, catalog="catalog/turned.json"), part)
    (of_part,) = masks_of(part)
    assert of_part.path.name == of_whole.path.name
    assert of_part.path.read_bytes() == of_whole.path.read_bytes()
    one, other = h2crop_data.open(whole, 2022), h2crop_data.open(part, 2022)
    place, other_place = cells_of(whole).index(names[0]), cells_of(part).index(names[0])
    np.testing.assert_array_equal(one.s2.values[place], other.s2.values[other_place])


def test_cells_over_two_tiles_take_their_parts_from_both(recipe_of: RecipeOf, tmp_path: Path) -> None:
    """1,440 m divide no tile: where a border of tiles runs through a cell there is no seam of whole rows or columns."""
    store = tmp_path / "store"
    build_store(recipe_of(recipe={"cell_size": 1440, "area": {**area_around_border(), "cells": "touching"}}), store)
    cells = [Cell.parse(name) for name in cells_of(store)]
    assert any(len(tiles_of(cell)) > 1 for cell in cells)
    dates = read_index(store, "dates-2022")
    blocks = read_index(store, "blocks")
    assert {digest for found in blocks["dates"] for digest in found} == set(dates["masks"])
    assert dates.groupby("masks")["tile"].nunique().eq(1).all()
    data = h2crop_data.open(store, 2022)
    by_tile = {masks.tile: masks for masks in masks_of(store)}
    for place, cell in enumerate(cells):
        if len(tiles_of(cell)) == 1:
            continue
        counts = data.s2_clear.values[place].sum(axis=0)
        for tile in tiles_of(cell):
            shared = clear_count(by_tile[tile], cell)
            inside = shared >= 0
            # Pixels that no granule shows twice a day are counted as often as masks have them clear.
            assert (counts[inside] <= shared[inside]).all()
            assert (counts[inside] == shared[inside]).mean() > 0.9


def area_around_border() -> dict[str, Any]:
    """The western end of the region, beyond which the next tile begins."""
    return {"bbox": [491_500, 5_376_000, 494_400, 5_377_400], "crs": "EPSG:32631"}


def clear_count(masks: TileMasks, cell: Cell) -> NDArray[np.int64]:
    """How many dates are clear by a tile's masks, in pixels of 10 m of a cell; -1 outside the tile."""
    west, south, east, north = masks.tile.bounds
    x = cell.corner[0] + 10 * np.arange(cell.size // 10) + 5
    y = cell.corner[1] - 10 * np.arange(cell.size // 10) - 5
    across, down = (x > west) & (x < east), (y < north) & (y > south)
    total = np.full((len(y), len(x)), -1, np.int64)
    summed = np.zeros((int(down.sum()), int(across.sum())), np.int64)
    for place in range(len(masks.dates)):
        codes = masks.codes(place) == MaskCode.CLEAR
        summed += codes[
            np.ix_((north - y[down]).astype(int) // MASK_PIXEL, (x[across] - west).astype(int) // MASK_PIXEL)
        ]
    total[np.ix_(down, across)] = summed
    return total


class TestTableOfDates:
    def test_it_says_what_was_masked(self, recipe_of: RecipeOf, tmp_path: Path) -> None:
        store = tmp_path / "store"
        build_store(recipe_of(), store, workers=1)
        dates = read_index(store, "dates-2022")
        (masks,) = masks_of(store)
        assert len(dates) == 9 == len(masks.dates)
        assert set(dates["tile"]) == {masks.tile.id}
        for place, row in enumerate(dates.to_dict("records")):
            codes = masks.codes(place)
            imaged = codes != MaskCode.NOT_IMAGED
            assert row["imaged"] == pytest.approx(imaged.mean(), abs=1e-5)
            for code in MaskCode:
                if code != MaskCode.NOT_IMAGED:
                    assert row[code.name.lower()] == pytest.approx((codes[imaged] == code).mean(), abs=1e-5)
            assert row["methods"].tolist() == ["scl"]
            assert row["skipped"] == ""
        assert 0.05 < dates["cloud"].mean() < 0.9
        assert dates["time"].is_monotonic_increasing
        text = (store / "DATASHEET.md").read_text(encoding="utf-8")
        assert "Clouds are masked by scl, with 40 m around them" in text

    def test_a_relabelled_store_keeps_it(self, recipe_of: RecipeOf, tmp_path: Path) -> None:
        store, copy = tmp_path / "store", tmp_path / "copy"
        build_store(recipe_of(), store, workers=1)
        relabel_store(store, copy)
        pd.testing.assert_frame_equal(read_index(store, "dates-2022"), read_index(copy, "dates-2022"))
        assert [finding for finding in validate_store(copy).findings if finding.severity == "error"] == []

    def test_rows_that_are_lost_are_named_and_made_again_with_their_blocks(
        self, recipe_of: RecipeOf, tmp_path: Path
    ) -> None:
        store = tmp_path / "store"
        build_store(recipe_of(), store, workers=1)
        (kept,) = (store / ".build/dates").iterdir()
        kept.unlink()
        (store / ".build/2022/000001.json").rename(tmp_path / "marker.json")
        shutil.rmtree(store / ".build/work")
        # Building again masks the tile again and keeps the same rows.
        before = read_index(store, "dates-2022")
        build_store(recipe_of(), store, workers=1)
        assert kept.exists()
        pd.testing.assert_frame_equal(read_index(store, "dates-2022"), before)

    def test_without_a_block_to_build_their_loss_is_an_error(self, recipe_of: RecipeOf, tmp_path: Path) -> None:
        store = tmp_path / "store"
        build_store(recipe_of(), store, workers=1)
        (kept,) = (store / ".build/dates").iterdir()
        kept.unlink()
        # The release has the table, so the loss matters only when its season is sealed again.
        assert build_store(recipe_of(), store, workers=1).release == 1
        (store / ".build/sealed/2022.json").unlink()
        remedy = "delete it and the marker of one of"
        with pytest.raises(StoreError, match=rf"{kept.name} is missing or damaged \(.*\); .*{remedy}"):
            build_store(recipe_of(), store, workers=1)
        kept.write_bytes(b"{}")
        with pytest.raises(StoreError, match=rf"{kept.name} is missing or damaged \(it lacks rows\); .*{remedy}"):
            build_store(recipe_of(), store, workers=1)
        # The remedy it names.
        kept.unlink()
        (store / ".build/2022/000000.json").unlink()
        build_store(recipe_of(), store, workers=1)
        assert kept.exists()

    @pytest.mark.parametrize(
        ("spoil", "says"),
        [
            (lambda table: table.assign(clear=table["clear"] + 0.2), "do not add up to 1"),
            (lambda table: pd.concat([table, table.iloc[:1]]), "listed more than once"),
            (lambda table: table.assign(masks="f" * 64), "lacks rows that blocks name"),
            (lambda table: table.assign(items=[["S2X"]] * len(table)), "does not have as taken"),
            (lambda table: table.drop(columns="cloud"), "has no column cloud"),
        ],
    )
    def test_what_cannot_be_true_is_found(
        self, recipe_of: RecipeOf, tmp_path: Path, spoil: Callable[[pd.DataFrame], pd.DataFrame], says: str
    ) -> None:
        store = tmp_path / "store"
        build_store(recipe_of(), store, workers=1)
        change_table(store, "dates-2022", spoil)
        sign(store)
        found = [finding.what for finding in validate_store(store).findings if finding.severity == "error"]
        assert any(says in message for message in found), found


class TestMissingInputs:
    def test_methods_that_nobody_knows_are_refused(self, recipe_of: RecipeOf) -> None:
        with pytest.raises(UsageError, match="unknown cloud method 'fmask'; known: "):
            make_plan(recipe_of(clouds={"method": "scl+fmask"}), 2022)

    def test_a_missing_extra_is_refused_and_never_another_method_used(
        self, recipe_of: RecipeOf, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setitem(sys.modules, "ukis_csmask", None)
        monkeypatch.delitem(sys.modules, "h2crop_data.sentinel2.ukis_clouds", raising=False)
        recipe = recipe_of(clouds={"method": "scl+ukis"})
        # Threads keep the detectors that they have loaded.
        with ThreadPoolExecutor(1) as thread, pytest.raises(PluginError, match="clouds"):
            thread.submit(make_plan, recipe, 2022).result()

    def test_l1c_must_be_said_where_it_is_needed(self, recipe_of: RecipeOf) -> None:
        with pytest.raises(RecipeError, match="set their catalog in l1c"):
            recipe_of(clouds={"method": "s2cloudless"})

    def test_dates_without_l1c_fail_the_plan_or_are_skipped_and_recorded(
        self, simulated: Path, recipe_of: RecipeOf, tmp_path: Path
    ) -> None:
        listed = json.loads((simulated / "catalog/sentinel-2-l1c.json").read_text())
        days = sorted({item["properties"]["datetime"][:10] for item in listed["features"]})
        kept = [item for item in listed["features"] if item["properties"]["datetime"][:10] != days[2]]
        (simulated / "catalog/l1c-less.json").write_text(json.dumps({**listed, "features": kept}))
        l1c = {"catalog": "catalog/l1c-less.json"}
        with pytest.raises(PlanError, match=r"Sentinel-2 scenes have no L1C(.|\n)*the catalog lists none(.|\n)*skip"):
            make_plan(recipe_of(clouds={"method": "s2cloudless", "l1c": l1c}), 2022)
        store = tmp_path / "store"
        build_store(recipe_of(clouds={"method": "s2cloudless", "l1c": l1c, "missing": "skip"}), store, workers=1)
        dates = read_index(store, "dates-2022")
        skipped = dates[dates["skipped"] != ""]
        assert [f"{moment:%Y-%m-%d}" for moment in skipped["time"]] == [days[2]]
        assert (skipped[["imaged", "clear"]].to_numpy() == 0).all()
        assert skipped["skipped"].iloc[0].startswith("no L1C of S2")
        used = dates[dates["skipped"] == ""]
        assert (used["l1c"].str.len() > 0).all()
        assert used["cloud_probability"].notna().all()
        assert used["methods"].iloc[0][0].startswith("s2cloudless 1.7.")
        assert all(days[2] not in named for named in read_index(store, "samples-2022")["s2_dates"])
        scenes = read_index(store, "scenes")
        warned = scenes[scenes["warning"].str.contains("no L1C for it")]
        assert set(warned["time"].dt.strftime("%Y-%m-%d")) == {days[2]}
        taken = scenes[scenes["taken"] & (scenes["collection"] == "sentinel-2-l1c")]
        assert len(taken) > 0
        assert taken["offset"].notna().all()
        assert [finding for finding in validate_store(store).findings if finding.severity == "error"] == []

    def test_a_file_that_cannot_be_read_fails_or_is_a_gap(
        self, simulated: Path, recipe_of: RecipeOf, tmp_path: Path
    ) -> None:
        """A band that only masks look at: stored bands do not name it, so that nothing else meets the damage."""
        listed = json.loads((simulated / "catalog/sentinel-2-c1-l2a.json").read_text())
        item = listed["features"][4]
        href = simulated / "catalog" / item["assets"]["nir08"]["href"]
        whole = href.read_bytes()
        try:
            href.write_bytes(whole[: len(whole) // 3])
            with pytest.raises(H2cropError, match=rf"{item['id']} asset nir08"):
                build_store(recipe_of(), tmp_path / "failed", workers=1)
            store = tmp_path / "store"
            report = build_store(recipe_of(gaps="record"), store, workers=1)
            assert report.gaps == [item["id"]]
            dates = read_index(store, "dates-2022")
            assert [list(gaps) for gaps in dates["gaps"] if len(gaps)] == [[item["id"]]]
            gapped = read_index(store, "samples-2022")["s2_gaps"]
            assert any(item["id"] in gaps for gaps in gapped)
            assert [finding for finding in validate_store(store).findings if finding.severity == "error"] == []
            lost = (store / ".build/work/sentinel2-masks").glob("*.bin")
            before = {path.name: path.read_bytes() for path in lost}
        finally:
            href.write_bytes(whole)
        # Before a release has it, the next build masks the tile again, and the block then has rows of its own.
        (store / ".build/2022/000000.json").unlink()
        (store / "zarr.json").unlink()
        for folder in ("index", ".build/sealed"):
            shutil.rmtree(store / folder)
        build_store(recipe_of(gaps="record"), store, workers=1)
        after = {path.name: path.read_bytes() for path in (store / ".build/work/sentinel2-masks").glob("*.bin")}
        assert after.keys() == before.keys()
        assert after != before
        blocks = read_index(store, "blocks")
        dates = read_index(store, "dates-2022")
        assert len({digest for found in blocks["dates"] for digest in found}) == 2 == dates["masks"].nunique()
        assert [finding for finding in validate_store(store).findings if finding.severity == "error"] == []

    def test_items_without_a_band_of_the_masks_say_what_needs_it(self, simulated: Path, recipe_of: RecipeOf) -> None:
        listed = json.loads((simulated / "catalog/sentinel-2-c1-l2a.json").read_text())
        for item in listed["features"]:
            del item["assets"]["nir08"]
        (simulated / "catalog/no-nir08.json").write_text(json.dumps(listed))
        with pytest.raises(PlanError, match=r"no asset for B8A.*masks of clouds and shifts of dates need B8A too"):
            make_plan(recipe_of(catalog="catalog/no-nir08.json"), 2022)
        alone = {"dilation": 0, "cast_shadows": False, "second_look": False}
        make_plan(recipe_of(catalog="catalog/no-nir08.json", clouds=alone), 2022)


def test_a_plan_shows_what_masking_takes(recipe_of: RecipeOf) -> None:
    plain = estimate(make_plan(recipe_of(), 2022)).to_read
    assert plain.mask_dates == 9
    assert plain.mask_bytes > 0
    with_ukis = estimate(make_plan(recipe_of(clouds={"method": "scl+ukis"}), 2022)).to_read
    assert with_ukis.mask_seconds > plain.mask_seconds > 0
    alone = {"dilation": 0, "cast_shadows": False, "second_look": False}
    assert estimate(make_plan(recipe_of(clouds=alone), 2022)).to_read.mask_dates == 0


def test_processes_build_the_same(recipe_of: RecipeOf, tmp_path: Path) -> None:
    one, other = tmp_path / "threads", tmp_path / "processes"
    build_store(recipe_of(), one, workers=1)
    build_store(recipe_of(), other, workers=Workers(2, "processes"))
    assert shard_digests(one) == shard_digests(other) != {}


class TestReviewed:
    """What a reader of the code found."""

    def test_a_method_that_fails_is_named_with_its_date(self, recipe_of: RecipeOf, tmp_path: Path) -> None:
        told = r"failing \(9.9\) failed on 2022-0\d-\d\d over 32631_15360.*nothing at 5"
        with mishaps_installed(), pytest.raises(BuildError, match=told):
            build_store(recipe_of(clouds={"method": "scl+failing"}), tmp_path / "store", workers=1)

    def test_what_a_recipe_calls_clear_is_looked_at(self, recipe_of: RecipeOf, tmp_path: Path) -> None:
        """Cirrus counts as clear, the classification says nothing else: bands must be read for the second look."""
        task = TileTask.__new__(TileTask)
        maker = TileMaker.__new__(TileMaker)
        maker.task = task
        classes = np.full((4, 4), 10, np.uint8)
        for clear, looked in (((4, 5, 6), False), ((4, 5, 6, 10), True)):
            object.__setattr__(task, "rules", MaskRules(clear, True, 0, False, False))
            assert maker.can_be_clear(classes) is looked

    @pytest.mark.parametrize("level", ["L2A", "L1C"])
    def test_what_was_masked_with_a_retracted_scene_is_retracted(
        self, recipe_of: RecipeOf, tmp_path: Path, level: str
    ) -> None:
        store = tmp_path / "store"
        l1c = {"catalog": "catalog/sentinel-2-l1c.json"}
        method = {"method": "s2cloudless", "l1c": l1c} if level == "L1C" else {}
        build_store(recipe_of(clouds={**STEPS, **method}), store, workers=1)
        dates = read_index(store, "dates-2022")
        scene = dates["l1c" if level == "L1C" else "items"].iloc[0][0]
        found = find_retraction(store, {}, [scene])
        assert found.blocks == {2022: read_index(store, "blocks")["block"].tolist()}
        retract_from_store(store, {2022: [0]}, [], "another reason")
        assert [finding for finding in validate_store(store).findings if finding.severity == "error"] == []
        build_store(recipe_of(clouds={**STEPS, **method}), store, workers=1, extend=True)
        retract_from_store(store, {}, [scene], "it is damaged")
        blocks = read_index(store, "blocks")
        assert (blocks["retracted"] != "").all()

    def test_a_tile_without_any_pixel_gives_masks_without_any(self, simulated: Path, recipe_of: RecipeOf) -> None:
        recipe = recipe_of()
        plan = make_plan(recipe, 2022)
        scenes = plan.pinned["sentinel2"]
        cell = Cell.parse(plan.samples["cell"].iloc[0])
        (near,) = tiles_of(cell)
        far = ProcessingTile(near.epsg, near.column + 3, near.row)
        assert recipe.sentinel2 is not None
        items = list(scenes.by_id.values())
        task = tile_task(recipe.sentinel2, scenes, far, 2022, items, None)
        path = simulated / "far.bin"
        path.write_bytes(make_masks(task, []))
        masks = TileMasks(path, Alignment("none", 4))
        assert len(masks.dates) == 9
        assert {row["imaged"] for row in masks.dates} == {0.0}
        assert not masks.codes(0).any()

    def test_l2a_does_not_pass_for_l1c(self, recipe_of: RecipeOf) -> None:
        same = {"catalog": "catalog/sentinel-2-c1-l2a.json", "collection": "sentinel-2-c1-l2a"}
        with pytest.raises(PlanError, match=r"have the same id, S2.*must be a catalog of L1C alone"):
            make_plan(recipe_of(clouds={"method": "s2cloudless", "l1c": same}), 2022)

    def test_a_tile_is_made_with_few_files_open(
        self, recipe_of: RecipeOf, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """A year of a tile has more files than many systems let a process open."""
        most = 0
        close = TileMaker.close

        def counting(self: TileMaker, bands: Any) -> None:
            nonlocal most
            most = max(most, sum(len(opened) for _, opened in self.reader._files.values()))
            close(self, bands)

        monkeypatch.setattr(TileMaker, "close", counting)
        build_store(recipe_of(), tmp_path / "store", workers=1)
        # Three bands of a date and the classification of another, of one or two granules.
        assert 0 < most <= 8

    def test_blocks_built_before_masks_have_no_dates_and_keep_their_place(
        self, recipe_of: RecipeOf, tmp_path: Path
    ) -> None:
        store = tmp_path / "store"
        alone = {"dilation": 0, "cast_shadows": False, "second_look": False}
        area = recipe_of().area
        assert area.bbox is not None
        west, south, east, north = area.bbox
        part = {"bbox": [west, south, west + 0.4 * (east - west), north], "crs": area.crs, "cells": "centre"}
        build_store(recipe_of(recipe={"area": part}, clouds=alone), store, workers=1)
        before, digests = read_index(store, "blocks"), shard_digests(store)
        assert "dates" not in before
        report = build_store(recipe_of(), store, workers=1, extend=True)
        assert report.built > 0
        assert any("s2: inputs have changed" in change for change in report.changes)
        blocks = read_index(store, "blocks")
        assert blocks["dates"].isna().tolist() == [row < len(before) for row in range(len(blocks))]
        assert digests.items() <= shard_digests(store).items()
        assert [finding for finding in validate_store(store).findings if finding.severity == "error"] == []

    def test_a_method_of_another_package_masks_a_build(
        self, recipe_of: RecipeOf, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """The one of docs/clouds.md, as if it were installed."""
        monkeypatch.syspath_prepend(str(WHITENESS))
        plain, store = tmp_path / "plain", tmp_path / "store"
        alone = {"dilation": 0, "cast_shadows": False, "second_look": False}
        build_store(recipe_of(clouds={**alone, "dilation": 20}), plain, workers=1)
        build_store(recipe_of(clouds={**alone, "dilation": 20, "method": "scl+whiteness"}), store, workers=1)
        dates, without = read_index(store, "dates-2022"), read_index(plain, "dates-2022")
        assert dates["methods"].iloc[0].tolist()[0] == "scl"
        assert dates["methods"].iloc[0].tolist()[1].startswith("whiteness 1.0, weights ")
        assert (dates["cloud"] >= without["cloud"]).all()
        assert dates["cloud"].sum() > without["cloud"].sum()
        hashes = [read_index(found, "blocks")["hash_s2"].tolist() for found in (plain, store)]
        assert not set(hashes[0]) & set(hashes[1])
