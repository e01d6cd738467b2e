"""Chance that depends on names and places only: the same region whatever is drawn first, in whatever windows.

A region is drawn scene by scene and window by window, by several processes. So nothing is drawn from one running
generator: every value comes from the seed and the names of what it is for, and every field over the ground is a
function of coordinates.
"""

from __future__ import annotations

import hashlib
from statistics import NormalDist
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

#: Odd constants that spread neighbouring lattice points over 64 bits (SplitMix64; Steele, Lea, Flood, 2014).
MIX = (np.uint64(0x9E3779B97F4A7C15), np.uint64(0xBF58476D1CE4E5B9), np.uint64(0x94D049BB133111EB))
#: A uniform value has the variance 1/12; the mean over all places of a spline's sum of squared weights is 151/315.
NORMALISE = 12**0.5 * 315 / 151


def key_of(seed: int, *names: object) -> int:
    """A 64 bit number for what is to be drawn, from the seed and its names."""
    text = "/".join(map(str, (seed, *names)))
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "big")


def generator(seed: int, *names: object) -> np.random.Generator:
    """A generator of its own for what is to be drawn."""
    return np.random.Generator(np.random.PCG64(key_of(seed, *names)))


def lattice_values(key: int, column: ArrayLike, row: ArrayLike) -> NDArray[np.float64]:
    """A value in [0, 1) for each lattice point (column, row), any whole numbers."""
    bits = np.asarray(column, np.int64).view(np.uint64) * MIX[0] ^ np.uint64(key)
    bits = mixed(bits) ^ np.asarray(row, np.int64).view(np.uint64) * MIX[1]
    values: NDArray[np.float64] = (mixed(bits) >> np.uint64(11)).astype(np.float64) * 2.0**-53
    return values


def mixed(bits: NDArray[np.uint64]) -> NDArray[np.uint64]:
    """SplitMix64's finaliser."""
    bits = (bits ^ (bits >> np.uint64(30))) * MIX[1]
    bits = (bits ^ (bits >> np.uint64(27))) * MIX[2]
    return bits ^ (bits >> np.uint64(31))


def noise_grid(key: int, x: NDArray[Any], y: NDArray[Any], scale: float) -> NDArray[np.float32]:
    """Smooth noise over a grid, (len(y), len(x)) float32: cubic B-splines over random values at lattice points.

    x, y: coordinates of columns and rows in metres. scale: spacing of the lattice in metres. About normal, mean 0,
    standard deviation 1, and the same value at a place whatever the grid.
    """
    across, column = spline_weights(x, scale)
    down, row = spline_weights(y, scale)
    values = lattice_values(key, *np.meshgrid(column, row)) - 0.5
    smooth = down @ values @ across.T
    return np.asarray(smooth * NORMALISE, np.float32)


def noise_at(key: int, x: ArrayLike, y: ArrayLike, scale: float) -> NDArray[np.float32]:
    """The same noise at single places (n,)."""
    u, v = np.asarray(x, np.float64).ravel() / scale, np.asarray(y, np.float64).ravel() / scale
    column, row = np.floor(u).astype(np.int64), np.floor(v).astype(np.int64)
    across, down = spline_pieces(u - column), spline_pieces(v - row)
    total = np.zeros(len(u))
    for j in range(4):
        for i in range(4):
            total += down[j] * across[i] * (lattice_values(key, column + i - 1, row + j - 1) - 0.5)
    return np.asarray(total * NORMALISE, np.float32)


def spline_weights(places: NDArray[Any], scale: float) -> tuple[NDArray[np.float64], NDArray[np.int64]]:
    """Weights (n, lattice points) of the cubic B-spline at n places, and the lattice points from first to last."""
    position = np.asarray(places, np.float64) / scale
    cell = np.floor(position).astype(np.int64)
    points = np.arange(cell.min() - 1, cell.max() + 3)
    weights = np.zeros((len(position), len(points)))
    for i, piece in enumerate(spline_pieces(position - cell)):
        weights[np.arange(len(position)), cell - 1 + i - points[0]] = piece
    return weights, points


def spline_pieces(t: NDArray[np.float64]) -> tuple[NDArray[np.float64], ...]:
    """The four pieces of the uniform cubic B-spline at t in [0, 1)."""
    return ((1 - t) ** 3 / 6, (3 * t**3 - 6 * t**2 + 4) / 6, (-3 * t**3 + 3 * t**2 + 3 * t + 1) / 6, t**3 / 6)


def quantile(share: float) -> float:
    """What a share of standard normal values lies below."""
    return NormalDist().inv_cdf(min(max(share, 1e-9), 1 - 1e-9))
