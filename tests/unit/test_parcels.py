"""Declared parcels: what is read from files, which pixels they hold, and which of them a plan pins."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import geopandas as gpd
import numpy as np
import pandas as pd
import pyogrio
import pyproj
import pytest
import shapely
import shapely.affinity
from hypothesis import given, settings
from hypothesis import strategies as st
from odc.geo.geobox import GeoBox
from parcel_reading import NO_FAULT, read_parcels
from plain_splits import plain_split
from shapely.geometry.base import BaseGeometry

from h2crop_data.crops.taxonomy import Taxonomy
from h2crop_data.errors import ParcelError, RecipeError
from h2crop_data.grid import LONLAT, SPLIT_CRS, Cell, cells_of_area, geobox
from h2crop_data.parcels.rasterize import covered, parcel_numbers, rasterize_ids, tier_labels
from h2crop_data.recipe.model import Recipe, Split, parse_recipe
from h2crop_data.sources.parcels.assemble import label_block
from h2crop_data.sources.parcels.declarations import (
    CellParcels,
    Declarations,
    Declared,
    declarations_of,
    no_declarations,
    split_of_parcels,
)
from h2crop_data.sources.parcels.files import season_files
from h2crop_data.sources.source import BlockGround
from h2crop_data.sources.timing import Stopwatch

LAMBERT = "EPSG:2154"
#: A field of one hectare in Lambert-93.
FIELD = shapely.box(700_000, 6_600_000, 700_100, 6_600_100)
HECTARE = shapely.box(0, 0, 100, 100)
BOW_TIE = shapely.Polygon([(0, 0), (100, 100), (100, 0), (0, 100)])
FORMATS = ["gpkg", "geojson", "shp"]


def at(x: float, y: float, shape: BaseGeometry = HECTARE) -> BaseGeometry:
    """A shape (by default a hectare) so many metres from the field."""
    return shapely.affinity.translate(shape, 700_000 + x, 6_600_000 + y)


def write(path: Path, geometry: list[BaseGeometry | None], crs: str | None = LAMBERT, **fields: list[Any]) -> Path:
    """A vector file with a field `code`, A, B, C ..., unless other fields are given."""
    fields = fields or {"code": [chr(ord("A") + i) for i in range(len(geometry))]}
    pyogrio.write_dataframe(gpd.GeoDataFrame(fields, geometry=geometry, crs=crs), path)
    return path


def back(parcels: gpd.GeoDataFrame, crs: str = LAMBERT) -> list[BaseGeometry]:
    """The geometries of parcels in a CRS of metres."""
    return list(parcels.to_crs(crs).geometry)


# Reading


@pytest.mark.parametrize("ending", FORMATS)
def test_parcels_come_in_longitude_and_latitude_in_the_order_of_the_file(tmp_path: Path, ending: str) -> None:
    # GeoJSON is always in longitude and latitude.
    shapes = [at(0, 0), at(300, 0), at(600, 0)]
    crs = LONLAT if ending == "geojson" else LAMBERT
    written = list(gpd.GeoSeries(shapes, crs=LAMBERT).to_crs(crs))
    parcels, counts = read_parcels(write(tmp_path / f"parcels.{ending}", written, crs), "code")
    assert parcels.crs == LONLAT
    assert list(parcels["code"]) == ["A", "B", "C"]
    assert list(parcels["fid"]) == sorted(set(parcels["fid"]))
    assert all(shapely.hausdorff_distance(a, b) < 1e-3 for a, b in zip(back(parcels), shapes, strict=True))
    assert 2.9 < parcels.total_bounds[0] < 3.1
    assert 46.4 < parcels.total_bounds[1] < 46.6
    assert counts == {"read": 3, "parcels": 3, **NO_FAULT}


def test_broken_geometry_is_mended_or_dropped_and_counted(tmp_path: Path) -> None:
    lines = shapely.LineString([(700_000, 6_600_000), (700_100, 6_600_100)])
    shapes = [
        at(0, 0),
        at(200, 0, BOW_TIE),
        None,
        shapely.force_3d(at(400, 0), 120.0),
        shapely.normalize(at(0, 0).reverse()),  # the ground of the first once more, its ring the other way round
        shapely.GeometryCollection([at(600, 0), lines]),
        lines,
        shapely.MultiPolygon([at(800, 0), at(1000, 0)]),
        shapely.Polygon(),
        shapely.Polygon([(700_000, 6_600_000), (700_100, 6_600_000), (700_000, 6_600_000)]),  # a ring without area
    ]
    codes = [*"ABCDAFGHIJ"]
    parcels, counts = read_parcels(write(tmp_path / "parcels.gpkg", shapes, code=codes), "code")
    assert list(parcels["code"]) == ["A", "B", "D", "F", "H"]
    assert list(parcels.index) == [0, 1, 2, 3, 4]
    assert parcels.geometry.is_valid.all()
    assert set(parcels.geom_type) <= {"Polygon", "MultiPolygon"}
    assert not parcels.has_z.any()
    areas = [round(shape.area) for shape in back(parcels)]
    assert areas == [10_000, 5_000, 10_000, 10_000, 20_000]
    assert counts["read"] == 10
    assert counts["null"] == 1
    assert counts["three_dimensional"] == 1
    assert counts["invalid"] == 2
    assert counts["empty"] == 3
    assert counts["duplicate"] == 1
    assert counts["parcels"] == 5
    assert counts["contradictory"] == 0


def test_a_bow_tie_keeps_its_two_triangles(tmp_path: Path) -> None:
    parcels, _ = read_parcels(write(tmp_path / "parcels.gpkg", [at(0, 0, BOW_TIE)]), "code")
    (mended,) = back(parcels)
    left, right = ([(0, 0), (0, 100), (50, 50)], [(100, 0), (100, 100), (50, 50)])
    triangles = shapely.MultiPolygon([at(0, 0, shapely.Polygon(left)), at(0, 0, shapely.Polygon(right))])
    assert shapely.symmetric_difference(mended, triangles).area < 0.01


def test_parts_of_a_parcel_that_overlap_are_one_ground(tmp_path: Path) -> None:
    parcel = shapely.MultiPolygon([at(0, 0), at(50, 0)])
    assert not parcel.is_valid
    parcels, counts = read_parcels(write(tmp_path / "parcels.gpkg", [parcel]), "code")
    assert counts["invalid"] == 1
    (mended,) = back(parcels)
    assert shapely.symmetric_difference(mended, at(0, 0, shapely.box(0, 0, 150, 100))).area < 0.1


def test_a_hole_beyond_the_edge_of_a_parcel_is_no_part_of_it(tmp_path: Path) -> None:
    parcel = shapely.Polygon(at(0, 0).exterior.coords, [at(50, 20, shapely.box(0, 0, 100, 60)).exterior.coords])
    parcels, _ = read_parcels(write(tmp_path / "parcels.gpkg", [parcel]), "code")
    (mended,) = back(parcels)
    expected = at(0, 0).difference(at(50, 20, shapely.box(0, 0, 100, 60)))
    assert shapely.symmetric_difference(mended, expected).area < 0.1


def test_parcels_are_valid_in_longitude_and_latitude_too(tmp_path: Path) -> None:
    # A hole that touches the edge from inside is valid; the rounding of a reprojection lets it cross the edge.
    random = np.random.default_rng(7)
    shapes = []
    for _ in range(40):
        shell = at(*random.uniform(-90_000, 90_000, 2), shapely.box(0, 0, 1000, 1000))
        west, south, east, north = shell.bounds
        hole = [(east, south + random.uniform(200, 800)), (west + 500, south + 100), (west + 500, north - 100)]
        shapes.append(shapely.Polygon(shell.exterior.coords, [hole]))
    frame = gpd.GeoSeries(shapes, crs=LAMBERT)
    assert frame.is_valid.all()
    assert not frame.to_crs(LONLAT).is_valid.all()
    codes = ["X"] * len(shapes)
    parcels, counts = read_parcels(write(tmp_path / "parcels.gpkg", shapes, code=codes), "code")
    assert parcels.geometry.is_valid.all()
    assert counts["invalid"] == 0
    np.testing.assert_allclose([shape.area for shape in back(parcels)], frame.area, rtol=1e-6)


@pytest.mark.slow
@given(st.lists(st.tuples(st.integers(0, 20), st.integers(0, 20)), min_size=3, max_size=8))
@settings(deadline=None, max_examples=40)
def test_any_ring_becomes_valid_polygons_or_nothing(tmp_path_factory: pytest.TempPathFactory, ring: list[Any]) -> None:
    shape = at(0, 0, shapely.Polygon([*ring, ring[0]]))
    parcels, counts = read_parcels(write(tmp_path_factory.mktemp("ring") / "parcels.gpkg", [shape]), "code")
    assert counts["read"] == 1 == len(parcels) + counts["empty"]
    assert parcels.geometry.is_valid.all()
    assert set(parcels.geom_type) <= {"Polygon", "MultiPolygon"}
    if shape.is_valid:
        assert back(parcels)[0].area == pytest.approx(shape.area, abs=1e-3)
    for mended in back(parcels):
        assert mended.area > 0
        assert shape.envelope.buffer(0.01).covers(mended)


def test_text_numbers_and_ids_are_cleaned(tmp_path: Path) -> None:
    shapes = [at(200 * i, 0) for i in range(4)]
    path = write(tmp_path / "parcels.gpkg", shapes, CODE=[105.0, 7.0, None, 10.5], ID=["0012", " b ", None, "d"])
    parcels, _ = read_parcels(path, "CODE", id_field="ID")
    assert list(parcels["code"]) == ["105", "7", "", "10.5"]
    assert list(parcels["parcel_id"]) == ["0012", "b", "", "d"]
    unnamed, _ = read_parcels(path, "ID")
    assert list(unnamed["code"]) == ["0012", "b", "", "d"]
    assert list(unnamed["parcel_id"]) == [str(fid) for fid in unnamed["fid"]]


def test_names_in_latin_1_are_read(tmp_path: Path) -> None:
    path = tmp_path / "parcels.shp"
    frame = gpd.GeoDataFrame({"code": ["blé", "maïs"]}, geometry=[at(0, 0), at(200, 0)], crs=LAMBERT)
    pyogrio.write_dataframe(frame, path, encoding="ISO-8859-1")
    assert b"bl\xe9" in (tmp_path / "parcels.dbf").read_bytes()
    parcels, _ = read_parcels(path, "code")
    assert list(parcels["code"]) == ["blé", "maïs"]


def test_a_file_without_crs_needs_one_from_the_recipe(tmp_path: Path) -> None:
    path = write(tmp_path / "parcels.shp", [FIELD])
    stated, _ = read_parcels(path, "code")
    (tmp_path / "parcels.prj").unlink()
    with pytest.raises(ParcelError, match="has no CRS") as raised:
        read_parcels(path, "code")
    assert str(path) in str(raised.value)
    given_crs, _ = read_parcels(path, "code", crs=LAMBERT)
    assert given_crs.geometry.equals(stated.geometry)
    with pytest.raises(ParcelError, match="invalid CRS 'EPSG:1'"):
        read_parcels(path, "code", crs="EPSG:1")


def test_the_crs_of_the_recipe_wins(tmp_path: Path) -> None:
    wrong = write(tmp_path / "wrong.gpkg", [FIELD], "EPSG:32631")
    right = write(tmp_path / "right.gpkg", [FIELD], LAMBERT)
    parcels, _ = read_parcels(wrong, "code", crs=LAMBERT)
    expected, _ = read_parcels(right, "code")
    assert parcels.geometry.equals(expected.geometry)
    # The area looks for parcels where they are, not where the file says.
    near, _ = read_parcels(wrong, "code", crs=LAMBERT, area=expected.geometry[0])
    assert len(near) == 1


def test_a_missing_field_names_those_the_file_has(tmp_path: Path) -> None:
    path = write(tmp_path / "parcels.gpkg", [FIELD], CODE_CULTU=["BTH"], ID_PARCEL=["1"])
    for arguments in ({"code_field": "CODE"}, {"code_field": "CODE_CULTU", "id_field": "ID"}):
        with pytest.raises(ParcelError, match=r"no field '(CODE|ID)'; it has CODE_CULTU, ID_PARCEL") as raised:
            read_parcels(path, **arguments)
        assert str(path) in str(raised.value)


def test_a_file_that_is_not_there_or_no_vector_file_is_refused(tmp_path: Path) -> None:
    (tmp_path / "text.gpkg").write_text("no geopackage")
    for name in ("text.gpkg", "missing.gpkg"):
        with pytest.raises(ParcelError, match=f"cannot read parcels from .*{name}"):
            read_parcels(tmp_path / name, "code")
    (tmp_path / "table.csv").write_text("code\nA\n")
    with pytest.raises(ParcelError, match=r"table\.csv has no layer with geometry"):
        read_parcels(tmp_path / "table.csv", "code")


def test_one_of_several_layers_must_be_named(tmp_path: Path) -> None:
    path = tmp_path / "parcels.gpkg"
    for layer, code in (("fields", "A"), ("vineyards", "B")):
        frame = gpd.GeoDataFrame({"code": [code]}, geometry=[FIELD], crs=LAMBERT)
        pyogrio.write_dataframe(frame, path, layer=layer)
    with pytest.raises(ParcelError, match=r"2 layers .*\(`layer:`\): fields, vineyards"):
        read_parcels(path, "code")
    parcels, _ = read_parcels(path, "code", layer="vineyards")
    assert list(parcels["code"]) == ["B"]
    with pytest.raises(ParcelError, match="orchards"):
        read_parcels(path, "code", layer="orchards")


def test_a_table_of_styles_beside_the_parcels_does_not_matter(tmp_path: Path) -> None:
    path = write(tmp_path / "parcels.gpkg", [FIELD])
    pyogrio.write_dataframe(pd.DataFrame({"style": ["green"]}), path, layer="layer_styles")
    parcels, _ = read_parcels(path, "code")
    assert list(parcels["code"]) == ["A"]


@pytest.mark.parametrize("ending", FORMATS)
def test_only_parcels_near_the_area_are_read_and_keep_their_numbers(tmp_path: Path, ending: str) -> None:
    shapes = [at(2000 * i, 0) for i in range(6)]
    crs = LONLAT if ending == "geojson" else LAMBERT
    path = write(tmp_path / f"parcels.{ending}", list(gpd.GeoSeries(shapes, crs=LAMBERT).to_crs(crs)), crs)
    every, _ = read_parcels(path, "code")
    area = shapely.union(every.geometry[2], every.geometry[3])
    near, counts = read_parcels(path, "code", area=area)
    assert counts["read"] == 2
    assert list(near["code"]) == ["C", "D"]
    assert list(near["fid"]) == list(every["fid"][2:4])
    none, counts = read_parcels(path, "code", area=shapely.box(-50, 0, -49, 1))
    assert none.empty
    assert none.crs == LONLAT
    assert counts["read"] == 0
    assert list(none.columns) == list(every.columns)


# Pixels

CELL = Cell(32631, 1920, 261, 2700)


def turning_rings(count: int) -> st.SearchStrategy[BaseGeometry]:
    """Polygons around places of a box of 200 m, with corners at irrational places: no centre lies on an edge."""
    corner = st.floats(-0.3, 1.3).map(lambda share: share * 200 + 1e-4 * np.pi)
    return (
        st.lists(st.tuples(corner, corner), min_size=3, max_size=count)
        .map(lambda corners: shapely.make_valid(shapely.Polygon(corners), method="structure", keep_collapsed=False))
        .filter(lambda shape: shape.geom_type in ("Polygon", "MultiPolygon") and shape.area > 1)
    )


def centres(box: GeoBox) -> tuple[np.ndarray, np.ndarray]:
    """Coordinates of the pixels' centres, computed by hand."""
    height, width = box.shape
    x0, y0, step = box.affine.c, box.affine.f, box.affine.a
    x, y = np.meshgrid(x0 + step * (np.arange(width) + 0.5), y0 - step * (np.arange(height) + 0.5))
    return x, y


