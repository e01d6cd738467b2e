"""The shift of an EnMAP scene against aligned Sentinel-2 dates, by detector, and its uncertainty.

Each detector's boundaries are compared with those of a median of Sentinel-2 dates: first by cross-correlation, then by
least squares on the image resampled by what was found, until nothing is left. VNIR and SWIR are measured separately:
they differ by up to 0.2 pixels, which would become an error if they were pooled.
"""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from h2crop_data.constants import COARSE, REFLECTANCE_FILL
from h2crop_data.enmap.boundaries import REFERENCE_FINER, at_footprint, brought_to_finer, strength, without_gaps
from h2crop_data.enmap.boundary_matching import Peak, Residual, masked_correlation, residual_of
from h2crop_data.enmap.detectors import Detector
from h2crop_data.enmap.sentinel2_response import DETECTOR_BANDS
from h2crop_data.matching import finer
from h2crop_data.shift import Shift

#: Metres of a pixel in which layers are compared.
COMPARED = COARSE // REFERENCE_FINER
#: EnMAP pixels within which shifts are looked for, and beyond which none is believed.
SEARCHED, FARTHEST_BELIEVED = 8, 4.5
#: Times that the image is resampled by what was found, and pixels of 15 m that are no more worth another.
PASSES, LAST_RESIDUAL = 3, 0.02
#: Pixels of 15 m around what is not known that gradients and smoothing reach.
BEYOND_EDGE = 3
#: Pixels of 30 m around cloud, water and gaps that are not compared either.
BEYOND_CLOUD = 2
#: A measurement is rejected with less of the ground clear, with lower values of correlation and of the peak's contrast,
#: and with higher ones of the check's distance and of the match error, in EnMAP pixels.
LEAST_CLEAR_GROUND, LEAST_AGREEMENT, LEAST_CONTRAST = 0.05, 0.2, 6.0
FARTHEST_PEAK, LARGEST_ERROR = 0.2, 0.06
#: Match error in EnMAP pixels that remains however well windows agree, and what no correlation at all would add:
#: shadows and crops that differ between days move boundaries everywhere in the same way.
SMALLEST_ERROR, ERROR_OF_DIFFERENCE = 0.008, 0.05
#: Dates in a median with which the frame is as well known as `frame_sd` says; fewer make it worse.
DATES_OF_FRAME = 3


@dataclass(frozen=True)
class SceneView:
    """One EnMAP scene in pixels of 30 m, rows from north to south."""

    #: Reflectance x 10000 in COMPARED_BANDS, (6, y, x) int16, fill -32768.
    bands: NDArray[np.int16]
    #: Neither cloud nor shadow nor anything else that hides the ground, (y, x).
    clear: NDArray[np.bool_]
    water: NDArray[np.bool_]


@dataclass(frozen=True)
class ReferenceView:
    """The median of clear aligned Sentinel-2 dates on the ground of a scene, in pixels of 15 m."""

    #: Reflectance x 10000 in COMPARED_BANDS, means over each pixel, (6, 2y, 2x) int16, fill -32768.
    bands: NDArray[np.int16]
    #: Number of clear dates in the median, (2y, 2x) uint8.
    dates: NDArray[np.uint8]
    #: Standard deviation along an axis, in metres, of where the median of DATES_OF_FRAME dates or more lies.
    frame_sd: float


@dataclass(frozen=True)
class MatchWindows:
    """What the n windows of a scene say alone."""

    #: Column and row in EnMAP pixels from the upper left corner of the scene, (n, 2).
    centres: NDArray[np.float64]
    #: Metres east and north, (n, 2).
    shifts: NDArray[np.float64]
    #: (n,), -1..1.
    correlation: NDArray[np.float64]
    #: Pixels of 15 m compared, (n,).
    pixels: NDArray[np.int64]


NO_WINDOWS = MatchWindows(np.zeros((0, 2)), np.zeros((0, 2)), np.zeros(0), np.zeros(0, np.int64))


@dataclass(frozen=True)
class DetectorShift:
    """The shift of the content of one detector, in metres; NaN where it was not measured."""

    shift: Shift
    #: Standard deviation (east, north) of the match alone, and with that of the frame.
    match_sd: tuple[float, float]
    total_sd: tuple[float, float]
    #: The same shift by cross-correlation.
    check: Shift
    correlation: float
    #: By how many standard deviations of other shifts the peak of the cross-correlation stands out.
    contrast: float
    #: Share of the scene's ground that was compared.
    clear: float
    #: Clear dates in the median, the mean over compared ground.
    dates: float
    windows: MatchWindows
    #: Why it is not to be trusted; empty where it is.
    reason: str


