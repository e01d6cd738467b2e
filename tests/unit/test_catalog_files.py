"""Catalogs in files: static ones, ItemCollections and stac-geoparquet give the same items, with files beside them."""

from __future__ import annotations

import asyncio
import json
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pystac
import pytest
import rustac
import shapely
from stac_items import item_json
from web_server import served

from h2crop_data.catalog.inventory import items_to_parquet
from h2crop_data.catalog.search import find_items, read_item_collection
from h2crop_data.errors import CatalogError

AREA = shapely.box(5.2, 50.2, 5.3, 50.3)
START, END = datetime(2022, 1, 1, tzinfo=UTC), datetime(2023, 1, 1, tzinfo=UTC)
HREFS = {
    "beside": "./files/blue.tif",
    "above": "../elsewhere/blue.tif",
    "plain": "blue.tif",
    "absolute": "/data/blue.tif",
    "uri": "file:///data/with%20space/blue.tif",
    "remote": "https://a.example/blue.tif",
    "bucket": "s3://bucket/blue.tif",
    "gdal": "/vsizip/a.zip/blue.tif",
}


def features() -> list[dict[str, Any]]:
    """Items over the area, one for each form of address; one elsewhere."""
    found = [item_json(name, assets={"blue": {"href": href}}) for name, href in HREFS.items()]
    return [*found, item_json("far", box=(50, 50, 51, 51))]


def expected(folder: Path) -> dict[str, str]:
    """Item -> where its file lies, when the item stands in a file of a folder."""
    return {
        "beside": str(folder / "files/blue.tif"),
        "above": str(folder.parent / "elsewhere/blue.tif"),
        "plain": str(folder / "blue.tif"),
        "absolute": "/data/blue.tif",
        "uri": "/data/with space/blue.tif",
        "remote": "https://a.example/blue.tif",
        "bucket": "s3://bucket/blue.tif",
        "gdal": "/vsizip/a.zip/blue.tif",
    }


def found_at(source: str) -> dict[str, str]:
    """What a search over the area gives: item -> where its file lies."""
    items = find_items(source, "sentinel-2-l2a", AREA, START, END).items
    return {item.id: item.assets["blue"].href for item in items}


def found(path: Path) -> dict[str, str]:
    """The same of a file."""
    return found_at(str(path))


def static_catalog(folder: Path) -> Path:
    """A catalog of two collections, of which one links to the other too, with items in a folder of their own."""
    items = folder / "2022" / "items"
    items.mkdir(parents=True)
    for feature in features():
        (items / f"{feature['id']}.json").write_text(json.dumps(feature))
    names = [feature["id"] for feature in features()]

    def node(kind: str, name: str, links: list[tuple[str, str]]) -> str:
        parts = [{"rel": rel, "href": href} for rel, href in links]
        return json.dumps({"type": kind, "id": name, "stac_version": "1.0.0", "description": "", "links": parts})

    root = folder / "catalog.json"
    root.write_text(node("Catalog", "root", [("self", "x"), ("child", "./2022/a.json"), ("child", "2022/b.json")]))
    first = [("root", "../catalog.json"), *(("item", f"./items/{name}.json") for name in names[:4])]
    (folder / "2022/a.json").write_text(node("Collection", "a", [*first, ("child", "b.json")]))
    rest = [("parent", "../catalog.json"), *(("item", str(items / f"{name}.json")) for name in names[3:])]
    (folder / "2022/b.json").write_text(node("Collection", "b", [*rest, ("child", "../catalog.json")]))
    return root


def test_an_item_collection(tmp_path: Path) -> None:
    path = tmp_path / "in" / "items.json"
    path.parent.mkdir()
    path.write_text(json.dumps({"type": "FeatureCollection", "features": features()}))
    assert found(path) == expected(path.parent)


def test_a_static_catalog_by_its_file_or_folder(tmp_path: Path) -> None:
    root = static_catalog(tmp_path / "archive")
    wanted = expected(root.parent / "2022/items")
    assert found(root) == wanted
    assert found(root.parent) == wanted
    assert len(list(read_item_collection(root))) == len(HREFS) + 1, "an item that is linked twice counts once"


