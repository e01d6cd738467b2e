"""EnMAP products that a user downloaded by hand give the store that the archive's catalog gives."""

from __future__ import annotations

import zipfile
from pathlib import Path
from typing import Any

import pytest

import h2crop_data
from h2crop_data.cube.reading import read_index
from h2crop_data.pipeline.build import build_store
from h2crop_data.recipe.model import load_recipe
from h2crop_data.simulate.region import simulate_region
from h2crop_data.simulate.settings import load_settings
from h2crop_data.sources.enmap.added import add_products

SETTINGS: dict[str, Any] = {
    "seed": 5,
    "cells": 4,
    "cell_size": 480,
    "split_square": 1000,
    "sentinel2.dates_per_month": 1,
    "sentinel2.months": [6, 7],
    "enmap.scenes": 2,
    "enmap.sky": {"cloudiness": 0.1},
}
SEASON = 2022


@pytest.fixture(scope="module")
def region(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("region")
    simulate_region(load_settings(None, SETTINGS), folder)
    return folder


def test_products_packed_and_added_give_the_same_store(region: Path, tmp_path: Path) -> None:
    recipe = load_recipe(region / "recipe.yaml")
    build_store(recipe, tmp_path / "from catalog", workers=1)
    homes = sorted({path.parent for path in (region / "products" / "enmap").rglob("*METADATA.XML")})
    assert len(homes) >= 2
    for number, home in enumerate(homes):
        with zipfile.ZipFile(tmp_path / f"order{number}.zip", "w") as packed:
            for path in sorted(home.iterdir()):
                packed.write(path, path.name)
    items = tmp_path / "added" / "items.json"
    report = add_products([tmp_path], items, tmp_path / "added" / "products")
    assert [product.status for product in report.products] == ["added"] * len(homes)
    assert recipe.enmap is not None
    own = recipe.changed(recipe, enmap=recipe.enmap.model_copy(update={"catalog": str(items)}))
    build_store(own, tmp_path / "from disk", workers=1)

    stores = [tmp_path / "from catalog", tmp_path / "from disk"]
    catalog, disk = (h2crop_data.open(store, SEASON).load() for store in stores)
    assert catalog.sizes["sample"] >= 4
    assert disk.identical(catalog)
    for table in (f"samples-{SEASON}", f"dates-{SEASON}", "scenes"):
        before, after = (read_index(store, table) for store in stores)
        assert len(before)
        # But for the catalog that gave them.
        before, after = (one.drop(columns="catalog", errors="ignore") for one in (before, after))
        assert after.equals(before), table
    assert str(items) in set(read_index(stores[1], "scenes")["catalog"])
