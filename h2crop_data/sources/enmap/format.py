"""The format of EnMAP in a store: arrays, coordinates, columns."""

from __future__ import annotations

import numpy as np

from h2crop_data.constants import COARSE, ENMAP_FLAGS, ENMAP_MASK_FLAGS, REFLECTANCE_FILL
from h2crop_data.cube.columns import Column, Dtype
from h2crop_data.cube.schema import (
    BAND_COORDINATE_CHUNK,
    ArraySpec,
    ArrayStatistics,
    CoordinateSpec,
    SourceFormat,
    ValueRules,
    reflectance_attributes,
)
from h2crop_data.shift import APPLIED, NOT_NEEDED

NAME = "enmap"
SHARE_COLUMNS = (
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
#: The detectors, which are measured apart: visible and near infrared, short wave infrared.
DETECTORS = ("vnir", "swir")
#: What becomes of the shift of a scene, beside `shift.py`; after the first three it is known, the others say why not
#: after a colon.
MATCH_REPORTED, OF_DATATAKE = "reported", "datatake"
MATCH_DECISIONS = (APPLIED, NOT_NEEDED, MATCH_REPORTED, OF_DATATAKE, "rejected", "not_measured")
MATCH_TRUSTED = MATCH_DECISIONS[:3]
#: The columns of windows, and of scenes that a match lacks.
MATCH_WINDOWS = "enmap_windows"
REFERENCE_GAPS = "enmap_reference_gaps"
#: What a match says of one detector: name, what it is, unit.
FIGURES = (
    ("east", "shift of the content to the east, against Sentinel-2", "m"),
    ("north", "shift to the north", "m"),
    ("sd_east", "standard deviation of the shift to the east: of the match and of the Sentinel-2 dates together", "m"),
    ("sd_north", "the same northwards", "m"),
    ("match_sd_east", "standard deviation eastwards of the match alone", "m"),
    ("match_sd_north", "the same northwards", "m"),
    ("check_east", "shift to the east by an independent method", "m"),
    ("check_north", "shift to the north by that method", "m"),
    ("correlation", "of its boundaries with those of Sentinel-2", ""),
    ("clear", "ground it was measured on, of that of the scene with Sentinel-2", "share"),
)


#: Dtypes of arrays of layouts of generation 1, where they differ.
FIRST_DTYPES = {"enmap_quality": np.dtype("uint16")}


def later(name: str, dtype: Dtype, text: str, unit: str = "") -> Column:
    """A column that came after format 1.0; an import has none."""
    return Column(name, dtype, text, unit, NAME, "derived", always=False, imported=False)


#: What samples say of the shift of their scene, where a recipe has it measured.
MATCH_COLUMNS = (
    later(
        "enmap_match",
        "text",
        "decision on the shift of its scene: `applied`, `not_needed`, `reported`, `datatake: why`, `rejected: why`, "
        "`not_measured: why`",
    ),
    *(
        later(f"enmap_{detector}_{name}", "number", f"{detector.upper()}: {text}", unit)
        for detector in DETECTORS
        for name, text, unit in FIGURES
    ),
    later(
        MATCH_WINDOWS,
        "texts",
        "the same by window, with the first sample of a block alone: detector, x and y of its middle in metres of the "
        "scene's zone, east and north in metres, "
        "correlation, pixels of 15 m",
    ),
    later("enmap_reference", "texts", "the dates of Sentinel-2 that its scene was matched with"),
    later(REFERENCE_GAPS, "texts", "Sentinel-2 scenes that could not be read for that"),
    later("enmap_reference_aligned", "number", "of these, dates whose own shift is known"),
    later("enmap_reference_sd", "number", "standard deviation of the position of their median along an axis", "m"),
)
#: Angles are those that METADATA.XML states for the centre of the scene.
SCENE_COLUMNS = (
    later("enmap_version", "text", "version of the processor"),
    later("enmap_day_of_year", "integer", "day of acquisition, from 1, in UTC"),
    later("enmap_sun_zenith", "number", "of the sun at the centre of the scene; null where unknown", "degrees"),
    later("enmap_sun_azimuth", "number", "of the sun there, from north over east", "degrees"),
    later("enmap_view_zenith", "number", "of the satellite there, from both off-nadir angles", "degrees"),
    later("enmap_across_off_nadir", "number", "off-nadir angle across the direction of flight", "degrees"),
    later("enmap_along_off_nadir", "number", "off-nadir angle along the direction of flight", "degrees"),
    later(
        "enmap_layers_missing", "texts", "quality layers that the scene lacks: shares of their flags are null, not 0"
    ),
    later("enmap_empty_bands", "texts", "centres of stored bands without data in the scene", "nm"),
    later("enmap_noisy_bands", "texts", "centres of stored bands that are noise in the scene", "nm"),
)
COLUMNS = SHARE_COLUMNS + SCENE_COLUMNS


#: What samples say of the mask of our own, where a recipe has it made. Shares are of the pixels that it looked at; null
#: where it looked at none.
MASK_COLUMNS = (
    later(
        "enmap_own_cloud_share", "number", "pixels that `enmap_mask` marks as cloud, of those it could judge", "share"
    ),
    later("enmap_own_shadow_share", "number", "pixels that it marks as cloud shadow, of those", "share"),
    later(
        "enmap_mask_disagreement",
        "number",
        "pixels that `enmap_mask` marks as cloud or shadow and DLR's layers do not (flags `cloud`, `cloud_shadow`), "
        "or the other way round, of those it could judge; null without these layers",
        "share",
    ),
    later("enmap_mask_alone", "number", "of these, pixels that only `enmap_mask` marks", "share"),
    later("enmap_cloud_height", "number", "of its scene's clouds above ground, from where their shadows lie", "m"),
    later("enmap_mask_doubt", "text", "why clouds could not be detected in its scene; empty where they were"),
)


def enmap_format(bands: int, cell_size: int, *, mask: bool = False) -> SourceFormat:
    """EnMAP reflectance (sample, band, y30, x30) int16 and its flags (sample, y30, x30) uint32.

    mask: whether there is a mask of our own, (sample, y30, x30) uint8.
    """
    side = cell_size // COARSE
    flags = {"flag_masks": list(ENMAP_FLAGS.values()), "flag_meanings": " ".join(ENMAP_FLAGS)}
    arrays: tuple[ArraySpec, ...] = (
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
            statistics=ArrayStatistics("values", by="enmap_quality", also="enmap_mask" if mask else None),
            # Bands near 1940 nm are mostly noise.
            rules=ValueRules(plausible=(-20000, 30000)),
        ),
        ArraySpec(
            "enmap_quality",
            "enmap",
            ("sample", "y30", "x30"),
            (side, side),
            (1, side, side),
            np.dtype("uint32"),
            ENMAP_FLAGS["outside"],
            {"long_name": "EnMAP quality flags", **flags},
            "bit flags",
            rules=ValueRules(flags=sum(ENMAP_FLAGS.values())),
        ),
    )
    if mask:
        arrays = (*arrays, mask_array(side))
    coordinates = tuple(
        CoordinateSpec(
            name, ("sample", "band"), "float32", 0.0, BAND_COORDINATE_CHUNK, {"units": "nm"}, lengths=(bands,)
        )
        for name in ("wavelength", "fwhm")
    )
    columns = (*COLUMNS, *MATCH_COLUMNS, *MASK_COLUMNS)
    return SourceFormat(NAME, "EnMAP", "enmap", arrays, coordinates, True, columns, makes_samples=True)


def mask_array(side: int) -> ArraySpec:
    """The array `enmap_mask`. side: pixels of a sample along a side."""
    flags = {"flag_masks": list(ENMAP_MASK_FLAGS.values()), "flag_meanings": " ".join(ENMAP_MASK_FLAGS)}
    return ArraySpec(
        "enmap_mask",
        "enmap",
        ("sample", "y30", "x30"),
        (side, side),
        (1, side, side),
        np.dtype("uint8"),
        ENMAP_MASK_FLAGS["unseen"],
        {"long_name": "clouds and shadows by EnMAP's own bands", **flags},
        "bit flags",
        rules=ValueRules(flags=sum(ENMAP_MASK_FLAGS.values())),
    )
