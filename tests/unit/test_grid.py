"""The lattice: one ground has one cell, one split and one place in the order of blocks, whoever asks."""

from __future__ import annotations

import itertools
import math
import random
from functools import lru_cache

import numpy as np
import pyproj
import pytest
import shapely
import shapely.affinity
from hypothesis import assume, example, given, settings
from hypothesis import strategies as st
from plain_splits import plain_split
from shapely.geometry.base import BaseGeometry

from h2crop_data.grid import (
    LONLAT,
    SPLIT_CRS,
    Cell,
    CellRule,
    blocks_of_cells,
    bounds_of,
    cells_of_area,
    geobox,
    hilbert_index,
    split_of_square,
    split_squares,
    squares_around,
    to_crs,
    utm_epsg,
    zone_extent,
)
from h2crop_data.recipe.model import Split

SIZE = 1920
SHARES = {"train": 0.735, "val": 0.129, "test": 0.136}
RULES: tuple[CellRule, ...] = ("inside", "centre", "touching")
GEOD = pyproj.Geod(ellps="WGS84")

zones = st.builds(lambda zone, north: (32600 if north else 32700) + zone, st.integers(1, 60), st.booleans())
sizes = st.integers(1, 320).map(lambda steps: 60 * steps)
cells = st.builds(Cell, zones, sizes, st.integers(-20_000, 20_000), st.integers(-20_000, 200_000))
#: Cells where cells exist: inside their zone, in both hemispheres.
some_zones = st.sampled_from([32601, 32631, 32632, 32660, 32719, 32733])
real_cells = st.builds(Cell, some_zones, st.just(SIZE), st.integers(150, 300), st.integers(400, 4700))


@lru_cache(maxsize=512)
def transformer(source: str, target: str) -> pyproj.Transformer:
    """A transformer with x or longitude first."""
    return pyproj.Transformer.from_crs(source, target, always_xy=True)


def moved(geometry: BaseGeometry, source: str, target: str) -> BaseGeometry:
    """A geometry in another CRS, with an edge point at least every 200 m or 0.002 degrees: slow, and exact enough."""
    step = 0.002 if source == LONLAT else 200
    return shapely.transform(
        shapely.segmentize(geometry, step), transformer(source, target).transform, interleaved=False
    )


def exact_outline(cell: Cell) -> BaseGeometry:
    """The ground of a cell in longitude and latitude, with its curved edges."""
    return moved(shapely.box(*cell.bounds), f"EPSG:{cell.epsg}", LONLAT)


def lies_in_own_zone(cell: Cell) -> bool:
    """Whether all of a cell lies in its zone and hemisphere."""
    west = (cell.epsg % 100) * 6 - 186
    south, north = (0, 84) if cell.epsg < 32700 else (-80, 0)
    x0, y0, x1, y1 = exact_outline(cell).bounds
    return west <= x0 and x1 <= west + 6 and south - 1e-12 <= y0 and y1 <= north


def footprint(longitude: float, latitude: float, side: float, angle: float) -> tuple[BaseGeometry, str]:
    """A square of ground, turned by `angle` degrees, in the UTM zone of its centre."""
    crs = f"EPSG:{utm_epsg(longitude, latitude)}"
    x, y = transformer(LONLAT, crs).transform(longitude, latitude)
    square = shapely.box(x - side / 2, y - side / 2, x + side / 2, y + side / 2)
    return shapely.affinity.rotate(square, angle), crs


def squares_near(area: BaseGeometry, crs: str, epsg: int, size: int) -> list[Cell]:
    """Every square of a zone's lattice around an area, whether its zone holds it or not."""
    west, south, east, north = moved(area, crs, f"EPSG:{epsg}").bounds
    columns = range(math.floor(west / size) - 2, math.ceil(east / size) + 2)
    rows = range(math.floor(south / size) - 2, math.ceil(north / size) + 2)
    return [Cell(epsg, size, column, row) for column in columns for row in rows]


