"""Products on a disk as STAC items that a recipe's `enmap.catalog` reads, with what was found, missing and refused."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Literal

import pystac
from odc.geo.geobox import GeoBox

from h2crop_data.catalog.access import grid_of, opened, read_text
from h2crop_data.catalog.collections import add_items
from h2crop_data.catalog.item_facts import ENMAP_NAME, enmap_scene, version_in_name
from h2crop_data.catalog.whole_files import check_whole
from h2crop_data.enmap.product import Band, parse_metadata
from h2crop_data.enmap.properties import stated_properties
from h2crop_data.errors import H2cropError, SceneError
from h2crop_data.grid import LONLAT
from h2crop_data.progress import Progress, silent
from h2crop_data.sources.enmap.products import PART_ASSETS, READ_ASSETS, FoundProduct, find_products
from h2crop_data.sources.enmap.select import CLOUD_LAYER

#: Assets without which a product cannot be used.
NEEDED = ("image", "metadata", "quality_classes")
COLLECTION = "ENMAP_HSI_L2A"
STAC_EXTENSIONS = ("eo/v1.1.0", "view/v1.0.0", "projection/v1.0.0")


@dataclass(frozen=True)
class AddedProduct:
    """The result for one product."""

    name: str
    status: Literal["added", "replaced", "refused"]
    #: Why it was refused, or what to know of it all the same; empty where there is nothing.
    reason: str
    #: The folder of its metadata, or of another of its files.
    folder: str
    #: Assets that were found, and those that builds read and the product lacks.
    found: list[str]
    missing: list[str]


@dataclass(frozen=True)
class AddedProducts:
    """The results for the products in some folders and archives."""

    into: str
    products: list[AddedProduct]
    #: Archive -> why it, or a part of it, was not read.
    problems: dict[str, str]

    @property
    def used(self) -> list[AddedProduct]:
        """Those that were added or replaced."""
        return [product for product in self.products if product.status != "refused"]

    def as_json(self) -> dict[str, Any]:
        """The report as JSON."""
        return asdict(self)


def add_products(places: Sequence[Path], into: Path, unpacked: Path, progress: Progress = silent) -> AddedProducts:
    """Add the products in folders and archives to the ItemCollection `into`, which is created if it does not exist.

    unpacked: where archives are unpacked to. Raises UsageError for a place that does not exist, CatalogError for an
    `into` that is not an ItemCollection or cannot be written.
    """
    found = find_products(places, unpacked, progress)
    items: dict[str, pystac.Item] = {}
    refusals: dict[str, str] = {}
    for number, (name, product) in enumerate(sorted(found.products.items())):
        progress(number, len(found.products), f"check {name}")
        try:
            items[name] = product_item(product)
        except H2cropError as error:
            refusals[name] = str(error)
    progress(len(found.products), len(found.products), "checked")
    replaced = add_items(into, list(items.values())) if items else set()
    products = []
    for name, product in sorted(found.products.items()):
        status: Literal["added", "replaced", "refused"] = "refused" if name in refusals else "added"
        if name in replaced:
            status = "replaced"
        missing = [key for key in READ_ASSETS if key not in product.files]
        first = product.files.get("metadata") or next(iter(product.files.values()), None)
        products.append(
            AddedProduct(
                name=name,
                status=status,
                reason=refusals.get(name) or what_to_know(items[name]),
                folder=str(first.parent) if first else "",
                found=[key for key in PART_ASSETS.values() if key in product.files],
                missing=missing,
            )
        )
    return AddedProducts(str(into), products, found.problems)


def what_to_know(item: pystac.Item) -> str:
    """Why builds do not use a product; empty where they do."""
    notes = []
    try:
        enmap_scene(item)
    except SceneError:
        notes.append("METADATA.XML does not state quality and cloud cover: builds do not use the scene")
    if CLOUD_LAYER not in item.assets:
        notes.append(f"it has no {CLOUD_LAYER}: builds use it only with `enmap.cloud_layer: optional`")
    return "; ".join(notes)


def product_item(product: FoundProduct) -> pystac.Item:
    """The STAC item of a product, after all of its files were checked.

    Raises SceneError or ReadError where it is of another level, lacks a file, or has a damaged one.
    """
    if product.level != "L2A":
        raise SceneError(f"expected a product of level L2A, surface reflectance, got {product.level}")
    if product.damaged:
        raise SceneError(f"some of its files may be missing, because {product.damaged} is damaged: download that again")
    lacking = [key for key in NEEDED if key not in product.files]
    if lacking:
        others = f"; not read: {', '.join(product.unread)} (order GeoTIFF)" if product.unread else ""
        raise SceneError(f"it has no {', no '.join(lacking)}{others}")
    for path in product.files.values():
        try:
            check_whole(path)
        except H2cropError as error:
            raise type(error)(f"{path.name}: {error}") from error
    xml = read_text(str(product.files["metadata"]))
    bands = parse_metadata(xml).bands
    grids = {key: layer_grid(path, key, len(bands)) for key, path in product.files.items() if key != "metadata"}
    return described_item(product, stated_properties(xml), bands, grids)


def layer_grid(path: Path, key: str, bands: int) -> GeoBox:
    """The pixel grid of a file. Raises SceneError where it is not what its metadata says."""
    with opened(str(path)) as dataset:
        if key == "image" and dataset.count != bands:
            raise SceneError(f"{path.name} has {dataset.count} bands, METADATA.XML describes {bands}")
        if key == "image" and dataset.dtypes[0] != "int16":
            raise SceneError(f"{path.name}: expected int16, got {dataset.dtypes[0]}")
        return grid_of(dataset)


def described_item(
    product: FoundProduct, stated: Mapping[str, Any], bands: Sequence[Band], grids: Mapping[str, GeoBox]
) -> pystac.Item:
    """The item of a product, with the fields of DLR's catalog that its files say."""
    named = ENMAP_NAME.match(product.name)
    assert named is not None
    image = grids["image"]
    outline = image.extent.to_crs(LONLAT, resolution=image.extent.boundingbox.span_x / 8)
    version = version_in_name(product.name)
    elevation = stated.get("enmap:sunElevationAngle") or 0
    item = pystac.Item(
        product.name,
        json.loads(json.dumps(outline.json)),
        list(outline.boundingbox),
        datetime.strptime(named["time"], "%Y%m%dT%H%M%S").replace(tzinfo=UTC),
        {
            "version": version,
            "platform": "enmap",
            "processing:level": "L2A",
            "enmap:datatakeID": int(named["datatake"]),
            "enmap:tileID": int(named["tile"]),
            "proj:epsg": image.crs.epsg if image.crs else None,
            **({"view:sun_elevation": elevation} if elevation > 0 else {}),
            **stated,
        },
        stac_extensions=[f"https://stac-extensions.github.io/{name}/schema.json" for name in STAC_EXTENSIONS],
        collection=COLLECTION,
    )
    for key, path in sorted(product.files.items()):
        fields = grid_fields(grids[key]) if key in grids else {}
        if key == "image":
            fields["eo:bands"] = [band_fields(band) for band in sorted(bands, key=lambda band: band.number)]
        kind = pystac.MediaType.XML if key == "metadata" else pystac.MediaType.GEOTIFF
        item.add_asset(key, pystac.Asset(str(path), media_type=kind, extra_fields=fields))
    return item


def grid_fields(grid: GeoBox) -> dict[str, Any]:
    """`proj:` fields of a pixel grid."""
    return {
        "proj:epsg": grid.crs.epsg if grid.crs else None,
        "proj:shape": list(grid.shape),
        "proj:transform": [*map(float, tuple(grid.affine)[:6]), 0.0, 0.0, 1.0],
        "proj:bbox": list(grid.boundingbox.bbox),
    }


def band_fields(band: Band) -> dict[str, Any]:
    """A band in `eo:bands`, as the archive writes it (nm)."""
    return {
        "name": band.number,
        "center_wavelength": band.wavelength,
        "full_width_half_max": band.fwhm,
        "enmap:gain_of_band": band.gain,
        "enmap:offset_of_band": band.offset,
    }
