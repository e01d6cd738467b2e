"""The format of declared parcels in a store: labels of the season and of the year before, parcel numbers, columns."""

from __future__ import annotations

import numpy as np

from h2crop_data.constants import FINE, TIERS, UNKNOWN
from h2crop_data.cube.columns import Column
from h2crop_data.cube.schema import ArraySpec, ArrayStatistics, CoordinateSpec, SourceFormat

NAME = "parcels"
COLUMNS = (
    Column("parcels", "integer", "how many have a pixel", source=NAME, known="derived"),
    Column("declared_share", "number", "pixels of a parcel", "share", NAME, "derived"),
    Column("class_share", "numbers", "pixels with a class, by tier", "share", NAME, "derived", TIERS, filled=True),
)


def parcels_format(cell_size: int) -> SourceFormat:
    """Labels and priors (sample, tier, y, x) uint8, parcel numbers (sample, y, x) uint32."""
    side = cell_size // FINE
    meaning = {"note": "0 not declared, 1..N class of the tier, 255 unknown at this tier"}
    tiers = [
        ArraySpec(
            name,
            "labels",
            ("sample", "tier", "y", "x"),
            (TIERS, side, side),
            (1, TIERS, side, side),
            np.dtype("uint8"),
            UNKNOWN,
            {"long_name": description, **meaning},
            "class id",
            statistics=ArrayStatistics("classes"),
        )
        for name, description in (("label", "declared crop"), ("prior", "declared crop of the year before"))
    ]
    numbers = ArraySpec(
        "parcel",
        "labels",
        ("sample", "y", "x"),
        (side, side),
        (1, side, side),
        np.dtype("uint32"),
        0,
        {"long_name": "parcel number of the season; 0 none"},
        "number",
        statistics=ArrayStatistics("numbers", by="label"),
    )
    coordinates = (CoordinateSpec("tier", ("tier",), "int8", 0, None, values=tuple(range(1, TIERS + 1))),)
    return SourceFormat(NAME, "declared parcels", "labels", (*tiers, numbers), coordinates, True, COLUMNS)
