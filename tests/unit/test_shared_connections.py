"""Connections to an archive that allows few: never more are taken, by threads and processes together."""

from __future__ import annotations

import multiprocessing
import os
import re
import signal
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from h2crop_data.catalog.file_access import FileAccess
from h2crop_data.errors import UsageError
from h2crop_data.shared_connections import SharedConnections, connections_folder

SPAWN = multiprocessing.get_context("spawn")


@pytest.fixture(autouse=True)
def own_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder of this test; gives that of what is read."""
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    (tmp_path / "reads").mkdir()
    return tmp_path / "reads"


def read(folder: Path, name: str) -> int:
    """A read of a moment, which is a file as long as it lasts; gives how many there are."""
    with FileAccess("a", "a", connections=SharedConnections("archive", 3)).environment({}):
        (folder / name).touch()
        time.sleep(0.01)
        found = len(list(folder.iterdir()))
        (folder / name).unlink()
    return found


def read_often(folder: Path, worker: int) -> list[int]:
    """Reads of 4 threads of a process."""
    with ThreadPoolExecutor(4) as threads:
        return list(threads.map(lambda number: read(folder, f"{worker}-{number}"), range(12)))


def hold(ready: str) -> None:
    """Take a connection and keep it."""
    with SharedConnections("archive", 1).one():
        Path(ready).touch()
        time.sleep(60)


def test_threads_never_have_more_than_there_are(own_folder: Path) -> None:
    with ThreadPoolExecutor(12) as threads:
        found = list(threads.map(lambda number: read(own_folder, str(number)), range(60)))
    assert max(found) == 3


@pytest.mark.slow
def test_processes_share_them(own_folder: Path) -> None:
    with SPAWN.Pool(3) as pool:
        found = pool.starmap(read_often, [(own_folder, worker) for worker in range(3)])
    assert 2 <= max(most for one in found for most in one) <= 3


def test_a_thread_that_has_one_needs_no_other() -> None:
    connections = SharedConnections("archive", 1)
    with connections.one(), connections.one():
        assert not take_in_a_thread(connections, 0.1)
    assert take_in_a_thread(connections, 10)


def test_another_archive_has_its_own() -> None:
    with SharedConnections("archive", 1).one():
        assert take_in_a_thread(SharedConnections("other", 1), 10)


def take_in_a_thread(connections: SharedConnections, seconds: float) -> bool:
    """Whether another thread gets a connection within some seconds."""
    got = threading.Event()

    def take() -> None:
        with connections.one():
            got.set()

    threading.Thread(target=take, daemon=True).start()
    return got.wait(seconds)


def test_who_waits_for_one_says_so_while_it_lasts(caplog: pytest.LogCaptureFixture) -> None:
    # Threads of other tests may wait for theirs yet.
    connections, got = SharedConnections("an-archive", 1, reported_after=0.05), threading.Event()

    def take() -> None:
        with connections.one():
            got.set()

    def said() -> list[str]:
        return [re.sub(r"[\d.]+ s\b", "N s", text) for text in caplog.messages if "an-archive" in text]

    waiting = "waiting for a connection to an-archive for N s: all 1 that it allows are used"
    with caplog.at_level("INFO", "h2crop_data"):
        with connections.one():
            threading.Thread(target=take, daemon=True).start()
            until = time.monotonic() + 10
            while not said() and time.monotonic() < until:
                time.sleep(0.01)
            assert said() == [waiting]
            assert not got.is_set()
        assert got.wait(10)
    assert said() == [waiting, "got a connection to an-archive after N s"]


@pytest.mark.slow
def test_those_of_a_process_that_died_are_free(tmp_path: Path) -> None:
    ready = tmp_path / "ready"
    process = SPAWN.Process(target=hold, args=(str(ready),), daemon=True)
    process.start()
    while not ready.exists():
        assert process.is_alive()
        time.sleep(0.01)
    assert not take_in_a_thread(SharedConnections("archive", 1), 0.1)
    assert process.pid is not None
    os.kill(process.pid, signal.SIGKILL)
    process.join()
    assert take_in_a_thread(SharedConnections("archive", 1), 10)


def test_a_folder_of_someone_else_is_not_used(monkeypatch: pytest.MonkeyPatch) -> None:
    folder = connections_folder()
    monkeypatch.setattr("os.getuid", lambda: 4711)
    folder.rename(folder.with_name("h2crop-connections-4711"))
    with pytest.raises(UsageError, match="belongs to another user"):
        connections_folder()
