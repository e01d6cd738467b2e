"""Stores that lie elsewhere: inspected, opened and trained on in S3 and on web servers as in a folder."""

from __future__ import annotations

import json
import pickle
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from functools import partial
from http.server import ThreadingHTTPServer
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import xarray as xr
from made_stores import MadeStore, make_store
from published_files import IDS, make_published
from s3_server import BUCKET, s3_proxy, s3_server, use_server
from torch_workers import WORKERS
from web_server import IgnoresRanges, NoListing, served

import h2crop_data
from h2crop_data.cube.reading import load_root, read_index
from h2crop_data.cube.sample_reader import open_samples
from h2crop_data.errors import MissingFileError, StoreError, StoreWarning
from h2crop_data.maintenance.compare import Choice, compare_stores
from h2crop_data.published.exporting import export_published
from h2crop_data.published.importing import import_published
from h2crop_data.published.options import ImportOptions
from h2crop_data.report import picture
from h2crop_data.storage import web as web_storage
from h2crop_data.storage.local import LocalStorage
from h2crop_data.storage.s3 import ObjectStorage
from h2crop_data.storage.web import WebStorage
from h2crop_data.training.dataset import CropSamples

#: Where a store may lie: a bucket, a web server, and one that ignores ranges of bytes.
PLACES = ("s3", "web", "web without ranges")


@dataclass(frozen=True)
class RemoteStore:
    """A store and where its files lie besides."""

    made: MadeStore
    url: str
    #: Whether its server ignores ranges of bytes.
    whole_files: bool

    def warning(self) -> Any:
        """What reading parts of it warns of, if anything."""
        return pytest.warns(StoreWarning, match="ignores byte ranges") if self.whole_files else nullcontext()


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> MadeStore:
    """A season of two blocks, not to be changed."""
    return make_store(tmp_path_factory.mktemp("remote") / "store")


@pytest.fixture(scope="module")
def bucket(made: MadeStore) -> Iterator[str]:
    """The URL of an S3 server that has the store."""
    with s3_server() as url, pytest.MonkeyPatch.context() as patch:
        use_server(url, patch)
        upload(made.folder, f"s3://{BUCKET}/store")
        yield url


def upload(folder: Path, url: str) -> ObjectStorage:
    """Copy a store into a bucket, without the builder's own files."""
    local, storage = LocalStorage(folder), ObjectStorage(url)
    for name, _ in local.names():
        if not name.startswith(".build/"):
            storage.share(name, local)
    return storage


@pytest.fixture(params=PLACES)
def remote(request: pytest.FixtureRequest, made: MadeStore, monkeypatch: pytest.MonkeyPatch) -> Iterator[RemoteStore]:
    """The store in each place, for this process and those it starts."""
    if request.param == "s3":
        use_server(request.getfixturevalue("bucket"), monkeypatch)
        yield RemoteStore(made, f"s3://{BUCKET}/store", whole_files=False)
        return
    handler = NoListing if request.param == "web" else IgnoresRanges
    with served(made.folder.parent, handler) as (url, _):
        yield RemoteStore(made, f"{url}/store", handler is IgnoresRanges)


def h2crop(*arguments: str) -> subprocess.CompletedProcess[str]:
    """Run the command."""
    command = [sys.executable, "-m", "h2crop_data", *arguments]
    return subprocess.run(command, capture_output=True, text=True, timeout=180, check=False)


# Inspecting


@pytest.fixture(scope="module")
def here(made: MadeStore, tmp_path_factory: pytest.TempPathFactory) -> tuple[dict[str, Any], bytes]:
    """What is shown of the folder: the summary, and the picture."""
    return inspected(str(made.folder), tmp_path_factory.mktemp("here"), warned=False)


def inspected(store: str, folder: Path, *, warned: bool) -> tuple[dict[str, Any], bytes]:
    """What is shown of a store in JSON, without its place, and as a picture."""
    picture = folder / "sample.png"
    done = h2crop("inspect", store, "--plot", str(picture), "--json")
    assert done.returncode == 0, done.stderr
    summary = json.loads(done.stdout)
    assert summary.pop("store") == store
    assert summary.pop("picture") == str(picture)
    lines = done.stderr.splitlines()
    assert len(lines) == warned
    for line in lines:
        assert line.startswith("warning: http://")
        assert "ignores byte ranges: whole files are read for every part of them, which is slow" in line
    return summary, picture.read_bytes()


