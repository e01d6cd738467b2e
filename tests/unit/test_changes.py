"""What changed since blocks were built is found with one look at the country, however many blocks have changed."""

from __future__ import annotations

import hashlib
import random
from collections import Counter
from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import geopandas as gpd
import numpy as np
import pandas as pd
import pystac
import pytest
import shapely
from stac_items import item_of
from tiny_region import TinyRegion

from h2crop_data.constants import TIER_COLUMNS
from h2crop_data.crops.taxonomy import Taxonomy
from h2crop_data.grid import LONLAT, Cell, split_squares
from h2crop_data.pipeline import changes
from h2crop_data.pipeline.changes import MATCHED_TOGETHER, ChangedBlock, SeasonChanges, find_changes, sharing_names
from h2crop_data.pipeline.plan import SeasonPlan
from h2crop_data.pipeline.planning import plan_of
from h2crop_data.pipeline.survey import Known, SplitTable, Survey
from h2crop_data.recipe.model import Recipe
from h2crop_data.sources.changes import InputChange
from h2crop_data.sources.enmap import source as enmap_source
from h2crop_data.sources.enmap.scene import EnmapScenes, SceneFacts
from h2crop_data.sources.parcels.declarations import Declarations, Declared, digests_near, no_declarations
from h2crop_data.sources.sentinel2.select import Sentinel2Scenes
from h2crop_data.sources.source import Candidate, Scene
from h2crop_data.storage.local import LocalStorage

#: Cells along a line, 1.2 km apart; all Sentinel-2 items of the country lie over all of them.
CELLS = [Cell(32631, 240, 2100 + 5 * i, 23455) for i in range(60)]
ITEMS, SCENES, FAR_PARCELS = 30, 5, 500


@pytest.fixture
def recipe(tmp_path: Path) -> Recipe:
    region = TinyRegion(tmp_path)
    region.add_sentinel2("S2_x", "2022-03-05T10:50:00Z")
    region.add_enmap()
    for year in (2021, 2022):
        region.write_parcels(year, [((501370, 5629220, 501560, 5629400), "BTH")])
    return region.recipe(seasons=[2022], store={"block_capacity": 1})


def sentinel2_item(number: int) -> pystac.Item:
    moment = datetime(2022, 1, 1, 10, 50, tzinfo=UTC) + timedelta(days=5 * number)
    stated = {"grid__code": "MGRS-31UDS", "s2__processing_baseline": "05.00", "proj__epsg": 32631}
    files = {key: {"href": f"https://archive.test/{number}/{key}.tif"} for key in ("blue", "nir", "swir16", "scl")}
    time = f"{moment:%Y-%m-%dT%H:%M:%SZ}"
    return item_of(f"S2_{number:03d}", time=time, box=(2, 49, 6, 52), assets=files, **stated)


def enmap_item(number: int, processed: str) -> pystac.Item:
    name = f"ENMAP01-____L2A-DT{number:010d}_20220724T10{number:02d}26Z_001_V010302_{processed}Z"
    files = {key: {"href": f"https://archive.test/{name}/{key}.tif"} for key in ("image", "metadata")}
    stated = {"enmap__overallQuality": 0, "eo__cloud_cover": 0}
    return item_of(name, collection="ENMAP_HSI_L2A", time="2022-07-24T10:45:26Z", assets=files, **stated)


def declarations(cells: list[Cell], code: str) -> Declarations:
    """A parcel in every cell, and many elsewhere."""
    far = [shapely.box(-4 + i / 1000, 43, -4 + (i + 0.5) / 1000, 43.001) for i in range(FAR_PARCELS)]
    shapes = [cell.outline.buffer(-0.0005) for cell in cells] + far
    table = {
        "number": np.arange(1, len(shapes) + 1, dtype=np.uint32),
        "country": "fr",
        "parcel_id": [f"p{i}" for i in range(len(shapes))],
        "code": code,
        "hcat3": "3301010101",
        **{column: np.ones(len(shapes), np.uint8) for column in TIER_COLUMNS},
        "split": "train",
    }
    return Declarations(gpd.GeoDataFrame(table, geometry=shapes, crs=LONLAT), None)


