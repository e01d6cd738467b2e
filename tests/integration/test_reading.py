"""Opening stores: from folders and over HTTP, while they grow, lazily, scaled."""

from __future__ import annotations

import hashlib
import json
import zipfile
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import geopandas as gpd
import numpy as np
import pytest
import xarray as xr
from made_stores import NORTH_WEST, SOUTH, make_store, seal_made, write_season
from web_server import served

import h2crop_data
from h2crop_data.cube.reading import load_root, read_index, read_index_json
from h2crop_data.cube.shard import open_arrays
from h2crop_data.cube.writer import hold_store
from h2crop_data.errors import FormatVersionError, StoreError

STORES = Path(__file__).parents[1] / "stores"


def test_xarray_opens_a_folder_without_our_help(tmp_path: Path) -> None:
    made = make_store(tmp_path / "store")
    dataset = xr.open_zarr(str(made.folder), group="2022", mask_and_scale=False)
    n = len(made.samples[2022])
    for name, expected in made.arrays[2022].items():
        np.testing.assert_array_equal(dataset[name][:n], expected)
    assert dataset["enmap"].dims == ("sample", "band", "y30", "x30")
    assert dataset["s2"].dims == ("sample", "time", "s2_band", "y", "x")
    assert dataset["valid"].values.tolist() == [True] * n + [False] * (dataset.sizes["sample"] - n)
    masked = xr.open_zarr(str(made.folder), group="2022")
    assert np.isnan(masked["s2"].values[0, 11]).all()
    assert masked["label"].dtype == np.uint8


def test_a_store_reads_the_same_over_http_without_listing(tmp_path: Path) -> None:
    made = make_store(tmp_path / "store")
    with served(made.folder) as (url, asked):
        remote = xr.open_zarr(url, group="2022", mask_and_scale=False).load()
        ours = h2crop_data.open(url, 2022).load()
        index = read_index(url, "samples-2022")
    n = len(made.samples[2022])
    for name, expected in made.arrays[2022].items():
        np.testing.assert_array_equal(remote[name][:n], expected)
        np.testing.assert_array_equal(ours[name], expected)
    assert index["sample"].tolist() == ours.sample.values.tolist()
    assert not [path for path, _ in asked if path.endswith("/") or ".build" in path]


def test_only_valid_samples_as_stored_or_scaled(tmp_path: Path) -> None:
    made = make_store(tmp_path / "store")
    stored = h2crop_data.open(made.folder, 2022)
    assert stored.sample.values.tolist() == made.samples[2022]["sample"].tolist()
    assert bool(stored.valid.all())
    assert stored.s2.dtype == np.int16
    scaled = h2crop_data.open(made.folder, 2022, scaled=True).load()
    for name in ("s2", "enmap"):
        expected = made.arrays[2022][name]
        assert scaled[name].dtype == np.float32
        np.testing.assert_array_equal(np.isnan(scaled[name]), expected == -32768)
        filled = scaled[name].values[expected != -32768]
        np.testing.assert_allclose(filled, expected[expected != -32768] / 10000, rtol=1e-6)
    np.testing.assert_array_equal(scaled.label, made.arrays[2022]["label"])


def test_one_sample_of_one_month_reads_little(tmp_path: Path) -> None:
    made = make_store(tmp_path / "store", blocks=2, capacity=8, cell_size=960)
    shard = (made.folder / "2022/s2/c.0.0.0.0.0").stat().st_size
    with served(made.folder) as (url, asked):
        opened = h2crop_data.open(url, 2022)
        asked.clear()
        one = opened.s2.isel(sample=2, time=5).load()
    # The shard's index and one inner chunk of 8 x 12.
    assert {path for path, _ in asked} == {"/2022/s2/c.0.0.0.0.0"}
    assert sum(size for _, size in asked) < shard / 10
    np.testing.assert_array_equal(one, made.arrays[2022]["s2"][2, 5])
    local = h2crop_data.open(made.folder, 2022)
    np.testing.assert_array_equal(local.s2.isel(sample=2, time=5), one)


