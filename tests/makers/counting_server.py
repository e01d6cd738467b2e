"""A folder on a web server of this machine that takes its time, and counts what it is asked for and gives.

The server is a process of its own, so that its work is not counted with that of a reader. It serves ranges over
connections that stay open, as an object store does, waits before each answer, and forgets its counts on demand.
"""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import threading
import time
import urllib.request
from collections import defaultdict
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

COUNTS, RESET = "/-/counts", "/-/reset"
RANGE = re.compile(r"bytes=(\d*)-(\d*)")


@dataclass(frozen=True)
class Counts:
    """What was asked for and given since the last reset."""

    #: Of every kind, those for the size of a file (HEAD) too.
    requests: int
    #: In the bodies of answers.
    bytes: int
    #: File below the folder -> first and last byte of each answer.
    ranges: dict[str, list[tuple[int, int]]]


class Answers:
    """What the server notes of its answers, in whichever thread."""

    def __init__(self) -> None:
        self.lock = threading.Lock()
        self.reset()

    def reset(self) -> None:
        with self.lock:
            self.requests = 0
            self.ranges: dict[str, list[tuple[int, int]]] = defaultdict(list)

    def note(self, path: str, given: tuple[int, int] | None) -> None:
        with self.lock:
            self.requests += 1
            if given is not None:
                self.ranges[path].append(given)

    def as_json(self) -> bytes:
        with self.lock:
            return json.dumps({"requests": self.requests, "ranges": self.ranges}).encode()


class SlowRanges(BaseHTTPRequestHandler):
    """Files and ranges of them."""

    protocol_version = "HTTP/1.1"
    #: Else the end of a long answer waits until its beginning is acknowledged.
    disable_nagle_algorithm = True

    def __init__(self, folder: Path, delay: float, answers: Answers, *args: object) -> None:
        self.folder, self.delay, self.answers = folder, delay, answers
        super().__init__(*args)  # type: ignore[arg-type]

    def do_GET(self) -> None:
        if self.path == RESET:
            self.answers.reset()
            self.send_whole(b"{}")
        elif self.path == COUNTS:
            self.send_whole(self.answers.as_json())
        else:
            self.send_file(body=True)

    def do_HEAD(self) -> None:
        self.send_file(body=False)

    def send_whole(self, body: bytes) -> None:
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def send_file(self, *, body: bool) -> None:
        """A file or the range that is asked for, after the delay."""
        time.sleep(self.delay)
        path = self.path.partition("?")[0].lstrip("/")
        try:
            file = os.open(self.folder / path, os.O_RDONLY)
        except OSError:
            self.answers.note(path, None)
            self.send_error(404)
            return
        try:
            size = os.fstat(file).st_size
            wanted = RANGE.fullmatch(self.headers.get("Range", ""))
            first, last = inside(wanted.groups(), size) if wanted else (0, size - 1)
            self.send_response(206 if wanted else 200)
            if wanted:
                self.send_header("Content-Range", f"bytes {first}-{last}/{size}")
            self.send_header("Content-Length", str(last + 1 - first))
            self.send_header("Accept-Ranges", "bytes")
            self.send_header("ETag", f'"{size}"')
            self.send_header("Last-Modified", "Wed, 01 Jun 2022 00:00:00 GMT")
            self.end_headers()
            self.answers.note(path, (first, last) if body else None)
            if body:
                self.wfile.write(os.pread(file, last + 1 - first, first))
        finally:
            os.close(file)

    def log_message(self, *args: object) -> None:
        """Keep the output clean."""


def inside(wanted: tuple[str, str], size: int) -> tuple[int, int]:
    """First and last byte of a range as a header states it: `5-9`, `5-`, or `-5`, the last five."""
    first, last = wanted
    if not first:
        return max(0, size - int(last)), size - 1
    return int(first), min(int(last), size - 1) if last else size - 1


@dataclass(frozen=True)
class CountingServer:
    """A server that runs."""

    url: str

    def reset(self) -> None:
        """Begin to count anew."""
        self.ask(RESET)

    def counts(self) -> Counts:
        """What was asked for and given."""
        told = json.loads(self.ask(COUNTS))
        ranges = {path: [(first, last) for first, last in given] for path, given in told["ranges"].items()}
        given = sum(last + 1 - first for part in ranges.values() for first, last in part)
        return Counts(told["requests"], given, ranges)

    def ask(self, path: str) -> bytes:
        with urllib.request.urlopen(self.url + path) as answer:
            return bytes(answer.read())


@contextmanager
def serving(folder: Path, delay: float) -> Iterator[CountingServer]:
    """A server of a folder that waits `delay` seconds before each answer."""
    command = [sys.executable, __file__, str(folder), str(delay)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout is not None
            yield CountingServer(process.stdout.readline().strip())
        finally:
            process.terminate()


def main() -> None:
    """Serve a folder until the process is ended; the first line printed is the URL."""
    folder, delay = Path(sys.argv[1]), float(sys.argv[2])
    server = ThreadingHTTPServer(("127.0.0.1", 0), partial(SlowRanges, folder, delay, Answers()))
    print(f"http://127.0.0.1:{server.server_address[1]}", flush=True)
    server.serve_forever()


if __name__ == "__main__":
    main()
