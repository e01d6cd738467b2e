"""The pixels of a block: what its files hold, chunk by chunk, and whether the values can be true."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from h2crop_data.cube.schema import ArraySpec
from h2crop_data.cube.shard import MISSING, decode_chunk, index_size
from h2crop_data.cube.statistics import BlockSums, block_sums
from h2crop_data.errors import StoreError
from h2crop_data.validation.checks.source_checks import BlockValues, SourceChecks
from h2crop_data.validation.checksums import other_bytes, unreadable
from h2crop_data.validation.findings import Finding, error
from h2crop_data.validation.release import Release
from h2crop_data.validation.shards import Shard, entries_of, index_problems
from h2crop_data.validation.shares import share_problems
from h2crop_data.validation.values import rule_problems


@dataclass(frozen=True)
class BlockCheck:
    """A block to look at pixel by pixel."""

    season: int
    block: int
    #: None where the index does not tell.
    split: str | None
    shards: Sequence[Shard]
    #: Its rows of the samples index, in order of slot; None where that is lost.
    samples: pd.DataFrame | None


@dataclass
class CheckedBlock:
    """What was found in a block."""

    season: int
    block: int
    split: str | None
    findings: list[Finding] = field(default_factory=list)
    shards: int = 0
    chunks: int = 0
    bytes: int = 0
    #: What its statistics come from; None where an array is not there or damaged.
    sums: BlockSums | None = None
    #: By source, what is compared with other blocks.
    kept: dict[str, Any] = field(default_factory=dict)


def look_at_block(release: Release, sources: Sequence[SourceChecks[Any]], task: BlockCheck) -> CheckedBlock:
    """Read the files of a block once and check everything in them."""
    outcome = CheckedBlock(task.season, task.block, task.split)
    arrays: dict[str, NDArray[Any]] = {}
    for shard in task.shards:
        values = read_shard(release, shard, outcome)
        if values is not None:
            arrays[shard.spec.name] = values
    if not arrays or any(shard.used is None for shard in task.shards):
        # Without a word on how many samples there are, nothing can be said of their values.
        return outcome
    names = sample_names(task, arrays)
    remedy = release.remedies.wrong_block(task.season, task.block)
    block = BlockValues(task.season, task.split, arrays, release.is_imported(task.season))
    checked = {source.name: source.check_values(block) for source in sources}
    outcome.kept = {name: check.kept for name, check in checked.items() if check.kept is not None}
    specs = release.layout.arrays()
    problems = [problem for name, values in arrays.items() for problem in rule_problems(specs[name], values)]
    problems += [problem for check in checked.values() for problem in check.problems]
    if task.samples is not None and len(task.samples) == len(names):
        problems += share_problems(sources, block, task.samples)
    for problem in problems:
        where = f"{task.season}/{problem.array}, sample {names[problem.sample]} (block {task.block})"
        outcome.findings.append(Finding(problem.severity, problem.check, where, problem.what, remedy))
    masks = masks_of_sources(sources, specs, task.season)
    if set(arrays) == set(specs) and task.split is not None and masks is not None:
        outcome.sums = block_sums(arrays, specs, task.split, masks)
    return outcome


def sample_names(task: BlockCheck, arrays: dict[str, NDArray[Any]]) -> list[str]:
    """The ids of the samples of a block, or their places where nothing tells the ids."""
    count = len(next(iter(arrays.values())))
    if task.samples is not None and len(task.samples) == count:
        return [str(name) for name in task.samples["sample"]]
    return [f"number {place} of its block" for place in range(count)]


def masks_of_sources(
    sources: Sequence[SourceChecks[Any]], specs: Mapping[str, ArraySpec], season: int
) -> dict[str, int] | None:
    """The bits that keep a pixel out of statistics, by array of flags.

    None where the recipe does not say, and where neither the format nor a source that validation knows says which bits.
    """
    masks: dict[str, int] = {}
    for source in sources:
        of_source = source.flag_masks(season)
        if of_source is None:
            return None
        masks |= of_source
    counted = [spec.statistics for spec in specs.values() if spec.statistics and spec.statistics.kind == "values"]
    needed = {array for statistics in counted if statistics.flags is None for array in (statistics.by, statistics.also)}
    return None if needed - {None} - set(masks) else masks


def read_shard(release: Release, shard: Shard, outcome: CheckedBlock) -> NDArray[Any] | None:
    """The samples of a block in one array, (sample, ...); None for a damaged file, which is told."""
    try:
        data = release.files.read(shard.name)
    except StoreError as failure:
        outcome.findings.append(unreadable(release, shard.name, failure))
        return None
    outcome.shards += 1
    outcome.bytes += len(data)
    wanted = release.sha256_of(shard.name)
    right = wanted in (None, hashlib.sha256(data).hexdigest())
    if not right:
        outcome.findings.append(other_bytes(release, shard.name))
    tail = data[max(0, len(data) - index_size(entries_of(release, shard.spec))) :]
    index, problems = index_problems(release, shard, tail, len(data))
    outcome.findings += problems
    values = None if index is None else decode(release, shard, data, index, outcome)
    return values if right else None


def decode(
    release: Release, shard: Shard, data: bytes, index: NDArray[np.void], outcome: CheckedBlock
) -> NDArray[Any] | None:
    """Every chunk of a shard's samples; None where one is damaged, which is told."""
    spec = shard.spec
    count = release.layout.capacity if shard.used is None else min(shard.used, release.layout.capacity)
    values = np.full((count, *spec.sample_shape), spec.fill, spec.dtype)
    rows = values.reshape(count * spec.chunks_per_sample, -1)
    view, whole, empty = memoryview(data), True, []
    for place, (offset, length) in enumerate(index[: len(rows)].tolist()):
        if offset == int(MISSING) or length == int(MISSING):
            continue
        outcome.chunks += 1
        try:
            decode_chunk(view[offset : offset + length], rows[place])
        except (ValueError, RuntimeError) as failure:
            whole = False
            what = f"the chunk of {chunk_words(spec.chunks_per_sample, place)} cannot be decoded ({failure})"
            outcome.findings.append(error("chunk", shard.name, what, release.remedy_for(shard.name)))
            continue
        if rows[place, 0] == spec.fill and (rows[place] == spec.fill).all():
            empty.append(chunk_words(spec.chunks_per_sample, place))
    if empty:
        told = f"stores chunks that hold nothing but fill: {', '.join(empty[:3])}"
        remedy = release.remedies.wrong_block(shard.season, shard.block)
        outcome.findings.append(Finding("warning", "fill", shard.name, told, remedy))
    return values if whole else None


def chunk_words(chunks_per_sample: int, place: int) -> str:
    """Which chunk of a block it is, in words."""
    sample, chunk = divmod(place, chunks_per_sample)
    return f"sample {sample} of the block" + (f", month {chunk + 1}" if chunks_per_sample > 1 else "")
