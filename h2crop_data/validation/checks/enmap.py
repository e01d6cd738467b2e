"""What EnMAP must be beside the rules of its arrays: flags that fit, wavelengths in order."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from h2crop_data.constants import ENMAP_FLAGS, ENMAP_MASK_FLAGS, EXCLUDED_BY_OWN, OBSCURED_BY_OWN, REFLECTANCE_FILL
from h2crop_data.validation.checks.source_checks import Arrays, BlockValues, DerivedColumn, SourceChecks, ValueCheck
from h2crop_data.validation.release import IMPORTED
from h2crop_data.validation.values import Problem, wrong_samples

#: The flags that a quality layer of the archive alone sets.
FLAGS_OF_LAYERS = {
    "quality_cloud": ("cloud",),
    "quality_cloud_shadow": ("cloud_shadow",),
    "quality_haze": ("haze",),
    "quality_cirrus": ("cirrus_thin", "cirrus_medium", "cirrus_thick"),
    "quality_snow": ("snow",),
    "quality_testflags": ("interpolated", "saturated", "artefact", "reduced_quality", "low_quality"),
    "defective_pixel_mask": ("defective",),
}
#: The flags that our own mask is held against.
LAYERS_COMPARED = ENMAP_FLAGS["cloud"] | ENMAP_FLAGS["cloud_shadow"]


class EnmapChecks(SourceChecks[None]):
    """The checks of EnMAP."""

    name = "enmap"

    def wrong_coordinate(self, name: str, values: NDArray[Any], *, imported: bool) -> NDArray[np.bool_] | None:
        """Wavelengths grow, imported ones may all be unknown (0); widths of bands are numbers from 0 on."""
        if name == "wavelength":
            growing = (values > 0).all(axis=1) & (np.diff(values, axis=1) > 0).all(axis=1)
            unknown = (values == 0).all(axis=1) if imported else np.zeros(len(values), bool)
            return np.asarray(~growing & ~unknown)
        if name == "fwhm":
            return np.asarray(~(np.isfinite(values) & (values >= 0)).all(axis=1))
        return None

    def flag_masks(self, season: int) -> dict[str, int] | None:
        """The flags that the recipe of a season, or its import, counts."""
        settings = self.release.settings(season, IMPORTED) or self.release.settings(season, "enmap")
        flagged = settings.get("flagged")
        if not isinstance(flagged, list) or not all(isinstance(flag, str) and flag in ENMAP_FLAGS for flag in flagged):
            return None
        own = EXCLUDED_BY_OWN if settings.get("mask") == "apply" else 0
        return {"enmap_quality": sum(ENMAP_FLAGS[flag] for flag in set(flagged)), "enmap_mask": own}

    def check_values(self, block: BlockValues) -> ValueCheck[None]:
        """Flags against reflectance."""
        return ValueCheck(list(flag_problems(block.arrays)))

    def unknown_columns(self, season: int, row: Mapping[Any, Any]) -> frozenset[str]:
        """Shares of pixels with a flag whose layer the scene lacks."""
        missing = row.get("enmap_layers_missing")
        layers = list(missing) if isinstance(missing, list | np.ndarray) else []
        lost = {flag for layer in layers for flag in FLAGS_OF_LAYERS.get(layer, ())}
        bits = sum(ENMAP_FLAGS[flag] for flag in lost)
        counted = (self.flag_masks(season) or {"enmap_quality": 0})["enmap_quality"]
        shares = {"enmap_cloud_share": ENMAP_FLAGS["cloud"], "enmap_flagged_share": counted}
        unknown = {column for column, mask in shares.items() if mask & bits}
        if bits & LAYERS_COMPARED:
            unknown |= {"enmap_mask_disagreement", "enmap_mask_alone"}
        return frozenset(unknown)

    def derived_columns(self, season: int, arrays: Arrays, *, imported: bool) -> Iterator[DerivedColumn]:
        """Shares of fill, of clouds and of flagged pixels."""
        if "enmap" in arrays:
            yield DerivedColumn("enmap_fill_share", "enmap", float((arrays["enmap"] == REFLECTANCE_FILL).mean()))
        if "enmap_quality" in arrays:
            quality = arrays["enmap_quality"]
            yield DerivedColumn("enmap_cloud_share", "enmap_quality", share_with(quality, ENMAP_FLAGS["cloud"]))
            masks = self.flag_masks(season)
            mask = arrays.get("enmap_mask")
            if masks is not None:
                flagged = (quality & masks["enmap_quality"]) != 0
                if mask is not None:
                    flagged = flagged | ((mask & masks["enmap_mask"]) != 0)
                yield DerivedColumn("enmap_flagged_share", "enmap_quality", float(flagged.mean()))
            if mask is not None:
                yield from mask_shares(mask, quality)


def share_with(quality: NDArray[np.uint16], mask: int) -> float:
    """The share of pixels with one of some flags."""
    return float(((quality & mask) != 0).mean())


def mask_shares(mask: NDArray[np.uint8], quality: NDArray[np.uint16]) -> Iterator[DerivedColumn]:
    """Shares of what `enmap_mask` (y30, x30) says, of the pixels it looked at; none where it looked at none."""
    seen = (mask & ENMAP_MASK_FLAGS["unseen"]) == 0
    if not seen.any():
        return
    mask, quality = mask[seen], quality[seen]
    own, theirs = (mask & OBSCURED_BY_OWN) != 0, (quality & LAYERS_COMPARED) != 0
    shares = {
        "enmap_own_cloud_share": (mask & ENMAP_MASK_FLAGS["cloud"]) != 0,
        "enmap_own_shadow_share": (mask & ENMAP_MASK_FLAGS["cloud_shadow"]) != 0,
        "enmap_mask_disagreement": own ^ theirs,
        "enmap_mask_alone": own & ~theirs,
    }
    for column, found in shares.items():
        yield DerivedColumn(column, "enmap_mask", float(found.mean()))


def flag_problems(arrays: Arrays) -> Iterator[Problem]:
    """What cannot be true in `enmap` (sample, band, y30, x30) and `enmap_quality` (sample, y30, x30)."""
    cube, quality = arrays.get("enmap"), arrays.get("enmap_quality")
    if cube is not None and quality is not None:
        nothing = (cube == REFLECTANCE_FILL).all(axis=1)
        inside = (quality & ENMAP_FLAGS["outside"]) == 0
        what = "without any value and without the flag `outside`"
        yield from wrong_samples("enmap_quality", "fill", nothing & inside, what)
