"""Parcels and crop codes as countries publish them: a hundred parcels each, and the published table of classes."""

from __future__ import annotations

import csv
from pathlib import Path

import geopandas as gpd
import numpy as np
import pyogrio
import pytest
import shapely
import yaml
from parcel_reading import NO_FAULT, read_parcels

from h2crop_data.crops.tables import load_crop_table
from h2crop_data.crops.taxonomy import Taxonomy, tier_table
from h2crop_data.errors import ParcelError
from h2crop_data.grid import LONLAT, cells_of_area
from h2crop_data.parcels.rasterize import parcel_numbers
from h2crop_data.recipe.model import parse_recipe, shipped_recipes
from h2crop_data.sources.parcels.declarations import CellParcels, check_declared, declarations_of, split_of_parcels
from h2crop_data.sources.parcels.files import check_year_files, season_files

FILES = {
    "fr": ("fr_rpg_2022_100.gpkg", "code_cultu", "EPSG:2154"),
    "at": ("at_2025_100.gpkg.zip", "SNAR_CODE", "EPSG:31287"),
    "si": ("si_2021_100.zip", "SIFRA_KMRS", "EPSG:3794"),
}


def read(shared: Path, country: str, **options: str) -> tuple[gpd.GeoDataFrame, dict[str, int]]:
    """The parcels of a country."""
    name, field, _ = FILES[country]
    return read_parcels(shared / "parcels" / name, field, **options)


def classes(parcels: gpd.GeoDataFrame, country: str) -> np.ndarray:
    """Class ids (n, 4) of parcels by the table of their country."""
    table = load_crop_table(None, country).meanings
    return tier_table(parcels["code"].map(lambda code: table.get(code, "")).astype("str"), Taxonomy.load())


@pytest.mark.parametrize("country", FILES)
def test_every_parcel_of_a_country_is_read_whole_and_in_place(shared: Path, country: str) -> None:
    parcels, counts = read(shared, country)
    assert counts == {"read": 100, "parcels": 100, **NO_FAULT}
    name, _, crs = FILES[country]
    original = pyogrio.read_dataframe(shared / "parcels" / name)
    assert original.crs == crs
    np.testing.assert_allclose(parcels.to_crs(crs).area, original.area, rtol=1e-6)
    boxes = {"fr": (-5.2, 41.3, 9.6, 51.1), "at": (9.5, 46.3, 17.2, 49.1), "si": (13.3, 45.4, 16.6, 46.9)}
    assert shapely.box(*boxes[country]).covers(shapely.box(*parcels.total_bounds))


def test_the_areas_are_those_the_countries_state(shared: Path) -> None:
    # Hectares, rounded to the are, in the French register.
    stated = pyogrio.read_dataframe(shared / "parcels" / FILES["fr"][0])["surf_parc"]
    parcels, _ = read(shared, "fr", id_field="id_parcel")
    assert parcels["parcel_id"].is_unique
    np.testing.assert_allclose(parcels.to_crs("EPSG:2154").area / 10_000, stated, atol=0.02)


def test_94_of_100_french_parcels_reach_a_published_class(shared: Path) -> None:
    parcels, _ = read(shared, "fr")
    ids = classes(parcels, "fr")
    assert ((ids != 255).sum(axis=0) == 94).all()
    assert parcels["code"][ids[:, 3] == 255].value_counts().to_dict() == {"BTA": 6}
    assert set(parcels["code"]) <= set(load_crop_table(None, "fr").meanings)


def test_20_of_100_austrian_parcels_of_2025_have_codes_the_table_of_2021_lacks(shared: Path) -> None:
    parcels, _ = read(shared, "at")
    missing = ~parcels["code"].isin(list(load_crop_table(None, "at").meanings))
    assert parcels["code"][missing].value_counts().to_dict() == {"360": 16, "359": 2, "361": 2}
    ids = classes(parcels, "at")
    assert (ids[missing] == 255).all()
    assert (ids[~missing] != 255).all()


def test_slovenian_codes_get_the_hcat3_code_the_file_itself_states_but_for_three_that_were_corrected(
    shared: Path,
) -> None:
    # The file is EuroCrops' and carries the HCAT3 code of each parcel, by an older table than ours.
    stated = pyogrio.read_dataframe(shared / "parcels" / FILES["si"][0])["EC_hcat_c"].astype("int64").astype(str)
    parcels, _ = read(shared, "si")
    table = load_crop_table(None, "si").meanings
    corrected = {
        (code, old, table[code]) for code, old in zip(parcels["code"], stated, strict=True) if table[code] != old
    }
    assert corrected == {
        ("006", "3301010600", "3301090400"),  # silage maize is no grain maize
        ("013", "3301070000", "3301140400"),  # oil pumpkin is no fresh vegetable
        ("203", "3301090303", "3301090100"),  # grass with clover is no clover
    }
    assert ((classes(parcels, "si") != 255).sum(axis=0) == [100, 100, 100, 99]).all()


