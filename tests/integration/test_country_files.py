"""A made file of declarations of each country with a crop table: every code is read, in whatever spelling."""

from __future__ import annotations

import csv
import json
import re
from pathlib import Path

import geopandas as gpd
import pytest
import shapely
from typer.testing import CliRunner

from h2crop_data.cli.main import app
from h2crop_data.crops.files import taxonomy_folder

TABLES = sorted(path.stem for path in (taxonomy_folder() / "countries").glob("*.csv"))
PAGE = Path(__file__).parents[2] / "docs/classes.md"
YEAR = 2022
DIGITS = (4, 6, 8, 10)


def rows_of(path: Path) -> list[dict[str, str]]:
    """The rows of a table, read without the code under test."""
    with path.open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def codes_of(country: str) -> dict[str, str]:
    """Code -> HCAT3 in the year."""
    return {
        row["code"]: row["hcat3"]
        for row in rows_of(taxonomy_folder() / f"countries/{country}.csv")
        if int(row["from"] or 0) <= YEAR <= int(row["to"] or 9999)
    }


def reached(country: str) -> list[int]:
    """How many codes have a class at each tier in version 2, by the tables alone."""
    prefixes = {row["hcat3_prefix"] for row in rows_of(taxonomy_folder() / "tiers.csv")}
    return [sum(hcat3[:digits] in prefixes for hcat3 in codes_of(country).values() if hcat3) for digits in DIGITS]


def field_of(country: str) -> str:
    """A name that the field of the code had."""
    (row,) = [row for row in rows_of(taxonomy_folder() / "countries.csv") if row["country"] == country]
    return row["fields"].split()[0].replace("*", "2021") if row["fields"] else "made_field"


@pytest.mark.parametrize("country", TABLES)
def test_every_code_of_a_country_is_read_in_whatever_spelling(country: str, tmp_path: Path) -> None:
    codes = codes_of(country)
    spelt = [f" {code.upper()}  " if i % 3 else code.swapcase() for i, code in enumerate(codes)]
    spelt = [f"00{code}" if re.fullmatch("[0-9]+", code) and i % 2 else code for i, code in enumerate(spelt)]
    boxes = [shapely.box(100 * i, 0, 100 * i + 100, 100) for i in range(len(spelt))]
    frame = gpd.GeoDataFrame({field_of(country): spelt}, geometry=boxes, crs="EPSG:3035")
    frame.geometry = frame.translate(4321000, 3210000)
    path = tmp_path / f"{country}.gpkg"
    frame.to_file(path)
    arguments = ["taxonomy", "coverage", str(path), "--country", country, "--year", str(YEAR), "--json"]
    done = CliRunner().invoke(app, [*arguments, *(["--code-field", "made_field"] if "made_field" in frame else [])])
    assert done.exit_code == 0, done.exception
    found = json.loads(done.stdout)
    assert (found["parcels"], found["unmapped"]) == (len(codes), 0)
    assert [tier["parcels"] for tier in found["tiers"]] == reached(country)
    shares = [format(tier["parcel_share"], ".0%") for tier in found["tiers"]]
    print(f"{country}: {', '.join(shares)} of {len(codes)} codes")


def test_the_page_has_the_coverage_of_every_country() -> None:
    table = re.findall(
        r"^\| `([a-z0-9-]+)` \| .*? \| ([0-9]+) \| (.*) \|$", PAGE.read_text(encoding="utf-8"), re.MULTILINE
    )
    stated = {country: (int(codes), shares.split(" | ")) for country, codes, shares in table}
    expected = {}
    for country in TABLES:
        number = len(codes_of(country))
        expected[country] = (number, [f"{100 * count / number:.0f} %" for count in reached(country)])
    assert stated == expected
