"""Unit tests cannot reach another machine, and say so at once."""

from __future__ import annotations

import asyncio
import socket
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import rasterio
import requests
from obstore.exceptions import BaseError
from obstore.store import HTTPStore
from rasterio.errors import RasterioIOError
from web_server import served

#: An address of documentation (RFC 5737), to which nothing is ever routed.
ELSEWHERE = "192.0.2.1"


def by_address() -> None:
    with socket.create_connection((ELSEWHERE, 80), timeout=5):
        pass


def by_name() -> None:
    socket.getaddrinfo("archive.example", 443)


def without_connection() -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sender:
        sender.sendto(b"", (ELSEWHERE, 53))


def asynchronously() -> None:
    asyncio.run(asyncio.wait_for(asyncio.open_connection(ELSEWHERE, 80), 5))


def by_number_alone() -> None:
    with socket.socket() as asking:
        asking.connect_ex((ELSEWHERE, 80))


@pytest.mark.parametrize("reach", [by_address, by_name, without_connection, asynchronously, by_number_alone])
def test_another_machine_is_refused(reach: Callable[[], None], request: pytest.FixtureRequest) -> None:
    with pytest.raises(
        OSError, match=r"unit tests reach no network, got '(192\.0\.2\.1|archive\.example)' in "
    ) as error:
        reach()
    assert request.node.name in str(error.value)


def test_neither_do_libraries_and_child_processes_that_use_no_sockets_of_python() -> None:
    """They are sent to a port of this machine at which nobody listens."""
    with pytest.raises(RasterioIOError, match=r"via 127\.0\.0\.1 "):
        rasterio.open(f"http://{ELSEWHERE}/scene.tif")
    with pytest.raises(BaseError, match="onnect"):
        HTTPStore(f"http://{ELSEWHERE}", client_options={"allow_http": True}, retry_config={"max_retries": 0}).get("x")
    code = f"import requests; requests.get('http://{ELSEWHERE}', timeout=5)"
    child = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert "ProxyError" in child.stderr


def test_this_machine_is_reached_by_all(tmp_path: Path) -> None:
    (tmp_path / "here.txt").write_text("here")
    with served(tmp_path) as (url, _):
        assert requests.get(f"{url}/here.txt", timeout=5).text == "here"
        port = int(url.rpartition(":")[2])
        with socket.create_connection(("localhost", port), timeout=5):
            pass
        store = HTTPStore(url, client_options={"allow_http": True}, retry_config={"max_retries": 0})
        assert bytes(store.get("here.txt").bytes()) == b"here"