@given(st.lists(turning_rings(7), min_size=1, max_size=5), st.sampled_from([10, 30]), st.randoms(use_true_random=False))
@settings(deadline=None, max_examples=60)
def test_a_pixel_belongs_to_the_smallest_parcel_its_centre_lies_in(
    shapes: list[BaseGeometry], resolution: int, shuffler: Any
) -> None:
    box = geobox((0, 0, 210, 210), 32631, resolution)
    shuffler.shuffle(shapes)
    ids = rasterize_ids(np.array(shapes, object), np.arange(1, len(shapes) + 1), box)
    assert ids.shape == box.shape
    assert ids.dtype == np.int32
    x, y = centres(box)
    for row, column in np.ndindex(*box.shape):
        centre = shapely.Point(x[row, column], y[row, column])
        if any(shape.boundary.distance(centre) < 1e-6 for shape in shapes):
            continue
        holders = [(shape.area, i + 1) for i, shape in enumerate(shapes) if shape.contains(centre)]
        if len({area for area, _ in holders}) == len(holders):
            assert ids[row, column] == (min(holders)[1] if holders else 0)


@given(st.lists(turning_rings(6), min_size=2, max_size=5), st.randoms(use_true_random=False))
@settings(deadline=None, max_examples=40)
def test_the_order_of_the_parcels_changes_no_pixel(shapes: list[BaseGeometry], shuffler: Any) -> None:
    box = geobox((0, 0, 200, 200), 32631, 10)
    shapes = [*shapes, shapes[0]]  # identical areas too
    numbers = np.arange(101, 101 + len(shapes))
    first = parcel_numbers(rasterize_ids(np.array(shapes, object), numbers, box), numbers)
    order = list(range(len(shapes)))
    shuffler.shuffle(order)
    shuffled = np.array([shapes[i] for i in order], object)
    np.testing.assert_array_equal(parcel_numbers(rasterize_ids(shuffled, numbers[order], box), numbers[order]), first)
    assert (numbers[0] in first) + (numbers[-1] in first) <= 1  # twins: one of them has all pixels


