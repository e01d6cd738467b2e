"""STAC items and names of simulated EnMAP L2A products with the fields of DLR's archive (`ENMAP_HSI_L2A`).

Left out of what real items have: assets of files that are not simulated (quicklooks `vnir` and `swir`, `thumbnail`),
links, and the DOI in `sci:citation`, because it belongs to a real product. Citation and `processing:facility` say that
the product is simulated.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta

import numpy as np
import shapely

from h2crop_data.constants import REFLECTANCE_FILL, REFLECTANCE_SCALE
from h2crop_data.simulate.stac_fields import COG, Fields, bbox, box_geometry, geometry, iso, stamp, utc

#: The archive lists a product this long after it was processed.
ENMAP_LISTED_AFTER = timedelta(hours=7, minutes=17)
#: What the archive writes for accuracies and parameters of the atmosphere that were not found.
NOT_FOUND = -999
#: Orbit and image numbers of one recorded datatake, and orbits a day: other numbers are counted from there.
ORBIT_START = datetime.fromisoformat("2023-06-29T11:01:32Z")
ORBIT_NUMBER, ORBITS_A_DAY, IMAGE_NUMBER = 6689, 14.74, 6018
#: End of the file name, title, description and roles of each asset.
ASSETS: dict[str, tuple[str, str, str, list[str]]] = {
    "metadata": ("METADATA.XML", "Metadata", "Original XML metadata", ["metadata"]),
    "image": (
        "SPECTRAL_IMAGE_COG.TIF",
        "Spectral Image",
        "Earth image measurement data covering 1 tile (30x30km) in orthorectified geometry",
        ["data"],
    ),
    "quality_classes": ("QL_QUALITY_CLASSES_COG.TIF", "Quality classes", "Classes quality layer", ["quality"]),
    "quality_cloud": ("QL_QUALITY_CLOUD_COG.TIF", "Quality cloud", "Cloud quality layer", ["quality", "cloud"]),
    "quality_cloud_shadow": (
        "QL_QUALITY_CLOUDSHADOW_COG.TIF",
        "Quality cloud shadow",
        "Cloud shadow quality layer",
        ["quality", "cloud-shadow"],
    ),
    "quality_haze": ("QL_QUALITY_HAZE_COG.TIF", "Quality haze", "Haze quality layer", ["quality", "haze"]),
    "quality_cirrus": ("QL_QUALITY_CIRRUS_COG.TIF", "Quality cirrus", "Cirrus quality layer", ["quality", "cirrus"]),
    "quality_snow": ("QL_QUALITY_SNOW_COG.TIF", "Quality snow", "Snow quality layer", ["quality", "snow"]),
    "quality_testflags": (
        "QL_QUALITY_TESTFLAGS_COG.TIF",
        "Quality test flags",
        "Test flags quality layer",
        ["quality"],
    ),
    "defective_pixel_mask": (
        "QL_PIXELMASK_COG.TIF",
        "Defective pixel mask",
        "Defective pixel mask layer",
        ["quality", "data-mask"],
    ),
}
EXTENSIONS = ("eo/v1.1.0", "view/v1.0.0", "projection/v1.0.0", "processing/v1.0.0", "scientific/v1.0.0", "sat/v1.0.0")


@dataclass(frozen=True)
class EnmapProduct:
    """One tile of a datatake, processed to L2A: what its name, item and METADATA.XML say."""

    datatake: int
    #: Number of the tile in its datatake, from 1.
    tile: int
    #: With time zone.
    start: datetime
    stop: datetime
    processed: datetime
    epsg: int
    #: Rows and columns of the files, and their affine transform (six numbers).
    shape: tuple[int, int]
    transform: tuple[float, float, float, float, float, float]
    #: The imaged ground, in longitude and latitude.
    footprint: shapely.Polygon
    #: Centre wavelength and full width at half maximum of each band in nm, in the order of the file.
    centres: tuple[float, ...]
    fwhm: tuple[float, ...]
    #: 0 nominal, 1 reduced, 2 low.
    quality: int
    #: Percent of the imaged ground.
    cloud: float
    cloud_shadow: float
    haze: float
    cirrus: float
    snow: float
    water: float
    #: Degrees; no elevation at night.
    sun_azimuth: float
    sun_elevation: float | None
    across_off_nadir: float
    along_off_nadir: float
    scene_azimuth: float
    version: str = "V010402"
    #: Tiles of the datatake.
    tiles: int = 1
    #: Dead pixels of the detectors.
    defective_vnir: int = 2
    defective_swir: int = 22
    #: Dobson units; optical thickness of aerosol x 1000; water vapour in kg/m2 x 100.
    ozone: int = 312
    aerosol: int = 100
    water_vapour: int = 2000
    #: Metres east and north of the fit to the reference image; None: no fit was possible.
    accuracy: tuple[float, float] | None = (3.0, 4.0)
    #: `Land_Mode`, `Water_Mode` or `Combined`; `Yes` or `No`.
    correction: str = "Land_Mode"
    terrain_correction: str = "No"
    cirrus_haze_removal: str = "No"

    @property
    def version_number(self) -> str:
        """`01.04.02`."""
        digits = self.version.removeprefix("V")
        return f"{digits[:2]}.{digits[2:4]}.{digits[4:6]}"

    @property
    def season(self) -> str:
        """`summer` or `winter`: the atmosphere that the correction assumes."""
        summer = 5 <= utc(self.start).month <= 10
        return "summer" if summer == (self.footprint.centroid.y >= 0) else "winter"

    @property
    def night(self) -> bool:
        """Whether the sun is down."""
        return self.sun_elevation is None

    @property
    def orbit(self) -> int:
        """Number of the orbit since launch, about right."""
        return ORBIT_NUMBER + round((self.start - ORBIT_START) / timedelta(days=1) * ORBITS_A_DAY)

    @property
    def bounds(self) -> tuple[float, float, float, float]:
        """West, south, east, north of the files in metres."""
        size, _, west, _, _, north = self.transform
        rows, columns = self.shape
        return west, north - size * rows, west + size * columns, north


def enmap_product_name(product: EnmapProduct) -> str:
    """`ENMAP01-____L2A-DT0000024647_20230629T110132Z_025_V010402_20240630T020748Z`."""
    taken = f"DT{product.datatake:010d}_{stamp(product.start)}Z_{product.tile:03d}"
    return f"ENMAP01-____L2A-{taken}_{product.version}_{stamp(product.processed)}Z"


def file_names(product: EnmapProduct) -> dict[str, str]:
    """The file name of each asset."""
    return {key: f"{enmap_product_name(product)}-{end}" for key, (end, *_) in ASSETS.items()}


def file_folder(product: EnmapProduct) -> str:
    """Where the archive keeps a product below its root, `L2A/2023/06/29/DT0000024647/25`."""
    return f"L2A/{utc(product.start):%Y/%m/%d}/DT{product.datatake:010d}/{product.tile:02d}"


def enmap_item(
    product: EnmapProduct, hrefs: Mapping[str, str], counts: Mapping[str, Mapping[int, int]] | None = None
) -> Fields:
    """The STAC item of a product: the same for the same arguments, in strict JSON.

    hrefs: by asset key (`file_names`). counts: number of pixels of each value of quality layers, by asset key; their
    `statistics` and `histogram` are left out without. Raises ValueError for assets that are unknown.
    """
    unknown = sorted(set(hrefs) - set(ASSETS))
    if unknown:
        raise ValueError(f"unknown assets of EnMAP products {', '.join(unknown)}; known: {', '.join(ASSETS)}")
    return {
        "type": "Feature",
        "stac_version": "1.0.0",
        "id": enmap_product_name(product),
        "bbox": bbox(product.footprint, 7),
        "geometry": geometry(product.footprint),
        "properties": {**common_properties(product), **enmap_properties(product)},
        "stac_extensions": [f"https://stac-extensions.github.io/{name}/schema.json" for name in EXTENSIONS],
        "links": [],
        "collection": "ENMAP_HSI_L2A",
        "assets": {key: asset(product, key, href, (counts or {}).get(key)) for key, href in hrefs.items()},
    }


def common_properties(product: EnmapProduct) -> Fields:
    """Properties of STAC and its extensions.

    The datetime is the start in whole seconds, and `view:sun_azimuth` is 180 degrees off, both as in the archive.
    """
    listed = iso(product.processed + ENMAP_LISTED_AFTER, "milliseconds").replace("Z", "+00:00")
    east, north = product.accuracy or (float(NOT_FOUND), float(NOT_FOUND))
    radial = round(float(np.hypot(east, north)), 1) if product.accuracy else float(NOT_FOUND)
    sun = {} if product.night else {"view:sun_elevation": product.sun_elevation}
    return {
        "version": product.version_number,
        "created": listed,
        "updated": listed,
        "datetime": iso(product.start.replace(microsecond=0), "seconds"),
        "start_datetime": iso(product.start),
        "end_datetime": iso(product.stop),
        "platform": "enmap",
        "proj:epsg": None,
        "sat:relative_orbit": product.orbit,
        "sat:orbit_state": "ASCENDING" if product.night else "DESCENDING",
        "eo:cloud_cover": round(product.cloud),
        "eo:snow_cover": round(product.snow),
        "view:sun_azimuth": round(product.sun_azimuth + 180, 6),
        **sun,
        "processing:facility": "simulated",
        "processing:level": "L2A",
        "eop:sensorType": "OPTICAL",
        "card4l:eastern_geometric_accuracy": east,
        "card4l:geometric_accuracy_radial_rmse": radial,
        "card4l:northern_geometric_accuracy": north,
        "card4l:specification": "SR",
        "card4l:specification_version": 5.0,
        "eo:instrument": "HSI",
        "sci:citation": citation(product),
    }


def citation(product: EnmapProduct) -> str:
    """The archive's sentence, said of a simulation."""
    level0 = f"{product.datatake:010d}_{product.tile:02d}_L0_{stamp(product.start)}"
    made = f"{product.version.removeprefix('V')}_{utc(product.processed):%y%m%d}"
    parameters = f"U0BLNNT{product.season[0].upper()}{product.ozone}G"
    text = f"EnMAP L0 Product {level0}_{made} Processed to level 2A (parameters: {parameters})"
    return f"Simulated, not by DLR ({utc(product.processed).year}): {text}"


