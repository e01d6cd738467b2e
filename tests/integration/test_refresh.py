"""A store is kept up to date: what is new is built, what is not complete waits, and nothing is done without need."""

from __future__ import annotations

import json
import multiprocessing
import signal
from datetime import date
from pathlib import Path

import pytest
from killed_builds import SAID_BY_RUNS, FatalStorage
from tiny_region import SOUTH, WEST, TinyRegion
from typer.testing import CliRunner, Result

import h2crop_data
from h2crop_data.cli.main import app
from h2crop_data.cube.reading import read_index, read_index_json, store_attributes
from h2crop_data.errors import PlanError
from h2crop_data.pipeline.build import build_store
from h2crop_data.pipeline.plan import load_plans
from h2crop_data.pipeline.planning import make_plan
from h2crop_data.pipeline.refresh import FailedSeasonsError, refresh_store
from h2crop_data.pipeline.seasons import is_complete, missing_months, why_not_yet
from h2crop_data.recipe.model import load_recipe

FIELDS = [
    ((WEST + 10, SOUTH + 20, WEST + 200, SOUTH + 200), "BTH"),
    ((WEST + 210, SOUTH + 30, WEST + 400, SOUTH + 230), "MIS"),
    ((WEST + 20, SOUTH + 260, WEST + 300, SOUTH + 460), "PPH"),
]
#: A day in the middle of the season that is built before it is complete.
JUNE = date(2022, 6, 20)
NEXT_YEAR = date(2023, 2, 1)


@pytest.fixture
def begun(region: TinyRegion) -> TinyRegion:
    """A region in June 2022: two Sentinel-2 scenes, an EnMAP scene, parcels of the year and of the one before."""
    for month in (3, 5):
        region.add_sentinel2(f"S2_2022_{month}", f"2022-{month:02d}-05T10:50:00Z", 900 + month)
    region.add_enmap(1, "20220524T104526")
    for year in (2021, 2022):
        region.write_parcels(year, FIELDS)
    return region


def contents(store: Path) -> dict[str, bytes]:
    """Every file of a store but those about runs."""
    return {
        str(path.relative_to(store)): path.read_bytes()
        for path in store.rglob("*")
        if path.is_file() and path.name not in SAID_BY_RUNS
    }


def asked(*arguments: str) -> Result:
    result = CliRunner().invoke(app, ["refresh", *arguments])
    assert result.exit_code == 0, result.output
    return result


def test_what_is_new_is_built_and_nothing_is_done_without_need(begun: TinyRegion, tmp_path: Path) -> None:
    store, path = tmp_path / "store", str(begun.folder / "recipe.yaml")
    begun.recipe(seasons=[2022])
    first = json.loads(asked(path, "--out", str(store), "--json").stdout)
    assert (first["release"], first["nothing_new"], first["new_samples"]) == (1, False, {"2022": 4})
    assert (first["waiting"], first["changes"], first["rebuilt"], first["built"]) == ([], [], {}, 2)
    before = contents(store)
    again = asked(path, "--out", str(store))
    assert " ".join(again.stderr.split()).endswith(f"{store}: nothing new; release 1 is unchanged")
    assert json.loads(asked(path, "--out", str(store), "--json").stdout)["nothing_new"]
    assert contents(store) == before
    # A scene of EnMAP makes samples; one of Sentinel-2 changes what was built, which is told.
    begun.add_enmap(1, "20220901T104526", value=3000, datatake=2000)
    begun.add_sentinel2("S2_2022_9", "2022-09-05T10:50:00Z", 1500)
    begun.recipe(seasons=[2022])
    third = json.loads(asked(path, "--out", str(store), "--json").stdout)
    assert (third["release"], third["new_samples"], third["rebuilt"], third["built"]) == (2, {"2022": 4}, {}, 2)
    assert "S2_2022_9" in "".join(third["changes"])
    assert contents(store).items() >= {name: data for name, data in before.items() if "/r1/" in name}.items()
    # By choice it is built anew; then all is as if built today.
    fourth = json.loads(asked(path, "--out", str(store), "--changed", "rebuild", "--json").stdout)
    assert (fourth["release"], fourth["new_samples"], fourth["rebuilt"]) == (3, {}, {"2022": [0, 1]})
    assert json.loads(asked(path, "--out", str(store), "--changed", "rebuild", "--json").stdout)["nothing_new"]


