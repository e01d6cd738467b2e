"""From the numbers in Sentinel-2 files to reflectance: the offset, decided scene by scene.

Since processing baseline 04.00 a number is 10000 x reflectance + 1000 (ESA, Sentinel-2 Products Specification
Document 14.9: RADIO_ADD_OFFSET and BOA_ADD_OFFSET). The baseline decides, never the date of sensing. Some archives take
the offset out again and say so in a flag.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from h2crop_data.constants import REFLECTANCE_FILL
from h2crop_data.errors import SceneError

#: What files since baseline 04.00 carry: DN = 10000 x reflectance + 1000.
OFFSET = -1000
OFFSET_SINCE = (4, 0)
#: Unsigned numbers from here to 65535 are -1000 to -1 counted from the other end, or saturated.
WRAPPED = 2**16 - 1000
#: What stands for no number where numbers have a sign.
NO_NUMBER = int(np.iinfo(np.int32).min)


@dataclass(frozen=True)
class OffsetEvidence:
    """What an item says about its offset; None where it says nothing."""

    baseline: str | None
    #: The archive's flag that it took the offset out (`earthsearch:boa_offset_applied`).
    removed: bool | None = None
    #: The offset that the metadata of each band state (`raster:bands`), in reflectance, for the bands that state one;
    #: -0.1 where it is still in the numbers.
    stated: Mapping[str, float] = field(default_factory=dict)
    #: Bands whose files are JPEG 2000: as ESA made them, which no archive takes an offset out of.
    jpeg2000: frozenset[str] = frozenset()
    #: Every band that was looked at.
    bands: frozenset[str] = frozenset()


@dataclass(frozen=True)
class OffsetDecision:
    """What is added to the numbers of a scene, and why."""

    offset: int
    reason: str
    #: What the item says against a declared offset; empty where it says nothing against it.
    warning: str = ""


def decide_offset(declared: Literal["auto", 0, -1000], evidence: OffsetEvidence) -> OffsetDecision:
    """What to add to the numbers of one scene.

    A declared offset holds, with a warning where the item says otherwise. Raises SceneError where the offset is not
    declared and the item does not say enough or contradicts itself.
    """
    if declared == "auto":
        return offset_of_item(evidence)
    reason = "declared in the recipe"
    try:
        own = offset_of_item(evidence)
    except SceneError:
        # It says nothing, or one thing and another: that is what declaring is for.
        return OffsetDecision(declared, reason, bands_against(declared, evidence))
    if own.offset == declared:
        return OffsetDecision(declared, reason)
    contradiction = f"`sentinel2.offset: {declared}` is declared, the item says {own.offset} ({own.reason})"
    return OffsetDecision(declared, reason, contradiction)


def bands_against(declared: int, evidence: OffsetEvidence) -> str:
    """What the metadata of the bands say against a declared offset of an item that leaves it open; empty: nothing.

    Bands that agree with each other contradict a declaration only where there is no baseline: else the archive's flag
    says the opposite of them.
    """
    stated = sorted({round(value * 10000) for value in evidence.stated.values()})
    if len(stated) > 1 or (stated and evidence.baseline is None and stated != [declared]):
        said = ", ".join(map(str, stated))
        return f"`sentinel2.offset: {declared}` is declared, the metadata of the bands say {said}"
    return ""


def offset_of_item(evidence: OffsetEvidence) -> OffsetDecision:
    """What to add by what an item says. Raises SceneError where it does not say enough or contradicts itself."""
    if evidence.baseline is None:
        raise SceneError("no processing baseline: declare `sentinel2.offset: 0` or `-1000` in the recipe")
    try:
        major, minor = (int(part) for part in evidence.baseline.lstrip("N").split("."))
    except ValueError as error:
        raise SceneError(f"processing baseline {evidence.baseline!r} is not like 05.11") from error
    if (major, minor) < OFFSET_SINCE:
        offset, reason = 0, f"baseline {evidence.baseline}, before 04.00"
    elif evidence.removed and evidence.jpeg2000:
        if evidence.jpeg2000 != evidence.bands:
            raise SceneError(
                "contradiction: the archive says it removed the offset, but files in JPEG 2000 keep it, and "
                f"{', '.join(sorted(evidence.jpeg2000))} are in JPEG 2000, others are not; leave the scene out"
            )
        offset = OFFSET
        reason = f"baseline {evidence.baseline}; the files are JPEG 2000, of which “offset removed” is not true"
    elif evidence.removed:
        offset, reason = 0, f"baseline {evidence.baseline}, the archive says it removed the offset"
    else:
        offset, reason = OFFSET, f"baseline {evidence.baseline}"
    others = {band: value for band, value in evidence.stated.items() if round(value * 10000) != offset}
    if others:
        values = ", ".join(f"{value * 10000:.0f}" for value in sorted(set(others.values())))
        which = (
            "the bands' metadata" if len(others) == len(evidence.stated) else f"those of {', '.join(sorted(others))}"
        )
        raise SceneError(
            f"contradiction: {reason} gives offset {offset}, {which} say {values}; "
            "look at a dark pixel, then declare `sentinel2.offset` in the recipe"
        )
    return OffsetDecision(offset, reason)


def sentinel2_reflectance(numbers: NDArray[np.uint16] | NDArray[np.int32], offset: int) -> NDArray[np.int16]:
    """Reflectance x 10000 of the numbers in a file, same shape, int16; what is no number becomes -32768.

    numbers: uint16, 0 where there is none; or, of files with a sign, int32, NO_NUMBER where there is none. Nothing is
    clamped below (reflectance may be slightly negative); above, the type ends at 32767, so that numbers near 65535
    (negative reflectance of an archive that took the offset out in unsigned numbers, or saturation) are far above
    BRIGHTEST and never clear.
    """
    if numbers.dtype == np.uint16 and -np.iinfo(np.int16).max <= offset <= 0:
        # In 16 bits: what is cut at the top fits, and a sum modulo 2^16 is right when read with a sign.
        reflectance = np.minimum(numbers, np.uint16(np.iinfo(np.int16).max - offset))
        reflectance += np.uint16(offset % 2**16)
        signed = reflectance.view(np.int16)
        signed[numbers == 0] = REFLECTANCE_FILL
        return signed
    # At least one above the fill, whatever stands in a file with a sign.
    shifted = np.clip(numbers.astype(np.int32), REFLECTANCE_FILL + 1 - offset, np.iinfo(np.int16).max - offset)
    shifted += offset
    shifted[numbers == (0 if numbers.dtype == np.uint16 else NO_NUMBER)] = REFLECTANCE_FILL
    return shifted.astype(np.int16)
