"""The noise of Sentinel-2's instrument: the same in every tile that shows a place."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from h2crop_data.simulate.randomness import generator
from h2crop_data.simulate.sentinel2.pieces import Piece

#: Side in metres of the squares that noise is drawn in, a multiple of 60.
NOISE_SQUARE = 480
#: Noise of a band: a floor by pixel size, and a part of the reflectance (ratio of signal to noise about 150 at 0.3).
#: Large pixels are quieter: the band at 1375 nm of real clear ground stays within 0.0005 of its mean.
NOISE_FLOOR, NOISE_PART = {10: 0.0008, 20: 0.0008, 60: 0.0003}, 0.004


def with_noise(
    values: NDArray[np.float32], piece: Piece, size: int, factor: float, seed: int, name: str
) -> NDArray[np.float32]:
    """Reflectance (band, y, x) with the instrument's noise: the same in every tile that shows the piece."""
    if not factor:
        return values
    noise = noise_over(piece, size, len(values), seed, name)
    return np.asarray(values + factor * noise * (NOISE_FLOOR[size] + NOISE_PART * np.abs(values)), np.float32)


def noise_over(piece: Piece, size: int, layers: int, seed: int, name: str) -> NDArray[np.float32]:
    """Standard normal noise over a piece (layer, y, x), drawn square by square of a lattice from the zone's origin."""
    west, south, east, north = piece.bounds
    columns = range(west // NOISE_SQUARE, -(-east // NOISE_SQUARE))
    rows = range(-(-north // NOISE_SQUARE) - 1, south // NOISE_SQUARE - 1, -1)
    side = NOISE_SQUARE // size
    noise = np.empty((layers, len(rows) * side, len(columns) * side), np.float32)
    for i, row in enumerate(rows):
        for j, column in enumerate(columns):
            chance = generator(seed, "noise", name, piece.epsg, column, row, size)
            square = chance.standard_normal((layers, side, side), np.float32)
            noise[:, i * side : (i + 1) * side, j * side : (j + 1) * side] = square
    top, left = ((rows[0] + 1) * NOISE_SQUARE - north) // size, (west - columns[0] * NOISE_SQUARE) // size
    return noise[:, top : top + (north - south) // size, left : left + (east - west) // size]