def test_a_season_waits_for_the_files_of_its_year(begun: TinyRegion, tmp_path: Path) -> None:
    store = tmp_path / "store"
    begun.add_sentinel2("S2_2023_3", "2023-03-05T10:50:00Z", 950)
    begun.add_enmap(1, "20230524T104526")
    years = {"season": [source_of_years([2021, 2022, 2023])]}
    recipe = begun.recipe(seasons=[2022, 2023], parcels=years)
    report = refresh_store(recipe, store, workers=1)
    missing = begun.folder / "RPG_2023.gpkg"
    assert report.waiting == [f"season 2023: parcels: {missing} does not exist"]
    assert list(store_attributes(store)["seasons"]) == ["2022"]
    before = contents(store)
    report = refresh_store(recipe, store, workers=1)
    assert report.nothing_new
    assert report.waiting
    assert contents(store) == before
    begun.write_parcels(2023, FIELDS)
    report = refresh_store(recipe, store, workers=1)
    assert (report.release, report.new_samples, report.waiting) == (2, {2023: 4}, [])
    after = contents(store)
    assert {name: data for name, data in after.items() if name in before and "2022/" in name} == {
        name: data for name, data in before.items() if "2022/" in name
    }


def source_of_years(years: list[int]) -> dict[str, object]:
    return {
        "path": "RPG_{year}.gpkg",
        "country": "fr",
        "code_field": "CODE_CULTU",
        "id_field": "ID_PARCEL",
        "years": years,
    }


def test_a_season_waits_for_the_prior_of_its_year_too(begun: TinyRegion, tmp_path: Path) -> None:
    store, prior = tmp_path / "store", begun.folder / "RPG_2021.gpkg"
    recipe = begun.recipe(seasons=[2022])
    kept = prior.read_bytes()
    prior.unlink()
    shown = asked(str(begun.folder / "recipe.yaml"), "--out", str(store))
    assert "nothing new; there is no release yet" in " ".join(shown.stderr.split())
    report = refresh_store(recipe, store, workers=1)
    assert (report.release, report.nothing_new) == (0, True)
    assert report.waiting == [f"season 2022: parcels of the year before: {prior} does not exist"]
    assert not (store / "zarr.json").exists()
    prior.write_bytes(kept)
    assert refresh_store(recipe, store, workers=1).release == 1


def test_a_season_that_is_not_complete_is_refused_and_waits(begun: TinyRegion, tmp_path: Path) -> None:
    store = tmp_path / "store"
    recipe = begun.recipe(seasons=[2022])
    told = r"2022 is complete on 2023-01-15 \(14 days after its end.*today is 2022-06-20.*`in_season: true`"
    with pytest.raises(PlanError, match=f"season 2022 cannot be built yet: {told}"):
        build_store(recipe, store, workers=1, today=JUNE)
    with pytest.raises(PlanError, match=told):
        make_plan(recipe, 2022, today=JUNE)
    report = refresh_store(recipe, store, workers=1, today=JUNE)
    assert (report.release, report.nothing_new, len(report.waiting)) == (0, True, 1)
    assert report.waiting[0].startswith("season 2022: 2022 is complete on 2023-01-15")
    # A plan that was made when it was complete is built; what was begun is finished whatever the day.
    build_store(make_plan(recipe, 2022, today=NEXT_YEAR), store, workers=1, today=NEXT_YEAR)
    assert build_store(recipe, store, workers=1, today=JUNE).built == 0