def enmap_properties(product: EnmapProduct) -> Fields:
    """The archive's own properties; percentages are whole numbers."""
    return {
        "enmap:SWIRAorSWIRBSelected": "SWIRA",
        "enmap:acquisitionConfiguration": "earth",
        "enmap:acquisitionType": "EARTH",
        "enmap:acrossOffNadirAngle": product.across_off_nadir,
        "enmap:alongOffNadirAngle": product.along_off_nadir,
        "enmap:archivedVersion": product.version_number,
        "enmap:biomeType": "Temperate Broadleaf and Mixed Forests",
        "enmap:cirrus_cover": round(product.cirrus),
        "enmap:cloud_shadow": round(product.cloud_shadow),
        "enmap:compressionType": "COMPRESSED",
        "enmap:datatakeID": product.datatake,
        "enmap:defectivePixelsSWIR": product.defective_swir,
        "enmap:defectivePixelsVNIR": product.defective_vnir,
        "enmap:haze_cover": round(product.haze),
        "enmap:imageID": IMAGE_NUMBER + product.orbit - ORBIT_NUMBER,
        "enmap:instrumentStatusOK": "true",
        "enmap:missionPhase": "routine",
        "enmap:nodata": REFLECTANCE_FILL,
        "enmap:non_cloud_shadow": 0,
        "enmap:numberOfTiles": product.tiles,
        "enmap:orbitNo": product.orbit,
        "enmap:overallQuality": product.quality,
        "enmap:overallQualitySWIR": 1 if product.night else 0,
        "enmap:overallQualityVNIR": 2 if product.night else 0,
        "enmap:ozoneValue": product.ozone,
        "enmap:phase": "routine",
        "enmap:processingDate": iso(product.processed),
        "enmap:productScreeningFailedGroups": "NONE",
        "enmap:productScreeningResultStatus": "OK",
        "enmap:qualityAtmosphere": 0 if product.night else product.quality,
        "enmap:saturationCrosstalkSWIR": 0,
        "enmap:saturationCrosstalkVNIR": 0,
        "enmap:sceneAOT": NOT_FOUND if product.night else product.aerosol,
        "enmap:sceneAtmospericParameters": 4 if product.night else 0,  # as the archive spells it
        "enmap:sceneAzimuthAngle": product.scene_azimuth,
        "enmap:sceneSunglint": 0,
        "enmap:sceneTerrain": 0,
        "enmap:sceneWV": NOT_FOUND if product.night else product.water_vapour,
        "enmap:season": product.season,
        "enmap:status": "LOW" if product.night else "NOMINAL",
        "enmap:statusSWIR": "on",
        "enmap:statusVNIR": "on",
        "enmap:sunAzimuthAngle": product.sun_azimuth,
        "enmap:sunElevationAngle": product.sun_elevation or 0.0,
        "enmap:swirNumberChannelsMissing": 0,
        "enmap:tileID": product.tile,
        "enmap:vnirNumberChannelsMissing": 0,
        "enmap:water_cover": round(product.water),
    }