def test_a_static_catalog_that_pystac_wrote(tmp_path: Path) -> None:
    catalog = pystac.Catalog("root", "a catalog")
    child = pystac.Catalog("child", "of it")
    catalog.add_child(child)
    child.add_items(pystac.Item.from_dict(feature, migrate=False) for feature in features()[2:])
    catalog.normalize_and_save(str(tmp_path / "archive"), pystac.CatalogType.SELF_CONTAINED)
    hrefs = found(tmp_path / "archive/catalog.json")
    assert hrefs.keys() == HREFS.keys() - {"beside", "above"}
    assert hrefs["plain"] == str(tmp_path / "archive/child/plain/blue.tif")


@pytest.mark.parametrize("suffix", [".parquet", ".geoparquet"])
def test_stac_geoparquet(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / "in" / f"items{suffix}"
    path.parent.mkdir()
    path.write_bytes(items_to_parquet([pystac.Item.from_dict(feature, migrate=False) for feature in features()]))
    assert found(path) == expected(path.parent)


def test_stac_geoparquet_of_another_writer(tmp_path: Path) -> None:
    path = tmp_path / "items.parquet"

    async def write() -> None:
        await rustac.write(str(path), features())

    asyncio.run(write())
    assert found(path) == expected(tmp_path)


@pytest.mark.parametrize(
    ("damage", "said"),
    [
        (lambda root: (root.parent / "2022/items/plain.json").unlink(), r"2022/items/plain\.json"),
        (lambda root: (root.parent / "2022/items/plain.json").write_text("{"), r"2022/items/plain\.json"),
        (lambda root: (root.parent / "2022/b.json").write_text('{"type": "Thing"}'), "neither a STAC item nor a"),
        (lambda root: root.write_text('{"type": "Catalog", "links": []}'), "without links to items"),
        (
            lambda root: root.write_text(
                '{"type": "Catalog", "links": [{"rel": "child", "href": "https://a/b.json"}]}'
            ),
            "https://a/b.json, which is not a file",
        ),
    ],
)
def test_a_part_that_is_lost_or_damaged_is_named(tmp_path: Path, damage: Any, said: str) -> None:
    root = static_catalog(tmp_path / "archive")
    damage(root)
    with pytest.raises(CatalogError, match=said):
        found(root)


@pytest.mark.parametrize(
    ("links", "said"),
    [
        ('"items.json"', "expected `links` to be a list of objects with `rel` and `href`, got 'items.json'"),
        ('{"rel": "item"}', "expected `links` to be a list"),
        ('["items.json"]', "expected `links` to be a list"),
        ('[{"rel": "item"}]', r"a link \(item\) without an address"),
        ('[{"rel": "child", "href": null}]', r"a link \(child\) without an address"),
    ],
)
def test_odd_links_are_named_with_their_file(tmp_path: Path, links: str, said: str) -> None:
    root = tmp_path / "catalog.json"
    root.write_text(f'{{"type": "Catalog", "links": {links}}}')
    with pytest.raises(CatalogError, match=rf"catalog\.json.*{said}"):
        found(root)


class TestTablesWithGaps:
    """Rows of stac-geoparquet without a member that others have."""

    def table(self, folder: Path, member: str) -> Path:
        """Three items, of which the second lacks a member."""
        ground = item_json("x")["geometry"]
        names = ("a", "b", "c")
        items = [pystac.Item.from_dict(item_json(name, proj__geometry=ground), migrate=False) for name in names]
        path = folder / "items.parquet"
        path.write_bytes(items_to_parquet(items))
        table = pq.read_table(path)
        place = table.schema.get_field_index(member)
        values = table.column(place).to_pylist()
        values[1] = None
        field = table.schema.field(place).with_nullable(True)
        pq.write_table(table.set_column(place, field, pa.array(values, field.type)), path)
        return path

    @pytest.mark.parametrize("member", ["bbox", "links", "assets", "proj:geometry", "stac_extensions"])
    def test_what_can_be_missing_is_missed(self, tmp_path: Path, member: str) -> None:
        result = find_items(str(self.table(tmp_path, member)), "sentinel-2-l2a", AREA, START, END)
        assert [item.id for item in result.items] == ["a", "b", "c"]
        assert result.refused == []
        assert [len(item.assets) for item in result.items] == [1, 0 if member == "assets" else 1, 1]
        assert [item.bbox is None for item in result.items] == [False, member == "bbox", False]
        stated = ["proj:geometry" in item.properties for item in result.items]
        assert stated == [True, member != "proj:geometry", True]

    @pytest.mark.parametrize(("member", "reason"), [("geometry", "no footprint"), ("datetime", "no time")])
    def test_what_cannot_is_the_reason_of_that_item(self, tmp_path: Path, member: str, reason: str) -> None:
        result = find_items(str(self.table(tmp_path, member)), "sentinel-2-l2a", AREA, START, END)
        assert [item.id for item in result.items] == ["a", "c"]
        ((item, told),) = result.refused
        assert item.id == "b"
        assert reason in told

    def test_a_table_without_boxes_is_read(self, tmp_path: Path) -> None:
        path = self.table(tmp_path, "bbox")
        pq.write_table(pq.read_table(path).drop_columns(["bbox"]), path)
        assert sorted(found(path)) == ["a", "b", "c"]


@pytest.mark.parametrize("content", [b"", b"PAR1", b"{}", b"PAR1" * 100])
def test_a_damaged_table_is_named(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "items.parquet"
    path.write_bytes(content)
    with pytest.raises(CatalogError, match=r"items\.parquet is not a stac-geoparquet file"):
        found(path)


def test_a_table_of_something_else_is_named(tmp_path: Path) -> None:
    pd.DataFrame({"a": [1, 2]}).to_parquet(tmp_path / "items.parquet")
    with pytest.raises(CatalogError, match=r"items\.parquet is not a stac-geoparquet file"):
        found(tmp_path / "items.parquet")


def test_a_name_that_is_no_provider_s_is_told_those_there_are(tmp_path: Path) -> None:
    with pytest.raises(
        CatalogError, match=r"earth-serach.*not a provider either; known providers: earth-search, planetary"
    ):
        found(tmp_path / "earth-serach")


def test_a_folder_without_a_catalog_is_told_as_a_folder(tmp_path: Path) -> None:
    (tmp_path / "data").mkdir()
    with pytest.raises(CatalogError, match=r"the folder .*/data has no catalog\.json or collection\.json"):
        found(tmp_path / "data")


class TestOnAWebServer:
    def test_they_are_read_there_too_with_files_beside_them(self, tmp_path: Path) -> None:
        archive = tmp_path / "archive"
        static_catalog(archive)
        (archive / "items.json").write_text(json.dumps({"type": "FeatureCollection", "features": features()}))
        items = [pystac.Item.from_dict(feature, migrate=False) for feature in features()]
        (archive / "items.parquet").write_bytes(items_to_parquet(items))
        # Links by absolute path mean nothing on a server.
        for name in ("a", "b"):
            path = archive / f"2022/{name}.json"
            path.write_text(path.read_text().replace(str(archive / "2022"), "."))
        with served(tmp_path) as (url, _):
            for name, folder in (("items.json", ""), ("items.parquet", ""), ("catalog.json", "2022/items/")):
                here = f"{url}/archive/{folder}"
                assert found_at(f"{url}/archive/{name}") == {
                    **expected(tmp_path),
                    "beside": f"{here}files/blue.tif",
                    "above": f"{url}/{'archive/2022/' if folder else ''}elsewhere/blue.tif",
                    "plain": f"{here}blue.tif",
                    "absolute": f"{url}/data/blue.tif",
                }

    def test_what_is_not_there_is_named(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("H2CROP_READ_PAUSES", "none")
        with served(tmp_path) as (url, _), pytest.raises(CatalogError, match=rf"cannot read {url}/items\.json: .*404"):
            found_at(f"{url}/items.json")
