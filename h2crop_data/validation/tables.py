"""The tables and documents of the index: there, readable, with the columns and types of the format."""

from __future__ import annotations

import io
import json
from collections.abc import Callable
from typing import Any

import geopandas as gpd
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
from pyarrow import types

from h2crop_data.constants import TIERS
from h2crop_data.errors import StoreError
from h2crop_data.validation.findings import Findings, Progress, error, first
from h2crop_data.validation.release import Release

Kind = Callable[[Any], bool]
#: What reading a damaged table may raise; Arrow's own errors are kinds of these.
TABLE_ERRORS = (StoreError, OSError, ValueError, KeyError, TypeError, AttributeError, NotImplementedError, MemoryError)


def is_text(column: Any) -> bool:
    """Text, or a column without any value."""
    return bool(types.is_string(column) or types.is_large_string(column) or types.is_null(column))


def is_number(column: Any) -> bool:
    """Floating numbers, or a column without any value."""
    return bool(types.is_floating(column) or types.is_null(column))


def is_list_of(kind: Kind) -> Kind:
    """Lists of something, or a column without any value."""

    def is_right(column: Any) -> bool:
        some = types.is_list(column) or types.is_large_list(column)
        return bool(types.is_null(column) or (some and kind(column.value_type)))

    return is_right


def is_time(column: Any) -> bool:
    """Times, or a column without any value."""
    return bool(types.is_timestamp(column) or types.is_null(column))


def is_shape(column: Any) -> bool:
    """Geometry as WKB."""
    return bool(types.is_binary(column) or types.is_large_binary(column))


TEXTS, NUMBERS = is_list_of(is_text), is_list_of(is_number)
PLACE: dict[str, Kind] = {"epsg": types.is_integer, "x0": is_number, "y0": is_number}
SAMPLES: dict[str, Kind] = {
    **dict.fromkeys(("sample", "cell", "split", "square", "scene"), is_text),
    **PLACE,
    **dict.fromkeys(("block", "slot"), types.is_integer),
    **dict.fromkeys(("sun_elevation", "sun_azimuth", "across_off_nadir"), is_number),
    "scene_time": is_time,
    "geometry": is_shape,
}
PLANNED: dict[str, Kind] = dict.fromkeys(("flagged_share", "labelled_share"), is_number)
OF_ENMAP: dict[str, Kind] = dict.fromkeys(("enmap_cloud_share", "enmap_flagged_share", "enmap_fill_share"), is_number)
OF_SENTINEL2: dict[str, Kind] = {"s2_dates": TEXTS, "s2_clear_share": NUMBERS, "s2_gaps": TEXTS}
OF_LABELS: dict[str, Kind] = {"parcels": types.is_integer, "declared_share": is_number, "class_share": NUMBERS}
BLOCKS: dict[str, Kind] = {
    **dict.fromkeys(("season", "block", "epsg", "samples"), types.is_integer),
    **dict.fromkeys(("split", "square", "scene", "hash_s2", "hash_enmap", "hash_labels"), is_text),
    **dict.fromkeys(("software", "recipe", "taxonomy"), is_text),
    "files": TEXTS,
    "sha256": TEXTS,
}
SCENES: dict[str, Kind] = {
    **dict.fromkeys(("id", "sensor", "collection", "baseline", "reason"), is_text),
    "season": types.is_integer,
    "time": is_time,
    "taken": types.is_boolean,
    "offset": lambda column: bool(types.is_integer(column) or types.is_null(column)),
}
PARCELS: dict[str, Kind] = {
    **dict.fromkeys(("country", "parcel_id", "code", "hcat3", "split"), is_text),
    **dict.fromkeys(("number", *(f"tier{tier}" for tier in range(1, TIERS + 1))), types.is_integer),
    "geometry": is_shape,
}
SQUARES: dict[str, Kind] = {
    **dict.fromkeys(("column", "row", "samples"), types.is_integer),
    "split": is_text,
    "geometry": is_shape,
}
#: Columns without which a row means nothing.
NEVER_EMPTY = (
    *("sample", "cell", "split", "slot", "block", "season", "number", "id", "files", "sha256", "geometry"),
    *("s2_items", "s2_dates", "s2_gaps", "s2_clear_share", "class_share", "enmap_processing"),
)
DOCUMENTS = ("recipes", "classes", "statistics")


