"""The figures of `statistics.json`: by their form, and recomputed from the pixels.

The formulas are those of docs/store-format.md, in plain numpy; nothing of what the builder sums up with is used. Of
each band it is counted how many pixels have which stored number; every figure follows from that by its definition.
Counts must be equal, other figures within `RELATIVE` of themselves.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from h2crop_data.constants import BACKGROUND, REFLECTANCE_SCALE, TIER_COLUMNS, TIERS, UNKNOWN
from h2crop_data.cube.schema import ArraySpec
from h2crop_data.validation.documents import goes_by_time
from h2crop_data.validation.findings import Counted, Findings, NotChecked, Reports, error, first, short
from h2crop_data.validation.release import Release

#: The split whose values are described.
DESCRIBED = "train"
PERCENT = (1, 5, 25, 50, 75, 95, 99)
#: What format 1.0 did not have.
FIGURES_SINCE_1_1 = ("percentiles", "clear_observations", "class_parcels")
#: Difference that rounding may make, relative, and absolute where a figure is near 0.
RELATIVE, ABSOLUTE = 1e-9, 1e-12


# Counting


@dataclass(frozen=True)
class BandTally:
    """How many pixels have each stored number, from the lowest there is; nothing without pixels."""

    lowest: int
    pixels: NDArray[np.int64]

    @property
    def numbers(self) -> NDArray[np.int64]:
        """The stored numbers, one by one."""
        return np.arange(self.lowest, self.lowest + len(self.pixels))


NOTHING_TALLIED = BandTally(0, np.zeros(0, np.int64))


def tallied(values: NDArray[np.integer[Any]]) -> BandTally:
    """The tally of stored numbers (n) of at most 16 bits."""
    if not len(values):
        return NOTHING_TALLIED
    lowest = int(values.min())
    return BandTally(lowest, np.bincount(np.subtract(values, lowest, dtype=np.intp)))


def tally_together(tallies: Sequence[BandTally]) -> BandTally:
    """The tally of the pixels of several."""
    tallies = [tally for tally in tallies if len(tally.pixels)]
    if len(tallies) < 2:
        return tallies[0] if tallies else NOTHING_TALLIED
    lowest = min(tally.lowest for tally in tallies)
    pixels = np.zeros(max(tally.lowest + len(tally.pixels) for tally in tallies) - lowest, np.int64)
    for tally in tallies:
        pixels[tally.lowest - lowest :][: len(tally.pixels)] += tally.pixels
    return BandTally(lowest, pixels)


@dataclass(frozen=True)
class BlockFigures:
    """What is counted of a block, or of several of one split."""

    samples: int
    #: Array -> tally of each index of its axes between `sample` and the last two, the later ones faster.
    tallies: Mapping[str, Sequence[BandTally]]
    #: Array -> (n, 256): pixels with each number, by index of the axis after `sample`.
    pixels: Mapping[str, NDArray[np.int64]]
    #: Parcels with a labelled pixel, parts of it in any order.
    labelled: Sequence[NDArray[np.uint32]]

    @property
    def labelled_parcels(self) -> NDArray[np.uint32]:
        """The numbers of parcels with a labelled pixel, each once, in order."""
        return np.unique(np.concatenate([np.zeros(0, np.uint32), *self.labelled]))


def figures_of_block(
    arrays: Mapping[str, NDArray[Any]], specs: Mapping[str, ArraySpec], split: str, masks: Mapping[str, int]
) -> BlockFigures:
    """What is counted of the arrays of a block, name -> (sample, ...).

    masks: array of flags -> the bits that keep a pixel out, where the format does not state them.
    """
    tallies: dict[str, list[BandTally]] = {}
    pixels: dict[str, NDArray[np.int64]] = {}
    labelled = []
    for name, values in arrays.items():
        counted = specs[name].statistics
        if counted is None:
            continue
        if counted.kind == "numbers":
            coarsest = arrays[str(counted.by)][:, 0]
            labelled.append(np.setdiff1d(values[(coarsest != BACKGROUND) & (coarsest != UNKNOWN)], [0]))
        elif counted.kind == "classes" or (counted.kind == "counts" and split == DESCRIBED):
            by_layer = np.moveaxis(values, 1, 0).reshape(values.shape[1], -1)
            pixels[name] = np.array([np.bincount(layer, minlength=UNKNOWN + 1) for layer in by_layer])
        elif counted.kind == "values" and split == DESCRIBED:
            usable = usable_pixels(arrays, specs[name], masks)
            places = np.ndindex(values.shape[1:-2])
            bands = (values[(slice(None), *place)] for place in places)
            tallies[name] = [tallied(band[(band != specs[name].fill) & usable]) for band in bands]
    return BlockFigures(len(next(iter(arrays.values()))), tallies, pixels, labelled)


def usable_pixels(
    arrays: Mapping[str, NDArray[Any]], spec: ArraySpec, masks: Mapping[str, int]
) -> NDArray[np.bool_] | bool:
    """(sample, y, x): whether no flag keeps a pixel of an array out; True where nothing does."""
    assert spec.statistics is not None
    usable: NDArray[np.bool_] | bool = True
    if spec.statistics.by is not None:
        stated = spec.statistics.flags
        bits = masks.get(spec.statistics.by, 0) if stated is None else stated
        usable = usable & ((arrays[spec.statistics.by] & bits) == 0)
    if spec.statistics.also is not None and spec.statistics.also in arrays:
        usable = usable & ((arrays[spec.statistics.also] & masks.get(spec.statistics.also, 0)) == 0)
    return usable


def figures_together(parts: Sequence[BlockFigures]) -> BlockFigures:
    """What is counted of several blocks of one split together."""
    tallies, pixels = {}, {}
    for name in {name: None for part in parts for name in part.tallies}:
        by_part = [part.tallies[name] for part in parts if name in part.tallies]
        tallies[name] = [tally_together(of_band) for of_band in zip(*by_part, strict=True)]
    for name in {name: None for part in parts for name in part.pixels}:
        pixels[name] = np.sum([part.pixels[name] for part in parts if name in part.pixels], axis=0)
    labelled = [numbers for part in parts for numbers in part.labelled]
    return BlockFigures(sum(part.samples for part in parts), tallies, pixels, labelled)


# Figures by their definitions


def figures_of_band(tally: BandTally, scale: float) -> dict[str, Any]:
    """Count, mean, standard deviation with divisor n, lowest, highest and percentiles by nearest rank.

    scale: what the stored number 1 stands for.
    """
    n = int(tally.pixels.sum())
    if not n:
        nothing = dict.fromkeys(("mean", "sd", "min", "max"))
        return {"count": 0, **nothing, "percentiles": dict.fromkeys(map(str, PERCENT))}
    there = tally.pixels > 0
    numbers, pixels = tally.numbers[there].astype(np.float64), tally.pixels[there]
    mean = float(numbers @ pixels) / n
    deviation = math.sqrt(float((numbers - mean) ** 2 @ pixels) / n)
    # The nearest rank: the lowest number that at least so many per cent of the pixels do not exceed.
    not_above = np.cumsum(pixels)
    ranked = {str(percent): float(numbers[np.argmax(100 * not_above >= percent * n)]) * scale for percent in PERCENT}
    return {
        "count": n,
        "mean": mean * scale,
        "sd": deviation * scale,
        "min": float(numbers[0]) * scale,
        "max": float(numbers[-1]) * scale,
        "percentiles": ranked,
    }


def figures_of_array(tallies: Sequence[BandTally], spec: ArraySpec) -> dict[str, Any]:
    """The figures of each band under the name of the array; where it has months also of each, `<name>_by_month`."""
    scale = REFLECTANCE_SCALE if spec.is_reflectance else 1.0
    if not goes_by_time(spec):
        return {spec.name: [figures_of_band(tally, scale) for tally in tallies]}
    months = spec.sample_shape[0]
    bands = len(tallies) // months
    by_month = [tallies[bands * month : bands * (month + 1)] for month in range(months)]
    return {
        f"{spec.name}_by_month": [[figures_of_band(tally, scale) for tally in month] for month in by_month],
        spec.name: [figures_of_band(tally_together(tallies[band::bands]), scale) for band in range(bands)],
    }


def counts_by_number(pixels: Iterable[int]) -> dict[str, int]:
    """Number, as text -> how often it occurs, without those that do not."""
    return {str(number): int(count) for number, count in enumerate(pixels) if count}


def expected_figures(release: Release, counted: Mapping[tuple[int, str], BlockFigures]) -> dict[str, Any]:
    """What `statistics.json` must say. counted: by season and split, of every block of the release."""
    specs = release.layout.arrays()
    described: dict[str, Any] = {"split": DESCRIBED, "units": "1"}
    document: dict[str, Any] = {"reflectance": described, "clear_observations": []}
    training = figures_together([figures for (_, split), figures in counted.items() if split == DESCRIBED])
    if training.samples:
        described["samples"] = training.samples
    for name, tallies in training.tallies.items():
        of_array, spec = figures_of_array(tallies, specs[name]), specs[name]
        if spec.is_reflectance:
            described |= of_array
        else:
            document.setdefault("others", {})[name] = {"units": spec.attributes.get("units", "1"), **of_array}
    for name, spec in arrays_counted(release, "counts").items():
        if name in training.pixels:
            key = (spec.statistics and spec.statistics.key) or name
            document[key] = [counts_by_number(numbers) for numbers in training.pixels[name]]
    document["class_pixels"] = {str(season): {} for season in release.seasons}
    document["class_parcels"] = {str(season): {} for season in release.seasons if has_parcels(release, season)}
    for (season, split), figures in counted.items():
        document["class_pixels"][str(season)][split] = {
            name: [counts_by_number(tier) for tier in figures.pixels[name]]
            for name in arrays_counted(release, "classes")
        }
        if has_parcels(release, season):
            document["class_parcels"][str(season)][split] = labelled_by_class(
                release.tables[f"parcels-{season}"], figures.labelled_parcels
            )
    return document


def has_parcels(release: Release, season: int) -> bool:
    """Whether the parcels of a season are known."""
    return f"parcels-{season}" in release.tables


def labelled_by_class(parcels: pd.DataFrame, labelled: NDArray[np.uint32]) -> list[dict[str, int]]:
    """How many of the labelled parcels each class has, by tier."""
    of_labelled = parcels[parcels["number"].isin(labelled)]
    counts = [of_labelled[column].value_counts() for column in TIER_COLUMNS]
    return [{str(number): int(count) for number, count in of_tier.items()} for of_tier in counts]


# The document by its form


def check_form(release: Release) -> Findings:
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
    if (reflectance["split"], reflectance["units"]) != (DESCRIBED, "1"):
        yield f"reflectance is of {reflectance['split']} in {reflectance['units']}, not of {DESCRIBED} in 1"
    splits = {
        season: table["split"].value_counts()
        for season in release.seasons
        if (table := release.samples(season)) is not None
    }
    training = sum(int(counts.get(DESCRIBED, 0)) for counts in splits.values())
    if len(splits) == len(release.named_seasons) and training and reflectance["samples"] != training:
        yield f"reflectance is of {reflectance['samples']} samples, the split {DESCRIBED} has {training}"
    if reflectance.get("samples"):
        for name, spec in arrays_counted(release, "values").items():
            where, part = ("reflectance", reflectance) if spec.is_reflectance else ("others", document["others"][name])
            # An array without an axis of bands has one.
            *months, bands = (spec.sample_shape[:-2] or (1,))[-2:]
            if [set(band) for band in part[name]] != [summary_keys(release)] * bands:
                yield f"{where}.{name} is not a list of {bands} bands of {', '.join(sorted(summary_keys(release)))}"
            if months and [len(month) for month in part[f"{name}_by_month"]] != [bands] * months[0]:
                yield f"{where}.{name}_by_month is not a list of {months[0]} months of bands"
        for name, spec in arrays_counted(release, "counts").items():
            key = (spec.statistics and spec.statistics.key) or name
            if not release.is_first_format and len(document[key]) != spec.sample_shape[0]:
                yield f"{key} is not a list of {spec.sample_shape[0]}"
    if set(map(int, document["class_pixels"])) != release.named_seasons:
        yield f"class_pixels has the seasons {first(sorted(document['class_pixels']))}"
    for season, counts in splits.items():
        yield from class_count_problems(release, document["class_pixels"][str(season)], season, counts)


def arrays_counted(release: Release, kind: str) -> dict[str, ArraySpec]:
    """The arrays of which a kind of statistics is counted, by name."""
    arrays = release.layout.arrays()
    return {name: spec for name, spec in arrays.items() if spec.statistics and spec.statistics.kind == kind}


def summary_keys(release: Release) -> set[str]:
    """What is stated of a band."""
    keys = {"count", "mean", "sd", "min", "max"}
    return keys if release.is_first_format else keys | {"percentiles"}


def class_count_problems(
    release: Release, stored: dict[str, Any], season: int, counts: pd.Series[int]
) -> Iterator[str]:
    """Pixels of classes of a season: every split of its samples, every tier with as many pixels as there are."""
    if set(stored) != set(counts.index):
        has, wanted = first(sorted(stored)), first(sorted(counts.index))
        yield f"class_pixels of {season} has the splits {has}, the samples have {wanted}"
        return
    for split, count in counts.items():
        for name in arrays_counted(release, "classes"):
            pixels = [sum(tier.values()) for tier in stored[str(split)][name]]
            if pixels != [int(count) * release.layout.fine**2] * TIERS:
                yield f"class_pixels of {season} {split}, {name}, does not count every pixel of {count} samples"


# The document against the pixels


def check_figures(release: Release, counted: Mapping[tuple[int, str], BlockFigures]) -> Reports:
    """`statistics.json` is what the arrays give. counted: by season and split, of every block of the release."""
    if "statistics" not in release.documents:
        return
    path, stored = release.index_path("statistics"), release.documents["statistics"]
    index = release.attributes["index"]
    lost = [name for name in index if name.startswith("parcels-") and name not in release.tables]
    if release.doubtful_parcels or lost:
        yield NotChecked("the statistics against the arrays: the parcels are lost, or not numbered as they must be")
        return
    expected = expected_figures(release, counted)
    yield Counted("training_samples", expected["reflectance"].get("samples", 0))
    differs = unlike(older(expected) if release.is_first_format else expected, stored)
    if differs:
        yield error(
            "statistics", path, f"differs from the statistics of the arrays: {differs}", release.remedies.sealed()
        )


def older(document: Any) -> Any:
    """Statistics without what format 1.0 did not have."""
    if isinstance(document, dict):
        return {key: older(value) for key, value in document.items() if key not in FIGURES_SINCE_1_1}
    return [older(value) for value in document] if isinstance(document, list) else document


def unlike(expected: Any, found: Any, at: str = "") -> str:
    """In words, where two documents first differ by more than rounding; empty where they do not."""
    if isinstance(expected, dict) and isinstance(found, dict):
        for key in sorted({*expected, *found}):
            place = f"{at}.{key}" if at else str(key)
            if key not in found or key not in expected:
                return f"{place} is {'missing' if key in expected else 'not expected'}"
            if differs := unlike(expected[key], found[key], place):
                return differs
        return ""
    if isinstance(expected, list) and isinstance(found, list) and len(expected) == len(found):
        pairs = enumerate(zip(expected, found, strict=True))
        return next(filter(None, (unlike(*pair, f"{at}[{place}]") for place, pair in pairs)), "")
    if isinstance(expected, float) and isinstance(found, int | float) and not isinstance(found, bool):
        same = math.isclose(expected, found, rel_tol=RELATIVE, abs_tol=ABSOLUTE)
    else:
        same = type(expected) is type(found) and expected == found
    return "" if same else f"{at} is {short(found)}, expected {short(expected)}"
