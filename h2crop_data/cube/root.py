"""The root document of a release, as readers and the seal know it (docs/store-format.md, Root)."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Literal, NotRequired, TypedDict


class SeasonIdentity(TypedDict):
    """The entry of a season in the root."""

    blocks: int
    samples: int
    #: Of the names and checksums of its shards.
    sha256: str


class ManifestPart(TypedDict):
    """A file of the manifest: that of a season, or that of all other files."""

    path: str
    bytes: int
    sha256: str
    #: How many files it lists.
    files: int


class ManifestIdentity(TypedDict):
    """The entry of the manifest in the root."""

    #: Of the paths and checksums of its parts; in format 1 that of its only file.
    sha256: str
    #: How many files it lists.
    files: int
    parts: NotRequired[list[ManifestPart]]
    #: In format 1 only.
    bytes: NotRequired[int]


class CodecAttributes(TypedDict):
    """How chunks are compressed."""

    name: Literal["lz4", "zstd"]
    level: int
    #: Whether each chunk ends with its CRC32C; missing in format 1, whose chunks have none.
    checksum: NotRequired[bool]


class LayoutAttributes(TypedDict):
    """The shape of everything, which `sources.formats.layout_of_root` reads."""

    #: Side of a cell in metres.
    cell_size: int
    #: Samples in a block.
    block_capacity: int
    codec: CodecAttributes
    #: Of the sources that come with h2crop: bands of Sentinel-2, empty without it; number of EnMAP's, 0 without it;
    #: whether there are labels.
    s2_bands: list[str]
    enmap_bands: int
    labels: bool
    #: Whether there is a mask of EnMAP's clouds of our own; where it is missing there is none.
    enmap_mask: NotRequired[bool]
    #: Name -> what `cube.schema.stated_source` says of a source of another package.
    sources: NotRequired[dict[str, dict[str, Any]]]


class OriginIdentity(TypedDict):
    """The release of another store that a store was relabelled from."""

    release: int
    #: SHA-256 of its manifest.
    manifest: str


class SealedAttributes(TypedDict):
    """The facts of a release before its index is written."""

    title: str
    #: Of CF; since format 2.0.
    Conventions: NotRequired[str]
    format_version: str
    release: int
    layout: LayoutAttributes
    #: Season, as text -> its identity.
    seasons: dict[str, SeasonIdentity]
    software: str


class RootAttributes(SealedAttributes, total=False):
    """The attributes of a root document; of a finished release `index` and `manifest` are there."""

    #: Name -> path of every part of the index; several where it consists of several files.
    index: dict[str, str | list[str]]
    manifest: ManifestIdentity
    #: Of a relabelled store.
    origin: OriginIdentity


class ConsolidatedMetadata(TypedDict):
    """The documents of all groups and arrays, in the root."""

    kind: str
    must_understand: bool
    #: Path -> Zarr document.
    metadata: dict[str, dict[str, Any]]


class Root(TypedDict):
    """A root document."""

    zarr_format: int
    node_type: str
    attributes: RootAttributes
    consolidated_metadata: ConsolidatedMetadata


def index_paths(attributes: RootAttributes, name: str) -> list[str]:
    """The files of a part of the index, in order; none where the release has no such part."""
    paths = attributes["index"].get(name, [])
    return [paths] if isinstance(paths, str) else list(paths)


def all_index_paths(attributes: RootAttributes) -> dict[str, list[str]]:
    """Name -> files of every part of the index."""
    return {name: index_paths(attributes, name) for name in attributes["index"]}


def manifest_parts(attributes: RootAttributes) -> list[ManifestPart]:
    """The files of the manifest, of a root of any version."""
    manifest = attributes["manifest"]
    if "parts" in manifest:
        return manifest["parts"]
    (path,) = index_paths(attributes, "manifest")
    return [{"path": path, "bytes": manifest["bytes"], "sha256": manifest["sha256"], "files": manifest["files"]}]


def manifest_identity(parts: Sequence[ManifestPart]) -> ManifestIdentity:
    """What the root says of a manifest of some parts, in this order."""
    return {
        "files": sum(part["files"] for part in parts),
        "sha256": digest_of_files(parts),
        "parts": list(parts),
    }


def digest_of_files(files: Iterable[Mapping[str, Any]]) -> str:
    """SHA-256 of the JSON text of `[path, sha256]` of some files, in this order."""
    text = json.dumps([[file["path"], file["sha256"]] for file in files])
    return hashlib.sha256(text.encode()).hexdigest()
