"""What a published file has beside the arrays of a store, kept in one HDF5 file a block.

`<season>/published/<block>.h5` of a store has a group a sample:

    <id>/file/…           the published file as it is (attributes, `S2_date`, `EnMAP_cloud`, whatever else it has), with
                          the four arrays as shells: dtype, chunks and attributes, but no values
    <id>/exact/<array>    `places` and `numbers`: what the way back from the store would not give; the attribute
                          `no_data` says what fill becomes
"""

from __future__ import annotations

import uuid
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import h5py
import numpy as np
from numpy.typing import NDArray

from h2crop_data.published.layout import ARRAYS
from h2crop_data.published.values import Stored, publish, put_back

FILE, EXACT = "file", "exact"
#: Bytes by which a file in memory grows.
GROWTH = 1 << 20


def kept_path(season: int, block: int) -> str:
    """Where the store keeps what the arrays of a block do not hold."""
    return f"{season}/published/{block:06d}.h5"


@contextmanager
def file_in_memory() -> Iterator[h5py.File]:
    """An HDF5 file to write, of which `image` gives the bytes."""
    # Two files in memory of one name would be one file to the library.
    with h5py.File(f"memory-{uuid.uuid4().hex}", "w", driver="core", backing_store=False, block_size=GROWTH) as file:
        yield file


def image(file: h5py.File) -> bytes:
    """The bytes of a file in memory; the same content has the same."""
    file.flush()
    data: bytes = file.id.get_file_image()
    return data


def keep(published: h5py.File, group: h5py.Group, exact: Mapping[str, Stored]) -> None:
    """Keep what the store's arrays do not hold of a published file, in a new group.

    exact: the stored form of `S2_data` and `EnMAP_data`.
    """
    copy = group.create_group(FILE)
    copy_attributes(published, copy)
    for name in published:
        link = published.get(name, getlink=True)
        if not isinstance(link, h5py.HardLink):
            copy[name] = link
        elif name in ARRAYS:
            make_shell(published[name], copy, name)
        else:
            published.copy(name, copy, name=name)
    for name, stored in exact.items():
        differing = group.create_group(f"{EXACT}/{name}")
        differing.attrs["no_data"] = np.int16(stored.no_data)
        if stored.places.size:
            options: dict[str, Any] = {"compression": "gzip", "shuffle": True}
            differing.create_dataset("places", data=stored.places, **options)
            differing.create_dataset("numbers", data=stored.numbers, **options)


def make_shell(dataset: h5py.Dataset, group: h5py.Group, name: str) -> None:
    """A dataset of the same shape, dtype, storage and attributes, without its values."""
    options: dict[str, Any] = {"fillvalue": dataset.fillvalue}
    if dataset.chunks is not None:
        options |= {
            "chunks": dataset.chunks,
            "maxshape": dataset.maxshape,
            "compression": dataset.compression,
            "compression_opts": dataset.compression_opts,
            "shuffle": dataset.shuffle,
            "fletcher32": dataset.fletcher32,
        }
    copy_attributes(dataset, group.create_dataset(name, shape=dataset.shape, dtype=dataset.dtype, **options))


def copy_attributes(source: h5py.Group | h5py.Dataset, target: h5py.Group | h5py.Dataset) -> None:
    """All attributes, with the very types they have."""
    for name, value in source.attrs.items():
        if isinstance(value, h5py.Empty):
            target.attrs[name] = value
        else:
            stored = source.attrs.get_id(name)
            target.attrs.create(name, value, shape=stored.shape, dtype=stored.dtype)


def give_back(group: h5py.Group, target: h5py.File, arrays: Mapping[str, NDArray[Any]]) -> None:
    """Write the published file of a kept sample.

    arrays: the values of the four arrays as published.
    """
    copy = group[FILE]
    copy_attributes(copy, target)
    for name in copy:
        link = copy.get(name, getlink=True)
        if isinstance(link, h5py.HardLink):
            copy.copy(name, target, name=name)
        else:
            target[name] = link
    for name, values in arrays.items():
        target[name][...] = values


def published_values(group: h5py.Group, name: str, values: NDArray[np.int16], offset: int, whole: bool) -> NDArray[Any]:
    """The published numbers of a kept array.

    offset: what was taken from them, and is added again. whole: they shall be the very numbers of the published file;
    without, as for numbers that keep the offset off, only fill is undone.
    """
    exact = group[f"{EXACT}/{name}"]
    numbers = publish(values, int(exact.attrs["no_data"]), offset)
    if whole and "places" in exact:
        put_back(numbers, exact["places"][...], exact["numbers"][...])
    return numbers
