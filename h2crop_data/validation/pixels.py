"""The pixels: what the files of a block hold, chunk by chunk, whether the values can be true, and what all tell."""

from __future__ import annotations

import hashlib
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import groupby
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from h2crop_data.bounded_map import in_order
from h2crop_data.constants import REFLECTANCE_SCALE, SPLITS
from h2crop_data.cube.schema import ArraySpec, SourceFormat
from h2crop_data.cube.shard import MISSING, decode_chunk, index_size, parse_index
from h2crop_data.errors import StoreError
from h2crop_data.progress import Progress
from h2crop_data.validation.figures import BlockFigures, check_figures, figures_of_block, figures_together
from h2crop_data.validation.findings import (
    SMALL_READS,
    Counted,
    Finding,
    NotChecked,
    Problem,
    Reports,
    Severity,
    error,
    wrong_samples,
)
from h2crop_data.validation.index import Sources
from h2crop_data.validation.release import Release
from h2crop_data.validation.sources import BlockValues

#: Numbers that a finding names.
FEW = 5


# Shards by their index


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


def check_shard_indexes(release: Release, progress: Progress) -> Reports:
    """The index of every shard, without its chunks: its checksum, the order of chunks, and slots without a sample."""
    for season in release.seasons:
        shards = list(shards_of(release, season))
        for done, problems in enumerate(in_order(lambda shard: tail_problems(release, shard), shards, SMALL_READS)):
            progress(done, len(shards), f"shards of {season}")
            yield Counted("shards", 1)
            yield from problems


def tail_problems(release: Release, shard: Shard) -> list[Finding]:
    """What is wrong with a shard by its last bytes."""
    size, wanted = release.sizes[shard.name], index_size(entries_of(release, shard.spec))
    try:
        tail = release.files.read_range(shard.name, max(0, size - wanted), wanted)
    except StoreError as failure:
        return [release.unreadable(shard.name, failure)]
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
            what = f"holds something in places {slots} of its block, which has {shard.used} samples"
            found.append(error("unused", shard.name, what, release.remedies.wrong_block(shard.season, shard.block)))
    return index, found


# Blocks, read and checked by several threads


@dataclass(frozen=True)
class BlockToCheck:
    """A block to look at pixel by pixel."""

    season: int
    block: int
    #: None where the index does not tell.
    split: str | None
    shards: Sequence[Shard]
    #: Its rows of the samples index, in order of slot; None where that is lost.
    samples: pd.DataFrame | None


@dataclass(frozen=True)
class CheckedBlock:
    """What was found in a block."""

    reports: Sequence[Finding | Counted]
    #: What its statistics come from; None where an array is not there or damaged.
    figures: BlockFigures | None = None
    #: By source, what is compared with other blocks.
    kept: Mapping[str, Any] = field(default_factory=dict)


def block_tasks(release: Release, season: int) -> Iterator[BlockToCheck]:
    """The blocks of a season of which there is anything to read, in order."""
    blocks, samples = release.blocks(season), release.samples(season)
    splits = {} if blocks is None else dict(zip(blocks["block"], blocks["split"], strict=True))
    rows = {} if samples is None else dict(tuple(samples.drop(columns="geometry").groupby("block")))
    for block, shards in groupby(shards_of(release, season), key=lambda shard: shard.block):
        split = splits.get(block)
        yield BlockToCheck(season, block, split if split in SPLITS else None, list(shards), rows.get(block))


def checked_block(release: Release, sources: Sources, facts: Mapping[str, Any], task: BlockToCheck) -> CheckedBlock:
    """What was found in a block, whatever it holds. facts: by source, those of its season."""
    try:
        return look_at_block(release, sources, facts, task)
    except Exception as failure:  # noqa: BLE001 -- one strange block must not keep the others from being read
        what = f"the check of its pixels failed: {type(failure).__name__}: {failure}"
        where = f"{task.season}, block {task.block}"
        return CheckedBlock([error("unforeseen", where, what, release.remedies.unforeseen())])


