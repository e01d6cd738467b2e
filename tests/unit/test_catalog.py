"""Catalogs: local ItemCollections, the inventory of pinned items, what each provider calls things, EnMAP refusals."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pystac
import pytest
import shapely
from stac_items import item_json, item_of

from h2crop_data.catalog.acquisitions import datatake_time, newest_of_each_acquisition
from h2crop_data.catalog.collections import add_items
from h2crop_data.catalog.inventory import items_from_parquet, items_to_parquet
from h2crop_data.catalog.item_facts import (
    EnmapScene,
    baseline,
    enmap_scene,
    offset_evidence,
    sentinel2_asset,
    sentinel2_tile,
)
from h2crop_data.catalog.items import acquired, item_epsg
from h2crop_data.catalog.search import find_items
from h2crop_data.constants import SENTINEL2_BANDS
from h2crop_data.errors import CatalogError, SceneError
from h2crop_data.recipe.model import EnmapSettings
from h2crop_data.sentinel2.reflectance import OffsetEvidence
from h2crop_data.sources.enmap.select import enmap_refusal

AREA = shapely.box(5.2, 50.2, 5.3, 50.3)
JUNE = (datetime(2022, 6, 1, tzinfo=UTC), datetime(2022, 7, 1, tzinfo=UTC))


def as_json(item: pystac.Item) -> dict[str, Any]:
    """An item as plain JSON, without asking any catalog for its links."""
    plain: dict[str, Any] = item.to_dict(include_self_link=False, transform_hrefs=False)
    return plain


def collection_file(folder: Path, *features: Any) -> Path:
    """An ItemCollection in a folder."""
    path = folder / "items.json"
    path.write_text(json.dumps({"type": "FeatureCollection", "features": features}), encoding="utf-8")
    return path


def found(path: Path, collection: str = "sentinel-2-l2a", area: Any = AREA) -> list[str]:
    """Ids of the items of June 2022."""
    return [item.id for item in find_items(str(path), collection, area, *JUNE).items]


class TestLocalSearch:
    def test_relative_hrefs_become_absolute_paths(self, tmp_path: Path) -> None:
        hrefs = {
            "blue": "./S2/blue.tif",
            "red": "red.tif",
            "up": "../elsewhere/green.tif",
            "absolute": "/data/nir.tif",
            "remote": "https://example.com/scl.tif",
            "bucket": "s3://bucket/key.jp2",
        }
        folder = tmp_path / "catalog"
        folder.mkdir()
        path = collection_file(folder, item_json("a", assets={key: {"href": href} for key, href in hrefs.items()}))
        (item,) = find_items(str(path), "sentinel-2-l2a", AREA, *JUNE).items
        assert {key: asset.href for key, asset in item.assets.items()} == {
            "blue": str(folder / "S2" / "blue.tif"),
            "red": str(folder / "red.tif"),
            "up": str(tmp_path / "elsewhere" / "green.tif"),
            "absolute": "/data/nir.tif",
            "remote": "https://example.com/scl.tif",
            "bucket": "s3://bucket/key.jp2",
        }

    def test_the_time_window_is_half_open(self, tmp_path: Path) -> None:
        times = {
            "before": "2022-05-31T23:59:59.999Z",
            "start": "2022-06-01T00:00:00Z",
            "last": "2022-06-30T23:59:59.999Z",
            "end": "2022-07-01T00:00:00Z",
            "other-zone-in": "2022-07-01T01:59:00+02:00",
            "other-zone-out": "2022-06-01T01:59:00+02:00",
        }
        path = collection_file(tmp_path, *(item_json(name, time=time) for name, time in times.items()))
        assert found(path) == ["last", "other-zone-in", "start"]

    def test_an_item_with_a_range_counts_from_its_start(self, tmp_path: Path) -> None:
        span = {"start_datetime": "2022-06-30T23:59:59Z", "end_datetime": "2022-07-01T00:00:03Z"}
        late = {"start_datetime": "2022-07-01T00:00:00Z", "end_datetime": "2022-07-01T00:00:03Z"}
        path = collection_file(tmp_path, item_json("in", time=None, **span), item_json("out", time=None, **late))
        assert found(path) == ["in"]

    def test_only_items_that_meet_the_area_are_found(self, tmp_path: Path) -> None:
        boxes = {
            "covers": (5, 50, 6, 51),
            "inside": (5.24, 50.24, 5.26, 50.26),
            "overlaps": (5.29, 50.29, 5.4, 50.4),
            "beside": (5.31, 50.2, 5.4, 50.3),
            "far": (-70, -10, -69, -9),
        }
        nowhere = {**item_json("nowhere"), "geometry": None}
        # Its bounding box meets the area, its outline does not.
        corner = item_json("corner")
        corner["geometry"] = json.loads(shapely.to_geojson(shapely.Polygon([(5, 50), (6, 50), (6, 50.1)])))
        path = collection_file(tmp_path, *(item_json(n, box=box) for n, box in boxes.items()), nowhere, corner)
        assert found(path) == ["covers", "inside", "overlaps"]

    def test_only_the_collection_asked_for_and_items_of_none_are_found(self, tmp_path: Path) -> None:
        path = collection_file(
            tmp_path,
            item_json("b"),
            item_json("c", collection="sentinel-2-l1c"),
            item_json("a", collection=None),
        )
        assert found(path) == ["a", "b"]
        assert found(path, "sentinel-2-l1c") == ["a", "c"]

    def test_an_item_listed_twice_is_found_once(self, tmp_path: Path) -> None:
        assert found(collection_file(tmp_path, item_json("b"), item_json("a"), item_json("b"))) == ["a", "b"]

    @pytest.mark.parametrize(
        "text",
        [
            "",
            "{",
            '{"type": "FeatureCollection", "features": [',
            "[]",
            "null",
            "<!doctype html><html></html>",
            '{"type": "Catalog"}',
            '{"features": null}',
            '{"features": {"a": 1}}',
            '{"features": [1]}',
            '{"features": ["a"]}',
            '{"features": [{"id": "a"}]}',
        ],
    )
    def test_damaged_json_is_an_error_that_names_the_file(self, tmp_path: Path, text: str) -> None:
        path = tmp_path / "items.json"
        path.write_text(text)
        with pytest.raises(CatalogError, match=str(path)):
            found(path)

    @pytest.mark.parametrize(
        ("damage", "reason"),
        [
            (
                {"properties": {"datetime": "yesterday"}},
                "expected a time as text in `datetime`, got 'yesterday'",
            ),
            ({"properties": {"datetime": "9" * 30}}, "expected a time as text"),
            ({"properties": {"datetime": 20220615}}, "expected a time as text in `datetime`, got 20220615"),
            ({"properties": None}, "expected an object as its properties, got None"),
            ({"assets": None}, "expected an object as its assets, got None"),
            ({"assets": {"blue": {}}}, "its asset blue has no address (`href`)"),
            ({"assets": {"blue": {"href": None}}}, "its asset blue has no address (`href`)"),
            ({"assets": {"blue": None}}, "its asset blue has no address (`href`)"),
            ({"links": None}, "expected a list as its links, got None"),
            ({"links": ["x"]}, "is not a STAC item"),
            ({"stac_version": None}, "is not a STAC item"),
            ({"collection": 5}, "expected text as its collection, got 5"),
            ({"collection": ["a"]}, "expected text as its collection, got ['a']"),
            ({"id": 7}, "expected text as its id, got 7"),
            ({"id": None}, "expected text as its id, got None"),
        ],
    )
    def test_a_damaged_item_is_listed_with_the_reason_and_hides_no_other(
        self, tmp_path: Path, damage: dict[str, Any], reason: str
    ) -> None:
        broken = {**item_json("S2_broken"), **damage}
        away = {**item_json("away", box=(-70, -10, -69, -9)), **{k: v for k, v in damage.items() if k != "id"}}
        other = {**broken, "collection": "sentinel-2-l1c"}
        path = collection_file(tmp_path, item_json("good"), broken, broken, away, other)
        result = find_items(str(path), "sentinel-2-l2a", AREA, *JUNE)
        assert [item.id for item in result.items] == ["good"]
        found_broken = [(item.id, told) for item, told in result.refused]
        name = {7: "7", None: "feature 1"}[damage["id"]] if "id" in damage else "S2_broken"
        assert found_broken[0][0] == name
        # Without an id two are two.
        assert len(found_broken) == (2 if damage == {"id": None} else 1)
        assert all(reason in told for _, told in found_broken)

    def test_a_damaged_item_of_another_time_is_none_that_was_asked_for(self, tmp_path: Path) -> None:
        late = {**item_json("late", time="2023-06-15T10:30:00Z"), "assets": None}
        result = find_items(str(collection_file(tmp_path, item_json("good"), late)), "sentinel-2-l2a", AREA, *JUNE)
        assert [item.id for item in result.items] == ["good"]
        assert result.refused == []

    def test_a_list_that_grows_is_not_written_without_its_damaged_items(self, tmp_path: Path) -> None:
        path = collection_file(tmp_path, item_json("good"), {**item_json("S2_broken"), "assets": None})
        before = path.read_bytes()
        with pytest.raises(
            CatalogError, match="S2_broken is not a STAC item: expected an object as its assets, got None"
        ):
            add_items(path, [item_of("new")])
        assert path.read_bytes() == before

    @pytest.mark.parametrize(
        "times",
        [
            {"datetime": None},
            {},
            {"datetime": None, "start_datetime": None, "end_datetime": None},
            {"datetime": None, "start_datetime": "yesterday", "end_datetime": "today"},
        ],
    )
    def test_an_item_without_a_time_is_listed_with_the_reason(self, tmp_path: Path, times: dict[str, Any]) -> None:
        timeless = {**item_json("timeless"), "properties": times}
        elsewhere = {**item_json("elsewhere", box=(-70, -10, -69, -9)), "properties": times}
        result = find_items(
            str(collection_file(tmp_path, item_json("good"), timeless, elsewhere)), "sentinel-2-l2a", AREA, *JUNE
        )
        assert [item.id for item in result.items] == ["good"]
        ((item, reason),) = result.refused
        assert item.id == "timeless"
        assert "time" in reason

    @pytest.mark.parametrize(
        "times",
        [
            {"start_datetime": "2022-06-15T10:50:31Z"},
            {"end_datetime": "2022-06-15T10:50:31Z"},
            {"start_datetime": "2022-06-15T10:50:31Z", "end_datetime": None},
            {"datetime": None, "start_datetime": None, "end_datetime": "2022-06-15T10:50:31Z"},
        ],
    )
    def test_an_open_range_counts_from_the_side_it_states(self, tmp_path: Path, times: dict[str, Any]) -> None:
        result = find_items(
            str(collection_file(tmp_path, {**item_json("open"), "properties": times})), "sentinel-2-l2a", AREA, *JUNE
        )
        assert [item.id for item in result.items] == ["open"]
        assert acquired(result.items[0]) == datetime(2022, 6, 15, 10, 50, 31, tzinfo=UTC)

    @pytest.mark.parametrize("value", [None, [], {}, "", "x", 5, True, [None], [1, "a"], {"a": None}], ids=repr)
    @pytest.mark.parametrize(
        "member",
        [
            *("geometry", "geometry.type", "geometry.coordinates", "bbox", "collection", "properties", "links"),
            *("properties.datetime", "properties.proj:epsg", "properties.proj:bbox", "properties.s2:mgrs_tile"),
            *("assets", "assets.blue"),
        ],
    )
    def test_an_odd_member_is_understood_or_a_reason_or_an_error_that_names_the_item(
        self, tmp_path: Path, member: str, value: Any
    ) -> None:
        odd = item_json("odd")
        *inside, name = member.split(".")
        place = odd
        for key in inside:
            place = place[key]
        place[name] = value
        path = collection_file(tmp_path, item_json("good"), odd)
        try:
            result = find_items(str(path), "sentinel-2-l2a", AREA, *JUNE)
        except CatalogError as error:
            named = str(error).split()
        else:
            kept = [item.id for item in result.items]
            assert "good" in kept
            assert [item.id for item in items_from_parquet(items_to_parquet(result.items))] == kept
            named = kept + [item.id for item, reason in result.refused if reason]
        # Items of another collection are none that were asked for.
        assert "odd" in named or member == "collection"

    @pytest.mark.parametrize(("west", "east"), [(-180.3, -179.9), (179.9, 180.3)])
    def test_ground_beyond_180_degrees_is_used(self, tmp_path: Path, west: float, east: float) -> None:
        ground = json.loads(shapely.to_geojson(shapely.box(west, -17, east, -16)))
        path = collection_file(tmp_path, {**item_json("over"), "geometry": ground})
        for longitude in (179.8, -179.95):
            area = shapely.box(longitude, -16.9, longitude + 0.15, -16.8)
            result = find_items(str(path), "sentinel-2-l2a", area, *JUNE)
            assert [item.id for item in result.items] == ["over"]
        nowhere = find_items(str(path), "sentinel-2-l2a", shapely.box(0, -16.9, 1, -16.8), *JUNE)
        assert (nowhere.items, nowhere.refused) == ([], [])

    def test_a_missing_file_is_an_error_that_names_it(self, tmp_path: Path) -> None:
        with pytest.raises(CatalogError, match=r"none\.json: No such file"):
            found(tmp_path / "none.json")

    def test_binary_is_an_error_that_names_the_file(self, tmp_path: Path) -> None:
        path = tmp_path / "items.json"
        path.write_bytes(b"\x89PNG\r\n\x1a\n\xff\xfe")
        with pytest.raises(CatalogError, match=str(path)):
            found(path)


class TestInventory:
    def test_items_come_back_equal_and_in_order(self, tmp_path: Path) -> None:
        items = [
            item_of("b", eo__cloud_cover=12.5, s2__processing_baseline="05.11", grid__code="MGRS-31UDS"),
            item_of(
                "a",
                collection="sentinel-2-c1-l2a",
                eo__cloud_cover=0,
                proj__epsg=32631,
                assets={
                    "blue": {"href": "/a/blue.tif", "raster:bands": [{"nodata": 0, "scale": 1e-4, "offset": -0.1}]},
                    "scl": {"href": "https://example.com/ä scl.tif", "roles": ["data"], "title": "Szenenklassen"},
                },
            ),
        ]
        assert [as_json(item) for item in items_from_parquet(items_to_parquet(items))] == [
            as_json(item) for item in items
        ]

    def test_no_nulls_are_invented_however_deep(self, tmp_path: Path) -> None:
        """A table has every column for every item: what an item did not say must not come back as null."""
        items = [
            item_of("a", processing__software={"one": "1.0"}, only_a=1, numbers=[1, 2]),
            item_of(
                "b",
                processing__software={"two": "2.0"},
                only_b={"deep": {"er": "x"}},
                assets={
                    "SCL": {
                        "href": "/b/scl.tif",
                        "classification:classes": [{"value": 0, "nodata": True}, {"value": 1, "name": "saturated"}],
                    },
                    "B02": {"href": "/b/B02.tif", "bands": [{"name": "B02", "raster:offset": -0.1}]},
                },
            ),
            item_of(
                "c", only_b={"deep": {"est": "y"}}, assets={"B02": {"href": "/c/B02.tif", "bands": [{"offset": 0}]}}
            ),
        ]
        back = items_from_parquet(items_to_parquet(items))
        assert [as_json(item) for item in back] == [as_json(item) for item in items]
        assert offset_evidence(back[1]).stated == {"B02": -0.1}

    def test_outlines_of_grids_come_back_where_only_some_items_have_one(self) -> None:
        ground = item_json("x")["geometry"]
        items = [
            item_of("a", proj__geometry=ground),
            item_of("b"),
            item_of("c", assets={"blue": {"href": "/c.tif", "proj:geometry": ground}}),
            item_of("d", assets={"red": {"href": "/d.tif"}}),
        ]
        back = items_from_parquet(items_to_parquet(items))
        assert [as_json(item) for item in back] == [as_json(item) for item in items]

    def test_an_item_with_a_range_keeps_its_datetime_null(self, tmp_path: Path) -> None:
        span = {"start_datetime": "2022-06-01T10:00:00Z", "end_datetime": "2022-06-01T10:00:05Z"}
        items = [item_of("a", time=None, **span), item_of("b")]
        back = items_from_parquet(items_to_parquet(items))
        assert [item.datetime for item in back] == [None, items[1].datetime]
        assert [acquired(item) for item in back] == [acquired(item) for item in items]

    def test_links_to_a_catalog_are_kept_and_never_followed(self, tmp_path: Path) -> None:
        plain = item_json("a")
        plain["links"] = [
            {"rel": "root", "href": "https://catalog.invalid/v1"},
            {"rel": "parent", "href": "https://catalog.invalid/v1/collections/c"},
        ]
        (back,) = items_from_parquet(items_to_parquet([pystac.Item.from_dict(plain, migrate=False)]))
        links = as_json(back)["links"]
        assert {link["rel"]: link["href"] for link in links} == {link["rel"]: link["href"] for link in plain["links"]}


def earth_search_item(name: str = "S2B_31UDS_20220615_0_L2A", version: str = "05.11", **more: Any) -> pystac.Item:
    """An item as Earth Search writes it."""
    keys = ("blue", "green", "red", "rededge1", "rededge2", "rededge3", "nir", "nir08", "swir16", "swir22", "scl")
    bands = {"raster:bands": [{"nodata": 0, "scale": 1e-4, "offset": more.pop("offset", -0.1)}]}
    return item_of(
        name,
        time="2022-06-15T10:51:22.930Z",
        assets={key: {"href": f"https://example.com/{key}.tif", **bands} for key in keys},
        **{
            "s2__processing_baseline": version,
            "s2__datatake_id": f"GS2B_20220615T104619_027556_N{version}",
            "s2__datastrip_id": f"S2B_OPER_MSI_L2A_DS_2BPS_20220615T131905_S20220615T104615_N{version}",
            "grid__code": "MGRS-31UDS",
            "proj__epsg": 32631,
            **more,
        },
    )


def planetary_item(
    name: str = "S2B_MSIL2A_20220615T104619_R051_T31UDS_20220616T002235", version: str = "04.00"
) -> pystac.Item:
    """An item as Planetary Computer writes it: no offset in the bands' metadata."""
    keys = [*SENTINEL2_BANDS, "SCL", "AOT"]
    return item_of(
        name,
        time="2022-06-15T10:46:19.024Z",
        assets={key: {"href": f"https://example.com/{key}.tif"} for key in keys},
        s2__processing_baseline=version,
        s2__datatake_id=f"GS2B_20220615T104619_027556_N{version}",
        s2__datastrip_id=f"S2B_OPER_MSI_L2A_DS_ESRI_20220616T002236_S20220615T104617_N{version}",
        s2__mgrs_tile="31UDS",
        proj__epsg=32631,
    )


