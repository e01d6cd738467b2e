"""`h2crop enmap add`: products downloaded by hand, found in folders and archives, checked, made into items."""

from __future__ import annotations

import json
import shutil
import tarfile
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pystac
import pytest
import rasterio
import shapely
from enmap_products import BOX, EPSG, PRODUCT, TO_LONLAT, product_of, write_product
from shapely.geometry import shape
from typer.testing import CliRunner

from h2crop_data.catalog.item_facts import enmap_scene
from h2crop_data.catalog.search import read_item_collection
from h2crop_data.cli.main import app
from h2crop_data.enmap.properties import stated_properties
from h2crop_data.errors import CatalogError, SceneError, UsageError
from h2crop_data.recipe.enmap import EnmapSettings
from h2crop_data.simulate.enmap.items import enmap_item, enmap_product_name, file_names
from h2crop_data.simulate.enmap.metadata import metadata_xml
from h2crop_data.sources.enmap.added import AddedProduct, AddedProducts, add_products
from h2crop_data.sources.enmap.search import search_enmap

NAME = enmap_product_name(PRODUCT)


def added(folder: Path, *places: Path) -> AddedProducts:
    return add_products(places, folder / "items.json", folder / "unpacked")


def items_in(folder: Path) -> list[pystac.Item]:
    return list(read_item_collection(folder / "items.json"))


def only(report: AddedProducts) -> AddedProduct:
    assert len(report.products) == 1
    assert report.problems == {}
    return report.products[0]


def pack_zip(files: list[Path], path: Path) -> None:
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as packed:
        for file in files:
            packed.write(file, f"some/folder/{file.name}")


def pack_tar(files: list[Path], path: Path) -> None:
    with tarfile.open(path, "w:gz" if path.name.endswith("gz") else "w") as packed:
        for file in files:
            packed.add(file, f"./some/folder/{file.name}")


PACKERS: dict[str, Callable[[list[Path], Path], None]] = {"zip": pack_zip, "tar": pack_tar, "tar.gz": pack_tar}


class TestItem:
    """What is said of a product is what the archive's own item says of it."""

    @pytest.fixture
    def item(self, tmp_path: Path) -> pystac.Item:
        write_product(tmp_path / "in")
        assert only(added(tmp_path, tmp_path / "in")).status == "added"
        return items_in(tmp_path)[0]

    @pytest.fixture
    def archives(self) -> pystac.Item:
        return pystac.Item.from_dict(enmap_item(PRODUCT, file_names(PRODUCT)), migrate=False)

    def test_builds_read_the_same_facts(self, item: pystac.Item, archives: pystac.Item) -> None:
        assert enmap_scene(item) == enmap_scene(archives)
        assert (item.id, item.collection_id, item.datetime) == (archives.id, archives.collection_id, archives.datetime)

    def test_properties_agree_with_the_archives(self, item: pystac.Item, archives: pystac.Item) -> None:
        there = {key: value for key, value in archives.properties.items() if key not in ("proj:epsg", "datetime")}
        stated = {key: item.properties[key] for key in item.properties.keys() & there}
        assert stated == {key: there[key] for key in stated}
        wanted = {"version", "eo:cloud_cover", "enmap:overallQuality", "enmap:sunAzimuthAngle", "start_datetime"}
        assert wanted | {"enmap:acrossOffNadirAngle", "view:sun_elevation", "enmap:tileID"} <= stated.keys()
        # The archive's azimuth of that name is 180 degrees off.
        assert "view:sun_azimuth" not in item.properties

    def test_assets_are_the_files_with_grid_and_bands(self, item: pystac.Item, archives: pystac.Item) -> None:
        assert item.assets.keys() == archives.assets.keys()
        for key, asset in item.assets.items():
            assert Path(asset.href).name == archives.assets[key].href
            assert Path(asset.href).is_file()
            for name in ("proj:epsg", "proj:shape", "proj:transform", "proj:bbox", "eo:bands"):
                assert asset.extra_fields.get(name) == archives.assets[key].extra_fields.get(name), name

    def test_it_lies_where_the_image_does(self, item: pystac.Item) -> None:
        ground = shapely.transform(shapely.segmentize(BOX, 10), TO_LONLAT, interleaved=False)
        apart = shapely.symmetric_difference(shape(item.geometry), ground)
        assert shapely.area(apart) < 1e-5 * shapely.area(ground)
        assert item.properties["proj:epsg"] == EPSG

    def test_a_night_scene_has_no_elevation(self, tmp_path: Path) -> None:
        write_product(tmp_path / "in", product_of(sun_elevation=None))
        added(tmp_path, tmp_path / "in")
        item = items_in(tmp_path)[0]
        assert enmap_scene(item).sun_elevation is None
        assert "view:sun_elevation" not in item.properties

    @pytest.mark.parametrize(("text", "told"), [("64.969432", "fine"), ("6°", "6°"), ("nan", "nan")])
    def test_a_number_that_is_none_is_refused_by_name(self, text: str, told: str) -> None:
        xml = metadata_xml(PRODUCT).replace(">64.969432<", f">{text}<")
        if told == "fine":
            assert stated_properties(xml)["enmap:sunElevationAngle"] == 64.969432
            return
        with pytest.raises(SceneError, match=rf"sunElevationAngle/center is '{told}', expected a number"):
            stated_properties(xml)


