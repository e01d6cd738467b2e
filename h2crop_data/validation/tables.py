"""The tables and documents of the index: there, readable, with the columns and types of the format."""

from __future__ import annotations

import io
import json
from collections.abc import Callable, Sequence
from typing import Any

import geopandas as gpd
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
from pyarrow import types

from h2crop_data.cube.columns import (
    BLOCKS_SINCE_1_1,
    FRAMES,
    GEOMETRY,
    IMPORTED_COLUMNS,
    PARCELS,
    SCENES,
    SQUARES,
    Column,
)
from h2crop_data.errors import StoreError
from h2crop_data.validation.checks.source_checks import SourceChecks
from h2crop_data.validation.findings import Findings, Progress, error, first
from h2crop_data.validation.release import Release

IsKind = Callable[[Any], bool]
#: What reading a damaged table may raise; Arrow's own errors are kinds of these.
TABLE_ERRORS = (StoreError, OSError, ValueError, KeyError, TypeError, AttributeError, NotImplementedError, MemoryError)


def is_text(column: Any) -> bool:
    """Text, or a column without any value."""
    return bool(types.is_string(column) or types.is_large_string(column) or types.is_null(column))


def is_number(column: Any) -> bool:
    """Floating numbers, or a column without any value."""
    return bool(types.is_floating(column) or types.is_null(column))


def is_list_of(kind: IsKind) -> IsKind:
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


KINDS: dict[str, IsKind] = {
    "text": is_text,
    "texts": is_list_of(is_text),
    "integer": types.is_integer,
    "nullable integer": lambda column: bool(types.is_integer(column) or types.is_null(column)),
    "number": is_number,
    "numbers": is_list_of(is_number),
    "time": is_time,
    "boolean": types.is_boolean,
    "geometry": is_shape,
}
TABLES = {"scenes": SCENES, "squares": SQUARES}
DOCUMENTS = ("recipes", "classes", "statistics")


def columns_of(release: Release, name: str) -> list[Column]:
    """The columns that a table of the index may have; those of sources come with the store's layout."""
    if name == "blocks":
        return [
            column for column in release.layout.block_columns() if release.minor or column.name not in BLOCKS_SINCE_1_1
        ]
    if name.startswith("dates"):
        return release.layout.date_columns()
    if name.startswith("frames"):
        return list(FRAMES)
    if not name.startswith("samples"):
        return list(TABLES.get(name, PARCELS))
    imported = release.is_imported(int(name.split("-")[1]))
    columns = [*release.layout.sample_columns(), GEOMETRY]
    return [*(column for column in columns if column.imported), *IMPORTED_COLUMNS] if imported else columns


def wanted_parts(release: Release, sources: Sequence[SourceChecks[Any]]) -> tuple[list[str], list[str]]:
    """The parts of the index that a release must have, and those it may have."""
    seasons = sorted(release.named_seasons)
    built = [season for season in seasons if not release.is_imported(season)]
    wanted = [*DOCUMENTS, *(f"samples-{season}" for season in seasons), "blocks", "scenes", "manifest"]
    wanted += [f"{table}-{season}" for source in sources for table in source.season_tables for season in built]
    if release.minor:
        wanted += ["root"]
    by_season = [f"{table}-{season}" for season in seasons for table in ("parcels", "dates", "frames")]
    return wanted, ["squares", "datasheet", *by_season]


def check_index(release: Release, sources: Sequence[SourceChecks[Any]], progress: Progress) -> Findings:
    """Read every part of the index that can be relied on; tells of those that are missing or not as they must be."""
    index = release.attributes["index"]
    for name in DOCUMENTS:
        if name in index and release.is_here(index[name]):
            yield from read_document(release, name)
    wanted, possible = wanted_parts(release, sources)
    if lost := [name for name in wanted if name not in index]:
        told = f"its index has no {first(lost)}"
        yield error("index", "zarr.json", told, release.remedies.sealed())
    tables = [name for name in (*wanted, *possible) if name not in (*DOCUMENTS, "manifest", "root", "datasheet")]
    for done, name in enumerate(dict.fromkeys(tables)):
        progress(done, len(tables), f"index, {name}")
        if name in index and release.is_here(index[name]):
            yield from check_table(release, name)
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


def check_table(release: Release, name: str) -> Findings:
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
    stated = [column.name for column in columns_of(release, name) if column.filled and column.name in table]
    empty = [column for column in stated if table[column].isna().any()]
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


def column_problems(columns: Sequence[Column], schema: pa.Schema) -> list[str]:
    """In words, the columns that are missing or have another type."""
    problems = []
    for column in columns:
        if column.name not in schema.names:
            problems += [f"has no column {column.name}"] if column.always else []
        elif not KINDS[column.dtype](schema.field(column.name).type):
            problems.append(f"column {column.name} has the type {schema.field(column.name).type}")
    return problems