def copernicus_item(
    name: str = "S2B_MSIL2A_20220615T104619_N0510_R051_T31UDS_20240704T075811", version: str = "05.10"
) -> pystac.Item:
    """An item as Copernicus Data Space writes it: resolution in the keys, CRS and offset with the assets."""
    fine, coarse = ("B02", "B03", "B04", "B08"), ("B05", "B06", "B07", "B8A", "B11", "B12", "SCL")
    keys = [*(f"{band}_10m" for band in fine), *(f"{band}_20m" for band in (*fine, *coarse)), "B02_60m"]
    facts = {"proj:code": "EPSG:32631", "raster:offset": -0.1, "bands": [{"name": "?"}]}
    return item_of(
        name,
        time="2022-06-15T10:46:19.024Z",
        assets={
            "thumbnail": {"href": "https://example.com/t.jpg", "proj:code": None},
            **{key: {"href": f"s3://eodata/{key}.jp2", **facts} for key in keys},
        },
        processing__version=version,
        eopf__datatake_id=f"GS2B_20220615T104619_027556_N{version}",
        eopf__datastrip_id=f"S2B_OPER_MSI_L2A_DS_S2RP_20240704T075811_S20220615T104616_N{version}",
        grid__code="MGRS-31UDS",
    )


ALL = frozenset(SENTINEL2_BANDS)
ALL_STATE = dict.fromkeys(SENTINEL2_BANDS, -0.1)
PROVIDERS = [earth_search_item, planetary_item, copernicus_item]