def test_the_smaller_of_two_parcels_has_the_pixels_both_hold() -> None:
    box = geobox((0, 0, 100, 100), 32631, 10)
    large, small = shapely.box(0, 0, 100, 100), shapely.box(20, 20, 50, 60)
    for shapes, expected in (([large, small], 2), ([small, large], 1)):
        ids = rasterize_ids(np.array(shapes, object), np.array([1, 2]), box)
        assert (ids == expected).sum() == 12
        assert (ids == 3 - expected).sum() == 88
        assert (ids[4:8, 2:5] == expected).all()  # y 20..60 is rows 4..7 from the north


def test_parcels_that_share_an_edge_through_centres_leave_no_pixel_between_them() -> None:
    box = geobox((0, 0, 100, 100), 32631, 10)
    parts = [shapely.box(0, 0, 45, 100), shapely.box(45, 0, 100, 55), shapely.box(45, 55, 100, 100)]
    ids = rasterize_ids(np.array(parts, object), np.array([1, 2, 3]), box)
    assert (ids[:, :4] == 1).all()
    assert (ids[5:, 5:] == 2).all()
    assert (ids[:4, 5:] == 3).all()
    assert np.isin(ids[:, 4], (1, 2, 3)).all()
    assert np.isin(ids[4, 5:], (2, 3)).all()


