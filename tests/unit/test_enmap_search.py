"""What `h2crop enmap search` finds: the scenes of a catalog, judged as a build judges them."""

from __future__ import annotations

import copy
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pystac
import pytest
import shapely
import yaml
from misbehaving_api import misbehaving_api
from pyproj import Transformer
from stac_items import item_json, item_of
from typer.testing import CliRunner

from h2crop_data.catalog.collections import add_items, write_items
from h2crop_data.catalog.search import read_item_collection
from h2crop_data.cli.main import app, main
from h2crop_data.errors import CatalogError
from h2crop_data.recipe.enmap import EnmapSettings
from h2crop_data.sources.enmap.search import SceneSighting, SearchedArea, search_enmap

GROUND = shapely.box(10, 50, 12, 51)
ASSETS = {key: {"href": f"{key}.tif"} for key in ("image", "metadata", "quality_classes", "quality_cloud")}


def name_of(tile: int, datatake: int = 1867, version: str = "V010402", processed: str = "20230628T165614") -> str:
    return f"ENMAP01-____L2A-DT{datatake:010d}_20220724T104526Z_{tile:03d}_{version}_{processed}Z"


def scene_json(name: str, box: tuple[float, float, float, float] = (10, 50, 11, 51), **properties: Any) -> Any:
    """An item with the archive's properties; those given as `None` are not stated."""
    facts = {
        "enmap__overallQuality": 0,
        "eo__cloud_cover": 4,
        "enmap__sunElevationAngle": 56.0,
        "enmap__acrossOffNadirAngle": 7.25,
        "version": "01.04.02",
    }
    stated = {key: value for key, value in (facts | properties).items() if value is not None}
    settings = {"collection": "ENMAP_HSI_L2A", "time": "2022-07-24T10:45:28Z", "assets": ASSETS}
    return item_json(name, **{**settings, "box": box, **stated})


def searched(folder: Path, features: list[Any], **settings: Any) -> SearchedArea:
    """A search for 2022 over GROUND, two degrees wide, in a catalog of some items."""
    path = folder / "items.json"
    path.write_text(json.dumps({"type": "FeatureCollection", "features": features}), encoding="utf-8")
    return search_enmap(EnmapSettings(catalog=str(path), **settings), str, GROUND, [2022])


def only(found: SearchedArea) -> SceneSighting:
    assert len(found.scenes) == 1
    return found.scenes[0]


def test_what_is_told_of_a_scene(tmp_path: Path) -> None:
    scene = only(searched(tmp_path, [scene_json(name_of(8))]))
    assert scene.row() == {
        "id": name_of(8),
        "season": 2022,
        "time": "2022-07-24T10:45:28+00:00",
        "datatake": "0000001867",
        "tile": "008",
        "version": "01.04.02",
        "quality": 0,
        "cloud_cover": 4.0,
        "sun_elevation": 56.0,
        "across_off_nadir": 7.25,
        "covered": pytest.approx(0.5, abs=1e-6),
        "taken": True,
        "reason": "",
        "warning": "",
        "catalog": str(tmp_path / "items.json"),
    }


def test_shares_are_of_the_area_and_ground_counts_once(tmp_path: Path) -> None:
    boxes = [(10, 50, 11, 51), (10.5, 50, 11.5, 51), (9, 49, 10.2, 52), (10, 50, 12, 51)]
    features = [scene_json(name_of(n), box) for n, box in enumerate(boxes, 1)]
    features[3]["properties"]["enmap:overallQuality"] = 2
    found = searched(tmp_path, features)
    assert [scene.covered for scene in found.scenes] == pytest.approx([0.5, 0.5, 0.1, 1.0], abs=1e-5)
    assert [scene.taken for scene in found.scenes] == [True, True, True, False]
    # 10 to 11.5 of 10 to 12; the fourth would not be taken.
    assert found.covered == {2022: pytest.approx(0.75, abs=1e-5)}


@pytest.mark.parametrize(
    ("properties", "reason"),
    [
        ({"enmap__overallQuality": 2}, "overall quality 2 is worse"),
        ({"eo__cloud_cover": 21}, "cloud cover 21 % is above"),
        ({"enmap__sunElevationAngle": 29.9}, "sun elevation 29.9 is below"),
        ({"enmap__sunElevationAngle": None}, "no sun elevation: a night scene"),
        ({"enmap__overallQuality": None}, "lacks enmap:overallQuality"),
        ({"eo__cloud_cover": "some"}, "expected a number"),
    ],
)
def test_scenes_are_left_with_the_reason(tmp_path: Path, properties: dict[str, Any], reason: str) -> None:
    scene = only(searched(tmp_path, [scene_json(name_of(1), **properties)]))
    assert not scene.taken
    assert reason in scene.reason


def test_a_scene_without_a_cloud_layer_is_taken_by_recipe_and_told(tmp_path: Path) -> None:
    feature = scene_json(name_of(1))
    feature["assets"] = {key: asset for key, asset in ASSETS.items() if key != "quality_cloud"}
    assert "no asset `quality_cloud`" in only(searched(tmp_path, [feature])).reason
    scene = only(searched(tmp_path, [feature], cloud_layer="optional"))
    assert scene.taken
    assert "clouds are not flagged" in scene.warning


