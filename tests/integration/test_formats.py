"""Stores of older formats: the first one ever written is read, extended and brought to the present format."""

from __future__ import annotations

import hashlib
import json
import shutil
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import zarr
from killed_builds import SAID_BY_RUNS
from typer.testing import CliRunner

import h2crop_data
from h2crop_data.cli.main import app
from h2crop_data.cube.reading import read_index, read_index_json, store_attributes
from h2crop_data.errors import FormatVersionError, StoreError
from h2crop_data.maintenance.compare import Choice, compare_stores
from h2crop_data.maintenance.migrate import migrate_store
from h2crop_data.pipeline.build import build_store
from h2crop_data.pipeline.plan import load_plan
from h2crop_data.recipe.model import load_recipe
from h2crop_data.report.summary import summarize
from h2crop_data.storage.local import LocalStorage
from h2crop_data.training.dataset import CropSamples
from h2crop_data.validation.validate import validate_store

STORES = Path(__file__).parents[1] / "stores"
ARRAYS = ("enmap", "enmap_quality", "s2", "s2_clear", "s2_day", "label", "prior", "parcel")


@pytest.fixture
def first(tmp_path: Path) -> Path:
    """The store that format 1.0 was written with."""
    folder = tmp_path / "first"
    with zipfile.ZipFile(STORES / "format-1.0.zip") as archive:
        archive.extractall(folder)
    return folder