def test_holes_and_parts_of_a_parcel_are_as_declared() -> None:
    box = geobox((0, 0, 100, 100), 32631, 10)
    ring = shapely.box(0, 0, 50, 50).difference(shapely.box(10, 10, 40, 40))
    parcel = shapely.MultiPolygon([ring, shapely.box(80, 80, 100, 100)])
    ids = rasterize_ids(np.array([parcel], object), np.array([9]), box)
    assert ids.sum() == 25 - 9 + 4
    assert (ids[:2, 8:] == 1).all()
    assert ids[7, 2] == 0


def test_without_parcels_no_pixel_is_declared() -> None:
    box = CELL.geobox(10)
    ids = rasterize_ids(np.array([], object), np.array([], np.uint32), box)
    assert ids.shape == (192, 192)
    assert not ids.any()


@given(st.integers(0, 6), st.booleans(), st.integers(0, 2**32 - 1))
@settings(deadline=None, max_examples=30)
def test_labels_and_numbers_are_those_of_each_pixels_parcel(count: int, partly: bool, seed: int) -> None:
    random = np.random.default_rng(seed)
    ids = random.integers(0, count + 1, (5, 7)).astype(np.int32)
    tiers = random.integers(1, 256, (count, 4)).astype(np.uint8)
    numbers = random.choice(2**32 - 1, count, replace=False).astype(np.uint32)
    known = random.random((5, 7)) < 0.5 if partly else None
    labels, parcels = tier_labels(ids, tiers, known), parcel_numbers(ids, numbers)
    assert labels.shape == (4, 5, 7)
    assert labels.dtype == np.uint8
    assert parcels.dtype == np.uint32
    for y, x in np.ndindex(5, 7):
        i = ids[y, x]
        expected = tiers[i - 1].tolist() if i else [0, 0, 0, 0]
        if known is not None and not known[y, x]:
            expected = [255] * 4
        assert labels[:, y, x].tolist() == expected
        assert parcels[y, x] == (numbers[i - 1] if i else 0)


