"""Tiles by formula, and the items and metadata of simulated products, read by what reads real ones."""

from __future__ import annotations

import dataclasses
import json
from datetime import UTC, datetime, timedelta, timezone
from typing import Any
from xml.etree import ElementTree

import pystac
import pytest
import shapely
from hypothesis import given, settings
from hypothesis import strategies as st

from h2crop_data.catalog.acquisitions import datatake_time, newest_of_each_acquisition
from h2crop_data.catalog.item_facts import (
    ENMAP_NAME,
    baseline,
    enmap_scene,
    newest_products,
    offset_evidence,
    sentinel2_asset,
    sentinel2_tile,
)
from h2crop_data.catalog.items import item_epsg
from h2crop_data.constants import SENTINEL2_BANDS
from h2crop_data.enmap.product import PROCESSING_TAGS, Angles, Band, parse_metadata
from h2crop_data.enmap.quality import LAYERS
from h2crop_data.errors import SceneError
from h2crop_data.grid import LONLAT, to_crs
from h2crop_data.mgrs import tile_name
from h2crop_data.sentinel2.reflectance import OffsetEvidence, decide_offset
from h2crop_data.simulate.enmap import items as enmap_items
from h2crop_data.simulate.enmap.items import EnmapProduct
from h2crop_data.simulate.enmap.metadata import corners, metadata_xml, sun_at
from h2crop_data.simulate.sentinel2 import items as sentinel2_items
from h2crop_data.simulate.sentinel2.granules import Granule, reflectance_conversion
from h2crop_data.simulate.sentinel2.tiles import Tile, tile_at, tiles_over
from h2crop_data.simulate.sky.weather import sun_position

EARTH_SEARCH = ("sentinel-2-c1-l2a", "sentinel-2-l2a", "sentinel-2-l1c")
L2A_ARCHIVES = ("sentinel-2-c1-l2a", "sentinel-2-l2a", "planetary-computer", "copernicus")
ARCHIVES = (*L2A_ARCHIVES, "sentinel-2-l1c")
BOUNDS = (493200, 5375760, 501360, 5383920)


# Tiles


@pytest.mark.parametrize(
    ("epsg", "easting", "northing", "name"),
    [
        (32631, 3, 48, "31TCJ"),
        (32631, 4, 56, "31UDS"),
        (32631, 4, 54, "31UDQ"),  # Paris
        (32632, 6, 53, "32UPU"),  # Munich
        (32632, 5, 62, "32VNH"),  # Aarhus
        (32636, 6, 34, "36RXV"),  # Beersheba
        (32610, 5, 41, "10SEG"),  # San Francisco
        (32756, 3, 62, "56HLH"),  # Sydney
        (32734, 2, 62, "34HBH"),  # Cape Town
    ],
)
def test_squares_have_their_known_names(epsg: int, easting: int, northing: int, name: str) -> None:
    assert tile_name(epsg, easting * 100_000, northing * 100_000) == name


@pytest.mark.parametrize(
    ("epsg", "easting", "northing"),
    [(32631, 0, 50), (32631, 9, 50), (32631, 5, -1), (32731, 5, 100), (32631, 5, 99), (2154, 5, 50), (32661, 5, 50)],
)
def test_a_square_no_zone_has_is_refused(epsg: int, easting: int, northing: int) -> None:
    with pytest.raises(ValueError, match=r"EPSG:\d+"):
        tile_name(epsg, easting * 100_000, northing * 100_000)


def test_a_tile_is_larger_than_its_square_and_overlaps_its_neighbours() -> None:
    tile = tile_at(32631, 4, 56)
    assert tile == Tile("31UDS", 32631, (399960, 5590200, 509760, 5700000))
    assert tile_at(32631, 3, 48).bounds == (300000, 4790220, 409800, 4900020)
    east = tile_at(32631, 5, 56).bounds
    assert east[0] - tile.bounds[2] == -9780
    assert (tile.zone, tile.band, tile.square) == (31, "U", "DS")


def test_southern_tiles_end_with_pixels_counted_from_the_equator() -> None:
    """Recorded: 20EPT ends at 3300040, which is no multiple of 60."""
    assert tile_at(32720, 6, 32).bounds[3] == 3300040
    assert tile_at(32724, 3, 94).bounds[3] == 9500020