class TestProviders:
    @pytest.mark.parametrize("make", PROVIDERS)
    def test_the_facts_are_read_from_every_style(self, make: Any) -> None:
        item = make(version="05.09")
        assert baseline(item) == "05.09"
        assert sentinel2_tile(item) == "31UDS"
        assert datatake_time(item) == "20220615T104619"
        assert item_epsg(item) == 32631

    @pytest.mark.parametrize(
        ("make", "keys"),
        [
            (earth_search_item, "blue green red rededge1 rededge2 rededge3 nir nir08 swir16 swir22 scl"),
            (planetary_item, "B02 B03 B04 B05 B06 B07 B08 B8A B11 B12 SCL"),
            (
                copernicus_item,
                "B02_10m B03_10m B04_10m B05_20m B06_20m B07_20m B08_10m B8A_20m B11_20m B12_20m SCL_20m",
            ),
        ],
    )
    def test_the_asset_of_each_band(self, make: Any, keys: str) -> None:
        item = make()
        assert [sentinel2_asset(item, band) for band in (*SENTINEL2_BANDS, "SCL")] == keys.split()

    def test_a_missing_asset_names_item_band_and_keys(self) -> None:
        item = item_of("S2_l1c", assets={"blue": {"href": "/b.tif"}})
        with pytest.raises(SceneError, match=r"S2_l1c has no asset for SCL \(looked for scl, SCL, SCL_20m\)"):
            sentinel2_asset(item, "SCL")

    @pytest.mark.parametrize(
        ("item", "evidence"),
        [
            (earth_search_item(), OffsetEvidence("05.11", None, ALL_STATE, bands=ALL)),
            (
                earth_search_item(earthsearch__boa_offset_applied=True, offset=0),
                OffsetEvidence("05.11", True, dict.fromkeys(SENTINEL2_BANDS, 0.0), bands=ALL),
            ),
            (
                earth_search_item(earthsearch__boa_offset_applied=False),
                OffsetEvidence("05.11", False, ALL_STATE, bands=ALL),
            ),
            (planetary_item(version="02.12"), OffsetEvidence("02.12", None, bands=ALL)),
            # As ESA made them: JPEG 2000.
            (copernicus_item(version="05.10"), OffsetEvidence("05.10", None, ALL_STATE, ALL, ALL, "05.10")),
            (item_of("bare"), OffsetEvidence(None, bands=frozenset({"B02"}))),
            (
                item_of("v1.1", assets={"B04": {"href": "/b.tif", "bands": [{"raster:offset": -0.1}]}}),
                OffsetEvidence(None, None, {"B04": -0.1}, bands=frozenset({"B04"})),
            ),
            (
                item_of("v1.1", assets={"B04": {"href": "/b.tif", "raster:bands": [], "bands": []}}),
                OffsetEvidence(None, bands=frozenset({"B04"})),
            ),
            (
                item_of(
                    "types", assets={"B04": {"href": "/b", "type": "image/jp2"}, "B08": {"href": "s3://x/B.JP2?s"}}
                ),
                OffsetEvidence(None, None, {}, frozenset({"B04", "B08"}), frozenset({"B04", "B08"})),
            ),
        ],
    )
    def test_offset_evidence(self, item: pystac.Item, evidence: OffsetEvidence) -> None:
        assert offset_evidence(item) == evidence

    @pytest.mark.parametrize("offset", [float("nan"), "inf", "none", [0], {}])
    @pytest.mark.parametrize("where", ["raster:bands", "raster:offset"])
    def test_an_offset_that_is_no_number_is_refused_by_name(self, where: str, offset: Any) -> None:
        stated = [{"offset": offset}] if where == "raster:bands" else offset
        odd = item_of("odd", assets={"blue": {"href": "/b.tif", where: stated}})
        with pytest.raises(SceneError, match=r"/b\.tif: its offset is .*, expected a number"):
            offset_evidence(odd)

    @pytest.mark.parametrize(
        ("flag", "removed"), [(True, True), ("true", True), (1, True), (False, False), ("False", False), (None, None)]
    )
    def test_the_flag_of_a_removed_offset_may_be_written_as_text(self, flag: Any, removed: bool | None) -> None:
        assert offset_evidence(item_of("a", earthsearch__boa_offset_applied=flag)).removed is removed

    @pytest.mark.parametrize("flag", ["maybe", "", [], 2])
    def test_another_flag_is_refused_by_name(self, flag: Any) -> None:
        with pytest.raises(SceneError, match=r"odd: expected true or false in earthsearch:boa_offset_applied"):
            offset_evidence(item_of("odd", earthsearch__boa_offset_applied=flag))

    def test_facts_an_item_does_not_state_are_none(self) -> None:
        assert baseline(item_of("a")) is None
        assert item_epsg(item_of("a")) is None
        assert item_epsg(item_of("a", proj__epsg=None)) is None

    @pytest.mark.parametrize(
        ("name", "tile"),
        [
            ("S2A_MSIL2A_20190101T000001_R116_T60VUK_20201007T214652", "60VUK"),
            ("S2B_31UDS_20220615_0_L2A", "31UDS"),
            ("S2B_T20EPT_20250731T131905_L2A", "20EPT"),
            ("my-scene", "my-scene"),
        ],
    )
    def test_the_tile_is_read_from_the_id_where_nothing_else_tells(self, name: str, tile: str) -> None:
        assert sentinel2_tile(item_of(name)) == tile

    @pytest.mark.parametrize("key", ["s2__datatake_id", "eopf__datatake_id"])
    def test_the_datatake_began_before_the_tile_was_seen(self, key: str) -> None:
        item = item_of("a", time="2022-06-15T10:51:22.930Z", **{key: "GS2B_20220615T104619_027556_N05.11"})
        assert datatake_time(item) == "20220615T104619"

    def test_the_time_of_acquisition_stands_for_a_datatake_nobody_names(self) -> None:
        assert datatake_time(item_of("a", time="2022-06-15T10:30:07.5Z")) == "20220615T103007"
        assert datatake_time(item_of("a", time="2022-06-15T12:30:07+02:00")) == "20220615T103007"


