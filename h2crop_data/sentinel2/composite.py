"""Monthly composites of clear observations."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

from h2crop_data.constants import REFLECTANCE_FILL


@dataclass(frozen=True)
class Observation:
    """One day's look at a piece of ground, mosaicked."""

    #: Day of the year, 1..366.
    day: int
    #: Reflectance x 10000, (band, y, x) int16, fill -32768.
    values: NDArray[np.int16]
    #: (y, x); a clear pixel has a value in every band.
    clear: NDArray[np.bool_]


def median_composite(
    observations: list[Observation],
) -> tuple[NDArray[np.int16], NDArray[np.uint8], NDArray[np.uint16]]:
    """The median of the clear observations of each pixel, band by band.

    observations: n >= 1 days on the same grid. Gives values (band, y, x) int16, the mean of the two middle ones for an
    even number, rounded half to even, fill -32768 where no day is clear; the number of clear days (y, x) uint8, at most
    255; and their median day of year (y, x) uint16, rounded down, 0 where there is none.
    """
    clear = np.stack([observation.clear for observation in observations])
    count = clear.sum(axis=0)
    days = np.array([observation.day for observation in observations], np.uint16)[:, None, None, None]
    day = middle(np.broadcast_to(days, (len(clear), 1, *count.shape)), clear, count)
    median_day = ((day[0].astype(np.uint32) + day[1]) // 2)[0]
    median_day[count == 0] = 0
    return median_values(observations), np.minimum(count, 255).astype(np.uint8), median_day.astype(np.uint16)


def median_values(observations: list[Observation]) -> NDArray[np.int16]:
    """The values of `median_composite` alone, (band, y, x)."""
    clear = np.stack([observation.clear for observation in observations])
    count = clear.sum(axis=0)
    low, high = middle(np.stack([observation.values for observation in observations]), clear, count)
    values: NDArray[np.int16] = np.rint((low.astype(np.int32) + high) / 2).astype(np.int16)
    values[:, count == 0] = REFLECTANCE_FILL
    return values


def middle(
    stack: NDArray[Any], clear: NDArray[np.bool_], count: NDArray[np.integer]
) -> tuple[NDArray[Any], NDArray[Any]]:
    """The two middle values of the clear layers of a stack (n, band, y, x), the same one twice for an odd count.

    Where count is 0 the result means nothing.
    """
    # What is not clear sorts behind everything that is.
    masked = np.where(clear[:, None], stack, np.iinfo(stack.dtype).max)
    ordered = sort_layers(masked)
    low, high = (count[None, None] - 1) // 2, count[None, None] // 2
    return (
        np.take_along_axis(ordered, np.broadcast_to(low, (1, *stack.shape[1:])), axis=0)[0],
        np.take_along_axis(ordered, np.broadcast_to(high, (1, *stack.shape[1:])), axis=0)[0],
    )


def sort_layers(stack: NDArray[Any]) -> NDArray[Any]:
    """The stack sorted along its first axis, in place: a sorting network of whole-layer minima and maxima.

    Some ten times faster than numpy's sort along a short first axis.
    """
    spare = np.empty_like(stack[0])
    for i, j in sorting_network(len(stack)):
        np.minimum(stack[i], stack[j], out=spare)
        np.maximum(stack[i], stack[j], out=stack[j])
        stack[i] = spare
    return stack


@lru_cache(maxsize=128)
def sorting_network(n: int) -> tuple[tuple[int, int], ...]:
    """Comparators (i < j) that sort n values: Batcher's odd-even merge sort (1968) for any n, after Knuth 5.2.2 M."""
    comparators = []
    top = 1 << max(0, (n - 1).bit_length() - 1)
    p = top
    while p > 0:
        q, r, d = top, 0, p
        while d > 0:
            comparators += [(i, i + d) for i in range(n - d) if i & p == r]
            d, q, r = q - p, q >> 1, p
        p >>= 1
    return tuple(comparators)