def survey_of(recipe: Recipe, cells: list[Cell], *, changed: bool) -> Survey:
    """A country with samples in some cells. changed: a Sentinel-2 item and other crops more, EnMAP processed again."""
    items = [sentinel2_item(number) for number in range(ITEMS + changed)]
    scenes = [enmap_item(number, "20240101T000000" if changed else "20230628T165614") for number in range(SCENES)]
    seen = [Scene(item.id, f"{number:010d}", f"20220724T10{number:02d}26") for number, item in enumerate(scenes)]
    declared = declarations(cells, "MIS" if changed else "BTH")
    return Survey(
        recipe=recipe,
        season=2022,
        candidates=[Candidate(cell, seen[i % SCENES], {"labelled_share": 1.0}) for i, cell in enumerate(cells)],
        squares=dict(zip(cells, split_squares(cells, recipe.split.square_size), strict=True)),
        splits=SplitTable(recipe.split, {}),
        scenes=[],
        pinned={
            "enmap": EnmapScenes(scenes, {item.id: SceneFacts((), {}) for item in scenes}),
            "sentinel2": Sentinel2Scenes(items, {item.id: -1000 for item in items}),
            "parcels": Declared(declared, declared),
        },
        taxonomy=Taxonomy.load(),
        split_problems=[],
    )


def parts_of(survey: Survey, parts: int) -> list[SeasonPlan]:
    """The plans of a season that grew."""
    plans: list[SeasonPlan] = []
    size = len(survey.candidates) // parts
    for part in range(parts):
        own = replace(survey, candidates=survey.candidates[part * size : (part + 1) * size])
        plans.append(plan_of(own, Known(first_block=sum(len(plan.blocks) for plan in plans))))
    return plans


@pytest.fixture
def counts(monkeypatch: pytest.MonkeyPatch) -> Counter[str]:
    """How often what grows with the country is done."""
    counted: Counter[str] = Counter()
    build_tree, hash_rows, parse_scene = shapely.STRtree, pd.util.hash_pandas_object, enmap_source.enmap_scene

    def counting_tree(shapes: Any) -> Any:
        counted["trees"] += 1
        return build_tree(shapes)

    def counting_hash(table: Any, **options: Any) -> Any:
        counted["tables hashed"] += 1
        counted["rows hashed"] += len(table)
        return hash_rows(table, **options)

    def counting_scene(item: pystac.Item) -> Any:
        counted["names parsed"] += 1
        return parse_scene(item)

    monkeypatch.setattr(shapely, "STRtree", counting_tree)
    monkeypatch.setattr(pd.util, "hash_pandas_object", counting_hash)
    monkeypatch.setattr(enmap_source, "enmap_scene", counting_scene)
    return counted


def test_trees_and_hashes_are_made_once_however_many_blocks_changed(
    recipe: Recipe, tmp_path: Path, counts: Counter[str]
) -> None:
    found = {}
    for number in (SCENES, len(CELLS)):
        cells = CELLS[:number]
        plans = parts_of(survey_of(recipe, cells, changed=False), 1)
        today = survey_of(recipe, cells, changed=True)
        counts.clear()
        season = find_changes(plans, today, set(), LocalStorage(tmp_path / "store"), probe=False)
        found[number] = dict(counts)
        assert [one.block for one in season.changed] == list(range(number))
        for one in season.changed:
            assert one.kept == ""
            assert one.causes["sentinel2"] == (InputChange("added", (f"S2_{ITEMS:03d}",)),)
            assert one.causes["parcels"] == (InputChange("content"),)
            (product,) = one.causes["enmap"]
            assert product.kind == "reprocessed"
            assert [text.count("20230628T165614Z -> ENMAP01") for text in product.scenes] == [1]
    few, many = found[SCENES], found[len(CELLS)]
    # The parcels of the blocks are hashed: the two roles for the hashes of today, and of both plans for the causes.
    assert few.pop("rows hashed") == 6 * SCENES
    assert many.pop("rows hashed") == 6 * len(CELLS)
    assert few == many
    assert many["tables hashed"] == 6
    # Of the parcels of today; of the items for the blocks of today, and of both plans to compare.
    assert many["trees"] == 4


