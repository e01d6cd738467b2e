"""Gaps of the archive, from the items of a catalog to plan, index and datasheet."""

from __future__ import annotations

import copy
import json
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from click.testing import Result
from tiny_region import TinyRegion
from typer.testing import CliRunner

from h2crop_data.cli.main import app
from h2crop_data.errors import PlanError
from h2crop_data.pipeline.build import build_store
from h2crop_data.pipeline.plan import load_plans, save_plan
from h2crop_data.pipeline.planning import make_plan

#: An acquisition of 31UDS every ten days.
FIRST = datetime(2022, 1, 5, 10, 50, 31, tzinfo=UTC)
DATES = [FIRST + turn * timedelta(days=10) for turn in range(36)]
#: What the archive lost: two dates of March, one of August.
LOST = [date for date in DATES if f"{date:%m-%d}" in ("03-06", "03-16", "08-13")]
#: Assets of L1C that s2cloudless looks at.
L1C_ASSETS = ("coastal", "red", "rededge1", "nir", "nir08", "nir09", "cirrus", "swir16", "swir22")


def region_with(folder: Path, dates: Sequence[datetime]) -> TinyRegion:
    """A region with a scene of S2A, relative orbit 51, on each date. The scenes have the same files."""
    region = TinyRegion(folder)
    region.add_sentinel2("scene", "2022-01-01T00:00:00Z")
    (scene,) = region.sentinel2
    region.sentinel2.clear()
    region.sentinel2 += items_at(scene, dates)
    return region


def items_at(scene: dict[str, Any], dates: Sequence[datetime], satellite: str = "S2A") -> list[dict[str, Any]]:
    """An item like another at each time."""
    found = []
    for date in dates:
        item = copy.deepcopy(scene)
        item["id"] = f"{satellite}_MSIL2A_{date:%Y%m%dT%H%M%S}_R051_T31UDS"
        item["properties"]["datetime"] = f"{date:%Y-%m-%dT%H:%M:%SZ}"
        found.append(item)
    return found


@pytest.fixture
def region(tmp_path: Path) -> TinyRegion:
    """A region whose archive lost three dates."""
    assert len(LOST) == 3
    return region_with(tmp_path, [date for date in DATES if date not in LOST])


def missing_of(plan: Any) -> dict[str, list[str]]:
    """The missing times by tile and series, as the plan keeps them."""
    return {
        f"{tile} {one['series']}": one["missing"]
        for tile, series in plan.pinned["sentinel2"].acquisitions.items()
        for one in series
        if one["missing"]
    }


TIMES = [f"{date:%Y-%m-%dT%H:%M:%SZ}" for date in LOST]


def test_a_plan_keeps_what_is_missing(region: TinyRegion, tmp_path: Path) -> None:
    plan = make_plan(region.recipe(), 2022)
    assert missing_of(plan) == {"31UDS S2A R051": TIMES}
    save_plan(plan, tmp_path / "plan")
    (kept,) = load_plans(tmp_path / "plan")
    assert kept.pinned["sentinel2"].acquisitions == plan.pinned["sentinel2"].acquisitions


def shown(*arguments: str) -> Result:
    """What h2crop prints."""
    return CliRunner().invoke(app, arguments, env={"COLUMNS": "400"})


def test_the_plan_says_so_in_words_and_as_json(region: TinyRegion, tmp_path: Path) -> None:
    region.recipe()
    result = shown("plan", str(tmp_path / "recipe.yaml"), "--out", str(tmp_path / "plan"))
    assert result.exit_code == 0, result.output
    assert "3 of 36 Sentinel-2 acquisitions expected by the ten-day cycle are not in the catalog" in result.output
    assert "31UDS: March 1 of 3, August 2 of 3 (S2A R051: 2022-03-06, 2022-03-16, 2022-08-13)" in result.output
    told = json.loads(shown("plan", "show", str(tmp_path / "plan"), "--json").stdout)["2022"]["sources"]
    (series,) = told["acquisitions"]["31UDS"]
    assert series == {"series": "S2A R051", "found": [3, 3, 1, 3, 3, 3, 3, 2, 3, 3, 3, 3], "missing": TIMES}


def test_a_complete_archive_is_not_talked_about(tmp_path: Path) -> None:
    region_with(tmp_path, DATES).recipe()
    result = shown("plan", str(tmp_path / "recipe.yaml"), "--out", str(tmp_path / "plan"))
    assert result.exit_code == 0, result.output
    assert "gaps of the archive" not in result.output