NOT_KNOWN = Shift(np.nan, np.nan)


def coregister(scene: SceneView, reference: ReferenceView) -> dict[Detector, DetectorShift]:
    """The shift of each detector of a scene.

    Raises ValueError where the reference is not on the ground of the scene.
    """
    rows, columns = scene.clear.shape
    if reference.dates.shape != (REFERENCE_FINER * rows, REFERENCE_FINER * columns):
        raise ValueError(
            f"expected a reference of {scene.clear.shape} pixels, as the scene, got {reference.dates.shape}"
        )
    return {detector: shift_of_detector(scene, reference, detector) for detector in DETECTOR_BANDS}


def shift_of_detector(scene: SceneView, reference: ReferenceView, detector: Detector) -> DetectorShift:
    """The shift of one detector."""
    pair = BoundaryPair(scene, reference, detector)
    if pair.clear < LEAST_CLEAR_GROUND:
        return unmeasured(f"{100 * pair.clear:.1f} % of the ground is clear in both", pair.clear)
    if not pair.used:
        return unmeasured("the image or the reference is constant", pair.clear)
    start = pair.correlated(np.zeros(2), REFERENCE_FINER * SEARCHED)
    if start is None:
        return unmeasured("too little ground in common", pair.clear)
    found = pair.refined(start.moved)
    if found is None:
        return unmeasured("too little ground in common", pair.clear)
    return measured_shift(pair, reference.frame_sd, start, *found)


class BoundaryPair:
    """The boundaries that one detector and the reference show, and where each may be looked at."""

    def __init__(self, scene: SceneView, reference: ReferenceView, detector: Detector) -> None:
        of_detector = DETECTOR_BANDS[detector]
        bands, reference_bands = scene.bands[of_detector], reference.bands[of_detector]
        imaged = (bands != REFLECTANCE_FILL).all(axis=0)
        self.scene_known = finer(inner(imaged & scene.clear & ~scene.water, BEYOND_CLOUD))
        seen = (reference_bands != REFLECTANCE_FILL).all(axis=0) & (reference.dates > 0)
        self.reference_known = inner(seen, BEYOND_EDGE)
        self.images = [without_gaps(band) for band in bands]
        self.dates = reference.dates
        #: Share of the scene's ground that both know.
        ground = REFERENCE_FINER**2 * max(1, int(np.count_nonzero(imaged)))
        self.clear = np.count_nonzero(self.scene_known & self.reference_known) / ground
        shown = [strength(at_footprint(without_gaps(band)), self.reference_known) for band in reference_bands]
        unmoved = [strength(brought_to_finer(image), self.scene_known) for image in self.images]
        #: Bands in which both show anything.
        self.used = [
            i for i, both in enumerate(zip(shown, unmoved, strict=True)) if all(one is not None for one in both)
        ]
        shape = reference.dates.shape
        self.reference = mean_strength([shown[i] for i in self.used], shape)
        self.unmoved = mean_strength([unmoved[i] for i in self.used], shape)

    def scene_at(self, moved: NDArray[np.float64]) -> tuple[NDArray[np.float32], NDArray[np.bool_]]:
        """Boundaries (2y, 2x) of the image looked up `moved` pixels right and down, and where they are known."""
        if not moved.any():
            return self.unmoved, self.scene_known
        known = looked_up(self.scene_known, moved)
        images = [brought_to_finer(self.images[i], (moved / REFERENCE_FINER).tolist()) for i in self.used]
        return mean_strength([strength(image, known) for image in images], known.shape), known

    def correlated(self, moved: NDArray[np.float64], farthest: int) -> Peak | None:
        """The cross-correlation's peak about a shift."""
        boundaries, known = self.scene_at(moved)
        return masked_correlation(boundaries, self.reference, (known, self.reference_known), farthest)

    def compared(self, moved: NDArray[np.float64]) -> tuple[Residual | None, NDArray[np.bool_]]:
        """What is left after a shift, and the pixels that say so; None: too few do."""
        boundaries, known = self.scene_at(moved)
        both = known & self.reference_known
        return residual_of(boundaries, self.reference, both), both

    def refined(self, moved: NDArray[np.float64]) -> tuple[NDArray[np.float64], Residual, NDArray[np.bool_]] | None:
        """The last shift looked up, beginning with one, what was left then, and the pixels that say so."""
        residual, known = self.compared(moved)
        for _ in range(PASSES - 1):
            if residual is None or np.abs(residual.moved).max() < LAST_RESIDUAL:
                break
            moved = moved + np.clip(residual.moved, -1, 1)
            residual, known = self.compared(moved)
        return None if residual is None else (moved, residual, known)


