"""The few connections that an archive allows, shared by all threads and processes of a user on a machine, or beyond.

On a machine a connection is a locked file of a folder; the system releases those of a process that dies. Where workers
of several machines build together, their scheduler also counts the connections of all (`counted_by`).
"""

from __future__ import annotations

import fcntl
import logging
import os
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from tempfile import gettempdir
from typing import IO

from h2crop_data.errors import UsageError
from h2crop_data.waits import REPORTED_AFTER, Wait

log = logging.getLogger(__name__)
#: Seconds after which a connection that is taken is asked for again.
PAUSE = 0.02
#: What this thread has of each archive: who has a connection needs no other one.
HELD = threading.local()
#: Counts connections to an archive, of which there are so many, on several machines: gives one for a `with` block.
Counter = Callable[[str, int], AbstractContextManager[None]]
#: Those in force in this process; the newest counts.
COUNTERS: list[Counter] = []


@contextmanager
def counted_by(counter: Counter) -> Iterator[None]:
    """Have all connections that this process takes meanwhile, in whichever thread, counted on other machines too."""
    COUNTERS.append(counter)
    try:
        yield
    finally:
        COUNTERS.remove(counter)


@dataclass(frozen=True)
class SharedConnections:
    """So many connections to an archive."""

    archive: str
    number: int
    #: Seconds until a wait for one is reported.
    reported_after: float = REPORTED_AFTER

    @contextmanager
    def one(self) -> Iterator[None]:
        """One of them, as soon as one is free; for as long as something is read."""
        if getattr(HELD, self.archive, False):
            yield
            return
        with self._beyond_this_machine():
            lock = self._wait()
            setattr(HELD, self.archive, True)
            try:
                yield
            finally:
                setattr(HELD, self.archive, False)
                # A process that was forked meanwhile has the file too: closing it is not enough.
                fcntl.flock(lock, fcntl.LOCK_UN)
                lock.close()

    def _beyond_this_machine(self) -> AbstractContextManager[None]:
        """One of those that several machines share, where they do."""
        counters = COUNTERS[-1:]
        return counters[0](self.archive, self.number) if counters else nullcontext()

    def _wait(self) -> IO[bytes]:
        """The file of a connection, locked."""
        folder = connections_folder()
        reason = f"all {self.number} that it allows are used"
        wait = Wait(log, f"a connection to {self.archive}", reason, reported_after=self.reported_after)
        while True:
            for number in range(self.number):
                file = (folder / f"{self.archive}-{number}").open("ab")
                try:
                    fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                except BlockingIOError:
                    file.close()
                else:
                    wait.over()
                    return file
            wait.look()
            time.sleep(PAUSE)


def connections_folder() -> Path:
    """Where the connections of this user are counted. Raises UsageError where it belongs to someone else."""
    folder = Path(gettempdir()) / f"h2crop-connections-{os.getuid()}"
    folder.mkdir(mode=0o700, exist_ok=True)
    if folder.lstat().st_uid != os.getuid():
        raise UsageError(f"{folder} belongs to another user: remove it, or set TMPDIR to a folder of your own")
    return folder
