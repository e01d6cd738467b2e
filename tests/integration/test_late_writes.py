"""Nothing appears in a store after its build gave up the lock, whatever became of builder and workers."""

from __future__ import annotations

import base64
import os
import pickle
import random
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ProcessPoolExecutor
from contextlib import contextmanager
from multiprocessing import get_context
from pathlib import Path

import pytest
from temporary_files import unfinished

from h2crop_data.errors import StoreError
from h2crop_data.storage.local import LocalStorage
from h2crop_data.storage.storage import Storage

#: Seconds after which a process that does not do what it should fails the test.
LIMIT = 60
NAME = "2022/s2/c.0.0.0.0.0"

#: Holds a store, gives its storage as workers get it, and gives the store up when told to.
BUILDER = """
import base64, pickle, sys
from pathlib import Path
from h2crop_data.storage.local import LocalStorage

storage = LocalStorage(Path(sys.argv[1]))
with storage.hold():
    print(base64.b64encode(pickle.dumps(storage)).decode(), flush=True)
    sys.stdin.readline()
print("over", flush=True)
"""

#: Acts for a builder, and stops in the middle of it: where it writes, or right before a rename.
WORKER = """
import base64, os, pickle, signal, sys
from pathlib import Path
from h2crop_data.errors import StoreError

act, where, sent, name, other = sys.argv[1:]
storage, rename = pickle.loads(base64.b64decode(sent)), Path.replace

def stop():
    os.kill(os.getpid(), signal.SIGSTOP)

def stop_and_rename(self, target):
    stop()
    return rename(self, target)

def parts():
    yield b"half of "
    if where == "while it writes":
        stop()
    yield b"a late shard"

if where == "before the rename":
    Path.replace = stop_and_rename
try:
    if act == "write":
        storage.write(name, parts())
    elif act == "delete":
        storage.delete(name)
    else:
        storage.share(name, type(storage)(Path(other)))
    print("done", flush=True)
except StoreError as error:
    print(error, flush=True)
"""