def asset(product: EnmapProduct, key: str, href: str, counts: Mapping[int, int] | None) -> Fields:
    """One asset."""
    _, title, description, roles = ASSETS[key]
    fields: Fields = {
        "href": href,
        "type": "application/xml" if key == "metadata" else COG,
        "title": title,
        "description": description,
        "roles": list(roles),
        "owner": enmap_product_name(product),
    }
    if key == "metadata":
        return fields
    fields |= {
        "proj:epsg": product.epsg,
        "proj:shape": list(product.shape),
        "proj:transform": [*map(float, product.transform), 0.0, 0.0, 1.0],
        "proj:geometry": box_geometry(product.bounds),
        "proj:bbox": list(map(float, product.bounds)),
    }
    if key == "image":
        fields["eo:bands"] = bands(product)
    elif key.startswith("quality_"):
        fields["raster:bands"] = [layer_facts(key, counts)]
    return fields


def bands(product: EnmapProduct) -> list[Fields]:
    """`eo:bands` of the spectral image: named by number, wavelengths in nm as the archive writes them."""
    return [
        {
            "name": number,
            "center_wavelength": centre,
            "full_width_half_max": width,
            "enmap:gain_of_band": REFLECTANCE_SCALE,
            "enmap:offset_of_band": 0,
        }
        for number, (centre, width) in enumerate(zip(product.centres, product.fwhm, strict=True), 1)
    ]


