"""METADATA.XML of simulated EnMAP L2A products: the archive's tags that say how a product was made and what it holds.

Left out of what real files have: statistics of bands, histograms, lists of dead pixels, times of lines, jitter, and
coefficients of the sensor model, which describe an instrument that took no picture here.
"""

from __future__ import annotations

import math
from xml.etree import ElementTree
from xml.etree.ElementTree import Element, SubElement

import shapely

from h2crop_data.constants import REFLECTANCE_FILL, REFLECTANCE_SCALE
from h2crop_data.simulate.enmap.items import EnmapProduct, enmap_product_name, enmap_properties, file_names
from h2crop_data.simulate.stac_fields import iso

CORNERS = ("upper_left", "upper_right", "lower_right", "lower_left")
#: Numbers of bands of the two detectors in a product of 224 bands.
VNIR_BANDS = 91


def metadata_xml(product: EnmapProduct) -> str:
    """METADATA.XML, to be written as UTF-8; the same for the same product."""
    root = Element("level_X")
    metadata_part(SubElement(root, "metadata"), product)
    base_part(SubElement(root, "base"), product)
    specific_part(SubElement(root, "specific"), product)
    processing_part(SubElement(root, "processing"), product)
    product_part(SubElement(root, "product"), product)
    ElementTree.indent(root)
    text: bytes = ElementTree.tostring(root, encoding="UTF-8", xml_declaration=True)
    return text.decode() + "\n"


def put(parent: Element, tag: str, value: object, **attributes: str) -> Element:
    """Add an element with a text; numbers are written so that they read back exactly."""
    element = SubElement(parent, tag, attributes)
    element.text = str(value)
    return element


def metadata_part(part: Element, product: EnmapProduct) -> None:
    """The schema and the file's own name."""
    put(SubElement(part, "schema"), "processingLevel", "L2A")
    put(part, "name", file_names(product)["metadata"])
    put(part, "comment", "simulated, not a product of the EnMAP ground segment")


def base_part(part: Element, product: EnmapProduct) -> None:
    """Level, versions, time and place."""
    put(part, "level", "L2A")
    put(part, "format", "ENMAP_L2A")
    put(part, "revision", product.version_number)
    put(part, "archivedVersion", product.version_number)
    time = SubElement(part, "temporalCoverage")
    put(time, "startTime", iso(product.start))
    put(time, "stopTime", iso(product.stop))
    bounding_polygon(SubElement(part, "spatialCoverage"), product)


def bounding_polygon(parent: Element, product: EnmapProduct) -> None:
    """The corners and the centre of the imaged ground."""
    polygon = SubElement(parent, "boundingPolygon")
    centre = product.footprint.centroid
    for frame, (longitude, latitude) in {**corners(product.footprint), "center": (centre.x, centre.y)}.items():
        point = SubElement(polygon, "point")
        put(point, "frame", frame)
        put(point, "latitude", round(latitude, 7))
        put(point, "longitude", round(longitude, 7))


def corners(footprint: shapely.Polygon) -> dict[str, tuple[float, float]]:
    """Longitude and latitude of the footprint's vertices that lie furthest towards the four corners."""
    narrow = math.cos(math.radians(footprint.centroid.y))
    points = [(float(x), float(y)) for x, y, *_ in footprint.exterior.coords]
    towards = dict(zip(CORNERS, ((-1, 1), (1, 1), (1, -1), (-1, -1)), strict=True))
    return {
        name: max(points, key=lambda point: right * narrow * point[0] + up * point[1])
        for name, (right, up) in towards.items()
    }


def specific_part(part: Element, product: EnmapProduct) -> None:
    """Quality, angles, size and bands."""
    put(part, "code", "L2A")
    put(part, "datatakeID", f"{product.datatake:010d}")
    put(part, "tileID", product.tile)
    put(part, "numberOfTiles", product.tiles)
    put(part, "processingDateTime", iso(product.processed))
    quality_part(part, product)
    put(part, "widthOfOrthoScene", product.shape[1])
    put(part, "heightOfOrthoScene", product.shape[0])
    put(part, "pixelSize", 30, unit="m")
    put(part, "backgroundValue", REFLECTANCE_FILL)
    angles_part(part, product)
    bounding_polygon(SubElement(part, "spatialCoverageOfOrthoScene"), product)
    put(part, "numberOfVNIRBands", min(VNIR_BANDS, len(product.centres)))
    put(part, "numberOfSWIRBands", max(0, len(product.centres) - VNIR_BANDS))
    characterisation = SubElement(part, "bandCharacterisation")
    for number, (centre, width) in enumerate(zip(product.centres, product.fwhm, strict=True), 1):
        band = SubElement(characterisation, "bandID", {"number": str(number)})
        put(band, "wavelengthCenterOfBand", centre)
        put(band, "FWHMOfBand", width)
        put(band, "GainOfBand", REFLECTANCE_SCALE)
        put(band, "OffsetOfBand", 0)


