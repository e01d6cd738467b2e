"""The published layout in and out: exact, resumable, streamed, and readable as its own loader reads it."""

from __future__ import annotations

import hashlib
import json
import os
import signal
import subprocess
import sys
import time
import tracemalloc
from collections.abc import Callable, Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
import typer
import xarray as xr
from made_stores import CUT_MONTH, EMPTY_MONTH, PUBLISHED_WAVELENGTHS, MadeStore, make_store
from numpy.typing import NDArray
from published_files import IDS, KINDS, MadeFolder, arrays, make_published, mask, scene_catalog, sentinel2
from typer.testing import CliRunner

import h2crop_data
from h2crop_data.cli.export_h5 import export_h5
from h2crop_data.cli.import_h5 import import_h5
from h2crop_data.constants import ENMAP_FLAGS
from h2crop_data.cube.reading import read_index, read_index_json
from h2crop_data.errors import PlanError, ReadError, StoreError, UsageError
from h2crop_data.published.exporting import ExportOptions, export_published
from h2crop_data.published.importing import import_published
from h2crop_data.published.layout import PublishedError
from h2crop_data.published.options import ImportOptions

FILL = -32768
#: Two samples in a block, so that scenes have several blocks and one is not full.
SMALL = ImportOptions(capacity=2)


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> MadeFolder:
    return make_published(tmp_path_factory.mktemp("published") / "H2Crop")


@pytest.fixture(scope="module")
def kept_offset(made: MadeFolder, tmp_path_factory: pytest.TempPathFactory) -> Path:
    store = tmp_path_factory.mktemp("kept") / "store"
    import_published(made.folder, store, SMALL)
    return store


@pytest.fixture(scope="module")
def no_offset(made: MadeFolder, tmp_path_factory: pytest.TempPathFactory) -> Path:
    store = tmp_path_factory.mktemp("removed") / "store"
    import_published(made.folder, store, ImportOptions(capacity=2, remove_offset=True))
    return store


def facts_of(item: Any) -> dict[str, Any]:
    """All that can be told apart of an object of HDF5: type, shape, storage, values to the bit, attributes."""
    facts: dict[str, Any] = {"attributes": {name: exactly(item.attrs[name]) for name in item.attrs}}
    facts["types"] = {name: repr(type_of(item.attrs.get_id(name))) for name in item.attrs}
    if isinstance(item, h5py.Dataset):
        facts |= {"type": repr(type_of(item.id)), "shape": item.shape, "values": exactly(item[()])}
        facts |= {"chunks": item.chunks, "maxshape": item.maxshape, "fill": exactly(item.fillvalue)}
        facts |= {"filters": (item.compression, item.compression_opts, item.shuffle, item.fletcher32)}
    return facts


def type_of(identifier: Any) -> Any:
    """The type of HDF5 itself, in full: byte order, length and character set of texts."""
    return identifier.get_type().encode()


def exactly(value: Any) -> Any:
    """A value so that only the very same compares equal."""
    if isinstance(value, np.ndarray) and value.dtype.kind == "O":
        return [exactly(one) for one in value.ravel().tolist()]
    if isinstance(value, np.ndarray | np.generic):
        return (value.dtype.str, np.shape(value), hashlib.sha256(np.asarray(value).tobytes()).hexdigest())
    return repr(value)


def contents_of_hdf5(path: Path) -> dict[str, Any]:
    """Everything in a file, by name; links as links."""
    found: dict[str, Any] = {}
    with h5py.File(path, "r") as file:
        found["/"] = facts_of(file)
        file.visititems(lambda name, item: found.update({name: facts_of(item)}))
        for name in file:
            link = file.get(name, getlink=True)
            if isinstance(link, h5py.SoftLink):
                found[f"{name} ->"] = link.path
    return found


def assert_same_dataset(one: Path, other: Path) -> None:
    for folder in ("h5_data", "data_lists"):
        names = sorted(path.name for path in (one / folder).iterdir())
        assert names == sorted(path.name for path in (other / folder).iterdir())
        for name in names:
            if folder == "data_lists":
                assert (one / folder / name).read_text() == (other / folder / name).read_text()
            else:
                assert contents_of_hdf5(one / folder / name) == contents_of_hdf5(other / folder / name), name


