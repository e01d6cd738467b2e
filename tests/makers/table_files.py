"""Tables of the index as files that hold whatever a test wants, with the types of the file they replace."""

from __future__ import annotations

import io

import geopandas as gpd
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
from pyarrow import types


def table_bytes(table: pd.DataFrame, like: bytes) -> bytes:
    """A table as Parquet. like: the file it replaces; columns whose values fit its types keep them."""
    buffer = io.BytesIO()
    boxed = {"write_covering_bbox": True} if isinstance(table, gpd.GeoDataFrame) and len(table) else {}
    table.to_parquet(buffer, index=False, **boxed)
    written, before = pq.read_table(buffer), pq.read_schema(io.BytesIO(like))
    for place, name in enumerate(written.column_names):
        if name in before.names and is_alike(written.field(place).type, before.field(name).type):
            field = before.field(name)
            values = written.column(place).cast(field.type)
            nullable = field.nullable or values.null_count > 0
            written = written.set_column(place, field.with_nullable(nullable), values)
    result = io.BytesIO()
    pq.write_table(written, result, compression="zstd")
    return result.getvalue()


def is_alike(one: pa.DataType, other: pa.DataType) -> bool:
    """Whether two types differ by size alone, or one is that of a column without any value."""
    kinds = (types.is_integer, types.is_list, types.is_timestamp, is_text, is_binary)
    return types.is_null(one) or one == other or any(kind(one) and kind(other) for kind in kinds)


def is_text(kind: pa.DataType) -> bool:
    """Texts of any length."""
    return types.is_string(kind) or types.is_large_string(kind)


def is_binary(kind: pa.DataType) -> bool:
    """Bytes of any length."""
    return types.is_binary(kind) or types.is_large_binary(kind)
