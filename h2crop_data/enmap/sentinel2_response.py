"""EnMAP with the spectral response of Sentinel-2: the weights of its bands for each band in which both sensors are
compared.

Sentinel-2's response is taken to be a box about the centre and as wide as ESA publishes for Sentinel-2A (Sentinel-2
MSI user guide, spectral resolution); an EnMAP band is a Gaussian with the centre and the full width at half maximum of
its METADATA.XML.
"""

from __future__ import annotations

from collections.abc import Sequence
from math import erf, sqrt

import numpy as np
from numpy.typing import ArrayLike, NDArray

from h2crop_data.enmap.detectors import Detector
from h2crop_data.errors import SceneError

#: Sentinel-2A's bands that detectors are compared in, in order: centre wavelength and bandwidth in nm.
COMPARED_BANDS: dict[str, tuple[float, float]] = {
    "B03": (559.8, 36.0),
    "B04": (664.6, 31.0),
    "B05": (704.1, 15.0),
    "B08": (832.8, 106.0),
    "B11": (1613.7, 91.0),
    "B12": (2202.4, 175.0),
}
#: Places of the bands that each of EnMAP's detectors sees.
DETECTOR_BANDS: dict[Detector, slice] = {"vnir": slice(0, 4), "swir": slice(4, 6)}
#: Share of its weight with which a band belongs to a mean; less is left out.
LEAST_RESPONSE = 0.01


def sentinel2_weights(wavelengths: ArrayLike, widths: ArrayLike) -> NDArray[np.float64]:
    """Weights (6, n) of n EnMAP bands whose mean is what Sentinel-2 sees in COMPARED_BANDS; rows add up to 1.

    wavelengths, widths: centre and full width at half maximum in nm, (n,), in any order, without bands that hold no
    data. A band counts by the share of its response that lies inside Sentinel-2's box.
    Raises SceneError where no EnMAP band lies in one of them.
    """
    centres = np.asarray(wavelengths, np.float64)
    sd = np.asarray(widths, np.float64) / sqrt(8 * np.log(2))
    weights = np.array(
        [
            below(centre + width / 2, centres, sd) - below(centre - width / 2, centres, sd)
            for centre, width in COMPARED_BANDS.values()
        ]
    )
    weights[weights < LEAST_RESPONSE] = 0
    empty = [name for name, row in zip(COMPARED_BANDS, weights, strict=True) if not row.any()]
    if empty:
        raise SceneError(
            f"no EnMAP band with data lies within Sentinel-2's {', '.join(empty)}: the two cannot be compared"
        )
    return np.asarray(weights / weights.sum(axis=1, keepdims=True), np.float64)


def below(wavelength: float, centres: NDArray[np.float64], sd: NDArray[np.float64]) -> NDArray[np.float64]:
    """The share (n,) of each Gaussian response below a wavelength."""
    deviations: Sequence[float] = ((wavelength - centres) / (sqrt(2) * sd)).tolist()
    return np.array([0.5 * (1 + erf(deviation)) for deviation in deviations])
