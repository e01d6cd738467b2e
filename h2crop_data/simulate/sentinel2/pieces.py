"""The pieces that what a pass shows of a zone is drawn in, one after the other."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from h2crop_data.simulate.ground import Bounds

#: Largest side in metres of what is drawn at a time.
LARGEST_PIECE = 2160


@dataclass(frozen=True)
class Piece:
    """A part of what is drawn, drawn at a time."""

    epsg: int
    bounds: Bounds

    def centres(self, size: int) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Easting of columns and northing of rows of pixels of a size."""
        west, south, east, north = self.bounds
        return np.arange(west + size / 2, east, size), np.arange(north - size / 2, south, -size)


def pieces(epsg: int, bounds: Bounds) -> Iterator[Piece]:
    """The pieces of some bounds (multiples of 60 m), about equal, row by row from the north."""
    west, south, east, north = bounds
    for low, high in reversed(list(cuts(south, north))):
        for left, right in cuts(west, east):
            yield Piece(epsg, (left, low, right, high))


def cuts(low: int, high: int) -> Iterator[tuple[int, int]]:
    """A length cut at multiples of 60 m into parts of at most LARGEST_PIECE."""
    number = math.ceil((high - low) / LARGEST_PIECE)
    edges = [low + 60 * round((high - low) / 60 * i / number) for i in range(number + 1)]
    yield from itertools.pairwise(edges)
