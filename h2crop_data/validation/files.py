"""The files of a store: the manifest, whether each file is there with its size and checksum, older releases, strays."""

from __future__ import annotations

import hashlib
import io
import re
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import replace

import pandas as pd

from h2crop_data.bounded_map import in_order
from h2crop_data.cube.release_numbers import ROOT
from h2crop_data.cube.root import ManifestPart, Root, all_index_paths, manifest_parts
from h2crop_data.cube.schema import ROOT_COPY
from h2crop_data.errors import StoreError
from h2crop_data.progress import Progress
from h2crop_data.storage.storage import FileRecord, Storage
from h2crop_data.validation.findings import (
    SMALL_READS,
    Checking,
    Counted,
    Findings,
    NotChecked,
    Reports,
    error,
    first,
    warning,
)
from h2crop_data.validation.metadata import read_root_file, release_files
from h2crop_data.validation.release import INDEX_FILE, SHA256, SHEET, Release

MANIFEST_COLUMNS = ["path", "bytes", "sha256"]
SEASON_FILE = re.compile(r"(?P<season>\d{4})/((?P<folder>\w+)/)?(?P<file>[^/]+)")
CHUNK_FILE = re.compile(r"c\.\d+(\.0)*")


# Links


def behind_links(files: Storage, links: Sequence[str]) -> dict[str, int]:
    """The files that readers find behind symbolic links in a store, by the name they have there, and their sizes."""
    found: dict[str, int] = {}
    for link in links:
        try:
            found.update(files.names(f"{link}/"))
        except NotADirectoryError:
            found[link] = files.size(link) or 0
    return found


def check_links(links: Sequence[str]) -> Findings:
    """Symbolic links in a store: readers follow them, builders refuse it."""
    for name in links:
        what = "is a symbolic link: readers follow it, builders refuse a store with links"
        yield warning("link", name, what, "replace it by the file or folder that it points to")


# The manifest


def read_manifest(release: Release) -> Checking[Release]:
    """The manifest against the root, and its form; what it says is relied on from here on."""
    everything: list[FileRecord] = []
    lost = set()
    for part in manifest_parts(release.attributes):
        records = yield from read_manifest_part(release, part)
        if records is None:
            lost.add(part["path"])
        else:
            everything += records
    if lost:
        yield NotChecked("which files belong to the release, and their checksums: the manifest is lost")
        return replace(release, damaged=release.damaged | lost)
    yield from list_problems(release, everything)
    expected = {record["path"]: record for record in everything if not is_strange(record["path"])}
    return replace(release, expected=expected)


def read_manifest_part(release: Release, part: ManifestPart) -> Checking[list[FileRecord] | None]:
    """What a file of the manifest lists; None where it is lost or damaged."""
    name, remedy = part["path"], release.remedies.sealed()
    try:
        data = release.files.read(name)
    except StoreError as failure:
        is_lost = name not in release.sizes
        what = "is missing" if is_lost else f"cannot be read ({failure})"
        yield error("missing" if is_lost else "unreadable", name, what, remedy)
        return None
    if hashlib.sha256(data).hexdigest() != part["sha256"]:
        yield error("checksum", name, f"its bytes are not those that {ROOT} states", remedy)
        return None
    records = records_of(data)
    if records is None:
        yield error("index", name, "is not a table of path, bytes and sha256", release.remedies.wrong_index())
        return None
    paths = [record["path"] for record in records]
    if paths != sorted(paths):
        yield warning("index", name, "does not list its files by path", release.remedies.wrong_index())
    if len(paths) != part["files"]:
        what = f"lists {len(paths)} files, {ROOT} says {part['files']}"
        yield error("index", name, what, release.remedies.wrong_index())
    return records


def records_of(data: bytes) -> list[FileRecord] | None:
    """What a manifest lists; None for bytes that are not one."""
    try:
        table = pd.read_parquet(io.BytesIO(data))[MANIFEST_COLUMNS]
        table = table.astype({"path": "str", "bytes": "int64", "sha256": "str"})
    except (ValueError, KeyError, TypeError, OSError, NotImplementedError):
        return None
    return [FileRecord(path=path, bytes=size, sha256=digest) for path, size, digest in table.itertuples(index=False)]


