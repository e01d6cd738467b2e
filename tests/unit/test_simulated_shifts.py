"""How far simulated Sentinel-2 images lie off the ground: by datatake and tile, and what their metadata say of it."""

from __future__ import annotations

import math
from datetime import UTC, datetime
from typing import Any
from xml.etree import ElementTree

import numpy as np
import pytest
import shapely
from hypothesis import given
from hypothesis import settings as tried
from hypothesis import strategies as st
from numpy.typing import NDArray

from h2crop_data.errors import UsageError
from h2crop_data.grid import LONLAT, to_crs
from h2crop_data.simulate.layout import Layout
from h2crop_data.simulate.overpasses import sentinel2_passes
from h2crop_data.simulate.sentinel2.datastrip import datastrip_xml
from h2crop_data.simulate.sentinel2.granules import DATASTRIP, Granule
from h2crop_data.simulate.sentinel2.items import ARCHIVES, asset_key, file_path, sentinel2_item
from h2crop_data.simulate.sentinel2.scenes import IN_PLACE, room_for, shade_of_pixels
from h2crop_data.simulate.sentinel2.shifts import ImageShift, image_shift, shift_of_pass, shift_row
from h2crop_data.simulate.sentinel2.tiles import tile_at
from h2crop_data.simulate.settings import GeometrySettings, Simulation, load_settings

PASSES = [f"S2-pass-{number}" for number in range(4000)]


def shifts(**wanted: Any) -> tuple[NDArray[np.bool_], NDArray[np.float64]]:
    """Whether each of PASSES is refined, and its shift (n, 2)."""
    refined, vectors = zip(*[shift_of_pass(GeometrySettings(**wanted), 7, name) for name in PASSES], strict=True)
    return np.array(refined), np.array(vectors)


def test_refined_dates_lie_within_five_metres_in_95_percent_as_real_ones() -> None:
    refined, vectors = shifts()
    assert (~refined).mean() == pytest.approx(0.3, abs=0.03)
    near = vectors[refined]
    np.testing.assert_allclose(near.mean(axis=0), 0, atol=0.15)
    np.testing.assert_allclose(near.std(axis=0), 2, atol=0.1)
    assert abs(np.corrcoef(near.T)[0, 1]) < 0.05
    assert (np.hypot(*near.T) < 5).mean() == pytest.approx(0.95, abs=0.015)


def test_dates_that_are_not_refined_lie_up_to_far_off_in_any_direction() -> None:
    refined, vectors = shifts(far=12, not_refined=0.5)
    lengths = np.hypot(*vectors[~refined].T)
    assert lengths.max() <= 12
    np.testing.assert_allclose(np.quantile(lengths, [0.1, 0.5, 0.9]), [1.2, 6, 10.8], atol=0.5)
    quarters = np.bincount(((np.arctan2(*vectors[~refined].T) + math.pi) / (math.pi / 2)).astype(int) % 4)
    np.testing.assert_allclose(quarters / quarters.sum(), 0.25, atol=0.04)


def test_one_setting_leaves_what_others_do_as_it_is() -> None:
    refined, vectors = shifts()
    other, moved = shifts(not_refined=0.6)
    assert (refined | ~other).all(), "what was not refined stays so"
    same = refined == other
    np.testing.assert_array_equal(vectors[same], moved[same])
    wider, further = shifts(far=60)
    np.testing.assert_array_equal(refined, wider)
    np.testing.assert_array_equal(vectors[refined], further[refined])
    np.testing.assert_allclose(4 * vectors[~refined], further[~refined])


def region(**changes: Any) -> Layout:
    """A layout in which 31UDP and 31UEP overlap."""
    wanted = {"place": {"west": 499_680}, **{name.replace("__", "."): value for name, value in changes.items()}}
    return Layout(load_settings(None, {"cells": 1, **wanted}))


def passes_of(layout: Layout) -> list[Any]:
    return list(sentinel2_passes(layout.simulation, 2022, layout.centre, layout.bounds))


