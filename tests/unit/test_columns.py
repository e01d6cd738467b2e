"""The columns of the index: stated once, and what stores, docs and checks have is what is stated."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from script_modules import CHECKOUT, script_module

from h2crop_data.constants import SENTINEL2_BANDS
from h2crop_data.cube.columns import (
    GEOMETRY,
    PARCELS,
    SCENES,
    SQUARES,
    Column,
    in_declared_order,
    with_nullable_integers,
)
from h2crop_data.cube.schema import ArraySpec
from h2crop_data.datasheet.sheet import axes
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
        (("sample", "month", "s2_band", "y", "x"), (12, 10, 192, 192), "12 months, 10 bands, 192 x 192 pixels of 10 m"),
        (("sample", "y30", "x30"), (64, 64), "64 x 64 pixels of 30 m"),
        (("sample", "day"), (365,), "365 days"),
        (("sample", "variable", "day"), (4, 365), "4 variables, 365 days"),
        (("sample", "y60", "x60"), (32, 32), "32 y60s, 32 x60s"),
    ],
)
def test_axes_in_words(dims: tuple[str, ...], shape: tuple[int, ...], told: str) -> None:
    assert axes(ArraySpec("a", "g", dims, shape, (1, *shape), np.dtype("int16"), 0)) == told