def test_tiles_over_an_area_are_those_that_share_ground_with_it() -> None:
    assert [tile.name for tile in tiles_over(32631, BOUNDS)] == ["31UDP", "31UEP"]
    assert [tile.name for tile in tiles_over(32631, (450000, 5650000, 451000, 5651000))] == ["31UDS"]
    # Beyond the square, within the tile; and one metre further.
    assert "31UDS" in [tile.name for tile in tiles_over(32631, (509700, 5650000, 509800, 5651000))]
    assert "31UDS" not in [tile.name for tile in tiles_over(32631, (509760, 5650000, 509800, 5651000))]


def test_a_square_that_lies_in_the_next_zone_has_no_tile() -> None:
    """At 60 N the zone ends at an easting of about 667 km: column 6 has a tile and reaches beyond it, column 7 none."""
    assert [tile.name for tile in tiles_over(32631, (690000, 6650000, 720000, 6651000))] == ["31VFG"]


@given(
    zone=st.integers(1, 60),
    longitude=st.floats(-2.9, 2.9),
    latitude=st.floats(-79, 79).filter(lambda latitude: abs(latitude) > 1e-4),
)
@settings(max_examples=60, deadline=None)
def test_every_place_lies_in_a_tile_of_its_zone(zone: int, longitude: float, latitude: float) -> None:
    epsg = (32600 if latitude >= 0 else 32700) + zone
    place = to_crs(shapely.Point(6 * zone - 183 + longitude, latitude), LONLAT, f"EPSG:{epsg}")
    tiles = tiles_over(epsg, (place.x, place.y, place.x + 0.1, place.y + 0.1))
    assert 1 <= len(tiles) <= 4
    for tile in tiles:
        west, south, east, north = tile.bounds
        assert (east - west, north - south) == (109800, 109800)
        assert west % 60 == 0
        assert (north - (10_000_000 if latitude < 0 else 0)) % 60 == 0
        assert west <= place.x <= east
        assert south <= place.y <= north
        assert tile.name.startswith(f"{zone:02d}")
    assert len({tile.name for tile in tiles}) == len(tiles)


# Sentinel-2


def make_granule(**changes: Any) -> Granule:
    tile = tile_at(32631, 4, 53)
    facts: dict[str, Any] = {
        "platform": "S2A",
        "tile": tile,
        "footprint": to_crs(shapely.box(*BOUNDS), "EPSG:32631", LONLAT),
        "bounds": BOUNDS,
        "sensing": datetime(2022, 7, 5, 10, 58, 12, 345000, UTC),
        "datatake": datetime(2022, 7, 5, 10, 56, 31, 24000, UTC),
        "generation": datetime(2022, 7, 5, 16, 44, 19, tzinfo=UTC),
        "relative_orbit": 8,
        "absolute_orbit": 36765,
        "baseline": "04.00",
        "classes": {4: 60.5, 5: 20.0, 3: 1.5, 8: 5.25, 9: 7.5, 10: 5.25},
        "nodata": 12.5,
        "sun_azimuth": 150.2,
        "sun_elevation": 61.7,
        "view_azimuth": 104.3,
        "view_incidence": 5.6,
    }
    return Granule(**{**facts, **changes})


def make_item(granule: Granule, archive: str) -> dict[str, Any]:
    bands = sentinel2_items.archive_form(archive).keys
    paths = {key: f"./products/{sentinel2_items.file_path(granule, archive, band)}" for band, key in bands.items()}
    sizes = {key: 1000 + number for number, key in enumerate(paths)}
    return sentinel2_items.sentinel2_item(granule, archive, paths, sizes, dict.fromkeys(paths, "ab" * 32))


def read(document: dict[str, Any]) -> pystac.Item:
    """As a reader gets it: through strict JSON."""
    return pystac.Item.from_dict(json.loads(json.dumps(document, allow_nan=False)), migrate=False)


