"""A STAC API on this machine that searches honestly and page by page, and answers wrongly when it is told to."""

from __future__ import annotations

import contextlib
import json
import socket
import struct
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import datetime
from email.utils import formatdate
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import shapely

#: Writes something else than the right answer (bytes) to whoever asked.
Fault = Callable[[BaseHTTPRequestHandler, bytes], None]


class MisbehavingApi:
    """Items behind POST /search with intersects, datetime, collections, limit and tokens."""

    def __init__(self, items: list[dict[str, Any]], page_size: int) -> None:
        self.items, self.page_size = items, page_size
        #: Token of a page ("0" the first) -> what goes wrong when it is asked for, first to last.
        self.faults: dict[str, list[Fault]] = {}
        #: Changes a page (the document, its token) before it is sent.
        self.change: Callable[[dict[str, Any], str], dict[str, Any]] = lambda page, token: page
        #: Tokens of the pages that were asked for.
        self.asked: list[str] = []
        api = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_GET(self) -> None:
                send(self, json.dumps(api.root()).encode())

            def do_POST(self) -> None:
                wanted = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
                token = wanted.get("token", "0")
                api.asked.append(token)
                page = json.dumps(api.change(api.page(wanted, int(token)), token)).encode()
                planned = api.faults.get(token)
                # Whoever asked may be gone.
                with contextlib.suppress(OSError):
                    planned.pop(0)(self, page) if planned else send(self, page)

            def log_message(self, format: str, *args: Any) -> None:
                """Tests run quietly."""

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.server.daemon_threads = True
        self.url = f"http://127.0.0.1:{self.server.server_port}"

    def root(self) -> dict[str, Any]:
        """The landing page."""
        link = {"rel": "search", "href": f"{self.url}/search", "method": "POST", "type": "application/geo+json"}
        core = "https://api.stacspec.org/v1.0.0"
        return {
            "type": "Catalog",
            "id": "misbehaving",
            "stac_version": "1.0.0",
            "description": "a catalog of a test",
            "conformsTo": [f"{core}/core", f"{core}/item-search"],
            "links": [link],
        }

    def page(self, wanted: dict[str, Any], first: int) -> dict[str, Any]:
        """The items that match from a number on."""
        start, end = (datetime.fromisoformat(text) for text in wanted["datetime"].split("/"))
        area = shapely.geometry.shape(wanted["intersects"])
        found = [
            item
            for item in self.items
            if item["collection"] in wanted["collections"]
            and start <= datetime.fromisoformat(item["properties"]["datetime"]) <= end
            and shapely.intersects(area, shapely.geometry.shape(item["geometry"]))
        ]
        last = first + min(self.page_size, wanted["limit"])
        token = {"token": str(last)}
        link = {"rel": "next", "href": f"{self.url}/search", "method": "POST", "body": token, "merge": True}
        return {
            "type": "FeatureCollection",
            "numberMatched": len(found),
            "features": found[first:last],
            "links": [link] if last < len(found) else [],
        }


