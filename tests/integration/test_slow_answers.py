"""Files on servers that send so slowly that no wait is long and all together have no end."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Event, Thread
from types import SimpleNamespace
from typing import Any, cast

import pytest
from misbehaving_api import send

from h2crop_data.catalog.access import read_beginning, read_text
from h2crop_data.catalog.answers import LateAnswerError, pieces_by
from h2crop_data.catalog.catalog_files import content_of
from h2crop_data.errors import CatalogError, ReadError

#: Seconds that whoever asks waits for the next bytes; a whole file may take five times as many.
PATIENCE = 0.2


@contextmanager
def dripping(part: str) -> Iterator[str]:
    """The URL of a file of which the head or the body comes byte by byte, as long as the server runs."""
    ended = Event()

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            if part == "body":
                send(self, b"", length=10**6)
            else:
                self.wfile.write(b"HTTP/1.1 200 OK\r\nX-Slow: ")
            with suppress(OSError):
                while not ended.wait(0.05):
                    self.wfile.write(b"x")

        def log_message(self, format: str, *args: Any) -> None:
            """Tests run quietly."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    thread = Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}/items.json"
    finally:
        ended.set()
        server.shutdown()
        thread.join()
        server.server_close()


@pytest.mark.parametrize(("part", "told"), [("body", "did not end in time"), ("head", "no answer began in time")])
@pytest.mark.parametrize(
    ("read", "error"),
    [(content_of, CatalogError), (read_text, ReadError), (lambda url: read_beginning(url, b"</x>"), ReadError)],
)
def test_they_are_given_up(
    monkeypatch: pytest.MonkeyPatch, read: Callable[[str], Any], error: type[Exception], part: str, told: str
) -> None:
    monkeypatch.setenv("H2CROP_READ_PAUSES", "none")
    monkeypatch.setenv("H2CROP_READ_TIMEOUT", str(PATIENCE))
    with dripping(part) as url, pytest.raises(error, match=f"cannot read {url}: .*{told}"):
        read(url)


@pytest.mark.parametrize(("speed", "is_late"), [(500, False), (2000, True)])
def test_large_files_take_their_time_where_they_come_fast_enough(speed: float, is_late: bool) -> None:
    """Here 1000 bytes come every second."""
    left = [b"x" * 1000] * 10
    seconds = iter(range(1, 20))
    raw = SimpleNamespace(read1=lambda size, decode_content: left.pop() if left else b"")
    pieces = pieces_by(3.0, cast(Any, SimpleNamespace(raw=raw)), 1 / speed, clock=lambda: float(next(seconds)))
    if is_late:
        with pytest.raises(LateAnswerError):
            list(pieces)
        assert left, "it is given up before its end"
    else:
        assert len(b"".join(pieces)) == 10_000
