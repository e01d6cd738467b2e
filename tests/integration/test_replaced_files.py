"""Files that are replaced while a build reads them: never a mix of two, but an error or a recorded gap."""

from __future__ import annotations

import hashlib
import threading
import time
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from functools import partial
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import numpy as np
import pystac
import pytest
import rasterio
from affine import Affine
from lender_provider import lender_installed, without_accounts
from obstore.store import S3Store
from pyproj import Transformer
from s3_server import put_plainly, s3_proxy, s3_server
from tiny_region import CLASSES_ALONE, TinyRegion

import h2crop_data
from h2crop_data.catalog import access
from h2crop_data.catalog.file_access import access_to
from h2crop_data.catalog.file_versions import ETAG_OF_NO_FILE, VERSIONS
from h2crop_data.catalog.granule_reader import GranuleReader
from h2crop_data.errors import SceneError
from h2crop_data.grid import geobox
from h2crop_data.pipeline.build import build_store
from h2crop_data.pipeline.dates import DATES_FOLDER
from h2crop_data.pipeline.engine import BuildError
from h2crop_data.storage.local import LocalStorage

#: What a server says of its files, and whether it refuses those of another ETag than is asked for.
SERVERS = {
    "strong ETag": ("strong", True),
    "strong ETag, not heeded": ("strong", False),
    "weak ETag": ("weak", True),
    "no ETag": ("none", True),
}
REPLACED = r"was replaced while it was read: it was \d+ bytes.*, now it is \d+ bytes"


def set_at_once(event: threading.Event) -> threading.Event:
    event.set()
    return event


@dataclass
class Archive:
    """A folder over HTTP with ranges of bytes, that tells versions of its files."""

    folder: Path
    etags: str
    heeds: bool
    url: str = ""
    #: Path and headers of each request, and how it was answered.
    asked: list[tuple[str, dict[str, str], int]] = field(default_factory=list)
    #: Path -> how often it was replaced: its time of change.
    replaced: dict[str, int] = field(default_factory=dict)
    #: How often more what has the ETag of no file is answered by a server that is too busy.
    busy: int = 0
    #: Connections (ports) on which the first byte of a file was asked for.
    ports: list[int] = field(default_factory=list)
    #: While it is not set, a head comes byte by byte.
    is_quick: threading.Event = field(default_factory=lambda: set_at_once(threading.Event()))

    def replace(self, path: Path, change: Any) -> None:
        """Put another file in the place of one."""
        change(path)
        name = path.relative_to(self.folder).as_posix()
        self.replaced[f"/{name}"] = self.replaced.get(f"/{name}", 0) + 1