def overlaps(shapes: list[BaseGeometry]) -> float:
    """The largest area two of the shapes share."""
    first, second = shapely.STRtree(shapes).query(shapes, predicate="intersects")
    pairs = first < second
    shared = shapely.intersection(np.array(shapes)[first[pairs]], np.array(shapes)[second[pairs]])
    return float(shapely.area(shared).max(initial=0))


# Ids


@given(cells)
@settings(deadline=None, max_examples=60)
@example(Cell(32631, 1920, 261, 2932))
@example(Cell(32733, 60, -7, 123_456))
def test_an_id_gives_its_cell_back(cell: Cell) -> None:
    assert Cell.parse(cell.id) == cell


@given(st.sets(cells, min_size=2, max_size=2))
@settings(deadline=None, max_examples=60)
def test_two_cells_have_two_ids(pair: set[Cell]) -> None:
    assert len({cell.id for cell in pair}) == 2


def test_ids_are_epsg_size_column_row_with_at_least_four_digits() -> None:
    assert Cell(32631, 1920, 261, 2932).id == "32631_1920_0261_2932"
    assert Cell(32631, 60, 8333, 92_000).id == "32631_60_8333_92000"
    assert Cell(32633, 1920, -7, 12).id == "32633_1920_-0007_0012"
    # The first row north of the equator.
    assert Cell(32634, 1920, 0, 0).id == "32634_1920_0000_0000"


@pytest.mark.parametrize(
    "text",
    [
        "",
        "32631_1920_0261",
        "32631_1920_0261_2932_20220613T112220Z",
        "32631_1920_261_2932",
        "32631_1920_00261_2932",  # a second id of one cell
        "32631_1920_-0000_2932",
        "32631_01920_0261_2932",
        "32631-1920-0261-2932",
        " 32631_1920_0261_2932",
        "32631_1920_0261_2932\n",
        "32631_1920_0261_2x32",
        "32631_1920_0261_٢٩٣٢",  # digits of another script
        "32600_1920_0261_2932",  # UTM has zones 1 to 60
        "32661_1920_0261_2932",
        "25832_1920_0261_2932",
        "32631_0_0261_2932",
        "32631_1000_0261_2932",  # no multiple of 60 m
    ],
)
def test_what_is_no_id_is_refused_and_named(text: str) -> None:
    with pytest.raises(ValueError, match="invalid cell id") as raised:
        Cell.parse(text)
    assert repr(text) in str(raised.value)


# Geometry of a cell


@given(cells)
@settings(deadline=None, max_examples=40)
def test_corners_are_multiples_of_the_size_and_of_60_metres(cell: Cell) -> None:
    west, south, east, north = cell.bounds
    assert all(edge % cell.size == 0 and edge % 60 == 0 for edge in cell.bounds)
    assert (east - west, north - south) == (cell.size, cell.size)
    assert (west, south) == (cell.column * cell.size, cell.row * cell.size)
    assert cell.corner == (west, north)
    assert cell.polygon.bounds == (west, south, east, north)
    assert cell.polygon.area == cell.size**2
    assert cell.crs == f"EPSG:{cell.epsg}"


@given(real_cells.filter(lies_in_own_zone))
@settings(deadline=None, max_examples=20)
def test_the_outline_is_the_ground_of_the_cell(cell: Cell) -> None:
    area, _ = GEOD.geometry_area_perimeter(cell.outline)
    assert area == pytest.approx(SIZE**2, rel=2.5e-3)  # UTM's scale is 0.9996 to 1.001
    assert shapely.hausdorff_distance(cell.outline, exact_outline(cell)) < 1e-5  # about a metre