def layer_facts(key: str, counts: Mapping[int, int] | None) -> Fields:
    """`raster:bands` of a quality layer; only the classes have nodata (3, outside)."""
    nodata = 3 if key == "quality_classes" else None
    facts: Fields = {"data_type": "uint8", "scale": 1.0, "offset": 0.0, "sampling": "area"}
    if nodata is not None:
        facts["nodata"] = float(nodata)
    valid = {value: number for value, number in sorted((counts or {}).items()) if value != nodata and number}
    if not valid or not counts:
        return facts
    values, weights = np.array(list(valid)), np.array(list(valid.values()))
    mean = float(np.average(values, weights=weights))
    low, high = int(values.min()), int(values.max())
    edges = (float(low), float(high)) if high > low else (low - 0.5, high + 0.5)
    buckets, _ = np.histogram(values, bins=10, range=edges, weights=weights)
    facts["statistics"] = {
        "mean": mean,
        "minimum": low,
        "maximum": high,
        "stddev": float(np.sqrt(np.average((values - mean) ** 2, weights=weights))),
        "valid_percent": 100 * float(weights.sum()) / sum(counts.values()),
    }
    facts["histogram"] = {
        "count": 11,
        "min": edges[0],
        "max": edges[1],
        "buckets": [round(n) for n in buckets.tolist()],
    }
    return facts
