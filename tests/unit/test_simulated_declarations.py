"""What simulated farmers declare: files like the register's, faults at their shares, all of it in the truth."""

from __future__ import annotations

import hashlib
import time
from pathlib import Path

import geopandas as gpd
import numpy as np
import pandas as pd
import pyogrio
import pytest
import shapely
from parcel_reading import read_parcels

from h2crop_data.crops.tables import load_crop_table
from h2crop_data.grid import geobox
from h2crop_data.parcels.rasterize import rasterize_ids
from h2crop_data.simulate.land.declarations import DIRT, RPG_COLUMNS, TRUTH_COLUMNS, declare, write_geopackage
from h2crop_data.simulate.land.objects import LAND_SQUARE, land_of_square
from h2crop_data.simulate.land.rotation import catch_crops, crop_of
from h2crop_data.simulate.settings import ParcelSettings

SEED = 4
SQUARES = [(130, 1400), (131, 1400)]
CRS = "EPSG:32631"
SEASON = 2022


def only(**shares: float) -> ParcelSettings:
    """Settings in which nothing is wrong but what is named."""
    return ParcelSettings(**{**dict.fromkeys(DIRT, 0.0), **shares})


@pytest.fixture(scope="module")
def fields() -> gpd.GeoDataFrame:
    land = pd.concat([land_of_square(SEED, *square) for square in SQUARES], ignore_index=True)
    fields = gpd.GeoDataFrame(land[land["kind"] == "field"].reset_index(drop=True)).set_crs(CRS)
    first, second = catch_crops(SEED, fields, SEASON)
    crop = crop_of(SEED, fields, SEASON)
    return fields.assign(number=np.arange(1, len(fields) + 1), crop=crop, catch_1=first, catch_2=second)


def written(path: Path, records: gpd.GeoDataFrame) -> Path:
    write_geopackage(path, [records])
    return path


def test_the_file_is_like_the_registers(fields: gpd.GeoDataFrame, tmp_path: Path) -> None:
    records, _ = declare(fields, SEASON, only(), SEED)
    assert tuple(records.columns) == (*RPG_COLUMNS, "geometry")
    info = pyogrio.read_info(written(tmp_path / "RPG_2022.gpkg", records))
    assert info["layer_name"] == "parcelles_graphiques"
    assert info["crs"] == "EPSG:2154"
    assert info["geometry_type"] == "MultiPolygon"
    assert tuple(info["fields"]) == RPG_COLUMNS
    kinds = dict(zip(info["fields"], info["ogr_types"], strict=True))
    assert kinds.pop("SURF_PARC") == "OFTReal"
    assert set(kinds.values()) == {"OFTString"}
    assert info["features"] == len(fields)
    frame = pyogrio.read_dataframe(tmp_path / "RPG_2022.gpkg")
    assert frame["ID_PARCEL"].is_unique
    assert frame["ID_PARCEL"].str.fullmatch(r"\d{1,10}").all()
    assert frame["CODE_CULTU"].str.fullmatch(r"[A-Z0-9]{3}").all()
    assert frame["CODE_GROUP"].str.fullmatch(r"\d{1,2}").all()
    np.testing.assert_allclose(frame["SURF_PARC"], fields["area_ha"], atol=0.006, rtol=2e-3)
    assert (frame["CULTURE_D1"] != "").sum() == (fields["catch_1"] != "").sum() > 0


def test_clean_declarations_give_every_field_back(fields: gpd.GeoDataFrame, tmp_path: Path) -> None:
    records, truth = declare(fields, SEASON, only(), SEED)
    assert tuple(truth.columns) == TRUTH_COLUMNS
    assert truth["declared"].all()
    assert (truth["dirt"] == "").all()
    parcels, counts = read_parcels(written(tmp_path / "a.gpkg", records), "CODE_CULTU", id_field="ID_PARCEL")
    assert {name: number for name, number in counts.items() if number} == dict.fromkeys(
        ("read", "parcels"), len(fields)
    )
    back = parcels.set_index("parcel_id").loc[truth["id_parcel"]].to_crs(CRS)
    assert (back["code"].to_numpy() == fields["crop"].to_numpy(str)).all()
    apart = shapely.hausdorff_distance(back.geometry.to_numpy(), fields.geometry.to_numpy())
    assert apart.max() < 1e-3


