"""The section of a recipe on EnMAP."""

from __future__ import annotations

from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from h2crop_data.constants import ENMAP_FLAGS
from h2crop_data.recipe.section import Percent, Section, Share

Month = Annotated[int, Field(ge=1, le=12, strict=True)]


class EnmapBands(Section):
    """Which EnMAP bands are stored, decided by the wavelengths in each scene's metadata."""

    exclude_nm: list[tuple[float, float]] = Field(default=[(1325.0, 1395.0)])
    """Ranges of centre wavelength in nm that are left out (default: water vapour, six bands that are all nodata)."""
    count: int = Field(default=218, ge=1, strict=True)
    """How many bands remain; a scene with another number is refused, because all samples share one axis."""


class EnmapSettings(Section):
    """Where EnMAP L2A scenes come from and which of them are used."""

    catalog: str
    """URL of a STAC API, or path of a local ItemCollection (JSON)."""
    collection: str = "ENMAP_HSI_L2A"
    """Collection to search."""
    months: list[Month] = Field(default=list(range(1, 13)))
    """Months of acquisition, 1..12."""
    max_quality: Literal[0, 1, 2] = 1
    """Worst `enmap:overallQuality` taken: 0 nominal, 1 reduced, 2 low."""
    min_sun_elevation: float = Field(default=30, ge=-90, le=90, strict=True)
    """Lowest sun elevation in degrees; night scenes have none and are never taken."""
    max_cloud_cover: Percent = 20
    """Highest `eo:cloud_cover` of the scene in percent."""
    bands: EnmapBands = EnmapBands()
    """Which bands are stored."""
    flagged: list[str] = Field(default=["cloud", "cloud_shadow", "haze", "cirrus_medium", "cirrus_thick", "snow"])
    """Quality flags that count as flagged, for `max_flagged_share` and for the statistics."""
    max_flagged_share: Share = 0.05
    """Largest share of flagged pixels in a cell that becomes a sample."""
    cloud_layer: Literal["required", "optional"] = "required"
    """Whether a scene without the quality layer `quality_cloud` is refused; a scene that is taken without it has no
    cloud flagged, and plan, index and datasheet say so."""

    @model_validator(mode="after")
    def known_flags(self) -> Self:
        """Flags by the names of the store's `enmap_quality`."""
        unknown = [flag for flag in self.flagged if flag not in ENMAP_FLAGS]
        if unknown:
            raise ValueError(f"flagged: {', '.join(unknown)} is no quality flag; known: {', '.join(ENMAP_FLAGS)}")
        return self

    @property
    def flag_mask(self) -> int:
        """The bits of the flags in `flagged`."""
        return sum(ENMAP_FLAGS[flag] for flag in set(self.flagged))