class TestNewest:
    def test_reprocessed_duplicates_give_the_newest_baseline(self) -> None:
        old, new = earth_search_item("A_late_name", "04.00"), earth_search_item("A_early_name", "05.10")
        for items in ([old, new], [new, old]):
            kept = newest_of_each_acquisition(items)
            assert [item.id for item in kept.items] == ["A_early_name"]
            assert kept.replaced == {"A_late_name": "A_early_name"}
            assert kept.fillers == {}

    def test_of_one_baseline_the_last_id_stays(self) -> None:
        names = ["S2B_31UDS_20220615_1_L2A", "S2B_31UDS_20220615_0_L2A", "S2B_31UDS_20220615_2_L2A"]
        kept = newest_of_each_acquisition([earth_search_item(name) for name in names])
        assert [item.id for item in kept.items] == ["S2B_31UDS_20220615_2_L2A"]
        assert kept.replaced == dict.fromkeys(names[:2], "S2B_31UDS_20220615_2_L2A")

    def test_an_acquisition_listed_in_the_style_of_several_catalogs_stays_once(self) -> None:
        items = [earth_search_item(version="05.09"), planetary_item(), copernicus_item(version="05.10")]
        kept = newest_of_each_acquisition(items)
        assert [item.id for item in kept.items] == [items[2].id]
        assert kept.replaced == {items[0].id: items[2].id, items[1].id: items[2].id}

    def test_an_item_without_baseline_is_the_oldest(self) -> None:
        kept = newest_of_each_acquisition(
            [earth_search_item("Z", s2__processing_baseline=None), earth_search_item("A", "02.12")]
        )
        assert [item.id for item in kept.items] == ["A"]

    def test_other_tiles_and_other_datatakes_all_stay(self) -> None:
        items = [
            earth_search_item("c"),
            earth_search_item("b", grid__code="MGRS-31UES"),
            earth_search_item("a", s2__datatake_id="GS2A_20220615T105619_027556_N05.11"),
        ]
        kept = newest_of_each_acquisition(items)
        assert [item.id for item in kept.items] == ["a", "b", "c"]
        assert (kept.replaced, kept.fillers) == ({}, {})


