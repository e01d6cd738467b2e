"""The builder's side of a store: the one place that writes it.

Every file appears whole or not at all: it is written under a temporary name in `.build/tmp`, synced, renamed, and its
folder is synced. A block is done when its marker is written; readers see a release when the root document is replaced.
"""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
import shutil
import uuid
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from numpy.typing import NDArray

from h2crop_data.cube.schema import StoreLayout, check_format_version
from h2crop_data.cube.shard import encode_shard, load_root, shard_name
from h2crop_data.errors import PlanError, StoreError

BUILD_FOLDER = ".build"
#: What the marker of a block must have.
MARKER_KEYS = ("hashes", "files", "split", "spectrum", "provenance", "statistics", "software")
#: `path`, `bytes`, `sha256` of a file of the store.
FileRecord = dict[str, Any]


def canonical_json(value: Any) -> str:
    """JSON with sorted keys and one form: the same value always has the same bytes."""
    return json.dumps(value, sort_keys=True, indent=1, ensure_ascii=False, allow_nan=False) + "\n"


def sync(path: Path) -> None:
    """Make a file, or the names in a folder, survive a power cut."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


class StoreBuilder:
    """A store folder being written. Get one from `hold_store`, which keeps other builders out."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.temporary = folder / BUILD_FOLDER / "tmp"

    def write(self, name: str, parts: Iterable[bytes]) -> str:
        """Write the file `name` (relative to the store) whole or not at all; gives the name.

        Raises StoreError when the disk is full or nothing may be written; what was there before is still there then.
        """
        target = self.folder / name
        partial = self.temporary / f"{target.name}.{uuid.uuid4().hex}.tmp"
        try:
            self.make_folder(target.parent)
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
                f"cannot write {target}: {error.strerror or error}; finished blocks are kept, mend it and run again"
            ) from error
        return name

    def describe(self, name: str) -> FileRecord:
        """Name, bytes and sha256 of a file, as the file system gives it back."""
        try:
            with (self.folder / name).open("rb") as file:
                digest = hashlib.file_digest(file, "sha256").hexdigest()
                return {"path": name, "bytes": file.tell(), "sha256": digest}
        except OSError as error:
            raise StoreError(f"cannot read back {self.folder / name}: {error.strerror or error}; run again") from error

    def is_whole(self, file: FileRecord) -> bool:
        """Whether a file is there with the size it was written with."""
        try:
            return bool((self.folder / file["path"]).stat().st_size == file["bytes"])
        except OSError:
            return False

    def write_json(self, name: str, value: Any) -> str:
        """Write a JSON document in the one canonical form."""
        return self.write(name, [canonical_json(value).encode()])

    def make_folder(self, folder: Path) -> None:
        """Make a folder of the store, and its parents, durably."""
        if folder.is_dir():
            return
        self.make_folder(folder.parent)
        folder.mkdir(exist_ok=True)
        sync(folder.parent)

    def write_block(
        self, season: int, block: int, arrays: dict[str, NDArray[Any]], layout: StoreLayout, pool: ThreadPoolExecutor
    ) -> list[str]:
        """Write one block: exactly one shard in every array; gives the names of the files.

        arrays: name -> (n, *sample_shape), as `layout.arrays()` tells; all of them, none more.
        """
        specs = layout.arrays()
        if set(arrays) != set(specs):
            raise ValueError(f"block {block} has arrays {sorted(arrays)}, the store has {sorted(specs)}")
        # The pool compresses the chunks of all arrays, while this thread writes those that are ready.
        encoded = {
            name: encode_shard(arrays[name], spec, layout.capacity, layout.codec, pool.map)
            for name, spec in specs.items()
        }
        return [
            self.write(f"{season}/{name}/{shard_name(block, len(spec.dims))}", encoded[name])
            for name, spec in specs.items()
        ]

    def marker_path(self, season: int, block: int) -> Path:
        """Where the marker of a block lies."""
        return self.folder / BUILD_FOLDER / str(season) / f"{block:06d}.json"

    def write_marker(self, season: int, block: int, marker: dict[str, Any]) -> None:
        """Say that a block is done. The last thing written of a block."""
        self.write_json(str(self.marker_path(season, block).relative_to(self.folder)), marker)

    def read_marker(self, season: int, block: int) -> dict[str, Any] | None:
        """The marker of a finished block, or None."""
        path = self.marker_path(season, block)
        try:
            marker: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
            missing = set(MARKER_KEYS) - set(marker)
        except FileNotFoundError:
            return None
        except (OSError, ValueError, TypeError) as error:
            raise StoreError(f"{path} is damaged ({error}); delete it and run the build again") from error
        if missing:
            lost = ", ".join(sorted(missing))
            raise StoreError(f"{path} is damaged (it has no {lost}); delete it and run the build again")
        return marker

    def remove_garbage(self) -> int:
        """Delete what dead attempts left under temporary names; gives how many files."""
        if not self.temporary.is_dir():
            return 0
        left = list(self.temporary.iterdir())
        for path in left:
            shutil.rmtree(path) if path.is_dir() else path.unlink(missing_ok=True)
        return len(left)


@contextmanager
def hold_store(folder: Path) -> Iterator[StoreBuilder]:
    """Make the store folder if needed and keep every other builder out of it until the block ends.

    The lock is the operating system's: it ends with the process, however that dies. Raises StoreError when another
    builder holds the store or the folder is something else.
    """
    build = folder / BUILD_FOLDER
    try:
        if folder.is_dir() and not build.is_dir() and any(folder.iterdir()):
            raise StoreError(f"{folder} is not empty and has no {BUILD_FOLDER}/ to go on from; choose another --out")
        (build / "tmp").mkdir(parents=True, exist_ok=True)
        lock = (build / "lock").open("a+", encoding="utf-8")
    except StoreError:
        raise
    except OSError as error:
        raise StoreError(f"cannot write in {folder}: {error.strerror or error}") from error
    with lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            lock.seek(0)
            holder = lock.read().strip() or "unknown"
            raise StoreError(f"{folder} is held by another builder (process {holder}); wait for it or end it") from None
        lock.truncate(0)
        lock.write(f"{os.getpid()}\n")
        lock.flush()
        builder = StoreBuilder(folder)
        if (folder / "zarr.json").exists():
            check_format_version(load_root(folder)["attributes"], folder)
        builder.remove_garbage()
        yield builder


def check_same_layout(folder: Path, existing: StoreLayout, wanted: StoreLayout) -> None:
    """Refuse to build into a store of another shape. Raises PlanError naming what differs."""
    old, new = existing.attributes(), wanted.attributes()
    differing = [f"{key}: store {old[key]}, plan {new[key]}" for key in old if old[key] != new[key]]
    if differing:
        raise PlanError(f"{folder} has another layout ({'; '.join(differing)}); build into a new store")
