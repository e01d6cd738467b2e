"""Reading declared parcels from the files countries publish, and mending what is wrong with them."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import geopandas as gpd
import numpy as np
import pandas as pd
import pyogrio
import shapely
from numpy.typing import NDArray
from pyproj import CRS
from pyproj.exceptions import CRSError
from shapely.geometry.base import BaseGeometry

from h2crop_data.errors import ParcelError
from h2crop_data.grid import LONLAT, to_crs
from h2crop_data.parcels.taxonomy import clean_code


def read_parcels(
    path: Path,
    code_field: str,
    *,
    id_field: str | None = None,
    layer: str | None = None,
    crs: str | None = None,
    area: BaseGeometry | None = None,
) -> tuple[gpd.GeoDataFrame, dict[str, int]]:
    """Parcels of a vector file, mended, in longitude and latitude.

    area: (longitude, latitude) only parcels whose bounds meet its bounds are read.
    Gives a frame with `fid`, `parcel_id`, `code` (text, `clean_code`) and valid polygons, in the order of the file, and
    counts of what was read, mended (`invalid`, `three_dimensional`) and dropped (`null`, `empty`, `duplicate`).
    Raises ParcelError for a file, layer, field or CRS that is not there.
    """
    try:
        layer = layer or only_layer(path)
        info = pyogrio.read_info(path, layer=layer)
    except (pyogrio.errors.DataSourceError, pyogrio.errors.DataLayerError) as error:
        raise ParcelError(f"cannot read parcels from {path}: {error}") from error
    fields = list(info["fields"])
    for field in filter(None, (code_field, id_field)):
        if field not in fields:
            raise ParcelError(f"{path}: no field {field!r}; it has {', '.join(fields)}")
    stated = declared_crs(path, crs, info["crs"])
    bounds = None if area is None else to_crs(shapely.box(*area.bounds), LONLAT, stated).bounds
    columns = [field for field in (code_field, id_field) if field]
    frame = pyogrio.read_dataframe(path, layer=layer, columns=columns, bbox=bounds, fid_as_index=True).sort_index()
    counts = Counter(read=len(frame))
    geometry = mended(frame.geometry.to_numpy(), counts)
    identifiers = frame[id_field].map(clean_code) if id_field else frame.index
    parcels = gpd.GeoDataFrame(
        {
            "fid": frame.index.to_numpy(),
            "parcel_id": identifiers.astype("str").array,
            "code": frame[code_field].map(clean_code).astype("str").array,
        },
        geometry=geometry,
        crs=stated,
    )
    parcels = parcels[~shapely.is_empty(geometry)]
    twins = pd.Series(shapely.to_wkb(shapely.normalize(parcels.geometry.to_numpy()))).duplicated().to_numpy()
    counts["duplicate"] = int(twins.sum())
    parcels = parcels[~twins].to_crs(LONLAT).reset_index(drop=True)
    # Rings that touch may cross by a rounding error once they are reprojected.
    parcels.geometry = mended(parcels.geometry.to_numpy(), Counter())
    return parcels, dict(counts)


def only_layer(path: Path) -> str:
    """The one layer of a file that holds geometry; tables of styles and the like do not count."""
    layers = [name for name, kind in pyogrio.list_layers(path).tolist() if kind]
    if len(layers) != 1:
        raise ParcelError(
            f"{path} has {len(layers)} layers with geometry; name one in the recipe (`layer:`): {', '.join(layers)}"
            if layers
            else f"{path} has no layer with geometry"
        )
    return str(layers[0])


def declared_crs(path: Path, crs: str | None, stated: str | None) -> str:
    """The CRS to believe: the recipe's, else the file's."""
    chosen = crs or stated
    if not chosen:
        raise ParcelError(f"{path} states no CRS; name it in the recipe (`crs: EPSG:2154`)")
    try:
        return str(CRS(chosen).to_string())
    except CRSError as error:
        raise ParcelError(f"{path}: {chosen!r} is not a CRS ({error})") from error


def mended(geometry: NDArray[np.object_], counts: Counter[str]) -> NDArray[np.object_]:
    """Two-dimensional valid polygons; what has no polygon becomes empty. Counts what was done in `counts`."""
    missing = shapely.is_missing(geometry)
    counts["null"] = int(missing.sum())
    geometry = np.where(missing, shapely.Polygon(), geometry)
    counts["three_dimensional"] = int(shapely.has_z(geometry).sum())
    geometry = shapely.force_2d(geometry)
    invalid = ~shapely.is_valid(geometry)
    counts["invalid"] = int(invalid.sum())
    geometry[invalid] = shapely.make_valid(geometry[invalid], method="structure", keep_collapsed=False)
    polygonal = np.isin(shapely.get_type_id(geometry), (3, 6))
    geometry[~polygonal] = [polygons_of(shape) for shape in geometry[~polygonal]]
    counts["empty"] = int(shapely.is_empty(geometry).sum()) - counts["null"]
    return geometry


def polygons_of(geometry: BaseGeometry) -> BaseGeometry:
    """The polygons in a geometry collection; an empty polygon where there are none."""
    parts = [part for part in shapely.get_parts(geometry, return_index=False) if part.geom_type.endswith("Polygon")]
    return shapely.union_all(parts) if parts else shapely.Polygon()
