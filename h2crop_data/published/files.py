"""One sample of a store as a file of the published layout."""

from __future__ import annotations

import io
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import h5py
import numpy as np
from numpy.typing import NDArray

from h2crop_data.constants import MONTHS, PUBLISHED_OFFSET
from h2crop_data.cube.sample_reader import SampleReader
from h2crop_data.errors import StoreError
from h2crop_data.published.filling import fill_bands, fill_classes, fill_months
from h2crop_data.published.kept import file_in_memory, give_back, image, published_values
from h2crop_data.published.layout import ARRAYS, NO_DATA
from h2crop_data.published.values import publish

#: The store's name of each published array.
STORE_NAMES = {"S2_data": "s2", "EnMAP_data": "enmap", "label": "label", "priors": "prior"}


@dataclass(frozen=True)
class SeasonSource:
    """A season of a store to export."""

    season: int
    #: Of the arrays that the published layout has, by its names; those that the store has.
    readers: Mapping[str, SampleReader]
    capacity: int
    #: What was taken from the Sentinel-2 numbers of an imported season (0 where it was kept); None: not imported.
    offset_removed: int | None
    #: The file an import keeps beside the arrays of a block; raises StoreError where it cannot be read.
    kept_file: Callable[[int], bytes]


def sample_file(source: SeasonSource, sample: str, slot: int, published_offset: bool, months: int = MONTHS) -> bytes:
    """A sample as the bytes of an HDF5 file. Raises StoreError where the store is damaged or not all there.

    published_offset: Sentinel-2 numbers get 1000 more than reflectance x 10000. months: how many of `S2_data`, from the
    first on, of a sample that was not imported.
    """
    stored = {name: reader.read(slot) for name, reader in source.readers.items() if name != "S2_data"}
    if "S2_data" in source.readers:
        reader = source.readers["S2_data"]
        stored["S2_data"] = np.empty((months, *reader.sample_shape[1:]), reader.dtype)
        reader.read_into(slot, stored["S2_data"])
        stored = {name: stored[name] for name in source.readers}
    with file_in_memory() as file:
        if source.offset_removed is None:
            for name, values in filled(stored, PUBLISHED_OFFSET if published_offset else 0).items():
                file.create_dataset(name, data=values)
        else:
            write_as_published(file, source, sample, slot, stored, published_offset)
        return image(file)


def filled(stored: Mapping[str, NDArray[Any]], s2_offset: int) -> dict[str, NDArray[Any]]:
    """Stored arrays with a number in every pixel (rules: docs/published-layout.md)."""
    arrays: dict[str, NDArray[Any]] = {}
    for name, values in stored.items():
        if name == "S2_data":
            arrays[name] = publish(fill_months(values), NO_DATA, s2_offset)
        elif name == "EnMAP_data":
            arrays[name] = publish(fill_bands(values), NO_DATA)
        else:
            arrays[name] = fill_classes(values)
    return arrays


def write_as_published(
    file: h5py.File,
    source: SeasonSource,
    sample: str,
    slot: int,
    stored: Mapping[str, NDArray[Any]],
    published_offset: bool,
) -> None:
    """Write an imported sample as it was published; without the offset where it was removed and is not asked for."""
    block = slot // source.capacity
    removed = source.offset_removed or 0
    try:
        with h5py.File(io.BytesIO(source.kept_file(block)), "r") as kept:
            group = kept[sample]
            arrays = dict(stored)
            for name, offset in (("S2_data", removed if published_offset else 0), ("EnMAP_data", 0)):
                exact = name == "EnMAP_data" or offset == removed
                arrays[name] = published_values(group, name, stored[name], offset, exact)
            give_back(group, file, {name: arrays[name] for name in ARRAYS})
    except (OSError, KeyError, RuntimeError) as error:
        raise StoreError(
            f"cannot read what the import kept of {sample}, season {source.season}, block {block}: {error}; "
            "download or import this block again"
        ) from error
