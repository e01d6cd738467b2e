"""Opening a store: a season as an xarray dataset, and the tables of its index."""

from __future__ import annotations

import io
import json
from pathlib import Path
from typing import Any

import aiohttp
import fsspec
import geopandas as gpd
import numpy as np
import pandas as pd
import xarray as xr
import zarr
from numpy.typing import NDArray
from xarray.backends import BackendArray
from xarray.core.indexing import ExplicitIndexer, IndexingSupport, LazilyIndexedArray, explicit_indexing_adapter

from h2crop_data.constants import REFLECTANCE_FILL, REFLECTANCE_SCALE
from h2crop_data.cube.schema import StoreLayout, check_format_version, coordinates
from h2crop_data.errors import StoreError


def read_file(store: str | Path, name: str) -> bytes:
    """A file of a store in a folder or at a URL. Raises StoreError naming it."""
    location = f"{str(store).rstrip('/')}/{name}"
    try:
        if "://" not in location:
            return Path(location).read_bytes()
        with fsspec.open(location, "rb") as file:
            data: bytes = file.read()
    except (OSError, ValueError, aiohttp.ClientError) as error:
        raise StoreError(f"cannot read {location}: {error}; is {store} a finished store?") from error
    return data


def store_attributes(store: str | Path) -> dict[str, Any]:
    """The root attributes of a store's current release.

    Raises StoreError where there is no store, FormatVersionError for one of another major version.
    """
    try:
        attributes: dict[str, Any] = json.loads(read_file(store, "zarr.json"))["attributes"]
        attributes["format_version"]
    except (ValueError, KeyError, TypeError) as error:
        raise StoreError(f"{store}/zarr.json is not the root of an h2crop store ({error})") from error
    check_format_version(attributes, store)
    return attributes


class ValidSamples(BackendArray):
    """An array of a store without its empty slots, read when indexed, as stored or as reflectance.

    An index goes down to the store as slices, so that of one sample and month only that chunk is read.
    """

    def __init__(self, array: zarr.Array[Any], slots: NDArray[np.int64], *, scaled: bool) -> None:
        self.array = array
        self.slots = slots
        self.scaled = scaled
        self.shape = (len(slots), *array.shape[1:])
        self.dtype = np.dtype(np.float32) if scaled else np.dtype(array.dtype)

    def __getitem__(self, key: ExplicitIndexer) -> Any:
        return explicit_indexing_adapter(key, self.shape, IndexingSupport.BASIC, self.read)

    def read(self, key: tuple[Any, ...]) -> NDArray[Any]:
        """The values under a key of integers and slices."""
        samples, *rest = key
        slots = self.slots[samples]
        if np.ndim(slots) == 0:
            return self.decoded(np.asarray(self.array[(int(slots), *rest)]))
        spans = [(run[0], run[-1] + 1) for run in np.split(slots, np.flatnonzero(np.diff(slots) != 1) + 1) if len(run)]
        parts = [np.asarray(self.array[(slice(*span), *rest)]) for span in spans or [(0, 0)]]
        return self.decoded(np.concatenate(parts))

    def decoded(self, stored: NDArray[Any]) -> NDArray[Any]:
        """Stored values as they are, or reflectance with NaN for fill."""
        if not self.scaled:
            return stored
        reflectance = stored * np.float32(REFLECTANCE_SCALE)
        return np.where(stored == REFLECTANCE_FILL, np.float32(np.nan), reflectance)


def open_season(store: str | Path, season: int, *, scaled: bool = False) -> xr.Dataset:
    """The valid samples of a season, lazily, as stored or scaled.

    store: folder or http(s) URL. scaled: `enmap` and `s2` become reflectance, float32 with NaN where nothing was
    measured; everything else stays as stored. Arrays are dask arrays, a block's size a chunk; coordinates are in
    memory. Raises StoreError.
    """
    store_attributes(store)
    root: Any = zarr.open_group(str(store), mode="r", use_consolidated=True)
    # One root for everything: another release may be made at any moment.
    attributes = root.attrs.asdict()
    if str(season) not in attributes["seasons"]:
        raise StoreError(f"{store} has no season {season}; it has {', '.join(attributes['seasons'])}")
    layout = StoreLayout.from_attributes(attributes["layout"])
    group = root[str(season)]
    slots = np.flatnonzero(group["valid"][:])
    variables: dict[str, xr.Variable] = {}
    for name, spec in layout.arrays().items():
        reflectance = scaled and spec.dtype == np.int16
        lazy = LazilyIndexedArray(ValidSamples(group[name], slots, scaled=reflectance))
        attrs = {**spec.attributes, "units": "1"} if reflectance else dict(spec.attributes)
        if reflectance:
            del attrs["_FillValue"], attrs["note"]
        variables[name] = xr.Variable(spec.dims, lazy, attrs).chunk({"sample": layout.capacity})
    coordinate_values = {}
    for coordinate in coordinates(layout):
        values = group[coordinate.name][:]
        if coordinate.dims[0] == "sample":
            values = values[slots]
        coordinate_values[coordinate.name] = xr.Variable(coordinate.dims, values, dict(coordinate.attributes))
    return xr.Dataset(variables, coordinate_values, {"release": attributes["release"], "season": season})


def read_index(store: str | Path, name: str) -> pd.DataFrame:
    """A table of the current release's index: `samples-2022`, `parcels-2022`, `blocks`, `scenes`, `manifest`.

    Tables with geometry come as GeoDataFrame, in longitude and latitude.
    """
    data = io.BytesIO(read_file(store, index_path(store, name)))
    table: pd.DataFrame = (gpd if name.startswith(("samples", "parcels")) else pd).read_parquet(data)
    return table


def read_index_json(store: str | Path, name: str) -> Any:
    """A document of the current release's index: `statistics`, `classes`, `recipes`."""
    return json.loads(read_file(store, index_path(store, name)))


def index_path(store: str | Path, name: str) -> str:
    """Where a part of the index lies."""
    index: dict[str, str] = store_attributes(store)["index"]
    if name not in index:
        raise StoreError(f"{store} has no index {name!r}; it has {', '.join(sorted(index))}")
    return index[name]
