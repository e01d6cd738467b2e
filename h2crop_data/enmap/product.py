"""Parses EnMAP's METADATA.XML, and chooses and orders the bands."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any
from xml.etree import ElementTree

import numpy as np
from numpy.typing import NDArray

from h2crop_data.constants import REFLECTANCE_FILL, REFLECTANCE_SCALE
from h2crop_data.enmap.detectors import Detector, enmap_detectors
from h2crop_data.errors import SceneError

#: Mean radius of the Earth, and EnMAP's height over ground at 48 degrees north (mission's instrument page), km.
EARTH_RADIUS, ORBIT_HEIGHT = 6371.0, 653.0


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
    detector: Detector


@dataclass(frozen=True)
class Angles:
    """Angles of sun and satellite in degrees, as METADATA.XML states them for the centre; None where it does not."""

    sun_elevation: float | None = None
    sun_azimuth: float | None = None
    #: Off nadir, to the right of the direction of flight and along it.
    across_off_nadir: float | None = None
    along_off_nadir: float | None = None

    @property
    def view_zenith(self) -> float | None:
        """Zenith angle of the satellite, seen from the ground of a spherical Earth; None where an angle is missing."""
        if self.across_off_nadir is None or self.along_off_nadir is None:
            return None
        across, along = math.radians(self.across_off_nadir), math.radians(self.along_off_nadir)
        off_nadir = math.atan(math.hypot(math.tan(across), math.tan(along)))
        return math.degrees(math.asin(math.sin(off_nadir) * (EARTH_RADIUS + ORBIT_HEIGHT) / EARTH_RADIUS))


@dataclass(frozen=True)
class Product:
    """The content of METADATA.XML; processing facts are kept unchanged, for provenance."""

    bands: tuple[Band, ...]
    angles: Angles
    processing: dict[str, str]
    #: The number that stands for nodata in the image; None where it is not stated.
    background: int | None = None


#: Tags kept for provenance where a product has them: version, terrain and correction mode, cirrus and haze removal.
PROCESSING_TAGS = (
    "archivedVersion",
    "correctionType",
    "terrainCorrection",
    "cirrusHazeRemoval",
    "bandInterpolation",
    "waterType",
    "season",
    "ozoneValue",
    "sceneAOT",
    "sceneWV",
)
#: The elements of the angles, in the order of `Angles`.
ANGLE_TAGS = ("sunElevationAngle", "sunAzimuthAngle", "acrossOffNadirAngle", "alongOffNadirAngle")
#: The number of the pixels without a measurement, as the archive and as other writers of the tag spell it.
BACKGROUND_TAGS = ("backgroundValue", "BackgroundValue")
#: Where the lists of a detector's channels stand: numbers of bands in the file, with commas between them.
CHANNEL_LISTS: dict[Detector, str] = {
    "vnir": "specific/vnirProductQuality/expectedChannelsList",
    "swir": "specific/swirProductQuality/expectedChannelsList",
}


def parse_metadata(xml: str) -> Product:
    """Read METADATA.XML of an EnMAP L2A product. Raises SceneError for anything else."""
    start = xml.lstrip("\ufeff \t\r\n")[:60]
    hint = " (possibly a login page: check the account)" if "<html" in xml[:1000].lower() else ""
    try:
        root = ElementTree.fromstring(xml)
    except ElementTree.ParseError as error:
        raise SceneError(f"METADATA.XML is not valid XML: {error}; it begins with {start!r}{hint}") from error
    nodes = root.findall("specific/bandCharacterisation/bandID")
    if not nodes:
        raise SceneError(
            "METADATA.XML is not that of an EnMAP product: it has no specific/bandCharacterisation/bandID; it "
            f"begins with {start!r}{hint}"
        )
    try:
        bands = bands_in(root, nodes)
        angles = Angles(*(angle_in(root, tag) for tag in ANGLE_TAGS))
        background = next((int(float(text)) for tag in BACKGROUND_TAGS if (text := root.findtext(f".//{tag}"))), None)
    except SceneError:
        raise
    except (KeyError, ValueError) as error:
        raise SceneError(f"METADATA.XML: a band or angle is damaged ({error})") from error
    processing = {tag: text.strip() for tag in PROCESSING_TAGS if (text := root.findtext(f".//{tag}"))}
    return Product(bands, angles, processing, background)


def angle_in(root: ElementTree.Element, tag: str) -> float | None:
    """An angle at the centre of the scene in degrees; None where there is none."""
    text = root.findtext(f"specific/{tag}/center")
    return float(text) if text else None


def bands_in(root: ElementTree.Element, nodes: Sequence[ElementTree.Element]) -> tuple[Band, ...]:
    """The bands of a product, by number. Raises SceneError, KeyError or ValueError where one is damaged."""
    tags = ("wavelengthCenterOfBand", "FWHMOfBand", "GainOfBand", "OffsetOfBand")
    by_number = sorted(nodes, key=lambda node: int(node.attrib["number"]))
    if [int(node.attrib["number"]) for node in by_number] != list(range(1, len(nodes) + 1)):
        raise SceneError("METADATA.XML: expected the band numbers 1..N")
    rows = [[number_in(node, tag) for tag in tags] for node in by_number]
    detectors = enmap_detectors(
        [row[0] for row in rows], [row[1] for row in rows], listed_channels(root), stated_vnir_bands(root, len(rows))
    )
    return tuple(
        Band(number, wavelength, fwhm, gain, offset, detector)
        for number, ((wavelength, fwhm, gain, offset), detector) in enumerate(zip(rows, detectors, strict=True), 1)
    )


def listed_channels(root: ElementTree.Element) -> Mapping[int, Detector]:
    """Band number -> detector, of the bands that the lists of channels name; a band that both name is left out."""
    listed = {detector: channel_numbers(root.findtext(path)) for detector, path in CHANNEL_LISTS.items()}
    both = listed["vnir"] & listed["swir"]
    return {number: detector for detector, numbers in listed.items() for number in numbers - both}


def channel_numbers(text: str | None) -> set[int]:
    """The numbers in a list with commas or blanks between them; none where it is missing or holds anything else."""
    words = (text or "").replace(",", " ").split()
    return {int(word) for word in words} if all(word.isdigit() for word in words) else set()


def stated_vnir_bands(root: ElementTree.Element, count: int) -> int | None:
    """How many of `count` bands are of the VNIR detector; None where the product does not say or its sum is another."""
    for vnir, swir in (
        ("specific/numberOfVNIRBands", "specific/numberOfSWIRBands"),
        ("specific/vnirProductQuality/numChannelsExpected", "specific/swirProductQuality/numChannelsExpected"),
    ):
        stated = [channel_numbers(root.findtext(path)) for path in (vnir, swir)]
        if all(len(numbers) == 1 for numbers in stated) and sum(map(sum, stated)) == count:
            return sum(stated[0])
    return None


def number_in(node: ElementTree.Element, tag: str) -> float:
    """The number in a child element. Raises ValueError where there is none."""
    text = node.findtext(tag)
    if text is None:
        raise ValueError(f"band {node.attrib.get('number')} has no {tag}")
    return float(text)


def select_bands(
    bands: Sequence[Band],
    exclude_nm: Sequence[tuple[float, float]],
    count: int,
    keep_nm: Sequence[tuple[float, float]] = (),
) -> list[Band]:
    """The bands to store, in order of wavelength: all but those with their centre in one of the excluded ranges.

    keep_nm: where there are any, only bands with their centre in one of these ranges. Raises SceneError where the
    number of bands is not `count`.
    """

    def inside(band: Band, ranges: Sequence[tuple[float, float]]) -> bool:
        return any(low <= band.wavelength <= high for low, high in ranges)

    wanted = [band for band in bands if not keep_nm or inside(band, keep_nm)]
    kept = [band for band in wanted if not inside(band, exclude_nm)]
    if len(kept) != count:
        of = f" in {in_nm(keep_nm)}" if keep_nm else ""
        raise SceneError(
            f"expected {count} bands (enmap.bands.count), got {len(kept)}: {len(wanted)} bands{of} less "
            f"{in_nm(exclude_nm)}; the scene may be of an older processing version; change enmap.bands or leave the "
            "scene out"
        )
    return sorted(kept, key=lambda band: band.wavelength)


def in_nm(ranges: Sequence[tuple[float, float]]) -> str:
    """Ranges of wavelengths in words."""
    return ", ".join(f"{low:g}-{high:g}" for low, high in ranges) + " nm" if ranges else "nothing"


def enmap_reflectance(numbers: NDArray[np.int16], bands: Sequence[Band], nodata: int) -> NDArray[Any]:
    """Reflectance x 10000 of the numbers in a file, (band, y, x); fill -32768.

    numbers: (band, y, x) of `bands`. int16 as they are where gain and offset say so (the usual case), else float32, to
    be rounded once, after resampling.
    """
    gain = np.array([band.gain for band in bands]) / REFLECTANCE_SCALE
    offset = np.array([band.offset for band in bands]) / REFLECTANCE_SCALE
    as_they_are = np.allclose(gain, 1, rtol=1e-6, atol=0) and not offset.any()
    if as_they_are and nodata == REFLECTANCE_FILL:
        return numbers
    missing = numbers == nodata
    if as_they_are:
        return np.where(missing, np.int16(REFLECTANCE_FILL), numbers)
    scaled = numbers.astype(np.float32) * gain[:, None, None].astype(np.float32) + offset[:, None, None]
    return np.where(missing, np.float32(REFLECTANCE_FILL), scaled.astype(np.float32))
