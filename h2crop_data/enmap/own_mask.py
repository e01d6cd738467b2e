"""A mask of clouds and their shadows that is independent of DLR's quality layers: the bits of `enmap_mask`."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from h2crop_data.cast_shadows import Direction
from h2crop_data.constants import ENMAP_MASK_FLAGS
from h2crop_data.enmap.clouds import MASK_WAVELENGTHS, MaskBands, find_clouds
from h2crop_data.enmap.product import Band
from h2crop_data.enmap.shadows import find_shadows
from h2crop_data.errors import SceneError

#: A band this far in nm from the wanted wavelength stands for it.
NEAR_ENOUGH = 15.0


@dataclass(frozen=True)
class OwnMask:
    """The cloud mask from the bands of a scene."""

    #: (y, x) uint8, as ENMAP_MASK_FLAGS.
    bits: NDArray[np.uint8]
    #: Height of its clouds in metres above ground, from how far their shadows lie; None where it is not known.
    height: float | None


def bands_for_mask(bands: Sequence[Band]) -> list[Band]:
    """The bands that a mask is made of, in the order of MASK_WAVELENGTHS. Raises SceneError where one is missing."""
    chosen = [min(bands, key=lambda band: abs(band.wavelength - wanted)) for wanted in MASK_WAVELENGTHS]
    missing = [
        f"{wanted:.0f}"
        for band, wanted in zip(chosen, MASK_WAVELENGTHS, strict=True)
        if abs(band.wavelength - wanted) > NEAR_ENOUGH
    ]
    if missing:
        raise SceneError(f"no band within {NEAR_ENOUGH:.0f} nm of {', '.join(missing)} nm: clouds cannot be detected")
    return chosen


def own_mask(
    reflectance: NDArray[np.float32], imaged: NDArray[np.bool_], suns: Sequence[Direction], pixel: float
) -> OwnMask:
    """The mask of a scene.

    reflectance: (band, y, x) 0..1 of `bands_for_mask`. imaged: (y, x), where all of them have a value. suns: where the
    sun may seem to stand (`cast_shadows.apparent_sun`). pixel: its size in metres.
    """
    bands = MaskBands(*np.where(imaged, reflectance, np.float32(0)))
    cloud = find_clouds(bands, imaged)
    shadows = find_shadows(bands, imaged, cloud, suns, pixel)
    bits = np.zeros(imaged.shape, np.uint8)
    bits[cloud] |= np.uint8(ENMAP_MASK_FLAGS["cloud"])
    bits[shadows.mask] |= np.uint8(ENMAP_MASK_FLAGS["cloud_shadow"])
    bits[~imaged] = np.uint8(ENMAP_MASK_FLAGS["unseen"])
    return OwnMask(bits, shadows.height)