def test_index_and_datasheet_of_the_store_say_so(region: TinyRegion, tmp_path: Path) -> None:
    build_store(region.recipe(), tmp_path / "store", workers=1)
    index = tmp_path / "store" / "index"
    sources = json.loads(next(index.rglob("sources-2022.json")).read_text())
    (series,) = sources["2022"]["2022"]["acquisitions"]["31UDS"]
    assert series["missing"] == TIMES
    sheet = (tmp_path / "store" / "DATASHEET.md").read_text()
    (march,) = [line for line in sheet.splitlines() if line.startswith("| March") and " of " in line]
    assert "1 of 3 (1 tile with gaps)" in march
    (april,) = [line for line in sheet.splitlines() if line.startswith("| April") and " of " in line]
    assert "3 of 3 |" in april
    assert "a series that is missing from the catalogs completely is not counted" in sheet


@pytest.mark.parametrize(("most", "months"), [(0, ["March", "August"]), (1, ["March"])])
def test_a_plan_fails_where_more_is_missing_than_may(region: TinyRegion, most: int, months: list[str]) -> None:
    recipe = region.recipe(sentinel2={"max_missing_acquisitions": most})
    with pytest.raises(PlanError) as failed:
        make_plan(recipe, 2022)
    told = str(failed.value)
    assert "31UDS" in told
    assert "2 of 3 in March" in told
    assert ("1 of 3 in August" in told) is ("August" in months)
    assert "sentinel2.max_missing_acquisitions" in told


def test_a_plan_goes_on_where_no_more_is_missing_than_may(region: TinyRegion) -> None:
    recipe = region.recipe(sentinel2={"max_missing_acquisitions": 2})
    assert missing_of(make_plan(recipe, 2022)) == {"31UDS S2A R051": TIMES}


def test_other_seasons_of_the_recipe_show_what_to_expect(tmp_path: Path) -> None:
    """2B is seen in 2021 and 2023 and not at all in 2022: all its dates of 2022 lack."""
    region = region_with(tmp_path, DATES)
    day = timedelta(days=10)
    around = [FIRST + timedelta(days=5) + turn * day for turn in (*range(-36, 0), *range(36, 72))]
    lost = [FIRST + timedelta(days=5) + turn * day for turn in range(36)]
    region.sentinel2 += items_at(region.sentinel2[0], around, "S2B")
    assert missing_of(make_plan(region.recipe(), 2022)) == {}
    found = missing_of(make_plan(region.recipe(seasons=[2021, 2022, 2023]), 2022))
    assert found == {"31UDS S2B R051": [f"{date:%Y-%m-%dT%H:%M:%SZ}" for date in lost]}


def test_a_scene_that_cannot_be_used_is_not_missing(tmp_path: Path) -> None:
    """Neither cloudy scenes nor those without ground are gaps of the archive."""
    region = region_with(tmp_path, DATES)
    cloudy, nowhere = region.sentinel2[8], region.sentinel2[9]
    cloudy["properties"]["eo:cloud_cover"] = 99
    nowhere["geometry"] = None
    assert missing_of(make_plan(region.recipe(sentinel2={"max_cloud_cover": 50}), 2022)) == {}


@pytest.mark.parametrize("named", [True, False])
def test_a_datatake_over_new_year_belongs_to_the_year_in_which_it_began(tmp_path: Path, named: bool) -> None:
    """One tile is seen before midnight, another after it: they are one look, of one season."""
    region = TinyRegion(tmp_path)
    datatake = "20211231T235500" if named else None
    region.add_sentinel2("before", "2021-12-31T23:59:50Z", datatake=datatake)
    region.add_sentinel2("after", "2022-01-01T00:00:05Z", datatake=datatake, tile="31UES")
    region.add_sentinel2("later", "2022-06-01T10:50:31Z")
    seasons = {season: {scene.id for scene in make_plan(region.recipe(), season).scenes} for season in (2021, 2022)}
    assert seasons == {2021: {"before", "after"}, 2022: {"later"}}


def test_a_catalog_of_l1c_shows_what_to_expect(tmp_path: Path) -> None:
    """L2A of 2B lacks as a whole, its L1C is listed."""
    pytest.importorskip("s2cloudless")
    region = region_with(tmp_path, DATES)
    other = [date + timedelta(days=5) for date in DATES]
    l1c = items_at(region.sentinel2[0], DATES) + items_at(region.sentinel2[0], other, "S2B")
    for item in l1c:
        item["id"], item["collection"] = item["id"].replace("L2A", "L1C"), "sentinel-2-l1c"
        item["assets"] |= dict.fromkeys(L1C_ASSETS, item["assets"]["blue"])
    (tmp_path / "l1c.json").write_text(json.dumps({"type": "FeatureCollection", "features": l1c}))
    clouds = {"method": "s2cloudless", "l1c": {"catalog": "l1c.json"}, "cast_shadows": False, "second_look": False}
    plan = make_plan(region.recipe(sentinel2={"clouds": clouds}), 2022)
    assert missing_of(plan) == {"31UDS S2B R051": [f"{date:%Y-%m-%dT%H:%M:%SZ}" for date in other]}
