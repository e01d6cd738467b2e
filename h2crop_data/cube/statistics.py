"""Exact statistics: histograms of blocks, added up in any order.

Every figure of a release is derived from counts of stored numbers, so that it depends neither on the order of blocks
nor on rounding, and a release of an extended store does not read the arrays of old blocks.
"""

from __future__ import annotations

import io
import json
import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import accumulate, islice
from typing import Any, TypeVar

import numpy as np
from numcodecs import Zstd
from numpy.typing import NDArray

from h2crop_data.array_archive import read_arrays
from h2crop_data.constants import MONTHS, REFLECTANCE_SCALE, TIERS, UNKNOWN
from h2crop_data.cube.schema import ArraySpec
from h2crop_data.cube.windows import TIME_AXIS

#: The split reflectance statistics are taken over.
TRAINING = "train"
PERCENTILES = (1, 5, 25, 50, 75, 95, 99)
#: Counts are cut into numbers of so many bits before they are multiplied, so that int64 holds every sum.
LIMB_BITS = 16
#: Of Zstandard. Histograms are mostly zeros and small numbers: level 9 takes six times as long (59 ms of 8.4 MB) and
#: gives a sixth more bytes.
SUMS_LEVEL = 3
#: Names that the file of a block's sums has had since format 1.1: arrays with histograms, and how many months each has;
#: arrays with counts, and their key.
FIRST_VALUES = {"enmap": 1, "s2": MONTHS}
COUNTS = {"s2_clear": "clear"}
T = TypeVar("T")


