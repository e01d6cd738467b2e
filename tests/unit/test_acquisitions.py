"""Items and acquisitions: what makes an item the one it is, which items show one look, and where footprints can lie."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from itertools import pairwise
from typing import Any

import pystac
import pytest
import shapely
from stac_items import item_of

from h2crop_data.catalog.acquisitions import (
    acquisitions_listed,
    age,
    items_of_span,
    l1c_of_items,
    looks_of,
    newest_of_each_acquisition,
    relative_orbit,
    satellite,
    strip_start,
)
from h2crop_data.catalog.expected_acquisitions import Sighting
from h2crop_data.catalog.footprints import footprint
from h2crop_data.catalog.inventory import items_from_parquet, items_to_parquet
from h2crop_data.catalog.items import each_once, name_twins, number_of, shared_id
from h2crop_data.errors import SceneError

DATATAKE = "GS2A_20220510T105031_035950_N05.11"
STRIP = "S2A_OPER_MSI_L2A_DS_2BPS_20220510T141054_S20220510T105130_N05.11"


def item(name: str, time: str = "2022-05-10T10:50:41Z", href: str = "/data/blue.tif", **settings: Any) -> pystac.Item:
    """An item of one file, south of Paris unless `box` says where."""
    place = {"box": (2.9, 48.5, 3.1, 48.6), "assets": {"blue": {"href": href}}}
    return item_of(name, time=time, **(place | settings))


def names(items: list[pystac.Item]) -> list[str]:
    """Their ids."""
    return [one.id for one in items]


class TestIdentity:
    def test_an_item_listed_again_counts_once_whoever_signed_its_files(self) -> None:
        listed = [item("a", href="https://x/blue.tif?sig=1"), item("a", href="https://x/blue.tif?sig=2")]
        assert len(each_once(listed)) == 1

    def test_of_an_item_that_changed_meanwhile_the_newest_state_counts(self) -> None:
        old, new = item("a", updated="2022-06-01T00:00:00Z"), item("a", updated="2023-06-01T00:00:00Z")
        for listed in ([old, new], [new, old]):
            assert each_once(listed) == [new]

    @pytest.mark.parametrize(
        "other",
        [
            {"box": (3.1, 48.5, 3.3, 48.6)},
            {"href": "/data/other/blue.tif"},
            {"s2__product_uri": "S2A_MSIL2A_20220510T105031_N0511_R051_T31UDP_20220510T141054.SAFE"},
        ],
        ids=["ground", "files", "product"],
    )
    def test_ground_and_product_tell_items_of_one_id_apart(self, other: dict[str, Any]) -> None:
        assert len(each_once([item("a"), item("a", **other)])) == 2

    def test_files_do_not_count_where_the_product_is_named(self) -> None:
        product = {"s2__product_uri": "S2A_MSIL2A_20220510T105031_N0511_R051_T31UDP_20220510T141054.SAFE"}
        assert len(each_once([item("a", href="/one.tif", **product), item("a", href="/two.tif", **product)])) == 1

    def test_twins_are_named_in_order_of_time(self) -> None:
        early, late, alone = item("a", "2022-05-10T10:50:41Z"), item("a", "2022-05-10T10:50:45Z"), item("b")
        assert name_twins([late, alone, early]) == {"a~2": "a"}
        assert (early.id, late.id, alone.id) == ("a", "a~2", "b")

    def test_twins_of_one_time_are_named_alike_in_any_order(self) -> None:
        for order in ((0, 1, 2), (2, 1, 0), (1, 2, 0)):
            twins = [item("a", box=(west, 48.5, 3.1, 48.6)) for west in (2.7, 2.8, 2.9)]
            name_twins([twins[place] for place in order])
            assert names(twins) == ["a", "a~2", "a~3"]

    def test_twins_of_a_later_list_come_last_and_no_name_is_given_twice(self) -> None:
        first, stated, later = item("a", "2022-05-10T10:50:45Z"), item("a~2"), item("a", "2022-05-10T10:50:41Z")
        assert name_twins([first, stated], [later]) == {"a~3": "a"}
        assert (first.id, stated.id, later.id) == ("a", "a~2", "a~3")

    @pytest.mark.parametrize(
        ("name", "shared"), [("a~2", "a"), ("a~12", "a"), ("a", "a"), ("a~b", "a~b"), ("a~2~3", "a~2")]
    )
    def test_only_the_number_of_a_twin_is_cut_from_its_id(self, name: str, shared: str) -> None:
        assert shared_id(name) == shared


class TestFootprint:
    @pytest.mark.parametrize("zone", [29, 30, 31, 32, 33])
    def test_ground_near_its_utm_zone_is_believed(self, zone: int) -> None:
        assert footprint(item("a", proj__epsg=32600 + zone)).area > 0

    @pytest.mark.parametrize(
        ("box", "epsg", "likely"),
        [
            ((48.5, 2.9, 48.6, 3.1), 32631, "swapped"),
            ((100.0, 48.5, 100.2, 48.6), 32631, "one of the two is wrong"),
            ((-3.1, 48.5, -2.9, 48.6), 32634, "one of the two is wrong"),
        ],
    )
    def test_ground_far_from_its_utm_zone_is_not(self, box: Any, epsg: int, likely: str) -> None:
        with pytest.raises(SceneError, match=likely):
            footprint(item("a", box=box, proj__epsg=epsg))

    @pytest.mark.parametrize("west", [-179.9, 179.7])
    @pytest.mark.parametrize("epsg", [32601, 32660])
    def test_zones_meet_at_180_degrees(self, west: float, epsg: int) -> None:
        assert footprint(item("a", box=(west, 60, west + 0.2, 60.1), proj__epsg=epsg)).area > 0

    @pytest.mark.parametrize("epsg", [32601, 32660])
    @pytest.mark.parametrize("wests", [(179.7, -180), (179.9, -180), (179.2, -180)])
    def test_ground_over_180_degrees_cut_in_two_there_is_believed(self, epsg: int, wests: tuple[float, float]) -> None:
        cut = item("a", proj__epsg=epsg)
        parts = shapely.MultiPolygon([shapely.box(wests[0], 60, 180, 60.5), shapely.box(wests[1], 60, -179.8, 60.5)])
        cut.geometry = json.loads(shapely.to_geojson(parts))
        assert footprint(cut).equals(parts)
        cut.properties["proj:epsg"] = 32631
        with pytest.raises(SceneError, match="one of the two is wrong"):
            footprint(cut)

    @pytest.mark.parametrize(
        ("ground", "reason"),
        [
            ({"type": "Point", "coordinates": [3, 48.55]}, "a Point, expected a Polygon"),
            ({"type": "LineString", "coordinates": [[3, 48.5], [3, 48.6]]}, "a LineString, expected"),
            (
                {"type": "GeometryCollection", "geometries": [{"type": "Point", "coordinates": [3, 48.55]}]},
                "a GeometryCollection, expected",
            ),
            (
                {"type": "Polygon", "coordinates": [[[3, 48], [float("nan"), 48], [4, 49], [3, 49], [3, 48]]]},
                "empty or not finite",
            ),
            (
                {"type": "Polygon", "coordinates": [[[3, 48], [float("inf"), 48], [4, 49], [3, 49], [3, 48]]]},
                "empty or not finite",
            ),
            ("POLYGON", "damaged"),
        ],
    )
    def test_what_is_no_ground_is_refused(self, ground: Any, reason: str) -> None:
        wrong = item("a")
        wrong.geometry = ground
        with pytest.raises(SceneError, match=reason):
            footprint(wrong)

    @pytest.mark.parametrize("code", [None, "", "EPSG:2154", 4326, "unknown"])
    def test_other_crs_say_nothing_of_a_zone(self, code: Any) -> None:
        assert footprint(item("a", box=(48.5, 2.9, 48.6, 3.1), proj__code=code)).area > 0


class TestNumbers:
    @pytest.mark.parametrize(("value", "number"), [(12, 12.0), ("12.5", 12.5), (0, 0.0), (None, None)])
    def test_a_number_may_be_written_as_text(self, value: Any, number: float | None) -> None:
        assert number_of(item("a", eo__cloud_cover=value), "eo:cloud_cover") == number

    @pytest.mark.parametrize("value", ["cloudy", [1], {"a": 1}, "nan", float("inf"), ""])
    def test_anything_else_is_refused_by_name(self, value: Any) -> None:
        with pytest.raises(SceneError, match="a: eo:cloud_cover is"):
            number_of(item("a", eo__cloud_cover=value), "eo:cloud_cover")


class TestStrips:
    def test_the_sensing_time_of_a_strip_is_read_not_that_of_its_processing(self) -> None:
        assert strip_start(item("a", s2__datastrip_id=STRIP)) == datetime(2022, 5, 10, 10, 51, 30, tzinfo=UTC)
        assert strip_start(item("a", eopf__datastrip_id=STRIP)) == datetime(2022, 5, 10, 10, 51, 30, tzinfo=UTC)
        assert strip_start(item("a")) is None

    @pytest.mark.parametrize("time", ["20220230T105130", "20221399T105130", "20220510T256161"])
    def test_names_with_a_time_that_cannot_be_tell_nothing(self, time: str) -> None:
        odd = item("a", s2__datastrip_id=f"S2A_OPER_DS_S{time}_N05.11", s2__datatake_id=f"GS2A_{time}_0_N05.11")
        assert strip_start(odd) is None
        (look,) = looks_of([odd], 2022)
        assert look.moment == datetime(2022, 5, 10, 10, 50, 41, tzinfo=UTC)

    def test_nothing_proves_that_a_footprint_without_area_is_covered(self) -> None:
        told = {"s2__datatake_id": DATATAKE, "s2__datastrip_id": STRIP, "s2__mgrs_tile": "31UDP"}
        whole = item("new", s2__processing_baseline="05.11", **told)
        flat = item("old", box=(3, 48.5, 3, 48.6), s2__processing_baseline="04.00", **told)
        assert names(newest_of_each_acquisition([whole, flat]).items) == ["new", "old"]

    @pytest.mark.parametrize(
        ("strips", "left"),
        [
            (("105130", "105130"), ["new"]),
            (("105130", "105132"), ["new"]),
            (("105130", "105230"), ["new", "old"]),
            (("105130", None), ["new", "old"]),
            ((None, None), ["new", "old"]),
        ],
    )
    def test_only_one_strip_proves_that_two_items_show_the_same(
        self, strips: tuple[str | None, str | None], left: list[str]
    ) -> None:
        def of(name: str, baseline: str, strip: str | None) -> pystac.Item:
            told = {} if strip is None else {"s2__datastrip_id": f"S2A_OPER_DS_S20220510T{strip}_N{baseline}"}
            return item(name, s2__datatake_id=DATATAKE, s2__processing_baseline=baseline, s2__mgrs_tile="31UDP", **told)

        kept = newest_of_each_acquisition([of("old", "04.00", strips[0]), of("new", "05.11", strips[1])])
        assert names(kept.items) == left
        assert kept.replaced == ({} if "old" in left else {"old": "new"})
        assert kept.fillers == ({"old": "new"} if "old" in left else {})


class TestLooks:
    def test_tiles_and_granules_of_a_datatake_are_one_look(self) -> None:
        facts = {"s2__datatake_id": DATATAKE}
        items = [
            item("b", s2__mgrs_tile="31UDP", s2__processing_baseline="05.11", **facts),
            item("a", s2__mgrs_tile="31UDP", s2__processing_baseline="04.00", **facts),
            item("c", "2022-05-10T10:50:55Z", s2__mgrs_tile="31UDQ", **facts),
        ]
        (look,) = looks_of(items, 2022)
        assert look.moment == datetime(2022, 5, 10, 10, 50, 31, tzinfo=UTC)
        assert [names(tile) for tile in look.tiles] == [["b", "a"], ["c"]]

    @pytest.mark.parametrize("datatake", ["GS2A_20220310T105031_0_N05.11", "GS2A_20230510T105031_0_N05.11", "none"])
    def test_a_datatake_far_from_the_acquisition_is_not_believed(self, datatake: str) -> None:
        (look,) = looks_of([item("a", s2__datatake_id=datatake)], 2022)
        assert look.moment == datetime(2022, 5, 10, 10, 50, 41, tzinfo=UTC)

    def test_a_datatake_that_began_in_the_old_year_is_dated_in_the_season(self) -> None:
        begun = "GS2A_20211231T235500_0_N05.11"
        (look,) = looks_of([item("a", "2022-01-01T00:05:00Z", s2__datatake_id=begun)], 2022)
        assert look.moment == datetime(2022, 1, 1, tzinfo=UTC)

    def test_an_item_without_datatake_belongs_to_the_one_its_satellite_had_begun(self) -> None:
        named = item("S2A_b", s2__datatake_id=DATATAKE, s2__mgrs_tile="31UDP")
        before = item("S2A_a", "2022-05-10T10:40:00Z", s2__datatake_id="GS2A_20220510T103500_0_N05.11")
        unnamed = item("S2A_c", "2022-05-10T10:51:10Z", s2__mgrs_tile="31UDQ")
        others = [item("S2B_c", "2022-05-10T10:51:10Z"), item("S2A_d", "2022-05-10T13:51:10Z")]
        looks = looks_of([*others, unnamed, before, named], 2022)
        assert [sorted(one.id for tile in look.tiles for one in tile) for look in looks] == [
            ["S2A_a"],
            ["S2A_b", "S2A_c"],
            ["S2B_c"],
            ["S2A_d"],
        ]

    def test_three_granules_of_a_tile_are_one_tile_the_newest_first(self) -> None:
        facts = {"s2__datatake_id": DATATAKE, "s2__mgrs_tile": "31UDP"}
        versions = {"b": "04.00", "c": "05.11", "a": "05.10"}
        items = [item(name, s2__processing_baseline=version, **facts) for name, version in versions.items()]
        (look,) = looks_of(items, 2022)
        assert [names(tile) for tile in look.tiles] == [["c", "a", "b"]]
        kept = newest_of_each_acquisition(items)
        assert kept.fillers == {"a": "c", "b": "c"}

    def test_acquisitions_in_a_row_are_one_look_however_long_the_row(self) -> None:
        times = ["10:00:00", "10:20:00", "10:40:00", "11:30:00"]
        items = [item(f"S2A_{i}", f"2022-05-10T{time}Z") for i, time in enumerate(times)]
        looks = looks_of(items, 2022)
        assert [sum(len(tile) for tile in look.tiles) for look in looks] == [3, 1]

    @pytest.mark.parametrize(
        ("platform", "name", "expected"),
        [
            ("sentinel-2a", "x", "2A"),
            ("Sentinel-2B", "x", "2B"),
            ("SENTINEL-2C", "x", "2C"),
            (None, "S2A_31UDP_20220510_0_L2A", "2A"),
            (None, "scene", ""),
        ],
    )
    def test_the_satellite(self, platform: str | None, name: str, expected: str) -> None:
        assert satellite(item(name, platform=platform)) == expected


MIXED: list[tuple[str, Any, Any]] = [
    ("text and number", "12", 1.5),
    ("object and text", {"a": 1}, "t"),
    ("list and number", [1], 1),
    ("yes or no and number", True, 1),
    ("too large a number", 2**70, 1),
    ("lists of text and number", [1, "a"], [1]),
    ("objects of text and number", [{"offset": -0.1}], [{"offset": "-0.1"}]),
    ("numbers", 5, 6),
    ("object without members", {}, {}),
    ("objects without members, deep", [{"a": {}}], [{"a": {}}]),
]


class TestMixedInventory:
    @pytest.mark.parametrize("where", ["x", "created", "eo:cloud_cover"])
    @pytest.mark.parametrize(("one", "other"), [case[1:] for case in MIXED], ids=[case[0] for case in MIXED])
    def test_properties_and_asset_fields_of_mixed_types_come_back(self, where: str, one: Any, other: Any) -> None:
        items = [item("a"), item("b"), item("c")]
        for target, value in zip(items, (one, other), strict=False):
            target.properties[where] = value
            target.assets["blue"].extra_fields[where] = value
        given = [(one, one), (other, other), (None, None)]

        def fields(of: list[pystac.Item]) -> list[tuple[Any, Any]]:
            return [(one.properties.get(where), one.assets["blue"].extra_fields.get(where)) for one in of]

        back = items_from_parquet(items_to_parquet(items))
        assert fields(back) == given
        assert fields(items) == given, "the items are left as they are"
        assert all(set(one.properties) <= {"datetime", where} for one in back)

    @pytest.mark.parametrize("bbox", [None, "west", [None] * 4, [2.9, 48.5, 0, 3.1, 48.6, 9], [2.9, 48.5]])
    def test_a_box_that_is_none_is_drawn_around_the_footprint(self, bbox: Any) -> None:
        odd = item("a")
        odd.bbox = bbox
        back = items_from_parquet(items_to_parquet([odd, item("b")]))
        assert [one.bbox for one in back] == [[2.9, 48.5, 3.1, 48.6]] * 2

    def test_a_time_that_is_none_comes_back_as_it_was_written(self) -> None:
        items = [item("a", created="yesterday"), item("b", created="2022-01-01T00:00:00Z")]
        back = items_from_parquet(items_to_parquet(items))
        assert [one.properties["created"] for one in back] == ["yesterday", "2022-01-01T00:00:00Z"]


class TestL1c:
    """Which L1C items show what an L2A item does."""

    def l2a(self, **settings: Any) -> pystac.Item:
        return item("S2A_31UDP_L2A", s2__mgrs_tile="31UDP", **settings)

    @pytest.mark.parametrize(
        ("name", "tile", "time", "matches"),
        [
            ("S2A_a", "31UDP", "2022-05-10T10:51:20Z", True),
            ("S2A_a", "31UDP", "2022-05-10T10:52:20Z", False),
            ("S2A_a", "31UEP", "2022-05-10T10:50:41Z", False),
            ("S2B_a", "31UDP", "2022-05-10T10:50:41Z", False),
        ],
    )
    def test_it_is_of_the_tile_and_satellite_and_a_minute_away_at_most(
        self, name: str, tile: str, time: str, matches: bool
    ) -> None:
        other = item(name, time=time, s2__mgrs_tile=tile)
        assert l1c_of_items([self.l2a()], [other]) == {"S2A_31UDP_L2A": [other] if matches else []}

    def test_one_datatake_counts_whatever_time_the_catalogs_state(self) -> None:
        named = {"s2__datatake_id": DATATAKE}
        late = item("S2A_b", time="2022-05-10T10:58:00Z", s2__mgrs_tile="31UDP", **named)
        other = item("S2A_c", s2__mgrs_tile="31UDP", s2__datatake_id=DATATAKE.replace("105031", "104931"))
        assert l1c_of_items([self.l2a(**named)], [late, other])["S2A_31UDP_L2A"] == [late]

    def test_the_newest_processing_comes_first(self) -> None:
        old, new = (
            item(f"S2A_{name}", s2__mgrs_tile="31UDP", s2__processing_baseline=baseline)
            for name, baseline in (("z", "04.00"), ("a", "05.00"))
        )
        assert names(l1c_of_items([self.l2a()], [old, new])["S2A_31UDP_L2A"]) == ["S2A_a", "S2A_z"]


class TestRelativeOrbit:
    @pytest.mark.parametrize(
        ("stated", "name", "product", "orbit"),
        [
            (51, "any", None, 51),
            ("51", "any", None, 51),
            (51.0, "any", None, 51),
            (None, "S2A_MSIL2A_20220510T105031_R051_T31UDS_20220510T120000", None, 51),
            (None, "S2A_31UDS_20220510_0_L2A", "S2A_MSIL2A_20220510T105031_N0400_R051_T31UDS_20220510T120000.SAFE", 51),
            (0, "S2A_MSIL2A_20220510T105031_R008_T31UDS_20220510T120000", None, 8),
            ("many", "any", None, None),
            (144, "any", None, None),
            (None, "S2A_31UDS_20220510_0_L2A", None, None),
        ],
    )
    def test_it_is_read_where_it_is_stated(
        self, stated: Any, name: str, product: str | None, orbit: int | None
    ) -> None:
        assert relative_orbit(item_of(name, sat__relative_orbit=stated, s2__product_uri=product)) == orbit

    def test_an_item_that_names_no_tile_tells_of_no_acquisition(self) -> None:
        assert acquisitions_listed([item_of("scene")]) == []
        (told,) = acquisitions_listed([item_of("S2C_31UDS_20250510_0_L2A", time="2025-05-10T10:50:31Z")])
        assert told == Sighting("31UDS", "2C", None, datetime(2025, 5, 10, 10, 50, 31, tzinfo=UTC))


def test_looks_of_a_span_begin_in_it() -> None:
    """Also where an item names no datatake and was acquired on the other side of midnight."""
    before = item_of("S2A_01WCV_1", time="2021-12-31T23:59:50Z")
    after = item_of("S2A_01WCU_2", time="2022-01-01T00:00:05Z")
    own = item_of("S2A_01WCU_3", time="2022-01-01T01:40:00Z")
    new_year = datetime(2022, 1, 1, tzinfo=UTC)
    items = [before, after, own]
    assert items_of_span(items, new_year, datetime(2023, 1, 1, tzinfo=UTC)) == [own]
    assert items_of_span(items, datetime(2021, 1, 1, tzinfo=UTC), new_year) == [after, before]


@pytest.mark.parametrize(
    "old_to_new",
    [
        [None, "50.00", "99.99", "02.14", "04.00", "05.09", "05.10", "05.11", "05.12", "06.00", "10.01"],
        ["", "N9999", "N0400", "N0512"],
        ["unknown", "99.99", "5.09", "05.10"],
    ],
)
def test_baselines_are_ordered_and_a_private_one_is_not_newer_than_esas(old_to_new: list[str | None]) -> None:
    items = [item(f"{9 - place}", s2__processing_baseline=stated) for place, stated in enumerate(old_to_new)]
    strip = {"s2:datatake_id": DATATAKE, "s2:datastrip_id": STRIP, "s2:mgrs_tile": "31UDQ"}
    for one in items:
        one.properties |= strip
    for older, newer in pairwise(items):
        assert age(older)[0] < age(newer)[0]
        assert names(newest_of_each_acquisition([newer, older]).items) == [newer.id]


def test_items_of_two_collections_are_two_items() -> None:
    one, other = item("a", collection="sentinel-2-l2a"), item("a", collection="sentinel-2-l1c")
    assert len(each_once([one, other])) == 2
