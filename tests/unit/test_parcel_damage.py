"""Parcel files with single rows that nobody can read, and files that lost rows."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import geopandas as gpd
import pyogrio
import pytest
import shapely
from damaged_files import change_geometry, cut, polygon_wkb, with_wkb, without_triggers
from parcel_reading import NO_FAULT, read_parcels

from h2crop_data.errors import ParcelError
from h2crop_data.grid import LONLAT
from h2crop_data.parcels import read
from h2crop_data.parcels.damage import check_rows
from h2crop_data.parcels.read import only_layer, open_parcels, passed_over

LAMBERT = "EPSG:2154"
#: Fields of one hectare, 200 m apart.
FIELDS = [shapely.box(700_000 + 200 * i, 6_600_000, 700_100 + 200 * i, 6_600_100) for i in range(6)]
AROUND = gpd.GeoSeries([shapely.box(699_900, 6_599_900, 701_200, 6_600_200)], crs=LAMBERT).to_crs(LONLAT)[0]
#: Ground of the first four of them.
WEST = gpd.GeoSeries([shapely.box(700_000, 6_600_000, 700_700, 6_600_100)], crs=LAMBERT).to_crs(LONLAT)[0]
#: A ring whose last corner is not its first.
OPEN_RING = [(700_400.0, 6_600_000.0), (700_500.0, 6_600_000.0), (700_500.0, 6_600_100.0), (700_400.0, 6_600_100.0)]
NOWHERE = [(700_400.0, 6_600_000.0), (700_500.0, float("nan")), (700_500.0, 6_600_100.0), (700_400.0, 6_600_000.0)]
FAR = [(700_400.0, 6_600_000.0), (float("inf"), 6_600_000.0), (700_500.0, 6_600_100.0), (700_400.0, 6_600_000.0)]
BAD_GEOMETRY = {
    "unclosed ring": with_wkb(polygon_wkb(OPEN_RING)),
    "garbage": with_wkb(b"\x01\x03garbage"),
    "cut off": lambda stored: stored[:60],
    "not a number": with_wkb(polygon_wkb(NOWHERE)),
    "infinite": with_wkb(polygon_wkb(FAR)),
    "no geometry at all": lambda stored: b"text",
    "empty bytes": lambda stored: b"",
}


def fields(path: Path, count: int = len(FIELDS), **options: Any) -> Path:
    """A file of fields with the codes A, B, C ..."""
    geometry = [shapely.box(700_000 + 200 * i, 6_600_000, 700_100 + 200 * i, 6_600_100) for i in range(count)]
    codes = [chr(ord("A") + i % 26) for i in range(count)]
    pyogrio.write_dataframe(gpd.GeoDataFrame({"code": codes}, geometry=geometry, crs=LAMBERT), path, **options)
    return path


def near(path: Path) -> tuple[list[str], dict[str, int], list[int]]:
    """Codes of the parcels near the western fields, the counts, and the rows that were passed over."""
    parcels, counts = read_parcels(path, "code", area=WEST)
    return list(parcels["code"]), counts, passed_over(open_parcels(path, "code"))["fid"].tolist()


# One bad row


@pytest.mark.parametrize("indexed", ["YES", "NO"])
@pytest.mark.parametrize("fault", BAD_GEOMETRY)
def test_a_bad_row_of_a_geopackage_is_left_out_and_the_others_are_read(
    tmp_path: Path, fault: str, indexed: str
) -> None:
    path = fields(tmp_path / "parcels.gpkg", SPATIAL_INDEX=indexed)
    change_geometry(path, 3, BAD_GEOMETRY[fault])
    check_rows(path, "parcels")
    every, counts = read_parcels(path, "code")
    assert list(every["code"]) == ["A", "B", "D", "E", "F"]
    assert counts == {"read": 6, "parcels": 5, **NO_FAULT, "unreadable": 1}
    codes, counts, passed = near(path)
    assert codes == ["A", "B", "D"]
    # A search by place passes over what is no geometry: such rows are looked for by themselves.
    assert counts["unreadable"] + len(passed) >= 1
    assert set(passed) <= {3}
    assert (3 in passed) == (fault in ("no geometry at all", "empty bytes"))


def test_a_row_without_geometry_is_not_one_that_cannot_be_read(tmp_path: Path) -> None:
    path = fields(tmp_path / "parcels.gpkg")
    change_geometry(path, 3, lambda stored: None)
    change_geometry(path, 4, with_wkb(b"\x01\x03garbage"))
    codes, counts, passed = near(path)
    assert (codes, counts["unreadable"], counts["null"], passed) == (["A", "B"], 1, 0, [])
    _, counts = read_parcels(path, "code")
    assert counts == {"read": 6, "parcels": 4, **NO_FAULT, "unreadable": 1, "null": 1}


@pytest.mark.parametrize("piece", [1, 4, 6, 7])
def test_a_file_that_must_be_looked_through_is_read_piece_by_piece(
    tmp_path: Path, piece: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(read, "ROWS_AT_A_TIME", piece)
    path = fields(tmp_path / "parcels.gpkg")
    change_geometry(path, 3, with_wkb(b"\x01\x03garbage"))
    codes, counts, _ = near(path)
    assert codes == ["A", "B", "D"]
    assert counts == {"read": 4, "parcels": 3, **NO_FAULT, "unreadable": 1}


def geojson(path: Path, *rings: Any) -> Path:
    """A GeoJSON of polygons in longitude and latitude, as they are given."""
    features = [
        {
            "type": "Feature",
            "properties": {"code": chr(ord("A") + i)},
            "geometry": None if ring is None else {"type": "Polygon", "coordinates": [ring]},
        }
        for i, ring in enumerate(rings)
    ]
    path.write_text(json.dumps({"type": "FeatureCollection", "features": features}))
    return path


@pytest.mark.parametrize(
    "bad",
    [
        [[3.1, 46.5], [3.2, 46.5], [3.2, 46.6], [3.1, 46.6]],
        [[3.1, "x"], [3.2, 46.5], [3.2, 46.6], [3.1, 46.5]],
        [[3.1, 46.5], [3.2, 46.5]],
        [[float("nan"), 46.5], [3.2, 46.5], [3.2, 46.6], [float("nan"), 46.5]],
    ],
    ids=["unclosed ring", "text for a number", "two corners", "not a number"],
)
def test_a_bad_row_of_a_geojson_is_left_out_and_the_others_are_read(tmp_path: Path, bad: Any) -> None:
    squares = [[[x, 46.5], [x + 0.01, 46.5], [x + 0.01, 46.51], [x, 46.51], [x, 46.5]] for x in (3.0, 3.3)]
    path = geojson(tmp_path / "parcels.geojson", squares[0], bad, squares[1])
    check_rows(path, only_layer(path))
    parcels, counts = read_parcels(path, "code", area=shapely.box(2, 46, 4, 47))
    assert list(parcels["code"]) == ["A", "C"]
    assert counts == {"read": 3, "parcels": 2, **NO_FAULT, "unreadable": 1}


def test_a_bad_row_of_a_shapefile_is_left_out_and_the_others_are_read(tmp_path: Path) -> None:
    path = fields(tmp_path / "parcels.shp")
    whole = path.read_bytes()
    # Records of 136 bytes: number, length, type, bounds, counts, where the part starts, corners.
    third = 100 + 2 * 136
    last_corner = third + 136 - 16
    open_ring = whole[:last_corner] + bytes(16) + whole[last_corner + 16 :]
    counts_at = third + 8 + 4 + 32
    wrong_counts = whole[:counts_at] + b"\xff\xff\x00\x00\xff\xff\x00\x00" + whole[counts_at + 8 :]
    for data in (open_ring, wrong_counts):
        path.write_bytes(data)
        check_rows(path, "parcels")
        parcels, counts = read_parcels(path, "code", area=WEST)
        assert list(parcels["code"]) == ["A", "B", "D"]
        assert counts == {"read": 4, "parcels": 3, **NO_FAULT, "unreadable": 1}


# Lost rows


@pytest.mark.parametrize(
    ("ending", "words"), [("dbf", "256 row"), ("shp", "bytes in its .shp"), ("shx", "cannot read")]
)
@pytest.mark.parametrize("zipped", [False, True])
def test_a_shapefile_one_file_of_which_was_cut_off_is_refused(
    tmp_path: Path, ending: str, words: str, zipped: bool
) -> None:
    path = fields(tmp_path / "parcels.shp", 256)
    check_rows(path, "parcels")
    cut(path.with_suffix(f".{ending}"), 0.66)
    if zipped:
        path = Path(shutil.make_archive(str(tmp_path / "archive"), "zip", tmp_path))
    with pytest.raises(ParcelError, match=words) as raised:
        check_rows(path, "parcels")
    assert str(path) in str(raised.value)
    if ending != "shx":
        assert "it is truncated or damaged" in str(raised.value)


def test_a_cut_table_of_fields_names_how_many_rows_are_left(tmp_path: Path) -> None:
    path = fields(tmp_path / "parcels.shp", 256)
    cut(path.with_suffix(".dbf"), 0.66)
    with pytest.raises(ParcelError, match=r"expected 256 row\(s\) in its .dbf, got 168"):
        check_rows(path, "parcels")


@pytest.mark.parametrize(("more", "fewer"), [("shp", "dbf"), ("dbf", "shp")])
def test_a_shapefile_of_two_others_is_refused(tmp_path: Path, more: str, fewer: str) -> None:
    long, short = fields(tmp_path / "long.shp", 256), fields(tmp_path / "short.shp", 200)
    shutil.copy(long.with_suffix(".dbf") if more == "dbf" else short.with_suffix(".dbf"), tmp_path / "both.dbf")
    for ending in ("shp", "shx", "prj"):
        shutil.copy((long if more == "shp" else short).with_suffix(f".{ending}"), tmp_path / f"both.{ending}")
    with pytest.raises(ParcelError, match=r"expected 256 row.*, got 200"):
        check_rows(tmp_path / "both.shp", "both")


@pytest.mark.parametrize("how", ["beside", "folder", "zip"])
def test_a_whole_shapefile_is_taken_wherever_it_lies(tmp_path: Path, how: str) -> None:
    folder = tmp_path / "in" / "inner"
    folder.mkdir(parents=True)
    path = fields(folder / "Parcels.shp", 40)
    if how == "folder":
        path = folder
    elif how == "zip":
        path = Path(shutil.make_archive(str(tmp_path / "archive"), "zip", folder))
    check_rows(path, only_layer(path))
    parcels, counts = read_parcels(path, "code", area=WEST)
    assert list(parcels["code"]) == ["A", "B", "C", "D"]
    assert counts["parcels"] == 4


def test_a_geopackage_with_fewer_rows_than_it_states_is_refused(tmp_path: Path) -> None:
    path = fields(tmp_path / "parcels.gpkg", 256)
    check_rows(path, "parcels")
    with without_triggers(path) as database:
        database.execute("DELETE FROM parcels WHERE fid > 200")
    with pytest.raises(ParcelError, match=r"expected 256 row\(s\), got 200"):
        check_rows(path, "parcels")


def test_rows_that_the_spatial_index_does_not_know_are_not_lost_in_silence(tmp_path: Path) -> None:
    path = fields(tmp_path / "parcels.gpkg")
    with without_triggers(path) as database:
        database.execute("INSERT INTO parcels (geom, code) SELECT geom, 'Z' FROM parcels WHERE fid = 1")
        database.execute("UPDATE gpkg_ogr_contents SET feature_count = 7")
    # A search finds one of two.
    assert len(pyogrio.read_dataframe(path, bbox=FIELDS[0].bounds)) == 1
    with pytest.raises(ParcelError, match=r"expected 7 row\(s\) in its spatial index, got 6: .*ogr2ogr"):
        check_rows(path, "parcels")


def test_rows_without_a_shape_need_not_be_in_the_spatial_index(tmp_path: Path) -> None:
    shapes = [*FIELDS, None, shapely.Polygon()]
    frame = gpd.GeoDataFrame({"code": [*"ABCDEFGH"]}, geometry=shapes, crs=LAMBERT)
    pyogrio.write_dataframe(frame, tmp_path / "parcels.gpkg")
    check_rows(tmp_path / "parcels.gpkg", "parcels")


@pytest.mark.parametrize("ending", ["gpkg", "fgb", "geojson"])
def test_a_file_that_was_cut_off_is_refused(tmp_path: Path, ending: str) -> None:
    path = fields(tmp_path / f"parcels.{ending}", 256)
    layer = only_layer(path)
    check_rows(path, layer)
    cut(path, 0.6)
    with pytest.raises(ParcelError, match=f"cannot read parcels from .*parcels.{ending}"):
        check_rows(path, layer)


def test_quotes_in_the_name_of_a_layer_do_not_matter(tmp_path: Path) -> None:
    path = fields(tmp_path / "parcels.gpkg", layer='the "best" fields')
    check_rows(path, only_layer(path))
    change_geometry(path, 3, lambda stored: b"text", 'the "best" fields')
    assert passed_over(open_parcels(path, "code"))["fid"].tolist() == [3]


# Fields and twins


def test_a_field_is_found_whatever_its_case(tmp_path: Path) -> None:
    frame = gpd.GeoDataFrame({"code_cultu": ["BTH"], "Id_Parcel": ["7"]}, geometry=FIELDS[:1], crs=LAMBERT)
    pyogrio.write_dataframe(frame, tmp_path / "parcels.gpkg")
    parcels, _ = read_parcels(tmp_path / "parcels.gpkg", "CODE_CULTU", id_field="ID_PARCEL")
    assert parcels[["code", "parcel_id"]].to_numpy().tolist() == [["BTH", "7"]]


def test_of_fields_that_differ_in_case_alone_the_exact_one_is_taken_and_none_is_guessed(tmp_path: Path) -> None:
    square = [[3.0, 46.5], [3.1, 46.5], [3.1, 46.6], [3.0, 46.5]]
    feature = {"type": "Feature", "geometry": {"type": "Polygon", "coordinates": [square]}}
    feature["properties"] = {"code": "BTH", "CODE": "MIS"}
    path = tmp_path / "parcels.geojson"
    path.write_text(json.dumps({"type": "FeatureCollection", "features": [feature]}))
    for name, code in (("code", "BTH"), ("CODE", "MIS")):
        assert list(read_parcels(path, name)[0]["code"]) == [code]
    with pytest.raises(ParcelError, match=r"no field 'Code', but several that differ from it only in case: code, CODE"):
        read_parcels(path, "Code")


def test_ground_declared_with_several_crops_is_one_parcel_that_names_them_all(tmp_path: Path) -> None:
    reversed_ring = shapely.normalize(FIELDS[0].reverse())
    shapes = [FIELDS[0], FIELDS[1], reversed_ring, FIELDS[1], FIELDS[0], FIELDS[2], FIELDS[2]]
    frame = gpd.GeoDataFrame({"code": ["MIS", "BTH", "BTH", "BTH", "PPH", "BTH", None]}, geometry=shapes, crs=LAMBERT)
    pyogrio.write_dataframe(frame, tmp_path / "parcels.gpkg")
    parcels, counts = read_parcels(tmp_path / "parcels.gpkg", "code")
    assert list(parcels["code"]) == ["BTH ≠ MIS ≠ PPH", "BTH", " ≠ BTH"]
    assert list(parcels["fid"]) == [1, 2, 6]
    assert counts == {"read": 7, "parcels": 3, **NO_FAULT, "duplicate": 4, "contradictory": 2}
    # Whatever order the rows have.
    pyogrio.write_dataframe(frame.iloc[::-1], tmp_path / "reversed.gpkg")
    other, other_counts = read_parcels(tmp_path / "reversed.gpkg", "code")
    assert sorted(other["code"]) == sorted(parcels["code"])
    assert other_counts == counts
