"""By which means and standard deviations arrays are normalised before the model sees them."""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict

from h2crop_data.constants import REFLECTANCE_SCALE


class Normalisation(BaseModel):
    """Mean and standard deviation of each band, in the numbers that a store holds (reflectance / scale)."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    #: Where the figures come from, in words.
    source: str
    #: Array (`enmap`, `s2`) -> mean of each band.
    mean: dict[str, tuple[float, ...]]
    #: Array -> standard deviation of each band.
    sd: dict[str, tuple[float, ...]]
    #: Reflectance of the number 1.
    reflectance_scale: float = REFLECTANCE_SCALE
    #: What the numbers have on top of reflectance / scale, by array: +1000 in the published Sentinel-2 arrays.
    offset: dict[str, float] = {}