@given(cells, st.sampled_from([10, 30]))
@settings(deadline=None, max_examples=30)
def test_pixels_fill_the_cell_from_north_to_south(cell: Cell, resolution: int) -> None:
    box = cell.geobox(resolution)
    x0, y0 = cell.corner
    count = cell.size // resolution
    assert box.shape == (count, count)
    assert box.crs is not None
    assert box.crs.epsg == cell.epsg
    assert tuple(box.boundingbox) == cell.bounds
    assert box.affine.e == -resolution
    np.testing.assert_array_equal(box.coordinates["x"].values, [x0 + resolution * (i + 0.5) for i in range(count)])
    np.testing.assert_array_equal(box.coordinates["y"].values, [y0 - resolution * (i + 0.5) for i in range(count)])


def test_a_cell_of_1920_metres_holds_64_enmap_and_192_sentinel2_pixels() -> None:
    cell = Cell(32631, 1920, 261, 2932)
    assert cell.geobox(30).shape == (64, 64)
    assert cell.geobox(10).shape == (192, 192)
    assert cell.geobox(60).shape == (32, 32)


def test_a_geobox_around_several_cells_holds_the_pixels_of_each() -> None:
    members = [Cell(32631, 1920, 261, 2932), Cell(32631, 1920, 263, 2930)]
    bounds = bounds_of(members)
    assert bounds == (261 * 1920, 2930 * 1920, 264 * 1920, 2933 * 1920)
    around = geobox(bounds, 32631, 10)
    assert around.shape == (576, 576)
    for cell in members:
        assert set(cell.geobox(10).coordinates["x"].values) <= set(around.coordinates["x"].values)
        assert set(cell.geobox(10).coordinates["y"].values) <= set(around.coordinates["y"].values)


@pytest.mark.parametrize(
    ("longitude", "latitude", "epsg"),
    [
        (2.35, 48.86, 32631),  # Paris
        (13.4, 52.5, 32633),  # Berlin
        (151.2, -33.9, 32756),  # Sydney
        (-70.7, -33.4, 32719),  # Santiago
        (5.3, 60.4, 32631),  # Bergen: without Norway's exception
        (6, 45, 32632),
        (0, 51.5, 32631),
        (20, 0, 32634),
        (-180, 10, 32601),
        (180, 10, 32660),
    ],
)
def test_zones_of_known_places(longitude: float, latitude: float, epsg: int) -> None:
    assert utm_epsg(longitude, latitude) == epsg
    west, south, east, north = zone_extent(epsg)
    assert east - west == 6
    assert west <= longitude <= east
    assert south <= latitude <= north


def test_a_zone_is_six_degrees_wide_and_ends_at_the_equator() -> None:
    assert zone_extent(32601) == (-180, 0, -174, 84)
    assert zone_extent(32760) == (174, -80, 180, 0)


# Cells of an area


def test_squares_around_an_area_are_those_it_meets_and_one_more_on_every_side() -> None:
    column, row = squares_around((-10, 5, 190, 95), 100)
    assert set(zip(column.tolist(), row.tolist(), strict=True)) == {(c, r) for c in range(-2, 3) for r in range(-1, 2)}
    assert len(column) == 15


places = st.tuples(st.floats(-178, 178), st.floats(-70, 75) | st.floats(-0.1, 0.1))
near_a_border = st.tuples(
    st.integers(-29, 29).flatmap(lambda n: st.floats(6 * n - 0.1, 6 * n + 0.1)), st.floats(-60, 65)
)


