"""Items as the real catalogs return them, and the metadata of a real EnMAP product."""

from __future__ import annotations

import itertools
import json
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pystac
import pytest
import shapely
import yaml

import h2crop_data
from h2crop_data.catalog.acquisitions import datatake_time, l1c_of_items, newest_of_each_acquisition
from h2crop_data.catalog.inventory import items_from_parquet, items_to_parquet
from h2crop_data.catalog.item_facts import (
    baseline,
    enmap_scene,
    offset_evidence,
    sentinel2_asset,
    sentinel2_tile,
)
from h2crop_data.catalog.items import acquired, item_epsg
from h2crop_data.catalog.search import find_items
from h2crop_data.constants import SENTINEL2_BANDS
from h2crop_data.enmap.product import Product, parse_metadata, select_bands
from h2crop_data.errors import SceneError
from h2crop_data.recipe.model import EnmapSettings
from h2crop_data.sentinel2.reflectance import decide_offset
from h2crop_data.sentinel2.sun import sun_angles
from h2crop_data.sources.enmap.select import enmap_refusal

SENTINEL2_CATALOGS = ("earth_search_v1", "planetary_computer", "cdse")
#: Collection of each catalog -> what to add to its numbers.
OFFSETS = {
    ("planetary_computer", "sentinel-2-l2a"): ("02.12", 0),
    ("cdse", "sentinel-2-l2a"): ("05.00", -1000),
    ("earth_search_v1", "sentinel-2-c1-l2a"): ("05.11", -1000),
}


def recorded(shared: Path, catalog: str) -> list[pystac.Item]:
    """The items recorded from a catalog."""
    document = json.loads((shared / "stac" / f"{catalog}_items.json").read_text())
    items = [pystac.Item.from_dict(feature, migrate=False) for feature in document["features"]]
    assert items
    return items


def spelled(item: pystac.Item) -> tuple[str, str, str]:
    """Datatake, tile and baseline as the product's name in one of its fields or its id spells them."""
    name = item.properties.get("s2:product_uri", item.id)
    _, _, datatake, version, _, tile, *_ = name.split("_")
    return datatake, tile.removeprefix("T"), f"{version[1:3]}.{version[3:]}"


class TestSentinel2:
    @pytest.mark.parametrize("catalog", SENTINEL2_CATALOGS)
    def test_every_item_yields_datatake_tile_and_baseline(self, shared: Path, catalog: str) -> None:
        for item in recorded(shared, catalog):
            assert (datatake_time(item), sentinel2_tile(item), str(baseline(item))) == spelled(item)
            zone = int(sentinel2_tile(item)[:2])
            # The letter of the latitude band: N and later are north of the equator.
            assert item_epsg(item) == (32600 if sentinel2_tile(item)[2] >= "N" else 32700) + zone

    @pytest.mark.parametrize("catalog", SENTINEL2_CATALOGS)
    def test_every_l2a_item_has_all_bands_and_classes_at_their_own_resolution(self, shared: Path, catalog: str) -> None:
        l2a = [item for item in recorded(shared, catalog) if str(item.collection_id).endswith("l2a")]
        assert l2a
        for item in l2a:
            keys = [sentinel2_asset(item, band) for band in SENTINEL2_BANDS]
            assert len(set(keys)) == 10
            for band, key in zip((*SENTINEL2_BANDS, "SCL"), (*keys, sentinel2_asset(item, "SCL")), strict=True):
                facts = item.assets[key].extra_fields
                size = 10 if band in ("B02", "B03", "B04", "B08") else 20
                assert abs(facts["proj:transform"][0]) == size
                named = [one.get("name") for one in facts.get("eo:bands", facts.get("bands", []))]
                assert band in named or band == "SCL"

    def test_level_1_has_no_scene_classification(self, shared: Path) -> None:
        l1c = [item for item in recorded(shared, "earth_search_v1") if item.collection_id == "sentinel-2-l1c"]
        assert l1c
        for item in l1c:
            with pytest.raises(SceneError, match="SCL"):
                sentinel2_asset(item, "SCL")

    @pytest.mark.parametrize(("source", "expected"), OFFSETS.items())
    def test_offsets(self, shared: Path, source: tuple[str, str], expected: tuple[str, int]) -> None:
        catalog, collection = source
        items = [item for item in recorded(shared, catalog) if item.collection_id == collection]
        assert items
        for item in items:
            assert baseline(item) == expected[0]
            assert decide_offset("auto", offset_evidence(item)).offset == expected[1]

    def test_earth_search_l2a_contradicts_itself_and_is_refused(self, shared: Path) -> None:
        """Its flag says the offset was removed, its bands' metadata say -0.1; a declaration decides."""
        items = [item for item in recorded(shared, "earth_search_v1") if item.collection_id == "sentinel-2-l2a"]
        assert items
        for item in items:
            evidence = offset_evidence(item)
            assert evidence.removed is True
            assert evidence.stated == dict.fromkeys(SENTINEL2_BANDS, -0.1)
            assert not evidence.jpeg2000
            with pytest.raises(SceneError, match="contradiction"):
                decide_offset("auto", evidence)
            assert decide_offset(0, evidence).offset == 0

    def test_collection_1_and_the_older_collection_list_the_same_acquisitions(self, shared: Path) -> None:
        l2a = [item for item in recorded(shared, "earth_search_v1") if str(item.collection_id).endswith("l2a")]
        kept = newest_of_each_acquisition(l2a)
        assert len(kept.items) == len(kept.replaced) == len(l2a) / 2
        assert {sentinel2_tile(item) for item in kept.items} == {sentinel2_tile(item) for item in l2a}

    def test_tiles_of_one_datatake_on_both_sides_of_a_zone_border_all_stay(self, shared: Path) -> None:
        items = recorded(shared, "planetary_computer")
        assert {item_epsg(item) for item in items} == {32659, 32660}
        assert len(newest_of_each_acquisition(items).items) == len(items)


