"""Stores in folders: whole files that survive a power cut, shared files, one builder, and disks that are full."""

from __future__ import annotations

import errno
import hashlib
import os
import pickle
import resource
import signal
import stat
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from small_disk import SMALL_DISK, mounted
from temporary_files import unfinished

from h2crop_data.errors import MissingFileError, StoreError
from h2crop_data.storage.local import LocalStorage
from h2crop_data.storage.location import open_storage
from h2crop_data.storage.storage import canonical_json

#: A file system in memory, another one than that of temporary folders.
MEMORY = Path("/dev/shm")


@pytest.fixture
def storage(tmp_path: Path) -> LocalStorage:
    """An empty store."""
    return LocalStorage(tmp_path / "store")


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of SMALL_DISK bytes."""
    with mounted(tmp_path / "disk") as folder:
        yield folder


# Files


def test_a_path_opens_a_folder_and_a_url_of_another_kind_is_refused(tmp_path: Path) -> None:
    for location in (tmp_path, str(tmp_path)):
        opened = open_storage(location)
        assert isinstance(opened, LocalStorage)
        assert opened.folder == tmp_path
    with pytest.raises(
        StoreError, match="invalid location of a store gs://bucket/store; expected a folder or s3://bucket/prefix"
    ):
        open_storage("gs://bucket/store")


def test_a_file_is_on_disk_before_it_has_its_name_and_its_name_is_on_disk_before_it_counts(
    storage: LocalStorage, monkeypatch: pytest.MonkeyPatch
) -> None:
    target = storage.folder / "2022/s2/c.0"
    synced: list[tuple[int, bool]] = []
    fsync = os.fsync

    def record(descriptor: int) -> None:
        fsync(descriptor)
        synced.append((os.fstat(descriptor).st_ino, target.exists()))

    monkeypatch.setattr(os, "fsync", record)
    storage.write("2022/s2/c.0", [b"pixels"])
    assert (target.stat().st_ino, False) in synced, "the file had its name before its bytes were on disk"
    assert synced[-1] == (target.parent.stat().st_ino, True), "the name was not synced after the rename"
    for folder in (storage.folder, storage.folder / "2022"):
        assert (folder.stat().st_ino, False) in synced, f"a folder below {folder.name} may be gone after a power cut"
    synced.clear()
    storage.write("2022/s2/c.0", [b"others"])
    assert synced == [(target.stat().st_ino, True), (target.parent.stat().st_ino, True)]


def test_who_has_a_file_open_keeps_it_when_it_is_replaced(storage: LocalStorage) -> None:
    storage.write("zarr.json", [canonical_json({"release": 1}).encode()])
    with (storage.folder / "zarr.json").open("rb") as before:
        storage.replace("zarr.json", [canonical_json({"release": 2}).encode()])
        assert before.read() == canonical_json({"release": 1}).encode()
    assert storage.read_json("zarr.json") == {"release": 2}


def test_a_damaged_document_is_told_by_its_path(storage: LocalStorage) -> None:
    storage.write("zarr.json", [b'{"release":'])
    with pytest.raises(StoreError, match="is damaged") as raised:
        storage.read_json("zarr.json")
    assert str(storage.folder / "zarr.json") in str(raised.value)
    with pytest.raises(MissingFileError):
        storage.read_json("nowhere.json")


def test_folders_in_the_way_are_told(storage: LocalStorage) -> None:
    storage.write("2022/s2/c.0", [b"x"])
    for ask in (storage.read, lambda name: storage.read_range(name, 0, 1), storage.describe, storage.delete):
        with pytest.raises(StoreError, match="Is a directory") as raised:
            ask("2022/s2")
        assert not isinstance(raised.value, MissingFileError)
    with pytest.raises(StoreError, match=r"cannot write .*2022/s2: Is a directory"):
        storage.write("2022/s2", [b"x"])
    with pytest.raises(StoreError, match="cannot write"):
        storage.write("2022/s2/c.0/below", [b"x"])
    assert unfinished(storage.folder) == []
    assert list(storage.names("2022/")) == [("2022/s2/c.0", 1)]


names = st.lists(st.text(".-_/09aZé", min_size=1, max_size=8), max_size=12).map(
    lambda found: [name for name in found if not {"", ".", ".."} & set(name.split("/"))]
)


@settings(deadline=None, max_examples=50)
@given(names=names)
def test_names_come_in_the_order_of_python(names: list[str], tmp_path_factory: pytest.TempPathFactory) -> None:
    storage = LocalStorage(tmp_path_factory.mktemp("store"))
    written: set[str] = set()
    for name in names:
        # A name cannot be a file and a folder.
        if not any(f"{other}/".startswith(f"{name}/") or f"{name}/".startswith(f"{other}/") for other in written):
            storage.write(name, [name.encode()])
            written.add(name)
    found = [item for item in storage.names() if not item[0].startswith(".build/")]
    assert found == [(name, len(name.encode())) for name in sorted(written)]
    for folder in {name.rpartition("/")[0] + "/" for name in written if "/" in name}:
        assert list(storage.names(folder)) == [item for item in found if item[0].startswith(folder)]


def test_deleting_leaves_no_empty_folder_and_touches_nothing_else(storage: LocalStorage) -> None:
    with storage.hold():
        for name in ("2022/s2/c.0", "2022/s2/c.1", "2022/label/c.0", ".build/2022/000000.json", "zarr.json"):
            storage.write(name, [b"x"])
        storage.delete("2022/s2/c.0")
        assert (storage.folder / "2022/s2").is_dir()
        storage.delete("2022/s2/c.1")
        assert not (storage.folder / "2022/s2").exists()
        assert storage.exists("2022/label/c.0")
        storage.delete("2022/label/c.0")
        assert not (storage.folder / "2022").exists()
        storage.delete(".build/2022/000000.json")
        assert not (storage.folder / ".build/2022").exists()
        storage.delete("zarr.json")
        storage.delete("zarr.json")
        storage.delete("no/such/folder")
        assert [name for name, _ in storage.names() if name != f".build/tmp/{storage.token}/holder"] == [".build/lock"]
        storage.write("zarr.json", [b"again"])


def test_nothing_is_deleted_through_a_link(storage: LocalStorage, tmp_path: Path) -> None:
    other = LocalStorage(tmp_path / "other")
    for name in ("r1/root.json", "r2/root.json"):
        other.write(name, [b"of another store"])
    storage.write("2022/c.0", [b"x"])
    (storage.folder / "index").symlink_to(other.folder)
    for name in ("index/r1/root.json", "index/r1/nothing"):
        with pytest.raises(StoreError, match=rf"{storage.folder}/index is a symbolic link"):
            storage.delete(name)
    assert [name for name, _ in other.names()] == ["r1/root.json", "r2/root.json"]
    # A link that is a file of the store is deleted, what it points to is not.
    (storage.folder / "2022/c.1").symlink_to(other.folder / "r1/root.json")
    storage.delete("2022/c.1")
    assert not (storage.folder / "2022/c.1").is_symlink()
    assert other.read("r1/root.json") == b"of another store"


# Sharing


def test_a_shared_file_is_one_file_on_disk(tmp_path: Path) -> None:
    first, second = LocalStorage(tmp_path / "first"), LocalStorage(tmp_path / "second")
    first.write("2022/s2/c.0", [b"pixels"])
    for _ in range(2):
        # Sharing again what is shared already changes nothing, and leaves nothing behind.
        second.share("2022/s2/c.0", first)
        assert (first.folder / "2022/s2/c.0").samefile(second.folder / "2022/s2/c.0")
        assert (first.folder / "2022/s2/c.0").stat().st_nlink == 2
        assert unfinished(second.folder) == []


def test_a_file_of_another_disk_is_copied(tmp_path: Path) -> None:
    if not MEMORY.is_dir() or MEMORY.stat().st_dev == tmp_path.stat().st_dev:
        pytest.skip("there is only one file system to write to")
    memory = MEMORY / f"h2crop-{os.getpid()}-{tmp_path.name}"
    try:
        first, second = LocalStorage(memory), LocalStorage(tmp_path / "second")
        first.write("2022/s2/c.0", [b"pixels"])
        second.share("2022/s2/c.0", first)
        assert second.read("2022/s2/c.0") == b"pixels"
        assert (second.folder / "2022/s2/c.0").stat().st_nlink == 1
        assert unfinished(second.folder) == []
    finally:
        subprocess.run(["rm", "-r", str(memory)], check=True)


def test_a_file_with_too_many_links_is_copied(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(source: Path, target: Path) -> None:
        raise OSError(errno.EMLINK, "Too many links")

    first, second = LocalStorage(tmp_path / "first"), LocalStorage(tmp_path / "second")
    first.write("2022/s2/c.0", [b"pixels"])
    monkeypatch.setattr(os, "link", refuse)
    second.share("2022/s2/c.0", first)
    assert second.read("2022/s2/c.0") == b"pixels"
    assert not (first.folder / "2022/s2/c.0").samefile(second.folder / "2022/s2/c.0")


def test_a_copy_is_on_disk_before_it_has_its_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(source: Path, target: Path) -> None:
        raise OSError(errno.EXDEV, "Invalid cross-device link")

    first, second = LocalStorage(tmp_path / "first"), LocalStorage(tmp_path / "second")
    first.write("2022/s2/c.0", [b"pixels"])
    target = second.folder / "2022/s2/c.0"
    synced: list[tuple[int, int, bool]] = []
    fsync = os.fsync

    def record(descriptor: int) -> None:
        fsync(descriptor)
        found = os.fstat(descriptor)
        synced.append((found.st_ino, found.st_size, target.exists()))

    monkeypatch.setattr(os, "link", refuse)
    monkeypatch.setattr(os, "fsync", record)
    second.share("2022/s2/c.0", first)
    assert (target.stat().st_ino, len(b"pixels"), False) in synced


# One builder


HOLDER = """
import sys, time
from pathlib import Path
from h2crop_data.storage.local import LocalStorage

