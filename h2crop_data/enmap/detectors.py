"""Which of EnMAP's two detectors took a band: VNIR (418-994 nm) or SWIR (901-2446 nm).

Each has a telescope path of its own and lies where it lies, so they are matched apart. From 898 to 999 nm both have
bands, which stand by turns in a file in order of wavelength; elsewhere the wavelength decides.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import pairwise
from typing import Literal

from h2crop_data.errors import SceneError

Detector = Literal["vnir", "swir"]

#: Between these wavelengths in nm both detectors have bands. The outermost of them lie near 902 nm (SWIR) and 993 nm
#: (VNIR), the nearest beyond at 895.6 (VNIR) and 1004 nm (SWIR); centres move by up to 0.4 nm from scene to scene.
DETECTOR_OVERLAP = (898.5, 998.5)
#: There VNIR bands are wider than SWIR bands of the same wavelength: by 1.0 nm at 903 nm, by 0.37 nm at 993 nm (scenes
#: of 2022 and 2023, whose widths are the same). Halfway between: wavelength and width in nm.
DIVIDING_WIDTHS = ((903.0, 9.67), (993.0, 10.454))
#: Bands of one detector lie 8 nm and more apart in the overlap; nearer ones were not told apart.
NEAREST_BANDS = 6.0


def enmap_detectors(
    wavelengths: Sequence[float],
    widths: Sequence[float],
    stated: Mapping[int, Detector] | None = None,
    vnir_count: int | None = None,
) -> tuple[Detector, ...]:
    """The detector of each band, in order of their numbers.

    wavelengths, widths: centre and full width at half maximum in nm, of bands 1, 2, ... stated: band number -> detector
    as METADATA.XML lists them; bands may be missing. vnir_count: how many it says the VNIR detector has.

    What decides in the overlap: the lists; without them the order of the bands, where it is by detector; else the
    widths, of which the `vnir_count` widest against the dividing line are VNIR. A decision that gives one detector two
    bands closer than possible is rejected. Raises SceneError where none is left.
    """
    by_width = from_widths(wavelengths, widths, vnir_count)
    guesses = (
        tuple(stated.get(i + 1, by_width[i]) for i in range(len(wavelengths))) if stated else None,
        from_order(wavelengths),
        by_width,
    )
    for guess in guesses:
        if guess is not None and is_possible(wavelengths, guess):
            return guess
    raise SceneError(
        f"METADATA.XML: cannot decide which bands between {DETECTOR_OVERLAP[0]:g} and {DETECTOR_OVERLAP[1]:g} nm "
        "are of the VNIR and which of the SWIR detector, neither by its lists of channels nor by the order and "
        "widths of the bands"
    )


def from_wavelength(wavelength: float) -> Detector | None:
    """The only detector with bands at a wavelength in nm; None in the overlap."""
    if wavelength < DETECTOR_OVERLAP[0]:
        return "vnir"
    return "swir" if wavelength > DETECTOR_OVERLAP[1] else None


def from_order(wavelengths: Sequence[float]) -> tuple[Detector, ...] | None:
    """The detectors of bands that stand one detector after the other; None where they stand otherwise."""
    falls = [i + 1 for i, (one, other) in enumerate(pairwise(wavelengths)) if other < one]
    if len(falls) != 1:
        return None
    orders: tuple[tuple[Detector, Detector], ...] = (("vnir", "swir"), ("swir", "vnir"))
    for first, second in orders:
        guess = (first,) * falls[0] + (second,) * (len(wavelengths) - falls[0])
        if is_possible(wavelengths, guess):
            return guess
    return None


def from_widths(wavelengths: Sequence[float], widths: Sequence[float], vnir_count: int | None) -> tuple[Detector, ...]:
    """The detectors by wavelength and, in the overlap, by the widths of the bands."""
    (start, low), (end, high) = DIVIDING_WIDTHS
    slope = (high - low) / (end - start)
    known = [from_wavelength(wavelength) for wavelength in wavelengths]
    wider = {
        i: widths[i] - (low + (wavelengths[i] - start) * slope) for i, detector in enumerate(known) if detector is None
    }
    wanted = None if vnir_count is None else vnir_count - known.count("vnir")
    if wanted is None or not 0 <= wanted <= len(wider):
        wanted = sum(excess > 0 for excess in wider.values())
    in_vnir = set(sorted(wider, key=lambda i: wider[i], reverse=True)[:wanted])
    return tuple(detector or ("vnir" if i in in_vnir else "swir") for i, detector in enumerate(known))


def is_possible(wavelengths: Sequence[float], detectors: Sequence[Detector]) -> bool:
    """Whether each band lies where its detector has bands, and far enough from the next in the overlap."""
    if any(from_wavelength(w) not in (None, detector) for w, detector in zip(wavelengths, detectors, strict=True)):
        return False
    for detector in ("vnir", "swir"):
        own = sorted(
            w
            for w, other in zip(wavelengths, detectors, strict=True)
            if other == detector and from_wavelength(w) is None
        )
        if any(longer - shorter < NEAREST_BANDS for shorter, longer in pairwise(own)):
            return False
    return True
