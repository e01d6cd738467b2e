"""What a store holds of EnMAP: arrays, coordinates, columns."""

from __future__ import annotations

import numpy as np

from h2crop_data.constants import COARSE, ENMAP_FLAGS, REFLECTANCE_FILL
from h2crop_data.cube.columns import Column
from h2crop_data.cube.schema import (
    BAND_COORDINATE_CHUNK,
    ArraySpec,
    ArrayStatistics,
    CoordinateSpec,
    SourceFormat,
    ValueRules,
    reflectance_attributes,
)

NAME = "enmap"
COLUMNS = (
    Column("enmap_cloud_share", "number", "pixels with the flag `cloud`", "share", NAME, "derived"),
    Column("enmap_flagged_share", "number", "pixels with a flag the recipe counts", "share", NAME, "derived"),
    Column("enmap_fill_share", "number", "values without a measurement", "share", NAME, "derived"),
    Column(
        "enmap_processing",
        "texts",
        "tag=text of METADATA.XML: how the scene was processed",
        source=NAME,
        known="derived",
        filled=True,
        imported=False,
    ),
)


def enmap_format(bands: int, cell_size: int) -> SourceFormat:
    """EnMAP reflectance (sample, band, y30, x30) int16 and its flags (sample, y30, x30) uint16."""
    side = cell_size // COARSE
    flags = {"flag_masks": list(ENMAP_FLAGS.values()), "flag_meanings": " ".join(ENMAP_FLAGS)}
    arrays = (
        ArraySpec(
            "enmap",
            "enmap",
            ("sample", "band", "y30", "x30"),
            (bands, side, side),
            (1, bands, side, side),
            np.dtype("int16"),
            REFLECTANCE_FILL,
            reflectance_attributes("EnMAP L2A surface reflectance, bands in order of wavelength"),
            "reflectance x 10000",
            quantity=True,
            statistics=ArrayStatistics("values", by="enmap_quality"),
            # Bands near 1940 nm are mostly noise.
            rules=ValueRules(plausible=(-20000, 30000)),
        ),
        ArraySpec(
            "enmap_quality",
            "enmap",
            ("sample", "y30", "x30"),
            (side, side),
            (1, side, side),
            np.dtype("uint16"),
            ENMAP_FLAGS["outside"],
            {"long_name": "EnMAP quality flags", **flags},
            "bit flags",
            rules=ValueRules(flags=sum(ENMAP_FLAGS.values())),
        ),
    )
    coordinates = tuple(
        CoordinateSpec(
            name, ("sample", "band"), "float32", 0.0, BAND_COORDINATE_CHUNK, {"units": "nm"}, lengths=(bands,)
        )
        for name in ("wavelength", "fwhm")
    )
    return SourceFormat(
        NAME, "EnMAP", "enmap", arrays, coordinates, {"enmap_bands": bands}, COLUMNS, makes_samples=True
    )
