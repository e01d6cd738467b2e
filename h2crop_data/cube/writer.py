"""The builder's side of a store: the one place that writes it.

A block is done when its marker is written; readers see a release when the root document is replaced.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Executor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from numpy.typing import NDArray

from h2crop_data.bounded_map import in_order
from h2crop_data.cube.marker import Marker, block_path, parsed_marker, shard_path
from h2crop_data.cube.release_numbers import current_attributes, finish_interrupted, refuse_lost_root
from h2crop_data.cube.schema import StoreLayout, check_format_to_write, check_format_version, is_format_1
from h2crop_data.cube.sealed import forget_season
from h2crop_data.cube.shard import encode_shard
from h2crop_data.cube.statistics import BlockSums
from h2crop_data.errors import MissingFileError, PlanError, StoreError
from h2crop_data.storage.checked import checked_json
from h2crop_data.storage.location import open_storage
from h2crop_data.storage.storage import FileRecord, Storage, canonical_json

#: Left behind by other writers of Zarr that were killed.
FOREIGN_LOCK = ".__lock"
#: Markers and sums that are read at a time: an object store takes its time for each.
FILES_AHEAD = 8


class StoreBuilder:
    """A store being written. Get one from `hold_store`, which locks the store."""

    def __init__(self, storage: Storage, found_release: int = 0) -> None:
        """found_release: the newest release when the store was locked, 0 before the first."""
        self.storage = storage
        self.found_release = found_release

    @property
    def location(self) -> str:
        """The store as the user calls it."""
        return self.storage.location

    def write(self, name: str, parts: Iterable[bytes]) -> str:
        """Write a file whose content never changes; gives its name. Raises StoreError."""
        self.storage.write(name, parts)
        return name

    def write_permanent(self, name: str, parts: Iterable[bytes]) -> str:
        """Write a file of a block that readers see; gives its name. Raises StoreError."""
        self.storage.write_permanent(name, parts)
        return name

    def replace(self, name: str, parts: Iterable[bytes]) -> str:
        """Write a file that changes in the life of a store; gives its name. Raises StoreError."""
        self.storage.replace(name, parts)
        return name

    def write_json(self, name: str, value: Any) -> str:
        """Write a JSON document in the one canonical form."""
        return self.replace(name, [canonical_json(value).encode()])

    def describe(self, name: str) -> FileRecord:
        """Name, bytes and sha256 of a file, as the storage gives it back."""
        return self.storage.describe(name)

    def write_block(
        self, season: int, block: int, arrays: dict[str, NDArray[Any]], layout: StoreLayout, pool: Executor
    ) -> list[str]:
        """Write one block: exactly one shard in every array; gives the names of the files.

        arrays: name -> (n, *sample_shape), as `layout.arrays()` tells; all of them, none more.
        """
        if set(arrays) != set(layout.arrays()):
            raise ValueError(f"block {block}: expected the arrays {sorted(layout.arrays())}, got {sorted(arrays)}")
        return self.write_arrays(season, block, arrays, layout, pool)

    def write_arrays(
        self, season: int, block: int, arrays: dict[str, NDArray[Any]], layout: StoreLayout, pool: Executor
    ) -> list[str]:
        """Write the shards of a block in some arrays; gives the names of the files."""
        specs = {name: spec for name, spec in layout.arrays().items() if name in arrays}
        # The pool compresses the chunks of all arrays, while this thread writes those that are ready.
        encoded = {
            name: encode_shard(arrays[name], spec, layout.capacity, layout.codec, pool.map)
            for name, spec in specs.items()
        }
        return [
            self.write_permanent(shard_path(season, name, block, len(spec.dims)), encoded[name])
            for name, spec in specs.items()
        ]

    def write_sums(self, season: int, block: int, sums: BlockSums) -> FileRecord:
        """Keep what the statistics need of a block; gives the file."""
        return self.describe(self.write(f"{block_path(season, block)}.sums", [sums.encode()]))

    def read_sums(self, season: int, block: int, record: FileRecord) -> BlockSums:
        """What the statistics need of a finished block. record: the file as its marker has it.

        Raises StoreError where it is lost, or not what was written.
        """
        name = f"{block_path(season, block)}.sums"
        try:
            data = self.storage.read(name)
            if hashlib.sha256(data).hexdigest() != record["sha256"]:
                raise ValueError("its SHA-256 differs from the one in the block's marker")
            return BlockSums.decode(data)
        except (ValueError, MissingFileError) as error:
            raise StoreError(
                f"{self.storage.where(name)} is missing or damaged ({error}); recreate it with `h2crop migrate "
                f"{self.location}`, or in an imported store delete "
                f"{self.storage.where(block_path(season, block))}.json and import again"
            ) from error

    def write_marker(self, season: int, block: int, marker: Marker) -> None:
        """Say that a block is done. The last thing written of a block. Its season is gathered by the next seal."""
        forget_season(self.storage, season)
        self.write(f"{block_path(season, block)}.json", [checked_json(marker).encode()])

    def read_marker(
        self,
        season: int,
        block: int,
        layout: StoreLayout,
        samples: int | None = None,
        *,
        needs_sums: bool = True,
    ) -> Marker | None:
        """The marker of a finished block, or None. samples, needs_sums: as for `parsed_marker`.

        Raises StoreError for a marker that is damaged, was edited, or is that of another block.
        """
        name = f"{block_path(season, block)}.json"
        try:
            data = self.storage.read(name)
        except MissingFileError:
            return None
        if needs_sums and b'\n "statistics": ' in data:
            raise StoreError(
                f"{self.location} was written by an older h2crop; run `h2crop migrate {self.location}` first, which "
                "does not change samples"
            )
        try:
            return parsed_marker(data, season, block, layout, samples, needs_sums=needs_sums)
        except (ValueError, TypeError, AttributeError) as error:
            raise StoreError(
                f"{self.storage.where(name)} is damaged ({error}); restore it from a backup, or delete it and rerun "
                "the build (of an imported store the import), which makes the block again"
            ) from error

    def read_markers(
        self, season: int, blocks: Sequence[int], layout: StoreLayout, samples: Mapping[int, int] | None = None
    ) -> Iterator[Marker | None]:
        """The markers of some blocks, in order, read some ahead. samples: block -> how many its plan says it has."""
        counts = samples or {}
        return in_order(
            lambda block: self.read_marker(season, block, layout, counts.get(block)), blocks, FILES_AHEAD, FILES_AHEAD
        )

    def read_all_sums(self, season: int, records: Mapping[int, FileRecord]) -> Iterator[BlockSums]:
        """The sums of some blocks, in order, read some ahead. records: block -> the file as its marker has it."""
        return in_order(lambda block: self.read_sums(season, block, records[block]), records, FILES_AHEAD, FILES_AHEAD)

    def sizes(self, season: int) -> dict[str, int]:
        """Bytes of every file of a season; what dead writers of other libraries left is deleted."""
        sizes = dict(self.storage.names(f"{season}/"))
        for name in [name for name in sizes if name.endswith(FOREIGN_LOCK)]:
            self.storage.delete(name)
            del sizes[name]
        return sizes


@contextmanager
def hold_store(location: str | Path | Storage, *, migrates: bool = False) -> Iterator[StoreBuilder]:
    """Create the store if needed, and lock it against other builders until the `with` block ends.

    location: a folder, an `s3://` URL, or the storage of the store. migrates: whether the next release of a store of
    format 1 is to be of the present format; else such a store is refused.
    Raises StoreError when another builder has locked the store, the place is in use by something else or the root of
    the store is lost or that of an older release, FormatVersionError for a store of another major version, or of a
    newer one.
    """
    storage = location if isinstance(location, Storage) else open_storage(location)
    with storage.hold():
        found = finish_interrupted(storage)
        attributes = current_attributes(storage)
        refuse_lost_root(storage, attributes)
        if attributes is not None and migrates and is_format_1(attributes):
            check_format_version(attributes, storage.location)
        elif attributes is not None:
            check_format_to_write(attributes, storage.location)
        yield StoreBuilder(storage, found)


def check_same_layout(store: str, existing: StoreLayout, wanted: StoreLayout) -> None:
    """Refuse to build into a store of another shape. Raises PlanError naming what differs.

    What a source states of its numbers may change from release to release.
    """
    old, new = layout_in_words(existing), layout_in_words(wanted)
    differing = [
        f"{key}: store {old.get(key, 'none')}, plan {new.get(key, 'none')}"
        for key in {**old, **new}
        if old.get(key) != new.get(key)
    ]
    if not differing and existing.without_rules().attributes() != wanted.without_rules().attributes():
        differing = ["sources state their arrays otherwise"]
    if differing:
        raise PlanError(
            f"{store} has a different layout ({'; '.join(differing)}); build into a new store, or change the recipe "
            "to the layout of the store"
        )


def layout_in_words(layout: StoreLayout) -> dict[str, str]:
    """The parts of a layout for errors: its sizes, its codec, and each source with its arrays and named bands."""
    words = {
        "cell_size": str(layout.cell_size),
        "block_capacity": str(layout.capacity),
        "codec": f"{layout.codec.name} level {layout.codec.level}"
        + ("" if layout.codec.checksum else " without checksums"),
    }
    for source in layout.sources:
        arrays = [f"{spec.name} {spec.dtype} {' x '.join(map(str, spec.sample_shape))}" for spec in source.arrays]
        names = [" ".join(map(str, spec.values)) for spec in source.coordinates if spec.values is not None]
        words[source.name] = "; ".join([", ".join(arrays), *names])
    return words