def look_at_block(release: Release, sources: Sources, facts: Mapping[str, Any], task: BlockToCheck) -> CheckedBlock:
    """Read the files of a block once and check everything in them."""
    reports: list[Finding | Counted] = []
    arrays: dict[str, NDArray[Any]] = {}
    for shard in task.shards:
        values, of_shard = read_shard(release, shard)
        reports += of_shard
        if values is not None:
            arrays[shard.spec.name] = values
    if not arrays or any(shard.used is None for shard in task.shards):
        # Where nothing says how many samples there are, nothing can be said of their values.
        return CheckedBlock(reports)
    count = len(next(iter(arrays.values())))
    rows = task.samples if task.samples is not None and len(task.samples) == count else None
    block = BlockValues(task.season, task.split, arrays, release.is_imported(task.season), rows)
    checked = {source.name: source.check_values(block, facts.get(source.name)) for source in sources}
    specs = release.layout.arrays()
    problems = [problem for name, values in arrays.items() for problem in rule_problems(specs[name], values)]
    problems += [problem for check in checked.values() for problem in check.problems]
    if rows is not None:
        problems += share_problems(sources, block, rows)
    names = [f"number {place} of its block" for place in range(count)] if rows is None else rows["sample"].tolist()
    remedy = release.remedies.wrong_block(task.season, task.block)
    for problem in problems:
        where = f"{task.season}/{problem.array}, sample {names[problem.sample]} (block {task.block})"
        reports.append(Finding(problem.severity, problem.check, where, problem.what, remedy))
    masks = masks_of_sources(sources, specs, task.season)
    whole = set(arrays) == set(specs) and task.split is not None and masks is not None
    return CheckedBlock(
        reports,
        figures_of_block(arrays, specs, str(task.split), masks or {}) if whole else None,
        {name: check.kept for name, check in checked.items() if check.kept is not None},
    )


def read_shard(release: Release, shard: Shard) -> tuple[NDArray[Any] | None, list[Finding | Counted]]:
    """The samples of a block in one array, (sample, ...), None for a damaged file; and what to report of it."""
    try:
        data = release.files.read(shard.name)
    except StoreError as failure:
        return None, [release.unreadable(shard.name, failure)]
    reports: list[Finding | Counted] = [Counted("shards", 1), Counted("checksums", 1), Counted("bytes_read", len(data))]
    right = release.sha256_of(shard.name) in (None, hashlib.sha256(data).hexdigest())
    if not right:
        reports.append(release.other_bytes(shard.name))
    tail = data[max(0, len(data) - index_size(entries_of(release, shard.spec))) :]
    index, problems = index_problems(release, shard, tail, len(data))
    reports += problems
    if index is None:
        return None, reports
    values, of_chunks = decode_shard_file(release, shard, data, index)
    return values if right else None, reports + of_chunks


def decode_shard_file(
    release: Release, shard: Shard, data: bytes, index: NDArray[np.void]
) -> tuple[NDArray[Any] | None, list[Finding | Counted]]:
    """Every chunk of a shard's samples, None where one is damaged; and what to report of them."""
    spec = shard.spec
    count = release.layout.capacity if shard.used is None else min(shard.used, release.layout.capacity)
    values = np.full((count, *spec.sample_shape), spec.fill, spec.dtype)
    rows = values.reshape(count * spec.chunks_per_sample, -1)
    view, damaged, empty, chunks = memoryview(data), [], [], 0
    for place, (offset, length) in enumerate(index[: len(rows)].tolist()):
        if offset == int(MISSING) or length == int(MISSING):
            continue
        chunks += 1
        try:
            decode_chunk(view[offset : offset + length], rows[place], checksum=release.layout.codec.checksum)
        except (ValueError, RuntimeError) as failure:
            what = f"the chunk of {chunk_words(spec.chunks_per_sample, place)} cannot be decoded ({failure})"
            damaged.append(error("chunk", shard.name, what, release.remedy_for(shard.name)))
            continue
        if rows[place, 0] == spec.fill and (rows[place] == spec.fill).all():
            empty.append(chunk_words(spec.chunks_per_sample, place))
    reports: list[Finding | Counted] = [Counted("chunks", chunks), *damaged]
    if empty:
        what = f"stores chunks that hold nothing but fill: {', '.join(empty[:3])}"
        remedy = release.remedies.wrong_block(shard.season, shard.block)
        reports.append(Finding("warning", "fill", shard.name, what, remedy))
    return None if damaged else values, reports