class Handler(BaseHTTPRequestHandler):
    """Answers of such an archive."""

    archive: Archive
    protocol_version = "HTTP/1.1"

    def handle(self) -> None:
        """Whoever asked may be gone."""
        with suppress(ConnectionError):
            super().handle()

    def do_HEAD(self) -> None:
        """The same without the body."""
        self.do_GET()

    def do_GET(self) -> None:
        """A range of a file, or a refusal."""
        content = (self.archive.folder / self.path.lstrip("/")).read_bytes()
        etag = f'"{hashlib.sha256(content).hexdigest()[:16]}"'
        wanted = self.headers.get("If-Match")
        if self.headers.get("Range") == "bytes=0-0":
            self.archive.ports.append(self.client_address[1])
        if not self.archive.is_quick.is_set():
            self.wfile.write(b"HTTP/1.1 206 Partial Content\r\nLate: ")
            while not self.archive.is_quick.wait(0.05):
                self.wfile.write(b"x")
            self.close_connection = True
            return
        if wanted == ETAG_OF_NO_FILE:
            # Time for others to ask the same.
            time.sleep(0.2)
            if self.archive.busy:
                self.archive.busy -= 1
                self.answer(503, b"busy", {})
                return
        if self.archive.heeds and wanted is not None and wanted != etag:
            self.answer(412, b"", {})
            return
        known = {"strong": {"ETag": etag}, "weak": {"ETag": f"W/{etag}"}, "none": {}}[self.archive.etags]
        known |= {"Last-Modified": f"Wed, 01 Jun 2022 00:00:0{self.archive.replaced.get(self.path, 0)} GMT"}
        first, _, last = self.headers.get("Range", "").removeprefix("bytes=").partition("-")
        if not first:
            self.answer(200, content, {**known, "Accept-Ranges": "bytes"})
            return
        part = content[int(first) : int(last) + 1 if last else None]
        span = f"bytes {first}-{int(first) + len(part) - 1}/{len(content)}"
        self.answer(206 if part else 416, part, {**known, "Content-Range": span})

    def answer(self, status: int, body: bytes, headers: dict[str, str]) -> None:
        """An answer, noted."""
        self.archive.asked.append((self.path, dict(self.headers), status))
        self.send_response(status)
        for name, value in {**headers, "Content-Length": str(len(body))}.items():
            self.send_header(name, value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def log_message(self, format: str, *args: Any) -> None:
        """Tests run quietly."""


@contextmanager
def serving(folder: Path, kind: str) -> Iterator[Archive]:
    archive = Archive(folder, *SERVERS[kind])
    handler = type("OfArchive", (Handler,), {"archive": archive})
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        server.daemon_threads = True
        archive.url = f"http://127.0.0.1:{server.server_port}"
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        try:
            yield archive
        finally:
            server.shutdown()
            thread.join()


@pytest.fixture(autouse=True)
def at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """Tries follow each other at once, and a file is new in each test."""
    monkeypatch.setenv("H2CROP_READ_PAUSES", "0,0")
    VERSIONS.forget()


def write_large(path: Path, number: int) -> None:
    """2000 x 2000 pixels of one number, without compression: any part of any version can be decoded."""
    path.parent.mkdir(exist_ok=True)
    profile = {"width": 2000, "height": 2000, "count": 1, "dtype": "uint16", "tiled": True, "nodata": 0}
    with rasterio.open(
        path, "w", driver="GTiff", crs="EPSG:32631", transform=Affine(10, 0, 500_000, 0, -10, 5_620_000), **profile
    ) as raster:
        raster.write(np.full((1, 2000, 2000), number, np.uint16))


def large_item(address: str, **facts: Any) -> pystac.Item:
    """An item of such a file."""
    item = pystac.Item("large", None, None, None, {"start_datetime": "2022-07-01", "end_datetime": "2022-07-02"})
    item.add_asset("nir", pystac.Asset(address, extra_fields=facts))
    return item


def rows_of(reader: GranuleReader, item: pystac.Item, first: int) -> set[int]:
    """The numbers in 256 rows of the file."""
    north = 5_620_000 - 10 * first
    found = reader.read(item, "nir", geobox((500_000, north - 2560, 502_560, north), 32631, 10), "nearest")
    assert found is not None
    return set(np.unique(found).tolist())


def resampled(reader: GranuleReader, item: pystac.Item, way: str, first: int = 0) -> set[int]:
    """The numbers in a square of the file that is read on pixels it does not have. first: a row of it."""
    west, north = 502_005, 5_617_445 - 10 * first
    if way == "bilinear":
        found = reader.read(item, "nir", geobox((west, north - 1280, west + 1280, north), 32631, 10), "bilinear")
    else:
        to_32 = Transformer.from_crs("EPSG:32631", "EPSG:32632", always_xy=True)
        west, north = (round(value, -1) for value in to_32.transform(west, north))
        found = reader.warp(item, "nir", geobox((west, north - 1280, west + 1280, north), 32632, 10), "nearest")
    assert found is not None
    return set(np.unique(found).tolist())


def test_the_parts_of_a_file_that_stays_open_are_of_one_version(tmp_path: Path) -> None:
    path = tmp_path / "files/nir.tif"
    write_large(path, 1000)
    with serving(tmp_path / "files", "strong ETag") as archive, GranuleReader(1) as reader:
        item = large_item(f"{archive.url}/nir.tif")
        assert rows_of(reader, item, 0) == {1000}
        archive.replace(path, lambda path: write_large(path, 2000))
        with pytest.raises(SceneError, match=rf"large asset nir: {archive.url}/nir.tif {REPLACED}"):
            rows_of(reader, item, 1536)


@pytest.mark.parametrize("kind", list(SERVERS))
def test_a_file_that_is_opened_again_is_the_same_or_refused(tmp_path: Path, kind: str) -> None:
    path = tmp_path / "files/nir.tif"
    write_large(path, 1000)
    with serving(tmp_path / "files", kind) as archive:
        item = large_item(f"{archive.url}/nir.tif")
        for first in (0, 512):
            with GranuleReader(1) as reader:
                assert rows_of(reader, item, first) == {1000}
        archive.replace(path, lambda path: write_large(path, 2000))
        with GranuleReader(1) as reader, pytest.raises(SceneError, match=REPLACED):
            rows_of(reader, item, 1536)
        # For the next build it is a file like any other.
        VERSIONS.forget()
        with GranuleReader(1) as reader:
            assert rows_of(reader, item, 768) == {2000}
            # What the build before has read is not taken from GDAL's memory.
            assert rows_of(reader, item, 0) == {2000}
            assert rows_of(reader, item, 512) == {2000}


@pytest.mark.parametrize("kind", list(SERVERS))
def test_the_next_build_reads_a_file_anew_whoever_opens_it_first(tmp_path: Path, kind: str) -> None:
    path = tmp_path / "files/nir.tif"
    write_large(path, 1000)
    with serving(tmp_path / "files", kind) as archive:
        item = large_item(f"{archive.url}/nir.tif")
        with GranuleReader(1) as reader:
            assert rows_of(reader, item, 0) == {1000}
        archive.replace(path, lambda path: write_large(path, 2000))
        VERSIONS.forget()
        # One thread knows its version, and has not opened it yet when another one does.
        VERSIONS.access(item.assets["nir"].href, access_to(item.assets["nir"].href))
        with GranuleReader(1) as reader:
            assert rows_of(reader, item, 0) == {2000}


@pytest.mark.parametrize("way", ["bilinear", "other zone"])
@pytest.mark.parametrize("kind", list(SERVERS))
def test_what_is_resampled_is_of_the_version_that_was_opened_first(tmp_path: Path, kind: str, way: str) -> None:
    path = tmp_path / "files/nir.tif"
    write_large(path, 1000)
    with serving(tmp_path / "files", kind) as archive, GranuleReader(1) as reader:
        item = large_item(f"{archive.url}/nir.tif")
        assert resampled(reader, item, way) == {1000}
        archive.replace(path, lambda path: write_large(path, 2000))
        with GranuleReader(1) as second, pytest.raises(SceneError, match=rf"large asset nir: .* {REPLACED}"):
            resampled(second, item, way)
        # A file that stays open in a reader is opened anew to be resampled.
        with pytest.raises(SceneError, match=rf"large asset nir: .* {REPLACED}"):
            resampled(reader, item, way, first=1024)
        VERSIONS.forget()
        with GranuleReader(1) as third:
            assert resampled(third, item, way) == {2000}


def test_one_more_request_a_file_and_one_a_server(tmp_path: Path) -> None:
    for name in ("one", "two"):
        write_large(tmp_path / f"files/{name}.tif", 1000)
    with serving(tmp_path / "files", "strong ETag") as archive:
        for name in ("one", "two", "one", "two"):
            with GranuleReader(1) as reader:
                rows_of(reader, large_item(f"{archive.url}/{name}.tif"), 0)
    conditions = [headers.get("If-Match") for _, headers, _ in archive.asked]
    assert conditions.count(None) == 2, "of each file, which version it has"
    assert [status for _, _, status in archive.asked].count(412) == 1, "whether the server heeds it"


def test_threads_ask_a_server_once_and_keep_their_connections(tmp_path: Path) -> None:
    names = [f"{number}.tif" for number in range(8)]
    for name in names:
        write_large(tmp_path / "files" / name, 1000)
    with serving(tmp_path / "files", "strong ETag") as archive, ThreadPoolExecutor(4) as threads:
        hrefs = [f"{archive.url}/{name}" for name in names]
        taken = list(threads.map(lambda href: VERSIONS.access(href, access_to(href)), hrefs))
    assert all("If-Match" in access.options["GDAL_HTTP_HEADERS"] for access in taken)
    assert [status for _, _, status in archive.asked].count(412) == 1
    assert len(archive.ports) == 9
    assert len(set(archive.ports)) <= 4


def test_a_busy_server_is_asked_again_whether_it_heeds_versions(tmp_path: Path) -> None:
    path = tmp_path / "files/nir.tif"
    write_large(path, 1000)
    with serving(tmp_path / "files", "strong ETag") as archive:
        archive.busy = 1
        href = f"{archive.url}/nir.tif"
        assert "GDAL_HTTP_HEADERS" not in VERSIONS.access(href, access_to(href)).options
        # The same file as before, though now more is known of its server.
        assert "If-Match" in VERSIONS.access(href, access_to(href)).options["GDAL_HTTP_HEADERS"]
        with GranuleReader(1) as reader:
            assert rows_of(reader, large_item(href), 0) == {1000}


def test_a_server_that_answers_byte_by_byte_is_not_waited_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("H2CROP_READ_TIMEOUT", "0.5")
    path = tmp_path / "files/nir.tif"
    write_large(path, 1000)
    with serving(tmp_path / "files", "strong ETag") as archive:
        archive.is_quick.clear()
        end = threading.Timer(30, archive.is_quick.set)
        end.start()
        try:
            VERSIONS.check(f"{archive.url}/nir.tif", access_to(f"{archive.url}/nir.tif"))
            assert not archive.is_quick.is_set(), "it was waited for until its answer ended"
        finally:
            end.cancel()
            archive.is_quick.set()


def test_the_next_plan_looks_at_the_file_that_is_there_now(tmp_path: Path) -> None:
    path = tmp_path / "files/nir.tif"
    write_large(path, 1000)
    with serving(tmp_path / "files", "strong ETag") as archive:
        asset = large_item(f"{archive.url}/nir.tif").assets["nir"]
        for number in (1000, 2000):
            archive.replace(path, partial(write_large, number=number))
            pixels, _ = access.read_coarsely(asset, 100)
            assert set(np.unique(pixels).tolist()) == {number}


def test_a_bucket_is_asked_for_one_version(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    without_accounts(monkeypatch, tmp_path / "home")
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "maker")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "maker")
    with s3_server() as url, s3_proxy(url) as proxy, lender_installed():
        put_plainly(url, "lent")
        monkeypatch.setenv("LENDER_S3", proxy.url.removeprefix("http://"))
        keys: Any = {"access_key_id": "maker", "secret_access_key": "maker", "region": "us-east-1", "endpoint": url}
        bucket = S3Store("lent", config=keys, client_options={"allow_http": True})
        for number, name in ((1000, "nir.tif"), (1000, "red.tif"), (2000, "later.tif")):
            write_large(tmp_path / name, number)
            bucket.put(name, (tmp_path / name).read_bytes())
        for name in ("nir.tif", "red.tif", "nir.tif", "red.tif"):
            with GranuleReader(1) as reader:
                assert rows_of(reader, large_item(f"s3://lent/{name}"), 0) == {1000}
        conditions = [request.headers.get("if-match") for request in proxy.requests]
        assert conditions.count(ETAG_OF_NO_FILE) == 1, "whether the bucket heeds it"
        assert conditions.count(None) == 2, "of each file, which version it has"
        bucket.put("nir.tif", (tmp_path / "later.tif").read_bytes())
        with GranuleReader(1) as reader, pytest.raises(SceneError, match=REPLACED):
            rows_of(reader, large_item("s3://lent/nir.tif"), 1536)
        VERSIONS.forget()
        with GranuleReader(1) as reader:
            for first in (0, 1024):
                assert rows_of(reader, large_item("s3://lent/nir.tif"), first) == {2000}


