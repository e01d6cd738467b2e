"""The manifest: whether it is the one the root tells of, and what it lists."""

from __future__ import annotations

import hashlib
import io
import re

import pandas as pd

from h2crop_data.cube.release_numbers import ROOT
from h2crop_data.errors import StoreError
from h2crop_data.storage.storage import FileRecord
from h2crop_data.validation.documents import release_files
from h2crop_data.validation.findings import Findings, error, first, warning
from h2crop_data.validation.release import Release
from h2crop_data.validation.root import SHA256

MANIFEST_COLUMNS = ["path", "bytes", "sha256"]


def check_manifest(release: Release) -> Findings:
    """The manifest against the root, and its form; what it says is relied on from here on."""
    name = release.index_path("manifest")
    data = None
    try:
        data = release.files.read(name)
    except StoreError as failure:
        lost = name not in release.sizes
        what = "is missing" if lost else f"cannot be read ({failure})"
        yield error("missing" if lost else "unreadable", name, what, release.remedies.sealed())
    if data is not None and hashlib.sha256(data).hexdigest() != release.attributes["manifest"]["sha256"]:
        yield error("checksum", name, f"its bytes are not those that {ROOT} tells of", release.remedies.sealed())
        data = None
    records = None if data is None else records_of(data)
    if data is not None and records is None:
        yield error("index", name, "is no table of path, bytes and sha256", release.remedies.wrong_index())
    if records is None:
        release.damaged.add(name)
        release.cannot_check("which files belong to the release, and their checksums: the manifest is lost")
        return
    yield from list_problems(release, name, records)
    release.expected = {record["path"]: record for record in records if not is_strange(record["path"])}


def records_of(data: bytes) -> list[FileRecord] | None:
    """What a manifest lists; None for bytes that are none."""
    try:
        table = pd.read_parquet(io.BytesIO(data))[MANIFEST_COLUMNS]
        table = table.astype({"path": "str", "bytes": "int64", "sha256": "str"})
    except (ValueError, KeyError, TypeError, OSError, NotImplementedError):
        return None
    return [FileRecord(path=path, bytes=size, sha256=digest) for path, size, digest in table.itertuples(index=False)]


def is_strange(path: str) -> bool:
    """Whether a path cannot be that of a file a manifest lists."""
    return path == ROOT or path.startswith(("/", ".")) or ".." in path.split("/")


def list_problems(release: Release, name: str, records: list[FileRecord]) -> Findings:
    """What is wrong with the list itself."""
    paths = [record["path"] for record in records]
    known = set(paths)
    remedy = release.remedies.wrong_index()
    if strange := [path for path in paths if is_strange(path)]:
        yield error("index", name, f"lists files that no manifest can list: {first(strange)}", remedy)
    if len(known) < len(paths):
        yield error("index", name, f"lists {len(paths) - len(known)} file(s) more than once", remedy)
    if paths != sorted(paths):
        yield warning("index", name, "does not list its files by path", remedy)
    stated = release.attributes["manifest"]["files"]
    if len(paths) != stated:
        yield error("index", name, f"lists {len(paths)} files, {ROOT} says {stated}", remedy)
    if without := [record["path"] for record in records if not re.match(SHA256, record["sha256"])]:
        yield error("index", name, f"has no SHA-256 of {first(without)}", remedy)
    left_out = {str(season) for season in release.named_seasons - set(release.seasons)}
    sealed = {path for path in paths if release.block_of(path) is None and path.split("/")[0] not in left_out}
    wanted = release_files(release.layout, release.seasons, release.attributes["index"])
    if lost := sorted(wanted - sealed):
        yield error("index", name, f"does not list {first(lost)}", remedy)
    if more := sorted(sealed - wanted - set(strange)):
        yield warning("index", name, f"lists files the format does not know: {first(more)}", remedy)
