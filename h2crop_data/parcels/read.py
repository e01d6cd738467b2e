"""Reading declared parcels from the files countries publish, and repairing what is wrong with them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import geopandas as gpd
import numpy as np
import pandas as pd
import pyogrio
import shapely
from numpy.typing import NDArray
from pyproj import CRS
from pyproj.exceptions import CRSError
from shapely.geometry.base import BaseGeometry

from h2crop_data.crops.codes import clean_code, code_with_use, several_codes
from h2crop_data.errors import ParcelError
from h2crop_data.grid import LONLAT, to_crs
from h2crop_data.parcels.damage import about_to_name_rows, quoted, rows_where, rows_without_shape
from h2crop_data.parcels.extent import Extent

#: What is wrong with a row that is repaired, and with one that is left out.
REPAIRED = ("invalid", "three_dimensional")
LEFT_OUT = ("null", "empty", "unreadable", "duplicate")
#: What is wrong with rows of the same shape and other crops, of which the first is kept as one of unknown crop.
CONTRADICTORY = "contradictory"
#: In the place of a row's parcel where it has none.
NO_PARCEL = -1
#: Rows read at a time where a file cannot be searched by place.
ROWS_AT_A_TIME = 250_000


@dataclass(frozen=True)
class ParcelFile:
    """A layer of a vector file that parcels are read from."""

    path: Path
    layer: str
    code_field: str
    id_field: str | None
    #: Field of the use of the crop, where the code does not say it.
    use_field: str | None
    #: The CRS to believe: the recipe's, else the file's.
    crs: str
    driver: str
    #: Name of its column of geometry, where it has one.
    geometry: str
    #: Rows that it states.
    features: int
    #: Of all its rows, as it states, in `crs`; not finite where it does not know.
    extent: Extent

    @property
    def columns(self) -> list[str]:
        """The fields that are read."""
        return [field for field in (self.code_field, self.use_field, self.id_field) if field]


@about_to_name_rows()
def open_parcels(
    path: Path,
    code_field: str,
    *,
    use_field: str | None = None,
    id_field: str | None = None,
    layer: str | None = None,
    crs: str | None = None,
) -> ParcelFile:
    """A file of parcels; no row is read. Field names are found without regard to case.

    use_field: of the crop's use, which is then a part of the code, after a space.

    Raises ParcelError for a file, layer, field or CRS that does not exist.
    """
    try:
        layer = layer or only_layer(path)
        info = pyogrio.read_info(path, layer=layer, force_feature_count=True, force_total_bounds=True)
    except (pyogrio.errors.DataSourceError, pyogrio.errors.DataLayerError) as error:
        raise ParcelError(f"cannot read parcels from {path}: {error}") from error
    fields = list(info["fields"])
    return ParcelFile(
        path=path,
        layer=layer,
        code_field=field_named(path, code_field, fields),
        id_field=field_named(path, id_field, fields) if id_field else None,
        use_field=field_named(path, use_field, fields) if use_field else None,
        crs=declared_crs(path, crs, info["crs"]),
        driver=info["driver"],
        geometry=info["geometry_name"],
        features=info["features"],
        extent=tuple(info["total_bounds"] or (np.nan,) * 4),
    )


def vector_fields(path: Path, layer: str | None = None) -> list[str]:
    """The fields of a layer of a vector file. Raises ParcelError where it cannot be read."""
    try:
        return list(pyogrio.read_info(path, layer=layer or only_layer(path))["fields"])
    except (pyogrio.errors.DataSourceError, pyogrio.errors.DataLayerError) as error:
        raise ParcelError(f"cannot read parcels from {path}: {error}") from error


@about_to_name_rows()
def read_parcels(file: ParcelFile, area: BaseGeometry | None = None) -> tuple[gpd.GeoDataFrame, pd.DataFrame]:
    """Parcels of a file, repaired, in longitude and latitude, and what was wrong with its rows.

    area: (longitude, latitude) only parcels whose bounds meet its bounds are read.
    Gives a frame with `fid`, `parcel_id`, `code` (text, `clean_code`) and valid polygons, in the order of the file; of
    rows with the same shape the first, whose code names all of theirs (`several_codes`). And a frame with `fid`,
    `parcel` (fid of the parcel that holds the ground of the row, or NO_PARCEL) and `problem` (of REPAIRED, LEFT_OUT,
    CONTRADICTORY), a row for each of its problems. Raises ParcelError where the file cannot be read.
    """
    bounds = None if area is None else to_crs(shapely.box(*area.bounds), LONLAT, file.crs).bounds
    try:
        rows = pd.concat(list(rows_near(file, bounds)), ignore_index=True).sort_values("fid", ignore_index=True)
    except (pyogrio.errors.DataSourceError, pyogrio.errors.DataLayerError) as error:
        raise ParcelError(f"cannot read parcels from {file.path}: {error}") from error
    fid, geometry = rows["fid"].to_numpy(np.int64), rows.pop("geometry").to_numpy(copy=True)
    unreadable = rows.pop("unreadable").to_numpy(bool) | has_no_place(geometry)
    null = shapely.is_missing(geometry) & ~unreadable
    geometry[unreadable] = None
    geometry, problems = repair(geometry)
    placed = gpd.GeoSeries(geometry, crs=file.crs).to_crs(LONLAT).to_numpy().copy()
    unreadable |= has_no_place(placed)
    # Rings that touch may cross by a rounding error once they are reprojected.
    placed[unreadable] = None
    placed, _ = repair(placed)
    there = ~shapely.is_empty(placed)
    parcels = gpd.GeoDataFrame(rows[there], geometry=placed[there], crs=LONLAT)
    holder = np.full(len(rows), NO_PARCEL)
    parcels, holder[there] = one_a_shape(parcels, geometry[there])
    problems |= {"null": null, "empty": ~there & ~null & ~unreadable, "unreadable": unreadable}
    problems["duplicate"] = there & (holder != fid)
    problems[CONTRADICTORY] = np.isin(fid, parcels["fid"][parcels.pop("contradictory")])
    return parcels, problem_table(fid, holder, problems)


def rows_near(file: ParcelFile, bounds: Extent | None) -> Iterator[pd.DataFrame]:
    """The rows whose geometry meets some bounds, and those whose geometry cannot be read, piece by piece.

    Each piece has `fid`, `parcel_id`, `code`, `geometry` (None where there is none) and `unreadable`.
    """
    try:
        rows = read_rows(file, bbox=bounds)
    except pyogrio.errors.FeatureError:
        if bounds is None:
            raise
    else:
        yield rows
        return
    # GDAL gives up a search by place where it cannot read a geometry: look at every row instead.
    for start in range(0, file.features, ROWS_AT_A_TIME):
        piece = read_rows(file, skip_features=start, max_features=min(ROWS_AT_A_TIME, file.features - start))
        west, south, east, north = shapely.bounds(piece["geometry"].to_numpy()).T
        near = (west <= bounds[2]) & (south <= bounds[3]) & (east >= bounds[0]) & (north >= bounds[1])
        if file.driver != "GPKG":
            # Elsewhere a geometry that GDAL cannot read looks like one that was never there.
            piece["unreadable"] |= shapely.is_missing(piece["geometry"].to_numpy())
        yield piece[near | piece["unreadable"].to_numpy()]


def read_rows(file: ParcelFile, **selection: Any) -> pd.DataFrame:
    """Some rows of a file, as `rows_near` gives them."""
    meta, fid, shapes, values = pyogrio.raw.read(
        file.path, layer=file.layer, columns=file.columns, return_fids=True, **selection
    )
    fields = dict(zip(meta["fields"], values, strict=True))
    with np.errstate(invalid="ignore"):
        geometry = shapely.from_wkb(shapes, on_invalid="ignore")
    missing = pd.isna(shapes)
    unreadable = shapely.is_missing(geometry) & ~missing
    if missing.any() and file.driver == "GPKG":
        null = rows_where(file.path, file.layer, f"{quoted(file.geometry)} IS NULL")
        unreadable |= missing & ~np.isin(fid, null)
    identifiers = pd.Series(fields[file.id_field]).map(clean_code) if file.id_field else pd.Series(fid)
    codes = pd.Series(fields[file.code_field]).map(clean_code).astype("str")
    if file.use_field:
        uses = pd.Series(fields[file.use_field]).map(clean_code)
        codes = pd.Series(list(map(code_with_use, codes, uses)), dtype="str")
    return pd.DataFrame(
        {
            "fid": fid,
            "parcel_id": identifiers.astype("str").array,
            "code": codes.array,
            "geometry": pd.Series(geometry, dtype=object),
            "unreadable": unreadable,
        }
    )


def passed_over(file: ParcelFile) -> pd.DataFrame:
    """The rows that a search by place passes over because their geometry is none, as problems of `read_parcels`."""
    fid = rows_without_shape(file.path, file.layer, file.geometry) if file.driver == "GPKG" else np.array([], np.int64)
    return problem_table(fid, np.full(len(fid), NO_PARCEL), {"unreadable": np.ones(len(fid), bool)})


def problem_table(
    fid: NDArray[np.int64], holder: NDArray[np.int64], problems: Mapping[str, NDArray[np.bool_]]
) -> pd.DataFrame:
    """The problems of rows, as `read_parcels` gives them."""
    parts = [pd.DataFrame({"fid": fid[has], "parcel": holder[has], "problem": name}) for name, has in problems.items()]
    return pd.concat(parts, ignore_index=True)


def count_rows(parcels: pd.DataFrame, problems: pd.DataFrame) -> dict[str, int]:
    """How many rows were read and parcels are left, and how many had each problem."""
    found = problems["problem"].value_counts()
    counts = {name: int(found.get(name, 0)) for name in (*REPAIRED, *LEFT_OUT, CONTRADICTORY)}
    left_out = sum(counts[name] for name in LEFT_OUT)
    return {"read": len(parcels) + left_out, "parcels": len(parcels), **counts}


def one_a_shape(parcels: gpd.GeoDataFrame, geometry: NDArray[np.object_]) -> tuple[gpd.GeoDataFrame, NDArray[np.int64]]:
    """The first parcel of each shape, and for every parcel the fid of the one that was kept.

    geometry: the shapes as the file has them.
    Adds a column `contradictory`: whether parcels of that shape have different codes, all of which `code` then names.
    """
    shapes = pd.Series(shapely.to_wkb(shapely.normalize(geometry)), dtype=object)
    number, fid = pd.factorize(shapes)[0], parcels["fid"].to_numpy(np.int64)
    first, twice = ~pd.Series(number).duplicated().to_numpy(), pd.Series(number).duplicated(keep=False).to_numpy()
    # Shapes are numbered as they come, like the rows of what is kept.
    kept = parcels[first].reset_index(drop=True)
    codes = parcels["code"][twice].groupby(number[twice]).unique()
    several = codes[codes.map(len) > 1]
    kept["contradictory"] = np.isin(kept.index, several.index)
    kept.loc[several.index, "code"] = several.map(several_codes)
    return kept, fid[first][number]


def only_layer(path: Path) -> str:
    """The one layer of a file that holds geometry; tables of styles and the like do not count."""
    layers = [name for name, kind in pyogrio.list_layers(path).tolist() if kind]
    if len(layers) != 1:
        raise ParcelError(
            f"{path} has {len(layers)} layers with geometry; choose one in the recipe (`layer:`): {', '.join(layers)}"
            if layers
            else f"{path} has no layer with geometry"
        )
    return str(layers[0])


def field_named(path: Path, name: str, fields: Sequence[str]) -> str:
    """The field of that name, or the one that differs from it in case alone. Raises ParcelError where there is none."""
    alike = [name] if name in fields else [field for field in fields if field.casefold() == name.casefold()]
    if len(alike) > 1:
        raise ParcelError(
            f"{path}: no field {name!r}, but several that differ from it only in case: {', '.join(alike)}"
        )
    if not alike:
        raise ParcelError(f"{path}: no field {name!r}; it has {', '.join(fields)}")
    return alike[0]


def declared_crs(path: Path, crs: str | None, stated: str | None) -> str:
    """The CRS to use: the recipe's, else the file's."""
    chosen = crs or stated
    if not chosen:
        raise ParcelError(f"{path} has no CRS; set it in the recipe (`crs: EPSG:2154`)")
    try:
        return str(CRS(chosen).to_string())
    except CRSError as error:
        raise ParcelError(f"{path}: invalid CRS {chosen!r} ({error})") from error


def repair(geometry: NDArray[np.object_]) -> tuple[NDArray[np.object_], dict[str, NDArray[np.bool_]]]:
    """Two-dimensional valid polygons; what has no polygon becomes empty. And by problem, which were repaired."""
    geometry = np.where(shapely.is_missing(geometry), shapely.Polygon(), geometry)
    high = shapely.has_z(geometry)
    geometry = shapely.force_2d(geometry)
    invalid = ~shapely.is_valid(geometry)
    geometry[invalid] = shapely.make_valid(geometry[invalid], method="structure", keep_collapsed=False)
    polygonal = np.isin(shapely.get_type_id(geometry), (3, 6))
    geometry[~polygonal] = [polygons_of(shape) for shape in geometry[~polygonal]]
    return geometry, {"invalid": invalid, "three_dimensional": high}


def has_no_place(geometry: NDArray[np.object_]) -> NDArray[np.bool_]:
    """Which geometries have a coordinate that is not a number or infinite."""
    coordinates, owner = shapely.get_coordinates(geometry, return_index=True)
    without: NDArray[np.bool_] = np.isin(np.arange(len(geometry)), owner[~np.isfinite(coordinates).all(axis=1)])
    return without


def polygons_of(geometry: BaseGeometry) -> BaseGeometry:
    """The polygons in a geometry collection; an empty polygon where there are none."""
    parts = [part for part in shapely.get_parts(geometry, return_index=False) if part.geom_type.endswith("Polygon")]
    return shapely.union_all(parts) if parts else shapely.Polygon()
