"""Pictures of ground near a day: pixels of 15 m, the dates they are made of, and how well their place is known."""

from __future__ import annotations

from itertools import product
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from numpy.typing import NDArray

from h2crop_data.sentinel2.reference import (
    ENOUGH_DATES,
    FARTHEST_DAYS,
    MOST_DATES,
    UNMEASURED_SD,
    KnownDate,
    at_15_metres,
    counts_at_15_metres,
    dates_to_take,
    frame_sd,
)

FILL = -32768


def parts_under(layer: NDArray[Any], pixel: int, row: int, column: int) -> list[tuple[float, float]]:
    """Value and area in square metres of every pixel that one of 15 m touches, by the corners of squares."""
    found = []
    for i, j in product(range(layer.shape[0]), range(layer.shape[1])):
        high = min(15 * row + 15, pixel * i + pixel) - max(15 * row, pixel * i)
        wide = min(15 * column + 15, pixel * j + pixel) - max(15 * column, pixel * j)
        if high > 0 and wide > 0:
            found.append((float(layer[i, j]), float(high * wide)))
    return found


@pytest.mark.parametrize(("pixel", "side"), [(10, 6), (20, 6)])
@given(data=st.data())
@settings(max_examples=20)
def test_pixels_of_15_metres_are_means_by_area(pixel: int, side: int, data: st.DataObject) -> None:
    """Against areas of squares that overlap; a pixel without a value makes those that touch it unknown."""
    values = st.one_of(st.just(FILL), st.integers(-500, 20000))
    layer = data.draw(arrays(np.int16, (side, side), elements=values))
    found = at_15_metres(layer, pixel)
    assert found.shape == (side * pixel // 15,) * 2
    for row, column in np.ndindex(found.shape):
        parts = parts_under(layer, pixel, row, column)
        if any(value == FILL for value, _ in parts):
            assert found[row, column] == FILL
        else:
            mean = sum(value * area for value, area in parts) / 225
            assert abs(found[row, column] - mean) <= 0.5 + 1e-3


def test_counts_are_the_least_of_those_touched() -> None:
    """A pixel shows as many dates as each of its parts."""
    counts = np.array([[3, 5, 9], [4, 5, 1], [7, 8, 2]], np.uint8).repeat(2, 0).repeat(2, 1)
    found = counts_at_15_metres(counts, 10)
    for row, column in np.ndindex(found.shape):
        assert found[row, column] == min(value for value, _ in parts_under(counts, 10, row, column))


def test_near_clear_dates_of_known_shift_are_taken() -> None:
    """The nearest come first, a date whose shift nobody knows later, one without clear ground never."""
    dates = [
        KnownDate(days=-40, clear=0.9, sd=0.3),
        KnownDate(days=2, clear=0.9, sd=None),
        KnownDate(days=5, clear=0.02, sd=0.3),
        KnownDate(days=-7, clear=0.9, sd=0.3),
        KnownDate(days=FARTHEST_DAYS + 1, clear=1.0, sd=0.1),
    ]
    assert dates_to_take(dates) == [3, 0, 1]


@given(st.lists(st.tuples(st.floats(-200, 200), st.floats(0, 1)), max_size=40))
def test_no_more_dates_than_needed(drawn: list[tuple[float, float]]) -> None:
    """Enough to see the ground so many times on average, and never more than the most."""
    dates = [KnownDate(days, clear, 0.3) for days, clear in drawn]
    taken = dates_to_take(dates)
    assert len(taken) == len(set(taken)) <= MOST_DATES
    if taken:
        assert sum(dates[place].clear for place in taken[:-1]) < ENOUGH_DATES


@pytest.mark.parametrize("dates", [3, 5, 9])
def test_where_an_unaligned_median_lies(dates: int) -> None:
    """Of dates that lie off by a normal distribution, drawn many times."""
    rng = np.random.default_rng(dates)
    drawn = np.median(rng.normal(0, UNMEASURED_SD, (20000, dates)), axis=1).std()
    stated = frame_sd([KnownDate(0, 1, None)] * dates, 0)
    assert 0.9 * drawn < stated < 1.2 * drawn


def test_where_an_aligned_median_lies() -> None:
    """Dates are moved onto the median of all of a year, which itself lies off by as much as that of so many."""
    rng = np.random.default_rng(1)
    drawn = []
    for _ in range(4000):
        year = rng.normal(0, UNMEASURED_SD, 40)
        drawn.append(np.median(np.median(year) + rng.normal(0, 0.4, 5)))
    stated = frame_sd([KnownDate(0, 1, 0.4)] * 5, 40)
    assert 0.9 * np.std(drawn) < stated < 1.2 * np.std(drawn)
    assert stated < frame_sd([KnownDate(0, 0.6, 0.4)] * 5, 40) < frame_sd([KnownDate(0, 0.6, None)] * 5, 0)
    assert np.isnan(frame_sd([], 0))
