"""Exact statistics: histograms of blocks, added up in any order.

Every figure of a release is derived from counts of stored numbers, so that it does not depend on the order of blocks
nor on rounding, and a release of a store that grew needs no look at the arrays of old blocks.
"""

from __future__ import annotations

import io
import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import accumulate
from typing import Any, TypeVar

import numpy as np
from numcodecs import Zstd
from numpy.typing import NDArray

from h2crop_data.constants import MONTHS, REFLECTANCE_FILL, REFLECTANCE_SCALE, TIERS, UNKNOWN

#: The split reflectance statistics are taken over.
TRAINING = "train"
PERCENTILES = (1, 5, 25, 50, 75, 95, 99)
#: Counts are cut into numbers of so many bits before they are multiplied, so that int64 holds every sum.
LIMB_BITS = 16
T = TypeVar("T")


@dataclass(frozen=True)
class Histogram:
    """How often each stored number occurs; `counts[i]` is that of `first + i`. Empty without any."""

    first: int
    counts: NDArray[np.int64]

    @classmethod
    def of(cls, values: NDArray[np.int16]) -> Histogram:
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

    def summary(self) -> dict[str, Any]:
        """Count, mean, standard deviation (of the population), min, max and percentiles (nearest rank) in reflectance.

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
            "mean": total / n * REFLECTANCE_SCALE,
            # n * squares - total^2 is exact in integers; the difference of two floats would not be.
            "sd": math.sqrt(n * squares - total * total) / n * REFLECTANCE_SCALE,
            "min": int(values[present[0]]) * REFLECTANCE_SCALE,
            "max": int(values[present[-1]]) * REFLECTANCE_SCALE,
            "percentiles": {str(p): int(value) * REFLECTANCE_SCALE for p, value in zip(PERCENTILES, at, strict=True)},
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
    #: By band; None where the store has no EnMAP or the split is not the training one.
    enmap: list[Histogram] | None
    #: By month and band.
    s2: list[list[Histogram]] | None
    #: (12, 256): pixels by month and clear days; None as for `s2`.
    clear: NDArray[np.int64] | None
    #: `label` and `prior` -> (4, 256): pixels by tier and class; empty in a store without labels.
    pixels: dict[str, NDArray[np.int64]]
    #: Numbers of the parcels that have a pixel with a class, in order.
    parcels: NDArray[np.uint32]

    def __add__(self, other: BlockSums) -> BlockSums:
        return BlockSums(
            self.samples + other.samples,
            added(self.enmap, other.enmap, lambda one, two: one + two),
            added(self.s2, other.s2, lambda one, two: [a + b for a, b in zip(one, two, strict=True)]),
            other.clear if self.clear is None else self.clear if other.clear is None else self.clear + other.clear,
            {name: counts + other.pixels[name] for name, counts in self.pixels.items()},
            np.union1d(self.parcels, other.parcels),
        )

    def encode(self) -> bytes:
        """As bytes: the same sums always have the same."""
        flat = [*(self.enmap or []), *(one for month in self.s2 or [] for one in month)]
        arrays: dict[str, NDArray[Any]] = {
            "samples": np.array(self.samples),
            "bands": np.array([len(self.enmap or []), len(self.s2[0]) if self.s2 else 0]),
            "first": np.array([one.first for one in flat], np.int32),
            "length": np.array([one.counts.size for one in flat], np.int32),
            "counts": np.concatenate([one.counts for one in flat]) if flat else np.zeros(0, np.int64),
            "parcels": self.parcels,
            **{f"pixels_{name}": counts for name, counts in self.pixels.items()},
        }
        if self.clear is not None:
            arrays["clear"] = self.clear
        buffer = io.BytesIO()
        np.savez(buffer, allow_pickle=False, **arrays)
        return bytes(Zstd(level=9).encode(buffer.getvalue()))

    @classmethod
    def decode(cls, data: bytes) -> BlockSums:
        """The sums that `encode` gave. Raises ValueError for anything else."""
        try:
            with np.load(io.BytesIO(Zstd().decode(data)), allow_pickle=False) as found:
                arrays = dict(found)
            ends = accumulate(arrays["length"].tolist())
            counts = np.split(arrays["counts"], list(ends)[:-1])
            flat = [Histogram(first, part) for first, part in zip(arrays["first"].tolist(), counts, strict=False)]
            enmap, s2 = arrays["bands"].tolist()
            months = [flat[enmap + month * s2 : enmap + (month + 1) * s2] for month in range(MONTHS)]
            pixels = {name[7:]: values for name, values in arrays.items() if name.startswith("pixels_")}
            clear, parcels = arrays.get("clear"), arrays["parcels"]
            return cls(int(arrays["samples"]), flat[:enmap] or None, months if s2 else None, clear, pixels, parcels)
        except (RuntimeError, KeyError, OSError) as error:
            raise ValueError(f"not the sums of a block ({error})") from error


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


def added(one: Sequence[T] | None, other: Sequence[T] | None, add: Callable[[T, T], T]) -> list[T] | None:
    """Two lists added one by one; either may be missing."""
    if one is None or other is None:
        return list(one or other or []) or None
    return [add(a, b) for a, b in zip(one, other, strict=True)]


def block_sums(arrays: dict[str, NDArray[Any]], split: str, flag_masks: Mapping[str, int]) -> BlockSums:
    """The sums of a block's arrays (name -> (sample, ...)).

    flag_masks: quality array (`enmap_quality`) -> the bits of it that keep a pixel out; none by default.
    """
    training = split == TRAINING
    enmap, s2, clear = None, None, None
    if training and "enmap" in arrays:
        usable = (arrays["enmap_quality"] & flag_masks.get("enmap_quality", 0)) == 0
        enmap = [measured(arrays["enmap"][:, band], usable) for band in range(arrays["enmap"].shape[1])]
    if training and "s2" in arrays:
        months, bands = arrays["s2"].shape[1:3]
        s2 = [[measured(arrays["s2"][:, month, band]) for band in range(bands)] for month in range(months)]
        clear = np.stack([counted(arrays["s2_clear"][:, month]) for month in range(months)])
    pixels: dict[str, NDArray[np.int64]] = {
        name: np.stack([counted(arrays[name][:, tier]) for tier in range(TIERS)])
        for name in ("label", "prior")
        if name in arrays
    }
    parcels = np.zeros(0, np.uint32)
    if "label" in arrays:
        coarsest = arrays["label"][:, 0]
        numbers = np.unique(arrays["parcel"][(coarsest > 0) & (coarsest < UNKNOWN)])
        parcels = numbers[numbers > 0]
    return BlockSums(len(next(iter(arrays.values()))), enmap, s2, clear, pixels, parcels)


def measured(band: NDArray[np.int16], usable: NDArray[np.bool_] | None = None) -> Histogram:
    """The histogram of a band's pixels that have a value (and are usable)."""
    present = band != REFLECTANCE_FILL
    return Histogram.of(band[present if usable is None else present & usable])


