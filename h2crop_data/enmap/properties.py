"""Properties of an EnMAP product from METADATA.XML, under the names that the items of DLR's catalog use."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any
from xml.etree import ElementTree

from h2crop_data.errors import SceneError

#: Where METADATA.XML has what an item states; paths begin below its root. Percentages are of the imaged ground.
NUMBERS = {
    "enmap:overallQuality": "specific/qualityFlag/overallQuality",
    "enmap:overallQualityVNIR": "specific/qualityFlag/overallQualityVNIR",
    "enmap:overallQualitySWIR": "specific/qualityFlag/overallQualitySWIR",
    "enmap:qualityAtmosphere": "specific/qualityFlag/qualityAtmosphere",
    "eo:cloud_cover": "specific/qualityFlag/cloudCover",
    "eo:snow_cover": "specific/qualityFlag/snowCover",
    "enmap:haze_cover": "specific/qualityFlag/hazeCover",
    "enmap:cirrus_cover": "specific/qualityFlag/cirrusCover",
    "enmap:cloud_shadow": "specific/qualityFlag/cloudShadow",
    "enmap:water_cover": "specific/qualityFlag/waterCover",
    "enmap:sunElevationAngle": "specific/sunElevationAngle/center",
    "enmap:sunAzimuthAngle": "specific/sunAzimuthAngle/center",
    "enmap:acrossOffNadirAngle": "specific/acrossOffNadirAngle/center",
    "enmap:alongOffNadirAngle": "specific/alongOffNadirAngle/center",
    "enmap:sceneAzimuthAngle": "specific/sceneAzimuthAngle/center",
    "enmap:numberOfTiles": "specific/numberOfTiles",
}
TEXTS = {
    "start_datetime": "base/temporalCoverage/startTime",
    "end_datetime": "base/temporalCoverage/stopTime",
    "enmap:archivedVersion": "base/archivedVersion",
    "enmap:processingDate": "specific/processingDateTime",
}


def stated_properties(xml: str) -> dict[str, Any]:
    """The properties of a product's item that its METADATA.XML states; those it does not state are left out.

    Raises SceneError for invalid XML and invalid numbers.
    """
    try:
        root = ElementTree.fromstring(xml)
    except ElementTree.ParseError as error:
        raise SceneError(f"METADATA.XML is not valid XML: {error}") from error
    numbers = {name: value_at(root, path, finite) for name, path in NUMBERS.items()}
    texts = {name: value_at(root, path, str) for name, path in TEXTS.items()}
    return {name: value for name, value in {**texts, **numbers}.items() if value is not None}


def value_at(root: ElementTree.Element, path: str, kind: Callable[[str], Any]) -> Any:
    """The text at a path, read by `kind`; None where there is none. Raises SceneError where it cannot be read."""
    text = (root.findtext(path) or "").strip()
    if not text:
        return None
    try:
        return kind(text)
    except ValueError as error:
        raise SceneError(f"METADATA.XML: {path} is {text!r}, expected a number") from error


def finite(text: str) -> int | float:
    """A number, whole where it is written so. Raises ValueError."""
    number = float(text)
    if not math.isfinite(number):
        raise ValueError(text)
    return int(text) if text.lstrip("+-").isdecimal() else number
