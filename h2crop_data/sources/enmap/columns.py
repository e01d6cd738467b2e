"""What the columns of the samples index that EnMAP states hold of one sample."""

from __future__ import annotations

from typing import Any

import numpy as np
import pystac
from numpy.typing import NDArray

from h2crop_data.catalog.items import acquired
from h2crop_data.constants import ENMAP_FLAGS, ENMAP_MASK_FLAGS, OBSCURED_BY_OWN, REFLECTANCE_FILL
from h2crop_data.enmap.quality import flags_of_layers
from h2crop_data.recipe.model import EnmapSettings
from h2crop_data.sources.enmap.mask_result import MaskFacts
from h2crop_data.sources.enmap.scene import SceneFacts


def sample_columns(
    item: pystac.Item,
    facts: SceneFacts,
    settings: EnmapSettings,
    values: NDArray[np.int16],
    quality: NDArray[np.uint16],
    mask: NDArray[np.uint8] | None = None,
) -> dict[str, Any]:
    """What the columns of `format.COLUMNS` hold of one sample.

    values: (band, y, x) as stored; quality: (y, x), as ENMAP_FLAGS; mask: (y, x), as ENMAP_MASK_FLAGS, if there is one.

    A share of flags is None where a layer that would set one of them is missing.
    """
    unknown = flags_of_layers(facts.missing_layers)
    angles = facts.angles

    def share(flags: int, own: int = 0) -> float | None:
        found = (quality & flags) != 0
        if mask is not None:
            found |= (mask & own) != 0
        return None if flags & unknown else float(found.mean())

    return {
        "enmap_cloud_share": share(ENMAP_FLAGS["cloud"]),
        "enmap_flagged_share": share(settings.flag_mask, settings.own_flag_mask),
        "enmap_fill_share": float((values == REFLECTANCE_FILL).mean()),
        "enmap_processing": [f"{tag}={text}" for tag, text in facts.processing.items()],
        "enmap_version": facts.processing.get("archivedVersion"),
        "enmap_day_of_year": acquired(item).timetuple().tm_yday,
        "enmap_sun_zenith": None if angles.sun_elevation is None else 90 - angles.sun_elevation,
        "enmap_sun_azimuth": angles.sun_azimuth,
        "enmap_view_zenith": angles.view_zenith,
        "enmap_across_off_nadir": angles.across_off_nadir,
        "enmap_along_off_nadir": angles.along_off_nadir,
        "enmap_layers_missing": list(facts.missing_layers),
        "enmap_empty_bands": [f"{centre:.2f}" for centre in facts.empty_nm],
        "enmap_noisy_bands": [f"{centre:.2f}" for centre in facts.noisy_nm],
        **({} if mask is None else mask_columns(mask, quality, unknown)),
    }


def scene_mask_columns(facts: MaskFacts) -> dict[str, Any]:
    """The columns of samples on the mask of their scene."""
    return {"enmap_cloud_height": facts.height, "enmap_mask_doubt": facts.reason}


def mask_columns(mask: NDArray[np.uint8], quality: NDArray[np.uint16], unknown: int) -> dict[str, float | None]:
    """What the columns of our own mask hold of one sample; None where nothing was looked at.

    mask: (y, x), as ENMAP_MASK_FLAGS; quality: (y, x), as ENMAP_FLAGS; unknown: bits of flags whose layer is missing.
    """
    seen = (mask & ENMAP_MASK_FLAGS["unseen"]) == 0
    own = (mask & OBSCURED_BY_OWN) != 0
    of_layers = ENMAP_FLAGS["cloud"] | ENMAP_FLAGS["cloud_shadow"]
    theirs = (quality & of_layers) != 0
    compared = seen if not of_layers & unknown else np.zeros_like(seen)

    def share(found: NDArray[np.bool_], of: NDArray[np.bool_]) -> float | None:
        return float(found[of].mean()) if of.any() else None

    return {
        "enmap_own_cloud_share": share((mask & ENMAP_MASK_FLAGS["cloud"]) != 0, seen),
        "enmap_own_shadow_share": share((mask & ENMAP_MASK_FLAGS["cloud_shadow"]) != 0, seen),
        "enmap_mask_disagreement": share(own != theirs, compared),
        "enmap_mask_alone": share(own & ~theirs, compared),
    }