@given(st.lists(turning_rings(6), max_size=3))
@settings(deadline=None, max_examples=40)
def test_a_pixel_is_covered_when_its_centre_lies_in_one_of_the_polygons(shapes: list[BaseGeometry]) -> None:
    box = geobox((0, 0, 200, 200), 32631, 10)
    known = covered([*shapes, shapely.Polygon()], box)
    assert known.dtype == bool
    x, y = centres(box)
    near_an_edge, expected = np.zeros((2, *box.shape), bool)
    # One by one: a union of polygons whose edges nearly coincide can be invalid, and then says nothing.
    for shape in shapes:
        expected |= shapely.contains_xy(shape, x, y)
        near_an_edge |= shapely.distance(shape.boundary, shapely.points(x, y)) < 1e-6
    np.testing.assert_array_equal(known[~near_an_edge], expected[~near_an_edge])


# Splits of parcels

SQUARE = 15_360


def on_split_ground(shape: BaseGeometry) -> BaseGeometry:
    """A shape given in EPSG:3035, in longitude and latitude."""
    transformer = pyproj.Transformer.from_crs(SPLIT_CRS, LONLAT, always_xy=True)
    return shapely.transform(shape, transformer.transform, interleaved=False)


def squares_of_two_splits(split: Split) -> tuple[int, int]:
    """A square whose eastern neighbour is in another split."""
    row = 170
    column = next(c for c in range(240, 300) if split.split_of((c, row)) != split.split_of((c + 1, row)))
    return column, row


def test_a_parcel_is_in_the_split_that_holds_most_of_it() -> None:
    split = Split()
    column, row = squares_of_two_splits(split)
    west, east = split.split_of((column, row)), split.split_of((column + 1, row))
    border, y = (column + 1) * SQUARE, row * SQUARE + 5000
    shapes = [
        shapely.box(border - 300, y, border - 100, y + 200),
        shapely.box(border + 100, y, border + 300, y + 200),
        shapely.box(border - 110, y, border + 90, y + 200),
        shapely.box(border - 90, y, border + 110, y + 200),
        # Most of its length lies to the west, most of its area to the east.
        shapely.union(shapely.box(border - 400, y, border, y + 20), shapely.box(border, y, border + 100, y + 100)),
        # Two parts far from each other.
        shapely.MultiPolygon(
            [shapely.box(border - 900, y, border - 700, y + 100), shapely.box(border + 700, y, border + 900, y + 110)]
        ),
    ]
    placed = split_of_parcels(np.array([on_split_ground(shape) for shape in shapes], object), split)
    assert list(placed) == [west, east, west, east, east, east]


