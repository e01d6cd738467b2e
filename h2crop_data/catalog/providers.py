"""What the catalogs call things: asset keys, tiles, baselines, offsets, angles, read from an item in one place."""

from __future__ import annotations

import re
from collections import defaultdict
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

import pystac
import shapely
from shapely.geometry import shape

from h2crop_data.catalog.search import acquired
from h2crop_data.errors import SceneError
from h2crop_data.sentinel2.reflectance import OffsetEvidence

#: Asset keys of a band: Earth Search; Planetary Computer; Copernicus Data Space.
SENTINEL2_ASSETS: dict[str, tuple[str, ...]] = {
    "B02": ("blue", "B02", "B02_10m"),
    "B03": ("green", "B03", "B03_10m"),
    "B04": ("red", "B04", "B04_10m"),
    "B05": ("rededge1", "B05", "B05_20m"),
    "B06": ("rededge2", "B06", "B06_20m"),
    "B07": ("rededge3", "B07", "B07_20m"),
    "B08": ("nir", "B08", "B08_10m"),
    "B8A": ("nir08", "B8A", "B8A_20m"),
    "B11": ("swir16", "B11", "B11_20m"),
    "B12": ("swir22", "B12", "B12_20m"),
    "SCL": ("scl", "SCL", "SCL_20m"),
}
#: Share of an item's ground that another must show to stand for it.
SAME_GROUND = 0.95
DATATAKE = re.compile(r"S2[A-Z]_(\d{8}T\d{6})_")
MGRS_TILE = re.compile(r"(?:^|[-_T])(\d{2}[C-X][A-Z]{2})(?:_|$)")
ENMAP_NAME = re.compile(r"ENMAP01-____L2A-DT(?P<datatake>\d{10})_(?P<time>\d{8}T\d{6})Z_(?P<tile>\d{3})_")


def sentinel2_asset(item: pystac.Item, band: str) -> str:
    """The key of a band's asset. Raises SceneError where the item has none."""
    for key in SENTINEL2_ASSETS[band]:
        if key in item.assets:
            return key
    raise SceneError(f"{item.id} has no asset for {band} (looked for {', '.join(SENTINEL2_ASSETS[band])})")


def baseline(item: pystac.Item) -> str | None:
    """Processing baseline, `05.11`."""
    for key in ("s2:processing_baseline", "processing:version"):
        if item.properties.get(key):
            return str(item.properties[key])
    return None


def item_epsg(item: pystac.Item) -> int | None:
    """EPSG code of an item's pixels, where it or one of its assets (Copernicus Data Space) says so."""
    for facts in (item.properties, *(asset.extra_fields for asset in item.assets.values())):
        code = facts.get("proj:code") or facts.get("proj:epsg")
        if code is not None:
            return int(str(code).removeprefix("EPSG:"))
    return None


def offset_evidence(item: pystac.Item) -> OffsetEvidence:
    """What an item says about its offset."""
    asset = item.assets[sentinel2_asset(item, "B02" if has_band(item, "B02") else "B04")].extra_fields
    bands: list[dict[str, Any]] = asset.get("raster:bands") or asset.get("bands") or [{}]
    stated = asset.get("raster:offset", bands[0].get("offset", bands[0].get("raster:offset")))
    return OffsetEvidence(baseline(item), item.properties.get("earthsearch:boa_offset_applied"), stated)


def has_band(item: pystac.Item, band: str) -> bool:
    """Whether an item has an asset for a band."""
    return any(key in item.assets for key in SENTINEL2_ASSETS[band])


def sentinel2_tile(item: pystac.Item) -> str:
    """The MGRS tile, `31UDS`; the item's id where nothing tells."""
    for key in ("s2:mgrs_tile", "grid:code"):
        if item.properties.get(key):
            return str(item.properties[key]).removeprefix("MGRS-")
    match = MGRS_TILE.search(item.id)
    return match[1] if match else item.id


