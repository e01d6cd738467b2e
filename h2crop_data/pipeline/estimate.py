"""What a plan amounts to: counts, bytes and time, before anything is built."""

from __future__ import annotations

from collections import Counter
from typing import Any

import numpy as np

from h2crop_data.catalog.access import is_remote
from h2crop_data.catalog.acquisitions import looks_of
from h2crop_data.constants import MONTHS
from h2crop_data.pipeline.plan import SeasonPlan
from h2crop_data.pipeline.sources import source_facts, without_figures

#: Stored over raw bytes of full-size cells, as measured (docs/benchmarks.md); cloudy years are smaller.
COMPRESSION = {"lz4": 0.66, "zstd": 0.58}
#: Seconds to open and read one asset over one block: from a local disk, and from an object store, one after the other.
SECONDS_A_READ = {False: 0.003, True: 0.35}
#: Seconds a megabyte of raw output for composites, resampling, labels and compression.
SECONDS_A_MEGABYTE = 0.02


def estimate(plan: SeasonPlan) -> dict[str, Any]:
    """Counts, sizes in bytes, seconds of one worker (rough), scenes left out by reason, empty months,
    what the split does not meet, what was read of the sources (`source_facts`)."""
    raw = sum(int(np.prod(spec.sample_shape)) * spec.dtype.itemsize for spec in plan.layout.arrays().values()) * len(
        plan.samples
    )
    sentinel2, enmap = plan.recipe.sentinel2, plan.recipe.enmap
    reads = 0.0
    if sentinel2:
        over = sum(len(names) for names in plan.blocks["s2_items"])
        remote = any(is_remote(asset.href) for item in plan.sentinel2[:1] for asset in item.assets.values())
        reads += over * (len(sentinel2.bands) + 1) * SECONDS_A_READ[remote]
    if enmap:
        remote = any(is_remote(asset.href) for item in plan.enmap[:1] for asset in item.assets.values())
        reads += len(plan.blocks) * 9 * SECONDS_A_READ[remote]
    splits = plan.samples["split"].value_counts()
    counts = {
        "samples": len(plan.samples),
        **{f"samples_{split}": int(splits.get(split, 0)) for split in ("train", "val", "test")},
        "cells": int(plan.samples["cell"].nunique()),
        "blocks": len(plan.blocks),
        "enmap_scenes": len(plan.enmap),
        "sentinel2_scenes": len(plan.sentinel2),
        "parcels": len(plan.parcels.parcels),
        "parcels_unmapped": plan.parcels.counts.get("unmapped", 0),
        "prior_parcels": len(plan.prior.parcels),
    }
    # Reasons carry the figures of each scene; without them they can be counted.
    reasons = Counter(without_figures(one.reason) for one in plan.scenes if not one.taken)
    return {
        "counts": counts,
        "raw_bytes": raw,
        "bytes": int(raw * COMPRESSION[plan.recipe.store.codec]),
        "seconds": reads + raw / 1e6 * SECONDS_A_MEGABYTE,
        "left_out": dict(reasons.most_common()),
        "months_without_scenes": empty_months(plan),
        "split_problems": plan.split_problems,
        "sources": source_facts(plan),
    }


def empty_months(plan: SeasonPlan) -> list[int]:
    """The months (1..12) without any look of Sentinel-2; none where the recipe has no Sentinel-2."""
    months = {look.moment.month for look in looks_of(plan.sentinel2, plan.season)}
    return [month for month in range(1, MONTHS + 1) if month not in months] if plan.recipe.sentinel2 else []
