"""Opening a store: a season as an xarray dataset, and the tables of its index."""

from __future__ import annotations

import io
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import fsspec
import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import xarray as xr
import zarr
from numpy.typing import NDArray
from xarray.backends import BackendArray
from xarray.core.indexing import ExplicitIndexer, IndexingSupport, LazilyIndexedArray, explicit_indexing_adapter
from zarr.abc.store import ByteRequest, Store
from zarr.core.buffer import Buffer, BufferPrototype
from zarr.storage import FsspecStore, LocalStore, WrapperStore

from h2crop_data.constants import REFLECTANCE_FILL, REFLECTANCE_SCALE
from h2crop_data.crops.mapping import ClassMapping
from h2crop_data.cube.index_reading import (
    codes_name,
    decode_document,
    decode_table,
    joined_columns,
    needs_classes,
    with_classes,
)
from h2crop_data.cube.root import Root, RootAttributes, index_paths
from h2crop_data.cube.schema import (
    REFLECTANCE_UNITS,
    ROOT_COPY,
    check_format_version,
    is_sharded,
    season_documents,
    shard_capacity,
)
from h2crop_data.cube.user_classes import with_user_classes
from h2crop_data.cube.windows import TIME_AXIS, windows_of_season
from h2crop_data.errors import StoreError
from h2crop_data.storage.location import WEB, is_folder, is_readable, open_readable


def read_file(store: str | Path, name: str) -> bytes:
    """A file that every store has, in a folder or at a URL. Raises StoreError naming it."""
    try:
        return read_bytes(store, name)
    except StoreError as error:
        raise StoreError(f"{error}; check that {store} is a finished store") from error


def read_bytes(store: str | Path, name: str) -> bytes:
    """A file of a store in a folder or at a URL. Raises StoreError naming it."""
    if is_readable(store):
        return open_readable(store).read(name)
    location = f"{str(store).rstrip('/')}/{name}"
    try:
        with fsspec.open(location, "rb") as file:
            data: bytes = file.read()
    except (OSError, ValueError, ImportError) as error:
        raise StoreError(f"cannot read {location}: {error}") from error
    return data


def load_root(store: str | Path, release: int | None = None) -> Root:
    """The consolidated root document of a release, by default of the current one.

    Raises StoreError where there is no store or no such release, FormatVersionError for a store of another major
    version.
    """
    root = root_document(store, "zarr.json")
    newest = root["attributes"]["release"]
    if release is None or release == newest:
        return root
    try:
        return root_document(store, f"index/r{release}/{ROOT_COPY}")
    except StoreError as error:
        raise StoreError(
            f"{store} has no release {release}: it was pruned, never existed, or was made by format 1.0; the "
            f"current release is {newest}"
        ) from error


def root_document(store: str | Path, name: str) -> Root:
    """A root document, or the copy of an older one, after a look at its format."""
    data = read_file(store, name)
    try:
        root: Root = json.loads(data)
        attributes = root["attributes"]
        attributes["format_version"]
    except (ValueError, KeyError, TypeError) as error:
        raise StoreError(f"{store}/{name} is not the root of an h2crop store ({error})") from error
    check_format_version(attributes, store)
    return root


def store_attributes(store: str | Path, release: int | None = None) -> RootAttributes:
    """The root attributes of a release, by default of the current one. Raises as `load_root`."""
    return load_root(store, release)["attributes"]


class ReleaseStore(WrapperStore[Store]):
    """A Zarr store seen through the root document of one release, whatever release is made meanwhile.

    A shard may be missing, in a partial copy; a chunk of a coordinate is in every copy, so one that is not there is an
    error instead of fill.
    """

    def __init__(self, location: str | Path, root: Root, *, missing_is_fill: bool = True) -> None:
        """missing_is_fill: whether a shard that is not there reads as fill, or is an error as well."""
        super().__init__(zarr_store(location))
        self.location = str(location).rstrip("/")
        self.missing_is_fill = missing_is_fill
        self.root = json.dumps(root).encode()
        self.coordinates = {
            path
            for path, document in root["consolidated_metadata"]["metadata"].items()
            if document["node_type"] == "array" and not is_sharded(document)
        }

    async def get(self, key: str, prototype: BufferPrototype, byte_range: ByteRequest | None = None) -> Buffer | None:
        if key == "zarr.json":
            return prototype.buffer.from_bytes(self.root)
        found = await super().get(key, prototype, byte_range)
        array, _, chunk = key.rpartition("/")
        if found is not None or not chunk.startswith("c."):
            return found
        if array in self.coordinates:
            raise StoreError(
                f"{self.location}/{key} is missing and would be read as empty; copy it again from the origin of the "
                f"store (`h2crop validate {self.location}` lists everything that is missing)"
            )
        if not self.missing_is_fill:
            raise StoreError(f"{self.location}/{key} is missing; download or build this block again")
        return None