def test_import_and_export_give_back_the_dataset_with_its_offset(
    made: MadeFolder, kept_offset: Path, tmp_path: Path
) -> None:
    report = export_published(kept_offset, tmp_path / "out")
    assert_same_dataset(made.folder, tmp_path / "out")
    assert (report.samples, report.exported, report.already_done) == (7, 7, 0)
    assert report.lists == {"train": 4, "val": 1, "test": 2}


def test_import_and_export_give_back_the_dataset_when_the_offset_was_removed(
    made: MadeFolder, no_offset: Path, tmp_path: Path
) -> None:
    export_published(no_offset, tmp_path / "out", ExportOptions(published_offset=True))
    assert_same_dataset(made.folder, tmp_path / "out")


def test_without_the_offset_only_sentinel2_differs(made: MadeFolder, no_offset: Path, tmp_path: Path) -> None:
    export_published(no_offset, tmp_path / "out")
    for number, name in enumerate(made.ids):
        published = sentinel2(number).astype(int)
        with h5py.File(tmp_path / "out/h5_data" / f"{name}.h5") as file:
            nothing = (published == 0).all(axis=1) | (published == FILL).any(axis=1)
            expected = np.where(nothing[:, None], 0, np.maximum(published - 1000, -32767))
            np.testing.assert_array_equal(file["S2_data"][...], expected)
        one, other = contents_of_hdf5(made.path(name)), contents_of_hdf5(tmp_path / "out/h5_data" / f"{name}.h5")
        assert {key for key in one if one[key] != other[key]} == {"S2_data"}
        assert one["S2_data"] | {"values": None} == other["S2_data"] | {"values": None}


def test_the_store_holds_what_the_files_hold(made: MadeFolder, kept_offset: Path, no_offset: Path) -> None:
    for store, removed in ((kept_offset, 0), (no_offset, 1000)):
        for season in (2022, 2023):
            data = h2crop_data.open(store, season)
            assert set(data["sample"].values) == {name for name in made.ids if name.startswith(str(season))}
            for number, name in enumerate(made.ids):
                if not name.startswith(str(season)):
                    continue
                sample = data.sel(sample=data["sample"] == name).isel(sample=0).compute()
                published = arrays(number)
                measured = (published["S2_data"] != 0).any(axis=1) & (published["S2_data"] != FILL).all(axis=1)
                np.testing.assert_array_equal(sample["s2_clear"], measured)
                shifted = np.maximum(published["S2_data"].astype(int) - removed, -32767)
                np.testing.assert_array_equal(sample["s2"], np.where(measured[:, None], shifted, FILL))
                np.testing.assert_array_equal(sample["label"], published["label"])
                np.testing.assert_array_equal(sample["prior"], published["priors"])
                enmap = published["EnMAP_data"]
                nothing = np.isin(enmap, (0, FILL)).all(axis=0)
                np.testing.assert_array_equal(sample["enmap"], np.where(nothing, FILL, enmap))
                flags = np.where(nothing, ENMAP_FLAGS["outside"], 0)
                if KINDS[number % len(KINDS)].__name__ in ("texts", "compact_texts", "days_of_pixels"):
                    flags |= np.where(mask(number), ENMAP_FLAGS["cloud"], 0)
                np.testing.assert_array_equal(sample["enmap_quality"], flags)
                assert not sample["parcel"].any()
                assert not sample["wavelength"].any()


def test_dates_are_read_where_they_can_be_understood(made: MadeFolder, kept_offset: Path) -> None:
    for season in (2022, 2023):
        days = h2crop_data.open(kept_offset, season)["s2_day"].compute()
        clear = h2crop_data.open(kept_offset, season)["s2_clear"].compute()
        index = read_index(kept_offset, f"samples-{season}").set_index("sample")
        for number, name in enumerate(made.ids):
            if not name.startswith(str(season)):
                continue
            kind = KINDS[number % len(KINDS)].__name__
            found = days.sel(sample=days["sample"] == name).values[0]
            if kind in ("without", "unreadable_dates"):
                assert not found.any()
                assert not len(index.loc[name, "s2_dates"])
                continue
            expected = np.array(
                [
                    (np.datetime64(f"{season}-{m:02d}-{9 + m:02d}") - np.datetime64(f"{season}-01-01")).astype(int) + 1
                    for m in range(1, 13)
                ]
            )
            grid = np.broadcast_to(expected[:, None, None], (12, 192, 192)).copy()
            if kind == "compact_texts":
                grid[0] = 0
            if kind == "days_of_pixels":
                grid[5, 50:60] = 0
            measured = clear.sel(sample=clear["sample"] == name).values[0] > 0
            np.testing.assert_array_equal(found, np.where(measured, grid, 0))
            first = 2 if kind == "compact_texts" else 1
            assert list(index.loc[name, "s2_dates"]) == [f"{season}-{m:02d}-{9 + m:02d}" for m in range(first, 13)]


