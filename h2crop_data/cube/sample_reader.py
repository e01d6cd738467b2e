"""Reading the samples of a store one by one, from any location: one protocol, and the choice of its reader.

Training, export, comparing and pictures take a `SampleReader` for each array. In a folder, in S3 and on web servers it
is our own `ShardReader`; at any other URL that fsspec knows (`gs://`, `abfs://`) zarr-python reads.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import zarr
from numpy.typing import NDArray

from h2crop_data.cube.reading import ReleaseStore
from h2crop_data.cube.root import Root
from h2crop_data.cube.shard import IndexCache, check_request, open_arrays
from h2crop_data.errors import StoreError
from h2crop_data.storage.location import is_readable


class SampleReader(Protocol):
    """Reads samples of one array of a season. Cheap to pickle; threads may share it."""

    @property
    def sample_shape(self) -> tuple[int, ...]:
        """The shape of a sample."""

    @property
    def dtype(self) -> np.dtype[Any]:
        """The dtype as stored."""

    def read(self, slot: int) -> NDArray[Any]:
        """The sample in a slot, in a new array. Raises as `read_into` does."""

    def read_into(self, slot: int, out: NDArray[Any], first: int = 0) -> None:
        """Fill `out` with the sample in a slot.

        out: C-contiguous, (n, *sample_shape[1:]) of the array's dtype; receives rows first..first+n of the sample's
        first axis (months of `s2`), whole chunks only. Slots and chunks without data give the fill value.
        Raises IndexError for a slot or range outside, ValueError for another buffer, StoreError for what cannot be
        read.
        """


class ZarrReader:
    """A SampleReader through zarr-python."""

    def __init__(self, location: str, array: zarr.Array[Any]) -> None:
        """location: of the store, for errors."""
        self.location = location
        self.array = array

    @property
    def sample_shape(self) -> tuple[int, ...]:
        """The shape of a sample."""
        return self.array.shape[1:]

    @property
    def dtype(self) -> np.dtype[Any]:
        """The dtype as stored."""
        return np.dtype(self.array.dtype)

    def read(self, slot: int) -> NDArray[Any]:
        """One sample in a new array."""
        out = np.empty(self.sample_shape, self.dtype)
        self.read_into(slot, out)
        return out

    def read_into(self, slot: int, out: NDArray[Any], first: int = 0) -> None:
        """Fill `out` with sample `slot`, as SampleReader says."""
        array = self.array
        check_request(array.basename, array.shape, self.dtype, array.chunks[1], slot, out, first)
        try:
            out[...] = array[slot, first : first + len(out)]
        except StoreError:
            raise
        except (OSError, RuntimeError, ValueError) as error:
            raise StoreError(
                f"cannot read sample {slot} of {self.location}/{array.path}: {error}; if the file is damaged, copy "
                "it again from the origin of the store"
            ) from error


def open_samples(
    store: str | Path, root: Root, seasons: Sequence[int], *, missing_is_fill: bool = False
) -> dict[int, dict[str, SampleReader]]:
    """Readers of every array of some seasons of a release: season -> array -> reader.

    store: folder or URL. root: the release's consolidated root document. missing_is_fill: whether a shard that does not
    exist reads as fill, in a partial copy, or is a StoreError, where a sample should be.
    """
    if is_readable(store):
        indexes = IndexCache()
        return {
            season: dict(open_arrays(store, root, season, indexes, missing_is_fill=missing_is_fill))
            for season in seasons
        }
    files = ReleaseStore(store, root, missing_is_fill=missing_is_fill)
    opened: Any = zarr.open_group(files, mode="r", use_consolidated=True, zarr_format=3)
    return {
        season: {
            name: ZarrReader(files.location, array)
            for name, array in opened[str(season)].arrays()
            if f"{season}/{name}" not in files.coordinates
        }
        for season in seasons
    }
