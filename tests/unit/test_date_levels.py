"""Dates that are brighter or darker than others as a whole are told by how much, on large and on small ground."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray

from h2crop_data.sentinel2.date_levels import date_levels, levelled, sampling_step

#: What is put on each date: blue x 10000, and factors of near and short-wave infrared; the first and last have none,
#: and the others cancel out, as only differences between dates can be known.
PLANTED = [(0, 1.0, 1.0), (0, 1.0, 1.0), (60, 1.03, 0.97), (-60, 0.97, 1.03), (0, 1.0, 1.0), (0, 1.0, 1.0)]


def season(side: int) -> tuple[NDArray[np.int32], list[NDArray[np.int16]]]:
    """Days, and blue, near and short-wave infrared of ground that changes evenly, with the planted levels."""
    rng = np.random.default_rng(3)
    days = np.arange(len(PLANTED), dtype=np.int32) * 5
    ground = rng.uniform([[[300]], [[1500]], [[1000]]], [[[900]], [[4000]], [[3000]]], (3, side, side))
    change = rng.uniform(-4, 4, (3, side, side))
    bands = []
    for band in range(3):
        whole = [ground[band] + day * change[band] for day in days]
        put_on = [
            values + planted[0] if band == 0 else values * planted[band]
            for values, planted in zip(whole, PLANTED, strict=True)
        ]
        bands.append(np.rint(put_on).astype(np.int16))
    return days, bands


@pytest.mark.parametrize("side", [32, 160, 400])
def test_levels_put_on_dates_are_found(side: int) -> None:
    days, bands = season(side)
    levels = date_levels(days, np.ones(bands[0].shape, bool), *bands)
    planted = np.array(PLANTED)
    # The ends have a neighbour on one side only and stay without level.
    off = np.abs((levels[2] - levels[3]) - (planted[2] - planted[3]))
    assert (off <= [5, 0.003, 0.003]).all(), off
    assert (levels[[0, -1]] == [0, 1, 1]).all()
    # What is left is nearer to even change than before.
    flat = levelled(levels, *bands)
    before = np.abs(np.diff(np.median(bands[0], axis=(1, 2)))).max()
    assert np.abs(np.diff(np.median(flat[:, 0], axis=(1, 2)))).max() < 0.5 * before


def test_dates_of_which_few_pixels_are_clear_have_no_level() -> None:
    days, bands = season(32)
    clear = np.ones(bands[0].shape, bool)
    clear[2, 6:] = False
    levels = date_levels(days, clear, *bands)
    np.testing.assert_array_equal(levels[2], [0, 1, 1])
    assert levels[3, 0] < -20


def test_small_ground_is_sampled_more_finely() -> None:
    assert [sampling_step(side, side) for side in (3, 32, 80, 320, 960)] == [1, 1, 2, 8, 8]