storage = LocalStorage(Path(sys.argv[1]))
with storage.hold():
    (storage.folder / ".build/tmp/c.0.0.0.abc.tmp").write_bytes(b"half a shard")
    print("held", flush=True)
    time.sleep(600)
"""


def test_the_lock_says_which_process_holds_the_store_and_ends_with_it(storage: LocalStorage) -> None:
    command = [sys.executable, "-c", HOLDER, str(storage.folder)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as holder:
        try:
            assert holder.stdout is not None
            assert holder.stdout.readline() == "held\n"
            assert storage.read(".build/lock") == f"{holder.pid}\n".encode()
            with (
                pytest.raises(StoreError, match=rf"locked by another builder \(process {holder.pid}\)"),
                storage.hold(),
            ):
                pytest.fail("two builders hold one store")
            assert storage.read(".build/lock") == f"{holder.pid}\n".encode(), "the refused builder changed the lock"
            assert len(unfinished(storage.folder)) == 1, "the refused builder removed the other's file"
        finally:
            holder.kill()
        assert holder.wait(timeout=60) == -signal.SIGKILL
    with storage.hold():
        assert storage.read(".build/lock") == f"{os.getpid()}\n".encode()
        assert unfinished(storage.folder) == []


def test_what_a_bug_left_half_written_is_gone_with_the_next_hold(storage: LocalStorage) -> None:
    def parts() -> Iterator[bytes]:
        yield b"half"
        raise KeyError("a bug")

    with storage.hold():
        with pytest.raises(KeyError):
            storage.write("2022/c.0", parts())
        (storage.folder / ".build/tmp/folder").mkdir()
        (storage.folder / ".build/tmp/folder/file").touch()
    with storage.hold():
        assert unfinished(storage.folder) == []
        assert not storage.exists("2022/c.0")


@pytest.mark.parametrize("name", [".build", ".build/tmp", ".build/lock"])
@pytest.mark.parametrize("dangling", [False, True])
def test_a_link_in_the_place_of_what_the_builder_deletes_is_refused(
    storage: LocalStorage, tmp_path: Path, name: str, dangling: bool
) -> None:
    with storage.hold():
        storage.write("2022/c.0", [b"x"])
    link, other = storage.folder / name, tmp_path / "other"
    link.rename(tmp_path / "before")
    link.symlink_to(other)
    if not dangling:
        (tmp_path / "before").rename(other)
        kept = other if other.is_file() else other / "thesis.tex"
        kept.write_text("dear diary", encoding="utf-8")
    with pytest.raises(StoreError, match=rf"{link} is a symbolic link.*replace the link"), storage.hold():
        pytest.fail("a store was held whose temporary files lie elsewhere")
    assert other.exists() != dangling
    if not dangling:
        assert kept.read_text(encoding="utf-8") == "dear diary"
    # As soon as it is one of its own again, the store can be held.
    link.unlink()
    (storage.folder / ".build").mkdir(exist_ok=True)
    with storage.hold():
        assert unfinished(storage.folder) == []


def test_a_link_among_temporary_files_is_removed_and_what_it_points_to_stays(
    storage: LocalStorage, tmp_path: Path
) -> None:
    (tmp_path / "other").mkdir()
    (tmp_path / "other/thesis.tex").write_text("dear diary", encoding="utf-8")
    with storage.hold():
        temporary = storage.folder / ".build/tmp"
        (temporary / "folder").symlink_to(tmp_path / "other")
        (temporary / "file").symlink_to(tmp_path / "other/thesis.tex")
        (temporary / "nothing").symlink_to(tmp_path / "nothing")
        (temporary / "inside").mkdir()
        (temporary / "inside/folder").symlink_to(tmp_path / "other")
    with storage.hold():
        assert unfinished(storage.folder) == []
    assert (tmp_path / "other/thesis.tex").read_text(encoding="utf-8") == "dear diary"


def test_a_path_that_is_a_file_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(StoreError, match="cannot write in"), LocalStorage(tmp_path / "file").hold():
        pytest.fail("a file was taken for a store")


#: The kernel refuses flock to this process, as file systems without locks do.
WITHOUT_FLOCK = """
import ctypes, errno, fcntl, platform, struct, sys
from pathlib import Path
from h2crop_data.errors import StoreError
from h2crop_data.storage.local import LocalStorage

