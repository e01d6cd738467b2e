"""The numbers of the releases of a store: existing, in progress, and next.

The number of a release that readers have seen is never given to another one. The root states which release is the
newest; where it was lost or restored from an older copy, the index folders and the copies of roots in them are used as
well.
"""

from __future__ import annotations

import hashlib
import json
import logging
import re

from h2crop_data.cube.root import RootAttributes, all_index_paths, manifest_parts
from h2crop_data.cube.schema import ROOT_COPY, check_format_version
from h2crop_data.errors import FormatVersionError, MissingFileError, StoreError
from h2crop_data.storage.storage import BUILD_FOLDER, Storage

log = logging.getLogger(__name__)
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
    try:
        attributes: RootAttributes = json.loads(storage.read(ROOT))["attributes"]
        attributes["format_version"], attributes["release"]
    except (ValueError, KeyError, TypeError) as error:
        raise StoreError(
            f"{storage.where(ROOT)} is not the root of an h2crop store ({error}); restore the newest one with `h2crop "
            f"restore {storage.location}`, or choose another place"
        ) from error
    return attributes


def newest_attributes(storage: Storage) -> RootAttributes | None:
    """The root attributes of the newest release: of a copy where an older root was restored from a backup.

    None before the first. Raises StoreError as `current_attributes`.
    """
    current = current_attributes(storage)
    if current is None:
        return None
    for release in reversed(copied_releases(storage)):
        if release > current["release"] and not problem_of_copy(storage, release):
            return attributes_of_copy(storage, release)
    return current


def attributes_of_copy(storage: Storage, release: int) -> RootAttributes:
    """The attributes of the copy of the root of a release. Raises StoreError where it is lost or damaged."""
    attributes: RootAttributes = storage.read_json(copy_of_root(release))["attributes"]
    return attributes


def copy_of_root(release: int) -> str:
    """The name of the copy of the root of a release."""
    return f"index/r{release}/{ROOT_COPY}"


def copied_releases(storage: Storage) -> list[int]:
    """The releases of whose root there is a copy, in order."""
    return sorted(
        release
        for release, files in index_files_by_release(storage).items()
        if any(name.endswith(f"/{ROOT_COPY}") for name, _ in files)
    )


def problem_of_copy(storage: Storage, release: int) -> str:
    """Why the copy of the root of a release cannot take the place of the root; empty where it can.

    It is read, its manifest is compared with the bytes and the SHA-256 that it states, and all files of its index must
    exist. Raises StoreError where a file cannot be read now.
    """
    name = copy_of_root(release)
    try:
        attributes: RootAttributes = json.loads(storage.read(name))["attributes"]
        check_format_version(attributes, storage.location)
        if attributes["release"] != release:
            return f"{storage.where(name)} is of release {attributes['release']}"
        parts, paths = manifest_parts(attributes), all_index_paths(attributes)
        for part in parts:
            data = storage.read(part["path"])
            if hashlib.sha256(data).hexdigest() != part["sha256"]:
                return f"{storage.where(part['path'])} differs from the SHA-256 that {name} states"
    except (FormatVersionError, MissingFileError) as error:
        return str(error)
    except (ValueError, KeyError, TypeError) as error:
        if isinstance(error, StoreError):
            raise
        return f"{storage.where(name)} is damaged ({error})"
    existing = {name for name, _ in storage.names("index/")}
    lost = sorted({path for of_part in paths.values() for path in of_part} - existing)
    return f"{storage.where(lost[0])} is missing" if lost else ""


def index_files_by_release(storage: Storage) -> dict[int, list[tuple[str, int]]]:
    """Name and size of every file in the index folders of a store, by release."""
    found: dict[int, list[tuple[str, int]]] = {}
    for name, size in storage.names("index/"):
        if match := RELEASE_FILE.fullmatch(name):
            found.setdefault(int(match["release"]), []).append((name, size))
    return found


def next_release(storage: Storage, newest: int) -> int:
    """The number of the release to make: that of a sealing that was interrupted before the copy of its root, else one
    that was never used.

    newest: the release the root says, 0 without a root.
    """
    begun = interrupted_sealing(storage, newest)
    used = max(newest, *index_files_by_release(storage), 0)
    is_unseen = begun is not None and begun >= used and not storage.exists(copy_of_root(begun))
    return begun if begun is not None and is_unseen else used + 1


def interrupted_sealing(storage: Storage, newest: int) -> int | None:
    """The release that was being made when a builder died, if the root is still the one from before."""
    if not storage.exists(SEALING):
        return None
    try:
        record = storage.read_json(SEALING)
        return int(record["release"]) if record["after"] == newest else None
    except (KeyError, TypeError, ValueError) as error:
        raise StoreError(
            f"{storage.where(SEALING)} is damaged ({type(error).__name__}: {error}); delete it and rerun: the next "
            "release gets a number that was never used"
        ) from error


def finish_interrupted(storage: Storage) -> int:
    """Make the release of a sealing that died between the copy of its root and the root: everything else is written.

    Gives the number of the newest release that the store had before, 0 without one.

    Whether readers saw it cannot be known where the root was lost since, so it is never written again with other
    content. Raises StoreError as `current_attributes`.
    """
    current = current_attributes(storage)
    newest = int(current["release"]) if current else 0
    begun = interrupted_sealing(storage, newest)
    if begun is None or begun != max(copied_releases(storage), default=0) or problem_of_copy(storage, begun):
        return newest
    storage.replace(ROOT, [storage.read(copy_of_root(begun))])
    storage.delete(SEALING)
    log.info("%s: release %d, which was interrupted before its root was written, is made", storage.location, begun)
    return newest


def refuse_lost_root(storage: Storage, current: RootAttributes | None) -> None:
    """Refuse to continue without a root where a release was made before, or with the root of an older one.

    A first sealing that was interrupted may have left a copy of a root that never was. A copy that is damaged, or whose
    index is, is that of a release that cannot be restored: its number is not used again.
    Raises StoreError, which states how to restore the root.
    """
    copies = copied_releases(storage)
    newest = int(current["release"]) if current else 0
    if not copies or copies[-1] <= newest or interrupted_sealing(storage, newest) is not None:
        return
    restore = f"restore it with `h2crop restore {storage.location}`, then rerun"
    if current is None:
        raise StoreError(
            f"{storage.location} has lost its root {ROOT}; without it a new release would get the number of an old "
            f"one. {copy_of_root(copies[-1])} is a copy of the newest root: {restore}"
        )
    whole = [release for release in copies if release > newest and not problem_of_copy(storage, release)]
    if whole:
        raise StoreError(
            f"the root {ROOT} of {storage.location} is that of release {newest}, but release {whole[-1]} was made: an "
            f"older root was restored. {copy_of_root(whole[-1])} is a copy of the newest root: {restore}"
        )