def is_strange(path: str) -> bool:
    """Whether a path cannot be that of a file a manifest lists."""
    return path == ROOT or path.startswith(("/", ".")) or ".." in path.split("/")


def list_problems(release: Release, records: list[FileRecord]) -> Findings:
    """What is wrong with the list of all files itself."""
    paths = [record["path"] for record in records]
    known = set(paths)
    name, remedy = release.index_path("manifest"), release.remedies.wrong_index()
    if strange := [path for path in paths if is_strange(path)]:
        yield error("index", name, f"lists files that no manifest can list: {first(strange)}", remedy)
    if len(known) < len(paths):
        yield error("index", name, f"lists {len(paths) - len(known)} file(s) more than once", remedy)
    if without := [record["path"] for record in records if not re.match(SHA256, record["sha256"])]:
        yield error("index", name, f"has no SHA-256 of {first(without)}", remedy)
    left_out = {str(season) for season in release.named_seasons - set(release.seasons)}
    sealed = {path for path in paths if release.block_of(path) is None and path.split("/")[0] not in left_out}
    wanted = release_files(release, all_index_paths(release.attributes))
    if lost := sorted(wanted - sealed):
        yield error("index", name, f"does not list {first(lost)}", remedy)
    if more := sorted(sealed - wanted - set(strange)):
        yield warning("index", name, f"lists files the format does not know: {first(more)}", remedy)


# Presence, sizes, checksums


def check_presence(release: Release) -> Checking[Release]:
    """Every file of the manifest is there and has its size; gives the release with what is damaged."""
    expected = release.expected or {}
    damaged = set()
    for name, record in expected.items():
        size = release.sizes.get(name)
        if size == record["bytes"]:
            continue
        if size is None and release.partial and release.block_of(name) is not None:
            damaged.add(name)
            yield Counted("not_here", 1)
        elif size is None:
            damaged.add(name)
            yield error("missing", name, "is missing", release.remedy_for(name))
        elif not release.may_have_grown(name) and not (name == SHEET and release.is_being_sealed):
            damaged.add(name)
            what = f"has {size} bytes, the manifest says {record['bytes']}"
            yield error("size", name, what, release.remedy_for(name))
    yield Counted("files", len(expected))
    yield Counted("bytes", sum(record["bytes"] for record in expected.values()))
    return replace(release, damaged=release.damaged | damaged)


def check_small_checksums(release: Release, progress: Progress) -> Checking[Release]:
    """The SHA-256 of every file that is no block's: index, metadata documents, coordinates.

    Gives the release with what is damaged, and with what a build that is at work may have changed.
    """
    names = [name for name in release.expected or {} if release.block_of(name) is None and release.is_here(name)]
    damaged, changed = set(), set()
    for name, found in digests(release, names, progress, "checksums of index and metadata"):
        yield Counted("checksums", 1)
        if found == release.sha256_of(name):
            continue
        if isinstance(found, str) and release.may_have_grown(name):
            changed.add(name)
        elif isinstance(found, str) and name == SHEET and is_next_datasheet(release, found):
            what = "is that of the next release, which is not finished"
            yield warning("unfinished", name, what, release.remedies.unfinished())
        elif isinstance(found, str) and name == SHEET and release.is_being_sealed:
            yield release.replaced_by_next(name)
        else:
            damaged.add(name)
            yield release.other_bytes(name) if isinstance(found, str) else release.unreadable(name, found)
    return replace(release, damaged=release.damaged | damaged, changed=frozenset(changed))


def check_kept_files(release: Release, progress: Progress) -> Reports:
    """The SHA-256 of files of blocks that are no shards; those of shards are read with their pixels."""
    names = [name for name in release.expected or {} if release.is_kept(name) and release.is_here(name)]
    for name, found in digests(release, names, progress, "checksums of what was imported"):
        yield Counted("checksums", 1)
        if isinstance(found, StoreError):
            yield release.unreadable(name, found)
        elif found != release.sha256_of(name):
            yield release.other_bytes(name)


def digests(
    release: Release, names: Sequence[str], progress: Progress, text: str
) -> Iterator[tuple[str, str | StoreError]]:
    """Each file with its SHA-256, or why it cannot be read."""
    found = in_order(lambda name: (name, file_digest(release, name)), names, SMALL_READS)
    for done, named in enumerate(found):
        progress(done, len(names), text)
        yield named