def test_the_index_tells_what_is_known_and_what_is_not(kept_offset: Path, no_offset: Path) -> None:
    samples = read_index(kept_offset, "samples-2022").set_index("sample")
    row = samples.loc["20220613T112220Z_003_x384_y704_T31UGQ"]
    assert (row["split"], row["mgrs_tile"], row["epsg"], row["scene"]) == (
        "train",
        "31UGQ",
        32631,
        "20220613T112220Z_003",
    )
    assert (row["on_lattice"], row["located"], row["list_position"]) == (False, "tile", 3)
    assert row["scene_time"].isoformat() == "2022-06-13T11:22:20+00:00"
    assert row[["x0", "y0", "sun_elevation"]].isna().all()
    np.testing.assert_array_equal(row["affine"], [10, 0, np.nan, 0, -10, np.nan])
    assert (samples["s2_offset"] == 1000).all()
    assert (read_index(no_offset, "samples-2022")["s2_offset"] == 0).all()
    assert read_index_json(kept_offset, "recipes")["2022"]["published"]["s2_offset"] == 1000
    assert (
        read_index_json(no_offset, "recipes")["2022"]["published"] | {"s2_offset": 0, "s2_offset_removed": 1000}
        == (read_index_json(no_offset, "recipes")["2022"]["published"])
    )
    # The cloud share is told where the file tells it, and only there.
    shares = samples["enmap_cloud_share"]
    assert shares["20220613T112220Z_003_x448_y704_T32ULV"] == mask(1).mean()
    assert np.isnan(shares["20220613T112220Z_003_x384_y704_T32ULV"])
    blocks = read_index(kept_offset, "blocks")
    assert blocks.groupby("season")["samples"].sum().to_dict() == {2022: 5, 2023: 2}
    for season, block, paths in blocks[["season", "block", "files"]].itertuples(index=False):
        assert f"{season}/published/{block:06d}.h5" in paths
    manifest = set(read_index(kept_offset, "manifest")["path"])
    assert all(path in manifest for paths in blocks["files"] for path in paths)
    assert set(read_index(kept_offset, "scenes")["id"]) == {name[:20] for names in IDS.values() for name in names}


def test_statistics_are_those_of_the_training_numbers(made: MadeFolder, no_offset: Path) -> None:
    training = [made.ids.index(name) for name in made.lists["train"]]
    values = np.stack([sentinel2(number) for number in training]).astype(float)
    measured = (values != 0).any(axis=2) & (values != FILL).all(axis=2)
    statistics = read_index_json(no_offset, "statistics")["reflectance"]
    for band in range(10):
        numbers = np.maximum(values[:, :, band][measured] - 1000, -32767) / 10000
        assert statistics["s2"][band]["mean"] == pytest.approx(numbers.mean())
        assert statistics["s2"][band]["sd"] == pytest.approx(numbers.std())


def test_any_zarr_reader_opens_an_imported_store(kept_offset: Path) -> None:
    data = xr.open_zarr(kept_offset, group="2023", consolidated=None, mask_and_scale=False)
    assert data["s2"].shape == (4, 12, 10, 192, 192)
    assert int(data["valid"].sum()) == 2


def test_dates_and_clouds_are_kept_for_any_hdf5_library_and_the_arrays_are_not_kept_twice(
    made: MadeFolder, kept_offset: Path
) -> None:
    name = "20220613T112220Z_003_x384_y704_T31UGQ"
    (block,) = read_index(kept_offset, "samples-2022").set_index("sample").loc[[name], "block"]
    with h5py.File(kept_offset / f"2022/published/{block:06d}.h5") as kept, h5py.File(made.path(name)) as published:
        for dataset in ("S2_date", "EnMAP_cloud"):
            np.testing.assert_array_equal(kept[name]["file"][dataset][...], published[dataset][...])
        for dataset in ("S2_data", "EnMAP_data", "label", "priors"):
            assert kept[name]["file"][dataset].shape == published[dataset].shape
            assert kept[name]["file"][dataset].id.get_storage_size() == 0


