"""Sealing: coordinates, index, statistics, manifest, and last the root document that makes a release.

Everything written here follows from the blocks; sealing again writes the same bytes under the same names, and a reader
sees the new release when the root is replaced.
"""

from __future__ import annotations

import hashlib
import io
import json
import math
from dataclasses import dataclass
from functools import reduce
from pathlib import Path
from typing import Any

import geopandas as gpd
import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
from numcodecs.vlen import VLenUTF8
from numcodecs.zstd import Zstd
from numpy.typing import NDArray

from h2crop_data.constants import MONTHS, TIERS
from h2crop_data.cube.schema import (
    FORMAT_VERSION,
    CoordinateSpec,
    StoreLayout,
    coordinates,
    group_document,
)
from h2crop_data.cube.shard import load_root
from h2crop_data.cube.statistics import add_partial, summary
from h2crop_data.cube.store import FileRecord, StoreBuilder, canonical_json


@dataclass(frozen=True)
class FinishedSeason:
    """What sealing needs to know of a season, all of whose blocks are done."""

    season: int
    #: One row a slot in use, in order: at least sample, slot, x0, y0, epsg, geometry; goes to the index as it is.
    samples: gpd.GeoDataFrame
    #: One row a block, in order.
    blocks: pd.DataFrame
    scenes: pd.DataFrame
    #: None where the store has no labels.
    parcels: gpd.GeoDataFrame | None
    #: Wavelength and FWHM in nm of each block's bands; empty without EnMAP.
    spectra: list[tuple[list[float], list[float]]]
    #: Partial statistics by split.
    statistics: dict[str, dict[str, Any]]
    #: Shards: path, bytes, sha256.
    files: list[FileRecord]
    recipe: dict[str, Any]


def seal(
    builder: StoreBuilder,
    layout: StoreLayout,
    seasons: list[FinishedSeason],
    classes: list[dict[int, str]],
    software: str,
) -> int:
    """Make a release of the finished seasons; gives its number. Nothing changed since the last one: that one's number.

    classes: names of the class ids of each tier.
    """
    seasons = sorted(seasons, key=lambda finished: finished.season)
    identity = {str(finished.season): season_identity(finished) for finished in seasons}
    current = current_attributes(builder.folder)
    if current and current["seasons"] == identity:
        return int(current["release"])
    release = int(current["release"]) + 1 if current else 1
    members: dict[str, dict[str, Any]] = {}
    files: list[FileRecord] = []
    for finished in seasons:
        documents, written = write_season(builder, layout, finished)
        members |= documents
        files += written + finished.files
    index, written = write_index(builder, release, seasons, classes)
    files += written
    manifest = pd.DataFrame(files, columns=["path", "bytes", "sha256"]).sort_values("path", ignore_index=True)
    name = f"index/r{release}/manifest.parquet"
    record = builder.describe(builder.write(name, [parquet_bytes(manifest)]))
    attributes = {
        "title": "h2crop store",
        "format_version": FORMAT_VERSION,
        "release": release,
        "layout": layout.attributes(),
        "seasons": identity,
        "index": {**index, "manifest": name},
        "manifest": {"bytes": record["bytes"], "sha256": record["sha256"], "files": len(manifest)},
        "software": software,
    }
    builder.write_json("zarr.json", group_document(attributes, dict(sorted(members.items()))))
    return release


def current_attributes(folder: Path) -> dict[str, Any] | None:
    """The root attributes of the store's current release, or None before the first."""
    if not (folder / "zarr.json").exists():
        return None
    attributes: dict[str, Any] = load_root(folder)["attributes"]
    return attributes


def season_identity(finished: FinishedSeason) -> dict[str, Any]:
    """What of a season stands in the root: its size, and a hash of its blocks that changes when any of them does."""
    content = json.dumps(
        [[file["path"], file["sha256"]] for file in sorted(finished.files, key=lambda file: file["path"])]
    )
    return {
        "blocks": len(finished.blocks),
        "samples": len(finished.samples),
        "sha256": hashlib.sha256(content.encode()).hexdigest(),
    }


def write_season(
    builder: StoreBuilder, layout: StoreLayout, finished: FinishedSeason
) -> tuple[dict[str, dict[str, Any]], list[FileRecord]]:
    """Metadata documents and coordinates of a season; gives the documents by path, and the files written."""
    slots = len(finished.blocks) * layout.capacity
    prefix = str(finished.season)
    documents = {prefix: group_document({"season": finished.season})}
    for name, spec in layout.arrays().items():
        documents[f"{prefix}/{name}"] = spec.metadata(slots, layout.capacity, layout.codec)
    files: list[str] = []
    for coordinate in coordinates(layout):
        values = coordinate_values(coordinate, layout, finished, slots)
        documents[f"{prefix}/{coordinate.name}"] = coordinate.metadata(values.shape)
        for chunk, data in enumerate(encode_coordinate(coordinate, values)):
            name = f"{prefix}/{coordinate.name}/c.{chunk}" + ".0" * (values.ndim - 1)
            files.append(builder.write(name, [data]))
    files += [builder.write_json(f"{path}/zarr.json", document) for path, document in documents.items()]
    return documents, [builder.describe(name) for name in files]


