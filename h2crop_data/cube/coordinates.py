"""The coordinates of a season, chunk by chunk, as they are stored."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
from numcodecs.vlen import VLenUTF8
from numcodecs.zstd import Zstd
from numpy.typing import NDArray

from h2crop_data.cube.schema import CoordinateSpec, StoreLayout
from h2crop_data.cube.season import FinishedSeason


def coordinate_chunks(
    coordinate: CoordinateSpec, layout: StoreLayout, finished: FinishedSeason
) -> tuple[tuple[int, ...], Iterator[NDArray[Any]]]:
    """Shape of a coordinate, and its chunks one after the other, each of whole size; unused slots have the fill."""
    if coordinate.values is not None:
        fixed = fixed_values(coordinate)
        return fixed.shape, iter([fixed])
    shape = coordinate.shape(len(finished.blocks) * layout.capacity)
    return shape, chunks_along_samples(coordinate, layout, finished, shape)


def fixed_values(coordinate: CoordinateSpec) -> NDArray[Any]:
    """The values of a coordinate that does not run along the samples."""
    dtype = object if coordinate.data_type == "string" else np.dtype(coordinate.data_type)
    return np.array(coordinate.values, dtype)


def chunks_along_samples(
    coordinate: CoordinateSpec, layout: StoreLayout, finished: FinishedSeason, shape: tuple[int, ...]
) -> Iterator[NDArray[Any]]:
    """The chunks of a coordinate that grows with the slots."""
    size = coordinate.chunk or shape[0]
    dtype = object if coordinate.data_type == "string" else np.dtype(coordinate.data_type)
    slots = finished.samples["slot"].to_numpy()
    for start in range(0, shape[0], size):
        inside = np.flatnonzero((slots >= start) & (slots < start + size))
        values = np.full((size, *shape[1:]), coordinate.fill, dtype)
        values[slots[inside] - start] = values_of(coordinate, layout, finished, inside)
        yield values


def values_of(
    coordinate: CoordinateSpec, layout: StoreLayout, finished: FinishedSeason, rows: NDArray[np.intp]
) -> NDArray[Any]:
    """The values of a coordinate for some rows of the samples."""
    if coordinate.name == "valid":
        return finished.valid[rows]
    if coordinate.lengths:
        if coordinate.name not in finished.by_block:
            raise ValueError(f"season {finished.season} has no values for the coordinate {coordinate.name}")
        blocks = finished.samples["slot"].to_numpy()[rows] // layout.capacity
        of_rows: NDArray[Any] = finished.by_block[coordinate.name][blocks]
        return of_rows
    return np.asarray(finished.samples[coordinate.name].to_numpy()[rows])


def encode_coordinate(coordinate: CoordinateSpec, chunk: NDArray[Any]) -> bytes:
    """A chunk of a coordinate as it is stored."""
    if coordinate.data_type == "string":
        return bytes(Zstd(level=3).encode(VLenUTF8().encode(chunk)))
    return bytes(Zstd(level=3).encode(np.ascontiguousarray(chunk).astype(coordinate.data_type).tobytes()))