@pytest.mark.slow
@given(places | near_a_border, st.floats(4000, 12_000), st.floats(0, 90), st.sampled_from([960, 1920, 2520]))
@settings(deadline=None, max_examples=15)
@example((5.98, 47.0), 12_000, 20, 1920)
@example((20.0, 0.02), 12_000, 20, 1920)
def test_the_cells_of_an_area_are_those_a_slow_search_finds(
    place: tuple[float, float], side: float, angle: float, size: int
) -> None:
    area, crs = footprint(*place, side, angle)
    found = {rule: set(cells_of_area(area, crs, size, rule)) for rule in RULES}
    border = area.exterior
    around = {utm_epsg(place[0] + dx, place[1] + dy) for dx in (-0.5, 0, 0.5) for dy in (-0.5, 0, 0.5)}
    known: set[Cell] = set()
    for epsg in around:
        for cell in squares_near(area, crs, epsg, size):
            known.add(cell)
            if not lies_in_own_zone(cell):
                assert all(cell not in found[rule] for rule in RULES)
                continue
            ground = moved(cell.polygon, cell.crs, crs)
            if shapely.covers(area, ground) or abs(shapely.distance(ground.exterior, border)) > 0.05:
                assert (cell in found["inside"]) == shapely.covers(area, ground)
                assert (cell in found["touching"]) == shapely.intersects(area, ground)
            centre = moved(cell.polygon.centroid, cell.crs, crs)
            if shapely.distance(centre, border) > 0.05:
                assert (cell in found["centre"]) == shapely.covers(area, centre)
    assert all(found[rule] <= known for rule in RULES)


@given(places | near_a_border, st.floats(3000, 20_000), st.floats(0, 90))
@settings(deadline=None, max_examples=30)
def test_inside_implies_centre_implies_touching(place: tuple[float, float], side: float, angle: float) -> None:
    area, crs = footprint(*place, side, angle)
    inside, centre, touching = (cells_of_area(area, crs, 960, rule) for rule in RULES)
    assert set(inside) <= set(centre) <= set(touching)
    for found in (inside, centre, touching):
        assert found == sorted(set(found))


@given(st.integers(1, 60), st.booleans(), st.floats(0, 60), st.floats(10_000, 25_000), st.floats(0, 90))
@settings(deadline=None, max_examples=25)
def test_cells_tile_an_area_without_gap_or_overlap(
    zone: int, north: bool, latitude: float, side: float, angle: float
) -> None:
    area, crs = footprint(zone * 6 - 183, (latitude + 1) * (1 if north else -1), side, angle)
    tiles = [cell.polygon for cell in cells_of_area(area, crs, SIZE, "touching")]
    union = shapely.union_all(tiles)
    assert union.area == pytest.approx(sum(tile.area for tile in tiles), rel=1e-12)
    assert shapely.covers(union, area)


@st.composite
def ragged_cuts(draw: st.DrawFn) -> tuple[list[BaseGeometry], BaseGeometry, str]:
    """A box cut into two by a ragged line, and the CRS of both; edges may run exactly through centres of cells."""
    crs, (west, south, east, north), grid = draw(
        st.sampled_from(
            [
                ("EPSG:32631", (480_000, 5_184_000, 480_000 + 9600, 5_184_000 + 9600), 960.0),
                ("EPSG:3035", (3_900_000, 2_600_000, 3_920_000, 2_620_000), 1.0),
                ("EPSG:2154", (700_000, 6_600_000, 720_000, 6_620_000), 1.0),
                (LONLAT, (5.9, 47.0, 6.1, 47.2), 1e-4),
                (LONLAT, (-0.1, -30.1, 0.1, -29.9), 1e-4),
            ]
        )
    )
    count = draw(st.integers(2, 6))
    shares = st.integers(1, 9)
    cuts = [
        (west + round((east - west) * draw(shares) / 10 / grid) * grid, south + (north - south) * i / (count - 1))
        for i in range(count)
    ]
    left = shapely.Polygon([(west, south), *cuts, (west, north)])
    right = shapely.Polygon([(east, south), *cuts, (east, north)])
    return [left, right], shapely.box(west, south, east, north), crs


@pytest.mark.slow
@given(ragged_cuts())
@settings(deadline=None, max_examples=60)
def test_areas_that_tile_the_ground_share_no_cell_and_leave_none_out(
    ground: tuple[list[BaseGeometry], BaseGeometry, str],
) -> None:
    parts, whole, crs = ground
    of_parts = [cells_of_area(part, crs, SIZE, "centre") for part in parts]
    assert sorted(itertools.chain(*of_parts)) == cells_of_area(whole, crs, SIZE, "centre")