def test_a_reader_open_while_the_store_grows_keeps_seeing_its_release(tmp_path: Path) -> None:
    # One sample a block: a finished block never gets more.
    made = make_store(tmp_path / "store", seasons=(2022,), blocks=2, capacity=1)
    before = {name: values.copy() for name, values in made.arrays[2022].items()}
    old_ids = made.samples[2022]["sample"].tolist()
    reader = h2crop_data.open(made.folder, 2022)
    root = load_root(made.folder)
    with hold_store(made.folder) as builder, ThreadPoolExecutor(2) as pool:
        grown = write_season(builder, pool, made, 2022, 4)
        # Shards of the next release lie there already; nobody sees them.
        assert h2crop_data.open(made.folder, 2022).sizes["sample"] == len(old_ids)
        other = write_season(builder, pool, made, 2023, 1)
        release = seal_made(builder, made.layout, [grown, other]).release
    assert release == 2
    seen = reader.load()
    assert seen.sample.values.tolist() == old_ids
    for name, expected in before.items():
        np.testing.assert_array_equal(seen[name], expected)
    # So does a local reader that opened before, and the index it knows is still there.
    for name, array in open_arrays(made.folder, root, 2022).items():
        assert len(array) == 2 * made.layout.capacity
        np.testing.assert_array_equal(array.read(0), before[name][0])
    assert (made.folder / root["attributes"]["index"]["samples-2022"]).exists()
    new = h2crop_data.open(made.folder, 2022).load()
    assert new.attrs["release"] == 2
    assert new.sample.values.tolist()[: len(old_ids) - 1] == old_ids[:-1]
    assert new.sizes["sample"] > len(old_ids)
    assert h2crop_data.open(made.folder, 2023).sizes["sample"] > 0


def test_sealing_again_without_change_makes_no_release(tmp_path: Path) -> None:
    made = make_store(tmp_path / "store")
    with hold_store(made.folder) as builder, ThreadPoolExecutor(2) as pool:
        again = write_season(builder, pool, made, 2022, 2)
        assert seal_made(builder, made.layout, [again]).release == 1
    assert not (made.folder / "index/r2").exists()


def test_the_index_opens_in_geopandas_where_the_cells_lie(tmp_path: Path) -> None:
    made = make_store(tmp_path / "store")
    samples = gpd.read_parquet(made.folder / "index/r1/samples-2022.parquet")
    assert samples.crs.to_string() == "OGC:CRS84"
    moved = samples.to_crs("EPSG:32631").geometry.bounds
    np.testing.assert_allclose(moved["minx"], samples["x0"], atol=1e-3)
    np.testing.assert_allclose(moved["maxy"], samples["y0"], atol=1e-3)


def test_the_manifest_names_every_file_with_its_hash(tmp_path: Path) -> None:
    made = make_store(tmp_path / "store")
    manifest = read_index(made.folder, "manifest").set_index("path")
    on_disk = {
        str(path.relative_to(made.folder)): path.read_bytes()
        for path in made.folder.rglob("*")
        if path.is_file() and path.relative_to(made.folder).parts[0] != ".build"
    }
    root = on_disk.pop("zarr.json")
    stated = json.loads(root)["attributes"]["manifest"]
    names = ("index/r1/manifest-2022.parquet", "index/r1/manifest.parquet")
    parts = [(name, hashlib.sha256(on_disk.pop(name)).hexdigest()) for name in names]
    assert on_disk.pop("index/r1/root.json") == root
    assert set(manifest.index) == set(on_disk)
    for path, data in on_disk.items():
        assert manifest.loc[path, "sha256"] == hashlib.sha256(data).hexdigest()
        assert manifest.loc[path, "bytes"] == len(data)
    assert [(part["path"], part["sha256"]) for part in stated["parts"]] == parts
    assert stated["sha256"] == hashlib.sha256(json.dumps(list(map(list, parts))).encode()).hexdigest()
    assert stated["files"] == len(manifest)


def test_statistics_are_those_of_a_naive_pass_over_the_training_split(tmp_path: Path) -> None:
    made = make_store(tmp_path / "store", blocks=4)
    train = (made.samples[2022]["split"] == "train").to_numpy()
    assert 0 < train.sum() < len(train)
    statistics = read_index_json(made.folder, "statistics")
    values = np.where(made.arrays[2022]["s2"][train] == -32768, np.nan, made.arrays[2022]["s2"][train] / 10000.0)
    for k, band in enumerate(statistics["reflectance"]["s2"]):
        assert band["count"] == np.isfinite(values[:, :, k]).sum()
        assert band["mean"] == pytest.approx(np.nanmean(values[:, :, k]), rel=1e-9)
        assert band["sd"] == pytest.approx(np.nanstd(values[:, :, k]), rel=1e-6, abs=1e-9)
        assert band["min"] == pytest.approx(np.nanmin(values[:, :, k]))
        assert band["max"] == pytest.approx(np.nanmax(values[:, :, k]))
        ranks = np.nanpercentile(values[:, :, k], [5, 50, 99], method="inverted_cdf")
        assert [band["percentiles"][key] for key in ("5", "50", "99")] == pytest.approx(ranks.tolist())
    for month, days in enumerate(statistics["clear_observations"]):
        seen, pixels = np.unique(made.arrays[2022]["s2_clear"][train][:, month], return_counts=True)
        assert days == {str(number): n for number, n in zip(seen.tolist(), pixels.tolist(), strict=True)}
    for split in ("train", "val"):
        inside = (made.samples[2022]["split"] == split).to_numpy()
        for tier in range(4):
            labels, pixels = np.unique(made.arrays[2022]["label"][inside, tier], return_counts=True)
            counted = statistics["class_pixels"]["2022"][split]["label"][tier]
            assert counted == {str(label): n for label, n in zip(labels.tolist(), pixels.tolist(), strict=True)}
            # Two parcels a cell, one of either class.
            classes = {NORTH_WEST[tier], SOUTH[tier]}
            counted = statistics["class_parcels"]["2022"][split][tier]
            assert counted == {str(name): int(inside.sum()) for name in sorted(classes)}


