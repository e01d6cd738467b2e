"""A tiny made region in real file formats: Sentinel-2 and EnMAP GeoTIFFs with STAC items, parcels, a recipe.

Everything is chosen by the test, so that each rule of plan and build can be seen alone. Ground: 480 x 480 m near
(`WEST`, `SOUTH`) in EPSG:32631, four cells of 240 m; the rasters reach 60 m beyond it.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import geopandas as gpd
import numpy as np
import rasterio
import shapely
import yaml
from affine import Affine
from numpy.typing import NDArray
from pyproj import Transformer

from h2crop_data.recipe.model import Recipe, load_recipe

EPSG = 32631
WEST, SOUTH = 501360, 5629200
EAST, NORTH = WEST + 480, SOUTH + 480
BANDS = {"B02": "blue", "B08": "nir", "B11": "swir16"}
#: Cloud masks that leave what the scene classification calls clear, pixel by pixel, and look at nothing else.
CLASSES_ALONE = {"dilation": 0, "cast_shadows": False, "second_look": False}
#: Centre wavelengths of the made EnMAP bands, in the order they stand in the file.
WAVELENGTHS = (550.0, 860.0, 650.0, 1350.0)


def outline(west: float, south: float, east: float, north: float) -> dict[str, Any]:
    """A box of the zone as GeoJSON in longitude and latitude."""
    to_lonlat = Transformer.from_crs(f"EPSG:{EPSG}", "OGC:CRS84", always_xy=True).transform
    box = shapely.box(west, south, east, north)
    return json.loads(shapely.to_geojson(shapely.transform(box, to_lonlat, interleaved=False)))


def write_raster(path: Path, pixels: NDArray[Any], west: float, north: float, size: float, nodata: int) -> None:
    """A GeoTIFF, (band, y, x), in the region's zone."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with rasterio.open(
        path,
        "w",
        driver="GTiff",
        height=pixels.shape[1],
        width=pixels.shape[2],
        count=len(pixels),
        dtype=pixels.dtype,
        crs=f"EPSG:{EPSG}",
        transform=Affine(size, 0, west, 0, -size, north),
        nodata=nodata,
    ) as raster:
        raster.write(pixels)


