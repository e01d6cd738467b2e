"""Finding and adding EnMAP on what the archive really sends: recorded items, and a real product."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
import shapely

from h2crop_data.catalog.item_facts import enmap_scene
from h2crop_data.catalog.search import read_item_collection
from h2crop_data.recipe.enmap import EnmapSettings
from h2crop_data.sources.enmap.added import add_products
from h2crop_data.sources.enmap.search import search_enmap

EUROPE = shapely.box(-15, 35, 30, 65)


def test_the_recorded_scenes_are_judged_with_reasons(shared: Path) -> None:
    """One clear, one wholly cloudy, one at night without sun elevation, one 90 % cloudy."""
    catalog = str(shared / "stac" / "dlr_enmap_l2a_items.json")
    strict = search_enmap(EnmapSettings(catalog=catalog), str, EUROPE, [2023])
    assert {(scene.datatake, scene.taken) for scene in strict.scenes} == {
        ("0000024647", True),
        ("0000011875", False),
        ("0000008049", False),
        ("0000009229", False),
    }
    tolerant = EnmapSettings(catalog=catalog, max_quality=2)
    reasons = {scene.datatake: scene.reason for scene in search_enmap(tolerant, str, EUROPE, [2023]).scenes}
    assert reasons == {
        "0000024647": "",
        "0000011875": "cloud cover 100 % is above enmap.max_cloud_cover 20",
        "0000008049": "no sun elevation: a night scene",
        "0000009229": "cloud cover 90 % is above enmap.max_cloud_cover 20",
    }
    clear = next(scene for scene in strict.scenes if scene.taken)
    assert (clear.version, clear.quality, clear.cloud_cover) == ("01.04.02", 0, 0)
    assert clear.sun_elevation == pytest.approx(64.969, abs=1e-3)
    assert clear.across_off_nadir == pytest.approx(-16.905, abs=1e-3)


@pytest.mark.parametrize("kind", ["folder", "zip", "gztar"])
def test_a_real_product_is_described_as_its_item_does(shared: Path, tmp_path: Path, kind: str) -> None:
    source = shared / "potsdam_2022"
    product = next(source.glob("ENMAP01*"))
    place = source
    if kind != "folder":
        place = Path(shutil.make_archive(str(tmp_path / "order"), kind, source, product.name))
    report = add_products([place], tmp_path / "items.json", tmp_path / "unpacked")
    assert [(one.status, one.missing) for one in report.products] == [("added", ["defective_pixel_mask"])]
    own = next(read_item_collection(tmp_path / "items.json"))
    stated = next(read_item_collection(source / "items.json"))
    assert enmap_scene(own) == enmap_scene(stated)
    assert own.assets.keys() == stated.assets.keys()
    assert own.bbox == pytest.approx(stated.bbox)
    for name in ("proj:epsg", "proj:shape", "eo:bands"):
        assert own.assets["image"].extra_fields[name] == stated.assets["image"].extra_fields[name]
    for key, asset in own.assets.items():
        assert Path(asset.href).read_bytes() == Path(stated.assets[key].href).read_bytes()
