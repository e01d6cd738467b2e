"""What becomes of the shift of a scene, and references of several tiles on its pixels."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pystac
import pytest
from affine import Affine
from hypothesis import given
from hypothesis import strategies as st
from odc.geo.geobox import GeoBox

from h2crop_data.constants import COARSE, ENMAP_FLAGS, ENMAP_MASK_FLAGS
from h2crop_data.enmap.boundaries import REFERENCE_FINER
from h2crop_data.enmap.coregistration import DATES_OF_FRAME
from h2crop_data.enmap.quality import flags_of_layers
from h2crop_data.enmap.sentinel2_response import COMPARED_BANDS
from h2crop_data.errors import SceneError
from h2crop_data.grid import TILE_SIZE, Cell, ProcessingTile
from h2crop_data.recipe.model import EnmapSettings
from h2crop_data.sentinel2.reference import FEWEST_SHOWN, REFERENCE_BANDS, REFERENCE_PIXEL
from h2crop_data.shift import NO_SHIFT, Shift
from h2crop_data.sources.enmap.match import (
    SceneMatch,
    UnmatchableError,
    common_part,
    decided,
    match_as_json,
    match_columns,
    mosaic_of,
    seen_by_sentinel2,
)
from h2crop_data.sources.enmap.scene import EnmapScenes
from h2crop_data.sources.enmap.source import Enmap
from h2crop_data.sources.enmap.words import matched_scenes, matches_of
from h2crop_data.sources.source import GroundNear, PlannedBlock
from h2crop_data.sources.units import Unit, UnitResult
from h2crop_data.validation.sources import FLAGS_OF_LAYERS

FILL = -32768
SIDE = TILE_SIZE // 15


def match(east: float, north: float, swir: tuple[float, float] | None = None, reason: str = "") -> SceneMatch:
    """What was found of a scene. reason: why SWIR's is not to be trusted."""
    shifts = {"vnir": (east, north), "swir": swir or (east, north)}
    detectors = {
        name: {"east": one[0], "north": one[1], "reason": reason if name == "swir" else "", "windows": []}
        for name, one in shifts.items()
    }
    return SceneMatch(detectors, {"dates": ["2022-06-01"], "aligned": 1, "frame_sd": 1.0})


def settings(**changes: Any) -> EnmapSettings:
    """EnMAP in a recipe."""
    return EnmapSettings(catalog="a.json", **changes)


def test_each_detector_has_its_own_shift() -> None:
    decision = decided(match(12.5, -4, swir=(9.0, -7.0)), settings())
    assert decision.text == "applied"
    assert decision.shifts == {"vnir": Shift(12.5, -4), "swir": Shift(9, -7)}


@pytest.mark.parametrize(("swir", "word"), [((0.6, 0.6), "not_needed"), ((0.6, 1.2), "applied")])
def test_both_detectors_must_be_near(swir: tuple[float, float], word: str) -> None:
    decision = decided(match(0.1, 0.2, swir=swir), settings(coregistration_limit=1))
    assert decision.text == word
    assert any(decision.shifts.values()) == (word == "applied")


def test_a_report_moves_nothing() -> None:
    decision = decided(match(12, 3), settings(coregistration="report"))
    assert decision.text == "reported"
    assert not any(decision.shifts.values())


@pytest.mark.parametrize("unmatched", ["unshifted", "refuse"])
def test_what_is_not_trusted_moves_nothing(unmatched: str) -> None:
    found = match(12, 3, reason="correlation 0.12")
    decision = decided(found, settings(unmatched=unmatched), [match(12, 3), match(12, 4)])
    assert decision.text == "rejected: swir: correlation 0.12"
    assert decision.shifts == {"vnir": NO_SHIFT, "swir": NO_SHIFT}
    columns = match_columns(found, decision)
    # What was measured is told all the same.
    assert columns["enmap_swir_east"] == 12
    assert columns["enmap_reference"] == ["2022-06-01"]