def test_older_products_of_a_tile_are_left(tmp_path: Path) -> None:
    older, newer = name_of(1, processed="20230101T000000"), name_of(1, processed="20240101T000000")
    scenes = searched(tmp_path, [scene_json(older), scene_json(newer)]).scenes
    assert {scene.id: scene.taken for scene in scenes} == {older: False, newer: True}
    assert f"the same tile as {newer}" in scenes[0].reason


def test_the_version_is_that_of_the_name_where_the_item_states_none(tmp_path: Path) -> None:
    assert only(searched(tmp_path, [scene_json(name_of(1, version="V010302"), version=None)])).version == "01.03.02"


def test_a_scene_without_a_footprint_is_listed_and_left(tmp_path: Path) -> None:
    scene = only(searched(tmp_path, [{**scene_json(name_of(1)), "geometry": None, "bbox": None}]))
    assert (scene.taken, scene.covered) == (False, None)
    assert "footprint" in scene.reason


def with_footprint_the_wrong_way_round(feature: Any) -> Any:
    """The same with latitude before longitude; its image says where it lies."""
    x, y = Transformer.from_crs("OGC:CRS84", "EPSG:32632").transform(10, 51)
    swapped = copy.deepcopy(feature)
    swapped["properties"] |= {
        "proj:code": "EPSG:32632",
        "proj:epsg": 32632,
        "proj:shape": [3700, 2330],
        "proj:transform": [30, 0, x, 0, -30, y],
    }
    swapped["geometry"]["coordinates"] = [[corner[::-1] for corner in feature["geometry"]["coordinates"][0]]]
    west, south, east, north = feature["bbox"]
    swapped["bbox"] = [south, west, north, east]
    return swapped


def test_a_warning_is_that_of_the_item_that_is_taken(tmp_path: Path) -> None:
    """Two catalogs list one product, one of them with its footprint the wrong way round."""
    right = scene_json(name_of(8))
    for name, feature in (("right", right), ("wrong", with_footprint_the_wrong_way_round(right))):
        collection = {"type": "FeatureCollection", "features": [feature]}
        (tmp_path / f"{name}.json").write_text(json.dumps(collection), encoding="utf-8")

    def warning(*order: str) -> str:
        catalogs = [str(tmp_path / f"{name}.json") for name in order]
        return only(search_enmap(EnmapSettings(catalog=catalogs), str, GROUND, [2022])).warning

    assert "longitude and latitude of its footprint are swapped" in warning("wrong")
    assert "longitude and latitude of its footprint are swapped" in warning("wrong", "right")
    assert warning("right", "wrong") == warning("right") == ""


class TestCommand:
    @pytest.fixture
    def recipe(self, tmp_path: Path) -> Path:
        features = [scene_json(name_of(1)), scene_json(name_of(2), enmap__overallQuality=2)]
        (tmp_path / "items.json").write_text(
            json.dumps({"type": "FeatureCollection", "features": features}), encoding="utf-8"
        )
        document = {"name": "x", "area": {"bbox": list(GROUND.bounds)}, "seasons": [2022, 2023]}
        document["enmap"] = {"catalog": "items.json"}
        (tmp_path / "recipe.yaml").write_text(yaml.safe_dump(document), encoding="utf-8")
        return tmp_path / "recipe.yaml"

    def test_people_see_why_scenes_are_left(self, recipe: Path) -> None:
        done = CliRunner().invoke(app, ["enmap", "search", str(recipe)])
        assert done.exit_code == 0, done.stderr
        assert "1867/002: overall quality 2 is worse than enmap.max_quality 1" in done.stderr
        assert "season 2022: 2 scene(s), 1 to use, which cover 50.0% of the area" in done.stderr
        assert "season 2023: 0 scene(s)" in done.stderr
        assert done.stdout == ""

    def test_scripts_get_json_alone(self, recipe: Path) -> None:
        done = CliRunner().invoke(app, ["enmap", "search", str(recipe), "--season", "2022", "--json"])
        report = json.loads(done.stdout)
        assert [scene["taken"] for scene in report["scenes"]] == [True, False]
        assert report["covered"] == {"2022": pytest.approx(0.5, abs=1e-5)}

    def test_what_is_strange_about_a_catalog_is_said(self, recipe: Path) -> None:
        """Once, whatever the number of seasons."""
        document = yaml.safe_load(recipe.read_text(encoding="utf-8"))
        features = [scene_json(name_of(number)) for number in (1, 2, 3)]
        with misbehaving_api(features) as api:
            api.change = lambda page, token: page | {"numberMatched": min(2, len(page["features"]))}
            document["enmap"]["catalog"] = api.url
            recipe.write_text(yaml.safe_dump(document), encoding="utf-8")
            told = CliRunner().invoke(app, ["enmap", "search", str(recipe)])
            as_json = CliRunner().invoke(app, ["enmap", "search", str(recipe), "--json"])
        note = f"{api.url} states that 2 items of ENMAP_HSI_L2A match a search, but returned 3"
        assert told.stderr.count(f"warning: {note}") == 1
        assert json.loads(as_json.stdout)["notes"] == [note]

    def test_the_items_are_a_catalog_for_a_recipe(self, recipe: Path, tmp_path: Path) -> None:
        out = tmp_path / "found" / "scenes.json"
        done = CliRunner().invoke(app, ["enmap", "search", str(recipe), "--items", str(out)])
        assert done.exit_code == 0, done.stderr
        found = list(read_item_collection(out))
        assert [item.id for item in found] == [name_of(1), name_of(2)]
        # Their files are where they were.
        assert found[0].assets["image"].href == str(tmp_path / "image.tif")
        again = search_enmap(EnmapSettings(catalog=str(out)), str, GROUND, [2022])
        assert [scene.taken for scene in again.scenes] == [True, False]

    def test_a_recipe_without_enmap_is_wrong_use(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
    ) -> None:
        path = tmp_path / "recipe.yaml"
        document = {"name": "x", "area": {"bbox": [1, 1, 2, 2]}, "seasons": [2022]}
        document["sentinel2"] = {"catalog": "items.json"}
        path.write_text(yaml.safe_dump(document), encoding="utf-8")
        monkeypatch.setattr("sys.argv", ["h2crop", "enmap", "search", str(path)])
        with pytest.raises(SystemExit) as ended:
            main()
        assert ended.value.code == 2
        assert "has no section `enmap`" in capsys.readouterr().err