def mean_strength(strengths: list[NDArray[np.float32] | None], shape: tuple[int, ...]) -> NDArray[np.float32]:
    """The mean (y, x) of the layers there are, 0 where there is none."""
    shown = [one for one in strengths if one is not None]
    return np.asarray(np.mean(shown, axis=0) if shown else np.zeros(shape), np.float32)


def inner(mask: NDArray[np.bool_], distance: int) -> NDArray[np.bool_]:
    """Where all of a mask (y, x) within a number of pixels is set; beyond the layer nothing is."""
    size = 2 * distance + 1
    square = np.ones((size, size), np.uint8)
    return cv2.erode(mask.view(np.uint8), square, borderType=cv2.BORDER_CONSTANT, borderValue=0) > 0


def looked_up(mask: NDArray[np.bool_], moved: NDArray[np.float64]) -> NDArray[np.bool_]:
    """result(p) = mask(p + moved) in whole pixels (y, x), False beyond the layer."""
    matrix = np.array([[1, 0, round(moved[0])], [0, 1, round(moved[1])]], np.float32)
    flags = cv2.INTER_NEAREST | cv2.WARP_INVERSE_MAP
    return cv2.warpAffine(mask.view(np.uint8), matrix, mask.shape[::-1], flags=flags) > 0


def measured_shift(
    pair: BoundaryPair,
    frame_sd: float,
    start: Peak,
    looked_up_at: NDArray[np.float64],
    residual: Residual,
    known: NDArray[np.bool_],
) -> DetectorShift:
    """The shift that was found, with what is known of its error."""
    moved = looked_up_at + residual.moved
    check = pair.correlated(moved, REFERENCE_FINER)
    away = np.full(2, np.nan) if check is None else check.moved
    dates = float(pair.dates[known].mean())
    common = np.hypot(SMALLEST_ERROR, ERROR_OF_DIFFERENCE * (1 - residual.correlation)) * COARSE
    variance = np.diag(residual.covariance) * COMPARED**2 + common**2
    frame = frame_sd * np.sqrt(max(1.0, DATES_OF_FRAME / dates))
    match_sd, total_sd = np.sqrt(variance), np.sqrt(variance + frame**2)
    return DetectorShift(
        shift=shift_in_metres(moved),
        match_sd=(float(match_sd[0]), float(match_sd[1])),
        total_sd=(float(total_sd[0]), float(total_sd[1])),
        check=shift_in_metres(moved + away),
        correlation=residual.correlation,
        contrast=start.contrast,
        clear=pair.clear,
        dates=dates,
        windows=MatchWindows(
            residual.centres / REFERENCE_FINER,
            COMPARED * (looked_up_at + residual.by_window) * (1, -1),
            residual.correlations,
            residual.pixels,
        ),
        reason=doubt(moved, residual, start, away, match_sd / COARSE),
    )


def doubt(
    moved: NDArray[np.float64],
    residual: Residual,
    start: Peak,
    away: NDArray[np.float64],
    error: NDArray[np.float64],
) -> str:
    """Why a measurement is not reliable; empty where it is. error: of the match, in EnMAP pixels."""
    far, check = np.hypot(*moved) / REFERENCE_FINER, np.hypot(*away) / REFERENCE_FINER
    if residual.correlation < LEAST_AGREEMENT:
        return f"correlation {residual.correlation:.2f}"
    if start.contrast < LEAST_CONTRAST:
        return f"the peak of the correlation stands out by {start.contrast:.1f} standard deviations"
    if far > FARTHEST_BELIEVED:
        return f"{far:.1f} pixels are too many"
    if not check <= FARTHEST_PEAK:
        return f"cross-correlation disagrees by {check:.2f} pixels"
    if not error.max() <= LARGEST_ERROR:
        return f"the windows leave {error.max():.2f} pixels open"
    return ""


def shift_in_metres(moved: NDArray[np.float64]) -> Shift:
    """A shift from pixels of 15 m right and down."""
    return Shift(float(COMPARED * moved[0]), float(-COMPARED * moved[1]))


def unmeasured(reason: str, clear: float) -> DetectorShift:
    """The result for a detector that could not be measured."""
    unknown = (np.nan, np.nan)
    return DetectorShift(NOT_KNOWN, unknown, unknown, NOT_KNOWN, 0.0, 0.0, clear, 0.0, NO_WINDOWS, reason)