@pytest.mark.slow
def test_areas_of_very_different_width_share_no_cell_and_leave_none_out() -> None:
    # A parallel is curved in UTM: a wide area must not cut its border into longer pieces than a narrow one.
    wide, narrow = shapely.box(-2, 47.9, 8, 48), shapely.box(2.5, 48, 3.5, 48.1)
    below, above = (set(cells_of_area(area, LONLAT, 240)) for area in (wide, narrow))
    assert not below & above
    both = set(cells_of_area(shapely.box(2.6, 47.95, 3.4, 48.05), LONLAT, 240))
    assert both <= below | above


@pytest.mark.slow
@given(near_a_border, st.floats(-0.15, 0.15), st.floats(0, 90), st.sampled_from(["inside", "touching"]))
@settings(deadline=None, max_examples=25)
def test_two_scenes_agree_on_the_cells_both_hold(
    place: tuple[float, float], offset: float, angle: float, rule: CellRule
) -> None:
    # Their centres lie on either side of a zone border in many examples, so that their files are in two zones.
    first, first_crs = footprint(*place, 30_000, angle)
    second, second_crs = footprint(place[0] + offset, place[1] + offset / 3, 30_000, angle / 2)
    of_first, of_second = (
        set(cells_of_area(area, crs, SIZE, rule)) for area, crs in ((first, first_crs), (second, second_crs))
    )
    second_in_first = moved(second, second_crs, first_crs)
    for cell in of_first ^ of_second:
        ground = moved(cell.polygon, cell.crs, first_crs)
        # Held by one scene alone: the other one's edge runs through it, or beyond it.
        other = second_in_first if cell in of_first else first
        assert not shapely.covers(other.buffer(-0.05), ground)
    shared = first.intersection(second_in_first)
    assume(shared.area > 4 * SIZE**2)
    for cell in cells_of_area(shared.buffer(-1), first_crs, SIZE, rule):
        assert cell in of_first
        assert cell in of_second


@pytest.mark.slow
@pytest.mark.parametrize(
    ("longitude", "latitude"),
    [(6, 47.3), (0, 51.5), (12, 64.0), (18, -33.0), (-66, -24.5), (21, 0), (6, 0), (0, 0.05), (-180 + 6, 10)],
)
@pytest.mark.parametrize("size", [1920, 3840])
def test_cells_never_overlap_at_a_border_of_zones_and_the_strip_without_cells_is_narrower_than_their_diagonal(
    longitude: float, latitude: float, size: int
) -> None:
    area = shapely.box(longitude - 0.15, latitude - 0.1, longitude + 0.15, latitude + 0.1)
    found = cells_of_area(area.buffer(0.1), LONLAT, size, "touching")
    outlines = [cell.outline for cell in found]
    grounds = [exact_outline(cell) for cell in found]
    square_degree = 1e-14  # about a square centimetre of 1e-4 m2: rounding
    assert overlaps(outlines) < square_degree
    by_zone = [
        shapely.union_all([ground for cell, ground in zip(found, grounds, strict=True) if cell.epsg == epsg])
        for epsg in sorted({cell.epsg for cell in found})
    ]
    assert len(by_zone) == (1 if longitude % 6 else 2) * (2 if abs(latitude) < 0.1 else 1)
    assert overlaps(by_zone) < square_degree
    strip = area.difference(shapely.union_all(grounds)).buffer(-1e-7)
    assert not strip.is_empty
    for x, y in shapely.get_coordinates(strip):
        to_meridian = abs(GEOD.inv(x, y, longitude, y)[2]) if not longitude % 6 else math.inf
        to_equator = abs(GEOD.inv(x, y, x, 0)[2])
        assert min(to_meridian, to_equator) < size * math.sqrt(2)