def test_a_wrong_field_of_a_real_file_is_answered_with_the_right_ones(shared: Path) -> None:
    with pytest.raises(ParcelError, match="no field 'CODE'; it has id_parcel, code_cultu, code_group"):
        read_parcels(shared / "parcels" / FILES["fr"][0], "CODE")


def test_the_shipped_recipe_reads_the_register_of_2022_whose_fields_are_in_small_letters(
    shared: Path, tmp_path: Path
) -> None:
    france = yaml.safe_load(shipped_recipes()["h2crop-france.yaml"].read_text(encoding="utf-8"))
    (tmp_path / "RPG_2022.gpkg").symlink_to(shared / "parcels" / FILES["fr"][0])
    (source,) = france["parcels"]["season"]
    source["path"] = "RPG_{year}.gpkg"
    recipe = parse_recipe({**france, "seasons": [2022]}, tmp_path, "recipe")
    # All over France, a few cells around every parcel.
    parcels, _ = read(shared, "fr")
    cells = sorted({cell for one in parcels.geometry for cell in cells_of_area(one, LONLAT, 1920, "touching")})
    groups = [[cell for cell in cells if cell.epsg == zone] for zone in sorted({cell.epsg for cell in cells})]
    assert recipe.parcels is not None
    files = season_files(recipe.parcels, recipe.locate, 2022)["parcels"]
    assert check_year_files(files, cells, recipe.area.crs) == []
    found = declarations_of(files, groups, recipe.split, Taxonomy.load(), lambda done, total, text: None)
    check_declared([found], files)
    # One lies on the border of two zones, where no cell is.
    assert found.counts == {"read": 99, "parcels": 99, **NO_FAULT, "unmapped": 0}
    stated = pyogrio.read_dataframe(shared / "parcels" / FILES["fr"][0]).set_index("id_parcel")["code_cultu"]
    assert found.parcels["code"].tolist() == stated.loc[found.parcels["parcel_id"]].tolist()
    assert (found.parcels["tier4"] != 255).sum() == (found.parcels["code"] != "BTA").sum() == 93


@pytest.mark.parametrize("country", FILES)
def test_an_area_reads_the_parcels_that_meet_its_bounds(shared: Path, country: str) -> None:
    parcels, _ = read(shared, country)
    name, field, _ = FILES[country]
    area = parcels.geometry[17]
    near, _ = read_parcels(shared / "parcels" / name, field, area=area)
    meets = parcels[parcels.intersects(area)]
    assert set(meets["fid"]) <= set(near["fid"])
    assert len(near) < len(parcels)
    for parcel in near.itertuples():
        assert shapely.box(*parcel.geometry.bounds).distance(area.envelope) < 1e-4


def test_slovenian_parcels_become_pixels_of_their_area(shared: Path) -> None:
    parcels, _ = read(shared, "si")
    hull = shapely.box(*parcels.total_bounds)
    recipe = parse_recipe(
        {
            "name": "slovenia",
            "area": {"bbox": hull.bounds},
            "seasons": [2021],
            "parcels": {
                "season": [{"path": FILES["si"][0], "country": "si", "code_field": "SIFRA_KMRS", "id_field": "ID"}],
                "prior": "none",
            },
        },
        shared / "parcels",
        "recipe",
    )
    cells = cells_of_area(hull, LONLAT, 960, "touching")
    assert recipe.parcels is not None
    files = season_files(recipe.parcels, recipe.locate, 2021)["parcels"]
    found = declarations_of(files, [cells], recipe.split, Taxonomy.load(), lambda done, total, text: None)
    assert len(found.parcels) == 100
    assert found.counts["unmapped"] == 0
    assert list(found.parcels["split"]) == list(split_of_parcels(parcels.geometry.to_numpy(), recipe.split))
    pixels = np.zeros(101, int)
    near = CellParcels(found, cells)
    for cell in cells:
        inside, ids, _ = near.draw(cell)
        pixels += np.bincount(parcel_numbers(ids, inside["number"].to_numpy()).ravel(), minlength=101)
    hectares = found.parcels.to_crs(cells[0].crs).area.to_numpy() / 10_000
    # Pixels at the edges even out.
    assert pixels[1:].sum() / 100 == pytest.approx(hectares.sum(), rel=0.01)
    np.testing.assert_allclose(pixels[1:] / 100, hectares, atol=0.25)


def test_the_classes_are_those_of_the_published_table(shared: Path) -> None:
    taxonomy = Taxonomy.load()
    with (shared / "crop_codes" / "h2crop_cascade_labels.csv").open(encoding="utf-8", newline="") as file:
        rows = list(csv.reader(file))
    codes = [row for row in rows if len(row[0].strip()) == 10 and row[0].strip().isdigit()]
    assert len(codes) == 101
    for code, *pairs in codes:
        assert taxonomy.ids(code) == tuple(int(number) for number in pairs[0:8:2])
        for tier, name in enumerate(pairs[1:8:2], start=1):
            assert taxonomy.names(tier)[taxonomy.ids(code)[tier - 1]] == name.strip()
