"""The metadata documents and coordinates that a season must have, as docs/store-format.md says, in every format."""

from __future__ import annotations

import calendar
from collections.abc import Mapping
from itertools import pairwise
from typing import Any

import numpy as np

from h2crop_data.constants import MONTHS
from h2crop_data.cube.schema import SAMPLE_COORDINATES, ArraySpec, CoordinateSpec, StoreLayout

#: The axis of what is kept window by window, and its name in format 1.
AXIS_OF_TIME, FIRST_TIME_AXIS = "time", "month"
#: Fill of days.
UNKNOWN_DAY = -2147483648
#: Array -> attributes that name its classes; None for a store of format 1, which names none.
Meanings = Mapping[str, Mapping[str, Any]] | None
CF_VERSION = "CF-1.11"
#: Zstandard's level in chunks of coordinates.
COORDINATE_LEVEL = 3


def expected_coordinates(layout: StoreLayout, season: int, *, first: bool) -> list[CoordinateSpec]:
    """The coordinates of a season. first: of a store of format 1."""
    of_sources = [spec for source in layout.sources for spec in source.coordinates]
    numbers = tuple(range(1, MONTHS + 1))
    if first:
        by_month = any(source.built_in and goes_by_time(spec) for source in layout.sources for spec in source.arrays)
        month = [CoordinateSpec("month", (FIRST_TIME_AXIS,), "int8", 0, None, values=numbers)] if by_month else []
        return [*SAMPLE_COORDINATES, *month, *of_sources]
    if not any(map(goes_by_time, layout.arrays().values())):
        return [*SAMPLE_COORDINATES, *of_sources]
    bounds = bounds_of_months(season)
    since = {"units": f"days since {season:04d}-01-01", "calendar": "proleptic_gregorian"}
    starts = {**since, "standard_name": "time", "bounds": "time_bnds"}
    by_time = (
        CoordinateSpec(
            "time", (AXIS_OF_TIME,), "int32", UNKNOWN_DAY, None, starts, tuple(start for start, _ in bounds)
        ),
        CoordinateSpec("time_bnds", (AXIS_OF_TIME, "bnds"), "int32", UNKNOWN_DAY, None, since, tuple(bounds), (2,)),
        CoordinateSpec("month", (AXIS_OF_TIME,), "int8", 0, None, values=numbers),
    )
    return [*SAMPLE_COORDINATES, *by_time, *of_sources]


def goes_by_time(spec: ArraySpec) -> bool:
    """Whether an array has a number for each window of time."""
    return AXIS_OF_TIME in spec.dims


def bounds_of_months(season: int) -> list[tuple[int, int]]:
    """First day of each month of a season, counted from 0, and the day after its last."""
    ends = [0]
    for month in range(1, MONTHS + 1):
        ends.append(ends[-1] + calendar.monthrange(season, month)[1])
    return list(pairwise(ends))


def expected_windows(layout: StoreLayout, season: int) -> list[list[str]] | None:
    """The windows that a root must state of a season; None where no array goes by time."""
    if not any(map(goes_by_time, layout.arrays().values())):
        return None
    starts = [f"{season:04d}-{month:02d}-01" for month in range(1, MONTHS + 1)]
    return [list(pair) for pair in zip(starts, [*starts[1:], f"{season + 1:04d}-01-01"], strict=True)]


def axes_of(spec: ArraySpec, *, first: bool) -> list[str]:
    """The names of the axes of an array in its document. first: of a store of format 1."""
    return [FIRST_TIME_AXIS if first and name == AXIS_OF_TIME else name for name in spec.dims]


def expected_documents(layout: StoreLayout, season: int, blocks: int, meanings: Meanings) -> dict[str, dict[str, Any]]:
    """Path below the root -> consolidated entry, of a season's group, arrays and coordinates.

    meanings: array -> attributes on its classes; None for a store of format 1.
    """
    slots, first_format = blocks * layout.capacity, meanings is None
    coordinates = expected_coordinates(layout, season, first=first_format)
    attributes: dict[str, Any] = {"season": season}
    if meanings is not None:
        auxiliary = [one.name for one in coordinates if list(one.dims) != [one.name]]
        attributes |= {"Conventions": CF_VERSION, "coordinates": " ".join(auxiliary)}
    group = {"zarr_format": 3, "node_type": "group", "attributes": attributes}
    documents: dict[str, dict[str, Any]] = {str(season): group}
    for name, spec in layout.arrays().items():
        document = expected_array(layout, spec, slots) | {"dimension_names": axes_of(spec, first=first_format)}
        of_array = (meanings or {}).get(name, {}) if holds_classes(spec) else {}
        documents[f"{season}/{name}"] = {**document, "attributes": {**spec.attributes, **of_array}}
    for coordinate in coordinates:
        documents[f"{season}/{coordinate.name}"] = expected_coordinate(coordinate, slots)
    return documents


