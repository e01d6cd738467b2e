"""The mean and the standard deviation of each band, for the configuration of the published code.

That code normalises by (number - mean) / sd, with `s2_mean`, `s2_std`, `EnMAP_mean` and `EnMAP_std` of its
configuration, in the numbers of the files.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from h2crop_data.constants import REFLECTANCE_SCALE, SENTINEL2_BANDS
from h2crop_data.storage.storage import canonical_json

#: What the published code calls an image, its array in a store's statistics, and its name in the configuration.
PUBLISHED_IMAGES = (("S2", "s2", "s2"), ("EnMAP", "enmap", "EnMAP"))
#: Of a band without a measured pixel, or with one value only: it must not be divided by 0.
UNKNOWN_MEAN, UNKNOWN_SD = 0.0, 1.0


def normalisation_files(reflectance: Mapping[str, Any], s2_offset: int) -> dict[str, bytes]:
    """`normalisation.json` and `normalisation.py` of a store's statistics; none without a training split.

    reflectance: as in `statistics.json`, or of its first `months`. s2_offset: what the exported Sentinel-2 numbers are
    above the stored ones.
    """
    bands = {
        name: statistics_in_numbers(reflectance[key], s2_offset if key == "s2" else 0)
        for name, key, _ in PUBLISHED_IMAGES
        if reflectance.get(key)
    }
    if not bands:
        return {}
    note = (
        f"value = (number - mean) / sd; Sentinel-2 in the order {' '.join(SENTINEL2_BANDS)}, EnMAP in order of "
        f"wavelength; over {reflectance['samples']} sample(s) of the split {reflectance['split']}, measured pixels only"
    )
    if "months" in reflectance:
        note += f", until the end of month {reflectance['months']}"
    return {
        "normalisation.json": canonical_json({"what": note, **bands}).encode(),
        "normalisation.py": configuration(bands, note).encode(),
    }


def statistics_in_numbers(statistics: Sequence[Mapping[str, Any]], offset: int) -> dict[str, list[float]]:
    """Mean and standard deviation of each band in the numbers of the files."""
    mean, sd = [], []
    for band in statistics:
        measured = band["count"] > 0
        mean.append(band["mean"] / REFLECTANCE_SCALE + offset if measured else UNKNOWN_MEAN)
        sd.append(band["sd"] / REFLECTANCE_SCALE if measured and band["sd"] > 0 else UNKNOWN_SD)
    return {"mean": mean, "sd": sd}


def configuration(bands: Mapping[str, Mapping[str, list[float]]], note: str) -> str:
    """The lines that take the place of those of the published configuration."""
    lines = [f"# {note}"]
    for name, _, prefix in PUBLISHED_IMAGES:
        if name in bands:
            lines += [f"{prefix}_mean = {bands[name]['mean']}", f"{prefix}_std = {bands[name]['sd']}"]
    for key in ("mean", "std"):
        together = ", ".join(f"'{name}': {prefix}_{key}" for name, _, prefix in PUBLISHED_IMAGES if name in bands)
        lines.append(f"{key} = {{{together}}}")
    return "\n".join(lines) + "\n"