@pytest.mark.parametrize("archive", ARCHIVES)
def test_the_reader_of_real_items_reads_simulated_ones(archive: str) -> None:
    item = read(make_item(make_granule(), archive))
    assert sentinel2_tile(item) == "31UDP"
    assert datatake_time(item) == "20220705T105631"
    assert baseline(item) == "04.00"
    assert item_epsg(item) == 32631
    for band in SENTINEL2_BANDS if archive == "sentinel-2-l1c" else (*SENTINEL2_BANDS, "SCL"):
        asset = item.assets[sentinel2_asset(item, band)]
        size = {"B02": 10, "B03": 10, "B04": 10, "B08": 10}.get(band, 20)
        assert asset.extra_fields["proj:shape"] == [8160 // size, 8160 // size]
        assert asset.extra_fields["proj:transform"] == [size, 0, BOUNDS[0], 0, -size, BOUNDS[3]]
        assert asset.extra_fields["gsd"] == size
    seen = datetime(2022, 7, 5, 10, 58, 12, 345000, UTC)
    started = datetime(2022, 7, 5, 10, 56, 31, 24000, UTC)
    assert item.datetime == (seen if archive in EARTH_SEARCH else started)
    assert item.properties["eo:cloud_cover"] == 18.0


@pytest.mark.parametrize("archive", ARCHIVES)
def test_the_same_granule_gives_the_same_bytes(archive: str) -> None:
    one, other = (json.dumps(make_item(make_granule(), archive)) for _ in range(2))
    assert one == other
    there = timezone(timedelta(hours=2))
    moved = {name: getattr(make_granule(), name).astimezone(there) for name in ("sensing", "datatake", "generation")}
    assert json.dumps(make_item(make_granule(**moved), archive)) == one


def test_a_time_without_zone_is_refused() -> None:
    with pytest.raises(ValueError, match="no time zone"):
        make_item(make_granule(generation=datetime(2022, 7, 5)), "copernicus")  # noqa: DTZ001


def test_ids_are_those_of_the_archives() -> None:
    granule = make_granule()
    assert {archive: sentinel2_items.archive_form(archive).id(granule) for archive in ARCHIVES} == {
        "sentinel-2-c1-l2a": "S2A_T31UDP_20220705T105627_L2A",
        "sentinel-2-l2a": "S2A_31UDP_20220705_0_L2A",
        "sentinel-2-l1c": "S2A_31UDP_20220705_0_L1C",
        "planetary-computer": "S2A_MSIL2A_20220705T105631_R008_T31UDP_20220705T164419",
        "copernicus": "S2A_MSIL2A_20220705T105631_N0400_R008_T31UDP_20220705T164419",
    }


def test_files_lie_where_the_archives_keep_them() -> None:
    safe = (
        "S2A_MSIL2A_20220705T105631_N0400_R008_T31UDP_20220705T164419.SAFE/GRANULE/L2A_T31UDP_A036765_20220705T105627"
    )
    image = f"{safe}/IMG_DATA/R20m/T31UDP_20220705T105631_B8A_20m.tif"
    granule = make_granule()
    assert {archive: sentinel2_items.file_path(granule, archive, "B8A") for archive in ARCHIVES} == {
        "sentinel-2-c1-l2a": "31/U/DP/2022/7/S2A_T31UDP_20220705T105627_L2A/B8A.tif",
        "sentinel-2-l2a": "31/U/DP/2022/7/S2A_31UDP_20220705_0_L2A/B8A.tif",
        "sentinel-2-l1c": "tiles/31/U/DP/2022/7/5/0/B8A.tif",
        "planetary-computer": f"31/U/DP/2022/07/05/{image}",
        "copernicus": f"L2A_N0400/2022/07/05/{image}",
    }


@pytest.mark.parametrize("archive", ARCHIVES)
def test_of_an_acquisition_listed_twice_the_newer_processing_is_kept(archive: str) -> None:
    first = make_granule(sequence=1)
    again = make_granule(baseline="05.10", generation=datetime(2024, 1, 6, 3, 2, 1, tzinfo=UTC))
    older, newer = read(make_item(first, archive)), read(make_item(again, archive))
    assert older.id != newer.id
    acquisition = newest_of_each_acquisition([newer, older])
    assert [item.id for item in acquisition.items] == [newer.id]
    assert acquisition.replaced == {older.id: newer.id}
    paths = [sentinel2_items.file_path(granule, archive, "B02") for granule in (first, again)]
    assert paths[0] != paths[1]


def test_what_items_say_of_the_offset() -> None:
    def evidence(archive: str, **changes: Any) -> OffsetEvidence:
        return offset_evidence(read(make_item(make_granule(**changes), archive)))

    def told(archive: str, **changes: Any) -> tuple[str | None, bool | None, set[float]]:
        """Baseline, flag, and what the bands state, which is the same for all of them."""
        found = evidence(archive, **changes)
        assert set(found.stated) in (set(), set(SENTINEL2_BANDS))
        assert found.bands == set(SENTINEL2_BANDS)
        return found.baseline, found.removed, set(found.stated.values())

    assert told("sentinel-2-c1-l2a") == ("04.00", None, {-0.1})
    assert told("sentinel-2-l1c") == ("04.00", None, {-0.1})
    assert told("copernicus") == ("04.00", None, {-0.1})
    assert told("planetary-computer") == ("04.00", None, set())
    assert told("sentinel-2-l2a", baseline="03.01") == ("03.01", None, {0})
    assert told("sentinel-2-l2a", offset_flag=True) == ("04.00", True, {-0.1})
    removed = {"offset_flag": True, "stated_offset": 0.0}
    assert told("sentinel-2-l2a", **removed) == ("04.00", True, {0})
    assert decide_offset("auto", evidence("sentinel-2-l2a", **removed)).offset == 0
    # As the archive really writes it: flag and bands contradict each other.
    with pytest.raises(SceneError, match="contradiction"):
        decide_offset("auto", evidence("sentinel-2-l2a", offset_flag=True))
    for archive in set(ARCHIVES) - {"sentinel-2-l2a"}:
        assert evidence(archive, offset_flag=True).removed is None


@pytest.mark.parametrize("archive", L2A_ARCHIVES)
def test_shares_of_classes_are_told(archive: str) -> None:
    properties = make_item(make_granule(), archive)["properties"]
    if archive == "copernicus":
        shares = properties["statistics"]
        told = (shares["vegetation"], shares["high_proba_clouds"], shares["water"], shares["nodata"])
    else:
        names = ("vegetation", "high_proba_clouds", "water", "nodata_pixel")
        told = tuple(properties[f"s2:{name}_percentage"] for name in names)
    assert told == (60.5, 7.5, 0, 12.5)


def test_copernicus_lists_the_classes_with_their_values() -> None:
    classes = make_item(make_granule(), "copernicus")["assets"]["SCL_20m"]["classification:classes"]
    assert [one["value"] for one in classes] == list(range(12))
    assert classes[0] == {"name": "no_data", "value": 0, "percentage": 12.5, "nodata": True}
    assert classes[9] == {"name": "cloud_high_probability", "value": 9, "percentage": 7.5}
    assert classes[11]["name"] == "snow"


@pytest.mark.parametrize(
    ("generation", "strip"),
    [
        (datetime(2022, 7, 5, 16, 44, 19, tzinfo=UTC), "DS_2BPS_20220705T164419_S20220705T105627_N04.00"),
        # Made long after: by the campaign that processed the archive again.
        (datetime(2024, 1, 6, 3, 2, 1, tzinfo=UTC), "DS_S2RP_20240106T030201_S20220705T105627_N04.00"),
    ],
)
def test_a_strip_is_named_by_who_processed_it_and_when(generation: datetime, strip: str) -> None:
    granule = make_granule(generation=generation)
    for archive, level in {"sentinel-2-l1c": "L1C", "sentinel-2-l2a": "L2A", "planetary-computer": "L2A"}.items():
        assert make_item(granule, archive)["properties"]["s2:datastrip_id"] == f"S2A_OPER_MSI_{level}_{strip}"
    assert make_item(granule, "copernicus")["properties"]["eopf:datastrip_id"] == f"S2A_OPER_MSI_L2A_{strip}"


def test_size_and_checksum_stand_where_the_archive_writes_them() -> None:
    for archive in ARCHIVES:
        assets = make_item(make_granule(), archive)["assets"].values()
        told = [(asset.get("file:size"), asset.get("file:checksum")) for asset in assets]
        if archive in ("sentinel-2-c1-l2a", "copernicus"):
            assert told == [(1000 + number, "1220" + "ab" * 32) for number in range(len(told))]
        else:
            assert set(told) == {(None, None)}


def test_media_types_follow_the_files() -> None:
    granule = make_granule()
    document = sentinel2_items.sentinel2_item(granule, "sentinel-2-l1c", {"blue": "./B02.jp2", "red": "./B04.tif"})
    assert document["assets"]["blue"]["type"] == "image/jp2"
    assert document["assets"]["red"]["type"].startswith("image/tiff; application=geotiff")
    assert document["assets"]["red"]["href"] == "./B04.tif"


def test_what_an_archive_does_not_have_is_refused() -> None:
    with pytest.raises(ValueError, match="unknown archive 'usgs'; known: sentinel-2-c1-l2a"):
        sentinel2_items.sentinel2_item(make_granule(), "usgs", {})
    with pytest.raises(ValueError, match="unknown assets of sentinel-2-l2a cirrus"):
        sentinel2_items.sentinel2_item(make_granule(), "sentinel-2-l2a", {"cirrus": "./B10.tif"})
    with pytest.raises(ValueError, match="copernicus has no band B10"):
        sentinel2_items.asset_key("copernicus", "B10")
    with pytest.raises(ValueError, match="sentinel-2-l1c has no band SCL"):
        sentinel2_items.file_path(make_granule(), "sentinel-2-l1c", "SCL")


@pytest.mark.parametrize("archive", ARCHIVES)
def test_geometry_and_box_are_the_footprint(archive: str) -> None:
    granule = make_granule()
    document = make_item(granule, archive)
    ground = shapely.from_geojson(json.dumps(document["geometry"]))
    assert ground.equals(granule.footprint)
    assert ground.exterior.is_ccw
    assert document["bbox"] == pytest.approx(granule.footprint.bounds, abs=1e-6)


@pytest.mark.parametrize("archive", EARTH_SEARCH)
def test_an_item_says_that_it_is_simulated(archive: str) -> None:
    properties = make_item(make_granule(), archive)["properties"]
    assert list(properties["processing:software"]) == ["h2crop-simulate"]
    assert properties["earthsearch:payload_id"].startswith("simulated/")
    assert properties.get("earthsearch:s3_path", "s3://simulated/").startswith("s3://simulated/")


def test_the_sun_is_nearest_in_january() -> None:
    assert reflectance_conversion(datetime(2022, 1, 4, tzinfo=UTC)) == pytest.approx(1.0343, abs=1e-3)
    assert reflectance_conversion(datetime(2022, 7, 4, tzinfo=UTC)) == pytest.approx(0.9674, abs=1e-3)


# EnMAP


def make_product(**changes: Any) -> EnmapProduct:
    centres = tuple(round(418.24 + 9.1 * k, 3) for k in range(224))
    ground = shapely.Polygon([(490005, 5384010), (500805, 5386410), (502995, 5374995), (492195, 5372595)])
    facts: dict[str, Any] = {
        "datatake": 24647,
        "tile": 25,
        "start": datetime(2023, 6, 29, 11, 1, 32, 798420, UTC),
        "stop": datetime(2023, 6, 29, 11, 1, 37, 333108, UTC),
        "processed": datetime(2024, 6, 30, 2, 7, 48, 172455, UTC),
        "epsg": 32631,
        "shape": (461, 433),
        "transform": (30.0, 0.0, 490005.0, 0.0, -30.0, 5386425.0),
        "footprint": to_crs(ground, "EPSG:32631", LONLAT),
        "centres": centres,
        "fwhm": tuple(round(6 + 0.03 * k, 5) for k in range(224)),
        "quality": 0,
        "cloud": 3.4,
        "cloud_shadow": 1.2,
        "haze": 0.4,
        "cirrus": 7.6,
        "snow": 0.0,
        "water": 2.2,
        "sun_azimuth": 170.874064,
        "sun_elevation": 64.969432,
        "across_off_nadir": -16.9,
        "along_off_nadir": -0.97,
        "scene_azimuth": 14.547,
    }
    return EnmapProduct(**{**facts, **changes})


def make_enmap_item(product: EnmapProduct, **more: Any) -> dict[str, Any]:
    names = enmap_items.file_names(product)
    return enmap_items.enmap_item(product, {key: f"./products/{name}" for key, name in names.items()}, **more)


def test_the_reader_of_enmap_items_reads_simulated_ones() -> None:
    product = make_product()
    scene = enmap_scene(read(make_enmap_item(product)))
    assert scene.id == "ENMAP01-____L2A-DT0000024647_20230629T110132Z_025_V010402_20240630T020748Z"
    assert (scene.datatake, scene.tile, scene.stamp) == ("0000024647", "025", "20230629T110132")
    assert (scene.quality, scene.cloud_cover) == (0, 3)
    assert (scene.sun_elevation, scene.sun_azimuth) == (64.969432, 170.874064)
    assert scene.across_off_nadir == -16.9


def test_a_night_scene_is_known_as_one() -> None:
    document = make_enmap_item(make_product(sun_elevation=None))
    assert "view:sun_elevation" not in document["properties"]
    assert document["properties"]["enmap:sceneAOT"] == -999
    assert enmap_scene(read(document)).sun_elevation is None
    assert parse_metadata(metadata_xml(make_product(sun_elevation=None))).angles.sun_elevation == 0


def test_the_suns_azimuth_is_wrong_as_in_the_archive_and_right_in_the_archives_own_property() -> None:
    properties = make_enmap_item(make_product())["properties"]
    assert properties["view:sun_azimuth"] == pytest.approx(350.874064)
    assert properties["enmap:sunAzimuthAngle"] == 170.874064


def test_enmap_items_are_strict_json_and_the_same_every_time() -> None:
    counts = {"quality_cloud": {0: 90, 1: 10}, "quality_classes": {1: 50, 2: 20, 3: 30}}
    one, other = (json.dumps(make_enmap_item(make_product(), counts=counts), allow_nan=False) for _ in range(2))
    assert one == other
    assert metadata_xml(make_product()) == metadata_xml(make_product())


def test_an_enmap_item_says_that_it_is_simulated() -> None:
    properties = make_enmap_item(make_product())["properties"]
    assert properties["processing:facility"] == "simulated"
    assert properties["sci:citation"] == (
        "Simulated, not by DLR (2024): EnMAP L0 Product 0000024647_25_L0_20230629T110132_010402_240630 "
        "Processed to level 2A (parameters: U0BLNNTS312G)"
    )
    assert "simulated" in (ElementTree.fromstring(metadata_xml(make_product())).findtext("metadata/comment") or "")


def test_there_is_a_file_for_every_layer_the_build_reads() -> None:
    product = make_product()
    names = enmap_items.file_names(product)
    assert set(LAYERS) | {"image", "metadata"} == set(names)
    assert all(ENMAP_NAME.match(name) for name in names.values())
    assert names["image"].endswith("_20240630T020748Z-SPECTRAL_IMAGE_COG.TIF")
    assert names["quality_cloud_shadow"].endswith("Z-QL_QUALITY_CLOUDSHADOW_COG.TIF")
    assert enmap_items.file_folder(product) == "L2A/2023/06/29/DT0000024647/25"


def test_an_asset_enmap_does_not_have_is_refused() -> None:
    with pytest.raises(ValueError, match="unknown assets of EnMAP products vnir; known: metadata, image"):
        enmap_items.enmap_item(make_product(), {"vnir": "./QL_VNIR_COG.TIF"})


def test_the_newer_of_two_versions_is_kept() -> None:
    new = make_product(version="V010502", processed=datetime(2025, 1, 6, tzinfo=UTC))
    items = [read(make_enmap_item(product)) for product in (make_product(), new)]
    kept, replaced = newest_products(items)
    assert [item.id for item in kept] == [items[1].id]
    assert replaced == {items[0].id: items[1].id}
    assert items[1].properties["version"] == "01.05.02"


def test_assets_tell_the_grid_of_the_files() -> None:
    assets = make_enmap_item(make_product())["assets"]
    assert assets["image"]["proj:shape"] == [461, 433]
    assert assets["image"]["proj:transform"] == [30, 0, 490005, 0, -30, 5386425, 0, 0, 1]
    assert assets["image"]["proj:bbox"] == [490005, 5372595, 502995, 5386425]
    assert shapely.from_geojson(json.dumps(assets["image"]["proj:geometry"])).bounds == (
        490005,
        5372595,
        502995,
        5386425,
    )
    assert assets["quality_haze"]["proj:epsg"] == 32631
    assert len(assets["image"]["eo:bands"]) == 224
    assert assets["image"]["eo:bands"][1] == {
        "name": 2,
        "center_wavelength": 427.34,
        "full_width_half_max": 6.03,
        "enmap:gain_of_band": 0.0001,
        "enmap:offset_of_band": 0,
    }


def test_statistics_of_layers_are_of_their_pixels() -> None:
    counts = {"quality_classes": {1: 60, 2: 20, 3: 20}, "quality_snow": {0: 100}}
    assets = make_enmap_item(make_product(), counts=counts)["assets"]
    classes, snow = assets["quality_classes"]["raster:bands"][0], assets["quality_snow"]["raster:bands"][0]
    assert classes["nodata"] == 3.0
    assert classes["statistics"] == {
        "mean": pytest.approx(1.25),
        "minimum": 1,
        "maximum": 2,
        "stddev": pytest.approx(0.4330127),
        "valid_percent": 80.0,
    }
    assert classes["histogram"] == {"count": 11, "min": 1.0, "max": 2.0, "buckets": [60, *[0] * 8, 20]}
    assert snow["histogram"] == {"count": 11, "min": -0.5, "max": 0.5, "buckets": [*[0] * 5, 100, *[0] * 4]}
    assert "statistics" not in assets["quality_haze"]["raster:bands"][0]


def test_metadata_read_back_exactly() -> None:
    product = make_product(correction="Combined", terrain_correction="Yes", ozone=381, aerosol=77, water_vapour=2091)
    told = parse_metadata(metadata_xml(product))
    assert told.bands == tuple(
        Band(number, centre, width, 1e-4, 0.0, "vnir" if centre < 900 else "swir")
        for number, (centre, width) in enumerate(zip(product.centres, product.fwhm, strict=True), 1)
    )
    assert told.angles.sun_elevation == 64.969432
    assert told.background == -32768
    values = ("01.04.02", "Combined", "Yes", "No", "No", "Clear", "summer", "381", "77", "2091")
    assert told.processing == dict(zip(PROCESSING_TAGS, values, strict=True))
    assert told.angles == Angles(64.969432, 170.874064, -16.9, -0.97)


def test_metadata_have_the_tags_other_readers_look_for() -> None:
    product = make_product()
    root = ElementTree.fromstring(metadata_xml(product))
    assert root.tag == "level_X"
    texts = {
        "metadata/schema/processingLevel": "L2A",
        "metadata/name": enmap_items.file_names(product)["metadata"],
        "base/temporalCoverage/startTime": "2023-06-29T11:01:32.798420Z",
        "base/temporalCoverage/stopTime": "2023-06-29T11:01:37.333108Z",
        "specific/qualityFlag/overallQuality": "0",
        "specific/qualityFlag/cloudCover": "3",
        "specific/backgroundValue": "-32768",
        "specific/numberOfVNIRBands": "91",
        "specific/numberOfSWIRBands": "133",
        "specific/sunAzimuthAngle/center": "170.874064",
        "specific/acrossOffNadirAngle/lower_left": "-16.9",
        "specific/widthOfOrthoScene": "433",
        "product/image/merge/channels": "224",
        "product/ortho/projection": "UTM_Zone31_North",
    }
    assert {path: root.findtext(path) for path in texts} == texts
    frames = [node.text for node in root.findall("base/spatialCoverage/boundingPolygon/point/frame")]
    assert frames == ["upper_left", "upper_right", "lower_right", "lower_left", "center"]


def test_the_corners_of_a_swath_are_told_in_their_order() -> None:
    product = make_product()
    found = corners(product.footprint)
    west, south, east, north = product.footprint.bounds
    assert found["upper_left"][0] == pytest.approx(west)
    assert found["upper_right"][1] == pytest.approx(north)
    assert found["lower_right"][0] == pytest.approx(east)
    assert found["lower_left"][1] == pytest.approx(south)


def test_the_sun_at_the_corners_is_the_same_sun() -> None:
    moment = datetime(2023, 6, 29, 11, 1, 34, tzinfo=UTC)
    product = make_product()
    centre = product.footprint.centroid
    sun = sun_position(moment, centre.x, centre.y)
    product = dataclasses.replace(product, sun_elevation=sun.elevation, sun_azimuth=sun.azimuth)
    for place in corners(product.footprint).values():
        there = sun_position(moment, *place)
        assert sun_at(product, *place) == pytest.approx((there.elevation, there.azimuth), abs=2e-3)
    assert len({sun_at(product, *place) for place in corners(product.footprint).values()}) == 4


@pytest.mark.parametrize(
    ("month", "mirrored", "season"), [(6, False, "summer"), (2, False, "winter"), (6, True, "winter")]
)
def test_the_season_is_the_grounds(month: int, mirrored: bool, season: str) -> None:
    product = make_product(start=datetime(2023, month, 9, 11, tzinfo=UTC))
    if mirrored:
        product = dataclasses.replace(product, footprint=shapely.box(10, -31, 11, -30))
    assert make_enmap_item(product)["properties"]["enmap:season"] == season
