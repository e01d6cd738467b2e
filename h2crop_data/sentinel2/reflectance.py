"""From the numbers in Sentinel-2 files to reflectance: the offset, decided scene by scene.

Since processing baseline 04.00 a number is 10000 x reflectance + 1000 (ESA, Sentinel-2 Products Specification
Document 14.9: RADIO_ADD_OFFSET and BOA_ADD_OFFSET). The baseline decides, never the date of sensing. Some archives take
the offset out again and say so in a flag.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from h2crop_data.constants import REFLECTANCE_FILL
from h2crop_data.errors import SceneError

#: What files since baseline 04.00 carry: DN = 10000 x reflectance + 1000.
OFFSET = -1000
OFFSET_SINCE = (4, 0)
#: Baselines from this one on are none of ESA's: private processings call theirs 99.99.
PRIVATE_FROM = (50, 0)
#: The settings that declare the offset of L2A and of L1C.
L2A_OFFSET, L1C_OFFSET = "sentinel2.offset", "sentinel2.clouds.l1c.offset"
#: Unsigned numbers from here to 65535 are -1000 to -1 counted from the other end, or saturated.
WRAPPED = 2**16 - 1000
#: What stands for no number where numbers have a sign.
NO_NUMBER = int(np.iinfo(np.int32).min)


class UndecidedOffsetError(SceneError):
    """An item does not state its offset, or contradicts itself; its pixels may decide it."""

    def __init__(self, statement: str, setting: str) -> None:
        """statement: what the item says. setting: the place in the recipe that may declare the offset."""
        super().__init__(f"{statement}; look at a dark pixel, then declare `{setting}: 0` or `-1000` in the recipe")
        self.statement = statement


@dataclass(frozen=True)
class OffsetEvidence:
    """The statements of an item about its offset; None where it has none."""

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
    #: The baseline in the name of its product, `05.11` of `..._N0511_...`.
    named: str | None = None
    #: Why items of its collection are not to be believed since baseline 04.00; empty where they are.
    doubt: str = ""
    #: Bands whose numbers are not those that ESA wrote: floating point, or of another scale than 0.0001.
    rescaled: frozenset[str] = frozenset()


@dataclass(frozen=True)
class OffsetDecision:
    """The number that is added to the values of a scene, and why."""

    offset: int
    reason: str
    #: What item or pixels say against a declared offset; empty where they say nothing against it.
    warning: str = ""
    #: What the pixels showed, with figures, where they were looked at.
    evidence: str = ""


def decide_offset(
    declared: Literal["auto", 0, -1000], evidence: OffsetEvidence, setting: str = L2A_OFFSET
) -> OffsetDecision:
    """What to add to the numbers of one scene, by what its item says.

    setting: the place in the recipe that may declare it. A declared offset holds, with a warning where the item says
    otherwise. Raises UndecidedOffsetError where the offset is not declared and the item does not say enough or
    contradicts itself, SceneError where its files differ.
    """
    if declared == "auto":
        return offset_of_item(evidence, setting)
    reason = "declared in the recipe"
    try:
        own = offset_of_item(replace(evidence, doubt=""))
    except SceneError:
        # It says nothing, or one thing and another: that is what declaring is for.
        return OffsetDecision(declared, reason, bands_against(declared, evidence, setting))
    if own.offset == declared:
        return OffsetDecision(declared, reason)
    contradiction = f"`{setting}: {declared}` is declared, the item says {own.offset} ({own.reason})"
    return OffsetDecision(declared, reason, contradiction)


def bands_against(declared: int, evidence: OffsetEvidence, setting: str) -> str:
    """What the metadata of the bands say against a declared offset of an item that leaves it open; empty: nothing.

    Bands that agree with each other contradict a declaration only where there is no baseline: else the archive's flag
    says the opposite of them.
    """
    stated = sorted({round(value * 10000) for value in evidence.stated.values()})
    if len(stated) > 1 or (stated and evidence.baseline is None and stated != [declared]):
        said = ", ".join(map(str, stated))
        return f"`{setting}: {declared}` is declared, the metadata of the bands state {said}"
    return ""


def offset_of_item(evidence: OffsetEvidence, setting: str = L2A_OFFSET) -> OffsetDecision:
    """What to add by what an item says.

    Raises UndecidedOffsetError where it does not say enough or contradicts itself, SceneError where its files differ.
    """
    baseline, has_offset = baseline_of_item(evidence, setting)
    if not has_offset:
        offset, reason = 0, f"baseline {baseline}, before 04.00"
    elif evidence.removed and evidence.jpeg2000:
        if evidence.jpeg2000 != evidence.bands:
            raise SceneError(
                "contradiction: the archive says it removed the offset, but files in JPEG 2000 keep it, and "
                f"{', '.join(sorted(evidence.jpeg2000))} are in JPEG 2000, others are not; leave the scene out"
            )
        offset = OFFSET
        reason = f"baseline {baseline}; the files are JPEG 2000, of which “offset removed” is not true"
    elif evidence.removed:
        offset, reason = 0, f"baseline {baseline}, the archive says it removed the offset"
    else:
        offset, reason = OFFSET, f"baseline {baseline}"
    others = {band: value for band, value in evidence.stated.items() if round(value * 10000) != offset}
    if others:
        values = ", ".join(f"{value * 10000:.0f}" for value in sorted(set(others.values())))
        which = (
            "the bands' metadata" if len(others) == len(evidence.stated) else f"those of {', '.join(sorted(others))}"
        )
        raise UndecidedOffsetError(f"contradiction: {reason} gives offset {offset}, {which} say {values}", setting)
    if has_offset:
        check_believable(evidence, reason, setting)
    return OffsetDecision(offset, reason)


def check_believable(evidence: OffsetEvidence, reason: str, setting: str) -> None:
    """Raise UndecidedOffsetError where what an item says since baseline 04.00 is no proof. reason: what it says.

    Files that are all JPEG 2000 are as ESA made them, whatever is wrong with other items of the collection.
    """
    if evidence.doubt and (not evidence.bands or evidence.jpeg2000 != evidence.bands):
        raise UndecidedOffsetError(f"{reason}, but {evidence.doubt}", setting)
    silent = sorted(evidence.rescaled - evidence.stated.keys())
    if silent and not evidence.removed:
        raise UndecidedOffsetError(
            f"{reason}, but the numbers of {', '.join(silent)} are not those that ESA wrote (another scale, or "
            "floating point), and their metadata state no offset",
            setting,
        )


def baseline_of_item(evidence: OffsetEvidence, setting: str) -> tuple[str, bool]:
    """The processing baseline of an item, and whether products of that baseline have the offset.

    Raises UndecidedOffsetError where it states none of ESA's, or another one than the name of its product on the other
    side of 04.00.
    """
    numbers = {text: number_of_baseline(text) for text in (evidence.baseline, evidence.named) if text is not None}
    usable = {text: number for text, number in numbers.items() if number is not None and number < PRIVATE_FROM}
    if not numbers:
        raise UndecidedOffsetError("no processing baseline", setting)
    if not usable:
        text, number = next(iter(numbers.items()))
        raise UndecidedOffsetError(
            f"processing baseline {text!r} is {'not like 05.11' if number is None else 'none of ESA'}", setting
        )
    since = {text: number >= OFFSET_SINCE for text, number in usable.items()}
    if len(set(since.values())) > 1:
        raise UndecidedOffsetError(
            f"contradiction: baseline {evidence.baseline} is stated, the name of the product says {evidence.named}",
            setting,
        )
    return next(iter(since.items()))


def number_of_baseline(text: str) -> tuple[int, int] | None:
    """A processing baseline, `05.11`, as two numbers; None for other text."""
    try:
        major, minor = (int(part) for part in text.lstrip("N").split("."))
    except ValueError:
        return None
    return major, minor


def sentinel2_reflectance(
    numbers: NDArray[np.uint8] | NDArray[np.uint16] | NDArray[np.int32], offset: int
) -> NDArray[np.int16]:
    """Reflectance x 10000 of the numbers in a file, same shape, int16; missing numbers become -32768.

    numbers: uint8 or uint16, 0 where there is none; or, of files with a sign, int32, NO_NUMBER where there is none.
    Nothing is clamped below (reflectance may be slightly negative); above, the type ends at 32767, so that numbers near
    65535 (negative reflectance of an archive that took the offset out in unsigned numbers, or saturation) are far above
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
    shifted[numbers == (0 if numbers.dtype.kind == "u" else NO_NUMBER)] = REFLECTANCE_FILL
    return shifted.astype(np.int16)
