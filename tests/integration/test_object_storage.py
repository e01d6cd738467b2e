"""Stores in an object store: the same promises as in a folder, one builder, and a server that fails."""

from __future__ import annotations

import base64
import hashlib
import json
import os
import pickle
import signal
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import xarray as xr
import zarr
from s3_server import BUCKET, Fault, Proxy, Request, put_plainly, s3_proxy, s3_server, use_server
from tiny_region import TinyRegion

import h2crop_data
from h2crop_data.errors import MissingFileError, StoreError
from h2crop_data.maintenance.migrate import migrate_store
from h2crop_data.maintenance.restore import restore_root
from h2crop_data.maintenance.retract import retract_from_store
from h2crop_data.pipeline.build import build_store
from h2crop_data.pipeline.engine import WorkerKind, Workers
from h2crop_data.recipe.model import Recipe
from h2crop_data.storage import s3 as object_storage
from h2crop_data.storage.lease import Lock
from h2crop_data.storage.local import LocalStorage
from h2crop_data.storage.location import open_storage
from h2crop_data.storage.requests import Patience, moment
from h2crop_data.storage.s3 import ObjectStorage, s3_zarr_store
from h2crop_data.storage.storage import Storage

LOCK = ".build/lock"
#: A store as it was before the tests change it.
ROOT, CHANGED = b'{"release": 1}', b'{"release": 2}'
#: Where a test wants a failure told soon.
SOON = Patience(connect=2, request=2, retry=0.5)
#: Where a test waits for a lease to run out.
SHORT = Patience(lease=2)

#: Another builder with a short lease. Replaces the root when it is told to, and says what became of it.
BUILDER = """
import sys
from h2crop_data.storage.requests import Patience
from h2crop_data.storage.s3 import ObjectStorage
from h2crop_data.errors import StoreError

storage = ObjectStorage(sys.argv[1], Patience(lease=float(sys.argv[2])))
with storage.hold():
    storage.replace("zarr.json", [b"of the first builder"])
    print("held", flush=True)
    sys.stdin.readline()
    try:
        storage.replace("zarr.json", [b"too late"])
        print("written", flush=True)
    except StoreError as error:
        print("refused:", error, flush=True)
"""


@pytest.fixture(scope="session")
def server() -> Iterator[str]:
    """The URL of an S3 server."""
    with s3_server() as url:
        yield url


