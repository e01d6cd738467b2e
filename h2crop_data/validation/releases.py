"""Older releases that are still there: their index by their own manifest, and the shards only they have."""

from __future__ import annotations

import hashlib

from h2crop_data.bounded_map import in_order
from h2crop_data.cube.root import Root
from h2crop_data.cube.schema import ROOT_COPY
from h2crop_data.errors import StoreError
from h2crop_data.progress import Progress
from h2crop_data.storage.storage import FileRecord
from h2crop_data.validation.checksums import file_digest
from h2crop_data.validation.findings import SMALL_READS, Findings, error, warning
from h2crop_data.validation.manifest import is_strange, records_of
from h2crop_data.validation.release import INDEX_FILE, Release
from h2crop_data.validation.root import read_root_file


def older_numbers(release: Release) -> list[int]:
    """The releases before this one of which there is an index."""
    numbers = {int(match["release"]) for name in release.sizes if (match := INDEX_FILE.fullmatch(name))}
    return sorted(number for number in numbers if number < release.number)


def check_older_releases(release: Release, known: set[str], progress: Progress, *, full: bool) -> Findings:
    """Every older release. known: receives the names of its files. full: read also the shards that only it has."""
    for number in older_numbers(release):
        release.counts["older_releases"] += 1
        yield from check_older(release, number, known, progress, full=full)


def check_older(release: Release, number: int, known: set[str], progress: Progress, *, full: bool) -> Findings:
    """One older release."""
    folder = f"index/r{number}/"
    copy = f"{folder}{ROOT_COPY}"
    prune = f"`h2crop prune {release.files.location}` deletes older releases, if nobody needs this one"
    root: Root | None = None
    if copy in release.sizes:
        file = read_root_file(release.files, copy)
        root = file.document
        if root is None or root["attributes"]["release"] != number:
            yield error("release", copy, file.problem or "is not the root of this release", prune)
            root = None
    else:
        what = f"release {number} cannot be opened without it: format 1.0 kept none, or it was lost"
        yield warning("release", copy, what, prune)
    known.add(copy)
    manifest = root["attributes"]["index"]["manifest"] if root else f"{folder}manifest.parquet"
    known.add(manifest)
    records = None
    try:
        data = release.files.read(manifest)
        right = root is None or root["attributes"]["manifest"]["sha256"] == hashlib.sha256(data).hexdigest()
        records = records_of(data) if right else None
    except StoreError as failure:
        yield error("release", manifest, f"cannot be read ({failure})", prune)
    else:
        if records is None:
            yield error("release", manifest, f"is not the manifest that {copy} tells of", prune)
    if records is None:
        # What belongs to it is not known: nothing of it is a stray.
        known.update(name for name in release.sizes if name.startswith(folder))
        return
    yield from check_records(release, folder, records, known, progress, prune, shards=root is not None, full=full)


def check_records(
    release: Release,
    folder: str,
    records: list[FileRecord],
    known: set[str],
    progress: Progress,
    remedy: str,
    *,
    shards: bool,
    full: bool,
) -> Findings:
    """The files of an older release that are not those of the newest. shards: whether the release can be opened."""
    own = []
    for record in records:
        name = record["path"]
        is_index, is_shard = name.startswith(folder), release.block_of(name) is not None
        if is_strange(name) or not (is_index or is_shard):
            # Metadata and coordinates are replaced by those of later releases.
            continue
        known.add(name)
        if is_shard and (not shards or name in (release.expected or {})):
            continue
        size = release.sizes.get(name)
        if size is None and is_shard and release.partial:
            release.counts["not_here"] += 1
        elif size is None:
            yield error("release", name, f"is missing, release {folder[7:-1]} needs it", remedy)
        elif size != record["bytes"]:
            yield error(
                "release", name, f"has {size} bytes, the manifest of its release says {record['bytes']}", remedy
            )
        elif is_index or full:
            own.append(record)
    digests = in_order(lambda record: (record, file_digest(release, record["path"])), own, SMALL_READS)
    for done, (record, digest) in enumerate(digests):
        progress(done, len(own), f"files of release {folder[7:-1]}")
        if isinstance(digest, StoreError):
            yield error("unreadable", record["path"], f"cannot be read ({digest})", remedy)
        elif digest != record["sha256"]:
            yield error("release", record["path"], "its bytes are not those of the manifest of its release", remedy)