def test_a_wide_area_has_the_cells_of_its_parts() -> None:
    whole = cells_of_area(shapely.box(-7, 46, 13, 46.4), LONLAT, 4800)
    parts = [cells_of_area(shapely.box(west, 46, west + 2, 46.4), LONLAT, 4800) for west in range(-7, 13, 2)]
    assert whole == sorted(itertools.chain(*parts))
    assert {cell.epsg for cell in whole} == {32629, 32630, 32631, 32632, 32633}


@pytest.mark.parametrize("size", [0, -1920, 100, 1921, 90])
def test_sizes_that_are_no_multiple_of_60_metres_are_refused(size: int) -> None:
    with pytest.raises(ValueError, match=f"cell size {size} m.*multiple of 60"):
        cells_of_area(shapely.box(2, 48, 2.1, 48.1), LONLAT, size)


@pytest.mark.parametrize("empty", [shapely.Polygon(), shapely.MultiPolygon()])
def test_an_empty_area_is_refused(empty: BaseGeometry) -> None:
    with pytest.raises(ValueError, match="empty"):
        cells_of_area(empty, LONLAT, SIZE)


# Other CRSs


@given(
    st.sampled_from([("EPSG:32631", (-4.0, 42.0, 10.0, 51.0)), ("EPSG:3035", (-9.0, 36.0, 30.0, 65.0))]),
    st.floats(0.02, 0.98),
    st.integers(0, 3),
    st.floats(0.002, 0.05),
)
@settings(deadline=None, max_examples=60)
def test_a_point_beside_the_edge_of_a_wide_box_stays_on_its_side(
    target: tuple[str, tuple[float, float, float, float]], along: float, edge: int, beside: float
) -> None:
    crs, (west, south, east, north) = target
    box = to_crs(shapely.box(west, south, east, north), LONLAT, crs)
    x, y = west + along * (east - west), south + along * (north - south)
    on_edge, inward = [((x, south), (0, 1)), ((x, north), (0, -1)), ((west, y), (1, 0)), ((east, y), (-1, 0))][edge]
    for side, expected in ((beside, True), (-beside, False)):
        point = transformer(LONLAT, crs).transform(on_edge[0] + side * inward[0], on_edge[1] + side * inward[1])
        assert shapely.contains_xy(box, *point) == expected


def test_a_geometry_goes_to_another_crs_and_back() -> None:
    area, crs = footprint(5.9, 48, 20_000, 30)
    there = to_crs(area, crs, "EPSG:3035")
    back = to_crs(there, "EPSG:3035", crs)
    assert shapely.hausdorff_distance(back, area) < 0.01
    assert there.centroid.distance(area.centroid) > 100_000
    assert to_crs(area, crs, crs).equals(area)
    assert to_crs(shapely.Polygon(), LONLAT, crs).is_empty


# Splits

#: EPSG:3035 from its definition.
EQUAL_AREA = "+proj=laea +lat_0=52 +lon_0=10 +x_0=4321000 +y_0=3210000 +ellps=GRS80 +units=m"
projection = lru_cache(pyproj.Proj)


@pytest.mark.slow
@given(st.lists(real_cells, min_size=1, max_size=12, unique=True), st.sampled_from([15_360, 10_000]))
@settings(deadline=None, max_examples=30)
def test_the_square_of_a_cell_holds_its_centre_whatever_other_cells_there_are(
    members: list[Cell], square_size: int
) -> None:
    for cell, square in zip(members, split_squares(members, square_size), strict=True):
        centre = cell.polygon.centroid
        south = " +south" if cell.epsg > 32700 else ""
        utm = projection(f"+proj=utm +zone={cell.epsg % 100} +ellps=WGS84{south}")
        x, y = projection(EQUAL_AREA)(*utm(centre.x, centre.y, inverse=True))
        if min(x % square_size, y % square_size) > 1 < square_size - max(x % square_size, y % square_size):
            assert square == (math.floor(x / square_size), math.floor(y / square_size))
        assert split_squares([cell], square_size) == [square]