def expected_array(layout: StoreLayout, spec: ArraySpec, slots: int) -> dict[str, Any]:
    """The document of an array with so many slots, but for its axes: a shard is a block, its index is at the end."""
    blosc = {
        "cname": layout.codec.name,
        "clevel": layout.codec.level,
        "shuffle": "bitshuffle",
        "typesize": spec.dtype.itemsize,
        "blocksize": 0,
    }
    checksum = [{"name": "crc32c"}] if layout.codec.checksum else []
    sharding = {
        "chunk_shape": list(spec.chunk),
        "codecs": [bytes_codec(spec.dtype.itemsize), {"name": "blosc", "configuration": blosc}, *checksum],
        "index_codecs": [bytes_codec(np.dtype(np.uint64).itemsize), {"name": "crc32c"}],
        "index_location": "end",
    }
    return {
        **chunked([slots, *spec.sample_shape], [layout.capacity, *spec.sample_shape]),
        "data_type": spec.dtype.name,
        "fill_value": spec.fill,
        "codecs": [{"name": "sharding_indexed", "configuration": sharding}],
        "attributes": spec.attributes,
    }


def expected_coordinate(coordinate: CoordinateSpec, slots: int) -> dict[str, Any]:
    """The document of a coordinate in a season of so many slots."""
    is_text = coordinate.data_type == "string"
    numbers = {"name": "vlen-utf8"} if is_text else bytes_codec(np.dtype(coordinate.data_type).itemsize)
    zstd = {"name": "zstd", "configuration": {"level": COORDINATE_LEVEL, "checksum": False}}
    shape = shape_of(coordinate, slots)
    return {
        **chunked(list(shape), [coordinate.chunk or shape[0], *shape[1:]]),
        "data_type": coordinate.data_type,
        "fill_value": coordinate.fill,
        "codecs": [numbers, zstd],
        "dimension_names": list(coordinate.dims),
        "attributes": coordinate.attributes,
    }


def shape_of(coordinate: CoordinateSpec, slots: int) -> tuple[int, ...]:
    """The shape of a coordinate in a season of so many slots."""
    return (slots if coordinate.values is None else len(coordinate.values), *coordinate.lengths)


def bytes_codec(itemsize: int) -> dict[str, Any]:
    """The codec of numbers of so many bytes; those of one byte have no order."""
    return {"name": "bytes"} if itemsize == 1 else {"name": "bytes", "configuration": {"endian": "little"}}


def chunked(shape: list[int], chunk: list[int]) -> dict[str, Any]:
    """What the documents of arrays and coordinates have in common: a regular grid, keys like `c.0.0`."""
    return {
        "zarr_format": 3,
        "node_type": "array",
        "shape": shape,
        "chunk_grid": {"name": "regular", "configuration": {"chunk_shape": chunk}},
        "chunk_key_encoding": {"name": "default", "configuration": {"separator": "."}},
        "storage_transformers": [],
    }


def holds_classes(spec: ArraySpec) -> bool:
    """Whether the numbers of an array are classes."""
    return spec.statistics is not None and spec.statistics.kind == "classes"


def with_members(documents: Mapping[str, dict[str, Any]], season: int) -> dict[str, dict[str, Any]]:
    """The documents as files have them, from the consolidated entries of a season of format 2.

    The file of the season's group has the documents of its members as well.
    """
    prefix = f"{season}/"
    members = {path.removeprefix(prefix): one for path, one in documents.items() if path.startswith(prefix)}
    consolidated = {"kind": "inline", "must_understand": False, "metadata": members}
    return {**documents, str(season): {**documents[str(season)], "consolidated_metadata": consolidated}}


def coordinate_files(coordinate: CoordinateSpec, shape: tuple[int, ...]) -> list[str]:
    """The names of a coordinate's chunks in its folder, in order."""
    size = coordinate.chunk or shape[0]
    return [f"c.{place}" + ".0" * (len(shape) - 1) for place in range(-(-shape[0] // size))]