def test_pixels_drawn_from_the_file_are_those_of_the_true_fields(fields: gpd.GeoDataFrame, tmp_path: Path) -> None:
    records, truth = declare(fields, SEASON, only(), SEED)
    parcels, _ = read_parcels(written(tmp_path / "a.gpkg", records), "CODE_CULTU", id_field="ID_PARCEL")
    back = parcels.to_crs(CRS)
    numbers = truth.set_index("id_parcel")["number"].loc[back["parcel_id"]].to_numpy()
    west, south = SQUARES[0][0] * LAND_SQUARE, SQUARES[0][1] * LAND_SQUARE
    box = geobox((west, south, west + 2 * LAND_SQUARE, south + LAND_SQUARE), 32631, 10)
    true = rasterize_ids(fields.geometry.to_numpy(), fields["number"].to_numpy(), box)
    declared = np.append(0, numbers)[rasterize_ids(back.geometry.to_numpy(), numbers, box)]
    assert (true > 0).mean() > 0.3
    assert (np.append(0, fields["number"].to_numpy())[true] != declared).mean() < 1e-4


def test_borders_stay_shared(fields: gpd.GeoDataFrame) -> None:
    records, _ = declare(fields, SEASON, only(), SEED)
    assert shapely.coverage_is_valid(shapely.get_parts(records.geometry.to_numpy()))


@pytest.mark.parametrize("name", DIRT)
def test_each_fault_has_its_share_and_is_in_the_truth(fields: gpd.GeoDataFrame, name: str) -> None:
    for share in (0.2, 0.6):
        _, truth = declare(fields, SEASON, only(**{name: share}), SEED)
        spread = 4 * np.sqrt(share * (1 - share) / len(fields))
        assert (truth["dirt"] == name).mean() == pytest.approx(share, abs=spread)
        assert ((truth["dirt"] == name) | (truth["dirt"] == "")).all()


def test_every_fault_can_be_everywhere_at_once(fields: gpd.GeoDataFrame, tmp_path: Path) -> None:
    records, truth = declare(fields, SEASON, only(**dict.fromkeys(DIRT, 0.4)), SEED)
    assert set(" ".join(truth["dirt"]).split()) == set(DIRT)
    listed = truth["dirt"].str.split()
    assert listed.map(len).max() >= 4
    assert (truth.loc[~truth["declared"], "dirt"] == "undeclared").all()
    assert (truth.loc[~truth["declared"], ["declared_crop", "id_parcel"]] == "").all(axis=None)
    parcels, _ = read_parcels(written(tmp_path / "a.gpkg", records), "CODE_CULTU", id_field="ID_PARCEL")
    assert parcels.geometry.is_valid.all()
    shaped = truth["declared"] & ~truth["dirt"].str.contains("null_geometry")
    assert set(truth.loc[shaped, "id_parcel"]) <= set(parcels["parcel_id"])
    assert len(parcels) == shaped.sum() + truth["dirt"].str.contains("slivers").sum()


@pytest.mark.slow
def test_reading_mends_as_much_as_is_wrong(fields: gpd.GeoDataFrame, tmp_path: Path) -> None:
    settings = only(invalid=0.2, duplicates=0.1, null_geometry=0.1, three_dimensional=0.2)
    records, truth = declare(fields, SEASON, settings, SEED)
    has = {name: truth["dirt"].str.contains(name) for name in DIRT}
    twice = has["duplicates"]
    _, counts = read_parcels(written(tmp_path / "a.gpkg", records), "CODE_CULTU", id_field="ID_PARCEL")
    assert counts["read"] == len(fields) + twice.sum()
    assert counts["null"] == has["null_geometry"].sum() > 0
    assert counts["duplicate"] == twice.sum() > 0
    assert counts["three_dimensional"] == has["three_dimensional"].sum() + (has["three_dimensional"] & twice).sum()
    assert counts["invalid"] == has["invalid"].sum() + (has["invalid"] & twice).sum() > 0


def test_mended_rings_are_nearly_the_field(fields: gpd.GeoDataFrame, tmp_path: Path) -> None:
    records, truth = declare(fields, SEASON, only(invalid=1), SEED)
    assert not records.geometry.is_valid.any()
    parcels, _ = read_parcels(written(tmp_path / "a.gpkg", records), "CODE_CULTU", id_field="ID_PARCEL")
    back = parcels.set_index("parcel_id").loc[truth["id_parcel"]].to_crs(CRS)
    extra = shapely.area(shapely.symmetric_difference(back.geometry.to_numpy(), fields.geometry.to_numpy()))
    assert extra.max() < 20