@pytest.fixture
def proxy(server: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[Proxy]:
    """The way to the server that this process uses."""
    with s3_proxy(server) as proxy:
        use_server(proxy.url, monkeypatch)
        yield proxy


@pytest.fixture
def url(proxy: Proxy, request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """Where nothing is yet, below the bucket."""
    return f"s3://{BUCKET}/{tmp_path.parent.name}/{tmp_path.name}/store"


@pytest.fixture
def storage(url: str) -> ObjectStorage:
    """An empty store."""
    return ObjectStorage(url)


@pytest.fixture
def direct(server: str, proxy: Proxy, url: str, monkeypatch: pytest.MonkeyPatch) -> ObjectStorage:
    """The same store, by a way that never fails, as another builder."""
    with monkeypatch.context() as other:
        use_server(server, other)
        return ObjectStorage(url, SHORT)


Maker = Callable[[str], Storage]


@pytest.fixture(params=["folder", "s3"])
def make(request: pytest.FixtureRequest, tmp_path: Path) -> Maker:
    """Makes a store of a name, in folders or in a bucket."""
    if request.param == "folder":
        return lambda name: LocalStorage(tmp_path / name)
    url = request.getfixturevalue("url")
    return lambda name: ObjectStorage(f"{url}/{name}")


def lock_of(storage: Storage) -> dict[str, Any]:
    """The lock of a store."""
    lock: dict[str, Any] = json.loads(storage.read(LOCK))
    return lock


@contextmanager
def hold_when_free(storage: ObjectStorage) -> Iterator[None]:
    """Hold a store as soon as its holder's lease ran out."""
    deadline = time.monotonic() + 120
    while True:
        hold = storage.hold()
        try:
            hold.__enter__()
            break
        except StoreError as error:
            if "is locked by another builder" not in str(error) or time.monotonic() > deadline:
                raise
            time.sleep(0.2)
    try:
        yield
    finally:
        hold.__exit__(None, None, None)


@contextmanager
def other_builder(url: str, lease: float) -> Iterator[subprocess.Popen[str]]:
    """A process that holds a store and waits to be told to go on."""
    with subprocess.Popen(
        [sys.executable, "-c", BUILDER, url, str(lease)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as process:
        try:
            assert process.stdout is not None
            assert process.stdout.readline() == "held\n"
            yield process
        finally:
            process.kill()


def go_on(act: Callable[[], None]) -> None:
    """Do something again and again, for much longer than a short lease."""
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline:
        act()


def is_lock(request: Request) -> bool:
    """Whether a request writes a lock."""
    return request.method == "PUT" and request.key.endswith(LOCK)


# The promises of a storage, wherever it lies


def test_what_was_written_is_read_whole_and_in_ranges(make: Maker) -> None:
    storage = make("a")
    data = np.random.default_rng(1).bytes(100_000)
    storage.write("2022/s2/c.0.0.0.0.0", [data[:10], b"", data[10:]])
    assert storage.read("2022/s2/c.0.0.0.0.0") == data
    assert storage.size("2022/s2/c.0.0.0.0.0") == len(data)
    assert storage.exists("2022/s2/c.0.0.0.0.0")
    for offset in (0, 1, 5000, 99_999, 100_000, 100_001, 10**9):
        for length in (0, 1, 16, 95_000, 100_000, 10**9):
            assert storage.read_range("2022/s2/c.0.0.0.0.0", offset, length) == data[offset : offset + length]


def test_a_file_may_be_empty(make: Maker) -> None:
    storage = make("a")
    storage.write("empty", [])
    assert storage.read("empty") == b""
    assert storage.size("empty") == 0
    assert storage.read_range("empty", 0, 10) == b""
    assert storage.describe("empty") == {"path": "empty", "bytes": 0, "sha256": hashlib.sha256().hexdigest()}


def test_what_is_not_there_is_told_as_missing(make: Maker) -> None:
    storage = make("a")
    storage.write("2022/s2/c.0", [b"x"])
    for name in ("2022/s2/c.1", "2022/s2", "2022/s2/c.0/below", "nowhere"):
        assert storage.size(name) is None or name == "2022/s2"
        for ask in (
            storage.read,
            lambda name: storage.read_range(name, 0, 1),
            lambda name: storage.read_range(name, 0, 0),
        ):
            if name == "2022/s2" and isinstance(storage, LocalStorage):
                continue
            with pytest.raises(MissingFileError) as raised:
                ask(name)
            assert f"{storage.location}/{name}" in str(raised.value)
    with pytest.raises(StoreError):
        storage.describe("nowhere")
    assert list(storage.names("nowhere/")) == []
    storage.delete("nowhere")


def test_names_come_in_order_with_their_sizes_from_every_depth(make: Maker, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(object_storage, "PAGE", 3)
    storage = make("a")
    sizes = {
        "2022-a/b": 1,
        "2022.json": 2,
        "2022/s2.json": 3,
        "2022/s2/c.0.0.0": 4,
        "2022/s2/c.1.0.0": 5,
        "2022/s2/c.10.0.0": 6,
        "2022/s2/c.2.0.0": 7,
        "2022/s2_clear/c.0.0": 8,
        "2022/s2/deep/er/file": 9,
        "20220": 10,
        "zarr.json": 11,
    }
    for name in sizes:
        storage.write(name, [b"x" * sizes[name]])
    make("b").write("zarr.json", [b"of another store"])
    make("a-b").write("zarr.json", [b"of another store"])
    found = [(name, size) for name, size in storage.names() if not name.startswith(".build/")]
    assert found == [(name, sizes[name]) for name in sorted(sizes)]
    for prefix in ("2022/", "2022/s2/", "2022/s2/deep/"):
        assert list(storage.names(prefix)) == [item for item in found if item[0].startswith(prefix)]


def test_parts_that_fail_midway_leave_what_was_there(make: Maker) -> None:
    def parts(error: Exception) -> Iterator[bytes]:
        yield b"the first half"
        raise error

    storage = make("a")
    storage.write("old", [b"old content"])
    for name in ("old", "2022/new"):
        with pytest.raises(StoreError, match=r"cannot write .*scene went away"):
            storage.write(name, parts(OSError("scene went away")))
        with pytest.raises(KeyError):
            storage.write(name, parts(KeyError("a bug")))
    assert storage.read("old") == b"old content"
    assert not storage.exists("2022/new")


def test_who_reads_while_a_file_is_replaced_sees_one_whole_content(make: Maker) -> None:
    storage = make("a")
    contents = [bytes([number]) * 200_000 for number in range(6)]
    seen: list[bytes] = []
    done = threading.Event()

    def look() -> None:
        reader = pickle.loads(pickle.dumps(storage))
        while not done.is_set():
            seen.append(reader.read("root"))

    with storage.hold(), ThreadPoolExecutor(2) as pool:
        storage.replace("root", [contents[0]])
        looks = [pool.submit(look) for _ in range(2)]
        try:
            for content in contents[1:]:
                enough = len(seen) + 2
                storage.replace("root", [content[:100_000], content[100_000:]])
                while len(seen) < enough and not any(look.done() for look in looks):
                    time.sleep(0.001)
        finally:
            done.set()
        for each in looks:
            each.result()
    assert set(seen) <= set(contents)
    assert len(set(seen)) > 1


def test_a_file_is_described_by_who_wrote_it_and_by_anybody(make: Maker) -> None:
    storage = make("a")
    data = np.random.default_rng(1).bytes(50_000)
    expected = {"path": "2022/s2/c.0", "bytes": 50_000, "sha256": hashlib.sha256(data).hexdigest()}
    storage.write("2022/s2/c.0", [data[:7], data[7:]])
    assert storage.describe("2022/s2/c.0") == expected
    assert storage.describe("2022/s2/c.0") == expected
    assert make("a").describe("2022/s2/c.0") == expected
    storage.write("2022/s2/c.0", [b"another content"])
    storage.delete("2022/s2/c.0")
    with pytest.raises(StoreError):
        storage.describe("2022/s2/c.0")


def test_a_file_shared_with_another_store_has_the_same_bytes_and_a_life_of_its_own(make: Maker) -> None:
    first, second = make("a"), make("b")
    first.write("2022/s2/c.0.0", [b"pixels"])
    second.write("2022/s2/c.0.0", [b"others, to be replaced"])
    second.share("2022/s2/c.0.0", first)
    assert second.read("2022/s2/c.0.0") == b"pixels"
    assert second.describe("2022/s2/c.0.0")["sha256"] == hashlib.sha256(b"pixels").hexdigest()
    first.write("2022/s2/c.0.0", [b"newer"])
    assert second.read("2022/s2/c.0.0") == b"pixels"
    first.delete("2022/s2/c.0.0")
    assert second.read("2022/s2/c.0.0") == b"pixels"
    with pytest.raises(MissingFileError):
        second.share("2022/s2/c.9.9", first)


def test_a_store_can_be_sent_to_another_process(make: Maker) -> None:
    storage = make("a")
    with storage.hold():
        storage.write("2022/c.0", [b"x"])
        copy = pickle.loads(pickle.dumps(storage))
        assert copy.location == storage.location
        copy.write("2022/c.1", [b"y"])
    assert storage.read("2022/c.1") == b"y"
    assert copy.read("2022/c.0") == b"x"


def test_many_threads_write_at_once(make: Maker) -> None:
    storage = make("a")
    with storage.hold(), ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda number: storage.write(f"c.{number}", [b"%d" % number]), range(40)))
        records = list(pool.map(lambda number: storage.describe(f"c.{number}"), range(40)))
    for number, record in enumerate(records):
        assert storage.read(f"c.{number}") == b"%d" % number
        assert record["sha256"] == hashlib.sha256(b"%d" % number).hexdigest()


def test_a_place_with_something_else_is_refused_and_left_alone(make: Maker) -> None:
    storage = make("a")
    storage.write("thesis.tex", [b"dear diary"])
    if isinstance(storage, LocalStorage):
        for folder in (".build/tmp", ".build"):
            (storage.folder / folder).rmdir()
    with pytest.raises(StoreError, match=r"is not empty and has no .build/ to continue from"), storage.hold():
        pytest.fail("something else was taken for a store")
    assert [name for name, _ in storage.names()] == ["thesis.tex"]


def test_a_second_builder_of_the_same_process_is_refused_and_told_who_holds(make: Maker) -> None:
    with make("a").hold():
        with pytest.raises(StoreError, match=rf"locked by another builder .*process {os.getpid()}"), make("a").hold():
            pytest.fail("one store was held twice")
        with make("b").hold():
            pass
    with make("a").hold():
        pass


# Requests: what a file costs


def test_a_file_is_one_put_whatever_its_size(proxy: Proxy, storage: ObjectStorage) -> None:
    shard = np.random.default_rng(1).bytes(12_000_000)
    storage.write("2022/s2/c.0", [shard[:6_000_000], shard[6_000_000:]])
    record = storage.describe("2022/s2/c.0")
    assert [(request.method, request.body_size, request.query) for request in proxy.requests] == [
        ("PUT", len(shard), "")
    ]
    assert record["sha256"] == hashlib.sha256(shard).hexdigest()
    sent = proxy.requests[0].headers["x-amz-checksum-sha256"]
    assert base64.b64decode(sent) == hashlib.sha256(shard).digest()


def test_sharing_within_a_bucket_is_a_copy_by_the_server(proxy: Proxy, url: str) -> None:
    first, second = ObjectStorage(f"{url}/a"), ObjectStorage(f"{url}/b")
    first.write("2022/s2/c.0", [b"pixels"])
    before = len(proxy.requests)
    second.share("2022/s2/c.0", first)
    assert [(request.method, request.is_copy, request.body_size) for request in proxy.requests[before:]] == [
        ("PUT", True, 0)
    ]
    assert second.read("2022/s2/c.0") == b"pixels"


def test_sharing_with_a_folder_another_bucket_or_server_goes_through_this_machine(
    proxy: Proxy, server: str, storage: ObjectStorage, direct: ObjectStorage, tmp_path: Path
) -> None:
    folder = LocalStorage(tmp_path / "folder")
    folder.write("a", [b"from a folder"])
    storage.share("a", folder)
    put_plainly(server, "another-bucket")
    other = ObjectStorage("s3://another-bucket")
    other.share("a", storage)
    assert other.read("a") == b"from a folder"
    assert list(other.names()) == [("a", 13)]
    storage.write("b/a", [b"by another way"])
    direct.share("b/a", storage)
    folder.share("b/a", direct)
    assert folder.read("b/a") == b"by another way"
    assert not any(request.is_copy for request in proxy.requests)


def test_replacing_is_a_look_and_a_put(proxy: Proxy, storage: ObjectStorage) -> None:
    with storage.hold():
        for expected in ("if-none-match", "if-match"):
            before = len(proxy.requests)
            storage.replace("zarr.json", [ROOT])
            head, put = proxy.requests[before:]
            assert (head.method, put.method) == ("HEAD", "PUT")
            assert expected in put.headers


def test_a_shard_is_created_or_replaced_as_it_was_found_and_the_same_bytes_stay(
    proxy: Proxy, storage: ObjectStorage
) -> None:
    name = "2022/s2/c.0"
    with storage.hold():
        for data, expected in (
            (b"pixels", [("PUT", "if-none-match")]),
            (b"pixels", [("PUT", "if-none-match"), ("HEAD", ""), ("GET", "")]),
            (b"others", [("PUT", "if-none-match"), ("HEAD", ""), ("GET", ""), ("PUT", "if-match")]),
            (b"of another size", [("PUT", "if-none-match"), ("HEAD", ""), ("PUT", "if-match")]),
        ):
            before = len(proxy.requests)
            storage.write_permanent(name, [data])
            requests = [one for one in proxy.requests[before:] if name in one.key]
            conditions = [{"if-none-match", "if-match"} & one.headers.keys() for one in requests]
            assert [(one.method, "".join(found)) for one, found in zip(requests, conditions, strict=True)] == expected
            assert storage.read(name) == data
            assert storage.describe(name)["sha256"] == hashlib.sha256(data).hexdigest()


# One builder


def test_a_second_builder_is_told_which_process_of_which_machine_holds_the_store(url: str) -> None:
    with other_builder(url, lease=60) as holder:
        with pytest.raises(StoreError, match="locked by another builder") as raised, ObjectStorage(url).hold():
            pytest.fail("two builders hold one store")
        lock = lock_of(ObjectStorage(url))
        assert f"({lock['holder']['host']} process {holder.pid}, since {lock['since']})" in str(raised.value)
        assert url in str(raised.value)
        assert lock["seconds"] == 60
        assert lock["token"] == 1


def test_the_store_of_a_builder_that_was_killed_is_free_when_its_lease_ran_out(url: str) -> None:
    storage = ObjectStorage(url)
    with other_builder(url, lease=2) as holder:
        with pytest.raises(StoreError, match=f"process {holder.pid}"), storage.hold():
            pytest.fail("two builders hold one store")
        holder.send_signal(signal.SIGKILL)
        assert holder.wait(timeout=60) == -signal.SIGKILL
    assert not lock_of(storage)["released"]
    with hold_when_free(storage):
        assert lock_of(storage)["token"] == 2
        assert lock_of(storage)["holder"]["process"] == os.getpid()
        storage.replace("zarr.json", [CHANGED])
    assert storage.read("zarr.json") == CHANGED


def test_a_stalled_builder_cannot_change_what_its_successor_wrote(url: str) -> None:
    storage = ObjectStorage(url)
    with other_builder(url, lease=2) as stalled:
        assert stalled.stdin is not None
        assert stalled.stdout is not None
        stalled.send_signal(signal.SIGSTOP)
        try:
            with hold_when_free(storage):
                storage.replace("zarr.json", [CHANGED])
        finally:
            stalled.send_signal(signal.SIGCONT)
        stalled.stdin.write("go on\n")
        stalled.stdin.flush()
        said = stalled.stdout.readline()
        assert said.startswith("refused: ")
        assert f"another builder ({lock_of(storage)['holder']['host']} process {os.getpid()}" in said
        assert "took over" in said
        assert stalled.wait(timeout=60) == 0
    assert storage.read("zarr.json") == CHANGED
    # The stalled one did not release what was no longer its own, either.
    assert lock_of(storage)["token"] == 2


def test_a_stalled_builder_goes_on_where_nobody_took_over(url: str) -> None:
    with other_builder(url, lease=2) as stalled:
        assert stalled.stdin is not None
        assert stalled.stdout is not None
        stalled.send_signal(signal.SIGSTOP)
        time.sleep(3)
        stalled.send_signal(signal.SIGCONT)
        stalled.stdin.write("go on\n")
        stalled.stdin.flush()
        assert stalled.stdout.readline() == "written\n"
        assert stalled.wait(timeout=60) == 0
    assert ObjectStorage(url).read("zarr.json") == b"too late"
    assert lock_of(ObjectStorage(url))["released"]


@contextmanager
def cut_off(
    proxy: Proxy, write: Callable[[str, list[bytes]], None], name: str, content: bytes, condition: str = "if-"
) -> Iterator[tuple[threading.Event, Any]]:
    """A builder whose PUT of a file hangs on its way, and whose lease cannot be renewed any more.

    write: method of its storage. condition: what a header of that PUT begins with. Gives what lets the PUT arrive, and
    the future of `write`.
    """
    arrive = threading.Event()

    def fault(request: Request) -> Fault | None:
        conditional = any(header.startswith(condition) for header in request.headers)
        if request.method == "PUT" and request.key.endswith(name) and conditional and not arrive.is_set():
            reached.set()
            return Fault(until=arrive)
        return Fault(status=503) if is_lock(request) and not arrive.is_set() else None

    reached = threading.Event()
    with ThreadPoolExecutor(1) as pool:
        proxy.fault = fault
        future = pool.submit(write, name, [content])
        try:
            assert reached.wait(60)
            yield arrive, future
        finally:
            arrive.set()


def test_a_write_held_up_on_its_way_does_not_undo_the_successors(proxy: Proxy, url: str, direct: ObjectStorage) -> None:
    storage = ObjectStorage(url, SHORT)
    ObjectStorage(f"{url}-other").write("2022/c.0", [b"too late"])
    with storage.hold():
        storage.replace("zarr.json", [ROOT])
        with cut_off(proxy, storage.replace, "zarr.json", b"too late") as (arrive, replacing), hold_when_free(direct):
            direct.replace("zarr.json", [CHANGED])
            arrive.set()
            with pytest.raises(StoreError, match="took over"):
                replacing.result(60)
        with pytest.raises(StoreError, match="took over"):
            storage.write("2022/c.0", [b"too late"])
        with pytest.raises(StoreError, match="took over"):
            storage.delete("zarr.json")
        with pytest.raises(StoreError, match="took over"):
            storage.share("2022/c.0", ObjectStorage(f"{url}-other"))
    assert direct.read("zarr.json") == CHANGED
    assert not direct.exists("2022/c.0")


def test_a_write_that_arrives_before_the_successors_ends_its_builder_and_is_replaced(
    proxy: Proxy, url: str, direct: ObjectStorage
) -> None:
    storage = ObjectStorage(url, SHORT)
    with storage.hold():
        storage.replace("zarr.json", [ROOT])
        with cut_off(proxy, storage.replace, "zarr.json", b"too late") as (arrive, replacing), hold_when_free(direct):
            arrive.set()
            with pytest.raises(StoreError, match="took over"):
                replacing.result(60)
            direct.replace("zarr.json", [CHANGED])
    assert direct.read("zarr.json") == CHANGED


@pytest.mark.parametrize("before", [None, b"of a killed build"])
def test_a_late_shard_does_not_undo_the_successors(
    proxy: Proxy, url: str, direct: ObjectStorage, before: bytes | None
) -> None:
    name = "2022/s2/c.0"
    with direct.hold():
        if before is not None:
            direct.write_permanent(name, [before])
    storage = ObjectStorage(url, SHORT)
    condition = "if-none-match" if before is None else "if-match"
    with (
        storage.hold(),
        cut_off(proxy, storage.write_permanent, name, b"too late", condition) as (arrive, writing),
        hold_when_free(direct),
    ):
        direct.write_permanent(name, [b"of the successor"])
        arrive.set()
        with pytest.raises(StoreError, match="took over"):
            writing.result(60)
    assert direct.read(name) == b"of the successor"


def test_a_hold_lasts_longer_than_its_lease_while_its_builder_computes_or_writes(url: str) -> None:
    storage, other = ObjectStorage(url, SHORT), ObjectStorage(url)

    def is_refused(renewals: int) -> bool:
        """Whether another builder is refused after so many renewals and more than two leases."""
        start = moment()
        while moment() - start < 5 or lock_of(other)["renewals"] < renewals:
            time.sleep(0.1)
            assert moment() - start < 60, "the lease is not renewed"
        with pytest.raises(StoreError, match="locked by another builder"), other.hold():
            pytest.fail("two builders hold one store")
        return lock_of(other)["token"] == 1

    with storage.hold(), ThreadPoolExecutor(4) as pool:
        assert is_refused(renewals=4), "while it computed"
        waiting = pool.submit(is_refused, 8)
        number = 0
        while not waiting.done():
            list(pool.map(lambda each: storage.write(f"2022/c.{each}", [b"x" * 10_000]), range(number, number + 8)))
            storage.replace("zarr.json", [b"%d" % number])
            number += 8
        assert waiting.result(), "while it wrote"
    assert other.read("zarr.json") == b"%d" % (number - 8)


def test_a_lease_counts_from_before_its_put_and_is_relied_on_for_less_than_its_length(proxy: Proxy, url: str) -> None:
    storage = ObjectStorage(url, Patience(lease=60))
    arrived: list[float] = []

    def late(request: Request) -> Fault | None:
        if not is_lock(request):
            return None
        arrived.append(moment())
        answer = threading.Event()
        threading.Timer(0.3, answer.set).start()
        return Fault(until=answer)

    with storage.hold():
        lease = storage.lease
        assert lease is not None
        proxy.fault = late
        lease.renew()
        # The server counts from when it wrote the lock, after it arrived.
        assert len(arrived) == 1
        assert moment() - arrived[0] >= 0.3
        assert lease.relied_on_until <= arrived[0] + 0.9 * 60
        proxy.heal()


def test_a_released_store_can_be_held_at_once_and_the_token_counts_the_holds(url: str) -> None:
    tokens, states = [], []
    for _ in range(3):
        with ObjectStorage(url).hold():
            tokens.append(lock_of(ObjectStorage(url))["token"])
            states.append(ObjectStorage(url).read(LOCK))
        assert lock_of(ObjectStorage(url))["released"]
        states.append(ObjectStorage(url).read(LOCK))
    assert tokens == [1, 2, 3]
    assert len(set(states)) == 6, "two states of the lock have the same ETag"
    with pytest.raises(KeyError), ObjectStorage(url).hold():
        raise KeyError("a build that failed")
    with ObjectStorage(url).hold():
        pass


@pytest.mark.parametrize("before", ["no lock", "a lock that ran out"])
def test_of_many_builders_that_start_together_one_gets_the_store(url: str, before: str) -> None:
    builders = 6
    if before == "a lock that ran out":
        lock = Lock("host", 1, "id", 7, -10.0, "2022-01-01T00:00:00Z", "2022-01-01T00:00:00Z")
        ObjectStorage(url).write(LOCK, [lock.encode()])
    start, end = threading.Barrier(builders), threading.Barrier(builders)

    def build(_: int) -> int | str:
        storage = ObjectStorage(url)
        start.wait(60)
        try:
            with storage.hold():
                token: int = lock_of(storage)["token"]
                end.wait(60)
                return token
        except StoreError as error:
            end.wait(60)
            return str(error)

    with ThreadPoolExecutor(builders) as pool:
        told = list(pool.map(build, range(builders)))
    assert [each for each in told if isinstance(each, int)] == [8 if before == "a lock that ran out" else 1]
    assert all("locked by another builder" in each for each in told if isinstance(each, str))


def test_an_answer_that_was_lost_is_not_taken_for_another_builder(proxy: Proxy, url: str) -> None:
    storage = ObjectStorage(url, SHORT)
    for fault in (Fault(told_late=True), Fault(told_late=True, status=500)):
        proxy.fail_if(is_lock, fault, times=1)
        with storage.hold():
            token = lock_of(storage)["token"]
            proxy.fail_if(is_lock, fault, times=2)
            while lock_of(storage)["renewals"] < 3:
                storage.write("2022/c.0", [b"x"])
            proxy.fail_if(lambda request: request.method == "PUT" and request.key.endswith("zarr.json"), fault, times=2)
            storage.replace("zarr.json", [ROOT])
            storage.replace("zarr.json", [CHANGED])
            assert storage.read("zarr.json") == CHANGED
            proxy.fail_if(is_lock, fault, times=1)
        assert lock_of(storage)["token"] == token
        assert lock_of(storage)["released"]


def test_a_builder_that_cannot_renew_is_told_why_and_goes_on_when_it_can(
    proxy: Proxy, url: str, caplog: pytest.LogCaptureFixture
) -> None:
    storage = ObjectStorage(url, SHORT)
    with storage.hold():
        storage.replace("zarr.json", [ROOT])
        proxy.fail_if(is_lock, Fault(status=503, code="SlowDown"))
        with pytest.raises(StoreError, match=r"expired and cannot be renewed: 503 .*SlowDown.*rerun") as raised:
            go_on(lambda: storage.replace("zarr.json", [ROOT]))
        assert url in str(raised.value)
        with pytest.raises(StoreError, match="cannot be renewed"):
            storage.write("2022/c.0", [b"x"])
        renewing = f"renewing the lock of {url}: attempt 1 failed: 503 "
        # The thread that renews it said so, and so did who had to rely on it.
        assert {one.threadName for one in caplog.records if one.getMessage().startswith(renewing)} == {
            "lease",
            "MainThread",
        }
        proxy.heal()
        storage.replace("zarr.json", [CHANGED])
    assert storage.read("zarr.json") == CHANGED


def test_a_worker_writes_nothing_after_its_build_gave_up_the_lock_lost_it_or_died(url: str) -> None:
    storage = ObjectStorage(url)
    ObjectStorage(f"{url}-other").write("2022/c.1", [b"of another store"])

    def refuses(worker: ObjectStorage, why: str) -> None:
        for act in (
            lambda: worker.write("2022/c.1", [b"late"]),
            lambda: worker.share("2022/c.1", ObjectStorage(f"{url}-other")),
            lambda: worker.delete("2022/c.0"),
        ):
            with pytest.raises(StoreError, match=rf"nothing is written to {url}: .* is over \({why}"):
                act()
        assert ObjectStorage(url).exists("2022/c.0")
        assert not ObjectStorage(url).exists("2022/c.1")

    with storage.hold():
        worker = pickle.loads(pickle.dumps(storage))
        worker.write("2022/c.0", [b"x"])
    early = pickle.loads(pickle.dumps(storage))
    for late in (worker, early, storage):
        refuses(late, "it gave up its lock")
    with other_builder(url, lease=2) as builder:
        # As the builder would have pickled its storage.
        workers = [ObjectStorage(url, SHORT, lock_of(storage)["holder"]["id"]) for _ in range(3)]
        for worker in workers[1:]:
            worker.write("2022/c.0", [b"x"])
        refuses(early, "another builder")
        builder.kill()
        builder.wait(60)
        # Until its lease ran out nobody can tell that it died.
        with pytest.raises(StoreError, match="did not renew its lock"):
            go_on(lambda: workers[1].write("2022/c.0", [b"x"]))
        for worker in workers:
            refuses(worker, "its builder did not renew its lock for 2 s")
        with hold_when_free(ObjectStorage(url)):
            for worker in workers:
                refuses(worker, rf"another builder \({lock_of(storage)['holder']['host']} process {os.getpid()}")
    ObjectStorage(url).delete(LOCK)
    refuses(workers[0], "its lock was deleted")


def test_a_worker_asks_for_the_lock_once_a_file_and_seldom_for_the_clock(proxy: Proxy, url: str) -> None:
    storage = ObjectStorage(url)
    with storage.hold():
        worker = pickle.loads(pickle.dumps(storage))
        before = len(proxy.requests)
        for number in range(8):
            worker.write(f"2022/c.{number}", [b"x"])
        asked = Counter((request.method, request.key.rpartition("/")[2]) for request in proxy.requests[before:])
        assert asked["GET", "lock"] == 8
        assert asked["PUT", "clock"] == asked["HEAD", "clock"] == 1
        assert sum(count for (method, key), count in asked.items() if key.startswith("c.")) == 8
        assert asked.total() == 18


def test_a_worker_goes_on_for_longer_than_a_lease_while_its_builder_lives(url: str) -> None:
    storage = ObjectStorage(url, SHORT)
    with storage.hold():
        worker, idle = (pickle.loads(pickle.dumps(storage)) for _ in range(2))
        idle.write("2022/c.idle", [b"x"])
        start, number = moment(), 0
        while moment() - start < 5 or lock_of(storage)["renewals"] < 4:
            assert moment() - start < 60, "the lease is not renewed"
            worker.write(f"2022/c.{number}", [b"x"])
            number += 1
        idle.write("2022/c.idle", [b"y"])
    assert ObjectStorage(url).read("2022/c.idle") == b"y"


def test_a_process_that_does_not_hold_the_store_replaces_nothing(url: str) -> None:
    storage = ObjectStorage(url, Patience(lease=30, retry=20))
    with storage.hold():
        storage.replace("zarr.json", [ROOT])
        worker = pickle.loads(pickle.dumps(storage))
        assert worker.patience == storage.patience
        worker.write("2022/c.0", [b"shards may be written"])
        with pytest.raises(StoreError, match="does not have the lock of the store"):
            worker.replace("zarr.json", [CHANGED])
    with pytest.raises(StoreError, match="does not have the lock of the store"):
        storage.replace("zarr.json", [CHANGED])
    assert storage.read("zarr.json") == ROOT


def test_a_server_that_ignores_conditions_is_refused(proxy: Proxy, storage: ObjectStorage) -> None:
    for header in ("if-match", "if-none-match"):
        proxy.fail_if(lambda request, header=header: header in request.headers, Fault(no_conditions=True))
        with pytest.raises(StoreError, match=r"ignores the conditions of a PUT.*build in a folder"), storage.hold():
            pytest.fail("a store was held that anybody else could hold, too")
        assert not storage.exists(LOCK)
    proxy.fail_if(lambda request: "if-none-match" in request.headers, Fault(status=501, code="NotImplemented"))
    with pytest.raises(StoreError, match="ignores the conditions of a PUT"), storage.hold():
        pytest.fail("a store was held without a lock")


def test_a_damaged_lock_is_told_and_left_alone(storage: ObjectStorage) -> None:
    for damaged in (b"", b"[]", b"{}", b'{"holder": 1}'):
        storage.write(LOCK, [damaged])
        with pytest.raises(StoreError, match=r"\.build/lock.*is damaged.*delete it if"), storage.hold():
            pytest.fail("a lock that cannot be read was ignored")
        assert storage.read(LOCK) == damaged


def test_a_lock_deleted_under_its_holder_ends_the_hold(url: str) -> None:
    storage = ObjectStorage(url, SHORT)
    with storage.hold():
        ObjectStorage(url).delete(LOCK)
        with pytest.raises(StoreError, match=r"lock of .* was deleted"):
            go_on(lambda: storage.write("2022/c.0", [b"x"]))
    assert not ObjectStorage(url).exists(LOCK)


@pytest.mark.parametrize("year", ["1990", "2090"])
def test_a_lock_is_as_old_as_the_server_says_whatever_its_holders_clock_said(url: str, year: str) -> None:
    def lock(seconds: float) -> bytes:
        return Lock("host", 1, "id", 1, seconds, f"{year}-01-01T00:00:00Z", f"{year}-01-01T00:00:00Z").encode()

    storage = ObjectStorage(url)
    storage.write(LOCK, [lock(seconds=60)])
    with pytest.raises(StoreError, match=f"host process 1, since {year}"), storage.hold():
        pytest.fail("a clock that is wrong freed a store")
    storage.write(LOCK, [lock(seconds=-10)])
    with storage.hold():
        pass


# A server that fails


FAULTS = {
    "500": Fault(status=500),
    "503": Fault(status=503, code="SlowDown"),
    "connection cut in the request": Fault(cut_request=True),
    "connection cut in the answer": Fault(cut_answer=True),
    "answer lost": Fault(told_late=True),
    "done, told as failed": Fault(told_late=True, status=500),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_every_kind_of_request_survives_every_kind_of_failure(proxy: Proxy, url: str, fault: str) -> None:
    storage, other = ObjectStorage(f"{url}/a"), ObjectStorage(f"{url}/b")
    record = {"path": "a", "bytes": 6, "sha256": hashlib.sha256(b"pixels").hexdigest()}

    def once(ask: Callable[[], Any]) -> Any:
        before = len(proxy.requests)
        proxy.fail_if(lambda request: True, FAULTS[fault], times=1)
        answer = ask()
        assert len(proxy.requests) > before
        return answer

    with storage.hold():
        once(lambda: storage.write("a", [b"pixels"]))
        assert once(lambda: storage.read("a")) == b"pixels"
        assert once(lambda: storage.read_range("a", 2, 3)) == b"xel"
        assert once(lambda: storage.read_range("a", 6, 3)) == b""
        assert once(lambda: storage.size("a")) == 6
        assert once(lambda: storage.size("b")) is None
        assert once(lambda: ObjectStorage(storage.location).describe("a")) == record
        assert once(lambda: [item for item in storage.names() if not item[0].startswith(".")]) == [("a", 6)]
        once(lambda: other.share("a", storage))
        assert other.read("a") == b"pixels"
        for content in (ROOT, CHANGED):
            once(lambda content=content: storage.replace("zarr.json", [content]))
            assert storage.read("zarr.json") == content
        once(lambda: storage.delete("a"))
        assert not storage.exists("a")


@pytest.mark.parametrize("fault", ["503", "connection cut in the request", "answer lost"])
def test_nothing_is_noticed_of_a_server_that_fails_every_tenth_request(proxy: Proxy, url: str, fault: str) -> None:
    first, second = ObjectStorage(f"{url}/a"), ObjectStorage(f"{url}/b")
    shards = {f"2022/s2/c.{number}.0.0": np.random.default_rng(number).bytes(20_000) for number in range(12)}
    proxy.fail_every(10, FAULTS[fault])
    with first.hold():
        for name, shard in shards.items():
            first.write(name, [shard])
            first.replace("zarr.json", [name.encode()])
            assert first.describe(name)["sha256"] == hashlib.sha256(shard).hexdigest()
    with second.hold():
        for name in shards:
            second.share(name, first)
    for storage in (first, second):
        fresh = pickle.loads(pickle.dumps(storage))
        found = [(name, size) for name, size in fresh.names("2022/")]
        assert found == [(name, 20_000) for name in sorted(shards)]
        for name, shard in shards.items():
            assert fresh.read(name) == shard
            assert fresh.read_range(name, 5000, 1000) == shard[5000:6000]
            assert fresh.describe(name)["sha256"] == hashlib.sha256(shard).hexdigest()
            assert fresh.size(name) == 20_000
    assert first.read("zarr.json") == max(shards, key=lambda name: int(name.split(".")[1])).encode()
    with second.hold():
        for name in shards:
            second.delete(name)
    assert list(second.names("2022/")) == []
    assert len(proxy.requests) > 100


def test_a_server_that_always_fails_is_told_by_file_and_cause(proxy: Proxy, url: str) -> None:
    storage = ObjectStorage(url, SOON)
    storage.write("zarr.json", [ROOT])
    asked: dict[str, Callable[[], Any]] = {
        "read": lambda: storage.read("zarr.json"),
        "read_range": lambda: storage.read_range("zarr.json", 0, 1),
        "size": lambda: storage.size("zarr.json"),
        "describe": lambda: ObjectStorage(url, SOON).describe("zarr.json"),
        "write": lambda: storage.write("zarr.json", [CHANGED]),
        "delete": lambda: storage.delete("zarr.json"),
        "share": lambda: storage.share("zarr.json", ObjectStorage(f"{url}/other", SOON)),
        "names": lambda: list(storage.names()),
    }
    proxy.fail_if(lambda request: True, Fault(status=500))
    for what, ask in asked.items():
        with pytest.raises(StoreError, match=r"500 Internal Server Error.*rerun") as raised:
            ask()
        assert url in str(raised.value), what
        assert "Debug source" not in str(raised.value)
    with pytest.raises(StoreError, match="500"), storage.hold():
        pytest.fail("a store was held that does not answer")
    proxy.heal()
    assert storage.read("zarr.json") == ROOT


def test_a_connection_cut_in_the_middle_of_a_shard_leaves_no_half_of_it(
    proxy: Proxy, url: str, direct: ObjectStorage
) -> None:
    storage = ObjectStorage(url, SOON)
    shard = np.random.default_rng(1).bytes(1_000_000)
    with storage.hold():
        storage.write("2022/s2/c.0", [b"old"])
        proxy.fail_if(lambda request: request.method == "PUT" and "2022" in request.key, Fault(cut_request=True))
        for name in ("2022/s2/c.0", "2022/s2/c.1"):
            with pytest.raises(StoreError, match=r"cannot write .*finished blocks are kept"):
                storage.write(name, [shard])
            with pytest.raises(StoreError, match="cannot write"):
                storage.replace(name, [shard])
        assert direct.read("2022/s2/c.0") == b"old"
        assert list(direct.names("2022/")) == [("2022/s2/c.0", 3)]
        proxy.heal()
        for name in ("2022/s2/c.0", "2022/s2/c.1"):
            storage.write(name, [shard])
            assert direct.read(name) == shard


def test_what_is_wrong_with_the_settings_is_told(
    proxy: Proxy, url: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    def told(location: str = url) -> str:
        storage = ObjectStorage(location, SOON)
        with pytest.raises(StoreError) as raised:
            storage.write("a", [b"x"])
        assert not isinstance(raised.value, MissingFileError)
        return str(raised.value)

    assert "404 Not Found, NoSuchBucket" in told("s3://no-such-bucket/store")
    with pytest.raises(StoreError, match=r"NoSuchBucket.*create the bucket"), ObjectStorage("s3://nowhere/a").hold():
        pytest.fail("a bucket was held that is not there")
    proxy.fail_if(lambda request: True, Fault(status=403, code="AccessDenied"))
    assert "403 Forbidden, AccessDenied" in told()
    assert "check AWS_ACCESS_KEY_ID" in told()
    proxy.heal()
    monkeypatch.delenv("AWS_ALLOW_HTTP")
    assert "set AWS_ALLOW_HTTP=true" in told()
    monkeypatch.setenv("AWS_ALLOW_HTTP", "true")
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:1")
    assert "Connection refused" in told()
    monkeypatch.setenv("AWS_METADATA_ENDPOINT", "http://127.0.0.1:1")
    monkeypatch.delenv("AWS_ACCESS_KEY_ID")
    with pytest.raises(StoreError, match=r"AccessKeyId.*AWS_"):
        ObjectStorage(url)
    monkeypatch.delenv("AWS_SECRET_ACCESS_KEY")
    assert "no credentials; set AWS_ACCESS_KEY_ID" in told()
    monkeypatch.setenv("AWS_SKIP_SIGNATURE", "true")
    monkeypatch.setenv("AWS_ENDPOINT_URL", proxy.url)
    ObjectStorage(url).write("a", [b"from anybody"])
    assert "authorization" not in proxy.requests[-1].headers


@pytest.mark.parametrize("wrong", ["s3://", "s3:///prefix", "s3://bucket/a//b", "s3://bucket/../b", "s3://bucket/./b"])
def test_a_location_that_is_none_is_refused(wrong: str) -> None:
    with pytest.raises(StoreError, match="expected s3://bucket/prefix"):
        open_storage(wrong)


def test_locations_with_a_slash_at_the_end_or_strange_letters_are_the_same_store(proxy: Proxy, url: str) -> None:
    for prefix in ("", "/a b", "/größe", "/a%20b", "/a+b"):
        open_storage(f"{url}{prefix}").write("2022/c.0", [prefix.encode()])
    for prefix in ("", "/a b", "/größe", "/a%20b", "/a+b"):
        storage = open_storage(f"{url}{prefix}/")
        assert storage.read("2022/c.0") == prefix.encode()
        assert list(storage.names("2022/")) == [("2022/c.0", len(prefix.encode()))]
        assert storage.where("2022/c.0") == f"{url}{prefix}/2022/c.0"


def test_the_empty_object_that_shows_a_folder_is_no_file(server: str, storage: ObjectStorage) -> None:
    put_plainly(server, f"{BUCKET}/{storage.prefix}")
    assert list(storage.names()) == []
    with storage.hold():
        storage.write("a", [b"x"])
    assert [name for name, _ in storage.names() if not name.startswith(".build/")] == ["a"]


# A whole build


@pytest.fixture
def recipe(region: TinyRegion) -> Recipe:
    """A season of two blocks."""
    region.add_sentinel2("july", "2022-07-01T10:50:00Z", 1500)
    region.add_sentinel2("august", "2022-08-01T10:50:00Z", 2500)
    return region.recipe()


def published(storage: Storage) -> dict[str, bytes]:
    """The files of a store that readers see."""
    return {name: storage.read(name) for name, _ in storage.names() if not name.startswith(".build/")}


@pytest.mark.parametrize("kind", ["threads", "processes"])
def test_a_store_built_in_a_bucket_that_fails_every_tenth_request_is_the_one_built_in_a_folder(
    proxy: Proxy, storage: ObjectStorage, recipe: Recipe, tmp_path: Path, kind: WorkerKind
) -> None:
    build_store(recipe, tmp_path / "folder")
    proxy.fail_every(10, Fault(status=500))
    report = build_store(recipe, storage.location, workers=Workers(2, kind))
    proxy.heal()
    assert report.built == 2
    assert published(storage) == published(LocalStorage(tmp_path / "folder"))
    season = h2crop_data.open(storage.location, 2022).load()
    xr.testing.assert_identical(season, h2crop_data.open(tmp_path / "folder", 2022).load())
    assert build_store(recipe, storage.location).already_done == 2


def test_a_build_stopped_by_the_server_in_a_shard_shows_no_release_and_goes_on_when_run_again(
    proxy: Proxy, storage: ObjectStorage, direct: ObjectStorage, recipe: Recipe, tmp_path: Path
) -> None:
    build_store(recipe, tmp_path / "folder")
    for key, fault in (
        ("/2022/s2/c.1.", Fault(status=403, code="AccessDenied")),
        ("/store/zarr.json", Fault(status=400, code="InvalidRequest")),
    ):
        proxy.fail_if(lambda request, key=key: request.method == "PUT" and key in request.key, fault)
        with pytest.raises(StoreError, match=rf"cannot write {storage.location}/.*{fault.status}.*{fault.code}"):
            build_store(recipe, storage.location, workers=1)
        assert not direct.exists("zarr.json")
        with pytest.raises(StoreError, match=f"check that {storage.location} is a finished store"):
            h2crop_data.open(storage.location, 2022)
    proxy.heal()
    report = build_store(recipe, storage.location)
    assert (report.built, report.already_done) == (0, 2)
    assert published(direct) == published(LocalStorage(tmp_path / "folder"))


def test_a_store_in_a_bucket_that_lost_its_root_is_left_alone_until_it_is_put_back(
    proxy: Proxy, storage: ObjectStorage, recipe: Recipe
) -> None:
    build_store(recipe, storage.location)
    whole = published(storage)
    storage.delete("zarr.json")
    command = f"`h2crop restore {storage.location}`"
    before = len(proxy.requests)
    with pytest.raises(StoreError, match=f"{storage.location} has lost its root zarr.json.*{command}"):
        build_store(recipe, storage.location)
    assert {request.key.rpartition("/")[2] for request in proxy.requests[before:] if request.method == "PUT"} <= {
        "lock",
        "clock",
    }
    assert published(storage) == {name: data for name, data in whole.items() if name != "zarr.json"}
    assert restore_root(storage.location).restored
    report = build_store(recipe, storage.location)
    assert (report.release, report.built) == (1, 0)
    assert published(storage) == whole
    assert not storage.exists(".build/sealing.json")


def test_what_was_retracted_in_a_bucket_does_not_come_back_when_its_record_is_lost(
    storage: ObjectStorage, recipe: Recipe
) -> None:
    build_store(recipe, storage.location)
    retract_from_store(storage.location, {2022: [0]}, [], "haze")
    storage.delete(".build/retracted.json")
    with pytest.raises(StoreError, match=rf"excludes block 0 of 2022 \(haze\), but {storage.location}/.build"):
        build_store(recipe, storage.location, extend=True)
    retract_from_store(storage.location, {2022: [0]}, [], "haze")
    assert build_store(recipe, storage.location).release == 2


def test_lost_coordinates_and_other_sums_in_a_bucket_are_told(storage: ObjectStorage, recipe: Recipe) -> None:
    build_store(recipe, storage.location)
    chunk, sums = "2022/valid/c.0", ".build/2022/000000.sums"
    whole = {name: storage.read(name) for name in (chunk, sums)}
    storage.delete(chunk)
    # Our readers go by the index; the next build repairs the release for others.
    assert h2crop_data.open(storage.location, 2022).sizes["sample"] == 4
    assert build_store(recipe, storage.location).repaired == [chunk]
    assert storage.read(chunk) == whole[chunk]
    storage.write(sums, [whole[sums][:-1]])
    # They are read when their season is sealed again.
    storage.delete(".build/sealed/2022.json")
    with pytest.raises(StoreError, match=f"{storage.location}/{sums} is missing or damaged"):
        build_store(recipe, storage.location)
    assert migrate_store(storage.location).mended == 1
    assert storage.read(sums) == whole[sums]


# Reading by Zarr


def test_zarr_reads_what_was_uploaded_sharded_and_plain(storage: ObjectStorage, tmp_path: Path) -> None:
    folder = tmp_path / "local"
    root = zarr.create_group(folder)
    values = np.random.default_rng(1).integers(0, 1000, (8, 4, 6)).astype("int16")
    for name, shards in (("sharded", (4, 4, 6)), ("plain", None)):
        array = root.create_array(
            name, shape=values.shape, chunks=(1, 4, 6), shards=shards, dtype="int16", fill_value=-1,
            chunk_key_encoding={"name": "default", "separator": "."},
        )  # fmt: skip
        array[:] = values
    local = LocalStorage(folder)
    for name, _ in local.names():
        storage.share(name, local)
    for opened in (s3_zarr_store(storage.location), pickle.loads(pickle.dumps(s3_zarr_store(storage.location)))):
        group = zarr.open_group(opened, mode="r")
        for name in ("sharded", "plain"):
            array = group[name]
            assert isinstance(array, zarr.Array)
            np.testing.assert_array_equal(array[:], values)
            np.testing.assert_array_equal(array[3, 1:3], values[3, 1:3])
    storage.delete("sharded/c.1.0.0")
    missing = zarr.open_group(s3_zarr_store(storage.location), mode="r")["sharded"]
    assert isinstance(missing, zarr.Array)
    assert np.all(missing[4:] == -1)
    with pytest.raises(ValueError, match="read-only"):
        zarr.open_group(s3_zarr_store(storage.location), mode="w")


def test_zarr_tells_a_server_that_refuses_instead_of_reading_fill(
    proxy: Proxy, storage: ObjectStorage, tmp_path: Path
) -> None:
    local = LocalStorage(tmp_path / "local")
    zarr.create_array(local.folder, name="a", shape=(4,), chunks=(2,), dtype="int16", fill_value=-1)[:] = 5
    for name, _ in local.names():
        storage.share(name, local)
    array = zarr.open_array(s3_zarr_store(storage.location), path="a", mode="r")
    proxy.fail_if(lambda request: "/c/" in request.key, Fault(status=403, code="AccessDenied"))
    with pytest.raises(StoreError, match=r"cannot read s3://.*403 Forbidden, AccessDenied.*AWS_ACCESS_KEY_ID"):
        array[:]
    proxy.fail_every(2, Fault(cut_answer=True))
    np.testing.assert_array_equal(array[:], 5)


FORKED = """
import os, sys
import zarr
from h2crop_data.storage.s3 import ObjectStorage, s3_zarr_store
from h2crop_data.errors import StoreError

storage = ObjectStorage(sys.argv[1])
array = zarr.open_array(s3_zarr_store(sys.argv[1]), path="a", mode="r")
assert storage.exists("a/zarr.json")
for ask in (lambda: storage.read("a/zarr.json"), lambda: ObjectStorage(sys.argv[1]).read("x"), lambda: array[:]):
    child = os.fork()
    if not child:
        try:
            ask()
        except StoreError as error:
            os._exit(7 if "forked" in str(error) else 8)
        os._exit(9)
    print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
"""


def test_a_forked_process_is_told_that_it_cannot_read_instead_of_waiting_for_ever(
    storage: ObjectStorage, tmp_path: Path
) -> None:
    local = LocalStorage(tmp_path / "local")
    zarr.create_array(local.folder, name="a", shape=(4,), chunks=(2,), dtype="int16", fill_value=-1)[:] = 5
    for name, _ in local.names():
        storage.share(name, local)
    ran = subprocess.run(
        [sys.executable, "-c", FORKED, storage.location], capture_output=True, text=True, timeout=120, check=False
    )
    assert ran.stdout.split() == ["7", "7", "7"], ran.stderr