def datatake_time(item: pystac.Item) -> str:
    """When the datatake began; the time of acquisition where the item names no datatake."""
    for key in ("s2:datatake_id", "eopf:datatake_id"):
        match = DATATAKE.search(str(item.properties.get(key, "")))
        if match:
            return match[1]
    return acquired(item).strftime("%Y%m%dT%H%M%S")


def newest_of_each_acquisition(items: list[pystac.Item]) -> tuple[list[pystac.Item], dict[str, str]]:
    """One item for each (datatake, tile) and ground: the newest baseline, then the last id; and {left out: kept}.

    Two granules of one datatake and tile that show different ground (a datatake cut into datastrips) are both kept.
    """
    kept: dict[tuple[str, str], list[pystac.Item]] = defaultdict(list)
    replaced: dict[str, str] = {}
    for item in sorted(items, key=lambda item: (baseline(item) or "", item.id), reverse=True):
        same = kept[datatake_time(item), sentinel2_tile(item)]
        newer = next((other for other in same if covers(other, item)), None)
        if newer is None:
            same.append(item)
        else:
            replaced[item.id] = newer.id
    return sorted((item for same in kept.values() for item in same), key=lambda item: item.id), replaced


def covers(one: pystac.Item, other: pystac.Item) -> bool:
    """Whether an item shows (nearly) all the ground of another."""
    ground, wanted = (shapely.make_valid(shape(item.geometry)) for item in (one, other))
    return bool(shapely.intersection(ground, wanted).area >= SAME_GROUND * wanted.area)


def newest_products(items: list[pystac.Item]) -> tuple[list[pystac.Item], dict[str, str]]:
    """One EnMAP product for each (datatake, tile): the newest version, processed last. Gives them and {left out: kept}.

    Items with other names are kept; `enmap_scene` refuses them.
    """
    newest: dict[tuple[str, str], pystac.Item] = {}
    replaced: dict[str, str] = {}
    # Version and time of processing stand at the end of the name.
    for item in sorted(items, key=lambda item: item.id, reverse=True):
        match = ENMAP_NAME.match(item.id)
        key = (match["datatake"], match["tile"]) if match else (item.id, "")
        if newest.setdefault(key, item) is not item:
            replaced[item.id] = newest[key].id
    return sorted(newest.values(), key=lambda item: item.id), replaced


@dataclass(frozen=True)
class EnmapScene:
    """What decides whether and how an EnMAP scene is used."""

    id: str
    datatake: str
    tile: str
    time: datetime
    quality: int
    #: Percent of the imaged swath.
    cloud_cover: float
    #: Degrees; None at night.
    sun_elevation: float | None
    sun_azimuth: float | None
    across_off_nadir: float | None

    @property
    def stamp(self) -> str:
        """The time in sample ids, `20220724T104526`."""
        return self.time.strftime("%Y%m%dT%H%M%S")


def enmap_scene(item: pystac.Item) -> EnmapScene:
    """The facts of an EnMAP item. Raises SceneError where its name or quality is missing."""
    match = ENMAP_NAME.match(item.id)
    if match is None:
        raise SceneError(f"{item.id} is not the name of an EnMAP L2A product")
    properties = item.properties
    if properties.get("enmap:overallQuality") is None or properties.get("eo:cloud_cover") is None:
        raise SceneError(f"{item.id} states no enmap:overallQuality or eo:cloud_cover")
    # At night the archive leaves out the one and writes 0 for the other.
    elevation = properties.get("enmap:sunElevationAngle") or properties.get("view:sun_elevation") or 0
    return EnmapScene(
        id=item.id,
        datatake=match["datatake"],
        tile=match["tile"],
        # The item's datetime is the start of one scene and the middle of another; ids need what does not change.
        time=datetime.strptime(match["time"], "%Y%m%dT%H%M%S").replace(tzinfo=UTC),
        quality=int(properties["enmap:overallQuality"]),
        cloud_cover=float(properties["eo:cloud_cover"]),
        sun_elevation=elevation if elevation > 0 else None,
        # view:sun_azimuth of this archive is 180 degrees off.
        sun_azimuth=properties.get("enmap:sunAzimuthAngle"),
        across_off_nadir=properties.get("enmap:acrossOffNadirAngle"),
    )
