"""Archives that fail while scenes are read: tried again where it helps, then an error or a gap, never a hole."""

from __future__ import annotations

import re
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
from tiny_region import TinyRegion

import h2crop_data
from h2crop_data.pipeline.build import build_store
from h2crop_data.pipeline.engine import BuildError
from h2crop_data.validation.validate import validate_store

PAGE = b"<!DOCTYPE html><html><head><title>Sign in</title></head><body></body></html>"
#: Seconds after which a request is given up here.
PATIENCE = 0.3


@dataclass
class FailingArchive:
    """A folder over HTTP with byte ranges, of which some files go wrong in one way, so many times."""

    folder: Path
    #: Which paths go wrong, how, and how many requests still do.
    wrong: str = "^$"
    how: str = ""
    times: int = 0
    url: str = ""
    asked: list[str] = field(default_factory=list)
    lock: threading.Lock = field(default_factory=threading.Lock)

    def fault(self, path: str) -> str:
        """What goes wrong with this request; empty for nothing."""
        with self.lock:
            self.asked.append(path)
            if not re.search(self.wrong, path) or self.times <= 0:
                return ""
            self.times -= 1
            return self.how


class FailingHandler(BaseHTTPRequestHandler):
    """Answers of such an archive."""

    archive: FailingArchive

    def do_HEAD(self) -> None:
        """The same without the body."""
        self.do_GET()

    def do_GET(self) -> None:
        """A file, a part of it, or what goes wrong."""
        how = self.archive.fault(self.path)
        content = (self.archive.folder / self.path.lstrip("/")).read_bytes()
        if how.isdigit():
            self.reply(int(how), b"")
        elif how == "login page":
            self.reply(200, PAGE, {"Content-Type": "text/html"})
        else:
            if how == "truncated":
                content = content[: len(content) // 2]
            self.give(content, how)

    def give(self, content: bytes, how: str) -> None:
        """A file or the part that is asked for."""
        wanted = re.fullmatch(r"bytes=(\d+)-(\d*)", self.headers.get("Range", ""))
        if wanted is None:
            self.reply(200, content, {"Accept-Ranges": "bytes"}, how)
            return
        first, last = int(wanted[1]), min(int(wanted[2] or len(content)), len(content) - 1)
        if first > last:
            self.reply(416, b"", {"Content-Range": f"bytes */{len(content)}"})
            return
        span = {"Content-Range": f"bytes {first}-{last}/{len(content)}"}
        self.reply(206, content[first : last + 1], span, how)

    def reply(self, status: int, body: bytes, headers: dict[str, str] | None = None, how: str = "") -> None:
        """An answer."""
        self.send_response(status)
        for name, value in (headers or {}).items():
            self.send_header(name, value)
        if how == "wrong length":
            # Complete by what it says, and yet half of the range.
            body = body[: len(body) // 2]
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if self.command == "HEAD":
            return
        if how == "slow bytes":
            time.sleep(3 * PATIENCE)
        self.wfile.write(body[: len(body) // 3] if how == "reset" else body)
        if how == "reset":
            self.wfile.flush()
            self.close_connection = True
            self.connection.shutdown(2)

    def log_message(self, format: str, *args: Any) -> None:
        """Tests run quietly."""


@pytest.fixture
def archive(region: TinyRegion, monkeypatch: pytest.MonkeyPatch) -> Iterator[FailingArchive]:
    """The folder of the region as an archive; three tries follow each other at once."""
    monkeypatch.setenv("H2CROP_READ_PAUSES", "0,0")
    monkeypatch.setenv("H2CROP_READ_TIMEOUT", str(PATIENCE))
    found = FailingArchive(region.folder)
    handler = type("Handler", (FailingHandler,), {"archive": found})
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        found.url = f"http://127.0.0.1:{server.server_port}"
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield found
        server.shutdown()
        thread.join()


def of_archive(region: TinyRegion, archive: FailingArchive) -> None:
    """Two scenes whose files lie in the archive: of July and of August."""
    region.add_sentinel2("july", "2022-07-01T10:50:00Z", 900)
    region.add_sentinel2("august", "2022-08-01T10:50:00Z", 1900)
    for item in region.sentinel2:
        for asset in item["assets"].values():
            asset["href"] = f"{archive.url}/{asset['href'].removeprefix('./')}"


CUT_SHORT = r"got .* bytes, expected \d+ .*truncated or damaged"
#: What goes wrong -> what is said of it.
FAULTS = {"429": "429", "503": "503", "404": "404", "login page": "a login page", "truncated": CUT_SHORT}
FAULTS |= {"reset": CUT_SHORT, "wrong length": CUT_SHORT, "slow bytes": "no answer in time"}


@pytest.mark.parametrize("how", list(FAULTS))
def test_what_passes_is_no_failure(region: TinyRegion, archive: FailingArchive, tmp_path: Path, how: str) -> None:
    of_archive(region, archive)
    archive.wrong, archive.how, archive.times = r"july/nir\.tif", how, 2
    report = build_store(region.recipe(), tmp_path / "store", workers=1)
    assert archive.times == 0, "it went wrong"
    assert report.gaps == []
    season = h2crop_data.open(tmp_path / "store", 2022).load()
    assert (season.s2.sel(month=7, s2_band="B08") == 901).all()


@pytest.mark.parametrize("how", list(FAULTS))
def test_what_stays_is_an_error_or_a_recorded_gap_and_the_same_bytes_afterwards(
    region: TinyRegion, archive: FailingArchive, tmp_path: Path, how: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("H2CROP_READ_PAUSES", "none")
    of_archive(region, archive)
    archive.wrong, archive.how, archive.times = r"july/nir\.tif", how, 10**9
    with pytest.raises(BuildError, match=rf"july asset nir .{archive.url}/sentinel2/july/nir\.tif.: .*{FAULTS[how]}"):
        build_store(region.recipe(), tmp_path / "store", workers=1)
    recorded = region.recipe(sentinel2={"gaps": "record"})
    report = build_store(recorded, tmp_path / "recorded", workers=1)
    assert report.gaps == ["july"]
    season = h2crop_data.open(tmp_path / "recorded", 2022).load()
    # Nothing of the scene is used, also of the bands that could be read.
    assert (season.s2_clear.sel(month=7) == 0).all()
    assert (season.s2.sel(month=8, s2_band="B08") == 1901).all()
    # The archive is healthy again: the same plan goes on, and gives what another one gives from the beginning.
    archive.times = 0
    build_store(region.recipe(), tmp_path / "store", workers=1)
    build_store(region.recipe(), tmp_path / "healthy", workers=1)
    assert validate_store(tmp_path / "store").findings == []
    assert chunks_of(tmp_path / "store") == chunks_of(tmp_path / "healthy")


@pytest.mark.parametrize(
    ("name", "how"),
    [("blue", "404"), ("blue", "truncated"), ("swir16", "login page"), ("scl", "reset"), ("scl", "truncated")],
)
def test_it_is_the_same_whichever_file_of_a_scene_fails(
    region: TinyRegion, archive: FailingArchive, tmp_path: Path, name: str, how: str
) -> None:
    of_archive(region, archive)
    archive.wrong, archive.how, archive.times = rf"july/{name}\.tif", how, 10**9
    said = rf"july asset {name} .{archive.url}/sentinel2/july/{name}\.tif.: .*{FAULTS[how]}"
    with pytest.raises(BuildError, match=said):
        build_store(region.recipe(), tmp_path / "store", workers=1)
    report = build_store(region.recipe(sentinel2={"gaps": "record"}), tmp_path / "recorded", workers=1)
    assert report.gaps == ["july"]
    season = h2crop_data.open(tmp_path / "recorded", 2022).load()
    assert (season.s2_clear.sel(month=7) == 0).all()
    assert (season.s2.sel(month=8, s2_band="B08") == 1901).all()


def chunks_of(store: Path) -> dict[str, bytes]:
    """The bytes of every shard of a store, by its place."""
    found = {
        path.relative_to(store).as_posix(): path.read_bytes()
        for path in store.rglob("c.*")
        if ".build" not in path.parts
    }
    assert found
    return found
