"""`h2crop parcels check`: every row of a file is accounted for, its place, overlaps and sizes are shown."""

from __future__ import annotations

import io
import json
from pathlib import Path
from typing import Any

import geopandas as gpd
import numpy as np
import pytest
import shapely
from PIL import Image
from typer.testing import CliRunner

from h2crop_data.cli.main import app
from h2crop_data.crops.tables import load_crop_table
from h2crop_data.crops.taxonomy import Taxonomy
from h2crop_data.errors import ParcelError, UsageError
from h2crop_data.parcels.file_check import check_parcel_file
from h2crop_data.parcels.parcel_map import KNOWN_TO, draw_parcel_map
from h2crop_data.parcels.read import open_parcels

WEST, SOUTH = 700_000, 6_600_000


def square(column: float, row: float = 0, side: float = 100) -> shapely.Polygon:
    west, south = WEST + 100 * column, SOUTH + 100 * row
    return shapely.box(west, south, west + side, south + side)


def bow_tie(column: float) -> shapely.Polygon:
    """Two triangles of a quarter of a hectare each, drawn as one ring that crosses itself."""
    x, y = WEST + 100 * column, SOUTH
    return shapely.Polygon([(x, y), (x + 100, y + 100), (x + 100, y), (x, y + 100)])


@pytest.fixture
def file(tmp_path: Path) -> Path:
    """One row of each kind; rows of a GeoPackage are numbered from 1."""
    rows: list[tuple[Any, str]] = [
        (square(0), "BTH"),  # 1
        (square(1), "BTN"),  # 2
        (square(2), "MCR"),  # 3: known to tier 2
        (square(3), "QQQ"),  # 4: not in the table
        (square(4), "or p"),  # 5: looks like ORP
        (bow_tie(5), "BTH"),  # 6
        (shapely.force_3d(square(6)), "BTH"),  # 7
        (None, "BTH"),  # 8
        (shapely.Polygon(), "BTH"),  # 9
        (square(0), "BTH"),  # 10: twice
        (square(1), "ORP"),  # 11: the shape of 2 with another crop
        (square(2.5, 0.5), "BTH"),  # 12: overlaps 3 and 4 by a quarter of a hectare each
        (square(9, side=5), "BTH"),  # 13: a quarter of a pixel
    ]
    frame = gpd.GeoDataFrame(
        {"CODE_CULTU": [code for _, code in rows], "ID_PARCEL": [f"p{i + 1}" for i in range(len(rows))]},
        geometry=[shape for shape, _ in rows],
        crs="EPSG:2154",
    )
    path = tmp_path / "parcels.gpkg"
    frame.to_file(path)
    return path


def report(*arguments: str) -> Any:
    done = CliRunner().invoke(app, ["parcels", "check", *arguments, "--json"])
    assert done.exit_code == 0, done.exception
    return json.loads(done.stdout)


def test_every_row_is_accounted_for(file: Path) -> None:
    found = report(str(file), "--country", "fr", "--year", "2022", "--id-field", "id_parcel")
    counts = found["counts"]
    assert found["rows"] == 13
    assert counts == {
        **{"read": 13, "parcels": 9, "invalid": 1, "three_dimensional": 1, "null": 1, "empty": 1, "unreadable": 0},
        **{"duplicate": 2, "contradictory": 1},
    }
    # Parcels and rows that were left out are all rows.
    assert counts["parcels"] + counts["null"] + counts["empty"] + counts["duplicate"] == found["rows"]
    problems = found["problems"]
    assert problems["invalid"] == [6]
    assert problems["three_dimensional"] == [7]
    assert problems["null"] == [8]
    assert problems["empty"] == [9]
    assert problems["duplicate"] == [10, 11]
    assert found["place"] == ""


def test_crops_areas_and_overlaps_are_those_of_the_shapes(file: Path) -> None:
    found = report(str(file), "--country", "fr", "--year", "2022", "--id-field", "ID_PARCEL")
    coverage = found["coverage"]
    # Eight parcels of a hectare, the bow tie with half of one, and a small one; the map projection is 0.1 % off.
    assert coverage["hectares"] == pytest.approx(7 + 0.5 + 0.0025, rel=2e-3)
    codes = {one["code"]: one for one in coverage["codes"]}
    assert (codes["MCR"]["tiers"], codes["BTH"]["tiers"]) == (2, 4)
    assert codes["or p"]["near"] == "ORP"
    assert not codes["QQQ"]["known"]
    # A parcel declared with two crops has none, and is no unmapped code.
    assert codes["BTN ≠ ORP"]["hcat3"] == ""
    assert coverage["unmapped"] == 2
    assert [tier["parcels"] for tier in coverage["tiers"]] == [6, 6, 5, 5]
    overlaps = found["overlaps"]
    assert overlaps["number"] == 2
    assert overlaps["hectares"] == pytest.approx(0.5, rel=2e-3)
    assert {tuple(pair[:2]) for pair in overlaps["pairs"]} == {(3, 12), (4, 12)}
    assert found["below_a_pixel"] == 1
    assert found["smallest"][0] | {"hectares": 0} == {"fid": 13, "parcel_id": "p13", "code": "BTH", "hectares": 0}
    assert found["smallest"][0]["hectares"] == pytest.approx(0.0025, rel=2e-2)
    assert len(found["findings"]) == 8


