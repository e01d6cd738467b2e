"""An S3 server on this machine (moto), and a proxy in front of it that fails on request.

In S3 nothing comes between the look at the condition of a PUT and the write. moto looks first and writes then, so the
proxy hands it one PUT at a time.
"""

from __future__ import annotations

import os
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager, nullcontext
from dataclasses import dataclass, field
from http.client import HTTPConnection
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

BUCKET = "cubes"
#: Says where it listens, and ends when its standard input does: with the tests, however those end.
PROGRAM = """
import sys
from moto.server import ThreadedMotoServer

server = ThreadedMotoServer("127.0.0.1", 0, verbose=False)
server.start()
print("listening", *server.get_host_and_port(), flush=True)
sys.stdin.read()
"""
#: Headers that belong to one connection, not to the request.
CONNECTION_HEADERS = {"connection", "keep-alive", "transfer-encoding", "host", "content-length"}
CONDITIONS = {"if-match", "if-none-match"}


@dataclass(frozen=True)
class Request:
    """A request the proxy was sent. `number` counts from 1."""

    number: int
    method: str
    #: Without the bucket and the query.
    key: str
    query: str
    headers: dict[str, str]
    body_size: int

    @property
    def is_copy(self) -> bool:
        """Whether the server is to copy one object to another."""
        return "x-amz-copy-source" in self.headers


@dataclass(frozen=True)
class Fault:
    """What goes wrong with a request.

    status: this answer instead of the server's. told_late: the server does what was asked, then its answer is lost, or
    `status` is told instead. cut_request: the connection breaks when half of the body is there. cut_answer: it breaks
    in the middle of the answer. until: wait for this, after the whole request has arrived. no_conditions: the server
    never hears of the conditions.
    """

    status: int | None = None
    told_late: bool = False
    cut_request: bool = False
    cut_answer: bool = False
    until: threading.Event | None = None
    no_conditions: bool = False
    #: XML body for `status`.
    code: str = "InternalError"


@dataclass
class Proxy:
    """The way to a server, with faults. `fault(request)` says what goes wrong with a request, None for nothing."""

    url: str
    fault: Callable[[Request], Fault | None] = lambda request: None
    requests: list[Request] = field(default_factory=list)

    def fail_every(self, n: int, fault: Fault) -> None:
        """Let every n-th request from now on fail."""
        start = len(self.requests)
        self.fault = lambda request: fault if (request.number - start) % n == 0 else None

    def fail_if(self, condition: Callable[[Request], bool], fault: Fault, times: int | None = None) -> None:
        """Let the requests fail for which something holds, all of them or the first few."""
        left = threading.Semaphore(times) if times is not None else None
        self.fault = lambda request: (
            fault if condition(request) and (left is None or left.acquire(blocking=False)) else None
        )

    def heal(self) -> None:
        """Let nothing fail any more."""
        self.fault = lambda request: None

    def count(self, method: str, key: str = "") -> int:
        """How many requests of a method there were for keys that contain something."""
        return sum(request.method == method and key in request.key for request in self.requests)


@contextmanager
def s3_server() -> Iterator[str]:
    """The URL of an S3 server with one empty bucket, BUCKET."""
    command = [sys.executable, "-c", PROGRAM]
    with subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
    ) as server:
        try:
            assert server.stdout is not None
            line = next((line for line in server.stdout if line.startswith("listening ")), None)
            assert line, "the S3 server did not start: is moto installed?"
            _, host, port = line.split()
            url = f"http://{host}:{port}"
            put_plainly(url, BUCKET)
            yield url
        finally:
            server.kill()


def s3_environment(url: str) -> dict[str, str]:
    """The environment of a program that uses the server at a URL, without what else it says of AWS."""
    rest = {name: value for name, value in os.environ.items() if not name.startswith("AWS_")}
    return {
        **rest,
        "AWS_ENDPOINT_URL": url,
        "AWS_ALLOW_HTTP": "true",
        "AWS_ACCESS_KEY_ID": "anyone",
        "AWS_SECRET_ACCESS_KEY": "anything",
        "AWS_DEFAULT_REGION": "us-east-1",
    }


