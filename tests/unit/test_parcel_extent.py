"""Where a parcel file lies by its extent and CRS, against the ground it is meant for, and what it looks like if not."""

from __future__ import annotations

import pyproj
import pytest

from h2crop_data.grid import LONLAT
from h2crop_data.parcels.extent import COMMON_CRS, NATIONAL_CRS, Extent, misplacement

#: Two cells in the middle of France, and a department around them.
CELLS = (3.0, 46.5, 3.05, 46.53)
DEPARTMENT = (2.9, 46.4, 3.4, 46.6)
FRANCE = (-5.0, 42.0, 9.0, 51.0)
BORDEAUX = (-1.0, 44.0, 0.0, 45.0)
NOWHERE = float("nan")


def in_crs(crs: str, bounds: Extent = DEPARTMENT) -> Extent:
    """Bounds of a box, given in longitude and latitude, in a CRS."""
    moved: Extent = pyproj.Transformer.from_crs(LONLAT, crs, always_xy=True).transform_bounds(*bounds)
    return moved


def swapped(bounds: Extent) -> Extent:
    west, south, east, north = bounds
    return south, west, north, east


def words(extent: Extent, crs: str, ground: Extent = CELLS) -> tuple[str, bool]:
    """What is said of a file, and whether it is certain."""
    found = misplacement(extent, crs, ground, ["EPSG:2154", "EPSG:32631", *COMMON_CRS])
    return ("", False) if found is None else (found.what, found.certain)


@pytest.mark.parametrize("crs", ["EPSG:2154", "EPSG:32631", "EPSG:4326", "EPSG:3857", "EPSG:3035"])
@pytest.mark.parametrize("bounds", [DEPARTMENT, FRANCE, (3.01, 46.51, 3.01, 46.51), (-60.0, -20.0, 60.0, 60.0)])
def test_a_file_whose_extent_meets_the_ground_is_well(crs: str, bounds: Extent) -> None:
    assert words(in_crs(crs, bounds), crs) == ("", False)


def test_degrees_labelled_as_metres() -> None:
    what, certain = words(DEPARTMENT, "EPSG:2154")
    assert certain
    assert "x 2.9 to 3.4, y 46.4 to 46.6" in what
    assert "looks like degrees, but the unit of EPSG:2154 is metre" in what
    assert "`crs: OGC:CRS84`" in what


def test_metres_labelled_as_degrees() -> None:
    what, certain = words(in_crs("EPSG:2154"), "EPSG:4326")
    assert certain
    assert "looks like metres, but EPSG:4326 is in degrees" in what
    assert "`crs: EPSG:2154`" in what
    # Of other ground nobody knows in which metres.
    what, certain = words(in_crs("EPSG:2154", BORDEAUX), "EPSG:4326")
    assert certain
    assert "looks like metres" in what
    assert "set its CRS" in what


@pytest.mark.parametrize("crs", ["EPSG:4326", "EPSG:2154", "EPSG:3035"])
def test_swapped_axes(crs: str) -> None:
    what, certain = words(swapped(in_crs(crs)), crs)
    assert certain
    assert "axes look swapped" in what


def test_degrees_labelled_as_metres_with_swapped_axes() -> None:
    what, certain = words(swapped(DEPARTMENT), "EPSG:2154")
    assert certain
    assert "looks like degrees" in what
    assert "swapped axes" in what


@pytest.mark.parametrize(
    ("true", "stated", "certain"),
    [
        ("EPSG:3035", "EPSG:2154", True),
        ("EPSG:2154", "EPSG:3035", True),
        # Metres of a neighbouring projection: what is stated may be true of other ground.
        ("EPSG:32631", "EPSG:32632", False),
        ("EPSG:3857", "EPSG:2154", False),
    ],
)
@pytest.mark.parametrize("bounds", [DEPARTMENT, (2.5, 46.0, 4.0, 47.0)])
def test_another_projection_is_named(true: str, stated: str, certain: bool, bounds: Extent) -> None:
    what, sure = words(in_crs(true, bounds), stated)
    assert f"in {stated} is far from the cells; it matches {true}: set `crs: {true}`" in what
    assert sure == certain


@pytest.mark.parametrize("stated", ["EPSG:3035", "EPSG:4326"])
def test_of_several_crs_that_fit_the_one_that_fits_best_is_named(stated: str) -> None:
    # All of France in Lambert-93 meets all of France in Web Mercator too, by a part.
    assert "it matches EPSG:2154" in words(in_crs("EPSG:2154", FRANCE), stated, FRANCE)[0]


def test_a_file_of_another_region_says_where_both_lie() -> None:
    what, certain = words(in_crs("EPSG:2154", BORDEAUX), "EPSG:2154")
    assert not certain
    assert "longitude 3 to 3.05, latitude 46.5 to 46.53" in what
    assert "another region" in what
    assert "longitude -1." in what
    assert words(BORDEAUX, "EPSG:4326")[0].startswith("it covers longitude -1 to 0, latitude 44 to 45,")


def test_numbers_far_outside_the_ground_of_a_crs_are_a_wrong_crs() -> None:
    # Slovenian metres, where nobody expects Slovenia, labelled as French ones.
    what, certain = words(in_crs("EPSG:3794", (14.0, 46.0, 15.0, 46.5)), "EPSG:2154")
    assert certain
    assert "outside the area of use of EPSG:2154" in what


def test_a_file_without_an_extent_has_no_geometry() -> None:
    for extent in ((NOWHERE,) * 4, (float("inf"), float("inf"), -float("inf"), -float("inf"))):
        what, certain = words(extent, "EPSG:2154")
        assert certain
        assert "none of its rows has a readable geometry" in what


def test_national_crs_are_in_metres_of_their_country() -> None:
    inside = {"at": (14.0, 47.5), "be": (4.5, 50.8), "fr": (3.0, 46.5), "nl": (5.5, 52.0), "si": (14.5, 46.1)}
    for country, names in NATIONAL_CRS.items():
        for name in names:
            system = pyproj.CRS(name)
            assert {axis.unit_name for axis in system.axis_info} == {"metre"}
            if country in inside:
                lon, lat = inside[country]
                assert system.area_of_use is not None
                assert system.area_of_use.west < lon < system.area_of_use.east
                assert system.area_of_use.south < lat < system.area_of_use.north
