"""A real STAC API on this machine: rustac over an ItemCollection."""

from __future__ import annotations

import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


@contextmanager
def stac_api(item_collection: Path) -> Iterator[str]:
    """The URL of a STAC API that serves the items of a file."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{probe.getsockname()[1]}"
    program = Path(sys.executable).parent / "rustac"
    command = [program, "serve", item_collection, "--addr", address, "--create-collections"]
    with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as server:
        try:
            wait_for(address)
            yield f"http://{address}"
        finally:
            server.terminate()


def wait_for(address: str) -> None:
    """Return when something listens at an address."""
    host, port = address.split(":")
    deadline = time.monotonic() + 30
    while True:
        try:
            socket.create_connection((host, int(port)), timeout=1).close()
        except OSError:
            if time.monotonic() > deadline:
                raise
            time.sleep(0.05)
        else:
            return