def test_a_datatake_lends_its_median_where_its_tiles_agree() -> None:
    found, recipe = match(0, 0, reason="water"), settings(unmatched="datatake")
    near = [match(10, 1), match(11, 2), match(12, 2)]
    decision = decided(found, recipe, near)
    assert decision.text == "datatake: rejected: swir: water"
    assert decision.shifts == {"vnir": Shift(11, 2), "swir": Shift(11, 2)}
    # One tile alone proves nothing, nor do tiles that differ, nor those that were rejected themselves.
    for others in ([match(10, 1)], [match(10, 1), match(14, 1)], [match(10, 1), match(10, 1, reason="cloud")]):
        assert decided(found, recipe, others).text == "rejected: swir: water"
        assert not any(decided(found, recipe, others).shifts.values())


@given(st.integers(1, 9), st.integers(1, 9), st.integers(-12, 12))
def test_the_common_part_of_two_lines(target: int, source: int, corner: int) -> None:
    """Against every place."""
    whole: dict[int, int] = {place + corner: place for place in range(source) if 0 <= place + corner < target}
    (here,), (there,) = common_part([target], [source], [corner])
    assert list(range(target))[here] == list(whole)
    assert list(range(source))[there] == list(whole.values())


def reference(folder: Path, name: str, value: int, dates: int = 4) -> Path:
    """A reference whose pixels all have one value, but for its north western one."""
    bands = np.full((6, SIDE, SIDE), value, np.int16)
    bands[:, 0, 0] = value + 1
    facts = {"dates": ["2022-06-01"] if dates else [], "aligned": dates, "frame_sd": 1.0 if dates else None}
    facts["gaps"] = []
    path = folder / name
    with path.open("wb") as file:
        counts = np.full((SIDE, SIDE), dates, np.uint8)
        np.savez_compressed(file, bands=bands, dates=counts, facts=np.array(json.dumps(facts)))
    return path


def test_references_lie_on_the_pixels_of_the_scene(tmp_path: Path) -> None:
    """A scene 315 m west and 195 m north of the corner where four tiles meet; one of another zone is not looked at."""
    tiles = [
        ProcessingTile(32632, 30, 350),
        ProcessingTile(32632, 31, 350),
        ProcessingTile(32632, 30, 349),
        ProcessingTile(32633, 31, 349),
    ]
    files = [reference(tmp_path, f"{place}.npz", 1000 * (place + 1)) for place in range(len(tiles))]
    x, y = 31 * TILE_SIZE, 350 * TILE_SIZE
    grid = GeoBox((20, 40), Affine(30, 0, x - 315, 0, -30, y + 195), "EPSG:32632")
    mosaic = mosaic_of(grid, tiles, files)
    assert mosaic.bands.shape == (6, 40, 80)
    assert (mosaic.bands[:, :13, :21] == 1000).all()
    assert (mosaic.bands[:, :13, 21:] == 2000).all()
    assert (mosaic.bands[:, 13:, :21] == 3000).all()
    assert (mosaic.bands[:, 13:, 21:] == FILL).all()
    assert (mosaic.dates[13:, 21:] == 0).all()
    assert (mosaic.window.row_off, mosaic.window.col_off, mosaic.window.height, mosaic.window.width) == (0, 0, 20, 40)


def test_a_reference_is_cut_to_the_scene(tmp_path: Path) -> None:
    """The first pixel of the tile lies 2 EnMAP pixels right and 1 down from the corner of the scene."""
    tile = ProcessingTile(32632, 31, 350)
    west, _, _, north = tile.bounds
    grid = GeoBox((20, 40), Affine(30, 0, west - 60, 0, -30, north + 30), "EPSG:32632")
    mosaic = mosaic_of(grid, [tile], [reference(tmp_path, "one.npz", 700)])
    assert (mosaic.window.row_off, mosaic.window.col_off) == (1, 2)
    assert (mosaic.bands[:, 0, 0] == 701).all()
    assert (mosaic.bands != FILL).all()