def test_tiles_of_a_datatake_share_its_shift_but_for_their_own_part() -> None:
    layout, geometry = region(), GeometrySettings(between_tiles=0.5)
    west, east = tile_at(32631, 4, 53), tile_at(32631, 5, 53)
    apart, own = [], []
    for look in passes_of(layout):
        one, other = (image_shift(layout, geometry, look, tile) for tile in (west, east))
        of_pass = shift_of_pass(geometry, layout.simulation.seed, look.name)
        assert one.refined == other.refined == of_pass[0]
        apart.append((one.east - other.east, one.north - other.north))
        own.append((one.east - of_pass[1][0], one.north - of_pass[1][1]))
    # The difference of two; 36 passes, two axes.
    assert np.std(apart) == pytest.approx(0.5 * 2**0.5, rel=0.25)
    assert np.std(own) == pytest.approx(0.5, rel=0.25)
    assert np.abs(own).max() < 2.5
    alike = GeometrySettings(between_tiles=0)
    look = passes_of(layout)[0]
    assert image_shift(layout, alike, look, west) == image_shift(layout, alike, look, east)


def test_the_absolute_part_is_the_same_in_all_images() -> None:
    layout, tile = region(), tile_at(32631, 4, 53)
    for look in passes_of(layout)[:6]:
        free, moved = (
            image_shift(layout, GeometrySettings(absolute=absolute), look, tile) for absolute in ((0, 0), (8, -3))
        )
        assert (moved.east - free.east, moved.north - free.north) == pytest.approx((8, -3), abs=0.011)
        assert (moved.absolute_east, moved.absolute_north) == (8, -3)
        assert (free.absolute_east, free.absolute_north) == (0, 0)
        row = shift_row(moved, look, tile)
        assert (row["pass"], row["tile"], row["epsg"], row["east"]) == (look.name, "31UDP", 32631, moved.east)
        assert datetime.fromisoformat(row["time"]) == look.moment


def test_another_zone_has_the_same_shift_along_its_own_axes() -> None:
    layout = region(place={"west": 717_120, "south": 5_376_000})
    look = passes_of(layout)[0]
    geometry = GeometrySettings(sd=0, not_refined=0, between_tiles=0, absolute=(60, 80))
    here, there = (image_shift(layout, geometry, look, tile_at(epsg, 2, 53)) for epsg in (32631, 32632))
    assert (here.east, here.north) == (60, 80)
    # Meridian convergence (Snyder, 1987, Map projections, page 50, on the sphere): grid north lies clockwise of north
    # east of the central meridian.
    longitude, latitude = map(math.radians, layout.centre)
    east, west = (math.atan(math.tan(longitude - math.radians(m)) * math.sin(latitude)) for m in (3, 9))
    turn = east - west
    assert 4 < math.degrees(turn) < 5
    expected = (
        60 * math.cos(turn) + 80 * math.sin(turn),
        80 * math.cos(turn) - 60 * math.sin(turn),
    )
    assert (there.east, there.north) == pytest.approx(expected, abs=0.15)
    # Their lengths on the map differ by the scales of the two zones at this place, at most 0.1 %.
    assert math.hypot(there.east, there.north) == pytest.approx(100, abs=0.12)


def test_room_for_shifts_is_taken_in_steps() -> None:
    assert room_for([IN_PLACE]) == 0
    assert room_for([IN_PLACE, (0.01, 0.0)]) == room_for([(-3, 29.9)]) == 30
    assert room_for([(1, -30.1), (2, 3)]) == 60


