"""Tables of the index as Parquet files: each column has the Arrow type that is stated for it, and says what it means.

A table with geometry is GeoParquet 1.1 with a covering box of each row. The same rows give the same bytes.
"""

from __future__ import annotations

import io
import json
from collections.abc import Iterator, Sequence
from typing import Any

import geopandas as gpd
import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import shapely

from h2crop_data.cube.columns import BOX, EDGES, GEOMETRY, TYPES, Column, table_schema
from h2crop_data.errors import StoreError

#: Rows that are turned into bytes at a time.
ROWS_AT_ONCE = 32_768
#: What Arrow raises for values that are not of a type.
UNFIT = (pa.ArrowException, TypeError, ValueError, OverflowError)


def encode_table(name: str, table: pd.DataFrame, columns: Sequence[Column]) -> bytes:
    """A table of the index as Parquet.

    name: of the table, for errors. columns: what it may have, in order; those it lacks are left out. Raises StoreError
    for a column that is not among them, for rows without a value that must have one, and for a value that does not fit
    its type.
    """
    stated = [column for column in columns if column.name in table]
    if unknown := sorted(set(map(str, table)) - {column.name for column in stated}):
        raise StoreError(
            f"{name}: the columns {', '.join(unknown)} are not declared; state them in the format of the source"
        )
    schema = table_schema(stated).with_metadata(file_metadata(table, stated))
    buffer = io.BytesIO()
    with pq.ParquetWriter(buffer, schema, compression="zstd") as writer:
        for start in range(0, max(len(table), 1), ROWS_AT_ONCE):
            rows = table.iloc[start : start + ROWS_AT_ONCE]
            arrays = list(arrays_of(name, rows, stated, start))
            writer.write_batch(pa.record_batch(arrays, schema=schema))
    return buffer.getvalue()


def arrays_of(name: str, rows: pd.DataFrame, columns: Sequence[Column], start: int) -> Iterator[pa.Array]:
    """The values of some rows, column by column, then their boxes. start: number of the first row, for errors."""
    for column in columns:
        if column.dtype == "geometry":
            shapes = np.asarray(rows[column.name].to_numpy(), object)
            yield filled_array(pa.array(shapely.to_wkb(shapes), TYPES[column.dtype]), name, column, start)
        else:
            yield array_of(name, rows[column.name], column, start)
    if isinstance(rows, gpd.GeoDataFrame):
        edges = shapely.bounds(rows.geometry.to_numpy()).T
        yield pa.StructArray.from_arrays([pa.array(edge) for edge in edges], EDGES)


def array_of(name: str, values: pd.Series[Any], column: Column, start: int) -> pa.Array:
    """The values of a column as its type; NaN is null."""
    kind = TYPES[column.dtype]
    try:
        array = pa.array(values, kind, from_pandas=True)
    except UNFIT as error:
        place = next(place for place in range(len(values)) if not fits(values.iloc[place : place + 1], kind))
        raise StoreError(
            f"{name}, row {start + place}, column {column.name}: expected {kind}, got {values.tolist()[place]!r}; "
            "correct what made the row"
        ) from error
    if isinstance(array, pa.ChunkedArray):
        array = array.combine_chunks()
    return filled_array(array, name, column, start)


def fits(values: pd.Series[Any], kind: pa.DataType) -> bool:
    """Whether values are of a type."""
    try:
        pa.array(values, kind, from_pandas=True)
    except UNFIT:
        return False
    return True


def filled_array(array: pa.Array, name: str, column: Column, start: int) -> pa.Array:
    """The values of a column, after a look for rows that must have one."""
    if column.filled and array.null_count:
        row = start + int(np.flatnonzero(array.is_null().to_numpy(zero_copy_only=False))[0])
        raise StoreError(
            f"{name}, row {row}, column {column.name}: has no value, expected {array.type}; correct what made the row"
        )
    return array


def file_metadata(table: pd.DataFrame, columns: Sequence[Column]) -> dict[str, str]:
    """What readers of geometry and of integers that may be missing look for in the metadata of a file."""
    metadata = {}
    if isinstance(table, gpd.GeoDataFrame):
        of_all = [float(edge) for edge in table.total_bounds]
        facts: dict[str, Any] = {
            "encoding": "WKB",
            "geometry_types": sorted(set(table.geom_type.dropna())),
            "covering": {"bbox": {edge: [BOX, edge] for edge in EDGES}},
            **({"bbox": of_all} if np.isfinite(of_all).all() else {}),
        }
        # Without a CRS it is longitude and latitude (OGC:CRS84).
        geo = {"version": "1.1.0", "primary_column": GEOMETRY.name, "columns": {GEOMETRY.name: facts}}
        metadata["geo"] = json.dumps(geo, sort_keys=True)
    if nullable := [column.name for column in columns if column.dtype == "nullable integer"]:
        described = [
            {"name": one, "field_name": one, "pandas_type": "int64", "numpy_type": "Int64", "metadata": None}
            for one in nullable
        ]
        metadata["pandas"] = json.dumps({"index_columns": [], "column_indexes": [], "columns": described})
    return metadata