def test_without_dates_there_is_no_reference(tmp_path: Path) -> None:
    tile = ProcessingTile(32632, 31, 350)
    west, _, _, north = tile.bounds
    grid = GeoBox((20, 40), Affine(30, 0, west, 0, -30, north), "EPSG:32632")
    with pytest.raises(UnmatchableError, match="no clear Sentinel-2 date"):
        mosaic_of(grid, [tile], [reference(tmp_path, "one.npz", 700, dates=0)])
    odd = GeoBox((20, 40), Affine(30, 0, west + 7, 0, -30, north), "EPSG:32632")
    with pytest.raises(UnmatchableError, match="not at a multiple of 15 m"):
        mosaic_of(odd, [tile], [reference(tmp_path, "two.npz", 700)])


def test_means_of_bands_need_all_of_them() -> None:
    values = np.array([[[100, 200]], [[300, FILL]], [[7, FILL]]], np.int16)
    weights = np.array([[0.25, 0.75, 0], [1.0, 0, 0]])
    assert seen_by_sentinel2(values, weights).tolist() == [[[250, FILL]], [[100, 200]]]


def scene_name(datatake: int, tile: int) -> str:
    """The name of a product."""
    return f"ENMAP01-____L2A-DT{datatake:010d}_20220724T104526Z_{tile:03d}_V010302_20230628T165614Z"


def scenes_with(folder: Path, matches: dict[str, SceneMatch]) -> EnmapScenes:
    """Scenes of a plan after they were matched."""
    folder.mkdir(exist_ok=True)
    items, results = [], {}
    for name, found in matches.items():
        item = pystac.Item(name, None, None, datetime(2022, 7, 24, 10, 45, tzinfo=UTC), {})
        item.properties |= {"enmap:overallQuality": "0", "eo:cloud_cover": 0, "enmap:sunElevationAngle": 60.0}
        items.append(item)
        path = folder / f"{name}.json"
        path.write_bytes(match_as_json(found.detectors, found.reference, found.reason))
        results[name] = UnitResult(path)
    return EnmapScenes(items, matches=results)


def test_only_tiles_of_the_same_datatake_lend_theirs(tmp_path: Path) -> None:
    doubtful, own, other = match(0, 0, reason="water"), match(10, 1), match(40, 40)
    names = [scene_name(7, 1), scene_name(7, 2), scene_name(7, 3), scene_name(8, 1), scene_name(8, 2)]
    pinned = scenes_with(tmp_path, dict(zip(names, [doubtful, own, own, other, other], strict=True)))
    _, decision = Enmap().match(settings(unmatched="datatake"), pinned, names[0])
    assert decision.text.startswith("datatake: ")
    assert set(decision.shifts.values()) == {Shift(10, 1)}
    alone = scenes_with(tmp_path, dict(zip(names[:2] + names[3:], [doubtful, own, other, other], strict=True)))
    assert Enmap().match(settings(unmatched="datatake"), alone, names[0])[1].text.startswith("rejected: ")


def test_a_recipe_refuses_what_cannot_be_matched(tmp_path: Path) -> None:
    name = scene_name(7, 1)
    pinned = scenes_with(tmp_path, {name: match(0, 0, reason="water")})
    with pytest.raises(SceneError, match=r"rejected: swir: water.*enmap\.unmatched"):
        Enmap().match(settings(unmatched="refuse"), pinned, name)
    task = Enmap().task(settings(unmatched="refuse"), pinned, planned(0, name))
    assert task is not None
    assert isinstance(task.reading, SceneError)


def planned(number: int, scene: str, cell: str = "32632_1920_0240_2800") -> PlannedBlock:
    """A block of one cell."""
    one = Cell.parse(cell)
    return PlannedBlock(number, 2022, "train", scene, [one], [one.outline], {}, "")