@dataclass
class TinyRegion:
    """The files of a region below a folder; call its methods, then `recipe()`."""

    folder: Path
    sentinel2: list[dict[str, Any]] = field(default_factory=list)
    enmap: list[dict[str, Any]] = field(default_factory=list)

    def add_sentinel2(
        self,
        name: str,
        date: str,
        reflectance: int = 1000,
        *,
        baseline: str | None = "05.00",
        offset: int = 1000,
        scl: int | NDArray[np.uint8] = 4,
        west: float = WEST - 60,
        east: float = EAST + 60,
        datatake: str | None = None,
        strip: str | None = None,
        tile: str = "31UDS",
        cloud_cover: float = 0.0,
    ) -> Path:
        """A scene of one reflectance (x 10000; band k has k more) stored as number = reflectance + offset.

        datatake, strip: when they began, `20220701T104629`; not stated by default.
        """
        south, north = SOUTH - 60, NORTH + 60
        shape = (round((north - south) / 10), round((east - west) / 10))
        folder = self.folder / "sentinel2" / name
        assets = {}
        for k, (band, key) in enumerate(BANDS.items()):
            size = 20 if band == "B11" else 10
            pixels = np.full((1, shape[0] * 10 // size, shape[1] * 10 // size), reflectance + k + offset, np.uint16)
            write_raster(folder / f"{key}.tif", pixels, west, north, size, 0)
            assets[key] = {"href": f"./sentinel2/{name}/{key}.tif", "type": "image/tiff"}
        classes = np.broadcast_to(np.asarray(scl, np.uint8), (1, shape[0] // 2, shape[1] // 2))
        write_raster(folder / "scl.tif", np.ascontiguousarray(classes), west, north, 20, 0)
        assets["scl"] = {"href": f"./sentinel2/{name}/scl.tif", "type": "image/tiff"}
        properties = {"datetime": date, "proj:epsg": EPSG, "eo:cloud_cover": cloud_cover, "grid:code": f"MGRS-{tile}"}
        if baseline:
            properties["s2:processing_baseline"] = baseline
        if datatake:
            properties["s2:datatake_id"] = f"GS2A_{datatake}_012345_N{baseline}"
        if strip:
            properties["s2:datastrip_id"] = f"S2A_OPER_MSI_L2A_DS_2BPS_20230101T000000_S{strip}_N{baseline}"
        self.sentinel2.append(self._item(name, "sentinel-2-l2a", properties, assets, (west, south, east, north)))
        return folder

    def add_enmap(
        self,
        tile: int = 1,
        time: str = "20220724T104526",
        *,
        value: int = 2000,
        cloud: NDArray[np.bool_] | None = None,
        west: float = WEST - 45,
        east: float = EAST + 45,
        quality: int = 0,
        sun_elevation: float | None = 50.0,
        cloud_cover: float = 0.0,
        datatake: int = 1867,
        processed: str = "20230628T165614",
    ) -> str:
        """A product of four bands (value, +1, +2, +3 in file order) on EnMAP's odd 15 m grid; gives its name."""
        name = f"ENMAP01-____L2A-DT{datatake:010d}_{time}Z_{tile:03d}_V010302_{processed}Z"
        south, north = SOUTH - 45, NORTH + 45
        shape = (round((north - south) / 30), round((east - west) / 30))
        folder = self.folder / "enmap" / name
        cube = np.stack([np.full(shape, value + k, np.int16) for k in range(len(WAVELENGTHS))])
        write_raster(folder / "SPECTRAL_IMAGE.TIF", cube, west, north, 30, -32768)
        write_raster(folder / "CLASSES.TIF", np.ones((1, *shape), np.uint8), west, north, 30, 3)
        clouds = np.zeros(shape, bool) if cloud is None else cloud
        write_raster(folder / "CLOUD.TIF", clouds[None].astype(np.uint8), west, north, 30, 255)
        bands = "".join(
            f'<bandID number="{k + 1}"><wavelengthCenterOfBand>{centre}</wavelengthCenterOfBand>'
            "<FWHMOfBand>7</FWHMOfBand><GainOfBand>0.0001</GainOfBand><OffsetOfBand>0</OffsetOfBand></bandID>"
            for k, centre in enumerate(WAVELENGTHS)
        )
        (folder / "METADATA.XML").write_text(
            f"<level_X><specific><bandCharacterisation>{bands}</bandCharacterisation></specific></level_X>",
            encoding="utf-8",
        )
        files = {
            "image": "SPECTRAL_IMAGE.TIF",
            "metadata": "METADATA.XML",
            "quality_classes": "CLASSES.TIF",
            "quality_cloud": "CLOUD.TIF",
        }
        assets = {key: {"href": f"./enmap/{name}/{file}"} for key, file in files.items()}
        date = f"{time[:4]}-{time[4:6]}-{time[6:8]}T{time[9:11]}:{time[11:13]}:{time[13:]}Z"
        properties = {"datetime": date, "enmap:overallQuality": quality, "eo:cloud_cover": cloud_cover}
        if sun_elevation is not None:
            properties["enmap:sunElevationAngle"] = sun_elevation
        self.enmap.append(self._item(name, "ENMAP_HSI_L2A", properties, assets, (west, south, east, north)))
        return name

    def _item(
        self, name: str, collection: str, properties: dict[str, Any], assets: dict[str, Any], bounds: tuple[float, ...]
    ) -> dict[str, Any]:
        geometry = outline(*bounds)
        return {
            "type": "Feature",
            "stac_version": "1.0.0",
            "stac_extensions": ["https://stac-extensions.github.io/projection/v1.1.0/schema.json"],
            "id": name,
            "collection": collection,
            "geometry": geometry,
            "bbox": list(shapely.from_geojson(json.dumps(geometry)).bounds),
            "properties": properties,
            "links": [],
            "assets": assets,
        }

    def write_parcels(self, year: int, fields: list[tuple[tuple[float, float, float, float], str]]) -> None:
        """A GeoPackage of boxes (west, south, east, north in metres of the zone) with French crop codes."""
        frame = gpd.GeoDataFrame(
            {"CODE_CULTU": [code for _, code in fields], "ID_PARCEL": [f"p{i}" for i in range(len(fields))]},
            geometry=[shapely.box(*bounds) for bounds, _ in fields],
            crs=f"EPSG:{EPSG}",
        )
        frame.to_file(self.folder / f"RPG_{year}.gpkg", driver="GPKG")

    def recipe(self, **changes: Any) -> Recipe:
        """The recipe of what was added; `changes` replace or, for mappings, update its parts."""
        document: dict[str, Any] = {
            "name": "tiny",
            "area": {"bbox": [WEST, SOUTH, EAST, NORTH], "crs": f"EPSG:{EPSG}", "cells": "inside"},
            "seasons": [2022],
            "cell_size": 240,
            "split": {"shares": {"train": 1, "val": 0, "test": 0}},
            "store": {"block_capacity": 2},
        }
        for key, items in (("sentinel2", self.sentinel2), ("enmap", self.enmap)):
            if items:
                collection = {"type": "FeatureCollection", "features": items}
                (self.folder / f"{key}.json").write_text(json.dumps(collection), encoding="utf-8")
                document[key] = {"catalog": f"{key}.json"}
        if self.sentinel2:
            document["sentinel2"] |= {"bands": list(BANDS), "clouds": CLASSES_ALONE, "alignment": "none"}
        if self.enmap:
            document["enmap"] |= {
                "bands": {"exclude_nm": [[1325, 1395]], "count": 3},
                "coregistration": "none",
                "mask": "none",
            }
        if any(self.folder.glob("RPG_*.gpkg")):
            years = sorted(int(path.stem[4:]) for path in self.folder.glob("RPG_*.gpkg"))
            source = {"path": "RPG_{year}.gpkg", "country": "fr", "code_field": "CODE_CULTU", "years": years}
            document["parcels"] = {"season": [{**source, "id_field": "ID_PARCEL"}]}
        for key, change in changes.items():
            document[key] = {**document.get(key, {}), **change} if isinstance(change, dict) else change
        path = self.folder / "recipe.yaml"
        path.write_text(yaml.safe_dump(document), encoding="utf-8")
        return load_recipe(path)
