"""A store in a folder: temporary name, fsync, rename, fsync of the folder; the lock is the operating system's."""

from __future__ import annotations

import fcntl
import hashlib
import os
import shutil
import uuid
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from h2crop_data.errors import MissingFileError, StoreError
from h2crop_data.storage.storage import BUILD_FOLDER, LOCK, TEMPORARY, FileRecord, Storage


class LocalStorage(Storage):
    """A store in a folder."""

    def __init__(self, folder: Path) -> None:
        self.folder = Path(folder)
        self.location = str(folder)

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

    def write(self, name: str, parts: Iterable[bytes]) -> None:
        target = self.folder / name
        partial = self.partial_of(target)
        try:
            self.make_folder(target.parent)
            self.make_folder(partial.parent)
            with partial.open("wb") as file:
                file.writelines(parts)
                file.flush()
                os.fsync(file.fileno())
            partial.replace(target)
            sync(target.parent)
        except OSError as error:
            with suppress(OSError):
                partial.unlink(missing_ok=True)
            raise StoreError(
                f"cannot write {target}: {error.strerror or error}; finished blocks are kept; fix it and run again"
            ) from error

    def delete(self, name: str) -> None:
        path = self.folder / name
        try:
            self.refuse_links(*reversed(path.relative_to(self.folder).parents[:-1]))
            path.unlink(missing_ok=True)
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

    def describe(self, name: str) -> FileRecord:
        try:
            with (self.folder / name).open("rb") as file:
                digest = hashlib.file_digest(file, "sha256").hexdigest()
                return {"path": name, "bytes": file.tell(), "sha256": digest}
        except OSError as error:
            raise StoreError(f"cannot read back {self.folder / name}: {error.strerror or error}; run again") from error

    def share(self, name: str, source: Storage) -> None:
        """A hard link where both folders lie on one file system, else a copy."""
        if not isinstance(source, LocalStorage):
            self.write(name, [source.read(name)])
            return
        target = self.folder / name
        partial = self.partial_of(target)
        try:
            self.make_folder(target.parent)
            self.make_folder(partial.parent)
            try:
                os.link(source.folder / name, partial)
            except OSError:
                shutil.copyfile(source.folder / name, partial)
                sync(partial)
            partial.replace(target)
            # Where both names were the same file already, replacing did nothing.
            partial.unlink(missing_ok=True)
            sync(target.parent)
        except OSError as error:
            with suppress(OSError):
                partial.unlink(missing_ok=True)
            raise self.cannot("write", name, error) from error

    @contextmanager
    def hold(self) -> Iterator[None]:
        """The lock is the operating system's: it ends with the process, however that dies."""
        build = self.folder / BUILD_FOLDER
        try:
            self.refuse_links(BUILD_FOLDER, TEMPORARY, LOCK)
            if self.folder.is_dir() and not build.is_dir() and any(self.folder.iterdir()):
                raise StoreError(
                    f"{self.folder} is not empty and has no {BUILD_FOLDER}/ to go on from; choose another --out"
                )
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
                raise StoreError(
                    f"{self.folder} is held by another builder (process {holder}); wait for it or end it"
                ) from None
            lock.truncate(0)
            lock.write(f"{os.getpid()}\n")
            lock.flush()
            self.remove_temporary()
            yield

    def remove_temporary(self) -> None:
        """Delete what dead attempts left under temporary names."""
        for path in (self.folder / TEMPORARY).glob("*"):
            shutil.rmtree(path) if path.is_dir() and not path.is_symlink() else path.unlink(missing_ok=True)

    def refuse_links(self, *names: str | Path) -> None:
        """Refuse a symbolic link where files are deleted or emptied: they may be another store's. Raises StoreError."""
        for name in names:
            if (self.folder / name).is_symlink():
                raise StoreError(
                    f"{self.where(str(name))} is a symbolic link: the builder deletes files there, and would delete "
                    "those it points to; replace the link by a folder or file of the store's own and run again"
                )

    def partial_of(self, target: Path) -> Path:
        """A temporary name for a file being written."""
        return self.folder / TEMPORARY / f"{target.name}.{uuid.uuid4().hex}.tmp"

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


def sync(path: Path) -> None:
    """Make a file, or the names in a folder, survive a power cut."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