def test_cells_of_two_zones_over_one_square_share_its_split() -> None:
    # EPSG:3035 squares know no zones: some lie on both sides of 6 degrees east.
    found = cells_of_area(shapely.box(5.7, 46.8, 6.3, 47.4), LONLAT, SIZE)
    squares = split_squares(found, 15_360)
    zones_of: dict[tuple[int, int], set[int]] = {}
    for cell, square in zip(found, squares, strict=True):
        zones_of.setdefault(square, set()).add(cell.epsg)
        x, y = transformer(cell.crs, SPLIT_CRS).transform(*cell.polygon.centroid.coords[0])
        assert 0 <= x - square[0] * 15_360 < 15_360
        assert 0 <= y - square[1] * 15_360 < 15_360
    assert {32631, 32632} in zones_of.values()


def test_splits_have_the_shares_of_the_recipe_and_neighbours_are_drawn_apart() -> None:
    squares = list(itertools.product(range(200, 340), range(100, 243)))
    assert len(squares) > 20_000
    split = {square: split_of_square(square, 15_360, SHARES, 0) for square in squares}
    for name, share in SHARES.items():
        assert sum(one == name for one in split.values()) / len(squares) == pytest.approx(share, abs=0.01)
    # Drawn apart, two neighbours agree as often as two squares anywhere.
    agree = [split[x, y] == split[x + 1, y] for x, y in squares if (x + 1, y) in split]
    assert np.mean(agree) == pytest.approx(sum(share**2 for share in SHARES.values()), abs=0.015)


def test_splits_stay_what_they_are_from_release_to_release() -> None:
    # Ground must never change its split: a change of these values is a change of every store.
    val = {(263, -2), (264, 3), (266, -3), (266, 0), (266, 1), (267, 3), (270, 4)}
    test = {
        (263, -3),
        (263, -1),
        (263, 0),
        (264, -3),
        (264, -2),
        (265, -1),
        (268, 2),
        (269, -1),
        (269, 3),
        (270, -2),
        (270, 3),
    }
    for square in itertools.product(range(263, 271), range(-3, 5)):
        expected = "val" if square in val else "test" if square in test else "train"
        assert split_of_square(square, 15_360, SHARES, 0) == expected
        assert plain_split(square, 15_360, SHARES, 0) == expected
        assert Split().split_of(square) == expected


@given(st.tuples(st.integers(-500, 500), st.integers(-500, 500)), st.permutations(list(SHARES)), st.integers(0, 99))
@settings(deadline=None, max_examples=60)
def test_the_order_of_the_shares_draws_no_other_split(square: tuple[int, int], order: list[str], seed: int) -> None:
    reordered = {name: SHARES[name] for name in order}
    assert split_of_square(square, 15_360, reordered, seed) == split_of_square(square, 15_360, SHARES, seed)


def test_another_seed_or_square_size_draws_another_split() -> None:
    squares = list(itertools.product(range(30), range(30)))
    halves = {"train": 0.5, "test": 0.5}
    first, seeded, resized = (
        [split_of_square(square, size, halves, seed) for square in squares]
        for size, seed in ((15_360, 0), (15_360, 1), (10_000, 0))
    )
    for other in (seeded, resized):
        assert np.mean([a == b for a, b in zip(first, other, strict=True)]) == pytest.approx(0.5, abs=0.07)


def test_a_split_without_share_gets_nothing() -> None:
    squares = itertools.product(range(40), range(40))
    assert {split_of_square(square, 15_360, {"train": 1, "val": 0, "test": 0}, 0) for square in squares} == {"train"}


# Blocks


