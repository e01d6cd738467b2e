"""An archive on this machine that wants an account and misbehaves as archives do."""

from __future__ import annotations

import base64
import hashlib
import re
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

LOGIN_PAGE = b"<!DOCTYPE html>\n<html><head><title>Sign in</title></head><body></body></html>"
USER, PASSWORD = "somebody", "correct horse"
COOKIE = "session=abc123"


@dataclass(frozen=True)
class Misbehaviour:
    """What goes wrong with one answer."""

    #: Sent instead of the file.
    status: int = 0
    body: bytes = b""
    content_type: str = "text/html"
    #: The connection is closed after so many bytes of the body; None: not at all.
    stop_after: int | None = None
    #: The body ends there, and the answer says that this is all of it.
    short: int | None = None
    #: No Content-Length, no ETag.
    silent: bool = False
    #: Called before and after the answer.
    first: Callable[[], None] = lambda: None
    then: Callable[[], None] = lambda: None


@dataclass
class Archive:
    """Files by path, and who may have them: anyone, or those with the account, or with the cookie."""

    files: dict[str, bytes] = field(default_factory=dict)
    protection: str = ""
    #: Whether parts of files are served.
    ranges: bool = True
    #: What goes wrong with the next answers for a path, first to last; None: nothing.
    plan: dict[str, list[Misbehaviour | None]] = field(default_factory=dict)
    #: What was asked for: path, Range, whether an account or cookie was sent.
    asked: list[tuple[str, str, bool]] = field(default_factory=list)
    #: Bytes of bodies that were sent.
    sent: int = 0
    url: str = ""

    @property
    def paths(self) -> list[str]:
        """The paths asked for."""
        return [path for path, _, _ in self.asked]


class Handler(BaseHTTPRequestHandler):
    """Answers of an archive."""

    archive: Archive

    def do_HEAD(self) -> None:
        """The same without the body."""
        self.do_GET()

    def do_GET(self) -> None:
        """Send a file, a part of it, or what goes wrong."""
        archive = self.archive
        known = "Authorization" in self.headers or "Cookie" in self.headers
        archive.asked.append((self.path, self.headers.get("Range", ""), known))
        planned = archive.plan.get(self.path)
        wrong = (planned.pop(0) if planned else None) or Misbehaviour()
        wrong.first()
        if wrong.status or wrong.body:
            self.send(wrong.status or 200, wrong.body, {"Content-Type": wrong.content_type})
        elif not self.may():
            self.refuse()
        elif self.path not in archive.files:
            self.send(404, b"", {})
        else:
            self.send_file(archive.files[self.path], wrong)
        wrong.then()

    def may(self) -> bool:
        """Whether the request has the account or cookie that is wanted."""
        if self.archive.protection == "basic":
            wanted = "Basic " + base64.b64encode(f"{USER}:{PASSWORD}".encode()).decode()
            return self.headers.get("Authorization") == wanted
        if self.archive.protection == "cookie":
            return COOKIE in self.headers.get("Cookie", "")
        return True

    def refuse(self) -> None:
        """Say that an account is wanted: by status, or as a login page, as archives with cookies do."""
        if self.archive.protection == "basic":
            self.send(401, b"", {"WWW-Authenticate": 'Basic realm="archive"'})
        else:
            self.send(200, LOGIN_PAGE, {"Content-Type": "text/html; charset=utf-8"})

    def send_file(self, content: bytes, wrong: Misbehaviour) -> None:
        """Send a file or the part that is asked for."""
        etag = f'"{hashlib.md5(content).hexdigest()}"'
        headers = {} if wrong.silent else {"ETag": etag}
        wanted = re.fullmatch(r"bytes=(\d+)-(\d*)", self.headers.get("Range", ""))
        unchanged = self.headers.get("If-Range") in (None, etag)
        if wanted and self.archive.ranges and unchanged:
            begin = int(wanted[1])
            if begin >= len(content):
                self.send(416, b"", {"Content-Range": f"bytes */{len(content)}"})
                return
            end = min(len(content), int(wanted[2] or len(content)) + 1)
            headers["Content-Range"] = f"bytes {begin}-{end - 1}/{len(content)}"
            self.send(206, content[begin:end], headers, wrong)
        else:
            self.send(200, content[: wrong.short], headers, wrong)

    def send(self, status: int, body: bytes, headers: dict[str, str], wrong: Misbehaviour | None = None) -> None:
        """Send an answer."""
        wrong = wrong or Misbehaviour()
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name, value)
        if wrong.silent:
            self.close_connection = True
        else:
            self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        part = b"" if self.command == "HEAD" else body[: wrong.stop_after]
        self.wfile.write(part)
        self.archive.sent += len(part)
        if wrong.stop_after is not None:
            self.wfile.flush()
            self.close_connection = True
            self.connection.shutdown(2)

    def log_message(self, format: str, *args: Any) -> None:
        """Tests run quietly."""


@contextmanager
def archive_server(archive: Archive) -> Iterator[str]:
    """The URL of an archive on a local server."""
    handler = type("ArchiveHandler", (Handler,), {"archive": archive})
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    archive.url = f"http://127.0.0.1:{server.server_port}"
    try:
        yield archive.url
    finally:
        server.shutdown()
        thread.join()
        server.server_close()
