"""Several catalogs in a recipe: the first that shows an acquisition gives it, and what came from where is recorded."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pystac
import pytest
import shapely
from signing_server import MARK, lending
from stac_items import item_json, item_of
from tiny_region import TinyRegion

import h2crop_data
from h2crop_data.catalog.acquisitions import looks_of
from h2crop_data.catalog.in_order import first_of_each_acquisition
from h2crop_data.catalog.inventory import items_from_parquet, items_to_parquet
from h2crop_data.cube.reading import read_index
from h2crop_data.errors import CatalogError, PlanError
from h2crop_data.pipeline.build import build_store
from h2crop_data.pipeline.engine import BuildError
from h2crop_data.pipeline.estimate import estimate
from h2crop_data.pipeline.plan import load_plans, save_plan
from h2crop_data.pipeline.planning import make_plan
from h2crop_data.recipe.enmap import EnmapSettings
from h2crop_data.recipe.model import Recipe
from h2crop_data.sources.enmap.search import search_enmap
from h2crop_data.sources.scenes import item_identity

MAY = {"datatake": "20220510T105031", "strip": "20220510T105130", "date": "2022-05-10T10:51:40Z"}
JULY = {"datatake": "20220709T105031", "strip": "20220709T105130", "date": "2022-07-09T10:51:40Z"}


@pytest.fixture
def region(tmp_path: Path) -> TinyRegion:
    """Two catalogs: May in the first; May again, newer and brighter, and July in the second."""
    region = TinyRegion(tmp_path / "region")
    region.add_sentinel2("first-may", reflectance=1000, baseline="05.00", **MAY)
    region.add_sentinel2("second-may", reflectance=3000, baseline="05.11", **MAY)
    region.add_sentinel2("second-july", reflectance=2000, baseline="05.11", **JULY)
    for item in region.sentinel2[1:]:
        item["collection"] = "other"
    return region


def in_order(region: TinyRegion, *names: str, **changes: Any) -> Recipe:
    """The recipe with the catalogs of some names in that order: `first`, `second` of collection `other`."""
    entries = {"first": "first.json", "second": {"catalog": "second.json", "collection": "other"}}
    recipe = region.recipe(sentinel2={"catalog": [entries[name] for name in names], **changes})
    items = {"first": region.sentinel2[:1], "second": region.sentinel2[1:]}
    for name, features in items.items():
        document = {"type": "FeatureCollection", "features": features}
        (region.folder / f"{name}.json").write_text(json.dumps(document), encoding="utf-8")
    return recipe


class TestSentinel2:
    def test_what_the_first_lacks_comes_from_the_next(self, region: TinyRegion, tmp_path: Path) -> None:
        build_store(in_order(region, "first", "second"), tmp_path / "store", workers=1)
        season = h2crop_data.open(tmp_path / "store", 2022).load()
        assert (season.s2.sel(month=5)[:, 0] == 1000).all()
        assert (season.s2.sel(month=7)[:, 0] == 2000).all()
        scenes = read_index(tmp_path / "store", "scenes").set_index("id")
        assert scenes["taken"].to_dict() == {"first-may": True, "second-july": True, "second-may": False}
        assert scenes["catalog"].to_dict() == {
            "first-may": "first.json",
            "second-july": "second.json",
            "second-may": "second.json",
        }
        reason = scenes.loc["second-may", "reason"]
        assert reason == "the same acquisition as first-may, which first.json has, an earlier catalog of the recipe"
        sheet = (tmp_path / "store/DATASHEET.md").read_text(encoding="utf-8")
        assert re.search(r"`first\.json`, .*collection `sentinel-2-l2a` \(1 scene used\)", sheet)
        assert re.search(r"`second\.json`, .*collection `other` \(1 scene used\)", sheet)

    def test_in_the_other_order_the_other_counts(self, region: TinyRegion, tmp_path: Path) -> None:
        build_store(in_order(region, "second", "first"), tmp_path / "store", workers=1)
        season = h2crop_data.open(tmp_path / "store", 2022).load()
        assert (season.s2.sel(month=5)[:, 0] == 3000).all()
        assert (season.s2.sel(month=7)[:, 0] == 2000).all()
        scenes = read_index(tmp_path / "store", "scenes").set_index("id")
        assert scenes["taken"].to_dict() == {"first-may": False, "second-july": True, "second-may": True}

    def test_two_collections_of_one_catalog_are_told_apart(self, region: TinyRegion, tmp_path: Path) -> None:
        entries = [{"catalog": "sentinel2.json", "collection": name} for name in ("sentinel-2-l2a", "other")]
        region.add_sentinel2("second-august", reflectance=2000, date="2022-08-10T10:51:40Z")
        region.sentinel2[-1]["collection"] = "other"
        recipe = region.recipe(sentinel2={"catalog": entries})
        plan = make_plan(recipe, 2022)
        said = "the same acquisition as first-may, which sentinel2.json (sentinel-2-l2a) has, an earlier catalog of "
        assert {one.id: one.reason for one in plan.scenes if not one.taken} == {"second-may": f"{said}the recipe"}
        assert estimate(plan).catalogs == {"sentinel2.json, sentinel-2-l2a": 1, "sentinel2.json, other": 2}
        build_store(recipe, tmp_path / "store", workers=1)
        sheet = (tmp_path / "store/DATASHEET.md").read_text(encoding="utf-8")
        assert re.search(r"collection `sentinel-2-l2a` \(1 scene used\)", sheet)
        assert re.search(r"collection `other` \(2 scenes used\)", sheet)

    @pytest.mark.parametrize("platform", ["sentinel-2a", None])
    def test_a_copy_whose_catalog_names_no_datatake_counts_once_and_last(
        self, region: TinyRegion, tmp_path: Path, platform: str | None
    ) -> None:
        properties = region.sentinel2[1]["properties"]
        del properties["s2:datatake_id"], properties["s2:datastrip_id"]
        properties["platform"] = platform
        build_store(in_order(region, "first", "second"), tmp_path / "store", workers=1)
        season = h2crop_data.open(tmp_path / "store", 2022).load()
        assert (season.s2.sel(month=5)[:, 0] == 1000).all()
        assert set(season.s2_clear.sel(month=5).values.ravel().tolist()) == {1}
        warnings = read_index(tmp_path / "store", "scenes").set_index("id")["warning"]
        assert warnings["first-may"] == ""
        assert warnings["second-may"].startswith("first-may, newer or of an earlier catalog, is of its datatake")

    def test_one_id_in_both_is_one_acquisition_and_no_reason_to_warn(self, region: TinyRegion) -> None:
        region.sentinel2[1]["id"] = "first-may"
        plan = make_plan(in_order(region, "first", "second"), 2022)
        rows = {one.id: (one.taken, one.catalog, one.warning) for one in plan.scenes}
        assert rows == {
            "first-may": (True, "first.json", ""),
            "first-may~2": (False, "second.json", ""),
            "second-july": (True, "second.json", ""),
        }

    def test_a_plan_keeps_where_scenes_come_from(self, region: TinyRegion, tmp_path: Path) -> None:
        plan = make_plan(in_order(region, "first", "second"), 2022)
        save_plan(plan, tmp_path / "plan")
        assert load_plans(tmp_path / "plan")[0].scenes == plan.scenes

    def test_one_catalog_in_a_list_gives_what_it_gives_alone(self, region: TinyRegion) -> None:
        alone = make_plan(region.recipe(sentinel2={"collection": "other"}), 2022)
        listed = make_plan(region.recipe(sentinel2={"catalog": ["sentinel2.json"], "collection": "other"}), 2022)
        assert [one.id for one in listed.scenes] == [one.id for one in alone.scenes]
        assert listed.blocks["hash_s2"].tolist() == alone.blocks["hash_s2"].tolist()

    def test_a_catalog_that_does_not_answer_is_named(self, region: TinyRegion) -> None:
        recipe = in_order(region, "first", "second")
        (region.folder / "second.json").unlink()
        with pytest.raises(CatalogError, match=r"second\.json"):
            make_plan(recipe, 2022)

    def test_where_none_has_a_scene_all_are_named(self, region: TinyRegion) -> None:
        recipe = in_order(region, "first", "second", collection="none")
        (region.folder / "second.json").write_text('{"type": "FeatureCollection", "features": []}')
        said = r"first\.json has no scenes of collection 'none', second\.json has no scenes of collection 'other'"
        with pytest.raises(PlanError, match=said):
            make_plan(recipe, 2022)


WHOLE, EAST, WEST = (2.9, 48.5, 3.1, 48.6), (3.0, 48.5, 3.1, 48.6), (2.9, 48.5, 3.0, 48.6)


def granule(name: str, box: tuple[float, float, float, float] = WHOLE, baseline: str = "05.00", **facts: Any) -> Any:
    stated = {
        "s2__datatake_id": f"GS2A_20220510T105031_035950_N{baseline}",
        "s2__datastrip_id": f"S2A_OPER_MSI_L2A_DS_2BPS_20220510T141054_S20220510T105130_N{baseline}",
        "s2__mgrs_tile": "31UDP",
        "s2__processing_baseline": baseline,
    }
    return item_of(name, **{"time": "2022-05-10T10:51:40Z", "box": box, **stated, **facts})


def test_a_plan_shows_how_many_scenes_came_from_each(region: TinyRegion) -> None:
    assert estimate(make_plan(in_order(region, "first", "second"), 2022)).catalogs == {
        "first.json": 1,
        "second.json": 1,
    }
    assert estimate(make_plan(in_order(region, "second", "first"), 2022)).catalogs == {
        "first.json": 0,
        "second.json": 2,
    }
    assert estimate(make_plan(region.recipe(sentinel2={"collection": "other"}), 2022)).catalogs == {}


class TestAcquisitionsInOrder:
    @pytest.mark.parametrize(
        ("lists", "kept", "replaced"),
        [
            ([["a"], ["b"]], ["a"], {"b": "a"}),
            ([["b"], ["a"]], ["b"], {"a": "b"}),
            # Ground that the first shows a part of: the rest comes from the next.
            ([["east"], ["b"]], ["b", "east"], {}),
            ([["b"], ["east", "west"]], ["b"], {"east": "b", "west": "b"}),
            ([["east"], ["west"], ["b"]], ["b", "east", "west"], {}),
            # Within a catalog the newest counts, which the next one's may be and is not asked.
            ([["a", "b"], ["newest"]], ["b"], {"a": "b", "newest": "b"}),
            ([[], ["a"]], ["a"], {}),
            ([["a"], ["strip"]], ["a", "strip"], {}),
            ([["a"], ["tile"], ["b"]], ["a", "tile"], {"b": "a"}),
        ],
    )
    def test_the_first_that_shows_a_ground_counts(
        self, lists: list[list[str]], kept: list[str], replaced: dict[str, str]
    ) -> None:
        strip = "S2A_OPER_MSI_L2A_DS_2BPS_20220510T141054_S20220510T105230_N05.11"
        items = {
            "a": granule("a"),
            "b": granule("b", baseline="05.10"),
            "newest": granule("newest", baseline="05.11"),
            "east": granule("east", EAST),
            "west": granule("west", WEST),
            "strip": granule("strip", s2__datastrip_id=strip),
            "tile": granule("tile", s2__mgrs_tile="31UDQ"),
        }
        found = first_of_each_acquisition([[items[name] for name in names] for names in lists])
        assert [item.id for item in found.items] == kept
        assert found.replaced == replaced

    @pytest.mark.parametrize("baseline", ["05.11", "04.00"])
    def test_where_no_datastrip_proves_it_both_are_used_the_earlier_catalogs_first(self, baseline: str) -> None:
        assert_first_counts_first(granule("first"), granule("other", baseline=baseline, s2__datastrip_id=None))

    @pytest.mark.parametrize("platforms", [("sentinel-2a", "sentinel-2a"), ("sentinel-2a", None), (None, None)])
    @pytest.mark.parametrize("seconds", ["40", "41"])
    @pytest.mark.parametrize("named", [(True, False), (False, True), (False, False)])
    def test_an_acquisition_is_one_also_where_a_catalog_names_no_datatake(
        self, named: tuple[bool, bool], seconds: str, platforms: tuple[str | None, str | None]
    ) -> None:
        first, other = (
            granule(name, platform=platform, baseline=baseline, **({} if is_named else NO_DATATAKE))
            for name, platform, baseline, is_named in zip(
                ("first", "other"), platforms, ("05.00", "05.11"), named, strict=True
            )
        )
        other.datetime = datetime.fromisoformat(f"2022-05-10T10:51:{seconds}Z")
        assert_first_counts_first(first, other)

    def test_a_catalog_that_dates_items_by_their_datatake_has_the_same_acquisition(self) -> None:
        first, other = granule("first"), granule("other", baseline="05.11", **NO_DATATAKE)
        first.datetime = datetime(2022, 5, 10, 11, 10, tzinfo=UTC)
        other.datetime = datetime(2022, 5, 10, 10, 50, 31, tzinfo=UTC)
        assert_first_counts_first(first, other)

    def test_a_datastrip_proves_it_whatever_the_datatake_is(self) -> None:
        first, other = granule("first"), granule("other", baseline="05.11", s2__datatake_id=None)
        found = first_of_each_acquisition([[first], [other]])
        assert (names(found.items), found.replaced, found.fillers) == (["first"], {"other": "first"}, {})

    @pytest.mark.parametrize(
        "facts",
        [
            {"platform": "sentinel-2b"},
            {"time": "2022-05-10T12:31:40Z", "platform": "sentinel-2a"},
            {"time": "2022-05-10T10:54:00Z"},
            {"s2__mgrs_tile": "31UDQ"},
        ],
        ids=["satellite", "orbit", "time, of an unknown satellite", "tile"],
    )
    def test_other_acquisitions_are_no_copies(self, facts: dict[str, Any]) -> None:
        other = granule("other", **NO_DATATAKE, **facts)
        found = first_of_each_acquisition([[granule("first", platform="sentinel-2a")], [other]])
        assert (names(found.items), found.replaced, found.fillers) == (["first", "other"], {}, {})
        assert item_identity(other) == item_identity(granule("other", **NO_DATATAKE, **facts))

    def test_half_a_granule_of_the_first_catalog_counts_before_the_newer_whole_of_the_next(self) -> None:
        found = first_of_each_acquisition([[granule("east", EAST)], [granule("whole", baseline="05.11")]])
        (look,) = looks_of(found.items, 2022)
        assert names(look.tiles[0]) == ["east", "whole"]

    def test_the_order_of_three_catalogs_is_kept_in_a_plan(self) -> None:
        versions = {"c": "04.00", "b": "05.10", "a": "05.11"}
        lists = [[granule(name, baseline=version, **NO_DATATAKE)] for name, version in versions.items()]
        found = first_of_each_acquisition(lists)
        for items in (found.items, items_from_parquet(items_to_parquet(found.items))):
            (look,) = looks_of(items, 2022)
            assert names(look.tiles[0]) == ["c", "b", "a"]

    def test_blocks_are_named_by_the_order_of_copies_but_not_by_catalogs_without_any(self) -> None:
        def identities(*order: str) -> list[Any]:
            items = {"a": [granule("a", **NO_DATATAKE)], "b": [granule("b", **NO_DATATAKE)], "none": []}
            return [item_identity(item) for item in first_of_each_acquisition([items[name] for name in order]).items]

        assert identities("a", "b") != identities("b", "a")
        assert identities("none", "a", "none", "b") == identities("a", "b")

    def test_facts_made_for_other_catalogs_are_forgotten(self) -> None:
        first, other = granule("first"), granule("other", **NO_DATATAKE)
        first_of_each_acquisition([[first], [other]])
        (alone,) = first_of_each_acquisition([[other]]).items
        assert item_identity(alone) == item_identity(granule("other", **NO_DATATAKE))
        assert not [name for name in alone.properties if name.startswith("h2crop:")]


NO_DATATAKE = {"s2__datatake_id": None, "s2__datastrip_id": None}


def names(items: Sequence[pystac.Item]) -> list[str]:
    return [item.id for item in items]


def assert_first_counts_first(first: pystac.Item, other: pystac.Item) -> None:
    """Two copies that nothing proves to be some are one look, in which the first catalog's counts first."""
    found = first_of_each_acquisition([[first], [other]])
    assert (names(found.items), found.replaced, found.fillers) == (["first", "other"], {}, {"other": "first"})
    (look,) = looks_of(found.items, 2022)
    assert [names(tile) for tile in look.tiles] == [["first", "other"]]