def columns_of(release: Release, name: str) -> dict[str, Kind]:
    """The columns a table of the index must have."""
    if name == "blocks":
        more: dict[str, Kind] = {"s2_items": TEXTS} if release.layout.s2_bands else {}
        return BLOCKS | more | ({"retracted": is_text, "part": is_text} if release.minor else {})
    if not name.startswith("samples"):
        return {"scenes": SCENES, "squares": SQUARES}.get(name, PARCELS)
    built = not release.is_imported(int(name.split("-")[1]))
    return {
        **SAMPLES,
        **(PLANNED if built else {}),
        **(OF_ENMAP if release.layout.enmap_bands else {}),
        **({"enmap_processing": TEXTS} if release.layout.enmap_bands and built else {}),
        **(OF_SENTINEL2 if release.layout.s2_bands else {}),
        **(OF_LABELS if release.layout.labels else {}),
    }


def wanted_parts(release: Release) -> tuple[list[str], list[str]]:
    """The parts of the index that a release must have, and those it may have."""
    seasons = sorted(release.named_seasons)
    built = [season for season in seasons if not release.is_imported(season)]
    wanted = [*DOCUMENTS, *(f"samples-{season}" for season in seasons), "blocks", "scenes", "manifest"]
    if release.layout.labels:
        wanted += [f"parcels-{season}" for season in built]
    if release.minor:
        wanted += ["root"]
    return wanted, ["squares", "datasheet", *(f"parcels-{season}" for season in seasons)]


def read_index(release: Release, progress: Progress) -> Findings:
    """Read every part of the index that can be relied on; tells of those that are missing or not as they must be."""
    index = release.attributes["index"]
    for name in DOCUMENTS:
        if name in index and release.is_here(index[name]):
            yield from read_document(release, name)
    wanted, possible = wanted_parts(release)
    if lost := [name for name in wanted if name not in index]:
        told = f"its index has no {first(lost)}"
        yield error("index", "zarr.json", told, release.remedies.sealed())
    tables = [name for name in (*wanted, *possible) if name not in (*DOCUMENTS, "manifest", "root", "datasheet")]
    for done, name in enumerate(dict.fromkeys(tables)):
        progress(done, len(tables), f"index, {name}")
        if name in index and release.is_here(index[name]):
            yield from read_table(release, name)
    for name in wanted:
        known = name in release.tables or name in release.documents or name in ("manifest", "root")
        if not known:
            release.cannot_check(f"what needs the index {name}: it is lost or damaged")


def read_document(release: Release, name: str) -> Findings:
    """Read a JSON document of the index."""
    path = release.index_path(name)
    try:
        document = json.loads(release.files.read(path))
    except (StoreError, ValueError, RecursionError) as failure:
        release.damaged.add(path)
        yield error("index", path, f"is no JSON document ({failure})", release.remedies.sealed())
        return
    if isinstance(document, list if name == "classes" else dict):
        release.documents[name] = document
    else:
        release.damaged.add(path)
        yield error("index", path, f"is a {type(document).__name__}", release.remedies.wrong_index())


def read_table(release: Release, name: str) -> Findings:
    """Read a table of the index and check its columns; one that lacks a column is not relied on."""
    path = release.index_path(name)
    try:
        data = release.files.read(path)
        schema = pq.read_schema(io.BytesIO(data))
        problems = column_problems(columns_of(release, name), schema)
        with_geometry = "geometry" in schema.names
        table: pd.DataFrame = (gpd if with_geometry else pd).read_parquet(io.BytesIO(data))
    except TABLE_ERRORS as failure:
        release.damaged.add(path)
        told = f"is no table of the index ({type(failure).__name__}: {str(failure)[:100]})"
        yield error("index", path, told, release.remedies.sealed())
        return
    empty = [column for column in NEVER_EMPTY if column in table and table[column].isna().any()]
    problems += [f"column {column} has rows without a value" for column in empty]
    for problem in problems:
        yield error("index", path, problem, release.remedies.wrong_index())
    if problems:
        release.damaged.add(path)
        return
    if name == "blocks" and not release.minor:
        table = table.assign(retracted="", part="")
    release.tables[name] = table
    release.counts["tables"] += 1


def column_problems(wanted: dict[str, Kind], schema: pa.Schema) -> list[str]:
    """In words, the columns that are missing or have another type."""
    problems = []
    for column, is_right in wanted.items():
        if column not in schema.names:
            problems.append(f"has no column {column}")
        elif not is_right(schema.field(column).type):
            problems.append(f"column {column} has the type {schema.field(column).type}")
    return problems
