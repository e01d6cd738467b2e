"""Stores in two versions of the classes: what a build, a relabel and a change of codes over the years give."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import geopandas as gpd
import numpy as np
import pytest
import shapely
import xarray as xr
from tiny_region import EPSG, NORTH, SOUTH, WEST, TinyRegion

import h2crop_data
from h2crop_data.crops.taxonomy import Taxonomy
from h2crop_data.cube.reading import store_attributes
from h2crop_data.errors import RecipeError, UsageError
from h2crop_data.maintenance.relabel import relabel_store
from h2crop_data.pipeline.build import build_store
from h2crop_data.recipe.model import Recipe
from h2crop_data.validation.validate import validate_store

#: Code of each parcel of a year; the parcels are strips from west to east, 40 m wide.
DECLARED = {
    2021: ["BTH", "BTN", "MIS", "MIE", "J6S", "CCT", "bth", "ORH"],
    2022: ["BTH", "BTN", "MIS", "MIE", "J6S", "CCT", "bth", "ORH"],
    2023: ["BTH", "BTN", "MIS", "MIS", "JAC", "CCT", "bth", "ORH"],
}
#: HCAT3 code of each parcel by the published table, and by the current one in 2022 and in 2023; None: not in the table.
PUBLISHED = ["3301010101", "3301290200", "3301010600", "3301090400", "3301110000", "3301140600", None, "3301010401"]
OF_2022 = [
    "3301010101",
    "3301290700",
    "3301010600",
    "3301090400",
    "3301110000",
    "3301140000",
    "3301010101",
    "3301010401",
]
OF_2023 = [
    "3301010101",
    "3301290700",
    "3301000000",
    "3301000000",
    "3301110000",
    "3301140000",
    "3301010101",
    "3301010401",
]


@pytest.fixture(scope="module")
def region(tmp_path_factory: pytest.TempPathFactory) -> TinyRegion:
    made = TinyRegion(tmp_path_factory.mktemp("region"))
    for year in (2022, 2023):
        made.add_sentinel2(f"S2_{year}", f"{year}-07-05T10:50:00Z", 900 + year)
        made.add_enmap(1, f"{year}0724T104526")
    for year, codes in DECLARED.items():
        strips = [(WEST + 20 + 40 * i, SOUTH + 20, WEST + 60 + 40 * i, NORTH - 20) for i in range(len(codes))]
        made.write_parcels(year, list(zip(strips, codes, strict=True)))
    return made


def recipe_of(region: TinyRegion, version: str | None, **changes: Any) -> Recipe:
    chosen = {} if version is None else {"taxonomy": {"version": version}}
    return region.recipe(seasons=[2022, 2023], **chosen, **changes)


@pytest.fixture(scope="module")
def stores(region: TinyRegion, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """A store of each version, built from the same files."""
    folder = tmp_path_factory.mktemp("stores")
    for name, version in (("1", None), ("2", "2")):
        build_store(recipe_of(region, version), folder / name, workers=1)
    return {"1": folder / "1", "2": folder / "2"}


def strip_labels(store: Path, season: int, array: str = "label") -> list[list[int]]:
    """The numbers of the four tiers in the middle of each strip."""
    opened = h2crop_data.open(store, season).load()
    found: list[list[int]] = []
    for strip in range(len(PUBLISHED)):
        columns = np.floor((WEST + 40 + 40 * strip - opened["x0"].values) / 10)
        sample = int(np.flatnonzero((columns >= 0) & (columns < opened.sizes["x"]))[0])
        numbers = opened[array].values[sample, :, opened.sizes["y"] // 2, int(columns[sample])]
        found.append(numbers.tolist())
    return found


def ids(version: str, codes: list[str | None]) -> list[list[int]]:
    taxonomy = Taxonomy.load(version)
    return [list(taxonomy.ids(code or "")) for code in codes]


def test_a_recipe_without_a_version_has_the_published_classes(stores: dict[str, Path]) -> None:
    for season in (2022, 2023):
        expected = ids("1", PUBLISHED)
        if season == 2023:
            # JAC is not in the published table, and MIS means what it always did there.
            expected[3], expected[4] = expected[2], [255] * 4
        assert strip_labels(stores["1"], season) == expected
    assert h2crop_data.read_index(stores["1"], "blocks")["taxonomy"].str.startswith("1 ").all()


def test_version_2_follows_codes_through_the_years(stores: dict[str, Path]) -> None:
    store = stores["2"]
    assert strip_labels(store, 2022) == ids("2", OF_2022)
    assert strip_labels(store, 2023) == ids("2", OF_2023)
    # The prior of 2023 was declared in 2022, with the codes of 2022.
    assert strip_labels(store, 2023, "prior") == ids("2", OF_2022)
    assert strip_labels(store, 2022, "prior") == ids("2", OF_2022)
    result = validate_store(str(store))
    assert not result.errors, result.findings


def test_root_and_index_have_the_tables_of_each_year(stores: dict[str, Path]) -> None:
    root = store_attributes(stores["2"])
    taxonomy = Taxonomy.load("2")
    assert root["taxonomy"]["version"] == "2"
    assert root["taxonomy"]["sha256"] == taxonomy.hash
    # One digest for the codes of 2021 and 2022, another for those of 2023.
    assert len(root["taxonomy"]["countries"]["fr"].split()) == 2
    blocks = h2crop_data.read_index(stores["2"], "blocks")
    assert set(blocks["taxonomy"]) == {f"2 {taxonomy.hash}"}
    tables = {season: {tuple(row) for row in of["tables"]} for season, of in blocks.groupby("season")}
    assert [len(next(iter(tables[season]))) for season in (2022, 2023)] == [1, 2]


def test_relabelling_gives_what_a_build_gives_and_shares_the_images(stores: dict[str, Path], tmp_path: Path) -> None:
    report = relabel_store(stores["1"], tmp_path / "new", taxonomy="2")
    assert report.redone > 0
    for season in (2022, 2023):
        new, built, old = (
            h2crop_data.open(path, season).load() for path in (tmp_path / "new", stores["2"], stores["1"])
        )
        xr.testing.assert_identical(new[["label", "prior"]].drop_attrs(), built[["label", "prior"]].drop_attrs())
        images = [name for name in old.data_vars if name not in ("label", "prior")]
        xr.testing.assert_identical(new[images].drop_attrs(), old[images].drop_attrs())
    # Only crops whose meaning or class differs between the versions.
    before, after = strip_labels(stores["1"], 2022), strip_labels(tmp_path / "new", 2022)
    assert [i for i in range(8) if before[i] != after[i]] == [1, 5, 6]
    assert store_attributes(tmp_path / "new")["taxonomy"]["version"] == "2"
    assert not validate_store(str(tmp_path / "new")).errors
    # Another relabelling goes back to the published classes.
    relabel_store(tmp_path / "new", tmp_path / "back", taxonomy="1")
    for season in (2022, 2023):
        back, old = (h2crop_data.open(path, season).load() for path in (tmp_path / "back", stores["1"]))
        xr.testing.assert_identical(back.drop_attrs(), old.drop_attrs())


def test_a_recipe_that_states_no_version_keeps_that_of_the_store(
    region: TinyRegion, stores: dict[str, Path], tmp_path: Path
) -> None:
    relabel_store(stores["2"], tmp_path / "same", recipe=recipe_of(region, None))
    assert store_attributes(tmp_path / "same")["taxonomy"]["version"] == "2"
    assert strip_labels(tmp_path / "same", 2022) == ids("2", OF_2022)
    relabel_store(stores["2"], tmp_path / "older", recipe=recipe_of(region, "1"))
    assert strip_labels(tmp_path / "older", 2022) == ids("1", PUBLISHED)


def test_a_use_needs_the_table_of_hcat4(region: TinyRegion) -> None:
    source = {"path": "RPG_{year}.gpkg", "country": "fr", "code_field": "CODE_CULTU", "use_field": "USE"}
    with pytest.raises(RecipeError, match="use_field: requires `table: hcat4`"):
        region.recipe(parcels={"season": [source]})


def test_unknown_versions_are_refused(region: TinyRegion, stores: dict[str, Path], tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="unknown taxonomy version '9'; this h2crop has 1, 2"):
        relabel_store(stores["1"], tmp_path / "new", taxonomy="9")
    with pytest.raises(RecipeError, match=r"taxonomy\.version: unknown version '9'; this h2crop has 1, 2"):
        build_store(recipe_of(region, "9"), tmp_path / "store", workers=1)
    assert not (tmp_path / "new/zarr.json").exists()


@pytest.mark.parametrize("version", ["1", "2"])
def test_parcels_with_hcat_codes_are_classed_by_them(region: TinyRegion, tmp_path: Path, version: str) -> None:
    codes = [
        (3310101001, 0, "3301010101"),  # winter wheat
        (3310719010, 0, "3301290700"),  # sugar beet
        (3310106000, 6, "3301010600"),  # maize for grain
        (3310106000, 3, "3301090400"),  # maize for fodder
        (3310106000, 0, "3301000000"),  # maize
        (3320100000, 10, "3302000000"),  # grassland, for the environment
        (3320000000, 0, ""),  # grassland, permanent or temporary
        (3399999999, 0, ""),  # no code
    ]
    boxes = [shapely.box(WEST + 20 + 40 * i, SOUTH + 20, WEST + 60 + 40 * i, NORTH - 20) for i in range(len(codes))]
    columns = {"hcat4_code": [code for code, _, _ in codes], "usage_code": [use for _, use, _ in codes]}
    columns["hcat:code"] = [hcat3 or None for _, _, hcat3 in codes]
    gpd.GeoDataFrame(columns, geometry=boxes, crs=f"EPSG:{EPSG}").to_file(tmp_path / "hcat.gpkg")
    expected = ids(version, [hcat3 for _, _, hcat3 in codes])
    for table, fields in (
        ("hcat4", {"code_field": "hcat4_code", "use_field": "USAGE_CODE"}),
        ("hcat3", {"code_field": "hcat:code"}),
    ):
        source = {"path": str(tmp_path / "hcat.gpkg"), "country": "at", "table": table, **fields}
        recipe = region.recipe(
            seasons=[2022], taxonomy={"version": version}, parcels={"season": [source], "prior": "none"}
        )
        store = tmp_path / table
        build_store(recipe, store, workers=1)
        assert strip_labels(store, 2022) == expected, table
