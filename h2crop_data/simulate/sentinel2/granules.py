"""A simulated Sentinel-2 granule, and its names in ESA's products: of product, datatake, strip, tile and files."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta

import shapely

from h2crop_data.sentinel2.reflectance import OFFSET, OFFSET_SINCE
from h2crop_data.simulate.sentinel2.tiles import Tile
from h2crop_data.simulate.stac_fields import stamp, utc

#: Classes of the scene classification by their names in `s2:<name>_percentage`.
CLASS_NAMES = {
    1: "saturated_defective_pixel",
    2: "dark_features",
    3: "cloud_shadow",
    4: "vegetation",
    5: "not_vegetated",
    6: "water",
    7: "unclassified",
    8: "medium_proba_clouds",
    9: "high_proba_clouds",
    10: "thin_cirrus",
    11: "snow_ice",
}
CLOUD_CLASSES = (8, 9, 10)
#: Stands for the metadata of a granule's datastrip where files are named by their bands.
DATASTRIP = "MTD_DS"
#: In the recorded items a datastrip begins this long before the time that names its datatake.
STRIP_LEAD = timedelta(seconds=4)
#: International designators of the satellites.
DESIGNATORS = {"S2A": "2015-028A", "S2B": "2017-013A", "S2C": "2024-157A"}


@dataclass(frozen=True)
class Granule:
    """One granule of one processing: what its items and file names say, whatever the archive."""

    #: `S2A`.
    platform: str
    tile: Tile
    #: The ground with data, in longitude and latitude.
    footprint: shapely.Polygon
    #: What the files cover: west, south, east, north in metres of the tile's zone, multiples of 60.
    bounds: tuple[int, int, int, int]
    #: When the tile was seen, when its datatake began, when the product was made; with time zone.
    sensing: datetime
    datatake: datetime
    generation: datetime
    relative_orbit: int
    absolute_orbit: int
    #: `05.10`.
    baseline: str
    #: Percent of the pixels with data in each class (1..11) of the scene classification; absent ones are 0.
    classes: Mapping[int, float]
    #: Percent of the pixels without data.
    nodata: float
    #: Degrees.
    sun_azimuth: float
    sun_elevation: float
    view_azimuth: float
    view_incidence: float
    #: 0, or 1 and more for the same acquisition listed again.
    sequence: int = 0
    #: What `earthsearch:boa_offset_applied` says, right or wrong; None: the item has no such property.
    offset_flag: bool | None = None
    #: The offset that the bands' metadata state, in reflectance, right or wrong; None: what the baseline demands,
    #: which is what the archives state, also where they took the offset out of the numbers.
    stated_offset: float | None = None

    @property
    def epsg(self) -> int:
        """The zone of the files."""
        return self.tile.epsg

    @property
    def orbit(self) -> str:
        """`R008`."""
        return f"R{self.relative_orbit:03d}"

    @property
    def cloud_cover(self) -> float:
        """Percent of the pixels with data under clouds of medium and high probability and thin cirrus."""
        return round(sum(self.classes.get(number, 0.0) for number in CLOUD_CLASSES), 6)

    @property
    def offset(self) -> float:
        """The offset stated for the bands, in reflectance."""
        if self.stated_offset is not None:
            return self.stated_offset
        major, minor = self.baseline.split(".")
        return OFFSET / 10000 if (int(major), int(minor)) >= OFFSET_SINCE else 0

    @property
    def strip_start(self) -> datetime:
        """When the datastrip began; a second later for each time the acquisition is listed again, as strips are cut
        again in a new processing: Earth Search names items of collection 1 by it alone."""
        return self.datatake - STRIP_LEAD + timedelta(seconds=self.sequence)

    @property
    def centre(self) -> str:
        """The processing centre: the reprocessing campaigns' for what was made half a year after its sensing."""
        return "S2RP" if self.generation - self.sensing > timedelta(days=180) else "2BPS"

    def percent(self, number: int) -> float:
        """Percent of a class of the scene classification."""
        return round(float(self.classes.get(number, 0.0)), 6)

    def grid(self, size: int) -> tuple[list[int], list[int]]:
        """`proj:shape` (rows, columns) and `proj:transform` of the granule's files with pixels of `size` metres."""
        west, south, east, north = self.bounds
        return [(north - south) // size, (east - west) // size], [size, 0, west, 0, -size, north]


def datatake_id(granule: Granule) -> str:
    """`GS2B_20250731T131909_043879_N05.11`."""
    return f"G{granule.platform}_{stamp(granule.datatake)}_{granule.absolute_orbit:06d}_N{granule.baseline}"


def strip_id(granule: Granule, level: str) -> str:
    """`S2B_OPER_MSI_L2A_DS_2BPS_20250731T143919_S20250731T131905_N05.11`."""
    made = f"{granule.platform}_OPER_MSI_{level}_DS_{granule.centre}_{stamp(granule.generation)}"
    return f"{made}_S{stamp(granule.strip_start)}_N{granule.baseline}"


def granule_id(granule: Granule, level: str) -> str:
    """`S2B_OPER_MSI_L2A_TL_2BPS_20250731T143919_A043879_T20EPT_N05.11`."""
    made = f"{granule.platform}_OPER_MSI_{level}_TL_{granule.centre}_{stamp(granule.generation)}"
    return f"{made}_A{granule.absolute_orbit:06d}_T{granule.tile.name}_N{granule.baseline}"


def sentinel2_product_name(granule: Granule, level: str, baseline: bool = True) -> str:
    """`S2B_MSIL2A_20250731T131909_N0511_R095_T20EPT_20250731T143919`; Planetary Computer leaves the baseline out."""
    number = f"_N{granule.baseline.replace('.', '')}" if baseline else ""
    taken = f"{granule.platform}_MSI{level}_{stamp(granule.datatake)}{number}_{granule.orbit}"
    return f"{taken}_T{granule.tile.name}_{stamp(granule.generation)}"


def image_path(granule: Granule, band: str, size: int, suffix: str) -> str:
    """The file of a band of an L2A product, `<product>.SAFE/GRANULE/L2A_.../IMG_DATA/R10m/T31UDS_..._B02_10m.jp2`."""
    tile = f"T{granule.tile.name}"
    folder = f"L2A_{tile}_A{granule.absolute_orbit:06d}_{stamp(granule.strip_start)}"
    name = f"{tile}_{stamp(granule.datatake)}_{band}_{size}m{suffix}"
    return f"{sentinel2_product_name(granule, 'L2A')}.SAFE/GRANULE/{folder}/IMG_DATA/R{size}m/{name}"


def strip_metadata_path(granule: Granule) -> str:
    """The metadata of the datastrip of an L2A product, `<product>.SAFE/DATASTRIP/DS_2BPS_..._S.../MTD_DS.xml`."""
    strip = f"DS_{granule.centre}_{stamp(granule.generation)}_S{stamp(granule.strip_start)}"
    return f"{sentinel2_product_name(granule, 'L2A')}.SAFE/DATASTRIP/{strip}/MTD_DS.xml"


def reflectance_conversion(moment: datetime) -> float:
    """The square of the ratio of mean to present distance from the sun (Sentinel-2 Products Specification, `U`)."""
    days = (utc(moment) - utc(datetime.fromisoformat("1950-01-01T00:00Z"))) / timedelta(days=1)
    return (1 - 0.01673 * math.cos(0.0172 * (days - 2))) ** -2