def chunk_words(chunks_per_sample: int, place: int) -> str:
    """Which chunk of a block it is, in words."""
    sample, chunk = divmod(place, chunks_per_sample)
    return f"sample {sample} of the block" + (f", month {chunk + 1}" if chunks_per_sample > 1 else "")


# Values that cannot be true


def rule_problems(spec: ArraySpec, values: NDArray[Any]) -> Iterator[Problem]:
    """Where the stored numbers of an array (sample, ...) break the rules that its source states."""
    rules = spec.rules
    if rules is None:
        return
    fill = values == spec.fill
    bounds: tuple[tuple[tuple[float, float] | None, Severity], ...]
    bounds = ((rules.possible, "error"), (rules.plausible, "warning"))
    for limits, severity in bounds:
        if limits is not None:
            outside = ~((values >= limits[0]) & (values <= limits[1])) & ~fill
            yield from wrong_samples(spec.name, "range", outside, f"outside {span_in_words(spec, limits)}", severity)
    if rules.numbers is not None:
        strange = ~np.isin(values, rules.numbers) & ~fill
        what = f"that the format does not know ({', '.join(map(str, np.unique(values[strange])[:FEW]))})"
        yield from wrong_samples(spec.name, "range", strange, what)
    if rules.flags is not None:
        strange = (values & ~np.array(rules.flags, values.dtype)) != 0
        yield from wrong_samples(spec.name, "range", strange & ~fill, "with flags that do not exist")
    if rules.fill == "nowhere":
        yield from wrong_samples(spec.name, "fill", fill, "without a number, where every pixel has one")
    elif rules.fill == "whole pixels":
        in_part = fill.any(axis=-3) & ~fill.all(axis=-3)
        yield from wrong_samples(spec.name, "fill", in_part, "with fill in some bands only")


def span_in_words(spec: ArraySpec, limits: tuple[float, float]) -> str:
    """Lowest and highest stored number, in the units of the array."""
    low, high = limits
    if spec.is_reflectance:
        return f"reflectance {low * REFLECTANCE_SCALE:g} to {high * REFLECTANCE_SCALE:g}"
    units = spec.attributes.get("units", "1")
    return f"{low:g} to {high:g}" + (f" {units}" if units != "1" else "")


def share_problems(sources: Sources, block: BlockValues, samples: pd.DataFrame) -> Iterator[Problem]:
    """Columns of the index that are not what the arrays of a block give.

    samples: the rows of its samples, in order.
    """
    for sample, row in enumerate(samples.to_dict("records")):
        arrays = {name: values[sample] for name, values in block.arrays.items()}
        for source in sources:
            unknown = source.unknown_columns(block.season, row)
            for derived in source.derived_columns(block.season, arrays, imported=block.imported):
                stored = row.get(derived.column)
                if derived.column in unknown:
                    if stored is not None and not pd.isna(stored):
                        what = (
                            f"the index says {derived.column} = {value_in_words(stored)}, the scene has no layer for it"
                        )
                        yield Problem(sample, derived.array, "shares", what)
                elif derived.column in row and not same(stored, derived.value, unknown_allowed=block.imported):
                    index, array = value_in_words(stored), value_in_words(derived.value)
                    what = f"the index says {derived.column} = {index}, the array gives {array}"
                    yield Problem(sample, derived.array, "shares", what)
        for source in sources:
            for name, what in source.check_sample(arrays, row, imported=block.imported):
                yield Problem(sample, name, "shares", what)


