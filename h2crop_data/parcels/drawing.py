"""Parcels drawn on a grid finer than the pixels of images, for matching the two to a fraction of a pixel."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TypeVar

import numpy as np
import shapely
from affine import Affine
from numpy.typing import NDArray
from odc.geo.geobox import GeoBox

from h2crop_data.constants import FINE
from h2crop_data.parcels.rasterize import rasterize_ids

#: Metres across a cell of the grid on which parcels are drawn, and cells along a pixel of the images.
DRAWN_CELL = 2
CELLS_A_PIXEL = FINE // DRAWN_CELL
#: Cells of the fine grid drawn around the ground: filters of 150 m and a search of 30 m look beyond it.
DRAWN_MARGIN = 15 * CELLS_A_PIXEL

Scalar = TypeVar("Scalar", bound=np.generic)


@dataclass(frozen=True)
class DrawnGround:
    """Ground on which parcels are drawn: whole pixels of 10 m of a UTM zone, and a margin on all sides."""

    west: float
    north: float
    #: Pixels from north to south and from west to east, without the margin.
    rows: int
    columns: int

    @property
    def geobox(self) -> GeoBox:
        """The cells of 2 m with the margin."""
        west, north = self.west - DRAWN_MARGIN * DRAWN_CELL, self.north + DRAWN_MARGIN * DRAWN_CELL
        shape = (self.rows * CELLS_A_PIXEL + 2 * DRAWN_MARGIN, self.columns * CELLS_A_PIXEL + 2 * DRAWN_MARGIN)
        return GeoBox(shape, Affine(DRAWN_CELL, 0, west, 0, -DRAWN_CELL, north), None)

    def draw(self, geometry: NDArray[np.object_]) -> tuple[NDArray[np.int32], NDArray[np.int64]]:
        """The map of parcel numbers (y, x) on cells of 2 m with the margin, 0 where there is none, and whose they are.

        geometry: polygons in metres of the zone. Number k + 1 is the parcel `geometry[whose[k]]`.
        """
        bounds = self.geobox.boundingbox
        whose = np.flatnonzero(shapely.intersects(geometry, shapely.box(*bounds)))
        return rasterize_ids(geometry[whose], whose, self.geobox), whose

    def at_pixels(self, drawn: NDArray[Scalar], east: int = 0, north: int = 0) -> NDArray[Scalar]:
        """What stands at the centres of the pixels (rows, columns) of a drawing that is moved by cells of 2 m."""
        row, column = DRAWN_MARGIN + CELLS_A_PIXEL // 2 + north, DRAWN_MARGIN + CELLS_A_PIXEL // 2 - east
        rows = slice(row, row + self.rows * CELLS_A_PIXEL, CELLS_A_PIXEL)
        return drawn[rows, column : column + self.columns * CELLS_A_PIXEL : CELLS_A_PIXEL]
