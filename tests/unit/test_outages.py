"""A server that is down or busy is told from a wrong address, account, file or collection."""

from __future__ import annotations

import json
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
import shapely
from urllib3.util.retry import Retry

from h2crop_data.catalog.access import raster_geobox, read_text, retried
from h2crop_data.catalog.search import find_items
from h2crop_data.errors import ArchiveOutageError, CatalogError, CatalogOutageError, ReadError, UsageError

ONCE = Retry(total=0, status_forcelist=(429, 500, 502, 503, 504))
AREA = shapely.box(3.0, 50.0, 3.1, 50.1)
DAYS = datetime(2022, 1, 1, tzinfo=UTC), datetime(2023, 1, 1, tzinfo=UTC)


@contextmanager
def answering(status: int, body: bytes = b"") -> Iterator[str]:
    """The URL of a server that gives one answer to everything."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(status)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            if self.command != "HEAD":
                self.wfile.write(body)

        do_POST = do_HEAD = do_GET  # noqa: N815

        def log_message(self, *_: Any) -> None:
            """Tests run quietly."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05})
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


def nobody() -> str:
    """A URL at which nobody answers."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return f"http://127.0.0.1:{probe.getsockname()[1]}"


@pytest.fixture(autouse=True)
def at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """Files are tried once."""
    monkeypatch.setenv("H2CROP_READ_PAUSES", "none")


def search(url: str) -> None:
    find_items(url, "sentinel-2-l2a", AREA, *DAYS, retries=ONCE)


def list_file(url: str) -> None:
    find_items(f"{url}/items.json", "sentinel-2-l2a", AREA, *DAYS)


class TestCatalogs:
    @pytest.mark.parametrize("status", [408, 429, 500, 502, 503, 504, 520])
    @pytest.mark.parametrize("ask", [search, list_file])
    def test_one_that_is_down_or_busy_is_an_outage(self, ask: Callable[[str], None], status: int) -> None:
        with answering(status) as url, pytest.raises(CatalogOutageError, match=url):
            ask(url)

    @pytest.mark.parametrize("ask", [search, list_file])
    def test_one_that_does_not_answer_is_an_outage(self, ask: Callable[[str], None]) -> None:
        url = nobody()
        with pytest.raises(CatalogOutageError, match=url):
            ask(url)

    @pytest.mark.parametrize("status", [400, 401, 403, 404])
    @pytest.mark.parametrize("ask", [search, list_file])
    def test_a_refusal_is_none(self, ask: Callable[[str], None], status: int) -> None:
        with answering(status) as url, pytest.raises(CatalogError, match=url) as raised:
            ask(url)
        assert not isinstance(raised.value, CatalogOutageError)

    @pytest.mark.parametrize("body", [b"<html>Please sign in</html>", b"[]", b'{"type": "FeatureCollection"}'])
    @pytest.mark.parametrize("ask", [search, list_file])
    def test_something_else_than_stac_is_none(self, ask: Callable[[str], None], body: bytes) -> None:
        with answering(200, body) as url, pytest.raises(CatalogError, match=url) as raised:
            ask(url)
        assert not isinstance(raised.value, CatalogOutageError)

    @pytest.mark.parametrize("text", [None, "{", json.dumps({"features": 3})])
    def test_a_file_that_is_missing_or_damaged_is_none(self, tmp_path: Path, text: str | None) -> None:
        path = tmp_path / "items.json"
        if text is not None:
            path.write_text(text, encoding="utf-8")
        with pytest.raises(CatalogError, match=str(path)) as raised:
            find_items(str(path), "sentinel-2-l2a", AREA, *DAYS)
        assert not isinstance(raised.value, CatalogOutageError)

    @pytest.mark.parametrize("url", ["http://bad host/v1"])
    def test_an_address_that_makes_no_sense_is_none(self, url: str) -> None:
        with pytest.raises(CatalogError) as raised:
            search(url)
        assert not isinstance(raised.value, CatalogOutageError)


class TestFiles:
    @pytest.mark.parametrize("status", [408, 429, 500, 502, 503, 504])
    @pytest.mark.parametrize("read", [read_text, raster_geobox])
    def test_a_server_that_is_down_or_busy_is_an_outage(self, read: Callable[[str], object], status: int) -> None:
        with answering(status) as url, pytest.raises(ArchiveOutageError, match=f"{url}/scene.tif"):
            read(f"{url}/scene.tif")

    @pytest.mark.parametrize("read", [read_text, raster_geobox])
    def test_one_that_does_not_answer_is_an_outage(self, read: Callable[[str], object]) -> None:
        url = nobody()
        with pytest.raises(ArchiveOutageError, match=f"{url}/scene.tif"):
            read(f"{url}/scene.tif")

    @pytest.mark.parametrize("status", [401, 403, 404, 410])
    @pytest.mark.parametrize("read", [read_text, raster_geobox])
    def test_a_refusal_is_none(self, read: Callable[[str], object], status: int) -> None:
        with answering(status) as url, pytest.raises(ReadError, match=f"{url}/scene.tif") as raised:
            read(f"{url}/scene.tif")
        assert not isinstance(raised.value, ArchiveOutageError)

    def test_a_file_that_is_no_raster_is_none(self, tmp_path: Path) -> None:
        (tmp_path / "scene.tif").write_bytes(b"no raster")
        with answering(200, b"no raster") as url:
            for place in (f"{url}/scene.tif", str(tmp_path / "scene.tif"), str(tmp_path / "none.tif")):
                with pytest.raises(ReadError) as raised:
                    raster_geobox(place)
                assert not isinstance(raised.value, ArchiveOutageError)


@pytest.mark.parametrize(("pauses", "asked"), [("none", 1), ("0", 2), ("0,0,0", 4)])
def test_the_environment_says_how_often_a_file_is_tried(
    pauses: str, asked: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("H2CROP_READ_PAUSES", pauses)
    tries: list[int] = []

    def read() -> None:
        tries.append(1)
        raise ConnectionError("refused")

    with pytest.raises(ArchiveOutageError):
        retried(read, "a file", remote=True)
    assert len(tries) == asked
    tries.clear()
    with pytest.raises(ArchiveOutageError):
        retried(read, "a file", remote=True, tries=2)
    assert len(tries) == min(2, asked)
    tries.clear()
    with pytest.raises(ReadError):
        retried(read, "a file", remote=False)
    assert len(tries) == 1


@pytest.mark.parametrize("pauses", ["1,x", "-1", "nan", "inf", "1,,2"])
def test_invalid_pauses_are_refused(pauses: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("H2CROP_READ_PAUSES", pauses)
    with pytest.raises(UsageError, match=r"H2CROP_READ_PAUSES is .*: expected seconds by commas, as 1,4,15, or none"):
        retried(dict, "a file", remote=True)
