"""A store in a folder: temporary name, fsync, rename, fsync of the folder; the lock is the operating system's.

**Nothing is written after a build gave up its lock, by whichever process.** Every lock has its own folder for temporary
files, `.build/tmp/<token>`, and a locked storage, or one that was pickled while locked, creates its files there. A
builder that releases the lock, or takes it over from a dead builder, deletes that folder first. A file gets its name by
a rename out of the folder: either that happens before, or the file and its folder are gone and the rename fails,
however long its writer was stopped in between. No process waits for another one.

A builder that died deletes nothing. So before each rename a worker also looks whether somebody has the lock of
`.build/tmp/<token>/holder`, which ends with the builder's process.

A builder whose lock file was deleted or replaced does not keep others out any more. It looks before each rename whether
`.build/lock` is still the file that it locked.

**Inside a store nothing is a symbolic link.** Only the folder of the store itself may be reached through one. Nothing
is written or deleted through a link; readers follow them.
"""

from __future__ import annotations

import errno
import fcntl
import hashlib
import json
import logging
import os
import shutil
import socket
import time
import uuid
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from h2crop_data.errors import HeldStoreError, MissingFileError, StoreError
from h2crop_data.storage.storage import (
    BUILD_FOLDER,
    LOCK,
    TEMPORARY,
    WITHOUT_BUILD_FOLDER,
    FileRecord,
    Holder,
    Storage,
)
from h2crop_data.waits import Wait

log = logging.getLogger(__name__)
#: In the folder of a hold: the file whose lock its builder has.
HOLDER = "holder"
#: What a folder that is being deleted is called, after its own name.
OVER = ".over"
#: Seconds after which a folder that cannot be emptied is given up.
PATIENCE = 5.0
#: Seconds within which a builder has locked the file of its hold, after it made it.
LOCKED_WITHIN = 10.0
#: The permissions that are left of those of a file.
READ_ONLY = 0o444
#: Errors of a file system without locks.
NO_LOCKS = (errno.ENOLCK, errno.ENOSYS, errno.ENOTSUP, errno.EOPNOTSUPP, errno.EINVAL)
#: Errors of a path of which a folder is gone, on this machine or on the server it lies on.
GONE = (errno.ENOENT, errno.ESTALE)
#: Errors of a folder that is deleted while others still write there, or have a file of it open (NFS).
USED = (errno.ENOTEMPTY, errno.EBUSY, errno.ENOENT)