def test_overlaps_reach_some_metres_into_the_neighbours(fields: gpd.GeoDataFrame) -> None:
    clean, _ = declare(fields, SEASON, only(), SEED)
    records, _ = declare(fields, SEASON, only(overlaps=1), SEED)
    before, after = (frame.geometry.to_numpy() for frame in (clean, records))
    assert shapely.covers(after, before).mean() > 0.99
    reach = shapely.hausdorff_distance(shapely.boundary(after), shapely.boundary(before))
    assert np.median(reach) > 1
    assert np.median(reach) < 8


def test_slivers_are_parcels_of_their_own_beside_a_field(fields: gpd.GeoDataFrame) -> None:
    records, truth = declare(fields, SEASON, only(slivers=0.5), SEED)
    slivers = records.iloc[len(fields) :]
    assert len(slivers) == (truth["dirt"] == "slivers").sum() > 10
    assert records["ID_PARCEL"].is_unique
    width = 2 * shapely.area(slivers.geometry) / shapely.length(slivers.geometry)
    assert width.between(0.1, 1).all()
    parents = fields[truth["dirt"] == "slivers"].to_crs("EPSG:2154").geometry.to_numpy()
    inside = shapely.area(shapely.intersection(slivers.geometry.to_numpy(), parents))
    assert (inside < 0.3 * shapely.area(slivers.geometry.to_numpy())).mean() > 0.9


def test_wrong_codes_are_crops_and_unmapped_codes_are_in_no_table(fields: gpd.GeoDataFrame) -> None:
    table = load_crop_table(None, "fr").meanings
    _, truth = declare(fields, SEASON, only(wrong=1), SEED)
    assert set(truth["declared_crop"]) <= set(table)
    assert (truth["declared_crop"] != truth["crop"]).all()
    records, truth = declare(fields, SEASON, only(unmapped=1), SEED)
    assert not set(truth["declared_crop"]) & set(table)
    assert set(records["CODE_CULTU"]) == set(truth["declared_crop"])


def test_undeclared_fields_are_not_in_the_file(fields: gpd.GeoDataFrame, tmp_path: Path) -> None:
    records, truth = declare(fields, SEASON, only(undeclared=0.3), SEED)
    assert len(records) == truth["declared"].sum() < len(fields)
    none, truth = declare(fields, SEASON, only(undeclared=1), SEED)
    assert not truth["declared"].any()
    assert len(none) == 0
    assert pyogrio.read_info(written(tmp_path / "none.gpkg", none))["features"] == 0


def test_what_a_field_declares_depends_on_nothing_else(fields: gpd.GeoDataFrame) -> None:
    settings = ParcelSettings(invalid=0.2, wrong=0.2, undeclared=0.2)
    _, whole = declare(fields, SEASON, settings, SEED)
    _, part = declare(fields.iloc[20:40], SEASON, settings, SEED)
    pd.testing.assert_frame_equal(part, whole.iloc[20:40].reset_index(drop=True))
    _, next_year = declare(fields, SEASON + 1, settings, SEED)
    assert (next_year["dirt"] != whole["dirt"]).any()
    both = whole["declared"] & next_year["declared"]
    assert (next_year["id_parcel"] != whole["id_parcel"])[both].all()


@pytest.mark.slow
def test_files_are_the_same_to_the_byte(fields: gpd.GeoDataFrame, tmp_path: Path) -> None:
    records, _ = declare(fields, SEASON, ParcelSettings(three_dimensional=0.2), SEED)
    assert write_geopackage(tmp_path / "a.gpkg", [records], 100) == len(records)
    time.sleep(1.1)
    write_geopackage(tmp_path / "b.gpkg", [records.iloc[:70], records.iloc[70:75], records.iloc[75:]], 100)
    first, second = (hashlib.sha256((tmp_path / name).read_bytes()).hexdigest() for name in ("a.gpkg", "b.gpkg"))
    assert first == second
    assert pyogrio.read_info(tmp_path / "a.gpkg")["features"] == len(records)
    assert pyogrio.get_gdal_config_option("OGR_CURRENT_DATE") is None
