"""The bands of Sentinel-2's instrument, and how they see a spectrum."""

from __future__ import annotations

from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from h2crop_data.simulate.plants.spectra import WAVELENGTHS, unit_columns

SENTINEL2_MSI: tuple[str, ...] = (
    *("B01", "B02", "B03", "B04", "B05", "B06", "B07"),
    *("B08", "B8A", "B09", "B10", "B11", "B12"),
)
#: Centre and width in nm of SENTINEL2_MSI, the mean of S2A and S2B (ESA, Sentinel-2 MSI technical guide, spatial and
#: spectral resolution).
SENTINEL2_CENTRE_WIDTH: tuple[tuple[float, float], ...] = (
    *((442.5, 21.0), (492.2, 66.0), (559.4, 36.0), (664.8, 31.0), (704.0, 15.5), (739.8, 15.0), (781.3, 20.0)),
    *((832.9, 106.0), (864.4, 21.5), (944.2, 20.5), (1375.2, 30.5), (1612.1, 92.5), (2194.1, 180.0)),
)
#: nm over which the edge of a Sentinel-2 band falls from full to nothing, at most; half its width for narrow bands.
EDGE = 20.0


@lru_cache(maxsize=1)
def sentinel2_response() -> NDArray[np.float32]:
    """How SENTINEL2_MSI weigh WAVELENGTHS, (wavelength, 13) float32; columns sum to 1.

    Flat within the published width, with edges like half a cosine that pass half height at the width's ends.
    """
    centre, width = np.array(SENTINEL2_CENTRE_WIDTH).T
    edge = np.minimum(EDGE, width / 2)
    inside = (width / 2 - np.abs(WAVELENGTHS[:, None] - centre)) / edge
    return unit_columns(0.5 + 0.5 * np.sin(np.pi * np.clip(inside, -0.5, 0.5)))
