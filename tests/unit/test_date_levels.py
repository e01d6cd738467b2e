"""Levels of dates: what aerosol adds to a whole date is found, what changes on the ground or is haze is not."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from h2crop_data.constants import REFLECTANCE_FILL
from h2crop_data.sentinel2.date_levels import date_levels, levelled, sampling_step

DAYS = np.arange(0, 120, 10, np.int32)


def ground(seed: int = 5) -> Any:
    """Blue, infrared, short-wave x 10000 (3, n, y, x): fields that change evenly, with noise."""
    chance = np.random.default_rng(seed)
    fields = chance.uniform((300, 2000, 1500), (700, 4500, 3500), (24, 24, 3)).repeat(8, 0).repeat(8, 1)
    trend = 1 + 0.0015 * DAYS[:, None, None]
    return np.stack([trend * band + chance.normal(0, 15, (12, 192, 192)) for band in fields.transpose(2, 0, 1)])


def levels_of(values: Any, clear: Any = None) -> Any:
    clear = np.ones(values.shape[1:], bool) if clear is None else clear
    return date_levels(DAYS, clear, *values.round().astype(np.int16))


def test_planted_levels_are_found() -> None:
    values = ground()
    added = np.array([0, 60, -40, 0, 80, 0, -70, 30, 0, 50, -20, 0.0])
    factors = np.array([1, 1.03, 1, 0.97, 1, 1.02, 1, 1, 0.98, 1, 1.01, 1])
    values[0] += added[:, None, None]
    values[1:] *= factors[:, None, None]
    levels = levels_of(values)
    # What is left is a line through the dates, which levels cannot tell from a trend of the ground.
    left = np.polynomial.Polynomial.fit(DAYS[1:-1], (levels[:, 0] - added)[1:-1], 1)
    assert abs((levels[:, 0] - added)[1:-1] - left(DAYS[1:-1])).max() < 12
    assert abs(left.deriv()(0)) * 10 < 8
    assert abs(levels[1:-1, 1] - factors[1:-1]).max() < 0.012
    assert levels[0].tolist() == levels[-1].tolist() == [0, 1, 1]


def test_levels_of_small_ground_are_those_of_large() -> None:
    """640 m: every pixel tells, else too few would."""
    values = ground()
    values[0, 4] += 60
    values[1:, 4] *= 1.03
    small = levels_of(values[:, :, :32, :32])
    assert small[4, 0] > 40
    assert small[4, 1:].min() > 1.02
    assert (abs(small - levels_of(values)) < [10, 0.01, 0.01]).all()


def test_small_ground_is_sampled_more_finely() -> None:
    assert [sampling_step(side, side) for side in (3, 32, 80, 320, 960)] == [1, 1, 2, 8, 8]
    assert sampling_step(10, 10_000) == 7


def test_a_trend_of_the_ground_and_a_harvest_are_no_levels() -> None:
    values = ground()
    # A third of the fields is cut at date 6: infrared falls by a third, blue rises by half.
    values[0, 6:, :64] *= 1.5
    values[1, 6:, :64] *= 0.66
    levels = levels_of(values)
    assert abs(levels[:, 0]).max() < 12
    assert abs(levels[:, 1:] - 1).max() < 0.012


def test_haze_is_more_than_a_level() -> None:
    values = ground()
    values[0, 5] += 500
    assert levels_of(values)[5, 0] == pytest.approx(120)


def test_few_clear_pixels_tell_nothing() -> None:
    values = ground()
    values[0, 5] += 80
    clear = np.ones(values.shape[1:], bool)
    clear[5, 8:] = False
    assert levels_of(values, clear)[5].tolist() == [0, 1, 1]


def test_levels_are_taken_out_and_what_has_no_value_has_none() -> None:
    values = ground().round().astype(np.int16)
    values[1, 3, 0, 0] = REFLECTANCE_FILL
    levels = np.tile(np.array([50, 1.1, 0.9], np.float32), (12, 1))
    result = levelled(levels, *values)
    assert np.isnan(result[3, :, 0, 0]).all()
    assert np.isnan(result).sum() == 3
    assert result[2, 0, 5, 5] == values[0, 2, 5, 5] - 50
    assert result[2, 1, 5, 5] == pytest.approx(values[1, 2, 5, 5] / 1.1)
    assert result[2, 2, 5, 5] == pytest.approx(values[2, 2, 5, 5] / 0.9)