def contents(folder: Path) -> dict[str, str]:
    """Every file but the builder's own, and its hash."""
    return {
        str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in folder.rglob("*")
        if path.is_file() and path.relative_to(folder).parts[0] != ".build"
    }


def builder_files(folder: Path) -> set[str]:
    return {str(path.relative_to(folder)) for path in (folder / ".build").rglob("*") if path.is_file()}


def test_importing_again_with_other_workers_gives_the_same_bytes(
    made: MadeFolder, kept_offset: Path, tmp_path: Path
) -> None:
    import_published(made.folder, tmp_path / "store", SMALL, workers=3)
    assert contents(tmp_path / "store") == contents(kept_offset)
    report = import_published(made.folder, tmp_path / "store", SMALL)
    assert (report.release, report.imported, report.already_done) == (1, 0, 6)
    assert contents(tmp_path / "store") == contents(kept_offset)


def start(code: str, *arguments: Path) -> subprocess.Popen[str]:
    """Run some Python in a process of its own."""
    command = [sys.executable, "-c", code, *map(str, arguments)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, env=os.environ)


def kill_when(process: subprocess.Popen[str], condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 120
    while not condition():
        if process.poll() is not None:
            pytest.fail(f"ended before it could be killed: {process.communicate()[0]}")
        assert time.monotonic() < deadline
        time.sleep(0.002)
    process.send_signal(signal.SIGKILL)
    process.communicate(timeout=30)


IMPORT = """
import sys
from pathlib import Path
from h2crop_data.published.importing import import_published
from h2crop_data.published.options import ImportOptions
import_published(Path(sys.argv[1]), sys.argv[2], ImportOptions(capacity=2), workers=1)
"""
EXPORT = """
import sys
from pathlib import Path
from h2crop_data.published.exporting import export_published
export_published(Path(sys.argv[1]), Path(sys.argv[2]), workers=1)
"""


def test_an_import_killed_twice_ends_byte_identical(made: MadeFolder, kept_offset: Path, tmp_path: Path) -> None:
    broken = tmp_path / "store"
    kill_when(start(IMPORT, made.folder, broken), lambda: any(broken.glob("2022/s2/*")))
    assert not (broken / "zarr.json").exists()
    kill_when(start(IMPORT, made.folder, broken), lambda: len(list(broken.glob(".build/2022/*.json"))) >= 2)
    assert not (broken / "zarr.json").exists()
    report = import_published(made.folder, broken, SMALL)
    assert report.already_done >= 2
    assert report.imported >= 1
    assert contents(broken) == contents(kept_offset)
    assert builder_files(broken) == builder_files(kept_offset)


def test_an_export_killed_in_the_middle_ends_byte_identical(
    made: MadeFolder, kept_offset: Path, tmp_path: Path
) -> None:
    reference, broken = tmp_path / "reference", tmp_path / "broken"
    export_published(kept_offset, reference)
    kill_when(start(EXPORT, kept_offset, broken), lambda: any(broken.glob("h5_data/*.h5")))
    assert not (broken / "data_lists").exists()
    left = {path: path.stat().st_mtime_ns for path in broken.glob("h5_data/*.h5")}
    report = export_published(kept_offset, broken)
    assert (report.already_done, report.exported) == (len(left), 7 - len(left))
    assert {path: path.stat().st_mtime_ns for path in left} == left
    assert contents(broken) == contents(reference)
    assert not list((broken / ".build/tmp").iterdir())


def test_a_lost_shard_is_imported_again(made: MadeFolder, kept_offset: Path, tmp_path: Path) -> None:
    import_published(made.folder, tmp_path / "store", SMALL)
    (tmp_path / "store/2022/published/000001.h5").unlink()
    report = import_published(made.folder, tmp_path / "store", SMALL)
    assert (report.imported, report.already_done) == (1, 5)
    assert contents(tmp_path / "store") == contents(kept_offset)


def test_damage_inside_a_file_is_told_and_finished_blocks_are_kept(tmp_path: Path) -> None:
    # The kind with compressed chunks is the last of the first list.
    names = [*IDS["train"], *IDS["val"], "20231101T000000Z_001_x0_y0_T31TCJ"]
    made = make_published(tmp_path / "in", {"train": names})
    bad = made.path(names[-1])
    whole = bad.read_bytes()
    with h5py.File(bad) as file:
        chunk = file["S2_data"].id.get_chunk_info(3)
    damaged = bytearray(whole)
    damaged[chunk.byte_offset : chunk.byte_offset + chunk.size] = bytes(chunk.size)
    bad.write_bytes(damaged)
    with pytest.raises(ReadError, match=names[-1]) as told:
        import_published(made.folder, tmp_path / "store", SMALL, workers=1)
    assert "finished blocks are kept" in str(told.value)
    done = len(list((tmp_path / "store/.build").glob("20*/*.json")))
    assert done
    assert not (tmp_path / "store/zarr.json").exists()
    bad.write_bytes(whole)
    report = import_published(made.folder, tmp_path / "store", SMALL)
    assert report.already_done == done
    import_published(made.folder, tmp_path / "reference", SMALL)
    assert contents(tmp_path / "store") == contents(tmp_path / "reference")


def test_an_unfit_folder_leaves_no_store(tmp_path: Path) -> None:
    made = make_published(tmp_path / "in")
    made.path(made.ids[0]).write_bytes(b"")
    made.path(made.ids[3]).write_bytes(b"")
    with pytest.raises(PublishedError) as told:
        import_published(made.folder, tmp_path / "store")
    assert len(told.value.problems) == 2
    assert not (tmp_path / "store").exists()


def test_another_import_into_the_store_is_refused(made: MadeFolder, tmp_path: Path) -> None:
    single = make_published(tmp_path / "in", {"train": IDS["train"][:2]})
    store = tmp_path / "store"
    import_published(single.folder, store, SMALL)
    with pytest.raises(PlanError, match="offset removed"):
        import_published(single.folder, store, ImportOptions(capacity=2, remove_offset=True))
    with pytest.raises(PlanError, match="block capacity"):
        import_published(single.folder, store)
    with pytest.raises(PlanError, match="samples"):
        import_published(made.folder, store, SMALL)
    with h5py.File(single.path(IDS["train"][0]), "a") as file:
        file["later"] = np.arange(5000)
    with pytest.raises(PlanError, match="has changed since"):
        import_published(single.folder, store, SMALL)


def test_a_built_store_takes_no_import(made: MadeFolder, tmp_path: Path) -> None:
    make_store(tmp_path / "store", blocks=1)
    with pytest.raises(PlanError, match="was not imported"):
        import_published(made.folder, tmp_path / "store")


def test_a_catalog_places_samples_exactly_and_the_rest_is_told(made: MadeFolder, tmp_path: Path) -> None:
    items = scene_catalog(tmp_path / "items.json", ("20230701T105812Z_001", 330_015, 4_850_025))
    report = import_published(made.folder, tmp_path / "store", ImportOptions(capacity=2, catalogs=(items,)))
    assert report.located == {"scene": 1, "tile": 6}
    assert [line.split(":")[0] for line in report.not_located] == [
        "20220613T112220Z_003",
        "20220914T105000Z_007",
        "20230702T110001Z_012",
    ]
    samples = read_index(tmp_path / "store", "samples-2023").set_index("sample")
    row = samples.loc["20230701T105812Z_001_x0_y0_T31TCJ"]
    assert (row["x0"], row["y0"], row["across_off_nadir"]) == (330_015, 4_850_025, -4.5)
    assert row["scene"].startswith("ENMAP01-____L2A-DT0000000001_20230701T105812Z_001")
    data = h2crop_data.open(tmp_path / "store", 2023)
    place = int(np.flatnonzero(data["sample"].values == row.name)[0])
    assert (data["x0"].values[place], data["epsg"].values[place]) == (330_015, 32631)
    with pytest.raises(PlanError, match="catalog"):
        import_published(made.folder, tmp_path / "store", SMALL)


def test_wavelengths_become_a_coordinate(tmp_path: Path) -> None:
    made = make_published(tmp_path / "in", {"train": IDS["train"][:1]})
    centres = np.linspace(420, 2450, 218)
    (tmp_path / "bands.txt").write_text("".join(f"{centre} 7.5\n" for centre in centres), encoding="utf-8")
    import_published(made.folder, tmp_path / "store", ImportOptions(wavelengths=tmp_path / "bands.txt"))
    data = h2crop_data.open(tmp_path / "store", 2023)
    np.testing.assert_allclose(data["wavelength"].values[0], centres, rtol=1e-6)
    assert (data["fwhm"].values[0] == 7.5).all()


def peak_of(work: Callable[[], object]) -> int:
    """Bytes that some work has in memory at most, beyond what was there before."""
    tracemalloc.start()
    try:
        work()
        return tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()


def test_memory_does_not_grow_with_the_number_of_samples(tmp_path: Path) -> None:
    peaks: dict[str, list[int]] = {"import": [], "export": []}
    options = ImportOptions(capacity=1)
    # The first pair loads the libraries.
    for run, count in enumerate((1, 2, 6)):
        names = [f"20220613T112220Z_{number:03d}_x0_y0_T32ULV" for number in range(count)]
        made = make_published(tmp_path / f"in{run}", {"train": names})
        store, out = tmp_path / f"store{run}", tmp_path / f"out{run}"

        def importing(folder: Path = made.folder, store: Path = store) -> object:
            return import_published(folder, store, options, workers=1)

        def exporting(store: Path = store, out: Path = out) -> object:
            return export_published(store, out, workers=1)

        peaks["import"].append(peak_of(importing))
        peaks["export"].append(peak_of(exporting))
    for _, few, many in peaks.values():
        assert many < 1.15 * few


class PublishedLoader:
    """What the published code does to read a sample, written from its description (numpy instead of torch)."""

    def __init__(self, folder: Path, split: str, months: int, constants: dict[str, Any]) -> None:
        self.files = folder / "h5_data"
        self.ids = np.atleast_1d(np.loadtxt(folder / f"data_lists/{split}.txt", dtype=str)).tolist()
        self.months = months
        self.mean, self.sd = constants["mean"], constants["std"]

    def __iter__(self) -> Iterator[dict[str, NDArray[Any]]]:
        for name in self.ids:
            with h5py.File(self.files / f"{name}.h5", "r") as file:
                images = {
                    "S2": file["S2_data"][0 : self.months].astype(np.float32),
                    "EnMAP": file["EnMAP_data"][:].astype(np.float32),
                }
                label, priors = file["label"][:].astype(np.int64), file["priors"][:].astype(np.int64)
            for key, values in images.items():
                mean, sd = (np.array(numbers[key])[:, None, None] for numbers in (self.mean, self.sd))
                images[key] = (values - mean) / sd
            yield {**images, "label": label, "priors": priors}


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> MadeStore:
    """A store of ours with the sizes of the published dataset: a sample of each split."""
    folder = tmp_path_factory.mktemp("built") / "store"
    return make_store(folder, blocks=3, capacity=1, cell_size=1920, wavelengths=PUBLISHED_WAVELENGTHS)


@pytest.mark.parametrize("offset", [0, 1000])
def test_the_published_loader_reads_a_store_of_ours(built: MadeStore, offset: int, tmp_path: Path) -> None:
    export_published(built.folder, tmp_path / "out", ExportOptions(published_offset=offset > 0))
    constants: dict[str, Any] = {}
    exec((tmp_path / "out/normalisation.py").read_text(), constants)
    truth = built.arrays[2022]
    for place, split in enumerate(("train", "val", "test")):
        (sample,) = PublishedLoader(tmp_path / "out", split, 12, constants)
        # The months that were never clear take their neighbours' numbers.
        s2 = truth["s2"][place].astype(float)
        quarter = np.s_[:, : 192 // 2, : 192 // 2]
        s2[CUT_MONTH][quarter] = s2[CUT_MONTH + 1][quarter]
        s2[EMPTY_MONTH] = s2[EMPTY_MONTH - 1]
        mean, sd = (np.array(constants[key]["S2"])[:, None, None] for key in ("mean", "std"))
        np.testing.assert_allclose(sample["S2"], (s2 + offset - mean) / sd, rtol=1e-4, atol=1e-4)
        enmap = truth["enmap"][place].astype(float)
        enmap[:, -1, -1] = 0
        mean, sd = (np.array(constants[key]["EnMAP"])[:, None, None] for key in ("mean", "std"))
        np.testing.assert_allclose(sample["EnMAP"], (enmap - mean) / sd, rtol=1e-4, atol=1e-4)
        label = truth["label"][place]
        assert (label == 255).any()
        np.testing.assert_array_equal(sample["label"], np.where(label == 255, 0, label))
        np.testing.assert_array_equal(
            sample["priors"], np.where(truth["prior"][place] == 255, 0, truth["prior"][place])
        )
    # The measured numbers of the training split have mean 0 and deviation 1 after normalisation.
    training = truth["s2"][0][:, 0]
    numbers = training[training != FILL] + float(offset)
    assert constants["s2_mean"][0] == pytest.approx(numbers.mean())
    assert constants["s2_std"][0] == pytest.approx(numbers.std())


def test_six_months_are_the_first_six(built: MadeStore, tmp_path: Path) -> None:
    export_published(built.folder, tmp_path / "out", ExportOptions(split="train"))
    constants: dict[str, Any] = {
        "mean": {"S2": [0] * 10, "EnMAP": [0] * 218},
        "std": {"S2": [1] * 10, "EnMAP": [1] * 218},
    }
    (half,) = PublishedLoader(tmp_path / "out", "train", 6, constants)
    np.testing.assert_array_equal(half["S2"][1:], built.arrays[2022]["s2"][0, 1:6])
    assert [path.name for path in (tmp_path / "out/data_lists").iterdir()] == ["train.txt"]
    assert len(list((tmp_path / "out/h5_data").iterdir())) == 1


def test_the_first_half_of_the_year_holds_nothing_of_the_second(tmp_path: Path) -> None:
    content = {"wavelengths": PUBLISHED_WAVELENGTHS, "empty_month": 5}
    made = make_store(tmp_path / "store", blocks=1, capacity=1, cell_size=1920, **content)
    stored = made.arrays[2022]["s2"][0]
    assert (stored[5] == FILL).all()
    assert not (stored[4] == stored[6]).any()
    export_published(made.folder, tmp_path / "out")
    (path,) = (tmp_path / "out/h5_data").iterdir()
    with h5py.File(path) as file:
        # June has May's numbers, whatever July measured.
        np.testing.assert_array_equal(file["S2_data"][5], stored[4])


def test_an_export_begun_by_other_rules_is_refused(built: MadeStore, tmp_path: Path) -> None:
    export_published(built.folder, tmp_path / "out", ExportOptions(split="val"))
    record = tmp_path / "out/.build/export.json"
    record.write_text(record.read_text().replace("export 2", "export 1"))
    with pytest.raises(PlanError, match=r"differs in algorithm.*export into another folder"):
        export_published(built.folder, tmp_path / "out", ExportOptions(split="val"))


def test_an_exported_store_of_ours_can_be_read_by_its_dtypes(built: MadeStore, tmp_path: Path) -> None:
    export_published(built.folder, tmp_path / "out")
    for path in (tmp_path / "out/h5_data").iterdir():
        with h5py.File(path) as file:
            found = {name: (file[name].dtype.name, file[name].shape) for name in file}
        assert found == {
            "S2_data": ("int16", (12, 10, 192, 192)),
            "EnMAP_data": ("int16", (218, 64, 64)),
            "label": ("uint8", (4, 192, 192)),
            "priors": ("uint8", (4, 192, 192)),
        }


def test_seasons_are_chosen(kept_offset: Path, tmp_path: Path) -> None:
    report = export_published(kept_offset, tmp_path / "out", ExportOptions(seasons=(2023,)))
    assert report.lists == {"train": 1, "val": 0, "test": 1}
    with pytest.raises(StoreError, match="no season 2019"):
        export_published(kept_offset, tmp_path / "other", ExportOptions(seasons=(2019,)))
    with pytest.raises(UsageError, match="--split"):
        export_published(kept_offset, tmp_path / "other", ExportOptions(split="everything"))
    assert not (tmp_path / "other").exists()


def test_a_split_without_samples_is_not_exported(tmp_path: Path) -> None:
    single = make_published(tmp_path / "in", {"train": IDS["train"][:1]})
    import_published(single.folder, tmp_path / "store")
    told = CliRunner().invoke(app, ["export-h5", str(tmp_path / "store"), str(tmp_path / "out"), "--split", "val"])
    assert isinstance(told.exception, StoreError)
    assert "has no split 'val'; it has train" in str(told.exception)
    assert not (tmp_path / "out").exists()
    report = export_published(tmp_path / "store", tmp_path / "out")
    assert report.lists == {"train": 1, "val": 0, "test": 0}


def test_the_offset_is_not_added_twice(kept_offset: Path, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="still have it"):
        export_published(kept_offset, tmp_path / "out", ExportOptions(published_offset=True))


def test_a_store_of_another_shape_is_refused_with_all_reasons(tmp_path: Path) -> None:
    make_store(tmp_path / "store", blocks=1, s2_bands=("B02", "B08"), labels=False)
    with pytest.raises(PublishedError) as told:
        export_published(tmp_path / "store", tmp_path / "out")
    assert len(told.value.problems) == 4
    assert not (tmp_path / "out").exists()


def test_a_folder_of_something_else_is_refused(kept_offset: Path, no_offset: Path, tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    (tmp_path / "out/photo.jpg").touch()
    with pytest.raises(StoreError, match=r"photo\.jpg"):
        export_published(kept_offset, tmp_path / "out")
    export_published(kept_offset, tmp_path / "one", ExportOptions(split="val"))
    with pytest.raises(PlanError, match="split"):
        export_published(kept_offset, tmp_path / "one")
    with pytest.raises(PlanError, match="release of the store"):
        export_published(no_offset, tmp_path / "one", ExportOptions(split="val"))


def test_a_store_that_is_not_all_there_is_told(made: MadeFolder, tmp_path: Path) -> None:
    single = make_published(tmp_path / "in", {"train": IDS["train"][:1]})
    import_published(single.folder, tmp_path / "store")
    kept = tmp_path / "store/2023/published/000000.h5"
    kept.rename(tmp_path / "away")
    with pytest.raises(StoreError, match=r"000000\.h5"):
        export_published(tmp_path / "store", tmp_path / "out")
    (tmp_path / "away").rename(kept)
    (tmp_path / "store/2023/label/c.0.0.0.0").unlink()
    with pytest.raises(StoreError, match="label"):
        export_published(tmp_path / "store", tmp_path / "out")
    assert not list((tmp_path / "out/h5_data").glob("*")) if (tmp_path / "out/h5_data").exists() else True


app = typer.Typer()
app.command("import-h5")(import_h5)
app.command("export-h5")(export_h5)


def test_the_commands_tell_what_they_did(made: MadeFolder, tmp_path: Path) -> None:
    run = CliRunner().invoke
    arguments = ["import-h5", str(made.folder), str(tmp_path / "store"), "--capacity", "2", "--remove-offset"]
    told = run(app, arguments)
    assert told.exit_code == 0, told.output
    assert "7 samples" in " ".join(told.output.split())
    assert "7 by tile" in told.output
    again = json.loads(run(app, [*arguments, "--json"]).stdout)
    assert (again["already_done"], again["imported"], again["seasons"]) == (6, 0, [2022, 2023])
    told = run(app, ["export-h5", str(tmp_path / "store"), str(tmp_path / "out"), "--published-offset"])
    assert told.exit_code == 0, told.output
    assert "cannot read a list with a single id: val" in told.output
    assert_same_dataset(made.folder, tmp_path / "out")
    report = json.loads(
        run(app, ["export-h5", str(tmp_path / "store"), str(tmp_path / "out"), "--published-offset", "--json"]).stdout
    )
    assert report == asdict(
        export_published(tmp_path / "store", tmp_path / "out", ExportOptions(published_offset=True))
    )


def test_scenes_a_catalog_does_not_have_are_gaps(made: MadeFolder, tmp_path: Path) -> None:
    items = scene_catalog(tmp_path / "items.json", ("20230701T105812Z_001", 330_015, 4_850_025))
    arguments = ["import-h5", str(made.folder), str(tmp_path / "store"), "--catalog", str(items)]
    told = CliRunner().invoke(app, arguments)
    assert told.exit_code == 3
    assert "not placed exactly: 20220914T105000Z_007" in told.output
