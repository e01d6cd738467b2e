"""From the numbers in Sentinel-2 files to reflectance: the offset, decided scene by scene.

Since processing baseline 04.00 a number is 10000 x reflectance + 1000 (ESA, Sentinel-2 Products Specification
Document 14.9: RADIO_ADD_OFFSET and BOA_ADD_OFFSET). The baseline decides, never the date of sensing. Some archives take
the offset out again and say so in a flag.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from h2crop_data.constants import REFLECTANCE_FILL
from h2crop_data.errors import SceneError

#: What files since baseline 04.00 carry: DN = 10000 x reflectance + 1000.
OFFSET = -1000
OFFSET_SINCE = (4, 0)


@dataclass(frozen=True)
class OffsetEvidence:
    """What an item says about its offset; None where it says nothing."""

    baseline: str | None
    #: The archive's flag that it took the offset out (`earthsearch:boa_offset_applied`).
    removed: bool | None = None
    #: The offset of the bands' metadata (`raster:bands`), in reflectance; -0.1 where it is still in the numbers.
    stated: float | None = None


@dataclass(frozen=True)
class OffsetDecision:
    """What is added to the numbers of a scene, and why."""

    offset: int
    reason: str


def decide_offset(declared: Literal["auto", 0, -1000], evidence: OffsetEvidence) -> OffsetDecision:
    """What to add to the numbers of one scene.

    Raises SceneError where the item does not say enough or contradicts itself.
    """
    if declared != "auto":
        return OffsetDecision(declared, "declared in the recipe")
    if evidence.baseline is None:
        raise SceneError("no processing baseline: declare `sentinel2.offset: 0` or `-1000` in the recipe")
    try:
        major, minor = (int(part) for part in evidence.baseline.lstrip("N").split("."))
    except ValueError as error:
        raise SceneError(f"processing baseline {evidence.baseline!r} is not like 05.11") from error
    if (major, minor) < OFFSET_SINCE:
        offset, reason = 0, f"baseline {evidence.baseline}, before 04.00"
    elif evidence.removed:
        offset, reason = 0, f"baseline {evidence.baseline}, the archive says it removed the offset"
    else:
        offset, reason = OFFSET, f"baseline {evidence.baseline}"
    if evidence.stated is not None and round(evidence.stated * 10000) != offset:
        raise SceneError(
            f"contradiction: {reason} gives offset {offset}, the bands' metadata say {evidence.stated * 10000:.0f}; "
            "look at a dark pixel, then declare `sentinel2.offset` in the recipe"
        )
    return OffsetDecision(offset, reason)


def to_reflectance(numbers: NDArray[np.uint16], offset: int) -> NDArray[np.int16]:
    """Reflectance x 10000 of the numbers in a file, same shape, int16; 0 (nodata) becomes -32768.

    Nothing is clamped below (reflectance may be slightly negative); above, the type ends at 32767.
    """
    shifted = numbers.astype(np.int32) + offset
    np.minimum(shifted, np.iinfo(np.int16).max, out=shifted)
    shifted[numbers == 0] = REFLECTANCE_FILL
    return shifted.astype(np.int16)


def clear_pixels(scl: NDArray[Any], classes: list[int]) -> NDArray[np.bool_]:
    """Whether the scene classification of each pixel is one of the clear classes."""
    lookup = np.zeros(256, bool)
    lookup[classes] = True
    clear: NDArray[np.bool_] = lookup[scl]
    return clear