def is_next_datasheet(release: Release, digest: str) -> bool:
    """Whether a SHA-256 is that of the datasheet of the next release, which is not finished."""
    name = f"index/r{release.number + 1}/datasheet.md"
    return name in release.sizes and file_digest(release, name) == digest


def file_digest(release: Release, name: str) -> str | StoreError:
    """The SHA-256 of a file, or why it cannot be read."""
    try:
        return str(release.files.describe(name)["sha256"])
    except StoreError as failure:
        return failure


# Older releases


def older_numbers(release: Release) -> list[int]:
    """The releases before this one of which there is an index."""
    numbers = {int(match["release"]) for name in release.sizes if (match := INDEX_FILE.fullmatch(name))}
    return sorted(number for number in numbers if number < release.number)


def check_older_releases(release: Release, progress: Progress, *, full: bool) -> Checking[frozenset[str]]:
    """Every older release; gives the names of their files. full: read also the shards that only they have."""
    index = {path for paths in all_index_paths(release.attributes).values() for path in paths}
    known: frozenset[str] = frozenset()
    # Newer ones first: a folder may have nothing but files that later releases share.
    for number in reversed(older_numbers(release)):
        folder = {name for name in release.sizes if name.startswith(f"index/r{number}/")}
        if folder <= index | known:
            continue
        yield Counted("older_releases", 1)
        known |= yield from check_older(release, number, progress, full=full)
    return known


def check_older(release: Release, number: int, progress: Progress, *, full: bool) -> Checking[frozenset[str]]:
    """One older release: its index by its own manifest, and the shards only it has; gives the names of its files."""
    folder = f"index/r{number}/"
    copy = f"{folder}{ROOT_COPY}"
    prune = f"`h2crop prune {release.files.location}` deletes older releases, if this one is not needed"
    root: Root | None = None
    if copy in release.sizes:
        file = read_root_file(release.files, copy)
        root = file.document
        if root is None or root["attributes"]["release"] != number:
            yield error("release", copy, file.problem or "is not the root of this release", prune)
            root = None
    else:
        what = (
            f"release {number} cannot be opened without it: format 1.0 kept none, it was lost, or deleting the release "
            "was interrupted"
        )
        yield warning("release", copy, what, prune)
        return files_without_root(release, folder)
    manifest = {part["path"]: part["sha256"] for part in manifest_parts(root["attributes"])} if root else {}
    records: list[FileRecord] = []
    whole = True
    # Without a root that can be read, those of its own folder.
    parts = list(manifest) or manifests_in(release, folder)
    for name in parts or [f"{folder}manifest.parquet"]:
        try:
            data = release.files.read(name)
        except StoreError as failure:
            yield error("release", name, f"cannot be read ({failure})", prune)
            whole = False
            continue
        right = root is None or manifest[name] == hashlib.sha256(data).hexdigest()
        found = records_of(data) if right else None
        if found is None:
            yield error("release", name, f"is not the manifest that {copy} states", prune)
            whole = False
        records += found or []
    own = frozenset({copy, *parts, f"{folder}manifest.parquet"})
    if not whole:
        # What belongs to it is not known: nothing of it is a stray.
        return own | {name for name in release.sizes if name.startswith(folder)}
    of_records = yield from check_records(release, number, records, progress, prune, shards=root is not None, full=full)
    return own | of_records


def manifests_in(release: Release, folder: str) -> list[str]:
    """The parts of a manifest in the folder of a release."""
    return [name for name in release.sizes if re.fullmatch(rf"{folder}manifest(-\d+)?\.parquet", name)]


def files_without_root(release: Release, folder: str) -> frozenset[str]:
    """The files of a release that cannot be opened, as far as its manifest says which they are."""
    names = {name for name in release.sizes if name.startswith(folder)}
    for part in manifests_in(release, folder):
        try:
            records = records_of(release.files.read(part)) or []
        except StoreError:
            continue
        names |= {record["path"] for record in records if release.block_of(record["path"]) is not None}
    return frozenset(names)