NUMBER = {"x86_64": 73, "aarch64": 32}[platform.machine()]
# Load the number of the system call; for flock give the error, else allow it.
rules = [(0x20, 0, 0, 0), (0x15, 0, 1, NUMBER), (0x06, 0, 0, 0x00050000 | errno.ENOTSUP), (0x06, 0, 0, 0x7FFF0000)]
filters = ctypes.create_string_buffer(b"".join(struct.pack("HBBI", *rule) for rule in rules))
program = struct.pack("HxxxxxxP", len(rules), ctypes.addressof(filters))
libc = ctypes.CDLL(None, use_errno=True)
storage = LocalStorage(Path(sys.argv[1]))
if libc.prctl(38, 1, 0, 0, 0) or libc.prctl(22, 2, ctypes.c_char_p(program), 0, 0):
    sys.exit("no seccomp here")
try:
    with storage.hold():
        print("held")
except StoreError as error:
    print(error)
"""


def test_a_file_system_without_locks_is_refused(storage: LocalStorage) -> None:
    done = subprocess.run(
        [sys.executable, "-c", WITHOUT_FLOCK, str(storage.folder)], capture_output=True, text=True, check=False
    )
    if "no seccomp here" in done.stderr:
        pytest.skip("the kernel does not let a process refuse itself system calls")
    assert done.stdout == (
        f"cannot lock {storage.folder}/.build/lock: Operation not supported; a store needs a file system with file "
        "locks (flock). Mount it with them (NFS 4, or Lustre with `-o flock`), or build in a folder of this machine "
        "and copy the store there when it is finished\n"
    ), done.stderr


def delete(lock: Path) -> None:
    lock.unlink()


def write_anew(lock: Path) -> None:
    lock.rename(lock.with_name("before"))
    lock.write_text("1\n", encoding="utf-8")


@pytest.mark.parametrize("change", [delete, write_anew])
def test_a_builder_whose_lock_file_is_gone_replaces_nothing(
    storage: LocalStorage, change: Callable[[Path], None]
) -> None:
    with storage.hold():
        storage.replace("zarr.json", [b"before"])
        change(storage.folder / ".build/lock")
        for act in (
            lambda: storage.replace("zarr.json", [b"after"]),
            lambda: storage.write_permanent("2022/c.0", [b"after"]),
            lambda: storage.delete("zarr.json"),
        ):
            with pytest.raises(StoreError, match=r"\.build/lock was deleted or replaced while this process had locked"):
                act()
    assert storage.read("zarr.json") == b"before"
    assert not storage.exists("2022/c.0")
    with storage.hold():
        storage.replace("zarr.json", [b"of the next builder"])


def test_of_two_builders_after_the_lock_file_was_deleted_only_the_second_writes(storage: LocalStorage) -> None:
    second = LocalStorage(storage.folder)
    with storage.hold():
        (storage.folder / ".build/lock").unlink()
        with second.hold():
            second.replace("zarr.json", [b"of the second"])
            worker = pickle.loads(pickle.dumps(storage))
            for writer in (storage, worker):
                with pytest.raises(StoreError, match=r"nothing (more )?is written"):
                    writer.write("zarr.json", [b"of the first"])
            second.replace("root.json", [b"of the second"])
    assert second.read("zarr.json") == second.read("root.json") == b"of the second"


# Links


#: What was made a link, and what a builder does then.
LINKED = {
    "season": ("2022", "2022/s2/c.1"),
    "array": ("2022/s2", "2022/s2/c.1"),
    "index": ("index", "index/r2/root.json"),
    "folder of a release": ("index/r1", "index/r1/root.json"),
    "root": ("zarr.json", "zarr.json"),
    "shard": ("2022/s2/c.0", "2022/s2/c.0"),
    "table": ("index/r1/root.json", "index/r1/root.json"),
    "temporary files": (".build/tmp/TOKEN", "zarr.json"),
}


@pytest.mark.parametrize("case", LINKED)
def test_nothing_is_written_through_a_link_or_onto_one(storage: LocalStorage, tmp_path: Path, case: str) -> None:
    linked, written = LINKED[case]
    other = tmp_path / "other"
    with storage.hold():
        for name in ("2022/s2/c.0", "index/r1/root.json", "zarr.json"):
            storage.write(name, [b"before"])
        linked = linked.replace("TOKEN", storage.token)
        (storage.folder / linked).rename(other)
        (storage.folder / linked).symlink_to(other)
        before = content_of(other)
        for write in (storage.write, storage.write_permanent, storage.replace):
            with pytest.raises(StoreError, match=rf"{storage.folder}/{linked} is a symbolic link: inside a store"):
                write(written, [b"after"])
        assert content_of(other) == before
        assert list(storage.links()) == [linked]
        if case != "temporary files":
            assert storage.read("2022/s2/c.0") == b"before", "readers follow links"
    is_temporary = case == "temporary files"
    if linked.count("/") < 2 and not is_temporary:
        with pytest.raises(StoreError, match=f"{linked} is a symbolic link"), storage.hold():
            pytest.fail("a store with a link in it was locked")


def content_of(path: Path) -> dict[str, bytes]:
    """A file, or all files of a folder."""
    return {str(file): file.read_bytes() for file in (path, *path.rglob("*")) if file.is_file()}


def test_a_store_may_be_reached_through_a_link(tmp_path: Path) -> None:
    (tmp_path / "disk").mkdir()
    (tmp_path / "store").symlink_to(tmp_path / "disk")
    storage = LocalStorage(tmp_path / "store")
    with storage.hold():
        storage.write_permanent("2022/s2/c.0", [b"x"])
        storage.delete("2022/s2/c.0")
        storage.write("zarr.json", [b"x"])
    assert list(storage.links()) == []
    assert (tmp_path / "disk/zarr.json").read_bytes() == b"x"


def test_what_is_shared_from_a_store_with_links_is_none(tmp_path: Path) -> None:
    first, second = LocalStorage(tmp_path / "first"), LocalStorage(tmp_path / "second")
    first.write("2022/s2/c.0", [b"pixels"])
    (first.folder / "2022/s2/c.1").symlink_to("c.0")
    second.share("2022/s2/c.1", first)
    assert not (second.folder / "2022/s2/c.1").is_symlink()
    assert second.read("2022/s2/c.1") == b"pixels"


# Files that are only read


def test_shards_are_read_only_and_can_be_replaced_shared_and_deleted(tmp_path: Path) -> None:
    first, second = LocalStorage(tmp_path / "first"), LocalStorage(tmp_path / "second")
    name = "2022/s2/c.0"
    mask = os.umask(0o027)
    try:
        with first.hold():
            first.write_permanent(name, [b"damaged"])
            first.write_permanent(name, [b"pixels"])
            first.write("zarr.json", [b"root"])
        with second.hold():
            second.share(name, first)
    finally:
        os.umask(mask)
    assert stat.S_IMODE((first.folder / name).stat().st_mode) == 0o440
    assert stat.S_IMODE((first.folder / "zarr.json").stat().st_mode) == 0o640
    assert (first.folder / name).samefile(second.folder / name)
    with first.hold():
        first.delete(name)
    assert not first.exists(name)
    assert second.read(name) == b"pixels"


def test_a_copy_of_a_read_only_file_is_read_only(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(source: str, target: Path) -> None:
        raise OSError(errno.EXDEV, "Invalid cross-device link")

    first, second = LocalStorage(tmp_path / "first"), LocalStorage(tmp_path / "second")
    first.write_permanent("2022/s2/c.0", [b"pixels"])
    monkeypatch.setattr(os, "link", refuse)
    second.share("2022/s2/c.0", first)
    assert not (second.folder / "2022/s2/c.0").stat().st_mode & 0o222


def test_a_storage_pickled_while_held_is_not_held_by_who_unpickles_it(storage: LocalStorage) -> None:
    with storage.hold():
        copy = pickle.loads(pickle.dumps(storage))
        with pytest.raises(StoreError, match="locked by another builder"), copy.hold():
            pytest.fail("one store was held twice")


# Disks that are full, or may not be written


def test_a_full_disk_leaves_what_was_there(small_disk: Path, tmp_path: Path) -> None:
    storage, other = LocalStorage(small_disk / "store"), LocalStorage(tmp_path / "other")
    large = b"x" * SMALL_DISK
    other.write("2022/c.1", [large])
    with storage.hold():
        storage.write("2022/c.0", [b"old"])
        for fill in (
            lambda: storage.write("2022/c.0", [large]),
            lambda: storage.write("2022/c.1", [large]),
            lambda: storage.share("2022/c.1", other),
        ):
            with pytest.raises(StoreError, match=r"cannot write .*No space left on device"):
                fill()
            assert unfinished(storage.folder) == []
        assert storage.read("2022/c.0") == b"old"
        assert not storage.exists("2022/c.1")
        storage.write("2022/c.1", [b"small"])


def test_a_file_larger_than_a_quota_is_told_and_leaves_nothing(storage: LocalStorage) -> None:
    with storage.hold():
        storage.write("2022/c.0", [b"old"])
        limits = resource.getrlimit(resource.RLIMIT_FSIZE)
        ignored = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        try:
            resource.setrlimit(resource.RLIMIT_FSIZE, (1000, limits[1]))
            with pytest.raises(StoreError, match=r"cannot write .*File too large.*rerun"):
                storage.write("2022/c.0", [b"x" * 600, b"x" * 600])
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, limits)
            signal.signal(signal.SIGXFSZ, ignored)
        assert storage.read("2022/c.0") == b"old"
        assert unfinished(storage.folder) == []
        storage.write("2022/c.0", [b"x" * 1200])
        assert storage.describe("2022/c.0")["sha256"] == hashlib.sha256(b"x" * 1200).hexdigest()


def test_a_disk_that_may_only_be_read_can_be_read_and_says_so_when_written(small_disk: Path, tmp_path: Path) -> None:
    storage, other = LocalStorage(small_disk / "store"), LocalStorage(tmp_path / "other")
    other.write("2022/c.1", [b"other"])
    storage.write("2022/c.0", [b"old"])
    subprocess.run(["mount", "-o", "remount,ro", str(small_disk)], check=True)
    for write in (
        lambda: storage.write("2022/c.0", [b"new"]),
        lambda: storage.write("2023/c.0", [b"new"]),
        lambda: storage.delete("2022/c.0"),
        lambda: storage.share("2022/c.1", other),
        storage.hold().__enter__,
        LocalStorage(small_disk / "new").hold().__enter__,
    ):
        with pytest.raises(StoreError, match=r"cannot .*Read-only file system") as raised:
            write()
        assert str(small_disk) in str(raised.value)
    assert storage.read("2022/c.0") == b"old"
    assert list(storage.names("2022/")) == [("2022/c.0", 3)]
