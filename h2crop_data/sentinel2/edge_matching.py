"""The shift of the edges of a date against edges that many dates have in common, to a few hundredths of a pixel.

The enhanced correlation coefficient (Evangelidis and Psarakis 2008, IEEE TPAMI 30(10), "Parametric Image Alignment
using Enhanced Correlation Coefficient Maximization") is maximised in its inverse form over clear pixels of all windows
together; each window has a gain and a mean of its own. OpenCV's `findTransformECCWithMask` maximises the same over one
window at a time in some three times the time. Masked cross-correlation of the same edges, another way of
measuring, says where to begin; how far the result lies from it is the check that is kept.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from h2crop_data.matching import near_no_shift, solved, spectrum, vertex
from h2crop_data.sentinel2.edges import moved_pixels, smoothed

#: Windows along each axis, at most, and the fewest pixels along one.
MOST_WINDOWS, SMALLEST_WINDOW = 3, 24
#: Pixels that must be clear in a window for it to count.
FEWEST_PIXELS = 200
#: Steps at most, the longest one, and one that is no more worth another, in pixels.
STEPS, LONGEST_STEP, LAST_STEP = 6, 1.0, 0.01
#: Cross-correlation looks for shifts up to so many pixels, smoothed by a Gaussian of this standard deviation.
FARTHEST, DAMPING = 6, 0.65

Window = tuple[slice, slice]


def windows_of(shape: tuple[int, ...]) -> list[Window]:
    """Equal windows (rows, columns) that fill a layer (y, x) but for a few pixels at its end."""
    spans = []
    for length in shape:
        number = min(MOST_WINDOWS, max(1, length // SMALLEST_WINDOW))
        size = length // number
        spans.append([slice(i * size, (i + 1) * size) for i in range(number)])
    return [(rows, columns) for rows in spans[0] for columns in spans[1]]


@dataclass(frozen=True)
class EdgeMatch:
    """How far content lies from where the common edges have it, in pixels right and down."""

    moved: NDArray[np.float64]
    #: The same by window, (window, 2), NaN for those that do not count, and their clear pixels, 0 for those.
    by_window: NDArray[np.float64]
    pixels: NDArray[np.float64]
    #: Correlation of edges with the common ones, the mean of windows by their clear pixels.
    correlation: float


class CommonEdges:
    """Edges that dates have in common, ready to be compared with those of each."""

    def __init__(self, edges: NDArray[np.uint8], known: NDArray[np.uint8]) -> None:
        """edges: (y, x); known: 1 where they are to be trusted, 0 elsewhere."""
        self.edges, self.known = edges, known
        self.windows = windows_of(edges.shape)
        layers = [smoothed(edges), smoothed(edges, slope=(True, False)), smoothed(edges, slope=(False, True))]
        #: By window: 1, the edges, their slopes along x and y: (4, pixels).
        self.layers = [
            np.stack([np.ones_like(layers[0][window]), *(layer[window] for layer in layers)]).reshape(4, -1)
            for window in self.windows
        ]

    def matched(
        self, edges: NDArray[np.uint8], clear: NDArray[np.uint8], start: NDArray[np.float64]
    ) -> EdgeMatch | None:
        """Where the edges of a date lie, from where to begin; None where too little is clear in common.

        edges, clear (0 or 1): (y, x). start: pixels right and down.
        """
        right, down = np.rint(start).astype(int).tolist()
        seen = self.known * moved_pixels(clear, right, down)
        counted = [i for i, window in enumerate(self.windows) if np.count_nonzero(seen[window]) >= FEWEST_PIXELS]
        if not counted:
            return None
        systems = [System(self.layers[i], seen[self.windows[i]].ravel()) for i in counted]
        moved = start.astype(np.float64)
        for _ in range(STEPS):
            here = smoothed(edges, moved.tolist())
            equations = [
                system.equations(here[self.windows[i]].ravel()) for i, system in zip(counted, systems, strict=True)
            ]
            step = solved(
                np.sum([one.matrix for one in equations], axis=0), np.sum([one.vector for one in equations], axis=0)
            )
            by_window = np.full((len(self.windows), 2), np.nan)
            for i, one in zip(counted, equations, strict=True):
                by_window[i] = moved - solved(one.matrix, one.vector)
            moved = moved - np.clip(step, -LONGEST_STEP, LONGEST_STEP)
            if np.abs(step).max() < LAST_STEP:
                break
        pixels = np.zeros(len(self.windows))
        pixels[counted] = [one.pixels for one in equations]
        correlation = float(np.average([one.correlation for one in equations], weights=pixels[counted]))
        return EdgeMatch(moved, by_window, pixels, correlation)

    def correlated(self, edges: NDArray[np.uint8], clear: NDArray[np.uint8]) -> NDArray[np.float64] | None:
        """The same where the cross-correlation of all windows is highest: pixels right and down, to a tenth or so.

        None where too little is clear in common.
        """
        seen = self.known * clear
        masks = [seen[window].astype(np.float32) for window in self.windows]
        counted = [i for i, mask in enumerate(masks) if mask.sum() >= FEWEST_PIXELS]
        if not counted:
            return None
        products: Any = 0
        overlaps: Any = 0
        for i in counted:
            mask, window = masks[i], self.windows[i]
            common, own = (faded(layer[window], mask) for layer in (self.edges, edges))
            size = float(np.sqrt((common**2).sum() * (own**2).sum()))
            if size > 0:
                weight = float(mask.sum()) / size
                products = products + weight * cv2.mulSpectrums(
                    spectrum(own, FARTHEST), spectrum(common, FARTHEST), 0, conjB=True
                )
            overlap = spectrum(mask * fading(mask.shape), FARTHEST)
            overlaps = overlaps + cv2.mulSpectrums(overlap, overlap, 0, conjB=True)
        if isinstance(products, int):
            return None
        # A product of layers that are 0 in the same places is highest at no shift, as is the overlap of these places.
        surface = near_no_shift(products, FARTHEST) / np.maximum(near_no_shift(overlaps, FARTHEST), 1)
        return peak(np.asarray(cv2.GaussianBlur(surface, (0, 0), DAMPING), np.float32))


@dataclass(frozen=True)
class NormalEquations:
    """Of a window: matrix @ step = vector gives the step (x, y) by which the common edges would lie on those here."""

    matrix: NDArray[np.float64]
    vector: NDArray[np.float64]
    correlation: float
    pixels: float


class System:
    """What is the same for all steps in one window."""

    def __init__(self, layers: NDArray[np.float32], clear: NDArray[np.uint8]) -> None:
        """layers (4, pixels): 1, common edges, their slopes along x and y. clear: 0 or 1 (pixels,)."""
        #: The layers, 0 where not clear.
        self.masked = layers * clear
        #: Sums of products of clear pixels. Sums of numpy, unlike products of matrices, are the same on any machine.
        self.products = np.array([(self.masked * layer).sum(axis=1) for layer in layers], np.float64)

    def equations(self, here: NDArray[np.float32]) -> NormalEquations:
        """Normal equations of here = gain * (edges + step . slopes) + mean, weighted by the number of clear pixels.

        here: edges of a date (pixels,). Gain and mean are free.
        """
        pixels = self.products[0, 0]
        with_here = (self.masked * here).sum(axis=1).astype(np.float64)
        own = float((self.masked[0] * here * here).sum()) - with_here[0] ** 2 / pixels
        among = self.products[1:, 1:] - np.outer(self.products[0, 1:], self.products[0, 1:]) / pixels
        across = with_here[1:] - self.products[0, 1:] * with_here[0] / pixels
        if among[0, 0] <= 0 or own <= 0:
            return NormalEquations(np.zeros((2, 2)), np.zeros(2), 0.0, float(pixels))
        gain = across[0] / among[0, 0]
        matrix = gain**2 * (among[1:, 1:] - np.outer(among[1:, 0], among[0, 1:]) / among[0, 0])
        vector = gain * (across[1:] - gain * among[1:, 0])
        correlation = float(across[0] / np.sqrt(among[0, 0] * own))
        return NormalEquations(pixels / own * matrix, pixels / own * vector, correlation, float(pixels))


def faded(layer: NDArray[np.uint8], mask: NDArray[np.float32]) -> NDArray[np.float32]:
    """A layer (y, x) without its mean, 0 where not clear and fading out towards the edges of its window."""
    mean = (layer * mask).sum() / mask.sum()
    return np.asarray((layer - mean) * mask * fading(mask.shape), np.float32)


@lru_cache(maxsize=4)
def fading(shape: tuple[int, int]) -> NDArray[np.float32]:
    """Hann's window (y, x)."""
    down, right = (np.hanning(length + 2)[1:-1] for length in shape)
    return np.outer(down, right).astype(np.float32)


def peak(surface: NDArray[np.floating]) -> NDArray[np.float64]:
    """Where the largest value of an odd square (y, x) lies from its middle, right and down: by parabolas."""
    row, column = np.unravel_index(int(surface.argmax()), surface.shape)
    middle = len(surface) // 2
    return np.array(
        [column - middle + vertex(surface[row], int(column)), row - middle + vertex(surface[:, column], int(row))]
    )