@pytest.mark.parametrize("unmatched", ["unshifted", "datatake"])
def test_blocks_wait_for_the_scenes_that_may_lend_them_a_shift(tmp_path: Path, unmatched: str) -> None:
    """A scene is matched on the tiles of all of its blocks, for its own moment."""
    names = [scene_name(7, 1), scene_name(7, 2), scene_name(8, 1)]
    pinned = scenes_with(tmp_path, {name: match(1, 1) for name in names})
    asked: list[GroundNear] = []

    def references(wanted: Sequence[GroundNear]) -> list[list[Unit]]:
        asked.extend(wanted)
        return [[] for _ in wanted]

    # The third block lies one processing tile east of the others.
    cells = ["32632_1920_0240_2800", "32632_1920_0240_2800", "32632_1920_0248_2800", "32632_1920_0240_2800"]
    scenes = [names[0], names[1], names[0], names[2]]
    blocks = [planned(i, scene, cell) for i, (scene, cell) in enumerate(zip(scenes, cells, strict=True))]
    units = Enmap().matching_units(settings(unmatched=unmatched), pinned, blocks, references)
    own = [{unit.name for unit in of_block} for of_block in units]
    together = {names[0], names[1]}
    assert own == ([together, together, together, {names[2]}] if unmatched == "datatake" else [{one} for one in scenes])
    assert sorted(len(tiles) for tiles, _ in asked) == [1, 1, 2]
    assert {moment for _, moment in asked} == {datetime(2022, 7, 24, 10, 45, tzinfo=UTC)}
    nothing = [[], [], [], []]
    assert Enmap().matching_units(settings(coregistration="none"), pinned, blocks, references) == nothing
    assert Enmap().matching_units(settings(), pinned, blocks, None) == nothing


def test_the_datasheet_tells_how_far_tiles_of_a_datatake_differ() -> None:
    """Two tiles of one, 2 m apart to the east; a third of another on the same day does not count with them."""
    scenes = [(scene_name(7, 1), 10.0), (scene_name(7, 2), 12.0), (scene_name(8, 1), 50.0)]
    rows: list[dict[str, Any]] = []
    for name, east in scenes:
        row: dict[str, Any] = {"scene": name, "enmap_match": "applied"}
        for detector in ("vnir", "swir"):
            row |= {f"enmap_{detector}_east": east, f"enmap_{detector}_north": 0.0}
            row |= {f"enmap_{detector}_sd_east": 1.0, f"enmap_{detector}_sd_north": 1.0}
        rows.append(row)
    text = "\n".join(matched_scenes({2022: matches_of(pd.DataFrame(rows))}))
    for detector in ("VNIR", "SWIR"):
        assert f"| 2022 | {detector} | 12.0 m | 46.2 m | 50.0 m | 1.0 m | 2.0 m | 3 |" in text


def test_what_both_sensors_say_of_a_match_agrees() -> None:
    """Bands are joined by their place, pixels by their size; both must know for how many dates a frame is stated."""
    assert tuple(COMPARED_BANDS) == REFERENCE_BANDS
    assert REFERENCE_PIXEL * REFERENCE_FINER == COARSE
    assert FEWEST_SHOWN == DATES_OF_FRAME


def test_flags_of_a_layer_are_what_validation_takes_them_for() -> None:
    for layer, names in FLAGS_OF_LAYERS.items():
        assert flags_of_layers([layer]) == sum(ENMAP_FLAGS[name] for name in names)


def test_the_page_on_enmap_has_the_bits_of_the_flags() -> None:
    page = (Path(__file__).parents[2] / "docs/enmap.md").read_text(encoding="utf-8")
    layers, mask = page.split("\n## A mask of our own\n")

    def told(part: str) -> dict[str, int]:
        found: dict[str, int] = {}
        for bits, names in re.findall(r"^\| ([\d, ]+) \| ((?:`\w+`(?:, )?)+) \|", part, re.MULTILINE):
            found |= dict(zip(re.findall(r"\w+", names), map(int, bits.split(",")), strict=True))
        return found

    assert told(layers) == ENMAP_FLAGS
    assert told(mask) == ENMAP_MASK_FLAGS
