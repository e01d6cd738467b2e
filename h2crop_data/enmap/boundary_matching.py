"""How far boundaries in one layer lie from the same in another, over the pixels that both know.

The enhanced correlation coefficient (Evangelidis and Psarakis 2008, IEEE TPAMI 30(10)) is maximised in its inverse form
over all windows together, each with a gain and a mean of its own; what windows say of one another gives the error.
Masked normalised cross-correlation (Padfield 2012, IEEE TIP 21(5), "Masked object registration in the Fourier domain")
says where to begin, and is the check.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise

import cv2
import numpy as np
from numpy.typing import NDArray

from h2crop_data.enmap.boundaries import smoothed_boundaries
from h2crop_data.matching import near_no_shift, solved, spectrum, vertex

#: Windows along each axis at most, and the fewest pixels along one.
MOST_ALONG, LEAST_SIDE = 8, 48
#: Pixels that both layers must know in a window for it to count.
LEAST_KNOWN = 300
#: Share of the pixels that are in both layers, at least, for a shift to be looked at.
LEAST_OVERLAP = 0.3


@dataclass(frozen=True)
class Residual:
    """How much farther the content of a layer lies from the reference than it was looked up; pixels right and down."""

    moved: NDArray[np.float64]
    #: Its covariance (2, 2).
    covariance: NDArray[np.float64]
    correlation: float
    #: By window that counts: centres (column, row) in pixels, what each alone says, correlation, pixels; (n, ...).
    centres: NDArray[np.float64]
    by_window: NDArray[np.float64]
    correlations: NDArray[np.float64]
    pixels: NDArray[np.int64]


@dataclass(frozen=True)
class WindowFit:
    """Of a window: matrix @ step = vector gives the step (x, y) by which the reference would lie on the layer."""

    centre: tuple[float, float]
    matrix: NDArray[np.float64]
    vector: NDArray[np.float64]
    correlation: float
    pixels: int


def residual_of(
    layer: NDArray[np.float32], reference: NDArray[np.float32], known: NDArray[np.bool_]
) -> Residual | None:
    """What is left between two layers of boundaries (y, x) less than a pixel apart, over known pixels.

    None where no window knows enough.
    """
    layers = np.stack(
        [
            smoothed_boundaries(layer),
            smoothed_boundaries(reference),
            smoothed_boundaries(reference, (True, False)),
            smoothed_boundaries(reference, (False, True)),
        ]
    )
    fits = [fit for window in window_slices(layer.shape) if (fit := window_fit(layers, known, window)) is not None]
    if not fits:
        return None
    matrices, vectors = np.array([fit.matrix for fit in fits]), np.array([fit.vector for fit in fits])
    pixels = np.array([fit.pixels for fit in fits])
    step = solved(matrices.sum(axis=0), vectors.sum(axis=0))
    return Residual(
        moved=-step,
        covariance=covariance_of(matrices, vectors, step),
        correlation=float(np.average([fit.correlation for fit in fits], weights=pixels)),
        centres=np.array([fit.centre for fit in fits]),
        by_window=-np.array([solved(*both) for both in zip(matrices, vectors, strict=True)]),
        correlations=np.array([fit.correlation for fit in fits]),
        pixels=pixels,
    )


def window_slices(shape: tuple[int, ...]) -> list[tuple[slice, slice]]:
    """Windows (rows, columns) of about equal size that fill a layer (y, x)."""
    spans = []
    for length in shape:
        number = min(MOST_ALONG, max(1, length // LEAST_SIDE))
        edges = [round(i * length / number) for i in range(number + 1)]
        spans.append([slice(*edge) for edge in pairwise(edges)])
    return [(rows, columns) for rows in spans[0] for columns in spans[1]]


def window_fit(layers: NDArray[np.float32], known: NDArray[np.bool_], window: tuple[slice, slice]) -> WindowFit | None:
    """Normal equations of layer = gain * (reference + step . slopes) + mean over a window; gain and mean are free.

    layers (4, y, x): the layer, the reference, its slopes along x and y. Weighted so that each pixel of any window
    counts as much. None where too few pixels are known or one of the layers shows nothing there.
    """
    inside = known[window]
    pixels = int(np.count_nonzero(inside))
    if pixels < LEAST_KNOWN:
        return None
    values = layers[:, window[0], window[1]][:, inside].astype(np.float64)
    values -= values.mean(axis=1, keepdims=True)
    products = np.array([[float((one * other).sum()) for other in values] for one in values])
    own, among, across = products[0, 0], products[1:, 1:], products[1:, 0]
    if own <= 0 or among[0, 0] <= 0:
        return None
    gain = max(across[0] / among[0, 0], 0.0)
    matrix = gain**2 * (among[1:, 1:] - np.outer(among[1:, 0], among[0, 1:]) / among[0, 0])
    vector = gain * (across[1:] - gain * among[1:, 0])
    rows, columns = np.nonzero(inside)
    return WindowFit(
        (window[1].start + float(columns.mean()), window[0].start + float(rows.mean())),
        pixels / own * matrix,
        pixels / own * vector,
        float(across[0] / np.sqrt(among[0, 0] * own)),
        pixels,
    )


def covariance_of(
    matrices: NDArray[np.float64], vectors: NDArray[np.float64], step: NDArray[np.float64]
) -> NDArray[np.float64]:
    """Covariance (2, 2) of a step from how windows (n, 2, 2), (n, 2) scatter about it.

    The sandwich of Liang and Zeger (1986, Biometrika 73(1)) with windows as clusters; infinite for one window.
    """
    number = len(matrices)
    if number < 2:
        return np.full((2, 2), np.inf)
    scores = vectors - matrices @ step
    bread = np.linalg.pinv(matrices.sum(axis=0), rcond=1e-6)
    return np.asarray(number / (number - 1) * bread @ (scores.T @ scores) @ bread, np.float64)


@dataclass(frozen=True)
class Peak:
    """Where the cross-correlation of two layers is highest, in pixels right and down."""

    moved: NDArray[np.float64]
    correlation: float
    #: By how many standard deviations of all other shifts the peak stands out.
    contrast: float


def masked_correlation(
    layer: NDArray[np.float32],
    reference: NDArray[np.float32],
    known: tuple[NDArray[np.bool_], NDArray[np.bool_]],
    farthest: int,
) -> Peak | None:
    """The peak of the normalised cross-correlation of layers (y, x) for shifts of up to `farthest` pixels.

    known: which pixels of layer and reference may be looked at. None where they have too little ground in common.
    """
    surface = correlation_surface(layer, reference, known, farthest)
    row, column = np.unravel_index(int(np.nan_to_num(surface, nan=-1).argmax()), surface.shape)
    highest = float(surface[row, column])
    if not np.isfinite(highest):
        return None
    down, across = np.ogrid[-farthest : farthest + 1, -farthest : farthest + 1]
    away = np.hypot(down - (row - farthest), across - (column - farthest)) > PEAK_RADIUS
    others = surface[away & np.isfinite(surface)]
    contrast = (highest - float(others.mean())) / float(others.std()) if len(others) > 1 and others.std() else 0.0
    moved = [
        column - farthest + vertex(surface[row], int(column)),
        row - farthest + vertex(surface[:, column], int(row)),
    ]
    return Peak(np.array(moved), highest, contrast)


#: Pixels about a peak that belong to it.
PEAK_RADIUS = 4


def correlation_surface(
    layer: NDArray[np.float32],
    reference: NDArray[np.float32],
    known: tuple[NDArray[np.bool_], NDArray[np.bool_]],
    farthest: int,
) -> NDArray[np.float64]:
    """Correlation (down, right) of pixels known in both when the layer's content is so far off; NaN: too few."""
    masks = [one.astype(np.float32) for one in known]
    values = [
        (one - one[mask].mean() if mask.any() else one) * mask
        for one, mask in zip((layer, reference), known, strict=True)
    ]
    there, there_squared, there_known = (spectrum(one, farthest) for one in (values[0], values[0] ** 2, masks[0]))
    here, here_squared, here_known = (spectrum(one, farthest) for one in (values[1], values[1] ** 2, masks[1]))

    def summed(one: NDArray[np.float32], other: NDArray[np.float32]) -> NDArray[np.float64]:
        product = np.asarray(cv2.mulSpectrums(one, other, 0, conjB=True), np.float32)
        return near_no_shift(product, farthest).astype(np.float64)

    pixels = np.maximum(summed(there_known, here_known), 1)
    of_layer, of_reference = summed(there, here_known), summed(there_known, here)
    both = summed(there, here) - of_layer * of_reference / pixels
    spread_layer = summed(there_squared, here_known) - of_layer**2 / pixels
    spread_reference = summed(there_known, here_squared) - of_reference**2 / pixels
    spread = np.sqrt(np.maximum(spread_layer, 0) * np.maximum(spread_reference, 0))
    enough = (pixels >= LEAST_OVERLAP * pixels.max()) & (pixels >= LEAST_KNOWN) & (spread > 1e-6 * pixels)
    return np.where(enough, both / np.where(enough, spread, 1), np.nan)
