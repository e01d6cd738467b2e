"""What EnMAP's METADATA.XML says of a product, and the choice and order of its bands."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any
from xml.etree import ElementTree

import numpy as np
from numpy.typing import NDArray

from h2crop_data.constants import REFLECTANCE_FILL, REFLECTANCE_SCALE
from h2crop_data.errors import SceneError


@dataclass(frozen=True)
class Band:
    """One band of the spectral image."""

    #: Position in the file, from 1.
    number: int
    #: Centre wavelength and full width at half maximum in nm.
    wavelength: float
    fwhm: float
    #: reflectance = gain x DN + offset.
    gain: float
    offset: float


@dataclass(frozen=True)
class Product:
    """What METADATA.XML says; processing facts are kept as they stand there, for provenance."""

    bands: tuple[Band, ...]
    sun_elevation: float | None
    processing: dict[str, str]


#: Tags kept for provenance where a product has them: terrain and correction mode, cirrus and haze removal.
PROCESSING_TAGS = (
    "correctionType",
    "terrainCorrection",
    "cirrusHazeRemoval",
    "season",
    "ozoneValue",
    "sceneAOT",
    "sceneWV",
)


def parse_metadata(xml: str) -> Product:
    """Read METADATA.XML of an EnMAP L2A product. Raises SceneError for anything else."""
    start = xml.lstrip("\ufeff \t\r\n")[:60]
    hint = " (a login page? check the account)" if "<html" in xml[:1000].lower() else ""
    try:
        root = ElementTree.fromstring(xml)
    except ElementTree.ParseError as error:
        raise SceneError(f"METADATA.XML is not XML: {error}; it begins {start!r}{hint}") from error
    nodes = root.findall("specific/bandCharacterisation/bandID")
    if not nodes:
        raise SceneError(
            "METADATA.XML has no specific/bandCharacterisation/bandID: not an EnMAP product's; "
            f"it begins {start!r}{hint}"
        )
    try:
        bands = tuple(
            Band(
                number=int(node.attrib["number"]),
                wavelength=number_in(node, "wavelengthCenterOfBand"),
                fwhm=number_in(node, "FWHMOfBand"),
                gain=number_in(node, "GainOfBand"),
                offset=number_in(node, "OffsetOfBand"),
            )
            for node in nodes
        )
        centre = root.findtext("specific/sunElevationAngle/center")
        sun_elevation = float(centre) if centre else None
    except (KeyError, ValueError) as error:
        raise SceneError(f"METADATA.XML: a band or angle is damaged ({error})") from error
    if sorted(band.number for band in bands) != list(range(1, len(bands) + 1)):
        raise SceneError("METADATA.XML: the band numbers are not 1..N")
    processing = {tag: text.strip() for tag in PROCESSING_TAGS if (text := root.findtext(f".//{tag}"))}
    return Product(bands, sun_elevation, processing)


def number_in(node: ElementTree.Element, tag: str) -> float:
    """The number in a child element. Raises ValueError where there is none."""
    text = node.findtext(tag)
    if text is None:
        raise ValueError(f"band {node.attrib.get('number')} has no {tag}")
    return float(text)


def select_bands(bands: Sequence[Band], exclude_nm: Sequence[tuple[float, float]], count: int) -> list[Band]:
    """The bands to store, in order of wavelength: all but those with their centre in one of the excluded ranges.

    Raises SceneError where their number is not `count`.
    """
    kept = [band for band in bands if not any(low <= band.wavelength <= high for low, high in exclude_nm)]
    if len(kept) != count:
        ranges = ", ".join(f"{low:g}-{high:g}" for low, high in exclude_nm) or "nothing"
        raise SceneError(
            f"{len(bands)} bands less {ranges} nm leave {len(kept)}, the recipe's enmap.bands.count is {count}: "
            "an older processing version? Change enmap.bands or leave the scene out"
        )
    return sorted(kept, key=lambda band: band.wavelength)


def enmap_reflectance(numbers: NDArray[np.int16], bands: Sequence[Band], nodata: int) -> NDArray[Any]:
    """Reflectance x 10000 of the numbers in a file, (band, y, x); fill -32768.

    numbers: (band, y, x) of `bands`. int16 as they are where gain and offset say so (the usual case), else float32, to
    be rounded once, after resampling.
    """
    gain = np.array([band.gain for band in bands]) / REFLECTANCE_SCALE
    offset = np.array([band.offset for band in bands]) / REFLECTANCE_SCALE
    missing = numbers == nodata
    if np.allclose(gain, 1, rtol=1e-6, atol=0) and not offset.any():
        return np.where(missing, np.int16(REFLECTANCE_FILL), numbers)
    scaled = numbers.astype(np.float32) * gain[:, None, None].astype(np.float32) + offset[:, None, None]
    return np.where(missing, np.float32(REFLECTANCE_FILL), scaled.astype(np.float32))
