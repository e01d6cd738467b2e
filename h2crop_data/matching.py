"""What both sensors' matchers do alike: steps of least squares, cross-correlations near no shift, their peaks."""

from __future__ import annotations

from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray


def solved(matrix: NDArray[np.float64], vector: NDArray[np.float64]) -> NDArray[np.float64]:
    """The step of normal equations, the shortest where they leave it open."""
    return np.asarray(np.linalg.lstsq(matrix, vector, rcond=1e-6)[0], np.float64)


def finer(layer: NDArray[Any]) -> NDArray[Any]:
    """A layer (y, x) in pixels of half the size."""
    return np.repeat(np.repeat(layer, 2, axis=0), 2, axis=1)


def spectrum(layer: NDArray[np.float32], farthest: int) -> NDArray[np.float32]:
    """The spectrum of a layer (y, x) with 0 around it for shifts up to `farthest` pixels, in OpenCV's packed form."""
    rows, columns = (cv2.getOptimalDFTSize(length + farthest) for length in layer.shape)
    padded = np.zeros((rows, columns), np.float32)
    padded[: layer.shape[0], : layer.shape[1]] = layer
    return np.asarray(cv2.dft(padded), np.float32)


def near_no_shift(spectrum: NDArray[np.float32], farthest: int) -> NDArray[np.float32]:
    """The cross-correlation (y, x) of a spectrum for shifts of up to `farthest` pixels; no shift is in its middle."""
    surface = np.asarray(cv2.idft(spectrum, flags=cv2.DFT_SCALE | cv2.DFT_REAL_OUTPUT), np.float32)
    square = slice(0, 2 * farthest + 1)
    return np.roll(surface, (farthest, farthest), (0, 1))[square, square]


def vertex(values: NDArray[np.floating], place: int) -> float:
    """Where from a place the parabola through it and its neighbours is highest; 0 at an end."""
    if not 0 < place < len(values) - 1:
        return 0.0
    before, here, after = (float(value) for value in values[place - 1 : place + 2])
    bend = before - 2 * here + after
    return 0.5 * (before - after) / bend if bend < 0 else 0.0