def test_the_text_names_rows_and_what_becomes_of_them(file: Path, tmp_path: Path) -> None:
    arguments = ["parcels", "check", str(file), "--country", "fr", "--year", "2022", "--map", str(tmp_path / "map.png")]
    done = CliRunner().invoke(app, arguments)
    assert done.exit_code == 0, done.exception
    for text in (
        "13 rows stated, 13 read, 9 parcels",
        "1 row(s) have a shape that crosses itself, repaired: fid 6",
        "2 row(s) have the shape of an earlier row, left out: fid 10, 11",
        "2 overlap(s), 0.50 ha: fid",
        "or p: 1 parcels, 1.0 ha; looks like ORP",
        "1 parcel(s) are smaller than a pixel of 10 m",
    ):
        assert text in done.output
    assert (tmp_path / "map.png").read_bytes()[:4] == b"\x89PNG"


def test_a_file_of_another_place_is_reported(file: Path, tmp_path: Path) -> None:
    moved = gpd.read_file(file).iloc[:3].to_crs("EPSG:3035")
    moved.geometry = moved.translate(1_400_000, 1_700_000)
    moved.to_file(tmp_path / "elsewhere.gpkg")
    found = report(str(tmp_path / "elsewhere.gpkg"), "--country", "fr", "--year", "2022")
    assert "parcels of fr lie at" in found["place"]
    assert found["findings"][0] == found["place"]
    moved.set_crs("EPSG:4326", allow_override=True).to_file(tmp_path / "metres.gpkg")
    found = report(str(tmp_path / "metres.gpkg"), "--country", "fr", "--year", "2022")
    assert "looks like metres" in found["place"]


def test_the_map_has_north_up_and_the_colour_of_each_parcel(file: Path) -> None:
    checked, parcels = check_parcel_file(
        open_parcels(file, "CODE_CULTU"), "fr", load_crop_table(None, "fr", version="2", year=2022), Taxonomy.load("2")
    )
    assert checked.counts["parcels"] == len(parcels)
    # One parcel in the south-west, one whose code is unknown in the north-east.
    two = parcels.iloc[[0, 3]].copy()
    two.geometry = [shapely.box(2, 46, 2.1, 46.1), shapely.box(3, 47, 3.1, 47.1)]
    pixels = np.asarray(Image.open(io.BytesIO(draw_parcel_map(two, "two"))).convert("RGB")).astype(int)
    # Below the legend.
    pixels = pixels[100:]

    def middle(colour: str) -> tuple[float, float]:
        wanted = np.array([int(colour[i : i + 2], 16) for i in (1, 3, 5)])
        rows, columns = np.nonzero((abs(pixels - wanted) < 12).all(axis=2))
        assert len(rows) > 100
        return float(rows.mean()), float(columns.mean())

    known, unknown = middle(KNOWN_TO[4][0]), middle(KNOWN_TO[-1][0])
    assert unknown[0] < known[0]
    assert unknown[1] > known[1]


def test_files_and_options_that_cannot_be_used_are_refused(file: Path, tmp_path: Path) -> None:
    for arguments, error, says in (
        (["none.gpkg", "--country", "fr"], ParcelError, "cannot read parcels from none.gpkg"),
        ([str(file), "--country", "fr", "--version", "9"], UsageError, "unknown taxonomy version '9'"),
        ([str(file), "--country", "fr", "--code-field", "CODE"], ParcelError, "no field 'CODE'"),
        ([str(file), "--country", "nl"], UsageError, "no known field of crop codes for nl"),
        ([str(file), "--country", "fr", "--layer", "other"], ParcelError, "cannot read parcels"),
    ):
        done = CliRunner().invoke(app, ["parcels", "check", *arguments, "--year", "2022"])
        assert isinstance(done.exception, error), done.exception
        assert says in str(done.exception)
