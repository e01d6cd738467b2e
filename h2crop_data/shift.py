"""The shift of an image, and the cubic kernel that corrects it."""

from __future__ import annotations

from dataclasses import dataclass
from math import ceil
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from odc.geo.geobox import GeoBox

#: Pixels beside a place that the cubic kernel looks at.
CUBIC_REACH = 2
#: What becomes of a shift that can be trusted: it is made good, or it is small enough to be left.
APPLIED, NOT_NEEDED = "applied", "not_needed"


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


def where_it_lies(grid: GeoBox, shift: Shift) -> GeoBox:
    """The pixel grid on which an image shows the ground of a grid. shift: along the axes of the grid's zone."""
    from affine import Affine
    from odc.geo.geobox import GeoBox

    return GeoBox(grid.shape, Affine.translation(shift.east, shift.north) @ grid.affine, grid.crs)


def where_it_belongs(grid: GeoBox, shift: Shift) -> GeoBox:
    """The pixel grid on which an image's content lies where it belongs. shift: along the axes of its own zone."""
    return where_it_lies(grid, Shift(-shift.east, -shift.north))


def what_becomes_of(reason: str, length: float, limit: float) -> str:
    """What to do about an image whose shift is so long: APPLIED beyond the limit, NOT_NEEDED below.

    reason: why the shift is not to be trusted, which is the decision then; empty where it is.
    """
    return reason or (APPLIED if length > limit else NOT_NEEDED)


def cubic_weights(fraction: float) -> NDArray[np.float64]:
    """Weights (4,) of pixels at -1, 0, 1, 2 for a place at `fraction` 0..1: cubic convolution, a = -0.5.

    Keys, R. (1981): Cubic convolution interpolation for digital image processing, IEEE Transactions on Acoustics,
    Speech, and Signal Processing 29(6), equation 15.
    """
    near, far = (np.abs(np.array(places) - fraction) for places in ((0, 1), (-1, 2)))
    inner = 1.5 * near**3 - 2.5 * near**2 + 1
    outer = -0.5 * far**3 + 2.5 * far**2 - 4 * far + 2
    return np.array([outer[0], inner[0], inner[1], outer[1]])
