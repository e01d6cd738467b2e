"""Unit tests reach no network: what they need is on this machine, or they are no unit tests."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from ipaddress import ip_address
from pathlib import Path
from typing import Any

import pytest

FOLDER = Path(__file__).parent
#: Where code beside Python's sockets goes (GDAL, obstore, child processes): a port of this machine nobody listens at.
NOWHERE = "http://127.0.0.1:9"
ENVIRONMENT = {
    **dict.fromkeys(("http_proxy", "https_proxy", "all_proxy", "HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY"), NOWHERE),
    **dict.fromkeys(("no_proxy", "NO_PROXY"), "127.0.0.1,localhost,::1"),
}


class NetworkBlockedError(OSError):
    """A unit test wanted to reach another machine."""


class Block:
    """Refuses what Python's sockets are asked for while a unit test runs, but for this machine itself."""

    def __init__(self) -> None:
        self.test = ""

    def __call__(self, event: str, arguments: tuple[Any, ...]) -> None:
        """An audit hook: raise NetworkBlockedError before a name is looked up or an address is reached."""
        if not self.test or not event.startswith("socket."):
            return
        if event in ("socket.getaddrinfo", "socket.gethostbyname"):
            host = arguments[0]
        elif event in ("socket.connect", "socket.sendto") and isinstance(arguments[1], tuple):
            host = arguments[1][0]
        else:
            return
        if not is_here(host):
            raise NetworkBlockedError(
                f"unit tests reach no network, got {host!r} in {self.test}: serve it on 127.0.0.1 or move the test to "
                "tests/integration"
            )


def is_here(host: str | bytes | None) -> bool:
    """Whether a host is this machine."""
    name = host.decode("ascii", errors="replace") if isinstance(host, bytes) else host
    if name in (None, "", "localhost"):
        return True
    try:
        address = ip_address(str(name))
    except ValueError:
        return False
    return address.is_loopback or address.is_unspecified


BLOCK = Block()
# Hooks cannot be taken away again, so it does nothing outside unit tests.
sys.addaudithook(BLOCK)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_protocol(item: pytest.Item) -> Iterator[None]:
    """Block the network during a unit test and the fixtures that are made for it."""
    if not item.path.is_relative_to(FOLDER):
        return (yield)
    with pytest.MonkeyPatch.context() as patch:
        for name, value in ENVIRONMENT.items():
            patch.setenv(name, value)
        BLOCK.test = item.nodeid
        try:
            return (yield)
        finally:
            BLOCK.test = ""