@pytest.fixture(scope="module")
def kept(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """The stores that format 1.1 was written with, by name; only to be read."""
    folders = {}
    for name in ("grown", "relabelled", "imported"):
        folders[name] = tmp_path_factory.mktemp("kept") / name
        with zipfile.ZipFile(STORES / f"format-1.1-{name}.zip") as archive:
            archive.extractall(folders[name])
    return folders


def truth() -> dict[str, dict[str, Any]]:
    """Shape and hash of the values of every array of the first store, as its own version read them."""
    return json.loads((STORES / "format-1.0.json").read_text())


def values_hash(values: Any) -> str:
    return hashlib.sha256(json.dumps(np.asarray(values).tolist()).encode()).hexdigest()


def assert_all_values_are_the_first_ones(folder: Path) -> None:
    root = zarr.open_group(str(folder), mode="r")
    for name, expected in truth().items():
        array = root[name]
        assert list(array.shape) == expected["shape"], name
        assert values_hash(array[:]) == expected["sha256"], name


def bytes_hash(values: np.ndarray) -> str:
    """The hash of numbers by their bytes, of texts as JSON."""
    data = values.tobytes() if values.dtype.kind in "biuf" else json.dumps(values.tolist()).encode()
    return hashlib.sha256(data).hexdigest()


def files_of(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_the_first_format_is_read(first: Path) -> None:
    assert_all_values_are_the_first_ones(first)
    assert store_attributes(first)["format_version"] == "1.0"
    for season in (2021, 2022):
        opened = h2crop_data.open(first, season)
        valid = np.flatnonzero(zarr.open_group(str(first), mode="r")[f"{season}/valid"][:])
        assert opened.sizes["sample"] == len(valid)
        np.testing.assert_array_equal(
            opened["s2"].values, zarr.open_group(str(first), mode="r")[f"{season}/s2"][:][valid]
        )
    assert len(CropSamples(first)) == len(read_index(first, "samples-2021")) + len(read_index(first, "samples-2022"))
    assert summarize(first)["format_version"] == "1.0"


def test_the_first_format_is_not_built_upon_before_it_is_migrated(first: Path) -> None:
    before = files_of(first)
    recipe = load_plan(LocalStorage(first), ".build/plan/2022/").recipe
    with pytest.raises(StoreError, match=r"has format 1\.0, this h2crop writes 2\.0: run `h2crop migrate"):
        build_store(recipe, first)
    after = files_of(first)
    assert {name: data for name, data in after.items() if Path(name).name not in SAID_BY_RUNS} == before


def test_a_migrated_store_has_the_same_samples_and_keeps_its_old_release(first: Path) -> None:
    before = files_of(first)
    report = migrate_store(first)
    assert (report.before, report.after, report.release, report.mended) == ("1.0", "2.0", 2, 4)
    assert_all_values_are_the_first_ones(first)
    after = files_of(first)
    shards = [name for name in before if name.startswith("20") and "zarr.json" not in name]
    assert {name: after[name] for name in shards} == {name: before[name] for name in shards}
    assert {name: after[name] for name in before if name.startswith("index/r1/")} == {
        name: before[name] for name in before if name.startswith("index/r1/")
    }
    old, new = h2crop_data.open(first, 2022, release=1), h2crop_data.open(first, 2022)
    assert (old.attrs["release"], new.attrs["release"]) == (1, 2)
    assert old.drop_attrs().identical(new.drop_attrs())
    # The figures both formats have are the same.
    was, now = read_index_json(first, "statistics", release=1), read_index_json(first, "statistics")
    assert now["class_pixels"] == was["class_pixels"]
    for group in ("s2", "enmap"):
        for old_band, new_band in zip(was["reflectance"][group], now["reflectance"][group], strict=True):
            assert {key: new_band[key] for key in old_band} == pytest.approx(old_band)
    # Nothing is left to do the second time.
    again = migrate_store(first)
    assert (again.release, again.mended) == (2, 0)


def test_lost_and_damaged_sums_are_made_anew_by_migrating(first: Path) -> None:
    migrate_store(first)
    sums = sorted((first / ".build").glob("20*/*.sums"))
    whole = {path: path.read_bytes() for path in sums}
    sums[0].unlink()
    sums[1].write_bytes(whole[sums[1]][:20])
    assert migrate_store(first).mended == 2
    assert {path: path.read_bytes() for path in sums} == whole
    # Those of another block are whole, and not this one's.
    sums[0].write_bytes(whole[sums[1]])
    assert migrate_store(first).mended == 1
    assert {path: path.read_bytes() for path in sums} == whole


def test_the_command_tells_what_it_did(first: Path) -> None:
    done = CliRunner().invoke(app, ["migrate", str(first), "--json"])
    assert done.exit_code == 0
    assert json.loads(done.stdout)["after"] == "2.0"


def test_a_store_without_the_builders_files_needs_no_migration(first: Path) -> None:
    for path in sorted((first / ".build/plan").rglob("*"), reverse=True):
        path.unlink() if path.is_file() else path.rmdir()
    with pytest.raises(StoreError, match="can be read as it is"):
        migrate_store(first)
    assert h2crop_data.open(first, 2022).sizes["sample"] > 0


@pytest.mark.parametrize("name", ["grown", "relabelled", "imported"])
def test_a_store_of_format_1_1_is_read_as_it_was_written(kept: dict[str, Path], name: str) -> None:
    folder = kept[name]
    root = zarr.open_group(str(folder), mode="r")
    for path, expected in json.loads((STORES / "format-1.1.json").read_text())[name].items():
        values = np.asarray(root[path][:])
        assert (list(values.shape), bytes_hash(values)) == (expected["shape"], expected["sha256"]), path
    attributes = store_attributes(folder)
    assert attributes["format_version"] == "1.1"
    for season, facts in attributes["seasons"].items():
        opened = h2crop_data.open(folder, int(season))
        valid = np.flatnonzero(root[f"{season}/valid"][:])
        assert opened.sizes["sample"] == len(valid) == facts["samples"]
        for array in opened.data_vars:
            np.testing.assert_array_equal(opened[array].values, root[f"{season}/{array}"][:][valid])
    assert len(CropSamples(folder)) == sum(facts["samples"] for facts in attributes["seasons"].values())
    assert validate_store(folder).errors == 0


def test_what_was_retracted_from_a_store_of_format_1_1_stays_out_and_older_releases_have_it(
    kept: dict[str, Path],
) -> None:
    folder = kept["grown"]
    retracted = read_index(folder, "blocks").query("season == 2022 and block == 1").iloc[0]
    assert retracted["retracted"] == "clouds that no layer has"
    newest, before = (h2crop_data.open(folder, 2022, release=release) for release in (None, 2))
    assert before.sizes["sample"] - newest.sizes["sample"] == retracted["samples"]
    assert set(newest.sample.values) < set(before.sample.values)
    with pytest.raises(StoreError, match="no season 2022"):
        h2crop_data.open(folder, 2022, release=1)
    # The copy with other labels was made after that, and shares everything but labels.
    relabelled = h2crop_data.open(kept["relabelled"], 2022)
    assert relabelled.sample.values.tolist() == newest.sample.values.tolist()
    for array in ("s2", "enmap", "enmap_quality", "parcel"):
        np.testing.assert_array_equal(relabelled[array].values, newest[array].values)
    assert (relabelled["label"].values != newest["label"].values).any()


def is_shard(name: str) -> bool:
    """Whether a file is a shard of an array with pixels."""
    season, _, rest = name.partition("/")
    return season.isdecimal() and rest.split("/")[0] in ARRAYS and "/c." in rest


def identities(folder: Path) -> dict[str, tuple[int, int, str]]:
    """Inode, time of change and checksum of every shard."""
    found = {}
    for name, data in files_of(folder).items():
        if is_shard(name):
            status = (folder / name).stat()
            found[name] = (status.st_ino, status.st_mtime_ns, hashlib.sha256(data).hexdigest())
    return found


def test_of_a_store_of_format_1_1_a_release_is_made_and_no_shard_is_touched(
    kept: dict[str, Path], tmp_path: Path
) -> None:
    folder = tmp_path / "grown"
    shutil.copytree(kept["grown"], folder)
    before, shards = files_of(folder), identities(folder)
    tables = {name: read_index(folder, name) for name in ("samples-2021", "samples-2022", "blocks", "scenes")}
    assert len(shards) > 20
    report = migrate_store(folder)
    assert (report.before, report.after, report.release, report.mended) == ("1.1", "2.0", 4, 0)
    after = files_of(folder)
    assert identities(folder) == shards
    # Older releases are as they were.
    assert {name: after[name] for name in before if name.startswith("index/")} == {
        name: before[name] for name in before if name.startswith("index/")
    }
    for name, was in tables.items():
        now = read_index(folder, name)
        shared = [column for column in was if column in now]
        assert len(shared) > 5
        pd.testing.assert_frame_equal(now[shared], was[shared], check_dtype=False)
    # The second time nothing is left to do.
    assert migrate_store(folder).release == 4


def test_an_imported_store_is_migrated_from_what_its_import_kept(kept: dict[str, Path], tmp_path: Path) -> None:
    folder = tmp_path / "imported"
    shutil.copytree(kept["imported"], folder)
    shards, was = identities(folder), h2crop_data.open(folder, 2023)
    report = migrate_store(folder)
    assert (report.before, report.after, report.release, report.mended) == ("1.1", "2.0", 2, 0)
    assert identities(folder) == shards
    np.testing.assert_array_equal(h2crop_data.open(folder, 2023)["s2"].values, was["s2"].values)
    assert validate_store(folder).errors == 0
    assert migrate_store(folder).release == 2


# Stores of every version, as they were written and brought to format 2


@pytest.fixture(scope="module", params=["1.0", "1.1-grown", "1.1-relabelled", "1.1-imported", "1.2"])
def pair(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """A store as it was written, and the same one migrated; only to be read."""
    folder = tmp_path_factory.mktemp("pair")
    with zipfile.ZipFile(STORES / f"format-{request.param}.zip") as archive:
        archive.extractall(folder / "written")
    written = folder / "written/store" if request.param == "1.2" else folder / "written"
    migrated = Path(shutil.copytree(written, folder / "migrated"))
    shards = identities(migrated)
    migrate_store(migrated)
    assert identities(migrated) == shards
    assert len(shards) >= 16
    return written, migrated


@pytest.mark.slow
def test_a_store_and_its_migrated_copy_are_equal_and_valid(pair: tuple[Path, Path]) -> None:
    written, migrated = pair
    found = compare_stores(written, migrated, Choice(full=True))
    assert found.same, found
    assert [change.b for change in found.told if change.name == "format_version"] == ["2.0"]
    assert [validate_store(folder).errors for folder in pair] == [0, 0]


@pytest.mark.slow
def test_readers_see_stores_of_every_format_alike(pair: tuple[Path, Path]) -> None:
    written, migrated = pair
    for season in map(int, store_attributes(written)["seasons"]):
        # The older release of the migrated store, too: what its root says counts.
        before = store_attributes(written)["release"]
        opened = [h2crop_data.open(written, season), h2crop_data.open(migrated, season)]
        opened.append(h2crop_data.open(migrated, season, release=before))
        for one in opened:
            assert one["s2"].dims == ("sample", "time", "s2_band", "y", "x")
            assert one["time"].values[0] == np.datetime64(f"{season}-01-01")
            assert one["time_bnds"].values[-1, 1] == np.datetime64(f"{season + 1}-01-01")
            assert one["month"].values.tolist() == list(range(1, 13))
            assert one.drop_attrs().identical(opened[0].drop_attrs())
    for a, b in zip(*(CropSamples(folder, months=6, later_scenes=True) for folder in pair), strict=True):
        assert a.keys() == b.keys()
        assert a["s2"].shape[0] == 6
        assert all(a[name] == b[name] if name == "id" else bool((a[name] == b[name]).all()) for name in a)


def test_a_migrated_store_keeps_codec_and_dtype(pair: tuple[Path, Path]) -> None:
    _, migrated = pair
    season = next(iter(store_attributes(migrated)["seasons"]))
    documents = {path.parent.name: json.loads(path.read_text()) for path in migrated.glob(f"{season}/*/zarr.json")}
    inner = {name: one["codecs"][0]["configuration"]["codecs"] for name, one in documents.items() if name in ARRAYS}
    assert {name: [codec["name"] for codec in codecs] for name, codecs in inner.items()} == {
        name: ["bytes", "blosc"] for name in ARRAYS
    }
    assert documents["enmap_quality"]["data_type"] == "uint16"
    assert documents["s2"]["dimension_names"][1] == "time"
    assert documents["time"]["fill_value"] == -(2**31)
    layout = store_attributes(migrated)["layout"]
    assert layout["codec"]["checksum"] is False
    assert set(layout) == {"cell_size", "block_capacity", "codec", "sources"}


@pytest.mark.slow
def test_a_migrated_store_grows_in_its_old_layout(tmp_path: Path) -> None:
    with zipfile.ZipFile(STORES / "format-1.2.zip") as archive:
        archive.extractall(tmp_path)
    store, recipe = tmp_path / "store", load_recipe(tmp_path / "region/recipe.yaml")
    with pytest.raises(FormatVersionError, match=r"has format 1\.2, this h2crop writes 2\.0: run `h2crop migrate"):
        build_store(recipe, store, extend=True, workers=1)
    values = json.loads((STORES / "format-1.2.json").read_text())
    assert migrate_store(store).release == 5
    shards = identities(store)
    report = build_store(recipe, store, extend=True, workers=1)
    assert (report.release, report.built) == (6, 7)
    assert {name: one for name, one in identities(store).items() if name in shards} == shards
    assert validate_store(store).errors == 0
    # New blocks are like the old ones, whose values are those that were written.
    root = zarr.open_group(str(store), mode="r")
    assert root["2022/enmap_quality"].dtype == np.uint16
    for path, expected in values.items():
        name = path.split("/")[1]
        if name in ARRAYS:
            found = np.asarray(root[path][: expected["shape"][0]])
            assert bytes_hash(found) == expected["sha256"], path
    plans = [json.loads(path.read_text()) for path in sorted(store.glob(".build/plan/*/plan.json"))]
    assert len(plans) == 6
    assert not any("layout" in plan for plan in plans)
    build_store(recipe.for_seasons([2021, 2022]), tmp_path / "afresh", workers=1)
    # Parcels are numbered by what there was before.
    alike = frozenset({"enmap", "enmap_quality", "s2", "s2_clear", "label", "prior"})
    fresh = compare_stores(store, tmp_path / "afresh", Choice(seasons=frozenset({2021}), arrays=alike, full=True))
    assert [season.arrays for season in fresh.seasons] == [[]]
    assert fresh.seasons[0].read == 10 * len(alike)
