"""The few connections that an archive allows, shared by all threads and processes of a user on a machine.

A connection is a locked file of a folder; the system frees those of a process that dies.
"""

from __future__ import annotations

import fcntl
import os
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from tempfile import gettempdir
from typing import IO

from h2crop_data.errors import UsageError

#: Seconds after which a connection that is taken is asked for again.
PAUSE = 0.02
#: What this thread has of each archive: who has a connection needs no other one.
HELD = threading.local()


@dataclass(frozen=True)
class SharedConnections:
    """So many connections to an archive."""

    archive: str
    number: int

    @contextmanager
    def one(self) -> Iterator[None]:
        """One of them, as soon as one is free; for as long as something is read."""
        if getattr(HELD, self.archive, False):
            yield
            return
        lock = self._wait()
        setattr(HELD, self.archive, True)
        try:
            yield
        finally:
            setattr(HELD, self.archive, False)
            # A process that was forked meanwhile has the file too: closing it is not enough.
            fcntl.flock(lock, fcntl.LOCK_UN)
            lock.close()

    def _wait(self) -> IO[bytes]:
        """The file of a connection, locked."""
        folder = connections_folder()
        while True:
            for number in range(self.number):
                file = (folder / f"{self.archive}-{number}").open("ab")
                try:
                    fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                except BlockingIOError:
                    file.close()
                else:
                    return file
            time.sleep(PAUSE)


def connections_folder() -> Path:
    """Where the connections of this user are counted. Raises UsageError where it belongs to someone else."""
    folder = Path(gettempdir()) / f"h2crop-connections-{os.getuid()}"
    folder.mkdir(mode=0o700, exist_ok=True)
    if folder.lstat().st_uid != os.getuid():
        raise UsageError(f"{folder} belongs to another user: remove it, or set TMPDIR to a folder of your own")
    return folder