def test_wrong_stores_are_refused_with_what_to_do(tmp_path: Path) -> None:
    with pytest.raises(StoreError, match=r"cannot read .*zarr.json"):
        h2crop_data.open(tmp_path / "nowhere", 2022)
    made = make_store(tmp_path / "store")
    with pytest.raises(StoreError, match="has no season 2019; it has 2022"):
        h2crop_data.open(made.folder, 2019)
    with pytest.raises(StoreError, match="has no index 'parcels-1999'"):
        read_index(made.folder, "parcels-1999")
    root = json.loads((made.folder / "zarr.json").read_text())
    root["attributes"]["format_version"] = "2.7"
    (made.folder / "zarr.json").write_text(json.dumps(root))
    h2crop_data.open(made.folder, 2022)
    root["attributes"]["format_version"] = "3.0"
    (made.folder / "zarr.json").write_text(json.dumps(root))
    with pytest.raises(FormatVersionError, match=r"has format 3\.0, .* reads 1\.x and 2\.x: a newer h2crop wrote it"):
        h2crop_data.open(made.folder, 2022)


# Coordinates that are lost: those that are read raise, the others are not needed

FROM_INDEX_AND_ROOT = ("sample", "valid", "x0", "y0", "epsg", "time", "time_bnds", "month", "s2_band", "tier")
READ = ("wavelength", "fwhm")
#: In stores of format 1, whose roots do not state them.
READ_OF_FORMAT_1 = ("s2_band", "tier")


def chunk_of(coordinate: str) -> str:
    """The first chunk of a coordinate of 2022."""
    return f"2022/{coordinate}/c.0" + ".0" * (coordinate in (*READ, "time_bnds"))


def read_all(store: str | Path, release: int | None = None) -> xr.Dataset:
    """The coordinates of a season, those along bands as well."""
    opened = h2crop_data.open(store, 2022, release=release)
    return opened.assign_coords({name: opened[name].load() for name in READ})


@pytest.mark.parametrize("name", READ)
def test_a_lost_chunk_of_a_coordinate_raises_instead_of_reading_as_nothing(tmp_path: Path, name: str) -> None:
    made = make_store(tmp_path / "store")
    (made.folder / chunk_of(name)).unlink()
    for release in (None, 1):
        with pytest.raises(StoreError, match=rf"{made.folder}/{chunk_of(name)} is missing.*`h2crop validate"):
            read_all(made.folder, release)
    with served(made.folder) as (url, _), pytest.raises(StoreError, match=rf"{url}/{chunk_of(name)} is missing"):
        read_all(url)


@pytest.mark.parametrize("name", READ_OF_FORMAT_1)
def test_lost_and_damaged_coordinates_of_format_1_raise(tmp_path: Path, name: str) -> None:
    with zipfile.ZipFile(STORES / "format-1.0.zip") as archive:
        archive.extractall(tmp_path)
    chunk = tmp_path / chunk_of(name)
    chunk.write_bytes(chunk.read_bytes()[:-2])
    with pytest.raises(StoreError, match=rf"{tmp_path}/2022/{name} is damaged"):
        h2crop_data.open(tmp_path, 2022)
    chunk.unlink()
    with pytest.raises(StoreError, match=rf"{chunk} is missing.*`h2crop validate"):
        h2crop_data.open(tmp_path, 2022)


def test_ids_places_and_times_come_from_index_and_root(tmp_path: Path) -> None:
    made = make_store(tmp_path / "store")
    whole = h2crop_data.open(made.folder, 2022).load()
    for name in ("sample", "x0", "y0", "epsg"):
        assert whole[name].values.tolist() == made.samples[2022][name].tolist()
    for name in FROM_INDEX_AND_ROOT:
        (made.folder / chunk_of(name)).unlink()
    assert h2crop_data.open(made.folder, 2022).load().identical(whole)


