"""Pixels on a grid that lies off a file's own by part of a pixel: one cubic resampling, the same for every pixel.

An image of a date whose content lies `east` and `north` of where it belongs is read at these places instead. The
weights of a pixel depend on the shift alone, not on the window that is read.
"""

from __future__ import annotations

from math import floor
from typing import Any

import numpy as np
from numpy.typing import NDArray

from h2crop_data.sentinel2.reflectance import NO_NUMBER, WRAPPED
from h2crop_data.shift import CUBIC_REACH, Shift, cubic_weights


def on_shifted_grid(numbers: NDArray[Any], shift: Shift, pixel: int, margin: int) -> NDArray[Any]:
    """The numbers of a file (y, x) at the places of its own grid moved by a shift, of the inner part of a window.

    numbers: with `margin` pixels (at least `shift.margin(pixel)`) more on each side, as `number_formats.as_numbers`:
    unsigned with 0 where there is none, or int32 with NO_NUMBER; of `pixel` metres. Where the kernel meets a pixel
    without a number, or one from WRAPPED on, the nearest pixel is taken as it is.
    """
    rows, columns = (length - 2 * margin for length in numbers.shape)
    # Rows run south.
    down, right = -shift.north / pixel, shift.east / pixel
    top, left = (margin + floor(places) for places in (down, right))
    # The kernel stands on the second of its four pixels.
    around = numbers[top - 1 : top + rows + CUBIC_REACH, left - 1 : left + columns + CUBIC_REACH]
    signed = numbers.dtype.kind == "i"
    known = around != NO_NUMBER if signed else (around != 0) & (around < WRAPPED)
    of_rows = weighted(around.astype(np.float32), cubic_weights(down - floor(down)), rows, 0)
    found = np.rint(weighted(of_rows, cubic_weights(right - floor(right)), columns, 1))
    if not signed:
        found = found.clip(1, min(WRAPPED - 1, int(np.iinfo(numbers.dtype).max)))
    if not known.all():
        whole = all_around(known, rows, columns)
        found = np.where(whole, found, nearest_on_shifted_grid(numbers, shift, pixel, margin))
    shifted: NDArray[Any] = found.astype(numbers.dtype)
    return shifted


def weighted(values: NDArray[np.float32], weights: NDArray[np.float64], length: int, axis: int) -> NDArray[np.float32]:
    """Sums (y, x) of neighbours along an axis, `length` of them, each times its weight."""
    first, *others = neighbours_along(values, len(weights), length, axis)
    total = first * np.float32(weights[0])
    for pixels, weight in zip(others, weights[1:], strict=True):
        total += pixels * np.float32(weight)
    return total


def all_around(known: NDArray[np.bool_], rows: int, columns: int) -> NDArray[np.bool_]:
    """Whether all pixels under the kernel of each of some rows and columns are known."""
    of_rows = np.logical_and.reduce(neighbours_along(known, 2 * CUBIC_REACH, rows, 0))
    found: NDArray[np.bool_] = np.logical_and.reduce(neighbours_along(of_rows, 2 * CUBIC_REACH, columns, 1))
    return found


def neighbours_along(values: NDArray[Any], count: int, length: int, axis: int) -> list[NDArray[Any]]:
    """The first, second, ... neighbour of `length` places along an axis of (y, x)."""
    return [
        values[first : first + length] if axis == 0 else values[:, first : first + length] for first in range(count)
    ]


def nearest_on_shifted_grid(numbers: NDArray[Any], shift: Shift, pixel: int, margin: int) -> NDArray[Any]:
    """The same with the nearest pixels, for classes."""
    rows, columns = (length - 2 * margin for length in numbers.shape)
    top, left = margin + floor(0.5 - shift.north / pixel), margin + floor(0.5 + shift.east / pixel)
    return numbers[top : top + rows, left : left + columns]