ENMAP = "ENMAP01-____L2A-DT0000001867_20220724T104526Z_008_V010302_20230628T165614Z"


def enmap_item(name: str = ENMAP, **properties: Any) -> pystac.Item:
    """An item as DLR writes it."""
    facts = {
        "enmap__overallQuality": 0,
        "eo__cloud_cover": 4,
        "view__sun_elevation": 56.0,
        "view__sun_azimuth": 340.5,
        "enmap__sunAzimuthAngle": 160.5,
        "enmap__acrossOffNadirAngle": 7.25,
        "proj__epsg": None,
    }
    given = {key: value for key, value in (facts | properties).items() if value != "absent"}
    return item_of(name, collection="ENMAP_HSI_L2A", time="2022-07-24T10:45:28.25Z", **given)


class TestEnmapScene:
    def test_the_facts_of_a_scene(self) -> None:
        assert enmap_scene(enmap_item()) == EnmapScene(
            id=ENMAP,
            datatake="0000001867",
            tile="008",
            time=datetime(2022, 7, 24, 10, 45, 26, tzinfo=UTC),
            quality=0,
            cloud_cover=4.0,
            sun_elevation=56.0,
            sun_azimuth=160.5,  # not view:sun_azimuth, which is 180 degrees off
            across_off_nadir=7.25,
        )

    def test_the_stamp_is_the_time_in_the_name(self) -> None:
        """The archive's datetime is the start of some scenes and the middle of others."""
        assert enmap_scene(enmap_item()).stamp == "20220724T104526"

    @pytest.mark.parametrize("own", ["absent", None, 0, 0.0, -12.5])
    def test_a_night_scene_has_no_sun_elevation(self, own: Any) -> None:
        """The archive leaves view:sun_elevation out and writes 0 for its own."""
        night = enmap_item(view__sun_elevation="absent", enmap__sunElevationAngle=own, enmap__overallQuality=2)
        assert enmap_scene(night).sun_elevation is None

    def test_the_archives_own_elevation_comes_first(self) -> None:
        assert enmap_scene(enmap_item(enmap__sunElevationAngle=55.5)).sun_elevation == 55.5

    @pytest.mark.parametrize(
        "name",
        [
            "ENMAP01-____L1C-DT0000001867_20220724T104526Z_008_V010302_20230628T165614Z",
            "S2B_31UDS_20220615_0_L2A",
            ENMAP.replace("Z_008", "Z"),
        ],
    )
    def test_another_products_name_is_refused(self, name: str) -> None:
        with pytest.raises(SceneError, match=f"{name} is not a valid name"):
            enmap_scene(enmap_item(name))

    @pytest.mark.parametrize("key", ["enmap__overallQuality", "eo__cloud_cover"])
    def test_a_scene_without_quality_or_cloud_cover_is_refused(self, key: str) -> None:
        with pytest.raises(SceneError, match="lacks enmap:overallQuality or eo:cloud_cover"):
            enmap_scene(enmap_item(**{key: None}))


