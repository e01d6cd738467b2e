"""Every try that fails and is followed by another is in the log before that one begins, whatever is asked for."""

from __future__ import annotations

import asyncio
import json
import logging
import os
import re
import signal
import threading
import time
from collections.abc import AsyncIterator, Callable, Iterator
from datetime import UTC, datetime, timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from pystac_client.stac_api_io import StacApiIO
from tiny_region import NORTH, WEST, write_raster
from urllib3.util.retry import Retry
from zarr.core.buffer import Buffer, default_buffer_prototype

from h2crop_data.catalog.access import read_text, read_window, retried
from h2crop_data.catalog.accounts import S3Keys
from h2crop_data.catalog.api_reader import ApiReader, ReportedRetry
from h2crop_data.catalog.downloads import FileCache
from h2crop_data.catalog.file_access import object_pieces
from h2crop_data.catalog.provider import S3Access
from h2crop_data.catalog.providers.planetary_computer import signed_for_azure
from h2crop_data.errors import H2cropError, StoreError
from h2crop_data.storage.requests import Patience
from h2crop_data.storage.s3 import ObjectStorage, ReadableObjects, s3_zarr_store

#: What a server is asked with, and the log must not say.
SECRET = "hunter2-0123456789"
#: What every address is answered with: an answer of an API, a signature, a file.
ANSWER = {
    "type": "Catalog",
    "token": "st=1",
    "msft:expiry": f"{datetime.now(UTC) + timedelta(hours=1):%Y-%m-%dT%H:%M:%SZ}",
}
BODY = json.dumps(ANSWER).encode()
#: What a bucket answers that is asked for its objects.
LISTING = b"""<?xml version="1.0" encoding="UTF-8"?>
<ListBucketResult xmlns="http://s3.amazonaws.com/doc/2006-03-01/"><Name>bucket</Name><Prefix>store/</Prefix>
<KeyCount>1</KeyCount><MaxKeys>1000</MaxKeys><IsTruncated>false</IsTruncated>
<Contents><Key>store/2022/zarr.json</Key><LastModified>2022-01-01T00:00:00.000Z</LastModified><ETag>"1"</ETag>
<Size>7</Size><StorageClass>STANDARD</StorageClass></Contents></ListBucketResult>"""


class BusyServer:
    """A server that is busy the first time it is asked."""

    def __init__(self, body: bytes, first: int = 503, **headers: str) -> None:
        """body: of the answers that follow. first: the status of the first answer, which has the headers."""
        #: When each request came and when it was answered, on the clock of `time.time`, with its status.
        self.answers: list[tuple[float, float, int]] = []
        busy = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_GET(self) -> None:
                came = time.time()
                status = 200 if any(status == first for *_, status in busy.answers) else first
                busy.answers.append((came, time.time(), status))
                self.send_response(status)
                whole = LISTING if "list-type" in self.path else body
                sent = whole if status == 200 else b""
                for name, value in headers.items() if status == first else ():
                    self.send_header(name.replace("_", "-"), value)
                self.send_header("Last-Modified", "Sat, 01 Jan 2022 00:00:00 GMT")
                self.send_header("ETag", '"1"')
                self.send_header("Content-Length", str(len(sent)))
                self.end_headers()
                if self.command != "HEAD":
                    self.wfile.write(sent)

            do_HEAD = do_GET  # noqa: N815

            def log_message(self, format: str, *args: object) -> None:
                """Tests run quietly."""

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.server.daemon_threads = True
        self.thread = threading.Thread(target=self.server.serve_forever, kwargs={"poll_interval": 0.01})
        self.thread.start()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server.server_port}"

    def close(self) -> None:
        self.server.shutdown()
        self.thread.join()
        self.server.server_close()


@pytest.fixture
def bucket(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Callable[..., BusyServer]]:
    """Starts a server, which is that of all buckets and of signatures then."""
    servers = []

    def start(**options: Any) -> BusyServer:
        servers.append(server := BusyServer(BODY, **options))
        monkeypatch.setenv("PC_SDK_SAS_URL", f"{server.url}/token")
        monkeypatch.setenv("AWS_ENDPOINT_URL", server.url)
        return server

    monkeypatch.setenv("no_proxy", "127.0.0.1")
    monkeypatch.setenv("HOME", str(tmp_path))
    for name in ("AWS_ENDPOINT_URL_S3", "AWS_ENDPOINT", "AWS_PROFILE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("AWS_ALLOW_HTTP", "true")
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "anyone")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", SECRET)
    yield start
    for server in servers:
        server.close()


