"""The shards of blocks by their index alone: its checksum, the order of chunks, and slots without a sample."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from h2crop_data.bounded_map import in_order
from h2crop_data.cube.schema import ArraySpec
from h2crop_data.cube.shard import MISSING, index_size, parse_index
from h2crop_data.errors import StoreError
from h2crop_data.progress import Progress
from h2crop_data.validation.findings import SMALL_READS, Finding, Findings, error
from h2crop_data.validation.release import Release


@dataclass(frozen=True)
class Shard:
    """A shard to look at."""

    season: int
    block: int
    spec: ArraySpec
    name: str
    #: Samples of its block; None where the index does not tell, or contradicts itself.
    used: int | None


def shards_of(release: Release, season: int) -> Iterator[Shard]:
    """The shards of a season's blocks that are part of the release, there, and not known to be damaged."""
    blocks = release.blocks(season)
    rows: list[dict[Any, Any]] = [] if blocks is None else blocks.to_dict("records")
    sure = [row for row in rows if (season, row["block"]) not in release.doubtful_blocks]
    used = {row["block"]: int(row["samples"]) for row in sure}
    retracted = {row["block"] for row in rows if row["retracted"]}
    specs = release.arrays(season)
    for block in range(release.seasons[season]):
        for array, name in release.shards(season, block).items():
            if block not in retracted and release.is_here(name):
                yield Shard(season, block, specs[array], name, used.get(block))


def check_shard_indexes(release: Release, progress: Progress) -> Findings:
    """The index of every shard, without its chunks."""
    for season in release.seasons:
        shards = list(shards_of(release, season))
        for done, problems in enumerate(in_order(lambda shard: tail_problems(release, shard), shards, SMALL_READS)):
            progress(done, len(shards), f"shards of {season}")
            release.counts["shards"] += 1
            yield from problems


def tail_problems(release: Release, shard: Shard) -> list[Finding]:
    """What is wrong with a shard by its last bytes."""
    size, wanted = release.sizes[shard.name], index_size(entries_of(release, shard.spec))
    try:
        tail = release.files.read_range(shard.name, max(0, size - wanted), wanted)
    except StoreError as failure:
        return [error("unreadable", shard.name, f"cannot be read ({failure})", release.remedy_for(shard.name))]
    return index_problems(release, shard, tail, size)[1]


def entries_of(release: Release, spec: ArraySpec) -> int:
    """How many chunks a shard of an array has room for."""
    return release.layout.capacity * spec.chunks_per_sample


def index_problems(
    release: Release, shard: Shard, tail: bytes, size: int
) -> tuple[NDArray[np.void] | None, list[Finding]]:
    """The index of a shard file of so many bytes (None for a damaged one), and what is wrong with it."""
    spec, remedy = shard.spec, release.remedy_for(shard.name)
    try:
        index = parse_index(tail, size, entries_of(release, spec))
    except ValueError as failure:
        return None, [error("shard", shard.name, str(failure), remedy)]
    found = []
    present = index["offset"] != MISSING
    lengths = index["length"][present].astype(np.int64)
    starts = np.concatenate([[0], np.cumsum(lengths)])
    if ((index["length"] != MISSING) != present).any():
        found.append(error("shard", shard.name, "its index has entries that are half empty", remedy))
    elif (index["offset"][present].astype(np.int64) != starts[:-1]).any() or starts[-1] + index_size(
        len(index)
    ) != size:
        found.append(error("shard", shard.name, "its chunks do not follow each other in C order without gaps", remedy))
    if shard.used is not None:
        beyond = np.flatnonzero(present[shard.used * spec.chunks_per_sample :]) // spec.chunks_per_sample
        if len(beyond):
            slots = sorted({int(place) + shard.used for place in beyond})
            told = f"holds something in places {slots} of its block, which has {shard.used} samples"
            found.append(error("unused", shard.name, told, release.remedies.wrong_block(shard.season, shard.block)))
    return index, found