@contextmanager
def program(text: str, *arguments: str) -> Iterator[subprocess.Popen[str]]:
    """A process that runs a program, and is killed at the end if it still lives."""
    with subprocess.Popen(
        [sys.executable, "-c", text, *arguments], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as process:
        try:
            yield process
        finally:
            process.kill()


def line_of(process: subprocess.Popen[str]) -> str:
    """The next line that a process prints."""
    assert process.stdout is not None
    return process.stdout.readline().rstrip("\n")


def wait_until_stopped(process: subprocess.Popen[str]) -> None:
    """Return when a process stopped itself."""
    until = time.monotonic() + LIMIT
    while os.waitid(os.P_PID, process.pid, os.WSTOPPED | os.WNOHANG | os.WNOWAIT) is None:
        assert process.poll() is None, f"it ended instead: {line_of(process)}"
        assert time.monotonic() < until, "it did not stop"
        time.sleep(0.01)


def give_up(builder: subprocess.Popen[str]) -> None:
    """Let a builder give up its lock, and wait until it did."""
    assert builder.stdin is not None
    builder.stdin.write("give up\n")
    builder.stdin.flush()
    assert line_of(builder) == "over"


def kill(builder: subprocess.Popen[str]) -> None:
    """Kill a builder."""
    builder.kill()
    assert builder.wait(LIMIT) == -signal.SIGKILL


def files_of(store: Path) -> dict[str, bytes]:
    """All files of a store but the lock and those of a hold."""
    names = [name for name, _ in LocalStorage(store).names() if not name.startswith((".build/tmp/", ".build/lock"))]
    return {name: (store / name).read_bytes() for name in names}


ENDS: dict[str, Callable[[subprocess.Popen[str]], None]] = {"gives up": give_up, "is killed": kill}


#: Nothing but writing takes time before the rename. A builder that was killed, without a successor, cannot call back a
#: rename that was about to be made.
CASES = [
    (act, where, end, successor)
    for act, where in (
        ("write", "while it writes"),
        *((act, "before the rename") for act in ("write", "share", "delete")),
    )
    for end in ENDS
    for successor in (True, False)
    if (where, end, successor) != ("before the rename", "is killed", False)
]


@pytest.mark.parametrize(("act", "where", "end", "successor"), CASES)
def test_a_stopped_worker_that_goes_on_after_its_build_changes_nothing(
    tmp_path: Path, act: str, where: str, end: str, successor: bool
) -> None:
    store, other = tmp_path / "store", tmp_path / "other"
    LocalStorage(other).write(NAME, [b"of another store"])
    LocalStorage(store).write("2022/s2/before", [b"before"])
    if act == "delete":
        LocalStorage(store).write(NAME, [b"finished"])
    with program(BUILDER, str(store)) as builder:
        sent = line_of(builder)
        with program(WORKER, act, where, sent, NAME, str(other)) as worker:
            wait_until_stopped(worker)
            ENDS[end](builder)
            storage = LocalStorage(store)
            if successor:
                with storage.hold():
                    storage.write(NAME, [b"of the successor"])
                    before = files_of(store)
                    worker.send_signal(signal.SIGCONT)
                    told = line_of(worker)
                    assert files_of(store) == before
                    assert unfinished(store) == []
            else:
                before = files_of(store)
                worker.send_signal(signal.SIGCONT)
                told = line_of(worker)
                assert files_of(store) == before
            assert worker.wait(LIMIT) == 0
    died = end == "is killed" and not successor
    assert ("died" if died else "gave up its lock, or another builder took over") in told
    assert str(store) in told
    assert "nothing is written" in told
    # What the next builder does not find it cannot trip over.
    with LocalStorage(store).hold():
        assert unfinished(store) == []
    assert files_of(store) == before


@pytest.mark.parametrize("act", ["write", "share", "delete"])
def test_a_stopped_worker_of_a_builder_at_work_goes_on(tmp_path: Path, act: str) -> None:
    store, other = tmp_path / "store", tmp_path / "other"
    LocalStorage(other).write(NAME, [b"of another store"])
    with program(BUILDER, str(store)) as builder:
        sent = line_of(builder)
        if act == "delete":
            pickle.loads(base64.b64decode(sent)).write(NAME, [b"finished"])
        with program(WORKER, act, "before the rename", sent, NAME, str(other)) as worker:
            wait_until_stopped(worker)
            worker.send_signal(signal.SIGCONT)
            assert line_of(worker) == "done"
            assert worker.wait(LIMIT) == 0
        expected = {"write": b"half of a late shard", "share": b"of another store"}
        assert files_of(store) == ({} if act == "delete" else {NAME: expected[act]})
        assert unfinished(store) == []
        give_up(builder)


def write_until_refused(storage: Storage, worker: int) -> tuple[int, str]:
    """Write file after file; gives how many were written, and the error that ended it."""
    until = time.monotonic() + LIMIT
    number = 0
    while time.monotonic() < until:
        try:
            storage.write(f"2022/array-{number % 3}/c.{worker}.{number}", [b"x" * 100])
        except StoreError as error:
            return number, str(error)
        number += 1
    return number, "never refused"


def test_of_many_writers_none_writes_after_the_release_returned(tmp_path: Path) -> None:
    workers, chance = 4, random.Random(3)
    written = 0
    with ProcessPoolExecutor(workers, get_context("spawn")) as pool:
        for turn in range(25):
            storage = LocalStorage(tmp_path / f"store-{turn % 2}")
            with storage.hold():
                sent: list[Future[tuple[int, str]]] = [
                    pool.submit(write_until_refused, storage, turn * workers + number) for number in range(workers)
                ]
                until = time.monotonic() + LIMIT
                while not next(storage.names("2022/"), None):
                    assert time.monotonic() < until, "no worker writes"
                time.sleep(chance.uniform(0, 0.08))
            at_release = files_of(storage.folder)
            outcomes = [future.result(LIMIT) for future in sent]
            assert files_of(storage.folder) == at_release, "something was written after the lock was given up"
            assert all("is over" in error for _, error in outcomes), outcomes
            assert unfinished(storage.folder) == []
            written += sum(number for number, _ in outcomes)
    names = [name for folder in ("store-0", "store-1") for name in files_of(tmp_path / folder)]
    assert len(names) == written > 100


def test_a_storage_whose_hold_ended_writes_nothing_until_it_is_held_again(tmp_path: Path) -> None:
    storage = LocalStorage(tmp_path / "store")

    def failing_build() -> None:
        with storage.hold():
            storage.write(NAME, [b"first"])
            (storage.folder / ".build/tmp" / storage.token / "half.tmp").touch()
            workers.append(pickle.loads(pickle.dumps(storage)))
            raise KeyError("a build that failed")

    workers: list[LocalStorage] = []
    with pytest.raises(KeyError):
        failing_build()
    early = workers[0]
    assert list((storage.folder / ".build/tmp").iterdir()) == []
    for late in (storage, early):
        for act in (
            lambda late=late: late.write(NAME, [b"late"]),
            lambda late=late: late.replace("zarr.json", [b"late"]),
            lambda late=late: late.share(NAME, LocalStorage(tmp_path / "store")),
            lambda late=late: late.delete(NAME),
        ):
            with pytest.raises(StoreError, match=r"is over \(it gave up its lock"):
                act()
    assert files_of(tmp_path / "store") == {NAME: b"first"}
    with storage.hold():
        storage.write(NAME, [b"second"])
        with pytest.raises(StoreError, match="is over"):
            early.write(NAME, [b"late"])
        pickle.loads(pickle.dumps(storage)).write("2022/s2/c.1", [b"of a worker"])
    assert files_of(tmp_path / "store") == {NAME: b"second", "2022/s2/c.1": b"of a worker"}