def check_records(
    release: Release,
    number: int,
    records: list[FileRecord],
    progress: Progress,
    remedy: str,
    *,
    shards: bool,
    full: bool,
) -> Checking[frozenset[str]]:
    """The files of an older release that are not those of the newest; gives the names of all its own.

    shards: whether the release can be opened.
    """
    own, known = [], set()
    for record in records:
        name = record["path"]
        is_index, is_shard = INDEX_FILE.fullmatch(name) is not None, release.block_of(name) is not None
        if is_strange(name) or not (is_index or is_shard):
            # Metadata and coordinates are replaced by those of later releases.
            continue
        known.add(name)
        if name in (release.expected or {}) or (is_shard and not shards):
            continue
        size = release.sizes.get(name)
        if size is None and is_shard and release.partial:
            yield Counted("not_here", 1)
        elif size is None:
            yield error("release", name, f"is missing, release {number} needs it", remedy)
        elif size != record["bytes"]:
            what = f"has {size} bytes, the manifest of its release says {record['bytes']}"
            yield error("release", name, what, remedy)
        elif is_index or full:
            own.append(record)
    found = in_order(lambda record: (record, file_digest(release, record["path"])), own, SMALL_READS)
    for done, (record, digest) in enumerate(found):
        progress(done, len(own), f"files of release {number}")
        if isinstance(digest, StoreError):
            yield error("unreadable", record["path"], f"cannot be read ({digest})", remedy)
        elif digest != record["sha256"]:
            yield error("release", record["path"], "its bytes are not those of the manifest of its release", remedy)
    return frozenset(known)


def check_later_releases(release: Release) -> Findings:
    """Copies of the roots of later releases, whose number is right: the root is an older one."""
    found = {int(match["release"]) for name in release.sizes if (match := INDEX_FILE.fullmatch(name))}
    for number in sorted(found, reverse=True):
        copy = f"index/r{number}/{ROOT_COPY}"
        if number <= release.number or copy not in release.sizes:
            continue
        root = read_root_file(release.files, copy).document
        if root is not None and root["attributes"]["release"] == number:
            what = f"is that of release {release.number}, but release {number} was made, or is about to be"
            yield warning("release", ROOT, what, release.remedies.root(copy))
            return


# Files of no release


def check_strays(release: Release, older: frozenset[str]) -> Reports:
    """Files that belong to no release, and what a build at work, or one that was interrupted, leaves.

    older: the files of older releases.
    """
    if release.expected is None:
        yield NotChecked("files that do not belong to the store: the manifest is lost")
        return
    index = {path for paths in all_index_paths(release.attributes).values() for path in paths}
    known = {ROOT, *index, *release.expected, *older, *retracted_files(release)}
    unfinished: Counter[str] = Counter()
    for name in release.sizes:
        if name in known:
            continue
        place = part_of_later_release(release, name)
        if place is not None:
            unfinished[place] += 1
        else:
            remedy = "delete it, if nothing else needs it; readers do not look at it"
            yield warning("stray", name, "belongs to no release", remedy)
    for place, count in sorted(unfinished.items()):
        what = f"{count} file(s) of a release that is not finished"
        yield warning("unfinished", place, what, release.remedies.unfinished())


def retracted_files(release: Release) -> set[str]:
    """The files of retracted blocks: kept for older releases, or gone."""
    blocks = release.tables.get("blocks")
    if blocks is None:
        return set()
    retracted = blocks[blocks["retracted"] != ""]
    return {str(path) for paths in retracted["files"] for path in paths}


def part_of_later_release(release: Release, name: str) -> str | None:
    """The place in the store where a build adds such a file; None for one that no build adds."""
    if found := INDEX_FILE.fullmatch(name):
        return f"index/r{found['release']}/" if int(found["release"]) > release.number else None
    block = release.block_of(name)
    if block is not None and block[1] >= release.seasons.get(block[0], 0):
        return f"{block[0]}/ (blocks from {release.seasons.get(block[0], 0)} on)"
    found = SEASON_FILE.fullmatch(name)
    if found is None:
        return None
    season, folder, file = int(found["season"]), found["folder"], found["file"]
    coordinates = {coordinate.name for coordinate in release.coordinate_specs(season)}
    is_chunk = folder in coordinates and CHUNK_FILE.fullmatch(file) is not None
    is_document = file == "zarr.json" and (folder is None or folder in coordinates or folder in release.specs)
    if season not in release.seasons and (is_chunk or is_document):
        return f"{season}/"
    if season in release.extended and is_chunk:
        return f"{season}/ (blocks from {release.seasons[season]} on)"
    return None
