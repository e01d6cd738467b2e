"""What making a shift good does to the correlation of an EnMAP scene with Sentinel-2 at 30 m.

Crops change contrast between days: a correlation with dates of other days falls where fields come to lie on themselves
that have turned from bright to dark. Sentinel-2 of the scene's own day, which no build has, sees the same crops.
"""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np
from coregistration_scenes import Drawn
from numpy.typing import NDArray

from h2crop_data.constants import COARSE, REFLECTANCE_FILL
from h2crop_data.enmap.boundaries import cubic_kernel
from h2crop_data.enmap.coregistration import ReferenceView, SceneView
from h2crop_data.enmap.detectors import Detector
from h2crop_data.enmap.sentinel2_response import DETECTOR_BANDS
from h2crop_data.shift import Shift

#: Pixels of a shift from which correction must help.
FAR = 0.2


@dataclass(frozen=True)
class Gain:
    """What a correction does to the correlation with Sentinel-2 at 30 m."""

    #: Length of the shift in pixels.
    length: float
    gain: float
    #: With Sentinel-2 of the scene's own day; the same on the lattice of a store.
    day: float
    stored: float
    #: How far it stays below what the planted shift gives.
    short: float
    #: Days to the farthest date.
    gap: int


def gain_of(
    detector: Detector,
    found: Shift,
    error: NDArray[np.float64],
    scene: SceneView,
    reference: ReferenceView,
    drawn: Drawn,
) -> Gain:
    """What correcting one detector by a shift adds to its mean correlation with Sentinel-2 at 30 m.

    error: of the shift against the reference's frame, in pixels east and north.
    """
    shift = np.array([found.east, found.north]) / COARSE
    before, after, best = (
        correlation(detector, scene, reference.bands, by) for by in (np.zeros(2), shift, shift - error)
    )
    # Half a pixel right and down: a store's pixels lie between those of a scene.
    (day, of_day), (stored, of_stored) = (
        [correlation(detector, scene, drawn.same_day, by, start) for by in (np.zeros(2), shift)] for start in (0, 1)
    )
    return Gain(float(np.hypot(*shift)), after - before, of_day - day, of_stored - stored, best - after, drawn.gap)


def correlation(
    detector: Detector, scene: SceneView, sentinel2: NDArray[np.int16], shift: NDArray[np.float64], start: int = 0
) -> float:
    """The mean correlation of a detector's bands, looked up so many pixels east and north, with Sentinel-2 at 30 m.

    sentinel2: (6, 2y, 2x) in pixels of 15 m; of these the first row and column that counts is `start`.
    """
    part = DETECTOR_BANDS[detector]
    rows, columns = scene.clear.shape
    begun = np.roll(sentinel2[part], (-start, -start), (1, 2)).reshape(-1, rows, 2, columns, 2)
    seen = (np.roll(sentinel2, (-start, -start), (1, 2)) != REFLECTANCE_FILL).all(axis=0)
    known = scene.clear & ~scene.water & seen.reshape(rows, 2, columns, 2).all(axis=(1, 3))
    used = cv2.erode(known.view(np.uint8), np.ones((11, 11)), borderValue=0) > 0
    across, down = cubic_kernel(shift[0] + start / 2), cubic_kernel(start / 2 - shift[1])
    moved = [cv2.sepFilter2D(band.astype(np.float32), cv2.CV_32F, across, down) for band in scene.bands[part]]
    pairs = zip(moved, begun.astype(np.float32).mean(axis=(2, 4)), strict=True)
    return float(np.mean([np.corrcoef(ours[used], theirs[used])[0, 1] for ours, theirs in pairs]))


def gains_of(gains: list[tuple[float, float]], name: str) -> dict[str, float]:
    """Figures of what corrections of a length in pixels add to a correlation."""
    return {
        f"{name}_gain_min": min(gain for _, gain in gains),
        f"{name}_gain_min_far": min(gain for length, gain in gains if length > FAR),
        f"{name}_gain_median": float(np.median([gain for _, gain in gains])),
        f"{name}_lost": sum(gain < 0 for _, gain in gains),
    }
