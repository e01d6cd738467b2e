"""Reading an asset where its date shows the ground that a grid stands for."""

from __future__ import annotations

import threading
from typing import Any

import pystac
from numpy.typing import NDArray
from odc.geo.geobox import GeoBox

from h2crop_data.catalog.granule_reader import GranuleReader
from h2crop_data.constants import FINE
from h2crop_data.sentinel2.shifted_grid import nearest_on_shifted_grid, on_shifted_grid
from h2crop_data.shift import Shift

#: Resampling takes several times the memory of what it gives, and many threads read.
ONE_AT_A_TIME = threading.Lock()


def read_shifted(
    reader: GranuleReader, item: pystac.Item, key: str, grid: GeoBox, shift: Shift, *, is_classes: bool = False
) -> NDArray[Any] | None:
    """The numbers of an asset on a grid of 10 m moved by a shift, in pixels of 10 or 20 m; cubic, classes the nearest.

    None where it has another CRS than the grid. Raises ReadError and SceneError.
    """
    # In whole pixels of 20 m, as files have them.
    margin = 2 * shift.margin(2 * FINE)
    around = grid.pad(margin)
    numbers = reader.read(item, key, around, "nearest")
    if numbers is None:
        return None
    times = around.shape[0] // len(numbers)
    resample = nearest_on_shifted_grid if is_classes else on_shifted_grid
    with ONE_AT_A_TIME:
        return resample(numbers, shift, times * FINE, margin // times)
