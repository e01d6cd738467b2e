"""Where items lie, in every form that footprints come in: the ground is known, the form is made of it."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pystac
import pytest
import shapely
from hypothesis import given, settings
from hypothesis import strategies as st
from pyproj import Transformer
from shapely.affinity import translate
from stac_items import item_of

from h2crop_data.catalog.footprints import footprint, place_item
from h2crop_data.errors import SceneError

#: A tile of zone 60 whose eastern part lies beyond 180 degrees, and its corner in EPSG:32660.
TILE, EPSG, CORNER = "60VXH", 32660, (600_000, 6_300_000)


def ring_of(epsg: int, west: float, north: float, size: float = 109_800) -> np.ndarray[Any, Any]:
    """The corners (5, 2) of a box in a UTM zone, longitudes counted on from that of the zone without a jump."""
    corners = shapely.get_coordinates(shapely.box(west, north - size, west + size, north))
    longitudes, latitudes = Transformer.from_crs(f"EPSG:{epsg}", "OGC:CRS84", always_xy=True).transform(*corners.T)
    middle = (epsg % 100) * 6 - 183
    return np.column_stack([(longitudes - middle + 180) % 360 - 180 + middle, latitudes])


def halves(ring: np.ndarray[Any, Any]) -> shapely.MultiPolygon:
    """A ring over 180 degrees cut in two there (RFC 7946, 3.1.9)."""
    whole = shapely.Polygon(ring)
    west = shapely.intersection(whole, shapely.box(-180, -90, 180, 90))
    east = translate(shapely.intersection(whole, shapely.box(180, -90, 540, 90)), -360)
    return shapely.MultiPolygon([west, east])


def jumping(ring: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    """A ring with every longitude in -180..180."""
    return np.column_stack([(ring[:, 0] + 180) % 360 - 180, ring[:, 1]])


def geojson(ground: Any) -> dict[str, Any]:
    """A geometry as GeoJSON."""
    document: dict[str, Any] = json.loads(shapely.to_geojson(ground))
    return document


FORMS: dict[str, Any] = {
    "cut in two": lambda ring: geojson(halves(ring)),
    "beyond 180": lambda ring: geojson(shapely.Polygon(ring)),
    "beyond -180": lambda ring: geojson(shapely.Polygon(ring - np.array([360, 0]))),
    "a ring that jumps": lambda ring: geojson(shapely.Polygon(jumping(ring))),
    "backwards": lambda ring: geojson(shapely.Polygon(jumping(ring)[::-1])),
    "from another corner": lambda ring: geojson(shapely.Polygon(np.roll(jumping(ring)[:-1], 2, axis=0))),
    "in a collection": lambda ring: {
        "type": "GeometryCollection",
        "geometries": [geojson(shapely.Point(ring[0])), geojson(shapely.Polygon(jumping(ring)))],
    },
    "with heights": lambda ring: {"type": "Polygon", "coordinates": [[[*point, 12.0] for point in ring.tolist()]]},
}


def item_with(geometry: Any, **properties: Any) -> pystac.Item:
    """An item with a footprint."""
    item = item_of("scene", **properties)
    item.geometry = geometry
    return item


def same_ground(one: Any, other: Any) -> bool:
    """Whether two grounds differ by less than a hundredth of their area: edges of a tile are curved."""
    return bool(shapely.symmetric_difference(one, other).area < 1e-2 * other.area)


@pytest.mark.parametrize("form", FORMS)
def test_a_footprint_over_180_degrees_covers_its_ground_in_every_form(form: str) -> None:
    ring = ring_of(EPSG, *CORNER)
    assert ring[:, 0].min() < 180 < ring[:, 0].max()
    item = item_with(FORMS[form](ring))
    assert same_ground(footprint(item), halves(ring))
    assert place_item(item) == ""
    placed = shapely.geometry.shape(item.geometry)
    assert same_ground(placed, halves(ring))
    assert -180 <= placed.bounds[0] < placed.bounds[2] <= 180


@pytest.mark.slow
@settings(max_examples=80, deadline=None)
@given(
    zone=st.sampled_from([1, 2, 30, 31, 59, 60]),
    north=st.booleans(),
    west=st.integers(170_000, 790_000),
    top=st.integers(1_000_000, 8_900_000),
    size=st.sampled_from([2_000, 30_000, 109_800]),
    form=st.sampled_from(sorted(set(FORMS) - {"cut in two"})),
    turn=st.sampled_from([-360, 0, 360]),
)
def test_points_of_the_ground_are_in_the_footprint_and_no_others(
    zone: int, north: bool, west: int, top: int, size: int, form: str, turn: int
) -> None:
    ring = ring_of((32600 if north else 32700) + zone, west, top, size)
    ground = footprint(item_with(FORMS[form](ring + np.array([turn, 0]))))
    inside = shapely.Polygon(ring)
    middle = inside.centroid
    for x, y in [(middle.x, middle.y), *((ring[:4] * 0.99 + np.array([middle.x, middle.y]) * 0.01).tolist())]:
        assert shapely.intersects(ground, shapely.Point((x + 180) % 360 - 180, y))
    for x, y in (ring[:4] * 1.5 - np.array([middle.x, middle.y]) * 0.5).tolist():
        assert not shapely.intersects(ground, shapely.Point((x + 180) % 360 - 180, y))
    assert ground.area == pytest.approx(inside.area, rel=1e-6)


def test_the_tile_or_the_grid_tells_what_swapped_coordinates_mean() -> None:
    """Near 43 degrees east and north what is swapped is of the same zone, and even touches the tile."""
    for epsg, tile, west, top in [(32633, "33UUU", 300_000, 5_900_040), (32638, "38TLN", 300_000, 4_800_000)]:
        ring = ring_of(epsg, west, top)
        swapped = geojson(shapely.Polygon(ring[:, ::-1]))
        grid = {"proj__epsg": epsg, "proj__shape": [10980, 10980], "proj__transform": [10, 0, west, 0, -10, top]}
        box = {"proj__epsg": epsg, "proj__bbox": [west, top - 109_800, west + 109_800, top]}
        for witness in ({"s2__mgrs_tile": tile}, grid, box):
            item = item_with(swapped, **witness)
            assert same_ground(footprint(item), shapely.Polygon(ring))
            assert "swapped" in place_item(item)
            right = item_with(geojson(shapely.Polygon(ring)), **witness)
            assert same_ground(footprint(right), shapely.Polygon(ring))
            assert place_item(right) == ""


def test_a_wrong_grid_does_not_move_a_footprint() -> None:
    ring = ring_of(32631, 500_000, 5_700_000)
    wrong = {"proj__epsg": 32631, "proj__shape": [10980, 10980], "proj__transform": [10, 0, 0, 0, -10, 100_000]}
    item = item_with(geojson(shapely.Polygon(ring)), **wrong)
    assert same_ground(footprint(item), shapely.Polygon(ring))
    assert place_item(item) == ""


AROUND = shapely.segmentize(shapely.box(-179.9, 56, 179.8, 57), 1)


@pytest.mark.parametrize("stated", [shapely.box(-180, 56, 180, 57), AROUND])
def test_a_box_around_the_earth_is_the_ground_of_the_pixels_or_refused(stated: Any) -> None:
    item = item_with(geojson(stated), s2__mgrs_tile=TILE)
    assert same_ground(footprint(item), halves(ring_of(EPSG, *CORNER)))
    assert "around the Earth" in place_item(item)
    with pytest.raises(SceneError, match="around the Earth"):
        footprint(item_with(geojson(stated)))


def test_a_latitude_beyond_the_poles_is_refused() -> None:
    with pytest.raises(SceneError, match="beyond 90 degrees"):
        footprint(item_with(geojson(shapely.box(5, 95, 6, 96))))


def test_what_needs_no_change_stays_as_it_was_written() -> None:
    for ground in (shapely.box(5, 50, 6, 51), halves(ring_of(EPSG, *CORNER))):
        item = item_with(geojson(ground), proj__epsg=32631 if ground.geom_type == "Polygon" else EPSG)
        before = json.dumps(item.geometry)
        assert place_item(item) == ""
        assert json.dumps(item.geometry) == before


@pytest.mark.parametrize(
    "facts",
    [
        {"grid__code": f"MGRS-{TILE}"},
        {"proj__epsg": EPSG, "proj__bbox": [CORNER[0], CORNER[1] - 109_800, CORNER[0] + 109_800, CORNER[1]]},
    ],
)
def test_without_a_footprint_the_ground_of_the_pixels_is_taken_and_told(facts: dict[str, Any]) -> None:
    item = item_with(None, **facts)
    assert place_item(item) == "it has no footprint (`geometry`); the outline of its pixels is used instead"
    assert same_ground(shapely.geometry.shape(item.geometry), halves(ring_of(EPSG, *CORNER)))
    assert item.bbox is not None
    with pytest.raises(SceneError, match=r"it has no footprint.*neither a tile nor"):
        place_item(item_with(None))