@given(east=st.floats(-14, 14), north=st.floats(-14, 14), size=st.sampled_from([10, 20]))
@tried(max_examples=20, deadline=None)
def test_shade_moves_with_the_ground_by_parts_of_a_place(east: float, north: float, size: int) -> None:
    reach, side = 30, 40
    x, y = np.arange(5.0, side, 10), np.arange(side - 5.0, 0, -10)
    places = (side - 10) // 5 + 1 + 2 * (reach // 5)
    shade = np.random.default_rng(3).random((places, places)).astype(np.float32)
    found = shade_of_pixels(shade, x, y, reach, size, (east, north))
    # The share of each place of 5 m, counted from 25 m west and north of the image, in each pixel where the ground was.
    edges = np.arange(places + 1) * 5.0 - (reach - 5)

    def shares(first: float) -> NDArray[np.float64]:
        return np.clip(np.minimum(edges[1:], first + size) - np.maximum(edges[:-1], first), 0, None) / size

    for row in range(side // size):
        for column in range(side // size):
            mean = shares(row * size + north) @ shade.astype(float) @ shares(column * size - east)
            assert found[row, column] == pytest.approx(mean, abs=1e-5)


def granule(**changes: Any) -> Granule:
    tile = tile_at(32631, 4, 53)
    moment = datetime(2022, 7, 5, 10, 58, 12, 345000, UTC)
    bounds = (499_920, 5_390_040, 505_920, 5_396_040)
    facts: dict[str, Any] = {
        "platform": "S2A",
        "tile": tile,
        "footprint": to_crs(shapely.box(*bounds), "EPSG:32631", LONLAT),
        "bounds": bounds,
        "sensing": moment,
        "datatake": moment,
        "generation": datetime(2022, 7, 5, 16, 44, 19, tzinfo=UTC),
        "relative_orbit": 8,
        "absolute_orbit": 36765,
        "baseline": "04.00",
        "classes": {},
        "nodata": 0.0,
        "sun_azimuth": 150.2,
        "sun_elevation": 61.7,
        "view_azimuth": 104.3,
        "view_incidence": 5.6,
    }
    return Granule(**{**facts, **changes})


@pytest.mark.parametrize(("level", "refined"), [("L2A", True), ("L2A", False), ("L1C", True)])
def test_the_datastrip_says_whether_it_was_refined_where_real_ones_do(level: str, refined: bool) -> None:
    text = datastrip_xml(granule(), level, refined)
    assert f'<Image_Refining flag="{"REFINED" if refined else "NOT_REFINED"}">' in text
    root = ElementTree.fromstring(text)
    schema, name = root.tag.removeprefix("{").split("}")
    assert schema.endswith(f"PSD/S2_PDI_Level-{level[1:]}_Datastrip_Metadata.xsd")
    assert name == f"Level-{level[1:]}_DataStrip_ID"
    flags = root.findall(f"{{{schema}}}Image_Data_Info/Geometric_Info/Image_Refining")
    assert [flag.get("flag") for flag in flags] == ["REFINED" if refined else "NOT_REFINED"]
    datatake = root.find(f"{{{schema}}}General_Info/Datatake_Info")
    assert datatake is not None
    assert datatake.get("datatakeIdentifier") == "GS2A_20220705T105812_036765_N04.00"
    assert root.findtext(f"{{{schema}}}General_Info/Processing_Info/PROCESSING_BASELINE") == "04.00"
    assert text == datastrip_xml(granule(), level, refined)


@pytest.mark.parametrize("archive", ARCHIVES)
def test_archives_list_the_datastrips_metadata_under_their_own_names(archive: str) -> None:
    key, path = asset_key(archive, DATASTRIP), file_path(granule(), archive, DATASTRIP, ".xml")
    assert key == ("datastrip-metadata" if archive == "planetary-computer" else "datastrip_metadata")
    assert path.endswith("MTD_DS.xml")
    if archive in ("planetary-computer", "copernicus"):
        assert path.endswith(".SAFE/DATASTRIP/DS_2BPS_20220705T164419_S20220705T105808/MTD_DS.xml")
    folder = file_path(granule(), archive, "B02").partition(".SAFE")[0].rpartition("/")[0]
    assert path.startswith(folder), "with the granule's bands"
    assets = sentinel2_item(granule(), archive, {key: f"./{path}"}, {key: 9}, {key: "0a" * 32})["assets"]
    assert assets[key]["href"] == f"./{path}"
    assert assets[key]["type"] == "application/xml"
    assert assets[key]["roles"] == ["metadata"]
    assert ("file:size" in assets[key]) == (archive in ("sentinel-2-c1-l2a", "copernicus"))


def test_settings_without_geometry_are_written_as_older_versions_wrote_them() -> None:
    assert "geometry" not in Simulation().model_dump(mode="json")["sentinel2"]
    written = load_settings(None, {"sentinel2.geometry": {}}).model_dump(mode="json")["sentinel2"]["geometry"]
    assert written == {"sd": 2.0, "not_refined": 0.3, "far": 15.0, "between_tiles": 0.3, "absolute": [0.0, 0.0]}
    assert Simulation.model_validate_json(region(sentinel2__geometry={"sd": 1}).simulation.model_dump_json()) == (
        region(sentinel2__geometry={"sd": 1}).simulation
    )
    with pytest.raises(UsageError, match=r"sentinel2\.geometry\.absolute"):
        load_settings(None, {"sentinel2.geometry": {"absolute": [200, 0]}})


def test_shifts_are_written_in_centimetres() -> None:
    layout = region()
    found = [image_shift(layout, GeometrySettings(), look, tile_at(32631, 4, 53)) for look in passes_of(layout)]
    assert len({(shift.east, shift.north) for shift in found}) == len(found)
    assert all(isinstance(shift, ImageShift) and shift.east == round(shift.east, 2) for shift in found)