@contextmanager
def misbehaving_api(items: list[dict[str, Any]], page_size: int = 3) -> Iterator[MisbehavingApi]:
    """Such an API while it runs."""
    api = MisbehavingApi(items, page_size)
    thread = threading.Thread(target=api.server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    try:
        yield api
    finally:
        api.server.shutdown()
        thread.join()
        api.server.server_close()


def send(
    handler: BaseHTTPRequestHandler, body: bytes, status: int = 200, length: int | None = None, **headers: str
) -> None:
    """An answer; `_` in the name of a header stands for a hyphen. length: what it says of its length."""
    handler.send_response(status)
    handler.send_header("Content-Type", "application/geo+json")
    handler.send_header("Content-Length", str(len(body) if length is None else length))
    for name, value in headers.items():
        handler.send_header(name.replace("_", "-"), value)
    handler.end_headers()
    handler.wfile.write(body)
    handler.wfile.flush()


def status(code: int, **headers: str) -> Fault:
    """An answer of a status."""
    return lambda handler, page: send(handler, b"busy", code, **headers)


def busy_until_a_date(handler: BaseHTTPRequestHandler, page: bytes) -> None:
    """429 with the date, two seconds from now, at which to come back."""
    send(handler, b"busy", 429, Retry_After=formatdate(time.time() + 2, usegmt=True))


def closed_early(handler: BaseHTTPRequestHandler, page: bytes) -> None:
    """Half of the answer, then the connection ends."""
    send(handler, page[: len(page) // 2], length=len(page))
    handler.close_connection = True


def reset(handler: BaseHTTPRequestHandler) -> None:
    """End a connection as a router does that was switched off."""
    handler.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    handler.connection.close()
    handler.close_connection = True


def reset_in_body(handler: BaseHTTPRequestHandler, page: bytes) -> None:
    """Half of the answer, then a reset."""
    send(handler, page[: len(page) // 2], length=len(page))
    time.sleep(0.05)
    reset(handler)


def reset_at_once(handler: BaseHTTPRequestHandler, page: bytes) -> None:
    """A reset instead of an answer."""
    reset(handler)


def cut_chunks(handler: BaseHTTPRequestHandler, page: bytes) -> None:
    """A chunked answer without its end."""
    handler.send_response(200)
    handler.send_header("Transfer-Encoding", "chunked")
    handler.end_headers()
    half = page[: len(page) // 2]
    handler.wfile.write(b"%x\r\n%b\r\n" % (len(half), half))
    handler.close_connection = True


def wrong_length(handler: BaseHTTPRequestHandler, page: bytes) -> None:
    """An answer that says it is shorter than it is."""
    send(handler, page, length=len(page) - 7)
    handler.close_connection = True


def cut_without_length(handler: BaseHTTPRequestHandler, page: bytes) -> None:
    """Half of an answer that ends with the connection, as those of old servers do."""
    handler.send_response(200)
    handler.send_header("Connection", "close")
    handler.end_headers()
    handler.wfile.write(page[: len(page) // 2])
    handler.close_connection = True


def damaged_gzip(handler: BaseHTTPRequestHandler, page: bytes) -> None:
    """Bytes that are said to be compressed and are not."""
    send(handler, page, Content_Encoding="gzip")


def silence(handler: BaseHTTPRequestHandler, page: bytes) -> None:
    """No answer for a while, and then none."""
    time.sleep(1.5)
    handler.close_connection = True


def slow_bytes(handler: BaseHTTPRequestHandler, page: bytes) -> None:
    """An answer that comes byte by byte: no wait is long, all together are."""
    send(handler, b"", length=len(page))
    for place in range(60):
        handler.wfile.write(page[place : place + 1])
        handler.wfile.flush()
        time.sleep(0.05)
    handler.close_connection = True


def slow_head(handler: BaseHTTPRequestHandler, page: bytes) -> None:
    """The same of what comes before an answer."""
    handler.wfile.write(b"HTTP/1.1 200 OK\r\nX-Slow: ")
    for _ in range(60):
        handler.wfile.write(b"x")
        handler.wfile.flush()
        # Not by `time.sleep`: whoever asked is gone before it ends, and the next test may replace that.
        threading.Event().wait(0.05)
    handler.close_connection = True


FAULTS: dict[str, Fault] = {
    "429": status(429),
    "429, come back in seconds": status(429, Retry_After="1"),
    "429, come back at a date": busy_until_a_date,
    "503, come back in words": status(503, Retry_After="soon"),
    "500": status(500),
    "closed early": closed_early,
    "reset in the body": reset_in_body,
    "reset at once": reset_at_once,
    "chunks without end": cut_chunks,
    "wrong length": wrong_length,
    "cut without length": cut_without_length,
    "damaged gzip": damaged_gzip,
    "silence": silence,
    "slow bytes": slow_bytes,
    "slow head": slow_head,
}