def test_inspect_shows_of_a_remote_store_what_it_shows_of_a_folder(
    remote: RemoteStore, here: tuple[dict[str, Any], bytes], tmp_path: Path
) -> None:
    summary, picture = inspected(remote.url, tmp_path, warned=remote.whole_files)
    assert summary == here[0]
    assert picture == here[1]
    assert summary["seasons"]["2022"]["wavelength_nm"] == [450.0, 2400.0]


def test_what_people_try_first_works(made: MadeStore, tmp_path: Path) -> None:
    command = [sys.executable, "-u", "-m", "http.server", "0", "--bind", "127.0.0.1", "--directory", str(made.folder)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True) as server:
        try:
            assert server.stdout is not None
            address = re.search(r"http://[\d.]+:\d+", server.stdout.readline())
            assert address
            done = h2crop("inspect", address[0], "--plot", str(tmp_path / "sample.png"))
        finally:
            server.kill()
    assert done.returncode == 0, done.stderr
    assert "Traceback" not in done.stderr
    assert done.stderr.count("warning: ") == 1
    assert f"{address[0]}: release 1" in done.stderr
    assert (tmp_path / "sample.png").is_file()


# Opening and comparing


def test_every_array_opens_as_in_a_folder(remote: RemoteStore) -> None:
    with remote.warning():
        there = h2crop_data.open(remote.url, 2022).load()
    xr.testing.assert_identical(there, h2crop_data.open(remote.made.folder, 2022).load())


def test_an_opened_season_can_be_sent_to_another_process(remote: RemoteStore) -> None:
    opened = h2crop_data.open(remote.url, 2022)
    with remote.warning():
        received = pickle.loads(pickle.dumps(opened)).s2.isel(sample=4, time=3).load()
    np.testing.assert_array_equal(received, remote.made.arrays[2022]["s2"][4, 3])


def test_a_remote_store_equals_the_one_it_was_copied_from(remote: RemoteStore) -> None:
    with remote.warning():
        result = compare_stores(remote.url, remote.made.folder, Choice(full=True))
    assert result.same
    assert result.seasons[0].read > 0


def test_of_a_server_without_ranges_a_file_is_read_once_for_all_its_parts(made: MadeStore) -> None:
    with served(made.folder, IgnoresRanges) as (url, asked):
        opened = h2crop_data.open(url, 2022)
        asked.clear()
        with pytest.warns(StoreWarning) as told:
            sample = opened.isel(sample=0).load()
    np.testing.assert_array_equal(sample["s2"], made.arrays[2022]["s2"][0])
    shards = [path for path, _ in asked if path.startswith("/2022/s2/c.")]
    assert shards == ["/2022/s2/c.0.0.0.0.0"]
    # One text for a server, which Python shows once.
    assert len({str(warning.message) for warning in told}) == 1


