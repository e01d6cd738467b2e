"""The root document of a release, as readers and the seal know it (docs/store-format.md, Root)."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, NotRequired, TypedDict


class SeasonIdentity(TypedDict):
    """The entry of a season in the root."""

    blocks: int
    samples: int
    #: Of the names and checksums of its shards.
    sha256: str
    #: Start and end of the windows of time of its arrays, where it has any; not in format 1.
    windows: NotRequired[list[list[str]]]


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
    #: Name -> what `cube.schema.stated_source` says of a source; in format 1 only of those of other packages.
    sources: NotRequired[dict[str, dict[str, Any]]]
    #: In format 1, of the sources that come with h2crop: bands of Sentinel-2, empty without it; number of EnMAP's, 0
    #: without it; whether there are labels, and a mask of EnMAP's clouds of our own, which is not where it is missing.
    s2_bands: NotRequired[list[str]]
    enmap_bands: NotRequired[int]
    labels: NotRequired[bool]
    enmap_mask: NotRequired[bool]


@dataclass(frozen=True)
class StoredData:
    """What a store has of the sources that come with h2crop."""

    #: Empty without Sentinel-2.
    s2_bands: list[str]
    #: 0 without EnMAP.
    enmap_bands: int
    enmap_mask: bool
    labels: bool


def stored_data(layout: LayoutAttributes) -> StoredData:
    """What a layout says of the sources that come with h2crop, in a root of any format. Raises KeyError, TypeError."""
    if "s2_bands" in layout:
        return StoredData(layout["s2_bands"], layout["enmap_bands"], layout.get("enmap_mask", False), layout["labels"])
    sources = layout["sources"].values()
    arrays = {spec["name"]: spec for source in sources for spec in source["arrays"]}
    names = {spec["name"]: spec["values"] for source in sources for spec in source["coordinates"]}
    bands = arrays["enmap"]["sample_shape"][0] if "enmap" in arrays else 0
    return StoredData(list(names.get("s2_band") or []), bands, "enmap_mask" in arrays, "label" in arrays)


class TaxonomyIdentity(TypedDict):
    """The classes of a release, and how declared crops became classes."""

    version: str
    sha256: str
    #: Country -> SHA-256 of its crop table; of several, all of them, separated by spaces.
    countries: dict[str, str]


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
    #: Since format 2.0.
    taxonomy: TaxonomyIdentity


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