class TestRefusals:
    source = EnmapSettings(
        catalog="items.json", months=[5, 6, 7], max_quality=1, min_sun_elevation=30, max_cloud_cover=20
    )

    def refusal(self, **properties: Any) -> str | None:
        """Why the scene with these properties is refused."""
        return enmap_refusal(enmap_scene(enmap_item(**properties)), self.source)

    def test_a_good_scene_is_taken(self) -> None:
        assert self.refusal() is None

    @pytest.mark.parametrize(
        "properties",
        [
            {"enmap__overallQuality": 1},
            {"eo__cloud_cover": 20},
            {"view__sun_elevation": 30.0},
            {"name": ENMAP.replace("20220724", "20220501")},
            {"name": ENMAP.replace("20220724", "20220731")},
        ],
    )
    def test_limits_belong_to_what_is_taken(self, properties: dict[str, Any]) -> None:
        assert self.refusal(**properties) is None

    @pytest.mark.parametrize(
        ("properties", "words"),
        [
            ({"name": ENMAP.replace("20220724", "20220430")}, ["month 4", "enmap.months"]),
            ({"name": ENMAP.replace("20220724", "20220801")}, ["month 8", "enmap.months"]),
            ({"enmap__overallQuality": 2}, ["quality 2", "enmap.max_quality 1"]),
            ({"view__sun_elevation": "absent"}, ["no sun elevation", "night"]),
            ({"view__sun_elevation": None, "enmap__sunElevationAngle": 0.0}, ["no sun elevation", "night"]),
            ({"view__sun_elevation": 29.94}, ["29.9", "enmap.min_sun_elevation 30"]),
            ({"eo__cloud_cover": 20.5}, ["20.5 %", "enmap.max_cloud_cover 20"]),
            ({"eo__cloud_cover": 100}, ["100 %", "enmap.max_cloud_cover 20"]),
        ],
    )
    def test_each_refusal_names_the_value_and_the_setting(self, properties: dict[str, Any], words: list[str]) -> None:
        refusal = self.refusal(**properties)
        assert refusal is not None
        assert all(word in refusal for word in words)

    def test_a_lower_limit_takes_what_a_higher_refuses(self) -> None:
        scene = enmap_scene(enmap_item(enmap__overallQuality=2, eo__cloud_cover=90, view__sun_elevation=10.0))
        tolerant = EnmapSettings(catalog="items.json", max_quality=2, min_sun_elevation=5, max_cloud_cover=95)
        assert enmap_refusal(scene, self.source) is not None
        assert enmap_refusal(scene, tolerant) is None
