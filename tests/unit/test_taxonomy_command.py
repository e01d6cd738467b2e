"""`h2crop taxonomy`: what it shows, its JSON, and what it refuses."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import geopandas as gpd
import pytest
import shapely
from typer.testing import CliRunner

from h2crop_data.cli.main import app
from h2crop_data.crops.appending import appended_classes
from h2crop_data.crops.countries import code_field
from h2crop_data.crops.taxonomy import Taxonomy, taxonomy_versions
from h2crop_data.errors import UsageError


def run(*arguments: str) -> Any:
    return CliRunner().invoke(app, ["taxonomy", *arguments])


def report(*arguments: str) -> Any:
    """What a command prints with --json."""
    done = run(*arguments, "--json")
    assert done.exit_code == 0, done.output
    return json.loads(done.stdout)


def test_check_passes_and_names_the_versions() -> None:
    done = run("check")
    assert done.exit_code == 0, done.output
    assert "no problem found; versions 1 (101 classes)" in done.output
    assert report("check") == {"problems": [], "versions": taxonomy_versions()}


def test_check_of_a_table_of_ones_own(tmp_path: Path) -> None:
    (tmp_path / "xx.csv").write_text("code,hcat3,decided\n1,3301010177,source\n", encoding="utf-8")
    done = run("check", str(tmp_path / "xx.csv"))
    assert done.exit_code == 1
    assert "3301010177 is not a code of HCAT3" in done.output


def test_show_gives_path_countries_and_years() -> None:
    (shown,) = report("show", "BTH", "--country", "fr")
    assert (shown["hcat3"], shown["name"]) == ("3301010101", "winter_common_soft_wheat")
    assert [one["id"] for one in shown["path"]["1"]] == list(Taxonomy.load("1").ids("3301010101"))
    assert shown["path"]["1"][0]["name"] == "arable_crops"
    of_country = {one["country"]: one for one in shown["countries"]}
    assert {"fr", "be-vlg", "dk"} <= of_country.keys()
    done = run("show", "sugar_beet")
    assert done.exit_code == 0
    assert "3301290700 sugar_beet" in done.output
    assert "version 1: 4 arable_crops > 16 root_vegetables > unknown > unknown" in done.output


def test_show_finds_codes_by_digits_and_names() -> None:
    assert [one["hcat3"] for one in report("show", "3301290700")] == ["3301290700"]
    assert [one["hcat3"] for one in report("show", "33012907")] == ["3301290700"]
    assert "3301290700" in [one["hcat3"] for one in report("show", "Sugar Beet")]
    changed = report("show", "MIS", "--country", "fr")
    years = {one["hcat3"]: [c["years"] for c in one["countries"] if c["code"] == "MIS"] for one in changed}
    assert years == {"3301000000": ["2023-"], "3301010600": ["-2022"]}


def test_show_of_an_unknown_crop_is_refused() -> None:
    done = CliRunner().invoke(app, ["taxonomy", "show", "QQQQ"])
    assert isinstance(done.exception, UsageError)
    assert "no crop 'QQQQ'" in str(done.exception)


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (
            [
                "",
            ],
            "give a country's code",
        ),
        (["BTH", "--country", "zz"], "no crop table 'zz'"),
        ([" "], "give a country's"),
    ],
)
def test_show_refuses_what_it_cannot_look_up(arguments: list[str], says: str) -> None:
    done = CliRunner().invoke(app, ["taxonomy", "show", *arguments])
    assert isinstance(done.exception, UsageError)
    assert says in str(done.exception)


def test_diff_of_versions_only_adds() -> None:
    found = report("diff", "1", taxonomy_versions()[-1])
    assert not any(found["removed"].values())
    assert not any(found["renamed"].values())
    assert ["3301290700", "sugar_beet"] in found["added"]["4"]
    assert found["codes"]["fr"]["BTN"] == ["3301290200", "3301290700"]
    done = CliRunner().invoke(app, ["taxonomy", "diff", "1", "99"])
    assert isinstance(done.exception, UsageError)


@pytest.fixture
def parcels(tmp_path: Path) -> Path:
    """Four squares of one hectare."""
    boxes = [shapely.box(west, 5629000, west + 100, 5629100) for west in (501000, 502000, 503000, 504000)]
    codes = ["BTH", "btn ", "ORP?", "QQQ"]
    path = tmp_path / "parcels.gpkg"
    gpd.GeoDataFrame({"CODE_CULTU": codes}, geometry=boxes, crs="EPSG:32631").to_file(path)
    return path


def test_coverage_tells_how_far_each_tier_reaches(parcels: Path) -> None:
    found = report("coverage", str(parcels), "--country", "fr", "--year", "2022")
    assert (found["parcels"], found["unmapped"]) == (4, 2)
    assert found["hectares"] == pytest.approx(4, rel=1e-3)
    assert [tier["parcels"] for tier in found["tiers"]] == [2, 2, 2, 2]
    assert found["tiers"][3]["hectare_share"] == pytest.approx(0.5, rel=1e-3)
    codes = {one["code"]: one for one in found["codes"]}
    assert codes["btn"]["hcat3"] == "3301290700"
    assert (codes["ORP?"]["known"], codes["ORP?"]["near"]) == (False, "ORP")
    assert (codes["QQQ"]["known"], codes["QQQ"]["near"]) == (False, "")
    # Version 1 has no class for sugar beet, no normal form of codes.
    found = report("coverage", str(parcels), "--country", "fr", "--year", "2022", "--version", "1")
    assert [tier["parcels"] for tier in found["tiers"]] == [1, 1, 1, 1]
    done = run("coverage", str(parcels), "--country", "fr", "--year", "2022")
    assert "2 code(s) are not in the table" in done.output
    assert "ORP?: 1 parcels, 1.0 ha; looks like ORP" in done.output


def test_coverage_by_hcat_codes(parcels: Path, tmp_path: Path) -> None:
    frame = gpd.read_file(parcels).assign(hcat=["3301010101", "3301290700", "3302000000", "9999999999"])
    frame.to_file(tmp_path / "hcat.gpkg")
    arguments = ["--country", "xx", "--year", "2022", "--code-field", "hcat", "--table", "hcat3"]
    found = report("coverage", str(tmp_path / "hcat.gpkg"), *arguments)
    assert (found["unmapped"], [tier["parcels"] for tier in found["tiers"]]) == (1, [3, 3, 3, 3])


def test_coverage_needs_a_field_and_a_table(parcels: Path) -> None:
    done = CliRunner().invoke(app, ["taxonomy", "coverage", str(parcels), "--country", "nl", "--year", "2022"])
    assert isinstance(done.exception, UsageError)
    assert "no known field of crop codes for nl; give --code-field, one of CODE_CULTU" in str(done.exception)
    done = CliRunner().invoke(app, ["taxonomy", "coverage", str(parcels), "--country", "xx", "--year", "2022"])
    assert isinstance(done.exception, UsageError)
    assert "no crop table for 'xx' (known: at, " in str(done.exception)
    assert "give your own with --table" in str(done.exception)
    wrong_year = run("coverage", str(parcels), "--country", "fr", "--year", "22")
    assert wrong_year.exit_code == 2


def test_import_and_suggest(tmp_path: Path) -> None:
    (tmp_path / "list.csv").write_text("CODE,NAME,HCAT3\n1,Winter weat,3301010101\n2,sugarbeet,\n", encoding="utf-8")
    arguments = ["--code-column", "CODE", "--name-column", "NAME"]
    found = report("suggest", str(tmp_path / "list.csv"), *arguments)
    assert [one["suggestions"][0]["hcat3"] for one in found] == ["3301010101", "3301290700"]
    (one,) = report("suggest", "--name", "Winter Wheat")
    assert one["suggestions"][0] | {"score": 0} == {
        **{"hcat3": "3301010101", "hcat3_name": "winter_common_soft_wheat", "like": "winter wheat", "score": 0}
    }
    assert isinstance(run("suggest").exception, UsageError)
    out = tmp_path / "xx.csv"
    done = run("import", str(tmp_path / "list.csv"), "--out", str(out), *arguments, "--hcat3-column", "HCAT3")
    assert done.exit_code == 0, done.output
    assert "2 codes of 2 rows" in done.output
    assert "1 not in HCAT3, kept as unknown" in done.output
    assert out.read_text(encoding="utf-8").splitlines()[1] == "1,3301010101,,,Winter weat,,source,"
    again = run("import", str(tmp_path / "list.csv"), "--out", str(out), *arguments, "--hcat3-column", "HCAT3")
    assert isinstance(again.exception, UsageError)
    for nowhere in (tmp_path / "no/x.csv", tmp_path):
        arguments_out = ["--out", str(nowhere), *arguments, "--hcat3-column", "HCAT3", "--force"]
        assert "cannot write" in str(run("import", str(tmp_path / "list.csv"), *arguments_out).exception)
    (tmp_path / "empty.csv").write_text("CODE,NAME\n", encoding="utf-8")
    empty = run("import", str(tmp_path / "empty.csv"), "--out", str(tmp_path / "z.csv"))
    assert "has no rows" in str(empty.exception)
    half = run("import", str(tmp_path / "list.csv"), "--out", str(tmp_path / "y.csv"), *arguments)
    assert isinstance(half.exception, UsageError)


def test_list_names_every_country() -> None:
    found = {one["country"]: one for one in report("list")}
    assert found["lt"]["partial"]
    assert found["ee"]["key"] == "name"
    assert "CODE_CULTU" in found["fr"]["fields"]
    assert "Estonia: by name" in run("list").output


def test_the_field_of_an_unknown_country_is_found_only_if_it_is_clear() -> None:
    assert code_field("xx", ["ID", "gewascode"]) == "gewascode"
    assert code_field("xx", ["CODE_CULTU", "gewascode"]) is None
    assert code_field("nl", ["CODE_CULTU"]) is None
    assert code_field("nl", ["id", " GewasCode "]) == " GewasCode "


def test_appended_classes_follow_the_rule() -> None:
    named = {
        "3301290700": {"fr", "nl"},  # sugar beet: a class
        "3301010400": {"fr", "nl"},  # barley: winter and spring barley lie below it
        "3301200000": {"fr"},  # asparagus: one country
        "3303020400": {"fr", "nl"},  # blueberry: lies in the published class of berries
        "3399000000": {"fr", "nl"},  # not known
        "3305000000": {"fr", "nl"},  # greenhouses: new at every tier
    }
    found = [(one.tier, one.id, one.prefix) for one in appended_classes(Taxonomy.load("1"), named, 2)]
    assert found == [
        *((1, 7, "3305"), (2, 37, "330500"), (3, 83, "33012907"), (3, 84, "33050000")),
        *((4, 102, "3301290700"), (4, 103, "3305000000")),
    ]


def test_appending_ends_at_254_classes() -> None:
    taxonomy = Taxonomy.load("1")
    full = {**taxonomy.classes[3], **{f"99{i:08d}": (102 + i, "made") for i in range(152)}}
    nearly = Taxonomy("made", (*taxonomy.classes[:3], full))
    assert len(full) == 253
    named = {"3301290700": {"fr"}, "3305000000": {"fr"}}
    assert [one.prefix for one in appended_classes(nearly, named, 1)] == ["33012907", "3301290700"]


def test_propose_prints_rows_and_refuses_a_published_version() -> None:
    assert isinstance(CliRunner().invoke(app, ["taxonomy", "propose", "1"]).exception, UsageError)
    found = report("propose", "99", "--countries", "1")
    last = Taxonomy.load(taxonomy_versions()[-1])
    assert len(found) > 20
    assert next(one["id"] for one in found if one["tier"] == 4) == len(last.classes[3]) + 1
    assert sum(one["tier"] == 4 for one in found) + len(last.classes[3]) <= 254
    line = run("propose", "99", "--countries", "1").stdout.splitlines()[0]
    assert line == "{tier},{id},{prefix},{name},99".format(**found[0])
