"""The format of Sentinel-2 in a store: arrays, coordinates, columns."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from h2crop_data.constants import FINE, MONTHS, REFLECTANCE_FILL
from h2crop_data.cube.columns import Column
from h2crop_data.cube.schema import (
    ArraySpec,
    ArrayStatistics,
    CoordinateSpec,
    SourceFormat,
    ValueRules,
    reflectance_attributes,
)
from h2crop_data.cube.windows import TIME_AXIS

NAME = "sentinel2"
COLUMNS = (
    Column("s2_dates", "texts", "days with a clear pixel", source=NAME, known="derived", filled=True),
    Column(
        "s2_clear_share", "numbers", "pixels with a clear look, by month", "share", NAME, "derived", MONTHS, filled=True
    ),
    Column("s2_gaps", "texts", "scenes over it that could not be read", "", NAME, "derived", filled=True),
    Column(
        "s2_impossible",
        "texts",
        "scenes with clear pixels whose values are impossible for ground: above reflectance 2, overflowed or "
        "saturated; such pixels are not used",
        source=NAME,
        known="derived",
        always=False,
    ),
    Column(
        "s2_differences",
        "texts",
        "contradictions between items of scenes over it and their files, `scene: what (assets)`; the files were "
        "used; null where there are none, no column where no sample has any",
        source=NAME,
        known="derived",
        always=False,
    ),
)
BLOCK_COLUMNS = (Column("s2_items", "texts", "scenes over the block", source=NAME, filled=True, scenes=True),)
#: What `alignment` says of dates whose shift is known, and all it says; the last two are followed by why.
TRUSTED = ("applied", "reported", "not_needed")
DECISIONS = (*TRUSTED, "rejected", "not_measured")
#: What `refined` says.
REFINEMENT_WORDS = ("refined", "not refined", "unknown")
SHIFT_COLUMNS = (
    Column(
        "shift_east",
        "number",
        "shift of its content to the east, against the datum, the median of all dates",
        "m",
        NAME,
    ),
    Column("shift_north", "number", "shift to the north", "m", NAME),
    Column("shift_sd", "number", "standard deviation of the shift along an axis", "m", NAME),
    Column("shift_spread", "number", "standard deviation of the windows of the tile along an axis", "m", NAME),
    Column("shift_check", "number", "distance of an independent measurement from it", "m", NAME),
    Column("shift_correlation", "number", "of its edges with those that all dates have in common", "", NAME),
    Column("shift_clear", "number", "ground it was measured on, of what any date shows", "share", NAME),
    Column(
        "alignment",
        "text",
        "decision on the shift: `applied`, `reported`, `not_needed`, `rejected: why`, `not_measured: why`",
        source=NAME,
    ),
    Column(
        "refined",
        "text",
        "whether ESA refined the geometry of its images: `refined`, `not refined`, `unknown`",
        source=NAME,
    ),
)
DATE_COLUMNS = (
    Column("items", "texts", "scenes that show the date, in the order they are asked", source=NAME, scenes=True),
    Column("l1c", "texts", "L1C scenes used to detect clouds", source=NAME, scenes=True),
    Column("methods", "texts", "cloud methods, with their versions", source=NAME),
    Column("sun_azimuth", "number", "of the sun over the tile, from the grid's north over east", "degrees", NAME),
    Column("sun_elevation", "number", "of the sun over the tile", "degrees", NAME),
    Column("imaged", "number", "pixels of the tile that were imaged", "share", NAME),
    Column("clear", "number", "of these, clear", "share", NAME),
    Column("cloud", "number", "of these, cloud by a method", "share", NAME),
    Column("shadow", "number", "of these, shadow by a method", "share", NAME),
    Column("cast_shadow", "number", "of these, dark where a cloud casts its shadow", "share", NAME),
    Column("snow", "number", "of these, snow", "share", NAME),
    Column("second_look", "number", "of these, brighter or darker than the dates before and after", "share", NAME),
    Column("near", "number", "of these, near a cloud or shadow", "share", NAME),
    Column("unusable", "number", "of these, of another class that is not clear", "share", NAME),
    Column("cloud_probability", "number", "mean over the tile, by the method that states the most", "", NAME),
    Column("skipped", "text", "why the date is not used; empty where it is", source=NAME),
    Column("gaps", "texts", "scenes of it that could not be read", source=NAME),
    # Where the shift of each date is measured.
    *(replace(column, always=False) for column in SHIFT_COLUMNS),
)


#: Attributes of arrays in stores of format 1, where they differ.
FIRST_ATTRIBUTES = {
    "s2_day": {"long_name": "median day of year of the clear observations, rounded down; 0 none", "units": "1"}
}


def sentinel2_format(bands: Sequence[str], cell_size: int) -> SourceFormat:
    """Monthly Sentinel-2 composites int16, clear observations uint8 and day of the season uint16, chunked by month."""
    side = cell_size // FINE
    monthly = ("sample", TIME_AXIS, "y", "x")
    arrays = (
        ArraySpec(
            "s2",
            "s2",
            ("sample", TIME_AXIS, "s2_band", "y", "x"),
            (MONTHS, len(bands), side, side),
            (1, 1, len(bands), side, side),
            np.dtype("int16"),
            REFLECTANCE_FILL,
            reflectance_attributes("Sentinel-2 L2A monthly composite, offset removed"),
            "reflectance x 10000",
            quantity=True,
            statistics=ArrayStatistics("values"),
            rules=ValueRules(plausible=(-2000, 20000), fill="whole pixels"),
        ),
        ArraySpec(
            "s2_clear",
            "s2",
            monthly,
            (MONTHS, side, side),
            (1, 1, side, side),
            np.dtype("uint8"),
            0,
            {"long_name": "clear observations behind the pixel", "units": "1"},
            "days",
            quantity=True,
            statistics=ArrayStatistics("counts", key="clear_observations"),
        ),
        ArraySpec(
            "s2_day",
            "s2",
            monthly,
            (MONTHS, side, side),
            (1, 1, side, side),
            np.dtype("uint16"),
            0,
            {"long_name": "median day of the season of the clear observations, rounded down; 0 none", "units": "1"},
            "day of the season",
            quantity=True,
        ),
    )
    coordinates = (CoordinateSpec("s2_band", ("s2_band",), "string", "", None, values=tuple(bands)),)
    return SourceFormat(
        NAME,
        "Sentinel-2",
        "s2",
        arrays,
        coordinates,
        True,
        COLUMNS,
        BLOCK_COLUMNS,
        DATE_COLUMNS,
        has_offsets=True,
    )
