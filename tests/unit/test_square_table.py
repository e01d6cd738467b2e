"""The table of split squares in the index: where each lies, and how many samples it holds."""

from __future__ import annotations

import geopandas as gpd
import pyproj
import pytest
import shapely

from h2crop_data.cube.index import square_table
from h2crop_data.grid import LONLAT, SPLIT_CRS

SIZE = 20_000


def season(*squares: tuple[str, str]) -> gpd.GeoDataFrame:
    """Samples in squares, each with its split."""
    names, splits = zip(*squares, strict=True)
    return gpd.GeoDataFrame({"square": list(names), "split": list(splits)}, geometry=[None] * len(names))


def test_squares_lie_where_their_names_say_with_the_samples_of_the_season() -> None:
    samples = season(("190_150", "val"), ("9_150", "train"), ("190_150", "val"))
    table = square_table(2022, samples, {"split": {"square_size": SIZE}})
    assert table is not None
    assert table[["season", "column", "row", "split", "samples"]].to_numpy().tolist() == [
        [2022, 9, 150, "train", 1],
        [2022, 190, 150, "val", 2],
    ]
    back = pyproj.Transformer.from_crs(LONLAT, SPLIT_CRS, always_xy=True)
    for column, outline in zip((9, 190), table.geometry, strict=True):
        moved = shapely.transform(outline, back.transform, interleaved=False)
        expected = (column * SIZE, 150 * SIZE, (column + 1) * SIZE, 151 * SIZE)
        assert moved.bounds == pytest.approx(expected, abs=0.01)
        assert moved.area == pytest.approx(SIZE**2, rel=1e-6)


def test_without_squares_there_is_no_table() -> None:
    assert square_table(2022, season(("1_2", "val")), {"split": None}) is None
    assert square_table(2022, season(("1_2", "val")).drop(columns="square"), {"split": {"square_size": SIZE}}) is None