def counted(values: NDArray[np.uint8]) -> NDArray[np.int64]:
    """(256): how often each number occurs."""
    return np.bincount(values.ravel(), minlength=UNKNOWN + 1).astype(np.int64)


def reflectance_statistics(training: BlockSums) -> dict[str, Any]:
    """Statistics of reflectance and of clear days over the training split, for `statistics.json`."""
    result: dict[str, Any] = {"samples": training.samples}
    if training.enmap:
        result["enmap"] = [band.summary() for band in training.enmap]
    if training.s2:
        result["s2_by_month"] = [[band.summary() for band in month] for month in training.s2]
        whole_year = (sum(bands[1:], bands[0]) for bands in zip(*training.s2, strict=True))
        result["s2"] = [band.summary() for band in whole_year]
    return result


def nonzero_counts(counts: NDArray[np.int64]) -> dict[str, int]:
    """Counts by number as text, without those that do not occur."""
    return {str(number): int(counts[number]) for number in np.flatnonzero(counts)}


def parcel_counts(sums: BlockSums, numbers: NDArray[np.uint32], tiers: NDArray[np.uint8]) -> list[dict[str, int]]:
    """Parcels of each class at each tier that have a labelled pixel.

    numbers: (n), in order; tiers: (n, 4), the classes of the parcels with these numbers.
    """
    classes = tiers[np.isin(numbers, sums.parcels)]
    counts = [np.bincount(classes[:, tier], minlength=UNKNOWN + 1) for tier in range(TIERS)]
    return [nonzero_counts(of_tier) for of_tier in counts]