def enmap_name(tile: int, processed: str) -> str:
    return f"ENMAP01-____L2A-DT0000001867_20220724T104526Z_{tile:03d}_V010402_{processed}Z"


def enmap_catalog(path: Path, *products: tuple[int, str], cloud: int) -> str:
    features = [
        item_json(
            enmap_name(tile, processed),
            collection="ENMAP_HSI_L2A",
            time="2022-07-24T10:45:28Z",
            box=(10, 50, 11, 51),
            assets={key: {"href": f"{key}.tif"} for key in ("image", "metadata", "quality_classes", "quality_cloud")},
            enmap__overallQuality=0,
            eo__cloud_cover=cloud,
            enmap__sunElevationAngle=56.0,
        )
        for tile, processed in products
    ]
    path.write_text(json.dumps({"type": "FeatureCollection", "features": features}), encoding="utf-8")
    return str(path)


OLD, NEW = "20230628T165614", "20240628T165614"


def test_enmap_products_come_from_the_first_catalog_that_has_their_tile(tmp_path: Path) -> None:
    first = enmap_catalog(tmp_path / "first.json", (1, OLD), (2, OLD), cloud=1)
    second = enmap_catalog(tmp_path / "second.json", (1, NEW), (2, OLD), (3, OLD), (3, NEW), cloud=2)
    found = search_enmap(EnmapSettings(catalog=[first, second]), str, shapely.box(10, 50, 12, 51), [2022])
    rows = {scene.id: (scene.taken, scene.catalog, scene.cloud_cover) for scene in found.scenes}
    assert rows == {
        enmap_name(1, OLD): (True, first, 1.0),
        enmap_name(1, NEW): (False, second, 2.0),
        enmap_name(2, OLD): (True, first, 1.0),
        enmap_name(3, OLD): (False, second, 2.0),
        enmap_name(3, NEW): (True, second, 2.0),
    }
    reasons = {scene.id: scene.reason for scene in found.scenes if not scene.taken}
    assert f"which {first} has, an earlier catalog of the recipe" in reasons[enmap_name(1, NEW)]
    assert reasons[enmap_name(3, OLD)].endswith("which was processed later")