def test_a_parcel_over_many_squares_is_in_the_split_with_the_largest_sum() -> None:
    split = Split()
    columns = range(250, 262)
    shape = shapely.box(250 * SQUARE + 10, 170 * SQUARE + 10, 262 * SQUARE - 10, 170 * SQUARE + 500)
    names = [split.split_of((column, 170)) for column in columns]
    assert len(set(names)) > 1
    expected = max(set(names), key=names.count)
    ground = on_split_ground(shapely.segmentize(shape, 500))
    assert list(split_of_parcels(np.array([ground], object), split)) == [expected]


def test_no_parcels_have_no_splits() -> None:
    assert list(split_of_parcels(np.array([], object), Split())) == []


# Declarations

#: Two groups of cells, some twenty kilometres from each other.
HERE = cells_of_area(shapely.box(3.0, 46.5, 3.05, 46.53), LONLAT, 1920)
THERE = cells_of_area(shapely.box(3.3, 46.5, 3.35, 46.53), LONLAT, 1920)


def in_cell(cell: Cell, x: float, y: float, side: float = 100) -> BaseGeometry:
    """A square parcel so many metres from the lower left corner of a cell, in longitude and latitude."""
    west, south = cell.bounds[:2]
    square = shapely.box(west + x, south + y, west + x + side, south + y + side)
    transformer = pyproj.Transformer.from_crs(cell.crs, LONLAT, always_xy=True)
    return shapely.transform(square, transformer.transform, interleaved=False)


def recipe_in(folder: Path, *sources: dict[str, Any]) -> Recipe:
    """A recipe of parcels alone."""
    return parse_recipe(
        {
            "name": "parcels",
            "area": {"bbox": [3, 46.5, 3.4, 46.6]},
            "seasons": [2022],
            "parcels": {"season": list(sources)},
        },
        folder,
        "recipe",
    )


def source(path: str = "fr_{year}.gpkg", country: str = "fr", **more: Any) -> dict[str, Any]:
    """A source of parcels as it stands in a recipe."""
    return {"path": path, "country": country, "code_field": "code", **more}


def declared(recipe: Recipe, year: int, groups: list[list[Cell]]) -> Declarations:
    """The declarations of a year."""
    assert recipe.parcels is not None
    files = season_files(recipe.parcels, recipe.locate, year)["parcels"]
    return declarations_of(files, groups, recipe.split, Taxonomy.load(), lambda done, total, text: None)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """French and Austrian declarations on the same ground, and some nobody asks for."""
    french = {
        "BTH": in_cell(HERE[0], 100, 100),  # winter wheat
        "QQQQ": in_cell(HERE[0], 400, 100),  # a code no table has
        "BTA": in_cell(HERE[0], 700, 100),  # in the table, without a published class
        "MIS": in_cell(THERE[0], 100, 100),
        "PTR": in_cell(Cell(32631, 1920, 300, 2700), 0, 0),  # far from all cells
    }
    write(tmp_path / "fr_2022.gpkg", list(french.values()), LONLAT, code=list(french), id=[*"vwxyz"])
    write(tmp_path / "at_2022.gpkg", [in_cell(HERE[0], 100, 700), in_cell(THERE[0], 700, 700)], LONLAT, code=[105, 106])
    return tmp_path


def test_parcels_of_two_sources_are_numbered_from_1_whatever_the_order_of_the_groups(folder: Path) -> None:
    recipe = recipe_in(folder, source(id_field="id"), source("at_{year}.gpkg", "at"))
    groups = [HERE, THERE]
    first = declared(recipe, 2022, groups)
    assert list(first.parcels["number"]) == [1, 2, 3, 4, 5, 6]
    assert first.parcels["number"].dtype == np.uint32
    assert list(first.parcels["code"]) == ["BTH", "QQQQ", "BTA", "MIS", "105", "106"]
    assert list(first.parcels["parcel_id"][:4]) == ["v", "w", "x", "y"]
    assert list(first.parcels["country"]) == ["fr"] * 4 + ["at"] * 2
    assert list(first.parcels["hcat3"]) == ["3301010101", "", "3399000000", "3301010600", "3301010600", "3301010600"]
    assert first.parcels.crs == LONLAT
    for other in (
        declared(recipe, 2022, groups[::-1]),
        declared(recipe, 2022, [[cell] for cell in reversed(HERE + THERE)]),
        declared(recipe, 2022, [HERE + THERE]),
    ):
        pd.testing.assert_frame_equal(other.parcels, first.parcels)
        assert other.counts["unmapped"] == 1


def test_a_parcel_in_two_groups_is_one_parcel(tmp_path: Path) -> None:
    west, east = Cell(32631, 1920, 262, 2700), Cell(32631, 1920, 263, 2700)
    write(tmp_path / "fr_2022.gpkg", [in_cell(west, 1870, 100)], LONLAT, code=["BTH"])
    found = declared(recipe_in(tmp_path, source()), 2022, [[west], [east]])
    assert list(found.parcels["number"]) == [1]