def quality_part(specific: Element, product: EnmapProduct) -> None:
    """The quality flags, which the item repeats, and the channels of each detector."""
    flags = SubElement(specific, "qualityFlag")
    facts = enmap_properties(product)
    for tag in ("overallQuality", "overallQualityVNIR", "overallQualitySWIR", "qualityAtmosphere"):
        put(flags, tag, facts[f"enmap:{tag}"])
    for tag in ("defectivePixelsVNIR", "defectivePixelsSWIR", "sceneAOT", "sceneWV", "sceneSunglint", "sceneTerrain"):
        put(flags, tag, facts[f"enmap:{tag}"])
    covers = {
        "cloudCover": product.cloud,
        "hazeCover": product.haze,
        "cirrusCover": product.cirrus,
        "snowCover": product.snow,
        "cloudShadow": product.cloud_shadow,
        "waterCover": product.water,
    }
    for tag, percent in covers.items():
        put(flags, tag, round(percent))
    vnir = min(VNIR_BANDS, len(product.centres))
    for tag, channels in (("vnirProductQuality", vnir), ("swirProductQuality", len(product.centres) - vnir)):
        put(SubElement(specific, tag), "numChannelsExpected", channels)


def angles_part(specific: Element, product: EnmapProduct) -> None:
    """Angles at the corners and the centre, in degrees; viewing angles are given as the same everywhere."""
    places = corners(product.footprint)
    sun = {name: sun_at(product, *place) for name, place in places.items()}
    sun["center"] = (product.sun_elevation or 0.0, product.sun_azimuth)
    for tag, number in (("sunElevationAngle", 0), ("sunAzimuthAngle", 1)):
        angle = SubElement(specific, tag)
        for name, values in sun.items():
            put(angle, name, values[number], unit="DEG")
    viewing = {
        "acrossOffNadirAngle": product.across_off_nadir,
        "alongOffNadirAngle": product.along_off_nadir,
        "sceneAzimuthAngle": product.scene_azimuth,
    }
    for tag, value in viewing.items():
        angle = SubElement(specific, tag)
        for name in sun:
            put(angle, name, value, unit="DEG")


def sun_at(product: EnmapProduct, longitude: float, latitude: float) -> tuple[float, float]:
    """Elevation and azimuth of the sun at a place, from those at the centre of the footprint; 0 elevation at night."""
    if product.sun_elevation is None:
        return 0.0, product.sun_azimuth
    centre = product.footprint.centroid
    elevation, azimuth, north = map(math.radians, (product.sun_elevation, product.sun_azimuth, centre.y))
    # The sun's declination and hour angle; then the same sun seen from another latitude and hour angle.
    high, flat = math.sin(elevation), math.cos(elevation)
    declination = math.asin(math.sin(north) * high + math.cos(north) * flat * math.cos(azimuth))
    hour = math.atan2(-math.sin(azimuth) * flat, math.cos(north) * high - math.sin(north) * flat * math.cos(azimuth))
    hour += math.radians(longitude - centre.x)
    there = math.radians(latitude)
    up = math.sin(there) * math.sin(declination) + math.cos(there) * math.cos(declination) * math.cos(hour)
    east = -math.cos(declination) * math.sin(hour)
    ahead = math.cos(there) * math.sin(declination) - math.sin(there) * math.cos(declination) * math.cos(hour)
    return round(math.degrees(math.asin(up)), 6), round(math.degrees(math.atan2(east, ahead)) % 360, 6)


def processing_part(part: Element, product: EnmapProduct) -> None:
    """How the product was ordered and corrected."""
    put(part, "productFormat", "GeoTIFF+Metadata")
    put(part, "mapProjection", "UTM_Zone_of_Scene_Center")
    put(part, "correctionType", product.correction)
    put(part, "terrainCorrection", product.terrain_correction)
    put(part, "cirrusHazeRemoval", product.cirrus_haze_removal)
    put(part, "bandInterpolation", "No")
    put(part, "waterType", "NA" if product.correction == "Land_Mode" else "Clear")
    put(part, "season", product.season)
    put(part, "ozoneValue", product.ozone)


def product_part(part: Element, product: EnmapProduct) -> None:
    """The image, its projection, and the files."""
    merge = SubElement(SubElement(part, "image"), "merge")
    put(merge, "name", file_names(product)["image"])
    put(merge, "channels", len(product.centres))
    dimension = SubElement(merge, "dimension")
    put(dimension, "columns", product.shape[1])
    put(dimension, "rows", product.shape[0])
    ortho = SubElement(part, "ortho")
    hemisphere = "South" if product.epsg // 100 == 327 else "North"
    put(ortho, "projection", f"UTM_Zone{product.epsg % 100:02d}_{hemisphere}")
    put(ortho, "resolution", 30, unit="m")
    files = SubElement(part, "productFileInformation")
    for name in file_names(product).values():
        put(SubElement(files, "file"), "name", name)
    put(part, "productName", enmap_product_name(product))