class LocalStorage(Storage):
    """A store in a folder."""

    status_every = 5.0

    def __init__(self, folder: Path, token: str = "") -> None:
        """token: of the lock that files are written under; empty where they are written for none."""
        self.folder = Path(folder)
        self.location = str(folder)
        self.token = token
        #: Whether the hold is this object's own, and lasts.
        self.is_holder = False
        #: The lock file of that hold, as it was when it was locked.
        self.locked: os.stat_result | None = None

    def __getstate__(self) -> dict[str, Any]:
        """Pickled with the token, without the lock; the folder absolute, as processes differ in where they run."""
        return {**self.__dict__, "folder": self.folder.absolute(), "is_holder": False, "locked": None}

    def read(self, name: str) -> bytes:
        try:
            return (self.folder / name).read_bytes()
        except OSError as error:
            raise self.cannot("read", name, error) from error

    def read_range(self, name: str, offset: int, length: int) -> bytes:
        try:
            descriptor = os.open(self.folder / name, os.O_RDONLY)
            try:
                return os.pread(descriptor, length, offset)
            finally:
                os.close(descriptor)
        except OSError as error:
            raise self.cannot("read", name, error) from error

    def size(self, name: str) -> int | None:
        try:
            return (self.folder / name).stat().st_size
        except (FileNotFoundError, NotADirectoryError):
            return None
        except OSError as error:
            raise self.cannot("read", name, error) from error

    def names(self, prefix: str = "") -> Iterator[tuple[str, int]]:
        def files_below(folder: str, name: str) -> Iterator[tuple[str, int]]:
            try:
                with os.scandir(folder) as found:
                    entries = sorted(found, key=lambda entry: entry.name + "/" * entry.is_dir(follow_symlinks=False))
            except FileNotFoundError:
                return
            for entry in entries:
                if entry.is_dir(follow_symlinks=False):
                    yield from files_below(entry.path, f"{name}{entry.name}/")
                else:
                    yield f"{name}{entry.name}", entry.stat(follow_symlinks=False).st_size

        yield from files_below(str(self.folder / prefix), prefix)

    def links(self) -> Iterator[str]:
        def links_below(folder: str, name: str) -> Iterator[str]:
            try:
                with os.scandir(folder) as found:
                    entries = sorted(found, key=lambda entry: entry.name)
            except FileNotFoundError:
                return
            for entry in entries:
                if entry.is_symlink():
                    yield f"{name}{entry.name}"
                elif entry.is_dir(follow_symlinks=False):
                    yield from links_below(entry.path, f"{name}{entry.name}/")

        yield from links_below(str(self.folder), "")

    def write(self, name: str, parts: Iterable[bytes]) -> None:
        self.write_file(name, parts, read_only=False)

    def write_permanent(self, name: str, parts: Iterable[bytes]) -> None:
        self.write_file(name, parts, read_only=True)

    def write_file(self, name: str, parts: Iterable[bytes], *, read_only: bool) -> None:
        """Write a file, whole or not at all. read_only: without the permission to write it."""
        with self.new_file(name) as partial, partial.open("wb") as file:
            file.writelines(parts)
            file.flush()
            if read_only:
                os.fchmod(file.fileno(), os.fstat(file.fileno()).st_mode & READ_ONLY)
            os.fsync(file.fileno())

    @contextmanager
    def new_file(self, name: str) -> Iterator[Path]:
        """A temporary name: the file that is made there gets its own when the block ends. Raises StoreError."""
        target = self.folder / name
        partial = self.temporary_name(target)
        try:
            if not self.token:
                self.make_folder(partial.parent)
            self.refuse_links(*self.path_of(partial)[:-1], *self.path_of(target))
            yield partial
            self.check_hold()
            self.refuse_links(*self.path_of(target))
            self.make_folder(target.parent)
            partial.replace(target)
            # Where both names were the same file already, replacing did nothing.
            partial.unlink(missing_ok=True)
            sync(target.parent)
        except (OSError, StoreError) as error:
            with suppress(OSError):
                partial.unlink(missing_ok=True)
            if isinstance(error, StoreError):
                raise
            self.refuse_lost_folder(partial.parent, error)
            raise StoreError(
                f"cannot write {target}: {error.strerror or error}; finished blocks are kept; fix it and rerun"
            ) from error

    def delete(self, name: str) -> None:
        path = self.folder / name
        try:
            self.refuse_links(*self.path_of(path)[:-1])
            self.unlink(path)
            for parent in path.relative_to(self.folder).parents:
                # A folder without files is no trace worth keeping.
                if str(parent) not in (".", BUILD_FOLDER) and not any((self.folder / parent).iterdir()):
                    (self.folder / parent).rmdir()
        except FileNotFoundError:
            return
        except StoreError:
            raise
        except OSError as error:
            raise self.cannot("delete", name, error) from error

    def unlink(self, path: Path) -> None:
        """Delete a file, under a lock by way of its folder: not after the lock is over. Raises OSError, StoreError."""
        if not self.token or (path.is_dir() and not path.is_symlink()):
            path.unlink(missing_ok=True)
            return
        self.check_hold()
        aside = self.temporary_name(path)
        try:
            path.replace(aside)
        except OSError as error:
            self.refuse_lost_folder(aside.parent, error)
            raise
        aside.unlink(missing_ok=True)

    def describe(self, name: str) -> FileRecord:
        try:
            with (self.folder / name).open("rb") as file:
                digest = hashlib.file_digest(file, "sha256").hexdigest()
                return {"path": name, "bytes": file.tell(), "sha256": digest}
        except OSError as error:
            raise StoreError(f"cannot read back {self.folder / name}: {error.strerror or error}; rerun") from error

    def share(self, name: str, source: Storage) -> None:
        """A hard link where both folders lie on one file system, else a copy."""
        if not isinstance(source, LocalStorage):
            self.write_permanent(name, [source.read(name)])
            return
        with self.new_file(name) as partial:
            try:
                # Of a link in the other store, the file behind it is shared.
                os.link(os.path.realpath(source.folder / name), partial)
            except OSError as error:
                if isinstance(error, FileNotFoundError) and not source.exists(name):
                    raise source.cannot("read", name, error) from error
                shutil.copyfile(source.folder / name, partial)
                shutil.copymode(source.folder / name, partial)
                sync(partial)

    @contextmanager
    def hold(self) -> Iterator[None]:
        """The lock is the operating system's: it ends with the process, however that dies."""
        build = self.folder / BUILD_FOLDER
        try:
            lacks_build = not build.is_dir() and not build.is_symlink()
            if self.folder.is_dir() and lacks_build and any(self.folder.iterdir()):
                raise StoreError(
                    f"{self.folder} is not empty and has no {BUILD_FOLDER}/ to continue from; {WITHOUT_BUILD_FOLDER}"
                )
            self.refuse_links(*self.upper_entries())
            (self.folder / TEMPORARY).mkdir(parents=True, exist_ok=True)
            lock = (self.folder / LOCK).open("a+", encoding="utf-8")
        except StoreError:
            raise
        except OSError as error:
            raise StoreError(f"cannot write in {self.folder}: {error.strerror or error}") from error
        with lock:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                lock.seek(0)
                holder = lock.read().strip() or "unknown"
                raise HeldStoreError(
                    f"{self.folder} is locked by another builder (process {holder}); wait for it or end it"
                ) from None
            except OSError as error:
                raise self.cannot_lock(LOCK, error) from error
            self.locked = os.fstat(lock.fileno())
            self.check_lock()
            lock.truncate(0)
            lock.write(f"{os.getpid()}\n")
            lock.flush()
            log.info("locked %s", self.folder)
            self.remove_temporary()
            with self.folder_of_hold():
                yield

    def check_lock(self) -> None:
        """Raise StoreError where the lock file is no longer the one that this object locked."""
        try:
            found = (self.folder / LOCK).lstat()
        except FileNotFoundError:
            found = None
        if self.locked is None or found is None or not os.path.samestat(found, self.locked):
            raise StoreError(
                f"{self.where(LOCK)} was deleted or replaced while this process had locked {self.location}, so another "
                "builder can work there; nothing more is written. End the other builder, if there is one, and rerun"
            )

    def cannot_lock(self, name: str, error: OSError) -> StoreError:
        """The error for a file that cannot be locked."""
        return StoreError(
            f"cannot lock {self.where(name)}: {error.strerror or error}; a store needs a file system with file locks "
            "(flock). Mount it with them (NFS 4, or Lustre with `-o flock`), or build in a folder of this machine and "
            "copy the store there when it is finished"
        )

    def upper_entries(self) -> list[str]:
        """The names of everything in the folder of the store, and in the folders there."""
        found = []
        for entry in sorted(self.folder.glob("*")):
            inside = [] if entry.is_symlink() or not entry.is_dir() else sorted(entry.iterdir())
            found += [path.relative_to(self.folder).as_posix() for path in (entry, *inside)]
        return found

    @contextmanager
    def folder_of_hold(self) -> Iterator[None]:
        """Create a folder for the temporary files of a new lock, and the lock that shows that its builder is alive."""
        token = uuid.uuid4().hex
        folder = self.folder / TEMPORARY / token
        try:
            folder.mkdir()
            holder = (folder / HOLDER).open("x", encoding="utf-8")
            fcntl.flock(holder, fcntl.LOCK_EX | fcntl.LOCK_NB)
            # Only who looks at the store reads it: on a full disk the hold is as good without.
            with suppress(OSError):
                since = datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
                said = {"host": socket.gethostname(), "process": os.getpid(), "since": since}
                os.write(holder.fileno(), json.dumps(said).encode())
        except OSError as error:
            raise StoreError(f"cannot write in {folder}: {error.strerror or error}") from error
        try:
            with holder:
                self.token, self.is_holder = token, True
                try:
                    yield
                finally:
                    self.is_holder = False
                    # While the lock lasts: workers would take its end for the death of their builder.
                    with suppress(OSError):
                        folder.rename(name_of_deleted(folder))
        finally:
            # What cannot be deleted now the next builder deletes; for workers the hold ended with its lock.
            with suppress(OSError, StoreError):
                remove_folder(folder)

    @property
    def hold_name(self) -> str:
        return self.token

    def holder(self) -> Holder | None:
        found = [self.holder_of(file) for file in (self.folder / TEMPORARY).glob(f"*/{HOLDER}")]
        holders = [holder for holder in found if holder is not None]
        return max(holders, key=lambda holder: (holder.alive, holder.since), default=None)

    def holder_of(self, file: Path) -> Holder | None:
        """The holder by the file of a lock; None for one that was released. Raises StoreError.

        The lock is requested as shared, as workers do, so that no other process is blocked; not before its builder can
        have it.
        """
        if file.parent.suffix == OVER:
            return None
        try:
            with file.open("rb") as opened:
                said = opened.read()
                made = os.fstat(opened.fileno()).st_mtime
                alive = not said and time.time() - made < LOCKED_WITHIN
                if not alive:
                    try:
                        fcntl.flock(opened, fcntl.LOCK_SH | fcntl.LOCK_NB)
                    except BlockingIOError:
                        alive = True
        except OSError as error:
            if error.errno in GONE:
                return None
            raise self.cannot("read", file.relative_to(self.folder).as_posix(), error) from error
        since = datetime.fromtimestamp(made, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
        # Builders of earlier versions wrote nothing.
        known: dict[str, Any] = {"host": "", "process": 0, "since": since}
        with suppress(ValueError):
            known |= json.loads(said)
        return Holder(known["host"], known["process"], known["since"], file.parent.name, alive)

    def check_hold(self) -> None:
        """Raise StoreError where files are written under a lock that is over, or whose builder or file is gone."""
        if not self.token:
            return
        if self.is_holder:
            self.check_lock()
            return
        holder = self.folder / TEMPORARY / self.token / HOLDER
        try:
            with holder.open("rb") as file:
                fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except BlockingIOError:
            return
        except OSError as error:
            if error.errno in NO_LOCKS:
                raise self.cannot_lock(holder.relative_to(self.folder).as_posix(), error) from error
            if error.errno not in GONE:
                raise
            raise self.hold_is_over() from error
        if not holder.exists():
            raise self.hold_is_over()
        raise StoreError(
            f"nothing is written to {self.location}: the builder that this process works for died; rerun the build "
            "(if it is alive on another machine, flock does not work between the two: mount the file system so "
            "that it does)"
        )

    def refuse_lost_folder(self, folder: Path, error: OSError) -> None:
        """Raise StoreError where an error of a path was caused by the missing folder of a lock."""
        if self.token and error.errno in GONE and not folder.is_dir():
            raise self.hold_is_over() from error

    def hold_is_over(self) -> StoreError:
        """The error of a process that would write under a lock that was released."""
        return StoreError(
            f"nothing is written to {self.location}: the build that this process works for is over (it gave up its "
            "lock, or another builder took over); rerun the build if it did not finish"
        )

    def remove_temporary(self) -> None:
        """Delete temporary files of dead attempts, and end locks whose builders died.

        Raises StoreError where that cannot be done.
        """
        for path in list((self.folder / TEMPORARY).glob("*")):
            log.info("deleting %s, which a builder that died left", path)
            try:
                if path.is_dir() and not path.is_symlink():
                    remove_folder(path)
                else:
                    path.unlink(missing_ok=True)
            except StoreError:
                raise
            except OSError as error:
                raise self.cannot("delete", path.relative_to(self.folder).as_posix(), error) from error

    def path_of(self, target: Path) -> list[Path]:
        """A file of the store, with the folders it lies in, from above."""
        inside = target.relative_to(self.folder)
        return [*reversed(inside.parents[:-1]), inside]

    def refuse_links(self, *names: str | Path) -> None:
        """Refuse a symbolic link where files are written or deleted: they may be another store's. Raises StoreError."""
        for name in names:
            if (self.folder / name).is_symlink():
                raise StoreError(
                    f"{self.where(str(name))} is a symbolic link: inside a store nothing is one, because the builder "
                    "would change or delete the files that it points to; replace the link by a folder or file in the "
                    "store and rerun"
                )

    def temporary_name(self, target: Path) -> Path:
        """A temporary name for a file being written, in the folder of the lock."""
        return self.folder / TEMPORARY / self.token / f"{target.name}.{uuid.uuid4().hex}.tmp"

    def make_folder(self, folder: Path) -> None:
        """Make a folder of the store, and its parents, durably."""
        if folder.is_dir():
            return
        self.make_folder(folder.parent)
        folder.mkdir(exist_ok=True)
        sync(folder.parent)

    def cannot(self, verb: str, name: str, error: OSError) -> StoreError:
        """The error to raise for one of the operating system."""
        kind = MissingFileError if isinstance(error, FileNotFoundError | NotADirectoryError) else StoreError
        return kind(f"cannot {verb} {self.where(name)}: {error.strerror or error}")


def name_of_deleted(folder: Path) -> Path:
    """What a folder is called while it is deleted."""
    return folder if folder.suffix == OVER else folder.with_name(f"{folder.name}{OVER}")


def remove_folder(folder: Path) -> None:
    """Delete a folder in which others may be at work: once it is gone, none of its files can get another name.

    Raises StoreError where it cannot be emptied.
    """
    # Who asks for the folder by its name finds it no more; what was begun before ends in a moment.
    over = name_of_deleted(folder)
    with suppress(FileNotFoundError):
        folder.rename(over)
    until = time.monotonic() + PATIENCE
    wait = Wait(log, f"{over} to be deleted", "a process still writes there")
    while True:
        try:
            shutil.rmtree(over)
        except OSError as error:
            if not over.exists():
                return
            is_used = error.errno in USED
            if not is_used or time.monotonic() > until:
                remedy = f"a stopped process may have a file open there: find it with `lsof +D {over}` and end it"
                raise StoreError(
                    f"cannot delete {over}: {error.strerror or error}; "
                    f"{remedy if is_used else 'change the permissions of the folder'}, and rerun"
                ) from error
            wait.look()
            time.sleep(0.01)
        else:
            wait.over()
            return


def sync(path: Path) -> None:
    """Make a file, or the names in a folder, survive a power cut."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
