"""Errors of DLR's layers of cloud and cloud shadow: always of the same kind, as users of the archive report them.

Small clouds are missed whole, thin ones and thin edges too, shadow in pieces of some hundred metres.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from h2crop_data.constants import COARSE
from h2crop_data.disks import without_narrow
from h2crop_data.simulate.randomness import key_of, noise_grid, quantile
from h2crop_data.simulate.settings import LayerErrors
from h2crop_data.simulate.sky.weather import Sky, clouds_over

#: How opacities that are missed vary from place to place, metres over which they do, and metres of the pieces in which
#: shadows are missed.
LAYER_JITTER, LAYER_JITTER_SCALE, MISSED_PIECES = 0.1, 240, 500
#: Share of lost sunlight that shadows are found from.
FOUND_BY_LAYER = 0.4
#: Pixels around a piece that its layers depend on: a disk of the widest cloud that may be missed, twice.
ERRORS_REACH = 36


def widened(places: NDArray[np.float64], pixels: int) -> NDArray[np.float64]:
    """Coordinates of rows or columns with so many more on both sides; negative: they fall by COARSE."""
    step = COARSE * np.sign(pixels)
    more = step * np.arange(1, abs(pixels) + 1)
    return np.concatenate([places[0] - more[::-1], places, places[-1] + more])


def missed_layers(
    layers: dict[str, NDArray[np.uint8]],
    shadow: NDArray[np.float32],
    sky: Sky,
    wide: tuple[NDArray[np.float64], NDArray[np.float64]],
    errors: LayerErrors,
) -> dict[str, NDArray[np.uint8]]:
    """The layers of cloud and shadow (y, x) with what DLR's processor misses of them.

    layers: the true ones, by asset key. shadow: share of the direct sunlight that is lost, (y, x). wide: where the
    ground of the columns and rows of the layers lies, with ERRORS_REACH more on every side.
    """
    x, y = wide
    inner = (slice(ERRORS_REACH, -ERRORS_REACH),) * 2
    jitter = noise_grid(key_of(sky.key, "enmap least opacity"), x, y, LAYER_JITTER_SCALE)
    found = clouds_over(sky, x, y)[0] > np.float32(errors.thin_cloud) + np.float32(LAYER_JITTER) * jitter
    cloud = without_narrow(found, errors.small_cloud / 2 / COARSE)[inner] & (layers["quality_cloud"] == 1)
    pieces = noise_grid(key_of(sky.key, "enmap missed shadow"), x, y, MISSED_PIECES)[inner]
    seen = (layers["quality_cloud_shadow"] == 1) & (shadow > FOUND_BY_LAYER)
    shaded = seen & (pieces >= quantile(errors.missed_shadow)) & ~cloud
    return {"quality_cloud": cloud.astype(np.uint8), "quality_cloud_shadow": shaded.astype(np.uint8)}
