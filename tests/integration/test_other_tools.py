"""What opens a store without h2crop: the table of docs/reading.md, tool by tool."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import duckdb
import geopandas as gpd
import numpy as np
import pyarrow.parquet as pq
import pytest
import tensorstore
import xarray as xr
import zarr
from counting_server import CountingServer, serving
from made_stores import CLASSES, MadeStore, make_store

import h2crop_data
from h2crop_data.training.dataset import CropSamples

#: The most requests that plain xarray and our readers need to open a season, or a store.
OPENING = 12


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> MadeStore:
    """Two seasons, only to be read."""
    return make_store(tmp_path_factory.mktemp("tools") / "store", seasons=(2021, 2022))


@pytest.fixture(scope="module")
def server(made: MadeStore) -> Iterator[CountingServer]:
    with serving(made.folder, 0) as running:
        yield running


def index_path(made: MadeStore, name: str) -> str:
    root = json.loads((made.folder / "zarr.json").read_text())
    return str(made.folder / root["attributes"]["index"][name])


def test_zarr_python_reads_arrays_and_meanings(made: MadeStore) -> None:
    group = zarr.open_group(str(made.folder), mode="r")["2022"]
    assert isinstance(group, zarr.Group)
    for name, expected in made.arrays[2022].items():
        np.testing.assert_array_equal(group[name][: len(expected)], expected)
    assert group["sample"][:5].tolist() == made.samples[2022]["sample"].tolist()
    assert str(CLASSES[3][4]).replace(" ", "_") in group["label"].attrs["classes_tier4"]
    assert group["enmap_quality"].attrs["flag_meanings"].startswith("outside water cloud")


def test_xarray_has_ids_places_dates_and_wavelengths_as_coordinates(made: MadeStore) -> None:
    season = xr.open_zarr(str(made.folder), group="2022")
    names = {"sample", "valid", "x0", "y0", "epsg", "wavelength", "fwhm", "time", "time_bnds", "month", "s2_band"}
    assert set(season.coords) == {*names, "tier"}
    assert set(season.data_vars) == set(made.arrays[2022])
    assert season.indexes["time"].strftime("%Y-%m-%d").tolist() == [f"2022-{month:02d}-01" for month in range(1, 13)]
    july = season.s2.sel(time="2022-07")[:, 0]
    assert july.dtype == np.float32
    np.testing.assert_array_equal(july[:5].fillna(-32768), made.arrays[2022]["s2"][:, 6])
    np.testing.assert_array_equal(season.set_xindex("month").s2.sel(month=7).fillna(0), july.fillna(0))
    np.testing.assert_allclose(season.wavelength[0], made.content.wavelengths)
    # The group of a season stands alone.
    xr.testing.assert_identical(xr.open_zarr(str(made.folder / "2022")), season)


@pytest.mark.parametrize("path", ["group", "folder"])
def test_xarray_opens_a_season_in_twelve_requests(server: CountingServer, path: str) -> None:
    server.reset()
    season = xr.open_zarr(server.url, group="2022") if path == "group" else xr.open_zarr(f"{server.url}/2022")
    assert season.sizes["sample"] == 6
    assert server.counts().requests <= OPENING


def test_our_readers_open_in_few_requests(server: CountingServer, made: MadeStore) -> None:
    name = str(made.samples[2022]["sample"].iloc[0])
    for what, most, opening in (
        ("open", 2, lambda: h2crop_data.open(server.url, 2022)),
        ("open_sample", 6, lambda: h2crop_data.open_sample(server.url, name)),
        # The root, and the samples of each season.
        ("CropSamples", 3, lambda: CropSamples(server.url)),
    ):
        server.reset()
        opening()
        counts = server.counts()
        assert counts.requests <= most, (what, counts)


def test_a_lost_time_axis_raises_in_plain_xarray(tmp_path: Path) -> None:
    made = make_store(tmp_path / "store")
    (made.folder / "2022/time/c.0").unlink()
    with pytest.raises((ValueError, OverflowError)):
        xr.open_zarr(str(made.folder), group="2022").load()


def test_tensorstore_reads_arrays_of_numbers(made: MadeStore) -> None:
    def opened(name: str) -> tensorstore.TensorStore:
        place = {"driver": "file", "path": str(made.folder / "2022" / name)}
        return tensorstore.open({"driver": "zarr3", "kvstore": place}, read=True).result()

    for name in ("s2", "enmap_quality", "label", "parcel"):
        array = opened(name)
        np.testing.assert_array_equal(array[:5].read().result(), made.arrays[2022][name])
    assert opened("s2").domain.labels == ("sample", "time", "s2_band", "y", "x")
    assert opened("time").read().result().tolist()[:3] == [0, 31, 59]
    with pytest.raises(ValueError, match="string"):
        opened("sample")


def test_duckdb_asks_the_index_in_sql(made: MadeStore) -> None:
    samples = index_path(made, "samples-2022")
    with duckdb.connect() as database:
        found = database.execute(
            "select split, count(*), avg(s2_clear_share[7]) from read_parquet(?) group by split order by split",
            [samples],
        ).fetchall()
        columns = database.execute("select sample, epsg, x0 from read_parquet(?) order by slot", [samples]).fetchall()
    counts = made.samples[2022]["split"].value_counts()
    assert {split: count for split, count, _ in found} == counts.to_dict()
    assert [row[0] for row in columns] == made.samples[2022]["sample"].tolist()


def test_geopandas_and_pyarrow_read_the_index(made: MadeStore) -> None:
    parcels = gpd.read_parquet(index_path(made, "parcels-2022"), bbox=(3.0, 50.0, 4.0, 51.0))
    assert len(parcels) == 10
    assert parcels.crs.to_string() == "OGC:CRS84"
    schema = pq.read_schema(index_path(made, "samples-2022"))
    assert schema.field("x0").type == "double"
    assert "geo" in {key.decode() for key in schema.metadata}
