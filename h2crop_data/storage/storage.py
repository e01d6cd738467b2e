"""The files of a store, in a local folder or an object store, by one interface.

A file is named by its path below the store (`2022/s2/c.0.0.0.0.0`). It appears whole or not at all, in a folder by a
temporary name, fsync, rename and fsync of the folder, in an object store by one PUT.
"""

from __future__ import annotations

import json
from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Any, TypedDict

from h2crop_data.errors import StoreError

BUILD_FOLDER = ".build"
TEMPORARY = f"{BUILD_FOLDER}/tmp"
LOCK = f"{BUILD_FOLDER}/lock"
#: What to do about a folder that is not empty and lacks it.
WITHOUT_BUILD_FOLDER = (
    f"choose another --out; if it is a copy of a store, which can only be read without it, copy {BUILD_FOLDER}/ as well"
)


#: `path`, `bytes`, `sha256` of a file of the store.
class FileRecord(TypedDict):
    """A file as markers and manifests have it."""

    path: str
    bytes: int
    sha256: str


@dataclass(frozen=True)
class Holder:
    """The builder that has locked a store, or died with its lock."""

    host: str
    process: int
    #: UTC.
    since: str
    #: Of this hold; no other has it.
    id: str
    #: Whether the hold lasts: a process that was stopped still has it, one that died has not.
    alive: bool


def canonical_json(value: Any) -> str:
    """JSON with sorted keys and one form: the same value always has the same bytes."""
    return json.dumps(value, sort_keys=True, indent=1, ensure_ascii=False, allow_nan=False) + "\n"


class ReadableStorage(ABC):
    """The files of one store, read only. Cheap to pickle; safe to use from several threads."""

    #: What the user calls it: the folder, or the URL.
    location: str

    @abstractmethod
    def read(self, name: str) -> bytes:
        """A whole file. Raises MissingFileError where there is none, StoreError where it cannot be read."""

    @abstractmethod
    def read_range(self, name: str, offset: int, length: int) -> bytes:
        """So many bytes from an offset on; fewer where the file ends before. Raises as `read` does."""

    @abstractmethod
    def read_end(self, name: str, length: int) -> tuple[bytes, int] | None:
        """The last so many bytes of a file (all of a shorter one) and its size; None where there is none."""

    def where(self, name: str) -> str:
        """A file as the user would find it."""
        return f"{self.location.rstrip('/')}/{name}"


class Storage(ReadableStorage):
    """The files of one store, to be read and written."""

    #: Seconds between two statuses that a builder writes; in a bucket each is two requests, which cost money.
    status_every: float = 60.0

    def read_end(self, name: str, length: int) -> tuple[bytes, int] | None:
        size = self.size(name)
        if size is None:
            return None
        start = max(0, size - length)
        return self.read_range(name, start, size - start), size

    @abstractmethod
    def size(self, name: str) -> int | None:
        """Bytes of a file, None where there is none."""

    @abstractmethod
    def names(self, prefix: str = "") -> Iterator[tuple[str, int]]:
        """Every file whose name begins with `prefix` (empty, or ending in a slash) and its size, in order of name."""

    def links(self) -> Iterator[str]:
        """Every symbolic link in the store, by its name there; the folder of the store itself may be one."""
        yield from ()

    @abstractmethod
    def write(self, name: str, parts: Iterable[bytes]) -> None:
        """Write a file, whole or not at all. Raises StoreError; what was there before is still there then."""

    @abstractmethod
    def write_permanent(self, name: str, parts: Iterable[bytes]) -> None:
        """Write a shard, or another file of a block, whole or not at all: in a folder read-only, in a bucket never over
        an object that another process writes at the same time. Raises StoreError as `write`.
        """

    def replace(self, name: str, parts: Iterable[bytes]) -> None:
        """Write a file whose content changes in the life of a store, for the builder that has locked it.

        Raises StoreError also where the lock was lost to another builder.
        """
        self.write(name, parts)

    @abstractmethod
    def delete(self, name: str) -> None:
        """Delete a file; one that is not there is deleted already. Raises StoreError."""

    @abstractmethod
    def describe(self, name: str) -> FileRecord:
        """Name, bytes and sha256 of a file that was written. Raises StoreError."""

    @abstractmethod
    def share(self, name: str, source: Storage) -> None:
        """Have a file of another store under the same name, without a second copy where the storage can do that."""

    @abstractmethod
    def hold(self) -> AbstractContextManager[None]:
        """Create the store if needed, and lock it against other builders until the `with` block ends.

        Raises StoreError where another builder has locked it, or the place contains something other than a store.
        """

    @property
    @abstractmethod
    def hold_name(self) -> str:
        """The `id` of the lock that files are written under; empty where they are written for none."""

    @abstractmethod
    def holder(self) -> Holder | None:
        """The holder of the lock, for anyone who can read the store: nothing is locked or written, no builder is
        disturbed.

        Gives the last holder, not `alive`, where that died; None where the store is not locked and the last holder
        released it. Raises StoreError.
        """

    def exists(self, name: str) -> bool:
        """Whether a file exists."""
        return self.size(name) is not None

    def read_json(self, name: str) -> Any:
        """A JSON document. Raises MissingFileError or StoreError, also for damaged ones."""
        try:
            return json.loads(self.read(name))
        except ValueError as error:
            raise StoreError(f"{self.where(name)} is damaged: {error}") from error