@dataclass(frozen=True)
class Histogram:
    """How often each stored number occurs; `counts[i]` is that of `first + i`. Empty without any."""

    first: int
    counts: NDArray[np.int64]

    @classmethod
    def of(cls, values: NDArray[np.integer[Any]]) -> Histogram:
        """The histogram of stored numbers of any shape."""
        if not values.size:
            return cls(0, np.zeros(0, np.int64))
        low, high = int(values.min()), int(values.max())
        counted = np.bincount(values.ravel().astype(np.intp) - low, minlength=high - low + 1)
        return cls(low, counted.astype(np.int64))

    def __add__(self, other: Histogram) -> Histogram:
        if not self.counts.size or not other.counts.size:
            return self if self.counts.size else other
        first = min(self.first, other.first)
        end = max(self.first + self.counts.size, other.first + other.counts.size)
        counts = np.zeros(end - first, np.int64)
        for part in (self, other):
            counts[part.first - first : part.first - first + part.counts.size] += part.counts
        return Histogram(first, counts)

    def summary(self, scale: float = REFLECTANCE_SCALE) -> dict[str, Any]:
        """Count, mean, standard deviation (of the population), min, max and percentiles (nearest rank).

        scale: what the number 1 stands for.

        All but the count are null where there is no pixel.
        """
        n = int(self.counts.sum())
        if not n:
            nothing = dict.fromkeys(("mean", "sd", "min", "max"))
            return {"count": 0, **nothing, "percentiles": dict.fromkeys(map(str, PERCENTILES))}
        values = np.arange(self.first, self.first + self.counts.size)
        total, squares = exact_dot(values, self.counts), exact_dot(values * values, self.counts)
        reached = np.cumsum(self.counts)
        # The nearest rank of p per cent of n is ceil(p n / 100), counted from 1.
        ranks = [-(-percent * n // 100) for percent in PERCENTILES]
        at = values[np.searchsorted(reached, ranks)]
        present = np.flatnonzero(self.counts)
        return {
            "count": n,
            "mean": total / n * scale,
            # n * squares - total^2 is exact in integers; the difference of two floats would not be.
            "sd": math.sqrt(n * squares - total * total) / n * scale,
            "min": int(values[present[0]]) * scale,
            "max": int(values[present[-1]]) * scale,
            "percentiles": {str(p): int(value) * scale for p, value in zip(PERCENTILES, at, strict=True)},
        }


def exact_dot(values: NDArray[np.int64], counts: NDArray[np.int64]) -> int:
    """The sum of values (below 2^31) times counts (below 2^63) without rounding or overflow."""
    total, rest, weight = 0, counts, 1
    while rest.any():
        total += weight * int(values @ (rest & ((1 << LIMB_BITS) - 1)))
        rest, weight = rest >> LIMB_BITS, weight << LIMB_BITS
    return total


@dataclass(frozen=True)
class BlockSums:
    """What statistics need of a block, or of several of one split together."""

    samples: int
    #: Array -> histograms of its values, over the axes after `sample` but the last two, the later ones faster.
    values: dict[str, list[Histogram]]
    #: Array -> (n, 256): how often each number occurs, along the axis after `sample`.
    counts: dict[str, NDArray[np.int64]]
    #: Numbers of the parcels that have a pixel with a class, in order.
    parcels: NDArray[np.uint32]

    def __add__(self, other: BlockSums) -> BlockSums:
        return BlockSums(
            self.samples + other.samples,
            added_up(
                self.values, other.values, lambda these, those: [a + b for a, b in zip(these, those, strict=True)]
            ),
            added_up(self.counts, other.counts, np.add),
            np.union1d(self.parcels, other.parcels),
        )

    def encode(self) -> bytes:
        """As bytes: the same sums always have the same."""
        others = {name: len(self.values[name]) for name in sorted(self.values) if name not in FIRST_VALUES}
        flat = [of_band for name in (*FIRST_VALUES, *others) for of_band in self.values.get(name, [])]
        sizes = [len(self.values.get(name, [])) // months for name, months in FIRST_VALUES.items()]
        arrays: dict[str, NDArray[Any]] = {
            "samples": np.array(self.samples),
            "bands": np.array(sizes),
            "first": np.array([of_band.first for of_band in flat], np.int32),
            "length": np.array([of_band.counts.size for of_band in flat], np.int32),
            "counts": np.concatenate([of_band.counts for of_band in flat]) if flat else np.zeros(0, np.int64),
            "parcels": self.parcels,
            **{f"pixels_{name}": counts for name, counts in self.counts.items() if name not in COUNTS},
            **{key: self.counts[name] for name, key in COUNTS.items() if name in self.counts},
        }
        if others:
            arrays["other_values"] = np.frombuffer(json.dumps(others).encode(), np.uint8)
        buffer = io.BytesIO()
        np.savez(buffer, allow_pickle=False, **arrays)
        return bytes(Zstd(level=SUMS_LEVEL).encode(buffer.getvalue()))

    @classmethod
    def decode(cls, data: bytes) -> BlockSums:
        """The sums that `encode` gave. Raises ValueError for anything else."""
        try:
            arrays = read_arrays(io.BytesIO(Zstd().decode(data)))
            ends = accumulate(arrays["length"].tolist())
            parts = np.split(arrays["counts"], list(ends)[:-1])
            flat = iter([Histogram(first, part) for first, part in zip(arrays["first"].tolist(), parts, strict=False)])
            sizes = zip(FIRST_VALUES.items(), arrays["bands"].tolist(), strict=True)
            lengths = {name: months * bands for (name, months), bands in sizes if bands}
            if "other_values" in arrays:
                lengths |= json.loads(arrays["other_values"].tobytes())
            values = {name: list(islice(flat, length)) for name, length in lengths.items()}
            counts = {name: arrays[key] for name, key in COUNTS.items() if key in arrays}
            counts |= {name[7:]: array for name, array in arrays.items() if name.startswith("pixels_")}
            return cls(int(arrays["samples"]), values, counts, arrays["parcels"])
        except (RuntimeError, KeyError, OSError) as error:
            raise ValueError(f"invalid sums of a block ({error})") from error


def added_up(these: Mapping[str, T], those: Mapping[str, T], add: Callable[[T, T], T]) -> dict[str, T]:
    """What two mappings have under each name, added up where both have it."""
    both = {name: add(value, those[name]) for name, value in these.items() if name in those}
    return {**these, **those, **both}


def total(parts: Iterable[BlockSums]) -> BlockSums:
    """The sums of many blocks of one split, in any order, one after the other in memory. Raises ValueError for none."""
    parcels: list[NDArray[np.uint32]] = []
    result: BlockSums | None = None
    for part in parts:
        parcels.append(part.parcels)
        bare = replace(part, parcels=part.parcels[:0])
        result = bare if result is None else result + bare
    if result is None:
        raise ValueError("no blocks to add up")
    return replace(result, parcels=np.unique(np.concatenate(parcels)))


def block_sums(
    arrays: Mapping[str, NDArray[Any]], specs: Mapping[str, ArraySpec], split: str, flag_masks: Mapping[str, int]
) -> BlockSums:
    """The sums of a block's arrays (name -> (sample, ...)).

    specs: what a store holds; those of arrays that are not there are passed over. flag_masks: quality array -> the bits
    of it that keep a pixel out, where the format does not say; none by default.
    """
    values: dict[str, list[Histogram]] = {}
    counts: dict[str, NDArray[np.int64]] = {}
    parcels = np.zeros(0, np.uint32)
    for name, array in arrays.items():
        statistics = specs[name].statistics
        if statistics is None:
            continue
        if statistics.kind == "numbers":
            parcels = labelled_numbers(array, arrays[statistics.by or ""])
        elif statistics.kind == "classes" or (statistics.kind == "counts" and split == TRAINING):
            counts[name] = np.stack([counted(array[:, place]) for place in range(array.shape[1])])
        elif statistics.kind == "values" and split == TRAINING:
            usable = None
            if statistics.by is not None:
                mask = flag_masks.get(statistics.by, 0) if statistics.flags is None else statistics.flags
                usable = (arrays[statistics.by] & mask) == 0
            if statistics.also is not None and statistics.also in arrays:
                further = (arrays[statistics.also] & flag_masks.get(statistics.also, 0)) == 0
                usable = further if usable is None else usable & further
            values[name] = [
                measured(array[(slice(None), *place)], specs[name].fill, usable)
                for place in np.ndindex(array.shape[1:-2])
            ]
    return BlockSums(len(next(iter(arrays.values()))), values, counts, parcels)


def measured(band: NDArray[np.integer[Any]], fill: int, usable: NDArray[np.bool_] | None = None) -> Histogram:
    """The histogram of a band's pixels that have a value (and are usable)."""
    present = band != fill
    return Histogram.of(band[present if usable is None else present & usable])


def counted(values: NDArray[np.uint8]) -> NDArray[np.int64]:
    """(256): how often each number occurs."""
    return np.bincount(values.ravel(), minlength=UNKNOWN + 1).astype(np.int64)


def labelled_numbers(numbers: NDArray[np.uint32], classes: NDArray[np.uint8]) -> NDArray[np.uint32]:
    """The parcels (sample, y, x) that have a pixel with a class in the first tier (sample, tier, y, x), in order."""
    coarsest = classes[:, 0]
    labelled = np.unique(numbers[(coarsest > 0) & (coarsest < UNKNOWN)])
    return labelled[labelled > 0]


def band_summaries(histograms: Sequence[Histogram], spec: ArraySpec) -> dict[str, Any]:
    """The summary of each band of an array under its name; of one with months also of each month, `<name>_by_month`."""
    scale = REFLECTANCE_SCALE if spec.is_reflectance else 1.0
    if spec.dims[1] != TIME_AXIS:
        return {spec.name: [band.summary(scale) for band in histograms]}
    bands = len(histograms) // spec.sample_shape[0]
    by_month = [histograms[start : start + bands] for start in range(0, len(histograms), bands)]
    whole_year = (sum(of_band[1:], of_band[0]) for of_band in zip(*by_month, strict=True))
    return {
        f"{spec.name}_by_month": [[band.summary(scale) for band in month] for month in by_month],
        spec.name: [band.summary(scale) for band in whole_year],
    }


def statistics_of_training(training: BlockSums, specs: Mapping[str, ArraySpec]) -> dict[str, Any]:
    """What `statistics.json` says of the training split: reflectance, clear days, and arrays of other sources."""
    result: dict[str, Any] = {"reflectance": {"samples": training.samples}}
    others: dict[str, Any] = {}
    for name, histograms in training.values.items():
        if specs[name].is_reflectance:
            result["reflectance"] |= band_summaries(histograms, specs[name])
        else:
            others[name] = {
                "units": specs[name].attributes.get("units", "1"),
                **band_summaries(histograms, specs[name]),
            }
    for name, counts in training.counts.items():
        statistics = specs[name].statistics
        if statistics is not None and statistics.kind == "counts":
            result[statistics.key or name] = [nonzero_counts(numbers) for numbers in counts]
    return result | ({"others": others} if others else {})


def class_counts(sums: BlockSums, specs: Mapping[str, ArraySpec]) -> dict[str, list[dict[str, int]]]:
    """By array of classes and tier, how many pixels each class has."""
    kinds = {name: spec.statistics.kind for name, spec in specs.items() if spec.statistics is not None}
    return {
        name: [nonzero_counts(tier) for tier in counts]
        for name, counts in sums.counts.items()
        if kinds[name] == "classes"
    }


def nonzero_counts(counts: NDArray[np.int64]) -> dict[str, int]:
    """Counts by number as text, without those that do not occur."""
    return {str(number): int(counts[number]) for number in np.flatnonzero(counts)}


def parcel_counts(sums: BlockSums, numbers: NDArray[np.uint32], tiers: NDArray[np.uint8]) -> list[dict[str, int]]:
    """Parcels of each class at each tier that have a labelled pixel.

    numbers: (n), in order; tiers: (n, 4), the classes of the parcels with these numbers.
    """
    classes = tiers[np.isin(numbers, sums.parcels)]
    return [nonzero_counts(np.bincount(classes[:, tier])) for tier in range(TIERS)]