def test_whole_files_are_let_go_of_where_they_would_fill_the_memory(
    made: MadeStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    size = (made.folder / "2022/s2/c.0.0.0.0.0").stat().st_size
    monkeypatch.setattr(web_storage, "KEPT_BYTES", size + 1)
    with served(made.folder, IgnoresRanges) as (url, _):
        storage = WebStorage(url)
        shards = [
            f"2022/{name}/c.{block}" + ".0" * (values.ndim - 1)
            for name, values in made.arrays[2022].items()
            for block in (0, 1)
        ]
        with pytest.warns(StoreWarning):
            read = {shard: (storage.read_range(shard, 10, 100), len(storage.kept)) for shard in shards}
        for shard, (part, kept) in read.items():
            assert part == (made.folder / shard).read_bytes()[10:110]
            assert kept < len(shards)
        assert sum(map(len, storage.kept.values())) <= size + 1


# Exporting


@pytest.fixture(scope="module")
def imported(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A store of published files, which keeps files beside its arrays, two samples a block."""
    folder = tmp_path_factory.mktemp("imported")
    published = make_published(folder / "in", {"train": IDS["train"][:3]})
    import_published(published.folder, folder / "store", ImportOptions(capacity=2))
    return folder / "store"


@pytest.mark.parametrize("place", PLACES)
def test_a_remote_store_is_exported_as_that_of_a_folder(
    place: str, imported: Path, request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    export_published(imported, tmp_path / "here")
    if place == "s3":
        use_server(request.getfixturevalue("bucket"), monkeypatch)
        upload(imported, f"s3://{BUCKET}/imported")
        done = h2crop("export-h5", f"s3://{BUCKET}/imported", str(tmp_path / "there"))
    else:
        with served(imported, NoListing if place == "web" else IgnoresRanges) as (url, _):
            done = h2crop("export-h5", url, str(tmp_path / "there"))
    assert done.returncode == 0, done.stderr
    here, there = (
        {
            str(path.relative_to(folder)): path.read_bytes()
            for path in folder.rglob("*")
            if path.is_file() and ".build" not in path.parts
        }
        for folder in (tmp_path / "here", tmp_path / "there")
    )
    assert here == there
    assert len([name for name in there if name.endswith(".h5")]) == 3


def test_a_kept_file_that_a_server_lost_is_told(imported: Path, tmp_path: Path) -> None:
    shutil.copytree(imported, tmp_path / "store")
    lost = next((tmp_path / "store").glob("*/published/*.h5"))
    lost.unlink()
    with (
        served(tmp_path / "store") as (url, _),
        pytest.raises(StoreError, match=rf"{url}/\d+/published/{lost.name}.*download or import this block again"),
    ):
        export_published(url, tmp_path / "out")


# Validating


def test_a_store_on_a_web_server_cannot_be_validated_and_why(made: MadeStore) -> None:
    with served(made.folder) as (url, _):
        done = h2crop("validate", url)
    assert done.returncode == 2
    assert "list of all its files, which a web server does not give; copy the store into a folder" in done.stderr


# Tables


def test_tables_of_the_index_are_those_of_the_folder(remote: RemoteStore) -> None:
    for name in ("samples-2022", "parcels-2022", "blocks", "scenes", "manifest"):
        pd.testing.assert_frame_equal(read_index(remote.url, name), read_index(remote.made.folder, name))


# Other places, through zarr-python


def test_a_place_that_only_fsspec_knows_is_read_as_a_folder(made: MadeStore, tmp_path: Path) -> None:
    url = f"file://{made.folder}"
    here, there = (
        CropSamples(store, arrays=["s2", "label", "parcel"], months=6, later_scenes=True)
        for store in (made.folder, url)
    )
    assert there.ids == here.ids
    for one, other in zip(here, there, strict=True):
        for name in ("s2", "label", "parcel"):
            np.testing.assert_array_equal(other[name].numpy(), one[name].numpy())
    assert compare_stores(url, made.folder, Choice(full=True)).same
    assert picture.read_sample(url, 2022, 1).layer("s2").shape == made.arrays[2022]["s2"][1].shape
    xr.testing.assert_identical(h2crop_data.open(url, 2022).load(), h2crop_data.open(made.folder, 2022).load())


def test_what_reads_through_zarr_python_refuses_what_ours_refuses(made: MadeStore) -> None:
    root = load_root(made.folder)
    ours = open_samples(made.folder, root, [2022])[2022]
    theirs = open_samples(f"file://{made.folder}", root, [2022])[2022]
    assert set(ours) == set(theirs)
    for name, reader in ours.items():
        assert (theirs[name].sample_shape, theirs[name].dtype) == (reader.sample_shape, reader.dtype)
        np.testing.assert_array_equal(theirs[name].read(4), reader.read(4))
    for slot, out, first in ((6, 12, 0), (-1, 12, 0), (0, 13, 0), (0, 6, 7)):
        buffer = np.empty((out, *ours["s2"].sample_shape[1:]), "int16")
        told = []
        for reader in (ours["s2"], theirs["s2"]):
            with pytest.raises(IndexError) as raised:
                reader.read_into(slot, buffer, first)
            told.append(str(raised.value))
        assert told[0] == told[1]
    for reader in (ours["s2"], theirs["s2"]):
        with pytest.raises(ValueError, match="expected a writeable C-contiguous buffer"):
            reader.read_into(0, np.empty((12, 1, 1, 1), "int16"))


def test_lost_and_damaged_shards_are_told_there_too(made: MadeStore, tmp_path: Path) -> None:
    shutil.copytree(made.folder, tmp_path / "store")
    (tmp_path / "store/2022/label/c.0.0.0.0").unlink()
    shard = tmp_path / "store/2022/s2/c.0.0.0.0.0"
    shard.write_bytes(shard.read_bytes()[:-1])
    url = f"file://{tmp_path}/store"
    with pytest.raises(StoreError, match=r"2022/label/c\.0\.0\.0\.0 is missing; download or build this block again"):
        CropSamples(url, arrays=["label"])[0]
    with pytest.raises(StoreError, match=rf"cannot read sample 0 of {url}/2022/s2: .*if the file is damaged"):
        CropSamples(url, arrays=["s2"])[0]
    assert (picture.read_sample(url, 2022, 3).layer("label") == made.arrays[2022]["label"][3]).all()


# Training


def test_samples_of_a_remote_store_are_those_of_the_folder(remote: RemoteStore) -> None:
    here = CropSamples(remote.made.folder, split="val", months=6, later_scenes=True)
    there = CropSamples(remote.url, split="val", months=6, later_scenes=True)
    assert there.ids == here.ids
    for i in range(len(here)):
        one = here[i]
        with remote.warning() if i == 0 else nullcontext():
            other = there[i]
        assert set(one) == set(other)
        for name in set(one) - {"id"}:
            np.testing.assert_array_equal(other[name].numpy(), one[name].numpy())
    assert there[0]["s2"].shape[0] == 6


def test_a_sample_asks_for_its_own_bytes(tmp_path: Path) -> None:
    made = make_store(tmp_path / "store", blocks=1, capacity=8, cell_size=960)
    shard = (made.folder / "2022/s2/c.0.0.0.0.0").stat().st_size
    with served(made.folder) as (url, asked):
        samples = CropSamples(url, arrays=["s2"], months=6, later_scenes=True)
        asked.clear()
        read = samples[3]["s2"].numpy()
    np.testing.assert_array_equal(read, made.arrays[2022]["s2"][3, :6])
    # The shard's index, and half a sample of eight.
    assert [path for path, _ in asked] == ["/2022/s2/c.0.0.0.0.0"] * 2
    assert sum(size for _, size in asked) < shard / 10


def test_what_a_sample_costs_in_a_bucket(bucket: str, monkeypatch: pytest.MonkeyPatch) -> None:
    with s3_proxy(bucket) as proxy:
        use_server(proxy.url, monkeypatch)
        samples = CropSamples(f"s3://{BUCKET}/store", arrays=["s2", "label"])
        asked: list[list[tuple[str, str]]] = []
        for i in (0, 1):
            before = len(proxy.requests)
            samples[i]
            asked.append([(request.method, request.key) for request in proxy.requests[before:]])
    shards = ["store/2022/s2/c.0.0.0.0.0", "store/2022/label/c.0.0.0.0"]
    # The size and the index of each shard once, then one range of each array a sample.
    assert asked[0] == [(method, shard) for shard in shards for method in ("HEAD", "GET", "GET")]
    assert asked[1] == [("GET", shard) for shard in shards]


def test_a_shard_that_is_not_there_is_an_error_and_not_fill(remote: RemoteStore, tmp_path: Path) -> None:
    lost = "2022/label/c.1.0.0.0"
    with copied(remote, tmp_path, without=lost) as url:
        samples = CropSamples(url, arrays=["label"])
        with remote.warning():
            np.testing.assert_array_equal(samples[0]["label"], remote.made.arrays[2022]["label"][0])
        with pytest.raises(StoreError, match=rf"{re.escape(lost)} is missing; download or build this block again"):
            samples[4]


@contextmanager
def copied(remote: RemoteStore, folder: Path, *, without: str) -> Iterator[str]:
    """The URL of a copy of a store in the same kind of place, which lost a file."""
    if remote.url.startswith("s3://"):
        upload(remote.made.folder, f"s3://{BUCKET}/copy").delete(without)
        yield f"s3://{BUCKET}/copy"
        return
    shutil.copytree(remote.made.folder, folder / "store")
    (folder / "store" / without).unlink()
    with served(folder / "store", IgnoresRanges if remote.whole_files else NoListing) as (url, _):
        yield url


def test_a_damaged_shard_is_told_by_its_url(made: MadeStore, tmp_path: Path) -> None:
    shutil.copytree(made.folder, tmp_path / "store")
    shard = tmp_path / "store/2022/label/c.0.0.0.0"
    shard.write_bytes(shard.read_bytes()[:-1])
    with served(tmp_path / "store") as (url, _):
        samples = CropSamples(url, arrays=["label"])
        with pytest.raises(StoreError, match=rf"{re.escape(url)}/2022/label/c\.0\.0\.0\.0: .*truncated"):
            samples[0]


@pytest.mark.parametrize("remote", ["s3", "web"], indirect=True)
@pytest.mark.parametrize("start", ["fork", "spawn", "forkserver"])
def test_workers_read_the_same_or_are_told_how_to_start(remote: RemoteStore, start: str, tmp_path: Path) -> None:
    np.save(tmp_path / "expected.npy", remote.made.arrays[2022]["s2"])
    script = tmp_path / "workers.py"
    script.write_text(WORKERS, encoding="utf-8")
    command = [sys.executable, str(script), remote.url, start, str(tmp_path / "expected.npy")]
    done = subprocess.run(command, capture_output=True, text=True, timeout=180, check=False)
    assert done.returncode == 0, done.stderr
    if remote.url.startswith("s3") and start == "fork":
        assert "cannot be used in a forked process; start workers with `spawn` or `forkserver`" in done.stdout
    else:
        assert done.stdout.strip() == "the same"


# Servers that fail


class Refusing(NoListing):
    """Answers 503 to everything but the documents and tables of the index."""

    def do_GET(self) -> None:  # noqa: N802
        if "/c." in self.path:
            self.send_error(503)
        else:
            super().do_GET()


def test_a_server_that_fails_is_told_and_not_read_as_fill(made: MadeStore) -> None:
    with served(made.folder, Refusing) as (url, _):
        opened = h2crop_data.open(url, 2022)
        for name, chunk in (("wavelength", r"(wavelength|fwhm)/c\.0\.0"), ("s2", r"s2/c\.[01]\.0\.0\.0\.0")):
            with pytest.raises(StoreError, match=rf"cannot read {url}/2022/{chunk}: 503"):
                opened[name].load()
        with pytest.raises(StoreError, match=rf"cannot read {url}/2022/enmap/c\.0\.0\.0\.0: 503"):
            CropSamples(url)[0]
        done = h2crop("inspect", url)
    assert done.returncode == 1
    assert done.stderr.startswith("error: cannot read http://")
    assert len(done.stderr.splitlines()) == 1


def test_a_server_that_is_not_there_is_told() -> None:
    with ThreadingHTTPServer(("127.0.0.1", 0), partial(NoListing, directory="/nowhere")) as server:
        url = f"http://127.0.0.1:{server.server_address[1]}"
    with pytest.raises(StoreError, match=rf"cannot read {url}/zarr\.json: .*check that {url} is a finished store"):
        CropSamples(url)


def test_a_page_that_is_no_store_is_told(tmp_path: Path) -> None:
    with (
        served(tmp_path) as (url, _),
        pytest.raises(StoreError, match=rf"cannot read {url}/zarr\.json: the file does not exist"),
    ):
        h2crop_data.open(url, 2022)


@pytest.mark.parametrize("handler", [NoListing, IgnoresRanges])
def test_parts_of_files_are_those_asked_for(handler: type[IgnoresRanges], tmp_path: Path) -> None:
    data = np.random.default_rng(1).bytes(1000)
    (tmp_path / "a").write_bytes(data)
    (tmp_path / "empty").write_bytes(b"")
    with served(tmp_path, handler) as (url, _):
        storage = WebStorage(f"{url}/")
        assert storage.read("a") == data
        with pytest.warns(StoreWarning) if handler is IgnoresRanges else nullcontext():
            for offset in (0, 1, 999, 1000, 5000):
                for length in (0, 1, 10, 1000, 5000):
                    assert storage.read_range("a", offset, length) == data[offset : offset + length]
            for length in (1, 999, 1000, 5000):
                assert storage.read_end("a", length) == (data[-length:], 1000)
            assert storage.read_end("empty", 10) == (b"", 0)
        assert storage.read_end("nowhere", 10) is None
        for ask in (storage.read, lambda name: storage.read_range(name, 0, 1)):
            with pytest.raises(MissingFileError, match="the file does not exist"):
                ask("nowhere")


@pytest.mark.parametrize("location", ["gs://bucket/store", "nowhere://bucket/store"])
def test_a_place_that_cannot_be_read_is_told(location: str) -> None:
    with pytest.raises(StoreError, match=f"cannot read {location}/zarr.json: .*"):
        CropSamples(location)