def test_a_local_file_that_is_opened_again_is_the_same_or_refused(tmp_path: Path) -> None:
    path = tmp_path / "files/nir.tif"
    write_large(path, 1000)
    with GranuleReader(1) as reader:
        assert rows_of(reader, large_item(str(path)), 0) == {1000}
    write_large(path, 2000)
    with GranuleReader(1) as reader, pytest.raises(SceneError, match=REPLACED):
        rows_of(reader, large_item(str(path)), 0)


@pytest.mark.parametrize("place", ["here", "on a server"])
def test_the_stated_length_is_held_against_the_file(tmp_path: Path, place: str) -> None:
    path = tmp_path / "files/nir.tif"
    write_large(path, 1000)
    size = path.stat().st_size
    with serving(tmp_path / "files", "no ETag") as archive, GranuleReader(1) as reader:
        address = str(path) if place == "here" else f"{archive.url}/nir.tif"
        wrong, right = large_item(address, **{"file:size": size + 1}), large_item(address, **{"file:size": size})
        right.id = "right"
        assert rows_of(reader, wrong, 0) == rows_of(reader, right, 0) == {1000}
        told = f"`file:size` says {size + 1}, the file has {size}"
        assert reader.differences(wrong, ["nir"]) == {("large", "nir", told)}
        assert reader.differences(right, ["nir"]) == set()