def test_a_season_is_built_before_its_end_by_recipe_and_completed_later(begun: TinyRegion, tmp_path: Path) -> None:
    store, anew = tmp_path / "store", tmp_path / "anew"
    recipe = begun.recipe(
        seasons=[2022, 2023], in_season=True, parcels={"season": [source_of_years([2021, 2022, 2023])]}
    )
    report = refresh_store(recipe, store, workers=1, today=JUNE)
    assert report.waiting == ["season 2023: 2023 has not begun on 2022-06-20"]
    told = "months 7-12 of 2022 had not happened on 2022-06-20, and month 6 had not ended"
    warnings = read_index_json(store, "sources")["2022"]["2022"]["warnings"]
    assert warnings == [told]
    assert told in (store / "DATASHEET.md").read_text()
    assert json.loads((store / ".build/plan/2022/plan.json").read_text())["planned"] == "2022-06-20"
    old = h2crop_data.open(store, 2022).load()
    assert (old["s2"][:, 6:] == -32768).all()
    # Later in the year there is more: it is told what had not happened, and what was only late.
    begun.add_sentinel2("S2_2022_9", "2022-09-05T10:50:00Z", 1500)
    begun.add_sentinel2("S2_2022_4", "2022-04-05T10:50:00Z", 1400)
    recipe = begun.recipe(
        seasons=[2022, 2023], in_season=True, parcels={"season": [source_of_years([2021, 2022, 2023])]}
    )
    report = refresh_store(recipe, store, workers=1, today=date(2022, 10, 1))
    (line,) = report.changes
    assert "scenes of months that had not happened yet (S2_2022_9)" in line
    assert "new scenes (S2_2022_4)" in line
    assert report.nothing_new
    # When it is complete it is built anew by choice, and says nothing of missing months any more.
    report = refresh_store(recipe.for_seasons([2022]), store, changed="rebuild", workers=1, today=NEXT_YEAR)
    assert (report.release, report.rebuilt) == (2, {2022: [0, 1]})
    build_store(recipe.for_seasons([2022]), anew, workers=1, today=NEXT_YEAR)
    new, whole = (h2crop_data.open(folder, 2022).load().drop_attrs() for folder in (store, anew))
    assert new.drop_vars("slot", errors="ignore").equals(whole.drop_vars("slot", errors="ignore"))
    assert "had not happened" not in (store / "DATASHEET.md").read_text()
    assert "planned" not in json.loads((store / ".build/plan/2022-000002/plan.json").read_text())
    assert h2crop_data.open(store, 2022, release=1).load().equals(old)


def test_a_plan_made_in_the_season_is_built_as_it_is(begun: TinyRegion, tmp_path: Path) -> None:
    recipe = begun.recipe(seasons=[2022], in_season=True)
    plan = make_plan(recipe, 2022, today=JUNE)
    assert plan.planned == JUNE
    report = build_store(plan, tmp_path / "store", workers=1, today=JUNE)
    assert any("had not happened on 2022-06-20" in line for line in report.sources[2022]["2022"]["warnings"])
    shown = CliRunner().invoke(app, ["plan", "show", str(tmp_path / "store/.build/plan")])
    assert "months 7-12 of 2022 had not happened on 2022-06-20" in " ".join(shown.stderr.split())
    assert load_plans(tmp_path / "store/.build/plan")[0].planned == JUNE


def test_a_season_of_which_there_is_nothing_yet_waits(begun: TinyRegion, tmp_path: Path) -> None:
    store = tmp_path / "store"
    begun.write_parcels(2023, FIELDS)
    recipe = begun.recipe(seasons=[2022, 2023], in_season=True)
    report = refresh_store(recipe, store, workers=1, today=NEXT_YEAR)
    assert (report.release, report.new_samples) == (1, {2022: 4})
    assert report.waiting[0].startswith("season 2023: 2023: no EnMAP scene gives a cell")
    # Of a complete season that is an error.
    with pytest.raises(PlanError, match="2023: no EnMAP scene gives a cell"):
        refresh_store(recipe, store, workers=1, today=date(2024, 2, 1))


