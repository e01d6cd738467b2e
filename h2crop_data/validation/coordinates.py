"""The coordinates of a season against its index."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd
from numcodecs.vlen import VLenUTF8
from numcodecs.zstd import Zstd
from numpy.typing import NDArray

from h2crop_data.cube.coordinates import encode_coordinate
from h2crop_data.cube.schema import CoordinateSpec
from h2crop_data.errors import StoreError
from h2crop_data.validation.checks.source_checks import SourceChecks
from h2crop_data.validation.checksums import other_bytes
from h2crop_data.validation.documents import coordinate_files
from h2crop_data.validation.findings import Findings, error, first, warning
from h2crop_data.validation.release import Release

#: Bytes of a number in a chunk of text: how many texts there are, how long each is.
LENGTH = 4


class SlotTable:
    """Which slots of a season hold what, by its index."""

    def __init__(self, release: Release, season: int) -> None:
        samples, blocks = release.samples(season), release.blocks(season)
        self.known = samples is not None and blocks is not None
        slots, capacity = release.seasons[season] * release.layout.capacity, release.layout.capacity
        #: Samples by slot; empty where the index is lost.
        self.samples = pd.DataFrame() if samples is None else samples.set_index("slot")
        #: Slots of samples of the release; of samples it leaves out; of none.
        self.valid = np.zeros(slots, bool)
        self.retracted = np.zeros(slots, bool)
        if samples is not None and blocks is not None:
            inside = samples["slot"].to_numpy()
            self.valid[inside[(inside >= 0) & (inside < slots)]] = True
            for block, count, reason in zip(blocks["block"], blocks["samples"], blocks["retracted"], strict=True):
                if reason:
                    self.retracted[block * capacity : block * capacity + min(count, capacity)] = True
        #: Wavelengths of imported samples may be unknown, 0.
        self.imported = release.is_imported(season)
        self.unused = ~self.valid & ~self.retracted


def check_coordinates(release: Release, sources: Sequence[SourceChecks[Any]]) -> Findings:
    """Ids, places and bands of every slot, chunk by chunk."""
    for season in release.seasons:
        table = SlotTable(release, season)
        for coordinate in release.layout.coordinates():
            shape = coordinate.shape(len(table.valid))
            for place, file in enumerate(coordinate_files(coordinate, shape)):
                name = f"{season}/{coordinate.name}/{file}"
                if release.is_here(name):
                    yield from check_chunk(release, sources, coordinate, table, name, place, shape)


def check_chunk(
    release: Release,
    sources: Sequence[SourceChecks[Any]],
    coordinate: CoordinateSpec,
    table: SlotTable,
    name: str,
    place: int,
    shape: tuple[int, ...],
) -> Findings:
    """One chunk of a coordinate."""
    size = coordinate.chunk or shape[0]
    release.counts["coordinate_chunks"] += 1
    try:
        data = release.files.read(name)
        values = decode_coordinate(data, coordinate, (size, *shape[1:]))
    except (StoreError, ValueError, RuntimeError, MemoryError, TypeError) as failure:
        yield error("coordinate", name, f"cannot be decoded ({failure})", release.remedy_for(name))
        return
    problems = list(chunk_problems(release, sources, coordinate, table, values, place * size, name))
    if name not in release.changed:
        yield from problems
    elif not problems and table.known and encode_coordinate(coordinate, values) == data:
        told = "has values of a longer season than the release has; those of the release are as they should be"
        yield warning("unfinished", name, told, release.remedies.unfinished())
    else:
        yield other_bytes(release, name)


def decode_coordinate(data: bytes, coordinate: CoordinateSpec, shape: tuple[int, ...]) -> NDArray[Any]:
    """A chunk of a coordinate. Raises ValueError or RuntimeError for bytes that are none."""
    raw = bytes(Zstd().decode(data))
    if coordinate.data_type == "string":
        # The decoder believes the number of texts it is told of.
        if int.from_bytes(raw[:LENGTH], "little") != shape[0]:
            raise ValueError(f"it does not hold {shape[0]} texts")
        return np.asarray(VLenUTF8().decode(raw), object)
    dtype = np.dtype(coordinate.data_type)
    if len(raw) != int(np.prod(shape)) * dtype.itemsize:
        raise ValueError(f"it holds {len(raw)} bytes")
    return np.frombuffer(raw, dtype).reshape(shape)


def chunk_problems(
    release: Release,
    sources: Sequence[SourceChecks[Any]],
    coordinate: CoordinateSpec,
    table: SlotTable,
    values: NDArray[Any],
    start: int,
    name: str,
) -> Findings:
    """What of a chunk contradicts the index, or the format."""
    remedy = release.remedies.wrong_index()
    if coordinate.values is not None:
        if list(coordinate.values) != list(values):
            yield error("coordinate", name, f"is {list(values)[:14]}, not {list(coordinate.values)}", remedy)
        return
    if not table.known:
        return
    here = slice(start, min(start + len(values), len(table.valid)))
    values = values[: here.stop - here.start]
    valid, unused = table.valid[here], table.unused[here]
    for told, wrong in (
        ("contradicts the samples index", valid & wrong_where_valid(sources, coordinate, table, values, start)),
        ("does not say that the slot holds no sample", table.retracted[here] & marked_valid(coordinate, values)),
        ("is not empty where no sample is", unused & different(values, coordinate.fill)),
    ):
        if wrong.any():
            slots = (np.flatnonzero(wrong) + start).tolist()
            yield error("coordinate", name, f"{told}: slot {first(slots)}", remedy)


def wrong_where_valid(
    sources: Sequence[SourceChecks[Any]],
    coordinate: CoordinateSpec,
    table: SlotTable,
    values: NDArray[Any],
    start: int,
) -> NDArray[np.bool_]:
    """Where a coordinate is not what a valid slot must have; (slot), of any value in other slots."""
    if coordinate.name == "valid":
        return ~values.astype(bool)
    if coordinate.lengths:
        of_sources = (source.wrong_coordinate(coordinate.name, values, imported=table.imported) for source in sources)
        # Of a source without checks nobody here knows the values.
        return next((wrong for wrong in of_sources if wrong is not None), np.zeros(len(values), bool))
    expected = np.full(len(values), coordinate.fill, object)
    inside = table.samples.loc[(table.samples.index >= start) & (table.samples.index < start + len(values))]
    expected[inside.index.to_numpy() - start] = inside[coordinate.name].to_numpy()
    if coordinate.data_type == "float64":
        numbers = expected.astype(float)
        return np.asarray(~((values == numbers) | (np.isnan(values) & np.isnan(numbers))))
    return different(values, expected)


def marked_valid(coordinate: CoordinateSpec, values: NDArray[Any]) -> NDArray[np.bool_]:
    """Where a chunk says that a slot is valid; nowhere but in `valid`."""
    return values.astype(bool) if coordinate.name == "valid" else np.zeros(len(values), bool)


def different(values: NDArray[Any], expected: Any) -> NDArray[np.bool_]:
    """(slot): where any value of a slot is not the expected one."""
    unequal = np.asarray(values != expected, bool).reshape(len(values), -1)
    return np.asarray(unequal.any(axis=1), np.bool_)