def test_one_product_in_two_catalogs_can_come_from_the_second_where_the_first_lost_its_place(tmp_path: Path) -> None:
    first = enmap_catalog(tmp_path / "first.json", (1, OLD), cloud=1)
    document = json.loads(Path(first).read_text())
    document["features"][0]["geometry"] = None
    Path(first).write_text(json.dumps(document))
    second = enmap_catalog(tmp_path / "second.json", (1, OLD), cloud=2)
    found = search_enmap(EnmapSettings(catalog=[first, second]), str, shapely.box(10, 50, 12, 51), [2022])
    assert [(scene.taken, scene.catalog) for scene in found.scenes] == [(True, second)]


def everything_written(*folders: Path) -> bytes:
    """The bytes and names of all files below some folders."""
    files = [path for folder in folders for path in folder.rglob("*") if path.is_file()]
    assert len(files) > 10
    return b"\n".join(str(path).encode() + b"\n" + path.read_bytes() for path in files)


def test_no_signature_of_a_catalog_is_kept_anywhere(
    region: TinyRegion, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Items that are signed already when they are found: neither plan nor store has the signature, nor an error."""
    monkeypatch.setenv("H2CROP_READ_PAUSES", "none")
    with lending(region.folder) as archive:
        for item in region.sentinel2:
            for asset in item["assets"].values():
                asset["href"] = f"{archive.url}/files/{asset['href'].removeprefix('./')}?se=2030&sig={archive.sign()}"
                asset["title"] = f"a file at https://a.example/x.tif?api-key={MARK}"
                asset["description"] = f"https://me:{MARK}@b.example/x.tif"
                asset["alternate"] = {"other": {"href": f"https://me:{MARK}@b.example/x.tif"}}
            item["links"] = [{"rel": "self", "href": f"https://a.example/items/1?token={MARK}"}]
        recipe = in_order(region, "first", "second")
        save_plan(make_plan(recipe, 2022), tmp_path / "plan")
        # Without its signature nothing can be read there: the error names the file alone.
        with pytest.raises(BuildError) as caught:
            build_store(recipe, tmp_path / "store", workers=1)
    (plan,) = load_plans(tmp_path / "plan")
    hrefs = [asset.href for item in plan.pinned["sentinel2"].items for asset in item.assets.values()]
    assert hrefs
    assert all(href.endswith(".tif") for href in hrefs)
    written = everything_written(tmp_path / "plan", tmp_path / "store") + str(caught.getrepr(style="native")).encode()
    shown = capsys.readouterr()
    assert b"/files/sentinel2/first-may" in written
    assert MARK.encode() not in written + shown.out.encode() + shown.err.encode()
