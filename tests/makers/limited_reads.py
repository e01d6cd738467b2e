"""Reads from a web server under a limit, as tasks of workers that know the server by its address alone."""

from __future__ import annotations

import os
import time
import urllib.request
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from h2crop_data.catalog.file_access import FileAccess
from h2crop_data.catalog.granule_reader import GranuleReader
from h2crop_data.shared_connections import SharedConnections


def get(url: str) -> bytes:
    """What a server answers."""
    with urllib.request.urlopen(url, timeout=60) as answer:
        content: bytes = answer.read()
    return content


def read_as_allowed(url: str, allowed: int, reads: int) -> int:
    """Read from an archive that allows so many connections, in threads that no worker knows; gives how often."""

    def read(_: int) -> bytes:
        with FileAccess(url, url, connections=SharedConnections("archive", allowed)).environment({}):
            return get(url)

    with ThreadPoolExecutor(4) as threads:
        return len(list(threads.map(read, range(reads))))


def read_as_wanted(url: str, wanted: int, reads: int) -> int:
    """Read as a recipe wants that gives so many connections to all workers; gives how often."""
    with GranuleReader(wanted) as reader:
        begun = [reader.begin(lambda: get(url), url) for _ in range(reads)]  # type: ignore[arg-type, return-value]
        return len([wait() for wait in begun])


def keep_connection(allowed: int, taken: str) -> None:
    """Take a connection, write the number of the process into a file, and keep it until that is killed.

    A task whose worker was killed is given to another one, where there is nothing left to do.
    """
    if Path(taken).exists():
        return
    with SharedConnections("archive", allowed).one():
        Path(f"{taken}.part").write_text(str(os.getpid()), encoding="utf-8")
        Path(f"{taken}.part").replace(taken)
        time.sleep(600)