def use_server(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Let this process use a server from now on."""
    wanted = s3_environment(url)
    for name in [name for name in os.environ if name.startswith("AWS_")]:
        monkeypatch.delenv(name)
    for name in [name for name in wanted if name.startswith("AWS_")]:
        monkeypatch.setenv(name, wanted[name])


def put_plainly(server_url: str, path: str) -> None:
    """Make a bucket, or an empty object `bucket/key`, of any name."""
    with closing(HTTPConnection(server_url.removeprefix("http://"), timeout=60)) as connection:
        connection.request("PUT", f"/{path}")
        assert connection.getresponse().status == 200


@contextmanager
def s3_proxy(server_url: str) -> Iterator[Proxy]:
    """A proxy in front of a server."""
    address = server_url.removeprefix("http://")
    one_put = threading.Lock()
    counting = threading.Lock()

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self) -> None:
            self.pass_on()

        do_HEAD = do_PUT = do_POST = do_DELETE = do_GET  # noqa: N815

        def pass_on(self) -> None:
            length = int(self.headers.get("content-length", 0))
            path, _, query = self.path.partition("?")
            headers = {name.lower(): value for name, value in self.headers.items()}
            with counting:
                request = Request(
                    len(proxy.requests) + 1, self.command, path.removeprefix(f"/{BUCKET}/"), query, headers, length
                )
                proxy.requests.append(request)
            fault = proxy.fault(request) or Fault()
            if fault.cut_request:
                self.rfile.read(length // 2)
                self.close_connection = True
                return
            body = self.rfile.read(length)
            if fault.until is not None:
                fault.until.wait()
            if fault.status is not None and not fault.told_late:
                self.tell(fault)
                return
            status, answered, data = self.forward(body, CONDITIONS if fault.no_conditions else set())
            if fault.told_late:
                if fault.status is None:
                    self.close_connection = True
                else:
                    self.tell(fault)
                return
            self.answer(status, answered, data, cut=fault.cut_answer)

        def forward(self, body: bytes, without: set[str]) -> tuple[int, list[tuple[str, str]], bytes]:
            dropped = CONNECTION_HEADERS | without
            headers = {name: value for name, value in self.headers.items() if name.lower() not in dropped}
            if self.command in ("PUT", "POST"):
                headers["content-length"] = str(len(body))
            with (
                closing(HTTPConnection(address, timeout=60)) as connection,
                one_put if self.command == "PUT" else nullcontext(),
            ):
                connection.request(self.command, self.path, body or None, headers)
                response = connection.getresponse()
                return response.status, response.getheaders(), response.read()

        def answer(self, status: int, headers: list[tuple[str, str]], data: bytes, *, cut: bool = False) -> None:
            length = {name.lower(): value for name, value in headers}.get("content-length", str(len(data)))
            self.send_response_only(status)
            for name, value in headers:
                if name.lower() not in CONNECTION_HEADERS:
                    self.send_header(name, value)
            # A HEAD tells the length of what it does not send.
            self.send_header("content-length", length if self.command == "HEAD" else str(len(data)))
            self.end_headers()
            if self.command != "HEAD":
                self.wfile.write(data[: len(data) // 2] if cut else data)
            self.close_connection = self.close_connection or cut

        def tell(self, fault: Fault) -> None:
            assert fault.status is not None
            body = (
                f"<?xml version='1.0'?><Error><Code>{fault.code}</Code><Message>as the test wants it</Message></Error>"
            )
            self.answer(fault.status, [("content-type", "application/xml")], body.encode())

        def log_message(self, format: str, *arguments: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    # Connections that a client cut are no news.
    server.handle_error = lambda request, client_address: None  # type: ignore[method-assign]
    proxy = Proxy(f"http://127.0.0.1:{server.server_port}")
    thread = threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True)
    thread.start()
    try:
        yield proxy
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
