"""What the columns of the samples index that EnMAP states hold of one sample."""

from __future__ import annotations

from typing import Any

import numpy as np
import pystac
from numpy.typing import NDArray

from h2crop_data.catalog.items import acquired
from h2crop_data.constants import ENMAP_FLAGS, REFLECTANCE_FILL
from h2crop_data.enmap.quality import flags_of_layers
from h2crop_data.recipe.model import EnmapSettings
from h2crop_data.sources.enmap.scene import SceneFacts


def sample_columns(
    item: pystac.Item,
    facts: SceneFacts,
    settings: EnmapSettings,
    values: NDArray[np.int16],
    quality: NDArray[np.uint16],
) -> dict[str, Any]:
    """What the columns of `format.COLUMNS` hold of one sample.

    values: (band, y, x) as stored; quality: (y, x), as ENMAP_FLAGS.

    A share of flags is None where a layer that would set one of them is missing.
    """
    unknown = flags_of_layers(facts.missing_layers)
    angles = facts.angles

    def share(mask: int) -> float | None:
        return None if mask & unknown else float(((quality & mask) != 0).mean())

    return {
        "enmap_cloud_share": share(ENMAP_FLAGS["cloud"]),
        "enmap_flagged_share": share(settings.flag_mask),
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
    }
