"""The numbers of the releases of a store: existing, in progress, and next.

The number of a release that readers have seen is never given to another one. The root states which release is the
newest; where it was lost or restored from an older copy, the index folders and the copies of roots in them are used as
well.
"""

from __future__ import annotations

import re

from h2crop_data.cube.root import RootAttributes
from h2crop_data.cube.schema import ROOT_COPY
from h2crop_data.errors import StoreError
from h2crop_data.storage.storage import BUILD_FOLDER, Storage

#: The root document of the newest release.
ROOT = "zarr.json"
#: There from the beginning of a sealing to its end: the release that is made, and the one that was the newest before.
SEALING = f"{BUILD_FOLDER}/sealing.json"
RELEASE_FILE = re.compile(r"index/r(?P<release>\d+)/.+")


def current_attributes(storage: Storage) -> RootAttributes | None:
    """The root attributes of the store's current release, or None before the first.

    Raises StoreError for a root that is not that of an h2crop store.
    """
    if not storage.exists(ROOT):
        return None
    root = storage.read_json(ROOT)
    try:
        attributes: RootAttributes = root["attributes"]
        attributes["format_version"], attributes["release"]
    except (KeyError, TypeError) as error:
        raise StoreError(
            f"{storage.where(ROOT)} is not the root of an h2crop store ({error}); restore the newest "
            f"index/r<N>/{ROOT_COPY}, or choose another place"
        ) from error
    return attributes


def newest_attributes(storage: Storage) -> RootAttributes | None:
    """The root attributes of the newest release: of a copy where an older root was restored from a backup.

    None before the first. Raises StoreError as `current_attributes`.
    """
    current = current_attributes(storage)
    if current is None:
        return None
    newest = max(copied_releases(storage), default=0)
    if newest <= current["release"]:
        return current
    document = storage.read_json(f"index/r{newest}/{ROOT_COPY}")
    copied: RootAttributes = document["attributes"]
    return copied


def copied_releases(storage: Storage) -> list[int]:
    """The releases of whose root there is a copy."""
    return [
        release
        for release, files in index_files_by_release(storage).items()
        if any(name.endswith(f"/{ROOT_COPY}") for name, _ in files)
    ]


def index_files_by_release(storage: Storage) -> dict[int, list[tuple[str, int]]]:
    """Name and size of every file in the index folders of a store, by release."""
    found: dict[int, list[tuple[str, int]]] = {}
    for name, size in storage.names("index/"):
        if match := RELEASE_FILE.fullmatch(name):
            found.setdefault(int(match["release"]), []).append((name, size))
    return found


def next_release(storage: Storage, newest: int) -> int:
    """The number of the release to make: that of a sealing that was interrupted, else one that was never used.

    newest: the release the root says, 0 without a root.
    """
    begun = interrupted_sealing(storage, newest)
    return begun if begun is not None else max(newest, *index_files_by_release(storage), 0) + 1


def interrupted_sealing(storage: Storage, newest: int) -> int | None:
    """The release that was being made when a builder died, if the root is still the one from before."""
    if not storage.exists(SEALING):
        return None
    record = storage.read_json(SEALING)
    return int(record["release"]) if record["after"] == newest else None


def refuse_lost_root(storage: Storage) -> None:
    """Refuse to continue without a root where a release was made before. Raises StoreError, which states how to restore
    it.

    A first sealing that was interrupted may have left a copy of a root that never was.
    """
    copies = copied_releases(storage)
    if not copies or interrupted_sealing(storage, 0) is not None:
        return
    copy = f"index/r{max(copies)}/{ROOT_COPY}"
    command = "aws s3 cp" if storage.location.startswith("s3://") else "cp"
    raise StoreError(
        f"{storage.location} has lost its root {ROOT}; without it a new release would get the number of an old one. "
        f"{copy} is a copy of the newest root: restore it with `{command} {storage.where(copy)} "
        f"{storage.where(ROOT)}`, then rerun"
    )
