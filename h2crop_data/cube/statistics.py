"""Exact statistics: integer sums of blocks, added up in any order.

Sums are Python integers, so that the result does not depend on the order of blocks nor on rounding.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numpy.typing import NDArray

from h2crop_data.constants import REFLECTANCE_FILL, REFLECTANCE_SCALE, UNKNOWN

#: count, sum, sum of squares, min, max of one band
Sums = dict[str, Any]


def band_sums(values: NDArray[np.int16], masked: NDArray[np.bool_] | None = None) -> list[Sums]:
    """Sums of each band over all its measured pixels.

    values: (sample, band, y, x) int16; masked: (sample, y, x) pixels to leave out.
    """
    measured = values != REFLECTANCE_FILL
    if masked is not None:
        measured &= ~masked[:, None]
    return [sums_of(values[:, band][measured[:, band]]) for band in range(values.shape[1])]


def sums_of(values: NDArray[np.int16]) -> Sums:
    """Sums of some values; `min` and `max` are None where there are none."""
    wide = values.astype(np.int64)
    return {
        "count": len(wide),
        "sum": int(wide.sum()),
        "squares": int((wide * wide).sum()),
        "min": int(wide.min()) if len(wide) else None,
        "max": int(wide.max()) if len(wide) else None,
    }


def add_sums(one: Sums, other: Sums) -> Sums:
    """The sums of two sets of pixels together."""
    lows = [value for value in (one["min"], other["min"]) if value is not None]
    highs = [value for value in (one["max"], other["max"]) if value is not None]
    added: Sums = {key: one[key] + other[key] for key in ("count", "sum", "squares")}
    return {**added, "min": min(lows, default=None), "max": max(highs, default=None)}


def summary(sums: Sums) -> dict[str, Any]:
    """Count, mean, standard deviation (of the population), min and max in reflectance; null where there is no pixel."""
    n, total, squares = sums["count"], sums["sum"], sums["squares"]
    if not n:
        return {"count": 0, "mean": None, "sd": None, "min": None, "max": None}
    # n * squares - total^2 is exact in integers; the difference of two floats would not be.
    sd = math.sqrt(n * squares - total * total) / n
    return {
        "count": n,
        "mean": total / n * REFLECTANCE_SCALE,
        "sd": sd * REFLECTANCE_SCALE,
        "min": sums["min"] * REFLECTANCE_SCALE,
        "max": sums["max"] * REFLECTANCE_SCALE,
    }


def class_counts(labels: NDArray[np.uint8]) -> list[dict[str, int]]:
    """Pixels of each class at each tier of (sample, tier, y, x) labels; classes that do not occur are left out."""
    counts = []
    for tier in range(labels.shape[1]):
        pixels = np.bincount(labels[:, tier].ravel(), minlength=UNKNOWN + 1)
        counts.append({str(number): int(pixels[number]) for number in np.flatnonzero(pixels)})
    return counts


def add_counts(one: dict[str, int], other: dict[str, int]) -> dict[str, int]:
    """Two class counts together, in order of class."""
    return {key: one.get(key, 0) + other.get(key, 0) for key in sorted({*one, *other}, key=int)}


def add_partial(one: dict[str, Any], other: dict[str, Any]) -> dict[str, Any]:
    """The partial statistics of two blocks (or sums of blocks) of one split together."""
    added: dict[str, Any] = {"samples": one["samples"] + other["samples"]}
    if "enmap" in one:
        added["enmap"] = [add_sums(a, b) for a, b in zip(one["enmap"], other["enmap"], strict=True)]
    if "s2" in one:
        added["s2"] = [
            [add_sums(a, b) for a, b in zip(left, right, strict=True)]
            for left, right in zip(one["s2"], other["s2"], strict=True)
        ]
    for name in ("label", "prior"):
        if name in one:
            added[name] = [add_counts(a, b) for a, b in zip(one[name], other[name], strict=True)]
    return added


def partial_statistics(arrays: dict[str, NDArray[Any]], flag_mask: int) -> dict[str, Any]:
    """The partial statistics of a block's arrays: `enmap` by band, `s2` by month and band, class counts by tier.

    flag_mask: bits of `enmap_quality` that keep a pixel out.
    """
    partial: dict[str, Any] = {"samples": len(next(iter(arrays.values())))}
    if "enmap" in arrays:
        partial["enmap"] = band_sums(arrays["enmap"], (arrays["enmap_quality"] & flag_mask) != 0)
    if "s2" in arrays:
        partial["s2"] = [band_sums(arrays["s2"][:, month]) for month in range(arrays["s2"].shape[1])]
    for name in ("label", "prior"):
        if name in arrays:
            partial[name] = class_counts(arrays[name])
    return partial