def test_coordinates_of_before_the_store_grew_do_not_matter(tmp_path: Path) -> None:
    made = make_store(tmp_path / "store", blocks=2, capacity=1)
    names = [chunk_of(name) for name in ("sample", "valid", "x0", "y0", "epsg")]
    before = {name: (made.folder / name).read_bytes() for name in names}
    with hold_store(made.folder) as builder, ThreadPoolExecutor(2) as pool:
        seal_made(builder, made.layout, [write_season(builder, pool, made, 2022, 4)])
    for name, data in before.items():
        (made.folder / name).write_bytes(data)
    opened = h2crop_data.open(made.folder, 2022).load()
    assert opened.sample.values.tolist() == made.samples[2022]["sample"].tolist()
    assert opened.x0.values.tolist() == made.samples[2022]["x0"].tolist()
    np.testing.assert_array_equal(opened.s2, made.arrays[2022]["s2"])
    assert h2crop_data.open(made.folder, 2022, release=1).sizes["sample"] == 2


def test_an_index_that_contradicts_the_store_is_refused(tmp_path: Path) -> None:
    made = make_store(tmp_path / "store")
    path = made.folder / load_root(made.folder)["attributes"]["index"]["samples-2022"]
    samples = gpd.read_parquet(path)
    for changed, problem in (
        (samples.assign(slot=samples["slot"] + 4), "expected slots from 0 to 5, got 4 to 8 in samples-2022"),
        (
            samples.assign(slot=samples["slot"].where(samples["slot"] != 1, 0)),
            "some slots or ids occur several times in samples-2022",
        ),
        (samples.assign(sample=samples["sample"].iloc[0]), "some slots or ids occur several times in samples-2022"),
        (samples.drop(columns="epsg"), "samples-2022 has no column epsg"),
    ):
        changed.to_parquet(path)
        with pytest.raises(StoreError, match=problem):
            h2crop_data.open(made.folder, 2022)


# Time


def test_months_and_dates_select_the_same_windows(tmp_path: Path) -> None:
    made = make_store(tmp_path / "store", seasons=(2021, 2022))
    opened = h2crop_data.open(made.folder, 2022)
    july = made.arrays[2022]["s2"][:, 6]
    np.testing.assert_array_equal(opened.s2.sel(month=7), july)
    np.testing.assert_array_equal(opened.s2.sel(time="2022-07")[:, 0], july)
    np.testing.assert_array_equal(opened.s2.sel(time="2022-07-01"), july)
    np.testing.assert_array_equal(opened.s2.sel(month=slice(4, 9)), made.arrays[2022]["s2"][:, 3:9])
    assert opened.isel(time=[1, 11]).month.values.tolist() == [2, 12]
    bounds = opened.time_bnds.values.astype("datetime64[D]").astype(str)
    assert bounds[[1, 11]].tolist() == [["2022-02-01", "2022-03-01"], ["2022-12-01", "2023-01-01"]]
    # Seasons have no date in common, so they are stacked by month.
    both = [h2crop_data.open(made.folder, season).drop_vars(["time", "time_bnds"]) for season in (2021, 2022)]
    stacked = xr.concat(both, "sample")
    assert stacked.s2.dtype == np.int16
    np.testing.assert_array_equal(stacked.s2.sel(month=7)[-len(july) :], july)


def test_which_samples_a_release_has_is_told_by_its_index_where_another_one_is_being_made(tmp_path: Path) -> None:
    made = make_store(tmp_path / "store")
    whole = h2crop_data.open(made.folder, 2022).load()
    root = (made.folder / "zarr.json").read_bytes()
    with hold_store(made.folder) as builder, ThreadPoolExecutor(2) as pool:
        season = write_season(builder, pool, made, 2022, 2)
        blocks = season.blocks.assign(retracted=["", "haze"])
        files = [file for file in season.files if "/c.1." not in file["path"]]
        seal_made(builder, made.layout, [replace(season, blocks=blocks, files=files)])
    assert h2crop_data.open(made.folder, 2022).sizes["sample"] == made.layout.capacity
    # As if the builder had died, or were just there, between the coordinates and the root.
    (made.folder / "zarr.json").write_bytes(root)
    assert h2crop_data.open(made.folder, 2022).load().identical(whole)
    # Root and index that contradict each other leave nothing to go by.
    samples = made.folder / "index/r1/samples-2022.parquet"
    gpd.read_parquet(samples).iloc[:1].to_parquet(samples)
    for release in (None, 1):
        with pytest.raises(StoreError, match=r"expected 5 samples, as the root states, got 1 in samples-2022"):
            h2crop_data.open(made.folder, 2022, release=release)


def test_shards_that_are_not_there_read_as_fill(tmp_path: Path) -> None:
    made = make_store(tmp_path / "store")
    (made.folder / "2022/s2/c.1.0.0.0.0").unlink()
    opened = h2crop_data.open(made.folder, 2022).load()
    first = made.layout.capacity
    np.testing.assert_array_equal(opened.s2[:first], made.arrays[2022]["s2"][:first])
    assert (opened.s2[first:] == -32768).all()