@pytest.mark.parametrize("catalog", [*SENTINEL2_CATALOGS, "dlr_enmap_l2a"])
def test_recorded_items_are_found_as_a_local_catalog(shared: Path, catalog: str) -> None:
    items = recorded(shared, catalog)
    span = datetime(2015, 1, 1, tzinfo=UTC), datetime(2030, 1, 1, tzinfo=UTC)
    for collection in {str(item.collection_id) for item in items}:
        path = str(shared / "stac" / f"{catalog}_items.json")
        found = find_items(path, collection, shapely.box(-180, -90, 180, 90), *span)
        assert found.refused == []
        assert [item.id for item in found.items] == sorted(
            item.id for item in items if item.collection_id == collection
        )


@pytest.mark.parametrize("catalog", [*SENTINEL2_CATALOGS, "dlr_enmap_l2a"])
def test_the_inventory_gives_recorded_items_back(shared: Path, catalog: str) -> None:
    """Equal but for nulls, which are dropped, and the spelling of times."""
    items = recorded(shared, catalog)
    back = items_from_parquet(items_to_parquet(items))
    for one, other in zip(items, back, strict=True):
        assert comparable(one) == comparable(other)


def comparable(item: pystac.Item) -> Any:
    """An item as plain data, without nulls and with times as times."""

    def plain(value: Any, key: str = "") -> Any:
        if isinstance(value, dict):
            return {name: plain(member, name) for name, member in value.items() if member is not None}
        if isinstance(value, list):
            return [plain(member) for member in value]
        if key in ("datetime", "start_datetime", "end_datetime", "created", "updated"):
            return datetime.fromisoformat(value)
        return value

    return plain(item.to_dict(include_self_link=False, transform_hrefs=False))


@pytest.fixture(scope="module")
def france() -> EnmapSettings:
    """The EnMAP settings of the shipped recipe for France, for scenes of any month."""
    recipe = Path(h2crop_data.__file__).parent / "recipe" / "shipped" / "h2crop-france.yaml"
    settings = yaml.safe_load(recipe.read_text())["enmap"]
    return EnmapSettings(**{**settings, "months": list(range(1, 13))})


CLEAR = "ENMAP01-____L2A-DT0000024647_20230629T110132Z_025_V010402_20240630T020748Z"
NIGHT = "ENMAP01-____L2A-DT0000008049_20230225T214731Z_002_V010402_20240418T114008Z"


