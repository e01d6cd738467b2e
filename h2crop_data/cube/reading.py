"""Opening a store: a season as an xarray dataset, and the tables of its index."""

from __future__ import annotations

import io
import json
from pathlib import Path
from typing import Any

import fsspec
import geopandas as gpd
import numpy as np
import pandas as pd
import xarray as xr

from h2crop_data.constants import REFLECTANCE_FILL, REFLECTANCE_SCALE
from h2crop_data.cube.schema import FORMAT_VERSION, StoreLayout
from h2crop_data.errors import FormatVersionError, StoreError


def read_file(store: str | Path, name: str) -> bytes:
    """A file of a store in a folder or at a URL. Raises StoreError naming it."""
    location = f"{str(store).rstrip('/')}/{name}"
    try:
        with fsspec.open(location, "rb") as file:
            data: bytes = file.read()
    except (OSError, ValueError) as error:
        raise StoreError(f"cannot read {location}: {error}; is {store} a finished store?") from error
    return data


def store_attributes(store: str | Path) -> dict[str, Any]:
    """The root attributes of a store's current release.

    Raises StoreError where there is no store, FormatVersionError for one of another major version.
    """
    try:
        attributes: dict[str, Any] = json.loads(read_file(store, "zarr.json"))["attributes"]
        version = str(attributes["format_version"])
    except (ValueError, KeyError, TypeError) as error:
        raise StoreError(f"{store}/zarr.json is not the root of an h2crop store ({error})") from error
    if version.split(".")[0] != FORMAT_VERSION.split(".")[0]:
        raise FormatVersionError(
            f"{store} has format {version}, this h2crop reads {FORMAT_VERSION}: use a version of h2crop that fits"
        )
    return attributes


def open_season(store: str | Path, season: int, *, scaled: bool = False) -> xr.Dataset:
    """The valid samples of a season, lazily, as stored or scaled.

    store: folder or http(s) URL. scaled: `enmap` and `s2` become reflectance, float32 with NaN where nothing was
    measured; everything else stays as stored. Raises StoreError.
    """
    attributes = store_attributes(store)
    if str(season) not in attributes["seasons"]:
        raise StoreError(f"{store} has no season {season}; it has {', '.join(attributes['seasons'])}")
    layout = StoreLayout.from_attributes(attributes["layout"])
    dataset: xr.Dataset = xr.open_zarr(
        str(store), group=str(season), chunks=None, consolidated=True, mask_and_scale=False
    )
    coordinates = ["valid", "x0", "y0", "epsg", "wavelength", "fwhm"]
    dataset = dataset.set_coords([name for name in coordinates if name in dataset])
    for name in dataset.coords:
        dataset[name].load()
    # A block's samples are one chunk; of a slice of it only the inner chunks needed are read.
    valid = np.flatnonzero(dataset["valid"].values)
    dataset = dataset.chunk({"sample": layout.capacity}).isel(sample=valid)
    dataset.attrs |= {"release": attributes["release"], "season": season}
    if scaled:
        for name in ("enmap", "s2"):
            if name in dataset:
                stored = dataset[name]
                reflectance = stored.astype(np.float32) * np.float32(REFLECTANCE_SCALE)
                dataset[name] = reflectance.where(stored != REFLECTANCE_FILL)
                dataset[name].attrs = {"long_name": stored.attrs["long_name"], "units": "1"}
    return dataset


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
