"""Migrating a store from an older version of the format to the current one, and repairing statistics of its blocks."""

from __future__ import annotations

import logging
from dataclasses import dataclass
from pathlib import Path

from h2crop_data.cube.marker import shard_path
from h2crop_data.cube.reading import load_root
from h2crop_data.cube.release_numbers import ROOT
from h2crop_data.cube.root import Root
from h2crop_data.cube.schema import FORMAT_VERSION, ROOT_COPY
from h2crop_data.cube.shard import decode_shard
from h2crop_data.cube.statistics import block_sums
from h2crop_data.cube.writer import StoreBuilder, hold_store
from h2crop_data.errors import StoreError
from h2crop_data.pipeline.extension import kept_plans
from h2crop_data.pipeline.finished import refuse_lost_plans
from h2crop_data.pipeline.plan import SeasonPlan
from h2crop_data.pipeline.recording import IMPORT_RECORD
from h2crop_data.pipeline.sealing import seal_store
from h2crop_data.progress import Progress, silent
from h2crop_data.published.importing import seal_import
from h2crop_data.sources.registry import flag_masks
from h2crop_data.storage.storage import FileRecord

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class MigrationReport:
    """The report of a migration.

    store: as it was given. before, after: format version of the release before, and of the one now. release: the number
    of the release that was made; 0 where the store has none yet. mended: blocks whose sums were recomputed from their
    arrays.
    """

    store: str
    before: str
    after: str
    release: int
    mended: int


def migrate_store(store: str | Path, progress: Progress = silent) -> MigrationReport:
    """Make a new release of a store in the current format; samples and older releases are not changed.

    In a store without a release only the statistics of its finished blocks are repaired; the build makes the release.
    Raises StoreError where the store has no builder's files (a downloaded one: its readers need no migration), or
    blocks that are not done, FormatVersionError for a version that this h2crop does not read.
    """
    with hold_store(store, migrates=True) as builder:
        root = load_root(store) if builder.storage.exists(ROOT) else None
        if root is not None and builder.storage.exists(IMPORT_RECORD):
            keep_root(builder, root)
            number = seal_import(builder).release
            return MigrationReport(str(store), str(root["attributes"]["format_version"]), FORMAT_VERSION, number, 0)
        plans = kept_plans(builder.storage, ())
        if not plans:
            raise StoreError(
                f"{store} has no plans in .build/: it was downloaded, and can be read as it is; migrate it where it "
                "was built"
            )
        refuse_lost_plans(builder.storage, {plan.season for plan in plans})
        if root is not None:
            keep_root(builder, root)
        mended = 0
        total = sum(len(plan.blocks) for plan in plans)
        done = 0
        for plan in plans:
            for block, samples in zip(plan.blocks["block"].tolist(), plan.blocks["samples"].tolist(), strict=True):
                if mend_block(builder, plan, block, samples):
                    mended += 1
                    log.info("season %d block %d: the sums that it lacked are made", plan.season, block)
                done += 1
                progress(done, total, f"season {plan.season} block {block}")
        if root is None:
            return MigrationReport(str(store), FORMAT_VERSION, FORMAT_VERSION, 0, mended)
        sealed = seal_store(builder)
        before = str(root["attributes"]["format_version"])
        return MigrationReport(str(store), before, FORMAT_VERSION, sealed.number, mended)


def keep_root(builder: StoreBuilder, root: Root) -> None:
    """Keep a copy of the root of the newest release, which format 1.0 did not, so that it can be read later."""
    name = f"index/r{root['attributes']['release']}/{ROOT_COPY}"
    if not builder.storage.exists(name):
        builder.write_json(name, root)


def mend_block(builder: StoreBuilder, plan: SeasonPlan, block: int, samples: int) -> bool:
    """Give a finished block the sums it lacks, from its arrays; whether there was anything to do."""
    marker = builder.read_marker(plan.season, block, plan.layout, samples, needs_sums=False)
    if marker is None or sums_are_whole(builder, plan.season, block, marker["sums"]):
        return False
    arrays = {
        array: decode_shard(
            builder.storage.read(shard_path(plan.season, array, block, len(spec.dims))),
            spec,
            plan.layout.capacity,
            plan.layout.codec,
        )[:samples]
        for array, spec in plan.layout.arrays().items()
    }
    sums = block_sums(arrays, plan.layout.arrays(), marker["split"], flag_masks(plan.recipe))
    record = builder.write_sums(plan.season, block, sums)
    builder.write_marker(plan.season, block, {**marker, "sums": record})
    return True


def sums_are_whole(builder: StoreBuilder, season: int, block: int, record: FileRecord) -> bool:
    """Whether the sums of a block are what was written. record: the file as its marker has it."""
    try:
        builder.read_sums(season, block, record)
    except StoreError:
        return False
    return True