class TestFound:
    def test_folders_of_folders_and_plain_names(self, tmp_path: Path) -> None:
        write_product(tmp_path / "in" / "one", product_of(1))
        write_product(tmp_path / "in" / "two" / "deep", product_of(2), plain=True)
        report = added(tmp_path, tmp_path / "in")
        assert [(product.status, product.missing) for product in report.products] == [("added", [])] * 2
        assert [item.properties["enmap:tileID"] for item in items_in(tmp_path)] == [1, 2]

    def test_of_both_kinds_of_a_file_the_optimised_counts(self, tmp_path: Path) -> None:
        write_product(tmp_path / "a")
        write_product(tmp_path / "b", plain=True)
        report = added(tmp_path, tmp_path / "a", tmp_path / "b")
        assert only(report).status == "added"
        assert items_in(tmp_path)[0].assets["image"].href.endswith("SPECTRAL_IMAGE_COG.TIF")

    @pytest.mark.parametrize("kind", PACKERS)
    def test_archives_hold_the_same_products(self, tmp_path: Path, kind: str) -> None:
        files = list(write_product(tmp_path / "in").values())
        PACKERS[kind](files, tmp_path / f"order.{kind}")
        assert only(added(tmp_path, tmp_path / f"order.{kind}")).status == "added"
        item = items_in(tmp_path)[0]
        assert len(item.assets) == len(files)
        for file in files:
            path = tmp_path / "unpacked" / NAME / file.name
            assert path.read_bytes() == file.read_bytes()
            assert str(path) in {asset.href for asset in item.assets.values()}

    def test_archives_inside_archives_are_opened(self, tmp_path: Path) -> None:
        pack_zip(list(write_product(tmp_path / "in").values()), tmp_path / "product.zip")
        pack_tar([tmp_path / "product.zip"], tmp_path / "order.tar.gz")
        assert only(added(tmp_path, tmp_path / "order.tar.gz")).status == "added"
        assert [path.name for path in (tmp_path / "unpacked").iterdir()] == [NAME]

    def test_what_lies_unpacked_beside_its_archive_is_not_unpacked(self, tmp_path: Path) -> None:
        files = list(write_product(tmp_path / "in").values())
        pack_zip(files, tmp_path / "in" / "order.zip")
        assert only(added(tmp_path, tmp_path / "in")).status == "added"
        assert not (tmp_path / "unpacked").exists()

    def test_adding_again_changes_nothing_and_replaces(self, tmp_path: Path) -> None:
        pack_zip(list(write_product(tmp_path / "in").values()), tmp_path / "order.zip")
        shutil.rmtree(tmp_path / "in")
        # The folder of unpacked products and the collection lie below the place that is added.
        assert only(added(tmp_path, tmp_path)).status == "added"
        before = (tmp_path / "items.json").read_bytes()
        stamps = {path: path.stat().st_mtime_ns for path in (tmp_path / "unpacked").rglob("*.TIF")}
        assert only(added(tmp_path, tmp_path)).status == "replaced"
        assert (tmp_path / "items.json").read_bytes() == before
        assert {path: path.stat().st_mtime_ns for path in stamps} == stamps

    def test_an_archive_that_was_downloaded_again_takes_effect(self, tmp_path: Path) -> None:
        files = write_product(tmp_path / "in")
        pack_zip(list(files.values()), tmp_path / "order.zip")
        added(tmp_path, tmp_path / "order.zip")
        with rasterio.open(files["image"], "r+") as raster:
            raster.write(np.full(raster.shape, 77, np.int16), 1)
        pack_zip(list(files.values()), tmp_path / "order.zip")
        assert only(added(tmp_path, tmp_path / "order.zip")).status == "replaced"
        with rasterio.open(items_in(tmp_path)[0].assets["image"].href) as raster:
            assert (raster.read(1) == 77).all()

    def test_names_that_lead_out_of_the_folder_stay_in_it(self, tmp_path: Path) -> None:
        files = list(write_product(tmp_path / "in").values())
        with zipfile.ZipFile(tmp_path / "order.zip", "w") as packed:
            for file in files:
                packed.write(file, f"../../../{file.name}")
        assert only(added(tmp_path, tmp_path / "order.zip")).status == "added"
        assert {path.parent for path in tmp_path.rglob("ENMAP*.TIF")} == {files[0].parent, tmp_path / "unpacked" / NAME}

    def test_a_place_that_is_not_there_is_named(self, tmp_path: Path) -> None:
        with pytest.raises(UsageError, match="nowhere does not exist"):
            added(tmp_path, tmp_path / "nowhere")

    def test_a_file_that_is_no_collection_is_left_alone(self, tmp_path: Path) -> None:
        write_product(tmp_path / "in")
        (tmp_path / "items.json").write_text("[]", encoding="utf-8")
        with pytest.raises(CatalogError, match="not a STAC ItemCollection"):
            added(tmp_path, tmp_path / "in")
        assert (tmp_path / "items.json").read_text(encoding="utf-8") == "[]"


def cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-100])


def login_page(path: Path) -> None:
    path.write_bytes(b"<!DOCTYPE html>\n<html><body>Sign in</body></html>")


def other_bytes(path: Path) -> None:
    path.write_bytes(b"\x89PNG\r\n" + bytes(5000))


def zeros(path: Path) -> None:
    data = path.read_bytes()
    path.write_bytes(data[:512] + bytes(len(data) - 512))


class TestRefused:
    @pytest.mark.parametrize(
        ("damage", "keys", "message"),
        [
            (cut, ("image",), "truncated|last tile cannot be read"),
            (zeros, ("image",), "its last tile is damaged"),
            (login_page, ("image", "quality_cloud", "metadata"), "login page"),
            (other_bytes, ("image", "defective_pixel_mask"), "not a TIFF file"),
            (other_bytes, ("metadata",), "not an XML file"),
            (cut, ("metadata",), "incomplete XML"),
        ],
    )
    def test_damaged_files_are_named(
        self, tmp_path: Path, damage: Callable[[Path], None], keys: tuple[str, ...], message: str
    ) -> None:
        for number, key in enumerate(keys):
            files = write_product(tmp_path / str(number), product_of(number + 1))
            damage(files[key])
            product = only(added(tmp_path, tmp_path / str(number)))
            assert product.status == "refused"
            assert files[key].name in product.reason
            assert any(part in product.reason for part in message.split("|")), product.reason
        assert not (tmp_path / "items.json").exists()

    @pytest.mark.parametrize("key", ["image", "metadata", "quality_classes"])
    def test_what_every_product_has_may_not_miss(self, tmp_path: Path, key: str) -> None:
        write_product(tmp_path / "in", leave_out=[key])
        product = only(added(tmp_path, tmp_path / "in"))
        assert (product.status, product.missing) == ("refused", [key])
        assert f"it has no {key}" in product.reason

    def test_optional_layers_may_miss_and_are_told(self, tmp_path: Path) -> None:
        lacking = ["quality_cloud", "quality_snow", "defective_pixel_mask"]
        write_product(tmp_path / "in", leave_out=lacking)
        product = only(added(tmp_path, tmp_path / "in"))
        assert (product.status, product.missing) == ("added", lacking)
        assert "enmap.cloud_layer: optional" in product.reason
        assert not items_in(tmp_path)[0].assets.keys() & set(lacking)

    def test_bands_that_are_not_the_metadatas_are_refused(self, tmp_path: Path) -> None:
        files = write_product(tmp_path / "in")
        files["metadata"].write_text(
            metadata_xml(product_of(centres=(500.0, 600.0), fwhm=(7.0, 7.0))), encoding="utf-8"
        )
        assert "has 3 bands, METADATA.XML describes 2" in only(added(tmp_path, tmp_path / "in")).reason

    def test_other_levels_and_formats_are_told(self, tmp_path: Path) -> None:
        files = write_product(tmp_path / "in")
        for path in files.values():
            path.rename(path.with_name(path.name.replace("L2A", "L1C")))
        other = write_product(tmp_path / "in", product_of(2), leave_out=["image"])["metadata"]
        other.with_name(other.name.replace("METADATA.XML", "SPECTRAL_IMAGE.BSQ")).write_bytes(b"x")
        reasons = [product.reason for product in added(tmp_path, tmp_path / "in").products]
        assert "expected a product of level L2A, surface reflectance, got L1C" in reasons[0]
        assert "SPECTRAL_IMAGE.BSQ (order GeoTIFF)" in reasons[1]

    def test_metadata_without_quality_is_told(self, tmp_path: Path) -> None:
        files = write_product(tmp_path / "in")
        text = files["metadata"].read_text(encoding="utf-8")
        files["metadata"].write_text(text.replace("cloudCover>", "clouds>"), encoding="utf-8")
        assert "does not state quality and cloud cover" in only(added(tmp_path, tmp_path / "in")).reason

    @pytest.mark.parametrize("kind", PACKERS)
    def test_a_damaged_archive_is_named_and_the_rest_is_added(self, tmp_path: Path, kind: str) -> None:
        whole, broken = product_of(1), product_of(2)
        PACKERS[kind](list(write_product(tmp_path / "in", whole).values()), tmp_path / f"a.{kind}")
        path = tmp_path / f"b.{kind}"
        PACKERS[kind](list(write_product(tmp_path / "in", broken).values()), path)
        data = path.read_bytes()
        path.write_bytes(data[: len(data) // 2])
        report = added(tmp_path, tmp_path / f"a.{kind}", path)
        assert list(report.problems) == [str(path)]
        assert [product.name for product in report.used] == [enmap_product_name(whole)]
        assert not list((tmp_path / "unpacked").rglob(".*"))


class TestCommand:
    def run(self, *arguments: Any) -> Any:
        return CliRunner().invoke(app, ["enmap", "add", *map(str, arguments)])

    def test_people_are_told_and_a_recipe_finds_them(self, tmp_path: Path) -> None:
        pack_zip(list(write_product(tmp_path / "in").values()), tmp_path / "order.zip")
        items = tmp_path / "mine.json"
        done = self.run(tmp_path / "order.zip", "--into", items)
        assert done.exit_code == 0, done.stderr
        assert f"added: {NAME}" in done.stderr
        assert (tmp_path / "mine_products" / NAME).is_dir()
        ground = shapely.transform(BOX, TO_LONLAT, interleaved=False)
        found = search_enmap(EnmapSettings(catalog=str(items)), str, ground, [2023])
        assert [(scene.id, scene.taken) for scene in found.scenes] == [(NAME, True)]
        assert found.covered[2023] == pytest.approx(1, abs=1e-3)

    def test_exit_codes_and_json(self, tmp_path: Path) -> None:
        (tmp_path / "in").mkdir()
        done = self.run(tmp_path / "in", "--into", tmp_path / "items.json")
        assert done.exit_code == 1
        assert "no EnMAP product found" in done.stderr
        write_product(tmp_path / "in", product_of(1), leave_out=["image"])
        assert self.run(tmp_path / "in", "--into", tmp_path / "items.json").exit_code == 1
        write_product(tmp_path / "in", product_of(2))
        done = self.run(tmp_path / "in", "--into", tmp_path / "items.json", "--json")
        assert done.exit_code == 3
        report = json.loads(done.stdout)
        assert [product["status"] for product in report["products"]] == ["refused", "added"]
        assert report["products"][0]["missing"] == ["image"]