def test_only_parcels_that_meet_a_cell_are_pinned(tmp_path: Path) -> None:
    # Two cells corner to corner: the bounds of the group hold two more, which are none of the plan's.
    group = [Cell(32631, 1920, 262, 2700), Cell(32631, 1920, 263, 2701)]
    between = Cell(32631, 1920, 263, 2700)
    write(tmp_path / "fr_2022.gpkg", [in_cell(between, 900, 900), in_cell(group[1], 5, 5)], LONLAT, code=["X", "BTH"])
    found = declared(recipe_in(tmp_path, source()), 2022, [group])
    assert list(found.parcels["code"]) == ["BTH"]
    assert list(found.parcels["number"]) == [1]
    assert found.counts["unmapped"] == 0


def test_codes_without_a_class_are_unknown_not_background_and_codes_without_a_table_are_counted(folder: Path) -> None:
    found = declared(recipe_in(folder, source()), 2022, [HERE])
    tiers = found.parcels.set_index("code")[["tier1", "tier2", "tier3", "tier4"]]
    assert tiers.loc["BTH"].tolist() == list(Taxonomy.load().ids("3301010101"))
    assert 255 not in tiers.loc["BTH"].tolist()
    assert tiers.loc["QQQQ"].tolist() == [255] * 4
    assert tiers.loc["BTA"].tolist() == [255] * 4
    assert found.counts["unmapped"] == 1
    _, ids, known = CellParcels(found, HERE).draw(HERE[0])
    labels = tier_labels(ids, found.parcels[["tier1", "tier2", "tier3", "tier4"]].to_numpy(), known)
    assert (labels[0] == 255).sum() == 2 * 100  # two parcels of 10 x 10 pixels
    assert (labels[0] == tiers.loc["BTH", "tier1"]).sum() == 100
    assert (labels[0] == 0).sum() == 192 * 192 - 300


