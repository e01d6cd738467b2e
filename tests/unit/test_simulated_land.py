"""The land of a synthetic region: a coverage without gaps in its borders, plausible, alike where it is near."""

from __future__ import annotations

import geopandas as gpd
import numpy as np
import pandas as pd
import pytest
import shapely
from numpy.typing import NDArray

from h2crop_data.simulate.land.field_pattern import LARGEST
from h2crop_data.simulate.land.objects import (
    LAND_FRAME,
    LAND_SQUARE,
    OBJECT_KINDS,
    REACH,
    land_of_square,
    squares_of_bounds,
)
from h2crop_data.simulate.land.regional import CROP_REGIONS, Regional
from h2crop_data.simulate.land.rotation import crop_of, growth_of_code

#: They share what takes seconds to make.
pytestmark = pytest.mark.slow

SEED = 5
CORNER = (128, 1400)


def land_of_bounds(seed: int, bounds: tuple[float, float, float, float]) -> gpd.GeoDataFrame:
    """All objects that meet bounds, whole, square by square."""
    window = shapely.box(*bounds)
    parts = []
    for column, row in squares_of_bounds(bounds):
        land = land_of_square(seed, column, row)
        parts.append(land[shapely.intersects(land.geometry.to_numpy(), window)])
    return gpd.GeoDataFrame(pd.concat(parts, ignore_index=True))


def bytes_of(land: gpd.GeoDataFrame) -> bytes:
    """Everything a land square holds."""
    table = pd.DataFrame(land.drop(columns="geometry"))
    return table.to_csv(float_format="%.17g").encode() + b"".join(shapely.to_wkb(land.geometry.to_numpy()))


def far_squares() -> list[tuple[int, int]]:
    return [(CORNER[0] + 2 * i, CORNER[1] + 2 * j) for i in range(5) for j in range(5)]


@pytest.fixture(scope="module")
def region() -> gpd.GeoDataFrame:
    """25 land squares, every second one of 38 x 38 km."""
    parts = [land_of_square(SEED, *square).assign(square=n) for n, square in enumerate(far_squares())]
    return gpd.GeoDataFrame(pd.concat(parts, ignore_index=True))


@pytest.fixture(scope="module")
def fields(region: gpd.GeoDataFrame) -> gpd.GeoDataFrame:
    return region[region["kind"] == "field"].reset_index(drop=True)


@pytest.fixture(scope="module")
def square(region: gpd.GeoDataFrame) -> gpd.GeoDataFrame:
    return region[region["square"] == 0].reset_index(drop=True)


def test_objects_are_valid_polygons_of_known_kinds(region: gpd.GeoDataFrame) -> None:
    assert tuple(land_of_square(SEED, *CORNER).columns) == LAND_FRAME
    assert set(region["kind"]) == set(OBJECT_KINDS)
    assert region.geometry.is_valid.all()
    assert (region.geometry.geom_type == "Polygon").all()
    assert shapely.contains_xy(region.geometry.to_numpy(), region["x"], region["y"]).all()
    np.testing.assert_allclose(region["area_ha"], region.geometry.area / 1e4)
    assert region["area_ha"].min() > 0


def test_every_object_has_a_key_of_its_own(region: gpd.GeoDataFrame) -> None:
    assert region["key"].dtype == np.uint64
    assert region["key"].is_unique


def test_objects_do_not_overlap(region: gpd.GeoDataFrame) -> None:
    for _, land in region.groupby("square"):
        together = shapely.area(shapely.union_all(land.geometry.to_numpy()))
        assert land.geometry.area.sum() == pytest.approx(together, abs=1e-6)


@pytest.mark.slow
def test_neighbours_share_their_borders_corner_by_corner(region: gpd.GeoDataFrame) -> None:
    for _, land in region.groupby("square"):
        assert shapely.coverage_is_valid(land.geometry.to_numpy())


def test_fields_have_neighbours(square: gpd.GeoDataFrame) -> None:
    geometry = square.geometry.to_numpy()
    first, second = shapely.STRtree(geometry).query(geometry, predicate="touches")
    shared = shapely.length(shapely.intersection(shapely.boundary(geometry[first]), shapely.boundary(geometry[second])))
    assert np.bincount(first, weights=shared > 1, minlength=len(square)).mean() > 2