def zarr_store(location: str | Path) -> Store:
    """The Zarr store behind a folder, an http(s) URL or an `s3://` URL."""
    if is_folder(location):
        return LocalStore(location, read_only=True)
    if str(location).startswith("s3://"):
        from h2crop_data.storage.s3 import s3_zarr_store

        return s3_zarr_store(str(location))
    if str(location).startswith(WEB):
        from h2crop_data.storage.web import web_zarr_store

        return web_zarr_store(str(location))
    return FsspecStore.from_url(str(location), read_only=True)


class ValidSamples(BackendArray):
    """An array of a store without its empty slots, read when indexed, as stored or as reflectance.

    An index is passed to the store as slices, so that for one sample and month only that chunk is read.
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
        return to_reflectance(stored) if self.scaled else stored


def to_reflectance(stored: NDArray[np.int16]) -> NDArray[np.float32]:
    """Stored values of `enmap` or `s2` as reflectance, with NaN for fill."""
    return np.where(stored == REFLECTANCE_FILL, np.float32(np.nan), stored * np.float32(REFLECTANCE_SCALE))


#: What `open_season` takes of every sample from the index.
OF_SAMPLES = ("sample", "x0", "y0", "epsg")


def open_season(
    store: str | Path,
    season: int,
    *,
    scaled: bool = False,
    classes: str | Path | None = None,
    release: int | None = None,
) -> xr.Dataset:
    """The samples of a season, lazily, as stored or scaled, in the order of the samples index.

    store: folder, http(s) or s3 URL. scaled: `enmap` and `s2` become reflectance, float32 with NaN where nothing was
    measured; everything else stays as stored. classes: a mapping file, or the name of one that comes with h2crop
    (`worldcereal`, `cdl`): `label` and `prior` get its classes, without the dimension `tier`. release: number of
    an older release (default: the current one). Arrays are dask arrays, a block's size a chunk; coordinates are in
    memory, but for those along bands, which are read when asked for. Ids, places and slots are
    those of the index, windows of time those of the root. `month` is a second index of the dimension `time`. Raises
    StoreError, ParcelError for an invalid mapping.
    """
    # One root for everything: another release may be made at any moment.
    root = load_root(store, release)
    opened = season_dataset(store, root, season, scaled=scaled)
    return opened if classes is None else with_user_classes(opened, ClassMapping.load(classes), root["attributes"])


def season_dataset(
    store: str | Path, document: Root, season: int, *, scaled: bool, missing_is_fill: bool = True
) -> xr.Dataset:
    """The samples of a season of the release with this root document, as `open_season` gives them.

    missing_is_fill: whether a shard that does not exist reads as fill, or raises StoreError when it is read.
    """
    attributes = document["attributes"]
    if str(season) not in attributes["seasons"]:
        raise StoreError(f"{store} has no season {season}; it has {', '.join(attributes['seasons'])}")
    documents = season_documents(document, season)
    files = ReleaseStore(store, document, missing_is_fill=missing_is_fill)
    root: Any = zarr.open_group(files, mode="r", use_consolidated=True, zarr_format=3)
    group = root[str(season)]
    samples = samples_of_season(store, attributes, season, documents)
    slots = samples.column("slot").to_numpy()
    variables: dict[str, xr.Variable] = {}
    coordinates: dict[str, xr.Variable] = {}
    for name, array in documents.items():
        dims, attrs = tuple(array["dimension_names"]), dict(array["attributes"])
        if is_sharded(array):
            reflectance = scaled and attrs.get("units") == REFLECTANCE_UNITS
            if reflectance:
                attrs = {name: value for name, value in attrs.items() if name not in ("_FillValue", "note")}
                attrs["units"] = "1"
            lazy = LazilyIndexedArray(ValidSamples(group[name], slots, scaled=reflectance))
            variables[name] = xr.Variable(dims, lazy, attrs).chunk({"sample": shard_capacity(array)})
        elif TIME_AXIS in dims:
            # From the root, below.
            continue
        elif len(dims) > 1:
            coordinates[name] = xr.Variable(
                dims, LazilyIndexedArray(ValidSamples(group[name], slots, scaled=False)), attrs
            )
        elif dims != ("sample",):
            fixed = stated_values(attributes, name)
            values = read_coordinate(store, group, name) if fixed is None else np.array(fixed, group[name].dtype)
            coordinates[name] = xr.Variable(dims, values, attrs)
        elif name == "valid":
            coordinates[name] = xr.Variable(dims, np.ones(len(slots), bool), attrs)
        else:
            coordinates[name] = xr.Variable(dims, samples.column(name).to_numpy().astype(group[name].dtype), attrs)
    windows = next((array.sizes[TIME_AXIS] for array in variables.values() if TIME_AXIS in array.dims), 0)
    if not windows:
        return xr.Dataset(variables, coordinates, {"release": attributes["release"], "season": season})
    coordinates |= time_variables(store, document, season, windows)
    opened = xr.Dataset(variables, coordinates, {"release": attributes["release"], "season": season})
    return opened.set_xindex("month")


def samples_of_season(
    store: str | Path, attributes: RootAttributes, season: int, documents: Mapping[str, Mapping[str, Any]]
) -> pa.Table:
    """The rows of the samples index: `slot`, and the coordinates along `sample`, which are its columns.

    documents: those of the season. Raises StoreError where root and index contradict each other.
    """
    along = [name for name, array in documents.items() if array["dimension_names"] == ["sample"] and name != "valid"]
    name, wanted = f"samples-{season}", ["slot", *dict.fromkeys((*OF_SAMPLES, *along))]
    table = read_columns(store, attributes, name, wanted)
    samples = int(attributes["seasons"][str(season)]["samples"])
    problem = ""
    if lost := [column for column in wanted if column not in table.column_names]:
        problem = f"{name} has no column {lost[0]}"
    elif table.num_rows != samples:
        problem = f"expected {samples} samples, as the root states, got {table.num_rows} in {name}"
    else:
        slots = table.column("slot").to_numpy()
        length = min(array["shape"][0] for array in documents.values() if array["dimension_names"][0] == "sample")
        if len(slots) and not 0 <= slots.min() <= slots.max() < length:
            problem = f"expected slots from 0 to {length - 1}, got {slots.min()} to {slots.max()} in {name}"
        elif len(np.unique(slots)) < len(slots) or len(pc.unique(table.column("sample"))) < len(slots):
            problem = f"some slots or ids occur several times in {name}"
    if problem:
        raise StoreError(
            f"{store}: root and index contradict each other: {problem}; run `h2crop validate {store}`, and copy what "
            "it names again from the origin of the store"
        )
    return table


def stated_values(attributes: RootAttributes, name: str) -> Sequence[Any] | None:
    """The values of a coordinate that does not run along the samples, by the root; None where it does not state them.

    Roots of format 1 state those of sources of other packages alone.
    """
    layout: Mapping[str, Any] = attributes["layout"]
    for source in layout.get("sources", {}).values():
        for coordinate in source["coordinates"]:
            if coordinate["name"] == name and coordinate["values"] is not None:
                values: Sequence[Any] = coordinate["values"]
                return values
    return None


def time_variables(store: str | Path, root: Root, season: int, count: int) -> dict[str, xr.Variable]:
    """`time` and `time_bnds` as datetimes, and `month`, of so many windows. Raises StoreError for another number."""
    windows = windows_of_season(root, season)
    if len(windows) != count:
        raise StoreError(
            f"{store}: expected {count} windows of {season}, as its arrays have, got {len(windows)} in the root; run "
            f"`h2crop validate {store}`"
        )
    bounds = np.array(windows, "datetime64[ns]")
    stored = {"units": f"days since {windows[0][0]}", "calendar": "proleptic_gregorian", "dtype": "int32"}
    attrs = {"standard_name": "time", "axis": "T", "bounds": "time_bnds"}
    months = np.array([start.month for start, _ in windows], np.int8)
    return {
        TIME_AXIS: xr.Variable((TIME_AXIS,), bounds[:, 0].copy(), attrs, stored),
        "time_bnds": xr.Variable((TIME_AXIS, "bnds"), bounds, None, stored),
        "month": xr.Variable((TIME_AXIS,), months, {"long_name": "month in which the window begins"}),
    }


def read_coordinate(store: str | Path, group: Any, name: str) -> NDArray[Any]:
    """All values of a coordinate of a season. Raises StoreError where a chunk of it is lost or damaged."""
    try:
        values: NDArray[Any] = group[name][:]
    except (RuntimeError, ValueError) as error:
        raise StoreError(
            f"{store}/{group.path}/{name} is damaged ({error}); copy it again from the origin of the store"
        ) from error
    return values


def read_index(store: str | Path, name: str, release: int | None = None) -> pd.DataFrame:
    """A table of a release's index: `samples-2022`, `parcels-2022`, `blocks`, `scenes`, `squares`, `manifest`.

    Tables with geometry come as GeoDataFrame, in longitude and latitude.
    """
    return read_table(store, store_attributes(store, release), name)


def read_table(store: str | Path, attributes: RootAttributes, name: str) -> pd.DataFrame:
    """A table of the index of the release with these root attributes."""
    table = decode_table(read_file(store, path) for path in files_of_index(store, attributes, name))
    if not needs_classes(name, table.columns):
        return table
    codes = read_table(store, attributes, codes_name(name))
    try:
        return with_classes(table, codes)
    except ValueError as error:
        raise StoreError(f"{store}: cannot read {name}: {error}; copy the index again from the origin") from error


def read_columns(store: str | Path, attributes: RootAttributes, name: str, columns: Sequence[str]) -> pa.Table:
    """Those of some columns that a table of the index has; of a file in a folder only their bytes are read.

    Classes of parcels that only the table of codes has are not among them.
    """
    parts = []
    for path in files_of_index(store, attributes, name):
        source = Path(store, path) if is_folder(store) else io.BytesIO(read_file(store, path))
        try:
            with pq.ParquetFile(source) as file:
                parts.append(file.read([column for column in columns if column in file.schema_arrow.names]))
        except (OSError, pa.ArrowException) as error:
            raise StoreError(
                f"cannot read {store}/{path}: {error}; copy it again from the origin of the store"
            ) from error
    return joined_columns(parts)


def read_index_json(store: str | Path, name: str, release: int | None = None) -> Any:
    """A document of a release's index: `statistics`, `classes`, `recipes`."""
    return read_document(store, store_attributes(store, release), name)