@pytest.fixture
def busy(bucket: Callable[..., BusyServer]) -> BusyServer:
    return bucket()


def ask_api(url: str, folder: Path) -> None:
    ApiReader(Retry(total=2, backoff_factor=0.1, status_forcelist=(503,))).request(f"{url}/search?token={SECRET}")


def check_provider(url: str, folder: Path) -> None:
    retries = ReportedRetry(total=2, backoff_factor=0.1, status_forcelist=(503,))
    StacApiIO(max_retries=retries).read_text(f"{url}/?token={SECRET}")


def sign(url: str, folder: Path) -> None:
    pytest.importorskip("planetary_computer")
    from planetary_computer import sas, settings

    try:
        settings.Settings.get.cache_clear()
        sas.TOKEN_CACHE.clear()
        signed_for_azure("https://sentinel2l2a01.blob.core.windows.net/sentinel2-l2/60/B02.tif")
    finally:
        settings.Settings.get.cache_clear()
        sas.TOKEN_CACHE.clear()


def read_file(url: str, folder: Path) -> None:
    read_text(f"{url}/metadata.xml?sig={SECRET}")


def read_archive_bucket(url: str, folder: Path) -> None:
    access = S3Access(url.removeprefix("http://"), "", https=False)
    list(object_pieces("s3://bucket/a.xml", access, S3Keys("anyone", SECRET, ""), 100, 10))


def download(url: str, folder: Path) -> None:
    FileCache(folder, pauses=(0.1,)).fetch(f"{url}/notes.txt?sig={SECRET}")


def read_store(url: str, folder: Path) -> None:
    ObjectStorage("s3://bucket/store", Patience(retry=5)).read("zarr.json")


def read_zarr(store: ReadableObjects) -> object:
    return store.get("zarr.json", default_buffer_prototype())


def read_zarr_ranges(store: ReadableObjects) -> object:
    return store.get_partial_values(default_buffer_prototype(), [("zarr.json", None)])


def find_zarr(store: ReadableObjects) -> object:
    return store.exists("zarr.json")


def measure_zarr(store: ReadableObjects) -> object:
    return store.getsize("zarr.json")


def measure_zarr_group(store: ReadableObjects) -> object:
    return store.getsize_prefix("2022")


def list_zarr(store: ReadableObjects) -> object:
    return store.list()


def list_zarr_prefix(store: ReadableObjects) -> object:
    return store.list_prefix("2022")


def list_zarr_group(store: ReadableObjects) -> object:
    return store.list_dir("2022")


#: What Zarr asks a store for -> the answer to it. Of bytes, how many there are.
ASKED_BY_ZARR = {
    read_zarr: len(BODY),
    read_zarr_ranges: [len(BODY)],
    find_zarr: True,
    measure_zarr: len(BODY),
    measure_zarr_group: 7,
    list_zarr: ["2022/zarr.json"],
    list_zarr_prefix: ["2022/zarr.json"],
    list_zarr_group: ["zarr.json"],
}


def answer_of(ask: Callable[[ReadableObjects], object]) -> object:
    """What a store of Zarr in the bucket answers; bytes as their number."""

    async def answer() -> object:
        found = ask(s3_zarr_store("s3://bucket/store"))
        return [name async for name in found] if isinstance(found, AsyncIterator) else await found  # type: ignore[misc]

    def plain(found: object) -> object:
        return len(found) if isinstance(found, Buffer) else found

    found = asyncio.run(answer())
    return [plain(one) for one in found] if isinstance(found, list) else plain(found)


def asked_by_zarr(ask: Callable[[ReadableObjects], object]) -> Callable[[str, Path], None]:
    """Ask for it and check the answer."""

    def asked(url: str, folder: Path) -> None:
        assert answer_of(ask) == ASKED_BY_ZARR[ask]

    asked.__name__ = ask.__name__
    return asked