def test_holes_of_fields_are_objects_of_their_own(region: gpd.GeoDataFrame) -> None:
    fields = region[(region["kind"] == "field") & (shapely.get_num_interior_rings(region.geometry) > 0)]
    assert len(fields) > 20
    of_object = shapely.to_wkb(shapely.normalize(region.geometry.to_numpy()))
    rings = [ring for polygon in fields.geometry for ring in polygon.interiors]
    holes = shapely.to_wkb(shapely.normalize(shapely.polygons(rings)))
    assert np.isin(holes, of_object).mean() > 0.9
    assert set(region.loc[np.isin(of_object, holes), "kind"]) == {"wood", "water"}


def test_fields_have_the_sizes_of_french_ones(region: gpd.GeoDataFrame, fields: gpd.GeoDataFrame) -> None:
    area = fields["area_ha"]
    assert 0.8 < area.median() < 4
    assert (area < 0.1).sum() > 20
    assert (area > 10).sum() > 20
    assert area.max() <= LARGEST
    medians = fields.groupby("square")["area_ha"].median()
    assert medians.max() > 3 * medians.min()


def test_some_regions_are_of_narrow_strips_and_some_of_large_fields() -> None:
    across = np.arange(0, 60_000, 1500.0)
    x, y = (grid.ravel() for grid in np.meshgrid(5e5 + across, 5.4e6 + across))
    regional = Regional(SEED)
    strips = np.flatnonzero(regional.strips(x, y) & (regional.woodiness(x, y) < -0.8))
    large = np.flatnonzero((regional.field_size(x, y) > 15) & (regional.woodiness(x, y) < -0.8))
    assert 0.01 < len(strips) / len(x) < 0.3
    widths, sizes = [], []
    for place in (strips[0], large[0]):
        bounds = (x[place] - 500, y[place] - 500, x[place] + 500, y[place] + 500)
        land = land_of_bounds(SEED, bounds)
        found = land[land["kind"] == "field"]
        envelope = shapely.get_coordinates(shapely.oriented_envelope(found.geometry.to_numpy())).reshape(-1, 5, 2)
        sides = np.linalg.norm(np.diff(envelope, axis=1), axis=2)
        widths.append(np.median(sides.min(axis=1)))
        sizes.append(found["area_ha"].median())
    assert 12 < widths[0] < 60
    assert sizes[1] > 8


def test_shares_of_ground_are_those_of_farmland(region: gpd.GeoDataFrame) -> None:
    ground = len(far_squares()) * LAND_SQUARE**2 / 1e4
    share = region.groupby("kind")["area_ha"].sum() / ground
    assert 0.55 < share["field"] < 0.9
    assert 0.05 < share["wood"] < 0.4
    assert 0.001 < share["water"] < 0.05
    assert 0.003 < share["village"] < 0.06


def test_roads_are_between_blocks(square: gpd.GeoDataFrame) -> None:
    middle = shapely.box(*(np.array([*CORNER, CORNER[0] + 1, CORNER[1] + 1]) * LAND_SQUARE)).buffer(-REACH)
    free = shapely.difference(middle, shapely.union_all(square.geometry.to_numpy()))
    assert 0.004 < free.area / middle.area < 0.06
    assert shapely.area(shapely.buffer(free, -6.5)) < 0.05 * free.area


def test_neighbouring_squares_do_not_overlap_and_leave_only_roads_between() -> None:
    west, south = np.array(CORNER) * LAND_SQUARE
    parts = [land_of_square(SEED, CORNER[0] + i, CORNER[1] + j) for i in (-1, 0) for j in (-1, 0)]
    union = [shapely.union_all(part.geometry.to_numpy()) for part in parts]
    for i, first in enumerate(union):
        for second in union[i + 1 :]:
            assert shapely.area(shapely.intersection(first, second)) == 0
    around = shapely.box(west - 1500, south - 1500, west + 1500, south + 1500)
    free = shapely.difference(around, shapely.union_all(union))
    assert 0 < free.area < 0.05 * around.area


def test_a_square_is_the_same_whatever_was_made_before() -> None:
    first = bytes_of(land_of_square(SEED, *CORNER))
    land_of_square(SEED, CORNER[0] + 3, CORNER[1] - 2)
    assert bytes_of(land_of_square(SEED, *CORNER)) == first
    assert bytes_of(land_of_square(SEED + 1, *CORNER)) != first
    assert bytes_of(land_of_square(SEED, CORNER[0] + 1, CORNER[1])) != first