def region_in_archive(region: TinyRegion, archive: Archive) -> None:
    """Scenes of July and August whose files lie in the archive."""
    region.add_sentinel2("july", "2022-07-01T10:50:00Z", 900)
    region.add_sentinel2("august", "2022-08-01T10:50:00Z", 1900)
    for item in region.sentinel2:
        for asset in item["assets"].values():
            asset["href"] = f"{archive.url}/{asset['href'].removeprefix('./')}"


def invert_classes(path: Path) -> None:
    """Write a classification anew in which all is cloud."""
    with rasterio.open(path) as raster:
        pixels, profile = raster.read(), raster.profile
    with rasterio.open(path, "w", **profile) as raster:
        raster.write(np.full_like(pixels, 9))


@pytest.mark.parametrize("kind", ["strong ETag, not heeded", "no ETag"])
def test_a_scene_replaced_between_masks_and_composites_fails_its_block_or_is_a_gap(
    region: TinyRegion, tmp_path: Path, kind: str
) -> None:
    with serving(region.folder, kind) as archive:
        region_in_archive(region, archive)
        path = region.folder / "sentinel2/july/scl.tif"

        class ReplacingStorage(LocalStorage):
            """The classification is replaced when all masks are made: before their rows are kept."""

            def replace(self, name: str, parts: Iterable[bytes]) -> None:
                if name.startswith(DATES_FOLDER):
                    archive.replace(path, invert_classes)
                super().replace(name, parts)

        clouds = {"clouds": {**CLASSES_ALONE, "dilation": 20}}
        with pytest.raises(BuildError, match=rf"july asset scl: .*july/scl\.tif {REPLACED}"):
            build_store(region.recipe(sentinel2=clouds), ReplacingStorage(tmp_path / "store"), workers=1)
        archive.replace(path, lambda path: region.add_sentinel2("july", "2022-07-01T10:50:00Z", 900))
        del region.sentinel2[-1]
        recorded = region.recipe(sentinel2={**clouds, "gaps": "record"})
        report = build_store(recorded, ReplacingStorage(tmp_path / "recorded"), workers=1)
        assert report.gaps == ["july"]
        season = h2crop_data.open(tmp_path / "recorded", 2022).load()
        assert (season.s2_clear.sel(month=7) == 0).all()
        assert (season.s2.sel(month=8, s2_band="B08") == 1901).all()


def test_the_next_build_takes_the_file_that_is_there_now(region: TinyRegion, tmp_path: Path) -> None:
    region.add_sentinel2("july", "2022-07-01T10:50:00Z", 900)
    build_store(region.recipe(), tmp_path / "first", workers=1)
    region.add_sentinel2("july", "2022-07-01T10:50:00Z", 1500)
    del region.sentinel2[-1]
    build_store(region.recipe(), tmp_path / "second", workers=1)
    season = h2crop_data.open(tmp_path / "second", 2022).load()
    assert (season.s2.sel(month=7, s2_band="B02") == 1500).all()
