"""The columns of the index: stated once, and what stores, docs and checks have is what is stated."""

from __future__ import annotations

import io
from typing import Any

import geopandas as gpd
import numpy as np
import pandas as pd
import pyarrow.parquet as pq
import pytest
import shapely
from script_modules import CHECKOUT, script_module

from h2crop_data.constants import SENTINEL2_BANDS
from h2crop_data.cube.columns import (
    GEOMETRY,
    PARCELS,
    SCENES,
    SQUARES,
    Column,
    in_declared_order,
    table_schema,
    with_nullable_integers,
)
from h2crop_data.cube.index_reading import decode_table
from h2crop_data.cube.schema import ArraySpec
from h2crop_data.cube.table_files import ROWS_AT_ONCE, encode_table
from h2crop_data.datasheet.sheet import axes
from h2crop_data.errors import StoreError
from h2crop_data.sources.formats import known_layout

LAYOUT = known_layout(1920, 16, s2_bands=SENTINEL2_BANDS, enmap_bands=218)


def test_the_format_page_has_the_tables_that_the_package_states() -> None:
    script = script_module("docs/columns.py")
    page = (CHECKOUT / "docs/store-format.md").read_text(encoding="utf-8")
    assert page.count(script.BEGIN + script.tables() + script.END) == 1, "run `python docs/columns.py`"


@pytest.mark.parametrize(
    "columns", [[*LAYOUT.sample_columns(), GEOMETRY], LAYOUT.block_columns(), SCENES, PARCELS, SQUARES]
)
def test_no_column_is_stated_twice_and_each_says_something(columns: list[Column]) -> None:
    names = [column.name for column in columns]
    assert len(set(names)) == len(names)
    assert all(column.text for column in columns)


def test_every_column_of_a_source_says_whose_it_is() -> None:
    for source in LAYOUT.sources:
        for column in (*source.columns, *source.block_columns):
            assert column.source == source.name


def test_columns_come_in_the_stated_order_the_unknown_after_them_and_the_geometry_last() -> None:
    table = pd.DataFrame(columns=["geometry", "mine", "cell", "sample"])
    assert list(in_declared_order(table, LAYOUT.sample_columns())) == ["sample", "cell", "mine", "geometry"]


def test_a_store_leaves_out_the_columns_of_sources_it_does_not_have() -> None:
    alone = known_layout(1920, 16, enmap_bands=218, labels=False)
    names = {column.name for column in alone.sample_columns()}
    assert "enmap_cloud_share" in names
    assert not names & {"s2_dates", "class_share"}
    assert {"hash_s2", "hash_enmap", "hash_labels"} <= {column.name for column in alone.block_columns()}


def test_integers_that_may_be_unknown_stay_integers() -> None:
    table = pd.DataFrame({"orbit": [3, None], "sample": ["a", "b"]})
    typed = with_nullable_integers(table, [Column("orbit", "nullable integer", "of the scene")])
    assert typed["orbit"].dtype == "Int64"
    assert typed["orbit"].tolist() == [3, pd.NA]


@pytest.mark.parametrize(
    ("dims", "shape", "told"),
    [
        (("sample", "time", "s2_band", "y", "x"), (12, 10, 192, 192), "12 months, 10 bands, 192 x 192 pixels of 10 m"),
        (("sample", "y30", "x30"), (64, 64), "64 x 64 pixels of 30 m"),
        (("sample", "day"), (365,), "365 days"),
        (("sample", "variable", "day"), (4, 365), "4 variables, 365 days"),
        (("sample", "y60", "x60"), (32, 32), "32 y60s, 32 x60s"),
    ],
)
def test_axes_in_words(dims: tuple[str, ...], shape: tuple[int, ...], told: str) -> None:
    assert axes(ArraySpec("a", "g", dims, shape, (1, *shape), np.dtype("int16"), 0)) == told


# --- Files of tables

