"""Facts of an item, by the names of all catalogs: asset keys, tiles, baselines, offsets, angles."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

import pystac

from h2crop_data.catalog.items import finite_number, number_of
from h2crop_data.catalog.registry import assets_of_bands, datastrip_assets
from h2crop_data.constants import SENTINEL2_BANDS
from h2crop_data.errors import SceneError
from h2crop_data.sentinel2.reflectance import OffsetEvidence

MGRS_TILE = re.compile(r"(?:^|[-_T])(\d{2}[C-X][A-Z]{2})(?:_|$)")
PRODUCT_BASELINE = re.compile(r"S2[A-Z]_MSIL[12][A-C]_\d{8}T\d{6}_N(\d{2})(\d{2})_")
ENMAP_NAME = re.compile(
    r"ENMAP01-____L2A-DT(?P<datatake>\d{10})_(?P<time>\d{8}T\d{6})Z_(?P<tile>\d{3})_(V(?P<version>\d{6})_)?"
)


def asset_of_band(item: pystac.Item, band: str) -> str | None:
    """The key of a band's asset; None where the item has none."""
    return next((key for key in assets_of_bands()[band] if key in item.assets), None)


def sentinel2_asset(item: pystac.Item, band: str) -> str:
    """The key of a band's asset. Raises SceneError where the item has none."""
    key = asset_of_band(item, band)
    if key is not None:
        return key
    raise SceneError(f"{item.id} has no asset for {band} (looked for {', '.join(assets_of_bands()[band])})")


def datastrip_asset(item: pystac.Item) -> str | None:
    """The key of the metadata of an item's datastrip (MTD_DS.xml); None where the catalog does not list them."""
    return next((key for key in datastrip_assets() if key in item.assets), None)


def baseline(item: pystac.Item) -> str | None:
    """Processing baseline, `05.11`."""
    for key in ("s2:processing_baseline", "processing:version"):
        if item.properties.get(key):
            return str(item.properties[key])
    return None


def offset_evidence(item: pystac.Item, bands: Sequence[str] = SENTINEL2_BANDS) -> OffsetEvidence:
    """What an item says about its offset, in those of some bands that it has.

    Raises SceneError where what it says cannot be read.
    """
    assets = {band: item.assets[key] for band in bands if (key := asset_of_band(item, band))}
    stated = {band: stated_offset(asset) for band, asset in assets.items()}
    return OffsetEvidence(
        baseline(item),
        offset_removed(item),
        {band: offset for band, offset in stated.items() if offset is not None},
        frozenset(band for band, asset in assets.items() if is_jpeg2000(asset)),
        frozenset(assets),
        baseline_in_name(item),
    )


def baseline_in_name(item: pystac.Item) -> str | None:
    """The processing baseline in the name of an item's product, `05.11` of `S2B_MSIL2A_..._N0511_R095_...`."""
    for name in (item.properties.get("s2:product_uri"), item.id):
        found = PRODUCT_BASELINE.match(str(name))
        if found:
            return f"{found[1]}.{found[2]}"
    return None


def offset_removed(item: pystac.Item) -> bool | None:
    """Whether the archive says that it took the offset out; None where it does not say. Raises SceneError."""
    stated = item.properties.get("earthsearch:boa_offset_applied")
    known = {"true": True, "1": True, "false": False, "0": False, "none": None}
    if str(stated).lower() not in known:
        raise SceneError(f"{item.id}: expected true or false in earthsearch:boa_offset_applied, got {stated!r}")
    return known[str(stated).lower()]


def stated_offset(asset: pystac.Asset) -> float | None:
    """The offset that an asset states for its band, in reflectance; None where it states none.

    Raises SceneError for one that is not a number.
    """
    facts, band = asset.extra_fields, first_band(asset.extra_fields)
    stated = facts.get("raster:offset", band.get("offset", band.get("raster:offset")))
    return finite_number(stated, f"{asset.href}: its offset")


def first_band(facts: Mapping[str, Any]) -> dict[str, Any]:
    """What the fields of an asset say of its only band; empty where they say nothing of bands."""
    bands = facts.get("raster:bands") or facts.get("bands")
    return bands[0] if isinstance(bands, list) and bands and isinstance(bands[0], dict) else {}


def is_jpeg2000(asset: pystac.Asset) -> bool:
    """Whether an asset's file is JPEG 2000, by its name or its media type."""
    path = asset.href.partition("?")[0].partition("#")[0].lower()
    media_type = str(asset.media_type or "").partition(";")[0].strip().lower()
    return path.endswith((".jp2", ".j2k")) or media_type in ("image/jp2", "image/jpx", "image/jpeg2000")


def sentinel2_tile(item: pystac.Item) -> str:
    """The MGRS tile, `31UDS`; the item's id where nothing tells."""
    for key in ("s2:mgrs_tile", "grid:code"):
        if item.properties.get(key):
            return str(item.properties[key]).removeprefix("MGRS-")
    match = MGRS_TILE.search(item.id)
    return match[1] if match else item.id


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


def first_products(lists: Sequence[Sequence[pystac.Item]]) -> tuple[list[pystac.Item], dict[str, str]]:
    """One EnMAP product for each (datatake, tile) of several catalogs: the newest of the first catalog that has one.

    lists: of each catalog, in order. Gives them and {left out: what stands for it}.
    """
    kept: dict[tuple[str, str], pystac.Item] = {}
    replaced: dict[str, str] = {}
    for items in lists:
        own, older = newest_products(list(items))
        replaced |= older
        for item in own:
            match = ENMAP_NAME.match(item.id)
            first = kept.setdefault((match["datatake"], match["tile"]) if match else (item.id, ""), item)
            if first.id != item.id:
                replaced[item.id] = first.id
    names = {item.id for item in kept.values()}
    left_out = {name: other for name, other in replaced.items() if name not in names}
    return sorted(kept.values(), key=lambda item: item.id), left_out


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
        raise SceneError(f"{item.id} is not a valid name of an EnMAP L2A product")
    quality, cloud_cover = number_of(item, "enmap:overallQuality"), number_of(item, "eo:cloud_cover")
    if quality is None or cloud_cover is None:
        raise SceneError(f"{item.id} lacks enmap:overallQuality or eo:cloud_cover")
    # At night the archive leaves out the one and writes 0 for the other.
    elevation = number_of(item, "enmap:sunElevationAngle") or number_of(item, "view:sun_elevation") or 0
    return EnmapScene(
        id=item.id,
        datatake=match["datatake"],
        tile=match["tile"],
        # The item's datetime is the start of one scene and the middle of another; ids need what does not change.
        time=datetime.strptime(match["time"], "%Y%m%dT%H%M%S").replace(tzinfo=UTC),
        quality=int(quality),
        cloud_cover=cloud_cover,
        sun_elevation=elevation if elevation > 0 else None,
        # view:sun_azimuth of this archive is 180 degrees off.
        sun_azimuth=number_of(item, "enmap:sunAzimuthAngle"),
        across_off_nadir=number_of(item, "enmap:acrossOffNadirAngle"),
    )


def processing_version(item: pystac.Item) -> str:
    """The processing version of a product, `01.04.02`: as its item states it, else of its name; empty for none."""
    stated = item.properties.get("version")
    return str(stated) if stated else version_in_name(item.id)


def version_in_name(name: str) -> str:
    """The processing version in the name of a product; empty for none."""
    match = ENMAP_NAME.match(name)
    digits = (match["version"] or "") if match else ""
    return ".".join(digits[i : i + 2] for i in range(0, len(digits), 2))
