"""An archive on this machine that gives files only for a signature of its own, and soon for another one only."""

from __future__ import annotations

import re
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import parse_qs, urlsplit

#: What every signature begins with: to be looked for in what is written.
MARK = "planted-signature-"


@dataclass
class Lender:
    """Files below `/files`, and how long a signature is valid."""

    folder: Path
    url: str = ""
    #: Answers for which a signature is valid.
    uses: int = 1_000_000
    #: Signatures given, answers given for the newest, and answers refused.
    signatures: int = 0
    used: int = 0
    refused: int = 0
    lock: threading.Lock = field(default_factory=threading.Lock)

    def sign(self) -> str:
        """The signature that is valid now."""
        with self.lock:
            if not self.signatures or self.used >= self.uses:
                self.signatures, self.used = self.signatures + 1, 0
            return f"{MARK}{self.signatures}"

    def is_valid(self, signature: str) -> bool:
        """Whether a signature is valid; it is used up by one answer."""
        with self.lock:
            valid = signature == f"{MARK}{self.signatures}" and self.used < self.uses
            self.used += valid
            self.refused += not valid
            return valid


@contextmanager
def lending(folder: Path, uses: int = 1_000_000) -> Iterator[Lender]:
    """An archive of the files of a folder."""
    lender = Lender(folder, uses=uses)

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_HEAD(self) -> None:
            self.do_GET()

        def do_GET(self) -> None:
            parts = urlsplit(self.path)
            if parts.path == "/sign":
                self.reply(200, lender.sign().encode())
                return
            path = folder / parts.path.removeprefix("/files/")
            if not lender.is_valid(parse_qs(parts.query).get("sig", [""])[0]):
                self.reply(403, b"Signature not valid")
            elif not path.is_file():
                self.reply(404, b"")
            else:
                self.give(path.read_bytes())

        def give(self, data: bytes) -> None:
            wanted = re.fullmatch(r"bytes=(\d+)-(\d*)", self.headers.get("Range", ""))
            if wanted is None:
                self.reply(200, data)
                return
            first, last = int(wanted[1]), min(int(wanted[2] or len(data)), len(data) - 1)
            self.reply(206, data[first : last + 1], f"bytes {first}-{last}/{len(data)}")

        def reply(self, status: int, body: bytes, part: str = "") -> None:
            self.send_response(status)
            self.send_header("Content-Length", str(len(body)))
            self.send_header("Accept-Ranges", "bytes")
            if part:
                self.send_header("Content-Range", part)
            self.end_headers()
            if self.command != "HEAD":
                self.wfile.write(body)

        def log_message(self, *arguments: object) -> None:
            """Keep the test's output clean."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    lender.url = f"http://127.0.0.1:{server.server_port}"
    thread = threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True)
    thread.start()
    try:
        yield lender
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