@pytest.mark.parametrize(
    "ask",
    [
        *(ask_api, check_provider, sign, read_file, read_archive_bucket, download, read_store),
        *map(asked_by_zarr, ASKED_BY_ZARR),
    ],
    ids=lambda ask: ask.__name__,
)
def test_a_try_that_fails_is_in_the_log_before_the_next_one(
    ask: Callable[[str, Path], None], busy: BusyServer, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    ask(busy.url, tmp_path / "cache")
    assert [status for *_, status in busy.answers] == [503, 200]
    [line] = [one for one in caplog.records if getattr(one, "event", "") == "retry"]
    (_, refused, _), (again, _, _) = busy.answers
    assert refused <= line.created <= again
    assert line.levelno == logging.WARNING
    assert line.name.startswith("h2crop_data.")
    text = line.getMessage()
    assert re.search(r".+: attempt 1( of \d)? failed: .*503.*; next attempt in \d\.\d s$", text)
    assert again - line.created >= 0.9 * getattr(line, "seconds", 99)
    assert SECRET not in caplog.text


@pytest.mark.parametrize("ask", ASKED_BY_ZARR, ids=lambda ask: ask.__name__)
def test_an_answer_that_no_other_try_changes_is_an_error_of_the_store(
    ask: Callable[[ReadableObjects], object], bucket: Callable[..., BusyServer]
) -> None:
    server = bucket(first=403)
    with pytest.raises(StoreError, match=r"cannot (read|list) s3://bucket/store.*AWS_ACCESS_KEY_ID"):
        answer_of(ask)
    assert [status for *_, status in server.answers] == [403]


@pytest.mark.parametrize("ask", ASKED_BY_ZARR, ids=lambda ask: ask.__name__)
def test_a_forked_process_is_refused_before_it_asks(
    ask: Callable[[ReadableObjects], object], bucket: Callable[..., BusyServer]
) -> None:
    server = bucket()
    answer_of(read_zarr)
    asked_before = len(server.answers)
    child = os.fork()
    if child == 0:
        signal.alarm(20)
        code = 9
        try:
            answer_of(ask)
        except StoreError as error:
            code = 7 if "forked" in str(error) else 8
        finally:
            os._exit(code)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 7
    assert len(server.answers) == asked_before


def test_a_server_that_asks_to_wait_is_named_with_the_time(caplog: pytest.LogCaptureFixture) -> None:
    server = BusyServer(b"{}", Retry_After="1")
    try:
        ApiReader().request(f"{server.url}/search", "GET")
    finally:
        server.close()
    assert caplog.messages == [
        f"GET {server.url}/search: attempt 1 of 6 failed: HTTP 503, which asks to wait (Retry-After); "
        "next attempt in 1.0 s"
    ]
    assert caplog.records[0].created <= server.answers[1][0] - 0.9


def test_what_gdal_asks_again_for_is_in_the_log_too(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    file = tmp_path / "scene.tif"
    write_raster(file, np.full((1, 32, 32), 7, np.uint16), WEST, NORTH, 10, 0)
    server = BusyServer(file.read_bytes())
    try:
        pixels, _ = read_window(f"{server.url}/scene.tif?sig={SECRET}")
    finally:
        server.close()
    assert (pixels == 7).all()
    [line] = [one for one in caplog.records if "Retrying again in 1.0 secs" in one.getMessage()]
    assert (line.name, line.levelno) == ("rasterio._env", logging.WARNING)
    first = next(i for i, (*_, status) in enumerate(server.answers) if status == 503)
    assert server.answers[first][1] <= line.created <= server.answers[first + 1][0]
    assert SECRET not in caplog.text


def test_the_last_try_is_no_retry(caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch) -> None:
    def read() -> None:
        raise OSError("HTTP 503")

    monkeypatch.setenv("H2CROP_READ_PAUSES", "0,0")
    with pytest.raises(H2cropError, match="cannot read a scene"):
        retried(read, "a scene", remote=True)
    assert [line.partition(" failed")[0] for line in caplog.messages] == [
        "reading a scene: attempt 1 of 3",
        "reading a scene: attempt 2 of 3",
    ]
