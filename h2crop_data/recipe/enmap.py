"""The section of a recipe on EnMAP."""

from __future__ import annotations

from typing import Annotated, Any, Literal, Self

from pydantic import BeforeValidator, Field, model_validator

from h2crop_data.constants import ENMAP_FLAGS, EXCLUDED_BY_OWN
from h2crop_data.recipe.catalogs import Catalog
from h2crop_data.recipe.section import Neutral, Percent, Section, Share

Wavelengths = tuple[float, float]
BandSet = Literal["h2crop-218", "spectralearth-202", "all"]

#: Sets of bands by name: what they leave out, in nm, and how many bands of the archive's 224 remain. The ends of the
#: ranges lie halfway between bands, whose centres move by 0.4 nm from scene to scene.
#: `spectralearth-202` are the bands 1-126, 142-160 and 168-224 in order of wavelength (Braham et al. 2024).
BAND_SETS: dict[str, tuple[list[Wavelengths], int]] = {
    "h2crop-218": ([(1325.0, 1395.0)], 218),
    "spectralearth-202": ([(1289.3, 1524.9), (1733.7, 1972.7)], 202),
    "all": ([], 224),
}

Month = Annotated[int, Field(ge=1, le=12, strict=True)]


class EnmapBands(Section):
    """Which EnMAP bands are stored, decided by the wavelengths in each scene's metadata."""

    exclude_nm: list[Wavelengths] = Field(default=[(1325.0, 1395.0)])
    """Ranges of centre wavelength in nm to leave out (default: water vapour, six bands without data)."""
    keep_nm: Annotated[list[Wavelengths], Neutral([])] = Field(default=[])
    """Ranges of centre wavelength in nm to store, except those left out (default: all)."""
    count: int = Field(default=218, ge=1, strict=True)
    """Number of stored bands; a scene with another number is refused, because all samples share one axis of bands."""


def bands_of_set(value: Any) -> Any:
    """The settings that the name of a set stands for."""
    if not isinstance(value, str):
        return value
    if value not in BAND_SETS:
        raise ValueError(f"unknown set of bands {value!r}; known: {', '.join(BAND_SETS)}")
    exclude, count = BAND_SETS[value]
    return {"exclude_nm": exclude, "count": count}


class EnmapSettings(Section):
    """Where EnMAP L2A scenes come from and which of them are used."""

    catalog: Catalog
    """Where EnMAP scenes are searched: name of a provider (`h2crop providers`), URL of a STAC API, or path of a static
    catalog, an ItemCollection (JSON) or a stac-geoparquet file. Several catalogs as a list: scenes missing in one are
    taken from the next."""
    collection: str = "ENMAP_HSI_L2A"
    """Collection to search."""
    months: list[Month] = Field(default=list(range(1, 13)))
    """Months of acquisition to use, 1..12."""
    max_quality: Literal[0, 1, 2] = 1
    """Worst `enmap:overallQuality` to use: 0 nominal, 1 reduced, 2 low."""
    min_sun_elevation: float = Field(default=30, ge=-90, le=90, strict=True)
    """Minimum sun elevation in degrees; scenes without one (night scenes) are never used."""
    max_cloud_cover: Percent = 20
    """Maximum `eo:cloud_cover` of a scene in percent."""
    bands: Annotated[EnmapBands, BeforeValidator(bands_of_set, json_schema_input_type=BandSet | EnmapBands)] = (
        EnmapBands()
    )
    """Bands to store: name of a set (`h2crop-218`, `spectralearth-202`, `all`), or ranges and a count."""
    flagged: list[str] = Field(default=["cloud", "cloud_shadow", "haze", "cirrus_medium", "cirrus_thick", "snow"])
    """Quality flags that count as flagged, for `max_flagged_share` and for the statistics."""
    max_flagged_share: Share = 0.05
    """Maximum share of flagged pixels in a cell that becomes a sample."""
    cloud_layer: Literal["required", "optional"] = "required"
    """Whether the quality layer `quality_cloud` is required: `required` refuses scenes without it, `optional` uses
    them. No cloud is flagged in such scenes, which plan, index and datasheet report."""

    mask: Annotated[Literal["none", "report", "apply"], Neutral("none")] = "report"
    """Cloud and shadow mask from the bands of the scene itself, which finds small clouds that DLR's layers miss:
    `report` stores it as `enmap_mask`, `apply` also counts its pixels, and pixels it could not judge, as flagged;
    `none` turns it off. It cannot be turned on or off in an existing store. See docs/enmap.md."""
    coregistration: Annotated[Literal["none", "report", "apply"], Neutral("none")] = "apply"
    """Shift of every scene against Sentinel-2: `report` measures it, `apply` also corrects it; visible and near
    infrared separately from short wave infrared. Requires `sentinel2`. See docs/coregistration.md."""
    coregistration_limit: Annotated[float, Neutral(1.0), Field(ge=0, le=30, allow_inf_nan=False)] = 1.0
    """Maximum shift in metres that is not corrected."""
    unmatched: Annotated[Literal["refuse", "unshifted", "datatake"], Neutral("unshifted")] = "unshifted"
    """What to do with a scene whose shift cannot be measured reliably (water, cloud): `refuse` its blocks, use it
    `unshifted`, or use the median shift of the other tiles of its `datatake` where these agree."""

    @model_validator(mode="after")
    def known_flags(self) -> Self:
        """Flags by the names of the store's `enmap_quality`."""
        unknown = [flag for flag in self.flagged if flag not in ENMAP_FLAGS]
        if unknown:
            raise ValueError(f"flagged: unknown quality flag {', '.join(unknown)}; known: {', '.join(ENMAP_FLAGS)}")
        return self

    @property
    def flag_mask(self) -> int:
        """The bits of the flags in `flagged`."""
        return sum(ENMAP_FLAGS[flag] for flag in set(self.flagged))

    @property
    def own_flag_mask(self) -> int:
        """The bits of `enmap_mask` that count as flagged."""
        return EXCLUDED_BY_OWN if self.mask == "apply" else 0
