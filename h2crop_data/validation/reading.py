"""Reading every pixel of a release, block by block, and what only all blocks together tell."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import groupby
from typing import Any

from h2crop_data.bounded_map import in_order
from h2crop_data.constants import SPLITS
from h2crop_data.cube.schema import SourceFormat
from h2crop_data.progress import Progress
from h2crop_data.validation.checks.source_checks import SourceChecks
from h2crop_data.validation.findings import Findings, error
from h2crop_data.validation.pixels import BlockCheck, CheckedBlock, look_at_block
from h2crop_data.validation.release import Release
from h2crop_data.validation.shards import shards_of
from h2crop_data.validation.statistics import RunningSums, check_statistics


def check_pixels(release: Release, sources: Sequence[SourceChecks[Any]], workers: int, progress: Progress) -> Findings:
    """Every chunk of every block, then what all blocks show together, and the statistics."""
    known = {source.name for source in sources}
    for stored in release.layout.sources:
        if stored.name not in known:
            note_unknown(release, stored)
    sums = RunningSums()
    summed = 0
    total = sum(release.seasons.values())
    done = 0
    for season in release.seasons:
        for source in sources:
            source.begin_season(season)
        tasks = block_checks(release, season)
        for outcome in in_order(lambda task: outcome_of(release, sources, task), tasks, workers):
            done += 1
            progress(done, total, f"pixels, season {season} block {outcome.block}")
            yield from outcome.findings
            for source in sources:
                if source.name in outcome.kept:
                    yield from source.compare_block(season, outcome.block, outcome.kept[source.name])
            note(release, outcome)
            if outcome.sums is not None and outcome.split is not None:
                sums.add(season, outcome.split, outcome.sums)
                summed += 1
        of_season = sums.of_season(season)
        for source in sources:
            yield from source.end_season(season, of_season)
    blocks = release.tables.get("blocks")
    wanted = None if blocks is None else int((blocks["retracted"] == "").sum())
    if summed == wanted:
        yield from check_statistics(release, sums)
    else:
        blocks_in_words = "an unknown number of" if wanted is None else wanted
        release.cannot_check(
            f"the statistics against the arrays: only {summed} of {blocks_in_words} blocks could be summed up"
        )


def note_unknown(release: Release, source: SourceFormat) -> None:
    """Note what cannot be checked of a source that is known by what the store states of it."""
    arrays = [spec.name for spec in source.arrays if spec.rules is None]
    if arrays:
        release.cannot_check(
            f"the values of {', '.join(arrays)}: the store does not state what they must be ({source.title}); their "
            "files, chunks and checksums were looked at"
        )
    derived = [column.name for column in source.columns if column.known == "derived"]
    derived += [coordinate.name for coordinate in source.coordinates if coordinate.values is None]
    if derived:
        release.cannot_check(f"{', '.join(derived)}: nothing here knows how they follow from the data ({source.title})")


def block_checks(release: Release, season: int) -> Iterator[BlockCheck]:
    """The blocks of a season of which there is anything to read, in order."""
    blocks, samples = release.blocks(season), release.samples(season)
    splits = {} if blocks is None else dict(zip(blocks["block"], blocks["split"], strict=True))
    rows = {} if samples is None else dict(tuple(samples.drop(columns="geometry").groupby("block")))
    for block, shards in groupby(shards_of(release, season), key=lambda shard: shard.block):
        split = splits.get(block)
        yield BlockCheck(season, block, split if split in SPLITS else None, list(shards), rows.get(block))


def outcome_of(release: Release, sources: Sequence[SourceChecks[Any]], task: BlockCheck) -> CheckedBlock:
    """What was found in a block, whatever it holds."""
    try:
        return look_at_block(release, sources, task)
    except Exception as failure:  # noqa: BLE001 -- one strange block must not keep the others from being read
        what = f"the check of its pixels came to an end: {type(failure).__name__}: {failure}"
        where, remedy = f"{task.season}, block {task.block}", "fix the other findings and validate again, or report it"
        return CheckedBlock(task.season, task.block, task.split, [error("unforeseen", where, what, remedy)])


def note(release: Release, outcome: CheckedBlock) -> None:
    """Add what was read of a block to what was looked at."""
    release.counts["shards"] += outcome.shards
    release.counts["checksums"] += outcome.shards
    release.counts["chunks"] += outcome.chunks
    release.counts["bytes_read"] += outcome.bytes
