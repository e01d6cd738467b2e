"""A folder on a web server of this machine: one that serves ranges of bytes, or Python's own, which ignores them."""

from __future__ import annotations

import re
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any


class IgnoresRanges(SimpleHTTPRequestHandler):
    """What `python -m http.server` is: every answer is a whole file. Notes what it was asked for and gave."""

    asked: list[tuple[str, int]]

    def copyfile(self, source: Any, outputfile: Any) -> None:
        data = source.read()
        self.asked.append((self.path, len(data)))
        outputfile.write(data)

    def log_message(self, *args: Any) -> None:
        """Keep the test's output clean."""


class NoListing(IgnoresRanges):
    """A plain file server: serves ranges, as every server for real use does, can neither list folders nor do HEAD."""

    def do_HEAD(self) -> None:
        self.send_error(501)

    def do_GET(self) -> None:
        path = Path(self.translate_path(self.path))
        if not path.is_file():
            self.send_error(404)
            return
        data = path.read_bytes()
        wanted = re.fullmatch(r"bytes=(\d*)-(\d*)", self.headers.get("Range", ""))
        if wanted:
            first, last = wanted.groups()
            begin = int(first) if first else max(0, len(data) - int(last))
            end = min(int(last), len(data) - 1) if first and last else len(data) - 1
            if begin > end:
                self.send_error(416)
                return
            self.send_response(206)
            self.send_header("Content-Range", f"bytes {begin}-{end}/{len(data)}")
            data = data[begin : end + 1]
        else:
            self.send_response(200)
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)
        self.asked.append((self.path, len(data)))


class Stalling(NoListing):
    """An archive that does not answer what it is asked of some files, until it is let go."""

    #: What is in the paths of these files; None before a test says so.
    stalled: str | None = None
    released: threading.Event

    def do_HEAD(self) -> None:
        self.send_response(200)
        self.send_header("Content-Length", str(Path(self.translate_path(self.path)).stat().st_size))
        self.end_headers()

    def do_GET(self) -> None:
        if self.stalled and self.stalled in self.path:
            self.asked.append((self.path, 0))
            self.released.wait(60)
        # Who asked may be dead.
        with suppress(OSError):
            super().do_GET()


@contextmanager
def served(folder: Path, handler: type[IgnoresRanges] = NoListing) -> Iterator[tuple[str, list[tuple[str, int]]]]:
    """The URL of a folder on a local server, and the paths it was asked for with the bytes it gave."""
    asked: list[tuple[str, int]] = []
    noting = type("Handler", (handler,), {"asked": asked})
    server = ThreadingHTTPServer(("127.0.0.1", 0), partial(noting, directory=str(folder)))
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_address[1]}", asked
    finally:
        server.shutdown()
        thread.join()
        server.server_close()
