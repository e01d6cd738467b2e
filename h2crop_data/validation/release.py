"""The release being looked at: a frozen value of what was read of it, and of what is known to be damaged."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import pandas as pd
from numpy.typing import NDArray

from h2crop_data.cube.root import Root, RootAttributes, index_paths
from h2crop_data.cube.schema import ArraySpec, CoordinateSpec, StoreLayout
from h2crop_data.errors import StoreError
from h2crop_data.storage.storage import FileRecord, Storage
from h2crop_data.validation.documents import expected_coordinates
from h2crop_data.validation.findings import Finding, NotChecked, Remedies, error

INDEX_FILE = re.compile(r"index/r(?P<release>\d+)/.+")
SHARD = re.compile(r"(?P<season>\d{4})/(?P<array>\w+)/(?P<file>c\.(?P<block>\d+)(\.0)*)")
SHA256 = r"^[0-9a-f]{64}$"
#: The release in words, beside the root.
SHEET = "DATASHEET.md"
#: What an import keeps of a block beside its arrays.
KEPT = re.compile(r"(?P<season>\d{4})/published/(?P<block>\d+)\.h5")
#: The key in a season's recipe by which an imported season is known.
IMPORTED = "published"


def shard_file(block: int, dimensions: int) -> str:
    """The name of a block's shard in the folder of an array of so many dimensions."""
    return ".".join(["c", str(block), *["0"] * (dimensions - 1)])


