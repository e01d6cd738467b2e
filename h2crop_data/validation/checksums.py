"""Whether every file of the release is there, with its size and its checksum."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from h2crop_data.bounded_map import in_order
from h2crop_data.cube.seal import DATASHEET
from h2crop_data.errors import StoreError
from h2crop_data.progress import Progress
from h2crop_data.validation.findings import SMALL_READS, Finding, Findings, error, warning
from h2crop_data.validation.release import Release


def check_presence(release: Release) -> Findings:
    """Every file of the manifest is there and has its size."""
    expected = release.expected or {}
    for name, record in expected.items():
        size = release.sizes.get(name)
        if size == record["bytes"]:
            continue
        if size is None and release.partial and release.block_of(name) is not None:
            release.damaged.add(name)
            release.counts["not_here"] += 1
        elif size is None:
            release.damaged.add(name)
            yield error("missing", name, "is missing", release.remedy_for(name))
        elif not release.may_have_grown(name):
            release.damaged.add(name)
            yield error(
                "size", name, f"has {size} bytes, the manifest says {record['bytes']}", release.remedy_for(name)
            )
    release.counts["files"] = len(expected)
    release.counts["bytes"] = sum(record["bytes"] for record in expected.values())


def check_small_checksums(release: Release, progress: Progress) -> Findings:
    """The SHA-256 of every file that is no block's: index, metadata documents, coordinates."""
    names = [name for name in release.expected or {} if release.block_of(name) is None and release.is_here(name)]
    for name, told in digests(release, names, progress, "checksums of index and metadata"):
        if told == release.sha256_of(name):
            continue
        if isinstance(told, StoreError):
            yield unreadable(release, name, told)
        elif release.may_have_grown(name):
            release.changed.add(name)
        elif name == DATASHEET and is_next_datasheet(release, told):
            what = "is that of the next release, which is not finished"
            yield warning("unfinished", name, what, release.remedies.unfinished())
        else:
            yield other_bytes(release, name)


def check_kept_files(release: Release, progress: Progress) -> Findings:
    """The SHA-256 of files of blocks that are no shards; those of shards are read with their pixels."""
    names = [name for name in release.expected or {} if release.is_kept(name) and release.is_here(name)]
    for name, told in digests(release, names, progress, "checksums of what was imported"):
        if isinstance(told, StoreError):
            yield unreadable(release, name, told)
        elif told != release.sha256_of(name):
            yield other_bytes(release, name)


def digests(
    release: Release, names: Sequence[str], progress: Progress, text: str
) -> Iterator[tuple[str, str | StoreError]]:
    """Each file with its SHA-256, or why it cannot be read."""
    found = in_order(lambda name: (name, file_digest(release, name)), names, SMALL_READS)
    for done, (name, told) in enumerate(found):
        progress(done, len(names), text)
        release.counts["checksums"] += 1
        yield name, told


def is_next_datasheet(release: Release, told: str) -> bool:
    """Whether a SHA-256 is that of the datasheet of the next release, which is not finished."""
    name = f"index/r{release.number + 1}/datasheet.md"
    return name in release.sizes and file_digest(release, name) == told


def other_bytes(release: Release, name: str) -> Finding:
    """The finding of a file whose SHA-256 is not that of the manifest; it is not relied on any more."""
    release.damaged.add(name)
    return error("checksum", name, "its bytes are not those of the manifest (SHA-256)", release.remedy_for(name))


def unreadable(release: Release, name: str, failure: StoreError) -> Finding:
    """The finding of a file that is there and cannot be read; it is not tried again."""
    release.damaged.add(name)
    return error("unreadable", name, f"cannot be read ({failure})", release.remedy_for(name))


def file_digest(release: Release, name: str) -> str | StoreError:
    """The SHA-256 of a file, or why it cannot be read."""
    try:
        return str(release.files.describe(name)["sha256"])
    except StoreError as failure:
        return failure
