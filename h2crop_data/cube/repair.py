"""The files of the newest release that are not shards, compared with what the release states of them.

A release never changes: sealing writes a damaged file again where its bytes are those of the manifest, and makes a new
release where they are not.
"""

from __future__ import annotations

import hashlib
import io
import re
from collections.abc import Iterable
from dataclasses import dataclass

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from h2crop_data.bounded_map import in_order
from h2crop_data.cube.release_numbers import ROOT
from h2crop_data.cube.root import ManifestPart, Root, RootAttributes, manifest_parts
from h2crop_data.cube.schema import FORMAT_VERSION, ROOT_COPY, StoreLayout
from h2crop_data.errors import MissingFileError
from h2crop_data.storage.storage import FileRecord, Storage

#: Files that are compared at a time: an object store takes its time for each.
COMPARED_AHEAD = 8
PART_OF_SEASON = re.compile(r"index/r\d+/manifest-(?P<season>\d+)\.parquet")


@dataclass(frozen=True)
class ReleasedState:
    """The newest release, and its files that are not as it states them."""

    root: Root
    #: Names of its files that are missing or have other bytes.
    damaged: frozenset[str]
    #: Those of them by season; those of the release as a whole have the key None.
    by_season: dict[int | None, frozenset[str]]

    @property
    def attributes(self) -> RootAttributes:
        """The attributes of its root."""
        return self.root["attributes"]

    @property
    def number(self) -> int:
        """The number of the release."""
        return int(self.attributes["release"])

    @property
    def is_current_format(self) -> bool:
        """Whether its files are those that this version writes."""
        return self.attributes["format_version"] == FORMAT_VERSION

    def part(self, season: int | None) -> ManifestPart | None:
        """The part of its manifest for a season, or with None for the release as a whole; None where it has none."""
        parts = (part for part in manifest_parts(self.attributes) if season_of_manifest(part["path"]) == season)
        return next(parts, None)


def season_of_manifest(path: str) -> int | None:
    """The season of a part of a manifest; None for that of the release as a whole."""
    match = PART_OF_SEASON.fullmatch(path)
    return int(match["season"]) if match else None


def released_state(files: Storage, layout: StoreLayout) -> ReleasedState | None:
    """The newest release of a store, compared with its files; None before the first.

    Of a release of another format version no file is read but the root. Raises StoreError for a root that is no JSON.
    """
    try:
        data = files.read(ROOT)
    except MissingFileError:
        return None
    root: Root = files.read_json(ROOT)
    attributes = root["attributes"]
    if attributes["format_version"] != FORMAT_VERSION:
        return ReleasedState(root, frozenset(), {})
    damaged: dict[int | None, set[str]] = {None: set()}
    copy = f"index/r{attributes['release']}/{ROOT_COPY}"
    if read_or_none(files, copy) != data:
        damaged[None].add(copy)
    sealed = sealed_files(layout, map(int, attributes["seasons"]))
    for part in manifest_parts(attributes):
        of_part = damaged.setdefault(season_of_manifest(part["path"]), set())
        records = records_of_part(files, part, sealed)
        if records is None:
            of_part.add(part["path"])
        else:
            of_part |= damaged_files(files, records)
    return ReleasedState(
        root,
        frozenset().union(*damaged.values()),
        {season: frozenset(names) for season, names in damaged.items()},
    )


def sealed_files(layout: StoreLayout, seasons: Iterable[int]) -> str:
    """A regular expression for the files of a release that sealing writes: all but those of blocks."""
    names = {coordinate.name for season in seasons for coordinate in layout.coordinates(season)}
    coordinates = "|".join(map(re.escape, sorted(names)))
    return rf"^(index/.*|[^/]+|.*/zarr\.json|\d+/({coordinates})/c\..*)$"


def records_of_part(files: Storage, part: ManifestPart, sealed: str) -> list[FileRecord] | None:
    """The files that a part of a manifest lists and sealing wrote; None where the part is lost or damaged."""
    data = read_or_none(files, part["path"])
    if data is None or hashlib.sha256(data).hexdigest() != part["sha256"]:
        return None
    table = pq.read_table(io.BytesIO(data), columns=["path", "bytes", "sha256"])
    rows = table.filter(pc.match_substring_regex(table["path"].cast(pa.string()), sealed)).to_pylist()
    return [FileRecord(path=row["path"], bytes=row["bytes"], sha256=row["sha256"]) for row in rows]


def damaged_files(files: Storage, records: Iterable[FileRecord]) -> set[str]:
    """The names of those of some files that are missing or have other bytes."""
    compared = in_order(
        lambda record: (record["path"], has_bytes_of(files, record)), records, COMPARED_AHEAD, COMPARED_AHEAD
    )
    return {name for name, is_right in compared if not is_right}


def has_bytes_of(files: Storage, record: FileRecord) -> bool:
    """Whether a file is there and has the size and the SHA-256 of its record."""
    if files.size(record["path"]) != record["bytes"]:
        return False
    return files.describe(record["path"])["sha256"] == record["sha256"]


def read_or_none(files: Storage, name: str) -> bytes | None:
    """A whole file; None where there is none."""
    try:
        return files.read(name)
    except MissingFileError:
        return None
