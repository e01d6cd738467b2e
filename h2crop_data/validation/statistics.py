"""Whether the statistics are those of the release: by their form, and recomputed from what was read."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from h2crop_data.constants import TIERS
from h2crop_data.cube.index import statistics
from h2crop_data.cube.schema import ArraySpec
from h2crop_data.cube.season import FinishedSeason
from h2crop_data.cube.statistics import TRAINING, BlockSums
from h2crop_data.validation.documents import difference, short
from h2crop_data.validation.findings import Findings, error, first
from h2crop_data.validation.release import Release

#: What format 1.0 did not have.
FIGURES_SINCE_1_1 = ("percentiles", "clear_observations", "class_parcels")
#: Relative difference that is allowed to figures of format 1.0, which were summed up in another way.
ROUNDING = 1e-9


class RunningSums:
    """The sums of blocks by season and split, added up as they come."""

    def __init__(self) -> None:
        self.sums: dict[tuple[int, str], BlockSums] = {}
        self.parcels: dict[tuple[int, str], list[NDArray[np.uint32]]] = {}

    def add(self, season: int, split: str, sums: BlockSums) -> None:
        """Add a block."""
        key = season, split
        self.parcels.setdefault(key, []).append(sums.parcels)
        bare = replace(sums, parcels=sums.parcels[:0])
        self.sums[key] = self.sums[key] + bare if key in self.sums else bare

    def of_season(self, season: int) -> dict[str, BlockSums]:
        """By split."""
        return {
            split: replace(sums, parcels=np.unique(np.concatenate(self.parcels[number, split])))
            for (number, split), sums in sorted(self.sums.items())
            if number == season
        }


def check_statistics_form(release: Release) -> Findings:
    """`statistics.json` without a look at the arrays: its parts, and counts that follow from the index."""
    if "statistics" not in release.documents:
        return
    path, document = release.index_path("statistics"), release.documents["statistics"]
    try:
        problems = list(form_problems(release, document))
    except (KeyError, TypeError, AttributeError, ValueError) as failure:
        problems = [f"lacks a part, or has one of another form ({type(failure).__name__}: {failure})"]
    for problem in problems:
        yield error("statistics", path, problem, release.remedies.sealed())


def form_problems(release: Release, document: dict[str, Any]) -> Iterator[str]:
    """What is wrong with statistics by their form, in words."""
    reflectance = document["reflectance"]
    if (reflectance["split"], reflectance["units"]) != (TRAINING, "1"):
        yield f"reflectance is of {reflectance['split']} in {reflectance['units']}, not of {TRAINING} in 1"
    splits = {
        season: table["split"].value_counts()
        for season in release.seasons
        if (table := release.samples(season)) is not None
    }
    training = sum(int(counts.get(TRAINING, 0)) for counts in splits.values())
    if len(splits) == len(release.named_seasons) and training and reflectance["samples"] != training:
        yield f"reflectance is of {reflectance['samples']} samples, the split {TRAINING} has {training}"
    if reflectance.get("samples"):
        for name, spec in arrays_with(release, "values").items():
            where, part = ("reflectance", reflectance) if spec.is_reflectance else ("others", document["others"][name])
            # An array without an axis of bands has one.
            *months, bands = (spec.sample_shape[:-2] or (1,))[-2:]
            if [set(band) for band in part[name]] != [summary_keys(release)] * bands:
                yield f"{where}.{name} is not a list of {bands} bands of {', '.join(sorted(summary_keys(release)))}"
            if months and [len(month) for month in part[f"{name}_by_month"]] != [bands] * months[0]:
                yield f"{where}.{name}_by_month is not a list of {months[0]} months of bands"
        for name, spec in arrays_with(release, "counts").items():
            key = (spec.statistics and spec.statistics.key) or name
            if release.minor and len(document[key]) != spec.sample_shape[0]:
                yield f"{key} is not a list of {spec.sample_shape[0]}"
    if set(map(int, document["class_pixels"])) != release.named_seasons:
        yield f"class_pixels has the seasons {first(sorted(document['class_pixels']))}"
    for season, counts in splits.items():
        yield from class_count_problems(release, document["class_pixels"][str(season)], season, counts)


def arrays_with(release: Release, kind: str) -> dict[str, ArraySpec]:
    """The arrays of which a kind of statistics is counted, by name."""
    arrays = release.layout.arrays()
    return {name: spec for name, spec in arrays.items() if spec.statistics and spec.statistics.kind == kind}


def summary_keys(release: Release) -> set[str]:
    """What is told of a band."""
    keys = {"count", "mean", "sd", "min", "max"}
    return keys | {"percentiles"} if release.minor else keys


def class_count_problems(
    release: Release, stored: dict[str, Any], season: int, counts: pd.Series[int]
) -> Iterator[str]:
    """Pixels of classes of a season: every split of its samples, every tier with as many pixels as there are."""
    if set(stored) != set(counts.index):
        has, wanted = first(sorted(stored)), first(sorted(counts.index))
        yield f"class_pixels of {season} has the splits {has}, the samples have {wanted}"
        return
    names = arrays_with(release, "classes")
    for split, count in counts.items():
        for name in names:
            pixels = [sum(tier.values()) for tier in stored[str(split)][name]]
            if pixels != [int(count) * release.layout.fine**2] * TIERS:
                yield f"class_pixels of {season} {split}, {name}, does not count every pixel of {count} samples"


def check_statistics(release: Release, sums: RunningSums) -> Findings:
    """`statistics.json` is exactly what the arrays give. sums: of every block of the release."""
    if "statistics" not in release.documents:
        return
    path, stored = release.index_path("statistics"), release.documents["statistics"]
    index = release.attributes["index"]
    lost = [name for name in index if name.startswith("parcels-") and name not in release.tables]
    if release.doubtful_parcels or lost:
        release.cannot_check("the statistics against the arrays: the parcels are lost, or not numbered as they must be")
        return
    try:
        expected = statistics(
            [season_from_index(release, season, sums) for season in release.seasons], release.layout.arrays()
        )
    except (IndexError, ValueError) as failure:
        release.cannot_check(f"the statistics against the arrays: they cannot be summed up ({failure})")
        return
    release.counts["training_samples"] = expected["reflectance"].get("samples", 0)
    differs = difference(expected, stored) if release.minor else rough_difference(older(expected), stored)
    if differs:
        yield error("statistics", path, f"is not what the arrays give: {differs}", release.remedies.sealed())


def season_from_index(release: Release, season: int, sums: RunningSums) -> FinishedSeason:
    """A season as sealing knows it, from its index and the sums of its blocks."""
    nothing = pd.DataFrame()
    parcels = release.tables.get(f"parcels-{season}")
    return FinishedSeason(season, nothing, nothing, nothing, parcels, {}, sums.of_season(season), [], {})


def older(document: Any) -> Any:
    """Statistics without what format 1.0 did not have."""
    if isinstance(document, dict):
        return {key: older(value) for key, value in document.items() if key not in FIGURES_SINCE_1_1}
    return [older(value) for value in document] if isinstance(document, list) else document


def rough_difference(expected: Any, found: Any, at: str = "") -> str:
    """In words, where two documents differ by more than rounding; empty where they do not."""
    if isinstance(expected, float) and isinstance(found, int | float):
        return (
            ""
            if math.isclose(expected, found, rel_tol=ROUNDING, abs_tol=ROUNDING)
            else f"{at} is {found}, not {expected}"
        )
    if isinstance(expected, dict) and isinstance(found, dict) and set(expected) == set(found):
        pairs = [(f"{at}.{key}", expected[key], found[key]) for key in expected]
    elif isinstance(expected, list) and isinstance(found, list) and len(expected) == len(found):
        pairs = [(f"{at}[{place}]", *pair) for place, pair in enumerate(zip(expected, found, strict=True))]
    else:
        return "" if expected == found else f"{at} is {short(found)}, not {short(expected)}"
    differences = (rough_difference(wanted, stored, where) for where, wanted, stored in pairs)
    return next(filter(None, differences), "")