def test_the_samples_of_today_are_listed_once_for_all_parts_of_a_season(
    recipe: Recipe, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    today = survey_of(recipe, CELLS, changed=False)
    plans = parts_of(today, 6)
    listed = []
    sighting = changes.sighting
    monkeypatch.setattr(changes, "sighting", lambda candidate: listed.append(candidate) or sighting(candidate))
    gone = today.candidates[0]
    survey = replace(today, candidates=today.candidates[1:])
    season = find_changes(plans, survey, set(), LocalStorage(tmp_path / "store"), probe=False)
    assert len(listed) == len(survey.candidates)
    (block,) = {
        int(number)
        for plan in plans
        for number in plan.samples["block"][plan.samples["sample"].str.startswith(gone.cell.id)]
    }
    assert season.lost == {block}


def test_blocks_that_are_matched_together_are_rebuilt_but_for_those_that_cannot_be_made() -> None:
    cause = {"sentinel2": (InputChange("added", ("a",)),)}
    season = SeasonChanges([ChangedBlock(2022, 2, ("s2",), cause)], 0, frozenset({3}))
    assert season.rebuilt([{1, 2, 3}, {4, 5}]) == {
        2: "the inputs of sentinel2 have changed",
        1: MATCHED_TOGETHER,
    }


class Names(list[str]):
    """Some names that count how often they are gone through."""

    passes = 0

    def __iter__(self) -> Iterator[str]:
        self.passes += 1
        return super().__iter__()


def merged_slowly(names: dict[int, set[str]]) -> set[frozenset[int]]:
    """The groups of blocks that share names, by comparing all with all until nothing changes."""
    groups = {frozenset({block}): set(own) for block, own in names.items()}
    while True:
        pair = next(((a, b) for a in groups for b in groups if a != b and groups[a] & groups[b]), None)
        if pair is None:
            return set(groups)
        one, other = pair
        groups[one | other] = groups.pop(one) | groups.pop(other)


@pytest.mark.parametrize("seed", range(8))
def test_blocks_that_share_names_are_one_group_and_each_name_is_followed_once(seed: int) -> None:
    rng = random.Random(seed)
    names = {block: {f"unit {rng.randrange(60)}" for _ in range(rng.randrange(1, 4))} for block in range(40)}
    counted = {block: Names(sorted(own)) for block, own in names.items()}
    groups = sharing_names(counted)
    assert sum(map(len, groups)) == len(names)
    assert {frozenset(group) for group in groups} == merged_slowly(names)
    assert max(own.passes for own in counted.values()) <= 2


def digest_slowly(declared: Declarations, place: shapely.Geometry) -> str:
    """The digest of a place by hashing all parcels and looking at each."""
    table = declared.parcels
    rows = pd.util.hash_pandas_object(table.drop(columns="geometry"), index=False).to_numpy()
    state = hashlib.sha256(b"everywhere")
    for row, shape in zip(rows, table.geometry, strict=True):
        if shape.intersects(place):
            state.update(row.tobytes() + shapely.to_wkb(shape))
    return state.hexdigest()


def test_the_digest_of_a_place_does_not_depend_on_the_other_places() -> None:
    declared = declarations(CELLS, "BTH")
    # Wide places, that share parcels, in any order; and one without a parcel.
    places = [cell.outline.buffer(0.03) for cell in reversed(CELLS[::4])] + [shapely.box(20, 20, 21, 21)]
    assert digests_near(declared, places) == [digest_slowly(declared, place) for place in places]
    assert digests_near(declared, []) == []
    unknown = no_declarations()
    assert digests_near(unknown, places) == [digests_near(unknown, [place])[0] for place in places]
