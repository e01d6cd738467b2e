"""The root document of a release, as readers and the seal know it (docs/store-format.md, Root)."""

from __future__ import annotations

from typing import Any, TypedDict


class SeasonIdentity(TypedDict):
    """What the root says of a season."""

    blocks: int
    samples: int
    #: Of the names and checksums of its shards.
    sha256: str


class ManifestIdentity(TypedDict):
    """What the root says of the manifest."""

    bytes: int
    sha256: str
    #: How many files it lists.
    files: int


class SealedAttributes(TypedDict):
    """What is known of a release before its index is written."""

    title: str
    format_version: str
    release: int
    #: As `StoreLayout.attributes` gives it.
    layout: dict[str, Any]
    #: Season, as text -> its identity.
    seasons: dict[str, SeasonIdentity]
    software: str


class RootAttributes(SealedAttributes, total=False):
    """The attributes of a root document; of a finished release `index` and `manifest` are there."""

    #: Name -> path of every part of the index.
    index: dict[str, str]
    manifest: ManifestIdentity
    #: Of a relabelled store: release and manifest of the one it was made from.
    origin: dict[str, Any]


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
