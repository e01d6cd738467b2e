"""An archive on this machine that gives files only for a signature of its own, and soon for another one only.

Below `/members` it gives them for an account instead.
"""

from __future__ import annotations

import base64
import re
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import parse_qs, urlsplit

#: What every signature begins with: to be looked for in what is written.
MARK = "planted-signature-"


@dataclass
class Lender:
    """Files below `/files`, and how long a signature is valid; the same files below `/members`, for an account."""

    folder: Path
    url: str = ""
    #: Answers for which a signature is valid.
    uses: int = 1_000_000
    #: User and password of the members' account; None: there is none.
    account: tuple[str, str] | None = None
    #: Of addresses with this in them signing fails as nobody foresaw, but for the first times; empty: of none.
    odd: str = ""
    odd_after: int = 0
    #: How often such an address was to be signed.
    odd_asked: int = 0
    #: Answers given to members.
    answered: int = 0
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

    def is_odd(self, address: str) -> bool:
        """Whether signing an address fails."""
        with self.lock:
            meant = bool(self.odd) and self.odd in address
            self.odd_asked += meant
            return meant and self.odd_asked > self.odd_after

    def is_member(self, header: str) -> bool:
        """Whether a header of a request has the members' account."""
        wanted = None if self.account is None else base64.b64encode(":".join(self.account).encode()).decode()
        known = wanted is not None and header == f"Basic {wanted}"
        with self.lock:
            self.answered += known
            self.refused += not known
        return known

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
                address = parse_qs(parts.query).get("address", [""])[0]
                extra = {"X-Odd": "yes"} if lender.is_odd(address) else {}
                self.reply(200, lender.sign().encode(), extra=extra)
                return
            kind, _, name = parts.path.removeprefix("/").partition("/")
            path = folder / name
            if kind == "members":
                if not lender.is_member(self.headers.get("Authorization", "")):
                    self.reply(401, b"Who are you?")
                elif not path.is_file():
                    self.reply(404, b"")
                else:
                    self.give(path.read_bytes())
                return
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

        def reply(self, status: int, body: bytes, part: str = "", extra: Mapping[str, str] = {}) -> None:
            self.send_response(status)
            self.send_header("Content-Length", str(len(body)))
            self.send_header("Accept-Ranges", "bytes")
            for name, value in ({"Content-Range": part} if part else {}).items() | extra.items():
                self.send_header(name, value)
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