def test_a_cell_is_drawn_from_its_own_parcels_where_they_lie(folder: Path) -> None:
    found = declared(recipe_in(folder, source()), 2022, [HERE, THERE])
    near = CellParcels(found, HERE)
    inside, ids, known = near.draw(HERE[0])
    assert known is None
    assert list(inside["code"]) == ["BTH", "QQQQ", "BTA"]
    expected = np.zeros((192, 192), np.int32)
    for i, x in enumerate((100, 400, 700)):
        expected[192 - 20 : 192 - 10, x // 10 : x // 10 + 10] = i + 1
    np.testing.assert_array_equal(ids, expected)
    # Three parcels are declared, the crop of one has a class.
    assert near.labelled_share(HERE[0]) == pytest.approx(100 / 192**2)
    assert near.labelled_share(HERE[1]) == 0


def test_a_sample_counts_the_pixels_that_have_a_class(folder: Path) -> None:
    found = declared(recipe_in(folder, source()), 2022, [HERE])
    (of_first,) = set(found.parcels.loc[found.parcels["code"] == "BTH", "split"])
    for split, shares in ((of_first, [100 / 192**2] * 4), ("another", [0.0] * 4)):
        ground = BlockGround(2022, split, [HERE[0]], 1920)
        block = label_block(Declared(found, no_declarations()), ground, Stopwatch())
        # Three parcels of 100 pixels are declared, the crop of one has a class.
        assert block.rows == [{"parcels": 3, "declared_share": 300 / 192**2, "class_share": shares}]


def test_the_split_of_a_parcel_is_that_of_its_ground(folder: Path) -> None:
    recipe = recipe_in(folder, source())
    found = declared(recipe, 2022, [HERE, THERE])
    to_split = pyproj.Transformer.from_crs(LONLAT, SPLIT_CRS, always_xy=True)
    for parcel in found.parcels.itertuples():
        corners = [to_split.transform(x, y) for x, y in shapely.get_coordinates(parcel.geometry)]
        (square,) = {(int(x // SQUARE), int(y // SQUARE)) for x, y in corners}
        assert parcel.split == plain_split(square, SQUARE, recipe.split.shares, recipe.split.seed)


def test_a_year_without_a_source_is_unknown_everywhere(folder: Path) -> None:
    recipe = recipe_in(folder, source(years=[2022]))
    assert len(declared(recipe, 2022, [HERE]).parcels) == 3
    nothing = declared(recipe, 2021, [HERE])
    assert nothing.parcels.empty
    for declarations in (nothing, no_declarations()):
        _, ids, known = CellParcels(declarations, HERE).draw(HERE[0])
        assert known is not None
        labels = tier_labels(ids, declarations.parcels[[f"tier{t}" for t in (1, 2, 3, 4)]].to_numpy(np.uint8), known)
        assert labels.shape == (4, 192, 192)
        assert (labels == 255).all()
        assert not ids.any()


def test_a_year_whose_file_is_missing_is_an_error_not_an_empty_year(folder: Path) -> None:
    with pytest.raises(ParcelError, match=r"fr_2021\.gpkg"):
        declared(recipe_in(folder, source()), 2021, [HERE])
    with pytest.raises(RecipeError, match="NOWHERE is not set"):
        declared(recipe_in(folder, source("${NOWHERE}/fr_{year}.gpkg")), 2022, [HERE])


def test_cells_without_parcels_are_background(folder: Path) -> None:
    shutil.copy(folder / "fr_2022.gpkg", folder / "fr_2020.gpkg")
    far = [Cell(32631, 1920, 280, 2800)]
    found = declared(recipe_in(folder, source()), 2020, [far])
    assert found.parcels.empty
    _, ids, known = CellParcels(found, far).draw(far[0])
    assert known is None
    assert not ids.any()


def test_ground_outside_the_coverage_is_unknown(folder: Path) -> None:
    # The western half of the cell is covered; the coverage is in another CRS and one of its rings is broken.
    cell = HERE[0]
    west, south, _, north = cell.bounds
    half = shapely.box(west - 5000, south - 5000, west + 960, north + 5000)
    bow_tie = shapely.affinity.translate(BOW_TIE, west - 4000, south)
    write(folder / "coverage.gpkg", [half, bow_tie], cell.crs)
    found = declared(recipe_in(folder, source(coverage="coverage.gpkg")), 2022, [HERE])
    _, ids, known = CellParcels(found, [cell]).draw(cell)
    assert known is not None
    assert known[:, :96].all()
    assert not known[:, 96:].any()
    labels = tier_labels(ids, found.parcels[["tier1", "tier2", "tier3", "tier4"]].to_numpy(), known)
    assert (labels[:, :, 96:] == 255).all()
    assert (labels[:, :, :70] != 255).any()


def test_the_edge_of_a_wide_coverage_stays_where_it_is(folder: Path) -> None:
    # A box of 900 km in Lambert-93: its southern edge runs through the cell and is no straight line in degrees.
    cell = Cell(32631, 1920, 320, 2700)
    west, south, _, _ = cell.bounds
    to_lambert = pyproj.Transformer.from_crs(cell.crs, LAMBERT, always_xy=True)
    _, edge = to_lambert.transform(west + 960, south + 960)
    write(folder / "coverage.gpkg", [shapely.box(200_000, edge, 1_100_000, 7_000_000)], LAMBERT)
    found = declared(recipe_in(folder, source(coverage="coverage.gpkg")), 2022, [[cell]])
    _, _, known = CellParcels(found, [cell]).draw(cell)
    assert known is not None
    _, y = to_lambert.transform(*centres(cell.geobox(10)))
    clear = abs(y - edge) > 15
    np.testing.assert_array_equal(known[clear], (y > edge)[clear])


def test_one_source_without_coverage_covers_everything(folder: Path) -> None:
    write(folder / "coverage.gpkg", [in_cell(HERE[0], 0, 0, 960)], LONLAT)
    both = recipe_in(folder, source(coverage="coverage.gpkg"), source("at_{year}.gpkg", "at"))
    assert declared(both, 2022, [HERE]).coverage is None
    twice = recipe_in(
        folder, source(coverage="coverage.gpkg"), source("at_{year}.gpkg", "at", coverage="coverage.gpkg")
    )
    coverage = declared(twice, 2022, [HERE]).coverage
    assert coverage is not None
    assert shapely.symmetric_difference(coverage, in_cell(HERE[0], 0, 0, 960)).area < 1e-12


@pytest.mark.parametrize("kind", ["missing", "no crs"])
def test_a_coverage_that_cannot_be_used_is_named(folder: Path, kind: str) -> None:
    if kind == "no crs":
        write(folder / "coverage.shp", [in_cell(HERE[0], 0, 0, 960)], LONLAT)
        (folder / "coverage.prj").unlink()
    with pytest.raises(ParcelError, match=r"coverage.*coverage\.shp"):
        declared(recipe_in(folder, source(coverage="coverage.shp")), 2022, [HERE])


def test_a_crop_table_of_ones_own_is_found_beside_the_recipe(folder: Path) -> None:
    (folder / "mine.csv").write_text("crop,class\nBTH,3302000000\n")
    table = {"path": "mine.csv", "code_column": "crop", "hcat3_column": "class"}
    found = declared(recipe_in(folder, source(table=table)), 2022, [HERE])
    assert list(found.parcels["hcat3"]) == ["3302000000", "", ""]
    assert found.parcels.loc[0, ["tier1", "tier2", "tier3", "tier4"]].tolist() == [1, 30, 36, 2]
    assert found.counts["unmapped"] == 2
    named = declared(recipe_in(folder, source(table="at")), 2022, [HERE])
    assert named.counts["unmapped"] == 3
