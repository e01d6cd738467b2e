"""STAC items of simulated Sentinel-2 granules with the fields of the real archives.

Archives: Earth Search v1 (`sentinel-2-c1-l2a`, `sentinel-2-l2a`, `sentinel-2-l1c`), Planetary Computer
(`planetary-computer`) and Copernicus Data Space (`copernicus`), both L2A. Central wavelengths and widths of the bands
are the constants that each archive writes for all satellites.

Left out of what real items have:

- links, and what else leads to the archive's servers, because the files lie beside the item: Copernicus'
  `auth:schemes`, `storage:schemes`, `auth:refs`, `storage:refs`, `alternate`, `alternate:name`, the `description`
  of its storage, and their extensions (a client would ask for credentials);
- assets of files that are not simulated: aerosol, water vapour, true colour, cloud and snow probability, previews,
  jp2 siblings of COGs, resampled copies of bands, XML and JSON metadata, archives of whole products. The metadata of
  datastrips are there in regions with `sentinel2.geometry`, under Copernicus' name also in Earth Search's collections,
  whose real items list none.

`processing:software`, `processing:facility` and paths in the archive's storage name the simulation, so that no item can
be confused with a real one.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from h2crop_data.simulate.sentinel2.archives import (
    COPERNICUS_BANDS,
    EARTH_SEARCH_BANDS,
    PLANETARY_BANDS,
    collection1_id,
    collection1_properties,
    copernicus_asset,
    copernicus_key,
    copernicus_path,
    copernicus_properties,
    earth_search_asset,
    earth_search_id,
    older_properties,
    planetary_asset,
    planetary_path,
    planetary_properties,
    tile_folder,
)
from h2crop_data.simulate.sentinel2.granules import DATASTRIP, Granule, sentinel2_product_name
from h2crop_data.simulate.stac_fields import COG, Fields, bbox, geometry


@dataclass(frozen=True)
class ArchiveForm:
    """How an archive writes items."""

    collection: str
    stac_version: str
    #: Names and versions of STAC extensions, as in their addresses.
    extensions: tuple[str, ...]
    #: Digits of the coordinates in `bbox`.
    digits: int
    id: Callable[[Granule], str]
    properties: Callable[[Granule], Fields]
    #: Asset key of each band; `{}` takes the pixel size.
    keys: Mapping[str, str]
    #: The asset of a band.
    asset: Callable[[Granule, str], Fields]
    #: Where the archive keeps a band's file, without what comes before.
    path: Callable[[Granule, str, str], str]
    #: The fields for size and checksum are written.
    file_facts: bool = False
    #: Asset key of the metadata of the granule's datastrip; `asset` and `path` know them as DATASTRIP.
    strip_key: str = "datastrip_metadata"


def sentinel2_item(
    granule: Granule,
    archive: str,
    hrefs: Mapping[str, str],
    sizes: Mapping[str, int] | None = None,
    checksums: Mapping[str, str] | None = None,
) -> Fields:
    """The STAC item of a granule in an archive: the same for the same arguments, in strict JSON.

    hrefs: by the archive's asset keys (`asset_key`). sizes: bytes, checksums: SHA-256 in hexadecimal, by asset key;
    written where the archive does so (`sentinel-2-c1-l2a`, `copernicus`). Raises ValueError for keys and archives
    that are unknown.
    """
    form = archive_form(archive)
    bands = {key: band for band, key in form.keys.items()} | {form.strip_key: DATASTRIP}
    unknown = sorted(set(hrefs) - set(bands))
    if unknown:
        raise ValueError(f"unknown assets of {archive} {', '.join(unknown)}; known: {', '.join(bands)}")
    assets = {}
    for key, href in hrefs.items():
        assets[key] = {"href": href, "type": media_type(href), **form.asset(granule, bands[key])}
        if form.file_facts and sizes and key in sizes:
            assets[key]["file:size"] = sizes[key]
        if form.file_facts and checksums and key in checksums:
            # A multihash: SHA-256, 32 bytes.
            assets[key]["file:checksum"] = f"1220{checksums[key]}"
    return {
        "type": "Feature",
        "stac_version": form.stac_version,
        "stac_extensions": list(form.extensions),
        "id": form.id(granule),
        "collection": form.collection,
        "geometry": geometry(granule.footprint),
        "bbox": bbox(granule.footprint, form.digits),
        "properties": form.properties(granule),
        "links": [],
        "assets": assets,
    }


def archive_form(archive: str) -> ArchiveForm:
    """How an archive writes items. Raises ValueError for one that is unknown."""
    if archive not in ARCHIVES:
        raise ValueError(f"unknown archive {archive!r}; known: {', '.join(ARCHIVES)}")
    return ARCHIVES[archive]


def asset_key(archive: str, band: str) -> str:
    """The key of a band's asset, or of DATASTRIP's. Raises ValueError where the archive has no such band."""
    form = archive_form(archive)
    keys = {**form.keys, DATASTRIP: form.strip_key}
    if band not in keys:
        raise ValueError(f"{archive} has no band {band}; it has {', '.join(keys)}")
    return keys[band]


def file_path(granule: Granule, archive: str, band: str, suffix: str = ".tif") -> str:
    """Where the archive keeps the file of a band, below its root; `suffix` because simulated files are GeoTIFFs."""
    asset_key(archive, band)
    return archive_form(archive).path(granule, band, suffix)


def media_type(href: str) -> str:
    """The media type of a file by the end of its name."""
    return {"jp2": "image/jp2", "xml": "application/xml"}.get(href.rpartition(".")[2], COG)


def extension(*names: str) -> tuple[str, ...]:
    """Addresses of STAC extensions named `eo/v1.1.0`."""
    return tuple(f"https://stac-extensions.github.io/{name}/schema.json" for name in names)


EARTH_SEARCH_KEYS = {band: key for band, (key, *_) in EARTH_SEARCH_BANDS.items()} | {"SCL": "scl"}
L2A_KEYS = {band: key for band, key in EARTH_SEARCH_KEYS.items() if band != "B10"}
L1C_KEYS = {band: key for band, key in EARTH_SEARCH_KEYS.items() if band != "SCL"}
EARTH_SEARCH_EXTENSIONS = extension(
    "grid/v1.1.0",
    "mgrs/v1.0.0",
    "processing/v1.1.0",
    "projection/v1.1.0",
    "sentinel-2/v1.0.0",
    "raster/v1.1.0",
    "view/v1.0.0",
    "eo/v1.1.0",
)
ARCHIVES = {
    "sentinel-2-c1-l2a": ArchiveForm(
        collection="sentinel-2-c1-l2a",
        stac_version="1.0.0",
        extensions=tuple(sorted((*EARTH_SEARCH_EXTENSIONS, *extension("file/v2.1.0", "storage/v1.0.0")))),
        digits=6,
        id=collection1_id,
        properties=collection1_properties,
        keys=L2A_KEYS,
        asset=earth_search_asset,
        path=lambda granule, band, suffix: f"{tile_folder(granule)}/{collection1_id(granule)}/{band}{suffix}",
        file_facts=True,
    ),
    "sentinel-2-l2a": ArchiveForm(
        collection="sentinel-2-l2a",
        stac_version="1.0.0",
        extensions=EARTH_SEARCH_EXTENSIONS,
        digits=6,
        id=lambda granule: earth_search_id(granule, "L2A"),
        properties=lambda granule: older_properties(granule, "L2A"),
        keys=L2A_KEYS,
        asset=earth_search_asset,
        path=lambda granule, band, suffix: f"{tile_folder(granule)}/{earth_search_id(granule, 'L2A')}/{band}{suffix}",
    ),
    "sentinel-2-l1c": ArchiveForm(
        collection="sentinel-2-l1c",
        stac_version="1.0.0",
        extensions=EARTH_SEARCH_EXTENSIONS,
        digits=6,
        id=lambda granule: earth_search_id(granule, "L1C"),
        properties=lambda granule: older_properties(granule, "L1C"),
        keys=L1C_KEYS,
        asset=earth_search_asset,
        path=lambda granule, band, suffix: (
            f"tiles/{tile_folder(granule)}/{granule.sensing.day}/{granule.sequence}/{band}{suffix}"
        ),
    ),
    "planetary-computer": ArchiveForm(
        collection="sentinel-2-l2a",
        stac_version="1.0.0",
        extensions=extension("eo/v1.0.0", "sat/v1.0.0", "projection/v1.0.0"),
        digits=8,
        id=lambda granule: sentinel2_product_name(granule, "L2A", baseline=False),
        properties=planetary_properties,
        keys={band: band for band in (*PLANETARY_BANDS, "SCL")},
        asset=planetary_asset,
        path=planetary_path,
        strip_key="datastrip-metadata",
    ),
    "copernicus": ArchiveForm(
        collection="sentinel-2-l2a",
        stac_version="1.1.0",
        extensions=(
            *extension("eo/v2.0.0", "raster/v2.0.0", "sat/v1.0.0", "projection/v2.0.0", "grid/v1.1.0", "view/v1.0.0"),
            *extension("file/v2.1.0", "processing/v1.2.0", "timestamps/v1.1.0"),
            *extension("classification/v2.0.0", "product/v0.1.0"),
            "https://cs-si.github.io/eopf-stac-extension/v1.2.0/schema.json",
        ),
        digits=6,
        id=lambda granule: sentinel2_product_name(granule, "L2A"),
        properties=copernicus_properties,
        keys={band: copernicus_key(band) for band in (*COPERNICUS_BANDS, "SCL")},
        asset=copernicus_asset,
        path=copernicus_path,
        file_facts=True,
    ),
}
