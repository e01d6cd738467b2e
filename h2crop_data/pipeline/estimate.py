"""What a plan amounts to: counts, bytes and time, before anything is built."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from h2crop_data.pipeline.plan import SeasonPlan, row_dictionaries
from h2crop_data.pipeline.planning import PlannedBlocks
from h2crop_data.pipeline.source_facts import source_facts, without_figures
from h2crop_data.sources.readings import ToRead
from h2crop_data.sources.registry import sources_of, used_sources
from h2crop_data.sources.scenes import SceneDecision

#: Stored over raw bytes of full-size cells, as measured (docs/benchmarks.md); cloudy years are smaller.
COMPRESSION = {"lz4": 0.66, "zstd": 0.58}
#: Seconds a megabyte of raw output for composites, resampling, labels and compression.
SECONDS_A_MEGABYTE = 0.02


@dataclass(frozen=True)
class Estimate:
    """What a plan amounts to.

    counts: samples, cells, blocks, and what its sources count. raw_bytes, bytes: of all arrays, before and (about)
    after compression. to_read: tiles and bytes of files for composites, and requests to servers, at most (clouds make
    it less). seconds: of one worker, roughly. left_out: reason -> scenes. months_without_scenes: 1..12.
    split_problems: in words, what the split does not meet. sources: what was read (`source_facts`). catalogs: scenes
    used of each (`scenes_of_catalogs`).
    """

    counts: dict[str, int]
    raw_bytes: int
    bytes: int
    to_read: ToRead
    seconds: float
    left_out: dict[str, int]
    months_without_scenes: list[int]
    split_problems: list[str]
    sources: dict[str, Any]
    catalogs: dict[str, int]


def estimate(plan: SeasonPlan) -> Estimate:
    """What a plan amounts to."""
    raw = sum(int(np.prod(spec.sample_shape)) * spec.dtype.itemsize for spec in plan.layout.arrays().values()) * len(
        plan.samples
    )
    blocks = row_dictionaries(plan.blocks)
    planned = list(PlannedBlocks(plan))
    to_read, reads = ToRead(), 0.0
    for source, settings in used_sources(plan.recipe):
        reads += source.seconds_to_read(settings, plan.pinned[source.name], blocks)
        to_read += source.to_read(settings, plan.pinned[source.name], planned)
    splits = plan.samples["split"].value_counts()
    counts = {
        "samples": len(plan.samples),
        **{f"samples_{split}": int(splits.get(split, 0)) for split in ("train", "val", "test")},
        "cells": int(plan.samples["cell"].nunique()),
        "blocks": len(plan.blocks),
    }
    for source in sources_of(plan.recipe):
        counts |= source.counts(plan.pinned[source.name])
    # Reasons carry the figures of each scene; without them they can be counted.
    reasons = Counter(without_figures(one.reason) for one in plan.scenes if not one.taken)
    return Estimate(
        counts=counts,
        raw_bytes=raw,
        bytes=int(raw * COMPRESSION[plan.recipe.store.codec]),
        to_read=to_read,
        seconds=reads + to_read.seconds + to_read.mask_seconds + raw / 1e6 * SECONDS_A_MEGABYTE,
        left_out=dict(reasons.most_common()),
        months_without_scenes=empty_months(plan),
        split_problems=plan.split_problems,
        sources=source_facts(plan),
        catalogs=scenes_of_catalogs(plan.scenes),
    )


def scenes_of_catalogs(scenes: Sequence[SceneDecision]) -> dict[str, int]:
    """Scenes used by catalog, by `catalog, collection` where it gave several; nothing where all are of one."""
    collections: dict[str, set[str]] = defaultdict(set)
    for one in scenes:
        collections[one.catalog].add(one.collection)
    used: dict[str, int] = {}
    for one in scenes:
        name = f"{one.catalog}, {one.collection}" if len(collections[one.catalog]) > 1 else one.catalog
        used[name] = used.get(name, 0) + one.taken
    return used if len(used) > 1 else {}


def empty_months(plan: SeasonPlan) -> list[int]:
    """The months (1..12) for which a source has nothing that has something for others."""
    months: set[int] = set()
    for source, _ in used_sources(plan.recipe):
        months |= set(source.months_without(plan.pinned[source.name], plan.season))
    return sorted(months)