def read_document(store: str | Path, attributes: RootAttributes, name: str) -> Any:
    """A document of the index of the release with these root attributes."""
    return decode_document([read_file(store, path) for path in files_of_index(store, attributes, name)])


def nothing_selected(
    store: str | Path, attributes: RootAttributes, split: str | None, seasons: Sequence[int]
) -> StoreError:
    """The error to raise where a split (None: any) has no sample in some seasons: what was asked, and what there is."""
    present = [int(season) for season in attributes["seasons"]]
    if not seasons:
        return StoreError(f"no season of {store} is selected; available seasons: {', '.join(map(str, present))}")
    counts = {
        season: read_columns(store, attributes, f"samples-{season}", ["split"]).to_pandas()["split"].value_counts()
        for season in present
    }
    recipes = read_document(store, attributes, "recipes")
    shares = [(recipe.get("split") or {}).get("shares", {}) for recipe in recipes.values()]
    asked = [name for of_recipe in shares for name, share in of_recipe.items() if share > 0]
    known = dict.fromkeys([*asked, *(name for of_season in counts.values() for name in of_season.index)])
    if split is not None and split not in known:
        return StoreError(f"{store} has no split {split!r}; it has {', '.join(known) or 'none'}")
    there = [
        f"{season} has {', '.join(f'{name} {count}' for name, count in of_season.items()) or 'no sample'}"
        for season, of_season in counts.items()
    ]
    wanted = "no sample" if split is None else f"no sample of the split {split!r}"
    return StoreError(f"{store} has {wanted} in {', '.join(map(str, seasons))}; {'; '.join(there)}")


def files_of_index(store: str | Path, attributes: RootAttributes, name: str) -> list[str]:
    """The files of a part of the index, in order. Raises StoreError where there is none."""
    paths = index_paths(attributes, name)
    if not paths:
        raise StoreError(f"{store} has no index {name!r}; it has {', '.join(sorted(attributes['index']))}")
    return paths
