"""Files of a plan that were moved: which are looked for, and when a catalog counts as moved."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pystac
import pytest

from h2crop_data.recipe.catalogs import is_moved
from h2crop_data.recipe.model import Recipe, parse_recipe
from h2crop_data.sources.moved_files import found_again

SENTINEL2 = {"catalog": "new.json", "collection": "sentinel-2-l2a"}


def recipe_in(folder: Path) -> Recipe:
    """A recipe whose catalog is `new.json`."""
    document: dict[str, Any] = {
        "name": "moved",
        "area": {"bbox": [10.0, 50.0, 10.1, 50.1]},
        "seasons": [2022],
        "sentinel2": SENTINEL2,
    }
    return parse_recipe(document, folder, "recipe")


@pytest.mark.parametrize(
    ("before", "now", "moved"),
    [
        ("old.json", "new.json", True),
        # Both are there: that is another catalog.
        ("there.json", "new.json", False),
        # Nothing is where it is said to be.
        ("old.json", "gone.json", False),
        (None, "new.json", False),
        ("old.json", "https://stac.example.org", False),
        ("https://stac.example.org", "new.json", False),
        ("${NEVER_SET}/old.json", "new.json", True),
        (["old.json", "https://stac.example.org"], ["new.json", "https://stac.example.org"], True),
        (["old.json"], ["new.json", "there.json"], False),
        ([{"catalog": "old.json", "collection": "a"}], [{"catalog": "new.json", "collection": "a"}], True),
        ([{"catalog": "old.json", "collection": "a"}], [{"catalog": "new.json", "collection": "b"}], False),
    ],
)
def test_a_catalog_was_moved_if_nothing_is_left_where_it_was(
    tmp_path: Path, before: Any, now: Any, moved: bool
) -> None:
    for name in ("new.json", "there.json"):
        (tmp_path / name).touch()
    assert is_moved(before, now, recipe_in(tmp_path).locate_catalog) is moved


def item_in(folder: Path) -> pystac.Item:
    """An item of two files."""
    item = pystac.Item("scene", None, None, datetime(2022, 5, 1, tzinfo=UTC), {}, collection="sentinel-2-l2a")
    for key in ("image", "thumbnail"):
        item.add_asset(key, pystac.Asset(str(folder / f"{key}.tif")))
    return item


def test_a_file_that_no_build_reads_is_not_missed(tmp_path: Path) -> None:
    recipe, asked = recipe_in(tmp_path), []

    def locate(catalog: str) -> str:
        asked.append(catalog)
        return recipe.locate_catalog(catalog)

    (tmp_path / "image.tif").touch()
    items = [item_in(tmp_path)]
    assert recipe.sentinel2 is not None
    assert found_again(items, recipe.sentinel2, locate, ("image",)) == items
    assert asked == []
    found_again(items, recipe.sentinel2, locate)
    assert asked == ["new.json"]