def same(stored: Any, value: float | int | list[float], *, unknown_allowed: bool) -> bool:
    """Whether a column holds a value exactly; an import may not know it."""
    if isinstance(value, list):
        return stored is not None and list(stored) == value
    if stored is None or pd.isna(stored):
        return unknown_allowed
    return bool(stored == value)


def value_in_words(value: Any) -> str:
    """A value of a column in a sentence."""
    if isinstance(value, float):
        return f"{value:.6g}"
    return str([round(float(one), 6) for one in value]) if isinstance(value, list | np.ndarray) else str(value)


def masks_of_sources(sources: Sources, specs: Mapping[str, ArraySpec], season: int) -> dict[str, int] | None:
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


# Every block, one after the other


def check_pixels(release: Release, sources: Sources, workers: int, progress: Progress) -> Reports:
    """Every chunk of every block, then what all blocks show together, and the statistics."""
    known = {source.name for source in sources}
    for stored in release.layout.sources:
        if stored.name not in known:
            yield from unknown_source(stored)
    counted: dict[tuple[int, str], BlockFigures] = {}
    labelled_parts: dict[tuple[int, str], list[NDArray[np.uint32]]] = defaultdict(list)
    # By source, what the blocks so far have shown.
    shown: dict[str, Any] = {}
    total, done, summed = sum(release.seasons.values()), 0, 0
    for season in release.seasons:
        facts = {source.name: source.season_facts(season) for source in sources}

        def look(task: BlockToCheck, facts: Mapping[str, Any] = facts) -> tuple[BlockToCheck, CheckedBlock]:
            return task, checked_block(release, sources, facts, task)

        for task, outcome in in_order(look, block_tasks(release, season), workers):
            done += 1
            progress(done, total, f"pixels, season {season} block {task.block}")
            yield from outcome.reports
            for source in sources:
                if source.name in outcome.kept:
                    before, kept = shown.get(source.name), outcome.kept[source.name]
                    shown[source.name] = yield from source.compare_block(before, season, task.block, kept)
            if outcome.figures is not None and task.split is not None:
                key = season, task.split
                labelled_parts[key] += outcome.figures.labelled
                figures = replace(outcome.figures, labelled=())
                counted[key] = figures_together([counted[key], figures] if key in counted else [figures])
                summed += 1
        labelled = {}
        for key in [key for key in labelled_parts if key[0] == season]:
            figures = replace(counted[key], labelled=labelled_parts.pop(key))
            labelled[key[1]] = figures.labelled_parcels
            counted[key] = replace(figures, labelled=(labelled[key[1]],))
        for source in sources:
            shown[source.name] = yield from source.end_season(shown.get(source.name), season, labelled)
    for source in sources:
        yield from source.end_store(shown.get(source.name))
    blocks = release.tables.get("blocks")
    wanted = None if blocks is None else int((blocks["retracted"] == "").sum())
    if summed == wanted:
        yield from check_figures(release, counted)
    else:
        blocks_in_words = "an unknown number of" if wanted is None else wanted
        yield NotChecked(
            f"the statistics against the arrays: only {summed} of {blocks_in_words} blocks could be summed up"
        )


def unknown_source(source: SourceFormat) -> Iterator[NotChecked]:
    """What cannot be checked of a source that is known by what the store states of it."""
    arrays = [spec.name for spec in source.arrays if spec.rules is None]
    if arrays:
        yield NotChecked(
            f"the values of {', '.join(arrays)}: the store does not state what they must be ({source.title}); their "
            "files, chunks and checksums were looked at"
        )
    derived = [column.name for column in source.columns if column.known == "derived"]
    derived += [coordinate.name for coordinate in source.coordinates if coordinate.values is None]
    if derived:
        yield NotChecked(f"{', '.join(derived)}: nothing here knows how they follow from the data ({source.title})")
