"""How far an image lies off, and the cubic kernel by which that is made good."""

from __future__ import annotations

from dataclasses import dataclass
from math import ceil

import numpy as np
from numpy.typing import NDArray

#: Pixels beside a place that the cubic kernel looks at.
CUBIC_REACH = 2


@dataclass(frozen=True, order=True)
class Shift:
    """Where content lies from where it belongs, in metres."""

    east: float = 0.0
    north: float = 0.0

    def __bool__(self) -> bool:
        return bool(self.east or self.north)

    def margin(self, pixel: int) -> int:
        """Whole pixels of `pixel` metres around a window that resampling needs."""
        return ceil(max(abs(self.east), abs(self.north)) / pixel) + CUBIC_REACH


NO_SHIFT = Shift()


def cubic_weights(fraction: float) -> NDArray[np.float64]:
    """Weights (4,) of pixels at -1, 0, 1, 2 for a place at `fraction` 0..1: cubic convolution, a = -0.5.

    Keys, R. (1981): Cubic convolution interpolation for digital image processing, IEEE Transactions on Acoustics,
    Speech, and Signal Processing 29(6), equation 15.
    """
    near, far = (np.abs(np.array(places) - fraction) for places in ((0, 1), (-1, 2)))
    inner = 1.5 * near**3 - 2.5 * near**2 + 1
    outer = -0.5 * far**3 + 2.5 * far**2 - 4 * far + 2
    return np.array([outer[0], inner[0], inner[1], outer[1]])
