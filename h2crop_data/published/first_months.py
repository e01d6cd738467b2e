"""Statistics of the first months of the training split, for an export that ends with a month of the season.

Sentinel-2: the statistics of each month, which a release has, put together. EnMAP: those of the release where all its
scenes were acquired by then; else its training samples are read again, without those of later scenes.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from h2crop_data.constants import MONTHS
from h2crop_data.cube.known_scenes import last_day_of_month, scenes_until
from h2crop_data.cube.reading import read_columns, read_document
from h2crop_data.cube.root import Root, RootAttributes
from h2crop_data.cube.sample_reader import open_samples
from h2crop_data.cube.statistics import TRAINING, BlockSums, block_sums, statistics_of_training, total
from h2crop_data.progress import Progress, silent
from h2crop_data.published.blocks import FLAGGED
from h2crop_data.published.options import MARK
from h2crop_data.recipe.enmap import EnmapSettings
from h2crop_data.sources.enmap.source import Enmap
from h2crop_data.sources.formats import layout_of_root

#: The arrays that the statistics of EnMAP need.
ENMAP_ARRAYS = ("enmap", "enmap_quality", "enmap_mask")


def reflectance_of_first_months(
    store: str | Path, root: Root, months: int, progress: Progress = silent
) -> dict[str, Any]:
    """`reflectance` of `statistics.json`, of the training split until the end of a month; empty without a training
    split.

    months: 1..12. Besides the keys of the document it has `months`. Raises StoreError.
    """
    attributes = root["attributes"]
    reflectance: dict[str, Any] = dict(read_document(store, attributes, "statistics")["reflectance"])
    if months == MONTHS:
        return reflectance
    reflectance["months"] = months
    by_month = reflectance.pop("s2_by_month", None)
    if by_month:
        reflectance["s2"] = [pooled_band(bands) for bands in zip(*by_month[:months], strict=True)]
    known, later = training_samples(store, attributes, months)
    if later and reflectance.get("enmap"):
        reflectance |= enmap_statistics(store, root, known, progress)
    return reflectance


def pooled_band(parts: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Count, mean and standard deviation (of the population) of values that were counted in parts."""
    counted = [part for part in parts if part["count"]]
    count = sum(part["count"] for part in counted)
    if not count:
        return {"count": 0, "mean": None, "sd": None}
    mean = math.fsum(part["count"] * part["mean"] for part in counted) / count
    # Around the common mean, so that no two large numbers are subtracted.
    squares = math.fsum(part["count"] * (part["sd"] ** 2 + (part["mean"] - mean) ** 2) for part in counted)
    return {"count": count, "mean": mean, "sd": math.sqrt(squares / count)}


def training_samples(store: str | Path, attributes: RootAttributes, months: int) -> tuple[dict[int, list[int]], int]:
    """Slots of the training samples by season whose scenes are known at the end of a month, and how many others are."""
    known, later = {}, 0
    for season in map(int, attributes["seasons"]):
        table = read_columns(store, attributes, f"samples-{season}", ["slot", "split"]).to_pandas()
        slots = table["slot"][table["split"] == TRAINING].to_numpy()
        by_then = scenes_until(store, attributes, season, last_day_of_month(season, months)).to_numpy()
        known[season] = slots[np.isin(slots, by_then)].tolist()
        later += len(slots) - len(known[season])
    return known, later


def enmap_statistics(
    store: str | Path, root: Root, slots: Mapping[int, Sequence[int]], progress: Progress = silent
) -> dict[str, Any]:
    """`samples` and `enmap` as in `statistics.json`, of some samples by season; `enmap` is empty without samples."""
    attributes = root["attributes"]
    recipes = read_document(store, attributes, "recipes")
    specs = {name: spec for name, spec in layout_of_root(attributes).arrays().items() if name in ENMAP_ARRAYS}
    opened = open_samples(store, root, [season for season, of_season in slots.items() if of_season])
    number = sum(map(len, slots.values()))
    parts: list[BlockSums] = []
    done = 0
    for season, readers in opened.items():
        masks = flags_of_season(recipes[str(season)])
        for slot in slots[season]:
            arrays = {name: readers[name].read(slot)[None] for name in specs}
            parts = [total([*parts, block_sums(arrays, specs, TRAINING, masks)])]
            done += 1
            progress(done, number, "mean and deviation of EnMAP")
    if not parts:
        return {"samples": 0, "enmap": []}
    found: dict[str, Any] = statistics_of_training(parts[0], specs)["reflectance"]
    return {"samples": number, "enmap": found["enmap"]}


def flags_of_season(recipe: Mapping[str, Any]) -> dict[str, int]:
    """Quality array -> bits of it that keep a pixel out of the statistics of a season. recipe: as the index has it."""
    if MARK in recipe:
        return {"enmap_quality": FLAGGED}
    return Enmap().flag_masks(EnmapSettings.model_validate(recipe["enmap"]))
