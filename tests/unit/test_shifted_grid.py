"""Numbers on a grid that lies off a file's own: known fields, holes, and windows that must not matter."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from h2crop_data.sentinel2.reflectance import NO_NUMBER, WRAPPED
from h2crop_data.sentinel2.shifted_grid import nearest_on_shifted_grid, on_shifted_grid
from h2crop_data.shift import NO_SHIFT, Shift, cubic_weights

METRES = st.floats(-35, 35, allow_nan=False)


def field(rows: NDArray[np.float64], columns: NDArray[np.float64]) -> NDArray[np.float64]:
    """A smooth image of fields by places in pixels: what a file holds, and what lies between its pixels."""
    return 2000 + 700 * np.sin(rows / 3.1 + 0.4) * np.cos(columns / 2.7) + 9 * columns - 6 * rows


def image(shape: tuple[int, int] = (60, 70)) -> NDArray[np.uint16]:
    """The field at the pixels of a file."""
    return np.rint(field(*np.mgrid[0.0 : shape[0], 0.0 : shape[1]])).astype(np.uint16)


def slow(numbers: NDArray[Any], shift: Shift, pixel: int, row: int, column: int) -> float:
    """One pixel, by Keys' kernel as it stands in the paper."""

    def kernel(s: float) -> float:
        s = abs(s)
        if s < 1:
            return 1.5 * s**3 - 2.5 * s**2 + 1
        return -0.5 * s**3 + 2.5 * s**2 - 4 * s + 2 if s < 2 else 0.0

    y, x = row - shift.north / pixel, column + shift.east / pixel
    total = 0.0
    for i in range(math.floor(y) - 1, math.floor(y) + 3):
        for j in range(math.floor(x) - 1, math.floor(x) + 3):
            total += float(numbers[i, j]) * kernel(y - i) * kernel(x - j)
    return total


@given(east=METRES, north=METRES)
def test_every_pixel_is_what_keys_kernel_gives(east: float, north: float) -> None:
    shift, numbers = Shift(east, north), image()
    margin = shift.margin(10)
    found = on_shifted_grid(numbers, shift, 10, margin)
    for row, column in ((0, 0), (3, 11), (found.shape[0] - 1, found.shape[1] - 1)):
        assert abs(found[row, column] - slow(numbers, shift, 10, row + margin, column + margin)) <= 0.51


def test_content_that_lies_east_and_north_is_fetched_from_there() -> None:
    """Of 20 m pixels: 7 m east is 0.35 columns to the right, 12 m north 0.6 rows up."""
    numbers, shift = image(), Shift(7, 12)
    margin = shift.margin(20)
    rows, columns = np.mgrid[margin : 60.0 - margin, margin : 70.0 - margin]
    error = on_shifted_grid(numbers, shift, 20, margin) - field(rows - 0.6, columns + 0.35)
    assert np.abs(error).max() < 15
    assert np.abs(numbers[margin:-margin, margin:-margin] - field(rows - 0.6, columns + 0.35)).max() > 100


def test_whole_pixels_are_moved_and_nothing_else() -> None:
    numbers = image()
    numbers[20, 30], numbers[25, 31] = 0, 65_400
    shift = Shift(20, -30)
    found = on_shifted_grid(numbers, shift, 10, 6)
    assert np.array_equal(found, numbers[9:57, 8:66])
    assert np.array_equal(nearest_on_shifted_grid(numbers, shift, 10, 6), numbers[9:57, 8:66])
    assert np.array_equal(on_shifted_grid(numbers, NO_SHIFT, 10, 2), numbers[2:-2, 2:-2])


@pytest.mark.parametrize("hole", [0, WRAPPED, 65_535])
def test_pixels_without_a_number_are_not_mixed_with_others(hole: int) -> None:
    """Where the kernel meets one, the nearest pixel stands as it is; elsewhere nothing changes."""
    whole, shift = image(), Shift(3.3, -4.1)
    margin = shift.margin(10)
    numbers = whole.copy()
    numbers[30, 33] = hole
    with_hole, without = (on_shifted_grid(array, shift, 10, margin) for array in (numbers, whole))
    changed = np.argwhere(with_hole != without) + margin
    # 4.1 m south and 3.3 m east: places 0.41 rows below and 0.33 columns right of their pixels.
    assert changed.min(axis=0).tolist() == [28, 31]
    assert changed.max(axis=0).tolist() == [31, 34]
    nearest = nearest_on_shifted_grid(numbers, shift, 10, margin)
    for row, column in changed - margin:
        assert with_hole[row, column] == nearest[row, column]
    assert (with_hole == hole).sum() == 1


def test_numbers_with_a_sign_stay_below_zero() -> None:
    numbers = image().astype(np.int32) - 2500
    numbers[30, 33] = NO_NUMBER
    found = on_shifted_grid(numbers, Shift(4, 4), 10, 3)
    assert found.dtype == np.int32
    assert (found == NO_NUMBER).sum() == 1
    assert found[found != NO_NUMBER].min() < -900


def test_numbers_without_a_sign_never_become_fill() -> None:
    """The kernel undershoots beside an edge; 0 would mean that there is no number."""
    numbers = np.full((20, 20), 1, np.uint16)
    numbers[:, 10:] = 9000
    assert on_shifted_grid(numbers, Shift(5, 0), 10, 3).min() == 1


@given(east=METRES, north=METRES, top=st.integers(0, 9), left=st.integers(0, 9))
def test_a_pixel_does_not_depend_on_the_window(east: float, north: float, top: int, left: int) -> None:
    numbers, shift = np.random.default_rng(3).integers(0, 9000, (60, 70)).astype(np.uint16), Shift(east, north)
    margin = shift.margin(10)
    whole = on_shifted_grid(numbers, shift, 10, margin)
    part = on_shifted_grid(numbers[top : top + 40, left : left + 50], shift, 10, margin)
    assert np.array_equal(part, whole[top : top + len(part), left : left + part.shape[1]])


@given(fraction=st.floats(0, 1))
def test_weights_add_up_to_one(fraction: float) -> None:
    assert abs(cubic_weights(fraction).sum() - 1) < 1e-12
