"""The bands of EnMAP's instrument, and how they see a spectrum."""

from __future__ import annotations

from functools import lru_cache
from pathlib import Path

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike, NDArray

from h2crop_data.simulate.plants.spectra import WAVELENGTHS, unit_columns

#: Number, centre wavelength and full width at half maximum in nm of EnMAP's 224 bands.
BANDS_TABLE = Path(__file__).with_name("bands.csv")


@lru_cache(maxsize=1)
def enmap_bands() -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Centre wavelength and full width at half maximum of EnMAP's 224 bands in nm, in order of wavelength.

    Those of a scene of 2022 (EnMAP data (c) DLR 2022); they move by a fraction of a nanometre from scene to scene.
    """
    table = pd.read_csv(BANDS_TABLE).sort_values("wavelength")
    return table["wavelength"].to_numpy(np.float64), table["fwhm"].to_numpy(np.float64)


def enmap_response(centres: ArrayLike, fwhm: ArrayLike) -> NDArray[np.float32]:
    """How gaussian bands weigh WAVELENGTHS, (wavelength, band) float32; columns sum to 1, at the ends of the grid too.

    centres, fwhm: nm, (band,).
    """
    sd = np.asarray(fwhm, np.float64) / np.sqrt(8 * np.log(2))
    return unit_columns(np.exp(-0.5 * ((WAVELENGTHS[:, None] - np.asarray(centres, np.float64)) / sd) ** 2))
