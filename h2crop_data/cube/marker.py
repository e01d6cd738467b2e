"""The marker of a finished block: written by the builder, read by sealing, checked whenever it is read."""

from __future__ import annotations

import math
from typing import Annotated, Any, TypedDict, cast

from pydantic import BaseModel, ConfigDict, Field, StringConstraints, ValidationError

from h2crop_data.cube.schema import StoreLayout
from h2crop_data.cube.shard import shard_name
from h2crop_data.storage.checked import digest_of, parsed_document
from h2crop_data.storage.storage import BUILD_FOLDER, FileRecord


class FinishedBlock(TypedDict):
    """The content of every marker."""

    block: int
    split: str
    #: Array group -> hash of the inputs it was built from.
    hashes: dict[str, str]
    software: str
    #: Its shards.
    files: list[FileRecord]
    #: Coordinates along `sample` and another axis, which all its samples share.
    coordinates: dict[str, list[float]]
    #: One dictionary a sample: derived columns of the samples index, in an imported store all of them.
    provenance: list[dict[str, Any]]
    #: What the statistics need of it.
    sums: FileRecord


class Marker(FinishedBlock, total=False):
    """What `.build/<season>/<block>.json` says."""

    #: Rows of the table of dates that tell of its pixels, by their digests.
    dates: list[str]
    #: Of a built block: seconds by step, and when it was finished (UTC).
    seconds: dict[str, float]
    finished: str
    #: Of an imported block: bytes of each sample's file.
    sources: dict[str, int]


Text = Annotated[str, StringConstraints(min_length=1)]
Sha256 = Annotated[str, StringConstraints(pattern=r"^[0-9a-f]{64}$")]
Count = Annotated[int, Field(ge=0)]
#: Keys of markers of earlier versions.
FORMER = frozenset({"spectrum", "statistics"})


class MarkerPart(BaseModel):
    """Types are taken as they are: text is not taken for a number."""

    model_config = ConfigDict(strict=True, extra="forbid")


class FileEntry(MarkerPart):
    """A file of the store."""

    path: Text
    bytes: Count
    sha256: Sha256


class MarkerSchema(MarkerPart):
    """The types of a marker; a checksum vouches for keys that a later version added."""

    model_config = ConfigDict(strict=True, extra="allow")

    block: Count
    split: Text
    hashes: dict[str, Text]
    software: Text
    files: Annotated[list[FileEntry], Field(min_length=1)]
    coordinates: dict[str, list[Annotated[float, Field(allow_inf_nan=False)]]]
    provenance: Annotated[list[dict[str, Any]], Field(min_length=1)]
    sums: FileEntry
    dates: list[Sha256] = []
    seconds: dict[str, Annotated[float, Field(ge=0, allow_inf_nan=False)]] = {}
    finished: Annotated[str, StringConstraints(pattern=r"^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ$")] = "1970-01-01T00:00:00Z"
    sources: dict[str, Count] | None = None


def shard_path(season: int, array: str, block: int, dimensions: int) -> str:
    """The name of a block's shard in an array of so many dimensions."""
    return f"{season}/{array}/{shard_name(block, dimensions)}"


def block_path(season: int, block: int) -> str:
    """The name, without its ending, of what the builder keeps of a block."""
    return f"{BUILD_FOLDER}/{season}/{block:06d}"


def parsed_marker(
    data: bytes, season: int, block: int, layout: StoreLayout, samples: int | None = None, *, needs_sums: bool = True
) -> Marker:
    """The marker of a block as it was written. Raises ValueError naming what is wrong with it.

    samples: how many its plan says it has; None where no plan says so. needs_sums: whether one of format 1.0, which
    names no sums, is refused; else it gets the record of an empty file.
    """
    document = parsed_document(data)
    marker = with_coordinates(document.content)
    if not needs_sums:
        marker.setdefault("sums", {"path": f"{block_path(season, block)}.sums", "bytes": 0, "sha256": digest_of(b"")})
    problem = type_problem(marker, document.checked) or content_problem(
        cast(Marker, marker), season, block, layout, samples
    )
    if problem:
        raise ValueError(problem)
    return cast(Marker, marker)


def with_coordinates(document: dict[str, Any]) -> dict[str, Any]:
    """A marker with `coordinates`; those of earlier versions list wavelength and FWHM as `spectrum` instead."""
    known = {key: value for key, value in document.items() if key not in FORMER}
    if "spectrum" in document:
        spectrum = document["spectrum"]
        known["coordinates"] = dict(zip(("wavelength", "fwhm"), spectrum, strict=True)) if spectrum else {}
    return known


def type_problem(marker: dict[str, Any], checked: bool) -> str:
    """The first key or type that is wrong; empty where all are right. checked: whether it had a checksum that fits."""
    missing = sorted(FinishedBlock.__annotations__.keys() - marker.keys())
    if missing:
        return f"it lacks {', '.join(missing)}"
    unknown = sorted(marker.keys() - MarkerSchema.model_fields.keys())
    if unknown and not checked:
        return f"it has the unknown key {unknown[0]!r}"
    try:
        MarkerSchema.model_validate(marker)
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        return f"{'.'.join(map(str, first['loc']))}: {first['msg']}"
    return ""


def content_problem(marker: Marker, season: int, block: int, layout: StoreLayout, samples: int | None) -> str:
    """What of a marker is not that of its block; empty where nothing is."""
    if marker["block"] != block:
        return f"it is the marker of block {marker['block']}"
    arrays = layout.arrays()
    expected = {shard_path(season, name, block, len(spec.dims)) for name, spec in arrays.items()}
    if "sources" in marker:
        expected.add(f"{season}/published/{block:06d}.h5")
    paths = [file["path"] for file in marker["files"]]
    if len(paths) != len(expected) or set(paths) != expected:
        other = sorted(expected.symmetric_difference(paths)) or sorted(paths)
        return f"expected one file in each of {len(expected)} arrays of the block, got {len(paths)}, see {other[0]}"
    sums = f"{block_path(season, block)}.sums"
    if marker["sums"]["path"] != sums:
        return f"expected the sums {sums}, got {marker['sums']['path']}"
    rows = len(marker["provenance"])
    planned = len(marker["sources"]) if samples is None and "sources" in marker else samples
    if not 0 < rows <= layout.capacity or planned not in (None, rows):
        return f"expected provenance of {layout.capacity if planned is None else planned} samples, got {rows}"
    lacking = sorted({spec.group for spec in arrays.values()} - marker["hashes"].keys())
    if lacking:
        return f"it lacks the input hash of {', '.join(lacking)}"
    lengths = {
        spec.name: math.prod(spec.lengths)
        for spec in layout.coordinates(season)
        if spec.values is None and spec.lengths
    }
    found = {name: len(values) for name, values in marker["coordinates"].items()}
    return "" if found == lengths else f"expected coordinates with the lengths {lengths}, got {found}"