FIELDS = (
    Column("name", "text", "of a field", filled=True),
    Column("crops", "texts", "grown there"),
    Column("area", "number", "of it", "ha"),
    Column("number", "uint32", "of the field"),
    Column("orbit", "nullable integer", "of its scene"),
    Column("time", "time", "of its scene"),
    GEOMETRY,
)


def field_rows(**changed: Any) -> gpd.GeoDataFrame:
    """Two fields, one of which lacks all that may be lacking."""
    rows = {
        "name": ["a", "b"],
        "crops": [["BTH", "MIS"], []],
        "area": [1.5, np.nan],
        "number": [1, 4_000_000_000],
        "orbit": pd.array([7, None], "Int64"),
        "time": [pd.Timestamp("2022-05-01T10:50:00", tz="UTC"), pd.NaT],
    }
    return gpd.GeoDataFrame(rows | changed, geometry=shapely.box([3, 4], 50, [3.5, 4.5], 51), crs="OGC:CRS84")


def test_a_file_has_the_stated_types_says_what_they_mean_and_gives_the_rows_back() -> None:
    data = encode_table("fields-2022", field_rows(), FIELDS)
    schema = pq.read_schema(io.BytesIO(data))
    expected = table_schema(FIELDS)
    assert schema.equals(expected)
    assert schema.field("area").metadata == {b"description": b"of it", b"unit": b"ha"}
    assert not schema.field("name").nullable
    read = decode_table([data])
    rows = field_rows()
    assert list(read) == [column.name for column in FIELDS]
    assert [list(crops) for crops in read["crops"]] == rows["crops"].tolist()
    for name in ("name", "area", "number", "orbit", "time"):
        pd.testing.assert_series_equal(read[name], rows[name], check_dtype=name == "orbit")
    assert (read.geometry == rows.geometry).all()
    assert read.crs == rows.crs
    # GeoParquet with a box of each row: some ground can be read without the others.
    assert gpd.read_parquet(io.BytesIO(data), bbox=(4.2, 50, 4.3, 50.5))["name"].tolist() == ["b"]


def test_the_same_rows_give_the_same_bytes_however_they_were_put_together() -> None:
    rows = field_rows()
    mixed = rows[["geometry", "time", "number", "name", "orbit", "crops", "area"]].astype({"number": "int64"})
    assert encode_table("fields", mixed, FIELDS) == encode_table("fields", rows.astype({"number": "uint32"}), FIELDS)


def test_a_table_without_rows_has_its_types_all_the_same() -> None:
    data = encode_table("fields", field_rows()[:0], FIELDS)
    assert pq.read_schema(io.BytesIO(data)).equals(table_schema(FIELDS))
    assert decode_table([data]).empty


def test_long_tables_are_written_in_parts() -> None:
    rows = pd.concat([field_rows()] * (ROWS_AT_ONCE // 2 + 1), ignore_index=True)
    data = encode_table("fields", rows, FIELDS)
    assert pq.ParquetFile(io.BytesIO(data)).num_row_groups == 2
    assert decode_table([data])["name"].tolist() == ["a", "b"] * (ROWS_AT_ONCE // 2 + 1)


@pytest.mark.parametrize(
    ("changed", "expected"),
    [
        ({"number": [1, -2]}, "fields-2022, row 1, column number: expected uint32, got -2"),
        ({"number": [1.5, 2]}, "fields-2022, row 0, column number: expected uint32, got 1.5"),
        ({"area": [1.0, "large"]}, "fields-2022, row 1, column area: expected double, got 'large'"),
        ({"crops": [["BTH"], [3]]}, r"fields-2022, row 1, column crops: expected list<.*string>, got \[3\]"),
        ({"name": ["a", None]}, "fields-2022, row 1, column name: has no value, expected string"),
        ({"mine": [1, 2]}, "fields-2022: the columns mine are not declared"),
    ],
)
def test_rows_that_do_not_fit_are_an_error_that_names_them(changed: dict[str, list[Any]], expected: str) -> None:
    with pytest.raises(StoreError, match=expected):
        encode_table("fields-2022", field_rows(**changed), FIELDS)
