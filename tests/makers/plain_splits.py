"""The split of ground, written plainly from its definition: no code of the package is asked."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Mapping

import pyproj


def plain_square(x: float, y: float, crs: str, size: int) -> tuple[int, int]:
    """The square (column, row) of a point: squares are counted from the origin of EPSG:3035."""
    east, north = pyproj.Transformer.from_crs(crs, "EPSG:3035", always_xy=True).transform(x, y)
    return math.floor(east / size), math.floor(north / size)


def plain_split(square: tuple[int, int], size: int, shares: Mapping[str, float], seed: int) -> str:
    """The split of a square: where the hash of its name falls in the shares, laid end to end in alphabetical order."""
    name = f"EPSG:3035/{size}/{square[0]}/{square[1]}/{seed}"
    place = int(hashlib.sha256(name.encode()).hexdigest()[:16], 16) / 16**16
    names = sorted(shares)
    ends = [sum(shares[name] for name in names[: i + 1]) for i in range(len(names))]
    return next(name for name, end in zip(names, ends, strict=True) if place < end)