@dataclass(frozen=True)
class Release:
    """A release of a store, as far as it was read.

    Each step of validation is given one, changes nothing of it, and gives what it read; later steps get another one
    with that in it (`dataclasses.replace`), so that nothing damaged is read twice or reported twice.
    """

    files: Storage
    #: Bytes of every file that was there, but the builder's.
    sizes: Mapping[str, int]
    root: Root
    layout: StoreLayout
    #: Consolidated entries that do not follow from the layout -> how they differ.
    strange_entries: Mapping[str, str]
    remedies: Remedies
    #: Blocks may be missing by intention.
    partial: bool = False
    #: A builder is making the next release, or died while it did: it replaces coordinates, documents and datasheet.
    is_being_sealed: bool = False
    #: What the manifest says of every file; None where that is not known.
    expected: Mapping[str, FileRecord] | None = None
    #: Files that are missing, or not what the manifest says.
    damaged: frozenset[str] = frozenset()
    #: Files whose bytes changed after the release, in a store that is being extended; perhaps rightly.
    changed: frozenset[str] = frozenset()
    #: Tables and documents of the index that can be relied on, by name.
    tables: Mapping[str, pd.DataFrame] = field(default_factory=dict)
    documents: Mapping[str, Any] = field(default_factory=dict)
    #: Blocks of which the index contradicts itself: which samples they hold is not sure.
    doubtful_blocks: frozenset[tuple[int, int]] = frozenset()
    #: Seasons whose parcels are not numbered as they must be.
    doubtful_parcels: frozenset[int] = frozenset()
    #: Season -> coordinate that runs along slots and another axis -> (slot, n); without those that cannot be read.
    coordinates: Mapping[int, Mapping[str, NDArray[Any]]] = field(default_factory=dict)

    @property
    def attributes(self) -> RootAttributes:
        """The attributes of its root."""
        return self.root["attributes"]

    @property
    def number(self) -> int:
        """Number of the release."""
        return int(self.attributes["release"])

    @property
    def format(self) -> tuple[int, int]:
        """Major and minor version of its format."""
        major, minor = self.attributes["format_version"].split(".")
        return int(major), int(minor)

    def coordinate_specs(self, season: int) -> list[CoordinateSpec]:
        """The coordinates that a season must have."""
        return expected_coordinates(self.layout, season, first=self.format < (2, 0))

    @property
    def is_first_format(self) -> bool:
        """Whether it is of format 1.0, which lacks some of what every later one has."""
        return self.format == (1, 0)

    @property
    def has_block_digests(self) -> bool:
        """Whether the blocks index has checksums of files, as before manifests had parts; later they alone have."""
        return "parts" not in self.attributes["manifest"]

    @property
    def named_seasons(self) -> set[int]:
        """The seasons the root names."""
        return set(map(int, self.attributes["seasons"]))

    @cached_property
    def seasons(self) -> dict[int, int]:
        """Season -> number of its blocks; without seasons of which the root contradicts itself."""
        found = {int(season): facts["blocks"] for season, facts in sorted(self.attributes["seasons"].items())}
        return {season: blocks for season, blocks in found.items() if self.arrays(season)}

    @cached_property
    def specs(self) -> dict[str, ArraySpec]:
        """The arrays of the layout by name."""
        return self.layout.arrays()

    def arrays(self, season: int) -> dict[str, ArraySpec]:
        """The arrays of a season whose metadata can be relied on."""
        return {name: spec for name, spec in self.specs.items() if f"{season}/{name}" not in self.strange_entries}

    def shards(self, season: int, block: int) -> dict[str, str]:
        """Array -> name of the shard of a block."""
        return {
            name: f"{season}/{name}/{shard_file(block, len(spec.dims))}" for name, spec in self.arrays(season).items()
        }

    def block_of(self, name: str) -> tuple[int, int] | None:
        """Season and block of a file that belongs to a block; None for other files."""
        kept = KEPT.fullmatch(name)
        if kept is not None:
            return int(kept["season"]), int(kept["block"])
        found = SHARD.fullmatch(name)
        spec = self.specs.get(found["array"]) if found else None
        if not found or spec is None or found["file"] != shard_file(int(found["block"]), len(spec.dims)):
            return None
        return int(found["season"]), int(found["block"])

    def sha256_of(self, name: str) -> str | None:
        """The SHA-256 a file must have by the manifest, or where that is lost by the blocks index; None: unknown.

        Only format 1 has checksums in the blocks index.
        """
        if self.expected is not None:
            return str(self.expected[name]["sha256"]) if name in self.expected else None
        return self.sha256_of_blocks.get(name)

    @cached_property
    def sha256_of_blocks(self) -> dict[str, str]:
        """What the blocks index says of their files; asked for when the index was read."""
        blocks = self.tables.get("blocks")
        if blocks is None or "sha256" not in blocks:
            return {}
        rows = zip(blocks["files"], blocks["sha256"], strict=True)
        return {str(name): str(digest) for row in rows for name, digest in zip(*row, strict=False)}

    def is_kept(self, name: str) -> bool:
        """Whether a file of a block is no shard, but what an import keeps beside its arrays."""
        return KEPT.fullmatch(name) is not None

    @cached_property
    def extended(self) -> frozenset[int]:
        """The seasons that a build at work, or one that was interrupted, has added something to."""
        if self.is_being_sealed:
            return frozenset(self.seasons)
        folders = {int(found["release"]) for name in self.sizes if (found := INDEX_FILE.fullmatch(name))}
        if max(folders, default=0) > self.number:
            return frozenset(self.seasons)
        blocks = {block for name in self.sizes if (block := self.block_of(name)) is not None}
        return frozenset(season for season, block in blocks if block >= self.seasons.get(season, block + 1))

    def may_have_grown(self, name: str) -> bool:
        """Whether a build at work may have replaced a file by a longer one; the check of its content tells."""
        season = name.split("/")[0]
        return season.isdecimal() and self.block_of(name) is None and int(season) in self.extended

    def is_replaced_meanwhile(self, name: str) -> bool:
        """Whether the release being made has replaced a file, perhaps since its checksum was looked at."""
        record = (self.expected or {}).get(name)
        if not self.is_being_sealed or record is None or not (self.may_have_grown(name) or name == SHEET):
            return False
        try:
            return self.files.describe(name)["sha256"] != record["sha256"]
        except StoreError:
            return False

    def replaced_by_next(self, name: str) -> NotChecked:
        """What is said of a file that the release being made has replaced, or perhaps only damaged."""
        return NotChecked(
            f"{name}: the next release is being made, and has replaced it; {self.remedies.unfinished()}, then validate "
            "again"
        )

    def remedy_for(self, name: str) -> str:
        """What to do about a damaged or lost file of the release."""
        block = self.block_of(name)
        return self.remedies.sealed() if block is None else self.remedies.block(*block)

    def other_bytes(self, name: str) -> Finding:
        """The finding of a file whose SHA-256 is not that of the manifest; it must not be used after that."""
        return error("checksum", name, "its bytes are not those of the manifest (SHA-256)", self.remedy_for(name))

    def unreadable(self, name: str, failure: Exception) -> Finding:
        """The finding of a file that is there and cannot be read."""
        return error("unreadable", name, f"cannot be read ({failure})", self.remedy_for(name))

    def index_paths(self, name: str) -> list[str]:
        """The files of a part of the index; none where it has no such part."""
        return index_paths(self.attributes, name)

    def index_path(self, name: str, season: int | None = None) -> str:
        """Where a part of the index lies, for a finding. season: of which, where each season has its own file."""
        paths = self.index_paths(name)
        of_season = [path for path in paths if Path(path).stem == f"{name}-{season}"]
        return ", ".join(of_season or paths) or f"index/r{self.number}/{name}"

    def has_index(self, name: str) -> bool:
        """Whether the release has a part of the index, and none of its files is lost or known to be damaged."""
        paths = self.index_paths(name)
        return bool(paths) and all(map(self.is_here, paths))

    def samples(self, season: int) -> pd.DataFrame | None:
        """The samples index of a season; None where it cannot be relied on."""
        return self.tables.get(f"samples-{season}")

    def blocks(self, season: int) -> pd.DataFrame | None:
        """The blocks of a season in order; None where they cannot be relied on."""
        table = self.tables.get("blocks")
        return None if table is None else table[table["season"] == season].reset_index(drop=True)

    def recipe(self, season: int) -> dict[str, Any]:
        """The recipe of a season; empty where it is not known."""
        found = self.documents.get("recipes", {}).get(str(season), {})
        return found if isinstance(found, dict) else {}

    def settings(self, season: int, section: str) -> dict[str, Any]:
        """A section of a season's recipe; empty where there is none."""
        found = self.recipe(season).get(section)
        return found if isinstance(found, dict) else {}

    def is_imported(self, season: int) -> bool:
        """Whether a season was imported from published files, which know no cells, scenes and parcels."""
        if self.recipe(season):
            return IMPORTED in self.recipe(season)
        return any(name.startswith(f"{season}/{IMPORTED}/") for name in self.sizes)

    def is_here(self, name: str) -> bool:
        """Whether a file is there and not known to be damaged."""
        return name in self.sizes and name not in self.damaged
