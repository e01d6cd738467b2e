"""Reading every pixel of a release, block by block, and what only all blocks together tell."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator
from itertools import groupby

from h2crop_data.bounded_map import in_order
from h2crop_data.constants import SPLITS
from h2crop_data.progress import Progress
from h2crop_data.validation.findings import Finding, Findings, error, first, warning
from h2crop_data.validation.labels import Priors, SeasonLabels
from h2crop_data.validation.pixels import VALUE_CHECKS, BlockCheck, CheckedBlock, look_at_block
from h2crop_data.validation.release import Release
from h2crop_data.validation.shards import shards_of
from h2crop_data.validation.statistics import RunningSums, check_statistics


def check_pixels(release: Release, workers: int, progress: Progress) -> Findings:
    """Every chunk of every block, then the statistics and the parcels of all blocks together."""
    for source in release.layout.sources:
        if source.name not in VALUE_CHECKS:
            arrays = ", ".join(spec.name for spec in source.arrays)
            release.cannot_check(
                f"the values of {arrays}: nothing here knows what they must be ({source.title}); their files, chunks "
                "and checksums were looked at"
            )
    sums = RunningSums()
    parents: dict[tuple[int, int], tuple[int, str]] = {}
    summed = 0
    total = sum(release.seasons.values())
    done = 0
    for season in release.seasons:
        tasks, priors = block_checks(release, season), Priors()
        for outcome in in_order(lambda task: outcome_of(release, task), tasks, workers):
            done += 1
            progress(done, total, f"pixels, season {season} block {outcome.block}")
            yield from outcome.findings
            yield from tier_conflicts(release, outcome, parents)
            note(release, outcome)
            priors.add(outcome.priors)
            if outcome.sums is not None and outcome.split is not None:
                sums.add(season, outcome.split, outcome.sums)
                summed += 1
        yield from parcels_in_two_splits(release, season, sums)
        yield from priors_that_are_labels(release, season, priors)
    blocks = release.tables.get("blocks")
    wanted = None if blocks is None else int((blocks["retracted"] == "").sum())
    if summed == wanted:
        yield from check_statistics(release, sums)
    else:
        known = "an unknown number of" if wanted is None else wanted
        release.cannot_check(f"the statistics against the arrays: only {summed} of {known} blocks could be summed up")


def block_checks(release: Release, season: int) -> Iterator[BlockCheck]:
    """The blocks of a season of which there is anything to read, in order."""
    labels = SeasonLabels.of(release, season)
    blocks, samples = release.blocks(season), release.samples(season)
    splits = {} if blocks is None else dict(zip(blocks["block"], blocks["split"], strict=True))
    rows = {} if samples is None else dict(tuple(samples.drop(columns="geometry").groupby("block")))
    for block, shards in groupby(shards_of(release, season), key=lambda shard: shard.block):
        split = splits.get(block)
        yield BlockCheck(season, block, split if split in SPLITS else None, list(shards), rows.get(block), labels)


def outcome_of(release: Release, task: BlockCheck) -> CheckedBlock:
    """What was found in a block, whatever it holds."""
    try:
        return look_at_block(release, task)
    except Exception as failure:  # noqa: BLE001 -- one strange block must not keep the others from being read
        told = f"the check of its pixels came to an end: {type(failure).__name__}: {failure}"
        where, remedy = f"{task.season}, block {task.block}", "fix the other findings and validate again, or report it"
        return CheckedBlock(task.season, task.block, task.split, [error("unforeseen", where, told, remedy)])


def note(release: Release, outcome: CheckedBlock) -> None:
    """Add what was read of a block to what was looked at."""
    release.counts["shards"] += outcome.shards
    release.counts["checksums"] += outcome.shards
    release.counts["chunks"] += outcome.chunks
    release.counts["bytes_read"] += outcome.bytes


def tier_conflicts(
    release: Release, outcome: CheckedBlock, parents: dict[tuple[int, int], tuple[int, str]]
) -> Iterator[Finding]:
    """Classes that belong to another class of the tier above than in blocks before.

    parents: (tier, class) -> the class above it, and where that was seen; grows.
    """
    where = f"{outcome.season}, block {outcome.block}"
    for (tier, child), parent in sorted(outcome.pairs.items()):
        known, there = parents.setdefault((tier, child), (parent, where))
        if known != parent:
            told = f"class {child} of tier {tier} under {parent} of tier {tier - 1}; under {known} in {there}"
            remedy = release.remedies.wrong_block(outcome.season, outcome.block)
            yield error("tiers", where, told, remedy)


def parcels_in_two_splits(release: Release, season: int, sums: RunningSums) -> Iterator[Finding]:
    """Parcels with labelled pixels in two splits."""
    splits: dict[int, list[str]] = defaultdict(list)
    for split, of_split in sums.of_season(season).items():
        for parcel in of_split.parcels.tolist():
            splits[parcel].append(split)
    several = sorted(parcel for parcel, names in splits.items() if len(names) > 1)
    if several and not release.is_imported(season):
        told = f"{len(several)} parcel(s) with labelled pixels in several splits: {first(several)}"
        yield error("leak", f"{season}/label", told, release.remedies.leak())


def priors_that_are_labels(release: Release, season: int, priors: Priors) -> Iterator[Finding]:
    """A season in which every prior is its label, as when one file was read for both years."""
    if priors.are_labels:
        told = f"the prior is the label in every pixel of all {priors.known} sample(s) that have one"
        yield warning("prior", f"{season}/prior", told, release.remedies.same_prior(season))