def test_bounds_get_all_land_that_meets_them_and_no_other() -> None:
    west, south = CORNER[0] * LAND_SQUARE - 400, CORNER[1] * LAND_SQUARE - 400
    bounds = (west, south, west + 800, south + 800)
    land = land_of_bounds(SEED, bounds)
    window = shapely.box(*bounds)
    assert shapely.intersects(land.geometry.to_numpy(), window).all()
    wide = [land_of_square(SEED, CORNER[0] + i, CORNER[1] + j) for i in (-2, -1, 0, 1) for j in (-2, -1, 0, 1)]
    expected = pd.concat([part[shapely.intersects(part.geometry.to_numpy(), window)] for part in wide])
    assert set(land["key"]) == set(expected["key"])
    assert len(list(squares_of_bounds(bounds))) == 4


def test_land_lies_within_reach_of_its_square(square: gpd.GeoDataFrame) -> None:
    west, south, east, north = square.total_bounds
    assert west > CORNER[0] * LAND_SQUARE - REACH
    assert south > CORNER[1] * LAND_SQUARE - REACH
    assert east < (CORNER[0] + 1) * LAND_SQUARE + REACH
    assert north < (CORNER[1] + 1) * LAND_SQUARE + REACH


def test_attributes_have_their_ranges(region: gpd.GeoDataFrame, fields: gpd.GeoDataFrame) -> None:
    assert region["soil"].between(0, 1).all()
    assert region["soil"].std() > 0.15
    assert region["variant"].between(0, 1).all()
    assert region["variant"].mean() == pytest.approx(0.5, abs=0.03)
    assert fields["shift_days"].std() == pytest.approx(6, abs=2)
    assert fields["vigour"].mean() == pytest.approx(1, abs=0.1)
    assert fields["vigour"].std() == pytest.approx(0.12, abs=0.03)
    assert set(region["crop_region"]) <= set(range(len(CROP_REGIONS)))
    assert region["crop_region"].nunique() >= 3


def told_by_neighbours(fields: gpd.GeoDataFrame, crops: NDArray[np.int64], in_test: NDArray[np.bool_]) -> float:
    """Share of test fields whose crop is the most frequent one of the 15 nearest training fields."""
    place = fields[["x", "y"]].to_numpy()
    right = []
    for part in np.array_split(np.flatnonzero(in_test), 40):
        distance = np.hypot(*(place[part, None] - place[None, ~in_test]).transpose(2, 0, 1))
        nearest = crops[~in_test][np.argpartition(distance, 15, axis=1)[:, :15]]
        votes = np.apply_along_axis(np.bincount, 1, nearest, minlength=crops.max() + 1)
        right.append(votes.argmax(axis=1) == crops[part])
    return float(np.concatenate(right).mean())


def test_near_fields_are_more_alike_than_far_ones(fields: gpd.GeoDataFrame) -> None:
    chance = np.random.default_rng(0)
    points = shapely.points(fields["x"], fields["y"])
    first, second = shapely.STRtree(points).query(points, predicate="dwithin", distance=150)
    near = first != second
    first, second = first[near], second[near]
    other = chance.permutation(len(fields))[second]
    for name in ("soil", "shift_days", "crop_region"):
        value = fields[name].to_numpy(float)
        apart = np.abs(value[first] - value[second]).mean()
        assert apart < 0.8 * np.abs(value[first] - value[other]).mean(), name


def test_a_random_split_leaks_what_a_split_by_ground_does_not(fields: gpd.GeoDataFrame) -> None:
    growth = growth_of_code()
    _, crops = np.unique([growth[code] for code in crop_of(SEED, fields, 2022).tolist()], return_inverse=True)
    blocks = np.floor(fields[["x", "y"]].to_numpy() / 10_000).astype(int)
    by_ground = (blocks.sum(axis=1) % 2).astype(bool)
    at_random = np.random.default_rng(1).random(len(fields)) < 0.5
    told = {name: told_by_neighbours(fields, crops, test) for name, test in (("g", by_ground), ("r", at_random))}
    assert told["r"] > told["g"] + 0.03
