"""Draws for many things at once, each from its own key: what is drawn for one does not depend on the others."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from h2crop_data.simulate.randomness import MIX, key_of, lattice_values, mixed, noise_at


@dataclass(frozen=True)
class Chance:
    """All draws of one seed; every draw has a name."""

    seed: int

    def uniform(self, name: str, keys: NDArray[np.uint64], turn: ArrayLike = 0) -> NDArray[np.float64]:
        """A value in [0, 1) for each key (n,); turn: numbers successive draws of one key."""
        return lattice_values(key_of(self.seed, name), keys.view(np.int64), turn)

    def normal(self, name: str, keys: NDArray[np.uint64]) -> NDArray[np.float64]:
        """A standard normal value for each key (n,) (Box & Muller, 1958)."""
        length = np.sqrt(-2 * np.log1p(-self.uniform(name, keys, 0)))
        values: NDArray[np.float64] = length * np.cos(2 * np.pi * self.uniform(name, keys, 1))
        return values

    def at_place(self, name: str, column: ArrayLike, row: ArrayLike) -> NDArray[np.float64]:
        """A value in [0, 1) for each point of a lattice."""
        return lattice_values(key_of(self.seed, name), column, row)

    def noise(self, name: str, x: ArrayLike, y: ArrayLike, scale: float) -> NDArray[np.float32]:
        """Smooth noise at places (n,) metres, about standard normal; scale: spacing of its lattice in metres."""
        return noise_at(key_of(self.seed, name), x, y, scale)

    def key_of_place(self, name: str, column: ArrayLike, row: ArrayLike) -> NDArray[np.uint64]:
        """A key for each point of a lattice."""
        key = np.uint64(key_of(self.seed, name))
        bits = mixed(np.atleast_1d(np.asarray(column, np.int64)).view(np.uint64) * MIX[0] ^ key)
        return mixed(bits ^ np.atleast_1d(np.asarray(row, np.int64)).view(np.uint64) * MIX[1])

    @staticmethod
    def children(keys: NDArray[np.uint64], which: int | NDArray[Any]) -> NDArray[np.uint64]:
        """Keys (n,) of what comes from things with keys (n,); which: tells its siblings apart."""
        return mixed(keys * MIX[1] ^ (np.atleast_1d(np.asarray(which, np.uint64)) * MIX[0]))