class TestEnmap:
    def test_only_the_clear_scene_is_taken(self, shared: Path, france: EnmapSettings) -> None:
        items = recorded(shared, "dlr_enmap_l2a")
        assert len(items) == 4
        taken = [item.id for item in items if enmap_refusal(enmap_scene(item), france) is None]
        assert taken == [CLEAR]

    def test_the_facts_of_the_clear_scene(self, shared: Path) -> None:
        scene = {item.id: enmap_scene(item) for item in recorded(shared, "dlr_enmap_l2a")}[CLEAR]
        assert (scene.datatake, scene.tile, scene.stamp) == ("0000024647", "025", "20230629T110132")
        assert (scene.quality, scene.cloud_cover) == (0, 0)
        assert scene.sun_elevation == pytest.approx(64.97, abs=0.01)
        # Before noon in Europe the sun stands in the south-east.
        assert scene.sun_azimuth == pytest.approx(170.87, abs=0.01)
        assert abs(scene.across_off_nadir or 0) <= 30

    def test_the_night_scene_is_refused_whatever_the_limits(self, shared: Path) -> None:
        scene = {item.id: enmap_scene(item) for item in recorded(shared, "dlr_enmap_l2a")}[NIGHT]
        tolerant = EnmapSettings(catalog="x", max_quality=2, min_sun_elevation=-90, max_cloud_cover=100)
        assert scene.cloud_cover == 0
        assert scene.sun_elevation is None
        assert "night" in str(enmap_refusal(scene, tolerant))

    def test_names_and_items_agree_on_the_time(self, shared: Path) -> None:
        """The item's datetime lies within the seconds the scene took."""
        for item in recorded(shared, "dlr_enmap_l2a"):
            assert 0 <= (acquired(item) - enmap_scene(item).time).total_seconds() < 5


@pytest.fixture(scope="module")
def potsdam(shared: Path) -> Product:
    """The metadata of the real product."""
    (path,) = (shared / "potsdam_2022").glob("*/*METADATA.XML")
    return parse_metadata(path.read_text(encoding="utf-8"))


class TestRealProduct:
    def test_224_bands_in_the_sensors_range(self, potsdam: Product) -> None:
        assert len(potsdam.bands) == 224
        assert all(415 < band.wavelength < 2455 for band in potsdam.bands)
        assert all(5 < band.fwhm < 13 for band in potsdam.bands)
        assert {(band.gain, band.offset) for band in potsdam.bands} == {(1e-4, 0.0)}
        assert potsdam.angles.sun_elevation == 56.0

    def test_218_are_stored_in_order_of_wavelength(self, potsdam: Product) -> None:
        default = EnmapSettings(catalog="x").bands
        kept = select_bands(potsdam.bands, default.exclude_nm, default.count)
        wavelengths = [band.wavelength for band in kept]
        assert len(kept) == 218
        assert all(one < longer for one, longer in itertools.pairwise(wavelengths))
        left_out = [band for band in potsdam.bands if band not in kept]
        assert [band.number for band in left_out] == [130, 131, 132, 133, 134, 135]
        assert all(1331 <= band.wavelength <= 1391 for band in left_out)


def test_the_sun_stands_where_items_of_whole_granules_say(shared: Path) -> None:
    """Within 2 degrees: what the size of a granule makes, and footprints whose middle is not the granule's."""
    compared = 0
    for item in recorded(shared, "earth_search_v1"):
        azimuth, elevation = (item.properties.get(f"view:sun_{angle}") for angle in ("azimuth", "elevation"))
        if azimuth is None or elevation is None or item.geometry is None:
            continue
        middle = shapely.geometry.shape(item.geometry).centroid
        found = sun_angles(acquired(item), middle.x, middle.y)
        assert abs(found[0] - azimuth) < 2, item.id
        assert abs(found[1] - elevation) < 2, item.id
        compared += 1
    assert compared >= 4


def test_each_l2a_item_finds_the_l1c_of_its_granule(shared: Path) -> None:
    items = recorded(shared, "earth_search_v1")
    l1c = [item for item in items if item.id.endswith("_L1C")]
    l2a = [
        item for item in items if item.id.endswith("_L2A") and item.id.replace("_L2A", "_L1C") in {o.id for o in l1c}
    ]
    assert l2a
    found = l1c_of_items(l2a, l1c)
    assert found == {item.id: [o for o in l1c if o.id == item.id.replace("_L2A", "_L1C")] for item in l2a}
