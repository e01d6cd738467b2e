"""What lies around a pixel in time: its clear observations before and after."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray


def nearest_clear(
    values: NDArray[np.float32], clear: NDArray[np.bool_]
) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """The values of the nearest clear date before and after each date, NaN where there is none.

    values: (n, layer, y, x) in order of time. clear: (n, y, x); whether the date itself is clear does not matter. Both
    results are like `values`.
    """
    before, after = np.empty_like(values), np.empty_like(values)
    for results, order in ((before, range(len(values))), (after, range(len(values) - 1, -1, -1))):
        latest = np.full(values.shape[1:], np.nan, np.float32)
        for i in order:
            results[i] = latest
            np.copyto(latest, values[i], where=clear[i])
    return before, after