def coordinate_values(
    coordinate: CoordinateSpec, layout: StoreLayout, finished: FinishedSeason, slots: int
) -> NDArray[Any]:
    """All values of a coordinate; slots not in use have its fill value."""
    if coordinate.name == "month":
        return np.arange(1, MONTHS + 1, dtype=np.int8)
    if coordinate.name == "tier":
        return np.arange(1, TIERS + 1, dtype=np.int8)
    if coordinate.name == "s2_band":
        return np.array(layout.s2_bands, dtype=object)
    if coordinate.name in ("wavelength", "fwhm"):
        which = ("wavelength", "fwhm").index(coordinate.name)
        by_block = np.array([spectrum[which] for spectrum in finished.spectra], np.float32)
        values = np.repeat(by_block, layout.capacity, axis=0)
        unused = np.setdiff1d(np.arange(slots), finished.samples["slot"].to_numpy())
        values[unused] = coordinate.fill
        return values
    dtype = object if coordinate.data_type == "string" else np.dtype(coordinate.data_type)
    values = np.full(slots, coordinate.fill, dtype)
    used = finished.samples["slot"].to_numpy()
    values[used] = True if coordinate.name == "valid" else finished.samples[coordinate.name].to_numpy()
    return values


def encode_coordinate(coordinate: CoordinateSpec, values: NDArray[Any]) -> list[bytes]:
    """The chunks of a coordinate along its first axis, each filled up to whole size."""
    size = coordinate.chunk or len(values)
    padded = np.full((math.ceil(len(values) / size) * size, *values.shape[1:]), coordinate.fill, values.dtype)
    padded[: len(values)] = values
    compress = Zstd(level=3).encode
    chunks = np.split(padded, len(padded) // size)
    if coordinate.data_type == "string":
        return [bytes(compress(VLenUTF8().encode(chunk))) for chunk in chunks]
    return [bytes(compress(np.ascontiguousarray(chunk).astype(coordinate.data_type).tobytes())) for chunk in chunks]


def write_index(
    builder: StoreBuilder, release: int, seasons: list[FinishedSeason], classes: list[dict[int, str]]
) -> tuple[dict[str, str], list[FileRecord]]:
    """The index files of a release; gives their paths by name, and the files written."""
    tables: dict[str, bytes] = {}
    for finished in seasons:
        tables[f"samples-{finished.season}.parquet"] = parquet_bytes(finished.samples)
        if finished.parcels is not None:
            tables[f"parcels-{finished.season}.parquet"] = parquet_bytes(finished.parcels)
    tables["blocks.parquet"] = parquet_bytes(stacked(seasons, "blocks"))
    tables["scenes.parquet"] = parquet_bytes(stacked(seasons, "scenes"))
    tables["statistics.json"] = canonical_json(statistics(seasons)).encode()
    tables["classes.json"] = canonical_json(
        [{str(number): name for number, name in tier.items()} for tier in classes]
    ).encode()
    tables["recipes.json"] = canonical_json({str(one.season): one.recipe for one in seasons}).encode()
    folder = f"index/r{release}"
    files = [builder.describe(builder.write(f"{folder}/{name}", [data])) for name, data in tables.items()]
    return {name.split(".")[0]: f"{folder}/{name}" for name in tables}, files


def stacked(seasons: list[FinishedSeason], table: str) -> pd.DataFrame:
    """One table of all seasons, with the season in front."""
    parts = []
    for finished in seasons:
        part: pd.DataFrame = getattr(finished, table).copy()
        part.insert(0, "season", finished.season)
        parts.append(part)
    return pd.concat(parts, ignore_index=True)


def statistics(seasons: list[FinishedSeason]) -> dict[str, Any]:
    """Statistics of the release: reflectance over the training split, class pixels by tier, split and season."""
    training = [one.statistics["train"] for one in seasons if "train" in one.statistics]
    result: dict[str, Any] = {"reflectance": {"split": "train", "units": "1"}, "class_pixels": {}}
    if training:
        total = reduce(add_partial, training)
        result["reflectance"]["samples"] = total["samples"]
        if "enmap" in total:
            result["reflectance"]["enmap"] = [summary(band) for band in total["enmap"]]
        if "s2" in total:
            result["reflectance"]["s2_by_month"] = [[summary(band) for band in month] for month in total["s2"]]
            whole_year = reduce(add_partial, ({"samples": 0, "enmap": month} for month in total["s2"]))
            result["reflectance"]["s2"] = [summary(band) for band in whole_year["enmap"]]
    for finished in seasons:
        result["class_pixels"][str(finished.season)] = {
            split: {name: partial[name] for name in ("label", "prior") if name in partial}
            for split, partial in sorted(finished.statistics.items())
        }
    return result


def parquet_bytes(table: pd.DataFrame) -> bytes:
    """A table as Parquet (GeoParquet where it has geometry)."""
    buffer = io.BytesIO()
    options: dict[str, Any] = (
        {"write_covering_bbox": True} if isinstance(table, gpd.GeoDataFrame) and len(table) else {}
    )
    table.to_parquet(buffer, index=False, compression="zstd", **options)
    stored = pq.read_table(buffer)
    for place, column in enumerate(stored.schema):
        # A column of nothing but empty lists has no type; all our lists that may be empty are of text.
        if pa.types.is_list(column.type) and pa.types.is_null(column.type.value_type):
            texts = stored.column(place).cast(pa.list_(pa.string()))
            stored = stored.set_column(place, pa.field(column.name, texts.type), texts)
    buffer = io.BytesIO()
    pq.write_table(stored, buffer, compression="zstd")
    return buffer.getvalue()