def test_an_error_in_one_season_stops_no_other(begun: TinyRegion, tmp_path: Path) -> None:
    store = tmp_path / "store"
    begun.add_sentinel2("S2_2023_3", "2023-03-05T10:50:00Z", 950)
    begun.add_enmap(1, "20230524T104526")
    begun.write_parcels(2023, FIELDS)
    file = begun.folder / "RPG_2023.gpkg"
    whole = file.read_bytes()
    file.write_bytes(whole[:5000])
    years = {"season": [source_of_years([2021, 2022, 2023])]}
    recipe = begun.recipe(seasons=[2022, 2023], parcels=years)
    shown = CliRunner().invoke(
        app, ["refresh", str(begun.folder / "recipe.yaml"), "--out", str(store), "--workers", "1", "--json"]
    )
    assert shown.exit_code == 1
    report = json.loads(shown.stdout)
    assert (report["release"], report["new_samples"], list(report["failed_seasons"])) == (1, {"2022": 4}, ["2023"])
    assert "RPG_2023.gpkg" in report["failed_seasons"]["2023"]
    assert isinstance(shown.exception, FailedSeasonsError)
    # The next run says so again, although nothing else is new, and what is new in the other season is built.
    begun.add_enmap(1, "20220901T104526", value=3000, datatake=2000)
    recipe = begun.recipe(seasons=[2022, 2023], parcels=years)
    with pytest.raises(FailedSeasonsError, match=r"season 2023 could not be planned: .*RPG_2023") as caught:
        refresh_store(recipe, store, workers=1)
    assert (caught.value.report.release, caught.value.report.new_samples) == (2, {2022: 4})
    file.write_bytes(whole)
    report = refresh_store(recipe, store, workers=1)
    assert (report.release, report.new_samples, report.failed_seasons) == (3, {2023: 4}, {})


def test_only_a_season_of_which_there_is_nothing_waits_in_its_year(begun: TinyRegion, tmp_path: Path) -> None:
    """Before its end a season's other errors are errors too."""
    store = tmp_path / "store"
    begun.add_sentinel2("S2_2023_3", "2023-03-05T10:50:00Z", 950)
    begun.add_enmap(1, "20230524T104526")
    begun.write_parcels(2023, [((WEST - 5000, SOUTH, WEST - 4800, SOUTH + 200), "BTH")])
    years = {"season": [source_of_years([2021, 2022, 2023])]}
    recipe = begun.recipe(seasons=[2022, 2023], in_season=True, parcels=years)
    with pytest.raises(FailedSeasonsError) as caught:
        refresh_store(recipe, store, workers=1, today=date(2023, 8, 1))
    assert list(caught.value.report.failed_seasons) == [2023]
    assert (caught.value.report.waiting, caught.value.report.release) == ([], 1)


def refresh_child(recipe: Path, store: Path, fatal: str) -> None:
    """A refresh that dies just before a step."""
    refresh_store(load_recipe(recipe), FatalStorage(store, fatal), workers=1)


@pytest.mark.parametrize("step", ["write .build/2022/000001.json", "write zarr.json"])
def test_what_an_interrupted_run_left_is_finished(begun: TinyRegion, tmp_path: Path, step: str) -> None:
    store, recipe = tmp_path / "store", begun.recipe(seasons=[2022])
    path = begun.folder / "recipe.yaml"
    child = multiprocessing.get_context("fork").Process(target=refresh_child, args=(path, store, step))
    child.start()
    child.join(120)
    assert child.exitcode == -signal.SIGKILL
    report = refresh_store(recipe, store, workers=1)
    assert (report.release, report.nothing_new, report.new_samples) == (1, False, {})
    assert len(read_index(store, "samples-2022")) == 4
    assert refresh_store(recipe, store, workers=1).nothing_new


def test_a_season_is_complete_some_days_after_its_end(begun: TinyRegion) -> None:
    assert not is_complete(2022, date(2023, 1, 14))
    assert is_complete(2022, date(2023, 1, 15))
    recipe, in_season = begun.recipe(seasons=[2022]), begun.recipe(seasons=[2022], in_season=True)
    assert why_not_yet(recipe, 2022, date(2023, 1, 15)) == ""
    assert why_not_yet(in_season, 2022, date(2022, 1, 1)) == ""
    assert why_not_yet(in_season, 2022, date(2021, 12, 31)) == "2022 has not begun on 2021-12-31"
    assert missing_months(2022, date(2022, 11, 2)) == (
        "month 12 of 2022 had not happened on 2022-11-02, and month 11 had not ended"
    )
    assert missing_months(2022, date(2022, 12, 2)) == "month 12 of 2022 had not ended on 2022-12-02"
    assert missing_months(2022, date(2023, 1, 2)).startswith("2022 had only just ended on 2023-01-02")
    # Plans and hashes of recipes that do not say so stay as they are.
    assert "in_season" not in recipe.as_written()
    assert recipe.hash == begun.recipe(seasons=[2022], in_season=False).hash != in_season.hash
