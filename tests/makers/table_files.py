"""Tables of the index as files that hold whatever a test wants, with the types of the file they replace."""

from __future__ import annotations

import io

import geopandas as gpd
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq


def table_bytes(table: pd.DataFrame, like: bytes) -> bytes:
    """A table as Parquet. like: the file it replaces; columns whose values fit its types keep them."""
    buffer = io.BytesIO()
    boxed = {"write_covering_bbox": True} if isinstance(table, gpd.GeoDataFrame) and len(table) else {}
    table.to_parquet(buffer, index=False, **boxed)
    written, before = pq.read_table(buffer), pq.read_schema(io.BytesIO(like))
    for place, name in enumerate(written.column_names):
        if name in before.names:
            field = before.field(name)
            try:
                values = written.column(place).cast(field.type)
            except pa.ArrowException:
                continue
            nullable = field.nullable or values.null_count > 0
            written = written.set_column(place, field.with_nullable(nullable), values)
    result = io.BytesIO()
    pq.write_table(written, result, compression="zstd")
    return result.getvalue()