class TestItemCollections:
    def item(self, name: str, href: str, **properties: Any) -> pystac.Item:
        return item_of(name, assets={"image": {"href": href}}, **properties)

    def test_items_of_an_id_that_is_there_take_its_place(self, tmp_path: Path) -> None:
        path = tmp_path / "items.json"
        assert add_items(path, [self.item("b", "/b.tif", state="old"), self.item("a", "/a.tif")]) == set()
        assert add_items(path, [self.item("b", "/b.tif", state="new"), self.item("c", "/c.tif")]) == {"b"}
        found = list(read_item_collection(path))
        assert [(item.id, item.properties.get("state")) for item in found] == [("a", None), ("b", "new"), ("c", None)]
        assert [path.name for path in tmp_path.iterdir()] == ["items.json"]

    @pytest.mark.slow
    def test_processes_that_add_at_once_lose_nothing(self, tmp_path: Path) -> None:
        """Three of them begin together: without waiting for each other they overwrite what others added."""
        script = (
            "import sys, time; from datetime import UTC, datetime; from pathlib import Path; import pystac\n"
            "from h2crop_data.catalog.collections import add_items\n"
            "folder, name = Path(sys.argv[1]), sys.argv[2]\n"
            "(folder / name).touch()\n"
            "while len(list(folder.glob('[abc]'))) < 3: time.sleep(0.001)\n"
            "for number in range(25):\n"
            "    item = pystac.Item(f'{name}{number}', None, None, datetime(2022, 7, 1, tzinfo=UTC), {})\n"
            "    add_items(folder / 'new/items.json', [item])\n"
        )
        running = [subprocess.Popen([sys.executable, "-c", script, str(tmp_path), name]) for name in "abc"]
        assert [one.wait() for one in running] == [0] * 3
        found = {item.id for item in read_item_collection(tmp_path / "new/items.json")}
        assert found == {f"{name}{number}" for name in "abc" for number in range(25)}
        assert [path.name for path in (tmp_path / "new").iterdir()] == ["items.json"]

    def test_files_below_the_collection_move_with_it(self, tmp_path: Path) -> None:
        path = tmp_path / "one" / "items.json"
        hrefs = [str(tmp_path / "one" / "sub" / "a.tif"), str(tmp_path / "b.tif"), "https://example.org/c.tif"]
        write_items(path, [self.item(str(n), href) for n, href in enumerate(hrefs)])
        (tmp_path / "one").rename(tmp_path / "two")
        moved = [str(tmp_path / "two" / "sub" / "a.tif"), *hrefs[1:]]
        assert [item.assets["image"].href for item in read_item_collection(tmp_path / "two" / "items.json")] == moved

    def test_a_file_that_is_no_collection_is_kept_as_it_is(self, tmp_path: Path) -> None:
        path = tmp_path / "notes.txt"
        path.write_text("mine", encoding="utf-8")
        with pytest.raises(CatalogError, match="not a STAC ItemCollection"):
            add_items(path, [self.item("a", "/a.tif")])
        assert path.read_text(encoding="utf-8") == "mine"

    def test_a_folder_that_cannot_be_written_is_named(self, tmp_path: Path) -> None:
        (tmp_path / "file").write_text("x", encoding="utf-8")
        with pytest.raises(CatalogError, match="cannot write the ItemCollection"):
            write_items(tmp_path / "file" / "items.json", [])