def hilbert_curve(bits: int) -> list[tuple[int, int]]:
    """The Hilbert curve drawn from its definition: four smaller curves, the first and the last one turned."""
    if bits == 0:
        return [(0, 0)]
    inner, side = hilbert_curve(bits - 1), 1 << (bits - 1)
    return [
        *((y, x) for x, y in inner),
        *((x, y + side) for x, y in inner),
        *((x + side, y + side) for x, y in inner),
        *((2 * side - 1 - y, side - 1 - x) for x, y in inner),
    ]


@pytest.mark.parametrize("bits", [0, 1, 2, 3, 6])
def test_the_hilbert_index_counts_along_the_curve(bits: int) -> None:
    curve = hilbert_curve(bits)
    assert [hilbert_index(x, y, bits) for x, y in curve] == list(range(4**bits))


@given(st.integers(1, 2**20 - 2), st.integers(1, 2**20 - 2))
@settings(deadline=None, max_examples=60)
def test_the_next_place_on_the_curve_is_beside_the_last(column: int, row: int) -> None:
    here = hilbert_index(column, row)
    beside = {hilbert_index(column + dx, row + dy) for dx, dy in ((1, 0), (-1, 0), (0, 1), (0, -1))}
    assert here not in beside
    assert len(beside) == 4
    assert here + 1 in beside or here == 4**20 - 1
    assert here - 1 in beside or here == 0


block_cells = st.lists(
    st.builds(Cell, st.sampled_from([32631, 32632]), st.just(SIZE), st.integers(255, 275), st.integers(2700, 2716)),
    min_size=1,
    max_size=60,
    unique=True,
)


@given(block_cells, st.integers(1, 16), st.randoms(use_true_random=False))
@settings(deadline=None, max_examples=50)
def test_blocks_hold_every_cell_once_from_one_square_and_zone_whatever_the_order(
    members: list[Cell], capacity: int, shuffler: random.Random
) -> None:
    # Cells of two zones share squares here, as they do beside a border of zones.
    squares = {cell: (cell.column // 8, cell.row // 8) for cell in members}
    blocks = blocks_of_cells(members, list(squares.values()), capacity)
    assert sorted(cell for _, inside in blocks for cell in inside) == sorted(members)
    for square, inside in blocks:
        assert 1 <= len(inside) <= capacity
        assert {squares[cell] for cell in inside} == {square}
        assert len({cell.epsg for cell in inside}) == 1
        places = [hilbert_index(cell.column, cell.row) for cell in inside]
        assert places == sorted(places)
    # No more blocks than needed, and no block's run of the curve reaches into another's.
    for (square, epsg), group in itertools.groupby(blocks, key=lambda block: (block[0], block[1][0].epsg)):
        runs = [inside for _, inside in group]
        held = [cell for cell, one in squares.items() if one == square and cell.epsg == epsg]
        assert len(runs) == math.ceil(len(held) / capacity)
        assert list(itertools.chain(*runs)) == sorted(held, key=lambda cell: hilbert_index(cell.column, cell.row))
    shuffled = list(members)
    shuffler.shuffle(shuffled)
    assert blocks_of_cells(shuffled, [squares[cell] for cell in shuffled], capacity) == blocks


def test_cells_of_a_block_are_near_each_other() -> None:
    members = [Cell(32631, SIZE, column, row) for column in range(256, 272) for row in range(2704, 2720)]
    blocks = blocks_of_cells(members, [(0, 0)] * len(members), 16)
    assert [bounds_of(inside)[2] - bounds_of(inside)[0] for _, inside in blocks] == [4 * SIZE] * 16
    assert [bounds_of(inside)[3] - bounds_of(inside)[1] for _, inside in blocks] == [4 * SIZE] * 16


def test_as_many_squares_as_cells_are_needed() -> None:
    with pytest.raises(ValueError, match="shorter"):
        blocks_of_cells([Cell(32631, SIZE, 1, 1), Cell(32631, SIZE, 1, 2)], [(0, 0)], 16)
