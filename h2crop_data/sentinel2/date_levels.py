"""How much brighter or darker a whole date is than the dates around it.

The correction to L2A leaves some aerosol in or takes too much of it out: clear dates differ by 0.014 in blue (Flanders
2018, median step), evenly over tens of kilometres. Without that pixels can be compared between dates more sharply.
"""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

from h2crop_data.constants import REFLECTANCE_FILL
from h2crop_data.sentinel2.neighbours import nearest_clear

#: Largest difference that is taken for aerosol, x 10000 in blue; more is haze, and of the others as a factor.
MOST_BLUE, MOST_FACTOR = 120.0, 1.06
#: At most every how many-th pixel in each direction is compared; of small ground more, up to this number.
STEP, PIXELS_COMPARED = 8, 1600
#: How many clear pixels of a date must tell at least.
FEWEST = 200
#: Dates further apart than this many days tell nothing: the ground changes.
APART = 60
ROUNDS = 6


def date_levels(
    days: NDArray[np.int32],
    clear: NDArray[np.bool_],
    blue: NDArray[np.int16],
    infrared: NDArray[np.int16],
    swir: NDArray[np.int16],
) -> NDArray[np.float32]:
    """The level of each date (n, 3): what is to be subtracted from blue x 10000, and by what the others are divided.

    Arrays (n, y, x) in order of time. The level of a date is the median difference of its clear pixels from the line
    between their clear dates before and after, these without their own levels; 0 and 1 where too few pixels tell.
    """
    step = sampling_step(*clear.shape[1:])
    places = (slice(None), slice(step // 2, None, step), slice(step // 2, None, step))
    sampled = [band[places] for band in (blue, infrared, swir)]
    known = clear[places] & (np.min(sampled, axis=0) != REFLECTANCE_FILL)
    values = np.stack(sampled, axis=1).astype(np.float32)
    values[:, 1:] = np.log(np.maximum(values[:, 1:], 50))
    number = len(days)
    shape = known.shape
    when = np.broadcast_to(days.astype(np.float32)[:, None, None], shape)
    which = np.broadcast_to(np.arange(number, dtype=np.float32)[:, None, None], shape)
    before, after = nearest_clear(np.concatenate([values, when[:, None], which[:, None]], axis=1), known)
    apart = after[:, 3] - before[:, 3]
    usable = known & (apart > 0) & (apart < APART)
    levels = np.zeros((number, 3), np.float32)
    compared = []
    for i in range(number):
        pixels = usable[i]
        if pixels.sum() < FEWEST:
            continue
        share = ((when[i] - before[i, 3]) / apart[i])[pixels]
        neighbours = [of_pixels[i, 4][pixels].astype(np.intp) for of_pixels in (before, after)]
        line = (1 - share) * before[i, :3, pixels].T + share * after[i, :3, pixels].T
        compared.append((i, share, *neighbours, values[i][:, pixels] - line))
    for _ in range(ROUNDS):
        fresh = levels.copy()
        for i, share, earlier, later, difference in compared:
            of_line = (1 - share) * levels[earlier].T + share * levels[later].T
            fresh[i] = np.median(difference + of_line, axis=1)
        # Half of the way: levels of neighbours are corrected at the same time.
        levels = (levels + fresh) / np.float32(2)
    most = np.float32(np.log(MOST_FACTOR))
    levels[:, 0] = np.clip(levels[:, 0], -MOST_BLUE, MOST_BLUE)
    levels[:, 1:] = np.exp(np.clip(levels[:, 1:], -most, most))
    return levels.astype(np.float32)


def sampling_step(rows: int, columns: int) -> int:
    """Every how many-th pixel in each direction is compared on ground of so many rows and columns."""
    return max(1, min(STEP, math.isqrt(rows * columns // PIXELS_COMPARED)))


def levelled(
    levels: NDArray[np.float32], blue: NDArray[np.int16], infrared: NDArray[np.int16], swir: NDArray[np.int16]
) -> NDArray[np.float32]:
    """Blue, near and short-wave infrared without the levels of their dates, (n, 3, y, x) x 10000; NaN without value."""
    values = np.stack([blue, infrared, swir], axis=1).astype(np.float32)
    values[(values == REFLECTANCE_FILL).any(axis=1)[:, None].repeat(3, axis=1)] = np.nan
    values[:, 0] -= levels[:, 0, None, None]
    values[:, 1:] /= levels[:, 1:, None, None]
    return values
